//! The whole loop over the embedded cluster: real processes, real load, shards that move while a writer writes.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{COLLECTION, EMBEDDED, Vectors, World, addresses, is_vector_of, signal, vector_of};
use rustix::process::Signal;
use serde_json::Value;
use vecscale::node::client::Client;

const WAIT: Duration = Duration::from_secs(120);
/// The first ids that the writer takes; those below were there before.
const WRITER_FROM: u64 = 1_000_000;

/// Searchers that there may be.
const MOST_AT_ONCE: u64 = 128;

/// Searches, as many at once as asked, until told to stop.
struct Searchers {
    at_once: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
}

impl Searchers {
    async fn start(world: &World, stop: Arc<AtomicBool>) -> Searchers {
        let searchers = Searchers { at_once: Arc::default(), failed: Arc::default(), done: Arc::default() };
        let client = Arc::new(Client::new(addresses(world).await));
        for number in 0..MOST_AT_ONCE {
            let (client, stop) = (client.clone(), stop.clone());
            let (at_once, failed, done) = (searchers.at_once.clone(), searchers.failed.clone(), searchers.done.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if number >= at_once.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                    let found = client.search(COLLECTION, &vector_of(fastrand::u64(..)), 5).await;
                    if found.is_err() { &failed } else { &done }.fetch_add(1, Ordering::Relaxed);
                    // One searcher asks at most 20 times a second: the load is set by how many there are.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
        searchers
    }
}

/// Writes one vector after the other until told to stop; gives the ids that were acknowledged.
async fn writer(client: Client, stop: Arc<AtomicBool>) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for id in WRITER_FROM.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if client.upsert(COLLECTION, &[(id, vector_of(id))]).await.is_ok() {
            acknowledged.push(id);
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_grows_and_falls_and_no_vector_is_lost() {
    // Machines and builds differ in how fast they search: the load grows until the line is crossed.
    let thresholds = "min_nodes: 3, max_nodes: 4, cpu_threshold_high: 0.7, cpu_threshold_low: 0.45, \
                      latency_threshold_high: 20000, latency_threshold_low: 5000";
    let mut world = World::new(&EMBEDDED.replace("THRESHOLDS", thresholds).replace("mode: active", "mode: observe"));
    world.start().await;
    world.settled(3).await;
    let vectors = Vectors::fill(&world, 3_000).await;
    let before = vectors.digest().await;
    assert_eq!(world.post("/autoscaling/start", None).await.0, 200);

    let stop = Arc::new(AtomicBool::new(false));
    let searchers = Searchers::start(&world, stop.clone()).await;
    let writing = tokio::spawn(writer(Client::new(addresses(&world).await), stop.clone()));

    searchers.at_once.store(16, Ordering::Relaxed);
    world
        .until("a scale-up for CPU", WAIT, async |w: &World| {
            if searchers.at_once.load(Ordering::Relaxed) < MOST_AT_ONCE {
                searchers.at_once.fetch_add(1, Ordering::Relaxed);
            }
            let up = w.get("/autoscaling/operations").await["items"].as_array()?.last()?.clone();
            let because = up["because"][0].as_str()?.to_string();
            assert!(up["kind"] == "scale_up" && because.contains("cpu_high"), "{up}");
            Some(())
        })
        .await;
    world.settled(4).await;
    let status = world.status().await;
    let shares: Vec<u64> = status["nodes"].as_array().unwrap().iter().map(|n| n["shards"].as_u64().unwrap()).collect();
    assert!(shares.iter().all(|&shards| shards == 4), "16 copies on 4 nodes: {shares:?}");

    // Two ask for a small part of what made the nodes busy.
    searchers.at_once.store(2, Ordering::Relaxed);
    world
        .until("a scale-down after five low checks", WAIT, async |w: &World| {
            let operations = w.get("/autoscaling/operations").await;
            let down = operations["items"].as_array()?.iter().find(|o| o["kind"] == "scale_down")?.clone();
            assert_eq!(down["trigger"], "threshold", "{down}");
            (down["state"] == "succeeded").then_some(())
        })
        .await;
    world.settled(3).await;
    assert_eq!(world.node_pids().len(), 3);

    stop.store(true, Ordering::Relaxed);
    let acknowledged = writing.await.expect("the writer");
    assert!(acknowledged.len() > 100, "the writer hardly wrote: {}", acknowledged.len());
    vectors.follow(&world).await;
    for ids in acknowledged.chunks(200) {
        let found = vectors.client.get(COLLECTION, ids).await.expect("fetching");
        assert_eq!(found.len(), ids.len(), "an acknowledged vector is gone\n{}", world.logs());
        assert!(found.iter().all(|p| is_vector_of(p.id, p.vector.as_ref())), "a vector has changed");
    }
    let ours: Vec<u64> = acknowledged.clone();
    vectors.client.delete(COLLECTION, &ours).await.expect("deleting what the writer wrote");
    // A write that was not acknowledged may still have happened.
    let written: Vec<u64> = (WRITER_FROM..=ours.last().copied().unwrap_or(WRITER_FROM) + 1).collect();
    vectors.client.delete(COLLECTION, &written).await.expect("deleting what may have been written");
    assert_eq!(vectors.digest().await, before, "{}", world.logs());
    let (done, failed) = (searchers.done.load(Ordering::Relaxed), searchers.failed.load(Ordering::Relaxed));
    assert!(failed * 100 <= done, "{failed} of {done} searches failed");
}

fn guard<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["guards"].as_array()?.iter().find(|g| g["name"] == name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_nodes_killed_starts_nothing_and_says_why() {
    let mut world = World::new(&EMBEDDED.replace("THRESHOLDS", "min_nodes: 2, max_nodes: 6"));
    world.start().await;
    world.settled(3).await;
    for pid in world.node_pids().into_iter().take(2) {
        signal(pid, Signal::KILL);
    }
    let status = world
        .until("partition_suspected", WAIT, async |w: &World| {
            let status = w.status().await;
            (guard(&status, "partition_suspected").is_some() && status["metrics"]["healthy_nodes"] == 1)
                .then_some(status)
        })
        .await;
    assert!(!status["needs_human"].as_array().unwrap().is_empty(), "{status}");
    nothing_happens(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_silent_starts_nothing_and_says_why() {
    let mut world = World::new(&EMBEDDED.replace("THRESHOLDS", "min_nodes: 2, max_nodes: 6"));
    world.start().await;
    world.settled(3).await;
    let pids = world.node_pids();
    for &pid in &pids {
        signal(pid, Signal::STOP);
    }
    world
        .until("partition_suspected", WAIT, async |w: &World| {
            let status = w.status().await;
            (guard(&status, "partition_suspected").is_some() && guard(&status, "missing_data").is_some()).then_some(())
        })
        .await;
    nothing_happens(&world).await;
    for &pid in &pids {
        signal(pid, Signal::CONT);
    }
    world.settled(3).await;
}

/// Five more checks, and still no operation was ever begun.
async fn nothing_happens(world: &World) {
    let seen = world.status().await["decision"]["id"].as_u64().expect("a decision");
    let later = async |w: &World| (w.status().await["decision"]["id"].as_u64()? >= seen + 5).then_some(());
    world.until("five more checks", WAIT, later).await;
    assert_eq!(world.get("/autoscaling/operations").await["items"], serde_json::json!([]), "{}", world.logs());
}
