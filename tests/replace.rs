//! A vector node is killed under writes and searches: with two copies it is replaced and nothing is lost; with one,
//! nothing is forgotten. Real processes; the process provider starts no node by itself while vecscale runs.

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{COLLECTION, Vectors, World, addresses, is_vector_of, signal, vector_of};
use rustix::process::Signal;
use serde_json::{Value, json};
use vecscale::node::client::{Client, ClientError};

const WAIT: Duration = Duration::from_secs(120);
/// The first id that the writer takes; those below were there before.
const WRITER_FROM: u64 = 1_000_000;

const CONFIG: &str = "
autoscaling: {mode: active}
pools:
  - name: default
    thresholds: {health_check_interval: 1, scale_up_cooldown: 0, scale_down_cooldown: 0, min_nodes: 3, max_nodes: 6}
    replace: {after: AFTER, after_degraded: AFTER}
    scale_up: {enabled: false}
    scale_down: {enabled: false}
    provider: {type: process, nodes: NODES, cpu_cores: 0.25, memory_limit: 64MiB, storage_limit: 256MiB, timeout: 60s}
    datastore: {type: vectornode}
";

async fn some_nodes(nodes: usize, after: &str) -> World {
    let mut world = World::new(&CONFIG.replace("NODES", &nodes.to_string()).replace("AFTER", after));
    world.start().await;
    world.settled(nodes).await;
    world
}

/// A node's process, and how to start it again by hand.
struct Process {
    pid: u32,
    command: Vec<String>,
}

impl Process {
    fn of(world: &World, node: &str) -> Process {
        let command = |pid: &u32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split_terminator('\0').map(Into::into).collect::<Vec<String>>()
        };
        let address = world.storage().join("default/nodes").join(node).join("address");
        let address = fs::read_to_string(address).expect("where it listens").trim_start_matches("http://").to_string();
        let processes = world.node_pids().into_iter().map(|pid| Process { pid, command: command(&pid) });
        let named = |p: &Process| p.command.windows(2).any(|w| w[0] == "--id" && w[1] == node);
        let mut found = processes.into_iter().find(named).unwrap_or_else(|| panic!("{node} does not run"));
        // Where it was before, as the provider would start it.
        let listen = found.command.iter().position(|word| word == "--listen").expect("a flag");
        found.command[listen + 1] = address;
        found
    }

    fn kill(&self) {
        signal(self.pid, Signal::KILL);
    }

    /// A person starts it again. It ends with the world, as the others do.
    fn start_again(&self) {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the node");
        std::thread::spawn(move || child.wait());
    }
}

/// The first node that `is_wanted` in the cluster's map, by what it holds.
async fn node_that(world: &World, is_wanted: impl Fn(&Value, &str) -> bool) -> String {
    let map = map(world).await;
    let members: Vec<String> = map["members"].as_object().expect("members").keys().cloned().collect();
    let found = members.into_iter().find(|id| is_wanted(&map, id));
    found.unwrap_or_else(|| panic!("no such node: {map:#}"))
}

/// The cluster map as a living node tells it.
async fn map(world: &World) -> Value {
    for address in addresses(world).await {
        if let Ok(answer) = common::http().get(format!("{address}/cluster/map")).send().await
            && let Ok(vote) = answer.json::<Value>().await
            && vote["learned"]["members"].as_object().is_some_and(|m| m.len() > 1)
        {
            return vote["learned"].clone();
        }
    }
    panic!("no node tells the map\n{}", world.logs());
}

/// In how many shards the node is listed, and in how many of these first: as primary.
fn listed(map: &Value, node: &str) -> (usize, usize) {
    let shards = map["collections"][COLLECTION]["shards"].as_array().expect("shards");
    let holders = shards.iter().map(|s| s["replicas"].as_array().expect("replicas"));
    let first = holders.clone().filter(|r| r[0]["node"] == node).count();
    (holders.filter(|r| r.iter().any(|h| h["node"] == node)).count(), first)
}

/// Writes one vector after the other until told to stop; gives the ids that were acknowledged, and the longest time
/// without one.
async fn writer(client: Client, stop: Arc<AtomicBool>) -> (Vec<u64>, Duration) {
    let (mut acknowledged, mut longest, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
    for id in WRITER_FROM.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if client.upsert(COLLECTION, &[(id, vector_of(id))]).await.is_ok() {
            acknowledged.push(id);
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (acknowledged, longest)
}

#[derive(Default)]
struct Searches {
    done: AtomicU64,
    /// A request that broke off because its coordinator died; the same request was sent once more.
    again: AtomicU64,
    failed: AtomicU64,
}

/// Searches until told to stop. The client asks its nodes in random order, the next when one cannot be reached; a request
/// that breaks off half-way it gives back as `Unavailable`, to be sent again, which is done once here.
async fn searcher(client: Client, stop: Arc<AtomicBool>, searches: Arc<Searches>) {
    while !stop.load(Ordering::Relaxed) {
        let vector = vector_of(fastrand::u64(..));
        let mut found = client.search(COLLECTION, &vector, 5).await;
        if let Err(ClientError::Unavailable(why)) = &found {
            eprintln!("a search is sent again: {why}");
            searches.again.fetch_add(1, Ordering::Relaxed);
            found = client.search(COLLECTION, &vector, 5).await;
        }
        match found {
            Ok(found) if found.len() == 5 => searches.done.fetch_add(1, Ordering::Relaxed),
            other => {
                eprintln!("a search failed: {other:?}");
                searches.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A writer and a searcher at work.
struct Load {
    stop: Arc<AtomicBool>,
    searches: Arc<Searches>,
    writer: tokio::task::JoinHandle<(Vec<u64>, Duration)>,
    searcher: tokio::task::JoinHandle<()>,
}

impl Load {
    async fn begin(world: &World) -> Load {
        let (stop, searches) = (Arc::new(AtomicBool::new(false)), Arc::new(Searches::default()));
        let client = async || Client::new(addresses(world).await);
        let writer = tokio::spawn(writer(client().await, stop.clone()));
        let searcher = tokio::spawn(searcher(client().await, stop.clone(), searches.clone()));
        Load { stop, searches, writer, searcher }
    }

    /// Every search was served, and every acknowledged write is there and equal. Gives the ids that were acknowledged.
    async fn end(self, world: &World, vectors: &Vectors) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let (acknowledged, longest) = self.writer.await.expect("the writer");
        self.searcher.await.expect("the searcher");
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (done, again, failed) =
            (count(&self.searches.done), count(&self.searches.again), count(&self.searches.failed));
        eprintln!(
            "{done} searches, {again} sent again, {failed} failed; {} writes acknowledged, none for {:.1} s at most",
            acknowledged.len(),
            longest.as_secs_f64()
        );
        assert!(done > 50 && failed == 0, "{failed} of {done} searches failed\n{}", world.logs());
        assert!(acknowledged.len() > 50, "the writer hardly wrote: {}", acknowledged.len());
        all_there(vectors, &acknowledged, world).await;
        acknowledged
    }
}

async fn all_there(vectors: &Vectors, ids: &[u64], world: &World) {
    for ids in ids.chunks(200) {
        let found = vectors.client.get(COLLECTION, ids).await.expect("fetching");
        assert_eq!(found.len(), ids.len(), "an acknowledged vector is gone\n{}", world.logs());
        assert!(found.iter().all(|p| is_vector_of(p.id, p.vector.as_ref())), "a vector has changed");
    }
}

async fn state_of(world: &World, node: &str) -> Option<String> {
    let status: Value = serde_json::from_str(&world.try_get("/autoscaling/status").await?).ok()?;
    let node = status["nodes"].as_array()?.iter().find(|n| n["id"] == node)?.clone();
    node["state"].as_str().map(Into::into)
}

async fn replacement(world: &World) -> Option<Value> {
    let operations: Value = serde_json::from_str(&world.try_get("/autoscaling/operations").await?).ok()?;
    let found = operations["items"].as_array()?.iter().find(|o| o["kind"] == "replace")?;
    let whole = world.try_get(&format!("/autoscaling/operations/{}", found["id"].as_str()?)).await?;
    serde_json::from_str(&whole).ok()
}

/// Further checks are made.
async fn checks(world: &World, more: u64) {
    let seen = world.status().await["decision"]["id"].as_u64().expect("a decision");
    let later = async |w: &World| (w.status().await["decision"]["id"].as_u64()? >= seen + more).then_some(());
    world.until("further checks", WAIT, later).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_under_load_is_replaced_and_nothing_is_lost() {
    let world = some_nodes(3, "3s").await;
    let vectors = Vectors::fill(&world, 1_000).await;
    let load = Load::begin(&world).await;
    // Primary of some shards, second of others.
    let dead = node_that(&world, |map, id| matches!(listed(map, id), (all, first) if 0 < first && first < all)).await;
    let process = Process::of(&world, &dead);
    process.kill();
    let killed_at = Instant::now();

    let ended = async |w: &World| replacement(w).await.filter(|o| o["state"] != "running");
    let operation = world.until("a replacement", WAIT, ended).await;
    assert_eq!(operation["state"], "succeeded", "{operation:#}\n{}", world.logs());
    eprintln!("{dead} was replaced {:.1} s after its end: {}", killed_at.elapsed().as_secs_f64(), operation["detail"]);
    world.settled(3).await;
    let ids: Vec<u64> = (0..1_000).collect();
    vectors.follow(&world).await;
    let acknowledged = load.end(&world, &vectors).await;
    all_there(&vectors, &ids, &world).await;
    // Fails when two copies of a shard differ, or one of them cannot be looked at.
    let digest = vectors.digest().await;
    assert!(digest.vectors >= 1_000 + acknowledged.len() as u64);

    let after = map(&world).await;
    assert!(after["members"].get(&dead).is_none() && after["members"].as_object().unwrap().len() == 3, "{after:#}");
    for shard in after["collections"][COLLECTION]["shards"].as_array().expect("shards") {
        let holders = shard["replicas"].as_array().expect("replicas");
        assert!(holders.len() == 2 && holders.iter().all(|h| h["state"] == "active"), "{shard}");
    }
    let proof = operation["steps"].as_array().expect("steps").iter().find(|s| s["step"] == "forget").cloned();
    let proof = proof.expect("the member was forgotten");
    assert_eq!(proof["output"]["node"], json!(dead), "{proof:#}");
    assert_eq!(proof["output"]["witnesses"].as_array().map(Vec::len), Some(3), "{proof:#}");
    assert_eq!(state_of(&world, &dead).await.as_deref(), Some("lost"));
    let status = world.status().await;
    assert!(status["needs_human"].to_string().contains(&format!("vecscale reap {dead}")), "{status:#}");
    assert!(world.storage().join("default/nodes").join(&dead).exists(), "a replacement destroys nothing");

    // It comes back, with all it had: nobody lets it in, and nobody is disturbed.
    process.start_again();
    world.until("it runs", WAIT, async |w: &World| w.node_pids().get(3).copied()).await;
    checks(&world, 5).await;
    assert_eq!(state_of(&world, &dead).await.as_deref(), Some("lost"));
    assert!(map(&world).await["members"].get(&dead).is_none());
    assert_eq!(vectors.digest().await, digest);
    assert_eq!(world.get("/autoscaling/operations").await["items"].as_array().map(Vec::len), Some(1));
    vectors.write(5_000..5_100).await.expect("writes go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_back_in_time_is_not_forgotten() {
    let world = some_nodes(4, "2s").await;
    let vectors = Vectors::fill(&world, 1_000).await;
    let load = Load::begin(&world).await;
    let dead = node_that(&world, |map, id| listed(map, id).1 > 0).await;
    let process = Process::of(&world, &dead);
    process.kill();
    let created = async |w: &World| {
        let steps = replacement(w).await?["steps"].clone();
        steps.as_array()?.iter().any(|s| s["step"] == "create" && s["state"] == "done").then_some(())
    };
    world.until("a replacement has made its node", WAIT, created).await;
    process.start_again();
    let ended = async |w: &World| replacement(w).await.filter(|o| o["state"] != "running" && o["state"] != "undoing");
    let operation = world.until("the replacement gives up", WAIT, ended).await;
    let detail = operation["detail"].as_str().expect("a detail");
    assert!(["partial", "failed"].contains(&operation["state"].as_str().unwrap()), "{operation:#}\n{}", world.logs());
    assert!(detail.contains(&format!("{dead} is healthy again")) || detail.contains("answers again"), "{detail}");
    eprintln!("the replacement ended {}: {detail}", operation["state"]);
    let nodes = if operation["state"] == "partial" { 5 } else { 4 };
    world.settled(nodes).await;
    assert_eq!(state_of(&world, &dead).await.as_deref(), Some("serving"));
    let filled = async |w: &World| {
        let map = map(w).await;
        let mut shards = map["collections"][COLLECTION]["shards"].as_array()?.iter();
        shards.all(|s| s["replicas"].as_array().unwrap().iter().all(|h| h["state"] == "active")).then_some(map)
    };
    let map = world.until("its copies are filled again", WAIT, filled).await;
    assert!(listed(&map, &dead).0 > 0, "{map:#}");
    vectors.follow(&world).await;
    load.end(&world, &vectors).await;
    vectors.digest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_only_copy_is_waited_for() {
    let world = some_nodes(4, "2s").await;
    let vectors = Vectors { client: Client::new(addresses(&world).await) };
    vectors.client.create_collection(COLLECTION, 32, 8, 1).await.expect("a collection with one copy");
    vectors.write(0..1_000).await.expect("an acknowledged write");
    let before = vectors.digest().await;
    let dead = node_that(&world, |map, id| listed(map, id).0 > 0).await;
    let process = Process::of(&world, &dead);
    process.kill();
    let held = async |w: &World| {
        let decision = w.status().await["decision"].clone();
        let guards = decision["guards"].as_array()?.clone();
        let placement = guards.into_iter().find(|g| g["name"] == "placement")?;
        (decision["wanted"] == "replace").then(|| placement["detail"].as_str().unwrap_or_default().to_string())
    };
    let why = world.until("placement holds the replacement", WAIT, held).await;
    assert!(why.contains(&format!("{dead} has the only copy of {COLLECTION}/")), "{why}");
    assert!(why.contains("bring it back"), "{why}");
    checks(&world, 5).await;
    assert_eq!(world.get("/autoscaling/operations").await["items"], json!([]), "{}", world.logs());
    assert!(map(&world).await["members"].get(&dead).is_some());
    process.start_again();
    world.settled(4).await;
    vectors.follow(&world).await;
    assert_eq!(vectors.digest().await, before);
}
