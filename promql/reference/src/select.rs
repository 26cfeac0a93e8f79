//! Selectors and subqueries: which samples an expression sees.

use promql::parse::ast::{At, Edges, Expr, Node, VectorSelector};
use promql::parse::length::Length;
use tsdb::model::{CounterReset, Labels, Sample};

use super::{Evaluator, Histogram, Point, Result, Series, Value, rates};

/// A sample of a range.
#[derive(Clone, Debug)]
pub struct Item {
    pub time_ms: i64,
    /// When its counter started; 0 = unknown.
    pub start_ms: i64,
    pub value: Value,
}

impl Item {
    fn of(sample: &Sample) -> Self {
        let value = match &sample.value {
            tsdb::model::Value::Float(value) => Value::Float(*value),
            tsdb::model::Value::Int(h) => Value::Histogram(Histogram::from(&h.to_float())),
            tsdb::model::Value::Histogram(h) => Value::Histogram(Histogram::from(&**h)),
        };
        Self { time_ms: sample.timestamp_ms, start_ms: sample.start_ms, value }
    }
}

/// A series over a range.
#[derive(Clone, Debug)]
pub struct Run {
    pub labels: Labels,
    pub drop_name: bool,
    /// Excluded.
    pub start_ms: i64,
    pub end_ms: i64,
    pub edges: Edges,
    /// By time; those of extended edges reach beyond the ends.
    pub items: Vec<Item>,
}

impl Evaluator<'_> {
    fn length_ms(&self, length: &Length) -> Result<i64> {
        length.ms(self.steps.step_ms, self.steps.end_ms - self.steps.start_ms).map_err(|e| e.to_string())
    }

    fn positive_ms(&self, length: &Length) -> Result<i64> {
        match self.length_ms(length)? {
            ms if ms > 0 => Ok(ms),
            ms => Err(format!("{ms} ms aren't a range")),
        }
    }

    /// The time that a modified expression looks at.
    pub fn seen_from(&self, time_ms: i64, at: Option<At>, offset: &Length) -> Result<i64> {
        let time_ms = match at {
            None => time_ms,
            Some(At::Time(at_ms)) => at_ms,
            Some(At::Start) => self.steps.start_ms,
            Some(At::End) => self.steps.end_ms,
        };
        Ok(time_ms - self.length_ms(offset)?)
    }

    pub fn matching(&self, selector: &VectorSelector) -> impl Iterator<Item = &Series> {
        self.data
            .iter()
            .filter(|series| selector.matchers.iter().all(|m| m.matches(series.labels.value(m.name()))))
    }

    /// The newest sample of a series at a time, unless it marks the series' end.
    pub fn newest<'s>(&self, series: &'s Series, time_ms: i64) -> Option<&'s Sample> {
        let seen =
            |s: &&Sample| time_ms - self.steps.lookback_ms < s.timestamp_ms && s.timestamp_ms <= time_ms;
        series.samples.iter().rfind(seen).filter(|sample| !sample.value.is_stale())
    }

    /// An instant selector.
    pub fn instant(&self, selector: &VectorSelector, time_ms: i64) -> Result<Vec<Point>> {
        let time_ms = self.seen_from(time_ms, selector.at, &selector.offset)?;
        let mut points = Vec::new();
        for series in self.matching(selector) {
            let value = if selector.edges == Edges::Smoothed {
                let reach = self.steps.lookback_ms;
                rates::smoothed(&items(series, time_ms - reach, time_ms + reach), time_ms)
            } else {
                self.newest(series, time_ms).map(|sample| Item::of(sample).value)
            };
            points.extend(value.map(|value| Point {
                labels: series.labels.clone(),
                drop_name: false,
                value,
            }));
        }
        Ok(points)
    }

    /// The samples that an instant selector picks, for functions of their times.
    pub fn picked(&self, selector: &VectorSelector, time_ms: i64) -> Result<Vec<(Labels, Sample)>> {
        let time_ms = self.seen_from(time_ms, selector.at, &selector.offset)?;
        let picked = self.matching(selector).filter_map(|series| {
            self.newest(series, time_ms).map(|sample| (series.labels.clone(), sample.clone()))
        });
        Ok(picked.collect())
    }

    /// A range vector.
    pub fn range(&self, expr: &Expr, time_ms: i64) -> Result<Vec<Run>> {
        match &expr.unwrap_parens().node {
            Node::Matrix(matrix) => {
                let selector = &matrix.selector;
                let end_ms = self.seen_from(time_ms, selector.at, &selector.offset)?;
                let start_ms = end_ms - self.positive_ms(&matrix.range)?;
                let reach = self.steps.lookback_ms;
                let (from_ms, to_ms) = match selector.edges {
                    Edges::Plain => (start_ms, end_ms),
                    Edges::Anchored => (start_ms - reach, end_ms),
                    Edges::Smoothed => (start_ms - reach, end_ms + reach),
                };
                let runs = self.matching(selector).map(|series| Run {
                    labels: series.labels.clone(),
                    drop_name: false,
                    start_ms,
                    end_ms,
                    edges: selector.edges,
                    items: items(series, from_ms, to_ms),
                });
                Ok(runs.filter(|run| !run.items.is_empty()).collect())
            }
            Node::Subquery(subquery) => {
                let end_ms = self.seen_from(time_ms, subquery.at, &subquery.offset)?;
                let start_ms = end_ms - self.positive_ms(&subquery.range)?;
                let step_ms = match &subquery.step {
                    Some(step) => self.positive_ms(step)?,
                    None => self.steps.subquery_step_ms,
                };
                let mut runs: Vec<Run> = Vec::new();
                let mut inner_ms = start_ms.div_euclid(step_ms) * step_ms;
                while inner_ms <= end_ms {
                    if inner_ms > start_ms {
                        for point in self.vector(&subquery.expr, inner_ms)? {
                            add(&mut runs, point, inner_ms, (start_ms, end_ms))?;
                        }
                    }
                    inner_ms += step_ms;
                }
                Ok(runs)
            }
            other => Err(format!("no range: {other:?}")),
        }
    }
}

fn add(runs: &mut Vec<Run>, point: Point, time_ms: i64, (start_ms, end_ms): (i64, i64)) -> Result<()> {
    let at = runs.iter().position(|run| run.labels == point.labels).unwrap_or_else(|| {
        let labels = point.labels.clone();
        runs.push(Run { labels, drop_name: false, start_ms, end_ms, edges: Edges::Plain, items: Vec::new() });
        runs.len() - 1
    });
    let run = &mut runs[at];
    if run.items.last().is_some_and(|last| last.time_ms == time_ms) {
        return Err("two series with the same labels".to_owned());
    }
    run.drop_name |= point.drop_name;
    let mut value = point.value;
    if let Value::Histogram(histogram) = &mut value
        && histogram.hint != CounterReset::Gauge
    {
        // Hints tell of the stored sample before, which a subquery's isn't.
        histogram.hint = CounterReset::Unknown;
    }
    run.items.push(Item { time_ms, start_ms: 0, value });
    Ok(())
}

/// Samples in `(from, to]`, without the marks of a series' end.
fn items(series: &Series, from_ms: i64, to_ms: i64) -> Vec<Item> {
    let inside = |s: &&Sample| from_ms < s.timestamp_ms && s.timestamp_ms <= to_ms && !s.value.is_stale();
    series.samples.iter().filter(inside).map(Item::of).collect()
}
