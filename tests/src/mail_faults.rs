//! An SES that fails on demand: the local outbox on a port of its own, told before each call what to do to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::config::timeout::TimeoutConfig;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use local::outbox::{Outbox, SES_PATH};
use serde_json::json;
use shared::Clock;
use shared::app::ses_at;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// How long the service waits for an answer: short, since tests wait it out, and long for a machine that is busy.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// What can happen to a mail on its way into SES.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailFault {
    /// SES refuses it: the address is on its suppression list, say.
    Rejected,
    /// The account may not send any more today.
    LimitExceeded,
    /// The account sends too fast.
    Throttled,
    /// SES has a problem of its own.
    ServerError,
    /// SES is down.
    Down,
    /// The connection breaks before SES has it.
    LostBefore,
    /// SES has it, and the connection breaks before the answer.
    LostAfter,
    /// There is never an answer, and SES does not have it.
    HangBefore,
    /// There is never an answer, and SES has it.
    HangAfter,
    /// SES refuses it, but only once it has taken another.
    RejectedLate,
}

impl MailFault {
    /// Every fault that can happen to a mail on its own.
    pub const ALL: [MailFault; 9] = [
        MailFault::Rejected,
        MailFault::LimitExceeded,
        MailFault::Throttled,
        MailFault::ServerError,
        MailFault::Down,
        MailFault::LostBefore,
        MailFault::LostAfter,
        MailFault::HangBefore,
        MailFault::HangAfter,
    ];

    /// Whether the mail goes out all the same.
    pub fn takes_the_mail(self) -> bool {
        matches!(self, MailFault::LostAfter | MailFault::HangAfter)
    }
}

#[derive(Debug, Default)]
struct Plan {
    /// What happens to the calls to come, one after the other; `None` lets one pass.
    faults: Vec<Option<MailFault>>,
    /// What happens to all further ones.
    then: Option<MailFault>,
    /// How many calls came since the plan was made.
    calls: usize,
}

/// The SES.
#[derive(Debug, Clone)]
pub struct Ses {
    /// The mails that it took.
    pub outbox: Outbox,
    endpoint: String,
    plan: Arc<Mutex<Plan>>,
    /// Told of a mail that waits for another, and of a mail that was taken.
    waiting: Arc<Notify>,
    taken: Arc<Notify>,
}

impl Ses {
    /// Starts it. Until told otherwise it takes every mail.
    pub async fn start(clock: &Clock) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = format!("http://{}{SES_PATH}", listener.local_addr().unwrap());
        let outbox = Outbox::new(clock.clone());
        let ses = Self { outbox, endpoint, plan: Arc::default(), waiting: Arc::default(), taken: Arc::default() };
        let router = ses.outbox.clone().router().layer(from_fn_with_state(ses.clone(), strike));
        tokio::spawn(async move { axum::serve(listener, router).await });
        ses
    }

    /// A client like that of a deployed function, with less patience.
    pub fn client(&self) -> Client {
        let patience = TimeoutConfig::builder().operation_timeout(PATIENCE).build();
        Client::from_conf(ses_at(&self.endpoint).config().to_builder().timeout_config(patience).build())
    }

    /// Does something to each of the calls to come, and something to all further ones.
    pub fn arm(&self, faults: &[Option<MailFault>], then: Option<MailFault>) {
        *self.lock() = Plan { faults: faults.to_vec(), then, calls: 0 };
    }

    /// Does the same to every call to come.
    pub fn fail(&self, fault: MailFault) {
        self.arm(&[], Some(fault));
    }

    /// Takes every mail again. The answer is how many calls came since [`Ses::arm`].
    pub fn recover(&self) -> usize {
        std::mem::take(&mut *self.lock()).calls
    }

    /// Resolves once a mail waits for another: [`MailFault::RejectedLate`].
    pub async fn holds_a_mail(&self) {
        self.waiting.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<MailFault> {
        let mut plan = self.lock();
        plan.calls += 1;
        plan.faults.get(plan.calls - 1).copied().unwrap_or(plan.then)
    }
}

async fn strike(State(ses): State<Ses>, request: Request, next: Next) -> Response {
    match ses.next() {
        None => {
            let response = next.run(request).await;
            ses.taken.notify_waiters();
            response
        }
        Some(MailFault::Rejected) => refused(400, "MessageRejected"),
        Some(MailFault::LimitExceeded) => refused(400, "LimitExceededException"),
        Some(MailFault::Throttled) => refused(429, "TooManyRequestsException"),
        Some(MailFault::ServerError) => refused(500, "InternalServiceErrorException"),
        Some(MailFault::Down) => refused(503, "ServiceUnavailable"),
        Some(MailFault::LostBefore) => break_connection(),
        Some(MailFault::LostAfter) => {
            next.run(request).await;
            break_connection()
        }
        Some(MailFault::RejectedLate) => {
            // Listens before it says so: what is taken from here on is heard.
            let taken = ses.taken.notified();
            ses.waiting.notify_one();
            taken.await;
            refused(400, "MessageRejected")
        }
        Some(MailFault::HangBefore) => std::future::pending().await,
        Some(MailFault::HangAfter) => {
            next.run(request).await;
            std::future::pending().await
        }
    }
}

fn refused(status: u16, code: &str) -> Response {
    // What SES says of a mail may quote its address: a log that repeats it is found out.
    let message = json!({"message": "Address is on the suppression list: person@example.com"});
    (StatusCode::from_u16(status).unwrap(), [("x-amzn-errortype", code)], axum::Json(message)).into_response()
}

/// Ends the task that serves the connection, and with it the connection, without a byte of an answer. Unlike a panic
/// this writes nothing to the test's output.
fn break_connection() -> ! {
    std::panic::resume_unwind(Box::new("the connection breaks"))
}
