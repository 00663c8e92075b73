//! Cooldowns, streaks over operations and restarts, pre-emption, ids.

use super::*;
use OperationState::{Cancelled, Failed, Partial, Succeeded};

fn left(world: &World) -> (u64, u64) {
    let Cooldowns { scale_up, scale_down } = cooldowns(&world.policy, &world.memory, world.seen.at);
    (scale_up.as_secs(), scale_down.as_secs())
}

#[test]
fn what_each_end_of_an_operation_starts() {
    let cases: [(&str, Kind, OperationState, (u64, u64)); 8] = [
        ("a scale-up holds both", Kind::ScaleUp, Succeeded, (300, 600)),
        ("a partial one too", Kind::ScaleUp, Partial, (300, 600)),
        ("one that failed added nothing", Kind::ScaleUp, Failed, (0, 600)),
        ("nor did a cancelled one", Kind::ScaleUp, Cancelled, (0, 600)),
        ("a scale-down holds scale-downs", Kind::ScaleDown, Succeeded, (0, 600)),
        ("any operation holds them", Kind::Rebalance, Succeeded, (0, 600)),
        ("a replacement too", Kind::Replace, Succeeded, (0, 600)),
        ("however it ended", Kind::ScaleDown, Cancelled, (0, 600)),
    ];
    for (name, kind, state, expected) in cases {
        let mut world = World::nodes(4);
        world.memory.operation_ended(&operation(kind, state, Trigger::Threshold), world.seen.at);
        assert_eq!(left(&world), expected, "{name}");
        world.wait(Duration::from_secs(100));
        assert_eq!(left(&world), (u64::saturating_sub(expected.0, 100), 500), "{name}, 100 s later");
    }
}

#[test]
fn a_cooldown_says_how_long_and_then_lets_go() {
    let mut world = World::nodes(4);
    world.fresh(Signal::Cpu, 0.9);
    world.memory.operation_ended(&operation(Kind::ScaleUp, Succeeded, Trigger::Threshold), world.seen.at);
    world.wait(Duration::from_secs(28));
    let held = world.checks(2);
    assert_eq!((held.guards[0].name, held.guards[0].detail.as_str()), (Guard::Cooldown, "212 s left"));
    assert_eq!(held.guards[0].until, Some(world.seen.at.plus(Duration::from_secs(212))));
    assert!(held.would_change.contains("cooldown: the cooldown ends by itself at "), "{}", held.would_change);
    world.wait(Duration::from_secs(181));
    assert_eq!(names(&world.check().guards), ["cooldown"], "one second is left");
    world.wait(Duration::from_secs(1));
    assert_eq!(world.check().action, up(1, 5));
}

#[test]
fn a_clock_set_back_does_not_multiply_a_cooldown() {
    let mut world = World::nodes(4);
    world.memory.operation_ended(&operation(Kind::ScaleUp, Succeeded, Trigger::Threshold), world.seen.at);
    world.seen.at = world.seen.at.minus(Duration::from_secs(86_400));
    assert_eq!(left(&world), (300, 600));
}

#[test]
fn streaks_start_over_when_an_operation_ends() {
    let mut world = World::growing(4);
    world.memory.operation_ended(&operation(Kind::Rebalance, Succeeded, Trigger::Manual), world.seen.at);
    assert_eq!(world.check().wanted, None);
    assert_eq!(world.check().action, up(1, 5));
}

#[test]
fn a_restart_forgets_streaks_and_keeps_the_rest() {
    let mut world = World::with_dead_node(6);
    let replaced = world.check();
    assert_eq!(replaced.action, Action::Replace { node: id("n1") });
    let now = world.seen.at;
    for (kind, state, trigger) in [
        (Kind::Replace, Succeeded, Trigger::Availability),
        (Kind::ScaleUp, Succeeded, Trigger::Manual),
        (Kind::ScaleDown, Failed, Trigger::Threshold),
    ] {
        world.memory.operation_ended(&operation(kind, state, trigger), now);
    }
    world.memory.operation_blocked(now);
    world.mode = Mode::Observe;
    world.fresh(Signal::Cpu, 0.9);
    world.check();

    let written = serde_json::to_string(&world.memory).expect("memory is written as JSON");
    let read: Memory = serde_json::from_str(&written).expect("and read back");
    assert_eq!(read, world.memory.clone().restarted(), "what is written is what survives");
    assert!(!world.memory.recent.streaks.is_empty() && read.recent == Default::default());

    let before = world.memory.clone();
    world.memory = read;
    assert_eq!(left(&world), (270, 570), "cooldowns");
    let (after, was) = (&world.memory, &before);
    assert_eq!(after.replaced(), was.replaced());
    assert_eq!(
        (&after.breaker, after.manual, after.last_replacement),
        (&was.breaker, was.manual, was.last_replacement)
    );
    let next = world.check();
    assert_eq!(next.id, replaced.id + 2, "ids count on");
    assert!(next.conditions.iter().all(|c| c.streak <= 1), "{:?}", next.conditions);

    // After the start: five checks of settling, whatever the streaks say.
    world.memory = world.memory.restarted();
    (world.mode, world.policy.thresholds.max_nodes) = (Mode::Active, 10);
    world.memory.reset_breaker();
    world.wait(Duration::from_secs(7200));
    let story: Vec<bool> = (0..6).map(|_| world.check().action == Action::Hold).collect();
    assert_eq!(story, [true, true, true, true, true, false]);
}

#[test]
fn a_memory_of_an_older_version_is_read() {
    let read: Memory = serde_json::from_str(r#"{"last_decision": 7, "unknown": 1}"#).expect("missing and extra keys");
    assert_eq!(read.last_decision, 7);
}

#[test]
fn failures_in_a_row_open_the_breaker_and_a_person_closes_it() {
    let mut world = World::nodes(4);
    world.fresh(Signal::Cpu, 0.9);
    for _ in 0..3 {
        world.memory.operation_ended(&operation(Kind::ScaleUp, Failed, Trigger::Threshold), world.seen.at);
        world.wait(CHECK);
    }
    let held = world.checks(2);
    assert_eq!(names(&held.guards), ["breaker_open", "backing_off"]);
    assert!(held.guards[0].detail.starts_with("3 operations failed in a row; one attempt is allowed again in"));
    world.memory.reset_breaker();
    assert_eq!(world.check().action, up(1, 5));
}

#[test]
fn up_and_replace_cancel_what_may_be_cancelled() {
    let leave = |state| step(StepAction::Leave { node: id("n2") }, state);
    let running = |kind| operation(kind, OperationState::Running, Trigger::Threshold);
    let with = |kind, steps| Operation { steps, ..running(kind) };
    let cases: [(&str, Operation, bool); 9] = [
        ("a rebalance", running(Kind::Rebalance), true),
        ("a scale-down", running(Kind::ScaleDown), true),
        ("that has yet to leave", with(Kind::ScaleDown, vec![leave(StepState::Waiting)]), true),
        ("that is leaving", with(Kind::ScaleDown, vec![leave(StepState::Intent)]), false),
        ("that has left", with(Kind::ScaleDown, vec![leave(StepState::Done)]), false),
        ("a scale-up", running(Kind::ScaleUp), false),
        ("a replacement", running(Kind::Replace), false),
        ("what is cancelled already", Operation { cancel: Some("a person".into()), ..running(Kind::ScaleDown) }, false),
        ("what is blocked", Operation { state: OperationState::Blocked, ..running(Kind::ScaleDown) }, false),
    ];
    for (name, operation, expected) in cases {
        let mut world = World::growing(4);
        world.operation = Some(operation.clone());
        // Its own moves are under way.
        world.transfer("n2", "n3");
        world.node("n3").busy_with_data = true;
        world.seen.nodes.iter_mut().for_each(|n| _ = n.values.insert(Signal::Cpu, 0.9));
        let decision = world.check();
        assert_eq!(decision.action, Action::Hold, "{name}: at most one operation");
        assert_eq!(decision.wanted, Some(Kind::ScaleUp), "{name}");
        assert_eq!(preempts(&decision, &operation), expected, "{name}: {}", explain(&decision));
    }
}

#[test]
fn what_else_holds_an_up_holds_its_cancelling_too() {
    type Change = fn(&mut World);
    let cases: [(&str, Change, bool); 4] = [
        ("observing", |w| w.mode = Mode::Observe, false),
        ("a person drains", |w| w.operation.as_mut().unwrap().trigger = Trigger::Manual, false),
        ("in the cooldown", |w| w.memory.ends.scale_up = Some(w.seen.at), false),
        ("at the maximum the node comes back", |w| w.policy.thresholds.max_nodes = 4, true),
    ];
    for (name, change, expected) in cases {
        let mut world = World::growing(4);
        let drain = operation(Kind::ScaleDown, OperationState::Running, Trigger::Threshold);
        world.operation = Some(drain.clone());
        world.node("n2").state = NodeState::Draining;
        change(&mut world);
        let decision = world.check();
        assert_eq!(decision.wanted, Some(Kind::ScaleUp), "{name}");
        assert_eq!(preempts(&decision, &drain), expected, "{name}: {}", explain(&decision));
    }
}

#[test]
fn an_ended_operation_is_none() {
    let mut world = World::growing(4);
    world.operation = Some(operation(Kind::ScaleUp, Succeeded, Trigger::Threshold));
    assert_eq!(world.check().action, up(1, 5));
}

#[test]
fn creations_in_flight_and_unexplained_machines_count() {
    let mut world = World::growing(4);
    world.policy.thresholds.max_nodes = 5;
    world.machines.as_mut().unwrap().push(machine(&id("orphan")));
    assert_eq!(names(&world.check().guards), ["max_nodes"]);

    let mut world = World::nodes(4);
    world.policy.thresholds.min_nodes = 5;
    let creating = operation(Kind::ScaleUp, OperationState::Running, Trigger::Bounds);
    world.operation = Some(Operation { nodes: vec![id("n5")], ..creating });
    assert_eq!(world.check().wanted, None, "the fifth is on its way");
    world.machines.as_mut().unwrap().push(machine(&id("n5")));
    assert_eq!(world.check().wanted, None, "and counts once when the provider lists it");
}
