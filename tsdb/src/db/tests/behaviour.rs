//! One behaviour at a time.

use rand::SeedableRng;
use rand::rngs::StdRng;
use ulid::Ulid;

use super::*;
use crate::db::ask::EVERY_BLOCK;
use crate::head::rule::RANGE_MS;
use crate::model::{MatchOp, stale_nan};
use crate::select::{Best, Need};
use crate::weight::Scale;

const BOUNDS: Bounds = Bounds {
    in_order_min_ms: BASE_MS - 24 * HOUR_MS,
    out_of_order_min_ms: BASE_MS - 2 * HOUR_MS,
    max_ms: BASE_MS + 600_000,
};

#[test]
fn ages_are_judged_by_the_bounds_alone() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    let outcome = |t| append_within(&tenant, &[float(0, t, 1.0)], BOUNDS).unwrap().0[0];
    assert_eq!(outcome(BOUNDS.in_order_min_ms - 1), Outcome::TooOld);
    assert_eq!(outcome(BOUNDS.max_ms + 1), Outcome::TooFarAhead);
    assert_eq!(outcome(BOUNDS.in_order_min_ms), Outcome::Stored);
    assert_eq!(outcome(BASE_MS), Outcome::Stored);
    assert_eq!(outcome(BOUNDS.out_of_order_min_ms), Outcome::Stored);
    assert_eq!(outcome(BOUNDS.out_of_order_min_ms - 1), Outcome::OutOfOrder);
    assert_eq!(outcome(i64::MIN), Outcome::TooOld);
    assert_eq!(outcome(i64::MAX), Outcome::TooFarAhead);
    // What is there already is an ack at any age.
    assert_eq!(outcome(BOUNDS.in_order_min_ms), Outcome::Duplicate);
}

#[test]
fn a_sample_sent_again_after_a_cut_is_in_order_however_late() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    let sample = float(0, BASE_MS, 1.0);
    append(&tenant, std::slice::from_ref(&sample)).unwrap();
    append(&tenant, &[float(1, BASE_MS, 1.0), float(1, BASE_MS + 1, 1.0)]).unwrap();
    db.flush(BASE_MS).unwrap();
    let bounds = Bounds { out_of_order_min_ms: BASE_MS + 1, ..BOUNDS };
    let outcome = |sample| append_within(&tenant, &[sample], bounds).unwrap().0[0];
    assert_eq!(outcome(sample), Outcome::Stored);
    assert_eq!(outcome(float(1, BASE_MS, 1.0)), Outcome::Duplicate);
    assert_eq!(outcome(float(1, BASE_MS - 1, 1.0)), Outcome::OutOfOrder);
    assert_eq!(
        select(&tenant, ALL_TIMES).iter().map(|(_, samples)| samples.len()).collect::<Vec<_>>(),
        [1, 2]
    );
}

#[test]
fn a_request_sent_again_is_all_duplicates() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    let samples: Vec<_> =
        (0..300).flat_map(|i| (0..3).map(move |s| float(s, BASE_MS + i * 15_000, i as f64))).collect();
    let (first, position) = append(&tenant, &samples).unwrap();
    assert!(first.iter().all(|o| *o == Outcome::Stored));
    let (second, again) = append(&tenant, &samples).unwrap();
    assert!(second.iter().all(|o| *o == Outcome::Duplicate));
    assert_eq!(again, position);
    assert!(db.commit().unwrap() >= again);
}

#[test]
fn of_two_values_at_one_time_the_preferred_one_stays_in_whatever_order() {
    for late in [false, true] {
        let (db, _) = open(&Arc::new(MemoryDisk::new()));
        let tenant = db.tenant(&id()).unwrap();
        let outcome = |value| append(&tenant, &[float(0, BASE_MS, value)]).unwrap().0[0];
        assert_eq!(outcome(stale_nan()), Outcome::Stored);
        if late {
            append(&tenant, &[float(0, BASE_MS + 1, 0.0)]).unwrap();
        }
        assert_eq!(outcome(1.0), Outcome::Stored);
        assert_eq!(outcome(2.0), Outcome::Stored);
        assert_eq!(outcome(1.0), Outcome::Superseded);
        assert_eq!(outcome(stale_nan()), Outcome::Superseded);
        assert_eq!(outcome(2.0), Outcome::Duplicate);
        assert_eq!(only(&tenant)[0], (BASE_MS, 2.0));
        db.flush(BASE_MS).unwrap();
        assert_eq!(only(&tenant)[0], (BASE_MS, 2.0));
    }
}

#[test]
fn a_range_is_cut_when_the_window_has_passed_and_late_samples_follow_in_a_block_of_their_own() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    let minute = |i: i64| float(0, BASE_MS + i * 60_000, i as f64);
    append(&tenant, &(0..240).map(minute).collect::<Vec<_>>()).unwrap();
    assert!(maintain(&db, BASE_MS).unwrap().cut.is_empty());
    append(&tenant, &[minute(240)]).unwrap();
    let done = maintain(&db, BASE_MS).unwrap();
    assert_eq!(done.cut.len(), 1);
    assert_eq!((done.cut[0].1.min_ms, done.cut[0].1.max_ms), (BASE_MS, BASE_MS + 2 * HOUR_MS));
    assert_eq!(done.cut[0].1.stats.num_samples, 120);
    assert!(done.checkpoint);
    append(&tenant, &[float(0, BASE_MS + 500, 7.0)]).unwrap();
    assert!(maintain(&db, BASE_MS + HOUR_MS / 2).unwrap().cut.is_empty());
    let done = maintain(&db, BASE_MS + HOUR_MS * 3 / 2).unwrap();
    assert_eq!(done.cut[0].1.min_ms, BASE_MS);
    assert_eq!(done.cut[0].1.stats.num_samples, 1);
    assert_eq!(only(&tenant).len(), 242);
}

#[test]
fn a_tenant_that_falls_silent_is_cut_after_an_hour_and_its_series_go() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    append(&tenant, &[float(0, BASE_MS, 1.0), float(1, BASE_MS, 1.0)]).unwrap();
    assert!(maintain(&db, BASE_MS).unwrap().cut.is_empty());
    let done = maintain(&db, BASE_MS + HOUR_MS).unwrap();
    assert_eq!(done.cut.len(), 1);
    // Once more: the first collection spares what was made a moment ago.
    append(&tenant, &[float(2, BASE_MS, 1.0)]).unwrap();
    db.flush(BASE_MS + HOUR_MS).unwrap();
    append(&tenant, &[float(3, BASE_MS, 1.0)]).unwrap();
    db.flush(BASE_MS + HOUR_MS).unwrap();
    assert!(tenant.series_count() <= 2, "{}", tenant.series_count());
    let mut found = Vec::new();
    tenant.lookup(&[key(0)], &mut found);
    assert_eq!(found, [SeriesRef::NONE]);
    assert_eq!(select(&tenant, ALL_TIMES).len(), 4);
}

#[test]
fn a_collected_series_is_unknown_and_comes_back_under_another_ref() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    let old = tenant.intern(key(0), &labels(0)).unwrap();
    let mut outcomes = Vec::new();
    let batch = [Append { series: old, sample: Sample::float(BASE_MS, 1.0) }];
    tenant.append(&batch, &Bounds::ALL, &mut outcomes).unwrap();
    for i in 1..4 {
        append(&tenant, &[float(i, BASE_MS, 1.0)]).unwrap();
        db.flush(BASE_MS).unwrap();
    }
    tenant.append(&batch, &Bounds::ALL, &mut outcomes).unwrap();
    assert_eq!(outcomes, [Outcome::UnknownSeries]);
    let new = tenant.intern(key(0), &labels(0)).unwrap();
    assert_ne!(old, new);
}

#[test]
fn a_tenants_series_are_limited_and_known_ones_go_on() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    tenant.configure(TenantSettings { series_max: 2, ..TenantSettings::default() });
    tenant.intern(key(0), &labels(0)).unwrap();
    tenant.intern(key(1), &labels(1)).unwrap();
    assert!(matches!(tenant.intern(key(2), &labels(2)), Err(Error::Limit(_))));
    tenant.intern(SeriesKey(99), &labels(1)).unwrap();
}

#[test]
fn no_tenant_sees_anothers_series() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let a = db.tenant(&id()).unwrap();
    let b = db.tenant(&TenantId::new("b").unwrap()).unwrap();
    append(&a, &[float(0, BASE_MS, 1.0)]).unwrap();
    append(&b, &[float(0, BASE_MS, 2.0)]).unwrap();
    assert_eq!(only(&a), [(BASE_MS, 1.0)]);
    assert_eq!(only(&b), [(BASE_MS, 2.0)]);
    let own = a.intern(key(0), &labels(0)).unwrap();
    let mut outcomes = Vec::new();
    let batch = [Append { series: own, sample: Sample::float(BASE_MS + 1, 1.0) }];
    b.append(&batch, &Bounds::ALL, &mut outcomes).unwrap();
    assert_eq!(outcomes, [Outcome::UnknownSeries]);
}

#[test]
fn labels_are_found_in_head_and_blocks() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    append(&tenant, &[float(0, BASE_MS, 1.0)]).unwrap();
    db.flush(BASE_MS).unwrap();
    append(&tenant, &[float(1, BASE_MS + 3 * HOUR_MS, 1.0)]).unwrap();
    assert_eq!(tenant.label_names(&[], ALL_TIMES, 0).unwrap(), ["__name__", "i"]);
    assert_eq!(tenant.label_names(&[], ALL_TIMES, 1).unwrap(), ["__name__"]);
    assert_eq!(tenant.label_values("i", &[], ALL_TIMES, 0).unwrap(), ["0", "1"]);
    assert_eq!(tenant.label_values("i", &[Matcher::equal("i", "1")], ALL_TIMES, 0).unwrap(), ["1"]);
    assert_eq!(tenant.label_values("i", &[], BASE_MS..=BASE_MS, 0).unwrap(), ["0"]);
    assert_eq!(
        tenant.series(&[Matcher::equal("__name__", "m")], ALL_TIMES, 0).unwrap(),
        [labels(0), labels(1)]
    );
}

/// Chunks of every kind, in the head and in blocks, and each window around the times where they begin and end.
#[test]
fn a_series_is_listed_for_the_windows_that_its_chunks_overlap_and_no_others() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    let minute = |series, i: i64, value| float(series, BASE_MS + i * 60_000, value);
    // One sample; a finished chunk and nothing behind it; one and an open one after a gap; one that went stale; late ones.
    append(&tenant, &[minute(0, 10, 1.0)]).unwrap();
    for (series, many) in [(1, 240), (2, 100), (3, 30)] {
        let samples = (0..many).map(|i| float(series, BASE_MS + i * 10_000, 1.0));
        append(&tenant, &samples.collect::<Vec<_>>()).unwrap();
    }
    append(&tenant, &[minute(2, 80, 1.0), minute(2, 81, 1.0), minute(3, 6, stale_nan())]).unwrap();
    append(&tenant, &[minute(4, 50, 1.0)]).unwrap();
    let late = (0..70).map(|i| float(4, BASE_MS + 20 * 60_000 + i * 1_000, 1.0));
    append(&tenant, &late.collect::<Vec<_>>()).unwrap();
    // In order, each series' samples as they are.
    let times: Vec<Vec<i64>> = select(&tenant, ALL_TIMES)
        .iter()
        .map(|(_, samples)| samples.iter().map(|s| s.timestamp_ms).collect())
        .collect();
    let matchers = [Matcher::equal("__name__", "m")];
    let chunks_of = || {
        let question = Select { matchers: matchers.to_vec(), range_ms: ALL_TIMES, shard: None };
        let found = tenant.select(&question).unwrap();
        let spans = |series: &crate::select::Series| {
            series.chunks.iter().map(|chunk| (chunk.min_ms, chunk.max_ms)).collect::<Vec<_>>()
        };
        found.iter().map(spans).collect::<Vec<_>>()
    };
    for is_cut in [false, true] {
        if is_cut {
            db.flush(BASE_MS).unwrap();
            assert_eq!(tenant.stats().head_samples, 0);
        }
        let chunks = chunks_of();
        assert!(chunks[1].len() > 1 && chunks[4].len() > 1, "{chunks:?}");
        for start in -2..130 {
            for (offset_ms, minutes) in [(0, 0), (1, 0), (-1, 3), (1, 5), (1, 200)] {
                let from_ms = BASE_MS + start * 60_000 + offset_ms;
                let window = from_ms..=from_ms + minutes * 60_000;
                let listed = tenant.series(&matchers, window.clone(), 0).unwrap();
                let listed: Vec<usize> = listed.iter().map(|l| l.value("i").parse().unwrap()).collect();
                let meets =
                    |(min_ms, max_ms): &(i64, i64)| min_ms <= window.end() && window.start() <= max_ms;
                let expected: Vec<usize> =
                    (0..5).filter(|series| chunks[*series].iter().any(meets)).collect();
                assert_eq!(
                    listed, expected,
                    "cut {is_cut}, from {start} min and {offset_ms} ms, {minutes} min"
                );
                // So whoever ended before the window isn't listed, nor whoever begins after it.
                assert!(listed.iter().all(|series| {
                    times[*series][0] <= *window.end() && window.start() <= times[*series].last().unwrap()
                }));
            }
        }
    }
}

#[test]
fn exemplars_and_metadata_survive_a_restart() {
    let disk = Arc::new(MemoryDisk::new());
    let exemplar = |t| Exemplar { timestamp_ms: t, value: 1.0, labels: labels(9) };
    let metadata = Metadata { family: "m".to_owned(), kind: "counter".to_owned(), ..Metadata::default() };
    for (round, seal) in [(1, false), (2, true), (3, false)] {
        let (db, _) = open(&disk);
        let tenant = db.tenant(&id()).unwrap();
        append(&tenant, &[float(0, BASE_MS + round, 1.0)]).unwrap();
        let series = tenant.intern(key(0), &labels(0)).unwrap();
        tenant.append_exemplars(&[(series, exemplar(round)), (series, exemplar(round))]).unwrap();
        tenant.append_metadata(std::slice::from_ref(&metadata)).unwrap();
        db.commit().unwrap();
        if seal {
            db.seal().unwrap();
        }
        let (db, _) = open(&disk);
        let tenant = db.tenant(&id()).unwrap();
        let found = tenant.exemplars(&[Matcher::equal("i", "0")], ALL_TIMES).unwrap();
        assert_eq!(found.len(), 1);
        let times: Vec<_> = found[0].exemplars.iter().map(|e| e.timestamp_ms).collect();
        assert_eq!(times, (1..=round).collect::<Vec<_>>());
        assert_eq!(tenant.metadata(None, 0), std::slice::from_ref(&metadata));
    }
}

#[test]
fn a_full_disk_refuses_samples_and_recovers_by_itself() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    append(&tenant, &[float(0, BASE_MS, 1.0)]).unwrap();
    db.commit().unwrap();
    disk.set_capacity(Some(0));
    let mut refused = false;
    for i in 1..40_000 {
        match append(&tenant, &[float(0, BASE_MS + i, i as f64 * 0.1), float(1, BASE_MS + i, i as f64 * 0.1)])
        {
            Ok(_) if i % 100 == 0 => {
                refused |= matches!(db.commit(), Err(Error::NoSpace(_)));
            }
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error, Error::NoSpace(_)), "{error}");
                refused = true;
                break;
            }
        }
    }
    assert!(refused);
    let before = select(&tenant, ALL_TIMES);
    disk.set_capacity(None);
    db.commit().unwrap();
    assert!(maintain(&db, BASE_MS).unwrap().problems.is_empty());
    append(&tenant, &[float(0, BASE_MS + HOUR_MS, 1.0)]).unwrap();
    db.commit().unwrap();
    drop((db, tenant));
    disk.crash(&mut StdRng::seed_from_u64(1));
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    let after = select(&tenant, ALL_TIMES);
    assert_eq!(after[0].1.len(), before[0].1.len() + 1);
    assert_eq!(after[1], before[1]);
}

#[test]
fn a_damaged_checkpoint_loses_nothing() {
    let disk = Arc::new(MemoryDisk::new());
    let mut expected = 0;
    for round in 0..3 {
        let (db, _) = open(&disk);
        let tenant = db.tenant(&id()).unwrap();
        let samples: Vec<_> = (0..100).map(|i| float(0, BASE_MS + round * 1000 + i, 1.0)).collect();
        append(&tenant, &samples).unwrap();
        expected += 100;
        db.seal().unwrap();
    }
    for index in 0..4 {
        let dir = files::head_shard(index);
        let newest =
            disk.list(&dir).unwrap().into_iter().filter_map(|e| files::parse_checkpoint(&e.name)).max();
        disk.flip(&files::checkpoint(&dir, newest.unwrap()), 20, 4).unwrap();
    }
    let (db, recovery) = open(&disk);
    assert_eq!(recovery.damage.len(), 4);
    assert_eq!(only(&db.tenant(&id()).unwrap()).len(), expected);
}

#[test]
fn a_damaged_head_chunk_is_reported_with_its_times_and_costs_only_itself() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    let samples: Vec<_> = (0..480).map(|i| float(0, BASE_MS + i * 15_000, i as f64)).collect();
    append(&tenant, &samples).unwrap();
    db.seal().unwrap();
    drop((db, tenant));
    for index in 0..4 {
        let dir = files::head_shard(index);
        if disk.size_bytes(&files::head_chunks(&dir, 1)).unwrap().is_some() {
            disk.flip(&files::head_chunks(&dir, 1), 40, 4).unwrap();
        }
    }
    let (db, recovery) = open(&disk);
    assert_eq!(recovery.damage.len(), 1);
    assert_eq!(recovery.damage[0].tenant, Some(id()));
    let times_ms = recovery.damage[0].times_ms.clone().unwrap();
    assert!(times_ms.contains(&BASE_MS) && times_ms.contains(&(BASE_MS + HOUR_MS / 2 - 15_000)));
    let rest = only(&db.tenant(&id()).unwrap());
    assert_eq!(rest.first(), Some(&(BASE_MS + HOUR_MS / 2, 120.0)));
    assert_eq!(rest.len(), 360);
}

#[test]
fn the_wal_and_the_heads_files_do_not_grow_for_ever() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    for i in 0..2000i64 {
        let samples: Vec<_> =
            (0..50).map(|s| float(s, BASE_MS + i * 60_000, (i * 7919 % 1000) as f64 * 0.1)).collect();
        append(&tenant, &samples).unwrap();
        if i % 20 == 0 {
            db.commit().unwrap();
            maintain(&db, BASE_MS + i * 60_000).unwrap();
        }
    }
    let stats = db.stats();
    assert!(stats.wal.segments <= 4, "{stats:?}");
    for index in 0..4 {
        let names = disk.list(&files::head_shard(index)).unwrap();
        assert!(names.len() <= 2 + 3, "{names:?}");
    }
    assert_eq!(tenant.stats().blocks, 2000 / 120 - 1);
}

#[test]
fn writers_readers_and_cuts_at_once_lose_nothing_and_show_nothing_twice() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    let minutes = 700i64;
    std::thread::scope(|scope| {
        for writer in 0..3usize {
            let (db, tenant) = (&db, &tenant);
            scope.spawn(move || {
                for i in 0..minutes {
                    let samples: Vec<_> =
                        (0..20).map(|s| float(writer * 20 + s, BASE_MS + i * 60_000, i as f64)).collect();
                    let (outcomes, position) = append(tenant, &samples).unwrap();
                    assert!(outcomes.iter().all(|o| *o == Outcome::Stored), "{outcomes:?}");
                    if i % 16 == 0 {
                        assert!(db.commit().unwrap() >= position);
                    }
                }
            });
        }
        let (db, tenant) = (&db, &tenant);
        scope.spawn(move || {
            for i in 0..100 {
                maintain(db, BASE_MS + i).unwrap();
                std::thread::yield_now();
            }
        });
        scope.spawn(move || {
            let mut least = 0;
            for _ in 0..60 {
                let found = select(tenant, ALL_TIMES);
                let mut count = 0;
                for (_, samples) in &found {
                    // Each series grows minute by minute, so there is no gap in what is there.
                    assert!(samples.iter().zip(0..).all(|(s, i)| s.timestamp_ms == BASE_MS + i * 60_000));
                    count += samples.len();
                }
                assert!(count >= least);
                least = count;
            }
        });
    });
    let done = maintain(&db, BASE_MS).unwrap();
    assert!(done.problems.is_empty());
    let found = select(&tenant, ALL_TIMES);
    assert_eq!(found.len(), 60);
    assert!(found.iter().all(|(_, samples)| samples.len() == minutes as usize));
}

#[test]
fn a_cut_between_a_look_at_the_head_and_the_blocks_shows_no_gap() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    append(&tenant, &[float(0, BASE_MS, 0.0)]).unwrap();
    let matchers = vec![Matcher::equal("__name__", "m")];
    let select = Select { matchers, range_ms: ALL_TIMES, shard: None };
    let mut looks = 0;
    let (in_head, blocks) = tenant
        .view(&ALL_TIMES, &EVERY_BLOCK, || {
            let found = tenant.select_head(&select, &mut |_| true);
            looks += 1;
            if looks == 1 {
                // The block has the later sample only.
                let more = [float(0, BASE_MS + 60_000, 1.0), float(0, BASE_MS + RANGE_MS, 2.0)];
                append(&tenant, &more).unwrap();
                tenant.cut(BASE_MS + RANGE_MS, Ulid::from_parts(1, 1)).unwrap();
            }
            found
        })
        .unwrap();
    assert_eq!((looks, blocks.len()), (2, 1));
    assert_eq!(in_head[0].samples().unwrap().len(), 2);

    // However fast blocks come: none comes while the head is looked at once more.
    let mut looks = 0;
    let (block, other) = (&blocks[0], &*tenant);
    let came = std::thread::scope(|scope| {
        let look = || {
            looks += 1;
            match looks {
                1 => other.show_block(block),
                _ => drop(scope.spawn(move || other.show_block(block))),
            }
            Ok(other.blocks.load().len())
        };
        tenant.view(&ALL_TIMES, &EVERY_BLOCK, look).map(|(at_look, blocks)| (at_look, blocks.len())).unwrap()
    });
    assert_eq!((looks, came), (2, (2, 2)));
    assert_eq!(tenant.blocks.load().len(), 3, "the last one waited");
}

#[test]
fn what_is_to_be_read_is_told_without_reading_it() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    for i in 0..1_000i64 {
        let samples: Vec<_> = (0..5).map(|s| float(s, BASE_MS + i * 15_000, i as f64)).collect();
        append(&tenant, &samples).unwrap();
    }
    append(&tenant, &[float(0, BASE_MS + 3 * HOUR_MS + 1, 9.0)]).unwrap();
    let matchers = [Matcher::equal("__name__", "m")];
    let weight = |range_ms: RangeInclusive<i64>| {
        let mut scale = Scale::new(range_ms);
        let counts = |labels: &Labels| labels.get("i") != Some("4");
        tenant.weigh(&matchers, &EVERY_BLOCK, &counts, &mut scale).unwrap();
        scale.weight()
    };
    let read = |range_ms: RangeInclusive<i64>| {
        let select = Select { matchers: matchers.to_vec(), range_ms, shard: None };
        let mut found = tenant.select(&select).unwrap();
        found.retain(|series| series.labels.get("i") != Some("4"));
        let chunks: Vec<_> = found.iter().flat_map(|series| &series.chunks).collect();
        (found.len() as u64, chunks.len() as u64, chunks.iter().map(|c| c.data.len() as u64).sum::<u64>())
    };
    for cut in [false, true] {
        if cut {
            maintain(&db, BASE_MS).unwrap();
            assert_eq!(tenant.stats().blocks, 1);
        }
        for hours in [0..=4, 0..=1, 2..=2, 3..=3] {
            let range_ms = BASE_MS + hours.start() * HOUR_MS..=BASE_MS + hours.end() * HOUR_MS;
            let (series, chunks, bytes) = read(range_ms.clone());
            let weight = weight(range_ms.clone());
            assert_eq!((weight.series, weight.chunks), (series, chunks), "{cut} {hours:?}");
            assert!(weight.bytes.abs_diff(bytes) <= bytes / 4, "{cut} {hours:?}: {} {bytes}", weight.bytes);
            let samples: usize = select(&tenant, range_ms)
                .iter()
                .filter(|(labels, _)| labels.get("i") != Some("4"))
                .map(|(_, samples)| samples.len())
                .sum();
            let most = samples / 10 + 2 * chunks as usize;
            assert!(
                weight.samples.abs_diff(samples as u64) <= most as u64,
                "{hours:?}: {samples}, {weight:?}"
            );
        }
    }
    let all = [Matcher::new(MatchOp::NotEqual, "x", "y").unwrap()];
    assert!(tenant.weigh(&all, &EVERY_BLOCK, &|_| true, &mut Scale::new(ALL_TIMES)).is_err());
}

#[test]
fn answers_are_sorted_and_whole_while_series_come_and_go() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    for round in 0..4usize {
        let samples: Vec<_> =
            (0..600).map(|i| float((i * 7919 + round) % 3_000, BASE_MS + round as i64, 1.0)).collect();
        append(&tenant, &samples).unwrap();
        // A question that misses the list, one that maintenance has made it for, one after a series more.
        let expected = select(&tenant, ALL_TIMES);
        maintain(&db, BASE_MS + round as i64 * 20_000).unwrap();
        assert_eq!(select(&tenant, ALL_TIMES), expected);
        append(&tenant, &[float(5_000 + round, BASE_MS, 1.0)]).unwrap();
        assert_eq!(select(&tenant, ALL_TIMES).len(), expected.len() + 1);
    }
}

#[test]
fn a_mark_is_flushed_when_all_that_came_before_it_is_in_blocks() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    assert!(db.is_flushed(db.mark()), "an empty database");
    let tenant = db.tenant(&id()).unwrap();
    append(&tenant, &[float(0, BASE_MS, 1.0), float(0, BASE_MS + 3 * HOUR_MS, 1.0)]).unwrap();
    let mark = db.mark();
    assert!(!db.is_flushed(mark));
    // A disk that is full ends the cut, and changes nothing.
    disk.set_capacity(Some(0));
    assert!(!db.flush(BASE_MS).unwrap().problems.is_empty());
    assert!(!db.is_flushed(mark));
    disk.set_capacity(None);
    db.commit().unwrap();
    assert!(db.flush(BASE_MS).unwrap().problems.is_empty());
    assert!(db.is_flushed(mark));
    assert_eq!(db.local_blocks().len(), 2);
    assert!(db.local_blocks().iter().all(|block| block.tenant == id()));
    // What comes later concerns later marks only.
    append(&tenant, &[float(0, BASE_MS + 1, 1.0)]).unwrap();
    assert!(db.is_flushed(mark));
    let later = db.mark();
    assert!(!db.is_flushed(later));
    db.commit().unwrap();
    drop((db, tenant));
    let (db, _) = open(&disk);
    assert!(!db.is_flushed(db.mark()), "the head is restored");
    db.flush(BASE_MS).unwrap();
    assert!(db.is_flushed(db.mark()));
}

#[test]
fn blocks_can_be_left_out_of_an_answer() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    append(&tenant, &[float(0, BASE_MS, 1.0), float(1, BASE_MS + 2 * HOUR_MS, 1.0)]).unwrap();
    db.flush(BASE_MS).unwrap();
    append(&tenant, &[float(2, BASE_MS + 4 * HOUR_MS, 1.0)]).unwrap();
    let first = db.local_blocks()[0].meta.ulid;
    let matchers = vec![Matcher::equal("__name__", "m")];
    let question = Select { matchers: matchers.clone(), range_ms: ALL_TIMES, shard: None };
    for (skip, left) in [(None, vec!["0", "1", "2"]), (Some(first), vec!["1", "2"])] {
        let skip = |ulid| Some(ulid) == skip;
        let found = tenant.select_without(&question, &skip).unwrap();
        assert_eq!(found.iter().map(|s| s.labels.value("i")).collect::<Vec<_>>(), left);
        // A series that stays in the head without samples isn't seen either.
        let found = tenant.series_without(&matchers, ALL_TIMES, 0, &skip).unwrap();
        assert_eq!(found.iter().map(|labels| labels.value("i")).collect::<Vec<_>>(), left);
        maintain(&db, BASE_MS).unwrap();
        let values = tenant.label_values_without("i", &[], ALL_TIMES, 0, &skip).unwrap();
        assert!(left.iter().all(|value| values.iter().any(|found| found == value)));
        assert_eq!(tenant.label_names_without(&[], ALL_TIMES, 0, &skip).unwrap(), ["__name__", "i"]);
    }
}

#[test]
fn every_series_is_handed_out_once_however_many_there_are() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    let samples: Vec<_> = (0..40_000).map(|i| float(i, BASE_MS, 1.0)).collect();
    append(&tenant, &samples).unwrap();
    db.flush(BASE_MS).unwrap();
    // Half of them again, late and in order.
    let again: Vec<_> =
        (0..20_000).map(|i| float(i, BASE_MS + if i % 2 == 0 { 1 } else { 2 * HOUR_MS }, 1.0)).collect();
    append(&tenant, &again).unwrap();
    let mut seen = BTreeMap::new();
    let mut take = |series: crate::select::Series| {
        let samples = series.samples().unwrap().len();
        assert!(seen.insert(series.labels.value("i").to_owned(), samples).is_none());
        Ok(())
    };
    let times_ms = BASE_MS..=BASE_MS + WINDOW_MS - 1;
    tenant.each_series(&times_ms, &mut |labels| labels.value("i") != "7", &mut take).unwrap();
    assert_eq!(seen.len(), 39_999);
    assert_eq!((seen["2"], seen["3"]), (2, 1));
}

#[test]
fn series_that_cannot_be_among_the_best_are_left_out_once_their_order_is_known() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let tenant = db.tenant(&id()).unwrap();
    let value = |series: usize| (series * 7919 % 1000) as f64;
    append(&tenant, &(0..1000).map(|i| float(i, BASE_MS, value(i))).collect::<Vec<_>>()).unwrap();
    let select = Select {
        matchers: vec![Matcher::equal("__name__", "m")],
        range_ms: BASE_MS - 60_000..=BASE_MS,
        shard: None,
    };
    let best = Best { count: 3, greatest: true };
    let need = Need { newest: true, best: Some(best), ..Need::default() };
    let asked = || -> Vec<(Labels, f64)> {
        let found = tenant.select_needed(&select, &need).unwrap();
        found.into_iter().map(|series| (series.labels, series.newest.unwrap().1)).collect()
    };
    assert_eq!(asked().len(), 1000);
    maintain(&db, BASE_MS).unwrap();
    let all = tenant.select_needed(&select, &Need { best: None, ..need.clone() }).unwrap();
    // As `topk` goes through them: whoever is greater than the least of three.
    let mut greatest: Vec<f64> = Vec::new();
    let mut expected = Vec::new();
    for series in all {
        let value = series.newest.unwrap().1;
        if greatest.len() < 3 || value > greatest[0] {
            greatest.push(value);
            greatest.sort_by(f64::total_cmp);
            greatest.drain(..greatest.len().saturating_sub(3));
            expected.push((series.labels, value));
        }
    }
    assert!(expected.len() < 100);
    assert_eq!(asked(), expected);
    // Of one whose place is not known nobody can tell who came before it.
    append(&tenant, &[float(1000, BASE_MS, 5.0)]).unwrap();
    assert_eq!(asked().len(), 1001);
}

#[test]
fn a_tenant_finds_no_series_by_the_key_of_anothers() {
    let (db, _) = open(&Arc::new(MemoryDisk::new()));
    let [one, other] = ["one", "other"].map(|name| db.tenant(&TenantId::new(name).unwrap()).unwrap());
    let found = |tenant: &Tenant| {
        let mut found = Vec::new();
        tenant.lookup(&[key(0)], &mut found);
        found[0]
    };
    append(&one, &[float(0, BASE_MS, 1.0)]).unwrap();
    assert!(!found(&one).is_none() && found(&other).is_none());
    append(&other, &[float(0, BASE_MS, 2.0)]).unwrap();
    assert_ne!(found(&one), found(&other));
    assert_eq!((only(&one), only(&other)), (vec![(BASE_MS, 1.0)], vec![(BASE_MS, 2.0)]));
}
