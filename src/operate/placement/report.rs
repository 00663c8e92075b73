//! What steps come to: moves, nodes before and after, balance, and the least that it could have taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Plan;
use super::layout::{BYTES, COUNT, Layout, Weight, less, sum};
use super::limits::Limits;
use super::state::{State, Step};
use crate::model::{Balance, Change, Move, NodeId, Replica};

pub(super) fn moved(replica: &Replica, to: &NodeId) -> Move {
    Move {
        shard: replica.shard.clone(),
        from: replica.node.clone(),
        to: to.clone(),
        bytes: replica.bytes,
        vectors: replica.vectors,
    }
}

/// Of a fill of the `new` nodes, or of evening out.
pub(super) fn spread(state: &State, new: &[NodeId], steps: &[Step]) -> Plan {
    let layout = state.layout;
    let after = weights_after(layout, steps);
    let open = |n: usize| layout.nodes[n].open;
    let limits = &state.limits;
    let before = Side { nodes: limits.nodes - new_ones(layout, new), highest: highest(layout, limits, None, &open) };
    let end = Side { nodes: limits.nodes, highest: highest(layout, limits, Some(&after), &open) };
    let bytes = steps.iter().map(|&(c, _)| layout.copies[c].replica.bytes).sum();
    plan(layout, steps, least_bytes(state, &after).min(bytes), balance(limits, before, end))
}

fn new_ones(layout: &Layout, new: &[NodeId]) -> u64 {
    layout.nodes.iter().filter(|node| node.open && new.contains(node.id)).count() as u64
}

/// Of a drain: whatever its shape, each copy has to go.
pub(super) fn drain(layout: &Layout, victim: usize, steps: &[Step]) -> Plan {
    let limits = Limits::of(layout, Some(victim), 0.0);
    let after = weights_after(layout, steps);
    let stays = |n: usize| layout.nodes[n].open && n != victim;
    let before =
        Side { nodes: limits.nodes + 1, highest: highest(layout, &limits, None, &|n| stays(n) || n == victim) };
    let end = Side { nodes: limits.nodes, highest: highest(layout, &limits, Some(&after), &stays) };
    let bytes = steps.iter().map(|&(c, _)| layout.copies[c].replica.bytes).sum();
    plan(layout, steps, bytes, balance(&limits, before, end))
}

fn plan(layout: &Layout, steps: &[Step], least_bytes: u64, balance: Option<Balance>) -> Plan {
    let moves: Vec<Move> = steps.iter().map(|&(c, to)| moved(layout.copies[c].replica, layout.nodes[to].id)).collect();
    let nodes = changes(layout, &moves);
    Plan { moves, least_bytes, balance, nodes }
}

fn weights_after(layout: &Layout, steps: &[Step]) -> Vec<Weight> {
    let mut after: Vec<Weight> = layout.nodes.iter().map(|node| node.weight).collect();
    for &(c, to) in steps {
        let copy = &layout.copies[c];
        after[copy.home] = less(after[copy.home], copy.weight);
        after[to] = sum(after[to], copy.weight);
    }
    after
}

struct Side {
    nodes: u64,
    /// The weight of the heaviest node.
    highest: Weight,
}

fn highest(layout: &Layout, limits: &Limits, after: Option<&[Weight]>, of: &dyn Fn(usize) -> bool) -> Weight {
    let weight = |n: usize| after.map_or(layout.nodes[n].weight, |after| after[n]);
    let weights = (0..layout.nodes.len()).filter(|&n| of(n)).map(weight);
    weights.max_by(|a, b| limits.share(*a).total_cmp(&limits.share(*b))).unwrap_or([0, 0])
}

fn balance(limits: &Limits, before: Side, after: Side) -> Option<Balance> {
    (limits.total[COUNT] > 0).then(|| Balance {
        busiest_before: limits.measured(before.highest),
        busiest_after: limits.measured(after.highest),
        ratio_before: limits.ratio(before.highest, before.nodes),
        ratio_after: limits.ratio(after.highest, after.nodes),
        ratio_reachable: limits.ratio(limits.best, limits.nodes),
    })
}

/// What must leave the nodes that are fuller than any was left, or come to those that were filled, whichever is more.
fn least_bytes(state: &State, after: &[Weight]) -> u64 {
    let layout = state.layout;
    let open = || (0..after.len()).filter(|&n| layout.nodes[n].open);
    let high = [COUNT, BYTES].map(|d| open().map(|n| after[n][d]).max().unwrap_or(0).max(state.limits.high[d]));
    let mut leave = 0;
    for n in open() {
        let weight = layout.nodes[n].weight;
        let copies = (0..state.at.len()).filter(|&c| state.home(c) == n);
        let count = smallest(state, copies, weight[COUNT].saturating_sub(high[COUNT]));
        leave += weight[BYTES].saturating_sub(high[BYTES]).max(count);
    }
    let missing = |d: usize| {
        let missing = |n: usize| state.limits.low[d].min(after[n][d]).saturating_sub(layout.nodes[n].weight[d]);
        open().filter(|&n| state.receives[n]).map(missing).sum::<u64>()
    };
    leave.max(missing(BYTES)).max(smallest(state, 0..state.at.len(), missing(COUNT)))
}

/// The bytes of so many of the smallest copies that may move.
fn smallest(state: &State, copies: impl Iterator<Item = usize>, count: u64) -> u64 {
    if count == 0 {
        return 0;
    }
    let movable = copies.filter(|&c| state.movable[c]);
    let mut bytes: Vec<u64> = movable.map(|c| state.layout.copies[c].replica.bytes).collect();
    bytes.sort_unstable();
    bytes.iter().take(count as usize).sum()
}

/// The nodes that moves change, in copies and bytes as the store lists them.
fn changes(layout: &Layout, moves: &[Move]) -> Arc<[Change]> {
    let mut nodes: BTreeMap<&NodeId, Change> = BTreeMap::new();
    for node in moves.iter().flat_map(|m| [&m.from, &m.to]) {
        let unchanged =
            Change { node: node.clone(), shards_before: 0, shards_after: 0, bytes_before: 0, bytes_after: 0 };
        nodes.entry(node).or_insert(unchanged);
    }
    for replica in &layout.inventory.shards {
        if let Some(change) = nodes.get_mut(&replica.node) {
            change.shards_before += 1;
            change.bytes_before += replica.bytes;
        }
    }
    for change in nodes.values_mut() {
        (change.shards_after, change.bytes_after) = (change.shards_before, change.bytes_before);
    }
    for m in moves {
        if let Some(from) = nodes.get_mut(&m.from) {
            from.shards_after -= 1;
            from.bytes_after -= m.bytes;
        }
        if let Some(to) = nodes.get_mut(&m.to) {
            to.shards_after += 1;
            to.bytes_after += m.bytes;
        }
    }
    nodes.into_values().collect()
}
