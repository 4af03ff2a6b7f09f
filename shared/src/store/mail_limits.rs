//! Limits of mails, besides the one per address that registers.
//!
//! | mails to | counted by | default limit |
//! |---|---|---|
//! | an address without a token | source, per hour and per day | 60 and 200 |
//! | | source and domain, per hour | a tenth of the domain's |
//! | | mailbox, per hour | 5 |
//! | | domain, per hour | 300 |
//! | | deployment, per hour | four fifths of its limit: the last fifth, at least one, is kept for the others |
//! | an address with a token | source, per hour | 60 |
//! | an address that signs in | source, per hour | 60 |
//! | | source and address, per hour | 5 |
//! | | address, per hour | 20 |
//! | an address that signs in, from a browser that has signed in with it before | browser, per hour | 5 |
//! | an address that is invited | organization, per day | 50 |
//! | a recipient of notices about leaked tokens | recipient, per hour ([`super::leaks`]) | 1 |
//! | a recipient of reminders | recipient, per day ([`super::reminders`]) | 1 |
//! | | deployment, per hour | half of its limit: reminders and notices can wait, the others cannot |
//! | contacts of an organization that has asked for notices | organization, per hour ([`super::notices`]) | 1 |
//! | | deployment, per hour | half of its limit |
//! | any address | deployment, per hour | 1,000 |
//!
//! Hours and days are those of UTC. A source is an IPv4 address or an IPv6 /64. Every counter is
//! incremented before the mail, only below its limit, and in this order: what one source can fill
//! stops that source before it reaches a counter that others share. A mail that a later counter
//! refuses, or that SES refuses, is taken off again. A crash in between leaves a count too high
//! until the hour ends, never too low.
//!
//! Who asks for sign-in codes of somebody else uses up the limits of their own source and, with
//! several sources, of the address. A browser that has signed in before has a limit of its own, so
//! that nobody can lock a person out.

use std::net::IpAddr;

use super::keys::{self, Key, Mails};
use super::rate_limits::{COUNT, HOUR, network};
use super::{Committed, Store, StoreError};
use crate::email::{AddressHash, EmailAddress};
use crate::ids::OrgId;
use crate::secret::TokenHash;

const DAY: i64 = 24 * HOUR;

/// Maximum mails per hour to the addresses without a token of one mailbox.
pub const TO_MAILBOX_PER_HOUR: u64 = 5;

/// Maximum sign-in codes to one address per hour.
pub const SIGN_IN_CODES_TO_ADDRESS: u64 = 20;

/// Maximum sign-in codes to one address per hour that one source asks for.
pub const SIGN_IN_CODES_TO_ADDRESS_FROM_SOURCE: u64 = 5;

/// Maximum sign-in codes to one address per hour that a browser asks for which has signed in with it
/// before.
pub const SIGN_IN_CODES_TO_DEVICE: u64 = 5;

/// Maximum invitations that one organization mails per day.
pub const INVITATIONS_PER_DAY: u64 = 50;

/// The limits of one deployment. `None` means unlimited.
#[derive(Debug, Clone)]
pub struct MailLimits {
    /// Mails of the whole deployment per hour.
    pub per_hour: Option<u64>,
    /// Mails to addresses without a token per domain and hour.
    pub per_domain_per_hour: Option<u64>,
    /// Mails to addresses without a token per source and hour.
    pub per_source_per_hour: Option<u64>,
    /// Mails to addresses without a token per source and day.
    pub per_source_per_day: Option<u64>,
    /// Mails to addresses with a token per source and hour.
    pub recoveries_per_source_per_hour: Option<u64>,
    /// Sign-in codes per source and hour, but for browsers that have signed in before.
    pub sign_in_codes_per_source_per_hour: Option<u64>,
}

impl Default for MailLimits {
    fn default() -> Self {
        Self {
            per_hour: Some(1_000),
            per_domain_per_hour: Some(300),
            per_source_per_hour: Some(60),
            per_source_per_day: Some(200),
            recoveries_per_source_per_hour: Some(60),
            sign_in_codes_per_source_per_hour: Some(60),
        }
    }
}

/// What is left of a limit without the fifth that is kept for addresses with a token: at least one
/// mail of two or more.
fn without_kept_share(limit: u64) -> u64 {
    limit - (limit / 5).max(u64::from(limit > 1))
}

/// Whether an address has a token, which decides the limits of a mail to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// It has none: anybody can name such addresses.
    New,
    /// It has one.
    Known,
}

impl Recipient {
    /// The other kind.
    pub fn other(self) -> Self {
        match self {
            Recipient::New => Recipient::Known,
            Recipient::Known => Recipient::New,
        }
    }
}

/// A limit that a mail has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// The source's hour.
    SourceHour,
    /// The source's day.
    SourceDay,
    /// The source's share of the domain.
    SourceShare,
    /// The mailbox.
    Mailbox,
    /// The domain.
    Domain,
    /// The address.
    Address,
    /// The source's share of the address.
    AddressFromSource,
    /// The browser that has signed in before.
    Device,
    /// The organization.
    Organization,
    /// The share of addresses without a token.
    NewAddresses,
    /// The deployment.
    Deployment,
}

impl Reached {
    /// Logs why a mail to this address was not sent: as an error what the operator should know.
    pub fn log(self, email: &EmailAddress) {
        match self {
            Reached::Deployment => tracing::error!("the hourly mail limit of the deployment is reached"),
            Reached::NewAddresses => {
                tracing::error!("the hourly mail limit of addresses without a token is reached");
            }
            Reached::Domain => {
                tracing::error!(domain = email.domain(), "the hourly mail limit of a domain is reached");
            }
            _ => tracing::info!(limit = ?self, "a mail was not sent because of a limit"),
        }
    }
}

/// A limit: its name, what it counts, its length in seconds, and its maximum if it has one.
type Limit<'a> = (Reached, Mails<'a>, i64, Option<u64>);

/// A mail that was counted.
#[derive(Debug)]
#[must_use]
pub struct CountedMail {
    counters: Vec<Key>,
    /// The number of the deployment's mails in this hour, if it has a limit.
    pub of_deployment: Option<u64>,
}

impl CountedMail {
    /// Whether this mail is the one with which 80 percent of the limit are used. True for one mail
    /// of an hour at most.
    pub fn reaches_80_percent(&self, limits: &MailLimits) -> bool {
        limits.per_hour.is_some_and(|limit| self.of_deployment == Some(without_kept_share(limit)))
    }
}

impl Store {
    /// Counts a mail to this address that this source asked for, or says which limit forbids it.
    pub async fn count_mail(
        &self,
        recipient: Recipient,
        email: &EmailAddress,
        source: Option<IpAddr>,
        limits: &MailLimits,
    ) -> Result<Result<CountedMail, Reached>, StoreError> {
        let (domain, source) = (email.domain(), network(source));
        let of_deployment = (Reached::Deployment, Mails::All, HOUR, limits.per_hour);
        match recipient {
            Recipient::New => {
                self.count_against(&[
                    (Reached::SourceHour, Mails::NewFrom(&source), HOUR, limits.per_source_per_hour),
                    (Reached::SourceDay, Mails::NewFrom(&source), DAY, limits.per_source_per_day),
                    (
                        Reached::SourceShare,
                        Mails::NewToDomainFrom(domain, &source),
                        HOUR,
                        limits.per_domain_per_hour.map(|limit| (limit / 10).max(1)),
                    ),
                    (Reached::Mailbox, Mails::NewToMailbox(email.mailbox()), HOUR, Some(TO_MAILBOX_PER_HOUR)),
                    (Reached::Domain, Mails::NewToDomain(domain), HOUR, limits.per_domain_per_hour),
                    (Reached::NewAddresses, Mails::New, HOUR, limits.per_hour.map(without_kept_share)),
                    of_deployment,
                ])
                .await
            }
            Recipient::Known => {
                self.count_against(&[
                    (Reached::SourceHour, Mails::RecoveryFrom(&source), HOUR, limits.recoveries_per_source_per_hour),
                    of_deployment,
                ])
                .await
            }
        }
    }

    /// Counts a sign-in code to a known address that this source asked for, or says which limit
    /// forbids it. `device` is the hash of what the browser sent as proof that it has signed in
    /// before; it is checked here.
    pub async fn count_sign_in_mail(
        &self,
        address: AddressHash,
        source: Option<IpAddr>,
        device: Option<TokenHash>,
        limits: &MailLimits,
    ) -> Result<Result<CountedMail, Reached>, StoreError> {
        let source = network(source);
        let of_deployment = (Reached::Deployment, Mails::All, HOUR, limits.per_hour);
        if let Some(device) = device
            && self.has_signed_in(device, address).await?
        {
            let of_device = Mails::SignInToDevice(address, device);
            return self
                .count_against(&[(Reached::Device, of_device, HOUR, Some(SIGN_IN_CODES_TO_DEVICE)), of_deployment])
                .await;
        }
        self.count_against(&[
            (Reached::SourceHour, Mails::SignInFrom(&source), HOUR, limits.sign_in_codes_per_source_per_hour),
            (
                Reached::AddressFromSource,
                Mails::SignInToFrom(address, &source),
                HOUR,
                Some(SIGN_IN_CODES_TO_ADDRESS_FROM_SOURCE),
            ),
            (Reached::Address, Mails::SignInTo(address), HOUR, Some(SIGN_IN_CODES_TO_ADDRESS)),
            of_deployment,
        ])
        .await
    }

    /// Counts an invitation that this organization mails, or says which limit forbids it.
    pub async fn count_invitation_mail(
        &self,
        org: &OrgId,
        limits: &MailLimits,
    ) -> Result<Result<CountedMail, Reached>, StoreError> {
        self.count_against(&[
            (Reached::Organization, Mails::Invitations(org), DAY, Some(INVITATIONS_PER_DAY)),
            (Reached::Deployment, Mails::All, HOUR, limits.per_hour),
        ])
        .await
    }

    /// Counts mails about leaked tokens, one per reader, or says that the deployment's limit forbids
    /// them.
    pub async fn count_leak_mails(
        &self,
        readers: usize,
        limits: &MailLimits,
    ) -> Result<Result<Vec<CountedMail>, Reached>, StoreError> {
        self.count_all(readers, limits.per_hour).await
    }

    /// Counts mails that can wait, or says that the others need what is left of the deployment's limit.
    pub async fn count_mails_that_can_wait(
        &self,
        readers: usize,
        limits: &MailLimits,
    ) -> Result<Result<Vec<CountedMail>, Reached>, StoreError> {
        self.count_all(readers, limits.per_hour.map(|limit| limit.div_ceil(2))).await
    }

    /// Counts mails of the deployment, all or none.
    async fn count_all(&self, mails: usize, max: Option<u64>) -> Result<Result<Vec<CountedMail>, Reached>, StoreError> {
        let mut counted = Vec::with_capacity(mails);
        for _ in 0..mails {
            match self.count_against(&[(Reached::Deployment, Mails::All, HOUR, max)]).await? {
                Ok(mail) => counted.push(mail),
                Err(limit) => {
                    for mail in counted {
                        self.uncount_mail(mail).await?;
                    }
                    return Ok(Err(limit));
                }
            }
        }
        Ok(Ok(counted))
    }

    async fn count_against(&self, limits: &[Limit<'_>]) -> Result<Result<CountedMail, Reached>, StoreError> {
        let now = self.clock.now().epoch_seconds();
        let mut counted = CountedMail { counters: Vec::new(), of_deployment: None };
        for &(limit, mails, length, max) in limits {
            let Some(max) = max else { continue };
            let number = now.div_euclid(length);
            let window = if length == DAY { format!("DAY#{number}") } else { format!("HOUR#{number}") };
            let counter = keys::mails(mails, &window);
            let Some(count) = self.count_up_to(counter.clone(), COUNT, Some((number + 1) * length), Some(max)).await?
            else {
                self.uncount_mail(counted).await?;
                return Ok(Err(limit));
            };
            counted.counters.push(counter);
            if limit == Reached::Deployment {
                counted.of_deployment = Some(count);
            }
        }
        Ok(Ok(counted))
    }

    /// Takes a mail that was certainly not sent off its counters.
    pub async fn uncount_mail(&self, counted: CountedMail) -> Result<(), StoreError> {
        for counter in counted.counters {
            let values = [(":one", 1), (":zero", 0)];
            let _: Committed = self.update(counter, "SET #count = #count - :one", "#count > :zero", &values).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_is_kept_and_at_least_one_where_there_are_two() {
        for (limit, rest) in [(0, 0), (1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (9, 8), (10, 8), (1_000, 800)] {
            assert_eq!(without_kept_share(limit), rest, "{limit}");
        }
    }
}
