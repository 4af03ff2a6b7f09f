//! Metadata responses: entity tags, compression and Lambda's size limit.

pub(super) mod kept;

use std::convert::Infallible;
use std::io::Write;
use std::iter;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use sha2::{Digest, Sha256};
use url::{Position, Url};

use self::kept::Kept;
use super::splice::Spliced;
use crate::accept;
use crate::error::ApiError;
use crate::secret::Token;

/// The maximum size of an encoded body, in bytes: Lambda's response limit less room for the
/// headers.
const MAX_ENCODED: usize = 6 * 1024 * 1024 - 16 * 1024;

/// Smaller bodies are not compressed.
const MIN_COMPRESSED: usize = 1_024;

/// So many bytes are compressed at once. Then it stops if the result is already too large.
const COMPRESSED_AT_ONCE: usize = 256 * 1024;

const TOO_LARGE: &str =
    "The metadata of this package is too large for one response. Clients that accept gzip can receive more.";

/// A checksum of everything but the upstream's document that a response depends on. It is part of
/// our entity tags, so a change of settings or code invalidates the callers' caches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    checksum: u32,
    parts: Arc<str>,
}

impl Variant {
    /// Increment this when the code that rewrites metadata changes.
    const VERSION: &[u8] = b"2";

    /// The variant of responses that depend on these values.
    pub fn of(parts: &[&str]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(Self::VERSION);
        for part in parts {
            hasher.update(part.as_bytes());
            hasher.update(b"\0");
        }
        Self { checksum: hasher.finalize(), parts: parts.join("\0").into() }
    }

    /// The checksum, for tests.
    #[cfg(test)]
    pub(super) fn checksum(&self) -> u32 {
        self.checksum
    }

    /// The values themselves.
    pub(super) fn parts(&self) -> Arc<str> {
        Arc::clone(&self.parts)
    }

    /// The caller's copies of this variant. `If-Modified-Since` is ignored: it does not tell the
    /// variant.
    pub(super) fn cached(&self, headers: &HeaderMap) -> Cached {
        let mut cached = Cached::default();
        for value in headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()) {
            cached.is_any |= value.trim() == "*";
            cached.tags.extend(opaque_tags(value).filter_map(|tag| self.upstream_tag(tag)));
        }
        cached
    }

    /// Our entity tag for an upstream's. It is weak, because compressed and plain responses share
    /// it.
    fn tag(&self, upstream: &HeaderValue) -> Option<HeaderValue> {
        let (strength, opaque) = parsed(upstream)?;
        HeaderValue::from_str(&format!("W/\"{opaque}~{strength}{:08x}\"", self.checksum)).ok()
    }

    /// The upstream's entity tag in the opaque part of ours. It is sent to the upstream, so it must
    /// not contain a token.
    fn upstream_tag(&self, ours: &str) -> Option<HeaderValue> {
        let (opaque, variant) = ours.rsplit_once('~')?;
        if Token::found_in(opaque).is_some() {
            return None;
        }
        let strength = variant.strip_suffix(&format!("{:08x}", self.checksum))?;
        match strength {
            "s" => HeaderValue::from_str(&format!("\"{opaque}\"")).ok(),
            "w" => HeaderValue::from_str(&format!("W/\"{opaque}\"")).ok(),
            _ => None,
        }
    }
}

/// The copies of a document that a caller has, from `If-None-Match`.
#[derive(Debug, Default)]
pub(super) struct Cached {
    /// `*`: any.
    is_any: bool,
    /// Copies with these entity tags of the upstream.
    tags: Vec<HeaderValue>,
}

impl Cached {
    /// What the upstream is asked on: that it has another version than the caller and we.
    pub fn condition(&self, kept: Option<&Kept>) -> Option<HeaderValue> {
        let own = kept.map(|kept| &kept.encoded.etag);
        let others = self.tags.iter().filter(|tag| own.is_none_or(|own| !is_same(own, tag)));
        let tags: Vec<&[u8]> = others.chain(own).map(HeaderValue::as_bytes).collect();
        HeaderValue::from_bytes(&tags.join(&b", "[..])).ok().filter(|_| !tags.is_empty())
    }

    /// What a 304 of the upstream is about, after [`Self::condition`]. It has this entity tag, if any,
    /// and came from this URL, whose query may be a signature.
    pub fn unmodified(&self, kept: Option<&Kept>, etag: Option<&HeaderValue>, url: &Url) -> Unmodified {
        let Some(kept) = kept else {
            return match etag {
                Some(etag) => {
                    self.copy(etag).map_or(Unmodified::Unknown, |copy| Unmodified::Callers(Some(copy.clone())))
                }
                None => Unmodified::Callers(None),
            };
        };
        let own = &kept.encoded.etag;
        let is_kept = match etag {
            Some(etag) => is_same(own, etag),
            // It can only be about the one tag that was sent.
            None => self.tags.iter().all(|sent| is_same(sent, own)),
        };
        if is_kept && let Some(copy) = self.copy(own) {
            Unmodified::Callers(Some(copy.clone()))
        } else if is_kept && kept.url[..Position::AfterPath] == url[..Position::AfterPath] {
            Unmodified::Kept
        } else if let Some(copy) = etag.and_then(|etag| self.copy(etag)) {
            Unmodified::Callers(Some(copy.clone()))
        } else {
            Unmodified::Unknown
        }
    }

    /// The tag of the one that is the document with this tag, as the caller has it.
    fn copy<'a>(&'a self, etag: &'a HeaderValue) -> Option<&'a HeaderValue> {
        self.tags.iter().find(|tag| is_same(tag, etag)).or(self.is_any.then_some(etag))
    }
}

/// What a 304 of the upstream is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unmodified {
    /// The caller's copy, which has this entity tag.
    Callers(Option<HeaderValue>),
    /// What we keep.
    Kept,
    /// Something that nobody asked about, or one of several.
    Unknown,
}

/// A response's entity tag. Malformed ones, which some upstreams send, are treated as absent.
pub(super) fn entity_tag(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(ETAG).filter(|tag| parsed(tag).is_some()).cloned()
}

/// The strength and the opaque part of an entity tag. `None` if it is malformed.
fn parsed(tag: &HeaderValue) -> Option<(char, &str)> {
    let tag = tag.to_str().ok()?;
    let (strength, opaque) = match tag.strip_prefix("W/") {
        Some(opaque) => ('w', opaque),
        None => ('s', tag),
    };
    let opaque = opaque.strip_prefix('"')?.strip_suffix('"').filter(|opaque| !opaque.contains('"'))?;
    Some((strength, opaque))
}

/// Whether two entity tags are of one document. Their strength does not matter here (RFC 9110,
/// section 13.1.2).
fn is_same(one: &HeaderValue, other: &HeaderValue) -> bool {
    let [one, other] = [one, other].map(|tag| tag.as_bytes().strip_prefix(b"W/").unwrap_or(tag.as_bytes()));
    one == other
}

/// Whether `Cache-Control` has this directive.
pub(super) fn has_directive(headers: &HeaderMap, directive: &str) -> bool {
    let controls = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    controls.flat_map(|control| control.split(',')).any(|each| each.trim().eq_ignore_ascii_case(directive))
}

/// The opaque parts of a list of entity tags, up to the first malformed one.
fn opaque_tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (tag, after) = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?.split_once('"')?;
        rest = after;
        Some(tag)
    })
}

/// A 304 response with our entity tag for the upstream's.
pub fn not_modified(variant: &Variant, etag: Option<&HeaderValue>) -> Response {
    with_headers(StatusCode::NOT_MODIFIED.into_response(), variant, etag)
}

/// Metadata as it goes out.
#[derive(Debug)]
pub struct Encoded {
    /// The entity tag that ours is made of: the upstream's, or a digest.
    pub etag: HeaderValue,
    /// The content type.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
    /// Whether the body is compressed.
    pub is_compressed: bool,
}

impl Encoded {
    /// The response.
    pub fn response(&self, variant: &Variant) -> Response {
        let mut response = ([(CONTENT_TYPE, self.content_type)], Body::from(self.body.clone())).into_response();
        if self.is_compressed {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        with_headers(response, variant, Some(&self.etag))
    }
}

/// The response to this request with this metadata, or 304 if the caller's copy is current. The body
/// must be UTF-8 and of a text type.
///
/// # Errors
///
/// 422 if it is too large for a Lambda response.
pub fn answer(
    parts: &Parts,
    variant: &Variant,
    etag: Option<HeaderValue>,
    content_type: &'static str,
    body: Spliced,
) -> Result<Response, ApiError> {
    Ok(match encoded(parts, variant, etag, content_type, body)? {
        Ok(encoded) => encoded.response(variant),
        Err(response) => response,
    })
}

/// This metadata, compressed if the caller accepts gzip; or a response that needs no body: 304 if the
/// caller's copy is current, and that to `HEAD`.
///
/// # Errors
///
/// As [`answer`].
pub(super) fn encoded(
    parts: &Parts,
    variant: &Variant,
    etag: Option<HeaderValue>,
    content_type: &'static str,
    body: Spliced,
) -> Result<Result<Encoded, Response>, ApiError> {
    let etag = etag.unwrap_or_else(|| digest(&body));
    if let Some(copy) = variant.cached(&parts.headers).copy(&etag) {
        return Ok(Err(not_modified(variant, Some(copy))));
    }
    if parts.method == Method::HEAD {
        // Only compressing would tell the length, so that of the body must not be known.
        let body = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
        let response = ([(CONTENT_TYPE, content_type)], body).into_response();
        return Ok(Err(with_headers(response, variant, Some(&etag))));
    }
    let (body, is_compressed) = encode(body, accept::accepts_gzip(&parts.headers))?;
    Ok(Ok(Encoded { etag, content_type, body, is_compressed }))
}

/// An entity tag for a document that the upstream sent without one.
fn digest(body: &Spliced) -> HeaderValue {
    let mut hasher = Sha256::new();
    body.pieces().for_each(|piece| hasher.update(piece));
    let digits = hex::encode(&hasher.finalize()[..16]);
    HeaderValue::from_str(&format!("\"{digits}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

fn with_headers(mut response: Response, variant: &Variant, etag: Option<&HeaderValue>) -> Response {
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

/// Encodes a body within Lambda's limit. Returns whether it is compressed. It takes no more memory
/// than its length, since it may be kept.
fn encode(body: Spliced, accepts_gzip: bool) -> Result<(Bytes, bool), ApiError> {
    if accepts_gzip && body.length() >= MIN_COMPRESSED {
        for level in [Compression::fast(), Compression::best()] {
            let compressed = gzip(&body, level).map_err(|error| {
                tracing::error!(%error, "gzip compression failed");
                ApiError::Internal
            })?;
            if let Some(compressed) = compressed {
                return Ok((compressed.into_boxed_slice().into(), true));
            }
        }
    } else if body.pieces().map(json_length).sum::<usize>() <= MAX_ENCODED {
        return Ok((body.concat().into_boxed_slice().into(), false));
    }
    Err(ApiError::TooLarge(TOO_LARGE))
}

/// Compresses a body. `None` if the result would exceed Lambda's limit.
fn gzip(body: &Spliced, level: Compression) -> std::io::Result<Option<Vec<u8>>> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    let mut gathered = Vec::with_capacity(COMPRESSED_AT_ONCE.min(body.length()));
    for part in body.pieces().flat_map(|piece| piece.chunks(COMPRESSED_AT_ONCE)) {
        // A compressor is twice as slow on the small pieces between two edits.
        if gathered.len() + part.len() > COMPRESSED_AT_ONCE {
            encoder.write_all(&gathered)?;
            gathered.clear();
            if base64_length(encoder.get_ref().len()) > MAX_ENCODED {
                return Ok(None);
            }
        }
        gathered.extend_from_slice(part);
    }
    encoder.write_all(&gathered)?;
    Ok(Some(encoder.finish()?).filter(|compressed| base64_length(compressed.len()) <= MAX_ENCODED))
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

    /// What the upstream is sent for this `If-None-Match`.
    fn sent(variant: &Variant, header: &str) -> Option<String> {
        asked(variant, header, None)
    }

    /// Likewise if this is kept.
    fn asked(variant: &Variant, header: &str, kept: Option<&Kept>) -> Option<String> {
        let cached = variant.cached(&HeaderMap::from_iter([(IF_NONE_MATCH, value(header))]));
        Some(cached.condition(kept)?.to_str().unwrap().to_owned())
    }

    const PLACE: &str = "https://packages.example.com/a";

    fn kept(etag: &str) -> Kept {
        let encoded =
            Encoded { etag: value(etag), content_type: "text/html", body: Bytes::new(), is_compressed: false };
        Kept { url: Url::parse(PLACE).unwrap(), encoded }
    }

    #[test]
    fn upstream_is_asked_about_the_copies_of_both_and_its_304_is_about_one_of_them() {
        let variant = Variant::of(&["https://guard.example.com"]);
        let ours = |upstream: &str| variant.tag(&value(upstream)).unwrap().to_str().unwrap().to_owned();
        let tagged = kept("\"k\"");
        let (own, other, weak_own) = (ours("\"k\""), ours("\"c\""), ours("W/\"k\""));
        assert_eq!(asked(&variant, "", Some(&tagged)).as_deref(), Some("\"k\""));
        assert_eq!(asked(&variant, &own, Some(&tagged)).as_deref(), Some("\"k\""));
        assert_eq!(asked(&variant, &weak_own, Some(&tagged)).as_deref(), Some("\"k\""));
        assert_eq!(asked(&variant, &other, Some(&tagged)).as_deref(), Some("\"c\", \"k\""));
        let answered = |kept, sent: &str, etag: Option<&str>, url: &str| {
            let cached = variant.cached(&HeaderMap::from_iter([(IF_NONE_MATCH, value(sent))]));
            cached.unmodified(kept, etag.map(value).as_ref(), &Url::parse(url).unwrap())
        };
        let callers = |etag: &str| Unmodified::Callers(Some(value(etag)));
        let (elsewhere, signed) = ("https://packages.example.com/b", format!("{PLACE}?signature=1"));
        for (kept, sent, etag, url, expected) in [
            (Some(&tagged), "", Some("\"k\""), PLACE, Unmodified::Kept),
            (Some(&tagged), "", Some("W/\"k\""), PLACE, Unmodified::Kept),
            (Some(&tagged), "", None, PLACE, Unmodified::Kept),
            (Some(&tagged), &own, None, PLACE, callers("\"k\"")),
            (Some(&tagged), "*", None, PLACE, callers("\"k\"")),
            (Some(&tagged), &other, Some("\"k\""), PLACE, Unmodified::Kept),
            (Some(&tagged), &other, Some("\"c\""), PLACE, callers("\"c\"")),
            // Tags are compared without their strength, and the caller gets its own.
            (Some(&tagged), &other, Some("W/\"c\""), PLACE, callers("\"c\"")),
            (Some(&tagged), &weak_own, Some("\"k\""), PLACE, callers("W/\"k\"")),
            (Some(&tagged), &weak_own, None, PLACE, callers("W/\"k\"")),
            (None, &other, Some("W/\"c\""), PLACE, callers("\"c\"")),
            // It may be about either, about neither, or about the same name elsewhere.
            (Some(&tagged), &other, None, PLACE, Unmodified::Unknown),
            (Some(&tagged), "", Some("\"x\""), PLACE, Unmodified::Unknown),
            (Some(&tagged), "", Some("\"k\""), elsewhere, Unmodified::Unknown),
            (Some(&tagged), "", Some("\"k\""), &signed, Unmodified::Kept),
            (None, &other, Some("\"c\""), PLACE, callers("\"c\"")),
            (None, &other, None, PLACE, Unmodified::Callers(None)),
            (None, &other, Some("\"x\""), PLACE, Unmodified::Unknown),
        ] {
            assert_eq!(answered(kept, sent, etag, url), expected, "{sent} {etag:?} {url}");
        }
    }

    #[test]
    fn malformed_entity_tags_are_as_good_as_absent() {
        let tag = |text: &str| entity_tag(&HeaderMap::from_iter([(ETAG, value(text))]));
        for text in ["\"a\"", "W/\"a\"", "\"\""] {
            assert_eq!(tag(text), Some(value(text)));
        }
        for text in ["a", "\"a", "w/\"a\"", "\"a\"b\"", "\"", ""] {
            assert_eq!(tag(text), None, "{text}");
        }
        assert_eq!(entity_tag(&HeaderMap::new()), None);
    }

    #[test]
    fn directives_are_found_among_others_in_any_case() {
        for (control, has) in
            [("private, No-Store", true), ("no-store", true), ("private, no-cache", false), ("", false)]
        {
            assert_eq!(has_directive(&HeaderMap::from_iter([(CACHE_CONTROL, value(control))]), "no-store"), has);
        }
    }

    #[test]
    fn entity_tags_round_trip() {
        let variant = Variant::of(&["https://guard.example.com"]);
        for upstream in ["\"abc\"", "W/\"abc\"", "\"a~b\"", "\"\""] {
            let ours = variant.tag(&value(upstream)).unwrap();
            assert!(ours.to_str().unwrap().starts_with("W/\""));
            assert_eq!(sent(&variant, ours.to_str().unwrap()).as_deref(), Some(upstream));
            // A proxy may have made it strong.
            let strong = ours.to_str().unwrap().trim_start_matches("W/");
            assert_eq!(sent(&variant, strong).as_deref(), Some(upstream));
        }
    }

    #[test]
    fn entity_tags_of_other_variants_are_ignored() {
        let ours = Variant::of(&["https://a.example"]).tag(&value("\"abc\"")).unwrap();
        let other = Variant::of(&["https://b.example"]);
        for tag in [ours.to_str().unwrap(), "\"abc\"", "*", "abc", "\"a\", \"b~s00000000\"", ""] {
            assert_eq!(sent(&other, tag), None, "{tag}");
        }
    }

    #[test]
    fn lists_of_entity_tags_and_any_are_understood() {
        let variant = Variant::of(&["https://guard.example.com"]);
        let ours = |upstream: &str| variant.tag(&value(upstream)).unwrap().to_str().unwrap().to_owned();
        let list = format!("\"other\" , {},W/\"x,y~s1\", {}", ours("\"a,b\""), ours("W/\"c\""));
        assert_eq!(sent(&variant, &list).as_deref(), Some("\"a,b\", W/\"c\""));
        let headers = HeaderMap::from_iter([(IF_NONE_MATCH, value(&list))]);
        assert!(variant.cached(&headers).copy(&value("\"a,b\"")).is_some());
        assert!(variant.cached(&headers).copy(&value("\"other\"")).is_none());
        let any = HeaderMap::from_iter([(IF_NONE_MATCH, value(" * "))]);
        let any = variant.cached(&any);
        assert!(any.copy(&value("\"a\"")).is_some() && any.condition(None).is_none());
        // Not one of ours, since the upstream never received it.
        let token = Token::generate(crate::secret::TokenKind::OrgUser).unwrap();
        assert_eq!(sent(&variant, &ours(&format!("\"x-{}\"", token.expose()))), None);
    }

    #[test]
    fn bodies_up_to_lambdas_limit_are_accepted() {
        let fits = vec![b'a'; MAX_ENCODED];
        assert!(!encode(fits.clone().into(), false).unwrap().1);
        assert!(encode([fits.clone(), vec![b'a']].concat().into(), false).is_err());
        // The runtime escapes quotes, which doubles them.
        assert!(encode(vec![b'"'; MAX_ENCODED / 2 + 1].into(), false).is_err());
        let (compressed, is_compressed) = encode(fits.into(), true).unwrap();
        assert!(is_compressed && compressed.len() < MAX_ENCODED / 100);
        assert_eq!(base64_length(4), 8);
        assert_eq!(json_length(b"\"a\x01\""), serde_json::to_string("\"a\x01\"").unwrap().len() - 2);
    }

    #[test]
    fn bodies_take_no_more_memory_than_their_length() {
        for accepts_gzip in [false, true] {
            let mut grown = Vec::with_capacity(10_000);
            grown.extend_from_slice(&[b'a'; 6_000]);
            let (body, _) = encode(grown.into(), accepts_gzip).unwrap();
            let length = body.len();
            assert_eq!(body.try_into_mut().unwrap().capacity(), length);
        }
    }
}
