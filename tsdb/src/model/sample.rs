//! One sample: a float or a histogram at a time, with an optional start time.

use std::sync::Arc;

use super::{FloatHistogram, IntHistogram};

/// The NaN by which Prometheus marks that a series has ended. Only these bits are a stale marker.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The stale marker as a value.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `value` is the stale marker; any other NaN is a sample.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// A sample's value. Histograms are shared: copying a sample never copies buckets.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A float; a stale marker is one of them.
    Float(f64),
    /// A native histogram with integer counts.
    Int(Arc<IntHistogram>),
    /// A native histogram with float counts.
    Histogram(Arc<FloatHistogram>),
}

impl Value {
    /// Whether this marks the end of a series: a stale float, or a histogram whose sum is the stale marker.
    pub fn is_stale(&self) -> bool {
        is_stale(match self {
            Self::Float(v) => *v,
            Self::Int(h) => h.sum,
            Self::Histogram(h) => h.sum,
        })
    }
}

/// A value at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// When the counter started, in milliseconds since the Unix epoch; 0 = unknown.
    pub start_ms: i64,
    /// The value.
    pub value: Value,
}

impl Sample {
    /// A float sample without a start time.
    pub fn float(timestamp_ms: i64, value: f64) -> Self {
        Self { timestamp_ms, start_ms: 0, value: Value::Float(value) }
    }
}
