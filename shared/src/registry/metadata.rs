//! Metadata responses: entity tags, compression and Lambda's size limit.

use std::io::Write;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use crate::accept;
use crate::error::ApiError;

/// The maximum size of an encoded body, in bytes: Lambda's response limit less room for the
/// headers.
const MAX_ENCODED: usize = 6 * 1024 * 1024 - 16 * 1024;

/// Smaller bodies are not compressed.
const MIN_COMPRESSED: usize = 1_024;

const TOO_LARGE: &str =
    "The metadata of this package is too large for one response. Clients that accept gzip can receive more.";

/// A checksum of everything but the upstream's document that a response depends on. It is part of
/// our entity tags, so a change of settings or code invalidates the callers' caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant(u32);

impl Variant {
    /// Increment this when the code that rewrites metadata changes.
    const VERSION: &[u8] = b"1";

    /// The variant of responses that depend on these values.
    pub fn of(parts: &[&str]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(Self::VERSION);
        for part in parts {
            hasher.update(part.as_bytes());
            hasher.update(b"\0");
        }
        Self(hasher.finalize())
    }

    /// The upstream's entity tag of the caller's copy, if that is of this variant.
    /// `If-Modified-Since` is ignored: it does not tell the variant.
    pub fn cached_etag(self, headers: &HeaderMap) -> Option<HeaderValue> {
        headers.get(IF_NONE_MATCH).and_then(|tag| self.upstream_tag(tag))
    }

    /// Our entity tag for an upstream's. It is weak, because compressed and plain responses share
    /// it.
    fn tag(self, upstream: &HeaderValue) -> Option<HeaderValue> {
        let tag = upstream.to_str().ok()?;
        let (strength, opaque) = match tag.strip_prefix("W/") {
            Some(opaque) => ('w', opaque),
            None => ('s', tag),
        };
        let opaque = opaque.strip_prefix('"')?.strip_suffix('"')?;
        HeaderValue::from_str(&format!("W/\"{opaque}~{strength}{:08x}\"", self.0)).ok()
    }

    /// The upstream's entity tag in ours.
    fn upstream_tag(self, ours: &HeaderValue) -> Option<HeaderValue> {
        let tag = ours.to_str().ok()?;
        let tag = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')?;
        let (opaque, variant) = tag.rsplit_once('~')?;
        // A list of tags, or not one of ours.
        if opaque.contains('"') {
            return None;
        }
        let strength = variant.strip_suffix(&format!("{:08x}", self.0))?;
        match strength {
            "s" => HeaderValue::from_str(&format!("\"{opaque}\"")).ok(),
            "w" => HeaderValue::from_str(&format!("W/\"{opaque}\"")).ok(),
            _ => None,
        }
    }
}

/// A 304 response with our entity tag for the upstream's.
pub fn not_modified(variant: Variant, etag: Option<&HeaderValue>) -> Response {
    with_headers(StatusCode::NOT_MODIFIED.into_response(), variant, etag)
}

/// A response with this metadata, compressed if the caller accepts gzip; or 304 if the caller's
/// copy is current. The body must be UTF-8 and of a text type.
///
/// # Errors
///
/// 502 if it is too large for a Lambda response.
pub fn answer(
    headers: &HeaderMap,
    variant: Variant,
    etag: Option<HeaderValue>,
    content_type: &'static str,
    body: Vec<u8>,
) -> Result<Response, ApiError> {
    // Some upstreams send malformed ETags: treat them as absent.
    let etag = etag.filter(|etag| variant.tag(etag).is_some()).unwrap_or_else(|| digest(&body));
    if variant.cached_etag(headers).as_ref() == Some(&etag) {
        return Ok(not_modified(variant, Some(&etag)));
    }
    let (body, is_compressed) = encode(body, accept::accepts_gzip(headers))?;
    let mut response = ([(CONTENT_TYPE, content_type)], Body::from(body)).into_response();
    if is_compressed {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(with_headers(response, variant, Some(&etag)))
}

/// An entity tag for a document that the upstream sent without one.
fn digest(body: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(body);
    let digits = hex::encode(&digest[..16]);
    HeaderValue::from_str(&format!("\"{digits}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

fn with_headers(mut response: Response, variant: Variant, etag: Option<&HeaderValue>) -> Response {
    let headers = response.headers_mut();
    // Shared caches must not store it, and callers must revalidate: the token may be revoked by
    // then.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if let Some(tag) = etag.and_then(|tag| variant.tag(tag)) {
        headers.insert(ETAG, tag);
    }
    response
}

/// Encodes a body within Lambda's limit. Returns whether it is compressed.
fn encode(body: Vec<u8>, accepts_gzip: bool) -> Result<(Bytes, bool), ApiError> {
    if accepts_gzip && body.len() >= MIN_COMPRESSED {
        for level in [Compression::fast(), Compression::best()] {
            let compressed = gzip(&body, level)?;
            if base64_length(compressed.len()) <= MAX_ENCODED {
                return Ok((compressed.into(), true));
            }
        }
    } else if json_length(&body) <= MAX_ENCODED {
        return Ok((body.into(), false));
    }
    Err(ApiError::BadGateway(TOO_LARGE))
}

fn gzip(body: &[u8], level: Compression) -> Result<Vec<u8>, ApiError> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(body).and_then(|()| encoder.finish()).map_err(|error| {
        tracing::error!(%error, "gzip compression failed");
        ApiError::Internal
    })
}

/// The length of binary data in the runtime's response, which is Base64.
fn base64_length(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// The length of a text in the runtime's response, which is a JSON string.
fn json_length(text: &[u8]) -> usize {
    let extra = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0..=0x1f => 5,
        _ => 0,
    };
    text.len() + text.iter().map(extra).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    #[test]
    fn entity_tags_round_trip() {
        let variant = Variant::of(&["https://guard.example.com"]);
        for upstream in ["\"abc\"", "W/\"abc\"", "\"a~b\"", "\"\""] {
            let ours = variant.tag(&value(upstream)).unwrap();
            assert!(ours.to_str().unwrap().starts_with("W/\""));
            assert_eq!(variant.upstream_tag(&ours), Some(value(upstream)));
            // A proxy may have made it strong.
            let strong = value(ours.to_str().unwrap().trim_start_matches("W/"));
            assert_eq!(variant.upstream_tag(&strong), Some(value(upstream)));
        }
    }

    #[test]
    fn entity_tags_of_other_variants_are_ignored() {
        let ours = Variant::of(&["https://a.example"]).tag(&value("\"abc\"")).unwrap();
        let other = Variant::of(&["https://b.example"]);
        for tag in [ours.to_str().unwrap(), "\"abc\"", "*", "abc", "\"a\", \"b~s00000000\"", ""] {
            assert_eq!(other.upstream_tag(&value(tag)), None, "{tag}");
        }
        assert_eq!(other.cached_etag(&HeaderMap::from_iter([(IF_NONE_MATCH, ours)])), None);
    }

    #[test]
    fn bodies_up_to_lambdas_limit_are_accepted() {
        let fits = vec![b'a'; MAX_ENCODED];
        assert!(!encode(fits.clone(), false).unwrap().1);
        assert!(encode([fits.clone(), vec![b'a']].concat(), false).is_err());
        // The runtime escapes quotes, which doubles them.
        assert!(encode(vec![b'"'; MAX_ENCODED / 2 + 1], false).is_err());
        let (compressed, is_compressed) = encode(fits, true).unwrap();
        assert!(is_compressed && compressed.len() < MAX_ENCODED / 100);
        assert_eq!(base64_length(4), 8);
        assert_eq!(json_length(b"\"a\x01\""), serde_json::to_string("\"a\x01\"").unwrap().len() - 2);
    }
}
