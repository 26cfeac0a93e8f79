//! Native histogram samples, and how many floats of the same append come before each: see `samples`.
//!
//! ```text
//! sample: | control u8 | floats | ref, time, start: signed varints | schema: signed varint | sum f64 |
//!         | zero_threshold f64 | zero_count | count | layout positive | layout negative |
//!         | counts positive | counts negative | custom bounds |
//! layout: | spans: unsigned varint | per span: offset signed, length unsigned varint |
//! counts: | buckets: unsigned varint | integer: differences to the bucket before, signed varints; float: f64 each |
//! custom: | bounds: unsigned varint | f64 each |                only where control says so
//! control:  bit 0  float counts      bits 1-2  counter reset      bit 3  custom bounds
//!           bit 4  floats come between this histogram and the one before: `floats`, an unsigned varint, says how many
//! ```
//! Ref, timestamp and start are differences to the sample before, the first to 0. `zero_count` and `count` are
//! unsigned varints, or f64 with float counts. Floats are little-endian.

use std::sync::Arc;

use super::Times;
use super::bytes::{Rest, put_f64, put_series, put_timestamp};
use super::entries::{Decode, Entries};
use crate::Result;
use crate::head::SeriesRef;
use crate::model::{Count, CounterReset, Histogram, Sample, Span, Value};
use crate::varint;

const FLOAT: u8 = 1;
const RESET_SHIFT: u8 = 1;
const RESET_BITS: u8 = 0b11;
const CUSTOM: u8 = 1 << 3;
const FLOATS: u8 = 1 << 4;
const UNUSED: u8 = 0xe0;

/// Most bytes that a histogram may take in a record: larger ones are refused, so that every record stays below
/// [`PAYLOAD_BYTES_MAX`](crate::wal::PAYLOAD_BYTES_MAX) and every node can log what it is sent.
pub const HISTOGRAM_BYTES_MAX: usize = 4 << 20;

/// Bytes that a sample takes in a record, at most; `None` for a float.
pub fn bytes_max(value: &Value) -> Option<usize> {
    match value {
        Value::Float(_) => None,
        Value::Int(histogram) => Some(histogram_bytes_max(histogram)),
        Value::Histogram(histogram) => Some(histogram_bytes_max(histogram)),
    }
}

fn histogram_bytes_max<C>(histogram: &Histogram<C>) -> usize {
    // Control, eight varints, two counts, sum and threshold; then five lists with their lengths.
    const FIXED: usize = 1 + 15 * varint::BYTES_MAX + 2 * 8;
    let spans = histogram.positive_spans.len() + histogram.negative_spans.len();
    let buckets = histogram.positive_buckets.len() + histogram.negative_buckets.len();
    let bounds = histogram.custom_values.as_ref().map_or(0, |bounds| bounds.len());
    FIXED + 2 * varint::BYTES_MAX * spans + varint::BYTES_MAX * buckets + 8 * bounds
}

/// Writes histogram samples.
#[derive(Default)]
pub struct HistogramsWriter {
    bytes: Vec<u8>,
    count: usize,
    floats_before: u64,
    series: u64,
    timestamp_ms: i64,
    start_ms: i64,
    times: Times,
}

impl HistogramsWriter {
    /// Adds a sample that `floats_before` floats of the append come before, as many as before the last one or more;
    /// says no to a float, which belongs into another list.
    #[must_use]
    pub fn push(&mut self, floats_before: u64, series: SeriesRef, sample: &Sample) -> bool {
        match &sample.value {
            Value::Float(_) => return false,
            Value::Int(histogram) => self.put(floats_before, series, sample, 0, histogram),
            Value::Histogram(histogram) => self.put(floats_before, series, sample, FLOAT, histogram),
        }
        true
    }

    /// The record so far.
    pub fn payload(&self) -> &[u8] {
        &self.bytes
    }

    /// Least and greatest timestamp, in milliseconds.
    pub fn times_ms(&self) -> (i64, i64) {
        (self.times.0, self.times.1)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets all samples, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::default() };
    }

    fn put<C: Coded>(
        &mut self,
        floats_before: u64,
        series: SeriesRef,
        sample: &Sample,
        float: u8,
        histogram: &Histogram<C>,
    ) {
        let out = &mut self.bytes;
        let custom = if histogram.custom_values.is_some() { CUSTOM } else { 0 };
        let floats = floats_before - std::mem::replace(&mut self.floats_before, floats_before);
        let has_floats = if floats > 0 { FLOATS } else { 0 };
        out.push(float | (histogram.counter_reset as u8) << RESET_SHIFT | custom | has_floats);
        if floats > 0 {
            varint::put(out, floats);
        }
        put_series(out, &mut self.series, series);
        put_timestamp(out, &mut self.timestamp_ms, sample.timestamp_ms);
        put_timestamp(out, &mut self.start_ms, sample.start_ms);
        varint::put_signed(out, histogram.schema.into());
        put_f64(out, histogram.sum);
        put_f64(out, histogram.zero_threshold);
        histogram.zero_count.put(out);
        histogram.count.put(out);
        for spans in [&histogram.positive_spans, &histogram.negative_spans] {
            varint::put(out, spans.len() as u64);
            for span in spans {
                varint::put_signed(out, span.offset.into());
                varint::put(out, span.length.into());
            }
        }
        for buckets in [&histogram.positive_buckets, &histogram.negative_buckets] {
            varint::put(out, buckets.len() as u64);
            C::put_all(buckets, out);
        }
        if let Some(bounds) = &histogram.custom_values {
            varint::put(out, bounds.len() as u64);
            bounds.iter().for_each(|bound| put_f64(out, *bound));
        }
        self.times.add(sample.timestamp_ms);
        self.count += 1;
    }
}

/// How counts are written.
trait Coded: Count {
    /// Fewest bytes of one in a list.
    const BYTES_MIN: usize;
    fn put(self, out: &mut Vec<u8>);
    fn put_all(counts: &[Self], out: &mut Vec<u8>);
    fn take(rest: &mut Rest<'_>) -> Result<Self>;
    fn take_all(rest: &mut Rest<'_>, count: usize) -> Result<Vec<Self>>;
}

impl Coded for u64 {
    const BYTES_MIN: usize = 1;

    fn put(self, out: &mut Vec<u8>) {
        varint::put(out, self);
    }

    fn put_all(counts: &[Self], out: &mut Vec<u8>) {
        let mut previous = 0;
        for count in counts {
            varint::put_signed(out, count.wrapping_sub(previous) as i64);
            previous = *count;
        }
    }

    fn take(rest: &mut Rest<'_>) -> Result<Self> {
        rest.unsigned()
    }

    fn take_all(rest: &mut Rest<'_>, count: usize) -> Result<Vec<Self>> {
        let mut previous = 0u64;
        let mut next = || {
            previous = previous.wrapping_add(rest.signed()? as u64);
            Ok(previous)
        };
        (0..count).map(|_| next()).collect()
    }
}

impl Coded for f64 {
    const BYTES_MIN: usize = 8;

    fn put(self, out: &mut Vec<u8>) {
        put_f64(out, self);
    }

    fn put_all(counts: &[Self], out: &mut Vec<u8>) {
        counts.iter().for_each(|count| put_f64(out, *count));
    }

    fn take(rest: &mut Rest<'_>) -> Result<Self> {
        rest.f64()
    }

    fn take_all(rest: &mut Rest<'_>, count: usize) -> Result<Vec<Self>> {
        (0..count).map(|_| rest.f64()).collect()
    }
}

/// Reads histogram samples.
pub type Histograms<'a> = Entries<'a, Previous>;

/// A histogram sample of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSample {
    /// How many floats of the same append come before it.
    pub floats_before: u64,
    /// Which series.
    pub series: SeriesRef,
    /// The sample, which is no float.
    pub sample: Sample,
}

/// What the next sample is read against.
#[derive(Default)]
pub struct Previous {
    floats_before: u64,
    series: u64,
    timestamp_ms: i64,
    start_ms: i64,
}

impl<'a> Decode<'a> for Previous {
    type Entry = HistogramSample;
    const WHAT: &'static str = "WAL record of histograms";

    fn decode(&mut self, rest: &mut Rest<'a>) -> Result<Self::Entry> {
        let control = rest.byte()?;
        if control & UNUSED != 0 {
            return Err(rest.error("unknown control bits"));
        }
        if control & FLOATS != 0 {
            self.floats_before = self.floats_before.saturating_add(rest.unsigned()?);
        }
        let series = rest.series(&mut self.series)?;
        let timestamp_ms = rest.timestamp(&mut self.timestamp_ms)?;
        let start_ms = rest.timestamp(&mut self.start_ms)?;
        let value = if control & FLOAT == 0 {
            Value::Int(Arc::new(histogram(rest, control)?))
        } else {
            Value::Histogram(Arc::new(histogram(rest, control)?))
        };
        let sample = Sample { timestamp_ms, start_ms, value };
        Ok(HistogramSample { floats_before: self.floats_before, series, sample })
    }
}

fn histogram<C: Coded>(rest: &mut Rest<'_>, control: u8) -> Result<Histogram<C>> {
    let counter_reset = match control >> RESET_SHIFT & RESET_BITS {
        0 => CounterReset::Unknown,
        1 => CounterReset::Reset,
        2 => CounterReset::NotReset,
        _ => CounterReset::Gauge,
    };
    let schema = i32::try_from(rest.signed()?).map_err(|_| rest.error("no such schema"))?;
    let (sum, zero_threshold) = (rest.f64()?, rest.f64()?);
    let (zero_count, count) = (C::take(rest)?, C::take(rest)?);
    let (positive_spans, negative_spans) = (spans(rest)?, spans(rest)?);
    let positive_buckets = buckets(rest, &positive_spans)?;
    let negative_buckets = buckets(rest, &negative_spans)?;
    let custom_values = if control & CUSTOM == 0 {
        None
    } else {
        let bounds = rest.count(8)?;
        Some((0..bounds).map(|_| rest.f64()).collect::<Result<Arc<[f64]>>>()?)
    };
    Ok(Histogram {
        counter_reset,
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans,
        negative_spans,
        positive_buckets,
        negative_buckets,
        custom_values,
    })
}

fn spans(rest: &mut Rest<'_>) -> Result<Vec<Span>> {
    let count = rest.count(2)?;
    let mut span = || {
        let offset = i32::try_from(rest.signed()?).map_err(|_| rest.error("a span begins nowhere"))?;
        let length = u32::try_from(rest.unsigned()?).map_err(|_| rest.error("a span is too long"))?;
        Ok(Span { offset, length })
    };
    (0..count).map(|_| span()).collect()
}

/// As many buckets as the spans have: whoever reads a histogram relies on it.
fn buckets<C: Coded>(rest: &mut Rest<'_>, spans: &[Span]) -> Result<Vec<C>> {
    let count = rest.count(C::BYTES_MIN)?;
    if spans.iter().map(|span| u64::from(span.length)).sum::<u64>() != count as u64 {
        return Err(rest.error("spans and buckets don't agree"));
    }
    C::take_all(rest, count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wal::TIMELESS;

    fn spans_of(lengths: &[u32]) -> Vec<Span> {
        lengths.iter().zip(-2..).map(|(length, offset)| Span { offset, length: *length }).collect()
    }

    fn histogram<C: Count>(counts: &[C], lengths: &[u32], custom: bool) -> Histogram<C> {
        let buckets = |n: u32| (0..n as usize).map(|i| counts[i % counts.len()]).collect();
        let total = lengths.iter().sum();
        Histogram {
            counter_reset: CounterReset::NotReset,
            schema: if custom { -53 } else { 3 },
            zero_threshold: 0.001,
            zero_count: counts[0],
            count: counts[counts.len() - 1],
            sum: 12.5,
            positive_spans: spans_of(lengths),
            negative_spans: spans_of(&lengths[..1]),
            positive_buckets: buckets(total),
            negative_buckets: buckets(lengths[0]),
            custom_values: custom.then(|| Arc::from([0.5, 1.0, 2.5])),
        }
    }

    fn round_trip(all: &[(SeriesRef, Sample)]) -> Vec<u8> {
        let mut writer = HistogramsWriter::default();
        let mut written = Vec::new();
        for (i, (series, sample)) in all.iter().enumerate() {
            let floats_before = 200 * (i as u64 / 2);
            assert!(writer.push(floats_before, *series, sample));
            written.push(HistogramSample { floats_before, series: *series, sample: sample.clone() });
        }
        let read: Vec<_> = Histograms::new(writer.payload()).map(Result::unwrap).collect();
        assert_eq!(read, written);
        let most = all.iter().filter_map(|(_, sample)| bytes_max(&sample.value)).sum::<usize>();
        assert!(writer.payload().len() <= most, "{} bytes, not {most}", writer.payload().len());
        writer.payload().to_vec()
    }

    #[test]
    fn a_float_is_turned_away() {
        let mut writer = HistogramsWriter::default();
        assert!(!writer.push(0, SeriesRef::from_u64(1), &Sample::float(1, 2.0)));
        assert!(writer.is_empty());
        assert_eq!(writer.times_ms(), TIMELESS);
    }

    #[test]
    fn spans_that_do_not_fit_the_buckets_are_refused() {
        let mut wrong = histogram(&[1u64, 2], &[3, 1], false);
        wrong.positive_buckets.pop();
        let sample = Sample { timestamp_ms: 1, start_ms: 0, value: Value::Int(Arc::new(wrong)) };
        let mut writer = HistogramsWriter::default();
        assert!(writer.push(0, SeriesRef::from_u64(1), &sample));
        assert!(Histograms::new(writer.payload()).next().unwrap().is_err());
    }

    fn any_sample() -> impl Strategy<Value = (SeriesRef, Sample)> {
        let counts = prop::collection::vec(any::<u64>(), 1..6);
        let lengths = prop::collection::vec(0..9u32, 1..5);
        (any::<u64>(), any::<i64>(), -1..2i64, counts, lengths, any::<bool>(), any::<bool>()).prop_map(
            |(series, timestamp_ms, start_ms, counts, lengths, float, custom)| {
                let value = if float {
                    let counts: Vec<f64> = counts.iter().map(|c| c.to_f64() / 3.0).collect();
                    Value::Histogram(Arc::new(histogram(&counts, &lengths, custom)))
                } else {
                    Value::Int(Arc::new(histogram(&counts, &lengths, custom)))
                };
                (SeriesRef::from_u64(series), Sample { timestamp_ms, start_ms, value })
            },
        )
    }

    proptest! {
        #[test]
        fn histograms_round_trip(all in prop::collection::vec(any_sample(), 0..10)) {
            round_trip(&all);
        }

        #[test]
        fn arbitrary_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index,
                                        sample in any_sample()) {
            prop_assert!(Histograms::new(&bytes).count() <= bytes.len());
            // And bytes that are nearly right.
            let mut hurt = round_trip(&[sample]);
            let at = at.index(hurt.len());
            hurt[at] ^= bytes.pop().unwrap_or(1);
            Histograms::new(&hurt).for_each(drop);
        }
    }
}
