//! Who counts as what: the nodes of a situation, sorted once for all rules. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Situation;
use crate::model::{Kind, NodeId, NodeSeen, NodeState};

/// The nodes that count. A lost or replaced node counts nowhere.
pub struct Roster<'a> {
    /// By id, without the lost.
    pub nodes: BTreeMap<&'a NodeId, &'a NodeSeen>,
    /// Nodes in service, which share the load and of which a reading is the mean: not those that join or are in
    /// maintenance.
    pub bearing: u32,
    /// For `min_nodes`: nodes that hold data or may, dead ones among them (they are to be replaced, not added to), and
    /// creations in flight; not those that are leaving.
    pub placeable: u32,
    /// For `max_nodes`: placeable and leaving nodes (a cancelled drain brings its node back), and machines that
    /// the provider runs and nobody explains.
    pub existing: u32,
    /// What the provider can take away; `None` where it has not answered, or there is none.
    machines: Option<BTreeSet<&'a NodeId>>,
}

impl<'a> Roster<'a> {
    pub fn of(situation: &Situation<'a>, replaced: &BTreeSet<NodeId>) -> Roster<'a> {
        let lost = |n: &NodeSeen| n.state == NodeState::Lost || replaced.contains(&n.id);
        let all = &situation.seen.nodes;
        let nodes: BTreeMap<_, _> = all.iter().filter(|n| !lost(n)).map(|n| (&n.id, n)).collect();
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
        let count = |wanted: fn(NodeState) -> bool| nodes.values().filter(|n| wanted(n.state)).count() as u32;
        let arriving = arriving.len() as u32;
        Roster {
            bearing: count(in_service),
            placeable: count(|s| s != NodeState::Draining) + arriving,
            existing: nodes.len() as u32 + arriving + unexplained,
            nodes,
            machines: machines.filter(|_| situation.provider.can_change),
        }
    }

    /// Whether the provider lists it; `true` where it has not answered, or there is none: each is a guard of its own.
    pub fn provider_knows(&self, id: &NodeId) -> bool {
        self.machines.as_ref().is_none_or(|list| list.contains(id))
    }

    /// Nodes in service: they should answer just now.
    pub fn expected(&self) -> impl Iterator<Item = &'a NodeSeen> + '_ {
        self.nodes.values().copied().filter(|n| in_service(n.state))
    }
}

fn in_service(state: NodeState) -> bool {
    matches!(state, NodeState::Serving | NodeState::Draining)
}
