//! The choice of an expiry, which several forms share: the template's macro `fields::expiry`.

use std::time::Duration;

use serde::Deserialize;

use super::form::Fields;
use super::messages::Messages;
use crate::clock::Moment;
use crate::store::lifetimes::{Lifetimes, Limited, TooLong};
use crate::store::orgs::Org;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What an organization's policy allows in a form.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    policy: Lifetimes,
    kind: Limited,
    now: Moment,
    created_at: Moment,
}

/// The choices that a form offers, for the template.
#[derive(Debug, Clone)]
pub struct Offered {
    /// In 7 days.
    pub week: bool,
    /// In 30 days.
    pub month: bool,
    /// In 90 days.
    pub quarter: bool,
    /// In 365 days.
    pub year: bool,
    /// Never.
    pub never: bool,
    /// What is said about all of them.
    pub hint: String,
}

impl Limit {
    /// The limit of new tokens of this kind.
    pub fn of(org: &Org, kind: Limited, now: Moment) -> Self {
        Self { policy: org.lifetimes, kind, now, created_at: now }
    }

    /// No limit, as for API keys of bots.
    pub fn none(now: Moment) -> Self {
        Self { policy: Lifetimes::default(), kind: Limited::ApiKey, now, created_at: now }
    }

    /// The limit of a token that was created at this time.
    pub fn created_at(self, created_at: Moment) -> Self {
        Self { created_at, ..self }
    }

    fn allows(&self, expires_at: Option<Moment>) -> bool {
        self.policy.check(self.kind, self.created_at, expires_at).is_ok()
    }

    fn allows_days(&self, days: u32) -> bool {
        self.allows(Some(self.now.plus(DAY * days)))
    }

    /// The choices to offer.
    pub fn offered(&self, m: &Messages) -> Offered {
        let hint = match self.policy.max_days(self.kind) {
            Some(days) => format!("{} {}", m.expiry_date_hint, m.expiry_at_most(days)),
            None => m.expiry_date_hint.to_owned(),
        };
        Offered {
            week: self.allows_days(7),
            month: self.allows_days(30),
            quarter: self.allows_days(90),
            year: self.allows_days(365),
            never: self.allows(None),
            hint,
        }
    }
}

/// The chosen expiry as it was sent.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Expiry {
    /// A number of days, `date` or `never`.
    #[serde(default)]
    pub expiry: String,
    /// The date, if `date` was chosen, such as `2026-11-21`.
    #[serde(default)]
    pub expiry_date: String,
}

impl Expiry {
    /// The field that an error belongs to.
    pub const FIELD: &str = "expiry";

    /// What a new form proposes: 90 days, or the longest choice that the policy allows.
    pub fn proposed(limit: &Limit) -> Self {
        let chosen = [90, 30, 7].into_iter().find(|days| limit.allows_days(*days));
        match (chosen, limit.policy.max_days(limit.kind)) {
            (None, Some(days)) => {
                // Its end is within the limit.
                let last = limit.now.plus(DAY * (days.get() - 1)).date();
                Self { expiry: "date".to_owned(), expiry_date: last }
            }
            (chosen, _) => Self { expiry: chosen.unwrap_or(90).to_string(), expiry_date: String::new() },
        }
    }

    /// The time that was chosen; `None` for never. An error is added to the fields.
    pub fn parse(&self, limit: &Limit, m: &Messages, errors: &mut Fields) -> Option<Moment> {
        let chosen = errors.parse(Self::FIELD, self.chosen(limit.now, m))?;
        match limit.policy.check(limit.kind, limit.created_at, chosen) {
            Ok(()) => chosen,
            Err(TooLong { days, .. }) => {
                errors.add(Self::FIELD, m.expiry_too_late(days));
                None
            }
        }
    }

    fn chosen(&self, now: Moment, m: &Messages) -> Result<Option<Moment>, &'static str> {
        match self.expiry.as_str() {
            days @ ("7" | "30" | "90" | "365") => Ok(Some(now.plus(DAY * days.parse().unwrap_or(7)))),
            "never" => Ok(None),
            "date" if self.expiry_date.is_empty() => Err(m.expiry_date_missing),
            // A date is valid until its end, UTC: today too.
            "date" => match Moment::parse(&format!("{}T23:59:59Z", self.expiry_date)) {
                Some(end) if end > now => Ok(Some(end)),
                Some(_) => Err(m.expiry_in_the_past),
                None => Err(m.expiry_date_missing),
            },
            _ => Err(m.expiry_missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::messages::EN;
    use crate::store::lifetimes::Days;

    fn limit(days: Option<u32>) -> Limit {
        let now = Moment::parse("2026-11-21T10:00:00Z").unwrap();
        let policy = Lifetimes { api_key: days.and_then(Days::new), ..Lifetimes::default() };
        Limit { policy, kind: Limited::ApiKey, now, created_at: now }
    }

    fn parse(limit: &Limit, expiry: &str, date: &str) -> (Option<String>, String) {
        let mut errors = Fields::default();
        let chosen = Expiry { expiry: expiry.to_owned(), expiry_date: date.to_owned() };
        let at = chosen.parse(limit, &EN, &mut errors);
        (at.map(|at| at.to_string()), errors.of(Expiry::FIELD).to_owned())
    }

    #[test]
    fn expiry_is_read_as_it_was_chosen() {
        let parse = |expiry: &str, date: &str| parse(&limit(None), expiry, date);
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

    #[test]
    fn policy_bounds_what_is_proposed_and_taken() {
        for (days, expiry, date) in [
            (None, "90", ""),
            (Some(365), "90", ""),
            (Some(90), "90", ""),
            (Some(89), "30", ""),
            (Some(7), "7", ""),
            (Some(6), "date", "2026-11-26"),
            (Some(1), "date", "2026-11-21"),
        ] {
            let limit = limit(days);
            let proposed = Expiry::proposed(&limit);
            assert_eq!((proposed.expiry.as_str(), proposed.expiry_date.as_str()), (expiry, date), "{days:?}");
            assert!(parse(&limit, expiry, date).0.is_some(), "{days:?}");
        }
        let limit = limit(Some(30));
        for (expiry, date) in [("90", ""), ("never", ""), ("date", "2026-12-21")] {
            let (at, error) = parse(&limit, expiry, date);
            assert!(at.is_none() && error.contains("30 days"), "{expiry} {date}: {error}");
        }
        assert!(parse(&limit, "30", "").0.is_some() && parse(&limit, "date", "2026-12-20").0.is_some());
        let Offered { week, month, quarter, year, never, hint } = limit.offered(&EN);
        assert!(week && month && !quarter && !year && !never && hint.contains("30 days"), "{hint}");
    }
}
