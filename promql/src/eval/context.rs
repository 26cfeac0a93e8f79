//! What every operator of one evaluation shares.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tsdb::chunk::Columns;
use tsdb::model::FloatHistogram;
use tsdb::select::Series;
use tsdb::workers::Workers;

use super::labels::drop_name;
use super::limits::{Budget, Charge, Limits};
use super::notes::Notes;
use super::row::Row;
use super::same;
use super::trace::{Counted, Measure, Telling, Trace};
use crate::annotations::{Annotations, Level};
use crate::error::Result;
use crate::folded::{Folded, FoldedNode};
use crate::functions::window::{FloatRun, HistogramRun, KernelScratch, Windows};
use crate::parse::Span;
use crate::plan::{Aggregate, Plan, QueryRange, Shared};
use crate::value::{Stats, histograms_bytes};

/// Buffers between two tasks aren't kept where they are larger.
const SCRATCH_KEPT_BYTES: usize = 1 << 20;

/// One evaluation.
pub(crate) struct Context<'a> {
    pub(crate) inputs: &'a [Vec<Series>],
    pub(crate) shared: &'a [Shared],
    pub(crate) range: QueryRange,
    /// Whether names that are taken away go at the very end; else they are gone in whatever rows a node gives.
    pub(crate) delays_name_removal: bool,
    pub(crate) limits: &'a Limits,
    pub(crate) workers: &'a dyn Workers,
    pub(crate) budget: Budget,
    annotations: Mutex<Annotations>,
    scratches: Mutex<Vec<Scratch>>,
    samples: AtomicU64,
    per_step: Option<Mutex<Vec<u64>>>,
    /// What each step of the plan takes, where somebody wants to know.
    pub(crate) trace: Option<Trace<'a>>,
    /// What others have folded, by the aggregation's place in memory, where the plan stays while it is evaluated.
    folded: Mutex<BTreeMap<usize, Vec<FoldedNode>>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        inputs: &'a [Vec<Series>],
        plan: &'a Plan,
        limits: &'a Limits,
        workers: &'a dyn Workers,
        telling: Telling<'a>,
    ) -> Self {
        Self {
            inputs,
            shared: plan.shared(),
            range: *plan.range(),
            delays_name_removal: plan.delays_name_removal(),
            limits,
            workers,
            budget: Budget::new(limits),
            annotations: Mutex::default(),
            scratches: Mutex::default(),
            samples: AtomicU64::new(0),
            per_step: telling.per_step.then(Mutex::default),
            trace: telling.clock.map(Trace::new),
            folded: Mutex::default(),
        }
    }

    /// Takes in what others have folded, and what they tell; gives what it took them.
    pub(crate) fn put_folded(&mut self, plan: &Plan, folded: Vec<Folded>) -> Stats {
        let nodes = plan.fold_nodes();
        let mut elsewhere = Stats::default();
        let by_place = self.folded.get_mut().unwrap_or_else(PoisonError::into_inner);
        for Folded { nodes: parts, annotations, stats, per_step } in folded {
            for (node, part) in nodes.iter().zip(parts) {
                by_place.entry(std::ptr::from_ref(*node).addr()).or_default().push(part);
            }
            self.annotations.get_mut().unwrap_or_else(PoisonError::into_inner).merge(annotations);
            if let Some(counts) = &mut self.per_step {
                let counts = counts.get_mut().unwrap_or_else(PoisonError::into_inner);
                per_step.iter().enumerate().for_each(|(step, n)| Counted::Each.add(counts, step, *n));
            }
            elsewhere.series += stats.series;
            elsewhere.samples += stats.samples;
        }
        elsewhere
    }

    /// What others have folded for an aggregation.
    pub(crate) fn take_folded(&self, node: &Aggregate) -> Vec<FoldedNode> {
        let mut folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
        folded.remove(&std::ptr::from_ref(node).addr()).unwrap_or_default()
    }

    /// What it took so far.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            series: self.inputs.iter().map(|series| series.len() as u64).sum(),
            samples: self.samples.load(Ordering::Relaxed),
            peak_bytes: self.budget.peak_bytes(),
        }
    }

    pub(crate) fn annotate(&self, level: Level, text: &str, span: Span) {
        self.annotations.lock().unwrap_or_else(PoisonError::into_inner).add(level, text, span);
    }

    /// Tells what was noted of a series.
    pub(crate) fn tell(&self, notes: Notes, metric: &str, span: Span) {
        if !notes.is_empty() {
            let mut annotations = self.annotations.lock().unwrap_or_else(PoisonError::into_inner);
            notes.annotate(&mut annotations, metric, span);
        }
    }

    pub(crate) fn take_annotations(&self) -> Annotations {
        std::mem::take(&mut self.annotations.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Buffers for one task; give them back when it is done.
    pub(crate) fn scratch(&self) -> Scratch {
        self.scratches.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(crate) fn give_back(&self, scratch: Scratch) {
        // Nobody pays for what waits here.
        if scratch.size_bytes() > SCRATCH_KEPT_BYTES {
            return;
        }
        self.scratches.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }

    pub(crate) fn count_samples(&self, samples: usize) {
        self.samples.fetch_add(samples as u64, Ordering::Relaxed);
    }

    /// Counts samples that were looked at for a step.
    pub(crate) fn count_at(&self, counted: Counted, step: usize, samples: usize) {
        if let Some(counts) = &self.per_step {
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            counted.add(&mut counts, step, samples as u64);
        }
    }

    /// Counts the samples of a selector's row.
    pub(crate) fn count_row(&self, counted: Counted, row: &Row) {
        if let Some(counts) = &self.per_step {
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            (0..row.values.len())
                .filter(|step| row.has(*step))
                .for_each(|step| counted.add(&mut counts, step, 1));
        }
    }

    /// Counts the samples of each step's window.
    pub(crate) fn count_windows(&self, counted: Counted, windows: &Windows, runs: [&[i64]; 2]) {
        let Some(counts) = &self.per_step else { return };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        for step in 0..windows.grid.count {
            let end_ms = windows.view.time_ms(windows.grid.time_ms(step));
            let start_ms = end_ms.saturating_sub(windows.range_ms);
            let inside = runs
                .map(|run| run.partition_point(|t| *t <= end_ms) - run.partition_point(|t| *t <= start_ms));
            counted.add(&mut counts, step, inside.iter().sum::<usize>() as u64);
        }
    }

    /// Samples looked at, by step of the query; empty where nobody asked, and shorter where the last steps have none.
    pub(crate) fn take_per_step(&self) -> Vec<u64> {
        let counts = self
            .per_step
            .as_ref()
            .map(|c| std::mem::take(&mut *c.lock().unwrap_or_else(PoisonError::into_inner)));
        counts.unwrap_or_default()
    }

    /// Puts the time since the last call in this task down to a step of the plan, or to nobody.
    #[inline]
    pub(crate) fn lap(&self, scratch: &mut Scratch, of: Option<&Arc<Measure>>) {
        if let Some(trace) = &self.trace {
            let now = trace.now();
            if let Some(measure) = of {
                measure.took(now.saturating_sub(scratch.lap));
            }
            scratch.lap = now;
        }
    }

    /// Takes a row's name away that was to go, unless that is delayed to the very end.
    #[inline]
    pub(crate) fn settle(&self, row: &mut Row) {
        if row.drop_name && !self.delays_name_removal {
            drop_name(row);
        }
    }

    /// Takes names away as [`Context::settle`] does, from rows of which some may then be the same.
    ///
    /// # Errors
    /// Two rows with the same labels have a sample at the same step.
    pub(crate) fn settle_all(&self, rows: &mut Rows<'_>) -> Result<()> {
        if self.delays_name_removal || !rows.rows.iter().any(|row| row.drop_name) {
            return Ok(());
        }
        rows.rows.iter_mut().for_each(drop_name);
        same::unite(rows)
    }

    /// Rows together with what they cost.
    pub(crate) fn rows(&self, rows: Vec<Row>) -> Result<Rows<'_>> {
        let charge = self.budget.charge(rows.iter().map(row_bytes).sum(), "rows")?;
        Ok(Rows { rows, charge })
    }
}

/// What a row costs, its labels included: they may have been made for it.
pub(crate) fn row_bytes(row: &Row) -> usize {
    row.size_bytes() + row.labels.as_bytes().len()
}

/// Rows that are paid for.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) rows: Vec<Row>,
    charge: Charge<'a>,
}

impl<'a> Rows<'a> {
    /// The rows, given back to the budget: for who changes them in place and pays for what comes of it.
    pub(crate) fn into_rows(self) -> Vec<Row> {
        self.rows
    }

    /// The rows, and what they cost.
    pub(crate) fn into_parts(self) -> (Vec<Row>, Charge<'a>) {
        (self.rows, self.charge)
    }

    /// Charged already.
    pub(crate) fn paid(rows: Vec<Row>, charge: Charge<'a>) -> Self {
        Self { rows, charge }
    }
}

/// Buffers that a task reuses from series to series.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) columns: Columns,
    pub(crate) float_timestamps: Vec<i64>,
    pub(crate) float_values: Vec<f64>,
    /// Empty where no start time is known, as in [`Columns`].
    pub(crate) float_starts: Vec<i64>,
    pub(crate) histogram_timestamps: Vec<i64>,
    pub(crate) histogram_values: Vec<Arc<FloatHistogram>>,
    pub(crate) histogram_starts: Vec<i64>,
    pub(crate) kernel: KernelScratch,
    /// Values of a row that nobody needs any more.
    pub(crate) spare: Vec<f64>,
    /// When the last step of the plan was done with a row, by the trace's clock.
    pub(crate) lap: Duration,
}

impl Scratch {
    /// The runs of floats and of histograms.
    pub(crate) fn runs(&self) -> (FloatRun<'_>, HistogramRun<'_>) {
        let floats = FloatRun {
            timestamps: &self.float_timestamps,
            values: &self.float_values,
            starts: &self.float_starts,
        };
        let histograms = HistogramRun {
            timestamps: &self.histogram_timestamps,
            values: &self.histogram_values,
            starts: &self.histogram_starts,
        };
        (floats, histograms)
    }

    /// Forgets both runs.
    pub(crate) fn clear_runs(&mut self) {
        self.float_timestamps.clear();
        self.float_values.clear();
        self.float_starts.clear();
        self.histogram_timestamps.clear();
        self.histogram_values.clear();
        self.histogram_starts.clear();
    }

    /// Bytes held, as far as they grow with the data.
    pub(crate) fn size_bytes(&self) -> usize {
        let c = &self.columns;
        (c.timestamps.capacity() + c.values.capacity() + c.starts.capacity()) * 8
            + c.histograms.capacity() * size_of::<usize>()
            + (self.float_timestamps.capacity() + self.float_values.capacity()) * 8
            + (self.float_starts.capacity() + self.histogram_starts.capacity()) * 8
            + (self.histogram_timestamps.capacity() + self.histogram_values.capacity()) * 8
            + self.spare.capacity() * 8
            + histograms_bytes(c.histograms.iter().flatten().chain(&self.histogram_values))
    }
}
