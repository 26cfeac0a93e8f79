//! Random questions over random data, and whether two answers are the same.

mod compare;
mod data;
mod expr;
mod extremes;
mod pattern;
mod random;

pub use compare::{EDGE_RARITY, difference, evened, is_close, is_same};
pub use data::{Kinds, data};
pub use expr::{Dialect, expression};
pub use extremes::extremes;
pub use pattern::{pattern, text};
pub use random::Random;

use promql::{Inline, Limits, QueryRange, SampleValue, Settings};
use tsdb::select::Select;

use crate::{Answer, Histogram, Series, Steps, Value};

/// More memory than any question needs.
const QUERY_BYTES_MAX: usize = 1 << 30;

/// The engine's answer over the same data.
///
/// # Errors
/// The engine's.
pub fn engine(query: &str, data: &[Series], steps: &Steps) -> Result<Answer, String> {
    let syntax = promql::Syntax { experimental: true };
    let expr = promql::parse_with(query, syntax).map_err(|e| e.to_string())?;
    let range = QueryRange {
        start_ms: steps.start_ms,
        end_ms: steps.end_ms,
        step_ms: steps.step_ms,
        lookback_ms: steps.lookback_ms,
    };
    let Steps { subquery_step_ms, delayed_name_removal, .. } = *steps;
    let settings = Settings { subquery_step_ms, delayed_name_removal };
    let plan = promql::plan(&expr, &range, &settings).map_err(|e| e.to_string())?;
    let inputs = plan.selects().iter().map(|select| find(data, select)).collect();
    let output =
        plan.evaluate(inputs, &Limits::bytes(QUERY_BYTES_MAX), &Inline).map_err(|e| e.to_string())?;
    let mut answer = Answer::new();
    match output.value {
        promql::Value::Scalar(point) => {
            let value = Value::Float(point.value);
            answer.entry(tsdb::model::Labels::default()).or_default().insert(point.timestamp_ms, value);
        }
        promql::Value::String(_) => {}
        promql::Value::Vector(samples) => {
            for sample in samples {
                let value = match sample.value {
                    SampleValue::Float(value) => Value::Float(value),
                    SampleValue::Histogram(h) => Value::Histogram(Histogram::from(&*h)),
                };
                answer.entry(sample.labels).or_default().insert(sample.timestamp_ms, value);
            }
        }
        promql::Value::Matrix(series) => {
            for one in series {
                let points = answer.entry(one.labels).or_default();
                points.extend(one.floats.iter().map(|p| (p.timestamp_ms, Value::Float(p.value))));
                let histogram = |h: &tsdb::model::FloatHistogram| Value::Histogram(Histogram::from(h));
                points.extend(one.histograms.iter().map(|p| (p.timestamp_ms, histogram(&p.value))));
            }
        }
    }
    Ok(answer)
}

/// What a store would give: series that match, and of them only chunks that overlap the range.
fn find(data: &[Series], select: &Select) -> Vec<tsdb::select::Series> {
    let matches = |series: &&Series| {
        select.matchers.iter().all(|matcher| matcher.matches(series.labels.value(matcher.name())))
    };
    let encode = |series: &Series| {
        let mut encoded = tsdb::select::Series::from_samples(series.labels.clone(), &series.samples);
        encoded.chunks.retain(|chunk| chunk.overlaps(&select.range_ms));
        encoded
    };
    data.iter().filter(matches).map(encode).filter(|series| !series.chunks.is_empty()).collect()
}
