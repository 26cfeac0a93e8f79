//! Operators between two vectors: partners are found by integer keys, once a pair of series; steps are then computed
//! slice by slice, tasks of rows side by side. Whether a match is ambiguous is judged step by step, as Prometheus does:
//! two series of one key are fine as long as they never have samples at the same time.
//!
//! Sides are called "many" and "one" here, whatever the cardinality: the "one" side is the right one, but for
//! `group_right`.

mod check;
mod set;

use tsdb::model::Labels;

use super::binary::{self, ElementOp, Operand, Troubles};
use super::context::{Context, Rows, row_bytes};
use super::keys::{KeyIndex, KeySpec};
use super::labels::without_metadata;
use super::limits::Charge;
use super::pipeline::over_rows;
use super::row::{Cell, Row};
use super::same;
use crate::error::{Error, Result};
use crate::parse::ast::{Cardinality, Fill, VectorMatching};
use crate::plan::Binary;
pub(crate) use set::combine;

fn key_spec(matching: &VectorMatching) -> KeySpec {
    if matching.on { KeySpec::only(&matching.labels) } else { KeySpec::all_but(&matching.labels) }
}

/// Arithmetic and comparisons between what came before and the node's other vector.
pub(crate) fn join<'c>(
    context: &'c Context<'_>,
    node: &Binary,
    before: Rows<'c>,
    other: Rows<'c>,
) -> Result<Rows<'c>> {
    let (left, right) = if node.other_on_left { (other, before) } else { (before, other) };
    let spec = key_spec(&node.matching);
    // For one-to-many, sides change places, and values are computed with that in mind; fills stay where they are.
    let swapped = node.matching.cardinality == Cardinality::OneToMany;
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let fill = node.matching.fill;
    if (many.rows.is_empty() || one.rows.is_empty()) && fill == Fill::default() {
        return context.rows(Vec::new());
    }
    let mut index = KeyIndex::new(&spec);
    let mut ones: Vec<Vec<usize>> = Vec::new();
    for (i, row) in one.rows.iter().enumerate() {
        let key = index.number(&row.labels);
        if key == ones.len() {
            ones.push(Vec::new());
        }
        ones[key].push(i);
    }
    let mut key_of = |labels: &Labels| match fill.right {
        Some(_) => Some(index.number(labels)),
        None => index.find(labels),
    };
    let keys: Vec<Option<usize>> = many.rows.iter().map(|row| key_of(&row.labels)).collect();
    let keys_count = keys.iter().flatten().map(|key| key + 1).max().unwrap_or(0).max(ones.len());
    ones.resize_with(keys_count, Vec::new);
    let join = Join { node, spec: &spec, swapped, one: &one.rows, ones: &ones };
    join.refuse_duplicates(&many.rows)?;
    if node.matching.cardinality == Cardinality::OneToOne {
        join.refuse_many(&keys, &many.rows)?;
    }
    let alone = join.partners_missed(&keys, &many.rows);

    let mut out = Joined::new(context)?;
    over_rows(
        context,
        many,
        0,
        || Joined::new(context),
        |joined, i, row, _| match keys[i] {
            Some(key) => join.pair_all(row, key, joined),
            None => Ok(()),
        },
        |part| out.merge(part),
    )?;
    for row in &alone {
        join.pair_alone(row, &mut out)?;
    }
    out.troubles.tell(context, node.span);
    let mut out = Rows::paid(out.rows, out.charge);
    out.rows.iter_mut().for_each(|row| context.settle(row));
    join.unite(context, &mut out)?;
    Ok(out)
}

/// What came of some of the rows.
struct Joined<'a> {
    rows: Vec<Row>,
    charge: Charge<'a>,
    troubles: Troubles,
}

impl<'a> Joined<'a> {
    fn new(context: &'a Context<'_>) -> Result<Self> {
        let charge = context.budget.charge(0, "rows")?;
        Ok(Self { rows: Vec::new(), charge, troubles: Troubles::default() })
    }

    fn push(&mut self, row: Row) -> Result<()> {
        if row.has_any() {
            self.charge.grow(row_bytes(&row))?;
            self.rows.push(row);
        }
        Ok(())
    }

    fn merge(&mut self, later: Self) -> Result<()> {
        let Self { rows, charge, troubles } = later;
        // Given back before the whole grows: rows are never paid for twice.
        drop(charge);
        self.charge.grow(rows.iter().map(row_bytes).sum())?;
        self.rows.extend(rows);
        self.troubles.merge(troubles);
        Ok(())
    }
}

struct Join<'a> {
    node: &'a Binary,
    spec: &'a KeySpec,
    swapped: bool,
    one: &'a [Row],
    /// By key: the rows of the "one" side.
    ones: &'a [Vec<usize>],
}

impl Join<'_> {
    fn one_to_one(&self) -> bool {
        self.node.matching.cardinality == Cardinality::OneToOne
    }

    /// Whether the "one" side has a sample of this key at a step.
    fn one_has(&self, key: usize, step: usize) -> bool {
        self.ones[key].iter().any(|one| self.one[*one].has(step))
    }

    /// Pairs a row of the "many" side with all of its partners, and with the fill where there is none.
    fn pair_all(&self, row: Row, key: usize, joined: &mut Joined<'_>) -> Result<()> {
        let steps = row.values.len();
        if let Some(value) = self.node.matching.fill.right {
            let mut rest = row.clone();
            (0..steps).filter(|step| self.one_has(key, *step)).for_each(|step| rest.clear(step));
            if rest.has_any() {
                let filled = Row::constant(self.spec.labels(&row.labels), steps, value);
                self.pair(&mut rest, &filled, &mut joined.troubles);
                joined.push(rest)?;
            }
        }
        let Some((last, others)) = self.ones[key].split_last() else { return Ok(()) };
        for other in others {
            let mut copy = row.clone();
            self.pair(&mut copy, &self.one[*other], &mut joined.troubles);
            joined.push(copy)?;
        }
        let mut row = row;
        self.pair(&mut row, &self.one[*last], &mut joined.troubles);
        joined.push(row)
    }

    /// With a fill for the "many" side: rows of the "one" side, without the samples that have a partner.
    fn partners_missed(&self, keys: &[Option<usize>], many: &[Row]) -> Vec<Row> {
        if self.node.matching.fill.left.is_none() {
            return Vec::new();
        }
        let mut present: Vec<Vec<bool>> = vec![Vec::new(); self.ones.len()];
        for (key, row) in keys.iter().zip(many) {
            let Some(key) = *key else { continue };
            let present = &mut present[key];
            present.resize(row.values.len(), false);
            present.iter_mut().enumerate().for_each(|(step, present)| *present |= row.has(step));
        }
        let mut alone = Vec::new();
        for (key, rows) in self.ones.iter().enumerate() {
            for row in rows {
                let mut row = self.one[*row].clone();
                present[key].iter().enumerate().filter(|(_, p)| **p).for_each(|(step, _)| row.clear(step));
                if row.has_any() {
                    alone.push(row);
                }
            }
        }
        alone
    }

    /// Pairs a row of the "one" side with the fill of the other side.
    fn pair_alone(&self, row: &Row, joined: &mut Joined<'_>) -> Result<()> {
        let value = self.node.matching.fill.left.expect("rows stand alone where there is a fill");
        let mut filled = Row::constant(self.spec.labels(&row.labels), row.values.len(), value);
        self.pair(&mut filled, row, &mut joined.troubles);
        joined.push(filled)
    }

    /// Puts the result of a row with its partner in the row's place.
    fn pair(&self, row: &mut Row, other: &Row, troubles: &mut Troubles) {
        let op = ElementOp { op: self.node.op, return_bool: self.node.return_bool };
        if row.histograms.is_empty() && other.histograms.is_empty() && !op.op.is_trim() {
            binary::floats_with_floats(op, &mut row.values, &other.values, self.swapped);
        } else {
            for step in 0..row.values.len() {
                let (Some(mine), Some(theirs)) = (operand(row.cell(step)), operand(other.cell(step))) else {
                    row.clear(step);
                    continue;
                };
                let (left, right) = if self.swapped { (theirs, mine) } else { (mine, theirs) };
                let outcome = op.apply(left, right, false, troubles);
                binary::put(row, step, outcome);
            }
        }
        row.labels = self.labels(&row.labels, &other.labels, op);
        // Arithmetic has taken the name away at once: one that `group_left` brings along is there to stay.
        row.drop_name = op.return_bool || (row.drop_name && !op.drops_name());
    }

    fn labels(&self, many: &Labels, one: &Labels, op: ElementOp) -> Labels {
        let matching = &self.node.matching;
        let mut labels = many.clone();
        if self.one_to_one() && matching.on {
            labels = self.spec.labels(many);
        } else if self.one_to_one() && !matching.labels.is_empty() {
            labels = many.filtered(|name| !matching.labels.iter().any(|label| **label == *name));
        }
        if op.drops_name() && !op.return_bool {
            labels = without_metadata(&labels);
        }
        if matching.include.is_empty() {
            return labels;
        }
        let mut labels = labels.to_builder();
        for name in &matching.include {
            labels.set(name, one.value(name));
        }
        labels.labels()
    }

    fn unite(&self, context: &Context<'_>, rows: &mut Rows<'_>) -> Result<()> {
        // At a single step a row has one partner; at several a fill may have made a second row of it. Names by which
        // partners were told may be gone.
        let is_single = self.one_to_one() && rows.rows.iter().all(|row| row.values.len() == 1);
        if is_single && (context.delays_name_removal || !self.spec.looks_at_metadata()) {
            return Ok(());
        }
        same::unite(rows).map_err(|error| match error {
            Error::Execution(_) if !self.one_to_one() => Error::Execution(
                "multiple matches for labels: grouping labels must ensure unique matches".to_owned(),
            ),
            other => other,
        })
    }
}

fn operand(cell: Cell<'_>) -> Option<Operand<'_>> {
    match cell {
        Cell::Absent => None,
        Cell::Float(value) => Some(Operand::Float(value)),
        Cell::Histogram(histogram) => Some(Operand::Histogram(histogram)),
    }
}
