//! Numbers in as few bytes as they need: LEB128, seven bits a byte, low ones first; signed ones are zigzag-coded before
//! (0, -1, 1, -2, …). Prometheus's index and WAL have them, and so have protobuf and all formats of our own.

/// Bytes of the longest one.
pub const BYTES_MAX: usize = 10;

/// Appends a number.
#[inline]
pub fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Appends a signed number.
#[inline]
pub fn put_signed(bytes: &mut Vec<u8>, value: i64) {
    put(bytes, zigzag(value));
}

/// How many bytes [`put`] takes for a number.
#[inline]
pub const fn length(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// How many bytes [`put_signed`] takes for a number.
#[inline]
pub const fn length_of_signed(value: i64) -> usize {
    length(zigzag(value))
}

/// Takes a number from the front; `None`, and nothing is taken, where it is cut short or has more than 64 bits.
#[inline]
pub fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(u64::from(first));
    }
    take_long(bytes)
}

fn take_long(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().take(BYTES_MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            // The tenth byte has room for one bit.
            if i == BYTES_MAX - 1 && byte > 1 {
                return None;
            }
            *bytes = &bytes[i + 1..];
            return Some(value);
        }
    }
    None
}

/// Takes a signed number from the front, as [`take`] does.
#[inline]
pub fn take_signed(bytes: &mut &[u8]) -> Option<i64> {
    take(bytes).map(unzigzag)
}

/// A signed number as an unsigned one that is small where its magnitude is.
#[inline]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The opposite of [`zigzag`].
#[inline]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_read_back(value: i64, shift in 0..64u32, behind: Vec<u8>) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_signed(&mut bytes, value);
            prop_assert_eq!(bytes.len(), length_of_signed(value));
            put(&mut bytes, value.cast_unsigned());
            bytes.extend(&behind);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take_signed(&mut rest), Some(value));
            prop_assert_eq!(take(&mut rest), Some(value.cast_unsigned()));
            prop_assert_eq!(rest, behind);
        }
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_refused_and_left() {
        for wrong in [vec![], vec![0x80], vec![0xff; 9], [vec![0xff; 9], vec![2]].concat(), vec![0x80; 11]] {
            let mut rest = wrong.as_slice();
            assert_eq!(take(&mut rest), None, "{wrong:?}");
            assert_eq!(rest, wrong);
        }
        assert_eq!(take(&mut [vec![0xff; 9], vec![1]].concat().as_slice()), Some(u64::MAX));
    }
}
