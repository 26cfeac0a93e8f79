//! Native histograms as maps from bucket to count, and their arithmetic.

use std::collections::BTreeMap;

use tsdb::model::{CUSTOM_BUCKETS_SCHEMA, CounterReset, FloatHistogram, Span};

/// A native histogram. Empty buckets aren't kept.
#[derive(Clone, Debug)]
pub struct Histogram {
    /// What is known of a reset before it.
    pub hint: CounterReset,
    /// Resolution.
    pub schema: i32,
    /// Half the width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// Positive buckets by index; custom ones too.
    pub positive: BTreeMap<i32, f64>,
    /// Negative buckets by index.
    pub negative: BTreeMap<i32, f64>,
    /// Upper bounds of custom buckets but the last.
    pub bounds: Vec<f64>,
}

/// A bucket: its bounds, and how many observations it has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Observations.
    pub count: f64,
}

/// Exponential and custom buckets can't be combined.
#[derive(Clone, Copy, Debug)]
pub struct Incompatible;

impl From<&FloatHistogram> for Histogram {
    fn from(h: &FloatHistogram) -> Self {
        Self {
            hint: h.counter_reset,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: h.zero_count,
            count: h.count,
            sum: h.sum,
            positive: h.positive().filter(|(_, count)| *count != 0.0).collect(),
            negative: h.negative().filter(|(_, count)| *count != 0.0).collect(),
            bounds: h.custom_values.as_deref().unwrap_or_default().to_vec(),
        }
    }
}

impl From<&Histogram> for FloatHistogram {
    fn from(h: &Histogram) -> Self {
        let side = |buckets: &BTreeMap<i32, f64>| {
            let mut next = 0;
            let span = |index: &i32| {
                let offset = index - std::mem::replace(&mut next, index + 1);
                Span { offset, length: 1 }
            };
            (buckets.keys().map(span).collect::<Vec<_>>(), buckets.values().copied().collect::<Vec<_>>())
        };
        let (positive_spans, positive_buckets) = side(&h.positive);
        let (negative_spans, negative_buckets) = side(&h.negative);
        Self {
            counter_reset: h.hint,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: h.zero_count,
            count: h.count,
            sum: h.sum,
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: h.is_custom().then(|| h.bounds.as_slice().into()),
        }
    }
}

/// Where bucket `index` of an exponential schema ends.
fn bound(index: i32, schema: i32) -> f64 {
    let exponent = f64::from(index) * (-f64::from(schema)).exp2();
    if exponent == 1024.0 { f64::MAX } else { exponent.exp2() }
}

impl Histogram {
    /// Whether its buckets have bounds of their own.
    pub fn is_custom(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Whether it is a gauge.
    pub fn is_gauge(&self) -> bool {
        self.hint == CounterReset::Gauge
    }

    /// Bounds of a positive or custom bucket.
    pub fn positive_bucket(&self, index: i32, count: f64) -> Bucket {
        if self.is_custom() {
            let at = |i: i32| usize::try_from(i).ok().and_then(|i| self.bounds.get(i)).copied();
            let lower = if index == 0 { f64::NEG_INFINITY } else { at(index - 1).unwrap_or(f64::INFINITY) };
            return Bucket { lower, upper: at(index).unwrap_or(f64::INFINITY), count };
        }
        Bucket { lower: bound(index - 1, self.schema), upper: bound(index, self.schema), count }
    }

    /// Bounds of a negative bucket.
    pub fn negative_bucket(&self, index: i32, count: f64) -> Bucket {
        let Bucket { lower, upper, count } = self.positive_bucket(index, count);
        Bucket { lower: -upper, upper: -lower, count }
    }

    /// Filled buckets by ascending bounds; a zero bucket only if it has more than nothing, and all of its width.
    pub fn buckets(&self) -> Vec<Bucket> {
        let mut all: Vec<Bucket> =
            self.negative.iter().rev().map(|(i, count)| self.negative_bucket(*i, *count)).collect();
        if !self.is_custom() && self.zero_count > 0.0 {
            all.push(Bucket {
                lower: -self.zero_threshold,
                upper: self.zero_threshold,
                count: self.zero_count,
            });
        }
        all.extend(self.positive.iter().map(|(i, count)| self.positive_bucket(*i, *count)));
        if !self.is_custom() {
            for bucket in &mut all {
                match bucket {
                    Bucket { upper, .. } if -self.zero_threshold < *upper && *upper < 0.0 => {
                        *upper = -self.zero_threshold;
                    }
                    Bucket { lower, .. } if 0.0 < *lower && *lower < self.zero_threshold => {
                        *lower = self.zero_threshold;
                    }
                    _ => {}
                }
            }
        }
        all
    }

    fn each(&self, of: impl Fn(f64) -> f64) -> Self {
        let mut result = self.clone();
        for number in [&mut result.zero_count, &mut result.count, &mut result.sum]
            .into_iter()
            .chain(result.positive.values_mut())
            .chain(result.negative.values_mut())
        {
            *number = of(*number);
        }
        result.compact();
        result
    }

    fn compact(&mut self) {
        self.positive.retain(|_, count| *count != 0.0);
        self.negative.retain(|_, count| *count != 0.0);
    }

    /// Every number multiplied; a negative factor makes a gauge.
    pub fn times(&self, factor: f64) -> Self {
        let mut result = self.each(|v| v * factor);
        if factor < 0.0 {
            result.hint = CounterReset::Gauge;
        }
        result
    }

    /// Every number divided.
    pub fn over(&self, divisor: f64) -> Self {
        let mut result = self.each(|v| v / divisor);
        if divisor == 0.0 {
            result.positive.clear();
            result.negative.clear();
        }
        if divisor < 0.0 {
            result.hint = CounterReset::Gauge;
        }
        result
    }

    /// Fewer buckets, to the schema.
    fn coarser(&mut self, schema: i32) {
        while self.schema > schema {
            for buckets in [&mut self.positive, &mut self.negative] {
                let mut merged = BTreeMap::new();
                for (index, count) in std::mem::take(buckets) {
                    // Two neighbours become one; a bucket is named by where it ends.
                    *merged.entry((index + 1).div_euclid(2)).or_insert(0.0) += count;
                }
                *buckets = merged;
            }
            self.schema -= 1;
        }
    }

    /// A zero bucket of at least that width, over whole buckets.
    fn wider_zero(&mut self, threshold: f64) {
        if threshold <= self.zero_threshold {
            return;
        }
        let mut threshold = threshold;
        let indexes: Vec<i32> = self.positive.keys().chain(self.negative.keys()).copied().collect();
        while let Some(cut) = indexes
            .iter()
            .find(|i| bound(**i - 1, self.schema) < threshold && threshold < bound(**i, self.schema))
        {
            threshold = bound(*cut, self.schema);
        }
        let schema = self.schema;
        for buckets in [&mut self.positive, &mut self.negative] {
            buckets.retain(|index, count| {
                let swallowed = bound(*index, schema) <= threshold;
                self.zero_count += if swallowed { *count } else { 0.0 };
                !swallowed
            });
        }
        self.zero_threshold = threshold;
    }

    /// Custom buckets by fewer bounds.
    fn rebound(&mut self, bounds: &[f64]) {
        let mut mapped = BTreeMap::new();
        for (index, count) in std::mem::take(&mut self.positive) {
            let upper = self.bounds.get(index as usize).copied().unwrap_or(f64::INFINITY);
            let to = bounds.iter().position(|bound| *bound >= upper).unwrap_or(bounds.len());
            *mapped.entry(to as i32).or_insert(0.0) += count;
        }
        self.positive = mapped;
        self.bounds = bounds.to_vec();
    }

    fn align(&mut self, other: &mut Self) -> Result<(), Incompatible> {
        if self.is_custom() != other.is_custom() {
            return Err(Incompatible);
        }
        if self.is_custom() {
            let common: Vec<f64> = self.bounds.iter().copied().filter(|b| other.bounds.contains(b)).collect();
            self.rebound(&common);
            other.rebound(&common);
            return Ok(());
        }
        while self.zero_threshold != other.zero_threshold {
            self.wider_zero(other.zero_threshold);
            other.wider_zero(self.zero_threshold);
        }
        let schema = self.schema.min(other.schema);
        self.coarser(schema);
        other.coarser(schema);
        Ok(())
    }

    /// Its own numbers, in the finest layout that another can be brought to as well.
    ///
    /// # Errors
    /// Exponential and custom buckets don't go together.
    pub fn laid_out_with(&mut self, other: &Self) -> Result<(), Incompatible> {
        self.align(&mut other.clone())
    }

    /// `self + sign * other`; hints aren't looked at.
    pub fn combined(&self, other: &Self, sign: f64) -> Result<Self, Incompatible> {
        let (mut a, mut b) = (self.clone(), other.clone());
        a.align(&mut b)?;
        a.zero_count += sign * b.zero_count;
        a.count += sign * b.count;
        a.sum += sign * b.sum;
        for (into, from) in [(&mut a.positive, b.positive), (&mut a.negative, b.negative)] {
            for (index, count) in from {
                *into.entry(index).or_insert(0.0) += sign * count;
            }
        }
        a.compact();
        Ok(a)
    }

    /// The hint of a sum.
    pub fn united_hint(a: CounterReset, b: CounterReset) -> CounterReset {
        match (a, b) {
            (a, b) if a == b => a,
            (CounterReset::Gauge, _) | (_, CounterReset::Gauge) => CounterReset::Gauge,
            _ => CounterReset::Unknown,
        }
    }

    /// The sum of two.
    ///
    /// # Errors
    /// Exponential and custom buckets don't go together.
    pub fn plus(&self, other: &Self) -> Result<Self, Incompatible> {
        let mut sum = self.combined(other, 1.0)?;
        sum.hint = Self::united_hint(self.hint, other.hint);
        Ok(sum)
    }

    /// The difference of two, a gauge.
    ///
    /// # Errors
    /// Exponential and custom buckets don't go together.
    pub fn minus(&self, other: &Self) -> Result<Self, Incompatible> {
        let mut difference = self.combined(other, -1.0)?;
        difference.hint = CounterReset::Gauge;
        Ok(difference)
    }

    /// All of them in one, number by number.
    ///
    /// # Errors
    /// Exponential and custom buckets don't go together.
    pub fn united(all: &[&Self], of: fn(&[f64]) -> f64) -> Result<Self, Incompatible> {
        let mut layout = all[0].clone();
        for other in all {
            layout.align(&mut (*other).clone())?;
        }
        let mut hint = all[0].hint;
        let mut aligned = Vec::new();
        for other in all {
            let mut other = (*other).clone();
            other.align(&mut layout.clone())?;
            hint = Self::united_hint(hint, other.hint);
            aligned.push(other);
        }
        let number = |get: &dyn Fn(&Self) -> f64| of(&aligned.iter().map(get).collect::<Vec<_>>());
        let side = |get: fn(&Self) -> &BTreeMap<i32, f64>| {
            let indexes: Vec<i32> = aligned.iter().flat_map(|h| get(h).keys().copied()).collect();
            let at = |index: i32| number(&|h| get(h).get(&index).copied().unwrap_or(0.0));
            indexes.into_iter().map(|index| (index, at(index))).collect::<BTreeMap<_, _>>()
        };
        let mut result = Self {
            hint,
            zero_count: number(&|h| h.zero_count),
            count: number(&|h| h.count),
            sum: number(&|h| h.sum),
            positive: side(|h| &h.positive),
            negative: side(|h| &h.negative),
            ..layout
        };
        result.compact();
        Ok(result)
    }

    /// Whether both hold the same.
    pub fn equals(&self, other: &Self) -> bool {
        let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
        self.schema == other.schema
            && same(self.count, other.count)
            && same(self.sum, other.sum)
            && (self.is_custom()
                || (self.zero_threshold == other.zero_threshold && same(self.zero_count, other.zero_count)))
            && self.positive == other.positive
            && self.negative == other.negative
            && self.bounds == other.bounds
    }

    /// Whether a counter was reset between `previous` and this.
    pub fn is_reset_after(&self, previous: &Self) -> bool {
        match self.hint {
            CounterReset::Reset => return true,
            CounterReset::NotReset => return false,
            CounterReset::Unknown | CounterReset::Gauge => {}
        }
        if self.count < previous.count || self.is_custom() != previous.is_custom() {
            return true;
        }
        let (mut now, mut before) = (self.clone(), previous.clone());
        if now.is_custom() {
            if now.align(&mut before).is_err() {
                return true;
            }
        } else {
            if now.schema > before.schema || now.zero_threshold < before.zero_threshold {
                return true;
            }
            before.wider_zero(now.zero_threshold);
            if before.zero_threshold != now.zero_threshold || now.zero_count < before.zero_count {
                return true;
            }
            before.coarser(now.schema);
        }
        let fell = |now: &BTreeMap<i32, f64>, before: &BTreeMap<i32, f64>| {
            before.iter().any(|(index, count)| now.get(index).copied().unwrap_or(0.0) < *count)
        };
        fell(&now.positive, &before.positive) || fell(&now.negative, &before.negative)
    }
}
