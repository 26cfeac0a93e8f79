//! Workload A: what a fleet of machines with node_exporter sends.
//!
//! An instance has [`SERIES_PER_INSTANCE`] series under `METRICS`'s names, with six to eight labels each; the number
//! of series asked for decides how many instances there are. Values are a pure function of seed, series and scrape
//! (counters with steady and jittered rates, gauges, constants), so any part can be made at any time, and twice alike.
//!
//! The label `collector` names a metric's family, so that series differ even without their name: Prometheus 2 refuses
//! `rate({__name__=~"…"}[5m])` where they don't.

use tsdb::model::METRIC_NAME;

/// Series of one instance: the sum of all variants of `METRICS`.
pub const SERIES_PER_INSTANCE: usize = 250;

/// The metric that workload B asks: a counter with [`QUERIED_PER_INSTANCE`] series an instance.
pub const QUERIED_METRIC: &str = "node_cpu_seconds_total";

/// Series of [`QUERIED_METRIC`] an instance: 10,000 of 100,000.
pub const QUERIED_PER_INSTANCE: usize = 25;

/// How many values the label `job` has.
const JOBS: usize = 10;
const ZONES: usize = 3;

/// How a metric's values go.
#[derive(Clone, Copy, Debug)]
enum Signal {
    /// A counter that grows by the same amount each scrape.
    Steady(f64),
    /// A counter that grows by this much on average, never by the same amount twice.
    Jittered(f64),
    /// A value around this one that wanders and flickers.
    Gauge(f64),
    /// A value that never changes.
    Constant(f64),
}

struct Metric {
    name: &'static str,
    collector: &'static str,
    signal: Signal,
    variants: Variants,
}

/// The labels that tell the series of one metric and instance apart.
#[derive(Clone, Copy, Debug)]
enum Variants {
    One,
    Numbered { label: &'static str, prefix: &'static str, count: usize },
    Crossed { first: (&'static str, usize), second: (&'static str, &'static [&'static str]) },
}

impl Variants {
    const fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Numbered { count, .. } => count,
            Self::Crossed { first, second } => first.1 * second.1.len(),
        }
    }
}

const CPU_MODES: &[&str] = &["idle", "iowait", "system", "user", "softirq"];
const MOUNTS: &[&str] = &["/", "/boot/efi", "/var/lib/containers", "/srv/data"];
const NETWORK: Variants = Variants::Numbered { label: "device", prefix: "eth", count: 9 };
const DISKS: Variants = Variants::Numbered { label: "device", prefix: "nvme0n", count: 8 };
const FILESYSTEMS: Variants = Variants::Crossed { first: ("device", 3), second: ("mountpoint", MOUNTS) };
const CPUS: Variants = Variants::Numbered { label: "cpu", prefix: "", count: 10 };

const fn metric(name: &'static str, collector: &'static str, signal: Signal, variants: Variants) -> Metric {
    Metric { name, collector, signal, variants }
}

/// 25 metrics; the first is [`QUERIED_METRIC`].
const METRICS: [Metric; 25] = [
    metric(
        QUERIED_METRIC,
        "cpu",
        Signal::Jittered(3.75),
        Variants::Crossed { first: ("cpu", 5), second: ("mode", CPU_MODES) },
    ),
    metric(
        "node_network_receive_bytes_total",
        "netdev.receive_bytes",
        Signal::Jittered(1_500_000.0),
        NETWORK,
    ),
    metric(
        "node_network_transmit_bytes_total",
        "netdev.transmit_bytes",
        Signal::Jittered(900_000.0),
        NETWORK,
    ),
    metric(
        "node_network_receive_packets_total",
        "netdev.receive_packets",
        Signal::Jittered(2_100.0),
        NETWORK,
    ),
    metric(
        "node_network_transmit_packets_total",
        "netdev.transmit_packets",
        Signal::Jittered(1_700.0),
        NETWORK,
    ),
    metric("node_network_receive_errs_total", "netdev.receive_errs", Signal::Constant(0.0), NETWORK),
    metric("node_network_transmit_errs_total", "netdev.transmit_errs", Signal::Constant(0.0), NETWORK),
    metric("node_network_receive_drop_total", "netdev.receive_drop", Signal::Constant(17.0), NETWORK),
    metric("node_network_transmit_drop_total", "netdev.transmit_drop", Signal::Constant(0.0), NETWORK),
    metric("node_disk_read_bytes_total", "diskstats.read_bytes", Signal::Jittered(4_096_000.0), DISKS),
    metric("node_disk_written_bytes_total", "diskstats.written_bytes", Signal::Jittered(8_192_000.0), DISKS),
    metric("node_disk_reads_completed_total", "diskstats.reads_completed", Signal::Jittered(600.0), DISKS),
    metric("node_disk_writes_completed_total", "diskstats.writes_completed", Signal::Steady(900.0), DISKS),
    metric("node_disk_io_time_seconds_total", "diskstats.io_time", Signal::Jittered(1.25), DISKS),
    metric("node_disk_io_time_weighted_seconds_total", "diskstats.weighted", Signal::Steady(1.5), DISKS),
    metric("node_filesystem_size_bytes", "filesystem.size", Signal::Constant(512_110_190_592.0), FILESYSTEMS),
    metric("node_filesystem_avail_bytes", "filesystem.avail", Signal::Gauge(214_748_364_800.0), FILESYSTEMS),
    metric("node_filesystem_free_bytes", "filesystem.free", Signal::Gauge(240_518_168_576.0), FILESYSTEMS),
    metric("node_filesystem_files_free", "filesystem.files_free", Signal::Gauge(31_000_000.0), FILESYSTEMS),
    metric(
        "node_hwmon_temp_celsius",
        "hwmon",
        Signal::Gauge(46.0),
        Variants::Numbered { label: "sensor", prefix: "temp", count: 15 },
    ),
    metric("node_cpu_scaling_frequency_hertz", "cpufreq", Signal::Gauge(2_400_000_000.0), CPUS),
    metric("node_softnet_processed_total", "softnet", Signal::Steady(4_500.0), CPUS),
    metric("node_schedstat_running_seconds_total", "schedstat", Signal::Jittered(2.5), CPUS),
    metric(
        "node_systemd_unit_state",
        "systemd",
        Signal::Constant(1.0),
        Variants::Numbered { label: "name", prefix: "unit-", count: 11 },
    ),
    metric("node_load1", "loadavg", Signal::Gauge(3.2), Variants::One),
];

/// The series of workload A and their values.
#[derive(Clone, Debug)]
pub struct Workload {
    series: usize,
    seed: u64,
}

impl Workload {
    /// `series` is taken as it is: the last instance may be cut short.
    pub fn new(series: usize, seed: u64) -> Self {
        Self { series, seed }
    }

    /// How many series there are.
    pub fn series(&self) -> usize {
        self.series
    }

    /// How many instances they make.
    pub fn instances(&self) -> usize {
        self.series.div_ceil(SERIES_PER_INSTANCE)
    }

    /// Labels of a series, sorted by name.
    pub fn labels(&self, series: usize) -> Vec<(&'static str, String)> {
        let (instance, metric, variant) = locate(series);
        let mut labels = vec![
            (METRIC_NAME, metric.name.to_owned()),
            ("cluster", "prod-eu-1".to_owned()),
            ("collector", metric.collector.to_owned()),
            ("instance", format!("host-{instance:05}.example.net:9100")),
            ("job", format!("node-{}", instance % JOBS)),
            ("zone", format!("eu-1{}", char::from(b'a' + (instance % ZONES) as u8))),
        ];
        match metric.variants {
            Variants::One => {}
            Variants::Numbered { label, prefix, .. } => labels.push((label, format!("{prefix}{variant}"))),
            Variants::Crossed { first, second } => {
                labels.push((first.0, format!("{}", variant / second.1.len())));
                labels.push((second.0, second.1[variant % second.1.len()].to_owned()));
            }
        }
        labels.sort_unstable_by_key(|(name, _)| *name);
        labels
    }

    /// When an instance is scraped, in milliseconds after the scrape's beginning: targets are spread over the interval.
    pub fn offset_ms(&self, series: usize, step_ms: i64) -> i64 {
        let instances = self.instances().max(1) as i64;
        step_ms * (series / SERIES_PER_INSTANCE) as i64 / instances
    }

    /// A series' value at a scrape.
    pub fn value(&self, series: usize, scrape: usize) -> f64 {
        let (_, metric, _) = locate(series);
        let own = mix(self.seed ^ series as u64);
        let noise = unit(mix(own ^ (scrape as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        // Each series has its own scale, so that compression finds no more in the data than in real ones.
        let scale = 0.5 + unit(own);
        match metric.signal {
            Signal::Steady(rate) => round(rate, rate * scale * (1000.0 + scrape as f64)),
            // The jitter stays below one step: a counter never falls.
            Signal::Jittered(rate) => round(rate, rate * scale * (1000.0 + scrape as f64 + 0.9 * noise)),
            Signal::Gauge(mean) => {
                let wave = (scrape as f64 / 40.0 + scale).sin();
                round(mean, mean * scale * (1.0 + 0.05 * wave + 0.01 * noise))
            }
            Signal::Constant(value) => value,
        }
    }
}

/// Instance, metric and variant of a series.
fn locate(series: usize) -> (usize, &'static Metric, usize) {
    let mut rest = series % SERIES_PER_INSTANCE;
    for metric in &METRICS {
        match rest.checked_sub(metric.variants.count()) {
            None => return (series / SERIES_PER_INSTANCE, metric, rest),
            Some(left) => rest = left,
        }
    }
    unreachable!("the metrics' variants sum up to SERIES_PER_INSTANCE")
}

/// Large values are whole, small ones have the hundredths that an exporter shows.
fn round(magnitude: f64, value: f64) -> f64 {
    if magnitude < 100.0 { (value * 100.0).round() / 100.0 } else { value.round() }
}

/// SplitMix64's finalizer (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// To `[0, 1)`.
fn unit(x: u64) -> f64 {
    (x >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn variants_sum_up_to_an_instance() {
        assert_eq!(METRICS.iter().map(|m| m.variants.count()).sum::<usize>(), SERIES_PER_INSTANCE);
        assert_eq!((METRICS[0].name, METRICS[0].variants.count()), (QUERIED_METRIC, QUERIED_PER_INSTANCE));
    }

    #[test]
    fn series_differ_even_without_their_name() {
        let workload = Workload::new(1000, 1);
        let all: BTreeSet<_> = (0..1000).map(|s| workload.labels(s)).collect();
        let nameless: BTreeSet<_> = all.iter().map(|l| l[1..].to_vec()).collect();
        assert_eq!((all.len(), nameless.len()), (1000, 1000));
    }

    #[test]
    fn labels_are_sorted_six_to_eight_and_full() {
        let workload = Workload::new(SERIES_PER_INSTANCE, 1);
        for series in 0..SERIES_PER_INSTANCE {
            let labels = workload.labels(series);
            assert!((6..=8).contains(&labels.len()), "{labels:?}");
            assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "{labels:?}");
            assert!(labels.iter().all(|(_, value)| !value.is_empty()), "{labels:?}");
        }
    }

    #[test]
    fn counters_never_fall() {
        let workload = Workload::new(SERIES_PER_INSTANCE, 7);
        for series in 0..SERIES_PER_INSTANCE {
            if workload.labels(series)[0].1.ends_with("_total") {
                let values: Vec<f64> = (0..500).map(|scrape| workload.value(series, scrape)).collect();
                assert!(values.is_sorted(), "{:?}", workload.labels(series));
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_values() {
        let (a, b, c) = (Workload::new(250, 1), Workload::new(250, 1), Workload::new(250, 2));
        let of = |w: &Workload| (0..250).map(|s| w.value(s, 9).to_bits()).collect::<Vec<_>>();
        assert_eq!(of(&a), of(&b));
        assert_ne!(of(&a), of(&c));
    }

    #[test]
    fn targets_are_spread_over_the_interval() {
        let workload = Workload::new(1000, 1);
        assert_eq!([0, 250, 500, 750].map(|s| workload.offset_ms(s, 15_000)), [0, 3750, 7500, 11_250]);
    }
}
