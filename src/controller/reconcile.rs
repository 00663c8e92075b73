//! The journal against the world, at the start and whenever no operation is open: what differs is told, our own left-over
//! cordons are lifted, and nothing else is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::model::{
    HistoryKind, Kind, Member, Mode, NodeId, Operation, OperationId, Request, Timestamp, Unexplained, UnexplainedKind,
};
use crate::operate::drivers::{Call, Effect, ServiceHookSettings};

use super::differences::{self, Census, Explained};
use super::{Controller, LATE};

/// The name under which the journal has the last census.
const CENSUS: &str = "census";

/// How long the loop waits for a cordon to be lifted, and for the hook before it.
const LIFT_LIMIT: Duration = Duration::from_secs(10);

/// The step that sends clients to a node again.
const IN_SERVICE: &str = "in_service";

/// A cordon that an operation of ours has set.
pub struct OurCordon {
    operation: OperationId,
    /// Since when the node is seen without it.
    open_since: Option<Instant>,
}

impl From<OperationId> for OurCordon {
    fn from(operation: OperationId) -> OurCordon {
        OurCordon { operation, open_since: None }
    }
}

impl OurCordon {
    /// The node was looked at. `false` once no cordon of it can be this one: a request to set it may come late, but not
    /// later than that.
    fn seen(&mut self, member: Option<&Member>) -> bool {
        if let Some(member) = member {
            self.open_since = (!member.cordoned).then(|| self.open_since.unwrap_or_else(Instant::now));
        }
        self.open_since.is_none_or(|since| since.elapsed() < LATE)
    }
}

/// The cordons that these operations have set, the newest operation first.
pub fn cordons_of<'a>(past: impl IntoIterator<Item = &'a Operation>) -> BTreeMap<NodeId, OurCordon> {
    differences::cordoned_by(past).into_iter().map(|(node, operation)| (node, operation.into())).collect()
}

impl Controller {
    /// Reads the last census, and what operations have touched since it was taken.
    pub(super) async fn recall_census(&mut self) -> Result<(), crate::record::JournalError> {
        self.census = super::remember::load(self.journal.as_ref(), &self.config, CENSUS).await?;
        Ok(())
    }

    fn explained(&self) -> Explained<'_> {
        Explained {
            census: self.census.as_ref(),
            lost: self.memory.replaced(),
            touched: &self.touched,
            drained: self.memory.drained(),
            operation: self.operation.as_ref(),
            by_other_hands: !self.can_change(),
        }
    }

    /// What nothing explains, as of the last look; nothing where a source was silent.
    pub(super) fn unexplained(&self) -> Vec<Unexplained> {
        let Some(inventory) = self.world.as_ref().filter(|w| w.provider_silent.is_none()).map(|w| &w.inventory) else {
            return Vec::new();
        };
        let Ok(inventory) = inventory else { return Vec::new() };
        let mut found = differences::unexplained(&self.machines, inventory.as_ref(), self.explained());
        // What is adopted by itself in a moment needs nobody.
        found.retain(|u| self.mode != Mode::Active || !self.is_arriving(&u.node));
        found
    }

    /// Holds the last look against the journal. Does nothing while an operation is open, or a source is silent.
    pub(super) async fn reconcile(&mut self, now: Timestamp) {
        let Some(world) = self.world.as_ref().filter(|w| w.provider_silent.is_none()) else { return };
        let Ok(inventory) = &world.inventory else { return };
        if self.operation.is_some() {
            return;
        }
        if let Some(inventory) = inventory {
            self.cordoned.retain(|node, cordon| cordon.seen(inventory.member(node)));
        }
        let present = differences::present(&self.machines, inventory.as_ref());
        let members = inventory.as_ref().map(|_| present.clone());
        let known = self.known_to_others(&present);
        let touched = std::mem::take(&mut self.touched);
        match &self.census {
            None => self.settle(Census { at: now, nodes: present }).await,
            Some(census) => {
                let mut next = differences::settled(census, &touched, &known, now);
                // Who went by other hands comes back as a newcomer.
                next.nodes.retain(|id| self.can_change() || known.contains(id));
                if !touched.is_empty() || next.nodes != census.nodes {
                    self.settle(next).await;
                }
            }
        }
        if let Some(members) = members {
            self.memory.forget_gone(&members);
        }
        let differences = self.unexplained();
        if !std::mem::replace(&mut self.reconciled, true) {
            self.tell(now, &differences).await;
        }
        self.set_right(now, &differences).await;
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

    /// Lifts cordons that operations of ours have left, and sets those anew that a person's drain has left and the store
    /// has lost; the cordons of others are theirs. One that was set and is still not told of is not set again and again.
    async fn set_right(&mut self, now: Timestamp, differences: &[Unexplained]) {
        if (self.stop_file)() {
            return;
        }
        let left_over = differences.iter().filter(|u| u.kind == UnexplainedKind::LeftOverCordon).map(|u| &u.node);
        let ours = |node: &NodeId| Some((node.clone(), self.cordoned.get(node)?.operation.clone()));
        let ours: Vec<(NodeId, OperationId)> = left_over.filter_map(ours).collect();
        // An answer about a cordon that is gone says nothing about the next one.
        self.entering.retain(|key, _| ours.iter().any(|(node, operation)| *key == key_of(operation, node, IN_SERVICE)));
        for (node, operation) in ours {
            let why = format!("operation {operation}, which set it, has ended");
            if let Err(why) = self.set_cordon(now, &node, &operation, false, &why).await {
                tracing::warn!(pool = %self.pool, %node, why, "a cordon could not be lifted");
            }
        }
        let uncordoned = self.world.as_ref().map(|w| w.uncordoned.clone()).unwrap_or_default();
        self.set_anew.retain(|node| uncordoned.contains(node));
        for node in uncordoned {
            let Some(operation) = self.memory.drained().get(&node).cloned() else { continue };
            let why = format!("operation {operation} drained it, and nobody has taken that back");
            if self.set_anew.contains(&node) {
                continue;
            }
            match self.set_cordon(now, &node, &operation, true, &why).await {
                Ok(()) => drop(self.set_anew.insert(node)),
                Err(why) => tracing::warn!(pool = %self.pool, %node, why, "a cordon could not be set anew"),
            }
        }
    }

    /// Sets or lifts the cordon that an operation has left; written down before it is done, or not done. A node is put back
    /// in service before its cordon goes: as long as that is there, the next check looks at it again.
    ///
    /// # Errors
    /// Why it is not known to have come about.
    pub(super) async fn set_cordon(
        &mut self,
        now: Timestamp,
        node: &NodeId,
        operation: &OperationId,
        cordoned: bool,
        why: &str,
    ) -> Result<(), String> {
        let (what, step) = if cordoned { ("set anew", "cordon") } else { ("lifted", "uncordon") };
        let summary = format!("the cordon of {node} is to be {what}: {why}");
        let detail = json!({"operation": operation, "node": node, "step": step});
        let entry = self.entry(now, HistoryKind::Step, super::OURSELVES, &summary, &detail);
        if let Err(error) = self.journal.append(entry).await {
            self.telemetry.journal_error(&error);
            return Err(format!("{step}: the journal cannot be written: {error}"));
        }
        if !cordoned {
            self.put_in_service(node, operation).await?;
        }
        let call = self.left_over(node, operation, step, LIFT_LIMIT);
        let store = &self.eyes.store;
        let asked =
            async { if cordoned { store.cordon(&call, node).await } else { store.uncordon(&call, node).await } };
        done(step, tokio::time::timeout(LIFT_LIMIT, asked).await.unwrap_or(Effect::InProgress))
    }

    /// Sends clients to the node again. A hook may take longer than the loop waits for it: its answer is then heard with
    /// a later check.
    async fn put_in_service(&mut self, node: &NodeId, operation: &OperationId) -> Result<(), String> {
        let store = self.eyes.store.clone();
        if !store.has_service_hooks() {
            return Ok(());
        }
        let Some(member) = self.member(node).cloned() else {
            return Err(format!("{IN_SERVICE}: the datastore has not told where the node is"));
        };
        let call = self.left_over(node, operation, IN_SERVICE, ServiceHookSettings::TIMEOUT);
        let key = call.key.clone();
        let ask = async move {
            let answer = tokio::time::timeout(call.deadline + LIFT_LIMIT, store.in_service(&call, &member)).await;
            answer.unwrap_or_else(|_| Effect::Unknown("it does not answer".into()))
        };
        let mut asked = self.entering.remove(&key).unwrap_or_else(|| AbortOnDropHandle::new(tokio::spawn(ask)));
        match tokio::time::timeout(LIFT_LIMIT, &mut asked).await {
            Ok(Ok(effect)) => done(IN_SERVICE, effect),
            Ok(Err(fault)) => Err(format!("{IN_SERVICE}: {fault}")),
            Err(_) => {
                self.entering.insert(key, asked);
                done(IN_SERVICE, Effect::InProgress)
            }
        }
    }

    fn left_over(&self, node: &NodeId, operation: &OperationId, step: &'static str, deadline: Duration) -> Call {
        Call {
            pool: self.pool.clone(),
            operation: operation.clone(),
            step,
            key: key_of(operation, node, step),
            fence: self.journal.fence(),
            deadline,
        }
    }

    /// Takes a node that came or went by other hands as it is now, on a person's word. `false` when it is none of these, or
    /// when one is to be reaped that has come: that is not as it should be.
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
        if request.kind == Kind::Reap && present.contains(node) {
            return Ok(false);
        }
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

fn key_of(operation: &OperationId, node: &NodeId, step: &str) -> String {
    format!("{operation}/left-over/{node}/{step}")
}

/// What came of a request.
fn done(step: &str, effect: Effect<()>) -> Result<(), String> {
    match effect {
        Effect::Done(()) => Ok(()),
        Effect::NoEffect(why) | Effect::Unknown(why) => Err(format!("{step}: {why}")),
        Effect::InProgress => Err(format!("{step} is not done yet")),
    }
}
