//! The client's book of every sample it sent: *acked* must exist, *unknown* may exist, *unsent* mustn't.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::wire::{self, Value};

/// What a client knows about one sample that it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The answer was a success.
    Acked,
    /// The answer was an error, or didn't come.
    Unknown,
}

/// Samples by series (the value of the label `series`) and timestamp in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    samples: BTreeMap<(String, i64), (Value, Fate)>,
}

/// What a ledger found wrong with a server's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Acked samples that aren't there, or have another value.
    pub lost: Vec<(String, i64)>,
    /// Samples that nobody sent, or that are there with a value that nobody sent.
    pub invented: Vec<(String, i64)>,
    /// Samples that are there twice.
    pub doubled: Vec<(String, i64)>,
}

impl Findings {
    /// Nothing was found.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Ledger {
    /// Notes a number with what became of it.
    pub fn note(&mut self, series: &str, timestamp_ms: i64, value: f64, fate: Fate) {
        self.note_value(series, timestamp_ms, Value::Float(value), fate);
    }

    /// Notes a sample with what became of it.
    pub fn note_value(&mut self, series: &str, timestamp_ms: i64, value: Value, fate: Fate) {
        self.samples.insert((series.to_owned(), timestamp_ms), (value, fate));
    }

    /// Takes another's notes.
    pub fn absorb(&mut self, other: Self) {
        self.samples.extend(other.samples);
    }

    /// How many samples were acked.
    pub fn acked(&self) -> usize {
        self.samples.values().filter(|(_, fate)| *fate == Fate::Acked).count()
    }

    /// Compares with a matrix of raw samples, the result of `metric[range]`, which covers all that was noted and shows
    /// no stale markers.
    pub fn check(&self, matrix: &Json) -> Findings {
        let mut findings = Findings::default();
        let mut seen = BTreeMap::new();
        for series in matrix.as_array().into_iter().flatten() {
            let name = series["metric"]["series"].as_str().unwrap_or_default();
            let list = |kind: &str| series[kind].as_array().into_iter().flatten();
            let floats = list("values").map(|point| (point, false));
            for (point, is_histogram) in floats.chain(list("histograms").map(|point| (point, true))) {
                let timestamp_ms = (point[0].as_f64().unwrap_or(f64::NAN) * 1000.0).round() as i64;
                let key = (name.to_owned(), timestamp_ms);
                let sent = self.samples.get(&key).filter(|(sent, _)| is(&point[1], is_histogram, *sent));
                if sent.is_none() {
                    findings.invented.push(key.clone());
                }
                if seen.insert(key.clone(), sent.is_some()).is_some() {
                    findings.doubled.push(key);
                }
            }
        }
        for (key, (sent, fate)) in &self.samples {
            if *fate == Fate::Acked && *sent != Value::Stale && seen.get(key) != Some(&true) {
                findings.lost.push(key.clone());
            }
        }
        findings
    }
}

/// Whether a point's value is what was sent: of a histogram its sum and all of its counts.
fn is(shown: &Json, is_histogram: bool, sent: Value) -> bool {
    let number = |json: &Json| json.as_str().and_then(|text| text.parse::<f64>().ok());
    match sent {
        Value::Float(sent) => !is_histogram && number(shown) == Some(sent),
        Value::Stale => false,
        Value::Histogram(level) => {
            let counts = wire::buckets(level).map(|count| count as f64);
            let buckets = shown["buckets"].as_array();
            let shown_counts = buckets.into_iter().flatten().map(|bucket| number(&bucket[3]));
            is_histogram
                && number(&shown["count"]) == Some(counts.iter().sum())
                && number(&shown["sum"]) == Some(f64::from(level))
                && shown_counts.eq(counts.map(Some))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_ledger_tells_lost_invented_and_doubled() {
        let mut ledger = Ledger::default();
        ledger.note("a", 1000, 1.0, Fate::Acked);
        ledger.note("a", 2000, 2.0, Fate::Unknown);
        ledger.note("a", 3000, 3.0, Fate::Acked);
        let of = |values: Json| json!([{"metric": {"series": "a"}, "values": values}]);
        assert!(ledger.check(&of(json!([[1, "1"], [3, "3"]]))).is_empty());
        assert!(ledger.check(&of(json!([[1, "1"], [2, "2"], [3, "3"]]))).is_empty());
        let findings = ledger.check(&of(json!([[1, "9"], [4, "4"], [3, "3"], [3, "3"]])));
        let key = |ms| ("a".to_owned(), ms);
        assert_eq!(findings.lost, [key(1000)]);
        assert_eq!(findings.invented, [key(1000), key(4000)]);
        assert_eq!(findings.doubled, [key(3000)]);
    }

    #[test]
    fn a_ledger_compares_each_count_of_a_histogram_and_expects_no_markers() {
        let mut ledger = Ledger::default();
        ledger.note_value("a", 1000, Value::Histogram(3), Fate::Acked);
        ledger.note_value("a", 2000, Value::Stale, Fate::Acked);
        let shown = |first: &str| {
            json!([{"metric": {"series": "a"}, "histograms": [[1, {
                "count": "11", "sum": "3", "buckets": [[0, "0.5", "1", first], [0, "1", "2", "7"]]
            }]]}])
        };
        assert!(ledger.check(&shown("4")).is_empty());
        let key = ("a".to_owned(), 1000);
        let other = Findings { lost: vec![key.clone()], invented: vec![key], doubled: Vec::new() };
        assert_eq!(ledger.check(&shown("5")), other);
    }
}
