//! The local outbox. It emulates the SES API, stores mails in memory and shows them at
//! `/_local/mail`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};
use shared::email::EmailAddress;
use shared::observe::SANDBOX;
use shared::{Clock, Moment};

/// The base path of the emulated SES API.
pub const SES_PATH: &str = "/_local/ses";

/// Maximum number of mails kept. Older ones are dropped.
const KEPT: usize = 1_000;

/// The sent mails, in memory, newest first.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    mails: Arc<Mutex<VecDeque<Mail>>>,
    clock: Clock,
}

/// A sent mail.
#[derive(Debug, Clone, Serialize)]
pub struct Mail {
    /// Its number, starting at 1.
    pub id: u64,
    /// When it was sent.
    pub at: Moment,
    /// The recipient.
    pub to: String,
    /// Its subject.
    pub subject: String,
    /// Its plain text.
    pub text: String,
    /// Its HTML.
    pub html: String,
    /// The full request to SES.
    pub source: Value,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(clock: Clock) -> Self {
        Self { mails: Arc::default(), clock }
    }

    /// The sent mails, newest first.
    pub fn mails(&self) -> Vec<Mail> {
        self.lock().iter().cloned().collect()
    }

    /// Routes of the pages and of the emulated SES API.
    pub fn router(self) -> Router {
        Router::new()
            .route(&format!("{SES_PATH}/v2/email/outbound-emails"), post(take))
            .route("/_local/mail", get(list))
            .route("/_local/mail.json", get(list_as_json))
            .route("/_local/mail/{id}", get(html))
            .route("/_local/mail/{id}/text", get(text))
            .route("/_local/mail/{id}/source", get(source))
            .layer(map_response(secured))
            .with_state(self)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Mail>> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: u64) -> Option<Mail> {
        self.lock().iter().find(|mail| mail.id == id).cloned()
    }
}

/// The `SendEmail` operation of SES, for simple content.
async fn take(State(outbox): State<Outbox>, Json(source): Json<Value>) -> Json<Value> {
    let text = |pointer: &str| source.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut mails = outbox.lock();
    let mail = Mail {
        id: mails.front().map_or(1, |newest| newest.id + 1),
        at: outbox.clock.now(),
        to: text("/Destination/ToAddresses/0"),
        subject: text("/Content/Simple/Subject/Data"),
        text: text("/Content/Simple/Body/Text/Data"),
        html: text("/Content/Simple/Body/Html/Data"),
        source,
    };
    let id = mail.id;
    // The subject contains no secret. Addresses are always masked in logs.
    let to = EmailAddress::try_from(mail.to.clone()).map(|to| to.masked()).unwrap_or_default();
    tracing::info!(to, subject = mail.subject, at = format!("/_local/mail/{id}"), "mail received in the outbox");
    mails.push_front(mail);
    mails.truncate(KEPT);
    Json(json!({ "MessageId": format!("local-{id}") }))
}

#[derive(Template)]
#[template(path = "outbox.html")]
struct ListPage {
    mails: Vec<Mail>,
}

/// Sets the headers of all other responses, whose own policy may allow more.
async fn secured(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(SANDBOX));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn list(State(outbox): State<Outbox>) -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'")];
    match (ListPage { mails: outbox.mails() }).render() {
        Ok(page) => (policy, Html(page)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn list_as_json(State(outbox): State<Outbox>) -> Json<Vec<Mail>> {
    Json(outbox.mails())
}

async fn html(State(outbox): State<Outbox>, Path(id): Path<u64>) -> Response {
    // As in a mail client: no scripts, no external resources.
    let policy = [(header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'; style-src 'unsafe-inline'")];
    outbox
        .find(id)
        .map(|mail| (policy, Html(mail.html)).into_response())
        .unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

async fn text(State(outbox): State<Outbox>, Path(id): Path<u64>) -> Response {
    outbox.find(id).map(|mail| mail.text.into_response()).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

async fn source(State(outbox): State<Outbox>, Path(id): Path<u64>) -> Response {
    outbox
        .find(id)
        .map(|mail| Json(mail.source).into_response())
        .unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}
