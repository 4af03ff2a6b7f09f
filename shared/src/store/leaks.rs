//! Tokens that were found where they should not be, and the notices to the people they belong to.
//!
//! Whoever finds a token reports it, and it ends: a token of any kind, a session, or one API key of
//! a bot. An organization may decide to be told only. What belongs to no organization always ends.
//!
//! | leaked | ends by | who is told |
//! |---|---|---|
//! | org user token, API key, token of a bot | revocation | the organization |
//! | organization access token | deletion | the organization |
//! | API key of a bot | deletion of this one | the organization |
//! | email-verified token | deletion | its holder |
//! | session | deletion | its person |
//!
//! The transaction that ends a token also writes its audit entry, a *notice* and a *mark*:
//!
//! - Notices are in one partition, by recipient. They are deleted once they are told, so a crash or
//!   a failing mail loses none, and finding what is to be told costs what is to be told.
//! - The mark, under the token's hash, lives 24 hours. An organization that is told only is told
//!   once in that time.
//!
//! A recipient gets at most one mail an hour: whoever sends it first claims the hour
//! ([`Store::claim_leak_mail`]).

use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::Url;

use super::audit::{Caller, Entry, Subject};
use super::keys::{self, Key};
use super::{Committed, Range, SortKeys, Store, StoreError, Transaction};
use crate::clock::{Clock, Moment};
use crate::email::{AddressHash, EmailAddress, Language};
use crate::ids::OrgId;
use crate::secret::{RandomnessUnavailable, Token, TokenHash};

/// How long a mark lives: an organization that is told only is told once in this time.
const MARKED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Notices that cannot be told end after this time.
const NOTICE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A recipient gets at most one mail in this time.
const MAIL_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Who is told about leaked tokens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recipient {
    /// An organization: its security contacts.
    Org(OrgId),
    /// A person, by the hash of the address. Each of the notices has the address itself.
    Address(String),
}

impl Recipient {
    /// The recipient with this address.
    pub(super) fn at(address: AddressHash) -> Self {
        Recipient::Address(address.to_hex())
    }

    /// The recipient as part of a key.
    pub(super) fn as_key(&self) -> String {
        match self {
            Recipient::Org(org) => format!("ORG#{org}"),
            Recipient::Address(hash) => format!("ADDRESS#{hash}"),
        }
    }

    /// The recipient of the notice with this sort key.
    fn of_notice(sort_key: &str) -> Option<Self> {
        let mut parts = sort_key.split('#');
        match (parts.next()?, parts.next()?) {
            ("ORG", org) => OrgId::parse(org).map(Recipient::Org),
            ("ADDRESS", hash) => Some(Recipient::Address(hash.to_owned())),
            _ => None,
        }
    }
}

/// A person to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The address, which the notice alone still knows.
    pub email: EmailAddress,
    /// The language of mails.
    #[serde(default, deserialize_with = "Language::stored")]
    pub language: Language,
}

/// What a recipient is to be told about one leaked token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The kind of the token: `api_key`, `session`…
    pub kind: String,
    /// Its ID; of a bot's API key the bot's.
    pub id: String,
    /// Where it was found: host and path, without tokens. To be shown as text, never as a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// When it was reported.
    pub at: Moment,
    /// Whether it was ended; otherwise the organization is told only.
    pub ended: bool,
    /// Whom to tell, if the recipient is a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
    /// When it is dropped, told or not.
    ttl: i64,
}

/// A notice that is not told yet.
#[derive(Debug, Clone)]
pub struct PendingNotice {
    key: Key,
    /// What to tell.
    pub notice: Notice,
}

/// Where a token was found: a URL with the tokens in it blanked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Place(Url);

/// What replaces a token in a place.
const BLANK: &str = "[token]";

/// How often a place may be percent-encoded to hide a token.
const MAX_ENCODINGS: usize = 4;

impl Place {
    /// The maximum length in characters.
    pub const MAX_LENGTH: usize = 2_048;

    /// Host and path, for mails.
    fn host_and_path(&self) -> String {
        format!("{}{}", self.0.host_str().unwrap_or_default(), self.0.path())
    }

    /// The whole URL, for the audit log.
    fn url(&self) -> &str {
        let url = self.0.as_str();
        // Percent-encoding made it ASCII, and perhaps longer.
        &url[..url.len().min(Self::MAX_LENGTH)]
    }
}

impl TryFrom<String> for Place {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.chars().count() > Self::MAX_LENGTH {
            return Err("must have at most 2,048 characters");
        }
        let text = blanked(text);
        let is_https = |url: &Url| url.scheme() == "https" && url.has_host();
        let mut url = Url::parse(&text).ok().filter(is_https).ok_or("must be an https URL")?;
        // Only a URL without a host cannot have them.
        let _: Result<(), ()> = url.set_username("").and(url.set_password(None));
        if hides_token(&text) {
            // Parsed hosts are in lower case, so a token in one is no longer found.
            if url.host_str().is_some_and(|host| host.contains('_')) {
                return Err("must be an https URL");
            }
            url.set_path(BLANK);
            url.set_query(None);
            url.set_fragment(None);
        }
        Ok(Self(url))
    }
}

/// The text with its tokens blanked.
fn blanked(mut text: String) -> String {
    while let Some(token) = Token::found_in(&text) {
        text = text.replace(token.expose(), BLANK);
    }
    text
}

/// Whether a token shows after percent-decoding, once or several times.
fn hides_token(text: &str) -> bool {
    let mut text = text.to_owned();
    for _ in 0..MAX_ENCODINGS {
        if Token::found_in(&text).is_some() {
            return true;
        }
        text = percent_decode_str(&text).decode_utf8_lossy().into_owned();
    }
    Token::found_in(&text).is_some()
}

/// Why a token ends, which its audit entry says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause<'a> {
    /// Somebody who may has asked for it. The verb of the entry's action.
    Asked(&'static str),
    /// Its holder has asked for it, by a call with it.
    Own,
    /// It was found where it should not be, perhaps at this place.
    Leaked(Option<&'a Place>),
}

impl Cause<'_> {
    /// The audit entry of the end of a token of this kind.
    pub fn entry(
        self,
        clock: &Clock,
        caller: &Caller,
        kind: &str,
        target: Subject,
    ) -> Result<Entry, RandomnessUnavailable> {
        match self {
            Cause::Asked(verb) => Entry::done(clock, caller, &format!("{kind}.{verb}"), target),
            Cause::Own => Entry::done(clock, caller, &format!("{kind}.revoke"), target),
            Cause::Leaked(place) => leak_entry(clock, caller, kind, target, place, "found"),
        }
    }
}

/// The audit entry of a leaked token. `what` was it, at this place.
pub(super) fn leak_entry(
    clock: &Clock,
    caller: &Caller,
    kind: &str,
    target: Subject,
    place: Option<&Place>,
    what: &str,
) -> Result<Entry, RandomnessUnavailable> {
    let entry = Entry::done(clock, caller, &format!("{kind}.leaked"), target)?;
    let at = place.map(|place| format!(" at {}", place.url())).unwrap_or_default();
    Ok(entry.with_detail(format!("{what}{at}")))
}

/// The mark of a leaked token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// When it ends, in seconds since the Unix epoch.
    pub ttl: i64,
}

impl Mark {
    pub fn at(now: Moment) -> Self {
        Self { ttl: now.plus(MARKED_FOR).epoch_seconds() }
    }
}

impl Transaction<'_> {
    /// Leaves a mark and a notice, if a token with this audit entry ends because it leaked.
    pub(super) fn tell(
        &mut self,
        cause: Cause<'_>,
        hash: TokenHash,
        recipient: &Recipient,
        contact: Option<Contact>,
        entry: &Entry,
    ) -> &mut Self {
        let Cause::Leaked(place) = cause else { return self };
        self.put(keys::leak_mark(hash), &Mark::at(entry.at)).leave_notice(place, true, recipient, contact, entry)
    }

    /// Leaves a notice about a token with this audit entry. `ended` is false if it stays active.
    pub(super) fn leave_notice(
        &mut self,
        place: Option<&Place>,
        ended: bool,
        recipient: &Recipient,
        contact: Option<Contact>,
        entry: &Entry,
    ) -> &mut Self {
        let kind = entry.action.split('.').next().unwrap_or_default().to_owned();
        let notice = Notice {
            kind,
            id: entry.target.id.clone(),
            place: place.map(Place::host_and_path),
            at: entry.at,
            ended,
            contact,
            ttl: entry.at.plus(NOTICE_LIFETIME).epoch_seconds(),
        };
        self.put_new(keys::leak_notice(&recipient.as_key(), &entry.id), &notice)
    }
}

/// The right to send a recipient's mail of this hour.
#[derive(Debug)]
#[must_use]
pub struct MailClaim {
    key: Key,
    until: i64,
}

/// The stored claim.
#[derive(Serialize)]
struct Claimed {
    /// When the next mail may be sent, in seconds since the Unix epoch.
    ttl: i64,
}

/// A notice of which only the key is read: one that cannot be read must not hide the others.
#[derive(Deserialize)]
struct Waiting {}

impl Store {
    /// The recipients of notices that are not told yet, after this one: at most `limit`.
    pub async fn leak_recipients(&self, after: Option<&Recipient>, limit: usize) -> Result<Vec<Recipient>, StoreError> {
        let mut found: Vec<Recipient> = Vec::new();
        while found.len() < limit {
            // One notice of each: the next query starts after all of the last recipient's.
            let start = found.last().or(after).map_or_else(String::new, |last| format!("{}#~", last.as_key()));
            let sort_keys = if start.is_empty() { SortKeys::All } else { SortKeys::After(&start) };
            let next: Vec<(String, Waiting)> = self.query(Range::new(keys::LEAK_NOTICES, sort_keys), 1).await?;
            let Some((sort_key, _)) = next.first() else { break };
            found.push(Recipient::of_notice(sort_key).ok_or(StoreError::Defect)?);
        }
        Ok(found)
    }

    /// Claims the one mail that a recipient gets in an hour. `None` if it was sent, or another call
    /// is about to send it.
    pub async fn claim_leak_mail(&self, recipient: &Recipient) -> Result<Option<MailClaim>, StoreError> {
        let now = self.clock.now();
        let key = keys::leak_mail(&recipient.as_key());
        let until = now.plus(MAIL_INTERVAL).epoch_seconds();
        let mut transaction = self.transaction();
        transaction.put_where(
            key.clone(),
            &Claimed { ttl: until },
            "attribute_not_exists(pk) OR #ttl <= :now",
            &[(":now", now.epoch_seconds())],
        );
        Ok((transaction.commit().await? == Committed::Yes).then_some(MailClaim { key, until }))
    }

    /// Gives the claim back, after a mail that was certainly not sent.
    pub async fn release_leak_mail(&self, claim: MailClaim) -> Result<(), StoreError> {
        let mut transaction = self.transaction();
        transaction.delete_where(claim.key, "#ttl = :until", &[(":until", claim.until)]);
        // Another call has claimed a later hour: that claim stays.
        let _: Committed = transaction.commit().await?;
        Ok(())
    }

    /// What a recipient is to be told, oldest first: at most `limit`.
    pub async fn leak_notices(&self, recipient: &Recipient, limit: usize) -> Result<Vec<PendingNotice>, StoreError> {
        let prefix = format!("{}#", recipient.as_key());
        let range = Range::new(keys::LEAK_NOTICES, SortKeys::StartingWith(&prefix));
        let found: Vec<(String, Notice)> = self.query(range, limit).await?;
        let pending = |(sk, notice)| PendingNotice { key: Key { pk: keys::LEAK_NOTICES.to_owned(), sk }, notice };
        Ok(found.into_iter().map(pending).collect())
    }

    /// Deletes notices that were told.
    pub async fn leaks_told(&self, told: &[PendingNotice]) -> Result<(), StoreError> {
        let keys: Vec<Key> = told.iter().map(|pending| pending.key.clone()).collect();
        self.delete_all(&keys).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::TokenKind;

    fn place(url: &str) -> Result<Place, &'static str> {
        Place::try_from(url.to_owned())
    }

    fn token(kind: TokenKind) -> String {
        Token::generate(kind).unwrap().expose().to_owned()
    }

    #[test]
    fn stored_items_match_their_snapshots() {
        let at = Moment::parse("2026-11-21T10:00:00Z").unwrap();
        let email = EmailAddress::try_from("You@example.com".to_owned()).unwrap();
        let notice = Notice {
            kind: "email_token".to_owned(),
            id: "01KAJ8M4R2X7Z9V5T3Q1N6P8WC".to_owned(),
            place: Some("github.com/octocat/hello/blob/main/.npmrc".to_owned()),
            at,
            ended: true,
            contact: Some(Contact { email, language: Language::Ja }),
            ttl: at.plus(NOTICE_LIFETIME).epoch_seconds(),
        };
        insta::assert_json_snapshot!("notice", notice);
        insta::assert_json_snapshot!("mark", Mark::at(at));
        insta::assert_json_snapshot!("mail_claim", Claimed { ttl: 1_795_255_200 });
    }

    #[test]
    fn place_is_an_https_url_of_at_most_2048_characters() {
        for bad in ["", "x", "http://example.com/", "https://", "ftp://example.com/", "javascript:alert(1)", "//a/b"] {
            assert_eq!(place(bad), Err("must be an https URL"), "{bad}");
        }
        let url = |length: usize| format!("https://example.com/{}", "a".repeat(length - 20));
        assert_eq!(place(&url(2_049)), Err("must have at most 2,048 characters"));
        assert_eq!(place(&url(2_048)).unwrap().url().len(), 2_048);
        let long = place(&format!("https://example.com/{}", "\u{3042}".repeat(2_028))).unwrap();
        assert_eq!(long.url().len(), 2_048);
    }

    #[test]
    fn mail_shows_host_and_path_alone() {
        let place = place("https://user:secret@Example.com:8443/a/b?key=secret#L1").unwrap();
        assert_eq!(place.host_and_path(), "example.com/a/b");
        assert_eq!(place.url(), "https://example.com:8443/a/b?key=secret#L1");
    }

    #[test]
    fn tokens_in_a_place_are_blanked_however_they_are_encoded() {
        for kind in TokenKind::ALL {
            let secret = token(kind);
            let encoded = secret.replace('_', "%5F");
            let twice = encoded.replace('%', "%25");
            for part in [&secret, &encoded, &twice, &format!("{secret}{secret}"), &format!("x{secret}y&{encoded}")] {
                for url in [
                    format!("https://example.com/{part}/x"),
                    format!("https://example.com/x?q={part}"),
                    format!("https://example.com/x#{part}"),
                    format!("https://{part}:{part}@example.com/"),
                ] {
                    let place = place(&url).unwrap();
                    let body = &secret[secret.len() - 12..];
                    assert!(!place.url().contains(body) && !place.host_and_path().contains(body), "{kind:?} {url}");
                    assert!(place.url().starts_with("https://example.com/"), "{url}");
                }
            }
            // A host name with a token in it is none.
            for host in [secret, encoded, twice] {
                assert!(place(&format!("https://{host}.example.com/")).is_err(), "{kind:?}");
            }
        }
    }

    #[test]
    fn recipient_of_a_notice_is_in_its_sort_key() {
        let org = Recipient::Org(OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap());
        let address = Recipient::at(EmailAddress::try_from("you@example.com".to_owned()).unwrap().hash());
        for recipient in [org, address] {
            let sort_key = format!("{}#01KAJ8M4R2X7Z9V5T3Q1N6P8WC", recipient.as_key());
            assert_eq!(Recipient::of_notice(&sort_key), Some(recipient));
        }
        assert_eq!(Recipient::of_notice("ORG#x#01KAJ8M4R2X7Z9V5T3Q1N6P8WC"), None);
    }
}
