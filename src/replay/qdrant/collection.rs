//! A collection: its parameters, and which node is listed with a copy of which shard. The points are on the nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::transfer::Transfer;

/// Bytes of a point's payload and the overhead, as in the recordings.
const PAYLOAD_BYTES: u64 = 128;

/// State of a copy, as Qdrant names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Active,
    /// Made while its node was away.
    Initializing,
    Partial,
    Recovery,
    Dead,
    Resharding,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Active => "Active",
            State::Initializing => "Initializing",
            State::Partial => "Partial",
            State::Recovery => "Recovery",
            State::Dead => "Dead",
            State::Resharding => "Resharding",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    pub state: State,
    /// Since when it is in this state.
    pub since: Duration,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Shard {
    /// By peer. Empty: the shard is lost.
    pub copies: BTreeMap<u64, Copy>,
    /// The only copy has just moved: reads fail for so long.
    pub cut_over: Option<Duration>,
}

impl Shard {
    pub fn is_active(&self, peer: u64) -> bool {
        self.copies.get(&peer).is_some_and(|copy| copy.state == State::Active)
    }

    /// Whether a copy other than this peer's is active, as listed.
    pub fn has_other(&self, peer: u64) -> bool {
        self.copies.iter().any(|(p, copy)| *p != peer && copy.state == State::Active)
    }

    pub fn set(&mut self, peer: u64, state: State, since: Duration) {
        self.copies.insert(peer, Copy { state, since });
    }
}

#[derive(Clone, Debug)]
pub(super) struct Collection {
    pub shard_number: u32,
    pub replication_factor: u32,
    pub size: u64,
    pub distance: String,
    pub shards: BTreeMap<u32, Shard>,
    pub transfers: Vec<Transfer>,
    /// `resharding_operations`, as listed.
    pub reshardings: Vec<Value>,
    /// Writes so far.
    pub operations: u64,
}

impl Collection {
    pub fn vector_bytes(&self, points: usize) -> u64 {
        points as u64 * self.size * 4
    }

    pub fn payload_bytes(&self, points: usize) -> u64 {
        points as u64 * PAYLOAD_BYTES
    }

    pub fn bytes(&self, points: usize) -> u64 {
        self.vector_bytes(points) + self.payload_bytes(points)
    }

    /// The shard that a point belongs to.
    pub fn shard_of(&self, id: u64) -> u32 {
        u32::try_from(mixed(id) % u64::from(self.shard_number.max(1))).expect("less than a shard number")
    }

    pub fn params(&self) -> Value {
        json!({
            "vectors": {"size": self.size, "distance": self.distance},
            "shard_number": self.shard_number,
            "replication_factor": self.replication_factor,
            "write_consistency_factor": 1,
            "on_disk_payload": true,
        })
    }

    pub fn config(&self) -> Value {
        json!({
            "params": self.params(),
            "hnsw_config": {
                "m": 16, "ef_construct": 100, "full_scan_threshold": 10000, "max_indexing_threads": 0, "on_disk": false,
            },
            "optimizer_config": {
                "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0,
                "max_segment_size": null, "memmap_threshold": null, "indexing_threshold": 10000,
                "flush_interval_sec": 5, "max_optimization_threads": null, "prevent_unoptimized": null,
            },
            "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1},
            "quantization_config": null,
        })
    }
}

/// A number that looks drawn, the same for the same number.
pub(super) fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
