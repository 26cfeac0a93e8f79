//! `and`, `or`, `unless`: samples of one side stay or go by whether the other side has their key at that step.

use super::{Joined, key_spec};
use crate::error::Result;
use crate::eval::context::{Context, Rows};
use crate::eval::keys::{KeyIndex, KeySpec};
use crate::eval::limits::Charge;
use crate::eval::pipeline::over_rows;
use crate::eval::row::Row;
use crate::eval::same;
use crate::parse::ast::BinaryOp;
use crate::plan::{SetOp, VectorNode};

/// A set operator between what came before and some other vectors in turn, of which `next` makes the rows.
pub(crate) fn combine<'c>(
    context: &'c Context<'_>,
    node: &SetOp,
    before: Rows<'c>,
    next: impl Fn(&VectorNode) -> Result<Rows<'c>>,
) -> Result<Rows<'c>> {
    let spec = key_spec(&node.matching);
    if node.op == BinaryOp::Or {
        return union(context, node, &spec, before, next);
    }
    let mut left = before;
    for other in &node.others {
        let mut keys = Keys::new(context, &spec)?;
        keys.put(&next(other)?.rows)?;
        let mut kept = Joined::new(context)?;
        keys.judge(context, left, node.op == BinaryOp::And, &mut kept)?;
        left = Rows::paid(kept.rows, kept.charge);
    }
    Ok(left)
}

/// `or`: of each vector the samples whose keys none before it has.
fn union<'c>(
    context: &'c Context<'_>,
    node: &SetOp,
    spec: &KeySpec,
    before: Rows<'c>,
    next: impl Fn(&VectorNode) -> Result<Rows<'c>>,
) -> Result<Rows<'c>> {
    let mut keys = Keys::new(context, spec)?;
    let mut all = Joined::new(context)?;
    keys.put(&before.rows)?;
    for row in before.into_rows() {
        all.push(row)?;
    }
    for other in &node.others {
        let mut kept = Joined::new(context)?;
        keys.judge(context, next(other)?, false, &mut kept)?;
        // What was left out has its key already.
        keys.put(&kept.rows)?;
        all.merge(kept)?;
    }
    let mut all = Rows::paid(all.rows, all.charge);
    if all.rows.iter().any(|row| row.values.len() > 1) {
        same::unite(&mut all)?;
    }
    Ok(all)
}

/// Which keys there are at which steps.
struct Keys<'a> {
    index: KeyIndex<'a>,
    /// By key's number and step.
    present: Vec<Vec<bool>>,
    charge: Charge<'a>,
}

impl<'a> Keys<'a> {
    fn new(context: &'a Context<'_>, spec: &'a KeySpec) -> Result<Self> {
        let charge = context.budget.charge(0, "match groups")?;
        Ok(Self { index: KeyIndex::new(spec), present: Vec::new(), charge })
    }

    fn put(&mut self, rows: &[Row]) -> Result<()> {
        for row in rows {
            let key = self.index.number(&row.labels);
            if key == self.present.len() {
                self.charge.grow(row.values.len())?;
                self.present.push(vec![false; row.values.len()]);
            }
            for (step, present) in self.present[key].iter_mut().enumerate() {
                *present |= row.has(step);
            }
        }
        Ok(())
    }

    /// Keeps of rows the samples whose keys are present, or those whose keys aren't.
    fn judge<'c>(
        &mut self,
        context: &'c Context<'_>,
        rows: Rows<'_>,
        keep_present: bool,
        all: &mut Joined<'c>,
    ) -> Result<()> {
        let keys: Vec<Option<usize>> = rows.rows.iter().map(|row| self.index.find(&row.labels)).collect();
        let present = &self.present;
        over_rows(
            context,
            rows,
            0,
            || Joined::new(context),
            |kept, i, mut row, _| {
                match keys[i] {
                    None if keep_present => return Ok(()),
                    None => {}
                    Some(key) => {
                        for (step, present) in present[key].iter().enumerate() {
                            if *present != keep_present && row.has(step) {
                                row.clear(step);
                            }
                        }
                    }
                }
                kept.push(row)
            },
            |part| all.merge(part),
        )
    }
}
