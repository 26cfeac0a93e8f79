//! A tree in one line, as `format_query` shows what fits into one, and as error messages quote it. It parses back to
//! the same tree.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use tsdb::model::{METRIC_NAME, MatchOp, Matcher};

use super::ast::{
    Aggregate, At, Binary, BinaryOp, Cardinality, Edges, Expr, Fill, Node, Number, Operator, Subquery,
    VectorMatching, VectorSelector,
};
use super::duration;
use super::length::Length;
use super::parser::{is_reserved, named_number};
use super::string::quoted;

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.node {
            Node::Number(number) => number.fmt(f),
            Node::String(string) => string.fmt(f),
            Node::Paren(inner) => write!(f, "({inner})"),
            Node::Unary(unary) => write!(f, "{}{}", if unary.negative { "-" } else { "+" }, unary.operand),
            Node::Binary(binary) => {
                for (at, operand) in binary.operands.iter().enumerate() {
                    if let Some(before) = at.checked_sub(1) {
                        write!(f, " {} ", operator(&binary.operators[before]))?;
                    }
                    if is_infinite_base(binary, at) {
                        f.write_str(INFINITE_BASE)?;
                    } else {
                        operand.fmt(f)?;
                    }
                }
                Ok(())
            }
            Node::Aggregate(aggregate) => {
                write!(f, "{}(", aggregation(aggregate))?;
                if let Some(param) = &aggregate.param {
                    write!(f, "{param}, ")?;
                }
                write!(f, "{})", aggregate.expr)
            }
            Node::Call(call) => {
                write!(f, "{}(", call.function.signature().name)?;
                for (i, arg) in call.args.iter().enumerate() {
                    write!(f, "{}{arg}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Node::Vector(selector) => {
                let modifiers = modifiers(selector.edges, selector.at, &selector.offset);
                write!(f, "{}{modifiers}", series(selector))
            }
            Node::Matrix(matrix) => {
                let selector = &matrix.selector;
                let modifiers = modifiers(selector.edges, selector.at, &selector.offset);
                write!(f, "{}[{}]{modifiers}", series(selector), matrix.range)
            }
            Node::Subquery(subquery) => write!(f, "{}{}", subquery.expr, brackets(subquery)),
        }
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        #[allow(clippy::cast_possible_truncation, reason = "a duration's milliseconds fit, by parsing")]
        if self.is_duration {
            return f.write_str(&duration::format((self.value * 1000.0).round() as i64));
        }
        f.write_str(&decimal(self.value))
    }
}

/// A float without an exponent, as short as reads back to the same float.
pub(super) fn decimal(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

/// How infinity is shown where it is raised to a power: `+Inf ^ 2` would be a sign in front of the power.
pub(super) const INFINITE_BASE: &str = "Inf";

/// Whether an operand is infinity, raised to a power.
pub(super) fn is_infinite_base(binary: &Binary, at: usize) -> bool {
    let is_infinite = |number: &Number| number.value == f64::INFINITY && !number.is_duration;
    binary.operators.get(at).is_some_and(|operator| operator.op == BinaryOp::Pow)
        && matches!(&binary.operands[at].node, Node::Number(number) if is_infinite(number))
}

/// An operator and what modifies it: `== bool on (a) group_left (b)`.
pub(super) fn operator(operator: &Operator) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        write!(f, "{}{}", operator.op.symbol(), if operator.return_bool { " bool" } else { "" })?;
        operator.matching.as_ref().map_or(Ok(()), |matching| write_matching(f, matching))
    })
}

fn write_matching(f: &mut Formatter<'_>, matching: &VectorMatching) -> fmt::Result {
    let group = match matching.cardinality {
        Cardinality::ManyToOne => Some("left"),
        Cardinality::OneToMany => Some("right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if matching.on || !matching.labels.is_empty() || group.is_some() {
        let how = if matching.on { "on" } else { "ignoring" };
        write!(f, " {how} ({})", label_names(&matching.labels))?;
    }
    if let Some(side) = group {
        write!(f, " group_{side} ({})", label_names(&matching.include))?;
    }
    match matching.fill {
        Fill { left: Some(left), right: Some(right) } if left.to_bits() == right.to_bits() => {
            write!(f, " fill ({})", decimal(left))
        }
        Fill { left, right } => {
            left.map_or(Ok(()), |value| write!(f, " fill_left ({})", decimal(value)))?;
            right.map_or(Ok(()), |value| write!(f, " fill_right ({})", decimal(value)))
        }
    }
}

/// An aggregation up to its opening parenthesis: `sum by (a) `.
pub(super) fn aggregation(aggregate: &Aggregate) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        f.write_str(aggregate.op.name())?;
        match (aggregate.without, aggregate.grouping.is_empty()) {
            (true, _) => write!(f, " without ({}) ", label_names(&aggregate.grouping)),
            (false, false) => write!(f, " by ({}) ", label_names(&aggregate.grouping)),
            (false, true) => Ok(()),
        }
    })
}

/// A subquery's brackets and modifiers: `[1h:5m] offset 1m`.
pub(super) fn brackets(subquery: &Subquery) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        write!(f, "[{}:", subquery.range)?;
        if let Some(step) = &subquery.step {
            step.fmt(f)?;
        }
        write!(f, "]{}", modifiers(Edges::Plain, subquery.at, &subquery.offset))
    })
}

/// A metric's name and matchers, these in order of their text.
fn series(selector: &VectorSelector) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        let name = selector.name.as_deref();
        let outside = name.filter(|name| is_plain_metric_name(name));
        let is_name =
            |m: &Matcher| m.name() == METRIC_NAME && m.op() == MatchOp::Equal && Some(m.value()) == name;
        let mut matchers: Vec<String> = selector
            .matchers
            .iter()
            .filter(|m| !is_name(m))
            .map(|m| format!("{}{}{}", label_name(m.name()), m.op(), quoted(m.value())))
            .collect();
        matchers.sort_unstable();
        if let (Some(name), None) = (name, outside) {
            matchers.insert(0, quoted(name));
        }
        f.write_str(outside.unwrap_or(""))?;
        if matchers.is_empty() && outside.is_some() {
            return Ok(());
        }
        write!(f, "{{{}}}", matchers.join(","))
    })
}

/// ` smoothed @ 1.500 offset 5m`, or nothing.
fn modifiers(edges: Edges, at: Option<At>, offset: &Length) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        if edges != Edges::Plain {
            write!(f, " {}", edges.keyword())?;
        }
        match at {
            Some(At::Time(ms)) => {
                let sign = if ms < 0 { "-" } else { "" };
                let ms = ms.unsigned_abs();
                write!(f, " @ {sign}{}.{:03}", ms / 1000, ms % 1000)?;
            }
            Some(At::Start) => f.write_str(" @ start()")?,
            Some(At::End) => f.write_str(" @ end()")?,
            None => {}
        }
        if offset.is_zero() { Ok(()) } else { write!(f, " offset {offset}") }
    })
}

fn label_names(names: &[Arc<str>]) -> String {
    let names: Vec<String> = names.iter().map(|name| label_name(name)).collect();
    names.join(", ")
}

/// Quoted unless it is letters, digits and `_`.
fn label_name(name: &str) -> String {
    if is_identifier(name, false) { name.to_owned() } else { quoted(name) }
}

/// Whether a metric's name may stand in front of the braces.
fn is_plain_metric_name(name: &str) -> bool {
    is_identifier(name, true) && !is_reserved(name) && named_number(name).is_none()
}

fn is_identifier(name: &str, colons: bool) -> bool {
    name.starts_with(|c: char| !c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':'))
}
