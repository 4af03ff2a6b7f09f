//! The guards: extractors that authenticate the caller and check the rule of an operation.
//!
//! A handler with a [`BotWith<Operation>`](BotWith) argument runs only if the caller may perform
//! the operation. The rules are in [`crate::permissions`]; the guard of the registries is
//! `RegistryUser`.

use std::borrow::Cow;
use std::marker::PhantomData;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use http::{HeaderMap, header};
use secrecy::{ExposeSecret, SecretString};

use crate::app::App;
use crate::clock::Moment;
use crate::domain::Held;
use crate::error::{ApiError, Unauthorized};
use crate::extract::{PathParams, is_json};
use crate::ids::{BotId, OrgId};
use crate::observe::{Origin, ReceivedAt, Refused, note_principal, note_refused};
use crate::permissions::{Guarded, Operation, Role};
use crate::principal::{Holder, Principal};
use crate::secret::{Token, TokenHash, TokenKind};
use crate::store::StoreError;
use crate::store::audit::{Caller, Entry, Subject};
use crate::store::bots::{Bot, StoredBot};
use crate::store::idempotency::Once;
use crate::store::lifetimes::Limited;
use crate::store::members::Authority;
use crate::store::orgs::Org;
use crate::store::tokens::ApiKey;
use crate::store::tokens::EmailToken;
use crate::store::tokens::Inactive;
use crate::store::tokens::StoredToken;

/// A well-formed credential. Whether it is active is known only after a lookup.
#[derive(Debug)]
pub enum Credential {
    /// A bot's API key and its ID, joined by a colon.
    Bot(BotId, Token),
    /// A token of any other kind.
    Token(Token),
}

impl Credential {
    /// Parses the `Authorization` header.
    ///
    /// # Errors
    ///
    /// [`Unauthorized::Missing`] without a credential, [`Unauthorized::Scheme`] with one of another
    /// scheme, [`Unauthorized::Invalid`] with a malformed bearer token.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Unauthorized> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (value, second) = (values.next().ok_or(Unauthorized::Missing)?, values.next());
        let value = value.to_str().map_err(|_| Unauthorized::Invalid)?;
        let (scheme, credential) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(if value.is_empty() { Unauthorized::Missing } else { Unauthorized::Scheme });
        }
        // Two credentials are ambiguous: a proxy might have checked another one than we would.
        if second.is_some() {
            return Err(Unauthorized::Invalid);
        }
        Self::parse(credential.trim_matches(' ')).ok_or(Unauthorized::Invalid)
    }

    /// Parses a credential without its scheme.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.rsplit_once(':') {
            Some((key, bot)) => {
                let key = Token::parse(key).filter(|key| key.kind() == TokenKind::BotApiKey)?;
                Some(Credential::Bot(BotId::parse(bot)?, key))
            }
            // A bot's API key is valid only together with the bot's ID.
            None => Token::parse(text).filter(|token| token.kind() != TokenKind::BotApiKey).map(Credential::Token),
        }
    }

    /// The principal that this credential authenticates, if it is active. One strongly consistent
    /// read.
    async fn authenticate(&self, app: &App) -> Result<Option<Principal>, StoreError> {
        match self {
            Credential::Bot(id, key) => {
                let bot = app.store().authenticate_bot(id, key).await?;
                if bot.is_none() {
                    let because = Inactive::Unknown.into();
                    note_refused(Refused { id: Some(id.to_string()), org: None, because });
                }
                Ok(bot.map(Principal::Bot))
            }
            Credential::Token(plain) => {
                let stored = active(app.store().token(plain).await?, app.clock().now());
                Ok(stored.map(|token| Principal::Holder(Box::new(Holder { token, hash: plain.hash() }))))
            }
        }
    }
}

/// This stored token, if it is active; if not, the log line of the request says why.
pub fn active(stored: Option<StoredToken>, now: Moment) -> Option<StoredToken> {
    let inactive = stored.as_ref().map_or(Some(Inactive::Unknown), |token| token.inactive(now));
    let Some(because) = inactive else { return stored };
    let id = stored.as_ref().map(StoredToken::id);
    let org = stored.as_ref().and_then(StoredToken::org_id).map(ToString::to_string);
    note_refused(Refused { id, org, because: because.into() });
    None
}

/// Authenticates the credential in these headers. Accepts every kind.
///
/// # Errors
///
/// 401 if the credential is missing or not active, 503 if it cannot be checked.
pub async fn authenticate(app: &App, headers: &HeaderMap) -> Result<Principal, ApiError> {
    principal_of(app, Credential::from_headers(headers)).await
}

/// Authenticates a parsed credential.
///
/// # Errors
///
/// As [`authenticate`].
pub(crate) async fn principal_of(
    app: &App,
    credential: Result<Credential, Unauthorized>,
) -> Result<Principal, ApiError> {
    let credential = credential.map_err(ApiError::Unauthorized)?;
    let principal = credential.authenticate(app).await?.ok_or(ApiError::Unauthorized(Unauthorized::Invalid))?;
    note_principal(principal.log_id());
    Ok(principal)
}

/// Records the use of the credential that has authenticated this caller. A call that is refused for
/// the kind, role or organization of its caller is a use too, so guards record before they refuse.
///
/// # Errors
///
/// If this first use should end what the credential replaces, or keep it from ending unused, and could
/// not be recorded: the request must not be answered.
pub async fn record_use(app: &App, principal: &Principal) -> Result<(), StoreError> {
    match principal {
        Principal::Bot(bot) => app.store().record_bot_use(bot).await,
        Principal::Holder(holder) => app.store().record_use(holder.hash, &holder.token).await,
    }
}

/// A CI job asks for something that would outlive its token.
pub const OUTLIVES_JOB: ApiError = ApiError::Exceeds(
    "A CI token cannot create or extend what outlives it. Set `expires_at` no later than its own, or add a trust with \
     `may_mint_longer`.",
);

/// A bot that may perform this operation. If the path has an `org_id`, it is the bot's own.
///
/// Checks in this order: the credential is active (else 401); the path names the bot's organization
/// (403, whether the other one exists or not); the bot has a suitable role (403); the organization
/// has Guard, if the operation needs it (403).
///
/// An argument of this type guards a handler:
///
/// ```
/// use axum::extract::State;
/// use shared::permissions::OrgUserTokensProbe;
/// use shared::{ApiError, App, BotWith, Json, NoQuery};
///
/// async fn organization(
///     State(app): State<App>,
///     caller: BotWith<OrgUserTokensProbe>,
///     _: NoQuery,
/// ) -> Result<Json<String>, ApiError> {
///     let org = app.store().org(&caller.bot.org_id).await?;
///     Ok(Json(org.map(|org| org.name).ok_or(ApiError::NotFound)?))
/// }
///
/// let router: axum::Router<App> = axum::Router::new().route("/", axum::routing::get(organization));
/// ```
#[derive(Debug)]
pub struct BotWith<O> {
    /// The bot.
    pub bot: Bot,
    /// The organization in the path, if the operation needs its subscription.
    pub org: Option<Org>,
    /// For the audit log.
    pub caller: Caller,
    /// When the call came in, in milliseconds since 1970.
    pub received_at: u64,
    operation: PhantomData<O>,
}

impl<O: Guarded> BotWith<O> {
    /// Confirms, after something was created, that the bot may still create it. Otherwise takes it
    /// back, as nobody holds it yet, and frees its idempotency key. The error is what a request that
    /// comes now is answered.
    ///
    /// One read here keeps the concurrent calls of one bot apart, where a condition on its item
    /// would cost a write each and make all of them conflict.
    pub async fn confirm(
        &self,
        app: &App,
        once: Option<&Once>,
        take_back: impl Future<Output = Result<bool, StoreError>>,
    ) -> Result<(), ApiError> {
        confirm(app, O::OPERATION, &self.bot, &self.caller, once, take_back).await
    }

    /// Reads the bot again. The error is what a request that comes now is answered, and recorded as
    /// that one's would be.
    pub async fn check_again(&mut self, app: &App) -> Result<(), ApiError> {
        self.bot = again_or_recorded(app, O::OPERATION, &self.bot, &self.caller).await?;
        Ok(())
    }

    /// As [`Minter::check_lifetime`].
    pub async fn check_lifetime(&self, app: &App, expires_at: Option<Moment>) -> Result<(), ApiError> {
        self.minter().check_lifetime(app, expires_at).await
    }

    /// The bot as somebody who creates credentials.
    pub fn minter(&self) -> Minter<'_> {
        Minter {
            operation: O::OPERATION,
            org_id: &self.bot.org_id,
            api_key: None,
            bot: Some(Cow::Borrowed(&self.bot)),
            caller: &self.caller,
            received_at: self.received_at,
        }
    }

    /// Checks the expiry of a new token by the organization's policy.
    ///
    /// # Errors
    ///
    /// 400 if the token would live longer than the policy allows.
    pub fn check_policy(&self, kind: Limited, now: Moment, expires_at: Option<Moment>) -> Result<(), ApiError> {
        let policy = self.org.as_ref().map(|org| org.lifetimes).unwrap_or_default();
        Ok(policy.check(kind, now, expires_at)?)
    }

    /// As [`ManagerWith::record_refusal`].
    pub async fn record_refusal(&self, app: &App) -> Result<(), ApiError> {
        record_refusal(app, O::OPERATION, &self.bot.org_id, &self.caller).await
    }
}

impl<S, O> FromRequestParts<S> for BotWith<O>
where
    S: Send + Sync,
    App: FromRef<S>,
    O: Guarded,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let app = &App::from_ref(state);
        let received_at = ReceivedAt::of(parts, app.clock());
        let origin = Origin::from_request_parts(parts, app).await?;
        let path = PathParams::from_request_parts(parts, app).await?;
        let rule = O::OPERATION.rule();
        let org_in_path = OrgId::parse(path.get("org_id"));
        // Both reads run concurrently. The organization is not used before the bot is known to
        // belong to it.
        let (principal, org) = futures::try_join!(authenticate(app, &parts.headers), async {
            match &org_in_path {
                Some(org) if rule.needs_subscription => Ok(app.store().org(org).await?),
                _ => Ok(None),
            }
        })?;
        record_use(app, &principal).await?;
        let bot = principal.into_bot().ok_or(ApiError::Forbidden)?;
        if path.has("org_id") && org_in_path.as_ref() != Some(&bot.org_id) {
            return Err(ApiError::Forbidden);
        }
        let caller = bot_caller(&bot, origin);
        let of_jobs = (rule.makes_bot_keys && bot.workload().is_some()).then_some(ApiError::Forbidden);
        match of_jobs.or_else(|| refusal(O::OPERATION, &bot.roles, org.as_ref())) {
            None => Ok(Self { bot, org, caller, received_at, operation: PhantomData }),
            Some(refusal) => {
                record_refusal(app, O::OPERATION, &bot.org_id, &caller).await?;
                Err(refusal)
            }
        }
    }
}

/// A bot or an API key that may perform this operation.
///
/// Checks in this order: the credential is active (else 401); the path names the caller's
/// organization (403, whether the other one exists or not); the caller has a suitable role or scope
/// (403).
#[derive(Debug)]
pub struct ManagerWith<O> {
    /// The caller's organization.
    pub org_id: OrgId,
    /// The API key and its hash, unless the caller is a bot. A key can create only keys with no
    /// more rights than its own, and none after it is revoked.
    pub api_key: Option<(ApiKey, TokenHash)>,
    /// For the audit log.
    pub caller: Caller,
    /// When the call came in, in milliseconds since 1970.
    pub received_at: u64,
    bot: Option<Bot>,
    operation: PhantomData<O>,
}

impl<S, O> FromRequestParts<S> for ManagerWith<O>
where
    S: Send + Sync,
    App: FromRef<S>,
    O: Guarded,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let app = &App::from_ref(state);
        let received_at = ReceivedAt::of(parts, app.clock());
        let origin = Origin::from_request_parts(parts, app).await?;
        let path = PathParams::from_request_parts(parts, app).await?;
        let rule = O::OPERATION.rule();
        let principal = authenticate(app, &parts.headers).await?;
        record_use(app, &principal).await?;
        let (org_id, api_key, caller, bot, may) = match principal {
            Principal::Holder(holder) if matches!(holder.token, StoredToken::ApiKey(_)) => {
                let Holder { token: StoredToken::ApiKey(key), hash } = *holder else {
                    return Err(ApiError::Forbidden);
                };
                let may = rule.scope.is_some_and(|scope| key.scopes.contains(scope));
                let actor = Subject::new(ApiKey::SUBJECT, &key.id);
                (key.org_id.clone(), Some((key, hash)), caller(actor, origin), None, may)
            }
            principal => {
                let bot = principal.into_bot().ok_or(ApiError::Forbidden)?;
                let may = holds_role(O::OPERATION, &bot.roles);
                (bot.org_id.clone(), None, bot_caller(&bot, origin), Some(bot), may)
            }
        };
        if path.has("org_id") && path.get("org_id") != org_id.as_str() {
            return Err(ApiError::Forbidden);
        }
        let manager = Self { org_id, api_key, caller, received_at, bot, operation: PhantomData };
        if !may {
            manager.record_refusal(app).await?;
            return Err(ApiError::Forbidden);
        }
        Ok(manager)
    }
}

impl<O: Guarded> ManagerWith<O> {
    /// As [`BotWith::confirm`]. An API key is checked in the transaction itself.
    pub async fn confirm(
        &self,
        app: &App,
        once: Option<&Once>,
        take_back: impl Future<Output = Result<bool, StoreError>>,
    ) -> Result<(), ApiError> {
        match &self.bot {
            Some(bot) => confirm(app, O::OPERATION, bot, &self.caller, once, take_back).await,
            None => Ok(()),
        }
    }

    /// As [`Minter::check_lifetime`].
    pub async fn check_lifetime(&self, app: &App, expires_at: Option<Moment>) -> Result<(), ApiError> {
        self.minter().check_lifetime(app, expires_at).await
    }

    /// The caller as somebody who creates credentials.
    pub fn minter(&self) -> Minter<'_> {
        Minter {
            operation: O::OPERATION,
            org_id: &self.org_id,
            api_key: self.api_key.as_ref(),
            bot: self.bot.as_ref().map(Cow::Borrowed),
            caller: &self.caller,
            received_at: self.received_at,
        }
    }

    /// Records in the audit log that this operation was refused, if its rule says so.
    ///
    /// # Errors
    ///
    /// 429 if this principal was refused too often this minute: then nothing is recorded.
    pub async fn record_refusal(&self, app: &App) -> Result<(), ApiError> {
        record_refusal(app, O::OPERATION, &self.org_id, &self.caller).await
    }
}

/// Who creates a credential by an operation: a bot or an API key that may.
#[derive(Debug)]
pub struct Minter<'a> {
    pub(crate) operation: Operation,
    pub(crate) org_id: &'a OrgId,
    /// The API key and its hash, unless the caller is a bot.
    pub(crate) api_key: Option<&'a (ApiKey, TokenHash)>,
    pub(crate) caller: &'a Caller,
    pub(crate) received_at: u64,
    bot: Option<Cow<'a, Bot>>,
}

impl Minter<'_> {
    /// The right of the bot, for changes that give rights to somebody. That of an API key is checked by
    /// itself.
    pub(crate) fn authority(&self) -> Authority<'_> {
        self.bot.as_ref().map_or(Authority::Operator, |bot| bot.authority())
    }

    /// As [`BotWith::check_again`].
    pub(crate) async fn check_again(&mut self, app: &App) -> Result<(), ApiError> {
        if let Some(bot) = &self.bot {
            self.bot = Some(Cow::Owned(again_or_recorded(app, self.operation, bot, self.caller).await?));
        }
        Ok(())
    }

    /// Refuses to create something that would outlive the CI job that asks for it. `None` lives
    /// forever. An API key is compared with what it creates elsewhere.
    ///
    /// # Errors
    ///
    /// 403, which is recorded.
    pub async fn check_lifetime(&self, app: &App, expires_at: Option<Moment>) -> Result<(), ApiError> {
        if self.bot.as_ref().is_none_or(|bot| bot.may_mint_until(expires_at)) {
            return Ok(());
        }
        self.record_refusal(app).await?;
        Err(OUTLIVES_JOB)
    }

    /// As [`ManagerWith::record_refusal`].
    pub(crate) async fn record_refusal(&self, app: &App) -> Result<(), ApiError> {
        record_refusal(app, self.operation, self.org_id, self.caller).await
    }
}

/// Refusals are counted on a partition of the principal's, so that it cannot flood the audit log,
/// to which revocations write too.
pub(crate) async fn record_refusal(
    app: &App,
    operation: Operation,
    org: &OrgId,
    caller: &Caller,
) -> Result<(), ApiError> {
    if let Some(action) = operation.rule().audited_refusal {
        app.store().count_refusal(&caller.actor.id).await?.map_err(ApiError::RateLimited)?;
        let entry = Entry::done(app.clock(), caller, action, Subject::new("organization", org))?.refused();
        app.store().record_refusal(org, &entry).await?;
    }
    Ok(())
}

/// The holder of an email-verified token, for operations on that token.
///
/// A credential that is not active is 401. An active credential of another kind is 403, which updates
/// its `last_used_at`; whether that of an email-verified token is updated, is up to the operation.
#[derive(Debug)]
pub struct EmailHolder<O> {
    /// The stored token.
    pub token: EmailToken,
    /// The token's hash.
    pub hash: TokenHash,
    /// For the audit log.
    pub caller: Caller,
    operation: PhantomData<O>,
}

impl<S, O> FromRequestParts<S> for EmailHolder<O>
where
    S: Send + Sync,
    App: FromRef<S>,
    O: Guarded,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let app = &App::from_ref(state);
        let origin = Origin::from_request_parts(parts, app).await?;
        let principal = authenticate(app, &parts.headers).await?;
        let (token, hash) = match principal {
            Principal::Holder(holder) if matches!(holder.token, StoredToken::EmailVerified(_)) => {
                let Holder { token: StoredToken::EmailVerified(token), hash } = *holder else {
                    return Err(ApiError::Forbidden);
                };
                (token, hash)
            }
            other => {
                record_use(app, &other).await?;
                return Err(ApiError::Forbidden);
            }
        };
        if !O::OPERATION.rule().email_tokens {
            return Err(ApiError::Forbidden);
        }
        let actor = Subject::new(EmailToken::SUBJECT, &token.id);
        let caller = caller(actor, origin);
        Ok(Self { token, hash, caller, operation: PhantomData })
    }
}

/// The holder of any active token, or of a bot's API key, for operations that end it. Whether the
/// organization has Guard or is suspended does not matter.
#[derive(Debug)]
pub struct OwnToken<O> {
    principal: Principal,
    origin: Origin,
    operation: PhantomData<O>,
}

impl<S, O> FromRequestParts<S> for OwnToken<O>
where
    S: Send + Sync,
    App: FromRef<S>,
    O: Guarded,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let app = &App::from_ref(state);
        let origin = Origin::from_request_parts(parts, app).await?;
        let principal = authenticate(app, &parts.headers).await?;
        if !O::OPERATION.rule().own_token {
            return Err(ApiError::Forbidden);
        }
        Ok(Self { principal, origin, operation: PhantomData })
    }
}

impl<O> OwnToken<O> {
    /// Revokes what the caller is authenticated by. Of a bot's API keys only the one that was sent
    /// ends.
    ///
    /// # Errors
    ///
    /// 401 if it ended in the meantime.
    pub async fn revoke(self, app: &App) -> Result<(), ApiError> {
        revoke_own(app, &self.principal, self.origin).await
    }
}

/// Revokes what this caller is authenticated by. The caller is the actor of the audit entry.
///
/// # Errors
///
/// 401 if it ended in the meantime.
pub(crate) async fn revoke_own(app: &App, principal: &Principal, origin: Origin) -> Result<(), ApiError> {
    let caller = caller(principal.subject(), origin);
    let revoked = match principal {
        Principal::Bot(bot) => app.store().revoke_own_bot_credential(bot, &caller).await?,
        Principal::Holder(holder) => {
            let workload = match &holder.token {
                StoredToken::Bot(token) => Some(token.subject.clone()),
                _ => None,
            };
            let caller = Caller { workload, ..caller };
            app.store().revoke_own_token(&holder.token, holder.hash, &caller).await?
        }
    };
    revoked.then_some(()).ok_or(ApiError::Unauthorized(Unauthorized::Invalid))
}

/// A caller of a public operation with a JSON body. Calls are rate limited per source address.
///
/// A body of another type is 415 and not counted: any web page can send one from its readers'
/// address, and would use up the calls of everybody behind it.
#[derive(Debug)]
pub struct RateLimitedCaller {
    /// For the audit log.
    pub caller: Caller,
}

impl<S> FromRequestParts<S> for RateLimitedCaller
where
    S: Send + Sync,
    App: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let app = &App::from_ref(state);
        let origin = Origin::from_request_parts(parts, app).await?;
        if !is_json(&parts.headers) {
            return Err(ApiError::UnsupportedMediaType);
        }
        if let Some(limit) = app.limits().calls_per_minute {
            app.store().count_call(origin.source_ip, limit).await?.map_err(ApiError::RateLimited)?;
        }
        Ok(Self { caller: caller(Subject::new("anonymous", "anonymous"), origin) })
    }
}

/// The bot as a caller, and the CI job that acts as it, if one does.
fn bot_caller(bot: &Bot, origin: Origin) -> Caller {
    let workload = bot.workload().map(str::to_owned);
    Caller { workload, ..caller(Subject::new(StoredBot::SUBJECT, &bot.id), origin) }
}

/// A reporter of leaked tokens: anybody who sends JSON. Reports are limited per source address, in any
/// mode of operation.
#[derive(Debug)]
pub struct LeakReporter {
    /// For the audit log.
    pub caller: Caller,
}

impl<S> FromRequestParts<S> for LeakReporter
where
    S: Send + Sync,
    App: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let app = &App::from_ref(state);
        let origin = Origin::from_request_parts(parts, app).await?;
        if !is_json(&parts.headers) {
            return Err(ApiError::UnsupportedMediaType);
        }
        app.store().count_leak_report(origin.source_ip).await?.map_err(ApiError::RateLimited)?;
        Ok(Self { caller: caller(Subject::new("anonymous", "anonymous"), origin) })
    }
}

/// A token in the body of a report. Malformed is not an error: it looks like an unknown one.
#[derive(Debug, Clone)]
pub struct Found(pub Option<Token>);

impl<'de> serde::Deserialize<'de> for Found {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = SecretString::deserialize(deserializer)?;
        Ok(Self(token_in(text.expose_secret())))
    }
}

/// The token in a text that somebody has found: a token of any kind, or the API key in a bot's
/// credential.
pub fn token_in(text: &str) -> Option<Token> {
    match Credential::parse(text) {
        Some(Credential::Bot(_, key)) => Some(key),
        Some(Credential::Token(token)) => Some(token),
        None => Token::parse(text),
    }
}

fn caller(actor: Subject, Origin { request_id, source_ip }: Origin) -> Caller {
    Caller { actor, source_ip, request_id, workload: None }
}

/// Why somebody with these roles may not perform this operation in the own organization; `None` if
/// it is allowed.
pub(crate) fn refusal(operation: Operation, roles: &Held<Role>, org: Option<&Org>) -> Option<ApiError> {
    if holds_role(operation, roles) { org_refusal(operation, org) } else { Some(ApiError::Forbidden) }
}

/// Why nobody may perform this operation in this organization; `None` if it is allowed.
pub(crate) fn org_refusal(operation: Operation, org: Option<&Org>) -> Option<ApiError> {
    // Of the operations that create tokens, those that read the organization anyway; the others
    // check it in the store.
    if operation.rule().audited_refusal.is_some() && org.is_some_and(|org| org.suspended) {
        return Some(ApiError::Suspended);
    }
    let is_subscribed = org.is_some_and(|org| org.guard);
    (operation.rule().needs_subscription && !is_subscribed).then_some(ApiError::SubscriptionRequired)
}

/// Whether one of these roles allows the operation.
pub(crate) fn holds_role(operation: Operation, roles: &Held<Role>) -> bool {
    operation.rule().roles.iter().any(|role| roles.contains(role))
}

/// The bot as it is now, if it may still perform this operation.
async fn again(app: &App, operation: Operation, bot: &Bot) -> Result<Bot, ApiError> {
    let bot = app.store().authenticate_bot_again(bot).await?;
    let bot = bot.ok_or(ApiError::Unauthorized(Unauthorized::Invalid))?;
    if holds_role(operation, &bot.roles) { Ok(bot) } else { Err(ApiError::Forbidden) }
}

/// As [`again`]. That the role was lost is recorded.
async fn again_or_recorded(app: &App, operation: Operation, bot: &Bot, caller: &Caller) -> Result<Bot, ApiError> {
    let bot_now = again(app, operation, bot).await;
    if let Err(ApiError::Forbidden) = bot_now {
        record_refusal(app, operation, &bot.org_id, caller).await?;
    }
    bot_now
}

async fn confirm(
    app: &App,
    operation: Operation,
    bot: &Bot,
    caller: &Caller,
    once: Option<&Once>,
    take_back: impl Future<Output = Result<bool, StoreError>>,
) -> Result<(), ApiError> {
    let Err(refusal) = again(app, operation, bot).await else { return Ok(()) };
    if let Err(error) = take_back.await {
        tracing::error!(%error, bot = %bot.id, "what a bot created after it was cut off could not be revoked");
        return Err(error.into());
    }
    app.store().free_idempotency_key(&bot.org_id, once, caller).await?;
    if matches!(refusal, ApiError::Forbidden) {
        record_refusal(app, operation, &bot.org_id, caller).await?;
    }
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const BOT: &str = "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC";

    fn read(values: &[&str]) -> Result<Credential, Unauthorized> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Credential::from_headers(&headers)
    }

    fn plain(kind: TokenKind) -> String {
        Token::generate(kind).unwrap().expose().to_owned()
    }

    #[test]
    fn scheme_is_case_insensitive() {
        let key = plain(TokenKind::BotApiKey);
        for scheme in ["Bearer", "bearer", "BEARER"] {
            assert!(matches!(read(&[&format!("{scheme} {key}:{BOT}")]), Ok(Credential::Bot(..))));
        }
    }

    #[test]
    fn other_schemes_are_told_from_no_credential() {
        for values in [&[][..], &[""]] {
            assert_eq!(read(values).unwrap_err(), Unauthorized::Missing, "{values:?}");
        }
        let bare = plain(TokenKind::OrgUser);
        for value in ["Basic dG9rZW46eA==", "Digest x", "token x", "Bearer:x", &bare] {
            assert_eq!(read(&[value]).unwrap_err(), Unauthorized::Scheme, "{value}");
        }
    }

    #[test]
    fn incomplete_or_repeated_credentials_are_refused() {
        let (key, token) = (plain(TokenKind::BotApiKey), plain(TokenKind::OrgUser));
        let good = format!("Bearer {key}:{BOT}");
        for values in [
            &["Bearer"][..],
            &["Bearer "],
            &[&format!("Bearer {key}")],
            &[&format!("Bearer {key}:")],
            &[&format!("Bearer :{BOT}")],
            &[&format!("Bearer {BOT}:{key}")],
            &[&format!("Bearer {token}:{BOT}")],
            &[&format!("Bearer {key}:{}", BOT.to_lowercase())],
            &[&format!("Bearer {key}:{BOT}:{BOT}")],
            &["Bearer \u{e9}"],
            &[&good, &good],
        ] {
            assert_eq!(read(values).unwrap_err(), Unauthorized::Invalid, "{values:?}");
        }
    }

    #[test]
    fn debug_output_redacts_credentials() {
        let key = plain(TokenKind::BotApiKey);
        let shown = format!("{:?}", read(&[&format!("Bearer {key}:{BOT}")]).unwrap());
        assert!(!shown.contains(&key[14..]), "{shown}");
    }
}
