use shared::cursor;

/// Cursors: each is valid only for the query that returned it.
///
/// The input is parsed as a cursor; its lines are also used as a query and a position to encode.
pub fn cursors(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    reads_back(&["api-keys-list", "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "Active"], text);
    let mut query: Vec<&str> = text.split('\n').collect();
    let place = query.pop().unwrap_or_default();
    let made = cursor::write(&query, place);
    assert_eq!(cursor::read(&query, &made).ok().as_deref(), Some(place), "{text:?}");
    assert!(made.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'), "{made} is not URL-safe");
    for other in others(&query) {
        let other: Vec<&str> = other.iter().map(String::as_str).collect();
        assert!(cursor::read(&other, &made).is_err(), "{text:?}: also valid for {other:?}");
    }
    for at in [0, text.len() % made.len(), made.len() - 1] {
        let other = if made.as_bytes()[at] == b'A' { 'B' } else { 'A' };
        let altered = format!("{}{other}{}", &made[..at], &made[at + 1..]);
        assert!(cursor::read(&query, &altered).is_err(), "{text:?}: {altered} is accepted instead of {made}");
    }
    assert!(cursor::read(&query, &made[1..]).is_err() && cursor::read(&query, &made[..made.len() - 1]).is_err());
}

/// A text accepted as a cursor is the canonical encoding of its position.
fn reads_back(query: &[&str], text: &str) {
    if let Ok(place) = cursor::read(query, text) {
        assert_eq!(cursor::write(query, &place), text);
    }
}

/// Queries that are similar to this one.
fn others(query: &[&str]) -> Vec<Vec<String>> {
    let query: Vec<String> = query.iter().map(|part| (*part).to_owned()).collect();
    let mut others = vec![[query.clone(), vec![String::new()]].concat(), [vec![String::new()], query.clone()].concat()];
    if !query.is_empty() {
        others.push(query[1..].to_vec());
    }
    for at in 0..query.len() {
        let mut longer = query.clone();
        longer[at].push('x');
        others.push(longer);
        if at > 0 {
            // Move a character across a boundary: the same characters in the same order.
            let mut moved = query.clone();
            if let Some(last) = moved[at - 1].pop() {
                moved[at].insert(0, last);
                others.push(moved);
            }
            let mut joined = query.clone();
            let part = joined.remove(at);
            joined[at - 1].push_str(&part);
            others.push(joined);
        }
    }
    others
}
