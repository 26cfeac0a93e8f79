//! Times and durations as Prometheus's API takes and writes them.

use crate::config::parse_duration_ms;

/// Furthest times that the API takes, in milliseconds: Go's `time.Time` bounds as Prometheus sets them, about 292
/// million years either way.
const TIME_MS_MAX: i64 = i64::MAX / 1000 * 1000 - 62_135_596_801_000 / 1000 * 1000;
const TIME_MS_MIN: i64 = -TIME_MS_MAX;

/// What clients send for "as early as can be" and "as late as can be".
const MIN_TIME_TEXT: &str = "-292273086-05-16T16:47:06Z";
const MAX_TIME_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// Unix seconds with a fraction, or RFC 3339, in milliseconds; `None` when it is neither.
pub fn parse_time_ms(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds_to_ms(seconds);
    }
    match text {
        MIN_TIME_TEXT => Some(TIME_MS_MIN),
        MAX_TIME_TEXT => Some(TIME_MS_MAX),
        _ => parse_rfc3339_ms(text),
    }
}

/// Nanoseconds of a second, and of a millisecond.
const SECOND_NS: f64 = 1e9;
const MS_NS: i64 = 1_000_000;

/// Longest duration that the API takes, in milliseconds: 292 years, what Go counts in nanoseconds.
const DURATION_MS_MAX: u64 = (i64::MAX / MS_NS).unsigned_abs();

/// Seconds with a fraction, or `1h30m`, in milliseconds; `None` when it is neither, or longer than fits into 64 bits as
/// nanoseconds (292 years).
pub fn parse_step_ms(text: &str) -> Option<i64> {
    let parsed_ms = match text.parse::<f64>() {
        Ok(seconds) => length_ms(seconds),
        Err(_) => match text.strip_prefix('-') {
            Some(positive) => parse_duration_ms(positive).map(|ms| -ms),
            None => parse_duration_ms(text),
        },
    };
    parsed_ms.filter(|ms| ms.unsigned_abs() <= DURATION_MS_MAX)
}

/// By way of whole nanoseconds, and cut to milliseconds, as Prometheus does it: 33.3 s are 33,299 ms there, and steps that
/// were rounded would drift away from its own.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the range is checked")]
fn length_ms(seconds: f64) -> Option<i64> {
    let ns = seconds * SECOND_NS;
    (ns.abs() < i64::MAX as f64).then_some(ns as i64 / MS_NS)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the range is checked")]
fn seconds_to_ms(seconds: f64) -> Option<i64> {
    let ms = seconds.trunc() * 1000.0 + (seconds.fract() * 1000.0).round();
    (ms.abs() <= TIME_MS_MAX as f64).then_some(ms as i64)
}

/// `2006-01-02T15:04:05[.999](Z|±07:00)`, in milliseconds; further digits are cut.
fn parse_rfc3339_ms(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|b| wanted.contains(b));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut ms = 0;
    if is(at, b".") {
        let digits = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let padded = bytes[at + 1..at + 1 + digits].iter().chain(b"00").take(3);
        ms = padded.fold(0, |n, d| n * 10 + i64::from(d - b'0'));
        at += 1 + digits;
    }
    let offset_min = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b":") => {
            let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            if *sign == b'+' { hours * 60 + minutes } else { -(hours * 60 + minutes) }
        }
        _ => return None,
    };
    let seconds =
        days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_min * 60;
    Some(seconds * 1000 + ms)
}

/// `2006-01-02T15:04:05.999Z`; milliseconds only where there are any.
pub fn format_rfc3339(timestamp_ms: i64) -> String {
    let (days, ms_of_day) = (timestamp_ms.div_euclid(86_400_000), timestamp_ms.rem_euclid(86_400_000));
    let (year, month, day) = civil_from_days(days);
    let (s, ms) = (ms_of_day / 1000, ms_of_day % 1000);
    let fraction = if ms == 0 { String::new() } else { format!(".{ms:03}") };
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{fraction}Z", s / 3600, s / 60 % 60, s % 60)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar, counting years from March, so that a leap day is the last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let from_march = (month + 9) % 12;
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_seconds_or_rfc3339() {
        for (text, ms) in [
            ("1435781451.781", 1_435_781_451_781),
            ("0", 0),
            ("-1.5", -1500),
            ("1e3", 1_000_000),
            ("2015-06-03T13:21:58.555Z", 1_433_337_718_555),
            ("2015-06-03T14:21:58.555555555+01:00", 1_433_337_718_555),
            ("1970-01-01T00:00:00Z", 0),
            ("2024-02-29T23:59:59-00:30", 1_709_252_999_000),
        ] {
            assert_eq!(parse_time_ms(text), Some(ms), "{text}");
        }
        assert!(parse_time_ms(MIN_TIME_TEXT).unwrap() < parse_time_ms(MAX_TIME_TEXT).unwrap());
        for text in
            ["", "30s", "NaN", "inf", "2015-06-03", "2023-02-29T00:00:00Z", "2015-06-03T13:21:60Z", "1e20"]
        {
            assert_eq!(parse_time_ms(text), None, "{text}");
        }
    }

    #[test]
    fn steps_are_seconds_or_durations() {
        for (text, ms) in [("15", 15_000), ("0.5", 500), ("1m30s", 90_000), ("-1m", -60_000)] {
            assert_eq!(parse_step_ms(text), Some(ms), "{text}");
        }
        for text in ["", "x", "NaN", "1e30", "9223372037", "inf"] {
            assert_eq!(parse_step_ms(text), None, "{text}");
        }
    }

    #[test]
    fn fractions_of_a_step_are_cut_as_in_prometheus() {
        for (text, ms) in [
            ("33.3", 33_299),
            ("0.0019", 1),
            ("-33.3", -33_299),
            ("0.0009", 0),
            ("16.1", 16_100),
            ("9223372036", 9_223_372_036_000),
        ] {
            assert_eq!(parse_step_ms(text), Some(ms), "{text}");
        }
        // The second step of a query from there on.
        let start_ms = parse_time_ms("1796070300.25").unwrap();
        assert_eq!(start_ms + parse_step_ms("33.3").unwrap(), 1_796_070_333_549);
    }

    proptest! {
        #[test]
        fn formatted_times_read_back(ms in -62_135_596_800_000i64..253_402_300_799_999) {
            prop_assert_eq!(parse_time_ms(&format_rfc3339(ms)), Some(ms));
        }
    }
}
