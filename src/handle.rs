//! How the outside (HTTP, signals) talks to a pool's controller: a picture to read, commands to send.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use crate::alerts::Desk;
use crate::model::{GuardHit, Mode, NodeId, Observation, Operation, OperationId, Order, PoolName, PoolView, Request};

/// One pool, seen from outside. Cheap to clone; reading never waits for the controller.
#[derive(Clone)]
pub struct PoolHandle {
    pub pool: PoolName,
    pub view: Arc<ArcSwap<PoolView>>,
    /// The last 100 observations, oldest first.
    pub recent: Arc<ArcSwap<VecDeque<Arc<Observation>>>>,
    pub commands: mpsc::Sender<Asked>,
    /// Where notifications about the pool's alerts go.
    pub alerts: Arc<Desk>,
}

/// A command and where its answer goes.
pub struct Asked {
    pub command: Command,
    pub answer: oneshot::Sender<Result<Reply, Refusal>>,
}

/// What a person asks of a pool. `who` names the asker in the audit trail.
#[derive(Clone, Debug)]
pub enum Command {
    SetMode {
        mode: Mode,
        who: String,
    },
    /// Merged over the present thresholds, checked whole, kept over restarts. Seconds and counts are numbers too.
    SetThresholds {
        changes: BTreeMap<String, f64>,
        ttl: Option<Duration>,
        reason: Option<String>,
        who: String,
    },
    /// One override, or all.
    DropThresholds {
        name: Option<String>,
        who: String,
    },
    Operate(Request),
    /// About the operation that is open.
    Order {
        operation: OperationId,
        order: Order,
    },
    /// Mode `stopped`, and the open operation paused.
    Halt {
        who: String,
    },
    ResetBreaker {
        reason: Option<String>,
        who: String,
    },
    /// `None` ends the maintenance.
    Maintain {
        node: NodeId,
        lasting: Option<Duration>,
        who: String,
    },
    /// Takes the drain of a node back.
    OpenAgain {
        node: NodeId,
        who: String,
    },
}

/// A command that was carried out; the picture shows its effect already.
#[derive(Clone, Debug)]
pub enum Reply {
    Done,
    /// The operation that was started, the one that the same idempotency key started before, or the one that an order
    /// was about.
    Operation(Box<Operation>),
}

/// A command that changed nothing, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    pub kind: RefusalKind,
    pub detail: String,
    pub guards: Vec<GuardHit>,
    pub operation: Option<OperationId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// A guard or an open operation forbids it now (409).
    Conflict,
    /// No such node, override … (404).
    NotFound,
    /// Understood and not acceptable (422).
    Unacceptable,
    /// The journal cannot be written, or the controller is stopping: a retry makes sense (503).
    Unavailable,
}

impl PoolHandle {
    /// Sends a command and waits for the controller's answer.
    ///
    /// # Errors
    /// The controller's refusal; `Unavailable` when it is stopping.
    pub async fn ask(&self, command: Command) -> Result<Reply, Refusal> {
        let (answer, answered) = oneshot::channel();
        let gone = || Refusal {
            kind: RefusalKind::Unavailable,
            detail: "the controller is stopping".into(),
            guards: Vec::new(),
            operation: None,
        };
        self.commands.send(Asked { command, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
