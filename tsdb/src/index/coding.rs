//! Bytes of index, chunk and tombstone files: big-endian numbers, Go's varints, CRC32C.
//!
//! ```text
//! uvarint   7 bits a byte, least significant first, the top bit set on all but the last; at most 10 bytes
//! varint    uvarint of (n << 1) ^ (n >> 63)
//! section   len <4> | content <len> | CRC32C of content <4>
//! ```

use crate::{Error, Result, varint};

/// CRC32C (Castagnoli).
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Appends a string behind its length.
pub(crate) fn push_str(bytes: &mut Vec<u8>, text: &str) {
    varint::put(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// Reads numbers and strings one after the other. Offsets in errors are those of the file.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
    /// Offset in the file of the first of `bytes`.
    base: usize,
}

impl<'a> Reader<'a> {
    /// Starts on bytes that begin at offset `base` of the file; `what` names them in errors.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8], base: usize) -> Self {
        Self { what, bytes, at: 0, base }
    }

    /// The content of the section at `offset` of `file`, its checksum verified.
    pub(crate) fn section(what: &'static str, file: &'a [u8], offset: u64) -> Result<Self> {
        let outside = || Error::Corrupt {
            what,
            path: std::path::PathBuf::new(),
            offset,
            reason: format!("it reaches beyond the file's {} bytes", file.len()),
        };
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let tail = file.get(start..).ok_or_else(outside)?;
        let (length, tail) = tail.split_first_chunk().ok_or_else(outside)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (content, tail) = tail.split_at_checked(length).ok_or_else(outside)?;
        let sum = tail.first_chunk().ok_or_else(outside)?;
        if crc32c(content) != u32::from_be_bytes(*sum) {
            return Err(Error::corrupt(what, start, "checksum mismatch"));
        }
        Ok(Self::new(what, content, start + 4))
    }

    /// Bytes not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Offset in the file of the next byte.
    pub(crate) fn offset(&self) -> usize {
        self.base + self.at
    }

    /// An error about what is being read.
    pub(crate) fn corrupt(&self, reason: impl Into<String>) -> Error {
        Error::corrupt(self.what, self.offset(), reason)
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, _) =
            self.rest().split_at_checked(count).ok_or_else(|| self.corrupt("it is cut short"))?;
        self.at += count;
        Ok(taken)
    }

    /// A byte.
    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A big-endian 32-bit number.
    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().expect("four bytes were taken")))
    }

    /// A big-endian 64-bit number.
    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.take(8)?.try_into().expect("eight bytes were taken")))
    }

    /// A uvarint.
    pub(crate) fn uvarint(&mut self) -> Result<u64> {
        let mut rest = self.rest();
        let Some(value) = varint::take(&mut rest) else {
            return Err(self.corrupt("a number is cut short or too long"));
        };
        self.at = self.bytes.len() - rest.len();
        Ok(value)
    }

    /// A uvarint that fits 32 bits.
    pub(crate) fn uvarint32(&mut self) -> Result<u32> {
        let value = self.uvarint()?;
        u32::try_from(value).map_err(|_| self.corrupt(format!("{value} doesn't fit 32 bits")))
    }

    /// A varint.
    pub(crate) fn varint(&mut self) -> Result<i64> {
        let value = self.uvarint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A string behind its length.
    pub(crate) fn str(&mut self) -> Result<&'a str> {
        let bytes = self.length_and_bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.corrupt("a string isn't UTF-8"))
    }

    /// The bytes of a string behind its length.
    pub(crate) fn length_and_bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.uvarint()?;
        let length = usize::try_from(length).map_err(|_| self.corrupt("a string is too long"))?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_varint_beyond_64_bits_is_refused() {
        let mut bytes = [0xff; 10];
        bytes[9] = 2;
        assert!(Reader::new("test", &bytes, 0).uvarint().is_err());
        bytes[9] = 1;
        assert_eq!(Reader::new("test", &bytes, 0).uvarint().unwrap(), u64::MAX);
    }

    proptest! {
        #[test]
        fn numbers_round_trip(unsigned in any::<u64>(), signed in any::<i64>(), shift in 0u32..64) {
            let mut bytes = Vec::new();
            varint::put(&mut bytes, unsigned >> shift);
            varint::put_signed(&mut bytes, signed >> shift);
            let mut reader = Reader::new("test", &bytes, 0);
            prop_assert_eq!(reader.uvarint().unwrap(), unsigned >> shift);
            prop_assert_eq!(reader.varint().unwrap(), signed >> shift);
            prop_assert!(reader.rest().is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), offset in 0u64..50) {
            let _ = Reader::section("test", &bytes, offset);
            let mut reader = Reader::new("test", &bytes, 0);
            while reader.uvarint().and_then(|_| reader.str().map(drop)).is_ok() {}
        }
    }
}
