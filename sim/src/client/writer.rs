//! A writer: sends samples of each of its series in turn, and tries again elsewhere what wasn't acked.
//!
//! Its series come and go, as those of pods do: one that ends is told so by a stale marker, and another one that nobody
//! has seen before takes its place. One request has floats, native histograms and stale markers side by side, and of a
//! [`Kind::Mixed`] series several of them at once: to whoever keeps it, a request is one unit.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::ledger::{Histogram, Place, Value};
use super::series::{Kind, labels};
use super::{Answer, Shared, tenant_name, wire};
use crate::exercise::Exercise;

/// How long a writer waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a batch is tried before it is given up as unknown.
const ATTEMPTS: usize = 3;
/// Pause before a further attempt.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Most samples of one series in a batch, a millisecond apart: its own, and the marker of its end.
const SAMPLES_MAX: i64 = 6;
/// How often a counter begins anew.
const RESETS: f64 = 0.1;

/// What one writer does.
#[derive(Clone, Debug)]
pub struct Writer {
    /// Its host's name.
    pub name: String,
    /// Among all writers, from 0.
    pub number: usize,
    /// Whose samples it sends, by number.
    pub tenant: usize,
    /// Its first series. Writers of one tenant have different series, those of different tenants the same ones: whoever
    /// takes one tenant for another gives values that nobody sent it.
    pub first: usize,
    /// Series that it has at a time.
    pub series: usize,
    /// How likely a series ends with a batch.
    pub churn: f64,
    /// Whether its series have more than floats.
    pub is_mixed: bool,
    /// Time between batches.
    pub every: Duration,
    /// Where its choices come from.
    pub seed: u64,
}

/// A series that goes on.
struct Live {
    number: usize,
    /// What its histograms have counted.
    level: u32,
}

/// Makes a writer's batches.
pub struct Source {
    writer: Writer,
    rng: StdRng,
    live: Vec<Live>,
    /// Series made so far.
    made: usize,
    /// Values made so far: none comes twice, whoever wrote it.
    values: f64,
    last_ms: i64,
}

/// Samples of one series.
type Part = (usize, Vec<(i64, Value)>);

impl Source {
    /// A source that has made nothing yet.
    pub fn new(writer: Writer) -> Self {
        let rng = StdRng::seed_from_u64(writer.seed);
        #[allow(clippy::cast_precision_loss, reason = "a handful of writers")]
        let values = writer.number as f64 * 1e9;
        let mut source = Self { writer, rng, live: Vec::new(), made: 0, values, last_ms: i64::MIN };
        for _ in 0..source.writer.series {
            let live = source.born();
            source.live.push(live);
        }
        source
    }

    /// A series that nobody has seen before.
    fn born(&mut self) -> Live {
        let kind = if self.writer.is_mixed {
            *Kind::ALL.choose(&mut self.rng).expect("there are three")
        } else {
            Kind::Float
        };
        let number = kind.number(self.writer.first, self.made);
        self.made += 1;
        Live { number, level: 0 }
    }

    /// The next batch; timestamps of a series grow, whatever the clock does: the ledger knows a place by them.
    fn batch(&mut self, now_ms: i64) -> Vec<Part> {
        let at_ms = now_ms.max(self.last_ms.saturating_add(1));
        self.last_ms = at_ms + SAMPLES_MAX - 1;
        let mut parts = Vec::new();
        for mut live in std::mem::take(&mut self.live) {
            let mut samples = self.samples(&mut live, at_ms);
            let ends = self.rng.random_bool(self.writer.churn);
            if ends {
                samples.push((self.last_ms, Value::Stale));
            }
            parts.push((live.number, samples));
            let goes_on = if ends { self.born() } else { live };
            self.live.push(goes_on);
        }
        parts
    }

    fn samples(&mut self, live: &mut Live, at_ms: i64) -> Vec<(i64, Value)> {
        match Kind::of(live.number) {
            Kind::Float => vec![(at_ms, self.float())],
            Kind::Histogram => vec![(at_ms, self.histogram(live))],
            Kind::Mixed => {
                let count = self.rng.random_range(2..SAMPLES_MAX);
                let samples = (0..count).map(|n| {
                    let value = match self.rng.random_range(0..4u8) {
                        0 => self.float(),
                        1 => Value::Stale,
                        _ => self.histogram(live),
                    };
                    (at_ms + n, value)
                });
                samples.collect()
            }
        }
    }

    fn float(&mut self) -> Value {
        self.values += 1.0;
        Value::Float(self.values)
    }

    fn histogram(&mut self, live: &mut Live) -> Value {
        self.values += 1.0;
        // A counter that began anew may have passed its old level by now: then only the hint tells.
        let (is_new, is_low) = (self.rng.random_bool(RESETS), self.rng.random());
        live.level = if is_new && is_low { 0 } else { live.level + 1 };
        let is_reset = is_new && (!is_low || self.rng.random());
        Value::Histogram(Histogram { level: live.level, sum: self.values, is_reset })
    }
}

/// Writes until the end of the scenario.
pub async fn write_along(writer: Writer, shared: Shared) {
    let mut rng = StdRng::seed_from_u64(!writer.seed);
    let mut source = Source::new(writer.clone());
    while shared.goes_on() {
        tokio::time::sleep(writer.every).await;
        let batch = Batch::new(&writer, &mut source, &shared);
        for attempt in 1..=ATTEMPTS {
            let node = &shared.some_node(&mut rng);
            if batch.send(&writer, &shared, node).await {
                break;
            }
            if attempt < ATTEMPTS {
                tokio::time::sleep(RETRY_AFTER.mul_f64(rng.random_range(0.5..1.5))).await;
            }
        }
    }
}

/// Sends one batch to one node, once; whether it was acked.
pub async fn send(writer: &Writer, source: &mut Source, shared: &Shared, node: &str) -> bool {
    Batch::new(writer, source, shared).send(writer, shared, node).await
}

/// Samples that the ledger knows, as they are sent.
struct Batch {
    places: Vec<Place>,
    body: Vec<u8>,
}

impl Batch {
    fn new(writer: &Writer, source: &mut Source, shared: &Shared) -> Self {
        let parts = source.batch(shared.wall.now_ms());
        Self { places: note_sent(writer, shared, &parts), body: request(&parts) }
    }

    async fn send(&self, writer: &Writer, shared: &Shared, node: &str) -> bool {
        let tenant = tenant_name(writer.tenant);
        let headers = [&wire::HEADERS[..], &[("x-scope-orgid", tenant.as_str())]].concat();
        let (must_succeed, glitches) =
            (shared.must_succeed(node, Exercise::WritesSucceed), shared.glitches());
        let was_far = shared.is_far(node);
        let http = shared.http(&writer.name);
        let answer = http.post(node, "/api/v1/write", &headers, self.body.clone(), TIMEOUT).await;
        let is_excused = shared.glitches() != glitches || was_far || shared.is_far(node);
        let acked = judge(writer, shared, node, &answer, must_succeed, is_excused);
        if acked {
            self.places.iter().for_each(|place| shared.ledger.borrow_mut().acked(*place));
        }
        acked
    }
}

fn note_sent(writer: &Writer, shared: &Shared, parts: &[Part]) -> Vec<Place> {
    let mut places = Vec::new();
    for (series, samples) in parts {
        for (at_ms, value) in samples {
            let place = Place { tenant: writer.tenant, series: *series, at_ms: *at_ms };
            shared.ledger.borrow_mut().sent(place, *value);
            places.push(place);
        }
    }
    places
}

fn request(parts: &[Part]) -> Vec<u8> {
    let all: Vec<_> =
        parts.iter().map(|(series, samples)| wire::Series { labels: labels(*series), samples }).collect();
    wire::request(&all)
}

/// Whether the batch was acked; an answer that it shouldn't have got is a violation.
fn judge(
    writer: &Writer,
    shared: &Shared,
    node: &str,
    answer: &Result<Answer, String>,
    must_succeed: Option<Exercise>,
    is_excused: bool,
) -> bool {
    let (acked, text) = match answer {
        Ok(answer) if answer.status / 100 == 2 => (true, answer.status.to_string()),
        Ok(answer) => (false, format!("{} {}", answer.status, answer.text())),
        Err(error) => (false, error.clone()),
    };
    shared.trace.note(&writer.name, &format!("write to {node}: {text}"));
    shared.tally.count(if acked { Exercise::WriteAcked } else { Exercise::WriteRefused });
    let is_refused = answer.as_ref().is_ok_and(|answer| answer.status / 100 == 4);
    if !is_excused {
        let refused = || format!("{node} refused good samples for good: {text}");
        shared.judge(Exercise::GoodSample, !is_refused, refused);
    }
    if let Some(check) = must_succeed
        && !is_refused
    {
        let failed = || format!("all is healthy, and a write to {node} failed: {text}");
        shared.judge(check, acked, failed);
    }
    acked
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn source(churn: f64, is_mixed: bool) -> Source {
        Source::new(Writer {
            name: "writer-1".to_owned(),
            number: 1,
            tenant: 0,
            first: 0,
            series: 5,
            churn,
            is_mixed,
            every: Duration::from_secs(1),
            seed: 7,
        })
    }

    #[test]
    fn no_place_and_no_value_comes_twice_and_times_grow() {
        let mut source = source(0.3, true);
        let (mut last, mut values) = (std::collections::BTreeMap::new(), BTreeSet::new());
        for now_ms in [100, 100, 105, 3, 4000] {
            for (series, samples) in source.batch(now_ms) {
                for (at_ms, value) in samples {
                    let before = last.insert(series, at_ms);
                    assert!(before.is_none_or(|before| before < at_ms), "{series} at {at_ms}");
                    let unique = match value {
                        Value::Float(value) => value,
                        Value::Histogram(histogram) => histogram.sum,
                        Value::Stale => continue,
                    };
                    assert!(values.insert(unique.to_bits()), "{unique}");
                }
            }
        }
    }

    #[test]
    fn a_churning_writer_ends_series_with_a_marker_and_makes_others() {
        let mut source = source(0.3, false);
        let (mut ended, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for batch in 0..50 {
            for (series, samples) in source.batch(batch * 1000) {
                assert!(!ended.contains(&series), "{series} was ended");
                seen.insert(series);
                if samples.last().is_some_and(|(_, value)| *value == Value::Stale) {
                    ended.insert(series);
                }
            }
            assert_eq!(source.live.len(), 5);
        }
        assert!(seen.len() > 30 && ended.len() > 30, "{} made, {} ended", seen.len(), ended.len());
    }

    #[test]
    fn one_request_of_a_mixed_writer_has_every_kind_of_sample_of_one_series() {
        let mut source = source(0.3, true);
        let is_mixed = |samples: &[(i64, Value)]| {
            let has = |kind: fn(&Value) -> bool| samples.iter().any(|(_, value)| kind(value));
            has(|v| matches!(v, Value::Float(_)))
                && has(|v| matches!(v, Value::Histogram(_)))
                && has(|v| *v == Value::Stale)
        };
        let mut parts = (0..200).flat_map(|n| source.batch(n * 1000));
        assert!(parts.any(|(_, samples)| is_mixed(&samples)));
    }
}
