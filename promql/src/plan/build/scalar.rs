//! Scalars.

use super::invariant::is_invariant;
use super::{Builder, not_evaluated};
use crate::error::Error;
use crate::functions::Function;
use crate::parse::ast::{Expr, Node};
use crate::plan::grid::Grid;
use crate::plan::node::{ScalarBinary, ScalarLink, ScalarNode};

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
                let (first, operations) = binary.operations();
                let mut before = self.scalar(first, grid)?;
                for operation in operations {
                    let other = self.scalar(operation.other, grid)?;
                    let op = ScalarBinary::Operator(operation.operator.op);
                    before = combined(op, before, other, operation.other_on_left);
                }
                before
            }
            Node::Call(call) => match call.function {
                Function::Pi => ScalarNode::Constant(std::f64::consts::PI),
                Function::Time => ScalarNode::Time,
                Function::Start => ScalarNode::Constant(seconds(self.range.start_ms)),
                Function::End => ScalarNode::Constant(seconds(self.range.end_ms)),
                Function::Range => ScalarNode::Constant(seconds(self.range.span_ms())),
                Function::Step => ScalarNode::Constant(seconds(self.range.step_ms)),
                Function::MinOf => {
                    let (a, b) = (self.scalar(&call.args[0], grid)?, self.scalar(&call.args[1], grid)?);
                    combined(ScalarBinary::MinOf, a, b, false)
                }
                Function::MaxOf => {
                    let (a, b) = (self.scalar(&call.args[0], grid)?, self.scalar(&call.args[1], grid)?);
                    combined(ScalarBinary::MaxOf, a, b, false)
                }
                Function::ScalarOf => ScalarNode::OfVector(Box::new(self.vector(&call.args[0], grid)?)),
                other => return Err(not_evaluated(other)),
            },
            _ => unreachable!("the parser's type check lets only scalars stand here"),
        })
    }
}

/// An operator on what came before it and another scalar; of constants its value.
pub(super) fn combined(
    op: ScalarBinary,
    before: ScalarNode,
    other: ScalarNode,
    other_on_left: bool,
) -> ScalarNode {
    match (before, other) {
        (ScalarNode::Constant(before), ScalarNode::Constant(other)) => {
            let (left, right) = if other_on_left { (other, before) } else { (before, other) };
            ScalarNode::Constant(crate::eval::scalar_binary(op, left, right))
        }
        (ScalarNode::Chain { first, mut links }, other) => {
            links.push(ScalarLink { op, other, other_on_left });
            ScalarNode::Chain { first, links }
        }
        (before, other) => ScalarNode::Chain {
            first: Box::new(before),
            links: vec![ScalarLink { op, other, other_on_left }],
        },
    }
}

#[allow(clippy::cast_precision_loss, reason = "times are far below 2^53 ms")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
