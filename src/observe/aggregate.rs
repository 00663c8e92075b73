//! What the window holds, the roster and the datastore's word -> one observation. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Answer, Inventory, NodeId, NodeSeen, NodeState, Observation, Reading, ReplicaState, ScalingThresholds, Signal,
    Timestamp,
};

use super::readings::{Voice, reading};
use super::window::Window;
use super::{ObserveSettings, RosterEntry};

/// The pool as it looks after the last [`Window::push`]. `store` is the datastore's word, `None` if there is none or it
/// is silent; `thresholds` are those in force, for the load of each node.
pub fn aggregate(
    settings: &ObserveSettings,
    thresholds: &ScalingThresholds,
    window: &Window,
    roster: &[RosterEntry],
    store: Option<&Inventory>,
    now: Timestamp,
) -> Observation {
    let mut roster: Vec<&RosterEntry> = roster.iter().collect();
    roster.sort_by(|a, b| a.id.cmp(&b.id));
    let voices: Vec<Voice<'_>> = roster
        .iter()
        .filter(|entry| entry.is_read())
        .map(|entry| Voice { id: &entry.id, look: window.track(&entry.id).and_then(|t| t.last.as_ref()) })
        .collect();
    let readings: BTreeMap<Signal, Reading> = settings
        .signals
        .iter()
        .map(|signal| (signal.clone(), reading(settings, signal, &voices, window.pool())))
        .collect();
    let holdings = store.map(Holdings::of);
    let nodes = roster.iter().map(|e| node(settings, thresholds, window, e, holdings.as_ref())).collect();
    let vectors = readings.get(&Signal::Vectors).and_then(Reading::fresh);
    Observation {
        pool: settings.pool.clone(),
        at: now,
        total_vectors: match store {
            Some(store) => each_once(store),
            None if settings.has_store => None,
            None => vectors.map(|v| v as u64),
        },
        avg_vectors_per_node: vectors_on(&voices, holdings.as_ref(), vectors),
        readings,
        nodes,
    }
}

fn node(
    settings: &ObserveSettings,
    thresholds: &ScalingThresholds,
    window: &Window,
    entry: &RosterEntry,
    holdings: Option<&Holdings<'_>>,
) -> NodeSeen {
    let track = window.track(&entry.id);
    let look = track.and_then(|t| t.last.as_ref());
    let voice = Voice { id: &entry.id, look };
    let (mut values, mut gaps) = (BTreeMap::new(), BTreeMap::new());
    for signal in settings.signals.iter().filter(|signal| !window.pool().values.contains_key(signal)) {
        match voice.says(signal).map(|measured| measured.value(signal)) {
            Ok(Ok(Some(value))) => drop(values.insert(signal.clone(), value)),
            Ok(Ok(None)) => drop(gaps.insert(signal.clone(), "idle: nothing since the last check".into())),
            Ok(Err(gap)) => drop(gaps.insert(signal.clone(), gap.to_string())),
            Err(why) => drop(gaps.insert(signal.clone(), why)),
        }
    }
    // What is no signal of the pool, such as the health that others tell: only why it is not known is of interest.
    let besides = look.iter().flat_map(|l| &l.measured).filter(|(signal, _)| !settings.signals.contains(signal));
    gaps.extend(besides.filter_map(|(signal, told)| Some((signal.clone(), told.as_ref().err()?.to_string()))));
    let held = holdings.map(|h| h.by_node.get(&entry.id).copied().unwrap_or_default());
    NodeSeen {
        id: entry.id.clone(),
        address: entry.address.clone(),
        zone: entry.zone.clone(),
        state: entry.state,
        up: look.is_some_and(|l| l.answer == Answer::Up),
        healthy: entry.state != NodeState::Lost && track.is_some_and(|t| t.health.healthy),
        unhealthy_since: track.and_then(|t| t.health.unhealthy_since),
        health_unknown: track.is_none_or(|t| t.health_unknown),
        load: load(&values, thresholds),
        values,
        shards: held.map(|h| h.shards),
        bytes: held.map(|h| h.bytes),
        busy_with_data: holdings.is_some_and(|h| h.busy.contains(&entry.id)),
        scrape_seconds: look.map_or(0.0, |l| l.took.as_secs_f64()),
        gaps,
    }
}

/// The highest usage relative to its high line.
fn load(values: &BTreeMap<Signal, f64>, thresholds: &ScalingThresholds) -> Option<f64> {
    let lines = [
        (Signal::Cpu, thresholds.cpu_threshold_high),
        (Signal::Memory, thresholds.memory_threshold_high),
        (Signal::Storage, thresholds.storage_threshold_high),
    ];
    let relative = lines.iter().filter(|(_, line)| *line > 0.0).filter_map(|(s, line)| Some(values.get(s)? / line));
    relative.reduce(f64::max)
}

/// The datastore's word, by node.
struct Holdings<'i> {
    by_node: BTreeMap<&'i NodeId, Held>,
    /// Nodes that a copy is coming to, or that build an index.
    busy: BTreeSet<&'i NodeId>,
}

#[derive(Clone, Copy, Default)]
struct Held {
    shards: u32,
    bytes: u64,
    vectors: u64,
}

impl<'i> Holdings<'i> {
    fn of(store: &'i Inventory) -> Holdings<'i> {
        let mut by_node: BTreeMap<&NodeId, Held> = BTreeMap::new();
        let mut busy: BTreeSet<&NodeId> = store.transfers.iter().map(|t| &t.to).collect();
        busy.extend(store.members.iter().filter(|m| m.indexing).map(|m| &m.id));
        for replica in &store.shards {
            let held = by_node.entry(&replica.node).or_default();
            held.shards += 1;
            held.bytes = held.bytes.saturating_add(replica.bytes);
            held.vectors = held.vectors.saturating_add(replica.vectors);
            if replica.state == ReplicaState::Partial {
                busy.insert(&replica.node);
            }
        }
        Holdings { by_node, busy }
    }
}

/// Every vector once: of each shard the fullest active copy. `None` while a shard has none: what it held is not known.
fn each_once(store: &Inventory) -> Option<u64> {
    store.by_shard().into_values().try_fold(0u64, |sum, copies| {
        let active = copies.iter().filter(|r| r.state == ReplicaState::Active).map(|r| r.vectors);
        Some(sum.saturating_add(active.max()?))
    })
}

/// The mean over the nodes in service, replicas counted: by the datastore if it speaks, else if every node does.
fn vectors_on(voices: &[Voice<'_>], holdings: Option<&Holdings<'_>>, told: Option<f64>) -> Option<f64> {
    if voices.is_empty() {
        return None;
    }
    let sum = match holdings {
        Some(holdings) => {
            voices.iter().filter_map(|v| holdings.by_node.get(v.id)).map(|h| h.vectors).sum::<u64>() as f64
        }
        None => told?,
    };
    Some(sum / voices.len() as f64)
}
