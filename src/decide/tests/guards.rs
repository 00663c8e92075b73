//! The table of guards, cell by cell, and the words of each.

use super::*;
use crate::decide::guards::TABLE;

/// A guard, what makes it hold, and what it does to: an automatic up, an automatic down, a replacement, and a person's
/// up without and with a reason, down, and rebalance; last an automatic rebalance. `B` blocks, `-` passes.
pub struct Line {
    pub guard: Guard,
    pub holds: fn(&mut World),
    cells: [&'static str; 8],
}

const COLUMNS: [&str; 8] = [
    "automatic up",
    "automatic down",
    "replace",
    "manual up",
    "manual up, reason",
    "manual down",
    "manual rebalance",
    "automatic rebalance",
];

fn line(guard: Guard, cells: &'static str, holds: fn(&mut World)) -> Line {
    let cells: Vec<&str> = cells.split_whitespace().collect();
    Line { guard, holds, cells: cells.try_into().expect("eight cells") }
}

pub fn lines() -> Vec<Line> {
    use Guard::*;
    vec![
        //                       auto up, down, replace, man. up, +reason, down, rebalance, auto rebalance
        line(Stopped, "            B       B     B        -        -        -     -        B", |w| {
            w.mode = Mode::Stopped
        }),
        line(Observe, "            B       B     B        -        -        -     -        B", |w| {
            w.mode = Mode::Observe
        }),
        line(DirectionDisabled, "  B       B     -        -        -        -     -        B", |w| {
            (w.policy.scale_up.enabled, w.policy.scale_down.enabled) = (false, false);
            w.policy.rebalance.enabled = false;
        }),
        // The hold is on one direction at a time; `manual_hold_up_and_down` looks at the other.
        line(ManualHold, "         B       -     -        -        -        -     -        -", |w| {
            w.memory.manual = Some((Kind::ScaleDown, w.seen.at));
        }),
        line(AlertHold, "          B       B     -        -        -        -     -        B", |w| {
            w.fires("upgrade", AlertAction::Hold);
        }),
        line(Cooldown, "           B       B     -        -        -        -     -        B", |w| {
            w.memory.ends.scale_up = Some(w.seen.at);
            w.memory.ends.any = Some(w.seen.at);
        }),
        line(Budget, "             B       B     -        -        -        -     -        B", |w| {
            (w.policy.budget.nodes_per_hour, w.policy.budget.bytes_per_day) = (Some(0), Some(0));
        }),
        line(TrafficLost, "        -       B     -        -        -        -     -        -", |w| {
            w.fresh(Signal::Throughput, 0.0);
        }),
        line(WindowFreeze, "       B       B     -        -        -        -     -        B", |w| {
            let frozen = Frozen { freeze: Freeze::All, window: "launch".into(), until: None };
            w.policy.windows.freeze = Some(frozen);
        }),
        line(Settling, "           B       B     -        -        -        -     -        B", |w| {
            w.memory.recent.checks = 0
        }),
        line(BreakerOpen, "        B       B     B        B        -        B     B        B", |w| {
            w.memory.operation_blocked(w.seen.at);
        }),
        line(BackingOff, "         B       B     B        B        -        B     B        B", |w| {
            w.memory.breaker.failed(w.seen.at);
        }),
        line(PartitionSuspected, " B       B     B        B        -        B     B        B", |w| {
            for name in ["n2", "n3", "n4"] {
                w.node(name).up = false;
                // No member, so that the majority has no part in this.
                w.inventory().members.retain(|m| m.id != id(name));
            }
        }),
        line(MissingData, "        -       B     -        -        -        B     -        -", |w| {
            w.missing(Signal::Throughput)
        }),
        line(UnhealthyNodes, "     -       B     -        -        -        B     B        B", |w| {
            let at = w.seen.at;
            let node = w.node("n5");
            (node.healthy, node.unhealthy_since) = (false, Some(at));
            w.inventory().members.retain(|m| m.id != id("n5"));
        }),
        line(MinNodes, "           -       B     -        -        -        B     -        -", |w| {
            w.policy.thresholds.min_nodes = 6;
        }),
        line(MaxNodes, "           B       -     B        B        B        -     -        -", |w| {
            w.policy.thresholds.max_nodes = 5;
        }),
        line(OperationRunning, "   B       B     B        B        B        B     B        B", |w| {
            w.operation = Some(operation(Kind::ScaleUp, OperationState::Running, Trigger::Threshold));
        }),
        line(Quorum, "             B       B     B        B        B        B     B        B", |w| {
            w.inventory().members.iter_mut().take(3).for_each(|m| m.healthy = false);
        }),
        line(Placement, "          B       B     B        B        B        B     B        B", |w| {
            w.store = Some(Err("timed out".into()));
        }),
        line(Projection, "         -       B     -        -        -        B     B        B", |w| {
            w.seen.avg_vectors_per_node = Some(950_000.0);
            w.outlook.rebalance.shards = 0;
        }),
        line(DataMoving, "         -       B     -        -        -        B     B        B", |w| {
            w.transfer("n1", "n2")
        }),
        line(ForeignOperation, "   B       B     B        B        B        B     B        B", |w| {
            w.transfer("n1", "n2")
        }),
        line(MixedVersions, "      B       B     B        B        B        B     B        B", |w| {
            w.inventory().members[2].version = Some("1.1".into());
        }),
        line(VictimFixed, "        -       -     -        -        -        B     -        -", |w| {
            w.only_victim = Some(id("n6"))
        }),
        line(NoProvider, "         B       B     B        B        B        B     -        -", |w| {
            w.can_change = false
        }),
    ]
}

/// The pool in which each column would act at the next check or request.
fn ready(column: usize) -> (World, Option<Request>) {
    let world = match column {
        0 => World::growing(6),
        1 => World::shrinking(6),
        2 => World::with_dead_node(6),
        7 => {
            let mut world = World::hot(0.9);
            world.checks(4);
            world
        }
        _ => World::nodes(6),
    };
    let request = match column {
        3 => Some(request(Kind::ScaleUp)),
        4 => Some(Request { reason: Some("I know".into()), ..request(Kind::ScaleUp) }),
        5 => Some(Request { node: Some(id("n1")), ..request(Kind::ScaleDown) }),
        6 => Some(request(Kind::Rebalance)),
        _ => None,
    };
    (world, request)
}

fn next(world: &mut World, request: &Option<Request>) -> Decision {
    match request {
        Some(request) => {
            world.wait(Duration::from_secs(1));
            world.ask(request)
        }
        None => world.check(),
    }
}

#[test]
fn every_column_acts_when_no_guard_holds() {
    for (column, name) in COLUMNS.iter().enumerate() {
        let (mut world, request) = ready(column);
        let decision = next(&mut world, &request);
        assert_ne!(decision.action, Action::Hold, "{name}: {}", explain(&decision));
    }
}

#[test]
fn cell_by_cell() {
    for line in lines() {
        for (column, cell) in line.cells.iter().enumerate() {
            let (mut world, request) = ready(column);
            (line.holds)(&mut world);
            let decision = next(&mut world, &request);
            let blocked = decision.guards.iter().any(|g| g.name == line.guard);
            let place = format!("{} × {}", line.guard.as_str(), COLUMNS[column]);
            assert_eq!(blocked, *cell == "B", "{place}: {}", explain(&decision));
            assert!(blocked == (decision.action == Action::Hold) || !decision.guards.is_empty(), "{place}");
            for hit in &decision.guards {
                assert!(!hit.detail.is_empty(), "{place}: {hit:?}");
            }
        }
    }
}

#[test]
fn the_table_has_every_guard_once_and_the_test_has_every_row() {
    assert_eq!(TABLE.map(|row| row.guard), Guard::ALL);
    assert_eq!(lines().iter().map(|l| l.guard).collect::<Vec<_>>(), Guard::ALL);
}

#[test]
fn all_guards_that_hold_are_listed() {
    let mut world = World::growing(6);
    world.mode = Mode::Observe;
    world.policy.thresholds.max_nodes = 6;
    world.policy.scale_up.enabled = false;
    world.inventory().members[2].version = Some("1.1".into());
    world.memory.operation_blocked(world.seen.at);
    let decision = world.check();
    assert_eq!(
        names(&decision.guards),
        ["observe", "direction_disabled", "breaker_open", "max_nodes", "mixed_versions"]
    );
    for guard in names(&decision.guards) {
        assert!(decision.would_change.contains(guard), "{guard}: {}", decision.would_change);
    }
}

#[test]
fn manual_hold_up_and_down() {
    let mut world = World::shrinking(6);
    world.memory.manual = Some((Kind::ScaleUp, world.seen.at));
    assert_eq!(names(&world.check().guards), ["manual_hold"]);
    let mut world = World::shrinking(6);
    world.memory.manual = Some((Kind::ScaleDown, world.seen.at));
    assert_eq!(world.check().action, down("n1", 5), "the same direction is free");
}

#[test]
fn when_the_fault_may_be_ours() {
    // (name, zone of each node, nodes that do not answer, whether a partition is suspected)
    let cases: [(&str, &[&str], &[usize], bool); 12] = [
        ("one of three", &["", "", ""], &[0], false),
        ("two of three", &["", "", ""], &[0, 1], true),
        ("the only one", &[""], &[0], true),
        ("one of two", &["", ""], &[0], false),
        ("two of twelve", &[""; 12], &[0, 1], false),
        ("three of twelve", &[""; 12], &[0, 1, 2], true),
        ("three of thirteen", &[""; 13], &[0, 1, 2], false),
        ("a zone", &["a", "a", "b", "b", "b", "b", "b", "b", "b", "b", "b", "b"], &[0, 1], true),
        ("half a zone", &["a", "a", "b", "b"], &[0], false),
        ("one of each", &["a", "b", "a", "b", "a", "b", "a", "b", "a"], &[0, 1], false),
        ("a zone's only node may just be dead", &["a", "b", "c"], &[0], false),
        ("nobody", &["a", "b", "c"], &[], false),
    ];
    for (name, zones, silent, expected) in cases {
        let mut world = World::nodes(zones.len() as u32);
        for (i, (node, zone)) in world.seen.nodes.iter_mut().zip(zones).enumerate() {
            node.zone = (!zone.is_empty()).then(|| zone.to_string());
            node.up = !silent.contains(&i);
        }
        let guards = prospect(&world.policy, &world.memory, &world.situation(None)).guards;
        assert_eq!(names(&guards).contains(&"partition_suspected"), expected, "{name}: {guards:?}");
    }
}

#[test]
fn nodes_that_need_not_answer_suspect_nothing() {
    for state in [NodeState::Maintenance, NodeState::Joining, NodeState::Lost] {
        let mut world = World::nodes(5);
        for name in ["n1", "n2", "n3"] {
            world.node(name).up = false;
            world.node(name).state = state;
        }
        let guards = prospect(&world.policy, &world.memory, &world.situation(None)).guards;
        assert!(!names(&guards).contains(&"partition_suspected"), "{state:?}: {guards:?}");
    }
}

#[test]
fn a_prospect_tells_what_each_concerns() {
    let mut world = World::nodes(3);
    let told = |world: &World| -> Vec<String> {
        let guards = prospect(&world.policy, &world.memory, &world.situation(None)).guards;
        guards.iter().map(|g| format!("{}: {}", g.name.as_str(), g.detail)).collect()
    };
    world.fresh(Signal::Storage, 0.3);
    world.memory.recent.totals.clear();
    assert_eq!(
        told(&world),
        [
            "min_nodes: 3 nodes, min_nodes is 3 (scale_down)",
            "projection: 3 -> 2 nodes would put cpu_usage at 0.75, not below 0.675, memory_usage at 0.75, not below \
             0.72 (nine tenths of its high line) (scale_down)"
        ]
    );
    world.mode = Mode::Observe;
    world.low();
    assert_eq!(
        told(&world),
        [
            "observe: autoscaling only observes (scale_up, scale_down)",
            "min_nodes: 3 nodes, min_nodes is 3 (scale_down)"
        ]
    );
}

#[test]
fn an_empty_list_of_members_is_no_majority() {
    let mut world = World::growing(4);
    world.inventory().members.clear();
    assert_eq!(names(&world.check().guards), ["quorum"]);
}
