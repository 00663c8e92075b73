//! A cluster of real Qdrant processes grows, shrinks, loses a node and loses its controller, under writes and searches,
//! and at the end every point is there. It needs a Qdrant (the driver is made from recordings of 1.19.0):
//!
//! `QDRANT_BIN=/path/to/qdrant cargo test --test qdrant_real -- --ignored --nocapture`

#[path = "../common/mod.rs"]
mod common;
mod load;
mod place;

use std::time::Instant;

use load::{Load, ONE, SHARDS, TWO};
use place::{Place, moved};
use serde_json::json;

/// Points in each collection before anything happens.
const POINTS: u64 = 50_000;

/// Ends the load: no point is lost, no search of the collection with two copies failed, and every shard has its copies.
async fn all_is_there(place: &Place, load: Load, collections: &[(&str, usize)]) {
    let told = load.end(&place.world).await;
    eprintln!("{told}");
    told.nothing_is_lost();
    assert_eq!(told.of(TWO).failed, 0, "searches failed although there are two copies\n{}", place.world.logs());
    for (collection, copies) in collections {
        place.every_shard_has(collection, *copies).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QDRANT_BIN"]
async fn three_nodes_to_four_and_back_under_writes_and_searches() {
    let place = Place::of_three().await;
    let load = Load::begin(&place.world, &[(ONE, 1), (TWO, 2)], POINTS).await;
    let mut all_moved = (0, 0);
    for (what, nodes) in [("scale-up", 4), ("scale-down", 3)] {
        let began = Instant::now();
        let operation = place.operate(what, json!({})).await;
        assert_eq!(operation["state"], "succeeded", "{operation:#}\n{}", place.world.logs());
        let (shards, bytes) = moved(&operation);
        eprintln!("{what}: {:.1} s, {shards} shards, {bytes} bytes moved", began.elapsed().as_secs_f64());
        assert!(shards > 0, "nothing was moved: {operation:#}");
        all_moved = (all_moved.0 + shards, all_moved.1 + bytes);
        place.world.settled(nodes).await;
        assert_eq!(place.members().await.len(), nodes);
    }
    eprintln!("{} shards, {} bytes moved in all", all_moved.0, all_moved.1);
    all_is_there(&place, load, &[(ONE, 1), (TWO, 2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QDRANT_BIN"]
async fn a_killed_node_is_replaced_and_all_points_have_their_copies_again() {
    let place = Place::of_three().await;
    let load = Load::begin(&place.world, &[(TWO, 2)], POINTS).await;
    let dead = "default-2";
    place.kill_node(dead);
    let killed_at = Instant::now();
    let operation = place.ended("replace").await;
    assert_eq!(operation["state"], "succeeded", "{operation:#}\n{}", place.world.logs());
    let (shards, bytes) = moved(&operation);
    let took = killed_at.elapsed().as_secs_f64();
    eprintln!("{dead} was replaced {took:.1} s after its end; {shards} shards, {bytes} bytes copied");
    place.world.settled(3).await;
    all_is_there(&place, load, &[(TWO, 2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QDRANT_BIN"]
async fn the_controller_is_killed_while_shards_move_and_finishes_later() {
    let mut place = Place::of_three().await;
    let load = Load::begin(&place.world, &[(ONE, 1), (TWO, 2)], POINTS).await;
    for (what, nodes) in [("scale-up", 4), ("scale-down", 3)] {
        let id = place.ask(what, json!({})).await;
        // Once at the first move that runs, and once more at a later one.
        for kill in 1..=2 {
            let (is_on_its_way, done) = place.kill_during_a_move(&id).await;
            eprintln!("{what}: kill {kill} of the controller {done}, a shard on its way: {is_on_its_way}");
            assert!(is_on_its_way || kill > 1, "no shard was on its way when the controller was killed");
            place.world.start().await;
            load.follow(&place.world);
        }
        let operation = place.end_of(&id).await;
        assert_eq!(operation["state"], "succeeded", "{operation:#}\n{}", place.world.logs());
        place.world.settled(nodes).await;
        assert_eq!(place.members().await.len(), nodes, "one node more or fewer, not two");
        assert_eq!(place.processes().len(), nodes);
        let items = place.world.get("/autoscaling/operations").await["items"].clone();
        let begun = items.as_array().expect("operations").iter().filter(|o| o["kind"] == json!(what.replace('-', "_")));
        assert_eq!(begun.count(), 1, "{items:#}");
    }
    all_is_there(&place, load, &[(ONE, 1), (TWO, 2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QDRANT_BIN"]
async fn a_skewed_cluster_is_evened_out_and_the_leader_of_the_consensus_leaves() {
    let place = Place::of_three().await;
    let load = Load::begin(&place.world, &[(ONE, 1), (TWO, 2)], POINTS).await;
    place.pile_up(ONE, "default-1").await;
    let evened = place.operate("rebalance", json!({})).await;
    assert_eq!(evened["state"], "succeeded", "{evened:#}\n{}", place.world.logs());
    let (shards, bytes) = moved(&evened);
    eprintln!(
        "rebalance: {shards} shards, {bytes} bytes moved; {} of {SHARDS} on one node",
        place.most_on_one(ONE).await
    );
    assert!(shards > 0, "nothing was moved: {evened:#}");
    assert!(place.most_on_one(ONE).await < SHARDS as usize, "all are where they were");

    let added = place.operate("scale-up", json!({})).await;
    assert_eq!(added["state"], "succeeded", "{added:#}\n{}", place.world.logs());
    place.make("old").await;
    let leader = place.leader().await;
    let id = place.ask("scale-down", json!({ "node": leader })).await;
    place.delete("old").await;
    let removed = place.end_of(&id).await;
    assert_eq!(removed["state"], "succeeded", "{removed:#}\n{}", place.world.logs());
    let proof = removed["steps"].as_array().expect("steps").iter().find(|s| s["step"] == "prove").expect("a proof");
    eprintln!("{}", proof["output"]);
    assert_eq!(proof["output"]["deleted"], json!(["old"]), "{removed:#}");
    eprintln!("{leader}, which led the consensus, has left; {} leads now", place.leader().await);
    place.world.settled(3).await;
    assert!(!place.processes().contains(&leader));
    all_is_there(&place, load, &[(ONE, 1), (TWO, 2)]).await;
}
