//! What encoding, decoding and merging cost. Series as node_exporter gives them: constants, gauges, counters with steady
//! and with jittered rates, 120 samples 15 s apart in a chunk; throughput is in samples.

#![allow(clippy::unwrap_used, reason = "a tool that ends on a bug of its own")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tsdb::chunk::xor2::Xor2Appender;
use tsdb::chunk::{Columns, Encoding, XorAppender, decode_columns};
use tsdb::model::{Labels, Sample};
use tsdb::select::{Series, merge_series};

const CHUNKS: usize = 500;
const SAMPLES: usize = 120;

type Kind = (&'static str, fn(&mut StdRng, usize) -> f64);

const KINDS: [Kind; 6] = [
    ("constant", |_, _| 1.0),
    ("counter, steady", |_, i| 1_000.0 + 15.0 * i as f64),
    ("counter, jittered", |rng, i| 100_000.0 + 150.0 * i as f64 + f64::from(rng.random_range(0u8..50))),
    ("counter, seconds", |rng, i| 5_000.0 + 3.75 * i as f64 + f64::from(rng.random_range(0u16..100)) / 100.0),
    ("gauge, bytes", |rng, _| f64::from(rng.random_range(1_000_000u32..2_000_000)) * 4096.0),
    ("gauge, any float", |rng, _| rng.random()),
];

/// Chunks' worth of one kind; `jitter_ms` moves each sample by up to as much.
fn samples(value: fn(&mut StdRng, usize) -> f64, jitter_ms: i64) -> Vec<Vec<(i64, f64)>> {
    let mut rng = StdRng::seed_from_u64(1);
    let mut sample = |i: usize| {
        let moved_ms = rng.random_range(-jitter_ms..=jitter_ms);
        (1_700_000_000_000 + i as i64 * 15_000 + moved_ms, value(&mut rng, i))
    };
    (0..CHUNKS).map(|_| (0..SAMPLES).map(&mut sample).collect()).collect()
}

fn xor(samples: &[(i64, f64)]) -> XorAppender {
    let mut appender = XorAppender::new();
    samples.iter().for_each(|(timestamp_ms, value)| appender.append(*timestamp_ms, *value));
    appender
}

fn xor2(samples: &[(i64, f64)]) -> Xor2Appender {
    let mut appender = Xor2Appender::new();
    samples.iter().for_each(|(timestamp_ms, value)| appender.append(*timestamp_ms, 0, *value));
    appender
}

fn chunks(c: &mut Criterion) {
    for (name, value) in KINDS {
        let (regular, jittered) = (samples(value, 0), samples(value, 5));
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements((CHUNKS * SAMPLES) as u64));
        group.bench_function("append", |b| {
            b.iter(|| regular.iter().map(|chunk| xor(chunk).bytes().len()).sum::<usize>());
        });
        let mut decode = |what: &str, encoding, chunks: Vec<Vec<u8>>| {
            let mut columns = Columns::default();
            group.bench_function(BenchmarkId::new("decode", what), |b| {
                b.iter(|| {
                    for chunk in &chunks {
                        columns.clear();
                        decode_columns(encoding, chunk, &mut columns).unwrap();
                        black_box(&columns);
                    }
                });
            });
        };
        let of_xor = |series: &[Vec<_>]| series.iter().map(|s| xor(s).bytes().to_vec()).collect();
        decode("xor", Encoding::Xor, of_xor(&regular));
        decode("xor, jittered times", Encoding::Xor, of_xor(&jittered));
        decode("xor2", Encoding::Xor2, regular.iter().map(|s| xor2(s).bytes().to_vec()).collect());
    }
}

/// A series of many chunks, and replicas' copies of it.
fn series(c: &mut Criterion) {
    let samples: Vec<_> = (0..CHUNKS * SAMPLES).map(|i| Sample::float(i as i64 * 15_000, i as f64)).collect();
    let one = Series::from_samples(Labels::default(), &samples);
    let mut three = one.clone();
    three.chunks.extend(Series::from_samples(Labels::default(), &samples[7..]).chunks);
    three.chunks.extend(one.chunks.clone());
    let mut group = c.benchmark_group("series");
    group.throughput(Throughput::Elements(samples.len() as u64));
    let mut columns = Columns::default();
    for (what, series) in [("decode", &one), ("decode and merge three copies", &three)] {
        group.bench_function(what, |b| b.iter(|| series.decode(0..=i64::MAX, &mut columns).unwrap()));
    }
}

/// What the head and a block answer, for the same series.
fn sources(c: &mut Criterion) {
    let labels = |i: usize| {
        let (cpu, instance) = ((i % 50).to_string(), format!("host-{:04}.example.org:9100", i / 50));
        let pairs =
            [("__name__", "node_cpu_seconds_total"), ("cpu", &cpu), ("instance", &instance), ("job", "node")];
        Labels::from_pairs(pairs).unwrap()
    };
    let mut source: Vec<_> =
        (0..10_000).map(|i| Series::from_samples(labels(i), &[Sample::float(0, 0.0)])).collect();
    source.sort_by(|a, b| a.labels.cmp(&b.labels));
    let mut group = c.benchmark_group("sources");
    group.throughput(Throughput::Elements(source.len() as u64));
    group.bench_function("merge two", |b| {
        b.iter_batched(
            || vec![source.clone(), source.clone()],
            |sources| merge_series(sources).unwrap(),
            criterion::BatchSize::LargeInput,
        );
    });
}

criterion_group!(benches, chunks, series, sources);
criterion_main!(benches);
