//! What holds for every input: bounds, silence, determinism, and no reversal under a constant load.

use proptest::prelude::*;

use super::*;

/// Any reading a pool may have, around and beyond the lines.
fn reading(scale: f64) -> impl Strategy<Value = Reading> {
    let value = (0.0..1.3f64).prop_map(move |v| v * scale);
    prop_oneof![
        6 => value.clone().prop_map(|value| Reading::Fresh { value }),
        1 => (value, 0.0..1.0f64).prop_map(|(value, share)| Reading::Partial {
            value,
            floor: value * share,
            silent: vec![id("n1")],
        }),
        1 => Just(Reading::Missing { why: "no answer".into() }),
        1 => Just(Reading::Idle),
    ]
}

#[derive(Clone, Debug)]
struct Turn {
    readings: [Reading; 5],
    silent: u32,
    vectors: Option<f64>,
    succeeds: bool,
}

/// The signals of a turn, each with the scale of its readings.
const SIGNALS: [(Signal, f64); 5] = [
    (Signal::Cpu, 1.0),
    (Signal::Memory, 1.0),
    (Signal::Storage, 1.0),
    (Signal::Latency, 600.0),
    (Signal::ErrorRate, 0.08),
];

/// Levels stay for a while, so that streaks come about: mostly few kinds of turns are drawn and repeated.
fn turn() -> impl Strategy<Value = Turn> {
    let any_turn = (
        SIGNALS.map(|(_, scale)| reading(scale)),
        prop_oneof![8 => Just(0u32), 1 => 0u32..1024],
        prop_oneof![5 => Just(Some(5e3)), 1 => Just(Some(2e6)), 1 => Just(None)],
        any::<bool>(),
    )
        .prop_map(|(readings, silent, vectors, succeeds)| Turn { readings, silent, vectors, succeeds });
    // What a scale-down needs is rare among them.
    let calm = (SIGNALS.map(|(_, scale)| 0.0..0.2 * scale), any::<bool>()).prop_map(|(values, succeeds)| Turn {
        readings: values.map(|value| Reading::Fresh { value }),
        silent: 0,
        vectors: Some(5e3),
        succeeds,
    });
    prop_oneof![2 => any_turn, 1 => calm]
}

fn show(world: &mut World, turn: &Turn) {
    for ((signal, _), reading) in SIGNALS.into_iter().zip(&turn.readings) {
        world.read(signal, reading.clone());
    }
    world.seen.avg_vectors_per_node = turn.vectors;
    let at = world.seen.at;
    for (i, node) in world.seen.nodes.iter_mut().enumerate() {
        node.up = turn.silent & (1 << i.min(31)) == 0;
        node.healthy = node.up;
        node.unhealthy_since = if node.up { None } else { node.unhealthy_since.or(Some(at)) };
    }
}

/// A world whose nodes come and go as decided. The machine of a replaced node stays: it is lost.
fn resize(world: &mut World, decision: &Decision, named: &mut u32) {
    match &decision.action {
        Action::ScaleUp { nodes, .. } => (0..*nodes).for_each(|_| join(world, named)),
        Action::Replace { node } => {
            world.node(node.as_str()).state = NodeState::Lost;
            leave(world, node);
            join(world, named);
        }
        Action::ScaleDown { node, .. } => {
            world.seen.nodes.retain(|n| n.id != *node);
            world.machines.as_mut().unwrap().retain(|m| m.id != *node);
            leave(world, node);
        }
        _ => {}
    }
}

fn join(world: &mut World, named: &mut u32) {
    *named += 1;
    let new = id(&format!("m{named}"));
    world.seen.nodes.push(node(&new));
    world.inventory().members.push(member(&new));
    world.machines.as_mut().unwrap().push(machine(&new));
    world.outlook.scale_down.push(drain(&new));
}

/// It is no member any more, and nothing is there to be drained.
fn leave(world: &mut World, node: &NodeId) {
    world.inventory().members.retain(|m| m.id != *node);
    world.outlook.scale_down.retain(|d| d.node != *node);
}

/// Nodes that bounds are about: a lost one counts nowhere.
fn count(world: &World) -> u32 {
    world.seen.nodes.iter().filter(|n| n.state != NodeState::Lost).count() as u32
}

/// The operation of a decision to change something, ended.
fn ended(decision: &Decision, state: OperationState) -> Option<Operation> {
    let replaces = match &decision.action {
        Action::Replace { node } => Some(node.clone()),
        _ => None,
    };
    Some(Operation { replaces, ..operation(decision.action.kind()?, state, Trigger::Threshold) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_below_min_nor_above_max_by_our_doing(
        start in 2u32..10,
        min in 1u32..6,
        spare in 0u32..8,
        proportional in any::<bool>(),
        turns in prop::collection::vec((turn(), 1u32..9), 1..25),
    ) {
        let mut world = World::nodes(start);
        world.policy.thresholds.min_nodes = min;
        world.policy.thresholds.max_nodes = min + spare;
        world.policy.thresholds.scale_up_cooldown = 60.0;
        world.policy.thresholds.scale_down_cooldown = 60.0;
        world.policy.scale_up.step =
            if proportional { policy::StepSize::Proportional } else { policy::StepSize::One };
        let mut named = 0;
        for (turn, times) in turns {
            for _ in 0..times {
                show(&mut world, &turn);
                let before = count(&world);
                let decision = world.check();
                let outcome = if turn.succeeds { OperationState::Succeeded } else { OperationState::Failed };
                if let Some(operation) = ended(&decision, outcome) {
                    if turn.succeeds {
                        resize(&mut world, &decision, &mut named);
                    }
                    world.memory.operation_ended(&operation, world.seen.at);
                }
                let after = count(&world);
                prop_assert!(after >= before || after >= min, "{before} -> {after}, min {min}");
                prop_assert!(after <= before || after <= min + spare, "{before} -> {after}, max {}", min + spare);
            }
        }
    }

    #[test]
    fn a_missing_reading_never_starts_a_change(
        turns in prop::collection::vec((turn(), 1u32..9), 1..25),
    ) {
        let mut world = World::nodes(6);
        world.policy.thresholds.min_nodes = 1;
        for (turn, times) in turns {
            for _ in 0..times {
                show(&mut world, &Turn { silent: 0, ..turn.clone() });
                // What the next check would do were every reading silent, whatever came before.
                let mut silent = world.clone();
                silent.seen.avg_vectors_per_node = None;
                let signals: Vec<Signal> = silent.seen.readings.keys().cloned().collect();
                signals.into_iter().for_each(|s| silent.missing(s));
                let decision = silent.check();
                prop_assert_eq!(decision.action, Action::Hold);
                prop_assert_eq!(decision.wanted, None);
                world.check();
            }
        }
    }

    #[test]
    fn the_same_input_prints_the_same_decision(turns in prop::collection::vec(turn(), 1..12)) {
        let mut world = World::nodes(6);
        for turn in turns {
            show(&mut world, &turn);
            let again = world.clone().check();
            let decision = world.check();
            prop_assert_eq!(serde_json::to_string(&decision).unwrap(), serde_json::to_string(&again).unwrap());
            prop_assert_eq!(explain(&decision), explain(&again));
        }
    }

    #[test]
    fn unreachable_nodes_never_lead_to_a_scale_down(
        nodes in 3u32..=10,
        subset in 1u32..1024,
        also_in_the_readings in any::<bool>(),
    ) {
        let unreachable: Vec<u32> = (1..=nodes).filter(|i| subset & (1 << (i - 1)) != 0).collect();
        prop_assume!(!unreachable.is_empty());
        let mut world = World::shrinking(nodes);
        world.policy.thresholds.min_nodes = 1;
        for i in &unreachable {
            world.node(&format!("n{i}")).up = false;
        }
        if also_in_the_readings {
            let silent: Vec<NodeId> = unreachable.iter().map(|i| id(&format!("n{i}"))).collect();
            for signal in Signal::BUILT_IN {
                let reading = if unreachable.len() as u32 == nodes {
                    Reading::Missing { why: "no answer".into() }
                } else {
                    Reading::Partial { value: 0.01, floor: 0.0, silent: silent.clone() }
                };
                world.read(signal, reading);
            }
        }
        for check in 0..60 {
            if check == 3 {
                unreachable.iter().for_each(|i| world.kill(&format!("n{i}")));
            }
            let decision = world.check();
            prop_assert!(!matches!(decision.action, Action::ScaleDown { .. }), "{}", explain(&decision));
        }
        let asked = world.ask(&request(Kind::ScaleDown));
        prop_assert_eq!(asked.action, Action::Hold, "nor by hand");
    }
}

/// A day of checks under a constant load with ±10 % noise: the changes, in order.
fn day(nodes: u32, level: f64, memory: f64, storage: f64, calm: bool, seed: u64, policy: &Policy) -> Vec<Kind> {
    let mut noise = fastrand::Rng::with_seed(seed);
    let mut world = World::nodes(nodes);
    world.memory = Memory::default();
    world.policy = policy.clone();
    let mut named = 0;
    let mut changes = Vec::new();
    for _ in 0..2880 {
        let share = f64::from(nodes) / world.seen.nodes.len() as f64;
        for (signal, level) in [(Signal::Cpu, level), (Signal::Memory, memory), (Signal::Storage, storage)] {
            let noisy = level * share * (0.9 + 0.2 * noise.f64());
            world.fresh(signal, noisy.min(1.0));
        }
        // The low conditions that do not depend on the number of nodes.
        world.fresh(Signal::Latency, if calm { 20.0 } else { 200.0 });
        world.fresh(Signal::ErrorRate, if calm { 0.0 } else { 0.02 });
        let Outcome { decision, memory } = decide(&world.policy, &world.memory, &world.situation(None));
        world.wait(CHECK);
        world.memory = memory;
        if let Some(operation) = ended(&decision, OperationState::Succeeded) {
            resize(&mut world, &decision, &mut named);
            world.memory.operation_ended(&operation, world.seen.at);
            changes.push(operation.kind);
        }
    }
    changes
}

fn reversals(changes: &[Kind]) -> usize {
    changes.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_constant_load_brings_no_reversal(
        nodes in 2u32..=20,
        level in 0.0..1.0f64,
        memory in prop_oneof![1 => 0.0..1.0f64, 3 => Just(0.05)],
        storage in prop_oneof![1 => 0.0..1.0f64, 3 => Just(0.05)],
        calm in prop_oneof![1 => Just(false), 3 => Just(true)],
        seed in any::<u64>(),
        development in any::<bool>(),
    ) {
        let mut policy = Policy::of(if development { Profile::Development } else { Profile::Default });
        (policy.thresholds.min_nodes, policy.thresholds.max_nodes) = (1, 40);
        let changes = day(nodes, level, memory, storage, calm, seed, &policy);
        prop_assert_eq!(reversals(&changes), 0, "{:?}", changes);
    }
}

/// The levels at which the rules come nearest to a reversal: the projection just passes, or growing was just needed.
#[test]
fn no_reversal_at_the_edges() {
    let mut policy = Policy::of(Profile::Default);
    (policy.thresholds.min_nodes, policy.thresholds.max_nodes) = (1, 40);
    let mut changed = Vec::new();
    for nodes in [3u32, 9] {
        let one_fewer = f64::from(nodes - 1) / f64::from(nodes);
        for (scale, percents) in [(one_fewer, [80, 83, 90]), (1.0, [91, 94, 101])] {
            for percent in percents {
                let level = 0.75 * scale * f64::from(percent) / 100.0;
                let changes = day(nodes, level, 0.05, 0.05, true, u64::from(nodes * 1000 + percent), &policy);
                assert_eq!(reversals(&changes), 0, "{nodes} nodes at {level}: {changes:?}");
                changed.extend(changes);
            }
        }
    }
    for kind in [Kind::ScaleUp, Kind::ScaleDown] {
        assert!(changed.contains(&kind), "no {kind:?}: a test in which nothing changes shows nothing");
    }
}

/// Equal shards on nodes, and a plan that spreads them as evenly as they can be.
fn spread(shards: &[u32]) -> (Vec<u32>, Forecast) {
    const SIZE: u64 = 1 << 20;
    let mut after = shards.to_vec();
    let mut moved = 0;
    loop {
        let place = |wanted: u32| after.iter().position(|held| *held == wanted).expect("one of them");
        let (most, least) = (*after.iter().max().expect("nodes"), *after.iter().min().expect("nodes"));
        if most - least < 2 {
            break;
        }
        let (from, to) = (place(most), place(least));
        (after[from], after[to], moved) = (most - 1, least + 1, moved + 1);
    }
    let change = |(i, (before, after)): (usize, (&u32, &u32))| Change {
        node: id(&format!("n{}", i + 1)),
        shards_before: *before,
        shards_after: *after,
        bytes_before: u64::from(*before) * SIZE,
        bytes_after: u64::from(*after) * SIZE,
    };
    let changes: Vec<Change> = shards.iter().zip(&after).enumerate().map(change).collect();
    let plan = Forecast {
        shards: moved,
        bytes: u64::from(moved) * SIZE,
        balance: Some(Balance::default()),
        nodes: changes.into_iter().filter(|c| c.shards_before != c.shards_after).collect(),
        ..Forecast::default()
    };
    (after, plan)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shards_are_spread_once_and_then_left_alone(
        shards in prop::collection::vec(0u32..12, 2..9),
        level in 0.2..1.2f64,
        seed in any::<u64>(),
    ) {
        prop_assume!(shards.iter().any(|held| *held > 0));
        let mut noise = fastrand::Rng::with_seed(seed);
        let mut world = World::nodes(shards.len() as u32);
        world.policy.checks.low = None;
        world.policy.scale_up.enabled = false;
        let (mut held, mut rebalanced) = (shards, 0);
        for _ in 0..1000 {
            let (after, plan) = spread(&held);
            let total: u32 = held.iter().sum();
            let mean = f64::from(total) / held.len() as f64;
            for (node, held) in world.seen.nodes.iter_mut().zip(&held) {
                let cpu = level * f64::from(*held) / mean.max(1.0) * (0.9 + 0.2 * noise.f64());
                node.values.insert(Signal::Cpu, cpu);
                (node.load, node.bytes) = (Some(cpu / 0.75), Some(u64::from(*held) << 20));
            }
            world.outlook.rebalance = plan;
            let decision = world.check();
            if decision.action == (Action::Rebalance {}) {
                prop_assert!(held != after, "a plan that moves nothing began: {}", explain(&decision));
                held = after;
                rebalanced += 1;
                let ended = operation(Kind::Rebalance, OperationState::Succeeded, Trigger::Hotspot);
                world.memory.operation_ended(&ended, world.seen.at);
            }
        }
        prop_assert!(rebalanced <= 1, "{} times, {:?}", rebalanced, held);
    }
}
