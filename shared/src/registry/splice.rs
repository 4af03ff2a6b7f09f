//! Texts in which strings of JSON change, and not another byte: metadata as the upstream wrote it, with other places.

use serde_json::value::RawValue;

/// What a string of JSON says; nothing where it is none.
pub fn text(written: &RawValue) -> Option<String> {
    serde_json::from_str(written.get()).ok()
}

/// A text with other strings in the place of some, which must be pieces of it that do not overlap.
pub fn replaced(whole: &str, mut strings: Vec<(&RawValue, String)>) -> Vec<u8> {
    strings.sort_by_key(|(written, _)| start_of(written, whole));
    let mut replaced = Vec::with_capacity(whole.len() + 64 * strings.len());
    let mut done = 0;
    for (written, new) in strings {
        let start = start_of(written, whole);
        replaced.extend_from_slice(&whole.as_bytes()[done..start]);
        replaced.extend_from_slice(serde_json::Value::String(new).to_string().as_bytes());
        done = start + written.get().len();
    }
    replaced.extend_from_slice(&whole.as_bytes()[done..]);
    replaced
}

/// Where in a text a piece of it begins.
fn start_of(piece: &RawValue, whole: &str) -> usize {
    piece.get().as_ptr() as usize - whole.as_ptr() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_change_in_whatever_order_they_are_given_and_no_other_byte_does() {
        let whole = r#"[ "a\/b" ,1.0e400,"c","\u00e9"]"#;
        let pieces: Vec<&RawValue> = serde_json::from_str(whole).unwrap();
        assert_eq!(text(pieces[0]).as_deref(), Some("a/b"));
        assert_eq!(text(pieces[1]), None);
        let changed =
            replaced(whole, vec![(pieces[2], "longer \"than\" it was".to_owned()), (pieces[0], String::new())]);
        assert_eq!(String::from_utf8(changed).unwrap(), r#"[ "" ,1.0e400,"longer \"than\" it was","\u00e9"]"#);
        assert_eq!(replaced(whole, Vec::new()), whole.as_bytes());
    }
}
