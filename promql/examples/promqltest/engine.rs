//! The engine in this process, over series in memory.

use std::collections::BTreeMap;

use promql::{Inline, Level, Limits, QueryRange, Settings};
use tsdb::model::{Labels, Sample};
use tsdb::select::{Select, Series};

use crate::expect::{Answer, Number, Value};
use crate::load::Load;
use crate::run::{SYNTAX, Target};
use crate::script::When;

/// As scripts expect it: five minutes.
const LOOKBACK_MS: i64 = 300_000;

/// More memory than any case needs.
const QUERY_BYTES_MAX: usize = 1 << 30;

#[derive(Default)]
pub struct Engine {
    /// Samples by time; a later `load` may add to a series.
    samples: BTreeMap<Labels, BTreeMap<i64, Sample>>,
    /// The same, encoded; made when first asked for.
    series: Option<Vec<Series>>,
}

impl Target for Engine {
    fn clear(&mut self) -> Result<(), String> {
        *self = Self::default();
        Ok(())
    }

    fn load(&mut self, load: &Load) -> Result<(), String> {
        for (labels, samples) in &load.series {
            let by_time = self.samples.entry(labels.clone()).or_default();
            by_time.extend(samples.iter().map(|sample| (sample.timestamp_ms, sample.clone())));
        }
        self.series = None;
        Ok(())
    }

    fn ask(&mut self, query: &str, when: When) -> Result<Answer, String> {
        let expr = promql::parse_with(query, SYNTAX).map_err(|e| e.message)?;
        let range = match when {
            When::Instant(at_ms) => QueryRange::instant(at_ms, LOOKBACK_MS),
            When::Range { start_ms, end_ms, step_ms } => {
                QueryRange { start_ms, end_ms, step_ms, lookback_ms: LOOKBACK_MS }
            }
        };
        // As scripts expect it.
        let settings = Settings { delayed_name_removal: true, ..Settings::default() };
        let plan = promql::plan(&expr, &range, &settings).map_err(|e| e.to_string())?;
        let series = self.series.get_or_insert_with(|| {
            let encode = |(labels, samples): (&Labels, &BTreeMap<i64, Sample>)| {
                let samples: Vec<Sample> = samples.values().cloned().collect();
                Series::from_samples(labels.clone(), &samples)
            };
            self.samples.iter().map(encode).collect()
        });
        let inputs = plan.selects().iter().map(|select| find(series, select)).collect();
        let output =
            plan.evaluate(inputs, &Limits::bytes(QUERY_BYTES_MAX), &Inline).map_err(|e| e.to_string())?;
        // All of them, with their places in the query.
        let texts = |level| output.annotations.render(level, query, 0);
        let (warnings, infos) = (texts(Level::Warning), texts(Level::Info));
        Ok(Answer { value: value(output.value), warnings, infos })
    }
}

fn find(series: &[Series], select: &Select) -> Vec<Series> {
    let matches = |one: &&Series| select.matchers.iter().all(|m| m.matches(one.labels.value(m.name())));
    series.iter().filter(matches).cloned().collect()
}

fn value(value: promql::Value) -> Value {
    match value {
        promql::Value::Scalar(point) => Value::Scalar(point.value),
        promql::Value::String(point) => Value::String(point.value),
        promql::Value::Vector(samples) => Value::Vector(
            samples
                .into_iter()
                .map(|sample| {
                    let number = match sample.value {
                        promql::value::SampleValue::Float(value) => Number::Float(value),
                        promql::value::SampleValue::Histogram(h) => Number::Histogram((*h).clone()),
                    };
                    (sample.labels, number)
                })
                .collect(),
        ),
        promql::Value::Matrix(series) => Value::Matrix(
            series
                .into_iter()
                .map(|series| {
                    let floats = series.floats.iter().map(|p| (p.timestamp_ms, Number::Float(p.value)));
                    let histograms = series
                        .histograms
                        .iter()
                        .map(|p| (p.timestamp_ms, Number::Histogram((*p.value).clone())));
                    let mut points: Vec<_> = floats.chain(histograms).collect();
                    points.sort_by_key(|(timestamp_ms, _)| *timestamp_ms);
                    (series.labels, points)
                })
                .collect(),
        ),
    }
}
