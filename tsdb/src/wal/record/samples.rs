//! Samples of an append in their order, whatever their types.
//!
//! ```text
//! | floats: unsigned varint | that many bytes: see `floats` | up to the end: see `histograms` |
//! ```
//! Each list has a layout of its own; each histogram says how many floats come before it. A replay that took one list
//! before the other would append the second out of order, and lose what a sample's place says: that a counter was
//! reset before it.

use std::iter::Peekable;

use super::floats::{FloatSample, Floats, FloatsWriter};
use super::histograms::{HistogramSample, Histograms, HistogramsWriter};
use crate::head::SeriesRef;
use crate::model::{Sample, Value};
use crate::varint;
use crate::{Error, Result};

/// Writes samples.
#[derive(Default)]
pub struct SamplesWriter {
    floats: FloatsWriter,
    histograms: HistogramsWriter,
    bytes: Vec<u8>,
}

impl SamplesWriter {
    /// Adds a float.
    #[inline]
    pub fn push_float(&mut self, sample: FloatSample) {
        self.floats.push(sample);
    }

    /// Adds a histogram that comes behind `floats_before` floats; says no to a float.
    #[must_use]
    pub fn push_histogram(&mut self, floats_before: u64, series: SeriesRef, sample: &Sample) -> bool {
        self.histograms.push(floats_before, series, sample)
    }

    /// The floats, where there is no histogram: a record of their own, which costs a scrape nothing.
    pub fn only_floats(&self) -> Option<&FloatsWriter> {
        self.histograms.is_empty().then_some(&self.floats)
    }

    /// Puts the record together, for [`SamplesWriter::payload`].
    pub fn finish(&mut self) {
        self.bytes.clear();
        varint::put(&mut self.bytes, self.floats.payload().len() as u64);
        self.bytes.extend_from_slice(self.floats.payload());
        self.bytes.extend_from_slice(self.histograms.payload());
    }

    /// The record as [`SamplesWriter::finish`] left it.
    pub fn payload(&self) -> &[u8] {
        &self.bytes
    }

    /// Least and greatest timestamp, in milliseconds.
    pub fn times_ms(&self) -> (i64, i64) {
        let (floats, histograms) = (self.floats.times_ms(), self.histograms.times_ms());
        (floats.0.min(histograms.0), floats.1.max(histograms.1))
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.histograms.is_empty()
    }

    /// Forgets all samples, keeping the memory.
    pub fn clear(&mut self) {
        self.floats.clear();
        self.histograms.clear();
        self.bytes.clear();
    }
}

/// A sample of one list or the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Next<F> {
    /// A float.
    Float(F),
    /// A histogram.
    Histogram(HistogramSample),
}

/// Two lists in the order of their append. After an error of one of them, what it says is what is left.
pub struct InOrder<F, H: Iterator> {
    floats: F,
    histograms: Peekable<H>,
    floats_taken: u64,
}

impl<T, F, H> InOrder<F, H>
where
    F: Iterator<Item = Result<T>>,
    H: Iterator<Item = Result<HistogramSample>>,
{
    /// Of lists that were written together.
    pub fn new(floats: F, histograms: H) -> Self {
        Self { floats, histograms: histograms.peekable(), floats_taken: 0 }
    }

    fn next_histogram(&mut self) -> Option<Result<Next<T>>> {
        Some(self.histograms.next()?.map(Next::Histogram))
    }
}

impl<T, F, H> Iterator for InOrder<F, H>
where
    F: Iterator<Item = Result<T>>,
    H: Iterator<Item = Result<HistogramSample>>,
{
    type Item = Result<Next<T>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let is_due = match self.histograms.peek() {
            Some(Ok(_)) if planted::is(planted::Bug::FloatsReplayedFirst) => false,
            Some(Ok(next)) => next.floats_before <= self.floats_taken,
            Some(Err(_)) => true,
            None => false,
        };
        if is_due {
            return self.next_histogram();
        }
        let Some(float) = self.floats.next() else { return self.next_histogram() };
        self.floats_taken += 1;
        Some(float.map(Next::Float))
    }
}

/// Reads a record's samples.
///
/// # Errors
/// [`Error::Corrupt`] when the floats are longer than the record; the iterator's, where a sample can't be read.
pub fn read(payload: &[u8]) -> Result<impl Iterator<Item = Result<(SeriesRef, Sample)>> + use<'_>> {
    let mut rest = payload;
    let cut_short = || Error::corrupt("WAL record of samples", 0, "it is cut short");
    let length = varint::take(&mut rest).and_then(|length| usize::try_from(length).ok());
    let (floats, histograms) =
        length.and_then(|length| rest.split_at_checked(length)).ok_or_else(cut_short)?;
    Ok(InOrder::new(Floats::new(floats), Histograms::new(histograms)).map(|next| {
        Ok(match next? {
            Next::Float(FloatSample { series, timestamp_ms, start_ms, value }) => {
                (series, Sample { timestamp_ms, start_ms, value: Value::Float(value) })
            }
            Next::Histogram(HistogramSample { series, sample, .. }) => (series, sample),
        })
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::IntHistogram;

    fn sample(timestamp_ms: i64, is_float: bool) -> Sample {
        let count = timestamp_ms.unsigned_abs();
        let histogram = IntHistogram { count, zero_count: count, ..Default::default() };
        let value = if is_float { Value::Float(0.5) } else { Value::Int(Arc::new(histogram)) };
        Sample { timestamp_ms, start_ms: 0, value }
    }

    fn write(all: &[(SeriesRef, Sample)]) -> SamplesWriter {
        let mut writer = SamplesWriter::default();
        let mut floats = 0;
        for (series, sample) in all {
            let Sample { timestamp_ms, start_ms, .. } = *sample;
            if let Value::Float(value) = sample.value {
                writer.push_float(FloatSample { series: *series, timestamp_ms, start_ms, value });
                floats += 1;
            } else {
                assert!(writer.push_histogram(floats, *series, sample));
            }
        }
        writer.finish();
        writer
    }

    proptest! {
        #[test]
        fn samples_of_all_types_keep_their_order(
            all in prop::collection::vec((0..5u64, any::<i64>(), any::<bool>()), 0..40),
        ) {
            let all: Vec<_> =
                all.into_iter().map(|(s, t, float)| (SeriesRef::from_u64(s), sample(t, float))).collect();
            let writer = write(&all);
            let found: Vec<_> = read(writer.payload()).unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(&found, &all);
            prop_assert_eq!(writer.only_floats().is_some(), all.iter().all(|(_, s)| matches!(s.value, Value::Float(_))));
            let times = all.iter().map(|(_, s)| s.timestamp_ms);
            if let (Some(min), Some(max)) = (times.clone().min(), times.max()) {
                prop_assert_eq!(writer.times_ms(), (min, max));
            }
        }

        #[test]
        fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(0..40u8, 0..200)) {
            if let Ok(samples) = read(&bytes) {
                prop_assert!(samples.count() <= bytes.len());
            }
        }
    }
}
