//! The Lambda runtime of every function: turns API Gateway's events into requests, and logs JSON.
//!
//! Request ID, source address and authorizer context come from the event alone, never from headers.

use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
#[cfg(feature = "console")]
use axum::middleware::from_fn_with_state;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::StatusCode;
use http::header::{HOST, HeaderName};
use lambda_http::request::{LambdaRequest, RequestContext};
use lambda_http::{Adapter, Context, LambdaEvent, Request, RequestExt, service_fn};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tower::ServiceBuilder;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;
use url::Url;
use utoipa_axum::router::OpenApiRouter;

use crate::app::{App, InstallationsApp};
use crate::clock::Clock;
use crate::config;
#[cfg(all(feature = "console", feature = "mail"))]
use crate::console::ConsoleMailApp;
#[cfg(feature = "provider")]
use crate::console::ConsoleProviderApp;
#[cfg(feature = "console")]
use crate::console::respond::respond;
#[cfg(feature = "console")]
use crate::console::{Console, ConsoleApp, ConsoleInstallationsApp};
use crate::error::ApiError;
use crate::hosts::RegistryHosts;
use crate::ids::RequestId;
#[cfg(feature = "mail")]
use crate::mail::MailApp;
use crate::observe::{Deadline, Origin, ReceivedAt, RequestLine, TraceId, observed};
#[cfg(feature = "oidc")]
use crate::oidc::CiApp;
#[cfg(feature = "registry")]
use crate::registry::RegistryApp;
#[cfg(feature = "scanning")]
use crate::secret_scanning::ScanningApp;
use crate::views::PrincipalView;

/// The return type of every function's `main`.
pub type RuntimeResult = Result<(), lambda_http::Error>;

/// Serves a function that uses the tokens table.
pub async fn serve(routes: OpenApiRouter<App>) -> RuntimeResult {
    start_logs();
    serve_with(routes, App::from_env().await?).await
}

/// Serves a function that also reads the installation log.
pub async fn serve_with_installation_log(routes: OpenApiRouter<InstallationsApp>) -> RuntimeResult {
    start_logs();
    serve_with(routes, InstallationsApp::from_env().await?).await
}

/// Serves a function that also sends mail.
#[cfg(feature = "mail")]
pub async fn serve_with_mail(routes: OpenApiRouter<MailApp>) -> RuntimeResult {
    start_logs();
    serve_with(routes, MailApp::from_env().await?).await
}

/// Serves the function that takes GitHub's reports of leaked tokens.
#[cfg(feature = "scanning")]
pub async fn serve_with_secret_scanning(routes: OpenApiRouter<ScanningApp>) -> RuntimeResult {
    start_logs();
    serve_with(routes, ScanningApp::from_env().await?).await
}

/// Serves a function that also verifies ID tokens of CI.
#[cfg(feature = "oidc")]
pub async fn serve_with_ci(routes: OpenApiRouter<CiApp>) -> RuntimeResult {
    start_logs();
    serve_with(routes, CiApp::from_env().await?).await
}

/// Serves a registry.
#[cfg(feature = "registry")]
pub async fn serve_registry(routes: OpenApiRouter<RegistryApp>) -> RuntimeResult {
    start_logs();
    let app = RegistryApp::from_env().await?;
    // A file needs no upstream, so nothing waits for it.
    let registries = app.registries.clone();
    tokio::spawn(async move { registries.connect().await });
    connect(&app.app).await;
    run(Router::from(routes).with_state(app)).await
}

/// Serves pages of the console.
#[cfg(feature = "console")]
pub async fn serve_console(routes: OpenApiRouter<ConsoleApp>) -> RuntimeResult {
    start_logs();
    serve_pages(routes, ConsoleApp::from_env().await?).await
}

/// Serves pages of the console that also read the installation log.
#[cfg(feature = "console")]
pub async fn serve_console_with_installation_log(routes: OpenApiRouter<ConsoleInstallationsApp>) -> RuntimeResult {
    start_logs();
    serve_pages(routes, ConsoleInstallationsApp::from_env().await?).await
}

/// Serves pages of the console that also send mail.
#[cfg(all(feature = "console", feature = "mail"))]
pub async fn serve_console_with_mail(routes: OpenApiRouter<ConsoleMailApp>) -> RuntimeResult {
    start_logs();
    serve_pages(routes, ConsoleMailApp::from_env().await?).await
}

/// Serves the way to an identity provider and back.
#[cfg(feature = "provider")]
pub async fn serve_console_with_provider(routes: OpenApiRouter<ConsoleProviderApp>) -> RuntimeResult {
    start_logs();
    serve_pages(routes, ConsoleProviderApp::from_env().await?).await
}

/// Serves a function of the console without state.
#[cfg(feature = "console")]
pub async fn serve_console_stateless(routes: OpenApiRouter) -> RuntimeResult {
    start_logs();
    run(Router::from(routes).layer(from_fn_with_state(Console::from_env()?, respond))).await
}

#[cfg(feature = "console")]
async fn serve_pages<S: Clone + Send + Sync + 'static>(routes: OpenApiRouter<S>, state: S) -> RuntimeResult
where
    App: FromRef<S>,
    Console: FromRef<S>,
{
    connect(&App::from_ref(&state)).await;
    let console = Console::from_ref(&state);
    run(Router::from(routes).with_state(state).layer(from_fn_with_state(console, respond))).await
}

/// Serves a function without state.
pub async fn serve_stateless(routes: OpenApiRouter) -> RuntimeResult {
    start_logs();
    run(routes.into()).await
}

async fn serve_with<S: Clone + Send + Sync + 'static>(routes: OpenApiRouter<S>, state: S) -> RuntimeResult
where
    App: FromRef<S>,
{
    connect(&App::from_ref(&state)).await;
    run(Router::from(routes).with_state(state)).await
}

/// Connects to DynamoDB before the function asks for its first event. Until then Lambda gives it a
/// whole processor, and after that the share of its memory, a seventh with 256 MB.
async fn connect(app: &App) {
    app.store().connect().await;
}

async fn run(router: Router) -> RuntimeResult {
    let hosts = RegistryHosts::from_env();
    let service = ServiceBuilder::new()
        .map_request(with_origin)
        .map_request(move |request| at_its_host(&hosts, request))
        .service(observed(router));
    lambda_http::lambda_runtime::run(ServiceBuilder::new().map_request(repair_event).service(Adapter::from(service)))
        .await
}

/// Characters to percent-encode in a query. API Gateway passes queries on unchanged.
const NOT_IN_QUERIES: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'`');

/// Repairs events that lambda_http would panic on: percent-encodes the query, and drops a body that
/// is not valid Base64, an unknown scheme and an invalid host.
fn repair_event(mut event: LambdaEvent<LambdaRequest>) -> LambdaEvent<LambdaRequest> {
    if let LambdaRequest::ApiGatewayV2(request) = &mut event.payload {
        request.raw_query_string =
            request.raw_query_string.take().map(|query| utf8_percent_encode(&query, NOT_IN_QUERIES).to_string());
        if request.is_base64_encoded {
            request.body = request.body.take().filter(|body| BASE64.decode(body).is_ok());
        }
        let scheme = HeaderName::from_static("x-forwarded-proto");
        if request.headers.get(&scheme).is_some_and(|scheme| scheme != "http" && scheme != "https") {
            request.headers.remove(&scheme);
        }
        let host = request.headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
        if host.is_some_and(|host| Url::parse(&format!("https://{host}/")).is_err()) {
            request.headers.remove(HOST);
        }
    }
    event
}

/// The authorizer's context, as API Gateway passes it on: the caller's principal.
#[derive(Debug, Clone)]
pub struct Authorized(pub serde_json::Value);

/// An authorizer's decision, in API Gateway's simple response format.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    is_authorized: bool,
    /// The principal, for the function behind the authorizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<PrincipalView>,
}

impl Decision {
    /// Allows a request of this principal.
    pub fn allow(principal: PrincipalView) -> Self {
        Self { is_authorized: true, context: Some(principal) }
    }

    /// Denies the request.
    pub fn deny() -> Self {
        Self { is_authorized: false, context: None }
    }
}

/// An authorizer's event: the part that decides, and the fields for the log line.
#[derive(Deserialize)]
struct AuthorizerEvent<E> {
    #[serde(flatten)]
    event: E,
    #[serde(default, rename = "routeKey")]
    route_key: Option<String>,
    #[serde(default, rename = "requestContext")]
    context: Option<AuthorizerEventContext>,
}

#[derive(Deserialize)]
struct AuthorizerEventContext {
    #[serde(default, rename = "requestId")]
    request_id: Option<String>,
}

/// Serves an authorizer. Logs one line a request; the status of a refusal is the one that API
/// Gateway returns for it.
pub async fn serve_authorizer<E, F, Fut>(decide: F) -> RuntimeResult
where
    E: serde::de::DeserializeOwned + Send + 'static,
    F: Fn(App, E) -> Fut,
    Fut: Future<Output = Result<Decision, ApiError>> + Send + 'static,
{
    start_logs();
    let app = App::from_env().await?;
    connect(&app).await;
    let decide = &decide;
    let service = service_fn(move |LambdaEvent { payload, context }: LambdaEvent<AuthorizerEvent<E>>| {
        let AuthorizerEvent { event, route_key, context: event_context } = payload;
        let time_left = time_left(&context);
        let request_id = event_context.and_then(|event| event.request_id).unwrap_or(context.request_id);
        let (method, route) = match route_key.as_deref().and_then(|key| key.split_once(' ')) {
            Some((method, route)) => (Some(method.to_owned()), Some(route.to_owned())),
            None => (None, route_key),
        };
        let trace_id = context.xray_trace_id.as_deref().and_then(sampled_trace_id);
        let line = RequestLine::begin(request_id, trace_id, method, route);
        // Boxed, because the compiler cannot handle the combined type of runtime, handler and SDK.
        let decision: Pin<Box<dyn Future<Output = Result<Decision, ApiError>> + Send>> =
            Box::pin(decide(app.clone(), event));
        async move {
            let deciding = async { timeout(time_left, decision).await.unwrap_or(Err(ApiError::Unavailable)) };
            let (decision, stats) = line.measure(deciding).await;
            let status = match &decision {
                Ok(decision) if decision.is_authorized => StatusCode::OK,
                Ok(_) => StatusCode::FORBIDDEN,
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            line.write(status, decision.as_ref().err(), stats);
            // Only the error's public message leaves the function.
            decision.map_err(lambda_http::Error::from)
        }
    });
    lambda_http::lambda_runtime::run(service).await
}

/// Serves a function that EventBridge invokes on a schedule, and logs one line a run. If a run fails
/// or does not end before Lambda's timeout, Lambda counts an error and invokes it again, twice.
pub async fn serve_schedule<F, Fut>(run: F) -> RuntimeResult
where
    F: Fn(App) -> Fut,
    Fut: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    start_logs();
    serve_runs(App::from_env().await?, run).await
}

/// As [`serve_schedule`], a function that also sends mail.
#[cfg(feature = "mail")]
pub async fn serve_schedule_with_mail<F, Fut>(run: F) -> RuntimeResult
where
    F: Fn(MailApp) -> Fut,
    Fut: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    start_logs();
    serve_runs(MailApp::from_env().await?, run).await
}

async fn serve_runs<S, F, Fut>(app: S, run: F) -> RuntimeResult
where
    S: Clone,
    F: Fn(S) -> Fut,
    Fut: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let run = &run;
    let service = service_fn(move |LambdaEvent { context, .. }: LambdaEvent<IgnoredAny>| {
        let time_left = time_left(&context);
        let trace_id = context.xray_trace_id.as_deref().and_then(sampled_trace_id);
        let line = RequestLine::begin(context.request_id, trace_id, None, Some("schedule".to_owned()));
        // Boxed for the same reason as an authorizer's decision.
        let running: Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send>> = Box::pin(run(app.clone()));
        async move {
            let running = async { timeout(time_left, running).await.unwrap_or(Err(ApiError::Unavailable)) };
            let (result, stats) = line.measure(running).await;
            let status = result.as_ref().map_or_else(|error| error.status_and_code().0, |()| StatusCode::OK);
            line.write(status, result.as_ref().err(), stats);
            result.map_err(lambda_http::Error::from)
        }
    });
    lambda_http::lambda_runtime::run(service).await
}

/// The trace ID in an X-Ray header (`Root=1-…;Parent=…;Sampled=1`), if the trace is sampled.
fn sampled_trace_id(trace: &str) -> Option<String> {
    let part = |name| trace.split(';').find_map(|part| part.trim().strip_prefix(name));
    // Callers can send this header, so anything but a well-formed ID is kept out of the log.
    let is_id = |root: &&str| {
        root.len() == 35 && root.starts_with("1-") && root.bytes().all(|c| c == b'-' || c.is_ascii_hexdigit())
    };
    part("Root=").filter(is_id).filter(|_| part("Sampled=") == Some("1")).map(str::to_owned)
}

/// The time until Lambda's timeout, less half a second for the response.
fn time_left(context: &Context) -> Duration {
    Duration::from_millis(context.deadline.saturating_sub(Clock::System.now_milliseconds()).saturating_sub(500))
}

/// How long API Gateway waits for a function at most, in milliseconds.
const LONGEST_WAIT: u64 = 30_000;

/// Adds origin, authorizer context, deadline and trace to the request's extensions. They come from
/// the event's request context, never from headers, which callers could forge.
fn with_origin(mut request: Request) -> Request {
    let (request_id, source_ip, received_at): (Option<String>, Option<IpAddr>, Option<u64>) =
        match request.request_context_ref() {
            Some(RequestContext::ApiGatewayV2(context)) => {
                let source_ip = context.http.source_ip.as_deref().and_then(|ip| ip.parse().ok());
                (context.request_id.clone(), source_ip, context.time_epoch.try_into().ok())
            }
            _ => (None, None, None),
        };
    if let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref()
        && let Some(authorizer) = &context.authorizer
    {
        let fields = authorizer.fields.clone().into_iter().collect();
        request.extensions_mut().insert(Authorized(serde_json::Value::Object(fields)));
    }
    if let Some(context) = request.lambda_context_ref() {
        let (deadline, trace_id) =
            (Deadline(time_left(context)), context.xray_trace_id.as_deref().and_then(sampled_trace_id));
        request.extensions_mut().insert(deadline);
        if let Some(trace_id) = trace_id {
            request.extensions_mut().insert(TraceId(trace_id));
        }
    }
    // Nothing older is about this request: the SAM CLI sends seconds.
    let is_recent = |at: &u64| Clock::System.now_milliseconds().checked_sub(*at).is_some_and(|ago| ago < LONGEST_WAIT);
    if let Some(received_at) = received_at.filter(is_recent) {
        request.extensions_mut().insert(ReceivedAt(received_at));
    }
    let request_id = request_id.or_else(|| Some(request.lambda_context_ref()?.request_id.clone()));
    let request_id = request_id.unwrap_or_else(new_request_id);
    request.extensions_mut().insert(Origin { request_id, source_ip });
    request
}

/// Leads a request that came to a registry's own host to the registry's path. The domain that
/// API Gateway names decides, never a header.
fn at_its_host(hosts: &RegistryHosts, request: Request) -> Request {
    let domain = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.domain_name.clone(),
        _ => None,
    };
    hosts.enter(&domain.unwrap_or_default(), request)
}

/// A new request ID, for requests that come without one.
pub fn new_request_id() -> String {
    RequestId::new(&crate::Clock::System).map(|id| id.to_string()).unwrap_or_default()
}

fn start_logs() {
    json_logs(log_filter(), std::io::stdout).init();
}

/// A log subscriber that writes JSON lines.
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

/// The log filter at the level in `RUST_LOG`, or `info`.
pub fn log_filter() -> EnvFilter {
    let level = config::optional("RUST_LOG").and_then(|level| level.parse().ok());
    log_filter_at(level.unwrap_or(LevelFilter::INFO))
}

/// The log filter: our own events at this level, and only warnings of libraries. At lower levels
/// libraries log requests, whose headers and bodies hold secrets.
pub fn log_filter_at(level: LevelFilter) -> EnvFilter {
    let ours = ["shared", "local", "guard_tokens"].map(|target| format!("{target}={level}"));
    EnvFilter::new(format!("warn,dynoxide=error,{}", ours.join(",")))
}

#[cfg(test)]
mod tests {
    use lambda_http::Body;
    use serde_json::{Value, json};

    use super::*;

    fn event() -> Value {
        json!({
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": "/v1/api-keys",
            "rawQueryString": "",
            "headers": {"host": "api.example.com", "x-forwarded-proto": "https"},
            "requestContext": {"http": {"method": "POST", "path": "/v1/api-keys"}, "stage": "$default"},
            "isBase64Encoded": false,
        })
    }

    /// The request that the runtime makes of the event.
    fn request(event: Value) -> Request {
        let payload: LambdaRequest = serde_json::from_value(event).unwrap();
        repair_event(LambdaEvent::new(payload, Context::default())).payload.into()
    }

    fn with(name: &str, value: Value) -> Request {
        let mut event = event();
        event[name] = value;
        request(event)
    }

    #[test]
    fn request_came_in_when_api_gateway_took_it() {
        let now = Clock::System.now_milliseconds();
        // What is older, later or in seconds, as the SAM CLI sends it, is not believed.
        for (sent, is_believed) in
            [(now - 200, true), (now - 60_000, false), (now + 60_000, false), (now / 1_000, false), (0, false)]
        {
            let mut event = event();
            event["requestContext"]["timeEpoch"] = json!(sent);
            let request = with_origin(request(event));
            let received = request.extensions().get::<ReceivedAt>().map(|received| received.0);
            assert_eq!(received, is_believed.then_some(sent), "{sent}");
        }
    }

    #[test]
    fn unencoded_queries_and_paths_are_accepted() {
        for (sent, read) in [
            ("status=all", "status=all"),
            ("cursor=a%20b+c&x=%e3%81%82", "cursor=a%20b+c&x=%e3%81%82"),
            ("a=<b>", "a=%3Cb%3E"),
            ("a=\"b\" c", "a=%22b%22%20c"),
            ("a=#b&c", "a=%23b&c"),
            ("a=\u{3042}\u{0}\u{7f}", "a=%E3%81%82%00%7F"),
            ("a=`|^{}[]\\'", "a=%60|^{}[]\\'"),
            ("%%%=%f", "%%%=%f"),
        ] {
            assert_eq!(with("rawQueryString", json!(sent)).uri().query(), Some(read), "{sent}");
        }
        for character in (0..=0xff).map(char::from) {
            assert!(with("rawQueryString", json!(format!("a={character}"))).uri().query().is_some(), "{character:?}");
            assert!(
                with("rawPath", json!(format!("/v1/{character}/x"))).uri().path().starts_with('/'),
                "{character:?}"
            );
        }
    }

    #[test]
    fn invalid_base64_body_is_treated_as_empty() {
        let mut encoded = event();
        encoded["isBase64Encoded"] = json!(true);
        for (body, read) in [
            (json!("eyJhIjoxfQ=="), Body::Binary(br#"{"a":1}"#.to_vec())),
            (json!("/w=="), Body::Binary(vec![0xff])),
            (json!(""), Body::Binary(Vec::new())),
            (json!("eyJhIjoxfQ"), Body::Empty),
            (json!("{\"a\":1}"), Body::Empty),
            (json!("\u{0}"), Body::Empty),
            (Value::Null, Body::Empty),
        ] {
            encoded["body"] = body.clone();
            assert_eq!(*request(encoded.clone()).body(), read, "{body}");
        }
        assert_eq!(*with("body", json!("eyJhIjoxfQ==")).body(), Body::Text("eyJhIjoxfQ==".to_owned()));
    }

    #[test]
    fn invalid_scheme_header_is_ignored() {
        for scheme in ["http", "https"] {
            let headers = json!({"host": "api.example.com", "x-forwarded-proto": scheme});
            assert_eq!(with("headers", headers).uri().scheme_str(), Some(scheme));
        }
        for scheme in ["", "x y", "javascript", "https, http", "//"] {
            let headers = json!({"host": "api.example.com", "x-forwarded-proto": scheme});
            let request = with("headers", headers);
            assert_eq!(request.uri().scheme_str(), Some("https"), "{scheme}");
            assert!(request.headers().get("x-forwarded-proto").is_none());
        }
    }

    #[test]
    fn invalid_host_header_is_ignored() {
        for host in ["api.example.com:99999", "a b", "[", "", "%"] {
            let request = with("headers", json!({"host": host, "x-forwarded-proto": "https"}));
            assert_eq!(request.uri().path(), "/v1/api-keys", "{host}");
            assert!(request.headers().get("host").is_none(), "{host}");
        }
    }

    #[test]
    fn only_the_domain_of_the_event_tells_a_registry_host() {
        let hosts = RegistryHosts::new(Some("npm.example.com"), Some("pypi.example.com"));
        let path_of = |domain: Value, header: &str| {
            let mut event = event();
            event["rawPath"] = json!("/widgets");
            event["requestContext"]["domainName"] = domain;
            for name in ["host", "x-forwarded-host", "forwarded"] {
                event["headers"][name] = json!(header);
            }
            at_its_host(&hosts, request(event)).uri().path().to_owned()
        };
        assert_eq!(path_of(json!("npm.example.com"), "npm.example.com"), "/npm/widgets");
        assert_eq!(path_of(json!("npm.example.com"), "guard.example.com"), "/npm/widgets");
        for domain in [json!("guard.example.com"), json!(""), Value::Null] {
            assert_eq!(path_of(domain.clone(), "npm.example.com"), "/widgets", "{domain}");
        }
    }

    #[test]
    fn events_of_other_kinds_are_refused() {
        // A REST API (payload version 1.0), a queue, and malformed events.
        for other in [
            json!({"resource": "/", "path": "/", "httpMethod": "POST", "headers": {}, "requestContext": {"httpMethod": "POST"}}),
            json!({"Records": [{"eventSource": "aws:sqs", "body": "{}"}]}),
            json!({}),
            json!([]),
            json!(null),
        ] {
            assert!(serde_json::from_value::<LambdaRequest>(other.clone()).is_err(), "{other}");
        }
    }

    #[test]
    fn only_sampled_traces_have_a_trace_id() {
        let root = "1-5759e988-bd862e3fe1be46a994272793";
        let sampled = |sampled: &str| format!("Root={root};Parent=53995c3f42cd8ad8;Sampled={sampled};Lineage=1:a:0");
        assert_eq!(sampled_trace_id(&sampled("1")).as_deref(), Some(root));
        for other in
            [&sampled("0"), &sampled("?"), &format!("Root={root}"), "Sampled=1", "Root=tg_org_x;Sampled=1", "", ";;="]
        {
            assert_eq!(sampled_trace_id(other), None, "{other}");
        }
    }
}
