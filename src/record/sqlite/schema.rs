//! The tables, and how a journal of an older version becomes one of this. A new journal takes the same way from the first
//! version on, so that there is one.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::sums::{self, Table};
use super::verify::Damage;

/// Marks the file as ours ("vscl").
pub const APPLICATION_ID: i64 = 0x7673_636c;
/// Counts up with every change of the tables below.
pub const VERSION: i64 = 2;

const FIRST: &str = "
CREATE TABLE start(id INTEGER PRIMARY KEY CHECK (id = 1), fence INTEGER NOT NULL, at INTEGER NOT NULL) STRICT;
INSERT INTO start VALUES (1, 0, 0);
CREATE TABLE state(
  pool TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (pool, name)
) STRICT;
CREATE TABLE decision(
  pool TEXT NOT NULL, id INTEGER NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (pool, id)
) STRICT;
CREATE TABLE operation(
  id TEXT NOT NULL PRIMARY KEY, pool TEXT NOT NULL, is_open INTEGER NOT NULL, fence INTEGER NOT NULL,
  head TEXT NOT NULL, step_order TEXT NOT NULL, sum INTEGER NOT NULL
) STRICT;
-- The database itself forbids two open operations.
CREATE UNIQUE INDEX one_open_operation ON operation(pool) WHERE is_open = 1;
CREATE INDEX operations_of_pool ON operation(pool, id);
CREATE TABLE step(
  operation TEXT NOT NULL REFERENCES operation(id), seq INTEGER NOT NULL, key TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL, fence INTEGER NOT NULL, body TEXT NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (operation, seq)
) STRICT;
CREATE TABLE request_key(
  pool TEXT NOT NULL, key TEXT NOT NULL, operation TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (pool, key)
) STRICT;
CREATE TABLE history(
  id INTEGER PRIMARY KEY, at INTEGER NOT NULL, pool TEXT NOT NULL, kind TEXT NOT NULL, who TEXT NOT NULL,
  summary TEXT NOT NULL, detail TEXT NOT NULL
) STRICT;
CREATE TABLE rollup(
  pool TEXT NOT NULL, start INTEGER NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL, sum REAL NOT NULL,
  max REAL NOT NULL, PRIMARY KEY (pool, start, name)
) STRICT, WITHOUT ROWID;
";

/// Every row that matters has a sum over all that is read of it, and every table its tally, so that a row that was edited,
/// removed, moved or put in shows. `rollup` is statistics and goes without.
const SECOND: &str = "
ALTER TABLE start ADD COLUMN writes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE start ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE decision ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE request_key ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE history ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
-- Of `history`: the id and the sum of its last row. Of the others: how many rows, and all their sums by exclusive or.
CREATE TABLE tally(name TEXT NOT NULL PRIMARY KEY, rows INTEGER NOT NULL, sum INTEGER NOT NULL) STRICT;
INSERT INTO tally VALUES ('state', 0, 0), ('decision', 0, 0), ('operation', 0, 0), ('step', 0, 0), ('request_key', 0, 0),
  ('history', 0, 0);
";

/// Makes the tables in an empty file.
pub fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(&format!("{FIRST} PRAGMA application_id = {APPLICATION_ID}"))?;
    second(&transaction)?;
    transaction.commit()
}

/// Brings a journal of the first version to this one, in one transaction.
///
/// # Errors
/// When a row is not as that version wrote it, or there is no room.
pub fn upgrade(connection: &mut Connection) -> Result<(), Damage> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // What these sums did not cover then, nothing can tell now.
    for (table, texts) in [("state", "body, ''"), ("operation", "head, step_order"), ("step", "body, ''")] {
        let mut statement = transaction.prepare(&format!("SELECT {texts}, sum FROM {table}"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (one, two): (String, String) = (row.get(0)?, row.get(1)?);
            if sums::first_version(&one, (table == "operation").then_some(&two)) != row.get::<_, i64>(2)? {
                return Err(Damage::Found(format!("a row of {table} was changed")));
            }
        }
    }
    second(&transaction)?;
    Ok(transaction.commit()?)
}

fn second(transaction: &Transaction) -> rusqlite::Result<()> {
    transaction.execute_batch(SECOND)?;
    let (fence, at) = transaction.query_row("SELECT fence, at FROM start", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    transaction.execute("UPDATE start SET sum = ?", [sums::start(fence, at, 0)])?;
    list_written_steps(transaction)?;
    for table in Table::TALLIED {
        let select = format!("SELECT rowid, {} FROM {}", table.columns(), table.name());
        let (mut statement, mut rows, mut all) = (transaction.prepare(&select)?, 0, 0);
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let sum = table.sum(row, 1)?;
            transaction.execute(&format!("UPDATE {} SET sum = ? WHERE rowid = ?", table.name()), [sum, row.get(0)?])?;
            (rows, all) = (rows + 1, all ^ sum);
        }
        transaction.execute("UPDATE tally SET rows = ?, sum = ? WHERE name = ?", params![rows, all, table.name()])?;
    }
    let (mut last, mut before) = (0, 0);
    let mut statement = transaction.prepare(&format!("SELECT {} FROM history ORDER BY id", sums::HISTORY))?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        (last, before) = (row.get(0)?, sums::history_row(before, row)?);
        transaction.execute("UPDATE history SET sum = ? WHERE id = ?", [before, last])?;
    }
    transaction.execute("UPDATE tally SET rows = ?, sum = ? WHERE name = 'history'", [last, before])?;
    transaction.execute_batch(&format!("PRAGMA user_version = {VERSION}"))
}

/// The first version also listed steps that were planned and not yet written.
fn list_written_steps(transaction: &Transaction) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "UPDATE operation SET step_order = (
           SELECT json_group_array(planned.value ORDER BY planned.key) FROM json_each(operation.step_order) planned
           JOIN step ON step.operation = operation.id AND step.seq = planned.value)",
    )
}
