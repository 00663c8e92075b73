//! What Qdrant does by itself: a dead copy on a living peer is made whole from an active one.

use std::time::Duration;

use super::cluster::Cluster;
use super::collection::State;
use super::nodes::Process;
use super::reply::millis;
use super::transfer::{Method, Order};

/// It does so after so long.
const RECOVERS: Duration = millis(600);

impl Cluster {
    /// Dead copies on living peers which Qdrant may recover now, and when it does.
    fn recoveries(&self) -> Vec<(Duration, Order)> {
        let mut orders = Vec::new();
        if !self.agrees() {
            return orders;
        }
        for (name, collection) in &self.collections {
            for (&number, shard) in &collection.shards {
                for (&peer, copy) in &shard.copies {
                    let Some(node) = self.node_of(peer) else { continue };
                    let running = || collection.transfers.iter().filter(|t| t.over.is_none());
                    let moves = |end: u64| running().any(|t| t.shard == number && [t.from, t.to].contains(&end));
                    let busy = moves(peer) || running().any(|t| t.by_itself && t.to == peer);
                    let serves = |from: u64| shard.is_active(from) && self.process_of(from) == Process::Up;
                    let source = shard.copies.keys().find(|from| serves(**from) && !moves(**from));
                    let (State::Dead, Process::Up, false, Some(&from)) = (copy.state, node.process, busy, source)
                    else {
                        continue;
                    };
                    let key = (name.clone(), number);
                    let has_some = node.store.get(&key).is_some_and(|points| !points.is_empty());
                    let method = if has_some { Method::WalDelta } else { Method::Snapshot };
                    let at = copy.since.max(node.started) + RECOVERS;
                    let collection = name.clone();
                    let order =
                        Order { collection, shard: number, from, to: peer, sync: true, method, by_itself: true };
                    orders.push((at, order));
                }
            }
        }
        orders
    }

    pub(super) fn next_recovery(&self) -> Option<Duration> {
        self.recoveries().into_iter().map(|(at, _)| at).min()
    }

    /// One recovery a collection and node at a time.
    pub(super) fn recoveries_happen(&mut self) {
        let now = self.now;
        while let Some((_, order)) = self.recoveries().into_iter().find(|(at, _)| *at <= now) {
            self.start_transfer(&order, now);
        }
    }
}
