//! The runtime of every function: API Gateway's events in, one structured log line out.

use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use lambda_http::request::RequestContext;
use lambda_http::{LambdaEvent, Request, RequestExt, service_fn};
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
use crate::http::{Deadline, Origin, observed};
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

/// Serves a function that is called with events of its own kind, and not over HTTP.
pub async fn serve_events<E, A, F, Fut>(handle: F) -> RuntimeResult
where
    E: serde::de::DeserializeOwned,
    A: serde::Serialize,
    F: Fn(App, E) -> Fut,
    Fut: Future<Output = Result<A, ApiError>> + Send + 'static,
{
    start_logs();
    let app = App::from_env().await?;
    let handle = &handle;
    let service = service_fn(move |event: LambdaEvent<E>| {
        // Behind a pointer, because the compiler gives up on the type of runtime, handler and SDK in one.
        let answer: Pin<Box<dyn Future<Output = Result<A, ApiError>> + Send>> =
            Box::pin(handle(app.clone(), event.payload));
        // The error's sentence is public, and all that the caller of the function learns.
        async move { answer.await.map_err(lambda_http::Error::from) }
    });
    lambda_http::lambda_runtime::run(service).await
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
        request.extensions_mut().insert(Deadline(Duration::from_millis(left)));
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
