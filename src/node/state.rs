//! One node: its vote, the map it acts on, the shards it holds. IO: its data directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::cell::{Cell, Refused, Vote};
use super::log::LogError;
use super::map::{ClusterMap, ShardKey};
use super::pace::{Overloaded, Pace};
use super::page::Meters;
use super::peers::{PeerError, Peers};
use super::shard::{Shard, WriteError};
use super::wishes::Wishes;
use crate::model::{NodeId, ReplicaState};

/// How long a node waits for another's map.
const MAP_LIMIT: Duration = Duration::from_secs(1);

/// What a node may use: never the host's.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Share of CPU cores, above 0.
    pub cpu_cores: f64,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
}

/// A request that is not answered as wished.
#[derive(Clone, Debug)]
pub struct Failure {
    pub status: StatusCode,
    pub error: String,
    /// With a 409 between nodes: the epoch of the map that this node acts on.
    pub epoch: Option<u64>,
}

impl Failure {
    pub fn new(status: StatusCode, error: impl Into<String>) -> Failure {
        Failure { status, error: error.into(), epoch: None }
    }

    pub fn unavailable(error: impl Into<String>) -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

impl From<Overloaded> for Failure {
    fn from(_: Overloaded) -> Self {
        Failure::unavailable("the node is overloaded: too many requests wait for its share of CPU")
    }
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Refused { status, detail, epoch, .. } => Failure { status, error: detail, epoch },
            lost => Failure::unavailable(lost.to_string()),
        }
    }
}

pub struct Node {
    pub id: NodeId,
    pub limits: Limits,
    pub peers: Peers,
    pub pace: Pace,
    pub wishes: Wishes,
    pub meters: Meters,
    /// Wakes the keeper of replicas.
    pub nudge: Notify,
    dir: PathBuf,
    cell: Cell,
    /// The map this node acts on.
    map: watch::Sender<Option<Arc<ClusterMap>>>,
    shards: RwLock<BTreeMap<ShardKey, Slot>>,
    learning: Mutex<()>,
    loaded: watch::Sender<bool>,
    /// Keeps a second process off the directory, as long as this one lives.
    _lock: File,
}

/// A shard that this node is to hold.
#[derive(Clone)]
enum Slot {
    Whole(Arc<Shard>),
    /// Why it cannot be opened.
    Damaged(String),
}

/// What a node holds, asked of no one else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holdings {
    pub node: NodeId,
    pub cluster: Option<String>,
    /// Epoch of the map it acts on.
    pub epoch: Option<u64>,
    pub shards: Vec<Holding>,
}

/// One copy on this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holding {
    /// The collection's name; its number when the map no longer lists it.
    pub collection: String,
    pub key: ShardKey,
    /// `None` when the map does not list the node for this shard.
    pub state: Option<ReplicaState>,
    pub epoch: u64,
    pub vectors: u64,
    /// Memory that the points take.
    pub bytes: u64,
    /// Over ids, vectors and payloads; hexadecimal.
    pub digest: String,
    /// At the primary: replicas that hold the same and take every write.
    pub in_step: Vec<NodeId>,
}

impl Node {
    /// Takes the directory and reads the vote; the shards are loaded by [`Node::load`].
    ///
    /// # Errors
    /// When another process or node has the directory, or it cannot be used.
    pub fn open(dir: &Path, id: NodeId, limits: Limits, pace: Pace) -> io::Result<Node> {
        fs::create_dir_all(dir.join("shards"))?;
        let lock = super::lock::take(dir)?;
        let cell = Cell::open(&dir.join("cluster.json"), &id)?;
        Ok(Node {
            id,
            limits,
            peers: Peers::default(),
            pace,
            wishes: Wishes::default(),
            meters: Meters::default(),
            nudge: Notify::new(),
            dir: dir.into(),
            cell,
            map: watch::Sender::new(None),
            shards: RwLock::default(),
            learning: Mutex::default(),
            loaded: watch::Sender::new(false),
            _lock: lock,
        })
    }

    /// Reads the shards and asks the other members for a newer map, so that what has been given away meanwhile is
    /// not served again.
    pub async fn load(self: &Arc<Self>) {
        if let Some(map) = self.cell.vote().learned {
            let known = map.clone();
            self.blocking(move |node| {
                node.hold(&known, None);
                node.map.send_replace(Some(known));
            })
            .await;
            let others = map.members.iter().filter(|(id, _)| **id != self.id);
            let asked = others.map(|(_, m)| self.peers.get::<Vote>(&m.address, "/cluster/map", MAP_LIMIT));
            for vote in futures::future::join_all(asked).await.into_iter().flatten() {
                if let Some(newer) = vote.learned
                    && let Err(error) = self.learn(newer).await
                {
                    tracing::warn!(%error, "another member's map was not taken");
                }
            }
            self.blocking(|node| node.map().iter().for_each(|map| node.drop_unlisted(map))).await;
        }
        self.loaded.send_replace(true);
    }

    pub fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    pub fn map(&self) -> Option<Arc<ClusterMap>> {
        self.map.borrow().clone()
    }

    pub fn epoch(&self) -> Option<u64> {
        self.map.borrow().as_ref().map(|m| m.epoch)
    }

    /// Tells of new maps.
    pub fn maps(&self) -> watch::Receiver<Option<Arc<ClusterMap>>> {
        self.map.subscribe()
    }

    /// # Errors
    /// Before the first map is known.
    pub fn known_map(&self) -> Result<Arc<ClusterMap>, Failure> {
        self.map()
            .ok_or_else(|| Failure::unavailable("the node has no cluster map yet: no controller has made it a member"))
    }

    pub fn vote(&self) -> Vote {
        self.cell.vote()
    }

    /// # Errors
    /// As [`Cell::claim`].
    pub async fn claim(self: &Arc<Self>, fence: u64) -> Result<Vote, Refused> {
        self.blocking(move |node| node.cell.claim(fence)).await
    }

    /// # Errors
    /// As [`Cell::accept`].
    pub async fn accept(self: &Arc<Self>, map: Arc<ClusterMap>) -> Result<Vote, Refused> {
        self.blocking(move |node| node.cell.accept(map)).await
    }

    /// Acts on a map that a majority has accepted, if it is newer than the present one.
    ///
    /// # Errors
    /// As [`Cell::learn`].
    pub async fn learn(self: &Arc<Self>, map: Arc<ClusterMap>) -> Result<Vote, Refused> {
        self.blocking(move |node| node.learn_now(map)).await
    }

    fn learn_now(&self, map: Arc<ClusterMap>) -> Result<Vote, Refused> {
        let _one = self.learning.lock().expect("no panic while learning");
        let before = self.map();
        if before.as_ref().is_some_and(|held| held.cluster == map.cluster && held.epoch >= map.epoch) {
            return Ok(self.cell.vote());
        }
        // New shards get their file before the vote says so: a listed shard without a file is a lost one.
        self.hold(&map, before.as_deref());
        let vote = self.cell.learn(map.clone())?;
        self.map.send_replace(Some(map.clone()));
        self.drop_unlisted(&map);
        self.nudge.notify_one();
        Ok(vote)
    }

    /// Opens what the map lists this node for, and moves what is open to the map's epochs.
    fn hold(&self, map: &ClusterMap, before: Option<&ClusterMap>) {
        for (_, key, collection, assignment) in map.shards() {
            let Some(state) = assignment.state_of(&self.id) else { continue };
            let path = self.path(key);
            let held = self.shards().get(&key).cloned();
            if let Some(Slot::Whole(shard)) = &held {
                shard.set_epoch(assignment.epoch);
                continue;
            }
            if held.is_some() && state == ReplicaState::Partial {
                // The primary fills it anew; the damaged file is kept for whoever wants to look.
                let _ = fs::rename(&path, path.with_extension("damaged"));
            } else if held.is_some() {
                continue;
            }
            let is_new = before.is_some_and(|b| b.collections.values().all(|c| c.id != key.collection));
            let slot = if state == ReplicaState::Active && !is_new && !path.exists() {
                Slot::Damaged(format!("{}: the file of a shard that this node holds is missing", path.display()))
            } else {
                match Shard::open(path, key, collection.params.size as usize, assignment.epoch) {
                    Ok(shard) => Slot::Whole(Arc::new(shard)),
                    Err(error) => Slot::Damaged(error.to_string()),
                }
            };
            if let Slot::Damaged(why) = &slot {
                tracing::error!(shard = ?key, %why, "a shard cannot be served");
            }
            self.shards.write().expect("no panic while holding").insert(key, slot);
        }
    }

    /// Gives up what the map does not list this node for, files of earlier runs included.
    fn drop_unlisted(&self, map: &ClusterMap) {
        let listed = |key: &ShardKey| map.assignment(*key).is_some_and(|a| a.state_of(&self.id).is_some());
        let unlisted: Vec<(ShardKey, Slot)> =
            self.shards().iter().filter(|(key, _)| !listed(key)).map(|(k, s)| (*k, s.clone())).collect();
        for (key, slot) in unlisted {
            let gone = match slot {
                Slot::Whole(shard) => shard.leave(),
                Slot::Damaged(_) => fs::rename(self.path(key), self.path(key).with_extension("damaged")),
            };
            match gone {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(shard = ?key, %error, "a shard that was given up could not be removed");
                }
                _ => drop(self.shards.write().expect("no panic while holding").remove(&key)),
            }
        }
        for entry in fs::read_dir(self.dir.join("shards")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if key_of(&name.to_string_lossy()).is_some_and(|key| !listed(&key)) {
                let _ = fs::remove_file(entry.path()); // looked at again with the next map
            }
        }
    }

    fn path(&self, key: ShardKey) -> PathBuf {
        self.dir.join("shards").join(format!("{}-{}.log", key.collection, key.shard))
    }

    fn shards(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<ShardKey, Slot>> {
        self.shards.read().expect("no panic while holding")
    }

    fn whole(&self) -> Vec<Arc<Shard>> {
        let whole = |slot: &Slot| match slot {
            Slot::Whole(shard) => Some(shard.clone()),
            Slot::Damaged(_) => None,
        };
        self.shards().values().filter_map(whole).collect()
    }

    /// The copy of a shard on this node.
    ///
    /// # Errors
    /// 409 when it is not here, 503 when it is damaged or not yet loaded.
    pub fn shard(&self, key: ShardKey) -> Result<Arc<Shard>, Failure> {
        if !self.is_loaded() {
            return Err(Failure::unavailable("the node is loading its shards"));
        }
        match self.shards().get(&key) {
            Some(Slot::Whole(shard)) => Ok(shard.clone()),
            Some(Slot::Damaged(why)) => Err(Failure::unavailable(why)),
            None => Err(self.stale("the shard is not on this node")),
        }
    }

    /// "Your map and mine differ": the asker compares epochs, and the older map is replaced.
    pub fn stale(&self, what: &str) -> Failure {
        Failure { status: StatusCode::CONFLICT, error: what.into(), epoch: Some(self.epoch().unwrap_or(0)) }
    }

    /// After a 409: the newer of both maps goes to where the older one is.
    pub async fn reconcile(self: &Arc<Self>, address: &str, theirs: Option<u64>) {
        let mine = self.epoch().unwrap_or(0);
        let outcome = match theirs {
            Some(theirs) if theirs > mine => match self.peers.get::<Vote>(address, "/cluster/map", MAP_LIMIT).await {
                Ok(Vote { learned: Some(map), .. }) => self.learn(map).await.map(drop).map_err(|e| e.to_string()),
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
            Some(theirs) if theirs < mine => {
                let map = self.map();
                let sent = self.peers.ask::<Vote>(Method::PUT, address, "/cluster/map/learned", Some(&map), MAP_LIMIT);
                sent.await.map(drop).map_err(|e| e.to_string())
            }
            // The same map: the other is just changing over.
            _ => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Ok(())
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(address, error, "maps were not reconciled");
        }
    }

    /// Sends the map to the other members, so that what was answered here holds there too.
    pub async fn tell_others(&self) {
        let Some(map) = self.map() else { return };
        let others = map.members.iter().filter(|(id, _)| **id != self.id);
        let sent = others.map(|(_, m)| {
            self.peers.ask::<Vote>(Method::PUT, &m.address, "/cluster/map/learned", Some(&map), MAP_LIMIT)
        });
        // Who misses it asks when a request does not fit its map.
        drop(futures::future::join_all(sent).await);
    }

    /// Runs what waits for the disk off the threads that serve requests.
    pub async fn blocking<T: Send + 'static>(self: &Arc<Self>, work: impl FnOnce(&Node) -> T + Send + 'static) -> T {
        let node = self.clone();
        match tokio::task::spawn_blocking(move || node.pace.work(|| work(&node))).await {
            Ok(done) => done,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            // The process is ending and nothing was done: no answer is better than a wrong one.
            Err(_) => std::future::pending().await,
        }
    }

    /// Why the node does not serve; `Ok` when it does.
    ///
    /// # Errors
    /// The reason, for a person.
    pub fn health(&self) -> Result<(), String> {
        if !self.is_loaded() {
            return Err("loading shards".into());
        }
        let map = self.known_map().map_err(|f| f.error)?;
        if !map.members.contains_key(&self.id) {
            return Err("not a member of the cluster".into());
        }
        let shards = self.shards();
        let damaged = shards.iter().find_map(|(key, slot)| match slot {
            // What the map calls dead is not relied on; the primary fills it again.
            Slot::Damaged(why) => {
                let state = map.assignment(*key).and_then(|a| a.state_of(&self.id));
                (state == Some(ReplicaState::Active)).then(|| why.clone())
            }
            Slot::Whole(_) => None,
        });
        damaged.map_or(Ok(()), Err)
    }

    pub fn holdings(&self) -> Holdings {
        let map = self.map();
        let holding = |shard: Arc<Shard>| {
            let listed = map.iter().flat_map(|m| m.shards()).find(|(_, key, _, _)| *key == shard.key);
            let epoch = shard.epoch();
            let points = shard.read();
            Holding {
                collection: listed.map_or(shard.key.collection.to_string(), |(name, ..)| name.to_owned()),
                key: shard.key,
                state: listed.and_then(|(_, _, _, a)| a.state_of(&self.id)),
                epoch,
                vectors: points.len() as u64,
                bytes: points.bytes() as u64,
                digest: format!("{:032x}", points.digest()),
                in_step: listed
                    .iter()
                    .flat_map(|(_, _, _, a)| a.written())
                    .filter(|other| shard.is_in_step(other, epoch))
                    .cloned()
                    .collect(),
            }
        };
        Holdings {
            node: self.id.clone(),
            cluster: map.as_ref().map(|m| m.cluster.clone()),
            epoch: map.as_ref().map(|m| m.epoch),
            shards: self.whole().into_iter().map(holding).collect(),
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        self.whole().iter().map(|s| s.read().bytes() as u64).sum()
    }

    pub fn storage_bytes(&self) -> u64 {
        self.whole().iter().map(|s| s.file_bytes()).sum()
    }

    pub fn vectors(&self) -> u64 {
        self.whole().iter().map(|s| s.read().len() as u64).sum()
    }

    /// Whether `memory` more bytes of points, written as `storage` bytes, stay within the limits.
    ///
    /// # Errors
    /// 507 with the limit that is in the way.
    pub fn room_for(&self, memory: usize, storage: usize) -> Result<(), Failure> {
        let over = |what: &str, held: u64, more: usize, limit: u64, flag: &str| {
            let text =
                format!("{what} of node {} is full: {held} of {limit} bytes used; add nodes or raise {flag}", self.id);
            (more > 0 && held + more as u64 > limit).then(|| Failure::new(StatusCode::INSUFFICIENT_STORAGE, text))
        };
        let full = over("memory", self.memory_bytes(), memory, self.limits.memory_bytes, "--memory.limit")
            .or_else(|| over("storage", self.storage_bytes(), storage, self.limits.storage_bytes, "--storage.limit"));
        full.map_or(Ok(()), Err)
    }

    /// A refused write as an answer.
    pub fn refused(&self, error: WriteError) -> Failure {
        match error {
            WriteError::Epoch { .. } | WriteError::Gone => self.stale(&error.to_string()),
            WriteError::Size { .. } => Failure::new(StatusCode::BAD_REQUEST, format!("Wrong input: {error}")),
            WriteError::Log(LogError::Broken | LogError::Io { .. }) => Failure::unavailable(error.to_string()),
            WriteError::Log(_) => Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

/// The shard whose log has this file name.
fn key_of(name: &str) -> Option<ShardKey> {
    let (collection, shard) = name.strip_suffix(".log")?.split_once('-')?;
    Some(ShardKey { collection: collection.parse().ok()?, shard: shard.parse().ok()? })
}
