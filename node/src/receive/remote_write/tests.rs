//! The decoder against prost, on requests of every shape.

use proptest::prelude::*;
use prost::Message as _;
use proto::prometheus as pb;
use tsdb::model::{CounterReset, Labels};

use super::*;
use crate::config::Limits;
use crate::receive::budget::Budget;

fn decoded(plain: &[u8]) -> Result<Batch, BodyError> {
    let (mut batch, mut held) = (Batch::default(), Budget::new(usize::MAX).hold());
    decode(plain, &SeriesHasher::new(1), &mut DecodedBytes::new(&mut held, usize::MAX), &mut batch)?;
    Ok(batch)
}

prop_compose! {
    fn a_label()(name in "[a-z]{1,10}", value in "\\PC{0,20}") -> pb::Label { pb::Label { name, value } }
}

prop_compose! {
    fn a_series()(
        labels in prop::collection::vec(a_label(), 0..8),
        samples in prop::collection::vec((any::<f64>(), any::<i64>()), 0..4),
        exemplar in prop::option::of((any::<f64>(), any::<i64>(), "[a-f0-9]{0,32}")),
    ) -> pb::TimeSeries {
        let sample = |(value, timestamp)| pb::Sample { value, timestamp };
        let exemplars = exemplar.map(|(value, timestamp, id)| {
            let labels = vec![pb::Label { name: "trace_id".to_owned(), value: id }];
            pb::Exemplar { labels, value, timestamp }
        });
        pb::TimeSeries {
            labels,
            samples: samples.into_iter().map(sample).collect(),
            exemplars: exemplars.into_iter().collect(),
            histograms: Vec::new(),
        }
    }
}

proptest! {
    #[test]
    fn series_are_what_prost_says(timeseries in prop::collection::vec(a_series(), 0..6)) {
        let request = pb::WriteRequest { timeseries, metadata: Vec::new() };
        let plain = request.encode_to_vec();
        // Proto3 leaves out what equals zero, -0.0 included.
        let request = pb::WriteRequest::decode(&plain[..]).unwrap();
        let batch = decoded(&plain).unwrap();
        prop_assert_eq!(batch.keys.len(), request.timeseries.len());
        let mut at = 0;
        for (owner, series) in request.timeseries.iter().enumerate() {
            let only_labels = pb::TimeSeries { labels: series.labels.clone(), ..pb::TimeSeries::default() };
            prop_assert_eq!(batch.raw_labels(&plain, owner as u32), only_labels.encode_to_vec());
            for sample in &series.samples {
                let found = &batch.appends[at].sample;
                let Value::Float(value) = found.value else { panic!("a float was sent") };
                prop_assert_eq!(batch.owners[at], owner as u32);
                prop_assert_eq!((found.timestamp_ms, value.to_bits()), (sample.timestamp, sample.value.to_bits()));
                at += 1;
            }
        }
        prop_assert_eq!(at, batch.appends.len());
        let exemplars: Vec<_> = request.timeseries.iter().flat_map(|s| &s.exemplars).collect();
        prop_assert_eq!(batch.exemplars.len(), exemplars.len());
        for ((_, found), sent) in batch.exemplars.iter().zip(exemplars) {
            prop_assert_eq!((found.timestamp_ms, found.value.to_bits()), (sent.timestamp, sent.value.to_bits()));
            prop_assert_eq!(found.labels.value("trace_id"), &sent.labels[0].value);
        }
    }

    #[test]
    fn hostile_messages_are_refused_or_read(plain in prop::collection::vec(any::<u8>(), 0..400)) {
        let ours = decoded(&plain);
        // Prost also refuses text that isn't UTF-8; here that is judged with the labels.
        if pb::WriteRequest::decode(&plain[..]).is_ok() {
            prop_assert!(ours.is_ok());
        }
    }

    #[test]
    fn any_truncation_is_an_error_or_a_shorter_request(series in a_series(), cut in 0.0..1.0f64) {
        let plain = pb::WriteRequest { timeseries: vec![series], metadata: Vec::new() }.encode_to_vec();
        let cut = (plain.len() as f64 * cut) as usize;
        prop_assert_eq!(decoded(&plain[..cut]).is_ok(), cut == 0);
    }
}

#[test]
fn labels_in_pieces_are_gathered() {
    let label = |name: &str| pb::Label { name: name.to_owned(), value: "v".to_owned() };
    let one = pb::TimeSeries { labels: vec![label("__name__")], ..Default::default() }.encode_to_vec();
    let two = pb::TimeSeries {
        labels: vec![label("job")],
        samples: vec![pb::Sample { value: 1.0, timestamp: 5 }],
        ..Default::default()
    };
    let mut pieces = pb::TimeSeries { samples: two.samples.clone(), ..Default::default() }.encode_to_vec();
    pieces.extend(&one);
    pieces.extend(pb::TimeSeries { samples: two.samples.clone(), ..Default::default() }.encode_to_vec());
    pieces.extend(pb::TimeSeries { samples: Vec::new(), ..two }.encode_to_vec());
    let mut plain = vec![0x0a, pieces.len() as u8];
    plain.extend(&pieces);

    let batch = decoded(&plain).unwrap();
    assert_eq!(batch.appends.len(), 2);
    let labels = labels::from_remote_write(batch.raw_labels(&plain, 0), &Limits::default()).unwrap();
    assert_eq!(labels, Labels::from_pairs([("__name__", "v"), ("job", "v")]).unwrap());
    let whole = pb::TimeSeries { labels: vec![label("__name__"), label("job")], ..Default::default() };
    assert_eq!(batch.keys[0], SeriesHasher::new(1).key(&whole.encode_to_vec()));
}

fn int_histogram() -> pb::Histogram {
    pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(9)),
        sum: 12.5,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: Some(pb::histogram::ZeroCount::ZeroCountInt(2)),
        positive_spans: vec![
            pb::BucketSpan { offset: -2, length: 2 },
            pb::BucketSpan { offset: 1, length: 1 },
        ],
        positive_deltas: vec![1, 2, -2],
        negative_spans: vec![pb::BucketSpan { offset: 0, length: 1 }],
        negative_deltas: vec![2],
        reset_hint: pb::histogram::ResetHint::No as i32,
        timestamp: 77,
        ..Default::default()
    }
}

fn one_histogram(histogram: pb::Histogram) -> Result<Sample, String> {
    let series = pb::TimeSeries { histograms: vec![histogram], ..Default::default() };
    let plain = pb::WriteRequest { timeseries: vec![series], metadata: Vec::new() }.encode_to_vec();
    let mut batch = decoded(&plain).unwrap();
    match batch.refused.described().first() {
        Some(refused) => Err(refused.why.clone()),
        None => Ok(batch.appends.pop().unwrap().sample),
    }
}

#[test]
fn integer_histograms_get_absolute_counts() {
    let sample = one_histogram(int_histogram()).unwrap();
    let Value::Int(histogram) = &sample.value else { panic!("counts are integers") };
    assert_eq!(sample.timestamp_ms, 77);
    assert_eq!(histogram.positive_buckets, [1, 3, 1]);
    assert_eq!(histogram.negative_buckets, [2]);
    assert_eq!((histogram.count, histogram.zero_count, histogram.schema), (9, 2, 1));
    assert_eq!(histogram.counter_reset, CounterReset::NotReset);
    assert_eq!(histogram.custom_values, None);
}

#[test]
fn float_histograms_and_custom_bounds_are_kept() {
    let sample = one_histogram(pb::Histogram {
        count: Some(pb::histogram::Count::CountFloat(1.5)),
        schema: -53,
        positive_spans: vec![pb::BucketSpan { offset: 0, length: 2 }],
        positive_counts: vec![0.5, 1.0],
        custom_values: vec![0.1],
        ..Default::default()
    });
    let Value::Histogram(histogram) = sample.unwrap().value else { panic!("counts are floats") };
    assert_eq!(histogram.custom_values.as_deref(), Some(&[0.1][..]));
    assert_eq!(histogram.positive_buckets, [0.5, 1.0]);
}

#[test]
fn broken_histograms_are_refused_with_the_reason() {
    type Break = fn(&mut pb::Histogram);
    let breaks: [(Break, &str); 8] = [
        (|h| h.schema = 53, "unknown schema 53"),
        (|h| h.count = Some(pb::histogram::Count::CountInt(8)), "its count is 8"),
        (|h| h.positive_deltas = vec![1, -2, 5], "negative bucket count"),
        (|h| h.positive_deltas = vec![i64::MAX, i64::MAX, 1], "negative bucket count"),
        (|h| h.positive_spans[1].offset = -1, "negative offset"),
        (|h| h.positive_spans[1].length = 7, "cover 9 buckets, but there are 3"),
        (|h| h.positive_spans[0].offset = i32::MAX, "reach too far"),
        (|h| h.schema = -53, "no negative buckets"),
    ];
    for (broken, wanted) in breaks {
        let mut histogram = int_histogram();
        broken(&mut histogram);
        let why = one_histogram(histogram).unwrap_err();
        assert!(why.contains(wanted), "{why}");
    }
}

#[test]
fn metadata_is_kept_and_unknown_types_are_unknown() {
    let of = |kind: i32| pb::MetricMetadata {
        r#type: kind,
        metric_family_name: "m".to_owned(),
        help: "h".to_owned(),
        unit: "s".to_owned(),
    };
    let request =
        pb::WriteRequest { timeseries: Vec::new(), metadata: vec![of(1), of(99), Default::default()] };
    let batch = decoded(&request.encode_to_vec()).unwrap();
    let kinds: Vec<_> = batch.metadata.iter().map(|m| m.kind.as_str()).collect();
    assert_eq!(kinds, ["counter", "unknown"]);
    assert_eq!((batch.metadata[0].help.as_str(), batch.metadata[0].unit.as_str()), ("h", "s"));
}

#[test]
fn a_declared_length_over_the_cap_is_refused_unread() {
    let bomb = [0x80, 0x80, 0x80, 0x80, 0x0f, 0];
    let most = 1 << 20;
    assert_eq!(declared_bytes(&bomb, most), Err(BodyError::TooLarge { declared: 0xf000_0000, most }));
    assert!(matches!(declared_bytes(&[0xff; 10], most), Err(BodyError::Snappy(_))));
}

#[test]
fn snappy_bodies_are_read_and_broken_ones_refused() {
    let text = b"carillon carillon carillon".repeat(20);
    let body = snap::raw::Encoder::new().compress_vec(&text).unwrap();
    let mut plain = Vec::new();
    decompress(&body, declared_bytes(&body, 1 << 20).unwrap(), &mut plain).unwrap();
    assert_eq!(plain, text);
    for cut in 1..body.len() {
        assert!(decompress(&body[..cut], text.len(), &mut plain).is_err(), "cut at {cut}");
    }
}

#[test]
fn finer_histograms_than_are_stored_are_reduced() {
    for (schema, offset, length) in
        [(9, -7, 40u32), (12, 1000, 300), (52, i32::MIN / 2, 900), (52, 1 << 30, 5)]
    {
        let mut histogram = int_histogram();
        histogram.schema = schema;
        histogram.positive_spans =
            vec![pb::BucketSpan { offset, length }, pb::BucketSpan { offset: 3, length: 2 }];
        histogram.positive_deltas =
            std::iter::once(2).chain((0..length + 1).map(|i| i64::from(i % 2) * 2 - 1)).collect();
        let fine = histogram.clone();
        histogram.count = None;
        let count: i64 = histogram
            .positive_deltas
            .iter()
            .scan(0, |at, d| {
                *at += d;
                Some(*at)
            })
            .sum();
        histogram.count = Some(pb::histogram::Count::CountInt(count as u64 + 4));
        let sample = one_histogram(histogram).unwrap();
        let Value::Int(found) = sample.value else { panic!("an integer histogram was sent") };
        assert_eq!((found.schema, found.count), (8, count as u64 + 4));
        // Each bucket's observations stand where a bucket of schema 8 holds them: 2^(schema - 8) go into one.
        let mut wanted = std::collections::BTreeMap::new();
        let mut at = 0;
        let indexes =
            (0..length as i32).map(|i| offset + i).chain([3, 4].map(|i| offset + length as i32 + i));
        for (index, delta) in indexes.zip(&fine.positive_deltas) {
            at += delta;
            let coarse = (f64::from(index) / 2f64.powi(schema - 8)).ceil() as i32;
            *wanted.entry(coarse).or_insert(0) += at as u64;
        }
        let wanted: Vec<_> = wanted.into_iter().collect();
        assert_eq!(found.positive().collect::<Vec<_>>(), wanted, "schema {schema}");
        assert_eq!(found.positive_spans.iter().map(|s| s.length as usize).sum::<usize>(), wanted.len());
    }
}

#[test]
fn a_histogram_of_more_buckets_than_any_has_is_refused() {
    let mut histogram = int_histogram();
    histogram.positive_deltas = vec![0; 1_000_000];
    assert!(one_histogram(histogram).unwrap_err().contains("more than 16384"));
}

#[test]
fn tiny_elements_are_refused_before_they_fill_the_memory() {
    const MOST: usize = 1 << 20;
    // An element of no content is two bytes on the wire.
    let empties = |field: u8, count: usize| [field << 3 | 2, 0].repeat(count);
    let series = |content: Vec<u8>| {
        let mut message = vec![1 << 3 | 2];
        tsdb::varint::put(&mut message, content.len() as u64);
        message.extend(content);
        message
    };
    let exemplar = series(
        [
            vec![3 << 3 | 2],
            {
                let mut l = Vec::new();
                tsdb::varint::put(&mut l, 400_000);
                l
            },
            empties(1, 200_000),
        ]
        .concat(),
    );
    let metadata = [3 << 3 | 2, 3, 2 << 3 | 2, 1, b'm'].repeat(100_000);
    for (what, plain) in [
        ("series", empties(1, 200_000)),
        ("samples", series(empties(2, 200_000))),
        ("exemplars", series(empties(3, 200_000))),
        ("histograms", series(empties(4, 200_000))),
        ("an exemplar's labels", exemplar),
        ("metadata", metadata),
    ] {
        let (mut batch, mut held) = (Batch::default(), Budget::new(usize::MAX).hold());
        let decoded =
            decode(&plain, &SeriesHasher::new(1), &mut DecodedBytes::new(&mut held, MOST), &mut batch);
        assert_eq!(decoded, Err(BodyError::OverBudget(OverBudget::Request { most: MOST })), "{what}");
        assert!(bytes_of(&batch) <= 2 * MOST, "{what}: {}", bytes_of(&batch));
        assert!(batch.refused.described().len() <= 20);
    }
}

#[test]
fn of_a_large_message_nothing_is_decoded_before_its_parts_are_counted() {
    const MOST: usize = 16 << 20;
    // A series whose content are a million elements of two bytes.
    let of_one = |field: u8| {
        let content = [field << 3 | 2, 0].repeat(1_000_000);
        let mut message = vec![1 << 3 | 2];
        tsdb::varint::put(&mut message, content.len() as u64);
        [message, content].concat()
    };
    for plain in [[1 << 3 | 2, 0].repeat(1_000_000), of_one(2), of_one(3), of_one(4)] {
        let (mut batch, mut held) = (Batch::default(), Budget::new(usize::MAX).hold());
        let mut memory = DecodedBytes::new(&mut held, MOST);
        let decoded = decode(&plain, &SeriesHasher::new(1), &mut memory, &mut batch);
        assert_eq!(decoded, Err(BodyError::OverBudget(OverBudget::Request { most: MOST })));
        assert_eq!(bytes_of(&batch), 0);
    }
    // What may be taken gets just the room that it needs.
    let (mut batch, mut held) = (Batch::default(), Budget::new(usize::MAX).hold());
    let mut memory = DecodedBytes::new(&mut held, 64 << 20);
    decode(&of_one(2), &SeriesHasher::new(1), &mut memory, &mut batch).unwrap();
    assert_eq!((batch.appends.len(), batch.appends.capacity()), (1_000_000, 1_000_000));
}

/// What the vectors of a batch have allocated.
fn bytes_of(batch: &Batch) -> usize {
    batch.keys.capacity() * 16
        + batch.raw.capacity() * size_of::<Raw>()
        + batch.appends.capacity() * size_of::<tsdb::db::Append>()
        + batch.owners.capacity() * 4
        + batch.exemplars.capacity() * size_of::<(u32, Exemplar)>()
        + batch.metadata.capacity() * size_of::<Metadata>()
        + batch.gathered.capacity()
}
