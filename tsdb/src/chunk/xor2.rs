//! XOR2 chunks: floats with start times. Timestamp and value share a prefix, and stale markers cost no window.
//!
//! ```text
//! count u16 BE | starts u8 | t0 varint | v0 64 bits | [start] | delta uvarint | value | [start] | (sample | [start]) ...
//!
//! sample                                      value (distance changed, and sample 1)
//!   0                  same distance, same      0                    same
//!   100   + window     same distance            10  + window         inside the last window
//!   101   + 5 + 6 + n  same distance            110 + 5 + 6 + n      leading zeros, n (0 = 64), window
//!   110   + 13 bits + value                     111                  stale marker
//!   1110  + 20 bits + value
//!   11110 + 64 bits + value
//!   11111              same distance, stale marker
//! ```
//!
//! Changes of distance are two's complement. XORs are with the last value that wasn't a stale marker (0 before there is
//! one). Start times: see `starts`.

use super::bits::{BitReader, BitWriter, PEEK_BITS};
use super::columns::Columns;
use super::starts::Starts;
use super::xor::{Window, count_of, push_window, read_window};
use crate::Result;
use crate::model::{STALE_NAN_BITS, is_stale};

/// Bytes in front of the samples: their number, and what there is of start times.
const HEADER_BYTES: usize = 3;
/// Where the latter stands.
const STARTS_AT: usize = 2;
/// Fewest bits of a sample from the second on.
const SAMPLE_BITS_MIN: usize = 1;
/// Widths of changes of distance, behind two, three and four ones and a zero.
const CHANGE_WIDTHS: [u32; 3] = [13, 20, 64];

/// An open XOR2 chunk.
#[derive(Clone, Debug)]
pub struct Xor2Appender {
    writer: BitWriter,
    starts: Starts,
    window: Window,
    timestamp_ms: i64,
    delta_ms: i64,
    /// The newest value.
    value: f64,
    /// The newest that isn't a stale marker.
    baseline_bits: u64,
}

impl Default for Xor2Appender {
    fn default() -> Self {
        Self::new()
    }
}

impl Xor2Appender {
    /// An empty chunk.
    pub fn new() -> Self {
        Self {
            writer: BitWriter::new(&[0; HEADER_BYTES]),
            starts: Starts::default(),
            window: Window::NONE,
            timestamp_ms: i64::MIN,
            delta_ms: 0,
            value: 0.0,
            baseline_bits: 0,
        }
    }

    /// Continues a chunk from its bytes.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when they aren't a whole XOR2 chunk.
    pub fn resume(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Xor2Decoder::new(bytes)?;
        if decoder.count == 0 {
            return Ok(Self::new());
        }
        for sample in decoder.by_ref() {
            sample?;
        }
        Ok(Self {
            writer: BitWriter::resume(bytes, decoder.reader.position()),
            starts: decoder.starts,
            window: decoder.window,
            timestamp_ms: decoder.timestamp_ms,
            delta_ms: decoder.delta_ms,
            value: f64::from_bits(decoder.value_bits),
            baseline_bits: decoder.baseline_bits,
        })
    }

    /// Appends a sample with its start time (ms, 0 = unknown); timestamps are expected to ascend, and may be any.
    /// At most 65,535 samples fit.
    pub fn append(&mut self, timestamp_ms: i64, start_ms: i64, value: f64) {
        let index = self.count();
        let previous_ms = std::mem::replace(&mut self.timestamp_ms, timestamp_ms);
        let delta_ms = timestamp_ms.wrapping_sub(previous_ms);
        match index {
            0 => {
                self.writer.push_varint(timestamp_ms);
                self.writer.push(value.to_bits(), 64);
            }
            1 => {
                self.writer.push_uvarint(delta_ms.cast_unsigned());
                self.delta_ms = delta_ms;
                self.push_value((0, 0), value);
            }
            _ => {
                let change = delta_ms.wrapping_sub(self.delta_ms);
                self.delta_ms = delta_ms;
                if change == 0 {
                    self.push_value_alone(value);
                } else {
                    let code = self.change_code(change);
                    self.push_value(code, value);
                }
            }
        }
        self.value = value;
        if !is_stale(value) {
            self.baseline_bits = value.to_bits();
        }
        self.starts.write(&mut self.writer, index, timestamp_ms, previous_ms, start_ms);
        let count = index.checked_add(1).expect("a chunk is ended long before 65,535 samples");
        let header = self.writer.header::<HEADER_BYTES>();
        header[..STARTS_AT].copy_from_slice(&count.to_be_bytes());
        header[STARTS_AT] = self.starts.header();
    }

    /// The bits for a change of distance that are still to be written, and their number.
    fn change_code(&mut self, change: i64) -> (u64, u32) {
        for (width, prefix) in [(CHANGE_WIDTHS[0], 0b110), (CHANGE_WIDTHS[1], 0b1110)] {
            if (-(1 << (width - 1))..1 << (width - 1)).contains(&change) {
                let low = change.cast_unsigned() & ((1 << width) - 1);
                return (prefix << width | low, width + u64::count_ones(prefix) + 1);
            }
        }
        self.writer.push(0b11110, 5);
        self.writer.push(change.cast_unsigned(), 64);
        (0, 0)
    }

    /// A value behind a change of distance.
    fn push_value(&mut self, code: (u64, u32), value: f64) {
        let xor = value.to_bits() ^ self.baseline_bits;
        if is_stale(value) {
            self.writer.push(code.0 << 3 | 0b111, code.1 + 3);
        } else if xor == 0 {
            self.writer.push(code.0 << 1, code.1 + 1);
        } else {
            push_window(&mut self.writer, code, xor, &mut self.window, (0b10, 2), (0b110, 3));
        }
    }

    /// A value at the same distance.
    fn push_value_alone(&mut self, value: f64) {
        let xor = value.to_bits() ^ self.baseline_bits;
        if is_stale(value) {
            self.writer.push(0b11111, 5);
        } else if xor == 0 {
            self.writer.push(0, 1);
        } else {
            push_window(&mut self.writer, (0b10, 2), xor, &mut self.window, (0, 1), (1, 1));
        }
    }

    /// The chunk as it now is.
    pub fn bytes(&self) -> &[u8] {
        self.writer.bytes()
    }

    /// Number of samples.
    pub fn count(&self) -> u16 {
        u16::from_be_bytes([self.bytes()[0], self.bytes()[1]])
    }

    /// The newest sample: timestamp (ms), start time (ms, 0 = unknown) and value.
    pub fn last(&self) -> Option<(i64, i64, f64)> {
        (self.count() > 0).then_some((self.timestamp_ms, self.starts.start_ms, self.value))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.writer.capacity_bytes()
    }
}

/// Reads a XOR2 chunk, sample by sample.
#[derive(Clone, Debug)]
pub struct Xor2Decoder<'a> {
    reader: BitReader<'a>,
    count: u16,
    read: u16,
    starts: Starts,
    window: Window,
    timestamp_ms: i64,
    delta_ms: i64,
    value_bits: u64,
    baseline_bits: u64,
}

impl<'a> Xor2Decoder<'a> {
    /// Starts on a chunk's bytes.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when they can't hold as many samples as they claim.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let reader = BitReader::new(bytes, HEADER_BYTES);
        let count = count_of(bytes, &reader, HEADER_BYTES, SAMPLE_BITS_MIN)?;
        Ok(Self {
            reader,
            count,
            read: 0,
            starts: Starts::from_header(bytes[STARTS_AT]),
            window: Window::NONE,
            timestamp_ms: i64::MIN,
            delta_ms: 0,
            value_bits: 0,
            baseline_bits: 0,
        })
    }

    /// Reads one sample into the fields; the caller has seen that one remains.
    #[inline]
    fn step(&mut self) -> Result<()> {
        let previous_ms = self.timestamp_ms;
        match self.read {
            0 => {
                self.timestamp_ms = self.reader.read_varint()?;
                self.value_bits = self.reader.read(64);
                if self.value_bits != STALE_NAN_BITS {
                    self.baseline_bits = self.value_bits;
                }
            }
            1 => {
                self.delta_ms = self.reader.read_uvarint()?.cast_signed();
                self.timestamp_ms = self.timestamp_ms.wrapping_add(self.delta_ms);
                self.read_value()?;
            }
            _ => self.step_regular()?,
        }
        self.starts.read(&mut self.reader, self.read, self.timestamp_ms, previous_ms)?;
        self.read += 1;
        self.reader.check()
    }

    /// Timestamp and value of a sample behind the second; the end is the caller's to check.
    #[inline(always)]
    fn step_regular(&mut self) -> Result<()> {
        let bits = self.reader.peek();
        let width = self.window.width();
        if bits >> 61 == 0b100 && 3 + width <= PEEK_BITS {
            // The same distance and the same window: what most counters do, in one peek.
            self.reader.skip(3 + width);
            self.timestamp_ms = self.timestamp_ms.wrapping_add(self.delta_ms);
            self.baseline_bits ^= (bits << 3 >> (64 - width)) << self.window.trailing();
            self.value_bits = self.baseline_bits;
            return Ok(());
        }
        let ones = bits.leading_ones().min(5);
        self.reader.skip((ones + 1).min(5));
        if let Some(width) = ones.checked_sub(2).and_then(|i| CHANGE_WIDTHS.get(i as usize)) {
            let change = (self.reader.read(*width) << (64 - width)).cast_signed() >> (64 - width);
            self.delta_ms = self.delta_ms.wrapping_add(change);
        }
        self.timestamp_ms = self.timestamp_ms.wrapping_add(self.delta_ms);
        match ones {
            0 => self.value_bits = self.baseline_bits,
            1 => {
                let is_fresh = self.reader.read(1) == 1;
                self.read_change(is_fresh)?;
            }
            2..=4 => self.read_value()?,
            _ => self.value_bits = STALE_NAN_BITS,
        }
        Ok(())
    }

    /// A value behind a change of distance.
    #[inline(always)]
    fn read_value(&mut self) -> Result<()> {
        let ones = self.reader.peek().leading_ones().min(3);
        self.reader.skip((ones + 1).min(3));
        match ones {
            0 => self.value_bits = self.baseline_bits,
            3 => self.value_bits = STALE_NAN_BITS,
            _ => self.read_change(ones == 2)?,
        }
        Ok(())
    }

    #[inline(always)]
    fn read_change(&mut self, is_fresh: bool) -> Result<()> {
        self.baseline_bits ^= read_window(&mut self.reader, &mut self.window, is_fresh)?;
        self.value_bits = self.baseline_bits;
        Ok(())
    }
}

impl Iterator for Xor2Decoder<'_> {
    /// Timestamp (ms), start time (ms, 0 = unknown), value.
    type Item = Result<(i64, i64, f64)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read == self.count {
            return None;
        }
        if let Err(error) = self.step() {
            self.read = self.count;
            return Some(Err(error));
        }
        Some(Ok((self.timestamp_ms, self.starts.start_ms, f64::from_bits(self.value_bits))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.count - self.read)))
    }
}

/// Appends a XOR2 chunk's samples to the columns.
///
/// # Errors
/// [`crate::Error::Corrupt`]; the columns then hold whatever was decoded before the damage was seen.
pub(crate) fn decode_floats_with_starts(bytes: &[u8], columns: &mut Columns) -> Result<()> {
    let mut decoder = Xor2Decoder::new(bytes)?;
    if decoder.starts.header() == 0 {
        decode_without_starts(decoder, columns)?;
        columns.fill_up();
        return Ok(());
    }
    while decoder.read < decoder.count {
        decoder.step()?;
        columns.push_float(decoder.timestamp_ms, decoder.starts.start_ms, f64::from_bits(decoder.value_bits));
    }
    Ok(())
}

/// The chunk keeps no start time after all.
fn decode_without_starts(mut decoder: Xor2Decoder<'_>, columns: &mut Columns) -> Result<()> {
    let before = columns.len();
    let after = before + usize::from(decoder.count);
    columns.timestamps.resize(after, 0);
    columns.values.resize(after, 0.0);
    let mut rest = columns.timestamps[before..].iter_mut().zip(&mut columns.values[before..]);
    while rest.len() > 0 {
        let bits = if decoder.read < 2 { u64::MAX } else { decoder.reader.peek() };
        // A sample that repeats both distance and value is one zero bit.
        let repeats = bits.leading_zeros().min(PEEK_BITS) as usize;
        if repeats > 0 {
            for (timestamp, value) in rest.by_ref().take(repeats) {
                decoder.timestamp_ms = decoder.timestamp_ms.wrapping_add(decoder.delta_ms);
                decoder.reader.skip(SAMPLE_BITS_MIN as u32);
                (*timestamp, *value) = (decoder.timestamp_ms, f64::from_bits(decoder.baseline_bits));
            }
        } else if let Some((timestamp, value)) = rest.next() {
            if decoder.read < 2 {
                decoder.step()?;
            } else {
                decoder.step_regular()?;
            }
            (*timestamp, *value) = (decoder.timestamp_ms, f64::from_bits(decoder.value_bits));
        }
    }
    decoder.reader.check()
}

#[cfg(test)]
mod tests;
