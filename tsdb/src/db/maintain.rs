//! What has to be done every few seconds: ranges cut, series collected, checkpoints written, old blocks removed.
//!
//! A failure of one part doesn't keep the others from being tried: retention may make the room that a cut lacks.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ulid::Ulid;

use super::Db;
use super::collect::Collection;
use super::ranges::CutTerms;
use super::tenant::Tenant;
use crate::block::BlockMeta;
use crate::clock::{ClockCheck, ClockReading};
use crate::disk::DiskFile;
use crate::head::checkpoint::{CheckpointHeader, CheckpointTenant, encode};
use crate::model::TenantId;
use crate::wal::WalPosition;
use crate::{Error, Result, files};

/// After this long without a sample, in milliseconds of monotonic time, all of a tenant's ranges are cut.
const IDLE_MS: u64 = 60 * 60 * 1000;

/// Random names tried for a block. Two processes with one seed give the same names; others never do.
const ULID_TRIES_MAX: usize = 16;

/// What a maintenance did.
#[derive(Debug, Default)]
pub struct Maintenance {
    /// Blocks that were cut.
    pub cut: Vec<(TenantId, BlockMeta)>,
    /// Blocks whose time had come, and which are removed.
    pub removed: Vec<(TenantId, BlockMeta)>,
    /// Series that had no samples any more.
    pub collected: u64,
    /// Whether checkpoints were written.
    pub checkpoint: bool,
    /// What didn't work: it is tried again the next time.
    pub problems: Vec<Problem>,
}

/// Something that didn't work.
#[derive(Debug)]
pub struct Problem {
    /// Whose it is; `None` for the node's.
    pub tenant: Option<TenantId>,
    /// What happened.
    pub error: Error,
    /// Timestamps that are lost by it, in milliseconds; `None` when nothing is.
    pub lost_ms: Option<RangeInclusive<i64>>,
}

/// What maintenance remembers from one time to the next.
pub(super) struct Housekeeping {
    rng: StdRng,
    /// When it last ran, by the wall clock.
    now_ms: i64,
    clock: ClockCheck,
    collection: Collection,
    /// What the WAL had appended at the last checkpoint.
    checkpointed_bytes: u64,
    shards: Vec<ShardFiles>,
}

/// Files of a shard that a checkpoint decides about.
#[derive(Debug, Default)]
pub(super) struct ShardFiles {
    /// Number of the next checkpoint.
    pub(super) next: u32,
    /// The last checkpoint, and where it is in the WAL.
    pub(super) kept: Option<(u32, WalPosition)>,
    /// Head-chunk files that no series needs, and the checkpoint before which that was so: they go when no checkpoint
    /// older than it is left.
    pub(super) retired: Vec<(u32, u32)>,
}

impl Housekeeping {
    pub(super) fn new(now_ms: i64, seed: u128, checkpointed_bytes: u64, shards: Vec<ShardFiles>) -> Self {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&seed.to_le_bytes());
        Self {
            rng: StdRng::from_seed(bytes),
            now_ms,
            clock: ClockCheck::default(),
            collection: Collection::default(),
            checkpointed_bytes,
            shards,
        }
    }

    /// A name for a new block of a tenant. Never one that a folder has: a cut that fails removes what has its name.
    fn new_ulid(&mut self, tenant: &Tenant) -> Result<Ulid> {
        for _ in 0..ULID_TRIES_MAX {
            let ulid = Ulid::from_parts(self.now_ms.max(0).cast_unsigned(), self.rng.random());
            let folder = files::tenant(&tenant.id).join(ulid.to_string());
            match tenant.core.disk.list(&folder) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(ulid),
                Err(error) => return Err(Error::io("look for", folder, error)),
            }
        }
        Err(Error::Limit(format!("{ULID_TRIES_MAX} random names of blocks are all taken: restart the node")))
    }
}

impl Db {
    /// Does what is due. To be called every few seconds, by one thread at a time (others wait). What is cut when is decided
    /// by samples and monotonic time; blocks are removed only at a wall-clock time that several readings confirm.
    ///
    /// # Errors
    /// [`Error::Stopped`] for good. Everything else is in [`Maintenance::problems`].
    pub fn maintain(&self, now: ClockReading) -> Result<Maintenance> {
        let mut housekeeping = self.housekeeping.lock();
        housekeeping.now_ms = now.wall_ms;
        let confirmed_ms = housekeeping.clock.confirm(now);
        let mut done = Maintenance::default();
        self.drop_damaged(&mut done);
        self.flush_chunks(&mut done);
        for tenant in self.tenants() {
            tenant.refresh_order(now.elapsed_ms);
            if let Err(error) = tenant.remove_discarded() {
                done.problems.push(Problem { tenant: Some(tenant.id.clone()), error, lost_ms: None });
            }
            if let Some(confirmed_ms) = confirmed_ms {
                tenant.remove_old(confirmed_ms, now.elapsed_ms, &mut done);
            }
            self.cut_ranges(&tenant, tenant.due(now.elapsed_ms), &mut housekeeping, &mut done);
        }
        if done.cut.is_empty() {
            done.collected = self.collect_some(&mut housekeeping.collection, now.elapsed_ms);
        }
        self.end_maintenance(housekeeping, done)
    }

    /// Cuts everything there is: the head is empty afterwards, but for what came meanwhile. `now_ms` is the wall clock,
    /// for the blocks' names.
    ///
    /// # Errors
    /// Those of [`Db::maintain`].
    pub fn flush(&self, now_ms: i64) -> Result<Maintenance> {
        let mut housekeeping = self.housekeeping.lock();
        housekeeping.now_ms = now_ms;
        let mut done = Maintenance::default();
        self.drop_damaged(&mut done);
        for tenant in self.tenants() {
            self.cut_ranges(&tenant, tenant.ranges.starts_ms(), &mut housekeeping, &mut done);
        }
        self.end_maintenance(housekeeping, done)
    }

    /// Cuts ranges of a tenant, up to the first that fails.
    fn cut_ranges(
        &self,
        tenant: &Tenant,
        starts_ms: Vec<i64>,
        housekeeping: &mut Housekeeping,
        done: &mut Maintenance,
    ) {
        for start_ms in starts_ms {
            match housekeeping.new_ulid(tenant).and_then(|ulid| tenant.cut(start_ms, ulid)) {
                Ok(meta) => done.cut.extend(meta.map(|meta| (tenant.id.clone(), meta))),
                Err(error) => {
                    done.problems.push(Problem { tenant: Some(tenant.id.clone()), error, lost_ms: None });
                    return;
                }
            }
        }
    }

    /// Collects what cuts have emptied, and writes checkpoints where it is time to.
    fn end_maintenance(
        &self,
        mut housekeeping: MutexGuard<'_, Housekeeping>,
        mut done: Maintenance,
    ) -> Result<Maintenance> {
        if !done.cut.is_empty() {
            done.collected = self.collect_all(&mut housekeeping.collection);
        }
        let core = &self.core;
        let is_unlogged = core.unlogged.load(Ordering::Acquire) != core.made_good.load(Ordering::Acquire);
        let logged = core.wal.appended_bytes() - housekeeping.checkpointed_bytes;
        if is_unlogged || !done.cut.is_empty() || logged >= core.settings.checkpoint_bytes {
            match self.checkpoint(&mut housekeeping) {
                Ok(()) => done.checkpoint = true,
                Err(error @ Error::Stopped(_)) => return Err(error),
                Err(error) => done.problems.push(Problem { tenant: None, error, lost_ms: None }),
            }
        }
        Ok(done)
    }

    /// Writes or maps head chunks that wait in memory since that failed before.
    fn flush_chunks(&self, done: &mut Maintenance) {
        for shard in &self.core.shards {
            let is_behind = {
                let shard = shard.read();
                shard.chunks.is_overdue() || shard.chunks.is_unmapped()
            };
            if is_behind && let Err(error) = shard.write().chunks.flush() {
                done.problems.push(Problem { tenant: None, error, lost_ms: None });
            }
        }
    }

    /// Takes out head chunks that a question couldn't read.
    fn drop_damaged(&self, done: &mut Maintenance) {
        if !self.core.suspect.swap(false, Ordering::AcqRel) {
            return;
        }
        for shard in &self.core.shards {
            for (tenant, times_ms, error) in shard.write().drop_unreadable() {
                let tenant = self.tenant_at(tenant).map(|tenant| {
                    tenant.changed.lock().note_all();
                    tenant.id.clone()
                });
                done.problems.push(Problem { tenant, error, lost_ms: Some(times_ms) });
            }
        }
    }

    pub(super) fn tenant_at(&self, index: u32) -> Option<Arc<Tenant>> {
        self.tenants.read().by_index.get(index as usize).cloned()
    }

    /// Writes a checkpoint of every shard, and frees the WAL that only older ones need.
    pub(super) fn checkpoint(&self, housekeeping: &mut Housekeeping) -> Result<()> {
        let core = &self.core;
        let unlogged = core.unlogged.load(Ordering::Acquire);
        let appended_bytes = core.wal.appended_bytes();
        let mut needed = Vec::new();
        for (index, files) in housekeeping.shards.iter_mut().enumerate() {
            let before = files.kept;
            self.checkpoint_shard(index, files)?;
            needed.push(before.map_or(WalPosition::START, |(_, position)| position));
        }
        core.made_good.fetch_max(unlogged, Ordering::AcqRel);
        housekeeping.checkpointed_bytes = appended_bytes;
        if let Some(position) = needed.into_iter().min() {
            core.wal.truncate_before(position)?;
        }
        Ok(())
    }

    fn checkpoint_shard(&self, index: usize, shard_files: &mut ShardFiles) -> Result<()> {
        let core = &self.core;
        let dir = files::head_shard(index);
        let number = shard_files.next;
        let (bytes, unsynced, position) = {
            let mut shard = core.shards[index].write();
            let retired = shard.forget_files();
            shard_files.retired.extend(retired.into_iter().map(|file| (file, number)));
            // Not more than written: where the system has no further memory maps, the chunks are safe all the same.
            shard.chunks.write_tails()?;
            // What the WAL has made safe needs no replay; nothing of this shard is on its way, under its lock.
            let position = shard.logged.max(core.wal.durable());
            let header = CheckpointHeader {
                bits: core.bits(),
                position,
                files_end: shard.chunks.end(),
                generation: core.generation.load(Ordering::Acquire),
            };
            let mut tenant = |index| {
                let tenant = self.tenant_at(index).expect("series belong to tenants");
                CheckpointTenant {
                    id: tenant.id.clone(),
                    cut_until_ms: tenant.cut_until_ms.load(Ordering::Acquire),
                }
            };
            (encode(&shard, &header, &mut tenant), shard.chunks.unsynced(), position)
        };
        // The position must not be ahead of what a crash leaves: the WAL would go on below it.
        if planted::is(planted::Bug::CheckpointForgetsFiles) {
            core.shards[index].write().chunks.note_synced(&unsynced);
        }
        if !planted::is(planted::Bug::CheckpointAheadOfLog) {
            core.wal.commit()?;
        }
        if !planted::is(planted::Bug::CheckpointNamesUnsynced) {
            unsynced.iter().try_for_each(|unsynced| core.sync(&*unsynced.file))?;
        }
        core.shards[index].write().chunks.note_synced(&unsynced);
        let unfinished = files::checkpoint_unfinished(&dir);
        let path = files::checkpoint(&dir, number);
        core.write_file(&unfinished, &bytes)?;
        core.disk.rename(&unfinished, &path).map_err(|e| Error::io("rename", &path, e))?;
        core.disk.sync_dir(&dir).map_err(|e| Error::io("sync", &dir, e))?;
        shard_files.next += 1;
        let before = shard_files.kept.replace((number, position));
        self.remove_stale(index, shard_files, before.map(|(number, _)| number));
        Ok(())
    }

    /// Removes checkpoints but for the last two, and head-chunk files that neither names. What can't be removed now is
    /// tried again with the next checkpoint.
    fn remove_stale(&self, index: usize, shard_files: &mut ShardFiles, before: Option<u32>) {
        let disk = &self.core.disk;
        let dir = files::head_shard(index);
        let kept = shard_files.kept.map(|(number, _)| number);
        for entry in disk.list(&dir).unwrap_or_default() {
            if let Some(number) = files::parse_checkpoint(&entry.name)
                && Some(number) != kept
                && Some(number) != before
            {
                let _ = disk.remove_file(&dir.join(&entry.name));
            }
        }
        let Some(oldest) = before else { return };
        shard_files.retired.retain(|(file, since)| {
            *since > oldest || disk.remove_file(&files::head_chunks(&dir, *file)).is_err()
        });
    }
}

impl super::core::Core {
    /// Makes a file's writes safe. After a failure nobody knows what the disk has: the store stops.
    fn sync(&self, file: &dyn DiskFile) -> Result<()> {
        file.sync().map_err(|error| {
            self.stopped.store(true, Ordering::Release);
            Error::Stopped(format!("a head-chunk file can't be synced: {error}"))
        })
    }

    /// Writes a whole file and makes its content safe; its name isn't yet. What is there is replaced.
    fn write_file(&self, path: &std::path::Path, bytes: &[u8]) -> Result<()> {
        match self.disk.remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", path, error));
            }
            _ => {}
        }
        let file = self.disk.create(path).map_err(|e| Error::io("create", path, e))?;
        file.write_at(0, bytes).map_err(|e| Error::io("write", path, e))?;
        if planted::is(planted::Bug::CheckpointUnsynced) {
            return Ok(());
        }
        // A failed sync spoils this file alone, which nobody relies on and which the next attempt replaces.
        file.sync().map_err(|e| Error::io("sync", path, e))
    }

    /// Makes a folder below the data folder, and its name safe.
    pub(super) fn create_dir(&self, dir: &std::path::Path) -> Result<()> {
        self.disk.create_dir(dir).map_err(|e| Error::io("create", dir, e))?;
        let parent = dir.parent().unwrap_or(dir);
        self.disk.sync_dir(parent).map_err(|e| Error::io("sync", parent, e))
    }
}

impl Tenant {
    /// Starts of the ranges that are to be cut now, oldest first.
    fn due(&self, elapsed_ms: u64) -> Vec<i64> {
        let stored = self.counters.stored.load(Ordering::Relaxed);
        let is_idle = {
            let mut idle = self.idle.lock();
            if idle.0 != stored {
                *idle = (stored, elapsed_ms);
            }
            elapsed_ms.saturating_sub(idle.1) >= IDLE_MS
        };
        self.ranges.due(&CutTerms {
            elapsed_ms,
            newest_ms: self.newest_ms.load(Ordering::Acquire),
            cut_until_ms: self.cut_until_ms.load(Ordering::Acquire),
            out_of_order_window_ms: self.settings().out_of_order_window_ms,
            is_idle,
        })
    }
}
