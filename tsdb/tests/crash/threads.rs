//! Writers on threads of their own, that make series of several tenants, beside commits, cuts, checkpoints and questions;
//! then the power goes, at whichever operation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tsdb::clock::ClockReading;
use tsdb::db::{Append, Bounds, Db};
use tsdb::disk::{Fault, MemoryDisk};
use tsdb::model::{MatchOp, Matcher};
use tsdb::select::Select;
use tsdb::workers::Inline;

use super::rounds;
use super::store::{
    Fact, Key, MINUTE_MS, START_MS, TENANTS, is_same, labels, sample, series_ref, settings, tenant_id,
};

const WRITERS: usize = 3;
/// Series of a writer; no two writers have one in common.
const SERIES_PER_WRITER: usize = 1_000_000;
/// Requests of a writer, if the power stays.
const REQUESTS: usize = 120;

/// Writes until the power goes; returns what the writer knows.
fn write(db: &Db, writer: usize, seed: u64) -> BTreeMap<Key, Fact> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut facts = BTreeMap::new();
    let first = writer * SERIES_PER_WRITER;
    for request in 0..REQUESTS {
        let tenant_index = rng.random_range(0..TENANTS);
        let late_ms = if rng.random_bool(0.2) { rng.random_range(1..300) * MINUTE_MS } else { 0 };
        let timestamp_ms = START_MS + request as i64 * 5 * MINUTE_MS - late_ms;
        // Ten that go on, and some new ones in every request.
        let series = (first..first + 10).chain(first + 10 + request * 5..first + 15 + request * 5);
        let keys: Vec<Key> = series.map(|series| (tenant_index, series, timestamp_ms)).collect();
        for key in &keys {
            facts.entry(*key).or_insert(Fact::Unknown);
        }
        let Ok(tenant) = db.tenant(&tenant_id(tenant_index)) else { break };
        let refs: Result<Vec<_>, _> =
            keys.iter().map(|(_, series, _)| series_ref(&tenant, *series)).collect();
        let Ok(refs) = refs else { break };
        let batch: Vec<Append> = refs
            .into_iter()
            .zip(&keys)
            .map(|(own, (_, series, at))| Append { series: own, sample: sample(*series, *at) })
            .collect();
        let mut outcomes = Vec::new();
        let Ok(position) = tenant.append(&batch, &Bounds::ALL, &mut outcomes) else { break };
        let committed = db.commit();
        if db.durable() >= position {
            let acked = keys.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ack());
            facts.extend(acked.map(|(key, _)| (*key, Fact::Acked)));
        }
        if committed.is_err() {
            break;
        }
    }
    facts
}

/// All samples there are; each once, and as it was sent.
fn found(db: &Db) -> BTreeSet<Key> {
    let mut found = BTreeSet::new();
    for tenant_index in 0..TENANTS {
        let Some(tenant) = db.existing_tenant(&tenant_id(tenant_index)) else { continue };
        let matchers = vec![Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap()];
        let select = Select { matchers, range_ms: i64::MIN..=i64::MAX, shard: None };
        for of_series in tenant.select(&select).unwrap() {
            let series: usize = of_series.labels.value("i").parse().unwrap();
            assert_eq!(of_series.labels, labels(series));
            for got in of_series.samples().unwrap() {
                let key = (tenant_index, series, got.timestamp_ms);
                assert!(is_same(&got, &sample(series, got.timestamp_ms)), "{key:?} changed: {got:?}");
                assert!(found.insert(key), "{key:?} is there twice");
            }
        }
    }
    found
}

#[test]
fn writers_of_new_series_beside_cuts_and_checkpoints_lose_nothing_acked_in_a_power_cut() {
    let mut acked_in_all = 0;
    for round in 0..rounds(12) {
        let mut rng = StdRng::seed_from_u64(round);
        let disk = MemoryDisk::new();
        let open = |disk: &MemoryDisk| {
            Db::open(Arc::new(disk.clone()), settings(), START_MS, round.into(), &Inline).unwrap()
        };
        let (db, _) = open(&disk);
        disk.inject(Fault::Power { after: rng.random_range(200..3_000) });
        let stop = AtomicBool::new(false);
        let facts: Vec<_> = std::thread::scope(|scope| {
            let (db, stop) = (&db, &stop);
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| scope.spawn(move || write(db, writer, round * 10 + writer as u64)))
                .collect();
            scope.spawn(move || {
                let mut step = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    step += 1;
                    let elapsed_ms = step * 60_000;
                    let wall_ms = START_MS + elapsed_ms.cast_signed();
                    let done = match step % 8 {
                        7 => db.flush(wall_ms),
                        _ => db.maintain(ClockReading { wall_ms, elapsed_ms }),
                    };
                    if done.is_err() {
                        break;
                    }
                    std::thread::yield_now();
                }
            });
            let facts = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
            stop.store(true, Ordering::Relaxed);
            facts
        });
        drop(db);
        disk.crash(&mut rng);
        let (db, recovery) = open(&disk);
        assert!(!recovery.is_loss() && recovery.damage.is_empty(), "round {round}: {recovery:?}");
        let found = found(&db);
        let facts: BTreeMap<Key, Fact> = facts.into_iter().flatten().collect();
        for (key, fact) in &facts {
            assert!(
                *fact == Fact::Unknown || found.contains(key),
                "round {round}: {key:?} was acked and is lost"
            );
        }
        assert!(found.iter().all(|key| facts.contains_key(key)), "round {round}: nobody wrote it");
        acked_in_all += facts.values().filter(|fact| **fact == Fact::Acked).count();
    }
    assert!(acked_in_all > 1_000, "{acked_in_all}");
}
