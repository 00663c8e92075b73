//! What a person asks for: decided alone, past the triggers; and what it leaves behind.

use super::*;

#[test]
fn a_request_is_decided_alone() {
    let mut world = World::nodes(6);
    let decision = world.ask(&request(Kind::ScaleUp));
    assert_eq!((decision.action.clone(), decision.trigger), (up(1, 7), Some(Trigger::Manual)));
    assert_eq!(decision.because, ["api 127.0.0.1 asked for scale_up by 1"]);

    assert_eq!(world.ask(&Request { nodes: 3, ..request(Kind::ScaleUp) }).action, up(3, 9));
    assert_eq!(world.ask(&request(Kind::ScaleDown)).action, down("n1", 5), "without any low");
    assert_eq!(world.ask(&Request { node: Some(id("n4")), ..request(Kind::ScaleDown) }).action, down("n4", 5));
    assert_eq!(world.ask(&request(Kind::Rebalance)).action, Action::Rebalance {});
    world.node("n4").healthy = false;
    let replace = Request { node: Some(id("n4")), ..request(Kind::Replace) };
    assert_eq!(world.ask(&replace).action, Action::Replace { node: id("n4") }, "without any grace");
}

#[test]
fn a_request_is_no_check() {
    let mut world = World::growing(6);
    world.ask(&request(Kind::Rebalance));
    let streaks = world.memory.recent.streaks.clone();
    world.ask(&request(Kind::Rebalance));
    assert_eq!(world.memory.recent.streaks, streaks);
    let same_observation = decide(&world.policy, &world.memory, &world.situation(None));
    assert_eq!(same_observation.decision.wanted, None, "one observation counts once");
    assert_eq!(world.check().action, up(1, 7), "the second check does");
}

#[test]
fn what_a_person_may_not_do() {
    type Change = fn(&mut World, &mut Request);
    let cases: [(&str, Kind, Change, &[&str]); 14] = [
        ("more than the maximum", Kind::ScaleUp, |_, r| r.nodes = 5, &["max_nodes"]),
        ("fewer than the minimum", Kind::ScaleDown, |w, _| w.policy.thresholds.min_nodes = 6, &["min_nodes"]),
        ("a node that is none", Kind::ScaleDown, |_, r| r.node = Some(id("n99")), &["placement"]),
        (
            "a node in maintenance",
            Kind::ScaleDown,
            |w, r| {
                w.low();
                w.memory.recent.totals.clear();
                w.node("n2").state = NodeState::Maintenance;
                r.node = Some(id("n2"));
            },
            &["placement"],
        ),
        (
            "another node than the provider takes",
            Kind::ScaleDown,
            |w, r| {
                w.only_victim = Some(id("n6"));
                r.node = Some(id("n2"));
            },
            &["victim_fixed"],
        ),
        ("a load that would be too high", Kind::ScaleDown, |w, _| w.fresh(Signal::Cpu, 0.7), &["projection"]),
        ("nothing to move", Kind::Rebalance, |w, _| w.outlook.rebalance.shards = 0, &["projection"]),
        ("no provider", Kind::ScaleUp, |w, _| w.can_change = false, &["no_provider"]),
        ("a provider that is silent", Kind::ScaleUp, |w, _| w.machines = None, &["no_provider"]),
        ("shards move without a provider", Kind::Rebalance, |w, _| w.can_change = false, &[]),
        ("replace without a name", Kind::Replace, |_, _| {}, &["placement"]),
        ("replace a healthy node", Kind::Replace, |_, r| r.node = Some(id("n1")), &["placement"]),
        ("replace a node that is none", Kind::Replace, |_, r| r.node = Some(id("n99")), &["placement"]),
        (
            "a second operation",
            Kind::ScaleUp,
            |w, _| w.operation = Some(operation(Kind::ScaleDown, OperationState::Running, Trigger::Threshold)),
            &["operation_running"],
        ),
    ];
    for (name, kind, change, guards) in cases {
        let mut world = World::nodes(6);
        let mut asked = request(kind);
        change(&mut world, &mut asked);
        let outcome = decide(&world.policy, &world.memory, &world.situation(Some(&asked))).decision;
        assert_eq!(names(&outcome.guards), guards, "{name}: {}", explain(&outcome));
        assert_eq!(outcome.action != Action::Hold, guards.is_empty(), "{name}: {}", explain(&outcome));
        assert!(!outcome.would_change.is_empty(), "{name}");
    }
}

#[test]
fn a_reason_overrides_and_is_recorded() {
    let mut world = World::nodes(6);
    world.memory.operation_blocked(world.seen.at);
    let held = world.ask(&request(Kind::ScaleUp));
    assert_eq!(names(&held.guards), ["breaker_open"]);
    assert!(held.guards[0].detail.contains("a scale-up passes when the request gives a reason"), "{held:?}");
    assert_eq!(world.ask(&Request { reason: Some("  ".into()), ..request(Kind::ScaleUp) }).action, Action::Hold);

    let given = world.ask(&Request { reason: Some("launch at noon".into()), ..request(Kind::ScaleUp) });
    assert_eq!(given.action, up(1, 7));
    assert_eq!(given.because[0], "api 127.0.0.1 asked for scale_up by 1: launch at noon");
    assert!(given.because[1].starts_with("breaker_open was overridden with a reason: an operation is blocked"));
}

#[test]
fn the_stop_file_forbids_a_person_too() {
    let mut world = World::nodes(6);
    world.mode = Mode::Stopped;
    assert_eq!(world.ask(&request(Kind::ScaleUp)).action, up(1, 7), "the mode does not bind a person");
    world.stop_file = true;
    for kind in Kind::ALL {
        let asked = Request { node: Some(id("n1")), reason: Some("now".into()), ..request(kind) };
        assert_eq!(names(&world.ask(&asked).guards)[0], "stopped", "{kind:?}");
    }
}

#[test]
fn a_manual_operation_holds_the_opposite_direction_for_an_hour() {
    let mut world = World::nodes(6);
    world.fresh(Signal::Cpu, 0.9);
    world
        .memory
        .operation_ended(&operation(Kind::ScaleDown, OperationState::Succeeded, Trigger::Manual), world.seen.at);
    let held = world.checks(2);
    assert_eq!(names(&held.guards), ["manual_hold"]);
    assert_eq!(held.guards[0].detail, "59 min left after a manual scale_down");
    world.wait(Duration::from_secs(3600));
    assert_eq!(world.check().action, up(1, 7));

    for (kind, state) in [(Kind::ScaleUp, OperationState::Succeeded), (Kind::ScaleDown, OperationState::Cancelled)] {
        let mut world = World::nodes(6);
        world.policy.thresholds.scale_up_cooldown = 0.0;
        world.fresh(Signal::Cpu, 0.9);
        world.memory.operation_ended(&operation(kind, state, Trigger::Manual), world.seen.at);
        assert_eq!(world.checks(2).action, up(1, 7), "{kind:?} {state:?} holds nothing back");
    }
}
