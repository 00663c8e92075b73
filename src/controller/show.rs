//! The pool as it stands -> the picture that API and `/metrics` read.

use std::sync::Arc;

use crate::decide;
use crate::model::{Kind, NodeId, Observation, OperationState, PoolView};

use super::{Controller, picture};

impl Controller {
    /// Publishes the pool as it stands.
    pub(super) fn show(&self) {
        let now = self.eyes.clock.now();
        let policy = self.policy();
        let laid = self.overlay().sources.into_iter().map(|(name, source)| (name.to_string(), source));
        let world = self.world.as_ref();
        let inventory = world.and_then(|w| w.inventory.as_ref().ok()).and_then(Option::as_ref);
        let trouble = picture::Trouble {
            journal: self.journal_trouble.as_deref(),
            provider: world.and_then(|w| w.provider_silent.as_deref()),
            store: world.and_then(|w| w.inventory.as_ref().err()).map(String::as_str),
        };
        let unexplained = self.unexplained();
        let counted = |f: fn(&Observation) -> usize| world.map_or(0, |w| f(&w.seen));
        let operation = self.operation.as_ref();
        let decision = self.decision.as_ref();
        let prospect =
            world.map(|w| decide::prospect(&policy, &self.memory, &self.situation(w, None))).unwrap_or_default();
        let lost = self.machines.iter().map(|m| &m.id).filter(|id| self.memory.replaced().contains(id));
        let store = world.and_then(|w| w.inventory.as_ref().ok()).and_then(Option::as_ref);
        let is_back = |id| store.and_then(|store| store.member(id)).is_some_and(|member| member.healthy);
        let lost: Vec<(&NodeId, bool)> = lost.map(|id| (id, is_back(id))).collect();
        let mut needs_human = picture::needs_human(decision, operation, trouble, &prospect.guards, &unexplained, &lost);
        let asked = picture::asks(self.memory.asked());
        needs_human.extend(asked.clone());
        let unsettled = picture::unsettled(&needs_human, world.map(|w| w.seen.as_ref()));
        self.view.store(Arc::new(PoolView {
            pool: self.pool.clone(),
            at: now,
            mode: self.mode,
            stop_file: (self.stop_file)(),
            seen: world.map(|w| Observation::clone(&w.seen)),
            thresholds: policy.thresholds,
            usual_thresholds: self.settings.effective(),
            sources: self.settings.sources().into_iter().chain(laid).collect(),
            overridden: self.overridden(),
            windows: self.windows.views(),
            conditions: decision.map(|d| d.conditions.clone()).unwrap_or_default(),
            decision: self.decision.clone(),
            guards: prospect.guards,
            operation: self.operation.clone(),
            last_operation: self.last_operation.clone(),
            cooldowns: decide::cooldowns(&policy, &self.memory, now),
            outlook: world.map(|w| w.outlook.clone()).unwrap_or_default(),
            bytes_per_second: self.experience.bytes_per_second,
            desired_nodes: self.desired_nodes(),
            nodes_wanted: self.memory.asked().nodes,
            store: picture::store_health(inventory),
            headline: picture::headline(
                self.mode,
                counted(Observation::node_count),
                counted(Observation::healthy_nodes),
                decision,
                operation,
                unsettled.as_deref(),
                asked.as_deref(),
            ),
            guards_against: prospect.against,
            victim: prospect.victim,
            needs_human,
            unexplained,
            maintenance: self.maintenance.clone(),
            drained: self.memory.drained().clone(),
            alerts: decide::standings(&policy, &self.memory, &self.alerts),
        }));
    }

    /// The node count aimed at: of the open operation, else the nodes that count.
    fn desired_nodes(&self) -> u32 {
        let Some(world) = &self.world else { return 0 };
        let counting = world.seen.node_count() as u32;
        match self.operation.as_ref().map(|o| (o.kind, o.state, &o.nodes)) {
            Some((Kind::ScaleUp | Kind::Adopt, OperationState::Running, new)) => {
                counting + new.iter().filter(|id| world.seen.node(id).is_none()).count() as u32
            }
            Some((Kind::ScaleDown, OperationState::Running, gone)) => {
                counting.saturating_sub(gone.iter().filter(|id| world.seen.node(id).is_some()).count() as u32)
            }
            // The new node comes for the dead one, which still counts until it is forgotten.
            Some((Kind::Replace, OperationState::Running, new)) => {
                counting.saturating_sub(new.iter().filter(|id| world.seen.node(id).is_some()).count() as u32)
            }
            _ => counting,
        }
    }
}
