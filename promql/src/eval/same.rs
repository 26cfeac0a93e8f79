//! Rows with equal labels: one series where their samples don't meet, an error where they do.

use super::context::Rows;
use super::keys::LabelIndex;
use super::row::Row;
use crate::error::{Error, Result};

/// Refuses rows with equal labels, even where their samples don't meet.
///
/// # Errors
/// There are two of them.
pub(crate) fn refuse(rows: &Rows<'_>) -> Result<()> {
    let mut index = LabelIndex::default();
    if rows.rows.iter().all(|row| index.number(&row.labels).1) { Ok(()) } else { Err(twice()) }
}

fn twice() -> Error {
    Error::Execution("vector cannot contain metrics with the same labelset".to_owned())
}

/// Unites rows of equal labels; order is that of the first of each. Where some are to lose their name and others aren't,
/// they stay apart.
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
    // By number: the row that keeps its name, and the one that loses it.
    let mut places: Vec<[Option<usize>; 2]> = Vec::new();
    for (row, (number, new)) in std::mem::take(&mut rows.rows).into_iter().zip(numbers) {
        if new {
            places.push([None; 2]);
        }
        let meets = |other: &Row| (0..row.values.len()).any(|step| row.has(step) && other.has(step));
        if places[number].iter().flatten().any(|other| meets(&united[*other])) {
            return Err(twice());
        }
        match &mut places[number][usize::from(row.drop_name)] {
            Some(into) => (0..row.values.len()).for_each(|step| united[*into].take_from(&row, step)),
            empty => {
                *empty = Some(united.len());
                united.push(row);
            }
        }
    }
    rows.rows = united;
    Ok(())
}
