//! Exemplars of series.
//!
//! ```text
//! exemplar: | ref: signed varint | time: signed varint | value f64 | length: unsigned varint | labels |
//! ```
//! Ref and timestamp are differences to the exemplar before, the first to 0; labels are as [`Labels::as_bytes`]
//! gives them.

use super::Times;
use super::bytes::{Rest, put_bytes, put_f64, put_series, put_timestamp};
use super::entries::{Decode, Entries};
use crate::Result;
use crate::db::Exemplar;
use crate::head::SeriesRef;
use crate::model::Labels;

/// Writes exemplars.
#[derive(Default)]
pub struct ExemplarsWriter {
    bytes: Vec<u8>,
    series: u64,
    timestamp_ms: i64,
    times: Times,
}

impl ExemplarsWriter {
    /// Adds an exemplar of a series.
    pub fn push(&mut self, series: SeriesRef, exemplar: &Exemplar) {
        put_series(&mut self.bytes, &mut self.series, series);
        put_timestamp(&mut self.bytes, &mut self.timestamp_ms, exemplar.timestamp_ms);
        put_f64(&mut self.bytes, exemplar.value);
        put_bytes(&mut self.bytes, exemplar.labels.as_bytes());
        self.times.add(exemplar.timestamp_ms);
    }

    /// The record so far.
    pub fn payload(&self) -> &[u8] {
        &self.bytes
    }

    /// Least and greatest timestamp, in milliseconds.
    pub fn times_ms(&self) -> (i64, i64) {
        (self.times.0, self.times.1)
    }

    /// Whether there is no exemplar.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets all exemplars, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::default() };
    }
}

/// Reads exemplars.
pub type Exemplars<'a> = Entries<'a, Previous>;

/// What the next exemplar is read against.
#[derive(Default)]
pub struct Previous {
    series: u64,
    timestamp_ms: i64,
}

impl<'a> Decode<'a> for Previous {
    type Entry = (SeriesRef, Exemplar);
    const WHAT: &'static str = "WAL record of exemplars";

    fn decode(&mut self, rest: &mut Rest<'a>) -> Result<Self::Entry> {
        let series = rest.series(&mut self.series)?;
        let timestamp_ms = rest.timestamp(&mut self.timestamp_ms)?;
        let value = rest.f64()?;
        let labels = Labels::from_bytes(rest.length_and_bytes()?)?;
        Ok((series, Exemplar { timestamp_ms, value, labels }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exemplars_round_trip(all in prop::collection::vec((any::<u64>(), any::<i64>(), -1e9..1e9, "[a-z]{1,9}"), 0..20)) {
            let all: Vec<_> = all
                .into_iter()
                .map(|(series, timestamp_ms, value, id)| {
                    let labels = Labels::from_sorted([("trace_id", id.as_str())]);
                    (SeriesRef::from_u64(series), Exemplar { timestamp_ms, value, labels })
                })
                .collect();
            let mut writer = ExemplarsWriter::default();
            all.iter().for_each(|(series, exemplar)| writer.push(*series, exemplar));
            let read: Vec<_> = Exemplars::new(writer.payload()).map(Result::unwrap).collect();
            prop_assert_eq!(&read, &all);
            prop_assert_eq!(writer.times_ms().0, all.iter().map(|(_, e)| e.timestamp_ms).min().unwrap_or(i64::MAX));
            writer.clear();
            prop_assert!(writer.is_empty());
        }

        #[test]
        fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Exemplars::new(&bytes).count() <= bytes.len());
        }
    }
}
