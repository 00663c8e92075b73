//! `vecscale drivers test`, the real program over real scripts and over an API: what holds, what does not, and how it ends.

mod common;

use std::process::Output;
use std::time::Duration;

use common::machines::{Machines, Manner};
use common::platform::{Load, Platform};
use common::{VECSCALE, World, script};
use serde_json::{Value, json};

const CALM: Load = Load { cpu: 0.4, memory: 0.45, searches_per_second: 50.0 };
const THRESHOLDS: &str = "min_nodes: 2, max_nodes: 4";

async fn tested(world: &World, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(VECSCALE);
    command.args(["drivers", "test", "--config.file=config.yaml"]).args(args).current_dir(world.dir.path());
    let ended = tokio::time::timeout(Duration::from_secs(120), command.output()).await;
    ended.expect("it ends").expect("it was started")
}

async fn report(world: &World) -> (Option<i32>, Value) {
    let output = tested(world, &["--output=json"]).await;
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    (output.status.code(), report)
}

fn with<'a>(report: &'a Value, verdict: &str) -> Vec<&'a str> {
    let checks = report["checks"].as_array().expect("a list");
    let found = checks.iter().filter(|check| check["verdict"] == verdict);
    found.map(|check| check["name"].as_str().expect("a name")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_keeps_the_contract() {
    let world = World::new("");
    let machines = Machines::new(&["n1", "n2"], CALM).await;
    std::fs::write(world.path("config.yaml"), machines.config(THRESHOLDS)).expect("the configuration");
    let (code, found) = report(&world).await;
    assert_eq!((code, &found["all_hold"]), (Some(0), &json!(true)), "{found:#}");
    assert_eq!((with(&found, "warning"), with(&found, "not_run")), (vec![], vec!["victim_last"]), "{found:#}");
    assert_eq!(machines.nodes().into_iter().collect::<Vec<_>>(), ["n1", "n2"], "cleaned up");
    assert!(machines.ledger().concurrent.is_empty(), "{:#?}", machines.ledger());
    assert!(!world.storage().exists(), "it takes nothing and leaves nothing");

    // Creations that never end well: told, cleaned up, exit code 1.
    for _ in 0..2 {
        machines.order("PUT", Manner::Then(500, "boom \u{1b}[31m".into()));
    }
    let output = tested(&world, &[]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAILED   create") && said.contains("HTTP 500") && said.contains("hint: "), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
    assert_eq!(machines.nodes().len(), 2, "cleaned up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_ignore_the_fence_and_scripts_that_take_the_wrong_node() {
    let world = World::new("");
    let platform = Platform::new(world.dir.path(), &["n1", "n2"], CALM).await;
    std::fs::write(world.path("config.yaml"), platform.config(THRESHOLDS)).expect("the configuration");
    let (code, found) = report(&world).await;
    assert_eq!((code, with(&found, "failed")), (Some(0), vec![]), "{found:#}");
    assert_eq!(with(&found, "warning"), ["old_fence"], "{found:#}");
    assert_eq!(platform.nodes().len(), 2, "{:#?}", platform.ledger());
    assert!(!platform.ledger().iter().any(|line| line.starts_with("concurrent")), "{:#?}", platform.ledger());

    platform.replace("destroy", "#!/bin/sh\ncat > /dev/null\nrmdir \"$DIR/nodes/n1\"\nexit 0\n");
    let output = tested(&world, &[]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["DANGER: n1 was taken away", "FAILED   destroy_absent", "may still be there", "vecscale-test-"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(platform.nodes().len(), 3, "nothing more was destroyed: {:?}", platform.nodes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_tested_is_wrong_usage() {
    let mut world = World::new("pools: [{name: a}, {name: b}]");
    let refused = async |world: &World, args: &[&str], words: &[&str]| {
        let output = tested(world, args).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    };
    refused(&world, &[], &["which pool?", "a, b"]).await;
    refused(&world, &["--pool=c"], &["there is no pool c", "a, b"]).await;
    refused(&world, &["--pool=a"], &["nothing to test", "provider process"]).await;
    let none = "pools: [{name: a, provider: {type: none}, datastore: {type: none}, nodes: {static: [{id: n, address: 'http://h:1'}]}}]";
    std::fs::write(world.path("config.yaml"), none).expect("the configuration");
    refused(&world, &[], &["nothing to test", "other hands"]).await;

    // A controller on the same storage path would act on the throw-away nodes.
    let platform = Platform::new(world.dir.path(), &["n1", "n2"], CALM).await;
    std::fs::write(world.path("config.yaml"), platform.config(THRESHOLDS)).expect("the configuration");
    world.start().await;
    let storage = format!("--storage.path={}", world.storage().display());
    refused(&world, &[&storage], &["belongs to another running vecscale", "throw-away"]).await;
    assert!(platform.ledger().is_empty(), "{:#?}", platform.ledger());
    // Once it has ended, its fence is used: the scripts remember it.
    assert_eq!(world.stop(), Some(0));
    let head = "#!/bin/sh\ncat > /dev/null\necho \"$VECSCALE_FENCE\" >> \"$DIR/fences\"\nexit 20\n";
    script(&world.path("create"), head);
    assert_eq!(tested(&world, &[&storage]).await.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(world.path("fences")).unwrap_or_default(), "1\n");
}
