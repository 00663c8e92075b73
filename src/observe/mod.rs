//! samples -> observation. Pure: `now` and every instant come in as arguments.
//!
//! [`Window`] remembers of each node what one look cannot tell: the counts of the check before, and how long it has been
//! well or ill. [`aggregate`] turns what it holds into the pool's readings.

mod aggregate;
mod growth;
mod health;
mod quantile;
mod readings;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeMap;

use crate::model::{Aggregate, NodeId, NodeState, PoolName, Signal};

pub use aggregate::aggregate;
pub use window::Window;

/// The settings of observing, as believed.
#[derive(Clone, Debug)]
pub struct ObserveSettings {
    pub pool: PoolName,
    /// All configured signals: each gets a reading, and no other does.
    pub signals: Vec<Signal>,
    /// How node values become the pool's, for usages and custom signals; the mean where nothing is said.
    pub aggregate: BTreeMap<Signal, Aggregate>,
    /// A datastore is configured: while it does not answer, what only it can tell is not known.
    pub has_store: bool,
    /// Bad checks in a row that make a node unhealthy.
    pub bad_checks: u32,
    /// Good checks in a row that make it healthy again.
    pub good_checks: u32,
    /// With fewer requests than this between two checks, over the whole pool, latency and error rate are idle.
    pub idle_below: f64,
}

impl ObserveSettings {
    /// The defaults.
    pub fn new(pool: PoolName, signals: Vec<Signal>, has_store: bool) -> ObserveSettings {
        ObserveSettings {
            pool,
            signals,
            aggregate: BTreeMap::new(),
            has_store,
            bad_checks: 3,
            good_checks: 3,
            idle_below: 20.0,
        }
    }
}

/// A node that the pool should have, as the controller knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterEntry {
    pub id: NodeId,
    pub address: String,
    pub zone: Option<String>,
    /// Readings are taken over nodes that serve or drain. One that joins, or is in maintenance, is shown but not
    /// read; a lost one is shown and never healthy.
    pub state: NodeState,
    /// A person had it emptied, and it stays out: it is shown but not read, and may be switched off.
    pub drained: bool,
}

impl RosterEntry {
    /// Whether the pool's readings are taken over this node.
    fn is_read(&self) -> bool {
        matches!(self.state, NodeState::Serving | NodeState::Draining) && !self.drained
    }
}
