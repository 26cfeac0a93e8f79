//! The decoder against prost, on requests of every shape, and against those who mean no good.

use proptest::prelude::*;
use prost::Message as _;
use proto::prometheus_v2 as pb;
use tsdb::model::{Labels, Value};

use super::*;
use crate::config::Limits;
use crate::receive::budget::{Budget, OverBudget};

/// More than any request here stands for.
const ROOM: usize = 1 << 20;

fn decode_into(plain: &[u8], batch: &mut Batch) -> Result<(), BodyError> {
    let mut held = Budget::new(usize::MAX).hold();
    decode(plain, &SeriesHasher::new(1), &mut DecodedBytes::new(&mut held, ROOM), batch)
}

fn decoded(plain: &[u8]) -> Result<Batch, BodyError> {
    let mut batch = Batch::default();
    decode_into(plain, &mut batch)?;
    Ok(batch)
}

fn request(symbols: &[&str], timeseries: Vec<pb::TimeSeries>) -> pb::Request {
    pb::Request { symbols: symbols.iter().map(|s| (*s).to_owned()).collect(), timeseries }
}

fn of(symbols: &[&str], timeseries: Vec<pb::TimeSeries>) -> Batch {
    decoded(&request(symbols, timeseries).encode_to_vec()).unwrap()
}

fn float(timestamp: i64) -> pb::Sample {
    pb::Sample { value: 1.5, timestamp, start_timestamp: 0 }
}

/// A series with one sample.
fn series(labels_refs: &[u32]) -> pb::TimeSeries {
    let samples = vec![float(5)];
    pb::TimeSeries { labels_refs: labels_refs.to_vec(), samples, ..Default::default() }
}

fn labels_of(batch: &Batch, series: u32) -> Result<Labels, String> {
    labels::from_remote_write(batch.raw_labels(&[], series), &Limits::default())
}

prop_compose! {
    fn a_series(symbols: u32)(
        labels_refs in prop::collection::vec(0..symbols, 0..6),
        samples in prop::collection::vec((any::<f64>(), any::<i64>(), any::<i64>()), 1..4),
        exemplars in prop::collection::vec((any::<f64>(), 1..i64::MAX), 0..2),
        created_timestamp in prop_oneof![Just(0), any::<i64>()],
        metadata in prop::option::of((0..8i32, 0..symbols, 0..symbols)),
    ) -> pb::TimeSeries {
        let pairs = labels_refs.len() / 2 * 2;
        pb::TimeSeries {
            labels_refs: labels_refs[..pairs].to_vec(),
            samples: samples
                .into_iter()
                .map(|(value, timestamp, start_timestamp)| pb::Sample { value, timestamp, start_timestamp })
                .collect(),
            histograms: Vec::new(),
            exemplars: exemplars
                .into_iter()
                .map(|(value, timestamp)| pb::Exemplar { labels_refs: Vec::new(), value, timestamp })
                .collect(),
            metadata: metadata.map(|(kind, help_ref, unit_ref)| pb::Metadata { r#type: kind, help_ref, unit_ref }),
            created_timestamp,
        }
    }
}

prop_compose! {
    fn a_request()(
        symbols in prop::collection::vec("\\PC{0,12}", 0..9),
        timeseries in prop::collection::vec(a_series(10), 0..6),
    ) -> pb::Request {
        let mut symbols = symbols;
        symbols.insert(0, String::new());
        // A reference to the last stands for one beyond the table now and then.
        pb::Request { symbols, timeseries }
    }
}

proptest! {
    #[test]
    fn it_reads_what_prost_writes(request in a_request(), series_first: bool) {
        let plain = if series_first {
            let series = pb::Request { symbols: Vec::new(), timeseries: request.timeseries.clone() };
            let symbols = pb::Request { symbols: request.symbols.clone(), timeseries: Vec::new() };
            [series.encode_to_vec(), symbols.encode_to_vec()].concat()
        } else {
            request.encode_to_vec()
        };
        let batch = decoded(&plain).unwrap();
        // It leaves out zeros, negative ones too.
        let request = pb::Request::decode(&plain[..]).unwrap();
        let known = |at: &u32| (*at as usize) < request.symbols.len();
        let (good, bad): (Vec<_>, Vec<_>) =
            request.timeseries.iter().partition(|s| s.labels_refs.iter().all(known));
        prop_assert_eq!(batch.keys.len(), good.len());
        let mut appends = batch.appends.iter().zip(&batch.owners);
        let mut exemplars = batch.exemplars.iter();
        for (owner, series) in good.iter().enumerate() {
            let spelled: Vec<_> = series.labels_refs.chunks(2).map(|pair| proto::prometheus::Label {
                name: request.symbols[pair[0] as usize].clone(),
                value: request.symbols[pair[1] as usize].clone(),
            }).collect();
            let read = proto::prometheus::TimeSeries::decode(batch.raw_labels(&plain, owner as u32)).unwrap();
            prop_assert_eq!(read.labels, spelled);
            for sent in &series.samples {
                let (append, of) = appends.next().unwrap();
                let Value::Float(value) = append.sample.value else { panic!("a float") };
                let start = if sent.start_timestamp == 0 { series.created_timestamp } else { sent.start_timestamp };
                let found = (*of as usize, append.sample.timestamp_ms, append.sample.start_ms, value.to_bits());
                prop_assert_eq!(found, (owner, sent.timestamp, start, sent.value.to_bits()));
            }
            for sent in &series.exemplars {
                let (of, found) = exemplars.next().unwrap();
                let found = (*of as usize, found.timestamp_ms, found.value.to_bits());
                prop_assert_eq!(found, (owner, sent.timestamp, sent.value.to_bits()));
            }
        }
        prop_assert!(appends.next().is_none() && exemplars.next().is_none());
        // Of others only the metadata is refused.
        let metadata = batch.refused.described().iter().filter(|r| r.series.is_some()).count() as u64;
        let refused = batch.refused.count() - metadata;
        prop_assert_eq!(refused, bad.iter().map(|s| s.samples.len() as u64).sum::<u64>());
    }

    #[test]
    fn hostile_messages_are_refused_or_read(plain in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decoded(&plain);
    }

    #[test]
    fn a_request_cut_short_anywhere_is_an_error_or_a_shorter_request(request in a_request()) {
        let plain = request.encode_to_vec();
        for cut in 0..plain.len() {
            let ours = decoded(&plain[..cut]);
            let whole = pb::Request::decode(&plain[..cut]).is_ok();
            prop_assert_eq!(ours.is_ok(), whole, "cut at {} of {}", cut, plain.len());
        }
    }

    #[test]
    fn flipped_bits_never_break_it(request in a_request(), flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u8), 1..8)) {
        let mut plain = request.encode_to_vec();
        for (at, bit) in flips {
            let at = at.index(plain.len());
            plain[at] ^= 1 << bit;
        }
        let _ = decoded(&plain);
    }
}

#[test]
fn labels_have_the_key_that_remote_write_1_gives_them() {
    let label = |name: &str, value: &str| proto::prometheus::Label { name: name.into(), value: value.into() };
    let long = "x".repeat(300);
    let first = proto::prometheus::TimeSeries {
        labels: vec![label("__name__", "m"), label("a", &long)],
        ..Default::default()
    };
    let batch = of(&["", "m", "a", &long, "__name__"], vec![series(&[4, 1, 2, 3])]);
    assert_eq!(batch.raw_labels(&[], 0), first.encode_to_vec());
    assert_eq!(batch.keys[0], SeriesHasher::new(1).key(&first.encode_to_vec()));
}

#[test]
fn references_in_pieces_packed_or_not_are_one_list() {
    let mut bytes = vec![0x08, 1, 0x0a, 2, 2, 3, 0x08, 2];
    bytes.extend(pb::TimeSeries { samples: vec![float(5)], ..Default::default() }.encode_to_vec());
    let mut plain = request(&["", "__name__", "m", "a"], Vec::new()).encode_to_vec();
    plain.extend([0x2a, bytes.len() as u8]);
    plain.extend(&bytes);
    let batch = decoded(&plain).unwrap();
    assert_eq!(labels_of(&batch, 0), Ok(Labels::from_pairs([("__name__", "m"), ("a", "m")]).unwrap()));
}

#[test]
fn a_series_that_refers_beyond_the_table_is_refused_alone() {
    let symbols = ["", "__name__", "m", "a", "b"];
    let huge = pb::TimeSeries { labels_refs: vec![u32::MAX, 1, 2, 3], ..series(&[]) };
    let several = pb::TimeSeries { samples: vec![float(1), float(2)], ..series(&[1, 2, 3, 5]) };
    let batch = of(&symbols, vec![series(&[1, 2]), several, huge, series(&[1, 2, 3]), series(&[1, 2, 3, 4])]);
    assert_eq!((batch.keys.len(), batch.appends.len()), (2, 2));
    assert_eq!(batch.owners, [0, 1]);
    assert_eq!(labels_of(&batch, 1).unwrap().value("a"), "b");
    let why: Vec<_> = batch.refused.described().iter().map(|r| r.why.as_str()).collect();
    assert_eq!(batch.refused.count(), 2 + 1 + 1);
    assert_eq!(
        why,
        [
            "series 1 of the request (\"m\"): it refers to symbol 5, but there are 5",
            "series 2 of the request: it refers to symbol 4294967295, but there are 5",
            "series 3 of the request (\"m\"): its label references are odd in number",
        ]
    );
}

#[test]
fn labels_out_of_order_are_sorted_and_those_twice_refused() {
    let symbols = ["", "__name__", "m", "a", "b"];
    let batch = of(&symbols, vec![series(&[1, 2, 4, 2, 3, 2]), series(&[1, 2, 3, 2, 3, 4])]);
    let sorted = Labels::from_pairs([("__name__", "m"), ("a", "m"), ("b", "m")]).unwrap();
    assert_eq!(labels_of(&batch, 0), Ok(sorted));
    assert!(labels_of(&batch, 1).unwrap_err().contains("occurs twice"));
}

#[test]
fn few_bytes_that_stand_for_many_are_refused() {
    let long = "x".repeat(10_000);
    let many = |refs: &[u32]| vec![series(&refs.repeat(200))];
    let plain = request(&["", "a", &long], many(&[1, 2])).encode_to_vec();
    assert_eq!(decoded(&plain).err(), Some(BodyError::OverBudget(OverBudget::Request { most: ROOM })));
    let plain = request(&["", "a", &long], many(&[1, 1])).encode_to_vec();
    assert!(decoded(&plain).is_ok());
    // Symbols that are nothing but their offsets, texts of exemplars, and what families say of themselves.
    let plain = request(&vec![""; ROOM / 8 + 1], Vec::new()).encode_to_vec();
    assert_eq!(decoded(&plain).err(), Some(BodyError::OverBudget(OverBudget::Request { most: ROOM })));
    let exemplar = pb::Exemplar { labels_refs: vec![2, 2], value: 1.0, timestamp: 1 };
    let exemplars = pb::TimeSeries { exemplars: vec![exemplar; 100], ..series(&[]) };
    let plain = request(&["", "a", &long], vec![exemplars]).encode_to_vec();
    assert_eq!(decoded(&plain).err(), Some(BodyError::OverBudget(OverBudget::Request { most: ROOM })));
    let mut symbols = vec!["".to_owned(), "__name__".to_owned(), long];
    symbols.extend((0..200).map(|i| format!("m{i}")));
    let metadata = Some(pb::Metadata { r#type: 1, help_ref: 2, unit_ref: 0 });
    let timeseries = (0..200).map(|i| pb::TimeSeries { metadata, ..series(&[1, 3 + i]) }).collect();
    let plain = pb::Request { symbols, timeseries }.encode_to_vec();
    assert_eq!(decoded(&plain).err(), Some(BodyError::OverBudget(OverBudget::Request { most: ROOM })));
}

#[test]
fn start_times_come_with_samples_and_histograms_or_with_the_series() {
    let symbols = ["", "__name__", "m"];
    let histogram = pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(0)),
        timestamp: 9,
        start_timestamp: 4,
        ..Default::default()
    };
    let samples = vec![pb::Sample { start_timestamp: -7, ..float(1) }, float(2)];
    let batch = of(
        &symbols,
        vec![
            pb::TimeSeries { samples: samples.clone(), ..series(&[1, 2]) },
            pb::TimeSeries { samples, created_timestamp: 3, ..series(&[1, 2]) },
            pb::TimeSeries { samples: Vec::new(), histograms: vec![histogram], ..series(&[1, 2]) },
        ],
    );
    let starts: Vec<_> = batch.appends.iter().map(|append| append.sample.start_ms).collect();
    assert_eq!(starts, [-7, 0, -7, 3, 4]);
}

#[test]
fn a_family_is_told_once_and_by_its_own_name() {
    let symbols = ["", "__name__", "h_bucket", "h_sum", "c_total", "help", "s", "_sum"];
    let with = |name: u32, kind: i32, help_ref: u32, unit_ref: u32| pb::TimeSeries {
        metadata: Some(pb::Metadata { r#type: kind, help_ref, unit_ref }),
        ..series(&[1, name])
    };
    let batch = of(
        &symbols,
        vec![
            with(2, 3, 5, 6),
            with(4, 1, 5, 0),
            with(3, 3, 5, 6),
            with(2, 3, 5, 6),
            with(7, 5, 0, 0),
            with(4, 0, 0, 0),
            with(4, 1, 99, 0),
        ],
    );
    let mut told: Vec<_> = batch
        .metadata
        .iter()
        .map(|m| (m.family.as_str(), m.kind.as_str(), m.help.as_str(), m.unit.as_str()))
        .collect();
    told.sort_unstable();
    let wanted =
        [("_sum", "summary", "", ""), ("c_total", "counter", "help", ""), ("h", "histogram", "help", "s")];
    assert_eq!(told, wanted);
    assert_eq!(batch.refused.described()[0].why, "metadata: it refers to symbol 99, but there are 8");
    assert_eq!(batch.appends.len(), 7);
}

#[test]
fn a_batch_is_used_again() {
    let mut batch = Batch::default();
    for symbols in [["", "__name__", "m", "a"], ["", "a", "__name__", "m"]] {
        batch.clear();
        let refs = if symbols[1] == "a" { [2, 3] } else { [1, 2] };
        let plain = request(&symbols, vec![series(&refs)]).encode_to_vec();
        decode_into(&plain, &mut batch).unwrap();
        assert_eq!(labels_of(&batch, 0), Ok(Labels::from_pairs([("__name__", "m")]).unwrap()));
        assert_eq!((batch.keys.len(), batch.symbols.len()), (1, 4));
    }
}
