//! A WAL that was cut or that rotted: all other records are there, and the damage is reported.

use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tsdb::db::Recovery;
use tsdb::disk::Disk;
use tsdb::files::{WAL_DIR, WalFile};
use tsdb::wal::{Damage, WalPosition};

use super::rounds;
use super::store::{Key, Store, settings, tenant_id};

/// A store that was killed with all its samples in the WAL, and some behind a checkpoint; all are acked.
fn killed(seed: u64) -> Store {
    let mut store = Store::new(seed, settings());
    for step in 0..150 {
        store.append().unwrap();
        store.commit().unwrap();
        if step % 10 == 9 {
            store.now_ms += 60_000;
        }
        if seed % 2 == 1 && step == 75 {
            store.maintain().unwrap();
        }
    }
    store.disk.kill();
    store
}

/// A segment of the log, and how many of its bytes were ever written.
fn segment(store: &Store, rng: &mut StdRng) -> (u32, PathBuf, u64) {
    let mut segments = Vec::new();
    for entry in store.disk.list(Path::new(WAL_DIR)).unwrap() {
        let Some(file @ WalFile::Segment(number)) = WalFile::parse(&entry.name) else { continue };
        let path = file.path(Path::new(WAL_DIR));
        let bytes = store.disk.read(&path).unwrap();
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        if used > 0 {
            segments.push((number, path, used as u64));
        }
    }
    segments.swap_remove(rng.random_range(0..segments.len()))
}

fn reports(recovery: &Recovery) -> Vec<&Damage> {
    recovery.wal.damage.iter().chain(&recovery.wal.torn).collect()
}

/// Whether some report names the sample's tenant and time.
fn is_reported(recovery: &Recovery, (tenant, _, timestamp_ms): Key) -> bool {
    let names = |damage: &&Damage| {
        damage.tenant.as_ref() == Some(&tenant_id(tenant))
            && damage.times_ms.as_ref().is_some_and(|times| times.contains(&timestamp_ms))
    };
    reports(recovery).iter().any(names)
}

#[test]
fn a_flipped_byte_costs_at_most_its_own_record_which_is_reported_with_its_time() {
    let stores = [killed(1), killed(2)];
    let mut lossy = 0;
    let tries = rounds(150);
    for round in 0..tries {
        let store = &stores[round as usize % stores.len()];
        let mut rng = StdRng::seed_from_u64(round);
        let (_, path, used) = segment(store, &mut rng);
        let mut hurt = store.fork();
        hurt.disk.flip(&path, rng.random_range(0..used), 1 << rng.random_range(0..8u8)).unwrap();
        let recovery = hurt.open().unwrap();
        let missing = hurt.missing();
        assert_eq!(recovery.orphans, 0, "round {round}: samples without a definition");
        assert!(reports(&recovery).len() <= 1, "round {round}: {:?}", reports(&recovery));
        for key in &missing {
            assert!(
                is_reported(&recovery, *key),
                "round {round}: {key:?} is missing, {:?}",
                reports(&recovery)
            );
        }
        let of_one_append = |keys: &[Key]| missing.iter().all(|key| keys.contains(key));
        assert!(store.appends.iter().any(|(_, keys)| of_one_append(keys)), "round {round}: {missing:?}");
        lossy += u64::from(!missing.is_empty());
    }
    assert!(lossy > tries / 20, "{lossy} of {tries} cost something");
}

#[test]
fn a_cut_costs_what_was_behind_it_in_its_segment_and_shows() {
    let stores = [killed(1), killed(2)];
    let mut lossy = 0;
    let tries = rounds(150);
    for round in 0..tries {
        let store = &stores[round as usize % stores.len()];
        let mut rng = StdRng::seed_from_u64(round);
        let (number, path, used) = segment(store, &mut rng);
        let mut hurt = store.fork();
        let length = rng.random_range(0..=used);
        let file = hurt.disk.open(&path).unwrap();
        file.set_length(length).unwrap();
        file.sync().unwrap();
        let recovery = hurt.open().unwrap();
        let missing = hurt.missing();
        assert_eq!(recovery.orphans, 0, "round {round}: samples without a definition");
        assert!(missing.is_empty() || !reports(&recovery).is_empty(), "round {round}: {missing:?}");
        let cut = WalPosition { segment: number, offset: length as u32 };
        for key in &missing {
            let behind = |(end, keys): &(WalPosition, Vec<Key>)| {
                *end > cut && end.segment <= number + 1 && keys.contains(key)
            };
            assert!(store.appends.iter().any(behind), "round {round}: {key:?} was before the cut");
        }
        lossy += u64::from(!missing.is_empty());
        // The store goes on, and forgets no more.
        hurt.facts.retain(|key, _| !missing.contains(key));
        hurt.append().unwrap();
        hurt.commit().unwrap();
        hurt.restart(true);
        hurt.check();
    }
    assert!(lossy > tries / 10, "{lossy} of {tries} cost something");
}
