//! Aggregations.

use promql::parse::ast::{Aggregate, AggregateOp};
use tsdb::model::{Labels, METRIC_NAME};
use xxhash_rust::xxh64::xxh64;

use super::{Evaluator, Histogram, Point, Result, Value, labels, text, windows};

impl Evaluator<'_> {
    pub fn aggregate(&self, aggregate: &Aggregate, time_ms: i64) -> Result<Vec<Point>> {
        use AggregateOp as Op;
        let mut param = f64::NAN;
        let mut label = String::new();
        match &aggregate.param {
            Some(expr) if aggregate.op == Op::CountValues => label = text(expr),
            Some(expr) => param = self.scalar(expr, time_ms)?,
            None => {}
        }
        let points = self.vector(&aggregate.expr, time_ms)?;
        if aggregate.op == Op::CountValues && label.is_empty() {
            return Err("a label has a name".to_owned());
        }
        if matches!(aggregate.op, Op::Topk | Op::Bottomk | Op::Limitk | Op::LimitRatio) && param.is_nan() {
            return Err("NaN is no number of series".to_owned());
        }
        let mut groups: Vec<(Labels, Vec<Point>)> = Vec::new();
        for point in points {
            let key = if aggregate.without {
                labels::without(&labels::without(&point.labels, &aggregate.grouping), &[METRIC_NAME])
            } else {
                labels::only(&point.labels, &aggregate.grouping)
            };
            match groups.iter_mut().find(|(other, _)| *other == key) {
                Some((_, members)) => members.push(point),
                None => groups.push((key, vec![point])),
            }
        }
        let mut out = Vec::new();
        for (labels, members) in groups {
            let floats: Vec<f64> = members.iter().filter_map(Point::float).collect();
            match aggregate.op {
                Op::Topk | Op::Bottomk => {
                    let mut members: Vec<Point> =
                        members.into_iter().filter(|m| m.float().is_some()).collect();
                    let order = |a: &Point, b: &Point| {
                        let (a, b) = (a.float().unwrap_or(f64::NAN), b.float().unwrap_or(f64::NAN));
                        let order = a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()));
                        // NaN is never wanted.
                        if aggregate.op == Op::Topk || a.is_nan() || b.is_nan() {
                            order.reverse()
                        } else {
                            order
                        }
                    };
                    members.sort_by(order);
                    members.truncate(if param < 1.0 { 0 } else { param as usize });
                    out.extend(members);
                }
                Op::Limitk => {
                    out.extend(members.into_iter().take(if param < 1.0 { 0 } else { param as usize }));
                }
                Op::LimitRatio => {
                    let ratio = param.clamp(-1.0, 1.0);
                    out.extend(members.into_iter().filter(|member| {
                        let share = share(&member.labels);
                        if ratio >= 0.0 { share < ratio } else { share >= 1.0 + ratio }
                    }));
                }
                Op::CountValues => count_values(&mut out, &labels, &members, &label),
                op => {
                    let drop_name = members.iter().any(|m| m.drop_name);
                    let value = fold(op, &members, &floats, param);
                    out.extend(value.map(|value| Point { labels, drop_name, value }));
                }
            }
        }
        labels::refuse_twins(&out)?;
        Ok(out)
    }
}

fn fold(op: AggregateOp, members: &[Point], floats: &[f64], param: f64) -> Option<Value> {
    use AggregateOp as Op;
    let histograms: Vec<&Histogram> = members.iter().filter_map(Point::histogram).collect();
    let value = match op {
        Op::Sum | Op::Avg => {
            if !floats.is_empty() && !histograms.is_empty() {
                return None;
            }
            if histograms.is_empty() {
                if op == Op::Sum { windows::sum(floats) } else { windows::mean(floats) }
            } else {
                let of = if op == Op::Sum { windows::sum } else { windows::mean };
                return Histogram::united(&histograms, of).ok().map(Value::Histogram);
            }
        }
        Op::Count => members.len() as f64,
        Op::Group => 1.0,
        _ if floats.is_empty() => return None,
        Op::Min => floats.iter().copied().fold(f64::NAN, |a, b| if b < a || a.is_nan() { b } else { a }),
        Op::Max => floats.iter().copied().fold(f64::NAN, |a, b| if b > a || a.is_nan() { b } else { a }),
        Op::Stdvar => variance(floats),
        Op::Stddev => variance(floats).sqrt(),
        _ => quantile(param, floats),
    };
    Some(Value::Float(value))
}

fn count_values(out: &mut Vec<Point>, group: &Labels, members: &[Point], label: &str) {
    let mut counts: Vec<(String, f64)> = Vec::new();
    for member in members {
        let text = match &member.value {
            Value::Float(value) => go_float(*value),
            // Not compared: the engine's own tests tell how histograms are written.
            Value::Histogram(_) => "histogram".to_owned(),
        };
        match counts.iter_mut().find(|(other, _)| *other == text) {
            Some((_, count)) => *count += 1.0,
            None => counts.push((text, 1.0)),
        }
    }
    let drop_name = members.iter().any(|m| m.drop_name) && label != METRIC_NAME;
    for (text, count) in counts {
        let labels = labels::with(group, label, &text);
        match out.iter_mut().find(|p| p.labels == labels) {
            Some(other) => other.value = Value::Float(other.float().unwrap_or(0.0) + count),
            None => out.push(Point { labels, drop_name, value: Value::Float(count) }),
        }
    }
}

fn go_float(value: f64) -> String {
    if value.is_infinite() {
        (if value > 0.0 { "+Inf" } else { "-Inf" }).to_owned()
    } else {
        value.to_string()
    }
}

pub fn variance(values: &[f64]) -> f64 {
    // From the first value on, so that equal ones have none.
    let n = values.len() as f64;
    let distances: Vec<f64> = values.iter().map(|v| v - values[0]).collect();
    let mean = windows::sum(&distances) / n;
    let squares: Vec<f64> = distances.iter().map(|v| (v - mean) * (v - mean)).collect();
    windows::sum(&squares) / n
}

/// What every quantile is where `phi` isn't one: -Inf below 0, +Inf above 1, NaN for NaN.
pub fn beyond(phi: f64) -> Option<f64> {
    if phi < 0.0 {
        Some(f64::NEG_INFINITY)
    } else if phi > 1.0 {
        Some(f64::INFINITY)
    } else {
        phi.is_nan().then_some(f64::NAN)
    }
}

pub fn quantile(phi: f64, values: &[f64]) -> f64 {
    if let Some(beyond) = beyond(phi) {
        return beyond;
    }
    if values.is_empty() {
        return f64::NAN;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())));
    let rank = phi * (sorted.len() - 1) as f64;
    let (lower, weight) = (rank.floor(), rank - rank.floor());
    let upper = (lower as usize + 1).min(sorted.len() - 1);
    sorted[lower as usize] * (1.0 - weight) + sorted[upper] * weight
}

/// Prometheus's place of a label set between 0 and 1.
fn share(labels: &Labels) -> f64 {
    let mut bytes = Vec::new();
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        // Texts in tests are short.
        bytes.push(text.len() as u8);
        bytes.extend_from_slice(text.as_bytes());
    }
    xxh64(&bytes, 0) as f64 / u64::MAX as f64
}
