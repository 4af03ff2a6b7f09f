//! The house of the black-box tests: a whole service per test, on a port of its own, with a table of its own.
//!
//! Real parts only: the routes that are deployed, over HTTP, on the embedded DynamoDB over the real SDK.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot be set up has failed.

pub mod coverage;
pub mod email;
pub mod faults;
pub mod invariants;
pub mod log;
pub mod mail_faults;
pub mod management;
pub mod shell;
pub mod table;
pub mod upstream;

use std::net::Ipv4Addr;
use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use local::dynamodb::DynamoDb;
use local::outbox::{Outbox, SES_PATH};
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use shared::app::{Limits, dynamodb_at, ses_at};
use shared::cost::Cost;
use shared::domain::Plan;
use shared::mail::{MailConfig, Mailer};
use shared::principal::Role;
use shared::registry::{PublicUrl, Registries, Settings};
use shared::store::Store;
use shared::store::audit::{Caller, Subject};
use shared::store::installations::InstallationLog;
use shared::{App, Clock, Moment};
use tokio::net::TcpListener;

use crate::faults::Faults;
use crate::mail_faults::Ses;
use crate::table::{INSTALLATIONS, TABLE, Table};

/// The header in which a test service, and only that, says what a request cost.
const COST: &str = "x-test-cost";

/// A running service.
#[derive(Debug)]
pub struct Service {
    /// Where it listens.
    pub base_url: String,
    /// Its table, to set up what no endpoint can.
    pub store: Store,
    /// Its installation log.
    pub installation_log: InstallationLog,
    /// The same table from outside, past the code under test.
    pub table: Table,
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
        Self::start_with(manual_clock(), unlimited()).await
    }

    /// Starts a service with a clock and limits of its own.
    pub async fn start_with(clock: Clock, limits: Limits) -> Self {
        Self::start_on(DynamoDb::in_memory(0).await.unwrap(), clock, limits, None, Surroundings::default()).await
    }

    /// Starts a service with a manual clock, whose mails hold commands that lead to the service itself.
    pub async fn start_with_mails_that_lead_home() -> Self {
        let (dynamodb, around) =
            (DynamoDb::in_memory(0).await.unwrap(), Surroundings { lead_home: true, ..Surroundings::default() });
        Self::start_on(dynamodb, manual_clock(), unlimited(), None, around).await
    }

    /// Starts a service with a manual clock, whose SES fails as the test says; its outbox has what SES took.
    pub async fn start_with_mail_faults(limits: Limits) -> (Self, Ses) {
        let (clock, dynamodb) = (manual_clock(), DynamoDb::in_memory(0).await.unwrap());
        let ses = Ses::start(&clock).await;
        let around = Surroundings { ses: Some(ses.clone()), ..Surroundings::default() };
        (Self::start_on(dynamodb, clock, limits, None, around).await, ses)
    }

    /// Starts a service with a manual clock and such registries, whose table and whose SES fail as the test says.
    pub async fn start_with_all_faults(limits: Limits, registries: Settings) -> (Self, Faults, Ses) {
        let (clock, dynamodb) = (manual_clock(), DynamoDb::in_memory(0).await.unwrap());
        let (faults, ses) = (Faults::start(&dynamodb.endpoint).await, Ses::start(&clock).await);
        let served = Store::new(faults.client(), TABLE, clock.clone());
        let around = Surroundings { ses: Some(ses.clone()), registries, ..Surroundings::default() };
        (Self::start_on(dynamodb, clock, limits, Some(served), around).await, faults, ses)
    }

    /// Starts a service with a manual clock, whose table fails as the test says; `store` and `table` go past that.
    pub async fn start_with_faults() -> (Self, Faults) {
        let (clock, dynamodb) = (manual_clock(), DynamoDb::in_memory(0).await.unwrap());
        let faults = Faults::start(&dynamodb.endpoint).await;
        let served = Store::new(faults.client(), TABLE, clock.clone());
        (Self::start_on(dynamodb, clock, unlimited(), Some(served), Surroundings::default()).await, faults)
    }

    /// Starts a service with a manual clock, whose registries have these settings.
    pub async fn start_with_registries(registries: Settings) -> Self {
        Self::start_with_registries_and_limits(registries, unlimited()).await
    }

    /// The same with limits.
    pub async fn start_with_registries_and_limits(registries: Settings, limits: Limits) -> Self {
        let around = Surroundings { registries, ..Surroundings::default() };
        Self::start_on(DynamoDb::in_memory(0).await.unwrap(), manual_clock(), limits, None, around).await
    }

    /// The same as [`Self::start_with_registries`], whose table fails as the test says; `store` and `table` go past that.
    pub async fn start_with_registries_and_faults(registries: Settings) -> (Self, Faults) {
        let (clock, dynamodb) = (manual_clock(), DynamoDb::in_memory(0).await.unwrap());
        let faults = Faults::start(&dynamodb.endpoint).await;
        let served = Store::new(faults.client(), TABLE, clock.clone());
        let around = Surroundings { registries, ..Surroundings::default() };
        (Self::start_on(dynamodb, clock, unlimited(), Some(served), around).await, faults)
    }

    async fn start_on(
        dynamodb: DynamoDb,
        clock: Clock,
        limits: Limits,
        served: Option<Store>,
        around: Surroundings,
    ) -> Self {
        let store = Store::new(dynamodb_at(&dynamodb.endpoint), TABLE, clock.clone());
        store.create_table().await.unwrap();
        let installation_log = store.installation_log(INSTALLATIONS);
        installation_log.create_table().await.unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let (outbox, ses) = match &around.ses {
            Some(ses) => (ses.outbox.clone(), ses.client()),
            None => (Outbox::new(clock.clone()), ses_at(&format!("{base_url}{SES_PATH}"))),
        };
        let public_url = if around.lead_home { &base_url } else { "https://guard.example.com" };
        let mail = MailConfig {
            from: "guard-tokens <no-reply@guard-tokens.example>".to_owned(),
            reply_to: Some("support@guard-tokens.example".to_owned()),
            configuration_set: Some("guard-tokens".to_owned()),
            public_url: public_url.to_owned(),
        };
        let mailer = Mailer::new(ses, mail);
        let served = served.unwrap_or_else(|| store.clone());
        let served_log = served.installation_log(INSTALLATIONS);
        let app = App::new(served, clock.clone());
        let app = app.with_limits(limits).with_installation_log(served_log).with_mailer(mailer);
        let app = app.with_registries(Registries::new(around.registries).unwrap());
        let router = local::api::router(app).layer(from_fn(show_cost)).merge(outbox.clone().router());
        tokio::spawn(local::api::serve(listener, router, std::future::pending()));
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_gzip().build().unwrap();
        let table = Table::new(&dynamodb);
        Self { base_url, store, installation_log, table, clock, outbox, http, _dynamodb: dynamodb }
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

    /// Issues a token through the service.
    pub async fn issue(&self, org: &Org, bot: &Bot, user_identifier: &str) -> Issued {
        self.issue_with(org, bot, &json!({"user_identifier": user_identifier})).await
    }

    /// Issues a token that expires through the service.
    pub async fn issue_until(&self, org: &Org, bot: &Bot, user_identifier: &str, expires_at: &str) -> Issued {
        self.issue_with(org, bot, &json!({"user_identifier": user_identifier, "expires_at": expires_at})).await
    }

    async fn issue_with(&self, org: &Org, bot: &Bot, body: &Value) -> Issued {
        let answer = self.post(&org.org_user_tokens(""), &bot.credential, body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        Issued::from_json(&answer.json())
    }

    /// Revokes a token through the service.
    pub async fn revoke(&self, org: &Org, bot: &Bot, token: &Issued) {
        let path = org.org_user_tokens(&format!("/by-id/{}", token.id));
        let answer = self.call(Method::DELETE, &path, &bot.credential).await;
        assert_eq!(answer.status, 204, "{}", answer.text);
    }

    /// Lists tokens through the service; `query` begins with `?`, or is empty.
    pub async fn list(&self, org: &Org, bot: &Bot, query: &str) -> Value {
        let answer = self.call(Method::GET, &org.org_user_tokens(query), &bot.credential).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// The ids of the tokens that a list answers.
    pub async fn listed_ids(&self, org: &Org, bot: &Bot, query: &str) -> Vec<String> {
        ids(&self.list(org, bot, query).await["tokens"])
    }

    /// Asks the service whether a token is active, and answers all that it says.
    pub async fn probe(&self, org: &Org, bot: &Bot, token: &str) -> Value {
        let answer = self.post(&org.org_user_tokens("/probe"), &bot.credential, &json!({"token": token})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// A client of the service's DynamoDB, to put there what no endpoint can yet.
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        dynamodb_at(&self._dynamodb.endpoint)
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

/// Every test ends with a look at its tables: whatever it was about, they must be sound.
impl Drop for Service {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.table.check_at_the_end();
        }
    }
}

/// What a service has around it.
#[derive(Debug)]
struct Surroundings {
    /// The SES that mails go through; the service's own outbox unless said.
    ses: Option<Ses>,
    /// Whether the commands in mails lead to the service itself, so that they can be run; else to guard.example.com.
    lead_home: bool,
    /// Where packages come from; from nowhere unless said.
    registries: Settings,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { ses: None, lead_home: false, registries: no_upstreams() }
    }
}

/// Registries as they are deployed, but without an upstream, and called without TLS.
pub fn no_upstreams() -> Settings {
    Settings {
        npm: None,
        pypi: None,
        pypi_file_hosts: Vec::new(),
        anonymous_access: false,
        public_url: PublicUrl::AsCalled("http"),
        patience: Duration::from_secs(2),
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

/// A token as it was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Its management id.
    pub id: String,
    /// The token itself.
    pub token: String,
    /// Who it is for.
    pub user_identifier: String,
}

impl Issued {
    fn from_json(json: &Value) -> Self {
        let text = |field: &str| json[field].as_str().unwrap().to_owned();
        Self { id: text("id"), token: text("token"), user_identifier: text("user_identifier") }
    }
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

    /// The error's code, in either form.
    pub fn code(&self) -> String {
        let json = self.json();
        json["error"]["code"].as_str().or(json["code"].as_str()).unwrap_or_default().to_owned()
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

/// The `id` of each of these, or the ids themselves where they are a list of such.
pub fn ids(list: &Value) -> Vec<String> {
    let entries = list.as_array().unwrap().iter();
    entries.map(|entry| entry["id"].as_str().or(entry.as_str()).unwrap().to_owned()).collect()
}

fn manual_clock() -> Clock {
    Clock::manual(Moment::parse("2026-11-21T10:00:00Z").unwrap())
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
