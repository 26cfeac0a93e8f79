use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::chunk::Encoding;
use crate::model::{CounterReset, FloatHistogram, IntHistogram, Span, Value, stale_nan};

fn labels() -> Labels {
    Labels::from_sorted([("__name__", "m")])
}

fn floats(samples: &[(i64, f64)]) -> Vec<Sample> {
    samples.iter().map(|(t, v)| Sample::float(*t, *v)).collect()
}

fn of_chunks(parts: &[Vec<Sample>]) -> Series {
    let chunks = parts.iter().flat_map(|part| encode(part)).collect();
    Series { labels: labels(), chunks, deleted_ms: Vec::new(), newest: None }
}

fn pairs(columns: &Columns) -> Vec<(i64, u64)> {
    columns.timestamps.iter().copied().zip(columns.values.iter().map(|v| v.to_bits())).collect()
}

fn decoded(series: &Series, range_ms: RangeInclusive<i64>) -> Vec<(i64, u64)> {
    let mut columns = Columns::default();
    columns.push_float(1, 1, 1.0);
    series.decode(range_ms.clone(), &mut columns).unwrap();
    let expected: Vec<_> = series
        .samples()
        .unwrap()
        .into_iter()
        .filter(|sample| range_ms.contains(&sample.timestamp_ms))
        .map(|sample| match sample.value {
            Value::Float(value) => (sample.timestamp_ms, value.to_bits()),
            Value::Int(histogram) => (sample.timestamp_ms, histogram.sum.to_bits()),
            Value::Histogram(histogram) => (sample.timestamp_ms, histogram.sum.to_bits()),
        })
        .collect();
    assert_eq!(pairs(&columns), expected, "columns and samples agree");
    expected
}

#[test]
fn a_range_cuts_both_ends() {
    let samples: Vec<_> = (0..1000).map(|i| (i * 10, i as f64)).collect();
    let series = Series::from_samples(labels(), &floats(&samples));
    assert!(series.chunks.len() > 3);
    let found = decoded(&series, 2_395..=7_210);
    assert_eq!((found[0].0, found[found.len() - 1].0, found.len()), (2_400, 7_210, 482));
    assert_eq!(decoded(&series, 1..=9), []);
    assert_eq!(decoded(&series, i64::MIN..=i64::MAX).len(), 1000);
}

#[test]
fn replicas_give_each_sample_once() {
    let samples = floats(&[(1, 1.0), (2, 2.0), (3, stale_nan())]);
    let series = of_chunks(&[samples.clone(), samples[1..].to_vec(), samples.clone(), samples[2..].to_vec()]);
    assert_eq!(decoded(&series, 0..=10).len(), 3);
}

#[test]
fn a_conflict_is_decided_by_the_fixed_order() {
    let a = floats(&[(1, 1.0), (2, stale_nan()), (3, 5.0)]);
    let b = floats(&[(1, 2.0), (2, -1.0), (3, 4.0)]);
    let expected = vec![(1, 2f64.to_bits()), (2, (-1f64).to_bits()), (3, 5f64.to_bits())];
    assert_eq!(decoded(&of_chunks(&[a.clone(), b.clone()]), 0..=9), expected);
    assert_eq!(decoded(&of_chunks(&[b, a]), 0..=9), expected);
}

#[test]
fn deleted_ranges_hide_samples() {
    let samples: Vec<_> = (0..100).map(|i| (i, 1.0)).collect();
    let mut series = Series::from_samples(labels(), &floats(&samples));
    series.deleted_ms = vec![90..=200, 10..=50, 20..=30, 40..=60];
    let found: Vec<_> = decoded(&series, 0..=99).into_iter().map(|(t, _)| t).collect();
    assert_eq!(found, (0..10).chain(61..90).collect::<Vec<_>>());
}

#[test]
fn damage_is_an_error() {
    let mut series = Series::from_samples(labels(), &floats(&[(1, 1.0), (2, 2.0)]));
    series.chunks[0].data = series.chunks[0].data.slice(..5);
    assert!(series.decode(0..=9, &mut Columns::default()).is_err());
    assert!(series.samples().is_err());
}

#[test]
fn a_chunk_whose_times_descend_is_sorted() {
    let mut appender = crate::chunk::XorAppender::new();
    for timestamp_ms in [5, 3, 9, 3] {
        appender.append(timestamp_ms, timestamp_ms as f64);
    }
    let chunk =
        Chunk { min_ms: 3, max_ms: 9, encoding: Encoding::Xor, data: appender.bytes().to_vec().into() };
    let series = Series { labels: labels(), chunks: vec![chunk], deleted_ms: Vec::new(), newest: None };
    assert_eq!(decoded(&series, 0..=10).into_iter().map(|(t, _)| t).collect::<Vec<_>>(), [3, 5, 9]);
}

fn counter(timestamp_ms: i64, count: u64) -> Sample {
    let histogram = IntHistogram { count, zero_count: count, ..Default::default() };
    Sample { timestamp_ms, start_ms: 0, value: Value::Int(Arc::new(histogram)) }
}

/// What samples and columns both say of counter resets.
fn resets(series: &Series) -> Vec<CounterReset> {
    let mut columns = Columns::default();
    series.decode(i64::MIN..=i64::MAX, &mut columns).unwrap();
    let found: Vec<_> =
        columns.histograms.iter().flatten().map(|histogram| histogram.counter_reset).collect();
    let samples = series.samples().unwrap().into_iter().map(|sample| match sample.value {
        Value::Int(histogram) => histogram.counter_reset,
        _ => unreachable!("only integer histograms went in"),
    });
    assert_eq!(found, samples.collect::<Vec<_>>());
    found
}

#[test]
fn histograms_at_a_join_are_compared() {
    use CounterReset::{NotReset, Reset, Unknown};
    let chunks = of_chunks(&[
        vec![counter(1, 5), counter(2, 6)],
        vec![counter(3, 6)],
        vec![counter(4, 2), counter(5, 2)],
    ]);
    assert_eq!(resets(&chunks), [Unknown, NotReset, NotReset, Reset, NotReset]);
}

#[test]
fn a_histogram_between_others_has_its_reset_judged_anew() {
    use CounterReset::{NotReset, Reset, Unknown};
    let chunks =
        of_chunks(&[vec![counter(1, 5), counter(3, 7), counter(5, 8)], vec![counter(2, 6), counter(4, 6)]]);
    assert_eq!(resets(&chunks), [Unknown, NotReset, NotReset, Reset, NotReset]);
}

#[test]
fn a_histogram_behind_deleted_ones_has_its_reset_judged_anew() {
    use CounterReset::{NotReset, Reset, Unknown};
    let mut series = of_chunks(&[vec![counter(1, 5)], vec![counter(2, 1), counter(3, 2), counter(4, 3)]]);
    assert_eq!(resets(&series), [Unknown, Reset, NotReset, NotReset]);
    series.deleted_ms.push(2..=2);
    assert_eq!(resets(&series), [Unknown, Reset, NotReset]);
    series.deleted_ms.push(1..=1);
    assert_eq!(resets(&series), [Unknown, NotReset]);
}

proptest! {
    #[test]
    fn merging_is_independent_of_the_order_of_chunks(
        parts in prop::collection::vec(prop::collection::btree_map(0i64..60, 0u8..4, 0..30), 1..6),
        order in any::<u64>(),
    ) {
        let parts: Vec<Vec<Sample>> = parts
            .into_iter()
            .map(|part| part
                .into_iter()
                .map(|(t, v)| Sample::float(t, if v == 3 { stale_nan() } else { f64::from(v) }))
                .collect())
            .collect();
        let mut shuffled = parts.clone();
        shuffled.rotate_left(order as usize % parts.len());
        shuffled.swap(0, order as usize / 7 % parts.len());
        let found = decoded(&of_chunks(&parts), 0..=100);
        prop_assert_eq!(&found, &decoded(&of_chunks(&shuffled), 0..=100));
        prop_assert!(found.is_sorted_by(|a, b| a.0 < b.0));
        let all: std::collections::BTreeSet<_> = parts.iter().flatten().map(|sample| sample.timestamp_ms).collect();
        prop_assert_eq!(found.len(), all.len());
    }
}

/// A sample of any kind, small enough that conflicts are common.
fn any_sample(timestamp_ms: i64, choice: u8) -> Sample {
    let start_ms = i64::from(choice / 16);
    let spans = vec![Span { offset: 0, length: 2 }];
    let int = |bucket| IntHistogram {
        count: bucket,
        positive_spans: spans.clone(),
        positive_buckets: vec![0, bucket],
        ..Default::default()
    };
    let value = match choice % 8 {
        0 => Value::Float(1.0),
        1 => Value::Float(stale_nan()),
        2 => Value::Int(Arc::new(int(1))),
        3 => Value::Int(Arc::new(int(2))),
        4 => Value::Int(Arc::new(IntHistogram { counter_reset: CounterReset::Gauge, ..int(2) })),
        5 => Value::Int(Arc::new(IntHistogram { sum: stale_nan(), ..Default::default() })),
        6 => Value::Histogram(Arc::new(int(1).to_float())),
        _ => Value::Histogram(Arc::new(FloatHistogram { sum: 3.0, ..int(1).to_float() })),
    };
    Sample { timestamp_ms, start_ms, value }
}

/// Samples as comparable words.
fn words(samples: &[Sample]) -> Vec<(i64, i64, Vec<u64>)> {
    let canonical = |sample: &Sample| {
        let mut words = Vec::new();
        sample.value.canonical(&mut words);
        words
    };
    samples.iter().map(|sample| (sample.timestamp_ms, sample.start_ms, canonical(sample))).collect()
}

proptest! {
    #[test]
    fn samples_of_any_kind_round_trip(choices in prop::collection::vec(any::<u8>(), 0..60)) {
        let samples: Vec<_> = (0..).zip(&choices).map(|(t, choice)| any_sample(t, *choice)).collect();
        let series = Series::from_samples(labels(), &samples);
        prop_assert_eq!(words(&series.samples().unwrap()), words(&samples));
        decoded(&series, 0..=100);
    }

    #[test]
    fn kinds_merge_independently_of_the_order_of_chunks(
        parts in prop::collection::vec(prop::collection::btree_map(0i64..12, any::<u8>(), 0..8), 1..5),
    ) {
        let mut parts: Vec<Vec<Sample>> =
            parts.into_iter().map(|part| part.into_iter().map(|(t, choice)| any_sample(t, choice)).collect()).collect();
        let found = of_chunks(&parts).samples().unwrap();
        decoded(&of_chunks(&parts), 0..=100);
        decoded(&of_chunks(&parts), 3..=8);
        parts.reverse();
        prop_assert_eq!(words(&found), words(&of_chunks(&parts).samples().unwrap()));
        let mut all: Vec<Sample> = parts.concat();
        all.sort_by(|a, b| a.timestamp_ms.cmp(&b.timestamp_ms).then_with(|| prefer(b, a)));
        all.dedup_by_key(|sample| sample.timestamp_ms);
        prop_assert_eq!(words(&found), words(&all));
    }
}
