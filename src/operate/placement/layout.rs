//! The cluster in numbers: nodes, copies and shards by index. What is in flight counts as if it had arrived.

use std::collections::{BTreeMap, BTreeSet};

use super::Placing;
use crate::model::{Inventory, Member, NodeId, Replica, ReplicaState, ShardId, Transfer};

/// Shard copies, and their bytes (an empty copy counts one, so that empty shards are spread too).
pub(in crate::operate) type Weight = [u64; 2];

pub(super) const COUNT: usize = 0;
pub(super) const BYTES: usize = 1;

pub(super) fn sum(a: Weight, b: Weight) -> Weight {
    [a[COUNT] + b[COUNT], a[BYTES] + b[BYTES]]
}

pub(super) fn less(a: Weight, b: Weight) -> Weight {
    [a[COUNT] - b[COUNT], a[BYTES] - b[BYTES]]
}

pub(super) struct Node<'a> {
    pub id: &'a NodeId,
    /// May receive, and takes part in what is evened out.
    pub open: bool,
    pub healthy: bool,
    pub zone: Option<usize>,
    /// Bytes free for what comes; `None`: no limit.
    pub room: Option<u64>,
    pub load: f64,
    /// Everything on it, and on its way to it.
    pub weight: Weight,
}

pub(super) struct Copy<'a> {
    pub replica: &'a Replica,
    pub shard: usize,
    pub home: usize,
    pub weight: Weight,
    /// Active, and its shard is not in transfer.
    pub free: bool,
}

#[derive(Default)]
pub(super) struct Shard {
    /// Nodes that have a copy, or are about to.
    pub holders: Vec<usize>,
    /// Nodes that gave one up: none goes back to them.
    pub given_up: Vec<usize>,
    pub copies: Vec<usize>,
    pub in_transfer: bool,
}

pub(in crate::operate) struct Layout<'a> {
    pub(super) placing: &'a Placing,
    pub(super) inventory: &'a Inventory,
    /// Ordered by id.
    pub(super) nodes: Vec<Node<'a>>,
    /// Ordered by shard, then node.
    pub(super) copies: Vec<Copy<'a>>,
    pub(super) shards: Vec<Shard>,
}

impl<'a> Layout<'a> {
    pub(in crate::operate) fn of(inventory: &'a Inventory, placing: &'a Placing) -> Layout<'a> {
        let mut layout =
            Layout { placing, inventory, nodes: nodes(inventory, placing), copies: Vec::new(), shards: Vec::new() };
        let places: BTreeMap<&NodeId, usize> = layout.nodes.iter().enumerate().map(|(i, n)| (n.id, i)).collect();
        let mut replicas: Vec<&Replica> = inventory.shards.iter().collect();
        replicas.sort_by(|a, b| (&a.shard, &a.node).cmp(&(&b.shard, &b.node)));
        let mut in_flight: BTreeMap<&ShardId, Vec<&Transfer>> = BTreeMap::new();
        for transfer in &inventory.transfers {
            in_flight.entry(&transfer.shard).or_default().push(transfer);
        }
        for of_shard in replicas.chunk_by(|a, b| a.shard == b.shard) {
            let transfers = in_flight.get(&of_shard[0].shard).map_or(&[][..], Vec::as_slice);
            layout.add(of_shard, transfers, &places);
        }
        layout
    }

    fn add(&mut self, replicas: &[&'a Replica], transfers: &[&Transfer], places: &BTreeMap<&NodeId, usize>) {
        let (number, of_shard) = (self.shards.len(), replicas[0].shard.clone());
        let mut shard = Shard { in_transfer: !transfers.is_empty(), ..Shard::default() };
        for replica in replicas {
            let Some(&home) = places.get(&replica.node) else { continue };
            let weight = [1, replica.bytes.max(1)];
            let free = replica.state == ReplicaState::Active && transfers.is_empty();
            shard.holders.push(home);
            shard.copies.push(self.copies.len());
            let room = &mut self.nodes[home].room;
            *room = room.map(|room| room.saturating_sub(replica.bytes));
            self.copies.push(Copy { replica, shard: number, home, weight, free });
            let leaves = transfers.iter().any(|t| t.is_move && t.from == replica.node);
            let comes = transfers.iter().any(|t| t.to == replica.node);
            if !leaves && !comes {
                self.nodes[home].weight = sum(self.nodes[home].weight, weight);
            }
        }
        for transfer in transfers {
            let source = replicas.iter().find(|r| r.node == transfer.from);
            let bytes = source.map_or(0, |r| r.bytes);
            shard.holders.extend(places.get(&transfer.from));
            if let Some(&to) = places.get(&transfer.to) {
                shard.holders.push(to);
                let node = &mut self.nodes[to];
                node.weight = sum(node.weight, [1, bytes.max(1)]);
                let arrived = replicas.iter().find(|r| r.node == transfer.to).map_or(0, |r| r.bytes);
                node.room = node.room.map(|room| room.saturating_sub(bytes.saturating_sub(arrived)));
            }
        }
        let given_up = self.placing.given_up.iter().filter(|(id, _)| *id == of_shard);
        shard.given_up = given_up.filter_map(|(_, node)| places.get(node).copied()).collect();
        shard.holders.sort_unstable();
        shard.holders.dedup();
        self.shards.push(shard);
    }

    pub(super) fn place(&self, node: &NodeId) -> Option<usize> {
        self.nodes.binary_search_by(|n| n.id.cmp(node)).ok()
    }

    /// How many of a shard's copies are more than a zone should have, with these nodes holding them.
    pub(super) fn crowding(&self, holders: impl Iterator<Item = usize>, zones: usize) -> usize {
        if zones < 2 {
            return 0;
        }
        let (mut in_zone, mut copies) = (Vec::<(usize, usize)>::new(), 0);
        for node in holders {
            copies += 1;
            let Some(zone) = self.nodes[node].zone else { continue };
            match in_zone.iter_mut().find(|(z, _)| *z == zone) {
                Some((_, count)) => *count += 1,
                None => in_zone.push((zone, 1)),
            }
        }
        let most: usize = usize::div_ceil(copies, zones);
        in_zone.iter().map(|(_, count)| count.saturating_sub(most)).sum()
    }

    /// The number of zones among the open nodes other than `but`.
    pub(super) fn zones(&self, but: Option<usize>) -> usize {
        let open = self.nodes.iter().enumerate().filter(|(i, node)| node.open && Some(*i) != but);
        open.filter_map(|(_, node)| node.zone).collect::<BTreeSet<_>>().len()
    }
}

fn nodes<'a>(inventory: &'a Inventory, placing: &'a Placing) -> Vec<Node<'a>> {
    let facts = |id: &NodeId| placing.nodes.get(id);
    let names: BTreeSet<&String> = inventory.members.iter().filter_map(|m| facts(&m.id)?.zone.as_ref()).collect();
    let names: Vec<&String> = names.into_iter().collect();
    let node = |member: &'a Member| {
        let facts = facts(&member.id);
        let zone = facts.and_then(|f| f.zone.as_ref()).and_then(|zone| names.binary_search(&zone).ok());
        Node {
            id: &member.id,
            open: member.healthy && !member.cordoned && !placing.closed.contains(&member.id),
            healthy: member.healthy,
            zone,
            room: facts.and_then(|f| f.capacity),
            load: facts.and_then(|f| f.load).unwrap_or(0.0),
            weight: [0, 0],
        }
    };
    // A node that is forgotten but still listed with copies: nothing goes there, and nothing is read from it.
    let forgotten = |replica: &'a Replica| Node {
        id: &replica.node,
        open: false,
        healthy: false,
        zone: None,
        room: None,
        load: 0.0,
        weight: [0, 0],
    };
    let mut nodes: Vec<Node> = inventory.members.iter().map(node).collect();
    nodes.extend(inventory.shards.iter().map(forgotten));
    nodes.sort_by_key(|node| node.id); // stable: the member comes first
    nodes.dedup_by_key(|node| node.id);
    nodes
}
