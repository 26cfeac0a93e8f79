//! What native histograms tell of their observations.

use promql::parse::ast::BinaryOp;

use super::aggregate::beyond;
use super::histogram::{Bucket, Histogram};

pub fn variance(h: &Histogram) -> f64 {
    let mean = h.sum / h.count;
    let mut squares = 0.0;
    for Bucket { lower, upper, count } in h.buckets() {
        let middle = if h.is_custom() {
            (lower + upper) / 2.0
        } else if lower <= 0.0 && upper >= 0.0 {
            0.0
        } else {
            (lower * upper).sqrt() * upper.signum()
        };
        squares += count * (middle - mean) * (middle - mean);
    }
    squares / h.count
}

/// A zero bucket beside buckets of one sign only is of that sign.
fn one_sided(h: &Histogram) -> Vec<Bucket> {
    let mut buckets = h.buckets();
    if h.is_custom() {
        return buckets;
    }
    for bucket in buckets.iter_mut().filter(|b| b.lower <= 0.0 && b.upper >= 0.0) {
        match (h.negative.is_empty(), h.positive.is_empty()) {
            (true, false) => bucket.lower = 0.0,
            (false, true) => bucket.upper = 0.0,
            _ => {}
        }
    }
    buckets
}

/// The value with a share `at` of a bucket's observations below it.
fn inside(bucket: &Bucket, at: f64, linear: bool) -> f64 {
    let Bucket { lower, upper, .. } = *bucket;
    if linear || (lower <= 0.0 && upper >= 0.0) {
        lower + (upper - lower) * at
    } else if lower > 0.0 {
        (lower.log2() + (upper.log2() - lower.log2()) * at).exp2()
    } else {
        let (far, near) = ((-lower).log2(), (-upper).log2());
        -(near + (far - near) * (1.0 - at)).exp2()
    }
}

pub fn quantile(phi: f64, h: &Histogram) -> f64 {
    if let Some(beyond) = beyond(phi) {
        return beyond;
    }
    let buckets = one_sided(h);
    if h.count == 0.0 || buckets.is_empty() {
        return f64::NAN;
    }
    // Observations of NaN are in the count and in no bucket: then ranks are right from below only.
    let nans = h.sum.is_nan();
    let from_below = nans || phi < 0.5;
    let rank = h.count * if from_below { phi } else { 1.0 - phi };
    let order: Vec<Bucket> = if from_below { buckets } else { buckets.into_iter().rev().collect() };
    let mut seen = 0.0;
    let mut found = order[order.len() - 1];
    for bucket in &order {
        seen += bucket.count;
        found = *bucket;
        if seen >= rank {
            break;
        }
    }
    if h.is_custom() && found.lower == f64::NEG_INFINITY {
        if found.upper <= 0.0 {
            return found.upper;
        }
        found.lower = 0.0;
    } else if h.is_custom() && found.upper == f64::INFINITY {
        return found.lower;
    }
    let seen = seen.min(h.count);
    if seen < rank {
        return if nans { f64::NAN } else { found.upper };
    }
    let below = if from_below { rank - (seen - found.count) } else { seen - rank };
    inside(&found, below / found.count, h.is_custom())
}

/// How many observations lie below a value.
fn below(value: f64, buckets: &[Bucket], total: f64, linear: bool) -> f64 {
    let mut rank = 0.0;
    for bucket in buckets {
        let Bucket { mut lower, upper, count } = *bucket;
        if upper <= value {
            rank += count;
            continue;
        }
        if lower >= value {
            break;
        }
        let mut whole = false;
        if linear && lower == f64::NEG_INFINITY {
            whole = upper <= 0.0;
            lower = 0.0;
        }
        rank += if whole {
            count
        } else if upper == f64::INFINITY || value <= lower {
            0.0
        } else if linear || (lower <= 0.0 && upper >= 0.0) {
            count * (value - lower) / (upper - lower)
        } else {
            let log = |v: f64| v.abs().log2();
            count * (log(value) - log(lower)) / (log(upper) - log(lower))
        };
        break;
    }
    rank.min(total)
}

/// The share of observations between two values.
pub fn fraction(lower: f64, upper: f64, buckets: &[Bucket], total: f64, linear: bool) -> f64 {
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        f64::NAN
    } else if lower >= upper {
        0.0
    } else {
        (below(upper, buckets, total, linear) - below(lower, buckets, total, linear)) / total
    }
}

pub fn fraction_of(lower: f64, upper: f64, h: &Histogram) -> f64 {
    fraction(lower, upper, &one_sided(h), h.count, h.is_custom())
}

/// `</` and `>/`.
pub fn trim(h: &Histogram, op: BinaryOp, at: f64) -> Histogram {
    let upper_side = op == BinaryOp::TrimLower;
    let mut result = h.clone();
    let (mut count, mut sum, mut changed) = (0.0, 0.0, false);
    let mut keep = |bucket: Bucket, linear: bool| {
        let (left, middle) = kept(bucket, at, upper_side, linear);
        changed |= left != bucket.count;
        if left != 0.0 {
            count += left;
            sum += left * middle;
        }
        left
    };
    for (index, value) in &mut result.positive {
        *value = keep(h.positive_bucket(*index, *value), h.is_custom());
    }
    for (index, value) in &mut result.negative {
        *value = keep(h.negative_bucket(*index, *value), false);
    }
    if !h.is_custom() && h.zero_count > 0.0 {
        let zero = one_sided(h).into_iter().find(|b| b.lower <= 0.0 && b.upper >= 0.0);
        result.zero_count = keep(zero.expect("the zero bucket is filled"), true);
    }
    if !changed {
        return h.clone();
    }
    result.positive.retain(|_, count| *count != 0.0);
    result.negative.retain(|_, count| *count != 0.0);
    Histogram { count, sum, ..result }
}

/// What is left of a bucket, and where it is taken to lie.
fn kept(bucket: Bucket, at: f64, upper_side: bool, linear: bool) -> (f64, f64) {
    let Bucket { lower, upper, count } = bucket;
    let middle = |lower: f64, upper: f64| match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        (false, false) if linear => (lower + upper) / 2.0,
        (false, false) => (lower * upper).sqrt() * (lower + upper).signum(),
    };
    let (all, some) = if upper_side { (lower >= at, upper > at) } else { (upper <= at, lower < at) };
    if all {
        return (count, middle(lower, upper));
    }
    if !some {
        return (0.0, 0.0);
    }
    if lower == f64::NEG_INFINITY {
        let from_zero = upper > 0.0 && upper < f64::INFINITY;
        return match upper_side {
            false if from_zero && at > 0.0 => (count * at / upper, at / 2.0),
            false if upper <= 0.0 => (count, at),
            true if at == f64::NEG_INFINITY => (count, 0.0),
            true if from_zero && at >= 0.0 => (count * (1.0 - at / upper), (at + upper) / 2.0),
            _ => (0.0, 0.0),
        };
    }
    if upper == f64::INFINITY {
        return if upper_side { (count, at) } else { (0.0, 0.0) };
    }
    let log = |v: f64| v.abs().log2();
    let share = if linear {
        (at - lower) / (upper - lower)
    } else {
        (log(at) - log(lower)) / (log(upper) - log(lower))
    };
    if upper_side { (count - count * share, middle(at, upper)) } else { (count * share, middle(lower, at)) }
}
