//! The `process` provider with real processes.

mod common;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::promtool_has_nothing_to_say;
use vecscale::model::*;
use vecscale::node::client::Client;
use vecscale::node::lock::{Holder, ProcessName, holder, start_of};
use vecscale::operate::drivers::process::Process;
use vecscale::operate::drivers::vectornode::Vectornode;
use vecscale::operate::drivers::*;

fn provider(storage: &Path) -> Process {
    let settings = ProcessSettings { nodes: 2, ..ProcessSettings::default() };
    Process::new("p".into(), storage, settings, PathBuf::from(env!("CARGO_BIN_EXE_vecscale")))
}

fn call() -> Call {
    let operation = OperationId("op".into());
    Call {
        pool: "p".into(),
        operation,
        step: "create",
        key: "op/1".into(),
        fence: 1,
        deadline: Duration::from_secs(30),
    }
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn process(storage: &Path, name: &str) -> Option<ProcessName> {
    match holder(&storage.join("nodes").join(name)).unwrap() {
        Holder::Process(process) => Some(process),
        Holder::Nobody | Holder::Unnamed => None,
    }
}

fn kill(process: ProcessName) {
    let pid = rustix::process::Pid::from_raw(process.pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !look() {
        assert!(tokio::time::Instant::now() < deadline, "not in 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn ready(machines: &[Machine]) -> Vec<(&str, bool)> {
    machines.iter().map(|m| (m.id.as_str(), m.ready == Some(true))).collect()
}

/// Ends what a failed test leaves.
struct Cleared(tempfile::TempDir);

impl Drop for Cleared {
    fn drop(&mut self) {
        for node in std::fs::read_dir(self.0.path().join("nodes")).into_iter().flatten().flatten() {
            if let Ok(Holder::Process(process)) = holder(&node.path()) {
                kill(process);
            }
        }
    }
}

#[tokio::test]
async fn nodes_live_on_without_the_controller_and_are_found_again() {
    let storage = Cleared(tempfile::tempdir().unwrap());
    let path = storage.0.path();
    let first = provider(path).start_registered().await.unwrap();
    assert_eq!(ready(&first), [("p-1", true), ("p-2", true)]);
    let before = process(path, "p-1").unwrap();

    // The provider is gone; the next one finds the same processes and starts no others.
    let again = provider(path);
    assert_eq!(again.list().await.unwrap(), first);
    assert_eq!(again.start_registered().await.unwrap(), first);
    assert_eq!(process(path, "p-1"), Some(before));

    // Killed behind its back: seen as not running, although its parent is this process.
    kill(before);
    until("p-1 is down", || process(path, "p-1").is_none()).await;
    assert_eq!(ready(&again.list().await.unwrap()), [("p-1", false), ("p-2", true)]);
    until("no dead process is left behind", || start_of(before.pid) != Some(before.started)).await;
    let restarted = again.start_registered().await.unwrap();
    assert_eq!(restarted, first, "it does not listen where it did");
    assert_ne!(process(path, "p-1"), Some(before));

    // An orderly stop keeps the data; a node that was destroyed is not made anew.
    assert_eq!(again.destroy(&call(), &first[1]).await, Effect::Done(()));
    again.stop_all().await.unwrap();
    assert_eq!(ready(&again.list().await.unwrap()), [("p-1", false)]);
    assert_eq!(ready(&provider(path).start_registered().await.unwrap()), [("p-1", true)]);
    again.stop_all().await.unwrap();
}

#[tokio::test]
async fn creating_twice_makes_one_process_and_destroying_twice_none() {
    let storage = Cleared(tempfile::tempdir().unwrap());
    let path = storage.0.path();
    let (one, other) = (provider(path), provider(path));
    let (new, call) = (NewNode::named(id("new")), call());
    // Two controllers at once, as when the first hangs: the directory has one process all the same.
    let made = tokio::join!(one.create(&call, &new), other.create(&call, &new));
    let Effect::Done(machine) = one.create(&call, &new).await else { panic!("{made:?}") };
    assert!(made.0 == Effect::Done(machine.clone()) || made.1 == Effect::Done(machine.clone()), "{made:?}");
    let running = process(path, "new").unwrap();
    assert_eq!(one.create(&call, &new).await, Effect::Done(machine.clone()));
    assert_eq!(process(path, "new"), Some(running));
    assert_eq!(one.list().await.unwrap(), std::slice::from_ref(&machine));

    for _ in 0..2 {
        assert_eq!(other.destroy(&call, &machine).await, Effect::Done(()));
        assert_eq!(one.list().await.unwrap(), []);
    }
    assert_ne!(start_of(running.pid), Some(running.started), "the process lives on");
    assert_eq!(std::fs::read_dir(path.join("nodes")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_no_acknowledged_write() {
    let storage = Cleared(tempfile::tempdir().unwrap());
    let path = storage.0.path();
    let provider = Arc::new(provider(path));
    let machines = provider.start_registered().await.unwrap();
    let store = Vectornode::start(provider.clone(), 1);
    let client = Arc::new(Client::new(machines.iter().map(|m| m.address.clone())));
    while store.inventory(None).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.create_collection("c", 2, 4, 1).await.unwrap();
    let written = Arc::new(Mutex::new(Vec::new()));
    let (to, list) = (client.clone(), written.clone());
    let writer = tokio::spawn(async move {
        for n in 0.. {
            let points: Vec<_> = (n * 10..n * 10 + 10).map(|id| (id, vec![1.0, id as f32])).collect();
            if to.upsert("c", &points).await.is_ok() {
                list.lock().unwrap().extend(points.iter().map(|p| p.0));
            }
        }
    });
    for round in 1..=3 {
        let enough = 300 * round;
        until("some writes", || written.lock().unwrap().len() > enough).await;
        let process = process(path, "p-1").unwrap();
        kill(process);
        until("p-1 is down", || start_of(process.pid) != Some(process.started)).await;
        provider.start_registered().await.unwrap();
    }
    writer.abort();
    until("all members are well", || {
        let well = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(store.inventory(None)));
        well.is_ok_and(|seen| seen.members.iter().all(|m| m.healthy))
    })
    .await;
    let written = written.lock().unwrap().clone();
    let found = client.get("c", &written).await.unwrap();
    assert_eq!(found.len(), written.len(), "acknowledged writes are lost");
    provider.stop_all().await.unwrap();
}

#[tokio::test]
async fn a_node_that_cannot_start_says_why() {
    let storage = tempfile::tempdir().unwrap();
    let settings = ProcessSettings { cpu_cores: -1.0, ..ProcessSettings::default() };
    let program = PathBuf::from(env!("CARGO_BIN_EXE_vecscale"));
    let provider = Process::new("p".into(), storage.path(), settings.clone(), program);
    let failed = provider.create(&call(), &NewNode::named(id("n"))).await;
    assert!(matches!(&failed, Effect::Unknown(why) if why.contains("node n ended at once")), "{failed:?}");
    assert_eq!(ready(&provider.list().await.unwrap()), [("n", false)], "a registered node is not forgotten");
    let nowhere = Process::new("p".into(), storage.path(), settings, PathBuf::from("/nonexistent/vecscale"));
    let failed = nowhere.create(&call(), &NewNode::named(id("n"))).await;
    assert!(matches!(&failed, Effect::Unknown(why) if why.contains("/nonexistent/vecscale")), "{failed:?}");
}

/// What lets a vector node not start any more.
fn break_node(storage: &Path, name: &str) {
    std::fs::write(storage.join("nodes").join(name).join("cluster.json"), "no JSON").unwrap();
}

#[tokio::test]
async fn a_node_that_does_not_start_keeps_no_other_from_it() {
    let storage = Cleared(tempfile::tempdir().unwrap());
    let path = storage.0.path();
    provider(path).start_registered().await.unwrap();
    let [healthy, broken] = ["p-1", "p-2"].map(|name| process(path, name).unwrap());
    kill(broken);
    until("p-2 is down", || process(path, "p-2").is_none()).await;
    break_node(path, "p-2");
    let next = provider(path);
    assert_eq!(ready(&next.start_registered().await.unwrap()), [("p-1", true)]);
    assert_eq!(ready(&next.list().await.unwrap()), [("p-1", true), ("p-2", false)]);

    // It ran before, so it is not this one's to stop.
    next.stop_spawned().await.unwrap();
    assert_eq!(process(path, "p-1"), Some(healthy));
    kill(healthy);
    until("p-1 is down", || process(path, "p-1").is_none()).await;
    next.start_registered().await.unwrap();
    next.stop_spawned().await.unwrap();
    assert_eq!(process(path, "p-1"), None, "started from here, and so stopped");

    break_node(path, "p-1");
    let why = next.start_registered().await.unwrap_err().to_string();
    assert!(why.contains("no node starts; node p-1 ended at once") && why.contains("not a cluster file"), "{why}");
}

/// A vector node in Qdrant's place answers, and that is all that is asked of a member that comes back.
#[tokio::test]
async fn a_qdrant_that_does_not_start_keeps_no_other_from_it() {
    let storage = Cleared(tempfile::tempdir().unwrap());
    let path = storage.0.path();
    let qdrant = path.join("qdrant");
    let node = "node --id n --cpu.cores 1 --memory.limit 64000000 --storage.limit 64000000";
    common::script(
        &qdrant,
        &format!(
            "#!/bin/sh\n[ -e broken ] && echo 'the storage is broken' && exit 1\nmkdir -p inner\n\
             exec {} {node} --listen 127.0.0.1:$QDRANT__SERVICE__HTTP_PORT --data inner\n",
            env!("CARGO_BIN_EXE_vecscale"),
        ),
    );
    let program = QdrantProgram { path: qdrant, env: Default::default() };
    let settings = ProcessSettings { nodes: 3, qdrant: Some(program), ..ProcessSettings::default() };
    let provider = Process::new("p".into(), path, settings, PathBuf::from(env!("CARGO_BIN_EXE_vecscale")));
    let dir = |n: u32| path.join(format!("nodes/p-{n}"));
    let raft = |n: u32| dir(n).join("storage/raft_state.json");
    for n in 1..=3 {
        std::fs::create_dir_all(dir(n).join("storage")).unwrap();
        std::fs::write(raft(n), r#"{"state": {"hard_state": {"term": 3}}}"#).unwrap();
    }
    std::fs::write(dir(2).join("broken"), "").unwrap();
    assert_eq!(ready(&provider.start_registered().await.unwrap()), [("p-1", true), ("p-3", true)]);
    assert_eq!(ready(&provider.list().await.unwrap()), [("p-1", true), ("p-2", false), ("p-3", true)]);
    std::fs::write(raft(2), "no JSON").unwrap();
    assert_eq!(ready(&provider.start_registered().await.unwrap()), [("p-1", true), ("p-3", true)]);
    provider.stop_all().await.unwrap();

    for n in [1, 3] {
        std::fs::write(dir(n).join("broken"), "").unwrap();
    }
    let why = provider.start_registered().await.unwrap_err().to_string();
    assert!(why.contains("no node starts; node p-1 ended at once: the storage is broken"), "{why}");

    // Nothing is known of any storage, and the first does not come: no other founds a cluster in its place.
    for n in 1..=3 {
        std::fs::remove_file(raft(n)).unwrap();
    }
    std::fs::remove_file(dir(2).join("broken")).unwrap();
    provider.start_registered().await.unwrap_err();
    assert_eq!(ready(&provider.list().await.unwrap()), [("p-1", false), ("p-2", false), ("p-3", false)]);
}

/// Two pools: the nodes of one outlive the controller, that of the other does not start any more.
#[tokio::test]
async fn a_start_that_fails_stops_no_node_that_ran_before() {
    let pool = |name: &str| {
        format!(
            "  - name: {name}\n    provider: {{type: process, nodes: 1, memory_limit: 64MiB}}\n    \
             datastore: {{type: vectornode}}\n    thresholds: {{min_nodes: 1}}\n"
        )
    };
    let mut world = common::World::new(&format!("pools:\n{}{}", pool("a"), pool("b")));
    world.start().await;
    let (a, b) = (world.storage().join("a"), world.storage().join("b"));
    let healthy = process(&a, "a-1").unwrap();
    world.kill();
    let broken = process(&b, "b-1").unwrap();
    kill(broken);
    until("b-1 is down", || process(&b, "b-1").is_none()).await;
    break_node(&b, "b-1");
    world.spawn();
    assert_eq!(world.ended().await.code(), Some(1), "{}", world.logs());
    assert!(world.logs().contains("not a cluster file"), "{}", world.logs());
    assert_eq!(process(&a, "a-1"), Some(healthy), "{}", world.logs());
}

/// A script in Qdrant's place writes down with what it was run, and stays.
#[tokio::test]
async fn what_a_launcher_becomes_keeps_the_lock_and_is_the_same_process() {
    let storage = Cleared(tempfile::tempdir().unwrap());
    let dir = storage.0.path().canonicalize().unwrap().join("nodes/q");
    std::fs::create_dir_all(&dir).unwrap();
    let program = storage.0.path().join("qdrant");
    common::script(
        &program,
        "#!/bin/sh\npwd > told\necho \"$@\" >> told\nenv >> told\nmv told said\nexec sleep 1000\n",
    );
    let launch = |bootstrap: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vecscale"));
        command.arg("qdrant-node").arg("--data").arg(&dir).arg("--program").arg(&program).args(bootstrap);
        command.env("QDRANT__STORAGE__STORAGE_PATH", "elsewhere").env("QDRANT__OWN", "kept").spawn().unwrap()
    };
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    let mut ports = Vec::new();
    for bootstrap in [&["--bootstrap", "http://127.0.0.1:9"][..], &[]] {
        let _ = std::fs::remove_file(dir.join("said"));
        let mut child = launch(bootstrap);
        until("the program runs", || !read("said").is_empty()).await;
        let held = process(storage.0.path(), "q").expect("the lock is kept");
        assert_eq!((held.pid, start_of(child.id())), (child.id(), Some(held.started)));

        let [http, grpc, p2p] = ["http", "grpc", "p2p"].map(|name| {
            let ports: serde_json::Value = serde_json::from_str(&read("ports.json")).unwrap();
            ports[name].as_u64().unwrap()
        });
        assert_eq!(read("address"), format!("http://127.0.0.1:{http}"));
        let (said, dir) = (read("said"), dir.display());
        let bootstrap = bootstrap.iter().map(|word| format!(" {word}")).collect::<String>();
        assert!(said.starts_with(&format!("{dir}\n--uri http://127.0.0.1:{p2p}{bootstrap}\n")), "{said}");
        for variable in [
            format!("STORAGE__STORAGE_PATH={dir}/storage"),
            format!("SERVICE__HTTP_PORT={http}"),
            format!("SERVICE__GRPC_PORT={grpc}"),
            format!("CLUSTER__P2P__PORT={p2p}"),
            "TELEMETRY_DISABLED=true".into(),
            "OWN=kept".into(),
        ] {
            assert!(said.lines().any(|line| line == format!("QDRANT__{variable}")), "{variable}\n{said}");
        }
        ports.push((http, grpc, p2p));

        let mut second = launch(&[]);
        until("a second one is refused", || second.try_wait().unwrap().is_some_and(|status| !status.success())).await;
        assert_eq!(process(storage.0.path(), "q"), Some(held));
        kill(held);
        child.wait().unwrap();
        assert_eq!(process(storage.0.path(), "q"), None, "the lock ends with its process");
    }
    assert_eq!(ports[0], ports[1], "it is found where it was");
}

#[tokio::test]
async fn the_metrics_page_is_a_real_one() {
    let storage = Cleared(tempfile::tempdir().unwrap());
    let provider = provider(storage.0.path());
    let Effect::Done(machine) = provider.create(&call(), &NewNode::named(id("n"))).await else { panic!("not created") };
    let peers = vecscale::node::peers::Peers::default();
    let limit = Duration::from_secs(5);
    let page = peers.send(::http::Method::GET, &machine.address, "/metrics", "", limit).await.unwrap();
    let text = String::from_utf8(page.to_vec()).unwrap();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let value: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        assert!(value.is_finite(), "{line}");
    }
    provider.stop_all().await.unwrap();
    promtool_has_nothing_to_say(&text);
}
