//! The journal against the world, at the start and whenever no operation is open: what differs is told, our own left-over
//! cordons are lifted, and nothing else is touched.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::model::{HistoryKind, Kind, NodeId, Request, Timestamp, Unexplained, UnexplainedKind};
use crate::operate::drivers::{Call, Effect, ProviderSettings};

use super::Controller;
use super::differences::{self, Census, Explained};

/// The name under which the journal has the last census.
const CENSUS: &str = "census";

/// How long lifting a cordon may take; the loop waits for it.
const LIFT_LIMIT: Duration = Duration::from_secs(10);

impl Controller {
    /// Reads the last census, and what operations have touched since it was taken.
    pub(super) async fn recall_census(&mut self) -> Result<(), crate::record::JournalError> {
        self.census = super::remember::load(self.journal.as_ref(), &self.config, CENSUS).await?;
        Ok(())
    }

    fn explained(&self) -> Explained<'_> {
        // Where nodes come and go by other hands, whoever has come belongs.
        let by_other_hands = matches!(self.config.provider, ProviderSettings::None);
        Explained {
            census: self.census.as_ref().filter(|_| !by_other_hands),
            lost: self.memory.replaced(),
            touched: &self.touched,
            operation: self.operation.as_ref(),
        }
    }

    /// What nothing explains, as of the last look; nothing where a source was silent.
    pub(super) fn unexplained(&self) -> Vec<Unexplained> {
        let Some(inventory) = self.world.as_ref().filter(|w| w.provider_silent.is_none()).map(|w| &w.inventory) else {
            return Vec::new();
        };
        let Ok(inventory) = inventory else { return Vec::new() };
        differences::unexplained(&self.machines, inventory.as_ref(), self.explained())
    }

    /// Holds the last look against the journal. Does nothing while an operation is open, or a source is silent.
    pub(super) async fn reconcile(&mut self, now: Timestamp) {
        let Some(world) = self.world.as_ref().filter(|w| w.provider_silent.is_none()) else { return };
        let Ok(inventory) = &world.inventory else { return };
        if self.operation.is_some() {
            return;
        }
        let present = differences::present(&self.machines, inventory.as_ref());
        let touched = std::mem::take(&mut self.touched);
        match &self.census {
            None => self.settle(Census { at: now, nodes: present }).await,
            Some(_) if touched.is_empty() => {}
            Some(census) => self.settle(differences::settled(census, &touched, &present, now)).await,
        }
        let differences = self.unexplained();
        if !std::mem::replace(&mut self.reconciled, true) {
            self.tell(now, &differences).await;
        }
        self.lift(now, &differences).await;
    }

    async fn settle(&mut self, census: Census) {
        if let Err(error) = self.journal.save(&self.pool, CENSUS, &json!(census), None).await {
            // After a restart the touched nodes may be told as foreign changes: wrong, but loud.
            self.telemetry.journal_error(&error);
        }
        self.census = Some(census);
    }

    /// One row of the audit trail about how the world was found at the start.
    async fn tell(&self, now: Timestamp, differences: &[Unexplained]) {
        let nodes = self.world.as_ref().map_or(0, |w| w.roster.len());
        let what = match differences {
            [] => "everything is explained".to_string(),
            some => some.iter().map(|u| u.detail.as_str()).collect::<Vec<_>>().join("; "),
        };
        let summary = format!("start on {}: {what}", crate::units::count(nodes as u32, "node"));
        let entry = self.entry(now, HistoryKind::Program, super::OURSELVES, &summary, &differences);
        if let Err(error) = self.journal.append(entry).await {
            self.telemetry.journal_error(&error);
        }
    }

    /// Lifts cordons that operations of ours have left; those of others are theirs.
    async fn lift(&mut self, now: Timestamp, differences: &[Unexplained]) {
        if (self.stop_file)() {
            return;
        }
        for found in differences.iter().filter(|u| u.kind == UnexplainedKind::LeftOverCordon) {
            let Some(operation) = self.cordoned.get(&found.node) else { continue };
            let summary = format!("cordon of {} lifted: operation {operation}, which set it, has ended", found.node);
            let entry = self.entry(now, HistoryKind::Step, super::OURSELVES, &summary, &found);
            if let Err(error) = self.journal.append(entry).await {
                self.telemetry.journal_error(&error);
                return; // written down before it is done, or not done
            }
            let call = Call {
                pool: self.pool.clone(),
                operation: operation.clone(),
                step: "uncordon",
                key: format!("{operation}/left-over/{}", found.node),
                fence: self.journal.fence(),
                deadline: LIFT_LIMIT,
            };
            let lifted = tokio::time::timeout(LIFT_LIMIT, self.eyes.store.uncordon(&call, &found.node)).await;
            match lifted {
                Ok(Effect::Done(())) => {}
                Ok(Effect::NoEffect(why) | Effect::Unknown(why)) => {
                    tracing::warn!(pool = %self.pool, node = %found.node, why, "a left-over cordon could not be lifted");
                }
                Ok(Effect::InProgress) | Err(_) => {
                    tracing::warn!(pool = %self.pool, node = %found.node, "a left-over cordon is not lifted yet");
                }
            }
        }
    }

    /// Takes a node that came or went by other hands as it is now, on a person's word. `false` when it is none of these.
    pub(super) async fn acknowledge(&mut self, request: &Request) -> Result<bool, crate::record::JournalError> {
        let Some(node) = request.node.as_ref().filter(|_| matches!(request.kind, Kind::Adopt | Kind::Reap)) else {
            return Ok(false);
        };
        let foreign = |u: &Unexplained| u.kind == UnexplainedKind::ForeignChange && u.node == *node;
        let (Some(found), Some(census)) = (self.unexplained().into_iter().find(foreign), &self.census) else {
            return Ok(false);
        };
        let now = self.eyes.clock.now();
        let inventory = self.world.as_ref().and_then(|w| w.inventory.as_ref().ok()).and_then(Option::as_ref);
        let touched: BTreeSet<NodeId> = [node.clone()].into();
        let present = differences::present(&self.machines, inventory);
        let census = differences::settled(census, &touched, &present, now);
        let reason = request.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        let summary = format!("{}, as it should{reason}", found.detail);
        let entry = self.entry(now, HistoryKind::Setting, &request.who, &summary, &found);
        self.journal.save(&self.pool, CENSUS, &json!(census), Some(entry)).await?;
        self.telemetry.setting_changed(&self.pool, &request.who, &summary);
        self.census = Some(census);
        Ok(true)
    }
}
