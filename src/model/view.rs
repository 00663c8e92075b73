//! What the controller shows of a pool: one immutable picture per turn, read by the API and `/metrics`. Pure data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    AlertStanding, Condition, Cooldowns, Decision, GuardHit, Kind, Mode, NodeId, Observation, Operation, OperationId,
    Outlook, PoolName, ScalingThresholds, Timestamp, WindowView,
};

/// A pool as it stands after the last turn.
#[derive(Clone, Debug)]
pub struct PoolView {
    pub pool: PoolName,
    pub at: Timestamp,
    pub mode: Mode,
    /// A `STOP` file lies in the storage path.
    pub stop_file: bool,
    /// `None` before the first check.
    pub seen: Option<Observation>,
    pub thresholds: ScalingThresholds,
    /// The same without the windows that lie over them just now.
    pub usual_thresholds: ScalingThresholds,
    /// Where each threshold that is not the profile's comes from, by its name.
    pub sources: BTreeMap<String, ThresholdSource>,
    /// Thresholds that a person overrides, whether or not a window lies over them just now.
    pub overridden: BTreeSet<String>,
    /// Scheduled windows, in the order of the configuration.
    pub windows: Vec<WindowView>,
    pub conditions: Vec<Condition>,
    /// The last decision; `None` before the first check.
    pub decision: Option<Decision>,
    /// The guards that hold now, each with what it binds.
    pub guards: Vec<GuardHit>,
    /// The same for each kind of change that a plan can be asked for.
    pub guards_against: BTreeMap<Kind, Vec<GuardHit>>,
    /// The node that a scale-down would remove now; `None` where none can go.
    pub victim: Option<NodeId>,
    pub operation: Option<Operation>,
    /// The last operation that ended.
    pub last_operation: Option<Operation>,
    pub cooldowns: Cooldowns,
    pub outlook: Outlook,
    /// Speed of past moves; `None` before there was one.
    pub bytes_per_second: Option<f64>,
    /// The node count aimed at.
    pub desired_nodes: u32,
    /// Nodes that a person should add (provider `none`).
    pub nodes_wanted: u32,
    pub store: StoreHealth,
    /// What a person must look at, one sentence each; empty when nothing.
    pub needs_human: Vec<String>,
    /// One sentence.
    pub headline: String,
    /// Machines and members that nothing explains, by kind.
    pub unexplained: Vec<Unexplained>,
    pub maintenance: BTreeMap<NodeId, Timestamp>,
    /// Nodes that a person had emptied, with the operation that did it: they stay cordoned until that is taken back.
    pub drained: BTreeMap<NodeId, OperationId>,
    /// The configured entries for alerts, with what fires.
    pub alerts: Vec<AlertStanding>,
}

/// Where a threshold comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThresholdSource {
    pub source: Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Who set a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Profile,
    File,
    Api,
    Window,
}

/// The datastore's shards in three numbers; `None` where there is no datastore or it did not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreHealth {
    pub replicas_missing: Option<u64>,
    pub shards_sole_copy: Option<u64>,
    pub moves_running: u64,
}

/// Something in the world that the journal does not explain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unexplained {
    pub kind: UnexplainedKind,
    pub node: NodeId,
    pub detail: String,
}

/// The kinds of unexplained things; a closed label set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnexplainedKind {
    /// The provider runs it, the datastore does not know it, no operation explains it.
    OrphanInstance,
    /// The datastore lists it, the provider does not know it.
    GhostMember,
    /// Cordoned without an operation.
    LeftOverCordon,
    /// A node came, went or was exchanged by other hands.
    ForeignChange,
}

impl UnexplainedKind {
    pub const ALL: [UnexplainedKind; 4] = [
        UnexplainedKind::OrphanInstance,
        UnexplainedKind::GhostMember,
        UnexplainedKind::LeftOverCordon,
        UnexplainedKind::ForeignChange,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            UnexplainedKind::OrphanInstance => "orphan_instance",
            UnexplainedKind::GhostMember => "ghost_member",
            UnexplainedKind::LeftOverCordon => "left_over_cordon",
            UnexplainedKind::ForeignChange => "foreign_change",
        }
    }
}

/// A change of one or more thresholds by a person, kept over restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Override {
    pub name: String,
    pub value: f64,
    pub by: String,
    pub since: Timestamp,
    pub until: Option<Timestamp>,
    pub reason: Option<String>,
}

/// What was measured of past work, for predictions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Experience {
    /// Creation to serving, of past scale-ups, oldest first.
    pub lead_times: Vec<Duration>,
    /// Bytes per second of past moves; `None` before there was one.
    pub bytes_per_second: Option<f64>,
}
