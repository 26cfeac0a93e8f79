//! A request sent again when its samples' time is over: what the store has of it is an ack wherever it lies now.
//!
//! Varied: which part of a request the store took, how many samples of a series, their types, how much of it was cut into
//! blocks, a restart in between, late samples in overlapping blocks. Fixed: one tenant, one thread.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::db::known::REFUSED_SERIES_MAX;
use crate::model::{IntHistogram, Span, Value, prefer, stale_nan};

/// What a receiver takes when the clock shows `now_ms`: backfill of a day, an hour out of order.
fn bounds(now_ms: i64) -> Bounds {
    Bounds {
        in_order_min_ms: now_ms - 24 * HOUR_MS,
        out_of_order_min_ms: now_ms - HOUR_MS,
        max_ms: now_ms + HOUR_MS,
    }
}

fn value(random: &mut StdRng) -> Value {
    match random.random_range(0..4u32) {
        0 => Value::Float(stale_nan()),
        1 => {
            let histogram = IntHistogram {
                count: 3,
                sum: 4.5,
                positive_spans: vec![Span { offset: random.random_range(-3..3), length: 2 }],
                positive_buckets: vec![1, 2],
                ..Default::default()
            };
            Value::Int(Arc::new(histogram))
        }
        _ => Value::Float(f64::from(random.random_range(0..1_000_000)) / 8.0),
    }
}

#[test]
fn what_a_block_has_of_a_request_that_comes_again_is_a_duplicate() {
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = Arc::new(MemoryDisk::new());
        let (mut db, _) = open(&disk);
        let mut tenant = db.tenant(&id()).unwrap();
        let mut request = Vec::new();
        for series in 0..random.random_range(1..6) {
            let mut at = BASE_MS + random.random_range(0..HOUR_MS);
            for _ in 0..random.random_range(2..12) {
                request.push((series, Sample { timestamp_ms: at, start_ms: 0, value: value(&mut random) }));
                at += random.random_range(1..HOUR_MS / 2);
            }
        }
        let mut stored = BTreeMap::new();
        let sent_at = BASE_MS + 7 * HOUR_MS;
        // Some of it, and of that some in the wrong order: late samples make blocks that overlap.
        for (series, sample) in &request {
            if random.random_bool(0.7) {
                let now = (*series, sample.clone());
                let (outcomes, _) = append(&tenant, std::slice::from_ref(&now)).unwrap();
                assert_eq!(outcomes, [Outcome::Stored], "seed {seed}");
                stored.insert((*series, sample.timestamp_ms), sample.clone());
            }
            if random.random_bool(0.1) {
                db.flush(sent_at).unwrap();
            }
        }
        db.commit().unwrap();
        if random.random_bool(0.8) {
            db.flush(sent_at).unwrap();
        }
        if random.random_bool(0.3) {
            drop((db, tenant));
            disk.kill();
            (db, _) = open(&disk);
            tenant = db.tenant(&id()).unwrap();
        }
        let now_ms = sent_at + random.random_range(0..12) * HOUR_MS;
        // With another value here and there, as of two senders.
        let again: Vec<_> = request
            .iter()
            .map(|(series, sample)| match random.random_bool(0.1) {
                true => (*series, Sample { value: value(&mut random), ..sample.clone() }),
                false => (*series, sample.clone()),
            })
            .collect();
        let (outcomes, _) = append_within(&tenant, &again, bounds(now_ms)).unwrap();
        for ((series, sample), outcome) in again.iter().zip(&outcomes) {
            let known = stored.get(&(*series, sample.timestamp_ms));
            match known.map(|known| prefer(sample, known)) {
                Some(order) if order.is_le() => {
                    assert!(outcome.is_ack(), "seed {seed}: {sample:?} {outcome:?}");
                }
                _ => assert_ne!(*outcome, Outcome::Duplicate, "seed {seed}: {sample:?} was never stored"),
            }
        }
        let found = select(&tenant, ALL_TIMES);
        for ((series, timestamp_ms), sample) in &stored {
            let (_, samples) = found.iter().find(|(l, _)| *l == labels(*series)).unwrap();
            let now = samples.iter().find(|s| s.timestamp_ms == *timestamp_ms).unwrap();
            assert!(prefer(now, sample).is_ge(), "seed {seed}");
        }
        assert!(found.iter().all(|(_, s)| s.is_sorted_by(|a, b| a.timestamp_ms < b.timestamp_ms)));
    }
}

#[test]
fn refused_series_of_a_request_are_looked_for_up_to_a_number() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    let series = REFUSED_SERIES_MAX + 20;
    let at = |t: i64| (0..series).map(|s| float(s, t, 1.0)).collect::<Vec<_>>();
    append(&tenant, &at(BASE_MS)).unwrap();
    append(&tenant, &at(BASE_MS + 1)).unwrap();
    db.flush(BASE_MS).unwrap();
    // The series are in the head as long as they have samples.
    append(&tenant, &at(BASE_MS + 9 * HOUR_MS)).unwrap();
    let (outcomes, _) = append_within(&tenant, &at(BASE_MS), bounds(BASE_MS + 9 * HOUR_MS)).unwrap();
    let known = outcomes.iter().filter(|outcome| **outcome == Outcome::Duplicate).count();
    let refused = outcomes.iter().filter(|outcome| **outcome == Outcome::OutOfOrder).count();
    assert_eq!((known, refused), (REFUSED_SERIES_MAX, 20));
}
