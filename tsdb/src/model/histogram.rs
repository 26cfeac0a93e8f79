//! Native histograms, with counts either integer (as scraped) or float (as computed).
//!
//! The bucket layout is Prometheus's: bucket `i` of schema `s` (-4 to 8) covers `(base^(i-1), base^i]` with
//! `base = 2^(2^-s)`; schema -53 takes its upper bounds from `custom_values`, with `+Inf` implied as the last.
//! Counts are absolute in both forms; the delta coding of integers belongs to codecs and the wire alone.

use std::sync::Arc;

/// The schema whose bounds are given by [`Histogram::custom_values`].
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// What is known of a counter reset between a histogram and the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CounterReset {
    /// Nothing: compare the two.
    #[default]
    Unknown = 0,
    /// The counter was reset before this sample.
    Reset = 1,
    /// It wasn't.
    NotReset = 2,
    /// A gauge: resets mean nothing.
    Gauge = 3,
}

/// A run of consecutive buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Gap to the end of the previous span; for the first span, the index of its first bucket (may be negative).
    pub offset: i32,
    /// Number of buckets in the run.
    pub length: u32,
}

/// A bucket count: `u64` or `f64`.
pub trait Count: Copy + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// As a float.
    fn to_f64(self) -> f64;

    /// The number's own bits.
    fn to_bits(self) -> u64;
}

impl Count for u64 {
    #[allow(clippy::cast_precision_loss, reason = "Prometheus converts counts the same way")]
    fn to_f64(self) -> f64 {
        self as f64
    }

    fn to_bits(self) -> u64 {
        self
    }
}

impl Count for f64 {
    fn to_f64(self) -> f64 {
        self
    }

    fn to_bits(self) -> u64 {
        Self::to_bits(self)
    }
}

/// A native histogram. `positive_buckets.len()` is the sum of `positive_spans`' lengths; likewise negative.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram<C> {
    /// What is known of a reset before this sample.
    pub counter_reset: CounterReset,
    /// Resolution, -4 to 8, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Width of the zero bucket: observations in `[-zero_threshold, zero_threshold]`.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: C,
    /// All observations.
    pub count: C,
    /// Sum of all observed values; the stale marker's bits mark the end of the series.
    pub sum: f64,
    /// Runs of positive buckets.
    pub positive_spans: Vec<Span>,
    /// Runs of negative buckets, by absolute value.
    pub negative_spans: Vec<Span>,
    /// Absolute counts of positive buckets.
    pub positive_buckets: Vec<C>,
    /// Absolute counts of negative buckets.
    pub negative_buckets: Vec<C>,
    /// Upper bounds for [`CUSTOM_BUCKETS_SCHEMA`], ascending, without `+Inf`; shared, since they seldom change.
    pub custom_values: Option<Arc<[f64]>>,
}

/// A histogram as clients send it.
pub type IntHistogram = Histogram<u64>;
/// A histogram as PromQL computes with it.
pub type FloatHistogram = Histogram<f64>;

impl<C: Count> Histogram<C> {
    /// The same histogram with float counts.
    pub fn to_float(&self) -> FloatHistogram {
        let floats = |counts: &[C]| counts.iter().map(|c| c.to_f64()).collect();
        FloatHistogram {
            counter_reset: self.counter_reset,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count.to_f64(),
            count: self.count.to_f64(),
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            negative_spans: self.negative_spans.clone(),
            positive_buckets: floats(&self.positive_buckets),
            negative_buckets: floats(&self.negative_buckets),
            custom_values: self.custom_values.clone(),
        }
    }

    /// Positive buckets: index and count, ascending.
    pub fn positive(&self) -> impl Iterator<Item = (i32, C)> {
        bucket_indexes(&self.positive_spans).zip(self.positive_buckets.iter().copied())
    }

    /// Negative buckets: index by absolute value and count, ascending by index.
    pub fn negative(&self) -> impl Iterator<Item = (i32, C)> {
        bucket_indexes(&self.negative_spans).zip(self.negative_buckets.iter().copied())
    }

    /// Whether bounds are custom.
    pub fn has_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }
}

/// The indexes of the buckets that `spans` cover. Spans from outside may leave the range of `i32`: their indexes wrap.
pub fn bucket_indexes(spans: &[Span]) -> impl Iterator<Item = i32> {
    spans
        .iter()
        .scan(0i32, |next, span| {
            let first = next.wrapping_add(span.offset);
            *next = first.wrapping_add(span.length.cast_signed());
            Some((0..span.length).map(move |i| first.wrapping_add(i.cast_signed())))
        })
        .flatten()
}
