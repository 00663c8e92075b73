//! The driver against the model, in paused time: each workflow, and faults by seeds. Nothing that was acknowledged is
//! lost, and there is never a moment at which a shard has no active copy.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;
use http::Method;
use serde_json::{Value, json};

use super::Stage;
use crate::clock::SystemClock;
use crate::model::*;
use crate::operate::drivers::qdrant::Qdrant;
use crate::operate::drivers::qdrant::api::{Api, Request};
use crate::operate::drivers::{Call, Datastore, Effect, NewNode, Provider, Unanswered};
use crate::operate::placement::Placing;
use crate::operate::proof::{Baseline, prove, prove_copies};
use crate::operate::shards::plan_restore;
use crate::replay::qdrant::Wire;

/// Between two looks.
const PROBE: Duration = Duration::from_secs(2);

/// A provider that only lists.
struct Roster(Vec<&'static str>);

#[async_trait]
impl Provider for Roster {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        Ok(self.0.iter().map(|name| machine(name)).collect())
    }

    async fn create(&self, _: &Call, _: &NewNode) -> Effect<Machine> {
        unreachable!("nobody asks for it")
    }

    async fn destroy(&self, _: &Call, _: &Machine) -> Effect<()> {
        unreachable!("nobody asks for it")
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).expect("a name")
}

fn machine(name: &str) -> Machine {
    Machine { id: id(name), address: format!("http://{name}:6333"), zone: None, instance: None, ready: None }
}

fn call() -> Call {
    let (operation, deadline) = (OperationId("op".into()), Duration::from_secs(30));
    Call { pool: PoolName::from("default"), operation, step: "move", key: "op.move".into(), fence: 1, deadline }
}

/// `alpha` with one copy of each shard and `beta` with two on three nodes, and an empty fourth.
fn four() -> (Wire, Qdrant) {
    let mut stage = Stage::three();
    stage.cluster.start(stage.now, "n4", "1.19.0");
    stage.wait(Duration::from_secs(10));
    stage.cluster.bytes_per_second = 40_000;
    let wire = Wire::new(stage.cluster);
    let driver = Qdrant::new(Arc::new(Roster(vec!["n1", "n2", "n3", "n4"])), Arc::new(wire.clone()));
    (wire, driver)
}

async fn seen(driver: &Qdrant) -> Inventory {
    for _ in 0..30 {
        match driver.inventory(None).await {
            Ok(inventory) => return inventory,
            Err(_) => tokio::time::sleep(PROBE).await,
        }
    }
    panic!("no inventory within a minute: {:?}", driver.inventory(None).await)
}

/// Writes ten points through a node that answers; whether that was acknowledged.
async fn write(wire: &Wire, collection: &str, first: u64) -> bool {
    let points: Vec<Value> = (first..first + 10).map(|id| json!({"id": id, "vector": vec![0.5; 32]})).collect();
    for node in ["n2", "n3", "n4"] {
        let path = format!("/collections/{collection}/points?wait=true");
        let (body, timeout) = (Some(json!({"points": points})), Duration::from_secs(60));
        let asked = Request { method: Method::PUT, path, body, timeout };
        match wire.ask(&format!("http://{node}:6333"), asked).await {
            Ok(answer) => return answer.status == 200,
            Err(_) => continue,
        }
    }
    false
}

fn nothing_is_lost(wire: &Wire, at: &str) {
    for collection in ["alpha", "beta"] {
        let census = wire.cluster().census(collection);
        assert!(census.lost.is_empty(), "{at}: {collection}: no active copy of {:?}", census.lost);
    }
}

/// One relocation from its first call to its end, as a runner drives it; `meanwhile` happens at each look.
async fn relocate(wire: &Wire, driver: &Qdrant, relocation: &Move, mut meanwhile: impl FnMut(u32)) {
    for look in 0..200 {
        nothing_is_lost(wire, &format!("look {look} at {relocation:?}"));
        let inventory = seen(driver).await;
        let on = |node: &NodeId| inventory.on(node).find(|r| r.shard == relocation.shard).map(|r| r.state);
        let flies = inventory.transfers.iter().any(|t| t.shard == relocation.shard);
        if !flies && on(&relocation.to) == Some(ReplicaState::Active) {
            if on(&relocation.from).is_none() {
                return;
            }
            driver.finish_move(&call(), relocation).await;
        } else if !flies && on(&relocation.to).is_none() {
            driver.start_move(&call(), relocation).await;
        }
        meanwhile(look);
        tokio::time::sleep(PROBE).await;
    }
    panic!("{relocation:?} does not end: {:?}", wire.cluster().transfers());
}

fn relocations(inventory: &Inventory, from: &str) -> Vec<Move> {
    let targets = ["n1", "n2", "n3", "n4"].map(id);
    let held = inventory.on(&targets[0]).chain(inventory.on(&targets[1])).chain(inventory.on(&targets[2]));
    let held = held.chain(inventory.on(&targets[3])).filter(|replica| replica.node == id(from));
    let moves = held.map(|replica| {
        let free = |to: &&NodeId| !inventory.on(to).any(|other| other.shard == replica.shard);
        let to = targets.iter().rev().find(free).expect("one without it").clone();
        let (shard, from) = (replica.shard.clone(), replica.node.clone());
        Move { shard, from, to, bytes: replica.bytes, vectors: replica.vectors }
    });
    moves.collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_is_emptied_under_writes_and_leaves() {
    let (wire, driver) = four();
    let before = seen(&driver).await;
    assert!(before.no_quorum.is_none() && before.foreign.is_empty() && before.transfers.is_empty(), "{before:?}");
    assert_eq!(before.members.len(), 4);
    let baseline = Baseline::of(&before, &id("n1"));
    assert_eq!(driver.cordon(&call(), &id("n1")).await, Effect::Done(()));
    let mut acked = 0;
    for (at, relocation) in relocations(&before, "n1").iter().enumerate() {
        acked += u64::from(write(&wire, "alpha", 10_000 + at as u64 * 10).await) * 10;
        relocate(&wire, &driver, relocation, |_| ()).await;
    }
    assert_eq!(wire.cluster().copies_on("n1"), 0);
    let proof = prove(&driver, &SystemClock, &id("n1"), &baseline, PROBE).await.expect("it is empty");
    for _ in 0..10 {
        if driver.leave(&call(), &id("n1"), &proof).await == Effect::Done(()) {
            break;
        }
        tokio::time::sleep(PROBE).await;
    }
    assert_eq!(wire.cluster().registered().len(), 3);
    assert_eq!(driver.leave(&call(), &id("n1"), &proof).await, Effect::Done(()), "again");
    let census = wire.cluster().census("alpha");
    assert_eq!(census.points.len() as u64, 1200 + acked);
    assert!(acked > 0 && census.copies.values().all(|copies| *copies == 1), "{census:?}");
    let census = wire.cluster().census("beta");
    assert!(census.points.len() == 1200 && census.copies.values().all(|copies| *copies == 2), "{census:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_node_held_is_made_anew_and_it_is_struck_off() {
    let mut stage = Stage::empty(&["n1", "n2", "n3", "n4"]);
    let body = json!({"vectors": {"size": 32}, "shard_number": 6, "replication_factor": 2});
    stage.done("n1", "PUT", "/collections/beta", body);
    stage.cluster.fill("beta", 0, 1200);
    let wire = Wire::new(stage.cluster);
    let driver = Qdrant::new(Arc::new(Roster(vec!["n1", "n2", "n3", "n4"])), Arc::new(wire.clone()));
    let before = seen(&driver).await;
    let now = wire.now();
    wire.cluster().kill(now, "n1");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let baseline = Baseline::of(&before, &id("n1"));
    for look in 0..100 {
        let inventory = seen(&driver).await;
        let copies = plan_restore(&inventory, &id("n1"), &Placing::default()).expect("each shard lives on");
        if copies.is_empty() && inventory.transfers.is_empty() {
            break;
        }
        assert!(look < 99, "{copies:?}");
        for copy in &copies {
            driver.replicate(&call(), copy).await;
        }
        tokio::time::sleep(PROBE).await;
    }
    let proof = prove_copies(&driver, &SystemClock, &id("n1"), &baseline, PROBE).await.expect("nothing is missing");
    for _ in 0..10 {
        if driver.forget(&call(), &id("n1"), &proof).await == Effect::Done(()) {
            break;
        }
        tokio::time::sleep(PROBE).await;
    }
    assert_eq!(wire.cluster().registered().len(), 3);
    let census = wire.cluster().census("beta");
    assert!(census.points.len() == 1200 && census.lost.is_empty(), "{census:?}");
    assert!(census.copies.values().all(|copies| *copies == 2), "{census:?}");
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_an_end_of_a_move_it_ends_and_loses_nothing() {
    for (what, from_dies, hangs) in [
        ("the target is killed", false, false),
        ("the target hangs", false, true),
        ("the source is killed", true, false),
        ("the source hangs", true, true),
    ] {
        let (wire, driver) = four();
        let relocation = relocations(&seen(&driver).await, "n2").remove(0);
        let struck = if from_dies { &relocation.from } else { &relocation.to }.to_string();
        relocate(&wire, &driver, &relocation, |look| {
            let now = wire.now();
            match look {
                0 if hangs => wire.cluster().hang(now, &struck),
                0 => wire.cluster().kill(now, &struck),
                20 => wire.cluster().revive(now, &struck),
                _ => {}
            }
        })
        .await;
        let census = wire.cluster().census(&relocation.shard.collection);
        assert!(census.points.len() == 1200 && census.differing.is_empty(), "{what}: {census:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_do_and_what_cannot_be_agreed_on_is_told_and_left_alone() {
    let (wire, driver) = four();
    let relocation = relocations(&seen(&driver).await, "n2").remove(0);
    wire.cluster().reshard("beta");
    assert!(!seen(&driver).await.foreign.is_empty());
    let now = wire.now();
    wire.cluster().kill(now, "n3");
    wire.cluster().kill(now, "n4");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let inventory = seen(&driver).await;
    assert!(inventory.no_quorum.is_some(), "{inventory:?}");
    let effect = driver.start_move(&call(), &relocation).await;
    assert!(matches!(effect, Effect::NoEffect(_)), "{effect:?}");
    assert!(wire.cluster().transfers().is_empty());
}

/// Moves under one death or hang at a time, of whoever, whenever.
async fn story(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let (wire, driver) = four();
    let from = ["n1", "n2", "n3"][rng.usize(0..3)];
    let relocations: Vec<Move> = relocations(&seen(&driver).await, from).into_iter().take(2).collect();
    let mut down: Option<&str> = None;
    for relocation in &relocations {
        relocate(&wire, &driver, relocation, |look| {
            let now = wire.now();
            if let Some(node) = down.take_if(|_| rng.u8(0..5) == 0 || look > 60) {
                wire.cluster().revive(now, node);
            } else if down.is_none() && look < 40 && rng.u8(0..3) == 0 {
                let node = ["n1", "n2", "n3", "n4"][rng.usize(0..4)];
                match rng.bool() {
                    true => wire.cluster().kill(now, node),
                    false => wire.cluster().hang(now, node),
                }
                down = Some(node);
            }
        })
        .await;
    }
    for collection in ["alpha", "beta"] {
        let census = wire.cluster().census(collection);
        assert!(census.points.len() == 1200 && census.differing.is_empty(), "seed {seed}: {census:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn moves_end_and_lose_nothing_whoever_dies() {
    for seed in 0..12 {
        story(seed).await;
    }
}
