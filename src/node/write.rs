//! Writes: any node takes them, the shard's primary orders them, and they are acknowledged when every replica that
//! the map wants written has them on disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::log::{Change, Op, Version, decode, encode};
use super::map::{Assignment, ClusterMap, ShardKey};
use super::peers::PeerError;
use super::shard::{Shard, WriteError};
use super::state::{Failure, Node};
use super::wishes::{Held, Wish};
use crate::model::NodeId;

/// How long the primary tries; the coordinator waits a little longer, so that it hears the outcome.
const PRIMARY_LIMIT: Duration = Duration::from_secs(6);
const COORDINATOR_LIMIT: Duration = Duration::from_secs(8);
const FORWARD_LIMIT: Duration = Duration::from_secs(3);
/// Between two tries at a replica that does not answer.
const AGAIN: Duration = Duration::from_millis(250);

/// How forwarding ended without every replica having the write.
enum NotForwarded {
    /// The shard's assignment has changed: the write gets a new version and starts over.
    Changed,
    Failed(Failure),
}

impl Node {
    /// Writes points of one collection; done when every replica has them.
    ///
    /// # Errors
    /// 404, 400, 507, or 503: then nobody knows which of them were written, and the same write may be sent again.
    pub async fn write(self: &Arc<Self>, name: &str, changes: Vec<(u64, Change)>) -> Result<(), Failure> {
        let (_, collection) = self.collection(name).await?;
        let mut by_shard: BTreeMap<ShardKey, Vec<(u64, Change)>> = BTreeMap::new();
        for (id, change) in changes {
            by_shard.entry(collection.shard_of(id)).or_default().push((id, change));
        }
        try_join_all(by_shard.into_iter().map(|(key, changes)| self.write_shard(name, key, changes))).await?;
        Ok(())
    }

    /// Brings changes to the shard's primary, wherever that is by now.
    async fn write_shard(
        self: &Arc<Self>,
        name: &str,
        key: ShardKey,
        changes: Vec<(u64, Change)>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + COORDINATOR_LIMIT;
        let unstamped =
            |(id, change): &(u64, Change)| Op { id: *id, version: Version::default(), change: change.clone() };
        let body = bytes::Bytes::from(encode(&changes.iter().map(unstamped).collect::<Vec<_>>()));
        let mut wishes = BTreeMap::new();
        loop {
            let map = self.known_map()?;
            let assignment = map.assignment(key).ok_or_else(|| {
                Failure::new(StatusCode::NOT_FOUND, format!("Not found: Collection `{name}` doesn't exist!"))
            })?;
            let Some(primary) = assignment.primary() else {
                return Err(Failure::unavailable(format!("shard {name}/{} has no active replica", key.shard)));
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::unavailable(format!("shard {name}/{} could not be written in time", key.shard)));
            }
            if *primary == self.id {
                match self.write_here(key, assignment.epoch, changes.clone()).await {
                    Err(stale) if stale.status == StatusCode::CONFLICT => sleep(Duration::from_millis(10)).await,
                    outcome => return outcome,
                }
                continue;
            }
            let address = map.members.get(primary).map_or("", |m| m.address.as_str());
            let path = format!("/internal/{}/{}/write?epoch={}", key.collection, key.shard, assignment.epoch);
            match self.peers.send(Method::POST, address, &path, body.clone(), left).await {
                Ok(_) => return Ok(()),
                Err(PeerError::Refused { status: StatusCode::CONFLICT, epoch, .. }) => {
                    self.reconcile(address, epoch).await;
                }
                // Certainly not written: another primary may be asked, once the map names one.
                Err(PeerError::Unreachable { .. }) if assignment.active().count() > 1 => {
                    self.wish_out(&mut wishes, primary);
                    self.next_map(map.epoch).await;
                }
                Err(PeerError::Broken { detail, .. }) => {
                    // Perhaps written. Sent again by us, it could come after a later write of the same client.
                    let text = format!("node {primary} broke off; nobody knows whether the write happened: {detail}");
                    return Err(Failure::unavailable(text));
                }
                Err(refused) => return Err(refused.into()),
            }
        }
    }

    /// As primary: writes here and at every other replica, one write of a shard after the other.
    ///
    /// # Errors
    /// 409 when this node is not the primary of that epoch, 503 when a replica does not answer and is not taken out.
    pub async fn write_here(
        self: &Arc<Self>,
        key: ShardKey,
        asked: u64,
        changes: Vec<(u64, Change)>,
    ) -> Result<(), Failure> {
        let node = self.clone();
        // A task of its own: a client that hangs up must not leave a write half-way.
        let task = tokio::spawn(async move { node.write_as_primary(key, asked, changes).await });
        match task.await {
            Ok(outcome) => outcome,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => Err(Failure::unavailable("the node is stopping; nobody knows whether the write happened")),
        }
    }

    async fn write_as_primary(
        self: Arc<Self>,
        key: ShardKey,
        asked: u64,
        changes: Vec<(u64, Change)>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + PRIMARY_LIMIT;
        let shard = self.shard(key)?;
        let busy = |_| Failure::unavailable("the shard is busy with earlier writes; try again");
        timeout_at(deadline, self.pace.turn()).await.map_err(busy)??;
        let _gate = timeout_at(deadline, shard.gate.lock()).await.map_err(busy)?;
        let changes = Arc::new(changes);
        loop {
            let map = self.known_map()?;
            let assignment = map.assignment(key).ok_or_else(|| self.stale("no such shard"))?;
            if assignment.primary() != Some(&self.id) || asked > assignment.epoch {
                return Err(self.stale("this node is not the shard's primary"));
            }
            let ops = match self.write_own(&shard, assignment.epoch, changes.clone()).await {
                Err(stale) if stale.status == StatusCode::CONFLICT => {
                    // The next map is just coming into force.
                    self.next_map(map.epoch).await;
                    continue;
                }
                ops => ops?,
            };
            // Should this end half-way, the replicas may differ: they count as out of step until they were compared.
            let others: Vec<NodeId> = assignment.written().filter(|n| **n != self.id).cloned().collect();
            let in_step: Vec<NodeId> =
                others.iter().filter(|n| shard.is_in_step(n, assignment.epoch)).cloned().collect();
            others.iter().for_each(|n| shard.note_out_of_step(n));
            match self.forward(key, &map, assignment, others, encode(&ops), deadline).await {
                Ok(()) => {
                    in_step.iter().for_each(|n| shard.note_in_step(n, assignment.epoch));
                    return Ok(());
                }
                Err(NotForwarded::Changed) => {}
                Err(NotForwarded::Failed(failure)) => {
                    self.nudge.notify_one();
                    return Err(failure);
                }
            }
        }
    }

    async fn write_own(
        self: &Arc<Self>,
        shard: &Arc<Shard>,
        epoch: u64,
        changes: Arc<Vec<(u64, Change)>>,
    ) -> Result<Vec<Op>, Failure> {
        let shard = shard.clone();
        self.blocking(move |node| {
            let points = shard.read();
            let memory = changes.iter().map(|(id, change)| points.growth(*id, change)).sum();
            drop(points);
            node.room_for(memory, memory)?;
            shard.write(epoch, &changes).map_err(|e| node.refused(e))
        })
        .await
    }

    /// Sends a write to the other replicas until all have it or the map wants it otherwise.
    async fn forward(
        self: &Arc<Self>,
        key: ShardKey,
        map: &ClusterMap,
        assignment: &Assignment,
        mut left: Vec<NodeId>,
        body: Vec<u8>,
        deadline: Instant,
    ) -> Result<(), NotForwarded> {
        let body = bytes::Bytes::from(body);
        let path = format!("/internal/{}/{}/forward?epoch={}", key.collection, key.shard, assignment.epoch);
        let mut wishes = BTreeMap::new();
        loop {
            let sent = left.iter().map(|node| {
                let address = map.members.get(node).map_or("", |m| m.address.as_str());
                let limit = FORWARD_LIMIT.min(deadline.saturating_duration_since(Instant::now()));
                let sent = self.peers.send(Method::POST, address, &path, body.clone(), limit);
                async move { (node.clone(), address, sent.await) }
            });
            let mut why = None;
            for (node, address, outcome) in join_all(sent).await {
                match outcome {
                    Ok(_) => left.retain(|n| *n != node),
                    Err(PeerError::Refused { status: StatusCode::CONFLICT, epoch, .. }) => {
                        self.reconcile(address, epoch).await;
                    }
                    Err(full @ PeerError::Refused { status: StatusCode::INSUFFICIENT_STORAGE, .. }) => {
                        return Err(NotForwarded::Failed(full.into()));
                    }
                    Err(error) => {
                        self.wish_out(&mut wishes, &node);
                        why = Some(format!("replica {node}: {error}"));
                    }
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            if self.map().and_then(|m| m.assignment(key).map(|a| a.epoch)) != Some(assignment.epoch) {
                return Err(NotForwarded::Changed);
            }
            if Instant::now() >= deadline {
                let why = why.unwrap_or_else(|| format!("replicas {left:?} do not take the map in force"));
                return Err(NotForwarded::Failed(Failure::unavailable(format!(
                    "not written everywhere, and no controller has taken the silent replica out: {why}"
                ))));
            }
            if why.is_some() {
                self.next_map(map.epoch).await;
            }
        }
    }

    /// Asks the driver, as long as the wish is kept, to take a silent node out.
    fn wish_out<'a>(&'a self, wishes: &mut BTreeMap<NodeId, Held<'a>>, node: &NodeId) {
        wishes.entry(node.clone()).or_insert_with(|| self.wishes.wish(Wish::TakeOut { node: node.clone() }));
    }

    /// Waits for a map newer than `epoch`, a moment at most.
    async fn next_map(&self, epoch: u64) {
        let mut maps = self.maps();
        let _ = timeout(AGAIN, maps.wait_for(|m| m.as_ref().is_some_and(|m| m.epoch > epoch))).await;
    }

    /// As replica: takes what the primary of `epoch` wrote.
    ///
    /// # Errors
    /// 409 at another epoch, 507 without room, 400 for anything but a batch.
    pub async fn receive(self: &Arc<Self>, key: ShardKey, epoch: u64, body: &[u8]) -> Result<(), Failure> {
        let ops = batch(body)?;
        self.take_ops(key, ops, move |shard, ops| shard.receive(epoch, ops)).await
    }

    /// As replica: becomes like the primary of `epoch` for the ids `from..=to`.
    ///
    /// # Errors
    /// As [`Node::receive`].
    pub async fn receive_copy(
        self: &Arc<Self>,
        key: ShardKey,
        epoch: u64,
        (from, to): (u64, u64),
        body: &[u8],
    ) -> Result<(), Failure> {
        let ops = batch(body)?;
        self.pace.turn().await?;
        self.take_ops(key, ops, move |shard, ops| shard.copy(epoch, from, to, ops)).await
    }

    async fn take_ops(
        self: &Arc<Self>,
        key: ShardKey,
        ops: Vec<Op>,
        take: impl FnOnce(&Shard, Vec<Op>) -> Result<(), WriteError> + Send + 'static,
    ) -> Result<(), Failure> {
        let shard = self.shard(key)?;
        self.blocking(move |node| {
            let points = shard.read();
            let memory = ops.iter().map(|op| points.growth(op.id, &op.change)).sum();
            drop(points);
            node.room_for(memory, memory)?;
            take(&shard, ops).map_err(|e| node.refused(e))
        })
        .await
    }
}

/// # Errors
/// 400 when the body is not a batch of operations.
pub fn batch(body: &[u8]) -> Result<Vec<Op>, Failure> {
    decode(body).ok_or_else(|| Failure::new(StatusCode::BAD_REQUEST, "the body is not a batch of operations"))
}
