//! Secrets: the tokens we mint, their formats and checksums, and what of them may be stored or shown.
//!
//! This is the only module that generates or hashes a secret.
//!
//! # Format
//!
//! A token is a prefix that names its kind, random characters, and a checksum of everything before it:
//!
//! | kind | prefix | random | checksum |
//! |---|---|---|---|
//! | [`TokenKind::EmailVerified`] | `tg_anon_` | 36 base62 | 6 base62 |
//! | [`TokenKind::OrgUser`] | `tg_org_` | 36 base62 | 6 base62 |
//! | [`TokenKind::OrgAccess`] | `oat_` | 36 base62 | 6 base62 |
//! | [`TokenKind::ApiKeyLive`] | `tk_live_` | 56 hex | 8 hex |
//! | [`TokenKind::ApiKeyTest`] | `tk_test_` | 56 hex | 8 hex |
//! | [`TokenKind::BotApiKey`] | `shisho_apikey_` | 37 base62 | 6 base62 |
//!
//! Base62 is `0-9A-Za-z` in this order. The checksum is CRC-32 (IEEE, as in zlib) of the ASCII bytes before it, most
//! significant digit first, left-padded with `0`. It keeps no secret: it lets a mistyped or made-up token be refused
//! without touching the database, and gives secret scanners a precise pattern.
//!
//! 36 base62 characters are 214 bits, 56 hex characters 224. What is shown of a token again
//! ([`Token::shown_prefix`]) leaves at least 166 of them unknown (190 where we chose its length ourselves).

use std::fmt;

use rand::TryRng;
use rand::rngs::SysRng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const HEX: &[u8; 16] = b"0123456789abcdef";
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The operating system's random number generator did not answer. Nothing is minted then.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random number generator failed")]
pub struct RandomnessUnavailable;

/// What a token is for; its prefix says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// `tg_anon_`: one person, known by e-mail.
    EmailVerified,
    /// `tg_org_`: a member of an organization.
    OrgUser,
    /// `oat_`: a server or device of an organization.
    OrgAccess,
    /// `tk_live_`: a tool of an organization, in production.
    ApiKeyLive,
    /// `tk_test_`: a tool of an organization, in development.
    ApiKeyTest,
    /// `shisho_apikey_`: the API key of a bot. It counts only together with the bot's id.
    BotApiKey,
}

/// The shape of what follows the prefix.
struct Body {
    alphabet: &'static [u8],
    random: usize,
    checksum: usize,
}

impl TokenKind {
    /// Every kind there is.
    pub const ALL: [TokenKind; 6] = [
        TokenKind::EmailVerified,
        TokenKind::OrgUser,
        TokenKind::OrgAccess,
        TokenKind::ApiKeyLive,
        TokenKind::ApiKeyTest,
        TokenKind::BotApiKey,
    ];

    /// The characters every token of this kind starts with.
    pub const fn prefix(self) -> &'static str {
        match self {
            TokenKind::EmailVerified => "tg_anon_",
            TokenKind::OrgUser => "tg_org_",
            TokenKind::OrgAccess => "oat_",
            TokenKind::ApiKeyLive => "tk_live_",
            TokenKind::ApiKeyTest => "tk_test_",
            TokenKind::BotApiKey => "shisho_apikey_",
        }
    }

    const fn body(self) -> Body {
        match self {
            TokenKind::EmailVerified | TokenKind::OrgUser | TokenKind::OrgAccess => {
                Body { alphabet: BASE62, random: 36, checksum: 6 }
            }
            TokenKind::ApiKeyLive | TokenKind::ApiKeyTest => Body { alphabet: HEX, random: 56, checksum: 8 },
            TokenKind::BotApiKey => Body { alphabet: BASE62, random: 37, checksum: 6 },
        }
    }

    /// How many characters after the prefix may be shown again. Reference 004 shows 8 of an `oat_`; of the others
    /// we show what leaves at least 190 bits unknown.
    const fn shown(self) -> usize {
        match self {
            TokenKind::EmailVerified | TokenKind::OrgUser | TokenKind::BotApiKey => 4,
            TokenKind::ApiKeyLive | TokenKind::ApiKeyTest | TokenKind::OrgAccess => 8,
        }
    }
}

/// A token in plain text: shown once to whom it is minted for, received with each use, never stored.
///
/// `Debug` is redacted and there is no `Display` or `Serialize`; [`Token::expose`] is the one way to the characters, and
/// [`ShownOnce`] the one to an answer.
#[derive(Clone)]
pub struct Token {
    kind: TokenKind,
    plain: SecretString,
}

impl Token {
    /// Mints a token from the operating system's generator.
    pub fn generate(kind: TokenKind) -> Result<Self, RandomnessUnavailable> {
        let body = kind.body();
        let mut plain = String::with_capacity(kind.prefix().len() + body.random + body.checksum);
        plain.push_str(kind.prefix());
        push_random(&mut plain, body.alphabet, body.random)?;
        let checksum = checksum(&plain, &body);
        plain.push_str(&checksum);
        Ok(Self { kind, plain: plain.into() })
    }

    /// Reads a token that somebody sent. `None` unless prefix, length, alphabet and checksum are right.
    pub fn parse(text: &str) -> Option<Self> {
        let kind = TokenKind::ALL.into_iter().find(|kind| text.starts_with(kind.prefix()))?;
        let body = kind.body();
        let characters = &text.as_bytes()[kind.prefix().len()..];
        if characters.len() != body.random + body.checksum || !characters.iter().all(|c| body.alphabet.contains(c)) {
            return None;
        }
        // All bytes are ASCII from here on, so the split cannot fall into a character.
        let (signed, given) = text.split_at(text.len() - body.checksum);
        (checksum(signed, &body) == given).then(|| Self { kind, plain: text.to_owned().into() })
    }

    /// What the token is for.
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// What is stored of it: SHA-256 of the whole token. A fast hash is right here: nobody can guess 190 random bits.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of_text(self.plain.expose_secret())
    }

    /// The beginning that may be shown again, so that people can tell their tokens apart.
    pub fn shown_prefix(&self) -> String {
        self.plain.expose_secret()[..self.kind.prefix().len() + self.kind.shown()].to_owned()
    }

    /// The token itself: for the one answer or mail that hands it over, and nothing else.
    pub fn expose(&self) -> &str {
        self.plain.expose_secret()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}[redacted])", self.kind.prefix())
    }
}

/// A token in the one answer that hands it over: the only form in which it can be serialized.
#[derive(Debug, Clone)]
pub struct ShownOnce(pub Token);

impl serde::Serialize for ShownOnce {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

/// A token that somebody sent in a body. What cannot be one is [`Received::Malformed`], not an error: whether it cannot
/// be one or is not known is for nobody to tell apart.
#[derive(Debug, Clone)]
pub enum Received {
    /// It has the form of a token.
    Token(Token),
    /// It has not.
    Malformed,
}

impl<'de> serde::Deserialize<'de> for Received {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = SecretString::deserialize(deserializer)?;
        Ok(Token::parse(text.expose_secret()).map_or(Received::Malformed, Received::Token))
    }
}

/// SHA-256 of a [`Token`]: what the table is searched by. Not a secret, yet kept out of logs all the same.
///
/// Equality takes the same time wherever the two differ.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// SHA-256 of a text.
    pub(crate) fn of_text(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// 64 lower-case hex digits, as in the table.
    pub fn to_hex(self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            hex.push(char::from(HEX[usize::from(byte >> 4)]));
            hex.push(char::from(HEX[usize::from(byte & 15)]));
        }
        hex
    }

    /// Reads what [`TokenHash::to_hex`] wrote.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let value = |digit: u8| HEX.iter().position(|c| *c == digit);
            *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
        }
        Some(Self(bytes))
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash([redacted])")
    }
}

impl serde::Serialize for TokenHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> serde::Deserialize<'de> for TokenHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = String::deserialize(deserializer)?;
        Self::from_hex(&hex).ok_or_else(|| serde::de::Error::custom("not a SHA-256 in hex"))
    }
}

/// A one-time code that proves that somebody reads an address's mail: 16 characters of Crockford's base 32, 80 bits.
///
/// `Debug` is redacted; [`ResetCode::expose`] is for the one mail that carries it.
#[derive(Clone)]
pub struct ResetCode(SecretString);

impl ResetCode {
    /// Makes a code from the operating system's generator.
    pub fn generate() -> Result<Self, RandomnessUnavailable> {
        let mut plain = String::with_capacity(16);
        push_random(&mut plain, CROCKFORD, 16)?;
        Ok(Self(plain.into()))
    }

    /// Reads a code that somebody typed: case and dashes do not matter, `I` and `L` are read as 1, `O` as 0.
    pub fn parse(text: &str) -> Option<Self> {
        let read = |character: char| match character.to_ascii_uppercase() {
            'I' | 'L' => '1',
            'O' => '0',
            other => other,
        };
        let plain: String = text.trim().chars().filter(|c| *c != '-').map(read).collect();
        let is_code = plain.len() == 16 && plain.bytes().all(|c| CROCKFORD.contains(&c));
        is_code.then(|| Self(plain.into()))
    }

    /// What is stored of it. A fast hash is right here: 80 random bits cannot be tried out within the hour that it lives.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of_text(self.0.expose_secret())
    }

    /// The code as the mail shows it: `XXXX-XXXX-XXXX-XXXX`.
    pub fn expose(&self) -> String {
        let plain = self.0.expose_secret();
        [&plain[..4], &plain[4..8], &plain[8..12], &plain[12..]].join("-")
    }
}

/// A code that somebody sent in a body, if it can be one. That it cannot is not an error of its own: whether a code
/// cannot be one or does not count is for nobody to tell apart.
#[derive(Debug, Clone)]
pub struct TypedCode(pub Option<ResetCode>);

impl<'de> serde::Deserialize<'de> for TypedCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = SecretString::deserialize(deserializer)?;
        Ok(Self(ResetCode::parse(text.expose_secret())))
    }
}

impl fmt::Debug for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetCode([redacted])")
    }
}

/// 80 random bits from the operating system's generator, for ids that are not secret.
pub(crate) fn random_80_bits() -> Result<u128, RandomnessUnavailable> {
    let mut bytes = [0; 16];
    SysRng.try_fill_bytes(&mut bytes[6..]).map_err(|_| RandomnessUnavailable)?;
    Ok(u128::from_be_bytes(bytes))
}

/// Appends `count` characters, each of the alphabet equally likely.
fn push_random(text: &mut String, alphabet: &[u8], count: usize) -> Result<(), RandomnessUnavailable> {
    // A byte at or above the largest multiple of the alphabet's length is thrown away: taking it modulo the length
    // would make the first characters of the alphabet more likely.
    let fair = 256 / alphabet.len() * alphabet.len();
    let mut missing = count;
    let mut bytes = [0; 64];
    while missing > 0 {
        SysRng.try_fill_bytes(&mut bytes).map_err(|_| RandomnessUnavailable)?;
        for byte in bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair).take(missing) {
            text.push(char::from(alphabet[byte % alphabet.len()]));
            missing -= 1;
        }
    }
    Ok(())
}

/// The checksum of `text`, written in the body's own alphabet.
fn checksum(text: &str, body: &Body) -> String {
    let base = body.alphabet.len();
    let mut rest = crc32fast::hash(text.as_bytes()) as usize;
    let mut digits = vec!['0'; body.checksum];
    for digit in digits.iter_mut().rev() {
        *digit = char::from(body.alphabet[rest % base]);
        rest /= base;
    }
    digits.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_kind() -> impl Strategy<Value = TokenKind> {
        prop::sample::select(TokenKind::ALL.to_vec())
    }

    /// Computed with Python's `zlib.crc32`, so that format and byte order are pinned by somebody else's code.
    #[test]
    fn tokens_with_checksums_made_by_zlib_are_accepted() {
        for token in [
            "tg_org_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0vAgUq",
            "tg_anon_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ25DLYQ",
            "oat_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ2kCu51",
            "tk_live_0123456789abcdef0123456789abcdef0123456789abcdef01234567d854c239",
            "tk_test_0123456789abcdef0123456789abcdef0123456789abcdef0123456766d5c765",
            "shisho_apikey_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZa1Unfk8",
        ] {
            assert!(Token::parse(token).is_some(), "{token}");
        }
    }

    #[test]
    fn bodies_have_the_length_of_the_contract() {
        let length = |kind: TokenKind| Token::generate(kind).unwrap().expose().len() - kind.prefix().len();
        assert_eq!(length(TokenKind::EmailVerified), 42);
        assert_eq!(length(TokenKind::OrgUser), 42);
        assert_eq!(length(TokenKind::OrgAccess), 42);
        assert_eq!(length(TokenKind::ApiKeyLive), 64);
        assert_eq!(length(TokenKind::ApiKeyTest), 64);
        assert_eq!(length(TokenKind::BotApiKey), 43);
    }

    #[test]
    fn every_kind_keeps_190_random_bits() {
        for kind in TokenKind::ALL {
            let body = kind.body();
            let bits = body.random as f64 * (body.alphabet.len() as f64).log2();
            assert!(bits >= 190.0, "{kind:?} has {bits} bits");
        }
    }

    #[test]
    fn random_characters_use_the_whole_alphabet_evenly() {
        let mut text = String::new();
        push_random(&mut text, BASE62, 62_000).unwrap();
        for character in BASE62 {
            let count = text.bytes().filter(|c| c == character).count();
            // 1,000 expected with a deviation of 31: eight deviations either way fail once in 10^13 runs.
            assert!((750..1_250).contains(&count), "{} came {count} times", char::from(*character));
        }
    }

    #[test]
    fn neither_debug_nor_the_hash_shows_the_secret() {
        let token = Token::generate(TokenKind::OrgUser).unwrap();
        let body = &token.expose()[7..];
        let shown = format!("{token:?} {:?}", token.hash());
        assert!(!shown.contains(&body[..8]) && !shown.contains(&token.hash().to_hex()[..8]), "{shown}");
    }

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        let code = ResetCode::parse("0123-4567-89AB-CDEF").unwrap();
        assert_eq!(code.expose(), "0123-4567-89AB-CDEF");
        for typed in [
            "0123456789abcdef",
            "o1234567-89ab-cdef",
            "0i23-4567-89AB-CDEF",
            "0l23456789ABCDEF",
            " 0123-4567-89AB-CDEF\n",
        ] {
            assert_eq!(ResetCode::parse(typed).unwrap().hash(), code.hash(), "{typed}");
        }
        for other in [
            "",
            "0123-4567-89AB-CDE",
            "0123-4567-89AB-CDEFG",
            "0123-4567-89AB-CDEU",
            "0123 4567 89AB CDEF",
            "０123456789ABCDEF",
        ] {
            assert!(ResetCode::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_code_has_16_characters_and_does_not_show_in_debug() {
        let code = ResetCode::generate().unwrap();
        assert_eq!(code.expose().len(), 19);
        assert_eq!(ResetCode::parse(&code.expose()).unwrap().hash(), code.hash());
        assert!(!format!("{code:?}").contains(&code.expose()[..4]));
    }

    #[test]
    fn a_hash_survives_being_stored() {
        let hash = Token::generate(TokenKind::OrgUser).unwrap().hash();
        assert_eq!(TokenHash::from_hex(&hash.to_hex()), Some(hash));
        assert_eq!(TokenHash::from_hex("zz"), None);
        assert_eq!(TokenHash::from_hex(&"g".repeat(64)), None);
    }

    proptest! {
        #[test]
        fn what_is_generated_is_accepted(kind in any_kind()) {
            let token = Token::generate(kind).unwrap();
            let parsed = Token::parse(token.expose()).unwrap();
            prop_assert_eq!(parsed.kind(), kind);
            prop_assert_eq!(parsed.hash(), token.hash());
            prop_assert!(token.expose().starts_with(&token.shown_prefix()));
            prop_assert!(token.expose().bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'));
        }

        #[test]
        fn one_wrong_character_is_refused(kind in any_kind(), place in 0..100_usize, replacement in "[ -~]") {
            let token = Token::generate(kind).unwrap().expose().to_owned();
            let place = place % token.len();
            prop_assume!(token[place..=place] != replacement);
            let mistyped = format!("{}{replacement}{}", &token[..place], &token[place + 1..]);
            prop_assert!(Token::parse(&mistyped).is_none());
        }

        #[test]
        fn a_token_with_something_around_it_is_refused(kind in any_kind(), extra in "[ -~\n\u{e9}]{1,3}") {
            let token = Token::generate(kind).unwrap().expose().to_owned();
            let parsed_before = Token::parse(&format!("{extra}{token}"));
            let parsed_after = Token::parse(&format!("{token}{extra}"));
            prop_assert!(parsed_before.is_none() && parsed_after.is_none());
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "(tg_org_|tk_live_|oat_|)\\PC{0,80}") {
            prop_assert!(Token::parse(&text).is_none());
        }
    }
}
