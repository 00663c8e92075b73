//! A datastore with hooks of the user's around it: scripts that send clients to a node, and away from it before it is
//! emptied. Everything else is the datastore's own.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use super::script::calls::{Order, Scripts, Subject};
use super::{Call, Datastore, Effect, Places, ServiceHookSettings, Unanswered};
use crate::model::{Inventory, Machine, Member, Move, NodeId, PoolName, ShardId};
use crate::operate::proof::{ProofOfCopies, ProofOfEmpty};

/// Any datastore, with hooks.
pub struct ServiceHooks {
    inner: Arc<dyn Datastore>,
    scripts: Scripts,
    settings: ServiceHookSettings,
}

impl ServiceHooks {
    pub fn new(
        inner: Arc<dyn Datastore>,
        pool: PoolName,
        settings: ServiceHookSettings,
        places: &Places,
    ) -> ServiceHooks {
        ServiceHooks { inner, scripts: Scripts::new(pool, settings.env.clone(), places), settings }
    }

    /// Runs one hook. Whether it has taken nobody can see, so one that ended without a clear word is simply run again.
    async fn run(&self, argv: Option<&Vec<String>>, call: &Call, node: &Member) -> Effect<()> {
        let Some(argv) = argv else { return Effect::Done(()) };
        let input = json!({
            "contract": 1, "pool": call.pool, "node": node.id, "address": node.address, "operation": call.operation,
        });
        let (subject, limit) = (Subject::Node(&node.id), ServiceHookSettings::TIMEOUT);
        let order = Order { argv, call, subject, input: &input, limit };
        self.scripts.change(order, async { Ok(None) }, |_| Ok(())).await
    }
}

#[async_trait]
impl Datastore for ServiceHooks {
    async fn inventory(&self, via: Option<&NodeId>) -> Result<Inventory, Unanswered> {
        self.inner.inventory(via).await
    }

    async fn held_by(&self, node: &Member) -> Result<Vec<(ShardId, u64)>, Unanswered> {
        self.inner.held_by(node).await
    }

    async fn join(&self, call: &Call, machine: &Machine) -> Effect<()> {
        self.inner.join(call, machine).await
    }

    async fn ready(&self, machine: &Machine) -> Result<bool, Unanswered> {
        self.inner.ready(machine).await
    }

    async fn cordon(&self, call: &Call, node: &NodeId) -> Effect<()> {
        self.inner.cordon(call, node).await
    }

    async fn uncordon(&self, call: &Call, node: &NodeId) -> Effect<()> {
        self.inner.uncordon(call, node).await
    }

    async fn start_move(&self, call: &Call, relocation: &Move) -> Effect<()> {
        self.inner.start_move(call, relocation).await
    }

    async fn finish_move(&self, call: &Call, relocation: &Move) -> Effect<()> {
        self.inner.finish_move(call, relocation).await
    }

    async fn replicate(&self, call: &Call, copy: &Move) -> Effect<()> {
        self.inner.replicate(call, copy).await
    }

    async fn cancel_move(&self, call: &Call, relocation: &Move) -> Effect<()> {
        self.inner.cancel_move(call, relocation).await
    }

    async fn leave(&self, call: &Call, node: &NodeId, proof: &ProofOfEmpty) -> Effect<()> {
        self.inner.leave(call, node, proof).await
    }

    async fn forget(&self, call: &Call, node: &NodeId, proof: &ProofOfCopies) -> Effect<()> {
        self.inner.forget(call, node, proof).await
    }

    async fn unjoin(&self, call: &Call, node: &NodeId) -> Effect<()> {
        self.inner.unjoin(call, node).await
    }

    async fn out_of_service(&self, call: &Call, node: &Member) -> Effect<()> {
        self.run(self.settings.out_of_service.as_ref(), call, node).await
    }

    async fn in_service(&self, call: &Call, node: &Member) -> Effect<()> {
        self.run(self.settings.in_service.as_ref(), call, node).await
    }

    fn has_service_hooks(&self) -> bool {
        true
    }

    fn holds_data(&self) -> bool {
        self.inner.holds_data()
    }
}

#[cfg(test)]
mod tests;
