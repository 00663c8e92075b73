//! A double of a Qdrant cluster on loopback, built from recorded answers of Qdrant 1.19.0: it is not Qdrant. What it
//! says and does is `vecscale::replay::qdrant`; this gives each node a listener of its own, and an API for the `http`
//! provider that makes and removes nodes.
//!
//! A node that is killed has no listener and its connections are reset; one that is hung takes connections and never
//! answers.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod load;
mod machines;
mod serve;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;
use vecscale::replay::qdrant::{Cluster, Keys};

/// One request that a node was asked, and how it was answered; `None`: not at all.
#[derive(Clone, Debug)]
pub struct Asked {
    pub node: String,
    pub method: String,
    pub path: String,
    pub body: serde_json::Value,
    pub status: Option<u16>,
}

/// What happened on the platform, whatever was answered.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// How often each node was really made, and really removed.
    pub made: BTreeMap<String, u32>,
    pub removed: BTreeMap<String, u32>,
}

struct State {
    cluster: Cluster,
    /// Where each machine's node listens; a machine may have a dead process.
    machines: BTreeMap<String, SocketAddr>,
    ledger: Ledger,
    asked: Vec<Asked>,
    /// Version of nodes that are made from now on.
    version: String,
}

pub struct Shared {
    state: Mutex<State>,
    began: Instant,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().expect("no panic while held");
        let now = self.began.elapsed();
        state.cluster.advance(now);
        state
    }
}

pub struct Qdrant {
    shared: Arc<Shared>,
    /// `base` of the provider.
    pub base: String,
}

impl Qdrant {
    /// Members that have long been together, with no collection.
    pub async fn new(nodes: &[&str]) -> Qdrant {
        let state = State {
            cluster: Cluster::new(nodes),
            machines: BTreeMap::new(),
            ledger: Ledger::default(),
            asked: Vec::new(),
            version: "1.19.0".into(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), began: Instant::now() });
        for node in nodes {
            shared.clone().machine(node);
        }
        let base = machines::listen(shared.clone()).await;
        Qdrant { shared, base }
    }

    /// The cluster, as of now.
    pub fn with<T>(&self, look: impl FnOnce(&mut Cluster, Duration) -> T) -> T {
        let now = self.shared.began.elapsed();
        look(&mut self.shared.state().cluster, now)
    }

    pub fn kill(&self, node: &str) {
        self.with(|cluster, now| cluster.kill(now, node));
    }

    pub fn hang(&self, node: &str) {
        self.with(|cluster, now| cluster.hang(now, node));
    }

    pub fn revive(&self, node: &str) {
        self.with(|cluster, now| cluster.revive(now, node));
    }

    /// From now on only who has a key is let in.
    pub fn demand(&self, full: &str, read_only: &str) {
        let keys = Keys { full: full.into(), read_only: read_only.into() };
        self.with(|cluster, _| cluster.demand(keys));
    }

    /// Nodes that are made from now on are of this version.
    pub fn make(&self, version: &str) {
        self.shared.state().version = version.into();
    }

    /// The machines that there are.
    pub fn machines(&self) -> Vec<String> {
        self.shared.state().machines.keys().cloned().collect()
    }

    pub fn address(&self, node: &str) -> String {
        format!("http://{}", self.shared.state().machines[node])
    }

    /// Addresses of all machines.
    pub fn addresses(&self) -> Vec<String> {
        self.shared.state().machines.values().map(|at| format!("http://{at}")).collect()
    }

    pub fn ledger(&self) -> Ledger {
        self.shared.state().ledger.clone()
    }

    /// What changes something and was asked of the nodes, in order; writes of points are not among it.
    pub fn changes(&self) -> Vec<Asked> {
        let state = self.shared.state();
        let changes = |asked: &&Asked| asked.method != "GET" && !asked.path.contains("/points");
        state.asked.iter().filter(changes).cloned().collect()
    }
}

impl Shared {
    /// A machine with an address for the process of this name.
    fn machine(self: Arc<Self>, node: &str) -> SocketAddr {
        let socket = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let at = socket.local_addr().expect("bound");
        self.state().machines.insert(node.into(), at);
        tokio::spawn(serve::node(self, node.into(), at, socket));
        at
    }
}

/// Holds a port: until it listens, connections to it are refused.
fn bound(at: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    Ok(socket)
}
