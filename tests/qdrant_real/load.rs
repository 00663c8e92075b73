//! Writes and searches that go on while the cluster changes, and the proof afterwards: every acknowledged point, no other,
//! each as it was written.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use vecscale::node::client::{Client, ClientError};

use super::common::World;

/// One copy of each shard.
pub const ONE: &str = "one";
/// Two copies.
pub const TWO: &str = "two";
pub const SHARDS: u32 = 6;
const SIZE: usize = 32;
const BATCH: u64 = 1_000;
/// How often a request that got no answer is sent again: a write until it is acknowledged.
const AGAIN: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(120);

/// The vector of an id: of binary fractions, so that no text on the way rounds it.
fn vector_of(id: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(id);
    (0..SIZE).map(|_| f32::from(random.i16(-1024..1024)) / 1024.0).collect()
}

fn payload_of(id: u64) -> Value {
    json!({"n": id, "word": format!("w{}", id % 97)})
}

/// Of one point; a collection's checksum is the sum, whatever the order.
fn hash_of(id: u64, vector: &[f32], payload: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    vector.iter().for_each(|x| x.to_bits().hash(&mut hasher));
    payload.to_string().hash(&mut hasher);
    hasher.finish()
}

fn checksum_of(ids: impl Iterator<Item = u64>) -> u64 {
    ids.map(|id| hash_of(id, &vector_of(id), &payload_of(id))).fold(0, u64::wrapping_add)
}

#[derive(Default)]
struct Counts {
    searched: AtomicU64,
    failed: AtomicU64,
    /// Ids below this one are acknowledged.
    written: AtomicU64,
    /// Writes that were sent again.
    again: AtomicU64,
    /// The longest time to an acknowledgement, milliseconds.
    slowest: AtomicU64,
}

/// What happened to one collection.
#[derive(Debug)]
pub struct Collection {
    pub searched: u64,
    pub failed: u64,
    pub written: u64,
    pub again: u64,
    pub slowest_ms: u64,
    pub counted: u64,
    /// Found by reading all: points and checksum.
    pub found: (u64, u64),
}

/// What happened to all of them.
#[derive(Debug)]
pub struct Told(BTreeMap<&'static str, Collection>);

impl Told {
    pub fn of(&self, name: &str) -> &Collection {
        &self.0[name]
    }

    pub fn nothing_is_lost(&self) {
        for (name, told) in &self.0 {
            assert!(told.searched > 100, "{name} was hardly searched\n{self}");
            assert_eq!(told.counted, told.written, "{name}: counted and written differ\n{self}");
            assert_eq!(told.found, (told.written, checksum_of(0..told.written)), "{name}: other points\n{self}");
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, told) in &self.0 {
            writeln!(
                f,
                "{name}: {} searches, {} failed; {} points written, {} writes sent again, the slowest took {} ms; {} \
                 counted, {} read, checksum {:016x}",
                told.searched,
                told.failed,
                told.written,
                told.again,
                told.slowest_ms,
                told.counted,
                told.found.0,
                told.found.1
            )?;
        }
        Ok(())
    }
}

/// One writer and two searchers per collection, and one that tells them which nodes there are.
pub struct Load {
    client: Arc<Client>,
    /// Where the controller listens.
    url: Arc<Mutex<String>>,
    stop: Arc<AtomicBool>,
    counts: BTreeMap<&'static str, Arc<Counts>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Makes the collections, each with so many copies, writes `points` into each, and goes on.
    pub async fn begin(world: &World, collections: &[(&'static str, u32)], points: u64) -> Load {
        let client = Arc::new(Client::new(serving(&world.url).await.expect("the nodes")));
        let url = Arc::new(Mutex::new(world.url.clone()));
        let mut load = Load { client, url, stop: Arc::default(), counts: BTreeMap::new(), tasks: Vec::new() };
        for (name, copies) in collections {
            let body = json!({
                "vectors": {"size": SIZE, "distance": "Dot"}, "shard_number": SHARDS, "replication_factor": copies,
            });
            let made: Result<Value, ClientError> =
                load.client.request(Method::PUT, &format!("/collections/{name}"), Some(&body)).await;
            made.expect("the collection is made");
            let counts = Arc::new(Counts::default());
            for from in (0..points).step_by(BATCH as usize) {
                write(&load.client, name, from..points.min(from + BATCH), &counts).await;
            }
            counts.written.store(points, Ordering::Relaxed);
            counts.slowest.store(0, Ordering::Relaxed);
            load.counts.insert(name, counts);
        }
        eprintln!("{points} points written into each of {collections:?}");
        load.go_on();
        load
    }

    fn go_on(&mut self) {
        for (&name, counts) in &self.counts {
            let (client, counts, stop) = (self.client.clone(), counts.clone(), self.stop.clone());
            for _ in 0..2 {
                self.tasks.push(tokio::spawn(search(client.clone(), name, counts.clone(), stop.clone())));
            }
            self.tasks.push(tokio::spawn(go_on_writing(client, name, counts, stop)));
        }
        let (client, stop, url) = (self.client.clone(), self.stop.clone(), self.url.clone());
        self.tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let at = url.lock().expect("no panic while held").clone();
                if let Some(nodes) = serving(&at).await {
                    client.set_nodes(nodes);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }));
    }

    /// The controller was started again, and listens elsewhere.
    pub fn follow(&self, world: &World) {
        world.url.clone_into(&mut self.url.lock().expect("no panic while held"));
    }

    /// Ends writes and searches, and reads everything.
    pub async fn end(self, world: &World) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("the load");
        }
        self.client.set_nodes(serving(&world.url).await.expect("the nodes"));
        let mut told = BTreeMap::new();
        for (name, counts) in self.counts {
            let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
            let collection = Collection {
                searched: count(&counts.searched),
                failed: count(&counts.failed),
                written: count(&counts.written),
                again: count(&counts.again),
                slowest_ms: count(&counts.slowest),
                counted: self.client.count(name).await.expect("an exact count"),
                found: read_all(&self.client, name).await,
            };
            told.insert(name, collection);
        }
        Told(told)
    }
}

/// As a load balancer would know them: those in service, by vecscale's own status. `None` while that is silent.
async fn serving(url: &str) -> Option<Vec<String>> {
    let answer = super::common::http().get(format!("{url}/autoscaling/status")).send().await.ok()?;
    let status: Value = answer.json().await.ok()?;
    let nodes = status["nodes"].as_array()?.iter().filter(|n| n["state"] == "serving");
    let addresses: Vec<String> = nodes.filter_map(|n| Some(n["address"].as_str()?.to_string())).collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// Until it is acknowledged.
async fn write(client: &Client, name: &str, ids: std::ops::Range<u64>, counts: &Counts) {
    let points: Vec<Value> =
        ids.map(|id| json!({"id": id, "vector": vector_of(id), "payload": payload_of(id)})).collect();
    let (path, body) = (format!("/collections/{name}/points?wait=true"), json!({ "points": points }));
    let began = Instant::now();
    loop {
        let written: Result<Value, ClientError> = client.request(Method::PUT, &path, Some(&body)).await;
        let Err(why) = written else { break };
        assert!(began.elapsed() < PATIENCE, "{name}: a write is not acknowledged: {why}");
        counts.again.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(AGAIN).await;
    }
    counts.slowest.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
}

async fn go_on_writing(client: Arc<Client>, name: &'static str, counts: Arc<Counts>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let from = counts.written.load(Ordering::Relaxed);
        write(&client, name, from..from + 10, &counts).await;
        counts.written.store(from + 10, Ordering::Relaxed);
        // And one that was there long before, as it is.
        let old = fastrand::u64(0..from);
        write(&client, name, old..old + 1, &counts).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn search(client: Arc<Client>, name: &'static str, counts: Arc<Counts>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        match client.search(name, &vector_of(fastrand::u64(..)), 5).await {
            Ok(found) if found.len() == 5 => {}
            other => {
                if counts.failed.fetch_add(1, Ordering::Relaxed) < 10 {
                    eprintln!("{name}: a search failed: {other:?}");
                }
            }
        }
        counts.searched.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Points and checksum of a whole collection.
async fn read_all(client: &Client, name: &str) -> (u64, u64) {
    let (mut points, mut sum, mut from) = (0, 0u64, Value::Null);
    loop {
        let body = json!({"limit": BATCH, "offset": from, "with_payload": true, "with_vector": true});
        let page: Value = client
            .request(Method::POST, &format!("/collections/{name}/points/scroll"), Some(&body))
            .await
            .expect("a page of points");
        for point in page["result"]["points"].as_array().expect("points") {
            let vector: Vec<f32> = serde_json::from_value(point["vector"].clone()).expect("a vector");
            let id = point["id"].as_u64().expect("an id");
            sum = sum.wrapping_add(hash_of(id, &vector, &point["payload"]));
            points += 1;
        }
        from = page["result"]["next_page_offset"].clone();
        if from.is_null() {
            return (points, sum);
        }
    }
}
