//! Small integers in few bits: the code of histograms and start times.
//!
//! ```text
//! bits             signed                          unsigned, up to
//!   0              0                               0
//!   10       +  3  -3 to 4                         7
//!   110      +  6  -31 to 32                       63
//!   1110     +  9  -255 to 256                     511
//!   11110    + 12  -2,047 to 2,048                 4,095
//!   111110   + 18  -131,071 to 131,072             262,143
//!   1111110  + 25  -16,777,215 to 16,777,216       33,554,431
//!   11111110 + 56  -(2^55 - 1) to 2^55             2^56 - 1
//!   11111111 + 64  any                             any
//! ```

use super::bits::{BitReader, BitWriter};
use super::xor::sign_extend;

/// Bits behind a prefix of so many ones.
const WIDTHS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];
/// The prefix of this many ones has no zero behind it.
const ONES_MAX: u32 = 8;

/// Writes a signed number.
#[inline]
pub(crate) fn push_varbit_int(writer: &mut BitWriter, value: i64) {
    let ones = (0..ONES_MAX).find(|ones| match WIDTHS[*ones as usize] {
        0 => value == 0,
        width => value > -(1 << (width - 1)) && value <= 1 << (width - 1),
    });
    push(writer, value.cast_unsigned(), ones.unwrap_or(ONES_MAX));
}

/// Writes an unsigned number.
pub(crate) fn push_varbit_uint(writer: &mut BitWriter, value: u64) {
    let ones = (0..ONES_MAX).find(|ones| value >> WIDTHS[*ones as usize] == 0);
    push(writer, value, ones.unwrap_or(ONES_MAX));
}

fn push(writer: &mut BitWriter, value: u64, ones: u32) {
    let width = WIDTHS[ones as usize];
    if ones == ONES_MAX {
        writer.push(0xff, ONES_MAX);
        writer.push(value, width);
    } else {
        let prefix = (1 << (ones + 1)) - 2;
        writer.push(prefix << width | value & ((1 << width) - 1), ones + 1 + width);
    }
}

/// Reads a signed number.
#[inline]
pub(crate) fn read_varbit_int(reader: &mut BitReader<'_>) -> i64 {
    match read(reader) {
        (bits, 64) => bits.cast_signed(),
        (_, 0) => 0,
        (bits, width) => sign_extend(bits, width),
    }
}

/// Reads an unsigned number.
pub(crate) fn read_varbit_uint(reader: &mut BitReader<'_>) -> u64 {
    read(reader).0
}

/// The bits behind a prefix, and how many.
#[inline]
fn read(reader: &mut BitReader<'_>) -> (u64, u32) {
    let ones = reader.peek().leading_ones().min(ONES_MAX);
    reader.skip((ones + 1).min(ONES_MAX));
    let width = WIDTHS[ones as usize];
    (reader.read(width), width)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_those_of_the_table() {
        let bits = |value| {
            let mut writer = BitWriter::new(&[]);
            push_varbit_int(&mut writer, value);
            // A full byte behind it shows where it ended.
            writer.push(0xff, 8);
            let mut reader = BitReader::new(writer.bytes(), 0);
            assert_eq!(read_varbit_int(&mut reader), value);
            reader.position()
        };
        let table = [
            (0, 1),
            (4, 5),
            (-3, 5),
            (-4, 9),
            (32, 9),
            (33, 13),
            (256, 13),
            (257, 17),
            (2048, 17),
            (2049, 24),
            (-131_071, 24),
            (-131_072, 32),
            (1 << 24, 32),
            ((1 << 24) + 1, 64),
            (1 << 55, 64),
            ((1 << 55) + 1, 72),
            (i64::MIN, 72),
            (i64::MAX, 72),
        ];
        for (value, length) in table {
            assert_eq!(bits(value), length, "{value}");
        }
    }

    proptest! {
        #[test]
        fn numbers_round_trip(values in prop::collection::vec((any::<i64>(), 0u32..64), 0..50)) {
            let values: Vec<_> = values.into_iter().map(|(value, shift)| value >> shift).collect();
            let mut writer = BitWriter::new(&[]);
            for value in &values {
                push_varbit_int(&mut writer, *value);
                push_varbit_uint(&mut writer, value.cast_unsigned());
            }
            let mut reader = BitReader::new(writer.bytes(), 0);
            for value in &values {
                prop_assert_eq!(read_varbit_int(&mut reader), *value);
                prop_assert_eq!(read_varbit_uint(&mut reader), value.cast_unsigned());
            }
            prop_assert!(reader.check().is_ok());
        }
    }
}
