//! Proof before removal, as a type: only the verifier makes the value that the leave step takes. Reads the datastore.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::drivers::Datastore;
use crate::clock::Clock;
use crate::model::{Inventory, NodeId, ReplicaState, ShardId, Timestamp};

/// Says that a node held nothing in two reads apart: it said so itself, the others agreed, nothing was in transfer,
/// and every shard had its replicas elsewhere. No other module can make one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProofOfEmpty {
    node: NodeId,
    first_read_at: Timestamp,
    second_read_at: Timestamp,
    /// Members that were asked and agreed, the node itself among them.
    witnesses: Vec<NodeId>,
    /// Shards that were found complete on the other nodes.
    shards: usize,
}

impl ProofOfEmpty {
    pub fn node(&self) -> &NodeId {
        &self.node
    }
}

/// What stands in the way of a proof. Errors and silence stand in the way too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotProven(String);

/// What the cluster held before the drain, to hold the end against.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Shards that had a copy on the node: none of them may be missing at the end.
    held: BTreeSet<String>,
    /// Active copies of shards that had fewer than wanted: so many they must still have.
    short: BTreeMap<String, u32>,
}

impl Baseline {
    pub fn of(inventory: &Inventory, node: &NodeId) -> Baseline {
        let short = |(shard, replicas): (&ShardId, Vec<&crate::model::Replica>)| {
            let active = replicas.iter().filter(|r| r.state == ReplicaState::Active).count() as u32;
            (active < wanted(inventory, shard)).then(|| (shard.to_string(), active))
        };
        Baseline {
            held: inventory.on(node).map(|r| r.shard.to_string()).collect(),
            short: inventory.by_shard().into_iter().filter_map(short).collect(),
        }
    }

    /// Active copies that a shard needs; one at least, however few there were.
    fn needed(&self, inventory: &Inventory, shard: &ShardId) -> u32 {
        let wanted = wanted(inventory, shard);
        self.short.get(&shard.to_string()).map_or(wanted, |before| wanted.min(*before)).max(1)
    }
}

fn wanted(inventory: &Inventory, shard: &ShardId) -> u32 {
    inventory.wanted_replicas.get(&shard.collection).copied().unwrap_or(1)
}

/// Reads twice, `apart` from each other.
///
/// # Errors
/// With the first thing that stands in the way; an error or a silent member is one.
pub async fn prove(
    store: &dyn Datastore,
    clock: &dyn Clock,
    node: &NodeId,
    baseline: &Baseline,
    apart: Duration,
) -> Result<ProofOfEmpty, NotProven> {
    let first_read_at = clock.now();
    let first = look(store, node, baseline).await?;
    tokio::time::sleep(apart).await;
    let second_read_at = clock.now();
    let second = look(store, node, baseline).await?;
    if first.witnesses != second.witnesses {
        return Err(NotProven("the members changed between the two reads".into()));
    }
    let Seen { witnesses, shards } = second;
    Ok(ProofOfEmpty { node: node.clone(), first_read_at, second_read_at, witnesses, shards })
}

/// What one read found, all of it good.
struct Seen {
    witnesses: Vec<NodeId>,
    shards: usize,
}

/// One read of everyone.
async fn look(store: &dyn Datastore, node: &NodeId, baseline: &Baseline) -> Result<Seen, NotProven> {
    let view = store.inventory(None).await.map_err(|e| NotProven(format!("the cluster did not answer: {e}")))?;
    let Some(victim) = view.member(node) else {
        return Err(NotProven(format!("{node} is not among the members")));
    };
    let held = store.held_by(victim).await.map_err(|e| NotProven(format!("{node} did not answer: {e}")))?;
    if let Some((shard, vectors)) = held.first() {
        return Err(NotProven(format!("{node} still holds {shard} with {vectors} vectors ({} shards)", held.len())));
    }
    empty_in(&view, node, baseline)?;
    let mut witnesses = vec![node.clone()];
    for member in view.members.iter().filter(|m| m.healthy && m.id != *node) {
        let theirs = store.inventory(Some(&member.id)).await;
        let theirs = theirs.map_err(|e| NotProven(format!("{} did not answer: {e}", member.id)))?;
        empty_in(&theirs, node, baseline).map_err(|why| NotProven(format!("{} says: {why}", member.id)))?;
        agree(&view, &theirs).map_err(|what| NotProven(format!("{} sees other {what}", member.id)))?;
        witnesses.push(member.id.clone());
    }
    if witnesses.len() < 2 {
        return Err(NotProven(format!("no other member can confirm that {node} is empty")));
    }
    witnesses.sort();
    Ok(Seen { witnesses, shards: view.by_shard().len() })
}

/// Whether one view has the node empty, nothing in transfer, and every shard complete on other, healthy nodes.
fn empty_in(view: &Inventory, node: &NodeId, baseline: &Baseline) -> Result<(), NotProven> {
    if let Some(replica) = view.on(node).next() {
        return Err(NotProven(format!("{} is still on {node}", replica.shard)));
    }
    if let Some(transfer) = view.transfers.first() {
        return Err(NotProven(format!("{} is in transfer", transfer.shard)));
    }
    let shards = view.by_shard();
    let known: BTreeSet<String> = shards.keys().map(ToString::to_string).collect();
    if let Some(gone) = baseline.held.difference(&known).next() {
        return Err(NotProven(format!("{gone}, which was on {node}, is nowhere")));
    }
    let counts = |replica: &&&crate::model::Replica| {
        replica.state == ReplicaState::Active && view.member(&replica.node).is_some_and(|m| m.healthy)
    };
    for (shard, replicas) in &shards {
        let (active, needed) = (replicas.iter().filter(counts).count() as u32, baseline.needed(view, shard));
        if active < needed {
            return Err(NotProven(format!("{shard} has {active} of {needed} active copies")));
        }
    }
    Ok(())
}

/// Two views that differ in what there is show that one of them is old.
fn agree(ours: &Inventory, theirs: &Inventory) -> Result<(), &'static str> {
    let members = |view: &Inventory| view.members.iter().map(|m| m.id.clone()).collect::<BTreeSet<_>>();
    let copies = |view: &Inventory| {
        view.shards.iter().map(|r| (r.shard.clone(), r.node.clone())).collect::<BTreeSet<(ShardId, NodeId)>>()
    };
    if members(ours) != members(theirs) {
        return Err("members");
    }
    if copies(ours) != copies(theirs) { Err("copies of shards") } else { Ok(()) }
}
