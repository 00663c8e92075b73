//! Adopt and reap: what only a person asks for.

use super::*;

/// n5 runs and is no member: a person made it.
fn orphan() -> Story {
    let story = Story::new();
    story.world.put_machine(5);
    story
}

fn adopt() -> Action {
    Action::Adopt { node: node(5), joined: false }
}

fn reap(n: usize) -> Action {
    Action::Reap { node: node(n) }
}

#[tokio::test(start_paused = true)]
async fn an_orphan_is_adopted_and_filled() {
    let mut story = orphan();
    story.begin(adopt()).await;
    let ended = story.end().await;
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Succeeded, "adopted n5; 3 shards moved"));
    assert!(!story.world.ledger().iter().any(|line| line.starts_with("create")), "{:#?}", story.world.ledger());
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn an_orphan_that_does_not_become_healthy_stays_an_orphan() {
    let mut story = orphan();
    story.world.set_ready(false);
    story.begin(adopt()).await;
    assert_eq!(story.end().await.state, OperationState::Failed);
    assert_eq!(story.world.machines().len(), 4, "what others made is not destroyed");
    assert!(story.world.ledger().iter().any(|line| line.starts_with("unjoin n5")), "{:#?}", story.world.ledger());
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_a_member_is_destroyed() {
    let mut story = orphan();
    story.begin(reap(5)).await;
    let ended = story.end().await;
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Succeeded, "reaped n5"));
    insta::assert_snapshot!(story.world.ledger().join("\n"), @"destroy n5 #2");
    story.told().await;
}

/// A healthy member is refused, also one that has become it only after the decision.
#[tokio::test(start_paused = true)]
async fn a_member_is_not_reaped() {
    let mut story = four();
    story.begin(reap(3)).await;
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Failed);
    assert_eq!(ended.detail, "validate: n3 is a healthy member now");
    story.told().await;

    let mut story = orphan();
    // It is killed right after the validation is written, and started again.
    assert!(runs_or_dies(&mut story, Some(planned(reap(5))), Some(6)).await);
    story.world.put_member(5);
    story.restart().await;
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Failed, "{ended:#?}");
    assert!(ended.detail.contains("not proven: n5 answers again"), "{}", ended.detail);
    assert_eq!(story.world.ledger(), [] as [String; 0]);
    story.told().await;

    let mut story = orphan();
    story.world.fault("destroy", &[Fault::Refuse]);
    story.begin(reap(5)).await;
    story.step_seen("destroy", StepState::Intent).await;
    story.world.put_member(5);
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Failed, "{ended:#?}");
    assert_eq!(ended.detail, "destroy n5: n5 is still a member of the cluster");
    assert_eq!(story.world.machines().len(), 4);
}

/// n3 is a dead member whose machine is gone; of each shard there is one copy elsewhere.
fn ghost(replicas_elsewhere: bool) -> Story {
    let world = World::new(4, 3, if replicas_elsewhere { 2 } else { 1 });
    if replicas_elsewhere {
        // One lost copy more than is wanted, so that the living have all that is wanted.
        world.want(1);
    }
    world.take_away(3);
    world.fall_ill(3);
    world.cut_off(3, true);
    Story::of(world)
}

#[tokio::test(start_paused = true)]
async fn a_ghost_is_forgotten_only_with_proof() {
    let mut story = ghost(true);
    story.begin(reap(3)).await;
    let ended = story.end().await;
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Succeeded, "reaped n3"), "{ended:#?}");
    insta::assert_snapshot!(story.world.ledger().join("\n"), @"forget n3 #1");
    let proof = ended.steps[1].output.clone().expect("the proof is kept");
    assert_eq!(proof["witnesses"], json!(["n1", "n2", "n4"]));

    let mut story = ghost(false);
    story.begin(reap(3)).await;
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Failed, "{ended:#?}");
    assert!(ended.detail.contains("has 0 of 1 active copies"), "{}", ended.detail);
    assert_eq!(story.world.ledger(), [] as [String; 0]);

    // It answers again, and its machine is the provider's business.
    let mut story = ghost(true);
    story.world.cut_off(3, false);
    story.begin(reap(3)).await;
    let ended = story.end().await;
    assert!(ended.detail.contains("n3 answers again"), "{}", ended.detail);
    assert_eq!(story.world.ledger(), [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn adopt_and_reap_survive_death_at_any_instant() {
    for (name, fresh, action) in [
        ("adopt", orphan as fn() -> Story, adopt()),
        ("reap", orphan, reap(5)),
        ("reap a ghost", || ghost(true), reap(3)),
    ] {
        for dies_at in 1.. {
            let mut story = fresh();
            let died = runs_or_dies(&mut story, Some(planned(action.clone())), Some(dies_at)).await;
            runs_or_dies(&mut story, None, None).await;
            let row = story.journal.operation(&OperationId("op".into())).await.expect("a journal");
            if let Some(row) = row {
                assert_eq!(row.state, OperationState::Succeeded, "{name}, dies at {dies_at}: {row:#?}");
            }
            if !died {
                assert!(dies_at > 5, "{name}: only {dies_at} instants");
                break;
            }
        }
    }
}
