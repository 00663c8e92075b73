//! machines + members + what we know of them -> the nodes of the pool, and what nothing explains. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Inventory, Machine, Member, NodeId, NodeState, Operation, OperationState, StepAction, StepState, Timestamp,
    Unexplained, UnexplainedKind,
};
use crate::observe::RosterEntry;

/// What is known of nodes besides what provider and datastore say.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Until when each node is expected to be silent.
    pub maintenance: &'a BTreeMap<NodeId, Timestamp>,
    /// Nodes that were replaced; they count nowhere.
    pub lost: &'a BTreeSet<NodeId>,
    pub operation: Option<&'a Operation>,
}

/// The nodes of the pool, by id. With a datastore they are its members and the nodes that a running operation creates;
/// without one (`inventory: None`), the provider's machines.
pub fn nodes(machines: &[Machine], inventory: Option<&Inventory>, known: Known<'_>) -> Vec<RosterEntry> {
    let members: BTreeMap<&NodeId, Option<&Member>> = match inventory {
        Some(inventory) => inventory.members.iter().map(|m| (&m.id, Some(m))).collect(),
        None => machines.iter().map(|m| (&m.id, None)).collect(),
    };
    let creating = machines.iter().filter(|m| is_created_by(known.operation, &m.id)).map(|m| (&m.id, None));
    let all: BTreeMap<&NodeId, Option<&Member>> = creating.chain(members).collect();
    all.into_iter()
        .map(|(id, member)| {
            let machine = machines.iter().find(|m| &m.id == id);
            let address = machine.map(|m| &m.address).or(member.map(|m| &m.address));
            RosterEntry {
                id: id.clone(),
                address: address.cloned().unwrap_or_default(),
                zone: machine.and_then(|m| m.zone.clone()),
                state: state(id, member, known),
            }
        })
        .collect()
}

fn state(id: &NodeId, member: Option<&Member>, known: Known<'_>) -> NodeState {
    if known.lost.contains(id) {
        NodeState::Lost
    } else if known.maintenance.contains_key(id) {
        NodeState::Maintenance
    } else if member.is_some_and(|m| m.cordoned) || is_removed_by(known.operation, id) {
        NodeState::Draining
    } else if is_created_by(known.operation, id) {
        NodeState::Joining
    } else {
        NodeState::Serving
    }
}

fn running(operation: Option<&Operation>) -> impl Iterator<Item = (&StepAction, StepState)> {
    operation.into_iter().flat_map(|o| o.steps.iter().map(|s| (&s.action, s.state)))
}

/// Being made, and not yet known to serve.
fn is_created_by(operation: Option<&Operation>, id: &NodeId) -> bool {
    running(operation)
        .any(|(action, state)| matches!(action, StepAction::Join { node } if node == id) && state != StepState::Done)
}

/// Past the first step towards its removal, and not being put back.
fn is_removed_by(operation: Option<&Operation>, id: &NodeId) -> bool {
    operation.is_some_and(|o| o.state != OperationState::Undoing)
        && running(operation).any(|(action, state)| match action {
            StepAction::Cordon { node } => node == id && state != StepState::Waiting,
            StepAction::Destroy { node } => node == id && state != StepState::Waiting,
            _ => false,
        })
}

/// Machines and members that no operation explains. Reported, never removed by itself.
pub fn unexplained(machines: &[Machine], inventory: &Inventory, known: Known<'_>) -> Vec<Unexplained> {
    let explained = |id: &NodeId| known.lost.contains(id) || known.operation.is_some_and(|o| o.nodes.contains(id));
    let orphans = machines.iter().filter(|m| inventory.member(&m.id).is_none() && !explained(&m.id)).map(|m| {
        unexplained_node(UnexplainedKind::OrphanInstance, &m.id, "the provider runs it, the datastore does not know it")
    });
    let ghosts =
        inventory.members.iter().filter(|m| !machines.iter().any(|x| x.id == m.id) && !explained(&m.id)).map(|m| {
            unexplained_node(
                UnexplainedKind::GhostMember,
                &m.id,
                "the datastore lists it, the provider does not know it",
            )
        });
    let cordons = inventory.members.iter().filter(|m| m.cordoned && !explained(&m.id)).map(|m| {
        unexplained_node(UnexplainedKind::LeftOverCordon, &m.id, "it is cordoned and no operation is open for it")
    });
    orphans.chain(ghosts).chain(cordons).collect()
}

fn unexplained_node(kind: UnexplainedKind, id: &NodeId, detail: &str) -> Unexplained {
    Unexplained { kind, node: id.clone(), detail: format!("{id}: {detail}") }
}
