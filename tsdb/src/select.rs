//! Matchers + range → series: the one shape in which stored data reaches whoever asks.
//!
//! A [`Series`] carries encoded chunks, not samples, so that answers cost little until somebody decodes them, and so
//! that they can travel between nodes as they are. Chunks may overlap (late samples, replicas); decoding merges them:
//! one sample a timestamp, chosen by [`crate::model::prefer`] whatever the order of chunks.

mod decode;
mod merge;
mod resets;

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use crate::chunk::Encoding;
use crate::model::{Labels, Matcher};
use crate::prefetch;

pub use merge::merge_series;

/// A question to storage.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// All must match; at least one must refuse the empty string.
    pub matchers: Vec<Matcher>,
    /// Timestamps wanted, in milliseconds, both ends included. Chunks that overlap come whole.
    pub range_ms: RangeInclusive<i64>,
    /// Only this share of the series.
    pub shard: Option<Shard>,
}

/// The series whose `hash64 % count == index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// 0 to `count - 1`.
    pub index: u64,
    /// At least 1.
    pub count: u64,
}

/// What is looked at of the series of a [`Select`]: the rest may be left out. By default everything is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Names of the labels that are looked at; `None` = all.
    pub labels: Option<Vec<Arc<str>>>,
    /// Whether series may come in any order, instead of by their labels.
    pub any_order: bool,
    /// Whether the newest sample in the range is enough.
    pub newest: bool,
    /// Only with `newest`: which of these samples are wanted.
    pub best: Option<Best>,
}

/// The series with the greatest or least newest samples, of all that are selected. Each that is among them when series
/// are looked at in their order is wanted, also where a later one takes its place; NaN is wanted least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Best {
    /// How many, at least 1.
    pub count: usize,
    /// Whether the greatest.
    pub greatest: bool,
}

/// One encoded run of samples of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Timestamp of the first sample, in milliseconds.
    pub min_ms: i64,
    /// Timestamp of the last sample, in milliseconds: included.
    pub max_ms: i64,
    /// How `data` is encoded.
    pub encoding: Encoding,
    /// The samples, without length or checksum: possibly a slice of a memory map.
    pub data: Bytes,
}

/// One series of an answer.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// By `min_ms`; may overlap.
    pub chunks: Vec<Chunk>,
    /// Deleted ranges, in milliseconds, both ends included: samples in them don't exist.
    pub deleted_ms: Vec<RangeInclusive<i64>>,
    /// The newest sample, a float: timestamp (ms) and value. Only where no other was asked for, and then in place of
    /// chunks.
    pub newest: Option<(i64, f64)>,
}

impl Series {
    /// Fetches the memory of its chunks, which are decoded in a moment.
    pub fn prefetch(&self) {
        self.chunks.iter().for_each(|chunk| prefetch::bytes(&chunk.data));
    }
}
