//! The drivers for what is not there: nodes that hold no data, and nodes that come and go by other hands.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Call, Datastore, Effect, NewNode, Provider, Unanswered};
use crate::model::{Inventory, Machine, Member, Move, NodeId, ShardId};
use crate::operate::proof::{ProofOfCopies, ProofOfEmpty};

/// The longest a node may take to show that it serves.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// Datastore `none`: every machine of the provider is a member, and none holds anything.
pub struct NoDatastore {
    provider: Arc<dyn Provider>,
    client: reqwest::Client,
    path: String,
}

impl NoDatastore {
    /// A node is ready when `path` of its address answers below 500.
    pub fn new(provider: Arc<dyn Provider>, client: reqwest::Client, path: String) -> NoDatastore {
        NoDatastore { provider, client, path }
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
            id: machine.id,
            address: machine.address,
            cordoned: false,
            healthy: machine.ready.unwrap_or(true),
            version: None,
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
        let url = format!("{}{}", machine.address.trim_end_matches('/'), self.path);
        let answer = self.client.get(&url).timeout(READY_TIMEOUT).send().await;
        answer.map(|answer| answer.status().as_u16() < 500).map_err(|e| Unanswered(format!("{url}: {e}")))
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

/// Provider `none`: knows the nodes that the configuration names, and can change nothing.
pub struct NoProvider {
    machines: Vec<Machine>,
}

impl NoProvider {
    pub fn new(mut machines: Vec<Machine>) -> NoProvider {
        machines.sort_by(|a, b| a.id.cmp(&b.id));
        NoProvider { machines }
    }
}

#[async_trait]
impl Provider for NoProvider {
    async fn list(&self) -> Result<Vec<Machine>, Unanswered> {
        Ok(self.machines.clone())
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
            let provider = Arc::new(NoProvider::new(vec![machine.clone()]));
            let store = NoDatastore::new(provider, reqwest::Client::new(), "/metrics".into());
            assert_eq!(store.ready(&machine).await.ok(), expected, "{what}");
            assert_eq!(store.inventory(None).await.expect("a list").members.len(), 1);
        }
    }
}
