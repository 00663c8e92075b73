//! Orders about the open operation, the halt of everything, and the breaker: in the journal and shown before they are
//! answered, or refused with what can be done instead.

use serde_json::json;

use crate::handle::{Refusal, RefusalKind, Reply};
use crate::model::{HistoryKind, Mode, OperationId, OperationState, Order, Verb};
use crate::operate::runner::NotTaken;
use crate::record::JournalError;

use super::Controller;
use super::ask::{refusal, unwritten};

impl Controller {
    pub(super) async fn order(&mut self, id: &OperationId, order: &Order) -> Result<Reply, Refusal> {
        let taken = self.operator.order(id, order).await;
        // What the operation has told up to this order is older than it, so the picture ends with the order.
        self.hear_operator().await;
        match taken {
            Ok(()) => {
                self.telemetry.operation_ordered(&self.pool, id, order);
                let operation = self.journal.operation(id).await.map_err(unwritten)?;
                operation.map(|o| Reply::Operation(Box::new(o))).ok_or_else(|| unknown(id))
            }
            Err(NotTaken::No(why)) => Err(Refusal {
                operation: self.operation.as_ref().map(|open| open.id.clone()),
                ..refusal(RefusalKind::Conflict, format!("operation {id} is left as it is: {why}"))
            }),
            Err(NotTaken::NotThis) => Err(self.not_worked_on(id).await),
            Err(NotTaken::Journal(error)) => Err(unwritten(error)),
        }
    }

    async fn not_worked_on(&self, id: &OperationId) -> Refusal {
        match self.journal.operation(id).await {
            Err(error) => unwritten(error),
            Ok(Some(known)) if known.pool == self.pool && known.state.is_final() => Refusal {
                operation: self.operation.as_ref().map(|open| open.id.clone()),
                ..refusal(RefusalKind::Conflict, format!("operation {id} has ended: {}", known.state.as_str()))
            },
            Ok(Some(known)) if known.pool == self.pool => {
                refusal(RefusalKind::Unavailable, format!("operation {id} is not worked on just now; ask again"))
            }
            Ok(_) => unknown(id),
        }
    }

    /// Mode `stopped`, and the open operation paused.
    pub(super) async fn halt(&mut self, who: &str) -> Result<Reply, Refusal> {
        self.set_mode(Mode::Stopped, who).await?;
        let Some(id) = self.operation.as_ref().map(|open| open.id.clone()) else { return Ok(Reply::Done) };
        let pause = Order { what: Verb::Pause, who: who.into(), reason: Some("stop with halt".into()) };
        let taken = self.operator.order(&id, &pause).await;
        self.hear_operator().await;
        match taken {
            Ok(()) => self.telemetry.operation_ordered(&self.pool, &id, &pause),
            // It has ended, or is paused already: nothing more is begun either way.
            Err(NotTaken::No(_) | NotTaken::NotThis) => {}
            Err(NotTaken::Journal(error)) => {
                let detail = format!("autoscaling is stopped, but operation {id} is not paused: {error}; ask again");
                return Err(refusal(RefusalKind::Unavailable, detail));
            }
        }
        Ok(Reply::Done)
    }

    /// Closes the breaker and ends the pause after the last failure.
    pub(super) async fn reset_breaker(&mut self, who: &str, reason: Option<&str>) -> Result<Reply, Refusal> {
        self.hear_operator().await;
        if let Some(blocked) = self.operation.as_ref().filter(|open| open.state == OperationState::Blocked) {
            let id = &blocked.id;
            return Err(Refusal {
                operation: Some(id.clone()),
                ..refusal(
                    RefusalKind::Conflict,
                    format!(
                        "operation {id} is blocked, which would open the breaker again at once: {}",
                        blocked.detail
                    ),
                )
            });
        }
        let mut next = self.memory.clone();
        next.reset_breaker();
        let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
        let summary = format!("breaker reset{reason}");
        let entry = self.entry(self.eyes.clock.now(), HistoryKind::Setting, who, &summary, &json!({}));
        self.journal.save(&self.pool, "memory", &json!(next), Some(entry)).await.map_err(unwritten)?;
        self.telemetry.setting_changed(&self.pool, who, &summary);
        self.memory = next;
        Ok(Reply::Done)
    }

    /// Takes the operation back, for a stronger decision or because its reason has gone. One that has moved on meanwhile is
    /// let be: the next check decides anew.
    pub(super) async fn pre_empt(&mut self, id: &OperationId, why: String) -> Result<(), JournalError> {
        let order = Order { what: Verb::Cancel, who: super::OURSELVES.into(), reason: Some(why) };
        match self.operator.order(id, &order).await {
            Ok(()) => self.telemetry.operation_ordered(&self.pool, id, &order),
            Err(NotTaken::No(_) | NotTaken::NotThis) => {}
            Err(NotTaken::Journal(error)) => return Err(error),
        }
        Ok(())
    }

    /// Takes in all that the operator has told so far.
    pub(super) async fn hear_operator(&mut self) {
        while let Ok(report) = self.reports.try_recv() {
            self.reported(report).await;
        }
    }
}

fn unknown(id: &OperationId) -> Refusal {
    let id: String = id.to_string().chars().take(80).collect();
    refusal(RefusalKind::NotFound, format!("no operation {id:?} in this pool: GET /autoscaling/operations lists them"))
}
