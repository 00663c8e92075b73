//! Drain: a node is emptied and proven to be, and stays; and a member of others' making is filled.

use super::*;

fn drain() -> Action {
    Action::Drain { node: node(3) }
}

fn proof_of(ended: &Operation) -> serde_json::Value {
    let prove = ended.steps.iter().find(|step| step.action.name() == "prove").expect("the step");
    prove.output.clone().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_with_a_proof_and_leaves_the_node_where_it_is() {
    let mut story = four();
    story.begin(drain()).await;
    let ended = story.end().await;
    assert_eq!((ended.state, ended.shards_left, ended.bytes_left), (OperationState::Succeeded, 0, 0), "{ended:#?}");
    assert_eq!((story.world.members().len(), story.world.machines().len(), story.world.cordoned()), (4, 4, 1));
    insta::assert_snapshot!(story.told().await.join("\n"), @r"
    drain of n3 began: cpu_high 0.81 > 0.75, 2 of 2 checks
    cordon n3: done
    move docs/5 from n3 to n4: done
    move docs/2 from n3 to n1: done
    move docs/1 from n3 to n4: done
    prove n3: done
    drain of n3 succeeded: n3 is empty and stays a member, cordoned; 3 shards moved
    ");
    let proof = proof_of(&ended);
    assert_eq!((&proof["node"], &proof["shards"]), (&json!("n3"), &json!(SHARDS)));
    assert_eq!(proof["witnesses"], json!(["n1", "n2", "n3", "n4"]));
}

#[tokio::test(start_paused = true)]
async fn a_node_with_the_only_copies_is_emptied_without_losing_one() {
    let mut story = Story::of(World::new(3, SHARDS, 1));
    story.begin(drain()).await;
    let ended = story.end().await;
    assert_eq!((ended.state, plan::moved(&ended).count()), (OperationState::Succeeded, 2), "{}", ended.detail);
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn each_drain_that_does_not_come_about_puts_the_node_back() {
    use Fault::Refuse;
    let three_copies = || Story::of(World::new(3, SHARDS, 3));
    // What, the world, call, its faults, the end, and what is said.
    type Case = (&'static str, fn() -> Story, &'static str, &'static [Fault], &'static str);
    let cases: [Case; 4] = [
        ("no place for a copy", three_copies, "", &[], "has no legal place elsewhere"),
        ("cordon refused", four, "cordon", &[Refuse; 3], "cordon n3: refused"),
        ("a move refused", four, "move", &[Refuse; 3], "refused"),
        ("list silent for long", four, "list", &[Refuse; 200], "validate"),
    ];
    for (what, story, call, faults, says) in cases {
        let mut story = story();
        story.world.fault(call, faults);
        story.begin(drain()).await;
        let ended = story.end().await;
        assert_eq!(ended.state, OperationState::Failed, "{what}: {}", ended.detail);
        assert!(ended.detail.contains(says), "{what}: {}", ended.detail);
        assert_eq!(story.world.cordoned(), 0, "{what}");
        story.told().await;
    }

    let mut story = four();
    story.begin(drain()).await;
    story.step_seen("drain", StepState::Done).await;
    story.world.put_shard_back(7, 3);
    let ended = story.end().await;
    assert_eq!((ended.state, story.world.cordoned()), (OperationState::Failed, 0));
    assert!(ended.detail.contains("still holds docs/7"), "{}", ended.detail);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_drain_lifts_its_cordon_and_what_has_moved_stays() {
    for (step, moved) in [("cordon", 0), ("move", 1), ("drain", 3)] {
        let mut story = four();
        story.begin(drain()).await;
        let state = if step == "move" { StepState::Intent } else { StepState::Done };
        story.step_seen(step, state).await;
        story.order(Verb::Cancel).await.expect("nothing of it is final");
        let ended = story.end().await;
        assert_eq!((ended.state, story.world.cordoned()), (OperationState::Cancelled, 0), "{step}: {}", ended.detail);
        assert!(plan::moved(&ended).count() >= moved, "{step}: {ended:#?}");
        story.told().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_survives_death_at_any_instant() {
    dies_everywhere("drain", four, drain(), true).await;
}

/// The node does not answer when it is asked itself: there is no proof, whenever the controller dies.
#[tokio::test(start_paused = true)]
async fn a_drain_without_proof_never_counts_as_done() {
    for dies_at in 1.. {
        let mut story = four();
        story.world.cut_off(3, true);
        let died = runs_or_dies(&mut story, Some(planned(drain())), Some(dies_at)).await;
        after_crashes(&format!("unproven, dies at {dies_at}"), &mut story).await;
        let row = story.journal.operation(&OperationId("op".into())).await.expect("a journal");
        if let Some(row) = row {
            assert_eq!(row.state, OperationState::Failed, "dies at {dies_at}: {row:#?}");
            assert!(row.detail.contains("n3 did not answer"), "dies at {dies_at}: {}", row.detail);
        }
        if !died {
            assert!(dies_at > 15, "only {dies_at} instants");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_stays_empty_though_the_store_does_not_call_it_cordoned() {
    for (what, is_closed) in [("taken back", false), ("drained", true)] {
        let mut story = Story::new();
        story.world.put_machine(4);
        story.world.put_member(4);
        if is_closed {
            *story.standing.placing.lock().unwrap() =
                Arc::new(Placing { closed: [node(4)].into(), ..Placing::default() });
        }
        story.begin(Action::Rebalance {}).await;
        let ended = story.end().await;
        assert_eq!(ended.state, OperationState::Succeeded, "{what}: {}", ended.detail);
        let to_it = plan::moved(&ended).filter(|copy| copy.to == node(4)).count();
        assert_eq!(to_it == 0, is_closed, "{what}: {:#?}", story.world.ledger());
        story.world.check().expect("all shards live");
    }

    // It is emptied again all the same, of what others have put there meanwhile.
    let mut story = four();
    *story.standing.placing.lock().unwrap() = Arc::new(Placing { closed: [node(3)].into(), ..Placing::default() });
    story.begin(drain()).await;
    let ended = story.end().await;
    assert_eq!((ended.state, plan::moved(&ended).count()), (OperationState::Succeeded, 3), "{}", ended.detail);
}

/// n5 is a member that others made; it holds nothing.
fn newcomer() -> Story {
    let story = Story::new();
    story.world.put_machine(5);
    story.world.put_member(5);
    story
}

fn fill() -> Action {
    Action::Adopt { node: node(5), joined: true }
}

#[tokio::test(start_paused = true)]
async fn a_member_of_others_is_filled_and_never_taken_out_again() {
    let mut story = newcomer();
    story.begin(fill()).await;
    let ended = story.end().await;
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Succeeded, "adopted n5; 3 shards moved"));
    assert!(story.world.ledger().iter().all(|line| line.starts_with("move ")), "{:#?}", story.world.ledger());
    story.told().await;

    let mut story = newcomer();
    story.world.fault("move", &[Fault::Refuse; 3]);
    story.begin(fill()).await;
    assert_eq!(story.end().await.state, OperationState::Failed);
    assert_eq!(story.world.members().len(), 4, "{:#?}", story.world.ledger());
    story.told().await;

    dies_everywhere("fill", newcomer, fill(), false).await;
}
