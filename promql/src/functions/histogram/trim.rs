//! Cutting a histogram at a value: `</` keeps what is below, `>/` what is above.
//!
//! Buckets on the kept side stay, those on the other side go, and the one that is cut keeps a share by interpolation:
//! exponential buckets by their exponent, custom and zero buckets linearly. Nobody knows how observations lie in a bucket
//! that is open to one side: only a lowest bucket with a positive bound is taken to begin at 0, all else that is cut
//! goes as a whole. Count and sum are those of what is left, every observation taken to lie in the middle of its bucket;
//! where nothing was cut off they stay what they were.

use tsdb::model::FloatHistogram;

use super::bounds::{Bucket, custom_bounds, upper_bound};
use super::sparse::{Buckets, Sparse};
use crate::eval::number::{Partial, Sum};

/// Which side of the value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Observations up to the value.
    Below,
    /// Observations from the value on.
    Above,
}

/// `histogram` without its observations on the other side of `at`.
pub fn trimmed(histogram: &FloatHistogram, at: f64, keep: Keep) -> FloatHistogram {
    let mut sparse = Sparse::from(histogram);
    let mut cut = Cut { at, keep, count: Sum::EMPTY, sum: Sum::EMPTY, changed: false };
    let signs = (!sparse.positive.is_empty(), !sparse.negative.is_empty());
    if sparse.is_custom() {
        let bounds = sparse.bounds.clone().unwrap_or_default();
        cut.buckets(&mut sparse.positive, |index, count| {
            let (lower, upper) = custom_bounds(index, &bounds);
            Part::of_custom(Bucket { lower, upper, count })
        });
    } else {
        let schema = sparse.schema;
        let exponential = |index: i32, count: f64| Bucket {
            lower: upper_bound(index - 1, schema),
            upper: upper_bound(index, schema),
            count,
        };
        cut.buckets(&mut sparse.positive, |index, count| Part::Exponential(exponential(index, count)));
        cut.buckets(&mut sparse.negative, |index, count| {
            let Bucket { lower, upper, count } = exponential(index, count);
            Part::Exponential(Bucket { lower: -upper, upper: -lower, count })
        });
    }
    let zeros = sparse.zero_count.value();
    if zeros > 0.0 {
        let width = sparse.zero_threshold;
        // A zero bucket beside buckets of one sign only holds values of that sign.
        let (lower, upper) = match signs {
            (true, false) => (0.0, width),
            (false, true) => (-width, 0.0),
            _ => (-width, width),
        };
        sparse.zero_count = Sum::of(cut.part(&Part::Linear(Bucket { lower, upper, count: zeros })));
    }
    if !cut.changed {
        return histogram.clone();
    }
    sparse.count = cut.count;
    sparse.sum = cut.sum;
    sparse.fold()
}

struct Cut {
    at: f64,
    keep: Keep,
    count: Sum,
    sum: Sum,
    changed: bool,
}

impl Cut {
    fn buckets(&mut self, buckets: &mut Buckets, part: impl Fn(i32, f64) -> Part) {
        for (index, count) in buckets {
            *count = Sum::of(self.part(&part(*index, count.value())));
        }
    }

    /// What is left of a bucket, which is added to the totals.
    fn part(&mut self, part: &Part) -> f64 {
        let bucket = part.bucket();
        let (all, some) = match self.keep {
            Keep::Below => (bucket.upper <= self.at, bucket.lower < self.at),
            Keep::Above => (bucket.lower >= self.at, bucket.upper > self.at),
        };
        let (left, middle) = if all {
            (bucket.count, part.middle(bucket.lower, bucket.upper))
        } else if some {
            part.cut(self.at, self.keep)
        } else {
            (0.0, 0.0)
        };
        self.changed |= left.to_bits() != bucket.count.to_bits();
        if left != 0.0 {
            self.count.add(left);
            self.sum.add(left * middle);
        }
        left
    }
}

/// A bucket, and how observations lie in it.
#[derive(Clone, Copy, Debug)]
enum Part {
    Exponential(Bucket),
    Linear(Bucket),
    /// From `-Inf` to a bound, or to `+Inf`.
    Lowest(Bucket),
    /// From a bound to `+Inf`.
    Highest(Bucket),
}

impl Part {
    fn of_custom(bucket: Bucket) -> Self {
        if bucket.lower == f64::NEG_INFINITY {
            Self::Lowest(bucket)
        } else if bucket.upper == f64::INFINITY {
            Self::Highest(bucket)
        } else {
            Self::Linear(bucket)
        }
    }

    fn bucket(&self) -> Bucket {
        let (Self::Exponential(bucket) | Self::Linear(bucket) | Self::Lowest(bucket) | Self::Highest(bucket)) =
            self;
        *bucket
    }

    /// Where observations between two values are taken to lie.
    fn middle(&self, lower: f64, upper: f64) -> f64 {
        match self {
            Self::Exponential(_) => (lower * upper).abs().sqrt().copysign(lower + upper),
            Self::Linear(_) => f64::midpoint(lower, upper),
            Self::Lowest(_) if upper.is_infinite() => 0.0,
            Self::Lowest(_) if upper > 0.0 => upper / 2.0,
            Self::Lowest(_) => upper,
            Self::Highest(_) => lower,
        }
    }

    /// How many observations a cut inside leaves, and their middle.
    fn cut(&self, at: f64, keep: Keep) -> (f64, f64) {
        let Bucket { lower, upper, count } = self.bucket();
        let share_below = match self {
            Self::Linear(_) => (at - lower) / (upper - lower),
            Self::Exponential(_) => {
                let [from, to, cut] = [lower, upper, at].map(|v| v.abs().log2());
                (cut - from) / (to - from)
            }
            Self::Lowest(_) => return lowest(upper, count, at, keep),
            Self::Highest(_) if keep == Keep::Above => return (count, at),
            Self::Highest(_) => return (0.0, 0.0),
        };
        match keep {
            Keep::Below => (count * share_below, self.middle(lower, at)),
            Keep::Above => (count - count * share_below, self.middle(at, upper)),
        }
    }
}

/// [`Part::cut`] of a bucket without a lower bound.
fn lowest(upper: f64, count: f64, at: f64, keep: Keep) -> (f64, f64) {
    let begins_at_zero = upper > 0.0 && upper.is_finite();
    match keep {
        Keep::Below if begins_at_zero && at > 0.0 => (count * at / upper, at / 2.0),
        // All of it may lie below the value.
        Keep::Below if upper <= 0.0 => (count, at),
        Keep::Above if begins_at_zero && at >= 0.0 => (count * (1.0 - at / upper), f64::midpoint(at, upper)),
        // `-Inf` cuts nothing off.
        Keep::Above if at == f64::NEG_INFINITY => (count, 0.0),
        _ => (0.0, 0.0),
    }
}

#[cfg(test)]
mod tests {
    use tsdb::model::{CUSTOM_BUCKETS_SCHEMA, Span};

    use super::*;

    fn exponential(counts: &[f64], sum: f64) -> FloatHistogram {
        FloatHistogram {
            count: counts.iter().sum(),
            sum,
            positive_spans: vec![Span { offset: 1, length: u32::try_from(counts.len()).unwrap() }],
            positive_buckets: counts.to_vec(),
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn a_bucket_is_cut_by_its_exponent() {
        let h = exponential(&[4.0, 2.0], 100.0);
        let below = trimmed(&h, std::f64::consts::SQRT_2, Keep::Below);
        let above = trimmed(&h, std::f64::consts::SQRT_2, Keep::Above);
        assert!((below.count - 2.0).abs() < 1e-12 && (above.count - 4.0).abs() < 1e-12);
        assert!((below.sum - 2.0 * 2f64.powf(0.25)).abs() < 1e-12);
    }

    #[test]
    fn totals_stay_where_nothing_is_cut_off() {
        let h = exponential(&[4.0, 2.0], 100.0);
        assert_eq!(trimmed(&h, f64::NEG_INFINITY, Keep::Above), h);
        assert_eq!(trimmed(&h, 4.0, Keep::Below), h);
        assert_eq!(trimmed(&h, f64::NAN, Keep::Below).count, 0.0);
    }

    #[test]
    fn the_highest_custom_bucket_goes_as_a_whole() {
        let h = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            custom_values: Some([5.0].as_slice().into()),
            ..exponential(&[1.0, 100.0], 33.0)
        };
        assert_eq!(trimmed(&h, 10.0, Keep::Below).count, 1.0);
        let above = trimmed(&h, 2.0, Keep::Above);
        assert!((above.count - 100.6).abs() < 1e-12 && (above.sum - 502.1).abs() < 1e-9);
    }
}
