//! Rows with equal labels: one series where their samples don't meet, an error where they do.

use super::context::Rows;
use super::keys::LabelIndex;
use super::row::Row;
use crate::error::{Error, Result};

/// Unites rows of equal labels; order is that of the first of each.
///
/// # Errors
/// Two rows have a sample at the same step.
pub(crate) fn unite(rows: &mut Rows<'_>) -> Result<()> {
    let mut index = LabelIndex::default();
    let numbers: Vec<(usize, bool)> = rows.rows.iter().map(|row| index.number(&row.labels)).collect();
    if numbers.iter().all(|(_, new)| *new) {
        return Ok(());
    }
    let mut united: Vec<Row> = Vec::with_capacity(rows.rows.len());
    for (row, (number, new)) in std::mem::take(&mut rows.rows).into_iter().zip(numbers) {
        if new {
            united.push(row);
            continue;
        }
        let into = &mut united[number];
        for step in 0..row.values.len() {
            if row.has(step) {
                if into.has(step) {
                    return Err(Error::Execution(
                        "vector cannot contain metrics with the same labelset".to_owned(),
                    ));
                }
                into.take_from(&row, step);
            }
        }
        into.drop_name |= row.drop_name;
    }
    rows.rows = united;
    Ok(())
}
