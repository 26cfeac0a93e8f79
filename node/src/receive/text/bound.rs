//! Numbers in labels: `le` of histograms and `quantile` of summaries, spelled one way.
//!
//! Clients write the same bound as `1`, `1.0` or `1e0`. Prometheus 3 spells it as OpenMetrics does when it scrapes, and
//! sends it so: text that we take must give the same series (prometheus/prometheus 12984).

use std::borrow::Cow;

/// The value of a label as it is stored: `le` of a `histogram` and `quantile` of a `summary` as a float of OpenMetrics,
/// any other as it is. `kind` is the family's type as a `# TYPE` line names it. Text that isn't a number, or is beyond
/// the range of doubles, stays.
pub fn canonical_bound<'v>(kind: &str, label: &str, value: &'v str) -> Cow<'v, str> {
    if !matches!((kind, label), ("histogram", "le") | ("summary", "quantile")) {
        return Cow::Borrowed(value);
    }
    let Ok(number) = value.parse::<f64>() else { return Cow::Borrowed(value) };
    // Go's parser, unlike Rust's, refuses digits that stand for more than a double can be.
    if number.is_infinite() && value.bytes().any(|b| b.is_ascii_digit()) {
        return Cow::Borrowed(value);
    }
    let spelled = spelled(number);
    if spelled == value { Cow::Borrowed(value) } else { Cow::Owned(spelled) }
}

/// A float as Go's `strconv.FormatFloat(f, 'g', -1, 64)` writes it, with `.0` where it would look like an integer.
fn spelled(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if number == 0.0 {
        // Of both signs.
        return "0.0".to_owned();
    }
    // The shortest digits that read back as the same number, and the exponent behind them.
    let shortest = format!("{number:e}");
    let (digits, exponent) = shortest.split_once('e').expect("a finite number has an exponent in this form");
    let exponent: i32 = exponent.parse().expect("an exponent of a double is a small integer");
    if (-4..6).contains(&exponent) {
        let plain = number.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_spelled_as_openmetrics_spells_floats() {
        for (text, wanted) in [
            ("1", "1.0"),
            ("-1", "-1.0"),
            ("+1", "1.0"),
            ("1.0", "1.0"),
            ("1e0", "1.0"),
            ("0", "0.0"),
            ("-0", "0.0"),
            (".5", "0.5"),
            ("0.50", "0.5"),
            ("0.1", "0.1"),
            ("2.5", "2.5"),
            ("100000", "100000.0"),
            ("999999", "999999.0"),
            ("1000000", "1e+06"),
            ("1234567", "1.234567e+06"),
            ("1e6", "1e+06"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("0.000012", "1.2e-05"),
            ("1e100", "1e+100"),
            ("5e-324", "5e-324"),
            ("+Inf", "+Inf"),
            ("inf", "+Inf"),
            ("Infinity", "+Inf"),
            ("-inf", "-Inf"),
            ("nan", "NaN"),
            // No numbers, or none that a double holds.
            ("1e999", "1e999"),
            ("-1e999", "-1e999"),
            ("", ""),
            (" 1", " 1"),
            ("one", "one"),
        ] {
            assert_eq!(canonical_bound("histogram", "le", text), wanted, "{text}");
            assert_eq!(canonical_bound("summary", "quantile", text), wanted, "{text}");
            assert_eq!(canonical_bound("histogram", "le", wanted), wanted);
        }
    }

    #[test]
    fn other_labels_and_other_types_keep_their_text() {
        for (kind, label) in [
            ("histogram", "quantile"),
            ("histogram", "LE"),
            ("summary", "le"),
            ("gauge", "le"),
            ("gaugehistogram", "le"),
            ("unknown", "quantile"),
            ("", "le"),
        ] {
            assert_eq!(canonical_bound(kind, label, "1"), "1", "{kind} {label}");
        }
    }
}
