//! A start on a journal with a long history: every row is held against its sum and the whole chain is followed. And one
//! write, as it is acknowledged: on disk.

use std::path::Path;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use serde_json::json;
use vecscale::clock::SystemClock;
use vecscale::model::{HistoryKind, Timestamp};
use vecscale::record::{Entry, Journal, SqliteJournal};

fn entry(n: u64) -> Entry {
    Entry {
        at: Timestamp::from_millis(1_764_000_000_000),
        pool: "default".into(),
        kind: HistoryKind::Decision,
        who: "vecscale".into(),
        summary: format!("hold, scale_up wanted: cpu_high 0.81 > 0.75, {n} of 2 checks"),
        detail: json!({"id": n, "decision": "hold", "because": ["cpu_high 0.81 > 0.75, 2 of 2 checks"], "guards": []}),
    }
}

fn open(storage: &Path) -> SqliteJournal {
    SqliteJournal::open(storage, &SystemClock).expect("a whole journal").0
}

fn journal(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    // In memory: what the disk takes to read a file is the disk's affair, and the rows are there sooner.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let mut group = criterion.benchmark_group("start on a history of");
    group.sample_size(10);
    for rows in [1_000, 100_000] {
        let dir = tempfile::tempdir_in(&place).expect("a directory");
        let journal = open(dir.path());
        runtime.block_on(async {
            for n in 0..rows {
                journal.append(entry(n)).await.expect("writable");
            }
        });
        drop(journal);
        group.bench_with_input(BenchmarkId::from_parameter(rows), &rows, |bench, _| bench.iter(|| open(dir.path())));
    }
    group.finish();

    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    criterion.bench_function("one write, on disk", |bench| {
        bench.iter(|| runtime.block_on(journal.append(entry(1))).expect("writable"));
    });
}

criterion_group!(benches, journal);
criterion_main!(benches);
