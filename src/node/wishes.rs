//! What clients ask of this node that only the map's writer can do: registered here, fetched and granted by the
//! driver. Pure, with a signal.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::map::Params;
use crate::model::NodeId;

/// A change of the map that a node cannot make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum Wish {
    Create {
        collection: String,
        #[serde(flatten)]
        params: Params,
    },
    Delete {
        collection: String,
    },
    /// The node does not answer and holds a write up.
    TakeOut {
        node: NodeId,
    },
}

/// A wish as the driver fetches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    pub id: u64,
    #[serde(flatten)]
    pub wish: Wish,
}

/// The answer to a fetch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fetched {
    /// Epoch of the map that the node acts on; `None` before its first.
    pub epoch: Option<u64>,
    /// The node serves: its shards are loaded.
    pub ready: bool,
    pub wishes: Vec<Open>,
}

/// Wishes that someone is still waiting for.
pub struct Wishes {
    open: Mutex<Waiting>,
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    wishes: BTreeMap<u64, (Wish, oneshot::Sender<String>)>,
}

/// Keeps a wish open; dropping it withdraws the wish.
pub struct Held<'a> {
    wishes: &'a Wishes,
    id: u64,
    /// Gives the driver's words when it refuses.
    pub refused: oneshot::Receiver<String>,
}

impl Default for Wishes {
    fn default() -> Self {
        Wishes { open: Mutex::default(), count: watch::Sender::new(0) }
    }
}

impl Wishes {
    pub fn wish(&self, wish: Wish) -> Held<'_> {
        let (refuse, refused) = oneshot::channel();
        let mut open = self.open();
        open.last += 1;
        let id = open.last;
        open.wishes.insert(id, (wish, refuse));
        self.count.send_replace(open.wishes.len());
        Held { wishes: self, id, refused }
    }

    /// The open wishes, as soon as there is one, at the latest after `wait`.
    pub async fn fetch(&self, wait: Duration) -> Vec<Open> {
        let mut count = self.count.subscribe();
        let _ = tokio::time::timeout(wait, count.wait_for(|n| *n > 0)).await;
        self.open().wishes.iter().map(|(id, (wish, _))| Open { id: *id, wish: wish.clone() }).collect()
    }

    /// The driver will not grant it.
    pub fn refuse(&self, id: u64, why: String) {
        if let Some((_, refuse)) = self.open().wishes.remove(&id) {
            let _ = refuse.send(why); // the one who wished may have gone
        }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.open.lock().expect("no panic while wishing")
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut open = self.wishes.open();
        open.wishes.remove(&self.id);
        self.wishes.count.send_replace(open.wishes.len());
    }
}
