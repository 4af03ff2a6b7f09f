//! An SES that injects faults on demand: the local outbox on its own port.

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
use shared::mail::ses_at;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// Timeout of one call. Short, since tests wait for it, but long enough for a busy machine.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A fault to inject when a mail is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailFault {
    /// SES rejects the mail, for example because the address is suppressed.
    Rejected,
    /// The account's sending quota is exceeded.
    LimitExceeded,
    /// The account's sending rate is exceeded.
    Throttled,
    /// SES returns an internal error.
    ServerError,
    /// SES is unavailable.
    Down,
    /// The connection breaks before SES accepts the mail.
    LostBefore,
    /// SES accepts the mail, but the connection breaks before the response.
    LostAfter,
    /// No response ever arrives and SES does not accept the mail.
    HangBefore,
    /// No response ever arrives, but SES accepts the mail.
    HangAfter,
    /// SES rejects the mail only after it has accepted a later one.
    RejectedLate,
}

impl MailFault {
    /// Every fault that does not depend on a second mail.
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

    /// Whether SES explicitly refuses the mail.
    pub fn is_refusal(self) -> bool {
        matches!(self, MailFault::Rejected | MailFault::LimitExceeded | MailFault::Throttled | MailFault::RejectedLate)
    }

    /// Whether the mail is sent despite the fault.
    pub fn delivers(self) -> bool {
        matches!(self, MailFault::LostAfter | MailFault::HangAfter)
    }
}

#[derive(Debug, Default)]
struct Plan {
    /// Faults for the next calls, one per call; `None` lets a call pass.
    faults: Vec<Option<MailFault>>,
    /// Fault for all further calls.
    then: Option<MailFault>,
    /// Number of calls since the plan was set.
    calls: usize,
}

/// The fake SES.
#[derive(Debug, Clone)]
pub struct Ses {
    /// The mails it accepted.
    pub outbox: Outbox,
    endpoint: String,
    plan: Arc<Mutex<Plan>>,
    /// Notified when a mail is held back, and when a mail is accepted.
    waiting: Arc<Notify>,
    taken: Arc<Notify>,
}

impl Ses {
    /// Starts it. All mails are accepted until [`Ses::arm`].
    pub async fn start(clock: &Clock) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = format!("http://{}{SES_PATH}", listener.local_addr().unwrap());
        let outbox = Outbox::new(clock.clone());
        let ses = Self { outbox, endpoint, plan: Arc::default(), waiting: Arc::default(), taken: Arc::default() };
        let router = ses.outbox.clone().router().layer(from_fn_with_state(ses.clone(), inject));
        tokio::spawn(async move { axum::serve(listener, router).await });
        ses
    }

    /// A client like that of a deployed function, with shorter timeouts.
    pub fn client(&self) -> Client {
        let timeouts = TimeoutConfig::builder().operation_timeout(CALL_TIMEOUT).build();
        Client::from_conf(ses_at(&self.endpoint).config().to_builder().timeout_config(timeouts).build())
    }

    /// Injects `faults` into the next calls, one per call, then `then` into all further ones.
    pub fn arm(&self, faults: &[Option<MailFault>], then: Option<MailFault>) {
        *self.lock() = Plan { faults: faults.to_vec(), then, calls: 0 };
    }

    /// Injects one fault into every call.
    pub fn fail(&self, fault: MailFault) {
        self.arm(&[], Some(fault));
    }

    /// Accepts all mails again. Returns the number of calls since [`Ses::arm`].
    pub fn recover(&self) -> usize {
        std::mem::take(&mut *self.lock()).calls
    }

    /// Resolves once a mail is held back by [`MailFault::RejectedLate`].
    pub async fn wait_for_held_mail(&self) {
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

async fn inject(State(ses): State<Ses>, request: Request, next: Next) -> Response {
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
            // Subscribes before announcing the wait, so that no accepted mail is missed.
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
    // SES may quote the address in its error. Tests detect a log that repeats it.
    let message = json!({"message": "Address is on the suppression list: person@example.com"});
    (StatusCode::from_u16(status).unwrap(), [("x-amzn-errortype", code)], axum::Json(message)).into_response()
}

/// Ends the connection's task and so the connection, without sending a response. Unlike a panic it
/// prints nothing.
fn break_connection() -> ! {
    std::panic::resume_unwind(Box::new("the connection breaks"))
}
