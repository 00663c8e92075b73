//! What a person asks while an operation is open: done and shown at once, or refused with the operation's id; and what a
//! stronger decision asks of it.

use super::*;
use crate::model::{Guard, OperationId, Order, PoolView, Raw, Signal, Trigger, Verb, Verdict};
use crate::replay::{Fault, node};

fn order(operation: &OperationId, what: Verb) -> Command {
    let order = Order { what, who: "someone".into(), reason: Some("why not".into()) };
    Command::Order { operation: operation.clone(), order }
}

fn asking_for(kind: Kind, n: usize) -> Request {
    Request { node: Some(node(n)), ..asking(kind) }
}

fn stop() -> Command {
    Command::SetMode { mode: Mode::Stopped, who: "someone".into() }
}

impl Controller {
    async fn begun(&mut self, kind: Kind) -> OperationId {
        match self.ask(Command::Operate(asking(kind))).await.expect("it begins") {
            Reply::Operation(operation) => operation.id,
            Reply::Done => panic!("no operation"),
        }
    }

    fn shown(&self) -> Arc<PoolView> {
        self.view.load_full()
    }

    /// The open operation, as status shows it.
    fn open(&self) -> Operation {
        self.shown().operation.clone().expect("an open operation")
    }

    fn needs(&self, words: &[&str]) {
        let needs = self.shown().needs_human.join("\n");
        for part in words {
            assert!(needs.contains(part), "{part:?} is not in {needs}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_shows_at_once_outlives_a_restart_and_says_who_and_how_to_go_on() {
    let mut stage = Stage::of(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    let id = controller.begun(Kind::ScaleUp).await;
    controller.ask(order(&id, Verb::Pause)).await.expect("it runs");
    assert!(controller.open().paused, "{:?}", controller.open());
    let how = format!("vecscale operation {id} resume");
    controller.needs(&["is paused by someone since 2025-11-24T", "(why not)", &how]);
    assert!(controller.shown().headline.contains("paused"), "{}", controller.shown().headline);
    let query = HistoryQuery { kind: Some(HistoryKind::Operation), limit: 1, ..HistoryQuery::default() };
    let row = &stage.journal.history(&query).await.expect("a history")[0];
    assert_eq!((row.who.as_str(), row.summary.as_str()), ("someone", "scale_up of p-4 is paused: why not"));

    let mut controller = stage.restarted().await;
    controller.check(&stage).await;
    controller.check(&stage).await;
    assert!(controller.open().paused && stage.world.machines().len() == 3, "{:?}", controller.open());
    controller.ask(Command::SetMode { mode: Mode::Active, who: "someone".into() }).await.expect("it is taken");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.world.machines().len(), 3, "a start resumes nothing by itself");
    controller.needs(&["is paused by someone"]);
    controller.ask(order(&id, Verb::Resume)).await.expect("it is paused");
    assert!(!controller.open().paused && controller.shown().needs_human.is_empty());
    stage.until_ended().await;
    assert_eq!(stage.world.machines().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_order_about_what_is_over_or_never_was_says_so() {
    let stage = Stage::of(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    let id = controller.begun(Kind::ScaleUp).await;
    stage.until_ended().await; // and the controller has not heard of it
    for verb in [Verb::Cancel, Verb::Pause, Verb::Retry, Verb::Resolve(Verdict::Done)] {
        let refusal = controller.ask(order(&id, verb)).await.expect_err("it is over");
        assert_eq!((refusal.kind, refusal.operation.as_ref()), (RefusalKind::Conflict, None), "{verb:?}: {refusal:?}");
        assert!(refusal.detail.contains("has ended: succeeded"), "{verb:?}: {refusal:?}");
        assert!(controller.shown().operation.is_none(), "{verb:?}: the end is shown");
    }
    let unknown = OperationId("0198".into());
    let refusal = controller.ask(order(&unknown, Verb::Cancel)).await.expect_err("there is none");
    assert_eq!(refusal.kind, RefusalKind::NotFound, "{refusal:?}");
    // The same of an operation that ended before this start.
    let mut controller = Stage { journal: Arc::new(stage.journal.reopen()), ..stage }.controller().await;
    let refusal = controller.ask(order(&id, Verb::Pause)).await.expect_err("it is over");
    assert_eq!(refusal.kind, RefusalKind::Conflict, "{refusal:?}");
}

#[tokio::test(start_paused = true)]
async fn while_an_operation_is_open_every_other_is_refused_with_its_id() {
    let stage = Stage::of(4);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    let id = controller.begun(Kind::ScaleUp).await;
    controller.ask(order(&id, Verb::Pause)).await.expect("it runs");
    for kind in Kind::ALL {
        let refusal = controller.ask(Command::Operate(asking_for(kind, 4))).await.expect_err("one is open");
        assert_eq!((refusal.kind, refusal.operation.as_ref()), (RefusalKind::Conflict, Some(&id)), "{kind:?}");
        let hit = refusal.guards.iter().find(|g| g.name == Guard::OperationRunning).expect("the guard");
        assert_eq!(hit.detail, format!("scale_up {id} is paused"), "{kind:?}");
    }
    assert!(controller.shown().guards.iter().any(|g| g.name == Guard::OperationRunning));
}

#[tokio::test(start_paused = true)]
async fn a_halt_stops_and_pauses_in_one_answer() {
    let stage = Stage::of(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    let halt = || Command::Halt { who: "someone".into() };
    controller.ask(halt()).await.expect("nothing runs: it is only stopped");
    assert_eq!(controller.shown().mode, Mode::Stopped);
    controller.begun(Kind::ScaleUp).await;
    for _ in 0..2 {
        controller.ask(halt()).await.expect("it is taken, also once more");
        assert!(controller.open().paused && controller.shown().mode == Mode::Stopped);
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.world.machines().len(), 3);
    controller.needs(&["is paused by someone", "(stop with halt)"]);

    // Without it, the operation goes on.
    let mut controller = Stage::of(3).controller().await;
    controller.ask(stop()).await.expect("it is taken");
    assert_eq!(controller.shown().mode, Mode::Stopped);
}

/// A node is to be destroyed and nobody knows whether it was.
async fn blocked() -> (Stage, Controller, OperationId) {
    let stage = Stage::of(4);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    stage.world.fault("destroy", &[Fault::Lose; 3]);
    let id = controller.begun(Kind::ScaleDown).await;
    controller.check(&stage).await;
    controller.hear_operator().await;
    assert_eq!(controller.open().state, OperationState::Blocked, "{:?}", controller.open());
    (stage, controller, id)
}

#[tokio::test(start_paused = true)]
async fn a_blocked_operation_says_its_ways_out_and_takes_them() {
    for verb in [Verb::Retry, Verb::Resolve(Verdict::Absent), Verb::Resolve(Verdict::Done)] {
        let (stage, mut controller, id) = blocked().await;
        controller.needs(&["is blocked", &format!("operation {id} retry"), "resolve --as done"]);
        let reset = Command::ResetBreaker { reason: None, who: "someone".into() };
        let refusal = controller.ask(reset).await.expect_err("it would open again at once");
        assert_eq!((refusal.kind, refusal.operation.as_ref()), (RefusalKind::Conflict, Some(&id)), "{refusal:?}");
        assert!(controller.shown().guards.iter().any(|g| g.name == Guard::BreakerOpen));

        controller.ask(order(&id, verb)).await.unwrap_or_else(|no| panic!("{verb:?}: {no}"));
        assert_eq!(controller.open().state, OperationState::Running, "{verb:?}: shown at once");
        stage.until_ended().await;
        controller.hear_operator().await;
        let last = controller.last_operation.as_ref().expect("it ended");
        assert_eq!(last.state, OperationState::Succeeded, "{verb:?}: {}", last.detail);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_breaker_is_closed_over_a_restart_too() {
    let mut stage = Stage::of(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    let is_open = |c: &Controller| c.shown().guards.iter().any(|g| g.name == Guard::BreakerOpen);
    controller.memory.operation_blocked(stage.clock.now());
    controller.check(&stage).await;
    assert!(is_open(&controller), "{:?}", controller.shown().guards);
    let reset = Command::ResetBreaker { reason: Some("mended".into()), who: "someone".into() };
    controller.ask(reset).await.expect("nothing is blocked");
    assert!(!is_open(&controller), "shown at once");
    let query = HistoryQuery { kind: Some(HistoryKind::Setting), limit: 1, ..HistoryQuery::default() };
    let row = &stage.journal.history(&query).await.expect("a history")[0];
    assert_eq!((row.who.as_str(), row.summary.as_str()), ("someone", "breaker reset: mended"));
    let mut controller = stage.restarted().await;
    controller.check(&stage).await;
    assert!(!is_open(&controller), "{:?}", controller.shown().guards);
}

#[tokio::test(start_paused = true)]
async fn a_key_stands_for_one_node() {
    let stage = Stage::of(5);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    let keyed = |n| Command::Operate(Request { key: Some("k1".into()), ..asking_for(Kind::ScaleDown, n) });
    controller.ask(keyed(5)).await.expect("it begins");
    controller.ask(keyed(5)).await.expect("the same again");
    let refusal = controller.ask(keyed(4)).await.expect_err("another node");
    assert_eq!(refusal.kind, RefusalKind::Unacceptable, "{refusal:?}");
}

// ---- pre-emption

/// Four nodes with shards on them, of which the CPU is known.
struct Busy {
    stage: Stage,
    cpu: f64,
    dead: Option<NodeId>,
}

impl Busy {
    async fn controller(cpu: f64) -> (Busy, Controller) {
        let stage = Stage { world: Fake::new(4, 6, 2), ..Stage::of(0) };
        let text = "pools: [{name: p, provider: {type: process}, datastore: {type: vectornode}, replace: {after: 60s},
            checks: {hotspot: off}, scrape: {preset: none, signals: {cpu_usage: {gauge: cpu}}}}]";
        let config = config::parse(text, "config.yaml", std::path::Path::new("/")).unwrap_or_else(|e| panic!("{e}"));
        let config = config.pools.into_iter().next().expect("one pool");
        let parts = Parts { eyes: stage.eyes(&config), config, ..stage.parts() };
        let mut controller = Controller::remembering(parts).await.expect("a journal that can be read");
        let busy = Busy { stage, cpu, dead: None };
        for _ in 0..6 {
            busy.check(&mut controller).await;
        }
        (busy, controller)
    }

    async fn check(&self, controller: &mut Controller) {
        controller.hear_operator().await;
        let mut look = self.stage.look().await;
        look.inventory = self.stage.world.inventory(None).await.map(Some);
        for sample in &mut look.samples.nodes {
            sample.signals.insert(Signal::Cpu, Ok(Raw::Gauge(self.cpu)));
            if Some(&sample.node) == self.dead.as_ref() {
                (sample.answer, sample.signals) = (Answer::None, BTreeMap::new());
            }
        }
        controller.looking = Some(controller.ended);
        assert!(controller.looked(look).await);
        tokio::time::sleep(controller.interval()).await;
    }

    /// Checks until operations of these kinds have ended so, oldest first.
    async fn until(&self, controller: &mut Controller, ends: &[(Kind, OperationState)]) {
        let mut told = Vec::new();
        for _ in 0..60 {
            self.check(controller).await;
            let past = self.stage.journal.operations(&"p".into(), 10, None).await.expect("a journal");
            told = past.iter().rev().map(|o| (o.kind, o.state)).collect();
            if told == ends {
                return;
            }
        }
        panic!("{told:?}, not {ends:?}\n{:#?}\n{:#?}", controller.decision, self.stage.world.ledger());
    }
}

/// A drain that an automatic decision began, at its first shard.
async fn draining(controller: &mut Controller, busy: &Busy) {
    busy.stage.world.set_flight(Some(Duration::from_secs(100)));
    let down = Decision {
        id: 1,
        at: busy.stage.clock.now(),
        mode: Mode::Active,
        action: Action::ScaleDown { node: node(4), target: 3 },
        trigger: Some(Trigger::Threshold),
        wanted: Some(Kind::ScaleDown),
        because: vec!["cpu_low".into()],
        conditions: Vec::new(),
        guards: Vec::new(),
        would_change: String::new(),
    };
    controller.begin(&down, None).await.expect("it begins");
    busy.check(controller).await;
    assert_eq!(busy.stage.world.cordoned(), 1);
}

#[tokio::test(start_paused = true)]
async fn rising_load_cancels_a_drain_lifts_the_cordon_and_then_adds_a_node() {
    let (mut busy, mut controller) = Busy::controller(0.5).await;
    draining(&mut controller, &busy).await;
    busy.cpu = 0.9;
    use OperationState::{Cancelled, Succeeded};
    busy.until(&mut controller, &[(Kind::ScaleDown, Cancelled), (Kind::ScaleUp, Succeeded)]).await;
    let ledger = busy.stage.world.ledger();
    let place = |call: &str| ledger.iter().position(|line| line.starts_with(call)).expect(call);
    assert!(place("uncordon n4") < place("create"), "{ledger:#?}");
    assert_eq!((busy.stage.world.machines().len(), busy.stage.world.cordoned()), (5, 0));
    busy.stage.world.check().unwrap_or_else(|broken| panic!("{broken}\n{ledger:#?}"));
    let past = busy.stage.journal.operations(&"p".into(), 10, None).await.expect("a journal");
    assert!(past[1].detail.starts_with("cancelled by vecscale: hold, scale_up wanted: cpu_high"), "{}", past[1].detail);
    assert_eq!(crate::operate::plan::moved(&past[1]).count(), 1, "the shard in flight has arrived and stays");
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_cancels_a_drain_and_is_then_replaced() {
    let (mut busy, mut controller) = Busy::controller(0.5).await;
    draining(&mut controller, &busy).await;
    busy.dead = Some(node(1));
    busy.stage.world.fall_ill(1);
    busy.stage.world.cut_off(1, true);
    use OperationState::{Cancelled, Succeeded};
    busy.until(&mut controller, &[(Kind::ScaleDown, Cancelled), (Kind::Replace, Succeeded)]).await;
    assert_eq!(busy.stage.world.cordoned(), 0);
    assert_eq!(busy.stage.world.machines().len(), 5, "the dead machine is left to a person");
}

#[tokio::test(start_paused = true)]
async fn what_a_person_paused_is_not_cancelled_by_a_decision() {
    let (mut busy, mut controller) = Busy::controller(0.5).await;
    draining(&mut controller, &busy).await;
    let id = controller.open().id;
    controller.ask(order(&id, Verb::Pause)).await.expect("it runs");
    busy.cpu = 0.9;
    for _ in 0..10 {
        busy.check(&mut controller).await;
    }
    assert_eq!((controller.open().id, controller.open().cancel), (id.clone(), None));
    controller.ask(order(&id, Verb::Resume)).await.expect("it is paused");
    use OperationState::{Cancelled, Succeeded};
    busy.until(&mut controller, &[(Kind::ScaleDown, Cancelled), (Kind::ScaleUp, Succeeded)]).await;
}

// ---- maintenance

#[tokio::test(start_paused = true)]
async fn maintenance_of_a_node_that_an_operation_is_about_is_refused_with_its_id() {
    let stage = Stage::with_data(4);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    let Reply::Operation(down) =
        controller.ask(Command::Operate(asking_for(Kind::ScaleDown, 4))).await.expect("4 nodes")
    else {
        panic!("no operation")
    };
    let maintain =
        |n| Command::Maintain { node: node(n), lasting: Some(Duration::from_secs(7200)), who: "someone".into() };
    let refusal = controller.ask(maintain(4)).await.expect_err("it is to be removed");
    assert_eq!((refusal.kind, refusal.operation.as_ref()), (RefusalKind::Conflict, Some(&down.id)), "{refusal:?}");
    controller.ask(maintain(1)).await.expect("another node");
    stage.until_ended().await;
    controller.hear_operator().await;
    controller.check(&stage).await;
    assert_eq!(controller.placing.load().closed, [node(1)].into(), "nothing comes to it");
}
