//! Measures the engine alone, on one thread, over series made here: CPU time of decoding, windows and folding,
//! without storage, network or JSON.
//!
//! `cargo run --release -p promql --example kernels [-- PART OF A QUERY]`

#![allow(clippy::print_stdout, reason = "a command-line tool")]
#![allow(clippy::disallowed_methods, reason = "a benchmark asks the system for its CPU time")]
#![allow(clippy::unwrap_used, reason = "a tool that ends on a bug of its own")]

use promql::{Inline, Limits, QueryRange, Settings};
use tsdb::model::{Labels, Sample};
use tsdb::select::Series;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs of each case; the median is shown.
const RUNS: usize = 7;
/// More than any case needs.
const BYTES_MAX: usize = 4 << 30;

fn main() {
    let hour = QueryRange { start_ms: 3_600_000, end_ms: 7_200_000, step_ms: 15_000, lookback_ms: 300_000 };
    let wide = series(10_000, 15_000, 3_300_000, 7_200_000);
    for query in [
        "sum by (job) (rate(m[5m]))",
        "sum by (job) (m)",
        "count(m)",
        "m",
        "quantile by (job) (0.9, rate(m[5m]))",
        "max by (job) (max_over_time(m[5m]))",
        "m - on (instance) m offset 5m",
    ] {
        measure("10k series, 1 h at 15 s", query, &hour, &wide);
    }
    let instant = QueryRange::instant(7_200_000, 300_000);
    for query in ["count(m)", "topk(10, m)", "sum by (job) (rate(m[5m]))"] {
        measure("10k series, instant", query, &instant, &wide);
    }
    drop(wide);
    // Workload C: 100 series of 18,640 intervals of 10 s; 1000 steps of 10 s at the end of them.
    let end_ms = 18_640 * 10_000;
    let long = series(100, 10_000, 0, end_ms);
    let steps = QueryRange { start_ms: end_ms - 999 * 10_000, end_ms, step_ms: 10_000, lookback_ms: 300_000 };
    for query in [
        "rate(m[1d])",
        "changes(m[1d])",
        "avg_over_time(m[1d])",
        "max_over_time(m[1d])",
        "stddev_over_time(m[1d])",
        "quantile_over_time(0.9, m[1d])",
        "mad_over_time(m[1d])",
        "double_exponential_smoothing(m[1d], 0.5, 0.5)",
        "rate(m[1m])",
    ] {
        measure("100 series, 1000 steps", query, &steps, &long);
    }
}

/// A third each of counters that grow steadily, of counters that grow by small whole numbers, and of wild ones; every
/// tenth is reset now and then.
fn series(count: u64, every_ms: i64, from_ms: i64, until_ms: i64) -> Vec<Series> {
    let mut all: Vec<Series> = (0..count)
        .map(|i| {
            let (instance, job) = (format!("host-{i:05}"), format!("job-{}", i % 17));
            let pairs = [
                ("__name__", "m"),
                ("cluster", "eu-1"),
                ("env", "prod"),
                ("instance", instance.as_str()),
                ("job", job.as_str()),
                ("zone", "a"),
            ];
            let mut random = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut value = 0.0;
            let samples: Vec<Sample> = (from_ms / every_ms..=until_ms / every_ms)
                .map(|n| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let reset = i % 10 == 0 && random % 500 == 0;
                    let growth = match i % 3 {
                        0 => 15,
                        1 => random % 16,
                        _ => random % 1000,
                    };
                    value = if reset { 0.0 } else { value + growth as f64 };
                    Sample::float(n * every_ms, value)
                })
                .collect();
            Series::from_samples(Labels::from_pairs(pairs).expect("the names above are sorted"), &samples)
        })
        .collect();
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    all
}

fn measure(data: &str, query: &str, range: &QueryRange, series: &[Series]) {
    if std::env::args().nth(1).is_some_and(|part| !query.contains(&part)) {
        return;
    }
    let expr = promql::parse_with(query, promql::Syntax { experimental: true })
        .expect("a query of this file parses");
    let mut times_ns = Vec::new();
    let mut samples = 0;
    for _ in 0..RUNS {
        let plan = promql::plan(&expr, range, &Settings::default()).expect("a query of this file has a plan");
        let inputs = plan.selects().iter().map(|_| series.to_vec()).collect();
        let began_ns = cpu_ns();
        let output =
            plan.evaluate(inputs, &Limits::bytes(BYTES_MAX), &Inline).expect("the budget is generous");
        times_ns.push(cpu_ns() - began_ns);
        samples = output.stats.samples;
    }
    times_ns.sort_unstable();
    let median = times_ns[RUNS / 2] as f64;
    println!(
        "{data:<24} {query:<44} {:>8.1} ms (least {:.1}), {:.1} ns a sample",
        median / 1e6,
        times_ns[0] as f64 / 1e6,
        median / samples.max(1) as f64,
    );
}

/// CPU time of this thread so far, which neighbours on the machine disturb less than they do elapsed time.
fn cpu_ns() -> u64 {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells a thread its times");
    text.split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok())
        .expect("its first number is nanoseconds on a core")
}
