//! Times and durations as people type them.
//!
//! A time is `now`, `now-1h30m`, seconds since the Unix epoch, or anything that the server understands (RFC 3339).

use super::Failure;

/// Milliseconds in each unit of a duration, largest first, as PromQL has them.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// The wall clock of whoever types, in milliseconds since the Unix epoch.
#[allow(clippy::disallowed_methods, reason = "a client's own clock: no node runs here")]
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// What to send as a time parameter: `now` is made a number, the rest goes as it is.
pub fn time_parameter(text: &str, now_ms: i64) -> Result<String, Failure> {
    Ok(match relative_ms(text, now_ms)? {
        Some(ms) => format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000)),
        None => text.to_owned(),
    })
}

/// A time in milliseconds since the Unix epoch, for verbs that don't ask a server.
pub fn time_ms(text: &str, now_ms: i64) -> Result<i64, Failure> {
    if let Some(ms) = relative_ms(text, now_ms)? {
        return Ok(ms);
    }
    let seconds: f64 = text
        .parse()
        .map_err(|_| Failure::usage(format!("{text:?} isn't a time: write now, now-1h or Unix seconds")))?;
    Ok((seconds * 1000.0).round() as i64)
}

fn relative_ms(text: &str, now_ms: i64) -> Result<Option<i64>, Failure> {
    let Some(rest) = text.strip_prefix("now") else { return Ok(None) };
    Ok(Some(match rest.chars().next() {
        None => now_ms,
        Some('-') => now_ms - duration_ms(&rest[1..])?,
        Some('+') => now_ms + duration_ms(&rest[1..])?,
        Some(_) => return Err(Failure::usage(format!("{text:?} isn't a time: write now-1h, say"))),
    }))
}

/// A duration in milliseconds: `15s`, `1h30m`, or a number of seconds.
pub fn duration_ms(text: &str) -> Result<i64, Failure> {
    let wrong =
        || Failure::usage(format!("{text:?} isn't a duration: write 15s, 1h30m or a number of seconds"));
    if let Ok(seconds) = text.parse::<f64>() {
        return if seconds.is_finite() { Ok((seconds * 1000.0).round() as i64) } else { Err(wrong()) };
    }
    let (mut rest, mut sum) = (text, 0i64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let count: i64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (_, ms) = UNITS.into_iter().find(|(name, _)| *name == &rest[..unit]).ok_or_else(wrong)?;
        rest = &rest[unit..];
        sum = count.checked_mul(ms).and_then(|part| sum.checked_add(part)).ok_or_else(wrong)?;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_promql_writes_them() {
        for (text, ms) in
            [("15s", 15_000), ("1h30m", 5_400_000), ("250ms", 250), ("1d", 86_400_000), ("1.5", 1500)]
        {
            assert_eq!(duration_ms(text).unwrap(), ms, "{text}");
        }
        for text in ["", "h", "1", "5x", "1h-", "99999999999999y", "inf"] {
            let parsed = duration_ms(text);
            assert!(parsed.is_err() || text == "1", "{text}: {parsed:?}");
        }
    }

    #[test]
    fn times_relative_to_now() {
        assert_eq!(time_parameter("now", 1_500).unwrap(), "1.500");
        assert_eq!(time_parameter("now-1s", 1_500).unwrap(), "0.500");
        assert_eq!(time_parameter("2024-01-01T00:00:00Z", 0).unwrap(), "2024-01-01T00:00:00Z");
        assert_eq!(time_ms("1700000000.25", 0).unwrap(), 1_700_000_000_250);
        assert!(time_ms("yesterday", 0).is_err());
        assert!(time_parameter("nowish", 0).is_err());
    }
}
