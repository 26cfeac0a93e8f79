//! A reader: asks nodes for raw samples, and compares each answer with the ledger.
//!
//! An answer must hold every sample that was acked before the question was sent (I1, I11), none twice (I2), and none
//! that nobody sent (I3). No answer, or an error, is fine while faults last. Every other question is for a count alone,
//! which owners make of what they keep: it lies between what was acked before and what was ever sent.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use super::http::encode;
use super::writer::METRIC;
use super::{Answer, Shared};

/// How long a reader waits for an answer: longer than any node takes to give up.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Violations of one kind told of one answer.
const TOLD_MAX: usize = 3;

/// What one reader does.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Its host's name.
    pub name: String,
    /// Time between questions.
    pub every: Duration,
    /// Where its choices come from.
    pub seed: u64,
}

/// Asks until the end of the scenario.
pub async fn read_along(reader: Reader, shared: Shared) {
    let mut rng = StdRng::seed_from_u64(reader.seed);
    while shared.goes_on() {
        tokio::time::sleep(reader.every.mul_f64(rng.random_range(0.5..1.5))).await;
        let node = &shared.some_node(&mut rng);
        let range = Duration::from_secs(*[5, 20, 120].choose(&mut rng).expect("there are three"));
        let end_ms = shared.wall.now_ms();
        let range_ms = i64::try_from(range.as_millis()).expect("two minutes") * shared.wall.rate;
        let must_succeed = shared.is_healthy();
        let answered = if rng.random() {
            ask(&reader.name, node, &shared, end_ms, range_ms).await.map(drop)
        } else {
            count(&reader.name, node, &shared, end_ms, range_ms).await
        };
        let mut counts = shared.counts.borrow_mut();
        *(if answered.is_ok() { &mut counts.reads_answered } else { &mut counts.reads_failed }) += 1;
        if let (true, Err(error)) = (must_succeed, answered) {
            shared.violated("I15", &format!("all is healthy, and a question to {node} failed: {error}"));
        }
    }
}

/// The last question: everything, from each node; the answers must be equal (I12).
pub async fn ask_everything(name: &str, shared: &Shared) {
    let end_ms = shared.wall.now_ms();
    let range_ms = end_ms - shared.wall.begin_ms + 1;
    let mut first: Option<(&String, Value)> = None;
    let nodes = shared.nodes.borrow().clone();
    for node in &nodes {
        let data = match ask(name, node, shared, end_ms, range_ms).await {
            Ok(data) => data,
            Err(error) => {
                shared.violated(
                    "I15",
                    &format!("all is healthy, and the last question to {node} failed: {error}"),
                );
                continue;
            }
        };
        if let Err(error) = count(name, node, shared, end_ms, range_ms).await {
            shared.violated("I15", &format!("all is healthy, and the last count by {node} failed: {error}"));
        }
        match &first {
            None => first = Some((node, data)),
            Some((other, expected)) if *expected != data => {
                shared.violated("I12", &format!("{node} and {other} answer the same question differently"));
            }
            Some(_) => {}
        }
    }
}

/// Asks for the samples in `(end - range, end]` and checks a complete answer; what kept it from coming is the error.
async fn ask(name: &str, node: &str, shared: &Shared, end_ms: i64, range_ms: i64) -> Result<Value, String> {
    let must = shared.ledger.borrow().acked_between(end_ms - range_ms, end_ms);
    let data = asked(name, node, shared, &format!("{METRIC}[{range_ms}ms]"), end_ms).await?;
    compare(node, shared, &data, &must, end_ms - range_ms, end_ms);
    Ok(data)
}

/// Asks how many samples there are in `(end - range, end]`; what kept it from coming is the error.
async fn count(name: &str, node: &str, shared: &Shared, end_ms: i64, range_ms: i64) -> Result<(), String> {
    let least = shared.ledger.borrow().acked_between(end_ms - range_ms, end_ms).len();
    let query = format!("sum(count_over_time({METRIC}[{range_ms}ms]))");
    let data = asked(name, node, shared, &query, end_ms).await?;
    let most = shared.ledger.borrow().sent_between(end_ms - range_ms, end_ms);
    let counted = data["result"][0]["value"][1].as_str().unwrap_or("0");
    let is_right = counted.parse().is_ok_and(|counted: usize| (least..=most).contains(&counted));
    if !is_right {
        let text =
            format!("{node} counts {counted} samples, and {least} were acked of {most} that were sent");
        shared.violated("I1/I2/I3", &text);
    }
    Ok(())
}

/// Asks for a query at a time: its complete answer, or what kept it from coming.
async fn asked(name: &str, node: &str, shared: &Shared, query: &str, end_ms: i64) -> Result<Value, String> {
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of this century are below 2^53")]
    let time = format!("{:.3}", end_ms as f64 / 1000.0);
    let path = format!("/api/v1/query?query={}&time={time}&push_down=true", encode(query));
    let answer = shared.http(name).get(node, &path, TIMEOUT).await;
    let text = match &answer {
        Ok(Answer { status: 200, body }) => format!("200, {} bytes", body.len()),
        Ok(answer) => format!("{} {}", answer.status, answer.text()),
        Err(error) => error.clone(),
    };
    shared.trace.note(name, &format!("asked {node} for {query}: {text}"));
    let answer = answer?;
    if answer.status != 200 {
        return Err(text);
    }
    let value: Value = serde_json::from_slice(&answer.body).map_err(|e| format!("not JSON: {e}"))?;
    if let Some(warnings) = value.get("warnings") {
        return Err(format!("flagged as incomplete: {warnings}"));
    }
    Ok(value["data"].clone())
}

fn compare(node: &str, shared: &Shared, data: &Value, must: &[(usize, i64)], from_ms: i64, to_ms: i64) {
    let mut found = BTreeSet::new();
    let (mut twice, mut invented) = (Vec::new(), Vec::new());
    for series in data["result"].as_array().into_iter().flatten() {
        let number = series["metric"]["series"].as_str().and_then(|s| s.parse().ok()).unwrap_or(usize::MAX);
        let labels = series["metric"].as_object().map_or(0, serde_json::Map::len);
        for pair in series["values"].as_array().into_iter().flatten() {
            #[allow(clippy::cast_possible_truncation, reason = "milliseconds of this century")]
            let at_ms = pair[0].as_f64().map_or(0, |s| (s * 1000.0).round() as i64);
            let value = pair[1].as_str().and_then(|v| v.parse::<f64>().ok());
            let place = (number, at_ms);
            if !found.insert(place) {
                twice.push(place);
            }
            let sent = shared.ledger.borrow().get(place).map(|s| s.value);
            if labels != 2 || sent.is_none() || sent != value || at_ms <= from_ms || at_ms > to_ms {
                invented.push((place, value, sent));
            }
        }
    }
    let missing: Vec<_> = must.iter().filter(|place| !found.contains(*place)).collect();
    let some = |text: Vec<String>| text.into_iter().take(TOLD_MAX).collect::<Vec<_>>().join(", ");
    if !missing.is_empty() {
        let first = some(missing.iter().map(|(s, at)| format!("series {s} at {at}")).collect());
        let text = format!("{node} left out {} of {} acked samples: {first}", missing.len(), must.len());
        shared.violated("I1/I11", &text);
    }
    if !twice.is_empty() {
        let first = some(twice.iter().map(|(s, at)| format!("series {s} at {at}")).collect());
        shared.violated("I2", &format!("{node} gave {} samples twice: {first}", twice.len()));
    }
    if !invented.is_empty() {
        let first = some(
            invented
                .iter()
                .map(|((s, at), got, sent)| format!("series {s} at {at}: {got:?} instead of {sent:?}"))
                .collect(),
        );
        shared.violated("I3", &format!("{node} gave {} samples that nobody wrote: {first}", invented.len()));
    }
}
