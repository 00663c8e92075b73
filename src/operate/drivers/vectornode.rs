//! Datastore driver for the built-in vector node. It is the only writer of the cluster map; what it started is driven
//! on by a task of its own until the driver is dropped.

mod tend;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use serde::Deserialize;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::writer::{NotChanged, Writer};
use super::{Call, Datastore, Effect, Provider, Unanswered};
use crate::model::{Inventory, Machine, Member, Move, NodeId, Replica, ReplicaState, ShardId, Transfer};
use crate::node::cell::Vote;
use crate::node::map::{Assignment, ClusterMap, MapMember, Moving};
use crate::node::peers::PeerError;
use crate::node::state::Holdings;
use crate::operate::proof::{ProofOfCopies, ProofOfEmpty};

/// How long a node may take to tell something.
const LIMIT: Duration = Duration::from_secs(3);

/// The driver. Dropping it ends its task; the cluster then serves on, but nothing is created, moved or repaired.
pub struct Vectornode {
    writer: Arc<Writer>,
    /// The last size told of each copy, for when its node is silent.
    sizes: std::sync::Mutex<BTreeMap<(ShardId, NodeId), (u64, u64)>>,
    _stop: DropGuard,
}

impl Vectornode {
    /// Starts the driver, inside a tokio runtime. `provider` says where nodes are, and on the very first start which
    /// ones form the cluster; `fence` is this start's number in the journal.
    pub fn start(provider: Arc<dyn Provider>, fence: u64) -> Vectornode {
        let writer = Arc::new(Writer::new(provider, fence));
        let stop = CancellationToken::new();
        let (tended, stopped) = (writer.clone(), stop.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(tend::tend(tended)).await });
        Vectornode { writer, sizes: std::sync::Mutex::default(), _stop: stop.drop_guard() }
    }

    async fn change(&self, edit: impl FnOnce(&mut ClusterMap) -> Result<bool, String>) -> Effect<()> {
        match self.writer.change(edit).await {
            Ok(_) => Effect::Done(()),
            Err(NotChanged::Refused(why)) => Effect::NoEffect(why),
            Err(NotChanged::Unknown(why)) => Effect::Unknown(why),
        }
    }

    async fn set_cordon(&self, node: &NodeId, cordoned: bool) -> Effect<()> {
        self.change(|map| match map.members.get_mut(node) {
            Some(member) => Ok(std::mem::replace(&mut member.cordoned, cordoned) != cordoned),
            // Nothing to lift from one that is gone.
            None if !cordoned => Ok(false),
            None => Err(format!("{node} is not a member")),
        })
        .await
    }

    /// Takes a node that holds nothing out of the membership.
    async fn remove(&self, node: &NodeId) -> Effect<()> {
        self.change(|map| {
            if !map.members.contains_key(node) {
                return Ok(false);
            }
            match map.listed_in(node) {
                _ if map.members.len() == 1 => Err(format!("{node} is the last member")),
                0 => Ok(map.members.remove(node).is_some()),
                shards => Err(format!("{node} is still listed for {shards} shards")),
            }
        })
        .await
    }

    /// The primary of a shard, if it gives no sign of life.
    async fn dead_primary(&self, shard: &ShardId) -> Result<Option<NodeId>, Unanswered> {
        let map = self.writer.map().await?;
        let assignment = map.collections.get(&*shard.collection).and_then(|c| c.shards.get(shard.shard as usize));
        let Some(primary) = assignment.and_then(Assignment::primary) else { return Ok(None) };
        let alive = self.writer.is_alive(&self.writer.address(&map, primary)).await;
        Ok((!alive).then(|| primary.clone()))
    }

    async fn map_of(&self, via: Option<&NodeId>) -> Result<Arc<ClusterMap>, Unanswered> {
        let known = self.writer.map().await?;
        let Some(node) = via else { return Ok(known) };
        let address = self.writer.address(&known, node);
        let vote: Vote = self.writer.peers.get(&address, "/cluster/map", LIMIT).await.map_err(unanswered)?;
        vote.learned.ok_or_else(|| Unanswered(format!("{node} knows no cluster map")))
    }

    /// The sizes of a copy: told now, told by another copy, told before; else nobody knows and it ranks as nothing.
    fn size(&self, shard: &ShardId, node: &NodeId, told: &BTreeMap<(&ShardId, &NodeId), (u64, u64)>) -> (u64, u64) {
        let other_copy = || told.iter().find(|((s, _), _)| *s == shard).map(|(_, size)| *size);
        let mut sizes = self.sizes.lock().expect("no panic while sizing");
        let now = told.get(&(shard, node)).copied();
        if let Some(size) = now {
            sizes.insert((shard.clone(), node.clone()), size);
        }
        let before = sizes.get(&(shard.clone(), node.clone())).copied();
        now.or_else(other_copy).or(before).unwrap_or_default()
    }
}

fn unanswered(error: PeerError) -> Unanswered {
    Unanswered(error.to_string())
}

fn assignment<'a>(map: &'a mut ClusterMap, shard: &ShardId) -> Result<&'a mut Assignment, String> {
    let collection = map.collections.get_mut(&*shard.collection);
    collection.and_then(|c| c.shards.get_mut(shard.shard as usize)).ok_or_else(|| format!("there is no shard {shard}"))
}

#[derive(Deserialize)]
struct HealthPage {
    id: String,
    cluster: Option<String>,
}

#[async_trait]
impl Datastore for Vectornode {
    async fn inventory(&self, via: Option<&NodeId>) -> Result<Inventory, Unanswered> {
        // What is complete by now counts as moved, without waiting for the next round.
        let _ = tend::finish_copies(&self.writer).await; // if it cannot be now, the inventory shows it as running
        let map = &*self.map_of(via).await?;
        let asked = map.members.keys().map(|id| {
            let address = self.writer.address(map, id);
            async move {
                let peers = &self.writer.peers;
                let health = peers.send(http::Method::GET, &address, "/health", "", LIMIT).await;
                let holdings = peers.get::<Holdings>(&address, "/cluster/shards", LIMIT).await;
                (id, health.is_ok(), holdings.ok().filter(|h| h.cluster.as_ref() == Some(&map.cluster)))
            }
        });
        let answers = join_all(asked).await;
        if answers.iter().all(|(_, _, holdings)| holdings.is_none()) {
            return Err(Unanswered("no member of the cluster answers".into()));
        }
        if via.is_none() && answers.iter().flat_map(|(_, _, h)| h).any(|h| h.epoch > Some(map.epoch)) {
            return Err(Unanswered("a newer controller has changed the cluster map".into()));
        }
        let shard_ids: BTreeMap<_, _> = map
            .shards()
            .map(|(name, key, _, _)| (key, ShardId { collection: name.into(), shard: key.shard }))
            .collect();
        let mut told = BTreeMap::new();
        for (id, _, holdings) in &answers {
            for held in holdings.iter().flat_map(|h| &h.shards) {
                if let Some(shard) = shard_ids.get(&held.key) {
                    told.insert((shard, *id), (held.bytes, held.vectors));
                }
            }
        }
        let member = |(id, healthy, holdings): &(&NodeId, bool, Option<Holdings>)| Member {
            cordoned: map.members[*id].cordoned,
            healthy: *healthy && holdings.is_some(),
            ..Member::new((*id).clone(), self.writer.address(map, id))
        };
        let (mut shards, mut transfers) = (Vec::new(), Vec::new());
        for (_, key, _, assignment) in map.shards() {
            let shard = &shard_ids[&key];
            for holder in &assignment.replicas {
                let (bytes, vectors) = self.size(shard, &holder.node, &told);
                let (node, state) = (holder.node.clone(), holder.state);
                if state == ReplicaState::Partial {
                    let moving = assignment.moving.as_ref().filter(|m| m.to == node);
                    let from = moving.map(|m| &m.from).or(assignment.primary()).unwrap_or(&node).clone();
                    let done_bytes = told.get(&(shard, &node)).map(|(bytes, _)| *bytes);
                    let is_move = moving.is_some();
                    transfers.push(Transfer { shard: shard.clone(), from, to: node.clone(), done_bytes, is_move });
                }
                shards.push(Replica { shard: shard.clone(), node, bytes, vectors, state });
            }
        }
        let wanted = map.collections.iter().map(|(name, c)| (name.as_str().into(), c.params.replication_factor));
        Ok(Inventory {
            members: answers.iter().map(member).collect(),
            wanted_replicas: wanted.collect(),
            shards,
            transfers,
            ..Inventory::default()
        })
    }

    async fn held_by(&self, node: &Member) -> Result<Vec<(ShardId, u64)>, Unanswered> {
        let holdings: Holdings =
            self.writer.peers.get(&node.address, "/cluster/shards", LIMIT).await.map_err(unanswered)?;
        if holdings.node != node.id {
            return Err(Unanswered(format!("{} is {}, not {}", node.address, holdings.node, node.id)));
        }
        let held = |h: crate::node::state::Holding| {
            (ShardId { collection: h.collection.as_str().into(), shard: h.key.shard }, h.vectors)
        };
        Ok(holdings.shards.into_iter().map(held).collect())
    }

    async fn join(&self, _: &Call, machine: &Machine) -> Effect<()> {
        let vote = match self.writer.claim_at(&machine.address).await {
            Ok(vote) => vote,
            Err(PeerError::Refused { detail, .. }) => return Effect::NoEffect(detail),
            // It may still be starting.
            Err(_) => return Effect::InProgress,
        };
        if vote.node != machine.id {
            return Effect::NoEffect(format!("{} is {}, not {}", machine.address, vote.node, machine.id));
        }
        self.change(|map| {
            if let Some(other) = vote.highest().filter(|held| held.cluster != map.cluster) {
                return Err(format!("{} belongs to another cluster ({})", machine.id, other.cluster));
            }
            let member = MapMember { address: machine.address.clone(), cordoned: false };
            match map.members.get_mut(&machine.id) {
                Some(held) if held.address == member.address => Ok(false),
                Some(held) => {
                    held.address = member.address;
                    Ok(true)
                }
                None => Ok(map.members.insert(machine.id.clone(), member).is_none()),
            }
        })
        .await
    }

    async fn ready(&self, machine: &Machine) -> Result<bool, Unanswered> {
        let map = self.writer.map().await?;
        match self.writer.peers.get::<HealthPage>(&machine.address, "/health", LIMIT).await {
            Ok(page) => {
                let is_ours = page.cluster.as_ref() == Some(&map.cluster) && page.id == machine.id.as_str();
                Ok(is_ours && map.members.contains_key(&machine.id))
            }
            Err(PeerError::Refused { .. }) => Ok(false),
            Err(lost) => Err(unanswered(lost)),
        }
    }

    async fn cordon(&self, _: &Call, node: &NodeId) -> Effect<()> {
        self.set_cordon(node, true).await
    }

    async fn uncordon(&self, _: &Call, node: &NodeId) -> Effect<()> {
        self.set_cordon(node, false).await
    }

    async fn start_move(&self, _: &Call, relocation: &Move) -> Effect<()> {
        let Move { shard, from, to, .. } = relocation;
        self.change(|map| {
            let target = map.members.get(to).map(|m| m.cordoned);
            let assignment = assignment(map, shard)?;
            let moving = Moving { from: from.clone(), to: to.clone() };
            match (assignment.state_of(from), assignment.state_of(to), &assignment.moving) {
                // Finished or running already.
                (None, Some(ReplicaState::Active), _) => return Ok(false),
                (_, _, Some(running)) if *running == moving => return Ok(false),
                (_, _, Some(running)) => {
                    return Err(format!("{shard} is already moving from {} to {}", running.from, running.to));
                }
                (None, ..) => return Err(format!("{from} does not hold {shard}")),
                (_, Some(_), _) => return Err(format!("{to} holds {shard} already")),
                (Some(_), None, None) => {}
            }
            match target {
                None => Err(format!("{to} is not a member")),
                Some(true) => Err(format!("{to} is cordoned")),
                Some(false) => {
                    assignment.set(to, ReplicaState::Partial);
                    assignment.moving = Some(moving);
                    Ok(true)
                }
            }
        })
        .await
    }

    async fn replicate(&self, _: &Call, copy: &Move) -> Effect<()> {
        let Move { shard, from, to, .. } = copy;
        let dead_primary = match self.dead_primary(shard).await {
            Ok(dead) => dead,
            Err(why) => return Effect::Unknown(why.0),
        };
        self.change(|map| {
            let target = map.members.get(to).map(|m| m.cordoned);
            let assignment = assignment(map, shard)?;
            // The primary fills copies: one that is dead never would.
            if let Some(dead) = dead_primary.filter(|dead| assignment.primary() == Some(dead)) {
                assignment.take_out(&dead);
            }
            match (assignment.state_of(from), assignment.state_of(to), target) {
                // Finished or running already: the primary fills a partial copy.
                (_, Some(ReplicaState::Active | ReplicaState::Partial), _) => Ok(false),
                (_, Some(ReplicaState::Dead), _) => Err(format!("{to} has a copy of {shard} that is out of step")),
                (Some(ReplicaState::Active), None, Some(false)) => {
                    assignment.set(to, ReplicaState::Partial);
                    Ok(true)
                }
                (Some(ReplicaState::Active), None, Some(true)) => Err(format!("{to} is cordoned")),
                (Some(ReplicaState::Active), None, None) => Err(format!("{to} is not a member")),
                (_, None, _) => Err(format!("{from} has no active copy of {shard}")),
            }
        })
        .await
    }

    async fn cancel_move(&self, _: &Call, relocation: &Move) -> Effect<()> {
        let Move { shard, from, to, .. } = relocation;
        self.change(|map| {
            let assignment = assignment(map, shard)?;
            if assignment.moving.take_if(|m| m.from == *from && m.to == *to).is_some() {
                assignment.drop_holder(to);
                return Ok(true);
            }
            // A replication: only that makes a partial copy of a shard that does not move.
            if assignment.moving.is_none()
                && assignment.state_of(from) == Some(ReplicaState::Active)
                && assignment.state_of(to) == Some(ReplicaState::Partial)
            {
                assignment.drop_holder(to);
                return Ok(true);
            }
            match assignment.state_of(from) {
                Some(_) => Ok(false),
                None => Err(format!("the move of {shard} has ended: {from} no longer holds it")),
            }
        })
        .await
    }

    async fn leave(&self, _: &Call, node: &NodeId, proof: &ProofOfEmpty) -> Effect<()> {
        if proof.node() != node {
            return Effect::NoEffect(format!("the proof is about {}, not {node}", proof.node()));
        }
        self.remove(node).await
    }

    async fn forget(&self, _: &Call, node: &NodeId, proof: &ProofOfCopies) -> Effect<()> {
        if proof.node() != node {
            return Effect::NoEffect(format!("the proof is about {}, not {node}", proof.node()));
        }
        self.change(|map| {
            if !map.members.contains_key(node) {
                return Ok(false);
            }
            let lives_on = |assignment: &Assignment| {
                assignment.state_of(node).is_none() || assignment.active().any(|holder| holder != node)
            };
            if let Some((name, key, _, _)) = map.shards().find(|(_, _, _, assignment)| !lives_on(assignment)) {
                return Err(format!("{name}/{} has its only active copy on {node}", key.shard));
            }
            for assignment in map.collections.values_mut().flat_map(|collection| &mut collection.shards) {
                assignment.moving.take_if(|moving| moving.from == *node || moving.to == *node);
                assignment.drop_holder(node);
            }
            Ok(map.members.remove(node).is_some())
        })
        .await
    }

    async fn unjoin(&self, _: &Call, node: &NodeId) -> Effect<()> {
        self.remove(node).await
    }
}
