//! `bench write`: workload A or C, as fast as the server takes it, to any remote-write URL.
//!
//! Each connection sends its own requests one after the other. None runs more than `MAX_LEAD_SCRAPES` ahead of the
//! slowest, as wall time would keep them together; the server never sees one series long before another. A cluster is
//! measured as a whole: connections take its nodes in turn, and costs are those of all named processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::payload::{Request, Requests, Timing};
use super::process::Process;
use super::workload::Workload;
use super::{Error, expressions, percentile};
use crate::error_text::causes;

/// How far a connection may be ahead of the slowest.
const MAX_LEAD_SCRAPES: usize = 2;

/// How much of an error's body is shown.
const MAX_SHOWN_BODY_CHARS: usize = 500;

/// Between two attempts to send the same request.
const RETRY_EVERY: Duration = Duration::from_millis(30);

/// A server that doesn't answer for this long has failed the benchmark.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// What to send, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whole URLs, with their paths, at least one; connections take them in turn.
    pub urls: Vec<reqwest::Url>,
    /// Further headers, such as a tenant's.
    pub headers: Vec<(String, String)>,
    /// The series and their values.
    pub load: Load,
    /// When they are said to have been scraped.
    pub timing: Timing,
    /// How many connections send at once, at least 1.
    pub connections: usize,
    /// The server's processes, if it is to be measured.
    pub processes: Vec<Process>,
    /// Most samples a second; `None` = as fast as the server takes them.
    pub rate: Option<f64>,
    /// How long a request is sent again when nobody answers, or with 5xx, as a Prometheus would.
    pub patience: Duration,
    /// How long to wait after the last answer before the last look at the server's CPU time, so that work it put off
    /// counts too.
    pub settle: Duration,
}

/// What is sent.
#[derive(Clone, Debug)]
pub enum Load {
    /// Workload A, with `batch` series of one sample a request, at least 1.
    Machines {
        /// The series.
        workload: Workload,
        /// How many a request.
        batch: usize,
    },
    /// Workload C.
    Expressions,
}

impl Load {
    fn series(&self) -> usize {
        match self {
            Self::Machines { workload, .. } => workload.series(),
            Self::Expressions => expressions::series(),
        }
    }

    /// The requests of one connection, in order.
    fn requests(
        &self,
        timing: Timing,
        connection: usize,
        connections: usize,
    ) -> Box<dyn Iterator<Item = Request> + Send> {
        match self {
            Self::Machines { workload, batch } => {
                Box::new(Requests::new(workload, timing, connection, connections, *batch))
            }
            Self::Expressions => Box::new(expressions::Requests::new(timing, connection, connections)),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Samples acknowledged.
    pub samples: u64,
    /// Requests acknowledged.
    pub requests: u64,
    /// Compressed bytes sent, bodies alone.
    pub sent_bytes: u64,
    /// From the first request to the last answer, in seconds.
    pub wall_s: f64,
    /// Timestamp of the first sample, and after the last: what to query.
    pub start_ms: i64,
    /// See `start_ms`.
    pub end_ms: i64,
    /// Milliseconds from a request's first byte to its answer.
    pub request_p50_ms: f64,
    /// See `request_p50_ms`.
    pub request_p99_ms: f64,
    /// The server's costs, where its process was named.
    pub server: Option<ServerCost>,
}

/// What the server's process used.
#[derive(Clone, Debug, Serialize)]
pub struct ServerCost {
    /// User and system time, in seconds.
    pub cpu_s: f64,
    /// The headline.
    pub samples_per_cpu_s: f64,
    /// Mean of the samples taken after each scrape of the last half, in bytes a series.
    pub resident_bytes_per_series_mean: f64,
    /// Most of those samples, in bytes a series.
    pub resident_bytes_per_series_most: f64,
    /// Most of those samples, in bytes.
    pub resident_bytes_most: u64,
}

/// Sends everything. `progress` hears of samples as they are acknowledged.
///
/// # Errors
/// At the first request that isn't answered with success, naming the answer.
pub async fn run(
    settings: &Settings,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<Report, Error> {
    let client = client(settings)?;
    let cpu_before_s = cpu_s(&settings.processes)?;
    let pace = Arc::new(Pace::new(settings.connections));
    let progress = Arc::new(progress);
    let begin = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for connection in 0..settings.connections {
        let requests = settings.load.requests(settings.timing, connection, settings.connections);
        let sender = Sender {
            connection,
            client: client.clone(),
            url: settings.urls[connection % settings.urls.len()].clone(),
            pace: Arc::clone(&pace),
            // One connection watches memory, so that it is sampled once a scrape.
            watched: if connection == 0 { settings.processes.clone() } else { Vec::new() },
            watch_from: settings.timing.scrapes / 2,
            samples_per_s: settings.rate.map(|rate| rate / settings.connections as f64),
            patience: settings.patience,
        };
        let progress = Arc::clone(&progress);
        senders.spawn(async move { sender.run(requests, &*progress).await });
    }
    let mut sum = Sent::default();
    while let Some(sent) = senders.join_next().await {
        sum.add(sent.map_err(|e| Error::new(format!("a sender failed: {e}")))??);
    }
    let wall_s = begin.elapsed().as_secs_f64();
    tokio::time::sleep(settings.settle).await;
    sum.latencies_us.sort_unstable();
    let server = if settings.processes.is_empty() {
        None
    } else {
        // A very short run may end before its second half had a whole scrape.
        if sum.resident_bytes.is_empty() {
            sum.resident_bytes.push(resident_bytes(&settings.processes)?);
        }
        let spent_s = cpu_s(&settings.processes)? - cpu_before_s;
        Some(server_cost(&sum, spent_s, settings.load.series()))
    };
    Ok(Report {
        samples: sum.samples,
        requests: sum.latencies_us.len() as u64,
        sent_bytes: sum.sent_bytes,
        wall_s,
        start_ms: settings.timing.start_ms,
        end_ms: settings.timing.end_ms(),
        request_p50_ms: percentile(&sum.latencies_us, 0.50) as f64 / 1000.0,
        request_p99_ms: percentile(&sum.latencies_us, 0.99) as f64 / 1000.0,
        server,
    })
}

fn client(settings: &Settings) -> Result<reqwest::Client, Error> {
    let fixed = [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];
    let own = settings.headers.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    crate::client::client(fixed.into_iter().chain(own), REQUEST_TIMEOUT).map_err(Error)
}

/// CPU time of all, in seconds.
fn cpu_s(processes: &[Process]) -> Result<f64, Error> {
    processes.iter().map(Process::cpu_s).sum()
}

/// Resident memory of all, in bytes.
fn resident_bytes(processes: &[Process]) -> Result<u64, Error> {
    processes.iter().map(Process::resident_bytes).sum()
}

fn server_cost(sum: &Sent, cpu_s: f64, series: usize) -> ServerCost {
    let most = sum.resident_bytes.iter().copied().max().unwrap_or(0);
    let mean = sum.resident_bytes.iter().sum::<u64>() as f64 / sum.resident_bytes.len().max(1) as f64;
    ServerCost {
        cpu_s,
        samples_per_cpu_s: sum.samples as f64 / cpu_s,
        resident_bytes_per_series_mean: mean / series as f64,
        resident_bytes_per_series_most: most as f64 / series as f64,
        resident_bytes_most: most,
    }
}

/// What one connection, or all, sent.
#[derive(Default)]
struct Sent {
    samples: u64,
    sent_bytes: u64,
    latencies_us: Vec<u64>,
    resident_bytes: Vec<u64>,
}

impl Sent {
    fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.sent_bytes += other.sent_bytes;
        self.latencies_us.extend(other.latencies_us);
        self.resident_bytes.extend(other.resident_bytes);
    }
}

/// Why a request wasn't taken.
struct Failure {
    error: Error,
    /// Whether it may be taken when it is sent again.
    passes: bool,
}

struct Sender {
    connection: usize,
    client: reqwest::Client,
    url: reqwest::Url,
    pace: Arc<Pace>,
    watched: Vec<Process>,
    watch_from: usize,
    samples_per_s: Option<f64>,
    patience: Duration,
}

impl Sender {
    async fn run(
        self,
        requests: impl Iterator<Item = Request>,
        progress: &(impl Fn(u64) + Send + Sync),
    ) -> Result<Sent, Error> {
        let mut sent = Sent::default();
        let mut scrapes_done = 0;
        let start = Instant::now();
        for request in requests {
            self.pace.wait(self.connection).await;
            if let Some(rate) = self.samples_per_s {
                tokio::time::sleep_until(start + Duration::from_secs_f64(sent.samples as f64 / rate)).await;
            }
            sent.sent_bytes += request.body.len() as u64;
            let begin = Instant::now();
            while let Err(failure) = self.post(&request.body).await {
                if !failure.passes || begin.elapsed() >= self.patience {
                    return Err(failure.error);
                }
                tokio::time::sleep(RETRY_EVERY).await;
            }
            sent.latencies_us.push(begin.elapsed().as_micros() as u64);
            sent.samples += request.samples as u64;
            progress(request.samples as u64);
            if request.scrapes_done > scrapes_done {
                scrapes_done = request.scrapes_done;
                self.pace.done(self.connection, scrapes_done);
                if !self.watched.is_empty() && scrapes_done > self.watch_from {
                    sent.resident_bytes.push(resident_bytes(&self.watched)?);
                }
            }
        }
        self.pace.done(self.connection, usize::MAX);
        Ok(sent)
    }

    async fn post(&self, body: &Bytes) -> Result<(), Failure> {
        let failed = |e: reqwest::Error| Failure {
            error: Error::new(format!("can't write to {}: {}", self.url, causes(&e))),
            passes: true,
        };
        let answer = self.client.post(self.url.clone()).body(body.clone()).send().await.map_err(failed)?;
        let status = answer.status();
        // The body is read in any case: the connection is then used again.
        let text = answer.text().await.map_err(failed)?;
        if status.is_success() {
            return Ok(());
        }
        let shown: String = text.trim().chars().take(MAX_SHOWN_BODY_CHARS).collect();
        let error = Error::new(format!("{} answered {status}: {shown}", self.url));
        Err(Failure { error, passes: status.is_server_error() })
    }
}

/// Keeps the connections together.
struct Pace {
    scrapes: Vec<AtomicUsize>,
    moved: Notify,
}

impl Pace {
    fn new(connections: usize) -> Self {
        Self { scrapes: (0..connections).map(|_| AtomicUsize::new(0)).collect(), moved: Notify::new() }
    }

    fn done(&self, connection: usize, scrapes: usize) {
        self.scrapes[connection].store(scrapes, Ordering::Release);
        self.moved.notify_waiters();
    }

    fn slowest(&self) -> usize {
        self.scrapes.iter().map(|s| s.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    async fn wait(&self, connection: usize) {
        loop {
            // Registered before looking, so that a step between the look and the wait isn't missed.
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            if self.scrapes[connection].load(Ordering::Acquire) <= self.slowest() + MAX_LEAD_SCRAPES {
                return;
            }
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_waits_for_the_slowest() {
        let pace = Arc::new(Pace::new(2));
        pace.done(0, MAX_LEAD_SCRAPES + 1);
        let waiting = tokio::spawn({
            let pace = Arc::clone(&pace);
            async move { pace.wait(0).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        pace.done(1, 1);
        waiting.await.unwrap();
    }

    #[test]
    fn costs_are_by_series() {
        let sum = Sent { samples: 1000, resident_bytes: vec![1000, 3000], ..Sent::default() };
        let cost = server_cost(&sum, 2.0, 10);
        assert_eq!(
            (
                cost.samples_per_cpu_s,
                cost.resident_bytes_per_series_mean,
                cost.resident_bytes_per_series_most
            ),
            (500.0, 200.0, 300.0)
        );
    }
}
