//! Joins the stages: look, think, write down, act. One controller a pool; everything reaches it as one closed `Event`.

mod ask;
mod differences;
mod hands;
mod look;
mod orders;
mod overrides;
mod picture;
mod reconcile;
mod remember;
mod roster;
mod show;
mod standing;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::alerts::Desk;
use crate::config::PoolConfig;
use crate::decide::{self, Memory, Outcome, Situation};
use crate::handle::{Asked, PoolHandle};
use crate::model::{
    Action, Alert, Decision, Experience, HistoryKind, Inventory, Machine, Mode, NodeId, NodeState, Observation,
    Operation, OperationState, Outlook, PoolName, PoolView, Request, ShardId, StepState, Timestamp,
};
use crate::observe::{self, ObserveSettings, RosterEntry, Window};
use crate::operate::drivers::{Effect, ProviderSettings, Victim};
use crate::operate::placement::Placing;
use crate::operate::runner::{Operator, Pace, Report};
use crate::operate::{plan, shards};
use crate::record::{Entry, Journal, JournalError};
use crate::schedule::Standing;
use crate::telemetry::Telemetry;

pub use look::Eyes;
use look::Look;
use overrides::Settings;

/// Who acts when no person does.
const OURSELVES: &str = "vecscale";
/// So long, and from each start on anew, a request that got no answer may still be carried out: by a process that hung, and
/// finds it when it goes on.
const LATE: Duration = Duration::from_secs(3600);
/// Observations within reach of the API.
const RECENT: usize = 100;

/// Everything that can reach the loop.
enum Event {
    Tick,
    /// Another minute of the wall clock: windows may open or close.
    Minute,
    Looked(Box<Look>),
    Asked(Asked),
    Report(Report),
    /// Other alerts fire than before. What is done about it is decided at the next check.
    Alerts,
    Reload(Box<Reload>),
    Stop,
}

/// Whether a pool only says if it would take a configuration, or takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    Trial,
    ForGood,
}

/// A new configuration of the pool, checked whole.
pub struct Reload {
    pub config: PoolConfig,
    pub eyes: Eyes,
    pub taking: Taking,
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// What a controller is made of.
pub struct Parts {
    pub config: PoolConfig,
    /// The mode at the very first start.
    pub first_mode: Mode,
    pub eyes: Eyes,
    pub journal: Arc<dyn Journal>,
    pub telemetry: Telemetry,
    pub stop_file: StopFile,
}

/// Whether a `STOP` file lies in the storage path.
pub type StopFile = Arc<dyn Fn() -> bool + Send + Sync>;

/// Loads what the journal remembers and starts the loop.
///
/// # Errors
/// When the journal cannot be read or written: without it nothing may be done.
pub async fn start(parts: Parts, stop: CancellationToken) -> Result<Running, JournalError> {
    let (commands, asked) = mpsc::channel(64);
    let (reloads, reload) = mpsc::channel(1);
    let (minutes, minute) = mpsc::channel(1);
    let controller = Controller::remembering(parts).await?;
    let handle = PoolHandle {
        pool: controller.pool.clone(),
        view: controller.view.clone(),
        recent: controller.recent.clone(),
        commands,
        alerts: controller.desk.clone(),
    };
    controller.telemetry.register_pool(&handle.pool, handle.view.clone());
    let task = tokio::spawn(controller.run(asked, reload, minute, stop));
    Ok(Running { handle, reloads, minutes, task })
}

/// A started controller.
pub struct Running {
    pub handle: PoolHandle,
    pub reloads: mpsc::Sender<Reload>,
    /// To be told when a minute begins. Without, windows are looked at with each check.
    pub minutes: mpsc::Sender<()>,
    pub task: tokio::task::JoinHandle<()>,
}

struct Controller {
    pool: PoolName,
    config: PoolConfig,
    settings: Settings,
    mode: Mode,
    eyes: Eyes,
    journal: Arc<dyn Journal>,
    operator: Operator,
    reports: mpsc::UnboundedReceiver<Report>,
    telemetry: Telemetry,
    stop_file: StopFile,
    /// Notifications of alerts arrive there without us; it tells when what it shows has changed.
    desk: Arc<Desk>,

    window: Window,
    memory: Memory,
    /// As of the last check, or the last minute.
    windows: Standing,
    windows_told: windows::Told,
    maintenance: BTreeMap<NodeId, Timestamp>,
    experience: Experience,
    /// The last that each source said; a silent one says nothing new.
    machines: Vec<Machine>,
    /// Whether the provider ever listed a node, or one was made, restarts included: an empty list is an error from then on.
    has_listed: Arc<AtomicBool>,
    /// Whether the journal has it that the provider has listed a node.
    list_is_noted: bool,
    /// What shards are placed by, as of the last look.
    placing: Arc<ArcSwap<Placing>>,
    world: Option<World>,
    /// As of the last change that the desk told of.
    alerts: Arc<Vec<Alert>>,
    decision: Option<Decision>,
    operation: Option<Operation>,
    last_operation: Option<Operation>,
    /// The last that changed the number of nodes.
    last_scaling: Option<Operation>,
    /// Of whom the pool consisted when all were last explained; `None` before the very first look.
    census: Option<differences::Census>,
    /// Nodes that operations account for, since the census.
    touched: BTreeSet<NodeId>,
    /// Copies that a node may yet drop, as past operations leave them, and since when that is known.
    late_drops: BTreeMap<(ShardId, NodeId), Instant>,
    /// Nodes that past operations have cordoned, for as long as a cordon there may be theirs.
    cordoned: BTreeMap<NodeId, reconcile::OurCordon>,
    /// Hooks that put nodes back in service and have not answered yet, by the key that they were asked with.
    entering: BTreeMap<String, AbortOnDropHandle<Effect<()>>>,
    /// Drained nodes whose cordon was set anew, and which the store has not called cordoned since: it does not tell.
    set_anew: BTreeSet<NodeId>,
    /// The first look after the start was held against the journal.
    reconciled: bool,
    /// Operations that ended since the start: what was looked at before the last of these ends shows another pool.
    ended: u64,
    /// The look that is under way: `ended` when it began.
    looking: Option<u64>,
    /// Requests that wait for the look at what the last operation left.
    waiting: Vec<Asked>,
    /// Why the last check could not be written down: nothing is begun while it is so.
    journal_trouble: Option<String>,

    view: Arc<ArcSwap<PoolView>>,
    recent: Arc<ArcSwap<VecDeque<Arc<Observation>>>>,
}

/// The last look, thought through.
struct World {
    /// Operations that had ended when it was looked at.
    ended: u64,
    roster: Vec<RosterEntry>,
    seen: Arc<Observation>,
    inventory: Result<Option<Inventory>, String>,
    /// Why the provider's list is not known now.
    provider_silent: Option<String>,
    outlook: Outlook,
    /// Nodes that others have added and that nobody has filled yet, by id.
    arrivals: Vec<NodeId>,
    /// Drained nodes that the store itself does not call cordoned.
    uncordoned: Vec<NodeId>,
}

impl Controller {
    async fn run(
        mut self,
        mut asked: mpsc::Receiver<Asked>,
        mut reloads: mpsc::Receiver<Reload>,
        mut minutes: mpsc::Receiver<()>,
        stop: CancellationToken,
    ) {
        let (looked, mut looks) = mpsc::channel(1);
        let mut ticks = ticks(Instant::now(), self.interval());
        let desk = self.desk.clone();
        loop {
            if ticks.period() != self.interval() {
                ticks = self.new_pace();
            }
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => Event::Stop,
                Some(report) = self.reports.recv() => Event::Report(report),
                // Before what people ask, of which there may be any number: a check is never kept waiting by that.
                Some(look) = looks.recv() => Event::Looked(Box::new(look)),
                _ = ticks.tick() => Event::Tick,
                Some(()) = minutes.recv() => Event::Minute,
                Some(ask) = asked.recv() => Event::Asked(ask),
                () = desk.changed() => Event::Alerts,
                Some(reload) = reloads.recv() => Event::Reload(Box::new(reload)),
            };
            match event {
                Event::Tick => self.begin_look(&looked),
                Event::Minute => {
                    if self.watch_windows(self.eyes.clock.now()).await {
                        self.think_again().await;
                    }
                }
                Event::Looked(look) => {
                    if !self.looked(*look).await {
                        self.begin_look(&looked);
                    }
                }
                Event::Asked(ask) => {
                    self.answer(ask).await;
                    // Before its answer it may have heard that the operation has ended.
                    if !self.is_current() && self.looking.is_none() {
                        self.begin_look(&looked);
                    }
                }
                Event::Report(report) => {
                    // An observation is made when an operation ends; if a look is under way, right after it.
                    if self.reported(report).await && self.looking.is_none() {
                        self.begin_look(&looked);
                    }
                }
                Event::Alerts => {
                    self.alerts = self.desk.shown();
                    self.show();
                }
                Event::Reload(reload) => self.reloaded(*reload).await,
                Event::Stop => break,
            }
        }
        self.operator.stop().await;
    }

    fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.overlay().thresholds.health_check_interval)
    }

    /// The time between checks has changed, whoever changed it. The next check comes one such time from now: two
    /// checks in a row are never closer than that, or a streak would mean less than it says.
    fn new_pace(&mut self) -> Interval {
        let interval = self.interval();
        self.operator.set_pace(Pace::of(interval, self.eyes.provider.timeout()));
        ticks(Instant::now() + interval, interval)
    }

    /// Looks in a task of its own, so that a silent node keeps nobody waiting for an answer.
    fn begin_look(&mut self, looked: &mpsc::Sender<Look>) {
        if self.looking.is_some() {
            self.telemetry.evaluation_missed(&self.pool);
            return;
        }
        self.looking = Some(self.ended);
        let known = self.nodes_known();
        let (eyes, looked, interval) = (self.eyes.clone(), looked.clone(), self.interval());
        tokio::spawn(async move {
            let _ = looked.send(eyes.look(known, interval).await).await; // the loop has ended
        });
    }

    fn nodes_known(&self) -> BTreeMap<NodeId, String> {
        let seen = self.world.iter().flat_map(|w| &w.seen.nodes);
        seen.map(|n| (n.id.clone(), n.address.clone())).collect()
    }

    /// One turn: what was looked at is thought through, written down, and acted upon. `false` when an operation ended
    /// meanwhile: nobody knows which part shows the pool before and which after it, and nothing is made of it.
    async fn looked(&mut self, look: Look) -> bool {
        if self.looking.take() != Some(self.ended) {
            return false;
        }
        let began = Instant::now();
        self.revive().await;
        self.expire(look.at).await;
        self.watch_windows(look.at).await;
        let at = look.at;
        self.see(look);
        self.note_list().await;
        self.reconcile(at).await;
        match self.turn(None).await {
            Ok(_) => {
                self.journal_trouble = None;
                self.telemetry.evaluated(&self.pool, began.elapsed());
            }
            Err(error) => {
                self.telemetry.journal_error(&error);
                self.journal_trouble = Some(error.to_string());
            }
        }
        self.keep_observation().await;
        self.show();
        for ask in std::mem::take(&mut self.waiting) {
            self.answer(ask).await;
        }
        true
    }

    /// Takes the open operation up again when its task has ended without a word, as a restart would: a fault of ours must
    /// not leave it half done.
    async fn revive(&mut self) {
        let goes_on = |o: &Operation| matches!(o.state, OperationState::Running | OperationState::Undoing);
        if !self.operation.as_ref().is_some_and(goes_on) || self.operator.running().is_some() {
            return;
        }
        match self.journal.open_operation(&self.pool).await {
            Ok(Some(open)) if goes_on(&open) => {
                tracing::error!(pool = %self.pool, operation = %open.id, "the task of the operation ended by itself; it is taken up again");
                self.operation = Some(self.operator.resume(open));
            }
            Ok(_) => {} // it ended, or blocked: its report is on the way
            Err(error) => self.telemetry.journal_error(&error),
        }
    }

    /// Whether the last look shows the pool as the last operation left it.
    fn is_current(&self) -> bool {
        self.world.as_ref().is_none_or(|world| world.ended == self.ended)
    }

    /// samples, machines and inventory -> observation and outlook.
    fn see(&mut self, look: Look) {
        self.telemetry.scraped(&self.pool, &look.samples.nodes);
        self.telemetry.queried(&self.pool, &look.samples.notes);
        let provider_silent = match look.machines {
            // An empty list from a provider that listed nodes before is an error, not an empty pool.
            Ok(machines) if machines.is_empty() && (self.has_listed() || !self.machines.is_empty()) => {
                Some("it lists no node at all, though it did before or one was made".to_string())
            }
            Ok(machines) => {
                self.machines = machines;
                None
            }
            Err(silent) => Some(silent.to_string()),
        };
        let mut inventory = look.inventory.map_err(|silent| silent.to_string());
        let uncordoned = match &mut inventory {
            Ok(Some(inventory)) => self.cordon_drained(inventory),
            Ok(None) | Err(_) => Vec::new(),
        };
        let arrivals = self.arrivals(inventory.as_ref().ok().and_then(Option::as_ref), &look.samples.nodes);
        let store = inventory.as_ref().ok().and_then(Option::as_ref);
        let roster = self.roster(inventory.as_ref().ok().map(Option::as_ref));
        let settings = self.observing();
        self.window.push(&settings, &roster, look.samples.nodes, store);
        self.window.told(look.at, look.samples.pool);
        let seen = observe::aggregate(&settings, &self.overlay().thresholds, &self.window, &roster, store, look.at);
        let closed = self.memory.drained().keys().chain(self.maintenance.keys()).cloned().collect();
        self.late_drops.retain(|_, since| since.elapsed() < LATE);
        let given_up = self.late_drops.keys().cloned().collect();
        let placing = Arc::new(Placing { closed, given_up, ..Placing::of(self.config.placement.clone(), &seen) });
        let outlook = match &inventory {
            Ok(inventory) => shards::outlook(inventory.as_ref(), &loads(&seen), &self.experience, &placing),
            Err(_) => Outlook::default(),
        };
        self.placing.store(placing);
        let seen = Arc::new(seen);
        self.recent.rcu(|recent| {
            let mut recent = VecDeque::clone(recent);
            recent.push_back(seen.clone());
            while recent.len() > RECENT {
                recent.pop_front();
            }
            recent
        });
        let ended = self.ended;
        self.world = Some(World { ended, roster, seen, inventory, provider_silent, outlook, arrivals, uncordoned });
    }

    /// The nodes of the pool; while the datastore is silent, those of the look before.
    fn roster(&self, inventory: Option<Option<&Inventory>>) -> Vec<RosterEntry> {
        match (inventory, &self.world) {
            (None, Some(world)) => world.roster.clone(),
            (inventory, _) => roster::nodes(&self.machines, inventory.flatten(), self.known()),
        }
    }

    fn known(&self) -> roster::Known<'_> {
        roster::Known {
            maintenance: &self.maintenance,
            lost: self.memory.replaced(),
            drained: self.memory.drained(),
            operation: self.operation.as_ref(),
        }
    }

    /// Thinks once over the last look, writes the decision down, and begins what it asks for.
    async fn turn(&mut self, request: Option<&Request>) -> Result<Option<Decision>, JournalError> {
        let Some(world) = &self.world else { return Ok(None) };
        let situation = self.situation(world, request);
        let policy = self.policy();
        let Outcome { decision, memory } = decide::decide(&policy, &self.memory, &situation);
        let let_go = decide::let_go(&policy, &situation);
        let changed = self.decision.as_ref().is_none_or(|before| differs(before, &decision));
        let who = request.map_or(OURSELVES, |r| r.who.as_str());
        let entry =
            changed.then(|| self.entry(decision.at, HistoryKind::Decision, who, &headline(&decision), &decision));
        self.journal.decided(&self.pool, &decision, &json!(memory), entry).await?; // on disk before anything moves
        self.telemetry.decided(&self.pool, &decision);
        self.memory = memory;
        self.decision = Some(decision.clone());
        if decision.action != Action::Hold {
            self.begin(&decision, request).await?;
        } else if let Some(running) = self.operation.as_ref().filter(|o| decide::preempts(&decision, o)) {
            let id = running.id.clone();
            self.pre_empt(&id, headline(&decision)).await?;
        } else if let (Some(why), Some(running)) = (let_go, &self.operation) {
            let id = running.id.clone();
            self.pre_empt(&id, why).await?;
        }
        Ok(Some(decision))
    }

    /// Each observation goes into the long history once, however often it is thought about.
    async fn keep_observation(&self) {
        let Some(world) = &self.world else { return };
        if let Err(error) = self.journal.observed(&world.seen).await {
            self.telemetry.journal_error(&error);
        }
    }

    fn situation<'a>(&'a self, world: &'a World, request: Option<&'a Request>) -> Situation<'a> {
        Situation {
            seen: &world.seen,
            mode: self.mode,
            stop_file: (self.stop_file)(),
            operation: self.operation.as_ref(),
            request,
            store: match &world.inventory {
                Ok(None) => decide::Store::None,
                Ok(Some(inventory)) => decide::Store::Seen(inventory),
                Err(silent) => decide::Store::Silent(silent),
            },
            provider: decide::ProviderFacts {
                can_change: self.can_change(),
                only_victim: self.only_victim(),
                machines: world.provider_silent.is_none().then_some(self.machines.as_slice()),
                timeout: self.eyes.provider.timeout(),
            },
            outlook: &world.outlook,
            lead_times: &self.experience.lead_times,
            alerts: &self.alerts,
            arrivals: &world.arrivals,
        }
    }

    /// The only node that the provider can take away, if it cannot take any.
    fn only_victim(&self) -> Option<&NodeId> {
        match self.eyes.provider.victim() {
            Victim::Any => None,
            Victim::Last => self.machines.iter().map(|m| &m.id).max_by_key(|id| plan::ordinal(id)),
        }
    }

    /// Whether the provider makes and removes nodes at all.
    fn can_change(&self) -> bool {
        !matches!(self.config.provider, ProviderSettings::None)
    }

    fn policy(&self) -> decide::Policy {
        let overlay = self.overlay();
        decide::Policy { thresholds: overlay.thresholds, windows: overlay.now, ..self.config.policy.clone() }
    }

    fn observing(&self) -> ObserveSettings {
        let aggregate = self.config.scrape.aggregate.clone();
        let has_store = self.eyes.store.holds_data();
        let signals = self.eyes.sources.signals();
        ObserveSettings { aggregate, ..ObserveSettings::new(self.pool.clone(), signals, has_store) }
    }

    fn entry(
        &self,
        at: Timestamp,
        kind: HistoryKind,
        who: &str,
        summary: &str,
        detail: &impl serde::Serialize,
    ) -> Entry {
        let detail = serde_json::to_value(detail).unwrap_or_else(|error| json!({"unserialisable": error.to_string()}));
        Entry { at, pool: self.pool.clone(), kind, who: who.into(), summary: summary.into(), detail }
    }

    /// Begins the operation that the decision asks for; the operator writes it down first.
    async fn begin(&mut self, decision: &Decision, request: Option<&Request>) -> Result<(), JournalError> {
        let Some(world) = &self.world else { return Ok(()) };
        let Some(operation) = self.planned(decision, request, &world.seen).await? else { return Ok(()) };
        self.operator.begin(operation.clone(), request.and_then(|r| r.key.as_deref())).await?;
        self.telemetry.operation_began(&operation);
        self.operation = Some(operation);
        Ok(())
    }

    /// The operator's word of a step or an end. True when the operation ended.
    async fn reported(&mut self, report: Report) -> bool {
        let ends = matches!(report, Report::Ended { .. });
        match report {
            Report::Step { operation, step } => {
                self.telemetry.step_changed(&operation, &step);
                if let (Some(copy), StepState::Done) = (step.action.copy(), step.state) {
                    self.telemetry.moved(&self.pool, 1, copy.bytes);
                }
                self.operation = Some(*operation);
            }
            Report::Progress { operation } => self.operation = Some(*operation),
            Report::Blocked { operation } => {
                self.telemetry.operation_blocked(&operation);
                self.memory.operation_blocked(operation.updated_at);
                self.operation = Some(*operation);
            }
            Report::Ended { operation } => self.ended(*operation).await,
            Report::JournalTrouble { error } => self.telemetry.journal_error(&error),
        }
        self.show();
        ends
    }

    async fn ended(&mut self, operation: Operation) {
        let ended_at = operation.ended_at.unwrap_or(operation.updated_at);
        self.telemetry.operation_ended(&operation, self.triggered_at(&operation).await);
        if self.last_scaling.as_ref().is_some_and(|before| operation.reverses(before)) {
            self.telemetry.reversal(&self.pool);
        }
        if operation.has_scaled() {
            self.last_scaling = Some(operation.clone());
        }
        self.memory.operation_ended(&operation, ended_at);
        self.learn(&operation);
        self.touched.extend(differences::touched_by(&operation).cloned());
        self.cordoned.extend(reconcile::cordons_of([&operation]));
        self.late_drops.extend(plan::late_drops(&operation).map(|copy| (copy, Instant::now())));
        self.operation = None;
        self.last_operation = Some(operation);
        self.ended += 1;
        if let Err(error) = self.journal.save(&self.pool, "memory", &json!(self.memory), None).await {
            self.telemetry.journal_error(&error);
        }
    }

    /// The check at which what led to the operation first showed.
    async fn triggered_at(&self, operation: &Operation) -> Timestamp {
        let Some(id) = operation.decision else { return operation.started_at };
        match self.journal.decision(&self.pool, id).await {
            Ok(Some(decision)) => decision.triggered_at(self.interval()),
            _ => operation.started_at, // a later instant only makes a KPI look better than it was
        }
    }
}

fn ticks(first: Instant, interval: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(first, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// The load of every node that might be removed.
fn loads(seen: &Observation) -> BTreeMap<NodeId, Option<f64>> {
    seen.nodes.iter().filter(|n| n.state != NodeState::Lost).map(|n| (n.id.clone(), n.load)).collect()
}

/// Whether a decision says something else than the one before it: what is done or wanted, or what holds it.
fn differs(before: &Decision, now: &Decision) -> bool {
    let told = |d: &Decision| {
        (d.action.clone(), d.wanted, d.trigger, d.mode, d.guards.iter().map(|g| g.name).collect::<BTreeSet<_>>())
    };
    told(before) != told(now)
}

fn headline(decision: &Decision) -> String {
    let because =
        if decision.because.is_empty() { String::new() } else { format!(": {}", decision.because.join("; ")) };
    match (&decision.action, decision.wanted) {
        (Action::Hold, Some(kind)) => format!("hold, {} wanted{because}", kind.as_str()),
        (action, _) => format!("{}{because}", action.name()),
    }
}
