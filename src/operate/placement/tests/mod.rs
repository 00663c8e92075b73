//! Rules as tables, the unknown by seeds, and the exact optimum as judge.

mod compared;
mod oracle;
mod tables;
mod unknown;

use super::*;
use crate::model::{Member, Replica, ReplicaState};

pub(in crate::operate) fn node(n: usize) -> NodeId {
    NodeId::new(&format!("n{n}")).expect("a name")
}

pub(in crate::operate) fn shard(n: u32) -> ShardId {
    ShardId { collection: "docs".into(), shard: n }
}

pub(in crate::operate) fn replica(number: u32, n: usize, bytes: u64) -> Replica {
    Replica { shard: shard(number), node: node(n), bytes, vectors: bytes / 100, state: ReplicaState::Active }
}

/// `layout[shard]` is `(bytes, nodes that hold it)`; nodes count from 1.
pub(in crate::operate) fn cluster(nodes: usize, layout: &[(u64, &[usize])]) -> Inventory {
    let on = |(shard, (bytes, nodes)): (usize, &(u64, &[usize]))| {
        nodes.iter().map(|n| replica(shard as u32, *n, *bytes)).collect::<Vec<_>>()
    };
    Inventory {
        members: (1..=nodes).map(|n| Member::new(node(n), format!("http://n{n}"))).collect(),
        shards: layout.iter().enumerate().flat_map(on).collect(),
        ..Inventory::default()
    }
}

pub(in crate::operate) fn shown(moves: &[Move]) -> Vec<String> {
    moves.iter().map(|m| format!("{} {}>{}", m.shard.shard, m.from, m.to)).collect()
}

fn by(strategy: Strategy) -> Placing {
    Placing { rules: Rules { strategy, ..Rules::default() }, ..Placing::default() }
}

/// In zones: node n in `zones[n - 1]`.
fn zoned(zones: &[&str]) -> Placing {
    let zone = |(n, zone): (usize, &&str)| (node(n + 1), Facts { zone: Some(zone.to_string()), ..Facts::default() });
    Placing { nodes: zones.iter().enumerate().map(zone).collect(), ..Placing::default() }
}

/// Carries the moves out one by one and checks each against the hard rules and the promise that no node gets heavier
/// than the heaviest was, or the band allows.
fn carried_out(before: &Inventory, moves: &[Move], placing: &Placing, ceiling: bool) -> Inventory {
    let mut now = before.clone();
    let initial = Layout::of(before, placing);
    let limits = limits::Limits::of(&initial, None, 0.0);
    let open = |n: &&layout::Node| n.open;
    let weights = || initial.nodes.iter().filter(open).map(|n| limits.share(n.weight));
    let highest = weights().fold(limits.share(limits.high.map(|h| if h == u64::MAX { 0 } else { h })), f64::max);
    let mut coming: BTreeMap<&NodeId, (u64, u64)> = BTreeMap::new();
    for m in moves {
        let target = now.member(&m.to).expect("a member");
        assert!(target.healthy && !target.cordoned, "{m:?} goes onto a closed node");
        let held_before = before.shards.iter().any(|r| r.shard == m.shard && r.node == m.to);
        let doubled = now.shards.iter().any(|r| r.shard == m.shard && r.node == m.to);
        assert!(!doubled && !held_before, "{m:?} makes two copies on one node");
        assert!(before.transfers.iter().all(|t| t.shard != m.shard), "{m:?} is in transfer");
        assert!(!placing.rules.pinned(&m.shard), "{m:?} is pinned");
        if let Some(capacity) = placing.nodes.get(&m.to).and_then(|facts| facts.capacity) {
            let room = capacity.saturating_sub(before.on(&m.to).map(|r| r.bytes).sum());
            let (all, largest) = coming.entry(&m.to).or_default();
            (*all, *largest) = (*all + m.bytes, m.bytes.max(*largest));
            assert!(*all + *largest / 2 <= room, "{m:?}: {all} bytes come to {}, which has room for {room}", m.to);
        }
        let source = now.shards.iter_mut().find(|r| r.shard == m.shard && r.node == m.from);
        let source = source.unwrap_or_else(|| panic!("{m:?}: no copy at the source"));
        assert_eq!(source.state, ReplicaState::Active, "{m:?}");
        source.node = m.to.clone();
        let layout = Layout::of(&now, placing);
        if ceiling {
            for node in layout.nodes.iter().filter(|n| n.id == &m.to) {
                let share = limits.share(node.weight);
                assert!(share <= highest + 1e-9, "{m:?} makes {} too heavy: {share} of at most {highest}", node.id);
            }
        }
    }
    now
}

/// Copies of the shard more than there should be in one zone.
fn crowded(inventory: &Inventory, placing: &Placing, shard: &ShardId) -> usize {
    let layout = Layout::of(inventory, placing);
    let of_shard = layout.copies.iter().filter(|copy| copy.replica.shard == *shard).map(|copy| copy.home);
    layout.crowding(of_shard, layout.zones(None))
}
