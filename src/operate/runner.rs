//! Carries one operation per pool out: each step is written down, then done, then written down as done; whatever is in
//! doubt is looked at before it is repeated. Talks to the world through the drivers, to the journal, and to no one else.
//!
//! | step fails | then |
//! |---|---|
//! | before the point of no return | what was begun is undone: `failed`, or `cancelled` |
//! | after the first shard on a new node | the node stays: `partial` |
//! | after the node has left the cluster | forward only: repeated, then `blocked` |
//! | outcome stays unknown | `blocked`: a person looks; the next start looks again |

mod effects;
mod ledger;
mod moves;
mod work;

#[cfg(test)]
mod stories;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use self::ledger::operation_entry;
use self::work::Run;
use super::drivers::{Datastore, Provider};
use super::plan::Deadlines;
use crate::clock::Clock;
use crate::model::{Operation, OperationId, Step};
use crate::record::{Journal, JournalError};

/// What an operation works with.
#[derive(Clone)]
pub struct Hands {
    pub provider: Arc<dyn Provider>,
    pub datastore: Arc<dyn Datastore>,
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<dyn Clock>,
}

/// How often it looks, and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub probe: Duration,
    pub deadlines: Deadlines,
}

impl Pace {
    /// `check` is the time between two checks, `create` the provider's timeout.
    pub fn of(check: Duration, create: Duration) -> Pace {
        Pace { probe: check.min(Duration::from_secs(2)), deadlines: Deadlines::of(create, check) }
    }
}

/// Asked at the start and again before the step that cannot be taken back.
#[async_trait]
pub trait Standing: Send + Sync {
    /// Whether the operation may still go on.
    ///
    /// # Errors
    /// Why not, in words; the operation is then taken back.
    async fn still_stands(&self, operation: &Operation) -> Result<(), String>;

    /// Whether everything is forbidden just now, going on and taking back included. The operation then waits as it is.
    fn forbidden(&self) -> bool;
}

/// What the runner tells the controller. Each carries the operation as it then is in the journal.
#[derive(Clone, Debug)]
pub enum Report {
    /// A step changed its state.
    Step {
        operation: Box<Operation>,
        step: Box<Step>,
    },
    /// Shards or bytes left have changed.
    Progress {
        operation: Box<Operation>,
    },
    /// A person must look; nothing happens until the next start.
    Blocked {
        operation: Box<Operation>,
    },
    Ended {
        operation: Box<Operation>,
    },
    /// The journal does not take writes: the operation waits. Tried again at every probe.
    JournalTrouble {
        error: JournalError,
    },
}

/// Runs the operation of one pool.
pub struct Operator {
    hands: Hands,
    pace: Pace,
    standing: Arc<dyn Standing>,
    reports: mpsc::UnboundedSender<Report>,
    running: Option<Running>,
}

struct Running {
    id: OperationId,
    orders: watch::Sender<Orders>,
    task: AbortOnDropHandle<()>,
}

/// What is asked of the running operation.
#[derive(Clone, Debug, Default)]
struct Orders {
    stop: bool,
    cancel: Option<String>,
    paused: bool,
}

impl Operator {
    pub fn new(
        hands: Hands,
        pace: Pace,
        standing: Arc<dyn Standing>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Operator {
        Operator { hands, pace, standing, reports, running: None }
    }

    /// The pace of the operations that begin from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Writes the operation down and starts it. `key` is the request's idempotency key.
    ///
    /// # Errors
    /// The journal's: above all that the pool has an open operation already. Nothing was started then.
    pub async fn begin(&mut self, operation: Operation, key: Option<&str>) -> Result<(), JournalError> {
        let entry = operation_entry(&operation, "began", &operation.because.join("; "));
        self.hands.journal.open(&operation, key, entry).await?;
        self.resume(operation);
        Ok(())
    }

    /// Goes on with an operation that the journal has as open. One that was blocked is looked at again.
    pub fn resume(&mut self, operation: Operation) {
        let known = Orders { stop: false, cancel: operation.cancel.clone(), paused: operation.paused };
        let (orders, heard) = watch::channel(known);
        let id = operation.id.clone();
        let run = Run {
            hands: self.hands.clone(),
            pace: self.pace,
            standing: self.standing.clone(),
            reports: self.reports.clone(),
            orders: heard,
            operation,
            proof: None,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(run.drive()));
        self.running = Some(Running { id, orders, task });
    }

    /// The operation that is being worked on.
    pub fn running(&self) -> Option<&OperationId> {
        self.running.as_ref().filter(|running| !running.task.is_finished()).map(|running| &running.id)
    }

    /// Asks the operation to end at the next safe place. `false` when none runs. A scale-down that is leaving the
    /// cluster, and anything that only settles, is finished instead.
    pub fn cancel(&self, reason: &str) -> bool {
        let Some(running) = self.running.as_ref().filter(|running| !running.task.is_finished()) else { return false };
        running.orders.send_modify(|orders| orders.cancel = Some(reason.to_string()));
        true
    }

    /// Holds the operation before its next effect, or lets it go on. `false` when none runs.
    pub fn pause(&self, paused: bool) -> bool {
        let Some(running) = self.running.as_ref().filter(|running| !running.task.is_finished()) else { return false };
        running.orders.send_modify(|orders| orders.paused = paused);
        true
    }

    /// Parks the operation where it is: it stays open, and the next start goes on with it.
    pub async fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.orders.send_modify(|orders| orders.stop = true);
        let _ = running.task.await; // a panic in it was reported by the runtime; the journal has what was done
    }
}
