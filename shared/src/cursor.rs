//! Pagination cursors: opaque to the caller, and valid only for the query that returned them.
//!
//! A cursor is a position in the list and a checksum of position and query, in URL-safe base64. The
//! checksum detects altered cursors and cursors of other queries. It is not a signature and need
//! not be one: the partition to read comes from the caller's credential, so a forged position stays
//! within the caller's own list.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::error::ApiError;

const CHECKSUM: usize = 9;

/// The pages of one query: the list, the organization and every filter. Only the limit may change
/// from page to page.
///
/// ```
/// use shared::cursor::Pages;
///
/// let query = Pages(&["api-keys-list", "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "active"]);
/// let cursor = query.next(Some("last id of the page"));
/// let after = query.after(cursor.as_deref(), |id| Some(id.to_owned())).unwrap();
/// assert_eq!(after.as_deref(), Some("last id of the page"));
///
/// // The cursor of one query is 400 for every other.
/// let other = Pages(&["api-keys-list", "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "revoked"]);
/// assert!(other.after(cursor.as_deref(), |id| Some(id.to_owned())).is_err());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Pages<'a>(pub &'a [&'a str]);

impl Pages<'_> {
    /// The position after which the cursor's page begins; `None` for the first page.
    ///
    /// # Errors
    ///
    /// 400 if the cursor is invalid or belongs to another query.
    pub fn after<T>(self, cursor: Option<&str>, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, ApiError> {
        let place = cursor.map(|cursor| read(self.0, cursor)).transpose()?;
        place.map(|place| parse(&place).ok_or_else(foreign)).transpose()
    }

    /// The cursor of the page after this position; `None` on the last page.
    pub fn next(self, place: Option<&str>) -> Option<String> {
        place.map(|place| write(self.0, place))
    }
}

/// Encodes a cursor: the next page begins after `place`. `query` names the list, the organization
/// and every filter.
pub fn write(query: &[&str], place: &str) -> String {
    let mut bytes = checksum(query, place).to_vec();
    bytes.extend_from_slice(place.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes a cursor of this query.
pub fn read(query: &[&str], cursor: &str) -> Result<String, ApiError> {
    let place = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| {
        let (given, place) = bytes.split_at_checked(CHECKSUM)?;
        let place = std::str::from_utf8(place).ok()?;
        (given == checksum(query, place)).then(|| place.to_owned())
    });
    place.ok_or_else(foreign)
}

/// The error for an invalid cursor, or one of another query.
pub fn foreign() -> ApiError {
    ApiError::invalid("cursor", "must be the `next_cursor` of a page with the same filters; omit it to start over")
}

fn checksum(query: &[&str], place: &str) -> [u8; CHECKSUM] {
    let mut hasher = Sha256::new();
    for part in query.iter().chain([&place]) {
        // The length prefix distinguishes ("ab", "c") from ("a", "bc").
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let mut checksum = [0; CHECKSUM];
    checksum.copy_from_slice(&hasher.finalize()[..CHECKSUM]);
    checksum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn next_page_begins_where_the_last_one_ended() {
        let pages = Pages(&["list", "org"]);
        let cursor = pages.next(Some("place")).unwrap();
        assert_eq!(pages.after(Some(&cursor), |place| Some(place.to_owned())).unwrap().as_deref(), Some("place"));
        assert!(pages.after(Some(&cursor), |_| None::<()>).is_err());
        assert_eq!(pages.after(None, |place| Some(place.to_owned())).unwrap(), None);
        assert_eq!(pages.next(None), None);
    }

    proptest! {
        #[test]
        fn cursor_decodes_for_its_own_query_only(place in "\\PC{0,60}", a in "[a-z]{0,5}", b in "[a-z]{0,5}") {
            let cursor = write(&[&a, &b], &place);
            prop_assert_eq!(read(&[&a, &b], &cursor).unwrap(), place);
            prop_assert!(read(&[&a, &b, "x"], &cursor).is_err());
            let joined = format!("{a}{b}");
            prop_assert!(read(&[&joined], &cursor).is_err());
        }

        #[test]
        fn altered_cursor_is_refused(place in "[a-z#0-9]{1,60}", at in 0..200_usize, replacement in "[A-Za-z0-9_-]") {
            let cursor = write(&["list"], &place);
            let at = at % cursor.len();
            prop_assume!(cursor[at..=at] != replacement);
            let altered = format!("{}{replacement}{}", &cursor[..at], &cursor[at + 1..]);
            prop_assert!(read(&["list"], &altered).is_err());
        }

        #[test]
        fn arbitrary_text_is_refused_without_a_panic(text in "\\PC{0,80}") {
            prop_assert!(read(&["list"], &text).is_err());
        }
    }
}
