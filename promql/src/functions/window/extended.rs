//! `anchored` and `smoothed` windows, which look beyond their ends instead of extrapolating.
//!
//! An anchored window begins with the last sample at or before its left end, up to the look-back away. A smoothed one
//! begins and ends with values interpolated between the samples on either side of its ends; where there is none on one
//! side, the nearest inside stands. In both, a counter's reset is corrected for as between any two samples; where a value
//! was interpolated across one, the counter is taken to have gone up from 0.

use std::sync::Arc;

use tsdb::model::{CounterReset, FloatHistogram};

use super::mixed::{HistogramRun, Task, backwards, count_pairs};
use super::rate::divisor_s;
use super::{FloatRun, WindowFunction};
use crate::eval::notes::{Note, Notes};
use crate::eval::row::Row;
use crate::functions::histogram::{Incompatible, Total, is_reset};
use crate::parse::ast::Edges;

/// Fills `row`, whose steps are all absent, with the function's values.
pub fn evaluate(task: Task<'_>, row: &mut Row, notes: &mut Notes) {
    let Task { function, windows, floats, histograms, .. } = task;
    let (before_ms, behind_ms) = windows.edges.reach_ms(windows.lookback_ms);
    for step in 0..windows.grid.count {
        let end_ms = windows.view.time_ms(windows.grid.time_ms(step));
        let start_ms = end_ms.saturating_sub(windows.range_ms);
        let (from_ms, to_ms) = (start_ms.saturating_sub(before_ms), end_ms.saturating_add(behind_ms));
        let inside = |timestamps: &[i64]| {
            timestamps.partition_point(|t| *t <= from_ms)..timestamps.partition_point(|t| *t <= to_ms)
        };
        let (of_floats, of_histograms) = (inside(floats.timestamps), inside(histograms.timestamps));
        let smoothed = windows.edges == Edges::Smoothed;
        let window = Extended { start_ms, end_ms, smoothed, function, range_ms: windows.range_ms };
        if matches!(function, WindowFunction::Changes | WindowFunction::Resets) {
            // Back to the anchor, which is the first sample that isn't inside.
            let mut anchored = false;
            let samples = backwards(floats, of_floats, histograms, of_histograms).take_while(|sample| {
                let before = anchored;
                anchored |= sample.stamp.time_ms <= start_ms;
                !before
            });
            let samples: Vec<_> = samples.collect();
            if samples.first().is_some_and(|last| last.stamp.time_ms > start_ms) {
                row.values[step] = count_pairs(samples.into_iter(), |previous, current| match function {
                    WindowFunction::Changes => previous.is_change(current),
                    _ => previous.is_reset(current),
                });
            }
            continue;
        }
        match (of_floats.is_empty(), of_histograms.is_empty()) {
            (true, true) => {}
            (false, false) => notes.add(Note::MixedFloatsHistograms),
            (false, true) => {
                if let Some(value) = window.of_floats(floats.part(of_floats)) {
                    row.values[step] = value;
                }
            }
            (true, false) => {
                if let Some(value) = window.of_histograms(histograms.part(of_histograms), notes) {
                    row.set_histogram(step, Arc::new(value));
                }
            }
        }
    }
}

/// One step's window.
struct Extended {
    /// Excluded, but for an anchor.
    start_ms: i64,
    end_ms: i64,
    smoothed: bool,
    function: WindowFunction,
    range_ms: i64,
}

impl Extended {
    fn is_counter(&self) -> bool {
        self.function != WindowFunction::Delta
    }

    /// Indices of the samples from which the values at both ends are made.
    fn ends(&self, timestamps: &[i64]) -> Option<(usize, usize)> {
        let mut last = timestamps.len().checked_sub(1)?;
        let first = timestamps[..last].partition_point(|t| *t <= self.start_ms).saturating_sub(1);
        if self.smoothed {
            last = timestamps[..last].partition_point(|t| *t < self.end_ms);
        }
        let is_beside =
            timestamps[last] <= self.start_ms || (self.smoothed && timestamps[first] > self.end_ms);
        (!is_beside).then_some((first, last))
    }

    /// Whether the value at the left end lies between samples `first` and `first + 1`.
    fn begins_between(&self, timestamps: &[i64], first: usize) -> bool {
        self.smoothed && timestamps[first] < self.start_ms
    }

    /// Whether the value at the right end lies between samples `last - 1` and `last`.
    fn ends_between(&self, timestamps: &[i64], last: usize) -> bool {
        self.smoothed && last > 0 && timestamps[last] > self.end_ms
    }

    /// `rate`, `increase`, `delta`.
    fn of_floats(&self, run: FloatRun<'_>) -> Option<f64> {
        let FloatRun { timestamps, values, .. } = run;
        let (first, last) = self.ends(timestamps)?;
        let between = |at: usize, time_ms| {
            let ends = [(timestamps[at], values[at]), (timestamps[at + 1], values[at + 1])];
            interpolate(ends, time_ms, self.is_counter())
        };
        let left = if self.begins_between(timestamps, first) {
            between(first, self.start_ms)
        } else {
            values[first]
        };
        let right =
            if self.ends_between(timestamps, last) { between(last - 1, self.end_ms) } else { values[last] };
        let mut difference = right - left;
        if self.is_counter() {
            let from = if timestamps[first] <= self.start_ms { first + 1 } else { first };
            let to = if timestamps[last] >= self.end_ms { last } else { last + 1 };
            let mut correction = 0.0;
            let mut previous = left;
            for value in values[from.min(to)..to].iter().chain([&right]) {
                if *value < previous {
                    correction += previous;
                }
                previous = *value;
            }
            difference += correction;
        }
        Some(difference / divisor_s(self.function, self.range_ms))
    }

    /// `rate`, `increase`, `delta`.
    fn of_histograms(&self, run: HistogramRun<'_>, notes: &mut Notes) -> Option<FloatHistogram> {
        let HistogramRun { timestamps, values, .. } = run;
        let (first, last) = self.ends(timestamps)?;
        let relevant = &values[first..=last];
        if relevant.iter().any(|h| h.has_custom_buckets() != values[first].has_custom_buckets()) {
            notes.add(Note::MixedSchemas);
            return None;
        }
        let is_gauge = |h: &FloatHistogram| h.counter_reset == CounterReset::Gauge;
        if self.is_counter() && relevant.iter().any(|h| is_gauge(h)) {
            notes.add(Note::NotCounter);
        }
        let between = |at: usize, time_ms, notes: &mut Notes| {
            let ends = [(timestamps[at], &*values[at]), (timestamps[at + 1], &*values[at + 1])];
            let between = interpolate_histograms(ends, time_ms, self.is_counter(), notes);
            Arc::new(between.expect("layouts have just been compared"))
        };
        let left = if self.begins_between(timestamps, first) {
            between(first, self.start_ms, notes)
        } else {
            Arc::clone(&values[first])
        };
        let right = if self.ends_between(timestamps, last) {
            between(last - 1, self.end_ms, notes)
        } else {
            Arc::clone(&values[last])
        };
        if !(self.is_counter() || is_gauge(&left) && is_gauge(&right)) {
            notes.add(Note::NotGauge);
        }
        let mut total = Total::of(&right);
        let mut add = |histogram: &FloatHistogram, sign, note| {
            total.combine(histogram, sign, note, notes).expect("layouts have just been compared");
        };
        add(&left, -1.0, Note::ReconciledSubtraction);
        if self.is_counter() {
            for before in self.before_resets(run, (first, last), &left, &right) {
                add(before, 1.0, Note::ReconciledAddition);
            }
        }
        total.set_counter_reset(CounterReset::Gauge);
        Some(total.over(divisor_s(self.function, self.range_ms)))
    }

    /// The histograms that were the last before a reset, of those between both ends.
    fn before_resets<'a>(
        &self,
        run: HistogramRun<'a>,
        (first, last): (usize, usize),
        left: &'a FloatHistogram,
        right: &'a FloatHistogram,
    ) -> Vec<&'a FloatHistogram> {
        let HistogramRun { timestamps, values, .. } = run;
        let (mut from, mut previous) = (first + 1, left);
        if self.begins_between(timestamps, first) && is_reset(&values[first + 1], &values[first]) {
            // The left end was interpolated across this reset: it is done with.
            previous = &values[first + 1];
            from += 1;
        }
        // Both ends lie between the same two samples, or there is but one.
        if from > last {
            return Vec::new();
        }
        let mut before = Vec::new();
        for histogram in values[from..last].iter().map(|h| &**h).chain([right]) {
            if is_reset(histogram, previous) {
                before.push(previous);
            }
            previous = histogram;
        }
        before
    }
}

/// The value at `time_ms` on the line between two samples. A counter that was reset between them goes up from 0.
pub fn interpolate([(from_ms, from), (to_ms, to)]: [(i64, f64); 2], time_ms: i64, counter: bool) -> f64 {
    let from = if counter && to < from { 0.0 } else { from };
    from + (to - from) * (time_ms - from_ms) as f64 / (to_ms - from_ms) as f64
}

/// [`interpolate`] for histograms.
///
/// # Errors
/// One has exponential buckets and the other custom ones.
pub fn interpolate_histograms(
    [(from_ms, from), (to_ms, to)]: [(i64, &FloatHistogram); 2],
    time_ms: i64,
    counter: bool,
    notes: &mut Notes,
) -> Result<FloatHistogram, Incompatible> {
    if time_ms == from_ms {
        return Ok(from.clone());
    }
    if time_ms == to_ms {
        return Ok(to.clone());
    }
    if from.has_custom_buckets() != to.has_custom_buckets() {
        return Err(Incompatible);
    }
    let share = (time_ms - from_ms) as f64 / (to_ms - from_ms) as f64;
    let mut total = Total::of(to);
    if counter && is_reset(to, from) {
        return Ok(total.scaled(share));
    }
    total.combine(from, -1.0, Note::ReconciledSubtraction, notes)?;
    total.scale(share);
    total.combine(from, 1.0, Note::ReconciledAddition, notes)?;
    if from.counter_reset == CounterReset::Gauge {
        total.set_counter_reset(CounterReset::Gauge);
    }
    Ok(total.fold())
}
