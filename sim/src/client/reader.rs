//! A reader: asks nodes as one tenant, and compares each answer with the ledger of that tenant (I13).
//!
//! - Raw samples: every one that was acked before the question was sent (I1, I11), histograms with each of their
//!   counts; none twice (I2), and none that nobody sent (I3).
//! - Their number, which owners count of what they keep: between what was acked before and what was ever sent.
//! - The newest of each series: the last that was acked or one that came later; a series that a marker ended is gone.
//! - The list of series: each that has an acked sample in the range, and none that nobody made.
//! - Expressions, as dashboards have them, instant and over ranges: what the reference makes of the ledger.
//! - In the end, how often each series began anew: as often as its raw samples say (I4), and the same by each node.
//!
//! No answer, or an error, is fine while faults last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value as Json;

use super::answer::{Answered, by_series, number, points};
use super::expressions::Expression;
use super::http::encode;
use super::ledger::{Fate, Place, Sample, Value};
use super::series::METRIC;
use super::{Answer, Shared, tenant_name};
use crate::exercise::Exercise;

/// How long a reader waits for an answer: longer than any node takes to give up.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How far an instant query looks back, in milliseconds: Prometheus's five minutes.
const LOOKBACK_MS: i64 = 300_000;
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
        let range_ms = i64::try_from(range.as_millis()).expect("two minutes") * shared.wall.rate;
        let question = Question {
            asker: &reader.name,
            node,
            shared: &shared,
            tenant: rng.random_range(0..shared.tenants),
            end_ms: shared.wall.now_ms(),
            range_ms,
        };
        let must_succeed = shared.must_succeed(node, Exercise::ReadsSucceed);
        let answered = match rng.random_range(0..8u8) {
            0 => question.raw().await.map(drop),
            1 => question.count().await,
            2 => question.newest().await,
            3 => question.names().await,
            _ => match Expression::draw(&shared, question.tenant, &mut rng) {
                Some(expression) => question.expression(&expression, rng.random()).await,
                None => continue,
            },
        };
        let is_answered = answered.is_ok();
        shared.tally.count(if is_answered { Exercise::ReadAnswered } else { Exercise::ReadRefused });
        if let Some(check) = must_succeed {
            let failed = || {
                let error = answered.err().unwrap_or_default();
                format!("all is healthy, and a question to {node} failed: {error}")
            };
            shared.judge(check, is_answered, failed);
        }
    }
}

/// The last questions: everything of each tenant, from each node; the answers must be equal (I12).
pub async fn ask_everything(name: &str, shared: &Shared) {
    let end_ms = shared.wall.now_ms();
    let range_ms = end_ms - shared.wall.begin_ms + 1;
    let nodes = shared.nodes.borrow().clone();
    for tenant in 0..shared.tenants {
        let mut first: Option<(&String, [Json; 2])> = None;
        for node in &nodes {
            let question = Question { asker: name, node, shared, tenant, end_ms, range_ms };
            let asked = question.everything().await;
            let failed =
                |error: &String| format!("all is healthy, and a last question to {node} failed: {error}");
            let why = asked.as_ref().err().map(failed);
            shared.judge(Exercise::ReadsSucceed, why.is_none(), || why.unwrap_or_default());
            let Ok(data) = asked else { continue };
            match &first {
                None => first = Some((node, data)),
                Some((other, expected)) => {
                    let differs = || format!("{node} and {other} answer the same question differently");
                    shared.judge(Exercise::SameEverywhere, *expected == data, differs);
                }
            }
        }
    }
}

/// Asks one node how many samples each series of a tenant has, while `away` can't be reached: what is complete all the
/// same holds all that was acked.
pub async fn count_without(name: &str, node: &str, away: &str, shared: &Shared, tenant: usize) {
    let end_ms = shared.wall.now_ms();
    let range_ms = end_ms - shared.wall.begin_ms + 1;
    let question = Question { asker: name, node, shared, tenant, end_ms, range_ms };
    let acked = shared.ledger.borrow().acked_between(tenant, question.begin_ms(), end_ms);
    let mut least: BTreeMap<usize, usize> = BTreeMap::new();
    acked.iter().for_each(|place| *least.entry(place.series).or_default() += 1);
    // Whoever can't say so for sure refuses, and that is right too.
    let Ok(data) = question.query(&format!("count_over_time({METRIC}[{range_ms}ms])")).await else { return };
    let (found, _) = by_series(&data["result"], false);
    for (series, least) in &least {
        let counted = found.get(series).and_then(|parts| number(&parts.first()?["value"][1])).unwrap_or(0.0);
        let lacks = || {
            let who = question.who();
            format!("{who} without {away}: {counted} samples of series {series}, and {least} were acked")
        };
        #[allow(clippy::cast_precision_loss, reason = "counts of some thousands")]
        shared.judge(Exercise::WithoutOne, counted >= *least as f64, lacks);
    }
}

/// What a tenant asks a node about `(end - range, end]`.
#[derive(Clone, Copy)]
struct Question<'a> {
    asker: &'a str,
    node: &'a str,
    shared: &'a Shared,
    tenant: usize,
    end_ms: i64,
    range_ms: i64,
}

/// What is wrong with an answer.
#[derive(Default)]
struct Wrong {
    missing: Vec<String>,
    twice: Vec<String>,
    invented: Vec<String>,
}

/// A complete answer to one of these, or what kept it from coming.
type Asked<T> = Result<T, String>;

impl Question<'_> {
    /// All of it; the answer to the first and to the last, which nodes must agree on.
    async fn everything(&self) -> Asked<[Json; 2]> {
        let raw = self.raw().await?;
        self.count().await?;
        self.newest().await?;
        self.names().await?;
        let resets = self.resets(&raw).await?;
        Ok([raw, resets])
    }

    fn begin_ms(&self) -> i64 {
        self.end_ms - self.range_ms
    }

    /// The raw samples.
    async fn raw(&self) -> Asked<Json> {
        let ledger = &self.shared.ledger;
        let must = ledger.borrow().acked_between(self.tenant, self.begin_ms(), self.end_ms);
        let data = self.query(&format!("{METRIC}[{}ms]", self.range_ms)).await?;
        let (found, odd) = by_series(&data["result"], true);
        let mut wrong = Wrong { invented: odd, ..Wrong::default() };
        let mut places = BTreeSet::new();
        for (series, parts) in &found {
            for (at_ms, value) in parts.iter().flat_map(points) {
                let place = Place { tenant: self.tenant, series: *series, at_ms };
                if !places.insert(place) {
                    wrong.twice.push(told(place));
                }
                let sent = ledger.borrow().get(place).map(|sample| sample.value);
                let is_inside = at_ms > self.begin_ms() && at_ms <= self.end_ms;
                if !is_inside || !sent.is_some_and(|sent| value.is(&sent)) {
                    wrong.invented.push(format!("{}: {value:?} instead of {sent:?}", told(place)));
                }
            }
        }
        wrong.missing.extend(must.iter().filter(|place| !places.contains(*place)).map(|place| told(*place)));
        self.tell(Exercise::Raw, &wrong, must.len());
        Ok(data)
    }

    /// How many samples there are.
    async fn count(&self) -> Asked<()> {
        let ledger = &self.shared.ledger;
        let least = ledger.borrow().acked_between(self.tenant, self.begin_ms(), self.end_ms).len();
        let data = self.query(&format!("sum(count_over_time({METRIC}[{}ms]))", self.range_ms)).await?;
        let most = ledger.borrow().sent_between(self.tenant, self.begin_ms(), self.end_ms);
        let counted = data["result"][0]["value"][1].as_str().unwrap_or("0");
        let is_right = counted.parse().is_ok_and(|counted: usize| (least..=most).contains(&counted));
        let wrong = || {
            let node = self.who();
            format!("{node} counts {counted} samples, and {least} were acked of {most} that were sent")
        };
        if least > 0 {
            self.shared.judge(Exercise::Count, is_right, wrong);
        }
        Ok(())
    }

    /// The newest sample of each series that hasn't ended.
    async fn newest(&self) -> Asked<()> {
        let from_ms = self.end_ms - LOOKBACK_MS;
        let ledger = &self.shared.ledger;
        // The newest that was acked, by series.
        let mut acked = BTreeMap::new();
        for (place, sample) in ledger.borrow().between(self.tenant, from_ms, self.end_ms) {
            if sample.fate == Fate::Acked {
                acked.insert(place.series, place.at_ms);
            }
        }
        let data = self.query(METRIC).await?;
        let (mut found, odd) = by_series(&data["result"], true);
        let mut wrong = Wrong { invented: odd, ..Wrong::default() };
        // It, or one that came later, and may be there.
        let mut may: BTreeMap<usize, Vec<Sample>> = BTreeMap::new();
        for (place, sample) in ledger.borrow().between(self.tenant, from_ms, self.end_ms) {
            if acked.get(&place.series).is_none_or(|newest| place.at_ms >= *newest) {
                may.entry(place.series).or_default().push(sample);
            }
        }
        for (series, samples) in &may {
            let shown: Vec<Answered> =
                found.remove(series).iter().flatten().flat_map(points).map(|(_, value)| value).collect();
            let is_right = match &shown[..] {
                [] => !acked.contains_key(series) || samples.iter().any(|s| s.value == Value::Stale),
                [value] => samples.iter().any(|sample| value.is(&sample.value)),
                _ => false,
            };
            if !is_right {
                let sent: Vec<_> = samples.iter().map(|sample| sample.value).collect();
                let list = if shown.is_empty() { &mut wrong.missing } else { &mut wrong.invented };
                list.push(format!("series {series} at {}: {shown:?}, not one of {sent:?}", self.end_ms));
            }
        }
        wrong.invented.extend(found.keys().map(|series| format!("series {series}, of which nothing is new")));
        self.tell(Exercise::Newest, &wrong, acked.len());
        Ok(())
    }

    /// The list of series.
    async fn names(&self) -> Asked<()> {
        // Whole milliseconds at both ends, of which the first is outside of the range.
        let (start_ms, end_ms) = (self.begin_ms() + 1, self.end_ms);
        let must: BTreeSet<usize> = {
            let ledger = self.shared.ledger.borrow();
            let acked = ledger.acked_between(self.tenant, self.begin_ms(), end_ms);
            acked.iter().map(|place| place.series).collect()
        };
        let path =
            format!("/api/v1/series?match[]={METRIC}&start={}&end={}", seconds(start_ms), seconds(end_ms));
        let data = self.ask(&path, "the list of series").await?;
        let may = self.shared.ledger.borrow().series(self.tenant);
        let list: Json = data
            .as_array()
            .into_iter()
            .flatten()
            .map(|labels| serde_json::json!({ "metric": labels }))
            .collect();
        let (found, odd) = by_series(&list, true);
        let mut wrong = Wrong { invented: odd, ..Wrong::default() };
        wrong.missing.extend(must.iter().filter(|s| !found.contains_key(s)).map(|s| format!("series {s}")));
        wrong
            .twice
            .extend(found.iter().filter(|(_, parts)| parts.len() > 1).map(|(s, _)| format!("series {s}")));
        wrong.invented.extend(found.keys().filter(|s| !may.contains(s)).map(|s| format!("series {s}")));
        self.tell(Exercise::Names, &wrong, must.len());
        Ok(())
    }

    /// How often each series began anew: as often as `raw`, the raw samples of the same range, say.
    async fn resets(&self, raw: &Json) -> Asked<Json> {
        let data = self.query(&format!("resets({METRIC}[{}ms])", self.range_ms)).await?;
        let (found, odd) = by_series(&data["result"], false);
        let mut wrong = Wrong { invented: odd, ..Wrong::default() };
        for (series, parts) in by_series(&raw["result"], true).0 {
            let resets = Resets::of(&self.shared.ledger.borrow(), self.tenant, series, &parts);
            let least = if self.shared.has_replicas() { resets.seen } else { resets.seen + resets.hinted };
            let most = resets.seen + resets.hinted;
            let shown = found.get(&series).and_then(|parts| number(&parts.first()?["value"][1]));
            if !shown.is_some_and(|shown| (least..=most).contains(&shown)) {
                let shown = shown.map_or("no answer".to_owned(), |shown| shown.to_string());
                wrong.missing.push(format!("series {series}: {shown} instead of {least} to {most}"));
            }
        }
        self.tell(Exercise::Resets, &wrong, found.len());
        Ok(data)
    }

    /// An expression; `push_down` lets owners evaluate parts of it.
    async fn expression(&self, expression: &Expression, push_down: bool) -> Asked<()> {
        let (text, steps) = (&expression.text, &expression.steps);
        let times = match steps.step_ms {
            0 => format!("query?time={}", seconds(steps.end_ms)),
            step_ms => {
                // As a duration: seconds that aren't whole are cut to milliseconds, by Prometheus too.
                let [start, end] = [steps.start_ms, steps.end_ms].map(seconds);
                format!("query_range?start={start}&end={end}&step={step_ms}ms")
            }
        };
        let path = format!("/api/v1/{times}&query={}&push_down={push_down}", encode(text));
        let data = self.ask(&path, text).await?;
        if expression.tells() {
            let (wrong, node) = (expression.difference(&data), self.who());
            let told = || format!("{node}, {text} at {steps:?}: {}", wrong.clone().unwrap_or_default());
            self.shared.judge(Exercise::Expression, wrong.is_none(), told);
        }
        Ok(())
    }

    async fn query(&self, query: &str) -> Asked<Json> {
        let time = seconds(self.end_ms);
        let path = format!("/api/v1/query?query={}&time={time}&push_down=true", encode(query));
        self.ask(&path, query).await
    }

    /// The data of a complete answer.
    async fn ask(&self, path: &str, what: &str) -> Asked<Json> {
        let Self { asker, node, shared, .. } = self;
        let tenant = tenant_name(self.tenant);
        let headers = [("x-scope-orgid", tenant.as_str())];
        let answer = shared.http(asker).get(node, path, &headers, TIMEOUT).await;
        let text = match &answer {
            Ok(Answer { status: 200, body }) => format!("200, {} bytes", body.len()),
            Ok(answer) => format!("{} {}", answer.status, answer.text()),
            Err(error) => error.clone(),
        };
        shared.trace.note(asker, &format!("asked {node} for {what} of {tenant}: {text}"));
        let answer = answer?;
        if answer.status != 200 {
            return Err(text);
        }
        let value: Json = serde_json::from_slice(&answer.body).map_err(|e| format!("not JSON: {e}"))?;
        if let Some(warnings) = value.get("warnings") {
            return Err(format!("flagged as incomplete: {warnings}"));
        }
        Ok(value["data"].clone())
    }

    fn who(&self) -> String {
        format!("{} to {}", self.node, tenant_name(self.tenant))
    }

    /// Judges an answer: `check` by what is missing of the `must` that have to be there.
    fn tell(&self, check: Exercise, wrong: &Wrong, must: usize) {
        let who = self.who();
        let some = |list: &[String]| list[..list.len().min(TOLD_MAX)].join(", ");
        let Wrong { missing, twice, invented } = wrong;
        // Where nothing has to be there, an answer shows nothing.
        if must > 0 || !missing.is_empty() {
            let text = || format!("{who}: {} of {must} are missing: {}", missing.len(), some(missing));
            self.shared.judge(check, missing.is_empty(), text);
        }
        if must > 0 || !twice.is_empty() {
            let text = || format!("{who}: {} are there twice: {}", twice.len(), some(twice));
            self.shared.judge(Exercise::Twice, twice.is_empty(), text);
        }
        if must > 0 || !invented.is_empty() {
            let text = || format!("{who}: nobody wrote {} of them: {}", invented.len(), some(invented));
            self.shared.judge(Exercise::Invented, invented.is_empty(), text);
        }
    }
}

/// How often a series began anew, by its raw samples (Prometheus, `funcResets`).
///
/// A hint of the sender holds for the sample before, in the same chunk or behind it. Where chunks of several replicas
/// overlap, the sample before may be another one's, and Prometheus asks the counts alone (`ChainSampleIterator`): there
/// a reset that only the hint tells may go unseen. What the counts say is seen everywhere, and what nothing says nowhere.
#[derive(Default)]
struct Resets {
    /// Its number or its counts fell, or one kind of sample followed the other.
    seen: f64,
    /// Only its sender said so.
    hinted: f64,
}

impl Resets {
    fn of(ledger: &super::Ledger, tenant: usize, series: usize, parts: &[Json]) -> Self {
        let (mut resets, mut before) = (Self::default(), None);
        for (at_ms, _) in parts.iter().flat_map(points) {
            let place = Place { tenant, series, at_ms };
            let Some(now) = ledger.get(place).map(|sample| sample.value) else { continue };
            match (before, now) {
                (None, _) => {}
                (Some(Value::Float(before)), Value::Float(now)) if now >= before => {}
                (Some(Value::Histogram(before)), Value::Histogram(now)) if now.level >= before.level => {
                    resets.hinted += f64::from(u8::from(now.is_reset));
                }
                _ => resets.seen += 1.0,
            }
            before = Some(now);
        }
        resets
    }
}

fn told(place: Place) -> String {
    format!("series {} at {}", place.series, place.at_ms)
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of this century are below 2^53")]
fn seconds(ms: i64) -> String {
    format!("{:.3}", ms as f64 / 1000.0)
}
