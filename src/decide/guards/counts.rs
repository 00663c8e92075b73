//! Guards of how many: the bounds, and what one node fewer would mean. Pure.

use super::{Case, Held};
use crate::decide::{projection, words};
use crate::model::{Kind, NodeState};
use crate::units;

/// It holds nothing, or is on its way there: one fewer is what there is already.
fn is_out_already(case: &Case) -> bool {
    let (roster, wish) = (case.look.roster, case.wish);
    match wish.kind {
        Kind::Drain => {
            let node = wish.subject.as_ref().and_then(|id| roster.nodes.get(id));
            node.is_some_and(|node| node.state == NodeState::Draining)
        }
        Kind::ScaleDown => wish.victim.node.as_ref().is_some_and(|victim| roster.is_emptied(victim)),
        _ => false,
    }
}

pub fn min_nodes(case: &Case) -> Option<Held> {
    if is_out_already(case) {
        return None;
    }
    let (nodes, least) = (case.look.roster.placeable, case.look.policy.thresholds.min_nodes);
    if nodes > least { None } else { Held::because(format!("{}, min_nodes is {least}", units::count(nodes, "node"))) }
}

/// A dead node does not count against its own replacement.
pub fn max_nodes(case: &Case) -> Option<Held> {
    let (roster, most) = (case.look.roster, case.look.policy.thresholds.max_nodes);
    let replaced = case.wish.subject.iter().filter(|dead| roster.nodes.contains_key(dead)).count() as u32;
    let added = case.wish.nodes;
    let would_be = roster.existing.saturating_add(added) - replaced;
    if would_be <= most {
        return None;
    }
    let nodes = units::count(roster.existing, "node");
    Held::because(format!("{nodes} and {added} more make {would_be}, max_nodes is {most}"))
}

/// For a scale-down and a drain: with one node fewer every projected signal stays below nine tenths of its high line. For a
/// rebalance: the plan moves something.
pub fn projection(case: &Case) -> Option<Held> {
    let look = case.look;
    if case.wish.kind == Kind::Rebalance {
        let idle = look.now.outlook.rebalance.shards == 0;
        return if idle {
            Held::because("the plan moves no shard: they are spread as evenly as they can be")
        } else {
            None
        };
    }
    if is_out_already(case) {
        return None;
    }
    let high = projection::too_high_with_one_fewer(look.policy, look.memory, look.now.seen, look.roster);
    if high.is_empty() {
        return None;
    }
    let nodes = look.roster.bearing;
    let each: Vec<String> = high
        .iter()
        .map(|h| format!("{} at {}, not below {}", h.signal, words::number(h.projected), words::number(h.limit)))
        .collect();
    let fewer = nodes.saturating_sub(1);
    Held::because(format!("{nodes} -> {fewer} nodes would put {} (nine tenths of its high line)", each.join(", ")))
}
