//! Stories of the built-in vector node and its driver: nodes in this process, everything over HTTP.

mod replacing;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use vecscale::model::*;
use vecscale::node::client::{Client, ClientError};
use vecscale::node::peers::Peers;
use vecscale::operate::drivers::vectornode::Vectornode;
use vecscale::operate::drivers::*;

use world::*;

/// Writes and deletes points until it is stopped, and remembers what was acknowledged.
async fn writer(client: Client, stop: Arc<AtomicBool>, seed: u64) -> (BTreeMap<u64, Option<u64>>, u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut acknowledged, mut round, mut refused) = (BTreeMap::new(), 1, 0);
    while !stop.load(Ordering::Relaxed) {
        let point = seed * 1_000_000 + random.u64(0..300);
        let written = if random.u8(0..4) == 0 {
            client.delete("c", &[point]).await.map(|()| None)
        } else {
            client.upsert("c", &[(point, vector(point, round))]).await.map(|()| Some(round))
        };
        match written {
            Ok(state) => drop(acknowledged.insert(point, state)),
            Err(ClientError::Unavailable(_)) => {
                refused += 1;
                acknowledged.remove(&point); // nobody knows
            }
            Err(error) => panic!("a write was refused: {error}"),
        }
        round += 1;
    }
    (acknowledged, refused)
}

/// Searches until it is stopped; any failure is one too many.
async fn searcher(client: Client, stop: Arc<AtomicBool>, searches: Arc<AtomicU64>) {
    while !stop.load(Ordering::Relaxed) {
        let found = client.search("c", &vector(7, 0), 5).await.expect("searches never fail");
        assert_eq!(found.len(), 5);
        searches.fetch_add(1, Ordering::Relaxed);
    }
}

async fn all_there(client: &Client, acknowledged: &BTreeMap<u64, Option<u64>>) {
    for (&point, state) in acknowledged {
        let found = client.get("c", &[point]).await.unwrap();
        match state {
            None => assert_eq!(found, [], "point {point} came back after its deletion"),
            Some(round) => {
                let held = found.first().unwrap_or_else(|| panic!("point {point} is lost")).vector.clone().unwrap();
                let round_held = held[2] / held[0];
                assert!((round_held - *round as f32).abs() < 0.5, "point {point}: write {round_held}, not {round}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_move_while_points_are_written_deleted_and_searched() {
    let mut world = World::of(&["a", "b", "c"]).await;
    let store = world.driver(1).await;
    let client = world.client();
    client.create_collection("c", 4, 6, 1).await.unwrap();
    let fixed: Vec<_> = (0..3000).map(|n| (n, vector(n, 0))).collect();
    for batch in fixed.chunks(500) {
        client.upsert("c", batch).await.unwrap();
    }
    world.join(&store, "d").await;

    let (stop, searches) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (1..=3).map(|seed| tokio::spawn(writer(world.client(), stop.clone(), seed))).collect();
    let searchers: Vec<_> =
        (0..2).map(|_| tokio::spawn(searcher(world.client(), stop.clone(), searches.clone()))).collect();
    // Every shard goes to the new node and on to another one.
    let before = store.inventory(None).await.unwrap();
    for replica in &before.shards {
        relocate(&store, &relocation(&replica.shard, &replica.node, "d")).await;
        let next = if replica.node == id("a") { "b" } else { "a" };
        relocate(&store, &relocation(&replica.shard, &id("d"), next)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        let (written, refused) = writer.await.unwrap();
        assert_eq!(refused, 0, "writes failed during a move");
        acknowledged.extend(written);
    }
    for searcher in searchers {
        searcher.await.unwrap();
    }
    assert!(acknowledged.len() > 100 && searches.load(Ordering::Relaxed) > 50, "{} writes", acknowledged.len());
    all_there(&client, &acknowledged).await;
    let alive = acknowledged.values().flatten().count() as u64;
    assert_eq!(client.count("c").await.unwrap(), 3000 + alive, "points were lost or doubled");
    assert_eq!(client.digest("c").await.unwrap().vectors, 3000 + alive);
    // The node that gave everything away holds nothing, says so, and may leave.
    let member = store.inventory(None).await.unwrap().member(&id("d")).unwrap().clone();
    until("d has dropped its files", async || match store.held_by(&member).await {
        Ok(held) if held.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(std::fs::read_dir(world.data("d").join("shards")).unwrap().count(), 0);
    assert_eq!(store.unjoin(&call(), &id("d")).await, Effect::Done(()));
    assert_eq!(store.unjoin(&call(), &id("d")).await, Effect::Done(()), "again");
    assert_eq!(store.ready(&world.machine("d")).await, Ok(false));
    let refused = store.unjoin(&call(), &id("a")).await;
    assert!(matches!(refused, Effect::NoEffect(_)), "a node with shards left: {refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_is_taken_out_and_filled_again_when_it_returns() {
    let mut world = World::of(&["a", "b", "c"]).await;
    let store = world.driver(1).await;
    let client = world.client();
    client.create_collection("c", 4, 6, 2).await.unwrap();
    client.upsert("c", &(0..500).map(|n| (n, vector(n, 0))).collect::<Vec<_>>()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(writer(world.client(), stop.clone(), 1));
    world.kill("b").await;
    until("every shard without b, written again", async || {
        let seen = store.inventory(None).await.map_err(|e| e.0)?;
        let dead = seen.on(&id("b")).all(|r| r.state == ReplicaState::Dead);
        dead.then_some(()).ok_or_else(|| format!("{:?}", seen.shards))
    })
    .await;
    // With the replicas out, every write goes through at the first try.
    let late: Vec<_> = (500..900).map(|n| (n, vector(n, 0))).collect();
    client.upsert("c", &late).await.unwrap();
    client.delete("c", &(0..200).collect::<Vec<_>>()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let (acknowledged, _) = writer.await.unwrap();
    all_there(&client, &acknowledged).await;

    world.run("b").await;
    until("b is filled again", async || {
        let seen = store.inventory(None).await.map_err(|e| e.0)?;
        let whole = seen.shards.iter().all(|r| r.state == ReplicaState::Active) && seen.transfers.is_empty();
        whole.then_some(()).ok_or_else(|| format!("{:?}", seen.shards))
    })
    .await;
    let whole = client.digest("c").await.expect("all copies are the same");
    assert_eq!(whole.vectors, client.count("c").await.unwrap());
    // What b holds now is enough for everything that a and c hold with it.
    world.kill("a").await;
    all_there(&client, &acknowledged).await;
    assert_eq!(client.count("c").await.unwrap(), whole.vectors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_does_not_make_searches_fail() {
    let mut world = World::of(&["a", "b", "c"]).await;
    let _store = world.driver(1).await;
    let client = world.client();
    client.create_collection("c", 4, 6, 2).await.unwrap();
    client.upsert("c", &(0..100).map(|n| (n, vector(n, 0))).collect::<Vec<_>>()).await.unwrap();
    world.kill("b").await;
    // It takes connections and says nothing, as a node does whose disk or process hangs.
    let address = world.address("b");
    let hung = std::net::TcpListener::bind(address.trim_start_matches("http://")).unwrap();
    client.set_nodes(["a", "c"].map(|name| world.address(name)));
    for _ in 0..3 {
        assert_eq!(client.search("c", &vector(7, 0), 5).await.expect("the other copies answer").len(), 5);
    }
    drop(hung);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sole_copy_is_never_taken_out_and_survives_a_kill() {
    let mut world = World::of(&["a", "b", "c"]).await;
    let store = world.driver(1).await;
    let client = world.client();
    client.create_collection("c", 4, 3, 1).await.unwrap();
    client.upsert("c", &(0..300).map(|n| (n, vector(n, 0))).collect::<Vec<_>>()).await.unwrap();
    let before = client.digest("c").await.unwrap();
    world.kill("b").await;
    let refused = client.upsert("c", &(0..300).map(|n| (n, vector(n, 0))).collect::<Vec<_>>()).await;
    assert!(matches!(refused, Err(ClientError::Unavailable(_))), "{refused:?}");
    // In whatever order the nodes are asked, and though the one that is not there may be the last.
    for _ in 0..8 {
        let counted = client.count("c").await;
        assert!(matches!(counted, Err(ClientError::Unavailable(_))), "{counted:?}");
    }
    let seen = store.inventory(None).await.unwrap();
    assert!(seen.on(&id("b")).all(|r| r.state == ReplicaState::Active), "{:?}", seen.shards);
    assert!(!seen.member(&id("b")).unwrap().healthy);
    world.run("b").await;
    until("b serves again", async || client.count("c").await.map_err(|e| e.to_string())).await;
    assert_eq!(client.digest("c").await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_changes_and_a_newer_controller_shuts_the_older_out() {
    let mut world = World::of(&["a", "b", "c"]).await;
    let old = world.driver(1).await;
    world.client().create_collection("c", 4, 3, 1).await.unwrap();
    let cluster = old.inventory(None).await.unwrap();

    let new = world.driver(2).await;
    assert_eq!(new.inventory(None).await.unwrap(), cluster, "the newer controller found another cluster");
    assert_eq!(new.cordon(&call(), &id("a")).await, Effect::Done(()));
    let late = old.cordon(&call(), &id("b")).await;
    assert!(matches!(&late, Effect::Unknown(why) if why.contains("newer controller")), "{late:?}");
    assert!(old.inventory(None).await.is_err(), "the older controller still thinks that it knows");

    world.kill("b").await;
    world.kill("c").await;
    let alone = new.uncordon(&call(), &id("a")).await;
    assert!(matches!(&alone, Effect::Unknown(why) if why.contains("1 of 3")), "{alone:?}");
    world.run("b").await;
    until("the change is made with two of three", async || match new.uncordon(&call(), &id("a")).await {
        Effect::Done(()) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(!new.inventory(None).await.unwrap().member(&id("a")).unwrap().cordoned);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_cluster_is_formed_while_a_node_is_silent() {
    let mut world = World::of(&["a", "b"]).await;
    world.kill("b").await;
    let store = Vectornode::start(world.roster.clone(), 1);
    let refused = store.inventory(None).await.unwrap_err();
    assert!(refused.0.contains("b:"), "{refused}");
    world.run("b").await;
    until("formed", async || store.inventory(None).await.map(drop).map_err(|e| e.0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_are_idempotent_can_be_cancelled_and_outlive_the_controller() {
    let mut world = World::of(&["a", "b"]).await;
    let store = world.driver(1).await;
    let client = world.client();
    client.create_collection("c", 4, 2, 1).await.unwrap();
    client.upsert("c", &(0..2000).map(|n| (n, vector(n, 0))).collect::<Vec<_>>()).await.unwrap();
    let before = client.digest("c").await.unwrap();
    let replica = store.inventory(None).await.unwrap().on(&id("a")).next().unwrap().clone();
    let there = relocation(&replica.shard, &id("a"), "b");
    for (what, wrong) in [
        ("unknown target", relocation(&replica.shard, &id("a"), "x")),
        ("to itself", relocation(&replica.shard, &id("a"), "a")),
        ("from a node without it", relocation(&replica.shard, &id("x"), "b")),
        ("no such shard", relocation(&ShardId { collection: "c".into(), shard: 9 }, &id("a"), "b")),
    ] {
        let refused = store.start_move(&call(), &wrong).await;
        assert!(matches!(refused, Effect::NoEffect(_)), "{what}: {refused:?}");
    }
    // Cancelled at once, or finished before that: in both cases nothing is lost.
    assert_eq!(store.start_move(&call(), &there).await, Effect::Done(()));
    assert_eq!(store.start_move(&call(), &there).await, Effect::Done(()), "again");
    let cancelled = store.cancel_move(&call(), &there).await;
    assert!(matches!(cancelled, Effect::Done(()) | Effect::NoEffect(_)), "{cancelled:?}");
    assert_eq!(store.inventory(None).await.unwrap().transfers, []);
    assert_eq!(client.digest("c").await.unwrap(), before);

    // The controller dies with a move under way: the next one finishes it.
    let holder = store.inventory(None).await.unwrap();
    let from = holder.shards.iter().find(|r| r.shard == replica.shard).unwrap().node.clone();
    let to = if from == id("a") { "b" } else { "a" };
    world.kill(to).await; // so that it cannot be finished yet
    let onward = relocation(&replica.shard, &from, to);
    world.run(to).await;
    assert_eq!(store.start_move(&call(), &onward).await, Effect::Done(()));
    drop(store);
    let store = world.driver(2).await;
    relocate(&store, &onward).await;
    assert_eq!(store.start_move(&call(), &onward).await, Effect::Done(()), "after its end");
    assert_eq!(client.digest("c").await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_to_a_node_that_dies_is_given_up() {
    let mut world = World::of(&["a", "b", "c"]).await;
    let store = world.driver(1).await;
    let client = world.client();
    client.create_collection("c", 4, 1, 1).await.unwrap();
    client.upsert("c", &(0..100).map(|n| (n, vector(n, 0))).collect::<Vec<_>>()).await.unwrap();
    let replica = store.inventory(None).await.unwrap().shards[0].clone();
    let to = if replica.node == id("c") { "b" } else { "c" };
    world.kill(to).await;
    assert_eq!(store.start_move(&call(), &relocation(&replica.shard, &replica.node, to)).await, Effect::Done(()));
    until("the move is given up", async || {
        let seen = store.inventory(None).await.map_err(|e| e.0)?;
        let as_before = seen.transfers.is_empty() && seen.shards.len() == 1 && seen.shards[0].node == replica.node;
        as_before.then_some(()).ok_or_else(|| format!("{:?}", seen.shards))
    })
    .await;
    client.upsert("c", &[(1, vector(1, 1))]).await.expect("writes go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_does_not_join() {
    let mut world = World::of(&["a", "b", "c"]).await;
    let store = world.driver(1).await;
    let stranger = World::of(&["x", "y"]).await;
    let theirs = stranger.driver(1).await;
    let refused = store.join(&call(), &stranger.machine("x")).await;
    assert!(matches!(&refused, Effect::NoEffect(why) if why.contains("another cluster")), "{refused:?}");
    assert!(theirs.inventory(None).await.is_ok());
    // A node that was removed and lost its data comes back as an empty one.
    assert_eq!(store.unjoin(&call(), &id("c")).await, Effect::Done(()));
    world.kill("c").await;
    std::fs::remove_dir_all(world.data("c")).unwrap();
    world.join(&store, "c").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_coordinator_is_corrected_by_whom_it_asks() {
    let mut world = World::of(&["a", "b", "c"]).await;
    let store = world.driver(1).await;
    let client = world.client();
    client.create_collection("c", 4, 1, 1).await.unwrap();
    client.upsert("c", &(0..50).map(|n| (n, vector(n, 0))).collect::<Vec<_>>()).await.unwrap();
    let replica = store.inventory(None).await.unwrap().shards[0].clone();
    let others: Vec<_> = ["a", "b", "c"].into_iter().filter(|n| id(n) != replica.node).collect();
    let (to, stale) = (others[0], others[1]);
    // The third node is away during the move and comes back with the old map; no controller tells it the new one.
    world.kill(stale).await;
    relocate(&store, &relocation(&replica.shard, &replica.node, to)).await;
    drop(store);
    let root = world.dir.path().to_owned();
    let epoch = |name: &str| {
        let vote: Value =
            serde_json::from_slice(&std::fs::read(root.join(name).join("cluster.json")).unwrap()).unwrap();
        vote["learned"]["epoch"].as_u64().unwrap()
    };
    assert!(epoch(stale) < epoch(to));
    world.run(stale).await;
    let via_stale = Client::new([world.address(stale)]);
    until("the stale node answers for the cluster", async || via_stale.count("c").await.map_err(|e| e.to_string()))
        .await;
    via_stale.upsert("c", &[(50, vector(50, 1))]).await.unwrap();
    assert_eq!(via_stale.count("c").await.unwrap(), 51);
    assert_eq!(epoch(stale), epoch(to));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_correct_each_other_without_a_controller() {
    let world = World::of(&["a", "b", "c"]).await;
    let peers = plain_client();
    let members: Value = ["a", "b", "c"]
        .iter()
        .map(|n| (n.to_string(), json!({"address": world.address(n)})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let learn = async |epoch: u64, holders: &[(&str, &str)], told: &[&str]| {
        let replicas: Vec<_> = holders.iter().map(|(n, state)| json!({"node": n, "state": state})).collect();
        let shards = json!([{"epoch": epoch, "replicas": replicas}]);
        let one = json!({"id": 2, "size": 4, "shard_number": 1, "replication_factor": 1, "shards": shards});
        let collections = if epoch == 1 { json!({}) } else { json!({ "c": one }) };
        let map = json!({"cluster": "x", "fence": 1, "epoch": epoch, "members": members, "collections": collections});
        for node in told {
            let (code, answer) =
                peers.send("PUT", &format!("{}/cluster/map/learned", world.address(node)), map.clone()).await;
            assert_eq!(code, 200, "{answer}");
        }
    };
    let ask = json!({"collection": 2, "shards": [[0, 2]], "ask": "count"});
    let read_at =
        async |node: &str| peers.send("POST", &format!("{}/internal/read", world.address(node)), ask.clone()).await;
    learn(1, &[], &["a", "b", "c"]).await;
    learn(2, &[("a", "active")], &["a", "b", "c"]).await;
    let via_c = Client::new([world.address("c")]);
    via_c.upsert("c", &[(1, vector(1, 1)), (2, vector(2, 1))]).await.unwrap();

    learn(3, &[("a", "active"), ("b", "partial")], &["a", "b"]).await;
    assert_eq!(read_at("a").await, (200, json!({"points": [], "count": 2})));
    assert_eq!(read_at("b").await.0, 409, "a copy that is being filled was read");
    until("b is filled by a", async || {
        let (_, held) = peers.send("GET", &format!("{}/cluster/shards", world.address("a")), json!(null)).await;
        (held["shards"][0]["in_step"] == json!(["b"])).then_some(()).ok_or(held.to_string())
    })
    .await;
    learn(4, &[("b", "active")], &["a", "b"]).await;
    assert_eq!(read_at("a").await.0, 409, "a copy that was given away was read");
    // c still thinks that a has it all: a's refusal makes it look.
    via_c.upsert("c", &[(3, vector(3, 1))]).await.unwrap();
    assert_eq!(via_c.count("c").await.unwrap(), 3);
    assert_eq!(read_at("b").await.1["count"], 3);
    // The other way round: who asks knows more than who is asked.
    learn(5, &[("b", "active"), ("a", "partial")], &["c"]).await;
    via_c.upsert("c", &[(4, vector(4, 1))]).await.unwrap();
    learn(6, &[("a", "active"), ("b", "active")], &["c"]).await;
    via_c.delete("c", &[1]).await.unwrap();
    for node in ["a", "b"] {
        until("both copies are the same", async || {
            let (code, answer) = read_at(node).await;
            (code == 200 && answer["count"] == 3).then_some(()).ok_or(format!("{node}: {answer}"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_answers_are_those_of_qdrant() {
    let world = World::of(&["a", "b", "c"]).await;
    let _store = world.driver(1).await;
    let peers = plain_client();
    let send = async |method: &str, path: &str, body: Value| {
        let node = world.address(["a", "b", "c"][fastrand::usize(0..3)]);
        peers.send(method, &format!("{node}{path}"), body).await
    };
    let make = json!({"vectors": {"size": 2, "distance": "Cosine"}, "shard_number": 3, "replication_factor": 2});
    let point = |id: u64, x: f32, y: f32| json!({"id": id, "vector": [x, y], "payload": {"n": id}});
    let points = json!({"points": [point(1, 3.0, 4.0), point(2, 0.0, 1.0), point(3, -1.0, 0.0)]});
    let story: Vec<(&str, &str, Value, u16, Value)> = vec![
        ("PUT", "/collections/alpha", make.clone(), 200, json!(true)),
        ("PUT", "/collections/alpha", make, 409, json!("Wrong input: Collection `alpha` already exists!")),
        ("GET", "/collections", json!(null), 200, json!({"collections": [{"name": "alpha"}]})),
        ("PUT", "/collections/alpha/points?wait=true", points, 200, json!({"status": "completed"})),
        ("POST", "/collections/alpha/points/count", json!({"exact": true}), 200, json!({"count": 3})),
        (
            "GET",
            "/collections/alpha/points/1",
            json!(null),
            200,
            json!({"id": 1, "payload": {"n": 1}, "vector": [0.6, 0.8]}),
        ),
        ("GET", "/collections/alpha/points/9", json!(null), 404, json!("Not found: Point with id 9 does not exists!")),
        ("POST", "/collections/alpha/points", json!({"ids": [3, 9]}), 200, json!([{"id": 3, "payload": {"n": 3}}])),
        ("POST", "/collections/alpha/points/delete", json!({"points": [3]}), 200, json!({"status": "completed"})),
        ("GET", "/collections/nope", json!(null), 404, json!("Not found: Collection `nope` doesn't exist!")),
        (
            "POST",
            "/collections/alpha/points/query",
            json!({"query": [1, 2, 3], "limit": 1}),
            400,
            json!("Wrong input: Vector dimension error: expected dim: 2, got 3"),
        ),
        ("DELETE", "/collections/nope", json!(null), 200, json!(false)),
    ];
    for (method, path, body, status, wanted) in story {
        let (code, answer) = send(method, path, body).await;
        let got = if code == 200 { &answer["result"] } else { &answer["status"]["error"] };
        // Numbers of 32 bits are written as they are.
        let close = |v: &Value| v.to_string().replace("0.6000000238418579", "0.6").replace("0.800000011920929", "0.8");
        assert_eq!((code, close(got)), (status, wanted.to_string()), "{method} {path}: {answer}");
        assert!(answer["time"].is_f64() && (code != 200 || answer["status"] == "ok"), "{answer}");
    }
    let search = json!({"vector": [0.0, 5.0], "limit": 5, "with_payload": true});
    let (_, answer) = send("POST", "/collections/alpha/points/search", search).await;
    let hits: Vec<_> = answer["result"].as_array().unwrap().iter().map(|h| (&h["id"], &h["payload"]["n"])).collect();
    assert_eq!(hits, [(&json!(2), &json!(2)), (&json!(1), &json!(1))]);
    let score = |n: usize| answer["result"][n]["score"].as_f64().unwrap();
    assert!((score(0) - 1.0).abs() < 1e-6 && (score(1) - 0.8).abs() < 1e-6, "{answer}");

    for (what, path, body) in [
        ("uuid", "/collections/alpha/points", json!({"points": [{"id": "5c56c793-69f3", "vector": [1, 2]}]})),
        ("too large", "/collections/alpha/points", json!({"points": [{"id": 1, "vector": [1e39, 2]}]})),
        ("no number", "/collections/alpha/points", json!({"points": [{"id": 1, "vector": [1, "2"]}]})),
        ("other distance", "/collections/beta", json!({"vectors": {"size": 2, "distance": "Euclid"}})),
        ("no shards", "/collections/beta", json!({"vectors": {"size": 2, "distance": "Cosine"}, "shard_number": 0})),
        ("name", "/collections/-x", json!({"vectors": {"size": 2, "distance": "Cosine"}})),
    ] {
        let (code, answer) = send("PUT", path, body).await;
        assert!(code == 400 && answer["status"]["error"].is_string(), "{what}: {code} {answer}");
    }
    let filtered = json!({"vector": [1, 2], "limit": 1, "filter": {"must": []}});
    assert_eq!(send("POST", "/collections/alpha/points/search", filtered).await.0, 400);
    assert_eq!(send("DELETE", "/collections/alpha", json!(null)).await.1["result"], true);
    until("the files are gone", async || {
        let left: usize =
            ["a", "b", "c"].iter().map(|n| std::fs::read_dir(world.data(n).join("shards")).unwrap().count()).sum();
        (left == 0).then_some(()).ok_or_else(|| left.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_the_nodes_own_and_full_is_said() {
    let mut world = World::of(&[]).await;
    world.limits.memory_bytes = 20_000;
    world.run("a").await;
    let _store = world.driver(1).await;
    let client = world.client();
    client.create_collection("c", 4, 1, 1).await.unwrap();
    client.upsert("c", &(0..100).map(|n| (n, vector(n, 0))).collect::<Vec<_>>()).await.unwrap();
    let full = client.upsert("c", &(100..300).map(|n| (n, vector(n, 0))).collect::<Vec<_>>()).await;
    assert!(matches!(&full, Err(ClientError::Refused { status, .. }) if status.as_u16() == 507), "{full:?}");
    assert_eq!(client.count("c").await.unwrap(), 100, "a refused write left something");
    client.upsert("c", &[(5, vector(5, 1))]).await.expect("an overwritten point needs no room");
    client.search("c", &vector(1, 0), 3).await.unwrap();
    let peers = plain_client();
    let (_, stats) = peers.send("GET", &format!("{}/stats", world.address("a")), json!(null)).await;
    let memory = stats["memory_usage"].as_f64().unwrap();
    assert!((0.5..1.0).contains(&memory), "{stats}");
    assert_eq!((&stats["vectors"], &stats["searches_total"]), (&json!(100), &json!(1)));
    let page = peers.text(&format!("{}/metrics", world.address("a"))).await;
    for line in [
        "vectornode_vectors 100",
        "vectornode_searches_total 1",
        "vectornode_search_duration_seconds_count 1",
        "vectornode_requests_total{code=\"507\"} 1",
        "vectornode_search_duration_seconds_bucket{le=\"+Inf\"} 1",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not on the page:\n{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_damaged_file_is_not_passed_off_as_an_empty_shard() {
    let mut world = World::of(&["a", "b"]).await;
    let store = world.driver(1).await;
    let client = world.client();
    client.create_collection("c", 4, 2, 2).await.unwrap();
    for n in 0..50 {
        client.upsert("c", &[(n, vector(n, 0))]).await.unwrap();
    }
    world.kill("b").await;
    let mut files: Vec<_> =
        std::fs::read_dir(world.data("b").join("shards")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    std::fs::remove_file(&files[0]).unwrap();
    let mut content = std::fs::read(&files[1]).unwrap();
    content[40] ^= 1;
    std::fs::write(&files[1], content).unwrap();
    world.run("b").await;
    let peers = plain_client();
    let health = format!("{}/health", world.address("b"));
    until("b says what is wrong", async || {
        let (code, answer) = peers.send("GET", &health, json!(null)).await;
        (code == 503 && answer["status"].as_str().unwrap().contains(".log")).then_some(()).ok_or(answer.to_string())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(client.count("c").await.unwrap(), 50, "an empty copy was read");
    }
    let seen = store.inventory(None).await.unwrap();
    assert!(!seen.member(&id("b")).unwrap().healthy);
    assert_eq!(client.digest("c").await.ok().map(|d| d.vectors), None, "the lost copy counted as one");
}

/// Plain requests, to see status codes and bodies as any client would.
struct Plain(reqwest::Client);

fn plain_client() -> Plain {
    drop(Peers::default()); // names the TLS provider
    Plain(reqwest::Client::builder().no_proxy().build().unwrap())
}

impl Plain {
    async fn send(&self, method: &str, url: &str, body: Value) -> (u16, Value) {
        let mut request = self.0.request(method.parse().unwrap(), url);
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn text(&self, url: &str) -> String {
        self.0.get(url).send().await.unwrap().text().await.unwrap()
    }
}
