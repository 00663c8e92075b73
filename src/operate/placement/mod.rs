//! Where shards go: an inventory and the pool's rules -> a plan. Pure, and the same input gives the same plan.
//!
//! Hard rules, in this order: the copies of a shard on distinct nodes, partial ones and transfers in flight counted; at
//! most `ceil(copies / zones)` of a shard in one zone (where that cannot be had, no worse than before); nothing onto a
//! node that is cordoned, closed, unhealthy or without room for the copy beside all else that comes; pinned copies stay. Then
//! balance within a band, then fewest bytes and moves.
//!
//! Each prefix of a plan obeys the rules, and no node ever gets heavier than the heaviest was, or than the band allows.
//! A copy never goes to a node that held its shard when the plan was made: it needs no other move to be done first.

mod drain;
mod exact;
mod layout;
mod limits;
mod order;
mod report;
mod restore;
mod spread;
mod stairs;
mod state;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Balance, Change, Inventory, Member, Move, NodeId, NodeSeen, Observation, ShardId, Signal};

pub(super) use self::drain::{drain, possible};
pub(super) use self::layout::Layout;
pub use self::restore::restore;
pub use self::spread::fill;
pub use self::stairs::stairs;

/// Copies that are to stay where they are.
pub type Fixed = BTreeSet<(ShardId, NodeId)>;

/// What weighs when nodes are compared. The names are Qdrant Cloud's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// The number of shard copies.
    ByCount,
    /// Their bytes.
    BySize,
    /// Both: a node weighs as much as the larger of its shares.
    #[default]
    ByCountAndSize,
}

impl Strategy {
    pub const ALL: [Strategy; 3] = [Strategy::ByCount, Strategy::BySize, Strategy::ByCountAndSize];

    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::ByCount => "by_count",
            Strategy::BySize => "by_size",
            Strategy::ByCountAndSize => "by_count_and_size",
        }
    }
}

/// What a pool's owner says of placement.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub strategy: Strategy,
    /// How far above the best reachable weight a node may stay, 0..=1.
    pub band: f64,
    /// `collection` or `collection/shard`: its copies stay where they are.
    pub pins: BTreeSet<String>,
    /// The disk of each node, bytes; `None`: not known, so no limit.
    pub node_bytes: Option<u64>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { strategy: Strategy::default(), band: 0.05, pins: BTreeSet::new(), node_bytes: None }
    }
}

impl Rules {
    fn pinned(&self, shard: &ShardId) -> bool {
        !self.pins.is_empty() && (self.pins.contains(&*shard.collection) || self.pins.contains(&shard.to_string()))
    }
}

/// What is known of a node besides its shards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    pub zone: Option<String>,
    /// Bytes of shards that its disk can hold, those it has included; `None`: not known, so no limit.
    pub capacity: Option<u64>,
    /// Relative to its high line. Decides only between moves that are as good as each other.
    pub load: Option<f64>,
}

/// What a plan is made by: the rules, and what is known of the nodes. A node without an entry has no zone and no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placing {
    pub rules: Rules,
    pub nodes: BTreeMap<NodeId, Facts>,
    /// Nodes to which nothing comes, whether or not the datastore calls them cordoned: drained, or in maintenance.
    pub closed: BTreeSet<NodeId>,
    /// Nodes that gave up a copy of a shard, or were asked to, and where a request to drop it may yet come: it would take the
    /// new copy, so none goes back to them.
    pub given_up: BTreeSet<(ShardId, NodeId)>,
}

impl Placing {
    /// The nodes as they were last seen.
    pub fn of(rules: Rules, seen: &Observation) -> Placing {
        // What else is on the disk is not to be had for shards; an unknown usage is taken for the shards' alone.
        let capacity = |node: &NodeSeen| match node.values.get(&Signal::Storage) {
            Some(used) => {
                let free = rules.node_bytes? as f64 * (1.0 - used.clamp(0.0, 1.0));
                Some(free as u64 + node.bytes.unwrap_or(0))
            }
            None => rules.node_bytes,
        };
        let facts = |node: &NodeSeen| Facts { zone: node.zone.clone(), capacity: capacity(node), load: node.load };
        let nodes = seen.nodes.iter().map(|node| (node.id.clone(), facts(node))).collect();
        Placing { rules, nodes, ..Placing::default() }
    }

    /// Adds a node that was just made, and may not have been looked at yet.
    pub fn add(&mut self, node: &NodeId, zone: Option<String>) {
        let facts = self
            .nodes
            .entry(node.clone())
            .or_insert_with(|| Facts { capacity: self.rules.node_bytes, ..Facts::default() });
        facts.zone = zone.or(facts.zone.take());
    }
}

/// Moves, and what they come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order in which they are best made.
    pub moves: Vec<Move>,
    /// No plan that leaves the nodes as even as this one moves fewer.
    pub least_bytes: u64,
    /// `None` where there is nothing to spread.
    pub balance: Option<Balance>,
    /// The nodes that it changes, ordered by id.
    pub nodes: Arc<[Change]>,
}

/// Why a node cannot be emptied, or a dead one's copies not made anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Infeasible {
    #[error("{0} is not a member of the cluster")]
    NotAMember(NodeId),
    #[error("{shard} on {node} is not an active copy, so nothing can be copied from it")]
    NotActive { shard: ShardId, node: NodeId },
    #[error("{shard} is pinned, so it stays on {node}")]
    Pinned { shard: ShardId, node: NodeId },
    #[error("{shard} has no active copy on a living node but {node}, so it cannot be made anew")]
    OnlyCopy { shard: ShardId, node: NodeId },
    #[error("{shard} has no legal place elsewhere: {why}")]
    NoPlace { shard: ShardId, why: String },
}

/// The inventory with `more` nodes that do not exist yet, each in the zone with the fewest members, and their ids.
fn with_new_nodes(inventory: &Inventory, placing: &Placing, more: u32) -> (Inventory, Placing, Vec<NodeId>) {
    let (mut larger, mut placing, mut ids) = (inventory.clone(), placing.clone(), Vec::new());
    let mut zones: BTreeMap<String, usize> = BTreeMap::new();
    for member in &larger.members {
        if let Some(zone) = placing.nodes.get(&member.id).and_then(|facts| facts.zone.clone()) {
            *zones.entry(zone).or_default() += 1;
        }
    }
    let taken: BTreeSet<&str> = inventory.members.iter().map(|member| member.id.as_str()).collect();
    let names = (1..).map(|n| format!("new-{n}")).filter(|name| !taken.contains(name.as_str()));
    for id in names.filter_map(|name| NodeId::new(&name).ok()).take(more as usize) {
        let zone = zones.iter().min_by_key(|(_, members)| **members).map(|(zone, _)| zone.clone());
        if let Some(members) = zone.as_ref().and_then(|zone| zones.get_mut(zone)) {
            *members += 1;
        }
        placing.nodes.insert(id.clone(), Facts { zone, capacity: placing.rules.node_bytes, load: None });
        larger.members.push(Member::new(id.clone(), String::new()));
        ids.push(id);
    }
    (larger, placing, ids)
}

/// What filling `more` nodes that do not exist yet would move.
pub fn fill_more(inventory: &Inventory, placing: &Placing, more: u32) -> Plan {
    let (larger, placing, ids) = with_new_nodes(inventory, placing, more);
    fill(&larger, &ids, &Fixed::new(), &placing)
}
