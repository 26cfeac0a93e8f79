//! `changes` and `resets`: counts over neighbouring samples, by prefix sums.

use super::{FloatRun, KernelScratch, Windows};

/// `changes`: how often a sample differs from the one before it; NaN equals NaN.
pub fn changes(windows: &Windows, run: FloatRun<'_>, scratch: &mut KernelScratch, out: &mut [f64]) {
    count(windows, run, scratch, out, |previous, current| {
        current != previous && !(current.is_nan() && previous.is_nan())
    });
}

/// `resets`: how often a sample is below the one before it.
pub fn resets(windows: &Windows, run: FloatRun<'_>, scratch: &mut KernelScratch, out: &mut [f64]) {
    count(windows, run, scratch, out, |previous, current| current < previous);
}

#[inline]
fn count(
    windows: &Windows,
    run: FloatRun<'_>,
    scratch: &mut KernelScratch,
    out: &mut [f64],
    counts: impl Fn(f64, f64) -> bool,
) {
    count_at(windows, run, scratch, out, |at| counts(run.values[at - 1], run.values[at]));
}

/// Counts the samples that `counts` and that aren't their window's first.
#[inline]
pub(super) fn count_at(
    windows: &Windows,
    run: FloatRun<'_>,
    scratch: &mut KernelScratch,
    out: &mut [f64],
    counts: impl Fn(usize) -> bool,
) {
    // before[i] is the number of counted pairs that end at or before sample i.
    let before = &mut scratch.indices;
    before.clear();
    before.reserve(run.values.len());
    before.push(0);
    let mut total = 0;
    for at in 1..run.values.len() {
        total += u32::from(counts(at));
        before.push(total);
    }
    windows.each(run.timestamps, |window| {
        if window.len() > 0 {
            out[window.step] = f64::from(before[window.hi - 1] - before[window.lo]);
        }
    });
}
