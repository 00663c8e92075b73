//! What the outlook says of each change.

use super::*;
use crate::operate::placement::Rules;
use crate::operate::placement::tests::{cluster, node};

const ALL: [(usize, f64); 4] = [(1, 0.1), (2, 0.9), (3, 0.2), (4, 0.8)];

fn loads() -> BTreeMap<NodeId, Option<f64>> {
    ALL.map(|(n, load)| (node(n), Some(load))).into()
}

fn order(outlook: &Outlook) -> Vec<&str> {
    outlook.scale_down.iter().map(|drain| drain.node.as_str()).collect()
}

#[test]
fn victims_are_ordered_by_bytes_then_leader_then_load() {
    let mut inventory = cluster(4, &[(100, &[1]), (50, &[2]), (50, &[3]), (10, &[4])]);
    let experience = Experience { lead_times: Vec::new(), bytes_per_second: Some(10.0) };
    let seen = outlook(Some(&inventory), &loads(), &experience, &Placing::default());
    let expected = [("n4", 1.0), ("n3", 5.0), ("n2", 5.0), ("n1", 10.0)];
    let order_and_time: Vec<_> =
        seen.scale_down.iter().map(|d| (d.node.as_str(), d.forecast.seconds.expect("the speed is known"))).collect();
    assert_eq!(order_and_time, expected);
    inventory.members[2].leader = true;
    assert_eq!(order(&outlook(Some(&inventory), &loads(), &experience, &Placing::default())), ["n4", "n2", "n3", "n1"]);
    let mut pinned = Rules::default();
    pinned.pins.insert("docs/3".into());
    let placing = Placing { rules: pinned, ..Placing::default() };
    let seen = outlook(Some(&inventory), &loads(), &experience, &placing);
    assert_eq!(order(&seen), ["n2", "n3", "n1", "n4"], "what cannot be emptied comes last");
    assert_eq!(seen.scale_down[3].impossible.as_deref(), Some("docs/3 is pinned, so it stays on n4"));
}

#[test]
fn without_data_the_least_loaded_goes() {
    let seen = outlook(None, &loads(), &Experience::default(), &Placing::default());
    assert_eq!(order(&seen), ["n1", "n3", "n4", "n2"]);
    assert_eq!(seen.scale_up.seconds, Some(0.0));
}

#[test]
fn each_change_is_told_in_full() {
    let inventory = cluster(4, &[(100, &[1]), (100, &[1]), (100, &[1]), (100, &[2])]);
    let seen = outlook(Some(&inventory), &loads(), &Experience::default(), &Placing::default());
    assert_eq!((seen.rebalance.shards, seen.rebalance.bytes, seen.rebalance.least_bytes), (2, 200, 200));
    assert_eq!(seen.rebalance.moves.len(), 2);
    assert_eq!(seen.scale_up.shards, 1, "only onto the new node");
    assert_eq!(seen.scale_up.nodes[1].node.as_str(), "new-1");
    let first = &seen.scale_down[0];
    assert_eq!((first.node.as_str(), first.forecast.moves.len()), ("n3", 0));
    assert_eq!(seen.scale_down[3].forecast.nodes[0].bytes_after, 0, "all that n1 had has gone");
}

#[test]
fn who_cannot_be_chosen_comes_last_and_uses_up_no_plan() {
    let sizes: Vec<(u64, &[usize])> = vec![(10, &[1]), (20, &[2]), (30, &[3]), (40, &[4]), (50, &[5]), (60, &[6])];
    let mut inventory = cluster(6, &sizes);
    (inventory.members[0].cordoned, inventory.members[2].healthy) = (true, false);
    let loads = (1..=6).map(|n| (node(n), None)).collect();
    let seen = outlook(Some(&inventory), &loads, &Experience::default(), &Placing::default());
    assert_eq!(order(&seen)[..4], ["n2", "n4", "n5", "n6"]);
    assert_eq!(order(&seen)[4..], ["n1", "n3"]);
    let in_full = seen.scale_down.iter().map(|drain| drain.forecast.moves.len());
    assert_eq!(in_full.collect::<Vec<_>>()[..4], [1, 1, 1, 1]);
}
