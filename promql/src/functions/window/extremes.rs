//! Least and greatest sample of a window; NaN only where all samples are.
//!
//! Overlapping windows use a monotonic queue: a sample that a later one beats can't win any window any more.

use std::collections::VecDeque;

use super::{FloatRun, KernelScratch, Windows};

/// `min_over_time`
pub fn min(windows: &Windows, run: FloatRun<'_>, scratch: &mut KernelScratch, out: &mut [f64]) {
    best(windows, run, scratch, out, |a, b| a < b);
}

/// `max_over_time`
pub fn max(windows: &Windows, run: FloatRun<'_>, scratch: &mut KernelScratch, out: &mut [f64]) {
    best(windows, run, scratch, out, |a, b| a > b);
}

/// `ts_of_min_over_time`: when the least value was last seen, in seconds
pub fn ts_of_min(windows: &Windows, run: FloatRun<'_>, out: &mut [f64]) {
    time_of(windows, run, out, |a, b| a <= b);
}

/// `ts_of_max_over_time`: when the greatest value was last seen, in seconds
pub fn ts_of_max(windows: &Windows, run: FloatRun<'_>, out: &mut [f64]) {
    time_of(windows, run, out, |a, b| a >= b);
}

#[inline]
fn best(
    windows: &Windows,
    run: FloatRun<'_>,
    scratch: &mut KernelScratch,
    out: &mut [f64],
    beats: impl Fn(f64, f64) -> bool,
) {
    let values = run.values;
    if !windows.overlap() {
        windows.each(run.timestamps, |window| {
            let inside = &values[window.lo..window.hi];
            if let Some((first, rest)) = inside.split_first() {
                let better = |best: f64, v: &f64| if beats(*v, best) || best.is_nan() { *v } else { best };
                out[window.step] = rest.iter().fold(*first, better);
            }
        });
        return;
    }
    let mut queue = VecDeque::from(std::mem::take(&mut scratch.indices));
    queue.clear();
    let mut taken = 0;
    windows.each(run.timestamps, |window| {
        for (i, value) in values.iter().enumerate().take(window.hi).skip(taken) {
            if value.is_nan() {
                continue;
            }
            while queue.back().is_some_and(|last| beats(*value, values[*last as usize])) {
                queue.pop_back();
            }
            queue.push_back(u32::try_from(i).expect("a series in memory has fewer than 2^32 samples"));
        }
        taken = window.hi;
        while queue.front().is_some_and(|first| (*first as usize) < window.lo) {
            queue.pop_front();
        }
        if window.len() > 0 {
            out[window.step] = queue.front().map_or(f64::NAN, |first| values[*first as usize]);
        }
    });
    scratch.indices = queue.into();
}

fn time_of(windows: &Windows, run: FloatRun<'_>, out: &mut [f64], beats: impl Fn(f64, f64) -> bool) {
    windows.each(run.timestamps, |window| {
        if window.len() == 0 {
            return;
        }
        let mut best = window.lo;
        for i in window.lo + 1..window.hi {
            if beats(run.values[i], run.values[best]) || run.values[best].is_nan() {
                best = i;
            }
        }
        out[window.step] = run.timestamps[best] as f64 / 1000.0;
    });
}
