//! Where buckets lie.

use tsdb::model::FloatHistogram;

use super::table::UPPER_BOUNDS;

/// A bucket with its bounds. Which of them belongs to it: the upper one if positive, the lower one if negative, both
/// for the zero bucket and for custom buckets that begin at `-Inf`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Observations.
    pub count: f64,
}

/// The finest exponential schema, whose bounds the table has.
const FINEST_SCHEMA: i32 = 8;

/// Upper bound of bucket `index` of an exponential schema (-4 to 8): `2^(index * 2^-schema)`, to the bit as Prometheus has
/// it.
///
/// The whole part of the exponent is applied exactly, so that bounds which are powers of two are exactly that. The
/// bucket that ends beyond the greatest float ends with it.
pub fn upper_bound(index: i32, schema: i32) -> f64 {
    // A bound is a fraction of at least 0.5 times a power of two.
    let (whole, fraction) = if schema <= 0 {
        (i64::from(index) << (-schema).min(8), 0.5)
    } else {
        let schema = schema.min(FINEST_SCHEMA);
        let (index, parts) = (i64::from(index), 1i64 << schema);
        let place = index.rem_euclid(parts) << (FINEST_SCHEMA - schema);
        (index.div_euclid(parts), UPPER_BOUNDS[place as usize])
    };
    if whole == 1024 && fraction == 0.5 {
        return f64::MAX;
    }
    let scale = |exponent: i64| 2f64.powi(exponent.clamp(-1074, 1024) as i32);
    // In two steps, so that bounds near the smallest floats don't vanish on the way.
    2.0 * fraction * scale(whole / 2) * scale(whole - whole / 2)
}

/// Bounds of custom bucket `index`: the first begins at `-Inf`, the last ends at `+Inf`.
pub fn custom_bounds(index: i32, bounds: &[f64]) -> (f64, f64) {
    let at = |index: i32| usize::try_from(index).ok().and_then(|i| bounds.get(i)).copied();
    let lower = if index <= 0 { f64::NEG_INFINITY } else { at(index - 1).unwrap_or(f64::INFINITY) };
    (lower, at(index).unwrap_or(f64::INFINITY))
}

/// Buckets that hold something, by ascending bounds. As in Prometheus, a zero bucket with less than nothing in it (of a
/// difference, or a histogram negated) is left out, and the zero bucket takes its width from buckets that it reaches into.
pub fn buckets(histogram: &FloatHistogram) -> Vec<Bucket> {
    let filled = |(_, count): &(i32, f64)| *count != 0.0;
    if histogram.has_custom_buckets() {
        let bounds = histogram.custom_values.as_deref().unwrap_or_default();
        return histogram
            .positive()
            .filter(filled)
            .map(|(index, count)| {
                let (lower, upper) = custom_bounds(index, bounds);
                Bucket { lower, upper, count }
            })
            .collect();
    }
    let exponential = |(index, count): (i32, f64)| Bucket {
        lower: upper_bound(index - 1, histogram.schema),
        upper: upper_bound(index, histogram.schema),
        count,
    };
    let mut all: Vec<Bucket> = histogram
        .negative()
        .filter(filled)
        .map(|bucket| {
            let Bucket { lower, upper, count } = exponential(bucket);
            Bucket { lower: -upper, upper: -lower, count }
        })
        .collect();
    all.reverse();
    let zero = histogram.zero_threshold;
    all.iter_mut().filter(|bucket| bucket.upper > -zero).for_each(|bucket| bucket.upper = -zero);
    if histogram.zero_count > 0.0 {
        let (lower, upper) = (-zero, zero);
        all.push(Bucket { lower, upper, count: histogram.zero_count });
    }
    all.extend(
        histogram
            .positive()
            .filter(filled)
            .map(exponential)
            .map(|bucket| Bucket { lower: bucket.lower.max(zero), ..bucket }),
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_exact() {
        assert_eq!(upper_bound(0, 0), 1.0);
        assert_eq!(upper_bound(3, 0), 8.0);
        assert_eq!(upper_bound(-2, 0), 0.25);
        assert_eq!(upper_bound(2, -1), 16.0);
        assert_eq!(upper_bound(16, 3), 4.0);
        assert_eq!(upper_bound(-8, 3), 0.5);
        assert_eq!(upper_bound(1024, 0), f64::MAX);
        assert_eq!(upper_bound(1025, 0), f64::INFINITY);
        assert_eq!(upper_bound(-1074, 0), f64::from_bits(1));
    }

    #[test]
    fn bounds_between_powers_of_two_are_those_of_prometheus_to_the_bit() {
        for (index, schema, bound) in [
            (-1, 1, 0.707_106_781_186_547_5),
            (1, 1, std::f64::consts::SQRT_2.next_down()),
            (1, 2, 1.189_207_115_002_721),
            (-1, 2, 0.840_896_415_253_714_4),
            (3, 8, 1.008_155_898_118_417_6),
            (255, 8, 1.994_592_112_170_939_6),
            (257, 8, 2.005_422_550_100_405),
        ] {
            assert_eq!(upper_bound(index, schema).to_bits(), f64::to_bits(bound), "{index} of {schema}");
        }
        for schema in 1..=FINEST_SCHEMA {
            for index in -600..600 {
                // Every second bucket of a schema ends where one of the next coarser ends.
                assert_eq!(
                    upper_bound(2 * index, schema).to_bits(),
                    upper_bound(index, schema - 1).to_bits()
                );
                assert!(upper_bound(index, schema) < upper_bound(index + 1, schema));
            }
        }
    }

    #[test]
    fn custom_buckets_reach_from_end_to_end() {
        assert_eq!(custom_bounds(0, &[5.0, 10.0]), (f64::NEG_INFINITY, 5.0));
        assert_eq!(custom_bounds(2, &[5.0, 10.0]), (10.0, f64::INFINITY));
    }
}
