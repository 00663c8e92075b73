//! One operation from step to step: forward, back, or to a stop. What each step does is in `effects` and `moves`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::effects::Found;
use super::{Hands, Pace, Report, Row, Standing};
use crate::model::{Kind, NodeId, Operation, OperationState, Step, StepAction, StepEvent, StepState};
use crate::operate::drivers::Unanswered;
use crate::operate::plan;
use crate::operate::proof::{self, Baseline, NotProven, ProofOfCopies, ProofOfEmpty};

/// Good probes in a row that make a new node a healthy member.
const GOOD_PROBES: u32 = 3;

/// How often a node that joins again and again is taken out, before a person must look.
const UNJOINS: usize = 3;

/// Why work ends before the operation does.
pub(super) enum Halt {
    /// Asked to; the next start goes on.
    Stopped,
    /// A newer start of the controller has taken the journal.
    Fenced,
}

/// How a step came out.
pub(super) enum Outcome {
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
pub(super) struct Run {
    pub(super) hands: Hands,
    pub(super) pace: Pace,
    pub(super) standing: Arc<dyn Standing>,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    pub(super) row: Row,
    pub(super) stop: CancellationToken,
    pub(super) operation: Operation,
    /// The last proof and when it was made; never read back from the journal.
    pub(super) proof: Option<(Proof, Instant)>,
}

/// What was proven of the node that goes.
pub(super) enum Proof {
    Empty(ProofOfEmpty),
    Copies(ProofOfCopies),
}

impl Run {
    pub(super) async fn drive(mut self) {
        match self.work().await {
            Ok(()) => {}
            Err(Halt::Stopped) => tracing::info!(operation = %self.operation.id, "operation parked"),
            Err(Halt::Fenced) => {
                tracing::error!(operation = %self.operation.id, "a newer vecscale has the journal; this one acts no more");
            }
        }
    }

    async fn work(&mut self) -> Result<(), Halt> {
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
        self.until_allowed().await?;
        if let Some(why) = self.failed_before() {
            self.operation.detail = why;
            return self.take_back().await;
        }
        let Some(i) = plan::next_step(&self.operation) else {
            // Cancelled while the last step was under way.
            if self.cancelled() && plan::can_undo(&self.operation) {
                return self.take_back().await;
            }
            let ended = match plan::not_in_service(&self.operation).next() {
                Some(_) => OperationState::Partial,
                None => OperationState::Succeeded,
            };
            return self.finish(ended, self.summary()).await;
        };
        if self.cancelled() && !self.is_copying(i) {
            return self.take_back().await;
        }
        let (name, outcome) = (self.named(i), self.step(i).await?);
        match outcome {
            Outcome::Done(output) => self.end_step(i, StepEvent::Succeeded, output, None).await,
            Outcome::Moot(why) => self.end_step(i, StepEvent::Dropped, None, Some(why)).await,
            Outcome::Blocked(why) => self.block(&name, &why).await,
            Outcome::Cancelled => Ok(()), // seen at the top of the next turn
            // The node is filled and stays; that clients are not sent to it yet is told at the end.
            Outcome::Failed(why) if matches!(self.operation.steps[i].action, StepAction::InService { .. }) => {
                match self.operation.steps[i].state.is_open() {
                    true => self.fail_step(i, why).await.map(|_| ()),
                    false => Ok(()),
                }
            }
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
            StepAction::Rebalance | StepAction::Drain { .. } | StepAction::Restore { .. } => self.shift(i).await,
            StepAction::Prove { node } => self.prove(i, &node).await,
            StepAction::Settle => self.settle(i).await,
            StepAction::Create { .. }
            | StepAction::Cordon { .. }
            | StepAction::OutOfService { .. }
            | StepAction::Leave { .. }
            | StepAction::Forget { .. }
            | StepAction::Destroy { .. }
            | StepAction::InService { .. }
            | StepAction::Uncordon { .. }
            | StepAction::Unjoin { .. } => self.enact(i).await,
            // Copies are made within their rebalance, drain or restore: one that stands alone is not guessed at.
            StepAction::Move(_) | StepAction::Replicate(_) => {
                Ok(Outcome::Blocked("this version of vecscale does not know this step".into()))
            }
        }
    }

    /// The step that failed right before a controller ended, which had no time to act on that.
    fn failed_before(&self) -> Option<String> {
        // That clients are not sent to a node takes nothing back.
        let counts = |step: &Step| step.action.copy().is_none() && !matches!(step.action, StepAction::InService { .. });
        let failed = |step: &&Step| step.state == StepState::Failed && counts(step);
        let step = self.operation.steps.iter().find(failed)?;
        Some(format!("{}: {}", step.action, step.error.as_deref().unwrap_or("failed")))
    }

    /// The operation cannot go on: undo it, or keep what there is.
    async fn take_back(&mut self) -> Result<(), Halt> {
        if let Some(by) = &self.operation.cancel {
            self.operation.detail = format!("cancelled by {by}");
        }
        let detail = self.operation.detail.clone();
        if !plan::can_undo(&self.operation) {
            return match self.operation.kind {
                kind @ (Kind::ScaleDown | Kind::Reap) => self.block(kind.as_str(), &detail).await,
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
        let Some(i) = plan::next_step(&self.operation) else {
            let ended = match self.operation.cancel {
                Some(_) => OperationState::Cancelled,
                None => OperationState::Failed,
            };
            return self.finish(ended, self.operation.detail.clone()).await;
        };
        match self.must_stay(i).await? {
            Ok(Some(why)) => return self.keep(&why).await,
            Err(why) if self.operation.steps[i].state == StepState::Waiting => return self.keep(&why).await,
            // Asked for before: what came of that may not be told as a node that stays.
            Ok(None) | Err(_) => {}
        }
        let (name, outcome) = (self.named(i), self.step(i).await?);
        match outcome {
            Outcome::Done(output) => self.end_step(i, StepEvent::Succeeded, output, None).await,
            Outcome::Moot(why) => self.end_step(i, StepEvent::Dropped, None, Some(why)).await,
            Outcome::Failed(why) | Outcome::Blocked(why) => {
                if let Ok(Some(why)) = self.must_stay(i).await? {
                    return self.keep(&why).await;
                }
                match self.joined_again(i).await? {
                    Some(node) => {
                        let before = i.checked_sub(1);
                        plan::add_step(&mut self.operation, StepAction::Unjoin { node }, &self.pace.deadlines, before);
                        Ok(())
                    }
                    None => self.block(&name, &why).await,
                }
            }
            Outcome::Cancelled => Ok(()),
        }
    }

    /// The undo ends here: the new node stays.
    async fn keep(&mut self, why: &str) -> Result<(), Halt> {
        let detail = format!("{}; {why}", self.operation.detail);
        self.finish(OperationState::Partial, detail).await
    }

    /// The new node that could not be destroyed because its join came through late, after it had been taken out.
    async fn joined_again(&mut self, i: usize) -> Result<Option<NodeId>, Halt> {
        let StepAction::Destroy { node } = self.operation.steps[i].action.clone() else { return Ok(None) };
        let is_unjoin = |step: &&Step| matches!(step.action, StepAction::Unjoin { .. });
        let times = self.operation.steps.iter().filter(is_unjoin).count();
        if !self.hands.datastore.holds_data() || times > UNJOINS {
            return Ok(None);
        }
        let seen = self.read(|run| async { run.hands.datastore.inventory(None).await }).await?;
        Ok(seen.is_ok_and(|seen| seen.member(&node).is_some()).then_some(node))
    }

    /// Why a new node is to stay after all, if it holds a shard; an error when nobody can say.
    pub(super) async fn must_stay(&mut self, i: usize) -> Result<Result<Option<String>, String>, Halt> {
        let node = match &self.operation.steps[i].action {
            StepAction::Unjoin { node } | StepAction::Destroy { node } => node.clone(),
            _ => return Ok(Ok(None)),
        };
        let adds = matches!(self.operation.kind, Kind::ScaleUp | Kind::Replace | Kind::Adopt);
        if !self.hands.datastore.holds_data() || !adds {
            return Ok(Ok(None));
        }
        let seen = self.read(|run| async { run.hands.datastore.inventory(None).await }).await?;
        Ok(match seen {
            Err(why) => Err(format!("{node} stays, since nobody can say that it holds nothing ({why})")),
            Ok(seen) => Ok(match seen.on(&node).next() {
                Some(replica) => Some(format!("{node} stays: it holds {}", replica.shard)),
                None if seen.nodes_in_transfer().contains(&node) => Some(format!("{node} stays: it receives a shard")),
                None => None,
            }),
        })
    }

    /// Whether a transfer within step `i` was begun and is not known to have ended, as after a crash: it comes first.
    fn is_copying(&self, i: usize) -> bool {
        let spreads = |action: &StepAction| {
            matches!(action, StepAction::Rebalance | StepAction::Drain { .. } | StepAction::Restore { .. })
        };
        let begun = |step: &Step| step.action.copy().is_some() && step.state.is_in_doubt();
        spreads(&self.operation.steps[i].action) && self.operation.steps.iter().any(begun)
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
        let machine = match machine {
            Some(machine) => machine,
            None => self.located(node).await?,
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

    /// Tries until the deadline of step `i`; keeps the proof and gives it as the journal has it. A member that is forgotten
    /// needs another proof than one that leaves.
    pub(super) async fn new_proof(&mut self, i: usize, node: &NodeId) -> Result<Result<Value, String>, Halt> {
        let deadline = self.deadline(i);
        let Some(baseline) = self.found().and_then(|found| found.baseline) else {
            return Ok(Err("the journal does not say what the node held before".into()));
        };
        loop {
            let proof = self.prove_once(i, node, &baseline);
            match self.unless_stopped(proof).await? {
                Ok(proof) => {
                    let written = match &proof {
                        Proof::Empty(proof) => json!(proof),
                        Proof::Copies(proof) => json!(proof),
                    };
                    self.proof = Some((proof, Instant::now()));
                    return Ok(Ok(written));
                }
                Err(why) if Instant::now() >= deadline => return Ok(Err(format!("not proven: {why}"))),
                Err(why) if self.cancelled() => return Ok(Err(why.to_string())),
                Err(_) => self.rest(self.pace.probe).await?,
            }
        }
    }

    async fn prove_once(&self, i: usize, node: &NodeId, baseline: &Baseline) -> Result<Proof, NotProven> {
        let (store, clock, apart) = (&*self.hands.datastore, &*self.hands.clock, self.pace.probe);
        match self.operation.steps[i].action {
            StepAction::Forget { .. } => {
                proof::prove_copies(store, clock, node, baseline, apart).await.map(Proof::Copies)
            }
            _ => proof::prove(store, clock, node, baseline, apart).await.map(Proof::Empty),
        }
    }

    async fn settle(&mut self, i: usize) -> Result<Outcome, Halt> {
        self.begin_step(i).await?;
        self.rest(self.operation.steps[i].deadline).await?;
        Ok(Outcome::Done(None))
    }

    // ---- what the steps share

    /// Reads until it is answered, at most for the deadline of a call; the error is the last one in words.
    pub(super) async fn read<'a, T, F>(&'a mut self, look: impl Fn(&'a Run) -> F) -> Result<Result<T, String>, Halt>
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

    pub(super) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Halt> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Halt::Stopped),
            done = work => Ok(done),
        }
    }

    /// Waits, and hears what was ordered meanwhile.
    pub(super) async fn rest(&mut self, time: Duration) -> Result<(), Halt> {
        self.unless_stopped(tokio::time::sleep(time)).await?;
        self.hear().await;
        Ok(())
    }

    /// Waits while everything is forbidden, or a person has paused the operation.
    pub(super) async fn until_allowed(&mut self) -> Result<(), Halt> {
        if self.standing.forbidden() {
            tracing::warn!(operation = %self.operation.id, "a STOP file lies in the storage path: the operation waits");
        }
        self.hear().await;
        while self.is_held() {
            self.rest(self.pace.probe).await?;
        }
        Ok(())
    }

    pub(super) fn cancelled(&self) -> bool {
        self.operation.state == OperationState::Running && self.operation.cancel.is_some()
    }

    pub(super) fn deadline(&self, i: usize) -> Instant {
        Instant::now() + self.operation.steps[i].deadline
    }

    pub(super) fn named(&self, i: usize) -> String {
        self.operation.steps[i].action.to_string()
    }

    /// What the first step found; what later steps hold the world against.
    pub(super) fn found(&self) -> Option<Found> {
        let validate = self.operation.steps.iter().find(|step| step.action == StepAction::Validate)?;
        serde_json::from_value(validate.output.clone()?).ok()
    }

    fn summary(&self) -> String {
        let nodes = self.operation.nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
        let moved = plan::moved(&self.operation).count();
        match self.operation.kind {
            Kind::ScaleUp => format!("added {nodes}; {moved} shards moved"),
            Kind::ScaleDown => format!("removed {nodes}; {moved} shards moved"),
            Kind::Replace => {
                let dead = self.operation.replaces.as_ref().map_or("a dead node", NodeId::as_str);
                format!("{nodes} stands in for {dead}; {moved} shards made anew")
            }
            Kind::Rebalance => format!("{moved} shards moved"),
            Kind::Adopt => format!("adopted {nodes}; {moved} shards moved"),
            Kind::Drain => format!("{nodes} is empty and stays a member, cordoned; {moved} shards moved"),
            Kind::Reap => format!("reaped {nodes}"),
        }
    }
}
