//! The range of days by which logs are filtered.

use std::time::Duration;

use serde::Deserialize;

use super::form::Fields;
use super::messages::Messages;
use crate::clock::Moment;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The first and the last day, such as `2026-11-21`, in UTC. An empty text is no limit.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Days {
    /// The first day, or a time.
    #[serde(default)]
    pub from: String,
    /// The last day, or the time before which entries are.
    #[serde(default)]
    pub to: String,
}

impl Days {
    /// The beginning, and the end that is not part of the range. Errors are added to the fields.
    pub fn parse(&self, m: &Messages, errors: &mut Fields) -> (Option<Moment>, Option<Moment>) {
        let mut moment = |field, text: &str, rest| {
            if text.is_empty() {
                return None;
            }
            let day = || Moment::parse(&format!("{text}T00:00:00Z")).map(|day| day.plus(rest));
            errors.parse(field, Moment::parse(text).or_else(day).ok_or(m.day_invalid))
        };
        (moment("from", &self.from, Duration::ZERO), moment("to", &self.to, DAY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::messages::EN;

    #[test]
    fn last_day_is_part_of_the_range() {
        let parse = |from: &str, to: &str| {
            let mut errors = Fields::default();
            let days = Days { from: from.to_owned(), to: to.to_owned() };
            let (from, to) = days.parse(&EN, &mut errors);
            let text = |at: Option<Moment>| at.map(|at| at.to_string()).unwrap_or_default();
            (text(from), text(to), errors.of("from").is_empty(), errors.of("to").is_empty())
        };
        let expect = |from: &str, to: &str, good_from, good_to| (from.to_owned(), to.to_owned(), good_from, good_to);
        assert_eq!(parse("", ""), expect("", "", true, true));
        assert_eq!(
            parse("2026-11-21", "2026-11-21"),
            expect("2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z", true, true)
        );
        let time = "2026-11-21T10:00:00Z";
        assert_eq!(parse(time, time), expect(time, time, true, true));
        assert_eq!(parse("21.11.2026", "2026-02-30"), expect("", "", false, false));
    }
}
