//! Support for the black-box tests: each test gets its own service, on its own port, with its own
//! tables.
//!
//! Nothing is mocked: tests call the deployed routes over HTTP, and the service calls the embedded
//! DynamoDB through the real SDK.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot be set up has failed.

pub mod ci;
pub mod console;
pub mod contention;
pub mod coverage;
pub mod dynamodb_rules;
pub mod email;
pub mod faults;
pub mod invariants;
pub mod issuer;
pub mod log;
pub mod mail_faults;
pub mod management;
pub mod paging;
pub mod scanner;
pub mod shell;
pub mod table;
pub mod upstream;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use local::api;
use local::dynamodb::DynamoDb;
use local::outbox::{Outbox, SES_PATH};
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use shared::app::Limits;
use shared::aws::dynamodb_at;
use shared::console::{Console, SignIn};
use shared::cost::Cost;
use shared::domain::Plan;
use shared::hosts::RegistryHosts;
use shared::ids::TokenId;
use shared::mail::{MailConfig, Mailer, ses_at};
use shared::oidc::{IdentityProvider, PlainHttp, Registration, Workloads};
use shared::permissions::Role;
use shared::registry::{PublicUrl, Registries, Settings};
use shared::secret::{Token, TokenHash};
use shared::secret_scanning::ScannerKeys;
use shared::store::Store;
use shared::store::audit::{Caller, Subject};
use shared::store::installations::InstallationLog;
use shared::store::mail_limits::MailLimits;
use shared::store::registration::RegistrationPolicy;
use shared::{App, Clock, Moment};
use tokio::net::TcpListener;

use crate::contention::Contention;
use crate::faults::Faults;
use crate::issuer::FakeIssuer;
use crate::mail_faults::Ses;
use crate::scanner::Scanner;
use crate::table::{INSTALLATIONS, TABLE, Table};

/// A hash that stands for that of a token with this ID.
pub fn hash_for(token: &TokenId) -> TokenHash {
    let digits: String = token.as_str().bytes().map(|byte| format!("{byte:02x}")).collect();
    TokenHash::from_hex(&format!("{digits:0>64}")).unwrap()
}

/// Response header with the cost of a request; test services only.
const COST: &str = "x-test-cost";

/// How long requests wait for records that they do not need, where no faults are injected.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running service under test.
#[derive(Debug)]
pub struct Service {
    /// Its base URL.
    pub base_url: String,
    /// Its store, to set up what no endpoint can.
    pub store: Store,
    /// Its installation log.
    pub installation_log: InstallationLog,
    /// Direct access to its tables, bypassing the code under test.
    pub table: Table,
    /// Its clock.
    pub clock: Clock,
    /// The state of its functions, for those without a route.
    pub app: App,
    /// The mails that were sent.
    pub outbox: Outbox,
    /// Its mailer.
    pub mailer: Mailer,
    /// The issuer that it accepts ID tokens of CI from.
    pub issuer: FakeIssuer,
    /// GitHub's secret scanning, whose reports it takes.
    pub scanner: Scanner,
    http: reqwest::Client,
    /// The proxy in front of its DynamoDB, if it has one.
    faults: Option<Faults>,
    _dynamodb: DynamoDb,
}

impl Service {
    /// Starts a service with empty tables and the system clock.
    pub async fn start() -> Self {
        Self::start_with(Clock::System, unlimited()).await
    }

    /// Starts a service whose clock stays at `2026-11-21T10:00:00Z` until the test advances it.
    pub async fn start_with_manual_clock() -> Self {
        Self::start_with(manual_clock(), unlimited()).await
    }

    /// Starts a service with the given clock and limits.
    pub async fn start_with(clock: Clock, limits: Limits) -> Self {
        Self::start_on(DynamoDb::in_memory(0).await.unwrap(), clock, limits, None, Dependencies::default()).await
    }

    /// Starts a service with a manual clock, whose mails contain commands that call the service
    /// itself.
    pub async fn start_with_mail_links_to_itself() -> Self {
        let (dynamodb, dependencies) = (
            DynamoDb::in_memory(0).await.unwrap(),
            Dependencies { mail_links_to_service: true, ..Dependencies::default() },
        );
        Self::start_on(dynamodb, manual_clock(), unlimited(), None, dependencies).await
    }

    /// Starts a service with a manual clock and an SES that injects faults. The outbox holds what
    /// SES accepted.
    pub async fn start_with_mail_faults(limits: Limits) -> (Self, Ses) {
        let (clock, dynamodb) = (manual_clock(), DynamoDb::in_memory(0).await.unwrap());
        let ses = Ses::start(&clock).await;
        let dependencies = Dependencies { ses: Some(ses.clone()), ..Dependencies::default() };
        (Self::start_on(dynamodb, clock, limits, None, dependencies).await, ses)
    }

    /// Starts a service with a manual clock and these registries; DynamoDB and SES inject faults.
    pub async fn start_with_all_faults(limits: Limits, registries: Settings) -> (Self, Faults, Ses) {
        let (clock, dynamodb) = (manual_clock(), DynamoDb::in_memory(0).await.unwrap());
        let (faults, ses) = (Faults::start(&dynamodb.endpoint).await, Ses::start(&clock).await);
        let served = Store::new(faults.client(), TABLE, clock.clone());
        let dependencies = Dependencies { ses: Some(ses.clone()), registries, ..Dependencies::default() };
        let service = Self::start_on(dynamodb, clock, limits, Some(served), dependencies).await;
        (service.behind(&faults), faults, ses)
    }

    /// Starts a service with a manual clock whose DynamoDB injects faults. `store` and `table`
    /// bypass them.
    pub async fn start_with_faults() -> (Self, Faults) {
        let (clock, dynamodb) = (manual_clock(), DynamoDb::in_memory(0).await.unwrap());
        let faults = Faults::start(&dynamodb.endpoint).await;
        let served = Store::new(faults.client(), TABLE, clock.clone());
        let service = Self::start_on(dynamodb, clock, unlimited(), Some(served), Dependencies::default()).await;
        (service.behind(&faults), faults)
    }

    /// Starts a service with a manual clock, whose DynamoDB runs transactions of this duration in
    /// parallel. `store` and `table` bypass it.
    pub async fn start_with_contention(duration: Duration) -> (Self, Contention) {
        let (clock, dynamodb) = (manual_clock(), DynamoDb::in_memory(0).await.unwrap());
        let contention = Contention::start(&dynamodb.endpoint, duration).await;
        let served = Store::new(Faults::start(&contention.endpoint).await.client(), TABLE, clock.clone());
        (Self::start_on(dynamodb, clock, unlimited(), Some(served), Dependencies::default()).await, contention)
    }

    /// Starts a service with a manual clock and these registries.
    pub async fn start_with_registries(registries: Settings) -> Self {
        Self::start_with_registries_and_limits(registries, unlimited()).await
    }

    /// Like [`Self::start_with_registries`], with limits.
    pub async fn start_with_registries_and_limits(registries: Settings, limits: Limits) -> Self {
        let dependencies = Dependencies { registries, ..Dependencies::default() };
        Self::start_on(DynamoDb::in_memory(0).await.unwrap(), manual_clock(), limits, None, dependencies).await
    }

    /// Like [`Self::start_with_registries`], with faults in DynamoDB. `store` and `table` bypass
    /// them.
    pub async fn start_with_registries_and_faults(registries: Settings) -> (Self, Faults) {
        Self::start_with_registries_faults_and(registries, |served| served).await
    }

    /// Like [`Self::start_with_registries_and_faults`], and every record is waited for, however long it
    /// takes.
    pub async fn start_patiently_with_registries_and_faults(registries: Settings) -> (Self, Faults) {
        Self::start_with_registries_faults_and(registries, |served| served.with_patience(PATIENCE)).await
    }

    async fn start_with_registries_faults_and(
        registries: Settings,
        how: impl FnOnce(Store) -> Store,
    ) -> (Self, Faults) {
        let (clock, dynamodb) = (manual_clock(), DynamoDb::in_memory(0).await.unwrap());
        let faults = Faults::start(&dynamodb.endpoint).await;
        let served = how(Store::new(faults.client(), TABLE, clock.clone()));
        let dependencies = Dependencies { registries, ..Dependencies::default() };
        let service = Self::start_on(dynamodb, clock, unlimited(), Some(served), dependencies).await;
        (service.behind(&faults), faults)
    }

    /// Starts a service with a manual clock that takes no reports of GitHub's secret scanning.
    pub async fn start_without_scanner() -> Self {
        let dependencies = Dependencies { without_scanner: true, ..Dependencies::default() };
        Self::start_on(DynamoDb::in_memory(0).await.unwrap(), manual_clock(), unlimited(), None, dependencies).await
    }

    /// Starts a service with a manual clock, whose mails and pages name these hosts of the registries.
    pub async fn start_with_registry_hosts(registry_hosts: RegistryHosts) -> Self {
        let dependencies = Dependencies { registry_hosts, ..Dependencies::default() };
        Self::start_on(DynamoDb::in_memory(0).await.unwrap(), manual_clock(), unlimited(), None, dependencies).await
    }

    /// Starts a service with this clock, where people sign in with this identity provider or by mail.
    pub async fn start_with_provider(provider: Registration, clock: Clock) -> Self {
        let dependencies = Dependencies { provider: Some(provider), ..Dependencies::default() };
        Self::start_on(DynamoDb::in_memory(0).await.unwrap(), clock, unlimited(), None, dependencies).await
    }

    /// Like [`Self::start_with_provider`], with faults in DynamoDB. `store` and `table` bypass them.
    pub async fn start_with_provider_and_faults(provider: Registration, clock: Clock) -> (Self, Faults) {
        let dynamodb = DynamoDb::in_memory(0).await.unwrap();
        let faults = Faults::start(&dynamodb.endpoint).await;
        let served = Store::new(faults.client(), TABLE, clock.clone());
        let dependencies = Dependencies { provider: Some(provider), ..Dependencies::default() };
        let service = Self::start_on(dynamodb, clock, unlimited(), Some(served), dependencies).await;
        (service.behind(&faults), faults)
    }

    /// Starts a service with this clock that accepts these issuers and audiences of CI.
    pub async fn start_with_workloads(workloads: Workloads, clock: Clock) -> Self {
        let dependencies = Dependencies { workloads: Some(workloads), ..Dependencies::default() };
        Self::start_on(DynamoDb::in_memory(0).await.unwrap(), clock, unlimited(), None, dependencies).await
    }

    /// The functions as deployed, where people sign in like this.
    pub fn deployed(&self, sign_in: SignIn) -> BTreeMap<String, axum::Router> {
        api::deployed(api::Service {
            app: App::new(self.store.clone(), self.clock.clone()),
            log: self.installation_log.clone(),
            mailer: self.mailer.clone(),
            registries: Registries::new(no_upstreams()).unwrap(),
            workloads: self.issuer.workloads(),
            console: Console::at("https://guard.example.com").with_sign_in(sign_in),
            provider: None,
            scanner_keys: None,
        })
    }

    async fn start_on(
        dynamodb: DynamoDb,
        clock: Clock,
        limits: Limits,
        served: Option<Store>,
        dependencies: Dependencies,
    ) -> Self {
        // On a busy machine half a second may pass without a step of a request.
        let store = Store::new(dynamodb_at(&dynamodb.endpoint), TABLE, clock.clone()).with_patience(PATIENCE);
        store.create_table().await.unwrap();
        let installation_log = store.installation_log(INSTALLATIONS);
        installation_log.create_table().await.unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let (outbox, ses) = match &dependencies.ses {
            Some(ses) => (ses.outbox.clone(), ses.client()),
            None => (Outbox::new(clock.clone()), ses_at(&format!("{base_url}{SES_PATH}"))),
        };
        let public_url = if dependencies.mail_links_to_service { &base_url } else { "https://guard.example.com" };
        let mail = MailConfig {
            from: "guard-tokens <no-reply@guard-tokens.example>".to_owned(),
            reply_to: Some("support@guard-tokens.example".to_owned()),
            configuration_set: Some("guard-tokens".to_owned()),
            public_url: public_url.to_owned(),
            registry_hosts: dependencies.registry_hosts.clone(),
        };
        let mailer = Mailer::new(ses, mail);
        let served = served.unwrap_or_else(|| store.clone());
        let served_log = served.installation_log(INSTALLATIONS);
        let app = App::new(served, clock.clone()).with_limits(limits);
        let issuer = FakeIssuer::start_with(clock.clone()).await;
        let workloads = dependencies.workloads.unwrap_or_else(|| issuer.workloads());
        let hosts = RegistryHosts::on_this_machine(listener.local_addr().unwrap().port());
        let registries = Registries::new(Settings { hosts, ..dependencies.registries }).unwrap();
        let sign_in = if dependencies.provider.is_some() { SignIn::Both } else { SignIn::Mail };
        let console = Console::at(&base_url).with_sign_in(sign_in).with_registry_hosts(dependencies.registry_hosts);
        let at_base_url = |registration| IdentityProvider::new(registration, &base_url, clock.clone()).unwrap();
        let provider = dependencies.provider.map(at_base_url);
        let scanner = Scanner::at(issuer.server.clone());
        let scanner_keys = ScannerKeys::new(&scanner.url(), PlainHttp::OnLoopback, clock.clone()).unwrap();
        let service = local::api::Service {
            scanner_keys: (!dependencies.without_scanner).then_some(scanner_keys),
            app: app.clone(),
            log: served_log,
            mailer: mailer.clone(),
            registries,
            workloads,
            console,
            provider,
        };
        let router = local::api::router(service).layer(from_fn(show_cost)).merge(outbox.clone().router());
        tokio::spawn(local::api::serve(listener, router, std::future::pending()));
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_gzip().build().unwrap();
        let table = Table::new(&dynamodb);
        Self {
            base_url,
            store,
            installation_log,
            table,
            clock,
            app,
            outbox,
            mailer,
            issuer,
            scanner,
            http,
            faults: None,
            _dynamodb: dynamodb,
        }
    }

    /// The service, checked at its end for requests that broke DynamoDB's rules.
    fn behind(mut self, faults: &Faults) -> Self {
        self.faults = Some(faults.clone());
        self
    }

    /// Creates an organization with Guard enabled.
    pub async fn org(&self) -> Org {
        let org = self.store.create_org("Example", Plan::Pro, true, &operator()).await.unwrap();
        Org { id: org.id }
    }

    /// Creates a bot with these roles.
    ///
    /// It has been used, so that its next calls cost what they do every time.
    pub async fn bot(&self, org: &Org, roles: &[Role]) -> Bot {
        let bot = self.unused_bot(org, roles).await;
        let key = bot.credential.split(':').next().and_then(Token::parse).unwrap();
        let authenticated = self.store.authenticate_bot(&bot.id, &key).await.unwrap().unwrap();
        self.app.store().record_bot_use(&authenticated).await.unwrap();
        bot
    }

    /// As [`Self::bot`], and it was never used.
    pub async fn unused_bot(&self, org: &Org, roles: &[Role]) -> Bot {
        let (bot, key) = self.store.create_bot(&org.id, "test", roles, &operator()).await.unwrap();
        Bot { credential: format!("{}:{}", key.expose(), bot.id), id: bot.id }
    }

    /// Creates an organization with Guard enabled, and an owner bot.
    pub async fn org_with_owner(&self) -> (Org, Bot) {
        let org = self.org().await;
        let owner = self.bot(&org, &[Role::Owner]).await;
        (org, owner)
    }

    /// Issues an org user token through the service.
    pub async fn issue(&self, org: &Org, bot: &Bot, user_identifier: &str) -> Issued {
        self.issue_with(org, bot, &json!({"user_identifier": user_identifier})).await
    }

    /// Issues an expiring org user token through the service.
    pub async fn issue_until(&self, org: &Org, bot: &Bot, user_identifier: &str, expires_at: &str) -> Issued {
        self.issue_with(org, bot, &json!({"user_identifier": user_identifier, "expires_at": expires_at})).await
    }

    async fn issue_with(&self, org: &Org, bot: &Bot, body: &Value) -> Issued {
        let answer = self.post(&org.org_user_tokens(""), &bot.credential, body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        Issued::from_json(&answer.json())
    }

    /// Revokes an org user token through the service.
    pub async fn revoke(&self, org: &Org, bot: &Bot, token: &Issued) {
        let path = org.org_user_tokens(&format!("/by-id/{}", token.id));
        let answer = self.call(Method::DELETE, &path, &bot.credential).await;
        assert_eq!(answer.status, 204, "{}", answer.text);
    }

    /// Lists org user tokens; `query` is empty or starts with `?`.
    pub async fn list(&self, org: &Org, bot: &Bot, query: &str) -> Value {
        let answer = self.call(Method::GET, &org.org_user_tokens(query), &bot.credential).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// The IDs of the listed tokens.
    pub async fn listed_ids(&self, org: &Org, bot: &Bot, query: &str) -> Vec<String> {
        ids(&self.list(org, bot, query).await["tokens"])
    }

    /// Probes a token and returns the response body.
    pub async fn probe(&self, org: &Org, bot: &Bot, token: &str) -> Value {
        let answer = self.post(&org.org_user_tokens("/probe"), &bot.credential, &json!({"token": token})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// A client of the service's DynamoDB, to store what no endpoint can.
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        dynamodb_at(&self._dynamodb.endpoint)
    }

    /// Builds a request.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base_url))
    }

    /// Sends a request and reads the response.
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

/// Every test ends with a check of the tables' invariants, and of the requests that it made.
impl Drop for Service {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            if let Some(faults) = &self.faults {
                assert!(faults.broken_rules().is_empty(), "DynamoDB would refuse: {:#?}", faults.broken_rules());
            }
            self.table.final_check();
        }
    }
}

/// What the service under test depends on.
#[derive(Debug)]
struct Dependencies {
    /// The SES to send mails with; the service's own outbox by default.
    ses: Option<Ses>,
    /// Whether the commands in mails call the service itself, so that tests can run them; otherwise
    /// guard.example.com.
    mail_links_to_service: bool,
    /// The registries; none by default.
    registries: Settings,
    /// The registries' own hosts that mails and pages name; none by default.
    registry_hosts: RegistryHosts,
    /// The identity provider; none by default.
    provider: Option<Registration>,
    /// The issuers of CI; the service's own fake one by default.
    workloads: Option<Workloads>,
    /// Whether it takes no reports of GitHub's secret scanning.
    without_scanner: bool,
}

impl Default for Dependencies {
    fn default() -> Self {
        Self {
            ses: None,
            mail_links_to_service: false,
            registries: no_upstreams(),
            registry_hosts: RegistryHosts::default(),
            provider: None,
            workloads: None,
            without_scanner: false,
        }
    }
}

/// Registry settings as deployed, but without upstreams and TLS.
pub fn no_upstreams() -> Settings {
    Settings {
        npm: None,
        pypi: None,
        pypi_file_hosts: Vec::new(),
        anonymous_access: false,
        public_url: PublicUrl::FromHostHeader("http"),
        hosts: RegistryHosts::default(),
        timeout: Duration::from_secs(10),
    }
}

/// An organization.
#[derive(Debug, Clone)]
pub struct Org {
    /// Its id.
    pub id: shared::ids::OrgId,
}

impl Org {
    /// The path of its org user tokens, plus `rest`.
    pub fn org_user_tokens(&self, rest: &str) -> String {
        format!("/v1/o/{}/guard/org-user-tokens{rest}", self.id)
    }
}

/// A bot.
#[derive(Debug, Clone)]
pub struct Bot {
    /// Its id.
    pub id: shared::ids::BotId,
    /// API key and ID, joined by a colon.
    pub credential: String,
}

/// An issued org user token.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Its management ID.
    pub id: String,
    /// The token itself.
    pub token: String,
    /// Its user identifier.
    pub user_identifier: String,
}

impl Issued {
    /// Reads the answer to *issue*.
    pub fn from_json(json: &Value) -> Self {
        let text = |field: &str| json[field].as_str().unwrap().to_owned();
        Self { id: text("id"), token: text("token"), user_identifier: text("user_identifier") }
    }
}

/// A response of the service.
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

    /// A header, or an empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The error code, in either error format.
    pub fn code(&self) -> String {
        let json = self.json();
        if self.is_scim_error() {
            // SCIM has no codes: that of the status.
            let code = match self.status.as_u16() {
                400 => "BAD_REQUEST",
                401 => "UNAUTHORIZED",
                403 => "FORBIDDEN",
                404 => "NOT_FOUND",
                405 => "METHOD_NOT_ALLOWED",
                409 => "CONFLICT",
                413 => "PAYLOAD_TOO_LARGE",
                415 => "UNSUPPORTED_MEDIA_TYPE",
                503 => "SERVICE_UNAVAILABLE",
                _ => "INTERNAL_ERROR",
            };
            return code.to_owned();
        }
        json["error"]["code"].as_str().or(json["code"].as_str()).unwrap_or_default().to_owned()
    }

    /// What the request cost.
    pub fn cost(&self) -> Cost {
        let mut figures = self.header(COST).split(' ').map(|figure| figure.parse().unwrap());
        let mut next = || figures.next().unwrap();
        Cost { read: next(), write: next(), calls: next() as u32 }
    }

    /// Asserts that this is the given error, with the documented envelope and headers.
    #[track_caller]
    pub fn assert_error(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.code().as_str()), (status, code), "{}", self.text);
        assert!(!self.header("x-request-id").is_empty());
        let message = if self.is_scim_error() {
            let error = self.json();
            assert_eq!(error["schemas"], serde_json::json!(["urn:ietf:params:scim:api:messages:2.0:Error"]));
            assert_eq!(error["status"], status.to_string());
            error["detail"].clone()
        } else {
            let error = &self.json()["error"];
            assert_eq!(error["request_id"], self.header("x-request-id"));
            error["message"].clone()
        };
        assert!(message.as_str().is_some_and(|message| message.ends_with('.')), "{message}");
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(self.header("www-authenticate").is_empty(), status != 401, "{:?}", self.headers);
    }

    fn is_scim_error(&self) -> bool {
        self.header("content-type") == "application/scim+json" && !self.status.is_success()
    }

    /// Asserts that this is an error of SCIM with this type, or with none.
    #[track_caller]
    pub fn assert_scim_error(&self, status: u16, scim_type: Option<&str>) {
        assert!(self.is_scim_error(), "{} {}", self.status, self.text);
        self.assert_error(status, &self.code());
        assert_eq!(self.json().get("scimType").and_then(Value::as_str), scim_type, "{}", self.text);
    }

    /// Asserts that this is a 400 that names the field.
    #[track_caller]
    pub fn assert_invalid(&self, field: &str) {
        self.assert_error(400, "BAD_REQUEST");
        assert_eq!(self.json()["error"]["details"][0]["field"], field, "{}", self.text);
    }
}

/// The IDs in a list of objects with `id`, or in a list of IDs.
pub fn ids(list: &Value) -> Vec<String> {
    let entries = list.as_array().unwrap().iter();
    entries.map(|entry| entry["id"].as_str().or(entry.as_str()).unwrap().to_owned()).collect()
}

/// A clock that stays at `2026-11-21T10:00:00Z` until it is advanced.
pub fn manual_clock() -> Clock {
    Clock::manual(Moment::parse("2026-11-21T10:00:00Z").unwrap())
}

/// The operator who runs `guardctl`.
pub fn operator() -> Caller {
    Caller { actor: Subject::new("operator", "test"), source_ip: None, request_id: "test".to_owned(), workload: None }
}

/// No rate limits and no minimum response time, since all tests call from one address.
pub fn unlimited() -> Limits {
    let mails = MailLimits {
        per_hour: None,
        per_domain_per_hour: None,
        per_source_per_hour: None,
        per_source_per_day: None,
        recoveries_per_source_per_hour: None,
        sign_in_codes_per_source_per_hour: None,
    };
    Limits {
        calls_per_minute: None,
        mails,
        registration: RegistrationPolicy::Open,
        registration_time: Duration::ZERO,
        sign_in_time: Duration::ZERO,
        exchange_refusal_time: Duration::ZERO,
    }
}

/// No limits but this one of the deployment's mails.
pub fn mails_per_hour(limit: u64) -> Limits {
    let unlimited = unlimited();
    Limits { mails: MailLimits { per_hour: Some(limit), ..unlimited.mails }, ..unlimited }
}

async fn show_cost(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(cost) = response.extensions().get::<Cost>() {
        let figures = format!("{} {} {}", cost.read, cost.write, cost.calls);
        response.headers_mut().insert(COST, HeaderValue::from_str(&figures).unwrap());
    }
    response
}
