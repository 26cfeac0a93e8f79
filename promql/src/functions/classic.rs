//! Classic histograms: one series for each upper bound (`le`), counts cumulative.

use crate::functions::histogram::{Bucket, fraction_of};

/// A classic bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassicBucket {
    /// `le`
    pub upper: f64,
    /// Observations up to there, those of lower buckets included.
    pub count: f64,
}

/// Differences between neighbours below this share of their sum are rounding, not a broken histogram.
const SMALL_DIFFERENCE: f64 = 1e-12;

/// The `phi`-quantile by linear interpolation, and whether counts had to be made monotonic.
///
/// Buckets come in any order and are changed. NaN without a `+Inf` bucket or without observations; the upper bound
/// of the last finite bucket where the quantile lies above it.
pub fn quantile(phi: f64, buckets: &mut Vec<ClassicBucket>) -> (f64, bool) {
    if phi.is_nan() {
        return (f64::NAN, false);
    }
    if phi < 0.0 {
        return (f64::NEG_INFINITY, false);
    }
    if phi > 1.0 {
        return (f64::INFINITY, false);
    }
    if !unite(buckets) {
        return (f64::NAN, false);
    }
    let forced = make_monotonic(buckets);
    let [.., before_last, last] = buckets.as_slice() else { return (f64::NAN, false) };
    if last.count == 0.0 {
        return (f64::NAN, false);
    }
    let rank = phi * last.count;
    let finite = &buckets[..buckets.len() - 1];
    let value = match finite.iter().position(|bucket| bucket.count >= rank) {
        None => before_last.upper,
        Some(0) if buckets[0].upper <= 0.0 => buckets[0].upper,
        Some(0) => buckets[0].upper * (rank / buckets[0].count),
        Some(at) => {
            let (below, bucket) = (buckets[at - 1], buckets[at]);
            below.upper + (bucket.upper - below.upper) * ((rank - below.count) / (bucket.count - below.count))
        }
    };
    (value, forced)
}

/// The share of observations between two values, by linear interpolation. Buckets come in any order and are changed.
pub fn fraction(lower: f64, upper: f64, buckets: &mut Vec<ClassicBucket>) -> f64 {
    if !unite(buckets) {
        return f64::NAN;
    }
    let mut below = ClassicBucket { upper: f64::NEG_INFINITY, count: 0.0 };
    let mut separate = Vec::with_capacity(buckets.len());
    for bucket in buckets.iter() {
        separate.push(Bucket { lower: below.upper, upper: bucket.upper, count: bucket.count - below.count });
        below = *bucket;
    }
    fraction_of(lower, upper, &separate, below.count, true)
}

/// Sorts buckets and unites those of equal bounds (written differently); tells whether the last one is `+Inf`.
fn unite(buckets: &mut Vec<ClassicBucket>) -> bool {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    buckets.dedup_by(|next, kept| {
        let same = next.upper == kept.upper;
        if same {
            kept.count += next.count;
        }
        same
    });
    buckets.last().is_some_and(|last| last.upper == f64::INFINITY)
}

/// Lifts counts that are below their predecessor's; tells whether one was by more than rounding.
fn make_monotonic(buckets: &mut [ClassicBucket]) -> bool {
    let mut forced = false;
    let Some((first, rest)) = buckets.split_first_mut() else { return false };
    let mut previous = first.count;
    for bucket in rest {
        if nearly_equal(previous, bucket.count) {
            bucket.count = previous;
        } else if bucket.count < previous {
            bucket.count = previous;
            forced = true;
        } else {
            previous = bucket.count;
        }
    }
    forced
}

#[allow(clippy::float_cmp, reason = "equal counts need no tolerance, infinite ones have none")]
fn nearly_equal(a: f64, b: f64) -> bool {
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < SMALL_DIFFERENCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < SMALL_DIFFERENCE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<ClassicBucket> {
        pairs.iter().map(|(upper, count)| ClassicBucket { upper: *upper, count: *count }).collect()
    }

    #[test]
    fn quantiles_interpolate_linearly_from_zero() {
        let mut b = buckets(&[(f64::INFINITY, 3.0), (2.0, 1.0), (4.0, 2.0), (6.0, 3.0), (0.0, 0.0)]);
        assert_eq!(quantile(0.5, &mut b), (3.0, false));
        assert_eq!(quantile(1.0, &mut buckets(&[(1.0, 1.0), (f64::INFINITY, 2.0)])).0, 1.0);
    }

    #[test]
    fn broken_counts_are_lifted_and_told() {
        let broken =
            [(0.1, 20.0), (1.0, 10.0), (10.0, 50.0), (100.0, 40.0), (1000.0, 90.0), (f64::INFINITY, 80.0)];
        let (value, forced) = quantile(0.99, &mut buckets(&broken));
        assert!((value - 979.75).abs() < 1e-9 && forced);
    }

    #[test]
    fn without_an_infinite_bucket_nothing_is_known() {
        assert!(quantile(0.5, &mut buckets(&[(1.0, 1.0)])).0.is_nan());
        assert!(fraction(0.0, 1.0, &mut buckets(&[(1.0, 1.0)])).is_nan());
    }
}
