//! What Qdrant's nodes say, as they write it. Keys that we do not need are theirs. Pure data.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::ReplicaState;

/// Qdrant's own name of a member.
pub type PeerId = u64;

/// `GET /cluster`: how one node sees itself and its cluster.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct OwnView {
    /// `enabled`, or `disabled` for a node that runs alone.
    pub status: String,
    #[serde(default)]
    pub peer_id: PeerId,
    /// All that are registered, the dead ones too.
    #[serde(default)]
    pub peers: BTreeMap<PeerId, Peer>,
    #[serde(default)]
    pub raft_info: Raft,
    #[serde(default)]
    pub consensus_thread_status: Thread,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Peer {
    /// Where the others reach it; not its REST address.
    pub uri: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Raft {
    pub commit: u64,
    pub pending_operations: u64,
    /// 0 or nothing: none. One that lost its quorum goes on naming itself.
    pub leader: Option<PeerId>,
    pub is_voter: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Thread {
    pub consensus_thread_status: String,
}

impl OwnView {
    /// Its consensus goes on. On a removed node it has stopped, while `/readyz` stays 200.
    pub fn is_working(&self) -> bool {
        self.status == "enabled" && self.consensus_thread_status.consensus_thread_status == "working"
    }

    /// The leader that it follows, if any.
    pub fn leader(&self) -> Option<PeerId> {
        self.raft_info.leader.filter(|leader| *leader != 0)
    }
}

/// `GET /`.
#[derive(Deserialize)]
pub struct Root {
    pub version: String,
}

/// `GET /collections`.
#[derive(Deserialize)]
pub struct Names {
    pub collections: Vec<Name>,
}

#[derive(Deserialize)]
pub struct Name {
    pub name: String,
}

/// `GET /collections/{name}/cluster`: how one node sees the shards of a collection.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct LocalView {
    pub peer_id: PeerId,
    /// Counts shards that no peer has any more.
    pub shard_count: u32,
    pub local_shards: Vec<LocalShard>,
    pub remote_shards: Vec<RemoteShard>,
    #[serde(default)]
    pub shard_transfers: Vec<TransferTold>,
    #[serde(default)]
    pub resharding_operations: Vec<Resharding>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct LocalShard {
    pub shard_id: u32,
    #[serde(default)]
    pub shard_key: Option<Value>,
    pub points_count: u64,
    pub state: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RemoteShard {
    pub shard_id: u32,
    #[serde(default)]
    pub shard_key: Option<Value>,
    pub peer_id: PeerId,
    pub state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TransferTold {
    pub shard_id: u32,
    pub from: PeerId,
    pub to: PeerId,
    /// The source keeps its copy: a replication.
    #[serde(default)]
    pub sync: bool,
    #[serde(default)]
    pub comment: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Resharding {
    #[serde(default)]
    pub direction: String,
    #[serde(default)]
    pub shard_id: u32,
}

/// `GET /cluster/telemetry?details_level=3`: all peers, as one of them gathers it.
#[derive(Deserialize)]
pub struct ClusterTelemetry {
    pub collections: BTreeMap<String, CollectionTelemetry>,
    pub cluster: ClusterPart,
}

#[derive(Deserialize)]
pub struct CollectionTelemetry {
    /// Not there below level 3.
    pub shards: Vec<ShardTelemetry>,
    #[serde(default)]
    pub shard_transfers: Vec<TransferTold>,
    #[serde(default)]
    pub reshardings: Vec<Resharding>,
}

#[derive(Deserialize)]
pub struct ShardTelemetry {
    pub id: u32,
    #[serde(default)]
    pub key: Option<Value>,
    /// Empty: the shard is lost.
    pub replicas: Vec<ReplicaTelemetry>,
}

#[derive(Deserialize)]
pub struct ReplicaTelemetry {
    pub peer_id: PeerId,
    pub state: String,
    #[serde(flatten)]
    pub size: SizeTold,
}

/// Of a silent peer's copy nothing of it is said.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct SizeTold {
    pub status: Option<String>,
    pub vectors_size_bytes: Option<u64>,
    pub payloads_size_bytes: Option<u64>,
    pub num_points: Option<u64>,
}

impl SizeTold {
    pub fn size(&self) -> Option<Size> {
        let bytes = self.vectors_size_bytes?.saturating_add(self.payloads_size_bytes.unwrap_or(0));
        Some(Size { bytes, points: self.num_points? })
    }

    /// Yellow: the optimizer runs. Grey: it has yet to.
    pub fn is_indexing(&self) -> bool {
        matches!(self.status.as_deref(), Some("yellow"))
    }
}

/// What a copy holds: vectors and payloads, without indexes and logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub bytes: u64,
    pub points: u64,
}

#[derive(Deserialize)]
pub struct ClusterPart {
    pub peers: BTreeMap<PeerId, PeerPart>,
}

#[derive(Deserialize)]
pub struct PeerPart {
    pub responsive: bool,
}

/// `GET /telemetry`: from level 2 on with the collections' parameters, from 3 on with the node's own copies. It tells
/// them while shards are down too, which `GET /collections/{name}` does not.
#[derive(Deserialize)]
pub struct NodeTelemetry {
    pub collections: CollectionsPart,
}

#[derive(Deserialize)]
pub struct CollectionsPart {
    pub collections: Vec<CollectionPart>,
}

#[derive(Deserialize)]
pub struct CollectionPart {
    pub id: String,
    pub config: ConfigPart,
    #[serde(default)]
    pub shards: Vec<ShardPart>,
}

#[derive(Deserialize)]
pub struct ConfigPart {
    pub params: Params,
}

#[derive(Deserialize)]
pub struct Params {
    #[serde(default = "one")]
    pub replication_factor: u32,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
pub struct ShardPart {
    pub id: u32,
    pub local: Option<SizeTold>,
}

/// How far a copy can be counted on. Only what serves reads and writes is active.
pub fn state(word: &str) -> ReplicaState {
    match word {
        "Active" => ReplicaState::Active,
        "Dead" => ReplicaState::Dead,
        _ => ReplicaState::Partial,
    }
}

/// The share of a transfer that is done, by the human words of its comment: `Transferring records (12100/72129), …`.
pub fn share_done(comment: &str) -> Option<f64> {
    let (_, rest) = comment.rsplit_once("records (")?;
    let (done, all) = rest.split_once(')')?.0.split_once('/')?;
    let (done, all) = (done.trim().parse::<f64>().ok()?, all.trim().parse::<f64>().ok()?);
    (all > 0.0 && (0.0..=all).contains(&done)).then_some(done / all)
}

/// `1.19.0` -> `(1, 19)`.
pub fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
