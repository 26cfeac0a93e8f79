//! What can be said of the observations in a native histogram.

use tsdb::model::FloatHistogram;

use super::bounds::{Bucket, buckets};
use crate::eval::number::{Partial, Sum};

/// The mean of observations; NaN of none.
pub fn average(histogram: &FloatHistogram) -> f64 {
    histogram.sum / histogram.count
}

/// Standard deviation, as [`variance`].
pub fn deviation(histogram: &FloatHistogram) -> f64 {
    variance(histogram).sqrt()
}

/// Variance, all of a bucket's observations taken to lie in its middle: the geometric one of exponential buckets, the
/// arithmetic one of custom buckets, 0 in the zero bucket.
pub fn variance(histogram: &FloatHistogram) -> f64 {
    let mean = average(histogram);
    let mut squares = Sum::EMPTY;
    for bucket in buckets(histogram) {
        let middle = if histogram.has_custom_buckets() {
            f64::midpoint(bucket.upper, bucket.lower)
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            (bucket.upper * bucket.lower).sqrt().copysign(bucket.upper)
        };
        let distance = middle - mean;
        squares.add(bucket.count * distance * distance);
    }
    squares.value() / histogram.count
}

/// What observations of NaN did to a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NanObservations {
    /// Nothing: there are none.
    None,
    /// They moved it up.
    Skewed,
    /// The quantile lies among them.
    Reached,
}

/// The `phi`-quantile: interpolated exponentially in exponential buckets, linearly in custom and zero buckets.
/// `-Inf` below 0, `+Inf` above 1, NaN for NaN and of nothing.
pub fn quantile(phi: f64, histogram: &FloatHistogram) -> (f64, NanObservations) {
    let nothing = |value| (value, NanObservations::None);
    if phi < 0.0 {
        return nothing(f64::NEG_INFINITY);
    }
    if phi > 1.0 {
        return nothing(f64::INFINITY);
    }
    if histogram.count == 0.0 || phi.is_nan() {
        return nothing(f64::NAN);
    }
    // Observations of NaN are counted, but lie in no bucket: ranks are then right from below only.
    let nans = histogram.sum.is_nan();
    let from_below = nans || phi < 0.5;
    let rank = if from_below { phi * histogram.count } else { (1.0 - phi) * histogram.count };
    let mut all = buckets(histogram);
    if !from_below {
        all.reverse();
    }
    let Some(last) = all.last().copied() else {
        return if nans { (f64::NAN, NanObservations::Reached) } else { nothing(f64::NAN) };
    };
    let mut count = 0.0;
    let mut bucket = last;
    for candidate in all {
        bucket = candidate;
        count += bucket.count;
        if count >= rank {
            break;
        }
    }
    let told = if nans { NanObservations::Skewed } else { NanObservations::None };
    if histogram.has_custom_buckets() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, told);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, told);
        }
    } else {
        bucket = one_sided(bucket, histogram);
    }
    let count = count.min(histogram.count);
    if count < rank {
        // Without observations of NaN it takes buckets with less than nothing in them to get here.
        return if nans { (f64::NAN, NanObservations::Reached) } else { nothing(bucket.upper) };
    }
    let inside = if from_below { rank - (count - bucket.count) } else { count - rank };
    let share = inside / bucket.count;
    let linear = histogram.has_custom_buckets() || (bucket.lower <= 0.0 && bucket.upper >= 0.0);
    let value = if linear {
        bucket.lower + (bucket.upper - bucket.lower) * share
    } else {
        let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
        if bucket.lower > 0.0 {
            (lower + (upper - lower) * share).exp2()
        } else {
            -(upper + (lower - upper) * (1.0 - share)).exp2()
        }
    };
    (value, told)
}

/// A zero bucket beside buckets of one sign only is taken to hold values of that sign.
fn one_sided(mut bucket: Bucket, histogram: &FloatHistogram) -> Bucket {
    if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
        let filled = |counts: &[f64]| !counts.is_empty();
        let (negative, positive) = (filled(&histogram.negative_buckets), filled(&histogram.positive_buckets));
        if positive && !negative {
            bucket.lower = 0.0;
        } else if negative && !positive {
            bucket.upper = 0.0;
        }
    }
    bucket
}

/// The share of observations between `lower` and `upper`; NaN of nothing or for NaN bounds.
pub fn fraction(lower: f64, upper: f64, histogram: &FloatHistogram) -> f64 {
    let custom = histogram.has_custom_buckets();
    let all: Vec<Bucket> = buckets(histogram)
        .into_iter()
        .map(|bucket| if custom { bucket } else { one_sided(bucket, histogram) })
        .collect();
    fraction_of(lower, upper, &all, histogram.count, custom)
}

/// [`fraction`] over buckets by ascending bounds; `linear` buckets are custom or classic ones.
pub fn fraction_of(lower: f64, upper: f64, buckets: &[Bucket], total: f64, linear: bool) -> f64 {
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets, total, linear) - rank_of(lower, buckets, total, linear)) / total
}

/// How many observations lie below `value`.
fn rank_of(value: f64, buckets: &[Bucket], total: f64, linear: bool) -> f64 {
    let mut rank = 0.0;
    for bucket in buckets {
        if bucket.lower >= value {
            return f64::min(rank, total);
        }
        if bucket.upper > value {
            return f64::min(rank + bucket.count * share_below(value, bucket, linear), total);
        }
        rank += bucket.count;
    }
    // Observations of NaN are part of the total, and lie below nothing.
    rank.min(total)
}

/// The share of a bucket's observations below `value`, which lies inside.
fn share_below(value: f64, bucket: &Bucket, linear: bool) -> f64 {
    let mut lower = bucket.lower;
    if linear && lower == f64::NEG_INFINITY {
        // The lowest bucket is taken to begin at 0 if it ends above; else nothing is known of where values lie.
        if bucket.upper <= 0.0 {
            return 1.0;
        }
        lower = 0.0;
        if value <= lower {
            return 0.0;
        }
    }
    if bucket.upper == f64::INFINITY {
        return 0.0;
    }
    if linear || (lower <= 0.0 && bucket.upper >= 0.0) {
        return (value - lower) / (bucket.upper - lower);
    }
    let [lower, upper, value_log] = [lower, bucket.upper, value].map(|v| v.abs().log2());
    if value > 0.0 {
        (value_log - lower) / (upper - lower)
    } else {
        1.0 - (value_log - upper) / (lower - upper)
    }
}

#[cfg(test)]
mod tests {
    use tsdb::model::Span;

    use super::*;

    fn histogram(counts: &[f64], sum: f64) -> FloatHistogram {
        FloatHistogram {
            count: counts.iter().sum(),
            sum,
            positive_spans: vec![Span { offset: 0, length: u32::try_from(counts.len()).unwrap() }],
            positive_buckets: counts.to_vec(),
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn quantiles_interpolate_exponentially() {
        let median = quantile(0.5, &histogram(&[1.0, 2.0, 1.0], 5.0)).0;
        assert!((median - std::f64::consts::SQRT_2).abs() < 1e-12);
    }

    #[test]
    fn fractions_count_whole_buckets() {
        assert_eq!(fraction(1.0, 2.0, &histogram(&[1.0, 2.0, 1.0], 5.0)), 0.5);
        assert_eq!(fraction(2.0, 1.0, &histogram(&[1.0], 5.0)), 0.0);
    }

    #[test]
    fn nan_observations_are_told() {
        let mut with_nan = histogram(&[1.0, 2.0, 1.0], f64::NAN);
        with_nan.count += 4.0;
        assert_eq!(quantile(0.1, &with_nan).1, NanObservations::Skewed);
        assert_eq!(quantile(0.9, &with_nan).1, NanObservations::Reached);
    }
}
