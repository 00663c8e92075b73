//! Load: searches over the nodes of a pool, until it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vecscale::node::client::Client;

use super::{COLLECTION, World, addresses, vector_of};

pub struct Searches(Arc<AtomicBool>);

impl Searches {
    /// Eight at once over the nodes that are there now, each with this pause after it.
    pub async fn start(world: &World, pause: Duration) -> Searches {
        let stop = Arc::new(AtomicBool::new(false));
        let client = Arc::new(Client::new(addresses(world).await));
        for _ in 0..8 {
            let (client, stop) = (client.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let _ = client.search(COLLECTION, &vector_of(fastrand::u64(..)), 5).await; // a node may just join or leave
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Searches(stop)
    }
}

impl Drop for Searches {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
