//! The words the service speaks: each value is checked where it enters, and valid from then on.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who an org user token is for: 4–255 characters of ASCII letters, digits and `. _ @ + -`, case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 4, max_length = 255, pattern = "^[A-Za-z0-9._@+-]+$", example = "alice-laptop")]
pub struct UserIdentifier(String);

impl UserIdentifier {
    /// The identifier as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn allows(character: char) -> bool {
        character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '@' | '+' | '-')
    }
}

impl TryFrom<String> for UserIdentifier {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if !text.chars().all(Self::allows) {
            return Err("may contain only ASCII letters, digits and . _ @ + -");
        }
        if !(4..=255).contains(&text.len()) {
            return Err("must have 4 to 255 characters");
        }
        Ok(Self(text))
    }
}

/// The beginning of a [`UserIdentifier`], to search by: 1–255 of the same characters.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 255, pattern = "^[A-Za-z0-9._@+-]+$", example = "alice")]
pub struct UserIdentifierPrefix(String);

impl UserIdentifierPrefix {
    /// The prefix as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UserIdentifierPrefix {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if !text.chars().all(UserIdentifier::allows) {
            return Err("may contain only ASCII letters, digits and . _ @ + -");
        }
        // An empty prefix would list everything, and is most often a variable that was not set.
        if !(1..=255).contains(&text.len()) {
            return Err("must have 1 to 255 characters; leave it out to list all");
        }
        Ok(Self(text))
    }
}

/// Whether a token counts. Revoked is for good; expiry is a matter of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    /// It counts.
    Active,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl TokenState {
    /// Every state, in the order in which a token passes through them. A reader who looks into the listings in this
    /// order misses no token that moves meanwhile.
    pub const ALL: [TokenState; 3] = [TokenState::Active, TokenState::Expired, TokenState::Revoked];
}

/// Which tokens to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateFilter {
    /// Those that count.
    #[default]
    Active,
    /// Those that were revoked.
    Revoked,
    /// Those whose time is over.
    Expired,
    /// All of them.
    All,
}

impl StateFilter {
    /// The states that pass, in the order of [`TokenState::ALL`].
    pub fn states(self) -> &'static [TokenState] {
        match self {
            StateFilter::Active => &[TokenState::Active],
            StateFilter::Revoked => &[TokenState::Revoked],
            StateFilter::Expired => &[TokenState::Expired],
            StateFilter::All => &TokenState::ALL,
        }
    }
}

/// What an organization pays for. It bounds the API keys that may be active at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Plan {
    /// 3 API keys.
    Free,
    /// 10 API keys.
    Developer,
    /// 20 API keys.
    Pro,
    /// No limit.
    Enterprise,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_4_to_255_of_the_allowed_characters() {
        let long = "a".repeat(255);
        for good in ["alice@example.com", "C02X1234_jdoe", "ASSET0042_EMP12345", "a.b+c-d", "0000", long.as_str()] {
            assert!(UserIdentifier::try_from(good.to_owned()).is_ok(), "{good}");
        }
        let too_long = "a".repeat(256);
        for bad in
            ["", "abc", too_long.as_str(), "ali ce", "alice#", "alice/x", "älice", "alice\n", "al\0ce", "alice😀"]
        {
            assert!(UserIdentifier::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
