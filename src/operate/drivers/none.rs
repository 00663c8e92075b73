//! The drivers for what is not there: nodes that hold no data, and nodes that come and go by other hands.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Call, Datastore, Effect, NewNode, Provider, Unanswered, file_sd};
use crate::clock::Clock;
use crate::model::{Inventory, Machine, Member, Move, NodeId, ShardId};
use crate::operate::proof::{ProofOfCopies, ProofOfEmpty};
use crate::scrape::Target;
use crate::scrape::prometheus::Prometheus;

/// The longest a node may take to show that it serves.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// Datastore `none`: every machine of the provider is a member, and none holds anything.
pub struct NoDatastore {
    provider: Arc<dyn Provider>,
    probe: Probe,
}

/// How it is found out whether a node serves.
pub enum Probe {
    /// `path` of its address answers below 500.
    Page { client: reqwest::Client, path: String },
    /// Prometheus says that it is well.
    Prometheus(Box<Prometheus>, Arc<dyn Clock>),
}

impl NoDatastore {
    pub fn new(provider: Arc<dyn Provider>, probe: Probe) -> NoDatastore {
        NoDatastore { provider, probe }
    }
}

fn no_shards<T>() -> Effect<T> {
    Effect::NoEffect("datastore none: the nodes hold no shards".into())
}

#[async_trait]
impl Datastore for NoDatastore {
    async fn inventory(&self, _via: Option<&NodeId>) -> Result<Inventory, Unanswered> {
        let machines = self.provider.list().await?;
        let member = |machine: Machine| Member {
            healthy: machine.ready.unwrap_or(true),
            ..Member::new(machine.id, machine.address)
        };
        Ok(Inventory { members: machines.into_iter().map(member).collect(), ..Inventory::default() })
    }

    async fn held_by(&self, _node: &Member) -> Result<Vec<(ShardId, u64)>, Unanswered> {
        Ok(Vec::new())
    }

    async fn join(&self, _call: &Call, _machine: &Machine) -> Effect<()> {
        Effect::Done(()) // being there is being a member
    }

    async fn ready(&self, machine: &Machine) -> Result<bool, Unanswered> {
        if machine.ready == Some(false) {
            return Ok(false);
        }
        match &self.probe {
            Probe::Page { client, path } => {
                let url = format!("{}{path}", machine.address.trim_end_matches('/'));
                let answer = client.get(&url).timeout(READY_TIMEOUT).send().await;
                answer.map(|answer| answer.status().as_u16() < 500).map_err(|e| Unanswered(format!("{url}: {e}")))
            }
            Probe::Prometheus(prometheus, clock) => {
                let target = Target { id: machine.id.clone(), address: machine.address.clone() };
                let known = prometheus.is_well(&target, clock.as_ref()).await;
                known.map_err(|gap| Unanswered(format!("{}: {gap}", machine.id)))
            }
        }
    }

    async fn cordon(&self, _call: &Call, _node: &NodeId) -> Effect<()> {
        no_shards()
    }

    async fn uncordon(&self, _call: &Call, _node: &NodeId) -> Effect<()> {
        no_shards()
    }

    async fn start_move(&self, _call: &Call, _relocation: &Move) -> Effect<()> {
        no_shards()
    }

    async fn replicate(&self, _call: &Call, _copy: &Move) -> Effect<()> {
        no_shards()
    }

    async fn cancel_move(&self, _call: &Call, _relocation: &Move) -> Effect<()> {
        no_shards()
    }

    async fn leave(&self, _call: &Call, _node: &NodeId, _proof: &ProofOfEmpty) -> Effect<()> {
        no_shards()
    }

    async fn forget(&self, _call: &Call, _node: &NodeId, _proof: &ProofOfCopies) -> Effect<()> {
        no_shards()
    }

    async fn unjoin(&self, _call: &Call, _node: &NodeId) -> Effect<()> {
        no_shards()
    }

    fn holds_data(&self) -> bool {
        false
    }
}

/// Provider `none`: knows the nodes that the configuration or its files name, and can change nothing.
pub struct NoProvider {
    machines: Vec<Machine>,
    files: Vec<PathBuf>,
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl NoProvider {
    /// `files` are patterns of [`file_sd`], read anew for each list.
    pub fn new(mut machines: Vec<Machine>, files: Vec<PathBuf>) -> NoProvider {
        machines.sort_by(|a, b| a.id.cmp(&b.id));
        NoProvider { machines, files, reading: Arc::default() }
    }
}

#[async_trait]
impl Provider for NoProvider {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        if self.files.is_empty() {
            return Ok(self.machines.clone());
        }
        let mut all = file_sd::read(self.files.clone(), &self.reading).await?;
        all.extend(self.machines.iter().cloned());
        file_sd::without_doubles(all).map_err(|why| Unanswered(format!("nodes: {why}")))
    }

    async fn create(&self, _call: &Call, _node: &NewNode) -> Effect<Machine> {
        Effect::NoEffect("provider none: vecscale cannot create nodes".into())
    }

    async fn destroy(&self, _call: &Call, _machine: &Machine) -> Effect<()> {
        Effect::NoEffect("provider none: vecscale cannot destroy nodes".into())
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with the status, then goes away.
    fn answering(status: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        });
        address
    }

    #[tokio::test]
    async fn a_node_is_ready_when_it_answers_below_500_and_the_provider_agrees() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            format!("http://{}", listener.local_addr().expect("an address"))
        };
        let cases = [
            ("answers", answering("200 OK"), None, Some(true)),
            ("not found is alive", answering("404 Not Found"), None, Some(true)),
            ("ill", answering("503 Service Unavailable"), None, Some(false)),
            ("not up", answering("200 OK"), Some(false), Some(false)),
            ("silent", closed, Some(true), None),
        ];
        for (what, address, ready, expected) in cases {
            let id = NodeId::new("n1").expect("a name");
            let machine = Machine { id, address, zone: None, instance: None, ready };
            let provider = Arc::new(NoProvider::new(vec![machine.clone()], Vec::new()));
            let probe = Probe::Page { client: reqwest::Client::new(), path: "/metrics".into() };
            let store = NoDatastore::new(provider, probe);
            assert_eq!(store.ready(&machine).await.ok(), expected, "{what}");
            assert_eq!(store.inventory(None).await.expect("a list").members.len(), 1);
        }
    }
}
