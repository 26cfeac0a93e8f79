//! Functions that change labels, and the order of series.

use std::cmp::Ordering;

use tsdb::model::{Labels, METRIC_NAME};

use super::context::Rows;
use super::row::{Row, is_absent};
use super::same;
use crate::error::Result;
use crate::plan::{LabelEdit, Sort};

/// `label_replace` and `label_join`.
///
/// # Errors
/// Two series end up with the same labels and have samples at the same step.
pub(crate) fn edit(edit: &LabelEdit, rows: &mut Rows<'_>) -> Result<()> {
    for row in &mut rows.rows {
        match edit {
            LabelEdit::Replace { destination, replacement, source, regex } => {
                let Some(captures) = regex.captures(row.labels.value(source)) else { continue };
                let mut value = String::new();
                captures.expand(replacement, &mut value);
                set(row, destination, &value);
            }
            LabelEdit::Join { destination, separator, sources } => {
                let values: Vec<&str> = sources.iter().map(|source| row.labels.value(source)).collect();
                let value = values.join(separator);
                set(row, destination, &value);
            }
        }
    }
    same::unite(rows)
}

/// Labels that say what a metric is: they go with its name.
const METADATA: [&str; 3] = [METRIC_NAME, "__type__", "__unit__"];

/// `labels` without the metric's name, type and unit.
pub(crate) fn without_metadata(labels: &Labels) -> Labels {
    labels.filtered(|name| !is_metadata(name))
}

/// Whether a label goes with a metric's name.
pub(crate) fn is_metadata(name: &str) -> bool {
    METADATA.contains(&name)
}

/// Takes a row's name away, if it is to go.
pub(crate) fn drop_name(row: &mut Row) {
    if row.drop_name {
        row.labels = without_metadata(&row.labels);
        row.drop_name = false;
    }
}

/// Whether some label sets may become the same without their names: they have several, or a type or a unit.
pub(crate) fn differ_in_metadata<'a>(mut all: impl Iterator<Item = &'a Labels>) -> bool {
    let Some(first) = all.next() else { return false };
    let has_more = |labels: &Labels| METADATA[1..].iter().any(|name| labels.get(name).is_some());
    let name = first.metric_name();
    // One alone is the same as nobody.
    let mut is_first_special = has_more(first);
    all.any(|labels| {
        let differs = is_first_special || labels.metric_name() != name || has_more(labels);
        is_first_special = false;
        differs
    })
}

fn set(row: &mut Row, name: &str, value: &str) {
    row.labels = row.labels.to_builder().set(name, value).labels();
    if name == METRIC_NAME {
        // A name that was just given isn't the one to be dropped.
        row.drop_name = false;
    }
}

/// Orders the rows of an instant query.
pub(crate) fn sort(sort: &Sort, rows: &mut Vec<Row>) {
    match sort {
        Sort::ByValue { descending } => {
            // Histograms have no place in an order of values.
            rows.retain(|row| !is_absent(row.values[0]));
            rows.sort_by(|a, b| by_value(a.values[0], b.values[0], *descending));
        }
        Sort::ByLabels { names, descending } => rows.sort_by(|a, b| {
            let order = names
                .iter()
                .map(|name| natural(a.labels.value(name), b.labels.value(name)))
                .find(|order| order.is_ne())
                .unwrap_or_else(|| a.labels.cmp(&b.labels));
            if *descending { order.reverse() } else { order }
        }),
    }
}

/// NaN stands last either way.
fn by_value(a: f64, b: f64, descending: bool) -> Ordering {
    match a.partial_cmp(&b) {
        Some(order) if descending => order.reverse(),
        Some(order) => order,
        None => a.is_nan().cmp(&b.is_nan()),
    }
}

/// Runs of digits compare as numbers, all else as text: `node9` before `node10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        match (a.is_empty(), b.is_empty()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        let ((run_a, rest_a), (run_b, rest_b)) = (run(a), run(b));
        let order = match (digits(run_a), digits(run_b)) {
            // Longer numbers are greater once leading zeros are gone.
            (Some(x), Some(y)) => x.len().cmp(&y.len()).then_with(|| x.cmp(y)),
            _ => run_a.cmp(run_b),
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// Splits off the first run of digits, or of anything else.
fn run(text: &str) -> (&str, &str) {
    let numeric = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != numeric).unwrap_or(text.len());
    text.split_at(end)
}

fn digits(run: &str) -> Option<&str> {
    run.starts_with(|c: char| c.is_ascii_digit()).then(|| run.trim_start_matches('0'))
}

/// By labels, as results of range queries stand.
pub(crate) fn sort_by_labels<T>(series: &mut [T], labels: impl Fn(&T) -> &Labels) {
    if series.is_sorted_by(|a, b| labels(a) <= labels(b)) {
        return;
    }
    // Where all have the same first label, its value's first bytes nearly always decide, without a look at the labels.
    let name = series.first().and_then(|one| labels(one).iter().next()).map(|(name, _)| name.to_owned());
    let value = |labels: &Labels| {
        let (own, value) = labels.iter().next()?;
        (Some(own) == name.as_deref()).then(|| leading(value))
    };
    let is_common = series.iter().all(|one| value(labels(one)).is_some());
    let key = |labels: &Labels| value(labels).filter(|_| is_common).unwrap_or(0);
    series.sort_by_cached_key(|one| (key(labels(one)), labels(one).clone()));
}

/// A text's first bytes as a number that grows with it.
fn leading(text: &str) -> u128 {
    let mut bytes = [0; 16];
    let length = text.len().min(bytes.len());
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_inside_of_texts_compare_as_numbers() {
        let mut values = ["4m1000", "4m5", "4m600", "10", "9", "a", "1.111.3", "1.2.3", "1.11.3"];
        values.sort_by(|a, b| natural(a, b));
        assert_eq!(values, ["1.2.3", "1.11.3", "1.111.3", "4m5", "4m600", "4m1000", "9", "10", "a"]);
    }

    #[test]
    fn series_are_ordered_by_all_labels_however_they_begin() {
        let texts = ["", "a", "a\0", "a\0b", "aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaab", "b", "é", "\u{10ffff}"];
        let of = |names: &[&str]| {
            let mut all = Vec::new();
            for (name, a, b) in names.iter().flat_map(|n| texts.map(|a| texts.map(|b| (*n, a, b)))).flatten()
            {
                let pairs = [(name, a), ("z", b)].into_iter().filter(|(_, value)| !value.is_empty());
                all.push(Labels::from_pairs(pairs).unwrap());
            }
            all
        };
        for names in [&["x"][..], &["x", "y"]] {
            let mut expected = of(names);
            let mut sorted: Vec<Labels> = expected.iter().rev().cloned().collect();
            expected.sort();
            sort_by_labels(&mut sorted, |labels| labels);
            assert_eq!(sorted, expected);
        }
    }

    #[test]
    fn nan_is_last_in_both_directions() {
        for descending in [false, true] {
            let mut values = [f64::NAN, 1.0, 2.0];
            values.sort_by(|a, b| by_value(*a, *b, descending));
            assert!(values[2].is_nan());
            assert_eq!(values[0], if descending { 2.0 } else { 1.0 });
        }
    }
}
