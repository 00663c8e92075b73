//! Which series of known databases and exporters give which signals: a name in, sources out. Pure.

use std::collections::BTreeMap;

use crate::model::{Signal, Stat};

use super::settings::{Selector, Source};

/// The names that [`preset`] knows.
pub const PRESETS: [&str; 4] = ["vectornode", "qdrant", "node_exporter", "none"];

/// The signals of a known page. `None` for a name that is no preset.
pub fn preset(name: &str) -> Option<BTreeMap<Signal, Source>> {
    match name {
        "vectornode" => Some(vectornode()),
        "qdrant" => Some(qdrant()),
        "node_exporter" => Some(node_exporter()),
        "none" => Some(BTreeMap::new()),
        _ => None,
    }
}

/// The built-in node tells everything.
fn vectornode() -> BTreeMap<Signal, Source> {
    BTreeMap::from([
        (Signal::Cpu, gauge("vectornode_cpu_usage_ratio")),
        (Signal::Memory, gauge("vectornode_memory_usage_ratio")),
        (Signal::Storage, gauge("vectornode_storage_usage_ratio")),
        (Signal::Latency, mean_of_seconds("vectornode_search_duration_seconds")),
        (Signal::ErrorRate, ratio(r#"vectornode_requests_total{code=~"5.."}"#, "vectornode_requests_total")),
        (Signal::Throughput, counter("vectornode_searches_total")),
        (Signal::Vectors, gauge("vectornode_vectors")),
    ])
}

/// Qdrant's page knows requests and vectors, over REST only; its CPU, memory and disk are not on it: a second page of
/// node_exporter gives those. Durations are of answers with status 200 only. `collections_vector_total` counts every
/// local replica.
fn qdrant() -> BTreeMap<Signal, Source> {
    const SEARCHES: &str =
        r"endpoint=~`/collections/\{collection_name\}/points/(query|search|recommend|discover|scroll).*`";
    BTreeMap::from([
        (Signal::Latency, mean_of_seconds(&format!("rest_responses_duration_seconds{{{SEARCHES}}}"))),
        (Signal::ErrorRate, ratio(r#"rest_responses_total{status=~"5.."}"#, "rest_responses_total")),
        (Signal::Throughput, counter(&format!("rest_responses_total{{{SEARCHES}}}"))),
        (Signal::Vectors, gauge("collections_vector_total")),
    ])
}

/// The machine: CPU time not idle over all CPU time, memory not available, the root file system not available.
fn node_exporter() -> BTreeMap<Signal, Source> {
    let root = r#"{mountpoint="/",fstype!="rootfs"}"#;
    BTreeMap::from([
        (Signal::Cpu, ratio(r#"node_cpu_seconds_total{mode!="idle"}"#, "node_cpu_seconds_total")),
        (Signal::Memory, used("node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes")),
        (
            Signal::Storage,
            used(&format!("node_filesystem_avail_bytes{root}"), &format!("node_filesystem_size_bytes{root}")),
        ),
    ])
}

fn series(text: &str) -> Selector {
    Selector::parse(text).expect("the presets are selectors, a test reads them all")
}

fn gauge(text: &str) -> Source {
    Source::Gauge { series: series(text), combine: None, factor: 1.0 }
}

fn counter(text: &str) -> Source {
    Source::Counter { series: series(text), factor: 1.0 }
}

fn ratio(failed: &str, total: &str) -> Source {
    Source::Ratio { failed: series(failed), total: series(total) }
}

fn used(available: &str, all: &str) -> Source {
    Source::Quotient { part: series(available), whole: series(all), complement: true }
}

fn mean_of_seconds(text: &str) -> Source {
    Source::Histogram { series: series(text), stat: Stat::Mean, factor: 1000.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Raw, Timestamp};
    use crate::scrape::exposition::Dialect;
    use crate::scrape::extract::{Freshness, from_text};

    fn read(name: &str, page: &str) -> BTreeMap<Signal, Result<Raw, crate::model::Gap>> {
        let path = format!("{}/tests/fixtures/exposition/{page}", env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read(path).unwrap();
        from_text(&page, Dialect::Text, &preset(name).unwrap(), Freshness::any(Timestamp::from_millis(0)))
    }

    #[test]
    fn every_preset_is_there() {
        for name in PRESETS {
            assert!(preset(name).is_some(), "{name}");
        }
        assert!(preset("milvus").is_none());
    }

    #[test]
    fn node_exporter_pages_give_the_three_usages() {
        for page in ["node_exporter-1.11.1.txt", "node_exporter-1.5.0.txt"] {
            let read = read("node_exporter", page);
            assert!(matches!(read[&Signal::Cpu], Ok(Raw::Ratio { failed, total }) if 0.0 < failed && failed < total));
            for signal in [Signal::Memory, Signal::Storage] {
                assert!(
                    matches!(read[&signal], Ok(Raw::Gauge(share)) if 0.0 < share && share < 1.0),
                    "{page} {signal}: {:?}",
                    read[&signal]
                );
            }
        }
    }

    #[test]
    fn a_qdrant_page_gives_requests_and_vectors() {
        let read = read("qdrant", "qdrant-1.19.0.txt");
        assert_eq!(read[&Signal::Vectors], Ok(Raw::Gauge(50303.0)));
        assert_eq!(read[&Signal::Throughput], Ok(Raw::Counter(955.0)));
        assert_eq!(read[&Signal::ErrorRate], Ok(Raw::Ratio { failed: 0.0, total: 1156.0 }));
        assert!(
            matches!(read[&Signal::Latency], Ok(Raw::Histogram { count: 946.0, .. })),
            "searches answered with 200: {:?}",
            read[&Signal::Latency]
        );
    }
}
