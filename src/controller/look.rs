//! One look at the world: who is there, then a sample of each and of all together. IO.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::model::{Inventory, Machine, NodeId, Samples, Timestamp};
use crate::operate::drivers::{Datastore, Provider, Unanswered};
use crate::scrape::{Scrape, Target};

/// Longest wait for provider and datastore; what comes later is a gap, not a pause.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// What one look brought.
pub struct Look {
    pub at: Timestamp,
    pub machines: Result<Vec<Machine>, Unanswered>,
    /// `Ok(None)` for datastore `none`.
    pub inventory: Result<Option<Inventory>, Unanswered>,
    pub samples: Samples,
}

/// Whom a look asks.
#[derive(Clone)]
pub struct Eyes {
    pub provider: Arc<dyn Provider>,
    pub store: Arc<dyn Datastore>,
    pub sources: Arc<dyn Scrape>,
    pub clock: Arc<dyn Clock>,
}

impl Eyes {
    /// Looks once. `known` are the nodes of the look before: they are asked too when nobody lists them now. `interval`
    /// is the time between checks.
    pub async fn look(&self, known: BTreeMap<NodeId, String>, interval: Duration) -> Look {
        let (machines, inventory) = tokio::join!(within(self.provider.list()), self.inventory());
        let mut addresses = known;
        addresses
            .extend(inventory.iter().flatten().flat_map(|i| &i.members).map(|m| (m.id.clone(), m.address.clone())));
        addresses.extend(machines.iter().flatten().map(|m| (m.id.clone(), m.address.clone())));
        let targets: Vec<Target> = addresses.into_iter().map(|(id, address)| Target { id, address }).collect();
        let samples = self.sources.collect(&targets, interval, self.clock.as_ref()).await;
        Look { at: self.clock.now(), machines, inventory, samples }
    }

    async fn inventory(&self) -> Result<Option<Inventory>, Unanswered> {
        if !self.store.holds_data() {
            return Ok(None);
        }
        within(self.store.inventory(None)).await.map(Some)
    }
}

async fn within<T>(asking: impl Future<Output = Result<T, Unanswered>>) -> Result<T, Unanswered> {
    let late = || Unanswered(format!("no answer within {} s", LIST_TIMEOUT.as_secs()));
    tokio::time::timeout(LIST_TIMEOUT, asking).await.unwrap_or_else(|_| Err(late()))
}
