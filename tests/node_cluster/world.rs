//! A cluster for tests: nodes on runtimes of their own, so that one can be killed at once, and a provider that lists them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use vecscale::model::*;
use vecscale::node::client::Client;
use vecscale::node::pace::Meter;
use vecscale::node::server::{Settings, start};
use vecscale::node::state::Limits;
use vecscale::operate::drivers::vectornode::Vectornode;
use vecscale::operate::drivers::*;

pub const ROOMY: Limits = Limits { cpu_cores: 8.0, memory_bytes: 256 << 20, storage_bytes: 1 << 30 };

pub struct World {
    pub dir: TempDir,
    pub roster: Arc<Roster>,
    nodes: BTreeMap<NodeId, tokio::runtime::Runtime>,
    pub limits: Limits,
}

/// A provider that only lists.
#[derive(Default)]
pub struct Roster(Mutex<BTreeMap<NodeId, String>>);

pub fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub fn call() -> Call {
    let operation = OperationId("op".into());
    Call { pool: "p".into(), operation, step: "test", key: "op/1".into(), fence: 1, deadline: Duration::from_secs(30) }
}

impl World {
    pub async fn of(names: &[&str]) -> World {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World { dir, roster: Arc::default(), nodes: BTreeMap::new(), limits: ROOMY };
        for name in names {
            world.run(name).await;
        }
        world
    }

    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a node, or starts it again on its data, at the address it had.
    pub async fn run(&mut self, name: &str) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let had = self.roster.0.lock().unwrap().get(&id(name)).map(|a| a.trim_start_matches("http://").to_owned());
        let listen: SocketAddr = had.as_deref().unwrap_or("127.0.0.1:0").parse().unwrap();
        let (data, limits, node) = (self.data(name), self.limits, id(name));
        let (told, tells) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let settings = Settings { id: node, listen, data, limits };
            let (address, serving) =
                start(settings, Meter::Work(0.into()), CancellationToken::new()).await.expect("the node starts");
            told.send(address).unwrap();
            serving.await;
        });
        let address = tells.await.expect("the node starts");
        self.roster.0.lock().unwrap().insert(id(name), address);
        self.nodes.insert(id(name), runtime);
    }

    /// As `kill -9`: nothing of the node runs any more.
    pub async fn kill(&mut self, name: &str) {
        let runtime = self.nodes.remove(&id(name)).expect("it runs");
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5))).await.unwrap();
    }

    pub fn address(&self, name: &str) -> String {
        self.roster.0.lock().unwrap()[&id(name)].clone()
    }

    pub fn machine(&self, name: &str) -> Machine {
        Machine { id: id(name), address: self.address(name), zone: None, instance: None, ready: None }
    }

    /// A driver, and a client of all nodes, once every member serves.
    pub async fn driver(&self, fence: u64) -> Vectornode {
        let store = Vectornode::start(self.roster.clone(), fence);
        until("every member is well", async || {
            let seen = store.inventory(None).await.map_err(|e| e.0)?;
            seen.members.iter().all(|m| m.healthy).then_some(()).ok_or_else(|| format!("{:?}", seen.members))
        })
        .await;
        store
    }

    pub fn client(&self) -> Client {
        Client::new(self.roster.0.lock().unwrap().values().cloned())
    }

    pub async fn join(&mut self, store: &Vectornode, name: &str) {
        self.run(name).await;
        let machine = self.machine(name);
        assert_eq!(store.join(&call(), &machine).await, Effect::Done(()));
        until("the new node is ready", async || match store.ready(&machine).await {
            Ok(true) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A runtime may not be dropped where futures run.
        std::mem::take(&mut self.nodes).into_values().for_each(tokio::runtime::Runtime::shutdown_background);
    }
}

#[async_trait]
impl Provider for Roster {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        let machine = |(id, address): (&NodeId, &String)| Machine {
            id: id.clone(),
            address: address.clone(),
            zone: None,
            instance: None,
            ready: Some(true),
        };
        Ok(self.0.lock().unwrap().iter().map(machine).collect())
    }

    async fn create(&self, _: &Call, _: &NewNode) -> Effect<Machine> {
        unreachable!("a roster makes no nodes")
    }

    async fn destroy(&self, _: &Call, _: &Machine) -> Effect<()> {
        unreachable!("a roster destroys no nodes")
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// Looks again and again, for at most 30 s.
pub async fn until<T>(what: &str, look: impl AsyncFn() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if tokio::time::Instant::now() > deadline => panic!("not in 30 s: {what}; last seen: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A vector that tells which write of which point it is.
pub fn vector(id: u64, round: u64) -> Vec<f32> {
    vec![1.0, id as f32 + 1.0, round as f32, 0.5]
}

pub fn relocation(shard: &ShardId, from: &NodeId, to: &str) -> Move {
    Move { shard: shard.clone(), from: from.clone(), to: id(to), bytes: 0, vectors: 0 }
}

/// Moves one shard and waits until it has moved.
pub async fn relocate(store: &Vectornode, relocation: &Move) {
    assert_eq!(store.start_move(&call(), relocation).await, Effect::Done(()));
    until("the move ends", async || {
        let seen = store.inventory(None).await.map_err(|e| e.0)?;
        let copies: Vec<_> = seen.shards.iter().filter(|r| r.shard == relocation.shard).collect();
        let there = copies.iter().any(|r| r.node == relocation.to && r.state == ReplicaState::Active);
        let left = copies.iter().all(|r| r.node != relocation.from);
        let done = there && left && seen.transfers.iter().all(|t| t.shard != relocation.shard);
        done.then_some(()).ok_or_else(|| format!("{copies:?} {:?}", seen.transfers))
    })
    .await;
}
