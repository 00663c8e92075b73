//! The way to an invented cluster in tokio's time: what the model says of an answer's time is slept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::reply::{Body, Reply};
use crate::operate::drivers::qdrant::api::{Answer, Api, ApiError, Request};

/// A cluster and the instant it began; a clone is another handle of the same.
#[derive(Clone)]
pub struct Wire {
    cluster: Arc<Mutex<Cluster>>,
    began: Instant,
    /// Names of nodes by address, where the address is not `http://NAME:6333`.
    addresses: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Wire {
    pub fn new(cluster: Cluster) -> Wire {
        Wire { cluster: Arc::new(Mutex::new(cluster)), began: Instant::now(), addresses: Arc::default() }
    }

    /// How old the cluster is.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The cluster as of now.
    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        let mut cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.advance(self.now());
        cluster
    }

    /// From now on the node answers at this address too.
    pub fn name(&self, address: &str, node: &str) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.insert(address.into(), node.into());
    }

    fn node_at(&self, address: &str) -> Option<String> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let named = || address.strip_prefix("http://")?.split(':').next().map(str::to_string);
        addresses.get(address).cloned().or_else(named)
    }
}

#[async_trait]
impl Api for Wire {
    async fn ask(&self, address: &str, request: Request) -> Result<Answer, ApiError> {
        let Some(node) = self.node_at(address) else {
            return Err(ApiError::NotSent(format!("{address} is no address")));
        };
        let (method, path, body) = (request.method.as_str(), &request.path, request.body.as_ref());
        let reply = {
            let now = self.now();
            self.cluster().request(now, &node, method, path, body)
        };
        let limit = request.timeout;
        match reply {
            Reply::Refused => Err(ApiError::NotSent(format!("{address}: connection refused"))),
            Reply::Closed => Err(ApiError::Lost(format!("{address}: the connection was closed"))),
            Reply::Answer(answer) if answer.after < limit => {
                tokio::time::sleep(answer.after).await;
                let body = match answer.body {
                    Body::Json(value) => value.to_string(),
                    Body::Text(text) => text,
                };
                Ok(Answer { status: answer.status, body })
            }
            Reply::Never | Reply::Answer(_) => {
                tokio::time::sleep(limit).await;
                Err(ApiError::Lost(format!("{address}: no answer within {} s", limit.as_secs())))
            }
        }
    }
}
