//! `carillon bench {write,query,storage}`: the workloads of `node::bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::output::{Output, Rows};
use super::work_dir::WorkDir;
use super::{Failure, when};
use crate::bench::payload::Timing;
use crate::bench::process::Process;
use crate::bench::workload::Workload;
use crate::bench::{Spread, expressions, query, storage, write};

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Send workload A (100,000 series of machines) or C by remote write, as fast as the server takes it
    Write(Write),
    /// Ask workload B of servers that hold workload A, or workload C, in turn
    Query(Query),
    /// Measure the storage engine alone, in this process: append, replay, cut, merge, decode
    Storage(Storage),
}

/// What is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Written {
    /// Series of machines with node_exporter, one sample a request and series
    A,
    /// What Prometheus measures its engine with: 1,364 series, 52 hours; only `--url`, `--start` and `--connections`
    /// matter besides
    C,
}

/// What is asked.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Asked {
    /// Five questions over workload A
    B,
    /// The expressions with which Prometheus measures its engine, over workload C
    C,
}

/// How much to store.
#[derive(Debug, Args)]
pub struct Storage {
    /// How many series, with 1,440 samples each
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    series: u32,
    /// A folder in which a new one is made, and removed afterwards; the system's temporary one where absent
    #[arg(long, value_hint = clap::ValueHint::DirPath)]
    work_dir: Option<PathBuf>,
    /// Another seed gives other values
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How to write.
#[derive(Debug, Args)]
pub struct Write {
    /// What to send
    #[arg(long, value_enum, ignore_case = true, default_value = "a")]
    workload: Written,
    /// The remote-write address of a server, or of each node of a cluster (repeatable: connections take them in turn)
    #[arg(long = "url", value_name = "URL", default_value = "http://127.0.0.1:9480/api/v1/write")]
    urls: Vec<reqwest::Url>,
    /// The server's process: its CPU time and memory are then reported (repeatable: the sum of all)
    #[arg(long = "pid", value_name = "PID")]
    pids: Vec<u32>,
    /// Most samples a second; as fast as the server takes them where absent
    #[arg(long)]
    rate: Option<u32>,
    /// How long to send a request again when nobody answers, or with 5xx
    #[arg(long, default_value = "0s")]
    patience: String,
    /// How many series
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    series: u32,
    /// How many samples each
    #[arg(long, default_value_t = 260, value_parser = clap::value_parser!(u32).range(1..))]
    scrapes: u32,
    /// Time between the samples of a series
    #[arg(long, default_value = "15s")]
    step: String,
    /// Timestamp of the first scrape: `now-2h` or Unix seconds; the last is now where absent
    #[arg(long)]
    start: Option<String>,
    /// Connections that send at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Series a request, of one sample each
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Another seed gives other values
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long to wait after the last answer before the last look at the server's CPU time
    #[arg(long, default_value = "2s")]
    settle: String,
    /// A further header, such as `X-Scope-OrgID: a` (repeatable)
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
}

/// How to ask.
#[derive(Debug, Args)]
pub struct Query {
    /// What to ask
    #[arg(long, value_enum, ignore_case = true, default_value = "b")]
    workload: Asked,
    /// A server, as `[NAME=]URL[,PID]`; its CPU time is reported where its process is named (repeatable: asked in turn)
    #[arg(long = "target", value_name = "TARGET", default_value = "http://127.0.0.1:9480")]
    targets: Vec<String>,
    /// How many series of workload A it holds
    #[arg(long, default_value_t = 100_000)]
    series: u32,
    /// Where queries end: `end_ms` of `bench write`, in seconds
    #[arg(long, default_value = "now")]
    end: String,
    /// Rounds of each question and server
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// CPU time of the server that a round takes at least; the question is repeated for as long
    #[arg(long, default_value = "2s")]
    min_cpu: String,
    /// A further header, such as `X-Scope-OrgID: a` (repeatable)
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
}

impl Bench {
    pub(super) async fn run(&self, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Write(verb) => verb.run(output).await,
            Self::Query(verb) => verb.run(output).await,
            Self::Storage(verb) => verb.run(output),
        }
    }
}

impl Write {
    async fn run(&self, output: &Output) -> Result<(), Failure> {
        let now_ms = when::now_ms();
        let (load, mut timing, samples) = match self.workload {
            Written::A => {
                let (step_ms, scrapes) = (when::duration_ms(&self.step)?, self.scrapes as usize);
                let workload = Workload::new(self.series as usize, self.seed);
                let samples = workload.series() * scrapes;
                let timing = Timing { start_ms: now_ms - step_ms * scrapes as i64, step_ms, scrapes };
                (write::Load::Machines { workload, batch: self.batch as usize }, timing, samples)
            }
            Written::C => (write::Load::Expressions, expressions::timing(now_ms), expressions::samples()),
        };
        if let Some(start) = &self.start {
            timing.start_ms = when::time_ms(start, now_ms)?;
        }
        let settings = write::Settings {
            urls: self.urls.clone(),
            headers: self.headers.clone(),
            load,
            timing,
            connections: usize::from(self.connections),
            processes: self.pids.iter().map(|pid| Process::open(*pid)).collect::<Result<_, _>>()?,
            rate: self.rate.map(|rate| f64::from(rate.max(1))),
            patience: Duration::from_millis(when::duration_ms(&self.patience)?.max(0) as u64),
            settle: Duration::from_millis(when::duration_ms(&self.settle)?.max(0) as u64),
        };
        let bar = output.progress(samples as u64, "samples");
        let report = write::run(&settings, {
            let bar = bar.clone();
            move |samples| bar.inc(samples)
        })
        .await;
        bar.finish_and_clear();
        let report = report?;
        output.show(&report, || write_rows(&report))
    }
}

fn write_rows(report: &write::Report) -> Rows {
    let mut rows = Rows::new(&["measure", "#value"]);
    let mut push = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    push("samples", report.samples.to_string());
    push("requests", report.requests.to_string());
    push("bytes a sample on the wire", format!("{:.1}", report.sent_bytes as f64 / report.samples as f64));
    push("wall time (s)", format!("{:.2}", report.wall_s));
    push("samples per second", format!("{:.0}", report.samples as f64 / report.wall_s));
    push("request p50 (ms)", format!("{:.2}", report.request_p50_ms));
    push("request p99 (ms)", format!("{:.2}", report.request_p99_ms));
    if let Some(server) = &report.server {
        push("server CPU time (s)", format!("{:.2}", server.cpu_s));
        push("samples per CPU-second", format!("{:.0}", server.samples_per_cpu_s));
        push("resident bytes a series, mean", format!("{:.0}", server.resident_bytes_per_series_mean));
        push("resident bytes a series, most", format!("{:.0}", server.resident_bytes_per_series_most));
    }
    push("first timestamp (s)", format!("{:.3}", report.start_ms as f64 / 1000.0));
    push("end for queries (s)", format!("{:.3}", report.end_ms as f64 / 1000.0));
    rows
}

impl Query {
    async fn run(&self, output: &Output) -> Result<(), Failure> {
        let targets = self.targets.iter().map(|t| parse_target(t)).collect::<Result<Vec<_>, _>>()?;
        let settings = query::Settings {
            targets,
            headers: self.headers.clone(),
            cases: match self.workload {
                Asked::B => query::cases(self.series as usize),
                Asked::C => expressions::cases(),
            },
            end_ms: when::time_ms(&self.end, when::now_ms())?,
            rounds: self.rounds as usize,
            min_cpu: Duration::from_millis(when::duration_ms(&self.min_cpu)?.max(0) as u64),
        };
        let rounds = settings.cases.len() * settings.targets.len() * settings.rounds;
        let bar = output.progress(rounds as u64, "rounds");
        let rows = query::run(&settings, |case, target| {
            bar.set_message(format!("{}: {},", target.name, case.name));
            bar.inc(1);
        })
        .await;
        bar.finish_and_clear();
        let rows = rows?;
        output.show(&rows, || query_rows(&rows))
    }
}

impl Storage {
    fn run(&self, output: &Output) -> Result<(), Failure> {
        let work = WorkDir::create(self.work_dir.as_deref(), "carillon-bench")?;
        let report = storage::run(self.series as usize, work.path(), self.seed, |step| output.note(step))?;
        output.show(&report, || storage_rows(&report))
    }
}

fn storage_rows(report: &storage::Report) -> Rows {
    let mut rows = Rows::new(&["step", "#samples per CPU-second", "#CPU s", "#wall s"]);
    for step in &report.steps {
        rows.push(vec![
            step.name.to_owned(),
            format!("{:.0}", step.samples_per_cpu_s),
            format!("{:.2}", step.cpu_s),
            format!("{:.2}", step.wall_s),
        ]);
    }
    let mut weight = |name: &str, value: f64| {
        rows.push(vec![name.to_owned(), format!("{value:.2}"), String::new(), String::new()]);
    };
    weight("index, bytes a series", report.index_bytes_per_series);
    weight("block, bytes a sample", report.block_bytes_per_sample);
    rows
}

fn query_rows(all: &[query::Row]) -> Rows {
    let mut rows = Rows::new(&[
        "question",
        "server",
        "#CPU ms (least–most)",
        "#wall ms (least–most)",
        "#series",
        "#points",
    ]);
    let spread = |s: &Spread| format!("{:.1} ({:.1}–{:.1})", s.median, s.least, s.most);
    for row in all {
        rows.push(vec![
            row.case.clone(),
            row.target.clone(),
            row.cpu_ms.as_ref().map(spread).unwrap_or_default(),
            spread(&row.wall_ms),
            row.answer_series.to_string(),
            row.answer_points.to_string(),
        ]);
    }
    rows
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// `[NAME=]URL[,PID]`.
fn parse_target(text: &str) -> Result<query::Target, Failure> {
    let (name, rest) = match text.split_once('=') {
        // A `=` further right belongs to the URL.
        Some((name, rest)) if !name.contains(':') => (Some(name), rest),
        _ => (None, text),
    };
    let (url, pid) = match rest.rsplit_once(',') {
        Some((url, pid)) => {
            let pid = pid.parse().map_err(|_| Failure::usage(format!("{pid:?} isn't a process id")))?;
            (url, Some(pid))
        }
        None => (rest, None),
    };
    let url: reqwest::Url = url.parse().map_err(|e| Failure::usage(format!("{url:?} isn't a URL: {e}")))?;
    Ok(query::Target {
        name: name.map_or_else(|| url.authority().to_owned(), str::to_owned),
        process: pid.map(Process::open).transpose()?,
        url,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_url_with_or_without_name_and_process() {
        let bare = parse_target("http://127.0.0.1:9090").unwrap();
        assert_eq!((bare.name.as_str(), bare.process), ("127.0.0.1:9090", None));
        let me = std::process::id();
        let full = parse_target(&format!("peer=http://127.0.0.1:9090,{me}")).unwrap();
        assert_eq!((full.name.as_str(), full.process.is_some()), ("peer", true));
        assert!(matches!(parse_target("http://127.0.0.1:9090,x"), Err(Failure::Usage(_))));
        assert!(parse_target("nonsense").is_err());
    }

    #[test]
    fn headers_have_a_name_and_a_value() {
        assert_eq!(parse_header("X-Scope-OrgID: a"), Ok(("X-Scope-OrgID".to_owned(), "a".to_owned())));
        assert!(parse_header("nothing").is_err());
    }
}
