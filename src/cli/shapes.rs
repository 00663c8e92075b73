//! What the API answers, as far as the commands show it. Fields that are missing read as empty, and unknown ones are
//! passed over, so that a command gets along with a vecscale of a neighbouring version. Pure data.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::text;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub headline: String,
    pub needs_human: Vec<String>,
    pub pool: String,
    pub mode: String,
    pub metrics: Option<Metrics>,
    pub thresholds: BTreeMap<String, f64>,
    pub sources: BTreeMap<String, Source>,
    pub nodes: Vec<Node>,
    pub conditions: Vec<Condition>,
    pub decision: Option<Decision>,
    pub operation: Option<Operation>,
    pub guards: Vec<Guard>,
    pub alerts: Vec<AlertEntry>,
    pub windows: Vec<Window>,
    pub desired_nodes: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metrics {
    pub timestamp: String,
    pub cpu_usage: Option<f64>,
    pub memory_usage: Option<f64>,
    pub storage_usage: Option<f64>,
    pub search_latency: Option<f64>,
    pub query_throughput: Option<f64>,
    pub error_rate: Option<f64>,
    pub node_count: u32,
    pub healthy_nodes: u32,
    pub total_vectors: Option<f64>,
}

/// Where a threshold comes from: `profile`, `file`, `api` or `window`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Source {
    pub source: String,
    pub by: Option<String>,
    pub until: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Window {
    pub name: String,
    pub open: bool,
    pub growing: bool,
    pub next: Option<String>,
    pub sets: BTreeMap<String, f64>,
    pub desired_nodes: Option<u32>,
    pub freeze: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    pub id: String,
    pub state: String,
    pub healthy: bool,
    pub cpu_usage: Option<f64>,
    pub memory_usage: Option<f64>,
    pub storage_usage: Option<f64>,
    pub search_latency: Option<f64>,
    pub query_throughput: Option<f64>,
    pub vectors: Option<f64>,
    pub shards: Option<u32>,
    pub bytes: Option<u64>,
    /// The operation that emptied it, for a person.
    pub drained_by: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    pub name: String,
    pub value: Option<f64>,
    pub line: f64,
    pub streak: u32,
    pub needed: u32,
    pub active: bool,
}

impl Condition {
    /// Whether the value is on the side of its line that the condition watches for.
    pub fn holds(&self) -> bool {
        match self.value {
            Some(value) if self.name.ends_with("_low") => value < self.line,
            Some(value) => value > self.line,
            None => false,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Guard {
    pub name: String,
    pub detail: String,
    pub until: Option<String>,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.detail)?;
        match &self.until {
            Some(until) => write!(f, " (until {})", text::instant(until)),
            None => Ok(()),
        }
    }
}

/// An entry of the configuration for alerts, with those that fire.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AlertEntry {
    pub name: String,
    pub firing: u32,
    pub episodes: Vec<Episode>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Episode {
    pub alertname: String,
    pub fingerprint: String,
    pub starts_at: String,
    pub standing: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Decision {
    pub id: u64,
    pub at: String,
    pub mode: String,
    pub decision: String,
    pub node: Option<String>,
    pub trigger: Option<String>,
    pub wanted: Option<String>,
    pub because: Vec<String>,
    pub conditions: Vec<Condition>,
    pub guards: Vec<Guard>,
    pub would_change: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Operation {
    pub id: String,
    pub kind: String,
    pub state: String,
    pub nodes: Vec<String>,
    pub started_at: String,
    pub ended_at: Option<String>,
    pub paused: bool,
    pub paused_by: Option<PausedBy>,
    pub cancel: Option<String>,
    pub who: String,
    pub because: Vec<String>,
    pub detail: String,
    pub shards_total: u32,
    pub shards_left: u32,
    pub shards_moving: u32,
    pub bytes_left: u64,
    pub step: Option<String>,
    pub step_number: Option<u32>,
    pub steps_total: Option<u32>,
    pub eta_seconds: Option<f64>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PausedBy {
    pub who: String,
    pub since: String,
    pub reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Step {
    pub step: String,
    pub node: Option<String>,
    pub collection: Option<String>,
    pub shard: Option<u32>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub state: String,
    pub attempts: u32,
    pub error: Option<String>,
    pub output: Option<serde_json::Value>,
}

impl Step {
    /// What the step proved.
    pub fn proof(&self) -> Option<Proof> {
        Proof::deserialize(self.output.as_ref().filter(|_| self.step == "prove")?).ok()
    }
}

/// That a node holds nothing, in two reads.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Proof {
    pub first_read_at: String,
    pub second_read_at: String,
    /// The members that agreed, itself among them.
    pub witnesses: Vec<String>,
    /// Complete on the other nodes.
    pub shards: u32,
    /// Collections that were deleted meanwhile.
    pub deleted: Vec<String>,
}

/// `202` to a manual operation; `200` without one, where a node that came or went by other hands is taken as it is.
#[derive(Debug, Deserialize)]
pub struct Begun {
    pub operation: Option<Operation>,
}

/// `200` to an order about an operation.
#[derive(Debug, Deserialize)]
pub struct Accepted {
    pub operation: Operation,
}

/// One page of the audit trail.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct History {
    pub items: Vec<HistoryItem>,
    pub next: Option<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct HistoryItem {
    pub id: u64,
    pub at: String,
    pub kind: String,
    pub who: String,
    pub summary: String,
}

/// What one kind of change would do now.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Plan {
    pub kind: String,
    pub node: Option<String>,
    pub shards: Option<u32>,
    pub bytes: Option<u64>,
    pub minutes: Option<f64>,
    pub least_bytes: Option<u64>,
    pub balance: Option<Balance>,
    pub nodes: Vec<Change>,
    pub moves: Vec<Move>,
    pub stairs: Stairs,
    pub guards: Vec<Guard>,
    pub candidates: Vec<Candidate>,
}

/// The busiest node's weight over the mean.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Balance {
    pub ratio_before: f64,
    pub ratio_after: f64,
    pub ratio_reachable: f64,
}

/// What a plan makes of one node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Change {
    pub node: String,
    pub shards_before: u32,
    pub shards_after: u32,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Move {
    pub collection: String,
    pub shard: u32,
    pub from: String,
    pub to: String,
    pub bytes: u64,
}

/// Whether one node more is of use, and if not, how many are.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Stairs {
    pub useful: Option<u32>,
    pub why: Option<String>,
}

/// A node that a scale-down could take.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Candidate {
    pub node: String,
    pub shards: u32,
    pub bytes: u64,
    pub minutes: Option<f64>,
    pub impossible: Option<String>,
}

/// problem+json.
#[derive(Debug, Deserialize)]
pub struct Refused {
    #[serde(default)]
    pub detail: String,
    #[serde(default)]
    pub guards: Vec<Guard>,
    #[serde(default)]
    pub operation: Option<String>,
}
