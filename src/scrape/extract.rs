//! One page and the sources of its signals -> raw numbers, or why there are none. Pure.

mod gather;
mod json;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Gap, Raw, Signal, Timestamp};

use super::exposition::{Dialect, Limits, PageError, Reader};
use super::settings::{Source, Whole};
use gather::Gathering;

pub use json::from_json;

/// What one page says of each signal.
pub type Extract = BTreeMap<Signal, Result<Raw, Gap>>;

/// How old a sample with a timestamp of its own may be.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    pub now: Timestamp,
    pub at_most: Duration,
}

impl Freshness {
    /// Two intervals.
    pub fn two(interval: Duration, now: Timestamp) -> Freshness {
        Freshness { now, at_most: interval.saturating_mul(2) }
    }

    /// Any age will do.
    pub fn any(now: Timestamp) -> Freshness {
        Freshness { now, at_most: Duration::MAX }
    }

    /// Whole seconds of age, if that is too old.
    pub(super) fn stale(self, timestamp_millis: Option<i64>) -> Option<u64> {
        let age = self.now.since(Timestamp::from_millis(timestamp_millis?));
        (age > self.at_most).then_some(age.as_secs())
    }
}

/// Reads a text page in one pass. One error in it, and none of its signals is known.
pub fn from_text(page: &[u8], dialect: Dialect, signals: &BTreeMap<Signal, Source>, fresh: Freshness) -> Extract {
    let mut gathered: Vec<(&Signal, Gathering<'_>)> =
        signals.iter().map(|(signal, source)| (signal, Gathering::of(source))).collect();
    match gather(page, dialect, &mut gathered, fresh) {
        Ok(()) => gathered.into_iter().map(|(signal, g)| (signal.clone(), g.finish(signal))).collect(),
        Err(error) => all(signals, &Gap::Unreadable(error.to_string())),
    }
}

fn gather(
    page: &[u8],
    dialect: Dialect,
    gathered: &mut [(&Signal, Gathering<'_>)],
    fresh: Freshness,
) -> Result<(), PageError> {
    let mut reader = Reader::new(page, dialect, Limits::default())?;
    while let Some(sample) = reader.next_sample()? {
        for (_, gathering) in &mut *gathered {
            gathering.offer(&sample, fresh);
        }
    }
    Ok(())
}

/// The same gap for every signal.
pub fn all(signals: &BTreeMap<Signal, Source>, gap: &Gap) -> Extract {
    signals.keys().map(|signal| (signal.clone(), Err(gap.clone()))).collect()
}

/// Gauge over gauge.
fn quotient(part: f64, of: f64, whole: &Whole, complement: bool) -> Result<f64, Gap> {
    if of <= 0.0 {
        return Err(Gap::NotANumber(format!("{part} of {of}")));
    }
    if whole.at_most.is_some_and(|most| of > most) {
        return Err(Gap::NotANumber(format!("{} {of} is no limit", whole.series)));
    }
    let share = part / (of * whole.factor);
    Ok(if complement { 1.0 - share } else { share })
}

/// A cumulative count is finite and not negative.
fn count(value: f64) -> Result<f64, Gap> {
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err(Gap::NotANumber(format!("{value}"))) }
}
