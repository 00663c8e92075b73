//! What is asked of the cluster, and when nothing is.

use super::*;

fn alpha(order: &str) -> String {
    format!("n1: POST /collections/alpha/cluster?timeout=10 {order}")
}

#[tokio::test]
async fn a_relocation_is_a_copy_and_then_a_drop() {
    let nodes = healthy();
    let driver = driver(&nodes, &[1, 2, 3]);
    nodes.set(1, "POST /collections/alpha/cluster?timeout=10", recorded("replicate_shard"));
    let relocation = a_move("alpha", 0, "n1", "n2");
    assert_eq!(driver.start_move(&call(), &relocation).await, Effect::Done(()));
    let names = json!({N2.to_string(): "n2", N3.to_string(): "n3", N1.to_string(): "n1"});
    let copy = json!({"replicate_shard":
        {"shard_id": 0, "from_peer_id": N1, "to_peer_id": N2, "method": "snapshot"}});
    let noted = format!("n1: PUT /cluster/metadata/keys/{NAMES}?wait=true {names}");
    assert_eq!(nodes.changes(), [noted, alpha(&copy.to_string())]);
    // Under way: asked again it is not asked for again, and nothing is dropped.
    let rest = [(1, N3, "Active"), (2, N2, "Active"), (3, N1, "Active"), (4, N3, "Active"), (5, N2, "Active")];
    let with = |first: &[(u32, PeerId, &'static str)]| [first, &rest[..]].concat();
    let transfer = json!([{"shard_id": 0, "from": N1, "to": N2, "sync": true, "method": "snapshot"}]);
    place_with(&nodes, "alpha", &with(&[(0, N1, "Active"), (0, N2, "Partial")]), transfer);
    assert_eq!(driver.start_move(&call(), &relocation).await, Effect::Done(()));
    assert_eq!(driver.finish_move(&call(), &relocation).await, Effect::InProgress);
    assert_eq!(nodes.changes().iter().filter(|change| change.contains("POST")).count(), 0);
    // Whole everywhere: the old one goes. Taken up is not done.
    place_with(&nodes, "alpha", &with(&[(0, N1, "Active"), (0, N2, "Active")]), json!([]));
    assert_eq!(driver.finish_move(&call(), &relocation).await, Effect::InProgress);
    let drop = json!({"drop_replica": {"shard_id": 0, "peer_id": N1}});
    assert_eq!(nodes.changes(), [alpha(&drop.to_string())]);
    place_with(&nodes, "alpha", &with(&[(0, N2, "Active")]), json!([]));
    assert_eq!(driver.finish_move(&call(), &relocation).await, Effect::Done(()));
    assert_eq!(nodes.changes(), Vec::<String>::new());
}

#[tokio::test]
async fn before_1_18_records_are_sent_and_the_method_is_always_named() {
    let nodes = healthy();
    nodes.set(2, "/", answer(json!({"version": "1.17.1"})));
    let driver = driver(&nodes, &[1, 2, 3]);
    driver.replicate(&call(), &a_move("alpha", 0, "n1", "n2")).await;
    let changes = nodes.changes();
    assert!(changes.iter().any(|change| change.contains(r#""method":"stream_records""#)), "{changes:?}");
}

#[tokio::test]
async fn an_answer_in_doubt_stays_in_doubt_and_a_refusal_is_told() {
    let cases = [
        ("create_collection_no_quorum_leader", "unknown", "Waiting for consensus"),
        ("count_shard_lost", "unknown", "connection was closed"),
        ("move_shard_no_quorum", "no effect", "leader is not established"),
        ("err_move_already_moving", "no effect", "already involved in transfer"),
        ("auth_move_read_only_key", "no effect", "a read-only key is enough to observe"),
        ("err_collection_missing", "no effect", "doesn't exist"),
        ("standalone_move", "no effect", "standalone"),
    ];
    for (case, kind, words) in cases {
        let nodes = healthy();
        nodes.set(1, "POST /collections/alpha/cluster?timeout=10", recorded(case));
        let came = driver(&nodes, &[1, 2, 3]).start_move(&call(), &a_move("alpha", 0, "n1", "n2")).await;
        let (told, why) = match &came {
            Effect::Unknown(why) => ("unknown", why),
            Effect::NoEffect(why) => ("no effect", why),
            other => panic!("{case}: {other:?}"),
        };
        assert!(told == kind && why.contains(words), "{case}: {came:?}");
    }
}

#[tokio::test]
async fn nothing_is_asked_for_where_it_cannot_be_seen_whole() {
    let relocation = a_move("alpha", 0, "n1", "n2");
    type Case<'a> = (&'static str, &'a dyn Fn(&Nodes));
    let cases: [Case; 4] = [
        ("no majority", &|nodes| {
            nodes.kill(2);
            nodes.kill(3);
        }),
        ("a member does not tell of the collection", &|nodes| {
            nodes.set(3, "/collections/alpha/cluster", recorded("err_collection_missing"));
        }),
        ("the cordons are not told", &|nodes| {
            let key = format!("/cluster/metadata/keys/{CORDONED}");
            nodes.set(1, &key, Ok(Answer { status: 500, body: "x".into() }));
        }),
        ("the parameters are not told", &|nodes| {
            nodes.set(1, "/telemetry?details_level=2", Err(ApiError::Lost("busy".into())));
        }),
    ];
    for (what, spoil) in cases {
        let nodes = healthy();
        spoil(&nodes);
        let driver = driver(&nodes, &[1, 2, 3]);
        let came = driver.start_move(&call(), &relocation).await;
        assert!(matches!(came, Effect::NoEffect(_)), "{what}: {came:?}");
        assert!(matches!(driver.cancel_move(&call(), &relocation).await, Effect::NoEffect(_)), "{what}");
        assert!(matches!(driver.finish_move(&call(), &relocation).await, Effect::NoEffect(_)), "{what}");
        assert_eq!(nodes.changes(), Vec::<String>::new(), "{what}");
    }
}

#[tokio::test]
async fn a_copy_is_called_off_by_dropping_its_target() {
    let nodes = healthy();
    nodes.set(1, "POST /collections/alpha/cluster?timeout=10", recorded("drop_replica_during_transfer"));
    let copies = [(0, N1, "Active"), (0, N2, "Partial"), (1, N3, "Active")];
    let transfer = |sync: bool| json!([{"shard_id": 0, "from": N1, "to": N2, "sync": sync}]);
    let driver = driver(&nodes, &[1, 2, 3]);
    let copy = a_move("alpha", 0, "n1", "n2");
    place_with(&nodes, "alpha", &copies, transfer(true));
    assert_eq!(driver.cancel_move(&call(), &copy).await, Effect::Done(()));
    assert_eq!(nodes.changes(), [alpha(&json!({"drop_replica": {"shard_id": 0, "peer_id": N2}}).to_string())]);
    // A move of others is aborted, and looked at anew; one that has ended by then may have left the only whole copy.
    place_with(&nodes, "alpha", &copies, transfer(false));
    for case in ["abort_transfer", "err_abort_no_transfer"] {
        nodes.set(1, "POST /collections/alpha/cluster?timeout=10", recorded(case));
        assert_eq!(driver.cancel_move(&call(), &copy).await, Effect::InProgress, "{case}");
        let abort = json!({"abort_transfer": {"shard_id": 0, "from_peer_id": N1, "to_peer_id": N2}});
        assert_eq!(nodes.changes(), [alpha(&abort.to_string())], "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transfer_from_a_dead_source_is_none_any_more_and_is_cleared_away() {
    let nodes = healthy();
    let driver = driver(&nodes, &[1, 2, 3]);
    let copies = [(0, N1, "Active"), (0, N3, "Active"), (0, N2, "Partial")];
    let transfer = json!([{"shard_id": 0, "from": N3, "to": N2, "sync": false}]);
    place_with(&nodes, "alpha", &copies, transfer);
    nodes.hang(3);
    let listed = async || driver.inventory(None).await.expect("an inventory").transfers.len();
    assert_eq!(listed().await, 1, "it may be busy");
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(listed().await, 0);
    nodes.set(1, "POST /collections/alpha/cluster?timeout=10", recorded("abort_transfer_source_dead"));
    // Silent to us alone, or to nobody knows whom, it may go on.
    for (version, words) in [("1.19.0", "the other members reach it"), ("1.16.3", "nobody else tells of it")] {
        nodes.set_all(&[1, 2], "/", answer(json!({"version": version})));
        let came = driver.replicate(&call(), &a_move("alpha", 0, "n1", "n2")).await;
        assert!(matches!(&came, Effect::NoEffect(why) if why.contains(words)), "{version}: {came:?}");
        assert_eq!(nodes.changes(), Vec::<String>::new(), "{version}");
    }
    nodes.set_all(&[1, 2], "/", recorded("root"));
    others_miss_n3(&nodes);
    let came = driver.replicate(&call(), &a_move("alpha", 0, "n1", "n2")).await;
    assert!(matches!(&came, Effect::NoEffect(why) if why.contains("which is dead, was aborted first")), "{came:?}");
    let abort = json!({"abort_transfer": {"shard_id": 0, "from_peer_id": N3, "to_peer_id": N2}});
    assert_eq!(nodes.changes(), [alpha(&abort.to_string())]);
}

#[tokio::test]
async fn cordons_are_kept_in_the_cluster() {
    let nodes = healthy();
    let key = format!("/cluster/metadata/keys/{CORDONED}");
    let driver = driver(&nodes, &[1, 2, 3]);
    nodes.set(1, &format!("PUT {key}?wait=true"), recorded("cluster_metadata_put"));
    nodes.set(1, &format!("PUT /cluster/metadata/keys/{NAMES}?wait=true"), recorded("cluster_metadata_put"));
    assert_eq!(driver.cordon(&call(), &id("n3")).await, Effect::Done(()));
    let put = |value: Value| format!("n1: PUT {key}?wait=true {value}");
    assert!(nodes.changes().contains(&put(json!({"peers": [N3]}))));
    // A peer that is gone leaves no mark behind; the names are written once.
    nodes.set(1, &key, answer(json!({"result": {"peers": [N3, 12345]}})));
    let seen = driver.inventory(None).await.expect("an inventory");
    assert_eq!(seen.members.iter().map(|m| m.cordoned).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(driver.cordon(&call(), &id("n3")).await, Effect::Done(()), "it is so already");
    assert_eq!(driver.cordon(&call(), &id("n2")).await, Effect::Done(()));
    assert_eq!(nodes.changes(), [put(json!({"peers": [N2, N3]}))]);
    assert_eq!(driver.uncordon(&call(), &id("n3")).await, Effect::Done(()));
    assert_eq!(nodes.changes(), [put(json!({"peers": []}))]);
    assert_eq!(driver.uncordon(&call(), &id("n9")).await, Effect::Done(()));
    assert!(matches!(driver.cordon(&call(), &id("n9")).await, Effect::NoEffect(_)));
    let put_path = format!("PUT {key}?wait=true");
    for (case, unknown) in [("move_shard_no_quorum", false), ("create_collection_no_quorum_leader", true)] {
        nodes.set(1, &put_path, recorded(case));
        let came = driver.cordon(&call(), &id("n2")).await;
        assert_eq!(matches!(came, Effect::Unknown(_)), unknown, "{case}: {came:?}");
        assert!(!matches!(came, Effect::Done(_)), "{case}");
    }
}

fn without(nodes: &Nodes, gone: PeerId, leader: PeerId) {
    for (n, peer) in [(1, N1), (2, N2), (3, N3)].into_iter().filter(|(_, peer)| *peer != gone) {
        let mut body: Value = serde_json::from_str(&recorded("cluster_3nodes_from_leader").unwrap().body).unwrap();
        body["result"]["peer_id"] = peer.into();
        body["result"]["raft_info"]["leader"] = leader.into();
        body["result"]["peers"].as_object_mut().unwrap().remove(&gone.to_string());
        nodes.set(n, "/cluster", answer(body));
    }
}

#[tokio::test]
async fn a_member_is_removed_by_a_survivor_and_seen_to_be_gone() {
    let nodes = healthy();
    let driver = driver(&nodes, &[1, 2, 3]);
    let path = format!("DELETE /cluster/peer/{N1}?timeout=10");
    nodes.set(2, &path, recorded("remove_peer_drained"));
    nodes.set(3, &path, recorded("remove_peer_drained"));
    // The leader itself: another is asked, and there must be another leader.
    assert_eq!(driver.unjoin(&call(), &id("n1")).await, Effect::InProgress, "taken up, and still listed");
    assert_eq!(nodes.changes(), [format!("n2: {path}")]);
    without(&nodes, N1, N1);
    nodes.set(1, "/cluster", recorded("removed_peer_cluster"));
    assert_eq!(driver.unjoin(&call(), &id("n1")).await, Effect::InProgress, "the followers still name it their leader");
    without(&nodes, N1, N2);
    assert_eq!(driver.unjoin(&call(), &id("n1")).await, Effect::Done(()));
    assert_eq!(nodes.changes(), Vec::<String>::new(), "asked for once");
}

#[tokio::test]
async fn a_member_with_shards_and_the_leader_of_two_stay() {
    let nodes = healthy();
    nodes.set(1, &format!("DELETE /cluster/peer/{N3}?timeout=10"), recorded("err_remove_peer_with_shards"));
    let came = driver(&nodes, &[1, 2, 3]).unjoin(&call(), &id("n3")).await;
    assert!(matches!(&came, Effect::NoEffect(why) if why.contains("there are shards on it")), "{came:?}");
    nodes.changes();
    without(&nodes, N3, N1);
    let came = driver(&nodes, &[1, 2]).unjoin(&call(), &id("n1")).await;
    assert!(matches!(&came, Effect::NoEffect(why) if why.contains("last two members")), "{came:?}");
    assert_eq!(nodes.changes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_node_that_nobody_can_name_is_not_taken_for_gone() {
    let nodes = healthy();
    nodes.kill(9);
    let machines = vec![machine(1), machine(2), Machine { address: "http://127.0.99.9:6333".into(), ..machine(3) }];
    let driver = Qdrant::new(Arc::new(NoProvider::new(machines, Vec::new())), nodes.clone());
    let came = driver.unjoin(&call(), &id("n3")).await;
    assert!(matches!(&came, Effect::Unknown(why) if why.contains("nobody can name")), "{came:?}");
}

#[tokio::test]
async fn a_dead_member_is_struck_off_when_nothing_is_lost_with_it() {
    let nodes = healthy();
    let driver = driver(&nodes, &[1, 2, 3]);
    assert!(matches!(driver.strike_off(&id("n3")).await, Effect::NoEffect(why) if why.contains("answers again")));
    nodes.kill(3);
    others_miss_n3(&nodes);
    let came = driver.strike_off(&id("n3")).await;
    assert!(matches!(&came, Effect::NoEffect(why) if why == "alpha/1 has its only active copy on n3"), "{came:?}");
    assert_eq!(nodes.changes(), Vec::<String>::new());
    // Copies elsewhere, and a transfer that the dead one was to feed.
    let elsewhere = [(0, N1, "Active"), (1, N3, "Active"), (1, N2, "Active"), (2, N2, "Active"), (3, N2, "Partial")];
    let transfer = json!([{"shard_id": 1, "from": N3, "to": N1, "sync": true}]);
    place_with(&nodes, "alpha", &elsewhere, transfer);
    nodes.kill(3);
    nodes.set(1, "POST /collections/alpha/cluster?timeout=10", recorded("abort_transfer_source_dead"));
    assert_eq!(driver.strike_off(&id("n3")).await, Effect::InProgress);
    let abort = json!({"abort_transfer": {"shard_id": 1, "from_peer_id": N3, "to_peer_id": N1}});
    assert_eq!(nodes.changes(), [alpha(&abort.to_string())], "once, though two members list it");
    place_with(&nodes, "alpha", &elsewhere, json!([]));
    nodes.kill(3);
    let path = format!("DELETE /cluster/peer/{N3}?force=true&timeout=10");
    nodes.set(1, &path, recorded("remove_dead_peer_force"));
    assert_eq!(driver.strike_off(&id("n3")).await, Effect::InProgress);
    assert_eq!(nodes.changes(), [format!("n1: {path}")]);
    without(&nodes, N3, N1);
    nodes.kill(3);
    assert_eq!(driver.strike_off(&id("n3")).await, Effect::Done(()));
    // The copy on a member that is dead as well is none.
    let nodes = healthy();
    place_with(&nodes, "alpha", &[(0, N1, "Active"), (1, N3, "Active"), (1, N2, "Dead")], json!([]));
    nodes.kill(3);
    others_miss_n3(&nodes);
    let came = Qdrant::strike_off(&super::driver(&nodes, &[1, 2, 3]), &id("n3")).await;
    assert!(matches!(&came, Effect::NoEffect(why) if why.contains("only active copy")), "{came:?}");
}

#[tokio::test]
async fn without_a_majority_no_member_goes() {
    let nodes = healthy();
    nodes.kill(2);
    nodes.kill(3);
    let driver = driver(&nodes, &[1, 2, 3]);
    for came in [driver.strike_off(&id("n3")).await, driver.unjoin(&call(), &id("n3")).await] {
        assert!(matches!(&came, Effect::NoEffect(why) if why.contains("no majority")), "{came:?}");
    }
    assert_eq!(nodes.changes(), Vec::<String>::new());
}

#[tokio::test]
async fn names_of_collections_cannot_lead_elsewhere() {
    let nodes = healthy();
    let driver = driver(&nodes, &[1, 2, 3]);
    for name in ["../cluster/peer", "a b?timeout=1", "%2e%2e", "ä#x"] {
        driver.replicate(&call(), &a_move(name, 0, "n1", "n2")).await;
        assert_eq!(nodes.changes(), Vec::<String>::new(), "{name}: nothing is there of that name");
    }
}
