//! DynamoDB as it is across a network: each call takes some milliseconds more, and some calls are
//! throttled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use reqwest::Client;
use tokio::net::TcpListener;

/// What DynamoDB answers when a table has no capacity left.
const THROTTLED: &str =
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"slow down"}"#;

#[derive(Clone)]
struct Proxy {
    target: String,
    latency: Duration,
    throttled: u64,
    http: Client,
    calls: Arc<AtomicU64>,
}

/// A running proxy in front of the embedded DynamoDB.
pub(crate) struct DynamoDb {
    /// Its endpoint.
    pub(crate) url: String,
    proxy: Proxy,
}

impl DynamoDb {
    /// Starts a proxy to this endpoint, which throttles one of so many calls.
    pub(crate) async fn start(target: String, latency: Duration, throttled: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let http = Client::builder().no_proxy().build().unwrap();
        let proxy = Proxy { target, latency, throttled, http, calls: Arc::default() };
        let router = Router::new().fallback(call).with_state(proxy.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, proxy }
    }

    /// How many calls there were, and how many of them were throttled.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let calls = self.proxy.calls.load(Ordering::Relaxed);
        (calls, calls / self.proxy.throttled)
    }
}

async fn call(State(proxy): State<Proxy>, headers: HeaderMap, body: Bytes) -> Response {
    let number = proxy.calls.fetch_add(1, Ordering::Relaxed) + 1;
    tokio::time::sleep(proxy.latency).await;
    let json = [(header::CONTENT_TYPE, "application/x-amz-json-1.0")];
    if number.is_multiple_of(proxy.throttled) {
        return (StatusCode::BAD_REQUEST, json, THROTTLED).into_response();
    }
    let mut request = proxy.http.post(&proxy.target).body(body);
    for (name, value) in &headers {
        if ![header::HOST, header::CONTENT_LENGTH].contains(name) {
            request = request.header(name, value);
        }
    }
    let Ok(answer) = request.send().await else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    (answer.status(), json, answer.bytes().await.unwrap_or_default()).into_response()
}
