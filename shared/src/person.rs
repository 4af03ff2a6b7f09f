//! People who sign in to the console, and how they are identified.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::email::EmailAddress;
use crate::ids::MemberId;
use crate::secret::TokenHash;

/// The issuer of people who sign in with a code that was mailed to their address.
pub const BY_MAIL: &str = "mail";

/// A person as authenticated: an identity provider's subject, or an address that received a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The identity provider's issuer URL, or [`BY_MAIL`].
    pub issuer: String,
    /// The person's ID.
    pub id: PersonId,
    /// The verified address. Invitations are offered to it; it does not identify the person.
    pub email: EmailAddress,
}

impl Person {
    /// A person of an identity provider: its issuer URL, its `sub`, and the verified address.
    pub fn of_provider(issuer: &str, subject: &str, email: EmailAddress) -> Self {
        Self { issuer: issuer.to_owned(), id: PersonId::of(issuer, subject), email }
    }

    /// A person who received a code at this address.
    pub fn by_mail(email: EmailAddress) -> Self {
        Self::of_provider(BY_MAIL, &email.hash().to_hex(), email)
    }
}

/// SHA-256 of issuer and subject: the person's key in the table.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PersonId(TokenHash);

impl PersonId {
    fn of(issuer: &str, subject: &str) -> Self {
        // The length keeps different pairs from being the same text.
        Self(TokenHash::of_text(&format!("person {} {issuer} {subject}", issuer.len())))
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(self) -> String {
        self.0.to_hex()
    }
}

/// Binds a token to the membership of the person who issued it. Somebody who was removed and joins
/// again is another member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The member.
    pub member: MemberId,
    /// The person, under whom the membership is stored.
    pub person: PersonId,
}

impl fmt::Debug for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersonId([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn persons_of_different_issuers_differ() {
        let email = || EmailAddress::try_from("you@example.com".to_owned()).unwrap();
        let id = |issuer: &str, subject: &str| Person::of_provider(issuer, subject, email()).id;
        assert_eq!(id("https://a.example", "1"), id("https://a.example", "1"));
        for (issuer, subject) in [("https://b.example", "1"), ("https://a.example", "2"), ("https://a.example 1", "")] {
            assert_ne!(id("https://a.example", "1"), id(issuer, subject), "{issuer} {subject}");
        }
        assert_ne!(id("https://a.example", "1"), Person::by_mail(email()).id);
    }
}
