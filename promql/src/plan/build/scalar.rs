//! Scalars.

use super::invariant::is_invariant;
use super::{Builder, not_evaluated};
use crate::error::Error;
use crate::functions::Function;
use crate::parse::ast::{Expr, Node};
use crate::plan::grid::Grid;
use crate::plan::node::{ScalarBinary, ScalarNode};

impl Builder<'_> {
    pub(super) fn scalar(&mut self, expr: &Expr, grid: &Grid) -> Result<ScalarNode, Error> {
        let once = grid.count > 1 && is_invariant(expr);
        let node = self.scalar_at(expr, &if once { Grid::single(grid.start_ms) } else { *grid })?;
        Ok(if once && !matches!(node, ScalarNode::Constant(_)) {
            ScalarNode::Once(Box::new(node))
        } else {
            node
        })
    }

    pub(super) fn scalar_at(&mut self, expr: &Expr, grid: &Grid) -> Result<ScalarNode, Error> {
        Ok(match &expr.node {
            Node::Number(number) => ScalarNode::Constant(number.value),
            Node::Paren(inner) => self.scalar_at(inner, grid)?,
            Node::Unary(unary) => match (self.scalar(&unary.operand, grid)?, unary.negative) {
                (operand, false) => operand,
                (ScalarNode::Constant(value), true) => ScalarNode::Constant(-value),
                (operand, true) => ScalarNode::Negate(Box::new(operand)),
            },
            Node::Binary(binary) => {
                self.scalar_binary(ScalarBinary::Operator(binary.op), &binary.left, &binary.right, grid)?
            }
            Node::Call(call) => match call.function {
                Function::Pi => ScalarNode::Constant(std::f64::consts::PI),
                Function::Time => ScalarNode::Time,
                Function::Start => ScalarNode::Constant(seconds(self.range.start_ms)),
                Function::End => ScalarNode::Constant(seconds(self.range.end_ms)),
                Function::Range => ScalarNode::Constant(seconds(self.range.span_ms())),
                Function::Step => ScalarNode::Constant(seconds(self.range.step_ms)),
                Function::MinOf => {
                    self.scalar_binary(ScalarBinary::MinOf, &call.args[0], &call.args[1], grid)?
                }
                Function::MaxOf => {
                    self.scalar_binary(ScalarBinary::MaxOf, &call.args[0], &call.args[1], grid)?
                }
                Function::ScalarOf => ScalarNode::OfVector(Box::new(self.vector(&call.args[0], grid)?)),
                other => return Err(not_evaluated(other)),
            },
            _ => unreachable!("the parser's type check lets only scalars stand here"),
        })
    }

    pub(super) fn scalar_binary(
        &mut self,
        op: ScalarBinary,
        left: &Expr,
        right: &Expr,
        grid: &Grid,
    ) -> Result<ScalarNode, Error> {
        let (left, right) = (self.scalar(left, grid)?, self.scalar(right, grid)?);
        Ok(match (&left, &right) {
            (ScalarNode::Constant(left), ScalarNode::Constant(right)) => {
                ScalarNode::Constant(crate::eval::scalar_binary(op, *left, *right))
            }
            _ => ScalarNode::Binary { op, left: Box::new(left), right: Box::new(right) },
        })
    }
}

#[allow(clippy::cast_precision_loss, reason = "times are far below 2^53 ms")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
