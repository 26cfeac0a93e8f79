//! Expressions, as dashboards have them: asked of a node, and evaluated over the ledger by the reference.
//!
//! An answer can only be compared where it is known what there is to answer from. So a question is about a time of which
//! every sample was acked, as far as the expression looks back; where the ledger has none such, nothing is asked.
//! Floats of the ledger only grow; native histograms may begin anew without that their counts tell, which replicas that
//! are merged may leave out, and so nothing is asked of them that depends on resets.

use std::sync::Arc;

use promql::Syntax;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use reference::fuzz::is_same;
use reference::{Answer, Series, Steps, Value, evaluate};
use serde_json::Value as Json;
use tsdb::model::{self, IntHistogram, Labels, Sample, Span, stale_nan};

use super::Shared;
use super::answer::{at_ms, number};
use super::ledger::{self, Fate};
use super::series::{METRIC, model_labels};

/// How far an instant selector looks back, in milliseconds: Prometheus's five minutes.
const LOOKBACK_MS: i64 = 300_000;
/// Times that are tried until one is known well enough.
const TRIES: usize = 8;
/// Steps of a range query.
const STEPS: i64 = 5;
/// Expressions: `F` stands for the floats, `H` for the histograms, `M` for all, `R` for a range, `O` for an offset.
/// With each, how many ranges it looks back beyond the first step, the lookback aside.
const EXPRESSIONS: [(&str, i64); 22] = [
    ("rate(F[R])", 1),
    ("sum by (group) (increase(F[R]))", 1),
    ("max_over_time(F[R])", 1),
    ("avg_over_time(F[R])", 1),
    ("delta(F[R])", 1),
    ("changes(F[R])", 1),
    ("last_over_time(F[R])", 1),
    ("quantile_over_time(0.9, F[R])", 1),
    ("topk(2, F)", 0),
    ("quantile by (group) (0.5, F)", 0),
    ("stddev(F)", 0),
    ("count by (kind) (M)", 0),
    ("absent(F)", 0),
    ("absent_over_time(sim_nothing[R])", 1),
    ("F offset O", 1),
    ("max_over_time(rate(F[R])[2R:R])", 4),
    ("F - on (group, kind, series) min_over_time(F[R])", 1),
    ("F / on (group) group_left () sum by (group) (F)", 0),
    ("label_replace(F, \"copy\", \"$1\", \"series\", \"(.*)\")", 0),
    ("histogram_quantile(0.9, H)", 0),
    ("sum by (group) (histogram_count(H))", 0),
    ("sum(count_over_time(M[R])) unless absent(M)", 1),
];

/// A question, and all that there is to answer it from.
pub struct Expression {
    /// What is asked.
    pub text: String,
    /// At which times.
    pub steps: Steps,
    data: Vec<Series>,
}

impl Expression {
    /// Draws one of a tenant's that has one right answer; `None` where the ledger knows no time well enough.
    pub fn draw(shared: &Shared, tenant: usize, rng: &mut StdRng) -> Option<Self> {
        let (form, ranges) = *EXPRESSIONS.choose(rng).expect("there are some");
        for _ in 0..TRIES {
            let range_ms = rng.random_range(2_000..20_000) * shared.wall.rate;
            let step_ms = if rng.random() { range_ms / 2 } else { 0 };
            let now_ms = shared.wall.now_ms();
            let end_ms = rng.random_range(shared.wall.begin_ms..now_ms.max(shared.wall.begin_ms + 1));
            let start_ms = end_ms - step_ms * (STEPS - 1);
            let from_ms = start_ms - LOOKBACK_MS - ranges * range_ms;
            let Some(data) = known(shared, tenant, from_ms, end_ms) else { continue };
            let steps = Steps { start_ms, end_ms, step_ms, ..Steps::instant(end_ms) };
            return Some(Self { text: text(form, range_ms), steps, data });
        }
        None
    }

    /// What is wrong with an answer, if anything is.
    pub fn difference(&self, shown: &Json) -> Option<String> {
        let expr =
            promql::parse_with(&self.text, Syntax { experimental: true }).expect("expressions are valid");
        let expected = match evaluate(&expr, &self.data, &self.steps) {
            Ok(expected) => expected,
            Err(error) => return Some(format!("the reference fails: {error}")),
        };
        difference(&expected, shown)
    }

    /// Whether there is anything to answer.
    pub fn tells(&self) -> bool {
        self.data.iter().any(|series| !series.samples.is_empty())
    }
}

/// The expression with its selectors and ranges.
fn text(form: &str, range_ms: i64) -> String {
    let selector = |kind: &str| format!("{METRIC}{{kind=\"{kind}\"}}");
    let mut text = String::new();
    let mut last = ' ';
    for (at, letter) in form.char_indices() {
        // A capital that stands alone.
        let is_alone = !last.is_alphanumeric() || last.is_ascii_digit();
        let next = form[at + 1..].chars().next().unwrap_or(' ');
        match letter {
            'F' if is_alone && !next.is_alphanumeric() => text += &selector("float"),
            'H' if is_alone && !next.is_alphanumeric() => text += &selector("histogram"),
            'M' if is_alone && !next.is_alphanumeric() => text += METRIC,
            'R' | 'O' if is_alone && !next.is_alphanumeric() => {
                let times = last.to_digit(10).map_or(1, |digit| {
                    text.pop();
                    i64::from(digit)
                });
                text += &format!("{}ms", range_ms * times);
            }
            other => text.push(other),
        }
        last = letter;
    }
    text
}

/// A tenant's samples in `(from, to]`; `None` where it isn't known of all whether they are there.
fn known(shared: &Shared, tenant: usize, from_ms: i64, to_ms: i64) -> Option<Vec<Series>> {
    let ledger = shared.ledger.borrow();
    let mut data: Vec<Series> = Vec::new();
    let mut last = None;
    for (place, sample) in ledger.between(tenant, from_ms - 1, to_ms) {
        if sample.fate != Fate::Acked {
            return None;
        }
        if last != Some(place.series) {
            data.push(Series { labels: model_labels(place.series), samples: Vec::new() });
            last = Some(place.series);
        }
        let value = value(&sample.value);
        let series = data.last_mut().expect("one was just added");
        series.samples.push(Sample { timestamp_ms: place.at_ms, start_ms: 0, value });
    }
    Some(data)
}

fn value(sent: &ledger::Value) -> model::Value {
    match sent {
        ledger::Value::Float(value) => model::Value::Float(*value),
        ledger::Value::Stale => model::Value::Float(stale_nan()),
        ledger::Value::Histogram(sent) => model::Value::Int(Arc::new(IntHistogram {
            zero_threshold: 0.001,
            count: sent.count(),
            sum: sent.sum,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: sent.buckets().to_vec(),
            ..IntHistogram::default()
        })),
    }
}

/// The first difference between what is expected and what is shown.
fn difference(expected: &Answer, shown: &Json) -> Option<String> {
    let mut rest = expected.clone();
    for series in shown["result"].as_array().into_iter().flatten() {
        let pairs: Vec<(&str, &str)> = series["metric"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
            .collect();
        let labels = Labels::from_pairs(pairs).ok()?;
        let Some(mut points) = rest.remove(&labels) else { return Some(format!("{labels:?} is too much")) };
        let list = |name: &str| series[name].as_array().cloned().unwrap_or_default();
        let one = |name: &str| series.get(name).cloned();
        for pair in list("values").into_iter().chain(one("value")) {
            let (at_ms, shown) = (at_ms(&pair), number(&pair[1]));
            match (points.remove(&at_ms), shown) {
                (Some(Value::Float(expected)), Some(shown)) if is_same(expected, shown) => {}
                (expected, _) => return Some(format!("{labels:?} at {at_ms}: {pair} and not {expected:?}")),
            }
        }
        for pair in list("histograms").into_iter().chain(one("histogram")) {
            let at_ms = at_ms(&pair);
            let [count, sum] = ["count", "sum"].map(|name| number(&pair[1][name]));
            match points.remove(&at_ms) {
                Some(Value::Histogram(h)) if count == Some(h.count) && sum == Some(h.sum) => {}
                expected => return Some(format!("{labels:?} at {at_ms}: {pair} and not {expected:?}")),
            }
        }
        if let Some((at_ms, value)) = points.first_key_value() {
            return Some(format!("{labels:?} lacks {value:?} at {at_ms}"));
        }
    }
    rest.first_key_value().map(|(labels, _)| format!("{labels:?} is missing"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_expression_is_valid_and_asks_for_what_it_says() {
        for (form, _) in EXPRESSIONS {
            let text = text(form, 5000);
            promql::parse_with(&text, Syntax { experimental: true })
                .unwrap_or_else(|e| panic!("{text}: {e}"));
        }
        assert_eq!(text("rate(F[R])", 5), "rate(sim_samples{kind=\"float\"}[5ms])");
        assert_eq!(text("F offset O", 5), "sim_samples{kind=\"float\"} offset 5ms");
        assert!(text("max_over_time(rate(F[R])[2R:R])", 5).ends_with("[5ms])[10ms:5ms])"));
    }

    #[test]
    fn an_answer_that_lacks_or_adds_or_changes_something_differs() {
        let labels = Labels::from_pairs([("group", "a")]).unwrap();
        let expected = Answer::from([(labels, [(1000, Value::Float(7.0))].into())]);
        let shown = |group: &str, value: &str| json!({"result": [{"metric": {"group": group}, "value": [1.0, value]}]});
        assert_eq!(difference(&expected, &shown("a", "7")), None);
        for wrong in [shown("a", "8"), shown("b", "7"), json!({"result": []})] {
            assert!(difference(&expected, &wrong).is_some(), "{wrong}");
        }
    }
}
