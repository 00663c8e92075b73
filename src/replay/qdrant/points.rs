//! Points: written into every copy that takes writes, read from any that serves. A copy whose node does not answer is
//! called dead by the first write that it misses, and by nothing else.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::collection::State;
use super::nodes::{Process, Standing};
use super::reply::{Refusal, Reply, millis, ok};

/// A write, a read; and each that meets a node that does not answer.
const WRITTEN: Duration = millis(10);
const READ: Duration = millis(6);
const MISSED: Duration = millis(480);
const MISSED_HUNG: Duration = millis(10_000);
/// The first write that no majority can call a copy dead for.
const NO_MAJORITY: Duration = millis(30_380);
const PAGE: usize = 10;

impl Cluster {
    pub(super) fn of_points(&mut self, node: &str, method: &str, name: &str, rest: &[&str], body: &Value) -> Reply {
        let endpoint = match (method, rest) {
            ("PUT", ["points"]) => "/collections/{collection_name}/points",
            ("POST", ["points", "delete"]) => "/collections/{collection_name}/points/delete",
            ("POST", ["points", "count"]) => "/collections/{collection_name}/points/count",
            ("POST", ["points", "query" | "search"]) => "/collections/{collection_name}/points/query",
            ("POST", ["points", "scroll"]) => "/collections/{collection_name}/points/scroll",
            _ => return super::reply::text(404, "", millis(1)),
        };
        let reply = match rest.get(1).copied() {
            None => self.upsert(node, name, body),
            Some("delete") => self.delete(node, name, body),
            Some("count") => self.count(node, name),
            Some("scroll") => self.scroll(node, name, body),
            Some(_) => self.query(node, name, body),
        };
        let method = if method == "PUT" { "PUT" } else { "POST" };
        if let (Reply::Answer(answer), Some(node)) = (&reply, self.nodes.get_mut(node)) {
            node.served.entry((method, endpoint, answer.status)).or_default().add(answer.after);
        }
        reply
    }

    /// Why the collection cannot be read through this node just now.
    pub(super) fn readable(&self, node: &str, name: &str) -> Result<(), Reply> {
        let Some(asked) = self.nodes.get(node) else { return Err(Reply::Refused) };
        if let Standing::Removed(frozen) = &asked.standing {
            let other = frozen.collections.get(name).and_then(|c| c.shards.values().next());
            let peer = other.and_then(|shard| shard.copies.keys().next()).copied().unwrap_or_default();
            let why = format!("no address found for peer {peer}");
            return Err(failed(1, &[why]).after(millis(3)));
        }
        let Some(collection) = self.collections.get(name) else {
            return Err(Refusal::no_collection(name).after(millis(2)));
        };
        if collection.shards.values().any(|shard| shard.copies.is_empty()) {
            return Err(Reply::Closed);
        }
        for shard in collection.shards.values() {
            let active: Vec<u64> =
                shard.copies.iter().filter(|(_, copy)| copy.state == State::Active).map(|(peer, _)| *peer).collect();
            if shard.cut_over.is_some_and(|until| self.now < until) {
                return Err(failed(1, &["the replica is being moved".into()]).after(READ));
            }
            if !active.iter().any(|peer| self.process_of(*peer) == Process::Up) {
                let whys: Vec<String> = active.iter().map(|peer| self.unreachable(*peer)).collect();
                let hung = active.iter().any(|peer| self.process_of(*peer) == Process::Hung);
                return Err(failed(active.len(), &whys).after(if hung { MISSED_HUNG } else { MISSED }));
            }
        }
        Ok(())
    }

    fn unreachable(&self, peer: u64) -> String {
        let uri = self.peers.get(&peer).map_or("", |peer| &peer.uri);
        let unavailable = "Tonic status error: code: 'The service is currently unavailable'";
        format!("{unavailable}, message: \"Failed to connect to {uri}, error: transport error\"")
    }

    /// The points of a collection as a reader sees them.
    fn read(&self, name: &str) -> BTreeMap<u64, u64> {
        let mut points = BTreeMap::new();
        for (number, shard) in &self.collections[name].shards {
            let serving = shard
                .copies
                .iter()
                .find(|(peer, copy)| copy.state == State::Active && self.process_of(**peer) == Process::Up);
            let store = serving.and_then(|(peer, _)| self.node_of(*peer)?.store.get(&(name.to_string(), *number)));
            points.extend(store.into_iter().flatten().map(|(id, hash)| (*id, *hash)));
        }
        points
    }

    fn count(&self, node: &str, name: &str) -> Reply {
        match self.readable(node, name) {
            Err(reply) => reply,
            Ok(()) => ok(json!({"count": self.read(name).len()}), READ),
        }
    }

    fn query(&self, node: &str, name: &str, body: &Value) -> Reply {
        if let Err(reply) = self.readable(node, name) {
            return reply;
        }
        let size = self.collections[name].size;
        if let Some(vector) = body["query"].as_array().filter(|vector| vector.len() as u64 != size) {
            let got = vector.len();
            let error = format!("Wrong input: Vector dimension error: expected dim: {size}, got {got}");
            return Refusal { status: 400, error }.after(millis(1));
        }
        let limit = body["limit"].as_u64().map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(PAGE));
        let points: Vec<Value> =
            self.read(name).keys().take(limit).map(|id| json!({"id": id, "version": 0, "score": 1.0})).collect();
        let takes = self.nodes.get(node).map_or(READ, |node| node.load.search);
        ok(json!({"points": points}), takes)
    }

    /// Each point's payload is the hash of what was written, so that a reader can compare.
    fn scroll(&self, node: &str, name: &str, body: &Value) -> Reply {
        if let Err(reply) = self.readable(node, name) {
            return reply;
        }
        let limit = body["limit"].as_u64().map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(PAGE));
        let from = body["offset"].as_u64().unwrap_or(0);
        let points = self.read(name);
        let mut page = points.range(from..);
        let told: Vec<Value> =
            page.by_ref().take(limit).map(|(id, hash)| json!({"id": id, "payload": {"hash": hash}})).collect();
        ok(json!({"points": told, "next_page_offset": page.next().map(|(id, _)| id)}), READ)
    }

    fn upsert(&mut self, node: &str, name: &str, body: &Value) -> Reply {
        let size = self.collections.get(name).map_or(0, |c| c.size);
        let mut points = Vec::new();
        for point in body["points"].as_array().into_iter().flatten() {
            let Some(id) = point["id"].as_u64() else { continue };
            let got = point["vector"].as_array().map_or(0, Vec::len) as u64;
            if got != size {
                let error = format!("Wrong input: Vector dimension error: expected dim: {size}, got {got}");
                return Refusal { status: 400, error }.after(millis(1));
            }
            points.push((id, Some(content(point))));
        }
        self.write(node, name, points)
    }

    fn delete(&mut self, node: &str, name: &str, body: &Value) -> Reply {
        let ids = body["points"].as_array().into_iter().flatten().filter_map(Value::as_u64);
        let points = ids.map(|id| (id, None)).collect();
        self.write(node, name, points)
    }

    /// Writes, or deletes where there is no content.
    fn write(&mut self, node: &str, name: &str, points: Vec<(u64, Option<u64>)>) -> Reply {
        match self.nodes.get(node).map(|node| &node.standing) {
            Some(Standing::Removed(_)) => return self.readable(node, name).err().unwrap_or(Reply::Closed),
            _ if self.over_quota(node).is_some() => {
                return self.over_quota(node).expect("just looked at").after(millis(4));
            }
            _ => {}
        }
        let mut by_shard: BTreeMap<u32, Vec<(u64, Option<u64>)>> = BTreeMap::new();
        for (id, hash) in points {
            by_shard.entry(self.collections[name].shard_of(id)).or_default().push((id, hash));
        }
        let touched = by_shard.len();
        let mut takes = WRITTEN;
        let mut failures = Vec::new();
        for (shard, points) in by_shard {
            match self.write_shard(name, shard, &points) {
                Ok(took) => takes = takes.max(took),
                Err((why, took)) => {
                    failures.push(why);
                    takes = takes.max(took);
                }
            }
        }
        let agrees = self.agrees();
        let waited = self.nodes.get_mut(node).is_some_and(|node| std::mem::replace(&mut node.waited, !agrees));
        if let Some(first) = failures.first() {
            let count = failures.len();
            if !agrees && !waited {
                return Refusal::internal(first).after(NO_MAJORITY);
            }
            let which = format!("{count} out of {touched} shards failed to apply operation");
            let why = format!("{which}. First error captured: Service internal error: {first}");
            return Refusal::internal(why).after(takes);
        }
        let Some(collection) = self.collections.get_mut(name) else { return Reply::Closed };
        collection.operations += 1;
        ok(json!({"operation_id": collection.operations, "status": "completed"}), takes)
    }

    /// One shard's part of a write. It is done when an active copy has it and each that has not is called dead.
    fn write_shard(
        &mut self,
        name: &str,
        number: u32,
        points: &[(u64, Option<u64>)],
    ) -> Result<Duration, (String, Duration)> {
        let shard = self.collections[name].shards[&number].clone();
        let (mut done, mut missed, mut hung) = (0, Vec::new(), false);
        for (&peer, copy) in &shard.copies {
            if matches!(copy.state, State::Dead | State::Initializing) {
                continue;
            }
            if self.process_of(peer) != Process::Up {
                hung |= self.process_of(peer) == Process::Hung;
                missed.push(peer);
                continue;
            }
            done += u32::from(copy.state == State::Active);
            let Some(node) = self.node_of_mut(peer) else { continue };
            let store = node.store.entry((name.to_string(), number)).or_default();
            for (id, hash) in points {
                match hash {
                    Some(hash) => store.insert(*id, *hash),
                    None => store.remove(id),
                };
            }
        }
        let took = if hung { MISSED_HUNG } else { MISSED };
        if shard.copies.is_empty() {
            let peer = self.raft.leader.unwrap_or_default();
            return Err((format!("The replica set for shard {number} on peer {peer} has no active replica"), WRITTEN));
        }
        if missed.is_empty() && done > 0 {
            return Ok(WRITTEN);
        }
        if done == 0 || !self.agrees() {
            let why = missed.first().map_or("no active replica".into(), |peer| self.unreachable(*peer));
            return Err((why, took));
        }
        missed.into_iter().for_each(|peer| self.call_dead(name, number, peer));
        self.raft.commit += 1;
        Ok(took)
    }

    /// Which limit of the quota the node is over.
    fn over_quota(&self, node: &str) -> Option<Refusal> {
        let limit = self.quota["max_disk_usage_percent"].as_u64().filter(|_| self.quota["enabled"] == true)?;
        let used = self.nodes.get(node)?.load.disk_percent;
        (u64::from(used) > limit).then(|| {
            let what = "Insufficient storage: Insufficient storage: Disk usage is at";
            let over = format!("{what} {used}% of total capacity, exceeding the configured limit of {limit}%.");
            let help = "Help: Reduce disk usage (e.g. delete points or drop collections), or raise \
                        `max_disk_usage_percent` in the global quota config.";
            Refusal { status: 507, error: format!("{over} {help}") }
        })
    }
}

fn failed(of: usize, whys: &[String]) -> Refusal {
    let lines: String = whys.iter().map(|why| format!("\n  Service internal error: {why}")).collect();
    Refusal::internal(format!("{of} of {of} read operations failed:{lines}"))
}

/// What the model keeps of a point as it is written: a hash of vector and payload.
pub fn content(point: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    // As Qdrant keeps them: what is lost on the way through text is less than that.
    let numbers = point["vector"].as_array().into_iter().flatten().filter_map(Value::as_f64);
    numbers.map(|number| (number as f32).to_bits()).collect::<Vec<_>>().hash(&mut hasher);
    point["payload"].to_string().hash(&mut hasher);
    hasher.finish()
}
