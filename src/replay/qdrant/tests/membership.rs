//! Nodes that come and go.

use serde_json::{Value, json};

use super::{Stage, millis, shapes};

#[test]
fn a_new_node_listens_learns_votes_and_is_ready() {
    let mut stage = Stage::three();
    let peer = stage.cluster.start(stage.now, "n4", "1.19.0");
    assert_eq!(stage.reply("n4", "GET", "/cluster", Value::Null), crate::replay::qdrant::Reply::Refused);
    stage.wait(millis(500));
    shapes::equal("cluster_joining", &mut stage, "n4", "/cluster");
    let told = stage.get("n4", "/cluster");
    assert_eq!((&told["raft_info"]["is_voter"], &told["raft_info"]["commit"]), (&json!(false), &json!(0)));
    let mut seconds = 0.5;
    while stage.ask("n4", "GET", "/readyz", Value::Null).status != 200 {
        seconds += 0.5;
        assert!(seconds < 5.0);
    }
    assert!((2.0..3.5).contains(&seconds), "{seconds} s");
    shapes::equal("cluster_4nodes_new_node_joined", &mut stage, "n4", "/cluster");
    assert!(stage.get("n1", "/cluster")["peers"].get(peer.to_string()).is_some());
    shapes::equal("collection_cluster_empty_node", &mut stage, "n4", "/collections/alpha/cluster");
    assert_eq!(stage.count("n4", "alpha"), Some(Ok(1200)), "it passes requests on while it is empty");
}

#[test]
fn nobody_joins_without_a_majority() {
    let mut stage = Stage::three();
    stage.kill("n2");
    stage.kill("n3");
    stage.cluster.start(stage.now, "n4", "1.19.0");
    stage.wait(millis(60_000));
    assert_eq!(stage.reply("n4", "GET", "/cluster", Value::Null), crate::replay::qdrant::Reply::Refused);
    assert_eq!(stage.cluster.registered().len(), 3);
}

#[test]
fn the_address_of_a_dead_peer_with_shards_lets_nobody_in() {
    let mut stage = Stage::three();
    stage.cluster.destroy(stage.now, "n3");
    stage.wait(millis(3_000));
    stage.cluster.start(stage.now, "n3", "1.19.0");
    stage.wait(millis(10_000));
    assert_eq!(stage.reply("n3", "GET", "/cluster", Value::Null), crate::replay::qdrant::Reply::Refused);
    assert_eq!(stage.cluster.registered().len(), 3);
}

#[test]
fn the_address_of_a_dead_peer_without_shards_goes_to_the_newcomer() {
    let mut stage = Stage::empty(&["n1", "n2", "n3"]);
    let before = stage.peer("n3");
    stage.cluster.destroy(stage.now, "n3");
    stage.wait(millis(3_000));
    stage.cluster.start(stage.now, "n3", "1.19.0");
    stage.wait(millis(10_000));
    let peers = stage.cluster.registered();
    assert!(peers.len() == 3 && !peers.contains(&before), "{peers:?}");
}

#[test]
fn a_new_collection_is_placed_on_whoever_is_a_member() {
    let mut stage = Stage::three();
    stage.cluster.start(stage.now, "n4", "1.19.0");
    stage.wait(millis(3_000));
    let body = json!({"vectors": {"size": 8}, "shard_number": 4, "replication_factor": 1});
    stage.done("n1", "PUT", "/collections/late", body);
    assert!(stage.cluster.copies_on("n4") == 1);
    stage.done("n1", "DELETE", "/collections/late", Value::Null);
    assert_eq!(stage.cluster.copies_on("n4"), 0);
}

#[test]
fn a_removed_leader_is_missed_for_two_and_a_half_seconds() {
    let mut stage = Stage::empty(&["n1", "n2", "n3", "n4"]);
    let leader = stage.cluster.leader().expect("a leader");
    let peer = stage.peer(&leader);
    stage.done(&leader, "DELETE", &format!("/cluster/peer/{peer}"), Value::Null);
    let asked = ["n1", "n2", "n3", "n4"].into_iter().find(|n| *n != leader).expect("another");
    assert_eq!(stage.get(asked, "/cluster")["raft_info"]["leader"], peer, "the removed one is reported meanwhile");
    // What is asked meanwhile waits for the next leader.
    let before = stage.now;
    stage.done(asked, "PUT", "/cluster/metadata/keys/k?wait=true", json!(1));
    assert!((2_000..3_000).contains(&(stage.now - before).as_millis()));
    let told = stage.get(asked, "/cluster");
    assert!(told["raft_info"]["leader"].as_u64().is_some_and(|l| l != 0 && l != peer), "{told}");
    stage.wait(millis(100));
    assert_eq!(stage.get(asked, "/cluster/metadata/keys/k"), 1);
}

#[test]
fn failures_of_a_removed_peer_stay_listed() {
    let mut stage = Stage::three();
    stage.kill("n3");
    stage.wait(millis(2_000));
    let peer = stage.peer("n3");
    stage.done("n1", "DELETE", &format!("/cluster/peer/{peer}?force=true"), Value::Null);
    shapes::equal("cluster_after_force_remove", &mut stage, "n1", "/cluster");
    let told = stage.get("n1", "/cluster");
    assert!(told["message_send_failures"].get("http://n3:6335/").is_some(), "{told}");
    assert!(told["peers"].get(peer.to_string()).is_none(), "{told}");
}
