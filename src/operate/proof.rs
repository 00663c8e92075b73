//! Proof before removal, as types: only the verifier makes the values that leaving and forgetting take. Reads the
//! datastore.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::drivers::Datastore;
use crate::clock::Clock;
use crate::model::{Inventory, Member, NodeId, Replica, ReplicaState, ShardId, Timestamp};

/// What two reads apart found, both times the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Findings {
    node: NodeId,
    first_read_at: Timestamp,
    second_read_at: Timestamp,
    /// Members that were asked and agreed.
    witnesses: Vec<NodeId>,
    /// Shards that were found complete on the other nodes.
    shards: usize,
    /// Collections that had shards on the node, and were deleted meanwhile.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    deleted: BTreeSet<String>,
}

/// Says that a node held nothing in two reads apart: it said so itself, the others agreed, nothing was in transfer,
/// and every shard had its replicas elsewhere. No other module can make one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ProofOfEmpty(Findings);

impl ProofOfEmpty {
    pub fn node(&self) -> &NodeId {
        &self.0.node
    }
}

/// Says that a cluster can do without a dead node, in two reads apart: it was silent, the living agreed, nothing was in
/// transfer, and every shard that it was listed for had all its copies on living nodes. No other module can make one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ProofOfCopies(Findings);

impl ProofOfCopies {
    pub fn node(&self) -> &NodeId {
        &self.0.node
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
        let short = |(shard, replicas): (&ShardId, Vec<&Replica>)| {
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

/// Reads twice, `apart` from each other, whether `node` is empty.
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
    twice(store, clock, node, baseline, apart, Question::IsEmpty).await.map(ProofOfEmpty)
}

/// Reads twice, `apart` from each other, whether every shard lives on without the dead `node`.
///
/// # Errors
/// With the first thing that stands in the way; an error or a silent member is one, and an answer of the node itself.
pub async fn prove_copies(
    store: &dyn Datastore,
    clock: &dyn Clock,
    node: &NodeId,
    baseline: &Baseline,
    apart: Duration,
) -> Result<ProofOfCopies, NotProven> {
    twice(store, clock, node, baseline, apart, Question::IsDispensable).await.map(ProofOfCopies)
}

/// What is to be proven of a node.
#[derive(Clone, Copy)]
enum Question {
    IsEmpty,
    IsDispensable,
}

async fn twice(
    store: &dyn Datastore,
    clock: &dyn Clock,
    node: &NodeId,
    baseline: &Baseline,
    apart: Duration,
    question: Question,
) -> Result<Findings, NotProven> {
    let first_read_at = clock.now();
    let first = look(store, node, baseline, question).await?;
    tokio::time::sleep(apart).await;
    let second_read_at = clock.now();
    let second = look(store, node, baseline, question).await?;
    if first.witnesses != second.witnesses {
        return Err(NotProven("the members changed between the two reads".into()));
    }
    let Seen { witnesses, shards, deleted } = second;
    Ok(Findings { node: node.clone(), first_read_at, second_read_at, witnesses, shards, deleted })
}

/// What one read found, all of it good.
struct Seen {
    witnesses: Vec<NodeId>,
    shards: usize,
    deleted: BTreeSet<String>,
}

async fn look(
    store: &dyn Datastore,
    node: &NodeId,
    baseline: &Baseline,
    question: Question,
) -> Result<Seen, NotProven> {
    match question {
        Question::IsEmpty => look_empty(store, node, baseline).await,
        Question::IsDispensable => look_restored(store, node, baseline).await,
    }
}

/// One read of everyone: the node is empty.
async fn look_empty(store: &dyn Datastore, node: &NodeId, baseline: &Baseline) -> Result<Seen, NotProven> {
    let (view, victim) = member(store, node).await?;
    let held = store.held_by(&victim).await.map_err(|e| NotProven(format!("{node} did not answer: {e}")))?;
    if let Some((shard, vectors)) = held.first() {
        return Err(NotProven(format!("{node} still holds {shard} with {vectors} vectors ({} shards)", held.len())));
    }
    let mut seen = ask_the_others(store, &view, node, |view| empty_in(view, node, baseline)).await?;
    seen.witnesses.push(node.clone());
    seen.witnesses.sort();
    seen.deleted = gone(&view, baseline).iter().filter_map(|shard| deleted(&view, shard)).map(String::from).collect();
    Ok(seen)
}

/// One read of everyone: the node is dead, and nothing is missing without it.
async fn look_restored(store: &dyn Datastore, node: &NodeId, baseline: &Baseline) -> Result<Seen, NotProven> {
    let (view, dead) = member(store, node).await?;
    if dead.healthy || store.held_by(&dead).await.is_ok() {
        return Err(NotProven(format!("{node} answers again")));
    }
    ask_the_others(store, &view, node, |view| restored_in(view, node, baseline)).await
}

async fn member(store: &dyn Datastore, node: &NodeId) -> Result<(Inventory, Member), NotProven> {
    let view = store.inventory(None).await.map_err(|e| NotProven(format!("the cluster did not answer: {e}")))?;
    match view.member(node).cloned() {
        Some(member) => Ok((view, member)),
        None => Err(NotProven(format!("{node} is not among the members"))),
    }
}

/// Holds `judge` against the view at hand and against that of every other healthy member; all must see the same.
async fn ask_the_others(
    store: &dyn Datastore,
    view: &Inventory,
    node: &NodeId,
    judge: impl Fn(&Inventory) -> Result<(), NotProven> + Send + Sync,
) -> Result<Seen, NotProven> {
    judge(view)?;
    let mut witnesses = Vec::new();
    for member in view.members.iter().filter(|m| m.healthy && m.id != *node) {
        let theirs = store.inventory(Some(&member.id)).await;
        let theirs = theirs.map_err(|e| NotProven(format!("{} did not answer: {e}", member.id)))?;
        judge(&theirs).map_err(|why| NotProven(format!("{} says: {why}", member.id)))?;
        agree(view, &theirs).map_err(|what| NotProven(format!("{} sees other {what}", member.id)))?;
        witnesses.push(member.id.clone());
    }
    if witnesses.is_empty() {
        return Err(NotProven(format!("no other member can speak for {node}")));
    }
    witnesses.sort();
    Ok(Seen { witnesses, shards: view.by_shard().len(), deleted: BTreeSet::new() })
}

/// Whether one view has the node empty, nothing in transfer, and every shard complete on other, healthy nodes.
fn empty_in(view: &Inventory, node: &NodeId, baseline: &Baseline) -> Result<(), NotProven> {
    if let Some(replica) = view.on(node).next() {
        return Err(NotProven(format!("{} is still on {node}", replica.shard)));
    }
    if let Some(gone) = gone(view, baseline).iter().find(|shard| deleted(view, shard).is_none()) {
        return Err(NotProven(format!("{gone}, which was on {node}, is nowhere")));
    }
    complete_in(view, node, |shard| baseline.needed(view, shard))
}

/// Whether one view has every shard that the dead node was listed for whole on living nodes, and none with less than
/// before.
fn restored_in(view: &Inventory, node: &NodeId, baseline: &Baseline) -> Result<(), NotProven> {
    let lost: BTreeSet<&ShardId> = view.on(node).map(|r| &r.shard).collect();
    let needed = |shard: &ShardId| {
        let was_there = lost.contains(shard) || baseline.held.contains(&shard.to_string());
        if was_there { wanted(view, shard).max(1) } else { baseline.needed(view, shard) }
    };
    // The dead node cannot say what it still has, so nothing of it may be gone, whatever the reason.
    if let Some(gone) = gone(view, baseline).first() {
        return Err(NotProven(format!("{gone}, which was on {node}, is nowhere")));
    }
    complete_in(view, node, needed)
}

/// Shards that the node held, and of which no copy is left.
fn gone(view: &Inventory, baseline: &Baseline) -> BTreeSet<String> {
    let known: BTreeSet<String> = view.shards.iter().map(|replica| replica.shard.to_string()).collect();
    baseline.held.difference(&known).cloned().collect()
}

/// The collection of a shard that is gone, if it was deleted: the store's own list has it no more, but has others. An empty
/// list would rather be that of a store that has lost its memory.
fn deleted<'a>(view: &Inventory, shard: &'a str) -> Option<&'a str> {
    let (collection, _) = shard.rsplit_once('/')?;
    let has_others = view.lists_collections && !view.wanted_replicas.is_empty();
    (has_others && !view.wanted_replicas.contains_key(collection)).then_some(collection)
}

/// Whether nothing is in transfer, and each shard has the copies it needs on healthy nodes other than this one.
fn complete_in(view: &Inventory, node: &NodeId, needed: impl Fn(&ShardId) -> u32) -> Result<(), NotProven> {
    if let Some(transfer) = view.transfers.first() {
        return Err(NotProven(format!("{} is in transfer", transfer.shard)));
    }
    let shards = view.by_shard();
    let counts = |replica: &&&Replica| {
        replica.state == ReplicaState::Active
            && replica.node != *node
            && view.member(&replica.node).is_some_and(|m| m.healthy)
    };
    for (shard, replicas) in &shards {
        let (active, needed) = (replicas.iter().filter(counts).count() as u32, needed(shard));
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

#[cfg(test)]
mod tests;
