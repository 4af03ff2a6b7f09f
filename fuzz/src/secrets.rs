use shared::secret::{MailedCode, Token, TokenKind};

const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const HEX: &[u8] = b"0123456789abcdef";
const CROCKFORD: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Tokens and reset codes, compared with independent parsers of their documented formats.
///
/// A fuzzer cannot guess a checksum, so the text is also tried with the correct one appended.
pub fn secrets(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    token(text);
    for (_, prefix, alphabet, _, digits) in KINDS {
        if text.starts_with(prefix) {
            token(&format!("{text}{}", checksum(text, alphabet, digits)));
        }
    }
    code(text);
}

/// Kind, prefix, alphabet, number of random characters, number of checksum characters.
const KINDS: [(TokenKind, &str, &[u8], usize, usize); 8] = [
    (TokenKind::EmailVerified, "tg_anon_", BASE62, 36, 6),
    (TokenKind::OrgUser, "tg_org_", BASE62, 36, 6),
    (TokenKind::OrgAccess, "oat_", BASE62, 36, 6),
    (TokenKind::ApiKeyLive, "tk_live_", HEX, 56, 8),
    (TokenKind::ApiKeyTest, "tk_test_", HEX, 56, 8),
    (TokenKind::BotApiKey, "shisho_apikey_", BASE62, 37, 6),
    (TokenKind::Bot, "tg_bot_", BASE62, 36, 6),
    (TokenKind::Session, "gs_", BASE62, 36, 6),
];

fn checksum(text: &str, alphabet: &[u8], digits: usize) -> String {
    let (crc, base) = (u64::from(crc32fast::hash(text.as_bytes())), alphabet.len() as u64);
    let places = (0..digits as u32).rev();
    places.map(|place| char::from(alphabet[(crc / base.pow(place) % base) as usize])).collect()
}

fn token(text: &str) {
    let kind = KINDS.into_iter().find_map(|(kind, prefix, alphabet, random, digits)| {
        let body = text.strip_prefix(prefix)?.as_bytes();
        let fits = body.len() == random + digits && body.iter().all(|c| alphabet.contains(c));
        let signed = fits.then(|| &text[..text.len() - digits])?;
        (text[signed.len()..] == checksum(signed, alphabet, digits)).then_some(kind)
    });
    let read = Token::parse(text);
    assert_eq!(read.as_ref().map(Token::kind), kind, "{text:?}");
    let Some(read) = read else { return };
    assert_eq!(read.expose(), text);
    // Found in a longer text too, wherever it begins.
    for longer in [text.to_owned(), format!("x-{text}.tgz"), format!("tg_org_{text}"), format!("{text}{text}")] {
        assert_eq!(Token::found_in(&longer).map(|found| found.hash()), Some(read.hash()), "{longer:?}");
    }
    let shown = read.shown_prefix();
    assert!(text.starts_with(&shown) && text.len() - shown.len() >= 34, "{shown} shows too much");
    assert_eq!(Token::parse(&shown).map(|token| token.kind()), None, "{shown} is a token");
    assert!(!format!("{read:?} {:?}", read.hash()).contains(&text[shown.len()..]), "Debug shows the token");
}

fn code(text: &str) {
    let meant: Option<String> = text
        .trim()
        .chars()
        .filter(|c| *c != '-')
        .map(|c| match c {
            'i' | 'I' | 'l' | 'L' => Some('1'),
            'o' | 'O' => Some('0'),
            _ => Some(c.to_ascii_uppercase()).filter(|c| c.is_ascii() && CROCKFORD.contains(&(*c as u8))),
        })
        .collect();
    let meant = meant.filter(|code| code.len() == 16);
    let read = MailedCode::parse(text);
    assert_eq!(read.as_ref().map(|code| code.expose().replace('-', "")), meant, "{text:?}");
    if let Some(code) = read {
        let again = MailedCode::parse(&code.expose())
            .unwrap_or_else(|| panic!("{text:?} is mailed in a form that does not parse"));
        assert_eq!(again.hash(), code.hash(), "{text:?}");
    }
}
