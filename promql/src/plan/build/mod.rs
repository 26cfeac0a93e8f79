//! Makes plans.
//!
//! | module | what it makes |
//! |---|---|
//! | `scalar` | nodes that give one float for each step |
//! | `call` | functions |
//! | `range` | selectors and subqueries: what is fetched, and over which times |
//! | `labels` | what is known of labels before any data is |
//! | `invariant` | tells what has the same value at every step |

mod call;
mod invariant;
mod labels;
mod range;
mod scalar;

use tsdb::select::Select;

use super::Settings;
use super::grid::{Grid, QueryRange};
use super::node::{Aggregate, AggregateParam, Binary, Map, Root, ScalarOp, SetOp, VectorNode};
use crate::error::Error;
use crate::functions::Function;
use crate::parse::ast::{self, Edges, Expr, Node, ValueType};
use invariant::is_invariant;
use labels::{label_name, string};

/// Plans `expr`; gives what to fetch beside it.
pub(super) fn build(
    expr: &Expr,
    range: &QueryRange,
    settings: &Settings,
) -> Result<(Root, Vec<Select>), Error> {
    let mut builder = Builder { range, settings, selects: Vec::new(), wants: Wants::Samples };
    let grid = range.grid();
    let root = match expr.value_type() {
        ValueType::Scalar => Root::Scalar(builder.scalar(expr, &grid)?),
        ValueType::Vector => Root::Vector(builder.vector(expr, &grid)?),
        kind if !range.is_instant() => {
            return Err(Error::Invalid(format!(
                "invalid expression type {:?} for range query, must be Scalar or instant Vector",
                kind.described()
            )));
        }
        ValueType::Matrix => {
            if let Node::Matrix(matrix) = &expr.unwrap_parens().node
                && matrix.selector.edges != Edges::Plain
            {
                return Err(Error::Execution(call::only_with(matrix.selector.edges)));
            }
            let (source, range_ms) = builder.range_source(expr, &grid)?;
            Root::Matrix { source, range_ms }
        }
        ValueType::String => Root::String(string(expr).to_string_lossy().into_owned()),
    };
    Ok((root, builder.selects))
}

struct Builder<'a> {
    range: &'a QueryRange,
    settings: &'a Settings,
    selects: Vec<Select>,
    wants: Wants,
}

/// What the functions around a selector want of its histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    /// Nothing in particular.
    Samples,
    /// Count and sum alone: resets that storage found are told, and contradictions among them are worth a warning.
    Totals,
    /// All buckets, for good: this is what a subquery or a quantile further out asks for.
    Buckets,
}

impl Builder<'_> {
    fn vector(&mut self, expr: &Expr, grid: &Grid) -> Result<VectorNode, Error> {
        if grid.count == 0 {
            return Ok(VectorNode::Nothing);
        }
        if grid.count > 1 && is_invariant(expr) {
            let node = self.vector_at(expr, &Grid::single(grid.start_ms))?;
            return Ok(VectorNode::Once(Box::new(node)));
        }
        self.vector_at(expr, grid)
    }

    fn vector_at(&mut self, expr: &Expr, grid: &Grid) -> Result<VectorNode, Error> {
        Ok(match &expr.node {
            Node::Paren(inner) => self.vector(inner, grid)?,
            Node::Vector(selector) => VectorNode::Select(self.instant_leaf(selector, expr.span, grid)?),
            Node::Unary(unary) => {
                let input = Box::new(self.vector(&unary.operand, grid)?);
                if unary.negative { VectorNode::Map { map: Map::Negate, input } } else { *input }
            }
            Node::Binary(binary) => self.binary(expr, binary, grid)?,
            Node::Aggregate(aggregate) => self.aggregate(aggregate, grid)?,
            Node::Call(call) => self.call(call, grid)?,
            _ => unreachable!("the parser's type check lets only instant vectors stand here"),
        })
    }

    fn binary(&mut self, expr: &Expr, binary: &ast::Binary, grid: &Grid) -> Result<VectorNode, Error> {
        let types = (binary.left.value_type(), binary.right.value_type());
        let (scalar, vector, scalar_on_left) = match types {
            (ValueType::Scalar, _) => (&binary.left, &binary.right, true),
            (_, ValueType::Scalar) => (&binary.right, &binary.left, false),
            _ => return self.vector_binary(expr, binary, grid),
        };
        Ok(VectorNode::ScalarOp(ScalarOp {
            op: binary.op,
            return_bool: binary.return_bool,
            scalar: Box::new(self.scalar(scalar, grid)?),
            scalar_on_left,
            input: Box::new(self.vector(vector, grid)?),
            span: expr.span,
        }))
    }

    fn vector_binary(&mut self, expr: &Expr, binary: &ast::Binary, grid: &Grid) -> Result<VectorNode, Error> {
        let left = Box::new(self.vector(&binary.left, grid)?);
        let right = Box::new(self.vector(&binary.right, grid)?);
        let mut matching = binary.matching.clone().expect("the parser gives two vectors a matching");
        matching.labels.sort_unstable();
        matching.labels.dedup();
        let op = binary.op;
        Ok(if op.is_set() {
            VectorNode::Set(SetOp { op, matching, left, right })
        } else {
            let return_bool = binary.return_bool;
            VectorNode::Binary(Binary { op, return_bool, matching, left, right, span: expr.span })
        })
    }

    fn aggregate(&mut self, aggregate: &ast::Aggregate, grid: &Grid) -> Result<VectorNode, Error> {
        let param = match &aggregate.param {
            None => AggregateParam::None,
            Some(param) if param.value_type() == ValueType::String => {
                AggregateParam::Label(label_name(string(param), |literal| {
                    format!("invalid label name {literal}")
                })?)
            }
            Some(param) => AggregateParam::Scalar(Box::new(self.scalar(param, grid)?), param.span),
        };
        let mut grouping = aggregate.grouping.clone();
        grouping.sort_unstable();
        grouping.dedup();
        Ok(VectorNode::Aggregate(Aggregate {
            op: aggregate.op,
            param,
            without: aggregate.without,
            grouping,
            input: Box::new(self.vector(&aggregate.expr, grid)?),
            span: aggregate.expr.span,
        }))
    }
}

fn not_evaluated(function: Function) -> Error {
    Error::Invalid(format!("{}() isn't available", function.signature().name))
}
