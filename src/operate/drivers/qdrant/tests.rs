//! Every recorded answer is read as it was meant; and what is done about it. Nodes here answer from recordings of a
//! real cluster, 127.0.10.1 to .4, a path each.

mod changes;
mod reading;
mod rest;
mod rules;
mod settling;
mod silence;
mod vocabulary;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::api::{Answer, ApiError, Request};
use super::told::PeerId;
use super::*;
use crate::model::{OperationId, PoolName, ReplicaState};
use crate::operate::drivers::none::NoProvider;

/// The members' numbers in the recordings.
const N1: PeerId = 8567508380768009;
const N2: PeerId = 648016413425663;
const N3: PeerId = 3048181806355747;
const N4: PeerId = 5246638518645500;

fn id(name: &str) -> NodeId {
    NodeId::new(name).expect("a name")
}

fn shard(collection: &str, shard: u32) -> ShardId {
    ShardId { collection: collection.into(), shard }
}

fn machine(n: u8) -> Machine {
    let address = format!("http://127.0.10.{n}:6333");
    Machine { id: id(&format!("n{n}")), address, zone: None, instance: None, ready: None }
}

fn call() -> Call {
    Call {
        pool: PoolName::from("default"),
        operation: OperationId("op-1".into()),
        step: "move",
        key: "op-1.move".into(),
        fence: 1,
        deadline: Duration::from_secs(10),
    }
}

fn a_move(collection: &str, number: u32, from: &str, to: &str) -> Move {
    Move { shard: shard(collection, number), from: id(from), to: id(to), bytes: 1, vectors: 1 }
}

/// A recorded answer.
fn recorded(case: &str) -> Result<Answer, ApiError> {
    let path = format!("{}/tests/fixtures/qdrant/{case}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let case: Value = serde_json::from_str(&text).expect("a recording is JSON");
    let response = &case["response"];
    match response["status"].as_u64() {
        None => Err(ApiError::Lost("the connection was closed".into())),
        Some(status) => Ok(Answer {
            status: status as u16,
            body: response["body"].as_str().map_or_else(|| response["body"].to_string(), String::from),
        }),
    }
}

fn answer(body: Value) -> Result<Answer, ApiError> {
    Ok(Answer { status: 200, body: body.to_string() })
}

/// What another member would have said: the recording with another number at its head.
fn as_told_by(case: &str, peer: PeerId) -> Result<Answer, ApiError> {
    let mut body: Value = serde_json::from_str(&recorded(case)?.body).expect("JSON");
    body["result"]["peer_id"] = peer.into();
    answer(body)
}

/// Nodes that answer from a table, and what they were asked to change.
#[derive(Default)]
struct Nodes {
    answers: Mutex<BTreeMap<(u8, String), Result<Answer, ApiError>>>,
    changes: Mutex<Vec<String>>,
}

impl Nodes {
    fn set(&self, n: u8, path: &str, answer: Result<Answer, ApiError>) {
        self.answers.lock().unwrap().insert((n, path.into()), answer);
    }

    fn set_all(&self, nodes: &[u8], path: &str, answer: Result<Answer, ApiError>) {
        nodes.iter().for_each(|n| self.set(*n, path, answer.clone()));
    }

    /// A node that is not there any more, or one that does not move.
    fn silence(&self, n: u8, error: ApiError) {
        self.answers.lock().unwrap().retain(|(node, _), _| *node != n);
        self.set(n, "", Err(error));
    }

    fn kill(&self, n: u8) {
        self.silence(n, ApiError::NotSent("Connection refused".into()));
    }

    fn hang(&self, n: u8) {
        self.silence(n, ApiError::Lost("nothing within 3 s".into()));
    }

    fn changes(&self) -> Vec<String> {
        std::mem::take(&mut self.changes.lock().unwrap())
    }
}

#[async_trait]
impl Api for Nodes {
    async fn ask(&self, address: &str, request: Request) -> Result<Answer, ApiError> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let n: u8 = host.rsplit('.').next().and_then(|n| n.parse().ok()).expect("one of our nodes");
        let path = match request.method {
            http::Method::GET => request.path.clone(),
            ref method => format!("{method} {}", request.path),
        };
        if request.method != http::Method::GET {
            let body = request.body.map_or(String::new(), |body| format!(" {body}"));
            self.changes.lock().unwrap().push(format!("n{n}: {path}{body}"));
        }
        let answers = self.answers.lock().unwrap();
        let whole_node = answers.get(&(n, String::new()));
        let missing = || Ok(Answer { status: 404, body: format!("nothing at {path}") });
        whole_node.or(answers.get(&(n, path.clone()))).cloned().unwrap_or_else(missing)
    }
}

/// Three healthy nodes with the collections alpha (one copy) and beta (two).
fn healthy() -> Arc<Nodes> {
    let nodes = Arc::new(Nodes::default());
    for (n, peer) in [(1, N1), (2, N2), (3, N3)] {
        nodes.set(n, "/cluster", as_told_by("cluster_3nodes_from_leader", peer));
        nodes.set(n, "/cluster/telemetry?details_level=3", recorded("cluster_telemetry_level_3"));
    }
    let all = [1, 2, 3];
    nodes.set_all(&all, "/", recorded("root"));
    nodes.set_all(&all, "/telemetry?details_level=2", recorded("telemetry_details_level_2"));
    nodes.set_all(&all, "/telemetry?details_level=3", recorded("telemetry_details_level_3"));
    nodes.set_all(&all, "/collections", recorded("collections"));
    for key in [CORDONED, NAMES] {
        nodes.set_all(&all, &format!("/cluster/metadata/keys/{key}"), recorded("cluster_metadata_get_missing"));
    }
    place(&nodes, "alpha", &[(0, &[N1]), (1, &[N3]), (2, &[N2]), (3, &[N1]), (4, &[N3]), (5, &[N2])]);
    let beta: [(u32, &[PeerId]); 6] =
        [(0, &[N1, N2]), (1, &[N1, N3]), (2, &[N2, N3]), (3, &[N1, N2]), (4, &[N1, N3]), (5, &[N2, N3])];
    place(&nodes, "beta", &beta);
    nodes
}

/// The others say that n3 does not answer them either.
fn others_miss_n3(nodes: &Nodes) {
    nodes.set_all(&[1, 2], "/cluster/telemetry?details_level=3", recorded("cluster_telemetry_peer_dead"));
}

/// Every member tells the same placement, all of it active.
fn place(nodes: &Nodes, collection: &str, shards: &[(u32, &[PeerId])]) {
    let copies: Vec<_> =
        shards.iter().flat_map(|(shard, peers)| peers.iter().map(|peer| (*shard, *peer, "Active"))).collect();
    place_with(nodes, collection, &copies, json!([]));
}

fn place_with(nodes: &Nodes, collection: &str, copies: &[(u32, PeerId, &str)], transfers: Value) {
    let shards: std::collections::BTreeSet<u32> = copies.iter().map(|(shard, ..)| *shard).collect();
    for (n, own) in [(1, N1), (2, N2), (3, N3)] {
        let (mut local, mut remote) = (Vec::new(), Vec::new());
        for (shard, peer, state) in copies {
            match *peer == own {
                true => local.push(json!({"shard_id": shard, "points_count": 1000, "state": state})),
                false => remote.push(json!({"shard_id": shard, "peer_id": peer, "state": state})),
            }
        }
        let told = json!({
            "peer_id": own, "shard_count": shards.len(), "local_shards": local, "remote_shards": remote,
            "shard_transfers": transfers,
        });
        nodes.set(n, &format!("/collections/{collection}/cluster"), answer(json!({"result": told})));
    }
}

fn driver(nodes: &Arc<Nodes>, machines: &[u8]) -> Qdrant {
    let machines = machines.iter().map(|n| machine(*n)).collect();
    Qdrant::new(Arc::new(NoProvider::new(machines, Vec::new())), nodes.clone())
}

fn states(seen: &Inventory, node: &str) -> Vec<String> {
    seen.on(&id(node)).map(|r| format!("{} {:?}", r.shard, r.state)).collect()
}
