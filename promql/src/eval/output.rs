//! From rows to what the caller gets: names dropped, equal labels found, series ordered.

use std::sync::Arc;

use tsdb::model::is_stale;

use super::Evaluator;
use super::context::Rows;
use super::labels::{self, drop_name};
use super::row::{Cell, Row};
use super::same;
use super::trace::Counted;
use crate::error::Result;
use crate::functions::window::StepValues;
use crate::plan::grid::{Grid, View};
use crate::plan::{Leaf, RangeSource};
use crate::value::{Point, Sample, SampleValue, Series, Value};

impl Evaluator<'_, '_> {
    /// The result of a scalar expression.
    pub(super) fn scalar_value(&self, values: &StepValues, grid: &Grid) -> Result<Value> {
        if self.context.range.is_instant() {
            return Ok(Value::Scalar(Point { timestamp_ms: grid.start_ms, value: values.at(0) }));
        }
        let _charge = self.context.budget.charge(grid.count * size_of::<Point<f64>>(), "the result")?;
        let floats =
            (0..grid.count).map(|step| Point { timestamp_ms: grid.time_ms(step), value: values.at(step) });
        Ok(Value::Matrix(vec![Series {
            labels: tsdb::model::Labels::default(),
            floats: floats.collect(),
            histograms: Vec::new(),
        }]))
    }

    /// The result of a vector expression.
    pub(super) fn vector_value(&self, mut rows: Rows<'_>, grid: &Grid) -> Result<Value> {
        for row in &mut rows.rows {
            drop_name(row);
        }
        same::unite(&mut rows)?;
        if self.context.range.is_instant() {
            let sample = |row: Row| {
                let value = match row.cell(0) {
                    Cell::Absent => return None,
                    Cell::Float(value) => SampleValue::Float(value),
                    Cell::Histogram(histogram) => SampleValue::Histogram(Arc::clone(histogram)),
                };
                Some(Sample { labels: row.labels, timestamp_ms: grid.start_ms, value })
            };
            return Ok(Value::Vector(rows.rows.into_iter().filter_map(sample).collect()));
        }
        let mut charge = self.context.budget.charge(0, "the result")?;
        let mut series = Vec::with_capacity(rows.rows.len());
        for row in rows.rows {
            self.context.limits.check()?;
            let one = points(&row, grid);
            charge.grow(one.size_bytes())?;
            series.push(one);
        }
        labels::sort_by_labels(&mut series, |one| &one.labels);
        Ok(Value::Matrix(series))
    }

    /// The samples of a range vector themselves.
    pub(super) fn matrix_value(&self, source: &RangeSource, range_ms: i64, grid: &Grid) -> Result<Value> {
        let mut series = match source {
            RangeSource::Select(leaf) => self.raw(leaf, range_ms, grid)?,
            RangeSource::Subquery(subquery) => {
                let inner = self.subquery_grid(&subquery.view, subquery.step_ms, range_ms, grid);
                let mut rows = self.rows(&subquery.input, &inner)?;
                for row in &mut rows.rows {
                    drop_name(row);
                }
                same::unite(&mut rows)?;
                let mut charge = self.context.budget.charge(0, "the result")?;
                let mut all = Vec::with_capacity(rows.rows.len());
                for row in rows.rows {
                    self.context.limits.check()?;
                    let one = points(&row, &inner);
                    charge.grow(one.size_bytes())?;
                    all.push(one);
                }
                all
            }
        };
        labels::sort_by_labels(&mut series, |one| &one.labels);
        Ok(Value::Matrix(series))
    }

    fn raw(&self, leaf: &Leaf, range_ms: i64, grid: &Grid) -> Result<Vec<Series>> {
        let end_ms = leaf.view.time_ms(grid.start_ms);
        let from_ms = end_ms.saturating_sub(range_ms).saturating_add(1);
        let mut scratch = self.context.scratch();
        let mut charge = self.context.budget.charge(0, "the result")?;
        let mut all = Vec::new();
        let measure = self.context.trace.as_ref().map(|trace| trace.of_leaf(leaf));
        for series in &self.context.inputs[leaf.select] {
            self.context.limits.check()?;
            scratch.columns.clear();
            series.decode(from_ms..=end_ms, &mut scratch.columns)?;
            self.context.count_samples(scratch.columns.len());
            self.context.count_at(Counted::Each, 0, scratch.columns.len());
            if let Some(measure) = &measure {
                measure.decoded(series, scratch.columns.len());
            }
            let columns = &scratch.columns;
            let mut one =
                Series { labels: series.labels.clone(), floats: Vec::new(), histograms: Vec::new() };
            for (i, (timestamp, value)) in columns.timestamps.iter().zip(&columns.values).enumerate() {
                let timestamp_ms = *timestamp;
                if is_stale(*value) {
                    continue;
                }
                match columns.histograms.get(i) {
                    Some(Some(histogram)) => {
                        one.histograms.push(Point { timestamp_ms, value: Arc::clone(histogram) });
                    }
                    _ => one.floats.push(Point { timestamp_ms, value: *value }),
                }
            }
            charge.grow(one.size_bytes())?;
            if !(one.floats.is_empty() && one.histograms.is_empty()) {
                all.push(one);
            }
        }
        self.context.give_back(scratch);
        Ok(all)
    }

    /// The steps of a subquery seen from `grid`.
    pub(super) fn subquery_grid(&self, view: &View, step_ms: i64, range_ms: i64, grid: &Grid) -> Grid {
        let (first, last) = view.span_ms(grid);
        Grid::of_subquery(first, last, range_ms, step_ms)
    }
}

fn points(row: &Row, grid: &Grid) -> Series {
    let present = row.values.iter().filter(|v| !super::row::is_absent(**v)).count();
    let mut series =
        Series { labels: row.labels.clone(), floats: Vec::with_capacity(present), histograms: Vec::new() };
    for step in 0..row.values.len() {
        let timestamp_ms = grid.time_ms(step);
        match row.cell(step) {
            Cell::Absent => {}
            Cell::Float(value) => series.floats.push(Point { timestamp_ms, value }),
            Cell::Histogram(histogram) => {
                series.histograms.push(Point { timestamp_ms, value: Arc::clone(histogram) });
            }
        }
    }
    series
}
