//! Where a series stands on the circle of tokens.
//!
//! ```text
//! xxh3-64 of:  tenant  FF  name  FF  value  FF  name  FF  value  FF  …
//! ```
//!
//! The byte FF can't occur in UTF-8, so that `{a="bc"}` and `{ab="c"}` differ, and so do a tenant and a label. The
//! hash is part of the ring's format: another one would move every series.

use xxhash_rust::xxh3::xxh3_64;

const SEPARATOR: u8 = 0xFF;

/// A series' place on the circle. `labels` are sorted by name, the metric's name (`__name__`) among them, without
/// empty values.
#[must_use]
pub fn series_token<'a>(tenant: &str, labels: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(tenant.as_bytes());
    bytes.push(SEPARATOR);
    for (name, value) in labels {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(SEPARATOR);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(SEPARATOR);
    }
    if planted::is(planted::Bug::LabelsRunTogether) {
        bytes.retain(|byte| *byte != SEPARATOR);
    }
    xxh3_64(&bytes)
}

/// The place of anything else that the ring distributes: a block's ULID, a cached piece.
#[must_use]
pub fn key_token(key: &[u8]) -> u64 {
    xxh3_64(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(tenant: &str, labels: &[(&str, &str)]) -> u64 {
        series_token(tenant, labels.iter().copied())
    }

    #[test]
    fn where_names_end_matters() {
        let alike = [
            token("t", &[("a", "bc")]),
            token("t", &[("ab", "c")]),
            token("ta", &[("", "bc")]),
            token("t", &[("a", "b"), ("c", "")]),
            token("t", &[("a", ""), ("b", "c")]),
            token("", &[("t", "abc")]),
            token("tabc", &[]),
        ];
        for (i, one) in alike.iter().enumerate() {
            assert!(!alike[i + 1..].contains(one), "{i}");
        }
    }

    #[test]
    fn tokens_never_change() {
        assert_eq!(token("default", &[("__name__", "up"), ("job", "node")]), 8_393_186_319_292_016_132);
        assert_eq!(token("", &[]), xxh3_64(&[0xFF]));
    }
}
