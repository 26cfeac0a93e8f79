//! What a pipeline does to each row.

use std::sync::Arc;

use tsdb::model::{CounterReset, FloatHistogram};

use super::binary::{self, ElementOp};
use super::context::{Context, Scratch};
use super::leaf::{WindowOp, kept};
use super::number;
use super::row::{ABSENT, Cell, Row, is_absent};
use super::trace::Measure;
use crate::error::Result;
use crate::functions::histogram;
use crate::functions::instant::{self, FloatFunction};
use crate::functions::window::StepValues;
use crate::parse::Span;
use crate::plan::Date;
use crate::plan::grid::Grid;

/// A step of a pipeline.
pub(crate) enum Stage {
    /// A function over the windows of a subquery, whose steps are `inner`.
    Window {
        op: WindowOp,
        inner: Grid,
    },
    Map(MapOp),
    /// A vector's side of an operator with a scalar.
    Scalar {
        op: ElementOp,
        scalar: StepValues,
        scalar_on_left: bool,
        span: Span,
    },
    /// Nothing: here what has come so far is told.
    Measured(Arc<Measure>),
    /// One step's value at all of them.
    Repeat {
        steps: usize,
    },
}

/// A function of each sample, ready to run.
pub(crate) enum MapOp {
    Float(FloatFunction),
    Negate,
    Clamp { min: StepValues, max: StepValues },
    ClampMin(StepValues),
    ClampMax(StepValues),
    Round(StepValues),
    StepTimes(Grid),
    Date(Date),
    Histogram(fn(&FloatHistogram) -> f64),
}

impl Stage {
    /// The row that comes of `row`, or `None` when nothing is left of it.
    pub(crate) fn apply(
        &self,
        context: &Context<'_>,
        mut row: Row,
        scratch: &mut Scratch,
    ) -> Result<Option<Row>> {
        let row = match self {
            Self::Measured(measure) => {
                measure.row(&row);
                context.lap(scratch, Some(measure));
                row
            }
            Self::Window { op, inner } => window_over(op, inner, context, row, scratch),
            Self::Map(map) => {
                map.apply(&mut row);
                row
            }
            Self::Scalar { op, scalar, scalar_on_left, span } => {
                scalar_operator(*op, scalar, *scalar_on_left, *span, context, &mut row);
                row
            }
            Self::Repeat { steps } => repeat(&row, *steps),
        };
        Ok(kept(row, scratch))
    }
}

impl Stage {
    /// Bytes that it takes for a row in flight beside that row, at most.
    pub(crate) fn work_bytes(&self) -> usize {
        match self {
            // Times and values of the inner steps, and the outer row.
            Self::Window { op, inner } => inner.count * 16 + op.windows.grid.count * 8,
            Self::Repeat { steps } => steps * 8,
            Self::Map(_) | Self::Scalar { .. } | Self::Measured(_) => 0,
        }
    }

    /// Where it tells what has come so far.
    pub(crate) fn measure(&self) -> Option<&Arc<Measure>> {
        match self {
            Self::Measured(measure) => Some(measure),
            _ => None,
        }
    }
}

fn window_over(op: &WindowOp, inner: &Grid, context: &Context<'_>, row: Row, scratch: &mut Scratch) -> Row {
    // Whatever a subquery gives, its samples have no start times.
    scratch.clear_runs();
    for step in 0..row.values.len() {
        match row.cell(step) {
            Cell::Absent => {}
            Cell::Float(value) => {
                scratch.float_timestamps.push(inner.time_ms(step));
                scratch.float_values.push(value);
            }
            Cell::Histogram(histogram) => {
                scratch.histogram_timestamps.push(inner.time_ms(step));
                scratch.histogram_values.push(without_hint(histogram));
            }
        }
    }
    let mut outer = Row::absent(row.labels, op.windows.grid.count);
    outer.drop_name = row.drop_name;
    op.fill(context, outer, scratch)
}

/// A subquery's steps skip samples and repeat them, so hints about the sample before say nothing here.
fn without_hint(histogram: &Arc<FloatHistogram>) -> Arc<FloatHistogram> {
    match histogram.counter_reset {
        CounterReset::Gauge | CounterReset::Unknown => Arc::clone(histogram),
        CounterReset::Reset | CounterReset::NotReset => {
            Arc::new(FloatHistogram { counter_reset: CounterReset::Unknown, ..(**histogram).clone() })
        }
    }
}

fn repeat(row: &Row, steps: usize) -> Row {
    let mut repeated = Row::absent(row.labels.clone(), steps);
    repeated.drop_name = row.drop_name;
    match row.cell(0) {
        Cell::Absent => {}
        Cell::Float(value) => repeated.values.fill(value),
        Cell::Histogram(histogram) => repeated.histograms = vec![Some(Arc::clone(histogram)); steps],
    }
    repeated
}

impl MapOp {
    fn apply(&self, row: &mut Row) {
        row.drop_name = true;
        match self {
            Self::Float(FloatFunction(f)) => floats(row, |_, v| f(v)),
            Self::Negate => {
                for histogram in row.histograms.iter_mut().flatten() {
                    *histogram = Arc::new(histogram::scaled(histogram, -1.0));
                }
                each_float(row, |_, v| -v);
            }
            Self::Clamp { min, max } => floats(row, |step, v| clamp(v, min.at(step), max.at(step))),
            Self::ClampMin(min) => floats(row, |step, v| number::max(min.at(step), v)),
            Self::ClampMax(max) => floats(row, |step, v| number::min(max.at(step), v)),
            Self::Round(nearest) => floats(row, |step, v| instant::round(v, nearest.at(step))),
            Self::StepTimes(grid) => {
                for step in 0..row.values.len() {
                    if row.has(step) {
                        row.values[step] = grid.time_ms(step) as f64 / 1000.0;
                    }
                }
                row.drop_histograms();
            }
            Self::Date(date) => floats(row, |_, v| date.of(v)),
            Self::Histogram(of) => {
                row.values.fill(ABSENT);
                for (value, histogram) in row.values.iter_mut().zip(&row.histograms) {
                    if let Some(histogram) = histogram {
                        *value = of(histogram);
                    }
                }
                row.drop_histograms();
            }
        }
    }
}

/// Nothing is between bounds that are crossed.
fn clamp(value: f64, min: f64, max: f64) -> f64 {
    if max < min { ABSENT } else { number::max(min, number::min(max, value)) }
}

fn each_float(row: &mut Row, of: impl Fn(usize, f64) -> f64) {
    for (step, value) in row.values.iter_mut().enumerate() {
        if !is_absent(*value) {
            *value = of(step, *value);
        }
    }
}

fn floats(row: &mut Row, of: impl Fn(usize, f64) -> f64) {
    row.drop_histograms();
    each_float(row, of);
}

fn scalar_operator(
    op: ElementOp,
    scalar: &StepValues,
    scalar_on_left: bool,
    span: Span,
    context: &Context<'_>,
    row: &mut Row,
) {
    row.drop_name |= op.drops_name();
    if row.histograms.is_empty() && !op.op.is_trim() {
        binary::floats_with_scalar(op, &mut row.values, scalar, scalar_on_left);
        return;
    }
    let mut troubles = binary::Troubles::default();
    for step in 0..row.values.len() {
        let scalar = binary::Operand::Float(scalar.at(step));
        let result = match (row.cell(step), scalar_on_left) {
            (Cell::Absent, _) => continue,
            (Cell::Float(value), true) => {
                op.apply(scalar, binary::Operand::Float(value), true, &mut troubles)
            }
            (Cell::Float(value), false) => {
                op.apply(binary::Operand::Float(value), scalar, false, &mut troubles)
            }
            (Cell::Histogram(h), true) => {
                op.apply(scalar, binary::Operand::Histogram(h), true, &mut troubles)
            }
            (Cell::Histogram(h), false) => {
                op.apply(binary::Operand::Histogram(h), scalar, false, &mut troubles)
            }
        };
        binary::put(row, step, result);
    }
    troubles.tell(context, span);
}
