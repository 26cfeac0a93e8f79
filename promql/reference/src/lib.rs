//! A naive evaluator of PromQL: the oracle against which the engine is tested. No product depends on it.
//!
//! It is written to be read beside the language's documentation, and shares nothing with the engine but the syntax tree
//! and the model of samples: every step is evaluated for itself, from all samples, with maps and plain loops. It
//! tells values and whether there is an error, not its words, and no annotations.
//!
//! | module | what it evaluates |
//! |---|---|
//! | `select` | selectors and subqueries |
//! | `windows`, `rates` | functions over ranges |
//! | `instant`, `labels` | functions of samples, and of labels |
//! | `classic` | classic histograms |
//! | `histogram`, `sketch` | native ones: arithmetic, and what they tell |
//! | `binary`, `aggregate` | operators |

mod aggregate;
mod binary;
mod classic;
pub mod fuzz;
mod histogram;
mod instant;
mod labels;
mod rates;
mod select;
mod sketch;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;

use promql::functions::Function;
use promql::parse::ast::{Expr, Node, ValueType};
use tsdb::model::{CounterReset, FloatHistogram, Labels, Sample};

pub use histogram::{Bucket, Histogram};

/// A stored series.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Its samples, by time.
    pub samples: Vec<Sample>,
}

/// When an expression is evaluated; all in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// First step.
    pub start_ms: i64,
    /// No step lies behind it.
    pub end_ms: i64,
    /// Between steps; 0 makes an instant query.
    pub step_ms: i64,
    /// How long a sample counts.
    pub lookback_ms: i64,
    /// Step of subqueries that name none.
    pub subquery_step_ms: i64,
    /// Whether names that are taken away go at the very end, or at once.
    pub delayed_name_removal: bool,
}

impl Steps {
    /// An instant query, and Prometheus's defaults.
    pub fn instant(time_ms: i64) -> Self {
        Self {
            start_ms: time_ms,
            end_ms: time_ms,
            step_ms: 0,
            lookback_ms: 300_000,
            subquery_step_ms: 60_000,
            delayed_name_removal: false,
        }
    }
}

/// A sample's value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Histogram),
}

/// Values by series and time. A scalar is a series without labels.
pub type Answer = BTreeMap<Labels, BTreeMap<i64, Value>>;

/// One series' sample at the step.
#[derive(Clone, Debug)]
struct Point {
    labels: Labels,
    /// The name goes at the very end.
    drop_name: bool,
    value: Value,
}

impl Point {
    fn float(&self) -> Option<f64> {
        if let Value::Float(value) = self.value { Some(value) } else { None }
    }

    fn histogram(&self) -> Option<&Histogram> {
        if let Value::Histogram(histogram) = &self.value { Some(histogram) } else { None }
    }
}

type Result<T> = std::result::Result<T, String>;

/// Evaluates `expr` over `data`.
///
/// # Errors
/// What Prometheus would answer with an error; the words are our own.
pub fn evaluate(expr: &Expr, data: &[Series], steps: &Steps) -> Result<Answer> {
    let data: Vec<Series> = data.iter().map(with_hints).collect();
    let evaluator = Evaluator { data: &data, steps };
    let mut answer = Answer::new();
    let mut put =
        |labels: Labels, time_ms, value| match answer.entry(labels).or_default().insert(time_ms, value) {
            None => Ok(()),
            Some(_) => Err("two series with the same labels".to_owned()),
        };
    let mut time_ms = steps.start_ms;
    loop {
        match expr.value_type() {
            ValueType::Scalar => {
                put(Labels::default(), time_ms, Value::Float(evaluator.scalar(expr, time_ms)?))?;
            }
            ValueType::Vector => {
                for point in evaluator.vector(expr, time_ms)? {
                    put(labels::shown(&point), time_ms, point.value)?;
                }
            }
            ValueType::Matrix => {
                windows::refuse_edges(expr, None)?;
                for run in evaluator.range(expr, time_ms)? {
                    let labels =
                        if run.drop_name { labels::without_metadata(&run.labels) } else { run.labels };
                    for item in run.items {
                        put(labels.clone(), item.time_ms, item.value)?;
                    }
                }
            }
            ValueType::String => return Err("a text has no values".to_owned()),
        }
        time_ms += steps.step_ms;
        if steps.step_ms == 0 || time_ms > steps.end_ms {
            return Ok(answer);
        }
    }
}

/// Storage compares a counter's histograms, and says of one that comes after no reset that it does.
fn with_hints(series: &Series) -> Series {
    let mut series = series.clone();
    let mut previous: Option<Histogram> = None;
    for sample in &mut series.samples {
        let histogram = match &sample.value {
            tsdb::model::Value::Float(_) => None,
            _ if sample.value.is_stale() => None,
            tsdb::model::Value::Int(h) => Some(Histogram::from(&h.to_float())),
            tsdb::model::Value::Histogram(h) => Some(Histogram::from(&**h)),
        };
        let unknown = histogram.as_ref().filter(|h| h.hint == CounterReset::Unknown);
        if let (Some(now), Some(before)) = (unknown, previous.as_ref().filter(|h| !h.is_gauge()))
            && !now.is_reset_after(before)
        {
            let told = FloatHistogram { counter_reset: CounterReset::NotReset, ..FloatHistogram::from(now) };
            sample.value = tsdb::model::Value::Histogram(Arc::new(told));
        }
        previous = histogram;
    }
    series
}

struct Evaluator<'a> {
    data: &'a [Series],
    steps: &'a Steps,
}

impl Evaluator<'_> {
    fn scalar(&self, expr: &Expr, time_ms: i64) -> Result<f64> {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        Ok(match &expr.node {
            Node::Number(number) => number.value,
            Node::Paren(inner) => self.scalar(inner, time_ms)?,
            Node::Unary(unary) => {
                let operand = self.scalar(&unary.operand, time_ms)?;
                if unary.negative { -operand } else { operand }
            }
            Node::Binary(binary) => {
                let (first, operations) = binary.operations();
                let mut value = self.scalar(first, time_ms)?;
                for operation in operations {
                    let other = self.scalar(operation.other, time_ms)?;
                    let (a, b) = if operation.other_on_left { (other, value) } else { (value, other) };
                    value = binary::between_scalars(operation.operator.op, a, b);
                }
                value
            }
            Node::Call(call) => {
                let arg = |i: usize| self.scalar(&call.args[i], time_ms);
                match call.function {
                    Function::Pi => std::f64::consts::PI,
                    Function::Time => seconds(time_ms),
                    Function::Start => seconds(self.steps.start_ms),
                    Function::End => seconds(self.steps.end_ms),
                    Function::Range => seconds(self.steps.end_ms - self.steps.start_ms),
                    Function::Step => seconds(self.steps.step_ms),
                    Function::MinOf => instant::least(arg(0)?, arg(1)?),
                    Function::MaxOf => instant::greatest(arg(0)?, arg(1)?),
                    Function::ScalarOf => {
                        let points = self.vector(&call.args[0], time_ms)?;
                        let floats: Vec<f64> = points.iter().filter_map(Point::float).collect();
                        if let [only] = floats[..] { only } else { f64::NAN }
                    }
                    other => return Err(format!("{other:?} gives no scalar")),
                }
            }
            other => return Err(format!("no scalar: {other:?}")),
        })
    }

    fn vector(&self, expr: &Expr, time_ms: i64) -> Result<Vec<Point>> {
        self.settled(self.vector_of(expr, time_ms)?)
    }

    /// Takes names away that are to go, unless that is delayed.
    fn settled(&self, mut points: Vec<Point>) -> Result<Vec<Point>> {
        if !self.steps.delayed_name_removal && points.iter().any(|point| point.drop_name) {
            for point in &mut points {
                point.labels = labels::shown(point);
                point.drop_name = false;
            }
            labels::refuse_twins(&points)?;
        }
        Ok(points)
    }

    fn vector_of(&self, expr: &Expr, time_ms: i64) -> Result<Vec<Point>> {
        match &expr.node {
            Node::Paren(inner) => self.vector(inner, time_ms),
            Node::Vector(selector) => self.instant(selector, time_ms),
            Node::Unary(unary) => {
                let mut points = self.vector(&unary.operand, time_ms)?;
                if unary.negative {
                    for point in &mut points {
                        point.drop_name = true;
                        point.value = match &point.value {
                            Value::Float(value) => Value::Float(-value),
                            Value::Histogram(h) => Value::Histogram(h.times(-1.0)),
                        };
                    }
                }
                Ok(points)
            }
            Node::Binary(binary) => self.binary(binary, time_ms),
            Node::Aggregate(aggregate) => self.aggregate(aggregate, time_ms),
            Node::Call(call) => self.call(call, time_ms),
            other => Err(format!("no vector: {other:?}")),
        }
    }
}

/// The text of a string argument.
fn text(expr: &Expr) -> String {
    match &expr.unwrap_parens().node {
        Node::String(literal) => literal.to_string_lossy().into_owned(),
        _ => String::new(),
    }
}
