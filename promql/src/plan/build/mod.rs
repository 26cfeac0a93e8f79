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
use super::node::{
    Aggregate, AggregateParam, Binary, Chain, Link, Map, Root, ScalarBinary, ScalarNode, ScalarOp, SetOp,
    Shared, VectorNode,
};
use crate::error::Error;
use crate::functions::Function;
use crate::parse::Span;
use crate::parse::ast::{self, AggregateOp, Edges, Expr, Node, Operation, ValueType};
use invariant::is_invariant;
use labels::{label_name, string};
use scalar::combined;

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
            Node::Binary(binary) => VectorNode::Chain(self.chain(binary, grid)?),
            Node::Aggregate(aggregate) => self.aggregate(aggregate, expr.span, grid)?,
            Node::Call(call) => self.call(call, expr.span, grid)?,
            _ => unreachable!("the parser's type check lets only instant vectors stand here"),
        })
    }

    /// A chain that gives a vector. Its first operands may be scalars.
    fn chain(&mut self, binary: &ast::Binary, grid: &Grid) -> Result<Chain, Error> {
        let (first, operations) = binary.operations();
        let mut before = match first.value_type() {
            ValueType::Scalar => Before::Scalar(self.scalar(first, grid)?),
            _ => Before::Vector(Chain { first: Box::new(self.vector(first, grid)?), links: Vec::new() }),
        };
        for operation in operations {
            let is_scalar = operation.other.value_type() == ValueType::Scalar;
            before = match before {
                Before::Scalar(scalar) if is_scalar => {
                    let other = self.scalar(operation.other, grid)?;
                    let op = ScalarBinary::Operator(operation.operator.op);
                    Before::Scalar(combined(op, scalar, other, operation.other_on_left))
                }
                Before::Scalar(scalar) => {
                    let first = Box::new(self.vector(operation.other, grid)?);
                    let link = scalar_link(&operation, scalar, !operation.other_on_left);
                    Before::Vector(Chain { first, links: vec![link] })
                }
                Before::Vector(mut chain) => {
                    if is_scalar {
                        let scalar = self.scalar(operation.other, grid)?;
                        chain.links.push(scalar_link(&operation, scalar, operation.other_on_left));
                    } else {
                        let other = self.vector(operation.other, grid)?;
                        put_vector(&mut chain.links, &operation, other);
                    }
                    Before::Vector(chain)
                }
            };
        }
        match before {
            Before::Vector(chain) => Ok(chain),
            Before::Scalar(_) => unreachable!("a chain of scalars is no vector, by the parser's type check"),
        }
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

/// What the operators of a chain came to so far.
enum Before {
    Scalar(ScalarNode),
    Vector(Chain),
}

fn scalar_link(operation: &Operation<'_>, scalar: ScalarNode, scalar_on_left: bool) -> Link {
    let ast::Operator { op, return_bool, .. } = *operation.operator;
    Link::Scalar(ScalarOp { op, return_bool, scalar, scalar_on_left, span: operation.span })
}

/// Adds an operator with a vector. Set operators that are alike take several in turn: of `a or b or …` each series is then
/// looked up once.
fn put_vector(links: &mut Vec<Link>, operation: &Operation<'_>, other: VectorNode) {
    let ast::Operator { op, return_bool, matching, .. } = operation.operator;
    let mut matching = matching.clone().expect("the parser gives two vectors a matching");
    matching.labels.sort_unstable();
    matching.labels.dedup();
    if !op.is_set() {
        let (other_on_left, span) = (operation.other_on_left, operation.span);
        let join = Binary { op: *op, return_bool: *return_bool, matching, other, other_on_left, span };
        return links.push(Link::Join(join));
    }
    match links.last_mut() {
        Some(Link::Set(set)) if set.op == *op && set.matching == matching => set.others.push(other),
        _ => links.push(Link::Set(SetOp { op: *op, matching, others: vec![other] })),
    }
}

fn not_evaluated(function: Function) -> Error {
    Error::Invalid(format!("{}() isn't available", function.signature().name))
}
