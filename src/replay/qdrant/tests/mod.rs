mod driver;
mod errors;
mod facts;
mod failures;
mod membership;
mod seeds;
mod shapes;
mod wire;

use std::time::Duration;

use serde_json::{Value, json};

use super::reply::millis;
use super::{Answer, Body, Cluster, Reply};

/// A cluster with somebody who asks it one thing after the other, and waits for each answer.
struct Stage {
    cluster: Cluster,
    now: Duration,
}

impl Stage {
    fn empty(nodes: &[&str]) -> Stage {
        Stage { cluster: Cluster::new(nodes), now: millis(60_000) }
    }

    /// Three nodes; `alpha` with one copy of each of its six shards, `beta` with two, 1200 points in each.
    fn three() -> Stage {
        let mut stage = Stage::empty(&["n1", "n2", "n3"]);
        for (name, copies) in [("alpha", 1), ("beta", 2)] {
            let body = json!({
                "vectors": {"size": 32, "distance": "Cosine"}, "shard_number": 6, "replication_factor": copies,
            });
            stage.done("n1", "PUT", &format!("/collections/{name}"), body);
            stage.cluster.fill(name, 0, 1200);
        }
        stage
    }

    fn reply(&mut self, node: &str, method: &str, path: &str, body: Value) -> Reply {
        let body = (!body.is_null()).then_some(&body);
        self.cluster.request(self.now, node, method, path, body)
    }

    fn ask(&mut self, node: &str, method: &str, path: &str, body: Value) -> Answer {
        let reply = self.reply(node, method, path, body);
        let answer = reply.clone().answer().unwrap_or_else(|| panic!("{method} {path} at {node}: {reply:?}"));
        self.wait(answer.after);
        answer
    }

    /// An answer of 200; gives its `result`.
    fn done(&mut self, node: &str, method: &str, path: &str, body: Value) -> Value {
        let answer = self.ask(node, method, path, body);
        assert_eq!(answer.status, 200, "{method} {path} at {node}: {answer:?}");
        result(&answer)
    }

    fn get(&mut self, node: &str, path: &str) -> Value {
        self.done(node, "GET", path, Value::Null)
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.cluster.advance(self.now);
    }

    fn kill(&mut self, node: &str) {
        self.cluster.kill(self.now, node);
    }

    fn hang(&mut self, node: &str) {
        self.cluster.hang(self.now, node);
    }

    fn revive(&mut self, node: &str) {
        self.cluster.revive(self.now, node);
    }

    fn peer(&self, node: &str) -> u64 {
        self.cluster.peer(node).expect("a node")
    }

    /// Name of a node that holds the shard, and of one that does not.
    fn ends(&mut self, collection: &str, shard: u64) -> (String, String) {
        let names = ["n1", "n2", "n3", "n4"].map(String::from);
        let held = self.states(collection, shard);
        let living = names.into_iter().filter(|name| self.cluster.peer(name).is_some());
        let (with, without): (Vec<_>, Vec<_>) = living.partition(|name| held.contains_key(name));
        (with.into_iter().next().expect("a holder"), without.into_iter().next_back().expect("one without"))
    }

    /// State of each copy of a shard, by name of its node, as the first answering node lists it.
    fn states(&mut self, collection: &str, shard: u64) -> std::collections::BTreeMap<String, String> {
        let asked = ["n1", "n2", "n3"]
            .into_iter()
            .find(|name| matches!(self.cluster.request(self.now, name, "GET", "/", None), Reply::Answer(_)));
        let seen = self.get(asked.expect("a node that answers"), &format!("/collections/{collection}/cluster"));
        let here = seen["peer_id"].clone();
        let local = seen["local_shards"].as_array().into_iter().flatten().map(|s| (s, &here));
        let remote = seen["remote_shards"].as_array().into_iter().flatten().map(|s| (s, &s["peer_id"]));
        let names = ["n1", "n2", "n3", "n4"].into_iter().filter_map(|n| Some((self.cluster.peer(n)?, n.to_string())));
        let names: std::collections::BTreeMap<u64, String> = names.collect();
        local
            .chain(remote)
            .filter(|(s, _)| s["shard_id"] == shard)
            .map(|(s, peer)| {
                let peer = peer.as_u64().expect("an id");
                let name = names.get(&peer).cloned().unwrap_or("gone".into());
                (name, s["state"].as_str().expect("a state").to_string())
            })
            .collect()
    }

    fn transfer(&mut self, what: &str, collection: &str, shard: u64, from: &str, to: &str) -> Answer {
        let (from, to) = (self.peer(from), self.peer(to));
        let mut asked = json!({"shard_id": shard, "from_peer_id": from, "to_peer_id": to});
        if what.ends_with("_shard") {
            asked["method"] = "stream_records".into();
        }
        let asker = self.cluster.leader().unwrap_or("n1".into());
        self.ask(&asker, "POST", &format!("/collections/{collection}/cluster"), json!({what: asked}))
    }

    /// Seconds until no transfer is under way.
    fn settle(&mut self, within: f64) -> f64 {
        let began = self.now;
        while !self.cluster.transfers().is_empty() {
            assert!(self.now - began < Duration::from_secs_f64(within), "still: {:?}", self.cluster.transfers());
            self.wait(millis(20));
        }
        (self.now - began).as_secs_f64()
    }

    /// Writes these points through a node.
    fn upsert(&mut self, node: &str, collection: &str, ids: std::ops::Range<u64>) -> Answer {
        let points: Vec<Value> = ids.map(|id| json!({"id": id, "vector": vec![id as f64; 32]})).collect();
        self.ask(node, "PUT", &format!("/collections/{collection}/points?wait=true"), json!({"points": points}))
    }

    /// The exact count; `None` when the connection is closed, an error's text when there is one.
    fn count(&mut self, node: &str, collection: &str) -> Option<Result<u64, String>> {
        let path = format!("/collections/{collection}/points/count");
        let Reply::Answer(answer) = self.reply(node, "POST", &path, json!({"exact": true})) else { return None };
        self.wait(answer.after);
        Some(match answer.status {
            200 => Ok(result(&answer)["count"].as_u64().expect("a count")),
            _ => Err(error(&answer)),
        })
    }
}

fn result(answer: &Answer) -> Value {
    match &answer.body {
        Body::Json(body) => body["result"].clone(),
        Body::Text(text) => json!(text),
    }
}

fn error(answer: &Answer) -> String {
    match &answer.body {
        Body::Json(body) => body["status"]["error"].as_str().unwrap_or_default().into(),
        Body::Text(text) => text.clone(),
    }
}

/// A recorded answer: its status, and its body.
fn recorded(case: &str) -> (Option<u64>, Value) {
    let path = format!("{}/tests/fixtures/qdrant/{case}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let case: Value = serde_json::from_str(&text).expect("JSON");
    (case["response"]["status"].as_u64(), case["response"]["body"].clone())
}
