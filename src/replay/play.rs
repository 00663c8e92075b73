//! One seed, from the first check to the end of all trouble and the last accounts: the real controller over the invented
//! cluster, dying and coming back as the story wants it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Once};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::cast::{Cast, Profile, Store, Turn};
use super::mortal::Mortal;
use super::tally::Tally;
use super::world::World;
use crate::clock::TokioClock;
use crate::config::{self, PoolConfig};
use crate::controller::{self, Eyes, Parts};
use crate::handle::{Command, PoolHandle};
use crate::model::{
    HistoryItem, HistoryKind, Kind, Mode, NodeId, Operation, OperationState, Order, PoolView, Request, StepAction,
    Timestamp, UnexplainedKind, Verb, Verdict,
};
use crate::operate::plan;
use crate::record::{HistoryQuery, Journal, MemoryJournal};
use crate::telemetry::Telemetry;

/// When every story begins.
const START: Timestamp = Timestamp::from_millis(1_764_000_000_000);
/// Time for all to settle, once the faults have stopped and all that was late has come.
const CALM: Duration = Duration::from_secs(600);
/// How often a person says how a step came out, before a blocked operation counts as never ending.
const PATIENCE: u32 = 4;
const POOL: &str = "p";

/// A seed that was played.
#[derive(Clone, Debug)]
pub struct Played {
    pub seed: u64,
    pub profile: Profile,
    /// The law that was broken, in words.
    pub broken: Option<String>,
    pub tally: Tally,
    /// What happened, line by line.
    pub story: String,
}

/// What is done to a controller's parts before it starts: nothing, but in tests of the laws themselves.
pub(super) type Twist<'a> = &'a dyn Fn(Parts) -> Parts;

/// Plays one seed. The profile is drawn too, unless it is given.
pub fn play(seed: u64, profile: Option<Profile>) -> Played {
    play_with(seed, profile, &|parts| parts)
}

pub(super) fn play_with(seed: u64, profile: Option<Profile>, twist: Twist) -> Played {
    watch_panics();
    PANICKED.set(false);
    let mut rng = Rng::with_seed(seed);
    let drawn = Profile::ALL[rng.usize(0..Profile::ALL.len())];
    let profile = profile.unwrap_or(drawn);
    let cast = Cast::draw(&mut rng, profile);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a thread can have a runtime of its own");
    runtime.block_on(async {
        let mut stage = Stage::new(cast, rng, twist);
        stage.run().await;
        stage.told(seed, profile).await
    })
}

thread_local! {
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// A panic in a task is caught by the runtime; no story may hide one.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            before(info);
        }));
    });
}

/// One controller, from its start to its end.
struct Life {
    handle: PoolHandle,
    task: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

struct Stage<'a> {
    cast: Cast,
    rng: Rng,
    world: Arc<World>,
    journal: MemoryJournal,
    clock: Arc<TokioClock>,
    config: PoolConfig,
    telemetry: Telemetry,
    twist: Twist<'a>,
    began: Instant,
    life: Option<Life>,
    /// The next start dies at this instant.
    dies_again: Option<u32>,
    struck: BTreeMap<u32, NodeId>,
}

impl<'a> Stage<'a> {
    fn new(cast: Cast, mut rng: Rng, twist: Twist<'a>) -> Stage<'a> {
        let world = World::drawn(cast.scale, rng.fork(), cast.load);
        world.moves_as(&cast.store);
        Stage {
            world,
            rng,
            journal: MemoryJournal::new(),
            clock: TokioClock::starting_at(START),
            config: configured(&cast),
            telemetry: Telemetry::new(START),
            twist,
            began: Instant::now(),
            life: None,
            dies_again: None,
            struck: BTreeMap::new(),
            cast,
        }
    }

    async fn run(&mut self) {
        self.start().await;
        for (at, turn) in std::mem::take(&mut self.cast.turns) {
            self.until(self.began + at).await;
            self.happens(turn).await;
            if self.is_broken() {
                return;
            }
        }
        self.until(self.began + self.cast.span).await;
        self.calm().await;
        if !self.is_broken() {
            self.last_accounts().await;
        }
    }

    fn is_broken(&self) -> bool {
        if PANICKED.get() {
            self.breach("the program panicked".into());
        }
        if self.life.as_ref().is_some_and(|life| life.task.is_finished()) {
            self.breach("the controller ended by itself".into());
        }
        self.world.as_left().laws.broken().is_some()
    }

    fn breach(&self, what: String) {
        self.world.as_left().laws.breach(|| what);
    }

    // ---- lives of the controller

    async fn start(&mut self) {
        self.world.crash.arm(self.dies_again.take());
        loop {
            let parts = (self.twist)(self.parts());
            let stop = CancellationToken::new();
            let started = tokio::select! {
                biased;
                () = self.world.crash.happened.notified() => None,
                started = controller::start(parts, stop.clone()) => Some(started),
            };
            match started {
                Some(Ok(running)) => {
                    self.life = Some(Life { handle: running.handle, task: running.task, stop });
                    return;
                }
                Some(Err(error)) => {
                    self.world.state().told(format!("vecscale does not start: {error}"));
                    sleep(Duration::from_secs(20)).await;
                }
                None => self.bury().await,
            }
        }
    }

    fn parts(&self) -> Parts {
        let journal = Mortal::new(self.journal.reopen(), self.world.clone());
        let eyes = Eyes {
            provider: self.world.clone(),
            store: self.world.clone(),
            sources: self.world.clone(),
            clock: self.clock.clone(),
        };
        Parts {
            config: self.config.clone(),
            first_mode: Mode::Active,
            eyes,
            journal: Arc::new(journal),
            telemetry: self.telemetry.clone(),
            stop_file: Arc::new(|| false),
        }
    }

    /// The controller is dead: nothing of it is left, and for a while nobody is there.
    async fn bury(&mut self) {
        {
            let mut state = self.world.state();
            state.told("vecscale dies".into());
            state.tally.fault("crashes");
        }
        if let Some(life) = self.life.take() {
            life.task.abort();
            let _ = life.task.await; // it was aborted: that is what it says
        }
        tokio::task::yield_now().await;
        self.world.crash.arm(None);
        let gone_for = Duration::from_millis(self.rng.u64(100..60_000));
        sleep(gone_for).await;
        self.world.state().told("vecscale starts again".into());
    }

    async fn restart(&mut self) {
        if let Some(life) = self.life.take() {
            life.stop.cancel();
            let _ = life.task.await; // a panic in it was noted
        }
        self.world.state().told("vecscale is restarted".into());
        self.start().await;
    }

    async fn until(&mut self, at: Instant) {
        loop {
            let died = tokio::select! {
                biased;
                () = self.world.crash.happened.notified() => true,
                () = sleep_until(at) => false,
            };
            if !died {
                return;
            }
            self.bury().await;
            self.start().await;
        }
    }

    /// Asks, and does not wait: whoever asks may never hear an answer.
    fn ask(&self, command: Command) {
        let Some(life) = &self.life else { return };
        let handle = life.handle.clone();
        tokio::spawn(async move {
            let _ = handle.ask(command).await; // what came of it shows in the journal
        });
    }

    fn set_mode(&self, mode: Mode) {
        self.ask(Command::SetMode { mode, who: "a person".into() });
    }

    // ---- the story

    async fn happens(&mut self, turn: Turn) {
        match turn {
            Turn::Crash { after, again } => {
                self.dies_again = again;
                self.world.crash.arm(Some(after));
            }
            Turn::Restart => {
                // An armed crash would strike while it stops, and an orderly stop waits for what never ends then.
                self.world.crash.arm(None);
                self.restart().await;
            }
            Turn::Strike { slot, blow } => {
                let ids: Vec<NodeId> = self.world.state().machines.keys().cloned().collect();
                if !ids.is_empty() {
                    let id = ids[self.rng.usize(0..ids.len())].clone();
                    self.world.strikes(&id, blow);
                    self.struck.insert(slot, id);
                }
            }
            Turn::Then { slot, blow } => {
                if let Some(id) = self.struck.get(&slot) {
                    self.world.strikes(id, blow);
                }
            }
            Turn::Weather { calls, reads, latest } => {
                let mut state = self.world.state();
                state.faults.per_mille = calls;
                state.faults.reads_per_mille = reads;
                state.faults.latest = latest;
            }
            Turn::Jump(by) => {
                self.clock.set_by(by);
                let mut state = self.world.state();
                state.told(format!("the wall clock is set by {} s", by / 1000));
                state.tally.fault("clock jumps");
            }
            Turn::Ask(kind) => {
                self.world.state().told(format!("a person asks for {}", kind.as_str()));
                let who = "a person".into();
                self.ask(Command::Operate(Request { kind, nodes: 1, node: None, reason: None, who, key: None }));
            }
            Turn::Set(mode) => {
                self.world.state().told(format!("a person sets mode {}", mode.as_str()));
                self.set_mode(mode);
            }
            Turn::Order(what) => self.order(what),
            Turn::Tidy { adopt } => self.tidy(adopt),
            Turn::Listing(_) | Turn::StoreSilent(_) | Turn::Slow(_) | Turn::Flight(_) | Turn::Fill(_) => {
                self.world.changes(&turn);
            }
        }
    }

    fn view(&self) -> Option<Arc<PoolView>> {
        self.life.as_ref().map(|life| life.handle.view.load_full())
    }

    fn order(&self, what: Verb) {
        let Some(operation) = self.view().and_then(|view| view.operation.as_ref().map(|o| o.id.clone())) else {
            return;
        };
        self.world.state().told(format!("a person orders {what:?}"));
        self.ask(Command::Order { operation, order: Order { what, who: "a person".into(), reason: None } });
    }

    fn tidy(&self, adopt: bool) {
        let Some(view) = self.view() else { return };
        let lost = self.world.state().laws.lost.iter().next().cloned();
        let Some(node) = view.unexplained.first().map(|u| u.node.clone()).or(lost) else { return };
        let kind = if adopt { Kind::Adopt } else { Kind::Reap };
        self.world.state().told(format!("a person asks for {} of {node}", kind.as_str()));
        let who = "a person".into();
        self.ask(Command::Operate(Request { kind, nodes: 1, node: Some(node), reason: None, who, key: None }));
    }

    /// The faults have stopped: everything that is open must come to an end, after which nothing new is begun.
    async fn calm(&mut self) {
        self.world.crash.arm(None);
        self.dies_again = None;
        self.world.calms_down();
        self.set_mode(Mode::Active);
        self.order(Verb::Resume);
        let calm_since = self.world.state().due.iter().map(|due| due.at).fold(Instant::now(), Instant::max);
        self.until(calm_since + CALM / 2).await;
        self.order(Verb::Retry);
        self.until(calm_since + CALM).await;
        self.set_mode(Mode::Stopped);
        let mut words = 0;
        while let Some(open) = self.open_operation().await {
            if self.is_broken() {
                return;
            }
            if open.state == OperationState::Blocked {
                // Of a cluster that is silent for good nobody can say who its members are, a person included.
                if self.world.is_silent() {
                    return;
                }
                if words >= PATIENCE {
                    let kind = open.kind.as_str();
                    return self.breach(format!("{kind} is still blocked though all is well: {}", open.detail));
                }
                words += 1;
                self.word(&open, words);
            }
            if calm_since.elapsed() > CALM + time_for(&open) {
                return self.breach(format!("{} never ends: {:?}", open.kind.as_str(), open.current_step()));
            }
            self.until(Instant::now() + Duration::from_secs(30)).await;
        }
        self.until(Instant::now() + Duration::from_secs(3 * self.cast.interval)).await;
    }

    /// A person lets it look again; if that does not help, looks at the world and says how the step came out.
    fn word(&self, open: &Operation, words: u32) {
        let step = plan::next_step(open).map(|i| &open.steps[i].action);
        self.order(match step {
            Some(action) if words > 1 && self.world.has_effect(action) => Verb::Resolve(Verdict::Done),
            Some(_) if words > 1 => Verb::Resolve(Verdict::Absent),
            _ => Verb::Retry,
        });
    }

    async fn open_operation(&self) -> Option<Operation> {
        self.journal.open_operation(&POOL.into()).await.ok().flatten()
    }

    /// Nothing is left lying about that nobody knows of. Of a cluster that is silent for good nobody can say who its members
    /// are: the picture has no shards then, and a person is asked.
    async fn last_accounts(&self) {
        let Some(view) = self.view() else { return };
        let told = |id: &NodeId, kind| view.unexplained.iter().any(|u| u.node == *id && u.kind == kind);
        let told_lost =
            |id: &NodeId| view.needs_human.iter().any(|need| need.starts_with(&format!("{id} was replaced")));
        let broken = {
            let state = self.world.state();
            let orphan = state.machines.keys().find(|id| {
                let is_member = !state.scale.data || state.members.contains_key(*id);
                let silent = state.scale.data && view.store.replicas_missing.is_none() && !view.needs_human.is_empty();
                !is_member && !silent && !told_lost(id) && !told(id, UnexplainedKind::OrphanInstance)
            });
            let cordoned = state
                .members
                .iter()
                .filter(|(_, cordoned)| **cordoned)
                // Each node is told of once: that its machine is gone comes first.
                .filter(|(id, _)| !told(id, UnexplainedKind::GhostMember))
                .find(|(id, _)| !state.laws.is_stray(id) || !told(id, UnexplainedKind::LeftOverCordon));
            match (orphan, cordoned) {
                (Some(id), _) => Some(format!("{id} runs, is no member, and nobody tells of it")),
                (_, Some((id, _))) => Some(format!("{id} is left cordoned")),
                _ => None,
            }
        };
        if let Some(what) = broken {
            self.breach(what);
        }
        self.audit().await;
    }

    /// Each operation has its beginning and its end in the audit trail, each effect one row.
    async fn audit(&self) {
        let query = HistoryQuery { limit: usize::MAX, ..HistoryQuery::default() };
        let rows = self.journal.history(&query).await.unwrap_or_default();
        let mut ended: BTreeMap<String, u32> = BTreeMap::new();
        for row in &rows {
            let step = &row.detail["step"];
            // A left-over cordon is told of before each try, by the name of the step alone.
            if row.kind == HistoryKind::Step && step.is_object() {
                let key = format!("{} {}", step["key"], step["state"]);
                *ended.entry(key).or_default() += 1;
            }
        }
        if let Some((key, times)) = ended.iter().find(|(_, times)| **times > 1) {
            self.breach(format!("the end of step {key} is told {times} times"));
        }
        for operation in self.journal.operations(&POOL.into(), usize::MAX, None).await.unwrap_or_default() {
            let own =
                |row: &&HistoryItem| row.kind == HistoryKind::Operation && row.detail["operation"] == *operation.id.0;
            let ends = rows.iter().filter(own).filter(|row| row.detail["state"] == operation.state.as_str()).count();
            if ends != 1 && operation.state.is_final() {
                self.breach(format!("the end of {} is told {ends} times", operation.id));
            }
        }
    }

    async fn told(self, seed: u64, profile: Profile) -> Played {
        let passed = self.began.elapsed();
        let (broken, tally, ledger) = {
            let mut state = self.world.as_left();
            state.tally.stories = 1;
            state.tally.simulated_seconds = passed.as_secs();
            let broken = state.laws.broken().map(str::to_string);
            (broken, state.tally.clone(), std::mem::take(&mut state.ledger))
        };
        let mut story =
            format!("seed {seed}, profile {}: {:?}, load {:?}\n", profile.as_str(), self.cast.scale, self.cast.load);
        let _ = writeln!(story, "{:?}", self.cast.store);
        if !self.cast.windows.is_empty() {
            let _ = writeln!(story, "windows: {}", self.cast.windows);
        }
        for line in ledger {
            let mark = if line.is_call { "->" } else { "  " };
            let note = if line.note.is_empty() { String::new() } else { format!("  [{}]", line.note) };
            let _ = writeln!(story, "{:>9.1} s {mark} {}{note}", line.at.as_secs_f64(), line.text);
        }
        story.push_str("audit trail:\n");
        let query = HistoryQuery { limit: usize::MAX, ..HistoryQuery::default() };
        let mut rows = self.journal.history(&query).await.unwrap_or_default();
        rows.reverse();
        for row in rows {
            let _ = writeln!(story, "{} {:?} {}: {}", row.at, row.kind, row.who, row.summary);
        }
        Played { seed, profile, broken, tally, story }
    }
}

/// The longest that an operation may take to come to an end: all its deadlines, with every repeat.
fn time_for(operation: &Operation) -> Duration {
    let deadlines: Duration = operation.steps.iter().map(|step| step.deadline).sum();
    deadlines * 9 + Duration::from_secs(7200)
}

fn configured(cast: &Cast) -> PoolConfig {
    let text = format!(
        "pools: [{{name: {POOL}, provider: {{type: process}}, datastore: {{type: vectornode}}, replace: {{after: 6m}}, \
         thresholds: {{min_nodes: {}, max_nodes: {}, health_check_interval: {}, scale_up_cooldown: 60, \
         scale_down_cooldown: 120}}, schedules: [{}]}}]",
        cast.scale.min_nodes, cast.scale.max_nodes, cast.interval, cast.windows
    );
    let config = config::parse(&text, "the story", std::path::Path::new("/")).unwrap_or_else(|e| panic!("{e}"));
    config.pools.into_iter().next().expect("one pool")
}

impl World {
    /// Whether the effect of the step is there, as anyone may see who goes and looks.
    fn has_effect(&self, action: &StepAction) -> bool {
        let state = self.state();
        match action {
            StepAction::Create { node } => state.machines.contains_key(node),
            StepAction::Destroy { node } => !state.machines.contains_key(node),
            StepAction::Join { node } => state.members.contains_key(node),
            StepAction::Leave { node } | StepAction::Forget { node } | StepAction::Unjoin { node } => {
                !state.members.contains_key(node)
            }
            StepAction::Cordon { node } => state.members.get(node) == Some(&true),
            StepAction::Uncordon { node } => state.members.get(node) != Some(&true),
            _ => false,
        }
    }

    fn moves_as(&self, store: &Store) {
        let mut state = self.state();
        (state.flight, state.burden) = (Some(store.flight), store.burden);
        (state.copies_only, state.has_hooks) = (store.copies_only, store.has_hooks);
    }

    /// What changes for the whole cluster.
    fn changes(&self, turn: &Turn) {
        let mut state = self.state();
        let counted = match turn {
            Turn::Listing(listing) => {
                state.listing = *listing;
                (*listing != super::nature::Listing::Told).then_some("failing lists")
            }
            Turn::StoreSilent(silent) => {
                state.store_is_silent = *silent;
                silent.then_some("silent datastores")
            }
            Turn::Slow(longest) => {
                state.reads_last = *longest;
                (!longest.is_zero()).then_some("slow reads")
            }
            Turn::Flight(flight) => {
                state.flight = *flight;
                flight.is_none_or(|time| time.as_secs() > 5).then_some("slow or stuck transfers")
            }
            Turn::Fill(writes) => {
                state.full = *writes;
                Some("full disks")
            }
            _ => None,
        };
        state.told(format!("{turn:?}"));
        if let Some(name) = counted {
            state.tally.fault(name);
        }
    }
}
