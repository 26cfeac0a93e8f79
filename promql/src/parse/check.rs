//! The type check: each function takes the parts of a node and gives the node, or says what is wrong and where.

use std::sync::Arc;

use super::Span;
use super::ast::{
    Aggregate, AggregateOp, BinaryOp, Call, Cardinality, Expr, Fill, Node, Operator, Unary, ValueType,
    VectorMatching,
};
use super::matching::Modifiers;
use crate::functions::Function;

/// A node, or what is wrong with it.
pub(super) type Checked = Result<Expr, (Span, String)>;

pub(super) fn unary(unary: Unary, span: Span) -> Checked {
    let operand = unary.operand.value_type();
    if !operand.is_operand() {
        let found = operand.described();
        let message = format!(
            "unary expression only allowed on expressions of type scalar or instant vector, got {found:?}"
        );
        return Err((span, message));
    }
    Ok(Expr { node: Node::Unary(Box::new(unary)), span })
}

/// What the parser found of an operator and its sides.
pub(super) struct OperatorParts {
    pub op: BinaryOp,
    /// From the operator to the end of what modifies it.
    pub op_span: Span,
    pub modifiers: Modifiers,
    pub left: Side,
    pub right: Side,
}

/// One side of an operator.
#[derive(Clone, Copy)]
pub(super) struct Side {
    pub value_type: ValueType,
    pub span: Span,
}

impl Side {
    pub fn of(expr: &Expr) -> Self {
        Self { value_type: expr.value_type(), span: expr.span }
    }
}

impl OperatorParts {
    pub fn check(self) -> Result<Operator, (Span, String)> {
        let Self { op, op_span, modifiers: Modifiers { return_bool, matching, fill }, left, right } = self;
        let span = left.span.to(right.span);
        let op_span =
            Span { start: op_span.start, end: op_span.end.min(right.span.start).max(op_span.start) };
        if return_bool && !op.is_comparison() {
            return Err((op_span, "bool modifier can only be used on comparison operators".to_owned()));
        }
        for side in [&left, &right] {
            if !side.value_type.is_operand() {
                let message = "binary expression must contain only scalar and instant vector types";
                return Err((side.span, message.to_owned()));
            }
        }
        let is_vector = |side: &Side| side.value_type == ValueType::Vector;
        let between_vectors = is_vector(&left) && is_vector(&right);
        if op.is_comparison() && !return_bool && !is_vector(&left) && !is_vector(&right) {
            return Err((op_span, "comparisons between scalars must use BOOL modifier".to_owned()));
        }
        if op.is_set() && !between_vectors {
            let message = format!("set operator {:?} not allowed in binary scalar expression", op.symbol());
            return Err((span, message));
        }
        if op.is_trim() && !is_vector(&left) && !is_vector(&right) {
            let message =
                format!("operator {:?} not allowed between scalars: it trims histograms", op.symbol());
            return Err((span, message));
        }
        if fill != Fill::default() && (op.is_set() || !between_vectors) {
            let what = if op.is_set() {
                "not allowed for set operators"
            } else {
                "only allowed between instant vectors"
            };
            return Err((op_span, format!("filling in missing series {what}")));
        }
        if !between_vectors && matching.as_ref().is_some_and(|m| !m.labels.is_empty()) {
            return Err((span, "vector matching only allowed between instant vectors".to_owned()));
        }
        let matching =
            between_vectors.then(|| VectorMatching { fill, ..matching.unwrap_or_else(match_by_all_labels) });
        let matching = matching.map(|m| check_matching(op, m, op_span, span)).transpose()?;
        let is_scalar = !is_vector(&left) && !is_vector(&right);
        let value_type = if is_scalar { ValueType::Scalar } else { ValueType::Vector };
        Ok(Operator { op, return_bool, matching, value_type })
    }
}

fn match_by_all_labels() -> VectorMatching {
    VectorMatching {
        cardinality: Cardinality::OneToOne,
        on: false,
        labels: Vec::new(),
        include: Vec::new(),
        fill: Fill::default(),
    }
}

fn check_matching(
    op: BinaryOp,
    mut matching: VectorMatching,
    op_span: Span,
    span: Span,
) -> Result<VectorMatching, (Span, String)> {
    if op.is_set() {
        if matching.cardinality != Cardinality::OneToOne {
            return Err((span, format!("no grouping allowed for {:?} operation", op.symbol())));
        }
        matching.cardinality = Cardinality::ManyToMany;
    }
    match matching.labels.iter().find(|label| matching.on && matching.include.contains(label)) {
        Some(both) => Err((op_span, format!("label {both:?} must not occur in ON and GROUP clause at once"))),
        None => Ok(matching),
    }
}

pub(super) fn call(call: Call, span: Span) -> Checked {
    let signature = call.function.signature();
    let (name, count) = (signature.name, call.args.len());
    let bound = if signature.args_max == Some(signature.args_min) && count != signature.args_min {
        Some(("", signature.args_min))
    } else if count < signature.args_min {
        Some(("at least ", signature.args_min))
    } else {
        signature.args_max.filter(|max| count > *max).map(|max| ("at most ", max))
    };
    if let Some((how, bound)) = bound {
        return Err((span, format!("expected {how}{bound} argument(s) in call to {name:?}, got {count}")));
    }
    for (i, arg) in call.args.iter().enumerate() {
        let wanted = signature.args[i.min(signature.args.len() - 1)];
        expect_type(arg, wanted, || format!("call to function {name:?}"))?;
    }
    if let (Function::Info, Some(selector)) = (call.function, call.args.get(1)) {
        match &selector.node {
            Node::Vector(selector) if selector.name.is_none() => {}
            Node::Vector(_) => {
                let message = "expected label selectors only, got vector selector instead";
                return Err((selector.span, message.to_owned()));
            }
            _ => {
                let message = format!(
                    "expected label selectors as the second argument to \"info\" function, got {selector}"
                );
                return Err((selector.span, message));
            }
        }
    }
    Ok(Expr { node: Node::Call(call), span })
}

pub(super) fn aggregate(
    op: AggregateOp,
    args: Vec<Expr>,
    without: bool,
    grouping: Vec<Arc<str>>,
    span: Span,
) -> Checked {
    let expected = 1 + usize::from(op.param_type().is_some());
    let found = args.len();
    if found == 0 {
        return Err((span, "no arguments for aggregate expression provided".to_owned()));
    }
    let mut args = args.into_iter();
    let param = op.param_type().and_then(|_| args.next());
    let (Some(expr), None) = (args.next(), args.next()) else {
        let message = format!(
            "wrong number of arguments for aggregate expression provided, expected {expected}, got {found}"
        );
        return Err((span, message));
    };
    expect_type(&expr, ValueType::Vector, || "aggregation expression".to_owned())?;
    if let (Some(param), Some(wanted)) = (&param, op.param_type()) {
        expect_type(param, wanted, || "aggregation parameter".to_owned())?;
    }
    let aggregate = Aggregate { op, expr, param, without, grouping };
    Ok(Expr { node: Node::Aggregate(Box::new(aggregate)), span })
}

fn expect_type(
    expr: &Expr,
    wanted: ValueType,
    context: impl FnOnce() -> String,
) -> Result<(), (Span, String)> {
    let found = expr.value_type();
    if found == wanted {
        return Ok(());
    }
    let (wanted, found) = (wanted.described(), found.described());
    Err((expr.span, format!("expected type {wanted} in {}, got {found}", context())))
}
