//! The client's book of every sample it sent: *acked* must exist, *unknown* may exist, *unsent* mustn't.

use std::collections::BTreeMap;

use serde_json::Value;

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
    samples: BTreeMap<(String, i64), (f64, Fate)>,
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
    /// Notes a sample with what became of it.
    pub fn note(&mut self, series: &str, timestamp_ms: i64, value: f64, fate: Fate) {
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

    /// Compares with a matrix of raw samples, the result of `metric[range]`, which covers all that was noted.
    pub fn check(&self, matrix: &Value) -> Findings {
        let mut findings = Findings::default();
        let mut seen = BTreeMap::new();
        for series in matrix.as_array().into_iter().flatten() {
            let name = series["metric"]["series"].as_str().unwrap_or_default();
            for point in series["values"].as_array().into_iter().flatten() {
                let timestamp_ms = (point[0].as_f64().unwrap_or(f64::NAN) * 1000.0).round() as i64;
                let value: f64 = point[1].as_str().and_then(|v| v.parse().ok()).unwrap_or(f64::NAN);
                let key = (name.to_owned(), timestamp_ms);
                if self.samples.get(&key).is_none_or(|(sent, _)| *sent != value) {
                    findings.invented.push(key.clone());
                }
                if seen.insert(key.clone(), value).is_some() {
                    findings.doubled.push(key);
                }
            }
        }
        for (key, (sent, fate)) in &self.samples {
            if *fate == Fate::Acked && seen.get(key) != Some(sent) {
                findings.lost.push(key.clone());
            }
        }
        findings
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
        let of = |values: Value| json!([{"metric": {"series": "a"}, "values": values}]);
        assert!(ledger.check(&of(json!([[1, "1"], [3, "3"]]))).is_empty());
        assert!(ledger.check(&of(json!([[1, "1"], [2, "2"], [3, "3"]]))).is_empty());
        let findings = ledger.check(&of(json!([[1, "9"], [4, "4"], [3, "3"], [3, "3"]])));
        let key = |ms| ("a".to_owned(), ms);
        assert_eq!(findings.lost, [key(1000)]);
        assert_eq!(findings.invented, [key(1000), key(4000)]);
        assert_eq!(findings.doubled, [key(3000)]);
    }
}
