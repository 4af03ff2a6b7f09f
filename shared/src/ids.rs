//! Management ids: ULIDs, which sort by creation time. They identify resources and are not secret.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ulid::Ulid;

use crate::secret::{RandomnessUnavailable, random_80_bits};
use crate::{Clock, Moment};

fn new_ulid(clock: &Clock) -> Result<Ulid, RandomnessUnavailable> {
    Ok(Ulid::from_parts(clock.now_milliseconds(), random_80_bits()?))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $example:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String, example = $example)]
        pub struct $name(String);

        impl $name {
            /// Generates an id with the clock's time.
            pub fn new(clock: &Clock) -> Result<Self, RandomnessUnavailable> {
                Ok(Self(format!(concat!($prefix, "{}"), new_ulid(clock)?)))
            }

            /// Parses an id. `None` if it is malformed, including other spellings of the same ULID.
            pub fn parse(text: &str) -> Option<Self> {
                let ulid = Ulid::from_string(text.strip_prefix($prefix)?).ok()?;
                (text[$prefix.len()..] == ulid.to_string()).then(|| Self(text.to_owned()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom("is not a valid id"))
            }
        }
    };
}

id!(
    /// An organization: `OG` and a ULID.
    OrgId, "OG", "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC"
);
id!(
    /// A bot: `BT` and a ULID.
    BotId, "BT", "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC"
);
id!(
    /// A member, a person in one organization: `MB` and a ULID.
    MemberId, "MB", "MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC"
);
id!(
    /// A session of a person: a ULID. It identifies the session and does not open it.
    SessionId, "", "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"
);
id!(
    /// The management id of a token: a ULID.
    TokenId, "", "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"
);
id!(
    /// A trust of a bot: a ULID.
    TrustId, "", "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"
);
id!(
    /// An entry of the audit log: a ULID.
    AuditId, "", "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"
);
id!(
    /// An entry of the installation log: a ULID.
    InstallationId, "", "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"
);

/// Ids of log entries. They sort by time, so a time is a position in the log.
macro_rules! log_id {
    ($name:ident) => {
        impl $name {
            /// The smallest id of this moment.
            pub(crate) fn first_at(moment: Moment) -> Self {
                Self(Ulid::from_parts(moment.epoch_milliseconds(), 0).to_string())
            }

            /// The greatest id before this moment.
            pub(crate) fn last_before(moment: Moment) -> Self {
                Self::first_at(moment).before()
            }

            /// The greatest id.
            pub(crate) fn last() -> Self {
                Self(Ulid::max().to_string())
            }

            /// The greatest id smaller than this one.
            pub(crate) fn before(&self) -> Self {
                let number = Ulid::from_string(&self.0).map_or(0, |ulid| u128::from_be_bytes(ulid.to_bytes()));
                Self(Ulid::from_bytes(number.saturating_sub(1).to_be_bytes()).to_string())
            }
        }
    };
}

log_id!(AuditId);
log_id!(InstallationId);

impl AuditId {
    /// The id of the one entry of this hour since 1970 that a text names.
    pub(crate) fn in_hour(hour: i64, text: &str) -> Self {
        let mut random = [0; 16];
        random[6..].copy_from_slice(&Sha256::digest(text)[..10]);
        let milliseconds = u64::try_from(hour).unwrap_or(0).saturating_mul(60 * 60 * 1_000);
        Self(Ulid::from_parts(milliseconds, u128::from_be_bytes(random)).to_string())
    }
}

impl TokenId {
    /// When the token was created, in milliseconds since 1970.
    pub(crate) fn milliseconds(&self) -> u64 {
        Ulid::from_string(&self.0).map_or(0, |ulid| ulid.timestamp_ms())
    }
}

impl SessionId {
    /// When the session started, in milliseconds since 1970.
    pub(crate) fn milliseconds(&self) -> u64 {
        Ulid::from_string(&self.0).map_or(0, |ulid| ulid.timestamp_ms())
    }
}

impl InstallationId {
    /// When the entry was created, in milliseconds since 1970.
    pub(crate) fn milliseconds(&self) -> u64 {
        Ulid::from_string(&self.0).map_or(0, |ulid| ulid.timestamp_ms())
    }
}

id!(
    /// The id of a request that did not come through API Gateway: a ULID.
    RequestId, "", "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_parse_back() {
        let clock = Clock::manual(crate::Moment::parse("2026-11-21T10:00:00Z").unwrap());
        let first = OrgId::new(&clock).unwrap();
        clock.advance(std::time::Duration::from_millis(1));
        let second = OrgId::new(&clock).unwrap();
        assert!(first < second);
        assert_eq!(OrgId::parse(first.as_str()), Some(first));
    }

    #[test]
    fn other_spellings_of_an_id_are_refused() {
        let id = TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap();
        for other in [
            "",
            "01kaj8m4r2x7z9v5t3q1n6p8wc",
            "O1KAJ8M4R2X7Z9V5T3Q1N6P8WC",
            "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC",
            "01KAJ8M4R2X7Z9V5T3Q1N6P8W",
            "01KAJ8M4R2X7Z9V5T3Q1N6P8WC0",
            "é1KAJ8M4R2X7Z9V5T3Q1N6P8WC",
        ] {
            assert_eq!(TokenId::parse(other), None, "{other} is not {id}");
        }
        assert_eq!(BotId::parse(id.as_str()), None);
    }
}
