//! Time: a clock that tests can control, and the one format in which timestamps are stored and
//! returned.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize, Serializer};

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
        Clock::Manual(Arc::new(AtomicI64::new(start.epoch_seconds() * 1000)))
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
// Not a `Timestamp`, which ends before the last day of 9999: a common way to write *never*.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(DateTime);

/// 1970 in UTC.
const UNIX_EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

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
        let local: DateTime = seconds.parse().ok()?;
        local.checked_sub(SignedDuration::from_mins(minutes(offset)?)).ok().map(Self)
    }

    /// The Unix epoch.
    pub(crate) const EPOCH: Self = Self(UNIX_EPOCH);

    /// Milliseconds since 1970; 0 for earlier times.
    pub(crate) fn epoch_milliseconds(self) -> u64 {
        u64::try_from(self.epoch_seconds()).unwrap_or(0) * 1000
    }

    /// Seconds since 1970, as DynamoDB's TTL requires.
    pub fn epoch_seconds(self) -> i64 {
        self.0.duration_since(UNIX_EPOCH).as_secs()
    }

    /// Adds a duration; saturates at the last representable time.
    pub fn plus(self, duration: Duration) -> Self {
        self.0.checked_add(duration).map_or(Self(LAST), Self::from)
    }
}

impl Moment {
    /// Subtracts a duration; saturates at the first representable time.
    pub fn minus(self, duration: Duration) -> Self {
        self.0.checked_sub(duration).map_or(Self(DateTime::MIN), Self::from)
    }

    /// The days from this date to another one, in UTC: 0 for the same date, less if it is earlier.
    pub fn days_until(self, other: Self) -> i64 {
        const DAY: i64 = 24 * 60 * 60;
        other.epoch_seconds().div_euclid(DAY) - self.epoch_seconds().div_euclid(DAY)
    }

    /// The date in UTC, such as `2026-11-21`.
    pub fn date(self) -> String {
        self.to_string()[..10].to_owned()
    }
}

/// The last second that RFC 3339 can express.
const LAST: DateTime = DateTime::constant(9999, 12, 31, 23, 59, 59, 0);

/// The minutes of an offset whose form is valid.
fn minutes(offset: &str) -> Option<i64> {
    let Some((hours, minutes)) = offset.split_once(':') else { return Some(0) };
    let minutes = minutes.parse::<i64>().ok()?;
    let hours = hours.parse::<i64>().ok()?;
    // `-00:30` has a negative zero.
    Some(if offset.starts_with('-') { hours * 60 - minutes } else { hours * 60 + minutes })
}

impl From<DateTime> for Moment {
    /// Truncates fractions of a second.
    fn from(datetime: DateTime) -> Self {
        Self(datetime.with().subsec_nanosecond(0).build().unwrap_or(datetime))
    }
}

impl From<Timestamp> for Moment {
    fn from(timestamp: Timestamp) -> Self {
        Self::from(Offset::UTC.to_datetime(timestamp))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}Z", self.0)
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
            "2026-11-21T09:30:00-00:30",
        ] {
            assert_eq!(Moment::parse(text).unwrap().to_string(), "2026-11-21T10:00:00Z", "{text}");
        }
    }

    #[test]
    fn end_of_year_9999_is_kept_as_given() {
        let never = Moment::parse("9999-12-31T23:59:59Z").unwrap();
        assert_eq!((never.to_string().as_str(), never.epoch_seconds()), ("9999-12-31T23:59:59Z", 253_402_300_799));
        assert_eq!(never.plus(Duration::from_secs(1)), never);
        assert_eq!(Moment::parse("9999-12-31T23:59:59+09:00").unwrap().to_string(), "9999-12-31T14:59:59Z");
        for beyond in ["9999-12-32T00:00:00Z", "9999-12-31T23:59:59-00:01"] {
            assert_eq!(Moment::parse(beyond), None, "{beyond}");
        }
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
    fn days_are_those_of_the_calendar_in_utc() {
        let at = |text| Moment::parse(text).unwrap();
        let now = at("2026-11-21T23:59:59Z");
        for (end, days) in [
            ("2026-11-20T23:59:59Z", -1),
            ("2026-11-21T00:00:00Z", 0),
            ("2026-11-22T00:00:00Z", 1),
            ("2026-11-28T12:00:00Z", 7),
            ("2026-12-21T00:00:00Z", 30),
        ] {
            assert_eq!(now.days_until(at(end)), days, "{end}");
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
