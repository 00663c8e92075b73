//! The questions and orders that the driver has for one node. IO through [`Api`].

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use reqwest::Url;
use serde_json::{Value, json};

use super::api::{Api, Request};
use super::told::{ClusterTelemetry, LocalView, Names, NodeTelemetry, OwnView, PeerId, Root};
use super::words::{Changed, NotTold, changed, ok, plain, result};

/// What a node tells of itself takes milliseconds, whatever the others do.
const OWN: Duration = Duration::from_secs(3);
/// The same for what grows with the shards.
const LOCAL: Duration = Duration::from_secs(5);
/// A hung peer makes this one wait for 9.4 s, and no parameter shortens that.
const GATHERED: Duration = Duration::from_secs(15);
/// How long Qdrant may wait for its members to agree on a change, whole seconds.
const AGREE_SECS: u64 = 10;
/// That, and the way there and back.
const CHANGE: Duration = Duration::from_secs(AGREE_SECS + 5);

/// Asks nodes.
#[derive(Clone)]
pub struct Asker(pub Arc<dyn Api>);

impl Asker {
    pub async fn own_view(&self, address: &str) -> Result<OwnView, NotTold> {
        result(self.0.ask(address, Request::get("/cluster", OWN)).await)
    }

    pub async fn version(&self, address: &str) -> Result<String, NotTold> {
        plain::<Root>(self.0.ask(address, Request::get("/", OWN)).await).map(|root| root.version)
    }

    /// Whether the node has once been ready since it started; it says so for ever after.
    pub async fn is_ready(&self, address: &str) -> Result<bool, NotTold> {
        match ok(self.0.ask(address, Request::get("/readyz", OWN)).await) {
            Ok(_) => Ok(true),
            Err(NotTold::Refused { status: 503, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// In order.
    pub async fn collections(&self, address: &str) -> Result<Vec<String>, NotTold> {
        let names: Names = result(self.0.ask(address, Request::get("/collections", LOCAL)).await)?;
        let mut names: Vec<String> = names.collections.into_iter().map(|named| named.name).collect();
        names.sort();
        Ok(names)
    }

    pub async fn local_view(&self, address: &str, collection: &str) -> Result<LocalView, NotTold> {
        result(self.0.ask(address, Request::get(of_collection(collection), LOCAL)).await)
    }

    /// From 1.17 on.
    pub async fn cluster_telemetry(&self, address: &str) -> Result<ClusterTelemetry, NotTold> {
        result(self.0.ask(address, Request::get("/cluster/telemetry?details_level=3", GATHERED)).await)
    }

    /// `level` 2 has the collections' parameters, 3 the node's own copies too.
    pub async fn telemetry(&self, address: &str, level: u8) -> Result<NodeTelemetry, NotTold> {
        result(self.0.ask(address, Request::get(format!("/telemetry?details_level={level}"), LOCAL)).await)
    }

    /// A value of the small store that the members agree on; `None` when there is none.
    pub async fn key(&self, address: &str, key: &str) -> Result<Option<Value>, NotTold> {
        result(self.0.ask(address, Request::get(format!("/cluster/metadata/keys/{key}"), OWN)).await)
    }

    pub async fn set_key(&self, address: &str, key: &str, value: Value) -> Changed {
        self.change(address, Method::PUT, format!("/cluster/metadata/keys/{key}?wait=true"), Some(value)).await
    }

    /// Starts a copy of the shard on `to`; the source keeps its own.
    pub async fn replicate(
        &self,
        address: &str,
        collection: &str,
        shard: u32,
        (from, to): (PeerId, PeerId),
        method: &str,
    ) -> Changed {
        let order = json!({"shard_id": shard, "from_peer_id": from, "to_peer_id": to, "method": method});
        self.on_shards(address, collection, json!({"replicate_shard": order})).await
    }

    pub async fn drop_replica(&self, address: &str, collection: &str, shard: u32, peer: PeerId) -> Changed {
        self.on_shards(address, collection, json!({"drop_replica": {"shard_id": shard, "peer_id": peer}})).await
    }

    pub async fn abort(&self, address: &str, collection: &str, shard: u32, (from, to): (PeerId, PeerId)) -> Changed {
        let order = json!({"shard_id": shard, "from_peer_id": from, "to_peer_id": to});
        self.on_shards(address, collection, json!({"abort_transfer": order})).await
    }

    /// With `force`, what the peer is listed to hold is struck off too.
    pub async fn remove_peer(&self, address: &str, peer: PeerId, force: bool) -> Changed {
        let force = if force { "force=true&" } else { "" };
        self.change(address, Method::DELETE, format!("/cluster/peer/{peer}?{force}timeout={AGREE_SECS}"), None).await
    }

    async fn on_shards(&self, address: &str, collection: &str, order: Value) -> Changed {
        let path = format!("{}?timeout={AGREE_SECS}", of_collection(collection));
        self.change(address, Method::POST, path, Some(order)).await
    }

    async fn change(&self, address: &str, method: Method, path: String, body: Option<Value>) -> Changed {
        changed(self.0.ask(address, Request { method, path, body, timeout: CHANGE }).await)
    }
}

/// A collection's name may hold any letter.
fn of_collection(name: &str) -> String {
    let mut url = Url::parse("http://node").expect("a fixed address");
    url.path_segments_mut().expect("http has paths").extend(["collections", name, "cluster"]);
    url.path().to_string()
}
