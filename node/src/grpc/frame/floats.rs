//! Float samples against the last float of their series.
//!
//! ```text
//! sample:   | control u8 | ref: signed varint | time, start: signed varints | change: n bytes, high byte first |
//! control:  bits 0-2  n - 1            bytes of the change, which is value XOR last value
//!           bits 3-5  zero bytes before them; the rest of the eight, behind them, are zero too
//!           bit 6     the ref isn't the one before + 1: its difference to that follows
//!           bit 7     timestamp or start differ from those of the sample before: both differences follow
//!           bits 0-5 all set: no change
//! ```
//! Before the first sample all are 0, and the ref -1. A scrape's sample takes 1 byte and what changed of its value:
//! nothing for most, 1 to 3 bytes for a counter, 6 for noise.

use tsdb::{Error, Result};

const SAME: u8 = 0x3f;
const OTHER_REF: u8 = 1 << 6;
const OTHER_TIME: u8 = 1 << 7;

/// A float sample on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Float {
    /// Its ref.
    pub series: u32,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// When the counter started, in milliseconds since the Unix epoch; 0 = unknown.
    pub start_ms: i64,
    /// The value's bits XOR those of the last float of this ref.
    pub change: u64,
}

const FIRST: Float = Float { series: u32::MAX, timestamp_ms: 0, start_ms: 0, change: 0 };

/// Writes float samples.
pub(super) struct FloatsWriter {
    bytes: Vec<u8>,
    previous: Float,
}

impl Default for FloatsWriter {
    fn default() -> Self {
        Self { bytes: Vec::new(), previous: FIRST }
    }
}

impl FloatsWriter {
    #[inline]
    pub(super) fn push(&mut self, sample: Float) {
        let at = self.bytes.len();
        self.bytes.push(0);
        let mut control = SAME;
        let previous = std::mem::replace(&mut self.previous, sample);
        let step = sample.series.wrapping_sub(previous.series.wrapping_add(1)).cast_signed();
        if step != 0 {
            control |= OTHER_REF;
            put_signed(&mut self.bytes, i64::from(step));
        }
        if (sample.timestamp_ms, sample.start_ms) != (previous.timestamp_ms, previous.start_ms) {
            control |= OTHER_TIME;
            put_signed(&mut self.bytes, sample.timestamp_ms.wrapping_sub(previous.timestamp_ms));
            put_signed(&mut self.bytes, sample.start_ms.wrapping_sub(previous.start_ms));
        }
        if sample.change != 0 {
            let before = sample.change.leading_zeros() as usize / 8;
            let end = 8 - sample.change.trailing_zeros() as usize / 8;
            control = control & !SAME | (before as u8) << 3 | (end - before - 1) as u8;
            self.bytes.extend_from_slice(&sample.change.to_be_bytes()[before..end]);
        }
        self.bytes[at] = control;
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.previous = FIRST;
    }
}

fn put_signed(bytes: &mut Vec<u8>, value: i64) {
    let mut value = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Reads float samples. After an error there is none.
pub struct Floats<'a> {
    rest: &'a [u8],
    length: usize,
    previous: Float,
}

impl<'a> Floats<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len(), previous: FIRST }
    }

    #[inline]
    fn decode(&mut self) -> Option<Float> {
        let control = self.byte()?;
        let previous = self.previous;
        let mut series = previous.series.wrapping_add(1);
        if control & OTHER_REF != 0 {
            series = series.wrapping_add_signed(i32::try_from(self.signed()?).ok()?);
        }
        let (mut timestamp_ms, mut start_ms) = (previous.timestamp_ms, previous.start_ms);
        if control & OTHER_TIME != 0 {
            timestamp_ms = timestamp_ms.wrapping_add(self.signed()?);
            start_ms = start_ms.wrapping_add(self.signed()?);
        }
        let mut change = 0;
        if control & SAME != SAME {
            let (before, length) = (usize::from(control >> 3 & 7), usize::from(control & 7) + 1);
            let mut bytes = [0; 8];
            let (taken, rest) = self.rest.split_at_checked(length)?;
            bytes.get_mut(before..before + length)?.copy_from_slice(taken);
            self.rest = rest;
            change = u64::from_be_bytes(bytes);
        }
        self.previous = Float { series, timestamp_ms, start_ms, change };
        Some(self.previous)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn signed(&mut self) -> Option<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        None
    }
}

impl Iterator for Floats<'_> {
    type Item = Result<Float>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let at = self.length - self.rest.len();
        match self.decode() {
            Some(sample) => Some(Ok(sample)),
            None => {
                self.rest = &[];
                Some(Err(Error::corrupt("frame's floats", at, "a sample is cut short or broken")))
            }
        }
    }
}
