//! Rebalance, drain and restore: one shard at a time, each planned from a fresh view of the cluster, each a step of its own.

use tokio::time::Instant;

use super::work::{Halt, Outcome, Run};
use crate::model::{Inventory, Move, NodeId, ReplicaState, StepAction, StepEvent, StepState};
use crate::operate::drivers::{Call, Effect};
use crate::operate::placement::Placing;
use crate::operate::plan::{self, add_step};
use crate::operate::shards::{Fixed, Infeasible, plan_drain, plan_fill, plan_restore};

/// Attempts at one relocation.
const ATTEMPTS: u32 = 3;
/// Views in a row without a trace of a relocation, before it counts as not running.
const QUIET_LOOKS: u32 = 3;

/// How a relocation stands in one view of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// The target has it, the source has not, nothing is in flight.
    Arrived,
    /// In flight; bytes on the target, if known.
    Moving(u64),
    /// Not in flight and not arrived.
    Quiet,
    /// Neither source nor target has a copy: it was moved or dropped by other hands.
    Gone,
}

fn status(seen: &Inventory, action: &StepAction, relocation: &Move) -> Status {
    let copy = |node: &NodeId| seen.shards.iter().find(|r| r.shard == relocation.shard && &r.node == node);
    let target = copy(&relocation.to);
    let transfer = seen.transfers.iter().find(|t| t.shard == relocation.shard);
    // What is replicated stays at its source.
    let source = copy(&relocation.from).filter(|_| !matches!(action, StepAction::Replicate(_)));
    match (transfer, source, target.map(|r| r.state)) {
        (Some(transfer), ..) => Status::Moving(transfer.done_bytes.or(target.map(|r| r.bytes)).unwrap_or(0)),
        (None, None, Some(ReplicaState::Active)) => Status::Arrived,
        (None, None, None) if copy(&relocation.from).is_none() => Status::Gone,
        _ => Status::Quiet,
    }
}

impl Run {
    /// Spreads the shards, empties a node, or makes a dead one's copies anew.
    pub(super) async fn shift(&mut self, i: usize) -> Result<Outcome, Halt> {
        self.begin_step(i).await?;
        let mut progress_at = Instant::now();
        let mut trouble = "the shards in transfer do not arrive".to_string();
        loop {
            // A copy that was under way when the controller ended comes first.
            if let Some(open) = self.open_copy() {
                match self.relocate(open).await? {
                    Outcome::Failed(why) => return self.fail_step(i, why).await,
                    Outcome::Blocked(why) => return Ok(Outcome::Blocked(why)),
                    _ => progress_at = Instant::now(),
                }
            }
            if self.cancelled() {
                return Ok(Outcome::Cancelled);
            }
            match self.unless_stopped(self.hands.datastore.inventory(None)).await? {
                Err(why) => trouble = format!("the cluster does not answer: {why}"),
                Ok(seen) => {
                    let placing = self.unless_stopped(self.placing()).await?;
                    let planned = self.next_moves(i, &seen, &placing);
                    // It was feasible at the start: a node that is ill just now may be well again before the deadline.
                    let (moves, feasible) = match planned {
                        Ok(moves) => (moves, true),
                        Err(why) => {
                            trouble = why.to_string();
                            (Vec::new(), false)
                        }
                    };
                    if feasible {
                        self.expect(&moves);
                    }
                    if let Some(next) = moves.into_iter().next() {
                        let place = self.last_move().unwrap_or(i);
                        let action = match self.operation.steps[i].action {
                            StepAction::Restore { .. } => StepAction::Replicate(next),
                            _ => StepAction::Move(next),
                        };
                        add_step(&mut self.operation, action, &self.pace.deadlines, Some(place));
                        continue;
                    }
                    if feasible && self.at_rest(i, &seen) {
                        return Ok(Outcome::Done(None));
                    }
                }
            }
            if progress_at.elapsed() >= self.operation.steps[i].deadline {
                return self.fail_step(i, trouble).await;
            }
            self.rest(self.pace.probe).await?;
        }
    }

    /// Whether nothing is left to wait for.
    fn at_rest(&self, i: usize, seen: &Inventory) -> bool {
        let busy = seen.nodes_in_transfer();
        match &self.operation.steps[i].action {
            StepAction::Drain { node } => seen.on(node).next().is_none() && !busy.contains(node),
            _ => !self.operation.nodes.iter().any(|node| busy.contains(node)),
        }
    }

    fn next_moves(&self, i: usize, seen: &Inventory, placing: &Placing) -> Result<Vec<Move>, Infeasible> {
        match &self.operation.steps[i].action {
            StepAction::Drain { node } => plan_drain(seen, node, placing),
            StepAction::Restore { node } => plan_restore(seen, node, placing),
            _ => Ok(plan_fill(seen, &self.operation.nodes, &self.moved_already(), placing)),
        }
    }

    /// A copy is moved once in an operation, so that a rebalance ends.
    fn moved_already(&self) -> Fixed {
        plan::moved(&self.operation).map(|m| (m.shard.clone(), m.to.clone())).collect()
    }

    fn open_copy(&self) -> Option<usize> {
        self.operation.steps.iter().position(|step| step.action.copy().is_some() && step.state.is_open())
    }

    fn last_move(&self) -> Option<usize> {
        self.operation.steps.iter().rposition(|step| step.action.copy().is_some())
    }

    /// Brings the numbers of work done and left up to date with a new plan.
    fn expect(&mut self, moves: &[Move]) {
        let done: (u32, u64) = plan::moved(&self.operation).fold((0, 0), |(n, bytes), m| (n + 1, bytes + m.bytes));
        let left = (moves.len() as u32, moves.iter().map(|m| m.bytes).sum::<u64>());
        let operation = &mut self.operation;
        (operation.shards_left, operation.bytes_left) = left;
        (operation.shards_total, operation.bytes_total) = (done.0 + left.0, done.1 + left.1);
    }

    /// One relocation, up to three attempts; the step is ended when this returns, unless the work was halted.
    async fn relocate(&mut self, i: usize) -> Result<Outcome, Halt> {
        let Some(relocation) = self.operation.steps[i].action.copy().cloned() else {
            return Ok(Outcome::Blocked("not a copy of a shard".into()));
        };
        let mut in_doubt = self.operation.steps[i].state != StepState::Waiting;
        let mut why = "it never started".to_string();
        let mut tries = 0;
        loop {
            if !in_doubt {
                if tries >= ATTEMPTS {
                    return self.fail_step(i, why).await;
                }
                self.until_allowed().await?;
                if self.cancelled() {
                    return self.called_away(i).await;
                }
                if !self.begin_effect(i).await? {
                    continue;
                }
                tries += 1;
                let call = self.call(i);
                let asked = tokio::time::timeout(self.pace.deadlines.call, self.start(i, &call, &relocation));
                // Done, under way or unknown: the cluster itself will tell.
                if let Ok(Effect::NoEffect(said)) = self.unless_stopped(asked).await? {
                    why = said;
                    self.rest(self.pace.probe).await?;
                    continue;
                }
            }
            match self.watch(i, &relocation).await? {
                Ok(Outcome::Done(_)) => return self.arrived(i, &relocation).await,
                Ok(other) => return Ok(other),
                Err(said) => {
                    // What a start from before a crash left undone was no attempt of ours to clear away.
                    if !in_doubt {
                        self.call_off(i, &relocation).await?;
                    }
                    (why, in_doubt) = (said, false);
                }
            }
        }
    }

    /// Cancelled between two attempts: this shard stays where it is.
    async fn called_away(&mut self, i: usize) -> Result<Outcome, Halt> {
        if self.operation.steps[i].state != StepState::Waiting {
            self.end_step(i, StepEvent::Dropped, None, Some("cancelled".into())).await?;
        }
        Ok(Outcome::Cancelled)
    }

    async fn start(&self, i: usize, call: &Call, copy: &Move) -> Effect<()> {
        match self.operation.steps[i].action {
            StepAction::Replicate(_) => self.hands.datastore.replicate(call, copy).await,
            _ => self.hands.datastore.start_move(call, copy).await,
        }
    }

    /// Watches until the shard has arrived, is moot, or this attempt has come to nothing (`Err`).
    async fn watch(&mut self, i: usize, relocation: &Move) -> Result<Result<Outcome, String>, Halt> {
        let stuck = self.operation.steps[i].deadline;
        let (mut progress_at, mut most, mut quiet) = (Instant::now(), 0, 0);
        let before = self.operation.bytes_left;
        loop {
            let seen = self.unless_stopped(self.hands.datastore.inventory(None)).await?;
            let said = match seen.map(|seen| status(&seen, &self.operation.steps[i].action, relocation)) {
                Ok(Status::Arrived) => return Ok(Ok(Outcome::Done(None))),
                Ok(Status::Gone) => {
                    let note = "the shard was moved or dropped by other hands".to_string();
                    self.end_step(i, StepEvent::Dropped, None, Some(note.clone())).await?;
                    return Ok(Ok(Outcome::Moot(note)));
                }
                Ok(Status::Moving(bytes)) => {
                    quiet = 0;
                    if bytes > most {
                        (most, progress_at) = (bytes, Instant::now());
                        self.operation.bytes_left = before.saturating_sub(bytes);
                        self.progress().await;
                    }
                    format!("no progress for {} s", stuck.as_secs())
                }
                Ok(Status::Quiet) => {
                    quiet += 1;
                    if quiet >= QUIET_LOOKS {
                        self.operation.bytes_left = before;
                        return Ok(Err("the cluster does not carry it out".into()));
                    }
                    "the cluster does not carry it out".into()
                }
                Err(why) => format!("the cluster does not answer: {why}"),
            };
            if progress_at.elapsed() >= stuck {
                self.operation.bytes_left = before;
                return Ok(Err(said));
            }
            self.rest(self.pace.probe).await?;
        }
    }

    async fn arrived(&mut self, i: usize, relocation: &Move) -> Result<Outcome, Halt> {
        let done: u64 = plan::moved(&self.operation).map(|m| m.bytes).sum::<u64>() + relocation.bytes;
        let operation = &mut self.operation;
        operation.shards_left = operation.shards_left.saturating_sub(1);
        operation.bytes_left = operation.bytes_total.saturating_sub(done);
        self.progress().await;
        self.end_step(i, StepEvent::Succeeded, None, None).await?;
        Ok(Outcome::Done(None))
    }

    /// Ends an attempt that came to nothing, so that the next one starts clean. What the store makes of it shows in
    /// the next view.
    async fn call_off(&mut self, i: usize, relocation: &Move) -> Result<(), Halt> {
        let call = self.call(i);
        let asked = tokio::time::timeout(self.pace.deadlines.call, self.hands.datastore.cancel_move(&call, relocation));
        if let Ok(Effect::NoEffect(why) | Effect::Unknown(why)) = self.unless_stopped(asked).await? {
            tracing::warn!(shard = %relocation.shard, why, "a relocation could not be called off");
        }
        self.rest(self.pace.probe).await
    }
}
