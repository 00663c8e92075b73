//! The ways out of an operation over the real program: a blocked one is retried or resolved, a paused one stays paused over
//! `kill -9`, a cancelled drain puts its node back.

mod common;

use std::process::Command;
use std::time::Duration;

use common::before::{Place, says};
use common::{EMBEDDED, VECSCALE, Vectors, World};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(120);

/// Waits until the operation stands as `is` wants it.
async fn operation_when(world: &World, id: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/autoscaling/operations/{id}");
    world.until(what, WAIT, async |w: &World| Some(w.get(&path).await).filter(|operation| is(operation))).await
}

async fn ended(world: &World, id: &str) -> Value {
    operation_when(world, id, "the operation has ended", |operation| !operation["ended_at"].is_null()).await
}

/// Asks until it is accepted; gives the operation's id.
async fn begun(world: &World, path: &str) -> String {
    let accepted = async |w: &World| {
        let (code, answer) = w.post(path, Some(json!({"reason": "a test"}))).await;
        (code == 202).then(|| answer["operation"]["id"].as_str().expect("an id").to_string())
    };
    world.until("the operation is accepted", WAIT, accepted).await
}

async fn ordered(world: &World, id: &str, order: &str, body: Value) -> Value {
    let (code, answer) = world.post(&format!("/autoscaling/operations/{id}/{order}"), Some(body)).await;
    assert_eq!(code, 200, "{order}: {answer}\n{}", world.logs());
    answer["operation"].clone()
}

/// What a command prints, and its exit code.
fn types(world: &World, line: &str) -> (String, Option<i32>) {
    let run = Command::new(VECSCALE).args(line.split(' ')).arg(format!("--url={}", world.url)).output().expect("a run");
    let said = [run.stdout, run.stderr].concat();
    (String::from_utf8(said).expect("text"), run.status.code())
}

/// A platform that answers garbage to a creation, and from then on to every list. `makes`: the node is made all the same.
async fn blocked(makes: bool) -> (Place, String) {
    let place = Place::calm(&[]).await;
    let list = std::fs::read_to_string(place.platform.dir.join("list")).expect("the script");
    let broken = "[ -e \"$DIR/broken\" ] && { echo '<html>502</html>'; exit 0; }\n";
    place.platform.replace("list", &list.replacen("cat > /dev/null\n", &format!("cat > /dev/null\n{broken}"), 1));
    let create = std::fs::read_to_string(place.platform.dir.join("create")).expect("the script");
    let garbage = if makes {
        create.replace("printf '{\"id\"", "touch \"$DIR/broken\"; printf '<html>'; exit 0; printf '{\"id\"")
    } else {
        "#!/bin/sh\ncat > /dev/null\necho \"lost\" >> \"$DIR/ledger\"\ntouch \"$DIR/broken\"\necho '<html>'\n".into()
    };
    assert_ne!(garbage, create);
    place.platform.replace("create", &garbage);
    let id = begun(&place.world, "/autoscaling/scale-up").await;
    operation_when(&place.world, &id, "the operation is blocked", |o| o["state"] == "blocked").await;
    place.platform.replace("create", &create);
    (place, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_operation_says_what_to_do_and_goes_on_when_it_is_done() {
    let (place, id) = blocked(true).await;
    let world = &place.world;
    let status = world.status().await;
    let needs = status["needs_human"].to_string();
    says(
        &needs,
        &["is blocked", &format!("vecscale operation {id} retry"), "resolve --as done", "cancel` takes it back"],
    );
    let (said, code) = types(world, "operation");
    assert_eq!(code, Some(0), "{said}");
    says(&said, &[&id, "blocked", "create ", "unknown", "retry` looks again"]);
    for (path, words) in [
        ("scale-up", "operation_running"),
        ("scale-down", "operation_running"),
        ("rebalance", "operation_running"),
        ("nodes/n1/adopt", "operation_running"),
        ("nodes/n1/reap", "operation_running"),
        ("breaker/reset", "would open the breaker again"),
    ] {
        let (code, problem) = world.post(&format!("/autoscaling/{path}"), None).await;
        assert_eq!((code, problem["operation"].as_str()), (409, Some(id.as_str())), "{path}: {problem}");
        says(&problem.to_string(), &[words]);
    }
    let page = world.try_get("/metrics").await.expect("the page");
    assert!(page.contains("vecscale_guard_active{guard=\"breaker_open\",pool=\"default\"} 1"), "{page}");
    assert!(!page.contains("vecscale_needs_human{pool=\"default\"} 0"), "{page}");

    std::fs::remove_file(place.platform.dir.join("broken")).expect("mending the list");
    let (said, code) = types(world, &format!("operation {id} retry --reason mended"));
    assert_eq!(code, Some(0), "{said}");
    let ended = ended(world, &id).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(place.platform.nodes().len(), 3);
    assert!(place.platform.effects("made").values().all(|&n| n == 1), "{:#?}", place.platform.ledger());
    let history = world.get("/autoscaling/history?kind=operation").await.to_string();
    says(&history, &["is blocked", "is tried again: mended", "\"who\":\"api 127.0.0.1\""]);
    place.until_calm().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_in_doubt_is_resolved_by_a_word() {
    let (place, id) = blocked(false).await;
    let world = &place.world;
    let word = json!({"as": "absent", "reason": "the platform's console shows none"});
    let taken = ordered(world, &id, "resolve", word).await;
    assert_eq!(taken["state"], "running", "{taken}");
    // The list is still garbage: the word stands, and the creation is asked for once more, with the same key.
    let asked = |ledger: Vec<String>| ledger.iter().filter(|line| line.starts_with("asked create")).count();
    world.until("a second creation", WAIT, async |_| (asked(place.platform.ledger()) == 1).then_some(())).await;
    std::fs::remove_file(place.platform.dir.join("broken")).expect("mending the list");
    let ended = ended(world, &id).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let keys: Vec<&str> = ended["steps"].as_array().expect("steps").iter().filter_map(|s| s["key"].as_str()).collect();
    assert!(place.platform.ledger().iter().any(|line| line.contains(keys[1])), "{:#?}", place.platform.ledger());
    assert_eq!(place.platform.nodes().len(), 3);
}

fn done(operation: &Value) -> usize {
    operation["steps"].as_array().expect("steps").iter().filter(|step| step["state"] == "done").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_outlives_a_kill_and_the_operation_ends_well_once_resumed() {
    let mut world = World::new(&EMBEDDED.replace("THRESHOLDS", "min_nodes: 3, max_nodes: 5"));
    world.start().await;
    world.settled(3).await;
    let vectors = Vectors::fill(&world, 600).await;
    let before = vectors.digest().await;
    let id = begun(&world, "/autoscaling/scale-up").await;
    operation_when(&world, &id, "the first shard is there", |o| {
        o["steps"].as_array().is_some_and(|steps| steps.iter().any(|s| s["step"] == "move" && s["state"] == "done"))
    })
    .await;
    let (said, code) = types(&world, "stop --halt");
    assert_eq!(code, Some(0), "{said}");
    says(&said, &["stopped", "is paused by api 127.0.0.1", &format!("vecscale operation {id} resume")]);
    let in_flight =
        |o: &Value| o["steps"].as_array().expect("steps").iter().any(|s| s["step"] == "move" && s["state"] == "intent");
    let parked = operation_when(&world, &id, "no shard in flight", |o| !in_flight(o)).await;

    world.kill();
    world.start().await;
    let checked = async |w: &World| (w.get("/autoscaling/metrics").await["items"].as_array()?.len() > 5).then_some(());
    world.until("six checks", WAIT, checked).await;
    let (code, _) = world.post("/autoscaling/start", None).await;
    assert_eq!(code, 200);
    world
        .until("twelve checks", WAIT, async |w: &World| {
            (w.get("/autoscaling/metrics").await["items"].as_array()?.len() > 11).then_some(())
        })
        .await;
    let still = world.get(&format!("/autoscaling/operations/{id}")).await;
    assert_eq!((&still["paused"], done(&still)), (&json!(true), done(&parked)), "{still}\n{}", world.logs());
    assert_eq!(still["paused_by"]["who"], "api 127.0.0.1", "{still}");

    ordered(&world, &id, "resume", json!({"reason": "seen enough"})).await;
    let ended = ended(&world, &id).await;
    assert_eq!(ended["state"], "succeeded", "{ended}\n{}", world.logs());
    world.settled(4).await;
    vectors.follow(&world).await;
    assert_eq!(vectors.digest().await, before, "{}", world.logs());
    let (code, problem) = world.post(&format!("/autoscaling/operations/{id}/cancel"), None).await;
    assert_eq!(code, 409, "{problem}");
    says(problem["detail"].as_str().expect("a detail"), &["has ended: succeeded"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_drain_puts_the_node_back_in_service() {
    let mut world = World::new(&EMBEDDED.replace("THRESHOLDS", "min_nodes: 2, max_nodes: 5"));
    world.start().await;
    world.settled(3).await;
    let vectors = Vectors::fill(&world, 600).await;
    let before = vectors.digest().await;
    let id = begun(&world, "/autoscaling/scale-down").await;
    operation_when(&world, &id, "a shard moves", |o| o["step"] == "move" || o["step"] == "drain").await;
    let taken = ordered(&world, &id, "cancel", json!({"reason": "not now"})).await;
    assert_eq!(taken["cancel"], "api 127.0.0.1: not now", "{taken}");
    let ended = ended(&world, &id).await;
    assert_eq!(
        (&ended["state"], &ended["detail"]),
        (&json!("cancelled"), &json!("cancelled by api 127.0.0.1: not now")),
        "{ended}"
    );
    let in_service = async |w: &World| {
        let status = w.status().await;
        let nodes = status["nodes"].as_array()?;
        let serve = nodes.len() == 3 && nodes.iter().all(|node| node["state"] == "serving");
        (serve && status["needs_human"] == json!([])).then_some(())
    };
    world.until("three nodes in service and no need of a person", WAIT, in_service).await;
    assert_eq!(vectors.digest().await, before, "{}", world.logs());
}
