//! What every operator of one evaluation shares.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tsdb::chunk::Columns;
use tsdb::model::FloatHistogram;
use tsdb::select::Series;
use tsdb::workers::Workers;

use super::limits::{Budget, Charge, Limits};
use super::notes::Notes;
use super::row::Row;
use crate::annotations::{Annotations, Level};
use crate::error::Result;
use crate::functions::window::{FloatRun, HistogramRun, KernelScratch};
use crate::parse::Span;
use crate::plan::{QueryRange, Shared};

/// One evaluation.
pub(crate) struct Context<'a> {
    pub(crate) inputs: &'a [Vec<Series>],
    pub(crate) shared: &'a [Shared],
    pub(crate) range: QueryRange,
    pub(crate) limits: &'a Limits,
    pub(crate) workers: &'a dyn Workers,
    pub(crate) budget: Budget,
    annotations: Mutex<Annotations>,
    scratches: Mutex<Vec<Scratch>>,
    samples: AtomicU64,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        inputs: &'a [Vec<Series>],
        shared: &'a [Shared],
        range: QueryRange,
        limits: &'a Limits,
        workers: &'a dyn Workers,
    ) -> Self {
        Self {
            inputs,
            shared,
            range,
            limits,
            workers,
            budget: Budget::new(limits),
            annotations: Mutex::default(),
            scratches: Mutex::default(),
            samples: AtomicU64::new(0),
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
        self.scratches.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }

    pub(crate) fn count_samples(&self, samples: usize) {
        self.samples.fetch_add(samples as u64, Ordering::Relaxed);
    }

    pub(crate) fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Rows together with what they cost.
    pub(crate) fn rows(&self, rows: Vec<Row>) -> Result<Rows<'_>> {
        let charge = self.budget.charge(rows.iter().map(row_bytes).sum(), "rows")?;
        Ok(Rows { rows, _charge: charge })
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
    _charge: Charge<'a>,
}

impl<'a> Rows<'a> {
    /// The rows, given back to the budget: for who changes them in place and pays for what comes of it.
    pub(crate) fn into_rows(self) -> Vec<Row> {
        self.rows
    }

    /// Charged already.
    pub(crate) fn paid(rows: Vec<Row>, charge: Charge<'a>) -> Self {
        Self { rows, _charge: charge }
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
    pub(crate) histogram_values: Vec<std::sync::Arc<FloatHistogram>>,
    pub(crate) histogram_starts: Vec<i64>,
    pub(crate) kernel: KernelScratch,
    /// Values of a row that nobody needs any more.
    pub(crate) spare: Vec<f64>,
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
    }
}
