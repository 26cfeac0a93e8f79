//! XOR chunks: floats after Facebook's Gorilla (VLDB 2015), in Prometheus's layout. Start times aren't kept.
//!
//! ```text
//! count u16 BE | t0 varint | v0 64 bits | delta uvarint | v1 xor | (dod t2 | v2 xor) ... | padding to a byte
//!
//! dod (change of the distance between timestamps)      xor (with the value before)
//!   0                  none                              0               none
//!   10   + 14 bits     -8191 to 8192                     10 + window     inside the last window
//!   110  + 17 bits     -65535 to 65536                   11 + 5 + 6 + n  leading zeros, n (0 = 64), window
//!   1110 + 20 bits     -524287 to 524288
//!   1111 + 64 bits     any
//! ```

use super::bits::{BitReader, BitWriter, PADDED_BYTES, PEEK_BITS};
use super::columns::Columns;
use crate::Result;

/// Bytes in front of the samples: their number.
const HEADER_BYTES: usize = 2;
/// Fewest bits of a sample from the second on.
const SAMPLE_BITS_MIN: usize = 2;
/// Leading zeros are written in five bits.
const LEADING_MAX: u32 = 31;

/// The run of bits in which XORs are written, kept until a value doesn't fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Zeros before it. Without a window yet: none before and none behind, which is how decoders begin.
    leading: u8,
    /// Bits in it, 1 to 64.
    width: u8,
    /// Whether a value has set it; the first value always does.
    is_set: bool,
}

impl Window {
    pub(crate) const NONE: Self = Self { leading: 0, width: 64, is_set: false };

    /// Bits in it, 1 to 64.
    #[inline(always)]
    pub(crate) fn width(self) -> u32 {
        u32::from(self.width)
    }

    /// Zeros behind it.
    #[inline(always)]
    pub(crate) fn trailing(self) -> u32 {
        64 - u32::from(self.leading) - u32::from(self.width)
    }

    /// The window that fits `xor` (not 0) exactly.
    fn around(xor: u64) -> Self {
        let leading = xor.leading_zeros().min(LEADING_MAX);
        Self { leading: leading as u8, width: (64 - leading - xor.trailing_zeros()) as u8, is_set: true }
    }

    fn holds(self, xor: u64) -> bool {
        self.is_set
            && xor.leading_zeros().min(LEADING_MAX) >= u32::from(self.leading)
            && xor.trailing_zeros() >= self.trailing()
    }

    /// From the eleven bits that announce a new window.
    #[inline(always)]
    fn from_bits(bits: u64) -> Option<Self> {
        let (leading, width) = (bits >> 6, bits & 0x3f);
        let width = if width == 0 { 64 } else { width };
        (leading + width <= 64).then_some(Self { leading: leading as u8, width: width as u8, is_set: true })
    }
}

/// Writes a XOR (not 0) behind `code`, which has `length` bits (up to 24) and goes into the same push where it can.
/// `inside` and `fresh` are the bits, and their number, that say whether the last window is used or a new one follows.
#[inline(always)]
pub(crate) fn push_window(
    writer: &mut BitWriter,
    (code, length): (u64, u32),
    xor: u64,
    window: &mut Window,
    inside: (u64, u32),
    fresh: (u64, u32),
) {
    let (head, head_length) = if window.holds(xor) {
        (code << inside.1 | inside.0, length + inside.1)
    } else {
        *window = Window::around(xor);
        let description = u64::from(window.leading) << 6 | u64::from(window.width & 0x3f);
        ((code << fresh.1 | fresh.0) << 11 | description, length + fresh.1 + 11)
    };
    let width = window.width();
    let bits = xor >> window.trailing();
    if head_length + width <= 64 {
        writer.push(head << width | bits, head_length + width);
    } else {
        writer.push(head, head_length);
        writer.push(bits, width);
    }
}

/// Writes any XOR behind `code`.
#[inline]
pub(crate) fn push_xor(writer: &mut BitWriter, code: (u64, u32), xor: u64, window: &mut Window) {
    if xor == 0 {
        writer.push(code.0 << 1, code.1 + 1);
    } else {
        push_window(writer, code, xor, window, (0b10, 2), (0b11, 2));
    }
}

/// Reads what [`push_window`] wrote, from behind the bits that said `is_fresh`.
#[inline(always)]
pub(crate) fn read_window(reader: &mut BitReader<'_>, window: &mut Window, is_fresh: bool) -> Result<u64> {
    if is_fresh {
        let Some(new) = Window::from_bits(reader.read(11)) else {
            return Err(reader.corrupt("a window of bits is wider than a value"));
        };
        *window = new;
    }
    Ok(reader.read(window.width()) << window.trailing())
}

/// Reads a XOR.
#[inline(always)]
pub(crate) fn read_xor(reader: &mut BitReader<'_>, window: &mut Window) -> Result<u64> {
    let bits = reader.peek();
    if bits >> 63 == 0 {
        reader.skip(1);
        return Ok(0);
    }
    reader.skip(2);
    read_window(reader, window, bits >> 62 == 0b11)
}

/// An open XOR chunk.
#[derive(Clone, Debug)]
pub struct XorAppender {
    writer: BitWriter,
    /// As in the header, which may lie in another cache line than the chunk's end.
    count: u16,
    window: Window,
    /// How many bits the newest sample took, from the third on.
    newest_bits: u8,
    timestamp_ms: i64,
    delta_ms: i64,
    value: f64,
}

impl Default for XorAppender {
    fn default() -> Self {
        Self::new()
    }
}

impl XorAppender {
    /// An empty chunk.
    pub fn new() -> Self {
        Self {
            writer: BitWriter::new(&[0; HEADER_BYTES]),
            count: 0,
            window: Window::NONE,
            newest_bits: 0,
            timestamp_ms: i64::MIN,
            delta_ms: 0,
            value: 0.0,
        }
    }

    /// Continues a chunk from its bytes.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when they aren't a whole XOR chunk.
    pub fn resume(bytes: &[u8]) -> Result<Self> {
        let mut decoder = XorDecoder::new(bytes)?;
        if decoder.count == 0 {
            return Ok(Self::new());
        }
        let mut newest_at = 0;
        while decoder.read < decoder.count {
            newest_at = decoder.reader.position();
            decoder.step()?;
        }
        let newest_bits = decoder.reader.position() - newest_at;
        Ok(Self {
            writer: BitWriter::resume(bytes, decoder.reader.position()),
            count: decoder.count,
            window: decoder.window,
            // The first two are never asked for, and no other takes more than 145.
            newest_bits: newest_bits as u8,
            timestamp_ms: decoder.timestamp_ms,
            delta_ms: decoder.delta_ms,
            value: f64::from_bits(decoder.value_bits),
        })
    }

    /// Appends a sample; timestamps are expected to ascend, and may be any. At most 65,535 samples fit.
    #[inline]
    pub fn append(&mut self, timestamp_ms: i64, value: f64) {
        let count = self.count;
        self.count = count.checked_add(1).expect("a chunk is ended long before 65,535 samples");
        *self.writer.header() = self.count.to_be_bytes();
        let delta_ms = timestamp_ms.wrapping_sub(self.timestamp_ms);
        let xor = value.to_bits() ^ self.value.to_bits();
        match count {
            0 => {
                self.writer.push_varint(timestamp_ms);
                self.writer.push(value.to_bits(), 64);
            }
            1 => {
                self.writer.push_uvarint(delta_ms.cast_unsigned());
                push_xor(&mut self.writer, (0, 0), xor, &mut self.window);
                self.delta_ms = delta_ms;
            }
            _ => {
                let before = self.writer.bits();
                let code = self.timestamp_code(delta_ms.wrapping_sub(self.delta_ms));
                push_xor(&mut self.writer, code, xor, &mut self.window);
                self.newest_bits = (self.writer.bits() - before) as u8;
                self.delta_ms = delta_ms;
            }
        }
        self.timestamp_ms = timestamp_ms;
        self.value = value;
    }

    /// The bits for a change of distance that are still to be written, and their number: 0 where it has been written.
    #[inline]
    fn timestamp_code(&mut self, change: i64) -> (u64, u32) {
        // A width of n bits holds -(2^(n-1) - 1) to 2^(n-1).
        let fits = |width: u32| change > -(1 << (width - 1)) && change <= 1 << (width - 1);
        let low = |width: u32| change.cast_unsigned() & ((1 << width) - 1);
        if change == 0 {
            (0, 1)
        } else if fits(14) {
            (0b10 << 14 | low(14), 16)
        } else if fits(17) {
            (0b110 << 17 | low(17), 20)
        } else if fits(20) {
            (0b1110 << 20 | low(20), 24)
        } else {
            self.writer.push(0b1111, 4);
            self.writer.push(change.cast_unsigned(), 64);
            (0, 0)
        }
    }

    /// The chunk as it now is.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.writer.bytes()
    }

    /// Number of samples.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The newest sample: timestamp (ms) and value.
    #[inline]
    pub fn last(&self) -> Option<(i64, f64)> {
        (self.count > 0).then_some((self.timestamp_ms, self.value))
    }

    /// The sample before the newest, read back from what the newest changed; `None` before the third.
    #[inline]
    pub fn before_last(&self) -> Option<(i64, f64)> {
        if self.count < 3 {
            return None;
        }
        let mut reader = BitReader::new(self.writer.bytes(), 0);
        reader.skip(self.writer.bits() - u32::from(self.newest_bits));
        let mut newest = XorDecoder {
            reader,
            count: self.count,
            read: self.count - 1,
            window: self.window,
            timestamp_ms: 0,
            delta_ms: 0,
            value_bits: 0,
        };
        newest.step_regular().ok()?;
        let value = f64::from_bits(self.value.to_bits() ^ newest.value_bits);
        Some((self.timestamp_ms.wrapping_sub(self.delta_ms), value))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.writer.capacity_bytes()
    }
}

/// Reads a XOR chunk, sample by sample.
#[derive(Clone, Debug)]
pub struct XorDecoder<'a> {
    reader: BitReader<'a>,
    count: u16,
    read: u16,
    window: Window,
    timestamp_ms: i64,
    delta_ms: i64,
    value_bits: u64,
}

impl<'a> XorDecoder<'a> {
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
            window: Window::NONE,
            timestamp_ms: i64::MIN,
            delta_ms: 0,
            value_bits: 0,
        })
    }

    /// Reads one sample into the fields; the caller has seen that one remains.
    fn step(&mut self) -> Result<()> {
        match self.read {
            0 => {
                self.timestamp_ms = self.reader.read_varint()?;
                self.value_bits = self.reader.read(64);
            }
            1 => {
                self.delta_ms = self.reader.read_uvarint()?.cast_signed();
                self.timestamp_ms = self.timestamp_ms.wrapping_add(self.delta_ms);
                self.value_bits ^= read_xor(&mut self.reader, &mut self.window)?;
            }
            _ => self.step_regular()?,
        }
        self.read += 1;
        self.reader.check()
    }

    /// A sample behind the second; `read` is the caller's to count, and the end the caller's to check.
    #[inline(always)]
    fn step_regular(&mut self) -> Result<()> {
        let bits = self.reader.peek();
        let used = if bits >> 63 == 0 { 1 } else { self.read_change(bits) };
        self.timestamp_ms = self.timestamp_ms.wrapping_add(self.delta_ms);
        // What most samples are: timestamp and value in one peek.
        let value = bits << used;
        let width = self.window.width();
        if value >> 62 == 0b10 && used + 2 + width <= PEEK_BITS {
            self.reader.skip(used + 2 + width);
            self.value_bits ^= (value << 2 >> (64 - width)) << self.window.trailing();
        } else {
            self.reader.skip(used);
            self.value_bits ^= read_xor(&mut self.reader, &mut self.window)?;
        }
        Ok(())
    }

    /// A change of the distance between timestamps, whose code begins `bits`; how many of them it took.
    #[inline(always)]
    fn read_change(&mut self, bits: u64) -> u32 {
        let Some((prefix, width)) = change_layout(bits) else { return self.read_any_change() };
        let change = sign_extend(bits << prefix >> (64 - width), width);
        self.delta_ms = self.delta_ms.wrapping_add(change);
        prefix + width
    }

    /// A change that takes 64 bits, and leaves none to skip: the caller's peek doesn't reach to the value, and since it
    /// begins with ones it isn't taken for a value in the last window.
    #[cold]
    fn read_any_change(&mut self) -> u32 {
        self.reader.skip(4);
        let change = self.reader.read(64).cast_signed();
        self.delta_ms = self.delta_ms.wrapping_add(change);
        0
    }

    /// Reads samples behind the second while any sample would end in sight. Does what [`XorDecoder::step_regular`] does,
    /// with all that changes in registers; stops before what is rare or wrong.
    #[inline(always)]
    fn run<'o>(&mut self, out: &mut impl ExactSizeIterator<Item = (&'o mut i64, &'o mut f64)>) {
        let mut reader = self.reader.clone();
        let (mut timestamp_ms, mut delta_ms, mut value_bits) =
            (self.timestamp_ms, self.delta_ms, self.value_bits);
        let mut window = self.window;
        let (mut width, mut trailing) = (window.width(), window.trailing());
        while out.len() > 0
            && let Some(ahead) = reader.ahead()
        {
            let bits = ahead.peek();
            if bits >> 62 == 0 {
                for (timestamp, value) in out.take(repeats(bits)) {
                    timestamp_ms = timestamp_ms.wrapping_add(delta_ms);
                    reader.skip(SAMPLE_BITS_MIN as u32);
                    (*timestamp, *value) = (timestamp_ms, f64::from_bits(value_bits));
                }
                continue;
            }
            let mut used = 1;
            let mut change = 0;
            if bits >> 63 != 0 {
                let Some((prefix, width)) = change_layout(bits) else { break };
                change = sign_extend(bits << prefix >> (64 - width), width);
                used = prefix + width;
            }
            let value = bits << used;
            let mut head = used + 1;
            if value >> 63 != 0 {
                head += 1;
                if value >> 62 == 0b11 {
                    let Some(new) = Window::from_bits(value << 2 >> (64 - 11)) else { break };
                    (window, width, trailing) = (new, new.width(), new.trailing());
                    head += 11;
                }
                value_bits ^= ahead.bits(head, width) << trailing;
                head += width;
            }
            reader.skip(head);
            delta_ms = delta_ms.wrapping_add(change);
            timestamp_ms = timestamp_ms.wrapping_add(delta_ms);
            if let Some((timestamp, value)) = out.next() {
                (*timestamp, *value) = (timestamp_ms, f64::from_bits(value_bits));
            }
        }
        (self.timestamp_ms, self.delta_ms, self.value_bits) = (timestamp_ms, delta_ms, value_bits);
        (self.reader, self.window) = (reader, window);
    }

    /// Does what [`XorDecoder::run`] does where that no longer sees far enough: over a copy of the last bytes, and zeros.
    #[inline(never)]
    fn run_at_end<'o>(&mut self, out: &mut impl ExactSizeIterator<Item = (&'o mut i64, &'o mut f64)>) {
        let mut copy = [0; PADDED_BYTES];
        let Some(reader) = self.reader.padded(&mut copy) else { return };
        let begin = reader.position();
        let mut end = XorDecoder { reader, ..*self };
        end.run(out);
        self.reader.skip((end.reader.position() - begin) as u32);
        let XorDecoder { reader: _, window, timestamp_ms, delta_ms, value_bits, .. } = end;
        (self.window, self.timestamp_ms) = (window, timestamp_ms);
        (self.delta_ms, self.value_bits) = (delta_ms, value_bits);
    }
}

impl Iterator for XorDecoder<'_> {
    type Item = Result<(i64, f64)>;

    /// The next timestamp (ms) and value. After an error there is no more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.read == self.count {
            return None;
        }
        let stepped = self.step();
        if stepped.is_err() {
            self.read = self.count;
        }
        Some(stepped.map(|()| (self.timestamp_ms, f64::from_bits(self.value_bits))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.count - self.read)))
    }
}

/// Appends a XOR chunk's samples to the columns; the columns stay as they are where that fails.
///
/// # Errors
/// [`crate::Error::Corrupt`].
pub fn decode_floats(bytes: &[u8], columns: &mut Columns) -> Result<()> {
    let before = columns.len();
    let decoded = decode_into(bytes, columns, before);
    if decoded.is_err() {
        columns.truncate(before);
    } else {
        columns.fill_up();
    }
    decoded
}

fn decode_into(bytes: &[u8], columns: &mut Columns, before: usize) -> Result<()> {
    let mut decoder = XorDecoder::new(bytes)?;
    let after = before + usize::from(decoder.count);
    columns.timestamps.resize(after, 0);
    columns.values.resize(after, 0.0);
    let timestamps = &mut columns.timestamps[before..];
    let values = &mut columns.values[before..];
    let first = timestamps.len().min(2);
    for (timestamp, value) in timestamps[..first].iter_mut().zip(&mut values[..first]) {
        decoder.step()?;
        (*timestamp, *value) = (decoder.timestamp_ms, f64::from_bits(decoder.value_bits));
    }
    let mut rest = timestamps[first..].iter_mut().zip(&mut values[first..]);
    while rest.len() > 0 {
        decoder.run(&mut rest);
        decoder.run_at_end(&mut rest);
        // Before what is rare, or wrong.
        if let Some((timestamp, value)) = rest.next() {
            decoder.step_regular()?;
            (*timestamp, *value) = (decoder.timestamp_ms, f64::from_bits(decoder.value_bits));
        }
    }
    decoder.reader.check()
}

/// The number of samples in a chunk's first two bytes, if it is long enough for them.
pub(crate) fn count_of(
    bytes: &[u8],
    reader: &BitReader<'_>,
    header: usize,
    sample_bits_min: usize,
) -> Result<u16> {
    if bytes.len() < header {
        return Err(reader.corrupt("the chunk is shorter than its header"));
    }
    let count = u16::from_be_bytes([bytes[0], bytes[1]]);
    check_count(count, reader, sample_bits_min)?;
    Ok(count)
}

/// Bounds every loop over samples, since behind the end there are zeros without end, and zeros are samples.
pub(crate) fn check_count(count: u16, reader: &BitReader<'_>, sample_bits_min: usize) -> Result<()> {
    if usize::from(count) > 1 + reader.remaining() / sample_bits_min {
        return Err(reader.corrupt("the chunk is too short for its samples"));
    }
    Ok(())
}

/// Bits of the code that begins `bits` with a one, and of the change behind it; `None` for the code of any change.
#[inline(always)]
fn change_layout(bits: u64) -> Option<(u32, u32)> {
    if bits >> 62 == 0b10 {
        Some((2, 14))
    } else if bits >> 61 == 0b110 {
        Some((3, 17))
    } else if bits >> 60 == 0b1110 {
        Some((4, 20))
    } else {
        None
    }
}

/// How many samples repeat both distance and value, as far as `bits`, a peek, show.
#[inline(always)]
fn repeats(bits: u64) -> usize {
    (bits.leading_zeros().min(PEEK_BITS) / SAMPLE_BITS_MIN as u32) as usize
}

/// The number of `width` bits (under 64) that stands for -(2^(width-1) - 1) to 2^(width-1).
#[inline(always)]
pub(crate) fn sign_extend(bits: u64, width: u32) -> i64 {
    let bits = bits.cast_signed();
    if bits > 1 << (width - 1) { bits - (1 << width) } else { bits }
}

#[cfg(test)]
mod tests;
