//! What reading series would take, told by indexes and by headers of chunks: no sample is decoded for it.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use crate::model::Labels;

/// What is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Series.
    pub series: u64,
    /// Chunks that overlap the range. What several chunks hold alike counts for each.
    pub chunks: u64,
    /// Samples in the range, about: of a chunk that reaches out of it, in proportion to time.
    pub samples: u64,
    /// Bytes of these chunks.
    pub bytes: u64,
}

/// Adds up what is to be read of a range, from several sources: each series counts once.
#[derive(Debug)]
pub struct Scale {
    range_ms: RangeInclusive<i64>,
    /// Hashes of labels.
    seen: HashSet<u64>,
    chunks: u64,
    samples: f64,
    bytes: f64,
}

/// A chunk, as far as it has to be known here. Samples and bytes may be means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outline {
    /// Time of the first sample.
    pub(crate) min_ms: i64,
    /// Time of the last sample.
    pub(crate) max_ms: i64,
    pub(crate) samples: f64,
    pub(crate) bytes: f64,
}

impl Scale {
    /// Nothing yet, of a range of timestamps: milliseconds, both ends included.
    pub fn new(range_ms: RangeInclusive<i64>) -> Self {
        Self { range_ms, seen: HashSet::new(), chunks: 0, samples: 0.0, bytes: 0.0 }
    }

    /// The sum.
    pub fn weight(&self) -> Weight {
        Weight {
            series: self.seen.len() as u64,
            chunks: self.chunks,
            samples: self.samples.round() as u64,
            bytes: self.bytes.round() as u64,
        }
    }

    pub(crate) fn range_ms(&self) -> &RangeInclusive<i64> {
        &self.range_ms
    }

    pub(crate) fn add_series(&mut self, labels: &Labels) {
        self.seen.insert(labels.hash64());
    }

    /// Adds a chunk if it overlaps the range.
    pub(crate) fn add_chunk(&mut self, chunk: Outline) {
        let Outline { min_ms, max_ms, samples, bytes } = chunk;
        let (from_ms, to_ms) = (min_ms.max(*self.range_ms.start()), max_ms.min(*self.range_ms.end()));
        if from_ms > to_ms {
            return;
        }
        let share = if max_ms > min_ms {
            to_ms.abs_diff(from_ms) as f64 / max_ms.abs_diff(min_ms) as f64
        } else {
            1.0
        };
        self.chunks += 1;
        // One that it touches has a sample in it, or might have.
        self.samples += (samples * share).max(samples.min(1.0));
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_weigh_what_of_them_is_in_the_range() {
        let mut scale = Scale::new(100..=200);
        let chunk = |min_ms, max_ms| Outline { min_ms, max_ms, samples: 101.0, bytes: 50.0 };
        for (min_ms, max_ms) in [(0, 99), (201, 300), (100, 200), (50, 150), (200, 200), (i64::MIN, i64::MAX)]
        {
            scale.add_chunk(chunk(min_ms, max_ms));
        }
        let labels = Labels::from_sorted([("a", "b")]);
        scale.add_series(&labels);
        scale.add_series(&labels);
        // All of one, half of another, all of one time, and one sample of all times.
        assert_eq!(scale.weight(), Weight { series: 1, chunks: 4, samples: 254, bytes: 200 });
    }
}
