//! A dead node is replaced: its copies are made anew from the living, then it is forgotten, or nothing of it is.

use super::*;

fn replace() -> Action {
    Action::Replace { node: node(3) }
}

/// Three nodes, two copies each, the third dead.
fn with_a_dead_node() -> Story {
    let story = Story::new();
    story.world.kill(3);
    story
}

fn states(operation: &Operation) -> Vec<(&'static str, StepState)> {
    operation.steps.iter().map(|s| (s.action.name(), s.state)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_is_replaced_and_its_machine_left_to_a_person() {
    let mut story = with_a_dead_node();
    story.begin(replace()).await;
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:#?}");
    assert_eq!(story.world.members(), ["n1", "n2", "n4"]);
    assert_eq!(story.world.machines(), ["n1", "n2", "n3", "n4"], "a replacement destroys nothing");
    insta::assert_snapshot!(story.told().await.join("\n"), @r"
    replace of n4 began: cpu_high 0.81 > 0.75, 2 of 2 checks
    create n4: done
    join n4: done
    replicate docs/5 from n1 to n4: done
    replicate docs/4 from n2 to n4: done
    replicate docs/2 from n1 to n4: done
    replicate docs/1 from n2 to n4: done
    forget n3: done
    replace of n4 succeeded: n4 stands in for n3; 4 shards made anew
    ");
    let forgotten = ended.steps.iter().find(|s| s.action.name() == "forget").and_then(|s| s.output.clone());
    let proof = forgotten.expect("the proof stands in the history");
    assert_eq!((&proof["node"], &proof["witnesses"]), (&json!("n3"), &json!(["n1", "n2", "n4"])));
}

#[tokio::test(start_paused = true)]
async fn each_failure_of_a_replacement_ends_as_it_should() {
    use Fault::*;
    use OperationState::*;
    let cases: [Case; 13] = [
        ("create refused", replace(), "create", &[Refuse; 3], Failed, 3),
        ("create's answer lost", replace(), "create", &[LoseAnswer], Succeeded, 4),
        ("create hangs once", replace(), "create", &[Hang], Succeeded, 4),
        ("join refused", replace(), "join", &[Refuse; 3], Failed, 3),
        ("a copy refused once", replace(), "replicate", &[Refuse], Succeeded, 4),
        ("a copy lost", replace(), "replicate", &[Lose], Succeeded, 4),
        ("a copy's answer lost", replace(), "replicate", &[LoseAnswer], Succeeded, 4),
        ("a copy hangs", replace(), "replicate", &[Hang], Succeeded, 4),
        ("the first copy refused", replace(), "replicate", &[Refuse; 3], Failed, 3),
        ("forget refused", replace(), "forget", &[Refuse; 3], Partial, 4),
        ("forget's answer lost", replace(), "forget", &[LoseAnswer], Succeeded, 4),
        ("forget comes late", replace(), "forget", &[Late(Duration::from_secs(3))], Succeeded, 4),
        ("list silent at first", replace(), "list", &[Refuse; 5], Succeeded, 4),
    ];
    for (what, action, call, faults, state, machines) in cases {
        let mut story = with_a_dead_node();
        story.world.fault(call, faults);
        story.begin(action).await;
        let ended = story.end().await;
        assert_eq!(ended.state, state, "{what}: {}\n{:#?}", ended.detail, story.world.ledger());
        assert_eq!(story.world.machines().len(), machines, "{what}");
        let is_member = story.world.members().contains(&"n3".to_string());
        assert_eq!(is_member, state != Succeeded, "{what}: forgotten, or not");
        tokio::time::sleep(Duration::from_secs(4000)).await; // whatever was late has come by now
    }
}

#[tokio::test(start_paused = true)]
async fn a_last_copy_is_never_given_up() {
    let mut story = Story::of(World::new(3, SHARDS, 1));
    story.world.kill(3);
    story.begin(replace()).await;
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Failed);
    assert!(ended.detail.contains("has no active copy on a living node"), "{}", ended.detail);
    assert_eq!(story.world.machines(), ["n1", "n2", "n3"], "nothing was even begun");
    assert_eq!(story.world.members(), ["n1", "n2", "n3"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_is_not_forgotten() {
    let mut story = with_a_dead_node();
    story.begin(replace()).await;
    story.step_seen("replicate", StepState::Done).await;
    story.world.revive(3);
    *story.standing.objection.lock().unwrap() = Some("n3 is healthy again".into());
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Partial, "the new node has copies and stays: {}", ended.detail);
    assert!(ended.detail.contains("n3 is healthy again"), "{}", ended.detail);
    assert_eq!(story.world.members(), ["n1", "n2", "n3", "n4"]);

    // Nobody noticed, but it answers: the proof fails on that.
    let mut story = with_a_dead_node();
    story.begin(replace()).await;
    story.step_seen("restore", StepState::Done).await;
    story.world.revive(3);
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Partial);
    assert!(ended.detail.contains("n3 answers again"), "{}", ended.detail);
    assert_eq!(story.world.members(), ["n1", "n2", "n3", "n4"]);
}

fn copies_asked(story: &Story) -> usize {
    story.world.ledger().iter().filter(|line| line.starts_with("replicate")).count()
}

#[tokio::test(start_paused = true)]
async fn once_a_node_is_back_no_further_copy_is_made() {
    // After one copy, the next on its way: that one arrives.
    let mut story = with_a_dead_node();
    story.begin(replace()).await;
    story.step_seen("replicate", StepState::Done).await;
    story.step_seen("replicate", StepState::Intent).await;
    story.world.revive(3);
    let ended = story.end().await;
    let why = "restore n3: n3 is healthy again";
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Partial, why), "{ended:#?}");
    assert_eq!((copies_asked(&story), plan::moved(&ended).count()), (2, 2), "{:#?}", story.world.ledger());
    assert_eq!(story.world.members(), ["n1", "n2", "n3", "n4"]);

    // Before the first copy: the new node is taken away again.
    let mut story = with_a_dead_node();
    story.begin(replace()).await;
    story.step_seen("join", StepState::Intent).await;
    story.world.revive(3);
    let ended = story.end().await;
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Failed, why), "{ended:#?}");
    assert_eq!((copies_asked(&story), story.world.machines().len()), (0, 3), "{:#?}", story.world.ledger());
    story.told().await;

    // Well for a moment only: it is as dead as before.
    let mut story = with_a_dead_node();
    story.begin(replace()).await;
    story.step_seen("replicate", StepState::Done).await;
    story.world.revive(3);
    tokio::time::sleep(Duration::from_secs(3)).await;
    story.world.kill(3);
    assert_eq!(story.end().await.state, OperationState::Succeeded, "{:#?}", story.world.ledger());
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_without_data_gets_a_successor_and_nothing_else() {
    let world = World::without_data(3);
    let mut story = Story::of(world);
    story.world.kill(3);
    story.operator.begin(planned_for(replace(), false), None).await.expect("it begins");
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:#?}");
    let done = |name| (name, StepState::Done);
    assert_eq!(states(&ended), ["validate", "create", "join", "settle"].map(done));
    assert_eq!(story.world.machines(), ["n1", "n2", "n3", "n4"]);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_survives_death_at_any_instant() {
    dies_everywhere("replace", with_a_dead_node, replace(), false).await;
}

#[tokio::test(start_paused = true)]
async fn a_forgetting_in_doubt_of_a_node_that_came_back_ends_on_a_persons_word() {
    let mut story = with_a_dead_node();
    story.world.fault("forget", &[Fault::Lose]);
    story.begin(replace()).await;
    story.step_seen("forget", StepState::Unknown).await;
    *story.standing.objection.lock().unwrap() = Some("n3 is healthy again".into());
    story.world.revive(3);
    let blocked = story.end().await;
    assert_eq!(blocked.state, OperationState::Blocked, "it may yet come through: {}", blocked.detail);
    story.order(Verb::Resolve(Verdict::Absent)).await.expect("in doubt");
    let ended = story.end().await;
    assert_eq!((ended.state, ended.detail.contains("healthy again")), (OperationState::Partial, true), "{ended:#?}");
    assert_eq!(story.world.members(), ["n1", "n2", "n3", "n4"]);
}
