//! Sums, means, variances and quantiles over windows.
//!
//! Overlapping windows are folded with two stacks: `front[i]` is the partial of samples `i..middle`, `back` that of
//! `middle..hi`; a window's partial is the merge of both. Nothing is ever subtracted, so errors don't pile up, and
//! each sample is added twice, however many windows it lies in.

use super::{FloatRun, KernelScratch, StepValues, Windows};
use crate::eval::number::{self, Partial};

/// `sum_over_time`
pub fn sum(windows: &Windows, run: FloatRun<'_>, scratch: &mut KernelScratch, out: &mut [f64]) {
    each(windows, run, &mut scratch.sums, |step, sum| out[step] = sum.value());
}

/// `avg_over_time`
pub fn mean(windows: &Windows, run: FloatRun<'_>, scratch: &mut KernelScratch, out: &mut [f64]) {
    each(windows, run, &mut scratch.means, |step, mean| out[step] = mean.value());
}

/// `stdvar_over_time` and `stddev_over_time`
pub fn variance(
    windows: &Windows,
    run: FloatRun<'_>,
    scratch: &mut KernelScratch,
    out: &mut [f64],
    of_variance: fn(f64) -> f64,
) {
    each(windows, run, &mut scratch.variances, |step, partial| out[step] = of_variance(partial.value()));
}

fn each<P: Partial>(
    windows: &Windows,
    run: FloatRun<'_>,
    front: &mut Vec<P>,
    mut result: impl FnMut(usize, P),
) {
    if windows.overlap() {
        return slide(windows, run, front, result);
    }
    windows.each(run.timestamps, |window| {
        if window.len() > 0 {
            let mut partial = P::EMPTY;
            run.values[window.lo..window.hi].iter().for_each(|v| partial.add(*v));
            result(window.step, partial);
        }
    });
}

fn slide<P: Partial>(
    windows: &Windows,
    run: FloatRun<'_>,
    front: &mut Vec<P>,
    mut result: impl FnMut(usize, P),
) {
    front.clear();
    front.resize(run.values.len(), P::EMPTY);
    let (mut middle, mut taken) = (0, 0);
    let mut back = P::EMPTY;
    windows.each(run.timestamps, |window| {
        if window.len() == 0 {
            return;
        }
        if window.lo >= middle {
            let mut partial = P::EMPTY;
            for i in (window.lo..window.hi).rev() {
                let mut with = P::EMPTY;
                with.add(run.values[i]);
                with.merge(&partial);
                partial = with;
                front[i] = partial;
            }
            (middle, taken, back) = (window.hi, window.hi, P::EMPTY);
        }
        for value in &run.values[taken..window.hi] {
            back.add(*value);
        }
        taken = window.hi;
        let mut partial = front[window.lo];
        partial.merge(&back);
        result(window.step, partial);
    });
}

/// `quantile_over_time`
pub fn quantile(
    windows: &Windows,
    run: FloatRun<'_>,
    phi: &StepValues,
    scratch: &mut KernelScratch,
    out: &mut [f64],
) {
    let values = &mut scratch.floats;
    windows.each(run.timestamps, |window| {
        if window.len() > 0 {
            values.clear();
            values.extend_from_slice(&run.values[window.lo..window.hi]);
            out[window.step] = number::quantile(phi.at(window.step), values);
        }
    });
}

/// `mad_over_time`: the median of the distances from the median; NaN where a sample is.
pub fn median_deviation(windows: &Windows, run: FloatRun<'_>, scratch: &mut KernelScratch, out: &mut [f64]) {
    let values = &mut scratch.floats;
    windows.each(run.timestamps, |window| {
        let inside = &run.values[window.lo..window.hi];
        if inside.is_empty() {
            return;
        }
        out[window.step] = if inside.iter().any(|v| v.is_nan()) {
            f64::NAN
        } else {
            values.clear();
            values.extend_from_slice(inside);
            let median = number::quantile(0.5, values);
            values.iter_mut().for_each(|v| *v = (*v - median).abs());
            number::quantile(0.5, values)
        };
    });
}
