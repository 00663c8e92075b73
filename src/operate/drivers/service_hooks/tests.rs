//! What the hooks are given, what is made of their exit codes, and that all else goes to the datastore.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::model::OperationId;
use crate::replay::{World, node};

fn hooks(dir: &TempDir, body: &str) -> ServiceHooks {
    let path = dir.path().join("hook");
    let folder = dir.path().display();
    fs::write(&path, format!("#!/bin/sh\ncd '{folder}'\ncat > \"$1\"\nenv > env\n{body}\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("a mode");
    let argv = |word: &str| Some(vec![path.display().to_string(), word.to_string()]);
    let settings = ServiceHookSettings {
        out_of_service: argv("out"),
        in_service: argv("in"),
        env: [("BALANCER".to_string(), "b1".to_string())].into(),
    };
    let places = Places { storage: dir.path().join("storage") };
    ServiceHooks::new(World::new(3, 3, 1), "p".into(), settings, &places)
}

fn call(step: &'static str) -> Call {
    Call {
        pool: "p".into(),
        operation: OperationId("op".into()),
        step,
        key: "op/2".into(),
        fence: 7,
        deadline: Duration::from_secs(60),
    }
}

fn member() -> Member {
    Member::new(node(2), "http://n2:1".into())
}

#[tokio::test]
async fn a_hook_is_told_which_node_and_why() {
    let dir = TempDir::new().expect("a folder");
    let store = hooks(&dir, "exit 0");
    assert!(store.has_service_hooks() && store.holds_data());
    assert_eq!(store.out_of_service(&call("out_of_service"), &member()).await, Effect::Done(()));
    let given: Value = serde_json::from_slice(&fs::read(dir.path().join("out")).expect("an input")).expect("JSON");
    let expected = json!({"contract": 1, "pool": "p", "node": "n2", "address": "http://n2:1", "operation": "op"});
    assert_eq!(given, expected);
    let env = fs::read_to_string(dir.path().join("env")).expect("an environment");
    for line in ["BALANCER=b1", "VECSCALE_KEY=op/2", "VECSCALE_FENCE=7", "VECSCALE_NODE=n2"] {
        assert!(env.lines().any(|l| l == line), "{line}: {env}");
    }
    assert_eq!(store.in_service(&call("in_service"), &member()).await, Effect::Done(()));
    assert!(dir.path().join("in").exists());
    assert_eq!(store.inventory(None).await.expect("the datastore's own").members.len(), 3);
}

#[tokio::test]
async fn what_a_hook_says_counts() {
    let cases = [
        ("exit 10", Effect::Done(())),
        ("exit 11", Effect::InProgress),
        ("echo no such backend >&2; exit 20", Effect::NoEffect("failed with no effect: no such backend".into())),
    ];
    for (body, expected) in cases {
        let dir = TempDir::new().expect("a folder");
        assert_eq!(hooks(&dir, body).in_service(&call("in_service"), &member()).await, expected, "{body}");
    }
    let dir = TempDir::new().expect("a folder");
    let unclear = hooks(&dir, "exit 3").in_service(&call("in_service"), &member()).await;
    assert!(matches!(unclear, Effect::Unknown(_)), "{unclear:?}");
    // After that it is run again, and its word counts.
    assert_eq!(hooks(&dir, "exit 0").in_service(&call("in_service"), &member()).await, Effect::Done(()));
}

#[tokio::test]
async fn without_a_hook_there_is_nothing_to_do() {
    let dir = TempDir::new().expect("a folder");
    let mut store = hooks(&dir, "exit 20");
    store.settings.out_of_service = None;
    assert_eq!(store.out_of_service(&call("out_of_service"), &member()).await, Effect::Done(()));
}
