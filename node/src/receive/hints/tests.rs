//! Hints on a disk that loses what wasn't synced.

use rand::SeedableRng as _;
use tsdb::disk::{Fault, MemoryDisk};

use super::*;
use crate::env::Inline;

const STORE: StoreId = StoreId(7);
const AGE_MAX: Duration = Duration::from_secs(60);

fn open(disk: &MemoryDisk, bytes_max: u64) -> Arc<Hints> {
    let bounds = Bounds { bytes_max, age_max: AGE_MAX };
    Arc::new(Hints::open(Arc::new(disk.clone()), Arc::new(Inline), bounds).unwrap())
}

fn frame(id: u64, bytes: usize) -> Frame {
    // Noise, so that it isn't compressed away.
    let body: Vec<u8> =
        (0..bytes as u64).map(|i| xxhash_rust::xxh3::xxh3_64(&(id * 1000 + i).to_le_bytes()) as u8).collect();
    Frame { id, tenant: "t".to_owned(), body: body.into(), ..Frame::default() }
}

/// Takes all hints that can be read, as a replay does.
async fn ids(hints: &Arc<Hints>) -> Vec<u64> {
    let (mut ids, mut behind) = (Vec::new(), None);
    while let Ok(Some(segment)) = hints.oldest(STORE, behind).await {
        behind = Some(segment.number);
        if let Ok(frames) = hints.read(STORE, &segment).await {
            ids.extend(frames.into_iter().map(|frame| frame.id));
            drop(hints.remove(STORE, segment.number).await);
        }
    }
    ids
}

#[tokio::test]
async fn hints_come_back_in_order_and_once() {
    let disk = MemoryDisk::new();
    let hints = open(&disk, 1 << 20);
    for id in 0..10 {
        hints.add(STORE, vec![frame(id, 100)]);
        if id % 3 == 0 {
            hints.write_waiting(false).unwrap();
        }
    }
    assert_eq!(hints.pending().stores, [STORE]);
    assert!(hints.pending().bytes > 1000);
    assert_eq!(ids(&hints).await, (0..10).collect::<Vec<_>>());
    assert_eq!(hints.pending(), Pending::default());
    assert!(ids(&hints).await.is_empty());
}

#[tokio::test]
async fn what_was_synced_survives_a_crash_and_goes_on_in_a_new_segment() {
    let disk = MemoryDisk::new();
    let hints = open(&disk, 1 << 20);
    hints.add(STORE, (0..5).map(|id| frame(id, 100)).collect());
    hints.write_waiting(false).unwrap();
    hints.write_waiting(false).unwrap();
    hints.add(STORE, vec![frame(5, 100)]);
    hints.write_waiting(false).unwrap();
    drop(hints);
    disk.crash(&mut rand::rngs::StdRng::seed_from_u64(3));
    let hints = open(&disk, 1 << 20);
    hints.add(STORE, vec![frame(6, 100)]);
    let mut found = ids(&hints).await;
    assert_eq!(found.pop(), Some(6));
    assert!(found == [0, 1, 2, 3, 4] || found == [0, 1, 2, 3, 4, 5], "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn hints_are_bounded_in_bytes_and_age() {
    let disk = MemoryDisk::new();
    let hints = open(&disk, 1000);
    hints.add(STORE, (0..20).map(|id| frame(id, 100)).collect());
    assert!(hints.pending().bytes <= 1000);
    let kept = hints.counters.kept.load(Ordering::Relaxed);
    assert!((5..10).contains(&kept));
    assert_eq!(hints.counters.dropped.load(Ordering::Relaxed), 20 - kept);
    hints.write_waiting(true).unwrap();
    tokio::time::advance(AGE_MAX / 2).await;
    hints.expire().await.unwrap();
    assert!(hints.pending().bytes > 0);
    tokio::time::advance(AGE_MAX).await;
    hints.expire().await.unwrap();
    assert_eq!(hints.pending(), Pending::default());
    assert_eq!(disk.list(&files::hints(STORE.0)).unwrap(), []);
    assert!(!open(&disk, 0).is_enabled());
}

#[tokio::test]
async fn what_waits_for_a_disk_that_fails_is_bounded_in_memory() {
    let disk = MemoryDisk::new();
    let hints = open(&disk, u64::MAX);
    // Snappy leaves it as it is.
    let mut noise = 1u64;
    let body: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 56) as u8
    })
    .take(1 << 20)
    .collect();
    let body = bytes::Bytes::from(body);
    let frame = |id| Frame { id, tenant: "t".to_owned(), body: body.clone(), ..Frame::default() };
    disk.inject(Fault::Power { after: 0 });
    for id in 0..70 {
        hints.add(STORE, vec![frame(id)]);
        if id % 10 == 0 {
            hints.write_waiting(false).unwrap_err();
        }
    }
    assert!(hints.state.lock().waiting_bytes <= WAITING_BYTES_MAX);
    let kept = hints.counters.kept.load(Ordering::Relaxed);
    assert_eq!(hints.counters.dropped.load(Ordering::Relaxed), 70 - kept);
    disk.clear_faults();
    hints.write_waiting(true).unwrap();
    assert_eq!(hints.state.lock().waiting_bytes, 0);
    assert_eq!(ids(&hints).await, (0..kept).collect::<Vec<_>>());
}

/// Three rounds of hints, some of them read in between, on a disk that fails once somewhere; whatever failed is done
/// again afterwards. Tells whether the disk has failed.
async fn survives(fault: Fault) -> bool {
    let disk = MemoryDisk::new();
    let hints = open(&disk, 1 << 20);
    disk.inject(fault);
    let mut found = Vec::new();
    for round in 0..3 {
        for id in 0..4 {
            hints.add(STORE, vec![frame(round * 4 + id, 100)]);
            drop(hints.write_waiting(id == 3 && round == 0));
        }
        if round == 1 {
            found.extend(ids(&hints).await);
        }
    }
    drop(hints.write_waiting(false));
    let has_failed = disk.struck() > 0;
    disk.clear_faults();
    found.extend(ids(&hints).await);
    hints.expire().await.unwrap();
    assert_eq!(hints.pending(), Pending::default(), "{fault:?}");
    assert_eq!(hints.state.lock().bytes, 0, "{fault:?}");
    assert_eq!(hints.counters.dropped.load(Ordering::Relaxed), 0, "{fault:?}");
    found.sort_unstable();
    assert_eq!(found, (0..12).collect::<Vec<_>>(), "{fault:?}");
    has_failed
}

#[tokio::test]
async fn no_single_failure_of_the_disk_costs_a_hint_or_stops_those_that_come_later() {
    for fault in
        [|after| Fault::Io { after }, |after| Fault::NoSpace { after }, |after| Fault::Sync { after }]
    {
        let mut after = 0;
        while survives(fault(after)).await {
            after += 1;
        }
        assert!(after > 3, "{:?}", fault(after));
    }
}

#[tokio::test]
async fn hints_are_sent_while_the_disk_is_full_and_written_when_it_has_room() {
    let disk = MemoryDisk::new();
    let hints = open(&disk, 1 << 20);
    hints.add(STORE, vec![frame(0, 100)]);
    hints.write_waiting(true).unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    for id in 1..4 {
        hints.add(STORE, vec![frame(id, 100)]);
        hints.write_waiting(false).unwrap_err();
    }
    // What was on the disk can be sent; the rest is in memory still.
    let segment = hints.oldest(STORE, None).await.unwrap().unwrap();
    assert_eq!(hints.read(STORE, &segment).await.unwrap().len(), 1);
    disk.set_capacity(None);
    hints.write_waiting(true).unwrap();
    assert_eq!(ids(&hints).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn one_stores_trouble_keeps_no_other_stores_hints_from_the_disk() {
    let (disk, other) = (MemoryDisk::new(), StoreId(STORE.0 + 1));
    disk.create_dir(Path::new(files::HINTS_DIR)).unwrap();
    // A file stands where the first store's folder would be.
    disk.create(&files::hints(STORE.0)).unwrap();
    let hints = open(&disk, 1 << 20);
    hints.add(STORE, vec![frame(0, 100)]);
    hints.add(other, vec![frame(1, 100)]);
    hints.write_waiting(true).unwrap_err();
    let segment = hints.oldest(other, None).await.unwrap().unwrap();
    assert_eq!(hints.read(other, &segment).await.unwrap().len(), 1);
}
