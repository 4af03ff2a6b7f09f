//! The house of the black-box tests: a whole service per test, on a port of its own, with a table of its own.
//!
//! Real parts only: the routes that are deployed, over HTTP, on the embedded DynamoDB over the real SDK.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot be set up has failed.

use std::net::Ipv4Addr;
use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use local::dynamodb::DynamoDb;
use local::outbox::{Outbox, SES_PATH};
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::Value;
use shared::app::{Limits, dynamodb_at, ses_at};
use shared::cost::Cost;
use shared::domain::Plan;
use shared::mail::{MailConfig, Mailer};
use shared::principal::Role;
use shared::store::Store;
use shared::store::audit::{Caller, Subject};
use shared::{App, Clock, Moment};
use tokio::net::TcpListener;

/// The header in which a test service, and only that, says what a request cost.
const COST: &str = "x-test-cost";

/// A running service.
#[derive(Debug)]
pub struct Service {
    /// Where it listens.
    pub base_url: String,
    /// Its table, to set up what no endpoint can.
    pub store: Store,
    /// Its clock.
    pub clock: Clock,
    /// The mails it sent.
    pub outbox: Outbox,
    http: reqwest::Client,
    _dynamodb: DynamoDb,
}

impl Service {
    /// Starts a service with an empty table and the machine's clock.
    pub async fn start() -> Self {
        Self::start_with(Clock::System, unlimited()).await
    }

    /// Starts a service whose clock stands at `2026-11-21T10:00:00Z` until the test advances it.
    pub async fn start_with_manual_clock() -> Self {
        Self::start_with(Clock::manual(Moment::parse("2026-11-21T10:00:00Z").unwrap()), unlimited()).await
    }

    /// Starts a service with a clock and limits of its own.
    pub async fn start_with(clock: Clock, limits: Limits) -> Self {
        let dynamodb = DynamoDb::in_memory(0).await.unwrap();
        let store = Store::new(dynamodb_at(&dynamodb.endpoint), "tokens", clock.clone());
        store.create_table().await.unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let outbox = Outbox::new(clock.clone());
        let mail = MailConfig {
            from: "guard-tokens <no-reply@guard-tokens.example>".to_owned(),
            reply_to: Some("support@guard-tokens.example".to_owned()),
            configuration_set: Some("guard-tokens".to_owned()),
            public_url: "https://guard.example.com".to_owned(),
        };
        let mailer = Mailer::new(ses_at(&format!("{base_url}{SES_PATH}")), mail);
        let app = App::new(store.clone(), clock.clone()).with_limits(limits).with_mailer(mailer);
        let router = local::api::router(app).layer(from_fn(show_cost)).merge(outbox.clone().router());
        tokio::spawn(local::api::serve(listener, router, std::future::pending()));
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { base_url, store, clock, outbox, http, _dynamodb: dynamodb }
    }

    /// Makes an organization with Guard enabled.
    pub async fn org(&self) -> Org {
        let org = self.store.create_org("Example", Plan::Pro, true, &operator()).await.unwrap();
        Org { id: org.id }
    }

    /// Makes a bot with these roles. The answer is its credential.
    pub async fn bot(&self, org: &Org, roles: &[Role]) -> Bot {
        let (bot, key) = self.store.create_bot(&org.id, "test", roles, &operator()).await.unwrap();
        Bot { credential: format!("{}:{}", key.expose(), bot.id), id: bot.id }
    }

    /// Makes an organization with Guard enabled and an owner bot.
    pub async fn org_with_owner(&self) -> (Org, Bot) {
        let org = self.org().await;
        let owner = self.bot(&org, &[Role::Owner]).await;
        (org, owner)
    }

    /// Begins a request.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base_url))
    }

    /// Sends a request and reads the answer.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    /// Sends a request without a body.
    pub async fn call(&self, method: Method, path: &str, credential: &str) -> Answer {
        self.send(self.request(method, path).bearer_auth(credential)).await
    }

    /// Sends a request with a JSON body.
    pub async fn post(&self, path: &str, credential: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).bearer_auth(credential).json(body)).await
    }
}

/// An organization.
#[derive(Debug, Clone)]
pub struct Org {
    /// Its id.
    pub id: shared::ids::OrgId,
}

impl Org {
    /// The path of its org user tokens, with something behind it.
    pub fn org_user_tokens(&self, rest: &str) -> String {
        format!("/v1/o/{}/guard/org-user-tokens{rest}", self.id)
    }
}

/// A bot.
#[derive(Debug, Clone)]
pub struct Bot {
    /// Its id.
    pub id: shared::ids::BotId,
    /// API key and id, joined by a colon.
    pub credential: String,
}

/// An answer of the service.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: header::HeaderMap,
    /// Its body.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The error's code.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// What the request cost.
    pub fn cost(&self) -> Cost {
        let mut figures = self.header(COST).split(' ').map(|figure| figure.parse().unwrap());
        let mut next = || figures.next().unwrap();
        Cost { read: next(), write: next(), calls: next() as u32 }
    }

    /// Checks that this is an error of the contract, with its envelope and headers.
    #[track_caller]
    pub fn assert_error(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.code().as_str()), (status, code), "{}", self.text);
        let error = &self.json()["error"];
        assert_eq!(error["request_id"], self.header("x-request-id"));
        assert!(!self.header("x-request-id").is_empty());
        assert!(error["message"].as_str().is_some_and(|message| message.ends_with('.')), "{error}");
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(self.header("www-authenticate").is_empty(), status != 401, "{:?}", self.headers);
    }

    /// Checks that this is a 400 that names this field and does not repeat what was sent.
    #[track_caller]
    pub fn assert_invalid(&self, field: &str) {
        self.assert_error(400, "BAD_REQUEST");
        assert_eq!(self.json()["error"]["details"][0]["field"], field, "{}", self.text);
    }
}

/// The operator, for what `guardctl` does.
pub fn operator() -> Caller {
    Caller { actor: Subject::new("operator", "test"), source_ip: None, request_id: "test".to_owned() }
}

/// No limits, and no waiting: all tests call from one address.
pub fn unlimited() -> Limits {
    Limits { calls_per_minute: None, mails_per_hour: None, registration_time: Duration::ZERO }
}

async fn show_cost(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(cost) = response.extensions().get::<Cost>() {
        let figures = format!("{} {} {}", cost.read, cost.write, cost.calls);
        response.headers_mut().insert(COST, HeaderValue::from_str(&figures).unwrap());
    }
    response
}
