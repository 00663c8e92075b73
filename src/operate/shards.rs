//! Where shards should go: inventory -> moves, and what each change would move. Pure. How it is found is in `placement`.

use std::collections::{BTreeMap, BTreeSet};

use super::placement::{self, Layout, Placing, Plan};
use crate::model::{Drain, Experience, Forecast, Inventory, Member, Move, NodeId, Outlook};

pub use super::placement::{Fixed, Infeasible};

/// So many victims are planned in full at each check, the best first; of the others only what would move is said.
const IN_FULL: usize = 5;

/// The moves that fill the `new` nodes; with none given, those that even out the whole cluster.
pub fn plan_fill(inventory: &Inventory, new: &[NodeId], fixed: &Fixed, placing: &Placing) -> Vec<Move> {
    placement::fill(inventory, new, fixed, placing).moves
}

/// The moves that empty `victim`, largest shard first. A shard in transfer is left out: plan again when its transfer
/// has ended.
///
/// # Errors
/// When a shard of the victim cannot go anywhere: nothing is planned then.
pub fn plan_drain(inventory: &Inventory, victim: &NodeId, placing: &Placing) -> Result<Vec<Move>, Infeasible> {
    placement::drain(&Layout::of(inventory, placing), victim).map(|plan| plan.moves)
}

/// The copies that make up for the dead node: see [`placement::restore`].
///
/// # Errors
/// When a shard has no living copy to be made from, or no place: nothing is planned then.
pub fn plan_restore(inventory: &Inventory, dead: &NodeId, placing: &Placing) -> Result<Vec<Move>, Infeasible> {
    placement::restore(inventory, dead, placing)
}

/// What each change would move now. `inventory` is `None` where the nodes hold no data; `loads` has every node that
/// might be removed, with its load if known.
pub fn outlook(
    inventory: Option<&Inventory>,
    loads: &BTreeMap<NodeId, Option<f64>>,
    experience: &Experience,
    placing: &Placing,
) -> Outlook {
    let nothing = forecast(&[], experience);
    let Some(inventory) = inventory else {
        let drain = |node: &NodeId| Drain { node: node.clone(), forecast: nothing.clone(), impossible: None };
        let scale_down = ranked(loads.keys().map(drain).collect(), None, loads);
        return Outlook { scale_up: nothing.clone(), rebalance: nothing, scale_down, ..Outlook::default() };
    };
    let layout = Layout::of(inventory, placing);
    let drain = |node: &NodeId| match placement::possible(&layout, node) {
        Ok((shards, bytes)) => {
            let forecast = Forecast { shards, bytes, seconds: seconds(bytes, experience), ..Forecast::default() };
            Drain { node: node.clone(), forecast: Forecast { least_bytes: bytes, ..forecast }, impossible: None }
        }
        Err(why) => Drain { node: node.clone(), forecast: nothing.clone(), impossible: Some(why.to_string()) },
    };
    let mut scale_down = ranked(loads.keys().map(drain).collect(), Some(inventory), loads);
    for drain in scale_down.iter_mut().filter(|drain| drain.impossible.is_none()).take(IN_FULL) {
        if let Ok(plan) = placement::drain(&layout, &drain.node) {
            drain.forecast = told(plan, experience);
        }
    }
    let one_more = placement::fill_more(inventory, placing, 1);
    Outlook {
        stairs: placement::stairs(inventory, placing, &one_more),
        scale_up: told(one_more, experience),
        scale_down,
        rebalance: told(placement::fill(inventory, &[], &Fixed::new(), placing), experience),
    }
}

/// Best first: those that can be emptied and are neither cordoned nor unhealthy, fewest bytes to move, followers before
/// the leader, least load.
fn ranked(mut drains: Vec<Drain>, inventory: Option<&Inventory>, loads: &BTreeMap<NodeId, Option<f64>>) -> Vec<Drain> {
    let those = |which: fn(&Member) -> bool| -> BTreeSet<&NodeId> {
        let members = inventory.iter().flat_map(|inventory| &inventory.members);
        members.filter(|member| which(member)).map(|member| &member.id).collect()
    };
    let (leaders, barred) = (those(|member| member.leader), those(|member| member.cordoned || !member.healthy));
    let load = |node: &NodeId| loads.get(node).copied().flatten().unwrap_or(f64::INFINITY);
    drains.sort_by(|a, b| {
        let rank = |drain: &Drain| {
            let is = |those: &BTreeSet<&NodeId>| those.contains(&drain.node);
            (drain.impossible.is_some(), is(&barred), drain.forecast.bytes, is(&leaders))
        };
        rank(a).cmp(&rank(b)).then_with(|| load(&a.node).total_cmp(&load(&b.node))).then_with(|| a.node.cmp(&b.node))
    });
    drains
}

fn told(plan: Plan, experience: &Experience) -> Forecast {
    let Plan { moves, least_bytes, balance, nodes } = plan;
    Forecast { least_bytes, balance, nodes, moves: moves.as_slice().into(), ..forecast(&moves, experience) }
}

/// Count, bytes and, once the speed of moves is known, the time of a plan.
pub fn forecast(moves: &[Move], experience: &Experience) -> Forecast {
    let bytes: u64 = moves.iter().map(|m| m.bytes).sum();
    Forecast { shards: moves.len() as u32, bytes, seconds: seconds(bytes, experience), ..Forecast::default() }
}

fn seconds(bytes: u64, experience: &Experience) -> Option<f64> {
    let speed = experience.bytes_per_second.filter(|speed| *speed > 0.0);
    if bytes == 0 { Some(0.0) } else { speed.map(|speed| bytes as f64 / speed) }
}

#[cfg(test)]
mod tests;
