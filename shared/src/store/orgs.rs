//! Organizations and their projects. `guardctl` creates and changes them; the service reads them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::audit::{Caller, Entry, Subject};
use super::keys::{self, ORGS};
use super::lifetimes::{Days, Lifetimes, Limited};
use super::members::Authority;
use super::{Committed, Range, SortKeys, Store, StoreError};
use crate::clock::Moment;
use crate::domain::{LeakPolicy, Notify, OrUnknown, Plan};
use crate::email::EmailAddress;
use crate::ids::OrgId;

/// An organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Org {
    /// Its ID.
    pub id: OrgId,
    /// Its display name.
    pub name: String,
    /// Its plan.
    pub plan: OrUnknown<Plan>,
    /// Whether its subscription has Guard enabled.
    pub guard: bool,
    /// Whether the operator has suspended it: it gets no new tokens, and its tokens do not open the
    /// registries.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// Whom to tell about leaked tokens, at most [`Org::MAX_SECURITY_CONTACTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_contacts: Vec<EmailAddress>,
    /// What happens to a leaked token. One that this version does not know revokes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub leaked: OrUnknown<LeakPolicy>,
    /// How long its tokens live.
    #[serde(flatten)]
    pub lifetimes: Lifetimes,
    /// What else the security contacts are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<OrUnknown<Notify>>,
    /// When it was created.
    pub created_at: Moment,
}

impl Org {
    /// The most security contacts of an organization.
    pub const MAX_SECURITY_CONTACTS: usize = 10;
}

/// A change of an organization's settings: of those that are given.
#[derive(Debug, Clone, Default)]
pub struct OrgChange {
    /// Its plan.
    pub plan: Option<Plan>,
    /// Whether its subscription has Guard enabled.
    pub guard: Option<bool>,
    /// Whom to tell about leaked tokens: replaces the list.
    pub security_contacts: Option<Vec<EmailAddress>>,
    /// What happens to a leaked token.
    pub leaked: Option<LeakPolicy>,
    /// The longest lifetimes, of the kinds that are given. `None` takes the limit away.
    pub max_lifetime_days: BTreeMap<Limited, Option<Days>>,
    /// After how long without a use tokens end. `Some(None)` takes the limit away.
    pub end_after_unused_days: Option<Option<Days>>,
    /// What else the security contacts are told: replaces the list.
    pub notify: Option<Vec<Notify>>,
}

/// The result of changing an organization.
#[derive(Debug)]
pub enum OrgSet {
    /// The organization after the change.
    Done(Box<Org>),
    /// There is no such organization.
    NotFound,
    /// The caller's own rights changed in the meantime, so nothing was done.
    CallerChanged,
}

impl OrgChange {
    /// The attributes of [`Org`] to write, by name. `null` removes one.
    fn settings(&self) -> serde_json::Result<BTreeMap<&'static str, Value>> {
        let Self { plan, guard, security_contacts, leaked, max_lifetime_days, end_after_unused_days, notify } = self;
        let settings = [
            ("plan", plan.map(serde_json::to_value)),
            ("guard", guard.map(serde_json::to_value)),
            ("security_contacts", security_contacts.as_ref().map(serde_json::to_value)),
            ("leaked", leaked.map(serde_json::to_value)),
            ("end_after_unused_days", end_after_unused_days.map(serde_json::to_value)),
            ("notify", notify.as_ref().map(serde_json::to_value)),
        ];
        let limits = max_lifetime_days.iter().map(|(kind, days)| {
            let name = match kind {
                Limited::OrgUserToken => "max_days_org_user_token",
                Limited::ApiKey => "max_days_api_key",
                Limited::OrgAccessToken => "max_days_org_access_token",
            };
            (name, Some(serde_json::to_value(days)))
        });
        let settings = settings.into_iter().chain(limits);
        settings.filter_map(|(name, value)| Some(value?.map(|value| (name, value)))).collect()
    }

    /// What is set, for the audit log: of addresses only their number.
    fn detail(&self) -> String {
        let Self { plan, guard, security_contacts, leaked, max_lifetime_days, end_after_unused_days, notify } = self;
        let days = |days: Option<Days>| days.map_or_else(|| "none".to_owned(), |days| days.to_string());
        let names = |notify: &Vec<Notify>| notify.iter().map(|notify| notify.as_str()).collect::<Vec<_>>().join(" ");
        let set = [
            plan.map(|plan| format!("plan {}", plan.as_str())),
            guard.map(|guard| format!("guard {}", if guard { "on" } else { "off" })),
            security_contacts.as_ref().map(|contacts| format!("security contacts {}", contacts.len())),
            leaked.map(|leaked| format!("leaked {}", leaked.as_str())),
            notify
                .as_ref()
                .map(|notify| format!("notify {}", if notify.is_empty() { "none".to_owned() } else { names(notify) })),
        ];
        let limits = max_lifetime_days.iter().map(|(kind, at_most)| {
            let at_most = days(*at_most);
            Some(format!("max_lifetime_days {} {at_most}", kind.as_str()))
        });
        let unused = end_after_unused_days.map(|after| format!("end_after_unused_days {}", days(after)));
        set.into_iter().chain(limits).chain([unused]).flatten().collect::<Vec<_>>().join(", ")
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The entry of an organization or project in a list. All data is in the key.
#[derive(Serialize, Deserialize)]
struct Named {}

/// Entries per read of a list. All pages are read.
const DIRECTORY_PAGE: usize = 1_000;

impl Store {
    /// Reads an organization.
    pub async fn org(&self, id: &OrgId) -> Result<Option<Org>, StoreError> {
        self.get(keys::org(id)).await
    }

    /// The organizations with these IDs, at most 100, oldest first.
    pub async fn orgs_with(&self, ids: impl IntoIterator<Item = OrgId>) -> Result<Vec<Org>, StoreError> {
        let ids: BTreeSet<OrgId> = ids.into_iter().collect();
        let mut orgs: Vec<Org> = self.get_all(ids.iter().take(100).map(keys::org).collect()).await?;
        orgs.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(orgs)
    }

    /// All organizations, oldest first. Only for the operator.
    pub async fn orgs(&self) -> Result<Vec<Org>, StoreError> {
        let ids = self.names_in(ORGS, SortKeys::All).await?;
        let mut orgs: Vec<Org> = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(100) {
            let ids = chunk.iter().filter_map(|id| OrgId::parse(id));
            orgs.extend(self.get_all(ids.map(|id| keys::org(&id)).collect()).await?);
        }
        orgs.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(orgs)
    }

    /// The IDs of the first organizations after this one, oldest first.
    pub(super) async fn org_ids_after(&self, after: Option<&OrgId>, at_most: usize) -> Result<Vec<OrgId>, StoreError> {
        let range = Range::new(ORGS, SortKeys::All).start_after(after.map(OrgId::as_str));
        let found: Vec<(String, Named)> = self.query(range, at_most).await?;
        Ok(found.iter().filter_map(|(id, _)| OrgId::parse(id)).collect())
    }

    /// Creates an organization.
    pub async fn create_org(&self, name: &str, plan: Plan, guard: bool, caller: &Caller) -> Result<Org, StoreError> {
        let id = OrgId::new(&self.clock)?;
        let now = self.clock.now();
        let org = Org {
            id,
            name: name.to_owned(),
            plan: plan.into(),
            guard,
            suspended: false,
            security_contacts: Vec::new(),
            leaked: LeakPolicy::Revoke.into(),
            lifetimes: Lifetimes::default(),
            notify: Vec::new(),
            created_at: now,
        };
        let entry = Entry::done(&self.clock, caller, "org.create", Subject::new("organization", &org.id))?;
        let mut transaction = self.transaction();
        transaction.put_new(keys::org(&org.id), &org).put_new(keys::org_in_directory(&org.id), &Named {});
        match transaction.audit(&org.id, &entry).commit().await? {
            Committed::Yes => Ok(org),
            // A collision of 80 random bits: the generator is broken.
            Committed::No(_) => Err(StoreError::Defect),
        }
    }

    /// Changes settings of an organization as the operator. `None` if there is no such organization.
    pub async fn set_org(&self, id: &OrgId, change: &OrgChange, caller: &Caller) -> Result<Option<Org>, StoreError> {
        match self.set_org_as(id, change, Authority::Operator, caller).await? {
            OrgSet::Done(org) => Ok(Some(*org)),
            OrgSet::NotFound | OrgSet::CallerChanged => Ok(None),
        }
    }

    /// Changes settings of an organization, if the caller's rights are as they were read.
    pub async fn set_org_as(
        &self,
        id: &OrgId,
        change: &OrgChange,
        authority: Authority<'_>,
        caller: &Caller,
    ) -> Result<OrgSet, StoreError> {
        let settings = change.settings().map_err(|_| StoreError::Defect)?;
        let found = |org: Option<Org>| org.map_or(OrgSet::NotFound, |org| OrgSet::Done(Box::new(org)));
        if settings.is_empty() {
            return Ok(found(self.org(id).await?));
        }
        let entry = Entry::done(&self.clock, caller, "org.set", Subject::new("organization", id))?;
        let entry = entry.with_detail(change.detail());
        // Writes only the given settings, so that concurrent changes of different ones all succeed.
        let (removed, set): (Vec<_>, Vec<_>) = settings.into_iter().partition(|(_, value)| value.is_null());
        let listed = |verb: &str, parts: Vec<String>| {
            if parts.is_empty() { String::new() } else { format!("{verb} {} ", parts.join(", ")) }
        };
        let assignments = set.iter().map(|(name, _)| format!("#{name} = :{name}")).collect();
        let removals = removed.iter().map(|(name, _)| format!("#{name}")).collect();
        let expression = listed("SET", assignments) + &listed("REMOVE", removals);
        let names: Vec<String> = set.iter().map(|(name, _)| format!(":{name}")).collect();
        let values = set.into_iter().map(|(_, value)| value);
        let values: Vec<(&str, Value)> = names.iter().map(String::as_str).zip(values).collect();
        let mut transaction = self.transaction().persistent();
        // First, so that a caller who was cut off learns nothing from the other condition.
        let own_checks = transaction.require_authority(authority);
        transaction.update(keys::org(id), expression.trim_end(), "attribute_exists(pk)", &values);
        if let Some(notify) = &change.notify {
            transaction.subscribe(id, !notify.is_empty());
        }
        match transaction.audit(id, &entry).commit().await? {
            Committed::Yes => Ok(found(self.org(id).await?)),
            Committed::No(index) if index < own_checks => Ok(OrgSet::CallerChanged),
            Committed::No(_) => Ok(OrgSet::NotFound),
        }
    }

    /// Suspends or resumes an organization. `None` if there is no such organization.
    pub async fn set_suspended(&self, id: &OrgId, suspended: bool, caller: &Caller) -> Result<Option<Org>, StoreError> {
        let action = if suspended { "org.suspend" } else { "org.resume" };
        let entry = Entry::done(&self.clock, caller, action, Subject::new("organization", id))?;
        let mut transaction = self.transaction().persistent();
        transaction.update(
            keys::org(id),
            "SET #suspended = :suspended",
            "attribute_exists(pk)",
            &[(":suspended", suspended)],
        );
        match transaction.audit(id, &entry).commit().await? {
            Committed::Yes => self.org(id).await,
            Committed::No(_) => Ok(None),
        }
    }

    /// Adds a project to an organization. False if it already exists.
    pub async fn add_project(&self, org: &OrgId, name: &str, caller: &Caller) -> Result<bool, StoreError> {
        let entry = Entry::done(&self.clock, caller, "project.add", Subject::new("project", name))?;
        let mut transaction = self.transaction();
        transaction.put_new(keys::org_project(org, name), &Named {}).audit(org, &entry);
        Ok(transaction.commit().await? == Committed::Yes)
    }

    /// Removes a project from an organization. False if it does not exist.
    pub async fn remove_project(&self, org: &OrgId, name: &str, caller: &Caller) -> Result<bool, StoreError> {
        let entry = Entry::done(&self.clock, caller, "project.remove", Subject::new("project", name))?;
        let mut transaction = self.transaction();
        transaction.delete_existing(keys::org_project(org, name)).audit(org, &entry);
        Ok(transaction.commit().await? == Committed::Yes)
    }

    /// An organization's projects, by name.
    pub async fn projects(&self, org: &OrgId) -> Result<Vec<String>, StoreError> {
        let (pk, prefix) = keys::org_projects(org);
        self.names_in(&pk, SortKeys::StartingWith(prefix)).await
    }

    /// The names in a list: its sort keys without their common prefix.
    pub(super) async fn names_in(&self, pk: &str, sort_keys: SortKeys<'_>) -> Result<Vec<String>, StoreError> {
        let prefix = match sort_keys {
            SortKeys::StartingWith(prefix) => prefix,
            _ => "",
        };
        let mut names: Vec<String> = Vec::new();
        loop {
            let after = names.last().map(|name| format!("{prefix}{name}"));
            let range = Range::new(pk, sort_keys).start_after(after.as_deref());
            let page: Vec<(String, Named)> = self.query(range, DIRECTORY_PAGE).await?;
            let full = page.len() >= DIRECTORY_PAGE;
            names.extend(page.into_iter().map(|(sk, _)| sk[prefix.len()..].to_owned()));
            if !full {
                return Ok(names);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_item_matches_its_snapshot() {
        let org = Org {
            id: OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            name: "Example".to_owned(),
            plan: Plan::Pro.into(),
            guard: true,
            suspended: false,
            security_contacts: Vec::new(),
            leaked: LeakPolicy::default().into(),
            lifetimes: Lifetimes::default(),
            notify: Vec::new(),
            created_at: Moment::parse("2026-11-21T10:00:00Z").unwrap(),
        };
        insta::assert_json_snapshot!(org);
        let contact = EmailAddress::try_from("security@example.com".to_owned()).unwrap();
        let told = Org {
            security_contacts: vec![contact],
            leaked: LeakPolicy::TellOnly.into(),
            notify: Notify::ALL.iter().copied().map(OrUnknown::Known).collect(),
            ..org.clone()
        };
        insta::assert_json_snapshot!("org_with_security_contacts", told);
        let lifetimes =
            Lifetimes { org_user_token: Days::new(90), end_after_unused_days: Days::new(14), ..Lifetimes::default() };
        insta::assert_json_snapshot!("org_with_lifetimes", Org { lifetimes, ..org });
    }

    #[test]
    fn change_names_what_is_set_but_no_address() {
        let contact = EmailAddress::try_from("security@example.com".to_owned()).unwrap();
        let change = OrgChange {
            plan: Some(Plan::Free),
            guard: Some(false),
            security_contacts: Some(vec![contact]),
            leaked: Some(LeakPolicy::TellOnly),
            notify: Some(Notify::ALL.to_vec()),
            ..OrgChange::default()
        };
        let detail = "plan free, guard off, security contacts 1, leaked tell-only, notify new-token bot-key-rotated";
        assert_eq!(change.detail(), detail);
        assert_eq!(change.settings().unwrap().len(), 5);
        let change = OrgChange { notify: Some(Vec::new()), ..OrgChange::default() };
        assert_eq!(change.detail(), "notify none");
        let change = OrgChange { security_contacts: Some(Vec::new()), ..OrgChange::default() };
        assert_eq!(change.detail(), "security contacts 0");
        assert_eq!(change.settings().unwrap(), [("security_contacts", serde_json::json!([]))].into());
        assert!(OrgChange::default().settings().unwrap().is_empty());
        let limits = [(Limited::ApiKey, Days::new(90)), (Limited::OrgAccessToken, None)];
        let change = OrgChange {
            max_lifetime_days: limits.into(),
            end_after_unused_days: Some(Days::new(14)),
            ..OrgChange::default()
        };
        let detail = "max_lifetime_days api_key 90, max_lifetime_days org_access_token none, end_after_unused_days 14";
        assert_eq!(change.detail(), detail);
        let settings = [
            ("max_days_api_key", serde_json::json!(90)),
            ("max_days_org_access_token", Value::Null),
            ("end_after_unused_days", serde_json::json!(14)),
        ];
        assert_eq!(change.settings().unwrap(), settings.into());
    }
}
