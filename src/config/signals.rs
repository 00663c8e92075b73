//! Entries of `signals` and `custom` -> which series of a page, or which query, give a signal. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decide::policy::CustomLine;
use crate::model::{Signal, Stat, is_name};
use crate::scrape::prometheus::Query;
use crate::scrape::settings::{Combine, Format, Selector, Source, Whole};

use super::section::Section;

const BUILT_IN: [&str; 7] =
    ["cpu_usage", "memory_usage", "storage_usage", "search_latency", "error_rate", "query_throughput", "vectors"];

/// Names whose conditions (`cpu_high`, `latency_low` …) are those of the built-in signals, and what `scrape.health` tells.
const TAKEN: [&str; 6] = ["cpu", "memory", "storage", "latency", "error_rate", "health"];

const STATS: [(&str, Stat); 4] = [("mean", Stat::Mean), ("p50", Stat::P50), ("p95", Stat::P95), ("p99", Stat::P99)];
const COMBINES: [(&str, Combine); 3] = [("sum", Combine::Sum), ("max", Combine::Max), ("mean", Combine::Mean)];

/// A custom signal as configured; it votes only with a line.
pub(super) struct Custom {
    pub name: Arc<str>,
    pub source: Given,
    pub line: Option<CustomLine>,
}

/// Where a signal comes from.
pub(super) enum Given {
    Page(Source),
    Prometheus(Query),
    /// The preset's is not wanted.
    Nowhere,
}

/// The built-in signals of one page, by the names of the documentation.
pub(super) fn built_in(section: &Section<'_>, format: Format) -> BTreeMap<Signal, Given> {
    let mut found = BTreeMap::new();
    for name in BUILT_IN {
        if !section.has(name) {
            continue;
        }
        let signal = Signal::from_name(name);
        if section.peek_own(name).and_then(|value| value.as_str()) == Some(NOWHERE) {
            found.insert(signal, Given::Nowhere);
            continue;
        }
        let entry = section.section(name);
        let read = source(&entry, &signal, format);
        let elsewhere = [QUERY, ("high", "lines of built-in signals stand under `thresholds`")];
        entry.note_unknown(&[], &elsewhere);
        if let Some(source) = read {
            found.insert(signal, source);
        }
    }
    let hints = [
        ("total_vectors", "the signal is called vectors"),
        ("queries_per_second", "the signal is called query_throughput"),
    ];
    section.note_unknown(&[], &hints);
    found
}

/// The pool's own signals, in the order of their names.
pub(super) fn custom(section: &Section<'_>, format: Format) -> Vec<Custom> {
    let mut found = Vec::new();
    for (name, item) in section.entries() {
        if !is_name(name) {
            item.problem(
                "is not a name",
                "letters, digits, '.', '_' and '-', starting with a letter or digit, at most 63",
            );
            continue;
        }
        if BUILT_IN.contains(&name) || TAKEN.contains(&name) {
            item.problem(
                "is the name of a built-in signal",
                "choose another name, or put the entry under `scrape.signals`",
            );
            continue;
        }
        let name: Arc<str> = name.into();
        let entry = item.section();
        let source = source(&entry, &Signal::Custom(name.clone()), format);
        let line = line(&entry);
        entry.note_unknown(&[], &[QUERY, ("unit", "a custom signal is taken as it is")]);
        if let Some(source) = source {
            found.push(Custom { name, source, line });
        }
    }
    found
}

fn line(entry: &Section<'_>) -> Option<CustomLine> {
    let any = -1e300..=1e300;
    let high = entry.number("high", any.clone());
    let low = entry.number("low", any);
    let checks = entry.whole("checks", 1..=1000);
    for (key, given) in [("low", low.is_some()), ("checks", checks.is_some())] {
        if given && !entry.has("high") {
            entry.problem(
                key,
                "has no meaning without high",
                "give `high`, or leave this out: then the signal is only shown",
            );
        }
    }
    let high = high?;
    if let Some(low) = low.filter(|low| *low >= high) {
        let hint = "leave a gap, or the cluster will grow and shrink in turns";
        entry.problem("low", format!("{low} is not below high ({high})"), hint);
    }
    Some(CustomLine { high, low, checks: checks.unwrap_or(CustomLine::DEFAULT_CHECKS) })
}

/// The ways to get a signal; an entry is exactly one of them, told by its first key.
const WAYS: [&str; 6] = ["gauge", "counter", "histogram", "failed", "part", "promql"];

/// In place of an entry: the signal is not watched, though the preset has it.
const NOWHERE: &str = "none";

const QUERY: (&str, &str) = ("query", "the key of a query is `promql`");

/// `None` only together with a problem.
fn source(entry: &Section<'_>, signal: &Signal, format: Format) -> Option<Given> {
    if entry.has("promql") && !WAYS.iter().any(|way| *way != "promql" && entry.has(way)) {
        let (query, factor) = (query(entry), factor(entry, signal));
        return Some(Given::Prometheus(Query { factor: factor?, ..query? }));
    }
    on_page(entry, signal, format).map(Given::Page)
}

/// A query without its unit. `None` only together with a problem.
pub(super) fn query(entry: &Section<'_>) -> Option<Query> {
    let promql = entry.required("promql", entry.text("promql"), "such as `promql: avg(my_cpu_ratio)`")?;
    let node_label = entry.text("node_label").map(String::from);
    let mut problem = false;
    if promql.trim().is_empty() {
        entry.problem("promql", "is empty", "such as `promql: avg(my_cpu_ratio)`");
        problem = true;
    }
    if node_label.as_ref().is_some_and(|label| !is_label(label)) {
        entry.problem("node_label", "is not the name of a label", "such as `node_label: instance`");
        problem = true;
    }
    (!problem).then(|| Query { promql: promql.into(), node_label, factor: 1.0 })
}

fn is_label(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn on_page(entry: &Section<'_>, signal: &Signal, format: Format) -> Option<Source> {
    let series = |key| selected(entry, key, format);
    let pair = |key, hint| entry.required(key, series(key), hint);
    let given: Vec<&str> = WAYS.into_iter().filter(|way| entry.has(way)).collect();
    let [way] = given[..] else {
        let what = if given.is_empty() {
            "says not where it comes from".into()
        } else {
            format!("has {}", given.join(" and "))
        };
        let hint = "exactly one of: gauge; counter; histogram; failed with total; part with whole; promql";
        entry.problems.add(entry.own_path(), what, hint);
        for key in ["total", "whole", "complement", "combine", "stat", "unit", "node_label"] {
            entry.has(key); // no further problem about them
        }
        return None;
    };
    match way {
        "gauge" => {
            let (series, factor) = (series("gauge"), factor(entry, signal));
            let combine = entry.choice("combine", &COMBINES, &[]);
            Some(Source::Gauge { series: series?, combine, factor: factor? })
        }
        "counter" => {
            let (series, factor) = (series("counter"), factor(entry, signal));
            Some(Source::Counter { series: series?, factor: factor? })
        }
        "histogram" => {
            let (series, factor) = (series("histogram"), factor(entry, signal));
            let stat = entry.choice("stat", &STATS, &[]).unwrap_or(Stat::Mean);
            if format == Format::Json {
                entry.problem("histogram", "a JSON page has no histograms", "take a gauge or a counter");
            }
            Some(Source::Histogram { series: series?, stat, factor: factor? })
        }
        "failed" => {
            let (failed, total) = (series("failed"), pair("total", "the counter of all requests"));
            Some(Source::Ratio { failed: failed?, total: total? })
        }
        _ => {
            let (part, whole) = (series("part"), pair("whole", "the gauge of the capacity"));
            let complement = entry.flag("complement").unwrap_or(false);
            Some(Source::Quotient { part: part?, whole: Whole::plain(whole?), complement })
        }
    }
}

/// What turns the page's unit into the signal's. Latency must say its unit: a guess would be wrong by a thousand.
fn factor(entry: &Section<'_>, signal: &Signal) -> Option<f64> {
    match signal {
        Signal::Latency => {
            let units = [("seconds", 1000.0), ("milliseconds", 1.0), ("microseconds", 0.001)];
            entry.required("unit", entry.choice("unit", &units, &[]), "seconds, milliseconds or microseconds")
        }
        usage if usage.is_usage() || *usage == Signal::ErrorRate => {
            let units = [("ratio", 1.0), ("percent", 0.01)];
            if entry.has("unit") { entry.choice("unit", &units, &[]) } else { Some(1.0) }
        }
        _ => Some(1.0),
    }
}

fn selected(entry: &Section<'_>, key: &'static str, format: Format) -> Option<Selector> {
    let text = entry.text(key)?;
    let read = match format {
        Format::Text => Selector::parse(text).map_err(|e| e.to_string()),
        Format::Json if text.starts_with('/') => Ok(Selector::new(text.into(), Vec::new())),
        Format::Json => Err("a JSON pointer starts with '/', such as /cpu/usage".into()),
    };
    match read {
        Ok(selector) => Some(selector),
        Err(why) => {
            entry.problem(key, why, "");
            None
        }
    }
}
