//! What a run writes down: intents before effects, ends after them, each effect's one audit row, and the reports.

use serde_json::{Value, json};

use super::Report;
use super::work::{Halt, Outcome, Run};
use crate::model::{HistoryKind, NodeId, Operation, OperationState, Step, StepAction, StepEvent, StepState};
use crate::record::{Entry, JournalError};

impl Run {
    /// Writes the intent: no effect without it. Each attempt is one.
    pub(super) async fn begin_step(&mut self, i: usize) -> Result<(), Halt> {
        let now = self.hands.clock.now();
        let step = &mut self.operation.steps[i];
        advance(step, StepEvent::Begun);
        step.attempts += 1;
        step.started_at.get_or_insert(now);
        self.write(Some(i), None).await
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
        self.operation.detail = format!(
            "{step}: {why}\n    hint: nothing more is done until someone has looked; put it right by hand, then \
             restart vecscale: it looks again and goes on"
        );
        let entry = operation_entry(&self.operation, "is blocked", &format!("{step}: {why}"));
        self.write(None, Some(entry)).await?;
        self.report(Report::Blocked { operation: Box::new(self.operation.clone()) });
        Ok(())
    }

    pub(super) async fn finish(&mut self, state: OperationState, detail: String) -> Result<(), Halt> {
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
    pub(super) async fn write(&mut self, step: Option<usize>, entry: Option<Entry>) -> Result<(), Halt> {
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
