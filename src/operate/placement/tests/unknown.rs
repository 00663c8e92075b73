//! What holds for every cluster.

use proptest::prelude::*;

use super::*;
use crate::operate::placement::Strategy;

prop_compose! {
    fn any_cluster()(nodes in 2usize..8)(
        nodes in Just(nodes),
        shards in prop::collection::vec((0u64..10_000, prop::collection::btree_set(1..=nodes, 1..=3.min(nodes))), 0..24),
        closed in prop::collection::vec((any::<bool>(), any::<bool>(), 0..5u8), nodes),
    ) -> Inventory {
        let layout: Vec<(u64, Vec<usize>)> = shards.into_iter().map(|(b, on)| (b, on.into_iter().collect())).collect();
        let borrowed: Vec<(u64, &[usize])> = layout.iter().map(|(b, on)| (*b, on.as_slice())).collect();
        let mut inventory = cluster(nodes, &borrowed);
        for (member, (cordoned, healthy, rarely)) in inventory.members.iter_mut().zip(closed) {
            if rarely == 0 {
                (member.cordoned, member.healthy) = (cordoned, healthy);
            }
        }
        inventory
    }
}

prop_compose! {
    fn any_placing()(
        strategy in prop::sample::select(Strategy::ALL.to_vec()),
        zones in prop::option::of(prop::collection::vec(0..3usize, 8)),
        rooms in prop::collection::vec(prop::option::weighted(0.2, 0u64..40_000), 8),
        pinned in prop::option::weighted(0.3, 0..24u32),
    ) -> Placing {
        let facts = |(n, capacity): (usize, Option<u64>)| {
            let zone = zones.as_ref().map(|zones| format!("z{}", zones[n]));
            (node(n + 1), Facts { zone, capacity, load: None })
        };
        let nodes = rooms.into_iter().enumerate().map(facts).collect();
        let pins = pinned.iter().map(|n| shard(*n).to_string()).collect();
        Placing { rules: Rules { strategy, pins, ..Rules::default() }, nodes, ..Placing::default() }
    }
}

/// No shard's copies are more crowded than they were.
fn no_more_crowded(before: &Inventory, after: &Inventory, placing: &Placing) {
    let shards: BTreeSet<&ShardId> = before.shards.iter().map(|r| &r.shard).collect();
    for shard in shards {
        assert!(crowded(after, placing, shard) <= crowded(before, placing, shard), "{shard}");
    }
}

fn bytes(moves: &[Move]) -> u64 {
    moves.iter().map(|m| m.bytes).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_drain_empties_the_node_or_says_why_not(inventory in any_cluster(), placing in any_placing()) {
        let victim = inventory.members[0].id.clone();
        let layout = Layout::of(&inventory, &placing);
        let planned = drain(&layout, &victim);
        prop_assert_eq!(planned.is_ok(), possible(&layout, &victim).is_ok());
        match planned {
            Ok(plan) => {
                let after = carried_out(&inventory, &plan.moves, &placing, false);
                prop_assert_eq!(after.on(&victim).count(), 0);
                prop_assert_eq!(after.shards.len(), inventory.shards.len());
                prop_assert_eq!(possible(&layout, &victim), Ok((plan.moves.len() as u32, bytes(&plan.moves))));
                prop_assert_eq!(drain(&layout, &victim), Ok(plan));
            }
            Err(Infeasible::NoPlace { shard, why }) if !why.contains("room") => {
                let open = inventory.members.iter().filter(|m| m.id != victim && m.healthy && !m.cordoned);
                let free = open.filter(|m| inventory.on(&m.id).all(|r| r.shard != shard)).count();
                prop_assert_eq!(free, 0, "there was a place for {}", shard);
            }
            Err(Infeasible::NoPlace { .. }) => {
                let limited = placing.nodes.values().any(|facts| facts.capacity.is_some());
                prop_assert!(limited);
            }
            Err(Infeasible::Pinned { shard, .. }) => prop_assert!(placing.rules.pinned(&shard)),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn a_fill_never_makes_it_worse_and_comes_to_rest(
        inventory in any_cluster(),
        placing in any_placing(),
        onto_last: bool,
    ) {
        let last = inventory.members.last().filter(|_| onto_last).map(|m| m.id.clone());
        let new: Vec<NodeId> = last.into_iter().collect();
        let plan = fill(&inventory, &new, &Fixed::new(), &placing);
        prop_assert_eq!(&fill(&inventory, &new, &Fixed::new(), &placing), &plan, "twice the same");
        let after = carried_out(&inventory, &plan.moves, &placing, true);
        no_more_crowded(&inventory, &after, &placing);
        prop_assert!(plan.moves.iter().all(|m| new.is_empty() || new.contains(&m.to)));
        prop_assert!(plan.least_bytes <= bytes(&plan.moves));
        if let Some(balance) = plan.balance {
            prop_assert!(balance.ratio_after >= balance.ratio_reachable - 1e-9, "{:?}", balance);
        }
        // Planned anew after each first move, as the runner does, it ends: a copy is moved once at most.
        let (mut now, mut fixed, mut turns) = (inventory.clone(), Fixed::new(), 0);
        while let Some(first) = fill(&now, &new, &fixed, &placing).moves.into_iter().next() {
            now = carried_out(&now, std::slice::from_ref(&first), &placing, true);
            fixed.insert((first.shard, first.to));
            turns += 1;
            prop_assert!(turns <= inventory.shards.len());
        }
        no_more_crowded(&inventory, &now, &placing);
    }

    #[test]
    fn what_is_made_anew_is_legal(inventory in any_cluster(), placing in any_placing()) {
        let mut inventory = inventory;
        inventory.members[0].healthy = false;
        inventory.wanted_replicas.insert("docs".into(), 2);
        let dead = inventory.members[0].id.clone();
        if let Ok(copies) = restore(&inventory, &dead, &placing) {
            for copy in &copies {
                let target = inventory.member(&copy.to).expect("a member");
                prop_assert!(target.healthy && !target.cordoned && copy.from != dead);
                prop_assert!(inventory.on(&copy.to).all(|r| r.shard != copy.shard), "two copies on one node");
                inventory.shards.push(Replica { node: copy.to.clone(), ..replica(copy.shard.shard, 1, copy.bytes) });
            }
            prop_assert_eq!(restore(&inventory, &dead, &Placing::default()), Ok(Vec::new()), "nothing is left to do");
        }
    }
}
