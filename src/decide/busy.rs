//! Which nodes are busy with data, so that what they show just now is not what they will be. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Situation;
use super::memory::Memory;
use crate::model::{NodeId, NodeSeen};

/// An index that is built for longer at a stretch is the everyday work of a store that takes writes, not the end of a
/// move: were it waited for, a pool that is written to all day would never grow.
const AT_A_STRETCH: Duration = Duration::from_secs(1800);

/// The nodes that receive shards, and those that build an index and have not done so for half an hour yet.
pub fn nodes<'a>(memory: &Memory, now: &Situation<'a>) -> BTreeSet<&'a NodeId> {
    let moving = now.inventory().map(|inventory| inventory.nodes_in_transfer()).unwrap_or_default();
    let since = |id: &NodeId| memory.recent.busy_since.get(id).copied().unwrap_or(now.seen.at);
    let counts = |id: &NodeId| moving.contains(id) || now.seen.at.since(since(id)) < AT_A_STRETCH;
    told(now).filter(|id| counts(id)).collect()
}

/// The nodes of which it is said now.
pub fn told<'a>(now: &Situation<'a>) -> impl Iterator<Item = &'a NodeId> {
    let is_busy = |n: &&NodeSeen| n.busy_with_data;
    let members = now.inventory().map_or(&[][..], |inventory| &inventory.members);
    let indexing = members.iter().filter(|m| m.indexing).map(|m| &m.id);
    now.seen.nodes.iter().filter(is_busy).map(|n| &n.id).chain(indexing)
}
