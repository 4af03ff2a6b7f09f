//! The `org` commands.

use std::fmt;

use serde::Serialize;
use shared::Moment;
use shared::domain::{LeakPolicy, OrUnknown, Plan};
use shared::email::EmailAddress;
use shared::ids::OrgId;
use shared::store::orgs::{Org, OrgChange};

use crate::cli::OrgCommand;
use crate::failure::Failure;
use crate::operator::Operator;
use crate::output;

/// Runs an `org` command.
pub async fn run(command: OrgCommand, operator: &Operator) -> Result<(), Failure> {
    let (store, caller) = (operator.store(), &operator.caller);
    match command {
        OrgCommand::Create { name, plan, guard } => {
            let made = store.create_org(&name, plan, guard, caller).await;
            let look = "the organization may have been created anyway: check with `guardctl org list`";
            operator.answer(&OrgView::from(made.map_err(Failure::of_change(look))?))
        }
        OrgCommand::Set { org, change } => {
            let security_contacts = change.security_contacts();
            let change = OrgChange { plan: change.plan, guard: change.guard, security_contacts, leaked: change.leaked };
            let changed = store.set_org(&org, &change, caller).await?;
            operator.answer(&OrgView::from(changed.ok_or(Failure::NoSuchOrg(org))?))
        }
        OrgCommand::Suspend { org } => {
            let changed = store.set_suspended(&org, true, caller).await?;
            operator.answer(&OrgView::from(changed.ok_or(Failure::NoSuchOrg(org))?))
        }
        OrgCommand::Resume { org } => {
            let changed = store.set_suspended(&org, false, caller).await?;
            operator.answer(&OrgView::from(changed.ok_or(Failure::NoSuchOrg(org))?))
        }
        OrgCommand::Show { org } => {
            let found = store.org(&org).await?;
            operator.answer(&OrgView::from(found.ok_or(Failure::NoSuchOrg(org))?))
        }
        OrgCommand::List => {
            let organizations = store.orgs().await?.into_iter().map(OrgView::from).collect();
            operator.answer(&OrgsView { organizations })
        }
    }
}

#[derive(Serialize)]
struct OrgView {
    id: OrgId,
    name: String,
    plan: OrUnknown<Plan>,
    guard: bool,
    suspended: bool,
    security_contacts: Vec<EmailAddress>,
    leaked: OrUnknown<LeakPolicy>,
    created_at: Moment,
}

impl From<Org> for OrgView {
    fn from(org: Org) -> Self {
        let Org { id, name, plan, guard, suspended, security_contacts, leaked, created_at } = org;
        Self { id, name, plan, guard, suspended, security_contacts, leaked, created_at }
    }
}

impl OrgView {
    /// Guard as text. A suspended organization cannot use it.
    fn guard(&self) -> &'static str {
        match (self.guard, self.suspended) {
            (true, false) => "on",
            (false, false) => "off",
            (true, true) => "on (suspended)",
            (false, true) => "off (suspended)",
        }
    }
}

impl OrgView {
    fn security_contacts(&self) -> String {
        match &*self.security_contacts {
            [] => "none".to_owned(),
            contacts => contacts.iter().map(EmailAddress::expose).collect::<Vec<_>>().join(", "),
        }
    }
}

impl fmt::Display for OrgView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = [
            ("name", self.name.clone()),
            ("plan", self.plan.as_str().to_owned()),
            ("guard", self.guard().to_owned()),
            ("security contacts", self.security_contacts()),
            ("leaked tokens", self.leaked.as_str().to_owned()),
            ("created", self.created_at.to_string()),
        ];
        output::card(f, &format!("Organization {}", self.id), &lines)
    }
}

#[derive(Serialize)]
struct OrgsView {
    organizations: Vec<OrgView>,
}

impl fmt::Display for OrgsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |org: &OrgView| {
            let (plan, guard) = (org.plan.as_str().to_owned(), org.guard().to_owned());
            [org.id.to_string(), plan, guard, org.created_at.to_string(), org.name.clone()]
        };
        let rows: Vec<_> = self.organizations.iter().map(row).collect();
        output::table(f, "organizations", ["ID", "PLAN", "GUARD", "CREATED", "NAME"], &rows)
    }
}
