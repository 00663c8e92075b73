//! Plans of small random clusters against the cheapest that a solver finds at the same balance.

use good_lp::{Expression, ProblemVariables, Solution, SolverModel, Variable, constraint, microlp, variable};

use super::*;
use crate::operate::placement::layout::{BYTES, COUNT};
use crate::operate::placement::limits::Limits;

/// A plan may move this much more than the cheapest.
const NEAR: f64 = 1.10;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Goal {
    Fill,
    Even,
    Drain,
}

#[derive(Debug)]
struct Instance {
    goal: Goal,
    inventory: Inventory,
    placing: Placing,
}

/// 2 to 6 nodes, 4 to 14 shards of one or two copies, equal or of mixed sizes, with or without zones. Before a fill and a
/// drain the cluster is about even, as it would be; before evening out it is as chance has it.
fn instance(seed: u64) -> Instance {
    let mut dice = fastrand::Rng::with_seed(seed);
    let nodes = dice.usize(2..=6);
    let shards = dice.u32(4..=14);
    let goal = [Goal::Fill, Goal::Even, Goal::Drain][dice.usize(0..3)];
    let holding = if goal == Goal::Fill { nodes - 1 } else { nodes };
    let copies = dice.usize(1..=2).min(holding);
    let spread = [0.0, 0.6, 1.1][dice.usize(0..3)];
    let mut inventory = cluster(nodes, &[]);
    for number in 0..shards {
        let normal: f64 = (0..12).map(|_| dice.f64()).sum::<f64>() - 6.0;
        let bytes = (10_000.0 * (spread * normal).exp()) as u64;
        let mut places: Vec<usize> = (1..=holding).collect();
        dice.shuffle(&mut places);
        if goal != Goal::Even {
            places.sort_by_key(|n| inventory.on(&node(*n)).map(|r| r.bytes).sum::<u64>());
        }
        inventory.shards.extend(places[..copies].iter().map(|n| replica(number, *n, bytes)));
    }
    let mut placing = if dice.bool() && nodes > 3 {
        let zones: Vec<&str> = (0..nodes).map(|n| ["a", "b", "c"][n % (1 + nodes / 2).min(3)]).collect();
        zoned(&zones)
    } else {
        Placing::default()
    };
    placing.rules.strategy = Strategy::ALL[dice.usize(0..3)];
    Instance { goal, inventory, placing }
}

/// The least bytes that any placement moves which is as even as `after`, by the same rules: no node is fuller than its
/// fullest, and (with `both_sides`) none of those to be filled is left emptier, as far as it was to be filled.
fn least(instance: &Instance, after: &Inventory, both_sides: bool) -> f64 {
    let Instance { goal, inventory, placing } = instance;
    let (before, after) = (Layout::of(inventory, placing), Layout::of(after, placing));
    let victim = (*goal == Goal::Drain).then_some(0);
    let slack = if *goal == Goal::Fill { placing.rules.band } else { spread::LEFT_ALONE };
    let limits = Limits::of(&before, victim, slack);
    let nodes = before.nodes.len();
    let most = [COUNT, BYTES].map(|d| after.nodes.iter().map(|n| n.weight[d]).max().unwrap_or(0));
    let receives = |n: usize| match goal {
        Goal::Fill => n == nodes - 1,
        Goal::Even => true,
        Goal::Drain => n != 0,
    };
    let mut vars = ProblemVariables::new();
    let holds: Vec<Vec<Variable>> = before.shards.iter().map(|_| vars.add_vector(variable().binary(), nodes)).collect();
    let bytes: Vec<f64> = before.shards.iter().map(|s| before.copies[s.copies[0]].replica.bytes as f64).collect();
    let places = || (0..holds.len()).flat_map(|s| (0..nodes).map(move |n| (s, n)));
    let new = places().filter(|&(s, n)| !before.shards[s].holders.contains(&n));
    let cost: Expression = new.map(|(s, n)| bytes[s] * holds[s][n]).sum();
    let zones = before.zones(victim);
    let mut crowds: Vec<(usize, usize, Variable)> = Vec::new();
    if zones > 1 {
        for s in 0..holds.len() {
            crowds.extend((0..zones).map(|z| (s, z, vars.add(variable().min(0)))));
        }
    }
    let mut model = vars.minimise(cost.clone()).using(microlp);
    for (s, shard) in before.shards.iter().enumerate() {
        model = model.with(constraint!(holds[s].iter().sum::<Expression>() == shard.copies.len() as f64));
        let allowed = |n: usize| n != victim.unwrap_or(nodes) && (receives(n) || shard.holders.contains(&n));
        for n in (0..nodes).filter(|&n| !allowed(n)) {
            model = model.with(constraint!(holds[s][n] <= 0));
        }
        if zones > 1 {
            let fair = shard.copies.len().div_ceil(zones) as f64;
            let mine = || crowds.iter().filter(|(of, ..)| *of == s);
            for (_, zone, over) in mine() {
                let inside = (0..nodes).filter(|&n| before.nodes[n].zone == Some(*zone));
                let held: Expression = inside.map(|n| holds[s][n]).sum();
                model = model.with(constraint!(held - *over <= fair));
            }
            let was = before.crowding(after.shards[s].copies.iter().map(|&c| after.copies[c].home), zones);
            model = model.with(constraint!(mine().map(|(.., over)| *over).sum::<Expression>() <= was as f64));
        }
    }
    for n in 0..nodes {
        let count: Expression = (0..holds.len()).map(|s| holds[s][n]).sum();
        let weight: Expression = (0..holds.len()).map(|s| bytes[s] * holds[s][n]).sum();
        for (d, held) in [(COUNT, count), (BYTES, weight)] {
            if limits.high[d] == u64::MAX {
                continue;
            }
            model = model.with(constraint!(held.clone() <= most[d] as f64));
            let filled = limits.low[d].min(after.nodes[n].weight[d]) as f64;
            if both_sides && receives(n) && *goal != Goal::Drain {
                model = model.with(constraint!(held >= filled));
            }
        }
    }
    model.solve().expect("the plan itself is a solution").eval(&cost)
}

/// The bytes moved over the least possible; `None` where nothing can be moved at all.
fn ratio(seed: u64, both_sides: bool) -> Option<f64> {
    let instance = instance(seed);
    let Instance { goal, inventory, placing } = &instance;
    let last = inventory.members.last().expect("two nodes at least").id.clone();
    let plan = match goal {
        Goal::Fill => fill(inventory, &[last], &Fixed::new(), placing),
        Goal::Even => fill(inventory, &[], &Fixed::new(), placing),
        Goal::Drain => drain(&Layout::of(inventory, placing), &node(1)).ok()?,
    };
    let after = carried_out(inventory, &plan.moves, placing, *goal != Goal::Drain);
    let moved: u64 = plan.moves.iter().map(|m| m.bytes).sum();
    assert!(plan.least_bytes <= moved, "seed {seed}");
    Some(if moved == 0 { 1.0 } else { moved as f64 / least(&instance, &after, both_sides).max(1.0) })
}

/// How many plans there were, and the mean and worst of their ratios.
fn all(seeds: std::ops::Range<u64>, both_sides: bool) -> (usize, f64, Vec<(f64, u64)>) {
    let mut ratios: Vec<(f64, u64)> = seeds.filter_map(|seed| Some((ratio(seed, both_sides)?, seed))).collect();
    ratios.sort_by(|a, b| b.0.total_cmp(&a.0));
    (ratios.len(), ratios.iter().map(|(ratio, _)| ratio).sum::<f64>() / ratios.len() as f64, ratios)
}

fn told(seeds: std::ops::Range<u64>) -> (usize, f64, f64) {
    let (plans, mean, ratios) = all(seeds, true);
    let worst: Vec<String> = ratios
        .iter()
        .filter(|(ratio, _)| *ratio > NEAR)
        .map(|(ratio, seed)| {
            let Instance { goal, inventory, placing } = instance(*seed);
            let (nodes, copies) = (inventory.members.len(), inventory.shards.len());
            let (strategy, zones) = (placing.rules.strategy.as_str(), placing.nodes.len());
            format!("seed {seed}: {goal:?} {strategy}, {copies} copies, {nodes} nodes, {zones} in zones: {ratio:.3}")
        })
        .collect();
    assert!(worst.is_empty(), "{} of {plans} are too dear:\n{}", worst.len(), worst.join("\n"));
    (plans, mean, ratios[0].0)
}

/// Prints, with `--nocapture`, how near 500 plans are.
#[test]
fn plans_are_near_the_optimum() {
    let (plans, mean, worst) = told(0..500);
    println!("{plans} plans, bytes over the least possible at the same balance: mean {mean:.4}, worst {worst:.4}");
}

/// What filling new nodes to the band costs over what would only keep the fullest node as full.
#[test]
#[ignore = "a figure, not a rule"]
fn against_the_fullest_node_alone() {
    let (plans, mean, ratios) = all(0..500, false);
    let within = ratios.iter().filter(|(ratio, _)| *ratio <= NEAR).count();
    println!("with the fullest node alone: mean {mean:.4}, {within} of {plans} within {NEAR}");
}
