//! Opening a data folder: blocks, then each shard's checkpoint, then the WAL behind it.
//!
//! 1. Blocks are opened; those that can't be are left where they are, and reported.
//! 2. A shard takes its newest checkpoint that can be read, and the one before if need be: the WAL is kept for both.
//!    Finished chunks are checked one by one; a damaged one is left out, and reported with its time range.
//! 3. The WAL is replayed from the earliest position that a shard needs. Each shard takes the records behind its own
//!    checkpoint; a cut whose block is there drops what the block has.
//! 4. Series without samples go, and tenants get their postings.
//!
//! Shards know nothing of each other, so 2 to 4 run side by side, a segment of the WAL at a time (`shard`, `by_label`);
//! what comes out is the same on any number of threads.

mod by_label;
mod folders;
mod shard;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use ulid::Ulid;

use self::by_label::ByLabel;
use self::shard::{Chosen, Known, RestoringShard};
use super::core::Core;
use super::keys::Keys;
use super::maintain::Housekeeping;
use super::settings::DbSettings;
use super::tenant::Tenant;
use super::{Db, Replay, Tenants};
use crate::block::Block;
use crate::disk::Disk;
use crate::files::{Folder, WalFile};
use crate::head::checkpoint::Checkpoint;
use crate::model::TenantId;
use crate::wal::{RecordRef, Wal, WalPosition, WalRecovery};
use crate::workers::{Workers, each};
use crate::{Error, Result, files};

/// Number of a shard's first checkpoint.
const FIRST_CHECKPOINT: u32 = 1;
/// Number of the WAL's first segment.
const FIRST_SEGMENT: u32 = 1;

/// What a start found.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Series in the head.
    pub series: u64,
    /// Samples taken from the WAL.
    pub samples: u64,
    /// Samples in the WAL whose series nobody defines: their definition was damaged, all copies of it.
    pub orphans: u64,
    /// What was found in the WAL, damage included.
    pub wal: WalRecovery,
    /// Damage elsewhere.
    pub damage: Vec<Damaged>,
    /// Files and folders in the data folder that aren't the store's own, and are left alone: the first
    /// [`REPORTS_MAX`](crate::wal::REPORTS_MAX) of them, relative to it.
    pub unknown: Vec<PathBuf>,
    /// All of them.
    pub unknown_count: u64,
}

/// Something that couldn't be read and was left out.
#[derive(Debug)]
pub struct Damaged {
    /// What and where.
    pub error: Error,
    /// Whose it was, where that is known.
    pub tenant: Option<TenantId>,
    /// Timestamps that may be missing, in milliseconds, where that is known.
    pub times_ms: Option<RangeInclusive<i64>>,
    /// Whether samples may be missing that were acked; not so where the WAL or an older checkpoint had them too.
    pub is_loss: bool,
}

impl Recovery {
    /// Whether samples may be missing that this store once acked after a sync. What a crash left of the WAL's last
    /// group is no loss, torn at its end or full of holes: nobody was told of it.
    pub fn is_loss(&self) -> bool {
        self.wal.synced_damage_count > 0 || self.damage.iter().any(|damaged| damaged.is_loss)
    }
}

impl Damaged {
    /// A checkpoint that can't be read; the one before stands in for it.
    fn checkpoint(error: Error) -> Self {
        Self { error, tenant: None, times_ms: None, is_loss: false }
    }
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    settings: DbSettings,
    now_ms: i64,
    seed: u128,
    workers: &dyn Workers,
    watched: &Replay,
) -> Result<(Db, Recovery)> {
    let mut restoring = Restoring::default();
    restoring.open_blocks(&disk)?;
    let bits = restoring.recovery.make_dirs(&*disk, &settings)?;
    let mut shards = restoring.open_shards(&disk, bits, &settings, workers)?;
    let from = shards.iter().map(|s| s.shard.logged).min().unwrap_or(WalPosition::START);
    let wal_dir = Path::new(files::WAL_DIR);
    let names = restoring.recovery.list(&*disk, wal_dir, Folder::Wal)?;
    let segments: BTreeSet<u32> = names
        .into_iter()
        .filter_map(|name| match WalFile::parse(&name) {
            Some(WalFile::Segment(number)) => Some(number),
            _ => None,
        })
        .collect();
    restoring.check_beginning(&shards, segments.first().copied());
    watched.begin(from.segment, segments.last().copied().unwrap_or(from.segment).max(from.segment));
    let mut replay = |records: &[RecordRef<'_>]| {
        if let Some(record) = records.first() {
            watched.at(record.end.segment);
        }
        restoring.replay(&mut shards, records, workers)
    };
    let (wal, wal_recovery) = Wal::open(Arc::clone(&disk), wal_dir, settings.wal.clone(), &mut replay, from)?;
    restoring.recovery.wal = wal_recovery;
    watched.end();
    let mut shards: Vec<_> = shards.into_iter().map(|shard| (shard, ByLabel::default())).collect();
    each(workers, &mut shards, |_, (shard, by_label)| {
        *by_label = shard.finish();
        Ok::<_, Error>(())
    })?;
    let (mut whole, mut by_label, mut shard_files) = (Vec::new(), Vec::new(), Vec::new());
    for (mut shard, found) in shards {
        restoring.add(&mut shard);
        whole.push(RwLock::new(shard.shard));
        by_label.push(found);
        shard_files.push(shard.files);
    }
    let core = Arc::new(Core {
        disk,
        settings,
        seed,
        shards: whole.into(),
        keys: Keys::new(),
        wal,
        generation: AtomicU32::new(restoring.generation + 1),
        marks: AtomicU64::new(0),
        unlogged: AtomicU64::new(0),
        made_good: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        suspect: AtomicBool::new(false),
    });
    let (tenants, recovery) = restoring.into_tenants(&core, by_label);
    let housekeeping = Mutex::new(Housekeeping::new(now_ms, seed, core.wal.appended_bytes(), shard_files));
    Ok((Db { core, tenants: RwLock::new(tenants), housekeeping }, recovery))
}

#[derive(Default)]
struct Restoring {
    tenants: Vec<RestoringTenant>,
    by_id: BTreeMap<TenantId, u32>,
    /// Highest of any series.
    generation: u32,
    recovery: Recovery,
}

struct RestoringTenant {
    id: TenantId,
    cut_until_ms: i64,
    blocks: Vec<Block>,
    /// Blocks that are there, readable or not, and those that they were merged from.
    ulids: BTreeSet<Ulid>,
}

impl Restoring {
    fn tenant(&mut self, id: &TenantId) -> u32 {
        if let Some(index) = self.by_id.get(id) {
            return *index;
        }
        let index = self.tenants.len() as u32;
        self.by_id.insert(id.clone(), index);
        self.tenants.push(RestoringTenant {
            id: id.clone(),
            cut_until_ms: i64::MIN,
            blocks: Vec::new(),
            ulids: BTreeSet::new(),
        });
        index
    }

    fn open_blocks(&mut self, disk: &Arc<dyn Disk>) -> Result<()> {
        for name in self.recovery.list(&**disk, Path::new(files::TENANTS_DIR), Folder::Tenants)? {
            let Some(Ok(id)) = name.to_str().map(TenantId::new) else { continue };
            let dir = files::tenant(&id);
            let index = self.tenant(&id) as usize;
            for name in self.recovery.list(&**disk, &dir, Folder::Tenant)? {
                let path = dir.join(&name);
                if files::is_leftover_block(&name) {
                    disk.remove_dir(&path).map_err(|e| Error::io("remove", &path, e))?;
                }
                let Some(ulid) = files::block_ulid(&name) else { continue };
                self.tenants[index].ulids.insert(ulid);
                self.recovery.look_into_block(&**disk, &path);
                // An I/O error may pass, and a block that is left out is missing until the next start.
                let opened = match Block::open(&**disk, &path) {
                    Err(Error::Io { .. }) => Block::open(&**disk, &path),
                    other => other,
                };
                match opened {
                    Ok(block) => {
                        let tenant = &mut self.tenants[index];
                        tenant.ulids.extend(&block.meta().compaction.sources);
                        tenant.blocks.push(block);
                    }
                    Err(error) => {
                        let (tenant, is_loss) = (Some(id.clone()), true);
                        self.recovery.damage.push(Damaged { error, tenant, times_ms: None, is_loss });
                    }
                }
            }
            self.tenants[index].blocks.sort_by_key(|block| (block.meta().min_ms, block.meta().ulid));
        }
        Ok(())
    }

    /// All shards as their newest readable checkpoints have them. Tenants are numbered before the threads part, so that
    /// numbers don't depend on who comes first.
    fn open_shards(
        &mut self,
        disk: &Arc<dyn Disk>,
        bits: u32,
        settings: &DbSettings,
        workers: &dyn Workers,
    ) -> Result<Vec<RestoringShard>> {
        let mut attempts = Vec::new();
        for index in 0..1 << bits {
            let dir = files::head_shard(index);
            let names = self.recovery.list(&**disk, &dir, Folder::HeadShard)?;
            let mut left: Vec<u32> = names.iter().filter_map(|name| files::parse_checkpoint(name)).collect();
            left.sort_unstable();
            let next = left.last().map_or(FIRST_CHECKPOINT, |newest| newest + 1);
            attempts.push(Attempt { dir, left, next, chosen: None, damage: None, opened: None });
        }
        loop {
            for (index, attempt) in attempts.iter_mut().enumerate().filter(|(_, a)| a.opened.is_none()) {
                attempt.chosen = self.choose(disk, index, bits, attempt)?;
            }
            each(workers, &mut attempts, |index, attempt| {
                if attempt.opened.is_none() {
                    let chosen = attempt.chosen.take();
                    match RestoringShard::open(disk, index, bits, settings, chosen.as_ref()) {
                        Ok(shard) => attempt.opened = Some(shard),
                        Err(error @ Error::Corrupt { .. }) => attempt.damage = Some(error),
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            })?;
            let damage = attempts.iter_mut().filter_map(|attempt| attempt.damage.take());
            self.recovery.damage.extend(damage.map(Damaged::checkpoint));
            if attempts.iter().all(|attempt| attempt.opened.is_some()) {
                break;
            }
        }
        Ok(attempts.into_iter().filter_map(Attempt::into_shard).collect())
    }

    /// The newest checkpoint left of which checksum and beginning are right.
    fn choose(
        &mut self,
        disk: &Arc<dyn Disk>,
        index: usize,
        bits: u32,
        attempt: &mut Attempt,
    ) -> Result<Option<Chosen>> {
        while let Some(number) = attempt.left.pop() {
            let path = files::checkpoint(&attempt.dir, number);
            let io = |e| Error::io("read", &path, e);
            let size = disk.size_bytes(&path).map_err(io)?.unwrap_or(0);
            let bytes = disk.map(&path, 0..size).map_err(io)?;
            match self.tenants_of(&bytes, index, bits) {
                Ok(tenants) => return Ok(Some(Chosen { number, path, bytes, tenants })),
                Err(error @ Error::Corrupt { .. }) => {
                    self.recovery.damage.push(Damaged::checkpoint(error.in_file(&path)));
                }
                Err(error) => return Err(error),
            }
        }
        // The first checkpoint lets go of no WAL, each later one of what was needed before the one before.
        if attempt.next > FIRST_CHECKPOINT + 1 {
            let error =
                Error::corrupt("checkpoint", 0, "none is left that can be read").in_file(&attempt.dir);
            self.recovery.damage.push(Damaged { is_loss: true, ..Damaged::checkpoint(error) });
        }
        Ok(None)
    }

    /// Indices of a checkpoint's tenants; what it says of them is noted.
    fn tenants_of(&mut self, bytes: &[u8], index: usize, bits: u32) -> Result<Vec<u32>> {
        let checkpoint = Checkpoint::open(bytes, index as u32)?;
        if checkpoint.header.bits != bits {
            return Err(Error::Invalid(format!(
                "a checkpoint in {} comes from a head of {} shards, and {} says {}",
                files::head_shard(index).display(),
                1u64 << checkpoint.header.bits.min(63),
                files::head_layout().display(),
                1 << bits
            )));
        }
        let mut indices = Vec::with_capacity(checkpoint.tenants.len());
        for tenant in &checkpoint.tenants {
            let index = self.tenant(&tenant.id);
            let known = &mut self.tenants[index as usize];
            known.cut_until_ms = known.cut_until_ms.max(tenant.cut_until_ms);
            indices.push(index);
        }
        Ok(indices)
    }

    /// Reports a log whose beginning is gone though a shard has no checkpoint that would stand for it.
    fn check_beginning(&mut self, shards: &[RestoringShard], first: Option<u32>) {
        let Some(first) = first.filter(|first| *first > FIRST_SEGMENT) else { return };
        if shards.iter().all(|shard| shard.files.kept.is_some()) {
            return;
        }
        let reason =
            format!("it begins with segment {first}, and a shard has no checkpoint of what was before");
        let error = Error::corrupt("write-ahead log", 0, reason).in_file(files::WAL_DIR);
        self.recovery.damage.push(Damaged { error, tenant: None, times_ms: None, is_loss: true });
    }

    /// Takes the records of one segment, those of a shard in their order.
    fn replay(
        &mut self,
        shards: &mut [RestoringShard],
        records: &[RecordRef<'_>],
        workers: &dyn Workers,
    ) -> Result<()> {
        let mut by_shard: Vec<Vec<(u32, &RecordRef<'_>)>> = vec![Vec::new(); shards.len()];
        for record in records {
            let index = usize::from(record.shard);
            if shards.get(index).is_some_and(|shard| shard.lacks(record)) {
                by_shard[index].push((self.tenant(record.tenant), record));
            }
        }
        let tenants = &self.tenants;
        let replayed = each(workers, shards, |index, shard| {
            by_shard[index].iter().try_for_each(|(tenant, record)| {
                let RestoringTenant { cut_until_ms, ulids, .. } = &tenants[*tenant as usize];
                let known = Known { tenant: *tenant, cut_until_ms: *cut_until_ms, ulids };
                shard.take(&known, record)
            })
        });
        replayed.map_err(|error| error.in_file(files::WAL_DIR))
    }

    /// Adds up what a shard's replay found.
    fn add(&mut self, shard: &mut RestoringShard) {
        self.generation = self.generation.max(shard.generation);
        self.recovery.samples += shard.samples;
        self.recovery.orphans += shard.orphans;
        for (tenant, cut_until_ms) in &shard.cut_until_ms {
            let known = &mut self.tenants[*tenant as usize];
            known.cut_until_ms = known.cut_until_ms.max(*cut_until_ms);
        }
        for (tenant, times_ms, error) in shard.unreadable.drain(..) {
            let tenant = Some(self.tenants[tenant as usize].id.clone());
            let times_ms = Some(times_ms);
            self.recovery.damage.push(Damaged { error, tenant, times_ms, is_loss: true });
        }
    }

    /// Makes the tenants of what was restored.
    fn into_tenants(mut self, core: &Arc<Core>, shards: Vec<ByLabel>) -> (Tenants, Recovery) {
        let mut tenants = Tenants::default();
        for (index, restored) in self.tenants.into_iter().enumerate() {
            let tenant = Tenant::new(restored.id, index as u32, Arc::clone(core));
            tenant.cut_until_ms.store(restored.cut_until_ms, Ordering::Release);
            tenant.blocks.store(Arc::new(restored.blocks));
            tenants.by_index.push(Arc::new(tenant));
        }
        for (shard, by_label) in core.shards.iter().zip(shards) {
            by_label.add_to(&shard.read(), &tenants.by_index);
        }
        self.recovery.series = tenants.by_index.iter().map(|tenant| tenant.series_count()).sum();
        tenants.by_id = tenants.by_index.iter().map(|t| (t.id.clone(), Arc::clone(t))).collect();
        (tenants, self.recovery)
    }
}

/// The way to one shard: checkpoints still to be tried, oldest first, and what came of the last.
struct Attempt {
    dir: PathBuf,
    left: Vec<u32>,
    /// Number of the next checkpoint that will be written.
    next: u32,
    chosen: Option<Chosen>,
    damage: Option<Error>,
    opened: Option<RestoringShard>,
}

impl Attempt {
    fn into_shard(self) -> Option<RestoringShard> {
        let mut shard = self.opened?;
        shard.files.next = self.next;
        Some(shard)
    }
}
