//! A tree in several lines, as `format_query` shows it: whatever doesn't fit into a line is split at its parentheses
//! and operators.

use std::fmt::Write;

use super::ast::{Binary, Expr, Node};
use super::display;

/// Longest expression in bytes that stays in one line, its indentation not counted.
const LINE_BYTES_MAX: usize = 100;
/// Deepest indentation: operands of a chain each stand further in than the one behind, so that a chain of thousands would
/// be shown as hundreds of times its length.
const LEVELS_MAX: usize = 200;

impl Expr {
    /// The expression in as many lines as it takes, indented by two spaces a level.
    pub fn pretty(&self) -> String {
        let mut out = String::new();
        write(self, 0, &mut out).expect("writing to a string never fails");
        out
    }
}

fn write(expr: &Expr, level: usize, out: &mut String) -> std::fmt::Result {
    let line = expr.to_string();
    let indent = indentation(level);
    if line.len() <= LINE_BYTES_MAX {
        return write!(out, "{indent}{line}");
    }
    match &expr.node {
        Node::Number(_) | Node::String(_) | Node::Vector(_) | Node::Matrix(_) => {
            write!(out, "{indent}{line}")
        }
        Node::Paren(inner) => {
            writeln!(out, "{indent}(")?;
            write(inner, level + 1, out)?;
            write!(out, "\n{indent})")
        }
        Node::Unary(unary) => {
            write!(out, "{indent}{}", if unary.negative { "-" } else { "+" })?;
            let mut operand = String::new();
            write(&unary.operand, level, &mut operand)?;
            out.write_str(operand.trim_start())
        }
        Node::Binary(binary) if binary.is_from_right() => chain_from_right(binary, level, out),
        Node::Binary(binary) => chain_from_left(binary, level, out),
        Node::Aggregate(aggregate) => {
            writeln!(out, "{indent}{}(", display::aggregation(aggregate))?;
            if let Some(param) = &aggregate.param {
                write(param, level + 1, out)?;
                out.push_str(",\n");
            }
            write(&aggregate.expr, level + 1, out)?;
            write!(out, "\n{indent})")
        }
        Node::Call(call) => {
            writeln!(out, "{indent}{}(", call.function.signature().name)?;
            for (i, arg) in call.args.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { ",\n" });
                write(arg, level + 1, out)?;
            }
            write!(out, "\n{indent})")
        }
        Node::Subquery(subquery) => {
            write(&subquery.expr, level, out)?;
            write!(out, "{}", display::brackets(subquery))
        }
    }
}

fn indentation(level: usize) -> String {
    "  ".repeat(level.min(LEVELS_MAX))
}

/// What the last operator works on stands a level further in than it: the right operand, and all before it, which are split
/// in turn until they fit into a line.
fn chain_from_left(binary: &Binary, level: usize, out: &mut String) -> std::fmt::Result {
    let texts: Vec<String> = binary.operands.iter().map(Expr::to_string).collect();
    let operators: Vec<String> =
        binary.operators.iter().map(|operator| display::operator(operator).to_string()).collect();
    // Operators that still fit into a line together with what they work on.
    let (mut fitting, mut bytes) = (0, texts[0].len());
    for (operator, operand) in operators.iter().zip(&texts[1..]) {
        bytes += operator.len() + operand.len() + 2;
        if bytes > LINE_BYTES_MAX {
            break;
        }
        fitting += 1;
    }
    let count = operators.len();
    let deepest = level + count - fitting;
    if fitting == 0 {
        write(&binary.operands[0], deepest, out)?;
    } else {
        write!(out, "{}{}", indentation(deepest), texts[0])?;
        for (operator, operand) in operators.iter().zip(&texts[1..]).take(fitting) {
            write!(out, " {operator} {operand}")?;
        }
    }
    for (at, (operator, operand)) in operators.iter().zip(&binary.operands[1..]).enumerate().skip(fitting) {
        let own = level + count - 1 - at;
        writeln!(out, "\n{}{operator}", indentation(own))?;
        write(operand, own + 1, out)?;
    }
    Ok(())
}

/// As [`chain_from_left`], the other way round.
fn chain_from_right(binary: &Binary, level: usize, out: &mut String) -> std::fmt::Result {
    let text = |at: usize| {
        let is_infinite = display::is_infinite_base(binary, at);
        if is_infinite { display::INFINITE_BASE.to_owned() } else { binary.operands[at].to_string() }
    };
    let count = binary.operators.len();
    let texts: Vec<String> = (0..=count).map(text).collect();
    let operators: Vec<String> =
        binary.operators.iter().map(|operator| display::operator(operator).to_string()).collect();
    let (mut split, mut bytes) = (count, texts[count].len());
    while split > 0 && bytes + operators[split - 1].len() + texts[split - 1].len() + 2 <= LINE_BYTES_MAX {
        split -= 1;
        bytes += operators[split].len() + texts[split].len() + 2;
    }
    for at in 0..split {
        if display::is_infinite_base(binary, at) {
            write!(out, "{}{}", indentation(level + at + 1), texts[at])?;
        } else {
            write(&binary.operands[at], level + at + 1, out)?;
        }
        writeln!(out, "\n{}{}", indentation(level + at), operators[at])?;
    }
    if split == count {
        return write(&binary.operands[count], level + count, out);
    }
    write!(out, "{}{}", indentation(level + split), texts[split])?;
    for at in split..count {
        write!(out, " {} {}", operators[at], texts[at + 1])?;
    }
    Ok(())
}
