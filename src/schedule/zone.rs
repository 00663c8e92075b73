//! Wall clocks: stretches of time in which a zone's clock is not changed, and the minutes of a pattern as the clock shows
//! them. Pure, once the zone's rules are read.
//!
//! A minute that the clock skips counts at the instant of the jump, after all that came before; one that it shows twice
//! counts twice. So a window over the change is as long on the wall clock as on any day, and none is lost in the gap.

use jiff::tz::{self, TimeZone};
use jiff::{Timestamp as Instant, ZonedDateTime};

use super::pattern::Pattern;
use crate::model::Timestamp;
use crate::spelling::did_you_mean;

/// A named zone with its rules: those of the system, else those that the program brings along.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone(TimeZone);

/// A minute of a pattern, ordered as the clock shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// When, in seconds since 1970.
    pub at: i64,
    /// What the clock shows, or would show had it not skipped it.
    pub wall: i64,
}

/// Time between two changes of the clock, in seconds since 1970.
struct Stretch {
    from: Option<i64>,
    /// First instant after it.
    until: Option<i64>,
    /// Wall clock minus UTC, in it and before it.
    offset: i64,
    before: i64,
}

impl Zone {
    pub fn utc() -> Zone {
        Zone(TimeZone::UTC)
    }

    /// The zone of an IANA name. Reads the system's rules.
    ///
    /// # Errors
    /// A hint when there is no such zone.
    pub fn named(name: &str) -> Result<Zone, String> {
        tz::db().get(name).map(Zone).map_err(|_| {
            let names: Vec<String> = tz::db().available().map(|name| name.to_string()).collect();
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            did_you_mean(name, &known).unwrap_or_else(|| "an IANA name, such as Europe/Berlin or UTC".into())
        })
    }

    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// "Sun 2026-03-29 03:00 CEST".
    pub fn wall_clock(&self, at: Timestamp) -> String {
        let at = instant(at.millis().div_euclid(1000));
        ZonedDateTime::new(at, self.0.clone()).strftime("%a %Y-%m-%d %H:%M %Z").to_string()
    }

    /// Wall clock minus UTC at an instant, in seconds.
    fn offset(&self, at: i64) -> i64 {
        i64::from(self.0.to_offset(instant(at)).seconds())
    }

    /// The instant at which the clock first shows `wall`, or jumps over it.
    pub fn first_shows(&self, wall: i64) -> i64 {
        let mut at = wall - DAY;
        loop {
            let stretch = self.stretch(at);
            let shown = wall - stretch.offset;
            match (stretch.from, stretch.until) {
                (Some(from), _) if shown < from => return from,
                (_, Some(until)) if shown >= until => at = until,
                _ => return shown,
            }
        }
    }

    /// The last minute of the pattern that the clock has shown at `at`.
    pub fn last(&self, pattern: &Pattern, at: i64) -> Option<Shown> {
        let mut at = at;
        loop {
            let stretch = self.stretch(at);
            let wall = pattern.last_until(at + stretch.offset)?;
            let shown = wall - stretch.offset;
            match stretch.from {
                // Before the stretch, and not skipped by the jump that begins it.
                Some(from) if shown < from && wall < from + stretch.before => at = from - 1,
                Some(from) => return Some(Shown { at: shown.max(from), wall }),
                None => return Some(Shown { at: shown, wall }),
            }
        }
    }

    /// The first minute of the pattern that the clock shows after `at`.
    pub fn first(&self, pattern: &Pattern, at: i64) -> Option<Shown> {
        let mut from = at + 1;
        loop {
            let stretch = self.stretch(from);
            let jumped = stretch.from == Some(from);
            let offset = if jumped { stretch.before.min(stretch.offset) } else { stretch.offset };
            let wall = pattern.first_from(from + offset)?;
            let shown = Shown { at: (wall - stretch.offset).max(from), wall };
            match stretch.until {
                Some(until) if shown.at >= until => from = until,
                _ => return Some(shown),
            }
        }
    }

    fn stretch(&self, at: i64) -> Stretch {
        let began = self.0.preceding(instant(at + 1)).next();
        let from = began.map(|change| change.timestamp().as_second());
        let until = self.0.following(instant(at)).next().map(|change| change.timestamp().as_second());
        Stretch { from, until, offset: self.offset(at), before: from.map_or(0, |from| self.offset(from - 1)) }
    }
}

/// No zone's clock is further from UTC, nor jumps further.
const DAY: i64 = 86_400;

/// At the end of what a clock can hold, its end.
fn instant(at: i64) -> Instant {
    Instant::from_second(at.clamp(Instant::MIN.as_second(), Instant::MAX.as_second())).unwrap_or(Instant::MAX)
}
