//! Bytes between nodes of a question that only aggregates: with series fetched, and with owners that aggregate.
//!
//! `CARILLON_PUSH_SERIES=100000` measures what `docs/benchmarks.md` shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::cluster::Cluster;
use tests::{Http, now_ms, wire};

/// Few enough for CI.
const SERIES: usize = 4_000;
/// Series in one request.
const BATCH: usize = 500;
const JOBS: usize = 10;
/// An hour, and what the first window needs.
const SAMPLES: i64 = 66;
const STEP_MS: i64 = 60_000;
/// How old samples are when they come, as from a scraper that sends them by the batch: all that come while a question is
/// asked belong into its range.
const LATE_MS: i64 = 5_000;
/// Questions of each kind; the cheapest counts, since gossip and writes go on meanwhile.
const ROUNDS: usize = 5;

fn series() -> usize {
    std::env::var("CARILLON_PUSH_SERIES").ok().and_then(|n| n.parse().ok()).unwrap_or(SERIES)
}

/// Writes samples of some series: of each one a time.
async fn write(node: &Http, some: std::ops::Range<usize>, times_ms: &[i64]) {
    let names: Vec<_> =
        some.map(|i| (format!("{}", i % JOBS), format!("host-{i:06}.example.org:9100"), i)).collect();
    let labels: Vec<_> = names
        .iter()
        .map(|(job, instance, _)| {
            [("__name__", "http_requests_total"), ("instance", instance.as_str()), ("job", job.as_str())]
        })
        .collect();
    let mut samples = Vec::with_capacity(labels.len() * times_ms.len());
    for at_ms in times_ms {
        for (labels, (_, _, i)) in labels.iter().zip(&names) {
            // Counters that go up by something else each time.
            let minutes = at_ms / STEP_MS;
            let value = minutes * 100 + (minutes * 7919 + *i as i64 * 104_729) % 97;
            samples.push((&labels[..], value as f64, *at_ms));
        }
    }
    let answer = node.write(wire::body(&samples)).await;
    assert!(answer.status < 300, "{answer:?}");
}

/// All bytes that nodes have sent to each other.
async fn sent(cluster: &Cluster) -> u64 {
    let mut all = 0;
    for node in cluster.running() {
        let metrics = cluster.http(node).get("/metrics", &[]).await;
        let line = metrics.body.lines().find_map(|line| line.strip_prefix("carillon_peer_sent_bytes_total "));
        all += line.unwrap().parse::<f64>().unwrap() as u64;
    }
    all
}

/// One way of asking.
struct Way {
    bytes: u64,
    took: Duration,
    result: Value,
}

/// Asks for an hour until then, or until now.
async fn ask(cluster: &Cluster, push_down: &str, end_ms: Option<i64>) -> Way {
    let mut best: Option<Way> = None;
    for _ in 0..ROUNDS {
        let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
        let end_ms = end_ms.unwrap_or_else(now_ms);
        let (start, end) = (seconds(end_ms - 60 * STEP_MS), seconds(end_ms));
        let parameters = [
            ("query", "sum by (job) (rate(http_requests_total[5m]))"),
            ("start", &start),
            ("end", &end),
            ("step", "60"),
            ("stats", "1"),
            ("push_down", push_down),
        ];
        let (before, began) = (sent(cluster).await, Instant::now());
        let answer = cluster.http(0).get("/api/v1/query_range", &parameters).await;
        let (took, bytes) = (began.elapsed(), sent(cluster).await - before);
        assert!(answer.status < 300, "{answer:?}");
        assert!(answer.header("x-carillon-coverage").unwrap().starts_with("complete"));
        let mut data = answer.json()["data"].take();
        let how = data["stats"]["carillon"]["pushDown"].as_str().unwrap().to_owned();
        // Where a node is slow, series may be fetched all the same.
        if (how == "done") != (push_down == "true") {
            println!("not counted: {how}");
            continue;
        }
        if best.as_ref().is_none_or(|best| bytes < best.bytes) {
            best = Some(Way { bytes, took, result: data["result"].take() });
        }
    }
    best.expect("one of several is done as it was to be")
}

/// Measures a cluster: how many times fewer bytes there are with writes stopped, with writes running, and with those of
/// samples that are a while old when they come.
async fn ratios(nodes: usize) -> [f64; 3] {
    let cluster = Cluster::start(nodes, nodes).await;
    cluster.all_ready(60).await;
    let (series, now) = (series(), now_ms());
    let times: Vec<i64> = (0..SAMPLES).map(|n| now - (SAMPLES - 1 - n) * STEP_MS).collect();
    for first in (0..series).step_by(BATCH) {
        write(&cluster.http(first / BATCH % nodes), first..(first + BATCH).min(series), &times).await;
    }
    cluster.replicas_equal(60).await;
    let fetched = ask(&cluster, "false", Some(now)).await;
    let pushed = ask(&cluster, "true", Some(now)).await;
    assert_eq!(pushed.result, fetched.result);
    assert_eq!(pushed.result.as_array().unwrap().len(), JOBS);
    let stopped = tell(nodes, series, "stopped", &fetched, &pushed);

    // Each series again each minute, evenly.
    let (stop, late_ms) = (Arc::<AtomicBool>::default(), Arc::<AtomicI64>::default());
    let writing = tokio::spawn({
        let (stop, late_ms, node) = (stop.clone(), late_ms.clone(), cluster.http(1));
        async move {
            let pause = Duration::from_millis(60_000 * (BATCH / 5) as u64 / series as u64);
            let mut first = 0;
            while !stop.load(Ordering::Relaxed) {
                let end = (first + BATCH / 5).min(series);
                let began = Instant::now();
                write(&node, first..end, &[now_ms() - late_ms.load(Ordering::Relaxed)]).await;
                first = if end == series { 0 } else { end };
                tokio::time::sleep(pause.saturating_sub(began.elapsed())).await;
            }
        }
    });
    let mut ratios = [stopped, 0.0, 0.0];
    for (ratio, (writes, late)) in ratios[1..].iter_mut().zip([("running", 0), ("running late", LATE_MS)]) {
        late_ms.store(late, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(2)).await;
        // Both over the last hour up to now: answers differ by what comes between them.
        let fetched = ask(&cluster, "false", None).await;
        let pushed = ask(&cluster, "true", None).await;
        *ratio = tell(nodes, series, writes, &fetched, &pushed);
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    // What they wrote is everywhere: then the answers are equal again.
    cluster.replicas_equal(60).await;
    let end = Some(now_ms());
    assert_eq!(ask(&cluster, "true", end).await.result, ask(&cluster, "false", end).await.result);
    ratios
}

fn tell(nodes: usize, series: usize, writes: &str, fetched: &Way, pushed: &Way) -> f64 {
    let ratio = fetched.bytes as f64 / pushed.bytes as f64;
    println!(
        "PUSH_DOWN nodes={nodes} series={series} writes={writes} fetched={} B in {:?}, pushed={} B in {:?}: {ratio:.1}x",
        fetched.bytes, fetched.took, pushed.bytes, pushed.took
    );
    ratio
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_that_aggregate_send_far_less() {
    for nodes in [3, 5] {
        let [stopped, running, late] = ratios(nodes).await;
        // Digests cost the same however many series there are, so it takes many of them to show what it saves.
        let (least_stopped, least_running) = if series() >= 100_000 { (50.0, 10.0) } else { (3.0, 1.0) };
        assert!(stopped >= least_stopped, "{nodes} nodes, writes stopped: {stopped:.1}x");
        assert!(running >= least_running, "{nodes} nodes, writes running: {running:.1}x");
        assert!(late >= least_running, "{nodes} nodes, writes running late: {late:.1}x");
    }
}
