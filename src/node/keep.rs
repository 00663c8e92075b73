//! The primary's duty: every other replica that the map lists holds the same. This one loop fills the target of a
//! move, a replica that was away, and one that may have missed a write that failed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::log::{Op, encode};
use super::map::ShardKey;
use super::peers::PeerError;
use super::shard::Shard;
use super::state::{Failure, Node};
use crate::model::NodeId;

/// How often replicas that are out of step are tried, and without a nudge.
const ROUND: Duration = Duration::from_millis(500);
/// One request of a copy.
const BATCH_POINTS: usize = 500;
const BATCH_BYTES: usize = 1 << 20;
const BATCH_LIMIT: Duration = Duration::from_secs(10);
/// Comparing holds writes up, so it may not take long.
const COMPARE_LIMIT: Duration = Duration::from_secs(2);
/// Copies in a row that may end in a difference, because a write failed meanwhile.
const TRIES: usize = 3;

/// What a replica holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub digest: String,
    pub vectors: u64,
}

impl Node {
    /// Keeps replicas in step, for ever.
    pub async fn keep(self: Arc<Self>) {
        loop {
            let _ = timeout(ROUND, self.nudge.notified()).await;
            let Some(map) = self.map().filter(|_| self.is_loaded()) else { continue };
            let mut silent = BTreeSet::new();
            for (_, key, _, assignment) in map.shards().filter(|(_, _, _, a)| a.primary() == Some(&self.id)) {
                let Ok(shard) = self.shard(key) else { continue };
                for other in assignment.written().filter(|n| **n != self.id) {
                    if shard.is_in_step(other, assignment.epoch) || silent.contains(other) {
                        continue;
                    }
                    let address = map.members.get(other).map_or("", |m| m.address.as_str());
                    match self.bring_in_step(&shard, assignment.epoch, other, address).await {
                        Ok(()) => {}
                        Err(PeerError::Refused { status: StatusCode::CONFLICT, epoch, .. }) => {
                            self.reconcile(address, epoch).await;
                            self.nudge.notify_one();
                        }
                        Err(error) => {
                            tracing::debug!(shard = ?key, %other, %error, "a replica could not be brought in step");
                            silent.insert(other);
                        }
                    }
                }
            }
        }
    }

    /// Compares, copies if they differ, and compares again.
    async fn bring_in_step(&self, shard: &Shard, epoch: u64, other: &NodeId, address: &str) -> Result<(), PeerError> {
        for _ in 0..TRIES {
            if self.compare(shard, epoch, other, address).await? {
                return Ok(());
            }
            self.copy(shard, epoch, address).await?;
        }
        self.compare(shard, epoch, other, address).await.map(drop)
    }

    /// Whether both hold the same, looked at while no write is under way. If so, that is noted before the next write.
    async fn compare(&self, shard: &Shard, epoch: u64, other: &NodeId, address: &str) -> Result<bool, PeerError> {
        let _gate = shard.gate.lock().await;
        let path = path(shard.key, "sum", epoch);
        let theirs: Sum = self.peers.get(address, &path, COMPARE_LIMIT).await?;
        let same = theirs == Sum::of(shard);
        if same && shard.epoch() == epoch {
            shard.note_in_step(other, epoch);
        }
        Ok(same)
    }

    /// Sends everything, in order of id, batch after batch, as the share of CPU allows. Writes go on meanwhile.
    async fn copy(&self, shard: &Shard, epoch: u64, address: &str) -> Result<(), PeerError> {
        let mut next = Some(0);
        while let Some(from) = next {
            if self.pace.turn().await.is_err() {
                tokio::time::sleep(ROUND).await;
                continue;
            }
            let (ops, to) = self.pace.work(|| read_batch(shard, from));
            let path = format!("{}&from={from}&to={to}", path(shard.key, "copy", epoch));
            self.peers.send(Method::POST, address, &path, encode(&ops), BATCH_LIMIT).await?;
            next = to.checked_add(1);
        }
        Ok(())
    }

    /// What this node holds of a shard, for the primary of `epoch`.
    ///
    /// # Errors
    /// 409 at another epoch.
    pub fn sum(&self, key: ShardKey, epoch: u64) -> Result<Sum, Failure> {
        let shard = self.shard(key)?;
        if shard.epoch() != epoch {
            return Err(self.stale("the shard is at another epoch here"));
        }
        Ok(Sum::of(&shard))
    }
}

impl Sum {
    fn of(shard: &Shard) -> Sum {
        let points = shard.read();
        Sum { digest: format!("{:032x}", points.digest()), vectors: points.len() as u64 }
    }
}

/// The points from `from` on that fit a batch, and the last id that the batch speaks for.
fn read_batch(shard: &Shard, from: u64) -> (Vec<Op>, u64) {
    let points = shard.read();
    let mut ops = Vec::new();
    let mut bytes = 0;
    for point in points.from(from) {
        if ops.len() == BATCH_POINTS || bytes > BATCH_BYTES {
            return (ops, point.id - 1);
        }
        let op = point.to_op();
        bytes += op.encoded_len();
        ops.push(op);
    }
    (ops, u64::MAX)
}

fn path(key: ShardKey, verb: &str, epoch: u64) -> String {
    format!("/internal/{}/{}/{verb}?epoch={epoch}", key.collection, key.shard)
}
