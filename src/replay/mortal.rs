//! A journal at whose every write the controller may die, before it or after it; that is full for a while; and that tells
//! the invented cluster what is on disk.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::world::World;
use crate::model::{Decision, HistoryItem, Mode, Observation, Operation, OperationId, PoolName, Step, Timestamp};
use crate::record::{Entry, HistoryQuery, Journal, JournalError, MemoryJournal};

/// One start's hold on the journal of a story.
pub struct Mortal {
    pub inner: MemoryJournal,
    world: Arc<World>,
}

impl Mortal {
    pub fn new(inner: MemoryJournal, world: Arc<World>) -> Mortal {
        world.as_left().laws.watch();
        Mortal { inner, world }
    }

    /// One write: the controller may die on either side of it.
    async fn write<T>(
        &self,
        writing: impl Future<Output = Result<T, JournalError>>,
        written: impl FnOnce(&World),
    ) -> Result<T, JournalError> {
        self.world.crash.point().await;
        if self.world.disk_is_full() {
            return Err(JournalError::Unwritable("the disk is full".into()));
        }
        let done = writing.await;
        if done.is_ok() {
            written(&self.world);
        }
        self.world.crash.point().await;
        done
    }
}

impl World {
    fn disk_is_full(&self) -> bool {
        let mut state = self.state();
        let is_full = state.full > 0;
        state.full = state.full.saturating_sub(1);
        is_full
    }
}

fn mode_in(value: &Value) -> Option<Mode> {
    serde_json::from_value(value.get("mode")?.clone()).ok()
}

#[async_trait]
impl Journal for Mortal {
    fn fence(&self) -> u64 {
        self.inner.fence()
    }
    async fn load(&self, pool: &PoolName, name: &str) -> Result<Option<Value>, JournalError> {
        self.inner.load(pool, name).await
    }
    async fn save(&self, pool: &PoolName, name: &str, value: &Value, entry: Option<Entry>) -> Result<(), JournalError> {
        let written = |world: &World| {
            if let Some(mode) = Some(value).filter(|_| name == "mode").and_then(mode_in) {
                world.state().laws.mode_saved(mode);
            }
        };
        self.write(self.inner.save(pool, name, value, entry), written).await
    }
    async fn decided(
        &self,
        pool: &PoolName,
        decision: &Decision,
        memory: &Value,
        entry: Option<Entry>,
    ) -> Result<(), JournalError> {
        self.write(self.inner.decided(pool, decision, memory, entry), |world| world.state().tally.checks += 1).await
    }
    async fn decisions(&self, p: &PoolName, limit: usize, before: Option<u64>) -> Result<Vec<Decision>, JournalError> {
        self.inner.decisions(p, limit, before).await
    }
    async fn decision(&self, pool: &PoolName, id: u64) -> Result<Option<Decision>, JournalError> {
        self.inner.decision(pool, id).await
    }
    async fn open(&self, operation: &Operation, key: Option<&str>, entry: Entry) -> Result<(), JournalError> {
        let written = |world: &World| world.state().opened(self.inner.fence(), operation);
        self.write(self.inner.open(operation, key, entry), written).await
    }
    async fn update(&self, o: &Operation, step: Option<&Step>, entry: Option<Entry>) -> Result<(), JournalError> {
        let written = |world: &World| world.state().wrote(self.inner.fence(), o, step);
        self.write(self.inner.update(o, step, entry), written).await
    }
    async fn open_operation(&self, pool: &PoolName) -> Result<Option<Operation>, JournalError> {
        self.inner.open_operation(pool).await
    }
    async fn operation(&self, id: &OperationId) -> Result<Option<Operation>, JournalError> {
        self.inner.operation(id).await
    }
    async fn operations(
        &self,
        pool: &PoolName,
        limit: usize,
        before: Option<&OperationId>,
    ) -> Result<Vec<Operation>, JournalError> {
        self.inner.operations(pool, limit, before).await
    }
    async fn by_key(&self, pool: &PoolName, key: &str, now: Timestamp) -> Result<Option<OperationId>, JournalError> {
        self.inner.by_key(pool, key, now).await
    }
    async fn append(&self, entry: Entry) -> Result<(), JournalError> {
        let told = entry.clone();
        self.write(self.inner.append(entry), |world| world.state().laws.appended(&told)).await
    }
    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryItem>, JournalError> {
        self.inner.history(query).await
    }
    async fn observed(&self, seen: &Observation) -> Result<(), JournalError> {
        self.inner.observed(seen).await
    }
    async fn observations(&self, p: &PoolName, since: Timestamp, step: u64) -> Result<Vec<Value>, JournalError> {
        self.inner.observations(p, since, step).await
    }
}
