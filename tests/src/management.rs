//! Helpers for API keys, organization access tokens, introspection and the logs.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use shared::ApiError;
use shared::domain::{LeakPolicy, Notify, Plan};
use shared::email::EmailAddress;
use shared::ids::OrgId;
use shared::permissions::Role;
use shared::store::email_tokens::Registration;
use shared::store::lifetimes::{Days, Limited};
use shared::store::orgs::OrgChange;

use crate::paging::List;
use crate::table::text;
use crate::{Answer, Bot, Org, Service, ids, operator};

/// The path of API keys.
pub const API_KEYS: &str = "/v1/api-keys";
/// The path of organization access tokens.
pub const ACCESS_TOKENS: &str = "/api/v2/organization/tokens/";
/// The path of introspection.
pub const INTROSPECT: &str = "/v1/tokens/introspect";

/// An API key as it was created.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Its management ID.
    pub id: String,
    /// The key itself.
    pub key: String,
}

/// An organization access token as it was created.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// Its ID.
    pub id: u64,
    /// The token itself.
    pub token: String,
}

impl AccessToken {
    /// Its path.
    pub fn path(&self) -> String {
        format!("{ACCESS_TOKENS}{}/", self.id)
    }
}

impl Service {
    /// Creates an organization with this plan, and an owner bot.
    pub async fn org_on(&self, plan: Plan) -> (Org, Bot) {
        let org = self.store.create_org("Example", plan, true, &operator()).await.unwrap();
        let org = Org { id: org.id };
        let owner = self.bot(&org, &[Role::Owner]).await;
        (org, owner)
    }

    /// Changes the plan of an organization.
    pub async fn set_plan(&self, org: &Org, plan: Plan) {
        let change = OrgChange { plan: Some(plan), ..OrgChange::default() };
        self.store.set_org(&org.id, &change, &operator()).await.unwrap().unwrap();
    }

    /// Switches Guard of an organization on or off.
    pub async fn set_guard(&self, org: &OrgId, guard: bool) {
        let change = OrgChange { guard: Some(guard), ..OrgChange::default() };
        self.store.set_org(org, &change, &operator()).await.unwrap().unwrap();
    }

    /// Sets whom to tell about an organization's leaked tokens, and whether they are revoked.
    pub async fn set_leaks(&self, org: &OrgId, contacts: &[&str], leaked: LeakPolicy) {
        let contacts = contacts.iter().map(|contact| EmailAddress::try_from((*contact).to_owned()).unwrap());
        let change =
            OrgChange { security_contacts: Some(contacts.collect()), leaked: Some(leaked), ..OrgChange::default() };
        self.store.set_org(org, &change, &operator()).await.unwrap().unwrap();
    }

    /// Limits the lifetimes of an organization's tokens: 0 takes a limit away.
    pub async fn set_lifetimes(&self, org: &OrgId, limits: &[(Limited, u32)]) {
        let limits = limits.iter().map(|(kind, days)| (*kind, Days::new(*days))).collect();
        let change = OrgChange { max_lifetime_days: limits, ..OrgChange::default() };
        self.store.set_org(org, &change, &operator()).await.unwrap().unwrap();
    }

    /// Ends an organization's tokens that are not used for these days, at once: the minute is over for
    /// which the former policy is remembered. 0 takes the policy away.
    pub async fn end_unused(&self, org: &OrgId, days: u32) {
        let change = OrgChange { end_after_unused_days: Some(Days::new(days)), ..OrgChange::default() };
        self.store.set_org(org, &change, &operator()).await.unwrap().unwrap();
        self.clock.advance(Duration::from_secs(60));
    }

    /// Runs the function that writes the ends of tokens that were not used.
    pub async fn run_end_unused(&self) -> Result<(), ApiError> {
        tokens_end_unused::end_unused(self.app.clone()).await
    }

    /// Sets what else an organization's security contacts are told.
    pub async fn set_notify(&self, org: &OrgId, notify: &[Notify]) {
        let change = OrgChange { notify: Some(notify.to_vec()), ..OrgChange::default() };
        self.store.set_org(org, &change, &operator()).await.unwrap().unwrap();
    }

    /// Sends a request with a JSON body.
    pub async fn send_json(&self, method: Method, path: &str, credential: &str, body: &Value) -> Answer {
        self.send(self.request(method, path).bearer_auth(credential).json(body)).await
    }

    /// Creates a live API key through the service.
    pub async fn api_key(&self, credential: &str, scopes: &[&str]) -> ApiKey {
        self.api_key_with(credential, &json!({"name": "ci-pipeline", "environment": "live", "scopes": scopes})).await
    }

    /// Creates an API key through the service.
    pub async fn api_key_with(&self, credential: &str, body: &Value) -> ApiKey {
        let answer = self.post(API_KEYS, credential, body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let body = answer.json();
        ApiKey { id: text(&body, "id").to_owned(), key: text(&body, "key").to_owned() }
    }

    /// Revokes an API key through the service.
    pub async fn revoke_api_key(&self, credential: &str, id: &str) {
        let answer = self.call(Method::DELETE, &format!("{API_KEYS}/{id}"), credential).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    }

    /// Lists API keys; `query` is empty or starts with `?`.
    pub async fn api_keys(&self, credential: &str, query: &str) -> Value {
        let answer = self.call(Method::GET, &format!("{API_KEYS}{query}"), credential).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// The IDs of the API keys on all pages; `filter` follows `?limit=…`.
    pub async fn all_api_keys(&self, credential: &str, limit: usize, filter: &str) -> Vec<String> {
        let keys = List::new(self, API_KEYS, credential, "api_keys").all(limit, filter).await;
        ids(&Value::from(keys))
    }

    /// Returns the number of active API keys, after checking that plan, list and table agree on it.
    pub async fn active_api_keys(&self, org: &Org, credential: &str) -> u64 {
        let listed = self.all_api_keys(credential, 100, "").await.len() as u64;
        let counted = self.api_keys(credential, "?limit=1").await["plan"]["active_api_keys"].as_u64().unwrap();
        assert_eq!(counted, listed, "plan counter and list disagree");
        let items = self.table.items().await;
        let prefix = format!("ORG#{}#API_KEYS#ACTIVE#", org.id);
        let stored = items.iter().filter(|item| text(item, "pk").starts_with(&prefix)).count() as u64;
        assert_eq!(counted, stored, "plan counter and table disagree");
        counted
    }

    /// Creates an organization access token through the service.
    pub async fn access_token(&self, owner: &Bot, body: &Value) -> AccessToken {
        let answer = self.post(ACCESS_TOKENS, &owner.credential, body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let body = answer.json();
        AccessToken { id: body["id"].as_u64().unwrap(), token: text(&body, "token").to_owned() }
    }

    /// Lists organization access tokens through the service.
    pub async fn access_tokens(&self, owner: &Bot) -> Vec<Value> {
        let answer = self.call(Method::GET, ACCESS_TOKENS, &owner.credential).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json().as_array().unwrap().clone()
    }

    /// Adds projects to an organization, like `guardctl`.
    pub async fn projects(&self, org: &Org, names: &[&str]) {
        for name in names {
            assert!(self.store.add_project(&org.id, name, &operator()).await.unwrap());
        }
    }

    /// Creates an email-verified token without sending a mail.
    pub async fn email_token(&self, email: &str) -> String {
        let address = EmailAddress::try_from(email.to_owned()).unwrap();
        match self.store.register(&address, None, &operator()).await.unwrap() {
            Registration::Welcome { token, .. } => token.expose().to_owned(),
            _ => panic!("the address already has a token"),
        }
    }

    /// Calls `GET /v1/whoami`.
    pub async fn whoami(&self, credential: &str) -> Answer {
        self.call(Method::GET, "/v1/whoami", credential).await
    }

    /// Introspects a token through the service.
    pub async fn introspect(&self, bot: &Bot, body: &Value) -> Value {
        let answer = self.post(INTROSPECT, &bot.credential, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// Reads an organization's installation log; `query` is empty or starts with `?`.
    pub async fn installations(&self, org: &Org, credential: &str, query: &str) -> Value {
        let answer = self.call(Method::GET, &org.installations(query), credential).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// Reads an organization's audit log; `query` is empty or starts with `?`.
    pub async fn audit_log(&self, org: &Org, credential: &str, query: &str) -> Value {
        let answer = self.call(Method::GET, &org.audit_log(query), credential).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }
}

impl Org {
    /// The path of its installation log, plus `rest`.
    pub fn installations(&self, rest: &str) -> String {
        format!("/v1/o/{}/guard/installations{rest}", self.id)
    }

    /// The path of its audit log, plus `rest`.
    pub fn audit_log(&self, rest: &str) -> String {
        format!("/v1/o/{}/audit-log{rest}", self.id)
    }
}
