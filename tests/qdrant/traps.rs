//! What goes wrong in a Qdrant cluster, or is done to it by others: seen, explained, never made worse.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    CONFIG, WAIT, ask, controller, copies_are_whole, filled, of_node, operation, reason, refused, succeeded, was_gentle,
};
use crate::common::{World, http};
use crate::qdrant::Qdrant;

/// Polls until a request is refused by this guard.
async fn guarded(world: &World, path: &str, body: Value, guard: &str) {
    let refused = async |w: &World| {
        let (code, answer) = w.post(path, Some(body.clone())).await;
        assert_ne!(code, 202, "{path} was accepted: {answer:#}");
        answer["guards"].as_array()?.iter().any(|g| g["name"] == guard).then_some(())
    };
    world.until(&format!("{path} is held by {guard}"), WAIT, refused).await;
}

async fn ended(world: &World, id: &str) -> Value {
    let over = async |w: &World| {
        let operation = operation(w, id).await;
        let state = operation["state"].as_str().expect("a state").to_string();
        ["succeeded", "failed", "undone", "blocked", "partial", "cancelled"]
            .contains(&state.as_str())
            .then_some(operation)
    };
    world.until("the operation is over", WAIT, over).await
}

/// Points of both collections, read through a node.
async fn read(qdrant: &Qdrant, node: &str) -> [usize; 2] {
    [qdrant.scroll(node, "once").await.len(), qdrant.scroll(node, "twice").await.len()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_peer_holds_up_scaling_and_is_well_again() {
    let qdrant = filled(&["n1", "n2", "n3", "n4"]).await;
    let mut world = World::new(
        &CONFIG
            .replace("BASE", &qdrant.base)
            .replace(" KEY", "")
            .replace("after: 6s, after_degraded: 6s", "enabled: false"),
    );
    world.start().await;
    world.settled(4).await;
    qdrant.hang("n3");
    guarded(&world, "/autoscaling/scale-down", of_node("n2"), "unhealthy_nodes").await;
    let unwell = async |w: &World| (w.status().await["metrics"]["healthy_nodes"] == 3).then_some(());
    world.until("one of four is unwell", WAIT, unwell).await;
    assert!(qdrant.changes().iter().all(|asked| !asked.path.starts_with("/cluster/peer")), "{:?}", qdrant.changes());
    qdrant.revive("n3");
    world.settled(4).await;
    let id = ask(&world, "/autoscaling/scale-down", of_node("n2")).await;
    succeeded(&world, &id).await;
    copies_are_whole(&qdrant);
    assert_eq!(read(&qdrant, "n1").await, [3000, 3000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_tried() {
    let qdrant = filled(&["n1", "n2", "n3", "n4", "n5"]).await;
    let world = controller(&qdrant, 5).await;
    let before = qdrant.changes().len();
    for node in ["n3", "n4", "n5"] {
        qdrant.kill(node);
    }
    let shows = async |w: &World| {
        let status = w.status().await;
        status["guards"].as_array()?.iter().any(|g| g["name"] == "quorum").then_some(())
    };
    world.until("a look that shows it", WAIT, shows).await;
    for path in ["/autoscaling/scale-up", "/autoscaling/scale-down", "/autoscaling/rebalance"] {
        guarded(&world, path, reason(), "quorum").await;
    }
    // Longer than a dead node is waited for.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(world.status().await["operation"].is_null());
    let tried = qdrant.changes().split_off(before);
    assert!(tried.is_empty() && qdrant.ledger().made.is_empty(), "{tried:?}");
    for node in ["n3", "n4", "n5"] {
        qdrant.revive(node);
    }
    world.settled(5).await;
    let id = ask(&world, "/autoscaling/scale-down", of_node("n5")).await;
    succeeded(&world, &id).await;
    assert_eq!(read(&qdrant, "n1").await, [3000, 3000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_transfer_of_somebody_else_is_waited_for() {
    let qdrant = filled(&["n1", "n2", "n3", "n4"]).await;
    let world = controller(&qdrant, 4).await;
    // A shard of `once` takes two minutes now.
    qdrant.with(|cluster, _| cluster.bytes_per_second = 700);
    let telemetry = format!("{}/collections/once/cluster", qdrant.address("n1"));
    let told: Value = http().get(&telemetry).send().await.expect("an answer").json().await.expect("JSON");
    let from = &told["result"]["peer_id"];
    let shard = &told["result"]["local_shards"][0]["shard_id"];
    let to = qdrant.with(|cluster, _| cluster.peer("n4"));
    let theirs = json!({"shard_id": shard, "from_peer_id": from, "to_peer_id": to, "method": "stream_records"});
    let asked = http().post(&telemetry).json(&json!({"replicate_shard": theirs})).send().await.expect("an answer");
    assert_eq!(asked.status(), 200);
    let before = qdrant.changes().len();
    for path in ["/autoscaling/scale-down", "/autoscaling/rebalance"] {
        guarded(&world, path, reason(), "foreign_operation").await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(qdrant.with(|cluster, _| cluster.transfers().len()), 1, "nobody touches it");
    let tried = qdrant.changes().split_off(before);
    assert!(tried.is_empty(), "{tried:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resharding_is_waited_for() {
    let qdrant = filled(&["n1", "n2", "n3", "n4"]).await;
    let world = controller(&qdrant, 4).await;
    qdrant.with(|cluster, _| cluster.reshard("twice"));
    let before = qdrant.changes().len();
    for path in ["/autoscaling/scale-down", "/autoscaling/rebalance"] {
        guarded(&world, path, reason(), "foreign_operation").await;
    }
    let tried = qdrant.changes().split_off(before);
    assert!(tried.is_empty(), "{tried:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_is_made_during_a_drain_is_drained_too_and_one_that_is_deleted_is_told_of() {
    let qdrant = filled(&["n1", "n2", "n3", "n4"]).await;
    qdrant.fill("short", 4, 1, 400).await;
    let world = controller(&qdrant, 4).await;
    // Each shard takes a second or two.
    qdrant.with(|cluster, _| cluster.bytes_per_second = 60_000);
    let id = ask(&world, "/autoscaling/scale-down", of_node("n4")).await;
    let runs = async |_: &World| (!qdrant.with(|cluster, _| cluster.transfers().is_empty())).then_some(());
    world.until("a shard is on its way", WAIT, runs).await;
    qdrant.fill("late", 8, 1, 800).await;
    assert!(qdrant.with(|cluster, _| cluster.census("late").points.len()) == 800);
    let gone = http().delete(format!("{}/collections/short", qdrant.address("n1"))).send().await.expect("an answer");
    assert_eq!(gone.status(), 200);
    let done = succeeded(&world, &id).await;
    let proof = done["steps"].as_array().expect("steps").iter().find(|step| step["step"] == "prove").expect("a proof");
    assert_eq!(proof["output"]["deleted"], json!(["short"]), "{proof:#}");
    world.settled(3).await;
    copies_are_whole(&qdrant);
    was_gentle(&qdrant);
    assert_eq!(read(&qdrant, "n1").await, [3000, 3000]);
    assert_eq!(qdrant.count("n1", "late").await, 800);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_dies_in_the_middle_costs_nothing() {
    let qdrant = filled(&["n1", "n2", "n3"]).await;
    let (once, twice) = (qdrant.scroll("n1", "once").await, qdrant.scroll("n1", "twice").await);
    let world = controller(&qdrant, 3).await;
    let (on_once, on_twice) = (qdrant.load("once"), qdrant.load("twice"));
    qdrant.with(|cluster, _| cluster.bytes_per_second = 60_000);
    let id = ask(&world, "/autoscaling/scale-up", reason()).await;
    let target = async |_: &World| qdrant.with(|cluster, _| cluster.transfers().first().map(|t| t.3.clone()));
    let target = world.until("a shard is on its way", WAIT, target).await;
    qdrant.kill(&target);
    let aborted = async |_: &World| qdrant.with(|cluster, _| cluster.transfers().is_empty()).then_some(());
    world.until("the transfer is aborted", WAIT, aborted).await;
    qdrant.revive(&target);
    let operation = ended(&world, &id).await;
    assert_ne!(operation["state"], "blocked", "{operation:#}");
    copies_are_at_least(&qdrant);
    was_gentle(&qdrant);
    on_once.all_is_there(&qdrant, "n1", "once", &once).await;
    on_twice.all_is_there(&qdrant, "n1", "twice", &twice).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_dies_in_the_middle_costs_nothing() {
    let qdrant = filled(&["n1", "n2", "n3", "n4"]).await;
    let mut world = World::new(
        &CONFIG
            .replace("BASE", &qdrant.base)
            .replace(" KEY", "")
            .replace("after: 6s, after_degraded: 6s", "after: 10m"),
    );
    world.start().await;
    world.settled(4).await;
    let before = qdrant.scroll("n1", "twice").await;
    let load = qdrant.load("twice");
    qdrant.with(|cluster, _| cluster.bytes_per_second = 60_000);
    let id = ask(&world, "/autoscaling/scale-down", of_node("n4")).await;
    let runs = async |_: &World| qdrant.with(|cluster, _| cluster.transfers().first().map(|t| t.2.clone()));
    let source = world.until("a shard is on its way", WAIT, runs).await;
    qdrant.kill(&source);
    tokio::time::sleep(Duration::from_secs(8)).await;
    qdrant.revive(&source);
    let operation = ended(&world, &id).await;
    assert_ne!(operation["state"], "blocked", "{operation:#}");
    was_gentle(&qdrant);
    copies_are_at_least(&qdrant);
    load.all_is_there(&qdrant, "n1", "twice", &before).await;
    assert_eq!(read(&qdrant, "n1").await[0], 3000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_two_versions_are_not_scaled() {
    let qdrant = filled(&["n1", "n2", "n3"]).await;
    qdrant.make("1.18.2");
    let made = http().put(format!("{}/nodes/n4", qdrant.base)).send().await.expect("an answer");
    assert_eq!(made.status(), 201);
    let world = controller(&qdrant, 4).await;
    let before = qdrant.changes().len();
    for path in ["/autoscaling/scale-up", "/autoscaling/scale-down", "/autoscaling/rebalance"] {
        let guards = refused(&world, path, reason()).await;
        assert!(guards.contains(&"mixed_versions".to_string()), "{path}: {guards:?}");
    }
    let tried = qdrant.changes().split_off(before);
    assert!(tried.is_empty() && qdrant.ledger().made.len() == 1, "{tried:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_key_is_enough_to_see_and_a_refused_change_is_explained() {
    let qdrant = filled(&["n1", "n2", "n3", "n4"]).await;
    qdrant.demand("full", "ro");
    let mut world = World::new(&CONFIG.replace("BASE", &qdrant.base).replace(" KEY", ", api_key_file: key"));
    std::fs::write(world.path("key"), "ro\n").expect("the key");
    world.start().await;
    world.settled(4).await;
    let seen = async |w: &World| {
        let metrics = &w.status().await["metrics"];
        (metrics["total_vectors"] == 6000 && metrics["storage_usage"].is_number() && metrics["cpu_usage"].is_number())
            .then_some(())
    };
    world.until("the cluster is seen", WAIT, seen).await;
    let id = ask(&world, "/autoscaling/scale-down", of_node("n4")).await;
    let operation = ended(&world, &id).await;
    assert_ne!(operation["state"], "succeeded");
    let said = operation.to_string();
    assert!(said.contains("Global manage access is required"), "{operation:#}");
    assert!(!said.contains("\"ro\""), "the key is told: {said}");
    assert_eq!(qdrant.with(|cluster, _| cluster.registered().len()), 4);
    assert!(
        qdrant
            .changes()
            .iter()
            .all(|asked| asked.status == Some(403) || asked.path.ends_with("once") || asked.path.ends_with("twice"))
    );

    // With the full key in the same file it goes on to work.
    std::fs::write(world.path("key"), "full\n").expect("the key");
    world.until("it may be asked again", WAIT, async |w| w.status().await["operation"].is_null().then_some(())).await;
    let id = ask(&world, "/autoscaling/scale-down", of_node("n4")).await;
    succeeded(&world, &id).await;
    copies_are_whole(&qdrant);
}

/// No shard has fewer active copies than its collection wants, and all of them agree.
fn copies_are_at_least(qdrant: &Qdrant) {
    for (collection, copies) in [("once", 1), ("twice", 2)] {
        let census = qdrant.with(|cluster, _| cluster.census(collection));
        assert!(census.copies.values().all(|n| *n >= copies), "{collection}: {:?}", census.copies);
        assert!(census.lost.is_empty() && census.differing.is_empty(), "{collection}: {census:?}");
    }
}
