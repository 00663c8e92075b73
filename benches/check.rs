//! One check of a pool over pages in memory: pages -> samples -> window -> observation -> decision. Each node has its own page with
//! all seven signals, and the page of a node_exporter beside it in the second group.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use vecscale::decide::{Memory, Outcome, Policy, ProviderFacts, Situation, Store, decide};
use vecscale::model::{Answer, Mode, NodeId, NodeSample, NodeState, Outlook, Profile, Signal, Timestamp};
use vecscale::observe::{ObserveSettings, RosterEntry, Window, aggregate};
use vecscale::scrape::exposition::Dialect;
use vecscale::scrape::extract::{Freshness, from_text};
use vecscale::scrape::preset;

/// What a vector node shows at its `check`-th check.
fn own_page(check: usize) -> String {
    let n = check * 1000;
    let mut page = format!(
        "vectornode_cpu_usage_ratio 0.5\nvectornode_memory_usage_ratio 0.4\nvectornode_storage_usage_ratio 0.3\n\
         vectornode_vectors 100000\nvectornode_searches_total {n}\nvectornode_requests_total{{code=\"200\"}} {n}\n\
         vectornode_requests_total{{code=\"503\"}} {check}\nvectornode_search_duration_seconds_sum {n}\n\
         vectornode_search_duration_seconds_count {n}\n"
    );
    for le in ["0.001", "0.005", "0.01", "0.05", "0.1", "0.5", "1", "5", "+Inf"] {
        page += &format!("vectornode_search_duration_seconds_bucket{{le=\"{le}\"}} {n}\n");
    }
    page
}

fn check(criterion: &mut Criterion) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/exposition/node_exporter-1.11.1.txt");
    let machine = std::fs::read(path).expect("the fixture is part of the repository");
    for (name, machine) in [("check", None), ("check with node_exporter", Some(machine))] {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20);
        for nodes in [10, 100, 1000] {
            group.bench_with_input(BenchmarkId::from_parameter(nodes), &nodes, |bench, nodes| {
                pool(bench, *nodes, machine.as_deref());
            });
        }
        group.finish();
    }
}

fn pool(bench: &mut criterion::Bencher<'_>, nodes: usize, machine: Option<&[u8]>) {
    let settings = ObserveSettings::new("p".into(), Signal::BUILT_IN.to_vec(), false);
    let (policy, outlook) = (Policy::of(Profile::Default), Outlook::default());
    let (own, also) = (preset("vectornode").expect("a preset"), preset("node_exporter").expect("a preset"));
    let roster: Vec<RosterEntry> = (0..nodes)
        .map(|i| RosterEntry {
            id: NodeId::new(&format!("n{i}")).expect("an id"),
            address: "http://10.0.0.1:6333".into(),
            zone: None,
            state: NodeState::Serving,
            drained: false,
        })
        .collect();
    let look = |window: &mut Window, memory: &Memory, check: usize| {
        let (page, at) = (own_page(check), Timestamp::from_millis(check as i64 * 30_000));
        let samples = roster.iter().map(|entry| {
            let mut signals = from_text(page.as_bytes(), Dialect::Text, &own, Freshness::any(at));
            if let Some(machine) = machine {
                black_box(from_text(machine, Dialect::Text, &also, Freshness::any(at)));
            }
            signals.retain(|_, raw| raw.is_ok());
            NodeSample { node: entry.id.clone(), at, took: Duration::ZERO, answer: Answer::Up, signals }
        });
        let samples = samples.collect();
        window.push(&settings, &roster, samples, None);
        let seen = aggregate(&settings, &policy.thresholds, window, &roster, None, at);
        let provider =
            ProviderFacts { can_change: true, only_victim: None, machines: None, timeout: Duration::from_secs(900) };
        let situation = Situation {
            seen: &seen,
            mode: Mode::Active,
            stop_file: false,
            operation: None,
            request: None,
            store: Store::None,
            provider,
            outlook: &outlook,
            lead_times: &[],
            alerts: &[],
            arrivals: &[],
        };
        decide(&policy, memory, &situation)
    };
    let mut before = Window::default();
    let Outcome { memory, .. } = look(&mut before, &Memory::default(), 1);
    bench.iter_batched_ref(|| before.clone(), |window| black_box(look(window, &memory, 2)), BatchSize::LargeInput);
}

criterion_group!(benches, check);
criterion_main!(benches);
