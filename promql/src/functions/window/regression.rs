//! Trends: least squares (`deriv`, `predict_linear`) and double exponential smoothing (Holt's linear method, after
//! Holt 1957, as Prometheus starts it: with the first sample and the first difference).

use super::{FloatRun, StepValues, Window, Windows};
use crate::eval::number::{Partial, Sum};

/// `deriv`: slope per second
pub fn deriv(windows: &Windows, run: FloatRun<'_>, out: &mut [f64]) {
    each_pair_or_more(windows, run, |window, inside| {
        // Relative to a near time, so that squares of times don't eat the digits.
        out[window.step] = least_squares(inside, inside.timestamps[0]).0;
    });
}

/// `predict_linear`: the line's value `ahead` seconds after the step
pub fn predict_linear(windows: &Windows, run: FloatRun<'_>, ahead: &StepValues, out: &mut [f64]) {
    each_pair_or_more(windows, run, |window, inside| {
        let (slope, intercept) = least_squares(inside, windows.grid.time_ms(window.step));
        out[window.step] = slope * ahead.at(window.step) + intercept;
    });
}

/// `double_exponential_smoothing`; both factors lie between 0 and 1, which the caller has checked
pub fn smoothing(
    windows: &Windows,
    run: FloatRun<'_>,
    smoothing: &StepValues,
    trend: &StepValues,
    out: &mut [f64],
) {
    let most =
        run.values.iter().fold(0.0f64, |most, v| if v.is_nan() { f64::INFINITY } else { most.max(v.abs()) });
    let memory = match (smoothing, trend) {
        (StepValues::Constant(smoothing), StepValues::Constant(trend)) if windows.overlap() => {
            Memory::of(*smoothing, *trend)
        }
        _ => None,
    };
    each_pair_or_more(windows, run, |window, inside| {
        let (smoothing, trend) = (smoothing.at(window.step), trend.at(window.step));
        if let Some(Memory { samples, left }) = memory.filter(|m| m.samples < inside.values.len()) {
            let level = smoothed(&inside.values[inside.values.len() - samples..], smoothing, trend);
            // What the older samples can have left isn't above the level's own rounding.
            if left * most <= level.abs() * NEGLIGIBLE {
                out[window.step] = level;
                return;
            }
        }
        out[window.step] = smoothed(inside.values, smoothing, trend);
    });
}

/// Relative to a result, what may be left out of it: far below the last bit.
const NEGLIGIBLE: f64 = 1e-18;

/// How soon smoothing forgets.
#[derive(Clone, Copy, Debug)]
struct Memory {
    /// After as many samples ...
    samples: usize,
    /// ... no more than this share of the values before them is left.
    left: f64,
}

impl Memory {
    /// Longest that is looked for, as a power of two.
    const DOUBLINGS_MAX: u32 = 16;
    /// What should be left.
    const LEFT: f64 = 1e-24;

    /// A sample changes level, level before it and slope linearly: the powers of that map tell what is left of them.
    fn of(smoothing: f64, trend: f64) -> Option<Self> {
        let (s, t) = (1.0 - smoothing, 1.0 - trend);
        // Rows: new level, level before, slope; columns: what they were.
        let mut power = [[s + s * trend, -s * trend, s * t], [1.0, 0.0, 0.0], [trend, -trend, t]];
        for doubling in 0..Self::DOUBLINGS_MAX {
            // The states that two starts can differ by are at most four times the greatest value.
            let norm = power.iter().map(|row| row.iter().map(|v| v.abs()).sum()).fold(0.0, f64::max) * 4.0;
            if norm <= Self::LEFT {
                // Two more samples make the first state.
                return Some(Self { samples: (1 << doubling) + 2, left: norm });
            }
            let square = |i: usize, j: usize| (0..3).map(|k| power[i][k] * power[k][j]).sum();
            power = std::array::from_fn(|i| std::array::from_fn(|j| square(i, j)));
        }
        None
    }
}

fn smoothed(values: &[f64], smoothing: f64, trend: f64) -> f64 {
    let mut previous = 0.0;
    let mut level = values[0];
    let mut slope = values[1] - values[0];
    for (i, value) in values.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (level - previous) + (1.0 - trend) * slope;
        }
        let next = smoothing * value + (1.0 - smoothing) * (level + slope);
        (previous, level) = (level, next);
    }
    level
}

fn each_pair_or_more<'a>(windows: &Windows, run: FloatRun<'a>, mut visit: impl FnMut(Window, FloatRun<'a>)) {
    windows.each(run.timestamps, |window| {
        if window.len() >= 2 {
            visit(window, run.part(window.lo..window.hi));
        }
    });
}

/// Slope per second and value at `zero_ms` of the line through at least one sample. A constant series has exactly
/// slope 0; an infinite constant has none.
fn least_squares(run: FloatRun<'_>, zero_ms: i64) -> (f64, f64) {
    let first = run.values[0];
    if run.values.iter().all(|v| *v == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let [mut sum_x, mut sum_y, mut sum_xy, mut sum_xx] = [Sum::EMPTY; 4];
    for (time_ms, y) in run.timestamps.iter().zip(run.values) {
        let x = (time_ms - zero_ms) as f64 / 1000.0;
        sum_x.add(x);
        sum_y.add(*y);
        sum_xy.add(x * y);
        sum_xx.add(x * x);
    }
    let n = run.values.len() as f64;
    let (sum_x, sum_y) = (sum_x.value(), sum_y.value());
    let covariance = sum_xy.value() - sum_x * sum_y / n;
    let variance = sum_xx.value() - sum_x * sum_x / n;
    let slope = covariance / variance;
    (slope, sum_y / n - slope * sum_x / n)
}
