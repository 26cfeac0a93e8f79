//! Random series: counters with resets, gauges, native histograms of several layouts, classic ones; with gaps, stale
//! markers and uneven distances. Most numbers are multiples of 1/4, so that sums are exact in whatever order.

use std::sync::Arc;

use tsdb::model::{
    CUSTOM_BUCKETS_SCHEMA, CounterReset, FloatHistogram, Labels, Sample, Span, Value, stale_nan,
};

use super::Random;
use crate::Series;

/// What the data holds.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    /// Native histograms.
    pub histograms: bool,
    /// Buckets with bounds of their own, and series that change their buckets' layout.
    pub custom_buckets: bool,
    /// Native histograms that are gauges.
    pub gauges: bool,
    /// Start times.
    pub starts: bool,
    /// NaN and infinities.
    pub specials: bool,
}

/// Distance of samples, mostly.
const EVERY_MS: i64 = 30_000;
/// Samples of a series at most.
const SAMPLES_MAX: usize = 40;

/// Series from time 0 on, sorted by labels: counters `c`, gauges `g`, native histograms `h`, classic ones `b_bucket`,
/// both kinds in one `m`, and `target_info`.
pub fn data(random: &mut Random, kinds: Kinds) -> Vec<Series> {
    let mut all = Vec::new();
    for metric in ["c_total", "g", "h", "m", "target_info"] {
        for job in ["a", "b"] {
            for instance in ["1", "2", "3"] {
                if random.one_in(4) || (!kinds.histograms && matches!(metric, "h" | "m")) {
                    continue;
                }
                let mut pairs = vec![("__name__", metric), ("job", job), ("instance", instance)];
                if random.one_in(3) {
                    pairs.push(("zone", random.pick(&["x", "y"])));
                }
                all.push(series(random, kinds, metric, &pairs));
            }
        }
    }
    for job in ["a", "b"] {
        let mut counts = [0.0; 4];
        let mut samples = vec![Vec::new(); counts.len()];
        let mut time_ms = 0;
        for _ in 0..SAMPLES_MAX / 2 {
            time_ms += EVERY_MS;
            let mut more = 0.0;
            for (count, samples) in counts.iter_mut().zip(&mut samples) {
                more += random.below(5) as f64;
                *count += more;
                samples.push(Sample::float(time_ms, *count));
            }
        }
        for (le, samples) in ["0.5", "1", "2.5", "+Inf"].into_iter().zip(samples) {
            let pairs = [("__name__", "b_bucket"), ("job", job), ("le", le)];
            all.push(Series { labels: labels(&pairs), samples });
        }
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    all
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).expect("names are distinct")
}

fn series(random: &mut Random, kinds: Kinds, metric: &str, pairs: &[(&str, &str)]) -> Series {
    let mut samples: Vec<Sample> = Vec::new();
    let mut time_ms = random.below(4) as i64 * 10_000;
    let mut level = random.below(40) as f64 / 4.0;
    let layout = random.below(if kinds.custom_buckets { 4 } else { 3 });
    let gauge = kinds.gauges && random.one_in(4);
    let mut counts = [0.0; 4];
    let mut start_ms = if kinds.starts && random.one_in(2) { time_ms.max(1) } else { 0 };
    for _ in 0..random.below(SAMPLES_MAX) + 1 {
        // Now and then a gap that is longer than the look-back.
        time_ms += match random.below(20) {
            0 => EVERY_MS * 12,
            1 => EVERY_MS / 3,
            2 => EVERY_MS * 2,
            _ => EVERY_MS,
        };
        let reset = random.one_in(12);
        let value = match metric {
            "c_total" => {
                level = if reset { 0.0 } else { level } + random.below(30) as f64 / 4.0;
                Value::Float(level)
            }
            "target_info" => Value::Float(1.0),
            "h" | "m" if metric == "h" || random.one_in(2) => {
                let layout = if kinds.custom_buckets && random.one_in(30) { random.below(4) } else { layout };
                histogram(random, &mut counts, layout, gauge, reset)
            }
            _ if kinds.specials && random.one_in(25) => {
                Value::Float(random.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]))
            }
            _ => Value::Float(random.below(80) as f64 / 4.0 - 7.0),
        };
        let value = if random.one_in(15) { Value::Float(stale_nan()) } else { value };
        if start_ms != 0 && (reset || random.one_in(20)) {
            start_ms = time_ms - random.pick(&[1, 10_000, EVERY_MS, EVERY_MS - 1]);
        }
        samples.push(Sample { timestamp_ms: time_ms, start_ms, value });
    }
    Series { labels: labels(pairs), samples }
}

fn histogram(random: &mut Random, counts: &mut [f64; 4], layout: usize, gauge: bool, reset: bool) -> Value {
    if reset {
        *counts = [0.0; 4];
    }
    // No bucket is empty: whether an empty one is there, storage may decide, and it tells where zeros lie.
    counts.iter_mut().for_each(|count| *count += random.below(3) as f64 + 1.0);
    let counter_reset = if gauge { CounterReset::Gauge } else { CounterReset::Unknown };
    let count: f64 = counts.iter().sum();
    let mut h = FloatHistogram { counter_reset, sum: count * 1.5, count, ..FloatHistogram::default() };
    let span = |offset, length| vec![Span { offset, length }];
    if layout == 3 {
        h.schema = CUSTOM_BUCKETS_SCHEMA;
        let bounds: &[f64] = random.pick(&[&[1.0, 2.0, 5.0], &[1.0, 2.0, 5.0], &[1.0, 5.0, 9.0]]);
        h.custom_values = Some(bounds.into());
        h.positive_spans = span(0, 4);
        h.positive_buckets = counts.to_vec();
    } else {
        h.schema = [0, 1, 0][layout];
        h.zero_threshold = [0.001, 0.001, 0.25][layout];
        h.zero_count = counts[0];
        h.positive_spans = span(0, 2);
        h.positive_buckets = counts[1..3].to_vec();
        h.negative_spans = span(1, 1);
        h.negative_buckets = counts[3..].to_vec();
    }
    Value::Histogram(Arc::new(h))
}
