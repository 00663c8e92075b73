//! What is remembered of each node from check to check. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Answer, Gap, Inventory, NodeId, NodeSample, NodeState, Raw, Signal, Timestamp};

use super::growth::{Measured, between};
use super::health::Health;
use super::{ObserveSettings, RosterEntry};

/// Counts older than this many checks are no base for a rate any more.
const MAX_MISSED: u32 = 5;

/// The nodes of a pool over their checks.
#[derive(Clone, Debug, Default)]
pub struct Window {
    nodes: BTreeMap<NodeId, Track>,
    pool: Told,
}

/// What was last told of the pool as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    at: Option<Timestamp>,
    /// Since the check before; `None` at the first.
    elapsed: Option<Duration>,
    pub values: BTreeMap<Signal, Result<f64, Gap>>,
}

impl Told {
    /// Requests of the whole pool since the check before, as far as its throughput tells.
    pub fn requests(&self) -> Option<f64> {
        let per_second = self.values.get(&Signal::Throughput)?.as_ref().ok()?;
        Some(per_second * self.elapsed?.as_secs_f64())
    }
}

/// One node over its checks.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    pub health: Health,
    /// Nobody told at the last check how it is.
    pub health_unknown: bool,
    /// `None` when the last check did not ask it.
    pub last: Option<Look>,
    /// When the node was last asked.
    asked: Option<Timestamp>,
    counts: BTreeMap<Signal, Counts>,
}

/// What the last check brought.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub answer: Answer,
    pub took: Duration,
    /// Since the check before; `None` at the first.
    pub elapsed: Option<Duration>,
    pub measured: BTreeMap<Signal, Result<Measured, Gap>>,
}

/// The cumulative numbers of a signal when they were last known.
#[derive(Clone, Debug)]
struct Counts {
    at: Timestamp,
    raw: Raw,
    /// Checks since then that did not bring them.
    missed: u32,
}

impl Window {
    /// Takes the samples of one check. Nodes that are not on the roster are forgotten; a node without a sample was not
    /// asked, and its health stays as it was. `store` is the datastore's word, `None` if there is none or it is silent.
    pub fn push(
        &mut self,
        settings: &ObserveSettings,
        roster: &[RosterEntry],
        samples: Vec<NodeSample>,
        store: Option<&Inventory>,
    ) {
        self.nodes.retain(|id, _| roster.iter().any(|entry| &entry.id == id));
        let mut samples: BTreeMap<NodeId, NodeSample> = samples.into_iter().map(|s| (s.node.clone(), s)).collect();
        for entry in roster {
            let track = self.nodes.entry(entry.id.clone()).or_default();
            let Some(sample) = samples.remove(&entry.id) else {
                (track.last, track.health_unknown) = (None, true);
                continue;
            };
            let ill = store.and_then(|s| s.member(&entry.id)).is_some_and(|member| !member.healthy);
            track.health_unknown = sample.answer == Answer::Unknown && !ill;
            let good = if track.health_unknown { track.health.healthy } else { sample.answer == Answer::Up && !ill };
            match entry.state {
                NodeState::Maintenance | NodeState::Joining => track.health.check_excused(good),
                _ if track.health_unknown => {}
                _ => track.health.check(good, sample.at, settings.bad_checks, settings.good_checks),
            }
            track.look(sample);
        }
    }

    /// Takes what the same check brought of the pool as a whole.
    pub fn told(&mut self, at: Timestamp, values: BTreeMap<Signal, Result<f64, Gap>>) {
        let elapsed = self.pool.at.map(|before| at.since(before));
        self.pool = Told { at: Some(at), elapsed, values };
    }

    pub(super) fn pool(&self) -> &Told {
        &self.pool
    }

    pub(super) fn track(&self, id: &NodeId) -> Option<&Track> {
        self.nodes.get(id)
    }
}

impl Track {
    fn look(&mut self, sample: NodeSample) {
        let mut measured: BTreeMap<Signal, Result<Measured, Gap>> = sample
            .signals
            .iter()
            .map(|(signal, raw)| {
                let raw = raw.as_ref().map_err(Gap::clone);
                (signal.clone(), raw.and_then(|raw| between(self.before(signal, sample.at), raw)))
            })
            .collect();
        if self.has_restarted(&measured) {
            for (signal, measured) in &mut measured {
                if measured.is_ok() && !matches!(sample.signals[signal], Ok(Raw::Gauge(_))) {
                    *measured = Err(Gap::CounterReset);
                }
            }
        }
        let elapsed = self.asked.map(|before| sample.at.since(before));
        self.remember(&sample);
        self.asked = Some(sample.at);
        self.last = Some(Look { answer: sample.answer, took: sample.took, elapsed, measured });
    }

    fn before(&self, signal: &Signal, now: Timestamp) -> Option<(&Raw, Duration)> {
        self.counts.get(signal).map(|counts| (&counts.raw, now.since(counts.at)))
    }

    /// A built-in count went backwards, so the node started anew: the others, too, count from 0 now, even where they
    /// have overtaken the old ones already.
    fn has_restarted(&self, measured: &BTreeMap<Signal, Result<Measured, Gap>>) -> bool {
        measured.iter().any(|(signal, measured)| {
            let known = self.counts.contains_key(signal) && !matches!(signal, Signal::Custom(_));
            known && *measured == Err(Gap::CounterReset)
        })
    }

    fn remember(&mut self, sample: &NodeSample) {
        self.counts.retain(|_, counts| {
            counts.missed += 1;
            counts.missed <= MAX_MISSED
        });
        for (signal, raw) in &sample.signals {
            match raw {
                Ok(Raw::Gauge(_)) | Err(_) => {}
                Ok(raw) => {
                    let counts = Counts { at: sample.at, raw: raw.clone(), missed: 0 };
                    self.counts.insert(signal.clone(), counts);
                }
            }
        }
    }
}
