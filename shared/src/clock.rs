//! Time: a clock that tests can control, and the one format in which timestamps are stored and
//! returned.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};

/// The service's source of time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system clock.
    #[default]
    System,
    /// A clock that only tests advance, in milliseconds since 1970.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stays at `start` until it is advanced.
    pub fn manual(start: Moment) -> Self {
        Clock::Manual(Arc::new(AtomicI64::new(start.0.as_millisecond())))
    }

    /// Advances a manual clock. Does nothing to the system clock.
    pub fn advance(&self, by: Duration) {
        if let Clock::Manual(milliseconds) = self {
            milliseconds.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// Now, in whole seconds.
    pub fn now(&self) -> Moment {
        Moment::from(self.timestamp())
    }

    /// Now, in milliseconds since 1970: for ids that sort by time.
    pub fn now_milliseconds(&self) -> u64 {
        u64::try_from(self.timestamp().as_millisecond()).unwrap_or(0)
    }

    #[allow(clippy::disallowed_methods)] // The only place that reads the system time.
    fn timestamp(&self) -> Timestamp {
        match self {
            Clock::System => Timestamp::now(),
            Clock::Manual(milliseconds) => {
                Timestamp::from_millisecond(milliseconds.load(Ordering::SeqCst)).unwrap_or(Timestamp::MAX)
            }
        }
    }
}

/// A timestamp in UTC and whole seconds, such as `2026-11-21T10:00:00Z`.
///
/// ```
/// use std::time::Duration;
/// use shared::Moment;
///
/// let tokyo = Moment::parse("2026-11-21T19:00:00+09:00").unwrap();
/// assert_eq!(tokyo.to_string(), "2026-11-21T10:00:00Z");
/// assert!(tokyo < tokyo.plus(Duration::from_secs(1)));
/// assert_eq!(Moment::parse("tomorrow"), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Moment(Timestamp);

impl Moment {
    /// Parses an RFC 3339 timestamp with any offset. Fractions of a second are truncated, so that
    /// no token outlives the expiry its holder was told.
    pub fn parse(text: &str) -> Option<Self> {
        // jiff also accepts formats outside RFC 3339: annotations, missing minutes, compact dates.
        let (seconds, rest) = text.split_at_checked(19)?;
        let has_form = seconds.bytes().enumerate().all(|(place, c)| match place {
            4 | 7 => c == b'-',
            10 => matches!(c, b'T' | b't' | b' '),
            13 | 16 => c == b':',
            _ => c.is_ascii_digit(),
        });
        // RFC 3339 allows any number of fraction digits, jiff only nine.
        let is_digit = |c: char| c.is_ascii_digit();
        let offset = match rest.strip_prefix('.') {
            Some(parts) => parts.strip_prefix(is_digit)?.trim_start_matches(is_digit),
            None => rest,
        };
        let is_offset = match offset.as_bytes() {
            [b'Z' | b'z'] => true,
            [b'+' | b'-', hours @ .., b':', ten, one] => {
                let hours = <[u8; 2]>::try_from(hours)
                    .is_ok_and(|hours| (*b"00"..=*b"23").contains(&hours) && hours[1].is_ascii_digit());
                hours && matches!(ten, b'0'..=b'5') && one.is_ascii_digit()
            }
            _ => false,
        };
        if !has_form || !is_offset {
            return None;
        }
        match format!("{seconds}{offset}").parse::<Timestamp>() {
            Ok(timestamp) => Some(Self::from(timestamp)),
            // The last hours of 9999, a common way to write *never*, are beyond jiff's last
            // timestamp.
            Err(_) if seconds.starts_with("9999-12-3") && seconds.parse::<jiff::civil::DateTime>().is_ok() => {
                Some(Self::from(Timestamp::MAX))
            }
            Err(_) => None,
        }
    }

    /// The Unix epoch.
    pub(crate) const EPOCH: Self = Self(Timestamp::UNIX_EPOCH);

    /// Milliseconds since 1970; 0 for earlier times.
    pub(crate) fn epoch_milliseconds(self) -> u64 {
        u64::try_from(self.0.as_millisecond()).unwrap_or(0)
    }

    /// Seconds since 1970, as DynamoDB's TTL requires.
    pub fn epoch_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// Adds a duration; saturates at the last representable time.
    pub fn plus(self, duration: Duration) -> Self {
        self.0.checked_add(duration).map_or(Self(Timestamp::MAX), Self::from)
    }
}

impl Moment {
    /// Subtracts a duration; saturates at the first representable time.
    pub fn minus(self, duration: Duration) -> Self {
        self.0.checked_sub(duration).map_or(Self(Timestamp::MIN), Self::from)
    }

    /// The date in UTC, such as `2026-11-21`.
    pub fn date(self) -> String {
        self.to_string()[..10].to_owned()
    }
}

impl From<Timestamp> for Moment {
    fn from(timestamp: Timestamp) -> Self {
        let floor = jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Floor);
        Self(timestamp.round(floor).unwrap_or(timestamp))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom("must be an RFC 3339 timestamp with an offset, such as 2026-11-21T10:00:00Z")
        })
    }
}

impl utoipa::PartialSchema for Moment {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{KnownFormat, Object, SchemaFormat, Type};
        Object::builder()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .examples(["2026-11-21T10:00:00Z"])
            .into()
    }
}

impl utoipa::ToSchema for Moment {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_offset_is_converted_to_utc_and_whole_seconds() {
        for text in [
            "2026-11-21T10:00:00Z",
            "2026-11-21T10:00:00.999Z",
            "2026-11-21T10:00:00.123456789012Z",
            "2026-11-21T19:00:00+09:00",
            "2026-11-21t05:00:00-05:00",
        ] {
            assert_eq!(Moment::parse(text).unwrap().to_string(), "2026-11-21T10:00:00Z", "{text}");
        }
    }

    #[test]
    fn end_of_year_9999_saturates_at_the_last_timestamp() {
        assert_eq!(Moment::parse("9999-12-31T23:59:59Z").unwrap().to_string(), "9999-12-30T22:00:00Z");
        assert_eq!(Moment::parse("9999-12-32T00:00:00Z"), None);
    }

    #[test]
    fn timestamps_outside_rfc_3339_are_refused() {
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T10:00:00",
            "2026-11-21T10Z",
            "20261121T100000Z",
            "2026-11-21T10:00:00Z[UTC]",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "tomorrow",
            "2026-11-21T10:00:00+0900",
            "1700000000",
            "2026-11-21T10:00:00.Z",
            "2026-11-21T10:00:00.1.2Z",
            "2026-11-21T10:00:0099Z",
            "2026-11-21T10:00:00Z+01:00",
            "2026-11-21T10:00:00+24:00",
            "2026-11-21T10:00:00+1::00",
            "2026-11-21T10:00:00+09:60",
            "2026-11-21T10:00:00+09:00:00",
            "2026-11-21T10:00:00\u{ff1a}00Z",
            "9999-12-31T23:59:59+99:99",
        ] {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }

    #[test]
    fn manual_clock_moves_only_when_advanced() {
        let clock = Clock::manual(Moment::parse("2026-11-21T10:00:00Z").unwrap());
        assert_eq!(clock.now().to_string(), "2026-11-21T10:00:00Z");
        clock.advance(Duration::from_millis(59_999));
        assert_eq!(clock.now().to_string(), "2026-11-21T10:00:59Z");
    }
}
