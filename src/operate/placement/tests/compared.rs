//! Side by side with what others do: the best single move by count or by bytes, and consistent hashing.

use super::*;

/// What one way of placing comes to, as means over its instances.
#[derive(Clone, Copy, Debug, Default)]
struct Means {
    /// Bytes of the fullest node over the mean.
    ratio: f64,
    /// Bytes moved, as a share of all.
    moved: f64,
    moves: f64,
}

const INSTANCES: u64 = 10;

/// Two copies of each shard on `holding` nodes, about even as a planner would have left it.
fn instance(nodes: usize, holding: usize, shards: u32, spread: f64, seed: u64) -> Inventory {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut inventory = cluster(nodes, &[]);
    for number in 0..shards {
        let normal: f64 = (0..12).map(|_| dice.f64()).sum::<f64>() - 6.0;
        let bytes = (1e6 * (spread * normal).exp()) as u64;
        let mut places: Vec<usize> = (1..=holding).collect();
        dice.shuffle(&mut places);
        places.sort_by_key(|n| inventory.on(&node(*n)).map(|r| r.bytes).sum::<u64>());
        inventory.shards.extend(places[..2].iter().map(|n| replica(number, *n, bytes)));
    }
    let placing = Placing::default();
    let old: Vec<_> = inventory.members.split_off(holding);
    let moves = fill(&inventory, &[], &Fixed::new(), &placing).moves;
    inventory = carried_out(&inventory, &moves, &placing, true);
    inventory.members.extend(old);
    inventory
}

/// From the heaviest to the lightest, whatever evens out most, until they differ by at most a tenth of the mean.
fn greedy(inventory: &Inventory, weight: fn(&Replica) -> u64) -> Vec<Move> {
    let (mut now, mut moves) = (inventory.clone(), Vec::new());
    loop {
        let on = |n: &NodeId| now.on(n).map(weight).sum::<u64>();
        let all: BTreeMap<NodeId, u64> = now.members.iter().map(|m| (m.id.clone(), on(&m.id))).collect();
        let held = |n: &NodeId| all[n];
        let mean = now.shards.iter().map(weight).sum::<u64>() as f64 / now.members.len() as f64;
        let mut best: Option<(u64, usize, NodeId)> = None;
        for (i, replica) in now.shards.iter().enumerate() {
            for to in now.members.iter().map(|m| &m.id) {
                let gap = held(&replica.node).saturating_sub(held(to));
                let helps = gap > weight(replica) && gap as f64 > 0.1 * mean;
                if !helps || now.on(to).any(|r| r.shard == replica.shard) {
                    continue;
                }
                let gain = weight(replica) * (gap - weight(replica));
                if best.as_ref().is_none_or(|(most, ..)| gain > *most) {
                    best = Some((gain, i, to.clone()));
                }
            }
        }
        let Some((_, i, to)) = best else { return moves };
        moves.push(report::moved(&now.shards[i], &to));
        now.shards[i].node = to;
    }
}

/// Each shard on the two nodes that come first in an order of its own: what changes when nodes come is all that moves.
fn hashed(inventory: &Inventory, holding: usize) -> (Inventory, Vec<Move>) {
    let rank = |shard: u32, n: usize| {
        let mut dice = fastrand::Rng::with_seed(u64::from(shard) * 1_000 + n as u64);
        (0..8).fold(0, |_, _| dice.u64(..))
    };
    let places = |shard: u32, nodes: usize| {
        let mut order: Vec<usize> = (1..=nodes).collect();
        order.sort_by_key(|n| rank(shard, *n));
        [order[0], order[1]]
    };
    let (mut after, mut moves) = (inventory.clone(), Vec::new());
    let all = inventory.members.len();
    for pair in after.shards.chunks_mut(2) {
        let number = pair[0].shard.shard;
        let (old, new) = (places(number, holding), places(number, all));
        let come = new.iter().filter(|n| !old.contains(n));
        moves.extend(come.map(|n| report::moved(&pair[0], &node(*n))));
        pair.iter_mut().zip(new).for_each(|(replica, n)| replica.node = node(n));
    }
    (after, moves)
}

fn after(inventory: &Inventory, moves: &[Move]) -> Inventory {
    let mut after = inventory.clone();
    for m in moves {
        let copy = after.shards.iter_mut().find(|r| r.shard == m.shard && r.node == m.from);
        copy.expect("a copy").node = m.to.clone();
    }
    after
}

fn add(means: &mut Means, after: &Inventory, moves: &[Move]) {
    let total: u64 = after.shards.iter().map(|r| r.bytes).sum();
    let held = |m: &Member| after.on(&m.id).map(|r| r.bytes).sum::<u64>();
    let fullest = after.members.iter().map(held).max().unwrap_or(0);
    let part = 1.0 / INSTANCES as f64;
    means.ratio += part * (fullest * after.members.len() as u64) as f64 / total as f64;
    means.moved += part * moves.iter().map(|m| m.bytes).sum::<u64>() as f64 / total as f64;
    means.moves += part * moves.len() as f64;
}

#[test]
fn fewer_bytes_than_greedy_and_more_even_than_hashing() {
    println!(
        "fullest node over the mean / bytes moved / moves; means of {INSTANCES} clusters, two copies of each shard"
    );
    for (name, holding, shards, spread) in [
        ("3 to 4 nodes, 12 shards, mixed", 3, 12, 0.6),
        ("3 to 4 nodes, 12 shards, very mixed", 3, 12, 1.1),
        ("6 to 7 nodes, 24 shards, mixed", 6, 24, 0.6),
        ("10 to 11 nodes, 40 shards, mixed", 10, 40, 0.6),
    ] {
        let mut means = [Means::default(); 4];
        for seed in 0..INSTANCES {
            let inventory = instance(holding + 1, holding, shards, spread, seed);
            let ours = fill(&inventory, &[node(holding + 1)], &Fixed::new(), &by(Strategy::BySize)).moves;
            let count = greedy(&inventory, |_| 1);
            let size = greedy(&inventory, |replica| replica.bytes);
            for (i, moves) in [ours, count, size].iter().enumerate() {
                add(&mut means[i], &after(&inventory, moves), moves);
            }
            let (hashed, moves) = hashed(&inventory, holding);
            add(&mut means[3], &hashed, &moves);
        }
        println!("{name}");
        for (way, m) in ["planner", "greedy by count", "greedy by size", "rendezvous hashing"].iter().zip(means) {
            println!("  {way:<18} {:.3} / {:.1} % / {:.1}", m.ratio, 100.0 * m.moved, m.moves);
        }
        let [ours, count, size, hashed] = means;
        assert!(ours.moved <= size.moved, "{name}: {ours:?} against greedy by size {size:?}");
        assert!(ours.ratio < hashed.ratio && ours.ratio < count.ratio, "{name}: {means:?}");
    }
}
