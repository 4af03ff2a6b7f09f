//! Errors as callers see them: one enum, and the only place that renders it.
//!
//! Every error has a status, a stable code (docs/CONTRACT.md §3) and a sentence that says what is
//! wrong and what to do. Handlers return [`ApiError`]; the response body is written by
//! [`crate::observe::observe`], which knows the request id.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::secret::RandomnessUnavailable;

/// An invalid field, query parameter or header. The message never repeats the value, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field, query parameter or header, as named in the request.
    #[schema(example = "user_identifier")]
    pub field: String,
    /// What is wrong with the field, or what it must be.
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
    /// No credential was sent.
    Missing,
    /// A credential was sent by a scheme that is not supported, which counts as none (RFC 6750,
    /// section 3.1).
    Scheme,
    /// The credential that was sent is not active. The answer does not say why.
    Invalid,
    /// The signature of a report is missing or wrong.
    Signature,
    /// The ID token of a CI job is not accepted, or was exchanged before. The answer does not say which.
    IdToken,
}

/// Every way in which a request can fail.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// 400: the request as a whole cannot be parsed.
    #[error("{0}")]
    Malformed(&'static str),
    /// 400: a field is missing, unknown or invalid.
    #[error("`{}` {}.", .0.field, .0.message)]
    Invalid(FieldError),
    /// 400: a reset code that is wrong, expired, used or unknown. All four look identical.
    #[error("The reset code is wrong, expired or already used. Register the address again to receive a new code.")]
    InvalidResetCode,
    /// 401.
    #[error("{}", match .0 {
        Unauthorized::Missing => "No credential was sent. Send one as `Authorization: Bearer <credential>`.",
        Unauthorized::Scheme => "The scheme of the `Authorization` header is not supported. \
            Send the credential as `Authorization: Bearer <credential>`.",
        Unauthorized::Invalid => "The credential is not valid. Check that it is complete and still active.",
        Unauthorized::Signature => "The signature of the request is missing or wrong. Sign the body as it is sent.",
        Unauthorized::IdToken => "The ID token is not accepted. Request a new one from an issuer that this service \
            allows, for its audience, and exchange it once and before it expires.",
    })]
    Unauthorized(Unauthorized),
    /// 403: the credential is active but lacks permission.
    #[error("The credential lacks the role, scope or organization that this call requires. Use one that has it.")]
    Forbidden,
    /// 403: no trust of a bot admits a CI job, or there is no such bot. Both look identical.
    #[error(
        "No trust of this bot admits the ID token. Check the bot's id; the audit log of its organization names the \
         claim that does not match."
    )]
    NotTrusted,
    /// 403: a form of the console that another site's page sends, or one of another session.
    #[error("The form comes from another site, or from a session that has ended.")]
    ForeignForm,
    /// 403: an API key asks for more than it holds itself.
    #[error("{0}")]
    Exceeds(&'static str),
    /// 403: the organization has as many active API keys as its plan allows.
    #[error("The organization has as many active API keys as its plan allows. Revoke one, or upgrade the plan.")]
    PlanLimitReached,
    /// 403: the organization has as many access tokens as it may.
    #[error("The organization has 1,000 access tokens, as many as it may have. Delete one that is no longer needed.")]
    TooManyAccessTokens,
    /// 403: the operator has suspended the organization.
    #[error("The organization is suspended: it gets no new tokens. Ask the operator of this service.")]
    Suspended,
    /// 403: the organization has no active subscription with Guard enabled.
    #[error("The organization has no active subscription with Guard enabled. Ask its owner to enable Guard.")]
    SubscriptionRequired,
    /// 404: no such token in the caller's organization.
    #[error("This organization has no token with this id. Check the id.")]
    TokenNotFound,
    /// 404: no such SCIM user in the caller's organization.
    #[error("This organization has no user with this id. Look the user up by `userName`.")]
    UserNotFound,
    /// 409: a SCIM user has this name.
    #[error("A user with this `userName` exists. Look it up with a filter, and change it.")]
    UserExists,
    /// 400: a filter that is not supported.
    #[error("The filter is not supported. Send `userName eq \"alice@example.com\"`, or none.")]
    InvalidFilter,
    /// 400: an attribute that never changes.
    #[error("{0}")]
    Immutable(&'static str),
    /// 404: no such bot in the caller's organization.
    #[error("This organization has no bot with this id. Check the id.")]
    BotNotFound,
    /// 404: no such route.
    #[error("No endpoint has this path. Check it against `/v1/docs/openapi.json`.")]
    NotFound,
    /// 405, with the methods that the path allows.
    #[error("This path does not allow this method. The `Allow` header lists the methods it allows.")]
    MethodNotAllowed(String),
    /// 404: the upstream registry has no such package or file.
    #[error("The package or file was not found in the upstream registry. Check its name and version.")]
    PackageNotFound,
    /// 404: a function of package managers that a registry does not offer.
    #[error("{0}")]
    NotOffered(&'static str),
    /// 403: a registry does not do this for anyone.
    #[error("{0}")]
    Refused(&'static str),
    /// 403: the upstream registry refuses, with its reason.
    #[error("The upstream registry refused this request: {0}.")]
    UpstreamRefused(String),
    /// 400: the upstream registry rejects what the caller sent, with its reason.
    #[error("The upstream registry rejected this request as invalid: {0}.")]
    UpstreamRejected(String),
    /// 410: the upstream registry no longer has this endpoint or package.
    #[error("{0}")]
    UpstreamGone(&'static str),
    /// 422: the upstream registry's metadata is too large to serve.
    #[error("{0}")]
    TooLarge(&'static str),
    /// 429: the upstream registry limits the rate, with the time to wait.
    #[error(
        "The upstream registry limits the rate of requests. \
         Retry after the number of seconds in the `Retry-After` header."
    )]
    UpstreamRateLimited(Duration),
    /// 409: the caller lost a race, or its expectation no longer holds.
    #[error("{0}")]
    Conflict(&'static str),
    /// 409: the same request was made before with the same idempotency key, with the id of what it
    /// created.
    #[error(
        "This request was already made with this `Idempotency-Key` and created {0}. \
         Its secret is not stored and cannot be shown again; to create another one, send a new key."
    )]
    AlreadyMade(String),
    /// 413, with the limit.
    #[error("The request body is larger than the limit of {0}. Send a smaller one.")]
    PayloadTooLarge(&'static str),
    /// 415.
    #[error("The `Content-Type` is not supported. Send `application/json`, or another type documented for this call.")]
    UnsupportedMediaType,
    /// 429, with the time until the rate limit resets.
    #[error("Too many requests. Retry after the number of seconds in the `Retry-After` header.")]
    RateLimited(Duration),
    /// 502: the upstream registry failed, or returned an unexpected response.
    #[error("{0}")]
    BadGateway(&'static str),
    /// 504: the upstream registry timed out.
    #[error("The upstream registry timed out. Try again.")]
    GatewayTimeout,
    /// 503: a dependency is throttled or down. Every write is atomic, so a retry is safe.
    #[error("The service is temporarily unavailable. It is safe to retry.")]
    Unavailable,
    /// 503: the issuer of an ID token cannot be asked for its keys, with the time to wait.
    #[error(
        "The keys of the ID token's issuer cannot be fetched. Retry after the number of seconds in the `Retry-After` \
         header."
    )]
    IssuerUnavailable(Duration),
    /// 500: a bug in the service. The log has the cause; the response does not.
    #[error("An internal error occurred. If it persists, report the `x-request-id` of this response.")]
    Internal,
}

/// The error for a path that is no resource of a registry. Not 404, which only the upstream may
/// say: package managers remember it.
pub const NOT_IN_REGISTRY: ApiError =
    ApiError::Malformed("This path is not a package, file or endpoint of this registry. Check the package name.");

impl ApiError {
    /// A 400 for one field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError::Invalid(FieldError::new(field, message))
    }

    /// The HTTP status and the error code.
    pub fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            ApiError::Malformed(_)
            | ApiError::Invalid(_)
            | ApiError::InvalidFilter
            | ApiError::Immutable(_)
            | ApiError::UpstreamRejected(_) => (StatusCode::BAD_REQUEST, "BAD_REQUEST"),
            ApiError::InvalidResetCode => (StatusCode::BAD_REQUEST, "INVALID_RESET_CODE"),
            ApiError::RateLimited(_) | ApiError::UpstreamRateLimited(_) => {
                (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED")
            }
            ApiError::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            ApiError::Forbidden
            | ApiError::NotTrusted
            | ApiError::ForeignForm
            | ApiError::Exceeds(_)
            | ApiError::Refused(_)
            | ApiError::UpstreamRefused(_) => (StatusCode::FORBIDDEN, "FORBIDDEN"),
            ApiError::PlanLimitReached | ApiError::TooManyAccessTokens => (StatusCode::FORBIDDEN, "PLAN_LIMIT_REACHED"),
            ApiError::SubscriptionRequired | ApiError::Suspended => (StatusCode::FORBIDDEN, "SUBSCRIPTION_REQUIRED"),
            ApiError::TokenNotFound => (StatusCode::NOT_FOUND, "TOKEN_NOT_FOUND"),
            ApiError::NotFound
            | ApiError::BotNotFound
            | ApiError::UserNotFound
            | ApiError::PackageNotFound
            | ApiError::NotOffered(_) => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            ApiError::UpstreamGone(_) => (StatusCode::GONE, "GONE"),
            ApiError::TooLarge(_) => (StatusCode::UNPROCESSABLE_ENTITY, "METADATA_TOO_LARGE"),
            ApiError::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
            ApiError::Conflict(_) | ApiError::AlreadyMade(_) | ApiError::UserExists => {
                (StatusCode::CONFLICT, "CONFLICT")
            }
            ApiError::PayloadTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
            ApiError::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE"),
            ApiError::BadGateway(_) => (StatusCode::BAD_GATEWAY, "BAD_GATEWAY"),
            ApiError::GatewayTimeout => (StatusCode::GATEWAY_TIMEOUT, "GATEWAY_TIMEOUT"),
            ApiError::Unavailable | ApiError::IssuerUnavailable(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE")
            }
            ApiError::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR"),
        }
    }

    /// The whole response, in the format that the route's callers expect.
    pub fn render(&self, format: ErrorFormat, request_id: &str) -> Response {
        let (status, code) = self.status_and_code();
        let (content_type, body) = match format {
            ErrorFormat::Envelope | ErrorFormat::Page => {
                ("application/json", serde_json::to_vec(&ErrorEnvelope { error: self.detail(code, request_id) }))
            }
            ErrorFormat::Exchange => ("application/json", serde_json::to_vec(&self.exchange_error(code, request_id))),
            ErrorFormat::Npm | ErrorFormat::Pypi => ("application/problem+json", serde_json::to_vec(&self.problem())),
            ErrorFormat::Scim => (SCIM_JSON, serde_json::to_vec(&self.scim_error())),
        };
        let body = Body::from(body.unwrap_or_default());
        let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
        let headers = response.headers_mut();
        if format == ErrorFormat::Npm
            && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            && let Ok(notice) = HeaderValue::from_str(&self.registry_sentence())
        {
            // npm replaces the body of a 401 with advice to log in, but always prints this header.
            // Not for other statuses: there npm prints the body, and it probes for things that are
            // often not found.
            headers.insert("npm-notice", notice);
        }
        if let ApiError::Unauthorized(reason) = self {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge(format, *reason)));
        }
        self.add_headers(headers);
        response
    }

    fn detail(&self, code: &'static str, request_id: &str) -> ErrorDetail {
        let details = match self {
            ApiError::Invalid(field) => Some(vec![field.clone()]),
            _ => None,
        };
        ErrorDetail { code, message: self.to_string(), request_id: request_id.to_owned(), details }
    }

    /// The response body at the exchange.
    pub(crate) fn exchange_error(&self, code: &'static str, request_id: &str) -> ExchangeError {
        ExchangeError { message: self.to_string(), error: self.detail(code, request_id) }
    }

    /// The response body of SCIM.
    pub(crate) fn scim_error(&self) -> ScimError {
        let scim_type = match self {
            ApiError::Malformed(_) => Some("invalidSyntax"),
            ApiError::Invalid(_) => Some("invalidValue"),
            ApiError::InvalidFilter => Some("invalidFilter"),
            ApiError::Immutable(_) => Some("mutability"),
            ApiError::UserExists => Some("uniqueness"),
            _ => None,
        };
        let (status, _) = self.status_and_code();
        ScimError { schemas: [SCIM_ERROR], status: status.as_str().to_owned(), scim_type, detail: self.to_string() }
    }

    /// Adds the headers that belong to the error, whatever the format of its body.
    pub(crate) fn add_headers(&self, headers: &mut HeaderMap) {
        match self {
            ApiError::RateLimited(left) | ApiError::UpstreamRateLimited(left) | ApiError::IssuerUnavailable(left) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(left.as_secs().max(1)));
            }
            ApiError::MethodNotAllowed(allow) => {
                if let Ok(allow) = HeaderValue::from_str(allow) {
                    headers.insert(header::ALLOW, allow);
                }
            }
            _ => {}
        }
    }

    /// The response body at a registry.
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

    /// The sentence for people at a package manager. yarn 1 prints nothing else, so a 401 names its
    /// status.
    fn registry_sentence(&self) -> String {
        match self {
            ApiError::Unauthorized(Unauthorized::Missing) => {
                "401 Unauthorized: no guard-tokens token was sent. Set a tg_anon_ or tg_org_ token for this registry."
            }
            ApiError::Unauthorized(Unauthorized::Scheme) => {
                "401 Unauthorized: the scheme of the Authorization header is not supported. \
                 Send a tg_anon_ or tg_org_ token as Bearer, or as the password of Basic."
            }
            ApiError::Unauthorized(Unauthorized::Invalid) => {
                "401 Unauthorized: the guard-tokens token is invalid, expired or revoked. \
                 Set an active token for this registry."
            }
            ApiError::Forbidden => "This credential cannot be used at the registries. Use a tg_anon_ or tg_org_ token.",
            ApiError::MethodNotAllowed(_) => "This registry is read-only: it does not support publishing.",
            _ => return self.to_string(),
        }
        .to_owned()
    }
}

/// The error format of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorFormat {
    /// [`ErrorEnvelope`]: every route except the following.
    Envelope,
    /// [`ExchangeError`], for CI.
    Exchange,
    /// [`ScimError`], for identity providers.
    Scim,
    /// [`Problem`], for npm, pnpm, yarn and bun.
    Npm,
    /// [`Problem`], for pip, uv and poetry, with a `Basic` challenge.
    Pypi,
    /// A page, which `console::respond` renders before this module is asked.
    Page,
}

impl ErrorFormat {
    /// The error format at this path.
    pub fn at(path: &str) -> Self {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        match first {
            "bots" => ErrorFormat::Exchange,
            "scim" => ErrorFormat::Scim,
            "npm" => ErrorFormat::Npm,
            "pypi" => ErrorFormat::Pypi,
            "console" => ErrorFormat::Page,
            _ => ErrorFormat::Envelope,
        }
    }
}

/// The challenge of a 401. It names the error only if a credential was sent (RFC 6750, section
/// 3.1). Python clients support only Basic (RFC 7617).
fn challenge(format: ErrorFormat, reason: Unauthorized) -> &'static str {
    match (format, reason) {
        (ErrorFormat::Pypi, _) => r#"Basic realm="guard-tokens", charset="UTF-8""#,
        (_, Unauthorized::Missing | Unauthorized::Scheme | Unauthorized::Signature) => r#"Bearer realm="guard-tokens""#,
        (_, Unauthorized::Invalid | Unauthorized::IdToken) => r#"Bearer realm="guard-tokens", error="invalid_token""#,
    }
}

/// The body of a registry error: problem details (RFC 9457), with the message repeated in `error`
/// for npm clients.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// The message for people, where npm clients read it.
    #[schema(example = "The package or file was not found in the upstream registry. Check its name and version.")]
    pub error: String,
    /// Always `about:blank`: the status describes the problem.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    pub kind: &'static str,
    /// The reason phrase of the status.
    #[schema(example = "Not Found")]
    pub title: &'static str,
    /// The message for people, where uv and poetry read it.
    #[schema(example = "The package or file was not found in the upstream registry. Check its name and version.")]
    pub detail: String,
    /// The HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    /// The error code, for programs. Codes are stable.
    #[schema(example = "NOT_FOUND")]
    pub code: &'static str,
}

/// The body of an error of the exchange: [`ErrorEnvelope`], with the message repeated where CI's
/// clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExchangeError {
    /// The message for people, as in `error`.
    #[schema(example = "The ID token is not accepted.")]
    pub message: String,
    /// The error.
    pub error: ErrorDetail,
}

/// The media type of SCIM.
pub const SCIM_JSON: &str = "application/scim+json";

/// The schema of SCIM's errors.
const SCIM_ERROR: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

/// The body of an error of SCIM (RFC 7644, section 3.12).
#[derive(Debug, Serialize, ToSchema)]
pub struct ScimError {
    /// What this is.
    #[schema(value_type = Vec<String>, example = json!(["urn:ietf:params:scim:api:messages:2.0:Error"]))]
    pub schemas: [&'static str; 1],
    /// The HTTP status, as text.
    #[schema(example = "404")]
    pub status: String,
    /// SCIM's code of the error, if it has one.
    #[serde(rename = "scimType", skip_serializing_if = "Option::is_none")]
    #[schema(example = "uniqueness")]
    pub scim_type: Option<&'static str>,
    /// What is wrong and what to do, for people. The wording may change.
    #[schema(example = "This organization has no user with this id. Look the user up by `userName`.")]
    pub detail: String,
}

/// A response extension: the error that this response already shows in its own format.
#[derive(Debug, Clone)]
pub struct Rendered(pub ApiError);

impl IntoResponse for ApiError {
    /// Attaches the error for [`crate::observe::observe`], which renders it with the request id.
    fn into_response(self) -> Response {
        let mut response = self.status_and_code().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<RandomnessUnavailable> for ApiError {
    fn from(error: RandomnessUnavailable) -> Self {
        tracing::error!(%error, "the random number generator failed; no token was issued");
        ApiError::Unavailable
    }
}

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorEnvelope {
    /// The error.
    pub error: ErrorDetail,
}

/// The error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// The error code, for programs. Codes are stable.
    #[schema(example = "BAD_REQUEST")]
    pub code: &'static str,
    /// What is wrong and what to do, for people. The wording may change.
    #[schema(example = "`user_identifier` must have 4 to 255 characters.")]
    pub message: String,
    /// The request id, as in the `x-request-id` header. Include it when you ask for help.
    #[schema(example = "01KAJ8M4R2X7Z9V5T3Q1N6P8WC")]
    pub request_id: String,
    /// The invalid fields. Present only if a field, query parameter or header is invalid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Vec<FieldError>>,
}
