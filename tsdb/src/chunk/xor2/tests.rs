#![allow(clippy::unusual_byte_groupings, reason = "grouped as the format groups them")]

use proptest::prelude::*;

use super::*;
use crate::model::stale_nan;

type Sample = (i64, i64, f64);

fn encode(samples: &[Sample]) -> Xor2Appender {
    let mut appender = Xor2Appender::new();
    for (timestamp_ms, start_ms, value) in samples {
        appender.append(*timestamp_ms, *start_ms, *value);
    }
    appender
}

fn bits(samples: &[Sample]) -> Vec<(i64, i64, u64)> {
    samples.iter().map(|(t, start, v)| (*t, *start, v.to_bits())).collect()
}

fn decoded(bytes: &[u8]) -> Vec<(i64, i64, u64)> {
    let samples: Vec<_> = Xor2Decoder::new(bytes).unwrap().collect::<Result<_>>().unwrap();
    let mut columns = Columns::default();
    decode_floats_with_starts(bytes, &mut columns).unwrap();
    columns.starts.resize(columns.len(), 0);
    let at_once: Vec<_> =
        (0..columns.len()).map(|i| (columns.timestamps[i], columns.starts[i], columns.values[i])).collect();
    assert_eq!(bits(&samples), bits(&at_once), "both decoders agree");
    bits(&samples)
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (0u32..1_000_000).prop_map(f64::from),
        1 => any::<u64>().prop_map(f64::from_bits),
        2 => Just(stale_nan()),
        3 => Just(1.0),
    ]
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let step = prop_oneof![
        6 => Just(15_000i64),
        3 => 14_990..15_010i64,
        1 => prop::sample::select(vec![12, 19]).prop_flat_map(|w: u32| -1..=1i64.wrapping_shl(w) + 1),
        1 => any::<i64>(),
    ];
    // Start times: none, one for all, one that changes now and then, or any.
    let start = prop_oneof![8 => Just(0i64), 1 => -40..40i64, 1 => any::<i64>()];
    (
        any::<i64>(),
        prop::sample::select(vec![0, 1_000]),
        any::<bool>(),
        prop::collection::vec((step, start, value()), 0..300),
    )
        .prop_map(|(first, start, changes, steps)| {
            let (mut timestamp_ms, mut start_ms): (i64, i64) = (first, start);
            steps
                .into_iter()
                .map(|(step, change, value)| {
                    timestamp_ms = timestamp_ms.wrapping_add(step);
                    if changes {
                        start_ms = start_ms.wrapping_add(change);
                    }
                    (timestamp_ms, start_ms, value)
                })
                .collect()
        })
}

proptest! {
    #[test]
    fn any_samples_round_trip(samples in samples()) {
        let appender = encode(&samples);
        prop_assert_eq!(usize::from(appender.count()), samples.len());
        prop_assert_eq!(decoded(appender.bytes()), bits(&samples));
    }

    #[test]
    fn an_appender_continues_from_its_bytes(samples in samples(), at in 0usize..300) {
        let at = at.min(samples.len());
        let mut resumed = Xor2Appender::resume(encode(&samples[..at]).bytes()).unwrap();
        for (timestamp_ms, start_ms, value) in &samples[at..] {
            resumed.append(*timestamp_ms, *start_ms, *value);
        }
        let whole = encode(&samples);
        prop_assert_eq!(whole.bytes(), resumed.bytes());
    }

    #[test]
    fn hostile_bytes_end_in_samples_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(decoder) = Xor2Decoder::new(&bytes) {
            let bound = 1 + bytes.len() * 8;
            prop_assert!(decoder.count() <= bound);
        }
        let one_by_one = Xor2Decoder::new(&bytes).and_then(Iterator::collect::<Result<Vec<_>>>);
        prop_assert_eq!(decode_floats_with_starts(&bytes, &mut Columns::default()).is_ok(), one_by_one.is_ok());
    }

    #[test]
    fn a_start_that_changes_around_sample_127_is_kept(changed_at in 120usize..135, first in prop::sample::select(vec![0i64, 500])) {
        let samples: Vec<_> = (0..140)
            .map(|i| (i as i64 * 15_000, if i < changed_at { first } else { 700 + i as i64 }, 42.0))
            .collect();
        prop_assert_eq!(decoded(encode(&samples).bytes()), bits(&samples));
    }
}

#[test]
fn bytes_are_those_of_the_format() {
    let stale = stale_nan();
    // 0 zigzag = 00; 1.0 = 3ff0...; delta 1000 = e8 07; then bits:
    // 0 (same value) | 0 (same, same) | 11111 (same, stale) | 110 0000000000001 (one more) 0 (same as the last value)
    let appender = encode(&[(0, 0, 1.0), (1000, 0, 1.0), (2000, 0, 1.0), (3000, 0, stale), (4001, 0, 1.0)]);
    let tail = [0b0_0_11111_1, 0b10_000000, 0b0000001_0];
    assert_eq!(
        appender.bytes(),
        [&[0, 5, 0, 0, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xe8, 0x07], &tail[..]].concat()
    );
}

#[test]
fn start_times_stand_behind_their_samples() {
    // Start 500 at t 1000: distance 500 zigzag = e8 07. Sample 1: delta 1000, same value 0, distance 1000 - 600 = 400
    // in 12 bits behind 11110; sample 2: 0, distance 2000 - 600 = 1400: changed by 1000, the same way.
    let appender = encode(&[(1000, 500, 1.0), (2000, 600, 1.0), (3000, 600, 1.0)]);
    let mut expected = vec![0, 3, 0x81, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xe8, 0x07, 0xe8, 0x07];
    // 0 11110 000110010000 | 0 11110 001111101000
    let bits: u64 = 0b0_11110_000110010000_0_11110_001111101000 << 28;
    expected.extend(&bits.to_be_bytes()[..5]);
    assert_eq!(appender.bytes(), expected);
}

#[test]
fn start_times_cost_a_byte_where_there_are_none() {
    let samples: Vec<_> = (0..120).map(|i| (i * 15_000, 0, 1.0)).collect();
    assert_eq!(encode(&samples).bytes().len(), 3 + 1 + 8 + 2 + 119usize.div_ceil(8));
}
