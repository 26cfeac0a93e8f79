//! `rate`, `increase`, `delta`: difference of a window's ends, corrected for counter resets and extrapolated to the
//! window's borders; `irate` and `idelta`: difference of its last two samples.

use super::{FloatRun, KernelScratch, Window, WindowFunction, Windows};

/// A gap to the border this much longer than the mean distance of samples is taken for the series' own end.
const EXTRAPOLATION_THRESHOLD: f64 = 1.1;

/// What extrapolation needs to know of a window's samples.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Time of the first sample.
    pub first_ms: i64,
    /// Time of the last sample, behind the first.
    pub last_ms: i64,
    /// Number of samples, at least 2.
    pub samples: usize,
}

/// By what a difference over a window's samples is multiplied to stand for all of the window.
///
/// Where samples reach near a border, the slope is taken to go on up to it; where they don't, for half the mean
/// distance of samples. A counter was never below 0: `zero` is how many of the sampled intervals before the first
/// sample it would have been 0, if that can be told.
#[inline]
pub fn extrapolation(
    function: WindowFunction,
    window: &Window,
    range_ms: i64,
    ends: Ends,
    zero: Option<f64>,
) -> f64 {
    let to_seconds = |ms: i64| ms as f64 / 1000.0;
    let sampled = to_seconds(ends.last_ms - ends.first_ms);
    let mean_distance = sampled / (ends.samples - 1) as f64;
    let threshold = mean_distance * EXTRAPOLATION_THRESHOLD;
    let mut to_start = to_seconds(ends.first_ms - window.start_ms);
    if to_start >= threshold {
        to_start = mean_distance / 2.0;
    }
    if let Some(intervals) = zero {
        let to_zero = sampled * intervals;
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    let mut to_end = to_seconds(window.end_ms - ends.last_ms);
    if to_end >= threshold {
        to_end = mean_distance / 2.0;
    }
    let factor = (sampled + to_start + to_end) / sampled;
    if function == WindowFunction::Rate { factor / to_seconds(range_ms) } else { factor }
}

/// `rate`, `increase` and `delta`.
pub fn extrapolated(
    function: WindowFunction,
    windows: &Windows,
    run: FloatRun<'_>,
    scratch: &mut KernelScratch,
    out: &mut [f64],
) {
    let counter = function != WindowFunction::Delta;
    let FloatRun { timestamps, values } = run;
    let resets = &mut scratch.indices;
    resets.clear();
    if counter {
        find_resets(values, resets);
    }
    // The first reset that isn't left of the window.
    let mut first_reset = 0;
    windows.each(timestamps, |window| {
        let Window { lo, hi, .. } = window;
        if window.len() < 2 {
            return;
        }
        let mut difference = values[hi - 1] - values[lo];
        while first_reset < resets.len() && resets[first_reset] as usize <= lo {
            first_reset += 1;
        }
        for reset in resets[first_reset..].iter().map(|r| *r as usize).take_while(|r| *r < hi) {
            difference += values[reset - 1];
        }
        let zero = (counter && difference > 0.0 && values[lo] >= 0.0).then(|| values[lo] / difference);
        let ends = Ends { first_ms: timestamps[lo], last_ms: timestamps[hi - 1], samples: window.len() };
        out[window.step] = difference * extrapolation(function, &window, windows.range_ms, ends, zero);
    });
}

/// Indices of samples that are below their predecessor.
pub(super) fn find_resets(values: &[f64], resets: &mut Vec<u32>) {
    for (i, pair) in values.windows(2).enumerate() {
        if pair[1] < pair[0] {
            resets.push(u32::try_from(i + 1).expect("a series in memory has fewer than 2^32 samples"));
        }
    }
}

/// `irate` (of a counter, per second) and `idelta`.
pub fn instant(windows: &Windows, run: FloatRun<'_>, counter: bool, out: &mut [f64]) {
    let FloatRun { timestamps, values } = run;
    windows.each(timestamps, |window| {
        if window.len() < 2 {
            return;
        }
        let (previous, last) = (window.hi - 2, window.hi - 1);
        let interval_ms = timestamps[last] - timestamps[previous];
        let reset = counter && values[last] < values[previous];
        let difference = if reset { values[last] } else { values[last] - values[previous] };
        out[window.step] = if counter { difference / (interval_ms as f64 / 1000.0) } else { difference };
    });
}
