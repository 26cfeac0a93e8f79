//! `rate`, `increase`, `delta`: difference of a window's ends, corrected for counter resets and extrapolated to the
//! window's borders; `irate` and `idelta`: difference of its last two samples.

use std::ops::Range;

use super::regular::Alike;
use super::{FloatRun, KernelScratch, Window, WindowFunction, Windows, starts};

/// A gap to the border this much longer than the mean distance of samples is taken for the series' own end.
const EXTRAPOLATION_THRESHOLD: f64 = 1.1;

/// How a window's samples lie in it; what makes a difference over samples stand for all of the window.
///
/// Where samples reach near a border, the slope is taken to go on up to it; where they don't, for half the mean
/// distance of samples.
#[derive(Clone, Copy, Debug)]
pub struct Extrapolation {
    layout: Layout,
    sampled_s: f64,
    to_start_s: f64,
    to_end_s: f64,
    /// Seconds by which the result is divided: the range's for `rate`, else 1.
    per_s: f64,
    factor: f64,
}

/// What an [`Extrapolation`] depends on; with regular scrapes it is the same step after step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    samples: usize,
    sampled_ms: i64,
    to_start_ms: i64,
    to_end_ms: i64,
}

impl Extrapolation {
    /// For a window with at least two samples, the first at `first_ms` and the last at `last_ms`.
    pub fn new(
        function: WindowFunction,
        range_ms: i64,
        window: &Window,
        first_ms: i64,
        last_ms: i64,
    ) -> Self {
        Self::of(Layout::of(window, first_ms, last_ms), divisor_s(function, range_ms))
    }

    /// By what the difference is multiplied in a window whose counter was 0 at `start_ms`, inside of it: nothing is
    /// extrapolated to the left.
    pub fn factor_since(
        function: WindowFunction,
        range_ms: i64,
        window: &Window,
        start_ms: i64,
        first_ms: i64,
        last_ms: i64,
    ) -> f64 {
        let sampled_s = seconds(last_ms - start_ms);
        // A single sample has no distance to another, and so reaches no further than itself.
        let mean_distance_s = seconds(last_ms - first_ms) / (window.len() - 1).max(1) as f64;
        let to_end_s = reach_s(seconds(window.end_ms - last_ms), mean_distance_s);
        (sampled_s + to_end_s) / sampled_s / divisor_s(function, range_ms)
    }

    #[inline(never)]
    fn of(layout: Layout, per_s: f64) -> Self {
        let sampled_s = seconds(layout.sampled_ms);
        let mean_distance_s = sampled_s / (layout.samples - 1) as f64;
        let to_start_s = reach_s(seconds(layout.to_start_ms), mean_distance_s);
        let to_end_s = reach_s(seconds(layout.to_end_ms), mean_distance_s);
        let factor = (sampled_s + to_start_s + to_end_s) / sampled_s / per_s;
        Self { layout, sampled_s, to_start_s, to_end_s, per_s, factor }
    }

    /// By what a gauge's difference is multiplied.
    #[inline]
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// By what a counter's difference is multiplied. A counter was never below 0, so the slope goes back at most to
    /// where it would have been 0: as many sampled intervals before `first` as that is of `difference`.
    #[inline]
    pub fn counter_factor(&self, first: f64, difference: f64) -> f64 {
        let reaches_zero =
            difference > 0.0 && first >= 0.0 && self.sampled_s * first < self.to_start_s * difference;
        if reaches_zero { self.factor_from_zero(first / difference) } else { self.factor }
    }

    #[inline(never)]
    fn factor_from_zero(&self, intervals: f64) -> f64 {
        (self.sampled_s + self.sampled_s * intervals + self.to_end_s) / self.sampled_s / self.per_s
    }
}

/// How far a slope goes on into a gap at the border.
fn reach_s(gap_s: f64, mean_distance_s: f64) -> f64 {
    if gap_s >= mean_distance_s * EXTRAPOLATION_THRESHOLD { mean_distance_s / 2.0 } else { gap_s }
}

impl Layout {
    #[inline]
    fn of(window: &Window, first_ms: i64, last_ms: i64) -> Self {
        Self {
            samples: window.len(),
            sampled_ms: last_ms - first_ms,
            to_start_ms: first_ms - window.start_ms,
            to_end_ms: window.end_ms - last_ms,
        }
    }
}

/// Seconds by which a difference is divided in the end.
pub(super) fn divisor_s(function: WindowFunction, range_ms: i64) -> f64 {
    if function == WindowFunction::Rate { seconds(range_ms) } else { 1.0 }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
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
    let FloatRun { timestamps, values, .. } = run;
    let resets = &mut scratch.indices;
    resets.clear();
    if counter {
        find_resets(values, resets);
    }
    let resets = counter.then_some(resets.as_slice());
    let per_s = divisor_s(function, windows.range_ms);
    let steps = 0..windows.grid.count;
    let alike = if resets.is_none_or(<[_]>::is_empty) { Alike::find(windows, timestamps) } else { None };
    let Some(alike) = alike.filter(|alike| alike.samples.len() >= 2) else {
        return each_extrapolated(windows, run, steps, per_s, resets, out);
    };
    let Alike { steps: Range { start, end }, samples: Range { start: lo, end: hi }, stride } = alike;
    each_extrapolated(windows, run, 0..start, per_s, resets, out);
    let (start_ms, end_ms) = windows.of_step(start);
    let window = Window { step: start, lo, hi, start_ms, end_ms };
    let extrapolation = Extrapolation::of(Layout::of(&window, timestamps[lo], timestamps[hi - 1]), per_s);
    let firsts = values[lo..].iter().step_by(stride);
    let lasts = values[hi - 1..].iter().step_by(stride);
    for ((out, first), last) in out[start..end].iter_mut().zip(firsts).zip(lasts) {
        let difference = last - first;
        let factor =
            if counter { extrapolation.counter_factor(*first, difference) } else { extrapolation.factor() };
        *out = difference * factor;
    }
    each_extrapolated(windows, run, end..steps.end, per_s, resets, out);
}

/// Window by window; `resets` are those of a counter.
fn each_extrapolated(
    windows: &Windows,
    run: FloatRun<'_>,
    steps: Range<usize>,
    per_s: f64,
    resets: Option<&[u32]>,
    out: &mut [f64],
) {
    let FloatRun { timestamps, values, .. } = run;
    let counter = resets.is_some();
    let resets = resets.unwrap_or_default();
    // The first reset that isn't left of the window.
    let mut first_reset = 0;
    let mut last: Option<Extrapolation> = None;
    windows.each_of(steps, timestamps, |window| {
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
        let layout = Layout::of(&window, timestamps[lo], timestamps[hi - 1]);
        if last.as_ref().is_none_or(|last: &Extrapolation| last.layout != layout) {
            last = Some(Extrapolation::of(layout, per_s));
        }
        let Some(extrapolation) = &last else { return };
        let factor = if counter {
            extrapolation.counter_factor(values[lo], difference)
        } else {
            extrapolation.factor()
        };
        out[window.step] = difference * factor;
    });
}

/// Samples that are looked at together for a reset.
const RESET_BLOCK: usize = 64;

/// Indices of samples that are below their predecessor. Most blocks have none, which is found without branches.
fn find_resets(values: &[f64], resets: &mut Vec<u32>) {
    let Some((_, currents)) = values.split_first() else { return };
    let previous = values.chunks(RESET_BLOCK);
    for (block, (current, previous)) in currents.chunks(RESET_BLOCK).zip(previous).enumerate() {
        let pairs = || current.iter().zip(previous);
        if !pairs().fold(false, |any, (current, previous)| any | (current < previous)) {
            continue;
        }
        for (i, _) in pairs().enumerate().filter(|(_, (current, previous))| current < previous) {
            let at = block * RESET_BLOCK + i + 1;
            resets.push(u32::try_from(at).expect("a series in memory has fewer than 2^32 samples"));
        }
    }
}

/// `irate` (of a counter, per second) and `idelta`.
pub fn instant(windows: &Windows, run: FloatRun<'_>, counter: bool, out: &mut [f64]) {
    let FloatRun { timestamps, values, .. } = run;
    windows.each(timestamps, |window| {
        if window.len() < 2 {
            return;
        }
        let (previous, last) = (window.hi - 2, window.hi - 1);
        let interval_ms = timestamps[last] - timestamps[previous];
        let reset = counter && starts::is_reset_at(run, last);
        let difference = if reset { values[last] } else { values[last] - values[previous] };
        out[window.step] = if counter { difference / (interval_ms as f64 / 1000.0) } else { difference };
    });
}
