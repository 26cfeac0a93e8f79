//! Functions over ranges.

use promql::functions::Function as F;
use promql::parse::ast::{Call, Edges, Expr, Node, ValueType};

use super::select::{Item, Run};
use super::{Evaluator, Histogram, Point, Result, Value, aggregate, rates};

impl Evaluator<'_> {
    pub fn window(&self, call: &Call, time_ms: i64) -> Result<Vec<Point>> {
        let mut params = Vec::new();
        let mut range = None;
        for arg in &call.args {
            match arg.value_type() {
                ValueType::Matrix => range = Some(arg),
                _ => params.push(self.scalar(arg, time_ms)?),
            }
        }
        let range = range.ok_or_else(|| format!("{:?} isn't evaluated", call.function))?;
        refuse_edges(range, Some(call.function))?;
        let runs = self.range(range, time_ms)?;
        if call.function == F::DoubleExponentialSmoothing
            && !runs.is_empty()
            && params.iter().any(|factor| !(*factor > 0.0 && *factor < 1.0))
        {
            return Err("a factor isn't between 0 and 1".to_owned());
        }
        let keeps_name = matches!(call.function, F::LastOverTime | F::FirstOverTime);
        let points = runs.into_iter().filter_map(|run| {
            let value = over(call.function, &run, &params, time_ms)?;
            let drop_name = run.drop_name || !keeps_name;
            Some(Point { labels: run.labels, drop_name, value })
        });
        Ok(points.collect())
    }
}

/// Few functions know what to do with samples beyond a range; nothing else does.
pub fn refuse_edges(range: &Expr, function: Option<F>) -> Result<()> {
    let Node::Matrix(matrix) = &range.unwrap_parens().node else { return Ok(()) };
    let is_rate = matches!(function, Some(F::Rate | F::Increase | F::Delta));
    let fits = match matrix.selector.edges {
        Edges::Plain => true,
        Edges::Smoothed => is_rate,
        Edges::Anchored => is_rate || matches!(function, Some(F::Changes | F::Resets)),
    };
    if fits { Ok(()) } else { Err("edges don't fit".to_owned()) }
}

fn over(function: F, run: &Run, params: &[f64], time_ms: i64) -> Option<Value> {
    match function {
        F::Rate | F::Increase | F::Delta => return rates::rate(function, run),
        F::Irate | F::Idelta => return rates::instant_rate(function == F::Irate, run),
        _ => {}
    }
    let items = match run.edges {
        Edges::Plain => &run.items[..],
        // From the anchor on.
        _ if run.items.last()?.time_ms <= run.start_ms => return None,
        _ => {
            let anchor = run.items.iter().rposition(|i| i.time_ms <= run.start_ms).unwrap_or(0);
            &run.items[anchor..]
        }
    };
    let floats: Vec<(i64, f64)> = items
        .iter()
        .filter_map(|item| match item.value {
            Value::Float(value) => Some((item.time_ms, value)),
            Value::Histogram(_) => None,
        })
        .collect();
    let values: Vec<f64> = floats.iter().map(|(_, v)| *v).collect();
    let histograms: Vec<&Histogram> = items
        .iter()
        .filter_map(|item| match &item.value {
            Value::Histogram(h) => Some(h),
            Value::Float(_) => None,
        })
        .collect();
    let seconds = |item: &Item| item.time_ms as f64 / 1000.0;
    let pairs = |counts: fn(&Item, &Item) -> bool| items.windows(2).filter(|p| counts(&p[0], &p[1])).count();
    let (first, last) = (items.first()?, items.last()?);
    let float = match function {
        F::FirstOverTime => return Some(first.value.clone()),
        F::LastOverTime => return Some(last.value.clone()),
        F::SumOverTime | F::AvgOverTime => {
            if !floats.is_empty() && !histograms.is_empty() {
                return None;
            }
            if histograms.is_empty() {
                let total = if function == F::SumOverTime { sum(&values) } else { mean(&values) };
                return Some(Value::Float(total));
            }
            let of = if function == F::SumOverTime { sum } else { mean };
            return Histogram::united(&histograms, of).ok().map(Value::Histogram);
        }
        F::CountOverTime => items.len() as f64,
        F::PresentOverTime => 1.0,
        F::TsOfFirstOverTime => seconds(first),
        F::TsOfLastOverTime => seconds(last),
        F::Changes => pairs(is_change) as f64,
        F::Resets => pairs(rates::is_reset) as f64,
        // All others see floats alone.
        _ if values.is_empty() => return None,
        F::MinOverTime => best(&floats, |a, b| a < b).1,
        F::MaxOverTime => best(&floats, |a, b| a > b).1,
        F::TsOfMinOverTime => best(&floats, |a, b| a <= b).0 as f64 / 1000.0,
        F::TsOfMaxOverTime => best(&floats, |a, b| a >= b).0 as f64 / 1000.0,
        F::StdvarOverTime => aggregate::variance(&values),
        F::StddevOverTime => aggregate::variance(&values).sqrt(),
        F::QuantileOverTime => aggregate::quantile(params[0], &values),
        F::MadOverTime if values.iter().any(|v| v.is_nan()) => f64::NAN,
        F::MadOverTime => {
            let median = aggregate::quantile(0.5, &values);
            let distances: Vec<f64> = values.iter().map(|v| (v - median).abs()).collect();
            aggregate::quantile(0.5, &distances)
        }
        _ if values.len() < 2 => return None,
        F::Deriv => line(&floats, floats[0].0).0,
        F::PredictLinear => {
            let (slope, now) = line(&floats, time_ms);
            slope * params[0] + now
        }
        F::DoubleExponentialSmoothing => smoothing(&values, params[0], params[1]),
        _ => return None,
    };
    Some(Value::Float(float))
}

fn is_change(a: &Item, b: &Item) -> bool {
    match (&a.value, &b.value) {
        (Value::Float(a), Value::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
        (Value::Histogram(a), Value::Histogram(b)) => !a.equals(b),
        _ => true,
    }
}

/// The best of some values, and its time; NaN is the worst.
fn best(floats: &[(i64, f64)], beats: fn(f64, f64) -> bool) -> (i64, f64) {
    let mut best = floats[0];
    for float in &floats[1..] {
        if beats(float.1, best.1) || best.1.is_nan() {
            best = *float;
        }
    }
    best
}

/// A sum that keeps what each addition rounds away.
pub fn sum(values: &[f64]) -> f64 {
    let (mut total, mut lost) = (0.0f64, 0.0f64);
    for value in values {
        let next = total + value;
        lost += if total.abs() >= value.abs() { (total - next) + value } else { (value - next) + total };
        total = next;
    }
    if total.is_finite() && lost.is_finite() { total + lost } else { total }
}

/// Halved often enough not to overflow.
pub fn mean(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let plain = sum(values) / count;
    if plain.is_finite() || values.iter().any(|v| !v.is_finite()) {
        return plain;
    }
    let small: Vec<f64> = values.iter().map(|v| v / 1e30).collect();
    sum(&small) / count * 1e30
}

/// Slope per second, and value at a time, of the line through samples; constants have none of their own rounding.
fn line(floats: &[(i64, f64)], zero_ms: i64) -> (f64, f64) {
    let first = floats[0].1;
    if floats.iter().all(|(_, v)| *v == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = floats.len() as f64;
    let of = |term: fn(f64, f64) -> f64| {
        let terms: Vec<f64> = floats.iter().map(|(t, y)| term((t - zero_ms) as f64 / 1000.0, *y)).collect();
        sum(&terms)
    };
    let (x, y, xy, xx) = (of(|x, _| x), of(|_, y| y), of(|x, y| x * y), of(|x, _| x * x));
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

/// Holt's linear method.
fn smoothing(values: &[f64], smoothing: f64, trend: f64) -> f64 {
    let mut level = values[0];
    let mut slope = values[1] - values[0];
    let mut before = level;
    for (i, value) in values.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        (before, level) = (level, smoothing * value + (1.0 - smoothing) * (level + slope));
    }
    level
}
