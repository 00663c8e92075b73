//! A notification from its bytes to the answer: reading it, and taking it into the state, which is written to disk when
//! something has changed. Alertmanager is to be answered within 100 ms.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vecscale::alerts::{Desk, Matchers, Notification, Route};
use vecscale::clock::SystemClock;
use vecscale::model::Timestamp;
use vecscale::record::SqliteJournal;
use vecscale::telemetry::Telemetry;

const START: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// So many alerts of different nodes; `round` tells one firing from the next.
fn payload(alerts: usize, round: u64) -> Vec<u8> {
    let starts_at = Timestamp::from_millis(START.millis() + round as i64 * 1000);
    let alert = |n: usize| {
        serde_json::json!({
            "status": "firing",
            "labels": {"alertname": "VectorNodeCpuHigh", "cluster": "prod", "node": format!("vec-{n}"), "scale": "up",
                "severity": "warning", "instance": "127.0.0.1:29100", "job": "node", "region": "eu-1"},
            "annotations": {"summary": format!("Vector node vec-{n} of prod runs hot"),
                "runbook_url": "https://runbooks.example/vecdb/VectorNodeCpuHigh"},
            "startsAt": starts_at, "endsAt": "0001-01-01T00:00:00Z", "fingerprint": format!("{n:016x}"),
            "generatorURL": "http://prometheus.example:9090/graph?g0.expr=vecdb_node_cpu_utilization_ratio+%3E+0.75",
        })
    };
    let alerts: Vec<_> = (0..alerts).map(alert).collect();
    serde_json::json!({"version": "4", "receiver": "scaler", "alerts": alerts}).to_string().into_bytes()
}

fn webhook(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (journal, _) = SqliteJournal::open(dir.path(), &SystemClock).expect("a journal");
    let journal = Arc::new(journal);
    let mut group = criterion.benchmark_group("notification");
    group.sample_size(20);
    for alerts in [1, 100, 10_000] {
        let body = payload(alerts, 0);
        group.bench_function(BenchmarkId::new("read", alerts), |bench| {
            bench.iter(|| black_box(Notification::read(&body)));
        });
        let routes =
            vec![Route { entry: "hot".into(), matchers: Matchers::parse([r#"scale="up""#]).expect("matchers") }];
        let pool = format!("pool-{alerts}").as_str().into();
        let desk = runtime.block_on(Desk::open(pool, routes, journal.clone(), Telemetry::new(START)));
        let desk = Arc::new(desk.expect("a journal"));
        let hear = |body: &[u8]| {
            let notification = Notification::read(body).expect("a notification");
            runtime.block_on(desk.hear(&notification, "bench", START)).expect("a journal")
        };
        hear(&body);
        group.bench_function(BenchmarkId::new("repeated", alerts), |bench| bench.iter(|| black_box(hear(&body))));
        let mut round = 0;
        group.bench_function(BenchmarkId::new("changed, on disk", alerts), |bench| {
            bench.iter_batched(
                || {
                    round += 1;
                    payload(alerts, round)
                },
                |body| black_box(hear(&body)),
                criterion::BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, webhook);
criterion_main!(benches);
