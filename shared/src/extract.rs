//! Extractors and answers of our own: what cannot be read is refused with the field's name, and never with its value.

use std::fmt;
use std::marker::PhantomData;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};

use crate::clock::Moment;
use crate::error::ApiError;
use crate::http::Origin;

/// The largest body that is taken, in bytes.
pub const MAX_BODY: usize = 16_384;

/// That a body is larger than [`MAX_BODY`].
pub const BODY_TOO_LARGE: ApiError = ApiError::PayloadTooLarge("16,384 bytes");

/// A JSON body. As an answer, the same.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let is_json = essence(request.headers()) == "application/json";
        let body = read_body(request).await?;
        if !is_json {
            return Err(ApiError::UnsupportedMediaType);
        }
        // serde would read a struct from an array as well.
        if body.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
            return Err(ApiError::Malformed("The body must be a JSON object."));
        }
        let mut deserializer = serde_json::Deserializer::from_slice(&body);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let field = error.path().to_string();
            let error = error.into_inner();
            match error.classify() {
                serde_json::error::Category::Data => rejection(field, &error.to_string(), "The body is not valid."),
                // serde_json calls it bad syntax, too, where the name of a variant was expected and no text came.
                _ if field != "." && serde_json::from_slice::<IgnoredAny>(&body).is_ok() => {
                    ApiError::invalid(field, "is not of the right type")
                }
                _ => ApiError::Malformed("The body is not valid JSON."),
            }
        })?;
        deserializer.end().map_err(|_| ApiError::Malformed("The body is not valid JSON."))?;
        Ok(Self(value))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// A body that may be a form as well as JSON: RFC 7662 asks for forms.
#[derive(Debug, Clone, Copy)]
pub struct FormOrJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for FormOrJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if essence(request.headers()) != "application/x-www-form-urlencoded" {
            return Json::from_request(request, state).await.map(|Json(value)| Self(value));
        }
        let body = read_body(request).await?;
        from_form(&body, "The form could not be read.").map(Self)
    }
}

/// Reads a form or a query.
fn from_form<T: DeserializeOwned>(form: &[u8], otherwise: &'static str) -> Result<T, ApiError> {
    let deserializer = serde_html_form::Deserializer::from_bytes(form);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let field = error.path().to_string();
        rejection(field, &error.into_inner().to_string(), otherwise)
    })
}

/// Reads a field that may be left out but not be null: for `#[serde(default, deserialize_with = "present")]`.
pub fn present<'de, D: serde::Deserializer<'de>, T: serde::Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// [`present`] for an object inside an object: serde would read a struct from an array as well.
pub fn present_object<'de, D: serde::Deserializer<'de>, T: serde::Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    deserializer.deserialize_map(ObjectOf(PhantomData)).map(Some)
}

struct ObjectOf<T>(PhantomData<T>);

impl<'de, T: serde::Deserialize<'de>> Visitor<'de> for ObjectOf<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Reads a whole body, if it is not too large.
async fn read_body(request: Request) -> Result<Vec<u8>, ApiError> {
    match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(BODY_TOO_LARGE),
        Err(_) => Err(ApiError::Malformed("The body could not be read.")),
    }
}

/// The type of a body, without its parameters.
fn essence(headers: &HeaderMap) -> String {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The query parameters. Unknown ones are refused, as unknown fields are: a mistyped filter must not list everything.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        from_form(query.as_bytes(), "The query could not be read.").map(Self)
    }
}

/// Turns serde's words into an error that names the field. Of serde's own sentences only the part is kept that says
/// what was expected: the other part quotes what was sent.
fn rejection(path: String, message: &str, otherwise: &'static str) -> ApiError {
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    let named = |rest: &str| {
        let name = rest.split('`').nth(1).unwrap_or_default();
        if path == "." || path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
    };
    if message.starts_with("missing field `") {
        ApiError::invalid(named(message), "is required")
    } else if message.starts_with("unknown field `") {
        ApiError::invalid(path_of_unknown(&path, message), "is not a field of this request")
    } else if message.starts_with("duplicate field `") {
        ApiError::invalid(named(message), "is given more than once")
    } else if message == "unsupported value" {
        // A query parameter that came as a list.
        ApiError::invalid(path, "is given more than once")
    } else if path == "." || path.is_empty() {
        ApiError::Malformed(otherwise)
    } else if let Some((_, expected)) =
        message.strip_prefix("invalid ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        let expected = match expected {
            "u64" | "usize" => "a whole number that is not negative",
            "a sequence" => "a list",
            "a map" => "an object",
            // serde names our own types, which are nobody's business.
            other if other.starts_with("struct ") => "an object",
            other => other,
        };
        ApiError::invalid(path, format!("must be {expected}"))
    } else if message.starts_with("unknown variant `") {
        let allowed = message.rsplit_once(", expected ").map_or("", |(_, allowed)| allowed);
        ApiError::invalid(path, format!("must be {}", allowed.replace('`', "\"")))
    } else if message.starts_with("invalid ") || message.contains("number") && message.contains("pars") {
        ApiError::invalid(path, "is not of the right type")
    } else {
        // One of our own sentences: see `domain` and `clock`.
        ApiError::invalid(path, message)
    }
}

/// An unknown field is named, but only as far as it could be a field's name: a secret in the wrong place is not echoed.
fn path_of_unknown(path: &str, message: &str) -> String {
    let rest = message.strip_prefix("unknown field `").unwrap_or_default();
    let end = rest.rfind("`, expected ").or_else(|| rest.rfind("`, there are no fields")).unwrap_or_default();
    let name = &rest[..end];
    let is_name = (1..=32).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphabetic() || c == b'_');
    let shown = if is_name { name } else { "(unknown)" };
    // The path ends in the name as it was sent, which may have dots of its own: what is before it is ours.
    match path.strip_suffix(name).unwrap_or_default().trim_end_matches('.') {
        "" => shown.to_owned(),
        parent => format!("{parent}.{shown}"),
    }
}

/// That there are no query parameters, for operations that know none.
#[derive(Debug, Clone, Copy)]
pub struct NoQuery;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Query::<NoParameters>::from_request_parts(parts, state).await.map(|_| Self)
    }
}

/// The parameters of the path, percent-decoded.
#[derive(Debug)]
pub struct PathParams(Vec<(String, String)>);

impl PathParams {
    /// Whether the path has a parameter of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// A parameter of this name, or nothing at all where the path has none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = match RawPathParams::from_request_parts(parts, state).await {
            Ok(params) => params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            Err(RawPathParamsRejection::MissingPathParams(_)) => Vec::new(),
            // One is not UTF-8, and axum decodes none then. No id is percent-encoded: what is stays as it is, and is
            // no id; the others are read.
            Err(_) => {
                let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
                let pairs = route.split('/').zip(parts.uri.path().split('/'));
                let name = |part: &str| Some(part.strip_prefix('{')?.strip_suffix('}')?.to_owned());
                pairs.filter_map(|(part, value)| Some((name(part)?, value.to_owned()))).collect()
            }
        };
        Ok(Self(params))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Origin>().cloned().ok_or_else(|| {
            tracing::error!("a request came in without its origin");
            ApiError::Internal
        })
    }
}

/// How many entries of a list are asked for: 1–100, 50 unless said.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Limit(usize);

impl Limit {
    /// The number.
    pub fn get(self) -> usize {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(50)
    }
}

impl TryFrom<String> for Limit {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_number = !text.is_empty() && text.len() <= 3 && text.bytes().all(|c| c.is_ascii_digit());
        let number = text.parse().ok().filter(|number| is_number && (1..=100).contains(number));
        number.map(Self).ok_or("must be a number from 1 to 100")
    }
}

/// Checks that an expiry lies ahead.
pub fn in_the_future(expires_at: Option<Moment>, now: Moment) -> Result<Option<Moment>, ApiError> {
    match expires_at {
        Some(expires_at) if expires_at <= now => Err(ApiError::invalid("expires_at", "must lie in the future")),
        expires_at => Ok(expires_at),
    }
}

/// An answer without a body: 204.
#[derive(Debug, Clone, Copy)]
pub struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}
