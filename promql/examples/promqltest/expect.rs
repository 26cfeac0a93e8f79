//! What a case expects, and whether an answer is that.

use std::fmt::Write;

use tsdb::model::{FloatHistogram, Labels, is_stale};

use crate::histogram;
use crate::script::When;
use crate::values::{Item, Point};

/// Values may differ by this, relative to their size.
const EPSILON: f64 = 1e-6;

/// An answer, from wherever.
#[derive(Debug)]
pub struct Answer {
    pub value: Value,
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

#[derive(Debug)]
pub enum Value {
    Scalar(f64),
    String(String),
    /// One sample for each series, in the order of the answer.
    Vector(Vec<(Labels, Number)>),
    /// Samples of each series by time in milliseconds, in the order of the answer.
    Matrix(Vec<(Labels, Vec<(i64, Number)>)>),
}

#[derive(Clone, Debug)]
pub enum Number {
    Float(f64),
    Histogram(FloatHistogram),
    /// A histogram as the HTTP API shows it: without schema and hint.
    Shown(ShownHistogram),
}

/// A histogram in the HTTP API's form.
#[derive(Clone, Debug)]
pub struct ShownHistogram {
    pub count: f64,
    pub sum: f64,
    /// Lower bound, upper bound, count; without empty ones; ascending.
    pub buckets: Vec<(f64, f64, f64)>,
}

/// A text that a message must be, or match.
pub enum Pattern {
    Any,
    Text(String),
    Regex(regex::Regex),
}

impl Pattern {
    pub fn regex(pattern: &str) -> Result<Self, String> {
        regex::Regex::new(pattern).map(Self::Regex).map_err(|e| e.to_string())
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Text(expected) => expected == text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }

    fn show(&self) -> &str {
        match self {
            Self::Any => "any",
            Self::Text(text) => text,
            Self::Regex(regex) => regex.as_str(),
        }
    }
}

pub enum Annotation {
    Warning(Pattern),
    Info(Pattern),
}

#[derive(Default)]
pub struct Expectation {
    pub fails: Option<Pattern>,
    pub annotations: Vec<Annotation>,
    pub no_warnings: bool,
    pub no_infos: bool,
    /// The order of the series counts.
    pub is_ordered: bool,
    pub scalar: Option<f64>,
    pub string: Option<String>,
    /// The times of a range vector's points.
    pub matrix_at: Option<When>,
    pub series: Vec<(Labels, Vec<Item>)>,
}

impl Expectation {
    pub fn is_matrix(&self) -> bool {
        self.matrix_at.is_some()
    }

    /// Compares values alone; `when` is the time of the evaluation.
    pub fn check_value(&self, value: &Value, when: When) -> Result<(), String> {
        match (value, self.scalar, &self.string) {
            (Value::Scalar(actual), Some(expected), _) if almost_equal(expected, *actual) => Ok(()),
            (Value::String(actual), _, Some(expected)) if actual == expected => Ok(()),
            (Value::Scalar(_) | Value::String(_), _, _) => Err(format!("unexpected {value:?}")),
            (_, Some(scalar), _) => Err(format!("expected the scalar {scalar}, got {}", show(value))),
            (_, _, Some(string)) => Err(format!("expected the string {string:?}, got {}", show(value))),
            (Value::Vector(actual), None, None) => self.check_vector(actual),
            (Value::Matrix(actual), None, None) => self.check_matrix(actual, self.matrix_at.unwrap_or(when)),
        }
    }

    fn check_vector(&self, actual: &[(Labels, Number)]) -> Result<(), String> {
        for (position, (labels, number)) in actual.iter().enumerate() {
            let at = self.series.iter().position(|(l, _)| l == labels);
            let at = at.ok_or_else(|| format!("unexpected {labels} {}", number.show()))?;
            if self.is_ordered && at != position {
                return Err(format!("{labels} is at position {position} instead of {at}"));
            }
            let expected = self.series[at].1.first().cloned().flatten();
            if !expected.as_ref().is_some_and(|expected| number.is(expected)) {
                return Err(format!("{labels}: expected {}, got {}", show_item(&expected), number.show()));
            }
        }
        self.check_none_missing(actual.iter().map(|(labels, _)| labels))
    }

    fn check_matrix(&self, actual: &[(Labels, Vec<(i64, Number)>)], when: When) -> Result<(), String> {
        let When::Range { start_ms, end_ms, step_ms } = when else {
            return Err("an unexpected range vector".to_owned());
        };
        for (labels, points) in actual {
            let expected = self.series.iter().find(|(l, _)| l == labels);
            let (_, items) = expected.ok_or_else(|| format!("unexpected {labels}"))?;
            let mut timestamp_ms = start_ms;
            let mut wanted = Vec::new();
            for item in items {
                if timestamp_ms > end_ms {
                    return Err(format!("{labels}: more points are expected than there are steps"));
                }
                wanted.extend(item.as_ref().map(|point| (timestamp_ms, point)));
                timestamp_ms += step_ms;
            }
            let is_right = wanted.len() == points.len()
                && wanted.iter().zip(points).all(|((t, point), (at, number))| t == at && number.is(point));
            if !is_right {
                let got: Vec<String> = points.iter().map(|(t, n)| format!("{}@{t}", n.show())).collect();
                let wanted: Vec<String> =
                    wanted.iter().map(|(t, p)| format!("{}@{t}", show_item(&Some((*p).clone())))).collect();
                return Err(format!("{labels}: expected {}, got {}", wanted.join(" "), got.join(" ")));
            }
        }
        self.check_none_missing(actual.iter().map(|(labels, _)| labels))
    }

    fn check_none_missing<'a>(&self, actual: impl Iterator<Item = &'a Labels> + Clone) -> Result<(), String> {
        let missing = |(labels, _): &&(Labels, Vec<Item>)| !actual.clone().any(|l| l == labels);
        match self.series.iter().find(missing) {
            Some((labels, _)) => Err(format!("{labels} is missing")),
            None if actual.count() > self.series.len() => Err("a series occurs twice".to_owned()),
            None => Ok(()),
        }
    }

    /// Compares warnings and infos.
    pub fn check_annotations(&self, answer: &Answer) -> Result<(), String> {
        if self.no_warnings && !answer.warnings.is_empty() {
            return Err(format!("unexpected warnings {:?}", answer.warnings));
        }
        if self.no_infos && !answer.infos.is_empty() {
            return Err(format!("unexpected infos {:?}", answer.infos));
        }
        let of = |is_wanted: fn(&Annotation) -> Option<&Pattern>| -> Vec<&Pattern> {
            self.annotations.iter().filter_map(is_wanted).collect()
        };
        let warnings = of(|a| if let Annotation::Warning(pattern) = a { Some(pattern) } else { None });
        let infos = of(|a| if let Annotation::Info(pattern) = a { Some(pattern) } else { None });
        for (kind, patterns, texts) in
            [("warning", warnings, &answer.warnings), ("info", infos, &answer.infos)]
        {
            if patterns.is_empty() {
                continue;
            }
            if let Some(pattern) = patterns.iter().find(|p| !texts.iter().any(|text| p.matches(text))) {
                return Err(format!("{kind} {:?} is missing among {texts:?}", pattern.show()));
            }
            if let Some(text) = texts.iter().find(|text| !patterns.iter().any(|p| p.matches(text))) {
                return Err(format!("unexpected {kind} {text:?}"));
            }
        }
        Ok(())
    }

    /// Whether an error is the one expected.
    pub fn check_error(&self, error: &str) -> Result<(), String> {
        match &self.fails {
            Some(pattern) if pattern.matches(error) => Ok(()),
            Some(pattern) => Err(format!("expected the error {:?}, got {error:?}", pattern.show())),
            None => Err(format!("failed: {error}")),
        }
    }
}

impl Number {
    fn is(&self, expected: &Point) -> bool {
        match (self, expected) {
            (Self::Float(actual), Point::Float(expected)) => almost_equal(*expected, *actual),
            (Self::Histogram(actual), Point::Histogram { value, has_hint }) => {
                histogram::equal(value, actual, *has_hint)
            }
            (Self::Shown(actual), Point::Histogram { value, .. }) => histogram::equal_shown(value, actual),
            _ => false,
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Float(value) => value.to_string(),
            Self::Histogram(value) => histogram::show(value),
            Self::Shown(value) => format!("{value:?}"),
        }
    }
}

fn show_item(item: &Item) -> String {
    match item {
        None => "nothing".to_owned(),
        Some(Point::Float(value)) => value.to_string(),
        Some(Point::Histogram { value, .. }) => histogram::show(value),
    }
}

fn show(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Vector(series) => {
            for (labels, number) in series {
                write!(text, "{labels} {}; ", number.show()).expect("writing to a string never fails");
            }
        }
        other => text = format!("{other:?}"),
    }
    text
}

/// Equal within [`EPSILON`]; NaN equals NaN, a stale marker only itself.
pub fn almost_equal(expected: f64, actual: f64) -> bool {
    if is_stale(expected) || is_stale(actual) {
        return is_stale(expected) && is_stale(actual);
    }
    if expected == actual || (expected.is_nan() && actual.is_nan()) {
        return true;
    }
    let difference = (expected - actual).abs();
    let sum = expected.abs() + actual.abs();
    if expected == 0.0 || actual == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}
