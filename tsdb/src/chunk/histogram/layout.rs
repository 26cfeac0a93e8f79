//! What a chunk's histograms have in common: schema, zero threshold, and which buckets there are.

use std::sync::Arc;

use crate::Result;
use crate::chunk::bits::{BitReader, BitWriter};
use crate::chunk::varbit::{push_varbit_int, push_varbit_uint, read_varbit_int, read_varbit_uint};
use crate::model::{CUSTOM_BUCKETS_SCHEMA, Count, Histogram, Span, bucket_indexes};

/// A zero threshold of 64 bits follows.
const THRESHOLD_FOLLOWS: u8 = 255;
/// Byte `n` from 1 to 254 is the threshold 2^(n - 244).
const THRESHOLD_EXPONENT_BIAS: i32 = 244;
/// Bounds are tried as whole thousandths.
const BOUND_UNITS: f64 = 1000.0;
/// Most thousandths that are written as an integer: with one added they fit in 25 bits.
const BOUND_UNITS_MAX: f64 = 33_554_430.0;

/// A chunk's layout.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Layout {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) positive_spans: Vec<Span>,
    pub(super) negative_spans: Vec<Span>,
    pub(super) custom_values: Option<Arc<[f64]>>,
}

impl Layout {
    /// The layout that a histogram's own buckets make.
    pub(super) fn of<C: Count>(histogram: &Histogram<C>) -> Self {
        Self {
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            positive_spans: spans_of(histogram.positive().map(|(i, _)| i)),
            negative_spans: spans_of(histogram.negative().map(|(i, _)| i)),
            custom_values: histogram.custom_values.clone(),
        }
    }

    /// Whether a histogram differs in nothing but its buckets.
    pub(super) fn suits<C: Count>(&self, histogram: &Histogram<C>) -> bool {
        fn bounds(values: Option<&Arc<[f64]>>) -> impl Iterator<Item = u64> {
            values.into_iter().flat_map(|values| values.iter()).map(|bound| bound.to_bits())
        }
        self.schema == histogram.schema
            && self.zero_threshold.to_bits() == histogram.zero_threshold.to_bits()
            && bounds(self.custom_values.as_ref()).eq(bounds(histogram.custom_values.as_ref()))
    }

    /// The same layout with a histogram's buckets added.
    pub(super) fn widened<C: Count>(&self, histogram: &Histogram<C>) -> Self {
        Self {
            positive_spans: union(&self.positive_spans, &histogram.positive_spans),
            negative_spans: union(&self.negative_spans, &histogram.negative_spans),
            ..self.clone()
        }
    }

    /// Number of positive and of negative buckets.
    pub(super) fn buckets(&self) -> (usize, usize) {
        let count = |spans: &[Span]| spans.iter().map(|span| span.length as usize).sum();
        (count(&self.positive_spans), count(&self.negative_spans))
    }

    pub(super) fn write(&self, writer: &mut BitWriter) {
        write_threshold(writer, self.zero_threshold);
        push_varbit_int(writer, self.schema.into());
        for spans in [&self.positive_spans, &self.negative_spans] {
            push_varbit_uint(writer, spans.len() as u64);
            for span in spans {
                push_varbit_uint(writer, span.length.into());
                push_varbit_int(writer, span.offset.into());
            }
        }
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            let bounds = self.custom_values.as_deref().unwrap_or_default();
            push_varbit_uint(writer, bounds.len() as u64);
            for bound in bounds {
                write_bound(writer, *bound);
            }
        }
    }

    pub(super) fn read(reader: &mut BitReader<'_>) -> Result<Self> {
        let zero_threshold = read_threshold(reader);
        let schema =
            i32::try_from(read_varbit_int(reader)).map_err(|_| reader.corrupt("a schema is no schema"))?;
        let positive_spans = read_spans(reader)?;
        let negative_spans = read_spans(reader)?;
        let custom_values = if schema == CUSTOM_BUCKETS_SCHEMA {
            let length = read_length(reader)?;
            Some((0..length).map(|_| read_bound(reader)).collect())
        } else {
            None
        };
        let layout = Self { schema, zero_threshold, positive_spans, negative_spans, custom_values };
        let (positive, negative) = layout.buckets();
        // Each bucket takes a bit at least, so that memory is bounded by the chunk's size.
        if positive.saturating_add(negative) > reader.remaining() {
            return Err(reader.corrupt("there are more buckets than bits"));
        }
        Ok(layout)
    }
}

/// Ascending indexes as runs.
fn spans_of(indexes: impl Iterator<Item = i32>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut next = 0i32;
    for index in indexes {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(Span { offset: index.wrapping_sub(next), length: 1 }),
        }
        next = index.wrapping_add(1);
    }
    spans
}

/// Runs that cover the buckets of both.
fn union(a: &[Span], b: &[Span]) -> Vec<Span> {
    let mut indexes: Vec<_> = bucket_indexes(a).chain(bucket_indexes(b)).collect();
    indexes.sort_unstable();
    indexes.dedup();
    spans_of(indexes.into_iter())
}

fn read_spans(reader: &mut BitReader<'_>) -> Result<Vec<Span>> {
    let length = read_length(reader)?;
    (0..length)
        .map(|_| {
            let length = u32::try_from(read_varbit_uint(reader));
            let offset = i32::try_from(read_varbit_int(reader));
            match (offset, length) {
                (Ok(offset), Ok(length)) => Ok(Span { offset, length }),
                _ => Err(reader.corrupt("a span leaves the range of buckets")),
            }
        })
        .collect()
}

/// The length of a list whose items take a bit or more.
fn read_length(reader: &mut BitReader<'_>) -> Result<usize> {
    let length = read_varbit_uint(reader);
    match usize::try_from(length) {
        Ok(length) if length <= reader.remaining() => Ok(length),
        _ => Err(reader.corrupt("a list is longer than its chunk")),
    }
}

fn write_threshold(writer: &mut BitWriter, threshold: f64) {
    let byte = threshold_byte(threshold);
    writer.push(byte.into(), 8);
    if byte == THRESHOLD_FOLLOWS {
        writer.push(threshold.to_bits(), 64);
    }
}

/// 0 for 0, 1 to 254 for powers of two.
fn threshold_byte(threshold: f64) -> u8 {
    const MANTISSA_BITS: u32 = f64::MANTISSA_DIGITS - 1;
    if threshold.to_bits() == 0 {
        return 0;
    }
    let exponent = (threshold.to_bits() >> MANTISSA_BITS) as i32 - 1023;
    let byte = exponent + THRESHOLD_EXPONENT_BIAS;
    // A sign shows as an exponent beyond the range.
    let is_power_of_two = threshold.to_bits().trailing_zeros() >= MANTISSA_BITS;
    if is_power_of_two && (1..i32::from(THRESHOLD_FOLLOWS)).contains(&byte) {
        byte as u8
    } else {
        THRESHOLD_FOLLOWS
    }
}

fn read_threshold(reader: &mut BitReader<'_>) -> f64 {
    match reader.read(8) as u8 {
        0 => 0.0,
        THRESHOLD_FOLLOWS => f64::from_bits(reader.read(64)),
        byte => f64::from(i32::from(byte) - THRESHOLD_EXPONENT_BIAS).exp2(),
    }
}

fn write_bound(writer: &mut BitWriter, bound: f64) {
    let units = (bound * BOUND_UNITS).round();
    // Exactly what the reader makes of it: not -0, nor a NaN.
    let is_exact = (units.abs() / BOUND_UNITS).to_bits() == bound.to_bits();
    if is_exact && units <= BOUND_UNITS_MAX {
        push_varbit_uint(writer, units as u64 + 1);
    } else {
        writer.push(0, 1);
        writer.push(bound.to_bits(), 64);
    }
}

fn read_bound(reader: &mut BitReader<'_>) -> f64 {
    match read_varbit_uint(reader) {
        0 => f64::from_bits(reader.read(64)),
        #[allow(clippy::cast_precision_loss, reason = "written from a float of at most 25 bits")]
        units => (units - 1) as f64 / BOUND_UNITS,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip<T>(write: impl Fn(&mut BitWriter), read: impl Fn(&mut BitReader<'_>) -> T) -> (T, usize) {
        let mut writer = BitWriter::new(&[]);
        write(&mut writer);
        let mut reader = BitReader::new(writer.bytes(), 0);
        let read = read(&mut reader);
        reader.check().unwrap();
        (read, reader.position())
    }

    #[test]
    fn thresholds_are_a_byte_where_they_are_powers_of_two() {
        let table = [
            (0.0, 8),
            (2f64.powi(-128), 8),
            (2f64.powi(-243), 8),
            (2f64.powi(-244), 72),
            (1024.0, 8),
            (2048.0, 72),
            (0.001, 72),
            (-1.0, 72),
        ];
        for (threshold, bits) in table {
            let (read, length) = round_trip(|w| write_threshold(w, threshold), read_threshold);
            assert_eq!((read, length), (threshold, bits));
        }
        // 2^-128 is byte 116, as Prometheus writes its default.
        assert_eq!(threshold_byte(2f64.powi(-128)), 116);
    }

    #[test]
    fn bounds_are_short_where_they_are_thousandths() {
        let table =
            [(0.0, 5), (0.005, 5), (1.0, 17), (33_554.430, 32), (33_554.431, 65), (0.0001, 65), (-1.0, 65)];
        for (bound, bits) in table {
            assert_eq!(round_trip(|w| write_bound(w, bound), read_bound), (bound, bits));
        }
    }

    #[test]
    fn a_union_covers_both() {
        let spans = |indexes: &[i32]| spans_of(indexes.iter().copied());
        assert_eq!(union(&spans(&[-3, 1, 2]), &spans(&[0, 2, 9])), spans(&[-3, 0, 1, 2, 9]));
        assert_eq!(spans(&[-3, 1, 2]), [Span { offset: -3, length: 1 }, Span { offset: 3, length: 2 }]);
    }

    proptest! {
        #[test]
        fn any_threshold_and_bound_keep_their_bits(bits in any::<u64>(), thousandths in any::<u32>()) {
            for value in [f64::from_bits(bits), f64::from(thousandths) / 1000.0] {
                let (threshold, _) = round_trip(|w| write_threshold(w, value), read_threshold);
                let (bound, _) = round_trip(|w| write_bound(w, value), read_bound);
                prop_assert_eq!((threshold.to_bits(), bound.to_bits()), (value.to_bits(), value.to_bits()));
            }
        }
    }
}
