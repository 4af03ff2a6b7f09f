use http::{HeaderMap, header};
use shared::accept;

/// Media types that the service offers: those of npm and pip, and those of the installation log.
const OFFERED: [&[&str]; 4] = [
    &["application/vnd.npm.install-v1+json"],
    &["text/csv"],
    &["application/json"],
    &["application/vnd.pypi.simple.v1+html", "application/vnd.pypi.simple.latest+html", "text/html"],
];

/// `Accept` and `Accept-Encoding` headers, one per line, compared with an independent parser of RFC
/// 9110.
pub fn accept(data: &[u8]) {
    let lines = || data.split(|c| *c == b'\n').map(<[u8]>::to_vec);
    let (types, codings) = (crate::headers(header::ACCEPT, lines()), crate::headers(header::ACCEPT_ENCODING, lines()));
    let entries: Vec<(String, u16)> = lines().flat_map(|line| entries(&line)).collect();
    for offered in OFFERED {
        let named = entries.iter().filter(|(name, _)| offered.contains(&name.as_str()));
        let expected = named.map(|(_, weight)| *weight).max().unwrap_or(0);
        let wanted = accept::media_weight(&types, offered);
        assert_eq!(wanted, expected, "{offered:?} in {types:?}");
        assert!(wanted <= 1000);
        // The order does not matter.
        let mut reversed: Vec<_> = types.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        reversed.reverse();
        let reversed: HeaderMap = reversed.into_iter().collect();
        assert_eq!(accept::media_weight(&reversed, offered), wanted, "{reversed:?}");
    }
    let named = |coding: &str| entries.iter().find(|(name, _)| name == coding).map(|(_, weight)| *weight);
    let expected = named("gzip").or(named("*")).is_some_and(|weight| weight > 0);
    assert_eq!(accept::accepts_gzip(&codings), expected, "{codings:?}");
}

/// The entries of a header line: names in lower case, weights in thousandths.
fn entries(line: &[u8]) -> Vec<(String, u16)> {
    let visible = |c: &u8| (b' '..=b'~').contains(c) || *c == b'\t';
    let Some(line) = str::from_utf8(line).ok().filter(|line| line.bytes().all(|c| visible(&c))) else { return vec![] };
    let entry = |entry: &str| {
        let (name, parameters) = entry.split_once(';').unwrap_or((entry, ""));
        let name = Some(name.trim()).filter(|name| !name.is_empty())?;
        let mut parameters = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
        let weight = match parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("q")) {
            Some((_, weight)) => thousandths(weight.trim())?,
            None => 1000,
        };
        Some((name.to_ascii_lowercase(), weight))
    };
    line.split(',').filter_map(entry).collect()
}

/// `qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )`
fn thousandths(weight: &str) -> Option<u16> {
    match weight.as_bytes() {
        [b'0'] | [b'0', b'.'] => Some(0),
        [b'1'] | [b'1', b'.'] => Some(1000),
        [b'1', b'.', zeros @ ..] if zeros.len() <= 3 && zeros.iter().all(|c| *c == b'0') => Some(1000),
        [b'0', b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => {
            let places = digits.iter().zip([100, 10, 1]);
            Some(places.map(|(digit, worth)| u16::from(digit - b'0') * worth).sum())
        }
        _ => None,
    }
}
