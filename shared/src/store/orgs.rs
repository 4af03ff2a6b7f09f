//! Organizations and their projects: made and changed by the operator's command, read by every guard.

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::keys::{self, ORGS};
use super::{Committed, Places, Range, Store, StoreError};
use crate::clock::Moment;
use crate::domain::Plan;
use crate::ids::OrgId;

/// An organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Org {
    /// Its id.
    pub id: OrgId,
    /// Its name, for people.
    pub name: String,
    /// What it pays for.
    pub plan: Plan,
    /// Whether its subscription has Guard enabled.
    pub guard: bool,
    /// Since when it exists.
    pub created_at: Moment,
}

/// An organization's entry in the directory of all, and a project's in its organization: the key says it all.
#[derive(Serialize, Deserialize)]
struct Named {}

/// How many entries one read of a directory asks for; all are read in the end.
const DIRECTORY_PAGE: usize = 1_000;

impl Store {
    /// Reads an organization.
    pub async fn org(&self, id: &OrgId) -> Result<Option<Org>, StoreError> {
        self.get(keys::org(id)).await
    }

    /// All organizations, by id: so by age. For the operator alone.
    pub async fn orgs(&self) -> Result<Vec<Org>, StoreError> {
        let ids = self.names_in(ORGS, Places::All).await?;
        let mut orgs: Vec<Org> = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(100) {
            let ids = chunk.iter().filter_map(|id| OrgId::parse(id));
            orgs.extend(self.get_all(ids.map(|id| keys::org(&id)).collect()).await?);
        }
        orgs.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(orgs)
    }

    /// Makes an organization.
    pub async fn create_org(&self, name: &str, plan: Plan, guard: bool, caller: &Caller) -> Result<Org, StoreError> {
        let id = OrgId::new(&self.clock)?;
        let org = Org { id, name: name.to_owned(), plan, guard, created_at: self.clock.now() };
        let entry = Entry::done(&self.clock, caller, "org.create", Subject::new("organization", &org.id))?;
        let mut transaction = self.transaction();
        transaction.put_new(keys::org(&org.id), &org).put_new(keys::org_in_directory(&org.id), &Named {});
        match transaction.audit(&org.id, &entry).commit().await? {
            Committed::Yes => Ok(org),
            // 80 random bits came twice: the generator is broken.
            Committed::No(_) => Err(StoreError::Defect),
        }
    }

    /// Changes an organization's plan, or whether it has Guard. `None` if there is no such organization.
    pub async fn set_org(
        &self,
        id: &OrgId,
        plan: Option<Plan>,
        guard: Option<bool>,
        caller: &Caller,
    ) -> Result<Option<Org>, StoreError> {
        let Some(org) = self.org(id).await? else { return Ok(None) };
        let changed = Org { plan: plan.unwrap_or(org.plan), guard: guard.unwrap_or(org.guard), ..org };
        let entry = Entry::done(&self.clock, caller, "org.set", Subject::new("organization", id))?;
        let mut transaction = self.transaction();
        // Only what was asked for: two operators who change plan and Guard at once both get their way.
        match (plan, guard) {
            (Some(plan), Some(guard)) => {
                let guard = serde_json::Value::Bool(guard);
                let plan = serde_json::to_value(plan).map_err(|_| StoreError::Defect)?;
                let values = [(":plan", plan), (":guard", guard)];
                transaction.update(
                    keys::org(id),
                    "SET #plan = :plan, #guard = :guard",
                    "attribute_exists(pk)",
                    &values,
                );
            }
            (Some(plan), None) => {
                transaction.update(keys::org(id), "SET #plan = :plan", "attribute_exists(pk)", &[(":plan", plan)]);
            }
            (None, Some(guard)) => {
                transaction.update(keys::org(id), "SET #guard = :guard", "attribute_exists(pk)", &[(":guard", guard)]);
            }
            (None, None) => return Ok(Some(changed)),
        }
        match transaction.audit(id, &entry).commit().await? {
            Committed::Yes => self.org(id).await,
            Committed::No(_) => Ok(None),
        }
    }

    /// Adds a project to an organization. False if there was one of this name.
    pub async fn add_project(&self, org: &OrgId, name: &str, caller: &Caller) -> Result<bool, StoreError> {
        let entry = Entry::done(&self.clock, caller, "project.add", Subject::new("project", name))?;
        let mut transaction = self.transaction();
        transaction.put_new(keys::org_project(org, name), &Named {}).audit(org, &entry);
        Ok(transaction.commit().await? == Committed::Yes)
    }

    /// Removes a project from an organization. False if there was none of this name.
    pub async fn remove_project(&self, org: &OrgId, name: &str, caller: &Caller) -> Result<bool, StoreError> {
        let entry = Entry::done(&self.clock, caller, "project.remove", Subject::new("project", name))?;
        let mut transaction = self.transaction();
        transaction.delete_existing(keys::org_project(org, name)).audit(org, &entry);
        Ok(transaction.commit().await? == Committed::Yes)
    }

    /// An organization's projects, by name.
    pub async fn projects(&self, org: &OrgId) -> Result<Vec<String>, StoreError> {
        let (pk, prefix) = keys::org_projects(org);
        self.names_in(&pk, Places::BeginningWith(prefix)).await
    }

    /// The names under which a directory's entries lie, without what all of them begin with.
    pub(super) async fn names_in(&self, pk: &str, places: Places<'_>) -> Result<Vec<String>, StoreError> {
        let prefix = match places {
            Places::BeginningWith(prefix) => prefix,
            _ => "",
        };
        let mut names: Vec<String> = Vec::new();
        loop {
            let after = names.last().map(|name| format!("{prefix}{name}"));
            let range = Range::new(pk, places).behind(after.as_deref());
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
    fn the_stored_shape_is_pinned() {
        insta::assert_json_snapshot!(Org {
            id: OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            name: "Example".to_owned(),
            plan: Plan::Pro,
            guard: true,
            created_at: Moment::parse("2026-11-21T10:00:00Z").unwrap(),
        });
    }
}
