//! Queries that need far more memory than there is: they end with an error that says what was too large, small ones
//! beside them go on, and the node's memory grows by no more than a small multiple of its budget.
//!
//! With `CARILLON_BUDGET_FIGURES` set, how far resident memory grew is printed, and the CPU time of small queries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::{Answer, Http, NodeProcess, now_ms, wire};

/// Series of the metric `big`, each with a value of its own.
const SERIES: usize = 12_000;
/// Series of one request.
const BATCH: usize = 2_000;
/// Samples of each series.
const SAMPLES: i64 = 30;
const SAMPLE_STEP_MS: i64 = 60_000;
/// Steps of large queries: a row takes 88 KB, and a row of each series a gigabyte.
const STEPS: i64 = 10_999;
const STEP_MS: i64 = 150;
/// What queries may take together: a tenth of that.
const BUDGET: &str = "96MiB";
const BUDGET_BYTES: usize = 96 << 20;
/// What may be resident beside the budget, of it, whether large queries come one after another or all at once.
const SLACK: f64 = 0.2;
/// Small queries at once, each of another series.
const SMALL: usize = 20;
/// How often each of them is asked while no large one is.
const SMALL_ROUNDS: usize = 10;
/// How often each large one is asked with all others.
const LARGE_ROUNDS: usize = 3;

/// Queries that need some ten times the budget, and what they need it for.
const LARGE: [(&str, &str); 9] = [
    ("big", "rows"),
    ("avg_over_time(big[5m])", "rows"),
    ("max_over_time(big[1m:5s])", "rows"),
    ("count_values('v', big)", "rows"),
    ("sum by (instance) (big)", "groups"),
    ("quantile(0.5, big)", "groups"),
    ("big + on (instance) group_left () big", "rows"),
    ("label_replace(big, 'x', '$1', 'instance', '(.*)') or big", "rows"),
    // At each step others are nearest to what is asked for, so that each is picked at some.
    ("topk(20, -abs(big - (time() - START) * 7))", "picked samples"),
];

/// When the first sample was.
async fn load(http: &Http) -> i64 {
    let begin_ms = now_ms() - SAMPLES * SAMPLE_STEP_MS;
    for first in (0..SERIES).step_by(BATCH) {
        let instances: Vec<_> = (first..first + BATCH).map(instance).collect();
        let labels: Vec<_> = instances
            .iter()
            .map(|i| [("__name__", "big"), ("instance", i.as_str()), ("job", "node"), ("zone", "west")])
            .collect();
        for sample in 0..SAMPLES {
            let time_ms = begin_ms + sample * SAMPLE_STEP_MS;
            let numbered = labels.iter().enumerate();
            let samples: Vec<wire::Sample<'_>> =
                numbered.map(|(i, labels)| (&labels[..], (first + i) as f64, time_ms)).collect();
            let answer = http.write(wire::body(&samples)).await;
            assert!(answer.status < 300, "{}", answer.body);
        }
    }
    begin_ms
}

fn instance(number: usize) -> String {
    format!("host-{number}.example.com:9100")
}

fn seconds(ms: i64) -> String {
    format!("{:.3}", ms as f64 / 1000.0)
}

async fn range(http: &Http, query: &str, begin_ms: i64, steps: i64) -> Answer {
    let query = query.replace("START", &seconds(begin_ms));
    let (start, end) = (seconds(begin_ms), seconds(begin_ms + steps * STEP_MS));
    let parameters =
        [("query", &*query), ("start", &start), ("end", &end), ("step", "0.15"), ("stats", "all")];
    http.form("/api/v1/query_range", &parameters).await
}

/// Asks what needs too much, and expects to be told so.
async fn ask_large(http: &Http, (query, what): (&str, &str), begin_ms: i64) {
    let answer = range(http, query, begin_ms, STEPS).await;
    is_too_large(query, &answer, &[what, "query.max_total_memory"]);
}

fn is_too_large(query: &str, answer: &Answer, words: &[&str]) {
    assert_eq!(answer.status, 422, "{query}: {}", &answer.body[..answer.body.len().min(1000)]);
    let body = answer.json();
    assert_eq!((&body["status"], &body["errorType"]), (&"error".into(), &"execution".into()), "{query}");
    let error = body["error"].as_str().unwrap();
    for word in words {
        assert!(error.contains(word), "{query}: {word:?} is missing in {error}");
    }
}

/// Asks for one series and for a sum over it, and expects both; gives the seconds of CPU time that each took.
async fn ask_small(http: &Http, number: usize, begin_ms: i64) -> [f64; 2] {
    let selector = format!("big{{instance=\"{}\"}}", instance(number));
    let mut cpu = [0.0; 2];
    for (query, cpu) in [format!("sum({selector})"), selector].into_iter().zip(&mut cpu) {
        let answer = range(http, &query, begin_ms, 20).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        let data = &answer.json()["data"];
        let points = data["result"][0]["values"].as_array().unwrap();
        let values: Vec<_> = points.iter().map(|point| point[1].as_str().unwrap()).collect();
        assert_eq!(values, vec![number.to_string(); 21], "{query}");
        *cpu = data["stats"]["carillon"]["cpuSeconds"].as_f64().expect("the CPU time is told");
    }
    cpu
}

/// A line of the process's status, in bytes: `VmRSS` or the most that it was, `VmHWM`.
fn memory_bytes(pid: u32, line: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    let kib: usize = value.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

/// Forgets what the most was; gives what it is.
fn reset_peak(pid: u32) -> usize {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    memory_bytes(pid, "VmRSS")
}

/// Asks all small ones at once, each again and again as long as `goes_on` says so of the round; gives their CPU times.
async fn small_queries(
    http: &Http,
    begin_ms: i64,
    goes_on: impl Fn(usize) -> bool + Clone + Send + 'static,
) -> Vec<f64> {
    let of = |i: usize| {
        let (http, goes_on) = (http.clone(), goes_on.clone());
        tokio::spawn(async move {
            let (mut cpu, mut round) = (Vec::new(), 0);
            while goes_on(round) {
                cpu.extend(ask_small(&http, i * SERIES / SMALL, begin_ms).await);
                round += 1;
            }
            cpu
        })
    };
    let mut all = Vec::new();
    for task in (0..SMALL).map(of).collect::<Vec<_>>() {
        all.extend(task.await.unwrap());
    }
    all
}

/// Asks all large ones at once.
async fn large_queries(http: &Http, begin_ms: i64, rounds: usize) {
    let of = |large: (&'static str, &'static str)| {
        let http = http.clone();
        tokio::spawn(async move {
            for _ in 0..rounds {
                // Which of them all is refused for what is chance.
                ask_large(&http, (large.0, ""), begin_ms).await;
            }
        })
    };
    for task in LARGE.map(of) {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn what_needs_ten_times_the_nodes_budget_ends_and_small_queries_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), &["--query-max-total-memory", BUDGET]);
    let http = node.http();
    let begin_ms = load(&http).await;
    small_queries(&http, begin_ms, |round| round == 0).await;

    let before = reset_peak(node.pid());
    // One after another, so that each meets the limit itself.
    for large in LARGE {
        reset_peak(node.pid());
        ask_large(&http, large, begin_ms).await;
        told_growth(large.0, before, memory_bytes(node.pid(), "VmHWM"));
    }
    let alone = small_queries(&http, begin_ms, |round| round < SMALL_ROUNDS).await;
    // All at once, with small ones beside them.
    reset_peak(node.pid());
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let beside = small_queries(&http, begin_ms, move |_| !over.load(Ordering::Relaxed));
    let large = async {
        large_queries(&http, begin_ms, LARGE_ROUNDS).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let (beside, ()) = tokio::join!(beside, large);
    told_growth("all at once", before, memory_bytes(node.pid(), "VmHWM"));
    told_cpu("alone", alone);
    told_cpu("beside large ones", beside);
}

fn told_cpu(what: &str, mut seconds: Vec<f64>) {
    seconds.sort_by(f64::total_cmp);
    if figures_wanted() {
        let median_us = seconds[seconds.len() / 2] * 1e6;
        println!("{} small queries {what}: {median_us:.0} us of CPU in the median", seconds.len());
    }
}

fn told_growth(what: &str, before: usize, peak: usize) {
    let grown = peak.saturating_sub(before);
    if figures_wanted() {
        println!(
            "{what}: resident {} MiB before, {} MiB more at most, budget {BUDGET}",
            before >> 20,
            grown >> 20
        );
    }
    let most = (BUDGET_BYTES as f64 * (1.0 + SLACK)) as usize;
    assert!(grown <= most, "{what}: {grown} bytes more were resident, {most} may be");
}

#[tokio::test]
async fn a_query_over_its_own_limit_is_told_which_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(dir.path(), &["--query-max-memory", "256KiB"]);
    let http = node.http();
    let begin_ms = load(&http).await;
    let time = seconds(begin_ms + (SAMPLES - 1) * SAMPLE_STEP_MS);
    for (query, what) in [
        ("big", "the selected series"),
        ("big[20m]", "the selected series"),
        ("count(big) by (instance)", "the selected series"),
        ("sum(max_over_time(big{instance=~'host-1..example.com:9100'}[20m:1ms]))", "steps"),
        ("sum by (instance) (max_over_time(big{instance=~'host-1..example.com:9100'}[20m:40ms]))", "decoded"),
        ("big{instance=~'host-1..example.com:9100'}[20m:100ms]", "rows"),
    ] {
        let answer = http.form("/api/v1/query", &[("query", query), ("time", &time)]).await;
        is_too_large(query, &answer, &[what, "query.max_memory"]);
    }
    ask_small(&http, 7, begin_ms).await;
}

fn figures_wanted() -> bool {
    std::env::var_os("CARILLON_BUDGET_FIGURES").is_some()
}
