//! Organization access tokens: tokens for servers and devices, with a role and projects.
//!
//! The item under the token's hash is the source of truth. The same transactions write two
//! pointers: one by number, which also serves as the listing, and one by name, which makes names
//! unique because concurrent creates and renames compete for the same item. Deleting a token
//! deletes all three and frees its name.
//!
//! A counter, changed by the same transactions, bounds how many an organization has.
//!
//! Updates are conditional on the revision they read, so concurrent updates never mix. They are
//! also conditional on the revision of the bot or member that asks: they widen what somebody already
//! holds, so they must not happen after the caller was cut off.

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::idempotency::{Once, Repeat};
use super::leaks::{Cause, Recipient};
use super::lifetimes::{AsRead, Days, EndsUnused, Lifetimes, Limited, TooLong};
use super::members::Authority;
use super::rate_limits::COUNT;
use super::tokens::{AccessConfig, OrgAccessToken, StoredToken};
use super::{Backoff, Committed, Range, SortKeys, Store, StoreError, keys};
use crate::clock::Moment;
use crate::domain::{Name, ProjectId};
use crate::ids::OrgId;
use crate::secret::{Token, TokenHash, TokenKind};

/// Maximum access tokens of an organization.
pub const MAX_TOKENS: u64 = 1_000;

/// Maximum attempts of a change that loses races.
const MAX_ATTEMPTS: usize = 8;

/// Tokens per read of the listing. All pages are read.
const PAGE: usize = 1_000;

/// Tokens per page that a daily run looks through.
const LOOKED_THROUGH: usize = 100;

/// A pointer to a token, by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pointer {
    id: u64,
    hash: TokenHash,
}

/// The number of an organization's tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    count: i64,
}

/// The properties of a token that callers set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub name: Name,
    /// Whether it is enabled.
    pub is_active: bool,
    /// When it expires.
    pub expires_at: Option<Moment>,
    /// Its permissions.
    pub access_config: AccessConfig,
}

/// Why a create or update was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// The organization already has a token with this name.
    NameTaken,
    /// The organization has no such project.
    UnknownProject,
    /// The organization has [`MAX_TOKENS`] tokens.
    TooMany,
    /// The organization is suspended.
    Suspended,
    /// It would live longer than the organization's policy allows.
    TooLong(TooLong),
}

/// The result of a create.
#[derive(Debug)]
pub enum Created {
    /// It was created. The plain token is returned only here.
    Done(Box<OrgAccessToken>, Token),
    /// The create was rejected.
    Rejected(Rejected),
    /// The idempotency key was used before.
    Repeated(Repeat),
}

/// The result of an update.
#[derive(Debug)]
pub enum Changed {
    /// The updated token.
    Done(Box<OrgAccessToken>),
    /// The update was rejected.
    Rejected(Rejected),
    /// The caller's own rights changed in the meantime, so nothing was done.
    CallerChanged,
    /// There is no such token.
    NotFound,
}

impl Store {
    /// Creates an organization access token.
    pub async fn create_org_access_token(
        &self,
        org: &OrgId,
        settings: Settings,
        caller: &Caller,
        once: Option<&Once>,
    ) -> Result<Created, StoreError> {
        let policy = self.org(org).await?.filter(|org| !org.suspended).map(|org| org.lifetimes);
        let expires_at = settings.expires_at;
        let allowed = |policy: Lifetimes| policy.check(Limited::OrgAccessToken, self.clock.now(), expires_at);
        let rejected = match policy.map(allowed) {
            None => Some(Rejected::Suspended),
            Some(Err(too_long)) => Some(Rejected::TooLong(too_long)),
            Some(Ok(())) => match self.try_create_org_access_token(org, settings, caller, once).await? {
                Ok((token, plain)) => return Ok(Created::Done(Box::new(token), plain)),
                Err(rejected) => rejected,
            },
        };
        // Whatever rejected it, the same request may have been carried out meanwhile.
        match self.repeated(org, once, caller).await? {
            Some(repeat) => Ok(Created::Repeated(repeat)),
            None => rejected.map(Created::Rejected).ok_or(StoreError::Unavailable),
        }
    }

    /// The new token, or why it was rejected; `None` because the idempotency key was used before.
    async fn try_create_org_access_token(
        &self,
        org: &OrgId,
        settings: Settings,
        caller: &Caller,
        once: Option<&Once>,
    ) -> Result<Result<(OrgAccessToken, Token), Option<Rejected>>, StoreError> {
        let plain = Token::generate(TokenKind::OrgAccess)?;
        // Taken first. If the create fails, the number stays unused; gaps are fine.
        let id = self.next_org_access_token_id(org).await?;
        let token = OrgAccessToken {
            id,
            org_id: org.clone(),
            token_prefix: plain.shown_prefix().split_off(TokenKind::OrgAccess.prefix().len()),
            name: settings.name,
            is_active: settings.is_active,
            expires_at: settings.expires_at,
            access_config: settings.access_config,
            created_at: self.clock.now(),
            last_used_at: None,
            revision: 0,
        };
        let pointer = Pointer { id, hash: plain.hash() };
        let subject = Subject::new(OrgAccessToken::SUBJECT, id);
        let entry = Entry::done(&self.clock, caller, "org_access_token.create", subject.clone())?;
        let mut transaction = self.transaction();
        transaction
            .put_new(keys::org_access_token_name(org, &token.name), &pointer)
            .put_new(keys::token(plain.hash()), &StoredToken::OrgAccess(token.clone()))
            .put_new(keys::org_access_token(org, id), &pointer)
            .audit(org, &entry);
        for project in &token.access_config.projects {
            transaction.require(keys::org_project(org, project.as_str()));
        }
        let counted = transaction.writes.len();
        transaction.update(
            keys::org_access_token_count(org),
            "ADD #count :one",
            "#count < :max",
            &[(":one", 1), (":max", MAX_TOKENS)],
        );
        transaction.note_expiry(&StoredToken::OrgAccess(token.clone()), plain.hash());
        let key = transaction.once(org, once, caller, subject);
        for _ in 0..MAX_ATTEMPTS {
            return Ok(match transaction.commit().await? {
                Committed::Yes => Ok((token, plain)),
                Committed::No(0) => Err(Some(Rejected::NameTaken)),
                Committed::No(1..=3) => return Err(StoreError::Defect),
                Committed::No(index) if index == counted => {
                    if !self.org_access_tokens_are_full(org).await? {
                        // The counter was started, or a token was deleted, in the meantime.
                        continue;
                    }
                    Err(Some(Rejected::TooMany))
                }
                Committed::No(index) if Some(index) == key => Err(None),
                Committed::No(_) => Err(Some(Rejected::UnknownProject)),
            });
        }
        Err(StoreError::Unavailable)
    }

    /// Whether the organization has as many tokens as it may. Creates the counter of an organization
    /// that has none, with the tokens it has. Tokens are only created and deleted with a counter, so
    /// none can be missed.
    async fn org_access_tokens_are_full(&self, org: &OrgId) -> Result<bool, StoreError> {
        let key = keys::org_access_token_count(org);
        if let Some(Count { count }) = self.get(key.clone()).await? {
            return Ok(u64::try_from(count).is_ok_and(|count| count >= MAX_TOKENS));
        }
        let count = i64::try_from(self.org_access_token_pointers(org).await?.len()).unwrap_or(i64::MAX);
        let mut transaction = self.transaction();
        // If another call created it first, it is there now.
        let _: Committed = transaction.put_new(key, &Count { count }).commit().await?;
        Ok(false)
    }

    /// The pointers to all of an organization's access tokens, newest first.
    async fn org_access_token_pointers(&self, org: &OrgId) -> Result<Vec<(String, Pointer)>, StoreError> {
        let pk = keys::org_access_tokens(org);
        let mut pointers: Vec<(String, Pointer)> = Vec::new();
        loop {
            let after = pointers.last().map(|(sort_key, _)| sort_key.clone());
            let range = Range::new(&pk, SortKeys::All).start_after(after.as_deref()).newest_first();
            let page = self.query::<Pointer>(range, PAGE).await?;
            let full = page.len() == PAGE;
            pointers.extend(page);
            if !full {
                return Ok(pointers);
            }
        }
    }

    /// All of an organization's access tokens, newest first. One that has ended unused expired then.
    pub async fn org_access_tokens(&self, org: &OrgId) -> Result<Vec<OrgAccessToken>, StoreError> {
        let pointers = self.org_access_token_pointers(org).await?;
        let mut tokens = Vec::with_capacity(pointers.len());
        for chunk in pointers.chunks(100) {
            for token in self.stored_tokens(chunk.iter().map(|(_, pointer)| pointer.hash)).await? {
                if let StoredToken::OrgAccess(mut token) = token {
                    self.note_unused(&mut token).await?;
                    tokens.push(token);
                }
            }
        }
        tokens.sort_by_key(|token| std::cmp::Reverse(token.id));
        Ok(tokens)
    }

    /// Makes those of a page of access tokens expire that were not used for so many days. Returns the sort
    /// key after which the next page starts; `None` on the last page.
    pub(super) async fn end_unused_org_access_tokens(
        &self,
        org: &OrgId,
        days: Days,
        after: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let pk = keys::org_access_tokens(org);
        let range = Range::new(&pk, SortKeys::All).start_after(after);
        let pointers: Vec<(String, Pointer)> = self.query(range, LOOKED_THROUGH).await?;
        let next = pointers.last().filter(|_| pointers.len() == LOOKED_THROUGH).map(|(sort_key, _)| sort_key.clone());
        let now = self.clock.now();
        let mut unused = Vec::new();
        for token in self.stored_tokens(pointers.iter().map(|(_, pointer)| pointer.hash)).await? {
            let StoredToken::OrgAccess(token) = token else { continue };
            let hash = pointers.iter().find(|(_, pointer)| pointer.id == token.id).map(|(_, pointer)| pointer.hash);
            if let (Some(_), Some(hash)) = (token.unused_end(Some(days), now), hash) {
                unused.push((token, hash));
            }
        }
        if unused.is_empty() {
            return Ok(next);
        }
        // What is written cannot be taken back: by the policy as it is now.
        let days = self.unused_days_now(org).await?;
        for (token, hash) in unused {
            if let Some(end) = token.unused_end(days, now) {
                let OrgAccessToken { last_used_at, expires_at, revision, .. } = token;
                let as_read = AsRead { last_used_at, expires_at, uncounted: false, revision: Some(revision) };
                let mut transaction = self.transaction();
                // Nothing else holds the expiry but what people are reminded by, which looks at the token.
                transaction.end_unused(keys::token(hash), as_read, end);
                self.settle(transaction).await.done()?;
            }
        }
        Ok(next)
    }

    /// An organization's access token with this number.
    pub async fn org_access_token_with(&self, org: &OrgId, id: u64) -> Result<Option<OrgAccessToken>, StoreError> {
        let Some((_, mut token)) = self.org_access_token(org, id).await? else { return Ok(None) };
        self.note_unused(&mut token).await?;
        Ok(Some(token))
    }

    /// Applies `change` to a token of the organization, if the caller's rights are as they were read.
    /// If a concurrent update wins, `change` is called again with the new state.
    pub async fn change_org_access_token<E>(
        &self,
        org: &OrgId,
        authority: Authority<'_>,
        id: u64,
        caller: &Caller,
        change: impl Fn(&OrgAccessToken) -> Result<Settings, E>,
    ) -> Result<Result<Changed, E>, StoreError> {
        let mut backoff = Backoff::new();
        loop {
            let Some((pointer, token)) = self.org_access_token(org, id).await? else {
                return Ok(Ok(Changed::NotFound));
            };
            let settings = match change(&token) {
                Ok(settings) => settings,
                Err(error) => return Ok(Err(error)),
            };
            let changed = OrgAccessToken {
                name: settings.name,
                is_active: settings.is_active,
                expires_at: settings.expires_at,
                access_config: settings.access_config,
                revision: token.revision + 1,
                ..token.clone()
            };
            if (OrgAccessToken { revision: token.revision, ..changed.clone() }) == token {
                return Ok(Ok(Changed::Done(Box::new(token))));
            }
            let entry =
                Entry::done(&self.clock, caller, "org_access_token.update", Subject::new(OrgAccessToken::SUBJECT, id))?;
            let mut transaction = self.transaction();
            // First, so that a caller who was cut off learns nothing from the other conditions.
            let own_checks = transaction.require_authority(authority);
            let update = transaction.writes.len();
            transaction.update(
                keys::token(pointer.hash),
                &format!(
                    "SET #name = :name, #is_active = :is_active, #access_config = :access_config, #revision = :new{}",
                    if changed.expires_at.is_some() { ", #expires_at = :expires_at" } else { " REMOVE #expires_at" }
                ),
                "#revision = :old",
                &values(&changed, token.revision)?,
            );
            // Another spelling of the same characters is the same name.
            let renamed = changed.name.normalized() != token.name.normalized();
            if renamed {
                transaction.put_new(keys::org_access_token_name(org, &changed.name), &pointer);
                transaction.delete(keys::org_access_token_name(org, &token.name));
            }
            // Only new projects are checked: a project that was removed since must not prevent
            // disabling a compromised token.
            let added = |project: &&ProjectId| !token.access_config.projects.contains(project);
            for project in changed.access_config.projects.iter().filter(added) {
                transaction.require(keys::org_project(org, project.as_str()));
            }
            if changed.expires_at != token.expires_at {
                transaction.note_expiry(&StoredToken::OrgAccess(changed.clone()), pointer.hash);
            }
            let rejected = match transaction.audit(org, &entry).try_commit(&mut backoff).await? {
                None => continue,
                Some(Committed::Yes) => return Ok(Ok(Changed::Done(Box::new(changed)))),
                Some(Committed::No(index)) if index < own_checks => return Ok(Ok(Changed::CallerChanged)),
                // A concurrent update won, or the token was deleted: read it again.
                Some(Committed::No(index)) if index == update => {
                    backoff.pause().await?;
                    continue;
                }
                Some(Committed::No(index)) if renamed && index == update + 1 => Rejected::NameTaken,
                Some(Committed::No(_)) => Rejected::UnknownProject,
            };
            return Ok(Ok(Changed::Rejected(rejected)));
        }
    }

    /// Permanently deletes a token and frees its name. False if there is no token with this number.
    pub async fn delete_org_access_token(&self, org: &OrgId, id: u64, caller: &Caller) -> Result<bool, StoreError> {
        self.end_org_access_token(org, id, Cause::Asked("delete"), caller).await
    }

    /// Ends a token: like [`Self::delete_org_access_token`], whatever the cause.
    pub(super) async fn end_org_access_token(
        &self,
        org: &OrgId,
        id: u64,
        cause: Cause<'_>,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        let mut backoff = Backoff::persistent();
        loop {
            let Some((pointer, token)) = self.org_access_token(org, id).await? else { return Ok(false) };
            let subject = Subject::new(OrgAccessToken::SUBJECT, id);
            let entry = cause.entry(&self.clock, caller, OrgAccessToken::SUBJECT, subject)?;
            let mut transaction = self.transaction();
            transaction
                // Conditional on the revision, so that the freed name is the current one.
                .delete_where(keys::token(pointer.hash), "#revision = :revision", &[(":revision", token.revision)])
                .delete(keys::org_access_token(org, id))
                .delete(keys::org_access_token_name(org, &token.name))
                .update(
                    keys::org_access_token_count(org),
                    // Whatever it counts, it must not keep a token from being deleted.
                    "ADD #count :minus_one",
                    "attribute_exists(#count)",
                    &[(":minus_one", -1)],
                );
            transaction.audit(org, &entry).tell(cause, pointer.hash, &Recipient::Org(org.clone()), None, &entry);
            match transaction.try_commit(&mut backoff).await? {
                Some(Committed::Yes) => return Ok(true),
                // There is no counter yet.
                Some(Committed::No(3)) => {
                    let _: bool = self.org_access_tokens_are_full(org).await?;
                    backoff.pause().await?;
                }
                // A concurrent update or delete won: read it again.
                Some(Committed::No(_)) => backoff.pause().await?,
                None => {}
            }
        }
    }

    async fn org_access_token(&self, org: &OrgId, id: u64) -> Result<Option<(Pointer, OrgAccessToken)>, StoreError> {
        let pointer: Option<Pointer> = self.get(keys::org_access_token(org, id)).await?;
        let Some(pointer) = pointer else { return Ok(None) };
        Ok(match self.stored_token(pointer.hash).await? {
            Some(StoredToken::OrgAccess(token)) => Some((pointer, token)),
            // Deleted in the meantime.
            _ => None,
        })
    }

    async fn next_org_access_token_id(&self, org: &OrgId) -> Result<u64, StoreError> {
        self.count(keys::org_access_token_last_id(org), COUNT, None).await
    }
}

/// The values of the update expression. DynamoDB rejects unused values.
fn values(changed: &OrgAccessToken, revision: u64) -> Result<Vec<(&'static str, serde_json::Value)>, StoreError> {
    let json = |value: serde_json::Result<serde_json::Value>| value.map_err(|_| StoreError::Defect);
    let mut values = vec![
        (":name", json(serde_json::to_value(&changed.name))?),
        (":is_active", changed.is_active.into()),
        (":access_config", json(serde_json::to_value(&changed.access_config))?),
        (":new", changed.revision.into()),
        (":old", revision.into()),
    ];
    if let Some(expires_at) = changed.expires_at {
        values.push((":expires_at", expires_at.to_string().into()));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AccessRole, TokenState};

    fn token() -> OrgAccessToken {
        let moment = |text| Moment::parse(text);
        OrgAccessToken {
            id: 12,
            org_id: OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            token_prefix: "rjm9czn9".to_owned(),
            name: Name::try_from("Factor export pipeline".to_owned()).unwrap(),
            is_active: true,
            expires_at: moment("2026-12-31T23:59:59Z"),
            access_config: AccessConfig {
                role: AccessRole::Manager.into(),
                all_projects: false,
                projects: vec![ProjectId::try_from("prd-greenhouse".to_owned()).unwrap()],
            },
            created_at: moment("2026-11-21T10:00:00Z").unwrap(),
            last_used_at: moment("2026-11-22T10:00:00Z"),
            revision: 3,
        }
    }

    #[test]
    fn stored_items_match_their_snapshots() {
        let hash = TokenHash::from_hex(&"ab".repeat(32)).unwrap();
        insta::assert_json_snapshot!("org_access_token", StoredToken::OrgAccess(token()));
        insta::assert_json_snapshot!("org_access_token_pointer", Pointer { id: 12, hash });
    }

    #[test]
    fn empty_project_list_grants_no_project() {
        let config = |all_projects, projects| AccessConfig { all_projects, projects, ..AccessConfig::default() };
        let greenhouse = token().access_config.projects;
        assert!(!config(false, vec![]).reaches("prd-greenhouse"));
        assert!(config(true, vec![]).reaches("prd-greenhouse"));
        assert!(config(false, greenhouse.clone()).reaches("prd-greenhouse"));
        assert!(!config(false, greenhouse).reaches("prd-green"));
    }

    #[test]
    fn unknown_role_grants_no_role_and_no_project() {
        let role = |role: &str| serde_json::from_value(role.into()).unwrap();
        let config = |name| AccessConfig { role: role(name), all_projects: true, projects: vec![] };
        assert!(config("manager").includes(AccessRole::Operator) && config("manager").reaches("prd-greenhouse"));
        assert!(!config("director").includes(AccessRole::Readonly) && !config("director").reaches("prd-greenhouse"));
    }

    #[test]
    fn token_is_active_while_enabled_and_unexpired() {
        let at = |text| Moment::parse(text).unwrap();
        assert_eq!(token().state(at("2026-12-31T23:59:58Z")), TokenState::Active);
        assert_eq!(token().state(at("2026-12-31T23:59:59Z")), TokenState::Expired);
        let off = OrgAccessToken { is_active: false, ..token() };
        assert_eq!(off.state(at("2026-12-01T00:00:00Z")), TokenState::Revoked);
    }
}
