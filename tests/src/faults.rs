//! A proxy in front of DynamoDB that injects faults on demand, records calls, and refuses requests
//! that DynamoDB would refuse (see [`crate::dynamodb_rules`]).
//!
//! The embedded DynamoDB never throttles, loses a response or reports a conflict. The real one
//! does, so tests inject these faults at any call of a request.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
use futures::future::ready;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Barrier, Semaphore};

use crate::dynamodb_rules::violations;

/// Timeout of one attempt. It is never reached: a busy machine must not repeat calls, which tests count.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a call hangs before its connection breaks. To callers both are the same.
const HANGS: Duration = Duration::from_millis(1_200);

/// Services that [`at_each_call`] runs at the same time.
const AT_ONCE: usize = 4;

/// How long a [`Fault::Slow`] transaction takes.
const TRANSACTION: Duration = Duration::from_millis(12);

/// A fault to inject into a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The transaction is cancelled: another one holds one of its items.
    Conflict,
    /// The same transaction is still in progress.
    InProgress,
    /// The transaction is cancelled because of throttling.
    ConflictByThrottling,
    /// The table's throughput is exceeded.
    NoCapacity,
    /// The account's request rate is exceeded.
    Throttled,
    /// DynamoDB returns an internal error.
    ServerError,
    /// The connection breaks before the call takes effect.
    LostBefore,
    /// The call takes effect, but the connection breaks before the response.
    LostAfter,
    /// No response ever arrives and the call has no effect.
    Hang,
    /// No response ever arrives, but the call takes effect.
    HangAfter,
    /// A batch read returns all keys as unprocessed.
    NothingRead,
    /// A batch read returns half of the keys as unprocessed.
    HalfRead,
    /// A transaction holds the item of this lone write.
    Busy,
    /// Not a fault: the call waits until a second call arrives. Proves that two calls are
    /// concurrent, since sequential calls would hang.
    WaitForAnother,
    /// Not a fault: the call waits until [`Faults::release`].
    Held,
    /// Not a fault: a transaction takes some milliseconds, as it does at AWS.
    Slow,
}

/// Classes of faults, as reported in docs/FAULTS.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultClass {
    /// The call fails without effect.
    Fails,
    /// The call takes effect and the response is lost.
    AnswerLost,
    /// The call is throttled.
    Throttled,
    /// The call conflicts with another one.
    Conflicts,
    /// The call times out.
    Late,
}

impl Fault {
    /// Every fault.
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

    /// The class of this fault.
    pub fn class(self) -> FaultClass {
        match self {
            Fault::ServerError | Fault::LostBefore => FaultClass::Fails,
            Fault::WaitForAnother | Fault::Held | Fault::Slow => FaultClass::Fails,
            Fault::LostAfter => FaultClass::AnswerLost,
            Fault::ConflictByThrottling | Fault::NoCapacity | Fault::Throttled => FaultClass::Throttled,
            Fault::NothingRead | Fault::HalfRead => FaultClass::Throttled,
            Fault::Conflict | Fault::InProgress | Fault::Busy => FaultClass::Conflicts,
            Fault::Hang | Fault::HangAfter => FaultClass::Late,
        }
    }

    /// Whether the call takes effect despite the fault.
    pub fn takes_effect(self) -> bool {
        matches!(self, Fault::LostAfter | Fault::HangAfter)
    }

    /// Whether the fault applies to this operation and differs from the other faults there. Outside
    /// transactions several faults are equivalent.
    pub fn applies_to(self, operation: &str) -> bool {
        let is_like_another = matches!(self, Fault::Throttled | Fault::LostBefore) && operation != "TransactWriteItems";
        self.can_affect(operation) && self != Fault::WaitForAnother && !is_like_another
    }

    fn can_affect(self, operation: &str) -> bool {
        match self {
            Fault::Conflict | Fault::InProgress | Fault::ConflictByThrottling | Fault::Slow => {
                operation == "TransactWriteItems"
            }
            Fault::NothingRead | Fault::HalfRead => operation == "BatchGetItem",
            Fault::Busy => operation == "UpdateItem",
            // Reads have no effect, so this equals `Hang`.
            Fault::HangAfter => !matches!(operation, "GetItem" | "BatchGetItem" | "Query"),
            _ => true,
        }
    }
}

/// The faults to inject into upcoming calls.
#[derive(Debug, Default)]
struct Plan {
    /// Number of calls that pass first.
    passing: usize,
    /// Faults for the calls after those, one per call.
    faults: Vec<Fault>,
    /// Fault for all further calls.
    then: Option<Fault>,
    /// Which calls to count and to fault, if not all.
    only: Option<fn(&Call) -> bool>,
    /// Those since the plan was set.
    concerned: usize,
    /// How long each call takes.
    latency: Duration,
    /// Calls since the plan was set.
    seen: Vec<Call>,
}

/// A call of DynamoDB.
#[derive(Debug, Clone)]
pub struct Call {
    /// The operation, such as `GetItem`.
    pub operation: String,
    /// The body of the request.
    pub request: Value,
    /// When it arrived.
    arrived: Instant,
    /// When it was answered.
    answered: Option<Instant>,
}

impl Call {
    /// Whether it concerns this table.
    pub fn is_of(&self, table: &str) -> bool {
        self.request["TableName"] == table
    }
}

/// How many of these calls came one after the other: the longest sequence in which each was sent
/// after the one before it was answered.
pub fn in_sequence(calls: &[Call]) -> usize {
    let mut ordered: Vec<_> = calls.iter().filter_map(|call| Some((call.answered?, call.arrived))).collect();
    ordered.sort();
    let mut last: Option<Instant> = None;
    let follows = |(answered, arrived)| {
        let follows = last.is_none_or(|last| arrived >= last);
        last = if follows { Some(answered) } else { last };
        follows
    };
    ordered.into_iter().map(follows).filter(|follows| *follows).count()
}

impl Plan {
    fn next(&mut self, operation: &str, request: Value) -> Option<Fault> {
        let call = Call { operation: operation.to_owned(), request, arrived: Instant::now(), answered: None };
        let concerns = self.only.is_none_or(|only| only(&call));
        self.seen.push(call);
        self.concerned += usize::from(concerns);
        let behind = self.concerned.checked_sub(self.passing + 1).filter(|_| concerns)?;
        self.faults.get(behind).copied().or(self.then).filter(|fault| fault.can_affect(operation))
    }
}

/// The proxy.
#[derive(Debug, Clone)]
pub struct Faults {
    endpoint: String,
    upstream: String,
    http: reqwest::Client,
    plan: Arc<Mutex<Plan>>,
    broken: Arc<Mutex<BTreeSet<String>>>,
    pair: Arc<Barrier>,
    gate: Arc<Semaphore>,
}

impl Faults {
    /// Starts the proxy in front of a DynamoDB endpoint. All calls pass until [`Faults::arm`].
    pub async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let faults = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            upstream: upstream.to_owned(),
            http: reqwest::Client::new(),
            plan: Arc::default(),
            broken: Arc::default(),
            pair: Arc::new(Barrier::new(2)),
            gate: Arc::new(Semaphore::new(0)),
        };
        let router = Router::new().fallback(answer).with_state(faults.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        faults
    }

    /// A client with the retries of a deployed function but shorter timeouts.
    pub fn client(&self) -> Client {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(CALL_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT * 5)
            .build();
        let retries = RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(1));
        let tries = RetryPartition::custom(self.endpoint.clone()).token_bucket(TokenBucket::unlimited());
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .timeout_config(timeouts)
            .retry_config(retries)
            // A deployed process shares one retry budget, so that retries do not worsen an outage.
            // Here it is unlimited, so that one injected fault does not affect the next.
            .retry_partition(tries.build());
        Client::from_conf(config.build())
    }

    /// Lets `passing` calls pass, then injects `faults` one per call, then `then` into all further
    /// ones.
    pub fn arm(&self, passing: usize, faults: &[Fault], then: Option<Fault>) {
        // A held call that was given up has left its permit.
        self.gate.forget_permits(usize::MAX);
        *self.lock() = Plan { passing, faults: faults.to_vec(), then, ..Plan::default() };
    }

    /// Like [`Faults::arm`], for these calls only: all others pass.
    pub fn arm_where(&self, only: fn(&Call) -> bool, faults: &[Fault], then: Option<Fault>) {
        self.arm(0, faults, then);
        self.lock().only = Some(only);
    }

    /// Lets all calls pass, each after this time.
    pub fn slow_down(&self, latency: Duration) {
        self.arm(0, &[], None);
        self.lock().latency = latency;
    }

    /// Lets all calls pass again. Returns the operations called since [`Faults::arm`].
    pub fn disarm(&self) -> Vec<String> {
        self.take_calls().into_iter().map(|call| call.operation).collect()
    }

    /// The calls since [`Faults::arm`].
    pub fn calls(&self) -> Vec<Call> {
        self.lock().seen.clone()
    }

    /// Like [`Faults::disarm`], with the requests.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.lock()).seen
    }

    /// Waits until this many of the calls that [`Faults::arm_where`] concerns have arrived.
    pub async fn reached_where(&self, calls: usize) {
        while self.lock().concerned < calls {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until this many calls have arrived since [`Faults::arm`].
    pub async fn reached(&self, calls: usize) {
        while self.lock().seen.len() < calls {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Kills a run before its call after `place` others takes effect, as the end of its process would.
    /// Returns that call; `None` if the run has ended before. All calls pass afterwards.
    pub async fn kill_at<E>(
        &self,
        place: usize,
        run: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> Option<Call>
    where
        E: std::fmt::Debug + Send + 'static,
    {
        // Nor does a repetition, should a busy machine be slower than a call hangs.
        self.arm(place, &[], Some(Fault::Hang));
        let mut run = tokio::spawn(run);
        tokio::select! {
            biased;
            () = self.reached(place + 1) => {
                run.abort();
                assert!(run.await.unwrap_err().is_cancelled(), "{place}: the run had ended");
            }
            done = &mut run => done.unwrap().unwrap(),
        }
        self.take_calls().into_iter().nth(place)
    }

    /// Lets one [`Fault::Held`] call pass.
    pub fn release(&self) {
        self.gate.add_permits(1);
    }

    /// The rules that requests broke, for which DynamoDB would have refused them.
    pub fn broken_rules(&self) -> BTreeSet<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn forward(&self, mut headers: HeaderMap, body: Bytes) -> (StatusCode, Value) {
        // The database answers to its own name only.
        headers.remove("host");
        let response = self.http.post(&self.upstream).headers(headers).body(body).send().await.unwrap();
        (response.status(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }
}

/// Tries something at each call of a run, several at once: at the call after none, after one, and so on
/// until there is no such call.
pub async fn at_each_call<T, Tried: Future<Output = Option<T>>>(tried: impl FnMut(usize) -> Tried) -> Vec<T> {
    let tries = stream::iter(0..).map(tried).buffered(AT_ONCE);
    tries.take_while(|tried| ready(tried.is_some())).filter_map(ready).collect().await
}

async fn answer(State(faults): State<Faults>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let target = parts.headers["x-amz-target"].to_str().unwrap();
    let operation = target.rsplit('.').next().unwrap().to_owned();
    let request: Value = serde_json::from_slice(&body).unwrap();
    let violations = violations(&operation, &request);
    if !violations.is_empty() {
        let body = json!({"__type": "com.amazon.coral.validate#ValidationException", "message": violations.join("; ")});
        faults.broken.lock().unwrap_or_else(PoisonError::into_inner).extend(violations);
        return (StatusCode::BAD_REQUEST, body.to_string()).into_response();
    }
    let (fault, place, latency) = {
        let mut plan = faults.lock();
        (plan.next(&operation, request), plan.seen.len() - 1, plan.latency)
    };
    tokio::time::sleep(latency).await;
    let (status, answer) = match fault {
        None => faults.forward(parts.headers, body).await,
        Some(Fault::WaitForAnother) => {
            faults.pair.wait().await;
            faults.forward(parts.headers, body).await
        }
        Some(Fault::Held) => {
            faults.gate.acquire().await.unwrap().forget();
            faults.forward(parts.headers, body).await
        }
        Some(Fault::Slow) => {
            tokio::time::sleep(TRANSACTION).await;
            faults.forward(parts.headers, body).await
        }
        Some(Fault::Conflict) => cancelled("TransactionConflict", "Transaction is ongoing for the item"),
        Some(Fault::ConflictByThrottling) => cancelled("ThrottlingError", "Throughput exceeds the current capacity"),
        Some(Fault::InProgress) => refused("TransactionInProgressException"),
        Some(Fault::NoCapacity) => refused("ProvisionedThroughputExceededException"),
        Some(Fault::Throttled) => refused("ThrottlingException"),
        Some(Fault::Busy) => refused("TransactionConflictException"),
        Some(Fault::ServerError) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            json!({"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError"}),
        ),
        Some(Fault::LostBefore) => break_connection(),
        Some(Fault::LostAfter) => {
            faults.forward(parts.headers, body).await;
            break_connection()
        }
        Some(Fault::Hang) => hang().await,
        Some(Fault::HangAfter) => {
            faults.forward(parts.headers, body).await;
            hang().await
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
    if let Some(call) = faults.lock().seen.get_mut(place) {
        call.answered = Some(Instant::now());
    }
    (status, [("content-type", "application/x-amz-json-1.0")], Body::from(answer.to_string())).into_response()
}

/// DynamoDB's response when the first write of a transaction is cancelled.
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

/// Lets the caller wait for a response that never arrives.
async fn hang() -> ! {
    tokio::time::sleep(HANGS).await;
    break_connection()
}

/// Ends the connection's task and so the connection, without sending a response. Unlike a panic it
/// prints nothing.
fn break_connection() -> ! {
    std::panic::resume_unwind(Box::new("the connection breaks"))
}
