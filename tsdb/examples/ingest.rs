//! What writing costs the engine alone: look-up, append and commit of node_exporter-like series, memory a series, and
//! the time that a restart takes.
//!
//! `cargo run --release -p tsdb --example ingest -- [SERIES] [SCRAPES]` (default 100,000 and 260) works in a temporary
//! folder and prints a table. Times are CPU time of one thread, waiting for the disk not included; neither is making the payload.

#![allow(clippy::disallowed_methods, reason = "a measurement reads what the system says of it")]
#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use tsdb::Result;
use tsdb::clock::ClockReading;
use tsdb::db::{Append, Bounds, Db, DbSettings, Maintenance, SeriesKey, SeriesRef};
use tsdb::disk::OsDisk;
use tsdb::model::{Labels, Matcher, Sample, TenantId};
use tsdb::select::Select;
use tsdb::workers::Inline;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 2_000;
const STEP_MS: i64 = 15_000;
const START_MS: i64 = 1_700_006_400_000;
const METRICS: usize = 25;
const LATER_SELECTS: u32 = 10;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let series: usize = arguments.next().unwrap_or(100_000);
    let scrapes: usize = arguments.next().unwrap_or(260);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let open = || -> Result<(Db, tsdb::db::Recovery)> {
        let disk = OsDisk::open(folder.path()).expect("the folder can be opened");
        Db::open(Arc::new(disk), DbSettings::default(), START_MS, 42, &Inline)
    };
    let (db, _) = open()?;
    let tenant = db.tenant(&TenantId::new("bench")?)?;
    let keys: Vec<SeriesKey> = (0..series as u128).map(|i| SeriesKey(spread(i))).collect();
    let before = resident_bytes();
    let (mut intern, mut lookup, mut append, mut commit, mut maintain) = Default::default();
    let mut found: Vec<SeriesRef> = Vec::new();
    let mut batch = Vec::new();
    let mut outcomes = Vec::new();
    let mut most = 0;
    for scrape in 0..scrapes {
        // Batch boundaries shift with every scrape, as those of real senders do.
        let shift = scrape * 613 % BATCH;
        for start in (0..series + shift).step_by(BATCH) {
            let range = start.saturating_sub(shift)..(start + BATCH - shift).min(series);
            if range.is_empty() {
                continue;
            }
            timed(&mut lookup, || tenant.lookup(&keys[range.clone()], &mut found));
            timed(&mut intern, || {
                for (i, series) in range.clone().zip(&mut found).filter(|(_, series)| series.is_none()) {
                    *series = tenant.intern(keys[i], &labels(i)).expect("there is room for it");
                }
            });
            let timestamp_ms = START_MS + scrape as i64 * STEP_MS + (range.start / BATCH) as i64 * 7;
            batch.clear();
            batch.extend(range.zip(&found).map(|(i, series)| Append {
                series: *series,
                sample: Sample::float(timestamp_ms + (i / 500 % 1000) as i64, value(i, scrape)),
            }));
            timed(&mut append, || tenant.append(&batch, &Bounds::ALL, &mut outcomes))?;
            assert!(outcomes.iter().all(|outcome| outcome.is_ack()), "everything is in order");
            if start / BATCH % 4 == 3 {
                timed(&mut commit, || db.commit())?;
            }
        }
        timed(&mut commit, || db.commit())?;
        timed(&mut maintain, || maintain_at(&db, scrape as i64 * STEP_MS))?;
        if scrape > scrapes / 2 {
            most = most.max(resident_bytes());
        }
    }
    let samples = (series * scrapes) as f64;
    let ns = |time: Duration| time.as_nanos() as f64 / samples;
    println!("series {series}, scrapes {scrapes}, samples {samples}");
    println!("intern    {:8.1} µs a series", intern.as_secs_f64() * 1e6 / series as f64);
    println!("lookup    {:8.1} ns a sample", ns(lookup));
    println!("append    {:8.1} ns a sample", ns(append));
    println!("commit    {:8.1} ns a sample ", ns(commit));
    println!("maintain  {:8.1} ns a sample", ns(maintain));
    println!(
        "resident  {:8} bytes a series at the end, {} at most",
        per(resident_bytes(), before, series),
        per(most, before, series)
    );
    let stats = db.stats();
    println!("          series {} labels {} keys {}", stats.series_bytes, stats.label_bytes, stats.key_bytes);
    let end_ms = START_MS + scrapes as i64 * STEP_MS;
    for (what, matcher, minutes) in [
        ("instant, all", Matcher::equal("job", "node"), 5),
        ("one metric, 1 h", Matcher::equal("__name__", "node_metric_7_total"), 60),
    ] {
        let range_ms = end_ms - minutes * 60_000..=end_ms;
        let question = Select { matchers: vec![matcher], range_ms, shard: None };
        let (mut first, mut later) = (Duration::ZERO, Duration::ZERO);
        let count = timed(&mut first, || tenant.select(&question))?.len();
        maintain_at(&db, scrapes as i64 * STEP_MS)?;
        for _ in 0..LATER_SELECTS {
            timed(&mut later, || tenant.select(&question))?;
        }
        let (first, later) =
            (first.as_secs_f64() * 1e3, later.as_secs_f64() * 1e3 / f64::from(LATER_SELECTS));
        println!("select    {first:8.1} ms, later {later:.1} ms: {what}, {count} series");
    }
    drop((tenant, db));
    let mut restart = Duration::ZERO;
    let (db, recovery) = timed(&mut restart, open)?;
    println!(
        "restart   {:8.1} ms: {} series, {} samples from {} bytes of WAL",
        restart.as_secs_f64() * 1e3,
        recovery.series,
        recovery.samples,
        recovery.wal.bytes
    );
    let tenant = db.tenant(&TenantId::new("bench")?)?;
    let mut flush = Duration::ZERO;
    let done = timed(&mut flush, || db.flush(START_MS))?;
    let cut: u64 = done.cut.iter().map(|(_, meta)| meta.stats.num_samples).sum();
    assert!(
        done.problems.is_empty() && cut == samples as u64,
        "all samples end in blocks: {cut}, {:?}",
        done.problems
    );
    println!(
        "cut       {:8.1} M samples a second, {} blocks",
        cut as f64 / flush.as_secs_f64() / 1e6,
        tenant.stats().blocks
    );
    Ok(())
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = cpu_time();
    let result = work();
    *total += cpu_time() - start;
    result
}

/// CPU time of this thread, user and system: what other programs do meanwhile doesn't count.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn per(now: u64, before: u64, series: usize) -> u64 {
    now.saturating_sub(before) / series as u64
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn spread(i: u128) -> u128 {
    i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn labels(i: usize) -> Labels {
    let (instance, metric) = (i / 500, i % METRICS);
    let device = format!("dev{}", i % 500 / METRICS);
    let name = format!("node_metric_{metric}_total");
    let instance = format!("host-{instance:04}.example.com:9100");
    let pairs = [
        ("__name__", name.as_str()),
        ("cluster", "eu-1"),
        ("device", device.as_str()),
        ("instance", instance.as_str()),
        ("job", "node"),
        ("mode", "user"),
        ("zone", "a"),
    ];
    Labels::from_sorted(pairs)
}

/// Counters of steady and of jittered rates, gauges, constants.
fn value(i: usize, scrape: usize) -> f64 {
    let noise = (spread((i * 7919 + scrape) as u128) >> 100) as f64 / (1u64 << 28) as f64;
    match i % 4 {
        0 => (scrape * 15 * (i % 100 + 1)) as f64,
        1 => (scrape * 15 * (i % 100 + 1)) as f64 + (noise * 100.0).floor(),
        2 => (noise * 1000.0).round() / 10.0,
        _ => 1.0,
    }
}

/// Maintenance so many milliseconds after the first scrape.
fn maintain_at(db: &Db, elapsed_ms: i64) -> Result<Maintenance> {
    let elapsed_ms = elapsed_ms.cast_unsigned();
    db.maintain(ClockReading { wall_ms: START_MS.saturating_add_unsigned(elapsed_ms), elapsed_ms })
}
