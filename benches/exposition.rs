//! Reading the 63 kB page of a node_exporter, beside the `prometheus-parse` crate on the same page.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vecscale::model::Timestamp;
use vecscale::scrape::exposition::{Dialect, Limits, Reader};
use vecscale::scrape::extract::{Freshness, from_text};
use vecscale::scrape::preset;

fn exposition(criterion: &mut Criterion) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/exposition/node_exporter-1.11.1.txt");
    let page = std::fs::read_to_string(path).expect("the fixture is part of the repository");
    let mut group = criterion.benchmark_group("exposition");
    group.throughput(Throughput::Bytes(page.len() as u64));
    group.bench_function("reader", |bench| {
        bench.iter(|| {
            let mut reader = Reader::new(page.as_bytes(), Dialect::Text, Limits::default()).expect("UTF-8");
            let mut sum = 0.0;
            while let Some(sample) = reader.next_sample().expect("a good page") {
                sum += sample.value + sample.labels.len() as f64;
            }
            black_box(sum)
        });
    });
    group.bench_function("extract", |bench| {
        let signals = preset("node_exporter").expect("a preset");
        let fresh = Freshness::any(Timestamp::from_millis(0));
        bench.iter(|| black_box(from_text(page.as_bytes(), Dialect::Text, &signals, fresh)));
    });
    group.bench_function("prometheus-parse", |bench| {
        bench.iter(|| {
            let lines = page.lines().map(|line| Ok::<_, std::io::Error>(line.to_owned()));
            black_box(prometheus_parse::Scrape::parse(lines).expect("it takes everything"))
        });
    });
    group.finish();
}

criterion_group!(benches, exposition);
criterion_main!(benches);
