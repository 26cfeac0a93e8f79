use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::Result;
use crate::model::{
    CUSTOM_BUCKETS_SCHEMA, CounterReset, Histogram, IntHistogram, Sample, Span, Value, prefer, stale_nan,
};

type Timed<C> = (i64, i64, Histogram<C>);

/// As chunks, each begun where the one before said so.
fn encode<C: ChunkCount>(samples: &[Timed<C>], with_starts: bool) -> Vec<HistogramAppender<C>> {
    let mut chunks = vec![HistogramAppender::new(with_starts)];
    for (timestamp_ms, start_ms, histogram) in samples {
        let last = chunks.last_mut().unwrap();
        let before = last.bytes().to_vec();
        if last.append(*timestamp_ms, *start_ms, histogram) == Err(NewChunk) {
            assert_eq!(last.bytes(), before, "a refusal leaves the chunk as it was");
            let mut next = HistogramAppender::new(with_starts);
            next.append(*timestamp_ms, *start_ms, histogram).unwrap();
            chunks.push(next);
        }
    }
    chunks
}

fn decode<C: ChunkCount>(bytes: &[u8], with_starts: bool) -> Vec<Timed<C>> {
    HistogramDecoder::new(bytes, with_starts).unwrap().collect::<Result<_>>().unwrap()
}

trait IntoValue: ChunkCount {
    fn value(histogram: Histogram<Self>) -> Value;
}

impl IntoValue for u64 {
    fn value(histogram: Histogram<u64>) -> Value {
        Value::Int(Arc::new(histogram))
    }
}

impl IntoValue for f64 {
    fn value(histogram: Histogram<f64>) -> Value {
        Value::Histogram(Arc::new(histogram))
    }
}

/// The same times, start times and values, whatever the buckets' layout.
fn assert_same<C: IntoValue>(found: &[Timed<C>], expected: &[Timed<C>], with_starts: bool) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let sample = |(timestamp_ms, start_ms, histogram): &Timed<C>| Sample {
            timestamp_ms: *timestamp_ms,
            start_ms: if with_starts { *start_ms } else { 0 },
            value: C::value(histogram.clone()),
        };
        let (found, expected) = (sample(found), sample(expected));
        assert_eq!(found.timestamp_ms, expected.timestamp_ms);
        assert!(prefer(&found, &expected).is_eq(), "{found:?} isn't {expected:?}");
    }
}

fn check<C: IntoValue>(samples: &[Timed<C>]) {
    for with_starts in [false, true] {
        let chunks = encode(samples, with_starts);
        let found: Vec<_> = chunks.iter().flat_map(|chunk| decode(chunk.bytes(), with_starts)).collect();
        assert_same(&found, samples, with_starts);
        for chunk in &chunks {
            let resumed = HistogramAppender::<C>::resume(chunk.bytes(), with_starts).unwrap();
            // As text, since a NaN isn't equal to itself.
            assert_eq!(format!("{:?}", resumed.last()), format!("{:?}", chunk.last()));
            let (mut resumed, mut chunk) = (resumed, chunk.clone());
            if let Some((timestamp_ms, start_ms, histogram)) = chunk.last() {
                let again = |chunk: &mut HistogramAppender<C>| {
                    chunk.append(timestamp_ms.wrapping_add(7), start_ms, &histogram)
                };
                assert_eq!(again(&mut resumed), again(&mut chunk));
            }
            assert_eq!(resumed.bytes(), chunk.bytes());
        }
    }
}

fn spans() -> impl Strategy<Value = Vec<Span>> {
    (-20i32..20, prop::collection::vec((1i32..5, 1u32..4), 0..4)).prop_map(|(first, spans)| {
        spans
            .into_iter()
            .enumerate()
            .map(|(i, (offset, length))| Span { offset: if i == 0 { first } else { offset }, length })
            .collect()
    })
}

fn histogram() -> impl Strategy<Value = IntHistogram> {
    let number = || prop_oneof![6 => 0u64..100, 1 => any::<u64>()];
    let sum = prop_oneof![5 => (0u32..1000).prop_map(f64::from), 1 => any::<f64>(), 1 => Just(stale_nan())];
    let layout = prop_oneof![
        6 => Just((3, 0.001, None)),
        1 => (-4i32..9, prop_oneof![Just(0.0), any::<f64>()]).prop_map(|(schema, zero)| (schema, zero, None)),
        1 => prop::collection::vec(any::<f64>(), 0..5)
            .prop_map(|bounds| (CUSTOM_BUCKETS_SCHEMA, 0.0, Some(Arc::from(bounds)))),
    ];
    let reset = prop::sample::select(vec![
        CounterReset::Unknown,
        CounterReset::Unknown,
        CounterReset::NotReset,
        CounterReset::Gauge,
        CounterReset::Reset,
    ]);
    (layout, (spans(), spans()), prop::collection::vec(number(), 24), (number(), number(), sum, reset))
        .prop_map(
            |((schema, zero_threshold, custom_values), (positive_spans, negative_spans), buckets, rest)| {
                let (zero_count, count, sum, counter_reset) = rest;
                let count_of = |spans: &[Span]| spans.iter().map(|span| span.length as usize).sum::<usize>();
                let (positive, negative) = (count_of(&positive_spans), count_of(&negative_spans));
                IntHistogram {
                    counter_reset,
                    schema,
                    zero_threshold,
                    zero_count,
                    count,
                    sum,
                    positive_buckets: buckets[..positive].to_vec(),
                    negative_buckets: buckets[24 - negative..].to_vec(),
                    positive_spans,
                    negative_spans,
                    custom_values,
                }
            },
        )
}

/// Counters that grow, with jumps to any histogram now and then.
fn samples() -> impl Strategy<Value = Vec<Timed<u64>>> {
    let step = prop_oneof![5 => Just(15_000i64), 1 => any::<i64>()];
    let start = prop_oneof![3 => Just(0i64), 1 => any::<i64>()];
    let growth =
        prop_oneof![6 => prop::collection::vec(0u64..9, 24).prop_map(Ok), 1 => histogram().prop_map(Err)];
    (histogram(), prop::collection::vec((step, start, growth), 0..40)).prop_map(|(first, steps)| {
        let (mut timestamp_ms, mut histogram) = (0i64, first);
        steps
            .into_iter()
            .map(|(step, start_ms, growth)| {
                timestamp_ms = timestamp_ms.wrapping_add(step);
                match growth {
                    Ok(growth) => {
                        let buckets =
                            histogram.positive_buckets.iter_mut().chain(&mut histogram.negative_buckets);
                        for (bucket, more) in buckets.zip(growth) {
                            *bucket = bucket.saturating_add(more);
                        }
                        histogram.count = histogram.count.saturating_add(9);
                    }
                    Err(other) => histogram = other,
                }
                (timestamp_ms, start_ms, histogram.clone())
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn integer_histograms_round_trip(samples in samples()) {
        check(&samples);
    }

    #[test]
    fn float_histograms_round_trip(samples in samples(), scale in prop_oneof![Just(1.0), any::<f64>()]) {
        let floats: Vec<_> = samples
            .into_iter()
            .map(|(timestamp_ms, start_ms, histogram)| {
                let mut float = histogram.to_float();
                for bucket in float.positive_buckets.iter_mut().chain([&mut float.count]) {
                    *bucket *= scale;
                }
                (timestamp_ms, start_ms, float)
            })
            .collect();
        check(&floats);
    }

    #[test]
    fn hostile_bytes_end_in_samples_or_an_error(
        head in prop::sample::select(vec![vec![], vec![0, 3, 0], vec![0, 3, 0, 0x81], vec![0, 200, 0, 0]]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        with_starts in any::<bool>(),
    ) {
        let bytes = [head, bytes].concat();
        let bits = bytes.len() * 8;
        let mut numbers = 0;
        for sample in HistogramDecoder::<u64>::new(&bytes, with_starts).into_iter().flatten().flatten() {
            numbers += 1 + sample.2.positive_buckets.len() + sample.2.negative_buckets.len();
        }
        prop_assert!(numbers <= bits);
        HistogramDecoder::<f64>::new(&bytes, with_starts).into_iter().flatten().for_each(drop);
        HistogramAppender::<u64>::resume(&bytes, with_starts).ok();
        HistogramAppender::<f64>::resume(&bytes, with_starts).ok();
    }

    #[test]
    fn a_flipped_bit_does_no_harm(samples in samples(), at in any::<prop::sample::Index>(), with_starts in any::<bool>()) {
        let mut bytes = encode(&samples, with_starts)[0].bytes().to_vec();
        let at = at.index(bytes.len() * 8);
        bytes[at / 8] ^= 1 << (at % 8);
        HistogramDecoder::<u64>::new(&bytes, with_starts).into_iter().flatten().for_each(drop);
        HistogramAppender::<u64>::resume(&bytes, with_starts).ok();
    }
}

fn counter(first: i32, buckets: &[u64]) -> IntHistogram {
    IntHistogram {
        schema: 0,
        count: buckets.iter().sum(),
        sum: 1.0,
        positive_spans: vec![Span { offset: first, length: buckets.len() as u32 }],
        positive_buckets: buckets.to_vec(),
        ..Default::default()
    }
}

fn resets(bytes: &[u8]) -> Vec<CounterReset> {
    decode::<u64>(bytes, false).into_iter().map(|(_, _, histogram)| histogram.counter_reset).collect()
}

#[test]
fn new_buckets_widen_the_chunk() {
    let samples = [
        (1, 0, counter(0, &[1, 2])),
        (2, 0, counter(-2, &[4, 0, 1, 2, 5])),
        (3, 0, counter(-2, &[5, 0, 1, 2])),
    ];
    let chunks = encode(&samples, false);
    assert_eq!(chunks.len(), 2, "the third lost a bucket: a reset");
    assert_same(&decode(chunks[0].bytes(), false), &samples[..2], false);
    assert_eq!(resets(chunks[0].bytes()), [CounterReset::Unknown, CounterReset::NotReset]);
    assert_eq!(resets(chunks[1].bytes()), [CounterReset::Unknown], "which whoever reads finds out");
}

#[test]
fn buckets_that_wander_begin_a_new_chunk_before_it_grows_without_end() {
    let gauge = |i| IntHistogram { counter_reset: CounterReset::Gauge, ..counter(i * 100, &[1; 100]) };
    let samples: Vec<_> = (0..30).map(|i| (i64::from(i), 0, gauge(i))).collect();
    let chunks = encode(&samples, false);
    assert_eq!(chunks.iter().map(HistogramAppender::count).collect::<Vec<_>>(), [10, 10, 10]);
    assert!(resets(chunks[1].bytes()).iter().all(|reset| *reset == CounterReset::Gauge));
}

#[test]
fn what_a_counter_cannot_do_begins_a_new_chunk() {
    use CounterReset::{Gauge, NotReset, Reset, Unknown};
    let before = counter(0, &[5, 5]);
    let after = |histogram: &IntHistogram| {
        let chunks = encode(&[(1, 0, before.clone()), (2, 0, histogram.clone())], false);
        match &chunks[..] {
            [one] => {
                assert_eq!(resets(one.bytes()), [Unknown, NotReset]);
                Ok(())
            }
            [_, next] => Err(resets(next.bytes())[0]),
            _ => unreachable!("two samples begin two chunks at most"),
        }
    };
    assert_eq!(after(&counter(0, &[5, 6])), Ok(()));
    assert_eq!(after(&counter(0, &[4, 9])), Err(Unknown));
    assert_eq!(after(&counter(0, &[9])), Err(Unknown));
    assert_eq!(after(&IntHistogram { counter_reset: Reset, ..counter(0, &[5, 6]) }), Err(Reset));
    assert_eq!(after(&IntHistogram { counter_reset: Gauge, ..counter(0, &[5, 6]) }), Err(Gauge));
    assert_eq!(after(&IntHistogram { schema: 1, ..counter(0, &[5, 6]) }), Err(Unknown));
    assert_eq!(after(&IntHistogram { zero_threshold: 0.1, ..counter(0, &[5, 6]) }), Err(Unknown));
}

#[test]
fn only_stale_samples_follow_a_stale_one() {
    let stale = IntHistogram { sum: stale_nan(), ..Default::default() };
    let chunks = encode(
        &[(1, 0, counter(0, &[5])), (2, 0, stale.clone()), (3, 0, stale), (4, 0, counter(0, &[5]))],
        false,
    );
    assert_eq!(chunks.iter().map(HistogramAppender::count).collect::<Vec<_>>(), [3, 1]);
    let found: Vec<IntHistogram> = decode(chunks[0].bytes(), false).into_iter().map(|(_, _, h)| h).collect();
    assert!(found[1].positive_spans.is_empty() && crate::model::is_stale(found[2].sum));
}

#[test]
fn bytes_are_those_of_the_format() {
    let mut chunk = HistogramAppender::new(false);
    let first = IntHistogram { zero_count: 1, count: 4, ..counter(1, &[1, 2]) };
    chunk.append(1, 0, &IntHistogram { counter_reset: CounterReset::Reset, ..first }).unwrap();
    chunk.append(3, 0, &IntHistogram { zero_count: 1, count: 6, ..counter(1, &[2, 3]) }).unwrap();
    let bits = concat!(
        "00000000", // zero threshold 0
        "0",        // schema 0
        "10001",    // one positive span
        "10010",    // of length 2
        "10001",    // at 1
        "0",        // no negative span
        "10001",    // t 1
        "10100",    // count 4
        "10001",    // zero count 1
        "0011111111110000000000000000000000000000000000000000000000000000",
        "10001", // bucket 1
        "10001", // one more than that
        "10010", // distance 2
        "10010", // two more
        "0",     // no more in the zero bucket
        "0",     // same sum
        "10001", // one more
        "0",     // and one more in its neighbour
    );
    let mut expected = vec![0, 2, 0b1000_0000];
    for byte in bits.as_bytes().chunks(8) {
        let text = format!("{:0<8}", std::str::from_utf8(byte).unwrap());
        expected.push(u8::from_str_radix(&text, 2).unwrap());
    }
    assert_eq!(chunk.bytes(), expected);
}
