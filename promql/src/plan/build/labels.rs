//! Labels that the query's text fixes.

use std::sync::Arc;

use tsdb::model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher, anchored_regex};

use crate::error::Error;
use crate::functions::Function;
use crate::parse::ast::{self, Expr, Node};
use crate::parse::string::StringLiteral;
use crate::plan::node::LabelEdit;

pub(super) fn string(expr: &Expr) -> &StringLiteral {
    match &expr.unwrap_parens().node {
        Node::String(literal) => literal,
        _ => unreachable!("the parser's type check lets only strings stand here"),
    }
}

/// Label names are any UTF-8 but the empty text.
pub(super) fn label_name(
    literal: &StringLiteral,
    error: impl Fn(&StringLiteral) -> String,
) -> Result<Arc<str>, Error> {
    match literal.as_str() {
        Some(name) if !name.is_empty() => Ok(name.into()),
        _ => Err(Error::Execution(error(literal))),
    }
}

pub(super) fn label_edit(call: &ast::Call) -> Result<LabelEdit, Error> {
    let name = call.function.signature().name;
    let invalid_destination = |literal: &StringLiteral| {
        format!("invalid destination label name in {name}(): {}", literal.to_string_lossy())
    };
    let text = |at: usize| -> Arc<str> { string(&call.args[at]).to_string_lossy().into() };
    if call.function == Function::LabelReplace {
        let pattern = text(4);
        let regex = anchored_regex(&pattern).map_err(|reason| {
            Error::Execution(format!("invalid regular expression in label_replace(): {pattern}: {reason}"))
        })?;
        let destination = label_name(string(&call.args[1]), invalid_destination)?;
        return Ok(LabelEdit::Replace { destination, replacement: text(2), source: text(3), regex });
    }
    let sources = call.args[3..]
        .iter()
        .map(|arg| {
            label_name(string(arg), |l| {
                format!("invalid source label name in label_join(): {}", l.to_string_lossy())
            })
        })
        .collect::<Result<_, _>>()?;
    let destination = label_name(string(&call.args[1]), invalid_destination)?;
    Ok(LabelEdit::Join { destination, separator: text(2), sources })
}

/// The labels that an absent vector would have had: those asked for by `=`. As in Prometheus, a second condition on a
/// label removes it again.
pub(super) fn absent_labels(expr: &Expr) -> Labels {
    let matchers: &[Matcher] = match &expr.unwrap_parens().node {
        Node::Vector(selector) => &selector.matchers,
        Node::Matrix(matrix) => &matrix.selector.matchers,
        _ => &[],
    };
    let mut labels = LabelsBuilder::default();
    let mut set: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|m| m.name() != METRIC_NAME) {
        if matcher.op() == MatchOp::Equal && !set.contains(&matcher.name()) {
            labels.set(matcher.name(), matcher.value());
            set.push(matcher.name());
        } else {
            labels.remove(matcher.name());
        }
    }
    labels.labels()
}
