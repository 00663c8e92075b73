//! The real program over a double of a Qdrant cluster: it grows, shrinks, repairs and rebalances it under writes and
//! searches, and every trap of Qdrant's is seen, explained, and made no worse.

#[path = "../common/mod.rs"]
mod common;
mod double;
#[path = "../common/qdrant/mod.rs"]
mod qdrant;
mod traps;
mod workflows;

use std::time::Duration;

use common::World;
use qdrant::Qdrant;
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(150);

/// Nothing happens that nobody asked for, but for the replacement of a dead node.
const CONFIG: &str = "
autoscaling: {mode: active}
pools:
  - name: default
    thresholds: {health_check_interval: 1, scale_up_cooldown: 0, scale_down_cooldown: 0, min_nodes: 3, max_nodes: 6}
    replace: {after: 6s, after_degraded: 6s}
    scale_up: {enabled: false}
    scale_down: {enabled: false}
    provider: {type: http, base: \"BASE\", timeout: 60s}
    datastore: {type: qdrant KEY}
";

/// A controller over these nodes; it runs, and has seen them all.
async fn controller(qdrant: &Qdrant, nodes: usize) -> World {
    let mut world = World::new(&CONFIG.replace("BASE", &qdrant.base).replace(" KEY", ""));
    world.start().await;
    world.settled(nodes).await;
    world
}

/// A cluster with two collections: `once` has one copy of each shard, `twice` has two.
async fn filled(nodes: &[&str]) -> Qdrant {
    let qdrant = Qdrant::new(nodes).await;
    qdrant.fill("once", 6, 1, 3000).await;
    qdrant.fill("twice", 6, 2, 3000).await;
    qdrant
}

/// Asks for an operation once it is accepted; gives its id.
async fn ask(world: &World, path: &str, body: Value) -> String {
    let accepted = async |w: &World| {
        let (code, answer) = w.post(path, Some(body.clone())).await;
        (code == 202).then_some(answer)
    };
    let asked = world.until("the operation is accepted", WAIT, accepted).await;
    asked["operation"]["id"].as_str().expect("an id").to_string()
}

async fn operation(world: &World, id: &str) -> Value {
    world.get(&format!("/autoscaling/operations/{id}")).await
}

async fn succeeded(world: &World, id: &str) -> Value {
    let ended = async |w: &World| {
        let operation = operation(w, id).await;
        let state = operation["state"].as_str().expect("a state");
        assert!(!["blocked", "failed", "undone"].contains(&state), "{operation:#}\n{}", w.logs());
        (state == "succeeded").then_some(operation)
    };
    world.until("the operation ended well", WAIT, ended).await
}

/// It is refused; gives the names of the guards.
async fn refused(world: &World, path: &str, body: Value) -> Vec<String> {
    let (code, answer) = world.post(path, Some(body)).await;
    assert_eq!(code, 409, "{path}: {answer:#}");
    let guards = answer["guards"].as_array().unwrap_or_else(|| panic!("no guards: {answer:#}"));
    guards.iter().map(|guard| guard["name"].as_str().expect("a name").to_string()).collect()
}

/// Nobody was removed by force from the cluster, and nothing was moved in a way that destroys a copy.
fn was_gentle(qdrant: &Qdrant) {
    for asked in qdrant.changes() {
        assert!(!asked.path.contains("force"), "{asked:?}");
        assert!(asked.body.get("move_shard").is_none(), "{asked:?}");
    }
}

/// Every shard has as many active copies as its collection wants.
fn copies_are_whole(qdrant: &Qdrant) {
    for (collection, copies) in [("once", 1), ("twice", 2)] {
        let census = qdrant.with(|cluster, _| cluster.census(collection));
        assert!(census.copies.values().all(|n| *n == copies), "{collection}: {:?}", census.copies);
        assert!(census.differing.is_empty(), "{collection}: {:?}", census.differing);
    }
}

fn reason() -> Value {
    json!({"reason": "a test"})
}

fn of_node(node: &str) -> Value {
    json!({"reason": "a test", "node": node})
}
