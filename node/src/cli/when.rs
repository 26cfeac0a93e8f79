//! Times and durations as people type them.
//!
//! A time is `now`, `now-1h30m`, seconds since the Unix epoch, or RFC 3339.

use super::Failure;
use crate::env::{Clock, SystemClock};
use crate::time::{parse_step_ms, parse_time_ms};

/// The wall clock of whoever types, in milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    SystemClock.now_ms()
}

/// A time in milliseconds since the Unix epoch.
pub fn time_ms(text: &str, now_ms: i64) -> Result<i64, Failure> {
    let relative = text.strip_prefix("now").map(|rest| match rest.split_at_checked(1) {
        None => Some(now_ms),
        Some(("-", back)) => Some(now_ms - parse_step_ms(back)?),
        Some(("+", ahead)) => Some(now_ms + parse_step_ms(ahead)?),
        Some(_) => None,
    });
    relative.unwrap_or_else(|| parse_time_ms(text)).ok_or_else(|| {
        Failure::usage(format!(
            "{text:?} isn't a time: write now, now-1h, Unix seconds or 2006-01-02T15:04:05Z"
        ))
    })
}

/// A time as a parameter of the HTTP API.
pub fn time_parameter(text: &str, now_ms: i64) -> Result<String, Failure> {
    let ms = time_ms(text, now_ms)?;
    let sign = if ms < 0 { "-" } else { "" };
    Ok(format!("{sign}{}.{:03}", ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000))
}

/// A duration in milliseconds: `15s`, `1h30m`, or a number of seconds.
pub fn duration_ms(text: &str) -> Result<i64, Failure> {
    parse_step_ms(text).ok_or_else(|| {
        Failure::usage(format!("{text:?} isn't a duration: write 15s, 1h30m or a number of seconds"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_absolute_and_relative_to_now() {
        assert_eq!(time_ms("now", 1_500).unwrap(), 1_500);
        assert_eq!(time_ms("now-1m30s", 100_000).unwrap(), 10_000);
        assert_eq!(time_ms("now+1s", 1_500).unwrap(), 2_500);
        assert_eq!(time_ms("1700000000.25", 0).unwrap(), 1_700_000_000_250);
        assert_eq!(time_ms("1970-01-01T00:00:01Z", 0).unwrap(), 1_000);
        for wrong in ["yesterday", "nowish", "now-", "now-x", ""] {
            assert!(time_ms(wrong, 0).is_err(), "{wrong}");
        }
    }

    #[test]
    fn parameters_keep_their_milliseconds() {
        assert_eq!(time_parameter("now", 1_005).unwrap(), "1.005");
        assert_eq!(time_parameter("now-2s", 500).unwrap(), "-1.500");
    }
}
