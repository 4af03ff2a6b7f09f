//! What goes wrong, as the caller sees it: one enum, and the only place that renders errors.
//!
//! The envelope, the codes and their statuses are §3 of the contract. Handlers return [`ApiError`]; the answer's body
//! is written by [`crate::http::observe`], which knows the request's id.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::secret::RandomnessUnavailable;

/// A field that was not as it must be. The message never repeats what was sent: it may have been a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field, as it is named in the request.
    #[schema(example = "user_identifier")]
    pub field: String,
    /// What the field must be.
    #[schema(example = "must have 4 to 255 characters")]
    pub message: String,
}

impl FieldError {
    /// A problem with one field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Why a credential is refused with 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unauthorized {
    /// None was sent.
    Missing,
    /// One was sent and does not count. Which way it does not count is not said.
    Invalid,
}

/// Every way in which a request can fail.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// 400: the request as a whole cannot be read.
    #[error("{0}")]
    Malformed(&'static str),
    /// 400: a field is missing, unknown or invalid.
    #[error("The request has an invalid field.")]
    Invalid(FieldError),
    /// 400: a reset code that is wrong, expired, used up or unknown: one answer for all.
    #[error("The reset code is not valid. Register the address again to be sent another.")]
    InvalidResetCode,
    /// 401.
    #[error("{}", match .0 {
        Unauthorized::Missing => "A credential is required: send it as `Authorization: Bearer <credential>`.",
        Unauthorized::Invalid => "The credential is not valid.",
    })]
    Unauthorized(Unauthorized),
    /// 403: the credential is good and may not do this.
    #[error("The credential may not do this.")]
    Forbidden,
    /// 403: an API key asks for more than it holds itself.
    #[error("{0}")]
    Exceeds(&'static str),
    /// 403: the API keys of the organization's plan are used up.
    #[error("The API keys of the organization's plan are used up: revoke one, or choose a larger plan.")]
    PlanLimitReached,
    /// 403: the organization has no active subscription with Guard enabled.
    #[error("The organization has no active subscription with Guard enabled.")]
    SubscriptionRequired,
    /// 404: no such token in the caller's organization.
    #[error("There is no such token in this organization.")]
    TokenNotFound,
    /// 404: no such route.
    #[error("There is nothing at this path.")]
    NotFound,
    /// 405, with the methods that the path does take.
    #[error("This path does not take this method; the `Allow` header names those it takes.")]
    MethodNotAllowed(String),
    /// 404: a registry's upstream has no such package or file.
    #[error("The registry behind this one knows no such package or file.")]
    PackageNotFound,
    /// 409: the caller lost a race, or what it expected is no longer so.
    #[error("{0}")]
    Conflict(&'static str),
    /// 413, with what is taken at the most.
    #[error("The body is larger than {0}.")]
    PayloadTooLarge(&'static str),
    /// 415.
    #[error(
        "The body must be sent as `Content-Type: application/json`, or as another type that is documented for this call."
    )]
    UnsupportedMediaType,
    /// 429, with the time after which another call is taken.
    #[error("Too many calls; the `Retry-After` header says in how many seconds to call again.")]
    RateLimited(Duration),
    /// 502: a registry's upstream failed, or answered what cannot be passed on.
    #[error("{0}")]
    BadGateway(&'static str),
    /// 504: a registry's upstream took too long.
    #[error("The registry behind this one took too long to answer; try again.")]
    GatewayTimeout,
    /// 503: a part that we stand on is throttled or down. Nothing is half-done.
    #[error("The service is temporarily unavailable; it is safe to repeat the request.")]
    Unavailable,
    /// 500: a defect of ours. Its cause has been logged and is not answered.
    #[error("Something went wrong on our side.")]
    Internal,
}

impl ApiError {
    /// A field that is not as it must be.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError::Invalid(FieldError::new(field, message))
    }

    /// The status and the code of the contract.
    pub fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            ApiError::Malformed(_) | ApiError::Invalid(_) => (StatusCode::BAD_REQUEST, "BAD_REQUEST"),
            ApiError::InvalidResetCode => (StatusCode::BAD_REQUEST, "INVALID_RESET_CODE"),
            ApiError::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED"),
            ApiError::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            ApiError::Forbidden | ApiError::Exceeds(_) => (StatusCode::FORBIDDEN, "FORBIDDEN"),
            ApiError::PlanLimitReached => (StatusCode::FORBIDDEN, "PLAN_LIMIT_REACHED"),
            ApiError::SubscriptionRequired => (StatusCode::FORBIDDEN, "SUBSCRIPTION_REQUIRED"),
            ApiError::TokenNotFound => (StatusCode::NOT_FOUND, "TOKEN_NOT_FOUND"),
            ApiError::NotFound | ApiError::PackageNotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            ApiError::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
            ApiError::Conflict(_) => (StatusCode::CONFLICT, "CONFLICT"),
            ApiError::PayloadTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
            ApiError::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE"),
            ApiError::BadGateway(_) => (StatusCode::BAD_GATEWAY, "BAD_GATEWAY"),
            ApiError::GatewayTimeout => (StatusCode::GATEWAY_TIMEOUT, "GATEWAY_TIMEOUT"),
            ApiError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE"),
            ApiError::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR"),
        }
    }

    /// The whole answer, in the form that the route's callers expect.
    pub fn render(&self, format: ErrorFormat, request_id: &str) -> Response {
        let (status, code) = self.status_and_code();
        let (content_type, body) = match format {
            ErrorFormat::Envelope => {
                let details = match self {
                    ApiError::Invalid(field) => Some(vec![field.clone()]),
                    _ => None,
                };
                let request_id = request_id.to_owned();
                let error = ErrorDetail { code, message: self.to_string(), request_id, details };
                ("application/json", serde_json::to_vec(&ErrorEnvelope { error }))
            }
            ErrorFormat::Npm | ErrorFormat::Pypi => ("application/problem+json", serde_json::to_vec(&self.problem())),
        };
        let body = Body::from(body.unwrap_or_default());
        let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
        let headers = response.headers_mut();
        if format == ErrorFormat::Npm
            && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            && let Ok(notice) = HeaderValue::from_str(&self.registry_sentence())
        {
            // What npm shows of a 401 is advice to log in, which is of no use here; this it shows as well. Not elsewhere:
            // there it shows the body, and much of what it asks in passing may well not be found.
            headers.insert("npm-notice", notice);
        }
        match self {
            ApiError::Unauthorized(reason) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge(format, *reason)));
            }
            ApiError::RateLimited(left) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(left.as_secs().max(1)));
            }
            ApiError::MethodNotAllowed(allow) => {
                if let Ok(allow) = HeaderValue::from_str(allow) {
                    headers.insert(header::ALLOW, allow);
                }
            }
            _ => {}
        }
        response
    }

    /// The body of the answer at a registry.
    pub(crate) fn problem(&self) -> Problem {
        let ((status, code), sentence) = (self.status_and_code(), self.registry_sentence());
        Problem {
            error: sentence.clone(),
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            detail: sentence,
            status: status.as_u16(),
            code,
        }
    }

    /// What a person at a package manager is told: there, only the sentence is shown, without its context.
    fn registry_sentence(&self) -> String {
        match self {
            ApiError::Unauthorized(Unauthorized::Missing) => {
                "A guard-tokens token is required: set a tg_anon_ or tg_org_ token for this registry."
            }
            ApiError::Unauthorized(Unauthorized::Invalid) => {
                "The guard-tokens token is not valid: it is mistyped, expired or revoked. Set another for this registry."
            }
            ApiError::Forbidden => {
                "This credential does not open the registries: only tg_anon_ and tg_org_ tokens do."
            }
            ApiError::MethodNotAllowed(_) => "This registry is for installing only: nothing can be published to it.",
            ApiError::NotFound => "This registry has nothing at this path.",
            _ => return self.to_string(),
        }
        .to_owned()
    }
}

/// How the callers of a route read errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorFormat {
    /// [`ErrorEnvelope`], everywhere but at the registries.
    Envelope,
    /// [`Problem`], for npm and its kin.
    Npm,
    /// [`Problem`], for pip and its kin, which are asked for Basic credentials.
    Pypi,
}

impl ErrorFormat {
    /// The format of what lies at this path.
    pub fn at(path: &str) -> Self {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        match first {
            "npm" => ErrorFormat::Npm,
            "pypi" => ErrorFormat::Pypi,
            _ => ErrorFormat::Envelope,
        }
    }
}

/// The challenge of a 401. RFC 6750, section 3.1: the error is named only to whom sent a credential. pip and its kin
/// speak Basic alone (RFC 7617).
fn challenge(format: ErrorFormat, reason: Unauthorized) -> &'static str {
    match (format, reason) {
        (ErrorFormat::Pypi, _) => r#"Basic realm="guard-tokens", charset="UTF-8""#,
        (_, Unauthorized::Missing) => r#"Bearer realm="guard-tokens""#,
        (_, Unauthorized::Invalid) => r#"Bearer realm="guard-tokens", error="invalid_token""#,
    }
}

/// The body of an error at a registry: RFC 9457, with the sentence also where npm and its kin look for it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// For people: what npm and its kin show.
    #[schema(example = "The registry behind this one knows no such package or file.")]
    pub error: String,
    /// No type of its own: the status says it.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    pub kind: &'static str,
    /// The status in words.
    #[schema(example = "Not Found")]
    pub title: &'static str,
    /// For people: what uv and poetry show.
    #[schema(example = "The registry behind this one knows no such package or file.")]
    pub detail: String,
    /// The status.
    #[schema(example = 404)]
    pub status: u16,
    /// For programs: one of the contract's codes.
    #[schema(example = "NOT_FOUND")]
    pub code: &'static str,
}

impl IntoResponse for ApiError {
    /// A mark for [`crate::http::observe`], which renders the error with the request's id.
    fn into_response(self) -> Response {
        let mut response = self.status_and_code().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<RandomnessUnavailable> for ApiError {
    fn from(error: RandomnessUnavailable) -> Self {
        tracing::error!(%error, "no token was made");
        ApiError::Unavailable
    }
}

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorEnvelope {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// For programs: one of the contract's codes.
    #[schema(example = "BAD_REQUEST")]
    pub code: &'static str,
    /// For people.
    #[schema(example = "The request has an invalid field.")]
    pub message: String,
    /// The id of the request, as in `x-request-id`: name it when you ask for help.
    #[schema(example = "01KAJ8M4R2X7Z9V5T3Q1N6P8WC")]
    pub request_id: String,
    /// The fields that were not as they must be; only where the request was not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Vec<FieldError>>,
}
