//! Native histograms from remote write: absolute counts from deltas, and the checks that keep a bad one out. Those of a
//! resolution finer than any that is stored are reduced to the finest, as Prometheus does.

use std::sync::Arc;

use tsdb::model::{
    CUSTOM_BUCKETS_SCHEMA, Count, CounterReset, FloatHistogram, Histogram, IntHistogram, Sample, Span, Value,
};
use tsdb::varint::unzigzag;

use super::wire::{Malformed, Reader};

/// Resolutions that a sender may use.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=52;

/// The finest resolution that is stored.
const SCHEMA_MAX: i32 = 8;

/// Most spans, and most buckets, of a side of a histogram. SDKs keep to 160 buckets; schema 8 has 2,048 a factor of 256.
const BUCKETS_MAX: usize = 16_384;

/// One message `Histogram`: `Err` when the message is broken, `Ok(Err)` when the histogram is.
pub fn decode<const HAS_START: bool>(bytes: &[u8]) -> Result<Result<Sample, String>, Malformed> {
    let mut raw = Fields::default();
    let mut fields = Reader::new(bytes);
    while let Some((number, field)) = fields.field()? {
        match number {
            1 => (raw.count_int, raw.is_float) = (field.varint()?, false),
            2 => (raw.count_float, raw.is_float) = (field.double()?, true),
            3 => raw.sum = field.double()?,
            4 => raw.schema = unzigzag(field.varint()?) as i32,
            5 => raw.zero_threshold = field.double()?,
            6 => raw.zero_int = field.varint()?,
            7 => raw.zero_float = field.double()?,
            8 => raw.push(|raw| &mut raw.negative.spans, span(field.bytes()?)?),
            9 => field.varints(|v| raw.push(|raw| &mut raw.negative.deltas, unzigzag(v)))?,
            10 => field.doubles(|v| raw.push(|raw| &mut raw.negative.counts, v))?,
            11 => raw.push(|raw| &mut raw.positive.spans, span(field.bytes()?)?),
            12 => field.varints(|v| raw.push(|raw| &mut raw.positive.deltas, unzigzag(v)))?,
            13 => field.doubles(|v| raw.push(|raw| &mut raw.positive.counts, v))?,
            14 => {
                raw.reset = match field.varint()? {
                    1 => CounterReset::Reset,
                    2 => CounterReset::NotReset,
                    3 => CounterReset::Gauge,
                    _ => CounterReset::Unknown,
                }
            }
            15 => raw.timestamp_ms = field.varint()? as i64,
            16 => field.doubles(|v| raw.push(|raw| &mut raw.custom_values, v))?,
            17 if HAS_START => raw.start_ms = field.varint()? as i64,
            _ => {}
        }
    }
    Ok(raw.into_sample())
}

#[derive(Default)]
struct Fields {
    is_float: bool,
    count_int: u64,
    count_float: f64,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    zero_int: u64,
    zero_float: f64,
    positive: Side,
    negative: Side,
    reset: CounterReset,
    timestamp_ms: i64,
    /// Only in those of remote write 2.0.
    start_ms: i64,
    custom_values: Vec<f64>,
    /// Whether it has more of something than [`BUCKETS_MAX`], which isn't kept.
    is_too_large: bool,
}

#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

fn span(bytes: &[u8]) -> Result<Span, Malformed> {
    let mut span = Span::default();
    let mut fields = Reader::new(bytes);
    while let Some((number, field)) = fields.field()? {
        match number {
            1 => span.offset = unzigzag(field.varint()?) as i32,
            2 => span.length = u32::try_from(field.varint()?).map_err(|_| Malformed::TooMany)?,
            _ => {}
        }
    }
    Ok(span)
}

impl Fields {
    /// Adds an element to one of the lists.
    fn push<T>(&mut self, list: impl FnOnce(&mut Self) -> &mut Vec<T>, element: T) {
        let list = list(self);
        if list.len() < BUCKETS_MAX {
            list.push(element);
        } else {
            self.is_too_large = true;
        }
    }

    fn into_sample(self) -> Result<Sample, String> {
        if self.is_too_large {
            return Err(format!("histogram has more than {BUCKETS_MAX} spans or buckets on a side"));
        }
        let (timestamp_ms, start_ms) = (self.timestamp_ms, self.start_ms);
        let value = if self.is_float {
            let counts = |side: &Side| side.counts.clone();
            let (positive, negative) = (counts(&self.positive), counts(&self.negative));
            let (count, zero) = (self.count_float, self.zero_float);
            Value::Histogram(Arc::new(reduced(
                self.histogram(count, zero, positive, negative, check_float)?,
                |a, b| a + b,
            )))
        } else {
            let (positive, negative) = (absolute(&self.positive.deltas)?, absolute(&self.negative.deltas)?);
            let (count, zero) = (self.count_int, self.zero_int);
            Value::Int(Arc::new(reduced(
                self.histogram(count, zero, positive, negative, check_int)?,
                u64::saturating_add,
            )))
        };
        Ok(Sample { timestamp_ms, start_ms, value })
    }

    fn histogram<C: Count>(
        self,
        count: C,
        zero_count: C,
        positive_buckets: Vec<C>,
        negative_buckets: Vec<C>,
        check: fn(&Histogram<C>) -> Result<(), String>,
    ) -> Result<Histogram<C>, String> {
        let custom = self.schema == CUSTOM_BUCKETS_SCHEMA;
        let histogram = Histogram {
            counter_reset: self.reset,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count,
            count,
            sum: self.sum,
            positive_spans: self.positive.spans,
            negative_spans: self.negative.spans,
            positive_buckets,
            negative_buckets,
            custom_values: custom.then(|| self.custom_values.as_slice().into()),
        };
        if custom {
            check_custom(&histogram)?;
        } else if !SCHEMAS.contains(&histogram.schema) {
            return Err(format!("histogram has unknown schema {}", histogram.schema));
        }
        check_spans(&histogram.positive_spans, histogram.positive_buckets.len(), "positive")?;
        check_spans(&histogram.negative_spans, histogram.negative_buckets.len(), "negative")?;
        check(&histogram)?;
        Ok(histogram)
    }
}

/// The histogram at a resolution that is stored: 2^n buckets of schema s + n are one of schema s.
fn reduced<C: Count>(mut histogram: Histogram<C>, add: fn(C, C) -> C) -> Histogram<C> {
    let steps = histogram.schema - SCHEMA_MAX;
    if steps <= 0 {
        return histogram;
    }
    let side = |buckets: &mut dyn Iterator<Item = (i32, C)>| {
        let (mut spans, mut counts): (Vec<Span>, Vec<C>) = Default::default();
        let mut next = 0;
        for (index, count) in buckets {
            let index = ((i64::from(index) - 1) >> steps) as i32 + 1;
            match (spans.last_mut(), counts.last_mut()) {
                (Some(_), Some(last)) if index == next - 1 => *last = add(*last, count),
                (Some(span), Some(_)) if index == next => {
                    span.length += 1;
                    counts.push(count);
                }
                _ => {
                    spans.push(Span { offset: index - next, length: 1 });
                    counts.push(count);
                }
            }
            next = index + 1;
        }
        (spans, counts)
    };
    (histogram.positive_spans, histogram.positive_buckets) = side(&mut histogram.positive());
    (histogram.negative_spans, histogram.negative_buckets) = side(&mut histogram.negative());
    histogram.schema = SCHEMA_MAX;
    histogram
}

/// Absolute counts from differences.
fn absolute(deltas: &[i64]) -> Result<Vec<u64>, String> {
    let mut count = 0i64;
    let add = |delta: &i64| {
        count = count.checked_add(*delta)?;
        u64::try_from(count).ok()
    };
    deltas
        .iter()
        .map(add)
        .collect::<Option<_>>()
        .ok_or_else(|| "histogram has a negative bucket count".to_owned())
}

fn check_spans(spans: &[Span], buckets: usize, side: &str) -> Result<(), String> {
    if let Some(at) = spans.iter().skip(1).position(|s| s.offset < 0) {
        return Err(format!("histogram's {side} span {} has a negative offset", at + 1));
    }
    let length: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
    if length != buckets as u64 {
        return Err(format!("histogram's {side} spans cover {length} buckets, but there are {buckets}"));
    }
    // The greatest index must be a number: spans that run past 2^31 have no bounds.
    let reach: i64 = spans.iter().map(|s| i64::from(s.offset) + i64::from(s.length)).sum();
    if i32::try_from(reach).is_err() {
        return Err(format!("histogram's {side} spans reach too far"));
    }
    Ok(())
}

fn check_custom<C: Count>(histogram: &Histogram<C>) -> Result<(), String> {
    let bounds = histogram.custom_values.as_deref().unwrap_or_default();
    if bounds.iter().any(|b| b.is_nan() || *b == f64::INFINITY) || !bounds.is_sorted_by(|a, b| a < b) {
        return Err("histogram's custom bounds aren't ascending numbers below +Inf".to_owned());
    }
    if !histogram.negative_spans.is_empty() || !histogram.negative_buckets.is_empty() {
        return Err("a histogram with custom bounds has no negative buckets".to_owned());
    }
    if histogram.zero_count != C::default() || histogram.zero_threshold != 0.0 {
        return Err("a histogram with custom bounds has no zero bucket".to_owned());
    }
    let reach: i64 = histogram.positive_spans.iter().map(|s| i64::from(s.offset) + i64::from(s.length)).sum();
    if histogram.positive_spans.first().is_some_and(|s| s.offset < 0) || reach > bounds.len() as i64 + 1 {
        return Err("histogram's spans lie outside its custom bounds".to_owned());
    }
    Ok(())
}

fn check_int(histogram: &IntHistogram) -> Result<(), String> {
    let buckets = histogram.positive_buckets.iter().chain(&histogram.negative_buckets);
    let observed = buckets.fold(histogram.zero_count, |sum, count| sum.saturating_add(*count));
    // Observations of NaN are counted but fall into no bucket, and make the sum NaN.
    let fits = if histogram.sum.is_nan() { observed <= histogram.count } else { observed == histogram.count };
    if fits {
        Ok(())
    } else {
        Err(format!("histogram's buckets hold {observed} observations, but its count is {}", histogram.count))
    }
}

fn check_float(histogram: &FloatHistogram) -> Result<(), String> {
    let buckets = histogram.positive_buckets.iter().chain(&histogram.negative_buckets);
    // Rounding lets the count differ from the buckets' sum.
    if buckets.chain([&histogram.zero_count, &histogram.count]).any(|c| *c < 0.0) {
        return Err("histogram has a negative count".to_owned());
    }
    Ok(())
}
