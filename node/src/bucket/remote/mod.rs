//! Reading listed blocks, by any node: fetched whole to the local disk, then opened like a block of one's own.
//!
//! 1. A question names the catalog that it was planned with; each block of it that may hold something is opened: from
//!    this node's own blocks where it is there, else from `cache/`, else it is fetched (`fetch`, bounded by `cache`).
//! 2. A block that isn't in the bucket is no reason to go on without it: the catalog is read again, and either the
//!    block has left it ([`Error::Replan`]: ask again with the new one) or something is wrong ([`Error::Gone`]).
//! 3. One that doesn't arrive as it was sent is fetched once more, and is an error that names it then.

mod cache;
mod fetch;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tsdb::block::Block;
use tsdb::db::Tenant;
use tsdb::disk::Disk;
use tsdb::files;
use tsdb::model::{Labels, Matcher, TenantId};
use tsdb::select::{Select, Series, merge_series};
use tsdb::weight::{Scale, Weight};
use ulid::Ulid;

use super::Bucket;
use super::catalog::{Catalog, Catalogs, Listed};
use super::error::{Error, Result};
use crate::env::{Env, Pool, Work, on_disk, run_on};
use cache::{Cache, Room};
use fetch::{Missed, damaged};

/// Blocks fetched at once; each takes a part's worth of memory.
const FETCHES: usize = 4;
/// Looks at a block that is listed and seems not to be there, before that is believed.
const LOOKS: u32 = 3;
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Fetches of a block that doesn't arrive as it was sent.
const DAMAGED_FETCHES: u32 = 2;

/// Blocks of the bucket, as this node reads them.
pub struct RemoteBlocks {
    bucket: Arc<Bucket>,
    catalogs: Arc<Catalogs>,
    disk: Arc<dyn Disk>,
    pool: Arc<dyn Pool>,
    cache: Mutex<Cache>,
    /// Numbers the folders of fetched blocks, so that one that makes way is never in the way of its return.
    fetched: AtomicU64,
    /// Room became free.
    freed: Notify,
    fetches: Semaphore,
    /// Blocks that are being fetched: whoever wants one of them waits for that.
    turns: Mutex<BTreeMap<Ulid, Arc<tokio::sync::Mutex<()>>>>,
}

/// What listed blocks weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weighed {
    /// Those at hand.
    pub weight: Weight,
    /// Number of the others.
    pub blocks_to_fetch: u64,
    /// Bytes of their files.
    pub bytes_to_fetch: u64,
}

impl RemoteBlocks {
    /// Reads blocks of `bucket`; those that are fetched take at most `cache_bytes` of `env`'s disk. Removes what a
    /// former process fetched.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn open(
        bucket: Arc<Bucket>,
        catalogs: Arc<Catalogs>,
        env: &Env,
        cache_bytes: u64,
    ) -> Result<Self> {
        let (disk, dir) = (env.disk.clone(), Path::new(files::CACHE_DIR));
        let emptied = on_disk(&*env.pool, move || match disk.remove_dir(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(tsdb::Error::io("empty", dir, e)),
            _ => disk.create_dir(dir).map_err(|e| tsdb::Error::io("create", dir, e)),
        });
        emptied.await?;
        Ok(Self {
            bucket,
            catalogs,
            disk: env.disk.clone(),
            pool: env.pool.clone(),
            cache: Mutex::new(Cache::new(cache_bytes)),
            fetched: AtomicU64::new(0),
            freed: Notify::new(),
            fetches: Semaphore::new(FETCHES),
            turns: Mutex::default(),
        })
    }

    /// Answers several questions about a tenant from the blocks that `catalog` lists: for each the series that match,
    /// sorted by labels. `local` is the tenant on this node, whose blocks are read where they lie.
    ///
    /// # Errors
    /// [`Error::Replan`], [`Error::Gone`], [`Error::Corrupt`] name a block; the others say what keeps the bucket from
    /// answering. There is no answer without a block.
    pub async fn select(
        &self,
        tenant: &TenantId,
        catalog: &Catalog,
        local: Option<&Tenant>,
        selects: &[Select],
    ) -> Result<Vec<Vec<Series>>> {
        let mut answers = Vec::with_capacity(selects.len());
        for select in selects {
            let mut found = Vec::new();
            for listed in catalog.blocks_in(&select.range_ms) {
                let (block, select) = (self.block(tenant, listed, local).await?, select.clone());
                found.push(self.ask(listed.ulid, move || block.select(&select)).await?);
            }
            let merged = run_on(&*self.pool, Work::LargeQuery, move || merge_series(found)).await;
            answers.push(merged.map_err(Error::from)?);
        }
        Ok(answers)
    }

    /// Names of labels in the blocks of a range (in milliseconds, both ends included) that `catalog` lists.
    ///
    /// # Errors
    /// Those of [`RemoteBlocks::select`].
    pub async fn label_names(
        &self,
        tenant: &TenantId,
        catalog: &Catalog,
        local: Option<&Tenant>,
        matchers: &[Matcher],
        range_ms: &RangeInclusive<i64>,
    ) -> Result<BTreeSet<String>> {
        let matchers = matchers.to_vec();
        self.gather(tenant, catalog, local, range_ms, move |block| block.label_names(&matchers)).await
    }

    /// Values of a label, as [`RemoteBlocks::label_names`].
    ///
    /// # Errors
    /// Those of [`RemoteBlocks::select`].
    pub async fn label_values(
        &self,
        tenant: &TenantId,
        catalog: &Catalog,
        local: Option<&Tenant>,
        name: &str,
        matchers: &[Matcher],
        range_ms: &RangeInclusive<i64>,
    ) -> Result<BTreeSet<String>> {
        let (name, matchers) = (name.to_owned(), matchers.to_vec());
        self.gather(tenant, catalog, local, range_ms, move |block| block.label_values(&name, &matchers)).await
    }

    /// Labels of the series that match and have chunks in the range, as [`RemoteBlocks::label_names`].
    ///
    /// # Errors
    /// Those of [`RemoteBlocks::select`].
    pub async fn series(
        &self,
        tenant: &TenantId,
        catalog: &Catalog,
        local: Option<&Tenant>,
        matchers: &[Matcher],
        range_ms: &RangeInclusive<i64>,
    ) -> Result<BTreeSet<Labels>> {
        let (matchers, within_ms) = (matchers.to_vec(), range_ms.clone());
        self.gather(tenant, catalog, local, range_ms, move |block| block.series(&matchers, &within_ms)).await
    }

    /// What reading the series would take that any of the selectors matches in the listed blocks of a range. None is
    /// fetched for it: those that aren't at hand are counted.
    ///
    /// # Errors
    /// Those of [`RemoteBlocks::select`].
    pub async fn weigh(
        &self,
        catalog: &Catalog,
        local: Option<&Tenant>,
        selectors: &[Vec<Matcher>],
        range_ms: &RangeInclusive<i64>,
    ) -> Result<Weighed> {
        let mut weighed = Weighed::default();
        let mut scale = Scale::new(range_ms.clone());
        for listed in catalog.blocks_in(range_ms) {
            let Some(block) = self.at_hand(listed.ulid, local) else {
                weighed.blocks_to_fetch += 1;
                weighed.bytes_to_fetch += listed.size_bytes;
                continue;
            };
            let selectors = selectors.to_vec();
            let weigh = move || {
                let each = |matchers: &Vec<Matcher>| block.weigh(matchers, &|_| true, &mut scale);
                selectors.iter().try_for_each(each).map(|()| scale)
            };
            scale = self.ask(listed.ulid, weigh).await?;
        }
        weighed.weight = scale.weight();
        Ok(weighed)
    }

    /// A block that needs no fetching.
    fn at_hand(&self, ulid: Ulid, local: Option<&Tenant>) -> Option<Block> {
        local.and_then(|tenant| tenant.block(ulid)).or_else(|| self.cache.lock().get(ulid))
    }

    /// What the listed blocks of a range say to one question, each thing once.
    async fn gather<T: Ord, Told: IntoIterator<Item = T> + Send + 'static>(
        &self,
        tenant: &TenantId,
        catalog: &Catalog,
        local: Option<&Tenant>,
        range_ms: &RangeInclusive<i64>,
        question: impl Fn(&Block) -> tsdb::Result<Told> + Clone + Send + 'static,
    ) -> Result<BTreeSet<T>> {
        let mut found = BTreeSet::new();
        for listed in catalog.blocks_in(range_ms) {
            let (block, question) = (self.block(tenant, listed, local).await?, question.clone());
            found.extend(self.ask(listed.ulid, move || question(&block)).await?);
        }
        Ok(found)
    }

    /// Bytes of this node's disk that fetched blocks take.
    pub fn cache_bytes(&self) -> u64 {
        self.cache.lock().taken_bytes()
    }

    async fn ask<T: Send + 'static>(
        &self,
        ulid: Ulid,
        question: impl FnOnce() -> tsdb::Result<T> + Send + 'static,
    ) -> Result<T> {
        run_on(&*self.pool, Work::LargeQuery, question).await.map_err(|e| damaged(ulid, e))
    }

    /// A listed block, opened.
    async fn block(&self, tenant: &TenantId, listed: &Listed, local: Option<&Tenant>) -> Result<Block> {
        let ulid = listed.ulid;
        if let Some(block) = self.at_hand(ulid, local) {
            return Ok(block);
        }
        let turn = {
            let mut turns = self.turns.lock();
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(ulid).or_default().clone()
        };
        let _turn = turn.lock().await;
        let cached = self.cache.lock().get(ulid);
        match cached {
            Some(block) => Ok(block),
            None => self.look_for(tenant, ulid).await,
        }
    }

    async fn look_for(&self, tenant: &TenantId, ulid: Ulid) -> Result<Block> {
        let (mut looks, mut damages) = (0, 0);
        loop {
            let missed = match self.bring(ulid).await {
                Ok(block) => return Ok(block),
                Err(missed) => missed,
            };
            match missed {
                Missed::Absent(what) => {
                    looks += 1;
                    if self.catalogs.refresh(tenant).await?.block(ulid).is_none() {
                        return Err(Error::Replan { block: ulid });
                    }
                    if looks == LOOKS {
                        return Err(Error::Gone { block: ulid, detail: format!("{what} isn't there") });
                    }
                    tokio::time::sleep(LOOK_PAUSE).await;
                }
                Missed::Failed(Error::Corrupt { key, reason }) => {
                    damages += 1;
                    if damages == DAMAGED_FETCHES {
                        return Err(Error::Corrupt { key, reason });
                    }
                    tracing::warn!(block = %ulid, key, reason, "a block didn't arrive as it was sent, trying again");
                }
                Missed::Failed(error) => return Err(error),
            }
        }
    }

    async fn bring(&self, ulid: Ulid) -> Result<Block, Missed> {
        let _fetch = self.fetches.acquire().await.expect("nobody closes it");
        let contents = self.contents(ulid).await?;
        let room = Reserved::take(self, ulid, contents.size_bytes).await?;
        let block = self.fetch(ulid, &contents).await?;
        room.keep(&block);
        Ok(block)
    }
}

/// Room in the cache for a fetch; given back when it is dropped, also by a question that nobody waits for any more.
struct Reserved<'a> {
    of: &'a RemoteBlocks,
    size_bytes: u64,
    kept: bool,
}

impl<'a> Reserved<'a> {
    async fn take(of: &'a RemoteBlocks, ulid: Ulid, size_bytes: u64) -> Result<Self> {
        let removed = loop {
            let freed = of.freed.notified();
            let room = of.cache.lock().reserve(size_bytes);
            match room {
                Room::Reserved(removed) => break removed,
                Room::Wait => freed.await,
                Room::Never => {
                    return Err(Error::Limit(format!(
                        "block {ulid} has {size_bytes} bytes, more than fetched blocks may take on this node: raise \
                         storage.bucket_cache"
                    )));
                }
            }
        };
        let room = Self { of, size_bytes, kept: false };
        for dir in removed {
            of.remove(dir).await;
        }
        Ok(room)
    }

    fn keep(mut self, block: &Block) {
        self.of.cache.lock().insert(block, self.size_bytes);
        self.kept = true;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.of.cache.lock().release(self.size_bytes);
        }
        // One that made room for itself may leave some for others too.
        self.of.freed.notify_waiters();
    }
}
