//! Observations -> five-minute means and maxima. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::model::{Observation, Signal, Timestamp};

/// Width of a stored bucket, seconds.
pub const BUCKET_SECS: u64 = 300;
/// How long buckets are kept.
pub const KEPT: Duration = Duration::from_secs(28 * 24 * 3600);

/// The names that every row of the answer has, known or not.
const NAMES: [&str; 10] = [
    "cpu_usage",
    "memory_usage",
    "storage_usage",
    "search_latency",
    "query_throughput",
    "error_rate",
    "node_count",
    "healthy_nodes",
    "total_vectors",
    "avg_vectors_per_node",
];
/// Names of custom signals are kept apart from the ones above.
const CUSTOM: &str = "custom/";

/// One name's numbers of one bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    pub count: u64,
    pub sum: f64,
    pub max: f64,
}

impl Cell {
    pub fn of(value: f64) -> Cell {
        Cell { count: 1, sum: value, max: value }
    }

    pub fn join(self, other: Cell) -> Cell {
        Cell { count: self.count + other.count, sum: self.sum + other.sum, max: self.max.max(other.max) }
    }
}

/// Start of the bucket of `width` seconds that `at` lies in, in seconds since 1970.
pub fn bucket(at: Timestamp, width: u64) -> i64 {
    let width = width as i64;
    at.millis().div_euclid(1000).div_euclid(width) * width
}

/// What of an observation is kept: the numbers that are known. A gap leaves no trace, and so is never a zero.
pub fn numbers(seen: &Observation) -> Vec<(String, f64)> {
    let mut numbers = vec![
        ("node_count".to_string(), seen.node_count() as f64),
        ("healthy_nodes".to_string(), seen.healthy_nodes() as f64),
    ];
    numbers.extend(seen.total_vectors.map(|v| ("total_vectors".into(), v as f64)));
    numbers.extend(seen.avg_vectors_per_node.map(|v| ("avg_vectors_per_node".into(), v)));
    for (signal, reading) in &seen.readings {
        let name = match signal {
            Signal::Vectors => continue, // `total_vectors` says it
            Signal::Custom(name) => format!("{CUSTOM}{name}"),
            built_in => built_in.name().to_string(),
        };
        numbers.extend(reading.fresh().map(|value| (name, value)));
    }
    numbers.retain(|(_, value)| value.is_finite());
    numbers
}

/// The width that an answer of about `step_secs` has: the next multiple of a bucket.
pub fn width(step_secs: u64) -> u64 {
    step_secs.clamp(1, KEPT.as_secs()).div_ceil(BUCKET_SECS) * BUCKET_SECS
}

/// Joins buckets to rows of `width` seconds, oldest first: `{timestamp, step, cpu_usage: {mean, max} | null, …}`.
pub fn rows(cells: impl IntoIterator<Item = (i64, String, Cell)>, width: u64) -> Vec<Value> {
    let mut joined: BTreeMap<i64, BTreeMap<String, Cell>> = BTreeMap::new();
    for (start, name, cell) in cells {
        let row = joined.entry(bucket(Timestamp::from_millis(start * 1000), width)).or_default();
        row.entry(name).and_modify(|known| *known = known.join(cell)).or_insert(cell);
    }
    joined.into_iter().map(|(start, cells)| row(start, width, &cells)).collect()
}

fn row(start: i64, width: u64, cells: &BTreeMap<String, Cell>) -> Value {
    let shown = |cell: &Cell| json!({"mean": cell.sum / cell.count as f64, "max": cell.max});
    let mut row = Map::new();
    row.insert("timestamp".into(), json!(Timestamp::from_millis(start * 1000)));
    row.insert("step".into(), json!(width));
    for name in NAMES {
        row.insert(name.into(), cells.get(name).map_or(Value::Null, shown));
    }
    let custom: Map<String, Value> =
        cells.iter().filter_map(|(name, cell)| Some((name.strip_prefix(CUSTOM)?.to_string(), shown(cell)))).collect();
    row.insert("custom".into(), custom.into());
    Value::Object(row)
}
