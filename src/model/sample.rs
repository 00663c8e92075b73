//! What one look at one node brings: raw numbers per signal, or why there are none. Pure data.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::{NodeId, Timestamp};

/// A measured quantity. The order is the order of display.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    Cpu,
    Memory,
    Storage,
    Latency,
    ErrorRate,
    Throughput,
    Vectors,
    /// Named under `custom` in the configuration; the name matches [`super::is_name`].
    Custom(Arc<str>),
}

impl Signal {
    pub const BUILT_IN: [Signal; 7] = [
        Signal::Cpu,
        Signal::Memory,
        Signal::Storage,
        Signal::Latency,
        Signal::ErrorRate,
        Signal::Throughput,
        Signal::Vectors,
    ];

    /// The name in config and API (`cpu_usage`, `search_latency` …).
    pub fn name(&self) -> &str {
        match self {
            Signal::Cpu => "cpu_usage",
            Signal::Memory => "memory_usage",
            Signal::Storage => "storage_usage",
            Signal::Latency => "search_latency",
            Signal::ErrorRate => "error_rate",
            Signal::Throughput => "query_throughput",
            Signal::Vectors => "vectors",
            Signal::Custom(name) => name,
        }
    }

    /// The signal that `name` means; any unknown name is a custom one.
    pub fn from_name(name: &str) -> Signal {
        Signal::BUILT_IN.into_iter().find(|s| s.name() == name).unwrap_or_else(|| Signal::Custom(name.into()))
    }

    /// The value, if this signal can have it: shares lie in 0..1, everything else built in is not negative, and all is
    /// finite. A share of up to 1.05 counts as 1: CPU time and wall time are read at different instants, so a busy node
    /// measures a little over its capacity.
    ///
    /// # Errors
    /// [`Gap::NotANumber`].
    pub fn checked(&self, value: f64) -> Result<f64, Gap> {
        let share = self.is_usage() || *self == Signal::ErrorRate;
        let possible = value.is_finite()
            && match self {
                Signal::Custom(_) => true,
                _ if share => (0.0..=1.05).contains(&value),
                _ => value >= 0.0,
            };
        match possible {
            true if share => Ok(value.min(1.0)),
            true => Ok(value),
            false => Err(Gap::NotANumber(format!("{value}"))),
        }
    }

    /// Whether the value is a share of a capacity, 0..1.
    pub fn is_usage(&self) -> bool {
        matches!(self, Signal::Cpu | Signal::Memory | Signal::Storage)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Signal::from_name(&String::deserialize(from)?))
    }
}

/// One number, or one family of numbers, as the node's page has it, before any rate is taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Raw {
    /// A value that stands for itself, already in the signal's unit (share, ms, per second, count).
    Gauge(f64),
    /// A cumulative count since the node's start.
    Counter(f64),
    /// Two cumulative counts; the signal is the growth of `failed` over the growth of `total`.
    Ratio { failed: f64, total: f64 },
    /// A cumulative histogram: `(upper bound, count up to it)` ascending, in the unit of the page, with the factor
    /// that turns it into the signal's unit.
    Histogram { buckets: Vec<(f64, f64)>, sum: f64, count: f64, factor: f64, stat: Stat },
}

/// Which number of a histogram is the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stat {
    Mean,
    P50,
    P95,
    P99,
}

/// What one look at a whole pool brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Ordered by node.
    pub nodes: Vec<NodeSample>,
    /// Values that a Prometheus server told for the pool as a whole, in the signal's unit.
    pub pool: BTreeMap<Signal, Result<f64, Gap>>,
    /// What is to be known of the queries: those that failed, and what the server remarked on the others.
    pub notes: Vec<String>,
}

impl Samples {
    /// Of nodes alone.
    pub fn of_nodes(nodes: Vec<NodeSample>) -> Samples {
        Samples { nodes, ..Samples::default() }
    }
}

/// What one look at one node brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeSample {
    pub node: NodeId,
    pub at: Timestamp,
    /// How long all pages of the node took together.
    #[serde(with = "super::time::seconds")]
    pub took: Duration,
    /// Whether the node answered HTTP at all, and what its database said of its own health.
    pub answer: Answer,
    /// One entry per configured signal.
    pub signals: BTreeMap<Signal, Result<Raw, Gap>>,
}

/// How a node answered the scrape, as far as its health goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// An HTTP answer below 500.
    Up,
    /// An HTTP answer of 500 or above, or the database calls the node ill.
    Ill,
    /// No HTTP answer within the deadline.
    None,
    /// Only others can tell, and they did not: the node's health stays as it was.
    Unknown,
}

/// Why a signal has no number this time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "gap", content = "detail", rename_all = "snake_case")]
pub enum Gap {
    #[error("no answer: {0}")]
    NoAnswer(String),
    #[error("unreadable page: {0}")]
    Unreadable(String),
    #[error("no series matches {0}")]
    NoSeries(String),
    #[error("{0} series match; a gauge needs exactly one, or `combine`")]
    Ambiguous(u32),
    #[error("not a finite number in its range: {0}")]
    NotANumber(String),
    /// A counter was seen for the first time, went backwards, or its node restarted: no rate this time.
    #[error("counter first seen, or reset")]
    CounterReset,
    #[error("the sample is {0} s old")]
    Stale(u64),
    /// A Prometheus server did not answer the query, or not with what was asked for.
    #[error("Prometheus: {0}")]
    Query(String),
}
