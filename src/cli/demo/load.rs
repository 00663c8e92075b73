//! The demo's load: real vectors written, searched at a given rate, and at the end all of them looked for. IO.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use crate::node::client::Client;

const COLLECTION: &str = "articles";
/// Comes and goes.
const SECOND: &str = "drafts";
pub const SHARDS: u32 = 12;
pub const REPLICAS: u32 = 2;
const SIZE: u32 = 128;
const BATCH: u64 = 500;
/// Searches in flight at once; a cluster that is slower than asked is not buried.
const IN_FLIGHT: usize = 64;

/// The vector of an id: the same on every call, so that what is read back can be checked, and of length 1, as a cosine
/// collection keeps it.
fn vector_of(id: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(id);
    let vector: Vec<f32> = (0..SIZE).map(|_| random.f32() - 0.5).collect();
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter().map(|x| x / length).collect()
}

/// Whether two vectors are the same, up to rounding.
fn is_same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

/// Writes and searches; the counts are of what the cluster acknowledged.
pub struct Load {
    client: Arc<Client>,
    rate: watch::Sender<f64>,
    searches: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    /// Ids below this one are acknowledged.
    written: Arc<AtomicU64>,
    tasks: TaskTracker,
}

impl Load {
    /// Makes the collection and writes the first `vectors`.
    pub async fn fill(client: Client, vectors: u64) -> anyhow::Result<Load> {
        let client = Arc::new(client);
        client.create_collection(COLLECTION, SIZE, SHARDS, REPLICAS).await.context("making the collection")?;
        for from in (0..vectors).step_by(BATCH as usize) {
            write(&client, COLLECTION, from..vectors.min(from + BATCH)).await?;
        }
        let load = Load {
            client,
            rate: watch::Sender::new(0.0),
            searches: Arc::default(),
            failed: Arc::default(),
            written: Arc::new(AtomicU64::new(vectors)),
            tasks: TaskTracker::new(),
        };
        load.tasks.spawn(search_at(
            load.client.clone(),
            load.rate.subscribe(),
            load.searches.clone(),
            load.failed.clone(),
        ));
        load.tasks.spawn(go_on_writing(load.client.clone(), load.rate.subscribe(), load.written.clone()));
        Ok(load)
    }

    /// Makes the second collection, with so many vectors.
    pub async fn add(&self, vectors: u64) -> anyhow::Result<()> {
        self.client.create_collection(SECOND, SIZE, SHARDS, REPLICAS).await.context("making the second collection")?;
        for from in (0..vectors).step_by(BATCH as usize) {
            write(&self.client, SECOND, from..vectors.min(from + BATCH)).await?;
        }
        Ok(())
    }

    /// Deletes the second collection.
    pub async fn take_away(&self) -> anyhow::Result<()> {
        let path = format!("/collections/{SECOND}");
        let deleted = self.client.request::<serde_json::Value>(http::Method::DELETE, &path, None).await;
        deleted.map(drop).context("deleting the second collection")
    }

    /// The nodes that are asked from now on.
    pub fn follow(&self, addresses: Vec<String>) {
        self.client.set_nodes(addresses);
    }

    /// Searches per second from now on. Below zero ends searching and writing.
    pub fn set_rate(&self, per_second: f64) {
        self.rate.send_replace(per_second);
    }

    pub fn rate(&self) -> f64 {
        self.rate.borrow().max(0.0)
    }

    pub fn searches(&self) -> (u64, u64) {
        (self.searches.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Ends the load and looks for every vector that was acknowledged: `(acknowledged, counted, found and equal)`.
    pub async fn prove(self) -> anyhow::Result<(u64, u64, u64)> {
        self.set_rate(-1.0);
        self.tasks.close();
        self.tasks.wait().await;
        let written = self.written();
        let counted = self.client.count(COLLECTION).await.context("counting")?;
        let mut found = 0;
        for from in (0..written).step_by(BATCH as usize) {
            let ids: Vec<u64> = (from..written.min(from + BATCH)).collect();
            let points = self.client.get(COLLECTION, &ids).await.context("fetching")?;
            let vectors: BTreeMap<u64, Vec<f32>> = points.into_iter().filter_map(|p| Some((p.id, p.vector?))).collect();
            found +=
                ids.iter().filter(|id| vectors.get(id).is_some_and(|v| is_same(v, &vector_of(**id)))).count() as u64;
        }
        Ok((written, counted, found))
    }
}

async fn write(client: &Client, collection: &str, ids: std::ops::Range<u64>) -> anyhow::Result<()> {
    let points: Vec<(u64, Vec<f32>)> = ids.clone().map(|id| (id, vector_of(id))).collect();
    client.upsert(collection, &points).await.with_context(|| format!("writing vectors {ids:?}"))
}

/// Writes a few more vectors a second, so that shards move while they change. A batch that is not acknowledged is
/// written again.
async fn go_on_writing(client: Arc<Client>, rate: watch::Receiver<f64>, written: Arc<AtomicU64>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let current = *rate.borrow();
        if current < 0.0 {
            return;
        }
        let from = written.load(Ordering::Relaxed);
        if current > 0.0 && write(&client, COLLECTION, from..from + 10).await.is_ok() {
            written.store(from + 10, Ordering::Relaxed);
        }
    }
}

async fn search_at(client: Arc<Client>, mut rate: watch::Receiver<f64>, done: Arc<AtomicU64>, failed: Arc<AtomicU64>) {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let running = TaskTracker::new();
    loop {
        let per_second = *rate.borrow_and_update();
        if per_second < 0.0 {
            break;
        }
        if per_second == 0.0 {
            let _ = rate.changed().await; // the sender lives as long as the load
            continue;
        }
        let pause = tokio::time::sleep(Duration::from_secs_f64(1.0 / per_second));
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (client, done, failed) = (client.clone(), done.clone(), failed.clone());
        running.spawn(async move {
            let query = vector_of(fastrand::u64(..));
            let counter = if client.search(COLLECTION, &query, 10).await.is_ok() { done } else { failed };
            counter.fetch_add(1, Ordering::Relaxed);
            drop(place);
        });
        pause.await;
    }
    running.close();
    running.wait().await;
}
