//! One series of an operator's output: a value for each step.

use std::sync::Arc;

use tsdb::model::{FloatHistogram, Labels, STALE_NAN_BITS};

use crate::value::histograms_bytes;

/// Stands at steps without a sample. Stale markers are gone before anything is computed, and arithmetic makes quiet
/// NaNs only, so these bits mean nothing else.
pub const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

/// Whether a step has no float.
#[inline]
pub fn is_absent(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// A step's sample.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'a> {
    /// None.
    Absent,
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(&'a Arc<FloatHistogram>),
}

/// A series at all steps.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Its labels, the metric's name included even if it is to be dropped.
    pub labels: Labels,
    /// The metric's name goes at the very end: until then it can still be matched and grouped by.
    pub drop_name: bool,
    /// The float of each step, or [`ABSENT`].
    pub values: Vec<f64>,
    /// Empty, or the histogram of each step; where there is one, the float is [`ABSENT`].
    pub histograms: Vec<Option<Arc<FloatHistogram>>>,
}

impl Row {
    /// A row without samples.
    pub fn absent(labels: Labels, steps: usize) -> Self {
        Self { labels, drop_name: false, values: vec![ABSENT; steps], histograms: Vec::new() }
    }

    /// A row with the same float at all steps.
    pub fn constant(labels: Labels, steps: usize, value: f64) -> Self {
        Self { labels, drop_name: false, values: vec![value; steps], histograms: Vec::new() }
    }

    /// The sample of a step.
    #[inline]
    pub fn cell(&self, step: usize) -> Cell<'_> {
        match self.histograms.get(step) {
            Some(Some(histogram)) => Cell::Histogram(histogram),
            _ if is_absent(self.values[step]) => Cell::Absent,
            _ => Cell::Float(self.values[step]),
        }
    }

    /// Whether a step has a sample of either kind.
    #[inline]
    pub fn has(&self, step: usize) -> bool {
        !is_absent(self.values[step]) || self.histogram(step).is_some()
    }

    /// The histogram of a step.
    #[inline]
    pub fn histogram(&self, step: usize) -> Option<&Arc<FloatHistogram>> {
        self.histograms.get(step).and_then(Option::as_ref)
    }

    /// Whether any step has a sample.
    pub fn has_any(&self) -> bool {
        self.values.iter().any(|v| !is_absent(*v)) || self.histograms.iter().any(Option::is_some)
    }

    /// Puts a histogram at a step, in place of what was there.
    pub fn set_histogram(&mut self, step: usize, histogram: Arc<FloatHistogram>) {
        if self.histograms.is_empty() {
            self.histograms.resize(self.values.len(), None);
        }
        self.values[step] = ABSENT;
        self.histograms[step] = Some(histogram);
    }

    /// Takes a step's sample away.
    pub fn clear(&mut self, step: usize) {
        self.values[step] = ABSENT;
        if let Some(histogram) = self.histograms.get_mut(step) {
            *histogram = None;
        }
    }

    /// Takes a step's sample over from another row of as many steps.
    pub fn take_from(&mut self, other: &Self, step: usize) {
        match other.cell(step) {
            Cell::Absent => {}
            Cell::Float(value) => self.values[step] = value,
            Cell::Histogram(histogram) => self.set_histogram(step, Arc::clone(histogram)),
        }
    }

    /// Leaves out histograms, as functions of floats do.
    pub fn drop_histograms(&mut self) {
        self.histograms.clear();
    }

    /// Bytes on the heap, labels not counted where they are shared with storage.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.values.capacity() * size_of::<f64>()
            + self.histograms.capacity() * size_of::<Option<Arc<FloatHistogram>>>()
            + histograms_bytes(self.histograms.iter().flatten())
    }
}

/// Bytes that a histogram takes on the heap.
pub fn histogram_bytes(histogram: &FloatHistogram) -> usize {
    size_of::<FloatHistogram>()
        + (histogram.positive_buckets.len() + histogram.negative_buckets.len()) * size_of::<f64>()
        + (histogram.positive_spans.len() + histogram.negative_spans.len()) * size_of::<u64>()
}
