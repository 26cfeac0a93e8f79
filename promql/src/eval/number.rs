//! Sums that don't lose small terms beside large ones, means that don't overflow, and variances; all as partials
//! that can be merged, so that a result doesn't depend on how the work was cut.
//!
//! A sum is kept as `hi + lo`: `hi` is the plain floating-point sum, `lo` collects what each addition rounded away
//! (Neumaier's variant of Kahan's summation, with Knuth's branch-free TwoSum). It is rounded once, when read. `hi` alone
//! depends on the order of the terms, so nothing but that sum is ever rounded further.

/// The sum of `a` and `b` as floating point gives it, and what that rounded away (Knuth, TAOCP 4.2.2, theorem B).
#[inline]
pub fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    let error = (a - (sum - b_part)) + (b - b_part);
    (sum, error)
}

/// A merging accumulator: the shape that sliding windows and parallel folds share.
pub trait Partial: Copy {
    /// Of no values.
    const EMPTY: Self;
    /// Takes one value in.
    fn add(&mut self, value: f64);
    /// Takes in the values of `later`, which come behind those already taken.
    fn merge(&mut self, later: &Self);
}

/// A compensated sum.
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    hi: f64,
    lo: f64,
}

impl Partial for Sum {
    const EMPTY: Self = Self { hi: 0.0, lo: 0.0 };

    #[inline]
    fn add(&mut self, value: f64) {
        let (sum, error) = two_sum(self.hi, value);
        self.hi = sum;
        self.lo += error;
    }

    #[inline]
    fn merge(&mut self, later: &Self) {
        let (sum, error) = two_sum(self.hi, later.hi);
        self.hi = sum;
        self.lo += error + later.lo;
    }
}

impl Sum {
    /// Of one value.
    #[inline]
    pub fn of(value: f64) -> Self {
        Self { hi: value, lo: 0.0 }
    }

    /// What it is made of.
    pub fn parts(&self) -> [f64; 2] {
        [self.hi, self.lo]
    }

    /// From its [`Sum::parts`].
    pub fn of_parts([hi, lo]: [f64; 2]) -> Self {
        Self { hi, lo }
    }

    /// Applies a linear function to both parts.
    #[inline]
    pub fn map(self, of: impl Fn(f64) -> f64) -> Self {
        Self { hi: of(self.hi), lo: of(self.lo) }
    }

    /// The sum, rounded once. Where the plain sum left the finite numbers, the compensation means nothing.
    #[inline]
    pub fn value(&self) -> f64 {
        if self.hi.is_finite() && !self.lo.is_nan() { self.hi + self.lo } else { self.hi }
    }
}

/// By how much a mean's sum is scaled down once it has overflowed: enough for 2^64 terms of the greatest size.
pub const MEAN_SCALE: f64 = 1.0 / 18_446_744_073_709_551_616.0;

/// A mean that stays finite as long as its values are, however large.
///
/// It is a sum and a count until the sum would overflow; from there on the sum is kept scaled by 2^-64.
#[derive(Clone, Copy, Debug)]
pub struct Mean {
    sum: Sum,
    count: f64,
    scaled: bool,
}

impl Partial for Mean {
    const EMPTY: Self = Self { sum: Sum::EMPTY, count: 0.0, scaled: false };

    #[inline]
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let value = if self.scaled { value * MEAN_SCALE } else { value };
        self.add_sum(Sum::of(value));
    }

    fn merge(&mut self, later: &Self) {
        self.count += later.count;
        let mut later = *later;
        if later.scaled && !self.scaled {
            self.scale();
        } else if self.scaled && !later.scaled {
            later.scale();
        }
        self.add_sum(later.sum);
    }
}

impl Mean {
    /// Adds a sum that is scaled as this one is.
    #[inline]
    fn add_sum(&mut self, other: Sum) {
        let mut next = self.sum;
        next.merge(&other);
        if next.hi.is_infinite() && self.sum.hi.is_finite() && other.hi.is_finite() {
            self.scale();
            next = self.sum;
            next.merge(&other.map(|v| v * MEAN_SCALE));
        }
        self.sum = next;
    }

    fn scale(&mut self) {
        self.sum = self.sum.map(|v| v * MEAN_SCALE);
        self.scaled = true;
    }

    /// The mean; NaN of nothing.
    pub fn value(&self) -> f64 {
        let sum = self.sum.value();
        // Rounding may have taken the very greatest sums out of the finite numbers.
        let sum = if sum.is_infinite() { self.sum.hi } else { sum };
        let mean = sum / self.count;
        if self.scaled { mean / MEAN_SCALE } else { mean }
    }

    /// What it is made of: the sum's two parts, the count, and whether the sum is scaled.
    pub fn parts(&self) -> (f64, f64, f64, bool) {
        (self.sum.hi, self.sum.lo, self.count, self.scaled)
    }

    /// From its [`Mean::parts`].
    pub fn of_parts((hi, lo, count, scaled): (f64, f64, f64, bool)) -> Self {
        Self { sum: Sum { hi, lo }, count, scaled }
    }
}

/// Mean and sum of squared distances from it (Welford), merged by Chan, Golub and LeVeque's formula.
#[derive(Clone, Copy, Debug)]
pub struct Variance {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Partial for Variance {
    const EMPTY: Self = Self { count: 0.0, mean: 0.0, squares: 0.0 };

    #[inline]
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }

    fn merge(&mut self, later: &Self) {
        if later.count == 0.0 {
            return;
        }
        if self.count == 0.0 {
            *self = *later;
            return;
        }
        let count = self.count + later.count;
        let delta = later.mean - self.mean;
        self.mean += delta * (later.count / count);
        self.squares += later.squares + delta * delta * (self.count * later.count / count);
        self.count = count;
    }
}

impl Variance {
    /// The population's variance; NaN where a value was infinite or NaN, and of nothing.
    pub fn value(&self) -> f64 {
        self.squares / self.count
    }
}

/// A product and what rounding took from it.
#[inline]
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    (product, a.mul_add(b, -product))
}

/// The product of two sums of two parts each.
#[inline]
fn product(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    let (hi, lo) = two_product(a.0, b.0);
    (hi, lo + (a.0 * b.1 + a.1 * b.0))
}

/// The variance of values in any order: the same bits whatever the order, but for the rarest of ties.
///
/// Sums of distances from one of the values, and of their squares, both compensated; Welford's running mean would round
/// at each step, and differently for each order. Equal values have exactly no variance.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    count: f64,
    /// What distances are taken from: the first value.
    from: f64,
    distances: Sum,
    squares: Sum,
}

impl Partial for Spread {
    const EMPTY: Self = Self { count: 0.0, from: 0.0, distances: Sum::EMPTY, squares: Sum::EMPTY };

    #[inline]
    fn add(&mut self, value: f64) {
        if self.count == 0.0 {
            self.from = value;
        }
        self.count += 1.0;
        let distance = two_sum(value, -self.from);
        self.distances.merge(&Sum::of_parts(distance.into()));
        self.squares.merge(&Sum::of_parts(product(distance, distance).into()));
    }

    fn merge(&mut self, later: &Self) {
        if later.count == 0.0 {
            return;
        }
        if self.count == 0.0 {
            *self = *later;
            return;
        }
        // (x - a)² = (x - b)² + 2(x - b)(b - a) + (b - a)²
        let shift = two_sum(later.from, -self.from);
        let count = (later.count, 0.0);
        let distances = (later.distances.hi, later.distances.lo);
        let more = product(distances, (2.0 * shift.0, 2.0 * shift.1));
        self.distances.merge(&later.distances);
        self.distances.merge(&Sum::of_parts(product(count, shift).into()));
        self.squares.merge(&later.squares);
        self.squares.merge(&Sum::of_parts(more.into()));
        self.squares.merge(&Sum::of_parts(product(count, product(shift, shift)).into()));
        self.count += later.count;
    }
}

impl Spread {
    /// The population's variance; NaN where a value was infinite or NaN, and of nothing.
    pub fn value(&self) -> f64 {
        if self.squares.hi == f64::INFINITY && self.distances.hi.is_finite() {
            return f64::INFINITY;
        }
        // Both parts in their canonical form: what rounding the sum gives, and the rest.
        let distances = two_sum(self.distances.hi, self.distances.lo);
        let (square, rest) = product(distances, distances);
        let mean = square / self.count;
        let mean_rest = ((-mean).mul_add(self.count, square) + rest) / self.count;
        let (left, lost) = two_sum(self.squares.hi, -mean);
        let squares = left + (lost + (self.squares.lo - mean_rest));
        // A comparison keeps NaN, which `max` would not.
        if squares < 0.0 { 0.0 } else { squares / self.count }
    }

    /// What it is made of: count, origin, and both parts of both sums.
    pub fn parts(&self) -> [f64; 6] {
        let ([d, d_lo], [s, s_lo]) = (self.distances.parts(), self.squares.parts());
        [self.count, self.from, d, d_lo, s, s_lo]
    }

    /// From its [`Spread::parts`].
    pub fn of_parts([count, from, d, d_lo, s, s_lo]: [f64; 6]) -> Self {
        Self { count, from, distances: Sum::of_parts([d, d_lo]), squares: Sum::of_parts([s, s_lo]) }
    }
}

/// The greater of two as Go's `math.Max` has it: `+Inf` if either is, even beside NaN; else NaN if either is. Of the two
/// zeros the positive one is the greater.
#[inline]
pub fn max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a > b || (a == b && b.is_sign_negative()) {
        a
    } else {
        b
    }
}

/// The lesser of two as Go's `math.Min` has it: `-Inf` if either is, even beside NaN; else NaN if either is. Of the two
/// zeros the negative one is the lesser.
#[inline]
pub fn min(a: f64, b: f64) -> f64 {
    -max(-a, -b)
}

/// The `phi`-quantile of `values`, which are reordered, by linear interpolation between neighbours; NaN counts as
/// the least value. Below 0 it is `-Inf`, above 1 `+Inf`; NaN for NaN and of nothing.
pub fn quantile(phi: f64, values: &mut [f64]) -> f64 {
    weighted(phi, values.len(), |n| {
        let (_, lower, above) = values.select_nth_unstable_by(n, nan_first);
        (*lower, above.iter().copied().min_by(nan_first).unwrap_or(*lower))
    })
}

/// The `phi`-quantile of `count` values; as [`quantile`]. `nth` gives the `n`-th least, from 0 on, and the one after it,
/// or the same again where there is none.
pub fn weighted(phi: f64, count: usize, nth: impl FnOnce(usize) -> (f64, f64)) -> f64 {
    if count == 0 || phi.is_nan() {
        return f64::NAN;
    }
    if phi < 0.0 {
        return f64::NEG_INFINITY;
    }
    if phi > 1.0 {
        return f64::INFINITY;
    }
    #[allow(clippy::cast_precision_loss, reason = "2^53 samples don't fit into memory")]
    let rank = phi * (count - 1) as f64;
    let lower = rank.floor() as usize;
    let weight = rank - rank.floor();
    let (at_lower, at_upper) = nth(lower);
    at_lower * (1.0 - weight) + at_upper * weight
}

/// NaN before all else.
pub fn nan_first(a: &f64, b: &f64) -> std::cmp::Ordering {
    a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fold<P: Partial>(values: &[f64]) -> P {
        let mut partial = P::EMPTY;
        values.iter().for_each(|v| partial.add(*v));
        partial
    }

    #[test]
    fn small_terms_survive_beside_large_ones() {
        assert_eq!(fold::<Sum>(&[1.0, 1e100, 1.0, -1e100]).value(), 2.0);
    }

    #[test]
    fn infinities_stay_and_opposite_ones_give_nan() {
        assert_eq!(fold::<Sum>(&[1.0, f64::INFINITY, 2.0]).value(), f64::INFINITY);
        assert_eq!(fold::<Sum>(&[f64::MAX, f64::MAX]).value(), f64::INFINITY);
        assert!(fold::<Sum>(&[f64::INFINITY, f64::NEG_INFINITY]).value().is_nan());
    }

    #[test]
    fn means_of_huge_values_are_finite() {
        let big = 9.988_465_674_311_58e307;
        assert_eq!(fold::<Mean>(&[big, big, big]).value(), big);
        assert_eq!(fold::<Mean>(&[-big, -big, big, big]).value(), 0.0);
        assert_eq!(fold::<Mean>(&[big, big, f64::NEG_INFINITY]).value(), f64::NEG_INFINITY);
        assert!(fold::<Mean>(&[f64::INFINITY, 1.0, f64::NEG_INFINITY]).value().is_nan());
        assert_eq!(fold::<Mean>(&[52.0; 13]).value(), 52.0);
    }

    #[test]
    fn merged_means_equal_folded_ones() {
        let big = 9.988_465_674_311_58e307;
        for values in [vec![big; 7], vec![1.0, 2.0, big, big, -3.0], vec![1.0, 2.0, 4.0, 9.0]] {
            for cut in 0..=values.len() {
                let mut left = fold::<Mean>(&values[..cut]);
                left.merge(&fold::<Mean>(&values[cut..]));
                assert_eq!(left.value(), fold::<Mean>(&values).value());
            }
        }
    }

    #[test]
    fn equal_values_have_no_variance() {
        assert_eq!(fold::<Variance>(&[1.599_050_563_727_786_8; 3]).value(), 0.0);
        assert!(fold::<Variance>(&[f64::INFINITY, 1.0]).value().is_nan());
    }

    #[test]
    fn spreads_are_variances_whatever_the_values() {
        assert_eq!(fold::<Spread>(&[1.599_050_563_727_786_8; 3]).value(), 0.0);
        assert!(fold::<Spread>(&[f64::INFINITY]).value().is_nan());
        assert!(fold::<Spread>(&[1.0, f64::NEG_INFINITY]).value().is_nan());
        assert!(fold::<Spread>(&[f64::NAN, 1.0]).value().is_nan());
        assert_eq!(fold::<Spread>(&[1e200, 2e200]).value(), f64::INFINITY);
        assert_eq!(fold::<Spread>(&[1e200; 4]).value(), 0.0);
        // A small spread far from 0, where squares of the values would have lost it.
        assert_eq!(fold::<Spread>(&[1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0, 1e9 + 4.0]).value(), 1.25);
    }

    #[test]
    fn infinities_win_over_nan_and_zeros_have_signs() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        for (a, b, greater, lesser) in [
            (nan, inf, inf, nan),
            (nan, -inf, nan, -inf),
            (nan, 1.0, nan, nan),
            (inf, -inf, inf, -inf),
            (1.0, 2.0, 2.0, 1.0),
            (0.0, -0.0, 0.0, -0.0),
            (-0.0, -0.0, -0.0, -0.0),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                assert!(same(max(a, b), greater) && same(min(a, b), lesser), "{a} and {b}");
            }
        }
    }

    #[test]
    fn quantiles_interpolate_and_nan_is_least() {
        assert_eq!(quantile(0.75, &mut [0.0, 1.0]), 0.75);
        assert!((quantile(0.8, &mut [4.0, 0.0, 1.0]) - 2.8).abs() < 1e-12);
        assert!((quantile(0.8, &mut [1.0, f64::NAN, 0.0]) - 0.6).abs() < 1e-12);
        assert!(quantile(0.2, &mut [1.0, f64::NAN, 0.0]).is_nan());
        assert_eq!(quantile(-1.0, &mut [1.0]), f64::NEG_INFINITY);
        assert_eq!(quantile(1.1, &mut [1.0]), f64::INFINITY);
    }

    proptest! {
        #[test]
        fn cutting_a_sum_changes_nothing_that_matters(
            values in prop::collection::vec(-1e9f64..1e9, 0..60), cut in 0usize..60
        ) {
            let cut = cut.min(values.len());
            let mut left = fold::<Sum>(&values[..cut]);
            left.merge(&fold::<Sum>(&values[cut..]));
            let scale: f64 = values.iter().map(|v| v.abs()).sum();
            prop_assert!((left.value() - fold::<Sum>(&values).value()).abs() <= 1e-15 * scale);
        }

        #[test]
        fn cutting_and_turning_a_spread_changes_nothing(
            values in prop::collection::vec(-1e3f64..1e3, 1..60), cut in 0usize..60
        ) {
            let cut = cut.min(values.len());
            let mut right = fold::<Spread>(&values[cut..]);
            right.merge(&fold::<Spread>(&values[..cut]));
            prop_assert_eq!(right.value().to_bits(), fold::<Spread>(&values).value().to_bits());
            prop_assert!((right.value() - fold::<Variance>(&values).value()).abs() <= 1e-6);
        }

        #[test]
        fn cutting_a_variance_changes_little(
            values in prop::collection::vec(-1e3f64..1e3, 1..60), cut in 0usize..60
        ) {
            let cut = cut.min(values.len());
            let mut left = fold::<Variance>(&values[..cut]);
            left.merge(&fold::<Variance>(&values[cut..]));
            prop_assert!((left.value() - fold::<Variance>(&values).value()).abs() <= 1e-6);
        }
    }
}
