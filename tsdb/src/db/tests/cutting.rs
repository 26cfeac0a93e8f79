//! A range on its way from the head into a block: what others see meanwhile, and what is left when something fails.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::hook::HookDisk;
use super::*;
use crate::disk::{Disk, Fault};
use crate::files;

fn open_on(disk: &Arc<HookDisk>) -> Db {
    Db::open(disk.clone(), settings(), BASE_MS, 7, &Inline).unwrap().0
}

fn is_block(path: &Path) -> bool {
    path.starts_with(files::TENANTS_DIR)
        && path.file_name().is_some_and(|n| files::block_ulid(n.as_ref()).is_some())
}

/// Names in the tenant's folder.
fn folders(disk: &HookDisk) -> Vec<String> {
    let entries = disk.inner.list(&files::tenant(&id())).unwrap_or_default();
    entries.into_iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect()
}

/// Writers that make a series for every sample, while a cut begins and until its block has its name; then the power goes.
#[test]
fn a_series_made_while_a_cut_begins_outlives_a_crash() {
    for round in 0..4 {
        let disk = HookDisk::new();
        let db = Arc::new(open_on(&disk));
        let tenant = db.tenant(&id()).unwrap();
        // Many late samples: freezing them takes a while.
        for at in [BASE_MS + 60_000, BASE_MS + 30_000] {
            append(&tenant, &(0..3_000).map(|s| float(s, at, 1.0)).collect::<Vec<_>>()).unwrap();
        }
        db.commit().unwrap();
        let acked = Arc::new(Mutex::new(BTreeSet::new()));
        let crashed = Arc::new(Mutex::new(None));
        {
            let (acked, inner, crashed) = (acked.clone(), disk.inner.clone(), crashed.clone());
            disk.set(move |what, path| {
                if what == "renamed" && is_block(path) {
                    let facts: BTreeSet<usize> = acked.lock().clone();
                    inner.sync_dir(path.parent().unwrap()).unwrap();
                    crashed.lock().get_or_insert((inner.fork(), facts));
                }
                Ok(())
            });
        }
        let (made, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for writer in 1..3usize {
                let (db, tenant, acked, made, stop) = (&db, &tenant, &acked, &made, &stop);
                scope.spawn(move || {
                    let mut series = writer * 1_000_000;
                    while !stop.load(Ordering::Relaxed) {
                        let (outcomes, position) =
                            append(tenant, &[float(series, BASE_MS + 90_000, 2.0)]).unwrap();
                        assert!(outcomes[0].is_ack() && db.commit().unwrap() >= position);
                        acked.lock().insert(series);
                        made.fetch_add(1, Ordering::Relaxed);
                        series += 1;
                    }
                });
            }
            while made.load(Ordering::Relaxed) < 20 {
                std::thread::yield_now();
            }
            db.flush(BASE_MS).unwrap();
            stop.store(true, Ordering::Relaxed);
        });
        disk.clear();
        let (copy, facts) = crashed.lock().take().unwrap();
        drop((db, tenant));
        copy.crash(&mut StdRng::seed_from_u64(round));
        let (db, recovery) = open(&Arc::new(copy));
        assert!(!recovery.is_loss(), "{recovery:?}");
        let found: BTreeSet<usize> = select(&db.tenant(&id()).unwrap(), ALL_TIMES)
            .iter()
            .map(|(labels, _)| labels.value("i").parse().unwrap())
            .collect();
        let lost: Vec<_> = facts.difference(&found).collect();
        assert!(lost.is_empty(), "round {round}: {} of {} are lost: {lost:?}", lost.len(), facts.len());
    }
}

/// Every question is asked at every operation on the disk that a cut makes.
#[test]
fn a_range_is_in_every_answer_while_it_is_cut() {
    let disk = HookDisk::new();
    let db = open_on(&disk);
    let tenant = db.tenant(&id()).unwrap();
    append(&tenant, &(0..20).map(|i| float(1, BASE_MS + i * 15_000, 1.0)).collect::<Vec<_>>()).unwrap();
    let ask = |tenant: &Tenant| {
        let (all, part) = (ALL_TIMES, BASE_MS..=BASE_MS + HOUR_MS);
        let by_name = [Matcher::equal("__name__", "m")];
        (
            tenant.label_names(&[], all.clone(), 0).unwrap(),
            tenant.label_names(&by_name, part.clone(), 0).unwrap(),
            tenant.label_values("i", &[], part.clone(), 0).unwrap(),
            tenant.label_values("i", &by_name, all.clone(), 0).unwrap(),
            tenant.series(&by_name, part.clone(), 0).unwrap(),
            tenant.windows_ms(),
            select(tenant, part).len(),
        )
    };
    let (before, asked) = (ask(&tenant), Arc::new(AtomicU64::new(0)));
    {
        let (tenant, before, asked) = (tenant.clone(), before.clone(), asked.clone());
        disk.set(move |what, path| {
            if path.starts_with(files::TENANTS_DIR) && what != "map" {
                assert_eq!(ask(&tenant), before, "{what} {}", path.display());
                assert!(tenant.stats().head_min_ms.is_some());
                asked.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    db.flush(BASE_MS).unwrap();
    disk.clear();
    assert!(asked.load(Ordering::Relaxed) >= 5);
    assert_eq!(ask(&tenant), before);
}

/// One operation of a cut fails, each in turn, the last ones when the block has its name already.
#[test]
fn a_cut_that_fails_anywhere_is_made_good_by_the_next_maintenance_and_leaves_no_second_block() {
    let mut failures = 0;
    for at in 0.. {
        let disk = HookDisk::new();
        let db = open_on(&disk);
        let tenant = db.tenant(&id()).unwrap();
        append(&tenant, &(0..20).map(|i| float(1, BASE_MS + i * 15_000, 1.0)).collect::<Vec<_>>()).unwrap();
        append(&tenant, &[float(1, BASE_MS + 5 * HOUR_MS, 1.0), float(1, BASE_MS + 7_000, 2.0)]).unwrap();
        db.commit().unwrap();
        let (expected, calls) = (only(&tenant), Arc::new(AtomicU64::new(0)));
        let struck = Arc::new(AtomicBool::new(false));
        {
            let (calls, struck) = (calls.clone(), struck.clone());
            disk.set(move |_, path| {
                if path.starts_with(files::TENANTS_DIR) && calls.fetch_add(1, Ordering::Relaxed) == at {
                    struck.store(true, Ordering::Relaxed);
                    return Err(io::Error::from_raw_os_error(12));
                }
                Ok(())
            });
        }
        let done = maintain(&db, BASE_MS).unwrap();
        disk.clear();
        if !struck.load(Ordering::Relaxed) {
            assert!(failures > 5, "{failures}");
            break;
        }
        assert_eq!(only(&tenant), expected, "operation {at}");
        failures += u64::from(!done.problems.is_empty());
        assert_eq!(done.cut.is_empty(), !done.problems.is_empty(), "operation {at}: {done:?}");
        let done_later = maintain(&db, BASE_MS + 1_000).unwrap();
        assert!(done_later.problems.is_empty(), "operation {at}: {done_later:?}");
        assert_eq!(done.cut.len() + done_later.cut.len(), 1, "operation {at}");
        assert_eq!(folders(&disk).len(), 1, "operation {at}: {:?}", folders(&disk));
        assert_eq!(only(&tenant), expected, "operation {at}");
        drop((db, tenant));
        let db = open_on(&disk);
        assert_eq!(db.local_blocks().len(), 1, "operation {at}");
        assert_eq!(only(&db.tenant(&id()).unwrap()), expected, "operation {at}");
    }
}

/// What a failed cut left can't be removed either for a while.
#[test]
fn a_block_that_nobody_sees_goes_before_its_range_is_cut_again() {
    let disk = HookDisk::new();
    let db = open_on(&disk);
    let tenant = db.tenant(&id()).unwrap();
    append(&tenant, &[float(1, BASE_MS, 1.0), float(1, BASE_MS + 5 * HOUR_MS, 1.0)]).unwrap();
    let expected = only(&tenant);
    disk.set(|what, path| {
        let fails = match what {
            "map" => {
                path.parent().and_then(Path::parent).is_some_and(is_block)
                    || path.parent().is_some_and(is_block)
            }
            "rename" => is_block(path),
            _ => false,
        };
        if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    });
    for second in 0..100 {
        let done = maintain(&db, BASE_MS + second * 1_000).unwrap();
        assert!(!done.problems.is_empty() && done.cut.is_empty());
        assert_eq!(folders(&disk).len(), 1, "no second block beside the first");
        assert_eq!(only(&tenant), expected);
    }
    disk.clear();
    let cut: usize = (100..200).map(|s| maintain(&db, BASE_MS + s * 1_000).unwrap().cut.len()).sum();
    assert_eq!((cut, folders(&disk).len()), (1, 1));
    assert_eq!(only(&tenant), expected);
}

/// One operation of a checkpoint finds no room, or fails; the next one succeeds, and then the power goes.
#[test]
fn a_checkpoint_that_fails_forgets_no_file_that_is_to_be_synced() {
    let settings = DbSettings {
        shards: 2,
        checkpoint_bytes: 0,
        wal: WalSettings { segment_bytes: 64 << 10, ..WalSettings::default() },
        ..DbSettings::default()
    };
    let open =
        |disk: &Arc<MemoryDisk>| Db::open(disk.clone(), settings.clone(), BASE_MS, 7, &Inline).unwrap();
    let disk = Arc::new(MemoryDisk::new());
    let scrape = |i: i64| -> Vec<_> {
        (0..20).map(|s| float(s, BASE_MS + i * 15_000, (i * 7 + s as i64) as f64 * 0.37)).collect()
    };
    for (fault, operations) in [(0, 12u64), (1, 40)] {
        let mut struck = 0;
        for after in 0..operations {
            let disk = Arc::new(disk.fork());
            let (db, _) = open(&disk);
            let tenant = db.tenant(&id()).unwrap();
            // Two or so finished chunks a series, in memory or unsynced.
            for i in 0..300 {
                append(&tenant, &scrape(i)).unwrap();
            }
            db.commit().unwrap();
            let acked = select(&tenant, ALL_TIMES);
            // Under way when the disk fails; nobody was told of it.
            for i in 300..310 {
                append(&tenant, &scrape(i)).unwrap();
            }
            disk.inject(if fault == 0 { Fault::NoSpace { after } } else { Fault::Io { after } });
            let Ok(first) = maintain(&db, BASE_MS) else { continue };
            struck += u64::from(!first.problems.is_empty());
            disk.clear_faults();
            let Ok(second) = maintain(&db, BASE_MS) else { continue };
            assert!(second.problems.is_empty() && second.checkpoint, "{second:?}");
            drop((db, tenant));
            for seed in 0..3 {
                let copy = Arc::new(disk.fork());
                copy.crash(&mut StdRng::seed_from_u64(seed));
                let (db, recovery) = open(&copy);
                assert!(recovery.damage.is_empty(), "operation {after}: {recovery:?}");
                let found = select(&db.tenant(&id()).unwrap(), ALL_TIMES);
                for ((_, acked), (_, found)) in acked.iter().zip(&found) {
                    assert!(found.starts_with(acked), "operation {after}: {} {}", acked.len(), found.len());
                }
                assert_eq!(found.len(), acked.len());
            }
        }
        assert!(struck > 2, "{struck}");
    }
}

/// The system gives no further memory maps.
#[test]
fn head_chunks_that_cannot_be_mapped_are_safe_and_readable_and_writes_go_on() {
    let disk = HookDisk::new();
    let settings = DbSettings { shards: 1, checkpoint_bytes: 0, ..settings() };
    let open = || Db::open(disk.clone(), settings.clone(), BASE_MS, 7, &Inline).unwrap().0;
    let db = open();
    let tenant = db.tenant(&id()).unwrap();
    let no_maps = |what: &str, path: &Path| {
        let fails = what == "map" && path.starts_with(files::HEAD_DIR);
        if fails { Err(io::Error::from_raw_os_error(12)) } else { Ok(()) }
    };
    disk.set(no_maps);
    let values: Vec<f64> = (0..4_000).map(|i| f64::from(i * 7919 % 4001) * 0.1).collect();
    for (i, value) in (0i64..).zip(&values) {
        append(&tenant, &(0..20).map(|s| float(s, BASE_MS + i * 1_000, *value)).collect::<Vec<_>>()).unwrap();
        if i % 500 == 0 {
            db.commit().unwrap();
            assert!(maintain(&db, BASE_MS).unwrap().checkpoint, "what is written needs no map to be safe");
        }
    }
    let told = maintain(&db, BASE_MS).unwrap();
    assert!(told.problems.iter().any(|problem| problem.error.to_string().starts_with("map")), "{told:?}");
    let expected = select(&tenant, ALL_TIMES);
    assert_eq!((expected.len(), expected[0].1.len()), (20, values.len()));
    disk.clear();
    assert!(maintain(&db, BASE_MS).unwrap().problems.is_empty());
    assert_eq!(select(&tenant, ALL_TIMES), expected);
    drop((db, tenant));
    disk.inner.crash(&mut StdRng::seed_from_u64(1));
    assert_eq!(select(&open().tenant(&id()).unwrap(), ALL_TIMES).len(), 20);
}

/// Late samples come when the block has its name, to a series that it has and to one that it hasn't.
#[test]
fn late_samples_that_come_while_their_range_is_cut_stay_in_the_head() {
    let disk = HookDisk::new();
    let db = open_on(&disk);
    let tenant = db.tenant(&id()).unwrap();
    append(&tenant, &(0..20).map(|i| float(1, BASE_MS + i * 15_000, 1.0)).collect::<Vec<_>>()).unwrap();
    {
        let tenant = tenant.clone();
        disk.set(move |what, path| {
            if what == "renamed" && is_block(path) {
                append(&tenant, &[float(1, BASE_MS + 7_000, 2.0), float(2, BASE_MS + 7_000, 3.0)]).unwrap();
            }
            Ok(())
        });
    }
    db.flush(BASE_MS).unwrap();
    disk.clear();
    let lengths =
        |tenant: &Tenant| select(tenant, ALL_TIMES).iter().map(|(_, s)| s.len()).collect::<Vec<_>>();
    assert_eq!(lengths(&tenant), [21, 1]);
    db.commit().unwrap();
    drop((db, tenant));
    assert_eq!(lengths(&open_on(&disk).tenant(&id()).unwrap()), [21, 1]);
}
