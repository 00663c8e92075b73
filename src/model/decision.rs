//! What was decided and why: the values from which log line, API answer, audit row and labels are printed. Pure data.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Move, NodeId, Timestamp};

/// What vecscale may do in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Decides and records, acts only when a person asks.
    Observe,
    Active,
    /// Scrapes and shows; starts nothing by itself.
    Stopped,
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Observe, Mode::Active, Mode::Stopped];

    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Observe => "observe",
            Mode::Active => "active",
            Mode::Stopped => "stopped",
        }
    }
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    ScaleUp,
    ScaleDown,
    Replace,
    Rebalance,
    /// What others made becomes a member, if it is none yet, and gets its share of the shards.
    Adopt,
    /// A node is emptied and proven to be; it stays a member, cordoned. On a person's word only.
    Drain,
    /// A lost or unexplained machine is destroyed, a ghost is forgotten; on a person's word only.
    Reap,
}

impl Kind {
    pub const ALL: [Kind; 7] =
        [Kind::ScaleUp, Kind::ScaleDown, Kind::Replace, Kind::Rebalance, Kind::Adopt, Kind::Drain, Kind::Reap];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::ScaleUp => "scale_up",
            Kind::ScaleDown => "scale_down",
            Kind::Replace => "replace",
            Kind::Rebalance => "rebalance",
            Kind::Adopt => "adopt",
            Kind::Drain => "drain",
            Kind::Reap => "reap",
        }
    }
}

/// What wants a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A signal over or under its line long enough.
    Threshold,
    /// A node unhealthy for too long.
    Availability,
    /// Too many vectors per node, or storage about to be full.
    Capacity,
    /// Fewer placeable nodes than `min_nodes`.
    Bounds,
    /// One node far busier, fuller or larger than the others, or nearly full.
    Hotspot,
    /// An alert of Alertmanager's that fires.
    Alert,
    /// A scheduled window's floor, or its `desired_nodes`.
    Schedule,
    /// A node that others have added, where nodes come and go by other hands.
    Arrival,
    /// A person.
    Manual,
}

impl Trigger {
    pub const ALL: [Trigger; 9] = [
        Trigger::Threshold,
        Trigger::Availability,
        Trigger::Capacity,
        Trigger::Bounds,
        Trigger::Hotspot,
        Trigger::Alert,
        Trigger::Schedule,
        Trigger::Arrival,
        Trigger::Manual,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Trigger::Threshold => "threshold",
            Trigger::Availability => "availability",
            Trigger::Capacity => "capacity",
            Trigger::Bounds => "bounds",
            Trigger::Hotspot => "hotspot",
            Trigger::Alert => "alert",
            Trigger::Schedule => "schedule",
            Trigger::Arrival => "arrival",
            Trigger::Manual => "manual",
        }
    }
}

/// What forbids a change. The names are labels and API values; `decide::guards::TABLE` says whom each binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    Stopped,
    Observe,
    DirectionDisabled,
    ManualHold,
    AlertHold,
    Cooldown,
    Budget,
    TrafficLost,
    WindowFreeze,
    Settling,
    BreakerOpen,
    BackingOff,
    PartitionSuspected,
    MissingData,
    UnhealthyNodes,
    MinNodes,
    MaxNodes,
    OperationRunning,
    Quorum,
    Placement,
    Projection,
    DataMoving,
    ForeignOperation,
    MixedVersions,
    VictimFixed,
    NoProvider,
}

impl Guard {
    pub const ALL: [Guard; 26] = [
        Guard::Stopped,
        Guard::Observe,
        Guard::DirectionDisabled,
        Guard::ManualHold,
        Guard::AlertHold,
        Guard::Cooldown,
        Guard::Budget,
        Guard::TrafficLost,
        Guard::WindowFreeze,
        Guard::Settling,
        Guard::BreakerOpen,
        Guard::BackingOff,
        Guard::PartitionSuspected,
        Guard::MissingData,
        Guard::UnhealthyNodes,
        Guard::MinNodes,
        Guard::MaxNodes,
        Guard::OperationRunning,
        Guard::Quorum,
        Guard::Placement,
        Guard::Projection,
        Guard::DataMoving,
        Guard::ForeignOperation,
        Guard::MixedVersions,
        Guard::VictimFixed,
        Guard::NoProvider,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Guard::Stopped => "stopped",
            Guard::Observe => "observe",
            Guard::DirectionDisabled => "direction_disabled",
            Guard::ManualHold => "manual_hold",
            Guard::AlertHold => "alert_hold",
            Guard::Cooldown => "cooldown",
            Guard::Budget => "budget",
            Guard::TrafficLost => "traffic_lost",
            Guard::WindowFreeze => "window_freeze",
            Guard::Settling => "settling",
            Guard::BreakerOpen => "breaker_open",
            Guard::BackingOff => "backing_off",
            Guard::PartitionSuspected => "partition_suspected",
            Guard::MissingData => "missing_data",
            Guard::UnhealthyNodes => "unhealthy_nodes",
            Guard::MinNodes => "min_nodes",
            Guard::MaxNodes => "max_nodes",
            Guard::OperationRunning => "operation_running",
            Guard::Quorum => "quorum",
            Guard::Placement => "placement",
            Guard::Projection => "projection",
            Guard::DataMoving => "data_moving",
            Guard::ForeignOperation => "foreign_operation",
            Guard::MixedVersions => "mixed_versions",
            Guard::VictimFixed => "victim_fixed",
            Guard::NoProvider => "no_provider",
        }
    }
}

/// A guard that holds just now, with the words for a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardHit {
    pub name: Guard,
    /// "212 s left", "n3 is unhealthy since 03:12" …
    pub detail: String,
    /// When it lets go by itself, if that is known.
    pub until: Option<Timestamp>,
}

/// A rule on a reading, with its streak.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// `cpu_high`, `latency_low`, `capacity`, `queue_depth_high`, `cpu_hot`, `bytes_uneven` …
    pub name: String,
    /// `None` when the reading is missing or idle, or partial and not above the line with its silent nodes as 0.
    pub value: Option<f64>,
    /// In the unit of the threshold (latency: milliseconds).
    pub line: f64,
    pub streak: u32,
    pub needed: u32,
    /// The streak has reached what is needed, and this very check agrees: a missing reading starts nothing.
    pub active: bool,
}

impl Condition {
    /// Whether it looks at single nodes (`cpu_hot`, `load_uneven`, `storage_full` …), not at the pool.
    pub fn is_of_one_node(&self) -> bool {
        ["_hot", "_uneven", "_full"].iter().any(|ending| self.name.ends_with(ending))
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Action {
    Hold,
    /// `target` is the node count aimed at, `nodes` how many are created for it.
    ScaleUp {
        nodes: u32,
        target: u32,
    },
    ScaleDown {
        node: NodeId,
        target: u32,
    },
    Replace {
        node: NodeId,
    },
    Rebalance {},
    Adopt {
        node: NodeId,
        /// It is a member already, and only to be filled: taking it out again is not ours to do.
        #[serde(default)]
        joined: bool,
    },
    Drain {
        node: NodeId,
    },
    Reap {
        node: NodeId,
    },
}

impl Action {
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Action::Hold => None,
            Action::ScaleUp { .. } => Some(Kind::ScaleUp),
            Action::ScaleDown { .. } => Some(Kind::ScaleDown),
            Action::Replace { .. } => Some(Kind::Replace),
            Action::Rebalance {} => Some(Kind::Rebalance),
            Action::Adopt { .. } => Some(Kind::Adopt),
            Action::Drain { .. } => Some(Kind::Drain),
            Action::Reap { .. } => Some(Kind::Reap),
        }
    }

    /// `hold`, `scale_up` …: the label and API value.
    pub fn name(&self) -> &'static str {
        self.kind().map_or("hold", Kind::as_str)
    }
}

/// One decision with everything that led to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Counts up per pool over all restarts.
    pub id: u64,
    pub at: Timestamp,
    pub mode: Mode,
    #[serde(flatten)]
    pub action: Action,
    /// What wanted the change: set when acting, and on a hold that guards turned from a wish.
    pub trigger: Option<Trigger>,
    /// What would have been done had no guard held; the action's own kind when it acts.
    pub wanted: Option<Kind>,
    /// One sentence a reason, in words: "cpu_high 0.81 > 0.75, 2 of 2 checks".
    pub because: Vec<String>,
    pub conditions: Vec<Condition>,
    /// All guards that hold against what was wanted, not the first.
    pub guards: Vec<GuardHit>,
    /// What would have to change for another decision.
    pub would_change: String,
}

impl Decision {
    /// The check at which what led to this decision first showed: its own instant, less the further checks that its
    /// longest-needed active condition took, `interval` apart. Conditions on single nodes lead to hotspots alone.
    pub fn triggered_at(&self, interval: Duration) -> Timestamp {
        let of_one_node = self.trigger == Some(Trigger::Hotspot);
        let led = |c: &&Condition| c.active && c.is_of_one_node() == of_one_node;
        let checks = self.conditions.iter().filter(led).map(|c| c.needed).max().unwrap_or(1);
        self.at.minus(interval.saturating_mul(checks.saturating_sub(1)))
    }
}

/// What a person asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub kind: Kind,
    /// How many nodes to add; 1 for everything but a scale-up.
    pub nodes: u32,
    /// The victim that a person names, or what is to be adopted, drained or reaped.
    pub node: Option<NodeId>,
    pub reason: Option<String>,
    /// Who asks: `api 127.0.0.1`, `cli` …
    pub who: String,
    /// `Idempotency-Key` of the request.
    pub key: Option<String>,
}

/// What the planner says a change would do now; computed before deciding and shown by `plan`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outlook {
    /// One node more.
    pub scale_up: Forecast,
    /// How many nodes more the shards can make use of at least: see [`Stairs`].
    pub stairs: Stairs,
    /// Per possible victim, best first: fewest bytes to move, then least load.
    pub scale_down: Vec<Drain>,
    pub rebalance: Forecast,
}

/// What one change would move.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    pub shards: u32,
    pub bytes: u64,
    /// From the measured speed of past moves; `None` before there was one.
    pub seconds: Option<f64>,
    /// The least bytes that any plan with this end could move.
    pub least_bytes: u64,
    /// `None` where there is nothing to spread.
    pub balance: Option<Balance>,
    /// The nodes whose shards the plan changes, ordered by id.
    pub nodes: Arc<[Change]>,
    /// In the order in which they would be made.
    pub moves: Arc<[Move]>,
}

/// How evenly a plan leaves the nodes: the busiest one's weight, in the measure of the pool's placement strategy, and
/// that weight over the mean (1 is even).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    pub busiest_before: f64,
    pub busiest_after: f64,
    pub ratio_before: f64,
    pub ratio_after: f64,
    /// A lower bound of what any placement of these shards could reach.
    pub ratio_reachable: f64,
}

/// What a plan makes of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub node: NodeId,
    pub shards_before: u32,
    pub shards_after: u32,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// Equal shards make stairs: 12 copies on 6 nodes leave the busiest node with 2, on 7 nodes too. Growing by fewer nodes
/// than a step is wide helps no one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stairs {
    /// The fewest nodes more that lower the busiest node's weight by at least a tenth, or by four fifths of what evenly
    /// spread shards would (in a large cluster no node lowers it by a tenth); `None` when no number does, or when nodes
    /// hold no data, nothing is known, or there is nothing to spread yet (then any number is welcome).
    pub useful: Option<u32>,
    /// Why not one node, in words: "12 shard copies on 6 nodes: with 7 the busiest node still holds 2"; `None` when one
    /// node more is useful, or any number is welcome.
    pub why: Option<String>,
}

/// What draining one node would mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    pub node: NodeId,
    #[serde(flatten)]
    pub forecast: Forecast,
    /// Why not every shard has a legal place elsewhere; `None` if it has.
    pub impossible: Option<String>,
}

/// How long until something may start again; shown as `cooldowns`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cooldowns {
    /// Seconds left for each direction; 0 when free. A rebalance by itself waits as long as a scale-down.
    #[serde(with = "super::time::seconds")]
    pub scale_up: Duration,
    #[serde(with = "super::time::seconds")]
    pub scale_down: Duration,
}
