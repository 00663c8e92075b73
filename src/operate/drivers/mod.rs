//! The hands: a *provider* makes and destroys nodes, a *datastore* knows shards and moves them. Every call may come
//! twice with the same key, so a driver looks before it acts. An error is "unknown", never "empty".

pub mod conformance;
pub mod file_sd;
pub mod http;
pub mod none;
pub mod process;
pub mod qdrant;
pub mod qdrant_node;
pub mod script;
pub mod script_store;
pub mod service_hooks;
mod settings;
pub mod vectornode;
mod written;

use std::time::Duration;

use async_trait::async_trait;

use crate::model::{Inventory, Machine, Member, Move, NodeId, OperationId, PoolName, ShardId};

pub use settings::*;

/// What a driver call carries besides its subject.
#[derive(Clone, Debug)]
pub struct Call {
    pub pool: PoolName,
    pub operation: OperationId,
    /// The step's name (`create`, `move` …).
    pub step: &'static str,
    /// Idempotency key: the same on every retry of the same step.
    pub key: String,
    /// Grows with every start of the controller; a receiver refuses a lower one than it has seen.
    pub fence: u64,
    pub deadline: Duration,
}

/// How a call that changes something came out.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<T> {
    Done(T),
    /// Under way; ask again with the same key.
    InProgress,
    /// Refused, and nothing was changed.
    NoEffect(String),
    /// Nobody knows whether it happened: probe, do not repeat.
    Unknown(String),
}

impl<T> Effect<T> {
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Effect<U> {
        match self {
            Effect::Done(value) => Effect::Done(change(value)),
            Effect::InProgress => Effect::InProgress,
            Effect::NoEffect(why) => Effect::NoEffect(why),
            Effect::Unknown(why) => Effect::Unknown(why),
        }
    }
}

/// A read that failed: the answer is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unanswered(pub String);

/// Which node a provider can take away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Victim {
    #[default]
    Any,
    /// Only the highest ordinal.
    Last,
}

/// A node that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    pub id: NodeId,
    /// Where it should be, in the provider's own words.
    pub zone: Option<String>,
    /// The dead node that it stands in for.
    pub replaces: Option<NodeId>,
}

impl NewNode {
    /// One that may be anywhere and replaces nobody.
    pub fn named(id: NodeId) -> NewNode {
        NewNode { id, zone: None, replaces: None }
    }
}

/// Makes and destroys nodes.
#[async_trait]
pub trait Provider: Send + Sync {
    /// All nodes it runs, ordered by id; also the probe after an unknown outcome.
    async fn list(&self) -> Result<Vec<Machine>, Unanswered>;

    /// Runs a node of this name. `Done` may come before the node answers.
    async fn create(&self, call: &Call, node: &NewNode) -> Effect<Machine>;

    /// Takes exactly this node away, its data included. A node that is not there is `Done`.
    async fn destroy(&self, call: &Call, machine: &Machine) -> Effect<()>;

    fn victim(&self) -> Victim {
        Victim::Any
    }

    /// The longest a creation may take.
    fn timeout(&self) -> Duration;
}

/// Knows the members and the shards, and moves them. Every mutating call returns soon; what it started is watched
/// through [`Datastore::inventory`].
#[async_trait]
pub trait Datastore: Send + Sync {
    /// The cluster as node `via` tells it, or as any node does when `None`.
    async fn inventory(&self, via: Option<&NodeId>) -> Result<Inventory, Unanswered>;

    /// What `node` itself holds, asked of no one else: `(shard, vectors)`.
    async fn held_by(&self, node: &Member) -> Result<Vec<(ShardId, u64)>, Unanswered>;

    /// Makes the machine a member, if the store does not do that by itself. Idempotent.
    async fn join(&self, call: &Call, machine: &Machine) -> Effect<()>;

    /// Whether the node, asked itself, serves as a member of *this* cluster: one good probe of three.
    async fn ready(&self, machine: &Machine) -> Result<bool, Unanswered>;

    /// Nothing new is placed on the node. Idempotent.
    async fn cordon(&self, call: &Call, node: &NodeId) -> Effect<()>;

    async fn uncordon(&self, call: &Call, node: &NodeId) -> Effect<()>;

    /// Starts one relocation: a new copy on `to`, and only when that is complete the copy on `from` is dropped.
    /// Running or finished already is `Done`.
    async fn start_move(&self, call: &Call, relocation: &Move) -> Effect<()>;

    /// Ends a relocation in a store that copies only: the copy on `to` is active, nothing is in transfer, so the copy on
    /// `from` is dropped. A store that does so by itself has nothing to do. Idempotent.
    async fn finish_move(&self, _call: &Call, _relocation: &Move) -> Effect<()> {
        Effect::Done(())
    }

    /// Starts one further copy on `to`, made from the one on `from`, which keeps its own. Running or finished already is
    /// `Done`.
    async fn replicate(&self, call: &Call, copy: &Move) -> Effect<()>;

    /// Ends a running relocation or replication; the source keeps its copy.
    async fn cancel_move(&self, call: &Call, relocation: &Move) -> Effect<()>;

    /// The node leaves the membership. Refused by the store while it holds a shard.
    async fn leave(&self, call: &Call, node: &NodeId, proof: &super::proof::ProofOfEmpty) -> Effect<()>;

    /// The dead node, and what it was listed to hold, are no longer part of the cluster. A node that is no member is
    /// `Done`.
    async fn forget(&self, call: &Call, node: &NodeId, proof: &super::proof::ProofOfCopies) -> Effect<()>;

    /// The node, which never held a shard, is no longer a member: undo of [`Datastore::join`].
    async fn unjoin(&self, call: &Call, node: &NodeId) -> Effect<()>;

    /// No client is sent to the node any more, as before it is emptied: a hook of the user's, such as for a load balancer.
    /// Without a hook there is nothing to do. Idempotent.
    async fn out_of_service(&self, _call: &Call, _node: &Member) -> Effect<()> {
        Effect::Done(())
    }

    /// Clients are sent to the node. Idempotent.
    async fn in_service(&self, _call: &Call, _node: &Member) -> Effect<()> {
        Effect::Done(())
    }

    /// Whether [`Datastore::out_of_service`] and [`Datastore::in_service`] do anything.
    fn has_service_hooks(&self) -> bool {
        false
    }

    /// Whether nodes hold data at all: `false` for datastore `none`.
    fn holds_data(&self) -> bool {
        true
    }
}
