//! Looks through a whole journal: every sum, every tally, the chain of the history. Reads the database.

use rusqlite::Connection;

use super::sums::{self, Table};

/// Why a journal is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    #[error("{0}")]
    Found(String),
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}

impl Damage {
    /// There was no room to write: not damage, after all.
    pub fn is_full(&self) -> bool {
        matches!(self, Damage::Sql(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
    }
}

fn found(what: String) -> Damage {
    Damage::Found(what)
}

/// Reads everything that has a sum.
///
/// # Errors
/// With the first thing that is not as it was written.
pub fn whole(connection: &Connection) -> Result<(), Damage> {
    // One view of it all, should another be writing.
    let _view = connection.unchecked_transaction()?;
    start(connection)?;
    for table in Table::TALLIED {
        rows(connection, table)?;
    }
    steps_are_listed(connection)?;
    history(connection)
}

/// Writes that the journal took so far.
pub fn start(connection: &Connection) -> Result<i64, Damage> {
    let row: (i64, i64, i64, i64) = connection.query_row("SELECT fence, at, writes, sum FROM start", [], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    })?;
    let (fence, at, writes, kept) = row;
    if sums::start(fence, at, writes) == kept {
        Ok(writes)
    } else {
        Err(found("the count of its starts and writes was changed".into()))
    }
}

fn rows(connection: &Connection, table: Table) -> Result<(), Damage> {
    let name = table.name();
    let mut statement = connection.prepare(&format!("SELECT sum, {} FROM {name}", table.columns()))?;
    let (mut number, mut all) = (0, 0);
    let mut cursor = statement.query([])?;
    while let Some(row) = cursor.next()? {
        let kept: i64 = row.get(0)?;
        if table.sum(row, 1)? != kept {
            return Err(found(format!("a row of {name} was changed")));
        }
        (number, all) = (number + 1, all ^ kept);
    }
    let (told, sum) = sums::tallied(connection, name)?;
    if number != told {
        return Err(found(format!("{name} has {number} of {told} rows")));
    }
    if all != sum { Err(found(format!("a row of {name} was exchanged"))) } else { Ok(()) }
}

/// Each operation has exactly the steps that it lists.
fn steps_are_listed(connection: &Connection) -> Result<(), Damage> {
    let odd: Option<String> = connection.query_row(
        "SELECT min(operation.id) FROM operation
         WHERE step_order != (
           SELECT json_group_array(planned.value ORDER BY planned.key) FROM json_each(operation.step_order) planned
           JOIN step ON step.operation = operation.id AND step.seq = planned.value)
         OR json_array_length(step_order) != (SELECT count(*) FROM step WHERE step.operation = operation.id)",
        [],
        |row| row.get(0),
    )?;
    odd.map_or(Ok(()), |id| Err(found(format!("operation {id} does not have the steps that it lists"))))
}

fn history(connection: &Connection) -> Result<(), Damage> {
    let mut statement = connection.prepare(&format!("SELECT {}, sum FROM history ORDER BY id", sums::HISTORY))?;
    let (mut last, mut before) = (0_i64, 0_i64);
    let mut cursor = statement.query([])?;
    while let Some(row) = cursor.next()? {
        let (id, kept): (i64, i64) = (row.get(0)?, row.get(7)?);
        if id != last + 1 {
            return Err(found(format!("row {} of the history is gone", last + 1)));
        }
        if sums::history_row(before, row)? != kept {
            return Err(found(format!("row {id} of the history was changed")));
        }
        (last, before) = (id, kept);
    }
    ends_at(connection, last, before)
}

/// Whether the history ends where it was last written.
fn ends_at(connection: &Connection, last: i64, sum: i64) -> Result<(), Damage> {
    let (told, told_sum) = sums::tallied(connection, "history")?;
    if last < told {
        return Err(found(format!("the history ends at row {last} of {told}")));
    }
    if (last, sum) != (told, told_sum) { Err(found("the end of the history was changed".into())) } else { Ok(()) }
}

/// As [`whole`], of the end of the history alone.
///
/// # Errors
/// When it does not end where it was last written.
pub fn history_end(connection: &Connection) -> Result<(), Damage> {
    let end = "SELECT id, sum FROM history ORDER BY id DESC LIMIT 1";
    let mut statement = connection.prepare_cached(end)?;
    let mut cursor = statement.query([])?;
    match cursor.next()? {
        Some(row) => ends_at(connection, row.get(0)?, row.get(1)?),
        None => ends_at(connection, 0, 0),
    }
}
