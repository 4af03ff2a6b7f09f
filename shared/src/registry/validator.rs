//! What tells an upstream's document from its later versions.

use std::time::Duration;

use http::header::{CACHE_CONTROL, DATE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};
use jiff::fmt::rfc2822::DateTimeParser;

/// How old a document must be for its date to tell it from the next one, which RFC 9110 (section
/// 8.8.2.2) asks for. A younger one may change within the second that the date names.
const MIN_AGE: Duration = Duration::from_secs(60);

/// What the upstream tells a document from its later versions by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validator {
    /// Its entity tag.
    Tag(HeaderValue),
    /// When it was modified, long before it was sent.
    Modified(HeaderValue),
}

impl Validator {
    /// The validator in a response's headers. `None` if there is none, or the response must not be
    /// kept.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let controls = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        if controls.flat_map(|control| control.split(',')).any(|each| each.trim().eq_ignore_ascii_case("no-store")) {
            return None;
        }
        if let Some(tag) = headers.get(ETAG) {
            return tag.to_str().is_ok_and(is_entity_tag).then(|| Self::Tag(tag.clone()));
        }
        let moment = |text: &str| DateTimeParser::new().parse_timestamp(text).ok();
        let age = moment(text(DATE)?)?.duration_since(moment(text(LAST_MODIFIED)?)?);
        let is_old = Duration::try_from(age).is_ok_and(|age| age >= MIN_AGE);
        headers.get(LAST_MODIFIED).filter(|_| is_old).cloned().map(Self::Modified)
    }
}

/// Whether this is an entity tag. Some upstreams send others.
fn is_entity_tag(text: &str) -> bool {
    let opaque = text.strip_prefix("W/").unwrap_or(text);
    let opaque = opaque.strip_prefix('"').and_then(|opaque| opaque.strip_suffix('"'));
    opaque.is_some_and(|opaque| !opaque.contains('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(http::HeaderName, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn answers_are_told_apart_by_tag_or_by_a_date_long_past() {
        let (date, long_ago, just_now) =
            ("Sat, 21 Nov 2026 10:01:00 GMT", "Sat, 21 Nov 2026 10:00:00 GMT", "Sat, 21 Nov 2026 10:00:01 GMT");
        let tag = |text: &'static str| Some(Validator::Tag(HeaderValue::from_static(text)));
        for (sent, validator) in [
            (vec![(ETAG, "\"a\"")], tag("\"a\"")),
            (vec![(ETAG, "W/\"a\""), (LAST_MODIFIED, long_ago), (DATE, date)], tag("W/\"a\"")),
            (vec![(LAST_MODIFIED, long_ago), (DATE, date)], Some(Validator::Modified(long_ago.parse().unwrap()))),
            (vec![(LAST_MODIFIED, just_now), (DATE, date)], None),
            (vec![(LAST_MODIFIED, date), (DATE, long_ago)], None),
            (vec![(LAST_MODIFIED, long_ago)], None),
            (vec![(LAST_MODIFIED, "long ago"), (DATE, date)], None),
            (vec![(ETAG, "a"), (LAST_MODIFIED, long_ago), (DATE, date)], None),
            (vec![(ETAG, "\"a\""), (CACHE_CONTROL, "private, No-Store")], None),
            (vec![(ETAG, "\"a\""), (CACHE_CONTROL, "private, no-cache")], tag("\"a\"")),
            (vec![], None),
        ] {
            assert_eq!(Validator::of(&headers(&sent)), validator, "{sent:?}");
        }
    }
}
