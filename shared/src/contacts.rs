//! One mail to all security contacts of an organization, or to a person.

use futures::future::join_all;

use crate::app::App;
use crate::email::{EmailAddress, Language};
use crate::mail::{Mail, MailError, Mailer};
use crate::person::Person;
use crate::store::mail_limits::CountedMail;
use crate::store::orgs::Org;
use crate::store::{Store, StoreError};

/// Whom to send a mail to.
pub(crate) struct Readers {
    /// The display name of the organization; `None` if the recipient is a person.
    pub organization: Option<String>,
    /// Each address with its language.
    pub addresses: Vec<(EmailAddress, Language)>,
}

/// What became of a mail to several readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// SES accepted the mail to one of them.
    Told,
    /// SES certainly accepted none.
    NotSent,
    /// It is unknown whether SES accepted one.
    Unknown,
}

impl Readers {
    /// The security contacts of an organization.
    pub async fn of(app: &App, org: Org) -> Result<Self, StoreError> {
        let mut addresses = Vec::with_capacity(org.security_contacts.len());
        for contact in org.security_contacts {
            // Somebody who signs in by mail may have chosen a language in the console.
            let language = app.store().language_of(Person::by_mail(contact.clone()).id).await?;
            addresses.push((contact, language.unwrap_or_default()));
        }
        Ok(Self { organization: Some(org.name), addresses })
    }

    /// Sends a mail to all of them, which are counted.
    pub async fn send(&self, mailer: &Mailer, mail: &Mail<'_>, counted: Vec<CountedMail>) -> Sent {
        let sending = self.addresses.iter().map(|(to, language)| mailer.warn(to, *language, mail));
        Sent { results: join_all(sending).await, counted }
    }
}

/// A mail to several readers.
pub(crate) struct Sent {
    results: Vec<Result<(), MailError>>,
    /// One for each reader.
    counted: Vec<CountedMail>,
}

impl Sent {
    /// How many of the mails were not sent, or perhaps not, and of how many.
    pub fn failed(&self) -> (usize, usize) {
        (self.results.iter().filter(|result| result.is_err()).count(), self.results.len())
    }

    /// What became of the mail. A contact whose address does not work keeps nobody from being told.
    pub fn outcome(&self) -> Delivered {
        if self.results.iter().any(Result::is_ok) {
            Delivered::Told
        } else if self.results.iter().all(|result| *result == Err(MailError::NotSent)) {
            Delivered::NotSent
        } else {
            Delivered::Unknown
        }
    }

    /// Takes the mails off their counters that were certainly not sent. Last: a count that is too high
    /// until the hour ends does no harm.
    pub async fn uncount(self, store: &Store) -> Result<(), StoreError> {
        let sent = self.counted.into_iter().zip(&self.results);
        for (counted, _) in sent.filter(|(_, result)| **result == Err(MailError::NotSent)) {
            store.uncount_mail(counted).await?;
        }
        Ok(())
    }
}
