//! Limits of the mails that a registration sends, besides the limit per address.
//!
//! | mails to | counted by | default limit |
//! |---|---|---|
//! | an address without a token | source, per hour and per day | 60 and 200 |
//! | | source and domain, per hour | a tenth of the domain's |
//! | | mailbox, per hour | 5 |
//! | | domain, per hour | 300 |
//! | | deployment, per hour | four fifths of its limit: the last fifth, at least one, is kept for the others |
//! | an address with a token | source, per hour | 60 |
//! | any address | deployment, per hour | 1,000 |
//!
//! Hours and days are those of UTC. A source is an IPv4 address or an IPv6 /64. Every counter is
//! incremented before the mail, only below its limit, and in this order: what one source can fill
//! stops that source before it reaches a counter that others share. A mail that a later counter
//! refuses, or that SES refuses, is taken off again. A crash in between leaves a count too high
//! until the hour ends, never too low.

use std::net::IpAddr;

use super::keys::{self, Key, Mails};
use super::rate_limits::{COUNT, HOUR, network};
use super::{Committed, Store, StoreError};
use crate::email::EmailAddress;

const DAY: i64 = 24 * HOUR;

/// Maximum mails per hour to the addresses without a token of one mailbox.
pub const TO_MAILBOX_PER_HOUR: u64 = 5;

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
}

impl Default for MailLimits {
    fn default() -> Self {
        Self {
            per_hour: Some(1_000),
            per_domain_per_hour: Some(300),
            per_source_per_hour: Some(60),
            per_source_per_day: Some(200),
            recoveries_per_source_per_hour: Some(60),
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
    /// The share of addresses without a token.
    NewAddresses,
    /// The deployment.
    Deployment,
}

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
        let limits = match recipient {
            Recipient::New => vec![
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
            ],
            Recipient::Known => vec![
                (Reached::SourceHour, Mails::RecoveryFrom(&source), HOUR, limits.recoveries_per_source_per_hour),
                of_deployment,
            ],
        };
        let now = self.clock.now().epoch_seconds();
        let mut counted = CountedMail { counters: Vec::new(), of_deployment: None };
        for (limit, mails, length, max) in limits {
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
