//! Expressions that stand at several places: their rows are kept from the first to the last of them.
//!
//! What is an operator's whole result anyway is always kept. A chain from storage, which else goes series by series into
//! whoever folds it, is kept only where all its rows take little of the query's memory; else it is evaluated again.

use super::Evaluator;
use super::context::Rows;
use crate::error::Result;
use crate::plan::grid::Grid;
use crate::plan::{Link, RangeSource, VectorNode};

/// The part of a query's memory that the rows of a chain may take to be kept.
const KEPT_PART: usize = 16;

impl<'c> Evaluator<'c, '_> {
    /// Rows of a shared expression.
    pub(super) fn shared(&self, number: usize, grid: &Grid) -> Result<Rows<'c>> {
        let shared = &self.context.shared[number];
        if !self.is_kept(number, grid) {
            return self.rows(&shared.node, grid);
        }
        let known = self.kept.borrow_mut().remove(&number);
        let (rows, asked) = match known {
            Some((rows, asked)) => (rows, asked + 1),
            None => (self.rows(&shared.node, grid)?, 1),
        };
        if asked < shared.places {
            let copy = self.context.rows(rows.rows.clone())?;
            self.kept.borrow_mut().insert(number, (copy, asked));
        }
        Ok(rows)
    }

    /// Whether its rows are kept for other places.
    pub(super) fn is_kept(&self, number: usize, grid: &Grid) -> bool {
        let shared = &self.context.shared[number];
        let bytes_max = self.context.limits.bytes_max / KEPT_PART;
        shared.places > 1 && self.chain_bytes(&shared.node, grid).is_none_or(|bytes| bytes <= bytes_max)
    }

    /// What the rows of a chain from storage would take; `None` for anything else.
    fn chain_bytes(&self, node: &VectorNode, grid: &Grid) -> Option<usize> {
        let of = |select: usize| {
            self.context.inputs[select].len().saturating_mul(grid.count.saturating_mul(size_of::<f64>()))
        };
        match node {
            VectorNode::Select(leaf) | VectorNode::SampleTimes(leaf) | VectorNode::StartTimes(leaf) => {
                Some(of(leaf.select))
            }
            VectorNode::Window(window) => match &window.source {
                RangeSource::Select(leaf) => Some(of(leaf.select)),
                RangeSource::Subquery(subquery) => self.chain_bytes(&subquery.input, grid),
            },
            VectorNode::Map { input, .. } => self.chain_bytes(input, grid),
            VectorNode::Chain(chain) if chain.links.iter().all(|link| matches!(link, Link::Scalar(_))) => {
                self.chain_bytes(&chain.first, grid)
            }
            VectorNode::Shared(number) => self.chain_bytes(&self.context.shared[*number].node, grid),
            VectorNode::Once(inner) => self.chain_bytes(inner, &Grid::single(grid.start_ms)),
            _ => None,
        }
    }
}
