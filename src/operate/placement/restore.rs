//! Makes the copies anew that a dead node held.

use std::collections::BTreeSet;

use super::drain::{least_crowded, no_place};
use super::layout::{Layout, sum};
use super::limits::Limits;
use super::{Infeasible, Placing, report};
use crate::model::{Inventory, Move, NodeId, ReplicaState};

/// The copies that make up for the dead node: each shard that it holds gets as many active copies on living nodes as are
/// wanted, beside those that may yet be dropped, each made from the least loaded living holder, largest shard first. A
/// shard in transfer is left out: plan again when its transfer has ended.
///
/// # Errors
/// When a shard has no living copy to be made from, or no place: nothing is planned then.
pub fn restore(inventory: &Inventory, dead: &NodeId, placing: &Placing) -> Result<Vec<Move>, Infeasible> {
    let layout = Layout::of(inventory, placing);
    let Some(gone) = layout.place(dead) else { return Ok(Vec::new()) };
    let limits = Limits::of(&layout, Some(gone), 0.0);
    let zones = layout.zones(Some(gone));
    let open: Vec<usize> = (0..layout.nodes.len()).filter(|&n| layout.nodes[n].open && n != gone).collect();
    let mut weight: Vec<_> = layout.nodes.iter().map(|node| node.weight).collect();
    let mut room: Vec<_> = layout.nodes.iter().map(|node| node.room).collect();
    let mut held: Vec<usize> = (0..layout.copies.len()).filter(|&c| layout.copies[c].home == gone).collect();
    held.sort_by_key(|&c| (std::cmp::Reverse(layout.copies[c].replica.bytes), c));
    let mut copies = Vec::new();
    for lost in held {
        let shard = &layout.shards[layout.copies[lost].shard];
        let id = &layout.copies[lost].replica.shard;
        let living = |&&c: &&usize| {
            let copy = &layout.copies[c];
            copy.home != gone && layout.nodes[copy.home].healthy && copy.replica.state == ReplicaState::Active
        };
        let sources: Vec<usize> = shard.copies.iter().filter(living).copied().collect();
        let by_load = |c: &&usize| (weight[layout.copies[**c].home], layout.copies[**c].home);
        let Some(&source) = sources.iter().min_by_key(by_load) else {
            return Err(Infeasible::OnlyCopy { shard: id.clone(), node: dead.clone() });
        };
        if shard.in_transfer {
            continue;
        }
        let source = &layout.copies[source];
        let bytes = source.replica.bytes;
        let wanted = inventory.wanted_replicas.get(&id.collection).copied().unwrap_or(1) as usize;
        let mut holders: BTreeSet<usize> = shard.holders.iter().copied().filter(|&n| n != gone).collect();
        let lasting = sources.iter().filter(|&&c| !shard.given_up.contains(&layout.copies[c].home)).count();
        for _ in lasting..wanted {
            let free: Vec<usize> =
                open.iter().copied().filter(|n| !holders.contains(n) && !shard.given_up.contains(n)).collect();
            if free.is_empty() {
                return Err(no_place(&layout, lost, open.len()));
            }
            let fits = |n: &usize| room[*n].is_none_or(|room| bytes + bytes / 2 <= room);
            let free: Vec<usize> = free.into_iter().filter(fits).collect();
            let best = least_crowded(&layout, &free, zones, || holders.iter().copied());
            let fullness = |n: &usize| (limits.share(sum(weight[*n], source.weight)), layout.nodes[*n].load);
            let target = best.into_iter().min_by(|a, b| {
                let (a, b) = (fullness(a), fullness(b));
                a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
            });
            let Some(to) = target else {
                let why = "no other open node has room for it".to_string();
                return Err(Infeasible::NoPlace { shard: id.clone(), why });
            };
            holders.insert(to);
            weight[to] = sum(weight[to], source.weight);
            room[to] = room[to].map(|room| room.saturating_sub(bytes));
            copies.push(report::moved(source.replica, layout.nodes[to].id));
        }
    }
    Ok(copies)
}
