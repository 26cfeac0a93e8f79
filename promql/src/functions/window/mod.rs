//! Functions over range vectors, as kernels over the slices of one series.
//!
//! A kernel gets all samples of a series that any window may need, without stale markers, and fills one value for
//! each step. Windows move forward only, so cursors do too; where neighbouring windows share most of their samples,
//! kernels slide (running counts, monotonic queues, two stacks) instead of reading each sample once for each window.
//!
//! Floats and native histograms of a series come as separate runs. Float kernels see floats alone; what a window that
//! holds both (or histograms alone) gives is settled in [`mixed`].

pub mod extended;
mod extremes;
mod fold;
mod histogram;
mod mixed;
mod pairs;
mod ranks;
mod rate;
mod regression;
mod regular;
mod single;
mod starts;

use std::ops::{Range, RangeInclusive};

pub use mixed::{HistogramRun, Task, evaluate};

use starts::Stamp;

use crate::eval::notes::Notes;
use crate::functions::Function;
use crate::parse::ast::Edges;
use crate::plan::grid::{Grid, View};

/// A series' float samples: in order of time, without stale markers, both slices of one length.
#[derive(Clone, Copy, Debug)]
pub struct FloatRun<'a> {
    /// Milliseconds since the Unix epoch, ascending.
    pub timestamps: &'a [i64],
    /// Their values.
    pub values: &'a [f64],
    /// When their counters started, in milliseconds since the Unix epoch, 0 = unknown; empty where none is known.
    pub starts: &'a [i64],
}

impl FloatRun<'_> {
    /// Some of its samples.
    pub fn part(&self, range: Range<usize>) -> Self {
        Self {
            timestamps: &self.timestamps[range.clone()],
            values: &self.values[range.clone()],
            starts: if self.starts.is_empty() { &[] } else { &self.starts[range] },
        }
    }

    /// When a sample was taken, and when its counter started.
    pub fn stamp(&self, at: usize) -> Stamp {
        Stamp { time_ms: self.timestamps[at], start_ms: self.starts.get(at).copied().unwrap_or(0) }
    }
}

/// Which samples each step sees.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// The steps.
    pub grid: Grid,
    /// Where windows end, seen from a step.
    pub view: View,
    /// Their length in milliseconds, above 0; the left end is excluded.
    pub range_ms: i64,
    /// Whether samples beyond the ends count too.
    pub edges: Edges,
    /// How far beyond.
    pub lookback_ms: i64,
}

/// One step's window: samples `lo..hi`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The step's index.
    pub step: usize,
    /// First sample inside.
    pub lo: usize,
    /// Behind the last sample inside.
    pub hi: usize,
    /// Excluded left end.
    pub start_ms: i64,
    /// Included right end.
    pub end_ms: i64,
}

impl Window {
    /// Number of samples inside.
    #[inline]
    pub fn len(&self) -> usize {
        self.hi - self.lo
    }
}

/// A range this many steps long is worth sliding over.
const SLIDE_STEPS_MIN: i64 = 8;

impl Windows {
    /// Calls `visit` with each step's window over `timestamps`.
    #[inline]
    pub fn each(&self, timestamps: &[i64], visit: impl FnMut(Window)) {
        self.each_of(0..self.grid.count, timestamps, visit);
    }

    /// Calls `visit` with the window of each of some steps.
    #[inline]
    pub fn each_of(&self, steps: Range<usize>, timestamps: &[i64], mut visit: impl FnMut(Window)) {
        // The first window may be long: its borders are searched for, and those of the others are near.
        let (start_ms, end_ms) = self.of_step(steps.start);
        let mut hi = timestamps.partition_point(|t| *t <= end_ms);
        let mut lo = timestamps[..hi].partition_point(|t| *t <= start_ms);
        for step in steps {
            let (start_ms, end_ms) = self.of_step(step);
            while hi < timestamps.len() && timestamps[hi] <= end_ms {
                hi += 1;
            }
            while lo < hi && timestamps[lo] <= start_ms {
                lo += 1;
            }
            visit(Window { step, lo, hi, start_ms, end_ms });
        }
    }

    /// Between which times a step's window lies: the first is outside, the last inside.
    #[inline]
    pub fn of_step(&self, step: usize) -> (i64, i64) {
        let end_ms = self.view.time_ms(self.grid.time_ms(step));
        (end_ms.saturating_sub(self.range_ms), end_ms)
    }

    /// Whether neighbouring windows share so many samples that sliding pays.
    pub fn overlap(&self) -> bool {
        self.grid.count > 1
            && self.view.at_ms.is_none()
            && self.range_ms / self.grid.step_ms.max(1) >= SLIDE_STEPS_MIN
    }

    /// Which samples any window sees, in milliseconds.
    pub fn reach_ms(&self) -> RangeInclusive<i64> {
        let (before_ms, behind_ms) = self.edges.reach_ms(self.lookback_ms);
        self.view.reach_ms(&self.grid, self.range_ms.saturating_add(before_ms), behind_ms)
    }
}

/// One float for each step.
#[derive(Clone, Debug, PartialEq)]
pub enum StepValues {
    /// The same at all steps.
    Constant(f64),
    /// One for each.
    Each(Vec<f64>),
}

impl StepValues {
    /// The value at a step.
    #[inline]
    pub fn at(&self, step: usize) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Each(values) => values[step],
        }
    }

    /// All values, for as many steps as there are.
    pub fn iter(&self) -> impl Iterator<Item = f64> {
        match self {
            Self::Constant(value) => std::slice::from_ref(value),
            Self::Each(values) => values.as_slice(),
        }
        .iter()
        .copied()
    }
}

/// Functions that take a range vector and give a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowFunction {
    /// `rate`
    Rate,
    /// `increase`
    Increase,
    /// `delta`
    Delta,
    /// `irate`
    Irate,
    /// `idelta`
    Idelta,
    /// `changes`
    Changes,
    /// `resets`
    Resets,
    /// `avg_over_time`
    Avg,
    /// `min_over_time`
    Min,
    /// `max_over_time`
    Max,
    /// `sum_over_time`
    Sum,
    /// `count_over_time`
    Count,
    /// `last_over_time`
    Last,
    /// `first_over_time`
    First,
    /// `present_over_time`
    Present,
    /// `stddev_over_time`
    Stddev,
    /// `stdvar_over_time`
    Stdvar,
    /// `quantile_over_time`; takes the quantile
    Quantile,
    /// `mad_over_time`
    Mad,
    /// `ts_of_min_over_time`
    TsOfMin,
    /// `ts_of_max_over_time`
    TsOfMax,
    /// `ts_of_first_over_time`
    TsOfFirst,
    /// `ts_of_last_over_time`
    TsOfLast,
    /// `deriv`
    Deriv,
    /// `predict_linear`; takes seconds ahead
    PredictLinear,
    /// `double_exponential_smoothing`; takes smoothing and trend factor
    Smoothing,
}

impl WindowFunction {
    /// The kernel of a PromQL function, if it has one.
    pub fn from_function(function: Function) -> Option<Self> {
        Some(match function {
            Function::Rate => Self::Rate,
            Function::Increase => Self::Increase,
            Function::Delta => Self::Delta,
            Function::Irate => Self::Irate,
            Function::Idelta => Self::Idelta,
            Function::Changes => Self::Changes,
            Function::Resets => Self::Resets,
            Function::AvgOverTime => Self::Avg,
            Function::MinOverTime => Self::Min,
            Function::MaxOverTime => Self::Max,
            Function::SumOverTime => Self::Sum,
            Function::CountOverTime => Self::Count,
            Function::LastOverTime => Self::Last,
            Function::FirstOverTime => Self::First,
            Function::PresentOverTime => Self::Present,
            Function::StddevOverTime => Self::Stddev,
            Function::StdvarOverTime => Self::Stdvar,
            Function::QuantileOverTime => Self::Quantile,
            Function::MadOverTime => Self::Mad,
            Function::TsOfMinOverTime => Self::TsOfMin,
            Function::TsOfMaxOverTime => Self::TsOfMax,
            Function::TsOfFirstOverTime => Self::TsOfFirst,
            Function::TsOfLastOverTime => Self::TsOfLast,
            Function::Deriv => Self::Deriv,
            Function::PredictLinear => Self::PredictLinear,
            Function::DoubleExponentialSmoothing => Self::Smoothing,
            _ => return None,
        })
    }

    /// Whether results keep the metric's name: a sample that is handed on as it was is still that metric.
    pub fn keeps_name(self) -> bool {
        matches!(self, Self::Last | Self::First)
    }

    /// Whether the function is meant for counters, and a metric that isn't named like one is worth an info.
    pub fn wants_counter(self) -> bool {
        matches!(self, Self::Rate | Self::Increase)
    }
}

/// Buffers that kernels reuse from series to series.
#[derive(Debug, Default)]
pub struct KernelScratch {
    indices: Vec<u32>,
    floats: Vec<f64>,
    sums: Vec<crate::eval::number::Sum>,
    means: Vec<crate::eval::number::Mean>,
    variances: Vec<crate::eval::number::Variance>,
}

/// Fills `out`, one value for each step, from floats alone; steps without a result are left as they are (absent).
pub fn evaluate_floats(
    function: WindowFunction,
    windows: &Windows,
    run: FloatRun<'_>,
    params: &[StepValues],
    scratch: &mut KernelScratch,
    notes: &mut Notes,
    out: &mut [f64],
) {
    use WindowFunction as F;
    match function {
        F::Rate | F::Increase if !run.starts.is_empty() => {
            starts::extrapolated(function, windows, run, notes, out);
        }
        F::Resets if !run.starts.is_empty() => starts::resets(windows, run, out),
        F::Rate | F::Increase | F::Delta => rate::extrapolated(function, windows, run, scratch, out),
        F::Irate => rate::instant(windows, run, true, out),
        F::Idelta => rate::instant(windows, run, false, out),
        F::Changes => pairs::changes(windows, run, out),
        F::Resets => pairs::resets(windows, run, out),
        F::Count => single::count(windows, run, out),
        F::Present => single::present(windows, run, out),
        F::Last => single::last(windows, run, out),
        F::First => single::first(windows, run, out),
        F::TsOfLast => single::ts_of_last(windows, run, out),
        F::TsOfFirst => single::ts_of_first(windows, run, out),
        F::Sum => fold::sum(windows, run, scratch, out),
        F::Avg => fold::mean(windows, run, scratch, out),
        F::Stdvar => fold::variance(windows, run, scratch, out, |v| v),
        F::Stddev => fold::variance(windows, run, scratch, out, f64::sqrt),
        F::Quantile if windows.overlap() => ranks::quantile(windows, run, &params[0], out),
        F::Mad if windows.overlap() => ranks::median_deviation(windows, run, out),
        F::Quantile => fold::quantile(windows, run, &params[0], scratch, out),
        F::Mad => fold::median_deviation(windows, run, scratch, out),
        F::Min => extremes::min(windows, run, scratch, out),
        F::Max => extremes::max(windows, run, scratch, out),
        F::TsOfMin => extremes::ts_of_min(windows, run, out),
        F::TsOfMax => extremes::ts_of_max(windows, run, out),
        F::Deriv => regression::deriv(windows, run, out),
        F::PredictLinear => regression::predict_linear(windows, run, &params[0], out),
        F::Smoothing => regression::smoothing(windows, run, &params[0], &params[1], out),
    }
}

#[cfg(test)]
mod tests;
