//! What the pool looks like at one instant: readings, nodes, shards. Pure data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{NodeId, PoolName, Signal, Timestamp};

/// How node values become the pool's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregate {
    #[default]
    Mean,
    Max,
    P95,
}

/// The pool's value of one signal. Only `Fresh` is evidence in both directions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Reading {
    /// Every node spoke.
    Fresh { value: f64 },
    /// Some nodes are silent: `value` over those that spoke, `floor` with each silent node counted as 0.
    Partial { value: f64, floor: f64, silent: Vec<NodeId> },
    /// No evidence either way: failed, unreadable, stale, or not a number.
    Missing { why: String },
    /// Fewer than 20 requests in the interval: neither low nor missing nor high (latency and error rate only).
    Idle,
}

impl Reading {
    /// The value if every node spoke.
    pub fn fresh(&self) -> Option<f64> {
        match self {
            Reading::Fresh { value } => Some(*value),
            _ => None,
        }
    }

    /// Fresh or idle: enough to allow a scale-down.
    pub fn is_settled(&self) -> bool {
        matches!(self, Reading::Fresh { .. } | Reading::Idle)
    }
}

/// All readings at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    pub pool: PoolName,
    pub at: Timestamp,
    /// One entry per configured signal; a signal that nobody configured is absent.
    pub readings: BTreeMap<Signal, Reading>,
    /// Ordered by id.
    pub nodes: Vec<NodeSeen>,
    /// Each vector once where the datastore tells, else the sum over nodes; `None` if not known.
    pub total_vectors: Option<u64>,
    /// Mean over nodes, replicas counted; `None` unless every node spoke.
    pub avg_vectors_per_node: Option<f64>,
}

impl Observation {
    pub fn value(&self, signal: &Signal) -> Option<f64> {
        self.readings.get(signal).and_then(Reading::fresh)
    }

    /// Nodes that count: all but the lost.
    pub fn node_count(&self) -> usize {
        self.nodes.iter().filter(|n| n.state != NodeState::Lost).count()
    }

    pub fn healthy_nodes(&self) -> usize {
        self.nodes.iter().filter(|n| n.healthy).count()
    }

    pub fn node(&self, id: &NodeId) -> Option<&NodeSeen> {
        self.nodes.iter().find(|n| &n.id == id)
    }
}

/// One node at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeSeen {
    pub id: NodeId,
    pub address: String,
    pub zone: Option<String>,
    pub state: NodeState,
    /// Answered the last scrape with HTTP below 500.
    pub up: bool,
    /// After three bad checks false, after three good ones true; a node never seen ill is healthy from its first good one.
    pub healthy: bool,
    /// When the node last became unhealthy; `None` while healthy.
    pub unhealthy_since: Option<Timestamp>,
    /// Nobody told at the last check how the node is: what stands above is what was known before.
    #[serde(default)]
    pub health_unknown: bool,
    /// Values in the signal's unit; a signal without a number is absent.
    pub values: BTreeMap<Signal, f64>,
    /// `None` where the datastore does not tell.
    pub shards: Option<u32>,
    pub bytes: Option<u64>,
    /// Highest usage relative to its high line; `None` if no usage is known.
    pub load: Option<f64>,
    /// Receives shards or builds an index: its samples do not extend `cpu_high` or `latency_high`.
    pub busy_with_data: bool,
    /// Time the scrape took, seconds.
    pub scrape_seconds: f64,
    /// Why signals have no value, by signal; for people, never a label.
    pub gaps: BTreeMap<Signal, String>,
}

/// Where a node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Created, not yet in service.
    Joining,
    /// Holds data and may receive more.
    Serving,
    /// Cordoned: nothing is placed on it.
    Draining,
    /// Expected to be silent; a person said so.
    Maintenance,
    /// Unhealthy for so long that it is being, or was, replaced; counts nowhere.
    Lost,
}

impl NodeState {
    pub const ALL: [NodeState; 5] =
        [NodeState::Joining, NodeState::Serving, NodeState::Draining, NodeState::Maintenance, NodeState::Lost];

    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Joining => "joining",
            NodeState::Serving => "serving",
            NodeState::Draining => "draining",
            NodeState::Maintenance => "maintenance",
            NodeState::Lost => "lost",
        }
    }
}
