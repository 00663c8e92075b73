//! Stories of the controller over a fake world, in paused time: what it remembers, what it refuses, when it looks.

mod alerts;
mod hands;
mod orders;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

mod reconciling;

use super::*;
use crate::clock::{Clock, TokioClock};
use crate::config;
use crate::handle::{Command, Refusal, RefusalKind, Reply};
use crate::model::{Answer, Kind, NodeSample, Samples};
use crate::operate::drivers::{Datastore, Provider};
use crate::record::{HistoryQuery, MemoryJournal};
use crate::replay::{Fault, World as Fake};
use crate::scrape::Sources;

const START: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// A fake world of nodes without data, one journal, and one controller after the other.
struct Stage {
    world: Arc<Fake>,
    journal: Arc<MemoryJournal>,
    clock: Arc<TokioClock>,
    stop_file: Arc<std::sync::atomic::AtomicBool>,
}

/// The drivers that it names are not those of the stage. Its few shards lie unevenly, and evening them out is not what
/// these stories are about.
fn pool(more: &str) -> PoolConfig {
    let text = format!(
        "pools: [{{name: p, provider: {{type: process}}, datastore: {{type: vectornode}}, scrape: {{preset: none}}, \
         checks: {{hotspot: off}}{more}}}]"
    );
    let config = config::parse(&text, "config.yaml", std::path::Path::new("/")).unwrap_or_else(|e| panic!("{e}"));
    config.pools.into_iter().next().expect("one pool")
}

impl Stage {
    fn of(nodes: usize) -> Stage {
        let world = Fake::without_data(nodes);
        let clock = TokioClock::starting_at(START);
        Stage { world, journal: Arc::new(MemoryJournal::new()), clock, stop_file: Arc::default() }
    }

    /// With a datastore: six shards, two copies each.
    fn with_data(nodes: usize) -> Stage {
        Stage { world: Fake::new(nodes, 6, 2), ..Stage::of(0) }
    }

    fn eyes(&self, config: &PoolConfig) -> Eyes {
        let sources = Arc::new(Sources::new(config.scrape.clone()).expect("sources"));
        Eyes { provider: self.world.clone(), store: self.world.clone(), sources, clock: self.clock.clone() }
    }

    fn parts(&self) -> Parts {
        let config = pool("");
        let stop_file = self.stop_file.clone();
        Parts {
            eyes: self.eyes(&config),
            config,
            first_mode: Mode::Active,
            journal: self.journal.clone(),
            telemetry: Telemetry::new(START),
            stop_file: Arc::new(move || stop_file.load(std::sync::atomic::Ordering::Relaxed)),
        }
    }

    async fn controller(&self) -> Controller {
        Controller::remembering(self.parts()).await.expect("a journal that can be read")
    }

    /// The process died, and is started again.
    async fn restarted(&mut self) -> Controller {
        self.journal = Arc::new(self.journal.reopen());
        self.controller().await
    }

    /// What a look at the world brings now, every node answering.
    async fn look(&self) -> Look {
        let machines = self.world.list().await;
        let sample = |m: &Machine| NodeSample {
            node: m.id.clone(),
            at: self.clock.now(),
            took: Duration::from_millis(5),
            answer: if self.world.is_dead(&m.id) { Answer::None } else { Answer::Up },
            signals: BTreeMap::new(),
        };
        let samples = Samples::of_nodes(machines.iter().flatten().map(sample).collect());
        let inventory = if self.world.holds_data() { self.world.inventory(None).await.map(Some) } else { Ok(None) };
        Look { at: self.clock.now(), machines, inventory, samples }
    }

    /// Waits until the journal has no open operation; the controller hears nothing of it.
    async fn until_ended(&self) {
        let ended = async {
            while self.journal.open_operation(&"p".into()).await.expect("a journal").is_some() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10_000), ended).await.expect("the operation never ended");
    }
}

impl Controller {
    /// One whole check.
    async fn check(&mut self, stage: &Stage) {
        self.looking = Some(self.ended);
        assert!(self.looked(stage.look().await).await, "an operation ended meanwhile");
        tokio::time::sleep(self.interval()).await;
    }

    async fn ask(&mut self, command: Command) -> Result<Reply, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.answer(Asked { command, answer }).await;
        answered.await.expect("an answer")
    }
}

fn asking(kind: Kind) -> Request {
    Request { kind, nodes: 1, node: None, reason: None, who: "someone".into(), key: None }
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_the_end_of_an_operation_and_the_memory_of_it_forgets_no_cooldown() {
    let mut stage = Stage::of(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    controller.ask(Command::Operate(asking(Kind::ScaleUp))).await.expect("it begins");
    stage.until_ended().await;
    drop(controller); // it never heard of the end

    let mut controller = stage.restarted().await;
    controller.check(&stage).await;
    let view = controller.view.load_full();
    assert!(view.cooldowns.scale_up > Duration::from_secs(200), "{:?}", view.cooldowns);
    assert!(view.guards.iter().any(|g| g.name == crate::model::Guard::ManualHold), "{:?}", view.guards);

    let before = json!(controller.memory);
    let controller = stage.restarted().await;
    assert_eq!(json!(controller.memory), before, "what was taken in once is not taken in again");
}

#[tokio::test(start_paused = true)]
async fn for_an_hour_no_copy_goes_where_one_may_yet_be_dropped() {
    let mut stage = Stage { world: Fake::new(3, 3, 2), ..Stage::of(0) };
    stage.world.only_copies();
    // It is asked for twice: the first request comes later, the second one is answered.
    stage.world.fault("finish", &[Fault::Late(Duration::from_secs(600))]);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    controller.ask(Command::Operate(asking(Kind::ScaleUp))).await.expect("it begins");
    stage.until_ended().await;
    controller.hear_operator().await;
    controller.check(&stage).await;
    let barred = |controller: &Controller| controller.placing.load().given_up.clone();
    let known = barred(&controller);
    assert_eq!(known.len(), 1, "{:#?}", stage.world.ledger());

    // Its shard does not go back to where it came from, though that node is the emptiest.
    let back = Request { node: NodeId::new("p-4").ok(), ..asking(Kind::ScaleDown) };
    controller.ask(Command::Operate(back)).await.expect("it begins");
    stage.until_ended().await;
    assert_eq!(stage.world.members(), ["n1", "n2", "n3"]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    stage.world.check().unwrap_or_else(|broken| panic!("{broken}: {:#?}", stage.world.ledger()));

    let mut controller = stage.restarted().await;
    controller.check(&stage).await;
    assert_eq!(barred(&controller), known);
    tokio::time::sleep(LATE).await;
    controller.check(&stage).await;
    assert!(barred(&controller).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_person_asks_is_decided_in_their_name_and_counts_no_observation_twice() {
    let stage = Stage::of(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    controller.ask(Command::Operate(asking(Kind::ScaleDown))).await.expect_err("there are as few as min_nodes");
    let query = HistoryQuery { kind: Some(HistoryKind::Decision), limit: 1, ..HistoryQuery::default() };
    let newest = stage.journal.history(&query).await.expect("a history");
    assert_eq!(newest[0].who, "someone", "{newest:?}");

    stage.world.take_away(3);
    controller.check(&stage).await;
    let rows = stage.journal.observations(&"p".into(), START, 300).await.expect("rows");
    assert_eq!(rows[0]["node_count"]["mean"], 2.5, "one check saw 3 nodes, one saw 2: {rows:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_decided_over_nodes_that_the_last_operation_took_away() {
    let stage = Stage::of(4);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    let old = stage.look().await;
    controller.looking = Some(controller.ended); // it began before the end, and comes after it
    controller.ask(Command::Operate(asking(Kind::ScaleDown))).await.expect("4 nodes, min_nodes 3");
    stage.until_ended().await;
    controller.hear_operator().await;
    assert_eq!(stage.world.machines().len(), 3);

    let (answer, mut answered) = oneshot::channel();
    controller.answer(Asked { command: Command::Operate(asking(Kind::ScaleDown)), answer }).await;
    assert!(!controller.looked(old).await, "a look from before the end was taken");
    assert!(answered.try_recv().is_err(), "answered before the pool was looked at again");
    controller.check(&stage).await;
    let refusal = answered.await.expect("an answer").expect_err("3 nodes, min_nodes 3");
    assert!(refusal.guards.iter().any(|g| g.name == crate::model::Guard::MinNodes), "{refusal:?}");
    assert_eq!(stage.world.machines().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn checks_keep_their_distance_whoever_changes_it() {
    let stage = Stage::of(0); // nobody to scrape: a look takes no time
    let parts = Parts { first_mode: Mode::Stopped, ..stage.parts() };
    let Running { handle, reloads, .. } = start(parts, CancellationToken::new()).await.expect("it starts");
    let checks = || handle.recent.load().len();
    let sleep = |secs: u64| tokio::time::sleep(Duration::from_secs(secs));
    sleep(1).await;
    assert_eq!(checks(), 1, "the first at once");
    for _ in 0..5 {
        let config = pool("");
        let (answer, answered) = oneshot::channel();
        let reload = Reload { eyes: stage.eyes(&config), config, taking: Taking::ForGood, answer };
        assert!(reloads.send(reload).await.is_ok());
        answered.await.expect("an answer").expect("it is taken");
    }
    sleep(28).await;
    assert_eq!(checks(), 1, "a reload is no check");
    sleep(2).await;
    assert_eq!(checks(), 2);

    let ttl = Some(Duration::from_secs(60));
    let changes = BTreeMap::from([("health_check_interval".to_string(), 10.0)]);
    let change = Command::SetThresholds { changes, ttl, reason: None, who: "someone".into() };
    handle.ask(change).await.expect("it is taken");
    sleep(9).await;
    assert_eq!(checks(), 2, "the next check is a whole new interval away");
    sleep(52).await;
    assert_eq!(checks(), 8, "every 10 s for a minute");
    sleep(31).await;
    assert_eq!(checks(), 9, "and then every 30 s again");
}

#[tokio::test(start_paused = true)]
async fn the_operator_follows_a_new_interval() {
    let stage = Stage::of(3);
    let mut controller = stage.controller().await;
    let changes = BTreeMap::from([("health_check_interval".to_string(), 1.0)]);
    let change = Command::SetThresholds { changes, ttl: None, reason: None, who: "someone".into() };
    controller.ask(change).await.expect("it is taken");
    controller.new_pace();
    assert_eq!(controller.operator.pace().probe, Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_restart_takes_no_node_away_before_the_pool_was_looked_at() {
    let mut stage = Stage::of(4);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    controller.ask(Command::Operate(asking(Kind::ScaleDown))).await.expect("4 nodes, min_nodes 3");
    drop(controller); // before the operator did anything

    stage.world.take_away(1); // while nobody looked
    let mut controller = stage.restarted().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.world.machines().len(), 3, "a node was taken away unseen");
    controller.check(&stage).await;
    stage.until_ended().await;
    assert_eq!(stage.world.machines().len(), 3, "2 nodes would be fewer than min_nodes");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_vanished_since_the_last_look_does_not_count_as_staying() {
    let stage = Stage::of(4);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    stage.world.take_away(1);
    let down = Request { node: NodeId::new("n4").ok(), ..asking(Kind::ScaleDown) };
    controller.ask(Command::Operate(down)).await.expect("4 nodes as far as is known, min_nodes 3");
    stage.until_ended().await;
    controller.hear_operator().await;
    let last = controller.last_operation.as_ref().expect("it ended");
    assert!(last.state == OperationState::Failed && last.detail.contains("2 nodes would stay"), "{}", last.detail);
    assert_eq!(stage.world.machines().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_no_empty_pool_also_after_a_restart() {
    let mut stage = Stage::of(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    drop(controller);
    for n in 1..=3 {
        stage.world.take_away(n);
    }
    let mut controller = stage.restarted().await;
    for _ in 0..10 {
        controller.check(&stage).await;
    }
    assert_eq!(stage.world.ledger(), [] as [String; 0], "acted on an empty list");
    let guards = controller.view.load().guards.clone();
    assert!(guards.iter().any(|g| g.name == crate::model::Guard::NoProvider), "{guards:?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_stays_empty_after_a_node_was_made_is_wrong() {
    let mut stage = Stage::of(0);
    stage.world.lists_nothing();
    let mut controller = stage.controller().await;
    for _ in 0..20 {
        controller.check(&stage).await;
        if controller.operation.is_some() {
            stage.until_ended().await;
            controller.hear_operator().await;
        }
    }
    assert_eq!(stage.world.machines(), ["p-1"], "{:#?}", controller.decision);
    for _ in 0..20 {
        let guards = controller.view.load().guards.clone();
        assert!(guards.iter().any(|g| g.name == crate::model::Guard::NoProvider), "{guards:?}");
        controller = stage.restarted().await;
        controller.check(&stage).await;
    }
    assert_eq!(stage.world.machines(), ["p-1"], "also over restarts");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_to_list_nothing_any_more_is_not_silent() {
    let stage = Stage::with_data(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    controller.ask(Command::Operate(asking(Kind::ScaleUp))).await.expect("it begins");
    stage.until_ended().await;
    drop(controller);
    stage.world.lists_nothing();
    let parts = stage.parts();
    let config = PoolConfig { provider: crate::operate::drivers::ProviderSettings::None, ..parts.config };
    let parts = Parts { config, journal: Arc::new(stage.journal.reopen()), ..parts };
    let mut controller = Controller::remembering(parts).await.expect("a journal that can be read");
    controller.check(&stage).await;
    let needs = controller.view.load().needs_human.join("; ");
    assert!(!needs.contains("the provider does not answer"), "{needs}");
}

#[tokio::test(start_paused = true)]
async fn a_moved_shard_is_counted() {
    let stage = Stage::with_data(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    controller.ask(Command::Operate(asking(Kind::ScaleUp))).await.expect("it begins");
    stage.until_ended().await;
    controller.hear_operator().await;
    let moved = stage.world.ledger().iter().filter(|line| line.starts_with("move ")).count();
    assert!(moved > 0, "{:?}", stage.world.ledger());
    let page = controller.telemetry.render();
    assert!(page.contains(&format!("vecscale_shards_moved_total{{pool=\"p\"}} {moved}")), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_repeated_key_starts_nothing_twice_and_stands_for_one_kind_of_request() {
    let mut stage = Stage::of(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    let keyed = |kind| Command::Operate(Request { key: Some("k1".into()), ..asking(kind) });
    let Reply::Operation(first) = controller.ask(keyed(Kind::ScaleUp)).await.expect("it begins") else { panic!() };
    stage.until_ended().await;
    let mut controller = stage.restarted().await;
    let Reply::Operation(again) = controller.ask(keyed(Kind::ScaleUp)).await.expect("known") else { panic!() };
    assert_eq!(first.id, again.id);
    let refusal = controller.ask(keyed(Kind::ScaleDown)).await.expect_err("another kind");
    assert_eq!(refusal.kind, RefusalKind::Unacceptable);
    assert_eq!(stage.world.machines().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_plan_tells_the_guards_of_its_own_kind() {
    let stage = Stage::of(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    controller.ask(Command::Operate(asking(Kind::ScaleUp))).await.expect("it begins");
    stage.until_ended().await;
    controller.hear_operator().await;
    controller.check(&stage).await;
    let view = controller.view.load_full();
    for kind in [Kind::ScaleUp, Kind::ScaleDown] {
        let guards = crate::serve::plan::plan(&view, kind)["guards"].to_string();
        assert_eq!(guards.contains("manual_hold"), kind == Kind::ScaleDown, "{kind:?}: {guards}");
        assert!(guards.contains("cooldown"), "{kind:?}: {guards}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_whose_task_died_is_taken_up_again() {
    let stage = Stage::of(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    controller.ask(Command::Operate(asking(Kind::ScaleUp))).await.expect("it begins");
    controller.operator.stop().await; // as if it had panicked: nothing is heard of it any more
    controller.hear_operator().await;
    assert!(controller.operator.running().is_none() && controller.operation.is_some());

    controller.check(&stage).await;
    stage.until_ended().await;
    controller.hear_operator().await;
    let last = controller.last_operation.as_ref().expect("an operation that ended");
    assert_eq!(last.state, OperationState::Succeeded, "{last:#?}");
    assert_eq!(stage.world.machines().len(), 4, "{:#?}", stage.world.ledger());
}
