//! Evaluates plans.
//!
//! 1. Nodes that treat each series on its own become stages of a pipeline, which decodes, rolls up and hands on one
//!    series after another, in parallel by series ([`pipeline`]).
//! 2. Nodes that need several series at once (joins, aggregations, sorting) take a pipeline's rows, all at once or
//!    folded as they come, and are the source of the next pipeline.
//! 3. The last rows lose the names that they were to lose, are checked for equal labels, ordered and handed out.
//!
//! Memory is counted where it is allocated ([`limits`]); the caller's wish to end is looked at once a series.

mod absent;
mod aggregate;
mod binary;
mod context;
mod format;
mod histograms;
mod info;
mod join;
mod keys;
mod labels;
mod leaf;
mod limits;
pub(crate) mod notes;
pub(crate) mod number;
mod output;
mod pipeline;
pub(crate) mod row;
mod same;
mod shared;
mod smooth;
mod stage;
mod trace;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tsdb::select::Series;

pub(crate) use aggregate::columns as fold_columns;
use binary::ElementOp;
pub(crate) use binary::scalar_binary;
use context::{Context, Rows};
use histograms::Question;
pub(crate) use keys::{KeyIndex, KeySpec};
use leaf::{LeafOp, LeafSource, Wanted, WindowOp};
pub use limits::{Held, Lender, Limits};
pub use notes::Notes;
use pipeline::Pipeline;
use row::{Row, is_absent};
use stage::{MapOp, Stage};
use trace::Counted;
pub use trace::Telling;
pub(crate) use trace::{Measure, Trace};
pub use tsdb::workers::{Inline, Workers};

use crate::annotations::Level;
use crate::error::{Error, Result};
use crate::explain;
use crate::folded::{Folded, FoldedNode};
use crate::functions::histogram;
use crate::functions::window::{StepValues, WindowFunction, Windows};
use crate::parse::Span;
use crate::parse::ast::Edges;
use crate::plan::grid::{Grid, View};
use crate::plan::{
    Chain, Leaf, Link, Map, Plan, RangeSource, Root, ScalarLink, ScalarNode, Sort, VectorNode, Window,
    leaf_of,
};
use crate::value::{Output, Value};

impl Plan {
    /// Evaluates the plan over `inputs`: for each of [`Plan::selects`] its series, by labels.
    ///
    /// # Errors
    /// [`Error::Execution`] where the data makes the query ambiguous, [`Error::Limit`] where it is too large,
    /// [`Error::Cancelled`] when the caller says so, [`Error::Storage`] for chunks that can't be decoded.
    ///
    /// # Panics
    /// When there are fewer inputs than selects.
    #[allow(clippy::needless_pass_by_value, reason = "the evaluation ends the inputs' use")]
    pub fn evaluate(
        &self,
        inputs: Vec<Vec<Series>>,
        limits: &Limits,
        workers: &dyn Workers,
    ) -> Result<Output> {
        self.evaluate_telling(inputs, limits, workers, Telling::default())
    }

    /// Evaluates the plan as [`Plan::evaluate`] does, and tells more of it: [`Output::per_step`], [`Output::explained`].
    ///
    /// # Errors
    /// As [`Plan::evaluate`].
    ///
    /// # Panics
    /// When there are fewer inputs than selects.
    pub fn evaluate_telling(
        &self,
        inputs: Vec<Vec<Series>>,
        limits: &Limits,
        workers: &dyn Workers,
        telling: Telling<'_>,
    ) -> Result<Output> {
        self.evaluate_with(inputs, Vec::new(), limits, workers, telling)
    }

    /// Evaluates the plan as [`Plan::evaluate_telling`] does, over `inputs` and over the series of which others have
    /// `folded` what this plan's aggregations need ([`Plan::fold`]). No series may be in two of them.
    ///
    /// # Errors
    /// As [`Plan::evaluate`].
    ///
    /// # Panics
    /// When there are fewer inputs than selects, or a part isn't one that [`Plan::accepts`].
    #[allow(clippy::needless_pass_by_value, reason = "the evaluation ends the inputs' use")]
    pub fn evaluate_with(
        &self,
        inputs: Vec<Vec<Series>>,
        folded: Vec<Folded>,
        limits: &Limits,
        workers: &dyn Workers,
        telling: Telling<'_>,
    ) -> Result<Output> {
        assert_eq!(inputs.len(), self.selects().len(), "each select has its input");
        let mut context = Context::new(&inputs, self, limits, workers, telling);
        let elsewhere = context.put_folded(self, folded);
        let value = Evaluator::new(&context).root(self.root())?;
        let held = context.budget.hold(value.size_bytes())?;
        let mut stats = context.stats();
        stats.series += elsewhere.series;
        stats.samples += elsewhere.samples;
        Ok(Output {
            value,
            annotations: context.take_annotations(),
            stats,
            per_step: context.take_per_step(),
            explained: context.trace.as_ref().map(|trace| explain::explained(self, trace)),
            held,
        })
    }

    /// Folds what the aggregations that [`Plan::folds`] counts need of `inputs`: for each of [`Plan::selects`] some of its
    /// series, by labels.
    ///
    /// # Errors
    /// As [`Plan::evaluate`].
    ///
    /// # Panics
    /// When there are fewer inputs than selects.
    #[allow(clippy::needless_pass_by_value, reason = "the evaluation ends the inputs' use")]
    pub fn fold(&self, inputs: Vec<Vec<Series>>, limits: &Limits, workers: &dyn Workers) -> Result<Folded> {
        assert_eq!(inputs.len(), self.selects().len(), "each select has its input");
        let telling = Telling { per_step: true, ..Telling::default() };
        let context = Context::new(&inputs, self, limits, workers, telling);
        let evaluator = Evaluator::new(&context);
        let grid = self.range().grid();
        evaluator.check_steps(&grid)?;
        let nodes = self.fold_nodes().into_iter().map(|node| {
            let leaf = leaf_of(&node.input, self.shared()).expect("what is foldable has a leaf");
            let series = inputs[leaf.select].len() as u64;
            Ok(FoldedNode { series, ..evaluator.fold_part(node, &grid)? })
        });
        let nodes = nodes.collect::<Result<_>>()?;
        let (annotations, per_step) = (context.take_annotations(), context.take_per_step());
        Ok(Folded { nodes, annotations, stats: context.stats(), per_step })
    }
}

/// Walks the plan's tree.
pub(crate) struct Evaluator<'c, 'a> {
    context: &'c Context<'a>,
    /// Rows of shared expressions that will be asked for again, and how often they have been.
    kept: RefCell<BTreeMap<usize, (Rows<'c>, usize)>>,
    /// For which steps the samples count that are looked at now.
    counted: Cell<Counted>,
}

impl<'c, 'a> Evaluator<'c, 'a> {
    fn new(context: &'c Context<'a>) -> Self {
        Self { context, kept: RefCell::new(BTreeMap::new()), counted: Cell::new(Counted::Each) }
    }

    fn root(&self, root: &Root) -> Result<Value> {
        let grid = self.context.range.grid();
        self.check_steps(&grid)?;
        match root {
            Root::Scalar(scalar) => {
                let values = self.scalar(scalar, &grid)?;
                self.scalar_value(&values, &grid)
            }
            Root::Vector(vector) => {
                let rows = self.rows(vector, &grid)?;
                self.vector_value(rows, &grid)
            }
            Root::Matrix { source, range_ms } => self.matrix_value(source, *range_ms, &grid),
            Root::String(text) => {
                Ok(Value::String(crate::value::Point { timestamp_ms: grid.start_ms, value: text.clone() }))
            }
        }
    }

    /// Refuses grids of which not even one row would fit the budget.
    fn check_steps(&self, grid: &Grid) -> Result<()> {
        let bytes = grid.count.saturating_mul(size_of::<f64>());
        if bytes > self.context.limits.bytes_max {
            return Err(Error::Limit(format!(
                "{} steps don't fit into the query's limit of {} bytes (query.max_memory): use a longer step or a shorter range",
                grid.count, self.context.limits.bytes_max
            )));
        }
        Ok(())
    }

    fn scalar(&self, node: &ScalarNode, grid: &Grid) -> Result<StepValues> {
        Ok(match node {
            ScalarNode::Constant(value) => StepValues::Constant(*value),
            ScalarNode::Time => {
                StepValues::Each((0..grid.count).map(|step| grid.time_ms(step) as f64 / 1000.0).collect())
            }
            ScalarNode::OfVector(vector) => {
                let rows = self.rows(vector, grid)?;
                StepValues::Each(absent::only_values(&rows.rows, grid.count))
            }
            ScalarNode::Negate(operand) => map_steps(self.scalar(operand, grid)?, |v| -v),
            ScalarNode::Chain { first, links } => {
                let mut before = self.scalar(first, grid)?;
                for link in links {
                    self.context.limits.check()?;
                    let other = self.scalar(&link.other, grid)?;
                    before = combined(link, before, &other, grid.count);
                }
                before
            }
            ScalarNode::Once(inner) => {
                let of_once = self.counting(self.counted.get().repeated(grid.count), || {
                    self.scalar(inner, &Grid::single(grid.start_ms))
                });
                StepValues::Constant(of_once?.at(0))
            }
        })
    }

    /// Samples that `work` looks at count as `counted` says.
    #[inline(always)]
    fn counting<T>(&self, counted: Counted, work: impl FnOnce() -> T) -> T {
        let outside = self.counted.replace(counted);
        let done = work();
        self.counted.set(outside);
        done
    }

    /// All rows of a node.
    fn rows(&self, node: &VectorNode, grid: &Grid) -> Result<Rows<'c>> {
        if let Some(trace) = &self.context.trace {
            trace.enter(node);
        }
        let rows = self.rows_of(node, grid);
        if let Some(trace) = &self.context.trace {
            trace.leave(node, rows.as_ref().map_or(&[], |rows| &rows.rows));
        }
        rows
    }

    // Inlined, as `pipeline_of` is, and without what only some nodes need: each level of a tree takes one small frame of
    // the stack.
    #[inline(always)]
    fn rows_of(&self, node: &VectorNode, grid: &Grid) -> Result<Rows<'c>> {
        match node {
            VectorNode::Nothing => self.context.rows(Vec::new()),
            VectorNode::OfScalar(scalar) => self.of_scalar(scalar, grid),
            VectorNode::Aggregate(node) => self.aggregate(node, grid),
            VectorNode::Labels { edit, input } => {
                let mut rows = self.rows(input, grid)?;
                labels::edit(edit, &mut rows)?;
                Ok(rows)
            }
            VectorNode::Absent(node) => self.absent(node, grid),
            VectorNode::AbsentOver(node) => self.absent_over(node, grid),
            VectorNode::Sort { sort, input, span } => self.sort(sort, input, *span, grid),
            VectorNode::HistogramQuantile { input, span, .. }
            | VectorNode::HistogramFraction { input, span, .. } => {
                let question = self.histogram_question(node, grid)?;
                histograms::evaluate(self.context, &question, self.rows(input, grid)?, *span)
            }
            VectorNode::Info(node) => self.info(node, grid),
            VectorNode::Shared(number) => self.shared(*number, grid),
            VectorNode::Select(_)
            | VectorNode::SampleTimes(_)
            | VectorNode::StartTimes(_)
            | VectorNode::Window(_)
            | VectorNode::Map { .. }
            | VectorNode::Chain(_)
            | VectorNode::Once(_) => self.pipeline(node, grid)?.collect(self.context),
        }
    }

    fn of_scalar(&self, scalar: &ScalarNode, grid: &Grid) -> Result<Rows<'c>> {
        let mut row = Row::absent(tsdb::model::Labels::default(), grid.count);
        match self.scalar(scalar, grid)? {
            StepValues::Constant(value) => row.values.fill(value),
            StepValues::Each(values) => row.values = values,
        }
        self.context.rows(vec![row])
    }

    /// What a node asks of histograms.
    fn histogram_question(&self, node: &VectorNode, grid: &Grid) -> Result<Question> {
        Ok(match node {
            VectorNode::HistogramQuantile { quantiles, label, .. } => {
                let mut values = Vec::with_capacity(quantiles.len());
                for (quantile, span) in quantiles {
                    let steps = self.scalar(quantile, grid)?;
                    self.warn_of_quantiles(&steps, *span);
                    values.push(steps);
                }
                Question::Quantiles {
                    quantiles: values,
                    label: label.as_ref().map(|label| label.name.clone()),
                }
            }
            VectorNode::HistogramFraction { lower, upper, .. } => {
                Question::Fraction { lower: self.scalar(lower, grid)?, upper: self.scalar(upper, grid)? }
            }
            _ => unreachable!("only nodes over histograms ask"),
        })
    }

    /// A node as a pipeline, whose breaking parts have been evaluated.
    fn pipeline(&self, node: &VectorNode, grid: &Grid) -> Result<Pipeline<'c>> {
        let pipeline = self.pipeline_of(node, grid)?;
        Ok(match &self.context.trace {
            Some(trace) if trace::is_stage(node) => pipeline.then(Stage::Measured(trace.of_node(node))),
            _ => pipeline,
        })
    }

    #[inline(always)]
    fn pipeline_of(&self, node: &VectorNode, grid: &Grid) -> Result<Pipeline<'c>> {
        match node {
            VectorNode::Select(leaf) => Ok(self.instant(leaf, Wanted::Samples, grid)),
            VectorNode::SampleTimes(leaf) => {
                self.instant(leaf, Wanted::Times, grid).without_names(self.context, false)
            }
            VectorNode::StartTimes(leaf) => {
                self.instant(leaf, Wanted::StartTimes, grid).without_names(self.context, false)
            }
            VectorNode::Window(window) => self.window(window, grid),
            VectorNode::Map { map, input } => {
                let stage = Stage::Map(self.map(map, grid)?);
                self.pipeline(input, grid)?.then(stage).without_names(self.context, false)
            }
            VectorNode::Chain(chain) => self.chain(chain, grid),
            VectorNode::Once(inner) => {
                let pipeline = self.counting(self.counted.get().repeated(grid.count), || {
                    self.pipeline(inner, &Grid::single(grid.start_ms))
                })?;
                Ok(pipeline.then(Stage::Repeat { steps: grid.count }))
            }
            VectorNode::Shared(number) if !self.is_kept(*number, grid) => {
                self.pipeline(&self.context.shared[*number].node, grid)
            }
            _ => Ok(Pipeline::of_rows(self.rows(node, grid)?)),
        }
    }

    /// Operators with scalars become stages; those with vectors need all rows of what came before.
    fn chain(&self, chain: &Chain, grid: &Grid) -> Result<Pipeline<'c>> {
        let mut pipeline = self.pipeline(&chain.first, grid)?;
        for link in &chain.links {
            self.context.limits.check()?;
            pipeline = match link {
                Link::Scalar(node) => {
                    let op = ElementOp { op: node.op, return_bool: node.return_bool };
                    let mut pipeline = pipeline.then(Stage::Scalar {
                        op,
                        scalar: self.scalar(&node.scalar, grid)?,
                        scalar_on_left: node.scalar_on_left,
                        span: node.span,
                    });
                    if op.drops_name() {
                        pipeline = pipeline.without_names(self.context, false)?;
                    }
                    match &self.context.trace {
                        Some(trace) => pipeline.then(Stage::Measured(trace.of_link(link))),
                        None => pipeline,
                    }
                }
                Link::Join(_) | Link::Set(_) => Pipeline::of_rows(self.meeting(link, pipeline, grid)?),
            };
        }
        Ok(pipeline)
    }

    /// An operator between vectors.
    fn meeting(&self, link: &Link, before: Pipeline<'c>, grid: &Grid) -> Result<Rows<'c>> {
        if let Some(trace) = &self.context.trace {
            trace.enter_link(link);
        }
        let rows = before.collect(self.context).and_then(|before| match link {
            Link::Join(node) => join::join(self.context, node, before, self.rows(&node.other, grid)?),
            Link::Set(node) => join::combine(self.context, node, before, |other| self.rows(other, grid)),
            Link::Scalar(_) => unreachable!("scalars meet no rows"),
        });
        if let Some(trace) = &self.context.trace {
            trace.leave_with(rows.as_ref().map_or(&[], |rows| &rows.rows));
        }
        rows
    }

    fn instant(&self, leaf: &Leaf, wanted: Wanted, grid: &Grid) -> Pipeline<'c> {
        let lookback_ms = self.context.range.lookback_ms;
        let op = if leaf.edges == Edges::Smoothed && wanted == Wanted::Samples {
            LeafOp::Smoothed { grid: *grid, view: leaf.view, lookback_ms, span: leaf.span }
        } else {
            LeafOp::Instant { grid: *grid, view: leaf.view, lookback_ms, wanted }
        };
        self.source(leaf, op)
    }

    fn source(&self, leaf: &Leaf, op: LeafOp) -> Pipeline<'c> {
        let series = &self.context.inputs[leaf.select];
        let measure = self.context.trace.as_ref().map(|trace| trace.of_leaf(leaf));
        let leaf = LeafSource { op, tells_resets: leaf.tells_resets, counted: self.counted.get(), measure };
        Pipeline::of_series(series, leaf)
    }

    fn window(&self, window: &Window, grid: &Grid) -> Result<Pipeline<'c>> {
        let mut params = Vec::with_capacity(window.params.len());
        for (param, _) in &window.params {
            params.push(self.scalar(param, grid)?);
        }
        let op = |view, edges| WindowOp {
            function: window.function,
            windows: Windows { edges, ..self.windows(*grid, view, window.range_ms) },
            params: params.clone(),
            span: window.span,
            counted: self.counted.get(),
        };
        let pipeline = match &window.source {
            RangeSource::Select(leaf) => self.source(leaf, LeafOp::Window(op(leaf.view, leaf.edges))),
            RangeSource::Subquery(subquery) => {
                let inner = self.subquery_grid(&subquery.view, subquery.step_ms, window.range_ms, grid);
                self.check_steps(&inner)?;
                let stage = Stage::Window { op: op(subquery.view, Edges::Plain), inner };
                self.of_subquery(|| self.pipeline(&subquery.input, &inner))?.then(stage)
            }
        };
        if !pipeline.source.is_empty() {
            self.check_window_params(window, &params)?;
        }
        // As in Prometheus, a function over ranges gives no two series of the same labels, not even at different steps.
        if window.function.keeps_name() { Ok(pipeline) } else { pipeline.without_names(self.context, true) }
    }

    /// A subquery's samples count once: as those of its windows.
    pub(super) fn of_subquery<T>(&self, work: impl FnOnce() -> T) -> T {
        self.counting(Counted::Nowhere, work)
    }

    pub(super) fn windows(&self, grid: Grid, view: View, range_ms: i64) -> Windows {
        Windows { grid, view, range_ms, edges: Edges::Plain, lookback_ms: self.context.range.lookback_ms }
    }

    fn check_window_params(&self, window: &Window, params: &[StepValues]) -> Result<()> {
        match window.function {
            WindowFunction::Quantile => self.warn_of_quantiles(&params[0], window.params[0].1),
            WindowFunction::Smoothing => {
                for (values, name, short) in [(&params[0], "smoothing", "sf"), (&params[1], "trend", "tf")] {
                    if let Some(wrong) = values.iter().find(|v| !(*v > 0.0 && *v < 1.0)) {
                        return Err(Error::Execution(format!(
                            "invalid {name} factor. Expected: 0 < {short} < 1, got: {wrong:.6}"
                        )));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn map(&self, map: &Map, grid: &Grid) -> Result<MapOp> {
        Ok(match map {
            Map::Float { of, .. } => MapOp::Float(*of),
            Map::Negate => MapOp::Negate,
            Map::Clamp { min, max } => {
                MapOp::Clamp { min: self.scalar(min, grid)?, max: self.scalar(max, grid)? }
            }
            Map::ClampMin(min) => MapOp::ClampMin(self.scalar(min, grid)?),
            Map::ClampMax(max) => MapOp::ClampMax(self.scalar(max, grid)?),
            Map::Round(nearest) => MapOp::Round(self.scalar(nearest, grid)?),
            Map::StepTimes => MapOp::StepTimes(*grid),
            Map::Date(date) => MapOp::Date(*date),
            Map::HistogramCount => MapOp::Histogram(|h| h.count),
            Map::HistogramSum => MapOp::Histogram(|h| h.sum),
            Map::HistogramAvg => MapOp::Histogram(histogram::average),
            Map::HistogramStddev => MapOp::Histogram(histogram::deviation),
            Map::HistogramStdvar => MapOp::Histogram(histogram::variance),
        })
    }

    fn sort(&self, sort: &Sort, input: &VectorNode, span: Span, grid: &Grid) -> Result<Rows<'c>> {
        let mut rows = self.rows(input, grid)?;
        if self.context.range.is_instant() {
            labels::sort(sort, &mut rows.rows);
        } else {
            let text = "sort is ineffective for range queries since results are always ordered by labels";
            self.context.annotate(Level::Warning, text, span);
            if let Sort::ByValue { .. } = sort {
                rows.rows.iter_mut().for_each(Row::drop_histograms);
                rows.rows.retain(|row| row.values.iter().any(|v| !is_absent(*v)));
            }
        }
        Ok(rows)
    }
}

/// An operator of a chain of scalars.
fn combined(link: &ScalarLink, before: StepValues, other: &StepValues, steps: usize) -> StepValues {
    let of = |before, other| {
        let (left, right) = if link.other_on_left { (other, before) } else { (before, other) };
        scalar_binary(link.op, left, right)
    };
    match (before, other) {
        (StepValues::Constant(before), StepValues::Constant(other)) => {
            StepValues::Constant(of(before, *other))
        }
        (StepValues::Constant(before), other) => {
            StepValues::Each((0..steps).map(|step| of(before, other.at(step))).collect())
        }
        (StepValues::Each(mut values), other) => {
            values.iter_mut().enumerate().for_each(|(step, value)| *value = of(*value, other.at(step)));
            StepValues::Each(values)
        }
    }
}

fn map_steps(values: StepValues, of: impl Fn(f64) -> f64) -> StepValues {
    match values {
        StepValues::Constant(value) => StepValues::Constant(of(value)),
        StepValues::Each(values) => StepValues::Each(values.into_iter().map(of).collect()),
    }
}

#[cfg(test)]
mod tests;
