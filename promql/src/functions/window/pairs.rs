//! `changes` and `resets`: how many neighbouring samples differ. Overlapping windows keep their count: what comes in at
//! the right is added, what leaves at the left taken away.

use std::ops::Range;

use super::{FloatRun, Windows};

/// `changes`: how often a sample differs from the one before it; NaN equals NaN.
pub fn changes(windows: &Windows, run: FloatRun<'_>, out: &mut [f64]) {
    count(windows, run, out, |previous, current| {
        (current != previous) & !(current.is_nan() & previous.is_nan())
    });
}

/// `resets`: how often a sample is below the one before it.
pub fn resets(windows: &Windows, run: FloatRun<'_>, out: &mut [f64]) {
    count(windows, run, out, |previous, current| current < previous);
}

#[inline]
fn count(windows: &Windows, run: FloatRun<'_>, out: &mut [f64], counts: impl Fn(f64, f64) -> bool) {
    // Over slices and without branches, so that it compiles to vector instructions.
    count_at(windows, run, out, |at| {
        let currents = &run.values[at.clone()];
        let previous = &run.values[at.start - 1..at.end - 1];
        currents.iter().zip(previous).map(|(current, previous)| u64::from(counts(*previous, *current))).sum()
    });
}

/// Counts the samples that count and that aren't their window's first; `counted` tells of a range of them, which never
/// holds the run's first.
#[inline]
pub(super) fn count_at(
    windows: &Windows,
    run: FloatRun<'_>,
    out: &mut [f64],
    counted: impl Fn(Range<usize>) -> u64,
) {
    let of = |at: Range<usize>| if at.is_empty() { 0 } else { counted(at) };
    // Of samples `first + 1..end`.
    let (mut first, mut end, mut total) = (0, 0, 0);
    windows.each(run.timestamps, |window| {
        if window.len() == 0 {
            return;
        }
        if window.lo >= end {
            total = of(window.lo + 1..window.hi);
        } else {
            total = total + of(end..window.hi) - of(first + 1..window.lo + 1);
        }
        (first, end) = (window.lo, window.hi);
        out[window.step] = total as f64;
    });
}
