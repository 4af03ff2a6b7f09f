//! Replaces strings in a JSON document and keeps every other byte, so that metadata stays as the
//! upstream wrote it.

use serde_json::value::RawValue;

/// The value of a JSON string; `None` for other types.
pub fn string_value(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// Replaces these strings. They must be slices of the document and must not overlap.
pub fn replace_strings(whole: &str, mut strings: Vec<(&RawValue, String)>) -> Vec<u8> {
    strings.sort_by_key(|(raw, _)| start_of(raw, whole));
    let mut replaced = Vec::with_capacity(whole.len() + 64 * strings.len());
    let mut done = 0;
    for (raw, new) in strings {
        let start = start_of(raw, whole);
        replaced.extend_from_slice(&whole.as_bytes()[done..start]);
        replaced.extend_from_slice(serde_json::Value::String(new).to_string().as_bytes());
        done = start + raw.get().len();
    }
    replaced.extend_from_slice(&whole.as_bytes()[done..]);
    replaced
}

/// The offset of a slice in its document.
fn start_of(slice: &RawValue, whole: &str) -> usize {
    slice.get().as_ptr() as usize - whole.as_ptr() as usize
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
        let changed =
            replace_strings(whole, vec![(pieces[2], "longer \"than\" it was".to_owned()), (pieces[0], String::new())]);
        assert_eq!(String::from_utf8(changed).unwrap(), r#"[ "" ,1.0e400,"longer \"than\" it was","\u00e9"]"#);
        assert_eq!(replace_strings(whole, Vec::new()), whole.as_bytes());
    }
}
