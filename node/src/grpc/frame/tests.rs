//! The format holds what it is given, survives anything, and is small for what scrapes send.

use std::sync::Arc;

use proptest::prelude::*;
use tsdb::model::{FloatHistogram, IntHistogram, Span, stale_nan};

use super::*;

/// The receiver's end, as simple as can be.
#[derive(Default)]
struct Receiver {
    labels: Vec<Labels>,
    last: Vec<u64>,
}

impl Receiver {
    fn read(&mut self, bytes: &[u8]) -> Vec<(Labels, Sample)> {
        let body = Body::parse(bytes).unwrap();
        for entry in body.series() {
            let (series, labels) = entry.unwrap();
            assert_eq!(series as usize, self.labels.len());
            self.labels.push(labels);
            self.last.push(0);
        }
        let mut samples = Vec::new();
        for sample in body.samples().map(Result::unwrap) {
            let (series, sample) = match sample {
                FrameSample::Float(float) => {
                    let last = &mut self.last[float.series as usize];
                    *last = float.change.apply(*last);
                    let value = Value::Float(f64::from_bits(*last));
                    let Float { series, timestamp_ms, start_ms, .. } = float;
                    (series, Sample { timestamp_ms, start_ms, value })
                }
                FrameSample::Histogram(series, sample) => (series, sample),
            };
            samples.push((self.labels[series as usize].clone(), sample));
        }
        samples
    }
}

fn labels(series: usize) -> Labels {
    Labels::from_pairs([("__name__", "requests_total"), ("instance", series.to_string().as_str())]).unwrap()
}

fn same(a: &[(Labels, Sample)], b: &[(Labels, Sample)]) -> bool {
    let one = |((la, a), (lb, b)): (&(Labels, Sample), &(Labels, Sample))| {
        la == lb && (a.timestamp_ms, a.start_ms) == (b.timestamp_ms, b.start_ms) && a.value.is_same(&b.value)
    };
    a.len() == b.len() && a.iter().zip(b).all(one)
}

fn any_value() -> impl Strategy<Value = Value> {
    let histogram = (any::<f64>(), any::<u32>(), -5..5i32, prop::collection::vec(any::<u32>(), 1..5));
    prop_oneof![
        4 => any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
        4 => (0..1000u32).prop_map(|v| Value::Float(f64::from(v))),
        1 => Just(Value::Float(stale_nan())),
        1 => histogram.clone().prop_map(|(sum, count, offset, buckets)| {
            let positive_spans = vec![Span { offset, length: buckets.len() as u32 }];
            let positive_buckets = buckets.iter().map(|b| u64::from(*b)).collect();
            let count = u64::from(count);
            Value::Int(Arc::new(IntHistogram { sum, count, positive_spans, positive_buckets, ..Default::default() }))
        }),
        1 => histogram.prop_map(|(sum, count, offset, buckets)| {
            let negative_spans = vec![Span { offset, length: buckets.len() as u32 }];
            let negative_buckets = buckets.iter().map(|b| f64::from(*b) / 7.0).collect();
            let count = f64::from(count);
            let histogram = FloatHistogram { sum, count, negative_spans, negative_buckets, ..Default::default() };
            Value::Histogram(Arc::new(histogram))
        }),
    ]
}

proptest! {
    /// Frame after frame of one stream, new series among known ones.
    #[test]
    fn what_is_sent_arrives_bit_by_bit_and_in_order(
        frames in prop::collection::vec(
            prop::collection::vec((0..20usize, any::<i64>(), prop_oneof![Just(0), any::<i64>()], any_value()), 0..30),
            1..6,
        )
    ) {
        let (mut dictionary, mut writer, mut receiver) = Default::default();
        let mut refs = std::collections::BTreeMap::new();
        for frame in frames {
            let mut samples = Vec::new();
            for (series, timestamp_ms, start_ms, value) in frame {
                let dictionary: &mut Dictionary = &mut dictionary;
                let writer: &mut BodyWriter = &mut writer;
                let name = *refs.entry(series).or_insert_with(|| {
                    let name = dictionary.define().unwrap();
                    writer.series(name, &labels(series));
                    name
                });
                let sample = Sample { timestamp_ms, start_ms, value };
                writer.sample(dictionary, name, &sample);
                samples.push((labels(series), sample));
            }
            let receiver: &mut Receiver = &mut receiver;
            let read = receiver.read(&writer.finish());
            prop_assert!(same(&read, &samples), "{read:?} {samples:?}");
        }
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..50usize) {
        if let Ok(body) = Body::parse(&bytes) {
            prop_assert!(body.samples().count() <= bytes.len());
        }
        prop_assert!(Floats::new(&bytes).count() <= bytes.len());
        let mut dictionary = Dictionary::default();
        let mut writer = BodyWriter::default();
        let name = dictionary.define().unwrap();
        writer.series(name, &labels(1));
        writer.sample(&mut dictionary, name, &Sample::float(1, 0.1));
        let mut whole = writer.finish();
        // Cut, or with one byte changed: an error or other samples, never a panic.
        let at = cut % whole.len();
        if let Ok(body) = Body::parse(&whole[..at]) {
            body.samples().for_each(drop);
        }
        whole[at] ^= bytes.first().copied().unwrap_or(1);
        if let Ok(body) = Body::parse(&whole) {
            body.series().for_each(drop);
            body.samples().for_each(drop);
            body.exemplars().for_each(drop);
        }
        let _ = read_verdicts(&bytes, cut);
    }

    #[test]
    fn verdicts_read_back(codes in prop::collection::vec((0..11usize, 1..400usize), 0..10)) {
        let all: Vec<_> = codes.iter().flat_map(|(code, n)| vec![Verdict::ALL[*code]; *n]).collect();
        let bytes = write_verdicts(&all);
        prop_assert_eq!(read_verdicts(&bytes, all.len()).unwrap(), all.clone());
        prop_assert!(read_verdicts(&bytes, all.len() + 1).is_err());
    }
}

/// Scrapes of 500 series: counters that stand still, counters that grow, and measurements.
#[test]
fn scrapes_take_few_bytes_a_sample() {
    let (mut dictionary, mut writer) = (Dictionary::default(), BodyWriter::default());
    let refs: Vec<_> = (0..500).map(|_| dictionary.define().unwrap()).collect();
    let mut sizes = Vec::new();
    for scrape in 0..10i64 {
        for name in &refs {
            let (step, series) = (scrape as f64, f64::from(*name));
            let value = match name % 4 {
                0 | 1 => series * 1000.0,
                2 => series * 1000.0 + (7.0 + series % 13.0) * step,
                _ => (series * 0.37 + step * 1.7).sin(),
            };
            writer.sample(&mut dictionary, *name, &Sample::float(1_767_225_600_000 + 15_000 * scrape, value));
        }
        sizes.push(writer.finish().len());
    }
    let each = *sizes.last().unwrap() as f64 / refs.len() as f64;
    assert!(each < 5.0, "{each} bytes a sample; frames of {sizes:?} bytes");
}
