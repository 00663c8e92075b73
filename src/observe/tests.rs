//! One table per rule of the contract: what nodes bring check by check, and what the pool then reads.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{
    Answer, Gap, Inventory, Member, NodeSample, Observation, Profile, Raw, Reading, Replica, ReplicaState,
    ScalingThresholds, ShardId, Stat, Timestamp, Transfer,
};

/// What one node brings of one signal at one check.
type Brought = Result<Raw, Gap>;

fn id(i: usize) -> NodeId {
    NodeId::new(&format!("n{}", i + 1)).unwrap()
}

fn at(check: usize) -> Timestamp {
    Timestamp::from_millis(1_000_000 + check as i64 * 10_000)
}

fn serving(nodes: usize) -> Vec<RosterEntry> {
    (0..nodes)
        .map(|i| RosterEntry {
            id: id(i),
            address: format!("10.0.0.{i}:80"),
            zone: None,
            state: NodeState::Serving,
            drained: false,
        })
        .collect()
}

fn sample(node: usize, check: usize, signals: Vec<(Signal, Brought)>) -> NodeSample {
    let answer =
        if signals.iter().any(|(_, s)| matches!(s, Err(Gap::NoAnswer(_)))) { Answer::None } else { Answer::Up };
    NodeSample {
        node: id(node),
        at: at(check),
        took: Duration::from_millis(5),
        answer,
        signals: signals.into_iter().collect(),
    }
}

fn settings(signals: &[Signal]) -> ObserveSettings {
    ObserveSettings::new("p".into(), signals.to_vec(), false)
}

/// Pushes the checks (check → node → signals) and looks.
fn observe(
    settings: &ObserveSettings,
    roster: &[RosterEntry],
    checks: Vec<Vec<Vec<(Signal, Brought)>>>,
) -> Observation {
    let mut window = Window::default();
    let last = checks.len();
    for (check, nodes) in checks.into_iter().enumerate() {
        let samples = nodes.into_iter().enumerate().map(|(node, signals)| sample(node, check, signals)).collect();
        window.push(settings, roster, samples, None);
    }
    aggregate(settings, &ScalingThresholds::of(Profile::Default), &window, roster, None, at(last))
}

/// The reading of one signal after the checks (check → node).
fn read(signal: Signal, checks: Vec<Vec<Brought>>) -> Reading {
    let nodes = checks[0].len();
    let checks = checks.into_iter().map(|c| c.into_iter().map(|s| vec![(signal.clone(), s)]).collect()).collect();
    observe(&settings(std::slice::from_ref(&signal)), &serving(nodes), checks).readings[&signal].clone()
}

fn gauge(value: f64) -> Brought {
    Ok(Raw::Gauge(value))
}

fn counter(value: f64) -> Brought {
    Ok(Raw::Counter(value))
}

fn ratio(failed: f64, total: f64) -> Brought {
    Ok(Raw::Ratio { failed, total })
}

/// Seconds on the page, milliseconds as a signal.
fn mean(sum: f64, count: f64) -> Brought {
    Ok(Raw::Histogram { buckets: vec![], sum, count, factor: 1000.0, stat: Stat::Mean })
}

/// Counts up to 0.1 s, 0.2 s and without end.
fn spread(stat: Stat, counts: [f64; 3]) -> Brought {
    let buckets = [0.1, 0.2, f64::INFINITY].into_iter().zip(counts).collect();
    Ok(Raw::Histogram { buckets, sum: 0.0, count: counts[2], factor: 1000.0, stat })
}

fn silent() -> Brought {
    Err(Gap::NoAnswer("timeout".into()))
}

fn fresh(value: f64) -> Reading {
    Reading::Fresh { value }
}

fn partial(value: f64, floor: f64, silent: &[usize]) -> Reading {
    Reading::Partial { value, floor, silent: silent.iter().map(|i| id(*i)).collect() }
}

fn missing(why: &str) -> Reading {
    Reading::Missing { why: why.into() }
}

#[test]
fn readings() {
    use Signal::{Cpu, ErrorRate, Latency, Storage, Throughput, Vectors};
    let queue = || Signal::Custom("queue".into());
    let cases: Vec<(&str, Signal, Vec<Vec<Brought>>, Reading)> = vec![
        ("usages: the mean", Cpu, vec![vec![gauge(0.25), gauge(0.75)]], fresh(0.5)),
        ("custom gauges too", queue(), vec![vec![gauge(10.0), gauge(20.0)]], fresh(15.0)),
        ("vectors: the sum", Vectors, vec![vec![gauge(10.0), gauge(20.0)]], fresh(30.0)),
        ("one silent node", Cpu, vec![vec![gauge(0.75), gauge(0.75), silent()]], partial(0.75, 0.5, &[2])),
        ("a sum over some", Vectors, vec![vec![gauge(10.0), silent()]], partial(10.0, 10.0, &[1])),
        ("all silent", Cpu, vec![vec![silent(), silent()]], missing("n1 and 1 more: no answer: timeout")),
        (
            "reasons apart",
            Cpu,
            vec![vec![silent(), Err(Gap::Stale(70))]],
            missing("n1: no answer: timeout; n2: the sample is 70 s old"),
        ),
        (
            "an unreadable page is silence",
            Cpu,
            vec![vec![gauge(0.5), Err(Gap::Unreadable("x".into()))]],
            partial(0.5, 0.25, &[1]),
        ),
        ("the last check counts", Cpu, vec![vec![gauge(0.5)], vec![silent()]], missing("n1: no answer: timeout")),
        // counters
        (
            "a rate",
            Throughput,
            vec![vec![counter(100.0), counter(0.0)], vec![counter(200.0), counter(50.0)]],
            fresh(15.0),
        ),
        ("first sight", Throughput, vec![vec![counter(100.0)]], missing("n1: counter first seen, or reset")),
        (
            "a reset is not negative",
            Throughput,
            vec![vec![counter(100.0)], vec![counter(40.0)]],
            missing("n1: counter first seen, or reset"),
        ),
        (
            "and counts on from there",
            Throughput,
            vec![vec![counter(100.0)], vec![counter(40.0)], vec![counter(60.0)]],
            fresh(2.0),
        ),
        ("over a missed check", Throughput, vec![vec![counter(0.0)], vec![silent()], vec![counter(60.0)]], fresh(3.0)),
        (
            "one node restarted",
            Throughput,
            vec![vec![counter(9.0), counter(0.0)], vec![counter(5.0), counter(20.0)]],
            partial(2.0, 2.0, &[0]),
        ),
        ("CPU seconds as a usage", Cpu, vec![vec![ratio(100.0, 1000.0)], vec![ratio(103.0, 1010.0)]], fresh(0.3)),
        ("a busy share above 1", Cpu, vec![vec![ratio(0.0, 0.0)], vec![ratio(10.2, 10.0)]], fresh(1.0)),
        (
            "far above 1",
            Cpu,
            vec![vec![ratio(0.0, 0.0)], vec![ratio(20.0, 10.0)]],
            missing("n1: not a finite number in its range: 2"),
        ),
        (
            "a clock that stands",
            Cpu,
            vec![vec![ratio(1.0, 10.0)], vec![ratio(1.0, 10.0)]],
            missing("n1: not a finite number in its range: its whole did not grow"),
        ),
        ("a counter as a usage", Storage, vec![vec![counter(0.0)], vec![counter(5.0)]], fresh(0.5)),
        // weighted by requests
        (
            "errors: sum over sum",
            ErrorRate,
            vec![vec![ratio(0.0, 0.0), ratio(0.0, 0.0)], vec![ratio(9.0, 90.0), ratio(10.0, 10.0)]],
            fresh(0.19),
        ),
        (
            "latency: sum over sum",
            Latency,
            vec![vec![mean(0.0, 0.0), mean(0.0, 0.0)], vec![mean(9.0, 90.0), mean(10.0, 10.0)]],
            fresh(190.0),
        ),
        (
            "a node without requests weighs nothing",
            Latency,
            vec![vec![mean(1.0, 1.0), mean(0.0, 0.0)], vec![mean(1.0, 1.0), mean(10.0, 100.0)]],
            fresh(100.0),
        ),
        (
            "a silent node",
            Latency,
            vec![vec![mean(0.0, 0.0), silent()], vec![mean(10.0, 100.0), silent()]],
            partial(100.0, 50.0, &[1]),
        ),
        (
            "20 requests are enough",
            Latency,
            vec![vec![mean(0.0, 0.0), mean(0.0, 0.0)], vec![mean(1.0, 10.0), mean(1.0, 10.0)]],
            fresh(100.0),
        ),
        (
            "19 are idle",
            Latency,
            vec![vec![mean(0.0, 0.0), mean(0.0, 0.0)], vec![mean(1.0, 10.0), mean(1.0, 9.0)]],
            Reading::Idle,
        ),
        ("none are idle", ErrorRate, vec![vec![ratio(3.0, 9.0)], vec![ratio(3.0, 9.0)]], Reading::Idle),
        (
            "few, and one is silent",
            ErrorRate,
            vec![vec![ratio(0.0, 0.0), silent()], vec![ratio(0.0, 9.0), silent()]],
            missing("n2: no answer: timeout"),
        ),
        ("an idle page is fresh throughput", Throughput, vec![vec![counter(5.0)], vec![counter(5.0)]], fresh(0.0)),
        // quantiles
        (
            "median of the growth",
            Latency,
            vec![vec![spread(Stat::P50, [1000.0, 1000.0, 1000.0])], vec![spread(Stat::P50, [1000.0, 1100.0, 1100.0])]],
            fresh(150.0),
        ),
        (
            "buckets of nodes merged",
            Latency,
            vec![
                vec![spread(Stat::P50, [0.0; 3]), spread(Stat::P50, [0.0; 3])],
                vec![spread(Stat::P50, [75.0, 75.0, 75.0]), spread(Stat::P50, [0.0, 25.0, 25.0])],
            ],
            fresh(200.0 / 3.0),
        ),
        (
            "beyond the last bound",
            Latency,
            vec![vec![spread(Stat::P99, [0.0; 3])], vec![spread(Stat::P99, [0.0, 0.0, 50.0])]],
            fresh(200.0),
        ),
        (
            "a bucket went backwards",
            Latency,
            vec![vec![spread(Stat::P50, [9.0, 9.0, 9.0])], vec![spread(Stat::P50, [1.0, 50.0, 50.0])]],
            missing("n1: counter first seen, or reset"),
        ),
        (
            "other bounds",
            Latency,
            vec![vec![mean(0.0, 0.0)], vec![spread(Stat::P50, [1.0, 50.0, 50.0])]],
            missing("n1: counter first seen, or reset"),
        ),
        // finished numbers
        ("latency as a gauge", Latency, vec![vec![gauge(100.0), gauge(300.0)]], fresh(200.0)),
    ];
    for (name, signal, checks, expected) in cases {
        let got = read(signal, checks);
        let near = match (&got, &expected) {
            (Reading::Fresh { value: a }, Reading::Fresh { value: b }) => (a - b).abs() < 1e-9,
            (
                Reading::Partial { value: a, floor: f, silent: s },
                Reading::Partial { value: b, floor: g, silent: t },
            ) => (a - b).abs() < 1e-9 && (f - g).abs() < 1e-9 && s == t,
            (a, b) => a == b,
        };
        assert!(near, "{name}: {got:?}, expected {expected:?}");
    }
}

#[test]
fn how_usages_are_summed_up() {
    let cases = [
        (Aggregate::Mean, 20, fresh(0.5), partial(0.5, 0.25, &[0])),
        (Aggregate::Max, 20, fresh(0.9), partial(0.9, 0.9, &[0])),
        (Aggregate::P95, 20, fresh(0.5), partial(0.5, 0.5, &[0])),
    ];
    for (how, nodes, all, _) in &cases {
        let mut settings = settings(&[Signal::Cpu]);
        settings.aggregate.insert(Signal::Cpu, *how);
        // One node is far above the others, one far below.
        let value = |i: usize| [0.9, 0.1].get(i).copied().unwrap_or(0.5);
        let check = (0..*nodes).map(|i| vec![(Signal::Cpu, gauge(value(i)))]).collect();
        let seen = observe(&settings, &serving(*nodes), vec![check]);
        assert_eq!(seen.readings[&Signal::Cpu], *all, "{how:?}");
    }
    for (how, _, _, some) in cases {
        let mut settings = settings(&[Signal::Cpu]);
        settings.aggregate.insert(Signal::Cpu, how);
        let high = if how == Aggregate::Max { 0.9 } else { 0.5 };
        let check = vec![vec![(Signal::Cpu, silent())], vec![(Signal::Cpu, gauge(high))]];
        assert_eq!(observe(&settings, &serving(2), vec![check]).readings[&Signal::Cpu], some, "{how:?}");
    }
}

#[test]
fn a_finished_latency_is_weighted_by_throughput() {
    let settings = settings(&[Signal::Latency, Signal::Throughput]);
    let node =
        |latency: f64, searches: f64| vec![(Signal::Latency, gauge(latency)), (Signal::Throughput, counter(searches))];
    let seen = |searches: [f64; 2]| {
        let checks =
            vec![vec![node(0.0, 0.0), node(0.0, 0.0)], vec![node(100.0, searches[0]), node(200.0, searches[1])]];
        observe(&settings, &serving(2), checks).readings[&Signal::Latency].clone()
    };
    assert_eq!(seen([75.0, 25.0]), fresh(125.0));
    assert_eq!(seen([10.0, 9.0]), Reading::Idle);
}

#[test]
fn a_restart_is_seen_by_any_count_and_believed_of_all() {
    let settings = settings(&[Signal::Throughput, Signal::Latency, Signal::Cpu, Signal::Custom("odd".into())]);
    let node = |searches: f64, count: f64, odd: f64| {
        vec![
            (Signal::Throughput, counter(searches)),
            (Signal::Latency, mean(count, count)),
            (Signal::Cpu, gauge(0.5)),
            (Signal::Custom("odd".into()), counter(odd)),
        ]
    };
    // Searches fell from 100 to 60; the latency's count has overtaken its old value already.
    let seen = observe(&settings, &serving(1), vec![vec![node(100.0, 10.0, 1.0)], vec![node(60.0, 60.0, 2.0)]]);
    let anew = missing("n1: counter first seen, or reset");
    assert_eq!(seen.readings[&Signal::Throughput], anew);
    assert_eq!(seen.readings[&Signal::Latency], anew);
    assert_eq!(seen.readings[&Signal::Cpu], fresh(0.5));
    assert_eq!(seen.nodes[0].gaps[&Signal::Latency], "counter first seen, or reset");
    // A custom count that falls is its own affair.
    let seen = observe(&settings, &serving(1), vec![vec![node(0.0, 0.0, 9.0)], vec![node(60.0, 60.0, 2.0)]]);
    assert_eq!(seen.readings[&Signal::Throughput], fresh(6.0));
    assert_eq!(seen.readings[&Signal::Custom("odd".into())], anew);
}

#[test]
fn counts_that_are_too_old_are_no_base() {
    let checks = |missed: usize| {
        let mut checks = vec![vec![counter(0.0)]];
        checks.extend((0..missed).map(|_| vec![silent()]));
        checks.push(vec![counter(600.0)]);
        read(Signal::Throughput, checks)
    };
    assert_eq!(checks(5), fresh(10.0));
    assert_eq!(checks(6), missing("n1: counter first seen, or reset"));
}

#[test]
fn who_counts() {
    let settings = settings(&[Signal::Cpu, Signal::Vectors]);
    let states = [NodeState::Serving, NodeState::Draining, NodeState::Joining, NodeState::Maintenance, NodeState::Lost];
    let mut roster = serving(5);
    for (entry, state) in roster.iter_mut().zip(states) {
        entry.state = state;
    }
    let node = |cpu: f64| vec![(Signal::Cpu, gauge(cpu)), (Signal::Vectors, gauge(10.0))];
    let quiet = || vec![(Signal::Cpu, silent()), (Signal::Vectors, silent())];
    let mut window = Window::default();
    for check in 0..5 {
        let nodes = [node(0.6), node(0.2), quiet(), quiet(), node(0.9)];
        let samples = nodes.into_iter().enumerate().map(|(i, signals)| sample(i, check, signals)).collect();
        window.push(&settings, &roster, samples, None);
    }
    let seen = aggregate(&settings, &ScalingThresholds::of(Profile::Default), &window, &roster, None, at(5));
    assert_eq!(seen.readings[&Signal::Cpu], fresh(0.4), "serving and draining nodes, and no one else");
    assert_eq!((seen.total_vectors, seen.avg_vectors_per_node), (Some(20), Some(10.0)));
    let shown: Vec<_> = seen.nodes.iter().map(|n| (n.up, n.healthy, n.unhealthy_since.is_some())).collect();
    let (well, excused, lost) = ((true, true, false), (false, false, false), (true, false, false));
    assert_eq!(shown, [well, well, excused, excused, lost]);
    assert_eq!(seen.healthy_nodes(), 2);

    // Maintenance ends and the node is still silent: only now its three bad checks begin.
    roster[3].state = NodeState::Serving;
    for check in 5..8 {
        assert_eq!(window.track(&id(3)).unwrap().health.unhealthy_since, None);
        window.push(&settings, &roster, vec![sample(3, check, quiet())], None);
    }
    assert_eq!(window.track(&id(3)).unwrap().health.unhealthy_since, Some(at(7)));
}

#[test]
fn one_that_a_person_had_emptied_is_in_no_reading_and_not_missed_when_it_is_switched_off() {
    let settings = settings(&[Signal::Cpu, Signal::Vectors]);
    let node = |cpu: f64, vectors: f64| vec![(Signal::Cpu, gauge(cpu)), (Signal::Vectors, gauge(vectors))];
    let off = || vec![(Signal::Cpu, silent()), (Signal::Vectors, silent())];
    for (what, third) in [("idle", node(0.0, 0.0)), ("switched off", off())] {
        let mut roster = serving(3);
        roster[2].state = NodeState::Draining;
        let look = |roster: &[RosterEntry]| {
            observe(&settings, roster, vec![vec![node(0.6, 20.0), node(0.6, 10.0), third.clone()]; 4])
        };
        assert_ne!(look(&roster).readings[&Signal::Cpu], fresh(0.6), "{what}, while an operation drains it");
        roster[2].drained = true;
        let seen = look(&roster);
        assert_eq!(seen.readings[&Signal::Cpu], fresh(0.6), "{what}");
        assert_eq!((seen.total_vectors, seen.avg_vectors_per_node), (Some(30), Some(15.0)), "{what}");
        assert_eq!((seen.nodes.len(), seen.nodes[2].up), (3, what == "idle"), "it is shown all the same");
    }
}

#[test]
fn what_makes_a_check_bad() {
    let settings = settings(&[Signal::Cpu]);
    let member = |healthy| Member { healthy, ..Member::new(id(0), String::new()) };
    let store = |healthy| Inventory { members: vec![member(healthy)], ..Inventory::default() };
    let unreadable = Err(Gap::Unreadable("garbage".into()));
    let cases = [
        ("an answer", Answer::Up, gauge(0.5), None, true),
        ("an unreadable one", Answer::Up, unreadable, None, true),
        ("5xx", Answer::Ill, gauge(0.5), None, false),
        ("none", Answer::None, silent(), None, false),
        ("the database says so", Answer::Up, gauge(0.5), Some(store(false)), false),
        ("the database is content", Answer::Up, gauge(0.5), Some(store(true)), true),
        ("the database is content, the node silent", Answer::None, silent(), Some(store(true)), false),
        ("the database does not know it", Answer::Up, gauge(0.5), Some(Inventory::default()), true),
    ];
    for (name, answer, cpu, store, healthy) in cases {
        let mut window = Window::default();
        for check in 0..4 {
            let (answer, cpu) = if check == 0 { (Answer::Up, gauge(0.5)) } else { (answer, cpu.clone()) };
            let store = if check == 0 { None } else { store.as_ref() };
            let brought = NodeSample { answer, ..sample(0, check, vec![(Signal::Cpu, cpu)]) };
            window.push(&settings, &serving(1), vec![brought], store);
        }
        let seen = aggregate(&settings, &ScalingThresholds::of(Profile::Default), &window, &serving(1), None, at(4));
        assert_eq!(seen.nodes[0].healthy, healthy, "{name}");
        assert_eq!(seen.nodes[0].unhealthy_since, (!healthy).then(|| at(3)), "{name}");
    }
}

#[test]
fn unknown_nodes_and_forgotten_ones() {
    let settings = settings(&[Signal::Throughput]);
    let thresholds = ScalingThresholds::of(Profile::Default);
    let mut window = Window::default();
    let look = |window: &Window, roster: &[RosterEntry]| aggregate(&settings, &thresholds, window, roster, None, at(9));

    let seen = look(&window, &serving(1));
    assert_eq!(seen.readings[&Signal::Throughput], missing("n1: not asked yet"));
    assert!(!seen.nodes[0].up && !seen.nodes[0].healthy);
    assert_eq!(look(&window, &[]).readings[&Signal::Throughput], missing("no node in service"));

    let push = |window: &mut Window, roster: &[RosterEntry], check: usize, count: f64| {
        window.push(&settings, roster, vec![sample(0, check, vec![(Signal::Throughput, counter(count))])], None);
    };
    push(&mut window, &serving(2), 0, 0.0);
    push(&mut window, &serving(2), 1, 50.0);
    assert_eq!(look(&window, &serving(2)).readings[&Signal::Throughput], partial(5.0, 5.0, &[1]));
    window.push(&settings, &[], vec![], None);
    push(&mut window, &serving(1), 2, 100.0);
    let seen = look(&window, &serving(1));
    assert_eq!(
        seen.readings[&Signal::Throughput],
        missing("n1: counter first seen, or reset"),
        "it had been forgotten"
    );
}

#[test]
fn what_the_datastore_tells() {
    let mut settings = settings(&[Signal::Cpu, Signal::Memory, Signal::Vectors]);
    settings.has_store = true;
    let thresholds = ScalingThresholds::of(Profile::Default);
    let shard = |n: u32| ShardId { collection: "c".into(), shard: n };
    let replica = |n: u32, node: usize, vectors: u64, state: ReplicaState| Replica {
        shard: shard(n),
        node: id(node),
        bytes: vectors * 4,
        vectors,
        state,
    };
    let mut store = Inventory {
        shards: vec![
            replica(0, 0, 100, ReplicaState::Active),
            replica(0, 1, 90, ReplicaState::Active),
            replica(1, 1, 50, ReplicaState::Active),
            replica(1, 2, 70, ReplicaState::Partial),
        ],
        transfers: vec![Transfer { shard: shard(0), from: id(1), to: id(3), done_bytes: None, is_move: true }],
        ..Inventory::default()
    };
    let roster = serving(4);
    let mut window = Window::default();
    let node = || vec![(Signal::Cpu, gauge(0.6)), (Signal::Memory, gauge(0.4)), (Signal::Vectors, gauge(1000.0))];
    window.push(&settings, &roster, (0..4).map(|i| sample(i, 0, node())).collect(), Some(&store));
    let seen = aggregate(&settings, &thresholds, &window, &roster, Some(&store), at(0));
    assert_eq!(seen.total_vectors, Some(150), "each vector once, by its fullest active copy");
    assert_eq!(seen.avg_vectors_per_node, Some(310.0 / 4.0), "every copy is load");
    let held: Vec<_> = seen.nodes.iter().map(|n| (n.shards, n.bytes, n.busy_with_data)).collect();
    let expected = [
        (Some(1), Some(400), false),
        (Some(2), Some(560), false),
        (Some(1), Some(280), true),
        (Some(0), Some(0), true),
    ];
    assert_eq!(held, expected);
    store.members = vec![Member { indexing: true, ..Member::new(id(0), String::new()) }];
    let seen = aggregate(&settings, &thresholds, &window, &roster, Some(&store), at(0));
    assert!(seen.nodes[0].busy_with_data && !seen.nodes[1].busy_with_data, "it builds an index");
    assert!((seen.nodes[0].load.unwrap() - 0.8).abs() < 1e-9, "CPU 0.6 of 0.75 is more than memory 0.4 of 0.8");

    store.shards[2].state = ReplicaState::Dead;
    let seen = aggregate(&settings, &thresholds, &window, &roster, Some(&store), at(0));
    assert_eq!(seen.total_vectors, None, "a shard without an active copy holds nobody knows how much");

    let seen = aggregate(&settings, &thresholds, &window, &roster, None, at(0));
    assert_eq!(seen.total_vectors, None, "a silent datastore is not made up for by nodes that count replicas");
    assert_eq!(seen.avg_vectors_per_node, Some(1000.0));
    assert_eq!((seen.nodes[0].shards, seen.nodes[0].bytes), (None, None));
}

#[test]
fn an_idle_node_says_so_and_has_no_latency() {
    let settings = settings(&[Signal::Latency]);
    let node = |count: f64| vec![(Signal::Latency, mean(count / 10.0, count))];
    let seen = observe(&settings, &serving(2), vec![vec![node(0.0), node(0.0)], vec![node(0.0), node(100.0)]]);
    assert_eq!(seen.nodes[0].values.get(&Signal::Latency), None);
    assert_eq!(seen.nodes[0].gaps[&Signal::Latency], "idle: nothing since the last check");
    assert_eq!(seen.nodes[1].values[&Signal::Latency], 100.0);
}

fn any_raw() -> impl Strategy<Value = Brought> {
    let number = prop_oneof![0.0..1e6f64, Just(0.0), Just(1e308)];
    prop_oneof![
        number.clone().prop_map(gauge),
        number.clone().prop_map(counter),
        (number.clone(), number.clone()).prop_map(|(a, b)| ratio(a, b)),
        (number.clone(), number.clone()).prop_map(|(a, b)| mean(a, b)),
        [number.clone(), number.clone(), number].prop_map(|counts| spread(Stat::P95, counts)),
        Just(silent()),
    ]
}

proptest! {
    #[test]
    fn whatever_nodes_bring_no_reading_is_negative_or_endless(
        checks in prop::collection::vec(prop::collection::vec(any_raw(), 3), 1..6),
        signal in prop::sample::select(Signal::BUILT_IN.to_vec()),
    ) {
        match read(signal, checks) {
            Reading::Fresh { value } => prop_assert!(value.is_finite() && value >= 0.0, "{value}"),
            Reading::Partial { value, floor, .. } => {
                prop_assert!(value.is_finite() && floor >= 0.0 && floor <= value, "{floor} {value}");
            }
            Reading::Missing { .. } | Reading::Idle => {}
        }
    }
}

#[test]
fn what_is_told_of_the_pool_as_a_whole() {
    use Signal::{Cpu, ErrorRate, Latency, Throughput};
    let nan = || Err(Gap::NotANumber("NaN".into()));
    let failed = || Err(Gap::Query("bad_data: parse error".into()));
    let empty = || Err(Gap::NoSeries("x".into()));
    // Ten seconds between checks: 2 a second are 20 requests.
    let cases = [
        ("a value", Cpu, Ok(0.5), None, fresh(0.5)),
        ("of a silent node too", Throughput, Ok(5.0), None, fresh(5.0)),
        ("a query that failed", Cpu, failed(), None, missing("Prometheus: bad_data: parse error")),
        ("nothing", Cpu, empty(), Some(1.0), missing("no series matches x")),
        ("no number", Latency, nan(), None, missing("not a finite number in its range: NaN")),
        ("no number in spite of requests", Latency, nan(), Some(2.0), missing("not a finite number in its range: NaN")),
        ("no number for want of requests", Latency, nan(), Some(1.9), Reading::Idle),
        ("nothing for want of requests", ErrorRate, empty(), Some(0.0), Reading::Idle),
        ("a value of few requests", Latency, Ok(900.0), Some(1.9), Reading::Idle),
        ("a failure is no idleness", Latency, failed(), Some(0.0), missing("Prometheus: bad_data: parse error")),
        ("a usage is never idle", Cpu, Ok(0.0), Some(0.0), fresh(0.0)),
    ];
    for (what, signal, told, per_second, expected) in cases {
        let settings = settings(&[signal.clone(), Throughput]);
        let (mut window, roster) = (Window::default(), serving(2));
        for check in 0..2 {
            window.push(&settings, &roster, vec![sample(0, check, vec![])], None);
            let throughput = per_second.map(|rate| (Throughput, Ok(rate)));
            window.told(at(check), throughput.into_iter().chain([(signal.clone(), told.clone())]).collect());
        }
        let seen = aggregate(&settings, &ScalingThresholds::of(Profile::Default), &window, &roster, None, at(1));
        assert_eq!(seen.readings[&signal], expected, "{what}");
        assert!(!seen.nodes[0].gaps.contains_key(&signal), "{what}: it is no node's");
    }
}

#[test]
fn requests_of_pages_and_of_the_pool_weigh_each_others_latency() {
    let (latency, rate) = (Signal::Latency, Signal::Throughput);
    let settings = settings(&[latency.clone(), rate.clone()]);
    let read = |of_nodes: [Vec<(Signal, Brought)>; 2], of_pool: Vec<(Signal, Result<f64, Gap>)>| {
        let (mut window, roster) = (Window::default(), serving(1));
        for (check, signals) in of_nodes.into_iter().enumerate() {
            window.push(&settings, &roster, vec![sample(0, check, signals)], None);
            window.told(at(check), of_pool.iter().cloned().collect());
        }
        let seen = aggregate(&settings, &ScalingThresholds::of(Profile::Default), &window, &roster, None, at(1));
        seen.readings[&latency].clone()
    };
    let searches = |count: f64| vec![(rate.clone(), counter(count))];
    let told = |value: f64| vec![(latency.clone(), Ok(value))];
    assert_eq!(read([searches(0.0), searches(20.0)], told(50.0)), fresh(50.0));
    assert_eq!(read([searches(0.0), searches(19.0)], told(50.0)), Reading::Idle);
    let took = || vec![(latency.clone(), gauge(50.0))];
    assert_eq!(read([took(), took()], vec![(rate.clone(), Ok(2.0))]), fresh(50.0));
    assert_eq!(read([took(), took()], vec![(rate.clone(), Ok(1.9))]), Reading::Idle);
}

#[test]
fn health_that_nobody_could_tell_stays_as_it_was() {
    let settings = settings(&[]);
    let mut window = Window::default();
    let ill = Inventory {
        members: vec![Member { healthy: false, ..Member::new(id(0), String::new()) }],
        ..Inventory::default()
    };
    let healthy: Vec<bool> = [
        (Answer::Unknown, None),
        (Answer::Up, None),
        (Answer::Unknown, None),
        (Answer::Unknown, None),
        (Answer::Unknown, None),
        (Answer::Ill, None),
        (Answer::Unknown, None),
        (Answer::Ill, None),
        (Answer::Unknown, Some(&ill)),
        (Answer::Unknown, None),
    ]
    .into_iter()
    .enumerate()
    .map(|(check, (answer, store))| {
        window.push(&settings, &serving(1), vec![NodeSample { answer, ..sample(0, check, vec![]) }], store);
        window.track(&id(0)).expect("a node").health.healthy
    })
    .collect();
    assert_eq!(
        healthy,
        [false, true, true, true, true, true, true, true, false, false],
        "three bad checks, unknown between"
    );
}

#[test]
fn maintenance_excuses_a_node_of_which_nobody_tells_anything() {
    let settings = settings(&[]);
    let mut window = Window::default();
    let mut roster = serving(1);
    // State, answer, and afterwards: healthy, ill since a check, known.
    let (serving, excused) = (NodeState::Serving, NodeState::Maintenance);
    let story = [
        (serving, Answer::Up, (true, None, true)),
        (serving, Answer::None, (true, None, true)),
        (serving, Answer::None, (true, None, true)),
        (serving, Answer::None, (false, Some(at(3)), true)),
        (serving, Answer::Unknown, (false, Some(at(3)), false)),
        (excused, Answer::Unknown, (false, None, false)),
        (serving, Answer::Unknown, (false, None, false)),
        (serving, Answer::Up, (true, None, true)),
        (excused, Answer::Unknown, (true, None, false)),
        (NodeState::Joining, Answer::Unknown, (true, None, false)),
    ];
    for (check, (state, answer, expected)) in story.into_iter().enumerate() {
        roster[0].state = state;
        window.push(&settings, &roster, vec![NodeSample { answer, ..sample(0, check, vec![]) }], None);
        let seen = aggregate(&settings, &ScalingThresholds::of(Profile::Default), &window, &roster, None, at(check));
        let node = &seen.nodes[0];
        assert_eq!((node.healthy, node.unhealthy_since, !node.health_unknown), expected, "check {check}");
    }
}
