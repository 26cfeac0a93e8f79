//! Which ranges of time become blocks, by how dense the samples are.
//!
//! Ranges are Prometheus's: two hours, and three times as long from level to level, aligned to their length. Of each
//! stretch the longest range is taken that holds at most [`BLOCK_SAMPLES_MAX`] samples, so that twenty years of a sample a
//! day are a handful of blocks, and a busy day is many. Blocks leave a node whole, by their newest sample; where
//! retention is bounded, none is longer than a tenth of it.

use std::collections::BTreeMap;

/// The shortest range, in milliseconds.
pub(super) const RANGE_MS: i64 = 2 * 3_600_000;
/// How much longer a range is than those of the level below.
const FACTOR: i64 = 3;
/// The highest level: 4.5 years, as promtool's longest.
const LEVEL_MAX: u32 = 9;
/// Samples above which a range is divided, unless it is one of the shortest: 128 MiB while they are gathered.
const BLOCK_SAMPLES_MAX: u64 = 8 << 20;
/// How many blocks retention should span at least, as Prometheus has it.
const BLOCKS_OF_RETENTION: i64 = 10;

/// The range of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// Where it begins, in milliseconds since the Unix epoch.
    pub(super) start_ms: i64,
    /// Where it ends: not included.
    pub(super) end_ms: i64,
    /// Samples in it, more than none.
    pub(super) samples: u64,
}

/// Number of samples by shortest range, which is named by its number since the Unix epoch.
pub(super) type Counts = BTreeMap<i64, u64>;

/// The highest level that suits a retention, in milliseconds; `None` keeps blocks for ever.
pub(super) fn highest_level(retention_ms: Option<i64>) -> u32 {
    let fits = |level: &u32| {
        retention_ms.is_none_or(|kept_ms| RANGE_MS * FACTOR.pow(*level) <= kept_ms / BLOCKS_OF_RETENTION)
    };
    (0..=LEVEL_MAX).rev().find(fits).unwrap_or(0)
}

/// The ranges of all blocks, ascending, that together hold these samples.
pub(super) fn ranges(counts: &Counts, highest_level: u32) -> Vec<Range> {
    let mut found = Vec::new();
    let length = FACTOR.pow(highest_level);
    let mut next = counts.keys().next().copied();
    while let Some(number) = next {
        let start = number.div_euclid(length) * length;
        divide(counts, highest_level, start, &mut found);
        next = counts.range(start + length..).next().map(|(number, _)| *number);
    }
    found
}

/// Adds the range of a level that begins with the shortest range `start`, or those that it is divided into.
fn divide(counts: &Counts, level: u32, start: i64, found: &mut Vec<Range>) {
    let end = start + FACTOR.pow(level);
    let samples: u64 = counts.range(start..end).map(|(_, samples)| samples).sum();
    if samples == 0 {
        return;
    }
    if samples <= BLOCK_SAMPLES_MAX || level == 0 {
        found.push(Range { start_ms: start * RANGE_MS, end_ms: end * RANGE_MS, samples });
        return;
    }
    for part in 0..FACTOR {
        divide(counts, level - 1, start + part * FACTOR.pow(level - 1), found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn counts(times_ms: impl Iterator<Item = i64>, each: u64) -> Counts {
        let mut counts = Counts::new();
        times_ms.for_each(|at| *counts.entry(at.div_euclid(RANGE_MS)).or_default() += each);
        counts
    }

    #[test]
    fn sparse_history_becomes_few_blocks_and_a_busy_hour_one_of_its_own() {
        let twenty_years = || (0..7_300).map(|day| 1_000_000_000_000 + day * DAY_MS);
        let sparse = ranges(&counts(twenty_years(), 1), LEVEL_MAX);
        assert!(sparse.len() <= 6, "{}", sparse.len());
        assert_eq!(sparse.iter().map(|range| range.samples).sum::<u64>(), 7_300);
        // 1,000 series of 15 s: 480,000 samples in two hours, so 9 ranges of them fit into a block, and 27 don't.
        let dense = ranges(&counts((0..120).map(|n| n * RANGE_MS), 480_000), LEVEL_MAX);
        let (last, full) = dense.split_last().unwrap();
        assert!(full.iter().all(|range| range.end_ms - range.start_ms == 9 * RANGE_MS), "{dense:?}");
        assert_eq!((full.len(), last.samples), (12, 12 * 480_000));
        let mut mixed = counts(twenty_years(), 1);
        let busy = *mixed.keys().nth(3_000).unwrap();
        mixed.insert(busy, BLOCK_SAMPLES_MAX + 1);
        let mixed = ranges(&mixed, LEVEL_MAX);
        assert!(mixed.len() <= 6 + 2 * LEVEL_MAX as usize, "{}", mixed.len());
        let own = mixed.iter().find(|range| range.start_ms == busy * RANGE_MS).unwrap();
        assert_eq!(own.end_ms - own.start_ms, RANGE_MS);
    }

    #[test]
    fn no_range_is_longer_than_a_tenth_of_retention() {
        for (retention_days, level) in
            [(None, 9), (Some(15), 2), (Some(1), 0), (Some(0), 0), (Some(3_650), 7)]
        {
            assert_eq!(highest_level(retention_days.map(|days| days * DAY_MS)), level, "{retention_days:?}");
        }
    }

    proptest! {
        #[test]
        fn ranges_are_aligned_apart_and_hold_all(
            counts in prop::collection::btree_map(-100_000..100_000i64, 1..BLOCK_SAMPLES_MAX * 2, 0..50),
            level in 0..=LEVEL_MAX,
        ) {
            let ranges = ranges(&counts, level);
            prop_assert!(ranges.is_sorted_by(|a, b| a.end_ms <= b.start_ms));
            for range in &ranges {
                let length = range.end_ms - range.start_ms;
                prop_assert_eq!(range.start_ms.rem_euclid(length), 0);
                prop_assert!(range.samples > 0 && (range.samples <= BLOCK_SAMPLES_MAX || length == RANGE_MS));
                let inside = counts.range(range.start_ms / RANGE_MS..range.end_ms / RANGE_MS);
                prop_assert_eq!(range.samples, inside.map(|(_, samples)| samples).sum::<u64>());
            }
            let all: u64 = counts.values().sum();
            prop_assert_eq!(ranges.iter().map(|range| range.samples).sum::<u64>(), all);
        }
    }
}
