//! What may be adopted and what may be reaped; and the budget of automatic changes.

use super::*;
use crate::decide::memory::Spent;

type Change = fn(&mut World);

fn asked(world: &mut World, kind: Kind, name: &str) -> Decision {
    world.ask(&Request { node: Some(id(name)), ..request(kind) })
}

/// `n9` runs, and the cluster does not have it.
fn with_orphan() -> World {
    let mut world = World::nodes(6);
    world.machines.as_mut().expect("a list").push(machine(&id("n9")));
    world
}

/// `n1` is a dead member, and the provider does not run it.
fn with_ghost() -> World {
    let mut world = World::nodes(6);
    world.kill("n1");
    world.inventory().members[0].healthy = false;
    world.machines.as_mut().expect("a list").retain(|machine| machine.id != id("n1"));
    world
}

fn replaced(world: &mut World, name: &str) {
    let done = operation(Kind::Replace, OperationState::Succeeded, Trigger::Availability);
    let done = Operation { replaces: Some(id(name)), ..done };
    world.memory.operation_ended(&done, world.seen.at);
}

fn told(world: &mut World, kind: Kind, node: &str, guards: &[&str], says: &str, name: &str) {
    let decision = asked(world, kind, node);
    assert_eq!(names(&decision.guards), guards, "{name}: {}", explain(&decision));
    let details: Vec<&str> = decision.guards.iter().map(|g| g.detail.as_str()).collect();
    assert!(details.join("; ").contains(says), "{name}: {details:?}");
    assert_eq!(decision.action != Action::Hold, guards.is_empty(), "{name}: {}", explain(&decision));
}

#[test]
fn only_a_machine_without_a_member_is_adopted() {
    let cases: [(&str, Change, &str, &[&str], &str); 9] = [
        ("an orphan", |_| {}, "n9", &[], ""),
        ("a member", |_| {}, "n2", &["placement"], "n2 is a member already"),
        ("nothing", |_| {}, "n77", &["placement"], "the provider does not list n77"),
        ("what was replaced", |w| replaced(w, "n9"), "n9", &["placement"], "it can only be reaped"),
        ("what was replaced and is a healthy member again", |w| replaced(w, "n2"), "n2", &[], ""),
        ("without data", |w| w.store = None, "n9", &["placement"], "part of the pool already"),
        ("a silent provider", |w| w.machines = None, "n9", &["placement"], "whether it runs the node is unknown"),
        (
            "a silent store",
            |w| w.store = Some(Err("refused".into())),
            "n9",
            &["quorum", "placement"],
            "the datastore did not answer",
        ),
        ("while observing", |w| w.mode = Mode::Observe, "n9", &[], ""),
    ];
    for (name, change, node, guards, says) in cases {
        let mut world = with_orphan();
        change(&mut world);
        told(&mut world, Kind::Adopt, node, guards, says, name);
    }
    let mut world = with_orphan();
    assert_eq!(asked(&mut world, Kind::Adopt, "n9").action, Action::Adopt { node: id("n9"), joined: false });
    let unnamed = world.ask(&request(Kind::Adopt));
    assert!(unnamed.guards[0].detail.contains("was not said"), "{unnamed:?}");
}

#[test]
fn only_what_serves_no_one_is_reaped() {
    // What, the world, its change, the node, the guards, what they say.
    type Case<'a> = (&'a str, fn() -> World, Change, &'a str, &'a [&'a str], &'a str);
    let cases: [Case; 13] = [
        ("an orphan", with_orphan, |_| {}, "n9", &[], ""),
        ("a replaced node's machine", with_orphan, |w| replaced(w, "n9"), "n9", &[], ""),
        ("a healthy member", with_orphan, |_| {}, "n2", &["placement"], "n2 is a healthy member"),
        ("nothing", with_orphan, |_| {}, "n77", &["placement"], "neither a machine nor a member named n77"),
        ("a ghost", with_ghost, |_| {}, "n1", &[], ""),
        ("a ghost whose shards live on", with_ghost, |w| w.shard(0, &["n1", "n2"]), "n1", &[], ""),
        (
            "a ghost with an only copy",
            with_ghost,
            |w| w.only_copy_on("n1"),
            "n1",
            &["placement"],
            "n1 has the only copy of docs/99",
        ),
        (
            "a dead member with a machine",
            with_ghost,
            |w| w.machines.as_mut().expect("a list").push(machine(&id("n1"))),
            "n1",
            &["placement"],
            "bring it back, or let it be replaced",
        ),
        (
            "a silent provider",
            with_orphan,
            |w| w.machines = None,
            "n9",
            &["placement", "no_provider"],
            "whether it runs the node is unknown",
        ),
        (
            "a silent store",
            with_orphan,
            |w| w.store = Some(Err("refused".into())),
            "n9",
            &["quorum", "placement"],
            "the datastore did not answer",
        ),
        ("no provider, a machine", with_orphan, |w| w.can_change = false, "n9", &["no_provider"], "by other hands"),
        ("no provider, a ghost", with_ghost, |w| w.can_change = false, "n1", &[], ""),
        (
            "without data, in the pool",
            with_orphan,
            |w| w.store = None,
            "n2",
            &["placement"],
            "n2 is part of the pool: take it away with a scale-down",
        ),
    ];
    for (name, world, change, node, guards, says) in cases {
        let mut world = world();
        change(&mut world);
        told(&mut world, Kind::Reap, node, guards, says, name);
    }
    // Cleaning up after a fault is not held back by that fault.
    let mut world = with_orphan();
    world.memory.operation_blocked(world.seen.at);
    assert_eq!(asked(&mut world, Kind::Reap, "n9").action, Action::Reap { node: id("n9") });
}

/// An ended operation that made so many nodes and moved so many bytes.
fn spent(world: &mut World, nodes: u32, bytes: u64, ago: Duration) {
    world.memory.spent.push_back(Spent { at: world.seen.at.minus(ago), nodes, bytes });
}

#[test]
fn the_budget_holds_what_is_automatic_and_says_when_it_is_free() {
    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);
    // What is limited, what was spent, and in how long it is free (from the check that decides); `None`: it does not hold.
    let cases: [(&str, Change, Option<Duration>); 9] = [
        ("no limit", |w| spent(w, 50, 0, MINUTE), None),
        (
            "below the limit of an hour",
            |w| {
                w.policy.budget.nodes_per_hour = Some(2);
                spent(w, 1, 0, MINUTE);
            },
            None,
        ),
        (
            "at the limit of an hour",
            |w| {
                w.policy.budget.nodes_per_hour = Some(2);
                spent(w, 1, 0, 40 * MINUTE);
                spent(w, 1, 0, 10 * MINUTE);
            },
            Some(20 * MINUTE),
        ),
        (
            "over an hour ago",
            |w| {
                w.policy.budget.nodes_per_hour = Some(1);
                spent(w, 1, 0, HOUR);
            },
            None,
        ),
        (
            "at the limit of a day",
            |w| {
                w.policy.budget.nodes_per_day = Some(3);
                spent(w, 2, 0, 23 * HOUR);
                spent(w, 1, 0, 2 * HOUR);
            },
            Some(HOUR),
        ),
        (
            "two have to be free again",
            |w| {
                w.policy.budget.nodes_per_day = Some(1);
                spent(w, 1, 0, 23 * HOUR);
                spent(w, 1, 0, 22 * HOUR);
            },
            Some(2 * HOUR),
        ),
        (
            "bytes of a day",
            |w| {
                w.policy.budget.bytes_per_day = Some(100);
                w.outlook.scale_up.bytes = 60;
                spent(w, 0, 50, 20 * HOUR);
            },
            Some(4 * HOUR),
        ),
        (
            "bytes that fit",
            |w| {
                w.policy.budget.bytes_per_day = Some(110);
                w.outlook.scale_up.bytes = 60;
                spent(w, 0, 50, 20 * HOUR);
            },
            None,
        ),
        (
            "nothing to move needs no bytes",
            |w| {
                w.policy.budget.bytes_per_day = Some(10);
                spent(w, 0, 50, 20 * HOUR);
            },
            None,
        ),
    ];
    for (name, change, free_in) in cases {
        let mut world = World::growing(6);
        change(&mut world);
        let now = world.seen.at;
        let decision = world.check();
        match free_in {
            None => assert_eq!(decision.action, up(1, 7), "{name}: {}", explain(&decision)),
            Some(free_in) => {
                assert_eq!(names(&decision.guards), ["budget"], "{name}: {}", explain(&decision));
                assert_eq!(decision.guards[0].until, Some(now.plus(free_in)), "{name}: {}", explain(&decision));
                assert_eq!(world.ask(&request(Kind::ScaleUp)).action, up(1, 7), "{name}: a person passes");
                world.wait(free_in);
                assert_eq!(world.check().action, up(1, 7), "{name}: free again");
            }
        }
    }
    let mut world = World::growing(6);
    world.policy.budget.nodes_per_hour = Some(0);
    let never = world.check();
    assert_eq!(
        (names(&never.guards), never.guards[0].until),
        (vec!["budget"], None),
        "nothing was spent that could free"
    );
}
