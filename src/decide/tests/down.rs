//! When to shrink: what it needs, and every line that forbids it.

use super::*;

type Change = fn(&mut World);
/// Name, values of signals, and the check that acts.
type Low<'a> = (&'a str, &'a [(Signal, f64)], Option<u32>);
/// Name, predicted drain and `payback`, `at_least` in seconds, and the check that acts.
type Drained<'a> = (&'a str, Option<f64>, f64, u64, Option<u32>);

#[test]
fn three_of_five_lows_for_five_checks() {
    use Signal::{Cpu, ErrorRate, Latency, Memory, Storage};
    let cases: [Low; 6] = [
        ("all five", &[(Cpu, 0.1), (Memory, 0.1), (Storage, 0.1), (Latency, 20.0), (ErrorRate, 0.0)], Some(5)),
        ("three: cpu, memory, storage", &[(Cpu, 0.1), (Memory, 0.1), (Storage, 0.1)], Some(5)),
        ("three: memory, latency, errors", &[(Memory, 0.1), (Latency, 20.0), (ErrorRate, 0.0)], Some(5)),
        ("two are not enough", &[(Cpu, 0.1), (Memory, 0.1)], None),
        ("on the line is not low", &[(Cpu, 0.3), (Memory, 0.4), (Storage, 0.5), (Latency, 20.0)], None),
        ("none", &[], None),
    ];
    for (name, low, expected) in cases {
        let mut world = World::nodes(6);
        for (signal, value) in low {
            world.fresh(signal.clone(), *value);
        }
        let first = (1..=8).find(|_| world.check().action == down("n1", 5));
        assert_eq!(first, expected, "{name}");
    }
}

#[test]
fn a_check_that_is_not_low_starts_the_five_over() {
    let mut world = World::shrinking(6);
    for signal in [Signal::Cpu, Signal::Memory, Signal::Storage] {
        world.fresh(signal, 0.55);
    }
    assert_eq!(world.check().wanted, None);
    world.low();
    let first = (1..=8).find(|_| world.check().action != Action::Hold);
    assert_eq!(first, Some(5));
}

#[test]
fn a_custom_low_counts_like_the_five() {
    let mut world = World::nodes(6);
    world.policy.custom.insert("queue_depth".into(), policy::CustomLine { high: 100.0, low: Some(10.0), checks: 5 });
    world.fresh(Signal::Custom("queue_depth".into()), 1.0);
    world.fresh(Signal::Cpu, 0.1);
    world.fresh(Signal::Memory, 0.1);
    assert_eq!(world.checks(4).wanted, None);
    assert_eq!(world.check().action, down("n1", 5));
    world.missing(Signal::Custom("queue_depth".into()));
    world.fresh(Signal::Storage, 0.1);
    assert_eq!(names(&world.checks(5).guards), ["missing_data"], "and its silence forbids like theirs");
}

#[test]
fn a_hold_tells_of_missing_readings() {
    let mut world = World::nodes(6);
    world.missing(Signal::Cpu);
    assert_eq!(world.check().because, ["cpu_usage is missing: no answer"]);
}

/// Each row changes a pool of which the next check would remove a node.
#[test]
fn what_forbids_one_node_fewer() {
    let cases: [(&str, Change, Result<(), &str>); 24] = [
        ("nothing", |_| {}, Ok(())),
        ("a signal above its high line", |w| w.fresh(Signal::Memory, 0.9), Err("memory_usage is above 0.80")),
        (
            "above the line of a condition that is off",
            |w| {
                w.policy.checks.memory_high = None;
                w.fresh(Signal::Memory, 0.9);
            },
            Err("memory_usage is above 0.80"),
        ),
        ("a missing reading", |w| w.missing(Signal::Memory), Err("missing_data")),
        ("a missing reading without a line", |w| w.missing(Signal::Throughput), Err("missing_data")),
        (
            "a partial reading",
            |w| w.read(Signal::Cpu, Reading::Partial { value: 0.1, floor: 0.1, silent: vec![id("n2")] }),
            Err("missing_data"),
        ),
        (
            "a configured signal that was not read at all",
            |w| {
                w.seen.readings.remove(&Signal::Throughput);
            },
            Err("missing_data"),
        ),
        (
            "a signal that nobody configured",
            |w| {
                w.seen.readings.remove(&Signal::Throughput);
                w.policy.signals.retain(|s| *s != Signal::Throughput);
            },
            Ok(()),
        ),
        ("vectors not known", |w| w.seen.avg_vectors_per_node = None, Err("missing_data")),
        (
            "an unhealthy node",
            |w| {
                w.kill("n6");
            },
            Err("unhealthy_nodes"),
        ),
        ("a node that did not answer this check", |w| w.node("n6").up = false, Err("unhealthy_nodes")),
        (
            "a node silent in maintenance",
            |w| {
                w.kill("n6");
                w.node("n6").state = NodeState::Maintenance;
            },
            Err("unhealthy_nodes"),
        ),
        (
            "a lost node counts nowhere",
            |w| {
                w.kill("n6");
                w.node("n6").state = NodeState::Lost;
                w.inventory().members.retain(|m| m.id != id("n6"));
            },
            Ok(()),
        ),
        ("cpu with one fewer", |w| w.fresh(Signal::Cpu, 0.6), Err("projection")),
        ("vectors with one fewer", |w| w.seen.avg_vectors_per_node = Some(8e5), Err("projection")),
        (
            "no projection for vectors without a line",
            |w| {
                w.seen.avg_vectors_per_node = Some(8e5);
                w.policy.thresholds.max_vectors_per_node = 0;
            },
            Ok(()),
        ),
        ("idle: no one asks anything", |w| w.read(Signal::Latency, Reading::Idle), Err("traffic_lost")),
        ("next to no requests", |w| w.fresh(Signal::Throughput, 0.5), Err("traffic_lost")),
        (
            "idle, and that is allowed",
            |w| {
                w.read(Signal::Latency, Reading::Idle);
                w.read(Signal::ErrorRate, Reading::Idle);
                w.policy.scale_down.when_idle = true;
            },
            Ok(()),
        ),
        ("the store is silent", |w| w.store = Some(Err("timed out".into())), Err("placement")),
        (
            "no shard could be placed",
            |w| w.outlook.scale_down.iter_mut().for_each(|d| d.impossible = Some("docs/0 has no other place".into())),
            Err("placement"),
        ),
        ("no plan", |w| w.outlook.scale_down.clear(), Err("placement")),
        ("the lows are switched off", |w| w.policy.checks.low = None, Err("")),
        ("no nodes to spare", |w| w.policy.thresholds.min_nodes = 6, Err("min_nodes")),
    ];
    for (name, change, expected) in cases {
        let mut world = World::shrinking(6);
        change(&mut world);
        let decision = world.check();
        match expected {
            Ok(()) => assert!(matches!(decision.action, Action::ScaleDown { .. }), "{name}: {}", explain(&decision)),
            Err(says) => {
                assert_eq!(decision.action, Action::Hold, "{name}");
                assert!(explain(&decision).contains(says), "{name}: {}", explain(&decision));
            }
        }
    }
}

#[test]
fn three_to_two_at_sixty_percent_is_ninety() {
    let mut world = World::nodes(3);
    world.policy.thresholds.min_nodes = 1;
    world.low();
    world.fresh(Signal::Cpu, 0.6);
    let decision = world.checks(5);
    assert_eq!(names(&decision.guards), ["projection"]);
    assert_eq!(
        decision.guards[0].detail,
        "3 -> 2 nodes would put cpu_usage at 0.90, not below 0.675 (nine tenths of its high line)"
    );
}

#[test]
fn the_lows_must_hold_as_long_as_the_drain_will_take() {
    let cases: [Drained; 6] = [
        ("not measured yet", None, 1.0, 0, Some(5)),
        ("a short drain", Some(100.0), 1.0, 0, Some(5)),
        ("a long drain", Some(300.0), 1.0, 0, Some(11)),
        ("half of it", Some(300.0), 0.5, 0, Some(6)),
        ("at least", Some(100.0), 1.0, 240, Some(9)),
        ("out of all proportion", Some(f64::INFINITY), 1.0, 0, None),
    ];
    for (name, seconds, payback, at_least, expected) in cases {
        let mut world = World::nodes(6);
        world.policy.scale_down.payback = payback;
        world.policy.scale_down.at_least = Duration::from_secs(at_least);
        world.outlook.scale_down.iter_mut().for_each(|d| d.forecast.seconds = seconds);
        world.low();
        let first = (1..=20).find(|_| world.check().action != Action::Hold);
        assert_eq!(first, expected, "{name}");
    }
    let mut world = World::shrinking(6);
    world.outlook.scale_down.iter_mut().for_each(|d| d.forecast.seconds = Some(420.0));
    assert_eq!(
        world.check().because,
        ["5 low conditions have held for 120 s of the 420 s that the drain is predicted to take (scale_down.payback)"]
    );
}

#[test]
fn production_waits_half_an_hour() {
    let mut world = World::nodes(8);
    world.policy = Policy::of(Profile::Production);
    world.low();
    let first = (1..=100).find(|_| world.check().action != Action::Hold);
    assert_eq!(first, Some(61));
}

#[test]
fn vanished_traffic_forbids_and_says_so() {
    // (name, checks with traffic before, its rate now, whether it shrinks at the fifth low check)
    let cases: [(&str, u32, f64, bool); 4] = [
        ("a tenth is left", 60, 11.0, true),
        ("less than a tenth", 60, 5.0, false),
        ("not known for 20 checks", 8, 5.0, true),
        ("known for 20 checks", 9, 5.0, false),
    ];
    for (name, before, rate, shrinks) in cases {
        let mut world = World::nodes(6);
        world.checks(before);
        world.low();
        world.fresh(Signal::Throughput, rate);
        let decision = world.checks(5);
        assert_eq!(decision.action != Action::Hold, shrinks, "{name}: {}", explain(&decision));
        if !shrinks {
            assert!(
                decision.guards[0].detail.starts_with("traffic has vanished: at most 5.00"),
                "{name}: {decision:?}"
            );
        }
    }
}

#[test]
fn an_idle_pool_says_why_nothing_shrinks() {
    let mut world = World::shrinking(6);
    world.fresh(Signal::Throughput, 0.0);
    world.read(Signal::Latency, Reading::Idle);
    world.read(Signal::ErrorRate, Reading::Idle);
    let decision = world.check();
    assert_eq!((decision.action, decision.wanted), (Action::Hold, Some(Kind::ScaleDown)));
    assert_eq!(
        decision.guards[0].detail,
        "the pool is idle, fewer than 20 requests a check: scale_down.when_idle is false"
    );
    assert!(decision.would_change.contains("traffic returns"), "{}", decision.would_change);
}

#[test]
fn idle_is_neither_low_nor_missing() {
    let mut world = World::nodes(6);
    world.policy.scale_down.when_idle = true;
    world.fresh(Signal::Cpu, 0.1);
    world.fresh(Signal::Memory, 0.1);
    world.read(Signal::Latency, Reading::Idle);
    world.read(Signal::ErrorRate, Reading::Idle);
    assert_eq!(world.checks(10).wanted, None, "two lows and two idle signals are two lows");
    world.fresh(Signal::Storage, 0.1);
    assert_eq!(world.checks(5).action, down("n1", 5), "and no idle signal forbids it");
}

#[test]
fn which_node_goes() {
    let cases: [(&str, Change, Result<&str, &str>); 8] = [
        ("the planner's first", |w| w.outlook.scale_down.reverse(), Ok("n6")),
        ("not one that cannot be emptied", |w| w.outlook.scale_down[0].impossible = Some("no place".into()), Ok("n2")),
        ("not one in maintenance", |w| w.node("n1").state = NodeState::Maintenance, Ok("n2")),
        ("not one that the provider does not list", |w| w.machines.as_mut().unwrap().truncate(0), Err("placement")),
        ("the only one that the provider takes", |w| w.only_victim = Some(id("n6")), Ok("n6")),
        (
            "that one cannot be emptied",
            |w| {
                w.only_victim = Some(id("n1"));
                w.outlook.scale_down[0].impossible = Some("no place".into());
            },
            Err("placement"),
        ),
        (
            "without data, the least loaded",
            |w| {
                w.store = None;
                w.outlook.scale_down.clear();
                for (node, load) in w.seen.nodes.iter_mut().zip([0.5, 0.4, 0.3, 0.2, 0.3, 0.4]) {
                    node.load = Some(load);
                }
            },
            Ok("n4"),
        ),
        ("a pool above its maximum shrinks by its lows only", |w| w.policy.thresholds.max_nodes = 4, Ok("n1")),
    ];
    for (name, change, expected) in cases {
        let mut world = World::shrinking(6);
        change(&mut world);
        let decision = world.check();
        match expected {
            Ok(victim) => assert_eq!(decision.action, down(victim, 5), "{name}: {}", explain(&decision)),
            Err(guard) => assert_eq!(names(&decision.guards), [guard], "{name}: {}", explain(&decision)),
        }
    }
}

#[test]
fn above_the_maximum_nothing_is_removed_for_it() {
    let mut world = World::nodes(6);
    world.policy.thresholds.max_nodes = 4;
    assert_eq!(world.checks(50).wanted, None);
}

#[test]
fn order_up_before_down() {
    let mut world = World::shrinking(6);
    world.policy.thresholds.min_nodes = 7;
    assert_eq!(world.check().action, up(1, 7), "bounds wins over the lows");
}
