//! `bench query`: workload B on the data of workload A, or workload C, through any Prometheus API.
//!
//! Several servers are asked in turn, round by round, so that what else the machine does meets all of them, once they
//! are done with what they put off when they were written to. A round repeats its query until it has used
//! [`Settings::min_cpu`] of the server's CPU time (the kernel counts it in steps of 10 ms),
//! or `ROUND_WITHOUT_PID` of wall time where the server's process isn't known. Result caches stay cold: each
//! repetition ends a step earlier than the last, and `nocache=1` says so to servers that know it.
//!
//! Of short questions a server's CPU time is mostly HTTP. Where a server tells how long its engine took (`stats`, as
//! Prometheus has it), that is shown too.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::process::Process;
use super::workload::{QUERIED_METRIC, QUERIED_PER_INSTANCE, SERIES_PER_INSTANCE};
use super::{Error, Spread};
use crate::error_text::causes;

/// How long a round lasts where CPU time can't be read.
const ROUND_WITHOUT_PID: Duration = Duration::from_secs(2);

/// A round ends after so many repetitions in any case.
const MAX_REPETITIONS: u32 = 1000;

/// A server rests when it uses less than [`RESTING_CPU_S`] in a time of [`RESTING`]; after [`RESTING_MAX`] it is asked all the
/// same.
const RESTING: Duration = Duration::from_secs(3);
const RESTING_CPU_S: f64 = 0.15;
const RESTING_MAX: Duration = Duration::from_secs(300);

/// Ends are moved by this much from repetition to repetition, at most [`SHIFTS`] times.
const SHIFT_MS: i64 = 1000;
const SHIFTS: u32 = 15;

/// Questions that take less wall time than this are short.
const SHORT: Duration = Duration::from_millis(5);
/// How often a short question is asked in a round for what the engine took.
const ENGINE_REPETITIONS: usize = 21;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
const HOUR_MS: i64 = 3_600_000;

/// One question.
#[derive(Clone, Debug)]
pub struct Case {
    /// Short, for tables.
    pub name: String,
    /// PromQL.
    pub expr: String,
    /// The same in the words of servers that don't take the first.
    pub older: Option<String>,
    /// Length and step of a range in milliseconds; `None` for an instant.
    pub range_ms: Option<(i64, i64)>,
    /// How many series are looked at.
    pub series: usize,
}

/// Workload B over `series` series of workload A.
pub fn cases(series: usize) -> Vec<Case> {
    let queried = series / SERIES_PER_INSTANCE * QUERIED_PER_INSTANCE;
    let case = |name: &str, expr: String, step_ms: Option<i64>, series| {
        let range_ms = step_ms.map(|step_ms| (HOUR_MS, step_ms));
        Case { name: name.to_owned(), expr, older: None, range_ms, series }
    };
    let all = r#"{__name__=~"node_.+"}"#;
    vec![
        case(
            "sum by rate, one metric, 1 h at 15 s",
            format!("sum by (job) (rate({QUERIED_METRIC}[5m]))"),
            Some(15_000),
            queried,
        ),
        case(
            "sum by rate, all, 1 h at 60 s",
            format!("sum by (job) (rate({all}[5m]))"),
            Some(60_000),
            series,
        ),
        case("count of all", format!("count({all})"), None, series),
        case("topk of all", format!("topk(10, {all})"), None, series),
        case("raw, one metric, 1 h at 60 s", QUERIED_METRIC.to_owned(), Some(60_000), queried),
    ]
}

/// A server to ask.
#[derive(Clone, Debug)]
pub struct Target {
    /// For tables.
    pub name: String,
    /// Where its API begins: `/api/v1/…` is appended.
    pub url: reqwest::Url,
    /// Its process, if it is to be measured.
    pub process: Option<Process>,
}

/// What to ask, whom, and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At least one.
    pub targets: Vec<Target>,
    /// Headers for all of them, such as a tenant's.
    pub headers: Vec<(String, String)>,
    /// See [`cases`].
    pub cases: Vec<Case>,
    /// Where ranges end and instants are, in milliseconds since the Unix epoch.
    pub end_ms: i64,
    /// Rounds of each case and server.
    pub rounds: usize,
    /// CPU time of the server below which a round isn't worth reading.
    pub min_cpu: Duration,
}

/// One case on one server.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// [`Case::name`].
    pub case: String,
    /// As it was asked: [`Case::expr`] or [`Case::older`].
    pub expr: String,
    /// [`Target::name`].
    pub target: String,
    /// Repetitions over all rounds.
    pub repetitions: u32,
    /// CPU time of the server a query, in milliseconds, over the rounds.
    pub cpu_ms: Option<Spread>,
    /// Wall time a query, in milliseconds, over the rounds.
    pub wall_ms: Spread,
    /// Wall time that the server says its engine took, in milliseconds: of a round the median, over the rounds. Only for
    /// short questions, and servers that tell.
    pub engine_ms: Option<Spread>,
    /// Series in the last answer.
    pub answer_series: usize,
    /// Points in the last answer.
    pub answer_points: usize,
    /// Bytes of the last answer.
    pub answer_bytes: usize,
}

/// Asks everything. `progress` hears of each round that ended.
///
/// # Errors
/// At the first answer that isn't a success, naming it.
pub async fn run(settings: &Settings, progress: impl Fn(&Case, &Target)) -> Result<Vec<Row>, Error> {
    let mut asker = Asker::new(settings)?;
    let mut rows = Vec::new();
    for target in &settings.targets {
        rest(target).await?;
    }
    for case in &settings.cases {
        let mut tallies: Vec<Tally> = Vec::new();
        // A first, uncounted answer each: lazily opened files and the like.
        for target in &settings.targets {
            let expr = asker.spelling(target, case).await?;
            tallies.push(Tally { expr, ..Tally::default() });
        }
        for _ in 0..settings.rounds {
            for (target, tally) in settings.targets.iter().zip(&mut tallies) {
                asker.round(target, case, settings.min_cpu, tally).await?;
                progress(case, target);
            }
        }
        for (target, tally) in settings.targets.iter().zip(tallies) {
            let wall_ms =
                Spread::of(&tally.wall_ms).ok_or_else(|| Error::new("at least one round is needed"))?;
            rows.push(Row {
                case: case.name.clone(),
                expr: tally.expr,
                target: target.name.clone(),
                repetitions: tally.repetitions,
                cpu_ms: Spread::of(&tally.cpu_ms),
                wall_ms,
                engine_ms: Spread::of(&tally.engine_ms),
                answer_series: tally.last.series,
                answer_points: tally.last.points,
                answer_bytes: tally.last.bytes,
            });
        }
    }
    Ok(rows)
}

/// Waits until a server is done with what it put off.
async fn rest(target: &Target) -> Result<(), Error> {
    let Some(process) = target.process else { return Ok(()) };
    let begin = Instant::now();
    while begin.elapsed() < RESTING_MAX {
        let before_s = process.cpu_s()?;
        tokio::time::sleep(RESTING).await;
        if process.cpu_s()? - before_s < RESTING_CPU_S {
            break;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Tally {
    expr: String,
    repetitions: u32,
    cpu_ms: Vec<f64>,
    wall_ms: Vec<f64>,
    engine_ms: Vec<f64>,
    last: Answer,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Answer {
    series: usize,
    points: usize,
    bytes: usize,
}

struct Asker {
    client: reqwest::Client,
    end_ms: i64,
    asked: u32,
}

impl Asker {
    fn new(settings: &Settings) -> Result<Self, Error> {
        let headers = settings.headers.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let client = crate::client::client(headers, REQUEST_TIMEOUT).map_err(Error)?;
        Ok(Self { client, end_ms: settings.end_ms, asked: 0 })
    }

    /// The first of a case's spellings that a server takes.
    async fn spelling(&mut self, target: &Target, case: &Case) -> Result<String, Error> {
        match (self.ask(target, case, &case.expr).await, &case.older) {
            (Err(_), Some(older)) => self.ask(target, case, older).await.map(|_| older.clone()),
            (answer, _) => answer.map(|_| case.expr.clone()),
        }
    }

    async fn round(
        &mut self,
        target: &Target,
        case: &Case,
        min_cpu: Duration,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        let (mut repetitions, mut wall) = (0, Duration::ZERO);
        let cpu_before_s = target.process.map(|p| p.cpu_s()).transpose()?;
        let cpu_s = loop {
            let (body, took) = self.ask(target, case, &tally.expr).await?;
            repetitions += 1;
            wall += took;
            let cpu_s = match (target.process, cpu_before_s) {
                (Some(process), Some(before_s)) => Some(process.cpu_s()? - before_s),
                _ => None,
            };
            let enough = cpu_s.map_or(wall >= ROUND_WITHOUT_PID, |s| s >= min_cpu.as_secs_f64());
            if enough || repetitions == MAX_REPETITIONS {
                tally.last = measure(&body)?;
                break cpu_s;
            }
        };
        tally.repetitions += repetitions;
        tally.wall_ms.push(wall.as_secs_f64() * 1000.0 / f64::from(repetitions));
        tally.cpu_ms.extend(cpu_s.map(|s| s * 1000.0 / f64::from(repetitions)));
        if wall < SHORT * repetitions {
            tally.engine_ms.extend(self.engine_ms(target, case, &tally.expr).await?);
        }
        Ok(())
    }

    /// The median of what the engine took; `None` where the server doesn't tell.
    async fn engine_ms(&mut self, target: &Target, case: &Case, expr: &str) -> Result<Option<f64>, Error> {
        let mut took = Vec::new();
        for _ in 0..ENGINE_REPETITIONS {
            let url = self.url(target, case, expr, true)?;
            let (body, _) = self.get(url).await?;
            let Some(ms) = engine_ms(&body) else { return Ok(None) };
            took.push(ms);
        }
        took.sort_by(f64::total_cmp);
        Ok(took.get(took.len() / 2).copied())
    }

    async fn ask(&mut self, target: &Target, case: &Case, expr: &str) -> Result<(Vec<u8>, Duration), Error> {
        let url = self.url(target, case, expr, false)?;
        self.get(url).await
    }

    async fn get(&mut self, url: reqwest::Url) -> Result<(Vec<u8>, Duration), Error> {
        self.asked += 1;
        let begin = Instant::now();
        let failed = |e: reqwest::Error| Error::new(format!("can't ask {url}: {}", causes(&e)));
        let answer = self.client.get(url.clone()).send().await.map_err(failed)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(failed)?;
        let took = begin.elapsed();
        if !status.is_success() {
            return Err(Error::new(format!("{url} answered {status}: {}", String::from_utf8_lossy(&body))));
        }
        Ok((body.into(), took))
    }

    fn url(&self, target: &Target, case: &Case, expr: &str, stats: bool) -> Result<reqwest::Url, Error> {
        let end_ms = self.end_ms - i64::from(self.asked % SHIFTS) * SHIFT_MS;
        let path = if case.range_ms.is_some() { "query_range" } else { "query" };
        let base = target.url.as_str().trim_end_matches('/');
        let mut url: reqwest::Url = format!("{base}/api/v1/{path}")
            .parse()
            .map_err(|e| Error::new(format!("{base} isn't a URL: {e}")))?;
        let s = |ms: i64| format!("{:.3}", ms as f64 / 1000.0);
        let mut pairs = url.query_pairs_mut();
        pairs.append_pair("query", expr).append_pair("nocache", "1");
        if stats {
            pairs.append_pair("stats", "1");
        }
        match case.range_ms {
            Some((length_ms, step_ms)) => {
                pairs.append_pair("start", &s(end_ms - length_ms));
                pairs.append_pair("end", &s(end_ms)).append_pair("step", &s(step_ms));
            }
            None => drop(pairs.append_pair("time", &s(end_ms))),
        }
        drop(pairs);
        Ok(url)
    }
}

/// Milliseconds that the engine took, as an answer tells in seconds.
fn engine_ms(body: &[u8]) -> Option<f64> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    answer.pointer("/data/stats/timings/evalTotalTime")?.as_f64().map(|s| s * 1000.0)
}

/// Counts what an answer holds.
fn measure(body: &[u8]) -> Result<Answer, Error> {
    let answer: Value =
        serde_json::from_slice(body).map_err(|e| Error::new(format!("the answer isn't JSON: {e}")))?;
    let result = answer.pointer("/data/result").and_then(Value::as_array);
    let series = result.ok_or_else(|| Error::new("the answer has no data.result"))?;
    let points = series.iter().map(|s| s.get("values").and_then(Value::as_array).map_or(1, Vec::len)).sum();
    Ok(Answer { series: series.len(), points, bytes: body.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted() {
        let matrix = br#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{},"values":[[1,"1"],[2,"2"]]},{"metric":{"a":"b"},"values":[[1,"1"]]}]}}"#;
        let counted = measure(matrix).unwrap();
        assert_eq!((counted.series, counted.points), (2, 3));
        let vector = br#"{"data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]}]}}"#;
        assert_eq!(measure(vector).map(|a| (a.series, a.points)).unwrap(), (1, 1));
        assert!(measure(b"{}").is_err());
    }

    #[test]
    fn engines_that_tell_are_heard() {
        let told = br#"{"data":{"result":[],"stats":{"timings":{"evalTotalTime":0.0025}}}}"#;
        assert_eq!(engine_ms(told), Some(2.5));
        assert_eq!(engine_ms(br#"{"data":{"result":[]}}"#), None);
    }

    #[test]
    fn a_tenth_of_the_series_belongs_to_the_queried_metric() {
        let cases = cases(100_000);
        assert_eq!((cases[0].series, cases[1].series), (10_000, 100_000));
    }

    #[test]
    fn repetitions_end_at_other_times() {
        let target =
            Target { name: "x".to_owned(), url: "http://localhost:9/prom/".parse().unwrap(), process: None };
        let settings = Settings {
            targets: vec![],
            headers: vec![],
            cases: vec![],
            end_ms: 1_700_000_000_000,
            rounds: 1,
            min_cpu: Duration::ZERO,
        };
        let mut asker = Asker::new(&settings).unwrap();
        let case = &cases(250)[2];
        let first = asker.url(&target, case, &case.expr, false).unwrap();
        asker.asked += 1;
        assert_ne!(first, asker.url(&target, case, &case.expr, false).unwrap());
        assert!(first.as_str().starts_with("http://localhost:9/prom/api/v1/query?query="), "{first}");
    }
}
