//! Which series of known databases and exporters give which signals: a name in, sources out. Pure.

use std::collections::BTreeMap;

use crate::model::{Signal, Stat};

use super::settings::{Format, Selector, Source, Whole};

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

/// A page of a node beside its first, for what that does not tell.
pub struct Further {
    pub path: &'static str,
    pub format: Format,
    pub signals: BTreeMap<Signal, Source>,
}

/// The further pages of a known database. Whatever else is configured for their signals comes before them.
pub fn further(name: &str) -> Vec<Further> {
    match name {
        "qdrant" => vec![qdrant_telemetry(), qdrant_quotas()],
        _ => Vec::new(),
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

/// Qdrant's page knows requests, of both protocols, and vectors. A series is left out until its first request, so that
/// a node which nobody asks has none. REST durations are of answers with status 200 only. What a client did wrong (4xx,
/// and such codes of gRPC) is no failure. `collections_vector_total` counts every local replica.
fn qdrant() -> BTreeMap<Signal, Source> {
    const REST: &str =
        r"{endpoint=~`/collections/\{collection_name\}/points/(query|search|recommend|discover|scroll).*`}";
    const GRPC: &str = r"{endpoint=~`/qdrant\.Points/(Query|Search|Recommend|Discover|Scroll).*`}";
    const FAILED: &str = r#"{status=~"2|4|8|13|14|15"}"#;
    let both = |rest: String, grpc: String| Selector {
        twin: Some(Box::new(series(&grpc))),
        starts_absent: true,
        ..series(&rest)
    };
    let answers =
        |rest: &str, grpc: &str| both(format!("rest_responses_total{rest}"), format!("grpc_responses_total{grpc}"));
    let durations =
        both(format!("rest_responses_duration_seconds{REST}"), format!("grpc_responses_duration_seconds{GRPC}"));
    BTreeMap::from([
        (Signal::Latency, Source::Histogram { series: durations, stat: Stat::Mean, factor: 1000.0 }),
        (Signal::ErrorRate, Source::Ratio { failed: answers(r#"{status=~"5.."}"#, FAILED), total: answers("", "") }),
        (Signal::Throughput, Source::Counter { series: answers(REST, GRPC), factor: 1.0 }),
        (Signal::Vectors, gauge("collections_vector_total")),
    ])
}

/// CPU of the process, over the cores it may use, from 1.18 on; the first answer after a start has none. Memory is what
/// the process holds of its own: mapped pages of vectors and indexes are not in it. Under an unlimited cgroup of the
/// first version there is a limit of 2^53 KiB, which is none.
fn qdrant_telemetry() -> Further {
    const KIB: f64 = 1024.0;
    const NO_MACHINE_HAS_KIB: f64 = (1_u64 << 40) as f64;
    let whole = Whole { series: series("/result/app/system/ram_size"), factor: KIB, at_most: Some(NO_MACHINE_HAS_KIB) };
    let share = |part: &str, whole| Source::Quotient { part: series(part), whole, complement: false };
    Further {
        path: "/telemetry?details_level=1",
        format: Format::Json,
        signals: BTreeMap::from([
            (Signal::Cpu, share("/result/app/system/cpu_cores_used", Whole::plain(series("/result/app/system/cores")))),
            (Signal::Memory, share("/result/memory/resident_bytes", whole)),
        ]),
    }
}

/// The disk that the storage is on, from 1.19 on, whether or not there is a quota. A page of its own: it waits for a
/// hung peer, which no parameter shortens.
fn qdrant_quotas() -> Further {
    let used = Source::Gauge { series: series("/result/usage/disk_usage_percent"), combine: None, factor: 0.01 };
    Further { path: "/quotas", format: Format::Json, signals: BTreeMap::from([(Signal::Storage, used)]) }
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
    Source::Quotient { part: series(available), whole: Whole::plain(series(all)), complement: true }
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
    fn a_qdrant_page_gives_requests_of_both_protocols_and_vectors() {
        let read = read("qdrant", "qdrant-1.19.0.txt");
        assert_eq!(read[&Signal::Vectors], Ok(Raw::Gauge(50303.0)));
        assert_eq!(read[&Signal::Throughput], Ok(Raw::Counter(955.0 + 65.0)));
        let total = 1156.0 + 65.0;
        assert_eq!(read[&Signal::ErrorRate], Ok(Raw::Ratio { failed: 0.0, total }), "what a client did wrong is none");
        assert!(
            matches!(read[&Signal::Latency], Ok(Raw::Histogram { count, .. }) if count == 946.0 + 65.0),
            "REST searches answered with 200, and all of gRPC: {:?}",
            read[&Signal::Latency]
        );
    }

    #[test]
    fn a_qdrant_node_that_was_never_asked_has_no_requests_rather_than_unknown_ones() {
        let page = |text: &str| {
            let now = Freshness::any(Timestamp::from_millis(0));
            from_text(text.as_bytes(), Dialect::Text, &preset("qdrant").unwrap(), now)
        };
        let quiet = page("# TYPE collections_vector_total gauge\ncollections_vector_total 5\n");
        assert_eq!(quiet[&Signal::Throughput], Ok(Raw::Counter(0.0)));
        assert_eq!(quiet[&Signal::ErrorRate], Ok(Raw::Ratio { failed: 0.0, total: 0.0 }));
        assert!(matches!(quiet[&Signal::Latency], Ok(Raw::Histogram { count: 0.0, .. })));
        let failing = page(
            "rest_responses_total{method=\"POST\",endpoint=\"/x\",status=\"507\"} 3\n\
             grpc_responses_total{endpoint=\"/qdrant.Points/Search\",status=\"14\"} 2\n\
             grpc_responses_total{endpoint=\"/qdrant.Points/Search\",status=\"5\"} 1\n",
        );
        assert_eq!(failing[&Signal::ErrorRate], Ok(Raw::Ratio { failed: 5.0, total: 6.0 }));
        assert!(failing[&Signal::Vectors].is_err(), "a page of something else is not taken for a quiet node");
    }

    #[test]
    fn qdrant_tells_of_its_machine_elsewhere() {
        let answered = |case: &str| {
            let path = format!("{}/tests/fixtures/qdrant/{case}.json", env!("CARGO_MANIFEST_DIR"));
            let case: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            case["response"]["body"].clone()
        };
        let read = |page: &Further, body: &serde_json::Value| {
            crate::scrape::extract::from_json(body.to_string().as_bytes(), &page.signals)
        };
        let pages = further("qdrant");
        let mut told = answered("telemetry_details_level_1");
        let seen = read(&pages[0], &told);
        assert_eq!(seen[&Signal::Cpu], Ok(Raw::Gauge(0.2490565 / 2.0)));
        assert!(seen[&Signal::Memory].is_err(), "9007199254740988 KiB is no limit: {:?}", seen[&Signal::Memory]);
        told["result"]["app"]["system"]["ram_size"] = 81_952.into();
        assert_eq!(read(&pages[0], &told)[&Signal::Memory], Ok(Raw::Gauge(40_976_384.0 / (81_952.0 * 1024.0))));
        told["result"]["app"]["system"].as_object_mut().unwrap().remove("cpu_cores_used");
        assert!(read(&pages[0], &told)[&Signal::Cpu].is_err(), "the first answer after a start has none");
        assert_eq!(read(&pages[1], &answered("quotas"))[&Signal::Storage], Ok(Raw::Gauge(0.73)));
        for page in &pages {
            assert!(read(page, &answered("standalone_cluster")).values().all(Result::is_err), "{}", page.path);
        }
    }
}
