//! machines + members + what we know of them -> the nodes of the pool. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Inventory, Machine, Member, NodeId, NodeState, Operation, OperationId, OperationState, StepAction, StepState,
    Timestamp,
};
use crate::observe::RosterEntry;

/// What is known of nodes besides what provider and datastore say.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Until when each node is expected to be silent.
    pub maintenance: &'a BTreeMap<NodeId, Timestamp>,
    /// Nodes that were replaced; they count nowhere.
    pub lost: &'a BTreeSet<NodeId>,
    /// Nodes that a person had emptied, and by which operation.
    pub drained: &'a BTreeMap<NodeId, OperationId>,
    pub operation: Option<&'a Operation>,
}

/// The nodes of the pool, by id. With a datastore they are its members, the nodes that a running operation creates, and
/// the lost machines that wait to be reaped; without one (`inventory: None`), the provider's machines.
pub fn nodes(machines: &[Machine], inventory: Option<&Inventory>, known: Known<'_>) -> Vec<RosterEntry> {
    let members: BTreeMap<&NodeId, Option<&Member>> = match inventory {
        Some(inventory) => inventory.members.iter().map(|m| (&m.id, Some(m))).collect(),
        None => machines.iter().map(|m| (&m.id, None)).collect(),
    };
    let besides = |m: &&Machine| is_created_by(known.operation, &m.id) || known.lost.contains(&m.id);
    let besides = machines.iter().filter(besides).map(|m| (&m.id, None));
    let all: BTreeMap<&NodeId, Option<&Member>> = besides.chain(members).collect();
    all.into_iter()
        .map(|(id, member)| {
            let machine = machines.iter().find(|m| &m.id == id);
            let address = machine.map(|m| &m.address).or(member.map(|m| &m.address));
            RosterEntry {
                id: id.clone(),
                address: address.cloned().unwrap_or_default(),
                zone: machine.and_then(|m| m.zone.clone()),
                state: state(id, member, known),
                drained: known.drained.contains_key(id),
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
