//! Random operations, beside a map that does the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::chunk::Columns;
use crate::digest::{Digest, DigestKey, SeriesDigester};
use crate::head::rule::range_start_ms;
use crate::model::{Value, prefer_float};
use crate::select::Need;

const KEY: DigestKey = DigestKey::new(5);

#[derive(Clone, Debug)]
enum Operation {
    /// Series, minutes since the base, milliseconds more, value.
    Append(Vec<(usize, i64, i64, u8)>),
    Commit,
    Maintain,
    Flush,
    Seal,
    Crash(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let sample = (0..4usize, 0..600i64, 0..3i64, 0..3u8);
    prop_oneof![
        8 => prop::collection::vec(sample, 1..40).prop_map(Operation::Append),
        // A scrape, so that something is in order.
        8 => (0..600i64).prop_map(|minute| Operation::Append((0..4).map(|s| (s, minute, 0, 1)).collect())),
        4 => Just(Operation::Commit),
        2 => Just(Operation::Maintain),
        1 => Just(Operation::Flush),
        1 => Just(Operation::Seal),
        2 => any::<u64>().prop_map(Operation::Crash),
    ]
}

type Samples = BTreeMap<(usize, i64), f64>;

fn put(samples: &mut Samples, at: (usize, i64), value: f64) {
    let known = samples.entry(at).or_insert(value);
    if prefer_float(value, *known).is_gt() {
        *known = value;
    }
}

fn stored(tenant: &Tenant) -> Samples {
    let mut found = Samples::new();
    for (labels, samples) in select(tenant, ALL_TIMES) {
        let series = labels.value("i").parse().unwrap();
        for sample in samples {
            let Value::Float(value) = sample.value else { panic!("a histogram") };
            assert!(found.insert((series, sample.timestamp_ms), value).is_none(), "a sample came twice");
        }
    }
    found
}

/// What windows were found to hold, as long as their stamps are the same.
type Windows = BTreeMap<i64, (ContentStamp, Digest)>;

/// Looks at all windows as replicas do.
fn compare(tenant: &Tenant, all: &Samples, windows: &mut Windows) {
    let mut digests: BTreeMap<i64, Digest> = BTreeMap::new();
    for ((series, timestamp_ms), value) in all {
        let digester = SeriesDigester::new(KEY, &labels(*series));
        *digests.entry(range_start_ms(*timestamp_ms)).or_default() +=
            digester.float(*timestamp_ms, 0, *value);
    }
    let starts = tenant.windows_ms();
    assert!(digests.keys().all(|start_ms| starts.contains(start_ms)));
    for start_ms in starts {
        let times_ms = start_ms..=start_ms + WINDOW_MS - 1;
        let stamp = tenant.content_stamp(&times_ms);
        let expected = digests.get(&start_ms).copied().unwrap_or_default();
        let known = windows.insert(start_ms, (stamp, expected));
        assert!(
            known.is_none_or(|(s, d)| s != stamp || d == expected),
            "a stamp stayed, and samples changed"
        );
        let (mut found, mut seen) = (Digest::default(), std::collections::BTreeSet::new());
        let mut take = |series: crate::select::Series| {
            assert!(seen.insert(series.labels.clone()));
            found += series.digest(KEY, times_ms.clone(), &mut Columns::default())?;
            Ok(())
        };
        tenant.each_series(&times_ms, &mut |_| true, &mut take).unwrap();
        assert_eq!(found, expected);
    }
}

/// Asks for the newest samples, with few labels or all.
fn compare_newest(tenant: &Tenant, all: &Samples) {
    let name: Arc<str> = "i".into();
    for minute in [0, 50, 120, 300, 599, 700] {
        let end_ms = BASE_MS + minute * 60_000 + 1;
        let range_ms = end_ms - 10 * 60_000..=end_ms;
        let mut expected = BTreeMap::new();
        for ((series, timestamp_ms), value) in all.iter().filter(|((_, t), _)| range_ms.contains(t)) {
            expected.insert(series.to_string(), (*timestamp_ms, *value));
        }
        for (labels, any_order) in
            [(None, false), (Some(vec![name.clone()]), false), (Some(Vec::new()), true)]
        {
            let need = Need { labels, any_order, newest: true, best: None };
            let select = Select {
                matchers: vec![Matcher::equal("__name__", "m")],
                range_ms: range_ms.clone(),
                shard: None,
            };
            let mut found = Vec::new();
            let mut columns = Columns::default();
            for series in tenant.select_needed(&select, &need).unwrap() {
                series.decode(range_ms.clone(), &mut columns).unwrap();
                let last = columns.timestamps.last().copied().zip(columns.values.last().copied());
                found.extend(last.map(|last| (series.labels.value("i").to_owned(), last)));
            }
            if any_order {
                let mut found: Vec<_> = found.into_iter().map(|(_, last)| last).collect();
                let mut expected: Vec<_> = expected.values().copied().collect();
                found.sort_by(|a, b| a.partial_cmp(b).unwrap());
                expected.sort_by(|a, b| a.partial_cmp(b).unwrap());
                assert_eq!(found, expected);
            } else {
                assert_eq!(found, expected.clone().into_iter().collect::<Vec<_>>());
            }
        }
    }
}

fn run(operations: Vec<Operation>) {
    let disk = Arc::new(MemoryDisk::new());
    let (mut db, _) = open(&disk);
    let mut tenant = db.tenant(&id()).unwrap();
    let mut safe = Samples::new();
    let mut all = Samples::new();
    let mut windows = Windows::new();
    let mut now_ms = BASE_MS + 12 * HOUR_MS;
    for operation in operations {
        now_ms += 60_000;
        match operation {
            Operation::Append(samples) => {
                let samples: Vec<_> = samples
                    .into_iter()
                    .map(|(series, minute, ms, value)| {
                        float(series, BASE_MS + minute * 60_000 + ms, value.into())
                    })
                    .collect();
                let (outcomes, _) = append(&tenant, &samples).unwrap();
                for ((series, sample), outcome) in samples.iter().zip(outcomes) {
                    assert!(outcome.is_ack(), "{outcome:?}");
                    let Value::Float(value) = sample.value else { unreachable!() };
                    put(&mut all, (*series, sample.timestamp_ms), value);
                }
            }
            Operation::Commit => {
                db.commit().unwrap();
                safe = all.clone();
            }
            Operation::Maintain | Operation::Flush => {
                let flush = matches!(operation, Operation::Flush);
                let done = if flush { db.flush(now_ms) } else { maintain(&db, now_ms) }.unwrap();
                assert!(done.problems.is_empty(), "{:?}", done.problems);
            }
            Operation::Seal => {
                db.seal().unwrap();
                safe = all.clone();
                drop((db, tenant));
                let (opened, recovery) = open(&disk);
                assert!(recovery.damage.is_empty() && recovery.wal.damage.is_empty(), "{recovery:?}");
                db = opened;
                tenant = db.tenant(&id()).unwrap();
                windows.clear();
            }
            Operation::Crash(seed) => {
                drop((db, tenant));
                disk.crash(&mut StdRng::seed_from_u64(seed));
                let (opened, recovery) = open(&disk);
                assert!(recovery.damage.is_empty(), "{recovery:?}");
                assert_eq!(recovery.orphans, 0);
                db = opened;
                tenant = db.tenant(&id()).unwrap();
                let found = stored(&tenant);
                for (at, value) in &safe {
                    let found = found.get(at).copied();
                    let kept = found.is_some_and(|found| prefer_float(found, *value).is_ge());
                    assert!(kept, "{at:?} was {value}, is {found:?}");
                }
                for (at, value) in &found {
                    let known = all.get(at).is_some_and(|best| prefer_float(*best, *value).is_ge());
                    assert!(known, "{at:?} = {value} was never written");
                }
                (safe, all) = (found.clone(), found);
                windows.clear();
            }
        }
        let found = stored(&tenant);
        assert!(found == all, "lost or made up: {:?}", differences(&found, &all));
        compare(&tenant, &all, &mut windows);
        compare_newest(&tenant, &all);
    }
    // A part of the time has the same part of the samples.
    let part = BASE_MS + 100 * 60_000..=BASE_MS + 200 * 60_000;
    let count: usize = select(&tenant, part.clone()).iter().map(|(_, samples)| samples.len()).sum();
    assert_eq!(count, all.keys().filter(|(_, t)| part.contains(t)).count());
}

fn differences(a: &Samples, b: &Samples) -> Vec<impl std::fmt::Debug> {
    let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).copied().collect();
    let differ = keys.into_iter().filter(|k| a.get(k) != b.get(k));
    differ.map(|k| (k, a.get(&k).copied(), b.get(&k).copied())).take(10).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_sample_is_there_exactly_once(operations in prop::collection::vec(operation(), 1..40)) {
        run(operations);
    }
}
