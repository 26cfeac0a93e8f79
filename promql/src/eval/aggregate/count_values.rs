//! `count_values`: how many series of a group have which value, the value being a label of the result.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use tsdb::model::Labels;

use crate::error::Result;
use crate::eval::context::{Context, Rows, row_bytes};
use crate::eval::format;
use crate::eval::keys::{KeySpec, LabelIndex};
use crate::eval::limits::Charge;
use crate::eval::pipeline::Pipeline;
use crate::eval::row::{Cell, Row, is_absent};

/// Runs `count_values`.
pub(super) fn count_values<'c>(
    context: &'c Context<'_>,
    spec: &KeySpec,
    without: bool,
    label: &Arc<str>,
    input: Pipeline<'c>,
) -> Result<Rows<'c>> {
    // The label is set before labels are grouped: `without` it, it goes again.
    let kept = !without || spec.takes(label);
    let input = input.collect(context)?;
    let mut counted = Counted {
        index: LabelIndex::default(),
        rows: Vec::new(),
        charge: context.budget.charge(0, "counted values")?,
    };
    // Making a text and labels of each sample would dominate: most values come many times.
    let mut known: BTreeMap<(usize, u64), usize> = BTreeMap::new();
    let mut groups = LabelIndex::default();
    for row in &input.rows {
        context.limits.check()?;
        let base = spec.labels(&row.labels).filtered(|name| name != &**label);
        let (group, _) = groups.number(&base);
        for step in 0..row.values.len() {
            let into = match row.cell(step) {
                Cell::Absent => continue,
                Cell::Float(value) => match known.entry((group, value.to_bits())) {
                    Entry::Occupied(entry) => *entry.get(),
                    Entry::Vacant(entry) => {
                        *entry.insert(counted.number(&base, label, kept, &format::float(value), row)?)
                    }
                },
                Cell::Histogram(histogram) => {
                    counted.number(&base, label, kept, &format::histogram(histogram), row)?
                }
            };
            let count = &mut counted.rows[into].values[step];
            *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
            counted.rows[into].drop_name |= row.drop_name;
        }
    }
    drop(input);
    Ok(Rows::paid(counted.rows, counted.charge))
}

/// What a value that was met takes beside its row: its places among the labels and the values.
const VALUE_BYTES: usize = 96;

struct Counted<'c> {
    index: LabelIndex,
    rows: Vec<Row>,
    charge: Charge<'c>,
}

impl Counted<'_> {
    fn number(&mut self, base: &Labels, label: &str, kept: bool, value: &str, like: &Row) -> Result<usize> {
        let labels = if kept { base.to_builder().set(label, value).labels() } else { base.clone() };
        let (number, new) = self.index.number(&labels);
        if new {
            let row = Row::absent(labels, like.values.len());
            self.charge.grow(row_bytes(&row) + VALUE_BYTES)?;
            self.rows.push(row);
        }
        Ok(number)
    }
}
