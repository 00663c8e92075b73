//! One copy of a shard: its points, its log, and which writes it takes. IO: the log.
//!
//! Every write names the epoch of the shard's assignment and is refused at any other, under the same lock that a new
//! map takes to change it: a primary that was deposed cannot slip a write in.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, RwLock};

use super::cell::sync_parent;
use super::log::{Change, Log, LogError, Op, Version};
use super::map::ShardKey;
use super::points::Points;
use crate::model::NodeId;

/// Logs below this size are not worth compacting.
const COMPACT_FROM: u64 = 1 << 20;
/// Points in one record of a compacted log.
const COMPACT_BATCH: usize = 1000;

/// Why a write was not taken. Nothing of it was applied.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The writer's idea of the shard's assignment is not this node's.
    #[error("the shard is at epoch {held} here, the write came from epoch {offered}")]
    Epoch { offered: u64, held: u64 },
    #[error("the shard has left this node")]
    Gone,
    #[error("vectors of this collection have {wanted} numbers, got {got}")]
    Size { wanted: usize, got: usize },
    #[error(transparent)]
    Log(#[from] LogError),
}

pub struct Shard {
    pub key: ShardKey,
    size: usize,
    path: PathBuf,
    writer: Mutex<Writer>,
    pub points: RwLock<Points>,
    /// Held by the primary from the local write to the last replica's answer: writes of a shard come one by one.
    pub gate: tokio::sync::Mutex<()>,
    /// At the primary: replicas that were seen to hold the same, with the epoch they were seen in. A failed forward
    /// takes the replica off the list.
    in_step: Mutex<BTreeMap<NodeId, u64>>,
}

struct Writer {
    log: Log,
    epoch: u64,
    /// The primary's count of writes within the epoch.
    seq: u64,
    gone: bool,
}

impl Shard {
    /// Opens the copy at `path` under the assignment of `epoch`.
    ///
    /// # Errors
    /// When its log is damaged or cannot be read.
    pub fn open(path: PathBuf, key: ShardKey, size: usize, epoch: u64) -> Result<Shard, LogError> {
        let mut points = Points::new(size);
        let mut wrong_size = false;
        let log = Log::open(&path, |batch| {
            for op in batch {
                wrong_size |= size_of(&op).is_some_and(|got| got != size);
                if !wrong_size {
                    points.put(op);
                }
            }
        })?;
        if wrong_size {
            return Err(LogError::NotALog(path));
        }
        points.forget_deletions_before(epoch);
        let writer = Writer { log, epoch, seq: points.last_seq(epoch), gone: false };
        Ok(Shard {
            key,
            size,
            path,
            writer: Mutex::new(writer),
            points: RwLock::new(points),
            gate: tokio::sync::Mutex::new(()),
            in_step: Mutex::default(),
        })
    }

    fn writer(&self) -> std::sync::MutexGuard<'_, Writer> {
        self.writer.lock().expect("no panic while writing")
    }

    /// Reads the points.
    pub fn read(&self) -> std::sync::RwLockReadGuard<'_, Points> {
        self.points.read().expect("no panic while writing")
    }

    pub fn epoch(&self) -> u64 {
        self.writer().epoch
    }

    /// Bytes on disk.
    pub fn file_bytes(&self) -> u64 {
        self.writer().log.len()
    }

    /// A new map has changed the shard's holders.
    pub fn set_epoch(&self, epoch: u64) {
        let mut writer = self.writer();
        if epoch > writer.epoch {
            (writer.epoch, writer.seq) = (epoch, 0);
            self.points.write().expect("no panic while writing").forget_deletions_before(epoch);
        }
    }

    /// A new map has taken the shard from this node: nothing is written any more, and the file goes.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn leave(&self) -> std::io::Result<()> {
        self.writer().gone = true;
        fs::remove_file(&self.path)?;
        sync_parent(&self.path)
    }

    /// As primary: gives the changes their versions and makes them durable here. Returns what replicas must have.
    ///
    /// # Errors
    /// When the epoch is not the shard's, or the log does not take it.
    pub fn write(&self, epoch: u64, changes: &[(u64, Change)]) -> Result<Vec<Op>, WriteError> {
        let mut writer = self.writer_at(epoch)?;
        let seq = writer.seq;
        let stamp = |(n, (id, change)): (u64, &(u64, Change))| Op {
            id: *id,
            version: Version { epoch, seq: seq + n },
            change: change.clone(),
        };
        let ops: Vec<Op> = (1..).zip(changes).map(stamp).collect();
        self.apply(&mut writer, ops.clone())?;
        writer.seq += ops.len() as u64;
        Ok(ops)
    }

    /// As replica: takes what the primary wrote. What is older than the present state is passed over, so a request
    /// that comes twice or late does no harm.
    ///
    /// # Errors
    /// When the epoch is not the shard's, or the log does not take it.
    pub fn receive(&self, epoch: u64, ops: Vec<Op>) -> Result<(), WriteError> {
        let mut writer = self.writer_at(epoch)?;
        let newer = {
            let points = self.read();
            ops.into_iter().filter(|op| points.version(op.id) < Some(op.version)).collect()
        };
        self.apply(&mut writer, newer)
    }

    /// As replica: becomes like the primary for the ids `from..=to`, of which `ops` is all that the primary has.
    /// The primary is right about everything but what it wrote in this epoch after it had read these.
    ///
    /// # Errors
    /// When the epoch is not the shard's, or the log does not take it.
    pub fn copy(&self, epoch: u64, from: u64, to: u64, ops: Vec<Op>) -> Result<(), WriteError> {
        let mut writer = self.writer_at(epoch)?;
        let changed = {
            let points = self.read();
            let of_this_epoch = |id| points.version(id).filter(|held| held.epoch == epoch);
            let sent: BTreeMap<u64, Op> = ops.into_iter().map(|op| (op.id, op)).collect();
            let surplus = points.ids(from, to).filter(|id| !sent.contains_key(id) && of_this_epoch(*id).is_none());
            let version = Version { epoch, seq: 0 };
            let mut changed: Vec<Op> = surplus.map(|id| Op { id, version, change: Change::Delete }).collect();
            let wanted = |op: &Op| of_this_epoch(op.id).is_none_or(|held| held < op.version);
            changed.extend(
                sent.into_values()
                    .filter(wanted)
                    .filter(|op| points.get(op.id).map(|p| p.to_op()).as_ref() != Some(op)),
            );
            changed
        };
        self.apply(&mut writer, changed)
    }

    fn writer_at(&self, epoch: u64) -> Result<std::sync::MutexGuard<'_, Writer>, WriteError> {
        let writer = self.writer();
        match () {
            () if writer.gone => Err(WriteError::Gone),
            () if writer.epoch != epoch => Err(WriteError::Epoch { offered: epoch, held: writer.epoch }),
            () => Ok(writer),
        }
    }

    /// On disk first, then in memory, where readers see it.
    fn apply(&self, writer: &mut Writer, ops: Vec<Op>) -> Result<(), WriteError> {
        if let Some(got) = ops.iter().filter_map(size_of).find(|got| *got != self.size) {
            return Err(WriteError::Size { wanted: self.size, got });
        }
        if ops.is_empty() {
            return Ok(());
        }
        writer.log.append(&ops)?;
        let mut points = self.points.write().expect("no panic while writing");
        ops.into_iter().for_each(|op| points.put(op));
        drop(points);
        self.compact(writer);
        Ok(())
    }

    /// Rewrites the log when more than half of it is overwritten or deleted.
    fn compact(&self, writer: &mut Writer) {
        let points = self.read();
        if writer.log.len() < COMPACT_FROM.max(2 * points.encoded() as u64) {
            return;
        }
        let mut all = points.all().peekable();
        let batches = std::iter::from_fn(|| all.peek().is_some().then(|| all.by_ref().take(COMPACT_BATCH).collect()));
        if let Err(error) = writer.log.rewrite(batches) {
            // The old log is still whole; the next write tries again.
            tracing::warn!(shard = ?self.key, %error, "the log was not compacted");
        }
    }

    pub fn note_in_step(&self, node: &NodeId, epoch: u64) {
        self.in_step().insert(node.clone(), epoch);
    }

    pub fn note_out_of_step(&self, node: &NodeId) {
        self.in_step().remove(node);
    }

    /// Whether the replica was seen to hold the same in this epoch, and has taken every write since.
    pub fn is_in_step(&self, node: &NodeId, epoch: u64) -> bool {
        self.in_step().get(node) == Some(&epoch)
    }

    fn in_step(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, u64>> {
        self.in_step.lock().expect("no panic while noting")
    }
}

fn size_of(op: &Op) -> Option<usize> {
    match &op.change {
        Change::Upsert { vector, .. } => Some(vector.len()),
        Change::Delete => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ShardKey = ShardKey { collection: 1, shard: 0 };

    fn shard(dir: &tempfile::TempDir, name: &str, epoch: u64) -> Shard {
        Shard::open(dir.path().join(name), KEY, 1, epoch).unwrap()
    }

    fn up(id: u64, x: f32) -> (u64, Change) {
        (id, Change::Upsert { vector: vec![x], payload: None })
    }

    fn content(shard: &Shard) -> Vec<(u64, f32)> {
        shard.read().from(0).map(|p| (p.id, p.vector[0])).collect()
    }

    #[test]
    fn late_and_repeated_writes_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let (primary, replica) = (shard(&dir, "p", 3), shard(&dir, "r", 3));
        let first = primary.write(3, &[up(1, 0.1), up(2, 0.2)]).unwrap();
        let second = primary.write(3, &[up(1, 0.5), (2, Change::Delete)]).unwrap();
        for ops in [&first, &second, &first, &second, &first] {
            replica.receive(3, ops.clone()).unwrap();
        }
        assert_eq!(content(&replica), [(1, 0.5)]);
        assert_eq!(replica.read().digest(), primary.read().digest());
    }

    #[test]
    fn another_epoch_is_refused_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let replica = shard(&dir, "r", 3);
        for offered in [2, 4] {
            assert!(matches!(replica.receive(offered, vec![]), Err(WriteError::Epoch { held: 3, .. })), "{offered}");
        }
        replica.set_epoch(4);
        assert!(replica.write(3, &[up(1, 0.1)]).is_err(), "a deposed primary wrote");
        assert!(replica.write(4, &[up(1, 0.1)]).is_ok());
    }

    #[test]
    fn a_copy_makes_the_replica_like_the_primary_but_keeps_newer_writes() {
        let dir = tempfile::tempdir().unwrap();
        let (primary, replica) = (shard(&dir, "p", 1), shard(&dir, "r", 1));
        primary.write(1, &[up(1, 0.1), up(2, 0.2), up(3, 0.3)]).unwrap();
        // Never acknowledged, left by an earlier primary: a point too many, and another value.
        replica.write(1, &[up(7, 0.7), up(9, 9.9), up(2, 8.8)]).unwrap();
        primary.set_epoch(2);
        replica.set_epoch(2);
        let read: Vec<Op> = primary.read().from(0).map(|p| p.to_op()).collect();
        // Written after the copy was read and before it arrives.
        let ops = primary.write(2, &[(1, Change::Delete), up(3, 3.3), up(5, 5.5)]).unwrap();
        replica.receive(2, ops).unwrap();
        for _ in 0..2 {
            replica.copy(2, 0, u64::MAX, read.clone()).unwrap();
            assert_eq!(content(&replica), [(2, 0.2), (3, 3.3), (5, 5.5)]);
        }
        assert_eq!(replica.read().digest(), primary.read().digest());
    }

    #[test]
    fn a_log_is_compacted_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let one = Shard::open(path.clone(), KEY, 256, 1).unwrap();
        for round in 0..40 {
            let vector = |id: u64| vec![(id + round) as f32; 256];
            let changes: Vec<_> =
                (0..100).map(|id| (id, Change::Upsert { vector: vector(id), payload: None })).collect();
            one.write(1, &changes).unwrap();
        }
        one.write(1, &[(5, Change::Delete)]).unwrap();
        assert!(one.file_bytes() < 2 * COMPACT_FROM, "{} bytes for 100 points", one.file_bytes());
        let digest = one.read().digest();
        drop(one);
        let again = Shard::open(path, KEY, 256, 1).unwrap();
        assert_eq!((again.read().digest(), again.read().len()), (digest, 99));
        let ops = again.write(1, &[(1, Change::Delete)]).unwrap();
        assert_eq!(ops[0].version.seq, 4002, "a version was given twice");
    }
}
