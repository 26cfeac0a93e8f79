use std::sync::Arc;

use object_store::ObjectStoreExt as _;
use tsdb::db::{Append, Bounds, DbSettings, SeriesKey};
use tsdb::model::{Labels, Sample, TenantId};
use tsdb::workers::Inline;

use super::super::PART_BYTES;
use super::super::tests::{Fault, Faulty, env, faulty};
use super::*;
use crate::env::DiskLedger;

const STORE: StoreId = StoreId(0xa);
pub(in crate::bucket) const BASE_MS: i64 = 1_700_006_400_000;
const RANGE_MS: i64 = 7_200_000;

pub(in crate::bucket) fn tenant() -> TenantId {
    TenantId::new("team-a").unwrap()
}

/// A node with blocks, on a disk in memory.
pub(in crate::bucket) struct Site {
    pub(in crate::bucket) store: Arc<Faulty>,
    pub(in crate::bucket) bucket: Arc<Bucket>,
    pub(in crate::bucket) env: Env,
    pub(in crate::bucket) db: Db,
    pub(in crate::bucket) catalogs: Arc<Catalogs>,
    pub(in crate::bucket) shipper: Shipper,
}

impl Site {
    /// A node on a bucket of its own, whose tenant has this many blocks.
    pub(in crate::bucket) async fn with_blocks(blocks: i64) -> Self {
        Self::with_series(&two_series(), blocks).await
    }

    /// As [`Site::with_blocks`], with these series in all blocks.
    pub(in crate::bucket) async fn with_series(labels: &[Labels], blocks: i64) -> Self {
        let (store, bucket) = faulty();
        let env = env(store.clone());
        let db = Db::open(env.disk.clone(), DbSettings::default(), BASE_MS, 7, &Inline).unwrap().0;
        write_series(&db, labels, blocks);
        Self::around(store, bucket, env, db).await
    }

    async fn around(store: Arc<Faulty>, bucket: Arc<Bucket>, env: Env, db: Db) -> Self {
        let catalogs = Arc::new(Catalogs::open(bucket.clone(), &env).await.unwrap());
        let shipper = Shipper::new(catalogs.clone(), bucket.clone(), &env, Path::new("nowhere"), STORE);
        shipper.belongs_to(ClusterId(0xb));
        Self { store, bucket, env, db, catalogs, shipper }
    }

    /// The same node after its process died.
    async fn restarted(self) -> Self {
        let ledger = DiskLedger::open(self.env.disk.clone()).unwrap();
        Self::around(self.store, self.bucket, Env { ledger: Arc::new(ledger), ..self.env }, self.db).await
    }

    fn intents(&self) -> usize {
        self.env.ledger.scan("ship/").unwrap().len()
    }

    pub(in crate::bucket) async fn listed(&self) -> Vec<Listed> {
        self.catalogs.refresh(&tenant()).await.unwrap().blocks().cloned().collect()
    }

    /// Everything in the bucket is listed, once, and whole.
    async fn check(&self, blocks: usize) {
        let listed = self.listed().await;
        assert_eq!(listed.len(), blocks);
        assert_eq!(self.intents(), 0);
        for local in self.db.local_blocks() {
            let listed = listed.iter().find(|listed| listed.ulid == local.meta.ulid).unwrap();
            assert_eq!((listed.min_ms, listed.max_ms), (local.meta.min_ms, local.meta.max_ms));
            for name in ["index", "chunks/000001"] {
                let key = keys::block_file(listed.ulid, name);
                let stored = self.store.inner.get(&key).await.unwrap().bytes().await.unwrap();
                assert_eq!(stored, self.env.disk.read(&local.dir.join(name)).unwrap());
            }
        }
    }
}

/// Gives a database blocks of two hours with samples of two series.
pub(in crate::bucket) fn write(db: &Db, blocks: i64) {
    write_series(db, &two_series(), blocks);
}

fn two_series() -> [Labels; 2] {
    ["0", "1"].map(|i| Labels::from_pairs([("__name__", "m"), ("i", i)]).unwrap())
}

fn write_series(db: &Db, labels: &[Labels], blocks: i64) {
    let to = db.tenant(&tenant()).unwrap();
    for (key, labels) in (0u128..).zip(labels) {
        let series = to.intern(SeriesKey(key), labels).unwrap();
        let samples = (0..blocks * RANGE_MS / 60_000).map(|n| Sample::float(BASE_MS + n * 60_000, n as f64));
        let batch: Vec<_> = samples.map(|sample| Append { series, sample }).collect();
        to.append(&batch, &Bounds::ALL, &mut Vec::new()).unwrap();
    }
    db.commit().unwrap();
    db.flush(BASE_MS + blocks * RANGE_MS).unwrap();
    assert_eq!(db.local_blocks().len(), usize::try_from(blocks).unwrap());
}

#[tokio::test(start_paused = true)]
async fn blocks_are_uploaded_read_back_and_listed_once() {
    let site = Site::with_blocks(2).await;
    site.shipper.all(&site.db).await.unwrap();
    site.check(2).await;
    let before = site.shipper.progress();
    assert_eq!(
        (before.blocks, before.waiting, before.current, before.last_error.clone()),
        (2, 0, None, None)
    );
    site.shipper.all(&site.db).await.unwrap();
    assert_eq!(site.shipper.progress(), before);
    let listed = &site.listed().await[0];
    assert_eq!((listed.samples, listed.series, listed.store, listed.level), (240, 2, STORE, 1));
    let meta = site.bucket.get(&keys::block_file(listed.ulid, "meta.json")).await.unwrap().unwrap().0;
    let meta = BlockMeta::from_json(&meta).unwrap();
    let thanos = &meta.other["thanos"];
    assert_eq!((&thanos["labels"]["tenant_id"], &thanos["source"]), (&"team-a".into(), &"receive".into()));
    assert_eq!(thanos["extensions"]["carillon"]["cluster"], ClusterId(0xb).to_string());
}

/// The process dies at the n-th call of the store, for every n; the next one finishes.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_loses_and_doubles_nothing() {
    for (writes, died) in [(true, Fault::Hangs), (true, Fault::After), (false, Fault::Hangs)] {
        let mut finished = false;
        for step in 0..40 {
            let site = Site::with_blocks(1).await;
            let mut faults = vec![Fault::None; step];
            faults.extend([died, Fault::Hangs, Fault::Hangs]);
            if writes {
                site.store.on_writes(&faults);
            } else {
                site.store.on_reads(&faults);
            }
            let cut = tokio::time::timeout(Duration::from_secs(5), site.shipper.all(&site.db)).await;
            finished = cut.is_ok();
            site.store.forget();
            let site = site.restarted().await;
            site.shipper.all(&site.db).await.unwrap();
            site.check(1).await;
            if finished {
                break;
            }
        }
        assert!(finished, "there are fewer steps than were tried");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_bucket_is_away_blocks_wait() {
    let site = Site::with_blocks(2).await;
    site.store.on_reads(&[Fault::Before; 50]);
    let error = site.shipper.all(&site.db).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let progress = site.shipper.progress();
    assert_eq!((progress.waiting, progress.blocks, progress.refused.len()), (2, 0, 0));
    assert!(progress.last_error.unwrap().1.contains("503"));
    site.store.forget();
    site.shipper.all(&site.db).await.unwrap();
    site.check(2).await;
}

#[tokio::test(start_paused = true)]
async fn what_isnt_read_back_as_it_was_written_isnt_listed() {
    let site = Site::with_blocks(1).await;
    // The catalog is read first.
    site.store.on_reads(&[Fault::None, Fault::None, Fault::Flipped]);
    site.shipper.all(&site.db).await.unwrap();
    site.check(1).await;
    let site = Site::with_blocks(1).await;
    site.store.on_reads(&[Fault::None]);
    site.store.on_reads(&[Fault::Flipped; 20]);
    let error = site.shipper.all(&site.db).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    site.store.forget();
    assert!(site.listed().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_block_stays_and_the_others_go() {
    let site = Site::with_blocks(3).await;
    let blocks = site.db.local_blocks();
    let damaged = &blocks[1];
    let chunks = damaged.dir.join("chunks/000001");
    let mut bytes = site.env.disk.read(&chunks).unwrap();
    bytes[40] ^= 1;
    site.env.disk.remove_file(&chunks).unwrap();
    site.env.disk.create(&chunks).unwrap().write_at(0, &bytes).unwrap();
    let error = site.shipper.all(&site.db).await.unwrap_err();
    assert!(error.to_string().contains(&damaged.meta.ulid.to_string()), "{error}");
    let progress = site.shipper.progress();
    assert_eq!((progress.blocks, progress.waiting), (2, 1));
    assert!(progress.refused.contains_key(&damaged.meta.ulid));
    assert_eq!(site.listed().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn large_files_go_in_parts() {
    let site = Site::with_blocks(0).await;
    let size_bytes = 2 * PART_BYTES + 12_345;
    let bytes: Vec<u8> = (0..size_bytes).map(|n| (n % 251) as u8).collect();
    let path = Path::new("large");
    site.env.disk.create(path).unwrap().write_at(0, &bytes).unwrap();
    let key = keys::own(["large"]);
    site.bucket.put_parts(&key, size_bytes, |part| site.shipper.local_part(path, part)).await.unwrap();
    let stored = site.bucket.sum(&key, size_bytes).await.unwrap();
    assert_eq!(stored, Some(site.shipper.local_sum(path, size_bytes).await.unwrap()));
    assert_eq!(site.bucket.sum(&key, size_bytes + 1).await.unwrap(), None);
}

#[tokio::test]
async fn a_folder_on_the_same_filesystem_shares_the_files() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (data, folder) = (dir.path().join("data"), dir.path().join("bucket"));
    let env = Env::production(&data, 1).unwrap();
    let bucket = Bucket::open(folder.to_str().unwrap(), &env).unwrap();
    let db = Db::open(env.disk.clone(), DbSettings::default(), BASE_MS, 7, &Inline).unwrap().0;
    write(&db, 1);
    let catalogs = Arc::new(Catalogs::open(bucket.clone(), &env).await.unwrap());
    let shipper = Shipper::new(catalogs.clone(), bucket.clone(), &env, &data, STORE);
    for _ in 0..2 {
        shipper.all(&db).await.unwrap();
        let block = &db.local_blocks()[0];
        for name in ["index", "chunks/000001"] {
            let (ours, theirs) =
                (data.join(&block.dir).join(name), folder.join(block.meta.ulid.to_string()).join(name));
            assert_eq!(ours.metadata().unwrap().ino(), theirs.metadata().unwrap().ino());
        }
        assert_eq!(bucket.list(&keys::block(block.meta.ulid)).await.unwrap().len(), 3);
        // As if the listing had been lost in a crash: everything is done again.
        env.ledger.remove(&format!("catalog/{}", tenant())).unwrap();
        bucket.delete(&keys::catalog(&tenant())).await.unwrap();
    }
}
