//! The choice of an expiry, which several forms share: the template's macro `fields::expiry`.

use std::time::Duration;

use serde::Deserialize;

use super::form::Fields;
use super::messages::Messages;
use crate::clock::Moment;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The chosen expiry as it was sent.
#[derive(Debug, Clone, Deserialize)]
pub struct Expiry {
    /// A number of days, `date` or `never`.
    #[serde(default)]
    pub expiry: String,
    /// The date, if `date` was chosen, such as `2026-11-21`.
    #[serde(default)]
    pub expiry_date: String,
}

impl Default for Expiry {
    /// What a new form proposes.
    fn default() -> Self {
        Self { expiry: "90".to_owned(), expiry_date: String::new() }
    }
}

impl Expiry {
    /// The field that an error belongs to.
    pub const FIELD: &str = "expiry";

    /// The time that was chosen; `None` for never. An error is added to the fields.
    pub fn parse(&self, now: Moment, m: &Messages, errors: &mut Fields) -> Option<Moment> {
        match self.expiry.as_str() {
            days @ ("7" | "30" | "90" | "365") => Some(now.plus(DAY * days.parse().unwrap_or(7))),
            "never" => None,
            "date" if self.expiry_date.is_empty() => {
                errors.add(Self::FIELD, m.expiry_date_missing);
                None
            }
            // A date is valid until its end, UTC: today too.
            "date" => match Moment::parse(&format!("{}T23:59:59Z", self.expiry_date)) {
                Some(end) if end > now => Some(end),
                Some(_) => {
                    errors.add(Self::FIELD, m.expiry_in_the_past);
                    None
                }
                None => {
                    errors.add(Self::FIELD, m.expiry_date_missing);
                    None
                }
            },
            _ => {
                errors.add(Self::FIELD, m.expiry_missing);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::messages::EN;

    #[test]
    fn expiry_is_read_as_it_was_chosen() {
        let now = Moment::parse("2026-11-21T10:00:00Z").unwrap();
        let parse = |expiry: &str, date: &str| {
            let mut errors = Fields::default();
            let chosen = Expiry { expiry: expiry.to_owned(), expiry_date: date.to_owned() };
            let at = chosen.parse(now, &EN, &mut errors);
            (at.map(|at| at.to_string()), errors.of(Expiry::FIELD).to_owned())
        };
        let good = |at: &str| (Some(at.to_owned()), String::new());
        assert_eq!(parse("7", ""), good("2026-11-28T10:00:00Z"));
        assert_eq!(parse("365", "2026-12-01"), good("2027-11-21T10:00:00Z"));
        assert_eq!(parse("date", "2026-11-21"), good("2026-11-21T23:59:59Z"));
        assert_eq!(parse("never", ""), (None, String::new()));
        for (expiry, date) in
            [("", ""), ("8", ""), ("date", ""), ("date", "2026-11-20"), ("date", "2026-02-30"), ("date", "21.11.2026")]
        {
            let (at, error) = parse(expiry, date);
            assert!(at.is_none() && !error.is_empty(), "{expiry} {date}");
        }
    }
}
