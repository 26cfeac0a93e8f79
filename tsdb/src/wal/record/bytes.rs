//! Strings and references, as all records write them.

use crate::head::SeriesRef;
use crate::{Error, Result, varint};

pub(super) fn put_f64(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes `series` as its difference to `previous`, and remembers it.
pub(super) fn put_series(out: &mut Vec<u8>, previous: &mut u64, series: SeriesRef) {
    varint::put_signed(out, series.to_u64().wrapping_sub(*previous) as i64);
    *previous = series.to_u64();
}

/// Writes a timestamp as its difference to `previous`, and remembers it.
pub(super) fn put_timestamp(out: &mut Vec<u8>, previous: &mut i64, timestamp_ms: i64) {
    varint::put_signed(out, timestamp_ms.wrapping_sub(*previous));
    *previous = timestamp_ms;
}

/// What is left of a payload.
#[derive(Clone, Copy)]
pub struct Rest<'a> {
    bytes: &'a [u8],
    /// Length of the whole payload.
    total: usize,
    /// What is being read, for errors.
    what: &'static str,
}

impl<'a> Rest<'a> {
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { bytes, total: bytes.len(), what }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes not yet read.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::corrupt(self.what, self.total - self.bytes.len(), reason)
    }

    /// Ends the reading: an iterator gives nothing after an error.
    pub fn stop(&mut self) {
        self.bytes = &[];
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.bytes.split_at_checked(length) else {
            return Err(self.error("it is cut short"));
        };
        self.bytes = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub fn unsigned(&mut self) -> Result<u64> {
        varint::take(&mut self.bytes).ok_or_else(|| self.error("a varint is cut short or too long"))
    }

    pub fn signed(&mut self) -> Result<i64> {
        self.unsigned().map(varint::unzigzag)
    }

    /// A count of things that take at least `bytes_each`, so that no hostile count makes anybody allocate.
    pub fn count(&mut self, bytes_each: usize) -> Result<usize> {
        let count = self.unsigned()?;
        if count > (self.bytes.len() / bytes_each) as u64 {
            return Err(self.error(format!("a count of {count} is more than can follow")));
        }
        Ok(count as usize)
    }

    pub fn f64(&mut self) -> Result<f64> {
        let bytes = self.take(8)?.try_into().expect("eight bytes");
        Ok(f64::from_bits(u64::from_le_bytes(bytes)))
    }

    pub fn length_and_bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.count(1)?;
        self.take(length)
    }

    pub fn string(&mut self) -> Result<&'a str> {
        let error = self.error("a string isn't UTF-8");
        std::str::from_utf8(self.length_and_bytes()?).map_err(|_| error)
    }

    pub fn series(&mut self, previous: &mut u64) -> Result<SeriesRef> {
        *previous = previous.wrapping_add(self.signed()? as u64);
        Ok(SeriesRef::from_u64(*previous))
    }

    pub fn timestamp(&mut self, previous: &mut i64) -> Result<i64> {
        *previous = previous.wrapping_add(self.signed()?);
        Ok(*previous)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_varint_of_more_than_64_bits_is_an_error() {
        let mut bytes = vec![0xff; 9];
        bytes.push(1);
        assert_eq!(Rest::new("test", &bytes).unsigned().unwrap(), u64::MAX);
        bytes[9] = 2;
        assert!(Rest::new("test", &bytes).unsigned().is_err());
        assert!(Rest::new("test", &[0x80; 20]).unsigned().is_err());
    }

    #[test]
    fn a_count_beyond_what_follows_is_an_error() {
        let mut bytes = Vec::new();
        varint::put(&mut bytes, 3);
        bytes.extend_from_slice(&[0; 5]);
        assert!(Rest::new("test", &bytes).count(1).is_ok());
        assert!(Rest::new("test", &bytes).count(2).is_err());
    }

    proptest! {
        #[test]
        fn numbers_round_trip(unsigned: u64, signed: i64, small in -100i64..100, float: f64) {
            let mut bytes = Vec::new();
            varint::put(&mut bytes, unsigned);
            varint::put_signed(&mut bytes, signed);
            varint::put_signed(&mut bytes, small);
            put_f64(&mut bytes, float);
            let mut rest = Rest::new("test", &bytes);
            prop_assert_eq!(rest.unsigned().unwrap(), unsigned);
            prop_assert_eq!((rest.signed().unwrap(), rest.signed().unwrap()), (signed, small));
            prop_assert_eq!(rest.f64().unwrap().to_bits(), float.to_bits());
            prop_assert!(rest.is_empty());
        }
    }
}
