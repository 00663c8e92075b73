//! Scheduled windows over a day: nodes are there when one opens, a restart inside one changes nothing, its closing removes
//! nothing; and the tick that opens one on time.

use super::*;
use crate::model::{Guard, Source, Trigger};

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("a time")
}

/// Every story begins at this hour, on a Monday.
const FOUR: &str = "2025-11-24T16:00:00Z";

impl Stage {
    async fn with(&self, more: &str) -> Controller {
        let config = pool(more);
        let parts = Parts { eyes: self.eyes(&config), config, ..self.parts() };
        Controller::remembering(parts).await.expect("a journal that can be read")
    }

    fn nodes(&self) -> usize {
        self.world.machines().len()
    }

    /// What the audit trail says of settings, oldest first.
    async fn settings(&self) -> Vec<String> {
        let query = HistoryQuery { kind: Some(HistoryKind::Setting), limit: 100, ..HistoryQuery::default() };
        let rows = self.journal.history(&query).await.expect("a history");
        rows.into_iter().rev().map(|row| format!("{} {}", &row.at.to_string()[11..16], row.summary)).collect()
    }
}

impl Controller {
    /// Check after check until an instant; the first at which there are so many nodes.
    async fn until(&mut self, stage: &Stage, time: &str, nodes: usize) -> Option<Timestamp> {
        let mut first = None;
        while stage.clock.now() < at(time) {
            self.hear_operator().await;
            if first.is_none() && stage.nodes() == nodes {
                first = Some(stage.clock.now());
            }
            self.check(stage).await;
        }
        self.hear_operator().await;
        first
    }
}

const OFFICE: &str = ", thresholds: {scale_up_cooldown: 60, scale_down_cooldown: 0}, schedules: [{name: office, \
                      start: '0 18 * * *', duration: 2h, timezone: Europe/Berlin, min_nodes: 5}]";

#[tokio::test(start_paused = true)]
async fn the_nodes_of_a_floor_are_there_when_its_window_opens_and_stay_when_it_closes() {
    assert_eq!(at(FOUR), START);
    let stage = Stage::of(3);
    let mut controller = stage.with(OFFICE).await;
    // Two scale-ups, 60 s each at most as far as anyone knows, and 60 s between them: 16:57.
    controller.until(&stage, "2025-11-24T16:57:00Z", 4).await;
    assert_eq!((stage.nodes(), controller.view.load().thresholds.min_nodes), (3, 3), "not before it is time");
    let there = controller.until(&stage, "2025-11-24T17:00:00Z", 5).await;
    assert!(there.is_some(), "{} nodes at 17:00, {:#?}", stage.nodes(), controller.view.load().decision);
    let last = controller.last_operation.clone().expect("an operation");
    assert_eq!((last.kind, last.trigger), (Kind::ScaleUp, Trigger::Schedule));
    assert!(last.because[0].starts_with("window office opens at 2025-11-24T17:00"), "{:?}", last.because);

    controller.check(&stage).await;
    let view = controller.view.load_full();
    let source = &view.sources["min_nodes"];
    assert_eq!((source.source, source.by.as_deref()), (Source::Window, Some("office")));
    assert_eq!(source.until, Some(at("2025-11-24T19:00:00Z")));
    assert!(view.windows[0].open && view.thresholds.min_nodes == 5, "{:?}", view.windows);

    controller.until(&stage, "2025-11-24T20:00:00Z", 3).await;
    assert_eq!(stage.nodes(), 5, "the closing of a window removes nothing");
    let view = controller.view.load_full();
    assert_eq!((view.thresholds.min_nodes, view.sources["min_nodes"].source), (3, Source::Profile));
    assert_eq!(
        stage.settings().await,
        ["17:00 window office is open: min_nodes 5; until 2025-11-24T19:00:00.000Z", "19:00 window office is closed"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_window_that_does_not_look_ahead_begins_with_its_start() {
    let stage = Stage::of(3);
    let mut controller = stage.with(&OFFICE.replace("min_nodes: 5", "min_nodes: 4, ahead: false")).await;
    controller.until(&stage, "2025-11-24T17:00:00Z", 4).await;
    assert_eq!(stage.nodes(), 3);
    let there = controller.until(&stage, "2025-11-24T17:05:00Z", 4).await;
    assert!(there.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_restart_inside_a_window_changes_nothing_and_tells_nothing_twice() {
    let mut stage = Stage::of(5);
    let mut controller = stage.with(OFFICE).await;
    controller.until(&stage, "2025-11-24T17:10:00Z", 5).await;
    drop(controller);
    tokio::time::sleep(Duration::from_secs(600)).await;
    stage.journal = Arc::new(stage.journal.reopen());
    let mut controller = stage.with(OFFICE).await;
    let view = controller.view.load_full();
    assert!(view.windows[0].open && view.thresholds.min_nodes == 5, "before the first check: {:?}", view.windows);
    controller.check(&stage).await;
    controller.ask(Command::Operate(asking(Kind::ScaleDown))).await.expect_err("as few as the window allows");
    drop(controller);
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await; // it closes while nobody is there
    stage.journal = Arc::new(stage.journal.reopen());
    let mut controller = stage.with(OFFICE).await;
    controller.check(&stage).await;
    assert_eq!(
        stage.settings().await,
        ["17:00 window office is open: min_nodes 5; until 2025-11-24T19:00:00.000Z", "19:20 window office is closed"]
    );
    let controller = stage.with("").await;
    assert!(controller.view.load().windows.is_empty());
}

#[tokio::test(start_paused = true)]
async fn more_nodes_than_a_window_wants_go_one_by_one_and_no_further() {
    let stage = Stage::of(6);
    let night = ", thresholds: {scale_down_cooldown: 0}, schedules: [{name: night, start: '0 17 * * *', end: '0 18 * * *', \
                 min_nodes: 2, desired_nodes: 4}]";
    let mut controller = stage.with(night).await;
    controller.until(&stage, "2025-11-24T17:00:00Z", 4).await;
    assert_eq!(stage.nodes(), 6);
    controller.until(&stage, "2025-11-24T17:50:00Z", 4).await;
    assert_eq!(stage.nodes(), 4);
    let last = controller.last_operation.clone().expect("an operation");
    assert_eq!((last.kind, last.trigger), (Kind::ScaleDown, Trigger::Schedule));
    controller.until(&stage, "2025-11-24T18:30:00Z", 4).await;
    assert_eq!(stage.nodes(), 4, "neither removed nor brought back");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_a_window_wanted_ends_with_the_window() {
    let stage = Stage::with_data(4);
    stage.world.set_flight(Some(Duration::from_secs(1200)));
    let night = ", schedules: [{name: night, start: '0 16 * * *', end: '10 16 * * *', desired_nodes: 3}]";
    let mut controller = stage.with(night).await;
    controller.until(&stage, "2025-11-24T16:09:00Z", 3).await;
    let drain = controller.operation.clone().expect("a drain under way");
    assert_eq!((drain.kind, drain.trigger), (Kind::ScaleDown, Trigger::Schedule));
    controller.until(&stage, "2025-11-24T17:30:00Z", 3).await;
    let last = controller.last_operation.clone().expect("an operation");
    assert_eq!((&last.id, last.state), (&drain.id, OperationState::Cancelled), "{last:#?}");
    let why = last.cancel.as_deref().expect("who and why");
    assert!(why.contains("the window that wanted fewer nodes has closed"), "{why}");
    assert_eq!((stage.nodes(), stage.world.cordoned()), (4, 0), "{:#?}", stage.world.ledger());
}

#[tokio::test(start_paused = true)]
async fn a_freeze_holds_what_a_window_wants_and_lets_people_pass() {
    let stage = Stage::of(6);
    let frozen = ", schedules: [{name: launch, from: 2025-11-24T15:30, to: 2025-11-24T17:30, freeze: all}, \
                  {name: night, start: '0 16 * * *', duration: 3h, desired_nodes: 4}, \
                  {name: late, start: '40 16 * * *', duration: 10m, min_nodes: 8, ahead: false}]";
    let mut controller = stage.with(frozen).await;
    controller.until(&stage, "2025-11-24T16:39:00Z", 6).await;
    let view = controller.view.load_full();
    let held = view.decision.as_ref().expect("a decision");
    assert_eq!((held.wanted, held.trigger), (Some(Kind::ScaleDown), Some(Trigger::Schedule)));
    assert_eq!(held.guards.iter().map(|g| g.name).collect::<Vec<_>>(), [Guard::WindowFreeze], "{held:?}");
    assert_eq!(held.guards[0].until, Some(at("2025-11-24T17:30:00Z")));
    controller.until(&stage, "2025-11-24T16:49:00Z", 6).await;
    let wanted = controller.view.load().decision.as_ref().and_then(|d| d.wanted);
    assert_eq!((wanted, stage.nodes()), (Some(Kind::ScaleUp), 6), "frozen both ways");
    controller.until(&stage, "2025-11-24T16:52:00Z", 6).await;
    controller.ask(Command::Operate(asking(Kind::ScaleUp))).await.expect("a person passes");
    stage.until_ended().await;
    assert_eq!(stage.nodes(), 7);
}

#[tokio::test(start_paused = true)]
async fn an_override_is_kept_below_an_open_window() {
    let stage = Stage::of(6);
    let strict = ", schedules: [{name: strict, start: '0 16 * * *', duration: 1h, cpu_threshold_high: 0.6, min_nodes: 5, \
                  health_check_interval: 10}]";
    let mut controller = stage.with(strict).await;
    controller.check(&stage).await;
    assert_eq!(controller.interval(), Duration::from_secs(10), "the window's own pace");
    let set = |name: &str, value: f64| Command::SetThresholds {
        changes: BTreeMap::from([(name.to_string(), value)]),
        ttl: None,
        reason: None,
        who: "someone".into(),
    };
    controller.ask(set("cpu_threshold_high", 0.9)).await.expect("it is taken");
    let view = controller.view.load_full();
    assert_eq!((view.thresholds.cpu_threshold_high, view.sources["cpu_threshold_high"].source), (0.6, Source::Window));
    assert!(view.overridden.contains("cpu_threshold_high"));

    for (name, value, says) in [
        ("max_nodes", 4.0, "max_nodes: 4 is below min_nodes (5), while window strict is open"),
        ("cpu_threshold_low", 0.7, "0.7 is not below cpu_threshold_high (0.6), while window strict is open"),
    ] {
        let refusal = controller.ask(set(name, value)).await.expect_err(name);
        assert_eq!(refusal.kind, RefusalKind::Unacceptable);
        assert!(refusal.detail.contains(says), "{refusal:?}");
    }
    controller.until(&stage, "2025-11-24T17:01:00Z", 6).await;
    let view = controller.view.load_full();
    assert_eq!((view.thresholds.cpu_threshold_high, view.sources["cpu_threshold_high"].source), (0.9, Source::Api));
    assert_eq!(controller.interval(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_minute_opens_a_window_between_two_checks_and_counts_as_no_check() {
    let stage = Stage { world: Fake::without_data(3), ..Stage::of(0) };
    let config = pool(
        ", thresholds: {health_check_interval: 10m}, schedules: [{name: rush, start: '4 17 * * *', duration: 1h, \
         min_nodes: 4, ahead: false}]",
    );
    let eyes = Eyes { sources: stage.world.clone(), ..stage.eyes(&config) };
    let parts = Parts { eyes, config, ..stage.parts() };
    let Running { handle, minutes, .. } = start(parts, CancellationToken::new()).await.expect("it starts");
    tokio::time::sleep(at("2025-11-24T17:03:59Z").since(START)).await;
    minutes.send(()).await.expect("the loop runs");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let view = handle.view.load_full();
    assert!(!view.windows[0].open && view.operation.is_none());
    assert_eq!(view.windows[0].next, Some(at("2025-11-24T17:04:00Z")));
    let checks = handle.recent.load().len();

    tokio::time::sleep(Duration::from_millis(500)).await;
    minutes.send(()).await.expect("the loop runs");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let view = handle.view.load_full();
    assert!(view.windows[0].open, "{:?}", view.windows);
    let operation = view.operation.as_ref().expect("begun six minutes before the next check");
    assert_eq!((operation.kind, operation.trigger), (Kind::ScaleUp, Trigger::Schedule));
    assert_eq!(handle.recent.load().len(), checks, "no observation was made for it");
    assert_eq!(stage.settings().await, ["17:04 window rush is open: min_nodes 4; until 2025-11-24T18:04:00.000Z"]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_opens_and_closes_windows_at_once_or_is_refused() {
    let stage = Stage::of(3);
    let mut controller = stage.with("").await;
    controller.check(&stage).await;
    let changes = BTreeMap::from([("max_nodes".to_string(), 4.0)]);
    let change = Command::SetThresholds { changes, ttl: None, reason: None, who: "someone".into() };
    controller.ask(change).await.expect("it is taken");
    for (more, taken, open) in [
        (", schedules: [{name: o, start: '0 16 * * *', duration: 1h, min_nodes: 5}]", false, 0),
        (", schedules: [{name: o, start: '0 16 * * *', duration: 1h, min_nodes: 4}]", true, 1),
        ("", true, 0),
    ] {
        let config = pool(more);
        let (answer, answered) = oneshot::channel();
        controller.reloaded(Reload { eyes: stage.eyes(&config), config, taking: Taking::ForGood, answer }).await;
        let verdict = answered.await.expect("an answer");
        assert_eq!(verdict.is_ok(), taken, "{more}: {verdict:?}");
        let view = controller.view.load_full();
        assert_eq!(view.windows.iter().filter(|w| w.open).count(), open, "{more}");
    }
    let told = stage.settings().await;
    assert_eq!(
        told[1..],
        ["16:00 window o is open: min_nodes 4; until 2025-11-24T17:00:00.000Z", "16:00 window o is closed"]
    );
}
