//! The runtime of every function: API Gateway's events in, one structured log line out.

use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use http::StatusCode;
use lambda_http::request::RequestContext;
use lambda_http::{LambdaEvent, Request, RequestExt, service_fn};
use serde::Deserialize;
use tower::ServiceBuilder;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::http::{Deadline, Origin, RequestLine, TraceId, observed};
use crate::ids::RequestId;

/// What `main` of every function returns.
pub type RuntimeResult = Result<(), lambda_http::Error>;

/// Serves the routes of a function that needs the table.
pub async fn serve(routes: OpenApiRouter<App>) -> RuntimeResult {
    start_logs();
    let app = App::from_env().await?;
    run(Router::from(routes).with_state(app)).await
}

/// Serves the routes of a function that also needs the installation log.
pub async fn serve_with_installation_log(routes: OpenApiRouter<App>) -> RuntimeResult {
    start_logs();
    let app = App::with_installation_log_from_env().await?;
    run(Router::from(routes).with_state(app)).await
}

/// Serves the routes of a function that also sends mail.
#[cfg(feature = "mail")]
pub async fn serve_with_mail(routes: OpenApiRouter<App>) -> RuntimeResult {
    start_logs();
    let app = App::with_mail_from_env().await?;
    run(Router::from(routes).with_state(app)).await
}

/// Serves the routes of a registry.
#[cfg(feature = "registry")]
pub async fn serve_registry(routes: OpenApiRouter<App>) -> RuntimeResult {
    start_logs();
    let app = App::with_registries_from_env().await?;
    run(Router::from(routes).with_state(app)).await
}

/// Serves the routes of a function that needs nothing.
pub async fn serve_stateless(routes: OpenApiRouter) -> RuntimeResult {
    start_logs();
    run(routes.into()).await
}

async fn run(router: Router) -> RuntimeResult {
    let service = ServiceBuilder::new().map_request(with_origin).service(observed(router));
    lambda_http::run(service).await
}

/// What the authorizer handed on, as API Gateway passes it: who calls.
#[derive(Debug, Clone)]
pub struct Authorized(pub serde_json::Value);

/// What an authorizer answers.
pub trait Decision: serde::Serialize {
    /// Whether the request comes in.
    fn lets_in(&self) -> bool;
}

/// A request that an authorizer is asked about: what of API Gateway's event decides, and what its log line says.
#[derive(Deserialize)]
struct Asked<E> {
    #[serde(flatten)]
    event: E,
    #[serde(default, rename = "routeKey")]
    route_key: Option<String>,
    #[serde(default, rename = "requestContext")]
    context: Option<AskedContext>,
}

#[derive(Deserialize)]
struct AskedContext {
    #[serde(default, rename = "requestId")]
    request_id: Option<String>,
}

/// Serves an authorizer. Its requests have a log line too, with the status that API Gateway makes of the decision where it
/// does not let the request in.
pub async fn serve_authorizer<E, D, F, Fut>(decide: F) -> RuntimeResult
where
    E: serde::de::DeserializeOwned + Send + 'static,
    D: Decision + Send + 'static,
    F: Fn(App, E) -> Fut,
    Fut: Future<Output = Result<D, ApiError>> + Send + 'static,
{
    start_logs();
    let app = App::from_env().await?;
    let decide = &decide;
    let service = service_fn(move |LambdaEvent { payload, context }: LambdaEvent<Asked<E>>| {
        let Asked { event, route_key, context: asked } = payload;
        let request_id = asked.and_then(|asked| asked.request_id).unwrap_or(context.request_id);
        let (method, route) = match route_key.as_deref().and_then(|key| key.split_once(' ')) {
            Some((method, route)) => (Some(method.to_owned()), Some(route.to_owned())),
            None => (None, route_key),
        };
        let line = RequestLine::begin(request_id, context.xray_trace_id.as_deref().and_then(recorded), method, route);
        // Behind a pointer, because the compiler gives up on the type of runtime, handler and SDK in one.
        let decision: Pin<Box<dyn Future<Output = Result<D, ApiError>> + Send>> = Box::pin(decide(app.clone(), event));
        async move {
            let (decision, account) = line.account_for(decision).await;
            let status = match &decision {
                Ok(decision) if decision.lets_in() => StatusCode::OK,
                Ok(_) => StatusCode::FORBIDDEN,
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            line.write(status, decision.as_ref().err(), account);
            // The error's sentence is public, and all that the caller of the function learns.
            decision.map_err(lambda_http::Error::from)
        }
    });
    lambda_http::lambda_runtime::run(service).await
}

/// The id of a trace, as the runtime is told of it (`Root=1-…;Parent=…;Sampled=1`), if it is being recorded.
fn recorded(trace: &str) -> Option<String> {
    let part = |name| trace.split(';').find_map(|part| part.trim().strip_prefix(name));
    if part("Sampled=") == Some("1") { part("Root=").map(str::to_owned) } else { None }
}

/// Notes where an event comes from, as API Gateway says it in the request context. A header of the same meaning is
/// the caller's to write, and is not looked at.
fn with_origin(mut request: Request) -> Request {
    let (request_id, source_ip): (Option<String>, Option<IpAddr>) = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => {
            let source_ip = context.http.source_ip.as_deref().and_then(|ip| ip.parse().ok());
            (context.request_id.clone(), source_ip)
        }
        _ => (None, None),
    };
    if let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref()
        && let Some(authorizer) = &context.authorizer
    {
        let fields = authorizer.fields.clone().into_iter().collect();
        request.extensions_mut().insert(Authorized(serde_json::Value::Object(fields)));
    }
    if let Some(context) = request.lambda_context_ref() {
        // Half a second is enough to answer in.
        let left = context.deadline.saturating_sub(Clock::System.now_milliseconds()).saturating_sub(500);
        let trace_id = context.xray_trace_id.as_deref().and_then(recorded);
        request.extensions_mut().insert(Deadline(Duration::from_millis(left)));
        if let Some(trace_id) = trace_id {
            request.extensions_mut().insert(TraceId(trace_id));
        }
    }
    let request_id = request_id.or_else(|| Some(request.lambda_context_ref()?.request_id.clone()));
    let request_id = request_id.unwrap_or_else(new_request_id);
    request.extensions_mut().insert(Origin { request_id, source_ip });
    request
}

/// An id for a request that nobody has given one.
pub fn new_request_id() -> String {
    RequestId::new(&crate::Clock::System).map(|id| id.to_string()).unwrap_or_default()
}

fn start_logs() {
    json_logs(log_filter(), std::io::stdout).init();
}

/// Logs as JSON lines, for machines.
pub fn json_logs<W>(filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(writer)
        .finish()
}

/// What is logged, at the level that `RUST_LOG` names, `info` unless it names one.
pub fn log_filter() -> EnvFilter {
    log_filter_at(crate::config::log_level())
}

/// What is logged: our own lines at this level. Of the libraries below us only warnings, whatever it is: at lower levels
/// they write down requests, and headers and bodies hold secrets.
pub fn log_filter_at(level: LevelFilter) -> EnvFilter {
    let ours = ["shared", "local", "guard_tokens"].map(|target| format!("{target}={level}"));
    EnvFilter::new(format!("warn,dynoxide=error,{}", ours.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trace_that_is_recorded_is_named() {
        let root = "1-5759e988-bd862e3fe1be46a994272793";
        let sampled = |sampled: &str| format!("Root={root};Parent=53995c3f42cd8ad8;Sampled={sampled};Lineage=1:a:0");
        assert_eq!(recorded(&sampled("1")).as_deref(), Some(root));
        for other in [&sampled("0"), &sampled("?"), &format!("Root={root}"), "Sampled=1", "", ";;="] {
            assert_eq!(recorded(other), None, "{other}");
        }
    }
}
