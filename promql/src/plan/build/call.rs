//! Functions.

use super::labels::{absent_labels, label_edit, label_name, string};
use super::{Builder, Wants, not_evaluated};
use crate::error::Error;
use crate::functions::Function;
use crate::functions::instant::{self, FloatFunction};
use crate::functions::window::WindowFunction;
use crate::parse::Span;
use crate::parse::ast::{self, Edges, Expr, Node, ValueType};
use crate::parse::string::StringLiteral;
use crate::plan::Date;
use crate::plan::grid::Grid;
use crate::plan::node::{Absent, AbsentOver, Map, QuantileLabels, ScalarNode, Sort, VectorNode, Window};

impl Builder<'_> {
    pub(super) fn call(&mut self, call: &ast::Call, span: Span, grid: &Grid) -> Result<VectorNode, Error> {
        let outside = self.wants;
        self.wants = match (outside, call.function) {
            (Wants::Buckets, _)
            | (_, Function::HistogramQuantile | Function::HistogramQuantiles | Function::HistogramFraction) => {
                Wants::Buckets
            }
            (_, Function::HistogramCount | Function::HistogramSum | Function::HistogramAvg) => Wants::Totals,
            (outside, _) => outside,
        };
        let node = self.call_inside(call, span, grid);
        self.wants = outside;
        node
    }

    fn call_inside(&mut self, call: &ast::Call, span: Span, grid: &Grid) -> Result<VectorNode, Error> {
        let args = &call.args;
        if let Some(function) = WindowFunction::from_function(call.function) {
            args.iter().try_for_each(|arg| refuse_edges(call.function, arg))?;
            return self.window(function, args, grid);
        }
        if let Some(of) = FloatFunction::from_function(call.function) {
            return self.map(Map::Float { function: call.function, of }, &args[0], grid);
        }
        if let Some(date) = instant::date_part(call.function) {
            return self.date(date, args.first(), grid);
        }
        self.other_call(call, span, grid)
    }

    /// Functions of their own kind; apart, so that the frames of those above stay small however deep they are nested.
    fn other_call(&mut self, call: &ast::Call, span: Span, grid: &Grid) -> Result<VectorNode, Error> {
        let args = &call.args;
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
                Node::Vector(selector) => {
                    Ok(VectorNode::SampleTimes(self.instant_leaf(selector, args[0].span, grid)?))
                }
                _ => self.map(Map::StepTimes, &args[0], grid),
            },
            Function::StartTimestamp => match &args[0].unwrap_parens().node {
                Node::Vector(selector) => {
                    Ok(VectorNode::StartTimes(self.instant_leaf(selector, args[0].span, grid)?))
                }
                // An expression's samples have no start times. Its operands are planned all the same, to be checked.
                _ => self.vector(&args[0], grid).map(|_| VectorNode::Nothing),
            },
            Function::VectorOf => Ok(VectorNode::OfScalar(Box::new(self.scalar(&args[0], grid)?))),
            Function::Absent => Ok(VectorNode::Absent(Absent {
                input: Box::new(self.vector(&args[0], grid)?),
                labels: absent_labels(&args[0]),
            })),
            Function::AbsentOverTime => {
                refuse_edges(call.function, &args[0])?;
                let (source, range_ms) = self.range_source(&args[0], grid)?;
                Ok(VectorNode::AbsentOver(AbsentOver { source, range_ms, labels: absent_labels(&args[0]) }))
            }
            Function::LabelReplace | Function::LabelJoin => {
                let edit = label_edit(call)?;
                Ok(VectorNode::Labels { edit, input: Box::new(self.vector(&args[0], grid)?) })
            }
            Function::Sort | Function::SortDesc | Function::SortByLabel | Function::SortByLabelDesc => {
                self.sort(call, span, grid)
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
            Function::Info => self.info(args, grid),
            other => Err(not_evaluated(other)),
        }
    }

    pub(super) fn map(&mut self, map: Map, input: &Expr, grid: &Grid) -> Result<VectorNode, Error> {
        Ok(VectorNode::Map { map, input: Box::new(self.vector(input, grid)?) })
    }

    pub(super) fn date(&mut self, date: Date, of: Option<&Expr>, grid: &Grid) -> Result<VectorNode, Error> {
        let input = match of {
            Some(expr) => self.vector(expr, grid)?,
            None => VectorNode::OfScalar(Box::new(ScalarNode::Time)),
        };
        Ok(VectorNode::Map { map: Map::Date(date), input: Box::new(input) })
    }

    pub(super) fn window(
        &mut self,
        function: WindowFunction,
        args: &[Expr],
        grid: &Grid,
    ) -> Result<VectorNode, Error> {
        let (matrix, scalars): (Vec<_>, Vec<_>) =
            args.iter().partition(|arg| arg.value_type() == ValueType::Matrix);
        let (source, range_ms) = self.range_source(matrix[0], grid)?;
        let params = scalars
            .into_iter()
            .map(|arg| Ok((self.scalar(arg, grid)?, arg.span)))
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(VectorNode::Window(Window { function, source, range_ms, params, span: matrix[0].span }))
    }

    fn sort(&mut self, call: &ast::Call, span: Span, grid: &Grid) -> Result<VectorNode, Error> {
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
        Ok(VectorNode::Sort { sort, input: Box::new(self.vector(&call.args[0], grid)?), span })
    }

    pub(super) fn quantiles(&mut self, args: &[Expr], grid: &Grid) -> Result<VectorNode, Error> {
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
}

/// Functions for which `anchored` and `smoothed` mean something, by their names.
fn fitting(edges: Edges) -> &'static [Function] {
    use Function::{Changes, Delta, Increase, Rate, Resets};
    match edges {
        Edges::Plain => Function::ALL,
        Edges::Anchored => &[Changes, Delta, Increase, Rate, Resets],
        Edges::Smoothed => &[Delta, Increase, Rate],
    }
}

fn refuse_edges(function: Function, arg: &Expr) -> Result<(), Error> {
    let Node::Matrix(matrix) = &arg.unwrap_parens().node else { return Ok(()) };
    let edges = matrix.selector.edges;
    if fitting(edges).contains(&function) {
        return Ok(());
    }
    Err(Error::Execution(format!("{} - not with {}", only_with(edges), function.signature().name)))
}

/// What `anchored` and `smoothed` can be used with.
pub(super) fn only_with(edges: Edges) -> String {
    let names: Vec<&str> = fitting(edges).iter().map(|function| function.signature().name).collect();
    format!("{} modifier can only be used with: {}", edges.keyword(), names.join(", "))
}
