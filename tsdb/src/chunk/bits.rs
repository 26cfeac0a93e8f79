//! Bits, most significant first: a reader that peeks 64 at a time and a writer that keeps its buffer small.
//!
//! The reader never fails while it reads: behind the end it sees zeros, and [`BitReader::check`] tells afterwards
//! whether it went there. Codecs bound their loops by the number of bits there are, so that zeros can't be read for
//! ever. The writer's bytes are whole after every write, padded with zero bits, so that an open chunk can be read.

use crate::{Error, Result};

/// Valid bits of [`BitReader::peek`]: 64 less the up to seven that are shifted out.
pub(crate) const PEEK_BITS: u32 = 57;

/// What [`BitReader::ahead`] needs.
const AHEAD_BYTES: usize = 16;

/// Room for fewer bytes than [`BitReader::ahead`] needs, and for zeros behind them, as many as it does.
pub(crate) const PADDED_BYTES: usize = 2 * AHEAD_BYTES;

/// Longest LEB128 varint of 64 bits.
const VARINT_BYTES_MAX: usize = 10;

/// Reads bits from a slice.
#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits read so far; may lie behind the end.
    position: usize,
}

impl<'a> BitReader<'a> {
    /// Starts at byte `from` of `bytes`.
    pub(crate) fn new(bytes: &'a [u8], from: usize) -> Self {
        Self { bytes, position: from * 8 }
    }

    /// The next bits, left-aligned: [`PEEK_BITS`] of them are valid, zeros behind the end.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        let at = self.position >> 3;
        match self.bytes.get(at..at + 8) {
            Some(word) => u64::from_be_bytes(word.try_into().expect("eight bytes")) << (self.position & 7),
            None => self.peek_at_end(at),
        }
    }

    #[cold]
    fn peek_at_end(&self, at: usize) -> u64 {
        let mut word = [0; 8];
        let rest = self.bytes.get(at..).unwrap_or_default();
        word[..rest.len()].copy_from_slice(rest);
        u64::from_be_bytes(word) << (self.position & 7)
    }

    /// The next 121 bits, if there are as many bytes as that takes.
    #[inline(always)]
    pub(crate) fn ahead(&self) -> Option<Ahead<'a>> {
        let bytes = self.bytes.get(self.position >> 3..)?.first_chunk()?;
        Some(Ahead { bytes, offset: self.position as u32 & 7 })
    }

    /// A reader of the last bytes, in a copy with zeros behind them, from the same bit on; `None` where there are enough
    /// bytes to look [`BitReader::ahead`], or none.
    pub(crate) fn padded<'p>(&self, copy: &'p mut [u8; PADDED_BYTES]) -> Option<BitReader<'p>> {
        let rest = self.bytes.get(self.position >> 3..)?;
        if rest.is_empty() || rest.len() >= AHEAD_BYTES {
            return None;
        }
        copy[..rest.len()].copy_from_slice(rest);
        Some(BitReader { bytes: copy, position: self.position & 7 })
    }

    /// Leaves `count` bits behind.
    #[inline(always)]
    pub(crate) fn skip(&mut self, count: u32) {
        self.position += count as usize;
    }

    /// The next `count` bits (0 to 64) as a number.
    #[inline(always)]
    pub(crate) fn read(&mut self, count: u32) -> u64 {
        if count <= PEEK_BITS {
            // A shift by 64 would overflow where `count` is 0.
            let value = (self.peek() >> 1) >> (63 - count);
            self.skip(count);
            return value;
        }
        let high = self.read(count - 32);
        high << 32 | self.read(32)
    }

    /// An unsigned LEB128 varint, which may start inside a byte.
    #[inline]
    pub(crate) fn read_uvarint(&mut self) -> Result<u64> {
        // Most end within one peek.
        let bits = self.peek();
        let mut value = 0u64;
        for i in 0..PEEK_BITS / 8 {
            let byte = bits << (8 * i) >> 56;
            value |= (byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.skip(8 * (i + 1));
                return Ok(value);
            }
        }
        self.read_long_uvarint()
    }

    #[cold]
    fn read_long_uvarint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for i in 0..VARINT_BYTES_MAX {
            let byte = self.read(8);
            // The tenth byte has room for one bit.
            if i == VARINT_BYTES_MAX - 1 && byte > 1 {
                break;
            }
            value |= (byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.corrupt("a varint is too long"))
    }

    /// A zigzag LEB128 varint.
    pub(crate) fn read_varint(&mut self) -> Result<i64> {
        let value = self.read_uvarint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Bits between here and the end.
    pub(crate) fn remaining(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.position)
    }

    /// Bits read so far.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// # Errors
    /// [`Error::Corrupt`] when more was read than there is.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.position <= self.bytes.len() * 8 {
            Ok(())
        } else {
            Err(self.corrupt("the chunk ends inside a sample"))
        }
    }

    /// The error that what stands here is wrong.
    #[cold]
    pub(crate) fn corrupt(&self, reason: &'static str) -> Error {
        Error::corrupt("chunk", (self.position / 8).min(self.bytes.len()), reason)
    }
}

/// Two words of bits that lie before a reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead<'a> {
    bytes: &'a [u8; AHEAD_BYTES],
    /// Bits of the first byte that were read already, 0 to 7.
    offset: u32,
}

impl Ahead<'_> {
    /// As [`BitReader::peek`].
    #[inline(always)]
    pub(crate) fn peek(self) -> u64 {
        u64::from_be_bytes(*self.bytes.first_chunk().expect("there are sixteen")) << self.offset
    }

    /// The `width` bits (1 to 64) behind the next `skipped`; together at most 121: two words less the up to
    /// seven bits that were read.
    #[inline(always)]
    pub(crate) fn bits(self, skipped: u32, width: u32) -> u64 {
        if skipped + width <= PEEK_BITS {
            return self.peek() << skipped >> (64 - width);
        }
        (u128::from_be_bytes(*self.bytes) << (self.offset + skipped) >> (128 - width)) as u64
    }
}

/// Bits in a buffer that grows in small steps, since a head holds one for each series.
#[derive(Clone, Debug)]
pub(crate) struct BitWriter {
    /// Zeros from `bits` on.
    buffer: Box<[u8]>,
    bits: u32,
}

/// A write touches up to this many bytes from the first incomplete one.
const WRITE_BYTES_MAX: usize = 9;
/// Least step by which the buffer grows: the allocator's smallest useful distance between sizes.
const GROWTH_BYTES_MIN: usize = 16;

impl BitWriter {
    /// Starts with `header`, which [`BitWriter::header`] can change later.
    pub(crate) fn new(header: &[u8]) -> Self {
        Self::resume(header, header.len() * 8)
    }

    /// Continues `bytes` behind their first `bits` bits; the rest is padding.
    pub(crate) fn resume(bytes: &[u8], bits: usize) -> Self {
        let used = bits.div_ceil(8);
        let mut buffer = vec![0; capacity_for(used + WRITE_BYTES_MAX)].into_boxed_slice();
        buffer[..used].copy_from_slice(&bytes[..used]);
        if !bits.is_multiple_of(8) {
            buffer[used - 1] &= 0xff << (8 - bits % 8);
        }
        Self { buffer, bits: u32::try_from(bits).expect("a chunk is smaller than 512 MiB") }
    }

    /// Appends the low `count` bits (1 to 64) of `value`, whose higher bits must be zero.
    #[inline]
    pub(crate) fn push(&mut self, value: u64, count: u32) {
        debug_assert!((1..=64).contains(&count) && (count == 64 || value >> count == 0));
        let at = (self.bits >> 3) as usize;
        let offset = self.bits & 7;
        if at + WRITE_BYTES_MAX > self.buffer.len() {
            self.grow(at + WRITE_BYTES_MAX);
        }
        let window: &mut [u8; WRITE_BYTES_MAX] =
            (&mut self.buffer[at..at + WRITE_BYTES_MAX]).try_into().expect("nine bytes");
        let left_aligned = value << (64 - count);
        let first = u64::from(window[0]) << 56 | left_aligned >> offset;
        window[..8].copy_from_slice(&first.to_be_bytes());
        // What the shift above lost: at most seven bits.
        window[8] = ((left_aligned & ((1 << offset) - 1)) << (8 - offset)) as u8;
        self.bits += count;
    }

    /// An unsigned LEB128 varint.
    pub(crate) fn push_uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.push(value, 8);
    }

    /// A zigzag LEB128 varint.
    pub(crate) fn push_varint(&mut self, value: i64) {
        self.push_uvarint(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// The first `N` bytes, to be changed.
    pub(crate) fn header<const N: usize>(&mut self) -> &mut [u8; N] {
        self.buffer.first_chunk_mut().expect("a chunk holds its header")
    }

    /// Everything written, padded to a whole byte.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..(self.bits as usize).div_ceil(8)]
    }

    /// Number of bits written.
    #[inline]
    pub(crate) fn bits(&self) -> u32 {
        self.bits
    }

    /// Bytes allocated.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.buffer.len()
    }

    #[cold]
    fn grow(&mut self, needed: usize) {
        let mut bytes = std::mem::take(&mut self.buffer).into_vec();
        let capacity = capacity_for(needed);
        bytes.reserve_exact(capacity - bytes.len());
        bytes.resize(capacity, 0);
        self.buffer = bytes.into_boxed_slice();
    }
}

/// The next size worth allocating: four steps between powers of two, as allocators space their size classes.
fn capacity_for(needed: usize) -> usize {
    let step = (1 << (needed - 1).ilog2()) / 4;
    needed.next_multiple_of(step.max(GROWTH_BYTES_MIN))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(writes in prop::collection::vec((any::<u64>(), 1u32..=64), 0..200)) {
            let mut writer = BitWriter::new(&[7, 9]);
            for (value, count) in &writes {
                writer.push(value >> (64 - count), *count);
            }
            let mut reader = BitReader::new(writer.bytes(), 2);
            for (value, count) in &writes {
                prop_assert_eq!(reader.read(*count), value >> (64 - count));
            }
            prop_assert!(reader.check().is_ok());
            prop_assert!(reader.remaining() < 8);
            prop_assert_eq!(&writer.bytes()[..2], &[7, 9]);
        }

        #[test]
        fn varints_round_trip_inside_a_byte(values in prop::collection::vec(any::<i64>(), 1..20), before in 1u32..9) {
            let mut writer = BitWriter::new(&[]);
            writer.push(1, before);
            for value in &values {
                writer.push_varint(*value);
                writer.push_uvarint(value.cast_unsigned());
            }
            let mut reader = BitReader::new(writer.bytes(), 0);
            reader.skip(before);
            for value in &values {
                prop_assert_eq!(reader.read_varint().unwrap(), *value);
                prop_assert_eq!(reader.read_uvarint().unwrap(), value.cast_unsigned());
            }
        }

        #[test]
        fn a_writer_continues_where_its_bytes_stop(first in prop::collection::vec((any::<u64>(), 1u32..=64), 0..20),
                                                   second in prop::collection::vec((any::<u64>(), 1u32..=64), 0..20)) {
            let mut whole = BitWriter::new(&[0]);
            let mut bits = 8;
            for (value, count) in &first {
                whole.push(value >> (64 - count), *count);
                bits += *count as usize;
            }
            let mut resumed = BitWriter::resume(whole.bytes(), bits);
            for (value, count) in &second {
                whole.push(value >> (64 - count), *count);
                resumed.push(value >> (64 - count), *count);
            }
            prop_assert_eq!(whole.bytes(), resumed.bytes());
        }
    }

    #[test]
    fn reading_behind_the_end_is_told() {
        let mut reader = BitReader::new(&[0xff], 0);
        assert_eq!(reader.read(8), 0xff);
        assert!(reader.check().is_ok());
        assert_eq!(reader.read(1), 0);
        assert!(reader.check().is_err());
        assert_eq!(reader.remaining(), 0);
    }

    #[test]
    fn an_endless_varint_is_refused() {
        assert!(BitReader::new(&[0xff; 20], 0).read_uvarint().is_err());
    }

    #[test]
    fn a_small_buffer_grows_in_small_steps() {
        let sizes: Vec<_> = [11, 33, 65, 100, 129, 200, 257].into_iter().map(capacity_for).collect();
        assert_eq!(sizes, [16, 48, 80, 112, 160, 224, 320]);
    }
}
