//! Whether two answers are the same.
//!
//! Values may differ by rounding, which expressions spread: differences of nearly equal numbers keep the error of the
//! great ones. A value may be off by the tolerance times the greatest number that could have gone into it, which is
//! taken to be that of the answer and of the data.

use std::collections::BTreeMap;

use crate::{Answer, Histogram, Value};

/// By how much values may differ, relative to their size.
const TOLERANCE: f64 = 1e-12;
/// And to the greatest number in the data; `time()` is the greatest.
const SMALL: f64 = 1e-9;

/// Functions and operators that turn the least difference into a great one, and what stands for them to see whether it was
/// so small.
const EDGES: [(&str, &str); 24] = [
    (" bool ", " "),
    (" > ", " - "),
    (" < ", " - "),
    (" >= ", " - "),
    (" <= ", " - "),
    (" != ", " - "),
    (" atan2 ", " - "),
    (" % ", " - "),
    ("floor(", "("),
    ("ceil(", "("),
    ("sgn(", "("),
    ("sqrt(", "("),
    ("ln(", "("),
    ("log2(", "("),
    ("log10(", "("),
    ("sin(", "("),
    ("cos(", "("),
    ("minute(", "("),
    ("day_of_month(", "("),
    ("irate((", "idelta(("),
    ("rate((", "delta(("),
    ("increase((", "delta(("),
    ("resets((", "sum_over_time(("),
    ("changes((", "sum_over_time(("),
];

/// Of so many random expressions at most one is at such an edge: were it more, one of them would be wrong itself.
pub const EDGE_RARITY: u64 = 1_000;

/// A random expression without what makes a great difference of the least; `None` where it has nothing of the kind.
pub fn evened(query: &str) -> Option<String> {
    let even = EDGES.iter().fold(query.to_owned(), |query, (edge, even)| query.replace(edge, even));
    (even != query).then_some(even)
}

/// What differs first between two answers, if anything does.
pub fn difference(a: &Answer, b: &Answer) -> Option<String> {
    let empty = BTreeMap::new();
    for labels in a.keys().chain(b.keys()) {
        let (mine, theirs) = (a.get(labels).unwrap_or(&empty), b.get(labels).unwrap_or(&empty));
        for time_ms in mine.keys().chain(theirs.keys()) {
            let (mine, theirs) = (mine.get(time_ms), theirs.get(time_ms));
            let same = match (mine, theirs) {
                (Some(Value::Float(a)), Some(Value::Float(b))) => is_close(*a, *b),
                (Some(Value::Histogram(a)), Some(Value::Histogram(b))) => same_histogram(a, b),
                _ => false,
            };
            if !same {
                let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), |v| format!("{v:?}"));
                return Some(format!("{labels} at {time_ms}: {} and {}", shown(mine), shown(theirs)));
            }
        }
    }
    None
}

/// Whether two floats are the same but for rounding.
pub fn is_close(a: f64, b: f64) -> bool {
    is_same(a, b) || (a - b).abs() <= SMALL
}

/// Whether two numbers differ in the last bits at most, however small they are.
pub fn is_same(a: f64, b: f64) -> bool {
    let is_near = || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs());
    a == b || (a.is_nan() && b.is_nan()) || (a.is_finite() && b.is_finite() && is_near())
}

fn same_histogram(a: &Histogram, b: &Histogram) -> bool {
    let filled = |side: &BTreeMap<i32, f64>| -> Vec<(i32, f64)> {
        side.iter().filter(|(_, count)| count.abs() > SMALL).map(|(i, c)| (*i, *c)).collect()
    };
    let same = |a: &BTreeMap<i32, f64>, b: &BTreeMap<i32, f64>| {
        let (a, b) = (filled(a), filled(b));
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && is_close(a.1, b.1))
    };
    a.schema == b.schema
        && a.bounds == b.bounds
        && is_close(a.count, b.count)
        && is_close(a.sum, b.sum)
        && (a.is_custom()
            || (is_close(a.zero_threshold, b.zero_threshold) && is_close(a.zero_count, b.zero_count)))
        && same(&a.positive, &b.positive)
        && same(&a.negative, &b.negative)
}
