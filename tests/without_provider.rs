//! Vector nodes of an operator's own, over the real program: one that is added to the list is adopted and filled, one is
//! emptied with a proof and taken away, and vecscale makes and destroys none.

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::before::says;
use common::{COLLECTION, VECSCALE, Vectors, World};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use vecscale::model::NodeId;
use vecscale::node::pace::Meter;
use vecscale::node::server::{Settings, start};
use vecscale::node::state::Limits;

const WAIT: Duration = Duration::from_secs(120);
const VECTORS: u64 = 2_000;

const CONFIG: &str = "
autoscaling: {mode: active}
pools:
  - name: default
    thresholds: {health_check_interval: 1, min_nodes: 3, max_nodes: 6}
    provider: {type: none}
    datastore: {type: vectornode}
    nodes: {file_sd: [nodes.json]}
";

/// The nodes run as long as this lives.
struct Nodes {
    stop: CancellationToken,
    listed: Vec<Value>,
}

impl Nodes {
    async fn add(&mut self, world: &World, name: &str) {
        let limits = Limits { cpu_cores: 8.0, memory_bytes: 256 << 20, storage_bytes: 1 << 30 };
        let id = NodeId::new(name).expect("a name");
        let settings = Settings { id, listen: ([127, 0, 0, 1], 0).into(), data: world.path(name), limits };
        let (address, serving) =
            start(settings, Meter::Work(0.into()), self.stop.clone()).await.expect("the node starts");
        tokio::spawn(serving);
        let target = address.trim_start_matches("http://");
        self.listed.push(json!({"targets": [target], "labels": {"node": name}}));
        let whole = world.path("nodes.new");
        fs::write(&whole, json!(self.listed).to_string()).expect("the list");
        fs::rename(whole, world.path("nodes.json")).expect("the list in its place");
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What a command prints, and its exit code.
async fn types(world: &World, line: &str) -> (String, Option<i32>) {
    let mut command = Command::new(VECSCALE);
    command.args(line.split(' ')).arg(format!("--url={}", world.url));
    let run = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("a run");
    (String::from_utf8([run.stdout, run.stderr].concat()).expect("text"), run.status.code())
}

fn shards_on(status: &Value, node: &str) -> Option<u64> {
    status["nodes"].as_array()?.iter().find(|n| n["id"] == node)?["shards"].as_u64()
}

/// The status once n2 is seen to be empty.
async fn drained(world: &World) -> Option<Value> {
    Some(world.status().await).filter(|status| shards_on(status, "n2") == Some(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_added_is_filled_and_what_is_to_go_is_emptied_with_a_proof() {
    let mut world = World::new(CONFIG);
    let mut nodes = Nodes { stop: CancellationToken::new(), listed: Vec::new() };
    for name in ["n1", "n2", "n3"] {
        nodes.add(&world, name).await;
    }
    world.start().await;
    world.settled(3).await;
    let vectors = Vectors::fill(&world, VECTORS).await;
    let before = vectors.client.digest(COLLECTION).await.expect("all copies are the same");

    nodes.add(&world, "n4").await;
    let filled = async |w: &World| {
        let status = w.status().await;
        let done = status["operation"].is_null() && shards_on(&status, "n4").is_some_and(|shards| shards > 0);
        done.then_some(status)
    };
    let status = world.until("n4 is adopted and has its share", WAIT, filled).await;
    let last = &status["last_operation"];
    assert_eq!(
        (&last["kind"], &last["trigger"], &last["who"]),
        (&json!("adopt"), &json!("arrival"), &json!("vecscale"))
    );
    assert!(shards_on(&status, "n4") >= Some(3), "of 16 copies on 4 nodes: {status:#}");
    assert_eq!(status["needs_human"], json!([]), "{status:#}");
    world.settled(4).await;

    let (said, code) = types(&world, "rebalance").await;
    assert!(code == Some(0) && said.starts_with("rebalance: moves "), "{said}");
    assert_eq!(world.status().await["last_operation"]["kind"], "adopt", "a look moves nothing");

    let (said, code) = types(&world, "drain n2").await;
    assert_eq!(code, Some(0), "{said}\n{}", world.logs());
    says(
        &said,
        &["n2 holds nothing", "it says so itself, and n1, n3, n4 agreed", "8 shards complete on the other nodes"],
    );
    let status = world.until("it is seen to be empty", WAIT, drained).await;
    let node = status["nodes"].as_array().expect("a list").iter().find(|n| n["id"] == "n2").expect("n2").clone();
    assert!(node["state"] == "draining" && node["drained_by"].is_string(), "{node:#}");
    assert_eq!((&status["unexplained"], &status["needs_human"]), (&json!([]), &json!([])));

    world.kill();
    world.start().await;
    world.settled(4).await;
    let status = world.until("it stays empty", WAIT, drained).await;
    assert_eq!((&status["unexplained"], &status["needs_human"]), (&json!([]), &json!([])));
    assert_eq!(vectors.client.digest(COLLECTION).await.expect("all copies are the same"), before);

    let (said, code) = types(&world, "drain n2 --undo").await;
    assert_eq!((said.as_str(), code), ("n2 is open for shards again\n", Some(0)));
    let (said, code) = types(&world, "drain n2 --undo").await;
    assert!(code == Some(1) && said.contains("n2 was not drained"), "{said}");
    let open = async |w: &World| {
        let status = w.status().await;
        status["nodes"].as_array()?.iter().all(|n| n["state"] == "serving").then_some(())
    };
    world.until("it is open again", WAIT, open).await;
    let (said, code) = types(&world, "rebalance --apply").await;
    assert_eq!(code, Some(0), "{said}\n{}", world.logs());
    assert_eq!(vectors.client.digest(COLLECTION).await.expect("all copies are the same"), before);

    let (code, answer) = world.post("/autoscaling/scale-down", Some(json!({"reason": "a test"}))).await;
    assert_eq!(code, 409, "{answer}");
    says(answer["detail"].as_str().expect("a detail"), &["no_provider: no provider is configured"]);
}
