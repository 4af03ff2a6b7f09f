//! Sessions of people in the console.
//!
//! A session is one item under the hash of its secret, read with a strongly consistent read on
//! every request, and a pointer in the partition of its person. Ending a session deletes both, so it
//! holds for the next request.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::keys::Log;
use super::leaks::{Cause, Contact, Recipient};
use super::members::Member;
use super::{Committed, Range, SortKeys, Store, StoreError, keys};
use crate::clock::Moment;
use crate::email::{EmailAddress, Language};
use crate::ids::{OrgId, SessionId};
use crate::person::{Person, PersonId};
use crate::secret::{Token, TokenHash, TokenKind};

/// A session ends this long after it started.
pub const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A session ends this long after its last request.
pub const IDLE_LIFETIME: Duration = Duration::from_secs(8 * 60 * 60);

/// `last_used_at` is updated at most this often.
const TOUCHED_EVERY: Duration = Duration::from_secs(10 * 60);

/// Sessions of one person. The oldest end when another one starts, and one transaction ends all.
const MAX_SESSIONS: usize = 20;

/// Sessions of one person that are read at once. Sessions that start at the same time may exceed the
/// maximum.
const MAX_READ: usize = 2 * MAX_SESSIONS;

/// Organizations whose audit logs say that a member's session started or ended. With two writes for
/// each of twice [`MAX_SESSIONS`], that is as much as fits in a transaction.
const MAX_LOGS: usize = 20;

/// The maximum length of a stored `User-Agent`, in characters.
const LONGEST_AGENT: usize = 200;

/// A stored session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its ID, which does not open it.
    pub id: SessionId,
    /// The person.
    pub person: PersonId,
    /// How the person signed in: an identity provider's issuer URL, or `mail`.
    pub issuer: String,
    /// The person's verified address.
    pub email: EmailAddress,
    /// The language that the person has chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
    /// When it started.
    pub created_at: Moment,
    /// When it was last used, exact to ten minutes.
    pub last_used_at: Moment,
    /// When it ends at the latest.
    pub expires_at: Moment,
    /// The address that it was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<IpAddr>,
    /// The browser that it was started in, as that names itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

impl Session {
    /// The name of this kind in audit entries.
    pub const SUBJECT: &str = "session";

    /// Whether it is active at this time.
    pub fn is_active(&self, now: Moment) -> bool {
        now < self.expires_at && now < self.last_used_at.plus(IDLE_LIFETIME)
    }

    /// The person.
    pub fn person(&self) -> Person {
        Person { issuer: self.issuer.clone(), id: self.person, email: self.email.clone() }
    }
}

/// A session with its time to live.
#[derive(Serialize)]
struct Stored<'a> {
    #[serde(flatten)]
    session: &'a Session,
    ttl: i64,
}

/// The pointer from a person to a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pointer {
    hash: TokenHash,
    ttl: i64,
}

/// What is kept about a person, whatever the session.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Settings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    language: Option<Language>,
}

impl Store {
    /// Starts a session of a person. Its secret is returned only here.
    pub async fn start_session(
        &self,
        person: &Person,
        user_agent: Option<&str>,
        caller: &Caller,
    ) -> Result<(Session, Token), StoreError> {
        let secret = Token::generate(TokenKind::Session)?;
        let (settings, memberships, mut pointers) = futures::try_join!(
            self.get::<Settings>(keys::person(person.id)),
            self.memberships(person.id),
            self.session_pointers(person.id)
        )?;
        let now = self.clock.now();
        let session = Session {
            id: SessionId::new(&self.clock)?,
            person: person.id,
            issuer: person.issuer.clone(),
            email: person.email.clone(),
            language: settings.and_then(|settings| settings.language),
            created_at: now,
            last_used_at: now,
            expires_at: now.plus(LIFETIME),
            source_ip: caller.source_ip,
            user_agent: user_agent.map(|agent| agent.chars().take(LONGEST_AGENT).collect()),
        };
        let ttl = session.expires_at.epoch_seconds();
        let mut transaction = self.transaction();
        transaction
            .put_new(keys::session(secret.hash()), &Stored { session: &session, ttl })
            .put_new(keys::session_of(person.id, &session.id), &Pointer { hash: secret.hash(), ttl });
        // The pointers are in the order of age.
        let too_many = (pointers.len() + 1).saturating_sub(MAX_SESSIONS);
        for (id, pointer) in pointers.drain(..too_many) {
            transaction.delete(keys::session(pointer.hash)).delete(keys::session_of(person.id, &id));
        }
        for member in memberships.iter().take(MAX_LOGS) {
            let caller = Caller { actor: member.subject(), ..caller.clone() };
            let target = Subject::new(Session::SUBJECT, &session.id);
            transaction.audit(&member.org_id, &Entry::done(&self.clock, &caller, "session.start", target)?);
        }
        match transaction.commit().await? {
            Committed::Yes => Ok((session, secret)),
            // A collision of 214 random bits: the generator is broken.
            Committed::No(_) => Err(StoreError::Defect),
        }
    }

    /// The active session with this secret, with one strongly consistent read.
    pub async fn session(&self, secret: TokenHash) -> Result<Option<Session>, StoreError> {
        let session: Option<Session> = self.get(keys::session(secret)).await?;
        Ok(session.filter(|session| session.is_active(self.clock.now())))
    }

    /// Updates when a session was last used, at most every ten minutes. It never revives an ended
    /// session and never fails the request.
    pub async fn touch_session(&self, secret: TokenHash, session: &Session) {
        let now = self.clock.now();
        if now < session.last_used_at.plus(TOUCHED_EVERY) {
            return;
        }
        let values = [(":now", now)];
        let condition = "attribute_exists(pk) AND #last_used_at < :now";
        let touching = self.update(keys::session(secret), "SET #last_used_at = :now", condition, &values);
        if !matches!(tokio::time::timeout(self.patience, touching).await, Ok(Ok(_))) {
            tracing::warn!("a session's last_used_at was not updated");
        }
    }

    /// The active sessions of a person, newest first.
    pub async fn sessions_of(&self, person: PersonId) -> Result<Vec<Session>, StoreError> {
        let pointers = self.session_pointers(person).await?;
        let hashes = pointers.into_iter().map(|(_, pointer)| keys::session(pointer.hash)).collect();
        let mut sessions: Vec<Session> = self.get_all(hashes).await?;
        let now = self.clock.now();
        sessions.retain(|session| session.is_active(now));
        sessions.sort_by(|a, b| b.id.cmp(&a.id));
        Ok(sessions)
    }

    /// Ends one session of a person. False if there is no such session.
    pub async fn end_session(&self, person: PersonId, id: &SessionId, caller: &Caller) -> Result<bool, StoreError> {
        let mut pointers = self.session_pointers(person).await?;
        pointers.retain(|(known, _)| known == id);
        let found = !pointers.is_empty();
        self.end(person, &pointers, &self.memberships(person).await?, caller).await?;
        Ok(found)
    }

    /// Ends all sessions of a person at the person's own wish.
    pub async fn end_own_sessions(&self, person: PersonId, caller: &Caller) -> Result<(), StoreError> {
        let memberships = self.memberships(person).await?;
        loop {
            // Sessions that started at the same time may be more than one read returns.
            let pointers = self.session_pointers(person).await?;
            self.end(person, &pointers, &memberships, caller).await?;
            if pointers.len() < MAX_READ {
                return Ok(());
            }
        }
    }

    /// Ends a session whose secret has leaked, and says so in the logs of the person's organizations,
    /// or in that of the address. False if it ended before.
    pub(super) async fn end_leaked_session(
        &self,
        session: &Session,
        secret: TokenHash,
        cause: Cause<'_>,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        let address = session.email.hash();
        let memberships = self.memberships(session.person).await?;
        let mut logs: Vec<Log> = memberships.iter().take(MAX_LOGS).map(|member| Log::from(&member.org_id)).collect();
        if logs.is_empty() {
            logs.push(Log::Address(address));
        }
        let entry = cause.entry(&self.clock, caller, Session::SUBJECT, Subject::new(Session::SUBJECT, &session.id))?;
        let contact = Contact { email: session.email.clone(), language: session.language.unwrap_or_default() };
        let mut transaction = self.transaction().persistent();
        transaction.delete_existing(keys::session(secret)).delete(keys::session_of(session.person, &session.id));
        for log in logs {
            transaction.audit(log, &entry);
        }
        transaction.tell(cause, secret, &Recipient::at(address), Some(contact), &entry);
        Ok(transaction.commit().await? == Committed::Yes)
    }

    /// Ends all sessions of a member at the wish of somebody else in the organization. The audit
    /// logs of other organizations show nothing.
    pub async fn sign_out_member(&self, member: &Member, caller: &Caller) -> Result<(), StoreError> {
        loop {
            let pointers = self.session_pointers(member.person).await?;
            let entry = Entry::done(&self.clock, caller, "session.end", member.subject())?;
            self.delete_sessions(member.person, &pointers, &[(member.org_id.clone(), entry)]).await?;
            if pointers.len() < MAX_READ {
                return Ok(());
            }
        }
    }

    /// Ends the sessions of somebody whose membership ended at this moment, but none that started in a
    /// later second. The audit logs of other organizations show nothing.
    pub(super) async fn sign_out_leaver(
        &self,
        member: &Member,
        ended_at: Moment,
        caller: &Caller,
    ) -> Result<(), StoreError> {
        let later = ended_at.plus(Duration::from_secs(1)).epoch_milliseconds();
        loop {
            let mut pointers = self.session_pointers(member.person).await?;
            let is_all = pointers.len() < MAX_READ;
            pointers.retain(|(id, _)| id.milliseconds() < later);
            if pointers.is_empty() {
                return Ok(());
            }
            let entry = Entry::done(&self.clock, caller, "session.end", member.subject())?;
            self.delete_sessions(member.person, &pointers, &[(member.org_id.clone(), entry)]).await?;
            if is_all {
                return Ok(());
            }
        }
    }

    /// Ends these sessions, and says so in the logs of the person's organizations.
    async fn end(
        &self,
        person: PersonId,
        pointers: &[(SessionId, Pointer)],
        memberships: &[Member],
        caller: &Caller,
    ) -> Result<(), StoreError> {
        let Some((id, _)) = pointers.last() else { return Ok(()) };
        let mut entries = Vec::with_capacity(memberships.len());
        for member in memberships.iter().take(MAX_LOGS) {
            let caller = Caller { actor: member.subject(), ..caller.clone() };
            let target = if pointers.len() == 1 { Subject::new(Session::SUBJECT, id) } else { member.subject() };
            entries.push((member.org_id.clone(), Entry::done(&self.clock, &caller, "session.end", target)?));
        }
        self.delete_sessions(person, pointers, &entries).await
    }

    async fn delete_sessions(
        &self,
        person: PersonId,
        pointers: &[(SessionId, Pointer)],
        entries: &[(OrgId, Entry)],
    ) -> Result<(), StoreError> {
        let mut transaction = self.transaction().persistent();
        for (id, pointer) in pointers {
            transaction.delete(keys::session(pointer.hash)).delete(keys::session_of(person, id));
        }
        for (org, entry) in entries {
            transaction.audit(org, entry);
        }
        transaction.commit().await.map(|_| ())
    }

    async fn session_pointers(&self, person: PersonId) -> Result<Vec<(SessionId, Pointer)>, StoreError> {
        let (pk, prefix) = keys::sessions_of(person);
        let found: Vec<(String, Pointer)> =
            self.query(Range::new(&pk, SortKeys::StartingWith(prefix)), MAX_READ).await?;
        Ok(found
            .into_iter()
            .filter_map(|(sk, pointer)| Some((SessionId::parse(&sk[prefix.len()..])?, pointer)))
            .collect())
    }

    /// The language that a person has chosen.
    #[cfg(feature = "mail")]
    pub async fn language_of(&self, person: PersonId) -> Result<Option<Language>, StoreError> {
        let settings: Option<Settings> = self.get(keys::person(person)).await?;
        Ok(settings.and_then(|settings| settings.language))
    }

    /// Stores the language that a person has chosen, and sets it in this session.
    pub async fn set_language(
        &self,
        secret: TokenHash,
        person: PersonId,
        language: Language,
    ) -> Result<(), StoreError> {
        let mut transaction = self.transaction();
        transaction.put(keys::person(person), &Settings { language: Some(language) }).update(
            keys::session(secret),
            "SET #language = :language",
            "attribute_exists(pk)",
            &[(":language", language)],
        );
        transaction.commit().await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let moment = |text| Moment::parse(text).unwrap();
        let person = Person::by_mail(EmailAddress::try_from("you@example.com".to_owned()).unwrap());
        Session {
            id: SessionId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            person: person.id,
            issuer: person.issuer,
            email: person.email,
            language: Some(Language::Ja),
            created_at: moment("2026-11-21T10:00:00Z"),
            last_used_at: moment("2026-11-21T12:00:00Z"),
            expires_at: moment("2026-11-22T10:00:00Z"),
            source_ip: Some(IpAddr::from([203, 0, 113, 7])),
            user_agent: Some("Browser/1.0".to_owned()),
        }
    }

    #[test]
    fn session_ends_8_hours_after_its_last_use_and_24_after_its_start() {
        let is_active = |text| session().is_active(Moment::parse(text).unwrap());
        assert!(is_active("2026-11-21T19:59:59Z"));
        assert!(!is_active("2026-11-21T20:00:00Z"));
        let busy = Session { last_used_at: Moment::parse("2026-11-22T09:55:00Z").unwrap(), ..session() };
        assert!(busy.is_active(Moment::parse("2026-11-22T09:59:59Z").unwrap()));
        assert!(!busy.is_active(Moment::parse("2026-11-22T10:00:00Z").unwrap()));
    }

    #[test]
    fn stored_item_matches_its_snapshot() {
        let session = session();
        insta::assert_json_snapshot!(Stored { ttl: session.expires_at.epoch_seconds(), session: &session });
    }
}
