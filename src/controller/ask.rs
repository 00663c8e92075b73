//! What a person asks: done, or refused with a reason; never half. Each change is in the journal before it holds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::handle::{Asked, Command, Refusal, RefusalKind, Reply};
use crate::model::{Action, HistoryKind, Kind, Mode, NodeId, OperationId, Request, Timestamp};
use crate::record::JournalError;

use super::differences::touched_by;
use super::overrides::Settings;
use super::{Controller, Reload, Taking};

impl Controller {
    pub(super) async fn answer(&mut self, ask: Asked) {
        // Guards such as `min_nodes` are not judged over nodes that the last operation took away.
        if matches!(ask.command, Command::Operate(_)) && !self.is_current() {
            self.waiting.push(ask);
            return;
        }
        let reply = match ask.command {
            Command::SetMode { mode, who } => self.set_mode(mode, &who).await,
            Command::SetThresholds { changes, ttl, reason, who } => {
                self.set_thresholds(&changes, ttl, reason.as_deref(), &who).await
            }
            Command::DropThresholds { name, who } => self.drop_thresholds(name.as_deref(), &who).await,
            Command::Operate(request) => self.operate(request).await,
            Command::Order { operation, order } => self.order(&operation, &order).await,
            Command::Halt { who } => self.halt(&who).await,
            Command::ResetBreaker { reason, who } => self.reset_breaker(&who, reason.as_deref()).await,
            Command::Maintain { node, lasting, who } => self.maintain(node, lasting, &who).await,
            Command::OpenAgain { node, who } => self.open_again(&node, &who).await,
        };
        self.show();
        let _ = ask.answer.send(reply); // the asker has gone; what was done stays done
    }

    pub(super) async fn set_mode(&mut self, mode: Mode, who: &str) -> Result<Reply, Refusal> {
        let at = self.eyes.clock.now();
        let summary = format!("mode {} -> {}", self.mode.as_str(), mode.as_str());
        let value = json!({"mode": mode, "by": who, "at": at});
        let entry = self.entry(at, HistoryKind::Setting, who, &summary, &value);
        self.journal.save(&self.pool, "mode", &value, Some(entry)).await.map_err(unwritten)?;
        self.telemetry.setting_changed(&self.pool, who, &summary);
        self.mode = mode;
        Ok(Reply::Done)
    }

    async fn set_thresholds(
        &mut self,
        changes: &BTreeMap<String, f64>,
        ttl: Option<Duration>,
        reason: Option<&str>,
        who: &str,
    ) -> Result<Reply, Refusal> {
        let at = self.eyes.clock.now();
        let next = self.settings.with(changes, who, reason, ttl, at).map_err(unacceptable)?;
        let words: Vec<String> = changes.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        self.settle_thresholds(next, who, &format!("thresholds: {}", words.join(", "))).await
    }

    async fn drop_thresholds(&mut self, name: Option<&str>, who: &str) -> Result<Reply, Refusal> {
        let Some(next) = self.settings.without(name) else {
            return Err(refusal(RefusalKind::NotFound, format!("{} is not overridden", name.unwrap_or_default())));
        };
        let summary = format!("override dropped: {}", name.unwrap_or("all"));
        self.settle_thresholds(next.map_err(unacceptable)?, who, &summary).await
    }

    async fn settle_thresholds(&mut self, next: Settings, who: &str, summary: &str) -> Result<Reply, Refusal> {
        self.write_overrides(&next, who, summary).await.map_err(unwritten)?;
        self.settings = next;
        Ok(Reply::Done)
    }

    async fn write_overrides(&self, next: &Settings, who: &str, summary: &str) -> Result<(), JournalError> {
        let at = self.eyes.clock.now();
        let detail = json!({"before": self.settings.effective(), "after": next.effective()});
        let entry = self.entry(at, HistoryKind::Setting, who, summary, &detail);
        self.journal.save(&self.pool, "overrides", &json!(next.overrides()), Some(entry)).await?;
        self.telemetry.setting_changed(&self.pool, who, summary);
        Ok(())
    }

    /// Ends what was set for a time only: overrides and maintenance, and alerts that nobody speaks of any more.
    pub(super) async fn expire(&mut self, now: Timestamp) {
        self.expire_alerts(now).await;
        if let Some((next, over)) = self.settings.expired(now) {
            let names: Vec<&str> = over.iter().map(|o| o.name.as_str()).collect();
            let summary = format!("override ended: {}", names.join(", "));
            match self.write_overrides(&next, super::OURSELVES, &summary).await {
                Ok(()) => self.settings = next,
                Err(error) => self.telemetry.journal_error(&error),
            }
        }
        let over: Vec<NodeId> =
            self.maintenance.iter().filter(|(_, until)| **until <= now).map(|(id, _)| id.clone()).collect();
        for node in over {
            if let Err(refusal) = self.maintain(node, None, super::OURSELVES).await {
                tracing::warn!(pool = %self.pool, error = %refusal, "maintenance is over and could not be ended");
            }
        }
    }

    async fn expire_alerts(&mut self, now: Timestamp) {
        let rules = &self.config.policy.alerts;
        let expires = |entry: &str| rules.iter().find(|rule| *rule.name == *entry).map(|rule| rule.expires);
        if let Err(error) = self.desk.expire(now, expires).await {
            self.telemetry.journal_error(&error); // without the journal nothing is begun either
        }
        self.alerts = self.desk.shown();
    }

    async fn maintain(&mut self, node: NodeId, lasting: Option<Duration>, who: &str) -> Result<Reply, Refusal> {
        let at = self.eyes.clock.now();
        let mut next = self.maintenance.clone();
        let summary = match lasting {
            Some(lasting) => {
                let known = self.world.as_ref().is_some_and(|w| w.seen.node(&node).is_some());
                if !known {
                    return Err(refusal(RefusalKind::NotFound, format!("there is no node {node} in this pool")));
                }
                self.hear_operator().await;
                if let Some(open) = self.operation.as_ref().filter(|open| touched_by(open).any(|id| *id == node)) {
                    return Err(Refusal {
                        operation: Some(open.id.clone()),
                        ..refusal(
                            RefusalKind::Conflict,
                            format!("{} {} is about {node}: let it end, or cancel it", open.kind.as_str(), open.id),
                        )
                    });
                }
                next.insert(node.clone(), at.plus(lasting));
                format!("maintenance of {node} for {} s", lasting.as_secs())
            }
            None => {
                if next.remove(&node).is_none() {
                    return Err(refusal(RefusalKind::NotFound, format!("{node} is not in maintenance")));
                }
                format!("maintenance of {node} ended")
            }
        };
        let entry = self.entry(at, HistoryKind::Setting, who, &summary, &next);
        self.journal.save(&self.pool, "maintenance", &json!(next), Some(entry)).await.map_err(unwritten)?;
        self.telemetry.setting_changed(&self.pool, who, &summary);
        self.maintenance = next;
        Ok(Reply::Done)
    }

    /// A manual operation: the same deciding, past the triggers.
    async fn operate(&mut self, request: Request) -> Result<Reply, Refusal> {
        if let Some(known) = self.asked_before(&request).await? {
            return Ok(known);
        }
        if self.acknowledge(&request).await.map_err(unwritten)? {
            return Ok(Reply::Done);
        }
        let decision = self.turn(Some(&request)).await.map_err(unwritten)?;
        let Some(decision) = decision else {
            return Err(refusal(
                RefusalKind::Unavailable,
                "the first check is not done yet; ask again in a moment".into(),
            ));
        };
        match (&decision.action, &self.operation) {
            (Action::Hold, open) => Err(Refusal {
                kind: RefusalKind::Conflict,
                detail: why_not(request.kind, &decision),
                guards: decision.guards.clone(),
                operation: open.as_ref().map(|o| o.id.clone()),
            }),
            (_, Some(operation)) => Ok(Reply::Operation(Box::new(operation.clone()))),
            (_, None) => Err(refusal(RefusalKind::Unavailable, "the operation could not be begun".into())),
        }
    }

    /// The operation that the same idempotency key started before.
    async fn asked_before(&self, request: &Request) -> Result<Option<Reply>, Refusal> {
        let Some(key) = &request.key else { return Ok(None) };
        let now = self.eyes.clock.now();
        let id: Option<OperationId> = self.journal.by_key(&self.pool, key, now).await.map_err(unwritten)?;
        let Some(id) = id else { return Ok(None) };
        let operation = self.journal.operation(&id).await.map_err(unwritten)?;
        match operation {
            Some(other) if other.kind != request.kind => Err(refusal(
                RefusalKind::Unacceptable,
                format!(
                    "this Idempotency-Key belongs to the {} {id}; a {} needs a key of its own",
                    other.kind.as_str(),
                    request.kind.as_str()
                ),
            )),
            Some(other) if request.node.as_ref().is_some_and(|node| !other.nodes.contains(node)) => Err(refusal(
                RefusalKind::Unacceptable,
                format!(
                    "this Idempotency-Key belongs to {id}, which is about another node; this one needs a key of its own"
                ),
            )),
            known => Ok(known.map(|o| Reply::Operation(Box::new(o)))),
        }
    }

    /// Takes a new configuration whole, or refuses it whole; on trial it only says which.
    pub(super) async fn reloaded(&mut self, reload: Reload) {
        let Reload { config, eyes, taking, answer } = reload;
        let settings = self.settings.rebased(
            config.policy.thresholds,
            config.threshold_names_from_file.clone(),
            config.schedules.clone(),
        );
        let problems: Vec<String> = settings.problems().iter().map(|p| format!("{}: {}", p.name, p.what)).collect();
        let verdict = if problems.is_empty() {
            Ok(())
        } else {
            Err(format!("with the values set by the API, the new thresholds do not stand: {}", problems.join("; ")))
        };
        if verdict.is_ok() && taking == Taking::ForGood {
            self.settings = settings;
            if let Err(error) = self.desk.route(config.alert_routes.clone(), self.eyes.clock.now()).await {
                self.telemetry.journal_error(&error); // the next check writes it, or decides nothing
            }
            self.alerts = self.desk.shown();
            self.config = config;
            self.eyes = eyes;
            self.watch_windows(self.eyes.clock.now()).await;
            self.show();
        }
        let _ = answer.send(verdict); // the asker has gone
    }
}

fn why_not(kind: Kind, decision: &crate::model::Decision) -> String {
    let guards: Vec<String> = decision.guards.iter().map(|g| format!("{}: {}", g.name.as_str(), g.detail)).collect();
    let why = if guards.is_empty() { decision.because.join("; ") } else { guards.join("; ") };
    format!("{} is not possible now: {why}", kind.as_str())
}

pub(super) fn refusal(kind: RefusalKind, detail: String) -> Refusal {
    Refusal { kind, detail, guards: Vec::new(), operation: None }
}

fn unacceptable(problems: Vec<String>) -> Refusal {
    refusal(RefusalKind::Unacceptable, problems.join("; "))
}

pub(super) fn unwritten(error: JournalError) -> Refusal {
    refusal(RefusalKind::Unavailable, error.to_string())
}
