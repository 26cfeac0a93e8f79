//! A series' samples that can't go into its open chunk: out of order, for a range that is cut already, or another
//! value for a timestamp that there is.
//!
//! They wait in a sorted buffer and go, when it is full, into chunks of their own, which overlap those in order;
//! whoever reads merges. At a cut the range's samples are frozen: what is written to the block is exactly what is
//! dropped afterwards, and what comes meanwhile stays for the next.

use std::cmp::Ordering;

use super::chunks::Position;
use super::open::{Finished, encode_by_rule};
use super::rule::{RANGE_MS, range_start_ms};
use crate::chunk::encode;
use crate::model::{Sample, prefer};
use crate::select::Chunk;

/// Most samples of a series' buffer.
pub(crate) const BUFFER_SAMPLES_MAX: usize = 64;

/// Late samples of one series.
#[derive(Debug, Default)]
pub(crate) struct Late {
    /// By time, one a timestamp.
    pub(crate) buffer: Vec<Sample>,
    /// In the order in which they were sealed.
    pub(crate) sealed: Vec<LateChunk>,
}

/// A chunk of late samples, all of one aligned range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LateChunk {
    pub(crate) at: Position,
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    /// Being written to a block, after which it goes.
    pub(crate) is_frozen: bool,
}

impl Late {
    /// The buffered sample at a timestamp.
    pub(crate) fn buffered(&self, timestamp_ms: i64) -> Option<&Sample> {
        let at = self.buffer.binary_search_by_key(&timestamp_ms, |s| s.timestamp_ms).ok()?;
        Some(&self.buffer[at])
    }

    /// Buffers a sample; of two at one timestamp the preferred one stays. When the buffer is full, `seal` gets all of
    /// it as chunks.
    pub(crate) fn insert(&mut self, sample: Sample, seal: impl FnMut(Finished<'_>) -> Position) {
        match self.buffer.binary_search_by_key(&sample.timestamp_ms, |s| s.timestamp_ms) {
            Ok(at) if prefer(&sample, &self.buffer[at]) == Ordering::Greater => self.buffer[at] = sample,
            Ok(_) => {}
            Err(at) => self.buffer.insert(at, sample),
        }
        if self.buffer.len() >= BUFFER_SAMPLES_MAX {
            self.seal(i64::MIN, i64::MAX, seal);
        }
    }

    /// Seals the buffered samples from `start_ms` up to `end_ms`, which is excluded.
    fn seal(&mut self, start_ms: i64, end_ms: i64, mut seal: impl FnMut(Finished<'_>) -> Position) {
        let from = self.buffer.partition_point(|s| s.timestamp_ms < start_ms);
        let to = self.buffer.partition_point(|s| s.timestamp_ms < end_ms);
        let samples: Vec<_> = self.buffer.drain(from..to).collect();
        for range in samples.chunk_by(|a, b| range_start_ms(a.timestamp_ms) == range_start_ms(b.timestamp_ms))
        {
            for chunk in encode(range) {
                let Chunk { min_ms, max_ms, encoding, data } = chunk;
                let at = seal(Finished { encoding, min_ms, max_ms, bytes: &data });
                self.sealed.push(LateChunk { at, min_ms, max_ms, is_frozen: false });
            }
        }
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }

    /// Seals and marks all samples of the range that begins at `start_ms`, and tells whether there are any.
    pub(crate) fn freeze(&mut self, start_ms: i64, seal: impl FnMut(Finished<'_>) -> Position) -> bool {
        self.seal(start_ms, start_ms + RANGE_MS, seal);
        let mut any = false;
        for chunk in self.sealed.iter_mut().filter(|c| range_start_ms(c.min_ms) == start_ms) {
            chunk.is_frozen = true;
            any = true;
        }
        any
    }

    /// The block that was to take the frozen samples didn't come to be.
    pub(crate) fn thaw(&mut self) {
        self.sealed.iter_mut().for_each(|chunk| chunk.is_frozen = false);
    }

    /// Drops the frozen chunks of a range.
    pub(crate) fn drop_frozen(&mut self, start_ms: i64) {
        self.sealed.retain(|c| !(c.is_frozen && range_start_ms(c.min_ms) == start_ms));
        self.sealed.shrink_to_fit();
    }

    /// Whether there is nothing left.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.sealed.is_empty()
    }

    /// The buffered samples as chunks.
    pub(crate) fn buffered_chunks(&self) -> Vec<Chunk> {
        encode_by_rule(&self.buffer)
    }

    /// Bytes allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + self.buffer.capacity() * size_of::<Sample>()
            + self.sealed.capacity() * size_of::<LateChunk>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(late: &mut Late, sealed: &mut Vec<Chunk>, t: i64, v: f64) {
        late.insert(Sample::float(t, v), |f| {
            sealed.push(f.to_chunk());
            Position(sealed.len() as u32)
        });
    }

    #[test]
    fn the_preferred_value_stays_whatever_came_first() {
        for values in [[1.0, 2.0], [2.0, 1.0]] {
            let (mut late, mut sealed) = (Late::default(), Vec::new());
            values.iter().for_each(|v| insert(&mut late, &mut sealed, 5, *v));
            assert_eq!(late.buffered(5), Some(&Sample::float(5, 2.0)));
            assert_eq!(late.buffer.len(), 1);
        }
    }

    #[test]
    fn a_full_buffer_becomes_chunks_that_stay_in_their_range() {
        let (mut late, mut sealed) = (Late::default(), Vec::new());
        let step = RANGE_MS / 16;
        (0..BUFFER_SAMPLES_MAX as i64).rev().for_each(|i| insert(&mut late, &mut sealed, i * step, 0.0));
        assert!(late.buffer.is_empty());
        assert_eq!(sealed.len(), 4);
        assert!(sealed.iter().all(|c| range_start_ms(c.min_ms) == range_start_ms(c.max_ms)));
    }

    #[test]
    fn what_comes_after_a_freeze_outlives_the_drop() {
        let (mut late, mut sealed) = (Late::default(), Vec::new());
        insert(&mut late, &mut sealed, 1, 0.0);
        insert(&mut late, &mut sealed, RANGE_MS, 0.0);
        assert!(late.freeze(0, |_| Position(0)));
        assert!(!late.freeze(-RANGE_MS, |_| Position(0)));
        insert(&mut late, &mut sealed, 2, 0.0);
        late.drop_frozen(0);
        assert_eq!(late.buffer.iter().map(|s| s.timestamp_ms).collect::<Vec<_>>(), [2, RANGE_MS]);
        assert!(late.sealed.is_empty());
    }
}
