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
mod moves;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::effects::Found;
use super::drivers::{Datastore, Provider, Unanswered};
use super::plan::{self, Deadlines};
use super::proof::{self, ProofOfEmpty};
use crate::clock::Clock;
use crate::model::{
    HistoryKind, Kind, NodeId, Operation, OperationId, OperationState, Step, StepAction, StepEvent, StepState,
};
use crate::record::{Entry, Journal, JournalError};

/// Good probes in a row that make a new node a healthy member.
const GOOD_PROBES: u32 = 3;
/// The same for a proof: how old it may be when the node leaves.
const PROOF_LASTS: Duration = Duration::from_secs(30);

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
        let (orders, heard) = watch::channel(Orders::default());
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

    /// Parks the operation where it is: it stays open, and the next start goes on with it.
    pub async fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.orders.send_modify(|orders| orders.stop = true);
        let _ = running.task.await; // a panic in it was reported by the runtime; the journal has what was done
    }
}

/// Why work ends before the operation does.
enum Halt {
    /// Asked to; the next start goes on.
    Stopped,
    /// A newer start of the controller has taken the journal.
    Fenced,
}

/// How a step came out.
enum Outcome {
    Done(Option<Value>),
    /// Not needed any more.
    Moot(String),
    /// Nothing of it remains, or what remains the undo takes away.
    Failed(String),
    Blocked(String),
    /// Given up because the operation was cancelled.
    Cancelled,
}

/// One operation being worked on.
struct Run {
    hands: Hands,
    pace: Pace,
    standing: Arc<dyn Standing>,
    reports: mpsc::UnboundedSender<Report>,
    orders: watch::Receiver<Orders>,
    operation: Operation,
    /// The last proof and when it was made; never read back from the journal.
    proof: Option<(ProofOfEmpty, Instant)>,
}

impl Run {
    async fn drive(mut self) {
        match self.work().await {
            Ok(()) => {}
            Err(Halt::Stopped) => tracing::info!(operation = %self.operation.id, "operation parked"),
            Err(Halt::Fenced) => {
                tracing::error!(operation = %self.operation.id, "a newer vecscale has the journal; this one acts no more");
            }
        }
    }

    async fn work(&mut self) -> Result<(), Halt> {
        if self.operation.state == OperationState::Blocked {
            let undoing = self.operation.steps.iter().any(|step| self.is_undo(step));
            self.operation.state = if undoing { OperationState::Undoing } else { OperationState::Running };
        }
        loop {
            match self.operation.state {
                OperationState::Running => self.forward().await?,
                OperationState::Undoing => self.backward().await?,
                _ => return Ok(()),
            }
        }
    }

    /// The next step, or the end.
    async fn forward(&mut self) -> Result<(), Halt> {
        self.note_cancel().await?;
        let Some(i) = self.next_step(|_, step| !matches!(step.action, StepAction::Move(_))) else {
            return self.finish(OperationState::Succeeded, self.summary()).await;
        };
        if self.cancelled() {
            return self.take_back().await;
        }
        let (name, outcome) = (self.named(i), self.step(i).await?);
        match outcome {
            Outcome::Done(output) => self.end_step(i, StepEvent::Succeeded, output, None).await,
            Outcome::Moot(why) => self.end_step(i, StepEvent::Dropped, None, Some(why)).await,
            Outcome::Blocked(why) => self.block(&name, &why).await,
            Outcome::Cancelled => Ok(()), // seen at the top of the next turn
            Outcome::Failed(why) => {
                self.operation.detail = format!("{name}: {why}");
                self.take_back().await
            }
        }
    }

    async fn step(&mut self, i: usize) -> Result<Outcome, Halt> {
        match self.operation.steps[i].action.clone() {
            StepAction::Validate => self.validate(i).await,
            StepAction::Join { node } => self.join(i, &node).await,
            StepAction::Rebalance => self.shift(i, None).await,
            StepAction::Drain { node } => self.shift(i, Some(&node)).await,
            StepAction::Prove { node } => self.prove(i, &node).await,
            StepAction::Settle => self.settle(i).await,
            StepAction::Create { .. }
            | StepAction::Cordon { .. }
            | StepAction::Leave { .. }
            | StepAction::Destroy { .. }
            | StepAction::Uncordon { .. }
            | StepAction::Unjoin { .. } => self.enact(i).await,
            // Never planned by this version: an operation of another one is not guessed at.
            StepAction::Move(_) | StepAction::OutOfService { .. } | StepAction::InService { .. } => {
                Ok(Outcome::Blocked("this version of vecscale does not know this step".into()))
            }
        }
    }

    /// The operation cannot go on: undo it, or keep what there is.
    async fn take_back(&mut self) -> Result<(), Halt> {
        if let Some(reason) = self.operation.cancel.clone() {
            self.operation.detail = format!("cancelled: {reason}");
        }
        let detail = self.operation.detail.clone();
        if !plan::can_undo(&self.operation) {
            return match self.operation.kind {
                Kind::ScaleDown => self.block("scale_down", &detail).await,
                _ => self.finish(OperationState::Partial, detail).await,
            };
        }
        self.operation.state = OperationState::Undoing;
        self.write(None, None).await
    }

    /// The next step of the undo, or the end.
    async fn backward(&mut self) -> Result<(), Halt> {
        // A start that ended here may have written only the first of them.
        for action in plan::undo(&self.operation, self.hands.datastore.holds_data()) {
            if !self.operation.steps.iter().any(|step| step.action == action) {
                plan::add_step(&mut self.operation, action, &self.pace.deadlines, None);
            }
        }
        let Some(i) = self.next_step(|run, step| run.is_undo(step)) else {
            let ended = match self.operation.cancel {
                Some(_) => OperationState::Cancelled,
                None => OperationState::Failed,
            };
            return self.finish(ended, self.operation.detail.clone()).await;
        };
        if let Some(why) = self.must_stay(i).await? {
            let detail = format!("{}; {why}", self.operation.detail);
            return self.finish(OperationState::Partial, detail).await;
        }
        let (name, outcome) = (self.named(i), self.step(i).await?);
        match outcome {
            Outcome::Done(output) => self.end_step(i, StepEvent::Succeeded, output, None).await,
            Outcome::Moot(why) => self.end_step(i, StepEvent::Dropped, None, Some(why)).await,
            Outcome::Failed(why) | Outcome::Blocked(why) => self.block(&name, &why).await,
            Outcome::Cancelled => Ok(()),
        }
    }

    /// Whether a new node is to stay after all, because it holds a shard, or nobody can say that it does not.
    async fn must_stay(&mut self, i: usize) -> Result<Option<String>, Halt> {
        let node = match &self.operation.steps[i].action {
            StepAction::Unjoin { node } | StepAction::Destroy { node } => node.clone(),
            _ => return Ok(None),
        };
        if !self.hands.datastore.holds_data() || self.operation.kind != Kind::ScaleUp {
            return Ok(None);
        }
        let seen = self.read(|run| async { run.hands.datastore.inventory(None).await }).await?;
        Ok(match seen {
            Err(why) => Some(format!("{node} stays, since nobody can say that it holds nothing ({why})")),
            Ok(seen) => match seen.on(&node).next() {
                Some(replica) => Some(format!("{node} stays: it holds {}", replica.shard)),
                None if seen.nodes_in_transfer().contains(&node) => Some(format!("{node} stays: it receives a shard")),
                None => None,
            },
        })
    }

    fn is_undo(&self, step: &Step) -> bool {
        match step.action {
            StepAction::Uncordon { .. } | StepAction::Unjoin { .. } => true,
            StepAction::Destroy { .. } => self.operation.kind == Kind::ScaleUp,
            _ => false,
        }
    }

    fn next_step(&self, wanted: impl Fn(&Run, &Step) -> bool) -> Option<usize> {
        let open = |step: &Step| matches!(step.state, StepState::Waiting | StepState::Intent | StepState::Unknown);
        self.operation.steps.iter().position(|step| open(step) && wanted(self, step))
    }

    // ---- the steps that read and wait; those that act are in `effects`, the moves in `moves`

    async fn validate(&mut self, i: usize) -> Result<Outcome, Halt> {
        self.begin_step(i).await?;
        let found = self.read(|run| run.examine()).await?;
        Ok(match found {
            Ok(Ok(found)) => Outcome::Done(Some(json!(found))),
            Ok(Err(why)) => self.fail_step(i, why).await?,
            Err(why) => self.fail_step(i, why).await?,
        })
    }

    /// Joined, and good at three probes in a row.
    async fn join(&mut self, i: usize, node: &NodeId) -> Result<Outcome, Halt> {
        match self.enact(i).await? {
            Outcome::Done(_) => {}
            other => return Ok(other),
        }
        let deadline = self.deadline(i);
        let mut good = 0;
        loop {
            let probe = self.unless_stopped(self.good_probe(node)).await?;
            good = if probe.is_ok() { good + 1 } else { 0 };
            match probe {
                Ok(()) if good >= GOOD_PROBES => return Ok(Outcome::Done(None)),
                Err(why) if Instant::now() >= deadline => return self.fail_step(i, why).await,
                _ => self.rest(self.pace.probe).await?,
            }
            if self.cancelled() {
                return Ok(Outcome::Cancelled);
            }
        }
    }

    async fn good_probe(&self, node: &NodeId) -> Result<(), String> {
        let store = &self.hands.datastore;
        let machine = if store.holds_data() { None } else { self.listed(node).await.map_err(|e| e.0)? };
        let Some(machine) = machine.or_else(|| self.machine(node)) else {
            return Err(format!("the provider does not list {node}"));
        };
        if store.holds_data() {
            let seen = store.inventory(None).await.map_err(|e| e.0)?;
            match seen.member(node) {
                None => return Err(format!("{node} is not a member yet")),
                Some(member) if !member.healthy => return Err(format!("the cluster calls {node} unhealthy")),
                Some(_) => {}
            }
        }
        match store.ready(&machine).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{node} is not ready")),
            Err(why) => Err(format!("{node} did not answer: {why}")),
        }
    }

    async fn prove(&mut self, i: usize, node: &NodeId) -> Result<Outcome, Halt> {
        self.begin_step(i).await?;
        match self.new_proof(i, node).await? {
            Ok(proof) => Ok(Outcome::Done(Some(proof))),
            Err(_) if self.cancelled() => Ok(Outcome::Cancelled),
            Err(why) => self.fail_step(i, why).await,
        }
    }

    /// Tries until the deadline of step `i`; keeps the proof and gives it as the journal has it.
    async fn new_proof(&mut self, i: usize, node: &NodeId) -> Result<Result<Value, String>, Halt> {
        let deadline = self.deadline(i);
        let Some(baseline) = self.found().and_then(|found| found.baseline) else {
            return Ok(Err("the journal does not say what the node held before".into()));
        };
        loop {
            let (store, clock) = (self.hands.datastore.clone(), self.hands.clock.clone());
            let proof = proof::prove(&*store, &*clock, node, &baseline, self.pace.probe);
            match self.unless_stopped(proof).await? {
                Ok(proof) => {
                    let written = json!(proof);
                    self.proof = Some((proof, Instant::now()));
                    return Ok(Ok(written));
                }
                Err(why) if Instant::now() >= deadline => return Ok(Err(format!("not proven empty: {why}"))),
                Err(why) if self.cancelled() => return Ok(Err(why.to_string())),
                Err(_) => self.rest(self.pace.probe).await?,
            }
        }
    }

    async fn settle(&mut self, i: usize) -> Result<Outcome, Halt> {
        self.begin_step(i).await?;
        self.rest(self.operation.steps[i].deadline).await?;
        Ok(Outcome::Done(None))
    }

    // ---- what the steps share

    /// Reads until it is answered, at most for the deadline of a call; the error is the last one in words.
    async fn read<'a, T, F>(&'a mut self, look: impl Fn(&'a Run) -> F) -> Result<Result<T, String>, Halt>
    where
        F: Future<Output = Result<T, Unanswered>>,
    {
        let run: &'a Run = self;
        let deadline = Instant::now() + run.pace.deadlines.call;
        loop {
            match run.unless_stopped(look(run)).await? {
                Ok(answer) => return Ok(Ok(answer)),
                Err(why) if Instant::now() >= deadline => return Ok(Err(why.0)),
                Err(_) => run.unless_stopped(tokio::time::sleep(run.pace.probe)).await?,
            }
        }
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Halt> {
        let mut orders = self.orders.clone();
        tokio::select! {
            biased;
            _ = orders.wait_for(|orders| orders.stop) => Err(Halt::Stopped),
            done = work => Ok(done),
        }
    }

    /// Waits, and hears whether the operation was cancelled meanwhile.
    async fn rest(&mut self, time: Duration) -> Result<(), Halt> {
        self.unless_stopped(tokio::time::sleep(time)).await?;
        self.note_cancel().await
    }

    async fn note_cancel(&mut self) -> Result<(), Halt> {
        let Some(reason) = self.orders.borrow().cancel.clone() else { return Ok(()) };
        let is_new = self.operation.state == OperationState::Running && self.operation.cancel.is_none();
        if is_new && self.can_cancel() {
            self.operation.cancel = Some(reason);
            self.write(None, None).await?;
        }
        Ok(())
    }

    /// Past leaving the cluster, or with only the quiet at the end to come, there is nothing left to cancel.
    fn can_cancel(&self) -> bool {
        let settling = |step: &Step| step.action == StepAction::Settle;
        let left = self.operation.kind == Kind::ScaleDown && !plan::can_undo(&self.operation);
        !left && self.next_step(|_, step| !settling(step)).is_some()
    }

    fn cancelled(&self) -> bool {
        self.operation.state == OperationState::Running && self.operation.cancel.is_some()
    }

    fn deadline(&self, i: usize) -> Instant {
        Instant::now() + self.operation.steps[i].deadline
    }

    fn named(&self, i: usize) -> String {
        let step = &self.operation.steps[i].action;
        match step {
            StepAction::Create { node }
            | StepAction::Join { node }
            | StepAction::Cordon { node }
            | StepAction::OutOfService { node }
            | StepAction::InService { node }
            | StepAction::Drain { node }
            | StepAction::Prove { node }
            | StepAction::Leave { node }
            | StepAction::Destroy { node }
            | StepAction::Uncordon { node }
            | StepAction::Unjoin { node } => format!("{} {node}", step.name()),
            StepAction::Move(m) => format!("move {} from {} to {}", m.shard, m.from, m.to),
            StepAction::Validate | StepAction::Rebalance | StepAction::Settle => step.name().to_string(),
        }
    }

    /// What the first step found; what later steps hold the world against.
    fn found(&self) -> Option<Found> {
        let validate = self.operation.steps.iter().find(|step| step.action == StepAction::Validate)?;
        serde_json::from_value(validate.output.clone()?).ok()
    }

    fn summary(&self) -> String {
        let nodes = self.operation.nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
        let moved = plan::moved(&self.operation).count();
        match self.operation.kind {
            Kind::ScaleUp => format!("added {nodes}; {moved} shards moved"),
            Kind::ScaleDown => format!("removed {nodes}; {moved} shards moved"),
            Kind::Replace | Kind::Rebalance => format!("{moved} shards moved"),
        }
    }

    // ---- the journal

    /// Writes the intent: no effect without it. Each attempt is one.
    async fn begin_step(&mut self, i: usize) -> Result<(), Halt> {
        let now = self.hands.clock.now();
        let step = &mut self.operation.steps[i];
        advance(step, StepEvent::Begun);
        step.attempts += 1;
        step.started_at.get_or_insert(now);
        self.write(Some(i), None).await
    }

    /// Writes how the step ended; an effect has its one audit row in the same transaction.
    async fn end_step(
        &mut self,
        i: usize,
        event: StepEvent,
        output: Option<Value>,
        error: Option<String>,
    ) -> Result<(), Halt> {
        let (now, name) = (self.hands.clock.now(), self.named(i));
        let step = &mut self.operation.steps[i];
        advance(step, event);
        step.ended_at = Some(now);
        step.output = output.or_else(|| step.output.take());
        step.error = error;
        let tells = is_effect(&step.action) && matches!(event, StepEvent::Succeeded | StepEvent::Failed);
        let entry = tells.then(|| Entry {
            at: now,
            pool: self.operation.pool.clone(),
            kind: HistoryKind::Step,
            who: "vecscale".into(),
            summary: match &step.error {
                None => format!("{name}: done"),
                Some(error) => format!("{name}: failed: {error}"),
            },
            detail: json!({"operation": self.operation.id, "step": step}),
        });
        self.write(Some(i), entry).await
    }

    async fn fail_step(&mut self, i: usize, why: String) -> Result<Outcome, Halt> {
        self.end_step(i, StepEvent::Failed, None, Some(why.clone())).await?;
        Ok(Outcome::Failed(why))
    }

    async fn block(&mut self, step: &str, why: &str) -> Result<(), Halt> {
        self.operation.state = OperationState::Blocked;
        self.operation.detail = format!(
            "{step}: {why}\n    hint: nothing more is done until someone has looked; put it right by hand, then \
             restart vecscale: it looks again and goes on"
        );
        let entry = operation_entry(&self.operation, "is blocked", &format!("{step}: {why}"));
        self.write(None, Some(entry)).await?;
        self.report(Report::Blocked { operation: Box::new(self.operation.clone()) });
        Ok(())
    }

    async fn finish(&mut self, state: OperationState, detail: String) -> Result<(), Halt> {
        let now = self.hands.clock.now();
        for step in &mut self.operation.steps {
            match step.state {
                StepState::Waiting | StepState::Intent => advance(step, StepEvent::Dropped),
                StepState::Unknown => advance(step, StepEvent::Failed),
                StepState::Done | StepState::Failed | StepState::Skipped => continue,
            }
            step.ended_at = Some(now);
        }
        self.operation.state = state;
        self.operation.ended_at = Some(now);
        self.operation.detail = detail;
        let entry = operation_entry(&self.operation, state.as_str(), &self.operation.detail);
        self.write(None, Some(entry)).await?;
        self.report(Report::Ended { operation: Box::new(self.operation.clone()) });
        Ok(())
    }

    /// Nothing goes on before this is on disk: a journal that takes no writes holds the operation where it is.
    async fn write(&mut self, step: Option<usize>, entry: Option<Entry>) -> Result<(), Halt> {
        self.operation.updated_at = self.hands.clock.now();
        loop {
            let step = step.map(|i| &self.operation.steps[i]);
            match self.hands.journal.update(&self.operation, step, entry.clone()).await {
                Ok(()) => break,
                Err(JournalError::Fenced { .. }) => return Err(Halt::Fenced),
                Err(error) => self.report(Report::JournalTrouble { error }),
            }
            self.unless_stopped(tokio::time::sleep(self.pace.probe)).await?;
        }
        if let Some(i) = step {
            let step = Box::new(self.operation.steps[i].clone());
            self.report(Report::Step { operation: Box::new(self.operation.clone()), step });
        }
        Ok(())
    }

    fn report(&self, report: Report) {
        let _ = self.reports.send(report); // a controller that is gone needs none
    }
}

/// Takes the legal move of the step's state; what is not listed there cannot happen.
fn advance(step: &mut Step, event: StepEvent) {
    match step.state.after(event) {
        Some(next) => step.state = next,
        None => panic!("step {} is {:?}: {event:?} cannot happen to it", step.key, step.state),
    }
}

/// Steps that change the world, or prove something about it: each has one row in the audit trail.
fn is_effect(action: &StepAction) -> bool {
    !matches!(action, StepAction::Validate | StepAction::Rebalance | StepAction::Drain { .. } | StepAction::Settle)
}

fn operation_entry(operation: &Operation, what: &str, words: &str) -> Entry {
    let nodes = operation.nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
    let kind = operation.kind.as_str();
    let head = if nodes.is_empty() { format!("{kind} {what}") } else { format!("{kind} of {nodes} {what}") };
    Entry {
        at: operation.updated_at,
        pool: operation.pool.clone(),
        kind: HistoryKind::Operation,
        who: operation.who.clone(),
        summary: if words.is_empty() { head } else { format!("{head}: {words}") },
        detail: json!({
            "operation": operation.id, "kind": operation.kind, "state": operation.state, "trigger": operation.trigger,
            "nodes": operation.nodes, "because": operation.because, "detail": operation.detail,
        }),
    }
}

#[cfg(test)]
mod fakes;
#[cfg(test)]
mod stories;
