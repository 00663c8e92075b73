//! The contract of the store's scripts: what they are given, what is made of their words, and that an answer which is
//! not whole is none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::model::{OperationId, ReplicaState};

const NAMES: [&str; 7] = ["inventory", "move", "replicate", "cancel", "cordon", "uncordon", "forget"];

/// Two members, a shard with two copies, one of them on its way.
const TOLD: &str = r#"{"members":[{"id":"n2","address":"http://b:1/","healthy":false,"cordoned":true,"version":"1.2"},
  {"id":"n1","address":"http://a:1"}], "wanted_replicas": 2, "more": {},
  "shards":[{"collection":"docs","shard":0,"node":"n1","bytes":9,"vectors":3,"state":"active"},
            {"collection":"docs","shard":0,"node":"n2","bytes":4,"vectors":1,"state":"partial"}],
  "transfers":[{"collection":"docs","shard":0,"from":"n1","to":"n2","done_bytes":4}]}"#;

struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new(scripts: &[(&str, &str)]) -> Bench {
        let bench = Bench { dir: TempDir::new().expect("a directory") };
        for name in NAMES {
            let told = format!("cat > input.inventory; cat <<'END'\n{TOLD}\nEND");
            let usual = if name == "inventory" { told.as_str() } else { "exit 99" };
            bench.write(name, scripts.iter().find(|(n, _)| *n == name).map_or(usual, |(_, body)| body));
        }
        bench
    }

    fn write(&self, name: &str, body: &str) {
        let path = self.dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\ncd '{}'\n{body}\n", self.dir.path().display())).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("a mode");
    }

    fn store(&self) -> ScriptStore {
        let argv = |name: &str| vec![self.dir.path().join(name).display().to_string()];
        let settings = ScriptStoreSettings {
            inventory: argv("inventory"),
            start_move: argv("move"),
            replicate: argv("replicate"),
            cancel: argv("cancel"),
            cordon: argv("cordon"),
            uncordon: argv("uncordon"),
            forget: argv("forget"),
            timeout: Duration::from_secs(30),
            env: Default::default(),
        };
        ScriptStore::new("p".into(), settings, &Places { storage: self.dir.path().join("storage") })
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).expect("JSON")
    }
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a name")
}

fn call() -> Call {
    Call {
        pool: "p".into(),
        operation: OperationId("op".into()),
        step: "move",
        key: "op/1".into(),
        fence: 7,
        deadline: Duration::from_secs(900),
    }
}

fn copy(collection: &str) -> Move {
    let shard = ShardId { collection: Arc::from(collection), shard: 3 };
    Move { shard, from: node("n1"), to: node("n2"), bytes: 1, vectors: 1 }
}

#[tokio::test]
async fn an_inventory_is_read_whole() {
    let bench = Bench::new(&[]);
    let store = bench.store();
    let seen = store.inventory(None).await.expect("an inventory");
    assert_eq!(bench.json("input.inventory"), json!({"contract": 1, "pool": "p", "via": null}));
    let [n1, n2] = &seen.members[..] else { panic!("two members: {seen:?}") };
    assert_eq!((n1.id.as_str(), n1.healthy, n1.cordoned, n1.address.as_str()), ("n1", true, false, "http://a:1"));
    assert_eq!(
        (n2.healthy, n2.cordoned, n2.version.as_deref(), n2.address.as_str()),
        (false, true, Some("1.2"), "http://b:1")
    );
    assert_eq!(seen.wanted_replicas.get("docs"), Some(&2));
    assert_eq!(seen.shards.iter().map(|r| r.state).collect::<Vec<_>>(), [ReplicaState::Active, ReplicaState::Partial]);
    assert_eq!(seen.transfers[0].done_bytes, Some(4));

    let held = store.held_by(n1).await.expect("its own word");
    assert_eq!(bench.json("input.inventory")["via"], json!("n1"));
    assert_eq!(held, [(ShardId { collection: "docs".into(), shard: 0 }, 3)]);
    let machine = |id: &str| Machine { id: node(id), address: String::new(), zone: None, instance: None, ready: None };
    assert_eq!(store.ready(&machine("n1")).await, Ok(true));
    assert_eq!(store.ready(&machine("n2")).await, Ok(false), "listed, and not well");
    assert_eq!(store.ready(&machine("n3")).await, Ok(false), "not listed");
    let stranger = Member { id: node("n3"), ..n1.clone() };
    assert!(store.held_by(&stranger).await.is_err(), "who is no member says nothing of what it holds");
}

#[tokio::test]
async fn an_inventory_that_is_not_whole_is_none() {
    let told = |from: &str, to: &str| {
        assert!(TOLD.contains(from), "{from}");
        format!("cat <<'END'\n{}\nEND", TOLD.replace(from, to))
    };
    for (what, body) in [
        ("fails", format!("{}; exit 1", told("more", "more"))),
        ("says nothing", "exit 0".to_string()),
        ("in progress", "exit 11".into()),
        ("garbage", "echo members: none".into()),
        ("half", "printf '{\"members\":['".into()),
        ("no members", told("members", "nodes")),
        ("no shards", told("\"shards\"", "\"parts\"")),
        ("no transfers", told("transfers", "flights")),
        ("no wanted_replicas", told("wanted_replicas", "wanted")),
        ("wanted of another collection", told("\"wanted_replicas\": 2", "\"wanted_replicas\": {\"other\": 2}")),
        ("wanted nothing", told("\"wanted_replicas\": 2", "\"wanted_replicas\": 0")),
        ("a state of its own", told("partial", "warming up")),
        ("no bytes", told("\"bytes\":9,", "")),
        ("less than nothing", told("\"vectors\":3", "\"vectors\":-3")),
        ("a shard elsewhere", told("\"node\":\"n2\"", "\"node\":\"n9\"")),
        ("a shard twice", told("\"node\":\"n2\"", "\"node\":\"n1\"")),
        ("a member twice", told("{\"id\":\"n1\"", "{\"id\":\"n2\"")),
        ("no name", told("{\"id\":\"n1\"", "{\"id\":\"../n1\"")),
        ("no address", told("http://a:1", "a")),
        ("a transfer from nowhere", told("\"from\":\"n1\"", "\"from\":\"n0\"")),
    ] {
        let answer = Bench::new(&[("inventory", &body)]).store().inventory(None).await;
        let why = answer.expect_err(what).to_string();
        assert!(why.contains("inventory"), "{what}: {why} does not name the script");
    }
    let each = told("\"wanted_replicas\": 2", "\"wanted_replicas\": {\"docs\": 1, \"other\": 3}");
    let seen = Bench::new(&[("inventory", &each)]).store().inventory(None).await.expect("a mapping is fine");
    assert_eq!(seen.wanted_replicas, [("docs".into(), 1), ("other".into(), 3)].into());
}

#[tokio::test]
async fn a_cluster_that_had_members_has_some() {
    let empty = r#"echo '{"members":[],"wanted_replicas":1,"shards":[],"transfers":[]}'"#;
    let bench = Bench::new(&[("inventory", empty)]);
    let store = bench.store();
    assert!(store.inventory(None).await.is_ok_and(|seen| seen.members.is_empty()), "a cluster may begin with none");
    bench.write("inventory", &format!("cat <<'END'\n{TOLD}\nEND"));
    store.inventory(None).await.expect("members");
    bench.write("inventory", empty);
    let why = store.inventory(None).await.expect_err("they cannot all have gone").to_string();
    assert!(why.contains("no member at all"), "{why}");
}

#[tokio::test]
async fn every_change_is_told_what_it_is_about() {
    let ledger = |name: &str| format!("cat > input.{name}; env > env.{name}; echo gone wrong >&2; exit 20");
    let bodies: Vec<(&str, String)> = NAMES[1..].iter().map(|name| (*name, ledger(name))).collect();
    let bench = Bench::new(&bodies.iter().map(|(name, body)| (*name, body.as_str())).collect::<Vec<_>>());
    let (store, call, n1) = (bench.store(), call(), node("n1"));
    let effects = [
        store.start_move(&call, &copy("docs")).await,
        store.replicate(&call, &copy("docs")).await,
        store.cancel_move(&call, &copy("docs")).await,
        store.cordon(&call, &n1).await,
        store.uncordon(&call, &n1).await,
        store.unjoin(&call, &n1).await,
    ];
    for effect in effects {
        assert!(matches!(&effect, Effect::NoEffect(why) if why.contains("gone wrong")), "{effect:?}");
    }
    let about_copy = json!({
        "contract": 1, "pool": "p", "collection": "docs", "shard": 3, "from": "n1", "to": "n2", "operation": "op",
    });
    let about_node = json!({"contract": 1, "pool": "p", "node": "n1", "operation": "op"});
    for name in &NAMES[1..4] {
        assert_eq!(bench.json(&format!("input.{name}")), about_copy, "{name}");
        assert!(!bench.read(&format!("env.{name}")).contains("VECSCALE_NODE="), "{name} is about two nodes");
    }
    for name in &NAMES[4..] {
        assert_eq!(bench.json(&format!("input.{name}")), about_node, "{name}");
        let environment = bench.read(&format!("env.{name}"));
        for line in ["VECSCALE_NODE=n1", "VECSCALE_KEY=op/1", "VECSCALE_FENCE=7", "VECSCALE_CONTRACT=1"] {
            assert!(environment.lines().any(|l| l == line), "{name}: {line}: {environment}");
        }
    }
}

/// A script that ended without a clear word is not repeated when the cluster shows that it took.
#[tokio::test]
async fn a_change_in_doubt_is_looked_at_first() {
    let lost = "echo run >> runs; exit 1";
    let bench = Bench::new(&NAMES.map(|name| (name, lost))[1..]);
    bench.write("inventory", &format!("cat <<'END'\n{TOLD}\nEND"));
    let (store, call) = (bench.store(), call());
    let on_its_way = Move { shard: ShardId { collection: "docs".into(), shard: 0 }, ..copy("docs") };
    let runs = || bench.read("runs").lines().count();
    // Each is asked twice: what the second answer is, and how often its script has run.
    macro_rules! twice {
        ($what:literal, $ask:expr, $expected:pat, $times:literal) => {
            let before = runs();
            assert!(matches!($ask.await, Effect::Unknown(_)), $what);
            let second = $ask.await;
            assert!(matches!(second, $expected), "{}: {second:?}", $what);
            assert_eq!(runs() - before, $times, $what);
        };
    }
    twice!("it is on its way", store.start_move(&call, &on_its_way), Effect::Done(()), 1);
    twice!("no trace of it", store.start_move(&call, &copy("docs")), Effect::Unknown(_), 2);
    twice!("cordoned", store.cordon(&call, &node("n2")), Effect::Done(()), 1);
    twice!("not cordoned", store.cordon(&call, &node("n1")), Effect::Unknown(_), 2);
    twice!("gone", store.unjoin(&call, &node("n7")), Effect::Done(()), 1);
    bench.write("inventory", "exit 1");
    twice!("nobody can say", store.unjoin(&call, &node("n8")), Effect::Unknown(_), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// E-07: what a database calls its collections reaches a script in its input, and nowhere else.
    #[test]
    fn a_collection_becomes_no_argument_path_or_variable(
        name in prop_oneof![
            Just("$(touch pwned)".to_string()), Just("../../x\0\n'\"".to_string()), Just("x".repeat(10_000)),
            proptest::collection::vec(any::<char>(), 0..60).prop_map(|chars| chars.into_iter().collect()),
        ],
    ) {
        let ledger = "cat > input; cat /proc/$$/cmdline /proc/$$/environ > seen; exit 20";
        let bench = Bench::new(&[("move", ledger)]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let seen = |name: &str| {
            let effect = runtime.block_on(bench.store().start_move(&call(), &copy(name)));
            assert!(matches!(effect, Effect::NoEffect(_)), "{effect:?}");
            (fs::read(bench.dir.path().join("seen")).expect("a ledger"), bench.json("input")["collection"].clone())
        };
        let plain = seen("docs").0;
        let (found, told) = seen(&name);
        prop_assert_eq!(found, plain);
        prop_assert_eq!(told, json!(name));
        prop_assert!(!bench.dir.path().join("pwned").exists());
    }
}
