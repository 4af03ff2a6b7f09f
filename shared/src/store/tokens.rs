//! Stored tokens: one item per token under its hash, and the strongly consistent read that decides
//! whether a token is accepted. The state transitions of each kind are in `api_keys`,
//! `email_tokens`, `org_access_tokens` and `org_user_tokens`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::audit::{Caller, Subject};
use super::{Store, StoreError, keys};
use crate::clock::Moment;
use crate::domain::{AccessRole, Environment, Held, Name, OrUnknown, ProjectId, Scope, TokenState, UserIdentifier};
use crate::email::AddressHash;
use crate::ids::{BotId, OrgId, TokenId, TrustId};
use crate::permissions::Role;
use crate::person::Binding;
use crate::secret::{Token, TokenHash};

/// A stored token of any kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StoredToken {
    /// An API key, for a tool of an organization.
    ApiKey(ApiKey),
    /// A bot token, for a CI job.
    #[serde(rename = "bot_token")]
    Bot(BotToken),
    /// An email-verified token, for a person.
    EmailVerified(EmailToken),
    /// An organization access token, for a server or device.
    OrgAccess(OrgAccessToken),
    /// An org user token, for a member of an organization.
    OrgUser(OrgUserToken),
}

/// What is stored under a token's hash: a [`StoredToken`], or a kind that this version does not
/// know, which grants nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum AnyToken {
    ApiKey(ApiKey),
    #[serde(rename = "bot_token")]
    Bot(BotToken),
    /// The API key of a bot, which is found by it and authenticates nothing.
    BotApiKey(BotApiKey),
    EmailVerified(EmailToken),
    OrgAccess(OrgAccessToken),
    OrgUser(OrgUserToken),
    #[serde(other)]
    Unknown,
}

impl AnyToken {
    /// The token, if it may authenticate somebody.
    pub(super) fn known(self) -> Option<StoredToken> {
        match self {
            AnyToken::ApiKey(token) => Some(StoredToken::ApiKey(token)),
            AnyToken::Bot(token) => Some(StoredToken::Bot(token)),
            AnyToken::EmailVerified(token) => Some(StoredToken::EmailVerified(token)),
            AnyToken::OrgAccess(token) => Some(StoredToken::OrgAccess(token)),
            AnyToken::OrgUser(token) => Some(StoredToken::OrgUser(token)),
            AnyToken::BotApiKey(_) | AnyToken::Unknown => None,
        }
    }
}

/// A stored API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its management ID.
    pub id: TokenId,
    /// The organization it belongs to.
    pub org_id: OrgId,
    /// Its first characters, which may be shown.
    pub prefix: String,
    /// Its display name.
    #[serde(deserialize_with = "Name::stored")]
    pub name: Name,
    /// The environment it is for.
    pub environment: OrUnknown<Environment>,
    /// Its scopes.
    pub scopes: Held<Scope>,
    /// When it was created.
    pub created_at: Moment,
    /// Who created it.
    pub created_by: Subject,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Moment>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Moment>,
    /// Who revoked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<Subject>,
    /// Its successor, if it was rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Rotated>,
    /// What it replaces, if it is a successor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Replaces>,
    /// Whether it no longer counts towards the plan's limit, since its successor does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncounted: bool,
    /// Whether its successor's first use has ended it. Not stored: found out by every read that
    /// decides whether the token is active.
    #[serde(skip)]
    pub superseded: bool,
}

impl ApiKey {
    /// The name of this kind in audit entries and responses.
    pub const SUBJECT: &str = "api_key";

    /// Its state at this time.
    pub fn state(&self, now: Moment) -> TokenState {
        match state(self.revoked_at, self.expires_at, now) {
            TokenState::Active if self.superseded => TokenState::Revoked,
            state => state,
        }
    }

    /// Whether the first use of the key with this hash ends it.
    pub(super) fn is_ended_by(&self, successor: TokenHash) -> bool {
        self.rotated.as_ref().is_some_and(|rotated| rotated.until_first_use && rotated.hash == successor)
    }

    /// How a key with these rights exceeds this one, which is to create it, if it does.
    pub fn exceeded_by(
        &self,
        scopes: &Held<Scope>,
        environment: &OrUnknown<Environment>,
        expires_at: Option<Moment>,
    ) -> Option<&'static str> {
        if !scopes.as_slice().iter().all(|scope| self.scopes.as_slice().contains(scope)) {
            return Some(
                "An API key cannot grant `scopes` that it does not hold itself. Remove them, or create the key with a bot.",
            );
        }
        if self.environment != Environment::Live && *environment == Environment::Live {
            return Some(
                "An API key with the `environment` test cannot create a live key. Use a live key, or create a test key.",
            );
        }
        let outlives = self.expires_at.is_some_and(|end| expires_at.is_none_or(|expires_at| expires_at > end));
        outlives.then_some("An API key cannot create a key that outlives it. Set `expires_at` no later than its own.")
    }
}

/// The state of a token with these moments: once revoked, it stays so.
fn state(revoked_at: Option<Moment>, expires_at: Option<Moment>, now: Moment) -> TokenState {
    match (revoked_at, expires_at) {
        (Some(_), _) => TokenState::Revoked,
        (None, Some(expires_at)) if expires_at <= now => TokenState::Expired,
        (None, _) => TokenState::Active,
    }
}

/// A stored token of a CI job, which acts as a bot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotToken {
    /// Its management ID.
    pub id: TokenId,
    /// The organization it belongs to.
    pub org_id: OrgId,
    /// The bot that the job acts as.
    pub bot_id: BotId,
    /// The trust that admitted the job.
    pub trust_id: TrustId,
    /// The bot's generation of tokens when this one was made: it ends with the generation.
    pub generation: u64,
    /// The job, as its ID token names it.
    pub subject: String,
    /// When it was created.
    pub created_at: Moment,
    /// When it expires.
    pub expires_at: Moment,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Moment>,
    /// Who revoked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<Subject>,
    /// What the job may do now; `None` if bot or trust have gone. Not stored: found out by every
    /// read that decides whether the token is active.
    #[serde(skip)]
    pub acting: Option<Acting>,
}

impl BotToken {
    /// The name of this kind in audit entries and responses.
    pub const SUBJECT: &str = "bot_token";

    /// Its state at this time.
    pub fn state(&self, now: Moment) -> TokenState {
        match state(self.revoked_at, Some(self.expires_at), now) {
            TokenState::Active if self.acting.is_none() => TokenState::Revoked,
            state => state,
        }
    }
}

/// What is stored under the hash of an API key of a bot. See [`super::bots`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BotApiKey {
    /// The bot.
    pub bot_id: BotId,
    /// The organization of the bot.
    pub org_id: OrgId,
    /// When it was last used, to within a few minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Moment>,
}

impl BotApiKey {
    /// The name of this kind in audit entries.
    pub const SUBJECT: &str = "bot_api_key";
}

/// What a token of a job may do now. Not stored: found out by every read that decides whether the
/// token is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acting {
    /// The roles that both bot and trust have.
    pub roles: Held<Role>,
    /// Whether what the job creates may outlive the token.
    pub may_mint_longer: bool,
    /// The revision of the bot that was read.
    pub(super) revision: u64,
}

/// That a token was rotated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// Its successor.
    pub id: TokenId,
    /// The hash of the successor.
    pub hash: TokenHash,
    /// When it expired before it was rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// Whether it also ends at the successor's first use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub until_first_use: bool,
}

/// What a successor replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaces {
    /// The old token.
    pub id: TokenId,
    /// The hash of the old token.
    pub hash: TokenHash,
    /// Whether the old token ends at the successor's first use.
    pub until_first_use: bool,
}

/// A stored email-verified token. It is deleted when it is revoked or replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailToken {
    /// Its management ID.
    pub id: TokenId,
    /// The address it belongs to.
    pub address: AddressHash,
    /// Its first characters, which may be shown.
    pub token_prefix: String,
    /// When it was created.
    pub created_at: Moment,
    /// Whether the holder is known to have received it: it replaced a token that was in use, or a
    /// reset code was used.
    pub confirmed: bool,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Moment>,
}

impl EmailToken {
    /// The name of this kind in audit entries and responses.
    pub const SUBJECT: &str = "email_token";

    /// Its state at this time: one that was never used ends 30 days after it was created. Revoked
    /// and replaced ones are deleted.
    pub fn state(&self, now: Moment) -> TokenState {
        let is_over = self.last_used_at.is_none() && self.created_at.plus(UNUSED_LIFETIME) <= now;
        if is_over { TokenState::Expired } else { TokenState::Active }
    }
}

/// How long an email-verified token that is never used stays active.
pub const UNUSED_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The permissions of an organization access token.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AccessConfig {
    /// Its role.
    pub role: OrUnknown<AccessRole>,
    /// Whether it may access all projects of the organization.
    pub all_projects: bool,
    /// Projects the token may access; ignored if `all_projects`. Empty means none.
    pub projects: Vec<ProjectId>,
}

impl AccessConfig {
    /// Whether it grants access to this project. Without a known role it grants none.
    pub fn reaches(&self, project: &str) -> bool {
        self.role.known().is_some()
            && (self.all_projects || self.projects.iter().any(|known| known.as_str() == project))
    }

    /// Whether it grants something that the other one does not.
    pub fn exceeds(&self, other: &AccessConfig) -> bool {
        let role = self.role.known().is_some_and(|role| !other.includes(role));
        let all_projects = self.all_projects && !other.all_projects;
        let reaches = |project: &ProjectId| other.all_projects || other.projects.contains(project);
        role || all_projects || !self.projects.iter().all(reaches)
    }

    /// Whether it grants this role.
    pub fn includes(&self, role: AccessRole) -> bool {
        self.role.known().is_some_and(|own| own >= role)
    }
}

/// A stored organization access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrgAccessToken {
    /// Its number in the organization.
    pub id: u64,
    /// The organization it belongs to.
    pub org_id: OrgId,
    /// The first 8 characters after its prefix, which may be shown.
    pub token_prefix: String,
    /// Its name, unique in the organization.
    #[serde(deserialize_with = "Name::stored")]
    pub name: Name,
    /// Whether it is enabled.
    pub is_active: bool,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// Its permissions.
    pub access_config: AccessConfig,
    /// When it was created.
    pub created_at: Moment,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Moment>,
    /// Incremented by each change.
    pub revision: u64,
}

impl OrgAccessToken {
    /// The name of this kind in audit entries and responses.
    pub const SUBJECT: &str = "org_access_token";

    /// Its state at this time. A disabled token counts as revoked until it is enabled again.
    pub fn state(&self, now: Moment) -> TokenState {
        match self.expires_at {
            _ if !self.is_active => TokenState::Revoked,
            Some(expires_at) if expires_at <= now => TokenState::Expired,
            _ => TokenState::Active,
        }
    }
}

/// A stored org user token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrgUserToken {
    /// Its management ID.
    pub id: TokenId,
    /// The organization it belongs to.
    pub org_id: OrgId,
    /// Its first characters, which may be shown.
    pub token_prefix: String,
    /// The user it was issued for.
    pub user_identifier: UserIdentifier,
    /// When it was created.
    pub created_at: Moment,
    /// Who issued it.
    pub created_by: Subject,
    /// The member who issued it for themselves, if one did: it ends with the membership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<Binding>,
    /// Whether the membership that it is bound to has ended. Not stored: found out by every read
    /// that decides whether the token is active.
    #[serde(skip)]
    pub member_left: bool,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Moment>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Moment>,
    /// Who revoked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<Subject>,
    /// Its successor, if it was rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Rotated>,
    /// What it replaces, if it is a successor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Replaces>,
    /// Whether its successor's first use has ended it. Not stored: found out by every read that
    /// decides whether the token is active.
    #[serde(skip)]
    pub superseded: bool,
}

impl OrgUserToken {
    /// The name of this kind in audit entries and responses.
    pub const SUBJECT: &str = "org_user_token";

    /// Its state at this time.
    pub fn state(&self, now: Moment) -> TokenState {
        match state(self.revoked_at, self.expires_at, now) {
            TokenState::Active if self.member_left || self.superseded => TokenState::Revoked,
            state => state,
        }
    }
}

/// How often a token's use is recorded at most.
pub(super) const RECORDED_EVERY: Duration = Duration::from_secs(60);

/// Why a token is not active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Inactive {
    /// It was revoked.
    Revoked,
    /// It has expired.
    Expired,
    /// It is switched off.
    Disabled,
    /// It is not stored: it was deleted, replaced, or never issued.
    Unknown,
}

impl StoredToken {
    /// Whether it is active at this time.
    pub fn is_active(&self, now: Moment) -> bool {
        self.inactive(now).is_none()
    }

    /// Why it is not active at this time; `None` if it is.
    pub fn inactive(&self, now: Moment) -> Option<Inactive> {
        let state = match self {
            StoredToken::ApiKey(token) => token.state(now),
            StoredToken::Bot(token) => token.state(now),
            StoredToken::EmailVerified(token) => token.state(now),
            StoredToken::OrgAccess(token) if !token.is_active => return Some(Inactive::Disabled),
            StoredToken::OrgAccess(token) => token.state(now),
            StoredToken::OrgUser(token) => token.state(now),
        };
        match state {
            TokenState::Active => None,
            TokenState::Expired => Some(Inactive::Expired),
            TokenState::Revoked => Some(Inactive::Revoked),
        }
    }

    /// The name of its kind in responses.
    pub fn kind_name(&self) -> &'static str {
        match self {
            StoredToken::ApiKey(_) => ApiKey::SUBJECT,
            StoredToken::Bot(_) => BotToken::SUBJECT,
            StoredToken::EmailVerified(_) => EmailToken::SUBJECT,
            StoredToken::OrgAccess(_) => OrgAccessToken::SUBJECT,
            StoredToken::OrgUser(_) => OrgUserToken::SUBJECT,
        }
    }

    /// Its management ID, which is a number for organization access tokens.
    pub fn id(&self) -> String {
        match self {
            StoredToken::ApiKey(token) => token.id.to_string(),
            StoredToken::Bot(token) => token.id.to_string(),
            StoredToken::EmailVerified(token) => token.id.to_string(),
            StoredToken::OrgAccess(token) => token.id.to_string(),
            StoredToken::OrgUser(token) => token.id.to_string(),
        }
    }

    /// When it was created.
    pub fn created_at(&self) -> Moment {
        match self {
            StoredToken::ApiKey(token) => token.created_at,
            StoredToken::Bot(token) => token.created_at,
            StoredToken::EmailVerified(token) => token.created_at,
            StoredToken::OrgAccess(token) => token.created_at,
            StoredToken::OrgUser(token) => token.created_at,
        }
    }

    /// When it expires.
    pub fn expires_at(&self) -> Option<Moment> {
        match self {
            StoredToken::ApiKey(token) => token.expires_at,
            StoredToken::Bot(token) => Some(token.expires_at),
            StoredToken::EmailVerified(_) => None,
            StoredToken::OrgAccess(token) => token.expires_at,
            StoredToken::OrgUser(token) => token.expires_at,
        }
    }

    /// The organization it belongs to; `None` for email-verified tokens.
    pub fn org_id(&self) -> Option<&OrgId> {
        match self {
            StoredToken::ApiKey(token) => Some(&token.org_id),
            StoredToken::Bot(token) => Some(&token.org_id),
            StoredToken::EmailVerified(_) => None,
            StoredToken::OrgAccess(token) => Some(&token.org_id),
            StoredToken::OrgUser(token) => Some(&token.org_id),
        }
    }

    /// Its successor, if it was rotated.
    pub fn rotated(&self) -> Option<&Rotated> {
        match self {
            StoredToken::ApiKey(key) => key.rotated.as_ref(),
            StoredToken::OrgUser(token) => token.rotated.as_ref(),
            StoredToken::Bot(_) | StoredToken::EmailVerified(_) | StoredToken::OrgAccess(_) => None,
        }
    }

    /// What it replaces, if it is a successor.
    pub fn replaces(&self) -> Option<&Replaces> {
        match self {
            StoredToken::ApiKey(key) => key.replaces.as_ref(),
            StoredToken::OrgUser(token) => token.replaces.as_ref(),
            StoredToken::Bot(_) | StoredToken::EmailVerified(_) | StoredToken::OrgAccess(_) => None,
        }
    }

    /// Notes that its successor's first use has ended it.
    pub(super) fn supersede(&mut self) {
        match self {
            StoredToken::ApiKey(key) => key.superseded = true,
            StoredToken::OrgUser(token) => token.superseded = true,
            StoredToken::Bot(_) | StoredToken::EmailVerified(_) | StoredToken::OrgAccess(_) => {}
        }
    }

    /// When it was last used. Bot tokens live for a day at most and do not keep it.
    pub fn last_used_at(&self) -> Option<Moment> {
        match self {
            StoredToken::ApiKey(token) => token.last_used_at,
            StoredToken::Bot(_) => None,
            StoredToken::EmailVerified(token) => token.last_used_at,
            StoredToken::OrgAccess(token) => token.last_used_at,
            StoredToken::OrgUser(token) => token.last_used_at,
        }
    }
}

impl Store {
    /// Updates `last_used_at`, at most once a minute per token. It never moves the time back, and
    /// never recreates a deleted token.
    ///
    /// # Errors
    ///
    /// Only at the first use of a successor that ends what it replaces, and where a policy ends unused
    /// tokens, at the use of one that was idle for a day. The request then fails too; other uses are
    /// answered whether they are recorded or not.
    pub async fn record_use(&self, hash: TokenHash, token: &StoredToken) -> Result<(), StoreError> {
        let ends_another = token.replaces().is_some_and(|old| old.until_first_use);
        let (now, is_first) = (self.clock.now(), ends_another && token.last_used_at().is_none());
        if token.is_idle(now) {
            return self.record_idle_use(hash, token, is_first).await;
        }
        if is_first {
            return self.record_first_use(hash).await;
        }
        let minute_ago = now.minus(RECORDED_EVERY);
        if matches!(token, StoredToken::Bot(_)) || token.last_used_at().is_some_and(|last| last > minute_ago) {
            return Ok(());
        }
        let values = [(":now", now), (":minute_ago", minute_ago)];
        let recording = self.update(
            keys::token(hash),
            "SET #last_used_at = :now",
            "attribute_exists(pk) AND (attribute_not_exists(#last_used_at) OR #last_used_at <= :minute_ago)",
            &values,
        );
        if !matches!(tokio::time::timeout(self.patience, recording).await, Ok(Ok(_))) {
            tracing::warn!("last_used_at was not updated");
        }
        Ok(())
    }

    /// Whether the token with this hash is already revoked. A read is cheaper than a write that
    /// changes nothing, and conflicts with no other call.
    pub(super) async fn is_revoked(&self, hash: TokenHash) -> Result<bool, StoreError> {
        Ok(match self.stored_token(hash).await? {
            Some(StoredToken::ApiKey(key)) => key.revoked_at.is_some(),
            Some(StoredToken::Bot(token)) => token.revoked_at.is_some(),
            Some(StoredToken::OrgUser(token)) => token.revoked_at.is_some(),
            _ => false,
        })
    }

    /// The values `:now` and `:by` of an update that revokes a token.
    pub(super) fn revocation(&self, caller: &Caller) -> Result<[(&'static str, serde_json::Value); 2], StoreError> {
        let by = serde_json::to_value(&caller.actor).map_err(|_| StoreError::Defect)?;
        Ok([(":now", self.clock.now().to_string().into()), (":by", by)])
    }

    /// Reads a token with one strongly consistent read, and then what else decides whether it is
    /// active: the membership that an org user token is bound to, the successor of a rotated token,
    /// bot and trust of a bot token, or the policy for a token that was idle for a day.
    pub async fn token(&self, token: &Token) -> Result<Option<StoredToken>, StoreError> {
        let mut stored = self.stored_token(token.hash()).await?;
        if let Some(stored) = &mut stored {
            self.note_all(stored).await?;
        }
        Ok(stored)
    }

    /// Finds out what else decides whether a token is active: see [`Self::token`].
    pub(super) async fn note_all(&self, stored: &mut StoredToken) -> Result<(), StoreError> {
        self.note_unused_of(stored).await?;
        match stored {
            StoredToken::ApiKey(key) => key.superseded = self.is_superseded(key.rotated.as_ref()).await?,
            StoredToken::OrgUser(token) => {
                token.superseded = self.is_superseded(token.rotated.as_ref()).await?;
                self.note_membership(token).await?;
            }
            StoredToken::Bot(token) => self.note_acting(token).await?,
            StoredToken::EmailVerified(_) | StoredToken::OrgAccess(_) => {}
        }
        Ok(())
    }

    /// Finds out whether the membership that a token is bound to has ended.
    pub(super) async fn note_membership(&self, token: &mut OrgUserToken) -> Result<(), StoreError> {
        if let Some(binding) = &token.bound_to {
            token.member_left = !self.is_current(&token.org_id, binding).await?;
        }
        Ok(())
    }

    /// Reads the token with this hash, and nothing about its membership. `None` also for a kind that
    /// this version does not know.
    pub(super) async fn stored_token(&self, hash: TokenHash) -> Result<Option<StoredToken>, StoreError> {
        Ok(self.get::<AnyToken>(keys::token(hash)).await?.and_then(AnyToken::known))
    }

    /// Reads up to 100 tokens, in no particular order. Those that this version does not know are
    /// left out.
    pub(super) async fn stored_tokens(
        &self,
        hashes: impl Iterator<Item = TokenHash>,
    ) -> Result<Vec<StoredToken>, StoreError> {
        let tokens: Vec<AnyToken> = self.get_all(hashes.map(keys::token).collect()).await?;
        Ok(tokens.into_iter().filter_map(AnyToken::known).collect())
    }
}
