//! Extractors and responses. A rejection names the invalid field and never its value, which may be
//! a secret.

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

use crate::app::App;
use crate::clock::Moment;
use crate::domain::IdempotencyKey;
use crate::error::{ApiError, SCIM_JSON};
use crate::ids::OrgId;
use crate::observe::Origin;
use crate::permissions::Guarded;
use crate::store::audit::Caller;
use crate::store::idempotency::Once;

/// The body size limit, in bytes.
pub const MAX_BODY: usize = 16_384;

/// The error for a body larger than [`MAX_BODY`].
pub const BODY_TOO_LARGE: ApiError = ApiError::PayloadTooLarge("16,384 bytes");

/// The size limit of a SCIM request, in bytes. Identity providers send whole profiles, with groups and
/// photos, also of people who leave.
pub const MAX_SCIM: usize = 262_144;

/// The error for a SCIM request larger than [`MAX_SCIM`].
pub const SCIM_TOO_LARGE: ApiError = ApiError::PayloadTooLarge("262,144 bytes");

/// The size limit of a report of leaked tokens, in bytes.
pub const MAX_REPORT: usize = 1_048_576;

/// The error for a report larger than [`MAX_REPORT`].
pub const REPORT_TOO_LARGE: ApiError = ApiError::PayloadTooLarge("1,048,576 bytes");

/// A JSON request or response body.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let body = read_body(request).await?;
        if !is_json {
            return Err(ApiError::UnsupportedMediaType);
        }
        Self::parse(&body)
    }
}

impl<T: DeserializeOwned> Json<T> {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        // serde would also accept an array for a struct.
        if body.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
            return Err(ApiError::Malformed("The request body must be a JSON object."));
        }
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let field = error.path().to_string();
            let error = error.into_inner();
            match error.classify() {
                serde_json::error::Category::Data => {
                    rejection(field, &error.to_string(), "The request body does not match the schema of this call.")
                }
                // serde_json also reports a syntax error for a non-string where it expects an enum
                // variant.
                _ if field != "." && serde_json::from_slice::<IgnoredAny>(body).is_ok() => {
                    ApiError::invalid(field, "has the wrong type or is out of range")
                }
                _ => ApiError::Malformed("The request body is not valid JSON."),
            }
        })?;
        deserializer.end().map_err(|_| ApiError::Malformed("The request body is not valid JSON."))?;
        Ok(Self(value))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// The body of a SCIM request, as SCIM's media type or JSON, up to [`MAX_SCIM`].
#[derive(Debug, Clone)]
pub struct ScimJson(pub serde_json::Map<String, serde_json::Value>);

impl<S: Send + Sync> FromRequest<S> for ScimJson {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let is_scim = is_json(request.headers()) || essence(request.headers()) == SCIM_JSON;
        let body = read_up_to(MAX_SCIM, SCIM_TOO_LARGE, request).await?;
        if !is_scim {
            return Err(ApiError::UnsupportedMediaType);
        }
        Json::parse(&body).map(|Json(value)| Self(value))
    }
}

/// The body of a report of leaked tokens as it was sent, up to [`MAX_REPORT`].
#[derive(Debug)]
pub struct Report(pub Vec<u8>);

impl<S: Send + Sync> FromRequest<S> for Report {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        read_up_to(MAX_REPORT, REPORT_TOO_LARGE, request).await.map(Self)
    }
}

/// A report of leaked tokens: a [`Json`] body up to [`MAX_REPORT`].
#[derive(Debug, Clone, Copy)]
pub struct JsonReport<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonReport<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let Report(body) = Report::from_request(request, state).await?;
        if !is_json {
            return Err(ApiError::UnsupportedMediaType);
        }
        Json::parse(&body).map(|Json(value)| Self(value))
    }
}

/// The JSON body of a call that creates a token, and the idempotency key that it came with, if any.
#[derive(Debug)]
pub struct JsonOnce<O, T> {
    body: T,
    once: Option<Once>,
    operation: PhantomData<O>,
}

impl<O, T> JsonOnce<O, T> {
    /// The body and the key. Checked before anything that may refuse the call later than it refused
    /// the first one: a repeat is answered as one, whatever has changed since.
    ///
    /// # Errors
    ///
    /// 409 if this caller has made the same call with this key, 400 if it has made another one.
    pub async fn unless_repeated(self, app: &App, org: &OrgId, caller: &Caller) -> Result<(T, Option<Once>), ApiError> {
        match app.store().repeated(org, self.once.as_ref(), caller).await? {
            Some(repeat) => Err(repeat.into()),
            None => Ok((self.body, self.once)),
        }
    }
}

impl<S: Send + Sync, O: Guarded, T: DeserializeOwned> FromRequest<S> for JsonOnce<O, T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let key = idempotency_key(request.headers())?;
        let (path, request) = with_path(request, state).await?;
        let is_json = is_json(request.headers());
        let body = read_body(request).await?;
        if !is_json {
            return Err(ApiError::UnsupportedMediaType);
        }
        let once = key.map(|key| Once::new(&key, O::OPERATION, path.beside_org(), &body));
        let Json(body) = Json::parse(&body)?;
        Ok(Self { body, once, operation: PhantomData })
    }
}

/// The `Idempotency-Key` header.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let invalid = |message| ApiError::invalid(IdempotencyKey::HEADER, message);
    let mut values = headers.get_all(IdempotencyKey::HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("must be given only once"));
    }
    // Not printable ASCII is answered like another length.
    let text = value.to_str().unwrap_or_default().to_owned();
    IdempotencyKey::try_from(text).map(Some).map_err(invalid)
}

/// Rejects every field of a body, for operations that have none. No body and `{}` are the same.
#[derive(Debug, Clone, Copy)]
pub struct NoFields;

impl<S: Send + Sync> FromRequest<S> for NoFields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = read_body(Request::from_parts(parts.clone(), body)).await?;
        if body.is_empty() {
            return Ok(Self);
        }
        Json::<NoParameters>::from_request(Request::from_parts(parts, body.into()), state).await.map(|_| Self)
    }
}

/// A form or JSON body. RFC 7662 requires forms.
#[derive(Debug, Clone, Copy)]
pub struct FormOrJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for FormOrJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_form(request.headers()) {
            return Json::from_request(request, state).await.map(|Json(value)| Self(value));
        }
        let body = read_body(request).await?;
        from_form(&body, "The request body is not a valid form.").map(Self)
    }
}

/// Parses a form or a query string.
pub(crate) fn from_form<T: DeserializeOwned>(form: &[u8], otherwise: &'static str) -> Result<T, ApiError> {
    let deserializer = serde_html_form::Deserializer::from_bytes(form);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let field = error.path().to_string();
        rejection(field, &error.into_inner().to_string(), otherwise)
    })
}

/// Deserializes an optional field that must not be null: for
/// `#[serde(default, deserialize_with = "present")]`.
pub fn present<'de, D: serde::Deserializer<'de>, T: serde::Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// [`present`] for a nested object: serde would also accept an array for a struct.
pub fn present_object<'de, D: serde::Deserializer<'de>, T: serde::Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    deserializer.deserialize_map(ObjectOf(PhantomData)).map(Some)
}

/// An object in a list: serde would also accept an array for a struct.
#[derive(Debug, Clone, Copy)]
pub struct Object<T>(pub T);

impl<'de, T: serde::Deserialize<'de>> serde::Deserialize<'de> for Object<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectOf(PhantomData)).map(Self)
    }
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

/// Reads the body, up to [`MAX_BODY`].
pub(crate) async fn read_body(request: Request) -> Result<Vec<u8>, ApiError> {
    read_up_to(MAX_BODY, BODY_TOO_LARGE, request).await
}

async fn read_up_to(limit: usize, too_large: ApiError, request: Request) -> Result<Vec<u8>, ApiError> {
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large),
        Err(_) => Err(ApiError::Malformed("The request body could not be read.")),
    }
}

/// Whether the body is JSON. A web page cannot send that to another origin unasked.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    essence(headers) == "application/json"
}

/// Whether the body is a form as browsers and RFC 7662 send it.
pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    essence(headers) == "application/x-www-form-urlencoded"
}

/// The media type of the body, without parameters.
fn essence(headers: &HeaderMap) -> String {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The query parameters. Unknown ones are rejected: a mistyped filter must not list everything.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        from_form(query.as_bytes(), "The query string is not valid.").map(Self).map_err(|error| match error {
            ApiError::Invalid(field) if has_plus(query, &field.field) => {
                ApiError::invalid(field.field, format!("{}; write `+` as `%2B` in a URL", field.message))
            }
            error => error,
        })
    }
}

/// Whether this parameter has an unencoded `+`, which means a space.
fn has_plus(query: &str, name: &str) -> bool {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.any(|(key, value)| key == name && value.contains('+'))
}

/// Turns a serde message into an error that names the field. Keeps only what serde expected: the
/// rest of its message quotes the value.
fn rejection(path: String, message: &str, otherwise: &'static str) -> ApiError {
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    let named = |rest: &str| {
        let name = rest.split('`').nth(1).unwrap_or_default();
        if path == "." || path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
    };
    if message.starts_with("missing field `") {
        ApiError::invalid(named(message), "is required")
    } else if message.starts_with("unknown field `") {
        ApiError::invalid(path_of_unknown(&path, message), "is not a known field or parameter; check its spelling")
    } else if message.starts_with("duplicate field `") {
        ApiError::invalid(named(message), "must be given only once")
    } else if message == "unsupported value" {
        // A repeated query parameter.
        ApiError::invalid(path, "must be given only once")
    } else if path == "." || path.is_empty() {
        ApiError::Malformed(otherwise)
    } else if let Some((_, expected)) =
        message.strip_prefix("invalid ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        let expected = match expected {
            "u64" | "usize" => "a non-negative integer",
            "a sequence" => "a list",
            "a map" => "an object",
            // serde names our types, which mean nothing to a caller.
            other if other.starts_with("struct ") => "an object",
            other => other,
        };
        ApiError::invalid(path, format!("must be {expected}"))
    } else if message.starts_with("unknown variant `") {
        let allowed = message.rsplit_once(", expected ").map_or("", |(_, allowed)| allowed);
        ApiError::invalid(path, format!("must be {}", allowed.replace('`', "\"")))
    } else if message.starts_with("invalid ") || message.contains("number") && message.contains("pars") {
        ApiError::invalid(path, "has the wrong type or is out of range")
    } else {
        // A message of our own, from `domain` or `clock`.
        ApiError::invalid(path, message)
    }
}

/// The path of an unknown field. Names it only if it looks like a field name, so that a misplaced
/// secret is not echoed.
fn path_of_unknown(path: &str, message: &str) -> String {
    let rest = message.strip_prefix("unknown field `").unwrap_or_default();
    let end = rest.rfind("`, expected ").or_else(|| rest.rfind("`, there are no fields")).unwrap_or_default();
    let name = &rest[..end];
    let is_name = (1..=32).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphabetic() || c == b'_');
    let shown = if is_name { name } else { "(unknown)" };
    // The path ends in the name as sent, which may contain dots; everything before it is ours.
    match path.strip_suffix(name).unwrap_or_default().trim_end_matches('.') {
        "" => shown.to_owned(),
        parent => format!("{parent}.{shown}"),
    }
}

/// Rejects every query parameter, for operations that have none.
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

/// The parameters of the path of this request, and the request.
pub(crate) async fn with_path<S: Send + Sync>(request: Request, state: &S) -> Result<(PathParams, Request), ApiError> {
    let (mut parts, body) = request.into_parts();
    let path = PathParams::from_request_parts(&mut parts, state).await?;
    Ok((path, Request::from_parts(parts, body)))
}

impl PathParams {
    /// The values of all parameters beside the organization, in the order of the path.
    pub(crate) fn beside_org(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(name, _)| name != "org_id").map(|(_, value)| value.as_str())
    }

    /// Whether the path has a parameter of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// The parameter with this name, or an empty string.
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
            // If one parameter is not UTF-8, axum decodes none. Read them undecoded: no valid id is
            // percent-encoded, so the bad one matches nothing and the others are still read.
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
            tracing::error!("the request has no origin extension");
            ApiError::Internal
        })
    }
}

/// The page size: 1–100, default 50.
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
        number.map(Self).ok_or("must be an integer from 1 to 100")
    }
}

/// Checks that `expires_at` is in the future.
pub fn in_the_future(expires_at: Option<Moment>, now: Moment) -> Result<Option<Moment>, ApiError> {
    match expires_at {
        Some(expires_at) if expires_at <= now => Err(ApiError::invalid("expires_at", "must be in the future")),
        expires_at => Ok(expires_at),
    }
}

/// A 204 response.
#[derive(Debug, Clone, Copy)]
pub struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}
