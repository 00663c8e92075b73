//! A node's durable vote on the cluster map: what it promised, accepted and learned. IO: one small file.
//!
//! This is the acceptor of single-decree-over-the-whole-map Paxos (CASPaxos). A claim promises to refuse lower
//! fences; an accepted map counts towards the writer's majority; only a *learned* map, which the writer (or another
//! node) sends once a majority has accepted it, is acted upon.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::map::ClusterMap;
use crate::model::NodeId;

/// The file's content, and the answer to a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    pub node: NodeId,
    /// No map of a lower fence is accepted any more.
    pub promised: u64,
    pub accepted: Option<Arc<ClusterMap>>,
    pub learned: Option<Arc<ClusterMap>>,
}

/// Why a claim or map was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("a newer controller (fence {promised}) has claimed this cluster; fence {fence} is out of date")]
    Fenced { fence: u64, promised: u64 },
    #[error("map {offered:?} (fence, epoch) is not newer than {held:?}")]
    Older { offered: (u64, u64), held: (u64, u64) },
    #[error("this node belongs to cluster {held}, not {offered}; start it with an empty data directory to move it")]
    Foreign { offered: String, held: String },
    #[error("the node cannot write its cluster file: {0}")]
    Io(#[from] io::Error),
}

pub struct Cell {
    path: PathBuf,
    vote: Mutex<Vote>,
}

impl Vote {
    /// The highest map that this node knows of, chosen or not: what a new writer must carry on.
    pub fn highest(&self) -> Option<&Arc<ClusterMap>> {
        self.accepted.iter().chain(&self.learned).max_by_key(|m| m.ballot())
    }

    fn same_cluster(&self, offered: &str) -> Result<(), Refused> {
        match self.highest() {
            Some(map) if map.cluster != offered => {
                Err(Refused::Foreign { offered: offered.into(), held: map.cluster.clone() })
            }
            _ => Ok(()),
        }
    }
}

impl Cell {
    /// Reads the file, or begins with an empty vote.
    ///
    /// # Errors
    /// When the file cannot be read, or belongs to another node.
    pub fn open(path: &Path, node: &NodeId) -> io::Result<Cell> {
        let vote = match fs::read(path) {
            Ok(text) => serde_json::from_slice::<Vote>(&text)
                .map_err(|e| io::Error::other(format!("{}: not a cluster file: {e}", path.display())))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Vote { node: node.clone(), promised: 0, accepted: None, learned: None }
            }
            Err(e) => return Err(e),
        };
        if vote.node != *node {
            let what =
                format!("{} belongs to node {}, not {node}; give each node its own --data", path.display(), vote.node);
            return Err(io::Error::other(what));
        }
        Ok(Cell { path: path.into(), vote: Mutex::new(vote) })
    }

    pub fn vote(&self) -> Vote {
        self.vote.lock().expect("no panic while voting").clone()
    }

    /// Promises to refuse fences below `fence`.
    ///
    /// # Errors
    /// When a higher one was promised, or the promise cannot be kept on disk.
    pub fn claim(&self, fence: u64) -> Result<Vote, Refused> {
        self.change(|vote| {
            if fence < vote.promised {
                return Err(Refused::Fenced { fence, promised: vote.promised });
            }
            vote.promised = fence;
            Ok(())
        })
    }

    /// Accepts a map. The same map again is a success.
    ///
    /// # Errors
    /// When its fence is too low, it is not newer than what was accepted, or it is of another cluster.
    pub fn accept(&self, map: Arc<ClusterMap>) -> Result<Vote, Refused> {
        self.change(|vote| {
            if map.fence < vote.promised {
                return Err(Refused::Fenced { fence: map.fence, promised: vote.promised });
            }
            vote.same_cluster(&map.cluster)?;
            if let Some(held) = vote.highest().filter(|held| map.ballot() <= held.ballot() && **held != map) {
                return Err(Refused::Older { offered: map.ballot(), held: held.ballot() });
            }
            vote.promised = map.fence;
            vote.accepted = Some(map);
            Ok(())
        })
    }

    /// Takes a map that a majority has accepted. An older one than the present changes nothing.
    ///
    /// # Errors
    /// When it is of another cluster or cannot be written.
    pub fn learn(&self, map: Arc<ClusterMap>) -> Result<Vote, Refused> {
        self.change(|vote| {
            vote.same_cluster(&map.cluster)?;
            if vote.learned.as_ref().is_none_or(|held| held.epoch < map.epoch) {
                vote.learned = Some(map);
            }
            Ok(())
        })
    }

    fn change(&self, change: impl FnOnce(&mut Vote) -> Result<(), Refused>) -> Result<Vote, Refused> {
        let mut vote = self.vote.lock().expect("no panic while voting");
        let mut next = vote.clone();
        change(&mut next)?;
        if next != *vote {
            write_durably(&self.path, &serde_json::to_vec(&next).expect("our own values have string keys"))?;
            *vote = next;
        }
        Ok(vote.clone())
    }
}

/// Replaces a file so that after a crash it is the old or the new one, whole.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let tmp = path.with_extension("tmp");
    let mut file = File::create(&tmp)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&tmp, path)?;
    sync_parent(path)
}

/// Makes a creation, rename or removal in `path`'s directory durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(cluster: &str, fence: u64, epoch: u64) -> Arc<ClusterMap> {
        let (members, collections) = Default::default();
        Arc::new(ClusterMap { cluster: cluster.into(), fence, epoch, members, collections })
    }

    #[test]
    fn a_promise_outlives_the_process_and_stale_fences_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.json");
        let id = NodeId::new("n1").unwrap();
        let cell = Cell::open(&path, &id).unwrap();
        cell.accept(map("c", 3, 1)).unwrap();
        cell.claim(5).unwrap();
        drop(cell);

        let cell = Cell::open(&path, &id).unwrap();
        assert!(matches!(cell.claim(4), Err(Refused::Fenced { promised: 5, .. })));
        assert!(matches!(cell.accept(map("c", 3, 2)), Err(Refused::Fenced { promised: 5, .. })));
        assert_eq!(cell.vote().highest().unwrap().ballot(), (3, 1));
        assert_eq!(cell.vote().learned, None, "what is only accepted is not acted upon");
        assert!(Cell::open(&path, &NodeId::new("n2").unwrap()).is_err(), "another node's directory was taken");
    }

    #[test]
    fn of_two_maps_with_one_ballot_the_first_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cell = Cell::open(&dir.path().join("cluster.json"), &NodeId::new("n1").unwrap()).unwrap();
        cell.accept(map("c", 1, 1)).unwrap();
        cell.accept(map("c", 1, 1)).expect("the same map again");
        let mut rival = (*map("c", 1, 1)).clone();
        rival
            .members
            .insert(NodeId::new("x").unwrap(), super::super::map::MapMember { address: "".into(), cordoned: false });
        assert!(matches!(cell.accept(Arc::new(rival)), Err(Refused::Older { .. })));
        assert!(matches!(cell.accept(map("other", 9, 9)), Err(Refused::Foreign { .. })));
    }

    #[test]
    fn learning_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let cell = Cell::open(&dir.path().join("cluster.json"), &NodeId::new("n1").unwrap()).unwrap();
        cell.learn(map("c", 1, 7)).unwrap();
        cell.learn(map("c", 1, 6)).unwrap();
        assert_eq!(cell.vote().learned.unwrap().epoch, 7);
    }
}
