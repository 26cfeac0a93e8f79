//! Native histograms in scripts: `{{schema:1 sum:3 count:22 buckets:[5 10 7]}}`, their sums, and when two are equal.

use std::collections::BTreeMap;
use std::sync::Arc;

use tsdb::model::{CounterReset, FloatHistogram, Span};

use crate::expect::{ShownHistogram, almost_equal};
use crate::scan::Scanner;

/// Reads one histogram, and whether its counter reset hint was written.
pub fn parse(scanner: &mut Scanner<'_>) -> Result<(FloatHistogram, bool), String> {
    if !scanner.take("{{") {
        return Err(format!("expected a histogram, found {:?}", scanner.rest()));
    }
    let mut histogram = FloatHistogram::default();
    let mut has_hint = false;
    let (mut offset, mut negative_offset) = (0, 0);
    loop {
        scanner.skip_spaces();
        if scanner.take("}}") {
            break;
        }
        let key = scanner.take_while(|c| c.is_ascii_lowercase() || c == '_');
        if !scanner.take(":") {
            return Err(format!("expected `:` behind {key:?}"));
        }
        match key {
            "schema" => histogram.schema = integer(scanner)?,
            "sum" => histogram.sum = scanner.float()?,
            "count" => histogram.count = scanner.float()?,
            "z_bucket" => histogram.zero_count = scanner.float()?,
            "z_bucket_w" => histogram.zero_threshold = scanner.float()?,
            "buckets" => histogram.positive_buckets = floats(scanner)?,
            "offset" => offset = integer(scanner)?,
            "n_buckets" => histogram.negative_buckets = floats(scanner)?,
            "n_offset" => negative_offset = integer(scanner)?,
            "custom_values" => histogram.custom_values = Some(Arc::from(floats(scanner)?)),
            "counter_reset_hint" => {
                has_hint = true;
                histogram.counter_reset = match scanner.take_while(|c| c.is_ascii_lowercase() || c == '_') {
                    "unknown" => CounterReset::Unknown,
                    "reset" => CounterReset::Reset,
                    "not_reset" => CounterReset::NotReset,
                    "gauge" => CounterReset::Gauge,
                    other => return Err(format!("unknown hint {other:?}")),
                };
            }
            other => return Err(format!("unknown key {other:?}")),
        }
    }
    histogram.positive_spans = spans(offset, histogram.positive_buckets.len())?;
    histogram.negative_spans = spans(negative_offset, histogram.negative_buckets.len())?;
    Ok((histogram, has_hint))
}

fn integer(scanner: &mut Scanner<'_>) -> Result<i32, String> {
    let text = scanner.take_while(|c| c.is_ascii_digit() || c == '-');
    text.parse().map_err(|_| format!("{text:?} is no whole number"))
}

/// `[1 2.5 3]`.
fn floats(scanner: &mut Scanner<'_>) -> Result<Vec<f64>, String> {
    if !scanner.take("[") {
        return Err("expected `[`".to_owned());
    }
    let mut values = Vec::new();
    loop {
        scanner.skip_spaces();
        if scanner.take("]") {
            return Ok(values);
        }
        values.push(scanner.float()?);
    }
}

fn spans(offset: i32, length: usize) -> Result<Vec<Span>, String> {
    let length = u32::try_from(length).map_err(|e| e.to_string())?;
    Ok(if length == 0 { Vec::new() } else { vec![Span { offset, length }] })
}

/// Counts by bucket index.
type Buckets = BTreeMap<i32, f64>;

/// The buckets of one side; those that hold nothing are left out.
fn buckets(spans: &[Span], counts: &[f64]) -> Buckets {
    let mut index = 0;
    let mut counts = counts.iter();
    let mut buckets = Buckets::new();
    for span in spans {
        index += span.offset;
        for count in counts.by_ref().take(span.length as usize) {
            if *count != 0.0 {
                buckets.insert(index, *count);
            }
            index += 1;
        }
    }
    buckets
}

/// The buckets of one side as `into` has them, which is no finer.
fn coarser(buckets: Buckets, from_schema: i32, to_schema: i32) -> Buckets {
    let shift = from_schema - to_schema;
    let mut out = Buckets::new();
    for (index, count) in buckets {
        *out.entry(((index - 1) >> shift) + 1).or_default() += count;
    }
    out
}

fn from_buckets(buckets: &Buckets) -> Result<(Vec<Span>, Vec<f64>), String> {
    let (Some((first, _)), Some((last, _))) = (buckets.first_key_value(), buckets.last_key_value()) else {
        return Ok((Vec::new(), Vec::new()));
    };
    let counts: Vec<f64> = (*first..=*last).map(|i| buckets.get(&i).copied().unwrap_or(0.0)).collect();
    Ok((spans(*first, counts.len())?, counts))
}

/// `base + factor * step`, in the resolution of `base`, as Prometheus expands a series of histograms.
pub fn add(base: &FloatHistogram, step: &FloatHistogram, factor: f64) -> Result<FloatHistogram, String> {
    if base.schema > step.schema || base.has_custom_buckets() != step.has_custom_buckets() {
        return Err(format!("histograms of schema {} and {} can't be added", step.schema, base.schema));
    }
    if base.custom_values != step.custom_values || base.zero_threshold != step.zero_threshold {
        return Err("histograms of a series have one layout".to_owned());
    }
    let side = |a: Buckets, b: Buckets| {
        let mut sum = a;
        for (index, count) in coarser(b, step.schema, base.schema) {
            *sum.entry(index).or_default() += factor * count;
        }
        from_buckets(&sum)
    };
    let (positive_spans, positive_buckets) = side(
        buckets(&base.positive_spans, &base.positive_buckets),
        buckets(&step.positive_spans, &step.positive_buckets),
    )?;
    let (negative_spans, negative_buckets) = side(
        buckets(&base.negative_spans, &base.negative_buckets),
        buckets(&step.negative_spans, &step.negative_buckets),
    )?;
    let counter_reset = match (base.counter_reset, step.counter_reset) {
        (a, b) if a == b => a,
        (CounterReset::Gauge, _) | (_, CounterReset::Gauge) => CounterReset::Gauge,
        _ => CounterReset::Unknown,
    };
    Ok(FloatHistogram {
        counter_reset,
        schema: base.schema,
        zero_threshold: base.zero_threshold,
        zero_count: base.zero_count + factor * step.zero_count,
        count: base.count + factor * step.count,
        sum: base.sum + factor * step.sum,
        positive_spans,
        negative_spans,
        positive_buckets,
        negative_buckets,
        custom_values: base.custom_values.clone(),
    })
}

/// Whether a result is the histogram expected; empty buckets don't count, the hint only where it was written.
pub fn equal(expected: &FloatHistogram, actual: &FloatHistogram, compare_hint: bool) -> bool {
    let side = |e: Buckets, a: Buckets| {
        e.len() == a.len() && e.iter().zip(&a).all(|(e, a)| e.0 == a.0 && almost_equal(*e.1, *a.1))
    };
    let bounds = |h: &FloatHistogram| h.custom_values.as_deref().unwrap_or_default().to_vec();
    expected.schema == actual.schema
        && almost_equal(expected.count, actual.count)
        && almost_equal(expected.sum, actual.sum)
        && expected.zero_threshold == actual.zero_threshold
        && almost_equal(expected.zero_count, actual.zero_count)
        && (!expected.has_custom_buckets() || bounds(expected) == bounds(actual))
        && side(
            buckets(&expected.positive_spans, &expected.positive_buckets),
            buckets(&actual.positive_spans, &actual.positive_buckets),
        )
        && side(
            buckets(&expected.negative_spans, &expected.negative_buckets),
            buckets(&actual.negative_spans, &actual.negative_buckets),
        )
        && (!compare_hint || expected.counter_reset == actual.counter_reset)
}

/// As scripts write it.
pub fn show(h: &FloatHistogram) -> String {
    let mut text = format!("{{{{schema:{} count:{} sum:{}", h.schema, h.count, h.sum);
    if h.zero_count != 0.0 || h.zero_threshold != 0.0 {
        text += &format!(" z_bucket:{} z_bucket_w:{}", h.zero_count, h.zero_threshold);
    }
    if let Some(bounds) = &h.custom_values {
        text += &format!(" custom_values:{bounds:?}");
    }
    for (name, spans, counts) in
        [("", &h.positive_spans, &h.positive_buckets), ("n_", &h.negative_spans, &h.negative_buckets)]
    {
        let buckets = buckets(spans, counts);
        if !buckets.is_empty() {
            text += &format!(" {name}buckets:{buckets:?}");
        }
    }
    if h.counter_reset != CounterReset::Unknown {
        text += &format!(" hint:{:?}", h.counter_reset);
    }
    text + "}}"
}

/// Whether a histogram that was shown by the HTTP API is the one expected.
pub fn equal_shown(expected: &FloatHistogram, actual: &ShownHistogram) -> bool {
    let shown = shown(expected);
    almost_equal(shown.count, actual.count)
        && almost_equal(shown.sum, actual.sum)
        && shown.buckets.len() == actual.buckets.len()
        && shown
            .buckets
            .iter()
            .zip(&actual.buckets)
            .all(|(e, a)| almost_equal(e.0, a.0) && almost_equal(e.1, a.1) && almost_equal(e.2, a.2))
}

/// A histogram in the HTTP API's form.
fn shown(h: &FloatHistogram) -> ShownHistogram {
    let bounds = |index: i32| {
        if !h.has_custom_buckets() {
            let growth = (-f64::from(h.schema)).exp2();
            return ((f64::from(index - 1) * growth).exp2(), (f64::from(index) * growth).exp2());
        }
        let custom = h.custom_values.as_deref().unwrap_or_default();
        let at = |i: i32| usize::try_from(i).ok().and_then(|i| custom.get(i).copied());
        let lower = if index == 0 { f64::NEG_INFINITY } else { at(index - 1).unwrap_or(f64::INFINITY) };
        (lower, at(index).unwrap_or(f64::INFINITY))
    };
    let negative = buckets(&h.negative_spans, &h.negative_buckets);
    let positive = buckets(&h.positive_spans, &h.positive_buckets);
    let mut shown: Vec<(f64, f64, f64)> = Vec::new();
    for (index, count) in negative.iter().rev() {
        let (lower, upper) = bounds(*index);
        shown.push((-upper, -lower, *count));
    }
    if h.zero_count > 0.0 {
        shown.push((-h.zero_threshold, h.zero_threshold, h.zero_count));
    }
    shown.extend(positive.iter().map(|(index, count)| {
        let (lower, upper) = bounds(*index);
        (lower, upper, *count)
    }));
    ShownHistogram { count: h.count, sum: h.sum, buckets: shown }
}
