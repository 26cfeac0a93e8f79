//! Samples of any types in one request are what they are in one request each: in order, after a replay, in blocks.

use proptest::prelude::*;

use super::*;
use crate::chunk::Columns;
use crate::model::{CounterReset, IntHistogram, Value, stale_nan};

fn counter(timestamp_ms: i64, count: u64, counter_reset: CounterReset) -> Sample {
    let histogram = IntHistogram { count, zero_count: count, counter_reset, ..Default::default() };
    Sample { timestamp_ms, start_ms: 0, value: Value::Int(Arc::new(histogram)) }
}

/// A timestamp; of a histogram, its count and what is known of a reset.
type Point = (i64, Option<(f64, CounterReset)>);

/// Counts and what is known of resets, as a query sees them, by series; floats as `None`.
fn seen(tenant: &Tenant) -> Vec<Vec<Point>> {
    let matchers = vec![Matcher::equal("__name__", "m")];
    let mut found = tenant.select(&Select { matchers, range_ms: ALL_TIMES, shard: None }).unwrap();
    found.sort_by(|a, b| a.labels.cmp(&b.labels));
    let mut columns = Columns::default();
    found
        .iter()
        .map(|series| {
            series.decode(ALL_TIMES, &mut columns).unwrap();
            let histogram =
                |i: usize| columns.histograms.get(i)?.as_ref().map(|h| (h.count, h.counter_reset));
            (0..columns.len()).map(|i| (columns.timestamps[i], histogram(i))).collect()
        })
        .collect()
}

fn resets(tenant: &Tenant) -> Vec<CounterReset> {
    seen(tenant)[0].iter().filter_map(|(_, histogram)| Some((*histogram)?.1)).collect()
}

#[test]
fn a_reset_between_stale_markers_of_one_request_outlives_a_restart() {
    use CounterReset::{Reset, Unknown};
    let stale = |t| Sample::float(t, stale_nan());
    let flap = [
        (0, counter(BASE_MS, 10, Unknown)),
        (0, stale(BASE_MS + 10_000)),
        (0, counter(BASE_MS + 20_000, 12, Reset)),
        (0, stale(BASE_MS + 30_000)),
    ];
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    append(&tenant, &flap).unwrap();
    db.commit().unwrap();
    assert_eq!(resets(&tenant), [Unknown, Reset]);
    drop((db, tenant));
    disk.kill();
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    assert_eq!(resets(&tenant), [Unknown, Reset]);
    db.flush(BASE_MS).unwrap();
    assert_eq!(resets(&tenant), [Unknown, Reset]);
}

/// 100, then 10: a reset. Later comes 5 between the two: still one.
#[test]
fn a_late_histogram_takes_the_reset_over_from_the_one_behind_it() {
    use CounterReset::{NotReset, Reset, Unknown};
    let in_order =
        [(0, 100), (60_000, 10), (120_000, 12)].map(|(t, n)| (0, counter(BASE_MS + t, n, Unknown)));
    let late = [(0, counter(BASE_MS + 30_000, 5, Unknown))];
    let one_reset = [Unknown, Reset, NotReset, NotReset];
    for flush_between in [false, true] {
        let disk = Arc::new(MemoryDisk::new());
        let (db, _) = open(&disk);
        let tenant = db.tenant(&id()).unwrap();
        append(&tenant, &in_order).unwrap();
        assert_eq!(resets(&tenant), [Unknown, Reset, NotReset]);
        if flush_between {
            db.flush(BASE_MS).unwrap();
        }
        append(&tenant, &late).unwrap();
        assert_eq!(resets(&tenant), one_reset, "in the head, or head and block");
        db.flush(BASE_MS + 1).unwrap();
        assert_eq!(resets(&tenant), one_reset, "in a block, or two");
        drop((db, tenant));
        let (db, _) = open(&disk);
        assert_eq!(resets(&db.tenant(&id()).unwrap()), one_reset);
    }
}

/// And what a sender said of a reset stays, whatever comes between.
#[test]
fn a_reset_that_was_sent_stays_behind_late_samples() {
    use CounterReset::{NotReset, Reset, Unknown};
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    append(&tenant, &[(0, counter(BASE_MS, 10, Unknown)), (0, counter(BASE_MS + 9, 20, Reset))]).unwrap();
    append(&tenant, &[(0, counter(BASE_MS + 5, 12, Unknown)), (0, Sample::float(BASE_MS + 7, 1.0))]).unwrap();
    assert_eq!(resets(&tenant), [Unknown, NotReset, Reset]);
    db.flush(BASE_MS).unwrap();
    assert_eq!(resets(&tenant), [Unknown, NotReset, Reset]);
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Float,
    Stale,
    Count(u64, CounterReset),
}

fn sample(timestamp_ms: i64, kind: Kind) -> Sample {
    match kind {
        Kind::Float => Sample::float(timestamp_ms, 1.0),
        Kind::Stale => Sample::float(timestamp_ms, stale_nan()),
        Kind::Count(count, reset) => counter(timestamp_ms, count, reset),
    }
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let reset = prop::sample::select(vec![
        CounterReset::Unknown,
        CounterReset::Unknown,
        CounterReset::Reset,
        CounterReset::NotReset,
        CounterReset::Gauge,
    ]);
    prop_oneof![
        1 => Just(Kind::Float),
        1 => Just(Kind::Stale),
        4 => (0..20u64, reset).prop_map(|(count, reset)| Kind::Count(count, reset)),
    ]
}

/// Two series' samples, some of them late, as `(series, offset, kind)`.
fn any_samples() -> impl Strategy<Value = Vec<(usize, i64, Kind)>> {
    prop::collection::vec((0..2usize, 0..40i64, any_kind()), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However samples are cut into requests, wherever a restart or a cut falls: the same answers as one sample a
    /// request.
    #[test]
    fn requests_of_mixed_types_are_one_unit(
        samples in any_samples(),
        lengths in prop::collection::vec(1..9usize, 40),
        stops in prop::collection::vec(0..8u8, 40),
        step_ms in prop::sample::select(vec![1_000, 10 * 60_000]),
    ) {
        let all: Vec<_> = samples
            .iter()
            .map(|(series, offset, kind)| (*series, sample(BASE_MS + offset * step_ms, *kind)))
            .collect();
        let (one_by_one, _) = open(&Arc::new(MemoryDisk::new()));
        let expected = one_by_one.tenant(&id()).unwrap();
        for one in &all {
            append(&expected, std::slice::from_ref(one)).unwrap();
        }
        let disk = Arc::new(MemoryDisk::new());
        let (mut db, _) = open(&disk);
        let mut tenant = db.tenant(&id()).unwrap();
        let mut rest = all.as_slice();
        for (length, stop) in lengths.iter().zip(&stops) {
            let (request, later) = rest.split_at((*length).min(rest.len()));
            rest = later;
            append(&tenant, request).unwrap();
            db.commit().unwrap();
            if *stop == 0 {
                drop((db, tenant));
                disk.kill();
                db = open(&disk).0;
                tenant = db.tenant(&id()).unwrap();
            }
        }
        prop_assert!(rest.is_empty());
        prop_assert_eq!(seen(&tenant), seen(&expected));
        drop((db, tenant));
        disk.kill();
        let (db, _) = open(&disk);
        let tenant = db.tenant(&id()).unwrap();
        prop_assert_eq!(seen(&tenant), seen(&expected), "after a restart");
        db.flush(BASE_MS).unwrap();
        prop_assert_eq!(seen(&tenant), seen(&expected), "in blocks");
    }

    /// Whatever order a series' samples come in, with cuts in between: what follows from the numbers follows from the
    /// numbers at the end.
    #[test]
    fn late_samples_leave_no_reset_that_the_numbers_do_not_show(
        counts in prop::collection::vec(0..20u64, 2..30),
        order in Just((0..30usize).collect::<Vec<_>>()).prop_shuffle(),
        stops in prop::collection::vec(0..6u8, 30),
    ) {
        let at = |i: usize| (0, counter(BASE_MS + i as i64 * 10 * 60_000, counts[i], CounterReset::Unknown));
        let (in_order, _) = open(&Arc::new(MemoryDisk::new()));
        let expected = in_order.tenant(&id()).unwrap();
        (0..counts.len()).for_each(|i| drop(append(&expected, &[at(i)]).unwrap()));
        let (db, _) = open(&Arc::new(MemoryDisk::new()));
        let tenant = db.tenant(&id()).unwrap();
        for (i, stop) in order.into_iter().zip(stops).filter(|(i, _)| *i < counts.len()) {
            append(&tenant, &[at(i)]).unwrap();
            if stop == 0 {
                db.flush(BASE_MS).unwrap();
            }
        }
        prop_assert_eq!(seen(&tenant), seen(&expected));
        db.flush(BASE_MS).unwrap();
        prop_assert_eq!(seen(&tenant), seen(&expected));
    }
}
