//! Rows as they are written: each with its sum, and its table's tally brought up to date in the same transaction.

use rusqlite::{Connection, OptionalExtension, Params, Transaction, params};
use serde::Serialize;
use serde_json::Value;

use super::store::Fault;
use super::sums::{self, Table, tally};
use crate::model::{Decision, Operation, OperationId, PoolName, Step};
use crate::record::{DECISIONS_KEPT, Entry, JournalError, KEY_KEPT};

fn written(value: &impl Serialize) -> Result<String, JournalError> {
    serde_json::to_string(value).map_err(|e| JournalError::Unwritable(format!("a value cannot be written: {e}")))
}

/// The word that serde has for a state or kind.
fn word(value: &impl Serialize) -> Result<String, JournalError> {
    Ok(written(value)?.trim_matches('"').to_string())
}

/// The one row about the journal itself.
#[derive(Clone, Copy)]
pub struct Start {
    pub fence: i64,
    pub at: i64,
    /// Writes so far.
    pub writes: i64,
}

impl Start {
    pub fn read(connection: &Connection) -> rusqlite::Result<Start> {
        let mut statement = connection.prepare_cached("SELECT fence, at, writes FROM start")?;
        statement.query_row([], |row| Ok(Start { fence: row.get(0)?, at: row.get(1)?, writes: row.get(2)? }))
    }

    pub fn write(self, transaction: &Transaction) -> rusqlite::Result<()> {
        let Start { fence, at, writes } = self;
        let mut statement =
            transaction.prepare_cached("UPDATE start SET fence = ?, at = ?, writes = ?, sum = ? WHERE id = 1")?;
        statement.execute(params![fence, at, writes, sums::start(fence, at, writes)]).map(drop)
    }
}

/// An operation without its steps, the order of those that `is_written`, and the sum.
pub fn head(operation: &Operation, is_written: impl Fn(&Step) -> bool) -> Result<(String, String, i64), JournalError> {
    let head = written(&Operation { steps: Vec::new(), ..operation.clone() })?;
    let steps = operation.steps.iter().filter(|step| is_written(step));
    let order = written(&steps.map(|step| step.seq).collect::<Vec<_>>())?;
    let sum = sums::operation(&operation.id.0, &operation.pool, !operation.state.is_final(), &head, &order);
    Ok((head, order, sum))
}

pub fn written_steps(transaction: &Transaction, operation: &OperationId) -> rusqlite::Result<Vec<u32>> {
    let mut statement = transaction.prepare_cached("SELECT seq FROM step WHERE operation = ?")?;
    statement.query_map([&*operation.0], |row| row.get(0))?.collect()
}

pub fn put_step(transaction: &Transaction, operation: &OperationId, step: &Step, fence: i64) -> Result<(), Fault> {
    let body = written(step)?;
    let known = "SELECT sum FROM step WHERE operation = ? AND seq = ?";
    let old = transaction.query_row(known, params![&*operation.0, step.seq], |row| row.get(0)).optional()?;
    let sum = sums::step(&operation.0, i64::from(step.seq), &body);
    transaction.execute(
        "INSERT INTO step VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (operation, seq)
         DO UPDATE SET state = excluded.state, fence = excluded.fence, body = excluded.body, sum = excluded.sum",
        params![&*operation.0, step.seq, step.key, word(&step.state)?, fence, body, sum],
    )?;
    Ok(tally(transaction, Table::Step, old, Some(sum))?)
}

pub fn put_state(transaction: &Transaction, pool: &PoolName, name: &str, value: &Value) -> Result<(), Fault> {
    let body = written(value)?;
    let known = "SELECT sum FROM state WHERE pool = ? AND name = ?";
    let old = transaction.query_row(known, [pool, name], |row| row.get(0)).optional()?;
    let sum = sums::state(pool, name, &body);
    transaction.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)", params![pool, name, body, sum])?;
    Ok(tally(transaction, Table::State, old, Some(sum))?)
}

/// Writes a decision, and drops those that are too many by now.
pub fn put_decision(transaction: &Transaction, pool: &PoolName, decision: &Decision) -> Result<(), Fault> {
    let (id, at, body) = (decision.id as i64, decision.at.millis(), written(decision)?);
    let known = "SELECT sum FROM decision WHERE pool = ? AND id = ?";
    let old = transaction.query_row(known, params![pool, id], |row| row.get(0)).optional()?;
    let sum = sums::decision(pool, id, at, &body);
    transaction.execute("INSERT OR REPLACE INTO decision VALUES (?, ?, ?, ?, ?)", params![pool, id, at, body, sum])?;
    tally(transaction, Table::Decision, old, Some(sum))?;
    let oldest = (decision.id + 1).saturating_sub(DECISIONS_KEPT) as i64;
    drop_rows(transaction, Table::Decision, "pool = ? AND id < ?", params![pool, oldest])
}

pub fn put_request_key(transaction: &Transaction, operation: &Operation, key: &str) -> Result<(), Fault> {
    let (pool, at) = (&operation.pool, operation.started_at);
    drop_rows(transaction, Table::RequestKey, "at <= ?", [at.minus(KEY_KEPT).millis()])?;
    drop_rows(transaction, Table::RequestKey, "pool = ? AND key = ?", [pool, key])?;
    let sum = sums::request_key(pool, key, &operation.id.0, at.millis());
    let insert = "INSERT INTO request_key VALUES (?, ?, ?, ?, ?)";
    transaction.execute(insert, params![pool, key, &*operation.id.0, at.millis(), sum])?;
    Ok(tally(transaction, Table::RequestKey, None, Some(sum))?)
}

fn drop_rows(transaction: &Transaction, table: Table, what: &str, with: impl Params) -> Result<(), Fault> {
    let mut statement =
        transaction.prepare_cached(&format!("DELETE FROM {} WHERE {what} RETURNING sum", table.name()))?;
    let dropped: Vec<i64> = statement.query_map(with, |row| row.get(0))?.collect::<Result<_, _>>()?;
    for sum in dropped {
        tally(transaction, table, Some(sum), None)?;
    }
    Ok(())
}

/// Adds an audit row: its id is the next one, its sum covers the row before.
pub fn audit(transaction: &Transaction, entry: Option<Entry>) -> Result<(), Fault> {
    let Some(Entry { at, pool, kind, who, summary, detail }) = entry else { return Ok(()) };
    let (last, before) = sums::tallied(transaction, "history")?;
    let (id, detail) = (last + 1, written(&detail)?);
    let sum = sums::history(before, id, at.millis(), [&pool, kind.as_str(), &who, &summary, &detail]);
    let row = params![id, at.millis(), pool, kind.as_str(), who, summary, detail, sum];
    transaction.execute("INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)?;
    transaction.execute("UPDATE tally SET rows = ?, sum = ? WHERE name = 'history'", [id, sum])?;
    Ok(())
}
