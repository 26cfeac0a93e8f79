//! Float samples against the last float of their series.
//!
//! ```text
//! sample:   | control u8 | ref: signed varint | time, start: signed varints | change |
//! control:  bits 0-5  how the value changed: see `change`, which also says what follows
//!           bit 6     the ref isn't the one before + 1: its difference to that follows
//!           bit 7     timestamp or start differ from those of the sample before: both differences follow
//! ```
//! Before the first sample all are 0, and the ref -1. A scrape's sample takes 1 byte and what changed of its value:
//! nothing for most, 1 or 2 bytes for what counts or has few decimals, 6 for noise.

use tsdb::{Error, Result};

use super::change::Change;
use tsdb::varint::{put_signed, take_signed};

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
    /// From the last float of this ref.
    pub change: Change,
}

const FIRST: Float = Float { series: u32::MAX, timestamp_ms: 0, start_ms: 0, change: Change::NONE };

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
        let mut control = 0;
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
        self.bytes[at] = control | sample.change.put(&mut self.bytes);
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.previous = FIRST;
    }
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
        let (&control, rest) = self.rest.split_first()?;
        self.rest = rest;
        let previous = self.previous;
        let mut series = previous.series.wrapping_add(1);
        if control & OTHER_REF != 0 {
            series = series.wrapping_add_signed(i32::try_from(take_signed(&mut self.rest)?).ok()?);
        }
        let (mut timestamp_ms, mut start_ms) = (previous.timestamp_ms, previous.start_ms);
        if control & OTHER_TIME != 0 {
            timestamp_ms = timestamp_ms.wrapping_add(take_signed(&mut self.rest)?);
            start_ms = start_ms.wrapping_add(take_signed(&mut self.rest)?);
        }
        let change = Change::take(control, &mut self.rest)?;
        self.previous = Float { series, timestamp_ms, start_ms, change };
        Some(self.previous)
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
