//! What reads untrusted text, and what must hold of it whatever comes. A function that returns has found nothing.
//!
//! `fuzz/run` lets libFuzzer look for bytes that make one of these panic; `cargo test` runs them on `corpus/`, where what
//! was once found stays.

mod accept;
mod authorization;
mod cursors;
mod paths;
mod secrets;

pub use accept::accept;
pub use authorization::authorization;
pub use cursors::cursors;
pub use paths::paths;
pub use secrets::secrets;

/// A target: its name, which its binary and its part of the corpus have too, and itself.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 5] = [
    ("accept", accept),
    ("authorization", authorization),
    ("cursors", cursors),
    ("paths", paths),
    ("secrets", secrets),
];

/// Headers of one name, a line each. What HTTP would not let through is left out.
fn headers(name: http::HeaderName, lines: impl Iterator<Item = Vec<u8>>) -> http::HeaderMap {
    let values = lines.filter_map(|line| http::HeaderValue::from_bytes(&line).ok());
    values.map(|value| (name.clone(), value)).collect()
}
