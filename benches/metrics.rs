//! Rendering `/metrics` for one pool of 10, 100 and 1,000 nodes.

use std::hint::black_box;
use std::sync::Arc;

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vecscale::model;
use vecscale::telemetry::Telemetry;

#[allow(dead_code)]
#[path = "../tests/fixtures/pool_view.rs"]
mod pool_view;

fn render(c: &mut Criterion) {
    let mut group = c.benchmark_group("metrics page");
    for nodes in [10, 100, 1000] {
        let telemetry = Telemetry::new(pool_view::AT);
        let view = Arc::new(ArcSwap::from_pointee(pool_view::rich_view("default", nodes)));
        telemetry.register_pool(&"default".into(), view);
        group.throughput(Throughput::Bytes(telemetry.render().len() as u64));
        group.bench_function(BenchmarkId::from_parameter(nodes), |b| b.iter(|| black_box(telemetry.render())));
    }
    group.finish();
}

criterion_group!(benches, render);
criterion_main!(benches);
