//! What happens to a site while work is done on it: nodes die, hang and come back, one at a time, and clients write.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::site::{COLLECTION, Site, address};
use crate::model::NodeId;
use crate::operate::drivers::qdrant::api::{Api, Request};
use crate::replay::qdrant::content;

/// The ids of what is written meanwhile begin here.
const FIRST: u64 = 1_000_000;
const AT_ONCE: u64 = 10;

/// Goes on until it is dropped. `spared` is left as it is.
pub async fn takes_its_course(site: Arc<Site>, mut rng: Rng, spared: Option<NodeId>) {
    let mut struck: Option<String> = None;
    for first in (FIRST..).step_by(AT_ONCE as usize) {
        sleep(Duration::from_millis(rng.u64(500..15_000))).await;
        let machines: Vec<NodeId> =
            site.books().machines.keys().filter(|id| spared.as_ref() != Some(id)).cloned().collect();
        let Some(node) = rng.choice(machines) else { continue };
        match rng.u8(0..6) {
            0 | 1 => match struck.take() {
                Some(node) => site.strikes(&node, Blow::Revive),
                None => {
                    site.strikes(node.as_str(), if rng.bool() { Blow::Kill } else { Blow::Hang });
                    struck = Some(node.to_string());
                }
            },
            2..4 => site.writes(node.as_str(), first).await,
            _ => {}
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Blow {
    Kill,
    Hang,
    Revive,
}

impl Site {
    pub fn strikes(&self, node: &str, blow: Blow) {
        let (now, mut cluster) = (self.wire.now(), self.wire.cluster());
        match blow {
            Blow::Kill => cluster.kill(now, node),
            Blow::Hang => cluster.hang(now, node),
            Blow::Revive => cluster.revive(now, node),
        }
        drop(cluster);
        self.books().is_struck = true;
        self.tells(format!("{blow:?} {node}"));
    }

    /// All that is there is up again.
    pub fn heals(&self, but: Option<&NodeId>) {
        let machines: Vec<NodeId> = self.books().machines.keys().filter(|id| but != Some(id)).cloned().collect();
        machines.iter().for_each(|id| self.strikes(id.as_str(), Blow::Revive));
    }

    async fn writes(&self, node: &str, first: u64) {
        let points: Vec<Value> =
            (first..first + AT_ONCE).map(|id| json!({"id": id, "vector": vec![0.5; 32]})).collect();
        let path = format!("/collections/{COLLECTION}/points?wait=true");
        let (body, timeout) = (Some(json!({"points": points})), Duration::from_secs(60));
        self.books().unsure += 1;
        let asked = self.wire.ask(&address(node), Request { method: Method::PUT, path, body, timeout }).await;
        if asked.is_ok_and(|answer| answer.status == 200) {
            let mut books = self.books();
            books.unsure -= 1;
            books.acked.extend((first..).zip(points.iter().map(content)));
        }
    }
}
