//! What docs/TOKEN_FORMATS.md tells secret scanners is what the service accepts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;
use shared::secret::{Token, TokenKind};

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/TOKEN_FORMATS.md")).unwrap()
}

/// The first text in backticks of each row of the table below a heading, by the row's first cell.
fn table(page: &str, heading: &str) -> BTreeMap<String, String> {
    let section = page.split(&format!("## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let cells = rows.map(|row| row.split(" | ").collect::<Vec<_>>());
    let clean = |cell: &str| cell.trim_matches(['|', ' ', '`']).to_owned();
    cells.map(|cells| (clean(cells[0]), clean(cells[1]))).collect()
}

/// The pattern and the test vector of each kind.
fn formats(page: &str) -> Vec<(Regex, String)> {
    let (patterns, vectors) = (table(page, "Patterns"), table(page, "Test vectors"));
    assert_eq!(patterns.keys().collect::<Vec<_>>(), vectors.keys().collect::<Vec<_>>());
    assert_eq!(patterns.len(), TokenKind::ALL.len());
    let whole = |pattern: &str| Regex::new(&format!("^(?:{pattern})$")).unwrap();
    patterns.values().map(|pattern| whole(pattern)).zip(vectors.into_values()).collect()
}

#[test]
fn every_kind_of_token_has_a_pattern_and_a_vector_that_is_a_token() {
    let mut kinds = BTreeSet::new();
    for (pattern, vector) in formats(&page()) {
        let token = Token::parse(&vector).unwrap_or_else(|| panic!("{vector} is no token"));
        assert!(pattern.is_match(&vector), "{pattern}: {vector}");
        kinds.insert(token.kind().prefix());
    }
    assert_eq!(kinds, TokenKind::ALL.map(TokenKind::prefix).into());
}

#[test]
fn vector_with_another_character_anywhere_is_no_token() {
    for (pattern, vector) in formats(&page()) {
        for place in 0..vector.len() {
            for other in ["0", "1", "a", "b", "Z", "_"].iter().filter(|other| **other != &vector[place..=place]) {
                let changed = format!("{}{other}{}", &vector[..place], &vector[place + 1..]);
                assert!(Token::parse(&changed).is_none(), "{changed}");
            }
        }
        for changed in [format!("{vector}0"), format!("0{vector}"), vector[1..].to_owned()] {
            assert!(Token::parse(&changed).is_none() && !pattern.is_match(&changed), "{changed}");
        }
    }
}

#[test]
fn program_of_the_page_finds_the_vectors_and_nothing_else() {
    let page = page();
    let program = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let vectors: Vec<String> = formats(&page).into_iter().map(|(_, vector)| vector).collect();
    let mut text = String::new();
    for vector in &vectors {
        let wrong = format!("{}{}", &vector[..vector.len() - 1], if vector.ends_with('0') { '1' } else { '0' });
        text += &format!("//registry/:_authToken={vector}\nhttps://token:{vector}@host/\nx{vector}y {wrong}\n");
    }
    let child = Command::new("python3").args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    // The other checks of the repository need Python, `cargo test` does not.
    let Ok(mut child) = child else { return };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let expected: Vec<&str> = vectors.iter().flat_map(|vector| [vector.as_str(); 3]).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), expected);
}
