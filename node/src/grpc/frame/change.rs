//! How a float differs from the one before it of the same series.
//!
//! ```text
//! code, 6 bits:
//!   before << 3 | n - 1    n bytes follow, high byte first: of value XOR last value those behind `before` zero bytes;
//!                          the rest of the eight are zero too (before + n is at most 8)
//!   7 << 3 | 1, 2, 3       a signed varint follows: how much more the value is than the last one, in units of its
//!                          last digit. Both have no more than 0, 2, 3 decimals.
//!   7 << 3 | 7             no change, nothing follows
//! ```
//! Most of what is measured has few digits, and the bits of its binary fractions all change at once: 12.34 to 12.35
//! is 7 bytes as XOR and 1 as a difference of hundredths.

use tsdb::varint::{length_of_signed, put_signed, take_signed};

/// Codes of a difference of decimals are from here on, which no XOR has.
const DECIMAL: u8 = 7 << 3;
const SAME: u8 = 7 << 3 | 7;
/// All bits of a code.
const CODE: u8 = 0x3f;

/// Units into which 1 is cut, by code.
const UNITS: [f64; 3] = [1.0, 100.0, 1000.0];

/// Whole numbers up to here are all floats.
const WHOLE_MAX: f64 = (1i64 << f64::MANTISSA_DIGITS) as f64;

/// A change of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The bits that differ.
    Bits(u64),
    /// So many units of the last digit more.
    Units {
        /// Index of the unit: wholes, hundredths, thousandths.
        unit: u8,
        /// How many.
        more: i64,
    },
}

impl Change {
    /// No change.
    pub const NONE: Self = Self::Bits(0);

    /// The shortest way from one float's bits to another's.
    #[inline]
    pub fn between(last: u64, next: u64) -> Self {
        let bits = last ^ next;
        let plain = Self::Bits(bits);
        let (before, end) = ends(bits);
        if bits == 0 || end - before == 1 {
            return plain;
        }
        for unit in 0..UNITS.len() {
            if let (Some(from), Some(to)) = (count(last, unit), count(next, unit)) {
                let more = to - from;
                let is_shorter = length_of_signed(more) < end - before;
                return if is_shorter { Self::Units { unit: unit as u8, more } } else { plain };
            }
        }
        plain
    }

    /// The next float's bits.
    #[inline]
    pub fn apply(self, last: u64) -> u64 {
        match self {
            Self::Bits(bits) => last ^ bits,
            Self::Units { unit, more } => {
                let units = UNITS[usize::from(unit)];
                // As the sender counted, if it is one of ours; else any number will do.
                let from = (f64::from_bits(last) * units).round() as i64;
                (from.wrapping_add(more) as f64 / units).to_bits()
            }
        }
    }

    /// Appends what follows the control byte; the code for it.
    #[inline]
    pub(super) fn put(self, bytes: &mut Vec<u8>) -> u8 {
        match self {
            Self::NONE => SAME,
            Self::Bits(bits) => {
                let (before, end) = ends(bits);
                bytes.extend_from_slice(&bits.to_be_bytes()[before..end]);
                (before as u8) << 3 | (end - before - 1) as u8
            }
            Self::Units { unit, more } => {
                put_signed(bytes, more);
                DECIMAL | (unit + 1)
            }
        }
    }

    /// Takes what follows a control byte from the front; `None` where it is cut short or means nothing.
    #[inline]
    pub(super) fn take(control: u8, bytes: &mut &[u8]) -> Option<Self> {
        let code = control & CODE;
        let (before, length) = (usize::from(code >> 3), usize::from(code & 7) + 1);
        if before + length <= 8 {
            let (taken, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            let mut whole = [0; 8];
            whole[before..before + length].copy_from_slice(taken);
            return Some(Self::Bits(u64::from_be_bytes(whole)));
        }
        match code {
            SAME => Some(Self::NONE),
            DECIMAL.. if usize::from(code - DECIMAL) <= UNITS.len() => {
                Some(Self::Units { unit: code - DECIMAL - 1, more: take_signed(bytes)? })
            }
            _ => None,
        }
    }
}

/// From which of its eight bytes to which `bits` has any set.
#[inline]
fn ends(bits: u64) -> (usize, usize) {
    (bits.leading_zeros() as usize / 8, 8 - bits.trailing_zeros() as usize / 8)
}

/// How many units a float is, if it is the one that so many units are.
#[inline]
fn count(bits: u64, unit: usize) -> Option<i64> {
    let units = UNITS[unit];
    let whole = (f64::from_bits(bits) * units).round();
    let is_it = whole.abs() <= WHOLE_MAX && (whole / units).to_bits() == bits && bits != NEGATIVE_ZERO;
    is_it.then_some(whole as i64)
}

/// Counts as 0, whose bits are others.
const NEGATIVE_ZERO: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_float() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>(),
            (-1_000_000..1_000_000i64, 0..5u32).prop_map(|(n, digits)| n as f64 / 10f64.powi(digits as i32)),
            (-(1i64 << 55)..1 << 55).prop_map(|n| n as f64),
            prop::sample::select(vec![
                0.0,
                -0.0,
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                f64::MAX,
                5e-324
            ]),
        ]
    }

    proptest! {
        #[test]
        fn a_change_leads_to_the_very_bits(last in any_float(), next in any_float(), flags in 0..4u8) {
            let change = Change::between(last.to_bits(), next.to_bits());
            prop_assert_eq!(change.apply(last.to_bits()), next.to_bits());
            let mut bytes = Vec::new();
            let code = change.put(&mut bytes);
            prop_assert!(bytes.len() <= 8);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(Change::take(code | flags << 6, &mut rest), Some(change));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn whatever_arrives_is_survived(control: u8, bytes: [u8; 12], last: u64, cut in 0..12usize) {
            if let Some(change) = Change::take(control, &mut &bytes[..cut]) {
                change.apply(last);
            }
        }
    }

    #[test]
    fn few_digits_take_few_bytes() {
        let length = |last: f64, next: f64| {
            let mut bytes = Vec::new();
            Change::between(last.to_bits(), next.to_bits()).put(&mut bytes);
            bytes.len()
        };
        assert_eq!(length(12.34, 12.34), 0);
        assert_eq!(length(12.34, 12.35), 1);
        assert_eq!(length(0.017, 0.019), 1);
        assert_eq!(length(1_234_567.0, 1_235_567.0), 2);
        assert_eq!(length(0.1, std::f64::consts::PI), 8);
    }
}
