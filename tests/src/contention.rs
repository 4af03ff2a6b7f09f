//! A proxy in front of DynamoDB in which transactions take time, as they do on AWS.
//!
//! The embedded DynamoDB runs one transaction after the other. The real one runs them in parallel
//! and cancels a transaction that touches an item of one that is still running. Here conflicts
//! likewise come from the overlap in time of transactions that touch the same item.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The proxy.
#[derive(Debug, Clone)]
pub struct Contention {
    /// Where to reach it.
    pub endpoint: String,
    upstream: String,
    http: reqwest::Client,
    /// How long a transaction takes.
    duration: Duration,
    /// Items of the transactions that are running.
    busy: Arc<Mutex<BTreeSet<String>>>,
    conflicts: Arc<AtomicUsize>,
}

impl Contention {
    /// Starts the proxy in front of a DynamoDB endpoint.
    pub async fn start(upstream: &str, duration: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let contention = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            upstream: upstream.to_owned(),
            http: reqwest::Client::new(),
            duration,
            busy: Arc::default(),
            conflicts: Arc::default(),
        };
        let router = Router::new().fallback(answer).with_state(contention.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        contention
    }

    /// The number of conflicts so far.
    pub fn conflicts(&self) -> usize {
        self.conflicts.load(Ordering::SeqCst)
    }

    fn busy(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a transaction on these items, unless another one is running on any of them.
    fn begin(&self, items: &[String]) -> Option<Running<'_>> {
        let mut busy = self.busy();
        if items.iter().any(|item| busy.contains(item)) {
            self.conflicts.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        busy.extend(items.iter().cloned());
        Some(Running { contention: self, items: items.to_vec() })
    }

    async fn forward(&self, mut headers: HeaderMap, body: Bytes) -> (StatusCode, Value) {
        // The embedded DynamoDB answers only to its own name.
        headers.remove("host");
        let response = self.http.post(&self.upstream).headers(headers).body(body).send().await.unwrap();
        (response.status(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }
}

/// A transaction that is running. Its items are free once it is dropped, even if its caller has
/// gone.
struct Running<'a> {
    contention: &'a Contention,
    items: Vec<String>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut busy = self.contention.busy();
        for item in &self.items {
            busy.remove(item);
        }
    }
}

async fn answer(State(contention): State<Contention>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let target = parts.headers["x-amz-target"].to_str().unwrap();
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let (status, answer) = match target.rsplit('.').next().unwrap() {
        "TransactWriteItems" => {
            let items: Vec<String> = asked["TransactItems"].as_array().unwrap().iter().map(written).collect();
            match contention.begin(&items) {
                None => cancelled(&items, &contention.busy()),
                Some(running) => {
                    // The lock lasts no longer than the simulated time, however slow the machine.
                    tokio::time::sleep(contention.duration).await;
                    drop(running);
                    contention.forward(parts.headers, body).await
                }
            }
        }
        "PutItem" | "UpdateItem" | "DeleteItem" if contention.busy().contains(&item(&asked)) => {
            contention.conflicts.fetch_add(1, Ordering::SeqCst);
            let body = json!({
                "__type": "com.amazonaws.dynamodb.v20120810#TransactionConflictException",
                "message": "Transaction is ongoing for the item",
            });
            (StatusCode::BAD_REQUEST, body)
        }
        _ => contention.forward(parts.headers, body).await,
    };
    (status, [("content-type", "application/x-amz-json-1.0")], Body::from(answer.to_string())).into_response()
}

/// The item that a part of a transaction writes or checks.
fn written(part: &Value) -> String {
    item(part.as_object().unwrap().values().next().unwrap())
}

/// The item that a write names.
fn item(write: &Value) -> String {
    let key = write.get("Key").unwrap_or(&write["Item"]);
    format!("{} {} {}", write["TableName"], key["pk"], key["sk"])
}

/// DynamoDB's response to a transaction on items of another one.
fn cancelled(items: &[String], busy: &BTreeSet<String>) -> (StatusCode, Value) {
    let reasons: Vec<Value> = items
        .iter()
        .map(|item| match busy.contains(item) {
            true => json!({"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}),
            false => json!({"Code": "None"}),
        })
        .collect();
    let body = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons",
        "CancellationReasons": reasons,
    });
    (StatusCode::BAD_REQUEST, body)
}
