//! Native histograms from remote write: absolute counts from deltas, and the checks that keep a bad one out.

use std::sync::Arc;

use tsdb::model::{
    CUSTOM_BUCKETS_SCHEMA, Count, CounterReset, FloatHistogram, Histogram, IntHistogram, Sample, Span, Value,
};
use tsdb::varint::unzigzag;

use super::wire::{Malformed, Reader};

/// Resolutions that exist.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

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
            8 => raw.negative.spans.push(span(field.bytes()?)?),
            9 => field.varints(|v| raw.negative.deltas.push(unzigzag(v)))?,
            10 => field.doubles(|v| raw.negative.counts.push(v))?,
            11 => raw.positive.spans.push(span(field.bytes()?)?),
            12 => field.varints(|v| raw.positive.deltas.push(unzigzag(v)))?,
            13 => field.doubles(|v| raw.positive.counts.push(v))?,
            14 => {
                raw.reset = match field.varint()? {
                    1 => CounterReset::Reset,
                    2 => CounterReset::NotReset,
                    3 => CounterReset::Gauge,
                    _ => CounterReset::Unknown,
                }
            }
            15 => raw.timestamp_ms = field.varint()? as i64,
            16 => field.doubles(|v| raw.custom_values.push(v))?,
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
    fn into_sample(self) -> Result<Sample, String> {
        let (timestamp_ms, start_ms) = (self.timestamp_ms, self.start_ms);
        let value = if self.is_float {
            let counts = |side: &Side| side.counts.clone();
            let (positive, negative) = (counts(&self.positive), counts(&self.negative));
            let (count, zero) = (self.count_float, self.zero_float);
            Value::Histogram(Arc::new(self.histogram(count, zero, positive, negative, check_float)?))
        } else {
            let (positive, negative) = (absolute(&self.positive.deltas)?, absolute(&self.negative.deltas)?);
            let (count, zero) = (self.count_int, self.zero_int);
            Value::Int(Arc::new(self.histogram(count, zero, positive, negative, check_int)?))
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
