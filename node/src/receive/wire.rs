//! Reading protobuf without copying: a cursor over a message's fields.
//!
//! Knows only what the wire format is (<https://protobuf.dev/programming-guides/encoding>): fields of unknown number
//! are skipped whatever their type, groups are refused, and nothing is read past the end.

/// Why bytes aren't a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A field is cut short.
    #[error("the message is cut short")]
    Truncated,
    /// A varint of more than ten bytes.
    #[error("a number has more than ten bytes")]
    Varint,
    /// A tag with field number 0, or a group.
    #[error("a field's tag is invalid")]
    Tag,
    /// A known field has another type.
    #[error("a field has the wrong type")]
    Type,
    /// Remote write 2.0: what stands for "nothing" isn't there.
    #[error("the first symbol isn't empty")]
    Symbols,
    /// More of something than is allowed.
    #[error("the message holds too many parts")]
    TooMany,
}

/// A field's value as the wire has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    /// Any integer, or a switch.
    Varint(u64),
    /// `double`.
    Fixed64(u64),
    /// `float`.
    Fixed32(u32),
    /// Text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    /// The bytes of text or a message.
    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed::Type),
        }
    }

    /// An integer.
    pub fn varint(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(Malformed::Type),
        }
    }

    /// A double.
    pub fn double(self) -> Result<f64, Malformed> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(Malformed::Type),
        }
    }

    /// Calls `each` for a repeated integer, packed or not.
    pub fn varints(self, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
        match self {
            Self::Varint(value) => each(value),
            Self::Bytes(bytes) => {
                let mut packed = Reader::new(bytes);
                while !packed.is_empty() {
                    each(packed.varint()?);
                }
            }
            _ => return Err(Malformed::Type),
        }
        Ok(())
    }

    /// Calls `each` for a repeated double, packed or not.
    pub fn doubles(self, mut each: impl FnMut(f64)) -> Result<(), Malformed> {
        match self {
            Self::Fixed64(bits) => each(f64::from_bits(bits)),
            Self::Bytes(bytes) => {
                let (packed, rest) = bytes.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(Malformed::Truncated);
                }
                packed.iter().for_each(|b| each(f64::from_le_bytes(*b)));
            }
            _ => return Err(Malformed::Type),
        }
        Ok(())
    }
}

/// A cursor over one message.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the start of a message.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Whether all has been read.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Offset of the next field.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next field's number and value; `None` at the end.
    #[inline]
    pub fn field(&mut self) -> Result<Option<(u32, Field<'a>)>, Malformed> {
        if self.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed::Tag)?;
        if number == 0 {
            return Err(Malformed::Tag);
        }
        let value = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(*self.chunk()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Truncated)?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(*self.chunk()?)),
            _ => return Err(Malformed::Tag),
        };
        Ok(Some((number, value)))
    }

    /// A number in groups of seven bits, the lowest first.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let first = *self.bytes.get(self.at).ok_or(Malformed::Truncated)?;
        if first < 0x80 {
            self.at += 1;
            return Ok(u64::from(first));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        // Timestamps have six bytes: eight at once, where so many are left, spare a look at each.
        if let Some(word) = self.bytes[self.at..].first_chunk::<8>() {
            let word = u64::from_le_bytes(*word);
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                let bits = ends.trailing_zeros() + 1;
                self.at += bits as usize / 8;
                let word = word & (u64::MAX >> (64 - bits)) & 0x7f7f_7f7f_7f7f_7f7f;
                let word = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
                let word = word & 0x0000_3fff_0000_3fff | (word & 0x3fff_0000_3fff_0000) >> 2;
                return Ok(word & 0x0fff_ffff | (word & 0x0fff_ffff_0000_0000) >> 4);
            }
        }
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(Malformed::Truncated)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Varint)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or(Malformed::Truncated)?;
        self.at += length;
        Ok(taken)
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let chunk = self.bytes[self.at..].first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.at += N;
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use tsdb::varint;

    use super::*;

    proptest! {
        #[test]
        fn varints_read_back(value: u64, shift in 0..64u32, padding in 0..10usize) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            varint::put(&mut bytes, value);
            let length = bytes.len();
            bytes.resize(length + padding, 0xff);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.position(), length);
        }

        #[test]
        fn hostile_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            while let Ok(Some(_)) = reader.field() {}
            prop_assert!(reader.position() <= bytes.len());
        }
    }

    #[test]
    fn a_varint_of_eleven_bytes_is_refused() {
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(Malformed::Varint));
        assert_eq!(Reader::new(&[0xff; 3]).varint(), Err(Malformed::Truncated));
    }

    #[test]
    fn packed_and_single_numbers_are_the_same_to_a_reader() {
        let mut seen = Vec::new();
        Field::Bytes(&[1, 0x80, 1]).varints(|v| seen.push(v)).unwrap();
        Field::Varint(7).varints(|v| seen.push(v)).unwrap();
        assert_eq!(seen, [1, 128, 7]);
    }
}
