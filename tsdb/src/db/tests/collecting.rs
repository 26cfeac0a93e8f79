//! Series without samples go: soon, in slices, and never under somebody's hands.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::db::collect::PASS_WAIT_MS;
use crate::model::{MatchOp, Value};

/// Maintains each second for some minutes; says how many series were collected.
fn collected(db: &Db, from_ms: i64, minutes: i64) -> u64 {
    (0..minutes * 60).map(|second| maintain(db, from_ms + second * 1_000).unwrap().collected).sum()
}

#[test]
fn series_whose_samples_were_refused_go_without_a_cut() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    let bounds = Bounds { in_order_min_ms: BASE_MS, out_of_order_min_ms: BASE_MS, max_ms: i64::MAX };
    append(&tenant, &[float(9_999, BASE_MS, 1.0)]).unwrap();
    for series in 0..5_000 {
        // Made, and never given a sample.
        tenant.intern(key(series), &labels(series)).unwrap();
        let old = [float(series, BASE_MS - 1, 1.0)];
        assert_eq!(append_within(&tenant, &old, bounds).unwrap().0, [Outcome::TooOld]);
    }
    assert_eq!(tenant.series_count(), 5_001);
    assert_eq!(collected(&db, BASE_MS, 3), 5_000);
    assert_eq!((tenant.series_count(), tenant.stats().collected), (1, 5_000));
    assert_eq!(tenant.label_values("i", &[], ALL_TIMES, 0).unwrap(), ["9999"]);
    let mut found = Vec::new();
    tenant.lookup(&[key(0), key(9_999)], &mut found);
    assert!(found[0].is_none() && !found[1].is_none());
    let made = tenant.intern(key(0), &labels(0)).unwrap();
    assert!(made.generation() > found[1].generation(), "who knows an older series by its id notices");
    assert!(db.stats().series_bytes < 300_000, "pages without series are given back: {:?}", db.stats());
}

#[test]
fn a_series_is_collected_by_the_cut_that_empties_it() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    // They live for five minutes; another one goes on.
    for series in 0..200 {
        let samples = (0..20).map(|i| float(series, BASE_MS + i * 15_000, 1.0));
        append(&tenant, &samples.collect::<Vec<_>>()).unwrap();
    }
    for hour in 0..=4 {
        assert_eq!(tenant.series_count(), 200 + u64::from(hour > 0));
        append(&tenant, &[float(5_000, BASE_MS + hour * HOUR_MS, 1.0)]).unwrap();
        let done = maintain(&db, BASE_MS + hour * HOUR_MS).unwrap();
        assert_eq!((done.cut.len(), done.collected), if hour == 4 { (1, 200) } else { (0, 0) }, "{hour}");
    }
    assert_eq!(select(&tenant, ALL_TIMES).len(), 201);
}

#[test]
fn a_new_series_is_given_time_for_its_first_sample() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    for round in 0..20 {
        let own = tenant.intern(key(round), &labels(round)).unwrap();
        // Maintenance comes in between, for nearly as long as two passes are apart.
        for second in 1..PASS_WAIT_MS as i64 / 1_000 {
            maintain(&db, BASE_MS + round as i64 * 997_000 + second * 1_000).unwrap();
        }
        let mut outcomes = Vec::new();
        let sample = Sample::float(BASE_MS + round as i64, 1.0);
        tenant.append(&[Append { series: own, sample }], &Bounds::ALL, &mut outcomes).unwrap();
        assert_eq!(outcomes, [Outcome::Stored], "round {round}");
    }
}

/// Every series answers to a name of its own, whoever has its slot by now.
#[test]
fn questions_and_writers_meet_no_other_series_in_a_slot_that_was_emptied() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    let writing = AtomicUsize::new(2);
    std::thread::scope(|scope| {
        let (db, tenant, writing) = (&db, &tenant, &writing);
        for writer in 0..2usize {
            scope.spawn(move || {
                for round in 0..60 {
                    let first = (writer + 1) * 1_000_000 + round * 50;
                    for series in first..first + 50 {
                        tenant.intern(key(series), &labels(series)).unwrap();
                    }
                    let samples: Vec<_> = (first..first + 25).map(|s| float(s, BASE_MS, s as f64)).collect();
                    let (outcomes, _) = append(tenant, &samples).unwrap();
                    assert!(outcomes.iter().all(|outcome| outcome.is_ack()), "{outcomes:?}");
                }
                writing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        scope.spawn(move || {
            let of_first = Matcher::new(MatchOp::Regex, "i", "1......").unwrap();
            while writing.load(Ordering::Relaxed) > 0 {
                for labels in tenant.series(std::slice::from_ref(&of_first), ALL_TIMES, 0).unwrap() {
                    assert!(of_first.matches(labels.value("i")), "{labels}");
                }
                for (labels, samples) in select(tenant, ALL_TIMES) {
                    assert_eq!(labels.value("i"), format!("{}", value(&samples[0])), "{labels}");
                }
            }
        });
        let mut minute = 0;
        while writing.load(Ordering::Relaxed) > 0 {
            maintain(db, BASE_MS + minute * 60_000).unwrap();
            if minute == 50 {
                db.flush(BASE_MS).unwrap();
            }
            minute += 1;
        }
        for later in minute..minute + 3 {
            maintain(db, BASE_MS + later * 60_000).unwrap();
        }
    });
    assert!(tenant.stats().collected > 0);
}

fn value(sample: &Sample) -> f64 {
    match &sample.value {
        Value::Float(value) => *value,
        _ => panic!("a histogram"),
    }
}
