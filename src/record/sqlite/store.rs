//! The journal's questions and answers as SQL, blocking. Every write is one transaction that checks the fence first.

use std::fs::File;

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::{Decision, HistoryItem, Operation, OperationId, PoolName, Step, Timestamp};
use crate::record::rollup::{self, Cell};
use crate::record::{DECISIONS_KEPT, Entry, HistoryQuery, JournalError, KEY_KEPT};

pub struct Store {
    connection: Connection,
    /// 0 until taken over: no write then.
    fence: i64,
    _lock: Option<File>,
}

/// What went wrong inside a transaction.
enum Fault {
    Sql(rusqlite::Error),
    Journal(JournalError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sql(error)
    }
}

impl From<JournalError> for Fault {
    fn from(error: JournalError) -> Fault {
        Fault::Journal(error)
    }
}

fn unwritable(fault: impl Into<Fault>) -> JournalError {
    match fault.into() {
        Fault::Sql(error) => JournalError::Unwritable(error.to_string()),
        Fault::Journal(error) => error,
    }
}

fn unreadable(fault: impl Into<Fault>) -> JournalError {
    match fault.into() {
        Fault::Sql(error) => JournalError::Unreadable(error.to_string()),
        Fault::Journal(error) => error,
    }
}

/// FNV-1a over texts that are acted upon later: a flipped bit in a node's name must not name another node.
fn sum(texts: &[&str]) -> i64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)) as i64
}

fn checked(what: &str, texts: &[&str], kept: i64) -> Result<(), JournalError> {
    if sum(texts) == kept { Ok(()) } else { Err(JournalError::Unreadable(format!("{what} is damaged on disk"))) }
}

fn written(value: &impl Serialize) -> Result<String, JournalError> {
    serde_json::to_string(value).map_err(|e| JournalError::Unwritable(format!("a value cannot be written: {e}")))
}

fn parsed<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, JournalError> {
    serde_json::from_str(text).map_err(|e| JournalError::Unreadable(format!("{what}: {e}")))
}

/// The word that serde has for a state or kind.
fn word(value: &impl Serialize) -> Result<String, JournalError> {
    Ok(written(value)?.trim_matches('"').to_string())
}

impl Store {
    /// `lock` is the one on the storage path; a reader has none.
    pub fn new(connection: Connection, lock: Option<File>) -> Store {
        Store { connection, fence: 0, _lock: lock }
    }

    /// Makes this start the owner; earlier ones can write no more.
    pub fn take_over(&mut self, at: Timestamp) -> Result<u64, JournalError> {
        let fence: i64 = self
            .connection
            .query_row("UPDATE start SET fence = fence + 1, at = ? RETURNING fence", [at.millis()], |row| row.get(0))
            .map_err(unwritable)?;
        self.fence = fence;
        Ok(fence as u64)
    }

    fn write<T>(&mut self, act: impl FnOnce(&Transaction, i64) -> Result<T, Fault>) -> Result<T, JournalError> {
        let ours = self.fence;
        if ours == 0 {
            return Err(JournalError::Unwritable("it was opened for reading only".into()));
        }
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unwritable)?;
        let theirs: i64 = transaction.query_row("SELECT fence FROM start", [], |row| row.get(0)).map_err(unwritable)?;
        if theirs > ours {
            return Err(JournalError::Fenced { ours: ours as u64, theirs: theirs as u64 });
        }
        let done = act(&transaction, ours).map_err(unwritable)?;
        transaction.commit().map_err(unwritable)?;
        Ok(done)
    }

    fn rows<T>(
        &self,
        sql: &str,
        with: impl Params,
        read: impl FnMut(&Row) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, JournalError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(unreadable)?;
        let rows = statement.query_map(with, read).map_err(unreadable)?;
        rows.collect::<Result<_, _>>().map_err(unreadable)
    }

    pub fn load(&self, pool: &PoolName, name: &str) -> Result<Option<Value>, JournalError> {
        let found: Option<(String, i64)> = self
            .connection
            .query_row("SELECT body, sum FROM state WHERE pool = ? AND name = ?", [pool, name], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
            .map_err(unreadable)?;
        let Some((body, kept)) = found else { return Ok(None) };
        checked(name, &[&body], kept)?;
        parsed(name, &body).map(Some)
    }

    pub fn save(
        &mut self,
        pool: &PoolName,
        name: &str,
        value: &Value,
        entry: Option<Entry>,
    ) -> Result<(), JournalError> {
        self.write(|transaction, _| {
            put_state(transaction, pool, name, value)?;
            audit(transaction, entry)
        })
    }

    pub fn decided(
        &mut self,
        pool: &PoolName,
        decision: &Decision,
        memory: &Value,
        entry: Option<Entry>,
    ) -> Result<(), JournalError> {
        self.write(|transaction, _| {
            transaction.execute(
                "INSERT INTO decision VALUES (?, ?, ?, ?)
                 ON CONFLICT (pool, id) DO UPDATE SET at = excluded.at, body = excluded.body",
                params![pool, decision.id as i64, decision.at.millis(), written(decision)?],
            )?;
            let oldest = (decision.id + 1).saturating_sub(DECISIONS_KEPT);
            transaction.execute("DELETE FROM decision WHERE pool = ? AND id < ?", params![pool, oldest as i64])?;
            put_state(transaction, pool, "memory", memory)?;
            audit(transaction, entry)
        })
    }

    pub fn decisions(&self, pool: &PoolName, limit: usize, before: Option<u64>) -> Result<Vec<Decision>, JournalError> {
        let before = before.map_or(i64::MAX, |id| i64::try_from(id).unwrap_or(i64::MAX));
        let sql = "SELECT body FROM decision WHERE pool = ? AND id < ? ORDER BY id DESC LIMIT ?";
        let bodies = self.rows(sql, params![pool, before, limit as i64], |row| row.get::<_, String>(0))?;
        bodies.iter().map(|body| parsed("a decision", body)).collect()
    }

    pub fn decision(&self, pool: &PoolName, id: u64) -> Result<Option<Decision>, JournalError> {
        let sql = "SELECT body FROM decision WHERE pool = ? AND id = ?";
        let bodies = self.rows(sql, params![pool, id as i64], |row| row.get::<_, String>(0))?;
        bodies.first().map(|body| parsed("a decision", body)).transpose()
    }

    pub fn open(&mut self, operation: &Operation, key: Option<&str>, entry: Entry) -> Result<(), JournalError> {
        self.write(|transaction, fence| {
            let open: Option<String> = transaction
                .query_row("SELECT id FROM operation WHERE pool = ? AND is_open = 1", [&operation.pool], |row| {
                    row.get(0)
                })
                .optional()?;
            if let Some(id) = open {
                return Err(JournalError::OperationOpen(OperationId(id.into())).into());
            }
            let (head, order, sum) = head(operation)?;
            transaction.execute(
                "INSERT INTO operation VALUES (?, ?, ?, ?, ?, ?, ?)",
                params![&*operation.id.0, operation.pool, !operation.state.is_final(), fence, head, order, sum],
            )?;
            for step in &operation.steps {
                put_step(transaction, &operation.id, step, fence)?;
            }
            if let Some(key) = key {
                let expired = operation.started_at.minus(KEY_KEPT).millis();
                transaction.execute("DELETE FROM request_key WHERE at <= ?", [expired])?;
                transaction.execute(
                    "INSERT OR REPLACE INTO request_key VALUES (?, ?, ?, ?)",
                    params![operation.pool, key, &*operation.id.0, operation.started_at.millis()],
                )?;
            }
            audit(transaction, Some(entry))
        })
    }

    pub fn update(
        &mut self,
        operation: &Operation,
        step: Option<&Step>,
        entry: Option<Entry>,
    ) -> Result<(), JournalError> {
        self.write(|transaction, fence| {
            let (head, order, sum) = head(operation)?;
            let changed = transaction.execute(
                "UPDATE operation SET is_open = ?, fence = ?, head = ?, step_order = ?, sum = ?
                 WHERE id = ? AND is_open = 1",
                params![!operation.state.is_final(), fence, head, order, sum, &*operation.id.0],
            )?;
            if changed == 0 {
                return Err(JournalError::Unwritable(format!("operation {} is not open", operation.id)).into());
            }
            let ended = operation.steps.iter().filter(|_| operation.state.is_final());
            for step in ended.chain(step) {
                put_step(transaction, &operation.id, step, fence)?;
            }
            audit(transaction, entry)
        })
    }

    fn read_operations(&self, what: &str, with: &[&dyn ToSql]) -> Result<Vec<Operation>, JournalError> {
        let sql = format!("SELECT id, head, step_order, sum FROM operation WHERE {what}");
        let rows: Vec<(String, String, String, i64)> =
            self.rows(&sql, with, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        rows.into_iter().map(|(id, head, order, kept)| self.whole(&id, &head, &order, kept)).collect()
    }

    /// Head and steps together again, the steps in their order.
    fn whole(&self, id: &str, head: &str, order: &str, kept: i64) -> Result<Operation, JournalError> {
        let what = format!("operation {id}");
        checked(&what, &[head, order], kept)?;
        let mut operation: Operation = parsed(&what, head)?;
        let order: Vec<u32> = parsed(&what, order)?;
        let steps: Vec<(String, i64)> =
            self.rows("SELECT body, sum FROM step WHERE operation = ?", [id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (body, kept) in steps {
            checked(&what, &[&body], kept)?;
            operation.steps.push(parsed(&what, &body)?);
        }
        let place = |step: &Step| order.iter().position(|seq| *seq == step.seq).unwrap_or(usize::MAX);
        operation.steps.sort_by_key(|step| (place(step), step.seq));
        Ok(operation)
    }

    pub fn open_operation(&self, pool: &PoolName) -> Result<Option<Operation>, JournalError> {
        Ok(self.read_operations("pool = ? AND is_open = 1", &[pool])?.pop())
    }

    pub fn operation(&self, id: &OperationId) -> Result<Option<Operation>, JournalError> {
        Ok(self.read_operations("id = ?", &[&&*id.0])?.pop())
    }

    pub fn operations(
        &self,
        pool: &PoolName,
        limit: usize,
        before: Option<&OperationId>,
    ) -> Result<Vec<Operation>, JournalError> {
        let limit = limit as i64;
        match before {
            None => self.read_operations("pool = ? ORDER BY id DESC LIMIT ?", &[pool, &limit]),
            Some(before) => {
                self.read_operations("pool = ? AND id < ? ORDER BY id DESC LIMIT ?", &[pool, &&*before.0, &limit])
            }
        }
    }

    pub fn by_key(&self, pool: &PoolName, key: &str, now: Timestamp) -> Result<Option<OperationId>, JournalError> {
        let sql = "SELECT operation FROM request_key WHERE pool = ? AND key = ? AND at > ?";
        let found = self.rows(sql, params![pool, key, now.minus(KEY_KEPT).millis()], |row| row.get::<_, String>(0))?;
        Ok(found.into_iter().next().map(|id| OperationId(id.into())))
    }

    pub fn append(&mut self, entry: Entry) -> Result<(), JournalError> {
        self.write(|transaction, _| audit(transaction, Some(entry)))
    }

    pub fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryItem>, JournalError> {
        let before = query.before.map_or(i64::MAX, |id| i64::try_from(id).unwrap_or(i64::MAX));
        let since = query.since.map_or(i64::MIN, Timestamp::millis);
        let kind = query.kind.map(|kind| kind.as_str());
        let rows = self.rows(
            "SELECT id, at, pool, kind, who, summary, detail FROM history
             WHERE id < ?1 AND at >= ?2 AND (?3 IS NULL OR pool = ?3) AND (?4 IS NULL OR kind = ?4)
             ORDER BY id DESC LIMIT ?5",
            params![before, since, query.pool, kind, query.limit as i64],
            |row| {
                let texts: [String; 4] = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?];
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, texts, row.get::<_, String>(6)?))
            },
        )?;
        let item = |(id, at, [pool, kind, who, summary], detail): (i64, i64, [String; 4], String)| {
            Ok(HistoryItem {
                id: id as u64,
                at: Timestamp::from_millis(at),
                pool: pool.into(),
                kind: parsed("a history row", &format!("\"{kind}\""))?,
                who,
                summary,
                detail: parsed("a history row", &detail)?,
            })
        };
        rows.into_iter().map(item).collect()
    }

    pub fn observed(&mut self, pool: &PoolName, at: Timestamp, numbers: &[(String, f64)]) -> Result<(), JournalError> {
        let start = rollup::bucket(at, rollup::BUCKET_SECS);
        let oldest = rollup::bucket(at.minus(rollup::KEPT), rollup::BUCKET_SECS);
        self.write(|transaction, _| {
            for (name, value) in numbers {
                transaction.execute(
                    "INSERT INTO rollup VALUES (?1, ?2, ?3, 1, ?4, ?4) ON CONFLICT (pool, start, name)
                     DO UPDATE SET count = count + 1, sum = sum + excluded.sum, max = max(max, excluded.max)",
                    params![pool, start, name, value],
                )?;
            }
            transaction.execute("DELETE FROM rollup WHERE pool = ? AND start < ?", params![pool, oldest])?;
            Ok(())
        })
    }

    pub fn observations(&self, pool: &PoolName, since: Timestamp, step_secs: u64) -> Result<Vec<Value>, JournalError> {
        let width = rollup::width(step_secs);
        let cells = self.rows(
            "SELECT start, name, count, sum, max FROM rollup WHERE pool = ? AND start >= ? ORDER BY start, name",
            params![pool, rollup::bucket(since, width)],
            |row| {
                let count = row.get::<_, i64>(2)? as u64;
                Ok((row.get(0)?, row.get(1)?, Cell { count, sum: row.get(3)?, max: row.get(4)? }))
            },
        )?;
        Ok(rollup::rows(cells, width))
    }

    /// Stands in for a full disk.
    #[cfg(test)]
    pub fn limit_pages(&self, pages: Option<u32>) {
        let now: u32 = self.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("a count");
        let limit = pages.map_or(u32::MAX - 1, |more| now + more);
        self.connection.query_row(&format!("PRAGMA max_page_count = {limit}"), [], |_| Ok(())).expect("a limit");
    }
}

/// An operation without its steps, the order of those, and the sum over both.
fn head(operation: &Operation) -> Result<(String, String, i64), JournalError> {
    let head = written(&Operation { steps: Vec::new(), ..operation.clone() })?;
    let order = written(&operation.steps.iter().map(|step| step.seq).collect::<Vec<_>>())?;
    let sum = sum(&[&head, &order]);
    Ok((head, order, sum))
}

fn put_step(transaction: &Transaction, operation: &OperationId, step: &Step, fence: i64) -> Result<(), Fault> {
    let body = written(step)?;
    transaction.execute(
        "INSERT INTO step VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (operation, seq)
         DO UPDATE SET state = excluded.state, fence = excluded.fence, body = excluded.body, sum = excluded.sum",
        params![&*operation.0, step.seq, step.key, word(&step.state)?, fence, body, sum(&[&body])],
    )?;
    Ok(())
}

fn put_state(transaction: &Transaction, pool: &PoolName, name: &str, value: &Value) -> Result<(), Fault> {
    let body = written(value)?;
    transaction
        .execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)", params![pool, name, body, sum(&[&body])])?;
    Ok(())
}

/// Adds an audit row; its id is the next one, so that a gap would show a row taken away.
fn audit(transaction: &Transaction, entry: Option<Entry>) -> Result<(), Fault> {
    let Some(entry) = entry else { return Ok(()) };
    transaction.execute(
        "INSERT INTO history SELECT coalesce(max(id), 0) + 1, ?, ?, ?, ?, ?, ? FROM history",
        params![entry.at.millis(), entry.pool, entry.kind.as_str(), entry.who, entry.summary, written(&entry.detail)?],
    )?;
    Ok(())
}
