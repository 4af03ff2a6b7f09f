//! Reminds people of tokens that are about to expire: 30, 7 and 1 day before, one mail a day and
//! recipient.
//!
//! The member whom a token is bound to is reminded, by the address that was verified; of all other
//! tokens the security contacts of the organization. A `user_identifier` is never mailed to: whoever
//! issues tokens chooses it. Nobody is reminded of tokens of a suspended organization.
//!
//! A run reads what is due, groups it by address, and mails one address after the other. For each it
//! claims the address, counts the mail, sends it, and notes the day. What each failure leaves:
//!
//! | failure | the address is reminded |
//! |---|---|
//! | the reminders' share of the deployment's mails is used up | by the next run, and so are those after it |
//! | SES certainly did not accept the mail, but accepted others | tried once more in this run, then given up for the day |
//! | SES certainly accepted no mail of this run | by the next run |
//! | unknown whether SES accepted the mail | by the next run, perhaps twice |
//! | the process dies before the day is noted | by the next run, perhaps twice: at most one address |
//!
//! Whatever is left undone keeps the day's work from being noted as done, so that the next run reads
//! it again. If a day ends before, the next day's run makes up for it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::app::App;
use crate::clock::Moment;
use crate::email::{AddressHash, EmailAddress};
use crate::error::ApiError;
use crate::ids::OrgId;
use crate::mail::{Expiring, ExpiringOf, LISTED_TOKENS, Mail, MailApp, MailError};
use crate::person::{Person, PersonId};
use crate::store::StoreError;
use crate::store::orgs::Org;
use crate::store::reminders::{self, DueReminders, Reminded};
use crate::store::tokens::StoredToken;

/// Recipients of one run, which takes several minutes for so many. The next run goes on.
const RECIPIENTS: usize = 2_000;

/// Mails everybody who is to be reminded today and was not yet. It may be ended at any point, and
/// several may run at once; the next run continues.
///
/// # Errors
///
/// If the table fails, or SES accepts no mail at all. The next run continues.
pub async fn remind(app: &MailApp) -> Result<(), ApiError> {
    let store = app.app.store();
    let Some(due) = store.due_reminders().await? else { return Ok(()) };
    if due.is_late {
        tracing::error!("reminders of an earlier day were not sent on that day");
    }
    let mut letters = Letters::default();
    for (end, day, shard) in due.partitions() {
        letters.collect(&app.app, end, day, shard).await?;
    }
    let is_done = letters.send(app, &due).await?;
    if is_done {
        store.reminders_done(&due.today).await?;
    }
    Ok(())
}

/// What one address is to be reminded of.
struct Letter {
    to: EmailAddress,
    /// Who may have chosen a language.
    person: PersonId,
    reminded: Reminded,
    /// Those that end first, at most twice as many as a mail lists.
    tokens: Vec<(OrgId, Expiring)>,
    count: usize,
}

impl Letter {
    fn add(&mut self, org: &OrgId, token: Expiring) {
        self.count += 1;
        self.tokens.push((org.clone(), token));
        if self.tokens.len() == 2 * LISTED_TOKENS {
            self.keep_first();
        }
    }

    /// Keeps the tokens that a mail lists.
    fn keep_first(&mut self) {
        self.tokens.sort_by(|(_, a), (_, b)| (a.expires_at, &a.id).cmp(&(b.expires_at, &b.id)));
        self.tokens.truncate(LISTED_TOKENS);
    }
}

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Sent,
    /// SES certainly did not accept it.
    Refused,
    /// Another run has it, or it is unknown whether SES accepted it.
    Unknown,
    /// The reminders' share of mails is used up.
    LimitReached,
}

/// All letters of a run, by address.
#[derive(Default)]
struct Letters {
    by_address: BTreeMap<String, Letter>,
    /// The organizations of their tokens; `None` if nobody is reminded of its tokens.
    orgs: BTreeMap<OrgId, Option<Org>>,
    /// Recipients that have something to hear.
    recipients: usize,
    /// Whether some recipients are left to the next run.
    is_full: bool,
}

impl Letters {
    /// Collects what this partition reminds of.
    async fn collect(&mut self, app: &App, end: &str, day: &str, shard: u8) -> Result<(), StoreError> {
        let (store, now) = (app.store(), app.clock().now());
        let mut after: Option<String> = None;
        loop {
            let page = store.expiring(end, shard, after.as_deref()).await?;
            self.read_orgs(app, page.tokens.iter().map(|expiring| &expiring.org_id)).await?;
            for reminders::Expiring { token, org_id, holder } in page.tokens {
                // Whoever has made it on that day knows.
                let is_new = token.created_at().date().as_str() >= day;
                let Some(Some(org)) = self.orgs.get(&org_id) else { continue };
                if is_new {
                    continue;
                }
                let readers: Vec<(EmailAddress, PersonId)> = match holder {
                    Some(holder) => vec![(holder.email, holder.person)],
                    None => {
                        let contacts = org.security_contacts.iter();
                        contacts.map(|to| (to.clone(), Person::by_mail(to.clone()).id)).collect()
                    }
                };
                for (to, person) in readers {
                    self.add(app, (to, person), day, &org_id, expiring(&token, now)).await?;
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads the organizations that are not known yet.
    async fn read_orgs(&mut self, app: &App, ids: impl Iterator<Item = &OrgId>) -> Result<(), StoreError> {
        let unknown: Vec<OrgId> = ids.filter(|id| !self.orgs.contains_key(*id)).cloned().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        // A page has no more of them than one read returns.
        let found = app.store().orgs_with(unknown.iter().cloned()).await?;
        self.orgs.extend(unknown.into_iter().map(|id| (id, None)));
        self.orgs.extend(found.into_iter().filter(|org| !org.suspended).map(|org| (org.id.clone(), Some(org))));
        Ok(())
    }

    /// Adds a token to the letter of a reader who has not got this day's reminders yet.
    async fn add(
        &mut self,
        app: &App,
        (to, person): (EmailAddress, PersonId),
        day: &str,
        org: &OrgId,
        token: Option<Expiring>,
    ) -> Result<(), StoreError> {
        let address: AddressHash = to.hash();
        let letter = match self.by_address.entry(address.to_hex()) {
            Entry::Occupied(letter) => letter.into_mut(),
            Entry::Vacant(place) => {
                let reminded = app.store().reminded(address).await?;
                place.insert(Letter { to, person, reminded, tokens: Vec::new(), count: 0 })
            }
        };
        let Some(token) = token.filter(|_| !letter.reminded.is_told(day)) else { return Ok(()) };
        if letter.count == 0 {
            if self.recipients == RECIPIENTS {
                self.is_full = true;
                return Ok(());
            }
            self.recipients += 1;
        }
        letter.add(org, token);
        Ok(())
    }

    /// Sends the letters. Returns whether everybody was reminded.
    async fn send(self, app: &MailApp, due: &DueReminders) -> Result<bool, ApiError> {
        let Self { by_address, orgs, is_full, .. } = self;
        // Somebody who was mailed today hears the rest tomorrow.
        let waiting = |letter: &Letter| letter.count > 0 && !letter.reminded.is_told(&due.today);
        let (mut is_done, mut is_any_sent, mut refused) = (!is_full, false, Vec::new());
        let mut sent = 0_usize;
        for mut letter in by_address.into_values().filter(waiting) {
            letter.keep_first();
            match tell(app, &letter, &orgs, &due.today).await? {
                Outcome::Sent => (is_any_sent, sent) = (true, sent + 1),
                Outcome::Refused => refused.push(letter),
                Outcome::Unknown => is_done = false,
                Outcome::LimitReached => {
                    is_done = false;
                    break;
                }
            }
        }
        if !refused.is_empty() && !is_any_sent {
            tracing::error!(reminders = refused.len(), "SES accepted no reminder");
            return Err(ApiError::Unavailable);
        }
        for letter in refused {
            match tell(app, &letter, &orgs, &due.today).await? {
                Outcome::Sent => sent += 1,
                // One address that does not work must not hold up the day.
                Outcome::Refused => tracing::error!("a reminder was refused twice and is given up"),
                Outcome::Unknown | Outcome::LimitReached => is_done = false,
            }
        }
        tracing::info!(sent, is_done, "reminders were sent");
        Ok(is_done)
    }
}

/// What a mail says about a token; `None` for kinds that are not reminded of.
fn expiring(token: &StoredToken, now: Moment) -> Option<Expiring> {
    let expires_at = token.expires_at()?;
    let (prefix, name) = match token {
        StoredToken::ApiKey(key) => (key.prefix.clone(), key.name.as_str().to_owned()),
        StoredToken::OrgAccess(token) => (token.token_prefix.clone(), token.name.as_str().to_owned()),
        StoredToken::OrgUser(token) => (token.token_prefix.clone(), token.user_identifier.as_str().to_owned()),
        StoredToken::Bot(_) | StoredToken::EmailVerified(_) => return None,
    };
    let (kind, id) = (token.kind_name(), token.id());
    Some(Expiring { kind, id, prefix, name, expires_at, days_left: now.days_until(expires_at) })
}

/// Sends one letter.
async fn tell(
    MailApp { app, mailer }: &MailApp,
    letter: &Letter,
    orgs: &BTreeMap<OrgId, Option<Org>>,
    today: &str,
) -> Result<Outcome, StoreError> {
    let (store, limits) = (app.store(), &app.limits().mails);
    let Some(claim) = store.claim_reminder(letter.to.hash(), today).await? else { return Ok(Outcome::Unknown) };
    let Ok(counted) = store.count_mails_that_can_wait(1, limits).await? else {
        tracing::info!("reminders wait for the next hour's mails");
        store.release_reminder(claim).await?;
        return Ok(Outcome::LimitReached);
    };
    let language = store.language_of(letter.person).await?.unwrap_or_default();
    let mut of: BTreeMap<&OrgId, Vec<Expiring>> = BTreeMap::new();
    for (org, token) in &letter.tokens {
        of.entry(org).or_default().push(token.clone());
    }
    let name = |id: &OrgId| orgs.get(id).and_then(Option::as_ref).map_or_else(String::new, |org| org.name.clone());
    let of: Vec<ExpiringOf> =
        of.into_iter().map(|(org, tokens)| ExpiringOf { organization: name(org), tokens }).collect();
    let mail = Mail::TokensExpire { of: &of, more: letter.count - letter.tokens.len() };
    match mailer.send(&letter.to, language, &mail).await {
        Ok(()) => {
            store.reminder_sent(claim, today).await?;
            Ok(Outcome::Sent)
        }
        Err(MailError::NotSent) => {
            store.release_reminder(claim).await?;
            for mail in counted {
                store.uncount_mail(mail).await?;
            }
            Ok(Outcome::Refused)
        }
        Err(MailError::Unknown) => Ok(Outcome::Unknown),
    }
}
