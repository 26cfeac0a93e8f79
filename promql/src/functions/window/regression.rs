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
    each_pair_or_more(windows, run, |window, inside| {
        let (smoothing, trend) = (smoothing.at(window.step), trend.at(window.step));
        let mut previous = 0.0;
        let mut smoothed = inside.values[0];
        let mut slope = inside.values[1] - inside.values[0];
        for (i, value) in inside.values.iter().enumerate().skip(1) {
            if i > 1 {
                slope = trend * (smoothed - previous) + (1.0 - trend) * slope;
            }
            let next = smoothing * value + (1.0 - smoothing) * (smoothed + slope);
            (previous, smoothed) = (smoothed, next);
        }
        out[window.step] = smoothed;
    });
}

fn each_pair_or_more<'a>(windows: &Windows, run: FloatRun<'a>, mut visit: impl FnMut(Window, FloatRun<'a>)) {
    windows.each(run.timestamps, |window| {
        if window.len() >= 2 {
            let inside = window.lo..window.hi;
            visit(
                window,
                FloatRun {
                    timestamps: &run.timestamps[inside.clone()],
                    values: &run.values[inside],
                    starts: &[],
                },
            );
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
