//! What all tenants of a node share: shards, keys, WAL, disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{RwLock, RwLockWriteGuard};

use super::keys::Keys;
use super::log::Buffers;
use super::settings::{DbSettings, SHARDS_MAX};
use crate::disk::Disk;
use crate::head::SeriesRef;
use crate::head::append::Log;
use crate::head::shard::Shard;
use crate::model::TenantId;
use crate::wal::{Appended, Wal};
use crate::{Error, Result};

/// The parts of the engine below its tenants.
pub(crate) struct Core {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) settings: DbSettings,
    /// Secret of this process.
    pub(super) seed: u128,
    pub(super) shards: Box<[RwLock<Shard>]>,
    pub(super) keys: Keys,
    pub(super) wal: Wal,
    /// Generation of series made now; raised before slots are emptied.
    pub(super) generation: AtomicU32,
    /// Raised by every [`Mark`](super::Mark): tells what came before from what came after.
    pub(super) marks: AtomicU64,
    /// How often the WAL refused what memory had taken. Nothing may be acked until a checkpoint holds it, since a
    /// sender that comes again would be told *duplicate*.
    pub(super) unlogged: AtomicU64,
    /// How many of those times a checkpoint has made good.
    pub(super) made_good: AtomicU64,
    /// Whether a head-chunk file couldn't be synced: what it holds is unknown then.
    pub(super) stopped: AtomicBool,
    /// Whether a head chunk couldn't be read: maintenance then looks at all of them.
    pub(super) suspect: AtomicBool,
}

/// log2 of the number of shards that settings ask for.
pub(super) fn shard_bits(shards: usize) -> u32 {
    shards.clamp(1, SHARDS_MAX).next_power_of_two().trailing_zeros()
}

impl Core {
    /// The shard of a series by the hashes of its tenant and labels; fixed with the data folder.
    pub(super) fn shard_of(&self, tenant_hash: u64, labels_hash: u64) -> usize {
        shard_of(self.bits(), tenant_hash, labels_hash)
    }

    /// log2 of the number of shards.
    pub(super) fn bits(&self) -> u32 {
        self.shards.len().trailing_zeros()
    }

    /// The shard of a ref.
    pub(super) fn shard_of_ref(&self, series: SeriesRef) -> usize {
        series.local_id() as usize & (self.shards.len() - 1)
    }

    /// # Errors
    /// [`Error::Stopped`] after a failed sync of the WAL or of a head-chunk file.
    pub(super) fn check_running(&self) -> Result<()> {
        self.check_head_files()?;
        self.wal.check_running()
    }

    fn check_head_files(&self) -> Result<()> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(Error::Stopped("a head-chunk file couldn't be synced".to_owned()));
        }
        Ok(())
    }

    /// # Errors
    /// [`Error::Busy`] while something that was taken into memory isn't safe on the disk; [`Error::NoSpace`] while the
    /// WAL waits for room; [`Error::Stopped`] where it never will be.
    pub(super) fn check_writable(&self) -> Result<()> {
        self.check_head_files()?;
        if self.unlogged.load(Ordering::Acquire) != self.made_good.load(Ordering::Acquire) {
            self.wal.check_running()?;
            return Err(Error::Busy("samples in memory wait to be written down".to_owned()));
        }
        self.wal.check_room()
    }

    /// Writes what a shard has taken to the WAL while its lock is held, so that the WAL's order is the shard's.
    /// `segment` is the one that `log` was made for.
    ///
    /// # Errors
    /// Those of [`Wal::append`]. What was taken stays in memory; appends are refused until a checkpoint has it.
    pub(super) fn log(
        &self,
        shard: &mut RwLockWriteGuard<'_, Shard>,
        tenant: &TenantId,
        mut segment: u32,
        log: &mut Log,
        buffers: &mut Buffers,
    ) -> Result<()> {
        buffers.encode(log);
        loop {
            buffers.encode_definitions(shard, log);
            match self.append_frames(Some(segment), &buffers.frames(tenant, shard.index() as u8)) {
                Ok(Appended::At(position)) => {
                    shard.logged = position;
                    return Ok(());
                }
                Ok(Appended::Moved(to)) => {
                    segment = to;
                    shard.define_again(segment, log);
                }
                Err(error) => {
                    self.unlogged.fetch_add(1, Ordering::AcqRel);
                    return Err(error);
                }
            }
        }
    }

    /// Appends frames; where too much waits for a commit, it commits first. Others may fill the buffer meanwhile, and the
    /// head has these samples already, so they are taken then whatever waits: one log of each shard at most.
    pub(super) fn append_frames(
        &self,
        segment: Option<u32>,
        frames: &[crate::wal::Frame<'_>],
    ) -> Result<Appended> {
        match self.wal.append(segment, frames) {
            Err(Error::Limit(_)) => {
                self.wal.commit()?;
                self.wal.append_over(segment, frames)
            }
            result => result,
        }
    }
}

/// As [`Core::shard_of`], for `1 << bits` shards.
pub(super) fn shard_of(bits: u32, tenant_hash: u64, labels_hash: u64) -> usize {
    let mixed = (tenant_hash ^ labels_hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The top bits, in two steps: there is no shift by 64.
    (mixed >> 32 >> (32 - bits)) as usize
}
