//! The kinds of work that are taken apart over an invented Qdrant, each over eight shards with two copies.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::json;

use super::pool::Pool;
use super::site::{COLLECTION, COPIES, Site, address};
use crate::model::{Action, NodeId, Operation};
use crate::operate::drivers::qdrant::api::{Api, Request};
use crate::replay::node;
use crate::replay::qdrant::{Cluster, Wire};
use crate::replay::tests::apart::Piece;
use crate::replay::tests::bench::planned;

/// Enough that a copy without them is seen to lack them.
const POINTS: u64 = 8 * 120;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Up,
    Down,
    /// The node that goes leads the others.
    DownLeader,
    Replace,
    Rebalance,
}

impl Work {
    pub const ALL: [Work; 5] = [Work::Up, Work::Down, Work::DownLeader, Work::Replace, Work::Rebalance];

    pub fn action(self) -> Action {
        match self {
            Work::Up => Action::ScaleUp { nodes: 1, target: 4 },
            Work::Down => Action::ScaleDown { node: node(4), target: 3 },
            Work::DownLeader => Action::ScaleDown { node: node(1), target: 3 },
            Work::Replace => Action::Replace { node: node(3) },
            Work::Rebalance => Action::Rebalance {},
        }
    }

    pub async fn pool(self, seed: u64) -> Arc<Pool> {
        let at_first = if matches!(self, Work::Up | Work::Rebalance) { 3 } else { 4 };
        let mut nodes: Vec<NodeId> = (1..=at_first).map(node).collect();
        let names: Vec<&str> = nodes.iter().map(NodeId::as_str).collect();
        let wire = Wire::new(Cluster::new(&names));
        let body = json!({"vectors": {"size": 32}, "shard_number": 8, "replication_factor": COPIES});
        let path = format!("/collections/{COLLECTION}");
        let made = Request { method: Method::PUT, path, body: Some(body), timeout: Duration::from_secs(60) };
        wire.ask(&address("n1"), made).await.expect("a collection");
        wire.cluster().fill(COLLECTION, 0, POINTS);
        wire.cluster().bytes_per_second = 20_000; // some two seconds a shard
        let now = wire.now();
        match self {
            Work::Rebalance => {
                wire.cluster().start(now, "n4", "1.19.0");
                nodes.push(node(4));
            }
            Work::Replace => wire.cluster().kill(now, node(3).as_str()),
            Work::Up | Work::Down | Work::DownLeader => {}
        }
        tokio::time::sleep(Duration::from_secs(10)).await; // the others have noticed
        let dead = (self == Work::Replace).then(|| node(3));
        Pool::new(Site::new(wire, &nodes, dead), seed)
    }
}

impl Piece for Work {
    type Over = Pool;

    async fn scene(self) -> Arc<Pool> {
        self.pool(0).await
    }

    fn operation(self) -> Operation {
        planned("op", self.action(), &[node(5)])
    }
}
