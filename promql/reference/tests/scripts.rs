//! The reference against the scripts that the engine passes: Prometheus's, where they are at hand, and our own. Values
//! and whether there is an error are compared, not words and annotations.

#![allow(dead_code, reason = "what only a server needs of the runner isn't used here")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../examples/promqltest/expect.rs"]
mod expect;
#[path = "../../examples/promqltest/histogram.rs"]
mod histogram;
#[path = "../../examples/promqltest/load.rs"]
mod load;
#[path = "../../examples/promqltest/nhcb.rs"]
mod nhcb;
#[path = "../../examples/promqltest/run.rs"]
mod run;
#[path = "../../examples/promqltest/scan.rs"]
mod scan;
#[path = "../../examples/promqltest/script.rs"]
mod script;
#[path = "../../examples/promqltest/values.rs"]
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use expect::{Answer, Number, Pattern, Value};
use promql::parse::ast::ValueType;
use reference::{Series, Steps};
use script::{Action, When};
use tsdb::model::{FloatHistogram, Labels, Sample};

#[derive(Default)]
struct Naive {
    samples: BTreeMap<Labels, BTreeMap<i64, Sample>>,
}

impl run::Target for Naive {
    fn clear(&mut self) -> Result<(), String> {
        self.samples.clear();
        Ok(())
    }

    fn load(&mut self, load: &load::Load) -> Result<(), String> {
        for (labels, samples) in &load.series {
            let by_time = self.samples.entry(labels.clone()).or_default();
            by_time.extend(samples.iter().map(|sample| (sample.timestamp_ms, sample.clone())));
        }
        Ok(())
    }

    fn ask(&mut self, query: &str, when: When) -> Result<Answer, String> {
        let expr = promql::parse_with(query, run::SYNTAX).map_err(|e| e.message)?;
        let (start_ms, end_ms, step_ms) = match when {
            When::Instant(at_ms) => (at_ms, at_ms, 0),
            When::Range { start_ms, end_ms, step_ms } => (start_ms, end_ms, step_ms),
        };
        let steps = Steps { end_ms, step_ms, delayed_name_removal: true, ..Steps::instant(start_ms) };
        let data: Vec<Series> = self
            .samples
            .iter()
            .map(|(labels, samples)| Series {
                labels: labels.clone(),
                samples: samples.values().cloned().collect(),
            })
            .collect();
        if expr.value_type() == ValueType::String {
            return Err("texts aren't evaluated".to_owned());
        }
        let answer = reference::evaluate(&expr, &data, &steps)?;
        let number = |value: reference::Value| match value {
            reference::Value::Float(value) => Number::Float(value),
            reference::Value::Histogram(h) => Number::Histogram(FloatHistogram::from(&h)),
        };
        let is_instant = matches!(when, When::Instant(_));
        let value = match expr.value_type() {
            ValueType::Scalar if is_instant => {
                let Some(reference::Value::Float(value)) = answer[&Labels::default()].get(&start_ms) else {
                    return Err("a scalar is a float".to_owned());
                };
                Value::Scalar(*value)
            }
            ValueType::Vector if is_instant => Value::Vector(
                answer
                    .into_iter()
                    .flat_map(|(labels, points)| {
                        points.into_values().map(move |value| (labels.clone(), number(value)))
                    })
                    .collect(),
            ),
            _ => {
                let points = |points: BTreeMap<i64, reference::Value>| {
                    points.into_iter().map(|(time_ms, value)| (time_ms, number(value))).collect()
                };
                Value::Matrix(answer.into_iter().map(|(labels, p)| (labels, points(p))).collect())
            }
        };
        Ok(Answer { value, warnings: Vec::new(), infos: Vec::new() })
    }
}

/// Queries that the reference isn't made for: texts, and histograms written into labels.
fn is_beyond(query: &str) -> bool {
    let text = promql::parse_with(query, run::SYNTAX).is_ok_and(|e| e.value_type() == ValueType::String);
    text || query.contains("count_values")
}

fn failures(path: &Path) -> (usize, Vec<String>) {
    #[allow(clippy::disallowed_methods, reason = "a test reads its data itself")]
    let text = std::fs::read_to_string(path).unwrap();
    let mut commands = script::parse(&text);
    commands.retain(|command| !matches!(&command.action, Action::Eval(eval) if is_beyond(&eval.query)));
    for command in &mut commands {
        if let Action::Eval(eval) = &mut command.action {
            eval.expected.annotations.clear();
            eval.expected.is_ordered = false;
            eval.expected.fails = eval.expected.fails.as_ref().map(|_| Pattern::Any);
        }
    }
    let mut failures = Vec::new();
    let score = run::run(&commands, &mut Naive::default(), |line, query, message| {
        failures.push(format!("{}:{line}: {query}: {message}", path.display()));
    });
    (score.total, failures)
}

#[test]
fn the_reference_passes_what_the_engine_passes() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.join("../testdata"), root.join("../../../shared/promqltest")];
    let (mut cases, mut failed) = (0, Vec::new());
    for folder in folders {
        #[allow(clippy::disallowed_methods, reason = "a test reads its data itself")]
        let Ok(entries) = std::fs::read_dir(&folder) else {
            eprintln!("SKIPPED: {} isn't there", folder.display());
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "test") {
                let (total, more) = failures(&path);
                cases += total;
                failed.extend(more);
            }
        }
    }
    assert!(failed.is_empty(), "{} of {cases}:\n{}", failed.len(), failed.join("\n"));
}
