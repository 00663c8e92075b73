//! Several shards on their way at once, and how searching sets the pace: crashes, failures and cancels among them; stores
//! that only ever copy.

use super::*;

fn by_two() -> Action {
    Action::ScaleUp { nodes: 2, target: 5 }
}

const LONG: Duration = Duration::from_secs(60);

/// Three nodes with eight shards of two copies, a minute for each to move, and a search latency that is known.
fn calm() -> Story {
    let story = Story::of(World::new(3, 8, 2));
    story.world.set_flight(Some(LONG));
    story.latency(50.0);
    story
}

impl Story {
    fn latency(&self, ms: f64) {
        self.standing.checks.lock().unwrap().1 = Some(ms);
    }

    /// At least so many are.
    async fn until_in_flight(&self, count: usize) {
        let reached = async {
            while self.world.in_flight() < count {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(7200), reached)
            .await
            .unwrap_or_else(|_| panic!("never {count} in flight: {:#?}", self.world.ledger()));
    }

    fn moves_asked(&self) -> usize {
        self.world.ledger().iter().filter(|line| line.starts_with("move")).count()
    }

    async fn now(&self) -> Operation {
        self.journal.operation(&OperationId("op".into())).await.expect("a journal").expect("an operation")
    }
}

#[tokio::test(start_paused = true)]
async fn two_shards_move_at_once_when_searching_is_as_before() {
    let mut story = calm();
    story.begin(by_two()).await;
    story.until_in_flight(2).await;
    let moving = story.now().await;
    let arrived = plan::moved(&moving).count() as u32;
    assert_eq!((moving.shards_moving(), moving.shards_left), (2, moving.shards_total - arrived), "{moving:#?}");
    let ended = story.end().await;
    assert_eq!((ended.state, ended.shards_left, ended.bytes_left), (OperationState::Succeeded, 0, 0), "{ended:#?}");
    assert_eq!(story.world.most_at_once(), 2, "one to each new node");
    story.told().await;

    // Nobody tells how searching is: one at a time.
    let mut story = calm();
    story.standing.checks.lock().unwrap().1 = None;
    story.begin(by_two()).await;
    assert_eq!(story.end().await.state, OperationState::Succeeded);
    assert_eq!(story.world.most_at_once(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_shards_at_once_survive_death_at_any_instant() {
    let quick = || {
        let story = calm();
        story.world.set_flight(Some(Duration::from_secs(7)));
        story
    };
    dies_everywhere("two at once", quick, by_two(), false).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_both_are_looked_at_and_neither_is_asked_for_again() {
    let mut story = calm();
    story.begin(by_two()).await;
    story.until_in_flight(2).await;
    let asked = story.moves_asked();
    story.restart().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((story.moves_asked(), story.world.in_flight()), (asked, 2), "{:#?}", story.world.ledger());
    assert_eq!(story.end().await.state, OperationState::Succeeded);
    let mut moves: Vec<String> = story.world.ledger().into_iter().filter(|line| line.starts_with("move")).collect();
    let all = moves.len();
    moves.sort();
    moves.dedup();
    assert_eq!(moves.len(), all, "{moves:#?}");
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn one_of_two_fails_and_the_other_arrives() {
    let mut story = calm();
    story.begin(by_two()).await;
    story.until_in_flight(1).await;
    story.world.fault("move", &[Fault::Refuse; 30]);
    let ended = story.end().await;
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Partial, "rebalance: refused"), "{ended:#?}");
    assert_eq!(plan::moved(&ended).count(), 1, "{:#?}", story.world.ledger());
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_stops_after_both_transfers_in_flight() {
    let mut story = calm();
    story.begin(by_two()).await;
    story.until_in_flight(2).await;
    let asked = story.moves_asked();
    story.order(Verb::Cancel).await.expect("it can be cancelled");
    let ended = story.end().await;
    assert_eq!((ended.state, plan::moved(&ended).count()), (OperationState::Partial, asked), "{ended:#?}");
    assert_eq!(story.moves_asked(), asked, "{:#?}", story.world.ledger());
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn while_paused_both_arrive_and_nothing_is_called_off() {
    let mut story = calm();
    story.begin(by_two()).await;
    story.until_in_flight(2).await;
    story.world.set_flight(None);
    let asked = story.moves_asked();
    story.order(Verb::Pause).await.expect("it runs");
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!((plan::moved(&story.now().await).count(), story.moves_asked()), (asked, asked));
    story.order(Verb::Resume).await.expect("it is paused");
    story.until_in_flight(1).await;
    story.order(Verb::Pause).await.expect("it runs");
    let asked = story.world.ledger();
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(story.world.ledger(), asked, "one that is stuck is not called off while paused");
    story.world.set_flight(Some(LONG));
    story.order(Verb::Resume).await.expect("it is paused");
    assert_eq!(story.end().await.state, OperationState::Succeeded, "{:#?}", story.world.ledger());
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn when_searching_gets_slower_fewer_move_and_it_says_why() {
    let mut story = Story::of(World::new(3, 60, 1));
    story.world.set_flight(Some(LONG));
    story.latency(50.0);
    story.begin(Action::ScaleUp { nodes: 3, target: 6 }).await;
    story.until_in_flight(3).await;
    story.latency(100.0);
    tokio::time::sleep(Duration::from_secs(100)).await; // those in flight go on
    let mut most = 0;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        most = most.max(story.world.in_flight());
    }
    assert_eq!(most, 1, "halved, and halved again");
    let row = story.now().await;
    assert_eq!(row.detail, "one shard at a time: search latency is 100 ms, 50 ms before");
    story.latency(55.0);
    story.until_in_flight(3).await;
    assert_eq!(story.now().await.detail, "");
    assert_eq!(story.end().await.state, OperationState::Succeeded);
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn above_the_high_line_nothing_is_begun() {
    let mut story = calm();
    story.begin(by_two()).await;
    story.until_in_flight(1).await;
    story.latency(700.0);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((story.moves_asked(), story.world.in_flight()), (1, 0), "{:#?}", story.world.ledger());
    let row = story.now().await;
    assert_eq!(row.detail, "no further shard is moved for now: search latency is 700 ms, above 500 ms");
    story.latency(50.0);
    assert_eq!(story.end().await.state, OperationState::Succeeded);

    // It stays above: nothing of ours was in flight, so that is not our doing, and the new nodes are to help.
    let mut story = calm();
    story.begin(by_two()).await;
    story.until_in_flight(1).await;
    story.latency(700.0);
    let ended = story.end().await;
    assert_eq!((ended.state, story.world.most_at_once()), (OperationState::Succeeded, 1), "{ended:#?}");

    // It was so before: one at a time from the start.
    let mut story = calm();
    story.latency(700.0);
    story.begin(by_two()).await;
    let begun = Instant::now();
    assert_eq!(story.end().await.state, OperationState::Succeeded);
    assert!(begun.elapsed() < Duration::from_secs(900) && story.world.most_at_once() == 1);

    // A drain can wait for another day.
    let mut story = four();
    story.latency(50.0);
    story.begin(down()).await;
    story.step_seen("cordon", StepState::Done).await;
    story.latency(700.0);
    let ended = story.end().await;
    let why = "drain n3: search latency is 700 ms, above 500 ms";
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Failed, why), "{ended:#?}");
    assert_eq!((story.world.cordoned(), story.world.machines().len()), (0, 4));
}

fn copying() -> Story {
    let story = four();
    story.world.only_copies();
    story
}

#[tokio::test(start_paused = true)]
async fn a_store_that_only_copies_is_told_to_drop_the_source() {
    let mut story = copying();
    story.begin(down()).await;
    assert_eq!(story.end().await.state, OperationState::Succeeded, "{:#?}", story.world.ledger());
    story.told().await;
    insta::assert_snapshot!(story.world.ledger().join("\n"), @r"
    cordon n3 #1
    move 5 n3>n4 #7
    finish 5 n3>n4 #7
    move 2 n3>n1 #8
    finish 2 n3>n1 #8
    move 1 n3>n4 #9
    finish 1 n3>n4 #9
    leave n3 #4
    destroy n3 #5
    ");
}

#[tokio::test(start_paused = true)]
async fn a_drop_in_doubt_is_asked_for_again_and_one_that_never_comes_ends_the_drain() {
    use Fault::*;
    use OperationState::*;
    // What, its faults, the end, the copies that may yet be dropped.
    let cases: [(&str, &[Fault], OperationState, usize); 9] = [
        ("answered", &[], Succeeded, 0),
        ("under way", &[InProgress], Succeeded, 0),
        ("refused once", &[Refuse], Succeeded, 0),
        ("lost", &[Lose], Succeeded, 1),
        ("its answer lost", &[LoseAnswer], Succeeded, 1),
        ("late", &[Late(Duration::from_secs(20))], Succeeded, 1),
        ("hanging, and then refused", &[Hang, Refuse], Succeeded, 1),
        ("always refused", &[Refuse; 200], Failed, 0),
        ("always lost", &[Lose; 2000], Failed, 1),
    ];
    for (what, faults, state, late) in cases {
        let mut story = copying();
        story.world.fault("finish", faults);
        story.begin(down()).await;
        let ended = story.end().await;
        assert_eq!(ended.state, state, "{what}: {}", ended.detail);
        assert_eq!((story.world.cordoned(), plan::late_drops(&ended).count()), (0, late), "{what}");
        story.told().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_was_copied_is_finished_though_cancelled_and_not_while_paused() {
    let mut story = copying();
    story.world.set_flight(Some(LONG));
    story.begin(down()).await;
    story.until_in_flight(1).await;
    story.order(Verb::Pause).await.expect("it runs");
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    let finishes = |story: &Story| story.world.ledger().iter().filter(|line| line.starts_with("finish")).count();
    assert_eq!(finishes(&story), 0);
    story.order(Verb::Cancel).await.expect("it can be cancelled");
    story.order(Verb::Resume).await.expect("it is paused");
    let ended = story.end().await;
    assert_eq!((ended.state, finishes(&story)), (OperationState::Cancelled, 1), "{:#?}", story.world.ledger());
    assert_eq!((plan::moved(&ended).count(), story.world.cordoned()), (1, 0));
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_of_a_store_that_only_copies_survives_death_at_any_instant() {
    dies_everywhere("down by copies", copying, down(), false).await;
}
