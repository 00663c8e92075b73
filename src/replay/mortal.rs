//! A journal at whose every write the controller may die, before it or after it; that is full for a while; and that tells
//! an invented cluster what is on disk.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::faults::Crash;
use super::world::World;
use crate::model::{Decision, HistoryItem, Mode, Observation, Operation, OperationId, PoolName, Step, Timestamp};
use crate::record::{Entry, HistoryQuery, Journal, JournalError, MemoryJournal};

/// An invented cluster, as far as the journal of its story knows it.
pub trait Witness: Send + Sync {
    /// When the controller dies.
    fn crash(&self) -> &Crash;

    /// A start has taken hold of the journal.
    fn watches(&self) {}

    /// Whether the next write finds the disk full.
    fn is_full(&self) -> bool {
        false
    }

    /// What is on disk now, and under which fence it was written.
    fn wrote(&self, fence: u64, what: Written<'_>);
}

/// One write.
#[derive(Clone, Copy)]
pub enum Written<'a> {
    Saved(&'a str, &'a Value),
    Decided,
    Opened(&'a Operation),
    Updated(&'a Operation, Option<&'a Step>),
    Appended(&'a Entry),
}

/// One start's hold on the journal of a story.
pub struct Mortal {
    pub inner: MemoryJournal,
    witness: Arc<dyn Witness>,
}

impl Mortal {
    pub fn new(inner: MemoryJournal, witness: Arc<dyn Witness>) -> Mortal {
        witness.watches();
        Mortal { inner, witness }
    }

    /// One write: the controller may die on either side of it.
    async fn write<T>(
        &self,
        writing: impl Future<Output = Result<T, JournalError>>,
        what: Written<'_>,
    ) -> Result<T, JournalError> {
        self.witness.crash().point().await;
        if self.witness.is_full() {
            return Err(JournalError::Unwritable("the disk is full".into()));
        }
        let done = writing.await;
        if done.is_ok() {
            self.witness.wrote(self.inner.fence(), what);
        }
        self.witness.crash().point().await;
        done
    }
}

impl Witness for World {
    fn crash(&self) -> &Crash {
        &self.crash
    }

    fn watches(&self) {
        self.as_left().laws.watch();
    }

    fn is_full(&self) -> bool {
        let mut state = self.state();
        let is_full = state.full > 0;
        state.full = state.full.saturating_sub(1);
        is_full
    }

    fn wrote(&self, fence: u64, what: Written<'_>) {
        match what {
            Written::Saved(name, value) => {
                if let Some(mode) = Some(value).filter(|_| name == "mode").and_then(mode_in) {
                    self.state().laws.mode_saved(mode);
                }
            }
            Written::Decided => self.state().tally.checks += 1,
            Written::Opened(operation) => self.state().opened(fence, operation),
            Written::Updated(operation, step) => self.state().wrote(fence, operation, step),
            Written::Appended(entry) => self.state().laws.appended(entry),
        }
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
        self.write(self.inner.save(pool, name, value, entry), Written::Saved(name, value)).await
    }
    async fn decided(
        &self,
        pool: &PoolName,
        decision: &Decision,
        memory: &Value,
        entry: Option<Entry>,
    ) -> Result<(), JournalError> {
        self.write(self.inner.decided(pool, decision, memory, entry), Written::Decided).await
    }
    async fn decisions(&self, p: &PoolName, limit: usize, before: Option<u64>) -> Result<Vec<Decision>, JournalError> {
        self.inner.decisions(p, limit, before).await
    }
    async fn decision(&self, pool: &PoolName, id: u64) -> Result<Option<Decision>, JournalError> {
        self.inner.decision(pool, id).await
    }
    async fn open(&self, operation: &Operation, key: Option<&str>, entry: Entry) -> Result<(), JournalError> {
        self.write(self.inner.open(operation, key, entry), Written::Opened(operation)).await
    }
    async fn update(&self, o: &Operation, step: Option<&Step>, entry: Option<Entry>) -> Result<(), JournalError> {
        self.write(self.inner.update(o, step, entry), Written::Updated(o, step)).await
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
        self.write(self.inner.append(entry), Written::Appended(&told)).await
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
