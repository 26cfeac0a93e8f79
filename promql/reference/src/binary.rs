//! Operators.

use std::collections::BTreeSet;

use promql::parse::ast::{
    Binary, BinaryOp, Cardinality, Expr, Operation, Operator, ValueType, VectorMatching,
};
use tsdb::model::{Labels, METRIC_NAME};

use super::{Evaluator, Point, Result, Value, labels, sketch};

fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        _ => a.atan2(b),
    }
}

fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Equal => a == b,
        BinaryOp::NotEqual => a != b,
        BinaryOp::Greater => a > b,
        BinaryOp::Less => a < b,
        BinaryOp::GreaterOrEqual => a >= b,
        _ => a <= b,
    }
}

pub fn between_scalars(op: BinaryOp, a: f64, b: f64) -> f64 {
    if op.is_comparison() { f64::from(u8::from(compare(op, a, b))) } else { arithmetic(op, a, b) }
}

/// What an operator makes of two values: `None` when they don't go together; else the value, if it isn't filtered away.
fn apply(operator: &Operator, left: &Value, right: &Value, keep_right: bool) -> Option<Option<Value>> {
    let op = operator.op;
    if op.is_comparison() {
        let holds = match (left, right) {
            (Value::Float(a), Value::Float(b)) => compare(op, *a, *b),
            (Value::Histogram(a), Value::Histogram(b)) if op == BinaryOp::Equal => a.equals(b),
            (Value::Histogram(a), Value::Histogram(b)) if op == BinaryOp::NotEqual => !a.equals(b),
            _ => return None,
        };
        if operator.return_bool {
            return Some(Some(Value::Float(f64::from(u8::from(holds)))));
        }
        return Some(holds.then(|| if keep_right { right.clone() } else { left.clone() }));
    }
    let value = match (left, right) {
        (Value::Float(_), Value::Float(_)) if op.is_trim() => return None,
        (Value::Float(a), Value::Float(b)) => Value::Float(arithmetic(op, *a, *b)),
        (Value::Histogram(h), Value::Float(f)) | (Value::Float(f), Value::Histogram(h))
            if op == BinaryOp::Mul =>
        {
            Value::Histogram(h.times(*f))
        }
        (Value::Histogram(h), Value::Float(f)) if op == BinaryOp::Div => Value::Histogram(h.over(*f)),
        (Value::Histogram(h), Value::Float(at)) if op.is_trim() => Value::Histogram(sketch::trim(h, op, *at)),
        (Value::Histogram(a), Value::Histogram(b)) if op == BinaryOp::Add => {
            Value::Histogram(a.plus(b).ok()?)
        }
        (Value::Histogram(a), Value::Histogram(b)) if op == BinaryOp::Sub => {
            Value::Histogram(a.minus(b).ok()?)
        }
        _ => return None,
    };
    Some(Some(value))
}

/// The labels that partners share.
fn key(matching: &VectorMatching, of: &Labels) -> Labels {
    if matching.on {
        labels::only(of, &matching.labels)
    } else {
        labels::without(&labels::without(of, &matching.labels), &[METRIC_NAME])
    }
}

/// A side of an operator.
enum Side {
    Scalar(f64),
    Vector(Vec<Point>),
}

impl Evaluator<'_> {
    pub fn binary(&self, binary: &Binary, time_ms: i64) -> Result<Vec<Point>> {
        let (first, operations) = binary.operations();
        let mut before = self.side(first, time_ms)?;
        for Operation { operator, other, other_on_left, .. } in operations {
            let other = self.side(other, time_ms)?;
            let (left, right) = if other_on_left { (other, before) } else { (before, other) };
            before = match operate(operator, left, right)? {
                // Two that are the same once names are gone are refused here too.
                Side::Vector(points) if !self.steps.delayed_name_removal => {
                    let points = self.settled(points)?;
                    labels::refuse_twins(&points)?;
                    Side::Vector(points)
                }
                side => side,
            };
        }
        match before {
            Side::Vector(points) => Ok(points),
            Side::Scalar(_) => Err("a scalar is no vector".to_owned()),
        }
    }

    fn side(&self, expr: &Expr, time_ms: i64) -> Result<Side> {
        match expr.value_type() {
            ValueType::Scalar => self.scalar(expr, time_ms).map(Side::Scalar),
            _ => self.vector(expr, time_ms).map(Side::Vector),
        }
    }
}

fn operate(operator: &Operator, left: Side, right: Side) -> Result<Side> {
    match (left, right) {
        (Side::Scalar(a), Side::Scalar(b)) => Ok(Side::Scalar(between_scalars(operator.op, a, b))),
        (Side::Scalar(scalar), Side::Vector(points)) => Ok(with_scalar(operator, scalar, points, true)),
        (Side::Vector(points), Side::Scalar(scalar)) => Ok(with_scalar(operator, scalar, points, false)),
        (Side::Vector(left), Side::Vector(right)) => {
            let matching = operator.matching.as_ref().expect("vectors are matched");
            let points = if operator.op.is_set() {
                set(operator.op, matching, left, right)
            } else {
                join(operator, matching, left, right)?
            };
            Ok(Side::Vector(points))
        }
    }
}

fn with_scalar(operator: &Operator, scalar: f64, mut points: Vec<Point>, scalar_left: bool) -> Side {
    let is_arithmetic = !operator.op.is_comparison() && !operator.op.is_trim();
    let scalar = Value::Float(scalar);
    points.retain_mut(|point| {
        let value = if scalar_left {
            apply(operator, &scalar, &point.value, true)
        } else {
            apply(operator, &point.value, &scalar, false)
        };
        point.drop_name |= is_arithmetic || operator.return_bool;
        value.flatten().map(|value| point.value = value).is_some()
    });
    Side::Vector(points)
}

fn set(op: BinaryOp, matching: &VectorMatching, left: Vec<Point>, right: Vec<Point>) -> Vec<Point> {
    let keys = |side: &[Point]| -> BTreeSet<Labels> {
        side.iter().map(|point| key(matching, &point.labels)).collect()
    };
    let has = |keys: &BTreeSet<Labels>, point: &Point| keys.contains(&key(matching, &point.labels));
    match op {
        BinaryOp::And => {
            let right = keys(&right);
            left.into_iter().filter(|point| has(&right, point)).collect()
        }
        BinaryOp::Unless => {
            let right = keys(&right);
            left.into_iter().filter(|point| !has(&right, point)).collect()
        }
        _ => {
            let known = keys(&left);
            let more: Vec<Point> = right.into_iter().filter(|point| !has(&known, point)).collect();
            left.into_iter().chain(more).collect()
        }
    }
}

fn join(
    binary: &Operator,
    matching: &VectorMatching,
    left: Vec<Point>,
    right: Vec<Point>,
) -> Result<Vec<Point>> {
    let swapped = matching.cardinality == Cardinality::OneToMany;
    let one_to_one = matching.cardinality == Cardinality::OneToOne;
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let fill = matching.fill;
    let fills = fill.left.is_some() || fill.right.is_some();
    if (many.is_empty() && one.is_empty()) || ((many.is_empty() || one.is_empty()) && !fills) {
        return Ok(Vec::new());
    }
    let key_of = |point: &Point| key(matching, &point.labels);
    let filled =
        |key: Labels, value: f64| Point { labels: key, drop_name: false, value: Value::Float(value) };
    for (i, point) in one.iter().enumerate() {
        if one[..i].iter().any(|other| key_of(other) == key_of(point)) {
            return Err("two series on the side that may have but one".to_owned());
        }
    }
    let mut pairs: Vec<(Point, Point)> = Vec::new();
    for point in &many {
        let key = key_of(point);
        match (one.iter().find(|other| key_of(other) == key), fill.right) {
            (Some(other), _) => pairs.push((point.clone(), other.clone())),
            (None, Some(value)) => pairs.push((point.clone(), filled(key, value))),
            (None, None) => {}
        }
    }
    if let Some(value) = fill.left {
        for point in &one {
            let key = key_of(point);
            if !many.iter().any(|other| key_of(other) == key) {
                pairs.push((filled(key, value), point.clone()));
            }
        }
    }
    let mut met: Vec<Labels> = Vec::new();
    let mut out: Vec<Point> = Vec::new();
    for (many, one) in pairs {
        let (a, b) = if swapped { (&one, &many) } else { (&many, &one) };
        let Some(value) = apply(binary, &a.value, &b.value, false) else { continue };
        let is_arithmetic = !binary.op.is_comparison() && !binary.op.is_trim();
        let mut labels = many.labels.clone();
        if is_arithmetic {
            labels = labels::without_metadata(&labels);
        }
        if one_to_one && matching.on {
            labels = labels::only(&labels, &matching.labels);
        } else if one_to_one {
            labels = labels::without(&labels, &matching.labels);
        }
        for name in &matching.include {
            labels = labels::with(&labels, name, one.labels.value(name));
        }
        if one_to_one {
            let key = key_of(&many);
            if met.contains(&key) {
                return Err("two series that match one".to_owned());
            }
            met.push(key);
        }
        if let Some(value) = value {
            let drop_name = binary.return_bool || (many.drop_name && !is_arithmetic);
            let point = Point { labels, drop_name, value };
            if !one_to_one && out.iter().any(|other| other.labels == point.labels) {
                return Err("two results with the same labels".to_owned());
            }
            out.push(point);
        }
    }
    Ok(out)
}
