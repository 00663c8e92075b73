//! Trigger `availability`: a node unhealthy for so long that it is taken for dead wants to be replaced. Pure.

use std::time::Duration;

use super::{Heard, Look, Wish};
use crate::decide::guards::lost_with;
use crate::decide::words;
use crate::model::{Kind, NodeSeen, Timestamp, Trigger};
use crate::units;

/// At most one automatic replacement in this time.
const APART: Duration = Duration::from_secs(3600);
/// Nodes that a sentence names.
const MOST_NAMED: usize = 3;

pub fn vote<'a>(look: &Look<'a>) -> Heard<'a> {
    let mut heard = of_the_longest_ill(look);
    let silent: Vec<String> = ill(look).filter(|n| n.health_unknown).map(|n| n.id.to_string()).collect();
    if !silent.is_empty() {
        heard.notes.push(format!("health of {} is not known", words::some_of(&silent, MOST_NAMED)));
    }
    heard
}

fn of_the_longest_ill<'a>(look: &Look<'a>) -> Heard<'a> {
    let nodes = longest_unhealthy_first(look);
    let Some(&(since, node)) = nodes.first() else { return Heard::default() };
    let now = look.now.seen.at;
    let told = |(since, node): (Timestamp, &NodeSeen)| {
        format!("{} is unhealthy since {since} ({})", node.id, units::time(now.since(since)))
    };
    let ill = told((since, node));
    if !look.policy.replace.enabled {
        return Heard::note(format!("{ill}; replace.enabled is false"));
    }
    let (grace, why) = grace(look);
    if now.since(since) < grace {
        return Heard::note(format!("{ill}; replaced after {}{why}", units::time(grace)));
    }
    if let Some(last) = look.memory.last_replacement()
        && now.since(last) < APART
    {
        let left = units::time(APART - now.since(last));
        return Heard::note(format!("{ill}; one automatic replacement an hour, the next in {left}"));
    }
    // One that nothing can replace stands in no other's way.
    let due = nodes.iter().copied().filter(|(since, _)| now.since(*since) >= grace);
    let chosen = due.clone().find(|(_, n)| lost_with(look.now.store, &n.id).is_none()).unwrap_or((since, node));
    let passed_over = due.take_while(|(_, n)| n.id != chosen.1.id);
    let because = [told(chosen)].into_iter().chain(passed_over.map(|n| format!("{}, and cannot be replaced", told(n))));
    let subject = Some(chosen.1.id.clone());
    Heard::wish(Wish { subject, ..Wish::new(Kind::Replace, Trigger::Availability, because.collect()) })
}

/// A node that was ill and of which nobody tells anything now may be well again: that is no reason to replace it.
fn longest_unhealthy_first<'a>(look: &Look<'a>) -> Vec<(Timestamp, &'a NodeSeen)> {
    let known = ill(look).filter(|n| !n.health_unknown);
    let mut nodes: Vec<_> = known.filter_map(|n| Some((n.unhealthy_since?, n))).collect();
    nodes.sort_by_key(|(since, n)| (*since, &n.id));
    nodes
}

/// A node in maintenance is expected to be silent, one that joins is its operation's business, one that a person had
/// emptied is that person's to take away, a lost one is not in the roster.
fn ill<'a>(look: &Look<'a>) -> impl Iterator<Item = &'a NodeSeen> {
    look.roster.expected().filter(|n| !n.healthy && n.unhealthy_since.is_some())
}

/// How long a node may be unhealthy: less once too few others are well.
fn grace(look: &Look) -> (Duration, &'static str) {
    let healthy = look.roster.expected().filter(|n| n.healthy).count() as f64;
    if healthy / f64::from(look.roster.bearing.max(1)) < look.policy.thresholds.healthy_ratio_min {
        (look.policy.replace.after_degraded, ", for the pool is below healthy_ratio_min")
    } else {
        (look.policy.replace.after, "")
    }
}
