//! A small client for loads, demonstrations and tests. It asks any of the nodes it knows, and another one when that
//! does not answer.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cell::Vote;
use super::peers::{PeerError, Peers};
use super::read::Found;
use super::state::Holdings;
use crate::model::ReplicaState;

const LIMIT: Duration = Duration::from_secs(15);

/// Why a request has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no node answers: {0}")]
    Nobody(String),
    /// A write may have happened, or no node can answer now: the same request may be sent again.
    #[error("{0}")]
    Unavailable(String),
    #[error("{status}: {detail}")]
    Refused { status: StatusCode, detail: String },
    /// The copies of a shard differ, or one could not be looked at.
    #[error("{0}")]
    Digest(String),
}

/// Everything in a collection, in two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Over ids, vectors and payloads, whatever their order and place.
    pub digest: u128,
    pub vectors: u64,
}

/// Knows some addresses of one cluster.
pub struct Client {
    peers: Peers,
    nodes: RwLock<Vec<String>>,
}

#[derive(Deserialize)]
struct Answer<T> {
    result: T,
}

impl Client {
    /// `nodes` are addresses, `http://host:port`.
    pub fn new(nodes: impl IntoIterator<Item = String>) -> Client {
        Client { peers: Peers::default(), nodes: RwLock::new(nodes.into_iter().collect()) }
    }

    pub fn set_nodes(&self, nodes: impl IntoIterator<Item = String>) {
        *self.nodes.write().expect("no panic while writing") = nodes.into_iter().collect();
    }

    /// Sends the request to nodes in random order until one is reached.
    ///
    /// # Errors
    /// When none is, or the answer is not 2xx.
    pub async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ClientError> {
        self.ask(method, path, body, false).await
    }

    /// `reads`: nothing is changed by it, so a node that cannot answer now is passed over, too.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        reads: bool,
    ) -> Result<T, ClientError> {
        let mut nodes = self.nodes.read().expect("no panic while writing").clone();
        fastrand::shuffle(&mut nodes);
        let mut last = ClientError::Nobody("no address given".to_owned());
        for address in nodes {
            match self.peers.ask(method.clone(), &address, path, body, LIMIT).await {
                Ok(answer) => return Ok(answer),
                // A node that answered, if only to say that it cannot, tells more than one that is not there.
                Err(PeerError::Unreachable { .. }) if matches!(last, ClientError::Unavailable(_)) => {}
                Err(error @ PeerError::Unreachable { .. }) => last = ClientError::Nobody(error.to_string()),
                Err(PeerError::Refused { status, detail, .. }) if status != StatusCode::SERVICE_UNAVAILABLE => {
                    return Err(ClientError::Refused { status, detail });
                }
                Err(error) if reads => last = ClientError::Unavailable(error.to_string()),
                Err(error) => return Err(ClientError::Unavailable(error.to_string())),
            }
        }
        Err(last)
    }

    async fn written<T: DeserializeOwned>(&self, method: Method, path: &str, body: Value) -> Result<T, ClientError> {
        Ok(self.ask::<Answer<T>>(method, path, Some(&body), false).await?.result)
    }

    async fn read<T: DeserializeOwned>(&self, path: &str, body: Value) -> Result<T, ClientError> {
        Ok(self.ask::<Answer<T>>(Method::POST, path, Some(&body), true).await?.result)
    }

    /// # Errors
    /// As [`Client::request`]; 409 when it exists.
    pub async fn create_collection(
        &self,
        name: &str,
        size: u32,
        shards: u32,
        replicas: u32,
    ) -> Result<(), ClientError> {
        let body = json!({
            "vectors": {"size": size, "distance": "Cosine"}, "shard_number": shards, "replication_factor": replicas,
        });
        self.written(Method::PUT, &format!("/collections/{name}"), body).await.map(|_: bool| ())
    }

    /// # Errors
    /// As [`Client::request`]. After `Unavailable` nobody knows which points were written.
    pub async fn upsert(&self, name: &str, points: &[(u64, Vec<f32>)]) -> Result<(), ClientError> {
        let points: Vec<_> = points.iter().map(|(id, vector)| json!({"id": id, "vector": vector})).collect();
        let path = format!("/collections/{name}/points?wait=true");
        self.written(Method::PUT, &path, json!({ "points": points })).await.map(|_: Value| ())
    }

    /// # Errors
    /// As [`Client::upsert`].
    pub async fn delete(&self, name: &str, ids: &[u64]) -> Result<(), ClientError> {
        let path = format!("/collections/{name}/points/delete?wait=true");
        self.written(Method::POST, &path, json!({ "points": ids })).await.map(|_: Value| ())
    }

    /// # Errors
    /// As [`Client::request`].
    pub async fn search(&self, name: &str, vector: &[f32], limit: usize) -> Result<Vec<Found>, ClientError> {
        let body = json!({"vector": vector, "limit": limit});
        self.read(&format!("/collections/{name}/points/search"), body).await
    }

    /// The points of these ids that exist, with their vectors.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn get(&self, name: &str, ids: &[u64]) -> Result<Vec<Found>, ClientError> {
        let body = json!({"ids": ids, "with_vector": true});
        self.read(&format!("/collections/{name}/points"), body).await
    }

    /// # Errors
    /// As [`Client::request`].
    pub async fn count(&self, name: &str) -> Result<u64, ClientError> {
        #[derive(Deserialize)]
        struct Count {
            count: u64,
        }
        let body = json!({"exact": true});
        let counted: Count = self.read(&format!("/collections/{name}/points/count"), body).await?;
        Ok(counted.count)
    }

    /// Adds up one copy of each shard, after having seen that all its active copies are the same. Exact only while
    /// no one writes.
    ///
    /// # Errors
    /// When copies differ or a holder cannot be asked.
    pub async fn digest(&self, name: &str) -> Result<Digest, ClientError> {
        let vote: Vote = self.request(Method::GET, "/cluster/map", None).await?;
        let unknown = || ClientError::Digest(format!("collection {name} is not in the map"));
        let map = vote.learned.ok_or_else(unknown)?;
        let collection = map.collections.get(name).ok_or_else(unknown)?;
        let mut held = BTreeMap::new();
        for (id, member) in &map.members {
            let holdings: Holdings = match self.peers.get(&member.address, "/cluster/shards", LIMIT).await {
                Ok(holdings) => holdings,
                Err(_) => continue, // it shows below, if it holds anything
            };
            for holding in holdings.shards.into_iter().filter(|h| h.key.collection == collection.id) {
                held.insert((holding.key.shard, id), holding);
            }
        }
        let mut all = Digest { digest: 0, vectors: 0 };
        for (assignment, shard) in collection.shards.iter().zip(0..) {
            let mut copies = Vec::new();
            for holder in assignment.replicas.iter().filter(|h| h.state == ReplicaState::Active) {
                let copy = held.get(&(shard, &holder.node));
                copies.push(copy.ok_or_else(|| {
                    ClientError::Digest(format!("{name}/{shard}: {} does not tell what it holds", holder.node))
                })?);
            }
            let first = copies.first().ok_or_else(|| ClientError::Digest(format!("{name}/{shard}: no active copy")))?;
            if copies.iter().any(|c| c.digest != first.digest) {
                return Err(ClientError::Digest(format!("{name}/{shard}: the copies differ")));
            }
            let part = u128::from_str_radix(&first.digest, 16);
            all.digest = all.digest.wrapping_add(part.map_err(|e| ClientError::Digest(e.to_string()))?);
            all.vectors += first.vectors;
        }
        Ok(all)
    }
}
