//! A cron pattern over the wall clock: which minutes it names. Knows nothing of zones: a minute of the wall clock is
//! written as the seconds since 1970 of a clock that is never changed. Pure.

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// Minute, hour, day of the month, month, day of the week; where both days are given, either will do.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern(Box<Cron>);

const FIELDS: usize = 5;

impl Pattern {
    /// Reads a pattern of five fields.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let fields = text.split_whitespace().count();
        if fields != FIELDS {
            return Err(format!("has {fields} fields, not {FIELDS}"));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let pattern = parser.parse(text).map(|cron| Pattern(Box::new(cron))).map_err(|error| error.to_string())?;
        match pattern.first_from(SOME_DAY) {
            Some(_) => Ok(pattern),
            None => Err("never comes".into()),
        }
    }

    /// The first minute that it names, at or after the given one.
    pub fn first_from(&self, wall: i64) -> Option<i64> {
        let from = DateTime::<Utc>::from_timestamp(wall, 0)?;
        Some(self.0.find_next_occurrence(&from, true).ok()?.timestamp())
    }

    /// The last minute that it names, at or before the given one.
    pub fn last_until(&self, wall: i64) -> Option<i64> {
        let until = DateTime::<Utc>::from_timestamp(wall, 0)?;
        Some(self.0.find_previous_occurrence(&until, true).ok()?.timestamp())
    }
}

/// Where a look at a pattern as such begins: 1 January 2000.
pub const SOME_DAY: i64 = 946_684_800;
