//! From a stored series to a row: decode, then look back at each step or roll a window over.

use std::ops::RangeInclusive;
use std::sync::Arc;

use tsdb::model::{CounterReset, FloatHistogram, is_stale};
use tsdb::select::Series;

use super::context::{Context, Scratch};
use super::notes::{Note, Notes};
use super::row::Row;
use super::smooth;
use super::trace::{Counted, Measure};
use crate::error::Result;
use crate::functions::window::{self, StepValues, Task, WindowFunction, Windows};
use crate::parse::Span;
use crate::plan::grid::{Grid, View};

/// What is done with the samples of a selector.
#[derive(Debug)]
pub(crate) enum LeafOp {
    /// The last sample not older than the look-back.
    Instant { grid: Grid, view: View, lookback_ms: i64, wanted: Wanted },
    /// The value at the step, interpolated between the samples on either side.
    Smoothed { grid: Grid, view: View, lookback_ms: i64, span: Span },
    /// A function over windows.
    Window(WindowOp),
}

/// What is wanted of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Itself.
    Samples,
    /// Its time, in seconds.
    Times,
    /// When its counter started, in seconds; 0 where that isn't known.
    StartTimes,
}

/// A function over windows, ready to run.
#[derive(Debug)]
pub(crate) struct WindowOp {
    pub(crate) function: WindowFunction,
    pub(crate) windows: Windows,
    pub(crate) params: Vec<StepValues>,
    pub(crate) span: Span,
    pub(crate) counted: Counted,
}

/// A selector's samples and what is done with them.
#[derive(Debug)]
pub(crate) struct LeafSource {
    pub(crate) op: LeafOp,
    /// Whether histograms keep the hint that a counter was reset before them. Storage knows that of some samples and
    /// not of others, depending on where chunks begin; results whose hints are shown or compared mustn't.
    pub(crate) tells_resets: bool,
    pub(crate) counted: Counted,
    /// Told what is read, where somebody wants to know.
    pub(crate) measure: Option<Arc<Measure>>,
}

impl LeafSource {
    /// Steps of its rows.
    pub(crate) fn steps(&self) -> usize {
        match &self.op {
            LeafOp::Instant { grid, .. } | LeafOp::Smoothed { grid, .. } => grid.count,
            LeafOp::Window(op) => op.windows.grid.count,
        }
    }

    /// What is looked at, at most, for a series whose chunks have so many bytes: windows may overlap.
    pub(crate) fn work_bytes(&self, chunks_bytes: usize) -> usize {
        match &self.op {
            LeafOp::Instant { .. } | LeafOp::Smoothed { .. } => chunks_bytes,
            LeafOp::Window(op) => chunks_bytes.saturating_mul(op.windows.grid.count),
        }
    }

    /// The series' row, or `None` when it has no sample at any step.
    pub(crate) fn row(
        &self,
        context: &Context<'_>,
        series: &Series,
        scratch: &mut Scratch,
    ) -> Result<Option<Row>> {
        let reach_ms = match &self.op {
            LeafOp::Instant { grid, view, lookback_ms, .. } => view.reach_ms(grid, *lookback_ms, 0),
            LeafOp::Smoothed { grid, view, lookback_ms, .. } => {
                view.reach_ms(grid, *lookback_ms, *lookback_ms)
            }
            LeafOp::Window(op) => op.windows.reach_ms(),
        };
        self.decode(series, reach_ms, scratch)?;
        context.count_samples(scratch.columns.timestamps.len());
        if let Some(measure) = &self.measure {
            measure.decoded(series, scratch.columns.timestamps.len());
            context.lap(scratch, Some(measure));
        }
        if scratch.columns.timestamps.is_empty() {
            return Ok(None);
        }
        if !self.tells_resets && self.op.hands_histograms_on() {
            forget_resets(&mut scratch.columns.histograms);
        }
        let row = match &self.op {
            LeafOp::Instant { grid, view, lookback_ms, wanted } => {
                let mut row = blank(series, grid.count, scratch);
                look_back(grid, view, *lookback_ms, *wanted, scratch, &mut row);
                context.count_row(self.counted, &row);
                row.drop_name = *wanted != Wanted::Samples;
                row
            }
            LeafOp::Smoothed { grid, view, lookback_ms, span } => {
                let mut row = blank(series, grid.count, scratch);
                separate(scratch);
                let notes = smooth::fill(grid, view, *lookback_ms, scratch, &mut row);
                context.count_row(self.counted, &row);
                context.tell(notes, row.labels.metric_name(), *span);
                if !self.tells_resets {
                    forget_resets(&mut row.histograms);
                }
                row
            }
            LeafOp::Window(op) => {
                let row = blank(series, op.windows.grid.count, scratch);
                separate(scratch);
                op.fill(context, row, scratch)
            }
        };
        Ok(kept(row, scratch))
    }
}

impl LeafSource {
    /// Decodes the samples of a range; of an instant selector at one step only the chunk that has the newest.
    fn decode(&self, series: &Series, range_ms: RangeInclusive<i64>, scratch: &mut Scratch) -> Result<()> {
        if let LeafOp::Instant { grid: Grid { count: 1, .. }, .. } = &self.op
            && let Some(newest) = series.chunks.iter().rfind(|chunk| chunk.min_ms <= *range_ms.end())
            && *range_ms.start() < newest.min_ms
        {
            series.decode(newest.min_ms..=*range_ms.end(), &mut scratch.columns)?;
            // What is known of resets before a chunk's first histogram depends on the chunk before.
            if !scratch.columns.is_empty() && scratch.columns.histograms.is_empty() {
                return Ok(());
            }
        }
        series.decode(range_ms, &mut scratch.columns)?;
        Ok(())
    }
}

impl LeafOp {
    /// Whether hints of histograms can reach a result; else they only serve to find resets.
    fn hands_histograms_on(&self) -> bool {
        use WindowFunction as F;
        match self {
            Self::Instant { .. } => true,
            // Interpolating needs them too; they are forgotten behind it.
            Self::Smoothed { .. } => false,
            Self::Window(op) => matches!(op.function, F::Sum | F::Avg | F::Last | F::First),
        }
    }
}

fn forget_resets(histograms: &mut [Option<Arc<FloatHistogram>>]) {
    for histogram in histograms.iter_mut().flatten().filter(|h| h.counter_reset == CounterReset::Reset) {
        Arc::make_mut(histogram).counter_reset = CounterReset::Unknown;
    }
}

fn blank(series: &Series, steps: usize, scratch: &mut Scratch) -> Row {
    let mut values = std::mem::take(&mut scratch.spare);
    values.clear();
    values.resize(steps, super::row::ABSENT);
    Row { labels: series.labels.clone(), drop_name: false, values, histograms: Vec::new() }
}

/// The row if it has any sample; else its memory is kept for the next.
pub(crate) fn kept(row: Row, scratch: &mut Scratch) -> Option<Row> {
    if row.has_any() {
        return Some(row);
    }
    scratch.spare = row.values;
    None
}

fn look_back(grid: &Grid, view: &View, lookback_ms: i64, wanted: Wanted, scratch: &Scratch, row: &mut Row) {
    let columns = &scratch.columns;
    let (timestamps, values) = (columns.timestamps.as_slice(), columns.values.as_slice());
    let mut next = 0;
    if wanted == Wanted::Samples && columns.histograms.is_empty() {
        for (step, out) in row.values.iter_mut().enumerate() {
            let time_ms = view.time_ms(grid.time_ms(step));
            while timestamps.get(next).is_some_and(|t| *t <= time_ms) {
                next += 1;
            }
            if let Some((timestamp_ms, value)) = timestamps[..next].last().zip(values[..next].last())
                && *timestamp_ms > time_ms.saturating_sub(lookback_ms)
                && !is_stale(*value)
            {
                *out = *value;
            }
        }
        return;
    }
    for step in 0..grid.count {
        let time_ms = view.time_ms(grid.time_ms(step));
        while next < timestamps.len() && timestamps[next] <= time_ms {
            next += 1;
        }
        let Some(at) = next.checked_sub(1) else { continue };
        if timestamps[at] <= time_ms.saturating_sub(lookback_ms) || is_stale(values[at]) {
            continue;
        }
        if wanted == Wanted::Times {
            row.values[step] = timestamps[at] as f64 / 1000.0;
        } else if wanted == Wanted::StartTimes {
            row.values[step] = columns.starts.get(at).copied().unwrap_or(0) as f64 / 1000.0;
        } else if let Some(Some(histogram)) = columns.histograms.get(at) {
            row.set_histogram(step, Arc::clone(histogram));
        } else {
            row.values[step] = values[at];
        }
    }
}

/// Leaves stale markers out, and puts floats and histograms into runs of their own. A series of floats without stale
/// markers, the common case, stays where it is: runs are then read from the columns.
fn separate(scratch: &mut Scratch) {
    scratch.clear_runs();
    let Scratch { columns, .. } = scratch;
    if columns.histograms.is_empty() && !columns.values.iter().any(|v| is_stale(*v)) {
        std::mem::swap(&mut columns.timestamps, &mut scratch.float_timestamps);
        std::mem::swap(&mut columns.values, &mut scratch.float_values);
        std::mem::swap(&mut columns.starts, &mut scratch.float_starts);
        return;
    }
    for (i, (timestamp, value)) in columns.timestamps.iter().zip(&columns.values).enumerate() {
        if is_stale(*value) {
            continue;
        }
        let start_ms = columns.starts.get(i).copied();
        if let Some(Some(histogram)) = columns.histograms.get(i) {
            scratch.histogram_timestamps.push(*timestamp);
            scratch.histogram_values.push(Arc::clone(histogram));
            scratch.histogram_starts.extend(start_ms);
        } else {
            scratch.float_timestamps.push(*timestamp);
            scratch.float_values.push(*value);
            scratch.float_starts.extend(start_ms);
        }
    }
}

/// Suffixes by which counters are known.
const COUNTER_SUFFIXES: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];

impl WindowOp {
    /// Fills `row`, all of whose steps are absent, from the runs in `scratch`.
    pub(crate) fn fill(&self, context: &Context<'_>, mut row: Row, scratch: &mut Scratch) -> Row {
        let mut kernel = std::mem::take(&mut scratch.kernel);
        let (floats, histograms) = scratch.runs();
        context.count_windows(self.counted, &self.windows, [floats.timestamps, histograms.timestamps]);
        // A name that is gone can't be told.
        let is_gone = row.drop_name && !context.delays_name_removal;
        let mut notes = Notes::default();
        let task = Task {
            function: self.function,
            windows: &self.windows,
            params: &self.params,
            floats,
            histograms,
        };
        window::evaluate(task, &mut kernel, &mut row, &mut notes);
        scratch.kernel = kernel;
        row.drop_name |= !self.function.keeps_name();
        if self.function.wants_counter() {
            let name = row.labels.metric_name();
            let is_named = !name.is_empty() && !is_gone;
            let is_counter = COUNTER_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
            if is_named && !is_counter && row.values.iter().any(|v| !super::row::is_absent(*v)) {
                notes.add(Note::PossibleNonCounter);
            }
        }
        context.tell(notes, if is_gone { "" } else { row.labels.metric_name() }, self.span);
        row
    }
}
