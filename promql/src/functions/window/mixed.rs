//! Series that hold native histograms, alone or beside floats.
//!
//! Float kernels run first, over the floats; then each window that holds a histogram is settled: functions that only
//! know floats leave histograms out (and say so where floats stand beside them), functions that count or pick a sample
//! take both kinds, and arithmetic over both kinds at once has no result.

use std::sync::Arc;

use tsdb::model::FloatHistogram;

use super::{
    FloatRun, KernelScratch, StepValues, Window, WindowFunction, Windows, evaluate_floats, histogram,
};
use crate::eval::notes::{Note, Notes};
use crate::eval::row::{ABSENT, Row};
use crate::functions::histogram::{equal, is_reset};

/// A series' histogram samples: in order of time, without stale markers, both slices of one length.
#[derive(Clone, Copy, Debug)]
pub struct HistogramRun<'a> {
    /// Milliseconds since the Unix epoch, ascending, none of them a float's.
    pub timestamps: &'a [i64],
    /// The histograms.
    pub values: &'a [Arc<FloatHistogram>],
}

/// A window function over a series.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// What is computed.
    pub function: WindowFunction,
    /// Over which windows.
    pub windows: &'a Windows,
    /// With which parameters.
    pub params: &'a [StepValues],
    /// The series' floats.
    pub floats: FloatRun<'a>,
    /// Its histograms.
    pub histograms: HistogramRun<'a>,
}

/// Fills `row`, whose steps are all absent, with the function's values.
pub fn evaluate(task: Task<'_>, scratch: &mut KernelScratch, row: &mut Row, notes: &mut Notes) {
    let Task { function, windows, params, floats, histograms } = task;
    evaluate_floats(function, windows, floats, params, scratch, &mut row.values);
    if histograms.values.is_empty() {
        return;
    }
    let mut of_floats = Vec::with_capacity(windows.grid.count);
    windows.each(floats.timestamps, |window| of_floats.push(window));
    windows.each(histograms.timestamps, |window| {
        if window.len() > 0 {
            let pair = Pair { floats, histograms, of_floats: of_floats[window.step], window };
            pair.settle(function, windows, row, notes);
        }
    });
}

/// One step's window over both kinds; at least one histogram is inside.
struct Pair<'a> {
    floats: FloatRun<'a>,
    histograms: HistogramRun<'a>,
    of_floats: Window,
    window: Window,
}

impl Pair<'_> {
    fn settle(&self, function: WindowFunction, windows: &Windows, row: &mut Row, notes: &mut Notes) {
        use WindowFunction as F;
        let step = self.window.step;
        let both = self.of_floats.len() > 0;
        match function {
            F::Min
            | F::Max
            | F::Stddev
            | F::Stdvar
            | F::Quantile
            | F::Mad
            | F::TsOfMin
            | F::TsOfMax
            | F::Deriv
            | F::PredictLinear
            | F::Smoothing => {
                if both {
                    notes.add(Note::IgnoredHistograms);
                }
            }
            F::Count => row.values[step] = (self.of_floats.len() + self.window.len()) as f64,
            F::Present => row.values[step] = 1.0,
            F::Changes => {
                row.values[step] = self.count_pairs(|previous, current| match (previous, current) {
                    (Cell::Float(a), Cell::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
                    (Cell::Histogram(a), Cell::Histogram(b)) => !equal(a, b),
                    _ => true,
                });
            }
            F::Resets => {
                row.values[step] = self.count_pairs(|previous, current| match (previous, current) {
                    (Cell::Float(a), Cell::Float(b)) => b < a,
                    (Cell::Histogram(a), Cell::Histogram(b)) => is_reset(b, a),
                    _ => true,
                });
            }
            F::Last | F::TsOfLast => {
                self.pick(function, !both || self.last_is_histogram(), self.window.hi - 1, row);
            }
            F::First | F::TsOfFirst => {
                self.pick(function, !both || self.first_is_histogram(), self.window.lo, row);
            }
            F::Irate | F::Idelta => self.last_two(function, row, notes),
            F::Rate | F::Increase | F::Delta | F::Sum | F::Avg => {
                if both {
                    row.values[step] = ABSENT;
                    notes.add(Note::MixedFloatsHistograms);
                    return;
                }
                let inside = &self.histograms.values[self.window.lo..self.window.hi];
                let times = &self.histograms.timestamps[self.window.lo..self.window.hi];
                let result = match function {
                    F::Sum => histogram::sum(inside, notes),
                    F::Avg => histogram::mean(inside, notes),
                    _ => histogram::extrapolated(
                        function,
                        &self.window,
                        windows.range_ms,
                        times,
                        inside,
                        notes,
                    ),
                };
                if let Some(result) = result {
                    row.set_histogram(step, Arc::new(result));
                }
            }
        }
    }

    fn last_is_histogram(&self) -> bool {
        self.histograms.timestamps[self.window.hi - 1] > self.floats.timestamps[self.of_floats.hi - 1]
    }

    fn first_is_histogram(&self) -> bool {
        self.histograms.timestamps[self.window.lo] < self.floats.timestamps[self.of_floats.lo]
    }

    fn pick(&self, function: WindowFunction, histogram: bool, index: usize, row: &mut Row) {
        if !histogram {
            return;
        }
        let step = self.window.step;
        if matches!(function, WindowFunction::Last | WindowFunction::First) {
            row.set_histogram(step, Arc::clone(&self.histograms.values[index]));
        } else {
            row.values[step] = self.histograms.timestamps[index] as f64 / 1000.0;
        }
    }

    /// The two latest samples of either kind.
    fn last_two(&self, function: WindowFunction, row: &mut Row, notes: &mut Notes) {
        let step = self.window.step;
        row.values[step] = ABSENT;
        let cells: Vec<_> = self.cells_backwards().take(2).collect();
        let [(last_ms, last), (previous_ms, previous)] = cells[..] else { return };
        let irate = function == WindowFunction::Irate;
        let seconds = (last_ms - previous_ms) as f64 / 1000.0;
        match (previous, last) {
            (Cell::Float(previous), Cell::Float(last)) => {
                let difference = if irate && last < previous { last } else { last - previous };
                row.values[step] = if irate { difference / seconds } else { difference };
            }
            (Cell::Histogram(previous), Cell::Histogram(last)) => {
                if let Some(result) = histogram::instant(irate, previous, last, seconds, notes) {
                    row.set_histogram(step, Arc::new(result));
                }
            }
            _ => notes.add(Note::MixedFloatsHistograms),
        }
    }

    /// Samples of both kinds from the window's end on.
    fn cells_backwards(&self) -> impl Iterator<Item = (i64, Cell<'_>)> {
        let (mut float, mut histogram) = (self.of_floats.hi, self.window.hi);
        std::iter::from_fn(move || {
            let float_ms = (float > self.of_floats.lo).then(|| self.floats.timestamps[float - 1]);
            let histogram_ms =
                (histogram > self.window.lo).then(|| self.histograms.timestamps[histogram - 1]);
            match (float_ms, histogram_ms) {
                (None, None) => None,
                (Some(time_ms), other) if other.is_none_or(|h| h < time_ms) => {
                    float -= 1;
                    Some((time_ms, Cell::Float(self.floats.values[float])))
                }
                (_, other) => {
                    histogram -= 1;
                    Some((other?, Cell::Histogram(&self.histograms.values[histogram])))
                }
            }
        })
    }

    fn count_pairs(&self, counts: impl Fn(Cell<'_>, Cell<'_>) -> bool) -> f64 {
        let mut total = 0u32;
        let mut later: Option<Cell<'_>> = None;
        for (_, cell) in self.cells_backwards() {
            if later.is_some_and(|later| counts(cell, later)) {
                total += 1;
            }
            later = Some(cell);
        }
        f64::from(total)
    }
}

#[derive(Clone, Copy)]
enum Cell<'a> {
    Float(f64),
    Histogram(&'a FloatHistogram),
}
