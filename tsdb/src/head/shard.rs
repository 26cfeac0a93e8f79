//! One part of the head: the series whose hash falls to it, of all tenants, behind one lock.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use hashbrown::HashTable;

use super::chunks::{FilesEnd, HeadChunks};
use super::late::BUFFER_SAMPLES_MAX;
use super::reference::SeriesRef;
use super::rings::{ExemplarRing, MetadataTable};
use super::rule::{CHUNK_SAMPLES_MAX, TIMESTAMP_MS_MAX};
use super::series::{MemSeries, Slots};
use super::symbols::LabelStore;
use crate::chunk::Decoder;
use crate::db::{Append, Bounds, DbSettings, Exemplar, Metadata, Outcome};
use crate::disk::Disk;
use crate::model::{Labels, Sample, Value, prefer};
use crate::select::Chunk;
use crate::wal::WalPosition;
use crate::{Error, Result};

/// How far ahead of its append a series is fetched.
const PREFETCH_SERIES: usize = 8;
/// How far ahead its open chunk's end is; less, since that takes the series itself.
const PREFETCH_CHUNKS: usize = 4;

/// A shard of the head.
pub(crate) struct Shard {
    index: u32,
    /// log2 of the number of shards.
    bits: u32,
    pub(crate) slots: Slots,
    pub(crate) labels: LabelStore,
    /// Slots by labels' hash.
    by_labels: HashTable<u32>,
    pub(crate) chunks: HeadChunks,
    pub(crate) exemplars: ExemplarRing,
    pub(crate) metadata: MetadataTable,
    /// Where its last records end in the WAL.
    pub(crate) logged: WalPosition,
    /// Series removed since symbols were rebuilt.
    removed: usize,
}

/// What an append has to tell the WAL.
#[derive(Default)]
pub(crate) struct Log {
    /// Series whose labels the segment needs before their samples.
    pub(crate) definitions: Vec<SeriesRef>,
    pub(crate) floats: Vec<(SeriesRef, i64, f64)>,
    pub(crate) histograms: Vec<(SeriesRef, Sample)>,
    pub(crate) exemplars: Vec<(SeriesRef, Exemplar)>,
    pub(crate) metadata: Vec<Metadata>,
}

impl Log {
    pub(crate) fn clear(&mut self) {
        self.definitions.clear();
        self.floats.clear();
        self.histograms.clear();
        self.exemplars.clear();
        self.metadata.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.floats.is_empty()
            && self.histograms.is_empty()
            && self.exemplars.is_empty()
            && self.metadata.is_empty()
    }

    /// Refs of all samples and exemplars.
    pub(crate) fn series(&self) -> impl Iterator<Item = SeriesRef> {
        let floats = self.floats.iter().map(|(series, ..)| *series);
        let histograms = self.histograms.iter().map(|(series, _)| *series);
        floats.chain(histograms).chain(self.exemplars.iter().map(|(series, _)| *series))
    }

    /// Timestamps of all samples.
    pub(crate) fn timestamps_ms(&self) -> impl Iterator<Item = i64> {
        self.floats.iter().map(|(_, t, _)| *t).chain(self.histograms.iter().map(|(_, s)| s.timestamp_ms))
    }

    fn sample(&mut self, series: SeriesRef, sample: &Sample) {
        match &sample.value {
            Value::Float(value) => self.floats.push((series, sample.timestamp_ms, *value)),
            _ => self.histograms.push((series, sample.clone())),
        }
    }
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

/// What holds for all samples of one append.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    /// Index of the tenant.
    pub(crate) tenant: u32,
    pub(crate) bounds: Bounds,
    /// The tenant's samples before this are in blocks.
    pub(crate) cut_until_ms: i64,
    /// The WAL segment that the log goes to.
    pub(crate) segment: u32,
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
            exemplars: ExemplarRing::new(settings.exemplars_max >> bits),
            metadata: MetadataTable::new(settings.metadata_max >> bits),
            logged: WalPosition::START,
            removed: 0,
        }
    }

    /// Its number.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    fn slot_of(&self, series: SeriesRef) -> u32 {
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

    fn remove(&mut self, slot: u32) {
        let Some(series) = self.slots.get(slot) else { return };
        if let Ok(entry) = self.by_labels.find_entry(series.hash, |s| *s == slot) {
            entry.remove();
        }
        self.slots.remove(slot);
        self.removed += 1;
    }

    /// Puts a series into a slot; `false` when another one has it.
    pub(crate) fn restore(&mut self, slot: u32, series: MemSeries) -> bool {
        let hash = series.hash;
        let is_new = self.slots.insert_at(slot, series);
        if is_new {
            self.index_slot(slot, hash);
        }
        is_new
    }

    fn index_slot(&mut self, slot: u32, hash: u64) {
        let slots = &self.slots;
        self.by_labels.insert_unique(hash, slot, |s| slots.get(*s).map_or(0, |s| s.hash));
    }

    /// Appends the samples `order` picks from `batch`, writes each one's outcome, and notes for the WAL what is new.
    pub(crate) fn append(
        &mut self,
        terms: Terms,
        batch: &[Append],
        order: &[u32],
        outcomes: &mut [Outcome],
        log: &mut Log,
    ) {
        let ahead = |i: usize| order.get(i).map(|at| batch[*at as usize].series);
        for (i, at) in order.iter().enumerate() {
            self.prefetch(ahead(i + PREFETCH_SERIES), ahead(i + PREFETCH_CHUNKS));
            let append = &batch[*at as usize];
            outcomes[*at as usize] = self.append_one(terms, append.series, &append.sample, log);
        }
    }

    /// Takes samples that come from the WAL; tells how many of them nobody knows the series of. Those of a series whose
    /// slot has a later one aren't counted: it had been collected, so they are in a block.
    pub(crate) fn replay(&mut self, terms: Terms, batch: &[Append]) -> u64 {
        let ahead = |i: usize| batch.get(i).map(|append| append.series);
        let mut orphans = 0;
        for (i, append) in batch.iter().enumerate() {
            self.prefetch(ahead(i + PREFETCH_SERIES), ahead(i + PREFETCH_CHUNKS));
            if self.take(terms, append.series, &append.sample) == Outcome::UnknownSeries {
                let later = self.slots.get(self.slot_of(append.series));
                orphans += u64::from(later.is_none_or(|s| s.generation <= append.series.generation()));
            }
        }
        orphans
    }

    /// Fetches a series, and the end of the open chunk of one that was fetched before.
    #[inline]
    fn prefetch(&self, series: Option<SeriesRef>, chunk: Option<SeriesRef>) {
        if let Some(series) = series {
            self.slots.prefetch(self.slot_of(series));
        }
        if let Some(series) = chunk.and_then(|chunk| self.slots.get(self.slot_of(chunk))) {
            series.open.prefetch();
        }
    }

    #[inline]
    fn append_one(&mut self, terms: Terms, own: SeriesRef, sample: &Sample, log: &mut Log) -> Outcome {
        let outcome = self.take(terms, own, sample);
        if outcome == Outcome::Stored {
            log.sample(own, sample);
            let series = self.slots.get_mut(self.slot_of(own)).expect("it has just taken a sample");
            if series.defined_in != terms.segment {
                series.defined_in = terms.segment;
                log.definitions.push(own);
            }
        }
        outcome
    }

    /// Takes a sample without noting it for the WAL, from which it may come.
    #[inline]
    fn take(&mut self, terms: Terms, own: SeriesRef, sample: &Sample) -> Outcome {
        let slot = self.slot_of(own);
        let Some(series) = self.slots.get_mut(slot) else { return Outcome::UnknownSeries };
        if series.generation != own.generation() || series.tenant != terms.tenant {
            return Outcome::UnknownSeries;
        }
        let timestamp_ms = sample.timestamp_ms;
        if timestamp_ms > terms.bounds.max_ms || timestamp_ms > TIMESTAMP_MS_MAX {
            return Outcome::TooFarAhead;
        }
        if timestamp_ms <= series.newest_ms || timestamp_ms < terms.cut_until_ms {
            return self.take_aside(terms, own, sample);
        }
        if timestamp_ms < terms.bounds.in_order_min_ms || timestamp_ms < -TIMESTAMP_MS_MAX {
            return Outcome::TooOld;
        }
        series.append_in_order(own, sample, &mut self.chunks);
        Outcome::Stored
    }

    /// A sample that isn't newer than all of its series, or whose range is cut.
    #[cold]
    fn take_aside(&mut self, terms: Terms, own: SeriesRef, sample: &Sample) -> Outcome {
        let Some(series) = self.get(own) else { return Outcome::UnknownSeries };
        let timestamp_ms = sample.timestamp_ms;
        let is_newest = timestamp_ms > series.newest_ms;
        // The open chunk keeps no start time, so it can't tell samples apart either.
        let sample = Sample { start_ms: 0, ..sample.clone() };
        if !is_newest {
            match self.compare(series, &sample) {
                Some(Ordering::Equal) => return Outcome::Duplicate,
                Some(Ordering::Less) => return Outcome::Superseded,
                Some(Ordering::Greater) | None => {}
            }
        }
        let bounds = terms.bounds;
        let min_ms = if is_newest { bounds.in_order_min_ms } else { bounds.out_of_order_min_ms };
        if timestamp_ms < min_ms || timestamp_ms < -TIMESTAMP_MS_MAX {
            return if is_newest || timestamp_ms < bounds.in_order_min_ms {
                Outcome::TooOld
            } else {
                Outcome::OutOfOrder
            };
        }
        let slot = self.slot_of(own);
        let series = self.slots.get_mut(slot).expect("it was there a moment ago");
        series.append_late(own, sample, &mut self.chunks);
        Outcome::Stored
    }

    /// A sample against what the series has at its timestamp; `None` when it has nothing there. What can't be read
    /// counts as not there.
    fn compare(&self, series: &MemSeries, sample: &Sample) -> Option<Ordering> {
        let timestamp_ms = sample.timestamp_ms;
        if series.late.is_none()
            && timestamp_ms == series.newest_ms
            && let Some(known) = series.open.last()
            && known.timestamp_ms == timestamp_ms
        {
            return Some(prefer(sample, &known));
        }
        let mut best: Option<Sample> =
            series.late.as_ref().and_then(|late| late.buffered(timestamp_ms).cloned());
        let mut chunks = Vec::new();
        self.collect(series, &(timestamp_ms..=timestamp_ms), LatePart::Sealed, &mut chunks);
        for chunk in &chunks {
            let Ok(samples) = Decoder::new(chunk.encoding, &chunk.data) else { continue };
            let found = samples.map_while(Result::ok).find(|s| s.timestamp_ms >= timestamp_ms);
            if let Some(found) = found.filter(|s| s.timestamp_ms == timestamp_ms) {
                best = Some(match best {
                    Some(best) if prefer(&best, &found).is_ge() => best,
                    _ => found,
                });
            }
        }
        best.map(|known| prefer(sample, &known))
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
        for sealed in series.sealed_in(*range_ms.start(), *range_ms.end()) {
            take(self.chunks.read(sealed.at));
        }
        if let Some(open) = series.open.finished()
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

    /// Removes series that have no samples and aren't new, and tells their ids and refs. Symbols are rebuilt when
    /// about half of them may be garbage.
    pub(crate) fn collect_garbage(&mut self) -> Vec<(u32, SeriesRef)> {
        let mut gone = Vec::new();
        for (slot, series) in self.slots.iter_mut() {
            if series.late.as_ref().is_some_and(|late| late.is_empty()) {
                series.late = None;
            }
            if series.is_empty() && !std::mem::take(&mut series.is_fresh) {
                gone.push((slot, series.tenant, series.generation));
            }
        }
        let mut removed = Vec::with_capacity(gone.len());
        for (slot, tenant, generation) in gone {
            self.remove(slot);
            removed.push((tenant, SeriesRef::new(generation, slot << self.bits | self.index)));
        }
        if !removed.is_empty() {
            let mut exemplars = std::mem::take(&mut self.exemplars);
            exemplars.retain(|series| self.get(series).is_some());
            self.exemplars = exemplars;
        }
        if self.removed > 0 && self.removed >= self.slots.len() {
            let Self { labels, slots, .. } = self;
            labels.rebuild(slots.iter_mut().map(|(_, series)| &mut series.labels));
            let slots = &self.slots;
            self.by_labels.shrink_to_fit(|s| slots.get(*s).map_or(0, |s| s.hash));
            self.removed = 0;
        }
        removed
    }

    /// Keeps an exemplar, and notes it for the WAL if it is new.
    pub(crate) fn append_exemplar(
        &mut self,
        tenant: u32,
        segment: u32,
        own: SeriesRef,
        exemplar: &Exemplar,
        log: &mut Log,
    ) {
        let Some(series) = self.get_mut(own).filter(|s| s.tenant == tenant) else { return };
        let is_defined = std::mem::replace(&mut series.defined_in, segment) == segment;
        if !is_defined {
            log.definitions.push(own);
        }
        if self.exemplars.push(own, exemplar.clone()) {
            log.exemplars.push((own, exemplar.clone()));
        } else if !is_defined {
            // Nothing goes to the WAL for its sake.
            log.definitions.pop();
            if let Some(series) = self.get_mut(own) {
                series.defined_in = 0;
            }
        }
    }

    /// The WAL moved to another segment before the log got there: it needs all definitions again.
    pub(crate) fn define_again(&mut self, segment: u32, log: &mut Log) {
        let mut definitions = std::mem::take(&mut log.definitions);
        definitions.clear();
        for own in log.series() {
            if let Some(series) = self.get_mut(own)
                && std::mem::replace(&mut series.defined_in, segment) != segment
            {
                definitions.push(own);
            }
        }
        log.definitions = definitions;
    }

    /// Seals and marks the late samples of a range of some series; those in order don't change any more.
    pub(crate) fn freeze(&mut self, ids: &[u32], start_ms: i64) {
        let Self { slots, chunks, index, bits, .. } = self;
        for slot in ids.iter().map(|id| id >> *bits) {
            let Some(series) = slots.get_mut(slot) else { continue };
            let own = SeriesRef::new(series.generation, slot << *bits | *index);
            if let Some(late) = &mut series.late {
                late.freeze(start_ms, |finished| chunks.append(own, finished));
            }
        }
    }

    /// The cut came to nothing.
    pub(crate) fn thaw(&mut self, ids: &[u32]) {
        for id in ids {
            if let Some(late) = self.slots.get_mut(id >> self.bits).and_then(|s| s.late.as_mut()) {
                late.thaw();
            }
        }
    }

    /// Drops what a cut of the range took from some series: what is in order, and the frozen late samples.
    pub(crate) fn drop_range(&mut self, ids: &[u32], start_ms: i64) {
        let Self { slots, chunks, bits, .. } = self;
        for id in ids {
            let Some(series) = slots.get_mut(id >> *bits) else { continue };
            series.drop_in_order(start_ms, chunks);
            if let Some(late) = &mut series.late {
                late.drop_frozen(start_ms);
                if late.is_empty() {
                    series.late = None;
                }
            }
        }
    }

    /// Drops what a block took of a tenant's range, when a replay comes to where it was taken.
    pub(crate) fn drop_cut(&mut self, tenant: u32, start_ms: i64) {
        let (bits, index) = (self.bits, self.index);
        let mine = self.slots.iter().filter(|(_, series)| series.tenant == tenant);
        let ids: Vec<u32> = mine.map(|(slot, _)| slot << bits | index).collect();
        self.freeze(&ids, start_ms);
        self.drop_range(&ids, start_ms);
    }

    /// Opens the head-chunk files that a checkpoint knew.
    pub(crate) fn open_chunks(&mut self, end: FilesEnd) -> Result<()> {
        self.chunks = self.chunks.reopen(end)?;
        Ok(())
    }

    /// Leaves out finished chunks that can't be read; tells whose they were and which times may be missing.
    pub(crate) fn drop_unreadable(&mut self) -> Vec<(u32, RangeInclusive<i64>, Error)> {
        let mut dropped = Vec::new();
        let Self { slots, chunks, .. } = self;
        for (_, series) in slots.iter_mut() {
            let tenant = series.tenant;
            let mut at = 0;
            while let Some(sealed) = series.sealed.get(at) {
                match chunks.read(sealed.at) {
                    Ok(_) => at += 1,
                    Err(error) => {
                        dropped.push((tenant, series.sealed_times_ms(at), error));
                        series.sealed.remove(at);
                    }
                }
            }
            let Some(late) = &mut series.late else { continue };
            late.sealed.retain(|sealed| match chunks.read(sealed.at) {
                Ok(_) => true,
                Err(error) => {
                    dropped.push((tenant, sealed.min_ms..=sealed.max_ms, error));
                    false
                }
            });
            if late.is_empty() {
                series.late = None;
            }
        }
        dropped
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

    /// Forgets head-chunk files in which no chunk is left that a series has; see [`HeadChunks::forget`].
    pub(crate) fn forget_files(&mut self) -> Vec<u32> {
        let mut used = BTreeSet::new();
        for (_, series) in self.slots.iter() {
            used.extend(series.sealed.iter().filter_map(|sealed| self.chunks.file_of(sealed.at)));
            let late = series.late.iter().flat_map(|late| &late.sealed);
            used.extend(late.filter_map(|sealed| self.chunks.file_of(sealed.at)));
        }
        self.chunks.forget(|number| used.contains(&number))
    }
}
