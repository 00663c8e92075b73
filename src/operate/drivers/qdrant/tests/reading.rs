//! Recorded clusters, as they are seen.

use super::*;
use crate::model::Replica;

async fn seen(nodes: &Arc<Nodes>, machines: &[u8]) -> Inventory {
    driver(nodes, machines).inventory(None).await.expect("an inventory")
}

fn health(seen: &Inventory) -> Vec<(&str, bool)> {
    seen.members.iter().map(|m| (m.id.as_str(), m.healthy)).collect()
}

fn copy(seen: &Inventory, node: &str, shard: ShardId) -> Replica {
    let copy = seen.shards.iter().find(|r| r.node == id(node) && r.shard == shard);
    copy.expect("a copy").clone()
}

#[tokio::test]
async fn a_healthy_cluster() {
    let seen = seen(&healthy(), &[1, 2, 3]).await;
    assert_eq!(health(&seen), [("n1", true), ("n2", true), ("n3", true)]);
    assert_eq!((seen.no_quorum.as_deref(), seen.foreign.len(), seen.transfers.len()), (None, 0, 0));
    let n1 = &seen.members[0];
    assert_eq!((n1.leader, n1.indexing, n1.cordoned), (true, false, false));
    assert_eq!((n1.version.as_deref(), n1.address.as_str()), (Some("1.19.0"), "http://127.0.10.1:6333"));
    assert!(!seen.members[1].leader);
    assert_eq!(seen.wanted_replicas, BTreeMap::from([("alpha".into(), 1), ("beta".into(), 2)]));
    assert_eq!(seen.shards.len(), 6 + 12);
    let first = copy(&seen, "n1", shard("alpha", 0));
    assert_eq!((first.bytes, first.vectors, first.state), (2 * 1_070_336, 8362, ReplicaState::Active));
}

#[tokio::test]
async fn a_dead_peer_keeps_its_copies_active_and_is_ill_itself() {
    let nodes = healthy();
    for (n, peer) in [(1, N1), (2, N2)] {
        nodes.set(n, "/cluster", as_told_by("cluster_peer_dead", peer));
        nodes.set(n, "/cluster/telemetry?details_level=3", recorded("cluster_telemetry_peer_dead"));
        nodes.set(n, "/telemetry?details_level=2", recorded("telemetry_details_level_2_peer_dead"));
    }
    nodes.kill(3);
    let seen = seen(&nodes, &[1, 2, 3]).await;
    assert_eq!(health(&seen), [("n1", true), ("n2", true), ("n3", false)]);
    assert_eq!(seen.no_quorum, None, "two of three are a majority");
    assert!(seen.on(&id("n3")).all(|r| r.state == ReplicaState::Active), "no write has failed on it yet");
    let size = |collection, number| {
        let copy = copy(&seen, "n3", shard(collection, number));
        (copy.bytes, copy.vectors)
    };
    assert_eq!(size("beta", 0), (2 * 1_070_336, 8362), "told by the other copy");
    assert_eq!(size("alpha", 3), (0, 0), "nobody else has it, and it was never told");
}

#[tokio::test]
async fn copies_are_dead_once_a_write_has_failed_on_them() {
    let nodes = healthy();
    let view = recorded("collection_cluster_peer_dead_after_write");
    nodes.set(1, "/collections/beta/cluster", view);
    let seen = driver(&nodes, &[1, 2, 3]).inventory(Some(&id("n1"))).await.expect("its own view");
    let dead = seen.on(&id("n3")).filter(|r| r.state == ReplicaState::Dead && &*r.shard.collection == "beta").count();
    assert_eq!(dead, 6);
}

#[tokio::test]
async fn a_hung_peer_is_gone_around() {
    let nodes = healthy();
    nodes.set_all(&[1, 2], "/cluster/telemetry?details_level=3", Err(ApiError::Lost("9.4 s".into())));
    nodes.hang(3);
    let driver = driver(&nodes, &[1, 2, 3]);
    let seen = driver.inventory(None).await.expect("asked node by node");
    assert_eq!(health(&seen), [("n1", true), ("n2", true), ("n3", false)]);
    let told = copy(&seen, "n1", shard("alpha", 0));
    assert_eq!((told.bytes, told.vectors), (2 * 1_070_336, 8362), "sizes come from the node's own telemetry");
    assert_eq!(seen.on(&id("n3")).count(), 2 + 4, "what the silent one is listed for stays listed");
}

#[tokio::test]
async fn an_older_version_is_asked_node_by_node() {
    let nodes = healthy();
    nodes.set_all(&[1, 2, 3], "/", answer(json!({"version": "1.16.3"})));
    nodes.set_all(&[1, 2, 3], "/cluster/telemetry?details_level=3", answer(json!("there is no such page")));
    let seen = seen(&nodes, &[1, 2, 3]).await;
    assert_eq!((seen.shards.len(), seen.members[0].version.as_deref()), (18, Some("1.16.3")));
}

#[tokio::test]
async fn without_a_majority_nothing_can_be_agreed_on() {
    // Peers of these recordings: 1, 2 and 6547591933086545, which is n3 here.
    for (case, why) in [
        ("cluster_no_quorum", "1 of 3 voting members answer, which is no majority"),
        ("cluster_no_quorum_leader", "1 of 3 voting members answer, which is no majority"),
    ] {
        let nodes = healthy();
        nodes.set(1, "/cluster", recorded(case));
        nodes.set(1, "/cluster/telemetry?details_level=3", recorded("cluster_telemetry_no_quorum"));
        nodes.kill(2);
        nodes.kill(3);
        let telemetry = r#"{"result":{"collections":{"collections":[
            {"id":"alpha","config":{"params":{"replication_factor":1}}},
            {"id":"beta","config":{"params":{"replication_factor":2}}},
            {"id":"gamma","config":{"params":{"replication_factor":1}}}]}}}"#;
        nodes.set(1, "/telemetry?details_level=2", Ok(Answer { status: 200, body: telemetry.into() }));
        let seen = seen(&nodes, &[1, 2, 3]).await;
        assert_eq!(seen.no_quorum.as_deref(), Some(why), "{case}");
        assert_eq!(health(&seen), [("n1", true), ("n2", false), ("n3", false)], "{case}");
    }
}

#[tokio::test]
async fn a_majority_without_one_leader_agrees_on_nothing_either() {
    let lead = |leader: Value| {
        let mut body: Value = serde_json::from_str(&recorded("cluster_3nodes_from_leader").unwrap().body).unwrap();
        body["result"]["peer_id"] = N2.into();
        body["result"]["raft_info"]["leader"] = leader;
        answer(body)
    };
    for (leader, why) in
        [(json!(0), "n2 knows no leader"), (Value::Null, "n2 knows no leader"), (json!(N3), "follow different leaders")]
    {
        let nodes = healthy();
        nodes.set(2, "/cluster", lead(leader));
        let seen = seen(&nodes, &[1, 2, 3]).await;
        assert!(seen.no_quorum.as_deref().is_some_and(|told| told.contains(why)), "{why}: {:?}", seen.no_quorum);
    }
    let nodes = healthy();
    nodes.kill(1);
    let told = seen(&nodes, &[1, 2, 3]).await.no_quorum;
    assert_eq!(told.as_deref(), Some("the leader, n1, does not answer"), "the others have not noticed yet");
}

#[tokio::test(start_paused = true)]
async fn changes_that_wait_for_some_seconds_are_stuck() {
    let nodes = healthy();
    let waiting = |commit: u64| {
        let mut body: Value = serde_json::from_str(&recorded("cluster_3nodes_from_leader").unwrap().body).unwrap();
        body["result"]["peer_id"] = N2.into();
        body["result"]["raft_info"]["pending_operations"] = 3.into();
        body["result"]["raft_info"]["commit"] = commit.into();
        answer(body)
    };
    let driver = driver(&nodes, &[1, 2, 3]);
    for (seconds, commit, stuck) in
        [(0, 9, false), (0, 9, false), (3, 9, false), (3, 9, true), (1, 10, false), (4, 10, false), (1, 10, true)]
    {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        nodes.set(2, "/cluster", waiting(commit));
        let told = driver.inventory(None).await.expect("an inventory").no_quorum;
        assert_eq!(told.is_some(), stuck, "at {commit}: {told:?}");
    }
}

#[tokio::test]
async fn a_lost_shard_is_told_of_in_both_ways_of_asking() {
    let nodes = healthy();
    nodes.set(1, "/cluster/telemetry?details_level=3", recorded("cluster_telemetry_shard_lost"));
    let all = ["alpha", "beta", "gamma", "tmp1"];
    let params: Vec<Value> =
        all.iter().map(|name| json!({"id": name, "config": {"params": {"replication_factor": 1}}})).collect();
    nodes.set(1, "/telemetry?details_level=2", answer(json!({"result": {"collections": {"collections": params}}})));
    let told = seen(&nodes, &[1, 2, 3]).await.foreign;
    assert_eq!(told, ["no peer has a copy of tmp1/2: its points are lost until a snapshot is restored"]);

    let nodes = healthy();
    nodes.set(1, "/collections/alpha/cluster", recorded("collection_cluster_shard_lost"));
    let told = driver(&nodes, &[1, 2, 3]).inventory(Some(&id("n1"))).await.expect("its own view").foreign;
    assert_eq!(told, ["no peer has a copy of alpha/2: its points are lost until a snapshot is restored"]);
}

#[tokio::test]
async fn a_transfer_is_told_with_its_progress() {
    use super::super::told::share_done;
    let nodes = healthy();
    nodes.set(1, "/cluster/telemetry?details_level=3", recorded("cluster_telemetry_transfer"));
    nodes.set(1, "/telemetry?details_level=2", recorded("telemetry_details_level_2_peer_dead"));
    let transfers = seen(&nodes, &[1, 2, 3]).await.transfers;
    let whole = 36_930_048 + 9_232_512;
    assert_eq!((transfers.len(), &transfers[0].shard), (1, &shard("gamma", 1)));
    assert_eq!((transfers[0].from.as_str(), transfers[0].to.as_str()), ("n2", "n1"));
    assert_eq!((transfers[0].done_bytes, transfers[0].is_move), (Some(whole), true), "all records are there by then");
    for (comment, share) in [
        ("transferring (1.74s) | Transferring records (29500/57219), ETA: 0.00s", Some(29500.0 / 57219.0)),
        ("finalizing (0.03s) | Transferring records (72129/72129), ETA: 0.00s", Some(1.0)),
        ("Transferring records (0/0), ETA: 0.00s", None),
        ("Transferring records (5/4)", None),
        ("recovering (0.23s)", None),
        ("", None),
    ] {
        assert_eq!(share_done(comment), share, "{comment}");
    }
}

#[tokio::test]
async fn a_target_that_begins_to_be_filled_is_not_dead() {
    // The target shows its own copy as dead, without points, for the first moments of a transfer.
    let nodes = healthy();
    let mut body: Value =
        serde_json::from_str(&recorded("collection_cluster_move_default_node4").unwrap().body).unwrap();
    body["result"]["peer_id"] = N2.into();
    body["result"]["shard_transfers"][0]["to"] = N2.into();
    nodes.set(2, "/collections/alpha/cluster", answer(body));
    let seen = driver(&nodes, &[1, 2, 3]).inventory(Some(&id("n2"))).await.expect("its own view");
    let copy = copy(&seen, "n2", shard("alpha", 0));
    assert_eq!((copy.state, copy.vectors), (ReplicaState::Partial, 0));
    assert_eq!(seen.transfers.len(), 1);
}

#[tokio::test]
async fn a_resharding_is_work_of_others() {
    let nodes = healthy();
    let mut body: Value = serde_json::from_str(&recorded("collection_cluster_resharding").unwrap().body).unwrap();
    body["result"]["peer_id"] = N1.into();
    nodes.set(1, "/collections/alpha/cluster", answer(body));
    let seen = driver(&nodes, &[1, 2, 3]).inventory(Some(&id("n1"))).await.expect("its own view");
    assert_eq!(seen.foreign, ["alpha is being resharded up (shard 3)"]);
    assert!(seen.shards.iter().any(|r| r.state == ReplicaState::Partial), "the new shard serves nobody yet");
}

#[tokio::test]
async fn an_index_that_is_built_is_seen() {
    let nodes = healthy();
    let mut told: Value = serde_json::from_str(&recorded("cluster_telemetry_level_3").unwrap().body).unwrap();
    told["result"]["collections"]["alpha"]["shards"][0]["replicas"][0]["status"] = "yellow".into();
    nodes.set(1, "/cluster/telemetry?details_level=3", answer(told));
    let seen = seen(&nodes, &[1, 2, 3]).await;
    assert_eq!(seen.members.iter().map(|m| m.indexing).collect::<Vec<_>>(), [true, false, false]);
}

#[tokio::test]
async fn a_node_that_joins_is_a_member_and_not_yet_well() {
    let nodes = healthy();
    for (n, peer) in [(1, N1), (2, N2), (4, N4)] {
        let mut body: Value = serde_json::from_str(&recorded("cluster_joining").unwrap().body).unwrap();
        body["result"]["peer_id"] = peer.into();
        body["result"]["raft_info"]["is_voter"] = (n != 4).into();
        nodes.set(n, "/cluster", answer(body));
    }
    nodes.set(4, "/", recorded("root"));
    nodes.set(4, "/readyz", recorded("readyz_joining"));
    nodes.set(4, "/collections", recorded("collections"));
    nodes.kill(3);
    let driver = driver(&nodes, &[1, 2, 3, 4]);
    let seen = driver.inventory(None).await.expect("an inventory");
    assert_eq!(health(&seen), [("n1", true), ("n2", true), ("n3", false), ("n4", false)]);
    assert_eq!(driver.ready(&machine(4)).await, Ok(false));
    assert_eq!(driver.join(&call(), &machine(4)).await, Effect::Done(()), "registered it is");
    nodes.set(4, "/readyz", recorded("readyz"));
    assert_eq!(driver.ready(&machine(4)).await, Ok(false), "it has no vote");
    nodes.set(
        4,
        "/cluster",
        as_told_by("cluster_joining", N4).map(|answer| {
            let body = answer.body.replace("\"is_voter\":false", "\"is_voter\":true");
            Answer { body, ..answer }
        }),
    );
    assert_eq!(driver.ready(&machine(4)).await, Ok(true));
    nodes.set(
        4,
        "/collections",
        recorded("collections")
            .map(|answer| Answer { body: answer.body.replace("{\"name\":\"beta\"}", "{\"name\":\"old\"}"), ..answer }),
    );
    assert_eq!(driver.ready(&machine(4)).await, Ok(false), "it does not know all collections");
    nodes.set(4, "/", answer(json!({"version": "1.18.2"})));
    assert!(matches!(driver.join(&call(), &machine(4)).await, Effect::NoEffect(why) if why.contains("1.18.2")));
}

#[tokio::test]
async fn a_node_apart_is_no_witness_and_not_ready() {
    let alone = json!({"result": {
        "status": "enabled", "peer_id": 77, "peers": {"77": {"uri": "http://127.0.10.4:6335/"}},
        "raft_info": {"term": 1, "commit": 5, "pending_operations": 0, "leader": 77, "role": "Leader", "is_voter": true},
        "consensus_thread_status": {"consensus_thread_status": "working"}, "message_send_failures": {}}});
    for (what, own, why) in [
        ("removed", recorded("removed_peer_cluster"), "was removed from the cluster"),
        ("removed and restarted", recorded("removed_peer_restarted_cluster"), "was removed from the cluster"),
        ("a cluster of its own", answer(alone), "forms a cluster of its own"),
        ("standalone", recorded("standalone_cluster"), "standalone mode"),
    ] {
        let nodes = healthy();
        nodes.set(4, "/cluster", own);
        nodes.set(4, "/", recorded("root"));
        nodes.set(4, "/readyz", recorded("removed_peer_readyz"));
        nodes.set(4, "/collections", recorded("collections"));
        nodes.set_all(&[4], "/collections/alpha/cluster", recorded("removed_peer_collection_cluster"));
        let driver = driver(&nodes, &[1, 2, 3, 4]);
        let seen = driver.inventory(None).await.expect("an inventory");
        assert_eq!(seen.members.len(), 3, "{what}");
        let member = Member::new(id("n4"), machine(4).address);
        let refused = driver.held_by(&member).await.expect_err(what);
        assert!(refused.0.contains(why), "{what}: {refused}");
        assert!(driver.inventory(Some(&id("n4"))).await.is_err(), "{what}");
        assert_eq!(driver.ready(&machine(4)).await, Ok(false), "{what}");
        assert!(matches!(driver.join(&call(), &machine(4)).await, Effect::NoEffect(_)), "{what}");
    }
}

#[tokio::test]
async fn what_a_node_holds_it_says_itself() {
    let driver = driver(&healthy(), &[1, 2, 3]);
    let held = driver.held_by(&Member::new(id("n1"), machine(1).address)).await.expect("it answers");
    let held: Vec<String> = held.iter().map(|(shard, points)| format!("{shard} {points}")).collect();
    assert_eq!(held, ["alpha/0 1000", "alpha/3 1000", "beta/0 1000", "beta/1 1000", "beta/3 1000", "beta/4 1000"]);
    let seen = driver.inventory(Some(&id("n2"))).await.expect("its own view");
    assert_eq!(states(&seen, "n1").len(), 6);
}

#[tokio::test]
async fn who_is_silent_is_known_by_host_or_from_before_or_not_at_all() {
    // By its host, which no other has.
    let nodes = healthy();
    nodes.kill(3);
    let first = driver(&nodes, &[1, 2, 3]);
    assert!(first.survey().await.expect("a survey").peer_of(&id("n3")) == Some(N3));
    // Not at all: its machine is elsewhere, as with a name that the members use and we do not.
    let moved = Machine { address: "http://127.0.99.9:6333".into(), ..machine(3) };
    let machines = vec![machine(1), machine(2), moved];
    let nobody =
        |nodes: &Arc<Nodes>| Qdrant::new(Arc::new(NoProvider::new(machines.clone(), Vec::new())), nodes.clone());
    nodes.kill(9);
    let seen = nobody(&nodes).inventory(None).await.expect("an inventory");
    let ghost = format!("peer-{N3}");
    assert_eq!(health(&seen), [("n1", true), ("n2", true), (ghost.as_str(), false)], "seen all the same");
    assert_eq!(seen.on(&id(&ghost)).count(), 6);
    // Known to the cluster's own store, from an earlier start.
    let stored = answer(json!({"result": {N3.to_string(): "n3"}}));
    nodes.set_all(&[1, 2], &format!("/cluster/metadata/keys/{NAMES}"), stored);
    let seen = nobody(&nodes).inventory(None).await.expect("an inventory");
    assert_eq!(health(&seen), [("n1", true), ("n2", true), ("n3", false)]);
    // The name is another's by now: a machine of that name that says who it is.
    let nodes = healthy();
    let driver = driver(&nodes, &[1, 2, 3]);
    driver.survey().await.expect("a survey");
    nodes.set(3, "/cluster", recorded("removed_peer_cluster"));
    let seen = driver.inventory(None).await.expect("an inventory");
    assert_eq!(health(&seen), [("n1", true), ("n2", true), (ghost.as_str(), false)]);
}

#[tokio::test]
async fn what_cannot_be_made_out_is_not_guessed() {
    let nodes = healthy();
    let empty = driver(&nodes, &[]).inventory(None).await.expect_err("no machine");
    assert!(empty.0.contains("nodes.static"), "{empty}");
    (1..=3).for_each(|n| nodes.kill(n));
    assert!(driver(&nodes, &[1, 2, 3]).inventory(None).await.expect_err("silence").0.contains("no node answers"));
    let nodes = healthy();
    nodes.set(2, "/cluster", recorded("cluster_3nodes_from_leader"));
    let twice = driver(&nodes, &[1, 2]).inventory(None).await.expect_err("one node, two names");
    assert!(twice.0.contains("n1 and n2 are the same Qdrant node"), "{twice}");
    let nodes = healthy();
    nodes.set_all(&[1, 2, 3], "/cluster", recorded("standalone_cluster"));
    let alone = driver(&nodes, &[1, 2, 3]).inventory(None).await.expect_err("standalone");
    assert!(alone.0.contains("standalone mode"), "{alone}");
    let nodes = healthy();
    nodes.set_all(&[1, 2, 3], "/cluster", recorded("auth_cluster_no_key"));
    let key = driver(&nodes, &[1, 2, 3]).inventory(None).await.expect_err("no key");
    assert!(key.0.contains("api_key_file"), "{key}");
    // A collection that one read has and the other has not is being made or deleted.
    let nodes = healthy();
    nodes.set(1, "/telemetry?details_level=2", answer(json!({"result": {"collections": {"collections": []}}})));
    assert!(driver(&nodes, &[1, 2, 3]).inventory(None).await.expect_err("halves").0.contains("alpha"));
}

#[tokio::test]
async fn shards_by_key_want_as_many_copies_as_each_was_seen_with() {
    let nodes = healthy();
    let mut told: Value = serde_json::from_str(&recorded("cluster_telemetry_level_3").unwrap().body).unwrap();
    for shard in told["result"]["collections"]["beta"]["shards"].as_array_mut().unwrap() {
        shard["key"] = "tenant_a".into();
    }
    nodes.set(1, "/cluster/telemetry?details_level=3", answer(told.clone()));
    let params = json!([
        {"id": "alpha", "config": {"params": {"replication_factor": 1}}},
        {"id": "beta", "config": {"params": {"replication_factor": 1}}},
    ]);
    nodes.set(1, "/telemetry?details_level=2", answer(json!({"result": {"collections": {"collections": params}}})));
    let driver = driver(&nodes, &[1, 2, 3]);
    let wanted = |seen: Inventory| seen.wanted_replicas["beta"];
    assert_eq!(wanted(driver.inventory(None).await.expect("an inventory")), 2, "the key's own factor");
    for shard in told["result"]["collections"]["beta"]["shards"].as_array_mut().unwrap() {
        shard["replicas"].as_array_mut().unwrap().pop();
    }
    nodes.set(1, "/cluster/telemetry?details_level=3", answer(told));
    assert_eq!(wanted(driver.inventory(None).await.expect("an inventory")), 2, "remembered");
}
