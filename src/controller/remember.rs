//! What outlives a restart, and what past work teaches: mode, overrides, memory, maintenance, the open operation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::alerts::Desk;
use crate::decide::Memory;
use crate::model::{
    Action, Decision, Experience, HistoryKind, Kind, Mode, NodeId, Observation, Operation, OperationId, OperationState,
    Override, PoolView, Request, Step, StepAction, StepState, StoreHealth, Timestamp,
};
use crate::observe::Window;
use crate::operate::placement::Placing;
use crate::operate::plan::{self, Deadlines, Planning};
use crate::operate::runner::{Hands, Operator, Pace, Report};
use crate::record::{Journal, JournalError};
use crate::schedule::Standing;

use super::overrides::Settings;
use super::{Controller, Eyes, LATE, Parts, differences, picture, reconcile, standing};

/// Past operations from which lead time and speed are learnt.
const LEARN_FROM: usize = 50;

/// The name under which the journal has that the provider has listed nodes.
const HAS_LISTED: &str = "has_listed";

impl Controller {
    /// The controller as it stood when it was last stopped, however that came about.
    pub(super) async fn remembering(parts: Parts) -> Result<Controller, JournalError> {
        let Parts { config, first_mode, eyes, journal, telemetry, stop_file } = parts;
        let pool = config.name.clone();
        let settings = Settings::new(
            config.policy.thresholds,
            config.threshold_names_from_file.clone(),
            config.schedules.clone(),
            load::<Vec<Override>>(journal.as_ref(), &config, "overrides").await?.unwrap_or_default(),
        );
        let problems = settings.problems();
        if let Some(problem) = problems.first() {
            return Err(JournalError::Unreadable(format!(
                "a threshold set by the API does not fit the configuration file any more: {}: {} ({}). \
                 Mend the file so that both stand together, start, and drop the override",
                problem.name, problem.what, problem.hint
            )));
        }
        let saved_mode: Option<SavedMode> = load(journal.as_ref(), &config, "mode").await?;
        let memory: Option<Memory> = load(journal.as_ref(), &config, "memory").await?;
        let maintenance: Option<BTreeMap<NodeId, Timestamp>> = load(journal.as_ref(), &config, "maintenance").await?;
        let has_listed: Option<bool> = load(journal.as_ref(), &config, HAS_LISTED).await?;
        let mode = saved_mode.map_or(first_mode, |saved| saved.mode);
        let routes = config.alert_routes.clone();
        let desk = Arc::new(Desk::open(pool.clone(), routes, journal.clone(), telemetry.clone()).await?);
        let now = eyes.clock.now();
        let view = Arc::new(ArcSwap::from_pointee(nothing_seen(&config, mode, &settings, now)));
        // A provider that is to list nothing any more has not gone silent.
        let lists = config.lists_nodes();
        let list_is_noted = has_listed.unwrap_or_default();
        let has_listed = Arc::new(AtomicBool::new(lists && list_is_noted));
        let rules = config.placement.clone();
        let placing = Arc::new(ArcSwap::from_pointee(Placing { rules, ..Placing::default() }));
        let standing = standing::Picture {
            view: view.clone(),
            stop_file: stop_file.clone(),
            has_listed: has_listed.clone(),
            placing: placing.clone(),
        };
        let interval = Duration::from_secs_f64(settings.effective().health_check_interval);
        let (operator, reports) = operator(&eyes, journal.clone(), standing, interval);
        let mut controller = Controller {
            view,
            recent: Arc::new(ArcSwap::from_pointee(VecDeque::new())),
            pool,
            settings,
            mode,
            eyes,
            journal,
            operator,
            reports,
            telemetry,
            stop_file,
            alerts: desk.shown(),
            desk,
            window: Window::default(),
            memory: memory.map(Memory::restarted).unwrap_or_default(),
            windows: Standing::default(),
            windows_told: BTreeMap::new(),
            maintenance: maintenance.unwrap_or_default(),
            experience: Experience::default(),
            machines: Vec::new(),
            has_listed,
            list_is_noted,
            placing,
            world: None,
            decision: None,
            operation: None,
            last_operation: None,
            last_scaling: None,
            census: None,
            touched: BTreeSet::new(),
            late_drops: BTreeMap::new(),
            cordoned: BTreeMap::new(),
            entering: BTreeMap::new(),
            set_anew: BTreeSet::new(),
            reconciled: false,
            ended: 0,
            looking: None,
            waiting: Vec::new(),
            journal_trouble: None,
            config,
        };
        controller.recall_census().await?;
        controller.recall_operations().await?;
        controller.recall_windows().await?;
        controller.show();
        Ok(controller)
    }

    /// Learns from past operations, and takes up the one that is still open.
    async fn recall_operations(&mut self) -> Result<(), JournalError> {
        let mut past = self.journal.operations(&self.pool, LEARN_FROM, None).await?;
        past.retain(|o| o.state.is_final());
        self.last_operation = past.first().cloned();
        self.last_scaling = past.iter().find(|o| o.has_scaled()).cloned();
        for operation in past.iter().rev() {
            self.telemetry.operation_remembered(operation);
            self.learn(operation);
        }
        self.catch_up(&past).await?;
        self.late_drops = past.iter().flat_map(plan::late_drops).map(|copy| (copy, Instant::now())).collect();
        let since = self.census.as_ref().map(|census| census.at);
        // What another drain than a person's has set was lifted before its end: a late one follows soon, if at all, or while
        // nobody looked.
        let soon = Some(self.eyes.clock.now().minus(LATE)).min(since);
        self.cordoned = reconcile::cordons_of(past.iter().filter(|o| o.kind == Kind::Drain || o.ended_at >= soon));
        let later = past.iter().filter(|o| o.ended_at >= since);
        self.touched.extend(later.flat_map(differences::touched_by).cloned());
        if let Some(open) = self.journal.open_operation(&self.pool).await? {
            let at = self.eyes.clock.now();
            let summary = format!("{} {} is taken up again after a restart", open.kind.as_str(), open.id);
            let entry =
                self.entry(at, HistoryKind::Program, super::OURSELVES, &summary, &json!({"operation": open.id}));
            self.journal.append(entry).await?;
            self.telemetry.operation_began(&open);
            self.operation = Some(self.operator.resume(open));
        }
        Ok(())
    }

    /// Takes in the ends that the journal has and the memory has not: the process died between the two, and the cooldown,
    /// the pause after a failure and the hold after a manual operation would be forgotten.
    async fn catch_up(&mut self, past: &[Operation]) -> Result<(), JournalError> {
        let mut missed: Vec<&Operation> = past.iter().filter(|o| !self.memory.knows_end_of(o)).collect();
        missed.sort_by_key(|o| o.decision);
        for operation in &missed {
            self.memory.operation_ended(operation, operation.ended_at.unwrap_or(operation.updated_at));
        }
        if missed.is_empty() {
            return Ok(());
        }
        self.journal.save(&self.pool, "memory", &json!(self.memory), None).await
    }

    pub(super) fn has_listed(&self) -> bool {
        self.has_listed.load(Ordering::Relaxed)
    }

    /// Remembers that the provider has listed nodes.
    pub(super) async fn note_list(&mut self) {
        if self.list_is_noted || self.machines.is_empty() {
            return;
        }
        self.has_listed.store(true, Ordering::Relaxed);
        match self.journal.save(&self.pool, HAS_LISTED, &json!(true), None).await {
            Ok(()) => self.list_is_noted = true,
            Err(error) => self.telemetry.journal_error(&error), // tried again at the next check
        }
    }

    /// Lead time of a scale-up, and speed of its moves; and that a list without any node is wrong once one was made.
    pub(super) fn learn(&mut self, operation: &Operation) {
        let made = |step: &Step| matches!(step.action, StepAction::Create { .. }) && step.state == StepState::Done;
        let is_kept = matches!(operation.state, OperationState::Succeeded | OperationState::Partial);
        if self.config.lists_nodes() && is_kept && operation.steps.iter().any(made) {
            self.has_listed.store(true, Ordering::Relaxed);
        }
        if operation.kind == Kind::ScaleUp && operation.state == OperationState::Succeeded {
            self.experience.lead_times.extend(operation.lead_time());
            let surplus = self.experience.lead_times.len().saturating_sub(LEARN_FROM);
            self.experience.lead_times.drain(..surplus);
        }
        self.experience.bytes_per_second = speed(operation).or(self.experience.bytes_per_second);
    }

    /// The operation for a decision; names of new nodes are never used twice. `None` for a decision to hold.
    pub(super) async fn planned(
        &self,
        decision: &Decision,
        request: Option<&Request>,
        seen: &Observation,
    ) -> Result<Option<Operation>, JournalError> {
        let names = match decision.action {
            Action::ScaleUp { nodes, .. } => self.new_names(nodes, seen).await?,
            Action::Replace { .. } => self.new_names(1, seen).await?,
            _ => Vec::new(),
        };
        let at = self.eyes.clock.now();
        Ok(plan::plan(
            decision,
            Planning {
                id: operation_id(at, self.journal.fence(), &self.pool, decision.id),
                pool: self.pool.clone(),
                at,
                who: request.map_or(super::OURSELVES, |r| r.who.as_str()),
                names,
                holds_data: self.eyes.store.holds_data(),
                has_service_hooks: self.eyes.store.has_service_hooks(),
                is_drained: match &decision.action {
                    Action::ScaleDown { node, .. } => self.memory.drained().contains_key(node),
                    _ => false,
                },
                deadlines: Deadlines::of(self.eyes.provider.timeout(), self.interval()),
            },
        ))
    }

    async fn new_names(&self, count: u32, seen: &Observation) -> Result<Vec<NodeId>, JournalError> {
        let used: Option<u64> = load(self.journal.as_ref(), &self.config, "highest_ordinal").await?;
        let known = self.machines.iter().map(|m| &m.id).chain(seen.nodes.iter().map(|n| &n.id));
        let (names, used) = plan::new_names(&self.pool, known, used.unwrap_or(0), count);
        self.journal.save(&self.pool, "highest_ordinal", &json!(used), None).await?;
        Ok(names)
    }
}

/// A UUIDv7 without chance, so that a replay gives the same story: the instant, then what tells two operations apart. A
/// pool never gives a decision's number twice.
fn operation_id(at: Timestamp, fence: u64, pool: &str, decision: u64) -> OperationId {
    let millis = u64::try_from(at.millis()).unwrap_or(0);
    // FNV-1a, and a last stir (as splitmix64 has it), for the decisions of one pool differ in few bits.
    let bytes = pool.bytes().chain(fence.to_be_bytes()).chain(decision.to_be_bytes());
    let sum = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let stirred = (sum ^ (sum >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let stirred = (stirred ^ (stirred >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mut rest = [0; 10];
    rest[..2].copy_from_slice(&(fence as u16).to_be_bytes());
    rest[2..].copy_from_slice(&(stirred ^ (stirred >> 31)).to_be_bytes());
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &rest).into_uuid();
    OperationId(id.to_string().into())
}

/// The operator of one pool, and where it reports.
fn operator(
    eyes: &Eyes,
    journal: Arc<dyn Journal>,
    standing: standing::Picture,
    interval: Duration,
) -> (Operator, mpsc::UnboundedReceiver<Report>) {
    let hands =
        Hands { provider: eyes.provider.clone(), datastore: eyes.store.clone(), journal, clock: eyes.clock.clone() };
    let (told, reports) = mpsc::unbounded_channel();
    let pace = Pace::of(interval, eyes.provider.timeout());
    (Operator::new(hands, pace, Arc::new(standing), told), reports)
}

#[derive(serde::Deserialize)]
struct SavedMode {
    mode: Mode,
}

pub(super) async fn load<T: DeserializeOwned>(
    journal: &dyn Journal,
    config: &crate::config::PoolConfig,
    name: &str,
) -> Result<Option<T>, JournalError> {
    let Some(value) = journal.load(&config.name, name).await? else { return Ok(None) };
    serde_json::from_value(value).map(Some).map_err(|error| {
        JournalError::Unreadable(format!("the saved {name} of pool {} is not understood: {error}", config.name))
    })
}

/// Bytes per second of the operation's moves, over the time in which any was on its way; `None` if it moved nothing.
fn speed(operation: &Operation) -> Option<f64> {
    let done = operation.steps.iter().filter(|s| s.state == StepState::Done);
    let mut moves: Vec<_> = done.filter_map(|s| Some((s.started_at?, s.ended_at?, s.action.copy()?.bytes))).collect();
    moves.sort();
    let bytes: u64 = moves.iter().map(|(.., bytes)| bytes).sum();
    let mut took = Duration::ZERO;
    let mut until = moves.first()?.0;
    for (from, to, _) in moves {
        took += to.since(from.max(until));
        until = until.max(to);
    }
    (bytes > 0 && !took.is_zero()).then(|| bytes as f64 / took.as_secs_f64())
}

/// The picture before the first check.
fn nothing_seen(config: &crate::config::PoolConfig, mode: Mode, settings: &Settings, at: Timestamp) -> PoolView {
    PoolView {
        pool: config.name.clone(),
        at,
        mode,
        stop_file: false,
        seen: None,
        thresholds: settings.effective(),
        usual_thresholds: settings.effective(),
        sources: settings.sources(),
        overridden: BTreeSet::new(),
        windows: Vec::new(),
        conditions: Vec::new(),
        decision: None,
        guards: Vec::new(),
        guards_against: BTreeMap::new(),
        victim: None,
        operation: None,
        last_operation: None,
        cooldowns: Default::default(),
        outlook: Default::default(),
        bytes_per_second: None,
        desired_nodes: 0,
        nodes_wanted: 0,
        store: StoreHealth::default(),
        needs_human: Vec::new(),
        headline: picture::headline(mode, 0, 0, None, None, None, None),
        unexplained: Vec::new(),
        maintenance: BTreeMap::new(),
        drained: BTreeMap::new(),
        alerts: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Move, ShardId, Step, StepAction, Trigger};

    #[test]
    fn the_speed_is_that_of_all_moves_together() {
        // Seconds from and to, bytes.
        type Case = (&'static [(i64, i64, u64)], Option<f64>);
        let cases: [Case; 5] = [
            (&[], None),
            (&[(0, 10, 1000)], Some(100.0)),
            (&[(0, 10, 1000), (20, 30, 1000)], Some(100.0)),
            (&[(0, 10, 1000), (0, 10, 1000)], Some(200.0)),
            (&[(0, 10, 1000), (5, 20, 1000), (6, 8, 1000)], Some(150.0)),
        ];
        for (moves, expected) in cases {
            let at = |secs: i64| Timestamp::from_millis(secs * 1000);
            let id = OperationId("op".into());
            let mut operation = Operation::new(id, "p".into(), Kind::Rebalance, Trigger::Manual, "cli", at(0));
            let node = |name: &str| NodeId::new(name).expect("a name");
            for (n, (from, to, bytes)) in moves.iter().enumerate() {
                let shard = ShardId { collection: "docs".into(), shard: n as u32 };
                let copy = Move { shard, from: node("a"), to: node("b"), bytes: *bytes, vectors: 1 };
                operation.steps.push(Step {
                    seq: n as u32,
                    action: StepAction::Move(copy),
                    key: format!("op/{n}"),
                    state: StepState::Done,
                    attempts: 1,
                    started_at: Some(at(*from)),
                    ended_at: Some(at(*to)),
                    deadline: Duration::from_secs(900),
                    output: None,
                    error: None,
                    late_drop: false,
                });
            }
            assert_eq!(speed(&operation), expected, "{moves:?}");
        }
    }
}
