//! What answers in Prometheus's JSON say of series, in the ledger's terms.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::ledger::{Histogram, Value};
use super::series::series_of;

/// A histogram as it is shown: its count, its sum, and the counts of buckets that aren't empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    count: f64,
    sum: f64,
    buckets: Vec<f64>,
}

/// A value as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Answered {
    /// A number.
    Float(f64),
    /// A native histogram.
    Histogram(Shown),
    /// Something that no writer sends.
    Odd(String),
}

impl Answered {
    /// Whether this is what was sent.
    #[allow(clippy::cast_precision_loss, reason = "counts of some thousands")]
    pub fn is(&self, sent: &Value) -> bool {
        match (self, sent) {
            (Self::Float(shown), Value::Float(sent)) => shown == sent,
            (Self::Histogram(shown), Value::Histogram(sent)) => *shown == Shown::of(sent),
            _ => false,
        }
    }
}

impl Shown {
    #[allow(clippy::cast_precision_loss, reason = "counts of some thousands")]
    fn of(sent: &Histogram) -> Self {
        let buckets = sent.buckets().map(|count| count as f64).to_vec();
        Self { count: sent.count() as f64, sum: sent.sum, buckets }
    }

    fn parse(json: &Json) -> Option<Self> {
        let buckets = json["buckets"].as_array()?.iter().map(|bucket| number(&bucket[3]));
        Some(Self {
            count: number(&json["count"])?,
            sum: number(&json["sum"])?,
            buckets: buckets.collect::<Option<_>>()?,
        })
    }
}

/// All points of one series of a matrix or a vector, in order of time (milliseconds since the Unix epoch); a time that
/// comes twice stands there twice.
pub fn points(series: &Json) -> Vec<(i64, Answered)> {
    let float = |pair: &Json| {
        let value = number(&pair[1]).map(Answered::Float);
        (at_ms(pair), value.unwrap_or_else(|| Answered::Odd(pair.to_string())))
    };
    let histogram = |pair: &Json| {
        let value = Shown::parse(&pair[1]).map(Answered::Histogram);
        (at_ms(pair), value.unwrap_or_else(|| Answered::Odd(pair.to_string())))
    };
    let list = |name: &str| series[name].as_array().cloned().unwrap_or_default();
    let one = |name: &str| series.get(name).cloned();
    let floats = list("values").into_iter().chain(one("value"));
    let histograms = list("histograms").into_iter().chain(one("histogram"));
    let mut points: Vec<_> = floats.map(|pair| float(&pair)).collect();
    points.extend(histograms.map(|pair| histogram(&pair)));
    points.sort_by_key(|(at_ms, _)| *at_ms);
    points
}

/// A result's series, by number; those that no writer made are told apart.
pub fn by_series(result: &Json, is_named: bool) -> (BTreeMap<usize, Vec<Json>>, Vec<String>) {
    let (mut found, mut odd) = (BTreeMap::<usize, Vec<Json>>::new(), Vec::new());
    for series in result.as_array().into_iter().flatten() {
        match series_of(&series["metric"], is_named) {
            Some(number) => found.entry(number).or_default().push(series.clone()),
            None => odd.push(series["metric"].to_string()),
        }
    }
    (found, odd)
}

/// The number of a vector's or scalar's text.
pub fn number(json: &Json) -> Option<f64> {
    json.as_str()?.parse().ok()
}

/// When a point `[seconds, value]` is, in milliseconds.
#[allow(clippy::cast_possible_truncation, reason = "milliseconds of this century")]
pub fn at_ms(pair: &Json) -> i64 {
    pair[0].as_f64().map_or(0, |s| (s * 1000.0).round() as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn points_are_in_order_whatever_their_kind_and_doubles_stay() {
        let histogram =
            json!({"count": "3", "sum": "7", "buckets": [[0, "0", "1", "1"], [0, "1", "2", "2"]]});
        let series = json!({
            "metric": {"series": "5"},
            "values": [[1, "4"], [3, "6"], [3, "6"]],
            "histograms": [[2.5, histogram]],
        });
        let points = points(&series);
        let times: Vec<_> = points.iter().map(|(at_ms, _)| *at_ms).collect();
        assert_eq!(times, [1000, 2500, 3000, 3000]);
        let sent = |level, sum| Value::Histogram(Histogram { level, sum, is_reset: false });
        assert!(points[0].1.is(&Value::Float(4.0)) && !points[0].1.is(&Value::Stale));
        assert!(!points[1].1.is(&sent(0, 7.0)), "two buckets of a level of 0 are 1 and 1");
        assert_eq!(points[1].1, Answered::Histogram(Shown { count: 3.0, sum: 7.0, buckets: vec![1.0, 2.0] }));
    }
}
