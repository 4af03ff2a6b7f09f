//! What all requests share: a request ID, one log line, the error format and the common response
//! headers.
//!
//! A log line holds IDs and figures, never a secret or anything else that the caller sent.

use std::cell::RefCell;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};

use crate::clock::Clock;
use crate::cost;
use crate::error::{ApiError, ErrorFormat, NOT_IN_REGISTRY, Rendered};

/// The response header with the request ID.
pub const REQUEST_ID: &str = "x-request-id";

/// The content security policy of everything but the console's pages: documents of upstreams share
/// the console's origin, and must neither run there nor load anything.
pub const SANDBOX: &str = "sandbox; default-src 'none'";

/// The root of the console, whose pages set a policy of their own.
const CONSOLE: &str = "/console/";

/// The origin of a request. The Lambda adapter or the local listener adds it to the request's
/// extensions; it is never taken from a header, which callers could forge.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The request ID.
    pub request_id: String,
    /// The caller's address.
    pub source_ip: Option<IpAddr>,
}

/// A request extension: when API Gateway took the request, in milliseconds since the Unix epoch. A function
/// that starts for the request sees it much later.
#[derive(Debug, Clone, Copy)]
pub struct ReceivedAt(pub u64);

impl ReceivedAt {
    /// When this request came in, in milliseconds since the Unix epoch: now, if it came from elsewhere.
    pub(crate) fn of(parts: &Parts, clock: &Clock) -> u64 {
        parts.extensions.get::<Self>().map_or_else(|| clock.now_milliseconds(), |received| received.0)
    }
}

tokio::task_local! {
    static NOTES: RefCell<Notes>;
}

/// What the handling of a request adds to its log line. IDs must not be secrets.
#[derive(Debug, Clone, Default)]
struct Notes {
    principal: Option<String>,
    refused: Option<Refused>,
}

/// A credential that is not active, as in the log line of the request that used it.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The ID of the token or bot. `None` if it is unknown.
    pub id: Option<String>,
    /// The organization it belongs to, if any: the IDs of access tokens are unique only there.
    pub org: Option<String>,
    /// Why it is not active.
    pub because: &'static str,
}

/// Sets the principal in the log line of the current request. The ID must not be a secret.
pub(crate) fn note_principal(id: String) {
    let _ = NOTES.try_with(|notes| notes.borrow_mut().principal = Some(id));
}

/// Sets the inactive credential in the log line of the current request.
pub(crate) fn note_refused(refused: Refused) {
    let _ = NOTES.try_with(|notes| notes.borrow_mut().refused = Some(refused));
}

/// A request extension: how long the request may take before it is answered with 503.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Duration);

/// A request extension: the X-Ray trace that the request belongs to, if it is sampled.
#[derive(Debug, Clone)]
pub struct TraceId(pub String);

/// Wraps a router in [`observe`].
pub fn observed(router: Router) -> Router {
    router.layer(from_fn(observe))
}

/// Serves a request: renders its error, if any, sets the common headers and writes one log line.
pub async fn observe(request: Request, next: Next) -> Response {
    let origin = request.extensions().get::<Origin>().cloned();
    let request_id = origin.map(|origin| origin.request_id).unwrap_or_default();
    let trace_id = request.extensions().get::<TraceId>().map(|trace| trace.0.clone());
    let method = Some(request.method().to_string());
    let format = ErrorFormat::at(request.uri().path());
    let is_console = request.uri().path().starts_with(CONSOLE);
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let time_left = request.extensions().get::<Deadline>().map_or(Duration::MAX, |deadline| deadline.0);
    let line = RequestLine::begin(request_id, trace_id, method, route);
    let (response, stats) = line
        .measure(async {
            // If the handler panics, the caller still gets a response.
            let response = tokio::time::timeout(time_left, AssertUnwindSafe(next.run(request)).catch_unwind()).await;
            response.unwrap_or_else(|_| Ok(ApiError::Unavailable.into_response()))
        })
        .await;
    let response = response.unwrap_or_else(|_| {
        tracing::error!(request_id = line.request_id, "a handler panicked");
        ApiError::Internal.into_response()
    });
    let rendered = response.extensions().get::<Rendered>().map(|Rendered(error)| error.clone());
    let (error, mut response) = match rendered {
        Some(error) => (Some(error), response),
        None => match response.extensions().get::<ApiError>().cloned().or_else(|| routing_error(&response)) {
            Some(ApiError::NotFound) if matches!(format, ErrorFormat::Npm | ErrorFormat::Pypi) => {
                (Some(NOT_IN_REGISTRY), NOT_IN_REGISTRY.render(format, &line.request_id))
            }
            Some(error) => (Some(error.clone()), error.render(format, &line.request_id)),
            None => (None, response),
        },
    };
    response.extensions_mut().insert(stats.cost);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&line.request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !is_console {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    }
    line.write(response.status(), error.as_ref(), stats);
    response
}

/// The caller of a request, and the DynamoDB capacity that it consumed.
pub(crate) struct RequestStats {
    notes: Notes,
    cost: cost::Cost,
}

/// The log line of a request.
pub(crate) struct RequestLine {
    started: Instant,
    request_id: String,
    trace_id: Option<String>,
    method: Option<String>,
    route: Option<String>,
}

impl RequestLine {
    /// Starts the clock. Call this first.
    pub fn begin(request_id: String, trace_id: Option<String>, method: Option<String>, route: Option<String>) -> Self {
        Self { started: Instant::now(), request_id, trace_id, method, route }
    }

    /// Runs a request's handler and collects its statistics.
    pub async fn measure<T>(&self, serving: impl Future<Output = T>) -> (T, RequestStats) {
        let serving = NOTES.scope(Default::default(), async {
            let served = serving.await;
            (served, NOTES.with(RefCell::take))
        });
        let ((served, notes), cost) = cost::metered(serving).await;
        (served, RequestStats { notes, cost })
    }

    /// Writes the line.
    pub fn write(self, status: StatusCode, error: Option<&ApiError>, RequestStats { notes, cost }: RequestStats) {
        let Self { started, request_id, trace_id, method, route } = self;
        let Notes { principal, refused } = notes;
        let (refused, refused_org, refused_because) = match refused {
            Some(Refused { id, org, because }) => (id, org, Some(because)),
            None => (None, None, None),
        };
        let code = error.map(|error| error.status_and_code().1);
        let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        macro_rules! log_line {
            ($level:ident) => {
                tracing::$level!(
                    request_id,
                    trace_id,
                    method,
                    route,
                    status = status.as_u16(),
                    code,
                    principal,
                    refused,
                    refused_org,
                    refused_because,
                    latency_ms,
                    read_units = cost.read,
                    write_units = cost.write,
                    "request"
                )
            };
        }
        if status.is_server_error() { log_line!(error) } else { log_line!(info) }
    }
}

/// The error for a response of the router itself, which is a 404 or 405 without a body.
pub(crate) fn routing_error(response: &Response) -> Option<ApiError> {
    let is_empty = !response.headers().contains_key(header::CONTENT_TYPE);
    match response.status() {
        StatusCode::NOT_FOUND if is_empty => Some(ApiError::NotFound),
        StatusCode::METHOD_NOT_ALLOWED if is_empty => {
            let allow = response.headers().get(header::ALLOW).and_then(|allow| allow.to_str().ok());
            Some(ApiError::MethodNotAllowed(allow.unwrap_or_default().to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::Html;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn everything_but_the_console_is_sandboxed() {
        let page = async || ([(header::CONTENT_SECURITY_POLICY, "default-src 'self'")], Html("<script>1</script>"));
        let router = observed(Router::new().route("/console/page", get(page)).route("/{*path}", get(page)));
        for (path, policy) in [
            ("/console/page", "default-src 'self'"),
            ("/pypi/simple/a/", SANDBOX),
            ("/console", SANDBOX),
            ("/", SANDBOX),
        ] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], policy, "{path}");
            assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        }
    }

    #[tokio::test]
    async fn request_past_its_deadline_gets_503() {
        let router = observed(Router::new().route("/", get(std::future::pending::<()>)));
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(Deadline(Duration::from_millis(1)));
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    }
}
