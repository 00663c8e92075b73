//! Where people do what vecscale does not: nodes that others add are newcomers until they were adopted, and a node that a
//! person had drained stays out until that person says otherwise.

use std::collections::BTreeSet;

use serde_json::json;

use crate::handle::{Refusal, RefusalKind, Reply};
use crate::model::{Answer, HistoryKind, Inventory, Member, NodeId, NodeSample};

use super::ask::{refusal, unwritten};
use super::{Controller, differences};

impl Controller {
    /// Nodes that others have added since the last census; a machine that is no member yet has to answer. None where the
    /// provider makes the nodes, or they hold no data.
    pub(super) fn arrivals(&self, inventory: Option<&Inventory>, samples: &[NodeSample]) -> Vec<NodeId> {
        let (Some(inventory), Some(census)) = (inventory.filter(|_| !self.can_change()), &self.census) else {
            return Vec::new();
        };
        let answers = |id: &NodeId| samples.iter().any(|s| s.node == *id && matches!(s.answer, Answer::Up));
        let machines = self.machines.iter().map(|m| &m.id).filter(|id| answers(id));
        let answering = machines.filter(|id| !self.memory.replaced().contains(id)).cloned().collect();
        let mut arrivals = differences::arrivals(inventory, &answering, census);
        // An operation that has just ended accounts for them; the census is to follow.
        arrivals.retain(|id| !self.touched.contains(id));
        arrivals
    }

    pub(super) fn is_arriving(&self, id: &NodeId) -> bool {
        self.world.as_ref().is_some_and(|world| world.arrivals.contains(id))
    }

    /// What counts as being there: where nodes come by other hands, one that was listed and adopted in vain, too.
    pub(super) fn known_to_others(&self, present: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let listed = self.machines.iter().map(|m| &m.id).filter(|_| !self.can_change());
        present.iter().chain(listed).cloned().collect()
    }

    pub(super) fn member(&self, id: &NodeId) -> Option<&Member> {
        self.world.as_ref()?.inventory.as_ref().ok()?.as_ref()?.member(id)
    }

    /// Drained nodes count as cordoned, whatever the store says; gives those of which it does not say so.
    pub(super) fn cordon_drained(&self, inventory: &mut Inventory) -> Vec<NodeId> {
        let drained = self.memory.drained();
        let lost = inventory.members.iter_mut().filter(|m| drained.contains_key(&m.id) && !m.cordoned);
        lost.map(|member| {
            member.cordoned = true;
            member.id.clone()
        })
        .collect()
    }

    /// Takes the drain of a node back: its cordon is lifted, now or with the next checks.
    pub(super) async fn open_again(&mut self, node: &NodeId, who: &str) -> Result<Reply, Refusal> {
        let conflict = |why: String| refusal(RefusalKind::Conflict, why);
        if (self.stop_file)() {
            return Err(conflict(
                "a file named STOP lies in the storage path: nothing is changed until it is gone".into(),
            ));
        }
        if let Some(open) = self.operation.as_ref().filter(|o| o.nodes.contains(node)) {
            let why = format!(
                "{} {} is open: `vecscale operation {} cancel` lifts the cordon",
                open.kind.as_str(),
                open.id,
                open.id
            );
            return Err(Refusal { operation: Some(open.id.clone()), ..conflict(why) });
        }
        let mut next = self.memory.clone();
        let Some(operation) = next.opened(node) else {
            return Err(refusal(
                RefusalKind::NotFound,
                format!("{node} was not drained: there is nothing to take back"),
            ));
        };
        let now = self.eyes.clock.now();
        let summary = format!("drain of {node} taken back");
        let entry = self.entry(now, HistoryKind::Setting, who, &summary, &json!({"operation": operation}));
        self.journal.save(&self.pool, "memory", &json!(next), Some(entry)).await.map_err(unwritten)?;
        self.telemetry.setting_changed(&self.pool, who, &summary);
        self.memory = next;
        // Its cordon is a left-over of ours from now on: what does not come about here does with the next checks.
        self.cordoned.insert(node.clone(), operation.clone().into());
        let why = format!("{who} has taken back the drain of operation {operation}");
        let Err(why) = self.set_cordon(now, node, &operation, false, &why).await else { return Ok(Reply::Done) };
        let later = format!(
            "the drain of {node} is taken back, but its cordon is not lifted yet ({why}): it is tried again with \
             each check while no operation is open"
        );
        Err(refusal(RefusalKind::Unavailable, later))
    }
}
