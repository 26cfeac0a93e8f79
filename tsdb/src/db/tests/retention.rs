//! When blocks are removed, whatever the wall clock shows.

use super::*;
use crate::clock::INTERVAL_MS;
use crate::db::retention::SLACK_MS;

const MONTH_MS: i64 = 30 * 24 * HOUR_MS;
const MINUTE_MS: i64 = 60_000;

/// A tenant with ten hours of samples, most of them in blocks, that keeps them for fifteen days.
fn lived_in(disk: &Arc<MemoryDisk>) -> (Db, Arc<Tenant>) {
    let (db, _) = open(disk);
    let tenant = db.tenant(&id()).unwrap();
    keep(&tenant, 15 * 24);
    for i in 0..10 * 60 {
        append(&tenant, &[float(0, BASE_MS + i * MINUTE_MS, 1.0)]).unwrap();
        maintain(&db, BASE_MS + i * MINUTE_MS).unwrap();
    }
    assert!(db.local_blocks().len() > 2);
    db.commit().unwrap();
    (db, tenant)
}

fn keep(tenant: &Tenant, hours: i64) {
    tenant.configure(TenantSettings { retention_ms: Some(hours * HOUR_MS), ..TenantSettings::default() });
}

/// Maintains each second, for some minutes, while the wall clock is off; says how many blocks went.
fn removed(db: &Db, from_ms: i64, minutes: i64, offset_ms: i64) -> usize {
    let seconds = 0..minutes * 60;
    let reading = |second: i64| ClockReading {
        wall_ms: from_ms + second * 1_000 + offset_ms,
        elapsed_ms: (from_ms + second * 1_000).unsigned_abs(),
    };
    seconds.map(|second| db.maintain(reading(second)).unwrap().removed.len()).sum()
}

#[test]
fn a_wall_clock_that_is_wrong_removes_nothing_for_a_moment_nor_for_good() {
    let (db, tenant) = lived_in(&Arc::new(MemoryDisk::new()));
    let (now_ms, before) = (BASE_MS + 10 * HOUR_MS, only(&tenant));
    for offset_ms in [MONTH_MS, 100 * 365 * 24 * HOUR_MS, -MONTH_MS, i64::MAX - BASE_MS - MONTH_MS] {
        let reading = ClockReading { wall_ms: now_ms + offset_ms, elapsed_ms: now_ms.unsigned_abs() };
        assert!(db.maintain(reading).unwrap().removed.is_empty());
        assert_eq!(removed(&db, now_ms, 3, offset_ms), 0);
        assert_eq!(only(&tenant), before);
    }
}

#[test]
fn a_start_with_a_wrong_clock_removes_nothing() {
    let disk = Arc::new(MemoryDisk::new());
    let before = only(&lived_in(&disk).1);
    let now_ms = BASE_MS + 10 * HOUR_MS;
    let (db, _) = Db::open(disk, settings(), now_ms + MONTH_MS, 7, &Inline).unwrap();
    let tenant = db.tenant(&id()).unwrap();
    keep(&tenant, 15 * 24);
    assert_eq!(removed(&db, now_ms, 3, MONTH_MS), 0);
    assert_eq!(only(&tenant).len(), before.len());
}

#[test]
fn old_blocks_go_and_newer_ones_stay() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    keep(&tenant, 6);
    append(&tenant, &[float(0, BASE_MS, 1.0), float(0, BASE_MS + 8 * HOUR_MS, 1.0)]).unwrap();
    db.flush(BASE_MS).unwrap();
    // The first block ends two hours after the base; a clock counts once an interval has gone by.
    let interval_ms = INTERVAL_MS.cast_signed();
    assert_eq!(removed(&db, BASE_MS + 8 * HOUR_MS - 3 * interval_ms, 3, 0), 0);
    assert_eq!(removed(&db, BASE_MS + 8 * HOUR_MS, 1, 0), 1);
    assert_eq!(only(&tenant), [(BASE_MS + 8 * HOUR_MS, 1.0)]);
    drop((db, tenant));
    let (db, _) = open(&disk);
    assert_eq!(only(&db.tenant(&id()).unwrap()), [(BASE_MS + 8 * HOUR_MS, 1.0)]);
}

#[test]
fn blocks_of_a_tenant_that_fell_silent_go_too() {
    let disk = Arc::new(MemoryDisk::new());
    let (db, _) = open(&disk);
    let tenant = db.tenant(&id()).unwrap();
    keep(&tenant, 6);
    append(&tenant, &[float(0, BASE_MS, 1.0)]).unwrap();
    db.flush(BASE_MS).unwrap();
    let mut removed_at_ms = None;
    for minute in 0..24 * 60 {
        if !maintain(&db, BASE_MS + minute * MINUTE_MS).unwrap().removed.is_empty() {
            removed_at_ms.get_or_insert(minute * MINUTE_MS);
        }
    }
    // Its end is two hours after the sample that time is judged by, so the slack makes up for a part of that only.
    let (end_ms, slack_ms) = (2 * HOUR_MS, SLACK_MS);
    assert!(removed_at_ms.unwrap() >= end_ms + 6 * HOUR_MS - slack_ms, "{removed_at_ms:?}");
    assert!(removed_at_ms.unwrap() <= end_ms + 6 * HOUR_MS, "{removed_at_ms:?}");
}
