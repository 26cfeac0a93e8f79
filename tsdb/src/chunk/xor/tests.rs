use proptest::prelude::*;

use super::*;
use crate::model::{STALE_NAN_BITS, stale_nan};

type Sample = (i64, f64);

fn encode(samples: &[Sample]) -> XorAppender {
    let mut appender = XorAppender::new();
    for (timestamp_ms, value) in samples {
        appender.append(*timestamp_ms, *value);
    }
    appender
}

fn bits(samples: &[Sample]) -> Vec<(i64, u64)> {
    samples.iter().map(|(t, v)| (*t, v.to_bits())).collect()
}

fn decoded(bytes: &[u8]) -> Vec<Sample> {
    let one_by_one: Vec<_> = XorDecoder::new(bytes).unwrap().collect::<Result<_>>().unwrap();
    let mut columns = Columns::default();
    decode_floats(bytes, &mut columns).unwrap();
    let at_once: Vec<_> = columns.timestamps.into_iter().zip(columns.values).collect();
    assert_eq!(bits(&one_by_one), bits(&at_once), "both decoders agree");
    at_once
}

/// Values that real series take, and any bits at all.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (0u32..1_000_000).prop_map(f64::from),
        2 => any::<f64>(),
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => Just(stale_nan()),
        2 => Just(1.0),
    ]
}

/// Steps that scrapes take, jittered ones, ones at the edges of the code's widths, and any.
fn step() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => Just(15_000i64),
        3 => 14_990..15_010i64,
        1 => prop::sample::select(vec![13, 14, 16, 17, 19, 20]).prop_flat_map(|w: u32| -1..=1i64.wrapping_shl(w) + 1),
        1 => any::<i64>(),
    ]
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    (any::<i64>(), prop::collection::vec((step(), value()), 0..300)).prop_map(|(start, steps)| {
        let mut timestamp_ms = start;
        steps
            .into_iter()
            .map(|(step, value)| {
                timestamp_ms = timestamp_ms.wrapping_add(step);
                (timestamp_ms, value)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn any_samples_round_trip(samples in samples()) {
        let appender = encode(&samples);
        prop_assert_eq!(usize::from(appender.count()), samples.len());
        prop_assert_eq!(bits(&decoded(appender.bytes())), bits(&samples));
    }

    #[test]
    fn an_appender_continues_from_its_bytes(samples in samples(), at in 0usize..300) {
        let at = at.min(samples.len());
        let mut resumed = XorAppender::resume(encode(&samples[..at]).bytes()).unwrap();
        for (timestamp_ms, value) in &samples[at..] {
            resumed.append(*timestamp_ms, *value);
        }
        let (whole, resumed) = (encode(&samples), resumed);
        prop_assert_eq!(whole.bytes(), resumed.bytes());
    }

    #[test]
    fn the_sample_before_the_newest_is_read_back(samples in samples()) {
        for count in 0..=samples.len() {
            let appender = encode(&samples[..count]);
            let resumed = XorAppender::resume(appender.bytes()).unwrap();
            let expected = (count >= 3).then(|| samples[count - 2]);
            for found in [appender.before_last(), resumed.before_last()] {
                prop_assert_eq!(found.map(|(t, v)| (t, v.to_bits())), expected.map(|(t, v)| (t, v.to_bits())));
            }
        }
    }

    #[test]
    fn hostile_bytes_end_in_samples_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut columns = Columns::default();
        columns.push_float(1, 0, 1.0);
        let at_once = decode_floats(&bytes, &mut columns);
        let one_by_one = XorDecoder::new(&bytes).and_then(Iterator::collect::<Result<Vec<_>>>);
        prop_assert_eq!(at_once.is_ok(), one_by_one.is_ok());
        prop_assert_eq!(columns.len(), 1 + one_by_one.map_or(0, |samples| samples.len()));
    }

    #[test]
    fn a_cut_chunk_is_refused(samples in samples(), cut in 1usize..300) {
        let appender = encode(&samples);
        let bytes = appender.bytes();
        let kept = bytes.len().saturating_sub(cut);
        prop_assert!(decode_floats(&bytes[..kept], &mut Columns::default()).is_err());
    }
}

#[test]
fn bytes_are_those_of_the_format() {
    // Worked by hand: 2 samples; 1000 zigzag = d0 0f; 1.0; delta 15000 = 98 75; same value = one zero bit.
    let appender = encode(&[(1000, 1.0), (16_000, 1.0)]);
    assert_eq!(appender.bytes(), [0, 2, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0x98, 0x75, 0]);
}

#[test]
fn a_constant_series_takes_two_bits_a_sample() {
    let samples: Vec<_> = (0..122).map(|i| (i * 15_000, 1.0)).collect();
    assert_eq!(encode(&samples).bytes().len(), 2 + 1 + 8 + 2 + (1 + 2 * 120usize).div_ceil(8));
}

#[test]
fn a_stale_marker_keeps_its_bits() {
    let appender = encode(&[(0, 1.0), (1, stale_nan())]);
    assert_eq!(decoded(appender.bytes())[1].1.to_bits(), STALE_NAN_BITS);
}

#[test]
fn an_open_chunk_is_small() {
    assert!(size_of::<XorAppender>() <= 56, "{}", size_of::<XorAppender>());
}
