//! A process of Qdrant, with its disk.

use std::collections::BTreeMap;
use std::time::Duration;

/// What a point is to the model: its id and a hash of vector and payload.
pub(super) type Points = BTreeMap<u64, u64>;

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    Up,
    /// Stopped in the middle of everything: connections open, no answers.
    Hung,
    Dead,
}

/// What its pages tell of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub cores: u32,
    pub cpu_cores_used: f64,
    /// Of the whole, 0..=100.
    pub memory_percent: u32,
    pub disk_percent: u32,
    /// How long a search takes.
    pub search: Duration,
}

impl Default for Load {
    fn default() -> Load {
        let search = Duration::from_millis(5);
        Load { cores: 2, cpu_cores_used: 0.25, memory_percent: 45, disk_percent: 40, search }
    }
}

/// Where a node stands in the cluster.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// Started, not heard by the others yet.
    Joining,
    /// Known, without a vote.
    Learner,
    Member,
    /// Removed; it goes on with the view that it had.
    Removed(Box<Frozen>),
}

/// What a removed node believes for ever.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    pub collections: BTreeMap<String, super::collection::Collection>,
    pub term: u64,
    pub commit: u64,
    /// 0: none. It forgets its leader when it is restarted.
    pub leader: Option<u64>,
}

/// Answers of one endpoint with one status.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    pub count: u64,
    pub took: Duration,
    pub longest: Duration,
    /// Up to 1, 5, 10, 20, 50, 100, 500 ms, 1, 5, 10, 50 s, and all, each with those before.
    pub buckets: [u64; 12],
}

/// Upper bounds of the buckets, as Qdrant writes them.
pub(super) const BUCKETS: [&str; 12] =
    ["0.001", "0.005", "0.01", "0.02", "0.05", "0.1", "0.5", "1", "5", "10", "50", "+Inf"];

impl Served {
    pub fn add(&mut self, took: Duration) {
        self.count += 1;
        self.took += took;
        self.longest = self.longest.max(took);
        for (bucket, bound) in self.buckets.iter_mut().zip(BUCKETS) {
            if bound == "+Inf" || bound.parse().is_ok_and(|bound: f64| took.as_secs_f64() <= bound) {
                *bucket += 1;
            }
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub peer: u64,
    pub uri: String,
    pub version: String,
    pub process: Process,
    pub started: Duration,
    pub standing: Standing,
    /// `/readyz` has said 200 since the start, and says so ever after.
    pub latched: bool,
    /// `/readyz` was asked since the start.
    pub polled: bool,
    /// What is on its disk, by collection and shard.
    pub store: BTreeMap<(String, u32), Points>,
    /// Until when it builds the index of a shard.
    pub indexing: BTreeMap<(String, u32), Duration>,
    pub load: Load,
    /// By method, endpoint and status.
    pub served: BTreeMap<(&'static str, &'static str, u16), Served>,
    /// A write was tried here while no majority could call a copy dead.
    pub waited: bool,
}

impl Node {
    pub fn new(peer: u64, uri: String, version: &str, started: Duration) -> Node {
        Node {
            peer,
            uri,
            version: version.into(),
            process: Process::Up,
            started,
            standing: Standing::Joining,
            latched: false,
            polled: false,
            store: BTreeMap::new(),
            indexing: BTreeMap::new(),
            load: Load::default(),
            served: BTreeMap::new(),
            waited: false,
        }
    }

    pub fn points(&self, collection: &str, shard: u32) -> usize {
        self.store.get(&(collection.to_string(), shard)).map_or(0, BTreeMap::len)
    }
}
