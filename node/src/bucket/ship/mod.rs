//! Shipping: local blocks into the bucket, so that any node can read them and this one may lose them.
//!
//! 1. The intent goes to the ledger (`intent`), so that a restart carries on with the same bytes.
//! 2. Files go up in the order chunks, index, `meta.json`: a block whose upload was cut has no `meta.json`. Where the
//!    bucket is a folder of the same filesystem, files are linked instead of copied.
//! 3. Everything is read back and compared. What differs is uploaded once more.
//! 4. The block is listed in its tenant's catalog; only now does it exist for others. The intent is removed.
//!
//! Every step can be done again, so a crash anywhere costs time and nothing else. One block is shipped at a time, in
//! parts, so memory and bandwidth stay bounded. A local block that is damaged is refused, and stays. A block that was
//! handed in takes the same steps before it is acked ([`Shipper::import`]), and is never one of this store's.

mod intent;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use ring::{ClusterId, StoreId};
use tokio_util::sync::CancellationToken;
use tsdb::block::{Block, BlockMeta};
use tsdb::db::{Db, LocalBlock};
use tsdb::disk::Disk;
use tsdb::files;
use tsdb::model::TenantId;
use ulid::Ulid;

use super::catalog::{Catalogs, Listed, NOBODY};
use super::error::{Error, Result};
use super::parts::parts;
use super::thanos::{BlockFile, Upload, files_of, meta_to_upload};
use super::{ATTEMPTS, Bucket, Checksum, keys};
use crate::env::{Clock, Env, Ledger, Pool, Work, on_disk, run_on};
use crate::text::shortened;
use intent::Intent;

/// Most findings about a damaged block that are told.
const FINDINGS_MAX: usize = 3;

/// How shipping goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blocks that are still to be shipped, the one in work included.
    pub waiting: usize,
    /// The block in work.
    pub current: Option<Ulid>,
    /// Blocks listed since the start.
    pub blocks: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// When and why it last failed; nothing once a whole round went well.
    pub last_error: Option<(i64, String)>,
    /// Tries to ship a block that failed.
    pub failures: u64,
    /// Blocks that won't be shipped as they are, and why.
    pub refused: BTreeMap<Ulid, String>,
}

/// Ships this node's blocks.
pub struct Shipper {
    bucket: Arc<Bucket>,
    catalogs: Arc<Catalogs>,
    disk: Arc<dyn Disk>,
    /// Where the disk is for the system: links need that.
    data_dir: PathBuf,
    ledger: Arc<dyn Ledger>,
    pool: Arc<dyn Pool>,
    clock: Arc<dyn Clock>,
    store: StoreId,
    cluster: Mutex<Option<ClusterId>>,
    nonces: Mutex<StdRng>,
    turn: tokio::sync::Mutex<()>,
    progress: Mutex<Progress>,
}

impl Shipper {
    /// Ships what is on `env`'s disk, which is the system's folder `data_dir`, in the name of `store`.
    pub fn new(
        catalogs: Arc<Catalogs>,
        bucket: Arc<Bucket>,
        env: &Env,
        data_dir: &Path,
        store: StoreId,
    ) -> Self {
        let mut seed = *b"the node's seed, and its intents";
        seed[..16].copy_from_slice(&env.seed.to_le_bytes());
        Self {
            bucket,
            catalogs,
            disk: env.disk.clone(),
            data_dir: data_dir.to_owned(),
            ledger: env.ledger.clone(),
            pool: env.pool.clone(),
            clock: env.clock.clone(),
            store,
            cluster: Mutex::default(),
            nonces: Mutex::new(StdRng::from_seed(seed)),
            turn: tokio::sync::Mutex::default(),
            progress: Mutex::default(),
        }
    }

    /// Says which cluster blocks belong to, as soon as that is known.
    pub fn belongs_to(&self, cluster: ClusterId) {
        *self.cluster.lock() = Some(cluster);
    }

    /// How it goes.
    pub fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }

    /// Ships those blocks of `db` that aren't listed yet, and returns once all are. One that can't be shipped doesn't
    /// hold up the rest. Callers wait for each other.
    ///
    /// # Errors
    /// The first failure, after the rest was tried; with the bucket away, at once.
    pub async fn all(&self, db: &Db) -> Result<()> {
        let _turn = self.turn.lock().await;
        let blocks = db.local_blocks();
        let unlisted = |block: &LocalBlock| !self.catalogs.is_listed(&block.tenant, block.meta.ulid);
        let mut waiting: Vec<_> = blocks.into_iter().filter(unlisted).collect();
        // Old ones first: what waits longest is what somebody waits for.
        waiting.sort_by_key(|block| block.meta.ulid);
        self.progress.lock().refused.retain(|ulid, _| waiting.iter().any(|block| block.meta.ulid == *ulid));
        let mut failed = None;
        for (done, block) in waiting.iter().enumerate() {
            {
                let mut progress = self.progress.lock();
                progress.waiting = waiting.len() - done;
                progress.current = Some(block.meta.ulid);
            }
            let Err(error) = self.ship(block).await else { continue };
            tracing::warn!(tenant = %block.tenant, block = %block.meta.ulid, %error, "a block can't be shipped");
            let mut progress = self.progress.lock();
            progress.failures += 1;
            let why = shortened(error.to_string());
            progress.last_error = Some((self.clock.now_ms(), why.clone()));
            if !error.is_transient() {
                progress.refused.insert(block.meta.ulid, why);
            }
            let stop =
                matches!(error, Error::Unreachable { .. } | Error::Denied { .. } | Error::Missing { .. });
            failed.get_or_insert(error);
            if stop {
                break;
            }
        }
        let mut progress = self.progress.lock();
        progress.current = None;
        progress.waiting = waiting.iter().filter(|block| unlisted(block)).count();
        match failed {
            Some(error) => Err(error),
            None => {
                progress.last_error = None;
                Ok(())
            }
        }
    }

    /// Ships the blocks of `db` again and again, until `stop`.
    pub async fn keep_shipping(&self, db: &Db, every: Duration, stop: CancellationToken) {
        loop {
            // A failure is logged, and shown by `progress`.
            let round = async { drop(self.all(db).await) };
            if stop.run_until_cancelled(round).await.is_none()
                || stop.run_until_cancelled(tokio::time::sleep(every)).await.is_none()
            {
                return;
            }
        }
    }

    /// Ships a block that isn't one of this store's, from a folder of its disk, under another name: nobody keeps it but the
    /// bucket. Returns a version of the catalog that lists it; one that was listed before stays as it is. Callers wait for each
    /// other.
    ///
    /// # Errors
    /// What keeps it from being listed: the bucket, or what is wrong with the block. Nobody sees it then, unless the answer
    /// to the last step was lost; with the same name it can be done again.
    pub async fn import(&self, tenant: &TenantId, dir: &Path, name: Ulid) -> Result<u64> {
        let _turn = self.turn.lock().await;
        let catalog = self.catalogs.refresh(tenant).await?;
        if let Some(listed) = catalog.block(name) {
            return Ok(listed.version);
        }
        let (disk, own) = (self.disk.clone(), dir.to_owned());
        let read = run_on(&*self.pool, Work::Bulk, move || Local::read(&*disk, &own));
        let mut local = read.await?;
        local.meta.ulid = name;
        let block = LocalBlock { tenant: tenant.clone(), meta: local.meta.clone(), dir: dir.to_owned() };
        let listed = Listed { store: NOBODY, ..self.upload(&block, &local).await? };
        let version = self.catalogs.list_block(tenant, &listed).await?;
        tracing::info!(%tenant, block = %name, version, bytes = listed.size_bytes, "an imported block is in the bucket");
        self.shipped(tenant.clone(), name, listed.size_bytes).await?;
        Ok(version)
    }

    /// Notes that a block is listed.
    async fn shipped(&self, tenant: TenantId, ulid: Ulid, bytes: u64) -> Result<()> {
        {
            let mut progress = self.progress.lock();
            progress.blocks += 1;
            progress.bytes += bytes;
        }
        let ledger = self.ledger.clone();
        Ok(on_disk(&*self.pool, move || Intent::end(&*ledger, &tenant, ulid)).await?)
    }

    async fn ship(&self, block: &LocalBlock) -> Result<()> {
        let (tenant, ulid) = (&block.tenant, block.meta.ulid);
        if self.catalogs.refresh(tenant).await?.block(ulid).is_none() {
            let Some(local) = self.look(block).await? else { return Ok(()) };
            let listed = self.upload(block, &local).await?;
            let version = self.catalogs.list_block(tenant, &listed).await?;
            tracing::info!(%tenant, block = %ulid, version, bytes = listed.size_bytes, "a block is in the bucket");
            return self.shipped(tenant.clone(), ulid, listed.size_bytes).await;
        }
        let (ledger, tenant) = (self.ledger.clone(), tenant.clone());
        Ok(on_disk(&*self.pool, move || Intent::end(&*ledger, &tenant, ulid)).await?)
    }

    /// Reads all of a local block; `None` where it is gone, as a block is whose retention has passed.
    async fn look(&self, block: &LocalBlock) -> Result<Option<Local>> {
        let (disk, dir) = (self.disk.clone(), block.dir.clone());
        let looked = run_on(&*self.pool, Work::Bulk, move || Local::read(&*disk, &dir)).await;
        match looked {
            Err(tsdb::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    async fn upload(&self, block: &LocalBlock, local: &Local) -> Result<Listed> {
        let (tenant, ulid, now_ms) = (block.tenant.clone(), block.meta.ulid, self.clock.now_ms());
        let nonce = {
            let mut random = self.nonces.lock();
            u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())
        };
        let ledger = self.ledger.clone();
        let begun = on_disk(&*self.pool, move || Intent::begin(&*ledger, &tenant, ulid, nonce, now_ms)).await;
        let (intent, resumed) = begun?;
        let mut sent = Vec::with_capacity(local.files.len());
        for (name, size_bytes) in &local.files {
            sent.push(self.file(block, name, *size_bytes, resumed).await?);
        }
        let upload = Upload {
            tenant: block.tenant.as_str(),
            store: self.store.to_string(),
            cluster: self.cluster.lock().map(|cluster| cluster.to_string()),
            intent: &intent.nonce,
            time_ms: intent.began_ms,
            files: &sent,
        };
        let meta = Bytes::from(meta_to_upload(local.meta.clone(), &upload));
        let key = keys::block_file(ulid, files::BLOCK_META);
        self.bucket.put(&key, meta.clone()).await?;
        let found = self.bucket.get(&key).await?;
        // Two nodes may be given the same block at once; only who sent it, and when, differs then.
        let is_ours = |found: &Bytes| *found == meta || has_files(found, &sent);
        if !found.is_some_and(|(found, _)| is_ours(&found)) {
            return Err(Error::Corrupt {
                key: key.to_string(),
                reason: "it isn't what was just written".to_owned(),
            });
        }
        let stats = &local.meta.stats;
        Ok(Listed {
            ulid,
            min_ms: local.meta.min_ms,
            max_ms: local.meta.max_ms,
            version: 0,
            samples: stats.num_samples,
            series: stats.num_series,
            size_bytes: sent.iter().map(|file| file.size_bytes).sum::<u64>() + meta.len() as u64,
            level: local.meta.compaction.level,
            store: self.store,
        })
    }

    /// Brings one file into the bucket and reads it back.
    async fn file(
        &self,
        block: &LocalBlock,
        name: &str,
        size_bytes: u64,
        resumed: bool,
    ) -> Result<BlockFile> {
        let (path, key) = (block.dir.join(name), keys::block_file(block.meta.ulid, name));
        let crc32c = self.local_sum(&path, size_bytes).await?;
        let file = BlockFile { name: name.to_owned(), size_bytes, crc32c: Some(crc32c) };
        match self.bucket.link(&self.data_dir.join(&path), &key).await {
            Ok(true) => return Ok(file),
            Ok(false) => {}
            // Copying tells whether the file or the bucket is at fault.
            Err(error) => tracing::debug!(%key, %error, "a file can't be linked"),
        }
        if resumed && self.bucket.sum(&key, size_bytes).await? == Some(crc32c) {
            return Ok(file);
        }
        for _ in 0..ATTEMPTS {
            self.bucket.put_parts(&key, size_bytes, |part| self.local_part(&path, part)).await?;
            if self.bucket.sum(&key, size_bytes).await? == Some(crc32c) {
                return Ok(file);
            }
            tracing::warn!(%key, "the bucket gave back something else than was written, trying again");
        }
        Err(Error::Corrupt { key: key.to_string(), reason: "it isn't what was just written".to_owned() })
    }

    /// Checksum of a local file.
    async fn local_sum(&self, path: &Path, size_bytes: u64) -> Result<u32> {
        let mut sum = Checksum::new();
        for part in parts(size_bytes) {
            sum.update(&self.local_part(path, part).await?);
        }
        Ok(sum.finish())
    }

    async fn local_part(&self, path: &Path, range: std::ops::Range<u64>) -> Result<Bytes> {
        let (disk, path) = (self.disk.clone(), path.to_owned());
        let read = on_disk(&*self.pool, move || {
            let length = usize::try_from(range.end - range.start).expect("a part fits into memory");
            let mut bytes = vec![0; length];
            let read = disk.open(&path).and_then(|file| file.read_at(range.start, &mut bytes));
            read.map(|()| Bytes::from(bytes)).map_err(|e| tsdb::Error::io("read", path, e))
        });
        Ok(read.await?)
    }
}

/// Whether a `meta.json` is of a block with exactly these files.
fn has_files(meta: &[u8], files: &[BlockFile]) -> bool {
    BlockMeta::from_json(meta).ok().and_then(|meta| files_of(&meta).ok()).is_some_and(|found| found == files)
}

/// What is to be uploaded of a block.
struct Local {
    meta: BlockMeta,
    /// Names and sizes in bytes, in the order of upload.
    files: Vec<(String, u64)>,
}

impl Local {
    /// Reads all of a block, so that no damage is spread.
    fn read(disk: &dyn Disk, dir: &Path) -> tsdb::Result<Self> {
        let block = Block::open(disk, dir)?;
        let report = block.verify();
        if !report.is_clean() {
            let findings = report.problems.iter().take(FINDINGS_MAX).cloned().collect::<Vec<_>>().join("; ");
            return Err(tsdb::Error::corrupt("block", 0, findings).in_file(dir));
        }
        let mut names = Vec::new();
        let chunks = Path::new(files::BLOCK_CHUNKS_DIR);
        let listed =
            disk.list(&dir.join(chunks)).map_err(|e| tsdb::Error::io("list", dir.join(chunks), e))?;
        for entry in listed.iter().filter(|entry| files::chunk_file_number(&entry.name).is_some()) {
            names.push(chunks.join(&entry.name));
        }
        names.push(files::BLOCK_INDEX.into());
        if !block.tombstones().is_empty() {
            names.push(files::BLOCK_TOMBSTONES.into());
        }
        let sized = |name: &PathBuf| {
            let path = dir.join(name);
            let size = disk.size_bytes(&path).map_err(|e| tsdb::Error::io("open", &path, e))?;
            let size =
                size.ok_or_else(|| tsdb::Error::io("open", &path, std::io::ErrorKind::NotFound.into()))?;
            Ok((name.to_str().expect("names of blocks are ASCII").to_owned(), size))
        };
        let files = names.iter().map(sized).collect::<tsdb::Result<_>>()?;
        Ok(Self { meta: block.meta().clone(), files })
    }
}
