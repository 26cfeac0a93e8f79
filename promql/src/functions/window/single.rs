//! Functions that need one sample of a window, or none but its number.

use super::{FloatRun, Window, Windows};

#[inline]
fn each(windows: &Windows, run: FloatRun<'_>, out: &mut [f64], value: impl Fn(Window) -> f64) {
    windows.each(run.timestamps, |window| {
        if window.len() > 0 {
            out[window.step] = value(window);
        }
    });
}

/// `count_over_time`
pub fn count(windows: &Windows, run: FloatRun<'_>, out: &mut [f64]) {
    each(windows, run, out, |w| w.len() as f64);
}

/// `present_over_time`
pub fn present(windows: &Windows, run: FloatRun<'_>, out: &mut [f64]) {
    each(windows, run, out, |_| 1.0);
}

/// `last_over_time`
pub fn last(windows: &Windows, run: FloatRun<'_>, out: &mut [f64]) {
    each(windows, run, out, |w| run.values[w.hi - 1]);
}

/// `first_over_time`
pub fn first(windows: &Windows, run: FloatRun<'_>, out: &mut [f64]) {
    each(windows, run, out, |w| run.values[w.lo]);
}

/// `ts_of_last_over_time`, in seconds
pub fn ts_of_last(windows: &Windows, run: FloatRun<'_>, out: &mut [f64]) {
    each(windows, run, out, |w| run.timestamps[w.hi - 1] as f64 / 1000.0);
}

/// `ts_of_first_over_time`, in seconds
pub fn ts_of_first(windows: &Windows, run: FloatRun<'_>, out: &mut [f64]) {
    each(windows, run, out, |w| run.timestamps[w.lo] as f64 / 1000.0);
}
