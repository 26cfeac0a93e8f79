//! `and`, `or`, `unless`: samples of one side stay or go by whether the other side has their key at that step.

use super::{Joined, key_spec};
use crate::error::Result;
use crate::eval::context::{Context, Rows};
use crate::eval::keys::KeyIndex;
use crate::eval::pipeline::over_rows;
use crate::eval::same;
use crate::parse::ast::BinaryOp;
use crate::plan::SetOp;

/// A set operator.
pub(crate) fn combine<'c>(
    context: &'c Context<'_>,
    node: &SetOp,
    left: Rows<'c>,
    right: Rows<'c>,
) -> Result<Rows<'c>> {
    let spec = key_spec(&node.matching);
    let mut index = KeyIndex::new(&spec);
    let is_or = node.op == BinaryOp::Or;
    let (judges, judged) = if is_or { (left, right) } else { (right, left) };
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
    let mut all = Joined::new(context)?;
    if is_or {
        for row in judges.into_rows() {
            all.push(row)?;
        }
    }
    over_rows(
        context,
        judged,
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
    )?;
    let mut all = Rows::paid(all.rows, all.charge);
    if is_or && all.rows.iter().any(|row| row.values.len() > 1) {
        same::unite(&mut all)?;
    }
    Ok(all)
}
