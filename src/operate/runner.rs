//! Carries one operation per pool out: each step is written down, then done, then written down as done; whatever is in
//! doubt is looked at before it is repeated. Talks to the world through the drivers, to the journal, and to no one else.
//!
//! | step fails | then |
//! |---|---|
//! | before the point of no return | what was begun is undone: `failed`, or `cancelled` |
//! | after the first shard on a new node | the node stays: `partial` |
//! | after the node has left the cluster | forward only: repeated, then `blocked` |
//! | outcome stays unknown | `blocked`: a person looks and says (`orders`); the next start looks again |
//!
//! The journal's row of an operation has two writers: its run, and the orders of people. Both hold its lock while they
//! judge and write, so an order is in the row before it is answered, and no effect is begun after it.

mod effects;
mod ledger;
mod moves;
mod sight;
mod throttle;
mod work;

#[cfg(test)]
mod stories;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::ledger::operation_entry;
pub use self::throttle::Service;
use self::work::Run;
use super::drivers::{Datastore, Provider};
use super::orders;
use super::placement::Placing;
use super::plan::Deadlines;
use crate::clock::Clock;
use crate::model::{HistoryKind, Machine, Operation, OperationId, OperationState, Order, Step};
use crate::record::{Entry, Journal, JournalError};

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
    /// Whether the operation may still go on. `machines`: what the provider lists now, where it was asked.
    ///
    /// # Errors
    /// Why not, in words; the operation is then taken back.
    async fn still_stands(&self, operation: &Operation, machines: Option<&[Machine]>) -> Result<(), String>;

    /// Whether everything is forbidden just now, going on and taking back included. The operation then waits as it is.
    fn forbidden(&self) -> bool;

    /// What those who search notice, as of the last check; `None` while nobody tells.
    fn service(&self) -> Option<Service> {
        None
    }

    /// Whether the provider has ever listed a node: an empty list is an error from then on, not an empty pool.
    fn has_listed(&self) -> bool {
        false
    }

    /// The rules of placement, and what is known of the nodes.
    async fn placing(&self) -> Arc<Placing> {
        Arc::default()
    }
}

/// What the runner tells the controller. Each carries the operation as it then is in the journal.
#[derive(Clone, Debug)]
pub enum Report {
    /// A step changed its state.
    Step {
        operation: Box<Operation>,
        step: Box<Step>,
    },
    /// Shards or bytes left have changed, or an order was taken.
    Progress {
        operation: Box<Operation>,
    },
    /// A person must look; nothing happens until an order or the next start.
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
    row: Row,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// The operation as the journal has it. Whoever writes that row holds this lock.
type Row = Arc<Mutex<Operation>>;

/// Why an order was not taken; nothing was changed.
#[derive(Debug)]
pub enum NotTaken {
    /// It is not the operation that is worked on.
    NotThis,
    /// It cannot be done; why, and what can be done instead.
    No(String),
    Journal(JournalError),
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

    /// Goes on with an operation that the journal has as open. One that was blocked is looked at again. Gives it as it
    /// now stands.
    pub fn resume(&mut self, mut operation: Operation) -> Operation {
        orders::take_up(&mut operation);
        let (row, stop) = (Arc::new(Mutex::new(operation.clone())), CancellationToken::new());
        let id = operation.id.clone();
        let run = Run {
            hands: self.hands.clone(),
            pace: self.pace,
            standing: self.standing.clone(),
            reports: self.reports.clone(),
            row: row.clone(),
            stop: stop.clone(),
            operation: operation.clone(),
            proof: None,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(run.drive()));
        self.running = Some(Running { id, row, stop, task });
        operation
    }

    /// Takes an order about the operation: it is in the journal, with its audit row, when this returns, and no effect that
    /// it forbids is begun afterwards. Reported, too.
    ///
    /// # Errors
    /// See [`NotTaken`].
    pub async fn order(&mut self, id: &OperationId, order: &Order) -> Result<(), NotTaken> {
        let Some(running) = self.running.as_ref().filter(|running| running.id == *id) else {
            return Err(NotTaken::NotThis);
        };
        let row = running.row.clone();
        let mut row = row.lock().await;
        let (mut next, now) = (row.clone(), self.hands.clock.now());
        let obeyed = orders::obey(&mut next, order, now).map_err(NotTaken::No)?;
        next.updated_at = now;
        let entry = order_entry(&next, order, &obeyed.what);
        let step = obeyed.step.map(|i| &next.steps[i]);
        self.hands.journal.update(&next, step, Some(entry)).await.map_err(NotTaken::Journal)?;
        let was_blocked = row.state == OperationState::Blocked;
        row.clone_from(&next);
        let _ = self.reports.send(Report::Progress { operation: Box::new(next.clone()) }); // a controller that is gone needs none
        // A run that has written that it is blocked does nothing more.
        if was_blocked && next.state != OperationState::Blocked {
            self.resume(next);
        }
        Ok(())
    }

    /// The operation that is being worked on.
    pub fn running(&self) -> Option<&OperationId> {
        self.running.as_ref().filter(|running| !running.task.is_finished()).map(|running| &running.id)
    }

    /// Parks the operation where it is: it stays open, and the next start goes on with it.
    pub async fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.stop.cancel();
        let _ = running.task.await; // a panic in it was reported by the runtime; the journal has what was done
    }
}

fn order_entry(operation: &Operation, order: &Order, what: &str) -> Entry {
    let words = order.reason.as_deref().unwrap_or_default();
    Entry { kind: HistoryKind::Operation, who: order.who.clone(), ..operation_entry(operation, what, words) }
}
