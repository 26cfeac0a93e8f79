//! Whether two servers gave the same answer: the same series and timestamps, and values within a relative tolerance.

use std::collections::BTreeMap;

use serde_json::Value;

/// The tolerance that answers must keep where nothing else is said: room for sums in another order, no more.
pub const TOLERANCE: f64 = 1e-12;

/// What differs between the `data` of two answers; `None` when nothing does. The order of series doesn't count.
pub fn difference(ours: &Value, theirs: &Value, tolerance: f64) -> Option<String> {
    if ours["resultType"] != theirs["resultType"] {
        return Some(format!("result types {} and {}", ours["resultType"], theirs["resultType"]));
    }
    if ours["result"].get(0).is_some_and(Value::is_number) {
        return point_difference(&ours["result"], &theirs["result"], tolerance);
    }
    let (ours, theirs) = (by_labels(&ours["result"]), by_labels(&theirs["result"]));
    let missing = |a: &BTreeMap<String, Vec<&Value>>, b: &BTreeMap<String, Vec<&Value>>| {
        a.keys().find(|labels| !b.contains_key(*labels)).cloned()
    };
    if let Some(labels) = missing(&theirs, &ours) {
        return Some(format!("{labels} is missing ({} series against {})", ours.len(), theirs.len()));
    }
    if let Some(labels) = missing(&ours, &theirs) {
        return Some(format!("{labels} is too much ({} series against {})", ours.len(), theirs.len()));
    }
    ours.iter().find_map(|(labels, points)| {
        let others = &theirs[labels];
        if points.len() != others.len() {
            return Some(format!("{labels}: {} points against {}", points.len(), others.len()));
        }
        points
            .iter()
            .zip(others)
            .find_map(|(a, b)| point_difference(a, b, tolerance))
            .map(|what| format!("{labels}: {what}"))
    })
}

/// Whether two pieces of answers have the same shape, and the same numbers in it but for a relative tolerance.
pub fn is_close(ours: &Value, theirs: &Value, tolerance: f64) -> bool {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok());
    match (ours, theirs) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_close(a, b, tolerance))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && is_close(a, b, tolerance))
        }
        _ => match (number(ours), number(theirs)) {
            (Some(a), Some(b)) => {
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * a.abs().max(b.abs())
            }
            _ => ours == theirs,
        },
    }
}

/// Points by labels; keys of a JSON object are sorted.
fn by_labels(result: &Value) -> BTreeMap<String, Vec<&Value>> {
    let all = result.as_array().into_iter().flatten();
    all.map(|series| {
        let points = match series["values"].as_array() {
            Some(values) => values.iter().collect(),
            None => vec![&series["value"]],
        };
        (series["metric"].to_string(), points)
    })
    .collect()
}

fn point_difference(ours: &Value, theirs: &Value, tolerance: f64) -> Option<String> {
    let is_same = ours[0].as_f64() == theirs[0].as_f64() && is_close(&ours[1], &theirs[1], tolerance);
    if is_same { None } else { Some(format!("{ours} against {theirs}")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vector(values: &[(&str, &str)]) -> Value {
        let result: Vec<_> =
            values.iter().map(|(l, v)| json!({"metric": {"l": l}, "value": [1, v]})).collect();
        json!({"resultType": "vector", "result": result})
    }

    #[test]
    fn order_doesnt_count_and_the_last_bits_neither() {
        let (a, b) =
            (vector(&[("a", "1"), ("b", "NaN")]), vector(&[("b", "NaN"), ("a", "1.0000000000000002")]));
        assert_eq!(difference(&a, &b, TOLERANCE), None);
    }

    #[test]
    fn series_points_and_values_do() {
        let one = vector(&[("a", "1")]);
        for other in [vector(&[]), vector(&[("b", "1")]), vector(&[("a", "1.001")]), vector(&[("a", "NaN")])]
        {
            assert!(difference(&one, &other, TOLERANCE).is_some(), "{other}");
            assert!(difference(&other, &one, TOLERANCE).is_some(), "{other}");
        }
        let range =
            |values: Value| json!({"resultType": "matrix", "result": [{"metric": {}, "values": values}]});
        let (short, long) = (range(json!([[1, "1"]])), range(json!([[1, "1"], [2, "1"]])));
        assert!(difference(&short, &long, TOLERANCE).is_some());
        assert!(difference(&short, &range(json!([[1.5, "1"]])), TOLERANCE).is_some());
    }

    #[test]
    fn scalars_and_strings_are_compared_too() {
        let scalar = |v: &str| json!({"resultType": "scalar", "result": [1, v]});
        assert_eq!(difference(&scalar("1"), &scalar("1"), TOLERANCE), None);
        assert!(difference(&scalar("1"), &scalar("2"), TOLERANCE).is_some());
    }
}
