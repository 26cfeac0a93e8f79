//! One sample: a float or a histogram at a time, with an optional start time.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Count, CounterReset, FloatHistogram, Histogram, IntHistogram};

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

    /// Whether two values are the same bit by bit: NaNs by their bits, histograms whatever their buckets' layout.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Float(_), _) | (_, Self::Float(_)) => false,
            (a, b) => prefer_value(a, b).is_eq(),
        }
    }

    /// Appends the value's canonical form: equal words exactly when two values are the same, whatever chunk and
    /// bucket layout they came in. Empty buckets, a guess about a reset and all of a stale histogram but its
    /// staleness say nothing and are left out; that a histogram is a gauge counts.
    pub fn canonical(&self, words: &mut Vec<u64>) {
        match self {
            Self::Float(value) => words.extend([0, value.to_bits()]),
            Self::Int(histogram) => canonical_histogram(1, histogram, words),
            Self::Histogram(histogram) => canonical_histogram(2, histogram, words),
        }
    }
}

/// A histogram's canonical form behind its kind.
fn canonical_histogram<C: Count>(kind: u64, histogram: &Histogram<C>, words: &mut Vec<u64>) {
    words.extend([kind, histogram.sum.to_bits()]);
    if is_stale(histogram.sum) {
        return;
    }
    let bounds = histogram.custom_values.as_deref().unwrap_or_default();
    words.extend([
        u64::from(histogram.counter_reset == CounterReset::Gauge),
        i64::from(histogram.schema).cast_unsigned(),
        histogram.zero_threshold.to_bits(),
        histogram.zero_count.to_bits(),
        histogram.count.to_bits(),
        bounds.len() as u64,
    ]);
    words.extend(bounds.iter().map(|bound| bound.to_bits()));
    canonical_buckets(histogram.positive(), words);
    canonical_buckets(histogram.negative(), words);
}

fn canonical_buckets<C: Count>(buckets: impl Iterator<Item = (i32, C)>, words: &mut Vec<u64>) {
    let length_at = words.len();
    words.push(0);
    for (index, count) in buckets.filter(|(_, count)| *count != C::default()) {
        words.extend([i64::from(index).cast_unsigned(), count.to_bits()]);
    }
    words[length_at] = (words.len() - length_at) as u64;
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

/// Which of two samples of one series at one timestamp is kept: `Greater` for the first, `Less` for the second,
/// `Equal` where they are the same sample. A total order over values, so that replicas that see both agree in whatever
/// order they came: what isn't a stale marker before what is, then floats behind histograms, then the greater
/// canonical bits, then the greater start time.
pub fn prefer(a: &Sample, b: &Sample) -> Ordering {
    prefer_value(&a.value, &b.value).then(a.start_ms.cmp(&b.start_ms))
}

/// [`prefer`] for two values without start times.
pub fn prefer_value(a: &Value, b: &Value) -> Ordering {
    if let (Value::Float(a), Value::Float(b)) = (a, b) {
        return prefer_float(*a, *b);
    }
    (!a.is_stale()).cmp(&!b.is_stale()).then_with(|| {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        a.canonical(&mut left);
        b.canonical(&mut right);
        left.cmp(&right)
    })
}

/// [`prefer`] for two floats without start times.
pub fn prefer_float(a: f64, b: f64) -> Ordering {
    (!is_stale(a)).cmp(&!is_stale(b)).then(a.to_bits().cmp(&b.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Span;

    fn histogram(sum: f64, spans: &[(i32, u32)], buckets: &[u64]) -> Value {
        Value::Int(Arc::new(IntHistogram {
            sum,
            positive_spans: spans.iter().map(|&(offset, length)| Span { offset, length }).collect(),
            positive_buckets: buckets.to_vec(),
            ..Default::default()
        }))
    }

    fn at_zero(value: Value) -> Sample {
        Sample { timestamp_ms: 0, start_ms: 0, value }
    }

    #[test]
    fn a_value_wins_over_a_stale_marker_and_greater_bits_over_lesser() {
        assert_eq!(prefer_float(0.0, stale_nan()), Ordering::Greater);
        assert_eq!(prefer_float(stale_nan(), stale_nan()), Ordering::Equal);
        assert_eq!(prefer_float(1.0, 2.0), Ordering::Less);
        assert_eq!(prefer_float(-1.0, 2.0), Ordering::Greater);
        let (float, stale) = (at_zero(Value::Float(1.0)), at_zero(histogram(stale_nan(), &[], &[])));
        assert_eq!(prefer(&float, &stale), Ordering::Greater);
        assert_eq!(prefer(&float, &at_zero(histogram(1.0, &[], &[]))), Ordering::Less);
        assert_eq!(prefer(&float, &Sample { start_ms: 1, ..float.clone() }), Ordering::Less);
    }

    #[test]
    fn the_same_buckets_in_other_spans_are_the_same_value() {
        let a = at_zero(histogram(1.0, &[(0, 1), (1, 1)], &[3, 4]));
        let b = at_zero(histogram(1.0, &[(-1, 4)], &[0, 3, 0, 4]));
        assert_eq!(prefer(&a, &b), Ordering::Equal);
        let moved = at_zero(histogram(1.0, &[(0, 2)], &[3, 4]));
        assert_ne!(prefer(&a, &moved), Ordering::Equal);
        assert_eq!(prefer(&a, &moved), prefer(&moved, &a).reverse());
    }
}
