//! Datastore driver for Qdrant, over the REST API of its nodes.
//!
//! Qdrant's answer to a change says that it was taken up, not that it is done: what was done is read from the cluster,
//! before and after each call. A relocation is a copy that is made, watched, and only then the source's copy is
//! dropped: Qdrant's own `move_shard` fails searches as it cuts over, and onto a node that holds a copy already it
//! makes two copies one. Nothing is ever taken from a shard but a copy beside an active one on a node that answers.
//!
//! | file | |
//! |---|---|
//! | `api` | the way to a node; `rest` goes it over HTTP |
//! | `ask`, `told`, `words` | the questions, the answers as written, and what their errors mean |
//! | `survey` | who is who, who leads, whether the members can agree |
//! | `placement`, `read` | where the shards are |
//! | `shift`, `members` | what changes them |

pub mod api;
mod ask;
mod members;
mod placement;
mod read;
mod rest;
mod shift;
mod survey;
#[cfg(test)]
mod tests;
mod told;
mod words;

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;

use self::api::Api;
use self::ask::Asker;
use self::read::Memory;
use super::{Call, Datastore, Effect, Provider, Unanswered};
use crate::model::{Inventory, Machine, Member, Move, NodeId, ShardId};
use crate::operate::proof::{ProofOfCopies, ProofOfEmpty};

pub use self::rest::Rest;

/// Where the cluster's own store keeps which peers take nothing new: `{"peers": [1, 2]}`. We are its only writer.
const CORDONED: &str = "vecscale_cordoned";
/// Where it keeps which node each peer is, for a start while one of them is dead: `{"1": "n1"}`.
const NAMES: &str = "vecscale_nodes";

/// The driver. It keeps no task running: what Qdrant was asked for goes on without it.
pub struct Qdrant {
    provider: Arc<dyn Provider>,
    ask: Asker,
    memory: Mutex<Memory>,
}

impl Qdrant {
    /// `provider` says where nodes are, as Qdrant does not tell its REST addresses.
    pub fn new(provider: Arc<dyn Provider>, api: Arc<dyn Api>) -> Qdrant {
        Qdrant { provider, ask: Asker(api), memory: Mutex::default() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no panic while it is held")
    }
}

#[async_trait]
impl Datastore for Qdrant {
    async fn inventory(&self, via: Option<&NodeId>) -> Result<Inventory, Unanswered> {
        let survey = self.survey().await?;
        let Some(node) = via else {
            let (shards, cordoned) = tokio::join!(self.shards(&survey), self.cordoned(&survey));
            return Ok(self.inventory_of(&survey, shards?, &cordoned?));
        };
        let peer = self.witness(&survey, node)?;
        let (shards, cordoned) = tokio::join!(self.shards_via(node, &peer.address), self.cordoned(&survey));
        Ok(self.inventory_of(&survey, shards?, &cordoned?))
    }

    async fn held_by(&self, node: &Member) -> Result<Vec<(ShardId, u64)>, Unanswered> {
        let survey = self.survey().await?;
        let peer = self.witness(&survey, &node.id)?;
        let views = self.views(&peer.address).await.map_err(|error| Unanswered(format!("{}: {error}", node.id)))?;
        let held = views.into_iter().flat_map(|(name, view)| {
            let collection: Arc<str> = name.as_str().into();
            let id = move |shard| ShardId { collection: collection.clone(), shard };
            view.local_shards.into_iter().map(move |shard| (id(shard.shard_id), shard.points_count))
        });
        Ok(held.collect())
    }

    async fn join(&self, _: &Call, machine: &Machine) -> Effect<()> {
        self.has_joined(machine).await
    }

    async fn ready(&self, machine: &Machine) -> Result<bool, Unanswered> {
        self.serves(machine).await
    }

    async fn cordon(&self, _: &Call, node: &NodeId) -> Effect<()> {
        self.set_cordon(node, true).await
    }

    async fn uncordon(&self, _: &Call, node: &NodeId) -> Effect<()> {
        self.set_cordon(node, false).await
    }

    async fn start_move(&self, _: &Call, relocation: &Move) -> Effect<()> {
        self.copy(relocation, true).await
    }

    async fn finish_move(&self, _: &Call, relocation: &Move) -> Effect<()> {
        self.drop_source(relocation).await
    }

    async fn replicate(&self, _: &Call, copy: &Move) -> Effect<()> {
        self.copy(copy, false).await
    }

    async fn cancel_move(&self, _: &Call, relocation: &Move) -> Effect<()> {
        self.cancel(relocation).await
    }

    async fn leave(&self, _: &Call, node: &NodeId, proof: &ProofOfEmpty) -> Effect<()> {
        if proof.node() != node {
            return Effect::NoEffect(format!("the proof is about {}, not {node}", proof.node()));
        }
        self.remove_empty(node).await
    }

    async fn forget(&self, _: &Call, node: &NodeId, proof: &ProofOfCopies) -> Effect<()> {
        if proof.node() != node {
            return Effect::NoEffect(format!("the proof is about {}, not {node}", proof.node()));
        }
        self.strike_off(node).await
    }

    async fn unjoin(&self, _: &Call, node: &NodeId) -> Effect<()> {
        self.remove_empty(node).await
    }
}
