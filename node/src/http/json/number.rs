//! Numbers as Go writes them with `strconv.FormatFloat(v, 'f', -1, 64)`: the fewest digits that read back the same.
//!
//! Prometheus switches to exponents below 1e-6 and from 1e21 on, with at least two digits (`1e-07`, `1e+21`).

/// Where exponents begin.
const EXPONENT_BELOW: f64 = 1e-6;
const EXPONENT_FROM: f64 = 1e21;
/// Integers below this are exact, and fit an `i64` whose digits are the shortest text.
const INTEGERS_BELOW: f64 = 9_007_199_254_740_992.0;

/// A sample's value, without quotes: `1.5`, `+Inf`, `1e+21`.
pub fn push_float(out: &mut Vec<u8>, value: f64) {
    let size = value.abs();
    if size != 0.0 && size.is_finite() && !(EXPONENT_BELOW..EXPONENT_FROM).contains(&size) {
        push_exponent(out, value);
    } else {
        push_plain(out, value);
    }
}

/// A value without ever using exponents, as scalars have it.
pub fn push_plain(out: &mut Vec<u8>, value: f64) {
    let (mut integer, mut float) = (itoa::Buffer::new(), zmij::Buffer::new());
    if let Some(text) = short_text(value, &mut integer, &mut float) {
        out.extend_from_slice(text.as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else {
        use std::io::Write as _;
        write!(out, "{value}").expect("writing to memory can't fail");
    }
}

/// What [`push_float`] and [`push_plain`] write of most values: at most 24 bytes.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
pub fn short_text<'b>(
    value: f64,
    integer: &'b mut itoa::Buffer,
    float: &'b mut zmij::Buffer,
) -> Option<&'b str> {
    let size = value.abs();
    if size < INTEGERS_BELOW && (value as i64) as f64 == value {
        let is_negative_zero = value == 0.0 && value.is_sign_negative();
        Some(if is_negative_zero { "-0" } else { integer.format(value as i64) })
    } else {
        (1e-5..1e15).contains(&size).then(|| float.format_finite(value))
    }
}

/// `1.5e-07`, `-1e+21`.
fn push_exponent(out: &mut Vec<u8>, value: f64) {
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').expect("the format has an exponent");
    out.extend_from_slice(digits.as_bytes());
    let (sign, exponent) = exponent.strip_prefix('-').map_or((b'+', exponent), |rest| (b'-', rest));
    out.extend_from_slice(&[b'e', sign]);
    if exponent.len() < 2 {
        out.push(b'0');
    }
    out.extend_from_slice(exponent.as_bytes());
}

/// A sample's time: seconds, with three decimals where there is a fraction.
pub fn push_timestamp(out: &mut Vec<u8>, timestamp_ms: i64) {
    if timestamp_ms < 0 {
        out.push(b'-');
    }
    let ms = timestamp_ms.unsigned_abs();
    out.extend_from_slice(itoa::Buffer::new().format(ms / 1000).as_bytes());
    let fraction = ms % 1000;
    if fraction != 0 {
        let [_, fraction @ ..] = digits(fraction as u32);
        out.push(b'.');
        out.extend_from_slice(&fraction);
    }
}

/// Four decimal digits of a number below 10,000.
#[inline]
pub fn digits(number: u32) -> [u8; 4] {
    [number / 1000, number / 100, number / 10, number].map(|digit| b'0' + (digit % 10) as u8)
}

/// A time as scalars and strings have it: seconds, without zeros at the end of the fraction.
pub fn push_short_timestamp(out: &mut Vec<u8>, timestamp_ms: i64) {
    push_timestamp(out, timestamp_ms);
    if timestamp_ms % 1000 != 0 {
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn float(value: f64) -> String {
        let mut out = Vec::new();
        push_float(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    fn timestamp(ms: i64, push: fn(&mut Vec<u8>, i64)) -> String {
        let mut out = Vec::new();
        push(&mut out, ms);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_written_as_go_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-17.25, "-17.25"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e-6, "0.000001"),
            (0.000_012, "0.000012"),
            (9.999e-7, "9.999e-07"),
            (1e-7, "1e-07"),
            (5e-324, "5e-324"),
            (1e15, "1000000000000000"),
            (1.5e15, "1500000000000000"),
            (123_456_789_012_345.67, "123456789012345.67"),
            (1_234_567_890_123_456.7, "1234567890123456.8"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (1e20, "100000000000000000000"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
            (f64::from_bits(0x7ff0_0000_0000_0002), "NaN"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn scalars_never_have_exponents() {
        let mut out = Vec::new();
        push_plain(&mut out, 1e22);
        push_plain(&mut out, 1e-8);
        assert_eq!(out, b"100000000000000000000000.00000001");
    }

    #[test]
    fn times_are_seconds() {
        for (ms, long, short) in [
            (0, "0", "0"),
            (1_435_781_451_781, "1435781451.781", "1435781451.781"),
            (1500, "1.500", "1.5"),
            (10_000, "10", "10"),
            (7, "0.007", "0.007"),
            (-1500, "-1.500", "-1.5"),
            (i64::MIN, "-9223372036854775.808", "-9223372036854775.808"),
        ] {
            assert_eq!(timestamp(ms, push_timestamp), long);
            assert_eq!(timestamp(ms, push_short_timestamp), short);
        }
    }

    proptest! {
        #[test]
        fn values_read_back(bits: u64) {
            let value = f64::from_bits(bits);
            let back: f64 = float(value).parse().unwrap();
            prop_assert!(back == value || value.is_nan() && back.is_nan());
        }
    }
}
