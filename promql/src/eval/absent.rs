//! What depends on how many series there are: `absent`, `absent_over_time`, `scalar`.

use super::Evaluator;
use super::context::Rows;
use super::leaf::{LeafOp, WindowOp};
use super::pipeline::Pipeline;
use super::row::{ABSENT, Row, is_absent};
use super::stage::Stage;
use crate::error::Result;
use crate::functions::window::WindowFunction;
use crate::parse::Span;
use crate::plan::grid::Grid;
use crate::plan::{Absent, AbsentOver, RangeSource};

impl<'c> Evaluator<'c, '_> {
    pub(super) fn absent(&self, node: &Absent, grid: &Grid) -> Result<Rows<'c>> {
        let input = self.pipeline(&node.input, grid)?;
        self.where_nothing_is(input, &node.labels, grid)
    }

    pub(super) fn absent_over(&self, node: &AbsentOver, grid: &Grid) -> Result<Rows<'c>> {
        let op = |view| WindowOp {
            function: WindowFunction::Present,
            windows: self.windows(*grid, view, node.range_ms),
            params: Vec::new(),
            span: Span::default(),
            counted: self.counted.get(),
        };
        let input = match &node.source {
            RangeSource::Select(leaf) => self.source(leaf, LeafOp::Window(op(leaf.view))),
            RangeSource::Subquery(subquery) => {
                let inner = self.subquery_grid(&subquery.view, subquery.step_ms, node.range_ms, grid);
                self.check_steps(&inner)?;
                let stage = Stage::Window { op: op(subquery.view), inner };
                self.of_subquery(|| self.pipeline(&subquery.input, &inner))?.then(stage)
            }
        };
        self.where_nothing_is(input, &node.labels, grid)
    }

    fn where_nothing_is(
        &self,
        input: Pipeline<'c>,
        labels: &tsdb::model::Labels,
        grid: &Grid,
    ) -> Result<Rows<'c>> {
        let mut present = vec![false; grid.count];
        input.fold(
            self.context,
            || Ok(vec![false; grid.count]),
            |present: &mut Vec<bool>, row, scratch| {
                for (step, present) in present.iter_mut().enumerate() {
                    *present |= row.has(step);
                }
                scratch.spare = row.values;
                Ok(())
            },
            |part| {
                present.iter_mut().zip(part).for_each(|(present, part)| *present |= part);
                Ok(())
            },
        )?;
        let mut row = Row::absent(labels.clone(), grid.count);
        for (value, present) in row.values.iter_mut().zip(present) {
            *value = if present { ABSENT } else { 1.0 };
        }
        let rows = if row.has_any() { vec![row] } else { Vec::new() };
        self.context.rows(rows)
    }
}

/// `scalar`: at each step the only float's value, NaN unless there is exactly one.
pub(super) fn only_values(rows: &[Row], steps: usize) -> Vec<f64> {
    let mut values = vec![f64::NAN; steps];
    let mut counts = vec![0u8; steps];
    for row in rows {
        for (step, value) in row.values.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
            counts[step] = counts[step].saturating_add(1);
            values[step] = *value;
        }
    }
    values.into_iter().zip(counts).map(|(value, count)| if count == 1 { value } else { f64::NAN }).collect()
}
