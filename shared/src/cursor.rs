//! Cursors of lists: opaque to the caller, good for the one query they were made for.
//!
//! A cursor is a place and a checksum over the place and the query, in URL-safe base64. The checksum tells a mangled or
//! misplaced cursor from a good one; it is no signature and need not be: the partition that is read comes from the
//! caller's credential, so a made-up place leads nowhere but into the caller's own list.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::error::ApiError;

const CHECKSUM: usize = 9;

/// Writes a cursor for the place behind which the next page of this query begins. `query` names the list, the
/// organization and every filter.
pub fn write(query: &[&str], place: &str) -> String {
    let mut bytes = checksum(query, place).to_vec();
    bytes.extend_from_slice(place.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a cursor that was made for this query.
pub fn read(query: &[&str], cursor: &str) -> Result<String, ApiError> {
    let place = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| {
        let (given, place) = bytes.split_at_checked(CHECKSUM)?;
        let place = std::str::from_utf8(place).ok()?;
        (given == checksum(query, place)).then(|| place.to_owned())
    });
    place.ok_or_else(foreign)
}

/// The error for a cursor that was not made for this query.
pub fn foreign() -> ApiError {
    ApiError::invalid("cursor", "is not a cursor that this query has answered")
}

fn checksum(query: &[&str], place: &str) -> [u8; CHECKSUM] {
    let mut hasher = Sha256::new();
    for part in query.iter().chain([&place]) {
        // The length in front keeps ("ab", "c") and ("a", "bc") apart.
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

    proptest! {
        #[test]
        fn a_cursor_reads_back_for_its_own_query_alone(place in "\\PC{0,60}", a in "[a-z]{0,5}", b in "[a-z]{0,5}") {
            let cursor = write(&[&a, &b], &place);
            prop_assert_eq!(read(&[&a, &b], &cursor).unwrap(), place);
            prop_assert!(read(&[&a, &b, "x"], &cursor).is_err());
            let joined = format!("{a}{b}");
            prop_assert!(read(&[&joined], &cursor).is_err());
        }

        #[test]
        fn an_altered_cursor_is_refused(place in "[a-z#0-9]{1,60}", at in 0..200_usize, replacement in "[A-Za-z0-9_-]") {
            let cursor = write(&["list"], &place);
            let at = at % cursor.len();
            prop_assume!(cursor[at..=at] != replacement);
            let altered = format!("{}{replacement}{}", &cursor[..at], &cursor[at + 1..]);
            prop_assert!(read(&["list"], &altered).is_err());
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,80}") {
            prop_assert!(read(&["list"], &text).is_err());
        }
    }
}
