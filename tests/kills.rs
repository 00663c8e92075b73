//! The controller is killed at seeded instants of scale-ups and scale-downs, over scripts and over the embedded cluster:
//! nothing is lost, nothing is made twice, and each effect has one row in the audit trail.
//!
//! `VECSCALE_KILLS` sets how many kills there are in all (default 10).

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::platform::{Load, Platform};
use common::{EMBEDDED, Vectors, World};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(90);
/// Kills per world: one while it grows, one while it shrinks.
const PER_WORLD: u64 = 2;

/// Worlds to be made of each kind.
fn worlds() -> u64 {
    let kills = std::env::var("VECSCALE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_u64);
    kills.div_ceil(2 * PER_WORLD)
}

/// Instants spread over the whole operation, the same for the same seed.
fn instant(seed: u64, longest: Duration) -> Duration {
    longest.mul_f64(fastrand::Rng::with_seed(seed).f64())
}

async fn healthy(world: &World, nodes: usize) {
    let what = format!("{nodes} healthy nodes and no operation");
    let settled = async |w: &World| {
        let status: Value = serde_json::from_str(&w.try_get("/autoscaling/status").await?).ok()?;
        let healthy = status["metrics"]["healthy_nodes"] == nodes && status["metrics"]["node_count"] == nodes;
        (healthy && status["operation"].is_null()).then_some(())
    };
    world.until(&what, WAIT, settled).await;
}

/// Asks for an operation, kills the controller after a while, starts it again, and waits for the end.
async fn through_a_kill(world: &mut World, path: &str, after: Duration, nodes: usize) {
    let asked = world
        .until("the operation is accepted", WAIT, async |w: &World| {
            let (code, answer) = w.post(path, Some(json!({"reason": "the kill test"}))).await;
            (code == 202).then_some(answer)
        })
        .await;
    let id = asked["operation"]["id"].as_str().expect("an id").to_string();
    tokio::time::sleep(after).await;
    world.kill();
    world.start().await;
    let ended = async |w: &World| {
        let operation = w.get(&format!("/autoscaling/operations/{id}")).await;
        let state = operation["state"].as_str()?.to_string();
        assert_ne!(state, "blocked", "{operation}");
        (state == "succeeded").then_some(())
    };
    world.until("the operation ended well", WAIT, ended).await;
    healthy(world, nodes).await;
}

/// Each effect that the journal tells of, and how many rows of the audit trail say that it was done.
async fn rows_per_effect(world: &World) -> BTreeMap<String, usize> {
    let history = world.get("/autoscaling/history?kind=step&limit=1000").await;
    let mut rows = BTreeMap::new();
    for item in history["items"].as_array().expect("a list") {
        if item["detail"]["step"]["state"] == "done" {
            let key = item["detail"]["step"]["key"].as_str().unwrap_or_else(|| panic!("no key: {item}"));
            *rows.entry(key.to_string()).or_default() += 1;
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_scripts_nothing_is_made_twice() {
    for seed in 0..worlds() {
        let mut world = World::new("");
        let load = Load { cpu: 0.4, memory: 0.4, searches_per_second: 50.0 };
        let platform = Platform::new(world.dir.path(), &["n1", "n2"], load).await;
        let config = platform.config("min_nodes: 2, max_nodes: 4, scale_up_cooldown: 0, scale_down_cooldown: 0");
        std::fs::write(world.path("config.yaml"), config).expect("the configuration");
        world.start().await;
        healthy(&world, 2).await;

        through_a_kill(&mut world, "/autoscaling/scale-up", instant(seed, Duration::from_secs(5)), 3).await;
        through_a_kill(&mut world, "/autoscaling/scale-down", instant(seed + 1000, Duration::from_secs(3)), 2).await;

        let ledger = platform.ledger();
        for what in ["made", "removed"] {
            let effects = platform.effects(what);
            assert_eq!(effects.values().sum::<u32>(), 1, "seed {seed}: {what}: {ledger:#?}\n{}", world.logs());
        }
        assert!(!ledger.iter().any(|l| l.starts_with("concurrent")), "seed {seed}: {ledger:#?}");
        assert_eq!(platform.nodes().len(), 2, "seed {seed}: an orphan: {ledger:#?}");
        let rows = rows_per_effect(&world).await;
        assert!(!rows.is_empty() && rows.values().all(|&n| n == 1), "seed {seed}: {rows:#?}");
        eprintln!("scripts, seed {seed}: {PER_WORLD} kills survived");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_embedded_cluster_no_vector_is_lost() {
    for seed in 0..worlds() {
        let mut world = World::new(&EMBEDDED.replace("THRESHOLDS", "min_nodes: 3, max_nodes: 5"));
        world.start().await;
        healthy(&world, 3).await;
        let vectors = Vectors::fill(&world, 600).await;
        let before = vectors.digest().await;

        through_a_kill(&mut world, "/autoscaling/scale-up", instant(seed, Duration::from_secs(12)), 4).await;
        vectors.follow(&world).await;
        assert_eq!(vectors.digest().await, before, "seed {seed}: after the scale-up\n{}", world.logs());
        through_a_kill(&mut world, "/autoscaling/scale-down", instant(seed + 1000, Duration::from_secs(12)), 3).await;
        vectors.follow(&world).await;
        assert_eq!(vectors.digest().await, before, "seed {seed}: after the scale-down\n{}", world.logs());

        assert_eq!(world.node_pids().len(), 3, "seed {seed}: an orphan process");
        let directories = std::fs::read_dir(world.storage().join("default/nodes")).expect("the nodes");
        let left = directories.filter(|e| e.as_ref().is_ok_and(|e| e.path().join("node.json").exists())).count();
        assert_eq!(left, 3, "seed {seed}: a left-over directory");
        let rows = rows_per_effect(&world).await;
        assert!(!rows.is_empty() && rows.values().all(|&n| n == 1), "seed {seed}: {rows:#?}");
        assert_eq!(world.stop(), Some(0));
        eprintln!("embedded, seed {seed}: {PER_WORLD} kills survived");
    }
}
