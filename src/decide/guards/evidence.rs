//! Guards of what is not known or not believable: missing readings, unhealthy or unreachable nodes, lost traffic. Pure.

use std::collections::BTreeMap;

use super::{Case, Held};
use crate::decide::conditions::reading;
use crate::decide::triggers::Look;
use crate::decide::words;
use crate::model::{NodeSeen, Reading, Signal};
use crate::units;

/// With fewer known, nobody can say what traffic was before.
const TRAFFIC_CHECKS_KNOWN: usize = 20;
const TRAFFIC_CHECKS_LOW: usize = 5;
/// Below this share of the last hour's mean, traffic has vanished.
const TRAFFIC_SHARE: f64 = 0.1;
/// Requests in a check interval below which the pool is idle.
const IDLE_REQUESTS: f64 = 20.0;

pub fn missing_data(case: &Case) -> Option<Held> {
    let gaps = missing(case.look);
    if gaps.is_empty() { None } else { Held::because(gaps.join("; ")) }
}

/// Every configured signal that is neither fresh nor idle, in words.
pub fn missing(look: &Look) -> Vec<String> {
    let (policy, seen) = (look.policy, look.now.seen);
    let mut configured: Vec<Signal> = policy.signals.clone();
    configured.extend(policy.custom.keys().map(|name| Signal::Custom(name.clone())));
    configured.extend(seen.readings.keys().cloned());
    configured.sort();
    configured.dedup();
    let mut gaps: Vec<String> = configured.iter().filter_map(|s| gap(s, reading(seen, s))).collect();
    let counts_vectors = policy.signals.contains(&Signal::Vectors) && policy.thresholds.max_vectors_per_node > 0;
    if counts_vectors && seen.avg_vectors_per_node.is_none() {
        gaps.push("avg_vectors_per_node is not known".into());
    }
    gaps
}

fn gap(signal: &Signal, reading: &Reading) -> Option<String> {
    match reading {
        Reading::Fresh { value } if value.is_finite() => None,
        Reading::Idle => None,
        Reading::Fresh { value } => Some(format!("{signal} is {value}")),
        Reading::Partial { silent, .. } => {
            let names: Vec<String> = silent.iter().map(ToString::to_string).collect();
            Some(format!("{signal} is partial, silent: {}", words::some_of(&names, 5)))
        }
        Reading::Missing { why } if why.is_empty() => Some(format!("{signal} is missing")),
        Reading::Missing { why } => Some(format!("{signal} is missing: {why}")),
    }
}

/// A node that did not answer this very check is not known to be healthy. One in maintenance may be silent without
/// harm, but the pool is short of it, and this is no time to shrink. One that a person had emptied is not missed.
pub fn unhealthy_nodes(case: &Case) -> Option<Held> {
    let ill = |n: &NodeSeen| match (n.healthy, n.unhealthy_since) {
        (true, _) if n.up => None,
        (true, _) => Some(format!("{} did not answer this check", n.id)),
        (false, Some(since)) => Some(format!("{} is unhealthy since {since}", n.id)),
        (false, None) => Some(format!("{} is not healthy yet", n.id)),
    };
    let roster = case.look.roster;
    let missed = roster.nodes.values().filter(|n| !roster.is_emptied(&n.id));
    let all: Vec<String> = missed.filter_map(|n| ill(n)).collect();
    if all.is_empty() { None } else { Held::because(words::some_of(&all, 5)) }
}

/// So many nodes out of reach at once that the fault may be ours. Counted by this one check and not by health: a
/// guard must bind at the first sign.
pub fn partition_suspected(case: &Case) -> Option<Held> {
    let expected: Vec<&NodeSeen> = case.look.roster.expected().collect();
    let out_of_reach = expected.iter().filter(|n| !n.up).count();
    if out_of_reach == 0 {
        return None;
    }
    if out_of_reach == expected.len() {
        return Held::because(format!("none of {} answers", units::count(expected.len() as u32, "node")));
    }
    if out_of_reach >= expected.len().div_ceil(4).max(2) {
        return Held::because(format!("{out_of_reach} of {} nodes do not answer", expected.len()));
    }
    let zone = silent_zone(&expected)?;
    Held::because(format!("no node of zone {zone} answers"))
}

/// A zone of several nodes of which none answers. A zone's only node may as well just be dead, else a pool with one
/// node a zone could never have one replaced.
fn silent_zone<'a>(expected: &[&'a NodeSeen]) -> Option<&'a str> {
    let mut zones: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for (zone, node) in expected.iter().filter_map(|n| Some((n.zone.as_deref()?, n))) {
        let (nodes, silent) = zones.entry(zone).or_default();
        *nodes += 1;
        *silent += u32::from(!node.up);
    }
    zones.into_iter().find(|(_, (nodes, silent))| *nodes >= 2 && nodes == silent).map(|(zone, _)| zone)
}

/// Traffic that is gone, or never was, says nothing of how many nodes are needed.
pub fn traffic_lost(case: &Case) -> Option<Held> {
    vanished(case).or_else(|| absent(case))
}

fn vanished(case: &Case) -> Option<Held> {
    let traffic = &case.look.memory.recent.traffic;
    if traffic.len() < TRAFFIC_CHECKS_KNOWN {
        return None;
    }
    let mean = traffic.iter().map(|(_, rate)| rate).sum::<f64>() / traffic.len() as f64;
    let highest = traffic.iter().rev().take(TRAFFIC_CHECKS_LOW).map(|(_, rate)| *rate).reduce(f64::max)?;
    if highest >= mean * TRAFFIC_SHARE {
        return None;
    }
    let (highest, mean) = (words::number(highest), words::number(mean));
    Held::because(format!(
        "traffic has vanished: at most {highest} requests/s in the last {TRAFFIC_CHECKS_LOW} checks, {mean} on average in the last hour"
    ))
}

fn absent(case: &Case) -> Option<Held> {
    let (policy, seen) = (case.look.policy, case.look.now.seen);
    if policy.scale_down.when_idle {
        return None;
    }
    let idle = [Signal::Latency, Signal::ErrorRate].iter().any(|s| matches!(seen.readings.get(s), Some(Reading::Idle)));
    let requests = seen.value(&Signal::Throughput).map(|rate| rate * policy.thresholds.health_check_interval);
    if !idle && requests.is_none_or(|n| n >= IDLE_REQUESTS) {
        return None;
    }
    Held::because(format!(
        "the pool is idle, fewer than {IDLE_REQUESTS} requests a check: scale_down.when_idle is false"
    ))
}
