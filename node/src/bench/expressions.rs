//! Workload C: the data and the expressions by which Prometheus measures its own engine (`BenchmarkRangeQuery`).
//!
//! For X of `one` and `hundred`, as many series `a_X`, `b_X` and histograms `h_X` of eleven buckets, and `sparse`, whose
//! series take turns; 18,640 samples 10 s apart: 24.5 million. A request holds a slice of time, so that each series
//! arrives in order and none is far ahead of another.

use bytes::Bytes;

use super::payload::{Request, Timing, encode_labels, push_series};
use super::query::Case;

/// Samples of each series but the sparse ones: a day before ten thousand steps.
pub const INTERVALS: usize = 18_640;

/// Between samples, and between steps of the questions, in milliseconds.
pub const INTERVAL_MS: i64 = 10_000;

/// Steps of the long questions.
const STEPS: i64 = 1000;

/// `count_values` makes a series of nearly each value.
const STEPS_OF_VALUES: i64 = 100;

/// Samples of a series in a request: ten minutes, where Prometheus refuses what is an hour older than the newest.
const SLICE: usize = 60;

/// How many series take turns as `sparse`.
const TURNS: usize = 50;

/// Upper bounds of a histogram's buckets but the last, which is infinite.
const BUCKETS: usize = 10;

const SIZES: [(&str, usize); 2] = [("one", 1), ("hundred", 100)];

/// Labels of the series that have a sample at each interval, sorted by name.
fn lasting() -> Vec<Vec<(&'static str, String)>> {
    let mut all = Vec::new();
    for (size, count) in SIZES {
        for l in 0..count {
            let labels = |letter: &str, le: Option<String>| {
                let mut labels = vec![("__name__", format!("{letter}_{size}"))];
                labels.extend((count > 1).then(|| ("l", l.to_string())));
                labels.extend(le.map(|le| ("le", le)));
                labels
            };
            all.push(labels("a", None));
            all.push(labels("b", None));
            let bounds = (0..BUCKETS).map(|bound| bound.to_string()).chain(["+Inf".to_owned()]);
            all.extend(bounds.map(|le| labels("h", Some(le))));
        }
    }
    all
}

/// The series that is `sparse` at an interval.
fn turn(interval: usize) -> usize {
    interval / (INTERVALS / TURNS)
}

/// How many series there are, those included that are `sparse` by turns.
pub fn series() -> usize {
    lasting().len() + turn(INTERVALS - 1) + 1
}

/// How many samples there are.
pub fn samples() -> usize {
    (lasting().len() + 1) * INTERVALS
}

/// When the data is said to have been scraped, if its end is to be at `end_ms`.
pub fn timing(end_ms: i64) -> Timing {
    Timing { start_ms: end_ms - INTERVAL_MS * INTERVALS as i64, step_ms: INTERVAL_MS, scrapes: INTERVALS }
}

/// The requests of one connection, in order.
pub struct Requests {
    timing: Timing,
    /// Series of this connection: number among all, labels encoded once.
    series: Vec<(usize, Box<[u8]>)>,
    /// Of all connections.
    lasting: usize,
    sends_sparse: bool,
    interval: usize,
}

impl Requests {
    /// Those of connection `connection` out of `connections`.
    pub fn new(timing: Timing, connection: usize, connections: usize) -> Self {
        assert!(connection < connections, "a connection sends something");
        let lasting = lasting();
        let own = lasting.iter().enumerate().skip(connection).step_by(connections);
        let series = own.map(|(number, labels)| (number, encode_labels(labels))).collect();
        Self { timing, series, lasting: lasting.len(), sends_sparse: connection == 0, interval: 0 }
    }

    /// Appends a series' samples of an interval after the other; value `number / all` is what tells series apart.
    fn push(&self, plain: &mut Vec<u8>, labels: &[u8], number: usize, intervals: std::ops::Range<usize>) {
        let share = number as f64 / self.lasting as f64;
        let sample = |interval: usize| {
            (self.timing.start_ms + self.timing.step_ms * interval as i64, interval as f64 + share)
        };
        push_series(plain, labels, &intervals.map(sample).collect::<Vec<_>>());
    }
}

impl Iterator for Requests {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let slice = self.interval..(self.interval + SLICE).min(self.timing.scrapes);
        if slice.is_empty() {
            return None;
        }
        let mut plain = Vec::new();
        for (number, labels) in &self.series {
            self.push(&mut plain, labels, *number, slice.clone());
        }
        let mut samples = self.series.len() * slice.len();
        if self.sends_sparse {
            samples += slice.len();
            let mut rest = slice.clone();
            while !rest.is_empty() {
                let turn = turn(rest.start);
                let end = rest.clone().find(|i| self::turn(*i) != turn).unwrap_or(rest.end);
                let labels = encode_labels(&[("__name__", "sparse"), ("l", &turn.to_string())]);
                self.push(&mut plain, &labels, 0, rest.start..end);
                rest.start = end;
            }
        }
        self.interval = slice.end;
        let body =
            snap::raw::Encoder::new().compress_vec(&plain).expect("a slice is far below snappy's 4 GiB");
        Some(Request { body: Bytes::from(body), samples, scrapes_done: self.interval })
    }
}

/// The expressions of Prometheus's benchmark; X stands for a size.
const EXPRESSIONS: [&str; 32] = [
    "a_X",
    "rate(a_X[1m])",
    "rate(sparse[1m])",
    "changes(a_X[1d])",
    "rate(a_X[1d])",
    "absent_over_time(a_X[1d])",
    "double_exponential_smoothing(a_X[1d], 0.3, 0.3)",
    "-a_X",
    "a_X - b_X",
    "a_X and b_X{l=~'.*[0-4]$'}",
    "a_X or b_X{l=~'.*[0-4]$'}",
    "a_X unless b_X{l=~'.*[0-4]$'}",
    "abs(a_X)",
    "label_replace(a_X, 'l2', '$1', 'l', '(.*)')",
    "label_join(a_X, 'l2', '-', 'l', 'l')",
    "timestamp(a_X)",
    "sum(a_X)",
    "avg(a_X)",
    "sum without (l) (h_X)",
    "sum without (le) (h_X)",
    "sum by (l) (h_X)",
    "sum by (le) (h_X)",
    "count_values('value', h_X)",
    "topk(1, a_X)",
    "topk(5, a_X)",
    "rate(a_X[1m]) + rate(b_X[1m])",
    "sum without (l) (rate(a_X[1m]))",
    "sum without (l) (rate(a_X[1m])) / sum without (l) (rate(b_X[1m]))",
    "histogram_quantile(0.9, rate(h_X[5m]))",
    "a_X + on(l) group_right a_one",
    "avg without (l) (h_X)",
    "count({__name__!=\"\"})",
];

/// How Prometheus 2 calls what 3 renamed.
const RENAMED: (&str, &str) = ("double_exponential_smoothing", "holt_winters");

/// All questions: each expression for both sizes, at one step and at many.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for expression in EXPRESSIONS {
        let mut of_sizes: Vec<(String, usize)> =
            SIZES.iter().rev().map(|(size, n)| (expression.replace("_X", &format!("_{size}")), *n)).collect();
        if !expression.contains("_X") {
            of_sizes.truncate(1);
        }
        let long = if expression.starts_with("count_values") { STEPS_OF_VALUES } else { STEPS };
        for (expr, series) in of_sizes {
            for steps in [1, long] {
                let unit = if steps == 1 { "step" } else { "steps" };
                cases.push(Case {
                    name: format!("{expr}, {steps} {unit}"),
                    older: expr.contains(RENAMED.0).then(|| expr.replace(RENAMED.0, RENAMED.1)),
                    expr: expr.clone(),
                    range_ms: Some(((steps - 1) * INTERVAL_MS, INTERVAL_MS)),
                    series,
                });
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::payload::tests::decode;
    use super::*;

    #[test]
    fn every_series_has_its_samples_once_and_in_order() {
        let timing = Timing { scrapes: 2 * SLICE + 7, ..timing(1_700_000_000_000) };
        let mut times: BTreeMap<Vec<(String, String)>, Vec<i64>> = BTreeMap::new();
        for connection in 0..3 {
            for request in Requests::new(timing, connection, 3) {
                let samples = decode(&request.body);
                assert_eq!(samples.len(), request.samples);
                for (labels, _, timestamp_ms) in samples {
                    times.entry(labels).or_default().push(timestamp_ms);
                }
            }
        }
        let expected: Vec<i64> =
            (0..timing.scrapes as i64).map(|i| timing.start_ms + i * INTERVAL_MS).collect();
        assert_eq!(times.len(), 1314);
        assert!(times.values().all(|of_series| *of_series == expected));
    }

    #[test]
    fn sparse_series_take_turns() {
        let timing = timing(1_700_000_000_000);
        let mut of_turn: BTreeMap<String, usize> = BTreeMap::new();
        // All other connections together have the rest.
        for request in Requests::new(timing, 0, 10_000) {
            for (labels, ..) in decode(&request.body).iter().filter(|(labels, ..)| labels[0].1 == "sparse") {
                *of_turn.entry(labels[1].1.clone()).or_default() += 1;
            }
        }
        assert_eq!(of_turn.len() + 1313, series());
        assert_eq!(of_turn.values().sum::<usize>(), INTERVALS);
        assert_eq!(of_turn["7"], INTERVALS / TURNS);
    }

    #[test]
    fn questions_differ_and_can_be_parsed() {
        let cases = cases();
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), cases.len());
        for case in &cases {
            let parsed = promql::parse_with(&case.expr, promql::Syntax { experimental: true });
            assert!(parsed.is_ok(), "{}", case.expr);
        }
    }
}
