//! Who registers by mail: everybody, nobody, or the addresses of some domains. A parameter of the
//! deployment says so, until the operator says otherwise with `guardctl registration`.
//!
//! It concerns addresses without a token alone. An address with a token still gets its recovery
//! mail.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::keys::{self, Log};
use super::{Committed, Store, StoreError};
use crate::email::EmailAddress;

/// Maximum domains of a policy, so that its item stays small.
const DOMAINS: usize = 100;

/// Which addresses without a token get one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RegistrationPolicy {
    /// All.
    #[default]
    Open,
    /// None.
    Closed,
    /// Those of these domains, IDNA-encoded and in lower case. A domain does not include the ones
    /// below it.
    Domains(BTreeSet<String>),
}

impl RegistrationPolicy {
    /// Whether this address may get a token.
    pub fn admits(&self, email: &EmailAddress) -> bool {
        match self {
            RegistrationPolicy::Open => true,
            RegistrationPolicy::Closed => false,
            RegistrationPolicy::Domains(domains) => domains.contains(email.domain()),
        }
    }
}

impl FromStr for RegistrationPolicy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "open" => return Ok(RegistrationPolicy::Open),
            "closed" => return Ok(RegistrationPolicy::Closed),
            _ => {}
        }
        let domain = |domain: &str| {
            let address = EmailAddress::try_from(format!("a@{}", domain.trim()));
            address.map(|address| address.domain().to_owned())
        };
        let domains: Result<BTreeSet<String>, _> = text.split(',').map(domain).collect();
        match domains {
            Ok(domains) if domains.len() <= DOMAINS => Ok(RegistrationPolicy::Domains(domains)),
            _ => Err("must be open, closed or up to 100 domains, separated by commas"),
        }
    }
}

impl fmt::Display for RegistrationPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistrationPolicy::Open => f.write_str("open"),
            RegistrationPolicy::Closed => f.write_str("closed"),
            RegistrationPolicy::Domains(domains) => {
                f.write_str(&domains.iter().map(String::as_str).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// The stored policy, as text.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    policy: String,
}

impl Store {
    /// The policy that the operator has set. `None`: the deployment's parameter holds. What this
    /// version cannot read admits nobody.
    pub async fn registration(&self) -> Result<Option<RegistrationPolicy>, StoreError> {
        let stored: Option<Stored> = self.get(keys::registration()).await?;
        Ok(stored.map(|stored| {
            stored.policy.parse().unwrap_or_else(|_| {
                tracing::error!("the stored registration policy cannot be read; registration is closed");
                RegistrationPolicy::Closed
            })
        }))
    }

    /// Sets the policy from the next registration on. With `None` the deployment's parameter holds
    /// again.
    pub async fn set_registration(
        &self,
        policy: Option<&RegistrationPolicy>,
        caller: &Caller,
    ) -> Result<(), StoreError> {
        let target = Subject::new("deployment", "registration");
        let set = policy.map_or_else(|| "parameter".to_owned(), ToString::to_string);
        let entry = Entry::done(&self.clock, caller, "registration.set", target)?.with_detail(set);
        let mut transaction = self.transaction();
        match policy {
            Some(policy) => transaction.put(keys::registration(), &Stored { policy: policy.to_string() }),
            None => transaction.delete(keys::registration()),
        };
        match transaction.audit(Log::Deployment, &entry).commit().await? {
            Committed::Yes => Ok(()),
            // It has no condition.
            Committed::No(_) => Err(StoreError::Defect),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_is_open_closed_or_a_list_of_domains() {
        for (text, shown) in [
            ("open", "open"),
            (" closed ", "closed"),
            ("example.com", "example.com"),
            ("B.example, a.EXAMPLE,bücher.example", "a.example,b.example,xn--bcher-kva.example"),
        ] {
            assert_eq!(text.parse::<RegistrationPolicy>().unwrap().to_string(), shown);
        }
        let many = (0..=DOMAINS).map(|n| format!("d{n}.example")).collect::<Vec<_>>().join(",");
        for bad in ["", "Open", "localhost", "a@example.com", "example.com,", "*.example.com", "open,closed", &many] {
            assert!(bad.parse::<RegistrationPolicy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn policy_of_domains_admits_exactly_their_addresses() {
        let policy: RegistrationPolicy = "example.com".parse().unwrap();
        let admits = |text: &str| policy.admits(&EmailAddress::try_from(text.to_owned()).unwrap());
        assert!(admits("you@example.com") && admits("you@EXAMPLE.com"));
        assert!(!admits("you@mail.example.com") && !admits("you@example.org") && !admits("you@notexample.com"));
    }
}
