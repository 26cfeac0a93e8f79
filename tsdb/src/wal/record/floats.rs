//! Float samples.
//!
//! ```text
//! sample: | control u8 | ref: signed varint | time: signed varint | start: signed varint | value: n bytes |
//! control:  bits 0-3  n, 0 to 8        the value's bits but for the zero bytes at their low end, low byte first
//!           bit 4     no ref           the ref differs from the one before by as much as that one from its own
//!           bit 5     no time          the timestamp is that of the sample before
//!           bit 6     no start         the start is that of the sample before
//! ```
//! Ref, timestamp and start are differences to the sample before; before the first all are 0, and refs rise by 1.
//! A scrape's sample takes 1 byte and its value's: a small integer 1 to 3, a measured fraction 8.

use super::Times;
use super::bytes::Rest;
use super::entries::{Decode, Entries};
use crate::Result;
use crate::head::SeriesRef;
use crate::varint::{self, zigzag};

const VALUE_BYTES: u8 = 0x0f;
const NO_REF: u8 = 1 << 4;
const NO_TIME: u8 = 1 << 5;
const NO_START: u8 = 1 << 6;
const UNUSED: u8 = 1 << 7;

/// Most bytes of one sample.
pub const SAMPLE_BYTES_MAX: usize = 1 + 3 * varint::BYTES_MAX + 8;

/// A float sample of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloatSample {
    /// Which series.
    pub series: SeriesRef,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// When the counter started, in milliseconds since the Unix epoch; 0 = unknown.
    pub start_ms: i64,
    /// The value.
    pub value: f64,
}

/// What the next sample is written against.
#[derive(Clone, Copy)]
pub struct Previous {
    series: u64,
    step: u64,
    timestamp_ms: i64,
    start_ms: i64,
}

impl Default for Previous {
    fn default() -> Self {
        Self { series: 0, step: 1, timestamp_ms: 0, start_ms: 0 }
    }
}

/// Writes float samples.
#[derive(Default)]
pub struct FloatsWriter {
    bytes: Vec<u8>,
    count: usize,
    previous: Previous,
    times: Times,
}

impl FloatsWriter {
    /// Adds a sample.
    #[inline]
    pub fn push(&mut self, sample: FloatSample) {
        let start = self.bytes.len();
        // Room is made once for the longest sample, so that the stores below have fixed sizes.
        self.bytes.extend_from_slice(&[0; SAMPLE_BYTES_MAX]);
        let room: &mut [u8; SAMPLE_BYTES_MAX] =
            (&mut self.bytes[start..]).try_into().expect("exactly this was added");
        let used = encode(&mut self.previous, &sample, room);
        self.bytes.truncate(start + used);
        self.times.add(sample.timestamp_ms);
        self.count += 1;
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
        (self.count, self.previous, self.times) = (0, Previous::default(), Times::default());
    }
}

#[inline]
fn encode(previous: &mut Previous, sample: &FloatSample, room: &mut [u8; SAMPLE_BYTES_MAX]) -> usize {
    let mut control = 0;
    let mut used = 1;
    let step = sample.series.to_u64().wrapping_sub(previous.series);
    if step == previous.step {
        control |= NO_REF;
    } else {
        used = put(room, used, zigzag(step as i64));
    }
    if sample.timestamp_ms == previous.timestamp_ms {
        control |= NO_TIME;
    } else {
        used = put(room, used, zigzag(sample.timestamp_ms.wrapping_sub(previous.timestamp_ms)));
    }
    if sample.start_ms == previous.start_ms {
        control |= NO_START;
    } else {
        used = put(room, used, zigzag(sample.start_ms.wrapping_sub(previous.start_ms)));
    }
    let bits = sample.value.to_bits();
    // 64 for a value of zero: no byte at all; the shift is then of nothing by nothing.
    let low_zeros = bits.trailing_zeros() & !7;
    room[used..used + 8].copy_from_slice(&(bits >> (low_zeros & 63)).to_le_bytes());
    let value_bytes = 8 - low_zeros / 8;
    room[0] = control | value_bytes as u8;
    *previous = Previous {
        series: sample.series.to_u64(),
        step,
        timestamp_ms: sample.timestamp_ms,
        start_ms: sample.start_ms,
    };
    used + value_bytes as usize
}

#[inline]
fn put(room: &mut [u8; SAMPLE_BYTES_MAX], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        room[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    room[at] = value as u8;
    at + 1
}

/// Reads float samples.
pub type Floats<'a> = Entries<'a, Previous>;

impl<'a> Decode<'a> for Previous {
    type Entry = FloatSample;
    const WHAT: &'static str = "WAL record of floats";

    #[inline]
    fn decode(&mut self, rest: &mut Rest<'a>) -> Result<FloatSample> {
        let control = rest.byte()?;
        let value_bytes = usize::from(control & VALUE_BYTES);
        if value_bytes > 8 || control & UNUSED != 0 {
            return Err(rest.error("unknown control bits"));
        }
        if control & NO_REF == 0 {
            self.step = rest.signed()? as u64;
        }
        self.series = self.series.wrapping_add(self.step);
        if control & NO_TIME == 0 {
            rest.timestamp(&mut self.timestamp_ms)?;
        }
        if control & NO_START == 0 {
            rest.timestamp(&mut self.start_ms)?;
        }
        let value = f64::from_bits(value_bits(rest, value_bytes)?);
        let Self { series, timestamp_ms, start_ms, .. } = *self;
        Ok(FloatSample { series: SeriesRef::from_u64(series), timestamp_ms, start_ms, value })
    }
}

#[inline]
fn value_bits(rest: &mut Rest<'_>, count: usize) -> Result<u64> {
    let high_bits = match rest.bytes().first_chunk::<8>() {
        // One load and a shift that drops what belongs to the next sample.
        Some(eight) => u64::from_le_bytes(*eight),
        None => {
            let mut eight = [0; 8];
            let there = rest.bytes();
            let size = there.len().min(8);
            eight[..size].copy_from_slice(&there[..size]);
            u64::from_le_bytes(eight)
        }
    };
    rest.take(count)?;
    Ok(high_bits.checked_shl(64 - 8 * count as u32).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::stale_nan;
    use crate::wal::TIMELESS;

    fn sample(series: u64, timestamp_ms: i64, start_ms: i64, value: f64) -> FloatSample {
        FloatSample { series: SeriesRef::from_u64(series), timestamp_ms, start_ms, value }
    }

    fn bits(s: &FloatSample) -> (SeriesRef, i64, i64, u64) {
        (s.series, s.timestamp_ms, s.start_ms, s.value.to_bits())
    }

    fn round_trip(samples: &[FloatSample]) -> Vec<u8> {
        let mut writer = FloatsWriter::default();
        samples.iter().for_each(|s| writer.push(*s));
        let read: Vec<_> = Floats::new(writer.payload()).map(|s| bits(&s.unwrap())).collect();
        assert_eq!(read, samples.iter().map(bits).collect::<Vec<_>>());
        writer.payload().to_vec()
    }

    #[test]
    fn a_scrape_takes_a_byte_a_sample_and_the_value() {
        let scrape: Vec<_> =
            (0..100).map(|i| sample(7 + 8 * i, 1_700_000_000_000, 0, (i % 4) as f64)).collect();
        assert!(round_trip(&scrape).len() < 100 * 3 + 20);
    }

    #[test]
    fn odd_values_keep_their_bits() {
        let values =
            [0.0, -0.0, stale_nan(), f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, 5e-324, -1.5, 1e300];
        let odd: Vec<_> = values.iter().map(|v| sample(u64::MAX, i64::MIN, i64::MAX, *v)).collect();
        round_trip(&odd);
    }

    #[test]
    fn times_span_the_samples() {
        let mut writer = FloatsWriter::default();
        assert_eq!(writer.times_ms(), TIMELESS);
        for t in [5, -3, 9] {
            writer.push(sample(1, t, 0, 0.0));
        }
        assert_eq!((writer.times_ms(), writer.len()), ((-3, 9), 3));
        writer.clear();
        assert_eq!((writer.times_ms(), writer.is_empty(), writer.payload()), (TIMELESS, true, &[][..]));
    }

    fn any_sample() -> impl Strategy<Value = FloatSample> {
        let time = prop_oneof![any::<i64>(), 0..3i64];
        let series = prop_oneof![any::<u64>(), 0..20u64];
        let value = prop_oneof![any::<u64>(), (0..1_000u32).prop_map(|v| f64::from(v).to_bits())];
        (series, time.clone(), time, value)
            .prop_map(|(s, t, start, v)| sample(s, t, start, f64::from_bits(v)))
    }

    proptest! {
        #[test]
        fn samples_round_trip(samples in prop::collection::vec(any_sample(), 0..50)) {
            round_trip(&samples);
        }

        #[test]
        fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Floats::new(&bytes).count() <= bytes.len());
        }

        #[test]
        fn a_payload_cut_short_gives_the_samples_before_the_cut(samples in prop::collection::vec(any_sample(), 1..10), cut: prop::sample::Index) {
            let bytes = round_trip(&samples);
            let cut = cut.index(bytes.len());
            let read: Vec<_> = Floats::new(&bytes[..cut]).map_while(Result::ok).map(|s| bits(&s)).collect();
            prop_assert!(read.len() <= samples.len());
            prop_assert_eq!(&read, &samples[..read.len()].iter().map(bits).collect::<Vec<_>>());
        }
    }
}
