//! Who counts as what: the nodes of a situation, sorted once for all rules. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Memory, Situation};
use crate::model::{Kind, NodeId, NodeSeen, NodeState};

/// The nodes that count. A lost or replaced node counts nowhere.
pub struct Roster<'a> {
    /// By id, without the lost.
    pub nodes: BTreeMap<&'a NodeId, &'a NodeSeen>,
    /// Nodes in service, which share the load and of which a reading is the mean: not those that join or are in
    /// maintenance, nor those that a person had emptied.
    pub bearing: u32,
    /// For `min_nodes`: nodes that hold data or may, dead ones among them (they are to be replaced, not added to), and
    /// creations in flight; not those that are leaving.
    pub placeable: u32,
    /// For `max_nodes`: placeable and leaving nodes (a cancelled drain brings its node back), and machines that
    /// the provider runs and nobody explains.
    pub existing: u32,
    /// Nodes that a person had emptied, and that stay out.
    emptied: BTreeSet<&'a NodeId>,
    /// What the provider can take away; `None` where it has not answered, or there is none.
    machines: Option<BTreeSet<&'a NodeId>>,
}

impl<'a> Roster<'a> {
    pub fn of(situation: &Situation<'a>, memory: &Memory) -> Roster<'a> {
        let replaced = memory.replaced();
        let lost = |n: &NodeSeen| n.state == NodeState::Lost || replaced.contains(&n.id);
        let all = &situation.seen.nodes;
        let nodes: BTreeMap<_, _> = all.iter().filter(|n| !lost(n)).map(|n| (&n.id, n)).collect();
        let emptied: BTreeSet<_> = nodes.keys().copied().filter(|id| memory.drained().contains_key(id)).collect();
        let gone: BTreeSet<&NodeId> = all.iter().filter(|n| lost(n)).map(|n| &n.id).chain(replaced).collect();
        let machines: Option<BTreeSet<_>> =
            situation.provider.machines.map(|list| list.iter().map(|m| &m.id).collect());
        let unseen = |id: &NodeId| !nodes.contains_key(id) && !gone.contains(id);
        let arriving: BTreeSet<&NodeId> = situation
            .open_operation()
            .filter(|o| matches!(o.kind, Kind::ScaleUp | Kind::Replace))
            .map_or(&[][..], |o| &o.nodes)
            .iter()
            .filter(|id| unseen(id))
            .collect();
        let unexplained = machines.iter().flatten().filter(|&&id| unseen(id) && !arriving.contains(id)).count() as u32;
        let arriving = arriving.len() as u32;
        Roster {
            bearing: nodes.values().filter(|n| is_in_service(n, &emptied)).count() as u32,
            placeable: nodes.values().filter(|n| is_placeable(n)).count() as u32 + arriving,
            existing: nodes.len() as u32 + arriving + unexplained,
            nodes,
            emptied,
            machines: machines.filter(|_| situation.provider.can_change),
        }
    }

    /// Whether the provider lists it; `true` where it has not answered, or there is none: each is a guard of its own.
    pub fn provider_knows(&self, id: &NodeId) -> bool {
        self.machines.as_ref().is_none_or(|list| list.contains(id))
    }

    /// Nodes in service: they should answer just now.
    pub fn expected(&self) -> impl Iterator<Item = &'a NodeSeen> + '_ {
        self.nodes.values().copied().filter(|n| is_in_service(n, &self.emptied))
    }

    /// Whether a person had it emptied. It bears nothing, and whether it answers is that person's affair, who may have
    /// switched it off.
    pub fn is_emptied(&self, id: &NodeId) -> bool {
        self.emptied.contains(id)
    }

    /// The placeable nodes once this one is gone.
    pub fn placeable_without(&self, id: &NodeId) -> u32 {
        self.placeable - u32::from(self.nodes.get(id).is_some_and(|n| is_placeable(n)))
    }
}

fn is_in_service(node: &NodeSeen, emptied: &BTreeSet<&NodeId>) -> bool {
    matches!(node.state, NodeState::Serving | NodeState::Draining) && !emptied.contains(&node.id)
}

fn is_placeable(node: &NodeSeen) -> bool {
    node.state != NodeState::Draining
}
