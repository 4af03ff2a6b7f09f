//! Fuzz targets for the parsers of untrusted input. Each checks its invariants and panics if one is
//! violated.
//!
//! `fuzz/run` searches for such inputs with libFuzzer. `cargo test` runs the targets on `corpus/`,
//! which keeps the inputs found so far.

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

/// A target: its name, shared by its binary and corpus folder, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 5] = [
    ("accept", accept),
    ("authorization", authorization),
    ("cursors", cursors),
    ("paths", paths),
    ("secrets", secrets),
];

/// Headers of one name, one per line. Skips values that HTTP does not allow.
fn headers(name: http::HeaderName, lines: impl Iterator<Item = Vec<u8>>) -> http::HeaderMap {
    let values = lines.filter_map(|line| http::HeaderValue::from_bytes(&line).ok());
    values.map(|value| (name.clone(), value)).collect()
}
