use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, header};
use shared::auth::Credential;
use shared::error::Unauthorized;
use shared::registry::credential_in;

/// Well-formed secrets, which a fuzzer cannot guess. A control character, invalid in headers,
/// stands for each.
const GOOD: [(u8, &str); 8] = [
    (1, "tg_anon_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ25DLYQ"),
    (2, "tg_org_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0vAgUq"),
    (3, "oat_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ2kCu51"),
    (4, "tk_live_0123456789abcdef0123456789abcdef0123456789abcdef01234567d854c239"),
    (5, "tk_test_0123456789abcdef0123456789abcdef0123456789abcdef0123456766d5c765"),
    (6, "shisho_apikey_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZa1Unfk8"),
    (7, "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
    (11, "shisho_apikey_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZa1Unfk8:BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
];

/// The control character after which the rest of a line is base64-encoded.
const ENCODED: u8 = 8;

/// `Authorization` headers, one per line, as parsed by the API and by the registries.
pub fn authorization(data: &[u8]) {
    let headers = crate::headers(header::AUTHORIZATION, data.split(|c| *c == b'\n').map(spelled_out));
    let bearer = Credential::from_headers(&headers);
    let at_registries = credential_in(&headers);
    let only = only(&headers);
    if headers.is_empty() {
        assert_eq!(
            (refusal(&bearer), refusal(&at_registries)),
            (Some(Unauthorized::Missing), Some(Unauthorized::Missing))
        );
    }
    match &bearer {
        Ok(credential) => {
            let sent =
                only.and_then(|value| after(value, "bearer")).unwrap_or_else(|| panic!("taken from {headers:?}"));
            assert_eq!(sent, text(credential));
            assert_eq!(
                at_registries.as_ref().ok().map(text).as_deref(),
                Some(sent),
                "the registries refuse a bearer token"
            );
            let secret = sent.split(':').next().unwrap_or_default();
            assert!(!format!("{credential:?}").contains(&secret[secret.len() - 10..]), "Debug shows a credential");
        }
        // A bearer token that was sent is never reported as missing.
        Err(Unauthorized::Missing | Unauthorized::Scheme) => {
            assert_eq!(only.and_then(|value| after(value, "bearer")), None, "{headers:?}");
        }
        Err(Unauthorized::Invalid) => {}
        Err(Unauthorized::Signature | Unauthorized::IdToken) => panic!("not about this header: {bearer:?}"),
    }
    if let (Ok(credential), Err(_)) = (&at_registries, &bearer) {
        let encoded = only.and_then(|value| after(value, "basic")).unwrap_or_else(|| panic!("taken from {headers:?}"));
        let pair = BASE64.decode(encoded).ok().and_then(|pair| String::from_utf8(pair).ok()).unwrap_or_default();
        let (user, password) = pair.split_once(':').unwrap_or_default();
        // The password counts; the user name only if there is none.
        assert_eq!(if password.is_empty() { user } else { password }, text(credential));
    }
}

fn spelled_out(line: &[u8]) -> Vec<u8> {
    let mut parts = line.splitn(2, |c| *c == ENCODED);
    let [plain, encoded] = [parts.next(), parts.next()].map(|part| {
        let part = part?.iter().flat_map(|c| match GOOD.iter().find(|(sign, _)| sign == c) {
            Some((_, secret)) => secret.as_bytes().to_vec(),
            None => vec![*c],
        });
        Some(part.collect::<Vec<u8>>())
    });
    let encoded = encoded.map(|encoded| BASE64.encode(encoded).into_bytes());
    [plain, encoded].into_iter().flatten().flatten().collect()
}

/// The header value, if there is exactly one and it is text.
fn only(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, another) = (values.next()?, values.next());
    value.to_str().ok().filter(|_| another.is_none())
}

/// The credentials after the scheme, trimmed.
fn after<'a>(value: &'a str, scheme: &str) -> Option<&'a str> {
    let is_scheme = value.get(..scheme.len())?.eq_ignore_ascii_case(scheme);
    let rest = is_scheme.then(|| &value[scheme.len()..])?;
    rest.starts_with(' ').then(|| rest.trim_matches(' '))
}

fn refusal(read: &Result<Credential, Unauthorized>) -> Option<Unauthorized> {
    read.as_ref().err().copied()
}

/// A credential as it is sent in a header.
fn text(credential: &Credential) -> String {
    match credential {
        Credential::Bot(id, key) => format!("{}:{id}", key.expose()),
        Credential::Token(token) => token.expose().to_owned(),
    }
}
