//! When to grow and by how much, line by line.

use super::*;
use Reading::{Fresh, Idle};

type Change = fn(&mut World);
/// Name, signal, the pool's value, (value, busy) of the four nodes, and whether more are wanted.
type Busy<'a> = (&'a str, Signal, f64, [(f64, bool); 4], bool);

fn missing() -> Reading {
    Reading::Missing { why: "no answer".into() }
}

fn partial(value: f64, floor: f64) -> Reading {
    Reading::Partial { value, floor, silent: vec![id("n3")] }
}

/// Each row: readings of one signal at successive checks, and the check (counted from 1) that first wants more nodes.
#[test]
fn a_signal_above_its_line_for_its_checks_wants_more_nodes() {
    use Signal::{Cpu, ErrorRate, Latency, Memory, Storage};
    let f = |value| Fresh { value };
    let cases: Vec<(&str, Signal, Vec<Reading>, Option<usize>)> = vec![
        ("cpu: 2 checks", Cpu, vec![f(0.76), f(0.76)], Some(2)),
        ("memory: 2 checks", Memory, vec![f(0.81), f(0.81)], Some(2)),
        ("storage: 2 checks", Storage, vec![f(0.86), f(0.86)], Some(2)),
        ("latency: 3 checks", Latency, vec![f(501.0), f(501.0), f(501.0)], Some(3)),
        ("error rate: 2 checks", ErrorRate, vec![f(0.06), f(0.06)], Some(2)),
        ("on the line is not above", Cpu, vec![f(0.75); 6], None),
        ("a calm check restarts", Cpu, vec![f(0.9), f(0.5), f(0.9)], None),
        ("a calm check restarts, then it counts anew", Cpu, vec![f(0.9), f(0.5), f(0.9), f(0.9)], Some(4)),
        ("silence never scales", Cpu, vec![f(0.9), missing(), missing(), missing()], None),
        ("silence neither extends nor breaks", Cpu, vec![f(0.9), missing(), f(0.9)], Some(3)),
        (
            "five silent checks start over",
            Cpu,
            vec![f(0.9), missing(), missing(), missing(), missing(), missing(), f(0.9), f(0.9)],
            Some(8),
        ),
        ("not a number is silence", Cpu, vec![f(f64::NAN), f(f64::INFINITY), f(0.9)], None),
        ("partial votes if its floor is above", Cpu, vec![partial(0.9, 0.8), partial(0.9, 0.8)], Some(2)),
        ("partial with a floor below is silence", Cpu, vec![f(0.9), partial(0.95, 0.7), f(0.9)], Some(3)),
        ("partial below the line does not break", Cpu, vec![f(0.9), partial(0.2, 0.1), f(0.9)], Some(3)),
        ("idle is not above, and not missing either", Latency, vec![f(600.0), f(600.0), Idle, f(600.0)], None),
    ];
    for (name, signal, readings, expected) in cases {
        let mut world = World::nodes(4);
        let first = readings.into_iter().position(|reading| {
            world.read(signal.clone(), reading);
            let decision = world.check();
            assert!(decision.action == Action::Hold || decision.action == up(1, 5), "{name}: {decision:?}");
            decision.action != Action::Hold
        });
        assert_eq!(first.map(|i| i + 1), expected, "{name}");
    }
}

#[test]
fn what_else_wants_more_nodes() {
    let cases: [(&str, Change, Action, Option<Trigger>); 9] = [
        (
            "vectors above the line, at once",
            |w| w.seen.avg_vectors_per_node = Some(1.1e6),
            up(1, 5),
            Some(Trigger::Capacity),
        ),
        ("vectors on the line", |w| w.seen.avg_vectors_per_node = Some(1e6), Action::Hold, None),
        (
            "0 switches it off",
            |w| {
                w.policy.thresholds.max_vectors_per_node = 0;
                w.seen.avg_vectors_per_node = Some(1e9);
            },
            Action::Hold,
            None,
        ),
        ("vectors not known", |w| w.seen.avg_vectors_per_node = None, Action::Hold, None),
        ("fewer than min_nodes", |w| w.policy.thresholds.min_nodes = 5, up(1, 5), Some(Trigger::Bounds)),
        (
            "a draining node is not placeable",
            |w| {
                w.policy.thresholds.min_nodes = 4;
                w.node("n1").state = NodeState::Draining;
            },
            up(1, 4),
            Some(Trigger::Bounds),
        ),
        (
            "a lost node is none",
            |w| {
                w.policy.thresholds.min_nodes = 4;
                w.node("n1").state = NodeState::Lost;
            },
            up(1, 4),
            Some(Trigger::Bounds),
        ),
        (
            "a dead node is to be replaced, not added to",
            |w| {
                w.policy.thresholds.min_nodes = 4;
                w.kill("n1");
            },
            Action::Hold,
            None,
        ),
        (
            "a node in maintenance comes back",
            |w| {
                w.policy.thresholds.min_nodes = 4;
                w.node("n1").state = NodeState::Maintenance;
            },
            Action::Hold,
            None,
        ),
    ];
    for (name, change, action, trigger) in cases {
        let mut world = World::nodes(4);
        change(&mut world);
        let decision = world.check();
        assert_eq!((decision.action, decision.trigger), (action, trigger), "{name}: {:?}", decision.because);
    }
}

#[test]
fn a_condition_can_be_switched_off_or_given_other_checks() {
    let mut world = World::nodes(4);
    world.policy.checks.cpu_high = None;
    world.policy.checks.memory_high = Some(4);
    world.fresh(Signal::Cpu, 0.99);
    world.fresh(Signal::Memory, 0.99);
    let first = (1..=5).find(|_| world.check().action != Action::Hold);
    assert_eq!(first, Some(4), "memory alone, after its four checks");
    assert!(world.check().conditions.iter().all(|c| c.name != "cpu_high"));
}

#[test]
fn a_custom_signal_votes_like_the_others() {
    let mut world = World::nodes(4);
    world.policy.custom.insert("queue_depth".into(), policy::CustomLine { high: 100.0, low: Some(10.0), checks: 3 });
    world.fresh(Signal::Custom("queue_depth".into()), 101.0);
    let first = (1..=5).find(|_| world.check().action != Action::Hold);
    assert_eq!(first, Some(3));
    assert!(world.check().because[0].starts_with("queue_depth_high 101 > 100"));
}

#[test]
fn unconfigured_signals_have_no_conditions() {
    let mut world = World::nodes(4);
    world.policy.signals = vec![Signal::Cpu];
    world.policy.thresholds.max_vectors_per_node = 0;
    let names: Vec<String> = world.check().conditions.into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["cpu_high", "cpu_low", "cpu_hot", "load_uneven", "bytes_uneven"]);
}

#[test]
fn a_node_that_receives_data_does_not_extend_cpu_and_latency() {
    let cases: [Busy; 5] = [
        ("only the busy one is high", Signal::Cpu, 0.8, [(1.7, true), (0.5, false), (0.5, false), (0.5, false)], false),
        ("the others are high too", Signal::Cpu, 0.9, [(1.0, true), (0.9, false), (0.9, false), (0.8, false)], true),
        ("all are busy", Signal::Cpu, 0.9, [(0.9, true); 4], false),
        (
            "latency too",
            Signal::Latency,
            600.0,
            [(1800.0, true), (200.0, false), (200.0, false), (200.0, false)],
            false,
        ),
        ("not memory", Signal::Memory, 0.9, [(3.0, true), (0.2, false), (0.2, false), (0.2, false)], true),
    ];
    for (name, signal, pool, nodes, expected) in cases {
        let mut world = World::nodes(4);
        world.fresh(signal.clone(), pool);
        for (node, (value, busy)) in world.seen.nodes.iter_mut().zip(nodes) {
            node.values.insert(signal.clone(), value);
            node.busy_with_data = busy;
        }
        let decision = world.checks(4);
        // `settling` holds while data moves; the streak is what is asked about.
        assert_eq!(decision.wanted == Some(Kind::ScaleUp), expected, "{name}: {:?}", decision.because);
    }
}

#[test]
fn storage_that_will_be_full_before_a_node_is_ready_acts_now() {
    // (name, growth of the mean per check, checks, lead times in s, whether it acts)
    // From 0.55 in steps of 0.0015 a check: 0.73 after an hour, 0.18 an hour more.
    let cases: [(&str, f64, u32, &[u64], bool); 6] = [
        ("line crossed within the measured lead", 0.0015, 121, &[2600, 2600, 2600], true),
        ("not within a short lead", 0.0015, 121, &[60, 60, 60], false),
        ("the provider's timeout before there are three", 0.0015, 121, &[60, 60], false),
        ("the timeout would be long enough", 0.0021, 121, &[], true),
        ("an hour is needed", 0.0015, 115, &[2600, 2600, 2600], false),
        ("a flat line never crosses", 0.0, 700, &[2600, 2600, 2600], false),
    ];
    for (name, growth, checks, lead_times, acts) in cases {
        let mut world = World::nodes(4);
        world.memory = Memory::default();
        world.lead_times = lead_times.iter().map(|s| Duration::from_secs(*s)).collect();
        let mut acted = None;
        for i in 0..checks {
            world.fresh(Signal::Storage, 0.55 + growth * f64::from(i));
            let decision = world.check();
            if decision.action != Action::Hold {
                assert_eq!(decision.trigger, Some(Trigger::Capacity), "{name}: {:?}", decision.because);
                assert!(decision.because[0].starts_with("storage_projected"), "{name}: {:?}", decision.because);
                acted = Some(i);
                break;
            }
        }
        assert_eq!(acted.is_some(), acts, "{name}: {acted:?}");
    }
}

#[test]
fn a_silent_storage_reading_starts_nothing_from_the_past() {
    let mut world = World::nodes(4);
    world.mode = Mode::Observe; // it wants all the time, and does not act
    let mut wanted = false;
    for i in 0..140 {
        world.fresh(Signal::Storage, 0.55 + 0.0021 * f64::from(i));
        wanted |= world.check().wanted == Some(Kind::ScaleUp);
    }
    assert!(wanted);
    world.missing(Signal::Storage);
    assert_eq!(world.check().wanted, None);
}

#[test]
fn how_many_nodes_are_added() {
    let proportional: Change = |w| w.policy.scale_up.step = policy::StepSize::Proportional;
    let cases: [(&str, Change, (Signal, f64), Action); 6] = [
        ("one at a time", |_| {}, (Signal::Cpu, 2.0), up(1, 5)),
        // target (0.30 + 0.75) / 2 = 0.525: ceil(4 × 0.9 / 0.525) = 7
        ("proportional", proportional, (Signal::Cpu, 0.9), up(3, 7)),
        // target (0.40 + 0.80) / 2 = 0.60: ceil(4 × 0.82 / 0.60) = 6
        ("proportional to the exceeded signal", proportional, (Signal::Memory, 0.82), up(2, 6)),
        (
            "at most max_step",
            |w| {
                w.policy.scale_up.step = policy::StepSize::Proportional;
                w.policy.scale_up.max_step = 2;
            },
            (Signal::Cpu, 1.0),
            up(2, 6),
        ),
        (
            "never over max_nodes",
            |w| {
                w.policy.scale_up.step = policy::StepSize::Proportional;
                w.policy.thresholds.max_nodes = 5;
            },
            (Signal::Cpu, 1.0),
            up(1, 5),
        ),
        ("latency does not say how many", proportional, (Signal::Latency, 5000.0), up(1, 5)),
    ];
    for (name, change, (signal, value), expected) in cases {
        let mut world = World::nodes(4);
        change(&mut world);
        world.fresh(signal, value);
        let acted = (0..3).map(|_| world.check().action).find(|a| *a != Action::Hold);
        assert_eq!(acted, Some(expected), "{name}");
    }
}

#[test]
fn every_reason_is_told_and_the_first_trigger_names_it() {
    let mut world = World::growing(4);
    world.fresh(Signal::Memory, 0.9);
    world.seen.avg_vectors_per_node = Some(2e6);
    world.policy.thresholds.min_nodes = 5;
    let decision = world.check();
    assert_eq!((decision.action, decision.trigger), (up(1, 5), Some(Trigger::Bounds)));
    assert_eq!(
        decision.because,
        [
            "4 nodes placeable, min_nodes is 5",
            "cpu_high 0.81 > 0.75, 2 of 2 checks",
            "capacity 2000000 > 1000000, 1 of 1 check",
        ]
    );
}

#[test]
fn a_hold_on_the_way_says_how_far() {
    let mut world = World::nodes(4);
    world.fresh(Signal::Cpu, 0.81);
    let decision = world.check();
    assert_eq!(decision.because, ["cpu_high 0.81 > 0.75, 1 of 2 checks"]);
    assert_eq!(
        explain(&decision).lines().take(3).collect::<Vec<_>>(),
        [
            "decision 7 at 2025-11-24T16:03:30.000Z (active): hold",
            "  because      cpu_high 0.81 > 0.75, 1 of 2 checks",
            "  condition    cpu_high 0.81 > 0.75, 1 of 2 checks",
        ]
    );
    assert_eq!(
        decision.would_change,
        "scale_up: a high condition for its checks (nearest: cpu_high 0.81 > 0.75, 1 of 2 checks); \
         scale_down: 3 of 5 low conditions for 5 checks (0 now)"
    );
}
