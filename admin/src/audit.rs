//! The audit log of the deployment and all organizations.

use std::fmt;

use serde::Serialize;
use shared::Moment;
use shared::ids::OrgId;
use shared::store::audit::{Entry, Search};
use shared::store::keys::Log;

use crate::failure::Failure;
use crate::operator::Operator;
use crate::output;

/// Entries per read.
const PAGE: usize = 100;

/// Prints all entries from this time on, oldest first.
pub async fn run(since: Moment, operator: &Operator) -> Result<(), Failure> {
    let store = operator.store();
    let mut entries = Vec::new();
    let orgs = store.orgs().await?.into_iter().map(|org| (Log::from(&org.id), Some(org.id)));
    for (log, org_id) in std::iter::once((Log::Deployment, None)).chain(orgs) {
        let mut after = None;
        loop {
            let search = Search { from: Some(since), after: after.as_ref(), limit: PAGE, ..Search::default() };
            let page = store.audit_log(&log, &search).await?;
            entries.extend(page.entries.into_iter().map(|entry| EntryView { org_id: org_id.clone(), entry }));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    entries.sort_by(|a, b| a.entry.id.cmp(&b.entry.id));
    operator.answer(&EntriesView { entries })
}

#[derive(Serialize)]
struct EntryView {
    /// `None` for an entry of the deployment.
    org_id: Option<OrgId>,
    #[serde(flatten)]
    entry: Entry,
}

#[derive(Serialize)]
struct EntriesView {
    entries: Vec<EntryView>,
}

impl fmt::Display for EntriesView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |EntryView { org_id, entry }: &EntryView| {
            let (actor, target) = (&entry.actor, &entry.target);
            let org = org_id.as_ref().map_or("-", OrgId::as_str);
            let target = match &entry.detail {
                Some(detail) => format!("{}: {detail}", target.id),
                None => target.id.clone(),
            };
            let cells = [org, &entry.action, &target, entry.outcome.as_str(), &actor.id];
            let [org, action, target, outcome, actor] = cells.map(str::to_owned);
            [entry.at.to_string(), org, action, target, outcome, actor]
        };
        let rows: Vec<_> = self.entries.iter().map(row).collect();
        output::table(f, "entries", ["AT", "ORGANIZATION", "ACTION", "TARGET", "OUTCOME", "ACTOR"], &rows)
    }
}
