//! Sums over rows, and over tables: what makes damage visible. A row's sum is over all that is read of it, so a flipped
//! bit in a node's name does not name another node; each row of the history also covers the one before. Pure but for the
//! tallies' SQL. No secret is involved: this finds damage and careless hands, not a forger.

use rusqlite::{Connection, Row, Transaction, params};

/// FNV-1a over texts; no text has the byte that stands between them.
fn sum(texts: &[&str]) -> i64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)) as i64
}

/// What the first version of the journal kept of a state or step (one text) and of an operation (two).
pub fn first_version(one: &str, two: Option<&String>) -> i64 {
    two.map_or_else(|| sum(&[one]), |two| sum(&[one, two]))
}

pub fn start(fence: i64, at: i64, writes: i64) -> i64 {
    sum(&[&fence.to_string(), &at.to_string(), &writes.to_string()])
}

pub fn state(pool: &str, name: &str, body: &str) -> i64 {
    sum(&[pool, name, body])
}

pub fn decision(pool: &str, id: i64, at: i64, body: &str) -> i64 {
    sum(&[pool, &id.to_string(), &at.to_string(), body])
}

pub fn operation(id: &str, pool: &str, is_open: bool, head: &str, step_order: &str) -> i64 {
    sum(&[id, pool, if is_open { "open" } else { "ended" }, head, step_order])
}

pub fn step(operation: &str, seq: i64, body: &str) -> i64 {
    sum(&[operation, &seq.to_string(), body])
}

pub fn request_key(pool: &str, key: &str, operation: &str, at: i64) -> i64 {
    sum(&[pool, key, operation, &at.to_string()])
}

/// The columns that [`history_row`] takes, in its order.
pub const HISTORY: &str = "id, at, pool, kind, who, summary, detail";

/// `before` is the sum of the row before, 0 for the first.
pub fn history(before: i64, id: i64, at: i64, [pool, kind, who, summary, detail]: [&str; 5]) -> i64 {
    sum(&[&before.to_string(), &id.to_string(), &at.to_string(), pool, kind, who, summary, detail])
}

/// The sum of a row that begins with the columns of [`HISTORY`].
pub fn history_row(before: i64, row: &Row) -> rusqlite::Result<i64> {
    let text = |i| Ok::<_, rusqlite::Error>(row.get_ref(i)?.as_str()?);
    Ok(history(before, row.get(0)?, row.get(1)?, [text(2)?, text(3)?, text(4)?, text(5)?, text(6)?]))
}

/// A table whose rows come, change and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    State,
    Decision,
    Operation,
    Step,
    RequestKey,
}

impl Table {
    pub const TALLIED: [Table; 5] = [Table::State, Table::Decision, Table::Operation, Table::Step, Table::RequestKey];

    pub fn name(self) -> &'static str {
        match self {
            Table::State => "state",
            Table::Decision => "decision",
            Table::Operation => "operation",
            Table::Step => "step",
            Table::RequestKey => "request_key",
        }
    }

    /// The columns that a row's sum is over.
    pub fn columns(self) -> &'static str {
        match self {
            Table::State => "pool, name, body",
            Table::Decision => "pool, id, at, body",
            Table::Operation => "id, pool, is_open, head, step_order",
            Table::Step => "operation, seq, body",
            Table::RequestKey => "pool, key, operation, at",
        }
    }

    /// The sum of a row that has [`Table::columns`] from column `from` on.
    pub fn sum(self, row: &Row, from: usize) -> rusqlite::Result<i64> {
        let text = |i: usize| Ok::<_, rusqlite::Error>(row.get_ref(from + i)?.as_str()?);
        let number = |i: usize| row.get::<_, i64>(from + i);
        Ok(match self {
            Table::State => state(text(0)?, text(1)?, text(2)?),
            Table::Decision => decision(text(0)?, number(1)?, number(2)?, text(3)?),
            Table::Operation => operation(text(0)?, text(1)?, number(2)? != 0, text(3)?, text(4)?),
            Table::Step => step(text(0)?, number(1)?, text(2)?),
            Table::RequestKey => request_key(text(0)?, text(1)?, text(2)?, number(3)?),
        })
    }
}

/// Notes that a row with the sum `new` stands where one with the sum `old` stood; `None` is no row.
pub fn tally(transaction: &Transaction, table: Table, old: Option<i64>, new: Option<i64>) -> rusqlite::Result<()> {
    let more = i64::from(new.is_some()) - i64::from(old.is_some());
    let change = old.unwrap_or(0) ^ new.unwrap_or(0);
    let mut statement = transaction.prepare_cached(
        "UPDATE tally SET rows = rows + ?1, sum = (sum | ?2) & ~(sum & ?2) WHERE name = ?3", // SQL has no exclusive or
    )?;
    statement.execute(params![more, change, table.name()]).map(drop)
}

/// A table's tally: rows and sum.
pub fn tallied(connection: &Connection, name: &str) -> rusqlite::Result<(i64, i64)> {
    let mut statement = connection.prepare_cached("SELECT rows, sum FROM tally WHERE name = ?")?;
    statement.query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
}
