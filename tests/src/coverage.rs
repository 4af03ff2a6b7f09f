//! How each operation is called, and with which credentials it must not be: one entry an operation.
//!
//! Whoever adds an operation adds an entry here; `auth_coverage.rs` fails until it is there. The tests that hold for all
//! operations, of credentials, of the OpenAPI document, of logs, of failures, read this table.

use std::sync::LazyLock;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use shared::domain::Scope;
use shared::email::EmailAddress;
use shared::ids::{BotId, OrgId};
use shared::principal::{Operation, Role};
use shared::secret::{Token, TokenKind};
use shared::store::email_tokens::Registration;

use crate::management::{AccessToken, ApiKey};
use crate::{Answer, Bot, Issued, Org, Service, operator};

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Everybody: nobody is asked who they are.
    None,
    /// A bot with one of the roles of the operation's rule.
    Bot,
    /// Such a bot, or an API key with the rule's scope.
    Manager,
    /// The holder of an e-mail-verified token.
    EmailHolder,
    /// The holder of an e-mail-verified or an org user token, by `Basic` too: the registries, whose errors have a form of
    /// their own. `tests/registries.rs` has what holds for all operations elsewhere.
    Registry,
    /// Whoever the authorizer lets in: the holder of any credential that counts.
    Authorizer,
    /// It has no route: API Gateway alone calls it.
    Gateway,
}

/// An operation, and a good call of it.
#[derive(Debug)]
pub struct Covered {
    /// The operation.
    pub operation: Operation,
    /// Who may call it.
    pub guard: Guard,
    /// Its method.
    pub method: Method,
    /// Its path, as the OpenAPI document writes it; nothing where it has no route.
    pub path: &'static str,
    /// Makes the body of a good call, if it takes one.
    pub body: Option<fn(&Stage) -> Value>,
    /// The status that a good call is answered with.
    pub success: u16,
}

const fn covered(
    operation: Operation,
    guard: Guard,
    method: Method,
    path: &'static str,
    body: Option<fn(&Stage) -> Value>,
    success: u16,
) -> Covered {
    Covered { operation, guard, method, path, body, success }
}

/// Every operation, in the order of [`Operation::ALL`]; one that takes two methods has two entries.
pub const COVERED: &[Covered] = &[
    covered(Operation::DocsOpenapi, Guard::None, Method::GET, "/v1/docs/openapi.json", None, 200),
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
    covered(Operation::ApiKeysRevoke, Guard::Manager, Method::DELETE, "/v1/api-keys/{id}", None, 204),
    covered(Operation::AuditLogList, Guard::Manager, Method::GET, "/v1/o/{org_id}/audit-log", None, 200),
    covered(Operation::InstallationsList, Guard::Bot, Method::GET, "/v1/o/{org_id}/guard/installations", None, 200),
    covered(Operation::RegistryNpm, Guard::Registry, Method::GET, "/npm/{package}", None, 200),
    covered(Operation::RegistryNpm, Guard::Registry, Method::GET, "/npm/{package}/-/{file}", None, 302),
    covered(Operation::RegistryPypi, Guard::Registry, Method::GET, "/pypi/simple/{project}/", None, 200),
    covered(Operation::RegistryPypi, Guard::Registry, Method::GET, "/pypi/files/{project}/{file}", None, 302),
    covered(Operation::OrgAccessTokensList, Guard::Bot, Method::GET, "/api/v2/organization/tokens/", None, 200),
    covered(
        Operation::OrgAccessTokensCreate,
        Guard::Bot,
        Method::POST,
        "/api/v2/organization/tokens/",
        Some(|stage| json!({"name": format!("beside-{}", stage.access_token.id)})),
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
        Some(|stage| json!({"token": stage.token.token})),
        200,
    ),
    covered(Operation::TokensAuthorize, Guard::Gateway, Method::POST, "", None, 200),
    covered(Operation::TokensWhoami, Guard::Authorizer, Method::GET, "/v1/whoami", None, 200),
    covered(
        Operation::EmailTokensRegister,
        Guard::None,
        Method::POST,
        "/api/v1/tokens",
        Some(|stage| json!({"email": format!("else-{}", stage.email), "language": "ja"})),
        202,
    ),
    covered(Operation::EmailTokensStatus, Guard::EmailHolder, Method::GET, "/api/v1/tokens/status", None, 200),
    covered(Operation::EmailTokensRegenerate, Guard::EmailHolder, Method::POST, "/api/v1/tokens/regenerate", None, 200),
    covered(
        Operation::EmailTokensReset,
        Guard::None,
        Method::POST,
        "/api/v1/tokens/reset",
        Some(|stage| json!({"email": stage.email, "code": stage.reset_code})),
        200,
    ),
    covered(Operation::EmailTokensRevoke, Guard::EmailHolder, Method::DELETE, "/api/v1/tokens", None, 204),
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
        Some(|stage| json!({"token": stage.token.token})),
        200,
    ),
    covered(
        Operation::OrgUserTokensRevokeByUser,
        Guard::Bot,
        Method::POST,
        "/v1/o/{org_id}/guard/org-user-tokens/revoke-by-user",
        Some(|stage| json!({"user_identifier": stage.token.user_identifier})),
        200,
    ),
];

/// The operations that have a route, and so can be called over HTTP; but for the registries.
pub fn routed() -> impl Iterator<Item = &'static Covered> {
    COVERED.iter().filter(|covered| !matches!(covered.guard, Guard::Gateway | Guard::Registry))
}

/// What calls are made on: an organization with an owner and a token of each kind, and a person with a token and a code.
#[derive(Debug)]
pub struct Stage {
    /// The organization.
    pub org: Org,
    /// Its owner.
    pub owner: Bot,
    /// One of its user tokens.
    pub token: Issued,
    /// One of its API keys, which may do everything that one may.
    pub api_key: ApiKey,
    /// One of its access tokens.
    pub access_token: AccessToken,
    /// A person's address.
    pub email: String,
    /// The person's token.
    pub email_token: String,
    /// A code that the person was mailed.
    pub reset_code: String,
}

impl Stage {
    /// Sets a new stage.
    pub async fn set(service: &Service) -> Self {
        let (org, owner) = service.org_with_owner().await;
        let identifier = "alice-laptop".to_owned().try_into().unwrap();
        let operator = operator();
        let issued = service.store.issue_org_user_token(&org.id, &owner.id, identifier, None, &operator);
        let (token, plain) = issued.await.unwrap();
        let token = Issued {
            id: token.id.to_string(),
            token: plain.expose().to_owned(),
            user_identifier: token.user_identifier.as_str().to_owned(),
        };
        let api_key = service.api_key(&owner.credential, &Scope::ALL.map(Scope::as_str)).await;
        let access_token = service.access_token(&owner, &json!({"name": "device"})).await;
        let email = format!("{}@example.com", org.id.as_str().to_lowercase());
        let address = EmailAddress::try_from(email.clone()).unwrap();
        let register = || service.store.register(&address, None, &operator);
        let (welcome, recovery) = (register().await.unwrap(), register().await.unwrap());
        let (Registration::Welcome { token: email_token, .. }, Registration::Recovery { code, .. }) =
            (welcome, recovery)
        else {
            panic!("an address is mailed a key, then a code");
        };
        let (email_token, reset_code) = (email_token.expose().to_owned(), code.expose());
        Self { org, owner, token, api_key, access_token, email, email_token, reset_code }
    }
}

impl Covered {
    /// The path with what is on a stage.
    pub fn path_on(&self, stage: &Stage) -> String {
        let number = stage.access_token.id.to_string();
        let token_id = if self.path.starts_with("/api/v2/") { &number } else { &stage.token.id };
        let path = self.path.replace("{org_id}", stage.org.id.as_str());
        // As `Registry::with_widgets` has them.
        let path = path.replace("{package}", "widgets").replace("{project}", "widgets");
        let file = match self.operation {
            Operation::RegistryNpm => "widgets-1.0.0.tgz",
            _ => "-/packages/widgets-1.0-py3-none-any.whl",
        };
        let path = path.replace("{file}", file);
        path.replace("{token_id}", token_id).replace("{id}", &stage.api_key.id)
    }

    /// Begins a good call, as yet without a credential.
    pub fn request(&self, service: &Service, stage: &Stage) -> RequestBuilder {
        self.request_in(service, stage, stage.org.id.as_str())
    }

    /// Begins a good call but for the organization in its path.
    pub fn request_in(&self, service: &Service, stage: &Stage, org: &str) -> RequestBuilder {
        let path = self.path_on(stage).replace(stage.org.id.as_str(), org);
        let request = service.request(self.method.clone(), &path);
        match self.body {
            Some(body) => request.json(&body(stage)),
            None => request,
        }
    }

    /// Whether the OpenAPI document has this status among the operation's. What is no route is not in the document, and 404.
    pub fn is_documented(&self, status: u16) -> bool {
        static DOCUMENT: LazyLock<Value> =
            LazyLock::new(|| serde_json::from_str(include_str!("../../openapi.json")).unwrap());
        let operation = &DOCUMENT["paths"][self.path][self.method.as_str().to_lowercase()];
        match operation["responses"].as_object() {
            Some(responses) => responses.contains_key(&status.to_string()),
            None => status == 404,
        }
    }

    /// Makes a good call with the best credential there is.
    pub async fn call(&self, service: &Service, stage: &Stage) -> Answer {
        service.send(self.authorized(self.request(service, stage), stage)).await
    }

    /// Adds the best credential there is.
    pub fn authorized(&self, request: RequestBuilder, stage: &Stage) -> RequestBuilder {
        match self.guard {
            Guard::None => request,
            _ => request.bearer_auth(self.credential(stage)),
        }
    }

    /// Whether a good call is no good any more once it succeeded: then the next one needs a new stage.
    pub fn uses_up_its_stage(&self) -> bool {
        matches!(
            self.operation,
            Operation::EmailTokensRegenerate
                | Operation::EmailTokensReset
                | Operation::EmailTokensRevoke
                | Operation::OrgAccessTokensCreate
                | Operation::OrgAccessTokensDelete
        )
    }

    /// The best credential there is.
    pub fn credential<'a>(&self, stage: &'a Stage) -> &'a str {
        match self.guard {
            Guard::EmailHolder => &stage.email_token,
            Guard::Registry => &stage.token.token,
            _ => &stage.owner.credential,
        }
    }
}

/// How a credential is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 401 as if none had been sent.
    NoneSent,
    /// 401 for one that does not count.
    NotGood,
    /// 403 for one that is good for other things.
    Forbidden,
    /// 403 for an organization without Guard.
    NoSubscription,
}

impl Refusal {
    /// Checks that an answer is this refusal, down to its challenge (RFC 6750, section 3).
    #[track_caller]
    pub fn assert(self, answer: &Answer, what: &str) {
        let (status, code, challenge) = match self {
            Refusal::NoneSent => (401, "UNAUTHORIZED", r#"Bearer realm="guard-tokens""#),
            Refusal::NotGood => (401, "UNAUTHORIZED", r#"Bearer realm="guard-tokens", error="invalid_token""#),
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
pub struct Wrong {
    /// What is wrong with it.
    pub what: String,
    /// The `Authorization` headers.
    pub headers: Vec<String>,
    /// The organization in the path, where the path has one.
    pub org: OrgId,
    /// How it is refused.
    pub refusal: Refusal,
}

impl Wrong {
    fn new(what: &str, headers: &[String], stage: &Stage, refusal: Refusal) -> Self {
        Self { what: what.to_owned(), headers: headers.to_vec(), org: stage.org.id.clone(), refusal }
    }

    fn bearer(what: &str, credential: &str, stage: &Stage, refusal: Refusal) -> Self {
        Self::new(what, &[format!("Bearer {credential}")], stage, refusal)
    }

    /// Makes an otherwise good call with it.
    pub async fn call(&self, covered: &Covered, service: &Service, stage: &Stage) -> Answer {
        let request = covered.request_in(service, stage, self.org.as_str());
        service.send(self.headers.iter().fold(request, |request, value| request.header("authorization", value))).await
    }
}

/// A secret of this kind that nobody was given.
pub fn made_up(kind: TokenKind) -> String {
    Token::generate(kind).unwrap().expose().to_owned()
}

/// The same text with another last character.
pub fn mistyped(text: &str) -> String {
    let (rest, last) = text.split_at(text.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}

/// Everybody who must be refused somewhere, gathered once for all operations.
#[derive(Debug)]
pub struct Cast<'a> {
    stage: &'a Stage,
    /// What is refused everywhere.
    dead: Vec<Wrong>,
    /// A bot with each role, and one with none.
    bots: Vec<(Option<Role>, Bot)>,
    /// An API key with all scopes but each.
    keys: Vec<(Scope, ApiKey)>,
    /// Another organization and its owner.
    foreign: (Org, Bot),
    /// An organization without Guard and its owner.
    poor: (Org, Bot),
    /// An id that no organization has.
    nowhere: Org,
}

impl<'a> Cast<'a> {
    /// Gathers them around a stage.
    pub async fn gather(service: &Service, stage: &'a Stage) -> Self {
        let mut dead = not_credentials(stage);
        dead.extend(dead_tokens(service, stage).await);
        dead.extend(dead_bots(service, stage).await);
        let mut bots = vec![(None, service.bot(&stage.org, &[]).await)];
        for role in Role::ALL {
            bots.push((Some(role), service.bot(&stage.org, &[role]).await));
        }
        let mut keys = Vec::new();
        for scope in Scope::ALL {
            let others = Scope::ALL.into_iter().filter(|other| *other != scope).map(Scope::as_str);
            keys.push((scope, service.api_key(&stage.owner.credential, &others.collect::<Vec<_>>()).await));
        }
        let (foreign, poor) = (service.org_with_owner().await, service.org_with_owner().await);
        service.store.set_org(&poor.0.id, None, Some(false), &operator()).await.unwrap().unwrap();
        let nowhere = Org { id: OrgId::new(&service.clock).unwrap() };
        Self { stage, dead, bots, keys, foreign, poor, nowhere }
    }

    /// Every credential that this operation must refuse.
    pub fn against(&self, covered: &Covered) -> Vec<Wrong> {
        let (guard, rule, stage) = (covered.guard, covered.operation.rule(), self.stage);
        if matches!(guard, Guard::None | Guard::Gateway) {
            return Vec::new();
        }
        let mut wrong = self.dead.clone();
        let mut refuse = |what: &str, org: &Org, credential: &str, refusal: Refusal| {
            wrong.push(Wrong { org: org.id.clone(), ..Wrong::bearer(what, credential, stage, refusal) });
        };
        let (own, credential) = (&stage.org, &stage.owner.credential);
        if guard != Guard::Authorizer {
            for (what, token, is_wrong) in [
                ("a bot", credential, rule.roles.is_empty()),
                ("an API key", &stage.api_key.key, rule.scope.is_none()),
                ("an organization access token", &stage.access_token.token, true),
                ("an org user token", &stage.token.token, !rule.registry_tokens),
                ("an e-mail-verified token", &stage.email_token, !rule.email_tokens && !rule.registry_tokens),
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
            for (scope, key) in self.keys.iter().filter(|(scope, _)| rule.scope == Some(*scope)) {
                refuse(&format!("an API key without {scope:?}"), own, &key.key, Refusal::Forbidden);
            }
            if covered.path.contains("{org_id}") {
                refuse("another organization's bot", own, &self.foreign.1.credential, Refusal::Forbidden);
                refuse(ANOTHER, &self.foreign.0, credential, Refusal::Forbidden);
                refuse(NOWHERE, &self.nowhere, credential, Refusal::Forbidden);
                // Whether another organization pays is not told.
                refuse(ANOTHER_WITHOUT_GUARD, &self.poor.0, credential, Refusal::Forbidden);
            }
            if rule.needs_guard {
                refuse("Guard is off", &self.poor.0, &self.poor.1.credential, Refusal::NoSubscription);
            }
        }
        wrong
    }
}

/// A good credential in another organization's path.
pub const ANOTHER: &str = "another organization";
/// A good credential in the path of an organization that does not exist.
pub const NOWHERE: &str = "an organization that is not";
/// A good credential in the path of another organization that has no Guard.
pub const ANOTHER_WITHOUT_GUARD: &str = "another organization without Guard";

/// What is no credential at all, or nobody's.
fn not_credentials(stage: &Stage) -> Vec<Wrong> {
    let good = &stage.owner.credential;
    let (key, id) = good.split_once(':').unwrap();
    let mut wrong: Vec<Wrong> = [
        ("no header", &[][..], Refusal::NoneSent),
        ("another scheme", &["Basic dG9rZW46eA==".to_owned()], Refusal::NoneSent),
        ("a good credential in another scheme", &[format!("Token {good}")], Refusal::NoneSent),
        ("no scheme", std::slice::from_ref(good), Refusal::NoneSent),
        ("a scheme alone", &["Bearer".to_owned()], Refusal::NotGood),
        ("two good credentials", &[format!("Bearer {good}"), format!("Bearer {good}")], Refusal::NotGood),
    ]
    .map(|(what, headers, refusal)| Wrong::new(what, headers, stage, refusal))
    .into();
    for (what, credential) in [
        ("malformed", "hunter2".to_owned()),
        ("a key without a bot's id", key.to_owned()),
        ("a key and nothing behind the colon", format!("{key}:")),
        ("a bot's id without a key", format!(":{id}")),
        ("key and id the wrong way round", format!("{id}:{key}")),
        ("a wrong checksum", format!("{}:{id}", mistyped(key))),
        ("a key cut short", format!("{}:{id}", &key[..key.len() - 1])),
        ("an unknown key", format!("{}:{id}", made_up(TokenKind::BotApiKey))),
        ("an unknown bot", format!("{key}:{}", BotId::new(&shared::Clock::System).unwrap())),
        ("a malformed bot's id", format!("{key}:{}", id.to_lowercase())),
        ("something behind it", format!("{good} x")),
        ("a token as a bot's key", format!("{}:{id}", stage.token.token)),
        ("an org user token with a wrong checksum", mistyped(&stage.token.token)),
    ] {
        wrong.push(Wrong::bearer(what, &credential, stage, Refusal::NotGood));
    }
    for kind in TokenKind::ALL {
        wrong.push(Wrong::bearer(&format!("an unknown {kind:?}"), &made_up(kind), stage, Refusal::NotGood));
    }
    wrong
}

/// Bots whose credential once was good, and an id that is not the key's.
async fn dead_bots(service: &Service, stage: &Stage) -> Vec<Wrong> {
    let bot = async || service.bot(&stage.org, &[Role::Owner]).await;
    let (other, deleted, rotated) = (bot().await, bot().await, bot().await);
    assert!(service.store.delete_bot(&deleted.id, &operator()).await.unwrap());
    service.store.rotate_bot_key(&rotated.id, None, &operator()).await.unwrap().unwrap();
    let (key, _) = stage.owner.credential.split_once(':').unwrap();
    [
        ("the id of another bot", &format!("{key}:{}", other.id)),
        ("a deleted bot", &deleted.credential),
        ("a rotated key", &rotated.credential),
    ]
    .map(|(what, credential)| Wrong::bearer(what, credential, stage, Refusal::NotGood))
    .into()
}

/// Tokens of every kind that no longer count.
async fn dead_tokens(service: &Service, stage: &Stage) -> Vec<Wrong> {
    let owner = &stage.owner;
    let issue = async |expires_at| {
        let identifier = "carol-laptop".to_owned().try_into().unwrap();
        // Through the store, which does not mind: an endpoint issues nothing that has expired.
        service.store.issue_org_user_token(&stage.org.id, &owner.id, identifier, expires_at, &operator()).await.unwrap()
    };
    let ((revoked_token, revoked), (_, expired)) = (issue(None).await, issue(Some(service.clock.now())).await);
    service.store.revoke_org_user_token(&stage.org.id, &revoked_token.id, Some(&owner.id), &operator()).await.unwrap();

    let revoked_key = service.api_key(&owner.credential, &["org:read"]).await;
    service.revoke_api_key(&owner.credential, &revoked_key.id).await;

    let make = async || service.access_token(owner, &json!({"name": made_up(TokenKind::OrgAccess)})).await;
    let (deleted, switched_off) = (make().await, make().await);
    assert_eq!(service.call(Method::DELETE, &deleted.path(), &owner.credential).await.status, 204);
    let off = json!({"is_active": false});
    let answer = service.send_json(Method::PATCH, &switched_off.path(), &owner.credential, &off).await;
    assert_eq!(answer.status, 200, "{}", answer.text);

    let email = format!("carol-{}@example.com", made_up(TokenKind::OrgAccess));
    let regenerated = service.email_token(&email).await;
    let answer = service.call(Method::POST, "/api/v1/tokens/regenerate", &regenerated).await;
    let revoked_email = answer.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(service.call(Method::DELETE, "/api/v1/tokens", &revoked_email).await.status, 204);

    [
        ("a revoked org user token", revoked.expose()),
        ("an expired org user token", expired.expose()),
        ("a revoked API key", &revoked_key.key),
        ("a deleted organization access token", &deleted.token),
        ("an organization access token that is switched off", &switched_off.token),
        ("a regenerated e-mail-verified token", &regenerated),
        ("a revoked e-mail-verified token", &revoked_email),
    ]
    .map(|(what, token)| Wrong::bearer(what, token, stage, Refusal::NotGood))
    .into()
}
