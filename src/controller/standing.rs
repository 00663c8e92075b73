//! Asked by the operator before it begins, and again before what cannot be taken back: does the decision still stand?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use crate::model::{Kind, Machine, NodeId, NodeState, Operation, PoolView, Signal};
use crate::operate::placement::Placing;
use crate::operate::runner::{Service, Standing};

use super::StopFile;

/// How often it is asked whether the first look is done.
const AGAIN: Duration = Duration::from_millis(100);

/// Answers from the pool's last picture.
pub struct Picture {
    pub view: Arc<ArcSwap<PoolView>>,
    pub stop_file: StopFile,
    pub has_listed: Arc<AtomicBool>,
    /// As of the last look.
    pub placing: Arc<ArcSwap<Placing>>,
}

#[async_trait]
impl Standing for Picture {
    async fn still_stands(&self, operation: &Operation, machines: Option<&[Machine]>) -> Result<(), String> {
        match operation.kind {
            Kind::ScaleDown => may_lose(self.seen().await.as_ref(), operation, machines),
            Kind::Drain => may_lose(self.seen().await.as_ref(), operation, None),
            Kind::Replace => is_dead(self.seen().await.as_ref(), operation),
            Kind::ScaleUp | Kind::Rebalance | Kind::Adopt | Kind::Reap => Ok(()),
        }
    }

    fn forbidden(&self) -> bool {
        (self.stop_file)()
    }

    fn service(&self) -> Option<Service> {
        let view = self.view.load();
        let seen = view.seen.as_ref()?;
        let reading = |signal: Signal| seen.readings.get(&signal).cloned();
        Some(Service {
            at: seen.at,
            latency: reading(Signal::Latency),
            error_rate: reading(Signal::ErrorRate),
            latency_high: view.thresholds.latency_threshold_high,
            error_rate_high: view.thresholds.error_rate_threshold_high,
        })
    }

    fn has_listed(&self) -> bool {
        self.has_listed.load(Ordering::Relaxed)
    }

    /// Right after a start, once it was looked at in which zone each node is.
    async fn placing(&self) -> Arc<Placing> {
        self.seen().await;
        self.placing.load_full()
    }
}

impl Picture {
    /// The last picture; right after a start, the first that shows anything: every look comes to an end.
    async fn seen(&self) -> Arc<PoolView> {
        loop {
            let view = self.view.load_full();
            if view.seen.is_some() {
                return view;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Whether the node that is to be replaced is still as ill as it was.
fn is_dead(view: &PoolView, operation: &Operation) -> Result<(), String> {
    let replaced = |n: &&crate::model::NodeSeen| operation.replaces.as_ref() == Some(&n.id);
    match view.seen.iter().flat_map(|seen| &seen.nodes).find(replaced) {
        Some(node) if node.healthy => Err(format!("{} is healthy again", node.id)),
        _ => Ok(()),
    }
}

/// Whether the pool can do with one node fewer as it looks now: as it was seen last, without what is not listed any more.
fn may_lose(view: &PoolView, operation: &Operation, machines: Option<&[Machine]>) -> Result<(), String> {
    let Some(seen) = &view.seen else { return Err("the pool was not looked at yet".into()) };
    let is_listed = |id: &NodeId| machines.is_none_or(|all| all.iter().any(|machine| machine.id == *id));
    let stays = |n: &&crate::model::NodeSeen| {
        let counts = matches!(n.state, NodeState::Serving | NodeState::Joining);
        counts && !operation.nodes.contains(&n.id) && is_listed(&n.id)
    };
    let staying = seen.nodes.iter().filter(stays).count() as u32;
    if staying < view.thresholds.min_nodes {
        return Err(format!("{staying} nodes would stay, fewer than min_nodes ({})", view.thresholds.min_nodes));
    }
    let ill: Vec<&str> = seen.nodes.iter().filter(stays).filter(|n| !n.healthy).map(|n| n.id.as_str()).collect();
    if ill.is_empty() { Ok(()) } else { Err(format!("not healthy: {}", ill.join(", "))) }
}
