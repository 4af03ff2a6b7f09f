//! A DynamoDB that fails on demand: a proxy in front of the real one, told before each call what to do to it.
//!
//! The embedded DynamoDB never throttles, never loses an answer and has no conflicts. DynamoDB does all of that, so here
//! it is made to happen, at any call of a request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_runtime::client::retries::TokenBucket;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Barrier;

/// How long the service waits for an answer before it tries again: short, since tests wait it out.
const PATIENCE: Duration = Duration::from_millis(1_200);

/// What can happen to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Another transaction is under way on one of its items: it is cancelled.
    Conflict,
    /// The same transaction is still under way.
    InProgress,
    /// A transaction is cancelled since one of its items has no capacity left.
    ConflictByThrottling,
    /// The table's capacity is used up.
    NoCapacity,
    /// The account calls too often.
    Throttled,
    /// DynamoDB has a problem of its own.
    ServerError,
    /// The connection breaks before anything is done.
    LostBefore,
    /// It is done, and the connection breaks before the answer.
    LostAfter,
    /// There is never an answer, and nothing is done.
    Hang,
    /// It is done, and there is never an answer.
    HangAfter,
    /// Of a batch nothing is read: the caller is to ask again.
    NothingRead,
    /// Of a batch one half is read.
    HalfRead,
    /// No fault: it waits until another call waits too. Of calls one after the other the first waits in vain.
    Together,
}

/// The ways in which faults are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// It fails before it takes effect.
    Fails,
    /// It takes effect, and the answer is lost.
    Unheard,
    /// There is no capacity for it.
    Throttled,
    /// It is in the way of something else.
    Conflicts,
    /// Its answer does not come in time.
    Late,
}

impl Fault {
    /// Every fault there is.
    pub const ALL: [Fault; 12] = [
        Fault::Conflict,
        Fault::InProgress,
        Fault::ConflictByThrottling,
        Fault::NoCapacity,
        Fault::Throttled,
        Fault::ServerError,
        Fault::LostBefore,
        Fault::LostAfter,
        Fault::Hang,
        Fault::HangAfter,
        Fault::NothingRead,
        Fault::HalfRead,
    ];

    /// The way in which it strikes.
    pub fn way(self) -> Way {
        match self {
            Fault::ServerError | Fault::LostBefore | Fault::Together => Way::Fails,
            Fault::LostAfter => Way::Unheard,
            Fault::ConflictByThrottling | Fault::NoCapacity | Fault::Throttled => Way::Throttled,
            Fault::NothingRead | Fault::HalfRead => Way::Throttled,
            Fault::Conflict | Fault::InProgress => Way::Conflicts,
            Fault::Hang | Fault::HangAfter => Way::Late,
        }
    }

    /// Whether a call that it strikes takes effect all the same.
    pub fn takes_effect(self) -> bool {
        matches!(self, Fault::LostAfter | Fault::HangAfter)
    }

    /// Whether it can happen to a call of this operation, and is another matter there than its likes: outside of
    /// transactions a call is refused in one way as in the other.
    pub fn matters_to(self, operation: &str) -> bool {
        let is_like_another = matches!(self, Fault::Throttled | Fault::LostBefore) && operation != "TransactWriteItems";
        self.can_strike(operation) && self != Fault::Together && !is_like_another
    }

    fn can_strike(self, operation: &str) -> bool {
        match self {
            Fault::Conflict | Fault::InProgress | Fault::ConflictByThrottling => operation == "TransactWriteItems",
            Fault::NothingRead | Fault::HalfRead => operation == "BatchGetItem",
            // A read has no effect that could come late.
            Fault::HangAfter => !matches!(operation, "GetItem" | "BatchGetItem" | "Query"),
            _ => true,
        }
    }
}

/// What to do to the calls to come.
#[derive(Debug, Default)]
struct Plan {
    /// How many calls pass first.
    passing: usize,
    /// What happens to the calls after those, one after the other.
    faults: Vec<Fault>,
    /// What happens to all further ones.
    then: Option<Fault>,
    /// The operations of the calls since the plan was made.
    seen: Vec<String>,
}

impl Plan {
    fn next(&mut self, operation: &str) -> Option<Fault> {
        self.seen.push(operation.to_owned());
        let behind = self.seen.len().checked_sub(self.passing + 1)?;
        self.faults.get(behind).copied().or(self.then).filter(|fault| fault.can_strike(operation))
    }
}

/// The proxy.
#[derive(Debug, Clone)]
pub struct Faults {
    endpoint: String,
    upstream: String,
    http: reqwest::Client,
    plan: Arc<Mutex<Plan>>,
    pair: Arc<Barrier>,
}

impl Faults {
    /// Starts the proxy in front of a DynamoDB. Until told otherwise every call passes.
    pub async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let faults = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            upstream: upstream.to_owned(),
            http: reqwest::Client::new(),
            plan: Arc::default(),
            pair: Arc::new(Barrier::new(2)),
        };
        let router = Router::new().fallback(answer).with_state(faults.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        faults
    }

    /// A client like that of a deployed function, with as many tries, in less time.
    pub fn client(&self) -> Client {
        let timeouts =
            TimeoutConfig::builder().operation_attempt_timeout(PATIENCE).operation_timeout(PATIENCE * 5).build();
        let retries = RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(1));
        let tries = RetryPartition::custom(self.endpoint.clone()).token_bucket(TokenBucket::unlimited());
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .timeout_config(timeouts)
            .retry_config(retries)
            // Deployed, the tries of a process come out of one budget, so that an outage is not made worse. Here one
            // failure must not use up the next one's.
            .retry_partition(tries.build());
        Client::from_conf(config.build())
    }

    /// Lets some calls pass, does something to the ones after them, and something else to all further ones.
    pub fn arm(&self, passing: usize, faults: &[Fault], then: Option<Fault>) {
        *self.lock() = Plan { passing, faults: faults.to_vec(), then, seen: Vec::new() };
    }

    /// Lets every call pass again. The answer is the operations of the calls since [`Faults::arm`].
    pub fn disarm(&self) -> Vec<String> {
        std::mem::take(&mut *self.lock()).seen
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn forward(&self, headers: HeaderMap, body: Bytes) -> (StatusCode, Value) {
        let response = self.http.post(&self.upstream).headers(headers).body(body).send().await.unwrap();
        (response.status(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }
}

async fn answer(State(faults): State<Faults>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let target = parts.headers["x-amz-target"].to_str().unwrap();
    let operation = target.rsplit('.').next().unwrap().to_owned();
    let fault = faults.lock().next(&operation);
    let (status, answer) = match fault {
        None => faults.forward(parts.headers, body).await,
        Some(Fault::Together) => {
            faults.pair.wait().await;
            faults.forward(parts.headers, body).await
        }
        Some(Fault::Conflict) => cancelled("TransactionConflict", "Transaction is ongoing for the item"),
        Some(Fault::ConflictByThrottling) => cancelled("ThrottlingError", "Throughput exceeds the current capacity"),
        Some(Fault::InProgress) => refused("TransactionInProgressException"),
        Some(Fault::NoCapacity) => refused("ProvisionedThroughputExceededException"),
        Some(Fault::Throttled) => refused("ThrottlingException"),
        Some(Fault::ServerError) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            json!({"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError"}),
        ),
        Some(Fault::LostBefore) => break_connection(),
        Some(Fault::LostAfter) => {
            faults.forward(parts.headers, body).await;
            break_connection()
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::HangAfter) => {
            faults.forward(parts.headers, body).await;
            std::future::pending().await
        }
        Some(fault @ (Fault::NothingRead | Fault::HalfRead)) => {
            let mut request: Value = serde_json::from_slice(&body).unwrap();
            let (table, wanted) = request["RequestItems"].as_object_mut().unwrap().iter_mut().next().unwrap();
            let (table, keys) = (table.clone(), wanted["Keys"].as_array_mut().unwrap());
            let read = if fault == Fault::HalfRead { keys.split_off(keys.len() / 2) } else { Vec::new() };
            let unread = wanted.clone();
            if read.is_empty() {
                (StatusCode::OK, json!({"Responses": {}, "UnprocessedKeys": {table: unread}}))
            } else {
                wanted["Keys"] = read.into();
                let mut headers = parts.headers;
                headers.remove("content-length");
                let (status, mut answer) = faults.forward(headers, request.to_string().into()).await;
                if !unread["Keys"].as_array().unwrap().is_empty() {
                    answer["UnprocessedKeys"] = json!({table: unread});
                }
                (status, answer)
            }
        }
    };
    (status, [("content-type", "application/x-amz-json-1.0")], Body::from(answer.to_string())).into_response()
}

/// What DynamoDB answers when a transaction's first write is in the way of something.
fn cancelled(code: &str, message: &str) -> (StatusCode, Value) {
    let body = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": format!("Transaction cancelled, please refer cancellation reasons for specific reasons [{code}]"),
        "CancellationReasons": [{"Code": code, "Message": message}, {"Code": "None"}],
    });
    (StatusCode::BAD_REQUEST, body)
}

fn refused(code: &str) -> (StatusCode, Value) {
    (StatusCode::BAD_REQUEST, json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": ""}))
}

/// Ends the task that serves the connection, and with it the connection, without a byte of an answer. Unlike a panic
/// this writes nothing to the test's output.
fn break_connection() -> ! {
    std::panic::resume_unwind(Box::new("the connection breaks"))
}
