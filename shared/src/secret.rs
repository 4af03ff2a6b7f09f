//! Secrets: how tokens and mailed codes are generated, parsed, hashed and shown.
//!
//! This is the only module that generates or hashes a secret.
//!
//! # Format
//!
//! A token is a prefix that names its kind, random characters, and a checksum of everything before
//! it:
//!
//! | kind | prefix | random | checksum |
//! |---|---|---|---|
//! | [`TokenKind::EmailVerified`] | `tg_anon_` | 36 base62 | 6 base62 |
//! | [`TokenKind::OrgUser`] | `tg_org_` | 36 base62 | 6 base62 |
//! | [`TokenKind::OrgAccess`] | `oat_` | 36 base62 | 6 base62 |
//! | [`TokenKind::ApiKeyLive`] | `tk_live_` | 56 hex | 8 hex |
//! | [`TokenKind::ApiKeyTest`] | `tk_test_` | 56 hex | 8 hex |
//! | [`TokenKind::BotApiKey`] | `shisho_apikey_` | 37 base62 | 6 base62 |
//! | [`TokenKind::Bot`] | `tg_bot_` | 36 base62 | 6 base62 |
//! | [`TokenKind::Session`] | `gs_` | 36 base62 | 6 base62 |
//!
//! Base62 is `0-9A-Za-z` in this order. The checksum is CRC-32 (IEEE, as in zlib) of the ASCII
//! bytes before it, most significant digit first, left-padded with `0`. It is not a secret: it lets
//! the service refuse a mistyped or made-up token without a database read, and gives secret
//! scanners a precise pattern.
//!
//! 36 base62 characters have 214 bits, 56 hex characters 224. The prefix that is shown again
//! ([`Token::shown_prefix`]) leaves at least 166 bits unknown: 166 for `oat_`, 190 or more for the
//! other kinds.

use std::fmt;

use rand::TryRng;
use rand::rngs::SysRng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const HEX: &[u8; 16] = b"0123456789abcdef";
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The operating system's random number generator failed. No secret is generated.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random number generator failed")]
pub struct RandomnessUnavailable;

/// The kind of a token, which its prefix tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// `tg_anon_`: a person, verified by e-mail.
    EmailVerified,
    /// `tg_org_`: a member of an organization.
    OrgUser,
    /// `oat_`: a server or device of an organization.
    OrgAccess,
    /// `tk_live_`: a tool of an organization, in production.
    ApiKeyLive,
    /// `tk_test_`: a tool of an organization, in development.
    ApiKeyTest,
    /// `shisho_apikey_`: the API key of a bot. Valid only together with the bot's id.
    BotApiKey,
    /// `tg_bot_`: a CI job, which acts as a bot.
    Bot,
    /// `gs_`: a person's session in the console. Sent only as a cookie.
    Session,
}

/// The format of the part after the prefix.
struct Body {
    alphabet: &'static [u8],
    random: usize,
    checksum: usize,
}

impl TokenKind {
    /// Every kind.
    pub const ALL: [TokenKind; 8] = [
        TokenKind::EmailVerified,
        TokenKind::OrgUser,
        TokenKind::OrgAccess,
        TokenKind::ApiKeyLive,
        TokenKind::ApiKeyTest,
        TokenKind::BotApiKey,
        TokenKind::Bot,
        TokenKind::Session,
    ];

    /// The prefix of every token of this kind.
    pub const fn prefix(self) -> &'static str {
        match self {
            TokenKind::EmailVerified => "tg_anon_",
            TokenKind::OrgUser => "tg_org_",
            TokenKind::OrgAccess => "oat_",
            TokenKind::ApiKeyLive => "tk_live_",
            TokenKind::ApiKeyTest => "tk_test_",
            TokenKind::BotApiKey => "shisho_apikey_",
            TokenKind::Bot => "tg_bot_",
            TokenKind::Session => "gs_",
        }
    }

    const fn body(self) -> Body {
        match self {
            TokenKind::EmailVerified
            | TokenKind::OrgUser
            | TokenKind::OrgAccess
            | TokenKind::Bot
            | TokenKind::Session => Body { alphabet: BASE62, random: 36, checksum: 6 },
            TokenKind::ApiKeyLive | TokenKind::ApiKeyTest => Body { alphabet: HEX, random: 56, checksum: 8 },
            TokenKind::BotApiKey => Body { alphabet: BASE62, random: 37, checksum: 6 },
        }
    }

    /// How many characters after the prefix may be shown again. 8 for `oat_`, for compatibility;
    /// for the others at most as many as leave 190 bits unknown.
    const fn shown(self) -> usize {
        match self {
            TokenKind::EmailVerified
            | TokenKind::OrgUser
            | TokenKind::BotApiKey
            | TokenKind::Bot
            | TokenKind::Session => 4,
            TokenKind::ApiKeyLive | TokenKind::ApiKeyTest | TokenKind::OrgAccess => 8,
        }
    }
}

/// A token in plain text: shown once when it is issued, received with each use, never stored.
///
/// `Debug` is redacted, and there is no `Display` or `Serialize`. Only [`Token::expose`] returns
/// the characters, and only [`ShownOnce`] serializes them.
///
/// ```
/// use shared::secret::{Token, TokenKind};
///
/// let token = Token::generate(TokenKind::OrgUser)?;
/// assert!(token.expose().starts_with("tg_org_"));
/// assert_eq!(Token::parse(token.expose()).map(|same| same.hash()), Some(token.hash()));
/// // The checksum refuses a mistyped token without a read.
/// assert!(Token::parse(&format!("{}x", token.expose())).is_none());
/// // `Debug` is redacted, so no log line shows a token.
/// assert!(!format!("{token:?}").contains(&token.expose()[12..]));
/// # Ok::<(), shared::secret::RandomnessUnavailable>(())
/// ```
#[derive(Clone)]
pub struct Token {
    kind: TokenKind,
    plain: SecretString,
}

impl Token {
    /// Generates a token from the operating system's random number generator.
    pub fn generate(kind: TokenKind) -> Result<Self, RandomnessUnavailable> {
        let body = kind.body();
        let mut plain = String::with_capacity(kind.prefix().len() + body.random + body.checksum);
        plain.push_str(kind.prefix());
        push_random(&mut plain, body.alphabet, body.random)?;
        let checksum = checksum(&plain, &body);
        plain.push_str(&checksum);
        Ok(Self { kind, plain: plain.into() })
    }

    /// Parses a received token. `None` unless prefix, length, alphabet and checksum are correct.
    pub fn parse(text: &str) -> Option<Self> {
        let kind = TokenKind::ALL.into_iter().find(|kind| text.starts_with(kind.prefix()))?;
        let body = kind.body();
        let characters = &text.as_bytes()[kind.prefix().len()..];
        if characters.len() != body.random + body.checksum || !characters.iter().all(|c| body.alphabet.contains(c)) {
            return None;
        }
        // All bytes are ASCII here, so the split is at a character boundary.
        let (signed, given) = text.split_at(text.len() - body.checksum);
        (checksum(signed, &body) == given).then(|| Self { kind, plain: text.to_owned().into() })
    }

    /// A token at any offset in a text: prefix, body and correct checksum. Text that contains one is
    /// neither sent to an upstream nor stored in the installation log.
    pub fn found_in(text: &str) -> Option<Self> {
        TokenKind::ALL.into_iter().find_map(|kind| {
            let body = kind.body();
            let length = kind.prefix().len() + body.random + body.checksum;
            text.match_indices(kind.prefix()).find_map(|(at, _)| Self::parse(text.get(at..at + length)?))
        })
    }

    /// The kind of the token.
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// The hash to store: SHA-256 of the whole token. A fast hash suffices, since 190 random bits
    /// cannot be guessed.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of_text(self.plain.expose_secret())
    }

    /// The first characters, which may be shown again so that people can recognize their tokens.
    pub fn shown_prefix(&self) -> String {
        self.plain.expose_secret()[..self.kind.prefix().len() + self.kind.shown()].to_owned()
    }

    /// The token in full: only for the one response or mail that delivers it.
    pub fn expose(&self) -> &str {
        self.plain.expose_secret()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}[redacted])", self.kind.prefix())
    }
}

/// A token in the one response that delivers it: the only form that can be serialized.
#[derive(Debug, Clone)]
pub struct ShownOnce(pub Token);

impl serde::Serialize for ShownOnce {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

/// A token received in a body. A malformed one is not an error: malformed and unknown must look
/// identical.
#[derive(Debug, Clone)]
pub enum Received {
    /// A well-formed token.
    Token(Token),
    /// Anything else.
    Malformed,
}

impl<'de> serde::Deserialize<'de> for Received {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = SecretString::deserialize(deserializer)?;
        Ok(Token::parse(text.expose_secret()).map_or(Received::Malformed, Received::Token))
    }
}

/// SHA-256 of a [`Token`], its key in the table. Not a secret, but kept out of logs.
///
/// Compared in constant time.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// SHA-256 of a text.
    pub(crate) fn of_text(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Its bytes.
    pub(crate) fn bytes(self) -> [u8; 32] {
        self.0
    }

    /// 64 lower-case hex digits, as stored.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// Parses the output of [`TokenHash::to_hex`].
    pub fn from_hex(digits: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).ok()?;
        // One hash has one spelling: `hex` alone would also read upper case.
        Some(Self(bytes)).filter(|hash| hash.to_hex() == digits)
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

/// The token of one form of a session: it proves that a page of this session holds the form, and is
/// the form's idempotency key. 16 hex digits that differ from form to form, and a proof of 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormToken(String);

impl FormToken {
    /// A new token for a form in this session.
    pub fn generate(session: &Token) -> Result<Self, RandomnessUnavailable> {
        let mut nonce = String::with_capacity(Self::NONCE);
        push_random(&mut nonce, HEX, Self::NONCE)?;
        Ok(Self(format!("{nonce}{}", Self::proof(session, &nonce))))
    }

    /// Parses a received token. `None` unless this session made it.
    pub fn verify(session: &Token, text: &str) -> Option<Self> {
        let (nonce, proof) = text.split_at_checked(Self::NONCE)?;
        let is_proof = proof.as_bytes().ct_eq(Self::proof(session, nonce).as_bytes());
        bool::from(is_proof).then(|| Self(text.to_owned()))
    }

    /// The token as text, for the form's hidden field.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    const NONCE: usize = 16;

    /// All inputs have a fixed length, so a plain hash is as good as an HMAC.
    fn proof(session: &Token, nonce: &str) -> String {
        TokenHash::of_text(&format!("form {nonce} {}", session.expose())).to_hex()
    }
}

/// A one-time code that proves access to a mailbox: 16 characters of Crockford's base 32, 80 bits.
///
/// `Debug` is redacted. [`MailedCode::expose`] is only for the mail that delivers it.
#[derive(Clone)]
pub struct MailedCode(SecretString);

impl MailedCode {
    /// Generates a code from the operating system's random number generator.
    pub fn generate() -> Result<Self, RandomnessUnavailable> {
        let mut plain = String::with_capacity(16);
        push_random(&mut plain, CROCKFORD, 16)?;
        Ok(Self(plain.into()))
    }

    /// Parses a typed code. Ignores case and dashes; reads `I` and `L` as 1, `O` as 0.
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

    /// The hash to store. A fast hash suffices: 80 random bits cannot be guessed within a code's
    /// lifetime, at most an hour.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of_text(self.0.expose_secret())
    }

    /// The code as the mail shows it: `XXXX-XXXX-XXXX-XXXX`.
    pub fn expose(&self) -> String {
        let plain = self.0.expose_secret();
        [&plain[..4], &plain[4..8], &plain[8..12], &plain[12..]].join("-")
    }
}

/// A code received in a body; `None` if malformed. That is not an error: malformed and wrong must
/// look identical.
#[derive(Debug, Clone)]
pub struct TypedCode(pub Option<MailedCode>);

impl<'de> serde::Deserialize<'de> for TypedCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = SecretString::deserialize(deserializer)?;
        Ok(Self(MailedCode::parse(text.expose_secret())))
    }
}

impl fmt::Debug for MailedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailedCode([redacted])")
    }
}

/// 80 random bits from the operating system, for ids that are not secret.
pub(crate) fn random_80_bits() -> Result<u128, RandomnessUnavailable> {
    let mut bytes = [0; 16];
    SysRng.try_fill_bytes(&mut bytes[6..]).map_err(|_| RandomnessUnavailable)?;
    Ok(u128::from_be_bytes(bytes))
}

/// A secret of `count` base62 characters, for use outside the table: 43 have 256 bits.
#[cfg(feature = "oidc")]
pub(crate) fn random_text(count: usize) -> Result<SecretString, RandomnessUnavailable> {
    let mut plain = String::with_capacity(count);
    push_random(&mut plain, BASE62, count)?;
    Ok(plain.into())
}

/// SHA-256 of a text.
#[cfg(feature = "oidc")]
pub(crate) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Appends `count` characters, drawn uniformly from the alphabet.
fn push_random(text: &mut String, alphabet: &[u8], count: usize) -> Result<(), RandomnessUnavailable> {
    // Rejection sampling: bytes at or above the largest multiple of the alphabet's length would
    // favour its first characters.
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

/// 16 hex digits that name a public file's content.
#[cfg(feature = "console")]
pub(crate) fn content_hash(text: &str) -> String {
    TokenHash::of_text(text).to_hex()[..16].to_owned()
}

/// The checksum of `text`, in the alphabet of the body.
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

    /// Computed with Python's `zlib.crc32`, so that independent code pins the format and byte
    /// order.
    #[test]
    fn tokens_with_checksums_from_zlib_are_accepted() {
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
    fn token_bodies_have_the_documented_length() {
        let length = |kind: TokenKind| Token::generate(kind).unwrap().expose().len() - kind.prefix().len();
        assert_eq!(length(TokenKind::EmailVerified), 42);
        assert_eq!(length(TokenKind::OrgUser), 42);
        assert_eq!(length(TokenKind::OrgAccess), 42);
        assert_eq!(length(TokenKind::ApiKeyLive), 64);
        assert_eq!(length(TokenKind::ApiKeyTest), 64);
        assert_eq!(length(TokenKind::BotApiKey), 43);
    }

    #[test]
    fn every_kind_has_at_least_190_random_bits() {
        for kind in TokenKind::ALL {
            let body = kind.body();
            let bits = body.random as f64 * (body.alphabet.len() as f64).log2();
            assert!(bits >= 190.0, "{kind:?} has {bits} bits");
        }
    }

    #[test]
    fn random_characters_are_uniformly_distributed() {
        let mut text = String::new();
        push_random(&mut text, BASE62, 62_000).unwrap();
        for character in BASE62 {
            let count = text.bytes().filter(|c| c == character).count();
            // Expected 1,000 with a standard deviation of 31: eight deviations fail once in 10^13
            // runs.
            assert!((750..1_250).contains(&count), "{} occurs {count} times", char::from(*character));
        }
    }

    #[test]
    fn debug_output_contains_neither_secret_nor_hash() {
        let token = Token::generate(TokenKind::OrgUser).unwrap();
        let body = &token.expose()[7..];
        assert_eq!(format!("{token:?}"), "Token(tg_org_[redacted])");
        let shown = format!("{token:?} {:?}", token.hash());
        assert!(shown.ends_with("TokenHash([redacted])"));
        assert!(!shown.contains(&body[..8]) && !shown.contains(&token.hash().to_hex()[..8]), "{shown}");
    }

    #[test]
    fn mailed_code_parses_in_any_typed_form() {
        let code = MailedCode::parse("0123-4567-89AB-CDEF").unwrap();
        assert_eq!(code.expose(), "0123-4567-89AB-CDEF");
        for typed in [
            "0123456789abcdef",
            "o1234567-89ab-cdef",
            "0i23-4567-89AB-CDEF",
            "0l23456789ABCDEF",
            " 0123-4567-89AB-CDEF\n",
        ] {
            assert_eq!(MailedCode::parse(typed).unwrap().hash(), code.hash(), "{typed}");
        }
        for other in [
            "",
            "0123-4567-89AB-CDE",
            "0123-4567-89AB-CDEFG",
            "0123-4567-89AB-CDEU",
            "0123 4567 89AB CDEF",
            "０123456789ABCDEF",
        ] {
            assert!(MailedCode::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn mailed_code_has_16_characters_and_is_redacted_in_debug() {
        let code = MailedCode::generate().unwrap();
        assert_eq!(code.expose().len(), 19);
        assert_eq!(MailedCode::parse(&code.expose()).unwrap().hash(), code.hash());
        assert_eq!(format!("{code:?}"), "MailedCode([redacted])");
    }

    #[test]
    fn shown_prefix_has_4_or_8_characters_of_the_body() {
        for kind in TokenKind::ALL {
            let token = Token::generate(kind).unwrap();
            let shown = match kind {
                TokenKind::EmailVerified
                | TokenKind::OrgUser
                | TokenKind::Bot
                | TokenKind::BotApiKey
                | TokenKind::Session => 4,
                TokenKind::ApiKeyLive | TokenKind::ApiKeyTest | TokenKind::OrgAccess => 8,
            };
            assert_eq!(token.shown_prefix(), token.expose()[..kind.prefix().len() + shown], "{kind:?}");
        }
    }

    #[test]
    fn random_ids_have_80_bits_and_differ() {
        let ids: std::collections::BTreeSet<u128> = (0..64).map(|_| random_80_bits().unwrap()).collect();
        assert_eq!(ids.len(), 64);
        let (all, any) = ids.iter().fold((u128::MAX, 0), |(all, any), id| (all & id, any | id));
        // A bit that is the same in all 64 ids, out of 80, happens once in 10^17 runs.
        assert_eq!((all, any), (0, (1 << 80) - 1));
    }

    #[test]
    fn hash_round_trips_through_hex() {
        let hash = Token::generate(TokenKind::OrgUser).unwrap().hash();
        assert_eq!(TokenHash::from_hex(&hash.to_hex()), Some(hash));
        assert_eq!(TokenHash::from_hex("zz"), None);
        assert_eq!(TokenHash::from_hex(&"g".repeat(64)), None);
    }

    proptest! {
        #[test]
        fn generated_token_is_accepted(kind in any_kind()) {
            let token = Token::generate(kind).unwrap();
            let parsed = Token::parse(token.expose()).unwrap();
            prop_assert_eq!(parsed.kind(), kind);
            prop_assert_eq!(parsed.hash(), token.hash());
            prop_assert!(token.expose().starts_with(&token.shown_prefix()));
            prop_assert!(token.expose().bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'));
        }

        #[test]
        fn token_with_one_wrong_character_is_refused(kind in any_kind(), place in 0..100_usize, replacement in "[ -~]") {
            let token = Token::generate(kind).unwrap().expose().to_owned();
            let place = place % token.len();
            prop_assume!(token[place..=place] != replacement);
            let mistyped = format!("{}{replacement}{}", &token[..place], &token[place + 1..]);
            prop_assert!(Token::parse(&mistyped).is_none());
        }

        #[test]
        fn token_with_surrounding_text_is_refused(kind in any_kind(), extra in "[ -~\n\u{e9}]{1,3}") {
            let token = Token::generate(kind).unwrap().expose().to_owned();
            let parsed_before = Token::parse(&format!("{extra}{token}"));
            let parsed_after = Token::parse(&format!("{token}{extra}"));
            prop_assert!(parsed_before.is_none() && parsed_after.is_none());
        }

        #[test]
        fn token_in_a_longer_text_is_found(
            kind in any_kind(),
            before in "(tg_org_|oat_|tk_live_)?\\PC{0,20}",
            after in "\\PC{0,20}",
        ) {
            let token = Token::generate(kind).unwrap();
            let text = format!("{before}{}{after}", token.expose());
            prop_assert_eq!(Token::found_in(&text).map(|found| found.hash()), Some(token.hash()));
            let mistyped = format!("{before}{}{after}", token.expose().replacen('_', "-", 1));
            prop_assert!(Token::found_in(&mistyped).is_none());
        }

        #[test]
        fn arbitrary_text_is_refused_without_a_panic(text in "(tg_org_|tk_live_|oat_|)\\PC{0,80}") {
            prop_assert!(Token::parse(&text).is_none() && Token::found_in(&text).is_none());
        }
    }
}
