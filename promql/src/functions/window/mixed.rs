//! Series that hold native histograms, alone or beside floats.
//!
//! Float kernels run first, over the floats; then each window that holds a histogram is settled: functions that only
//! know floats leave histograms out (and say so where floats stand beside them), functions that count or pick a sample
//! take both kinds, and arithmetic over both kinds at once has no result.

use std::ops::Range;
use std::sync::Arc;

use tsdb::model::FloatHistogram;

use super::starts::{self, Stamp};
use super::{
    FloatRun, KernelScratch, StepValues, Window, WindowFunction, Windows, evaluate_floats, extended,
    histogram,
};
use crate::eval::notes::{Note, Notes};
use crate::eval::row::{ABSENT, Row};
use crate::functions::histogram::{equal, is_reset};
use crate::parse::ast::Edges;

/// A series' histogram samples: in order of time, without stale markers, both slices of one length.
#[derive(Clone, Copy, Debug)]
pub struct HistogramRun<'a> {
    /// Milliseconds since the Unix epoch, ascending, none of them a float's.
    pub timestamps: &'a [i64],
    /// The histograms.
    pub values: &'a [Arc<FloatHistogram>],
    /// As for floats.
    pub starts: &'a [i64],
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
    if windows.edges != Edges::Plain {
        return extended::evaluate(task, row, notes);
    }
    evaluate_floats(function, windows, floats, params, scratch, notes, &mut row.values);
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
                row.values[step] =
                    count_pairs(self.backwards(), |previous, current| previous.is_change(current));
            }
            F::Resets => {
                row.values[step] =
                    count_pairs(self.backwards(), |previous, current| previous.is_reset(current));
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
                let run = self.histograms.part(self.window.lo..self.window.hi);
                let result = match function {
                    F::Sum => histogram::sum(run.values, notes),
                    F::Avg => histogram::mean(run.values, notes),
                    _ => histogram::extrapolated(function, &self.window, windows.range_ms, run, notes),
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
        let samples: Vec<Sample<'_>> = self.backwards().take(2).collect();
        let [last, previous] = samples[..] else { return };
        let irate = function == WindowFunction::Irate;
        let seconds = (last.stamp.time_ms - previous.stamp.time_ms) as f64 / 1000.0;
        match (previous.cell, last.cell) {
            (Cell::Float(before), Cell::Float(value)) => {
                let difference = if irate && previous.is_reset(last) { value } else { value - before };
                row.values[step] = if irate { difference / seconds } else { difference };
            }
            (Cell::Histogram(before), Cell::Histogram(value)) => {
                let reset = irate && previous.is_reset(last);
                if let Some(result) = histogram::instant(irate, reset, before, value, seconds, notes) {
                    row.set_histogram(step, Arc::new(result));
                }
            }
            _ => notes.add(Note::MixedFloatsHistograms),
        }
    }

    /// Samples of both kinds from the window's end on.
    fn backwards(&self) -> impl Iterator<Item = Sample<'_>> {
        let of_floats = self.of_floats.lo..self.of_floats.hi;
        backwards(self.floats, of_floats, self.histograms, self.window.lo..self.window.hi)
    }
}

impl HistogramRun<'_> {
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

    /// Whether hints, numbers or start times tell of a counter reset before a sample, which isn't the first.
    pub fn is_reset_at(&self, at: usize) -> bool {
        starts::is_reset(self.stamp(at - 1), self.stamp(at))
            || is_reset(&self.values[at], &self.values[at - 1])
    }
}

/// A sample of either kind.
#[derive(Clone, Copy)]
pub(super) struct Sample<'a> {
    pub stamp: Stamp,
    pub cell: Cell<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum Cell<'a> {
    Float(f64),
    Histogram(&'a FloatHistogram),
}

impl Sample<'_> {
    /// Whether `later` differs; NaN equals NaN.
    pub(super) fn is_change(self, later: Sample<'_>) -> bool {
        match (self.cell, later.cell) {
            (Cell::Float(a), Cell::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
            (Cell::Histogram(a), Cell::Histogram(b)) => !equal(a, b),
            _ => true,
        }
    }

    /// Whether a counter was reset before `later`.
    pub(super) fn is_reset(self, later: Sample<'_>) -> bool {
        match (self.cell, later.cell) {
            (Cell::Float(a), Cell::Float(b)) => b < a || starts::is_reset(self.stamp, later.stamp),
            (Cell::Histogram(a), Cell::Histogram(b)) => {
                starts::is_reset(self.stamp, later.stamp) || is_reset(b, a)
            }
            _ => true,
        }
    }
}

/// Samples of both kinds by descending time.
pub(super) fn backwards<'a>(
    floats: FloatRun<'a>,
    of_floats: Range<usize>,
    histograms: HistogramRun<'a>,
    of_histograms: Range<usize>,
) -> impl Iterator<Item = Sample<'a>> {
    let (mut float, mut histogram) = (of_floats.end, of_histograms.end);
    std::iter::from_fn(move || {
        let float_ms = (float > of_floats.start).then(|| floats.timestamps[float - 1]);
        let histogram_ms = (histogram > of_histograms.start).then(|| histograms.timestamps[histogram - 1]);
        match (float_ms, histogram_ms) {
            (None, None) => None,
            (Some(time_ms), other) if other.is_none_or(|h| h < time_ms) => {
                float -= 1;
                let cell = Cell::Float(floats.values[float]);
                Some(Sample { stamp: floats.stamp(float), cell })
            }
            _ => {
                histogram -= 1;
                let cell = Cell::Histogram(&histograms.values[histogram]);
                Some(Sample { stamp: histograms.stamp(histogram), cell })
            }
        }
    })
}

/// How many neighbours `counts`, given earlier and later sample.
pub(super) fn count_pairs<'a>(
    backwards: impl Iterator<Item = Sample<'a>>,
    counts: impl Fn(Sample<'a>, Sample<'a>) -> bool,
) -> f64 {
    let mut total = 0u32;
    let mut later: Option<Sample<'_>> = None;
    for sample in backwards {
        total += u32::from(later.is_some_and(|later| counts(sample, later)));
        later = Some(sample);
    }
    f64::from(total)
}
