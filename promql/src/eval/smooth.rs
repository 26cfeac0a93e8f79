//! `smoothed` instant selectors: at each step the value on the line between the samples on either side of it, each up to
//! the look-back away. Behind the last sample it is that one's; before the first there is none.

use std::sync::Arc;

use tsdb::model::{CounterReset, FloatHistogram};

use super::context::Scratch;
use super::notes::{Note, Notes};
use super::row::Row;
use crate::functions::histogram::Incompatible;
use crate::functions::window::extended::{interpolate, interpolate_histograms};
use crate::functions::window::{FloatRun, HistogramRun};
use crate::plan::grid::{Grid, View};

/// Fills `row`, all of whose steps are absent, from the runs in `scratch`.
pub(super) fn fill(grid: &Grid, view: &View, lookback_ms: i64, scratch: &Scratch, row: &mut Row) -> Notes {
    let mut notes = Notes::default();
    let (floats, histograms) = scratch.runs();
    for step in 0..grid.count {
        let time_ms = view.time_ms(grid.time_ms(step));
        let of_floats = Place::of(floats.timestamps, time_ms, lookback_ms);
        let of_histograms = Place::of(histograms.timestamps, time_ms, lookback_ms);
        match (of_floats, of_histograms) {
            (place, Place::Empty) => {
                if let Some(value) = float(floats, place, time_ms) {
                    row.values[step] = value;
                }
            }
            (Place::Empty, place) => {
                if let Some(value) = histogram(histograms, place, time_ms, &mut notes) {
                    row.set_histogram(step, value);
                }
            }
            _ => notes.add(Note::MixedFloatsHistograms),
        }
    }
    notes
}

fn float(run: FloatRun<'_>, place: Place, time_ms: i64) -> Option<f64> {
    let end = |i: usize| (run.timestamps[i], run.values[i]);
    match place {
        Place::At(i) | Place::Behind(i) => Some(run.values[i]),
        Place::Between(i) => Some(interpolate([end(i), end(i + 1)], time_ms, false)),
        Place::Before | Place::Empty => None,
    }
}

fn histogram(
    run: HistogramRun<'_>,
    place: Place,
    time_ms: i64,
    notes: &mut Notes,
) -> Option<Arc<FloatHistogram>> {
    match place {
        Place::At(i) => Some(Arc::clone(&run.values[i])),
        Place::Behind(i) => {
            // A hint tells of two neighbours, and this sample stands here for another.
            let carried = (*run.values[i]).clone();
            Some(Arc::new(FloatHistogram { counter_reset: CounterReset::Unknown, ..carried }))
        }
        Place::Between(i) => {
            let ends = [i, i + 1].map(|i| (run.timestamps[i], &*run.values[i]));
            let gauges = ends.iter().all(|(_, h)| h.counter_reset == CounterReset::Gauge);
            match interpolate_histograms(ends, time_ms, !gauges, notes) {
                Ok(histogram) => Some(Arc::new(histogram)),
                Err(Incompatible) => {
                    notes.add(Note::MixedSchemas);
                    None
                }
            }
        }
        Place::Before | Place::Empty => None,
    }
}

/// Where a time lies among samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// No sample is near.
    Empty,
    /// Before all that are near.
    Before,
    /// At one.
    At(usize),
    /// Between this one and the next.
    Between(usize),
    /// Behind this one, which is the last that is near.
    Behind(usize),
}

impl Place {
    fn of(timestamps: &[i64], time_ms: i64, lookback_ms: i64) -> Self {
        let from_ms = time_ms.saturating_sub(lookback_ms);
        let to_ms = time_ms.saturating_add(lookback_ms);
        let next = timestamps.partition_point(|t| *t < time_ms);
        let previous = next.checked_sub(1).filter(|i| timestamps[*i] > from_ms);
        match (previous, timestamps.get(next).filter(|t| **t <= to_ms)) {
            (_, Some(t)) if *t == time_ms => Self::At(next),
            (Some(previous), Some(_)) => Self::Between(previous),
            (Some(previous), None) => Self::Behind(previous),
            (None, Some(_)) => Self::Before,
            (None, None) => Self::Empty,
        }
    }
}
