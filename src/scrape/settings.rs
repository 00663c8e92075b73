//! The settings of collecting, as believed: which pages, and which series of them give which signal. Pure data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;

use crate::model::{Signal, Stat};

use super::prometheus::Asking;

pub use crate::model::Aggregate;

/// How the nodes of one pool are scraped.
#[derive(Clone, Debug)]
pub struct ScrapeSettings {
    /// The node's own page first, then those under `also`.
    pub pages: Vec<Page>,
    /// Of one node, all pages together.
    pub timeout: Duration,
    /// How node values become the pool's, for the three usages.
    pub aggregate: BTreeMap<Signal, Aggregate>,
    /// What is asked of a Prometheus server instead; a signal comes from one of both.
    pub prometheus: Option<Asking>,
    /// Certificates of the authorities that are trusted for pages over TLS, instead of the machine's.
    pub ca_file: Option<PathBuf>,
}

impl ScrapeSettings {
    /// The longest that all pages of one node may take, unless configured.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

    /// All signals that are collected, in order.
    pub fn signals(&self) -> BTreeSet<&Signal> {
        let queried = self.prometheus.iter().flat_map(|asking| asking.signals.keys());
        self.pages.iter().flat_map(|page| page.signals.keys()).chain(queried).collect()
    }
}

impl Page {
    pub const DEFAULT_PATH: &'static str = "/metrics";
}

/// One page of every node.
#[derive(Clone, Debug)]
pub struct Page {
    /// Replaces the port of the node's address when given.
    pub port: Option<u16>,
    pub path: String,
    pub format: Format,
    pub signals: BTreeMap<Signal, Source>,
    pub authorization: Option<Authorization>,
}

/// How the page is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4, or OpenMetrics where the node answers so.
    #[default]
    Text,
    /// A JSON document; series names are JSON pointers into it (`/cpu/usage`).
    Json,
}

/// Sent as `Authorization: Bearer`; the file is read anew for each scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    pub credentials_file: PathBuf,
}

/// Which series give one signal.
#[derive(Clone, Debug)]
pub enum Source {
    /// `combine: None`: exactly one series must match.
    Gauge {
        series: Selector,
        combine: Option<Combine>,
        factor: f64,
    },
    /// Gauge over gauge, such as used bytes over capacity; with `complement` the signal is 1 minus that.
    Quotient {
        part: Selector,
        whole: Whole,
        complement: bool,
    },
    Counter {
        series: Selector,
        factor: f64,
    },
    Ratio {
        failed: Selector,
        total: Selector,
    },
    Histogram {
        series: Selector,
        stat: Stat,
        factor: f64,
    },
}

/// What a [`Source::Quotient`] is a part of.
#[derive(Clone, Debug)]
pub struct Whole {
    pub series: Selector,
    /// Its unit in that of the part, such as 1024 for KiB of which the part is bytes.
    pub factor: f64,
    /// A number above it stands for "no limit", of which nothing is a share.
    pub at_most: Option<f64>,
}

impl Whole {
    /// In the same unit, whatever it is.
    pub fn plain(series: Selector) -> Whole {
        Whole { series, factor: 1.0, at_most: None }
    }
}

/// How several matching gauges become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    Sum,
    Max,
    Mean,
}

/// A series name with label matchers, as PromQL writes them: `name{label="v",other=~"a|b"}`.
#[derive(Clone, Debug)]
pub struct Selector {
    pub name: String,
    pub matchers: Vec<Matcher>,
    /// Further series that count as these: those of a second protocol.
    pub twin: Option<Box<Selector>>,
    /// The page leaves a series out until there is something to count: none is zero, not missing.
    pub starts_absent: bool,
}

impl Selector {
    /// One name, its labels, and no more.
    pub fn new(name: String, matchers: Vec<Matcher>) -> Selector {
        Selector { name, matchers, twin: None, starts_absent: false }
    }
}

#[derive(Clone, Debug)]
pub struct Matcher {
    pub label: String,
    pub op: MatchOp,
}

/// An absent label has the empty value, as in Prometheus; regular expressions are anchored at both ends.
#[derive(Clone, Debug)]
pub enum MatchOp {
    Equal(String),
    NotEqual(String),
    Like(Regex),
    NotLike(Regex),
}
