//! What is acked rests on the log: whatever fails, and whoever sends the same sample meanwhile.

use std::sync::atomic::Ordering;

use super::*;
use crate::Error;
use crate::disk::Fault;
use crate::head::append::{LOG_BYTES_MAX, Log, Terms};
use crate::model::{IntHistogram, Span, Value};
use crate::wal::record::histograms::HISTOGRAM_BYTES_MAX;
use crate::wal::{PAYLOAD_BYTES_MAX, TIMELESS};

/// A histogram whose counts take nine bytes each.
fn wide(timestamp_ms: i64, buckets: u32) -> Sample {
    let positive_buckets: Vec<u64> = (0..buckets).map(|i| (u64::from(i % 2) + 1) << 61).collect();
    let positive_spans = vec![Span { offset: 0, length: buckets }];
    let histogram = IntHistogram { count: u64::MAX, positive_spans, positive_buckets, ..Default::default() };
    Sample { timestamp_ms, start_ms: 0, value: Value::Int(Arc::new(histogram)) }
}

fn reopened(disk: &Arc<MemoryDisk>) -> Db {
    disk.kill();
    let (db, recovery) = open(disk);
    assert!(!recovery.is_loss() && recovery.damage.is_empty());
    db
}

#[test]
fn a_request_larger_than_a_record_is_stored_and_holds_nobody_up() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let (tenant, other) = (db.tenant(&id()).unwrap(), db.tenant(&TenantId::new("other").unwrap()).unwrap());
    let buckets = 300_000;
    assert!(10 * buckets < HISTOGRAM_BYTES_MAX);
    let large: Vec<_> = (0..8).map(|i| (0, wide(BASE_MS + i, buckets as u32))).collect();
    assert!(9 * buckets * large.len() > PAYLOAD_BYTES_MAX);
    let (outcomes, position) = append(&tenant, &large).unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored));
    append(&other, &[float(0, BASE_MS, 1.0)]).unwrap();
    assert!(db.commit().unwrap() >= position);
    drop((db, tenant, other));
    let db = reopened(&disk);
    let found = select(&db.tenant(&id()).unwrap(), ALL_TIMES);
    assert_eq!(found[0].1.len(), large.len());
    assert_eq!(select(&db.tenant(&TenantId::new("other").unwrap()).unwrap(), ALL_TIMES)[0].1.len(), 1);
}

#[test]
fn many_samples_of_a_request_go_to_the_log_in_parts() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    // Of one series, as of a sender with a backlog, and twice as many as one log takes.
    let count = 2 * LOG_BYTES_MAX as i64 / 39 + 1_000;
    let many: Vec<_> = (0..count).map(|i| float(0, BASE_MS + 40 * i, (i as f64).sin())).collect();
    let (outcomes, position) = append(&tenant, &many).unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored));
    assert!(db.commit().unwrap() >= position);
    drop((db, tenant));
    assert_eq!(select(&reopened(&disk).tenant(&id()).unwrap(), ALL_TIMES)[0].1.len(), many.len());
}

#[test]
fn what_no_record_has_room_for_is_refused_before_the_head_has_it() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    let batch = [(0, wide(BASE_MS, HISTOGRAM_BYTES_MAX as u32 / 10)), float(1, BASE_MS, 1.0)];
    let (outcomes, _) = append(&tenant, &batch).unwrap();
    assert_eq!(outcomes, [Outcome::TooLarge, Outcome::Stored]);
    let long = "x".repeat(SERIES_LABELS_BYTES_MAX);
    let refused = tenant.intern(key(9), &Labels::from_sorted([("__name__", long.as_str())]));
    assert!(matches!(refused, Err(Error::Invalid(_))));
    append(&tenant, &[float(1, BASE_MS + 1, 1.0)]).unwrap();
    assert_eq!(select(&tenant, ALL_TIMES).len(), 1);
}

#[test]
fn labels_of_a_request_that_meets_a_new_segment_are_split_too() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    let series = 24;
    let text = |i: usize| format!("{i:03}{}", "x".repeat(SERIES_LABELS_BYTES_MAX - 100));
    let names: Vec<_> = (0..series)
        .map(|i| Labels::from_pairs([("__name__", "m"), ("i", text(i).as_str())]).unwrap())
        .collect();
    assert!(series * SERIES_LABELS_BYTES_MAX > PAYLOAD_BYTES_MAX);
    let refs: Vec<_> = names.iter().enumerate().map(|(i, l)| tenant.intern(key(i), l).unwrap()).collect();
    for round in 0..3 {
        let sample = Sample::float(BASE_MS + round, 0.0);
        let batch: Vec<_> =
            refs.iter().map(|series| Append { series: *series, sample: sample.clone() }).collect();
        let mut outcomes = Vec::new();
        tenant.append(&batch, &Bounds::ALL, &mut outcomes).unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored));
        db.commit().unwrap();
    }
    drop((db, tenant));
    let found = select(&reopened(&disk).tenant(&id()).unwrap(), ALL_TIMES);
    assert!(found.len() == series && found.iter().all(|(_, samples)| samples.len() == 3));
}

/// A sample reaches the head and not the log. Whoever waited for the shard meanwhile to send the same sample, another
/// value of its time, or one that is fine, gets no ack for anything.
#[test]
#[allow(clippy::disallowed_methods, reason = "threads are what is tested")]
fn a_sample_that_the_log_refused_is_nobodys_duplicate() {
    for value in [1.0, 0.0] {
        let disk = Arc::new(MemoryDisk::new());
        let (db, _) = open(&disk);
        let tenant = db.tenant(&id()).unwrap();
        // Two series of two shards, in the order in which an append comes to them.
        let mut refs: Vec<_> = (0..20).map(|i| tenant.intern(key(i), &labels(i)).unwrap()).collect();
        refs.sort_by_key(|series| db.core.shard_of_ref(*series));
        let (first, last) = (refs[0], refs[19]);
        let shard_of_last = &db.core.shards[db.core.shard_of_ref(last)];
        assert_ne!(db.core.shard_of_ref(first), db.core.shard_of_ref(last));
        let sent = |value| Sample::float(BASE_MS, value);
        std::thread::scope(|scope| {
            let mut shard = shard_of_last.write();
            let before = db.core.wal.appended_bytes();
            let waiting = scope.spawn(|| {
                let batch = [first, last].map(|series| Append { series, sample: sent(value) });
                let mut outcomes = Vec::new();
                let appended = tenant.append(&batch, &Bounds::ALL, &mut outcomes);
                (appended, outcomes)
            });
            // It is past the first shard, and waits for the second.
            while db.core.wal.appended_bytes() == before {
                std::thread::yield_now();
            }
            let batch = [Append { series: last, sample: sent(1.0) }];
            let terms = Terms {
                tenant: tenant.index,
                bounds: Bounds::ALL,
                cut_until_ms: i64::MIN,
                segment: db.core.wal.segment(),
                writes: crate::chunk::Writes::Classic,
            };
            let (mut outcomes, mut log) = ([Outcome::UnknownSeries], Log::default());
            assert_eq!(shard.append(terms, &batch, &[0], &mut outcomes, &mut log), 1);
            // What `Core::log` does where the WAL refuses.
            db.core.unlogged.fetch_add(1, Ordering::AcqRel);
            drop(shard);
            let (appended, outcomes) = waiting.join().unwrap();
            assert!(matches!(appended, Err(Error::Busy(_))), "{appended:?} {outcomes:?}");
        });
        // A checkpoint makes it good.
        maintain(&db, BASE_MS).unwrap();
        let (outcomes, _) = append(&tenant, &[(0, sent(1.0))]).unwrap();
        assert!(outcomes[0].is_ack());
    }
}

/// Whatever keeps the log from taking a request, no ack of it or of the same sample again is lost with the power.
#[test]
fn no_ack_outlives_what_the_log_lacks() {
    let small = || DbSettings {
        wal: WalSettings { segment_bytes: 64 << 10, pending_bytes_max: 4 << 10, ..WalSettings::default() },
        ..settings()
    };
    let open = |disk: &Arc<MemoryDisk>| Db::open(disk.clone(), small(), BASE_MS, 7, &Inline).unwrap().0;
    for fault in
        [|after| Fault::Io { after }, |after| Fault::Sync { after }, |after| Fault::NoSpace { after }]
    {
        for after in 0..6 {
            let disk = Arc::new(MemoryDisk::new());
            let db = open(&disk);
            let tenant = db.tenant(&id()).unwrap();
            append(&tenant, &[float(0, BASE_MS, 0.0)]).unwrap();
            db.commit().unwrap();
            disk.inject(fault(after));
            let mut acked = Vec::new();
            for step in 0..40 {
                let t = BASE_MS + 1 + step / 2 * 200;
                // Each twice; together they need commits in the midst of an append.
                let samples: Vec<_> = (0..200).map(|i| float(0, t + i, (t + i) as f64 / 7.0)).collect();
                if let Ok((outcomes, position)) = append(&tenant, &samples)
                    && db.commit().is_ok_and(|durable| durable >= position)
                {
                    assert!(outcomes.iter().all(|outcome| outcome.is_ack()));
                    acked.extend(samples.iter().map(|(_, sample)| sample.timestamp_ms));
                }
            }
            assert!(disk.struck() > 0, "the fault was never met");
            drop((db, tenant));
            disk.kill();
            let db = open(&disk);
            let found = only(&db.tenant(&id()).unwrap());
            acked.retain(|t| !found.iter().any(|(found, _)| found == t));
            assert!(acked.is_empty(), "{after}: {} acked samples are gone", acked.len());
        }
    }
}

#[test]
fn a_full_disk_is_noticed_before_the_head_changes() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    append(&tenant, &[float(0, BASE_MS, 0.0)]).unwrap();
    disk.inject(Fault::NoSpace { after: 0 });
    assert!(matches!(db.commit(), Err(Error::NoSpace(_))));
    assert!(matches!(append(&tenant, &[float(0, BASE_MS + 1, 1.0)]), Err(Error::NoSpace(_))));
    assert_eq!(only(&tenant), [(BASE_MS, 0.0)]);
    // With room again nothing has to be made good first.
    db.commit().unwrap();
    append(&tenant, &[float(0, BASE_MS + 1, 1.0)]).unwrap();
}

/// Where others fill the log's buffer again and again, a request that has reached the head isn't turned away.
#[test]
fn a_buffer_that_others_fill_again_turns_nobody_away() {
    let disk = Arc::new(MemoryDisk::new());
    let settings = WalSettings { pending_bytes_max: 100, ..WalSettings::default() };
    let dir = Path::new("wal");
    let (wal, _) = crate::wal::Wal::open(disk, dir, settings, &mut |_| Ok(()), WalPosition::START).unwrap();
    let tenant = id();
    let payload = [0; 200];
    let (min_ms, max_ms) = TIMELESS;
    let frame = crate::wal::Frame {
        kind: crate::wal::RecordKind::Floats,
        tenant: &tenant,
        shard: 0,
        min_ms,
        max_ms,
        payload: &payload,
    };
    assert!(wal.append(None, &[frame]).is_ok());
    assert!(matches!(wal.append(None, &[frame]), Err(Error::Limit(_))));
    let crate::wal::Appended::At(position) = wal.append_over(None, &[frame]).unwrap() else { unreachable!() };
    assert_eq!(wal.commit().unwrap(), position);
}

#[test]
fn samples_that_the_log_refused_are_cut_all_the_same() {
    let disk = Arc::new(MemoryDisk::new());
    let settings =
        DbSettings { wal: WalSettings { pending_bytes_max: 2_000, ..settings().wal }, ..settings() };
    let (db, _) = Db::open(disk.clone(), settings, BASE_MS, 7, &Inline).unwrap();
    let tenant = db.tenant(&id()).unwrap();
    // The buffer is full, so the next append commits, and meets an error.
    let many: Vec<_> = (0..200).map(|i| float(0, BASE_MS + i, (i as f64).sin())).collect();
    append(&tenant, &many).unwrap();
    disk.inject(Fault::NoSpace { after: 0 });
    let late = BASE_MS + 4 * HOUR_MS;
    assert!(append(&tenant, &[float(0, late, 1.0)]).is_err());
    db.flush(late).unwrap();
    db.flush(late).unwrap();
    assert_eq!(only(&tenant).last(), Some(&(late, 1.0)));
    assert!(db.local_blocks().iter().any(|block| block.meta.min_ms > BASE_MS), "its range was cut");
}
