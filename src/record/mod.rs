//! The journal: decisions, operations, steps, settings and the audit trail, on disk before anything moves.

mod memory;
mod rollup;
mod sqlite;

#[cfg(test)]
mod conformance;

use std::path::PathBuf;

use async_trait::async_trait;

use crate::model::{
    Decision, HistoryItem, HistoryKind, Observation, Operation, OperationId, PoolName, Step, Timestamp,
};

pub use memory::MemoryJournal;
pub use sqlite::{OpenReport, SqliteJournal};

/// How long an idempotency key of a request is remembered.
pub const KEY_KEPT: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// So many decisions of each pool are kept in full, the newest. What changed or acted stays in the audit trail for good.
pub const DECISIONS_KEPT: u64 = 10_000;

/// Why the journal did not take or give something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// A newer controller has taken over; this one must stop acting.
    #[error("the journal belongs to a newer start of the controller (fence {theirs}, ours {ours})")]
    Fenced { ours: u64, theirs: u64 },
    /// The pool has an open operation already.
    #[error("operation {0} is still open")]
    OperationOpen(OperationId),
    #[error(
        "the journal cannot be written: {0}\n    hint: look for a full disk or changed permissions in the storage path; nothing was changed"
    )]
    Unwritable(String),
    #[error("the journal cannot be read: {0}")]
    Unreadable(String),
    /// Another controller has the storage path.
    #[error(
        "{} belongs to another running vecscale (pid {pid})\n    hint: stop that one, or give this one its own --storage.path",
        storage.display()
    )]
    InUse { storage: PathBuf, pid: String },
}

/// One row to be added to the audit trail; the journal gives it its id.
#[derive(Clone, Debug)]
pub struct Entry {
    pub at: Timestamp,
    pub pool: PoolName,
    pub kind: HistoryKind,
    pub who: String,
    pub summary: String,
    pub detail: serde_json::Value,
}

/// Which rows of the audit trail are asked for; newest first.
#[derive(Clone, Debug, Default)]
pub struct HistoryQuery {
    pub pool: Option<PoolName>,
    pub kind: Option<HistoryKind>,
    /// Only rows with an id below this one.
    pub before: Option<u64>,
    pub since: Option<Timestamp>,
    /// At most this many rows.
    pub limit: usize,
}

/// Keeps what happened. Every write is durable when it returns, carries the fence of this start, and is refused once
/// a newer start has taken the journal. One call is one transaction.
#[async_trait]
pub trait Journal: Send + Sync {
    /// The fence of this start: greater than that of any start before it.
    fn fence(&self) -> u64;

    /// A setting or state by name (`mode`, `memory`, `overrides` …), as JSON; `None` if never written.
    async fn load(&self, pool: &PoolName, name: &str) -> Result<Option<serde_json::Value>, JournalError>;

    /// Writes a setting or state, and the audit row that tells of it, in one transaction.
    async fn save(
        &self,
        pool: &PoolName,
        name: &str,
        value: &serde_json::Value,
        entry: Option<Entry>,
    ) -> Result<(), JournalError>;

    /// Writes a decision that changed, with the memory that goes with it (read back by `load(pool, "memory")`).
    async fn decided(
        &self,
        pool: &PoolName,
        decision: &Decision,
        memory: &serde_json::Value,
        entry: Option<Entry>,
    ) -> Result<(), JournalError>;

    /// Recent decisions, newest first.
    async fn decisions(
        &self,
        pool: &PoolName,
        limit: usize,
        before: Option<u64>,
    ) -> Result<Vec<Decision>, JournalError>;

    async fn decision(&self, pool: &PoolName, id: u64) -> Result<Option<Decision>, JournalError>;

    /// Opens an operation. `key` is the request's idempotency key, if it had one.
    ///
    /// # Errors
    /// [`JournalError::OperationOpen`] when the pool has one already: the database itself forbids two.
    async fn open(&self, operation: &Operation, key: Option<&str>, entry: Entry) -> Result<(), JournalError>;

    /// Writes the operation's head and, if given, one of its steps (all of them when it ends), with an audit row. An operation that has ended
    /// cannot be opened again by this.
    async fn update(
        &self,
        operation: &Operation,
        step: Option<&Step>,
        entry: Option<Entry>,
    ) -> Result<(), JournalError>;

    /// The operation that is not yet ended.
    async fn open_operation(&self, pool: &PoolName) -> Result<Option<Operation>, JournalError>;

    async fn operation(&self, id: &OperationId) -> Result<Option<Operation>, JournalError>;

    /// Newest first.
    async fn operations(
        &self,
        pool: &PoolName,
        limit: usize,
        before: Option<&OperationId>,
    ) -> Result<Vec<Operation>, JournalError>;

    /// The operation that a request with this idempotency key started within the last 24 hours.
    async fn by_key(&self, pool: &PoolName, key: &str, now: Timestamp) -> Result<Option<OperationId>, JournalError>;

    async fn append(&self, entry: Entry) -> Result<(), JournalError>;

    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryItem>, JournalError>;

    /// Adds an observation to the 5-minute means and maxima, which are kept for 28 days.
    async fn observed(&self, seen: &Observation) -> Result<(), JournalError>;

    /// 5-minute means and maxima since an instant, oldest first, joined to steps of `step_secs` (a multiple of 300).
    async fn observations(
        &self,
        pool: &PoolName,
        since: Timestamp,
        step_secs: u64,
    ) -> Result<Vec<serde_json::Value>, JournalError>;
}
