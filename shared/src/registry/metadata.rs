//! Answers with metadata.

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

/// How large an answer of a Lambda function may be, in bytes as they are handed to the runtime, less what its headers take.
const LARGEST: usize = 6 * 1024 * 1024 - 16 * 1024;

/// Below this, compression gains nothing worth the time.
const WORTH_COMPRESSING: usize = 1_024;

const TOO_LARGE: &str = "This package has more metadata than one answer can hold; a client that takes gzip gets more.";

/// What an answer depends on besides what the upstream has: when that changes, what callers kept is no longer right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form(u32);

impl Form {
    /// Changed with the code that changes metadata, so that nobody keeps what an older version of it made.
    const VERSION: &[u8] = b"1";

    /// The form of answers that are made with these.
    pub fn of(parts: &[&str]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(Self::VERSION);
        for part in parts {
            hasher.update(part.as_bytes());
            hasher.update(b"\0");
        }
        Self(hasher.finalize())
    }

    /// What the caller has already, by the upstream's entity tag; nothing where it has something of another form. When it
    /// was last modified is not asked: that says nothing of the form.
    pub fn known(self, headers: &HeaderMap) -> Option<HeaderValue> {
        headers.get(IF_NONE_MATCH).and_then(|tag| self.upstream_tag(tag))
    }

    /// Our entity tag for something of the upstream's. It is weak: compressed or not, the answer has the same one.
    fn tag(self, upstream: &HeaderValue) -> Option<HeaderValue> {
        let tag = upstream.to_str().ok()?;
        let (strength, opaque) = match tag.strip_prefix("W/") {
            Some(opaque) => ('w', opaque),
            None => ('s', tag),
        };
        let opaque = opaque.strip_prefix('"')?.strip_suffix('"')?;
        HeaderValue::from_str(&format!("W/\"{opaque}~{strength}{:08x}\"", self.0)).ok()
    }

    /// The upstream's entity tag that ours was made from.
    fn upstream_tag(self, ours: &HeaderValue) -> Option<HeaderValue> {
        let tag = ours.to_str().ok()?;
        let tag = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')?;
        let (opaque, form) = tag.rsplit_once('~')?;
        // More than one tag, or none of ours.
        if opaque.contains('"') {
            return None;
        }
        let strength = form.strip_suffix(&format!("{:08x}", self.0))?;
        match strength {
            "s" => HeaderValue::from_str(&format!("\"{opaque}\"")).ok(),
            "w" => HeaderValue::from_str(&format!("W/\"{opaque}\"")).ok(),
            _ => None,
        }
    }
}

/// The answer that what the caller has is still right, by the upstream's entity tag.
pub fn not_modified(form: Form, etag: Option<&HeaderValue>) -> Response {
    described(StatusCode::NOT_MODIFIED.into_response(), form, etag)
}

/// The answer with this metadata, compressed if the caller takes that. It must be UTF-8, and of a type that says so.
///
/// # Errors
///
/// 502 where it is larger than a Lambda function can answer.
pub fn answer(
    headers: &HeaderMap,
    form: Form,
    etag: Option<HeaderValue>,
    content_type: &'static str,
    body: Vec<u8>,
) -> Result<Response, ApiError> {
    // One that is none, as some upstreams have it, is as good as none.
    let etag = etag.filter(|etag| form.tag(etag).is_some()).unwrap_or_else(|| digest(&body));
    if form.known(headers).as_ref() == Some(&etag) {
        return Ok(not_modified(form, Some(&etag)));
    }
    let (body, is_compressed) = carried(body, accept::takes_gzip(headers))?;
    let mut response = ([(CONTENT_TYPE, content_type)], Body::from(body)).into_response();
    if is_compressed {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(described(response, form, Some(&etag)))
}

/// An entity tag for what an upstream gives none.
fn digest(body: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(body);
    let digits: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("\"{digits}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

fn described(mut response: Response, form: Form, etag: Option<&HeaderValue>) -> Response {
    let headers = response.headers_mut();
    // To be kept by the caller alone, and asked about each time: the token may be dead by then.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if let Some(tag) = etag.and_then(|tag| form.tag(tag)) {
        headers.insert(ETAG, tag);
    }
    response
}

/// A body as it can be carried, and whether it is compressed.
fn carried(body: Vec<u8>, takes_gzip: bool) -> Result<(Bytes, bool), ApiError> {
    if takes_gzip && body.len() >= WORTH_COMPRESSING {
        for level in [Compression::fast(), Compression::best()] {
            let compressed = gzip(&body, level)?;
            if in_base64(compressed.len()) <= LARGEST {
                return Ok((compressed.into(), true));
            }
        }
    } else if in_json(&body) <= LARGEST {
        return Ok((body.into(), false));
    }
    Err(ApiError::BadGateway(TOO_LARGE))
}

fn gzip(body: &[u8], level: Compression) -> Result<Vec<u8>, ApiError> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(body).and_then(|()| encoder.finish()).map_err(|error| {
        tracing::error!(%error, "cannot compress");
        ApiError::Internal
    })
}

/// How many bytes the runtime makes of this many that are no text.
fn in_base64(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// How many bytes the runtime makes of a text: it hands it on as a JSON string.
fn in_json(text: &[u8]) -> usize {
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
    fn an_entity_tag_goes_out_and_comes_back() {
        let form = Form::of(&["https://guard.example.com"]);
        for upstream in ["\"abc\"", "W/\"abc\"", "\"a~b\"", "\"\""] {
            let ours = form.tag(&value(upstream)).unwrap();
            assert!(ours.to_str().unwrap().starts_with("W/\""));
            assert_eq!(form.upstream_tag(&ours), Some(value(upstream)));
            // As a proxy that drops the weakness hands it back.
            let strong = value(ours.to_str().unwrap().trim_start_matches("W/"));
            assert_eq!(form.upstream_tag(&strong), Some(value(upstream)));
        }
    }

    #[test]
    fn what_was_made_in_another_form_is_not_taken_for_the_same() {
        let ours = Form::of(&["https://a.example"]).tag(&value("\"abc\"")).unwrap();
        let other = Form::of(&["https://b.example"]);
        for tag in [ours.to_str().unwrap(), "\"abc\"", "*", "abc", "\"a\", \"b~s00000000\"", ""] {
            assert_eq!(other.upstream_tag(&value(tag)), None, "{tag}");
        }
        assert_eq!(other.known(&HeaderMap::from_iter([(IF_NONE_MATCH, ours)])), None);
    }

    #[test]
    fn an_answer_is_as_large_as_lambda_carries_and_no_larger() {
        let fits = vec![b'a'; LARGEST];
        assert!(!carried(fits.clone(), false).unwrap().1);
        assert!(carried([fits.clone(), vec![b'a']].concat(), false).is_err());
        // Quotes count twice, as the runtime writes them.
        assert!(carried(vec![b'"'; LARGEST / 2 + 1], false).is_err());
        let (compressed, is_compressed) = carried(fits, true).unwrap();
        assert!(is_compressed && compressed.len() < LARGEST / 100);
        assert_eq!(in_base64(4), 8);
        assert_eq!(in_json(b"\"a\x01\""), serde_json::to_string("\"a\x01\"").unwrap().len() - 2);
    }
}
