//! One tenant: where its samples go in.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use ulid::Ulid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use super::contents::{CELL_MS, Changes, cell_start_ms};
use super::core::Core;
use super::log::Buffers;
use super::order::OrderCache;
use super::ranges::Ranges;
use super::retention::NewestSample;
use super::settings::{SHARDS_MAX, TenantSettings};
use super::types::{
    Append, Bounds, Exemplar, Metadata, Outcome, SERIES_ALIASES_MAX, SERIES_LABELS_BYTES_MAX, SeriesKey,
};
use crate::block::Block;
use crate::chunk::Writes;
use crate::head::SeriesRef;
use crate::head::append::{Log, Terms};
use crate::head::shard::Shard;
use crate::index::memory::MemoryPostings;
use crate::model::{Labels, TenantId};
use crate::wal::WalPosition;
use crate::{Error, Result};

/// A tenant's part of the engine: small, since there may be very many.
pub struct Tenant {
    pub(super) id: TenantId,
    /// Its number in this process.
    pub(super) index: u32,
    /// Spreads tenants with equal series over shards; the same in every process.
    hash: u64,
    /// XORed to its keys; secret.
    salt: u128,
    pub(super) core: Arc<Core>,
    settings: RwLock<TenantSettings>,
    pub(super) postings: RwLock<MemoryPostings>,
    /// By first sample. Replaced as a whole, so that a question sees one state of them.
    pub(super) blocks: ArcSwap<Vec<Block>>,
    /// Held by whoever changes `blocks`, and shared by questions that must see head and blocks of one moment.
    pub(super) blocks_gate: RwLock<()>,
    /// Blocks that are to be removed from the disk; see [`super::discard`].
    pub(super) discarded: Mutex<Vec<Ulid>>,
    pub(super) newest_ms: AtomicI64,
    /// Samples before this are in blocks; what comes later is late. Only grows.
    pub(super) cut_until_ms: AtomicI64,
    /// Aligned ranges that have samples in the head.
    pub(super) ranges: Ranges,
    /// When, by the count of changes, the head's samples of a cell changed last; see [`super::contents`].
    pub(super) changed: Mutex<Changes>,
    /// Samples stored when maintenance last looked, and since when, by monotonic time, there were no more.
    pub(super) idle: Mutex<(u64, u64)>,
    /// What blocks' age is judged by.
    pub(super) newest: Mutex<Option<NewestSample>>,
    /// Ids by labels; see [`super::order`].
    pub(super) order: Mutex<OrderCache>,
    pub(super) counters: Counters,
}

/// What happened since the start.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) stored: AtomicU64,
    pub(super) duplicate: AtomicU64,
    pub(super) superseded: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) created: AtomicU64,
    pub(super) collected: AtomicU64,
}

impl Tenant {
    pub(super) fn new(id: TenantId, index: u32, core: Arc<Core>) -> Self {
        let hash = xxh3_64(id.as_str().as_bytes());
        let name = if planted::is(planted::Bug::TenantsShareKeys) { "" } else { id.as_str() };
        let salt = core.seed ^ xxh3_128_with_seed(name.as_bytes(), core.seed as u64);
        let settings = RwLock::new(core.settings.tenant);
        Self {
            id,
            index,
            hash,
            salt,
            core,
            settings,
            postings: RwLock::default(),
            blocks: ArcSwap::default(),
            blocks_gate: RwLock::default(),
            discarded: Mutex::default(),
            newest_ms: AtomicI64::new(i64::MIN),
            cut_until_ms: AtomicI64::new(i64::MIN),
            ranges: Ranges::default(),
            changed: Mutex::default(),
            idle: Mutex::new((u64::MAX, 0)),
            newest: Mutex::default(),
            order: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// Its name.
    pub fn id(&self) -> &TenantId {
        &self.id
    }

    /// Its settings.
    pub fn settings(&self) -> TenantSettings {
        *self.settings.read()
    }

    /// Whether its head keeps the start times of samples; else they are dropped as samples come in.
    pub fn keeps_starts(&self) -> bool {
        self.core.settings.writes == Writes::WithStarts
    }

    /// Changes its settings, from the next call on. They aren't stored.
    pub fn configure(&self, settings: TenantSettings) {
        *self.settings.write() = settings;
    }

    /// The series of each key, or [`SeriesRef::NONE`]; `found` is overwritten. Nothing is allocated but for its room.
    pub fn lookup(&self, keys: &[SeriesKey], found: &mut Vec<SeriesRef>) {
        found.clear();
        self.core.keys.lookup(self.salt, keys, found);
    }

    /// The series with these labels, made where there is none, and from now on found by `key` as well.
    ///
    /// # Errors
    /// [`Error::Limit`] when the tenant may have no further series; [`Error::Invalid`] for labels of more than
    /// [`SERIES_LABELS_BYTES_MAX`]; [`Error::Busy`], [`Error::NoSpace`], [`Error::Stopped`].
    pub fn intern(&self, key: SeriesKey, labels: &Labels) -> Result<SeriesRef> {
        self.intern_by(Some(key), labels)
    }

    /// The series with these labels where there is one, from now on found by `key` as well; none is made. For samples
    /// that no new series would take ([`Bounds::refusal_of_first`]).
    pub fn find(&self, key: SeriesKey, labels: &Labels) -> Option<SeriesRef> {
        let hash = labels.hash64();
        let mut shard = self.core.shards[self.core.shard_of(self.hash, hash)].write();
        let own = shard.find(self.index, hash, labels)?;
        self.name(&mut shard, own, Some(key));
        Some(own)
    }

    /// As [`Tenant::intern`], for whoever has no name for the series.
    ///
    /// # Errors
    /// Those of [`Tenant::intern`].
    pub fn intern_unnamed(&self, labels: &Labels) -> Result<SeriesRef> {
        self.intern_by(None, labels)
    }

    fn intern_by(&self, key: Option<SeriesKey>, labels: &Labels) -> Result<SeriesRef> {
        let hash = labels.hash64();
        let mut shard = self.core.shards[self.core.shard_of(self.hash, hash)].write();
        let own = match shard.find(self.index, hash, labels) {
            Some(own) => own,
            None => {
                self.core.check_writable()?;
                self.check_series_limit()?;
                let bytes = labels.as_bytes().len();
                if bytes > SERIES_LABELS_BYTES_MAX {
                    let most = SERIES_LABELS_BYTES_MAX;
                    return Err(Error::Invalid(format!(
                        "a series' labels have at most {most} bytes, not {bytes}"
                    )));
                }
                let own =
                    shard.add(self.index, self.core.generation.load(Ordering::Acquire), hash, labels)?;
                self.postings.write().add(own.local_id(), labels);
                self.counters.created.fetch_add(1, Ordering::Relaxed);
                own
            }
        };
        self.name(&mut shard, own, key);
        Ok(own)
    }

    /// Lets a series be found by a key, and the next collection pass it over.
    fn name(&self, shard: &mut Shard, own: SeriesRef, key: Option<SeriesKey>) {
        let series = shard.get_mut(own).expect("it was found or made under this lock");
        series.is_fresh = true;
        if let Some(key) = key
            && series.aliases < SERIES_ALIASES_MAX
            && self.core.keys.insert(self.salt, key, own)
        {
            series.aliases += 1;
        }
    }

    fn check_series_limit(&self) -> Result<()> {
        let (most, now) = (self.settings().series_max, self.series_count());
        if now >= u64::from(most) {
            return Err(Error::Limit(format!("tenant {} has {now} series, and may have {most}", self.id)));
        }
        Ok(())
    }

    /// Series in the head.
    pub fn series_count(&self) -> u64 {
        self.postings.read().ids().len()
    }

    /// Appends samples and tells what became of each; `outcomes` is overwritten, and in the order of `batch`. All of
    /// them may be acked once [`crate::db::Db::commit`] has reached the position that is returned, duplicates
    /// included. Samples are judged by `bounds`, which the entry node takes from its wall clock; one that is too old, and
    /// in a local block, is a duplicate all the same.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::NoSpace`], [`Error::Stopped`]: none of them may be acked, some may have been stored.
    pub fn append(
        &self,
        batch: &[Append],
        bounds: &Bounds,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<WalPosition> {
        self.core.check_writable()?;
        outcomes.clear();
        outcomes.resize(batch.len(), Outcome::UnknownSeries);
        let mut ranges = RangeCounts::default();
        let appended = self.append_by_shard(batch, bounds, outcomes, &mut ranges);
        // After an error too: a range that the head has samples of and nobody knows of would never be cut.
        self.add_ranges(&ranges);
        let position = appended?;
        let is_old = |outcome: &Outcome| matches!(outcome, Outcome::TooOld | Outcome::OutOfOrder);
        if outcomes.iter().any(is_old) && !planted::is(planted::Bug::KnownSampleRefused) {
            self.find_refused(batch, outcomes);
        }
        self.count(outcomes);
        if planted::is(planted::Bug::DuplicateUncommitted)
            && outcomes.iter().all(|outcome| *outcome == Outcome::Duplicate)
        {
            return Ok(WalPosition::START);
        }
        Ok(position)
    }

    fn append_by_shard(
        &self,
        batch: &[Append],
        bounds: &Bounds,
        outcomes: &mut [Outcome],
        ranges: &mut RangeCounts,
    ) -> Result<WalPosition> {
        let (order, ends) = self.order_by_shard(batch);
        let mut position = WalPosition::START;
        let mut log = Log::default();
        let mut buffers = Buffers::default();
        let mut start = 0;
        for (index, &end) in ends[..self.core.shards.len()].iter().enumerate() {
            let mut order = &order[std::mem::replace(&mut start, end as usize)..end as usize];
            if order.is_empty() {
                continue;
            }
            let mut shard = self.core.shards[index].write();
            // Again under the lock: who had it before may have left samples in memory that the WAL refused. To be told
            // that one of those is a duplicate would be an ack that a crash takes back.
            if !planted::is(planted::Bug::DuplicateOfMemory) {
                self.core.check_writable()?;
            }
            if shard.chunks.is_overdue() {
                return Err(Error::Busy("finished chunks wait to be written".to_owned()));
            }
            // Read under the lock: a cut raises it before it comes to this shard.
            let cut_until_ms = self.cut_until_ms.load(Ordering::Acquire);
            loop {
                log.clear();
                let segment = self.core.wal.segment();
                let terms = Terms {
                    tenant: self.index,
                    bounds: *bounds,
                    cut_until_ms,
                    segment,
                    writes: self.core.settings.writes,
                };
                let taken = shard.append(terms, batch, order, outcomes, &mut log);
                order = &order[taken..];
                let logged = if log.is_empty() {
                    Ok(())
                } else {
                    self.core.log(&mut shard, &self.id, segment, &mut log, &mut buffers)
                };
                if order.is_empty() && logged.is_ok() {
                    break;
                }
                log.timestamps_ms().for_each(|t| ranges.add(t));
                logged?;
            }
            position = position.max(shard.logged);
            drop(shard);
            log.timestamps_ms().for_each(|t| ranges.add(t));
        }
        Ok(position)
    }

    /// Places in `batch`, ordered by shard, and where each shard's end.
    fn order_by_shard(&self, batch: &[Append]) -> (Vec<u32>, [u32; SHARDS_MAX]) {
        let known = || (0u32..).zip(batch).filter(|(_, append)| !append.series.is_none());
        let mut at = [0u32; SHARDS_MAX];
        known().for_each(|(_, append)| at[self.core.shard_of_ref(append.series)] += 1);
        let mut total = 0;
        for place in &mut at {
            total += std::mem::replace(place, total);
        }
        let mut order = vec![0; total as usize];
        for (i, append) in known() {
            let place = &mut at[self.core.shard_of_ref(append.series)];
            order[*place as usize] = i;
            *place += 1;
        }
        (order, at)
    }

    fn count(&self, outcomes: &[Outcome]) {
        let mut counts = [0u64; 4];
        for outcome in outcomes {
            counts[match outcome {
                Outcome::Stored => 0,
                Outcome::Duplicate => 1,
                Outcome::Superseded => 2,
                _ => 3,
            }] += 1;
        }
        let counters = &self.counters;
        let all = [&counters.stored, &counters.duplicate, &counters.superseded, &counters.refused];
        for (counter, count) in all.into_iter().zip(counts) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Notes which ranges have samples.
    pub(super) fn add_ranges(&self, counts: &RangeCounts) {
        if counts.counts.is_empty() {
            return;
        }
        self.newest_ms.fetch_max(counts.newest_ms, Ordering::AcqRel);
        self.ranges.add(counts.counts.iter().copied(), self.core.marks.load(Ordering::Acquire));
        self.changed.lock().note(counts.counts.iter().map(|(start_ms, _)| *start_ms));
    }

    /// Keeps exemplars of series, which `lookup` or `intern` gave; those of unknown series are left out. They are
    /// safe once a commit has reached the position that is returned.
    ///
    /// # Errors
    /// Those of [`Tenant::append`].
    pub fn append_exemplars(&self, exemplars: &[(SeriesRef, Exemplar)]) -> Result<WalPosition> {
        self.core.check_writable()?;
        let mut position = WalPosition::START;
        let mut log = Log::default();
        let mut buffers = Buffers::default();
        for (index, shard) in self.core.shards.iter().enumerate() {
            let mine = |series: SeriesRef| !series.is_none() && self.core.shard_of_ref(series) == index;
            if !exemplars.iter().any(|(series, _)| mine(*series)) {
                continue;
            }
            let mut shard = shard.write();
            self.core.check_writable()?;
            let mut mine = exemplars.iter().filter(|(series, _)| mine(*series)).peekable();
            while mine.peek().is_some() {
                log.clear();
                let segment = self.core.wal.segment();
                while !log.is_full()
                    && let Some((series, exemplar)) = mine.next()
                {
                    shard.append_exemplar(self.index, segment, *series, exemplar, &mut log);
                }
                if !log.is_empty() {
                    self.core.log(&mut shard, &self.id, segment, &mut log, &mut buffers)?;
                }
            }
            position = position.max(shard.logged);
        }
        Ok(position)
    }

    /// Keeps what metric families say of themselves; the last one wins. Safe once a commit has reached the position.
    ///
    /// # Errors
    /// Those of [`Tenant::append`].
    pub fn append_metadata(&self, metadata: &[Metadata]) -> Result<WalPosition> {
        self.core.check_writable()?;
        let mut position = WalPosition::START;
        let mut log = Log::default();
        let mut buffers = Buffers::default();
        for (index, shard) in self.core.shards.iter().enumerate() {
            let mine = |m: &&Metadata| self.core.shard_of(self.hash, xxh3_64(m.family.as_bytes())) == index;
            if !metadata.iter().any(|m| mine(&m)) {
                continue;
            }
            let mut shard = shard.write();
            self.core.check_writable()?;
            let mut mine = metadata.iter().filter(mine).peekable();
            while mine.peek().is_some() {
                log.clear();
                while !log.is_full()
                    && let Some(one) = mine.next()
                {
                    if shard.metadata.set(self.index, one.clone()) {
                        log.metadata(one);
                    }
                }
                if !log.is_empty() {
                    let segment = self.core.wal.segment();
                    self.core.log(&mut shard, &self.id, segment, &mut log, &mut buffers)?;
                }
            }
            position = position.max(shard.logged);
        }
        Ok(position)
    }
}

/// Samples by cell of time, of one append.
#[derive(Default)]
pub(super) struct RangeCounts {
    /// Start of the cell and samples in it; the last one is where the next sample probably falls.
    counts: SmallVec<[(i64, u64); 2]>,
    newest_ms: i64,
}

impl RangeCounts {
    #[inline]
    pub(super) fn add(&mut self, timestamp_ms: i64) {
        self.add_many(timestamp_ms, 1);
    }

    /// Notes `samples` in the cell of `timestamp_ms`.
    #[inline]
    pub(super) fn add_many(&mut self, timestamp_ms: i64, samples: u64) {
        if self.counts.is_empty() || timestamp_ms > self.newest_ms {
            self.newest_ms = timestamp_ms;
        }
        if let Some((start_ms, count)) = self.counts.last_mut()
            && (0..CELL_MS).contains(&timestamp_ms.wrapping_sub(*start_ms))
        {
            *count += samples;
            return;
        }
        let start_ms = cell_start_ms(timestamp_ms);
        match self.counts.iter().position(|(start, _)| *start == start_ms) {
            Some(at) => {
                self.counts[at].1 += samples;
                let last = self.counts.len() - 1;
                self.counts.swap(at, last);
            }
            None => self.counts.push((start_ms, samples)),
        }
    }
}
