//! How copies on their way stand in one view of the cluster, and which further ones may begin beside them. Pure.

use std::collections::BTreeSet;

use crate::model::{Inventory, Move, NodeId, Replica, ReplicaState, ShardId, StepAction};

/// How a copy stands in one view of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The target has it, the source has not, nothing is in flight.
    Arrived,
    /// In flight; bytes on the target, if known.
    Moving(u64),
    /// The target has it too, and nothing is in flight: the source may drop its copy.
    Copied,
    /// As with `Copied`, but the copy on the target cannot be relied on: why.
    Doubtful(String),
    /// Not in flight and not arrived.
    Quiet,
    /// Neither source nor target has a copy: it was moved or dropped by other hands.
    Gone,
}

pub fn status(seen: &Inventory, action: &StepAction, copy: &Move) -> Status {
    let on = |node: &NodeId| seen.shards.iter().find(|r| r.shard == copy.shard && &r.node == node);
    let (from, to) = (on(&copy.from), on(&copy.to));
    let transfer = seen.transfers.iter().find(|t| t.shard == copy.shard);
    // What is replicated stays at its source.
    let source = from.filter(|_| !matches!(action, StepAction::Replicate(_)));
    match (transfer, source, to) {
        (Some(transfer), _, to) => Status::Moving(transfer.done_bytes.or(to.map(|r| r.bytes)).unwrap_or(0)),
        (None, None, Some(target)) if target.state == ReplicaState::Active => Status::Arrived,
        (None, Some(source), Some(target)) if target.state == ReplicaState::Active => {
            doubt(seen, source, target).map_or(Status::Copied, Status::Doubtful)
        }
        (None, None, None) if from.is_none() => Status::Gone,
        _ => Status::Quiet,
    }
}

/// What speaks against dropping the source's copy. That the target calls its own active is not enough: a store may say so
/// of a copy that has yet to be filled, or that lies on a node which has died since.
fn doubt(seen: &Inventory, source: &Replica, target: &Replica) -> Option<String> {
    let (have, of) = (target.vectors, source.vectors);
    if !seen.member(&target.node).is_some_and(|member| member.healthy) {
        Some(format!("{} has a copy of {} and is not healthy", target.node, target.shard))
    } else if have < of.div_ceil(2) {
        Some(format!("the copy of {} on {} has {have} of {of} vectors", target.shard, target.node))
    } else {
        None
    }
}

/// The cluster as it will be once the copies on their way have arrived.
pub fn as_arrived<'a>(seen: &Inventory, on_their_way: impl Iterator<Item = &'a StepAction>) -> Inventory {
    let mut then = seen.clone();
    for action in on_their_way {
        let Some(Move { shard, from, to, bytes, vectors }) = action.copy().cloned() else { continue };
        let moves = matches!(action, StepAction::Move(_));
        then.transfers.retain(|t| t.shard != shard);
        then.shards.retain(|r| r.shard != shard || (r.node != to && !(moves && r.node == from)));
        then.shards.push(Replica { shard, node: to, bytes, vectors, state: ReplicaState::Active });
    }
    then
}

/// Shards and nodes that have a part in a transfer.
#[derive(Clone, Debug, Default)]
pub struct Busy {
    shards: BTreeSet<ShardId>,
    sending: BTreeSet<NodeId>,
    receiving: BTreeSet<NodeId>,
    /// Nodes with room that is yet to become free.
    leaving: BTreeSet<NodeId>,
}

impl Busy {
    /// Our own copies on their way, and the transfers of others.
    pub fn of<'a>(seen: &Inventory, on_their_way: impl Iterator<Item = &'a Move>) -> Busy {
        let mut busy = Busy::default();
        for t in &seen.transfers {
            busy.takes(&t.shard, &t.from, &t.to);
        }
        for copy in on_their_way {
            busy.takes(&copy.shard, &copy.from, &copy.to);
        }
        busy
    }

    fn takes(&mut self, shard: &ShardId, from: &NodeId, to: &NodeId) {
        self.waits(shard, from);
        self.sending.insert(from.clone());
        self.receiving.insert(to.clone());
    }

    fn waits(&mut self, shard: &ShardId, from: &NodeId) {
        self.shards.insert(shard.clone());
        self.leaving.insert(from.clone());
    }

    /// Splits a plan into the moves that may begin now, at most `room`, and those that wait. A node sends one copy at a
    /// time and receives one; and as long as a copy is to leave it, it receives none that comes later in the plan, which
    /// may count on that room.
    pub fn admit(mut self, plan: Vec<Move>, room: usize) -> (Vec<Move>, Vec<Move>) {
        let (mut begin, mut wait) = (Vec::new(), Vec::new());
        for copy in plan {
            let is_free = !self.shards.contains(&copy.shard)
                && !self.sending.contains(&copy.from)
                && !self.receiving.contains(&copy.to)
                && !self.leaving.contains(&copy.to);
            if is_free && begin.len() < room {
                self.takes(&copy.shard, &copy.from, &copy.to);
                begin.push(copy);
            } else {
                self.waits(&copy.shard, &copy.from);
                wait.push(copy);
            }
        }
        (begin, wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Member, Transfer};

    fn node(n: u32) -> NodeId {
        NodeId::new(&format!("n{n}")).expect("a name")
    }

    fn shard(shard: u32) -> ShardId {
        ShardId { collection: "docs".into(), shard }
    }

    fn copy(number: u32, from: u32, to: u32) -> Move {
        Move { shard: shard(number), from: node(from), to: node(to), bytes: 1000, vectors: 10 }
    }

    fn replica(number: u32, on: u32, vectors: u64, state: ReplicaState) -> Replica {
        Replica { shard: shard(number), node: node(on), bytes: vectors * 100, vectors, state }
    }

    fn transfer(number: u32, from: u32, to: u32, done_bytes: Option<u64>) -> Transfer {
        Transfer { shard: shard(number), from: node(from), to: node(to), done_bytes, is_move: true }
    }

    fn seen(shards: Vec<Replica>, transfers: Vec<Transfer>) -> Inventory {
        let members = (1..=4).map(|n| Member::new(node(n), String::new())).collect();
        Inventory { members, shards, transfers, ..Inventory::default() }
    }

    #[test]
    fn a_copy_stands_as_the_cluster_shows_it() {
        use ReplicaState::{Active, Dead, Partial};
        let source = || replica(0, 1, 10, Active);
        let target = |vectors, state| replica(0, 2, vectors, state);
        let doubtful = |why: &str| Status::Doubtful(why.into());
        let flying = |done| vec![transfer(0, 1, 2, done)];
        let cases = [
            ("in flight, bytes told", vec![source()], flying(Some(300)), Status::Moving(300), Status::Moving(300)),
            (
                "in flight, bytes on the target",
                vec![source(), target(4, Partial)],
                flying(None),
                Status::Moving(400),
                Status::Moving(400),
            ),
            ("arrived", vec![target(10, Active)], vec![], Status::Arrived, Status::Arrived),
            ("on both", vec![source(), target(10, Active)], vec![], Status::Copied, Status::Arrived),
            (
                "on both, still in flight",
                vec![source(), target(10, Active)],
                flying(Some(1)),
                Status::Moving(1),
                Status::Moving(1),
            ),
            (
                "on both, and empty on the target",
                vec![source(), target(0, Active)],
                vec![],
                doubtful("the copy of docs/0 on n2 has 0 of 10 vectors"),
                Status::Arrived,
            ),
            ("not begun", vec![source()], vec![], Status::Quiet, Status::Quiet),
            ("broken off", vec![source(), target(4, Partial)], vec![], Status::Quiet, Status::Quiet),
            ("the target's is lost", vec![target(4, Dead)], vec![], Status::Quiet, Status::Quiet),
            ("nowhere", vec![], vec![], Status::Gone, Status::Gone),
        ];
        for (what, shards, transfers, as_move, as_replica) in cases {
            let seen = seen(shards, transfers);
            assert_eq!(status(&seen, &StepAction::Move(copy(0, 1, 2)), &copy(0, 1, 2)), as_move, "{what}");
            assert_eq!(status(&seen, &StepAction::Replicate(copy(0, 1, 2)), &copy(0, 1, 2)), as_replica, "{what}");
        }
        let mut seen = seen(vec![source(), target(10, Active)], vec![]);
        seen.members[1].healthy = false;
        let as_move = status(&seen, &StepAction::Move(copy(0, 1, 2)), &copy(0, 1, 2));
        assert_eq!(as_move, doubtful("n2 has a copy of docs/0 and is not healthy"));
    }

    #[test]
    fn what_is_on_its_way_counts_as_arrived() {
        use ReplicaState::{Active, Partial};
        let shards = vec![
            replica(0, 1, 10, Active),
            replica(0, 2, 0, Partial),
            replica(1, 1, 10, Active),
            replica(2, 1, 10, Active),
        ];
        let seen = seen(shards, vec![transfer(0, 1, 2, None), transfer(2, 1, 4, None)]);
        let ours = [StepAction::Move(copy(0, 1, 2)), StepAction::Replicate(copy(1, 1, 3))];
        let then = as_arrived(&seen, ours.iter());
        let mut on: Vec<String> =
            then.shards.iter().map(|r| format!("{} {} {:?}", r.shard.shard, r.node, r.state)).collect();
        on.sort();
        assert_eq!(on, ["0 n2 Active", "1 n1 Active", "1 n3 Active", "2 n1 Active"]);
        assert_eq!(then.transfers, [transfer(2, 1, 4, None)], "what others move is left as it is");
    }

    #[test]
    fn a_node_sends_one_and_receives_one() {
        let shown = |moves: &[Move]| moves.iter().map(|m| m.shard.shard.to_string()).collect::<Vec<_>>().join(" ");
        // What, ours on their way, the plan, room, what begins.
        let cases = [
            ("as many as there is room", vec![], vec![copy(0, 1, 2), copy(1, 3, 4)], 1, "0"),
            ("pairs of their own", vec![], vec![copy(0, 1, 2), copy(1, 3, 4)], 4, "0 1"),
            ("one source", vec![], vec![copy(0, 1, 2), copy(1, 1, 4)], 4, "0"),
            ("one target", vec![], vec![copy(0, 1, 2), copy(1, 3, 2)], 4, "0"),
            ("a chain", vec![], vec![copy(0, 1, 2), copy(1, 2, 3)], 4, "0 1"),
            ("room that is not free yet", vec![], vec![copy(0, 1, 2), copy(1, 3, 1)], 4, "0"),
            ("beside one on its way", vec![copy(7, 1, 2)], vec![copy(0, 1, 3), copy(1, 3, 4)], 4, "1"),
            ("past what waits, on other nodes", vec![copy(7, 1, 2)], vec![copy(0, 1, 2), copy(1, 3, 4)], 4, "1"),
            ("past what waits, to its target", vec![], vec![copy(0, 1, 2), copy(1, 1, 4), copy(2, 3, 4)], 4, "0 2"),
            ("what waits is yet to leave", vec![], vec![copy(0, 1, 2), copy(1, 3, 2), copy(2, 4, 3)], 4, "0"),
            ("the same shard", vec![copy(0, 1, 2)], vec![copy(0, 3, 4)], 4, ""),
        ];
        for (what, ours, plan, room, expected) in cases {
            let all = plan.len();
            let (begin, wait) = Busy::of(&seen(vec![], vec![]), ours.iter()).admit(plan, room);
            assert_eq!((shown(&begin).as_str(), begin.len() + wait.len()), (expected, all), "{what}");
        }
        let others = seen(vec![], vec![transfer(9, 1, 2, None)]);
        let (begin, _) = Busy::of(&others, [].iter()).admit(vec![copy(0, 3, 2), copy(1, 4, 1)], 4);
        assert_eq!(shown(&begin), "", "transfers of others count, too");
    }
}
