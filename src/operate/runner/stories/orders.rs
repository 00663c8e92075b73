//! Cancel, pause, resume, retry and resolve, at every instant and over crashes; and what a wrong word does.

use super::*;

fn done() -> Verb {
    Verb::Resolve(Verdict::Done)
}

fn absent() -> Verb {
    Verb::Resolve(Verdict::Absent)
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Story {
    async fn row(&self) -> Operation {
        self.journal.operation(&OperationId("op".into())).await.expect("a journal").expect("an operation")
    }

    /// The world was changed so often, or the operation has ended.
    async fn changed(&self, times: usize) {
        while self.world.ledger().len() < times && !self.row().await.state.is_final() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// What, its world, the action, the machines at its start and at its end.
type Work = (&'static str, fn() -> Story, Action, usize, usize);

fn works() -> [Work; 3] {
    let single: fn() -> Story = || Story::of(World::new(2, SHARDS, 1));
    [("up", Story::new, up(), 3, 4), ("up, single copies", single, up(), 2, 3), ("down", four, down(), 4, 3)]
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_while_paused_over_a_restart_too_and_afterwards_it_goes_on() {
    for (name, fresh, action, _, machines) in works() {
        for at in 1.. {
            let mut story = fresh();
            story.begin(action.clone()).await;
            story.changed(at).await;
            if story.order(Verb::Pause).await.is_err() {
                assert!(story.row().await.state.is_final() && at > 4, "{name}, at {at}");
                break;
            }
            assert!(story.row().await.paused, "{name}: durable before it is answered");
            tokio::time::sleep(Duration::from_secs(1)).await; // what was asked just before is asked
            let asked = story.world.ledger();
            tokio::time::sleep(DAY).await;
            assert_eq!(story.world.ledger(), asked, "{name}: went on after {at} effects");
            story.restart().await;
            tokio::time::sleep(DAY).await;
            assert_eq!(story.world.ledger(), asked, "{name}: went on after a restart, {at} effects");
            let row = story.row().await;
            assert_eq!(row.paused_by.as_ref().map(|by| by.who.as_str()), Some("someone"), "{name}: {row:#?}");
            assert!(story.order(Verb::Pause).await.expect_err("twice").contains("paused by someone since"));
            story.order(Verb::Resume).await.expect("it is paused");
            let ended = story.end().await;
            assert_eq!((ended.state, ended.paused), (OperationState::Succeeded, false), "{name}, at {at}");
            assert_eq!(story.world.machines().len(), machines, "{name}, at {at}");
            story.told().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_transfer_in_flight_arrives_while_paused() {
    let mut story = four();
    story.begin(down()).await;
    story.step_seen("move", StepState::Intent).await;
    story.order(Verb::Pause).await.expect("it runs");
    tokio::time::sleep(DAY).await;
    assert_eq!(plan::moved(&story.row().await).count(), 1, "{:#?}", story.world.ledger());
}

#[tokio::test(start_paused = true)]
async fn pause_and_stop_file_both_have_to_go() {
    for file_first in [true, false] {
        let mut story = four();
        story.begin(down()).await;
        story.step_seen("cordon", StepState::Done).await;
        story.order(Verb::Pause).await.expect("it runs");
        story.standing.forbids.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let asked = story.world.ledger();
        if file_first {
            story.standing.forbids.store(false, Ordering::Relaxed);
        } else {
            story.order(Verb::Resume).await.expect("it is paused");
        }
        tokio::time::sleep(DAY).await;
        assert_eq!(story.world.ledger(), asked, "file first: {file_first}");
        if file_first {
            story.order(Verb::Resume).await.expect("it is paused");
        } else {
            story.standing.forbids.store(false, Ordering::Relaxed);
        }
        assert_eq!(story.end().await.state, OperationState::Succeeded);
        story.told().await;
    }
}

/// An order that is taken comes true, one that is refused changes nothing, whenever it comes.
#[tokio::test(start_paused = true)]
async fn a_cancel_at_any_instant_comes_true_or_is_refused() {
    use OperationState::*;
    for (name, fresh, action, before, after) in works() {
        for millis in (0..120_000).step_by(350) {
            let mut story = fresh();
            story.begin(action.clone()).await;
            tokio::time::sleep(Duration::from_millis(millis)).await;
            let taken = story.order(Verb::Cancel).await;
            let row = story.row().await;
            assert_eq!(row.cancel.is_some(), taken.is_ok(), "{name} at {millis}: {row:#?}");
            let over = row.state.is_final();
            let ended = if over { row } else { story.end().await };
            let machines = story.world.machines().len();
            match taken {
                Ok(()) if ended.state == Cancelled => assert_eq!(machines, before, "{name} at {millis}"),
                Ok(()) => assert_eq!((ended.state, machines), (Partial, after), "{name} at {millis}"),
                Err(_) => assert_eq!((ended.state, machines), (Succeeded, after), "{name} at {millis}"),
            }
            assert_eq!(story.world.cordoned(), 0, "{name} at {millis}: left cordoned");
            story.told().await;
            if over {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_operation_survives_death_at_any_instant() {
    for (name, fresh, action, ..) in works() {
        for at in [1, 3, 5] {
            for dies_at in 1.. {
                let mut story = fresh();
                story.begin(action.clone()).await;
                story.changed(at).await;
                let what = format!("{name}, cancelled after {at} effects, dies at {dies_at}");
                story.world.crash.arm(Some(dies_at));
                let world = story.world.clone();
                let life = async {
                    if story.order(Verb::Cancel).await.is_ok() {
                        story.end().await;
                    }
                };
                let died = tokio::select! {
                    () = life => false,
                    () = world.crash.happened.notified() => true,
                };
                story.world.crash.arm(None);
                story.restart().await;
                if story.operator.running().is_some() {
                    story.end().await;
                }
                let row = story.row().await;
                assert!(row.state.is_final(), "{what}: {row:#?}");
                assert_eq!(story.world.cordoned(), 0, "{what}: left cordoned");
                story.told().await;
                if !died {
                    break;
                }
            }
        }
    }
}

/// The journal takes no writes: the order is not taken, and the operation does not know of it.
#[tokio::test(start_paused = true)]
async fn an_order_that_cannot_be_written_is_not_taken() {
    let mut story = four();
    story.begin(down()).await;
    story.step_seen("cordon", StepState::Done).await;
    story.world.fill_disk(1);
    let order = Order { what: Verb::Cancel, who: "someone".into(), reason: None };
    let id = OperationId("op".into());
    assert!(matches!(story.operator.order(&id, &order).await, Err(NotTaken::Journal(_))));
    assert!(matches!(story.operator.order(&OperationId("other".into()), &order).await, Err(NotTaken::NotThis)));
    assert_eq!(story.end().await.state, OperationState::Succeeded);
    assert!(story.order(Verb::Pause).await.expect_err("it is over").contains("it has ended: succeeded"));
}

/// A creation of which nobody can say whether it happened, for so many looks.
async fn blocked_creation(fault: Fault, looks: usize) -> Story {
    let mut story = Story::new();
    story.world.fault("create", &[Fault::InProgress, fault]);
    story.begin(up()).await;
    story.step_seen("create", StepState::Intent).await;
    story.world.fault("list", &vec![Fault::Refuse; looks]);
    let blocked = story.end().await;
    assert_eq!(blocked.state, OperationState::Blocked, "{blocked:#?}");
    for way in ["vecscale operation op retry", "resolve --as done", "--as absent", "vecscale operation op cancel"] {
        assert!(blocked.detail.contains(way), "{way}: {}", blocked.detail);
    }
    story
}

#[tokio::test(start_paused = true)]
async fn a_blocked_creation_has_four_ways_out() {
    use OperationState::*;
    for (what, ends, machines) in
        [(Verb::Retry, Succeeded, 4), (done(), Succeeded, 4), (absent(), Succeeded, 4), (Verb::Cancel, Cancelled, 3)]
    {
        let mut story = blocked_creation(Fault::LoseAnswer, 30).await;
        story.order(what).await.unwrap_or_else(|no| panic!("{what:?}: {no}"));
        let ended = story.end().await;
        assert_eq!((ended.state, story.world.machines().len()), (ends, machines), "{what:?}: {}", ended.detail);
        story.told().await; // "absent" was wrong, and no second node was made
        let orders = story.audit(HistoryKind::Operation).await;
        assert!(orders.iter().any(|row| row.ends_with(": why not")), "{what:?}: {orders:#?}");
    }
    let mut story = blocked_creation(Fault::LoseAnswer, 30).await;
    story.order(Verb::Pause).await.expect("also a blocked one");
    story.order(Verb::Retry).await.expect("it is blocked");
    tokio::time::sleep(DAY).await;
    assert!(!story.row().await.state.is_final(), "it is paused");
    story.order(Verb::Resume).await.expect("it is paused");
    assert_eq!(story.end().await.state, Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_word_survives_death_at_any_instant() {
    for word in [done(), absent()] {
        for dies_at in 1.. {
            let mut story = blocked_creation(Fault::LoseAnswer, 30).await;
            story.world.crash.arm(Some(dies_at));
            let world = story.world.clone();
            let life = async {
                story.order(word).await.expect("in doubt");
                story.end().await;
            };
            let died = tokio::select! {
                () = life => false,
                () = world.crash.happened.notified() => true,
            };
            runs_or_dies(&mut story, None, None).await;
            let row = story.row().await;
            assert_eq!(row.state, OperationState::Succeeded, "{word:?}, dies at {dies_at}: {row:#?}");
            story.told().await;
            if !died {
                assert!(dies_at > 10, "{word:?}: only {dies_at} instants");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn done_said_of_a_creation_that_never_was_ends_undone() {
    let mut story = blocked_creation(Fault::Lose, 30).await;
    story.order(done()).await.expect("in doubt");
    let created = story.row().await.steps[1].clone();
    assert_eq!(created.output.expect("a word")["resolved"]["by"], "someone");
    let ended = story.end().await;
    assert_eq!(
        (ended.state, ended.detail.as_str()),
        (OperationState::Failed, "join n4: the provider does not list n4")
    );
    assert_eq!(story.world.machines().len(), 3);
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn absent_said_while_the_provider_is_silent_tries_again_with_the_same_key() {
    let mut story = blocked_creation(Fault::Lose, 60).await;
    story.world.vouch(4);
    story.order(absent()).await.expect("in doubt");
    assert_eq!(story.end().await.state, OperationState::Succeeded);
    let created: Vec<String> = story.world.ledger().into_iter().filter(|line| line.starts_with("create")).collect();
    assert_eq!(created, ["create n4 #1 (InProgress)", "create n4 #1 (Lose)", "create n4 #1"]);
    story.told().await;
}

/// A scale-down that is blocked at leaving: nobody knows whether the node is still a member.
async fn blocked_leave(fault: Fault) -> Story {
    let mut story = four();
    story.world.fault("leave", &[Fault::InProgress, fault]);
    story.begin(down()).await;
    story.step_seen("leave", StepState::Intent).await;
    story.world.fault("inventory", &[Fault::Refuse; 30]);
    let blocked = story.end().await;
    assert_eq!(blocked.state, OperationState::Blocked, "{blocked:#?}");
    assert!(!blocked.detail.contains("cancel"), "past its point of no return: {}", blocked.detail);
    let no = story.order(Verb::Cancel).await.expect_err("past its point of no return");
    assert!(no.contains("point of no return") && no.contains("retry") && no.contains("resolve"), "{no}");
    story
}

#[tokio::test(start_paused = true)]
async fn a_wrong_word_about_leaving_loses_nothing() {
    // It has left, whatever is said of it.
    for word in [done(), absent(), Verb::Retry] {
        let mut story = blocked_leave(Fault::LoseAnswer).await;
        story.order(word).await.expect("in doubt");
        assert_eq!(story.end().await.state, OperationState::Succeeded, "{word:?}");
        assert_eq!(story.world.machines(), ["n1", "n2", "n4"]);
        story.told().await;
    }
    // It is still a member.
    for word in [absent(), Verb::Retry] {
        let mut story = blocked_leave(Fault::Lose).await;
        story.order(word).await.expect("in doubt");
        assert_eq!(story.end().await.state, OperationState::Succeeded, "{word:?}");
        story.told().await;
    }
    let mut story = blocked_leave(Fault::Lose).await;
    story.order(done()).await.expect("in doubt");
    let blocked = story.end().await;
    assert_eq!(blocked.state, OperationState::Blocked, "{blocked:#?}");
    assert!(blocked.detail.starts_with("destroy n3: n3 is still a member of the cluster"), "{}", blocked.detail);
    assert!(!story.world.ledger().iter().any(|line| line.starts_with("destroy")), "{:#?}", story.world.ledger());
    // Nothing is in doubt now; but the wrong word can be taken back.
    let no = story.order(done()).await.expect_err("nothing is in doubt");
    assert!(no.contains("no step of it is in doubt") && no.contains("takes back that \"leave n3\" happened"), "{no}");
    story.order(absent()).await.expect("the word is taken back");
    assert_eq!(story.end().await.state, OperationState::Succeeded);
    assert_eq!(story.world.machines(), ["n1", "n2", "n4"]);
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn absent_said_of_a_leave_that_may_not_be_tried_again_puts_the_node_back() {
    let mut story = blocked_leave(Fault::Lose).await;
    *story.standing.objection.lock().unwrap() = Some("n1 has become unhealthy".into());
    story.order(Verb::Retry).await.expect("it is blocked");
    assert_eq!(story.end().await.state, OperationState::Blocked, "it may still come through late");
    story.order(absent()).await.expect("in doubt");
    let ended = story.end().await;
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Failed, "leave n3: n1 has become unhealthy"));
    assert_eq!((story.world.machines().len(), story.world.cordoned()), (4, 0));
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn a_word_about_destroying_ends_the_operation() {
    for (word, machines) in [(done(), 4), (absent(), 3)] {
        let mut story = four();
        story.world.fault("destroy", &[Fault::Lose; 8]);
        story.begin(down()).await;
        assert_eq!(story.end().await.state, OperationState::Blocked);
        story.order(word).await.expect("in doubt");
        assert_eq!(story.end().await.state, OperationState::Succeeded, "{word:?}");
        assert_eq!(story.world.machines().len(), machines, "a machine that was called gone is left alone");
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_blocked_is_retried_or_resolved() {
    let mut story = four();
    story.begin(down()).await;
    for verb in [Verb::Retry, done(), absent(), Verb::Resume] {
        let no = story.order(verb).await.expect_err("it runs");
        assert!(no.contains("pause` holds it where it is"), "{verb:?}: {no}");
    }
    assert_eq!(story.end().await.state, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_progress_is_not_asked_for_again_while_held_and_no_deadline_comes_nearer() {
    for by_file in [true, false] {
        let mut story = four();
        story.world.fault("destroy", &[Fault::InProgress; 3]);
        story.begin(down()).await;
        story.step_seen("destroy", StepState::Intent).await;
        match by_file {
            true => story.standing.forbids.store(true, Ordering::Relaxed),
            false => story.order(Verb::Pause).await.expect("it runs"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await; // what was asked just before is asked
        let asked = story.world.ledger();
        assert!(asked.iter().any(|line| line.starts_with("destroy")), "{asked:#?}");
        tokio::time::sleep(DAY).await;
        assert_eq!(story.world.ledger(), asked, "by file: {by_file}");
        match by_file {
            true => story.standing.forbids.store(false, Ordering::Relaxed),
            false => story.order(Verb::Resume).await.expect("it is paused"),
        }
        let ended = story.end().await;
        assert_eq!((ended.state, story.world.machines().len()), (OperationState::Succeeded, 3), "{}", ended.detail);
        let attempts = ended.steps.iter().find(|step| step.action.name() == "destroy").map(|step| step.attempts);
        assert_eq!(attempts, Some(1), "its time did not run out");
        story.told().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_comes_while_the_store_is_asked_first_holds_the_next_question_too() {
    let mut story = Story::new();
    story.world.fault("move", &[Fault::Refuse; 3]);
    story.world.fault("unjoin", &[Fault::InProgress; 3]);
    story.begin(up()).await;
    story.step_seen("unjoin", StepState::Intent).await;
    // The store says nothing for a while of whether the node may still be taken out.
    story.world.fault("inventory", &[Fault::Refuse; 10]);
    tokio::time::sleep(3 * pace().probe).await;
    story.standing.forbids.store(true, Ordering::Relaxed);
    let asked = story.world.ledger();
    assert_eq!(asked.last().map(String::as_str), Some("unjoin n4 #6 (InProgress)"), "{asked:#?}");
    tokio::time::sleep(DAY).await;
    assert_eq!(story.world.ledger(), asked);
    story.standing.forbids.store(false, Ordering::Relaxed);
    let ended = story.end().await;
    assert_eq!((ended.state, story.world.machines().len()), (OperationState::Failed, 3), "{}", ended.detail);
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_falls_silent_does_not_hold_up_a_destroy_that_is_in_progress() {
    let mut story = four();
    story.world.fault("destroy", &[Fault::InProgress; 3]);
    story.begin(down()).await;
    story.step_seen("destroy", StepState::Intent).await;
    story.world.fault("inventory", &[Fault::Refuse; 10_000]);
    let ended = story.end().await;
    assert_eq!((ended.state, story.world.machines().len()), (OperationState::Succeeded, 3), "{}", ended.detail);
}
