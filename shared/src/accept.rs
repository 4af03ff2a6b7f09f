//! Content negotiation by the `Accept` and `Accept-Encoding` headers (RFC 9110, section 12.5).

use http::header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderName};
use http::{HeaderMap, HeaderValue};

/// The caller's highest weight for these media types, from 0 (not acceptable) to 1000. Wildcards
/// such as `*/*` do not count: they express no preference.
pub fn media_weight(headers: &HeaderMap, types: &[&str]) -> u16 {
    let named = listed(headers, ACCEPT).filter(|(name, _)| types.iter().any(|known| name.eq_ignore_ascii_case(known)));
    named.map(|(_, weight)| weight).max().unwrap_or(0)
}

/// The caller's highest weight for a language such as `ja`, its regions included, from 0 to 1000.
pub fn language_weight(headers: &HeaderMap, language: &str) -> u16 {
    let is_known = |tag: &str| tag.split('-').next().is_some_and(|primary| primary.eq_ignore_ascii_case(language));
    listed(headers, ACCEPT_LANGUAGE).filter(|(tag, _)| is_known(tag)).map(|(_, weight)| weight).max().unwrap_or(0)
}

/// Whether the caller accepts gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let weight = |coding: &str| {
        let named = listed(headers, ACCEPT_ENCODING).find(|(name, _)| name.eq_ignore_ascii_case(coding));
        named.map(|(_, weight)| weight)
    };
    weight("gzip").or_else(|| weight("*")).is_some_and(|weight| weight > 0)
}

/// The entries of a weighted list. Skips malformed entries.
fn listed(headers: &HeaderMap, header: HeaderName) -> impl Iterator<Item = (String, u16)> {
    let values = headers.get_all(header).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    let entries = values.flat_map(|value| value.split(',')).filter_map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?;
        let weight =
            parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
        let weight = weight.map_or(Some(1000), |(_, weight)| thousandths(weight.trim()))?;
        Some((name.to_owned(), weight))
    });
    entries.collect::<Vec<_>>().into_iter()
}

/// Parses a weight such as `0`, `0.5` or `1.000`.
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, rest) = weight.split_once('.').unwrap_or((weight, ""));
    if rest.len() > 3 || !rest.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let rest: u16 = format!("{rest:0<3}").parse().ok()?;
    match whole {
        "0" => Some(rest),
        "1" if rest == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(header: HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn media_type_has_the_weight_given_by_name() {
        for (values, weight) in [
            (&["application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*"][..], 1000),
            (&["application/vnd.npm.install-v1+json;q=0.7"], 700),
            (&["APPLICATION/VND.NPM.INSTALL-V1+JSON ; Q=0.25"], 250),
            (&["text/html", "application/vnd.npm.install-v1+json"], 1000),
            (&["application/vnd.npm.install-v1+json;q=0"], 0),
            (&["application/vnd.npm.install-v1+json;q=7"], 0),
            (&["application/vnd.npm.install-v1+json;q="], 0),
            (&["application/json"], 0),
            (&["*/*"], 0),
            (&[",,;q=1,"], 0),
            (&[], 0),
        ] {
            let found = media_weight(&accepting(ACCEPT, values), &["application/vnd.npm.install-v1+json"]);
            assert_eq!(found, weight, "{values:?}");
        }
    }

    #[test]
    fn gzip_is_accepted_if_named_with_a_positive_weight() {
        for (value, accepts) in [
            ("gzip, deflate, br", true),
            ("gzip;q=0.1", true),
            ("*", true),
            ("gzip;q=0, *", false),
            ("br", false),
            ("identity", false),
        ] {
            assert_eq!(accepts_gzip(&accepting(ACCEPT_ENCODING, &[value])), accepts, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
