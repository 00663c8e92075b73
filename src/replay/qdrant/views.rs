//! What each node tells of the cluster and its collections.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::cluster::Cluster;
use super::collection::{Collection, State};
use super::nodes::{Node, Process, Standing};
use super::reply::{Refusal, Reply, millis, ok};
use super::transfer::Transfer;

/// The day of the recordings: the instant 0 of every invented cluster.
const BEGAN: i64 = 1_795_456_800;
/// What a question to all peers costs with one that is dead, or that does not answer.
const DEAD: Duration = millis(400);
const HUNG: Duration = millis(9_400);
/// Between two messages to a peer.
const MESSAGES: Duration = millis(140);
const REFUSED: &str = "Error in closure supplied to transport channel pool: code: 'The service is currently \
                       unavailable', message: \"tcp connect error\"";

impl Cluster {
    pub(super) fn at(&self, now: Duration, digits: SecondsFormat) -> String {
        let began = DateTime::from_timestamp(BEGAN, 0).unwrap_or(DateTime::<Utc>::UNIX_EPOCH);
        (began + TimeDelta::from_std(now).unwrap_or_default()).to_rfc3339_opts(digits, true)
    }

    pub(super) fn root(&self, node: &str) -> Reply {
        let version = self.nodes.get(node).map(|node| node.version.clone());
        let commit = "74f3e85b9473c62560006c043e13737ce6b48412";
        let body = json!({"title": "qdrant - vector search engine", "version": version, "commit": commit});
        Reply::Answer(super::Answer { after: millis(2), status: 200, body: super::Body::Json(body) })
    }

    /// What a node believes of the collections.
    pub(super) fn collections_of<'a>(&'a self, node: &'a Node) -> &'a std::collections::BTreeMap<String, Collection> {
        match &node.standing {
            Standing::Removed(frozen) => &frozen.collections,
            Standing::Joining | Standing::Learner | Standing::Member => &self.collections,
        }
    }

    pub(super) fn knows(&self, node: &str, collection: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| self.collections_of(node).contains_key(collection))
    }

    pub(super) fn collection_names(&self, node: &str) -> Reply {
        let Some(node) = self.nodes.get(node) else { return Reply::Refused };
        let names: Vec<Value> = self.collections_of(node).keys().map(|name| json!({"name": name})).collect();
        ok(json!({"collections": names}), millis(2))
    }

    fn thread(&self, works: bool, digits: SecondsFormat) -> Value {
        if works {
            json!({"consensus_thread_status": "working", "last_update": self.at(self.now, digits)})
        } else {
            json!({"consensus_thread_status": "stopped"})
        }
    }

    /// The peers that a node knows, each with its address.
    fn peers_of(&self, node: &Node) -> Vec<(u64, String)> {
        if let Standing::Removed(_) = node.standing {
            return vec![(node.peer, node.uri.clone())];
        }
        self.peers.iter().map(|(id, peer)| (*id, peer.uri.clone())).collect()
    }

    pub(super) fn peer_uris(&self, node: &Node) -> Map<String, Value> {
        self.peers_of(node).into_iter().map(|(id, uri)| (id.to_string(), json!({"uri": uri}))).collect()
    }

    /// `message_send_failures` of one peer that has not answered since an instant.
    pub(super) fn send_failures(&self, since: Duration) -> Value {
        let count = self.now.saturating_sub(since).as_millis() / MESSAGES.as_millis();
        json!({
            "count": u64::try_from(count).unwrap_or(u64::MAX).max(1),
            "latest_error": REFUSED,
            "latest_error_timestamp": self.at(self.now, SecondsFormat::Nanos),
        })
    }

    pub(super) fn cluster_view(&self, node: &str) -> Reply {
        let Some(node) = self.nodes.get(node) else { return Reply::Refused };
        let view = self.raft_view(node);
        let mut failures = Map::new();
        if matches!(view.role, Some("Leader" | "Candidate")) {
            failures.extend(self.raft.stale_failures.iter().map(|(uri, said)| (uri.clone(), said.clone())));
            let down = self.peers.values().filter_map(|peer| Some((peer, peer.down?)));
            let noticed = down.filter(|(_, since)| self.now >= *since + millis(500));
            failures.extend(noticed.map(|(peer, since)| (peer.uri.clone(), self.send_failures(since))));
        }
        let result = json!({
            "status": "enabled",
            "peer_id": node.peer,
            "peers": self.peer_uris(node),
            "raft_info": {
                "term": view.term,
                "commit": view.commit,
                "pending_operations": view.pending,
                "leader": view.leader,
                "role": view.role,
                "is_voter": view.is_voter,
            },
            "consensus_thread_status": self.thread(view.works, SecondsFormat::Nanos),
            "message_send_failures": failures,
        });
        ok(result, millis(2))
    }

    /// What a question to all peers takes.
    pub(super) fn round(&self, healthy: Duration) -> Duration {
        let processes: Vec<Process> = self.peers.keys().map(|peer| self.process_of(*peer)).collect();
        if processes.contains(&Process::Hung) {
            HUNG
        } else if processes.contains(&Process::Dead) {
            DEAD
        } else {
            healthy
        }
    }

    pub(super) fn cluster_telemetry(&self, name: &str, level: u32) -> Reply {
        let Some(node) = self.nodes.get(name) else { return Reply::Refused };
        let removed = matches!(node.standing, Standing::Removed(_));
        let mut peers = Map::new();
        for (id, uri) in self.peers_of(node) {
            let peer = self.node_of(id).filter(|peer| peer.process == Process::Up);
            let details = peer.map(|peer| {
                let view = self.raft_view(peer);
                json!({
                    "version": peer.version,
                    "role": view.role,
                    "is_voter": view.is_voter,
                    "term": view.term,
                    "commit": view.commit,
                    "num_pending_operations": view.pending,
                    "consensus_thread_status": self.thread(view.works, SecondsFormat::Millis),
                })
            });
            peers.insert(id.to_string(), json!({"uri": uri, "responsive": details.is_some(), "details": details}));
        }
        let mut collections = Map::new();
        for (name, collection) in self.collections_of(node) {
            let mut told = json!({"id": name});
            if level >= 3 && !removed {
                self.tell_shards(name, collection, &mut told);
            }
            collections.insert(name.clone(), told);
        }
        let cluster = json!({"enabled": true, "number_of_peers": peers.len(), "peers": peers});
        let takes = if removed { millis(4) } else { self.round(millis(12)) };
        ok(json!({"collections": collections, "cluster": cluster}), takes)
    }

    fn tell_shards(&self, name: &str, collection: &Collection, told: &mut Value) {
        let shards = collection.shards.iter().map(|(number, shard)| {
            let copies = shard.copies.iter().map(|(peer, copy)| {
                if self.process_of(*peer) != Process::Up {
                    return json!({"peer_id": peer, "state": copy.state.as_str()});
                }
                let (state, points) = self.seen(name, *number, *peer, 0);
                let mut told = json!({
                    "peer_id": peer,
                    "state": state.as_str(),
                    "status": if self.is_indexing(*peer, name, *number) { "yellow" } else { "green" },
                    "total_optimized_points": 0,
                    "vectors_size_bytes": collection.vector_bytes(points),
                    "payloads_size_bytes": collection.payload_bytes(points),
                    "num_points": points,
                    "num_vectors": points,
                    "num_vectors_by_name": {"": points},
                });
                // While it is copied from, a copy has no status.
                let copied =
                    collection.transfers.iter().any(|t| t.over.is_none() && t.shard == *number && t.from == *peer);
                if copied && let Some(told) = told.as_object_mut() {
                    told.remove("status");
                }
                told
            });
            json!({"id": number, "replicas": copies.collect::<Vec<_>>()})
        });
        told["shards"] = shards.collect();
        let running = collection.transfers.iter().filter(|t| t.over.is_none());
        let transfers: Vec<Value> = running
            .map(|t| {
                let up = self.process_of(t.from) == Process::Up;
                t.listed(self.comment(name, t, t.from).filter(|_| up))
            })
            .collect();
        if !transfers.is_empty() {
            told["shard_transfers"] = transfers.into();
        }
        if !collection.reshardings.is_empty() {
            told["reshardings"] = collection.reshardings.clone().into();
        }
    }

    pub(super) fn is_indexing(&self, peer: u64, collection: &str, shard: u32) -> bool {
        let until = self.node_of(peer).and_then(|node| node.indexing.get(&(collection.to_string(), shard)));
        until.is_some_and(|until| self.now < *until)
    }

    pub(super) fn collection_cluster(&self, node: &str, name: &str) -> Reply {
        let Some(node) = self.nodes.get(node) else { return Reply::Refused };
        let Some(collection) = self.collections_of(node).get(name) else {
            return Refusal::no_collection(name).after(millis(2));
        };
        let removed = matches!(node.standing, Standing::Removed(_));
        let (mut local, mut remote) = (Vec::new(), Vec::new());
        for (number, shard) in &collection.shards {
            for (peer, copy) in &shard.copies {
                if *peer == node.peer {
                    let (state, points) = self.seen(name, *number, *peer, node.peer);
                    local.push(json!({"shard_id": number, "points_count": points, "state": state.as_str()}));
                } else {
                    let state = if removed { copy.state } else { self.seen(name, *number, *peer, node.peer).0 };
                    remote.push(json!({"shard_id": number, "peer_id": peer, "state": state.as_str()}));
                }
            }
        }
        let listed = |t: &&Transfer| t.over.is_none() || (t.from == node.peer && t.over > Some(self.now));
        let transfers = collection
            .transfers
            .iter()
            .filter(listed)
            .map(|t| t.listed(if removed { None } else { self.comment(name, t, node.peer) }));
        let mut result = json!({
            "peer_id": node.peer,
            "shard_count": collection.shards.len(),
            "local_shards": local,
            "remote_shards": remote,
            "shard_transfers": transfers.collect::<Vec<_>>(),
        });
        if !collection.reshardings.is_empty() {
            result["resharding_operations"] = collection.reshardings.clone().into();
        }
        ok(result, millis(2))
    }

    pub(super) fn collection_info(&self, node: &str, name: &str) -> Reply {
        let Some(collection) = self.collections.get(name) else {
            return Refusal::no_collection(name).after(millis(2));
        };
        if let Err(reply) = self.readable(node, name) {
            return match reply {
                Reply::Closed => Refusal::internal("0 of 0 read operations failed").after(millis(3)),
                reply => reply,
            };
        }
        let mut points = 0;
        let mut indexes = false;
        for (number, shard) in &collection.shards {
            let serving = shard
                .copies
                .iter()
                .find(|(peer, copy)| copy.state == State::Active && self.process_of(**peer) == Process::Up);
            let serving = serving.and_then(|(peer, _)| self.node_of(*peer));
            points += serving.map_or(0, |node| node.points(name, *number));
            indexes |= shard.copies.keys().any(|peer| self.is_indexing(*peer, name, *number));
        }
        let result = json!({
            "status": if indexes { "yellow" } else { "green" },
            "optimizer_status": "ok",
            "indexed_vectors_count": 0,
            "points_count": points,
            "segments_count": 2 * collection.shards.len(),
            "config": collection.config(),
            "payload_schema": {},
            "update_queue": {"length": 0},
        });
        ok(result, millis(4))
    }
}
