//! What the controller makes of a world that differs from its journal, and of a node that has died.

use super::*;
use crate::model::{Order, UnexplainedKind, Verb};
use crate::replay::node;

fn unexplained(controller: &Controller) -> Vec<(String, UnexplainedKind)> {
    controller.view.load().unexplained.iter().map(|u| (u.node.to_string(), u.kind)).collect()
}

async fn history(stage: &Stage, kind: HistoryKind) -> Vec<String> {
    let query = HistoryQuery { kind: Some(kind), limit: 1000, ..HistoryQuery::default() };
    stage.journal.history(&query).await.expect("a history").into_iter().rev().map(|row| row.summary).collect()
}

fn about(kind: Kind, n: usize) -> Command {
    Command::Operate(Request { node: Some(node(n)), ..asking(kind) })
}

/// Waits for the end of the operation, hears of it, and looks at what it left.
async fn ends(stage: &Stage, controller: &mut Controller) -> OperationState {
    stage.until_ended().await;
    controller.hear_operator().await;
    controller.check(stage).await;
    controller.last_operation.as_ref().expect("an operation").state
}

#[tokio::test(start_paused = true)]
async fn the_first_start_takes_the_pool_as_it_is() {
    let mut stage = Stage::with_data(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    assert_eq!(unexplained(&controller), []);
    assert_eq!(history(&stage, HistoryKind::Program).await, ["start on 3 nodes: everything is explained"]);
    let mut controller = stage.restarted().await;
    controller.check(&stage).await;
    controller.check(&stage).await;
    assert_eq!(history(&stage, HistoryKind::Program).await.len(), 2, "told once a start");
}

#[tokio::test(start_paused = true)]
async fn what_other_hands_did_meanwhile_is_told_and_left_alone_until_a_person_says_so() {
    use UnexplainedKind::*;
    let mut stage = Stage::with_data(4);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    drop(controller);
    stage.world.put_machine(8);
    stage.world.put_machine(9);
    stage.world.put_member(9);
    stage.world.put_member(7);

    let mut controller = stage.restarted().await;
    for _ in 0..3 {
        controller.check(&stage).await;
    }
    let found = [("n7", GhostMember), ("n8", OrphanInstance), ("n9", ForeignChange)];
    assert_eq!(unexplained(&controller), found.map(|(id, kind)| (id.to_string(), kind)));
    let told = history(&stage, HistoryKind::Program).await.pop().expect("a row");
    for part in ["n7: the datastore lists it", "n8: the provider runs it", "n9: it has come by other hands"] {
        assert!(told.contains(part), "{told}");
    }
    let needs = controller.view.load().needs_human.join("\n");
    for part in ["vecscale adopt n8", "vecscale reap n8", "vecscale reap n7", "vecscale adopt n9"] {
        assert!(needs.contains(part), "{needs}");
    }
    assert_eq!(stage.world.ledger(), [] as [String; 0], "nothing was touched");

    let refusal = controller.ask(about(Kind::Reap, 9)).await.expect_err("it has come, and serves");
    assert!(refusal.detail.contains("n9 is a healthy member"), "{refusal:?}");
    assert!(matches!(controller.ask(about(Kind::Adopt, 9)).await, Ok(Reply::Done)));
    controller.check(&stage).await;
    assert_eq!(unexplained(&controller).len(), 2);
    let mut controller = stage.restarted().await;
    controller.check(&stage).await;
    assert_eq!(unexplained(&controller).len(), 2, "remembered");
}

#[tokio::test(start_paused = true)]
async fn an_orphan_is_adopted_or_reaped_on_a_persons_word() {
    let stage = Stage::with_data(3);
    stage.world.put_machine(8);
    stage.world.put_machine(9);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    controller.ask(about(Kind::Adopt, 8)).await.expect("it begins");
    assert_eq!(ends(&stage, &mut controller).await, OperationState::Succeeded);
    assert_eq!(stage.world.members(), ["n1", "n2", "n3", "n8"]);
    controller.ask(about(Kind::Reap, 9)).await.expect("it begins");
    assert_eq!(ends(&stage, &mut controller).await, OperationState::Succeeded);
    assert_eq!(stage.world.machines(), ["n1", "n2", "n3", "n8"]);
    assert_eq!(unexplained(&controller), []);
    stage.world.check().expect("all shards live");
}

#[tokio::test(start_paused = true)]
async fn only_what_serves_nobody_is_reaped() {
    let stage = Stage::with_data(3);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    for (kind, n, says) in [
        (Kind::Reap, 2, "n2 is a healthy member: drain it with a scale-down instead"),
        (Kind::Reap, 5, "there is neither a machine nor a member named n5"),
        (Kind::Adopt, 2, "n2 is a member already"),
        (Kind::Adopt, 5, "the provider does not list n5"),
    ] {
        let refusal = controller.ask(about(kind, n)).await.expect_err(says);
        assert!(refusal.detail.contains(says), "{refusal:?}");
    }
    assert_eq!(stage.world.ledger(), [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_cordon_of_ours_is_lifted_and_one_of_others_is_not() {
    let mut stage = Stage::with_data(5);
    let mut controller = stage.controller().await;
    controller.check(&stage).await;
    controller.ask(about(Kind::ScaleDown, 5)).await.expect("5 nodes, min_nodes 3");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let operation = controller.operation.as_ref().expect("it runs").id.clone();
    let order = Order { what: Verb::Cancel, who: "someone".into(), reason: None };
    controller.ask(Command::Order { operation, order }).await.expect("it is taken");
    assert_eq!(ends(&stage, &mut controller).await, OperationState::Cancelled);

    stage.world.cordon_by_hand(5); // as if the cordon had come through late
    stage.world.cordon_by_hand(1);
    let mut controller = stage.restarted().await;
    controller.check(&stage).await;
    assert_eq!(stage.world.cordoned(), 1, "{:#?}", stage.world.ledger());
    controller.check(&stage).await;
    assert_eq!(unexplained(&controller), [("n1".to_string(), UnexplainedKind::LeftOverCordon)]);
    let steps = history(&stage, HistoryKind::Step).await;
    assert!(steps.last().expect("a row").starts_with("the cordon of n5 is to be lifted: operation "), "{steps:#?}");

    // Hours later, and over a restart, a cordon of the same node is somebody else's.
    for _ in 0..130 {
        controller.check(&stage).await;
    }
    stage.world.cordon_by_hand(5);
    for _ in 0..2 {
        controller.check(&stage).await;
        let theirs = ["n1", "n5"].map(|id| (id.to_string(), UnexplainedKind::LeftOverCordon));
        assert_eq!((unexplained(&controller), stage.world.cordoned()), (theirs.to_vec(), 2));
        controller = stage.restarted().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_is_replaced_after_its_grace_and_its_machine_waits_for_a_person() {
    let mut stage = Stage::with_data(5);
    let mut controller = stage.controller().await;
    for _ in 0..6 {
        controller.check(&stage).await;
    }
    stage.world.kill(2);
    for _ in 0..29 {
        controller.check(&stage).await;
    }
    assert_eq!(stage.world.ledger(), [] as [String; 0], "15 minutes are not over");
    for _ in 0..4 {
        controller.check(&stage).await;
        if controller.operation.is_some() {
            break;
        }
    }
    let running = controller.operation.clone().unwrap_or_else(|| panic!("{:#?}", controller.decision));
    assert_eq!((running.kind, running.replaces), (Kind::Replace, Some(node(2))));
    assert_eq!(ends(&stage, &mut controller).await, OperationState::Succeeded);
    assert_eq!(stage.world.members(), ["n1", "n3", "n4", "n5", "p-6"]);
    assert_eq!(stage.world.machines(), ["n1", "n2", "n3", "n4", "n5", "p-6"]);
    let view = controller.view.load_full();
    let seen = view.seen.as_ref().expect("an observation");
    assert_eq!(seen.node(&node(2)).map(|n| n.state), Some(NodeState::Lost));
    assert_eq!((seen.node_count(), view.desired_nodes), (5, 5), "it counts nowhere");
    assert_eq!(view.unexplained, [], "it is explained");
    assert!(view.needs_human.iter().any(|need| need.contains("vecscale reap n2")), "{:?}", view.needs_human);
    let lead_times = controller.experience.lead_times.len();

    let mut controller = stage.restarted().await;
    for _ in 0..200 {
        controller.check(&stage).await;
    }
    assert_eq!(stage.world.machines().len(), 6, "replaced once, also after a restart");
    assert_eq!(controller.experience.lead_times.len(), lead_times);
    controller.ask(about(Kind::Reap, 2)).await.expect("it begins");
    assert_eq!(ends(&stage, &mut controller).await, OperationState::Succeeded);
    assert_eq!(stage.world.machines(), ["n1", "n3", "n4", "n5", "p-6"]);
    assert_eq!(controller.view.load().unexplained, []);
    stage.world.check().expect("all shards live");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_node_that_is_a_member_again_counts_on_a_persons_word() {
    let mut stage = Stage::with_data(4);
    let mut controller = stage.controller().await;
    for _ in 0..6 {
        controller.check(&stage).await;
    }
    stage.world.kill(2);
    while controller.operation.is_none() {
        controller.check(&stage).await;
    }
    assert_eq!(ends(&stage, &mut controller).await, OperationState::Succeeded);

    stage.world.take_away(2);
    stage.world.put_machine(2); // under the same name, and empty
    stage.world.revive(2);
    stage.world.put_member(2);
    controller.check(&stage).await;
    let needs = controller.view.load().needs_human.join("\n");
    assert!(needs.contains("n2 was replaced, and is a member again; `vecscale adopt n2`"), "{needs}");
    controller.ask(about(Kind::Adopt, 2)).await.expect("it begins");
    assert_eq!(ends(&stage, &mut controller).await, OperationState::Succeeded);
    let mut controller = stage.restarted().await;
    controller.check(&stage).await;
    let view = controller.view.load_full();
    let seen = view.seen.as_ref().expect("an observation");
    assert_eq!((seen.node_count(), view.needs_human.len()), (5, 0), "{:?}", view.needs_human);
    stage.world.check().expect("all shards live");
}
