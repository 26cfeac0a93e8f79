//! Number literals: decimal, `0x` hexadecimal, octal with a leading `0`, with `_` between digits.

/// What a run of letters, digits, dots and underscores is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Parsed {
    Value(f64),
    NotANumber,
    OutOfRange,
}

/// Reads `text`, which starts with a digit or with a dot and a digit.
pub(super) fn parse(text: &str) -> Parsed {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    if let Some(hex) = hex {
        let digits = hex.strip_prefix('_').unwrap_or(hex);
        return match digits_only(digits, |b| b.is_ascii_hexdigit()) {
            Some(digits) => integer(&digits, 16),
            None => Parsed::NotANumber,
        };
    }
    let Some(digits) = digits_only(text, |b| b.is_ascii_digit()) else {
        return float(text);
    };
    // A leading zero makes it octal, unless a digit says otherwise: `010` is 8, `018` is 18.
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b < b'8') {
        return integer(&digits, 8);
    }
    float(&digits)
}

/// `text` without its underscores, if it holds nothing but digits and single underscores between them.
fn digits_only(text: &str, is_digit: impl Fn(u8) -> bool) -> Option<String> {
    let bytes = text.as_bytes();
    let proper = !bytes.is_empty()
        && bytes.iter().enumerate().all(|(i, b)| match b {
            b'_' => i > 0 && is_digit(bytes[i - 1]) && bytes.get(i + 1).copied().is_some_and(&is_digit),
            b => is_digit(*b),
        });
    proper.then(|| text.replace('_', ""))
}

#[allow(clippy::cast_precision_loss, reason = "a literal means the nearest float")]
fn integer(digits: &str, radix: u32) -> Parsed {
    i64::from_str_radix(digits, radix).map_or(Parsed::OutOfRange, |value| Parsed::Value(value as f64))
}

/// `digits [. digits] [e [sign] digits]`, one side of the dot at least.
fn float(text: &str) -> Parsed {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let part = |text: &str| match text {
        "" => Some(String::new()),
        text => digits_only(text, |b| b.is_ascii_digit()),
    };
    let (Some(whole), Some(fraction)) = (part(whole), part(fraction.unwrap_or(""))) else {
        return Parsed::NotANumber;
    };
    if whole.is_empty() && fraction.is_empty() {
        return Parsed::NotANumber;
    }
    let exponent = match exponent {
        None => "0".to_owned(),
        Some(exponent) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let Some(digits) = digits_only(digits, |b| b.is_ascii_digit()) else { return Parsed::NotANumber };
            if exponent.starts_with('-') { format!("-{digits}") } else { digits }
        }
    };
    let value: f64 = format!("0{whole}.{fraction}0e{exponent}").parse().expect("built as a float is written");
    if value.is_infinite() { Parsed::OutOfRange } else { Parsed::Value(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_have_the_values_that_prometheus_gives_them() {
        for (text, value) in [
            ("1", 1.0),
            ("0", 0.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            ("2.5e-3", 0.0025),
            ("0x1f", 31.0),
            ("0X_1F_F", 511.0),
            ("0755", 493.0),
            ("018", 18.0),
            ("1_000_000", 1e6),
            (".123_456_789", 0.123_456_789),
            ("99999999999999999999", 1e20),
        ] {
            assert_eq!(parse(text), Parsed::Value(value), "{text}");
        }
    }

    #[test]
    fn whatever_else_looks_like_a_number_is_none() {
        for text in
            ["1_", "1__0", "1._0", "1e", "1e+", "0x", "0x1p4", "1.2.3", "5m", "1_e3", "0xg", "1x", "0b1"]
        {
            assert_eq!(parse(text), Parsed::NotANumber, "{text}");
        }
        for text in ["1e999", "0xffffffffffffffff"] {
            assert_eq!(parse(text), Parsed::OutOfRange, "{text}");
        }
    }
}
