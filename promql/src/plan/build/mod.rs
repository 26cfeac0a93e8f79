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

use std::collections::{BTreeMap, BTreeSet};

use tsdb::select::Select;

use super::Settings;
use super::grid::{Grid, QueryRange};
use super::node::{Aggregate, AggregateParam, Binary, Map, Root, ScalarOp, SetOp, Shared, VectorNode};
use crate::error::Error;
use crate::functions::Function;
use crate::parse::Span;
use crate::parse::ast::{self, AggregateOp, Edges, Expr, Node, ValueType};
use invariant::is_invariant;
use labels::{label_name, string};

/// Selects with the number of places at which each stands.
type Selects = Vec<(Select, usize)>;

/// Plans `expr`; gives what to fetch beside it.
pub(super) fn build(
    expr: &Expr,
    range: &QueryRange,
    settings: &Settings,
) -> Result<(Root, Selects, Vec<Shared>), Error> {
    let mut builder = Builder {
        range,
        settings,
        selects: Vec::new(),
        wants: Wants::Samples,
        repeated: repeated(expr),
        shared: Vec::new(),
        places: BTreeMap::new(),
    };
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
    Ok((root, builder.selects, builder.shared))
}

/// Whether evaluating an expression costs more than keeping its rows.
fn is_worth_sharing(expr: &Expr) -> bool {
    matches!(expr.node, Node::Binary(_) | Node::Aggregate(_) | Node::Call(_))
}

/// Texts of expressions that stand at more than one place.
fn repeated(expr: &Expr) -> BTreeSet<String> {
    let (mut once, mut more) = (BTreeSet::new(), BTreeSet::new());
    let mut left = vec![expr];
    while let Some(expr) = left.pop() {
        if is_worth_sharing(expr)
            && let Some(text) = once.replace(expr.to_string())
        {
            more.insert(text);
        }
        left.extend(expr.children());
    }
    more
}

struct Builder<'a> {
    range: &'a QueryRange,
    settings: &'a Settings,
    selects: Selects,
    wants: Wants,
    /// Texts of expressions that stand at more than one place.
    repeated: BTreeSet<String>,
    shared: Vec<Shared>,
    /// Numbers of shared expressions, by what makes two the same.
    places: BTreeMap<Place, usize>,
}

/// An expression's text, its steps, and what is wanted of histograms inside.
type Place = (String, (i64, i64, usize), Wants);

/// What the functions around a selector want of its histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
        let once = grid.count > 1 && is_invariant(expr);
        let grid = if once { Grid::single(grid.start_ms) } else { *grid };
        // One frame for all of this, since trees are deep.
        let place = self.place(expr, &grid);
        let node = match self.known(place.as_ref()) {
            Some(node) => node,
            None => {
                let node = self.vector_at(expr, &grid)?;
                self.remember(place, node)
            }
        };
        Ok(if once { VectorNode::Once(Box::new(node)) } else { node })
    }

    /// What makes an expression the same as another, if there may be another.
    fn place(&self, expr: &Expr, grid: &Grid) -> Option<Place> {
        if self.repeated.is_empty() {
            return None;
        }
        let text = is_worth_sharing(expr).then(|| expr.to_string())?;
        let place = |text| (text, (grid.start_ms, grid.step_ms, grid.count), self.wants);
        self.repeated.contains(&text).then(|| place(text))
    }

    fn known(&mut self, place: Option<&Place>) -> Option<VectorNode> {
        let number = *self.places.get(place?)?;
        self.shared[number].places += 1;
        Some(VectorNode::Shared(number))
    }

    fn remember(&mut self, place: Option<Place>, node: VectorNode) -> VectorNode {
        let Some(place) = place else { return node };
        self.places.insert(place, self.shared.len());
        self.shared.push(Shared { node, places: 1 });
        VectorNode::Shared(self.shared.len() - 1)
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
            Node::Aggregate(aggregate) => self.aggregate(aggregate, expr.span, grid)?,
            Node::Call(call) => self.call(call, expr.span, grid)?,
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

    fn aggregate(
        &mut self,
        aggregate: &ast::Aggregate,
        whole: Span,
        grid: &Grid,
    ) -> Result<VectorNode, Error> {
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
            // Prometheus says of these alone that the whole of them leaves out histograms.
            span: match aggregate.op {
                AggregateOp::Topk | AggregateOp::Bottomk => whole,
                _ => aggregate.expr.span,
            },
        }))
    }
}

fn not_evaluated(function: Function) -> Error {
    Error::Invalid(format!("{}() isn't available", function.signature().name))
}
