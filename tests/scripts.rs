//! The loop over scripts: load grows and a node is created, load falls and one is removed, and every decision says why.

mod common;

use std::time::Duration;

use common::platform::{Load, Platform};
use common::{World, promtool_has_nothing_to_say};

const WAIT: Duration = Duration::from_secs(60);
const CALM: Load = Load { cpu: 0.5, memory: 0.5, searches_per_second: 50.0 };

async fn world(nodes: &[&str], thresholds: &str) -> (World, Platform) {
    let mut world = World::new("");
    let platform = Platform::new(world.dir.path(), nodes, CALM).await;
    std::fs::write(world.path("config.yaml"), platform.config(thresholds)).expect("the configuration");
    world.start().await;
    (world, platform)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_grows_and_falls_and_the_scripts_are_called_once_each() {
    let (world, platform) =
        world(&["n1", "n2"], "min_nodes: 2, max_nodes: 3, scale_up_cooldown: 1, scale_down_cooldown: 1").await;
    let healthy = async |w: &World| (w.status().await["metrics"]["healthy_nodes"] == 2).then_some(());
    world.until("both nodes are healthy", WAIT, healthy).await;

    platform.load.lock().unwrap().cpu = 0.9;
    world.until("a third node", WAIT, async |_| (platform.nodes().len() == 3).then_some(())).await;
    let ended = async |w: &World| w.status().await["operation"].is_null().then_some(());
    world.until("the scale-up ended", WAIT, ended).await;
    let operations = world.get("/autoscaling/operations").await;
    let up = &operations["items"][0];
    assert_eq!((&up["kind"], &up["state"]), (&"scale_up".into(), &"succeeded".into()), "{up}");
    assert!(up["because"][0].as_str().unwrap().contains("cpu_high 0.90 > 0.75"), "{up}");

    *platform.load.lock().unwrap() = Load { cpu: 0.1, memory: 0.1, searches_per_second: 10.0 };
    world.until("two nodes again", WAIT, async |_| (platform.nodes().len() == 2).then_some(())).await;
    world.until("the scale-down ended", WAIT, ended).await;

    assert!(platform.effects("made").values().all(|&n| n == 1), "{:#?}", platform.ledger());
    assert!(platform.effects("removed").values().all(|&n| n == 1), "{:#?}", platform.ledger());
    assert!(!platform.ledger().iter().any(|l| l.starts_with("concurrent")), "{:#?}", platform.ledger());

    promtool_has_nothing_to_say(&world.try_get("/metrics").await.expect("the page"));

    // At the minimum with nothing but lows: it says why nothing happens.
    let why = world
        .until("a hold at the minimum", WAIT, async |w: &World| {
            let decision = w.status().await["decision"].clone();
            let held = decision["guards"].as_array()?.iter().any(|g| g["name"] == "min_nodes");
            (decision["decision"] == "hold" && held).then_some(decision)
        })
        .await;
    assert!(why["would_change"].as_str().is_some_and(|w| !w.is_empty()), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_off_entirely_removes_nothing_and_says_why() {
    let (world, platform) =
        world(&["n1", "n2", "n3"], "min_nodes: 2, scale_up_cooldown: 0, scale_down_cooldown: 0").await;
    let seen = async |w: &World| (w.status().await["metrics"]["healthy_nodes"] == 3).then_some(());
    world.until("three healthy nodes", WAIT, seen).await;
    *platform.load.lock().unwrap() = Load { cpu: 0.0, memory: 0.1, searches_per_second: 0.0 };
    world
        .until("traffic_lost, or absent traffic, holds the scale-down", WAIT, async |w: &World| {
            let decision = w.status().await["decision"].clone();
            let guards = decision["guards"].as_array()?;
            (decision["wanted"] == "scale_down" && guards.iter().any(|g| g["name"] == "traffic_lost")).then_some(())
        })
        .await;
    assert_eq!(platform.nodes().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_remembers() {
    let (mut world, platform) = world(&["n1", "n2"], "min_nodes: 2, max_nodes: 4, scale_up_cooldown: 600").await;
    let healthy = async |w: &World| (w.status().await["metrics"]["healthy_nodes"] == 2).then_some(());
    world.until("both nodes are healthy", WAIT, healthy).await;
    let (code, answer) = world.post("/autoscaling/scale-up", Some(serde_json::json!({"reason": "a test"}))).await;
    assert_eq!(code, 202, "{answer}");
    world.until("a third node", WAIT, async |_| (platform.nodes().len() == 3).then_some(())).await;
    let ended = async |w: &World| w.status().await["operation"].is_null().then_some(());
    world.until("the scale-up ended", WAIT, ended).await;
    let change = serde_json::json!({"cpu_threshold_high": 0.8, "max_nodes": 15});
    assert_eq!(world.post("/autoscaling/thresholds", Some(change)).await.0, 200);
    assert_eq!(world.post("/autoscaling/stop", None).await.0, 200);
    let history = world.get("/autoscaling/history").await;

    assert_eq!(world.stop(), Some(0), "{}", world.logs());
    world.start().await;

    let status = world.status().await;
    assert_eq!(status["mode"], "stopped");
    assert_eq!(status["thresholds"]["cpu_threshold_high"], 0.8);
    assert_eq!(status["sources"]["max_nodes"]["source"], "api");
    assert!(status["cooldowns"]["scale_up"].as_f64().is_some_and(|s| s > 500.0), "{}", status["cooldowns"]);
    let before: Vec<_> = history["items"].as_array().unwrap().iter().map(|i| i["id"].clone()).collect();
    let after = world.get("/autoscaling/history?limit=1000").await;
    let after: Vec<_> = after["items"].as_array().unwrap().iter().map(|i| i["id"].clone()).collect();
    assert!(before.iter().all(|id| after.contains(id)), "history was lost: {before:?} {after:?}");
}
