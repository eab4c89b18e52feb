//! Times that come again, as cron writes them: five fields, in UTC.
//!
//! In comes a text such as `0 3 * * *`, out come minutes. What is done at them, and what becomes of one that passed
//! unseen, is decided elsewhere.

use std::fmt;
use std::str::FromStr;

use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

const MINUTE_MS: i64 = 60_000;

/// The beginning of a minute, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Minute(i64);

impl Minute {
    /// The minute that `at_ms` lies in.
    pub fn of(at_ms: i64) -> Self {
        Self(at_ms.div_euclid(MINUTE_MS) * MINUTE_MS)
    }

    pub fn ms(self) -> i64 {
        self.0
    }

    /// `20261121T0300Z`: sorted as the minutes are, and safe in a name.
    pub fn compact(self) -> String {
        self.civil().map_or_else(|| self.0.to_string(), |at| at.strftime("%Y%m%dT%H%MZ").to_string())
    }

    fn civil(self) -> Option<DateTime> {
        Timestamp::from_millisecond(self.0).ok().map(|at| TimeZone::UTC.to_datetime(at))
    }

    fn of_civil(at: DateTime) -> Option<Self> {
        TimeZone::UTC.to_timestamp(at).ok().map(|at| Self::of(at.as_millisecond()))
    }
}

/// `2026-11-21T03:00Z`.
impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.civil() {
            Some(at) => write!(f, "{}", at.strftime("%Y-%m-%dT%H:%MZ")),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// A text that is no cron expression. Says what one looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must have five fields: minute, hour, day of month, month, day of week, in UTC, such as \"0 3 * * *\" (every day at 3){0}"
)]
pub struct CronError(String);

/// When something is done again and again: minute, hour, day of month, month, day of week, in UTC.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: String,
    /// Some hundreds of bytes.
    pattern: Box<croner::Cron>,
}

impl Cron {
    /// The first such minute above `minute`; `None` if none comes.
    pub fn next_after(&self, minute: Minute) -> Option<Minute> {
        let next = self.pattern.find_next_occurrence(&minute.civil()?, false).ok()?;
        Minute::of_civil(next)
    }

    /// The newest such minute at or below `minute`; `None` if none was.
    pub fn last_until(&self, minute: Minute) -> Option<Minute> {
        let last = self.pattern.find_previous_occurrence(&minute.civil()?, true).ok()?;
        Minute::of_civil(last)
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        // The parser knows nicknames and a sixth and a seventh field; a schedule has one form only.
        if fields.len() != 5 {
            return Err(CronError(String::new()));
        }
        let text = fields.join(" ");
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let pattern = parser.parse(&text).map_err(|error| CronError(format!("; {error}")))?;
        let cron = Self { text, pattern: Box::new(pattern) };
        match cron.next_after(Minute(0)) {
            Some(_) => Ok(cron),
            None => Err(CronError("; this one never comes".into())),
        }
    }
}

impl TryFrom<String> for Cron {
    type Error = CronError;

    fn try_from(text: String) -> Result<Self, CronError> {
        text.parse()
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn minute(text: &str) -> Minute {
        Minute::of(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn the_minutes_of_an_expression_are_in_utc() {
        for (cron, after, next) in [
            ("0 3 * * *", "2026-11-21T03:00:00Z", "2026-11-22T03:00:00Z"),
            ("0 3 * * *", "2026-11-21T02:59:00Z", "2026-11-21T03:00:00Z"),
            ("*/15 * * * *", "2026-11-21T03:00:00Z", "2026-11-21T03:15:00Z"),
            ("30 1 29 2 *", "2026-11-21T03:00:00Z", "2028-02-29T01:30:00Z"),
            ("0 0 * * MON", "2026-11-21T03:00:00Z", "2026-11-23T00:00:00Z"),
            // An hour that some zones skip.
            ("30 2 29 3 *", "2026-01-01T00:00:00Z", "2026-03-29T02:30:00Z"),
        ] {
            let parsed: Cron = cron.parse().unwrap();
            assert_eq!(parsed.next_after(minute(after)), Some(minute(next)), "{cron}");
            assert_eq!(parsed.last_until(minute(next)), Some(minute(next)), "{cron}");
        }
        let daily: Cron = "0 3 * * *".parse().unwrap();
        assert_eq!(daily.last_until(minute("2026-11-21T02:59:00Z")), Some(minute("2026-11-20T03:00:00Z")));
    }

    #[test]
    fn what_is_no_expression_of_five_fields_is_refused() {
        for wrong in [
            "",
            "daily",
            "@daily",
            "0 3 * *",
            "0 0 3 * * *",
            "0 0 3 * * * 2027",
            "60 3 * * *",
            "0 3 30 2 *",
            "a b c d e",
        ] {
            let error = wrong.parse::<Cron>().unwrap_err().to_string();
            assert!(error.starts_with("must have five fields") && error.contains("UTC"), "{wrong}: {error}");
        }
    }

    #[test]
    fn it_is_stored_as_its_text() {
        let cron: Cron = " 0  3 * * mon ".parse().unwrap();
        let json = serde_json::to_string(&cron).unwrap();
        assert_eq!(json, "\"0 3 * * mon\"");
        assert_eq!(serde_json::from_str::<Cron>(&json).unwrap(), cron);
        assert!(serde_json::from_str::<Cron>("\"now\"").is_err());
    }

    #[test]
    fn a_minute_has_a_name_that_sorts() {
        assert_eq!(minute("2026-11-21T03:00:59Z").compact(), "20261121T0300Z");
        assert_eq!(minute("2026-11-21T03:00:59Z").to_string(), "2026-11-21T03:00Z");
        assert_eq!(Minute::of(-1).ms(), -60_000);
    }

    proptest! {
        #[test]
        fn the_next_minute_is_above_and_nothing_lies_between(at in 0i64..4_000_000_000_000, step in 1u8..30) {
            let cron: Cron = format!("*/{step} */5 * * *").parse().unwrap();
            let from = Minute::of(at);
            let next = cron.next_after(from).unwrap();
            prop_assert!(next > from);
            prop_assert_eq!(cron.last_until(next), Some(next));
            prop_assert!(cron.last_until(Minute(next.ms() - 60_000)).unwrap() <= from);
        }
    }
}
