//! What the node tells of itself on `/metrics`.
//!
//! Counters are raised where things happen; what the engine and the process know is asked when somebody scrapes.

mod exposition;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use promql::value::Stats;

pub use exposition::Format;

use crate::env::Process;
use crate::receive::ingest::{Reason, Report};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    path: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AtPath {
    path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AskedBy {
    asked_by: &'static str,
}

/// Whose question it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryOf {
    /// A client's.
    Client,
    /// Another node's, for a client of its own.
    Peer,
}

/// The node's own metrics.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Request, Counter>,
    request_seconds: Family<AtPath, Histogram, fn() -> Histogram>,
    samples_stored: Counter,
    samples_known: Counter,
    samples_refused: Family<ForReason, Counter>,
    exemplars: Counter,
    query_samples: Counter,
    query_series: Counter,
    query_cpu: Family<AskedBy, Histogram, fn() -> Histogram>,
    /// Bits of a float: not a number where the disk doesn't tell.
    disk_free: Gauge<f64, AtomicU64>,
}

/// 1 ms to 65 s.
fn request_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 9))
}

/// 100 µs to 26 s.
fn cpu_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 4.0, 10))
}

impl Metrics {
    /// Fresh metrics; `process` is asked at each scrape.
    pub fn new(process: Arc<dyn Process>) -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::default()),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(request_buckets),
            samples_stored: Counter::default(),
            samples_known: Counter::default(),
            samples_refused: Family::default(),
            exemplars: Counter::default(),
            query_samples: Counter::default(),
            query_series: Counter::default(),
            query_cpu: Family::new_with_constructor(cpu_buckets),
            disk_free: Gauge::default(),
        };
        {
            let mut registry = metrics.registry.lock();
            registry.register_collector(self::process(process));
            let carillon = registry.sub_registry_with_prefix("carillon");
            let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
            carillon.register("build", "The program's version", version);
            carillon.register("http_requests", "Requests answered", metrics.requests.clone());
            carillon.register(
                "http_request_duration_seconds",
                "Time from a request's headers to its answer's",
                metrics.request_seconds.clone(),
            );
            carillon.register("received_samples_stored", "Samples taken", metrics.samples_stored.clone());
            carillon.register(
                "received_samples_known",
                "Samples that were there already, or lost against another value of their time",
                metrics.samples_known.clone(),
            );
            carillon.register(
                "received_samples_refused",
                "Samples that weren't stored",
                metrics.samples_refused.clone(),
            );
            carillon.register("received_exemplars", "Exemplars taken", metrics.exemplars.clone());
            carillon.register(
                "disk_free_bytes",
                "Room that is left on the disk of the data folder",
                metrics.disk_free.clone(),
            );
            carillon.register("query_samples", "Samples decoded by queries", metrics.query_samples.clone());
            carillon.register("query_series", "Series fetched by queries", metrics.query_series.clone());
            carillon.register(
                "query_cpu_seconds",
                "CPU time of questions, refused ones among them, without reading the request and writing the answer",
                metrics.query_cpu.clone(),
            );
            for reason in Reason::ALL {
                drop(metrics.samples_refused.get_or_create(&ForReason { reason: reason.as_str() }));
            }
        }
        metrics
    }

    /// Adds what somebody else knows, asked at each scrape.
    pub fn collect(&self, collector: Box<dyn Collector>) {
        self.registry.lock().register_collector(collector);
    }

    /// Counts a request; `path` is the route's, not the client's.
    pub fn requested(&self, path: &str, code: u16, took: Duration) {
        let path = path.to_owned();
        self.request_seconds.get_or_create(&AtPath { path: path.clone() }).observe(took.as_secs_f64());
        self.requests.get_or_create(&Request { path, code }).inc();
    }

    /// Counts what became of a batch.
    pub fn received(&self, report: &Report) {
        self.samples_stored.inc_by(report.stored);
        self.samples_known.inc_by(report.known);
        self.exemplars.inc_by(report.exemplars);
        if report.refused() > 0 {
            for reason in Reason::ALL {
                let counter = self.samples_refused.get_or_create(&ForReason { reason: reason.as_str() });
                counter.inc_by(report.refused_for(reason));
            }
        }
    }

    /// Takes how much room the disk has, if it tells.
    pub fn disk_free(&self, bytes: Option<u64>) {
        self.disk_free.set(bytes.map_or(f64::NAN, |bytes| bytes as f64));
    }

    /// Counts what a query took.
    pub fn queried(&self, stats: &Stats) {
        self.query_samples.inc_by(stats.samples);
        self.query_series.inc_by(stats.series);
    }

    /// Takes the CPU time of questions.
    pub fn query_cpu(&self, of: QueryOf) -> Histogram {
        let asked_by = match of {
            QueryOf::Client => "client",
            QueryOf::Peer => "peer",
        };
        self.query_cpu.get_or_create(&AskedBy { asked_by }).clone()
    }

    /// All of them, in OpenMetrics.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 << 10);
        encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }
}

/// A collector that has `tell` asked at each scrape.
pub fn at_scrape(tell: impl Fn(&mut Asked<'_>) -> fmt::Result + Send + Sync + 'static) -> Box<dyn Collector> {
    Box::new(AtScrape(tell))
}

struct AtScrape<F>(F);

impl<F> fmt::Debug for AtScrape<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtScrape")
    }
}

impl<F: Fn(&mut Asked<'_>) -> fmt::Result + Send + Sync + 'static> Collector for AtScrape<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Asked(encoder))
    }
}

/// Writes metrics that are asked for at a scrape.
pub struct Asked<'a>(DescriptorEncoder<'a>);

impl Asked<'_> {
    /// A value that can fall.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.one(name, help, &ConstGauge::new(value))
    }

    /// A value that can fall, where it is known.
    pub fn known_gauge(&mut self, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        value.map_or(Ok(()), |value| ConstGauge::new(value).encode(encoder))
    }

    /// Values that can fall, told apart by one label.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'static str, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&[(label, of)])?)?;
        }
        Ok(())
    }

    /// A value that only grows; `_total` is added to the name.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.one(name, help, &ConstCounter::new(value))
    }

    /// A [counter](Self::counter) that is raised elsewhere.
    pub fn count(&mut self, name: &str, help: &str, raised: &AtomicU64) -> fmt::Result {
        self.counter(name, help, raised.load(Ordering::Relaxed) as f64)
    }

    fn one(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }
}

fn process(process: Arc<dyn Process>) -> Box<dyn Collector> {
    at_scrape(move |out| {
        let usage = process.usage();
        out.counter("process_cpu_seconds", "User and system time", usage.cpu_s)?;
        out.gauge("process_resident_memory_bytes", "Memory in use", usage.resident_bytes as f64)?;
        out.gauge("process_virtual_memory_bytes", "Address space", usage.virtual_bytes as f64)?;
        out.gauge("process_open_fds", "Open file descriptors", usage.open_fds as f64)?;
        out.gauge("process_start_time_seconds", "When the process started", usage.start_s)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Usage;

    struct Fixed;

    impl Process for Fixed {
        fn usage(&self) -> Usage {
            Usage { cpu_s: 1.5, resident_bytes: 7, ..Usage::default() }
        }

        fn thread_cpu(&self) -> Duration {
            Duration::ZERO
        }

        fn release_memory(&self) {}
    }

    #[test]
    fn metrics_are_openmetrics_text() {
        let metrics = Metrics::new(Arc::new(Fixed));
        metrics.requested("/api/v1/query", 200, Duration::from_millis(3));
        metrics.received(&Report { stored: 5, refused: [0, 2, 0, 0, 0, 0], ..Report::default() });
        let text = metrics.text().unwrap();
        for line in [
            "process_cpu_seconds_total 1.5",
            "process_resident_memory_bytes 7",
            "carillon_http_requests_total{path=\"/api/v1/query\",code=\"200\"} 1",
            "carillon_received_samples_stored_total 5",
            "carillon_received_samples_refused_total{reason=\"too_old\"} 2",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
