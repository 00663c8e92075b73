//! Reads the cluster: who is there, then where the shards are. IO.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

use super::placement::{Placed, add_sizes, done_bytes, gathered, seen_by_one, wanted};
use super::survey::{Asked, Survey, learn, nameless, settle};
use super::told::{LocalView, PeerId, Size, minor};
use super::words::NotTold;
use super::{CORDONED, NAMES, Qdrant};
use crate::model::{Inventory, Member, NodeId, Replica, ReplicaState, ShardId, Transfer};
use crate::operate::drivers::Unanswered;

/// Qdrant never ends a transfer whose source is dead. So long a source must be silent, before its transfers are no
/// longer told of and may be aborted: a restart takes seconds.
const DEAD_AFTER: Duration = Duration::from_secs(60);
/// So long changes must wait, and nothing be agreed on, before the members are said not to agree: a busy moment is less.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// What is remembered between looks, for as long as the driver lives.
#[derive(Default)]
pub struct Memory {
    /// Who was who.
    pub names: BTreeMap<PeerId, NodeId>,
    /// What the cluster's own store has of that; `None` until it was read.
    pub stored: Option<BTreeMap<PeerId, NodeId>>,
    /// The last size told of each copy, for when its node is silent.
    sizes: BTreeMap<(ShardId, PeerId), Size>,
    /// Members with changes that wait to be agreed on: the place in the log, and since when it is that.
    pending: BTreeMap<PeerId, (u64, Instant)>,
    /// The most copies that each shard of a keyed collection was seen with at rest.
    pub copies: BTreeMap<ShardId, u32>,
    /// Since when each member has said nothing.
    silent_since: BTreeMap<PeerId, Instant>,
    /// Copies that this driver started where there was none, and whose source is still there: how many active copies
    /// lay on living members before.
    pub started: BTreeMap<(ShardId, PeerId, PeerId), usize>,
}

/// The shards, before names are put to them.
pub struct Shards {
    pub placed: BTreeMap<String, Placed>,
    pub wanted: BTreeMap<String, u32>,
    /// Members that the one who was asked could not reach.
    unreached: BTreeSet<PeerId>,
}

impl Shards {
    /// # Errors
    /// When placement and parameters do not tell of the same collections: one is being made or deleted just now.
    fn whole(
        placed: BTreeMap<String, Placed>,
        wanted: BTreeMap<String, u32>,
        unreached: BTreeSet<PeerId>,
    ) -> Result<Shards, Unanswered> {
        match placed
            .keys()
            .find(|name| !wanted.contains_key(*name))
            .or(wanted.keys().find(|n| !placed.contains_key(*n)))
        {
            Some(name) => Err(Unanswered(format!("collection {name} is told of by one of two reads only"))),
            None => Ok(Shards { placed, wanted, unreached }),
        }
    }
}

impl Qdrant {
    /// Asks every machine who it is.
    ///
    /// # Errors
    /// When the provider's list is unknown, or no cluster can be made out.
    pub(super) async fn survey(&self) -> Result<Survey, Unanswered> {
        let machines = self.provider.list().await?;
        if machines.is_empty() {
            let what = "no node is known: Qdrant itself does not tell where its REST addresses are";
            return Err(Unanswered(format!(
                "{what}; list the nodes under `nodes.static`, or let the provider list them"
            )));
        }
        let asked = join_all(machines.into_iter().map(|machine| async move {
            let address = machine.address.trim_end_matches('/').to_string();
            let (own, version) = tokio::join!(self.ask.own_view(&address), self.ask.version(&address));
            Asked { machine, own, version: version.ok() }
        }))
        .await;
        let known = self.memory().names.clone();
        let mut survey = settle(&asked, &known).map_err(Unanswered)?;
        let is_nameless = survey.peers.values().any(|peer| peer.is_nameless);
        if is_nameless && self.memory().stored.is_none() {
            self.recall(&survey).await;
            let known = self.memory().names.clone();
            survey = settle(&asked, &known).map_err(Unanswered)?;
        }
        let mut memory = self.memory();
        learn(&mut memory.names, survey.names());
        let now = Instant::now();
        survey.long_silent = memory.long_silent(&survey, now);
        let stuck = memory.stuck(&survey, now);
        survey.no_quorum = survey.no_quorum.or(stuck);
        Ok(survey)
    }

    /// Takes the names from the cluster's own store, where an earlier start put them.
    async fn recall(&self, survey: &Survey) {
        let Some((_, address)) = survey.spokesman(None) else { return };
        let Ok(value) = self.ask.key(address, NAMES).await else { return }; // asked again at the next look
        let stored: BTreeMap<PeerId, NodeId> =
            value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
        let mut memory = self.memory();
        for (peer, node) in &stored {
            memory.names.entry(*peer).or_insert_with(|| node.clone());
        }
        memory.stored = Some(stored);
    }

    /// All shards, as the cluster tells them.
    ///
    /// # Errors
    /// When the one who is asked does not tell all.
    pub(super) async fn shards(&self, survey: &Survey) -> Result<Shards, Unanswered> {
        let (id, address) = survey.spokesman(None).ok_or_else(|| Unanswered("no member answers".into()))?;
        let node = &survey.peers[&id].node;
        let of = |error: NotTold| Unanswered(format!("{node}: {error}"));
        if gathers(survey) && !survey.may_hang {
            let (told, own) = tokio::join!(self.ask.cluster_telemetry(address), self.ask.telemetry(address, 2));
            let (placed, unreached) = gathered(told.map_err(of)?);
            return Shards::whole(placed, wanted(&own.map_err(of)?), unreached);
        }
        let mut shards = self.shards_via(node, address).await?;
        let sized = survey.living().map(|(id, peer)| async move { (id, self.ask.telemetry(&peer.address, 3).await) });
        for (id, told) in join_all(sized).await {
            // A node that is too busy for it: the sizes of before will do.
            let Ok(told) = told else { continue };
            add_sizes(&mut shards.placed, id, &told);
        }
        Ok(shards)
    }

    /// Members that the spokesman cannot reach; `None` when it cannot tell.
    pub(super) async fn unreached(&self, survey: &Survey) -> Option<BTreeSet<PeerId>> {
        let (_, address) = survey.spokesman(None).filter(|_| gathers(survey))?;
        let told = self.ask.cluster_telemetry(address).await.ok()?;
        Some(gathered(told).1)
    }

    /// All shards as one node sees them, asked of no one else.
    ///
    /// # Errors
    /// When it does not tell all.
    pub(super) async fn shards_via(&self, node: &NodeId, address: &str) -> Result<Shards, Unanswered> {
        let of = |error: NotTold| Unanswered(format!("{node}: {error}"));
        let (views, own) = tokio::join!(self.views(address), self.ask.telemetry(address, 2));
        let placed = views.map_err(of)?.into_iter().map(|(name, view)| {
            let placed = seen_by_one(&name, view);
            (name, placed)
        });
        Shards::whole(placed.collect(), wanted(&own.map_err(of)?), BTreeSet::new())
    }

    /// What one node sees of every collection.
    pub(super) async fn views(&self, address: &str) -> Result<Vec<(String, LocalView)>, NotTold> {
        let mut views = Vec::new();
        for name in self.ask.collections(address).await? {
            let view = self.ask.local_view(address, &name).await?;
            views.push((name, view));
        }
        Ok(views)
    }

    /// Peers on which nothing new is to be placed.
    ///
    /// # Errors
    /// When that is not known.
    pub(super) async fn cordoned(&self, survey: &Survey) -> Result<BTreeSet<PeerId>, Unanswered> {
        let (_, address) = survey.spokesman(None).ok_or_else(|| Unanswered("no member answers".into()))?;
        let value = match self.ask.key(address, CORDONED).await {
            Ok(value) => value.unwrap_or(Value::Null),
            // A version without such a store, or a key that may not see it: nobody can have put a cordon there.
            Err(NotTold::Refused { status: 403 | 404, .. }) => Value::Null,
            Err(error) => return Err(Unanswered(format!("cordons: {error}"))),
        };
        let peers = value.get("peers").and_then(Value::as_array).into_iter().flatten();
        Ok(peers.filter_map(Value::as_u64).collect())
    }

    /// Puts survey, shards and cordons together.
    pub(super) fn inventory_of(&self, survey: &Survey, shards: Shards, cordoned: &BTreeSet<PeerId>) -> Inventory {
        let mut memory = self.memory();
        memory.forget_ended(&shards.placed);
        let node = |peer: PeerId| survey.peers.get(&peer).map_or_else(|| nameless(peer), |peer| peer.node.clone());
        let mut seen =
            Inventory { no_quorum: survey.no_quorum.clone(), lists_collections: true, ..Inventory::default() };
        let mut indexing = BTreeSet::new();
        for (name, placed) in &shards.placed {
            let collection: Arc<str> = name.as_str().into();
            let id = |shard: u32| ShardId { collection: collection.clone(), shard };
            seen.foreign.extend(placed.remarks.iter().cloned());
            for ((shard, peer), copy) in &placed.copies {
                let size = memory.size(&id(*shard), *peer, placed);
                indexing.extend(copy.is_indexing.then_some(*peer));
                let (bytes, vectors) = (size.bytes, size.points);
                seen.shards.push(Replica { shard: id(*shard), node: node(*peer), bytes, vectors, state: copy.state });
            }
            // What comes from a dead source never arrives: the target's copy is seen to be partial.
            for transfer in placed.transfers.iter().filter(|transfer| !survey.long_silent.contains(&transfer.from)) {
                let source = memory.sizes.get(&(id(transfer.shard_id), transfer.from)).copied();
                seen.transfers.push(Transfer {
                    shard: id(transfer.shard_id),
                    from: node(transfer.from),
                    to: node(transfer.to),
                    done_bytes: done_bytes(transfer, source),
                    is_move: !transfer.sync,
                });
            }
            let copies = memory.remember_copies(&collection, placed);
            seen.wanted_replicas.insert(collection.clone(), wanted_of(name, &shards.wanted, copies));
        }
        for (id, peer) in &survey.peers {
            seen.members.push(Member {
                cordoned: cordoned.contains(id),
                healthy: survey.trouble(*id).is_none() && !shards.unreached.contains(id),
                version: peer.version.clone(),
                leader: survey.leader == Some(*id),
                indexing: indexing.contains(id),
                ..Member::new(peer.node.clone(), peer.address.clone())
            });
        }
        seen.members.sort_by(|a, b| a.id.cmp(&b.id));
        seen
    }
}

/// Copies wanted per shard: as configured, or more where a keyed collection was never seen with fewer.
pub fn wanted_of(collection: &str, configured: &BTreeMap<String, u32>, seen: Option<u32>) -> u32 {
    configured.get(collection).copied().unwrap_or(1).max(seen.unwrap_or(1))
}

/// Whether one of them can be asked for what all say.
fn gathers(survey: &Survey) -> bool {
    survey.living().all(|(_, peer)| peer.version.as_deref().and_then(minor) >= Some((1, 17)))
}

impl Memory {
    /// Drops what was started and has ended: the source has no copy any more.
    fn forget_ended(&mut self, placed: &BTreeMap<String, Placed>) {
        self.started.retain(|(shard, from, _), _| {
            placed.get(&*shard.collection).is_none_or(|placed| placed.state(shard.shard, *from).is_some())
        });
    }

    /// Changes that wait to be agreed on, and have waited for some time without anything being agreed on.
    fn stuck(&mut self, survey: &Survey, now: Instant) -> Option<String> {
        let before = std::mem::take(&mut self.pending);
        let mut stuck = None;
        for (id, peer) in survey.living() {
            let Some(raft) = peer.own.as_ref().map(|own| &own.raft_info) else { continue };
            if raft.pending_operations == 0 {
                continue;
            }
            let since = before.get(&id).filter(|(commit, _)| *commit == raft.commit).map_or(now, |(_, since)| *since);
            self.pending.insert(id, (raft.commit, since));
            if now - since >= STUCK_AFTER {
                let count = raft.pending_operations;
                stuck.get_or_insert_with(|| format!("{} has {count} changes that are not agreed on yet", peer.node));
            }
        }
        stuck
    }

    fn long_silent(&mut self, survey: &Survey, now: Instant) -> BTreeSet<PeerId> {
        let silent: BTreeSet<PeerId> =
            survey.peers.iter().filter(|(_, peer)| peer.own.is_none()).map(|(id, _)| *id).collect();
        self.silent_since.retain(|peer, _| silent.contains(peer));
        let mut long = silent;
        long.retain(|peer| now - *self.silent_since.entry(*peer).or_insert(now) >= DEAD_AFTER);
        long
    }

    /// The size of a copy: told now; where its node is silent, told by another whole copy or before. A copy that is
    /// being filled has what it says, else nothing.
    fn size(&mut self, shard: &ShardId, peer: PeerId, placed: &Placed) -> Size {
        let key = (shard.clone(), peer);
        let before = self.sizes.get(&key).copied();
        let whole = placed.state(shard.shard, peer) == Some(ReplicaState::Active);
        let others = || placed.active(shard.shard).find_map(|peer| placed.size(shard.shard, peer));
        let size = match placed.size(shard.shard, peer) {
            // A node asked alone counts points only.
            Some(told) if told.bytes == 0 => {
                Size { bytes: before.map_or(0, |before| before.bytes), points: told.points }
            }
            Some(told) => told,
            None if whole => before.or_else(others).unwrap_or_default(),
            None => Size::default(),
        };
        if placed.size(shard.shard, peer).is_some() {
            self.sizes.insert(key, size);
        }
        size
    }

    /// The fewest copies that any shard of a keyed collection was seen with at rest; `None` for others.
    fn remember_copies(&mut self, collection: &Arc<str>, placed: &Placed) -> Option<u32> {
        if !placed.is_keyed {
            return None;
        }
        for shard in placed.shards() {
            let id = ShardId { collection: collection.clone(), shard };
            let at_rest = !self.started.keys().any(|(started, ..)| *started == id)
                && !placed.transfers.iter().any(|transfer| transfer.shard_id == shard);
            let most = self.copies.entry(id).or_default();
            if at_rest {
                *most = (*most).max(placed.active(shard).count() as u32);
            }
        }
        self.least_copies(collection, placed)
    }

    /// The same, as it is remembered.
    pub fn least_copies(&self, collection: &Arc<str>, placed: &Placed) -> Option<u32> {
        let id = |shard: u32| ShardId { collection: collection.clone(), shard };
        let most = placed.shards().into_iter().map(|shard| self.copies.get(&id(shard)).copied().unwrap_or(0));
        most.min().filter(|_| placed.is_keyed)
    }
}
