//! A writer: sends a sample of each of its series in turn, and tries again elsewhere what wasn't acked.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Answer, Shared, wire};

/// The metric that writers write; its label `series` holds the number of the series.
pub const METRIC: &str = "sim_samples";
/// How long a writer waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a batch is tried before it is given up as unknown.
const ATTEMPTS: usize = 3;
/// Pause before a further attempt.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What one writer does.
#[derive(Clone, Debug)]
pub struct Writer {
    /// Its host's name.
    pub name: String,
    /// Its series, by number.
    pub series: std::ops::Range<usize>,
    /// Time between batches.
    pub every: Duration,
    /// Where its choices come from.
    pub seed: u64,
}

/// Writes until the end of the scenario.
pub async fn write_along(writer: Writer, shared: Shared) {
    let mut rng = StdRng::seed_from_u64(writer.seed);
    let http = shared.http(&writer.name);
    let names: Vec<String> = writer.series.clone().map(|series| series.to_string()).collect();
    let mut last_ms = i64::MIN;
    let mut number = 0.0;
    while shared.goes_on() {
        tokio::time::sleep(writer.every).await;
        // Timestamps of a series grow, whatever the clock does: the ledger knows a place by them.
        let timestamp_ms = shared.wall.now_ms().max(last_ms + 1);
        last_ms = timestamp_ms;
        let places: Vec<_> = writer.series.clone().map(|series| (series, timestamp_ms)).collect();
        let labels: Vec<_> = names.iter().map(|name| [("__name__", METRIC), ("series", name)]).collect();
        let mut rows = Vec::with_capacity(places.len());
        for (place, labels) in places.iter().zip(&labels) {
            number += 1.0;
            shared.ledger.borrow_mut().sent(*place, number);
            rows.push(wire::Row { labels, timestamp_ms, value: number });
        }
        let body = wire::request(&rows);
        for attempt in 1..=ATTEMPTS {
            let node = &shared.some_node(&mut rng);
            let must_succeed = shared.is_healthy();
            let answer = http.post(node, "/api/v1/write", &wire::HEADERS, body.clone(), TIMEOUT).await;
            let acked = judge(&writer, &shared, node, &answer, must_succeed);
            if acked {
                places.iter().for_each(|place| shared.ledger.borrow_mut().acked(*place));
                break;
            }
            if attempt < ATTEMPTS {
                tokio::time::sleep(RETRY_AFTER.mul_f64(rng.random_range(0.5..1.5))).await;
            }
        }
    }
}

/// Whether the batch was acked; an answer that it shouldn't have got is a violation.
fn judge(
    writer: &Writer,
    shared: &Shared,
    node: &str,
    answer: &Result<Answer, String>,
    must_succeed: bool,
) -> bool {
    let (acked, text) = match answer {
        Ok(answer) if answer.status / 100 == 2 => (true, answer.status.to_string()),
        Ok(answer) => (false, format!("{} {}", answer.status, answer.text())),
        Err(error) => (false, error.clone()),
    };
    shared.trace.note(&writer.name, &format!("write to {node}: {text}"));
    {
        let mut counts = shared.counts.borrow_mut();
        *(if acked { &mut counts.writes_acked } else { &mut counts.writes_failed }) += 1;
    }
    if let Ok(answer) = answer
        && answer.status / 100 == 4
    {
        shared.violated("I15", &format!("{node} refused good samples for good: {text}"));
    } else if must_succeed && !acked {
        shared.violated("I15", &format!("all is healthy, and a write to {node} failed: {text}"));
    }
    acked
}
