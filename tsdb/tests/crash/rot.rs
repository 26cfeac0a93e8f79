//! Rot in the files beside the WAL: what another file has too is there, what is lost is reported.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tsdb::disk::Disk;
use tsdb::files::HEAD_DIR;

use super::rounds;
use super::store::{Store, settings, tenant_id};

/// A store with checkpoints, finished chunks and blocks, killed; all that it took is acked. The head keeps ranges for
/// twelve hours, so that many finished chunks are in no block yet.
fn killed() -> Store {
    let mut settings = settings();
    settings.tenant.out_of_order_window_ms = 12 * 60 * 60_000;
    let mut store = Store::new(5, settings);
    for _ in 0..300 {
        store.append().unwrap();
        store.commit().unwrap();
        store.now_ms += 5 * 60_000;
        store.maintain().unwrap();
    }
    store.disk.kill();
    store
}

/// Files of the head whose names begin like this.
fn head_files(store: &Store, prefix: &str) -> Vec<PathBuf> {
    let list =
        |dir: &Path| store.disk.list(dir).unwrap().into_iter().map(|e| dir.join(e.name)).collect::<Vec<_>>();
    let shards = store.disk.list(Path::new(HEAD_DIR)).unwrap().into_iter().filter(|entry| entry.is_dir);
    let of_shards = shards.flat_map(|shard| list(&Path::new(HEAD_DIR).join(shard.name)));
    of_shards.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect()
}

/// Flips some bit of a file, somewhere in what was written.
fn flip(store: &Store, path: &Path, rng: &mut StdRng) {
    let bytes = store.disk.read(path).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1) as u64;
    if used > 0 {
        store.disk.flip(path, rng.random_range(0..used), 1 << rng.random_range(0..8u8)).unwrap();
    }
}

#[test]
fn a_rotten_checkpoint_costs_nothing_since_the_one_before_and_the_log_have_it_all() {
    let store = killed();
    let paths = head_files(&store, "checkpoint");
    assert!(paths.len() > 4, "{paths:?}");
    let mut reported = 0;
    for round in 0..rounds(20) {
        let mut rng = StdRng::seed_from_u64(round);
        let mut hurt = store.fork();
        flip(&hurt, &paths[rng.random_range(0..paths.len())], &mut rng);
        let recovery = hurt.open().unwrap();
        reported += recovery.damage.len();
        assert_eq!(hurt.missing(), [], "round {round}: {:?}", recovery.damage);
        hurt.restart(true);
        assert_eq!(hurt.missing(), [], "round {round}, at the next start");
    }
    assert!(reported > 0);
}

#[test]
fn a_rotten_finished_chunk_costs_its_own_samples_which_are_reported_with_their_time() {
    let store = killed();
    let paths = head_files(&store, "chunks");
    assert!(!paths.is_empty());
    let mut lossy = 0;
    for round in 0..rounds(20) {
        let mut rng = StdRng::seed_from_u64(round);
        let mut hurt = store.fork();
        flip(&hurt, &paths[rng.random_range(0..paths.len())], &mut rng);
        let recovery = hurt.open().unwrap();
        let missing = hurt.missing();
        let names = |tenant: usize, timestamp_ms: i64| {
            recovery.damage.iter().any(|damage| {
                let covers = |times: &RangeInclusive<i64>| times.contains(&timestamp_ms);
                damage.tenant == Some(tenant_id(tenant)) && damage.times_ms.as_ref().is_some_and(covers)
            })
        };
        for (tenant, series, timestamp_ms) in &missing {
            assert!(
                names(*tenant, *timestamp_ms),
                "round {round}: {tenant} {series} {timestamp_ms} is missing"
            );
        }
        lossy += usize::from(!missing.is_empty());
        // What is left stays, whatever follows.
        hurt.facts.retain(|key, _| !missing.contains(key));
        hurt.flush().unwrap();
        hurt.restart(true);
        hurt.check();
    }
    assert!(lossy > 0);
}
