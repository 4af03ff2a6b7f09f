//! The `org` commands.

use std::fmt;

use serde::Serialize;
use shared::Moment;
use shared::domain::{LeakPolicy, Notify, OrUnknown, Plan};
use shared::email::EmailAddress;
use shared::ids::OrgId;
use shared::store::lifetimes::{Days, Lifetimes};
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
            let change = OrgChange {
                plan: change.plan,
                guard: change.guard,
                security_contacts: change.security_contacts(),
                leaked: change.leaked,
                max_lifetime_days: change.max_lifetime_days(),
                end_after_unused_days: change.end_after_unused_days(),
                notify: change.notify(),
            };
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
    max_lifetime_days: MaxLifetimes,
    end_after_unused_days: Option<Days>,
    notify: Vec<OrUnknown<Notify>>,
    created_at: Moment,
}

/// The longest lifetimes, by kind.
#[derive(Serialize)]
struct MaxLifetimes {
    org_user_token: Option<Days>,
    api_key: Option<Days>,
    org_access_token: Option<Days>,
}

impl From<Org> for OrgView {
    fn from(org: Org) -> Self {
        let Org { id, name, plan, guard, suspended, security_contacts, leaked, lifetimes, notify, created_at } = org;
        let Lifetimes { org_user_token, api_key, org_access_token, end_after_unused_days } = lifetimes;
        let max_lifetime_days = MaxLifetimes { org_user_token, api_key, org_access_token };
        Self {
            id,
            name,
            plan,
            guard,
            suspended,
            security_contacts,
            leaked,
            max_lifetime_days,
            end_after_unused_days,
            notify,
            created_at,
        }
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

fn in_days(days: Days) -> String {
    if days.get() == 1 { "1 day".to_owned() } else { format!("{days} days") }
}

impl OrgView {
    fn max_lifetimes(&self) -> String {
        let MaxLifetimes { org_user_token, api_key, org_access_token } = self.max_lifetime_days;
        let limits = [("org_user_token", org_user_token), ("api_key", api_key), ("org_access_token", org_access_token)];
        let set = limits.into_iter().filter_map(|(kind, days)| days.map(|days| format!("{kind} {}", in_days(days))));
        Some(set.collect::<Vec<_>>().join(", ")).filter(|set| !set.is_empty()).unwrap_or_else(|| "none".to_owned())
    }
}

impl OrgView {
    fn notify(&self) -> String {
        match &*self.notify {
            [] => "nothing".to_owned(),
            notify => notify.iter().map(|notify| notify.as_str()).collect::<Vec<_>>().join(", "),
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
            ("longest lifetimes", self.max_lifetimes()),
            (
                "unused tokens end",
                self.end_after_unused_days.map_or("never".to_owned(), |days| format!("after {}", in_days(days))),
            ),
            ("told also of", self.notify()),
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
