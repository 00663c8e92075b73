//! What a run writes down: intents before effects, ends after them, each effect's one audit row, and the reports.

use serde_json::{Value, json};

use super::Report;
use super::work::{Halt, Outcome, Run};
use crate::model::{HistoryKind, NodeId, Operation, OperationState, Step, StepAction, StepEvent, StepState};
use crate::operate::{orders, plan};
use crate::record::{Entry, JournalError};

impl Run {
    /// Writes the intent: no effect without it. Each attempt is one.
    pub(super) async fn begin_step(&mut self, i: usize) -> Result<(), Halt> {
        self.intend(i);
        self.write(Some(i), None).await
    }

    /// The same before an effect: `false`, and nothing is written, when it was meanwhile forbidden, paused or cancelled.
    pub(super) async fn begin_effect(&mut self, i: usize) -> Result<bool, Halt> {
        let before = self.operation.steps[i].clone();
        self.intend(i);
        let begun = self.write_if(Some(i), None, Run::may_go_on).await?;
        if !begun {
            self.operation.steps[i] = before;
        }
        Ok(begun)
    }

    /// The same before a copy that is there is dropped at its source, or one that came to nothing is called off: that ends
    /// an attempt and is none of its own, and a cancel does not stop it. `false` when it was meanwhile forbidden or paused.
    pub(super) async fn begin_end(&mut self, i: usize) -> Result<bool, Halt> {
        advance(&mut self.operation.steps[i], StepEvent::Begun);
        self.write_if(Some(i), None, |run| !run.is_held()).await
    }

    fn intend(&mut self, i: usize) {
        let now = self.hands.clock.now();
        let step = &mut self.operation.steps[i];
        advance(step, StepEvent::Begun);
        step.attempts += 1;
        step.started_at.get_or_insert(now);
    }

    fn may_go_on(&self) -> bool {
        !self.is_held() && !self.cancelled()
    }

    /// Nothing may be changed just now: a person has paused the operation, or everything is forbidden.
    pub(super) fn is_held(&self) -> bool {
        self.operation.paused || self.standing.forbidden()
    }

    /// Writes how the step ended; an effect has its one audit row in the same transaction.
    pub(super) async fn end_step(
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

    pub(super) async fn fail_step(&mut self, i: usize, why: String) -> Result<Outcome, Halt> {
        self.end_step(i, StepEvent::Failed, None, Some(why.clone())).await?;
        Ok(Outcome::Failed(why))
    }

    pub(super) async fn block(&mut self, step: &str, why: &str) -> Result<(), Halt> {
        self.operation.state = OperationState::Blocked;
        self.operation.detail = orders::blocked(&self.operation, &format!("{step}: {why}"));
        let entry = operation_entry(&self.operation, "is blocked", &format!("{step}: {why}"));
        self.write(None, Some(entry)).await
    }

    pub(super) async fn finish(&mut self, state: OperationState, mut detail: String) -> Result<(), Halt> {
        let now = self.hands.clock.now();
        let stays = state == OperationState::Partial;
        for (node, why) in plan::not_in_service(&self.operation).filter(|_| stays) {
            let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
            detail.push_str(&format!("; clients are not sent to {node}{why}: put it in service by hand"));
        }
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
        self.write(None, Some(entry)).await
    }

    /// Nothing goes on before this is on disk: a journal that takes no writes holds the operation where it is.
    pub(super) async fn write(&mut self, step: Option<usize>, entry: Option<Entry>) -> Result<(), Halt> {
        self.write_if(step, entry, |_| true).await.map(|_| ())
    }

    /// Writes if `may` still says so after the orders of people were heard; between that and the write none can come.
    async fn write_if(
        &mut self,
        step: Option<usize>,
        entry: Option<Entry>,
        may: fn(&Run) -> bool,
    ) -> Result<bool, Halt> {
        self.operation.updated_at = self.hands.clock.now();
        let row = self.row.clone();
        loop {
            let mut row = row.lock().await;
            self.heed(&row);
            if !may(self) {
                return Ok(false);
            }
            let changed = step.map(|i| &self.operation.steps[i]);
            match self.hands.journal.update(&self.operation, changed, entry.clone()).await {
                Ok(()) => {
                    row.clone_from(&self.operation);
                    // Told under the lock: what is told first was written first.
                    self.tell(step);
                    return Ok(true);
                }
                Err(JournalError::Fenced { .. }) => return Err(Halt::Fenced),
                Err(error) => self.report(Report::JournalTrouble { error }),
            }
            drop(row);
            self.unless_stopped(tokio::time::sleep(self.pace.probe)).await?;
        }
    }

    fn tell(&self, step: Option<usize>) {
        let operation = Box::new(self.operation.clone());
        self.report(match (step, self.operation.state) {
            (Some(i), _) => Report::Step { operation, step: Box::new(self.operation.steps[i].clone()) },
            (None, OperationState::Blocked) => Report::Blocked { operation },
            (None, state) if state.is_final() => Report::Ended { operation },
            (None, _) => Report::Progress { operation },
        });
    }

    /// Tells of work done and left, which is not written by itself.
    pub(super) async fn progress(&mut self) {
        self.operation.last_progress_at = self.hands.clock.now();
        let row = self.row.clone();
        let row = row.lock().await;
        self.heed(&row);
        self.report(Report::Progress { operation: Box::new(self.operation.clone()) });
    }

    /// Hears what people have ordered meanwhile.
    pub(super) async fn hear(&mut self) {
        let row = self.row.clone();
        let row = row.lock().await;
        self.heed(&row);
    }

    /// Takes over from the row what only orders change.
    fn heed(&mut self, row: &Operation) {
        let over = self.operation.state.is_final();
        self.operation.paused_by = row.paused_by.clone().filter(|_| !over);
        self.operation.paused = row.paused && !over;
        self.operation.cancel.clone_from(&row.cancel);
    }

    pub(super) fn report(&self, report: Report) {
        let _ = self.reports.send(report); // a controller that is gone needs none
    }
}

/// Takes the legal move of the step's state; what is not listed there cannot happen.
pub(super) fn advance(step: &mut Step, event: StepEvent) {
    match step.state.after(event) {
        Some(next) => step.state = next,
        None => panic!("step {} is {:?}: {event:?} cannot happen to it", step.key, step.state),
    }
}

/// Steps that change the world, or prove something about it: each has one row in the audit trail.
fn is_effect(action: &StepAction) -> bool {
    use StepAction::*;
    !matches!(action, Validate | Rebalance | Drain { .. } | Restore { .. } | Settle)
}

pub(super) fn operation_entry(operation: &Operation, what: &str, words: &str) -> Entry {
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
