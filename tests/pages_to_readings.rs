//! From the text of pages to the pool's readings: what a vector node shows, whole and spoiled.

use std::time::Duration;

use proptest::prelude::*;
use vecscale::model::{
    Answer, NodeId, NodeSample, NodeState, Observation, Profile, Reading, ScalingThresholds, Signal, Timestamp,
};
use vecscale::observe::{ObserveSettings, RosterEntry, Window, aggregate};
use vecscale::scrape::exposition::Dialect;
use vecscale::scrape::extract::{Freshness, from_text};
use vecscale::scrape::preset;

const INTERVAL: Duration = Duration::from_secs(30);

/// A vector node after so many searches of 20 ms each, 2 % of the requests failed.
fn page(searches: u32) -> String {
    let (n, failed) = (searches, searches / 50);
    format!(
        "# TYPE vectornode_cpu_usage_ratio gauge\nvectornode_cpu_usage_ratio 0.5\n\
         vectornode_memory_usage_ratio 0.4\nvectornode_storage_usage_ratio 0.3\nvectornode_vectors 1000\n\
         vectornode_searches_total {n}\nvectornode_requests_total{{code=\"200\"}} {}\n\
         vectornode_requests_total{{code=\"503\"}} {failed}\nvectornode_search_duration_seconds_bucket{{le=\"0.1\"}} {n}\n\
         vectornode_search_duration_seconds_bucket{{le=\"+Inf\"}} {n}\nvectornode_search_duration_seconds_sum {}\n\
         vectornode_search_duration_seconds_count {n}\n",
        n - failed,
        f64::from(n) * 0.02
    )
}

/// Two nodes, one check per pair of pages.
fn observe(checks: &[[Vec<u8>; 2]]) -> Observation {
    let settings = ObserveSettings::new("p".into(), Signal::BUILT_IN.to_vec(), false);
    let sources = preset("vectornode").unwrap();
    let roster = ["n1", "n2"].map(|id| RosterEntry {
        id: NodeId::new(id).unwrap(),
        address: format!("{id}:80"),
        zone: None,
        state: NodeState::Serving,
        drained: false,
    });
    let mut window = Window::default();
    let at = |check: usize| Timestamp::from_millis(check as i64 * 30_000);
    for (check, pages) in checks.iter().enumerate() {
        let samples = roster.iter().zip(pages).map(|(entry, page)| NodeSample {
            node: entry.id.clone(),
            at: at(check),
            took: Duration::ZERO,
            answer: Answer::Up,
            signals: from_text(page, Dialect::Text, &sources, Freshness::two(INTERVAL, at(check))),
        });
        window.push(&settings, &roster, samples.collect(), None);
    }
    aggregate(&settings, &ScalingThresholds::of(Profile::Default), &window, &roster, None, at(checks.len()))
}

#[test]
fn a_vector_nodes_pages_give_all_signals() {
    let both = |searches| [page(searches).into_bytes(), page(searches).into_bytes()];
    let seen = observe(&[both(1000), both(1300)]);
    let expected = [
        (Signal::Cpu, 0.5),
        (Signal::Memory, 0.4),
        (Signal::Storage, 0.3),
        (Signal::Latency, 20.0),
        (Signal::ErrorRate, 0.02),
        (Signal::Throughput, 20.0),
        (Signal::Vectors, 2000.0),
    ];
    for (signal, value) in expected {
        let read = seen.value(&signal).unwrap_or_else(|| panic!("{signal}: {:?}", seen.readings[&signal]));
        assert!((read - value).abs() < 1e-9, "{signal}: {read}, expected {value}");
    }
    assert_eq!(seen.total_vectors, Some(2000));
}

fn spoiled() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(b"0123456789.-+eNI{}\"\n \\#\xff".to_vec());
    (0..100_000u32, prop::collection::vec((any::<prop::sample::Index>(), byte), 0..4)).prop_map(|(searches, edits)| {
        let mut page = page(searches).into_bytes();
        for (place, byte) in edits {
            let at = place.index(page.len());
            page[at] = byte;
        }
        page
    })
}

proptest! {
    #[test]
    fn spoiled_pages_give_gaps_and_never_a_negative_or_endless_value(
        checks in prop::collection::vec([spoiled(), spoiled()], 1..5),
    ) {
        let seen = observe(&checks);
        let values = seen.nodes.iter().flat_map(|node| node.values.values().copied());
        let read = seen.readings.values().flat_map(|reading| match reading {
            Reading::Fresh { value } => vec![*value],
            Reading::Partial { value, floor, .. } => vec![*value, *floor],
            Reading::Missing { .. } | Reading::Idle => vec![],
        });
        for value in values.chain(read) {
            prop_assert!(value.is_finite() && value >= 0.0, "{value}");
        }
    }
}
