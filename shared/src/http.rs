//! What all requests share: an id, one log line, the envelope of errors, the headers of every answer.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::{HeaderValue, StatusCode, header};

use crate::cost;
use crate::error::{ApiError, ErrorFormat};

/// The header that carries the id of the request.
pub const REQUEST_ID: &str = "x-request-id";

/// Where a request comes from: put into its extensions by whoever receives it, API Gateway's adapter or the local
/// listener, and never taken from a header.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The id of the request.
    pub request_id: String,
    /// The address of the caller.
    pub source_ip: Option<IpAddr>,
}

tokio::task_local! {
    static PRINCIPAL: std::cell::RefCell<Option<String>>;
}

/// Notes who turned out to be calling, for the log line of the request that this task serves: an id, no secret.
pub(crate) fn note_principal(id: String) {
    let _ = PRINCIPAL.try_with(|principal| *principal.borrow_mut() = Some(id));
}

/// When whoever runs us gives up on the request. Shortly before, we say so ourselves: put into the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Duration);

/// The trace that a request is part of, where one is recorded: put into the request's extensions.
#[derive(Debug, Clone)]
pub struct TraceId(pub String);

/// Puts [`observe`] around a router.
pub fn observed(router: Router) -> Router {
    router.layer(from_fn(observe))
}

/// Serves a request: renders its error, if it ends in one, sets the headers of every answer, and logs one line that
/// holds ids and figures but nothing that was sent.
pub async fn observe(request: Request, next: Next) -> Response {
    let origin = request.extensions().get::<Origin>().cloned();
    let request_id = origin.map(|origin| origin.request_id).unwrap_or_default();
    let trace_id = request.extensions().get::<TraceId>().map(|trace| trace.0.clone());
    let method = Some(request.method().to_string());
    let format = ErrorFormat::at(request.uri().path());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let time_left = request.extensions().get::<Deadline>().map_or(Duration::MAX, |deadline| deadline.0);
    let line = RequestLine::begin(request_id, trace_id, method, route);
    let (response, account) = line
        .account_for(async {
            // A panic is a defect of ours; the caller gets an answer all the same.
            let answered = tokio::time::timeout(time_left, AssertUnwindSafe(next.run(request)).catch_unwind()).await;
            answered.unwrap_or_else(|_| Ok(ApiError::Unavailable.into_response()))
        })
        .await;
    let response = response.unwrap_or_else(|_| {
        tracing::error!(request_id = line.request_id, "a handler panicked");
        ApiError::Internal.into_response()
    });
    let error = response.extensions().get::<ApiError>().cloned().or_else(|| routing_error(&response));
    let mut response = match &error {
        Some(error) => error.render(format, &line.request_id),
        None => response,
    };
    response.extensions_mut().insert(account.cost);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&line.request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    line.write(response.status(), error.as_ref(), account);
    response
}

/// Who turned out to be calling, and what serving them took.
pub(crate) struct Account {
    principal: Option<String>,
    cost: cost::Cost,
}

/// The one log line of a request.
pub(crate) struct RequestLine {
    started: Instant,
    request_id: String,
    trace_id: Option<String>,
    method: Option<String>,
    route: Option<String>,
}

impl RequestLine {
    /// Begins when the request does.
    pub fn begin(request_id: String, trace_id: Option<String>, method: Option<String>, route: Option<String>) -> Self {
        Self { started: Instant::now(), request_id, trace_id, method, route }
    }

    /// Serves the request, and keeps account of it.
    pub async fn account_for<T>(&self, serving: impl Future<Output = T>) -> (T, Account) {
        let serving = PRINCIPAL.scope(Default::default(), async {
            let served = serving.await;
            (served, PRINCIPAL.with(|principal| principal.borrow().clone()))
        });
        let ((served, principal), cost) = cost::metered(serving).await;
        (served, Account { principal, cost })
    }

    /// Writes the line.
    pub fn write(self, status: StatusCode, error: Option<&ApiError>, Account { principal, cost }: Account) {
        let Self { started, request_id, trace_id, method, route } = self;
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

/// What the router itself answered: it knows 404 and 405, without a body.
fn routing_error(response: &Response) -> Option<ApiError> {
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
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_request_whose_time_runs_out_is_answered_all_the_same() {
        let router = observed(Router::new().route("/", get(std::future::pending::<()>)));
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(Deadline(Duration::from_millis(1)));
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    }
}
