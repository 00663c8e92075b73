//! The conditions of a pool: each rule on a reading with its value, line and streak. Takes one check, gives the
//! conditions and moves their streaks on. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::memory::Memory;
use super::policy::Policy;
use super::projection;
use super::roster::Roster;
use super::streak::{Streak, Vote};
use super::{Situation, busy, projection::lead_time};
use crate::model::{Condition, NodeId, NodeSeen, Observation, Reading, Signal};

/// Capacity and projected storage act at once: what they are taken from is slow, or smoothed over an hour and more.
const AT_ONCE: u32 = 1;

/// Which way a condition looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    High,
    Low,
    /// Above what a node should hold, now or soon.
    Capacity,
}

impl Side {
    /// Whether less is beyond the new line than was beyond the old one.
    fn is_stricter(self, old: f64, new: f64) -> bool {
        match self {
            Side::Low => new < old,
            Side::High | Side::Capacity => new > old,
        }
    }
}

/// A condition, and what the triggers need besides.
#[derive(Clone, Debug)]
pub struct Known {
    pub condition: Condition,
    pub signal: Signal,
    pub side: Side,
    pub streak: Streak,
}

/// The lines of a signal.
#[derive(Clone, Debug, PartialEq)]
pub struct Lines {
    pub signal: Signal,
    /// What conditions on it are called: `cpu` of `cpu_high`.
    pub name: String,
    pub high: f64,
    pub low: Option<f64>,
    high_checks: Option<u32>,
    low_checks: Option<u32>,
}

/// The lines of every signal that is configured and votes, in the order of display.
pub fn lines(policy: &Policy) -> Vec<Lines> {
    let (t, c) = (&policy.thresholds, &policy.checks);
    let built_in = [
        (Signal::Cpu, "cpu", t.cpu_threshold_high, t.cpu_threshold_low, c.cpu_high),
        (Signal::Memory, "memory", t.memory_threshold_high, t.memory_threshold_low, c.memory_high),
        (Signal::Storage, "storage", t.storage_threshold_high, t.storage_threshold_low, c.storage_high),
        (Signal::Latency, "latency", t.latency_threshold_high, t.latency_threshold_low, c.latency_high),
        (Signal::ErrorRate, "error_rate", t.error_rate_threshold_high, t.error_rate_threshold_low, c.error_rate_high),
    ]
    .into_iter()
    .filter(|(signal, ..)| policy.signals.contains(signal))
    .map(|(signal, name, high, low, high_checks)| Lines {
        signal,
        name: name.into(),
        high,
        low: Some(low),
        high_checks,
        low_checks: c.low,
    });
    let custom = policy.custom.iter().map(|(name, line)| Lines {
        signal: Signal::Custom(name.clone()),
        name: name.to_string(),
        high: line.high,
        low: line.low,
        high_checks: Some(line.checks),
        low_checks: Some(line.checks),
    });
    built_in.chain(custom).collect()
}

/// The reading of a configured signal; one that the observation does not have is missing.
pub fn reading<'a>(seen: &'a Observation, signal: &Signal) -> &'a Reading {
    static ABSENT: Reading = Reading::Missing { why: String::new() };
    seen.readings.get(signal).unwrap_or(&ABSENT)
}

/// Whether a reading is above a line for certain: silent nodes count as 0.
pub fn is_above(reading: &Reading, line: f64) -> bool {
    match reading {
        Reading::Fresh { value } => *value > line,
        Reading::Partial { floor, .. } => *floor > line,
        Reading::Missing { .. } | Reading::Idle => false,
    }
}

/// All conditions now. With `counts` this check is added to their streaks; without, they are read as they stand.
pub fn check(policy: &Policy, memory: &mut Memory, now: &Situation, roster: &Roster, counts: bool) -> Vec<Known> {
    let seen = now.seen;
    let busy = busy::nodes(memory, now);
    let before = std::mem::take(&mut memory.recent.streaks);
    let mut streaks = BTreeMap::new();
    let mut known = Vec::new();
    let mut add = |name: String, signal: &Signal, side: Side, line, needed, (value, vote): (Option<f64>, Vote)| {
        let old = before.get(&name).copied().unwrap_or_default().against(line, |old, new| side.is_stricter(old, new));
        let streak = if counts { old.after(vote, line, seen.at) } else { old };
        let active = vote == Vote::For && streak.checks >= needed;
        streaks.insert(name.clone(), streak);
        let condition = Condition { name, value, line, streak: streak.checks, needed, active };
        known.push(Known { condition, signal: signal.clone(), side, streak });
    };
    let lines = lines(policy);
    for l in &lines {
        if let Some(needed) = l.high_checks {
            add(
                format!("{}_high", l.name),
                &l.signal,
                Side::High,
                l.high,
                needed,
                high(seen, roster, &busy, &l.signal, l.high),
            );
        }
    }
    for l in &lines {
        if let (Some(line), Some(needed)) = (l.low, l.low_checks) {
            add(format!("{}_low", l.name), &l.signal, Side::Low, line, needed, low(reading(seen, &l.signal), line));
        }
    }
    if let Some(line) = projection::high_line(policy, &Signal::Vectors) {
        let mean = projection::mean_of(&Signal::Vectors, seen);
        add("capacity".into(), &Signal::Vectors, Side::Capacity, line, AT_ONCE, (mean, beyond(mean, |v| v > line)));
    }
    // Whoever switches `storage_high` off wants no growth by storage, foreseen growth included.
    if policy.signals.contains(&Signal::Storage) && policy.checks.storage_high.is_some() {
        let line = policy.thresholds.storage_threshold_high;
        let lead = lead_time(now.lead_times, now.provider.timeout);
        let soon = projection::storage_when_ready(memory, seen, roster, lead);
        let vote = (soon, beyond(soon, |v| v > line));
        add("storage_projected".into(), &Signal::Storage, Side::Capacity, line, AT_ONCE, vote);
    }
    memory.recent.streaks = streaks;
    known
}

fn beyond(value: Option<f64>, is_beyond: impl Fn(f64) -> bool) -> Vote {
    match value {
        Some(value) if is_beyond(value) => Vote::For,
        Some(_) => Vote::Against,
        None => Vote::Silent,
    }
}

fn low(reading: &Reading, line: f64) -> (Option<f64>, Vote) {
    match reading {
        // Idle is not low; and since it is not missing either, the checks in a row end here.
        Reading::Idle => (None, Vote::Against),
        _ => {
            let value = reading.fresh().filter(|v| v.is_finite());
            (value, beyond(value, |v| v < line))
        }
    }
}

fn high(
    seen: &Observation,
    roster: &Roster,
    busy: &BTreeSet<&NodeId>,
    signal: &Signal,
    line: f64,
) -> (Option<f64>, Vote) {
    let reading = reading(seen, signal);
    match reading {
        Reading::Idle => (None, Vote::Against),
        Reading::Fresh { value } if !value.is_finite() => (None, Vote::Silent),
        Reading::Fresh { value } if *value <= line => (Some(*value), Vote::Against),
        Reading::Fresh { value } => (Some(*value), unless_data_moves(roster, busy, signal, line)),
        Reading::Partial { floor, .. } if *floor > line => {
            (Some(*floor), unless_data_moves(roster, busy, signal, line))
        }
        Reading::Partial { .. } | Reading::Missing { .. } => (None, Vote::Silent),
    }
}

/// A pool that is above the line only because of nodes that receive shards or build an index has not shown that it
/// is short of nodes; nor has it calmed down.
fn unless_data_moves(roster: &Roster, busy: &BTreeSet<&NodeId>, signal: &Signal, line: f64) -> Vote {
    let concerned = matches!(signal, Signal::Cpu | Signal::Latency);
    if !concerned || busy.is_empty() {
        return Vote::For;
    }
    let quiet: Vec<&NodeSeen> = roster.expected().filter(|n| !busy.contains(&n.id)).collect();
    let mean =
        if *signal == Signal::Latency { mean_by_requests(&quiet) } else { mean_with_silent_as_0(&quiet, signal) };
    if mean.is_some_and(|m| m > line) { Vote::For } else { Vote::Silent }
}

fn mean_with_silent_as_0(nodes: &[&NodeSeen], signal: &Signal) -> Option<f64> {
    let sum: f64 = nodes.iter().filter_map(|n| n.values.get(signal)).sum();
    (!nodes.is_empty()).then(|| sum / nodes.len() as f64)
}

/// Latency is weighted by requests; where a node's rate is not known, each counts the same.
pub fn mean_by_requests(nodes: &[&NodeSeen]) -> Option<f64> {
    let timed =
        || nodes.iter().filter_map(|n| Some((*n.values.get(&Signal::Latency)?, n.values.get(&Signal::Throughput))));
    let rates_known = timed().all(|(_, rate)| rate.is_some());
    let weight = |rate: Option<&f64>| if rates_known { rate.copied().unwrap_or(0.0) } else { 1.0 };
    let (sum, weights) =
        timed().fold((0.0, 0.0), |(sum, weights), (ms, rate)| (sum + ms * weight(rate), weights + weight(rate)));
    (weights > 0.0).then(|| sum / weights)
}
