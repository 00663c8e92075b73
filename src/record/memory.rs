//! A journal that forgets at the end of the process: for tests and simulations. Same answers as the one on disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use serde_json::Value;

use super::rollup::{self, Cell};
use super::{DECISIONS_KEPT, Entry, HistoryQuery, Journal, JournalError, KEY_KEPT};
use crate::model::{Decision, HistoryItem, Observation, Operation, OperationId, PoolName, Step, Timestamp};

/// One start's hold on a journal in memory.
pub struct MemoryJournal {
    fence: u64,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    fence: u64,
    states: BTreeMap<(PoolName, String), Value>,
    decisions: BTreeMap<(PoolName, u64), Decision>,
    operations: BTreeMap<OperationId, Operation>,
    keys: BTreeMap<(PoolName, String), (OperationId, Timestamp)>,
    history: Vec<HistoryItem>,
    rollup: BTreeMap<(PoolName, i64, String), Cell>,
}

impl MemoryJournal {
    pub fn new() -> MemoryJournal {
        let kept = Arc::new(Mutex::new(Kept { fence: 1, ..Kept::default() }));
        MemoryJournal { fence: 1, kept }
    }

    /// The next start on the same journal; this one is fenced off.
    pub fn reopen(&self) -> MemoryJournal {
        let mut kept = self.read();
        kept.fence += 1;
        MemoryJournal { fence: kept.fence, kept: self.kept.clone() }
    }

    fn read(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> Result<MutexGuard<'_, Kept>, JournalError> {
        let kept = self.read();
        if kept.fence > self.fence {
            return Err(JournalError::Fenced { ours: self.fence, theirs: kept.fence });
        }
        Ok(kept)
    }
}

impl Default for MemoryJournal {
    fn default() -> Self {
        MemoryJournal::new()
    }
}

impl Kept {
    fn audit(&mut self, entry: Option<Entry>) {
        let Some(Entry { at, pool, kind, who, summary, detail }) = entry else { return };
        let id = self.history.len() as u64 + 1;
        self.history.push(HistoryItem { id, at, pool, kind, who, summary, detail });
    }

    fn open_of(&self, pool: &PoolName) -> Option<&Operation> {
        self.operations.values().find(|o| &o.pool == pool && !o.state.is_final())
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    fn fence(&self) -> u64 {
        self.fence
    }

    async fn load(&self, pool: &PoolName, name: &str) -> Result<Option<Value>, JournalError> {
        Ok(self.read().states.get(&(pool.clone(), name.to_string())).cloned())
    }

    async fn save(&self, pool: &PoolName, name: &str, value: &Value, entry: Option<Entry>) -> Result<(), JournalError> {
        let mut kept = self.write()?;
        kept.states.insert((pool.clone(), name.to_string()), value.clone());
        kept.audit(entry);
        Ok(())
    }

    async fn decided(
        &self,
        pool: &PoolName,
        decision: &Decision,
        memory: &Value,
        entry: Option<Entry>,
    ) -> Result<(), JournalError> {
        let mut kept = self.write()?;
        kept.decisions.insert((pool.clone(), decision.id), decision.clone());
        let oldest = (decision.id + 1).saturating_sub(DECISIONS_KEPT);
        kept.decisions.retain(|(of, id), _| of != pool || *id >= oldest);
        kept.states.insert((pool.clone(), "memory".into()), memory.clone());
        kept.audit(entry);
        Ok(())
    }

    async fn decisions(
        &self,
        pool: &PoolName,
        limit: usize,
        before: Option<u64>,
    ) -> Result<Vec<Decision>, JournalError> {
        let range = (pool.clone(), 0)..(pool.clone(), before.unwrap_or(u64::MAX));
        Ok(self.read().decisions.range(range).rev().take(limit).map(|(_, d)| d.clone()).collect())
    }

    async fn decision(&self, pool: &PoolName, id: u64) -> Result<Option<Decision>, JournalError> {
        Ok(self.read().decisions.get(&(pool.clone(), id)).cloned())
    }

    async fn open(&self, operation: &Operation, key: Option<&str>, entry: Entry) -> Result<(), JournalError> {
        let mut kept = self.write()?;
        if let Some(open) = kept.open_of(&operation.pool) {
            return Err(JournalError::OperationOpen(open.id.clone()));
        }
        if kept.operations.contains_key(&operation.id) {
            return Err(JournalError::Unwritable(format!("operation {} exists already", operation.id)));
        }
        kept.operations.insert(operation.id.clone(), operation.clone());
        if let Some(key) = key {
            let known = (operation.id.clone(), operation.started_at);
            kept.keys.insert((operation.pool.clone(), key.to_string()), known);
        }
        kept.audit(Some(entry));
        Ok(())
    }

    async fn update(
        &self,
        operation: &Operation,
        step: Option<&Step>,
        entry: Option<Entry>,
    ) -> Result<(), JournalError> {
        let mut kept = self.write()?;
        let Some(known) = kept.operations.get_mut(&operation.id).filter(|known| !known.state.is_final()) else {
            return Err(JournalError::Unwritable(format!("operation {} is not open", operation.id)));
        };
        // Only the step that is given is taken over, as on disk: a caller that forgets one finds it unchanged.
        let mut steps = std::mem::take(&mut known.steps);
        if let Some(step) = step {
            match steps.iter_mut().find(|s| s.seq == step.seq) {
                Some(known) => *known = step.clone(),
                None => steps.push(step.clone()),
            }
        }
        let place = |step: &Step| operation.steps.iter().position(|s| s.seq == step.seq);
        steps.sort_by_key(|s| (place(s).unwrap_or(usize::MAX), s.seq));
        let steps = if operation.state.is_final() { operation.steps.clone() } else { steps };
        *known = Operation { steps, ..operation.clone() };
        kept.audit(entry);
        Ok(())
    }

    async fn open_operation(&self, pool: &PoolName) -> Result<Option<Operation>, JournalError> {
        Ok(self.read().open_of(pool).cloned())
    }

    async fn operation(&self, id: &OperationId) -> Result<Option<Operation>, JournalError> {
        Ok(self.read().operations.get(id).cloned())
    }

    async fn operations(
        &self,
        pool: &PoolName,
        limit: usize,
        before: Option<&OperationId>,
    ) -> Result<Vec<Operation>, JournalError> {
        let kept = self.read();
        let older = kept.operations.values().rev().filter(|o| before.is_none_or(|before| o.id < *before));
        Ok(older.filter(|o| &o.pool == pool).take(limit).cloned().collect())
    }

    async fn by_key(&self, pool: &PoolName, key: &str, now: Timestamp) -> Result<Option<OperationId>, JournalError> {
        let kept = self.read();
        let known = kept.keys.get(&(pool.clone(), key.to_string()));
        Ok(known.filter(|(_, at)| now.since(*at) < KEY_KEPT).map(|(id, _)| id.clone()))
    }

    async fn append(&self, entry: Entry) -> Result<(), JournalError> {
        self.write()?.audit(Some(entry));
        Ok(())
    }

    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryItem>, JournalError> {
        let wanted = |item: &&HistoryItem| {
            query.pool.as_ref().is_none_or(|pool| &item.pool == pool)
                && query.kind.is_none_or(|kind| item.kind == kind)
                && query.before.is_none_or(|before| item.id < before)
                && query.since.is_none_or(|since| item.at >= since)
        };
        Ok(self.read().history.iter().rev().filter(wanted).take(query.limit).cloned().collect())
    }

    async fn observed(&self, seen: &Observation) -> Result<(), JournalError> {
        let mut kept = self.write()?;
        let start = rollup::bucket(seen.at, rollup::BUCKET_SECS);
        for (name, value) in rollup::numbers(seen) {
            let cell = Cell::of(value);
            let place = kept.rollup.entry((seen.pool.clone(), start, name));
            place.and_modify(|known| *known = known.join(cell)).or_insert(cell);
        }
        let oldest = rollup::bucket(seen.at.minus(rollup::KEPT), rollup::BUCKET_SECS);
        kept.rollup.retain(|(_, start, _), _| *start >= oldest);
        Ok(())
    }

    async fn observations(
        &self,
        pool: &PoolName,
        since: Timestamp,
        step_secs: u64,
    ) -> Result<Vec<Value>, JournalError> {
        let width = rollup::width(step_secs);
        let from = rollup::bucket(since, width);
        let kept = self.read();
        let cells = kept.rollup.iter().filter(|((p, start, _), _)| p == pool && *start >= from);
        Ok(rollup::rows(cells.map(|((_, start, name), cell)| (*start, name.clone(), *cell)), width))
    }
}
