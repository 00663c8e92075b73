//! Proof before removal, as a type: only the verifier makes the value that the leave step takes.

use serde::Serialize;

use crate::model::{NodeId, Timestamp};

/// Says that a node held nothing in two reads apart: it said so itself, the others agreed, nothing was in transfer,
/// and every shard had its replicas elsewhere. No other module can make one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProofOfEmpty {
    node: NodeId,
    first_read_at: Timestamp,
    second_read_at: Timestamp,
    /// Members that were asked and agreed, the node itself among them.
    witnesses: Vec<NodeId>,
}

impl ProofOfEmpty {
    pub fn node(&self) -> &NodeId {
        &self.node
    }
}
