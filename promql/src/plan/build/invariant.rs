//! What has the same value at every step, and so is evaluated once.

use crate::functions::{Function, instant};
use crate::parse::ast::{Expr, Node};

/// Whether an expression has the same value at every step.
pub(super) fn is_invariant(expr: &Expr) -> bool {
    match &expr.node {
        Node::Number(_) | Node::String(_) => true,
        Node::Vector(selector) => selector.at.is_some(),
        Node::Matrix(matrix) => matrix.selector.at.is_some(),
        // What stands inside is evaluated on steps of its own.
        Node::Subquery(subquery) => subquery.at.is_some(),
        Node::Call(call) => !depends_on_step(call.function, &call.args) && call.args.iter().all(is_invariant),
        _ => expr.children().into_iter().all(is_invariant),
    }
}

/// Functions that look at the step's own time.
fn depends_on_step(function: Function, args: &[Expr]) -> bool {
    match function {
        Function::Time | Function::PredictLinear | Function::Timestamp => true,
        _ => args.is_empty() && instant::date_part(function).is_some(),
    }
}
