//! The audit log: who did what to which thing, written in the transaction of the deed. Kept 400 days.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Index, Places, Range, Store, StoreError, keys};
use crate::clock::{Clock, Moment};
use crate::email::AddressHash;
use crate::ids::{AuditId, OrgId};
use crate::secret::RandomnessUnavailable;

/// How long an entry is kept.
pub const RETENTION: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// A thing and its id: who acted, or what was acted on. The id is a management id, never a secret or an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Which kind of thing: `bot`, `operator`, `org_user_token`, `organization`…
    pub kind: String,
    /// Its id.
    pub id: String,
}

impl Subject {
    /// A thing of this kind.
    pub fn new(kind: &str, id: impl ToString) -> Self {
        Self { kind: kind.to_owned(), id: id.to_string() }
    }
}

/// Who asks for a change, and from where.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The principal.
    pub actor: Subject,
    /// The address the request came from; the operator's command has none.
    pub source_ip: Option<IpAddr>,
    /// The id of the request.
    pub request_id: String,
}

/// Whether the deed was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was.
    Done,
    /// It was refused, for role or plan.
    Refused,
}

/// Whose log an entry is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Log {
    /// An organization's: what its auditors read.
    Org(OrgId),
    /// An e-mail address's: tokens of persons belong to no organization. Read by the operator alone.
    Address(AddressHash),
}

impl From<&OrgId> for Log {
    fn from(org: &OrgId) -> Self {
        Log::Org(org.clone())
    }
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id, which sorts by time.
    pub id: AuditId,
    /// When.
    pub at: Moment,
    /// Who.
    pub actor: Subject,
    /// What: `<resource>.<verb>`, after the function's name.
    pub action: String,
    /// To what.
    pub target: Subject,
    /// With which outcome.
    pub outcome: Outcome,
    /// From where.
    pub source_ip: Option<IpAddr>,
    /// In which request.
    pub request_id: String,
}

impl Entry {
    /// An entry for what is being done now.
    pub fn done(clock: &Clock, caller: &Caller, action: &str, target: Subject) -> Result<Self, RandomnessUnavailable> {
        Ok(Self {
            id: AuditId::new(clock)?,
            at: clock.now(),
            actor: caller.actor.clone(),
            action: action.to_owned(),
            target,
            outcome: Outcome::Done,
            source_ip: caller.source_ip,
            request_id: caller.request_id.clone(),
        })
    }

    /// The same entry for what is being refused now.
    pub fn refused(self) -> Self {
        Self { outcome: Outcome::Refused, ..self }
    }
}

/// An entry with what the indexes and the time to live look at.
#[derive(Serialize)]
pub(super) struct Stored<'a> {
    #[serde(flatten)]
    entry: &'a Entry,
    actor_pk: String,
    action_pk: String,
    actor_action_pk: String,
    target_pk: String,
    ttl: i64,
}

pub(super) fn stored<'a>(log: &Log, entry: &'a Entry) -> Stored<'a> {
    Stored {
        entry,
        actor_pk: keys::audit_index(log, &[&entry.actor.id]),
        action_pk: keys::audit_index(log, &[&entry.action]),
        actor_action_pk: keys::audit_index(log, &[&entry.actor.id, &entry.action]),
        target_pk: keys::audit_index(log, &[&entry.target.id]),
        ttl: entry.at.plus(RETENTION).epoch_seconds(),
    }
}

/// How many times one call reads on for entries that all filters let through, and how many it looks at each time. A call
/// that finds too few answers a page that is not full, with a cursor.
const ROUNDS: usize = 10;
const ROUND: usize = 100;

/// Which entries to read, and from where on. What is given must all hold.
#[derive(Debug, Clone, Default)]
pub struct Search<'a> {
    /// By this actor's id.
    pub actor: Option<&'a str>,
    /// Of this action.
    pub action: Option<&'a str>,
    /// To the target of this id.
    pub target: Option<&'a str>,
    /// At this moment or later.
    pub from: Option<Moment>,
    /// Before this moment.
    pub to: Option<Moment>,
    /// Behind this entry.
    pub after: Option<&'a AuditId>,
    /// At most so many, at least one.
    pub limit: usize,
}

/// A part of a log.
#[derive(Debug, Default)]
pub struct Page {
    /// The entries, newest first.
    pub entries: Vec<Entry>,
    /// The entry behind which the next part begins; `None` where this was the last.
    pub next: Option<AuditId>,
}

impl Search<'_> {
    /// The index that holds the fewest entries besides those searched for, and its partition.
    fn index(&self, log: &Log) -> Option<(Index, String)> {
        let ((name, pk), values) = match (self.actor, self.action, self.target) {
            // Few things are acted on more than a handful of times; an organization is, by refusals.
            (_, _, Some(target)) => (keys::AUDIT_BY_TARGET, vec![target]),
            (Some(actor), Some(action), None) => (keys::AUDIT_BY_ACTOR_AND_ACTION, vec![actor, action]),
            (Some(actor), None, None) => (keys::AUDIT_BY_ACTOR, vec![actor]),
            (None, Some(action), None) => (keys::AUDIT_BY_ACTION, vec![action]),
            (None, None, None) => return None,
        };
        let index = Index { name, pk, table_pk: keys::audit_log(log) };
        Some((index, keys::audit_index(log, &values)))
    }

    fn finds(&self, entry: &Entry) -> bool {
        self.actor.is_none_or(|actor| entry.actor.id == actor)
            && self.action.is_none_or(|action| entry.action == action)
            && self.target.is_none_or(|target| entry.target.id == target)
    }
}

impl Store {
    /// Reads a log, newest first. Without a filter what the last answered change left is in it; the indexes behind the
    /// filters follow within seconds.
    pub async fn audit_log(&self, log: &Log, search: &Search<'_>) -> Result<Page, StoreError> {
        // Ids sort by the time they were made at, so a time is a place.
        let first = search.from.map_or(AuditId::first_at(Moment::EPOCH), AuditId::first_at);
        let last = match search.to {
            Some(to) if to <= Moment::EPOCH => return Ok(Page::default()),
            Some(to) => AuditId::last_before(to),
            None => AuditId::last(),
        };
        if first > last || search.after.is_some_and(|after| *after < first || *after > last) {
            return Ok(Page::default());
        }
        let (index, pk) = search.index(log).map_or((None, keys::audit_log(log)), |(index, pk)| (Some(index), pk));
        let mut page = Page::default();
        let mut after = search.after.cloned();
        for round in 0..ROUNDS {
            // One more than wanted tells whether there is a next page. Where a filter lets little through, more at a time.
            let wanted = search.limit - page.entries.len();
            let asked = if round == 0 { wanted + 1 } else { wanted.max(ROUND) + 1 };
            let places = Places::Between(first.as_str(), last.as_str());
            let range = Range::new(&pk, places).behind(after.as_ref().map(AuditId::as_str)).newest_first();
            let found: Vec<(String, Entry)> = self.query(Range { index: index.clone(), ..range }, asked).await?;
            let (count, mut looked_at) = (found.len(), 0);
            for (_, entry) in found {
                if looked_at + 1 == asked || page.entries.len() == search.limit {
                    break;
                }
                looked_at += 1;
                after = Some(entry.id.clone());
                if search.finds(&entry) {
                    page.entries.push(entry);
                }
            }
            if looked_at == count {
                return Ok(page);
            }
            if page.entries.len() == search.limit {
                break;
            }
        }
        // The page is full, or enough was looked at for one call: what is left is behind the cursor.
        page.next = after;
        Ok(page)
    }

    /// Leaves an entry on its own: for refusals, which change nothing else.
    pub async fn record_refusal(&self, log: impl Into<Log>, entry: &Entry) -> Result<(), StoreError> {
        self.transaction().audit(log, entry).commit().await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_shape_is_pinned() {
        let clock = Clock::manual(Moment::parse("2026-11-21T10:00:00Z").unwrap());
        let entry = Entry {
            id: AuditId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            at: clock.now(),
            actor: Subject::new("bot", "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
            action: "org_user_token.issue".to_owned(),
            target: Subject::new("org_user_token", "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
            outcome: Outcome::Done,
            source_ip: Some(IpAddr::from([203, 0, 113, 7])),
            request_id: "request-1".to_owned(),
        };
        let log = Log::Org(OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap());
        insta::assert_json_snapshot!(stored(&log, &entry));
    }
}
