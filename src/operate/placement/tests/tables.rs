//! The rules, case by case.

use super::*;
use crate::model::Transfer;

fn filled(inventory: &Inventory, new: &[usize], placing: &Placing) -> Vec<String> {
    let new: Vec<NodeId> = new.iter().map(|n| node(*n)).collect();
    let moves = fill(inventory, &new, &Fixed::new(), placing).moves;
    carried_out(inventory, &moves, placing, true);
    shown(&moves)
}

fn drained(inventory: &Inventory, victim: usize, placing: &Placing) -> Result<Vec<String>, String> {
    let plan = drain(&Layout::of(inventory, placing), &node(victim)).map_err(|why| why.to_string())?;
    carried_out(inventory, &plan.moves, placing, false);
    Ok(shown(&plan.moves))
}

#[test]
fn a_new_node_gets_its_share() {
    let even = cluster(4, &[(100, &[1]), (100, &[1]), (100, &[2]), (100, &[2]), (100, &[3]), (100, &[3])]);
    assert_eq!(filled(&even, &[4], &Placing::default()), ["0 n1>n4"]);
    let empty = cluster(2, &[(0, &[1]), (0, &[1]), (0, &[1]), (0, &[1])]);
    for strategy in Strategy::ALL {
        assert_eq!(filled(&empty, &[2], &by(strategy)).len(), 2, "empty shards are spread by count");
        assert!(filled(&cluster(3, &[]), &[], &by(strategy)).is_empty());
    }
}

#[test]
fn each_strategy_evens_out_its_own_measure() {
    // n1 has one large and four small, n2 two middling.
    let uneven = cluster(2, &[(80, &[1]), (10, &[1]), (10, &[1]), (10, &[1]), (10, &[1]), (40, &[2]), (40, &[2])]);
    for (strategy, expected) in [
        (Strategy::ByCount, &["1 n1>n2"][..]),
        (Strategy::BySize, &["1 n1>n2", "2 n1>n2"]),
        (Strategy::ByCountAndSize, &["1 n1>n2", "2 n1>n2"]),
    ] {
        let said = filled(&uneven, &[], &by(strategy));
        assert_eq!(said, expected, "{strategy:?}");
    }
}

#[test]
fn no_copy_goes_where_one_may_yet_be_dropped() {
    let mut cluster = cluster(4, &[(100, &[1, 4])]);
    cluster.wanted_replicas.insert("docs".into(), 2);
    let given_up = |nodes: &[usize]| {
        let given_up = nodes.iter().map(|n| (shard(0), node(*n))).collect();
        Placing { given_up, ..Placing::default() }
    };
    assert_eq!(drained(&cluster, 1, &given_up(&[])), Ok(vec!["0 n1>n2".into()]));
    assert_eq!(drained(&cluster, 1, &given_up(&[2])), Ok(vec!["0 n1>n3".into()]));
    let restored = |placing: &Placing| restore(&cluster, &node(1), placing).map(|moves| shown(&moves));
    assert_eq!(restored(&given_up(&[2])), Ok(vec!["0 n4>n3".into()]));
    let why = "docs/0 has no legal place elsewhere: of the 3 other open nodes each has a copy of it, or was asked to drop \
               one and may yet do so (n2, n3)";
    assert_eq!(drained(&cluster, 1, &given_up(&[2, 3])), Err(why.into()));
    assert_eq!(restored(&given_up(&[2, 3])).map_err(|no| no.to_string()), Err(why.into()));
    assert_eq!(restored(&given_up(&[4])), Ok(vec!["0 n4>n2".into(), "0 n4>n3".into()]), "nor is that one to rely on");
}

#[test]
fn what_may_not_move_stays() {
    let base = cluster(3, &[(100, &[1, 2]), (100, &[1, 2]), (100, &[1, 2])]);
    assert!(!filled(&base, &[3], &Placing::default()).is_empty());
    let mut cordoned = base.clone();
    cordoned.members[2].cordoned = true;
    let mut ill = base.clone();
    ill.members[2].healthy = false;
    let mut partial = base.clone();
    partial.shards.iter_mut().for_each(|r| r.state = ReplicaState::Partial);
    let mut moving = base.clone();
    moving.transfers.extend((0..3).map(|n| Transfer {
        shard: shard(n),
        from: node(1),
        to: node(3),
        done_bytes: None,
        is_move: true,
    }));
    let mut held = base.clone();
    held.shards.extend((0..3).map(|n| Replica { state: ReplicaState::Partial, ..replica(n, 3, 0) }));
    for (what, inventory) in
        [("cordoned", cordoned), ("ill", ill), ("partial", partial), ("moving", moving), ("held", held)]
    {
        assert!(filled(&inventory, &[3], &Placing::default()).is_empty(), "{what}");
    }
    let closed = Placing { closed: [node(3)].into(), ..Placing::default() };
    assert!(filled(&base, &[3], &closed).is_empty() && filled(&base, &[], &closed).is_empty(), "closed");
    assert_eq!(drained(&base, 1, &closed).map(|moves| moves.len()).unwrap_or(0), 0, "nor is it emptied onto");
    let given_up = Placing { given_up: (0..3).map(|n| (shard(n), node(3))).collect(), ..Placing::default() };
    assert!(filled(&base, &[3], &given_up).is_empty(), "nothing goes back to a node that gave it up");
    let holding = cluster(3, &[(100, &[3])]);
    assert_eq!(drained(&holding, 3, &closed).map(|moves| moves.len()), Ok(1), "but it may be emptied itself");
    let pins = |pins: &[&str]| {
        let pins = pins.iter().map(|pin| pin.to_string()).collect();
        Placing { rules: Rules { pins, ..Rules::default() }, ..Placing::default() }
    };
    assert!(filled(&base, &[3], &pins(&["docs"])).is_empty(), "a pinned collection");
    assert!(!filled(&base, &[3], &pins(&["docs/0", "other"])).is_empty(), "the other shards may move");
    assert!(filled(&base, &[3], &pins(&["docs/0", "docs/1", "docs/2"])).is_empty(), "each shard pinned");
    let fixed: Fixed = base.shards.iter().map(|r| (r.shard.clone(), r.node.clone())).collect();
    assert!(fill(&base, &[node(3)], &fixed, &Placing::default()).moves.is_empty(), "all moved already");
}

#[test]
fn a_transfer_counts_where_it_will_end() {
    let mut filling = cluster(2, &[(100, &[1]), (100, &[1]), (100, &[1]), (100, &[1])]);
    let transfer = |n| Transfer { shard: shard(n), from: node(1), to: node(2), done_bytes: Some(10), is_move: true };
    assert_eq!(filled(&filling, &[2], &Placing::default()).len(), 2);
    filling.transfers.push(transfer(0));
    assert_eq!(filled(&filling, &[2], &Placing::default()).len(), 1, "one is on its way");
    filling.transfers.push(transfer(1));
    assert_eq!(filled(&filling, &[2], &Placing::default()).len(), 0, "both are");
}

#[test]
fn zones_keep_copies_apart() {
    // Two copies in zones a and b each: n4 in zone a may only take what zone a has now.
    let placing = zoned(&["a", "b", "b", "a"]);
    let spread = cluster(4, &[(100, &[1, 2]), (100, &[1, 3]), (100, &[1, 2]), (100, &[1, 3])]);
    let moved = filled(&spread, &[4], &placing);
    assert_eq!(moved.len(), 2, "{moved:?}");
    assert!(moved.iter().all(|m| m.contains("n1>n4")), "{moved:?}");
    // The only place in the other zone is the victim's own: then the same zone is better than no place.
    let both = cluster(3, &[(100, &[1, 2])]);
    assert_eq!(drained(&both, 2, &zoned(&["a", "b", "a"])), Ok(vec!["0 n2>n3".into()]));
    assert_eq!(drained(&both, 2, &zoned(&["a", "b", "b"])), Ok(vec!["0 n2>n3".into()]));
    let choice = cluster(4, &[(100, &[1, 2]), (500, &[4])]);
    assert_eq!(drained(&choice, 2, &zoned(&["a", "b", "a", "b"])), Ok(vec!["0 n2>n4".into()]), "n3 is emptier");
}

#[test]
fn a_drain_that_cannot_end_is_not_begun() {
    let none = Placing::default();
    let full = cluster(3, &[(100, &[1, 2, 3])]);
    let why = "docs/0 has no legal place elsewhere: each of the 2 other open nodes has a copy of it";
    assert_eq!(drained(&full, 3, &none), Err(why.to_string()));
    let mut dead = cluster(3, &[(100, &[1, 3])]);
    dead.shards[1].state = ReplicaState::Dead;
    let why = "docs/0 on n3 is not an active copy, so nothing can be copied from it";
    assert_eq!(drained(&dead, 3, &none), Err(why.to_string()));
    assert_eq!(drained(&full, 9, &none), Err("n9 is not a member of the cluster".to_string()));
    let mut pinned = Placing::default();
    pinned.rules.pins.insert("docs/0".into());
    let why = "docs/0 is pinned, so it stays on n1".to_string();
    assert_eq!(drained(&cluster(2, &[(100, &[1])]), 1, &pinned), Err(why));
}

#[test]
fn a_drain_is_proven_as_a_whole() {
    let room = |rooms: &[u64]| {
        let facts = |(n, room): (usize, &u64)| (node(n + 2), Facts { capacity: Some(*room), ..Facts::default() });
        Placing { nodes: rooms.iter().enumerate().map(facts).collect(), ..Placing::default() }
    };
    let cluster = cluster(3, &[(60, &[1]), (50, &[1]), (40, &[1]), (30, &[1])]);
    assert_eq!(drained(&cluster, 1, &room(&[1000, 1000])).map(|moves| moves.len()), Ok(4));
    // 60 and 30 with half of 60 beside them, and 50 and 40 with half of 50: nothing else fits, least full first does not.
    assert_eq!(drained(&cluster, 1, &room(&[120, 115])).map(|moves| moves.len()), Ok(4));
    let why = "docs/0 has no legal place elsewhere: the other nodes have no room for all that n1 holds (180 B)";
    assert_eq!(drained(&cluster, 1, &room(&[119, 114])), Err(why.to_string()), "each has a place, all have not");
    let possible = possible(&Layout::of(&cluster, &room(&[119, 114])), &node(1));
    assert!(possible.is_err(), "the ranking says so too");
}

#[test]
fn what_a_dead_node_held_is_made_anew_elsewhere() {
    let none = Placing::default();
    let mut cluster = cluster(4, &[(100, &[1, 3]), (300, &[2, 3]), (50, &[1, 2])]);
    cluster.wanted_replicas.insert("docs".into(), 2);
    cluster.members[2].healthy = false;
    let copies = restore(&cluster, &node(3), &none).expect("every shard lives elsewhere");
    assert_eq!(shown(&copies), ["1 n2>n4", "0 n1>n4"], "largest first, onto the empty node; docs/2 lost nothing");
    let apart = restore(&cluster, &node(3), &zoned(&["a", "b", "b", "a"])).expect("each has a place");
    assert_eq!(shown(&apart), ["1 n2>n4", "0 n1>n2"], "docs/0 is in zone a already");
    let mut restored = cluster.clone();
    restored.shards.extend([replica(0, 4, 100), replica(1, 4, 300)]);
    assert_eq!(restore(&restored, &node(3), &none), Ok(Vec::new()));
    let mut forgotten = cluster.clone();
    forgotten.members.remove(2);
    assert_eq!(restore(&forgotten, &node(3), &none), Ok(copies), "though no member any more");
    let mut alone = cluster.clone();
    alone.shards.push(replica(7, 3, 1));
    assert!(matches!(restore(&alone, &node(3), &none), Err(Infeasible::OnlyCopy { .. })));
    let mut small = none.clone();
    small.nodes.extend([1, 2, 4].map(|n| (node(n), Facts { capacity: Some(249), ..Facts::default() })));
    assert!(matches!(restore(&cluster, &node(3), &small), Err(Infeasible::NoPlace { .. })));
    let mut full = cluster;
    full.members[3].cordoned = true;
    full.members[0].healthy = false;
    assert!(matches!(restore(&full, &node(3), &none), Err(Infeasible::OnlyCopy { .. } | Infeasible::NoPlace { .. })));
}

/// `copies` equal ones, dealt out over the nodes in turn.
fn dealt(copies: usize, nodes: usize) -> Inventory {
    let mut inventory = cluster(nodes, &[]);
    inventory.shards = (0..copies).map(|c| replica(c as u32, c % nodes + 1, 1000)).collect();
    inventory
}

#[test]
fn equal_shards_make_stairs() {
    let cases: [(usize, usize, Option<u32>, Option<&str>); 7] = [
        (12, 3, Some(1), None),
        (12, 5, Some(1), None),
        (12, 6, Some(6), Some("12 shard copies on 6 nodes: with 7 the busiest node still holds 2")),
        (12, 4, Some(2), Some("12 shard copies on 4 nodes: with 5 the busiest node still holds 3")),
        (24, 8, Some(4), Some("24 shard copies on 8 nodes: with 9 the busiest node still holds 3")),
        (1, 3, None, Some("1 shard copy on 3 nodes: with 4 the busiest node still holds 1")),
        (0, 3, None, None),
    ];
    for (copies, nodes, useful, why) in cases {
        for strategy in Strategy::ALL {
            let (inventory, placing) = (dealt(copies, nodes), by(strategy));
            let seen = stairs(&inventory, &placing, &fill_more(&inventory, &placing, 1));
            let expected = crate::model::Stairs { useful, why: why.map(String::from) };
            assert_eq!(seen, expected, "{copies} on {nodes} {strategy:?}");
        }
    }
}

#[test]
fn a_plan_says_what_it_comes_to() {
    let even = cluster(4, &[(100, &[1]), (100, &[1]), (100, &[1]), (100, &[2]), (100, &[2]), (100, &[2])]);
    let plan = fill(&even, &[], &Fixed::new(), &by(Strategy::BySize));
    assert_eq!(plan.moves.len(), 2);
    assert_eq!(plan.least_bytes, 180, "what n1 and n2 have above the band");
    let balance = plan.balance.expect("there is something to spread");
    assert_eq!((balance.busiest_before, balance.busiest_after), (300.0, 200.0));
    assert_eq!((balance.ratio_before, balance.ratio_reachable), (2.0, 200.0 / 150.0));
    assert_eq!(balance.ratio_after, balance.ratio_reachable);
    let nodes: Vec<_> = plan.nodes.iter().map(|c| (c.node.as_str(), c.shards_before, c.bytes_after)).collect();
    assert_eq!(nodes, [("n1", 3, 200), ("n2", 3, 200), ("n3", 0, 100), ("n4", 0, 100)]);
    let out = drain(&Layout::of(&even, &by(Strategy::ByCount)), &node(1)).expect("room everywhere");
    let balance = out.balance.expect("there is something to spread");
    assert_eq!((out.least_bytes, balance.busiest_before, balance.busiest_after), (300, 3.0, 3.0));
}
