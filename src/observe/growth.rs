//! Two looks at the same numbers -> what happened between them. Pure.

use std::time::Duration;

use crate::model::{Gap, Raw, Signal, Stat};

use super::quantile::{quantile, rising};

/// What one signal of one node comes to between two checks.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Measured {
    /// A gauge, or a rate per second.
    Value(f64),
    /// So many of so many.
    Share { part: f64, whole: f64 },
    /// A histogram of what was observed since the last check.
    Spread { buckets: Vec<(f64, f64)>, sum: f64, count: f64, factor: f64, stat: Stat },
}

impl Measured {
    /// In the signal's unit. `Ok(None)` when nothing happened that could be measured.
    pub fn value(&self, signal: &Signal) -> Result<Option<f64>, Gap> {
        let value = match self {
            Measured::Value(value) => *value,
            Measured::Share { whole, .. } if *whole <= 0.0 => return nothing(signal),
            Measured::Share { part, whole } => part / whole,
            Measured::Spread { count, .. } if *count <= 0.0 => return nothing(signal),
            Measured::Spread { sum, count, factor, stat: Stat::Mean, .. } => sum / count * factor,
            Measured::Spread { buckets, factor, stat, .. } => {
                let q = match stat {
                    Stat::Mean | Stat::P50 => 0.50,
                    Stat::P95 => 0.95,
                    Stat::P99 => 0.99,
                };
                let mut buckets = buckets.clone();
                rising(&mut buckets);
                quantile(q, &buckets).ok_or_else(|| Gap::NotANumber("no finite bucket".into()))? * factor
            }
        };
        signal.checked(value).map(Some)
    }

    /// How many requests it tells of, if it does.
    pub fn requests(&self) -> Option<f64> {
        match self {
            Measured::Value(_) => None,
            Measured::Share { whole, .. } => Some(*whole),
            Measured::Spread { count, .. } => Some(*count),
        }
    }

    /// Both together: sum over sum, bucket by bucket. What cannot be added leaves the first as it was.
    pub fn add(&mut self, other: &Measured) {
        match (self, other) {
            (Measured::Value(a), Measured::Value(b)) => *a += b,
            (Measured::Share { part, whole }, Measured::Share { part: p, whole: w }) => {
                *part += p;
                *whole += w;
            }
            (Measured::Spread { buckets, sum, count, .. }, Measured::Spread { buckets: b, sum: s, count: c, .. }) => {
                *sum += s;
                *count += c;
                add_buckets(buckets, b);
            }
            _ => {}
        }
    }
}

/// A share of a capacity always has a whole: a CPU clock that stands still is no idle CPU.
fn nothing(signal: &Signal) -> Result<Option<f64>, Gap> {
    if signal.is_usage() { Err(Gap::NotANumber("its whole did not grow".into())) } else { Ok(None) }
}

fn add_buckets(to: &mut Vec<(f64, f64)>, from: &[(f64, f64)]) {
    for (bound, count) in from {
        match to.binary_search_by(|(b, _)| b.total_cmp(bound)) {
            Ok(at) => to[at].1 += count,
            Err(at) => to.insert(at, (*bound, *count)),
        }
    }
}

/// What `now` measures, given the look before, which was `elapsed` ago.
///
/// # Errors
/// [`Gap::CounterReset`] when a count is seen for the first time or went backwards.
pub(super) fn between(before: Option<(&Raw, Duration)>, now: &Raw) -> Result<Measured, Gap> {
    if let Raw::Gauge(value) = now {
        return Ok(Measured::Value(*value));
    }
    let (before, elapsed) = before.ok_or(Gap::CounterReset)?;
    if elapsed.is_zero() {
        return Err(Gap::NotANumber("no time has passed since the last check".into()));
    }
    match (before, now) {
        (Raw::Counter(before), Raw::Counter(now)) => Ok(Measured::Value(grown(*before, *now)? / elapsed.as_secs_f64())),
        (Raw::Ratio { failed: f, total: t }, Raw::Ratio { failed, total }) => {
            Ok(Measured::Share { part: grown(*f, *failed)?, whole: grown(*t, *total)? })
        }
        (Raw::Histogram { buckets: b, sum: s, count: c, .. }, Raw::Histogram { buckets, sum, count, factor, stat }) => {
            let same_bounds = b.len() == buckets.len() && b.iter().zip(buckets).all(|(b, now)| b.0 == now.0);
            if !same_bounds {
                return Err(Gap::CounterReset);
            }
            let grown_buckets =
                b.iter().zip(buckets).map(|(b, now)| Ok((now.0, grown(b.1, now.1)?))).collect::<Result<_, Gap>>()?;
            Ok(Measured::Spread {
                buckets: grown_buckets,
                sum: grown(*s, *sum)?,
                count: grown(*c, *count)?,
                factor: *factor,
                stat: *stat,
            })
        }
        _ => Err(Gap::CounterReset),
    }
}

fn grown(before: f64, now: f64) -> Result<f64, Gap> {
    if now >= before { Ok(now - before) } else { Err(Gap::CounterReset) }
}
