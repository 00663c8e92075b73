//! Nodes that are taken out of service before they are emptied, and put in service once they are filled, by hooks.

use super::*;

fn hooked(action: &Action) -> Story {
    let story = if *action == up() { Story::new() } else { four() };
    story.world.has_hooks();
    story
}

impl Story {
    async fn begin_with_hooks(&mut self, action: Action) {
        self.operator.begin(planned_with(action, true, true), None).await.expect("a journal that opens");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_are_sent_away_before_a_drain_and_to_a_node_that_is_filled() {
    let cases = [
        (up(), vec!["create", "join", "move", "move", "move", "in_service"], vec!["n1", "n2", "n3", "n4"]),
        (down(), vec!["cordon", "out_of_service", "move", "move", "move", "leave", "destroy"], vec!["n1", "n2", "n4"]),
    ];
    for (action, calls, served) in cases {
        let mut story = hooked(&action);
        story.begin_with_hooks(action).await;
        let ended = story.end().await;
        assert_eq!(ended.state, OperationState::Succeeded, "{ended:#?}");
        let ledger = story.world.ledger();
        let made: Vec<&str> = ledger.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!((made, story.world.served()), (calls, served.iter().map(ToString::to_string).collect()));
        story.told().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_loses_no_node_that_is_filled() {
    use Fault::*;
    use OperationState::*;
    // What, action, call, its faults, the end, machines then, how many are served.
    type Case<'a> = (&'a str, Action, &'a str, &'a [Fault], OperationState, usize, usize);
    let cases: [Case; 10] = [
        ("in, refused once", up(), "in_service", &[Refuse], Succeeded, 4, 4),
        ("in, answer lost", up(), "in_service", &[LoseAnswer], Succeeded, 4, 4),
        ("in, hangs once", up(), "in_service", &[Hang], Succeeded, 4, 4),
        ("in, always refused", up(), "in_service", &[Refuse; 20], Partial, 4, 3),
        ("in, always lost", up(), "in_service", &[Lose; 20], Partial, 4, 3),
        ("out, refused once", down(), "out_of_service", &[Refuse], Succeeded, 3, 3),
        ("out, answer lost", down(), "out_of_service", &[LoseAnswer], Succeeded, 3, 3),
        ("out, always refused", down(), "out_of_service", &[Refuse; 20], Failed, 4, 4),
        ("out, always lost", down(), "out_of_service", &[LoseAnswer; 20], Failed, 4, 4),
        ("the drain fails", down(), "move", &[Refuse; 3], Failed, 4, 4),
    ];
    for (what, action, call, faults, state, machines, served) in cases {
        let mut story = hooked(&action);
        story.world.fault(call, faults);
        story.begin_with_hooks(action).await;
        let ended = story.end().await;
        assert_eq!(ended.state, state, "{what}: {}", ended.detail);
        let counts = (story.world.machines().len(), story.world.served().len());
        assert_eq!(counts, (machines, served), "{what}: {:#?}", story.world.ledger());
        if state == Partial {
            assert!(ended.detail.starts_with("added n4; 3 shards moved; clients are not sent to n4 ("), "{ended:#?}");
        }
        story.told().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_put_back_in_service_needs_a_person() {
    let mut story = hooked(&down());
    story.world.fault("move", &[Fault::Refuse; 3]);
    story.world.fault("in_service", &[Fault::Refuse; 3]);
    story.begin_with_hooks(down()).await;
    let blocked = story.end().await;
    assert_eq!((blocked.state, story.world.cordoned()), (OperationState::Blocked, 0), "{blocked:#?}");
    story.order(Verb::Retry).await.expect("it is blocked");
    assert_eq!((story.end().await.state, story.world.served().len()), (OperationState::Failed, 4));
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_scale_up_says_whom_nobody_is_sent_to() {
    let mut story = hooked(&up());
    story.begin_with_hooks(up()).await;
    story.step_seen("move", StepState::Intent).await;
    story.order(Verb::Cancel).await.expect("it can be cancelled");
    let ended = story.end().await;
    let expected = "cancelled by someone: why not; clients are not sent to n4: put it in service by hand";
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Partial, expected));
}

#[tokio::test(start_paused = true)]
async fn hooks_survive_death_at_any_instant() {
    for action in [up(), down()] {
        for dies_at in 1.. {
            let mut story = hooked(&action);
            let operation = planned_with(action.clone(), true, true);
            let died = runs_or_dies(&mut story, Some(operation), Some(dies_at)).await;
            after_crashes(&format!("{action:?} with hooks, dies at {dies_at}"), &mut story).await;
            let mut machines = story.world.machines();
            machines.sort();
            assert_eq!(story.world.served(), machines, "{action:?}, dies at {dies_at}");
            if !died {
                assert!(dies_at > 20, "only {dies_at} instants");
                break;
            }
        }
    }
}
