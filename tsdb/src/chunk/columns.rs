//! Decoded samples, side by side: what an engine rolls over.

use std::ops::Range;
use std::sync::Arc;

use crate::model::{FloatHistogram, Sample, Value};

/// A series' samples as columns. Reusable: [`Columns::clear`] keeps the memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// Milliseconds since the Unix epoch; strictly ascending when a whole series was decoded.
    pub timestamps: Vec<i64>,
    /// Parallel: floats. Where a histogram stands, its sum, so that stale markers show in this column alone.
    pub values: Vec<f64>,
    /// Empty when the series has no histogram; else parallel, with `None` where a float stands. Integer histograms
    /// come with float counts.
    pub histograms: Vec<Option<Arc<FloatHistogram>>>,
    /// Empty when no start time is known; else parallel, in milliseconds since the Unix epoch, 0 = unknown.
    pub starts: Vec<i64>,
}

impl Columns {
    /// Forgets all samples, and keeps the memory.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Appends a sample.
    pub fn push(&mut self, sample: &Sample) {
        match &sample.value {
            Value::Float(value) => self.push_float(sample.timestamp_ms, sample.start_ms, *value),
            Value::Int(histogram) => {
                self.push_histogram(sample.timestamp_ms, sample.start_ms, Arc::new(histogram.to_float()));
            }
            Value::Histogram(histogram) => {
                self.push_histogram(sample.timestamp_ms, sample.start_ms, Arc::clone(histogram));
            }
        }
    }

    /// Appends a float.
    pub fn push_float(&mut self, timestamp_ms: i64, start_ms: i64, value: f64) {
        self.push_start(start_ms);
        self.timestamps.push(timestamp_ms);
        self.values.push(value);
        if !self.histograms.is_empty() {
            self.histograms.push(None);
        }
    }

    /// Appends a histogram.
    pub fn push_histogram(&mut self, timestamp_ms: i64, start_ms: i64, histogram: Arc<FloatHistogram>) {
        self.push_start(start_ms);
        if self.histograms.is_empty() {
            self.histograms.resize(self.timestamps.len(), None);
        }
        self.timestamps.push(timestamp_ms);
        self.values.push(histogram.sum);
        self.histograms.push(Some(histogram));
    }

    /// The columns' lengths after floats were appended to timestamps and values alone.
    pub(crate) fn fill_up(&mut self) {
        if !self.histograms.is_empty() {
            self.histograms.resize(self.timestamps.len(), None);
        }
        if !self.starts.is_empty() {
            self.starts.resize(self.timestamps.len(), 0);
        }
    }

    /// Keeps the first `length` samples.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.timestamps.truncate(length);
        self.values.truncate(length);
        self.histograms.truncate(length);
        self.starts.truncate(length);
    }

    /// Drops a range of samples.
    pub(crate) fn remove(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.timestamps.drain(range.clone());
        self.values.drain(range.clone());
        if !self.histograms.is_empty() {
            self.histograms.drain(range.clone());
        }
        if !self.starts.is_empty() {
            self.starts.drain(range);
        }
    }

    /// Whether two ranges hold the same floats, bit by bit. Histograms aren't looked at.
    pub(crate) fn is_same_run(&self, a: Range<usize>, b: Range<usize>) -> bool {
        let (values, others) = (&self.values[a.clone()], &self.values[b.clone()]);
        self.timestamps[a.clone()] == self.timestamps[b.clone()]
            && values.iter().zip(others).all(|(value, other)| value.to_bits() == other.to_bits())
            && (self.starts.is_empty() || self.starts[a] == self.starts[b])
    }

    /// Moves sample `from` to the place of `to`.
    pub(crate) fn move_to(&mut self, from: usize, to: usize) {
        self.timestamps[to] = self.timestamps[from];
        self.values[to] = self.values[from];
        if !self.histograms.is_empty() {
            self.histograms.swap(from, to);
        }
        if !self.starts.is_empty() {
            self.starts[to] = self.starts[from];
        }
    }

    fn push_start(&mut self, start_ms: i64) {
        if !self.starts.is_empty() {
            self.starts.push(start_ms);
        } else if start_ms != 0 {
            self.starts.resize(self.timestamps.len(), 0);
            self.starts.push(start_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_columns_appear_with_their_first_value() {
        let mut columns = Columns::default();
        columns.push_float(1, 0, 1.5);
        assert!(columns.histograms.is_empty() && columns.starts.is_empty());
        columns.push_histogram(2, 1, Arc::new(FloatHistogram { sum: 4.0, ..Default::default() }));
        columns.push_float(3, 0, 2.5);
        assert_eq!(columns.values, [1.5, 4.0, 2.5]);
        assert_eq!(columns.starts, [0, 1, 0]);
        assert_eq!(columns.histograms.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
        columns.remove(0..1);
        columns.truncate(1);
        assert_eq!(
            (columns.timestamps.as_slice(), columns.starts.as_slice()),
            ([2].as_slice(), [1].as_slice())
        );
    }
}
