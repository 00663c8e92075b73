//! Bad luck in the middle of something, beyond the twelve facts.

use serde_json::{Value, json};

use super::{Stage, millis};

#[test]
fn the_target_calls_its_new_copy_dead_for_a_moment() {
    let mut stage = Stage::three();
    stage.cluster.bytes_per_second = 10_000;
    let (from, to) = stage.ends("alpha", 0);
    stage.transfer("replicate_shard", "alpha", 0, &from, &to);
    let local = |stage: &mut Stage| {
        let told = stage.get(&to, "/collections/alpha/cluster");
        let shards = told["local_shards"].as_array().expect("a list").clone();
        shards.into_iter().find(|s| s["shard_id"] == 0).expect("its new copy")
    };
    let first = local(&mut stage);
    assert_eq!((&first["state"], &first["points_count"]), (&json!("Dead"), &json!(0)));
    stage.wait(millis(60));
    assert_eq!(local(&mut stage)["state"], "Partial");
}

#[test]
fn the_source_lists_a_transfer_longest() {
    let mut stage = Stage::three();
    let (from, to) = stage.ends("alpha", 0);
    stage.transfer("replicate_shard", "alpha", 0, &from, &to);
    stage.settle(10.0);
    let listed = |stage: &mut Stage, node: &str| {
        let told = stage.get(node, "/collections/alpha/cluster");
        told["shard_transfers"].as_array().map(|listed| listed.len())
    };
    assert_eq!((listed(&mut stage, &from), listed(&mut stage, &to)), (Some(1), Some(0)));
    stage.wait(millis(120));
    assert_eq!(listed(&mut stage, &from), Some(0));
}

#[test]
fn a_restarted_node_gets_back_what_it_missed() {
    let mut stage = Stage::three();
    stage.kill("n3");
    stage.wait(millis(2_000));
    assert_eq!(stage.upsert("n1", "beta", 5000..5100).status, 200);
    stage.wait(millis(60_000));
    stage.revive("n3");
    stage.wait(millis(300));
    assert_eq!(stage.ask("n3", "GET", "/readyz", Value::Null).status, 503);
    stage.wait(millis(8_000));
    assert!(stage.cluster.transfers().is_empty());
    let census = stage.cluster.census("beta");
    assert_eq!((census.points.len(), &census.differing, &census.lost), (1300, &vec![], &vec![]));
    assert!(census.copies.values().all(|copies| *copies == 2), "{census:?}");
    assert_eq!(stage.ask("n3", "GET", "/readyz", Value::Null).status, 200);
}

#[test]
fn recovery_is_one_at_a_time_on_each_node() {
    let mut stage = Stage::three();
    stage.kill("n3");
    stage.upsert("n1", "beta", 5000..5100);
    stage.revive("n3");
    for _ in 0..200 {
        stage.wait(millis(50));
        assert!(stage.cluster.transfers().len() <= 1, "{:?}", stage.cluster.transfers());
    }
}

#[test]
fn a_node_that_wakes_up_costs_the_cluster_its_leader_for_a_while() {
    let mut stage = Stage::three();
    stage.hang("n3");
    stage.wait(millis(60_000));
    let term = stage.get("n1", "/cluster")["raft_info"]["term"].as_u64();
    stage.revive("n3");
    stage.wait(millis(500));
    assert_eq!(stage.cluster.leader(), None);
    stage.wait(millis(3_000));
    assert!(stage.cluster.leader().is_some());
    assert!(stage.get("n1", "/cluster")["raft_info"]["term"].as_u64() > term);
}

#[test]
fn a_failed_batch_is_partly_written() {
    let mut stage = Stage::three();
    stage.kill("n3");
    stage.wait(millis(1_000));
    let answer = stage.upsert("n1", "alpha", 5000..5120);
    assert_eq!(answer.status, 500, "{answer:?}");
    stage.revive("n3");
    stage.wait(millis(5_000));
    let written = stage.cluster.census("alpha").points.keys().filter(|id| **id >= 5000).count();
    assert!((1..120).contains(&written), "{written} of 120");
}

#[test]
fn writes_during_a_move_are_not_lost() {
    let mut stage = Stage::three();
    stage.cluster.bytes_per_second = 10_000;
    let (from, to) = stage.ends("alpha", 0);
    stage.transfer("move_shard", "alpha", 0, &from, &to);
    for at in 0..20 {
        assert_eq!(stage.upsert("n2", "alpha", 9000 + at * 10..9010 + at * 10).status, 200);
        stage.wait(millis(100));
    }
    stage.settle(60.0);
    stage.wait(millis(100));
    assert_eq!(stage.count("n1", "alpha"), Some(Ok(1400)));
}

#[test]
fn without_a_majority_nothing_that_runs_ends() {
    let mut stage = Stage::empty(&["n1", "n2", "n3", "n4", "n5"]);
    let body = json!({"vectors": {"size": 32}, "shard_number": 1, "replication_factor": 1});
    stage.done("n1", "PUT", "/collections/gamma", body);
    stage.cluster.fill("gamma", 0, 100);
    let holder = ["n1", "n2", "n3", "n4", "n5"].into_iter().find(|n| stage.cluster.copies_on(n) == 1).expect("one");
    let others: Vec<&str> = ["n1", "n2", "n3", "n4", "n5"].into_iter().filter(|n| *n != holder).collect();
    stage.transfer("replicate_shard", "gamma", 0, holder, others[0]);
    for node in &others[1..] {
        stage.kill(node);
    }
    stage.wait(millis(600_000));
    assert_eq!(stage.cluster.transfers().len(), 1);
    stage.revive(others[1]);
    stage.wait(millis(30_000));
    assert!(stage.cluster.transfers().is_empty());
    assert_eq!(stage.cluster.census("gamma").copies[&0], 2);
}
