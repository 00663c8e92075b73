//! When a dead node is to be replaced, and when not.

use super::*;

type Change = fn(&mut World);

fn replace(name: &str) -> Action {
    Action::Replace { node: id(name) }
}

#[test]
fn a_node_unhealthy_for_long_enough_is_replaced() {
    let cases: [(&str, Change, Option<&str>); 16] = [
        ("after the grace", |_| {}, Some("n1")),
        ("not before", |w| w.node("n1").unhealthy_since = Some(w.seen.at), None),
        ("switched off", |w| w.policy.replace.enabled = false, None),
        ("in maintenance", |w| w.node("n1").state = NodeState::Maintenance, None),
        ("joining still", |w| w.node("n1").state = NodeState::Joining, None),
        ("lost already", |w| w.node("n1").state = NodeState::Lost, None),
        ("healthy again", |w| w.node("n1").healthy = true, None),
        ("nobody tells how it is now", |w| w.node("n1").health_unknown = true, None),
        (
            "of another nobody tells",
            |w| {
                let since = w.node("n1").unhealthy_since.unwrap().minus(CHECK);
                let node = w.node("n3");
                (node.healthy, node.unhealthy_since, node.health_unknown) = (false, Some(since), true);
            },
            Some("n1"),
        ),
        (
            "the one that is ill longest",
            |w| {
                // Ill, but answering: one more node out of reach would be a suspected partition.
                let since = w.node("n1").unhealthy_since.unwrap().minus(CHECK);
                let node = w.node("n3");
                (node.healthy, node.unhealthy_since) = (false, Some(since));
            },
            Some("n3"),
        ),
        (
            "the one after that, where it has the only copy of a shard",
            |w| {
                let since = w.node("n1").unhealthy_since.unwrap().minus(CHECK);
                let node = w.node("n3");
                (node.healthy, node.unhealthy_since) = (false, Some(since));
                w.only_copy_on("n3");
            },
            Some("n1"),
        ),
        ("at the maximum", |w| w.policy.thresholds.max_nodes = 6, Some("n1")),
        ("above the maximum", |w| w.policy.thresholds.max_nodes = 5, None),
        (
            "a shard of which it has the only copy",
            |w| {
                w.shard(0, &["n1", "n2"]);
                w.shard(1, &["n1"]);
            },
            None,
        ),
        ("all shards have another copy", |w| w.shard(0, &["n1", "n2"]), Some("n1")),
        (
            "cooldown, settling, lost traffic and missing data pass",
            |w| {
                w.memory.ends.any = Some(w.seen.at);
                w.memory.recent.checks = 0;
                w.missing(Signal::Cpu);
                w.read(Signal::Latency, Reading::Idle);
            },
            Some("n1"),
        ),
    ];
    for (name, change, expected) in cases {
        let mut world = World::with_dead_node(6);
        change(&mut world);
        let decision = world.check();
        assert_eq!(decision.action, expected.map_or(Action::Hold, replace), "{name}: {}", explain(&decision));
    }
}

#[test]
fn silence_about_a_node_that_was_ill_is_told_and_replaces_nothing() {
    let mut world = World::with_dead_node(6);
    world.node("n1").health_unknown = true;
    let decision = world.checks(100);
    assert_eq!(decision.wanted, None, "{}", explain(&decision));
    assert!(decision.because.contains(&"health of n1 is not known".to_string()), "{:?}", decision.because);
    world.node("n1").health_unknown = false;
    assert_eq!(world.check().action, replace("n1"), "it is known again, and ill");
}

#[test]
fn the_grace_is_shorter_once_too_few_are_healthy() {
    // 3 of 4 healthy are 0.75, 4 of 5 are 0.80.
    for (nodes, minutes) in [(4, 5), (5, 15)] {
        let mut world = World::nodes(nodes);
        world.kill("n1");
        let first = (1..=40).find(|_| world.check().action == replace("n1"));
        assert_eq!(first, Some(minutes * 2), "{nodes} nodes");
    }
}

#[test]
fn one_an_hour_and_each_node_once() {
    let mut world = World::with_dead_node(6);
    assert_eq!(world.check().action, replace("n1"));
    let mut done = operation(Kind::Replace, OperationState::Succeeded, Trigger::Availability);
    done.ended_at = Some(world.seen.at);
    world.memory.operation_ended(&done, world.seen.at);
    assert_eq!(world.memory.replaced().iter().collect::<Vec<_>>(), [&id("n1")]);

    let node = world.node("n4");
    (node.healthy, node.unhealthy_since) = (false, Some(START));
    let decision = world.checks(119);
    assert_eq!(decision.action, Action::Hold);
    assert!(decision.because[0].contains("one automatic replacement an hour, the next in 30 s"), "{decision:?}");
    assert_eq!(world.check().action, replace("n4"), "n1 is still dead, and was replaced");
}

#[test]
fn a_replacement_that_failed_may_be_tried_again() {
    let mut world = World::with_dead_node(6);
    assert_eq!(world.check().action, replace("n1"));
    let failed = operation(Kind::Replace, OperationState::Failed, Trigger::Availability);
    world.memory.operation_ended(&failed, world.seen.at);
    assert_eq!(world.checks(120).action, replace("n1"));
}

#[test]
fn a_replaced_node_counts_nowhere() {
    let mut world = World::with_dead_node(6);
    world.check();
    let done = operation(Kind::Replace, OperationState::Succeeded, Trigger::Availability);
    world.memory.operation_ended(&done, world.seen.at);
    world.policy.thresholds.min_nodes = 6;
    assert_eq!(world.check().action, up(1, 6), "five are left; the store or the scrape may still call n1 a node");
    let reaped =
        Operation { nodes: vec![id("n1")], ..operation(Kind::Reap, OperationState::Succeeded, Trigger::Manual) };
    world.memory.operation_ended(&reaped, world.seen.at);
    assert_eq!(world.check().wanted, None, "a node of that name counts again");
}

#[test]
fn replace_goes_before_up_and_does_not_stand_in_its_way() {
    let mut world = World::with_dead_node(6);
    world.fresh(Signal::Cpu, 0.9);
    world.memory.recent.streaks.clear();
    world.wait(CHECK);
    world.check();
    let mut later = world.clone();
    later.only_copy_on("n1");
    later.memory.last_replacement = None;
    assert_eq!(later.check().action, up(1, 7), "replacing is blocked, growing is not");

    world.memory.last_replacement = None;
    assert_eq!(world.check().action, replace("n1"));
}

#[test]
fn two_of_three_nodes_gone_changes_nothing() {
    for gone in [&["n1", "n2"][..], &["n1", "n2", "n3"]] {
        let mut world = World::nodes(3);
        gone.iter().for_each(|name| world.kill(name));
        for _ in 0..200 {
            let decision = world.check();
            assert_eq!(decision.action, Action::Hold);
            if decision.wanted == Some(Kind::Replace) {
                assert!(names(&decision.guards).contains(&"partition_suspected"), "{decision:?}");
            }
        }
        assert_eq!(world.check().wanted, Some(Kind::Replace));
    }
}

#[test]
fn one_that_ended_in_part_has_replaced_the_node_if_it_came_to_its_end() {
    for (settled, expected) in [(StepState::Done, true), (StepState::Skipped, false)] {
        let mut world = World::with_dead_node(6);
        world.check();
        let mut ended = operation(Kind::Replace, OperationState::Partial, Trigger::Availability);
        ended.steps = vec![step(StepAction::Settle, settled)];
        world.memory.operation_ended(&ended, world.seen.at);
        assert_eq!(world.memory.replaced().contains(&id("n1")), expected, "{settled:?}");
    }
}
