//! One part of the head: the series whose hash falls to it, of all tenants, behind one lock.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use hashbrown::HashTable;

use super::chunks::{FilesEnd, HeadChunks};
use super::late::BUFFER_SAMPLES_MAX;
use super::open::Finished;
use super::reference::SeriesRef;
use super::rings::{ExemplarRing, MetadataTable};
use super::rule::CHUNK_SAMPLES_MAX;
use super::series::{MemSeries, SealedRef};
use super::slots::Slots;
use super::symbols::LabelStore;
use crate::db::DbSettings;
use crate::disk::Disk;
use crate::model::Labels;
use crate::select::Chunk;
use crate::wal::WalPosition;
use crate::weight::{Outline, Scale};
use crate::{Error, Result, prefetch};

/// A shard of the head.
pub(crate) struct Shard {
    pub(super) index: u32,
    /// log2 of the number of shards.
    pub(super) bits: u32,
    pub(crate) slots: Slots,
    pub(crate) labels: LabelStore,
    /// Slots by labels' hash.
    pub(super) by_labels: HashTable<u32>,
    pub(crate) chunks: HeadChunks,
    pub(crate) exemplars: ExemplarRing,
    pub(crate) metadata: MetadataTable,
    /// Where its last records end in the WAL.
    pub(crate) logged: WalPosition,
    /// Series removed since symbols were rebuilt.
    pub(super) removed: usize,
    /// Whether a restart may have brought series with equal labels: one collected, one made again.
    pub(crate) has_twins: bool,
}

/// Which of a series' late samples are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LatePart {
    /// All.
    All,
    /// Those in chunks.
    Sealed,
    /// Those that a cut under way has frozen.
    Frozen,
}

impl Shard {
    /// An empty shard, whose folder `dir` exists.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        index: u32,
        bits: u32,
        settings: &DbSettings,
    ) -> Self {
        Self {
            index,
            bits,
            slots: Slots::default(),
            labels: LabelStore::default(),
            by_labels: HashTable::new(),
            chunks: HeadChunks::new(disk, dir),
            exemplars: ExemplarRing::new(settings.exemplars_max >> bits, settings.exemplar_bytes_max >> bits),
            metadata: MetadataTable::new(settings.metadata_max >> bits, settings.metadata_bytes_max >> bits),
            logged: WalPosition::START,
            removed: 0,
            has_twins: false,
        }
    }

    /// Its number.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn slot_of(&self, series: SeriesRef) -> u32 {
        series.local_id() >> self.bits
    }

    /// The ref of the series in a slot.
    pub(crate) fn ref_of(&self, slot: u32, series: &MemSeries) -> SeriesRef {
        SeriesRef::new(series.generation, slot << self.bits | self.index)
    }

    /// The series that a ref names.
    pub(crate) fn get(&self, series: SeriesRef) -> Option<&MemSeries> {
        self.slots.get(self.slot_of(series)).filter(|s| s.generation == series.generation())
    }

    /// As [`Shard::get`], to change it.
    pub(crate) fn get_mut(&mut self, series: SeriesRef) -> Option<&mut MemSeries> {
        self.slots.get_mut(self.slot_of(series)).filter(|s| s.generation == series.generation())
    }

    /// The series with an id, if it was made in `generation` or before: a later one isn't the one that was looked up.
    pub(crate) fn by_id(&self, id: u32, generation: u32) -> Option<(SeriesRef, &MemSeries)> {
        let series = self.slots.get(id >> self.bits).filter(|s| s.generation <= generation)?;
        Some((self.ref_of(id >> self.bits, series), series))
    }

    /// Fetches the series with an id.
    #[inline]
    pub(crate) fn prefetch_id(&self, id: u32) {
        self.slots.prefetch(id >> self.bits);
    }

    /// Fetches the labels of a series that was fetched before, and its chunks that overlap a range; not late ones.
    pub(crate) fn prefetch_chunks(&self, id: u32, range_ms: &RangeInclusive<i64>) {
        let Some(series) = self.slots.get(id >> self.bits) else { return };
        prefetch::line(self.labels.run(series.labels).as_ptr().cast());
        let sealed = series.sealed_in(*range_ms.start(), *range_ms.end());
        sealed.iter().for_each(|sealed| self.chunks.prefetch(sealed.at));
        series.open.finished().into_iter().for_each(|open| prefetch::bytes(open.bytes));
    }

    /// The tenant's series with these labels, whose hash is `hash`.
    pub(crate) fn find(&self, tenant: u32, hash: u64, labels: &Labels) -> Option<SeriesRef> {
        let slot = self.by_labels.find(hash, |slot| {
            self.slots
                .get(*slot)
                .is_some_and(|s| s.tenant == tenant && s.hash == hash && self.labels.equal(s.labels, labels))
        })?;
        Some(self.ref_of(*slot, self.slots.get(*slot)?))
    }

    /// Adds a series that isn't there yet.
    pub(crate) fn add(
        &mut self,
        tenant: u32,
        generation: u32,
        hash: u64,
        labels: &Labels,
    ) -> Result<SeriesRef> {
        let at = self.labels.add(labels)?;
        let slot = self.slots.insert(MemSeries::new(tenant, generation, hash, at));
        self.index_slot(slot, hash);
        Ok(SeriesRef::new(generation, slot << self.bits | self.index))
    }

    /// Adds a series under the ref that it had before a restart. Of two series of one slot the later stays: the other
    /// had been collected, so its samples are in blocks.
    pub(crate) fn add_as(&mut self, own: SeriesRef, tenant: u32, labels: &Labels) -> Result<()> {
        let (slot, hash) = (self.slot_of(own), labels.hash64());
        if let Some(known) = self.slots.get(slot) {
            if known.generation >= own.generation() {
                return Ok(());
            }
            self.remove(slot);
        }
        // The same labels under an older ref: collected as well.
        if let Some(older) = self.find(tenant, hash, labels) {
            if older.generation() > own.generation() {
                return Ok(());
            }
            if self.get(older).is_some_and(MemSeries::is_empty) {
                self.remove(self.slot_of(older));
            }
        }
        let at = self.labels.add(labels)?;
        self.restore(slot, MemSeries::new(tenant, own.generation(), hash, at));
        Ok(())
    }

    pub(super) fn remove(&mut self, slot: u32) {
        self.clear(slot);
        self.slots.release([slot]);
    }

    /// Removes the series in a slot, which isn't taken again before it is released.
    pub(super) fn clear(&mut self, slot: u32) {
        let Some(series) = self.slots.get(slot) else { return };
        if let Ok(entry) = self.by_labels.find_entry(series.hash, |s| *s == slot) {
            entry.remove();
        }
        self.slots.clear(slot);
        self.removed += 1;
    }

    /// Puts a series into a slot; `false` when another one has it.
    pub(crate) fn restore(&mut self, slot: u32, series: MemSeries) -> bool {
        let (hash, tenant) = (series.hash, series.tenant);
        let is_new = self.slots.insert_at(slot, series);
        if is_new {
            let is_twin = |s: &u32| self.slots.get(*s).is_some_and(|s| s.hash == hash && s.tenant == tenant);
            self.has_twins |= self.by_labels.find(hash, is_twin).is_some();
            self.index_slot(slot, hash);
        }
        is_new
    }

    fn index_slot(&mut self, slot: u32, hash: u64) {
        let slots = &self.slots;
        self.by_labels.insert_unique(hash, slot, |s| slots.get(*s).map_or(0, |s| s.hash));
    }

    /// A series' chunks that overlap a range, by their first sample, and those that can't be read.
    pub(crate) fn collect(
        &self,
        series: &MemSeries,
        range_ms: &RangeInclusive<i64>,
        late: LatePart,
        chunks: &mut Vec<Chunk>,
    ) -> Vec<Error> {
        let mut damaged = Vec::new();
        let mut take = |chunk: Result<Chunk>| match chunk {
            Ok(chunk) if chunk.overlaps(range_ms) => chunks.push(chunk),
            Ok(_) => {}
            Err(error) => damaged.push(error),
        };
        let open = series.open.finished();
        // What is finished ends before the open chunk begins.
        if open.is_none_or(|open| *range_ms.start() < open.min_ms) {
            for sealed in series.sealed_in(*range_ms.start(), *range_ms.end()) {
                take(self.chunks.read(sealed.at));
            }
        }
        if let Some(open) = open
            && open.min_ms <= *range_ms.end()
            && *range_ms.start() <= open.max_ms
        {
            take(Ok(open.to_chunk()));
        }
        if let Some(aside) = &series.late {
            for sealed in aside.sealed.iter().filter(|c| late != LatePart::Frozen || c.is_frozen) {
                if sealed.min_ms <= *range_ms.end() && *range_ms.start() <= sealed.max_ms {
                    take(self.chunks.read(sealed.at));
                }
            }
            if late == LatePart::All {
                aside.buffered_chunks().into_iter().for_each(|chunk| take(Ok(chunk)));
            }
            chunks.sort_by_key(|chunk| chunk.min_ms);
        }
        damaged
    }

    /// Whether the series has a chunk that overlaps a range. Of finished chunks the headers are read: only they say when a
    /// chunk ends. One whose header can't be read counts as overlapping.
    pub(crate) fn has_chunk_in(&self, series: &MemSeries, range_ms: &RangeInclusive<i64>) -> bool {
        let (min_ms, max_ms) = (*range_ms.start(), *range_ms.end());
        let meets = |sealed: &SealedRef| {
            let outline = self.chunks.outline(sealed.at);
            outline.is_none_or(|chunk| chunk.min_ms <= max_ms && min_ms <= chunk.max_ms)
        };
        series.overlaps_in_memory(range_ms) || series.sealed_in(min_ms, max_ms).iter().any(meets)
    }

    /// Adds what a series' chunks weigh.
    pub(crate) fn weigh(&self, series: &MemSeries, scale: &mut Scale) {
        let (min_ms, max_ms) = (*scale.range_ms().start(), *scale.range_ms().end());
        let sealed = series.sealed_in(min_ms, max_ms).iter().map(|sealed| sealed.at);
        let aside = series.late.iter().flat_map(|late| &late.sealed).map(|sealed| sealed.at);
        sealed.chain(aside).filter_map(|at| self.chunks.outline(at)).for_each(|chunk| scale.add_chunk(chunk));
        if let Some(Finished { min_ms, max_ms, bytes, .. }) = series.open.finished() {
            let samples = series.open.count().into();
            scale.add_chunk(Outline { min_ms, max_ms, samples, bytes: bytes.len() as f64 });
        }
        let buffer = series.late.as_ref().map_or(&[][..], |late| &late.buffer);
        if let (Some(first), Some(last)) = (buffer.first(), buffer.last()) {
            scale.add_chunk(Outline {
                min_ms: first.timestamp_ms,
                max_ms: last.timestamp_ms,
                samples: buffer.len() as f64,
                bytes: size_of_val(buffer) as f64,
            });
        }
    }

    /// Opens the head-chunk files that a checkpoint knew.
    pub(crate) fn open_chunks(&mut self, end: FilesEnd) -> Result<()> {
        self.chunks = self.chunks.reopen(end)?;
        Ok(())
    }

    /// Calls `add` with a timestamp in each range that the series has samples in, and about how many.
    pub(crate) fn count_ranges(&self, series: &MemSeries, add: &mut dyn FnMut(i64, u64)) {
        for sealed in &series.sealed {
            let begin_ms = sealed.begin_ms().or_else(|| Some(self.chunks.read(sealed.at).ok()?.min_ms));
            if let Some(begin_ms) = begin_ms {
                add(begin_ms, u64::from(CHUNK_SAMPLES_MAX) / 2);
            }
        }
        if let Some(open) = series.open.finished() {
            add(open.max_ms, series.open.count().into());
        }
        if let Some(late) = &series.late {
            late.sealed.iter().for_each(|chunk| add(chunk.min_ms, BUFFER_SAMPLES_MAX as u64));
            late.buffer.iter().for_each(|sample| add(sample.timestamp_ms, 1));
        }
    }
}
