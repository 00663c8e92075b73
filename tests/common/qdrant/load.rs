//! Clients of the double: one that writes all the time, one that searches all the time, and a reader that compares what
//! is there with what was acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use vecscale::replay::qdrant::content;

use super::{Qdrant, Shared};
use crate::common::http;

/// Ids of points that are written while something goes on.
pub const FIRST: u64 = 10_000_000;
pub const SIZE: usize = 8;

pub fn point(id: u64) -> Value {
    let vector: Vec<f64> = (0..SIZE).map(|at| ((id + at as u64) % 97) as f64 / 97.0).collect();
    json!({"id": id, "vector": vector, "payload": {"n": id}})
}

/// What has become of the load so far.
#[derive(Default)]
pub struct Books {
    /// Acknowledged, with its content.
    pub acked: Mutex<BTreeMap<u64, u64>>,
    pub failed_writes: AtomicU64,
    pub searches: AtomicU64,
    /// What failed searches were told, at most a few.
    pub failed_searches: Mutex<Vec<String>>,
    ends: AtomicBool,
}

pub struct Load {
    pub books: Arc<Books>,
    tasks: Vec<JoinHandle<()>>,
}

impl Qdrant {
    /// A collection with so many points, made through the first node.
    pub async fn fill(&self, name: &str, shards: u32, copies: u32, points: u64) {
        let node = self.machines().into_iter().next().expect("a machine");
        let body = json!({
            "vectors": {"size": SIZE, "distance": "Cosine"}, "shard_number": shards, "replication_factor": copies,
        });
        let url = format!("{}/collections/{name}", self.address(&node));
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            match http().put(&url).json(&body).send().await {
                Ok(answer) if answer.status() == 200 || answer.status() == 409 => break,
                other => assert!(std::time::Instant::now() < deadline, "no collection {name}: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.with(|cluster, _| cluster.fill(name, 0, points));
    }

    /// Writes and searches until it is told to end, through nodes that are members and answer, as a load balancer
    /// would.
    pub fn load(&self, collection: &str) -> Load {
        let books = Arc::new(Books::default());
        let writes = write(self.shared.clone(), books.clone(), collection.into());
        let searches = search(self.shared.clone(), books.clone(), collection.into());
        Load { books, tasks: vec![tokio::spawn(writes), tokio::spawn(searches)] }
    }

    /// All points of a collection with their content, read page by page through one node.
    pub async fn scroll(&self, node: &str, collection: &str) -> BTreeMap<u64, u64> {
        let url = format!("{}/collections/{collection}/points/scroll", self.address(node));
        let mut points = BTreeMap::new();
        let mut offset = json!(0);
        while !offset.is_null() {
            let body = json!({"limit": 2000, "offset": offset});
            let answer = http().post(&url).json(&body).send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
            let page: Value = answer.json().await.expect("JSON");
            for point in page["result"]["points"].as_array().expect("points") {
                let hash = point["payload"]["hash"].as_u64().expect("a hash");
                points.insert(point["id"].as_u64().expect("an id"), hash);
            }
            offset = page["result"]["next_page_offset"].clone();
        }
        points
    }

    /// The exact count through one node.
    pub async fn count(&self, node: &str, collection: &str) -> u64 {
        let url = format!("{}/collections/{collection}/points/count", self.address(node));
        let answer = http().post(&url).json(&json!({"exact": true})).send().await.expect("an answer");
        let body: Value = answer.json().await.expect("JSON");
        body["result"]["count"].as_u64().unwrap_or_else(|| panic!("no count: {body}"))
    }
}

impl Load {
    /// Ends it; what was acknowledged besides `before` is there, and nothing else but writes that were not
    /// acknowledged.
    pub async fn all_is_there(self, qdrant: &Qdrant, node: &str, collection: &str, before: &BTreeMap<u64, u64>) {
        self.books.ends.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("the load does not panic");
        }
        let mut expected = before.clone();
        expected.extend(self.books.acked.lock().expect("no panic").iter().map(|(id, content)| (*id, *content)));
        let mut there = qdrant.scroll(node, collection).await;
        assert_eq!(qdrant.count(node, collection).await, there.len() as u64);
        let unheard = self.books.failed_writes.load(Ordering::SeqCst);
        let more = there.keys().filter(|id| !expected.contains_key(id)).count() as u64;
        assert!(more <= unheard, "{more} points that nobody wrote, {unheard} writes were not acknowledged");
        there.retain(|id, _| expected.contains_key(id));
        let lost: Vec<_> = expected.iter().filter(|(id, content)| there.get(id) != Some(content)).take(5).collect();
        assert!(lost.is_empty(), "lost or changed, of {}: {lost:?} …", expected.len());
        let census = qdrant.with(|cluster, _| cluster.census(collection));
        assert!(census.lost.is_empty() && census.differing.is_empty(), "{:?} {:?}", census.lost, census.differing);
        assert!(expected.len() > before.len() + 20, "hardly a write came through");
        assert!(self.books.searches.load(Ordering::SeqCst) > 20, "hardly a search came through");
    }

    pub fn failed_searches(&self) -> Vec<String> {
        self.books.failed_searches.lock().expect("no panic").clone()
    }
}

/// Where a client goes next: a machine whose node is a member and answers.
fn next(shared: &Shared, turn: u64) -> Option<String> {
    let state = shared.state();
    let members: Vec<_> = state.machines.iter().filter(|(name, _)| state.cluster.serves(name)).collect();
    let at = usize::try_from(turn).unwrap_or(0) % members.len().max(1);
    members.get(at).map(|(_, at)| format!("http://{at}"))
}

async fn write(shared: Arc<Shared>, books: Arc<Books>, collection: String) {
    let client = http();
    let mut id = FIRST;
    while !books.ends.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let Some(node) = next(&shared, id) else { continue };
        let point = point(id);
        let url = format!("{node}/collections/{collection}/points?wait=true");
        match client.put(url).json(&json!({"points": [point]})).send().await {
            Ok(answer) if answer.status() == 200 => {
                books.acked.lock().expect("no panic").insert(id, content(&point));
            }
            _ => {
                books.failed_writes.fetch_add(1, Ordering::SeqCst);
            }
        }
        id += 1;
    }
}

async fn search(shared: Arc<Shared>, books: Arc<Books>, collection: String) {
    let client = http();
    let mut turn = 0;
    while !books.ends.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let Some(node) = next(&shared, turn) else { continue };
        turn += 1;
        let url = format!("{node}/collections/{collection}/points/query");
        let failure = match client.post(url).json(&json!({"query": vec![0.5; SIZE], "limit": 3})).send().await {
            Ok(answer) if answer.status() == 200 => None,
            Ok(answer) => Some(format!("{}: {}", answer.status(), answer.text().await.unwrap_or_default())),
            Err(error) => Some(format!("{error:?}")),
        };
        books.searches.fetch_add(1, Ordering::SeqCst);
        let mut failures = books.failed_searches.lock().expect("no panic");
        if let Some(failure) = failure.filter(|_| failures.len() < 20) {
            failures.push(failure);
        }
    }
}
