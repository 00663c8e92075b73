//! Plans for large clusters: shards of mixed sizes, two copies each. To stay below: 100 ms for 1,000 shards on 100 nodes, 5 s for
//! 10,000 on 1,000. The outlook is what each check of a pool computes.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vecscale::model::{Experience, Inventory, Member, NodeId, Replica, ReplicaState, ShardId};
use vecscale::operate::placement::{Fixed, Placing};
use vecscale::operate::shards::{outlook, plan_drain, plan_fill};

fn node(n: usize) -> NodeId {
    NodeId::new(&format!("n{n:04}")).expect("an id")
}

/// Two copies of each shard, on the emptiest of the first `holding` nodes, or anywhere among them.
fn cluster(nodes: usize, holding: usize, shards: u32, even: bool) -> Inventory {
    let mut dice = fastrand::Rng::with_seed(7);
    let mut held = vec![0u64; holding];
    let mut replicas = Vec::new();
    for shard in 0..shards {
        let normal: f64 = (0..12).map(|_| dice.f64()).sum::<f64>() - 6.0;
        let bytes = ((1u64 << 30) as f64 * (0.6 * normal).exp()) as u64;
        let first = if even { (0..holding).min_by_key(|n| held[*n]).expect("a node") } else { dice.usize(..holding) };
        let second = (first + dice.usize(1..holding)) % holding;
        for n in [first, second] {
            held[n] += bytes;
            let shard = ShardId { collection: "docs".into(), shard };
            replicas.push(Replica { shard, node: node(n), bytes, vectors: bytes / 4096, state: ReplicaState::Active });
        }
    }
    let members = (0..nodes).map(|n| Member::new(node(n), "http://10.0.0.1:6333".into())).collect();
    Inventory { members, shards: replicas, ..Inventory::default() }
}

fn planner(criterion: &mut Criterion) {
    let placing = Placing::default();
    let mut group = criterion.benchmark_group("planner");
    group.sample_size(10);
    for (shards, nodes) in [(1_000, 100), (10_000, 1_000)] {
        let size = format!("{shards} shards on {nodes} nodes");
        let skewed = cluster(nodes, nodes, shards, false);
        group.bench_function(BenchmarkId::new("even out", &size), |bench| {
            bench.iter(|| black_box(plan_fill(&skewed, &[], &Fixed::new(), &placing)));
        });
        let grown = cluster(nodes, nodes * 9 / 10, shards, true);
        let new: Vec<NodeId> = (nodes * 9 / 10..nodes).map(node).collect();
        group.bench_function(BenchmarkId::new("fill a tenth", &size), |bench| {
            bench.iter(|| black_box(plan_fill(&grown, &new, &Fixed::new(), &placing)));
        });
        group.bench_function(BenchmarkId::new("drain", &size), |bench| {
            bench.iter(|| black_box(plan_drain(&skewed, &node(0), &placing)));
        });
        let loads: BTreeMap<NodeId, Option<f64>> = (0..nodes).map(|n| (node(n), None)).collect();
        group.bench_function(BenchmarkId::new("outlook", &size), |bench| {
            bench.iter(|| black_box(outlook(Some(&skewed), &loads, &Experience::default(), &placing)));
        });
    }
    group.finish();
}

criterion_group!(benches, planner);
criterion_main!(benches);
