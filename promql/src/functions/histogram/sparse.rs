//! Histograms as sorted lists of filled buckets.

use std::sync::Arc;

use tsdb::model::{CUSTOM_BUCKETS_SCHEMA, CounterReset, FloatHistogram, Span};

use super::bounds::upper_bound;
use crate::eval::number::{Partial, Sum};
use crate::folded::HistogramSum;

/// Index and count of buckets, by ascending index. Counts are compensated sums: adding and taking away large
/// histograms must not eat small ones.
pub(super) type Buckets = Vec<(i32, Sum)>;

/// Empty buckets between two filled ones that are stored rather than skipped: a span costs as much.
const GAP_STORED_MAX: i32 = 0;

/// A histogram in the form that arithmetic is done in.
#[derive(Clone, Debug)]
pub struct Sparse {
    pub(super) counter_reset: CounterReset,
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) zero_count: Sum,
    pub(super) count: Sum,
    pub(super) sum: Sum,
    pub(super) positive: Buckets,
    pub(super) negative: Buckets,
    pub(super) bounds: Option<Arc<[f64]>>,
}

impl From<&FloatHistogram> for Sparse {
    fn from(h: &FloatHistogram) -> Self {
        let filled = |(index, count): (i32, f64)| (count != 0.0).then(|| (index, Sum::of(count)));
        Self {
            counter_reset: h.counter_reset,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: Sum::of(h.zero_count),
            count: Sum::of(h.count),
            sum: Sum::of(h.sum),
            positive: h.positive().filter_map(filled).collect(),
            negative: h.negative().filter_map(filled).collect(),
            bounds: h.custom_values.clone(),
        }
    }
}

impl Sparse {
    pub(super) fn into_parts(self) -> HistogramSum {
        let parts = |buckets: Buckets| buckets.iter().map(|(index, count)| (*index, count.parts())).collect();
        HistogramSum {
            counter_reset: self.counter_reset,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count.parts(),
            count: self.count.parts(),
            sum: self.sum.parts(),
            positive: parts(self.positive),
            negative: parts(self.negative),
            bounds: self.bounds,
        }
    }

    pub(super) fn of_parts(parts: HistogramSum) -> Self {
        let buckets = |parts: Vec<(i32, [f64; 2])>| {
            parts.into_iter().map(|(index, count)| (index, Sum::of_parts(count))).collect()
        };
        Self {
            counter_reset: parts.counter_reset,
            schema: parts.schema,
            zero_threshold: parts.zero_threshold,
            zero_count: Sum::of_parts(parts.zero_count),
            count: Sum::of_parts(parts.count),
            sum: Sum::of_parts(parts.sum),
            positive: buckets(parts.positive),
            negative: buckets(parts.negative),
            bounds: parts.bounds,
        }
    }

    pub(super) fn is_custom(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Folds it, empty buckets left out.
    pub fn fold(self) -> FloatHistogram {
        let (positive_spans, positive_buckets) = spans(&self.positive);
        let (negative_spans, negative_buckets) = spans(&self.negative);
        FloatHistogram {
            counter_reset: self.counter_reset,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count.value(),
            count: self.count.value(),
            sum: self.sum.value(),
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: self.bounds,
        }
    }

    /// Applies a linear function to every number.
    pub(super) fn scale(&mut self, of: impl Fn(f64) -> f64) {
        self.each_number(|number| number.map(&of));
    }

    /// Applies a linear function to every number once it is rounded: the parts of a sum depend on the order of its terms,
    /// and rounding each of them would show it.
    pub(super) fn round_and_scale(&mut self, of: impl Fn(f64) -> f64) {
        self.each_number(|number| Sum::of(of(number.value())));
    }

    fn each_number(&mut self, of: impl Fn(Sum) -> Sum) {
        let numbers = [&mut self.zero_count, &mut self.count, &mut self.sum];
        let counts = self.positive.iter_mut().chain(&mut self.negative).map(|(_, count)| count);
        for number in numbers.into_iter().chain(counts) {
            *number = of(*number);
        }
    }

    /// Brings an exponential histogram to a lower resolution: `2^(schema - to)` buckets become one.
    pub(super) fn reduce(&mut self, to: i32) {
        if to >= self.schema {
            return;
        }
        let shift = (self.schema - to).min(31);
        for buckets in [&mut self.positive, &mut self.negative] {
            let mut reduced: Buckets = Vec::with_capacity(buckets.len());
            for (index, count) in buckets.drain(..) {
                push(&mut reduced, ((index - 1) >> shift) + 1, count);
            }
            *buckets = reduced;
        }
        self.schema = to;
    }

    /// Widens the zero bucket to at least `threshold`: over whole buckets, so it may come out wider.
    pub(super) fn widen_zero(&mut self, threshold: f64) {
        let mut threshold = threshold;
        if threshold <= self.zero_threshold {
            return;
        }
        // A bucket that the threshold would cut moves the threshold to its end, which may cut one on the other side.
        loop {
            let cut = self.positive.iter().chain(&self.negative).map(|(index, _)| *index).find(|index| {
                let (lower, upper) = (upper_bound(index - 1, self.schema), upper_bound(*index, self.schema));
                lower < threshold && threshold < upper
            });
            match cut {
                Some(index) => threshold = upper_bound(index, self.schema),
                None => break,
            }
        }
        let schema = self.schema;
        for buckets in [&mut self.positive, &mut self.negative] {
            buckets.retain(|(index, count)| {
                let inside = upper_bound(*index, schema) <= threshold;
                if inside {
                    self.zero_count.merge(count);
                }
                !inside
            });
        }
        self.zero_threshold = threshold;
    }

    /// Maps custom buckets to fewer bounds, a part of its own.
    pub(super) fn rebound(&mut self, bounds: &Arc<[f64]>) {
        let old = self.bounds.take().unwrap_or_default();
        let mut mapped: Buckets = Vec::with_capacity(self.positive.len());
        for (index, count) in self.positive.drain(..) {
            let upper = usize::try_from(index).ok().and_then(|i| old.get(i)).copied();
            let to = upper.map_or(bounds.len(), |upper| bounds.partition_point(|bound| *bound < upper));
            push(&mut mapped, i32::try_from(to).expect("bounds are few"), count);
        }
        self.positive = mapped;
        self.bounds = Some(Arc::clone(bounds));
    }

    /// Adds `sign` times another of the same layout.
    pub(super) fn combine(&mut self, other: &Self, sign: f64) {
        self.zero_count.merge(&other.zero_count.map(|v| sign * v));
        self.count.merge(&other.count.map(|v| sign * v));
        self.sum.merge(&other.sum.map(|v| sign * v));
        self.positive = merged(&self.positive, &other.positive, sign);
        self.negative = merged(&self.negative, &other.negative, sign);
    }
}

fn push(buckets: &mut Buckets, index: i32, count: Sum) {
    match buckets.last_mut() {
        Some((last, total)) if *last == index => total.merge(&count),
        _ => buckets.push((index, count)),
    }
}

fn merged(a: &[(i32, Sum)], b: &[(i32, Sum)], sign: f64) -> Buckets {
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        let take_a = i < a.len() && (j >= b.len() || a[i].0 <= b[j].0);
        let take_b = j < b.len() && (i >= a.len() || b[j].0 <= a[i].0);
        let index = if take_a { a[i].0 } else { b[j].0 };
        let mut count = Sum::EMPTY;
        if take_a {
            count = a[i].1;
            i += 1;
        }
        if take_b {
            count.merge(&b[j].1.map(|v| sign * v));
            j += 1;
        }
        out.push((index, count));
    }
    out
}

fn spans(buckets: &[(i32, Sum)]) -> (Vec<Span>, Vec<f64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut counts = Vec::with_capacity(buckets.len());
    let mut next = 0i32;
    for (index, count) in buckets.iter().map(|(index, count)| (index, count.value())) {
        if count == 0.0 {
            continue;
        }
        let gap = index.wrapping_sub(next);
        match spans.last_mut() {
            Some(span) if gap <= GAP_STORED_MAX => span.length += 1,
            _ => spans.push(Span { offset: gap, length: 1 }),
        }
        counts.push(count);
        next = index.wrapping_add(1);
    }
    (spans, counts)
}
