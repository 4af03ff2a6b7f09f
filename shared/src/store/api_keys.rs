//! API keys: scoped keys of an organization's tools, as many active ones as its plan allows.
//!
//! They go the way of org user tokens, from active over expired to revoked (see [`super::org_user_tokens`]), and beside
//! them lies one counter of the active ones. Whatever makes or unmakes an active key changes the counter in the same
//! transaction, so it is the number of pointers in the active listing at any time:
//!
//! - create: a pointer and one more, if the counter is below the plan's limit, and the plan still what it was read as;
//! - revoke of an active key: the pointer goes, and one less;
//! - expiry: the next create or list moves what is due, and counts it off.

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::keys::{self, Key};
use super::orgs::Org;
use super::tokens::StoredToken;
use super::{Committed, Places, Range, Store, StoreError};
use crate::clock::Moment;
use crate::domain::{Environment, Name, Plan, Scopes, StateFilter, TokenState};
use crate::ids::{OrgId, TokenId};
use crate::secret::{Token, TokenHash, TokenKind};

/// The kind of these keys in the audit log.
pub const SUBJECT: &str = "api_key";

/// How many keys whose time is over one transaction moves, three writes each, and how many one call does. Where more are
/// due the caller is asked to repeat, and finds fewer left.
const DUE_PER_TRANSACTION: usize = 30;
const DUE_PER_CALL: usize = 600;

/// How often a listing reads on where keys have moved since.
const ROUNDS: usize = 10;

/// How often a create that lost a race against a change of plan looks again.
const RACES: usize = 8;

/// An API key, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its management id.
    pub id: TokenId,
    /// The organization it belongs to.
    pub org_id: OrgId,
    /// Its beginning, which may be shown.
    pub prefix: String,
    /// Its name, for people.
    pub name: Name,
    /// Where it is used.
    pub environment: Environment,
    /// What it may do.
    pub scopes: Scopes,
    /// Since when it exists.
    pub created_at: Moment,
    /// The bot or API key that created it.
    pub created_by: String,
    /// The moment from which it no longer counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Moment>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Moment>,
    /// The bot or API key that revoked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
}

impl ApiKey {
    /// Whether it counts at this moment.
    pub fn state(&self, now: Moment) -> TokenState {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => TokenState::Revoked,
            (None, Some(expires_at)) if expires_at <= now => TokenState::Expired,
            (None, _) => TokenState::Active,
        }
    }
}

/// What leads to an API key from its id, from a listing or from the order of expiries: nothing in it ever changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pointer {
    id: TokenId,
    environment: Environment,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Moment>,
    hash: TokenHash,
}

impl Pointer {
    fn listed(&self, org: &OrgId, state: TokenState) -> Key {
        keys::api_key_in(org, state, self.environment, &self.id)
    }

    fn expiry(&self, org: &OrgId) -> Option<Key> {
        self.expires_at.map(|expires_at| keys::api_key_expiry(org, expires_at, &self.id))
    }
}

/// How many API keys of an organization are active.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Active {
    active: u64,
}

/// What a new API key is to be.
#[derive(Debug)]
pub struct NewApiKey {
    /// Its name.
    pub name: Name,
    /// Where it is used.
    pub environment: Environment,
    /// What it may do.
    pub scopes: Scopes,
    /// When it ends by itself.
    pub expires_at: Option<Moment>,
}

/// How the creation of an API key ended.
#[derive(Debug)]
pub enum Created {
    /// It is there. The plain key is in the answer this once.
    Done(Box<ApiKey>, Token),
    /// The plan's keys are used up.
    PlanLimitReached,
    /// The API key that asked was revoked meanwhile: it must not outlive its revocation in another.
    CallerRevoked,
}

/// A part of a listing.
#[derive(Debug, Default)]
pub struct Page {
    /// The keys, newest first.
    pub keys: Vec<ApiKey>,
    /// The id behind which the next part begins; `None` where this was the last.
    pub next: Option<TokenId>,
}

/// Which keys to list, and from where on.
#[derive(Debug, Clone)]
pub struct Listing<'a> {
    /// In which states.
    pub states: StateFilter,
    /// Of this environment only.
    pub environment: Option<Environment>,
    /// Behind this id.
    pub after: Option<&'a TokenId>,
    /// At most so many, at least one.
    pub limit: usize,
}

impl Store {
    /// Creates an API key, if the organization's plan has room for one more. However many callers compete for the last
    /// place, one gets it. `by` is the API key that asks, if it is one.
    pub async fn create_api_key(
        &self,
        org: &OrgId,
        new: NewApiKey,
        by: Option<TokenHash>,
        caller: &Caller,
    ) -> Result<Created, StoreError> {
        let plain = Token::generate(match new.environment {
            Environment::Live => TokenKind::ApiKeyLive,
            Environment::Test => TokenKind::ApiKeyTest,
        })?;
        let key = ApiKey {
            id: TokenId::new(&self.clock)?,
            org_id: org.clone(),
            prefix: plain.shown_prefix(),
            name: new.name,
            environment: new.environment,
            scopes: new.scopes,
            created_at: self.clock.now(),
            created_by: caller.actor.id.clone(),
            expires_at: new.expires_at,
            last_used_at: None,
            revoked_at: None,
            revoked_by: None,
        };
        let pointer = Pointer {
            id: key.id.clone(),
            environment: key.environment,
            expires_at: key.expires_at,
            hash: plain.hash(),
        };
        let entry = Entry::done(&self.clock, caller, "api_key.create", Subject::new(SUBJECT, &key.id))?;
        for _ in 0..RACES {
            // Keys whose time is over hold no place.
            self.move_due_api_keys(org).await?;
            let Some(Org { plan, .. }) = self.org(org).await? else { return Err(StoreError::Defect) };
            let mut transaction = self.transaction();
            match plan.max_api_keys() {
                Some(max) => transaction.update(
                    keys::api_key_count(org),
                    "ADD #active :one",
                    "attribute_not_exists(#active) OR #active < :max",
                    &[(":one", 1), (":max", max)],
                ),
                None => transaction.add(keys::api_key_count(org), ACTIVE, 1),
            };
            transaction
                .require_where(keys::org(org), "#plan = :plan", &[(":plan", plan)])
                .put_new(keys::token(plain.hash()), &StoredToken::ApiKey(key.clone()))
                .put_new(keys::api_key_by_id(org, &key.id), &pointer)
                .put_new(pointer.listed(org, TokenState::Active), &pointer);
            if let Some(expiry) = pointer.expiry(org) {
                transaction.put_new(expiry, &pointer);
            }
            transaction.audit(org, &entry);
            let asking = transaction.writes.len();
            if let Some(by) = by {
                transaction.require_unrevoked(keys::token(by));
            }
            match transaction.commit().await? {
                Committed::Yes => return Ok(Created::Done(Box::new(key), plain)),
                Committed::No(place) if place == asking => return Ok(Created::CallerRevoked),
                Committed::No(0) => return Ok(Created::PlanLimitReached),
                // The plan changed since it was read: look again what it allows.
                Committed::No(_) => {}
            }
        }
        Err(StoreError::Unavailable)
    }

    /// Lists API keys, newest first. What the last answered change did is in it.
    pub async fn list_api_keys(&self, org: &OrgId, listing: &Listing<'_>) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let mut after = listing.after.map(ToString::to_string);
        let environments = match listing.environment {
            Some(environment) => &[environment][..],
            None => &[Environment::Live, Environment::Test],
        };
        for round in 0.. {
            let wanted = listing.limit - page.keys.len();
            let mut pointers: Vec<Pointer> = Vec::new();
            // One after the other, in the order in which keys move: see `TokenState::ALL`.
            for state in listing.states.states() {
                for environment in environments {
                    let pk = keys::api_keys_in(org, *state, *environment);
                    let range = Range::new(&pk, Places::All).behind(after.as_deref()).newest_first();
                    let found = self.query::<Pointer>(range, wanted + 1).await?;
                    pointers.extend(found.into_iter().map(|(_, pointer)| pointer));
                }
            }
            pointers.sort_by(|a, b| b.id.cmp(&a.id));
            pointers.dedup_by(|a, b| a.id == b.id);
            let more = pointers.len() > wanted;
            pointers.truncate(wanted);
            after = pointers.last().map(|pointer| pointer.id.to_string());
            let now = self.clock.now();
            let keys = pointers.iter().map(|pointer| keys::token(pointer.hash)).collect();
            for token in self.get_all(keys).await? {
                if let StoredToken::ApiKey(key) = token
                    && listing.states.states().contains(&key.state(now))
                {
                    page.keys.push(key);
                }
            }
            // A key may have expired or moved since: then the page is filled up from behind, some rounds long.
            if !more || page.keys.len() == listing.limit || round == ROUNDS {
                page.next = after.filter(|_| more).and_then(|id| TokenId::parse(&id));
                break;
            }
        }
        page.keys.sort_by(|a, b| b.id.cmp(&a.id));
        Ok(page)
    }

    /// The organization's plan, and how many of its API keys are active.
    pub async fn api_key_plan(&self, org: &OrgId) -> Result<(Plan, u64), StoreError> {
        self.move_due_api_keys(org).await?;
        let (org, count) = futures::try_join!(self.org(org), self.get::<Active>(keys::api_key_count(org)))?;
        Ok((org.ok_or(StoreError::Defect)?.plan, count.unwrap_or_default().active))
    }

    /// Moves keys whose time is over from the active to the expired listing, and counts them off. One transaction after
    /// the other: all of them write the counter, and would only get in each other's way.
    async fn move_due_api_keys(&self, org: &OrgId) -> Result<(), StoreError> {
        let end = keys::expiry_place(self.clock.now().plus(std::time::Duration::from_secs(1)));
        let pk = keys::api_key_expiries(org);
        let due: Vec<(String, Pointer)> = self.query(Range::new(&pk, Places::Before(&end)), DUE_PER_CALL).await?;
        let due: Vec<Pointer> = due.into_iter().map(|(_, pointer)| pointer).collect();
        for batch in due.chunks(DUE_PER_TRANSACTION) {
            if self.move_expired_api_keys(org, batch).await? == Committed::Yes {
                continue;
            }
            // Another call has moved or revoked one of them: those that are left are moved one by one.
            for pointer in batch {
                let _moved_by_another = self.move_expired_api_keys(org, std::slice::from_ref(pointer)).await?;
            }
        }
        if due.len() == DUE_PER_CALL { Err(StoreError::Unavailable) } else { Ok(()) }
    }

    async fn move_expired_api_keys(&self, org: &OrgId, batch: &[Pointer]) -> Result<Committed, StoreError> {
        let mut transaction = self.transaction();
        transaction.add(keys::api_key_count(org), ACTIVE, -i64::try_from(batch.len()).unwrap_or(i64::MAX));
        for pointer in batch {
            transaction
                .delete_existing(pointer.listed(org, TokenState::Active))
                .put(pointer.listed(org, TokenState::Expired), pointer);
            if let Some(expiry) = pointer.expiry(org) {
                transaction.delete(expiry);
            }
        }
        transaction.commit().await
    }

    /// Revokes an API key of this organization by its id. False if there is none; a second time changes nothing.
    pub async fn revoke_api_key(&self, org: &OrgId, id: &TokenId, caller: &Caller) -> Result<bool, StoreError> {
        let pointer: Option<Pointer> = self.get(keys::api_key_by_id(org, id)).await?;
        let Some(pointer) = pointer else { return Ok(false) };
        let entry = Entry::done(&self.clock, caller, "api_key.revoke", Subject::new(SUBJECT, id))?;
        let values = [(":now", self.clock.now().to_string()), (":by", caller.actor.id.clone())];
        // Whether it holds a place in the plan, its listing says: first as if it were active, then as if expired.
        for state in [TokenState::Active, TokenState::Expired] {
            let mut transaction = self.transaction();
            transaction
                .delete_existing(pointer.listed(org, state))
                .update(
                    keys::token(pointer.hash),
                    "SET #revoked_at = :now, #revoked_by = :by",
                    "attribute_exists(pk) AND attribute_not_exists(#revoked_at)",
                    &values,
                )
                .put(pointer.listed(org, TokenState::Revoked), &pointer);
            if state == TokenState::Active {
                transaction.add(keys::api_key_count(org), ACTIVE, -1);
                if let Some(expiry) = pointer.expiry(org) {
                    transaction.delete(expiry);
                }
            }
            if transaction.audit(org, &entry).commit().await? == Committed::Yes {
                return Ok(true);
            }
        }
        // In neither listing: it was revoked before, and `revoked_at` stays what it was.
        Ok(true)
    }
}

/// The attribute of [`Active`].
const ACTIVE: &str = "active";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Scope;

    fn key() -> ApiKey {
        let moment = |text| Moment::parse(text);
        ApiKey {
            id: TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            org_id: OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            prefix: "tk_live_a1b2c3d4".to_owned(),
            name: Name::try_from("ci-pipeline".to_owned()).unwrap(),
            environment: Environment::Live,
            scopes: Scopes::try_from(vec![Scope::ShieldWrite, Scope::OrgRead]).unwrap(),
            created_at: moment("2026-11-21T10:00:00Z").unwrap(),
            created_by: "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC".to_owned(),
            expires_at: moment("2026-12-21T10:00:00Z"),
            last_used_at: moment("2026-11-22T10:00:00Z"),
            revoked_at: moment("2026-11-23T10:00:00Z"),
            revoked_by: Some("BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC".to_owned()),
        }
    }

    #[test]
    fn the_stored_shapes_are_pinned() {
        let hash = TokenHash::from_hex(&"ab".repeat(32)).unwrap();
        let ApiKey { id, environment, expires_at, .. } = key();
        insta::assert_json_snapshot!("api_key", StoredToken::ApiKey(key()));
        insta::assert_json_snapshot!("api_key_pointer", Pointer { id, environment, expires_at, hash });
    }
}
