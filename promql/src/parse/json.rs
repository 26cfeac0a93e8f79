//! A tree as JSON, in the shape of Prometheus's `parse_query`: objects with a `type`, keys in alphabetical order,
//! durations in milliseconds.

use std::fmt::{Display, Write};
use std::sync::Arc;

use tsdb::model::Matcher;

use super::ast::{At, Binary, Cardinality, Edges, Expr, Fill, Node, Operator, ValueType, VectorSelector};
use super::display::decimal;
use super::length::Length;
use crate::functions::Signature;

impl Expr {
    /// The tree as one JSON object.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        write(self, &mut out);
        out
    }
}

fn write(expr: &Expr, out: &mut String) {
    if let Node::Binary(binary) = &expr.node {
        return write_chain(binary, out);
    }
    let mut object = Object::open(out);
    match &expr.node {
        Node::Number(number) => {
            object.text("type", "numberLiteral").text("val", &decimal(number.value));
        }
        Node::String(string) => {
            object.text("type", "stringLiteral").text("val", &string.to_string_lossy());
        }
        Node::Paren(inner) => {
            object.child("expr", inner).text("type", "parenExpr");
        }
        Node::Unary(unary) => {
            object.child("expr", &unary.operand);
            object.text("op", if unary.negative { "-" } else { "+" }).text("type", "unaryExpr");
        }
        Node::Binary(_) => unreachable!("chains have just been written"),
        Node::Aggregate(aggregate) => {
            object.child("expr", &aggregate.expr).texts("grouping", &aggregate.grouping);
            object.text("op", aggregate.op.name());
            match &aggregate.param {
                Some(param) => object.child("param", param),
                None => object.raw("param", "null"),
            };
            object.text("type", "aggregation").raw("without", aggregate.without);
        }
        Node::Call(call) => {
            object.key("args").array(call.args.iter(), write);
            object.key("func");
            function(call.function.signature(), object.out);
            object.text("type", "call");
        }
        Node::Vector(selector) => {
            object.raw("anchored", selector.edges == Edges::Anchored).selector(selector);
            object.raw("smoothed", selector.edges == Edges::Smoothed);
            object.start_or_end(selector.at).timestamp(selector.at).text("type", "vectorSelector");
        }
        Node::Matrix(matrix) => {
            let selector = &matrix.selector;
            object.raw("anchored", selector.edges == Edges::Anchored).selector(selector);
            object.raw("range", ms(&matrix.range)).raw("smoothed", selector.edges == Edges::Smoothed);
            object.start_or_end(selector.at).timestamp(selector.at);
            object.text("type", "matrixSelector");
        }
        Node::Subquery(subquery) => {
            object.child("expr", &subquery.expr).raw("offset", ms(&subquery.offset));
            object.raw("range", ms(&subquery.range)).start_or_end(subquery.at);
            object
                .raw("step", subquery.step.as_ref().map_or(0, ms))
                .timestamp(subquery.at)
                .text("type", "subquery");
        }
    }
    object.close();
}

/// Objects inside of one another, one for each operator: a loop opens them and another closes them, so that the stack
/// doesn't grow with the chain.
fn write_chain(binary: &Binary, out: &mut String) {
    let Binary { operands, operators } = binary;
    if binary.is_from_right() {
        for (operator, left) in operators.iter().zip(operands) {
            let mut object = Object::open(out);
            object.raw("bool", operator.return_bool).child("lhs", left).operator(operator).key("rhs");
        }
        write(&operands[operators.len()], out);
        for _ in operators {
            let mut object = Object::reopened(out);
            object.text("type", "binaryExpr");
            object.close();
        }
        return;
    }
    for operator in operators.iter().rev() {
        Object::open(out).raw("bool", operator.return_bool).key("lhs");
    }
    write(&operands[0], out);
    for (operator, right) in operators.iter().zip(&operands[1..]) {
        let mut object = Object::reopened(out);
        object.operator(operator).child("rhs", right).text("type", "binaryExpr");
        object.close();
    }
}

/// Milliseconds; 0 where they depend on the query's range.
fn ms(length: &Length) -> i64 {
    length.constant_ms().and_then(Result::ok).unwrap_or(0)
}

fn function(signature: &Signature, out: &mut String) {
    let mut object = Object::open(out);
    object
        .key("argTypes")
        .array(signature.args.iter(), |value_type, out| string(type_name(*value_type), out));
    object.text("name", signature.name).text("returnType", type_name(signature.returns));
    // Prometheus counts what may come beyond the types listed, the last of which may then be missing.
    let fixed = signature.args.len();
    let variadic = match signature.args_max {
        None => -1,
        Some(max) if max == signature.args_min => 0,
        Some(max) => i64::try_from(max + 1 - fixed).expect("functions take few arguments"),
    };
    object.raw("variadic", variadic);
    object.close();
}

fn type_name(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::Scalar => "scalar",
        ValueType::Vector => "vector",
        ValueType::Matrix => "matrix",
        ValueType::String => "string",
    }
}

/// An object under construction.
struct Object<'a> {
    out: &'a mut String,
    is_first: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, is_first: true }
    }

    /// An object of which something is written already.
    fn reopened(out: &'a mut String) -> Self {
        Self { out, is_first: false }
    }

    fn close(self) {
        self.out.push('}');
    }

    fn operator(&mut self, operator: &Operator) -> &mut Self {
        match &operator.matching {
            None => {
                self.raw("matching", "null");
            }
            Some(matching) => {
                let card = match matching.cardinality {
                    Cardinality::OneToOne => "one-to-one",
                    Cardinality::ManyToOne => "many-to-one",
                    Cardinality::OneToMany => "one-to-many",
                    Cardinality::ManyToMany => "many-to-many",
                };
                self.key("matching");
                let mut inner = Object::open(self.out);
                inner.text("card", card).fill(matching.fill);
                inner.texts("include", &matching.include).texts("labels", &matching.labels);
                inner.raw("on", matching.on);
                inner.close();
            }
        }
        self.text("op", operator.op.symbol())
    }

    fn key(&mut self, key: &str) -> &mut Self {
        if !self.is_first {
            self.out.push(',');
        }
        self.is_first = false;
        string(key, self.out);
        self.out.push(':');
        self
    }

    fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        string(value, self.out);
        self
    }

    fn raw(&mut self, key: &str, value: impl Display) -> &mut Self {
        self.key(key);
        write!(self.out, "{value}").expect("writing to a string never fails");
        self
    }

    fn child(&mut self, key: &str, child: &Expr) -> &mut Self {
        self.key(key);
        write(child, self.out);
        self
    }

    fn texts(&mut self, key: &str, values: &[Arc<str>]) -> &mut Self {
        self.key(key).array(values.iter(), |value, out| string(value, out));
        self
    }

    fn array<T>(&mut self, items: impl Iterator<Item = T>, mut write: impl FnMut(T, &mut String)) {
        self.out.push('[');
        for (i, item) in items.enumerate() {
            if i > 0 {
                self.out.push(',');
            }
            write(item, self.out);
        }
        self.out.push(']');
    }

    fn selector(&mut self, selector: &VectorSelector) -> &mut Self {
        let matcher = |matcher: &Matcher, out: &mut String| {
            let mut object = Object::open(out);
            object.text("name", matcher.name());
            object.text("type", &matcher.op().to_string()).text("value", matcher.value());
            object.close();
        };
        self.key("matchers").array(selector.matchers.iter(), matcher);
        self.text("name", selector.name.as_deref().unwrap_or("")).raw("offset", ms(&selector.offset))
    }

    fn fill(&mut self, fill: Fill) -> &mut Self {
        let value = |value: Option<f64>| match value {
            None => "null".to_owned(),
            Some(value) if value.is_finite() => decimal(value),
            Some(value) => format!("\"{}\"", decimal(value)),
        };
        self.raw("fillValues", format!(r#"{{"lhs":{},"rhs":{}}}"#, value(fill.left), value(fill.right)))
    }

    fn start_or_end(&mut self, at: Option<At>) -> &mut Self {
        match at {
            Some(At::Start) => self.text("startOrEnd", "start"),
            Some(At::End) => self.text("startOrEnd", "end"),
            Some(At::Time(_)) | None => self.raw("startOrEnd", "null"),
        }
    }

    fn timestamp(&mut self, at: Option<At>) -> &mut Self {
        match at {
            Some(At::Time(ms)) => self.raw("timestamp", ms),
            Some(At::Start | At::End) | None => self.raw("timestamp", "null"),
        }
    }
}

/// A JSON string, escaped as Go does for the web: `<`, `>`, `&`, U+2028 and U+2029 too.
fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a string never fails");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
