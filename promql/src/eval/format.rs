//! Numbers and histograms as Prometheus writes them into labels and messages.

use std::fmt::Write as _;

use tsdb::model::FloatHistogram;

use crate::functions::histogram::upper_bound;

/// A float in its shortest form that reads back, without an exponent: `6`, `0.25`, `+Inf`, `NaN`.
pub(crate) fn float(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    format!("{value}")
}

/// As OpenMetrics writes bounds and quantiles: whole numbers have a fraction (`1.0`).
pub(crate) fn open_metrics(value: f64) -> String {
    let text = general(value);
    if value.is_finite() && !text.contains(['.', 'e']) { text + ".0" } else { text }
}

/// Exponents from which on Go's `%g` writes a float with one.
const GENERAL_EXPONENTS: std::ops::Range<i32> = -4..21;

/// A float as Go's `%g` writes it: with an exponent of two digits where it is very large or small.
pub(crate) fn general(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return float(value);
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("a float in scientific form has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent of a float is a number");
    if GENERAL_EXPONENTS.contains(&exponent) {
        return float(value);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// A native histogram in one line: count, sum and each filled bucket with the kind of its bounds.
pub(crate) fn histogram(h: &FloatHistogram) -> String {
    let mut out = format!("{{count:{}, sum:{}", general(h.count), general(h.sum));
    let mut bucket = |open: char, lower: f64, upper: f64, close: char, count: f64| {
        write!(out, ", {open}{},{}{close}:{}", general(lower), general(upper), general(count))
            .expect("writing to a string can't fail");
    };
    let filled = |(_, count): &(i32, f64)| *count != 0.0;
    if h.has_custom_buckets() {
        let bounds = h.custom_values.as_deref().unwrap_or_default();
        let at = |index: i32| usize::try_from(index).ok().and_then(|i| bounds.get(i)).copied();
        for (index, count) in h.positive().filter(filled) {
            let lower = if index <= 0 { f64::NEG_INFINITY } else { at(index - 1).unwrap_or(f64::INFINITY) };
            let open = if lower == f64::NEG_INFINITY { '[' } else { '(' };
            bucket(open, lower, at(index).unwrap_or(f64::INFINITY), ']', count);
        }
        return out + "}";
    }
    let negative: Vec<_> = h.negative().filter(filled).collect();
    for (index, count) in negative.into_iter().rev() {
        bucket('[', -upper_bound(index, h.schema), -upper_bound(index - 1, h.schema), ')', count);
    }
    if h.zero_count != 0.0 {
        bucket('[', -h.zero_threshold, h.zero_threshold, ']', h.zero_count);
    }
    for (index, count) in h.positive().filter(filled) {
        bucket('(', upper_bound(index - 1, h.schema), upper_bound(index, h.schema), ']', count);
    }
    out + "}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_look_like_gos() {
        assert_eq!(float(6.0), "6");
        assert_eq!(float(f64::NEG_INFINITY), "-Inf");
        assert_eq!(general(0.001), "0.001");
        assert_eq!(general(1e-7), "1e-07");
        assert_eq!(general(1.5e21), "1.5e+21");
        assert_eq!(open_metrics(1.0), "1.0");
        assert_eq!(open_metrics(-0.1), "-0.1");
        assert_eq!(open_metrics(f64::NAN), "NaN");
    }
}
