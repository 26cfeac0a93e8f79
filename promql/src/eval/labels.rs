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
    labels.filtered(|name| !METADATA.contains(&name))
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
    series.sort_by(|a, b| labels(a).cmp(labels(b)));
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
    fn nan_is_last_in_both_directions() {
        for descending in [false, true] {
            let mut values = [f64::NAN, 1.0, 2.0];
            values.sort_by(|a, b| by_value(*a, *b, descending));
            assert!(values[2].is_nan());
            assert_eq!(values[0], if descending { 2.0 } else { 1.0 });
        }
    }
}
