//! One request to one node: which path it is for, and whether its words make sense.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::collection::Collection;
use super::nodes::{Process, Standing};
use super::operations::{Key, Proposal};
use super::reply::{Refusal, Reply, millis, ok, text};
use super::transfer::{Method, Order};

/// How long a caller waits for the peers who says nothing of it.
const PATIENCE: Duration = millis(10_000);
/// A started process may be ready after so long.
const READY: Duration = millis(2_400);

impl Cluster {
    /// Whether there is a process at the node that takes connections.
    pub fn listens(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| {
            let joining = matches!(node.standing, Standing::Joining);
            node.process == Process::Hung || (node.process == Process::Up && !joining)
        })
    }

    /// Whether the node's process is stopped in the middle of everything.
    pub fn is_hung(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| node.process == Process::Hung)
    }

    /// What becomes of a request to a node at an instant; its effect, if it has one, has happened. The instants of
    /// successive calls never fall.
    pub fn request(
        &mut self,
        now: Duration,
        node: &str,
        method: &str,
        path_and_query: &str,
        body: Option<&Value>,
    ) -> Reply {
        self.advance(now);
        if !self.listens(node) {
            return Reply::Refused;
        }
        if self.is_hung(node) {
            return Reply::Never;
        }
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        if query.get("timeout") == Some(&"0") {
            return invalid("query parameters: [timeout: value 0 invalid, must be 1 or larger]");
        }
        let patience = query.get("timeout").and_then(|s| s.parse().ok()).map_or(PATIENCE, Duration::from_secs);
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let null = Value::Null;
        let body = body.unwrap_or(&null);
        self.route(node, method, &parts, &query, patience, body)
    }

    fn route(
        &mut self,
        node: &str,
        method: &str,
        parts: &[&str],
        query: &BTreeMap<&str, &str>,
        patience: Duration,
        body: &Value,
    ) -> Reply {
        let level = query.get("details_level").and_then(|level| level.parse().ok()).unwrap_or(0);
        match (method, parts) {
            ("GET", []) => self.root(node),
            ("GET", ["healthz" | "livez"]) => text(200, "healthz check passed", millis(2)),
            ("GET", ["readyz"]) => self.readyz(node),
            ("GET", ["cluster"]) => self.cluster_view(node),
            ("GET", ["cluster", "telemetry"]) => self.cluster_telemetry(node, level),
            ("GET", ["telemetry"]) => self.telemetry(node, level),
            ("GET", ["metrics"]) => self.metrics(node),
            ("GET", ["quotas"]) => self.quotas(node),
            ("PUT", ["quotas"]) => self.propose(node, patience, Proposal::Quota(body.clone())),
            ("GET", ["cluster", "metadata", "keys"]) => ok(json!(self.metadata.keys().collect::<Vec<_>>()), millis(2)),
            ("GET", ["cluster", "metadata", "keys", key]) => ok(json!(self.metadata.get(*key)), millis(2)),
            ("PUT" | "DELETE", ["cluster", "metadata", "keys", key]) => {
                let value = (method == "PUT").then(|| body.clone());
                self.propose(node, patience, Proposal::Keep { key: (*key).into(), value })
            }
            ("DELETE", ["cluster", "peer", peer]) => match peer.parse() {
                Err(_) => text(404, format!("can not parse \"{peer}\" to a u64"), millis(5)),
                Ok(peer) => {
                    let force = query.get("force") == Some(&"true");
                    self.propose(node, patience, Proposal::RemovePeer { peer, force })
                }
            },
            ("GET", ["collections"]) => self.collection_names(node),
            (_, ["collections", name, rest @ ..]) => self.of_collection(node, method, name, rest, patience, body),
            _ => text(404, "", millis(1)),
        }
    }

    fn of_collection(
        &mut self,
        node: &str,
        method: &str,
        name: &str,
        rest: &[&str],
        patience: Duration,
        body: &Value,
    ) -> Reply {
        match (method, rest) {
            ("PUT", []) => {
                let collection = Box::new(self.described(body));
                self.propose(node, patience, Proposal::Create { name: name.into(), collection })
            }
            ("DELETE", []) => self.propose(node, patience, Proposal::Delete { name: name.into() }),
            _ if !self.knows(node, name) => Refusal::no_collection(name).after(millis(2)),
            ("GET", []) => self.collection_info(node, name),
            ("GET", ["cluster"]) => self.collection_cluster(node, name),
            ("POST", ["cluster"]) => self.operation(node, name, patience, body),
            (_, ["points", ..]) => self.of_points(node, method, name, rest, body),
            _ => text(404, "", millis(1)),
        }
    }

    fn described(&self, body: &Value) -> Collection {
        let number = |key: &str, or: usize| {
            let given = body[key].as_u64().unwrap_or(or as u64);
            u32::try_from(given).unwrap_or(u32::MAX).max(1)
        };
        Collection {
            shard_number: number("shard_number", self.peers.len()),
            replication_factor: number("replication_factor", 1),
            size: body["vectors"]["size"].as_u64().unwrap_or(4),
            distance: body["vectors"]["distance"].as_str().unwrap_or("Cosine").into(),
            shards: BTreeMap::new(),
            transfers: Vec::new(),
            reshardings: Vec::new(),
            operations: 0,
        }
    }

    /// `POST /collections/{c}/cluster`.
    fn operation(&mut self, node: &str, name: &str, patience: Duration, body: &Value) -> Reply {
        let one = body.as_object().filter(|object| object.len() == 1).and_then(|object| object.iter().next());
        let Some((what, asked)) = one else { return nonsense() };
        if what == "start_resharding" {
            return Refusal::bad("resharding is only supported in Qdrant Cloud").after(millis(2));
        }
        if what == "abort_resharding" {
            return Refusal::bad(format!("resharding is not in progress for collection {name}")).after(millis(2));
        }
        if what == "create_sharding_key" {
            return Refusal::bad("Shard Key cannot be created with Auto sharding method").after(millis(3));
        }
        let shard = asked["shard_id"].as_u64().and_then(|shard| u32::try_from(shard).ok());
        let Some(shard) = shard else { return nonsense() };
        let collection = name.to_string();
        if what == "drop_replica" {
            let Some(peer) = asked["peer_id"].as_u64() else { return nonsense() };
            return self.propose(node, patience, Proposal::Drop { collection, shard, peer });
        }
        let (Some(from), Some(to)) = (asked["from_peer_id"].as_u64(), asked["to_peer_id"].as_u64()) else {
            return nonsense();
        };
        let method = match &asked["method"] {
            Value::Null => None,
            method => match method.as_str().and_then(Method::named) {
                None => return nonsense(),
                method => method,
            },
        };
        if from == to {
            let why = "cannot transfer shard to itself, \"to_peer_id\" must be different than";
            return invalid(&format!("JSON body: [{what}.to_peer_id: {why} {from} in \"from_peer_id\"]"));
        }
        let key = Key { collection: collection.clone(), shard, from, to };
        let proposal = match (what.as_str(), method) {
            ("move_shard" | "replicate_shard", method) => {
                let sync = what == "replicate_shard";
                let method = method.unwrap_or(Method::Snapshot);
                Proposal::Start(Order { collection, shard, from, to, sync, method, by_itself: false })
            }
            ("abort_transfer", _) => Proposal::Abort(key),
            ("restart_transfer", Some(method)) => Proposal::Restart(key, method),
            _ => return nonsense(),
        };
        self.propose(node, patience, proposal)
    }

    fn readyz(&mut self, node: &str) -> Reply {
        let ready = self.is_ready(node);
        let Some(asked) = self.nodes.get_mut(node) else { return Reply::Refused };
        let first = !std::mem::replace(&mut asked.polled, true);
        asked.latched |= ready && !first;
        if asked.latched {
            text(200, "all shards are ready", millis(2))
        } else {
            text(503, "some shards are not ready", millis(500))
        }
    }

    /// It follows a leader, and each of its copies serves.
    fn is_ready(&self, node: &str) -> bool {
        let Some(asked) = self.nodes.get(node) else { return false };
        let serves = |collection: &Collection| {
            collection.shards.values().all(|s| !s.copies.contains_key(&asked.peer) || s.is_active(asked.peer))
        };
        matches!(asked.standing, Standing::Member)
            && self.agrees()
            && self.now >= asked.started + READY
            && self.collections.values().all(serves)
    }
}

fn invalid(what: &str) -> Reply {
    Refusal { status: 422, error: format!("Validation error in {what}") }.after(Duration::ZERO)
}

fn nonsense() -> Reply {
    let error = "Format error in JSON body: data did not match any variant of untagged enum ClusterOperations".into();
    Refusal { status: 400, error }.after(Duration::ZERO)
}
