//! One series of the head.

use std::ops::RangeInclusive;

use smallvec::SmallVec;

use super::chunks::{HeadChunks, Position};
use super::late::Late;
use super::open::OpenChunk;
use super::reference::SeriesRef;
use super::rule::{RANGE_MS, range_start_ms};
use super::symbols::LabelsAt;
use crate::model::Sample;

/// A series. At 100,000 of them each byte here is 100 kB: see the layout test.
pub(crate) struct MemSeries {
    /// Samples in order that aren't finished.
    pub(crate) open: OpenChunk,
    /// Timestamp of the newest sample that was ever stored, late ones included; `i64::MIN` = none.
    pub(crate) newest_ms: i64,
    /// xxh3-64 of the labels.
    pub(crate) hash: u64,
    /// Finished chunks in order, oldest first.
    pub(crate) sealed: SmallVec<[SealedRef; 2]>,
    /// Samples that the open chunk can't take.
    pub(crate) late: Option<Box<Late>>,
    pub(crate) labels: LabelsAt,
    /// Of the ref; [`VACANT`] = no series is here.
    pub(crate) generation: u32,
    /// Index of the tenant in this process.
    pub(crate) tenant: u32,
    /// WAL segment that holds the labels; 0 = none.
    pub(crate) defined_in: u32,
    /// Keys that name this series.
    pub(crate) aliases: u8,
    /// Whether the next collection passes it over although it is empty: it was made a moment ago.
    pub(crate) is_fresh: bool,
}

/// The generation of a slot without a series.
const VACANT: u32 = u32::MAX;

/// A finished chunk: where it is, and about when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealedRef {
    pub(crate) at: Position,
    /// Seconds since the epoch of the first sample, rounded down and cut to what fits.
    begin_s: u32,
}

impl SealedRef {
    pub(crate) fn new(at: Position, min_ms: i64) -> Self {
        Self { at, begin_s: u32::try_from(min_ms.div_euclid(1000).max(0)).unwrap_or(u32::MAX) }
    }

    /// For a checkpoint.
    pub(crate) fn to_u64(self) -> u64 {
        u64::from(self.at.0) << 32 | u64::from(self.begin_s)
    }

    /// From a checkpoint.
    pub(crate) fn from_u64(value: u64) -> Self {
        Self { at: Position((value >> 32) as u32), begin_s: value as u32 }
    }

    /// About when the first sample is: in the same second; `None` where only the chunk itself tells.
    pub(crate) fn begin_ms(self) -> Option<i64> {
        (self.begin_s != 0 && self.begin_s != u32::MAX).then_some(i64::from(self.begin_s) * 1000)
    }

    /// The first sample is at this time or later.
    fn not_before_ms(self) -> i64 {
        if self.begin_s == 0 { i64::MIN } else { i64::from(self.begin_s) * 1000 }
    }

    /// Whether the first sample is before `end_ms`, a whole second. A chunk that can't be read counts as gone.
    fn begins_before(self, end_ms: i64, chunks: &HeadChunks) -> bool {
        match self.begin_ms() {
            Some(begin_ms) => begin_ms < end_ms,
            None => chunks.read(self.at).map_or(true, |chunk| chunk.min_ms < end_ms),
        }
    }

    /// The first sample is at this time or earlier.
    fn not_after_ms(self) -> i64 {
        if self.begin_s == u32::MAX { i64::MAX } else { i64::from(self.begin_s) * 1000 + 999 }
    }
}

impl MemSeries {
    pub(crate) fn new(tenant: u32, generation: u32, hash: u64, labels: LabelsAt) -> Self {
        Self {
            open: OpenChunk::default(),
            newest_ms: i64::MIN,
            hash,
            sealed: SmallVec::new(),
            late: None,
            labels,
            generation,
            tenant,
            defined_in: 0,
            aliases: 0,
            is_fresh: true,
        }
    }

    /// Stands in a slot without a series.
    pub(crate) fn vacant() -> Self {
        Self::new(u32::MAX, VACANT, 0, LabelsAt::default())
    }

    pub(crate) fn is_vacant(&self) -> bool {
        self.generation == VACANT
    }

    /// Whether it has no sample.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.count() == 0 && self.sealed.is_empty() && self.late.is_none()
    }

    /// Appends a sample that is newer than all in order, without asking whether it may be.
    #[inline]
    pub(crate) fn append_in_order(&mut self, own: SeriesRef, sample: &Sample, chunks: &mut HeadChunks) {
        let sealed = &mut self.sealed;
        self.open.append(sample, |finished| {
            sealed.push(SealedRef::new(chunks.append(own, finished), finished.min_ms));
        });
        self.newest_ms = self.newest_ms.max(sample.timestamp_ms);
    }

    /// Puts a sample aside.
    pub(crate) fn append_late(&mut self, own: SeriesRef, sample: Sample, chunks: &mut HeadChunks) {
        self.newest_ms = self.newest_ms.max(sample.timestamp_ms);
        self.late.get_or_insert_default().insert(sample, |finished| chunks.append(own, finished));
    }

    /// Finished chunks that may hold samples of a range, both ends included.
    pub(crate) fn sealed_in(&self, min_ms: i64, max_ms: i64) -> &[SealedRef] {
        let to = self.sealed.partition_point(|s| s.not_before_ms() <= max_ms);
        // A chunk ends before the next begins.
        let from = self.sealed.partition_point(|s| s.not_after_ms() < min_ms).saturating_sub(1);
        &self.sealed[from.min(to)..to]
    }

    /// Whether it may have samples in a range, both ends included; nothing is read for it. The last finished chunk counts as
    /// endless: see [`Shard::has_chunk_in`](super::shard::Shard::has_chunk_in) where that won't do.
    pub(crate) fn may_overlap(&self, range_ms: &RangeInclusive<i64>) -> bool {
        self.overlaps_in_memory(range_ms) || !self.sealed_in(*range_ms.start(), *range_ms.end()).is_empty()
    }

    /// Whether its open chunk or late samples overlap a range, both ends included.
    pub(crate) fn overlaps_in_memory(&self, range_ms: &RangeInclusive<i64>) -> bool {
        let (min_ms, max_ms) = (*range_ms.start(), *range_ms.end());
        let meets = |from: i64, to: i64| from <= max_ms && min_ms <= to;
        self.open.finished().is_some_and(|open| meets(open.min_ms, open.max_ms))
            || self.late.as_ref().is_some_and(|late| {
                late.buffer.iter().any(|s| range_ms.contains(&s.timestamp_ms))
                    || late.sealed.iter().any(|chunk| meets(chunk.min_ms, chunk.max_ms))
            })
    }

    /// Times that a finished chunk may hold, by its neighbours.
    pub(crate) fn sealed_times_ms(&self, at: usize) -> RangeInclusive<i64> {
        let end_ms = match self.sealed.get(at + 1) {
            Some(next) => next.not_after_ms(),
            None => self.open.finished().map_or(self.newest_ms, |open| open.min_ms),
        };
        self.sealed[at].not_before_ms()..=end_ms
    }

    /// Drops what is in order in the range that begins at `start_ms`: whole chunks, since none leaves its range.
    pub(crate) fn drop_in_order(&mut self, start_ms: i64, chunks: &HeadChunks) {
        let from = self.sealed.iter().position(|s| !s.begins_before(start_ms, chunks));
        let from = from.unwrap_or(self.sealed.len());
        let end_ms = start_ms + RANGE_MS;
        let count = self.sealed[from..].iter().take_while(|s| s.begins_before(end_ms, chunks)).count();
        if count > 0 {
            self.sealed.drain(from..from + count);
            self.sealed.shrink_to_fit();
        }
        if self.open.finished().is_some_and(|open| range_start_ms(open.min_ms) == start_ms) {
            self.open.close();
        }
    }

    /// Bytes allocated besides the struct itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        let sealed = if self.sealed.spilled() { self.sealed.capacity() * size_of::<SealedRef>() } else { 0 };
        self.open.heap_bytes() + sealed + self.late.as_ref().map_or(0, |late| late.heap_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_small() {
        assert!(size_of::<MemSeries>() <= 176, "{}", size_of::<MemSeries>());
    }

    #[test]
    fn sealed_chunks_are_found_by_range_without_reading_them() {
        let mut series = MemSeries::new(0, 0, 0, LabelsAt::default());
        for i in 0..4 {
            series.sealed.push(SealedRef::new(Position(i), 10_500 + i64::from(i) * 10_000));
        }
        let found = |min, max| series.sealed_in(min, max).iter().map(|s| s.at.0).collect::<Vec<_>>();
        assert_eq!(found(0, 9_999), [0u32; 0]);
        assert_eq!(found(25_000, 25_000), [1]);
        assert_eq!(found(20_400, 20_600), [0, 1]);
        assert_eq!(found(50_000, 60_000), [3]);
        assert_eq!(found(i64::MIN, i64::MAX), [0, 1, 2, 3]);
    }

    #[test]
    fn times_before_the_epoch_and_far_ahead_are_never_passed_over() {
        let mut series = MemSeries::new(0, 0, 0, LabelsAt::default());
        for (i, min_ms) in [-5_000, 400, 1 << 50].into_iter().enumerate() {
            series.sealed.push(SealedRef::new(Position(i as u32), min_ms));
        }
        let found = |min, max| series.sealed_in(min, max).iter().map(|s| s.at.0).collect::<Vec<_>>();
        assert!(found(-6_000, -4_000).contains(&0));
        assert!(found(300, 500).contains(&1));
        assert!(found(1 << 50, 1 << 51).contains(&2));
    }
}
