//! A tree in several lines, as `format_query` shows it: whatever doesn't fit into a line is split at its parentheses
//! and operators.

use std::fmt::Write;

use super::ast::{Expr, Node};
use super::display;

/// Longest expression in bytes that stays in one line, its indentation not counted.
const LINE_BYTES_MAX: usize = 100;

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
    let indent = "  ".repeat(level);
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
        Node::Binary(binary) => {
            if display::is_infinite_base(binary) {
                write!(out, "{indent}  {}", display::INFINITE_BASE)?;
            } else {
                write(&binary.left, level + 1, out)?;
            }
            writeln!(out, "\n{indent}{}", display::operator(binary))?;
            write(&binary.right, level + 1, out)
        }
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
