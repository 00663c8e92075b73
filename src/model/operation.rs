//! The work a decision starts: steps, their states and the legal moves between them. Pure.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Kind, Move, NodeId, OperationId, PoolName, Timestamp, Trigger};

/// One operation, as the journal keeps it. Its steps are in order; moves are added as they are planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    pub id: OperationId,
    pub pool: PoolName,
    pub kind: Kind,
    pub state: OperationState,
    pub trigger: Trigger,
    pub who: String,
    /// Why it was started, one sentence each.
    pub because: Vec<String>,
    pub decision: Option<u64>,
    /// The nodes it creates or adopts, or the one it removes.
    pub nodes: Vec<NodeId>,
    /// The dead node that a replacement stands in for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<NodeId>,
    pub started_at: Timestamp,
    pub updated_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// A person paused it.
    pub paused: bool,
    /// Who paused it; set for as long as it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<PausedBy>,
    /// Who asked it to stop at the next safe place, a person or a later decision, and why.
    pub cancel: Option<String>,
    /// How it stands or ended, in words.
    pub detail: String,
    pub shards_total: u32,
    pub shards_left: u32,
    pub bytes_total: u64,
    pub bytes_left: u64,
    pub last_progress_at: Timestamp,
    pub steps: Vec<Step>,
}

impl Operation {
    /// An operation that begins at `at`, still without steps, reasons and nodes.
    pub fn new(id: OperationId, pool: PoolName, kind: Kind, trigger: Trigger, who: &str, at: Timestamp) -> Operation {
        Operation {
            id,
            pool,
            kind,
            state: OperationState::Running,
            trigger,
            who: who.into(),
            because: Vec::new(),
            decision: None,
            nodes: Vec::new(),
            replaces: None,
            started_at: at,
            updated_at: at,
            ended_at: None,
            paused: false,
            paused_by: None,
            cancel: None,
            detail: String::new(),
            shards_total: 0,
            shards_left: 0,
            bytes_total: 0,
            bytes_left: 0,
            last_progress_at: at,
            steps: Vec::new(),
        }
    }

    /// From asking for the first node until all serve with their shards: only the quiet at the end is left then. `None`
    /// while that has not come, and for an operation that makes no node.
    pub fn lead_time(&self) -> Option<Duration> {
        let done = |s: &&Step| matches!(s.action, StepAction::Create { .. }) && s.state == StepState::Done;
        let asked = self.steps.iter().filter(done).filter_map(|s| s.started_at).min()?;
        let settling = self.steps.iter().find(|s| s.action == StepAction::Settle)?;
        Some(settling.started_at?.since(asked))
    }

    /// An up soon after a down, or a down soon after an up, where both have changed the cluster: growing and shrinking in
    /// turns. `before` is the last one that changed the number of nodes.
    pub fn reverses(&self, before: &Operation) -> bool {
        let soon = before.ended_at.is_some_and(|ended| self.started_at.since(ended) <= Self::REVERSAL_WITHIN);
        self.has_scaled() && before.has_scaled() && self.kind != before.kind && soon
    }

    /// An operation in the other direction within this time of the end of one is a reversal.
    const REVERSAL_WITHIN: Duration = Duration::from_secs(3600);

    /// It has added or removed a node, and that stays so.
    pub fn has_scaled(&self) -> bool {
        matches!(self.kind, Kind::ScaleUp | Kind::ScaleDown)
            && matches!(self.state, OperationState::Succeeded | OperationState::Partial)
    }

    /// The step that is under way, else the one that comes next, else the last, with its place counted from 1; `None`
    /// without steps.
    pub fn current_step(&self) -> Option<(usize, &Step)> {
        let is_under_way = |s: &Step| matches!(s.state, StepState::Intent | StepState::Unknown);
        let under_way = self.steps.iter().position(is_under_way);
        let at = under_way.or_else(|| self.steps.iter().position(|s| s.state == StepState::Waiting));
        let at = at.or(self.steps.len().checked_sub(1))?;
        Some((at + 1, &self.steps[at]))
    }

    /// Copies of shards on their way now.
    pub fn shards_moving(&self) -> usize {
        self.steps.iter().filter(|step| step.action.copy().is_some() && step.state.is_in_doubt()).count()
    }

    /// How long the moving of the bytes left takes, in seconds: at the speed of this operation so far, else at `usual`
    /// bytes per second; `None` while neither is known.
    pub fn eta_seconds(&self, now: Timestamp, usual: Option<f64>) -> Option<f64> {
        let moves = self.steps.iter().filter(|s| s.action.copy().is_some());
        let began = moves.filter_map(|s| s.started_at).min();
        let done = self.bytes_total.saturating_sub(self.bytes_left) as f64;
        let own = began.map(|began| done / now.since(began).as_secs_f64());
        let speed = own.filter(|speed| speed.is_finite() && *speed > 0.0).or(usual.filter(|speed| *speed > 0.0))?;
        Some(self.bytes_left as f64 / speed)
    }

    /// When the step that is under way must be done, or, while data is moved, must have come on; `None` between steps.
    pub fn deadline(&self) -> Option<Timestamp> {
        use StepAction::{Drain, Move, Rebalance, Replicate, Restore};
        let (_, step) = self.current_step().filter(|(_, step)| step.ended_at.is_none())?;
        let began = step.started_at?;
        let since = match step.action {
            Rebalance | Drain { .. } | Restore { .. } | Move(_) | Replicate(_) => began.max(self.last_progress_at),
            _ => began,
        };
        Some(since.plus(step.deadline))
    }
}

/// A pause, as it is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PausedBy {
    pub who: String,
    pub since: Timestamp,
    pub reason: Option<String>,
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    Running,
    /// Being taken back: a step failed before the point of no return, or it was cancelled.
    Undoing,
    /// A step's outcome stays unknown: a person must say.
    Blocked,
    /// Ended, everything done.
    Succeeded,
    /// Ended with what could be kept (a scale-up cancelled after its first shard).
    Partial,
    /// Ended and taken back; nothing is left of it.
    Failed,
    /// Ended because a person or a stronger decision wanted so, and taken back.
    Cancelled,
}

impl OperationState {
    /// Ended: nothing of it will happen any more.
    pub fn is_final(self) -> bool {
        !matches!(self, OperationState::Running | OperationState::Undoing | OperationState::Blocked)
    }

    pub const OUTCOMES: [OperationState; 4] =
        [OperationState::Succeeded, OperationState::Partial, OperationState::Failed, OperationState::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            OperationState::Running => "running",
            OperationState::Undoing => "undoing",
            OperationState::Blocked => "blocked",
            OperationState::Succeeded => "succeeded",
            OperationState::Partial => "partial",
            OperationState::Failed => "failed",
            OperationState::Cancelled => "cancelled",
        }
    }
}

/// One step. Its key is the same on every attempt and over restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub seq: u32,
    #[serde(flatten)]
    pub action: StepAction,
    /// Idempotency key: `<operation>/<seq>`.
    pub key: String,
    pub state: StepState,
    pub attempts: u32,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    #[serde(with = "super::time::seconds")]
    pub deadline: Duration,
    /// What the step found or made: the machine, the proof …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// A move asked its source to drop the copy there, and got no answer: that may yet be carried out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late_drop: bool,
}

/// What a step does. Each says what it makes true, so doing it twice is doing it once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum StepAction {
    /// The decision still stands: read anew, refuse what is no longer safe.
    Validate,
    /// The provider runs a node of this name.
    Create { node: NodeId },
    /// The node is a member, and three probes in a row found it healthy.
    Join { node: NodeId },
    /// The shards are spread over the nodes; moves are steps of their own.
    Rebalance,
    /// Nothing new is placed on the node.
    Cordon { node: NodeId },
    /// No client is sent to the node any more, as the user's hook has it.
    OutOfService { node: NodeId },
    /// Clients are sent to the node, as the user's hook has it; in a scale-down the undo of `OutOfService`.
    InService { node: NodeId },
    /// Every shard of the node is elsewhere; moves are steps of their own.
    Drain { node: NodeId },
    /// One shard relocated.
    Move(Move),
    /// Every shard of the dead node has its copies on living ones; copies are steps of their own.
    Restore { node: NodeId },
    /// One lost copy of a shard made anew from a living one, which keeps its own.
    Replicate(Move),
    /// Two reads apart say that the node holds nothing; the proof is the output.
    Prove { node: NodeId },
    /// No longer a member. The point of no return of a scale-down.
    Leave { node: NodeId },
    /// The dead node is no longer a member; the output proves that every shard lives on elsewhere. The point of no return
    /// of a replacement.
    Forget { node: NodeId },
    /// The provider no longer runs it.
    Destroy { node: NodeId },
    /// Undo of a cordon.
    Uncordon { node: NodeId },
    /// Undo of a join: the node, which never held a shard, is no longer a member.
    Unjoin { node: NodeId },
    /// One check of quiet.
    Settle,
}

impl StepAction {
    pub const NAMES: [&'static str; 18] = [
        "validate",
        "create",
        "join",
        "rebalance",
        "cordon",
        "out_of_service",
        "in_service",
        "drain",
        "move",
        "restore",
        "replicate",
        "prove",
        "leave",
        "forget",
        "destroy",
        "uncordon",
        "unjoin",
        "settle",
    ];

    /// The copy of a shard that the step makes, of a relocation or a replication.
    pub fn copy(&self) -> Option<&Move> {
        match self {
            StepAction::Move(copy) | StepAction::Replicate(copy) => Some(copy),
            _ => None,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            StepAction::Validate => "validate",
            StepAction::Create { .. } => "create",
            StepAction::Join { .. } => "join",
            StepAction::Rebalance => "rebalance",
            StepAction::Cordon { .. } => "cordon",
            StepAction::OutOfService { .. } => "out_of_service",
            StepAction::InService { .. } => "in_service",
            StepAction::Drain { .. } => "drain",
            StepAction::Move(_) => "move",
            StepAction::Restore { .. } => "restore",
            StepAction::Replicate(_) => "replicate",
            StepAction::Prove { .. } => "prove",
            StepAction::Leave { .. } => "leave",
            StepAction::Forget { .. } => "forget",
            StepAction::Destroy { .. } => "destroy",
            StepAction::Uncordon { .. } => "uncordon",
            StepAction::Unjoin { .. } => "unjoin",
            StepAction::Settle => "settle",
        }
    }
}

/// "create n4", "move docs/0 from n1 to n4", "settle".
impl fmt::Display for StepAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            StepAction::Create { node }
            | StepAction::Join { node }
            | StepAction::Cordon { node }
            | StepAction::OutOfService { node }
            | StepAction::InService { node }
            | StepAction::Drain { node }
            | StepAction::Restore { node }
            | StepAction::Prove { node }
            | StepAction::Leave { node }
            | StepAction::Forget { node }
            | StepAction::Destroy { node }
            | StepAction::Uncordon { node }
            | StepAction::Unjoin { node } => write!(f, "{name} {node}"),
            StepAction::Move(m) | StepAction::Replicate(m) => {
                write!(f, "{name} {} from {} to {}", m.shard, m.from, m.to)
            }
            StepAction::Validate | StepAction::Rebalance | StepAction::Settle => f.write_str(name),
        }
    }
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    Waiting,
    /// Written down; its effect may or may not have happened.
    Intent,
    Done,
    /// Known to have had no effect.
    Failed,
    /// Nobody knows; probed, never repeated blindly.
    Unknown,
    /// Not needed any more.
    Skipped,
}

/// What happens to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepEvent {
    Begun,
    Succeeded,
    Failed,
    Lost,
    Dropped,
    /// A person says that it had no effect.
    Absent,
    /// A person takes back the word that it happened.
    Withdrawn,
}

impl StepState {
    /// Not ended: it is to be begun, or its outcome is not known yet.
    pub fn is_open(self) -> bool {
        matches!(self, StepState::Waiting) || self.is_in_doubt()
    }

    /// Begun, and nobody has said yet how it came out.
    pub fn is_in_doubt(self) -> bool {
        matches!(self, StepState::Intent | StepState::Unknown)
    }

    /// The legal moves of a step; what is not listed cannot happen.
    pub fn after(self, event: StepEvent) -> Option<StepState> {
        use StepEvent::*;
        use StepState::*;
        match (self, event) {
            (Waiting, Begun) => Some(Intent),
            (Waiting, Dropped) => Some(Skipped),
            // A repeat after a probe found it absent, or a resume after a crash: same key, one more attempt.
            (Intent | StepState::Unknown, Begun) => Some(Intent),
            (Intent | StepState::Unknown, Succeeded) => Some(Done),
            (Intent | StepState::Unknown, StepEvent::Failed) => Some(StepState::Failed),
            (Intent, Lost) => Some(StepState::Unknown),
            // A wait that is given up in favour of the undo.
            (Intent, Dropped) => Some(Skipped),
            (Intent | StepState::Unknown, Absent) => Some(Waiting),
            (Done, Withdrawn) => Some(Waiting),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_from_the_own_speed_or_the_usual_one() {
        let at = |secs: i64| Timestamp::from_millis(secs * 1000);
        let id = OperationId("o".into());
        let mut operation = Operation::new(id, "p".into(), Kind::Rebalance, Trigger::Manual, "cli", at(0));
        assert_eq!((operation.eta_seconds(at(10), None), operation.eta_seconds(at(10), Some(5.0))), (None, Some(0.0)));
        (operation.bytes_total, operation.bytes_left) = (1000, 1000);
        let node = |name: &str| NodeId::new(name).expect("a name");
        let copy = |shard| Move {
            shard: crate::model::ShardId { collection: "docs".into(), shard },
            from: node("a"),
            to: node("b"),
            bytes: 500,
            vectors: 5,
        };
        for n in 0..2 {
            operation.steps.push(Step {
                seq: n,
                action: StepAction::Move(copy(n)),
                key: format!("o/{n}"),
                state: StepState::Intent,
                attempts: 1,
                started_at: Some(at(10 + i64::from(n))),
                ended_at: None,
                deadline: Duration::from_secs(900),
                output: None,
                error: None,
                late_drop: false,
            });
        }
        assert_eq!(operation.shards_moving(), 2);
        assert_eq!(operation.deadline(), Some(at(910)));
        operation.last_progress_at = at(300);
        assert_eq!(operation.deadline(), Some(at(1200)), "data comes on");
        // Seconds now, bytes left, the usual speed; the time left.
        let cases = [
            (20, 1000, None, None),
            (20, 1000, Some(0.0), None),
            (20, 1000, Some(100.0), Some(10.0)),
            (20, 800, Some(100.0), Some(40.0)),
            (10, 800, Some(100.0), Some(8.0)),
            (30, 0, None, Some(0.0)),
        ];
        for (now, left, usual, expected) in cases {
            operation.bytes_left = left;
            assert_eq!(operation.eta_seconds(at(now), usual), expected, "{now} s, {left} left, {usual:?}");
        }
        operation.steps[0].state = StepState::Done;
        assert_eq!(operation.shards_moving(), 1);
    }

    #[test]
    fn what_takes_what_back() {
        use Kind::{Rebalance, ScaleDown, ScaleUp};
        use OperationState::{Blocked, Cancelled, Failed, Partial, Running, Succeeded};
        let at = |secs: i64| Timestamp::from_millis(secs * 1000);
        let operation = |kind: Kind, state: OperationState, from: i64| Operation {
            state,
            ended_at: state.is_final().then(|| at(from + 100)),
            ..Operation::new(OperationId("o".into()), "p".into(), kind, Trigger::Threshold, "vecscale", at(from))
        };
        let cases = [
            ("a down soon after an up", (ScaleUp, Succeeded), (ScaleDown, Succeeded), 200, true),
            ("an up soon after a down", (ScaleDown, Succeeded), (ScaleUp, Partial), 200, true),
            ("at the hour", (ScaleUp, Succeeded), (ScaleDown, Succeeded), 3700, true),
            ("after it", (ScaleUp, Succeeded), (ScaleDown, Succeeded), 3701, false),
            ("the same way", (ScaleUp, Succeeded), (ScaleUp, Succeeded), 200, false),
            ("the first changed nothing", (ScaleUp, Failed), (ScaleDown, Succeeded), 200, false),
            ("the second changed nothing", (ScaleUp, Succeeded), (ScaleDown, Cancelled), 200, false),
            ("the second is not done", (ScaleUp, Succeeded), (ScaleDown, Running), 200, false),
            ("the second is blocked", (ScaleUp, Succeeded), (ScaleDown, Blocked), 200, false),
            ("no node came or went", (ScaleUp, Succeeded), (Rebalance, Succeeded), 200, false),
        ];
        for (what, before, now, from, expected) in cases {
            let (before, now) = (operation(before.0, before.1, 0), operation(now.0, now.1, from));
            assert_eq!(now.reverses(&before), expected, "{what}");
        }
    }
}
