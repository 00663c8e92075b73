//! What the map's writer does without being asked by an operation: grants nodes' wishes, finishes copies, brings
//! nodes up to date, takes back replicas that were away. Level-triggered: it looks and does what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::writer::{NotChanged, Writer};
use crate::model::{NodeId, ReplicaState};
use crate::node::map::{Assignment, ClusterMap, Collection, ShardKey};
use crate::node::peers::PeerError;
use crate::node::state::Holdings;
use crate::node::wishes::{Fetched, Open, Wish};

/// A poll waits so long for a wish, and may take so long in all.
const POLL_WAIT: f64 = 1.0;
const POLL_LIMIT: Duration = Duration::from_secs(3);
/// Before a node is polled again that is silent, or whose wish is still open.
const PAUSE: Duration = Duration::from_millis(200);
/// How often copies that are under way are looked at.
const ROUND: Duration = Duration::from_millis(200);
/// Silent polls in a row after which a copy to the node is given up.
const GIVE_UP: u32 = 4;
/// How often the provider is asked whether nodes have moved.
const LOOK_UP: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Default)]
struct Seen {
    ready: bool,
    epoch: Option<u64>,
    silent: u32,
}

struct Tender {
    writer: Arc<Writer>,
    seen: BTreeMap<NodeId, Seen>,
    looked_up: Instant,
}

/// Tends the cluster, for ever.
pub async fn tend(writer: Arc<Writer>) {
    let mut tender = Tender { writer, seen: BTreeMap::new(), looked_up: Instant::now() };
    let mut polls: JoinSet<(NodeId, Result<Fetched, PeerError>)> = JoinSet::new();
    let mut polled: BTreeMap<NodeId, Duration> = BTreeMap::new();
    loop {
        let map = match tender.writer.map().await {
            Ok(map) => map,
            Err(error) => {
                tracing::debug!(%error, "the cluster cannot be tended now");
                sleep(2 * PAUSE).await;
                continue;
            }
        };
        for id in map.members.keys() {
            // `None`: a poll is under way.
            let pause = polled.entry(id.clone()).or_insert(Duration::ZERO);
            if *pause != Duration::MAX {
                let wait = if tender.seen.contains_key(id) { POLL_WAIT } else { 0.0 };
                let (writer, address, pause, id) = (
                    tender.writer.clone(),
                    tender.writer.address(&map, id),
                    std::mem::replace(pause, Duration::MAX),
                    id.clone(),
                );
                polls.spawn(async move {
                    sleep(pause).await;
                    let path = format!("/cluster/wishes?wait={wait}");
                    (id, writer.peers.get(&address, &path, POLL_LIMIT).await)
                });
            }
        }
        if let Ok(Some(Ok((id, answer)))) = timeout(ROUND, polls.join_next()).await {
            let again_at_once = matches!(&answer, Ok(fetched) if fetched.wishes.is_empty());
            polled.insert(id.clone(), if again_at_once { Duration::ZERO } else { PAUSE });
            tender.heard(&map, id, answer).await;
        }
        if let Err(error) = tender.round().await {
            tracing::debug!(?error, "the cluster cannot be tended now");
        }
    }
}

impl Tender {
    async fn heard(&mut self, map: &Arc<ClusterMap>, id: NodeId, answer: Result<Fetched, PeerError>) {
        let Ok(fetched) = answer else {
            let seen = self.seen.entry(id).or_default();
            *seen = Seen { silent: seen.silent + 1, ..Seen::default() };
            return;
        };
        if fetched.epoch.is_none_or(|epoch| epoch < map.epoch) {
            self.writer.send_map(self.writer.address(map, &id), map).await;
        }
        self.seen.insert(id.clone(), Seen { ready: fetched.ready, epoch: fetched.epoch, silent: 0 });
        for Open { id: wish_id, wish } in fetched.wishes {
            match self.grant(map, wish).await {
                Ok(()) => {}
                Err(NotChanged::Refused(error)) => {
                    let (address, body) = (self.writer.address(map, &id), json!({"id": wish_id, "error": error}));
                    let refuse = (Method::POST, "/cluster/wishes/refuse");
                    let told = self.writer.peers.ask::<()>(refuse.0, &address, refuse.1, Some(&body), POLL_LIMIT);
                    drop(told.await); // who wished waits with a deadline
                }
                Err(NotChanged::Unknown(error)) => tracing::debug!(error, "a wish waits"),
            }
        }
    }

    async fn grant(&self, map: &ClusterMap, wish: Wish) -> Result<(), NotChanged> {
        match wish {
            Wish::Create { collection, params } => {
                // Whom to place on is decided when every member was looked at, or the first ones would get it all.
                if map.members.keys().any(|id| !self.seen.contains_key(id)) {
                    return Ok(());
                }
                let silent = |id: &NodeId| self.seen.get(id).is_none_or(|s| !s.ready || s.epoch.is_none());
                self.writer
                    .change(|map| {
                        if let Some(held) = map.collections.get(&collection) {
                            // Made for another wish with the same words, or in the way.
                            let exists = format!("Collection `{collection}` already exists!");
                            return if held.params == params { Ok(false) } else { Err(exists) };
                        }
                        // A node that does not serve gets nothing new, as if it were cordoned.
                        let mut open = map.clone();
                        open.members.iter_mut().for_each(|(id, m)| m.cordoned |= silent(id));
                        let shards = open.place(&params, map.epoch);
                        if shards.iter().any(|a| a.replicas.is_empty()) {
                            return Err("no member may take new shards now".into());
                        }
                        map.collections.insert(collection, Collection { id: map.epoch, params, shards });
                        Ok(true)
                    })
                    .await
            }
            Wish::Delete { collection } => {
                self.writer.change(|map| Ok(map.collections.remove(&collection).is_some())).await
            }
            Wish::TakeOut { node } => {
                let listed = map.shards().any(|(_, _, _, a)| a.written().any(|n| *n == node));
                if !listed || self.writer.is_alive(&self.writer.address(map, &node)).await {
                    return Ok(());
                }
                tracing::warn!(%node, "the node does not answer and holds writes up: its replicas are taken out");
                let take_out = |map: &mut ClusterMap| {
                    let shards = map.collections.values_mut().flat_map(|c| &mut c.shards);
                    Ok(shards.fold(false, |changed, shard| shard.take_out(&node) | changed))
                };
                self.writer.change(take_out).await
            }
        }
        .map(drop)
    }

    async fn round(&mut self) -> Result<(), NotChanged> {
        let map = self.writer.map().await.map_err(|e| NotChanged::Unknown(e.0))?;
        if self.looked_up.elapsed() > LOOK_UP {
            self.looked_up = Instant::now();
            self.follow_addresses().await?;
        }
        finish_copies(&self.writer).await?;
        // Whoever waits for a copy to a silent node waits for nothing: a move, a replication or a refill alike.
        let lost: Vec<&NodeId> =
            self.seen.iter().filter(|(_, seen)| seen.silent >= GIVE_UP).map(|(node, _)| node).collect();
        let is_filling = |a: &Assignment, node: &NodeId| a.state_of(node) == Some(ReplicaState::Partial);
        if map.shards().any(|(_, _, _, a)| lost.iter().any(|node| is_filling(a, node))) {
            let give_up = |map: &mut ClusterMap| {
                let mut changed = false;
                for shard in map.collections.values_mut().flat_map(|c| &mut c.shards) {
                    for node in &lost {
                        changed |= is_filling(shard, node) && shard.take_out(node);
                    }
                }
                Ok(changed)
            };
            self.writer.change(give_up).await?;
        }
        self.take_back(&map).await
    }

    /// A replica that was taken out is filled again once its node serves.
    async fn take_back(&self, map: &ClusterMap) -> Result<(), NotChanged> {
        let back = |node: &NodeId, map: &ClusterMap| {
            let here = self.seen.get(node).is_some_and(|s| s.ready && s.epoch == Some(map.epoch));
            here && map.members.get(node).is_some_and(|m| !m.cordoned)
        };
        let returned: Vec<(ShardKey, NodeId)> = map
            .shards()
            .flat_map(|(_, key, _, a)| a.replicas.iter().map(move |h| (key, h)))
            .filter(|(_, h)| h.state == ReplicaState::Dead && back(&h.node, map))
            .map(|(key, h)| (key, h.node.clone()))
            .collect();
        if returned.is_empty() {
            return Ok(());
        }
        let take_back = |next: &mut ClusterMap| {
            let mut changed = false;
            for (key, node) in &returned {
                if let Some(shard) = shard_mut(next, *key)
                    && shard.state_of(node) == Some(ReplicaState::Dead)
                {
                    shard.set(node, ReplicaState::Partial);
                    changed = true;
                }
            }
            Ok(changed)
        };
        self.writer.change(take_back).await.map(drop)
    }

    /// A node that was started again may listen elsewhere.
    async fn follow_addresses(&self) -> Result<(), NotChanged> {
        let machines = self.writer.look_up().await.map_err(|e| NotChanged::Unknown(e.0))?;
        let follow = |map: &mut ClusterMap| {
            let mut changed = false;
            for machine in machines.iter().filter(|m| m.ready != Some(false) && !m.address.is_empty()) {
                if let Some(member) = map.members.get_mut(&machine.id).filter(|m| m.address != machine.address) {
                    member.address = machine.address.clone();
                    changed = true;
                }
            }
            Ok(changed)
        };
        self.writer.change(follow).await.map(drop)
    }
}

/// Counts as active what its primary says is in step, and drops the copy that moved.
///
/// # Errors
/// When the map cannot be changed now.
pub async fn finish_copies(writer: &Writer) -> Result<(), NotChanged> {
    let map = writer.map().await.map_err(|e| NotChanged::Unknown(e.0))?;
    let mut by_primary: BTreeMap<&NodeId, Vec<(ShardKey, u64, &NodeId)>> = BTreeMap::new();
    for (_, key, _, assignment) in map.shards() {
        let partial = assignment.replicas.iter().filter(|h| h.state == ReplicaState::Partial);
        let Some(primary) = assignment.primary() else { continue };
        by_primary.entry(primary).or_default().extend(partial.map(|h| (key, assignment.epoch, &h.node)));
    }
    let mut complete = Vec::new();
    for (primary, copies) in by_primary.into_iter().filter(|(_, copies)| !copies.is_empty()) {
        let address = writer.address(&map, primary);
        let Ok(holdings) = writer.peers.get::<Holdings>(&address, "/cluster/shards", POLL_LIMIT).await else {
            continue;
        };
        let in_step = |key: ShardKey, epoch: u64, node: &NodeId| {
            holdings.shards.iter().any(|h| h.key == key && h.epoch == epoch && h.in_step.contains(node))
        };
        complete.extend(copies.into_iter().filter(|(key, epoch, node)| in_step(*key, *epoch, node)));
    }
    if complete.is_empty() {
        return Ok(());
    }
    let finish = |next: &mut ClusterMap| {
        let mut changed = false;
        for (key, epoch, node) in &complete {
            // What was in step at another epoch says nothing about this one.
            if let Some(shard) = shard_mut(next, *key).filter(|a| a.epoch == *epoch) {
                shard.set(node, ReplicaState::Active);
                if let Some(moving) = shard.moving.take_if(|m| m.to == **node) {
                    shard.drop_holder(&moving.from);
                }
                changed = true;
            }
        }
        Ok(changed)
    };
    writer.change(finish).await.map(drop)
}

/// The assignment of a shard in a map that is being changed.
pub fn shard_mut(map: &mut ClusterMap, key: ShardKey) -> Option<&mut Assignment> {
    map.collections.values_mut().find(|c| c.id == key.collection)?.shards.get_mut(key.shard as usize)
}
