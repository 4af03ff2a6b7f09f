//! Why an upstream refuses a request, in its own words: cleaned, so that they are safe to print in
//! a terminal, in a log and on a page.

use serde_json::Value;

use crate::secret::Token;

/// The maximum length of a reason, in characters.
const MAX_LENGTH: usize = 300;

/// The reason in the body of an error response, as package registries write it. `None` if there is
/// none.
pub fn in_body(body: &str) -> Option<String> {
    let stated = match serde_json::from_str(body) {
        Ok(json) => stated(&json)?.to_owned(),
        Err(_) if body.trim_start().starts_with(['{', '[']) => return None,
        Err(_) => body.to_owned(),
    };
    let reason = cleaned(&stated);
    (!reason.is_empty() && Token::found_in(&reason).is_none()).then_some(reason)
}

/// The message in a JSON body.
fn stated(json: &Value) -> Option<&str> {
    match json {
        Value::String(text) => Some(text),
        Value::Array(entries) => stated(entries.first()?),
        Value::Object(fields) => ["error", "message", "detail", "reason", "errors", "title"]
            .into_iter()
            .find_map(|name| stated(fields.get(name)?)),
        _ => None,
    }
}

/// One line of at most [`MAX_LENGTH`] characters without tags, control and invisible characters,
/// and without a full stop.
fn cleaned(text: &str) -> String {
    let visible = text.chars().filter(|c| !is_invisible(*c));
    let visible: String = visible.map(|c| if c.is_control() || c.is_whitespace() { ' ' } else { c }).collect();
    let mut kept = String::new();
    let mut rest = visible.as_str();
    while let Some((before, tag)) = rest.split_once('<') {
        kept.push_str(before);
        // Neither a tag nor able to become one.
        if tag.starts_with([' ', '=']) || tag.starts_with(|c: char| c.is_ascii_digit()) {
            kept.push('<');
            rest = tag;
            continue;
        }
        kept.push(' ');
        let name = tag.get(..6).unwrap_or(tag).to_ascii_lowercase();
        // The content of these is no text.
        let tag = match ["style", "script"].into_iter().find(|hidden| name.starts_with(hidden)) {
            Some(_) => tag.split_once("</").map_or("", |(_, end)| end),
            None => tag,
        };
        rest = tag.split_once('>').map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    let words: Vec<&str> = kept.split_whitespace().collect();
    let line: String = words.join(" ").chars().take(MAX_LENGTH).collect();
    line.trim_end_matches([' ', '.', '<']).to_owned()
}

/// Characters that change how the text around them is displayed, or show nothing.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::TokenKind;

    #[test]
    fn reason_is_found_where_registries_write_it() {
        for (body, reason) in [
            (r#"{"error":"Requested item is quarantined"}"#, Some("Requested item is quarantined")),
            (r#"{"success":false,"message":"Not licensed."}"#, Some("Not licensed")),
            (r#"{"errors":[{"status":403,"message":"Blocked by policy"}]}"#, Some("Blocked by policy")),
            (r#"{"error":{"code":7,"message":"Blocked"}}"#, Some("Blocked")),
            (r#""Blocked""#, Some("Blocked")),
            ("Blocked: version < 2 and > 1", Some("Blocked: version < 2 and > 1")),
            (
                "<html><head><style>p{a:b}</style><title>403</title></head>\n<body>No&amp;way</body></html>",
                Some("403 No&amp;way"),
            ),
            ("{", None),
            ("{}", None),
            ("17", None),
            ("", None),
            (" . ", None),
        ] {
            assert_eq!(in_body(body).as_deref(), reason, "{body}");
        }
    }

    #[test]
    fn reason_is_cut_and_stripped() {
        assert_eq!(in_body(&"é".repeat(1000)).unwrap().chars().count(), MAX_LENGTH);
        for text in ["a\u{202e}b\u{200b}c\u{7}\r\nd", "<<b>i>a</i>bc\td", "a<\u{200b}script>x</script>bc d<a", "abc d<"]
        {
            let reason = cleaned(text);
            assert!(!reason.contains(['\u{202e}', '\u{200b}', '\u{7}', '\r', '\n', '\t', '<']), "{reason:?}");
        }
        let token = Token::generate(TokenKind::OrgUser).unwrap();
        assert_eq!(in_body(&format!("{{\"error\":\"no {}\"}}", token.expose())), None);
    }

    proptest! {
        #[test]
        fn no_tag_survives(text in "[<>a/!? =1\u{200b}\n]{0,40}|\\PC{0,400}") {
            let reason = cleaned(&text);
            let mut after = reason.split('<').skip(1);
            prop_assert!(after.all(|rest| rest.starts_with([' ', '=', '1', '2', '3', '4', '5', '6', '7', '8', '9', '0'])));
            prop_assert!(reason.chars().count() <= MAX_LENGTH && !reason.contains(char::is_control));
        }
    }
}
