//! The engine's front: tenants' series go in, questions are answered, and blocks come to be.
//!
//! | module | what it holds |
//! |---|---|
//! | `tenant` | look-up, interning, appending |
//! | `ask` | selecting, label names and values, series, exemplars, metadata |
//! | `needed` | selecting no more than a question looks at |
//! | `weigh` | what a selection would take |
//! | `contents` | what there is by time, for comparing it with other nodes |
//! | `order` | series by labels, kept for questions that want nearly all of them |
//! | `core` | what tenants share: shards, keys, WAL |
//! | `restore` | opening: blocks, checkpoints, replay of the WAL |
//! | `replay` | how far that is, for whoever waits |
//! | `maintain` | what has to be done every few seconds: cutting, checkpoints, and what the next three do |
//! | `collect` | series without samples out of the head |
//! | `retention` | which blocks have had their time |
//! | `ranges` | the life of an aligned range, from its first sample to its block |
//! | `cut` | one range of one tenant into a block |
//! | `discard` | blocks whose folders have to go |
//!
//! An append goes shard by shard: under the shard's lock the samples enter the head and then the WAL's buffer, so that
//! both have one order and a duplicate is never told before its original is in the buffer. What is told to the client
//! waits for [`Db::commit`].
//!
//! Locks are taken in this order, and none is held across another call: shard, postings, keys, ranges;
//! changed. A question that must see one moment shares the tenant's `blocks_gate` and takes the others below it; a cut and
//! maintenance hold it alone, and with none of the others, to change which blocks are seen.

mod ask;
mod collect;
mod contents;
mod core;
mod cut;
mod discard;
mod keys;
mod known;
mod log;
mod maintain;
mod needed;
mod order;
mod ranges;
mod replay;
mod restore;
mod retention;
mod settings;
mod stats;
mod tenant;
mod types;
mod weigh;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, RwLock};

pub use self::contents::{ContentStamp, WINDOW_MS};
use self::core::Core;
use self::maintain::Housekeeping;
pub use self::maintain::{Maintenance, Problem};
pub use self::replay::{Replay, ReplayProgress};
pub use self::restore::{Damaged, Recovery};
pub use self::settings::{DbSettings, SHARDS_MAX, TenantSettings};
pub use self::stats::{Cardinality, DbStats, TenantStats};
pub use self::tenant::Tenant;
pub use self::types::{
    Append, Bounds, Exemplar, Metadata, Outcome, SERIES_ALIASES_MAX, SERIES_LABELS_BYTES_MAX,
    SeriesExemplars, SeriesKey,
};
use crate::block::{Block, BlockMeta};
use crate::disk::Disk;
pub use crate::head::SeriesRef;
use crate::model::TenantId;
use crate::wal::WalPosition;
use crate::workers::Workers;
use crate::{Error, Result, files};

/// Most tenants of a node: each costs a few hundred bytes even when idle.
pub const TENANTS_MAX: usize = 1_000_000;

/// One node's storage. Shared by reference between any number of threads.
pub struct Db {
    core: Arc<Core>,
    tenants: RwLock<Tenants>,
    housekeeping: Mutex<Housekeeping>,
}

/// A moment of this process, told apart by what had been appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// A block on this node's disk.
#[derive(Clone, Debug)]
pub struct LocalBlock {
    /// Whose it is.
    pub tenant: TenantId,
    /// What it says of itself.
    pub meta: BlockMeta,
    /// Its folder, on the disk that the database was opened on.
    pub dir: PathBuf,
}

#[derive(Default)]
struct Tenants {
    by_id: BTreeMap<TenantId, Arc<Tenant>>,
    by_index: Vec<Arc<Tenant>>,
}

impl Db {
    /// Opens a data folder, or begins one. `now_ms` is the wall clock; `seed` is secret and new for every process, and
    /// is where block names and keys' salts come from. `workers` share the replay.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NoSpace`]; [`Error::Invalid`] when a newer version wrote the folder. Damage is no error:
    /// it is in [`Recovery`], and everything else is there.
    pub fn open(
        disk: Arc<dyn Disk>,
        settings: DbSettings,
        now_ms: i64,
        seed: u128,
        workers: &dyn Workers,
    ) -> Result<(Self, Recovery)> {
        Self::open_watched(disk, settings, now_ms, seed, workers, &Replay::default())
    }

    /// As [`Db::open`], telling `replay` how far it is.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub fn open_watched(
        disk: Arc<dyn Disk>,
        settings: DbSettings,
        now_ms: i64,
        seed: u128,
        workers: &dyn Workers,
        replay: &Replay,
    ) -> Result<(Self, Recovery)> {
        restore::open(disk, settings, now_ms, seed, workers, replay)
    }

    /// A tenant, which begins to exist where it didn't; nothing is stored for it before its first sample.
    ///
    /// # Errors
    /// [`Error::Limit`] at [`TENANTS_MAX`].
    pub fn tenant(&self, id: &TenantId) -> Result<Arc<Tenant>> {
        if let Some(tenant) = self.existing_tenant(id) {
            return Ok(tenant);
        }
        let mut tenants = self.tenants.write();
        if let Some(tenant) = tenants.by_id.get(id) {
            return Ok(Arc::clone(tenant));
        }
        if tenants.by_index.len() >= TENANTS_MAX {
            return Err(Error::Limit(format!("this node has {TENANTS_MAX} tenants, and takes no more")));
        }
        let tenant = Arc::new(Tenant::new(id.clone(), tenants.by_index.len() as u32, Arc::clone(&self.core)));
        tenants.by_index.push(Arc::clone(&tenant));
        tenants.by_id.insert(id.clone(), Arc::clone(&tenant));
        Ok(tenant)
    }

    /// A tenant that was written to, or that somebody asked [`Db::tenant`] for: what a question should use.
    pub fn existing_tenant(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.tenants.read().by_id.get(id).cloned()
    }

    /// All tenants, by name.
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenants.read().by_id.values().cloned().collect()
    }

    /// Makes everything appended so far safe, with one sync for all callers that wait. Returns up to where the WAL is
    /// safe.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: nothing is lost, call again when there is room. [`Error::Stopped`] for good.
    pub fn commit(&self) -> Result<WalPosition> {
        self.core.wal.commit()
    }

    /// Up to where the WAL is safe.
    pub fn durable(&self) -> WalPosition {
        self.core.wal.durable()
    }

    /// A mark behind everything that was appended so far, by appends that have returned, for [`Db::is_flushed`].
    pub fn mark(&self) -> Mark {
        Mark(self.core.marks.fetch_add(1, Ordering::AcqRel))
    }

    /// Whether everything that was appended before a mark is in blocks. [`Db::flush`] makes it so, and so does
    /// maintenance in its time.
    pub fn is_flushed(&self, mark: Mark) -> bool {
        self.tenants.read().by_index.iter().all(|tenant| tenant.ranges.is_flushed(mark.0))
    }

    /// All blocks of this disk that can be read, by tenant and first sample.
    pub fn local_blocks(&self) -> Vec<LocalBlock> {
        let mut found = Vec::new();
        for tenant in self.tenants() {
            for block in tenant.blocks.load().iter() {
                let (meta, dir) = (block.meta().clone(), block.dir().to_owned());
                found.push(LocalBlock { tenant: tenant.id.clone(), meta, dir });
            }
        }
        found
    }

    /// Why the store has stopped for good, if it has: a sync failed, so only a restart knows what the disk has.
    pub fn stop_reason(&self) -> Option<String> {
        self.core.check_running().err().map(|error| error.to_string())
    }

    /// Adds a block that lies complete in `dir`, a folder of this disk, to a tenant: it is moved to where the tenant's
    /// blocks are. Whoever imports it has verified it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the tenant has this block already; those of [`Block::open`]. Nothing is moved then.
    pub fn add_block(&self, id: &TenantId, dir: &Path) -> Result<()> {
        let housekeeping = self.housekeeping.lock();
        let tenant = self.tenant(id)?;
        let ulid = Block::open(&*self.core.disk, dir)?.meta().ulid;
        let parent = files::tenant(id);
        let to = parent.join(ulid.to_string());
        if to != dir {
            if tenant.blocks.load().iter().any(|block| block.meta().ulid == ulid) {
                return Err(Error::Invalid(format!("tenant {id} has block {ulid} already")));
            }
            self.core.create_dir(&parent)?;
            self.core.disk.rename(dir, &to).map_err(|e| Error::io("rename", dir, e))?;
        }
        let sync = || self.core.disk.sync_dir(&parent).map_err(|e| Error::io("sync", &parent, e));
        match sync().and_then(|()| Block::open(&*self.core.disk, &to)) {
            Ok(block) => tenant.show_block(&block),
            Err(error) => {
                if to != dir {
                    // Else the block would be there unseen, and in the way of whoever tries again.
                    let _ = self.core.disk.rename(&to, dir);
                }
                return Err(error);
            }
        }
        drop(housekeeping);
        Ok(())
    }

    /// Writes down what is in memory, so that the next start has next to nothing to replay. Appends are refused
    /// afterwards.
    ///
    /// # Errors
    /// Those of [`Db::commit`] and of the disk: nothing acked is lost, the next start takes longer.
    pub fn seal(&self) -> Result<()> {
        let mut housekeeping = self.housekeeping.lock();
        self.checkpoint(&mut housekeeping)?;
        self.core.wal.close().map(drop)
    }
}

#[cfg(test)]
mod tests;
