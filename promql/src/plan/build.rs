//! Makes plans.

use std::sync::Arc;

use tsdb::model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher, anchored_regex};
use tsdb::select::Select;

use super::grid::{Grid, QueryRange, View};
use super::node::{
    Absent, AbsentOver, Aggregate, AggregateParam, Binary, LabelEdit, Leaf, Map, QuantileLabels, RangeSource,
    Root, ScalarBinary, ScalarNode, ScalarOp, SetOp, Sort, Subquery, VectorNode, Window,
};
use super::{Date, Settings};
use crate::error::Error;
use crate::functions::Function;
use crate::functions::instant::{self, FloatFunction};
use crate::functions::window::WindowFunction;
use crate::parse::ast::{self, At, Expr, Node, ValueType};
use crate::parse::length::Length;
use crate::parse::string::StringLiteral;

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
    fn scalar(&mut self, expr: &Expr, grid: &Grid) -> Result<ScalarNode, Error> {
        let once = grid.count > 1 && is_invariant(expr);
        let node = self.scalar_at(expr, &if once { Grid::single(grid.start_ms) } else { *grid })?;
        Ok(if once && !matches!(node, ScalarNode::Constant(_)) {
            ScalarNode::Once(Box::new(node))
        } else {
            node
        })
    }

    fn scalar_at(&mut self, expr: &Expr, grid: &Grid) -> Result<ScalarNode, Error> {
        Ok(match &expr.node {
            Node::Number(number) => ScalarNode::Constant(number.value),
            Node::Paren(inner) => self.scalar_at(inner, grid)?,
            Node::Unary(unary) => match (self.scalar(&unary.operand, grid)?, unary.negative) {
                (operand, false) => operand,
                (ScalarNode::Constant(value), true) => ScalarNode::Constant(-value),
                (operand, true) => ScalarNode::Negate(Box::new(operand)),
            },
            Node::Binary(binary) => {
                self.scalar_binary(ScalarBinary::Operator(binary.op), &binary.left, &binary.right, grid)?
            }
            Node::Call(call) => match call.function {
                Function::Pi => ScalarNode::Constant(std::f64::consts::PI),
                Function::Time => ScalarNode::Time,
                Function::Start => ScalarNode::Constant(seconds(self.range.start_ms)),
                Function::End => ScalarNode::Constant(seconds(self.range.end_ms)),
                Function::Range => ScalarNode::Constant(seconds(self.range.span_ms())),
                Function::Step => ScalarNode::Constant(seconds(self.range.step_ms)),
                Function::MinOf => {
                    self.scalar_binary(ScalarBinary::MinOf, &call.args[0], &call.args[1], grid)?
                }
                Function::MaxOf => {
                    self.scalar_binary(ScalarBinary::MaxOf, &call.args[0], &call.args[1], grid)?
                }
                Function::ScalarOf => ScalarNode::OfVector(Box::new(self.vector(&call.args[0], grid)?)),
                other => return Err(not_evaluated(other)),
            },
            _ => unreachable!("the parser's type check lets only scalars stand here"),
        })
    }

    fn scalar_binary(
        &mut self,
        op: ScalarBinary,
        left: &Expr,
        right: &Expr,
        grid: &Grid,
    ) -> Result<ScalarNode, Error> {
        let (left, right) = (self.scalar(left, grid)?, self.scalar(right, grid)?);
        Ok(match (&left, &right) {
            (ScalarNode::Constant(left), ScalarNode::Constant(right)) => {
                ScalarNode::Constant(crate::eval::scalar_binary(op, *left, *right))
            }
            _ => ScalarNode::Binary { op, left: Box::new(left), right: Box::new(right) },
        })
    }

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
            Node::Vector(selector) => VectorNode::Select(self.instant_leaf(selector, grid)?),
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

    fn call(&mut self, call: &ast::Call, grid: &Grid) -> Result<VectorNode, Error> {
        let outside = self.wants;
        self.wants = match (outside, call.function) {
            (Wants::Buckets, _)
            | (_, Function::HistogramQuantile | Function::HistogramQuantiles | Function::HistogramFraction) => {
                Wants::Buckets
            }
            (_, Function::HistogramCount | Function::HistogramSum | Function::HistogramAvg) => Wants::Totals,
            (outside, _) => outside,
        };
        let node = self.call_inside(call, grid);
        self.wants = outside;
        node
    }

    fn call_inside(&mut self, call: &ast::Call, grid: &Grid) -> Result<VectorNode, Error> {
        let args = &call.args;
        if let Some(function) = WindowFunction::from_function(call.function) {
            return self.window(function, args, grid);
        }
        if let Some(function) = FloatFunction::from_function(call.function) {
            return self.map(Map::Float(function), &args[0], grid);
        }
        if let Some(date) = instant::date_part(call.function) {
            return self.date(date, args.first(), grid);
        }
        match call.function {
            Function::Clamp => {
                let (min, max) = (self.scalar(&args[1], grid)?, self.scalar(&args[2], grid)?);
                self.map(Map::Clamp { min, max }, &args[0], grid)
            }
            Function::ClampMin => {
                let min = self.scalar(&args[1], grid)?;
                self.map(Map::ClampMin(min), &args[0], grid)
            }
            Function::ClampMax => {
                let max = self.scalar(&args[1], grid)?;
                self.map(Map::ClampMax(max), &args[0], grid)
            }
            Function::Round => {
                let nearest =
                    args.get(1).map_or(Ok(ScalarNode::Constant(1.0)), |arg| self.scalar(arg, grid))?;
                self.map(Map::Round(nearest), &args[0], grid)
            }
            Function::Timestamp => match &args[0].unwrap_parens().node {
                Node::Vector(selector) => Ok(VectorNode::SampleTimes(self.instant_leaf(selector, grid)?)),
                _ => self.map(Map::StepTimes, &args[0], grid),
            },
            Function::VectorOf => Ok(VectorNode::OfScalar(Box::new(self.scalar(&args[0], grid)?))),
            Function::Absent => Ok(VectorNode::Absent(Absent {
                input: Box::new(self.vector(&args[0], grid)?),
                labels: absent_labels(&args[0]),
            })),
            Function::AbsentOverTime => {
                let (source, range_ms) = self.range_source(&args[0], grid)?;
                Ok(VectorNode::AbsentOver(AbsentOver { source, range_ms, labels: absent_labels(&args[0]) }))
            }
            Function::LabelReplace | Function::LabelJoin => {
                let edit = label_edit(call)?;
                Ok(VectorNode::Labels { edit, input: Box::new(self.vector(&args[0], grid)?) })
            }
            Function::Sort | Function::SortDesc | Function::SortByLabel | Function::SortByLabelDesc => {
                self.sort(call, grid)
            }
            Function::HistogramCount => self.map(Map::HistogramCount, &args[0], grid),
            Function::HistogramSum => self.map(Map::HistogramSum, &args[0], grid),
            Function::HistogramAvg => self.map(Map::HistogramAvg, &args[0], grid),
            Function::HistogramStddev => self.map(Map::HistogramStddev, &args[0], grid),
            Function::HistogramStdvar => self.map(Map::HistogramStdvar, &args[0], grid),
            Function::HistogramQuantile => Ok(VectorNode::HistogramQuantile {
                quantiles: vec![(self.scalar(&args[0], grid)?, args[0].span)],
                label: None,
                input: Box::new(self.vector(&args[1], grid)?),
                span: args[1].span,
            }),
            Function::HistogramQuantiles => self.quantiles(args, grid),
            Function::HistogramFraction => Ok(VectorNode::HistogramFraction {
                lower: self.scalar(&args[0], grid)?,
                upper: self.scalar(&args[1], grid)?,
                input: Box::new(self.vector(&args[2], grid)?),
                span: args[2].span,
            }),
            other => Err(not_evaluated(other)),
        }
    }

    fn map(&mut self, map: Map, input: &Expr, grid: &Grid) -> Result<VectorNode, Error> {
        Ok(VectorNode::Map { map, input: Box::new(self.vector(input, grid)?) })
    }

    fn date(&mut self, date: Date, of: Option<&Expr>, grid: &Grid) -> Result<VectorNode, Error> {
        let input = match of {
            Some(expr) => self.vector(expr, grid)?,
            None => VectorNode::OfScalar(Box::new(ScalarNode::Time)),
        };
        Ok(VectorNode::Map { map: Map::Date(date), input: Box::new(input) })
    }

    fn window(&mut self, function: WindowFunction, args: &[Expr], grid: &Grid) -> Result<VectorNode, Error> {
        let (matrix, scalars): (Vec<_>, Vec<_>) =
            args.iter().partition(|arg| arg.value_type() == ValueType::Matrix);
        let (source, range_ms) = self.range_source(matrix[0], grid)?;
        let params = scalars
            .into_iter()
            .map(|arg| Ok((self.scalar(arg, grid)?, arg.span)))
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(VectorNode::Window(Window { function, source, range_ms, params, span: matrix[0].span }))
    }

    fn sort(&mut self, call: &ast::Call, grid: &Grid) -> Result<VectorNode, Error> {
        let by_labels = |descending| -> Result<Sort, Error> {
            let names = call.args[1..]
                .iter()
                .map(|arg| {
                    label_name(string(arg), |name| format!("invalid label name in sort_by_label(): {name}"))
                })
                .collect::<Result<_, _>>()?;
            Ok(Sort::ByLabels { names, descending })
        };
        let sort = match call.function {
            Function::SortByLabel => by_labels(false)?,
            Function::SortByLabelDesc => by_labels(true)?,
            function => Sort::ByValue { descending: function == Function::SortDesc },
        };
        let span = call.args[0].span;
        Ok(VectorNode::Sort { sort, input: Box::new(self.vector(&call.args[0], grid)?), span })
    }

    fn quantiles(&mut self, args: &[Expr], grid: &Grid) -> Result<VectorNode, Error> {
        let invalid = |name: &StringLiteral| format!("invalid label name in histogram_quantiles(): {name}");
        let name = label_name(string(&args[1]), invalid)?;
        let quantiles = args[2..]
            .iter()
            .map(|arg| Ok((self.scalar(arg, grid)?, arg.span)))
            .collect::<Result<Vec<_>, Error>>()?;
        let label = Some(QuantileLabels { name });
        let input = Box::new(self.vector(&args[0], grid)?);
        Ok(VectorNode::HistogramQuantile { input, quantiles, label, span: args[0].span })
    }

    /// The source of a range vector and its length in milliseconds.
    fn range_source(&mut self, expr: &Expr, grid: &Grid) -> Result<(RangeSource, i64), Error> {
        match &expr.unwrap_parens().node {
            Node::Matrix(matrix) => {
                let range_ms = self.positive_ms(&matrix.range)?;
                let view = self.view(matrix.selector.at, &matrix.selector.offset)?;
                let (first, last) = view.span_ms(grid);
                let from = first.saturating_sub(range_ms).saturating_add(1);
                let select = self.select(&matrix.selector.matchers, from, last);
                Ok((RangeSource::Select(self.leaf(select, view)), range_ms))
            }
            Node::Subquery(subquery) => {
                let range_ms = self.positive_ms(&subquery.range)?;
                let view = self.view(subquery.at, &subquery.offset)?;
                let step_ms = match &subquery.step {
                    Some(step) => self.positive_ms(step)?,
                    None => self.settings.subquery_step_ms,
                };
                let (first, last) = view.span_ms(grid);
                let inner = Grid::of_subquery(first, last, range_ms, step_ms);
                let outside = std::mem::replace(&mut self.wants, Wants::Buckets);
                let input = self.vector(&subquery.expr, &inner).map(Box::new);
                self.wants = outside;
                let input = input?;
                Ok((RangeSource::Subquery(Subquery { input, view, step_ms }), range_ms))
            }
            _ => unreachable!("the parser's type check lets only range vectors stand here"),
        }
    }

    fn leaf(&self, select: usize, view: View) -> Leaf {
        Leaf { select, view, tells_resets: self.wants == Wants::Totals }
    }

    fn instant_leaf(&mut self, selector: &ast::VectorSelector, grid: &Grid) -> Result<Leaf, Error> {
        let view = self.view(selector.at, &selector.offset)?;
        let (first, last) = view.span_ms(grid);
        let from = first.saturating_sub(self.range.lookback_ms).saturating_add(1);
        let select = self.select(&selector.matchers, from, last);
        Ok(self.leaf(select, view))
    }

    fn view(&self, at: Option<At>, offset: &Length) -> Result<View, Error> {
        let offset_ms = offset.ms(self.range.step_ms, self.range.span_ms());
        let offset_ms = offset_ms.map_err(|e| Error::Invalid(e.to_string()))?;
        Ok(View { at_ms: at.map(|at| self.range.at_ms(at)), offset_ms })
    }

    fn positive_ms(&self, length: &Length) -> Result<i64, Error> {
        let ms = length.positive_ms(self.range.step_ms, self.range.span_ms());
        ms.map_err(|e| Error::Invalid(e.to_string()))
    }

    /// The number of a select that covers these series and this range, both ends included.
    fn select(&mut self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> usize {
        let to_ms = to_ms.max(from_ms);
        let touches = |s: &Select| *s.range_ms.start() <= to_ms && from_ms <= *s.range_ms.end();
        match self.selects.iter().position(|s| s.matchers == matchers && touches(s)) {
            Some(index) => {
                let range = &mut self.selects[index].range_ms;
                *range = from_ms.min(*range.start())..=to_ms.max(*range.end());
                index
            }
            None => {
                self.selects.push(Select {
                    matchers: matchers.to_vec(),
                    range_ms: from_ms..=to_ms,
                    shard: None,
                });
                self.selects.len() - 1
            }
        }
    }
}

/// Whether an expression has the same value at every step.
fn is_invariant(expr: &Expr) -> bool {
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

#[allow(clippy::cast_precision_loss, reason = "times are far below 2^53 ms")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Functions that look at the step's own time.
fn depends_on_step(function: Function, args: &[Expr]) -> bool {
    match function {
        Function::Time | Function::PredictLinear | Function::Timestamp => true,
        _ => args.is_empty() && instant::date_part(function).is_some(),
    }
}

fn string(expr: &Expr) -> &StringLiteral {
    match &expr.unwrap_parens().node {
        Node::String(literal) => literal,
        _ => unreachable!("the parser's type check lets only strings stand here"),
    }
}

/// Label names are any UTF-8 but the empty text.
fn label_name(literal: &StringLiteral, error: impl Fn(&StringLiteral) -> String) -> Result<Arc<str>, Error> {
    match literal.as_str() {
        Some(name) if !name.is_empty() => Ok(name.into()),
        _ => Err(Error::Execution(error(literal))),
    }
}

fn label_edit(call: &ast::Call) -> Result<LabelEdit, Error> {
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
fn absent_labels(expr: &Expr) -> Labels {
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

fn not_evaluated(function: Function) -> Error {
    Error::Invalid(format!("{}() isn't available", function.signature().name))
}
