//! Operators between two vectors: partners are found by integer keys, once a pair of series; steps are then computed
//! slice by slice. Whether a match is ambiguous is judged step by step, as Prometheus does: two series of one key are
//! fine as long as they never have samples at the same time.

use super::binary::{self, ElementOp, Operand, Troubles};
use super::context::{Context, Rows};
use super::keys::{KeyIndex, KeySpec};
use super::row::{Cell, Row, is_absent};
use super::same;
use crate::error::{Error, Result};
use crate::parse::ast::{BinaryOp, Cardinality, VectorMatching};
use crate::plan::{Binary, SetOp};
use tsdb::model::Labels;

fn key_spec(matching: &VectorMatching) -> KeySpec {
    if matching.on { KeySpec::only(&matching.labels) } else { KeySpec::all_but(&matching.labels) }
}

/// Arithmetic and comparisons.
pub(crate) fn join<'c>(
    context: &'c Context<'_>,
    node: &Binary,
    left: Rows<'c>,
    right: Rows<'c>,
) -> Result<Rows<'c>> {
    let spec = key_spec(&node.matching);
    // For one-to-many, sides change places, and values are computed with that in mind.
    let swapped = node.matching.cardinality == Cardinality::OneToMany;
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    if many.rows.is_empty() || one.rows.is_empty() {
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
    let keys: Vec<Option<usize>> = many.rows.iter().map(|row| index.find(&row.labels)).collect();
    let join = Join { context, node, spec: &spec, swapped, one: &one.rows };
    join.refuse_duplicates(&ones, &many.rows)?;
    if node.matching.cardinality == Cardinality::OneToOne {
        join.refuse_many(&ones, &keys, &many.rows)?;
    }
    let mut troubles = Troubles::default();
    let mut out = Vec::with_capacity(many.rows.len());
    for (mut row, key) in many.into_rows().into_iter().zip(keys) {
        context.limits.check()?;
        let Some(key) = key else { continue };
        let (last, others) = ones[key].split_last().expect("a key has at least one row");
        for other in others {
            let mut copy = row.clone();
            join.pair(&mut copy, &one.rows[*other], &mut troubles);
            if copy.has_any() {
                out.push(copy);
            }
        }
        join.pair(&mut row, &one.rows[*last], &mut troubles);
        if row.has_any() {
            out.push(row);
        }
    }
    troubles.tell(context, node.span);
    let mut out = context.rows(out)?;
    join.unite(&mut out)?;
    Ok(out)
}

struct Join<'a> {
    context: &'a Context<'a>,
    node: &'a Binary,
    spec: &'a KeySpec,
    swapped: bool,
    one: &'a [Row],
}

impl Join<'_> {
    fn one_to_one(&self) -> bool {
        self.node.matching.cardinality == Cardinality::OneToOne
    }

    /// Puts the result of a row with its partner in the row's place.
    fn pair(&self, row: &mut Row, other: &Row, troubles: &mut Troubles) {
        let op = ElementOp { op: self.node.op, return_bool: self.node.return_bool };
        if row.histograms.is_empty() && other.histograms.is_empty() {
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
        row.drop_name |= op.drops_name();
        row.labels = self.labels(&row.labels, &other.labels);
    }

    fn labels(&self, many: &Labels, one: &Labels) -> Labels {
        let matching = &self.node.matching;
        if self.one_to_one() {
            return if matching.on {
                self.spec.labels(many)
            } else if matching.labels.is_empty() {
                many.clone()
            } else {
                many.filtered(|name| !matching.labels.iter().any(|label| **label == *name))
            };
        }
        if matching.include.is_empty() {
            return many.clone();
        }
        let mut labels = many.to_builder();
        for name in &matching.include {
            labels.set(name, one.value(name));
        }
        labels.labels()
    }

    /// Two series of one key on the side that may have but one.
    fn refuse_duplicates(&self, ones: &[Vec<usize>], many: &[Row]) -> Result<()> {
        for rows in ones.iter().filter(|rows| rows.len() > 1) {
            let steps = self.one[rows[0]].values.len();
            for step in 0..steps {
                let mut present = rows.iter().filter(|row| self.one[**row].has(step));
                // Where the other side is empty, Prometheus doesn't look.
                if let (Some(first), Some(second)) = (present.next(), present.next())
                    && many.iter().any(|row| row.has(step))
                {
                    return Err(self.duplicate(&self.one[*first].labels, &self.one[*second].labels));
                }
            }
        }
        Ok(())
    }

    fn duplicate(&self, first: &Labels, second: &Labels) -> Error {
        let side = if self.swapped { "left" } else { "right" };
        let group = shown(&self.spec.labels(second));
        Error::Execution(format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the operation: \
             [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
            shown(second),
            shown(first),
        ))
    }

    /// Two series of one key on the other side, where none was allowed.
    fn refuse_many(&self, ones: &[Vec<usize>], keys: &[Option<usize>], many: &[Row]) -> Result<()> {
        let mut first_of: Vec<Option<usize>> = vec![None; ones.len()];
        let mut matched: Vec<Option<Vec<bool>>> = vec![None; ones.len()];
        for (i, key) in keys.iter().enumerate() {
            let Some(key) = *key else { continue };
            let Some(first) = first_of[key] else {
                first_of[key] = Some(i);
                continue;
            };
            let meets =
                |row: &Row, step| row.has(step) && ones[key].iter().any(|one| self.one[*one].has(step));
            let steps = many[i].values.len();
            let taken = matched[key]
                .get_or_insert_with(|| (0..steps).map(|step| meets(&many[first], step)).collect());
            for (step, taken) in taken.iter_mut().enumerate() {
                let here = meets(&many[i], step);
                if here && *taken {
                    return Err(Error::Execution(
                        "multiple matches for labels: many-to-one matching must be explicit \
                         (group_left/group_right)"
                            .to_owned(),
                    ));
                }
                *taken |= here;
            }
        }
        Ok(())
    }

    fn unite(&self, rows: &mut Rows<'_>) -> Result<()> {
        if self.context.range.is_instant() && self.one_to_one() {
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

/// Labels as Prometheus's errors write them: the name is a label like any other.
fn shown(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// `and`, `or`, `unless`: samples of one side stay or go by whether the other side has their key at that step.
pub(crate) fn combine<'c>(
    context: &'c Context<'_>,
    node: &SetOp,
    left: Rows<'c>,
    right: Rows<'c>,
) -> Result<Rows<'c>> {
    let spec = key_spec(&node.matching);
    let mut index = KeyIndex::new(&spec);
    let (judges, judged) = if node.op == BinaryOp::Or { (&left, &right) } else { (&right, &left) };
    let mut present: Vec<Vec<bool>> = Vec::new();
    for row in &judges.rows {
        let key = index.number(&row.labels);
        if key == present.len() {
            present.push(vec![false; row.values.len()]);
        }
        for (step, present) in present[key].iter_mut().enumerate() {
            *present |= row.has(step);
        }
    }
    let _charge = context.budget.charge(present.iter().map(Vec::len).sum(), "match groups")?;
    let keep_present = node.op == BinaryOp::And;
    let keys: Vec<Option<usize>> = judged.rows.iter().map(|row| index.find(&row.labels)).collect();
    let mask = |rows: Vec<Row>| {
        rows.into_iter()
            .zip(keys)
            .filter_map(|(mut row, key)| match key {
                None => (!keep_present).then_some(row),
                Some(key) => {
                    for (step, present) in present[key].iter().enumerate() {
                        if *present != keep_present
                            && (!is_absent(row.values[step]) || !row.histograms.is_empty())
                        {
                            row.clear(step);
                        }
                    }
                    row.has_any().then_some(row)
                }
            })
            .collect::<Vec<Row>>()
    };
    if node.op != BinaryOp::Or {
        return context.rows(mask(left.into_rows()));
    }
    let mut all = left.into_rows();
    all.extend(mask(right.into_rows()));
    let mut all = context.rows(all)?;
    if !context.range.is_instant() {
        same::unite(&mut all)?;
    }
    Ok(all)
}
