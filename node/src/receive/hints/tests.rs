//! Hints on a disk that loses what wasn't synced.

use rand::SeedableRng as _;
use tsdb::disk::MemoryDisk;

use super::*;
use crate::env::{Inline, ManualClock};

const STORE: StoreId = StoreId(7);

fn open(disk: &MemoryDisk, clock: &Arc<ManualClock>, bytes_max: u64) -> Arc<Hints> {
    let bounds = Bounds { bytes_max, age_ms_max: 60_000 };
    Arc::new(Hints::open(Arc::new(disk.clone()), Arc::new(Inline), clock.clone(), bounds).unwrap())
}

fn frame(id: u64, bytes: usize) -> Frame {
    // Noise, so that it isn't compressed away.
    let body: Vec<u8> =
        (0..bytes as u64).map(|i| xxhash_rust::xxh3::xxh3_64(&(id * 1000 + i).to_le_bytes()) as u8).collect();
    Frame { id, tenant: "t".to_owned(), body: body.into(), ..Frame::default() }
}

async fn ids(hints: &Arc<Hints>) -> Vec<u64> {
    let mut ids = Vec::new();
    while let Some(segment) = hints.oldest(STORE).await.unwrap() {
        ids.extend(hints.read(STORE, &segment).await.unwrap().into_iter().map(|frame| frame.id));
        hints.remove(STORE, segment.number).await.unwrap();
    }
    ids
}

#[tokio::test]
async fn hints_come_back_in_order_and_once() {
    let (disk, clock) = (MemoryDisk::new(), Arc::new(ManualClock::new(1_000_000)));
    let hints = open(&disk, &clock, 1 << 20);
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
    let (disk, clock) = (MemoryDisk::new(), Arc::new(ManualClock::new(1_000_000)));
    let hints = open(&disk, &clock, 1 << 20);
    hints.add(STORE, (0..5).map(|id| frame(id, 100)).collect());
    hints.write_waiting(false).unwrap();
    hints.write_waiting(false).unwrap();
    hints.add(STORE, vec![frame(5, 100)]);
    hints.write_waiting(false).unwrap();
    drop(hints);
    disk.crash(&mut rand::rngs::StdRng::seed_from_u64(3));
    let hints = open(&disk, &clock, 1 << 20);
    hints.add(STORE, vec![frame(6, 100)]);
    let mut found = ids(&hints).await;
    assert_eq!(found.pop(), Some(6));
    assert!(found == [0, 1, 2, 3, 4] || found == [0, 1, 2, 3, 4, 5], "{found:?}");
}

#[tokio::test]
async fn hints_are_bounded_in_bytes_and_age() {
    let (disk, clock) = (MemoryDisk::new(), Arc::new(ManualClock::new(1_000_000)));
    let hints = open(&disk, &clock, 1000);
    hints.add(STORE, (0..20).map(|id| frame(id, 100)).collect());
    assert!(hints.pending().bytes <= 1000);
    let kept = hints.counters.kept.load(Ordering::Relaxed);
    assert!((5..10).contains(&kept));
    assert_eq!(hints.counters.dropped.load(Ordering::Relaxed), 20 - kept);
    hints.write_waiting(true).unwrap();
    clock.set_ms(1_030_000);
    hints.expire().await.unwrap();
    assert!(hints.pending().bytes > 0);
    clock.set_ms(1_070_000);
    let segment = hints.oldest(STORE).await.unwrap().unwrap();
    assert!(hints.read(STORE, &segment).await.unwrap().is_empty());
    hints.expire().await.unwrap();
    assert_eq!(hints.pending(), Pending::default());
    assert!(!open(&disk, &clock, 0).is_enabled());
}
