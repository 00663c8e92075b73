//! Where shards should go: inventory -> moves, and what each change would move. Pure.
//!
//! The rules: only an active copy moves; no two copies of a shard on one node, partial ones and transfers in flight
//! counted; nothing onto a node that is cordoned or unhealthy; a shard in transfer is left alone. The moves of a plan
//! are legal in their order, each prefix too.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Drain, Experience, Forecast, Inventory, Member, Move, NodeId, Outlook, Replica, ReplicaState, ShardId,
};

/// Copies that are to stay where they are.
pub type Fixed = BTreeSet<(ShardId, NodeId)>;

/// Two nodes are even when they differ by at most this share of the mean.
const EVEN: f64 = 0.10;

/// Why a node cannot be emptied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Infeasible {
    #[error("{0} is not a member of the cluster")]
    NotAMember(NodeId),
    #[error("{shard} on {node} is not an active copy, so nothing can be copied from it")]
    NotActive { shard: ShardId, node: NodeId },
    #[error("{shard} has no active copy on a living node but {node}, so it cannot be made anew")]
    OnlyCopy { shard: ShardId, node: NodeId },
    #[error("{shard} has no legal place elsewhere: {why}")]
    NoPlace { shard: ShardId, why: String },
}

/// The cluster as it will be after the moves planned so far.
struct Layout<'a> {
    replicas: Vec<&'a Replica>,
    /// Nodes that have a copy of a shard, or are about to.
    holders: BTreeMap<&'a ShardId, BTreeSet<&'a NodeId>>,
    in_transfer: BTreeSet<&'a ShardId>,
    /// Bytes per member; an empty copy counts one, so that empty shards are spread too.
    load: BTreeMap<&'a NodeId, u64>,
    /// Nodes that may receive.
    open: BTreeSet<&'a NodeId>,
}

fn weight(replica: &Replica) -> u64 {
    replica.bytes.max(1)
}

impl<'a> Layout<'a> {
    fn of(inventory: &'a Inventory) -> Layout<'a> {
        let mut replicas: Vec<&Replica> = inventory.shards.iter().collect();
        replicas.sort_by(|a, b| (&a.shard, &a.node).cmp(&(&b.shard, &b.node)));
        let mut holders: BTreeMap<&ShardId, BTreeSet<&NodeId>> = BTreeMap::new();
        let mut load: BTreeMap<&NodeId, u64> = inventory.members.iter().map(|m| (&m.id, 0)).collect();
        for replica in &replicas {
            holders.entry(&replica.shard).or_default().insert(&replica.node);
            *load.entry(&replica.node).or_default() += weight(replica);
        }
        for transfer in &inventory.transfers {
            holders.entry(&transfer.shard).or_default().extend([&transfer.from, &transfer.to]);
        }
        let may_receive = |member: &&Member| member.healthy && !member.cordoned;
        Layout {
            replicas,
            holders,
            in_transfer: inventory.transfers.iter().map(|t| &t.shard).collect(),
            load,
            open: inventory.members.iter().filter(may_receive).map(|m| &m.id).collect(),
        }
    }

    fn load(&self, node: &NodeId) -> u64 {
        self.load.get(node).copied().unwrap_or(0)
    }

    /// The least loaded of `targets` that may take a copy of `shard`.
    fn place(&self, shard: &ShardId, targets: &BTreeSet<&'a NodeId>) -> Option<&'a NodeId> {
        let legal = |node: &&&NodeId| self.holders.get(shard).is_none_or(|holders| !holders.contains(**node));
        targets.iter().filter(legal).copied().min_by_key(|node| (self.load(node), *node))
    }

    /// Takes the move as done; the shard is not touched again by this plan.
    fn apply(&mut self, replica: &'a Replica, to: &'a NodeId) -> Move {
        self.holders.entry(&replica.shard).or_default().remove(&replica.node);
        self.in_transfer.insert(&replica.shard);
        *self.load.entry(&replica.node).or_default() -= weight(replica);
        self.add(replica, to)
    }

    /// Takes a further copy on `to` as made.
    fn add(&mut self, replica: &'a Replica, to: &'a NodeId) -> Move {
        self.holders.entry(&replica.shard).or_default().insert(to);
        *self.load.entry(to).or_default() += weight(replica);
        Move {
            shard: replica.shard.clone(),
            from: replica.node.clone(),
            to: to.clone(),
            bytes: replica.bytes,
            vectors: replica.vectors,
        }
    }
}

/// The moves that fill the `new` nodes; with none given, those that even out the whole cluster. Greedy: each move is
/// the one that evens out most, until no two nodes differ by more than a tenth of the mean, or no move helps.
pub fn plan_fill(inventory: &Inventory, new: &[NodeId], fixed: &Fixed) -> Vec<Move> {
    let mut layout = Layout::of(inventory);
    let targets: BTreeSet<&NodeId> =
        layout.open.iter().copied().filter(|node| new.is_empty() || new.contains(node)).collect();
    let mean = layout.load.values().sum::<u64>() as f64 / layout.load.len().max(1) as f64;
    let mut moves = Vec::new();
    while let Some((replica, to)) = best(&layout, &targets, fixed, mean) {
        moves.push(layout.apply(replica, to));
    }
    moves
}

/// The move that lowers the sum of the squared loads most, by `2 w (from - to - w)`.
fn best<'a>(
    layout: &Layout<'a>,
    targets: &BTreeSet<&'a NodeId>,
    fixed: &Fixed,
    mean: f64,
) -> Option<(&'a Replica, &'a NodeId)> {
    let mut best: Option<(u128, &Replica, &NodeId)> = None;
    for replica in &layout.replicas {
        let movable = replica.state == ReplicaState::Active
            && !layout.in_transfer.contains(&replica.shard)
            && !fixed.contains(&(replica.shard.clone(), replica.node.clone()));
        if !movable {
            continue;
        }
        let Some(to) = layout.place(&replica.shard, targets) else { continue };
        let bytes = weight(replica);
        let gap = layout.load(&replica.node).saturating_sub(layout.load(to));
        if gap <= bytes || gap as f64 <= EVEN * mean {
            continue;
        }
        let gain = u128::from(bytes) * u128::from(gap - bytes);
        if best.is_none_or(|(most, ..)| gain > most) {
            best = Some((gain, replica, to));
        }
    }
    best.map(|(_, replica, to)| (replica, to))
}

/// The moves that empty `victim`, largest shard first, each to the least loaded legal node. A shard in transfer is
/// left out: plan again when its transfer has ended.
///
/// # Errors
/// When a shard of the victim cannot go anywhere: nothing is planned then.
pub fn plan_drain(inventory: &Inventory, victim: &NodeId) -> Result<Vec<Move>, Infeasible> {
    if inventory.member(victim).is_none() {
        return Err(Infeasible::NotAMember(victim.clone()));
    }
    let mut layout = Layout::of(inventory);
    let mut targets = layout.open.clone();
    targets.remove(victim);
    let mut held: Vec<&Replica> =
        inventory.on(victim).filter(|replica| !layout.in_transfer.contains(&replica.shard)).collect();
    held.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.shard.cmp(&b.shard)));
    let mut moves = Vec::new();
    for replica in held {
        if replica.state != ReplicaState::Active {
            return Err(Infeasible::NotActive { shard: replica.shard.clone(), node: victim.clone() });
        }
        let Some(to) = layout.place(&replica.shard, &targets) else {
            return Err(no_place(&replica.shard, targets.len()));
        };
        moves.push(layout.apply(replica, to));
    }
    Ok(moves)
}

/// The copies that make up for the dead node: each shard that it holds gets as many active copies on living nodes as are
/// wanted, each made from the least loaded living holder, largest shard first. A shard in transfer is left out: plan again
/// when its transfer has ended.
///
/// # Errors
/// When a shard has no living copy to be made from, or no place: nothing is planned then.
pub fn plan_restore(inventory: &Inventory, dead: &NodeId) -> Result<Vec<Move>, Infeasible> {
    let mut layout = Layout::of(inventory);
    let mut targets = layout.open.clone();
    targets.remove(dead);
    let living: BTreeSet<&NodeId> =
        inventory.members.iter().filter(|m| m.healthy && m.id != *dead).map(|m| &m.id).collect();
    let mut held: Vec<&Replica> = inventory.on(dead).collect();
    held.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.shard.cmp(&b.shard)));
    let mut copies = Vec::new();
    for lost in held {
        let active =
            |r: &&&Replica| r.shard == lost.shard && r.state == ReplicaState::Active && living.contains(&r.node);
        let sources: Vec<&Replica> = layout.replicas.iter().filter(active).copied().collect();
        let source = sources.iter().min_by_key(|r| (layout.load(&r.node), &r.node));
        let Some(source) = source.copied() else {
            return Err(Infeasible::OnlyCopy { shard: lost.shard.clone(), node: dead.clone() });
        };
        if layout.in_transfer.contains(&lost.shard) {
            continue;
        }
        let wanted = inventory.wanted_replicas.get(&lost.shard.collection).copied().unwrap_or(1) as usize;
        for _ in sources.len()..wanted {
            let Some(to) = layout.place(&lost.shard, &targets) else {
                return Err(no_place(&lost.shard, targets.len()));
            };
            copies.push(layout.add(source, to));
        }
    }
    Ok(copies)
}

fn no_place(shard: &ShardId, open: usize) -> Infeasible {
    let why = match open {
        0 => "no other node is healthy and open".to_string(),
        n => format!("each of the {n} other open nodes has a copy of it"),
    };
    Infeasible::NoPlace { shard: shard.clone(), why }
}

/// What each change would move now. `inventory` is `None` where the nodes hold no data; `loads` has every node that
/// might be removed, with its load if known.
pub fn outlook(
    inventory: Option<&Inventory>,
    loads: &BTreeMap<NodeId, Option<f64>>,
    experience: &Experience,
) -> Outlook {
    let forecast = |moves: &[Move]| forecast(moves, experience);
    let drain = |node: &NodeId| match inventory.map(|inventory| plan_drain(inventory, node)) {
        None => Drain { node: node.clone(), forecast: forecast(&[]), impossible: None },
        Some(Ok(moves)) => Drain { node: node.clone(), forecast: forecast(&moves), impossible: None },
        Some(Err(why)) => Drain { node: node.clone(), forecast: forecast(&[]), impossible: Some(why.to_string()) },
    };
    let mut scale_down: Vec<Drain> = loads.keys().map(drain).collect();
    let load = |node: &NodeId| loads.get(node).copied().flatten().unwrap_or(f64::INFINITY);
    scale_down.sort_by(|a, b| {
        let rank = |drain: &Drain| (drain.impossible.is_some(), drain.forecast.bytes);
        rank(a).cmp(&rank(b)).then_with(|| load(&a.node).total_cmp(&load(&b.node))).then_with(|| a.node.cmp(&b.node))
    });
    let filled = inventory.map(fill_of_one_more).unwrap_or_default();
    let evened = inventory.map(|inventory| plan_fill(inventory, &[], &Fixed::new())).unwrap_or_default();
    Outlook { scale_up: forecast(&filled), scale_down, rebalance: forecast(&evened), ..Outlook::default() }
}

/// The moves onto a node that does not exist yet.
fn fill_of_one_more(inventory: &Inventory) -> Vec<Move> {
    let free = |text: &String| inventory.members.iter().all(|m| m.id.as_str() != text);
    let name = (0..).map(|n| format!("new-{n}")).find(free).and_then(|text| NodeId::new(&text).ok());
    let Some(id) = name else { return Vec::new() };
    let mut larger = inventory.clone();
    larger.members.push(Member::new(id.clone(), String::new()));
    plan_fill(&larger, &[id], &Fixed::new())
}

/// Count, bytes and, once the speed of moves is known, the time of a plan.
pub fn forecast(moves: &[Move], experience: &Experience) -> Forecast {
    let bytes: u64 = moves.iter().map(|m| m.bytes).sum();
    let speed = experience.bytes_per_second.filter(|speed| *speed > 0.0);
    let seconds = if bytes == 0 { Some(0.0) } else { speed.map(|speed| bytes as f64 / speed) };
    Forecast { shards: moves.len() as u32, bytes, seconds, ..Forecast::default() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Transfer;

    fn node(n: usize) -> NodeId {
        NodeId::new(&format!("n{n}")).expect("a name")
    }

    fn member(n: usize) -> Member {
        Member::new(node(n), format!("http://n{n}"))
    }

    fn replica(shard: u32, n: usize, bytes: u64) -> Replica {
        let shard = ShardId { collection: "docs".into(), shard };
        Replica { shard, node: node(n), bytes, vectors: bytes / 100, state: ReplicaState::Active }
    }

    /// `layout[shard]` is `(bytes, nodes that hold it)`.
    fn cluster(nodes: usize, layout: &[(u64, &[usize])]) -> Inventory {
        let on = |(shard, (bytes, nodes)): (usize, &(u64, &[usize]))| {
            nodes.iter().map(|n| replica(shard as u32, *n, *bytes)).collect::<Vec<_>>()
        };
        Inventory {
            members: (1..=nodes).map(member).collect(),
            shards: layout.iter().enumerate().flat_map(on).collect(),
            ..Inventory::default()
        }
    }

    fn shown(moves: &[Move]) -> Vec<String> {
        moves.iter().map(|m| format!("{} {}>{}", m.shard.shard, m.from, m.to)).collect()
    }

    #[test]
    fn a_new_node_gets_its_share() {
        let even = cluster(4, &[(100, &[1]), (100, &[1]), (100, &[2]), (100, &[2]), (100, &[3]), (100, &[3])]);
        assert_eq!(shown(&plan_fill(&even, &[node(4)], &Fixed::new())), ["0 n1>n4"]);
        let empty = cluster(2, &[(0, &[1]), (0, &[1]), (0, &[1]), (0, &[1])]);
        assert_eq!(plan_fill(&empty, &[node(2)], &Fixed::new()).len(), 2, "empty shards are spread by count");
        assert_eq!(plan_fill(&cluster(3, &[]), &[], &Fixed::new()), []);
    }

    #[test]
    fn what_may_not_move_stays() {
        let base = cluster(3, &[(100, &[1, 2]), (100, &[1, 2]), (100, &[1, 2])]);
        assert!(!plan_fill(&base, &[node(3)], &Fixed::new()).is_empty());
        let mut cordoned = base.clone();
        cordoned.members[2].cordoned = true;
        let mut ill = base.clone();
        ill.members[2].healthy = false;
        let mut partial = base.clone();
        partial.shards.iter_mut().for_each(|r| r.state = ReplicaState::Partial);
        let mut moving = base.clone();
        for shard in 0..3 {
            let shard = ShardId { collection: "docs".into(), shard };
            moving.transfers.push(Transfer { shard, from: node(1), to: node(3), done_bytes: None, is_move: true });
        }
        let mut held = base.clone();
        for shard in 0..3 {
            held.shards.push(Replica { state: ReplicaState::Partial, ..replica(shard, 3, 0) });
        }
        for (what, inventory) in
            [("cordoned", cordoned), ("ill", ill), ("partial", partial), ("moving", moving), ("held", held)]
        {
            assert_eq!(plan_fill(&inventory, &[node(3)], &Fixed::new()), [], "{what}");
        }
        let fixed: Fixed = base.shards.iter().map(|r| (r.shard.clone(), r.node.clone())).collect();
        assert_eq!(plan_fill(&base, &[node(3)], &fixed), []);
    }

    #[test]
    fn a_drain_that_cannot_end_is_not_begun() {
        let full = cluster(3, &[(100, &[1, 2, 3])]);
        let why = plan_drain(&full, &node(3)).expect_err("three copies need three nodes").to_string();
        assert_eq!(why, "docs/0 has no legal place elsewhere: each of the 2 other open nodes has a copy of it");
        let mut dead = cluster(3, &[(100, &[1, 3])]);
        dead.shards[1].state = ReplicaState::Dead;
        assert!(matches!(plan_drain(&dead, &node(3)), Err(Infeasible::NotActive { .. })));
        assert_eq!(plan_drain(&full, &node(9)), Err(Infeasible::NotAMember(node(9))));
    }

    #[test]
    fn what_a_dead_node_held_is_made_anew_elsewhere() {
        let mut cluster = cluster(4, &[(100, &[1, 3]), (300, &[2, 3]), (50, &[1, 2])]);
        cluster.wanted_replicas.insert("docs".into(), 2);
        cluster.members[2].healthy = false;
        let copies = plan_restore(&cluster, &node(3)).expect("every shard lives elsewhere");
        assert_eq!(shown(&copies), ["1 n2>n4", "0 n1>n4"], "largest first, onto the empty node; docs/2 lost nothing");
        let mut restored = cluster.clone();
        restored.shards.extend([replica(0, 4, 100), replica(1, 4, 300)]);
        assert_eq!(plan_restore(&restored, &node(3)), Ok(Vec::new()));
        let mut alone = cluster.clone();
        alone.shards.push(replica(7, 3, 1));
        assert!(matches!(plan_restore(&alone, &node(3)), Err(Infeasible::OnlyCopy { .. })));
        let mut full = cluster;
        full.members[3].cordoned = true;
        full.members[0].healthy = false;
        assert!(matches!(plan_restore(&full, &node(3)), Err(Infeasible::OnlyCopy { .. } | Infeasible::NoPlace { .. })));
    }

    #[test]
    fn victims_are_ordered_by_bytes_then_load() {
        let inventory = cluster(4, &[(100, &[1]), (50, &[2]), (50, &[3]), (10, &[4])]);
        let loads = [(1, 0.1), (2, 0.9), (3, 0.2), (4, 0.8)].map(|(n, load)| (node(n), Some(load)));
        let experience = Experience { lead_times: Vec::new(), bytes_per_second: Some(10.0) };
        let seen = outlook(Some(&inventory), &loads.into(), &experience);
        let order: Vec<_> = seen.scale_down.iter().map(|d| (d.node.to_string(), d.forecast.seconds)).collect();
        let expected = [("n4", 1.0), ("n3", 5.0), ("n2", 5.0), ("n1", 10.0)];
        assert_eq!(order, expected.map(|(n, s)| (n.to_string(), Some(s))));
        let without = outlook(None, &[(node(1), Some(0.5)), (node(2), Some(0.1))].into(), &Experience::default());
        assert_eq!(without.scale_down[0].node, node(2), "without data the least loaded goes");
    }

    prop_compose! {
        fn any_cluster()(nodes in 2usize..8)(
            nodes in Just(nodes),
            shards in prop::collection::vec((0u64..10_000, prop::collection::btree_set(1..=nodes, 1..=3.min(nodes))), 0..24),
            closed in prop::collection::vec((any::<bool>(), any::<bool>(), 0..5u8), nodes),
        ) -> Inventory {
            let layout: Vec<(u64, Vec<usize>)> = shards.into_iter().map(|(b, on)| (b, on.into_iter().collect())).collect();
            let borrowed: Vec<(u64, &[usize])> = layout.iter().map(|(b, on)| (*b, on.as_slice())).collect();
            let mut inventory = cluster(nodes, &borrowed);
            for (member, (cordoned, healthy, rarely)) in inventory.members.iter_mut().zip(closed) {
                if rarely == 0 {
                    (member.cordoned, member.healthy) = (cordoned, healthy);
                }
            }
            inventory
        }
    }

    /// Carries the moves out one by one and checks each against the rules.
    fn carried_out(mut inventory: Inventory, moves: &[Move]) -> Inventory {
        for m in moves {
            let target = inventory.member(&m.to).expect("a member");
            assert!(target.healthy && !target.cordoned, "{m:?} goes onto a closed node");
            let doubled = inventory.shards.iter().any(|r| r.shard == m.shard && r.node == m.to);
            assert!(!doubled, "{m:?} makes two copies on one node");
            let source = inventory.shards.iter_mut().find(|r| r.shard == m.shard && r.node == m.from);
            source.expect("a copy at the source").node = m.to.clone();
        }
        inventory
    }

    fn unevenness(inventory: &Inventory) -> u128 {
        let bytes = |m: &Member| inventory.on(&m.id).map(|r| u128::from(weight(r))).sum::<u128>();
        inventory.members.iter().map(|m| bytes(m) * bytes(m)).sum()
    }

    proptest! {
        #[test]
        fn a_drain_empties_the_node_or_says_why_not(inventory in any_cluster()) {
            let victim = inventory.members[0].id.clone();
            match plan_drain(&inventory, &victim) {
                Ok(moves) => {
                    let after = carried_out(inventory.clone(), &moves);
                    prop_assert_eq!(after.on(&victim).count(), 0);
                    prop_assert_eq!(after.shards.len(), inventory.shards.len());
                    prop_assert_eq!(plan_drain(&inventory, &victim), Ok(moves));
                }
                Err(Infeasible::NoPlace { shard, .. }) => {
                    let open = inventory.members.iter().filter(|m| m.id != victim && m.healthy && !m.cordoned);
                    let free = open.filter(|m| inventory.on(&m.id).all(|r| r.shard != shard)).count();
                    prop_assert_eq!(free, 0, "there was a place for {}", shard);
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }

        #[test]
        fn a_fill_never_makes_it_worse_and_comes_to_rest(inventory in any_cluster(), onto_last: bool) {
            let new: Vec<NodeId> = inventory.members.last().filter(|_| onto_last).map(|m| m.id.clone()).into_iter().collect();
            let moves = plan_fill(&inventory, &new, &Fixed::new());
            let after = carried_out(inventory.clone(), &moves);
            prop_assert!(unevenness(&after) <= unevenness(&inventory));
            prop_assert!(moves.iter().all(|m| new.is_empty() || new.contains(&m.to)));
            // Planned anew after each first move, as the runner does, it ends: a copy is moved once at most.
            let (mut now, mut fixed, mut turns) = (inventory.clone(), Fixed::new(), 0);
            while let Some(first) = plan_fill(&now, &new, &fixed).into_iter().next() {
                now = carried_out(now, std::slice::from_ref(&first));
                fixed.insert((first.shard, first.to));
                turns += 1;
                prop_assert!(turns <= inventory.shards.len());
            }
            prop_assert!(unevenness(&now) <= unevenness(&inventory));
        }
    }
}
