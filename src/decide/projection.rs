//! Looking ahead: what each signal would be with one node fewer, and when storage will be full. Pure.
//!
//! Both work on totals (mean × nodes), which stay the same when the number of nodes changes.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::Duration;

use super::memory::Memory;
use super::policy::Policy;
use super::roster::Roster;
use crate::model::{Observation, Signal, Timestamp};

/// What has to stay below its high line with one node fewer.
pub const PROJECTED: [Signal; 4] = [Signal::Cpu, Signal::Memory, Signal::Storage, Signal::Vectors];

/// The share of a high line that the projection must stay below.
const MARGIN: f64 = 0.9;
/// Checks that make the present level, at most and at least.
pub const LEVEL_CHECKS: usize = 40;
const LEVEL_CHECKS_LEAST: usize = 5;
/// Older readings up to this much above the last ones belong to the same level; beyond it the load has since fallen.
const SAME_LEVEL: f64 = 1.25;

/// A fit of storage needs as many readings, over as long a time.
const FIT_READINGS: usize = 60;
const FIT_SPAN: Duration = Duration::from_secs(3600);
/// Measured lead times before the provider's timeout is no longer taken.
const LEAD_TIMES: usize = 3;

/// The pool's mean of a projected signal: vectors count replicas, that is the load.
pub fn mean_of(signal: &Signal, seen: &Observation) -> Option<f64> {
    let mean = match signal {
        Signal::Vectors => seen.avg_vectors_per_node,
        usage => seen.value(usage),
    };
    mean.filter(|v| v.is_finite())
}

/// The high line of a projected signal; `None` where it has none.
pub fn high_line(policy: &Policy, signal: &Signal) -> Option<f64> {
    let lines = &policy.thresholds;
    match signal {
        Signal::Cpu => Some(lines.cpu_threshold_high),
        Signal::Memory => Some(lines.memory_threshold_high),
        Signal::Storage => Some(lines.storage_threshold_high),
        Signal::Vectors => (lines.max_vectors_per_node > 0).then_some(lines.max_vectors_per_node as f64),
        _ => None,
    }
}

/// One signal that would come too close to its high line with one node fewer.
#[derive(Clone, Debug, PartialEq)]
pub struct TooHigh {
    pub signal: Signal,
    pub projected: f64,
    /// Nine tenths of the high line.
    pub limit: f64,
}

/// The signals that forbid one node fewer. A signal that is missing says nothing here; that is a guard of its own.
pub fn too_high_with_one_fewer(policy: &Policy, memory: &Memory, seen: &Observation, roster: &Roster) -> Vec<TooHigh> {
    let (nodes, fewer) = (f64::from(roster.bearing), f64::from(roster.bearing.saturating_sub(1)));
    PROJECTED
        .into_iter()
        .filter_map(|signal| {
            let limit = high_line(policy, &signal)? * MARGIN;
            let now = mean_of(&signal, seen)? * nodes;
            let level = memory.recent.totals.get(&signal).and_then(level).map_or(now, |level| level.max(now));
            let projected = level / fewer;
            // With no node left the projection is infinite or not a number, and forbids.
            let stays_below = projected.partial_cmp(&limit) == Some(Ordering::Less);
            (!stays_below).then_some(TooHigh { signal, projected, limit })
        })
        .collect()
}

/// The present level of a noisy total: its highest value over the last checks, as far back as it has been about the same.
///
/// The last reading alone would do for a steady load. Under a load that varies by ±10 % it is a trough often enough
/// that a day would bring a scale-down and, at the next crest, the scale-up that undoes it. Looking back only while the
/// level is the same lets a load that has really fallen count at once.
fn level(totals: &VecDeque<f64>) -> Option<f64> {
    let mut newest_first = totals.iter().rev().copied();
    let last = newest_first.by_ref().take(LEVEL_CHECKS_LEAST).reduce(f64::max)?;
    Some(newest_first.take_while(|older| *older <= last * SAME_LEVEL).fold(last, f64::max))
}

/// What storage will be, per node, once a node that is asked for now could be ready: a straight line through the last six
/// hours. `None` before there is enough to fit, or when this check's reading is not fresh.
pub fn storage_when_ready(memory: &Memory, seen: &Observation, roster: &Roster, lead: Duration) -> Option<f64> {
    mean_of(&Signal::Storage, seen)?;
    let history = &memory.recent.storage;
    let (first, last) = (history.front()?.0, history.back()?.0);
    if history.len() < FIT_READINGS || last.since(first) < FIT_SPAN || roster.bearing == 0 {
        return None;
    }
    let total = fit(history, seen.at.plus(lead))?;
    Some(total / f64::from(roster.bearing)).filter(|v| v.is_finite())
}

/// The value at `when` of the least-squares line through the points; `None` when they span no time.
fn fit(points: &VecDeque<(Timestamp, f64)>, when: Timestamp) -> Option<f64> {
    let origin = points.front()?.0.seconds();
    let n = points.len() as f64;
    // Seconds since the first point: at most hours, so that plain sums lose nothing that matters.
    let (mut t_sum, mut v_sum, mut tt_sum, mut tv_sum) = (0.0, 0.0, 0.0, 0.0);
    for (at, v) in points {
        let t = at.seconds() - origin;
        (t_sum, v_sum, tt_sum, tv_sum) = (t_sum + t, v_sum + v, tt_sum + t * t, tv_sum + t * v);
    }
    let spread = n * tt_sum - t_sum * t_sum;
    let slope = (n * tv_sum - t_sum * v_sum) / spread;
    (spread > 0.0).then(|| v_sum / n + slope * (when.seconds() - origin - t_sum / n))
}

/// How long a new node takes to be ready: the 95th percentile of past scale-ups, the provider's timeout before there are
/// three.
pub fn lead_time(past: &[Duration], timeout: Duration) -> Duration {
    if past.len() < LEAD_TIMES {
        return timeout;
    }
    let mut sorted = past.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * 95).div_ceil(100) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_the_highest_value_while_the_load_was_the_same() {
        let cases: [(&str, &[f64], Option<f64>); 6] = [
            ("nothing known", &[], None),
            ("one reading", &[0.5], Some(0.5)),
            ("the highest of the last five", &[0.9, 0.2, 0.3, 0.4, 0.3, 0.2], Some(0.4)),
            ("an older crest of the same level", &[1.1, 0.9, 0.9, 0.9, 0.9, 0.9], Some(1.1)),
            ("a load that has fallen", &[5.0, 1.1, 0.9, 0.9, 0.9, 0.9, 0.9], Some(1.1)),
            ("what lies before the fall is over", &[1.0, 5.0, 0.9, 0.9, 0.9, 0.9, 0.9], Some(0.9)),
        ];
        for (name, totals, expected) in cases {
            assert_eq!(level(&totals.iter().copied().collect()), expected, "{name}");
        }
    }

    #[test]
    fn a_straight_line_is_found_again() {
        let at = |s: u64| Timestamp::from_millis(1_764_000_000_000).plus(Duration::from_secs(s));
        let line = |s: u64| (at(s), 1.0 + 0.001 * s as f64);
        let points: VecDeque<_> = (0..120).map(|i| line(i * 30)).collect();
        let found = fit(&points, at(7200)).expect("enough points");
        assert!((found - 8.2).abs() < 1e-9, "{found}");
        assert_eq!(fit(&[line(5), line(5)].into_iter().collect(), at(9)), None, "one instant has no slope");
    }

    #[test]
    fn the_lead_time_is_measured_once_there_are_three() {
        let secs = |list: &[u64]| list.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
        let timeout = Duration::from_secs(900);
        let hundred: Vec<u64> = (1..=100).collect();
        for (past, expected) in [(&[][..], 900), (&[10, 20], 900), (&[30, 10, 20], 30), (&hundred, 95)] {
            assert_eq!(lead_time(&secs(past), timeout), Duration::from_secs(expected), "{past:?}");
        }
    }
}
