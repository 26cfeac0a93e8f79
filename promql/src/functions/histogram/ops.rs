//! Sums, differences, multiples and comparison of histograms.

use std::sync::Arc;

use tsdb::model::{CounterReset, FloatHistogram};

use super::sparse::Sparse;
use crate::eval::notes::{Note, Notes};
use crate::eval::number::{MEAN_SCALE, Sum};
use crate::folded::HistogramSum;

/// Exponential and custom buckets can't be combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incompatible;

/// `histogram * factor`; a negative factor leaves no counter.
pub fn scaled(histogram: &FloatHistogram, factor: f64) -> FloatHistogram {
    changed(histogram, factor < 0.0, |v| v * factor)
}

/// `histogram / divisor`; dividing by 0 leaves no bucket filled.
pub fn divided(histogram: &FloatHistogram, divisor: f64) -> FloatHistogram {
    let mut result = changed(histogram, divisor < 0.0, |v| v / divisor);
    if divisor == 0.0 {
        result.positive_spans.clear();
        result.positive_buckets.clear();
        result.negative_spans.clear();
        result.negative_buckets.clear();
    }
    result
}

fn changed(histogram: &FloatHistogram, no_counter: bool, of: impl Fn(f64) -> f64) -> FloatHistogram {
    let mut sparse = Sparse::from(histogram);
    sparse.scale(of);
    if no_counter {
        sparse.counter_reset = CounterReset::Gauge;
    }
    sparse.fold()
}

/// `left + right`. Notes say if custom bounds were `reconciled`, or reset hints `conflict`.
///
/// # Errors
/// One has exponential buckets and the other custom ones.
pub fn add(
    left: &FloatHistogram,
    right: &FloatHistogram,
    conflict: Note,
    reconciled: Note,
    notes: &mut Notes,
) -> Result<FloatHistogram, Incompatible> {
    let mut total = Total::of(left);
    total.add(right, conflict, reconciled, notes)?;
    Ok(total.0.fold())
}

/// `left - right`, a gauge. Notes as for [`add`].
///
/// # Errors
/// One has exponential buckets and the other custom ones.
pub fn subtract(
    left: &FloatHistogram,
    right: &FloatHistogram,
    conflict: Note,
    reconciled: Note,
    notes: &mut Notes,
) -> Result<FloatHistogram, Incompatible> {
    let mut total = Total::of(left);
    if !total.unite_hints(right.counter_reset) {
        notes.add(conflict);
    }
    total.combine(right, -1.0, reconciled, notes)?;
    total.0.counter_reset = CounterReset::Gauge;
    Ok(total.0.fold())
}

/// A running sum of histograms.
#[derive(Clone, Debug)]
pub struct Total(Sparse);

impl Total {
    /// Begins with one.
    pub fn of(histogram: &FloatHistogram) -> Self {
        Self(histogram.into())
    }

    /// Begins with one, so small that a sum of many can't overflow: for [`Total::mean`]. Scaling by a power of two
    /// is exact.
    pub fn of_mean(histogram: &FloatHistogram) -> Self {
        let mut total = Self::of(histogram);
        total.0.scale(|v| v * MEAN_SCALE);
        total
    }

    /// Adds another.
    ///
    /// # Errors
    /// One has exponential buckets and the other custom ones.
    pub fn add(
        &mut self,
        other: &FloatHistogram,
        conflict: Note,
        reconciled: Note,
        notes: &mut Notes,
    ) -> Result<(), Incompatible> {
        if !self.unite_hints(other.counter_reset) {
            notes.add(conflict);
        }
        self.combine(other, 1.0, reconciled, notes)
    }

    /// Adds `sign` times another, whatever the reset hints say.
    ///
    /// # Errors
    /// One has exponential buckets and the other custom ones.
    pub fn combine(
        &mut self,
        other: &FloatHistogram,
        sign: f64,
        reconciled: Note,
        notes: &mut Notes,
    ) -> Result<(), Incompatible> {
        let mut other = Sparse::from(other);
        if align(&mut self.0, &mut other)? {
            notes.add(reconciled);
        }
        self.0.combine(&other, sign);
        Ok(())
    }

    /// Adds another total.
    ///
    /// # Errors
    /// One has exponential buckets and the other custom ones.
    pub fn merge(
        &mut self,
        mut other: Self,
        conflict: Note,
        reconciled: Note,
        notes: &mut Notes,
    ) -> Result<(), Incompatible> {
        if !self.unite_hints(other.0.counter_reset) {
            notes.add(conflict);
        }
        if align(&mut self.0, &mut other.0)? {
            notes.add(reconciled);
        }
        self.0.combine(&other.0, 1.0);
        Ok(())
    }

    /// For another process.
    pub fn into_parts(self) -> HistogramSum {
        self.0.into_parts()
    }

    /// From its [`Total::into_parts`].
    pub fn of_parts(parts: HistogramSum) -> Self {
        Self(Sparse::of_parts(parts))
    }

    /// What is known of resets from now on.
    pub fn set_counter_reset(&mut self, counter_reset: CounterReset) {
        self.0.counter_reset = counter_reset;
    }

    /// Brings exponential buckets to a resolution that is no higher.
    pub fn reduce(&mut self, schema: i32) {
        if !self.0.is_custom() {
            self.0.reduce(schema);
        }
    }

    /// The mean of `count` histograms, each taken in by [`Total::of_mean`].
    pub fn mean(mut self, count: f64) -> FloatHistogram {
        self.0.round_and_scale(|v| v / count / MEAN_SCALE);
        self.0.fold()
    }

    /// Multiplies it.
    pub fn scale(&mut self, factor: f64) {
        self.0.scale(|v| v * factor);
    }

    /// The sum, multiplied.
    pub fn scaled(mut self, factor: f64) -> FloatHistogram {
        self.0.scale(|v| v * factor);
        self.0.fold()
    }

    /// The sum, divided: not by way of the reciprocal, which is rounded already.
    pub fn over(mut self, divisor: f64) -> FloatHistogram {
        self.0.scale(|v| v / divisor);
        self.0.fold()
    }

    /// The sum.
    pub fn fold(self) -> FloatHistogram {
        self.0.fold()
    }

    /// All observations.
    pub fn count(&self) -> f64 {
        self.0.count.value()
    }

    /// Whether hints go together; the result's hint is set either way.
    fn unite_hints(&mut self, other: CounterReset) -> bool {
        use CounterReset::{Gauge, NotReset, Reset, Unknown};
        let (hint, fine) = match (self.0.counter_reset, other) {
            (a, b) if a == b => (a, true),
            (Gauge, _) | (_, Gauge) => (Gauge, true),
            (Unknown, _) | (_, Unknown) => (Unknown, true),
            (Reset | NotReset, _) => (Unknown, false),
        };
        self.0.counter_reset = hint;
        fine
    }
}

/// Brings two histograms to one layout; tells whether custom bounds had to give way.
fn align(a: &mut Sparse, b: &mut Sparse) -> Result<bool, Incompatible> {
    match (a.is_custom(), b.is_custom()) {
        (false, false) => {
            let schema = a.schema.min(b.schema);
            while a.zero_threshold.to_bits() != b.zero_threshold.to_bits() {
                let (before_a, before_b) = (a.zero_threshold, b.zero_threshold);
                a.widen_zero(before_b);
                b.widen_zero(a.zero_threshold);
                if before_a.to_bits() == a.zero_threshold.to_bits()
                    && before_b.to_bits() == b.zero_threshold.to_bits()
                {
                    break;
                }
            }
            a.reduce(schema);
            b.reduce(schema);
            Ok(false)
        }
        (true, true) => {
            if same_bounds(a, b) {
                return Ok(false);
            }
            let common: Arc<[f64]> = {
                let (mine, theirs) =
                    (a.bounds.as_deref().unwrap_or_default(), b.bounds.as_deref().unwrap_or_default());
                mine.iter().copied().filter(|bound| theirs.contains(bound)).collect()
            };
            a.rebound(&common);
            b.rebound(&common);
            Ok(true)
        }
        _ => Err(Incompatible),
    }
}

fn same_bounds(a: &Sparse, b: &Sparse) -> bool {
    let (a, b) = (a.bounds.as_deref().unwrap_or_default(), b.bounds.as_deref().unwrap_or_default());
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Whether two histograms hold the same: empty buckets and reset hints don't count.
pub fn equal(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let same_bits = |a: f64, b: f64| a.to_bits() == b.to_bits();
    let same = |a: Sum, b: Sum| same_bits(a.value(), b.value());
    let same_buckets = |a: &[(i32, Sum)], b: &[(i32, Sum)]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && same(a.1, b.1))
    };
    let (a, b) = (Sparse::from(a), Sparse::from(b));
    a.schema == b.schema
        && same(a.count, b.count)
        && same(a.sum, b.sum)
        && (a.is_custom()
            || (same_bits(a.zero_threshold, b.zero_threshold) && same(a.zero_count, b.zero_count)))
        && same_bounds(&a, &b)
        && same_buckets(&a.positive, &b.positive)
        && same_buckets(&a.negative, &b.negative)
}

/// Whether a counter was reset between `previous` and `current`: its hint says so, or something got less.
pub fn is_reset(current: &FloatHistogram, previous: &FloatHistogram) -> bool {
    match current.counter_reset {
        CounterReset::Reset => return true,
        CounterReset::NotReset => return false,
        CounterReset::Unknown | CounterReset::Gauge => {}
    }
    if current.count < previous.count || current.has_custom_buckets() != previous.has_custom_buckets() {
        return true;
    }
    let (mut current, mut previous) = (Sparse::from(current), Sparse::from(previous));
    if current.is_custom() {
        if align(&mut current, &mut previous).is_err() {
            return true;
        }
        return any_less(&current.positive, &previous.positive);
    }
    if current.schema > previous.schema || current.zero_threshold < previous.zero_threshold {
        return true;
    }
    previous.widen_zero(current.zero_threshold);
    if previous.zero_threshold.to_bits() != current.zero_threshold.to_bits()
        || current.zero_count.value() < previous.zero_count.value()
    {
        return true;
    }
    previous.reduce(current.schema);
    any_less(&current.positive, &previous.positive) || any_less(&current.negative, &previous.negative)
}

/// Whether a bucket of `previous` holds more than that of `current`.
fn any_less(current: &[(i32, Sum)], previous: &[(i32, Sum)]) -> bool {
    previous.iter().any(|(index, before)| {
        let now = current.binary_search_by_key(index, |(i, _)| *i).map_or(0.0, |at| current[at].1.value());
        now < before.value()
    })
}

#[cfg(test)]
mod tests {
    use tsdb::model::{CUSTOM_BUCKETS_SCHEMA, Span};

    use super::*;

    fn exponential(schema: i32, first: i32, counts: &[f64]) -> FloatHistogram {
        let length = u32::try_from(counts.len()).unwrap();
        FloatHistogram {
            schema,
            count: counts.iter().sum(),
            positive_spans: vec![Span { offset: first, length }],
            positive_buckets: counts.to_vec(),
            ..FloatHistogram::default()
        }
    }

    fn custom(bounds: &[f64], counts: &[f64]) -> FloatHistogram {
        FloatHistogram { custom_values: Some(bounds.into()), ..exponential(CUSTOM_BUCKETS_SCHEMA, 0, counts) }
    }

    fn sum(a: &FloatHistogram, b: &FloatHistogram) -> Result<(FloatHistogram, Notes), Incompatible> {
        let mut notes = Notes::default();
        let sum = add(a, b, Note::CounterResetsAddition, Note::ReconciledAddition, &mut notes)?;
        Ok((sum, notes))
    }

    #[test]
    fn the_lower_resolution_wins() {
        let (sum, notes) =
            sum(&exponential(1, 1, &[1.0, 2.0, 4.0]), &exponential(0, 1, &[10.0, 20.0])).unwrap();
        assert_eq!((sum.schema, sum.positive_buckets), (0, vec![13.0, 24.0]));
        assert!(notes.is_empty());
    }

    #[test]
    fn the_wider_zero_bucket_wins() {
        let mut wide = exponential(0, 3, &[1.0]);
        (wide.zero_threshold, wide.zero_count) = (1.5, 7.0);
        let (sum, _) = sum(&wide, &exponential(0, 0, &[1.0, 2.0, 4.0, 8.0])).unwrap();
        // 1.5 cuts the bucket (1, 2], so the zero bucket reaches to 2.
        assert_eq!((sum.zero_threshold, sum.zero_count), (2.0, 10.0));
        assert_eq!(sum.positive().collect::<Vec<_>>(), [(2, 4.0), (3, 9.0)]);
    }

    #[test]
    fn custom_bounds_are_reduced_to_the_common_ones() {
        let (sum, notes) =
            sum(&custom(&[1.0, 5.0], &[1.0, 2.0, 4.0]), &custom(&[5.0, 9.0], &[8.0, 16.0, 32.0])).unwrap();
        assert_eq!(sum.custom_values.as_deref(), Some([5.0].as_slice()));
        assert_eq!(sum.positive_buckets, [11.0, 52.0]);
        assert!(notes.has(Note::ReconciledAddition));
    }

    #[test]
    fn exponential_and_custom_buckets_do_not_mix() {
        assert_eq!(sum(&custom(&[1.0], &[1.0]), &exponential(0, 0, &[1.0])).err(), Some(Incompatible));
    }

    #[test]
    fn resets_are_seen_in_any_bucket() {
        let before = exponential(0, 1, &[1.0, 2.0]);
        assert!(!is_reset(&exponential(0, 1, &[1.0, 3.0]), &before));
        assert!(is_reset(&exponential(0, 1, &[0.0, 5.0]), &before));
        assert!(is_reset(&exponential(1, 1, &[9.0, 9.0]), &before));
        assert!(!is_reset(&exponential(-1, 1, &[3.0]), &before));
    }

    #[test]
    fn empty_buckets_do_not_count() {
        assert!(equal(&exponential(0, 0, &[0.0, 1.0, 0.0]), &exponential(0, 1, &[1.0])));
        assert!(!equal(&exponential(0, 0, &[1.0]), &exponential(0, 1, &[1.0])));
    }
}
