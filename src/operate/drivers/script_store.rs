//! Datastore by scripts of the user's: `inventory` tells the whole cluster, the others change it. What is not said
//! clearly is "unknown"; every change is watched through the inventory, never believed.

mod told;

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::script::calls::{Order, Scripts, Subject};
use super::{Call, Datastore, Effect, Places, ScriptStoreSettings, Unanswered};
use crate::model::{Inventory, Machine, Member, Move, NodeId, PoolName, ReplicaState, ShardId};
use crate::operate::proof::{ProofOfCopies, ProofOfEmpty};

/// Knows and moves shards by running scripts.
pub struct ScriptStore {
    scripts: Scripts,
    settings: ScriptStoreSettings,
    /// Whether the cluster ever had a member: an empty list is no answer from then on.
    had_members: AtomicBool,
}

impl ScriptStore {
    pub fn new(pool: PoolName, settings: ScriptStoreSettings, places: &Places) -> ScriptStore {
        let scripts = Scripts::new(pool, settings.env.clone(), places);
        ScriptStore { scripts, settings, had_members: AtomicBool::new(false) }
    }

    /// One script about one node; `is_so` says whether a view of the cluster shows that it is done.
    async fn on_node(
        &self,
        argv: &[String],
        call: &Call,
        node: &NodeId,
        is_so: impl Fn(&Inventory) -> bool + Send + Sync,
    ) -> Effect<()> {
        let input = json!({"contract": 1, "pool": call.pool, "node": node, "operation": call.operation});
        self.change(argv, call, Subject::Node(node), &input, is_so).await
    }

    /// One script about one copy on its way.
    async fn on_copy(
        &self,
        argv: &[String],
        call: &Call,
        copy: &Move,
        is_so: impl Fn(&Inventory) -> bool + Send + Sync,
    ) -> Effect<()> {
        let ShardId { collection, shard } = &copy.shard;
        let input = json!({
            "contract": 1, "pool": call.pool, "collection": collection, "shard": shard, "from": copy.from,
            "to": copy.to, "operation": call.operation,
        });
        self.change(argv, call, Subject::Shard(&copy.shard), &input, is_so).await
    }

    async fn change(
        &self,
        argv: &[String],
        call: &Call,
        subject: Subject<'_>,
        input: &Value,
        is_so: impl Fn(&Inventory) -> bool + Send + Sync,
    ) -> Effect<()> {
        let order = Order { argv, call, subject, input, limit: self.settings.timeout };
        let already = async { Ok(is_so(&self.inventory(None).await?).then_some(())) };
        self.scripts.change(order, already, |_| Ok(())).await
    }

    /// A member that is not listed any more. An inventory without any member never gets here.
    async fn remove(&self, call: &Call, node: &NodeId) -> Effect<()> {
        self.on_node(&self.settings.forget, call, node, |seen| seen.member(node).is_none()).await
    }
}

fn in_flight(seen: &Inventory, copy: &Move) -> bool {
    seen.transfers.iter().any(|t| t.shard == copy.shard && t.from == copy.from && t.to == copy.to)
}

fn active_on(seen: &Inventory, shard: &ShardId, node: &NodeId) -> bool {
    seen.on(node).any(|replica| replica.shard == *shard && replica.state == ReplicaState::Active)
}

#[async_trait]
impl Datastore for ScriptStore {
    async fn inventory(&self, via: Option<&NodeId>) -> Result<Inventory, Unanswered> {
        let input = json!({"contract": 1, "pool": self.scripts.pool(), "via": via});
        let argv = &self.settings.inventory;
        let stdout = self.scripts.read(argv, &input).await.map_err(Unanswered)?;
        let failed = |why: String| Unanswered(format!("script {:?}: {why}", argv.first()));
        let seen = told::inventory(&stdout).map_err(failed)?;
        if !seen.members.is_empty() {
            self.had_members.store(true, Ordering::Relaxed);
        } else if self.had_members.load(Ordering::Relaxed) {
            return Err(failed("it lists no member at all, though it did before".into()));
        }
        Ok(seen)
    }

    async fn held_by(&self, node: &Member) -> Result<Vec<(ShardId, u64)>, Unanswered> {
        let seen = self.inventory(Some(&node.id)).await?;
        if seen.member(&node.id).is_none() {
            return Err(Unanswered(format!("asked itself, {} does not list itself as a member", node.id)));
        }
        Ok(seen.on(&node.id).map(|replica| (replica.shard.clone(), replica.vectors)).collect())
    }

    /// The store, or the script that creates nodes, does that.
    async fn join(&self, _: &Call, _: &Machine) -> Effect<()> {
        Effect::Done(())
    }

    async fn ready(&self, machine: &Machine) -> Result<bool, Unanswered> {
        let seen = self.inventory(Some(&machine.id)).await?;
        Ok(seen.member(&machine.id).is_some_and(|member| member.healthy))
    }

    async fn cordon(&self, call: &Call, node: &NodeId) -> Effect<()> {
        let is_so = |seen: &Inventory| seen.member(node).is_some_and(|member| member.cordoned);
        self.on_node(&self.settings.cordon, call, node, is_so).await
    }

    async fn uncordon(&self, call: &Call, node: &NodeId) -> Effect<()> {
        let is_so = |seen: &Inventory| seen.member(node).is_some_and(|member| !member.cordoned);
        self.on_node(&self.settings.uncordon, call, node, is_so).await
    }

    async fn start_move(&self, call: &Call, relocation: &Move) -> Effect<()> {
        let Move { shard, from, to, .. } = relocation;
        let is_so = |seen: &Inventory| {
            let left = !seen.on(from).any(|replica| replica.shard == *shard);
            in_flight(seen, relocation) || (left && active_on(seen, shard, to))
        };
        self.on_copy(&self.settings.start_move, call, relocation, is_so).await
    }

    async fn replicate(&self, call: &Call, copy: &Move) -> Effect<()> {
        let is_so = |seen: &Inventory| in_flight(seen, copy) || active_on(seen, &copy.shard, &copy.to);
        self.on_copy(&self.settings.replicate, call, copy, is_so).await
    }

    async fn cancel_move(&self, call: &Call, relocation: &Move) -> Effect<()> {
        self.on_copy(&self.settings.cancel, call, relocation, |seen| !in_flight(seen, relocation)).await
    }

    async fn leave(&self, call: &Call, node: &NodeId, proof: &ProofOfEmpty) -> Effect<()> {
        if proof.node() != node {
            return Effect::NoEffect(format!("the proof is about {}, not {node}", proof.node()));
        }
        self.remove(call, node).await
    }

    async fn forget(&self, call: &Call, node: &NodeId, proof: &ProofOfCopies) -> Effect<()> {
        if proof.node() != node {
            return Effect::NoEffect(format!("the proof is about {}, not {node}", proof.node()));
        }
        self.remove(call, node).await
    }

    async fn unjoin(&self, call: &Call, node: &NodeId) -> Effect<()> {
        self.remove(call, node).await
    }
}

#[cfg(test)]
mod tests;
