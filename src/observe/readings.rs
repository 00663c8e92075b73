//! What the nodes measured of one signal, or what was told of all together -> the pool's reading. Pure.

use std::collections::BTreeMap;

use crate::model::{Aggregate, Gap, NodeId, Reading, Signal};

use super::ObserveSettings;
use super::growth::Measured;
use super::window::{Look, Told};

/// What one node says of a signal: a measure, or why there is none.
pub(super) type Said<'w> = Result<&'w Measured, String>;

/// One node that the readings are taken over.
pub(super) struct Voice<'w> {
    pub id: &'w NodeId,
    /// `None`: it was not asked.
    pub look: Option<&'w Look>,
}

impl<'w> Voice<'w> {
    /// A measure that gives no value (nothing happened) is a word too.
    pub fn says(&self, signal: &Signal) -> Said<'w> {
        let look = self.look.ok_or("not asked yet")?;
        match look.measured.get(signal) {
            None => Err("not on its pages".into()),
            Some(Err(gap)) => Err(gap.to_string()),
            Some(Ok(measured)) => measured.value(signal).map(|_| measured).map_err(|gap| gap.to_string()),
        }
    }

    /// Requests since the last check, as far as throughput tells.
    fn requests(&self) -> Option<f64> {
        let Ok(Measured::Value(per_second)) = self.says(&Signal::Throughput) else { return None };
        Some(per_second * self.look?.elapsed?.as_secs_f64())
    }
}

/// The pool's reading of one signal.
pub(super) fn reading(settings: &ObserveSettings, signal: &Signal, voices: &[Voice<'_>], told: &Told) -> Reading {
    let is_quiet = told.requests().is_some_and(|n| n < settings.idle_below);
    if let Some(value) = told.values.get(signal) {
        let on_pages: Option<f64> = voices.iter().map(Voice::requests).sum();
        let is_quiet = is_quiet || !voices.is_empty() && on_pages.is_some_and(|n| n < settings.idle_below);
        return of_the_whole(signal, value, is_quiet);
    }
    let mut spoken = Vec::new();
    let mut silent = Vec::new();
    for voice in voices {
        match voice.says(signal) {
            Ok(measured) => spoken.push((voice, measured)),
            Err(why) => silent.push((voice.id, why)),
        }
    }
    if spoken.is_empty() {
        return Reading::Missing { why: why(&silent) };
    }
    let pooled = match pool(settings, signal, &spoken, silent.len(), is_quiet) {
        Ok(pooled) => pooled,
        Err(why) => return Reading::Missing { why },
    };
    match pooled {
        // Who is silent may have had the requests.
        Pooled::Idle if !silent.is_empty() => Reading::Missing { why: why(&silent) },
        Pooled::Idle => Reading::Idle,
        // Finite numbers may add up to an infinity.
        Pooled::Value { value, .. } if !value.is_finite() => Reading::Missing { why: format!("{value} in sum") },
        Pooled::Value { value, .. } if silent.is_empty() => Reading::Fresh { value },
        Pooled::Value { value, floor } => {
            Reading::Partial { value, floor, silent: silent.into_iter().map(|(id, _)| id.clone()).collect() }
        }
    }
}

/// A value that was told of the pool as a whole. With few requests it is idle, also where nothing could be computed of
/// none: a mean over no request is no number.
fn of_the_whole(signal: &Signal, told: &Result<f64, Gap>, is_quiet: bool) -> Reading {
    let of_requests = matches!(signal, Signal::Latency | Signal::ErrorRate);
    match told {
        Ok(_) | Err(Gap::NotANumber(_) | Gap::NoSeries(_)) if of_requests && is_quiet => Reading::Idle,
        Ok(value) => Reading::Fresh { value: *value },
        Err(gap) => Reading::Missing { why: gap.to_string() },
    }
}

enum Pooled {
    Idle,
    /// `floor`: with each silent node counted as 0.
    Value {
        value: f64,
        floor: f64,
    },
}

fn pool(
    settings: &ObserveSettings,
    signal: &Signal,
    spoken: &[(&Voice<'_>, &Measured)],
    silent: usize,
    is_quiet: bool,
) -> Result<Pooled, String> {
    let values = || -> Vec<f64> { spoken.iter().filter_map(|(_, m)| m.value(signal).ok().flatten()).collect() };
    let share_of_spoken = spoken.len() as f64 / (spoken.len() + silent) as f64;
    match signal {
        Signal::Cpu | Signal::Memory | Signal::Storage => Ok(summarised(settings, signal, values(), silent)),
        Signal::Throughput | Signal::Vectors => {
            let sum = values().iter().sum();
            Ok(Pooled::Value { value: sum, floor: sum })
        }
        Signal::Latency | Signal::ErrorRate | Signal::Custom(_) => {
            if let Some(together) = together(spoken) {
                if together.requests().is_none_or(|n| n < settings.idle_below) {
                    return Ok(Pooled::Idle);
                }
                let value = together.value(signal).map_err(|gap| gap.to_string())?;
                return Ok(value.map_or(Pooled::Idle, |value| Pooled::Value { value, floor: value * share_of_spoken }));
            }
            if let Signal::Custom(_) = signal {
                return Ok(summarised(settings, signal, values(), silent));
            }
            Ok(weighted(settings, signal, spoken, share_of_spoken, is_quiet))
        }
    }
}

/// Ratios and histograms, sum over sum. `None` when nodes gave plain values.
fn together(spoken: &[(&Voice<'_>, &Measured)]) -> Option<Measured> {
    let mut measures = spoken.iter().map(|(_, measured)| *measured).filter(|m| m.requests().is_some());
    let first = measures.next()?.clone();
    Some(measures.fold(first, |mut sum, measured| {
        sum.add(measured);
        sum
    }))
}

/// Latency or errors that nodes give as finished numbers: weighted by the requests of their throughput, if all tell.
/// `is_quiet`: of the pool as a whole few requests were told.
fn weighted(
    settings: &ObserveSettings,
    signal: &Signal,
    spoken: &[(&Voice<'_>, &Measured)],
    share_of_spoken: f64,
    is_quiet: bool,
) -> Pooled {
    let values: Vec<f64> = spoken.iter().filter_map(|(_, m)| m.value(signal).ok().flatten()).collect();
    let requests: Option<Vec<f64>> = spoken.iter().map(|(voice, _)| voice.requests()).collect();
    let value = match requests {
        Some(requests) => {
            let all: f64 = requests.iter().sum();
            if all < settings.idle_below {
                return Pooled::Idle;
            }
            values.iter().zip(&requests).map(|(value, n)| value * n).sum::<f64>() / all
        }
        None if is_quiet => return Pooled::Idle,
        None => mean(&values),
    };
    Pooled::Value { value, floor: value * share_of_spoken }
}

fn summarised(settings: &ObserveSettings, signal: &Signal, values: Vec<f64>, silent: usize) -> Pooled {
    let how = settings.aggregate.get(signal).copied().unwrap_or_default();
    let mut with_silent = values.clone();
    with_silent.resize(values.len() + silent, 0.0);
    Pooled::Value { value: summary(how, values), floor: summary(how, with_silent) }
}

/// Of at least one value.
fn summary(how: Aggregate, mut values: Vec<f64>) -> f64 {
    match how {
        Aggregate::Mean => mean(&values),
        Aggregate::Max => values.into_iter().fold(f64::NEG_INFINITY, f64::max),
        Aggregate::P95 => {
            // Nearest rank: always the value of some node.
            values.sort_by(f64::total_cmp);
            let rank = (0.95 * values.len() as f64).ceil() as usize;
            values[rank.clamp(1, values.len()) - 1]
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Why nobody spoke: nodes with the same reason together.
fn why(silent: &[(&NodeId, String)]) -> String {
    if silent.is_empty() {
        return "no node in service".into();
    }
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, why) in silent {
        by_reason.entry(why).or_default().push(id.as_str());
    }
    let told = by_reason.iter().take(3).map(|(why, ids)| match ids.as_slice() {
        [one] => format!("{one}: {why}"),
        [first, ..] => format!("{first} and {} more: {why}", ids.len() - 1),
        [] => String::new(),
    });
    told.collect::<Vec<_>>().join("; ")
}
