//! Whether every copy has a legal place, proven before the first step: the planner's word is held against the inventory.
//! Pure.

use std::collections::BTreeSet;

use crate::model::{Inventory, Move, NodeId, ReplicaState, ShardId};
use crate::units;

/// The first thing that is wrong with a plan, its moves taken one after the other: each needs an active copy where it
/// comes from, and a healthy open member without a copy where it goes. `victim` is to be empty at the end. A plan of
/// which no moves are told cannot be looked at.
pub fn illegal(inventory: &Inventory, moves: &[Move], victim: Option<&NodeId>) -> Option<String> {
    if moves.is_empty() {
        return None;
    }
    let mut copies: BTreeSet<(&ShardId, &NodeId)> = inventory.shards.iter().map(|r| (&r.shard, &r.node)).collect();
    let mut active: BTreeSet<(&ShardId, &NodeId)> =
        inventory.shards.iter().filter(|r| r.state == ReplicaState::Active).map(|r| (&r.shard, &r.node)).collect();
    for Move { shard, from, to, .. } in moves {
        let target = inventory.member(to);
        let wrong = if !copies.remove(&(shard, from)) || !active.contains(&(shard, from)) {
            format!("{from} has no active copy")
        } else if target.is_none_or(|member| !member.healthy || member.cordoned) || Some(to) == victim {
            format!("{to} is not open for shards")
        } else if !copies.insert((shard, to)) {
            format!("{to} has a copy already")
        } else {
            active.insert((shard, to));
            continue;
        };
        return Some(format!("the plan moves {shard} from {from} to {to}, but {wrong}"));
    }
    let moving = |shard: &ShardId| inventory.transfers.iter().any(|transfer| &transfer.shard == shard);
    let left = copies.iter().find(|(shard, node)| Some(*node) == victim && !moving(shard));
    left.map(|(shard, node)| format!("the plan leaves {shard} on {node}"))
}

/// The first shard of a dead node that would not find places enough for its lost copies, the successor counted as one.
pub fn without_room(inventory: &Inventory, dead: &NodeId) -> Option<String> {
    let open: BTreeSet<&NodeId> =
        inventory.members.iter().filter(|m| m.healthy && !m.cordoned && &m.id != dead).map(|m| &m.id).collect();
    let well: BTreeSet<&NodeId> =
        inventory.members.iter().filter(|m| m.healthy && &m.id != dead).map(|m| &m.id).collect();
    let by_shard = inventory.by_shard();
    inventory.on(dead).find_map(|lost| {
        let copies = by_shard.get(&lost.shard)?;
        let living = copies.iter().filter(|r| r.state == ReplicaState::Active && well.contains(&r.node)).count();
        let wanted = inventory.wanted_replicas.get(&lost.shard.collection).copied().unwrap_or(1) as usize;
        let missing = wanted.saturating_sub(living);
        let free = open.iter().filter(|node| copies.iter().all(|r| r.node != ***node)).count() + 1;
        (missing > free).then(|| {
            let free = units::count(free as u32, "node");
            format!("{} needs {missing} new copies, and with the successor only {free} could take one", lost.shard)
        })
    })
}
