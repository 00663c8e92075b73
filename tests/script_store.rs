//! A database behind scripts: it grows and is filled, is drained and shrinks, makes the copies of a dead node anew; and
//! whatever its scripts say that is not so, nothing is lost and the reason is told.

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::mpsc;

use common::World;
use common::before::{CALM, WAIT, says};
use common::database::{Database, SHARDS};
use common::platform::Platform;
use vecscale::clock::SystemClock;
use vecscale::model::{Action, Decision, Machine, Mode, NodeId, Operation, OperationId, OperationState, Timestamp};
use vecscale::operate::drivers::script::ScriptProvider;
use vecscale::operate::drivers::script_store::ScriptStore;
use vecscale::operate::drivers::{DatastoreSettings, Places, ProviderSettings};
use vecscale::operate::plan::{Deadlines, Planning, plan};
use vecscale::operate::runner::{Hands, Operator, Pace, Report, Standing};
use vecscale::record::MemoryJournal;

const BOUNDS: &str = "min_nodes: 2, max_nodes: 5, scale_up_cooldown: 0, scale_down_cooldown: 0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_grows_is_filled_is_drained_and_shrinks() {
    let mut world = World::new("");
    let platform = Platform::new(world.dir.path(), &["n1", "n2", "n3"], CALM).await;
    let database = Database::new(world.dir.path(), &["n1", "n2", "n3"]);
    let before = database.sum();
    std::fs::write(world.path("config.yaml"), database.config(&platform.config(BOUNDS))).expect("the configuration");
    world.start().await;

    operate(&world, "/autoscaling/scale-up", json!({"reason": "a test"})).await;
    assert_eq!(database.members(), ["default-4", "n1", "n2", "n3"]);
    let filled = database.shards().values().filter(|(_, members)| members.contains(&"default-4".to_string())).count();
    assert_eq!(filled, 2 * SHARDS / 4, "its share of the copies: {:#?}", database.shards());
    assert_eq!(database.sum(), before);

    operate(&world, "/autoscaling/scale-down", json!({"reason": "a test", "node": "n2"})).await;
    assert_eq!(database.members(), ["default-4", "n1", "n3"]);
    assert_eq!(platform.nodes().into_iter().collect::<Vec<_>>(), ["default-4", "n1", "n3"]);
    assert_eq!(database.sum(), before);
    assert_eq!(database.asked("forget"), 1);
}

/// The controller is killed while the database is filled, and while a node is drained, at instants that the seed gives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_shard_is_lost_when_the_controller_is_killed() {
    for seed in 0..2 {
        let mut world = World::new("");
        let platform = Platform::new(world.dir.path(), &["n1", "n2", "n3"], CALM).await;
        let database = Database::new(world.dir.path(), &["n1", "n2", "n3"]);
        let before = database.sum();
        std::fs::write(world.path("config.yaml"), database.config(&platform.config(BOUNDS)))
            .expect("the configuration");
        world.start().await;
        let mut random = fastrand::Rng::with_seed(seed);
        for (path, nodes) in [("/autoscaling/scale-up", 4), ("/autoscaling/scale-down", 3)] {
            let place = begin(&world, path, json!({"reason": "a test"})).await;
            tokio::time::sleep(Duration::from_secs(8).mul_f64(random.f64())).await;
            world.kill();
            world.start().await;
            succeeded(&world, &place).await;
            assert_eq!(database.sum(), before, "seed {seed}: {path}\n{}", world.logs());
            assert_eq!((database.members().len(), platform.nodes().len()), (nodes, nodes), "seed {seed}: {path}");
        }
        assert!(!platform.ledger().iter().any(|line| line.starts_with("concurrent")), "{:#?}", platform.ledger());
    }
}

/// Asks for an operation until the guards let it begin, and waits for its good end.
async fn operate(world: &World, path: &str, body: serde_json::Value) {
    let place = begin(world, path, body).await;
    succeeded(world, &place).await;
}

/// Gives where the operation is told of.
async fn begin(world: &World, path: &str, body: serde_json::Value) -> String {
    let asked = async |w: &World| {
        let (code, answer) = w.post(path, Some(body.clone())).await;
        (code == 202).then_some(answer)
    };
    let asked = world.until("the operation is accepted", WAIT, asked).await;
    format!("/autoscaling/operations/{}", asked["operation"]["id"].as_str().expect("an id"))
}

async fn succeeded(world: &World, place: &str) {
    let ended = async |w: &World| Some(w.get(place).await).filter(|operation| !operation["ended_at"].is_null());
    let operation = world.until("the operation has ended", WAIT, ended).await;
    assert_eq!(operation["state"], "succeeded", "{operation:#}\n{}", world.logs());
}

/// Three nodes with the shards on them, without a controller: operations are begun by hand.
struct Story {
    _dir: tempfile::TempDir,
    platform: Platform,
    database: Database,
    operator: Operator,
    reports: mpsc::UnboundedReceiver<Report>,
}

struct Stands;

#[async_trait]
impl Standing for Stands {
    async fn still_stands(&self, _: &Operation, _: Option<&[Machine]>) -> Result<(), String> {
        Ok(())
    }

    fn forbidden(&self) -> bool {
        false
    }
}

fn deadlines() -> Deadlines {
    let seconds = Duration::from_secs;
    Deadlines { create: seconds(20), call: seconds(3), stuck: seconds(3), prove: seconds(4), settle: seconds(0) }
}

impl Story {
    async fn new() -> Story {
        let dir = tempfile::tempdir().expect("a folder");
        let platform = Platform::new(dir.path(), &["n1", "n2", "n3"], CALM).await;
        let database = Database::new(dir.path(), &["n1", "n2", "n3"]);
        let text = database.config(&platform.config(BOUNDS));
        let config = vecscale::config::parse(&text, "config.yaml", dir.path()).expect("a configuration");
        let pool = &config.pools[0];
        let places = Places { storage: dir.path().join("data") };
        let (ProviderSettings::Script(provider), DatastoreSettings::Script(store)) = (&pool.provider, &pool.datastore)
        else {
            panic!("scripts")
        };
        let hands = Hands {
            provider: Arc::new(ScriptProvider::new(pool.name.clone(), provider.clone(), &places)),
            datastore: Arc::new(ScriptStore::new(pool.name.clone(), (**store).clone(), &places)),
            journal: Arc::new(MemoryJournal::new()),
            clock: Arc::new(SystemClock),
        };
        let (send, reports) = mpsc::unbounded_channel();
        let pace = Pace { probe: Duration::from_millis(50), deadlines: deadlines() };
        let operator = Operator::new(hands, pace, Arc::new(Stands), send);
        Story { _dir: dir, platform, database, operator, reports }
    }

    /// Carries `action` out, to its end or until a person is needed.
    async fn carry_out(&mut self, action: Action) -> Operation {
        let at = Timestamp::from_millis(1_764_000_000_000);
        let decision = Decision {
            id: 1,
            at,
            mode: Mode::Active,
            action,
            trigger: None,
            wanted: None,
            because: Vec::new(),
            conditions: Vec::new(),
            guards: Vec::new(),
            would_change: String::new(),
        };
        let planning = Planning {
            id: OperationId("op".into()),
            pool: "default".into(),
            at,
            who: "a test",
            names: vec![node("default-4")],
            holds_data: true,
            has_service_hooks: false,
            is_drained: false,
            deadlines: deadlines(),
        };
        self.operator.begin(plan(&decision, planning).expect("an operation"), None).await.expect("a journal");
        let end = async {
            loop {
                match self.reports.recv().await.expect("the runner ended without a word") {
                    Report::Ended { operation } | Report::Blocked { operation } => return *operation,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(WAIT, end).await.expect("the operation never ended")
    }
}

fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("a name")
}

#[tokio::test]
async fn the_copies_of_a_dead_node_are_made_anew() {
    let mut story = Story::new().await;
    let before = story.database.sum();
    std::fs::write(story.database.dir.join("dead/n2"), b"").expect("a death");
    let ended = story.carry_out(Action::Replace { node: node("n2") }).await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:#?}");
    assert_eq!(story.database.members(), ["default-4", "n1", "n3"]);
    assert_eq!(story.database.sum(), before, "every shard has its two copies again");
    assert!(story.platform.nodes().contains("n2"), "its machine is left to a person");
    assert_eq!(story.database.asked("replicate"), 2 * SHARDS / 3);
}

/// A script in the place of another while `n2` is drained; how it ends, what is told, and whether the cordon is lifted.
async fn drained_with(script: &str, body: &str, state: OperationState, words: &[&str]) {
    let mut story = Story::new().await;
    let before = story.database.sum();
    story.database.change(script, body);
    let ended = story.carry_out(Action::ScaleDown { node: node("n2"), target: 2 }).await;
    assert_eq!(ended.state, state, "{ended:#?}");
    says(&ended.detail, words);
    assert_eq!(story.database.members(), ["n1", "n2", "n3"]);
    assert_eq!(story.platform.nodes().len(), 3, "no machine is taken away");
    assert_eq!(story.database.sum(), before, "nothing is lost");
    let is_cordoned = story.database.dir.join("cordoned/n2").exists();
    assert_eq!(is_cordoned, state == OperationState::Blocked, "a drain that is taken back lifts the cordon");
}

#[tokio::test]
async fn a_move_that_says_done_and_does_nothing() {
    drained_with("move", "exit 0", OperationState::Failed, &["drain n2", "the cluster does not carry it out"]).await;
}

#[tokio::test]
async fn a_forget_that_is_refused() {
    let body = "echo \"$node still holds shards\" >&2; exit 20";
    drained_with("forget", body, OperationState::Failed, &["leave n2", "n2 still holds shards"]).await;
}

#[tokio::test]
async fn a_forget_that_says_done_and_does_nothing() {
    drained_with("forget", "exit 0", OperationState::Blocked, &["leave n2", "still listed as a member"]).await;
}

/// From the cordon on, the inventory is another one.
async fn inventory_becomes(body: &str, words: &[&str]) {
    let cordon = format!(
        "touch \"$DIR/cordoned/$node\"\ncat > \"$DIR/inventory.odd\" <<'END'\n#!/bin/sh\n{body}\nEND\n\
         chmod 755 \"$DIR/inventory.odd\"\nmv \"$DIR/inventory.odd\" \"$DIR/inventory\""
    );
    drained_with("cordon", &cordon, OperationState::Failed, words).await;
}

#[tokio::test]
async fn an_inventory_that_becomes_empty() {
    let empty = r#"echo '{"members":[],"wanted_replicas":2,"shards":[],"transfers":[]}'"#;
    inventory_becomes(empty, &["drain n2", "it lists no member at all, though it did before"]).await;
}

#[tokio::test]
async fn an_inventory_that_becomes_garbage() {
    inventory_becomes("echo '<html>'", &["drain n2", "its stdout is not the JSON asked for"]).await;
}

#[tokio::test]
async fn an_inventory_that_fails() {
    inventory_becomes("echo 'no quorum' >&2; exit 1", &["drain n2", "exit code 1: no quorum"]).await;
}
