//! Replaces strings in a document and keeps every other byte, so that metadata stays as the
//! upstream wrote it.
//!
//! The result is never assembled: it is compressed piece by piece, so that a document of a hundred
//! megabytes is in memory only once.

use std::borrow::Cow;
use std::iter;
use std::ops::Range;

use serde_json::value::RawValue;

/// The value of a JSON string; `None` for other types.
pub fn string_value(raw: &RawValue) -> Option<Cow<'_, str>> {
    // It is valid JSON, so that a string without a backslash is its own value.
    let plain = raw.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match plain.filter(|text| !text.contains('\\')) {
        Some(plain) => Some(Cow::Borrowed(plain)),
        None => serde_json::from_str(raw.get()).ok().map(Cow::Owned),
    }
}

/// A replaced part of a document.
#[derive(Debug)]
pub struct Edit {
    /// Which bytes of the document are replaced.
    pub at: Range<usize>,
    /// By what.
    pub new: String,
}

/// A document with some of its parts replaced.
#[derive(Debug)]
pub struct Spliced {
    whole: Vec<u8>,
    edits: Vec<Edit>,
}

impl Spliced {
    /// Applies edits to their document. They must be in order and must not overlap.
    pub fn new(whole: Vec<u8>, edits: Vec<Edit>) -> Self {
        Self { whole, edits }
    }

    /// The result, in pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let last = self.edits.last().map_or(0, |edit| edit.at.end);
        let mut done = 0;
        let edited = self.edits.iter().flat_map(move |edit| {
            let before = &self.whole[done..edit.at.start];
            done = edit.at.end;
            [before, edit.new.as_bytes()]
        });
        edited.chain(iter::once(&self.whole[last..]))
    }

    /// The length of the result in bytes.
    pub fn length(&self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }

    /// The result as a whole.
    pub fn concat(self) -> Vec<u8> {
        if self.edits.is_empty() { self.whole } else { self.pieces().collect::<Vec<_>>().concat() }
    }
}

impl From<Vec<u8>> for Spliced {
    fn from(whole: Vec<u8>) -> Self {
        Self::new(whole, Vec::new())
    }
}

/// Edits that replace these strings. They must be slices of the document and must not overlap.
pub fn replacing<'a>(whole: &str, strings: impl IntoIterator<Item = (&'a RawValue, String)>) -> Vec<Edit> {
    let edit = |(raw, new): (&RawValue, String)| {
        let start = raw.get().as_ptr() as usize - whole.as_ptr() as usize;
        Edit { at: start..start + raw.get().len(), new: quoted(&new) }
    };
    let mut edits: Vec<Edit> = strings.into_iter().map(edit).collect();
    edits.sort_by_key(|edit| edit.at.start);
    edits
}

/// A JSON string with this value.
fn quoted(value: &str) -> String {
    // Looks at all bytes, since processors do that several at a time.
    let is_escaped = |c: u8| c < b' ' || matches!(c, b'"' | b'\\');
    let is_plain = !value.bytes().fold(false, |any, c| any | is_escaped(c));
    if is_plain { ["\"", value, "\""].concat() } else { serde_json::Value::from(value).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_given_strings_are_replaced_in_any_order() {
        let whole = r#"[ "a\/b" ,1.0e400,"c","\u00e9"]"#;
        let pieces: Vec<&RawValue> = serde_json::from_str(whole).unwrap();
        assert_eq!(string_value(pieces[0]).as_deref(), Some("a/b"));
        assert_eq!(string_value(pieces[1]), None);
        let strings = vec![(pieces[2], "longer \"than\" it was".to_owned()), (pieces[0], String::new())];
        let changed = Spliced::new(whole.into(), replacing(whole, strings));
        let expected = r#"[ "" ,1.0e400,"longer \"than\" it was","\u00e9"]"#;
        assert_eq!(changed.length(), expected.len());
        let changed = changed.concat();
        assert_eq!(changed.capacity(), changed.len());
        assert_eq!(String::from_utf8(changed).unwrap(), expected);
        let unchanged = Spliced::new(whole.into(), replacing(whole, Vec::new()));
        assert_eq!(unchanged.concat(), whole.as_bytes());
    }
}
