//! Whether a counter histogram was reset: as Prometheus judges, by anything that a growing counter can't do.

use super::{Count, Histogram};

impl<C: Count> Histogram<C> {
    /// Whether a counter was reset between `previous` and this one, judged by the numbers alone: a count, zero count
    /// or bucket that shrank, a finer schema, a narrower zero bucket. Where custom bounds differ, buckets between the
    /// bounds that both have are compared, as Prometheus 3.14 does. Both hints are ignored.
    pub fn is_reset_after(&self, previous: &Self) -> bool {
        if self.count.to_f64() < previous.count.to_f64()
            || self.has_custom_buckets() != previous.has_custom_buckets()
        {
            return true;
        }
        if self.has_custom_buckets() {
            if self.custom_values == previous.custom_values {
                return shrank(self.positive(), previous.positive().map(|(i, count)| (i, count.to_f64())));
            }
            let common = common_bounds(self.custom_bounds(), previous.custom_bounds());
            let (now, before) = (self.counts_between(&common), previous.counts_between(&common));
            return now.iter().zip(&before).any(|(now, before)| now < before);
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let Some(zero_count) = previous.zero_count_within(self.zero_threshold) else {
            return true;
        };
        if self.zero_count.to_f64() < zero_count {
            return true;
        }
        let outside = |&(i, _): &(i32, C)| upper_bound(i, previous.schema) > self.zero_threshold;
        let coarser = |(i, count): (i32, C)| (coarsen(i, previous.schema - self.schema), count.to_f64());
        shrank(self.positive(), previous.positive().filter(outside).map(coarser))
            || shrank(self.negative(), previous.negative().filter(outside).map(coarser))
    }

    fn custom_bounds(&self) -> &[f64] {
        self.custom_values.as_deref().unwrap_or_default()
    }

    /// Counts up to each of `bounds`, which are some of the histogram's own, and above the last of them.
    fn counts_between(&self, bounds: &[f64]) -> Vec<f64> {
        let mut counts = vec![0.0; bounds.len() + 1];
        for (index, count) in self.positive() {
            let own = usize::try_from(index).ok().and_then(|i| self.custom_bounds().get(i));
            let upper = own.copied().unwrap_or(f64::INFINITY);
            counts[bounds.partition_point(|bound| *bound < upper)] += count.to_f64();
        }
        counts
    }

    /// What the zero bucket would hold if it were widened to `threshold`; `None` where that cuts a populated bucket.
    fn zero_count_within(&self, threshold: f64) -> Option<f64> {
        let mut zero_count = self.zero_count.to_f64();
        if threshold == self.zero_threshold {
            return Some(zero_count);
        }
        for (i, count) in self.positive().chain(self.negative()).filter(|(_, count)| *count != C::default()) {
            if upper_bound(i, self.schema) <= threshold {
                zero_count += count.to_f64();
            } else if upper_bound(i.wrapping_sub(1), self.schema) < threshold {
                return None;
            }
        }
        Some(zero_count)
    }
}

/// Bounds that stand in both, ascending as they are.
fn common_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut b = b.iter().peekable();
    let stands_in_b = |bound: &&f64| {
        while b.next_if(|other| *other < *bound).is_some() {}
        b.next_if(|other| *other == *bound).is_some()
    };
    a.iter().filter(stands_in_b).copied().collect()
}

/// Whether some bucket of `previous` (ascending indexes, which may repeat: such are added up) holds more than `now`'s.
fn shrank<C: Count>(now: impl Iterator<Item = (i32, C)>, previous: impl Iterator<Item = (i32, f64)>) -> bool {
    let mut now = now.peekable();
    let mut previous = previous.peekable();
    while let Some((index, mut before)) = previous.next() {
        while let Some((_, more)) = previous.next_if(|(i, _)| *i == index) {
            before += more;
        }
        while now.next_if(|(i, _)| *i < index).is_some() {}
        let count = now.peek().filter(|(i, _)| *i == index).map_or(0.0, |(_, count)| count.to_f64());
        if before > count {
            return true;
        }
    }
    false
}

/// The upper bound of bucket `index` of an exponential schema.
fn upper_bound(index: i32, schema: i32) -> f64 {
    (f64::from(index) * f64::from(-schema).exp2()).exp2()
}

/// The index, in a schema coarser by `steps`, of the bucket that holds bucket `index`.
fn coarsen(index: i32, steps: i32) -> i32 {
    (index.wrapping_sub(1) >> steps.clamp(0, 31)).wrapping_add(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::model::{CUSTOM_BUCKETS_SCHEMA, IntHistogram, Span};

    fn histogram(schema: i32, first: i32, buckets: &[u64]) -> IntHistogram {
        IntHistogram {
            schema,
            zero_threshold: 0.001,
            zero_count: 2,
            count: 2 + buckets.iter().sum::<u64>(),
            sum: 1.0,
            positive_spans: vec![Span { offset: first, length: buckets.len() as u32 }],
            positive_buckets: buckets.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn a_growing_histogram_was_not_reset() {
        let before = histogram(1, 0, &[1, 2, 3]);
        for now in [before.clone(), histogram(1, 0, &[1, 2, 4]), histogram(1, -1, &[5, 1, 2, 3, 1])] {
            assert!(!now.is_reset_after(&before), "{now:?}");
        }
        // Schema 0 holds buckets 0 | 1, 2 of schema 1 in 0 | 1.
        assert!(!histogram(0, 0, &[1, 5]).is_reset_after(&before));
    }

    #[test]
    fn whatever_shrank_or_grew_finer_is_a_reset() {
        let before = histogram(1, 0, &[1, 2, 3]);
        let wider = IntHistogram { zero_threshold: 0.1, ..before.clone() };
        for now in [
            histogram(1, 0, &[1, 2, 2]),
            histogram(1, 0, &[9, 1, 3]),
            histogram(1, 1, &[9, 9]),
            histogram(2, 0, &[9, 9, 9, 9, 9, 9]),
            histogram(0, 0, &[1, 4, 9]),
            IntHistogram { zero_count: 1, count: 9, ..before.clone() },
            IntHistogram { zero_threshold: 0.000_1, ..before.clone() },
        ] {
            assert!(now.is_reset_after(&before), "{now:?}");
        }
        assert!(before.is_reset_after(&wider));
    }

    #[test]
    fn a_zero_bucket_may_swallow_whole_buckets_only() {
        let before = histogram(0, -2, &[4, 0, 7]);
        let swallowed = |threshold, zero_count| IntHistogram {
            zero_threshold: threshold,
            zero_count,
            count: 20,
            ..histogram(0, 0, &[7])
        };
        assert!(!swallowed(0.25, 6).is_reset_after(&before));
        assert!(!swallowed(0.4, 6).is_reset_after(&before), "the bucket up to 0.5 is empty");
        assert!(swallowed(0.25, 5).is_reset_after(&before));
        assert!(swallowed(0.2, 6).is_reset_after(&before), "cuts the bucket up to 0.25");
    }

    #[test]
    fn custom_buckets_are_compared_between_common_bounds() {
        let with = |bounds: &[f64], buckets: &[u64]| IntHistogram {
            custom_values: Some(Arc::from(bounds)),
            zero_count: 0,
            ..histogram(CUSTOM_BUCKETS_SCHEMA, 0, buckets)
        };
        let before = with(&[1.0, 5.0], &[1, 2, 3]);
        assert!(!before.is_reset_after(&before));
        assert!(!with(&[1.0, 2.0, 5.0], &[1, 2, 0, 3]).is_reset_after(&before));
        assert!(!with(&[5.0], &[3, 3]).is_reset_after(&before));
        assert!(with(&[5.0], &[2, 9]).is_reset_after(&before), "fewer up to 5");
        assert!(!with(&[7.0], &[6]).is_reset_after(&before), "nothing in common but the count");
        assert!(before.is_reset_after(&histogram(0, 0, &[1])), "buckets of another kind");
    }
}
