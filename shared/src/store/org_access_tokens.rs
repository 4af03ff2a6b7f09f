//! Organization access tokens: for servers and devices, with a role and projects.
//!
//! The item under the token's hash is the truth. Beside it lie, written in the same transactions, a pointer under its
//! number, which is also the listing, and one under its name, which makes names unique: two creators or renamers with
//! one name compete for one item. Deleting a token removes all three, and frees its name.
//!
//! Changes are conditional on the revision they were made from, so that two at once never mix.

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::rate_limits::COUNT;
use super::tokens::StoredToken;
use super::{Committed, Places, Range, Store, StoreError, keys};
use crate::clock::Moment;
use crate::domain::{AccessRole, Name, ProjectId, TokenState};
use crate::ids::OrgId;
use crate::secret::{Token, TokenHash, TokenKind};

/// The kind of these tokens in the audit log.
pub const SUBJECT: &str = "org_access_token";

/// How often a change that lost a race starts over from what is there by then.
const RACES: usize = 8;

/// How many tokens one read of the listing asks for; all are read in the end.
const PAGE: usize = 1_000;

/// What a token may do, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AccessConfig {
    /// What it may do.
    pub role: AccessRole,
    /// Everywhere in the organization.
    pub all_projects: bool,
    /// Where, unless everywhere; none is nowhere.
    pub projects: Vec<ProjectId>,
}

impl AccessConfig {
    /// Whether it reaches this project.
    pub fn reaches(&self, project: &str) -> bool {
        self.all_projects || self.projects.iter().any(|known| known.as_str() == project)
    }
}

/// An organization access token, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrgAccessToken {
    /// Its number in the organization.
    pub id: u64,
    /// The organization it belongs to.
    pub org_id: OrgId,
    /// The first 8 characters behind its prefix, which may be shown.
    pub token_prefix: String,
    /// Its name, unique in the organization.
    pub name: Name,
    /// Whether it is switched on.
    pub is_active: bool,
    /// The moment from which it no longer counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// What it may do, and where.
    pub access_config: AccessConfig,
    /// Since when it exists.
    pub created_at: Moment,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Moment>,
    /// Counts its changes.
    pub revision: u64,
}

impl OrgAccessToken {
    /// Whether it counts at this moment. One that is switched off is as good as revoked, until it is switched on.
    pub fn state(&self, now: Moment) -> TokenState {
        match self.expires_at {
            _ if !self.is_active => TokenState::Revoked,
            Some(expires_at) if expires_at <= now => TokenState::Expired,
            _ => TokenState::Active,
        }
    }
}

/// What leads to a token from its number, or keeps its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pointer {
    id: u64,
    hash: TokenHash,
}

/// What of a token can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub name: Name,
    /// Whether it is switched on.
    pub is_active: bool,
    /// When it ends by itself.
    pub expires_at: Option<Moment>,
    /// What it may do, and where.
    pub access_config: AccessConfig,
}

/// Why a token cannot be made or become what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// Another token of the organization has this name.
    NameTaken,
    /// A project is not one of the organization's.
    UnknownProject,
}

/// How a change ended.
#[derive(Debug)]
pub enum Changed {
    /// This is the token now.
    Done(Box<OrgAccessToken>),
    /// It cannot become that.
    Rejected(Rejected),
    /// There is no such token.
    NotFound,
}

impl Store {
    /// Creates an organization access token. The plain token is in the answer this once.
    pub async fn create_org_access_token(
        &self,
        org: &OrgId,
        settings: Settings,
        caller: &Caller,
    ) -> Result<Result<(OrgAccessToken, Token), Rejected>, StoreError> {
        let plain = Token::generate(TokenKind::OrgAccess)?;
        // Taken first: a number that is not used in the end leaves a gap, and numbers may have gaps.
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
        let entry = Entry::done(&self.clock, caller, "org_access_token.create", Subject::new(SUBJECT, id))?;
        let mut transaction = self.transaction();
        transaction
            .put_new(keys::org_access_token_name(org, &token.name), &pointer)
            .put_new(keys::token(plain.hash()), &StoredToken::OrgAccess(token.clone()))
            .put_new(keys::org_access_token(org, id), &pointer)
            .audit(org, &entry);
        for project in &token.access_config.projects {
            transaction.require(keys::org_project(org, project.as_str()));
        }
        Ok(match transaction.commit().await? {
            Committed::Yes => Ok((token, plain)),
            Committed::No(0) => Err(Rejected::NameTaken),
            Committed::No(1..=3) => return Err(StoreError::Defect),
            Committed::No(_) => Err(Rejected::UnknownProject),
        })
    }

    /// All of an organization's access tokens, newest first.
    pub async fn org_access_tokens(&self, org: &OrgId) -> Result<Vec<OrgAccessToken>, StoreError> {
        let pk = keys::org_access_tokens(org);
        let mut pointers: Vec<(String, Pointer)> = Vec::new();
        loop {
            let after = pointers.last().map(|(place, _)| place.clone());
            let range = Range::new(&pk, Places::All).behind(after.as_deref()).newest_first();
            let page = self.query::<Pointer>(range, PAGE).await?;
            let full = page.len() == PAGE;
            pointers.extend(page);
            if !full {
                break;
            }
        }
        let mut tokens = Vec::with_capacity(pointers.len());
        for chunk in pointers.chunks(100) {
            let keys = chunk.iter().map(|(_, pointer)| keys::token(pointer.hash)).collect();
            for token in self.get_all(keys).await? {
                if let StoredToken::OrgAccess(token) = token {
                    tokens.push(token);
                }
            }
        }
        tokens.sort_by_key(|token| std::cmp::Reverse(token.id));
        Ok(tokens)
    }

    /// Changes a token to what `change` makes of it as it is. Where another change comes first, `change` is asked again.
    pub async fn change_org_access_token<E>(
        &self,
        org: &OrgId,
        id: u64,
        caller: &Caller,
        change: impl Fn(&OrgAccessToken) -> Result<Settings, E>,
    ) -> Result<Result<Changed, E>, StoreError> {
        for _ in 0..RACES {
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
            let entry = Entry::done(&self.clock, caller, "org_access_token.update", Subject::new(SUBJECT, id))?;
            let mut transaction = self.transaction();
            transaction.update(
                keys::token(pointer.hash),
                &format!(
                    "SET #name = :name, #is_active = :is_active, #access_config = :access_config, #revision = :new{}",
                    if changed.expires_at.is_some() { ", #expires_at = :expires_at" } else { " REMOVE #expires_at" }
                ),
                "#revision = :old",
                &values(&changed, token.revision)?,
            );
            let renamed = changed.name != token.name;
            if renamed {
                transaction.put_new(keys::org_access_token_name(org, &changed.name), &pointer);
                transaction.delete(keys::org_access_token_name(org, &token.name));
            }
            // Projects that the token had already are not in question: one that was removed since must not keep a
            // compromised token from being switched off.
            let added = |project: &&ProjectId| !token.access_config.projects.contains(project);
            for project in changed.access_config.projects.iter().filter(added) {
                transaction.require(keys::org_project(org, project.as_str()));
            }
            let rejected = match transaction.audit(org, &entry).commit().await? {
                Committed::Yes => return Ok(Ok(Changed::Done(Box::new(changed)))),
                // Another change came first, or the token is gone: look again.
                Committed::No(0) => continue,
                Committed::No(1) if renamed => Rejected::NameTaken,
                Committed::No(_) => Rejected::UnknownProject,
            };
            return Ok(Ok(Changed::Rejected(rejected)));
        }
        Err(StoreError::Unavailable)
    }

    /// Deletes a token for good, and frees its name. False if there is none of this number.
    pub async fn delete_org_access_token(&self, org: &OrgId, id: u64, caller: &Caller) -> Result<bool, StoreError> {
        for _ in 0..RACES {
            let Some((pointer, token)) = self.org_access_token(org, id).await? else { return Ok(false) };
            let entry = Entry::done(&self.clock, caller, "org_access_token.delete", Subject::new(SUBJECT, id))?;
            let mut transaction = self.transaction();
            transaction
                // The revision, because the name that is freed must still be the token's own.
                .delete_where(keys::token(pointer.hash), "#revision = :revision", &[(":revision", token.revision)])
                .delete(keys::org_access_token(org, id))
                .delete(keys::org_access_token_name(org, &token.name));
            if transaction.audit(org, &entry).commit().await? == Committed::Yes {
                return Ok(true);
            }
        }
        Err(StoreError::Unavailable)
    }

    async fn org_access_token(&self, org: &OrgId, id: u64) -> Result<Option<(Pointer, OrgAccessToken)>, StoreError> {
        let pointer: Option<Pointer> = self.get(keys::org_access_token(org, id)).await?;
        let Some(pointer) = pointer else { return Ok(None) };
        Ok(match self.get(keys::token(pointer.hash)).await? {
            Some(StoredToken::OrgAccess(token)) => Some((pointer, token)),
            // Deleted since.
            _ => None,
        })
    }

    async fn next_org_access_token_id(&self, org: &OrgId) -> Result<u64, StoreError> {
        self.count(keys::org_access_token_last_id(org), COUNT, None).await
    }
}

/// The values of a change. One that is not in the expression must not be among them.
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
                role: AccessRole::Manager,
                all_projects: false,
                projects: vec![ProjectId::try_from("prd-greenhouse".to_owned()).unwrap()],
            },
            created_at: moment("2026-11-21T10:00:00Z").unwrap(),
            last_used_at: moment("2026-11-22T10:00:00Z"),
            revision: 3,
        }
    }

    #[test]
    fn the_stored_shapes_are_pinned() {
        let hash = TokenHash::from_hex(&"ab".repeat(32)).unwrap();
        insta::assert_json_snapshot!("org_access_token", StoredToken::OrgAccess(token()));
        insta::assert_json_snapshot!("org_access_token_pointer", Pointer { id: 12, hash });
    }

    #[test]
    fn no_projects_are_not_all_projects() {
        let config = |all_projects, projects| AccessConfig { all_projects, projects, ..AccessConfig::default() };
        let greenhouse = token().access_config.projects;
        assert!(!config(false, vec![]).reaches("prd-greenhouse"));
        assert!(config(true, vec![]).reaches("prd-greenhouse"));
        assert!(config(false, greenhouse.clone()).reaches("prd-greenhouse"));
        assert!(!config(false, greenhouse).reaches("prd-green"));
    }

    #[test]
    fn a_token_counts_while_it_is_switched_on_and_its_time_is_not_over() {
        let at = |text| Moment::parse(text).unwrap();
        assert_eq!(token().state(at("2026-12-31T23:59:58Z")), TokenState::Active);
        assert_eq!(token().state(at("2026-12-31T23:59:59Z")), TokenState::Expired);
        let off = OrgAccessToken { is_active: false, ..token() };
        assert_eq!(off.state(at("2026-12-01T00:00:00Z")), TokenState::Revoked);
    }
}
