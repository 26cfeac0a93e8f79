//! Opening a data folder: blocks, then each shard's checkpoint, then the WAL behind it.
//!
//! 1. Blocks are opened; those that can't be are left where they are, and reported.
//! 2. A shard takes its newest checkpoint that can be read, and the one before if need be: the WAL is kept for both.
//!    Finished chunks are checked one by one; a damaged one is left out, and reported with its time range.
//! 3. The WAL is replayed from the earliest position that a shard needs. Each shard takes the records behind its own
//!    checkpoint; a cut whose block is there drops what the block has.
//! 4. Series without samples go, and tenants get their postings.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use ulid::Ulid;

use super::core::{Core, shard_bits};
use super::keys::Keys;
use super::log::CutMark;
use super::maintain::{Housekeeping, ShardFiles};
use super::settings::{DbSettings, SHARDS_MAX};
use super::tenant::{RangeCounts, Tenant};
use super::types::{Append, Bounds};
use super::{Db, Tenants};
use crate::block::Block;
use crate::disk::Disk;
use crate::head::append::Terms;
use crate::head::checkpoint::Checkpoint;
use crate::head::chunks::FilesEnd;
use crate::head::rule::RANGE_MS;
use crate::head::shard::Shard;
use crate::model::{Sample, TenantId, Value};
use crate::wal::record::exemplars::Exemplars;
use crate::wal::record::floats::{FloatSample, Floats};
use crate::wal::record::histograms::Histograms;
use crate::wal::record::metadata::MetadataRecords;
use crate::wal::{RecordKind, RecordRef, Wal, WalPosition, WalRecovery, record};
use crate::{Error, Result, files};

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
}

/// Something that couldn't be read and was left out.
#[derive(Debug)]
pub struct Damaged {
    /// What and where.
    pub error: Error,
    /// Whose it was, where that is known.
    pub tenant: Option<TenantId>,
    /// Timestamps that may be missing, in milliseconds; `None` when nothing is missing, since the WAL or an older
    /// checkpoint had it too, or when it isn't known.
    pub times_ms: Option<RangeInclusive<i64>>,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    settings: DbSettings,
    now_ms: i64,
    seed: u128,
) -> Result<(Db, Recovery)> {
    let mut restoring = Restoring::default();
    restoring.open_blocks(&disk)?;
    let bits = make_dirs(&*disk, &settings)?;
    let mut shard_files = Vec::new();
    for index in 0..1 << bits {
        let (shard, files) = restoring.open_shard(&disk, index, bits, &settings)?;
        restoring.shards.push(shard);
        shard_files.push(files);
    }
    let from = restoring.shards.iter().map(|s| s.logged).min().unwrap_or(WalPosition::START);
    let positions: Vec<WalPosition> = restoring.shards.iter().map(|s| s.logged).collect();
    let wal_dir = Path::new(files::WAL_DIR);
    let mut replay = |record: RecordRef<'_>| restoring.replay(&positions, record);
    let (wal, wal_recovery) = Wal::open(Arc::clone(&disk), wal_dir, settings.wal.clone(), &mut replay, from)?;
    restoring.recovery.wal = wal_recovery;
    for shard in &mut restoring.shards {
        // The first pass passes over series that the replay has just made.
        shard.collect_garbage();
        shard.collect_garbage();
    }
    let core = Arc::new(Core {
        disk,
        settings,
        seed,
        shards: std::mem::take(&mut restoring.shards).into_iter().map(RwLock::new).collect(),
        keys: Keys::new(),
        wal,
        generation: AtomicU32::new(restoring.generation + 1),
        unlogged: AtomicU64::new(0),
        made_good: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        suspect: AtomicBool::new(false),
    });
    let (tenants, recovery) = restoring.into_tenants(&core);
    let housekeeping = Mutex::new(Housekeeping::new(now_ms, seed, core.wal.appended_bytes(), shard_files));
    Ok((Db { core, tenants: RwLock::new(tenants), housekeeping }, recovery))
}

/// Makes the folders that aren't there, and tells log2 of the number of shards: a folder keeps the number that it was
/// made with.
fn make_dirs(disk: &dyn Disk, settings: &DbSettings) -> Result<u32> {
    let head = Path::new(files::HEAD_DIR);
    let create = |dir: &Path| disk.create_dir(dir).map_err(|e| Error::io("create", dir, e));
    create(head)?;
    create(Path::new(files::TENANTS_DIR))?;
    let found = list(disk, head)?.len();
    // A number that isn't a power of two comes from a start that ended here, before anything was written.
    let bits = if found == 0 { shard_bits(settings.shards) } else { shard_bits(found.min(SHARDS_MAX)) };
    for index in 0..1 << bits {
        create(&files::head_shard(index))?;
    }
    for dir in [head, Path::new("")] {
        disk.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
    }
    Ok(bits)
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>> {
    match disk.list(dir) {
        Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("list", dir, error)),
    }
}

#[derive(Default)]
struct Restoring {
    tenants: Vec<RestoringTenant>,
    by_id: BTreeMap<TenantId, u32>,
    shards: Vec<Shard>,
    /// Highest of any series.
    generation: u32,
    recovery: Recovery,
    /// Samples of the record at hand.
    batch: Vec<Append>,
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
        for name in list(&**disk, Path::new(files::TENANTS_DIR))? {
            let Some(Ok(id)) = name.to_str().map(TenantId::new) else { continue };
            let dir = files::tenant(&id);
            let index = self.tenant(&id) as usize;
            for name in list(&**disk, &dir)? {
                let path = dir.join(&name);
                if files::is_leftover_block(&name) {
                    disk.remove_dir(&path).map_err(|e| Error::io("remove", &path, e))?;
                }
                let Some(ulid) = files::block_ulid(&name) else { continue };
                self.tenants[index].ulids.insert(ulid);
                match Block::open(&**disk, &path) {
                    Ok(block) => {
                        let tenant = &mut self.tenants[index];
                        tenant.ulids.extend(&block.meta().compaction.sources);
                        tenant.blocks.push(block);
                    }
                    Err(error) => {
                        let tenant = Some(id.clone());
                        self.recovery.damage.push(Damaged { error, tenant, times_ms: None });
                    }
                }
            }
            self.tenants[index].blocks.sort_by_key(|block| (block.meta().min_ms, block.meta().ulid));
        }
        Ok(())
    }

    /// A shard as its newest readable checkpoint has it.
    fn open_shard(
        &mut self,
        disk: &Arc<dyn Disk>,
        index: usize,
        bits: u32,
        settings: &DbSettings,
    ) -> Result<(Shard, ShardFiles)> {
        let dir = files::head_shard(index);
        let mut numbers: Vec<u32> =
            list(&**disk, &dir)?.iter().filter_map(|name| files::parse_checkpoint(name)).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let mut shard_files =
            ShardFiles { next: numbers.first().map_or(1, |newest| newest + 1), ..Default::default() };
        for number in numbers {
            let path = files::checkpoint(&dir, number);
            let bytes = disk.read(&path).map_err(|e| Error::io("read", &path, e))?;
            let mut shard = Shard::new(Arc::clone(disk), dir.clone(), index as u32, bits, settings);
            match self.load(&bytes, &mut shard, bits) {
                Ok(()) => {
                    self.check_chunks(&mut shard);
                    shard_files.kept = Some((number, shard.logged));
                    return Ok((shard, shard_files));
                }
                Err(error @ Error::Corrupt { .. }) => {
                    let error = error.in_file(&path);
                    self.recovery.damage.push(Damaged { error, tenant: None, times_ms: None });
                }
                Err(error) => return Err(error),
            }
        }
        let mut shard = Shard::new(Arc::clone(disk), dir, index as u32, bits, settings);
        shard.open_chunks(FilesEnd::default())?;
        Ok((shard, shard_files))
    }

    /// Fills an empty shard from a checkpoint's bytes.
    fn load(&mut self, bytes: &[u8], shard: &mut Shard, bits: u32) -> Result<()> {
        let checkpoint = Checkpoint::open(bytes, shard.index())?;
        let header = checkpoint.header.clone();
        if header.bits != bits {
            return Err(Error::corrupt("checkpoint", 0, "it comes from a head of another number of shards"));
        }
        let tenants: Vec<u32> = checkpoint.tenants.iter().map(|tenant| self.tenant(&tenant.id)).collect();
        for (index, tenant) in tenants.iter().zip(&checkpoint.tenants) {
            let known = &mut self.tenants[*index as usize];
            known.cut_until_ms = known.cut_until_ms.max(tenant.cut_until_ms);
        }
        shard.open_chunks(header.files_end)?;
        checkpoint.restore(shard, &tenants)?;
        shard.logged = header.position;
        self.generation = self.generation.max(header.generation);
        Ok(())
    }

    /// Leaves out finished chunks that can't be read.
    fn check_chunks(&mut self, shard: &mut Shard) {
        for (tenant, times_ms, error) in shard.drop_unreadable() {
            let tenant = Some(self.tenants[tenant as usize].id.clone());
            self.recovery.damage.push(Damaged { error, tenant, times_ms: Some(times_ms) });
        }
    }

    /// Takes one record of the WAL; `positions` are where the shards' checkpoints end.
    fn replay(&mut self, positions: &[WalPosition], record: RecordRef<'_>) -> Result<()> {
        let index = usize::from(record.shard);
        let Some(position) = positions.get(index) else { return Ok(()) };
        let is_behind = record.end > *position;
        if !is_behind && record.kind != RecordKind::Series {
            return Ok(());
        }
        let tenant = self.tenant(record.tenant);
        let result = self.take(tenant, index, &record);
        // The log has checked its bytes: a record that can't be decoded is a newer version's, or a bug.
        result.map_err(|error| error.in_file(files::WAL_DIR))
    }

    fn take(&mut self, tenant: u32, index: usize, record: &RecordRef<'_>) -> Result<()> {
        let shard = &mut self.shards[index];
        let known = &self.tenants[tenant as usize];
        let terms = Terms { tenant, bounds: Bounds::ALL, cut_until_ms: known.cut_until_ms, segment: 0 };
        let batch = &mut self.batch;
        batch.clear();
        match record.kind {
            RecordKind::Series => {
                for definition in record::series::Series::new(record.payload) {
                    let (series, labels) = definition?;
                    self.generation = self.generation.max(series.generation());
                    shard.add_as(series, tenant, &labels)?;
                }
            }
            RecordKind::Floats => {
                for sample in Floats::new(record.payload) {
                    let FloatSample { series, timestamp_ms, start_ms, value } = sample?;
                    let sample = Sample { timestamp_ms, start_ms, value: Value::Float(value) };
                    batch.push(Append { series, sample });
                }
            }
            RecordKind::Histograms => {
                for sample in Histograms::new(record.payload) {
                    let (series, sample) = sample?;
                    batch.push(Append { series, sample });
                }
            }
            RecordKind::Exemplars => {
                for exemplar in Exemplars::new(record.payload) {
                    let (series, exemplar) = exemplar?;
                    shard.exemplars.push(series, exemplar);
                }
            }
            RecordKind::Metadata => {
                for metadata in MetadataRecords::new(record.payload) {
                    shard.metadata.set(tenant, metadata?);
                }
            }
            RecordKind::Shard => {
                let mark = CutMark::decode(record.payload)?;
                if known.ulids.contains(&mark.block) {
                    shard.drop_cut(tenant, mark.start_ms);
                    let known = &mut self.tenants[tenant as usize];
                    known.cut_until_ms = known.cut_until_ms.max(mark.start_ms + RANGE_MS);
                }
            }
            RecordKind::Tombstones => {}
        }
        self.recovery.samples += self.batch.len() as u64;
        self.recovery.orphans += self.shards[index].replay(terms, &self.batch);
        Ok(())
    }

    /// Makes the tenants of what was restored.
    fn into_tenants(mut self, core: &Arc<Core>) -> (Tenants, Recovery) {
        let mut ranges: Vec<RangeCounts> = Vec::new();
        ranges.resize_with(self.tenants.len(), RangeCounts::default);
        let mut tenants = Tenants::default();
        for (index, restored) in self.tenants.into_iter().enumerate() {
            let tenant = Tenant::new(restored.id, index as u32, Arc::clone(core));
            tenant.cut_until_ms.store(restored.cut_until_ms, Ordering::Release);
            tenant.blocks.store(Arc::new(restored.blocks));
            tenants.by_index.push(Arc::new(tenant));
        }
        let mut scratch = Vec::new();
        for shard in &core.shards {
            let shard = shard.read();
            for (slot, series) in shard.slots.iter() {
                let index = series.tenant as usize;
                let labels = shard.labels.labels(series.labels, &mut scratch);
                tenants.by_index[index].postings.write().add(shard.ref_of(slot, series).local_id(), &labels);
                shard.count_ranges(series, &mut |timestamp_ms, samples| {
                    ranges[index].add_many(timestamp_ms, samples);
                });
            }
        }
        for (tenant, ranges) in tenants.by_index.iter().zip(&ranges) {
            tenant.add_ranges(ranges);
            self.recovery.series += tenant.series_count();
        }
        tenants.by_id = tenants.by_index.iter().map(|t| (t.id.clone(), Arc::clone(t))).collect();
        (tenants, self.recovery)
    }
}
