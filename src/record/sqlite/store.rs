//! The journal's questions and answers as SQL, blocking. Every write is one transaction that checks the fence first, and
//! every row that is read is held against its sum.

use std::fs::File;

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, TransactionBehavior, params};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::head::Head;
use super::rows::{Start, audit, head, put_decision, put_request_key, put_state, put_step, written_steps};
use super::sums::{self, Table, tally};
use super::verify::{self, Damage};
use crate::model::{Decision, HistoryItem, Operation, OperationId, PoolName, Step, Timestamp};
use crate::record::rollup::{self, Cell};
use crate::record::{Entry, HistoryQuery, JournalError, KEY_KEPT};

pub struct Store {
    connection: Connection,
    /// 0 until taken over: no write then.
    fence: i64,
    /// A reader has neither lock nor head.
    owned: Option<(File, Head)>,
}

/// What went wrong inside a transaction.
pub enum Fault {
    Sql(rusqlite::Error),
    Journal(JournalError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sql(error)
    }
}

impl From<Damage> for Fault {
    fn from(damage: Damage) -> Fault {
        match damage {
            Damage::Sql(error) => Fault::Sql(error),
            Damage::Found(what) => Fault::Journal(JournalError::Unreadable(format!("it is damaged on disk: {what}"))),
        }
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

fn checked(what: &str, sum: i64, kept: i64) -> Result<(), JournalError> {
    if sum == kept { Ok(()) } else { Err(damaged(what)) }
}

fn damaged(what: &str) -> JournalError {
    JournalError::Unreadable(format!(
        "{what} is damaged on disk\n    hint: restore the journal from a backup; a start on it says what else is damaged"
    ))
}

fn parsed<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, JournalError> {
    serde_json::from_str(text).map_err(|e| JournalError::Unreadable(format!("{what}: {e}")))
}

impl Store {
    /// `owned`: the lock on the storage path, and where writes are counted; a reader has none.
    pub fn new(connection: Connection, owned: Option<(File, Head)>) -> Store {
        Store { connection, fence: 0, owned }
    }

    /// Makes this start the owner; earlier ones can write no more.
    pub fn take_over(&mut self, at: Timestamp) -> Result<u64, JournalError> {
        let mut next = Start::read(&self.connection).map_err(unwritable)?;
        (next.fence, next.at) = (next.fence + 1, at.millis());
        self.fence = next.fence;
        self.write(|transaction, _| Ok(next.write(transaction)?))?;
        Ok(next.fence as u64)
    }

    fn write<T>(&mut self, act: impl FnOnce(&Transaction, i64) -> Result<T, Fault>) -> Result<T, JournalError> {
        let ours = self.fence;
        let Some((_, head)) = &self.owned else {
            return Err(JournalError::Unwritable("it was opened for reading only".into()));
        };
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unwritable)?;
        let theirs = Start::read(&transaction).map_err(unwritable)?.fence;
        if theirs > ours {
            return Err(JournalError::Fenced { ours: ours as u64, theirs: theirs as u64 });
        }
        let done = act(&transaction, ours).map_err(unwritable)?;
        let mut start = Start::read(&transaction).map_err(unwritable)?;
        start.writes += 1;
        start.write(&transaction).map_err(unwritable)?;
        transaction.commit().map_err(unwritable)?;
        head.note(start.writes);
        Ok(done)
    }

    /// Reads from one view of the journal, while another may be writing it.
    fn read<T>(&self, act: impl FnOnce() -> Result<T, JournalError>) -> Result<T, JournalError> {
        let _view = self.connection.unchecked_transaction().map_err(unreadable)?;
        act()
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
        checked(name, sums::state(pool, name, &body), kept)?;
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
            put_decision(transaction, pool, decision)?;
            put_state(transaction, pool, "memory", memory)?;
            audit(transaction, entry)
        })
    }

    pub fn decisions(&self, pool: &PoolName, limit: usize, before: Option<u64>) -> Result<Vec<Decision>, JournalError> {
        let before = before.map_or(i64::MAX, |id| i64::try_from(id).unwrap_or(i64::MAX));
        let what = "id < ? ORDER BY id DESC LIMIT ?";
        self.read_decisions(pool, what, params![pool, before, limit as i64])
    }

    pub fn decision(&self, pool: &PoolName, id: u64) -> Result<Option<Decision>, JournalError> {
        Ok(self.read_decisions(pool, "id = ?", params![pool, id as i64])?.pop())
    }

    fn read_decisions(&self, pool: &PoolName, what: &str, with: impl Params) -> Result<Vec<Decision>, JournalError> {
        let sql = format!("SELECT id, at, body, sum FROM decision WHERE pool = ? AND {what}");
        let rows: Vec<(i64, i64, String, i64)> =
            self.rows(&sql, with, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        let decision = |(id, at, body, kept): (i64, i64, String, i64)| {
            checked(&format!("decision {id}"), sums::decision(pool, id, at, &body), kept)?;
            parsed("a decision", &body)
        };
        rows.into_iter().map(decision).collect()
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
            let steps: Vec<&Step> = operation.steps.iter().collect();
            let (head, order, sum) = head(operation, |step| steps.iter().any(|s| s.seq == step.seq))?;
            transaction.execute(
                "INSERT INTO operation VALUES (?, ?, ?, ?, ?, ?, ?)",
                params![&*operation.id.0, operation.pool, !operation.state.is_final(), fence, head, order, sum],
            )?;
            tally(transaction, Table::Operation, None, Some(sum))?;
            for step in steps {
                put_step(transaction, &operation.id, step, fence)?;
            }
            if let Some(key) = key {
                put_request_key(transaction, operation, key)?;
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
            let before: Option<i64> = transaction
                .query_row("SELECT sum FROM operation WHERE id = ? AND is_open = 1", [&*operation.id.0], |row| {
                    row.get(0)
                })
                .optional()?;
            let Some(before) = before else {
                return Err(JournalError::Unwritable(format!("operation {} is not open", operation.id)).into());
            };
            let ended = operation.steps.iter().filter(|_| operation.state.is_final());
            for step in ended.chain(step) {
                put_step(transaction, &operation.id, step, fence)?;
            }
            // A step that is planned and not yet written is none yet.
            let written = written_steps(transaction, &operation.id)?;
            let (head, order, sum) = head(operation, |step| written.contains(&step.seq))?;
            transaction.execute(
                "UPDATE operation SET is_open = ?, fence = ?, head = ?, step_order = ?, sum = ? WHERE id = ?",
                params![!operation.state.is_final(), fence, head, order, sum, &*operation.id.0],
            )?;
            tally(transaction, Table::Operation, Some(before), Some(sum))?;
            audit(transaction, entry)
        })
    }

    fn read_operations(&self, what: &str, with: &[&dyn ToSql]) -> Result<Vec<Operation>, JournalError> {
        let sql = format!("SELECT id, is_open, head, step_order, sum, pool FROM operation WHERE {what}");
        self.read(|| {
            let rows = self.rows(&sql, with, |row| {
                let texts: [String; 4] = [row.get(0)?, row.get(5)?, row.get(2)?, row.get(3)?];
                Ok((texts, row.get(1)?, row.get(4)?))
            })?;
            rows.into_iter().map(|(texts, is_open, kept)| self.whole(texts, is_open, kept)).collect()
        })
    }

    /// Head and steps together again, the steps in their order.
    fn whole(&self, [id, pool, head, order]: [String; 4], is_open: bool, kept: i64) -> Result<Operation, JournalError> {
        let what = format!("operation {id}");
        checked(&what, sums::operation(&id, &pool, is_open, &head, &order), kept)?;
        let mut operation: Operation = parsed(&what, &head)?;
        let order: Vec<u32> = parsed(&what, &order)?;
        let steps: Vec<(u32, String, i64)> =
            self.rows("SELECT seq, body, sum FROM step WHERE operation = ?", [&id], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        for seq in &order {
            let step = steps.iter().find(|(found, ..)| found == seq);
            let (_, body, kept) = step.ok_or_else(|| damaged(&format!("{what}, which has lost its step {seq},")))?;
            checked(&what, sums::step(&id, i64::from(*seq), body), *kept)?;
            operation.steps.push(parsed(&what, body)?);
        }
        if steps.len() > order.len() {
            return Err(damaged(&format!("{what}, which has a step that it does not list,")));
        }
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
        let sql = "SELECT operation, at, sum FROM request_key WHERE pool = ? AND key = ? AND at > ?";
        let found: Vec<(String, i64, i64)> =
            self.rows(sql, params![pool, key, now.minus(KEY_KEPT).millis()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        let Some((operation, at, kept)) = found.into_iter().next() else { return Ok(None) };
        checked("an idempotency key", sums::request_key(pool, key, &operation, at), kept)?;
        Ok(Some(OperationId(operation.into())))
    }

    pub fn append(&mut self, entry: Entry) -> Result<(), JournalError> {
        self.write(|transaction, _| audit(transaction, Some(entry)))
    }

    pub fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryItem>, JournalError> {
        let before = query.before.map_or(i64::MAX, |id| i64::try_from(id).unwrap_or(i64::MAX));
        let since = query.since.map_or(i64::MIN, Timestamp::millis);
        let kind = query.kind.map(|kind| kind.as_str());
        self.read(|| {
            if query.before.is_none() {
                verify::history_end(&self.connection).map_err(unreadable)?;
            }
            self.rows(
                "SELECT id, at, pool, kind, who, summary, detail, sum,
                        (SELECT sum FROM history WHERE id = h.id - 1) FROM history h
                 WHERE id < ?1 AND at >= ?2 AND (?3 IS NULL OR pool = ?3) AND (?4 IS NULL OR kind = ?4)
                 ORDER BY id DESC LIMIT ?5",
                params![before, since, query.pool, kind, query.limit as i64],
                |row| Ok(history_item(row)),
            )?
            .into_iter()
            .collect()
        })
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

/// A row with all columns of the history, its sum, and the sum of the row before.
fn history_item(row: &Row) -> Result<HistoryItem, JournalError> {
    let read = |row: &Row| -> rusqlite::Result<_> {
        let (id, before): (i64, Option<i64>) = (row.get(0)?, row.get(8)?);
        let is_sound = match before {
            // Only the first has none before it.
            None if id != 1 => false,
            before => sums::history_row(before.unwrap_or(0), row)? == row.get::<_, i64>(7)?,
        };
        let texts: [String; 5] = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?];
        Ok((id, is_sound, row.get(1)?, texts))
    };
    let (id, is_sound, at, [pool, kind, who, summary, detail]) = read(row).map_err(unreadable)?;
    let what = format!("row {id} of the history");
    if !is_sound {
        return Err(damaged(&what));
    }
    Ok(HistoryItem {
        id: id as u64,
        at: Timestamp::from_millis(at),
        pool: pool.into(),
        kind: parsed(&what, &format!("\"{kind}\""))?,
        who,
        summary,
        detail: parsed(&what, &detail)?,
    })
}
