//! Where nodes come and go by other hands: what is asked for, what is adopted by itself and what is not; and the node that
//! a person has drained, with any provider.

use super::*;
use crate::model::{OperationId, Order, Raw, Signal, Trigger, Verb};
use crate::replay::node;

const THREE: &str =
    "nodes: {static: [{id: n1, address: 'http://n1'}, {id: n2, address: 'http://n2'}, {id: n3, address: 'http://n3'}]}";

/// The controller of a pool without a provider that knows the CPU.
async fn without_provider(stage: &Stage) -> Controller {
    let text = format!(
        "pools: [{{name: p, provider: {{type: none}}, datastore: {{type: vectornode}}, {THREE},
          scrape: {{preset: none, signals: {{cpu_usage: {{gauge: cpu}}}}}}}}]"
    );
    let config = config::parse(&text, "config.yaml", std::path::Path::new("/")).unwrap_or_else(|e| panic!("{e}"));
    let config = config.pools.into_iter().next().expect("one pool");
    let parts = Parts { eyes: stage.eyes(&config), config, ..stage.parts() };
    Controller::remembering(parts).await.expect("a journal that can be read")
}

impl Controller {
    /// One whole check in which every node has this CPU; what has ended before is heard first.
    async fn check_at(&mut self, stage: &Stage, cpu: f64) {
        self.hear_operator().await;
        let mut look = stage.look().await;
        for sample in &mut look.samples.nodes {
            sample.signals.insert(Signal::Cpu, Ok(Raw::Gauge(cpu)));
        }
        self.looking = Some(self.ended);
        assert!(self.looked(look).await, "an operation ended meanwhile");
        tokio::time::sleep(self.interval()).await;
    }

    async fn checks(&mut self, stage: &Stage, checks: u32) {
        for _ in 0..checks {
            self.check_at(stage, 0.5).await;
        }
    }

    fn drained(&self) -> Vec<String> {
        self.view.load().drained.keys().map(ToString::to_string).collect()
    }
}

/// Operations so far, oldest first.
async fn past(stage: &Stage) -> Vec<(Kind, OperationState, Trigger)> {
    let past = stage.journal.operations(&"p".into(), 10, None).await.expect("a journal");
    past.iter().rev().map(|o| (o.kind, o.state, o.trigger)).collect()
}

const ADOPTED: (Kind, OperationState, Trigger) = (Kind::Adopt, OperationState::Succeeded, Trigger::Arrival);

/// n9 is made a member by others.
fn member_comes(stage: &Stage) {
    stage.world.put_machine(9);
    stage.world.put_member(9);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_others_add_is_filled_once() {
    let stage = Stage::with_data(3);
    let mut controller = without_provider(&stage).await;
    controller.checks(&stage, 7).await;
    assert_eq!(past(&stage).await, [], "the first look takes the pool as it is");
    member_comes(&stage);
    controller.checks(&stage, 1).await;
    assert!(controller.view.load().needs_human.is_empty(), "{:?}", controller.view.load().needs_human);
    stage.until_ended().await;
    controller.checks(&stage, 10).await;
    assert_eq!(past(&stage).await, [ADOPTED]);
    let ledger = stage.world.ledger();
    assert!(!ledger.is_empty() && ledger.iter().all(|line| line.contains(">n9")), "{ledger:#?}");
    stage.world.check().expect("all shards live");

    let stage = Stage { journal: Arc::new(stage.journal.reopen()), ..stage };
    let mut controller = without_provider(&stage).await;
    controller.checks(&stage, 10).await;
    assert_eq!(past(&stage).await, [ADOPTED], "also over a restart");
}

#[tokio::test(start_paused = true)]
async fn one_that_came_while_nobody_looked_is_filled_too_and_a_machine_joins_first() {
    let stage = Stage::with_data(3);
    let mut controller = without_provider(&stage).await;
    controller.checks(&stage, 1).await;
    drop(controller);
    stage.world.put_machine(9);
    let stage = Stage { journal: Arc::new(stage.journal.reopen()), ..stage };
    let mut controller = without_provider(&stage).await;
    controller.checks(&stage, 6).await;
    stage.until_ended().await;
    controller.checks(&stage, 2).await;
    assert_eq!(past(&stage).await, [ADOPTED]);
    assert!(stage.world.ledger()[0].starts_with("join n9"), "{:#?}", stage.world.ledger());
    assert_eq!(stage.world.members(), ["n1", "n2", "n3", "n9"]);
}

#[tokio::test(start_paused = true)]
async fn who_only_observes_adopts_nobody_and_what_a_person_cancels_is_not_begun_again() {
    let stage = Stage::with_data(3);
    let mut controller = without_provider(&stage).await;
    let mode = |mode| Command::SetMode { mode, who: "someone".into() };
    controller.ask(mode(Mode::Observe)).await.expect("it is taken");
    controller.checks(&stage, 7).await;
    stage.world.put_machine(8);
    member_comes(&stage);
    controller.checks(&stage, 3).await;
    assert_eq!(past(&stage).await, []);
    let because = controller.decision.as_ref().expect("a decision").because.join("; ");
    assert!(because.contains("n9 has come by other hands; it would be adopted and filled"), "{because}");
    let needs = controller.view.load().needs_human.join("; ");
    assert!(needs.contains("vecscale adopt n8") && !needs.contains("n9"), "{needs}");

    stage.world.take_away(8);
    stage.world.set_flight(Some(Duration::from_secs(100)));
    controller.ask(mode(Mode::Active)).await.expect("it is taken");
    controller.checks(&stage, 1).await;
    let operation = controller.operation.as_ref().expect("it is adopted").id.clone();
    let order = Order { what: Verb::Cancel, who: "someone".into(), reason: None };
    controller.ask(Command::Order { operation, order }).await.expect("it is taken");
    stage.until_ended().await;
    controller.checks(&stage, 10).await;
    let ended = past(&stage).await;
    assert!(ended.len() == 1 && ended[0].1 != OperationState::Succeeded, "{ended:?}");
    assert_eq!(stage.world.members().len(), 4, "it stays a member");
}

#[tokio::test(start_paused = true)]
async fn a_lack_is_asked_for_until_somebody_adds_a_node() {
    let stage = Stage::with_data(3);
    let mut controller = without_provider(&stage).await;
    controller.checks(&stage, 7).await;
    controller.check_at(&stage, 0.9).await;
    assert_eq!(controller.view.load().nodes_wanted, 0, "one check is not enough");
    controller.check_at(&stage, 0.9).await;
    let view = controller.view.load_full();
    assert_eq!(view.nodes_wanted, 1);
    for said in [&view.headline, &view.needs_human.join("; ")] {
        assert!(said.contains("1 more node wanted (cpu_high 0.90 > 0.75"), "{said}");
    }
    let decision = view.decision.as_ref().expect("a decision");
    assert_eq!((decision.wanted, decision.guards.len()), (Some(Kind::ScaleUp), 1), "{decision:?}");
    assert_eq!(decision.guards[0].name, crate::model::Guard::NoProvider);

    member_comes(&stage);
    controller.check_at(&stage, 0.9).await;
    assert_eq!(controller.operation.as_ref().map(|o| o.kind), Some(Kind::Adopt), "{:?}", controller.decision);
    stage.until_ended().await;
    controller.checks(&stage, 1).await;
    let view = controller.view.load_full();
    assert_eq!((view.nodes_wanted, view.needs_human.len()), (0, 0), "{:?}", view.needs_human);
    assert!(view.cooldowns.scale_up > Duration::ZERO, "it counts as a scale-up");
}

async fn drain(stage: &Stage, controller: &mut Controller, n: usize) -> OperationId {
    let request = Request { node: Some(node(n)), ..asking(Kind::Drain) };
    let Reply::Operation(begun) = controller.ask(Command::Operate(request)).await.expect("it begins") else { panic!() };
    stage.until_ended().await;
    controller.hear_operator().await;
    controller.check(stage).await;
    begun.id
}

fn open_again(n: usize) -> Command {
    Command::OpenAgain { node: node(n), who: "someone".into() }
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_stays_out_over_restarts_until_a_person_opens_it() {
    let mut stage = Stage::with_data(4);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    let operation = drain(&stage, &mut controller, 4).await;
    let last = controller.last_operation.as_ref().expect("it ended");
    assert_eq!((last.kind, last.state), (Kind::Drain, OperationState::Succeeded), "{}", last.detail);
    assert_eq!(controller.view.load().drained, BTreeMap::from([(node(4), operation)]));
    drop(controller);

    let mut controller = stage.restarted().await;
    for _ in 0..20 {
        controller.check(&stage).await;
    }
    assert_eq!((controller.drained(), stage.world.cordoned()), (vec!["n4".to_string()], 1));
    let view = controller.view.load_full();
    assert_eq!((view.unexplained.len(), view.needs_human.len()), (0, 0), "its cordon is meant: {:?}", view.needs_human);
    let refusal = controller.ask(Command::Operate(asking(Kind::ScaleDown))).await.expect_err("3 nodes count");
    assert!(refusal.guards.iter().any(|g| g.name == crate::model::Guard::MinNodes), "{refusal:?}");

    let refusal = controller.ask(open_again(3)).await.expect_err("it was not drained");
    assert_eq!(refusal.kind, RefusalKind::NotFound, "{refusal:?}");
    controller.ask(open_again(4)).await.expect("it was drained");
    assert_eq!((controller.drained().len(), stage.world.cordoned()), (0, 0));
    controller.check(&stage).await;
    let mut controller = stage.restarted().await;
    controller.check(&stage).await;
    assert_eq!((controller.drained().len(), stage.world.cordoned()), (0, 0));
    let query = HistoryQuery { kind: Some(HistoryKind::Setting), limit: 1, ..HistoryQuery::default() };
    let row = &stage.journal.history(&query).await.expect("a history")[0];
    assert_eq!((row.who.as_str(), row.summary.as_str()), ("someone", "drain of n4 taken back"));
    stage.world.check().expect("all shards live");
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_end_of_a_drain_was_heard_forgets_nothing() {
    let mut stage = Stage::with_data(4);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    let request = Request { node: Some(node(4)), ..asking(Kind::Drain) };
    controller.ask(Command::Operate(request)).await.expect("it begins");
    stage.until_ended().await;
    drop(controller);
    let mut controller = stage.restarted().await;
    controller.check(&stage).await;
    controller.check(&stage).await;
    assert_eq!((controller.drained(), stage.world.cordoned()), (vec!["n4".to_string()], 1));
}

#[tokio::test(start_paused = true)]
async fn a_cordon_that_the_store_has_lost_is_set_anew_and_nothing_is_moved_there_meanwhile() {
    let stage = Stage::with_data(4);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    drain(&stage, &mut controller, 4).await;
    stage.world.put_member(4); // open, as far as the store knows
    assert_eq!(stage.world.cordoned(), 0);
    controller.looking = Some(controller.ended);
    controller.see(stage.look().await);
    let world = controller.world.as_ref().expect("a look");
    assert_eq!(world.seen.node(&node(4)).map(|n| n.state), Some(NodeState::Draining));
    let inventory = world.inventory.as_ref().expect("it answered").as_ref().expect("with data");
    assert!(inventory.member(&node(4)).is_some_and(|member| member.cordoned), "{inventory:?}");
    controller.check(&stage).await;
    assert_eq!(stage.world.cordoned(), 1, "{:#?}", stage.world.ledger());
    controller.check(&stage).await;
    let sets = stage.world.ledger().iter().filter(|line| line.starts_with("cordon n4")).count();
    assert_eq!(sets, 2, "{:#?}", stage.world.ledger());
}

/// How often it was written down that the cordon of a node was set anew.
async fn set_anew(stage: &Stage) -> usize {
    let query = HistoryQuery { kind: Some(HistoryKind::Step), limit: 1000, ..HistoryQuery::default() };
    let rows = stage.journal.history(&query).await.expect("a history");
    rows.iter().filter(|row| row.summary.starts_with("the cordon of n4 is to be set anew")).count()
}

#[tokio::test(start_paused = true)]
async fn the_cordon_of_a_store_that_never_tells_is_set_anew_once() {
    let stage = Stage::with_data(4);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    drain(&stage, &mut controller, 4).await;
    for _ in 0..10 {
        let mut look = stage.look().await;
        let members = look.inventory.iter_mut().flatten().flat_map(|inventory| &mut inventory.members);
        members.for_each(|member| member.cordoned = false);
        controller.looking = Some(controller.ended);
        assert!(controller.looked(look).await);
        tokio::time::sleep(controller.interval()).await;
    }
    assert_eq!((set_anew(&stage).await, controller.drained()), (1, vec!["n4".to_string()]));

    controller.check(&stage).await;
    stage.world.put_member(4); // lost once more, after it was told
    stage.world.fault("cordon", &[crate::replay::Fault::Refuse]);
    for _ in 0..5 {
        controller.check(&stage).await;
    }
    assert_eq!((set_anew(&stage).await, stage.world.cordoned()), (3, 1), "tried until it has come about");
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_is_read_no_more_and_nothing_is_placed_on_it() {
    let stage = Stage::with_data(4);
    let mut controller = without_provider(&stage).await;
    controller.checks(&stage, 1).await;
    drain(&stage, &mut controller, 3).await;
    let mut look = stage.look().await;
    for sample in &mut look.samples.nodes {
        let cpu = if sample.node == node(3) { 0.0 } else { 0.6 };
        sample.signals.insert(Signal::Cpu, Ok(Raw::Gauge(cpu)));
    }
    controller.looking = Some(controller.ended);
    assert!(controller.looked(look).await);
    let seen = controller.view.load().seen.clone().expect("it was looked at");
    assert_eq!(seen.value(&Signal::Cpu), Some(0.6));
    assert_eq!(controller.placing.load().closed, [node(3)].into());

    controller.ask(open_again(3)).await.expect("it was drained");
    controller.checks(&stage, 1).await;
    assert!(controller.placing.load().closed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_taken_back_as_soon_as_it_can_be() {
    let stage = Stage::with_data(4);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    let request = Request { node: Some(node(4)), ..asking(Kind::Drain) };
    controller.ask(Command::Operate(request)).await.expect("it begins");
    let refusal = controller.ask(open_again(4)).await.expect_err("it is being drained");
    assert!(refusal.kind == RefusalKind::Conflict && refusal.detail.contains("cancel` lifts"), "{refusal:?}");
    stage.until_ended().await;
    controller.hear_operator().await;
    controller.check(&stage).await;

    stage.stop_file.store(true, std::sync::atomic::Ordering::Relaxed);
    let refusal = controller.ask(open_again(4)).await.expect_err("everything is forbidden");
    assert_eq!(refusal.kind, RefusalKind::Conflict, "{refusal:?}");
    stage.stop_file.store(false, std::sync::atomic::Ordering::Relaxed);

    stage.world.fault("uncordon", &[crate::replay::Fault::Refuse]);
    let refusal = controller.ask(open_again(4)).await.expect_err("the store refuses");
    assert!(refusal.kind == RefusalKind::Unavailable && refusal.detail.contains("with each check"), "{refusal:?}");
    assert_eq!(stage.world.cordoned(), 1);
    controller.check(&stage).await;
    assert_eq!((controller.drained().len(), stage.world.cordoned()), (0, 0));
}

/// Whether a node is in service nobody can see, so its cordon stays for as long as that is not certain.
#[tokio::test(start_paused = true)]
async fn a_node_whose_drain_is_taken_back_is_put_in_service_before_its_cordon_goes() {
    use crate::replay::Fault::{Hang, Lose, Refuse};
    for (fault, says) in [(Refuse, "(in_service: "), (Lose, "(in_service: "), (Hang, "(in_service is not done yet)")] {
        let mut stage = Stage::with_data(4);
        stage.world.has_hooks();
        let mut controller = stage.controller().await;
        controller.check(&stage).await;
        drain(&stage, &mut controller, 4).await;
        assert_eq!((stage.world.served().len(), stage.world.cordoned()), (3, 1), "{fault:?}");
        let victim = controller.view.load().victim.clone();
        assert!(victim.as_ref().is_some_and(|victim| *victim != node(4)), "it is out already: {victim:?}");

        stage.world.fault("in_service", &[fault]);
        let refusal = controller.ask(open_again(4)).await.expect_err("clients are not sent to it");
        assert_eq!(refusal.kind, RefusalKind::Unavailable, "{refusal:?}");
        assert!(refusal.detail.contains(says) && refusal.detail.contains("with each check"), "{refusal:?}");
        assert_eq!((stage.world.served().len(), stage.world.cordoned()), (3, 1), "{fault:?}");
        // A cordon that is left over at the start is lifted in the same way.
        let mut controller = if fault == Refuse { stage.restarted().await } else { controller };
        for _ in 0..6 {
            controller.check(&stage).await;
        }
        let left = (stage.world.served().len(), stage.world.cordoned(), controller.view.load().unexplained.len());
        assert_eq!(left, (4, 0, 0), "{fault:?}: {:#?}", stage.world.ledger());
    }
}

/// The loop waits for a hook for 10 s, and hears the answer later.
#[tokio::test(start_paused = true)]
async fn a_hook_that_takes_long_is_heard_with_a_later_check_and_not_asked_twice() {
    let stage = Stage::with_data(4);
    stage.world.has_hooks();
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    drain(&stage, &mut controller, 4).await;
    stage.world.fault("in_service", &[crate::replay::Fault::Slow(Duration::from_secs(35))]);
    let began = Instant::now();
    controller.ask(open_again(4)).await.expect_err("it takes 35 s");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    for _ in 0..3 {
        controller.check(&stage).await;
    }
    assert_eq!((stage.world.served().len(), stage.world.cordoned()), (4, 0), "{:#?}", stage.world.ledger());
    let asked = stage.world.ledger().iter().filter(|line| line.starts_with("in_service n4")).count();
    assert_eq!(asked, 1, "{:#?}", stage.world.ledger());
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_stays_out_when_taking_it_away_comes_to_nothing() {
    let stage = Stage::with_data(4);
    stage.world.has_hooks();
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    drain(&stage, &mut controller, 4).await;
    stage.world.fault("leave", &[crate::replay::Fault::Refuse; 9]);
    let down = Request { node: Some(node(4)), reason: Some("it is empty".into()), ..asking(Kind::ScaleDown) };
    controller.ask(Command::Operate(down)).await.expect("it begins");
    stage.until_ended().await;
    controller.hear_operator().await;
    controller.check(&stage).await;
    let last = controller.last_operation.as_ref().expect("it ended");
    assert_eq!((last.kind, last.state), (Kind::ScaleDown, OperationState::Failed), "{}", last.detail);
    assert_eq!((controller.drained(), stage.world.cordoned()), (vec!["n4".to_string()], 1));
    let lifted = |line: &String| line.starts_with("uncordon") || line.starts_with("in_service");
    assert!(!stage.world.ledger().iter().any(lifted), "{:#?}", stage.world.ledger());
}
