//! Scale-ups, scale-downs and a rebalance: what happens when all goes well, when each step fails, and when the controller
//! dies at any instant.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_scale_up_adds_a_node_and_gives_it_its_share() {
    let mut story = Story::new();
    story.begin(up()).await;
    let ended = story.end().await;
    assert_eq!((ended.state, ended.shards_left, ended.bytes_left), (OperationState::Succeeded, 0, 0), "{ended:#?}");
    insta::assert_snapshot!(story.told().await.join("\n"), @r"
    scale_up of n4 began: cpu_high 0.81 > 0.75, 2 of 2 checks
    create n4: done
    join n4: done
    move docs/0 from n2 to n4: done
    move docs/2 from n1 to n4: done
    move docs/4 from n3 to n4: done
    scale_up of n4 succeeded: added n4; 3 shards moved
    ");
    insta::assert_snapshot!(story.world.ledger().join("\n"), @r"
    create n4 #1
    join n4 #2
    move 0 n2>n4 #5
    move 2 n1>n4 #6
    move 4 n3>n4 #7
    ");
}

#[tokio::test(start_paused = true)]
async fn a_scale_down_empties_a_node_proves_it_and_removes_it() {
    let mut story = four();
    story.begin(down()).await;
    let ended = story.end().await;
    assert_eq!((ended.state, ended.shards_left, ended.bytes_left), (OperationState::Succeeded, 0, 0), "{ended:#?}");
    assert_eq!(story.world.machines(), ["n1", "n2", "n4"]);
    insta::assert_snapshot!(story.told().await.join("\n"), @r"
    scale_down of n3 began: cpu_high 0.81 > 0.75, 2 of 2 checks
    cordon n3: done
    move docs/5 from n3 to n4: done
    move docs/2 from n3 to n1: done
    move docs/1 from n3 to n4: done
    prove n3: done
    leave n3: done
    destroy n3: done
    scale_down of n3 succeeded: removed n3; 3 shards moved
    ");
    let proof = ended.steps.iter().find(|s| s.action.name() == "prove").and_then(|s| s.output.clone());
    assert_eq!(proof.expect("a proof")["witnesses"], json!(["n1", "n2", "n3", "n4"]));
}

#[tokio::test(start_paused = true)]
async fn each_failure_ends_as_it_should() {
    use Fault::*;
    use OperationState::*;
    let late = Late(Duration::from_secs(7));
    let much_later = Late(Duration::from_secs(3000));
    let cases: [Case; 21] = [
        ("create refused", up(), "create", &[Refuse; 3], Failed, 3),
        ("create refused once", up(), "create", &[Refuse], Succeeded, 4),
        ("create lost, nothing happened", up(), "create", &[Lose], Succeeded, 4),
        ("create's answer lost", up(), "create", &[LoseAnswer], Succeeded, 4),
        ("create comes late", up(), "create", &[late], Succeeded, 4),
        ("create never comes", up(), "create", &[Lose; 3], Failed, 3),
        ("create comes far too late", up(), "create", &[much_later; 3], Failed, 3),
        ("create in progress a while", up(), "create", &[InProgress; 5], Succeeded, 4),
        ("create hangs once", up(), "create", &[Hang], Succeeded, 4),
        ("join refused", up(), "join", &[Refuse; 3], Failed, 3),
        ("first move refused", up(), "move", &[Refuse; 3], Failed, 3),
        ("a move refused once", up(), "move", &[Refuse], Succeeded, 4),
        ("a move lost", up(), "move", &[Lose], Succeeded, 4),
        ("cordon refused", down(), "cordon", &[Refuse; 3], Failed, 4),
        ("cordon's answer lost", down(), "cordon", &[LoseAnswer], Succeeded, 3),
        ("move refused while draining", down(), "move", &[Refuse; 3], Failed, 4),
        ("leave refused", down(), "leave", &[Refuse; 3], Failed, 4),
        ("leave's answer lost", down(), "leave", &[LoseAnswer], Succeeded, 3),
        ("destroy refused at first", down(), "destroy", &[Refuse; 4], Succeeded, 3),
        ("destroy's answer lost", down(), "destroy", &[LoseAnswer], Succeeded, 3),
        ("list silent at first", down(), "list", &[Refuse; 5], Succeeded, 3),
    ];
    for (what, action, call, faults, state, machines) in cases {
        let mut story = if action == up() { Story::new() } else { four() };
        story.world.fault(call, faults);
        story.begin(action).await;
        let ended = story.end().await;
        assert_eq!(ended.state, state, "{what}: {}\n{:#?}", ended.detail, story.world.ledger());
        assert_eq!(story.world.machines().len(), machines, "{what}");
        assert_eq!(story.world.cordoned(), 0, "{what}: left cordoned");
        let told = story.told().await;
        assert_eq!(story.audit(HistoryKind::Operation).await.len(), 2, "{what}: {told:#?}");
        tokio::time::sleep(Duration::from_secs(4000)).await; // whatever was late has come by now
        story.world.check().unwrap_or_else(|broken| panic!("{what}, later: {broken}"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_stays_unknown_is_blocked_and_looked_at_again_by_the_next_start() {
    for (call, action, endless) in [("destroy", down(), Fault::Lose), ("leave", down(), Fault::Lose)] {
        let mut story = four();
        story.world.fault(call, &[endless; 20]);
        story.begin(action).await;
        let blocked = story.end().await;
        assert_eq!(blocked.state, OperationState::Blocked, "{call}: {}", blocked.detail);
        assert!(blocked.detail.contains("resolve --as done"), "{}", blocked.detail);
        assert!(!blocked.state.is_final() && story.operator.running().is_none());
    }
    let mut story = four();
    story.world.fault("destroy", &[Fault::Lose; 8]);
    story.begin(down()).await;
    assert_eq!(story.end().await.state, OperationState::Blocked);
    // A person takes the machine away by hand.
    story.world.take_away(3);
    story.restart().await;
    assert_eq!(story.end().await.state, OperationState::Succeeded);
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_empty_from_the_start_is_no_answer_either() {
    let mut story = Story::new();
    (1..=3).for_each(|n| story.world.take_away(n));
    story.begin(up()).await;
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Failed, "{}", ended.detail);
    assert!(ended.detail.contains("though it did before"), "{}", ended.detail);
    assert_eq!(story.world.ledger(), [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_becomes_healthy_is_taken_away_again() {
    let mut story = Story::new();
    story.world.set_ready(false);
    story.begin(up()).await;
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Failed);
    assert_eq!(ended.detail, "join n4: n4 is not ready");
    assert_eq!(story.world.machines(), ["n1", "n2", "n3"]);
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn a_join_that_comes_through_while_it_is_taken_back_is_taken_back_too() {
    let mut story = Story::new();
    story.world.fault("join", &[Fault::Late(Duration::from_secs(5))]);
    story.world.fault("destroy", &[Fault::Refuse]);
    story.begin(up()).await;
    story.step_seen("join", StepState::Unknown).await;
    story.order(Verb::Cancel).await.expect("nothing was moved yet");
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Cancelled, "{}\n{:#?}", ended.detail, story.world.ledger());
    assert_eq!((story.world.members().len(), story.world.machines().len()), (3, 3), "{:#?}", story.world.ledger());
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn a_move_that_comes_through_while_the_node_is_taken_out_lets_it_stay() {
    let mut stayed = 0;
    for (unjoin, delay) in (64..=78).flat_map(|delay| [(Fault::Lose, delay), (Fault::InProgress, delay)]) {
        let mut story = Story::new();
        story.world.fault("move", &[Fault::Refuse, Fault::Late(Duration::from_secs(delay)), Fault::Lose]);
        story.world.fault("cancel", &[Fault::Refuse]);
        story.world.fault("unjoin", &[unjoin]);
        story.begin(up()).await;
        let ended = story.end().await;
        story.world.check().unwrap_or_else(|broken| panic!("{delay} s: {broken}\n{:#?}", story.world.ledger()));
        assert!(ended.state.is_final(), "{delay} s: {}", ended.detail);
        stayed += u32::from(ended.state == OperationState::Partial && ended.detail.contains("n4 stays"));
    }
    assert!(stayed > 0, "in none of them did the shard arrive after the first attempt to take the node out");
}

#[tokio::test(start_paused = true)]
async fn a_join_that_comes_through_while_the_machine_is_taken_away_is_undone_first() {
    let mut undone = 0;
    for delay in 1..=40 {
        let mut story = Story::new();
        story.world.fault("join", &[Fault::Lose, Fault::Late(Duration::from_secs(delay)), Fault::Lose]);
        story.world.fault("destroy", &[Fault::InProgress; 4]);
        story.begin(up()).await;
        let ended = story.end().await;
        story.world.check().unwrap_or_else(|broken| panic!("{delay} s: {broken}\n{:#?}", story.world.ledger()));
        assert_eq!(story.world.machines().len(), 3 + usize::from(ended.state == OperationState::Succeeded));
        let ledger = story.world.ledger();
        let place = |call: &str| ledger.iter().position(|line| line.starts_with(call));
        undone += u32::from(place("unjoin").is_some_and(|unjoin| place("destroy").is_some_and(|first| first < unjoin)));
    }
    assert!(undone > 0, "in none of them did the join come through after the machine was first to be taken away");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_stuck_is_put_back() {
    let mut story = four();
    story.world.set_flight(None);
    story.begin(down()).await;
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Failed, "{}", ended.detail);
    assert_eq!((story.world.cordoned(), story.world.machines().len()), (0, 4));
    assert!(story.world.ledger().iter().any(|line| line.starts_with("cancel")), "{:#?}", story.world.ledger());
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_without_proof() {
    // The victim does not answer; a survivor does not answer.
    for silent in [3, 1] {
        let mut story = four();
        story.world.cut_off(silent, true);
        story.begin(down()).await;
        let ended = story.end().await;
        assert_eq!(ended.state, OperationState::Failed, "n{silent}: {}", ended.detail);
        assert!(ended.detail.contains("did not answer"), "{}", ended.detail);
        assert!(!story.world.ledger().iter().any(|line| line.starts_with("leave")), "{:#?}", story.world.ledger());
        assert_eq!(story.world.cordoned(), 0);
        story.told().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_comes_back_after_the_drain_holds_the_node() {
    let mut story = four();
    story.begin(down()).await;
    story.step_seen("drain", StepState::Done).await;
    story.world.put_shard_back(7, 3);
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Failed);
    assert!(ended.detail.contains("still holds docs/7"), "{}", ended.detail);
    assert_eq!(story.world.machines().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_leave_that_comes_through_after_it_was_given_up_leaves_nothing_open() {
    let mut story = four();
    story.world.fault("leave", &[Fault::Lose, Fault::Late(Duration::from_secs(10)), Fault::Refuse]);
    story.world.fault("uncordon", &[Fault::Hang]);
    story.begin(down()).await;
    let ended = story.end().await;
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Failed, "leave n3: refused"));
    assert_eq!((story.world.members().len(), story.world.machines().len(), story.world.cordoned()), (3, 4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_no_longer_stands_is_not_carried_out() {
    let mut story = four();
    story.begin(down()).await;
    story.step_seen("drain", StepState::Done).await;
    *story.standing.objection.lock().unwrap() = Some("n1 has become unhealthy".into());
    let ended = story.end().await;
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Failed, "leave n3: n1 has become unhealthy"));
    assert_eq!((story.world.machines().len(), story.world.cordoned()), (4, 0));
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_stops_after_the_transfer_in_flight() {
    let mut story = four();
    story.begin(down()).await;
    story.step_seen("move", StepState::Intent).await;
    story.order(Verb::Cancel).await.expect("it can be cancelled");
    let ended = story.end().await;
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Cancelled, "cancelled by someone: why not"));
    assert_eq!(plan::moved(&ended).count(), 1, "the shard in flight arrives and stays");
    assert_eq!(story.world.cordoned(), 0);
    story.told().await;

    let mut story = Story::new();
    story.begin(up()).await;
    story.step_seen("join", StepState::Intent).await;
    story.order(Verb::Cancel).await.expect("it can be cancelled");
    assert_eq!(story.end().await.state, OperationState::Cancelled);
    assert_eq!(story.world.machines().len(), 3, "before the first shard it is undone");
    story.told().await;

    let mut story = Story::of(World::new(2, SHARDS, 1));
    story.begin(up()).await;
    story.step_seen("move", StepState::Intent).await;
    story.order(Verb::Cancel).await.expect("it can be cancelled");
    assert_eq!(story.end().await.state, OperationState::Partial);
    assert_eq!(story.world.machines().len(), 3, "after it the node stays");
    story.told().await;

    let mut story = four();
    story.begin(down()).await;
    story.step_seen("leave", StepState::Done).await;
    let no = story.order(Verb::Cancel).await.expect_err("it has left");
    assert!(no.contains("point of no return") && no.contains("pause"), "{no}");
    assert_eq!(story.end().await.state, OperationState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_holds_the_operation_and_loses_nothing() {
    let mut story = four();
    story.begin(down()).await;
    story.step_seen("cordon", StepState::Done).await;
    let before = story.world.ledger().len();
    story.world.fill_disk(20);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(story.world.ledger().len(), before, "no effect without a record");
    assert_eq!(story.end().await.state, OperationState::Succeeded);
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_has_grown_old_over_a_full_disk_is_made_anew() {
    let mut story = four();
    story.begin(down()).await;
    story.step_seen("drain", StepState::Done).await;
    story.world.fault("list", &[Fault::Refuse]); // so that the last questions before the leave take a moment
    story.step_seen("prove", StepState::Done).await;
    story.world.fill_disk(60); // two minutes, in which the node goes silent
    story.world.cut_off(3, true);
    let ended = story.end().await;
    assert_eq!(ended.state, OperationState::Failed, "{}", ended.detail);
    assert!(ended.detail.contains("did not answer"), "{}", ended.detail);
    assert!(!story.world.ledger().iter().any(|line| line.starts_with("leave")), "{:#?}", story.world.ledger());
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_was_overtaken_acts_no_more() {
    let mut story = four();
    story.begin(down()).await;
    story.step_seen("cordon", StepState::Done).await;
    let _newer = story.journal.inner.reopen();
    while story.operator.running().is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(story.world.machines().len(), 4);
    assert!(story.world.ledger().iter().all(|line| !line.starts_with("leave")), "{:#?}", story.world.ledger());
}

#[tokio::test(start_paused = true)]
async fn an_orderly_stop_parks_and_the_next_start_goes_on() {
    let mut story = four();
    story.begin(down()).await;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = Instant::now();
        story.operator.stop().await;
        assert!(before.elapsed() < Duration::from_secs(1), "a stop waits for nothing");
        story.restart().await;
    }
    if story.operator.running().is_some() {
        story.end().await;
    }
    let ended = story.journal.operation(&OperationId("op".into())).await.expect("a journal").expect("an operation");
    assert_eq!(ended.state, OperationState::Succeeded, "{}", ended.detail);
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn two_nodes_at_once_and_a_second_operation_refused() {
    let mut story = Story::new();
    story.begin(Action::ScaleUp { nodes: 2, target: 5 }).await;
    let second = Operation { id: OperationId("op2".into()), ..planned(down()) };
    let refused = story.operator.hands.journal.open(&second, None, operation_entry(&second, "began", "")).await;
    assert!(matches!(refused, Err(JournalError::OperationOpen(id)) if &*id.0 == "op"));
    assert_eq!(story.end().await.state, OperationState::Succeeded);
    assert_eq!(story.world.machines().len(), 5);
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn nodes_without_data_come_and_go_without_shards() {
    let world = || World::without_data(3);
    let cases: [Case; 7] = [
        ("up", up(), "", &[], OperationState::Succeeded, 4),
        ("create lost", up(), "create", &[Fault::LoseAnswer], OperationState::Succeeded, 4),
        ("create refused", up(), "create", &[Fault::Refuse; 3], OperationState::Failed, 3),
        ("down", down(), "", &[], OperationState::Succeeded, 2),
        ("destroy lost", down(), "destroy", &[Fault::LoseAnswer], OperationState::Succeeded, 2),
        ("destroy refused", down(), "destroy", &[Fault::Refuse; 3], OperationState::Failed, 3),
        ("destroy unknown", down(), "destroy", &[Fault::Lose; 3], OperationState::Blocked, 3),
    ];
    for (what, action, call, faults, state, machines) in cases {
        let mut story = Story::of(world());
        story.world.fault(call, faults);
        story.operator.begin(planned_for(action, false), None).await.expect("a journal that opens");
        let ended = story.end().await;
        assert_eq!((ended.state, story.world.machines().len()), (state, machines), "{what}: {}", ended.detail);
        let own = ["create", "join", "destroy"];
        assert!(story.world.ledger().iter().all(|line| own.iter().any(|call| line.starts_with(call))), "{what}");
    }
    for action in [up(), down()] {
        let mut first = 1;
        while {
            let mut story = Story::of(world());
            let died = runs_or_dies(&mut story, Some(planned_for(action.clone(), false)), Some(first)).await;
            after_crashes(&format!("{action:?} without data, dies at {first}"), &mut story).await;
            died
        } {
            first += 1;
        }
        assert!(first > 8, "only {first} instants");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_does_not_say_that_the_first_node_was_not_made() {
    let first = || planned_for(Action::ScaleUp { nodes: 1, target: 1 }, false);
    for (fault, state) in [(Fault::LoseAnswer, OperationState::Succeeded), (Fault::Lose, OperationState::Blocked)] {
        let mut story = Story::of(World::without_data(0));
        story.standing.is_new.store(true, Ordering::Relaxed);
        story.world.fault("create", &[fault]);
        story.operator.begin(first(), None).await.expect("a journal that opens");
        let ended = story.end().await;
        assert_eq!(ended.state, state, "{fault:?}: {}", ended.detail);
        let asked = |story: &Story| story.world.ledger().iter().filter(|line| line.starts_with("create")).count();
        assert_eq!(asked(&story), 1, "{:#?}", story.world.ledger());
        if state == OperationState::Blocked {
            let why = "create n4: the provider lists no node at all, and n4 may have been made";
            assert!(ended.detail.starts_with(why), "{}", ended.detail);
            story.order(Verb::Resolve(Verdict::Absent)).await.expect("in doubt");
            assert_eq!(story.end().await.state, OperationState::Succeeded);
            assert_eq!((asked(&story), story.world.machines().len()), (2, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_evens_out_and_keeps_what_it_moved() {
    let mut story = Story::of(World::new(3, SHARDS, 1));
    story.world.pile_up(1);
    story.begin(Action::Rebalance {}).await;
    let ended = story.end().await;
    assert_eq!((ended.state, ended.detail.as_str()), (OperationState::Succeeded, "4 shards moved"));
    story.told().await;

    let mut story = Story::of(World::new(3, SHARDS, 1));
    story.world.pile_up(1);
    story.begin(Action::Rebalance {}).await;
    story.step_seen("move", StepState::Done).await;
    story.world.fault("move", &[Fault::Refuse; 3]);
    assert_eq!(story.end().await.state, OperationState::Partial);
    story.told().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_on_over_restarts_with_the_journal_on_disk() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let (world, standing) = (World::new(4, SHARDS, 2), Arc::new(Stands::default()));
    for start in 1..100 {
        let clock = TokioClock::starting_at(START);
        // The start before may still be busy dying.
        let journal = loop {
            match SqliteJournal::open(dir.path(), &*clock) {
                Ok((journal, _)) => break Arc::new(journal),
                Err(JournalError::InUse { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let (send, mut reports) = mpsc::unbounded_channel();
        let hands =
            Hands { provider: world.clone(), datastore: world.clone(), journal: journal.clone(), clock: clock.clone() };
        let mut operator = Operator::new(hands, pace(), standing.clone(), send);
        match journal.open_operation(&"p".into()).await.expect("readable") {
            None if start == 1 => operator.begin(planned(down()), None).await.expect("a new operation"),
            None => break,
            Some(open) => drop(operator.resume(open)),
        }
        // Each start lives for four reports, then is gone without a word: it takes up the drain, calls off what was under
        // way, and asks for it again.
        for _ in 0..4 {
            if reports.recv().await.is_none_or(|report| matches!(report, Report::Ended { .. })) {
                break;
            }
        }
    }
    world.check().unwrap_or_else(|broken| panic!("{broken}\n{:#?}", world.ledger()));
    assert_eq!(world.machines(), ["n1", "n2", "n4"]);
    let journal = SqliteJournal::open_read_only(dir.path()).expect("a journal");
    let query = HistoryQuery { kind: Some(HistoryKind::Step), limit: 100, ..HistoryQuery::default() };
    assert_eq!(journal.history(&query).await.expect("readable").len(), 7, "cordon, 3 moves, proof, leave, destroy");
}

#[tokio::test(start_paused = true)]
async fn a_scale_up_survives_death_at_any_instant() {
    dies_everywhere("up", Story::new, up(), true).await;
}

#[tokio::test(start_paused = true)]
async fn a_scale_down_survives_death_at_any_instant() {
    dies_everywhere("down", four, down(), true).await;
}

#[tokio::test(start_paused = true)]
async fn an_undo_survives_death_at_any_instant() {
    let unhealthy = || {
        let story = Story::new();
        story.world.set_ready(false);
        story
    };
    dies_everywhere("undone up", unhealthy, up(), false).await;
    let refused = || {
        let story = four();
        story.world.fault("leave", &[Fault::Refuse; 30]);
        story
    };
    dies_everywhere("undone down", refused, down(), false).await;
}

#[tokio::test(start_paused = true)]
async fn while_everything_is_forbidden_nothing_more_is_done_and_afterwards_it_goes_on() {
    let day = Duration::from_secs(24 * 3600);
    for at in 1.. {
        let mut story = Story::of(World::new(4, SHARDS, 2));
        story.begin(Action::ScaleDown { node: node(4), target: 3 }).await;
        // Forbidden once the world has been changed `at` times.
        while story.world.ledger().len() < at && story.journal.open_operation(&"p".into()).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        story.standing.forbids.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await; // what was asked just before is asked
        let (done, over) = (story.world.ledger(), story.journal.open_operation(&"p".into()).await.unwrap().is_none());
        tokio::time::sleep(day).await;
        assert_eq!(story.world.ledger(), done, "went on after {at} effects");
        story.standing.forbids.store(false, Ordering::Relaxed);
        assert_eq!(story.end().await.state, OperationState::Succeeded, "stopped after {at} effects");
        story.world.check().unwrap();
        if over {
            assert!(at > 3, "{done:?}");
            break;
        }
    }
}
