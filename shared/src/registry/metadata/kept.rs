//! Metadata that is kept in the process's memory, rewritten and compressed, for as long as the
//! upstream says that it is current.
//!
//! The upstream is asked about it at each request, with its own entity tag, so an answer is as fresh
//! as without this module. No caller's rights are in it: the guard comes first, and what
//! passed it is all answered alike, because the upstream receives nothing of a caller. What an
//! answer does depend on is its [`Key`].

use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use url::Url;

use super::{Encoded, Variant};
use crate::config;

/// The part of the function's memory that kept answers take at most: an eighth, 128 of 1,024 MB. The
/// largest documents need the rest while they are rewritten.
const SHARE: u64 = 8;

/// The bytes of memory for kept answers where Lambda does not tell the function's: 64 MiB.
const DEFAULT: u64 = 64 * 1024 * 1024;

/// What an entry needs besides its key and body, in bytes; rather too much.
const OVERHEAD: usize = 512;

/// The number of answers that are expected, of some 50 KB.
const EXPECTED: usize = 1_000;

/// All that an answer depends on, as it is and not as a checksum, which callers could forge: their
/// `Host` is in the base URL of files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    url: String,
    accept: &'static str,
    variant: Arc<str>,
    is_compressed: bool,
}

impl Key {
    /// The key of answers with the upstream's document at this URL, requested with this `Accept`.
    pub fn new(url: &Url, accept: &'static str, variant: &Variant, accepts_gzip: bool) -> Self {
        Self { url: url.as_str().to_owned(), accept, variant: variant.parts(), is_compressed: accepts_gzip }
    }
}

/// An answer as it goes out.
#[derive(Debug)]
pub struct Kept {
    /// The upstream's URL after redirects. If that changes, so may what relative URLs lead to.
    pub url: Url,
    /// What callers get, with the entity tag that the upstream is asked with.
    pub encoded: Encoded,
}

/// The answers that are kept, up to a number of bytes. Those that are used again stay longest.
pub struct Keeping(Mutex<Cache<Key, Arc<Kept>, Bytewise>>);

#[derive(Clone)]
struct Bytewise;

impl Weighter<Key, Arc<Kept>> for Bytewise {
    fn weight(&self, key: &Key, kept: &Arc<Kept>) -> u64 {
        (OVERHEAD + key.url.len() + key.variant.len() + kept.url.as_str().len() + kept.encoded.body.len()) as u64
    }
}

impl Keeping {
    /// Keeps up to this many bytes.
    pub fn up_to(bytes: u64) -> Self {
        Self(Mutex::new(Cache::with_weighter(EXPECTED, bytes, Bytewise)))
    }

    /// Keeps a share of the function's memory.
    pub fn from_env() -> Self {
        let megabytes = config::optional("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").and_then(|size| size.parse::<u64>().ok());
        Self::up_to(megabytes.map_or(DEFAULT, |megabytes| megabytes * 1024 * 1024 / SHARE))
    }

    /// The answer for this key, if it is kept.
    pub fn get(&self, key: &Key) -> Option<Arc<Kept>> {
        self.cache().get(key).cloned()
    }

    /// Keeps an answer, in place of others if there is no room.
    pub fn keep(&self, key: Key, kept: Kept) {
        self.cache().insert(key, Arc::new(kept));
    }

    /// Keeps the answer for this key no longer.
    pub fn remove(&self, key: &Key) {
        self.cache().remove(key);
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache<Key, Arc<Kept>, Bytewise>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key(package: &str, base: &str) -> Key {
        let url = Url::parse(&format!("https://packages.example.com/{package}")).unwrap();
        Key::new(&url, "application/json", &Variant::of(&[base]), true)
    }

    fn kept(size: usize) -> Kept {
        Kept {
            url: Url::parse("https://packages.example.com/a").unwrap(),
            encoded: Encoded {
                etag: HeaderValue::from_static("\"1\""),
                content_type: "application/json",
                body: vec![0; size].into(),
                is_compressed: true,
            },
        }
    }

    #[test]
    fn kept_bytes_are_bounded_and_what_is_used_again_stays() {
        let keeping = Keeping::up_to(100_000);
        let used = key("used", "https://guard.example.com");
        keeping.keep(used.clone(), kept(1_000));
        for n in 0..1_000 {
            assert!(keeping.get(&used).is_some(), "evicted after {n}");
            keeping.keep(key(&n.to_string(), "https://guard.example.com"), kept(10_000));
            assert!(keeping.cache().weight() <= 100_000);
        }
        let held = (0..1_000).filter(|n| keeping.get(&key(&n.to_string(), "https://guard.example.com")).is_some());
        assert!((1..10).contains(&held.count()));
        // One that has no room evicts nothing.
        keeping.keep(key("large", "https://guard.example.com"), kept(200_000));
        assert!(keeping.get(&used).is_some() && keeping.cache().weight() <= 100_000);
    }

    #[test]
    fn base_urls_whose_checksums_collide_are_kept_apart() {
        let keeping = Keeping::up_to(100_000);
        let base = "https://guard.example.com";
        // A Host of the same CRC-32.
        let (variant, other) = (Variant::of(&[base]), colliding(base));
        assert_eq!(variant.checksum(), Variant::of(&[&other]).checksum());
        keeping.keep(key("a", base), kept(1));
        assert!(keeping.get(&key("a", base)).is_some() && keeping.get(&key("a", &other)).is_none());
    }

    /// A base URL with the checksum of this one. A CRC is linear, so which letters of a host name to
    /// change is a system of linear equations over bits.
    fn colliding(base: &str) -> String {
        let checksum = |text: &str| Variant::of(&[text]).checksum();
        let start = checksum(&named(0));
        let mut basis: Vec<(u32, u64)> = Vec::new();
        let reduced = |basis: &[(u32, u64)], mut change: u32, mut letters: u64| {
            for (value, used) in basis {
                if change ^ value < change {
                    (change, letters) = (change ^ value, letters ^ used);
                }
            }
            (change, letters)
        };
        for letter in 0..60 {
            let (change, letters) = reduced(&basis, start ^ checksum(&named(1 << letter)), 1 << letter);
            if change != 0 {
                basis.push((change, letters));
                basis.sort_unstable_by(|a, b| b.cmp(a));
            }
        }
        let (rest, letters) = reduced(&basis, start ^ checksum(base), 0);
        assert_eq!(rest, 0);
        named(letters)
    }

    /// A base URL whose host has `a` and, at these places, `c`, which differs from it in one bit.
    fn named(letters: u64) -> String {
        let name: String = (0..60).map(|letter| if letters >> letter & 1 == 1 { 'c' } else { 'a' }).collect();
        format!("https://{name}")
    }
}
