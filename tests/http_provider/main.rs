//! The real program over an API that makes and removes nodes: answers that are lost, late or wrong, and a controller that is
//! killed in the middle of a call. Nothing is made or removed twice.

#[path = "../common/mod.rs"]
mod common;
mod contract;

use std::time::Duration;

use common::double::Place;
use common::machines::{Machines, Manner};
use common::platform::Load;
use common::{World, kill_now};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(90);
const CALM: Load = Load { cpu: 0.4, memory: 0.45, searches_per_second: 50.0 };
const TOKEN: &str = "hunter2hunter2";
const THRESHOLDS: &str = "min_nodes: 2, max_nodes: 4, scale_up_cooldown: 0, scale_down_cooldown: 0";

/// A controller over two nodes of an API that demands a token.
async fn world() -> (World, Machines) {
    let mut world = World::new("");
    let machines = Machines::new(&["n1", "n2"], CALM).await;
    machines.demand(TOKEN);
    std::fs::write(world.path("token"), format!("{TOKEN}\n")).expect("the token");
    let config =
        machines.config(THRESHOLDS).replace("timeout: 20s", "timeout: 20s, authorization: {credentials_file: token}");
    std::fs::write(world.path("config.yaml"), config).expect("the configuration");
    world.start().await;
    world.settled(2).await;
    (world, machines)
}

/// Asks for an operation; gives its id.
async fn ask(world: &World, path: &str) -> String {
    let accepted = async |w: &World| {
        let (code, answer) = w.post(path, Some(json!({"reason": "a test"}))).await;
        (code == 202).then_some(answer)
    };
    let asked = world.until("the operation is accepted", WAIT, accepted).await;
    asked["operation"]["id"].as_str().expect("an id").to_string()
}

async fn succeeded(world: &World, id: &str) {
    let ended = async |w: &World| {
        let text = w.try_get(&format!("/autoscaling/operations/{id}")).await?;
        let operation: Value = serde_json::from_str(&text).expect("JSON");
        assert!(!["blocked", "failed", "undone"].contains(&operation["state"].as_str()?), "{operation:#}");
        (operation["state"] == "succeeded").then_some(())
    };
    world.until("the operation ended well", WAIT, ended).await;
}

/// Everything happened once, one thing at a time.
fn each_once(machines: &Machines, operations: usize) {
    let ledger = machines.ledger();
    for effects in [&ledger.made, &ledger.removed] {
        assert_eq!(effects.len(), operations, "{ledger:#?}");
        assert!(effects.values().all(|&n| n == 1), "{ledger:#?}");
    }
    assert!(ledger.concurrent.is_empty(), "{ledger:#?}");
    assert_eq!(machines.nodes().len(), 2, "an orphan: {:?}", machines.nodes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_grows_and_falls() {
    let (world, machines) = world().await;
    machines.load.lock().unwrap().cpu = 0.9;
    world.until("a third node", WAIT, async |_| (machines.nodes().len() == 3).then_some(())).await;
    *machines.load.lock().unwrap() = Load { cpu: 0.1, memory: 0.1, searches_per_second: 10.0 };
    world.until("two nodes again", WAIT, async |_| (machines.nodes().len() == 2).then_some(())).await;
    world.settled(2).await;
    each_once(&machines, 1);
    let asked = machines.ledger().asked;
    assert!(asked.iter().all(|asked| asked.fence == Some(1) && !asked.key.is_empty()), "{asked:#?}");
    let body = &asked[0].body;
    assert_eq!(
        (&body["contract"], &body["pool"], &body["node"]),
        (&json!(1), &json!("default"), &json!(asked[0].node))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_the_answers_each_effect_comes_once() {
    let (world, machines) = world().await;
    let lost = || Manner::ThenRaw(Vec::new());
    let ill = || Manner::Then(500, format!("out of breath, {TOKEN} is my token"));
    let manners = [
        ("lost", lost(), lost(), 1..=1),
        ("500 after the effect", ill(), ill(), 1..=1),
        ("never heard", Manner::Unheard, Manner::Unheard, 2..=2),
        ("in progress", Manner::InProgress(2), Manner::InProgress(2), 3..=3),
        ("slow", Manner::Slow(Duration::from_secs(3)), Manner::Slow(Duration::from_secs(3)), 1..=1),
    ];
    let count = manners.len();
    for (what, put, delete, calls) in manners {
        for (path, method, manner, nodes) in
            [("/autoscaling/scale-up", "PUT", put, 3), ("/autoscaling/scale-down", "DELETE", delete, 2)]
        {
            let before = machines.ledger().asked.len();
            machines.order(method, manner);
            let id = ask(&world, path).await;
            succeeded(&world, &id).await;
            world.settled(nodes).await;
            let asked = machines.ledger().asked.split_off(before);
            assert!(calls.contains(&asked.len()), "{what}: {asked:#?}");
            let same = asked.iter().all(|one| (&one.key, &one.node) == (&asked[0].key, &asked[0].node));
            assert!(same && asked.iter().all(|asked| asked.method == method), "{what}: {asked:#?}");
        }
    }
    each_once(&machines, count);
    let told = world.get("/autoscaling/history?limit=1000").await.to_string();
    for text in [told, world.status().await.to_string(), world.logs()] {
        assert!(!text.contains(TOKEN), "the token is told: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_killed_at_any_moment_of_a_call_repeats_nothing() {
    let (mut world, machines) = world().await;
    for at_moment in Place::ALL {
        for (path, method, nodes) in [("/autoscaling/scale-up", "PUT", 3), ("/autoscaling/scale-down", "DELETE", 2)] {
            let (pid, at) = (world.pid(), machines.ledger().asked.len());
            machines.hook(move |moment, asked| {
                if moment == at_moment && asked.method == method {
                    kill_now(pid);
                }
            });
            let id = ask(&world, path).await;
            world.until("the call", WAIT, async |_| (machines.ledger().asked.len() > at).then_some(())).await;
            let dead = async |w: &World| w.try_get("/-/healthy").await.is_none().then_some(());
            world.until("the controller is dead", WAIT, dead).await;
            machines.unhook();
            world.kill();
            world.start().await;
            succeeded(&world, &id).await;
            world.settled(nodes).await;
        }
    }
    each_once(&machines, 4);
}
