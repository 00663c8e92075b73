//! Where people do what vecscale does not: it asks for nodes, adopts those that come, and empties what a person names.

use super::guards::lines;
use super::*;
use crate::decide::policy::StepSize;

fn drain_of(node: &str) -> Request {
    Request { node: Some(id(node)), ..request(Kind::Drain) }
}

/// Without a provider; n6 has come as a member.
fn with_newcomer() -> World {
    World { can_change: false, arrivals: vec![id("n6")], ..World::nodes(6) }
}

#[test]
fn a_drain_by_hand_is_bound_as_any_shrinking_is_but_needs_no_provider() {
    use Guard::*;
    let blocking = [
        BreakerOpen,
        BackingOff,
        PartitionSuspected,
        MissingData,
        UnhealthyNodes,
        MinNodes,
        OperationRunning,
        Quorum,
        Placement,
        Projection,
        DataMoving,
        ForeignOperation,
        MixedVersions,
    ];
    let asked = |world: &mut World| world.ask(&Request { reason: Some("I know".into()), ..drain_of("n1") });
    assert_eq!(asked(&mut World::nodes(6)).action, Action::Drain { node: id("n1") });
    for line in lines() {
        let mut world = World::nodes(6);
        (line.holds)(&mut world);
        let decision = asked(&mut world);
        let held = names(&decision.guards).contains(&line.guard.as_str());
        assert_eq!(held, blocking.contains(&line.guard), "{}: {}", line.guard.as_str(), explain(&decision));
        assert_eq!(held, decision.action == Action::Hold, "{}: {}", line.guard.as_str(), explain(&decision));
    }
}

#[test]
fn what_is_adopted_by_itself_is_bound_as_all_that_is_begun_by_itself() {
    use Guard::*;
    let blocking = [
        Stopped,
        AlertHold,
        Budget,
        WindowFreeze,
        Settling,
        BreakerOpen,
        BackingOff,
        PartitionSuspected,
        OperationRunning,
        Quorum,
        Placement,
        ForeignOperation,
        MixedVersions,
    ];
    for line in lines() {
        let mut world = with_newcomer();
        (line.holds)(&mut world);
        let decision = world.check();
        let held = names(&decision.guards).contains(&line.guard.as_str());
        let told = decision.wanted == Some(Kind::Adopt) || decision.because.join("; ").contains("n6 has come");
        assert!(told || decision.action == Action::Hold, "{}: {}", line.guard.as_str(), explain(&decision));
        assert_eq!(held, blocking.contains(&line.guard), "{}: {}", line.guard.as_str(), explain(&decision));
    }
}

#[test]
fn who_has_come_is_adopted_once_it_is_well() {
    type Case = (&'static str, fn(&mut World), Option<Action>, &'static str);
    let adopted = |joined| Some(Action::Adopt { node: id("n6"), joined });
    let cases: [Case; 7] = [
        ("a member", |_| {}, adopted(true), "n6 has come by other hands"),
        (
            "a machine that answers",
            |w| {
                w.seen.nodes.pop();
                w.inventory().members.pop();
            },
            adopted(false),
            "n6 has come by other hands",
        ),
        ("a silent one", |w| w.node("n6").up = false, None, "it is filled once it is healthy"),
        ("an ill one", |w| w.node("n6").healthy = false, None, "it is filled once it is healthy"),
        ("a cordoned one", |w| w.node("n6").state = NodeState::Draining, None, "once it is open for shards"),
        ("while observing", |w| w.mode = Mode::Observe, None, "would be adopted and filled in mode active"),
        ("nobody", |w| w.arrivals.clear(), None, "every signal lies between its lines"),
    ];
    for (name, change, action, says) in cases {
        let mut world = with_newcomer();
        change(&mut world);
        let decision = world.check();
        assert_eq!(decision.action, action.unwrap_or(Action::Hold), "{name}: {}", explain(&decision));
        assert!(decision.because.join("; ").contains(says), "{name}: {}", explain(&decision));
        assert!(decision.action == Action::Hold || decision.trigger == Some(Trigger::Arrival), "{name}");
    }
    let two = World { arrivals: vec![id("n5"), id("n6")], ..with_newcomer() }.check();
    assert_eq!(two.action, Action::Adopt { node: id("n5"), joined: true });
}

#[test]
fn a_member_that_has_come_may_be_adopted_by_hand_and_no_other() {
    let adopt = |node: &str| Request { node: Some(id(node)), ..request(Kind::Adopt) };
    let mut world = World { mode: Mode::Observe, ..with_newcomer() };
    assert_eq!(world.ask(&adopt("n6")).action, Action::Adopt { node: id("n6"), joined: true });
    let decision = world.ask(&adopt("n1"));
    assert!(decision.guards[0].detail.contains("n1 is a member already"), "{}", explain(&decision));
    // Cleaning up after a fault is not held back by that fault.
    world.memory.operation_blocked(world.seen.at);
    assert_eq!(names(&world.ask(&adopt("n6")).guards), [] as [&str; 0]);
}

#[test]
fn nodes_are_asked_for_where_only_the_provider_is_missing() {
    type Case = (&'static str, fn(&mut World), u32);
    let cases: [Case; 8] = [
        ("one", |_| {}, 1),
        ("with a provider", |w| w.can_change = true, 0),
        ("while observing", |w| w.mode = Mode::Observe, 1),
        ("stopped", |w| w.mode = Mode::Stopped, 0),
        ("at the maximum", |w| w.policy.thresholds.max_nodes = 6, 0),
        ("cooling down", |w| w.memory.ends.scale_up = Some(w.seen.at), 0),
        ("calm", |w| w.fresh(Signal::Cpu, 0.5), 0),
        (
            "below the minimum by two",
            |w| {
                w.fresh(Signal::Cpu, 0.5);
                (w.policy.thresholds.min_nodes, w.policy.scale_up.step) = (8, StepSize::Proportional);
            },
            2,
        ),
    ];
    for (name, change, expected) in cases {
        let mut world = World::growing(6);
        world.can_change = false;
        change(&mut world);
        let decision = world.check();
        assert_eq!(world.memory.asked().nodes, expected, "{name}: {}", explain(&decision));
        world.ask(&Request { nodes: 3, ..request(Kind::ScaleUp) });
        assert_eq!(
            world.memory.asked().nodes,
            expected,
            "{name}: what a person asks for is not what vecscale asks for"
        );
    }
    let mut world = World::shrinking(6);
    world.can_change = false;
    let decision = world.check();
    assert_eq!((decision.wanted, world.memory.asked().nodes), (Some(Kind::ScaleDown), 0));
    assert_eq!(names(&decision.guards), ["no_provider"], "{}", explain(&decision));
    assert!(decision.would_change.contains("vecscale drain NODE"), "{}", decision.would_change);
}

#[test]
fn nodes_are_asked_for_whichever_wish_is_told_and_whatever_runs() {
    let running = |kind| Some(operation(kind, OperationState::Running, Trigger::Manual));
    let one_is_hot = |mode| {
        let mut world = World { mode, ..World::hot(0.9) };
        world.fresh(Signal::Cpu, 0.9);
        world.check();
        world
    };
    let dead = || {
        let mut world = World { can_change: false, ..World::with_dead_node(6) };
        world.fresh(Signal::Cpu, 0.81);
        world.check();
        world
    };
    let moving = |kind| {
        let mut world = World { operation: running(kind), ..World::growing(6) };
        world.transfer("n1", "n2");
        world
    };
    let new = |world: World| {
        let mut world = World { memory: world.memory.restarted(), ..world };
        world.check();
        world
    };
    let cases: [(&str, World, Option<Kind>, u32); 9] = [
        ("a node is dead", dead(), Some(Kind::Replace), 1),
        ("at the maximum", World { policy: at_most(6), ..dead() }, Some(Kind::Replace), 0),
        ("a rebalance would do, and nobody makes it", one_is_hot(Mode::Observe), Some(Kind::Rebalance), 1),
        ("a rebalance does", one_is_hot(Mode::Active), Some(Kind::Rebalance), 0),
        ("one runs, and it is no help", moving(Kind::Rebalance), Some(Kind::ScaleUp), 1),
        ("one is being filled", moving(Kind::Adopt), Some(Kind::ScaleUp), 1),
        ("shards move by other hands", World { operation: None, ..moving(Kind::Adopt) }, Some(Kind::ScaleUp), 0),
        ("one has come", World { arrivals: vec![id("n6")], ..World::growing(6) }, Some(Kind::Adopt), 1),
        ("just started", new(moving(Kind::Adopt)), Some(Kind::ScaleUp), 0),
    ];
    for (name, mut world, wanted, expected) in cases {
        world.can_change = false;
        let decision = world.check();
        assert_eq!(decision.wanted, wanted, "{name}: {}", explain(&decision));
        let asked = world.memory.asked();
        assert_eq!(asked.nodes, expected, "{name}: {}", explain(&decision));
        let because = asked.because.join("; ");
        assert_eq!(expected > 0, because.starts_with("cpu_high 0."), "{name}: {because}");
    }
}

fn at_most(nodes: u32) -> Policy {
    let mut policy = Policy::of(Profile::Default);
    (policy.thresholds.min_nodes, policy.thresholds.max_nodes) = (3, nodes);
    policy
}

#[test]
fn the_next_victim_is_the_one_that_a_scale_down_would_take() {
    type Case = (&'static str, fn(&mut World), Option<&'static str>);
    let cases: [Case; 7] = [
        ("the planner's first", |_| {}, Some("n1")),
        ("cordoned", |w| w.node("n1").state = NodeState::Draining, Some("n2")),
        ("ill", |w| w.node("n1").healthy = false, Some("n2")),
        ("in maintenance", |w| w.node("n1").state = NodeState::Maintenance, Some("n2")),
        ("unlisted", |w| w.machines.as_mut().expect("a list").retain(|m| m.id != id("n1")), Some("n2")),
        ("the last", |w| w.only_victim = Some(id("n6")), Some("n6")),
        ("no plan", |w| w.outlook.scale_down.clear(), None),
    ];
    for (name, change, expected) in cases {
        let mut world = World::nodes(6);
        change(&mut world);
        let victim = prospect(&world.policy, &world.memory, &world.situation(None)).victim;
        assert_eq!(victim, expected.map(id), "{name}");
        let decision = world.ask(&Request { reason: Some("I know".into()), ..request(Kind::ScaleDown) });
        if let Action::ScaleDown { node, .. } = &decision.action {
            assert_eq!(Some(node), victim.as_ref(), "{name}");
        }
    }
}

#[test]
fn only_a_well_node_of_the_pool_whose_shards_have_a_place_is_drained() {
    type Case = (&'static str, fn(&mut World), &'static str, &'static str);
    let cases: [Case; 7] = [
        ("no such node", |_| {}, "n9", "n9 cannot be emptied: no node of this pool has this name"),
        ("an ill one", |w| w.node("n2").healthy = false, "n2", "n2 cannot be emptied: it is unhealthy"),
        ("in maintenance", |w| w.node("n2").state = NodeState::Maintenance, "n2", "its state is maintenance"),
        ("without data", |w| w.store = None, "n2", "the nodes hold no data: there is nothing to drain"),
        ("a silent store", |w| w.store = Some(Err("refused".into())), "n2", "the datastore did not answer"),
        ("no plan", |w| w.outlook.scale_down.clear(), "n2", "there is no plan yet"),
        (
            "no place",
            |w| w.outlook.scale_down[1].impossible = Some("no room".into()),
            "n2",
            "n2 cannot be emptied: no room",
        ),
    ];
    for (name, change, node, says) in cases {
        let mut world = World::nodes(6);
        change(&mut world);
        let decision = world.ask(&drain_of(node));
        let told = decision.guards.iter().find(|g| g.name == Guard::Placement).map(|g| g.detail.clone());
        assert!(told.as_ref().is_some_and(|told| told.contains(says)), "{name}: {}", explain(&decision));
    }
    let unnamed = World::nodes(6).ask(&request(Kind::Drain));
    assert!(unnamed.guards[0].detail.contains("was not said"), "{}", explain(&unnamed));
}

/// A person has had these emptied, and they stay where they are.
fn drained(mut world: World, names: &[&str]) -> World {
    for name in names {
        let done = operation(Kind::Drain, OperationState::Succeeded, Trigger::Manual);
        world.memory.operation_ended(&Operation { nodes: vec![id(name)], ..done }, world.seen.at);
        world.node(name).state = NodeState::Draining;
        world.inventory().members.iter_mut().filter(|m| m.id.as_str() == *name).for_each(|m| m.cordoned = true);
    }
    world.memory.ends = Default::default();
    world.memory.recent.totals.clear(); // its readings are told as if there had always been so many nodes
    world
}

#[test]
fn what_a_person_has_drained_bears_nothing_when_one_more_is_to_go() {
    // Disk of each node that is in the mean, those drained before, what is asked for, and the guards: with n nodes in
    // service and one fewer, n / (n - 1) of the disk has to stay below 9/10 of 0.85.
    let (drain, down) = (drain_of("n3"), Request { node: Some(id("n3")), ..request(Kind::ScaleDown) });
    let cases: [(f64, &[&str], &Request, &[&str]); 6] = [
        (0.60, &[], &drain, &[]),
        (0.60, &["n1", "n2"], &drain, &["projection"]),
        (0.60, &["n1", "n2"], &down, &["projection"]),
        (0.57, &["n1", "n2"], &drain, &[]),
        (0.57, &["n1", "n2"], &down, &[]),
        (0.57, &["n1", "n2", "n4"], &drain, &["min_nodes", "projection"]),
    ];
    for (disk, names_of_drained, asked, guards) in cases {
        let mut world = drained(World::nodes(6), names_of_drained);
        world.policy.signals = [Signal::Storage].into();
        world.fresh(Signal::Storage, disk);
        let decision = world.ask(asked);
        assert_eq!(names(&decision.guards), guards, "{disk} {names_of_drained:?}: {}", explain(&decision));
    }
}

#[test]
fn what_a_person_has_drained_may_be_switched_off_and_is_reaped() {
    let mut world = drained(World::nodes(6), &["n1", "n2"]);
    for name in ["n1", "n2"] {
        world.kill(name);
        world.inventory().members.iter_mut().filter(|m| m.id.as_str() == name).for_each(|m| m.healthy = false);
    }
    world.machines.as_mut().expect("a list").retain(|machine| !["n1", "n2"].contains(&machine.id.as_str()));
    let reap = Request { node: Some(id("n1")), ..request(Kind::Reap) };
    assert_eq!(world.ask(&reap).action, Action::Reap { node: id("n1") });
    assert_eq!(world.ask(&drain_of("n3")).action, Action::Drain { node: id("n3") }, "nor is it an ill pool");
    let guards = names(&prospect(&world.policy, &world.memory, &world.situation(None)).guards);
    let ours = ["partition_suspected", "unhealthy_nodes"];
    assert!(guards.iter().all(|guard| !ours.contains(guard)), "{guards:?}");

    assert!(world.memory.opened(&id("n1")).is_some() && world.memory.opened(&id("n2")).is_some());
    let guards = names(&prospect(&world.policy, &world.memory, &world.situation(None)).guards);
    assert!(ours.iter().all(|guard| guards.contains(guard)), "they are missed once they are to be back: {guards:?}");
}

#[test]
fn to_take_a_drained_node_away_makes_the_pool_no_smaller() {
    let asked = |node: &str| Request { node: Some(id(node)), ..request(Kind::ScaleDown) };
    let mut world = drained(World::nodes(4), &["n4"]);
    world.fresh(Signal::Storage, 0.8);
    assert_eq!(world.policy.thresholds.min_nodes, 3);
    assert_eq!(world.ask(&asked("n4")).action, down("n4", 3));
    assert_eq!(names(&world.ask(&asked("n3")).guards), ["min_nodes", "projection"]);
    // Cordoned by somebody else, it may still hold and serve: it is on no drain's word that it can go.
    assert!(world.memory.opened(&id("n4")).is_some());
    assert_eq!(names(&world.ask(&asked("n4")).guards), ["min_nodes", "projection"]);
}

#[test]
fn what_a_person_has_drained_is_neither_chosen_nor_replaced_and_may_be_drained_again() {
    let drained = |world| drained(world, &["n1"]);
    let mut world = drained(World::nodes(6));
    world.low();
    assert_eq!(world.checks(5).action, down("n2", 4), "the next in the planner's order");
    let mut world = drained(World::nodes(6));
    let named = Request { node: Some(id("n1")), ..request(Kind::ScaleDown) };
    assert_eq!(world.ask(&named).action, down("n1", 5), "a person may name it, and it counts no more");
    world.policy.thresholds.min_nodes = 5;
    assert_eq!(world.ask(&drain_of("n1")).action, Action::Drain { node: id("n1") }, "it counts no more");
    assert_eq!(names(&world.ask(&drain_of("n2")).guards), ["min_nodes"]);
    let mut world = World { only_victim: Some(id("n1")), ..drained(World::nodes(6)) };
    world.low();
    let held = world.checks(5);
    assert!(held.guards[0].detail.contains("n1: it is cordoned already"), "{}", explain(&held));

    let mut world = drained(World::nodes(6));
    world.kill("n1");
    world.wait(world.policy.replace.after);
    assert_eq!(world.checks(3).wanted, None, "it is the person's to take away");
    assert!(world.memory.opened(&id("n1")).is_some());
    assert_eq!(world.check().wanted, Some(Kind::Replace), "and ours again when the drain is taken back");
}

#[test]
fn how_a_drain_ends_is_remembered() {
    use OperationState::{Cancelled, Failed, Succeeded};
    let mut memory = Memory::default();
    let mut ends = |state| {
        let done = operation(Kind::Drain, state, Trigger::Manual);
        memory.operation_ended(&Operation { nodes: vec![id("n1")], ..done }, START);
        memory.drained().keys().map(|node| node.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ends(Cancelled), [] as [&str; 0]);
    assert_eq!(ends(Succeeded), ["n1"]);
    assert_eq!(ends(Failed), [] as [&str; 0], "its cordon was lifted");
    assert_eq!(ends(Succeeded), ["n1"]);
    memory.forget_gone(&[id("n1")].into());
    let kept = serde_json::from_value::<Memory>(serde_json::json!(memory)).expect("it is read back").restarted();
    assert_eq!(kept.drained().len(), 1, "over a restart");
    memory.forget_gone(&[id("n2")].into());
    assert!(memory.drained().is_empty());
}
