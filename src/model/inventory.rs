//! The datastore's and the provider's own word about nodes, shards and transfers. Pure data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::NodeId;

/// A machine or process that the provider knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub id: NodeId,
    /// Where its data API and pages are, `http://host:port`.
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The platform's own name, if it differs from the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What the provider says of its being up; `None` if it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
}

/// A member as the datastore lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: NodeId,
    pub address: String,
    /// Nothing new is placed on it.
    #[serde(default)]
    pub cordoned: bool,
    /// The datastore reaches it and calls it well.
    #[serde(default = "yes")]
    pub healthy: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// It leads the members' consensus: taking it away costs an election.
    #[serde(default)]
    pub leader: bool,
    /// It builds an index just now, so its CPU and latency say little.
    #[serde(default)]
    pub indexing: bool,
}

impl Member {
    /// A healthy one that is open for shards.
    pub fn new(id: NodeId, address: String) -> Member {
        Member { id, address, cordoned: false, healthy: true, version: None, leader: false, indexing: false }
    }
}

fn yes() -> bool {
    true
}

/// Collection and shard number: the smallest thing that moves.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId {
    pub collection: Arc<str>,
    pub shard: u32,
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.shard)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One copy of a shard on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    #[serde(flatten)]
    pub shard: ShardId,
    pub node: NodeId,
    pub bytes: u64,
    pub vectors: u64,
    pub state: ReplicaState,
}

/// Whether a copy can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Complete and serving.
    Active,
    /// Being filled; not a copy to rely on.
    Partial,
    /// Known to be lost or behind.
    Dead,
}

/// A copy in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    #[serde(flatten)]
    pub shard: ShardId,
    pub from: NodeId,
    pub to: NodeId,
    /// Bytes already on the target, if the store tells.
    #[serde(default)]
    pub done_bytes: Option<u64>,
    /// Whether the source copy is dropped at the end.
    #[serde(default)]
    pub is_move: bool,
}

/// One view of the whole cluster, as one source tells it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Ordered by id.
    pub members: Vec<Member>,
    /// Copies wanted per shard, by collection.
    #[serde(default)]
    pub wanted_replicas: BTreeMap<Arc<str>, u32>,
    /// Whether `wanted_replicas` has every collection there is, by a list of the store's own: one that it has not was
    /// deleted.
    #[serde(default)]
    pub lists_collections: bool,
    #[serde(default)]
    pub shards: Vec<Replica>,
    #[serde(default)]
    pub transfers: Vec<Transfer>,
    /// Why the members can agree on no change just now (no leader, no majority, changes still pending …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_quorum: Option<String>,
    /// Work of others that is no transfer, such as a resharding, and what only a person can mend, such as a shard that no
    /// member has a copy of; one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<String>,
}

impl Inventory {
    pub fn member(&self, id: &NodeId) -> Option<&Member> {
        self.members.iter().find(|m| &m.id == id)
    }

    /// All copies on `node`, whatever their state.
    pub fn on<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = &'a Replica> {
        self.shards.iter().filter(move |r| &r.node == node)
    }

    /// Copies by shard, ordered.
    pub fn by_shard(&self) -> BTreeMap<&ShardId, Vec<&Replica>> {
        let mut shards: BTreeMap<&ShardId, Vec<&Replica>> = BTreeMap::new();
        for replica in &self.shards {
            shards.entry(&replica.shard).or_default().push(replica);
        }
        shards
    }

    /// Nodes that send or receive a copy just now.
    pub fn nodes_in_transfer(&self) -> BTreeSet<&NodeId> {
        self.transfers.iter().flat_map(|t| [&t.from, &t.to]).collect()
    }
}

/// One copy of a shard on its way: a new copy on `to`, made from the one on `from`. A relocation then drops the copy on
/// `from`, a replication keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    #[serde(flatten)]
    pub shard: ShardId,
    pub from: NodeId,
    pub to: NodeId,
    pub bytes: u64,
    pub vectors: u64,
}
