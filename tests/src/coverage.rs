//! The coverage table: how to call each operation, and which credentials it must refuse.
//!
//! A new operation needs an entry here; `auth_coverage.rs` fails without it. The tests that apply
//! to every operation (credentials, OpenAPI document, logs, faults) iterate over this table.

use std::sync::LazyLock;
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use shared::Moment;
use shared::domain::{Scope, UserIdentifier};
use shared::email::EmailAddress;
use shared::extract::{MAX_BODY, MAX_REPORT, MAX_SCIM};
use shared::ids::{BotId, OrgId};
use shared::permissions::{Operation, Role};
use shared::person::Person;
use shared::secret::{Token, TokenKind};
use shared::store::email_tokens::Registration;
use shared::store::members::Authority;
use shared::store::org_user_tokens;
use shared::store::scim_users::{NewScimUser, ScimChange};
use shared::store::tokens::OrgUserToken;

use crate::console::person;
use crate::issuer::FakeIssuer;
use crate::management::{AccessToken, ApiKey};
use crate::scanner::{CURRENT, SCANNED, scanned};
use crate::{Answer, Bot, Issued, Org, Service, operator};

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Anyone; no credential is needed.
    None,
    /// A bot with one of the roles of the operation's rule.
    Bot,
    /// A bot with one of the rule's roles, or an API key with the rule's scope.
    Manager,
    /// The holder of an email-verified token.
    EmailHolder,
    /// The holder of an email-verified or org user token, sent as `Bearer` or `Basic`. The
    /// registries have their own error format, so `registries.rs` tests them separately.
    Registry,
    /// The holder of any active credential, as checked by the authorizer.
    Authorizer,
    /// The holder of any active credential, for itself.
    Holder,
    /// GitHub, which signs the body. No credential is sent.
    Signed,
    /// A person with a session: a page of the console, or a step of signing in. Pages are not in the
    /// OpenAPI document, and the tests of the console call them.
    Console,
    /// Only API Gateway; the operation has no route.
    Gateway,
    /// Nobody: it runs on a schedule and has no route.
    Schedule,
}

impl Guard {
    /// Whether the operation has a route.
    pub fn has_route(self) -> bool {
        !matches!(self, Guard::Gateway | Guard::Schedule)
    }
}

/// An operation and how to call it successfully.
#[derive(Debug)]
pub struct Covered {
    /// The operation.
    pub operation: Operation,
    /// Who may call it.
    pub guard: Guard,
    /// Its method.
    pub method: Method,
    /// Its path as in the OpenAPI document; empty if it has no route.
    pub path: &'static str,
    /// Creates a valid request body, if the operation takes one.
    pub body: Option<fn(&Fixtures) -> Value>,
    /// The status of a successful response.
    pub success: u16,
}

const fn covered(
    operation: Operation,
    guard: Guard,
    method: Method,
    path: &'static str,
    body: Option<fn(&Fixtures) -> Value>,
    success: u16,
) -> Covered {
    Covered { operation, guard, method, path, body, success }
}

/// Every operation, in the order of [`Operation::ALL`]. An operation with two methods has two
/// entries.
pub const COVERED: &[Covered] = &[
    covered(Operation::DocsOpenapi, Guard::None, Method::GET, "/v1/docs/openapi.json", None, 200),
    covered(Operation::DocsOpenapi, Guard::None, Method::HEAD, "/v1/docs/openapi.json", None, 200),
    covered(Operation::DocsNotFound, Guard::None, Method::GET, "/v1/no-such-route", None, 404),
    covered(
        Operation::ApiKeysCreate,
        Guard::Manager,
        Method::POST,
        "/v1/api-keys",
        Some(|_| json!({"name": "ci", "environment": "test", "scopes": ["fleet:read"], "expires_at": null})),
        201,
    ),
    covered(Operation::ApiKeysList, Guard::Manager, Method::GET, "/v1/api-keys", None, 200),
    covered(
        Operation::ApiKeysRotate,
        Guard::Manager,
        Method::POST,
        "/v1/api-keys/{id}/rotate",
        Some(|_| json!({"overlap": "1h", "until_first_use": true})),
        201,
    ),
    covered(Operation::ApiKeysRevoke, Guard::Manager, Method::DELETE, "/v1/api-keys/{id}", None, 204),
    covered(Operation::AuditLogList, Guard::Manager, Method::GET, "/v1/o/{org_id}/audit-log", None, 200),
    covered(
        Operation::BotsExchange,
        Guard::None,
        Method::POST,
        "/bots/exchange",
        Some(|fixtures| json!({"bot_id": fixtures.owner.id.as_str(), "id_token": fixtures.id_token()})),
        200,
    ),
    covered(
        Operation::BotsRotateKey,
        Guard::Bot,
        Method::POST,
        "/v1/o/{org_id}/bots/{bot_id}/rotate-key",
        Some(|_| json!({"overlap": "1h", "until_first_use": true})),
        201,
    ),
    covered(Operation::InstallationsList, Guard::Bot, Method::GET, "/v1/o/{org_id}/guard/installations", None, 200),
    covered(Operation::RegistryNpm, Guard::Registry, Method::GET, "/npm/{package}", None, 200),
    covered(Operation::RegistryNpm, Guard::Registry, Method::GET, "/npm/{package}/-/{file}", None, 302),
    covered(Operation::RegistryNpmLogout, Guard::Registry, Method::DELETE, "/npm/-/user/token/{token}", None, 200),
    covered(Operation::RegistryPypi, Guard::Registry, Method::GET, "/pypi/simple/{project}/", None, 200),
    covered(Operation::RegistryPypi, Guard::Registry, Method::GET, "/pypi/files/{project}/{file}", None, 302),
    covered(Operation::OrgAccessTokensList, Guard::Bot, Method::GET, "/api/v2/organization/tokens/", None, 200),
    covered(
        Operation::OrgAccessTokensCreate,
        Guard::Bot,
        Method::POST,
        "/api/v2/organization/tokens/",
        Some(|fixtures| json!({"name": format!("beside-{}", fixtures.access_token.id)})),
        201,
    ),
    covered(
        Operation::OrgAccessTokensUpdate,
        Guard::Bot,
        Method::PUT,
        "/api/v2/organization/tokens/{token_id}/",
        Some(|_| json!({"name": "replaced", "access_config": {"role": "readonly"}})),
        200,
    ),
    covered(
        Operation::OrgAccessTokensUpdate,
        Guard::Bot,
        Method::PATCH,
        "/api/v2/organization/tokens/{token_id}/",
        Some(|_| json!({"name": "merged"})),
        200,
    ),
    covered(
        Operation::OrgAccessTokensDelete,
        Guard::Bot,
        Method::DELETE,
        "/api/v2/organization/tokens/{token_id}/",
        None,
        204,
    ),
    covered(
        Operation::TokensIntrospect,
        Guard::Bot,
        Method::POST,
        "/v1/tokens/introspect",
        Some(|fixtures| json!({"token": fixtures.token.token})),
        200,
    ),
    covered(Operation::TokensAuthorize, Guard::Gateway, Method::POST, "", None, 200),
    covered(
        Operation::TokensLeaked,
        Guard::None,
        Method::POST,
        "/v1/tokens/leaked",
        Some(|fixtures| json!({"tokens": [{"token": fixtures.leaked, "url": "https://example.com/a"}]})),
        202,
    ),
    covered(Operation::TokensRevokeSelf, Guard::Holder, Method::DELETE, "/v1/tokens/self", None, 204),
    covered(Operation::TokensEndUnused, Guard::Schedule, Method::POST, "", None, 200),
    covered(Operation::IntegrationsGithubSecretScanning, Guard::Signed, Method::POST, SCANNED, None, 200),
    covered(Operation::TokensWhoami, Guard::Authorizer, Method::GET, "/v1/whoami", None, 200),
    covered(
        Operation::EmailTokensRegister,
        Guard::None,
        Method::POST,
        "/api/v1/tokens",
        Some(|fixtures| json!({"email": format!("else-{}", fixtures.email), "language": "ja"})),
        202,
    ),
    covered(Operation::EmailTokensStatus, Guard::EmailHolder, Method::GET, "/api/v1/tokens/status", None, 200),
    covered(Operation::EmailTokensRegenerate, Guard::EmailHolder, Method::POST, "/api/v1/tokens/regenerate", None, 200),
    covered(
        Operation::EmailTokensReset,
        Guard::None,
        Method::POST,
        "/api/v1/tokens/reset",
        Some(|fixtures| json!({"email": fixtures.email, "code": fixtures.reset_code})),
        200,
    ),
    covered(Operation::EmailTokensRevoke, Guard::EmailHolder, Method::DELETE, "/api/v1/tokens", None, 204),
    covered(Operation::EmailTokensErase, Guard::Schedule, Method::POST, "", None, 200),
    covered(Operation::LeaksSend, Guard::Schedule, Method::POST, "", None, 200),
    covered(Operation::RemindersSend, Guard::Schedule, Method::POST, "", None, 200),
    covered(
        Operation::OrgUserTokensIssue,
        Guard::Bot,
        Method::POST,
        "/v1/o/{org_id}/guard/org-user-tokens",
        Some(|_| json!({"user_identifier": "bobby-laptop", "expires_at": "2099-12-31T23:59:59Z"})),
        201,
    ),
    covered(Operation::OrgUserTokensList, Guard::Bot, Method::GET, "/v1/o/{org_id}/guard/org-user-tokens", None, 200),
    covered(
        Operation::OrgUserTokensRotate,
        Guard::Bot,
        Method::POST,
        "/v1/o/{org_id}/guard/org-user-tokens/by-id/{token_id}/rotate",
        Some(|_| json!({"overlap": "1h", "until_first_use": true})),
        201,
    ),
    covered(
        Operation::OrgUserTokensRevoke,
        Guard::Bot,
        Method::DELETE,
        "/v1/o/{org_id}/guard/org-user-tokens/by-id/{token_id}",
        None,
        204,
    ),
    covered(
        Operation::OrgUserTokensProbe,
        Guard::Bot,
        Method::POST,
        "/v1/o/{org_id}/guard/org-user-tokens/probe",
        Some(|fixtures| json!({"token": fixtures.token.token})),
        200,
    ),
    covered(
        Operation::OrgUserTokensRevokeByUser,
        Guard::Bot,
        Method::POST,
        "/v1/o/{org_id}/guard/org-user-tokens/revoke-by-user",
        Some(|fixtures| json!({"user_identifier": fixtures.token.user_identifier})),
        200,
    ),
    covered(
        Operation::ScimUsersCreate,
        Guard::Bot,
        Method::POST,
        "/scim/v2/Users",
        Some(|fixtures| json!({"userName": format!("new-{}", fixtures.email), "externalId": "00u1", "active": true})),
        201,
    ),
    covered(Operation::ScimUsersGet, Guard::Bot, Method::GET, "/scim/v2/Users/{user_id}", None, 200),
    covered(Operation::ScimUsersList, Guard::Bot, Method::GET, "/scim/v2/Users", None, 200),
    covered(
        Operation::ScimUsersUpdate,
        Guard::Bot,
        Method::PUT,
        "/scim/v2/Users/{user_id}",
        Some(|fixtures| json!({"userName": fixtures.employee.name, "externalId": "00u2", "active": true})),
        200,
    ),
    covered(
        Operation::ScimUsersUpdate,
        Guard::Bot,
        Method::PATCH,
        "/scim/v2/Users/{user_id}",
        Some(|_| json!({"Operations": [{"op": "replace", "value": {"active": false}}]})),
        200,
    ),
    covered(Operation::ScimUsersDelete, Guard::Bot, Method::DELETE, "/scim/v2/Users/{user_id}", None, 204),
    page(Operation::ConsoleAccessTokens, "/console/o/{org_id}/access-tokens"),
    page(Operation::ConsoleAccount, "/console/account"),
    page(Operation::ConsoleApiKeys, "/console/o/{org_id}/api-keys"),
    page(Operation::ConsoleAssets, "/console/assets/{file}"),
    page(Operation::ConsoleAuditLog, "/console/o/{org_id}/audit-log"),
    page(Operation::ConsoleBots, "/console/o/{org_id}/bots"),
    page(Operation::ConsoleInstallations, "/console/o/{org_id}/installations"),
    page(Operation::ConsoleMembers, "/console/o/{org_id}/members"),
    page(Operation::ConsoleMyTokens, "/console/o/{org_id}/my-tokens"),
    page(Operation::ConsoleOrgUserTokens, "/console/o/{org_id}/tokens"),
    page(Operation::ConsoleOverview, "/console/organizations"),
    page(Operation::ConsolePolicies, "/console/o/{org_id}/policies"),
    page(Operation::ConsoleProjects, "/console/o/{org_id}/projects"),
    page(Operation::SignInCallback, "/console/sign-in/callback"),
    page(Operation::SignInCode, "/console/sign-in/code"),
    page(Operation::SignInSignOut, "/console/sign-out"),
    page(Operation::SignInStart, "/console/sign-in"),
];

/// The operations in the OpenAPI document whose errors have a body, except the registries.
pub fn answered() -> impl Iterator<Item = &'static Covered> {
    routed().filter(|covered| covered.success != 404 && covered.method != Method::HEAD)
}

/// The page of a function of the console. The function tells its other paths and its methods apart.
const fn page(operation: Operation, path: &'static str) -> Covered {
    covered(operation, Guard::Console, Method::GET, path, None, 200)
}

/// The operations with a route in the OpenAPI document.
pub fn documented() -> impl Iterator<Item = &'static Covered> {
    COVERED.iter().filter(|covered| covered.guard.has_route() && covered.guard != Guard::Console)
}

/// The operations of the API with a route, except the registries.
pub fn routed() -> impl Iterator<Item = &'static Covered> {
    documented().filter(|covered| covered.guard != Guard::Registry)
}

/// A member whom an identity provider has provisioned.
#[derive(Debug)]
pub struct Employee {
    /// The ID of the SCIM user.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The person.
    pub person: Person,
}

impl Employee {
    /// A new member of this organization with this address.
    async fn create(service: &Service, org: &OrgId, name: &str) -> Self {
        let person = person(name);
        service.join(org, &person, &[Role::Manager]).await;
        let new = NewScimUser { email: person.email.clone(), external_id: None, active: true };
        let created = service.store.create_scim_user(org, &new, Authority::Operator, &operator()).await.unwrap();
        let ScimChange::Done(created) = created else { panic!("{created:?}") };
        Self { id: created.user.id.to_string(), name: name.to_owned(), person }
    }
}

/// Data for calls: an organization with an owner bot and one token of each kind, and an email user
/// with a token and a reset code.
#[derive(Debug)]
pub struct Fixtures {
    /// The organization.
    pub org: Org,
    /// Its owner bot.
    pub owner: Bot,
    /// An org user token.
    pub token: Issued,
    /// An API key with every scope.
    pub api_key: ApiKey,
    /// An organization access token.
    pub access_token: AccessToken,
    /// The email user's address.
    pub email: String,
    /// The email user's token.
    pub email_token: String,
    /// The email user's outstanding reset code.
    pub reset_code: String,
    /// A bot token that acts as the owner bot.
    pub job: String,
    /// A member whom the identity provider has provisioned.
    pub employee: Employee,
    /// Another org user token, which is reported as leaked.
    pub leaked: String,
    /// The issuer that a trust of the owner bot names.
    issuer: FakeIssuer,
}

impl Fixtures {
    /// Creates new fixtures in a new organization.
    pub async fn create(service: &Service) -> Self {
        let (org, owner) = service.org_with_owner().await;
        let identifier = "alice-laptop".to_owned().try_into().unwrap();
        let operator = operator();
        let (token, plain) = issue(service, &org, identifier, None).await;
        let token = Issued {
            id: token.id.to_string(),
            token: plain.expose().to_owned(),
            user_identifier: token.user_identifier.as_str().to_owned(),
        };
        let leaked = "leaked-laptop".to_owned().try_into().unwrap();
        let leaked = issue(service, &org, leaked, None).await.1.expose().to_owned();
        let api_key = service.api_key(&owner.credential, &all_scopes()).await;
        let access_token = service.access_token(&owner, &json!({"name": "device"})).await;
        let email = format!("{}@example.com", org.id.as_str().to_lowercase());
        let address = EmailAddress::try_from(email.clone()).unwrap();
        let register = || service.store.register(&address, None, &operator);
        let (welcome, recovery) = (register().await.unwrap(), register().await.unwrap());
        let (Registration::Welcome { token: email_token, .. }, Registration::Recovery { code, .. }) =
            (welcome, recovery)
        else {
            panic!("expected a welcome mail, then a recovery mail");
        };
        let (email_token, reset_code) = (email_token.expose().to_owned(), code.expose());
        let job = service.job(&owner, &[Role::Owner]).await;
        let employee = Employee::create(service, &org.id, &format!("employee-{email}")).await;
        let issuer = service.issuer.clone();
        Self { org, owner, token, api_key, access_token, email, email_token, reset_code, job, employee, leaked, issuer }
    }

    /// The ID token of a CI job that may act as the owner bot. Always the same job.
    fn id_token(&self) -> String {
        let mut claims = self.issuer.workload();
        claims["jti"] = self.org.id.as_str().into();
        self.issuer.sign(&claims)
    }
}

impl Covered {
    /// The path, filled in from the fixtures.
    pub fn path_with(&self, fixtures: &Fixtures) -> String {
        let number = fixtures.access_token.id.to_string();
        let token_id = if self.path.starts_with("/api/v2/") { &number } else { &fixtures.token.id };
        let path = self.path.replace("{org_id}", fixtures.org.id.as_str());
        // The package that `Registry::with_widgets` serves.
        let path = path.replace("{package}", "widgets").replace("{project}", "widgets");
        let file = match self.operation {
            Operation::RegistryNpm => "widgets-1.0.0.tgz",
            _ => "-/packages/widgets-1.0-py3-none-any.whl",
        };
        let path = path.replace("{file}", file).replace("{bot_id}", fixtures.owner.id.as_str());
        let path = path.replace("{token}", &fixtures.token.token);
        let path = path.replace("{user_id}", &fixtures.employee.id);
        path.replace("{token_id}", token_id).replace("{id}", &fixtures.api_key.id)
    }

    /// Builds a valid request without a credential.
    pub fn request(&self, service: &Service, fixtures: &Fixtures) -> RequestBuilder {
        self.request_in(service, fixtures, fixtures.org.id.as_str())
    }

    /// Builds a valid request with another organization in the path.
    pub fn request_in(&self, service: &Service, fixtures: &Fixtures, org: &str) -> RequestBuilder {
        let path = self.path_with(fixtures).replace(fixtures.org.id.as_str(), org);
        let request = service.request(self.method.clone(), &path);
        match self.body {
            Some(body) => request.json(&body(fixtures)),
            None if self.guard == Guard::Signed => service.signed(&CURRENT, &scanned(&[&fixtures.leaked]).to_string()),
            None => request,
        }
    }

    /// Whether the OpenAPI document lists this status for the operation. The fallback route is not
    /// in the document and always returns 404.
    pub fn is_documented(&self, status: u16) -> bool {
        static DOCUMENT: LazyLock<Value> =
            LazyLock::new(|| serde_json::from_str(include_str!("../../openapi.json")).unwrap());
        let operation = &DOCUMENT["paths"][self.path][self.method.as_str().to_lowercase()];
        match operation["responses"].as_object() {
            Some(responses) => responses.contains_key(&status.to_string()),
            None => status == 404,
        }
    }

    /// Makes a valid call with a credential that has every permission.
    pub async fn call(&self, service: &Service, fixtures: &Fixtures) -> Answer {
        service.send(self.authorized(self.request(service, fixtures), fixtures)).await
    }

    /// Makes a successful call with an idempotency key.
    pub async fn call_once(&self, service: &Service, fixtures: &Fixtures) -> Answer {
        let request = self.authorized(self.request(service, fixtures), fixtures);
        service.send(request.header("Idempotency-Key", "key-1")).await
    }

    /// Adds a credential that has every permission.
    pub fn authorized(&self, request: RequestBuilder, fixtures: &Fixtures) -> RequestBuilder {
        match self.guard {
            Guard::None | Guard::Signed => request,
            _ => request.bearer_auth(self.credential(fixtures)),
        }
    }

    /// Whether it is a call of SCIM, which has its own errors and ignores what it does not know.
    pub fn is_scim(&self) -> bool {
        self.path.starts_with("/scim/")
    }

    /// The largest body that is read, in bytes.
    pub fn max_body(&self) -> usize {
        match self.operation {
            Operation::TokensLeaked => MAX_REPORT,
            _ if self.is_scim() => MAX_SCIM,
            _ => MAX_BODY,
        }
    }

    /// Whether a successful call invalidates its own fixtures, so that the next one needs new ones.
    pub fn consumes_fixtures(&self) -> bool {
        matches!(
            self.operation,
            Operation::BotsExchange
                | Operation::EmailTokensRegenerate
                | Operation::EmailTokensReset
                | Operation::EmailTokensRevoke
                | Operation::OrgAccessTokensCreate
                | Operation::OrgAccessTokensDelete
                | Operation::RegistryNpmLogout
                | Operation::ScimUsersCreate
                | Operation::ScimUsersDelete
                | Operation::TokensRevokeSelf
        )
    }

    /// A credential with every permission for the operation.
    pub fn credential<'a>(&self, fixtures: &'a Fixtures) -> &'a str {
        match self.guard {
            Guard::EmailHolder => &fixtures.email_token,
            Guard::Registry | Guard::Holder => &fixtures.token.token,
            _ => &fixtures.owner.credential,
        }
    }
}

/// The expected refusal of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 401 without `error`, as for a missing credential.
    MissingToken,
    /// 401 with `invalid_token`.
    InvalidToken,
    /// 403 for an active credential without the permission.
    Forbidden,
    /// 403 for an organization without Guard.
    NoSubscription,
}

impl Refusal {
    /// Asserts that the response is this refusal, including the challenge (RFC 6750, section 3).
    #[track_caller]
    pub fn assert(self, answer: &Answer, what: &str) {
        let (status, code, challenge) = match self {
            Refusal::MissingToken => (401, "UNAUTHORIZED", r#"Bearer realm="guard-tokens""#),
            Refusal::InvalidToken => (401, "UNAUTHORIZED", r#"Bearer realm="guard-tokens", error="invalid_token""#),
            Refusal::Forbidden => (403, "FORBIDDEN", ""),
            Refusal::NoSubscription => (403, "SUBSCRIPTION_REQUIRED", ""),
        };
        assert_eq!(answer.status, status, "{what}: {}", answer.text);
        answer.assert_error(status, code);
        assert_eq!(answer.header("www-authenticate"), challenge, "{what}");
        assert_eq!(answer.json()["error"].get("details"), None, "{what}");
    }
}

/// A credential that must be refused.
#[derive(Debug, Clone)]
pub struct InvalidCredential {
    /// Why it is refused.
    pub what: String,
    /// The `Authorization` headers.
    pub headers: Vec<String>,
    /// The organization in the path, if the path has one.
    pub org: OrgId,
    /// The expected refusal.
    pub refusal: Refusal,
}

impl InvalidCredential {
    fn new(what: &str, headers: &[String], fixtures: &Fixtures, refusal: Refusal) -> Self {
        Self { what: what.to_owned(), headers: headers.to_vec(), org: fixtures.org.id.clone(), refusal }
    }

    fn bearer(what: &str, credential: &str, fixtures: &Fixtures, refusal: Refusal) -> Self {
        Self::new(what, &[format!("Bearer {credential}")], fixtures, refusal)
    }

    /// Makes an otherwise valid call with it.
    pub async fn call(&self, covered: &Covered, service: &Service, fixtures: &Fixtures) -> Answer {
        let request = covered.request_in(service, fixtures, self.org.as_str());
        service.send(self.headers.iter().fold(request, |request, value| request.header("authorization", value))).await
    }
}

/// The text of every scope.
pub fn all_scopes() -> Vec<&'static str> {
    Scope::ALL.iter().copied().map(Scope::as_str).collect()
}

/// A well-formed token of this kind that was never issued.
pub fn unknown_token(kind: TokenKind) -> String {
    Token::generate(kind).unwrap().expose().to_owned()
}

/// The text with its last character changed, so that the checksum no longer matches.
pub fn mistyped(text: &str) -> String {
    let (rest, last) = text.split_at(text.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}

/// Every credential that some operation must refuse, created once for all operations.
#[derive(Debug)]
pub struct InvalidCredentials<'a> {
    fixtures: &'a Fixtures,
    /// Refused by every operation.
    always_refused: Vec<InvalidCredential>,
    /// A bot with each role, and one without roles.
    bots: Vec<(Option<Role>, Bot)>,
    /// A CI job with each of these roles, and one without roles.
    jobs: Vec<(Option<Role>, String)>,
    /// For each scope, an API key with all other scopes.
    keys: Vec<(Scope, ApiKey)>,
    /// Another organization and its owner bot.
    foreign: (Org, Bot),
    /// A CI job that acts as that bot.
    foreign_job: String,
    /// An organization with Guard disabled and its owner bot.
    without_guard: (Org, Bot),
    /// An organization that does not exist.
    unknown_org: Org,
}

impl<'a> InvalidCredentials<'a> {
    /// Creates them in the organization of the fixtures and in others.
    pub async fn create(service: &Service, fixtures: &'a Fixtures) -> Self {
        let mut always_refused = malformed_credentials(fixtures);
        always_refused.extend(inactive_tokens(service, fixtures).await);
        always_refused.extend(invalid_bot_credentials(service, fixtures).await);
        let mut bots = vec![(None, service.bot(&fixtures.org, &[]).await)];
        for &role in Role::ALL {
            bots.push((Some(role), service.bot(&fixtures.org, &[role]).await));
        }
        // Each acts as a bot that has every role.
        let everything: Vec<Role> = Role::ALL.iter().copied().filter(|role| role.is_for_bots()).collect();
        let job = async |roles: &[Role]| service.job(&service.bot(&fixtures.org, &everything).await, roles).await;
        let mut jobs = vec![(None, job(&[]).await)];
        for &role in &everything {
            jobs.push((Some(role), job(&[role]).await));
        }
        let mut keys = Vec::new();
        for &scope in Scope::ALL {
            let others = Scope::ALL.iter().copied().filter(|other| *other != scope).map(Scope::as_str);
            keys.push((scope, service.api_key(&fixtures.owner.credential, &others.collect::<Vec<_>>()).await));
        }
        let (foreign, without_guard) = (service.org_with_owner().await, service.org_with_owner().await);
        service.set_guard(&without_guard.0.id, false).await;
        let foreign_job = service.job(&foreign.1, &[Role::Owner]).await;
        let unknown_org = Org { id: OrgId::new(&service.clock).unwrap() };
        Self { fixtures, always_refused, bots, jobs, keys, foreign, foreign_job, without_guard, unknown_org }
    }

    /// Every credential that this operation must refuse.
    pub fn for_operation(&self, covered: &Covered) -> Vec<InvalidCredential> {
        let (guard, rule, fixtures) = (covered.guard, covered.operation.rule(), self.fixtures);
        if matches!(guard, Guard::None | Guard::Signed) || !guard.has_route() {
            return Vec::new();
        }
        let mut invalid = self.always_refused.clone();
        let mut refuse = |what: &str, org: &Org, credential: &str, refusal: Refusal| {
            invalid.push(InvalidCredential {
                org: org.id.clone(),
                ..InvalidCredential::bearer(what, credential, fixtures, refusal)
            });
        };
        let (own, credential) = (&fixtures.org, &fixtures.owner.credential);
        if !matches!(guard, Guard::Authorizer | Guard::Holder) {
            for (what, token, is_wrong) in [
                ("a bot", credential, rule.roles.is_empty()),
                ("a bot token", &fixtures.job, rule.makes_bot_keys || rule.roles.is_empty() && !rule.registry_tokens),
                ("an API key", &fixtures.api_key.key, rule.scope.is_none()),
                ("an organization access token", &fixtures.access_token.token, true),
                ("an org user token", &fixtures.token.token, !rule.registry_tokens),
                ("an email-verified token", &fixtures.email_token, !rule.email_tokens && !rule.registry_tokens),
            ] {
                if is_wrong {
                    refuse(what, own, token, Refusal::Forbidden);
                }
            }
        }
        if matches!(guard, Guard::Bot | Guard::Manager) {
            for (role, bot) in self.bots.iter().filter(|(role, _)| role.is_none_or(|role| !rule.roles.contains(&role)))
            {
                refuse(&format!("a bot with the role {role:?}"), own, &bot.credential, Refusal::Forbidden);
            }
            for (role, job) in self.jobs.iter().filter(|(role, _)| role.is_none_or(|role| !rule.roles.contains(&role)))
            {
                refuse(&format!("a CI job with the role {role:?}"), own, job, Refusal::Forbidden);
            }
            for (scope, key) in self.keys.iter().filter(|(scope, _)| rule.scope == Some(*scope)) {
                refuse(&format!("an API key without {scope:?}"), own, &key.key, Refusal::Forbidden);
            }
            if covered.path.contains("{org_id}") {
                refuse("another organization's bot", own, &self.foreign.1.credential, Refusal::Forbidden);
                refuse("another organization's CI job", own, &self.foreign_job, Refusal::Forbidden);
                refuse(OTHER_ORG, &self.foreign.0, credential, Refusal::Forbidden);
                refuse(UNKNOWN_ORG, &self.unknown_org, credential, Refusal::Forbidden);
                // Does not reveal whether another organization has Guard.
                refuse(OTHER_ORG_WITHOUT_GUARD, &self.without_guard.0, credential, Refusal::Forbidden);
            }
            if rule.needs_subscription {
                refuse(
                    "Guard is off",
                    &self.without_guard.0,
                    &self.without_guard.1.credential,
                    Refusal::NoSubscription,
                );
            }
        }
        invalid
    }
}

/// An active credential with another organization in the path.
pub const OTHER_ORG: &str = "another organization";
/// An active credential with an unknown organization in the path.
pub const UNKNOWN_ORG: &str = "an organization that does not exist";
/// An active credential with another organization in the path that has Guard disabled.
pub const OTHER_ORG_WITHOUT_GUARD: &str = "another organization without Guard";

/// Missing, malformed and unknown credentials.
fn malformed_credentials(fixtures: &Fixtures) -> Vec<InvalidCredential> {
    let good = &fixtures.owner.credential;
    let (key, id) = good.split_once(':').unwrap();
    let mut invalid: Vec<InvalidCredential> = [
        ("no header", &[][..], Refusal::MissingToken),
        ("another scheme", &["Basic dG9rZW46eA==".to_owned()], Refusal::MissingToken),
        ("a good credential in another scheme", &[format!("Token {good}")], Refusal::MissingToken),
        ("no scheme", std::slice::from_ref(good), Refusal::MissingToken),
        ("only a scheme", &["Bearer".to_owned()], Refusal::InvalidToken),
        ("two good credentials", &[format!("Bearer {good}"), format!("Bearer {good}")], Refusal::InvalidToken),
    ]
    .map(|(what, headers, refusal)| InvalidCredential::new(what, headers, fixtures, refusal))
    .into();
    for (what, credential) in [
        ("malformed", "hunter2".to_owned()),
        ("a key without a bot ID", key.to_owned()),
        ("a key with an empty bot ID", format!("{key}:")),
        ("a bot ID without a key", format!(":{id}")),
        ("key and ID swapped", format!("{id}:{key}")),
        ("a wrong checksum", format!("{}:{id}", mistyped(key))),
        ("a truncated key", format!("{}:{id}", &key[..key.len() - 1])),
        ("an unknown key", format!("{}:{id}", unknown_token(TokenKind::BotApiKey))),
        ("an unknown bot", format!("{key}:{}", BotId::new(&shared::Clock::System).unwrap())),
        ("a malformed bot ID", format!("{key}:{}", id.to_lowercase())),
        ("trailing text", format!("{good} x")),
        ("a token as a bot's key", format!("{}:{id}", fixtures.token.token)),
        ("an org user token with a wrong checksum", mistyped(&fixtures.token.token)),
    ] {
        invalid.push(InvalidCredential::bearer(what, &credential, fixtures, Refusal::InvalidToken));
    }
    for kind in TokenKind::ALL {
        invalid.push(InvalidCredential::bearer(
            &format!("an unknown {kind:?}"),
            &unknown_token(kind),
            fixtures,
            Refusal::InvalidToken,
        ));
    }
    invalid
}

/// Credentials of deleted and rotated bots, and a key with the ID of another bot.
async fn invalid_bot_credentials(service: &Service, fixtures: &Fixtures) -> Vec<InvalidCredential> {
    let bot = async || service.bot(&fixtures.org, &[Role::Owner]).await;
    let (other, deleted, rotated) = (bot().await, bot().await, bot().await);
    assert!(service.store.delete_bot(&deleted.id, &operator()).await.unwrap());
    service.store.rotate_bot_key(&rotated.id, None, &operator()).await.unwrap().unwrap();
    let (key, _) = fixtures.owner.credential.split_once(':').unwrap();
    [
        ("the id of another bot", &format!("{key}:{}", other.id)),
        ("a deleted bot", &deleted.credential),
        ("a rotated key", &rotated.credential),
    ]
    .map(|(what, credential)| InvalidCredential::bearer(what, credential, fixtures, Refusal::InvalidToken))
    .into()
}

/// Issues an org user token through the store, since the endpoint refuses an expiry in the past.
async fn issue(
    service: &Service,
    org: &Org,
    identifier: UserIdentifier,
    expires_at: Option<Moment>,
) -> (Box<OrgUserToken>, Token) {
    let operator = operator();
    let issued = service.store.issue_org_user_token(&org.id, identifier, expires_at, &operator, None);
    match issued.await.unwrap() {
        org_user_tokens::Issued::Done(token, plain) => (token, plain),
        org_user_tokens::Issued::Repeated(repeat) => panic!("{repeat:?}"),
    }
}

/// Inactive tokens of every kind.
async fn inactive_tokens(service: &Service, fixtures: &Fixtures) -> Vec<InvalidCredential> {
    let owner = &fixtures.owner;
    let issue = async |expires_at| {
        let identifier = "carol-laptop".to_owned().try_into().unwrap();
        issue(service, &fixtures.org, identifier, expires_at).await
    };
    let ((revoked_token, revoked), (_, expired)) = (issue(None).await, issue(Some(service.clock.now())).await);
    service.store.revoke_org_user_token(&fixtures.org.id, &revoked_token.id, &operator()).await.unwrap();

    let revoked_key = service.api_key(&owner.credential, &["org:read"]).await;
    service.revoke_api_key(&owner.credential, &revoked_key.id).await;

    let make = async || service.access_token(owner, &json!({"name": unknown_token(TokenKind::OrgAccess)})).await;
    let (deleted, switched_off) = (make().await, make().await);
    assert_eq!(service.call(Method::DELETE, &deleted.path(), &owner.credential).await.status, 204);
    let off = json!({"is_active": false});
    let answer = service.send_json(Method::PATCH, &switched_off.path(), &owner.credential, &off).await;
    assert_eq!(answer.status, 200, "{}", answer.text);

    let email = format!("carol-{}@example.com", unknown_token(TokenKind::OrgAccess));
    let regenerated = service.email_token(&email).await;
    let answer = service.call(Method::POST, "/api/v1/tokens/regenerate", &regenerated).await;
    let revoked_email = answer.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(service.call(Method::DELETE, "/api/v1/tokens", &revoked_email).await.status, 204);

    let bot = async || service.bot(&fixtures.org, &[Role::Owner]).await;
    let day = Duration::from_secs(24 * 60 * 60);
    let by_removed_trust = bot().await;
    let trust = service.trust(&by_removed_trust, &[Role::Owner]).await;
    let (expired_job, revoked_job, untrusted_job) = (
        service.job_by(&by_removed_trust, &trust, Duration::ZERO).await,
        service.job_by(&by_removed_trust, &trust, day).await,
        service.job_by(&by_removed_trust, &trust, day).await,
    );
    let stored = service.store.token(&revoked_job).await.unwrap().unwrap();
    assert!(service.store.revoke_own_token(&stored, revoked_job.hash(), &operator()).await.unwrap());
    service.remove_trust(&by_removed_trust, &trust.id).await;
    let (deleted_bot, ended_bot) = (bot().await, bot().await);
    let job_of_deleted = service.job(&deleted_bot, &[Role::Owner]).await;
    assert!(service.store.delete_bot(&deleted_bot.id, &operator()).await.unwrap());
    let ended_job = service.job(&ended_bot, &[Role::Owner]).await;
    service.store.end_bot_tokens(Authority::Operator, &ended_bot.id, &operator()).await.unwrap();

    [
        ("an expired bot token", expired_job.expose()),
        ("a revoked bot token", revoked_job.expose()),
        ("a bot token of a removed trust", untrusted_job.expose()),
        ("a bot token of a deleted bot", &job_of_deleted),
        ("a bot token that its bot's owner ended", &ended_job),
        ("a revoked org user token", revoked.expose()),
        ("an expired org user token", expired.expose()),
        ("a revoked API key", &revoked_key.key),
        ("a deleted organization access token", &deleted.token),
        ("a disabled organization access token", &switched_off.token),
        ("a regenerated email-verified token", &regenerated),
        ("a revoked email-verified token", &revoked_email),
    ]
    .map(|(what, token)| InvalidCredential::bearer(what, token, fixtures, Refusal::InvalidToken))
    .into()
}
