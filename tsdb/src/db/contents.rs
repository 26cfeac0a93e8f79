//! What a tenant has by time, whichever of head and blocks it is in: for comparing it with other nodes.
//!
//! Replicas compare digests of aligned windows. Computing one means decoding it, so whoever did it keeps the result
//! together with a *stamp* of the window, and computes again only when the stamp is another: it covers which blocks
//! there are, and when the head's samples of each *cell* of time changed last.
//!
//! Series are handed out part by part, by hash, so that memory is bounded whatever the tenant's size.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};

use xxhash_rust::xxh3::xxh3_128;

use super::ask::EVERY_BLOCK;
use super::tenant::Tenant;
use crate::Result;
use crate::head::rule::{RANGE_MS, range_start_ms};
use crate::model::Labels;
use crate::select::{Select, Series, Shard, merge_series};

/// Length of the windows in which replicas compare what they have, in milliseconds; aligned to its multiples.
pub const WINDOW_MS: i64 = RANGE_MS;
/// Changes in the head are noted by cells of this length, in milliseconds; a window is a whole number of them.
pub(super) const CELL_MS: i64 = 10 * 60 * 1000;
/// About how many series are held at once.
const PART_SERIES: u64 = 16_384;

const _: () = assert!(RANGE_MS % CELL_MS == 0, "cells don't cross ranges");

/// Start of the cell that holds `timestamp_ms`.
pub(super) fn cell_start_ms(timestamp_ms: i64) -> i64 {
    timestamp_ms.div_euclid(CELL_MS) * CELL_MS
}

/// Stands for what is stored in some stretch of time: while it is equal, so is that. Of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentStamp(u128);

impl ContentStamp {
    /// As bytes, to be told to others, who can only compare it.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

/// When the head's samples changed, by a count that never has the same value twice.
#[derive(Debug, Default)]
pub(super) struct Changes {
    count: u64,
    cells: BTreeMap<i64, u64>,
    /// When something changed nobody knows where.
    everywhere: u64,
}

impl Changes {
    /// Samples were added to the cells that begin at these times; they are visible already.
    pub(super) fn note(&mut self, cells: impl Iterator<Item = i64>) {
        self.count += 1;
        self.cells.extend(cells.map(|start_ms| (start_ms, self.count)));
    }

    /// Samples may be gone, from wherever.
    pub(super) fn note_all(&mut self) {
        self.count += 1;
        self.everywhere = self.count;
    }

    /// What these cells had is in a block now, whose name says as much.
    pub(super) fn forget(&mut self, times_ms: Range<i64>) {
        self.cells.retain(|start_ms, _| !times_ms.contains(start_ms));
    }
}

impl Tenant {
    /// Starts of the windows of [`WINDOW_MS`] in which something may be stored, in milliseconds, ascending.
    pub fn windows_ms(&self) -> Vec<i64> {
        // Of the head before blocks: a cut shows its block before it empties the head.
        let mut windows: BTreeSet<i64> = self.ranges.starts_ms().into_iter().collect();
        for block in self.blocks.load().iter() {
            let (from, to) = (range_start_ms(block.meta().min_ms), block.meta().max_ms);
            windows.extend((from..to).step_by(WINDOW_MS as usize));
        }
        windows.into_iter().collect()
    }

    /// The stamp of what is stored in `times_ms`. To be taken before that is looked at.
    pub fn content_stamp(&self, times_ms: &RangeInclusive<i64>) -> ContentStamp {
        let mut bytes = Vec::new();
        {
            let changed = self.changed.lock();
            bytes.extend(changed.everywhere.to_le_bytes());
            for (start_ms, count) in changed.cells.range(cell_start_ms(*times_ms.start())..=*times_ms.end()) {
                bytes.extend(start_ms.to_le_bytes());
                bytes.extend(count.to_le_bytes());
            }
        }
        // In front of the names how many numbers there were, so that none is taken for the other.
        bytes.extend(bytes.len().to_le_bytes());
        for block in self.blocks_in(times_ms, &EVERY_BLOCK) {
            bytes.extend(block.meta().ulid.0.to_le_bytes());
        }
        ContentStamp(xxh3_128(&bytes))
    }

    /// Hands out every series that has chunks in `times_ms` (milliseconds, both ends included) and of which `wanted`
    /// accepts the labels: each once, in no particular order, with all its chunks that overlap the range. `wanted` is
    /// asked under a lock, and perhaps more than once for a series.
    ///
    /// # Errors
    /// Those of [`Tenant::select`], and whatever `take` returns.
    pub fn each_series(
        &self,
        times_ms: &RangeInclusive<i64>,
        wanted: &mut dyn FnMut(&Labels) -> bool,
        take: &mut dyn FnMut(Series) -> Result<()>,
    ) -> Result<()> {
        let in_blocks = self.blocks_in(times_ms, &EVERY_BLOCK);
        let in_blocks = in_blocks.iter().map(|block| block.meta().stats.num_series).max().unwrap_or(0);
        let count = self.series_count().max(in_blocks).div_ceil(PART_SERIES).max(1);
        for index in 0..count {
            let shard = (count > 1).then_some(Shard { index, count });
            let select = Select { matchers: Vec::new(), range_ms: times_ms.clone(), shard };
            let (in_head, blocks) =
                self.view(times_ms, &EVERY_BLOCK, || self.select_head(&select, wanted))?;
            let mut sources = vec![in_head];
            for block in blocks {
                sources.push(block.select_wanted(&select, wanted)?);
            }
            merge_series(sources)?.into_iter().try_for_each(&mut *take)?;
        }
        Ok(())
    }
}
