//! What evaluation costs on one thread, over series made here: decoding, windows, folds and joins, without storage, network
//! or JSON.

#![allow(clippy::unwrap_used, reason = "a tool that ends on a bug of its own")]

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use promql::{Inline, Limits, QueryRange, Settings, Syntax};
use tsdb::model::{Labels, Sample};
use tsdb::select::Series;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// More than any case needs.
const BYTES_MAX: usize = 4 << 30;

/// Many series over an hour, and at its end.
const HOUR: QueryRange =
    QueryRange { start_ms: 3_600_000, end_ms: 7_200_000, step_ms: 15_000, lookback_ms: 300_000 };

/// As workload C has it: 1000 steps at the end of 18,640 intervals of 10 s.
const LONG_END_MS: i64 = 186_400_000;
const LONG: QueryRange = QueryRange {
    start_ms: LONG_END_MS - 9_990_000,
    end_ms: LONG_END_MS,
    step_ms: 10_000,
    lookback_ms: 300_000,
};

/// A third each of counters that grow steadily, of counters that grow by small whole numbers, and of wild ones; every
/// tenth is reset now and then.
fn series(count: u64, every_ms: i64, from_ms: i64, until_ms: i64) -> Vec<Series> {
    let one = |i: u64| {
        let (instance, job) = (format!("host-{i:05}"), format!("job-{}", i % 17));
        let pairs = [("__name__", "m"), ("env", "prod"), ("instance", &*instance), ("job", &*job)];
        let mut random = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut value = 0.0;
        let sample = |n: i64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let growth = match i % 3 {
                0 => 15,
                1 => random % 16,
                _ => random % 1000,
            };
            let is_reset = i.is_multiple_of(10) && random.is_multiple_of(500);
            value = if is_reset { 0.0 } else { value + growth as f64 };
            Sample::float(n * every_ms, value)
        };
        let samples: Vec<Sample> = (from_ms / every_ms..=until_ms / every_ms).map(sample).collect();
        Series::from_samples(Labels::from_pairs(pairs).unwrap(), &samples)
    };
    (0..count).map(one).collect()
}

fn ask(group: &mut BenchmarkGroup<'_, WallTime>, query: &str, range: &QueryRange, series: &[Series]) {
    let expr = promql::parse_with(query, Syntax { experimental: true }).unwrap();
    let plan = promql::plan(&expr, range, &Settings::default()).unwrap();
    let inputs = || plan.selects().iter().map(|_| series.to_vec()).collect::<Vec<_>>();
    let evaluate = |inputs| plan.evaluate(inputs, &Limits::bytes(BYTES_MAX), &Inline).unwrap();
    group.throughput(Throughput::Elements(evaluate(inputs()).stats.samples));
    group.bench_function(query, |b| b.iter_batched(inputs, evaluate, BatchSize::LargeInput));
}

fn windows(c: &mut Criterion) {
    let wide = series(1000, 15_000, 3_300_000, 7_200_000);
    let mut group = c.benchmark_group("1000 series, 1 h at 15 s");
    group.sample_size(20);
    for query in [
        "m",
        "sum by (job) (m)",
        "sum by (job) (rate(m[5m]))",
        "quantile by (job) (0.9, rate(m[5m]))",
        "max by (job) (max_over_time(m[5m]))",
    ] {
        ask(&mut group, query, &HOUR, &wide);
    }
    group.finish();
    let long = series(20, 10_000, 0, LONG_END_MS);
    let mut group = c.benchmark_group("20 series, 1000 steps");
    group.sample_size(20);
    for query in [
        "rate(m[1m])",
        "rate(m[1d])",
        "changes(m[1d])",
        "avg_over_time(m[1d])",
        "max_over_time(m[1d])",
        "stddev_over_time(m[1d])",
        "quantile_over_time(0.9, m[1d])",
        "mad_over_time(m[1d])",
        "double_exponential_smoothing(m[1d], 0.5, 0.5)",
    ] {
        ask(&mut group, query, &LONG, &long);
    }
}

fn joins(c: &mut Criterion) {
    let wide = series(1000, 15_000, 3_300_000, 7_200_000);
    let mut group = c.benchmark_group("1000 series with as many, 1 h at 15 s");
    group.sample_size(20);
    for query in [
        "m - on (instance) m offset 5m",
        "m * on (job) group_left sum by (job) (m)",
        "m and on (instance) (m offset 5m)",
        "m or m offset 5m",
        "m unless on (job) (m > 1000)",
    ] {
        ask(&mut group, query, &HOUR, &wide);
    }
    group.finish();
    let mut group = c.benchmark_group("1000 series, one step");
    for query in ["count(m)", "topk(10, m)", "sum by (job) (rate(m[5m]))"] {
        ask(&mut group, query, &QueryRange::instant(HOUR.end_ms, HOUR.lookback_ms), &wide);
    }
}

criterion_group!(benches, windows, joins);
criterion_main!(benches);
