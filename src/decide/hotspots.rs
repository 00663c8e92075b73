//! The conditions on single nodes: one that is hot while the pool is not, one with far more than its share, one that is
//! nearly full. Takes one check, gives the conditions and moves their streaks on. Pure.
//!
//! A streak belongs to a node: five checks with another node on top each time are no hotspot.

use std::collections::{BTreeMap, BTreeSet};

use super::conditions::{self, reading};
use super::memory::Memory;
use super::policy::Policy;
use super::roster::Roster;
use super::streak::{Streak, Vote};
use super::{Situation, Store, busy, words};
use crate::model::{Condition, NodeId, NodeSeen, NodeState, Reading, Signal};
use crate::units;

/// A full node acts at once: what it lacks is room, and waiting makes none.
const AT_ONCE: u32 = 1;

/// A condition on single nodes, as it stands with the node that it has held for the longest.
#[derive(Clone, Debug)]
pub struct Hot {
    pub condition: Condition,
    pub rule: Rule,
    /// The nodes for which it is active, the highest first; else the one that is nearest to it.
    pub nodes: Vec<NodeId>,
    /// What the nodes are held against, in words.
    mean: Option<String>,
}

/// What a node is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Above the high line of a signal, of which the nodes' mean is not.
    Above(Signal),
    /// More than so many times the mean.
    Uneven(Share),
    /// A share of memory or disk at which a node counts as full.
    Full(Signal),
}

/// What is to be spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Load,
    Bytes,
}

impl Hot {
    /// "cpu_hot 0.93 > 0.75, 5 of 5 checks: n3, while the mean is 0.55".
    pub fn told(&self) -> String {
        let condition = words::condition(&self.condition);
        let named = words::some_of(&self.nodes.iter().map(ToString::to_string).collect::<Vec<_>>(), 3);
        match &self.mean {
            Some(mean) => format!("{condition}: {named}, while the mean is {mean}"),
            None => format!("{condition}: {named}"),
        }
    }
}

/// One node's value and vote.
type Judged<'a> = (&'a NodeId, Option<f64>, Vote);

/// All conditions on single nodes now. With `counts` this check is added to their streaks; without, they are read as
/// they stand.
pub fn check(policy: &Policy, memory: &mut Memory, now: &Situation, roster: &Roster, counts: bool) -> Vec<Hot> {
    let busy = busy::nodes(memory, now);
    let before = std::mem::take(&mut memory.recent.hot);
    let mut after = BTreeMap::new();
    let all = rules(policy, now).into_iter().map(|(name, rule, line, needed)| {
        let (judged, mean) = judge(&rule, line, now, roster, &busy);
        let old = before.get(name);
        let streaks: BTreeMap<NodeId, Streak> = judged
            .iter()
            .map(|(id, _, vote)| {
                let old = old.and_then(|streaks| streaks.get(*id)).copied().unwrap_or_default();
                let old = old.against(line, |old, new| new > old);
                ((*id).clone(), if counts { old.after(*vote, line, now.seen.at) } else { old })
            })
            .collect();
        let hot = shown(name, rule, line, needed, &judged, &streaks, mean);
        after.insert(name.to_string(), streaks);
        hot
    });
    let all = all.collect();
    memory.recent.hot = after;
    all
}

/// Name, rule, line and needed checks of each condition that is configured and can have a consequence.
fn rules(policy: &Policy, now: &Situation) -> Vec<(&'static str, Rule, f64, u32)> {
    use Signal::{Cpu, Latency, Memory, Storage};
    let lines = &policy.thresholds;
    let configured = |signals: &[Signal]| signals.iter().any(|signal| policy.signals.contains(signal));
    let mut rules = Vec::new();
    // Where nodes hold no data there is nothing to spread.
    if let (Some(needed), false) = (policy.checks.hotspot, matches!(now.store, Store::None)) {
        for (name, signal, line) in [
            ("cpu_hot", Cpu, lines.cpu_threshold_high),
            ("memory_hot", Memory, lines.memory_threshold_high),
            ("storage_hot", Storage, lines.storage_threshold_high),
            ("latency_hot", Latency, lines.latency_threshold_high),
        ] {
            if configured(std::slice::from_ref(&signal)) {
                rules.push((name, Rule::Above(signal), line, needed));
            }
        }
        if configured(&[Cpu, Memory, Storage]) {
            rules.push(("load_uneven", Rule::Uneven(Share::Load), policy.rebalance.uneven, needed));
        }
        rules.push(("bytes_uneven", Rule::Uneven(Share::Bytes), policy.rebalance.uneven, needed));
    }
    for (name, signal) in [("memory_full", Memory), ("storage_full", Storage)] {
        if configured(std::slice::from_ref(&signal)) {
            rules.push((name, Rule::Full(signal), policy.rebalance.full, AT_ONCE));
        }
    }
    rules
}

/// Each node's value and vote, and the mean in words where there is one.
fn judge<'a>(
    rule: &Rule,
    line: f64,
    now: &Situation<'a>,
    roster: &Roster<'a>,
    busy: &BTreeSet<&NodeId>,
) -> (Vec<Judged<'a>>, Option<String>) {
    let nodes: Vec<&NodeSeen> = serving(roster).collect();
    match rule {
        Rule::Above(signal) => {
            let mean = mean(now, roster, signal);
            let excused = |n: &NodeSeen| matches!(signal, Signal::Cpu | Signal::Latency) && busy.contains(&n.id);
            let vote = |n: &NodeSeen, value: Option<f64>| match (value, mean) {
                (Some(value), Some(_)) if value <= line => Vote::Against,
                (_, Some(mean)) if mean > line => Vote::Against,
                (Some(_), Some(_)) if !excused(n) => Vote::For,
                _ => Vote::Silent,
            };
            let value = |n: &NodeSeen| n.values.get(signal).copied().filter(|v| v.is_finite());
            (nodes.iter().map(|n| (&n.id, value(n), vote(n, value(n)))).collect(), mean.map(words::number))
        }
        Rule::Uneven(share) => {
            let held = |n: &NodeSeen| match share {
                Share::Load => n.load.filter(|load| load.is_finite()),
                Share::Bytes => n.bytes.map(|bytes| bytes as f64),
            };
            // One unknown node makes the mean unknown.
            let sum: Option<f64> = nodes.iter().map(|n| held(n)).sum();
            let mean = sum.map(|sum| sum / nodes.len() as f64).filter(|mean| *mean > 0.0);
            let ratio = |n: &NodeSeen| Some(held(n)? / mean?);
            // The load of a node that receives shards or builds an index is not its own.
            let excused = |n: &NodeSeen| *share == Share::Load && busy.contains(&n.id);
            let vote = |n: &NodeSeen| match ratio(n) {
                Some(ratio) if ratio <= line => Vote::Against,
                Some(_) if !excused(n) => Vote::For,
                _ => Vote::Silent,
            };
            let told = mean.map(|mean| match share {
                Share::Load => words::number(mean),
                Share::Bytes => units::bytes(mean as u64),
            });
            (nodes.iter().map(|n| (&n.id, ratio(n), vote(n))).collect(), told)
        }
        Rule::Full(signal) => {
            let known = !matches!(reading(now.seen, signal), Reading::Missing { .. });
            let value = |n: &NodeSeen| n.values.get(signal).copied().filter(|v| known && v.is_finite());
            let vote = |value: Option<f64>| match value {
                Some(value) if value >= line => Vote::For,
                Some(_) => Vote::Against,
                None => Vote::Silent,
            };
            (nodes.iter().map(|n| (&n.id, value(n), vote(value(n)))).collect(), None)
        }
    }
}

/// Nodes in service that are to stay: one that leaves is emptied anyway.
fn serving<'a>(roster: &Roster<'a>) -> impl Iterator<Item = &'a NodeSeen> {
    roster.expected().filter(|n| n.state == NodeState::Serving)
}

/// The nodes' mean of a signal, whatever the pool's reading is made of; `None` unless that reading is fresh.
pub fn mean(now: &Situation, roster: &Roster, signal: &Signal) -> Option<f64> {
    now.seen.value(signal)?;
    let nodes: Vec<&NodeSeen> = roster.expected().collect();
    let mean = match signal {
        Signal::Latency => conditions::mean_by_requests(&nodes),
        usage => nodes.iter().map(|n| n.values.get(usage)).sum::<Option<f64>>().map(|sum| sum / nodes.len() as f64),
    };
    mean.filter(|mean| mean.is_finite())
}

/// The serving node with the highest value of a signal.
pub fn highest<'a>(roster: &Roster<'a>, signal: &Signal) -> Option<(&'a NodeId, f64)> {
    let values = serving(roster).filter_map(|n| Some((&n.id, *n.values.get(signal)?)));
    values.max_by(|a, b| a.1.total_cmp(&b.1).then_with(|| b.0.cmp(a.0)))
}

fn shown(
    name: &str,
    rule: Rule,
    line: f64,
    needed: u32,
    judged: &[Judged],
    streaks: &BTreeMap<NodeId, Streak>,
    mean: Option<String>,
) -> Hot {
    let checks = |id: &NodeId| streaks.get(id).map_or(0, |streak| streak.checks);
    let active = |(id, _, vote): &Judged| *vote == Vote::For && checks(id) >= needed;
    let mut order: Vec<&Judged> = judged.iter().collect();
    let height = |one: &Judged| one.1.unwrap_or(f64::NEG_INFINITY);
    order.sort_by(|a, b| {
        let streak = |one: &Judged| (!active(one), std::cmp::Reverse(checks(one.0).min(needed)));
        streak(a).cmp(&streak(b)).then_with(|| height(b).total_cmp(&height(a))).then_with(|| a.0.cmp(b.0))
    });
    let first = order.first();
    let is_active = first.is_some_and(|one| active(one));
    let named = order.iter().take_while(|one| active(one)).map(|one| one.0.clone());
    let condition = Condition {
        name: name.into(),
        value: first.and_then(|one| one.1),
        line,
        streak: first.map_or(0, |one| checks(one.0)),
        needed,
        active: is_active,
    };
    let nodes = if is_active { named.collect() } else { first.iter().map(|one| one.0.clone()).collect() };
    Hot { condition, rule, nodes, mean }
}
