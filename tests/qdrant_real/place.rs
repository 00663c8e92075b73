//! A controller over three real Qdrant nodes, and what is asked of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use vecscale::node::lock::{Holder, ProcessName, holder};

use super::common::{World, signal};

/// Longest wait for anything; it ends as soon as it is there.
const WAIT: Duration = Duration::from_secs(300);

/// Nothing is done by itself but a replacement: who else uses the machine shall not decide. Qdrant gets few threads.
const CONFIG: &str = "
autoscaling: {mode: active}
pools:
  - name: default
    thresholds: {health_check_interval: 1, scale_up_cooldown: 0, scale_down_cooldown: 0, min_nodes: 3, max_nodes: 5}
    scrape: {signals: {cpu_usage: none, memory_usage: none, storage_usage: none}}
    scale_up: {enabled: false}
    scale_down: {enabled: false}
    replace: {after: 5s, after_degraded: 5s}
    provider:
      type: process
      nodes: 3
      program: PROGRAM
      env:
        QDRANT__STORAGE__PERFORMANCE__MAX_SEARCH_THREADS: 1
        QDRANT__STORAGE__PERFORMANCE__OPTIMIZER_CPU_BUDGET: 1
        QDRANT__SERVICE__MAX_WORKERS: 2
    datastore: {type: qdrant}
";

/// One at a time: each has the machine to itself.
static ALONE: Mutex<()> = Mutex::const_new(());

pub struct Place {
    pub world: World,
    _alone: MutexGuard<'static, ()>,
}

impl Place {
    /// Three members, healthy.
    pub async fn of_three() -> Place {
        let program = std::env::var("QDRANT_BIN").unwrap_or_default();
        assert!(!program.is_empty(), "QDRANT_BIN names the Qdrant program that this test runs; it is not set");
        let program = PathBuf::from(&program).canonicalize().unwrap_or_else(|e| panic!("QDRANT_BIN: {program}: {e}"));
        let alone = ALONE.lock().await;
        let program = serde_json::to_string(&program).expect("a path");
        let mut world = World::new(&CONFIG.replace("PROGRAM", &program));
        world.start().await;
        world.settled(3).await;
        Place { world, _alone: alone }
    }

    /// Asks for it, until no guard holds it back any more, and gives its operation's id.
    pub async fn ask(&self, what: &str, with: Value) -> String {
        let held = std::sync::Mutex::new(Value::Null);
        let begun = async |w: &World| {
            let (status, answer) = w.post(&format!("/autoscaling/{what}"), Some(with.clone())).await;
            let id = answer["operation"]["id"].as_str().filter(|_| status == 202).map(String::from);
            if id.is_none() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            if id.is_none() && *held.lock().expect("no panic while held") != answer {
                eprintln!("{what} waits: {}", answer["detail"]);
                *held.lock().expect("no panic while held") = answer;
            }
            id
        };
        self.world.until(&format!("{what} is begun"), WAIT, begun).await
    }

    /// Asks for it, and gives the operation that has ended.
    pub async fn operate(&self, what: &str, with: Value) -> Value {
        let id = self.ask(what, with).await;
        self.end_of(&id).await
    }

    pub async fn end_of(&self, id: &str) -> Value {
        let ended = async |w: &World| operation(w, id).await.filter(is_over);
        self.world.until("the operation's end", WAIT, ended).await
    }

    /// The end of the first operation of this kind.
    pub async fn ended(&self, kind: &str) -> Value {
        let ended = async |w: &World| {
            let operations: Value = serde_json::from_str(&w.try_get("/autoscaling/operations").await?).ok()?;
            let found = operations["items"].as_array()?.iter().find(|o| o["kind"] == kind)?.clone();
            operation(w, found["id"].as_str()?).await.filter(is_over)
        };
        self.world.until(&format!("an operation {kind} has ended"), WAIT, ended).await
    }

    /// `kill -9` of the controller while a shard is on its way, or later if that was quick. Whether one was, and what was
    /// done by then.
    pub async fn kill_during_a_move(&mut self, id: &str) -> (bool, String) {
        let moving = async |w: &World| {
            let operation = operation(w, id).await?;
            let steps = operation["steps"].as_array()?;
            let running = steps.iter().find(|s| s["step"] == "move" && s["state"] == "intent");
            let all = steps.iter().filter(|s| s["step"] == "move").count();
            let done = steps.iter().filter(|s| s["step"] == "move" && s["state"] == "done").count();
            (running.is_some() || is_over(&operation))
                .then(|| (running.is_some(), format!("with {done} of {all} moves done")))
        };
        let killed = self.world.until("a shard is on its way", WAIT, moving).await;
        self.world.kill();
        killed
    }

    /// `kill -9` of a node.
    pub fn kill_node(&self, id: &str) {
        let process = self.process(id).unwrap_or_else(|| panic!("{id} does not run"));
        signal(process.pid, Signal::KILL);
    }

    fn process(&self, id: &str) -> Option<ProcessName> {
        match holder(&self.world.storage().join("default/nodes").join(id)).expect("a node's directory") {
            Holder::Process(process) => Some(process),
            Holder::Nobody | Holder::Unnamed => None,
        }
    }

    /// The nodes that run.
    pub fn processes(&self) -> Vec<String> {
        let nodes = self.world.storage().join("default/nodes");
        let names = std::fs::read_dir(nodes).expect("the nodes").flatten().filter(|e| e.path().is_dir());
        let names = names.filter_map(|e| e.file_name().into_string().ok());
        names.filter(|id| self.process(id).is_some()).collect()
    }

    /// The peers, as one of them tells it.
    pub async fn members(&self) -> Vec<String> {
        let cluster = self.qdrant("/cluster").await;
        cluster["result"]["peers"].as_object().expect("peers").keys().cloned().collect()
    }

    /// Waits until every shard of the collection has so many active copies, and none besides.
    pub async fn every_shard_has(&self, collection: &str, copies: usize) {
        let whole = async |_: &World| {
            let told = self.qdrant(&format!("/collections/{collection}/cluster")).await;
            let result = &told["result"];
            let mut held = BTreeMap::<u64, Vec<&str>>::new();
            for side in ["local_shards", "remote_shards"] {
                for shard in result[side].as_array()? {
                    held.entry(shard["shard_id"].as_u64()?).or_default().push(shard["state"].as_str()?);
                }
            }
            let is_whole = |states: &Vec<&str>| states.len() == copies && states.iter().all(|s| *s == "Active");
            let all = held.len() == super::load::SHARDS as usize && held.values().all(is_whole);
            (all && result["shard_transfers"].as_array()?.is_empty()).then_some(())
        };
        self.world.until(&format!("{collection} has {copies} active copies of each shard"), WAIT, whole).await;
    }

    /// Somebody else moves every shard of the collection onto one node.
    pub async fn pile_up(&self, collection: &str, node: &str) {
        let to = self.peers().await[node].0;
        for shard in 0..super::load::SHARDS {
            let from = self.holders(collection).await[&shard][0];
            if from == to {
                continue;
            }
            let request = json!({"move_shard": {"shard_id": shard, "from_peer_id": from, "to_peer_id": to}});
            let url = format!("{}/collections/{collection}/cluster", self.addresses().await[node]);
            let answer = super::common::http().post(&url).json(&request).send().await.expect("an answer");
            assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
            let moved = async |_: &World| (self.holders(collection).await.get(&shard)? == &[to]).then_some(());
            self.world.until(&format!("{collection}/{shard} is on {node}"), WAIT, moved).await;
        }
    }

    /// Somebody else makes a collection with two copies of each shard.
    pub async fn make(&self, collection: &str) {
        let body = json!({
            "vectors": {"size": 4, "distance": "Dot"}, "shard_number": super::load::SHARDS, "replication_factor": 2,
        });
        self.asked(Method::PUT, collection, body).await;
        self.every_shard_has(collection, 2).await;
    }

    /// Somebody else deletes it.
    pub async fn delete(&self, collection: &str) {
        self.asked(Method::DELETE, collection, Value::Null).await;
    }

    async fn asked(&self, method: Method, collection: &str, body: Value) {
        let addresses = self.addresses().await;
        let url = format!("{}/collections/{collection}", addresses.values().next().expect("a node that serves"));
        let answer = super::common::http().request(method, &url).json(&body).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
    }

    /// The peers that hold an active copy of each shard.
    async fn holders(&self, collection: &str) -> BTreeMap<u32, Vec<u64>> {
        let told = self.qdrant(&format!("/collections/{collection}/cluster")).await;
        let result = &told["result"];
        let mut holders = BTreeMap::<u32, Vec<u64>>::new();
        for side in ["local_shards", "remote_shards"] {
            for shard in result[side].as_array().expect("shards").iter().filter(|s| s["state"] == "Active") {
                let peer = shard["peer_id"].as_u64().or_else(|| result["peer_id"].as_u64()).expect("a peer");
                let number = shard["shard_id"].as_u64().expect("a number") as u32;
                holders.entry(number).or_default().push(peer);
            }
        }
        holders
    }

    /// The most shards of the collection that a node holds.
    pub async fn most_on_one(&self, collection: &str) -> usize {
        let mut held = BTreeMap::<u64, usize>::new();
        for peer in self.holders(collection).await.into_values().flatten() {
            *held.entry(peer).or_default() += 1;
        }
        held.into_values().max().unwrap_or(0)
    }

    /// The node that leads the consensus.
    pub async fn leader(&self) -> String {
        let peers = self.peers().await;
        let leads = |(peer, leader): &(u64, u64)| peer == leader;
        peers.into_iter().find(|(_, told)| leads(told)).expect("a leader among the nodes").0
    }

    /// By node: its peer id, and that of the leader as it tells it.
    async fn peers(&self) -> BTreeMap<String, (u64, u64)> {
        let mut peers = BTreeMap::new();
        for (node, address) in self.addresses().await {
            let told = get(&format!("{address}/cluster")).await;
            let peer = |value: &Value| value.as_u64().expect("a peer's id");
            let both = (peer(&told["result"]["peer_id"]), peer(&told["result"]["raft_info"]["leader"]));
            peers.insert(node, both);
        }
        peers
    }

    /// Of the nodes that serve.
    async fn addresses(&self) -> BTreeMap<String, String> {
        let status = self.world.status().await;
        let serving = status["nodes"].as_array().expect("nodes").iter().filter(|n| n["state"] == "serving");
        let text = |value: &Value| value.as_str().expect("a text").to_string();
        serving.map(|n| (text(&n["id"]), text(&n["address"]))).collect()
    }

    async fn qdrant(&self, path: &str) -> Value {
        let addresses = self.addresses().await;
        let address = addresses.values().next().expect("a node that serves");
        get(&format!("{address}{path}")).await
    }
}

async fn get(url: &str) -> Value {
    let answer = super::common::http().get(url).send().await.unwrap_or_else(|e| panic!("{url}: {e}"));
    answer.json().await.unwrap_or_else(|e| panic!("{url}: {e}"))
}

async fn operation(world: &World, id: &str) -> Option<Value> {
    serde_json::from_str(&world.try_get(&format!("/autoscaling/operations/{id}")).await?).ok()
}

fn is_over(operation: &Value) -> bool {
    ["succeeded", "partial", "failed", "cancelled", "blocked"].iter().any(|state| operation["state"] == *state)
}

/// Shards and bytes that an operation copied.
pub fn moved(operation: &Value) -> (u64, u64) {
    let steps = operation["steps"].as_array().expect("steps").iter();
    let copies = steps.filter(|s| (s["step"] == "move" || s["step"] == "replicate") && s["state"] == "done");
    copies.fold((0, 0), |(n, sum), step| (n + 1, sum + step["bytes"].as_u64().unwrap_or(0)))
}
