//! Numbers and byte strings as checkpoints hold them: LEB128 varints, zigzag where signed, lengths in front.

use crate::{Error, Result, varint};

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the functions above wrote.
pub(crate) struct Reader<'a> {
    what: &'static str,
    all: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// `what` is named in errors.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, all: bytes.len(), rest: bytes }
    }

    pub(crate) fn wrong(&self, reason: &str) -> Error {
        Error::corrupt(self.what, self.all - self.rest.len(), reason)
    }

    pub(crate) fn uvarint(&mut self) -> Result<u64> {
        varint::take(&mut self.rest).ok_or_else(|| self.wrong("a number is cut short or too long"))
    }

    pub(crate) fn varint(&mut self) -> Result<i64> {
        self.uvarint().map(varint::unzigzag)
    }

    /// A varint that fits 32 bits.
    pub(crate) fn u32(&mut self) -> Result<u32> {
        let value = self.uvarint()?;
        u32::try_from(value).map_err(|_| self.wrong("a number is too large"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// Eight bytes, little-endian.
    pub(crate) fn fixed64(&mut self) -> Result<u64> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let Some((taken, tail)) = self.rest.split_at_checked(length) else {
            return Err(self.wrong("it is cut short"));
        };
        self.rest = tail;
        Ok(taken)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.uvarint()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.wrong("a text isn't UTF-8"))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_is_read(a: u64, b: i64, c: Vec<u8>) {
            let mut out = Vec::new();
            varint::put(&mut out, a);
            varint::put_signed(&mut out, b);
            put_bytes(&mut out, &c);
            let mut reader = Reader::new("test", &out);
            prop_assert_eq!(reader.uvarint().unwrap(), a);
            prop_assert_eq!(reader.varint().unwrap(), b);
            prop_assert_eq!(reader.bytes().unwrap(), &c[..]);
            prop_assert!(reader.is_empty());
            prop_assert!(reader.u8().is_err());
        }
    }
}
