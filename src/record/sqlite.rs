//! The journal in one SQLite file below the storage path: each call is one durable transaction, one controller at a
//! time, and a damaged file is refused, never taken for an empty one.

mod head;
mod open;
mod rows;
mod schema;
mod store;
mod sums;
mod verify;

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::Value;

use self::store::Store;
use super::{Entry, HistoryQuery, Journal, JournalError};
use crate::clock::Clock;
use crate::model::{Decision, HistoryItem, Observation, Operation, OperationId, PoolName, Step, Timestamp};

/// What was found at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// There was no journal before.
    pub created: bool,
    /// Counts the starts on this journal.
    pub fence: u64,
}

/// One start's hold on the journal. The lock on the storage path is held until this is gone and its last write done.
pub struct SqliteJournal {
    fence: u64,
    store: Arc<Mutex<Store>>,
}

impl SqliteJournal {
    /// Opens the journal below `storage`, or makes one, and takes it over from any earlier start.
    ///
    /// # Errors
    /// [`JournalError::InUse`] when another controller runs on it; [`JournalError::Unreadable`] when it is damaged or
    /// newer than this program; [`JournalError::Unwritable`].
    pub fn open(storage: &Path, clock: &dyn Clock) -> Result<(SqliteJournal, OpenReport), JournalError> {
        let lock = open::lock(storage)?;
        let (connection, head, created) = open::writable(storage)?;
        let mut store = Store::new(connection, Some((lock, head)));
        let fence = store.take_over(clock.now())?;
        let journal = SqliteJournal { fence, store: Arc::new(Mutex::new(store)) };
        Ok((journal, OpenReport { created, fence }))
    }

    /// Opens the journal below `storage` for reading, while another process may be writing it. Every write is refused.
    ///
    /// # Errors
    /// [`JournalError::Unreadable`] when there is none, or it is damaged.
    pub fn open_read_only(storage: &Path) -> Result<SqliteJournal, JournalError> {
        let store = Store::new(open::read_only(storage)?, None);
        Ok(SqliteJournal { fence: 0, store: Arc::new(Mutex::new(store)) })
    }

    /// The fence of the last start on the journal below `storage`; 0 when there is no journal.
    ///
    /// # Errors
    /// [`JournalError::InUse`] while a controller runs there; [`JournalError::Unreadable`] when it is damaged.
    pub fn last_fence(storage: &Path) -> Result<u64, JournalError> {
        Ok(open::last_fence(storage)?.unwrap_or(0))
    }

    /// SQLite blocks, so each call has a blocking thread for its time; a call once begun is finished even if the
    /// caller goes away. (A thread of its own would do too, but tokio's paused time would run ahead of it.)
    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Store) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || {
            // A panic inside a call leaves no half-done work: its transaction was rolled back.
            act(&mut store.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
        });
        done.await.unwrap_or_else(|gone| Err(JournalError::Unwritable(format!("the journal's thread ended: {gone}"))))
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    fn fence(&self) -> u64 {
        self.fence
    }

    async fn load(&self, pool: &PoolName, name: &str) -> Result<Option<Value>, JournalError> {
        let (pool, name) = (pool.clone(), name.to_string());
        self.with(move |store| store.load(&pool, &name)).await
    }

    async fn save(&self, pool: &PoolName, name: &str, value: &Value, entry: Option<Entry>) -> Result<(), JournalError> {
        let (pool, name, value) = (pool.clone(), name.to_string(), value.clone());
        self.with(move |store| store.save(&pool, &name, &value, entry)).await
    }

    async fn decided(
        &self,
        pool: &PoolName,
        decision: &Decision,
        memory: &Value,
        entry: Option<Entry>,
    ) -> Result<(), JournalError> {
        let (pool, decision, memory) = (pool.clone(), decision.clone(), memory.clone());
        self.with(move |store| store.decided(&pool, &decision, &memory, entry)).await
    }

    async fn decisions(
        &self,
        pool: &PoolName,
        limit: usize,
        before: Option<u64>,
    ) -> Result<Vec<Decision>, JournalError> {
        let pool = pool.clone();
        self.with(move |store| store.decisions(&pool, limit, before)).await
    }

    async fn decision(&self, pool: &PoolName, id: u64) -> Result<Option<Decision>, JournalError> {
        let pool = pool.clone();
        self.with(move |store| store.decision(&pool, id)).await
    }

    async fn open(&self, operation: &Operation, key: Option<&str>, entry: Entry) -> Result<(), JournalError> {
        let (operation, key) = (operation.clone(), key.map(str::to_string));
        self.with(move |store| store.open(&operation, key.as_deref(), entry)).await
    }

    async fn update(
        &self,
        operation: &Operation,
        step: Option<&Step>,
        entry: Option<Entry>,
    ) -> Result<(), JournalError> {
        let (operation, step) = (operation.clone(), step.cloned());
        self.with(move |store| store.update(&operation, step.as_ref(), entry)).await
    }

    async fn open_operation(&self, pool: &PoolName) -> Result<Option<Operation>, JournalError> {
        let pool = pool.clone();
        self.with(move |store| store.open_operation(&pool)).await
    }

    async fn operation(&self, id: &OperationId) -> Result<Option<Operation>, JournalError> {
        let id = id.clone();
        self.with(move |store| store.operation(&id)).await
    }

    async fn operations(
        &self,
        pool: &PoolName,
        limit: usize,
        before: Option<&OperationId>,
    ) -> Result<Vec<Operation>, JournalError> {
        let (pool, before) = (pool.clone(), before.cloned());
        self.with(move |store| store.operations(&pool, limit, before.as_ref())).await
    }

    async fn by_key(&self, pool: &PoolName, key: &str, now: Timestamp) -> Result<Option<OperationId>, JournalError> {
        let (pool, key) = (pool.clone(), key.to_string());
        self.with(move |store| store.by_key(&pool, &key, now)).await
    }

    async fn append(&self, entry: Entry) -> Result<(), JournalError> {
        self.with(move |store| store.append(entry)).await
    }

    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryItem>, JournalError> {
        let query = query.clone();
        self.with(move |store| store.history(&query)).await
    }

    async fn observed(&self, seen: &Observation) -> Result<(), JournalError> {
        let (pool, at, numbers) = (seen.pool.clone(), seen.at, super::rollup::numbers(seen));
        self.with(move |store| store.observed(&pool, at, &numbers)).await
    }

    async fn observations(
        &self,
        pool: &PoolName,
        since: Timestamp,
        step_secs: u64,
    ) -> Result<Vec<Value>, JournalError> {
        let pool = pool.clone();
        self.with(move |store| store.observations(&pool, since, step_secs)).await
    }
}

#[cfg(test)]
mod tests;
