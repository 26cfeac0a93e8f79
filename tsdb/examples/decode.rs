//! What encoding, decoding and merging cost, in nanoseconds a sample: `cargo run --release -p tsdb --example decode`.
//!
//! Series as node_exporter gives them: constants, gauges, counters with steady and with jittered rates, 120 samples
//! 15 s apart in a chunk. The least of several rounds is shown, since other work on the machine only ever adds.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures, for people to read"
)]

use std::hint::black_box;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tsdb::chunk::xor2::Xor2Appender;
use tsdb::chunk::{Columns, Encoding, XorAppender, decode_columns};
use tsdb::model::{Labels, Sample};
use tsdb::select::{Series, merge_series};

const SERIES: usize = 2_000;
const SAMPLES: usize = 120;
const ROUNDS: usize = 15;

type Kind = (&'static str, fn(&mut StdRng, usize) -> f64);

const KINDS: [Kind; 6] = [
    ("constant", |_, _| 1.0),
    ("counter, steady", |_, i| 1_000.0 + 15.0 * i as f64),
    ("counter, jittered", |rng, i| 100_000.0 + 150.0 * i as f64 + f64::from(rng.random_range(0u8..50))),
    ("counter, seconds", |rng, i| 5_000.0 + 3.75 * i as f64 + f64::from(rng.random_range(0u16..100)) / 100.0),
    ("gauge, bytes", |rng, _| f64::from(rng.random_range(1_000_000u32..2_000_000)) * 4096.0),
    ("gauge, any float", |rng, _| rng.random()),
];

fn main() {
    println!(
        "{:<20} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "bytes", "append", "decode", "jitter", "bytes", "append2", "decode2"
    );
    for (name, value) in KINDS {
        let mut rng = StdRng::seed_from_u64(1);
        let series: Vec<Vec<(i64, f64)>> = (0..SERIES)
            .map(|_| {
                (0..SAMPLES).map(|i| (1_700_000_000_000 + i as i64 * 15_000, value(&mut rng, i))).collect()
            })
            .collect();
        let jittered: Vec<Vec<_>> = series
            .iter()
            .map(|samples| samples.iter().map(|(t, v)| (t + rng.random_range(-5i64..5), *v)).collect())
            .collect();
        let xor = |samples: &Vec<(i64, f64)>| {
            let mut appender = XorAppender::new();
            for (timestamp_ms, value) in samples {
                appender.append(*timestamp_ms, *value);
            }
            appender
        };
        let xor2 = |samples: &Vec<(i64, f64)>| {
            let mut appender = Xor2Appender::new();
            for (timestamp_ms, value) in samples {
                appender.append(*timestamp_ms, 0, *value);
            }
            appender
        };
        let append = least_ns(|| series.iter().map(|samples| xor(samples).bytes().len()).sum::<usize>());
        let append2 = least_ns(|| series.iter().map(|samples| xor2(samples).bytes().len()).sum::<usize>());
        let chunks: Vec<Vec<u8>> = series.iter().map(|samples| xor(samples).bytes().to_vec()).collect();
        let chunks2: Vec<Vec<u8>> = series.iter().map(|samples| xor2(samples).bytes().to_vec()).collect();
        let chunks_jittered: Vec<Vec<u8>> =
            jittered.iter().map(|samples| xor(samples).bytes().to_vec()).collect();
        let decode = decode_ns(Encoding::Xor, &chunks);
        let decode_jittered = decode_ns(Encoding::Xor, &chunks_jittered);
        let decode2 = decode_ns(Encoding::Xor2, &chunks2);
        let bytes = |chunks: &[Vec<u8>]| {
            chunks.iter().map(Vec::len).sum::<usize>() as f64 / (SERIES * SAMPLES) as f64
        };
        println!(
            "{name:<20} {:>8.2} {append:>8.2} {decode:>8.2} {decode_jittered:>8.2} {:>8.2} {append2:>8.2} {decode2:>8.2}",
            bytes(&chunks),
            bytes(&chunks2),
        );
    }
    series_of_many_chunks();
    sources_of_many_series();
}

fn decode_ns(encoding: Encoding, chunks: &[Vec<u8>]) -> f64 {
    let mut columns = Columns::default();
    least_ns(|| {
        for chunk in chunks {
            columns.clear();
            decode_columns(encoding, chunk, &mut columns).expect("just encoded");
            black_box(&columns);
        }
    })
}

fn series_of_many_chunks() {
    let samples: Vec<_> = (0..SERIES * SAMPLES).map(|i| Sample::float(i as i64 * 15_000, i as f64)).collect();
    let one = Series::from_samples(Labels::default(), &samples);
    let mut three = one.clone();
    three.chunks.extend(Series::from_samples(Labels::default(), &samples[7..]).chunks);
    three.chunks.extend(one.chunks.clone());
    let mut columns = Columns::default();
    let whole = 0..=i64::MAX;
    let alone = least_ns(|| one.decode(whole.clone(), &mut columns).expect("just encoded"));
    let merged = least_ns(|| three.decode(whole.clone(), &mut columns).expect("just encoded"));
    println!("a series of {} chunks {alone:.2}, with two more copies {merged:.2}", one.chunks.len());
}

/// What the head and a block answer, for the same series.
fn sources_of_many_series() {
    const LABELS: usize = 100_000;
    let instances: Vec<_> = (0..LABELS / 100).map(|i| format!("host-{i:04}.example.org:9100")).collect();
    let mut source: Vec<Series> = Vec::new();
    for metric in ["node_cpu_seconds_total", "node_network_receive_bytes_total"] {
        for instance in &instances {
            for cpu in 0..50 {
                let labels = Labels::from_sorted([
                    ("__name__", metric),
                    ("cluster", "production"),
                    ("cpu", &*cpu.to_string()),
                    ("datacenter", "eu-west-1"),
                    ("instance", instance),
                    ("job", "node"),
                    ("mode", "idle"),
                ]);
                source.push(Series::from_samples(labels, &[Sample::float(0, 0.0)]));
            }
        }
    }
    let mut shuffled = source.clone();
    let mut rng = StdRng::seed_from_u64(2);
    for i in 1..shuffled.len() {
        shuffled.swap(i, rng.random_range(0..i));
    }
    let start = Instant::now();
    source.sort_by(|a, b| a.labels.cmp(&b.labels));
    let sorted = start.elapsed();
    let start = Instant::now();
    shuffled.sort_by(|a, b| a.labels.cmp(&b.labels));
    let unshuffled = start.elapsed();
    let sources = vec![source.clone(), source];
    let start = Instant::now();
    let merged = merge_series(sources).expect("no chunk is decoded");
    let per_series = |time: std::time::Duration| time.as_nanos() as f64 / LABELS as f64;
    println!(
        "{} series from two sources {:.0} ns each; sorting them {:.0} nearly sorted, {:.0} shuffled",
        merged.len(),
        per_series(start.elapsed()),
        per_series(sorted),
        per_series(unshuffled),
    );
}

/// Nanoseconds a sample of the fastest round.
fn least_ns<T>(mut run: impl FnMut() -> T) -> f64 {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            black_box(run());
            start.elapsed().as_nanos() as f64 / (SERIES * SAMPLES) as f64
        })
        .fold(f64::INFINITY, f64::min)
}
