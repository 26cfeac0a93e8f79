//! Where a chunk ends: a rule over the series' samples alone, so that replicas make equal chunks.
//!
//! 1. Inside an aligned range of two hours, the pace is the least of the first four time steps.
//! 2. From the fifth sample on, the range falls into 2^k cells: the fewest that hold at most 170 steps of that pace.
//! 3. A chunk ends before a sample of another range or cell than the chunk's first, and at 240 samples. (A change of
//!    type and what histograms demand end it too: the encoder's business.)

use crate::{Error, Result};

/// Length of the aligned range that chunks and new blocks stay in: two hours, in milliseconds.
pub const RANGE_MS: i64 = 2 * 60 * 60 * 1000;
/// Most samples of a chunk.
pub const CHUNK_SAMPLES_MAX: u16 = 240;
/// Steps that set the pace.
const PACE_STEPS: u8 = 4;
/// Most steps of the pace in a cell.
const CELL_STEPS_MAX: u64 = 170;
/// Timestamps lie within this many milliseconds of the epoch (285,000 years): arithmetic on them can't overflow.
pub const TIMESTAMP_MS_MAX: i64 = 1 << 53;

/// Start of the aligned range that holds `timestamp_ms`.
pub fn range_start_ms(timestamp_ms: i64) -> i64 {
    timestamp_ms.div_euclid(RANGE_MS) * RANGE_MS
}

/// How far apart a series' samples are in the current range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Least of the steps seen, in milliseconds, at most a range; 0 = none yet.
    least_step_ms: u32,
    /// Steps seen, up to [`PACE_STEPS`].
    steps: u8,
}

impl Pace {
    /// Takes notice of a step between two samples of one range.
    #[inline]
    pub(crate) fn observe(&mut self, step_ms: i64) {
        if self.steps < PACE_STEPS {
            self.steps += 1;
            let step_ms = step_ms as u32;
            self.least_step_ms = if self.steps == 1 { step_ms } else { self.least_step_ms.min(step_ms) };
        }
    }

    /// Whether the next step may still change it.
    #[inline]
    pub(crate) fn is_open(self) -> bool {
        self.steps < PACE_STEPS
    }

    /// End (excluded) of the cell that holds `timestamp_ms`; of the whole range while the pace isn't known.
    pub(crate) fn cell_end_ms(self, timestamp_ms: i64) -> i64 {
        let start_ms = range_start_ms(timestamp_ms);
        if self.is_open() {
            return start_ms + RANGE_MS;
        }
        let cells = self.cells();
        let offset_ms = (timestamp_ms - start_ms).cast_unsigned();
        let cell = offset_ms * cells / RANGE_MS.cast_unsigned();
        start_ms + ((cell + 1) * RANGE_MS.cast_unsigned()).div_ceil(cells).cast_signed()
    }

    /// Number of cells in a range: a power of two.
    fn cells(self) -> u64 {
        let steps = RANGE_MS.cast_unsigned().div_ceil(u64::from(self.least_step_ms.max(1)));
        steps.div_ceil(CELL_STEPS_MAX).next_power_of_two()
    }

    /// For a checkpoint.
    pub(crate) fn to_parts(self) -> (u32, u8) {
        (self.least_step_ms, self.steps)
    }

    /// From a checkpoint.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when no series has such a pace.
    pub(crate) fn from_parts(least_step_ms: u32, steps: u8) -> Result<Self> {
        if steps > PACE_STEPS || i64::from(least_step_ms) > RANGE_MS {
            return Err(Error::corrupt("pace", 0, "steps are too many or too long"));
        }
        Ok(Self { least_step_ms, steps })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(step_ms: i64) -> Pace {
        let mut pace = Pace::default();
        (0..4).for_each(|_| pace.observe(step_ms));
        pace
    }

    #[test]
    fn cells_are_as_wide_as_170_steps_allow() {
        for (step_s, width_min) in [(15, 30), (60, 120), (300, 120), (10, 15), (30, 60), (1, 2)] {
            let width_ms = pace(step_s * 1000).cell_end_ms(0);
            // 1 s would fit 170 s, and 2 h / 64 is 112.5 s.
            let expected_ms = if step_s == 1 { 112_500 } else { width_min * 60_000 };
            assert_eq!(width_ms, expected_ms, "{step_s}");
        }
    }

    #[test]
    fn an_unknown_pace_means_the_whole_range() {
        let mut pace = Pace::default();
        (0..3).for_each(|_| pace.observe(1000));
        assert_eq!(pace.cell_end_ms(-1), 0);
        pace.observe(20_000);
        assert_eq!(pace.cell_end_ms(0), 112_500);
    }

    proptest! {
        #[test]
        fn a_timestamp_lies_in_its_cell(step in 1..RANGE_MS, t in -TIMESTAMP_MS_MAX..TIMESTAMP_MS_MAX) {
            let pace = pace(step);
            let end = pace.cell_end_ms(t);
            prop_assert!(t < end && end <= range_start_ms(t) + RANGE_MS);
            // The cell's first millisecond has the same end.
            let width = RANGE_MS / pace.cells() as i64;
            let same = (t - width).max(range_start_ms(t));
            prop_assert!(pace.cell_end_ms(same) <= end);
            prop_assert!(pace.cell_end_ms(end - 1) == end);
        }
    }
}
