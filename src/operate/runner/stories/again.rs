//! What comes to nothing is asked for again, after a pause; what a crash left in the way of that is cleared away.

use super::*;

impl Story {
    fn asked(&self, call: &str) -> Vec<String> {
        self.world.ledger().into_iter().filter(|line| line.starts_with(call)).collect()
    }
}

/// A drain whose first move is refused, and all that follow.
async fn refused() -> Story {
    let mut story = four();
    story.world.fault("move", &[Fault::Refuse; 30]);
    story.begin(down()).await;
    story.step_seen("move", StepState::Intent).await;
    story
}

#[tokio::test(start_paused = true)]
async fn a_minute_without_a_leader_fails_nothing() {
    for quiet in [3, 30, 55] {
        let mut story = refused().await;
        tokio::time::sleep(Duration::from_secs(quiet)).await;
        story.world.calms_down();
        let ended = story.end().await;
        assert_eq!(ended.state, OperationState::Succeeded, "{quiet} s: {}\n{:#?}", ended.detail, story.world.ledger());
        story.told().await;
    }
    let dead = || {
        let story = Story::new();
        story.world.kill(3);
        story
    };
    for (action, call, story) in
        [(up(), "move", Story::new()), (Action::Replace { node: node(3) }, "replicate", dead())]
    {
        let mut story = story;
        story.world.fault(call, &[Fault::Refuse; 2]);
        story.begin(action).await;
        story.step_seen(call, StepState::Intent).await;
        let refused = Instant::now();
        story.step_seen(call, StepState::Done).await;
        assert!(refused.elapsed() > Duration::from_secs(60), "{call}: {:?}", refused.elapsed());
        assert_eq!(story.end().await.state, OperationState::Succeeded, "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_three_times_over_a_minute_fails() {
    let mut story = refused().await;
    let begun = Instant::now();
    let ended = story.end().await;
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Failed, "drain n3: refused"));
    assert_eq!((story.asked("move").len(), story.world.cordoned()), (3, 0), "{:#?}", story.world.ledger());
    assert!((60..90).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn between_two_attempts_a_cancel_and_a_pause_are_heard() {
    let mut story = refused().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = Instant::now();
    story.order(Verb::Cancel).await.expect("it can be cancelled");
    let ended = story.end().await;
    assert_eq!((ended.state, story.world.cordoned()), (OperationState::Cancelled, 0), "{}", ended.detail);
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    assert_eq!(story.asked("move").len(), 2, "{:#?}", story.world.ledger());
    story.told().await;

    let mut story = refused().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    story.order(Verb::Pause).await.expect("it runs");
    let asked = story.world.ledger();
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(story.world.ledger(), asked);
    story.world.calms_down();
    story.order(Verb::Resume).await.expect("it is paused");
    assert_eq!(story.end().await.state, OperationState::Succeeded, "{:#?}", story.world.ledger());
    story.told().await;
}

/// One shard at a time, two nodes to fill: while the first is not asked for again yet, the one to the other node moves.
#[tokio::test(start_paused = true)]
async fn between_two_attempts_another_shard_moves_and_no_two_at_once() {
    let mut story = Story::new();
    story.world.set_flight(Some(Duration::from_secs(30)));
    story.world.fault("move", &[Fault::Refuse]);
    story.begin(Action::ScaleUp { nodes: 2, target: 5 }).await;
    story.step_seen("move", StepState::Intent).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let asked = story.asked("move");
    let to = |n: usize| asked[n].split(['>', ' ']).nth(3).map(str::to_string);
    assert!(asked.len() == 2 && to(0) != to(1), "{asked:#?}");
    while story.operator.running().is_some() {
        assert!(story.world.in_flight() <= 1, "{:#?}", story.world.ledger());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(story.end().await.state, OperationState::Succeeded, "{:#?}", story.world.ledger());
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn what_breaks_off_while_no_controller_runs_is_cleared_away_first() {
    let dead = || {
        let story = Story::new();
        story.world.kill(3);
        story
    };
    for (what, action, mut story) in
        [("down", down(), four()), ("replace", Action::Replace { node: node(3) }, dead()), ("up", up(), Story::new())]
    {
        story.world.set_flight(None);
        story.begin(action).await;
        while story.world.in_flight() == 0 {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        story.operator.stop().await;
        story.world.break_off();
        story.world.set_flight(Some(Duration::from_secs(5)));
        story.restart().await;
        let ended = story.end().await;
        assert_eq!(ended.state, OperationState::Succeeded, "{what}: {}\n{:#?}", ended.detail, story.world.ledger());
        assert_eq!(story.asked("cancel").len(), 1, "{what}: {:#?}", story.world.ledger());
    }
}

/// The node cannot be asked whether it is empty, and by the next start it can: what failed is not gone past.
#[tokio::test(start_paused = true)]
async fn what_failed_right_before_a_death_is_taken_back_after_it() {
    for first in 1.. {
        let mut story = four();
        story.world.cut_off(3, true);
        let died = runs_or_dies(&mut story, Some(planned(down())), Some(first)).await;
        story.world.cut_off(3, false);
        after_crashes(&format!("dies at {first}"), &mut story).await;
        if !died {
            assert!(first > 20, "only {first} instants");
            return;
        }
    }
}
