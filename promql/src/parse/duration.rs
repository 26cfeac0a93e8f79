//! Durations: `1h30m`, whole numbers with the units `y w d h m s ms`, each at most once and in this order.

use std::fmt::Write;

/// Units and their lengths in milliseconds. A year has 365 days.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// The longest duration in milliseconds: what fits into 64 bits as nanoseconds, 292 years.
pub const MAX_MS: i64 = i64::MAX / 1_000_000;

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It isn't written as one.
    #[error("not a valid duration")]
    Syntax,
    /// It is longer than [`MAX_MS`].
    #[error("duration out of range")]
    OutOfRange,
}

/// Milliseconds of a duration such as `1h30m`.
///
/// # Errors
/// See [`Error`].
pub fn parse(text: &str) -> Result<i64, Error> {
    if text.is_empty() {
        return Err(Error::Syntax);
    }
    let mut rest = text;
    let mut total_ms: i64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, behind) = behind.split_at(letters);
        let at = UNITS[next_unit..].iter().position(|(name, _)| *name == unit).ok_or(Error::Syntax)?;
        if number.is_empty() {
            return Err(Error::Syntax);
        }
        let number: i64 = number.parse().map_err(|_| Error::OutOfRange)?;
        let (_, unit_ms) = UNITS[next_unit + at];
        let part_ms = number.checked_mul(unit_ms).ok_or(Error::OutOfRange)?;
        total_ms = total_ms.checked_add(part_ms).filter(|ms| *ms <= MAX_MS).ok_or(Error::OutOfRange)?;
        next_unit += at + 1;
        rest = behind;
    }
    Ok(total_ms)
}

/// The shortest way to write a duration: `90000` is `1m30s`. Years and weeks are used only where nothing is left
/// over (`400d`, not `1y35d`), as Prometheus shows them.
pub fn format(duration_ms: i64) -> String {
    if duration_ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if duration_ms < 0 {
        out.push('-');
    }
    let mut rest_ms = duration_ms.unsigned_abs();
    for (unit, unit_ms) in UNITS {
        let unit_ms = unit_ms.unsigned_abs();
        let only_exact = matches!(unit, "y" | "w");
        if rest_ms >= unit_ms && (!only_exact || rest_ms.is_multiple_of(unit_ms)) {
            write!(out, "{}{unit}", rest_ms / unit_ms).expect("writing to a string never fails");
            rest_ms %= unit_ms;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_come_in_order_and_once() {
        assert_eq!(parse("1h30m"), Ok(5_400_000));
        assert_eq!(parse("1y2w3d4h5m6s7ms"), Ok(((((365 + 14 + 3) * 24 + 4) * 60 + 5) * 60 + 6) * 1000 + 7));
        for wrong in ["", "5", "m", "30m1h", "1m1m", "1.5h", "5hs", "1h ", "-1h", "5M"] {
            assert_eq!(parse(wrong), Err(Error::Syntax), "{wrong}");
        }
        assert_eq!(parse("293y"), Err(Error::OutOfRange));
        assert_eq!(parse("99999999999999999999s"), Err(Error::OutOfRange));
    }

    #[test]
    fn years_and_weeks_are_shown_only_when_nothing_is_left() {
        assert_eq!(format(0), "0s");
        assert_eq!(format(90_000), "1m30s");
        assert_eq!(format(7 * 86_400_000), "1w");
        assert_eq!(format(8 * 86_400_000), "8d");
        assert_eq!(format(365 * 86_400_000), "1y");
        assert_eq!(format(400 * 86_400_000), "400d");
        assert_eq!(format(-1), "-1ms");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(duration_ms in 0..=MAX_MS) {
            prop_assert_eq!(parse(&format(duration_ms)), Ok(duration_ms));
        }
    }
}
