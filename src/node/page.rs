//! What a node tells of itself: `/health`, `/stats`, `/metrics`. Pure but for reading the node.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;

use super::state::Node;
use crate::http::{Answer, json, typed};

/// Upper bounds of the search histogram, seconds.
const BOUNDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Counts of clients' requests for data; what nodes ask each other is not in them.
#[derive(Default)]
pub struct Meters(Mutex<Counts>);

#[derive(Clone, Default)]
struct Counts {
    searches: u64,
    /// By status code.
    requests: BTreeMap<u16, u64>,
    /// Searches per bucket, the last for those above every bound; seconds in all.
    buckets: [u64; BOUNDS.len() + 1],
    seconds: f64,
}

impl Meters {
    pub fn request(&self, code: StatusCode) {
        *self.counts().requests.entry(code.as_u16()).or_default() += 1;
    }

    /// A search that this node answered for the whole cluster.
    pub fn search(&self, took: Duration) {
        let mut counts = self.counts();
        let seconds = took.as_secs_f64();
        counts.searches += 1;
        counts.seconds += seconds;
        counts.buckets[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().expect("no panic while counting")
    }
}

#[derive(Serialize)]
struct Health<'a> {
    status: &'a str,
    id: &'a str,
    cluster: Option<&'a str>,
    epoch: Option<u64>,
}

/// 200 when the node serves as a member, else 503 with the reason.
pub fn health(node: &Node) -> Answer {
    let (map, health) = (node.map(), node.health());
    let code = if health.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Health {
        status: health.as_ref().err().map_or("ok", String::as_str),
        id: node.id.as_str(),
        cluster: map.as_ref().map(|m| m.cluster.as_str()),
        epoch: map.as_ref().map(|m| m.epoch),
    };
    json(code, &body)
}

#[derive(Serialize)]
struct Stats {
    node: String,
    cpu_usage: f64,
    memory_usage: f64,
    storage_usage: f64,
    cpu_cores: f64,
    memory_bytes: u64,
    memory_limit_bytes: u64,
    storage_bytes: u64,
    storage_limit_bytes: u64,
    vectors: u64,
    shards: usize,
    searches_total: u64,
    requests_total: u64,
    requests_failed_total: u64,
}

pub fn stats(node: &Node) -> Answer {
    let counts = node.meters.counts().clone();
    let (memory_bytes, storage_bytes) = (node.memory_bytes(), node.storage_bytes());
    json(
        StatusCode::OK,
        &Stats {
            node: node.id.to_string(),
            cpu_usage: node.pace.usage(),
            memory_usage: ratio(memory_bytes, node.limits.memory_bytes),
            storage_usage: ratio(storage_bytes, node.limits.storage_bytes),
            cpu_cores: node.limits.cpu_cores,
            memory_bytes,
            memory_limit_bytes: node.limits.memory_bytes,
            storage_bytes,
            storage_limit_bytes: node.limits.storage_bytes,
            vectors: node.vectors(),
            shards: node.holdings().shards.len(),
            searches_total: counts.searches,
            requests_total: counts.requests.values().sum(),
            requests_failed_total: counts.requests.range(500..).map(|(_, n)| n).sum(),
        },
    )
}

pub fn metrics(node: &Node) -> Answer {
    typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text(node))
}

fn text(node: &Node) -> String {
    let mut counts = node.meters.counts().clone();
    // Codes that always show, so that a rate has a beginning.
    for code in [200, 400, 503] {
        counts.requests.entry(code).or_default();
    }
    let mut page = String::new();
    let mut series = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
        let name = format!("vectornode_{name}");
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}"); // a String takes everything
        for (rest, value) in samples {
            let _ = writeln!(page, "{name}{rest} {value}");
        }
    };
    let one = |value: f64| [(String::new(), value)];
    let memory = ratio(node.memory_bytes(), node.limits.memory_bytes);
    let storage = ratio(node.storage_bytes(), node.limits.storage_bytes);
    series(
        "cpu_usage_ratio",
        "gauge",
        "CPU time of the last 2 s over the node's share of CPU.",
        &one(node.pace.usage()),
    );
    series("memory_usage_ratio", "gauge", "Memory of the points over the node's memory limit.", &one(memory));
    series("storage_usage_ratio", "gauge", "Bytes of the logs over the node's storage limit.", &one(storage));
    series("vectors", "gauge", "Vectors held, copies included.", &one(node.vectors() as f64));
    series("searches_total", "counter", "Searches answered for clients.", &one(counts.searches as f64));
    let codes = counts.requests.iter().map(|(code, n)| (format!("{{code=\"{code}\"}}"), *n as f64));
    series("requests_total", "counter", "Clients' requests for data by status code.", &codes.collect::<Vec<_>>());
    let mut sum = 0;
    let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".into()]);
    let mut buckets: Vec<_> = bounds
        .zip(counts.buckets)
        .map(|(bound, n)| {
            sum += n;
            (format!("_bucket{{le=\"{bound}\"}}"), sum as f64)
        })
        .collect();
    buckets.push(("_sum".into(), counts.seconds));
    buckets.push(("_count".into(), counts.searches as f64));
    series("search_duration_seconds", "histogram", "Time that clients' searches took.", &buckets);
    page
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
