//! The audit log: who did what to which resource. Entries are written in the transaction of the
//! change and kept for 400 days.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::keys::Log;
use super::{Index, Range, SortKeys, Store, StoreError, keys};
use crate::clock::{Clock, Moment};
use crate::domain::OrUnknown;
use crate::ids::{AuditId, BotId, TokenId};
use crate::secret::RandomnessUnavailable;

/// How long entries are kept.
pub const RETENTION: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// The actor or target of an action: a kind and a management ID, never a secret or an email
/// address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredSubject")]
pub struct Subject {
    /// Its kind: `bot`, `operator`, `org_user_token`, `organization`…
    pub kind: String,
    /// Its ID.
    pub id: String,
}

impl Subject {
    /// A subject of this kind.
    pub fn new(kind: &str, id: impl ToString) -> Self {
        Self { kind: kind.to_owned(), id: id.to_string() }
    }
}

/// Who acted, in both stored forms: version 0.1 stored the ID alone for the creator of a token and
/// for who revoked it.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredSubject {
    Pair { kind: String, id: String },
    Id(String),
}

impl From<StoredSubject> for Subject {
    fn from(stored: StoredSubject) -> Self {
        match stored {
            StoredSubject::Pair { kind, id } => Self { kind, id },
            StoredSubject::Id(id) if BotId::parse(&id).is_some() => Self::new("bot", id),
            StoredSubject::Id(id) if TokenId::parse(&id).is_some() => Self::new("api_key", id),
            StoredSubject::Id(id) => Self::new("operator", id),
        }
    }
}

/// The caller of a change, for its audit entry.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The principal.
    pub actor: Subject,
    /// The source address of the request; `None` for `guardctl`.
    pub source_ip: Option<IpAddr>,
    /// The request ID.
    pub request_id: String,
    /// The CI job that acts as the principal, if one does.
    pub workload: Option<String>,
}

/// Whether the action succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Outcome {
    /// It succeeded.
    Done,
    /// It was refused because of a role or plan.
    Refused,
}

/// An audit log entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its ID, which sorts by time.
    pub id: AuditId,
    /// The time of the action.
    pub at: Moment,
    /// Who acted.
    pub actor: Subject,
    /// The action: `<resource>.<verb>`, after the function's name.
    pub action: String,
    /// What was acted on.
    pub target: Subject,
    /// What was set, where the target does not tell. Never a secret or an email address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The CI job that acted as the bot, as its ID token names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// How many actions the entry stands for, if they share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Whether it succeeded.
    pub outcome: OrUnknown<Outcome>,
    /// The source address of the request.
    pub source_ip: Option<IpAddr>,
    /// The request ID.
    pub request_id: String,
}

impl Entry {
    /// An entry for an action that happens now.
    pub fn done(clock: &Clock, caller: &Caller, action: &str, target: Subject) -> Result<Self, RandomnessUnavailable> {
        Ok(Self {
            id: AuditId::new(clock)?,
            at: clock.now(),
            actor: caller.actor.clone(),
            action: action.to_owned(),
            target,
            detail: None,
            workload: caller.workload.clone(),
            count: None,
            outcome: Outcome::Done.into(),
            source_ip: caller.source_ip,
            request_id: caller.request_id.clone(),
        })
    }

    /// The same entry with what was set.
    pub(super) fn with_detail(self, detail: String) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// The same entry for a refused action.
    pub fn refused(self) -> Self {
        Self { outcome: Outcome::Refused.into(), ..self }
    }
}

/// An entry with its index partition keys and TTL.
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

/// Maximum reads per call if filters drop most entries, and entries per read. After that, the call
/// returns a partial page with a cursor.
const ROUNDS: usize = 10;
const ROUND: usize = 100;

/// A search with filters, all of which must match.
#[derive(Debug, Clone, Default)]
pub struct Search<'a> {
    /// By this actor ID.
    pub actor: Option<&'a str>,
    /// Of this action.
    pub action: Option<&'a str>,
    /// On the target with this ID.
    pub target: Option<&'a str>,
    /// At this time or later.
    pub from: Option<Moment>,
    /// Before this time.
    pub to: Option<Moment>,
    /// After this entry, in page order.
    pub after: Option<&'a AuditId>,
    /// Maximum number of results, at least 1.
    pub limit: usize,
}

/// A page of a log.
#[derive(Debug, Default)]
pub struct Page {
    /// The entries, newest first.
    pub entries: Vec<Entry>,
    /// The entry after which the next page starts; `None` on the last page.
    pub next: Option<AuditId>,
}

impl Search<'_> {
    /// The most selective index for this search, and its partition.
    fn index(&self, log: &Log) -> Option<(Index, String)> {
        let ((name, pk), values) = match (self.actor, self.action, self.target) {
            // Most targets have only a few entries. Organizations have many, because of refusals.
            (_, _, Some(target)) => (keys::AUDIT_BY_TARGET, vec![target]),
            (Some(actor), Some(action), None) => (keys::AUDIT_BY_ACTOR_AND_ACTION, vec![actor, action]),
            (Some(actor), None, None) => (keys::AUDIT_BY_ACTOR, vec![actor]),
            (None, Some(action), None) => (keys::AUDIT_BY_ACTION, vec![action]),
            (None, None, None) => return None,
        };
        let index = Index { name, pk, table_pk: keys::audit_log(log) };
        Some((index, keys::audit_index(log, &values)))
    }

    fn matches(&self, entry: &Entry) -> bool {
        self.actor.is_none_or(|actor| entry.actor.id == actor)
            && self.action.is_none_or(|action| entry.action == action)
            && self.target.is_none_or(|target| entry.target.id == target)
    }
}

impl Store {
    /// Reads a log, newest first. Without filters the result is strongly consistent; with filters
    /// it is eventually consistent, within seconds.
    pub async fn audit_log(&self, log: &Log, search: &Search<'_>) -> Result<Page, StoreError> {
        // IDs sort by creation time, so a time maps to a sort key.
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
            // One extra entry shows whether there is a next page. Later rounds read more, because
            // the filter drops most.
            let wanted = search.limit - page.entries.len();
            let asked = if round == 0 { wanted + 1 } else { wanted.max(ROUND) + 1 };
            let sort_keys = SortKeys::Between(first.as_str(), last.as_str());
            let range = Range::new(&pk, sort_keys).start_after(after.as_ref().map(AuditId::as_str)).newest_first();
            let found: Vec<(String, Entry)> = self.query(Range { index: index.clone(), ..range }, asked).await?;
            let (count, mut looked_at) = (found.len(), 0);
            for (_, entry) in found {
                if looked_at + 1 == asked || page.entries.len() == search.limit {
                    break;
                }
                looked_at += 1;
                after = Some(entry.id.clone());
                if search.matches(&entry) {
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
        // The page is full, or this call has read enough: the cursor leads to the rest.
        page.next = after;
        Ok(page)
    }

    /// Writes an entry without a change, for refused actions.
    pub async fn record_refusal(&self, log: impl Into<Log>, entry: &Entry) -> Result<(), StoreError> {
        self.transaction().audit(log, entry).commit().await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OrgId;

    #[test]
    fn subjects_that_version_0_1_stored_are_read() {
        for (stored, kind, id) in [
            (r#""BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC""#, "bot", "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
            (r#""01KAJ8M4R2X7Z9V5T3Q1N6P8WC""#, "api_key", "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
            (r#""guardctl""#, "operator", "guardctl"),
            (r#"{"kind":"member","id":"MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC"}"#, "member", "MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
        ] {
            assert_eq!(serde_json::from_str::<Subject>(stored).unwrap(), Subject::new(kind, id), "{stored}");
        }
    }

    #[test]
    fn stored_item_matches_its_snapshot() {
        let clock = Clock::manual(Moment::parse("2026-11-21T10:00:00Z").unwrap());
        let entry = Entry {
            id: AuditId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            at: clock.now(),
            actor: Subject::new("bot", "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
            action: "org_user_token.issue".to_owned(),
            target: Subject::new("org_user_token", "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
            detail: None,
            workload: None,
            count: None,
            outcome: Outcome::Done.into(),
            source_ip: Some(IpAddr::from([203, 0, 113, 7])),
            request_id: "request-1".to_owned(),
        };
        let log = Log::Org(OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap());
        insta::assert_json_snapshot!(stored(&log, &entry));
    }
}
