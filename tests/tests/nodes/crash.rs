//! kill -9 under load: every acknowledged sample is there afterwards, once, and nothing that nobody sent.
//!
//! Series come and go with every request, one request mixes floats, native histograms and stale markers, two tenants
//! have the same series, and a range ends every few seconds, so that blocks are cut and checkpoints written all the
//! time. `CARILLON_CRASH_ROUNDS` says how often the node is killed (.ci/long: 500).

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tests::ledger::{Fate, Ledger};
use tests::wire::Value;
use tests::{Http, NodeProcess, now_ms, wire};

const DEFAULT_ROUNDS: u64 = 8;
const TENANTS: [&str; 2] = ["red", "blue"];
/// Two for each tenant, which get ahead of each other: what the slower one sends may lie in a range that is cut.
const WRITERS: usize = 4;
/// Series that a writer sends in one request.
const SERIES_PER_WRITER: usize = 24;
/// Series of these that are new in each request, in place of others.
const NEW_PER_REQUEST: usize = 2;
/// Between a series' samples.
const STEP_MS: i64 = 60_000;
/// Most samples of one series in a request, a millisecond apart.
const SAMPLES_MAX: i64 = 4;
/// What a round may get ahead by: its requests, a step each, are far fewer.
const ROUND_MS: i64 = 48 * 3_600_000;
/// Old samples are taken, and cut as soon as their range has ended.
const OPTIONS: [&str; 6] = [
    "--limits-max-backfill",
    "unlimited",
    "--limits-out-of-order-window",
    "1m",
    "--storage-maintenance-interval",
    "100ms",
];

/// What one writer sent, until when.
struct Sent {
    tenant: usize,
    ledger: Ledger,
    next_ms: i64,
}

/// Samples of one series in the `request`th request of a writer. Numbers never come twice.
fn samples(kind: usize, request: usize, at_ms: i64) -> Vec<(i64, Value)> {
    let number = (at_ms / STEP_MS) as f64;
    let level = request as u32;
    match kind % 3 {
        0 => vec![(at_ms, Value::Float(number))],
        1 => vec![(at_ms, Value::Histogram(level))],
        _ => vec![
            (at_ms, Value::Histogram(2 * level)),
            (at_ms + 1, Value::Stale),
            (at_ms + 2, Value::Float(number)),
            (at_ms + 3, Value::Histogram(2 * level + 1)),
        ],
    }
}

/// Sends samples of all its series, over and over, until told to stop or the node is gone.
async fn write(http: Http, writer: usize, mut next_ms: i64, stop: Arc<AtomicBool>) -> Sent {
    let tenant = writer % TENANTS.len();
    let http = http.tenant(TENANTS[tenant]);
    let first_ms = next_ms;
    let mut ledger = Ledger::default();
    for request in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // A window that moves over the numbers of series; writers of one tenant have different ones.
        let numbers = request * NEW_PER_REQUEST..request * NEW_PER_REQUEST + SERIES_PER_WRITER;
        let mut parts: Vec<_> = numbers
            .map(|n| (format!("{first_ms}-{}-{n}", writer / TENANTS.len()), samples(n, request, next_ms)))
            .collect();
        for (_, ended) in &mut parts[..NEW_PER_REQUEST] {
            ended.push((next_ms + SAMPLES_MAX, Value::Stale));
        }
        let labels: Vec<_> =
            parts.iter().map(|(name, _)| [("__name__", "crash"), ("series", name.as_str())]).collect();
        let all = parts.iter().zip(&labels).map(|((_, samples), labels)| (&labels[..], &samples[..]));
        let answer = http.try_write(wire::mixed_body(all)).await;
        let fate = match &answer {
            Ok(answer) if answer.status < 300 => Fate::Acked,
            Ok(answer) if answer.status < 500 => panic!("good samples are refused: {}", answer.body),
            _ => Fate::Unknown,
        };
        for (name, samples) in &parts {
            samples.iter().for_each(|(at_ms, value)| ledger.note_value(name, *at_ms, *value, fate));
        }
        next_ms += STEP_MS;
        if answer.is_err() {
            break;
        }
    }
    Sent { tenant, ledger, next_ms }
}

/// What both tenants were sent in some time.
struct Round {
    times_ms: RangeInclusive<i64>,
    ledgers: [Ledger; TENANTS.len()],
}

impl Round {
    fn acked(&self) -> usize {
        self.ledgers.iter().map(Ledger::acked).sum()
    }

    async fn check(&self, http: &Http, what: &str) {
        let (from_ms, to_ms) = (self.times_ms.start() - 1, *self.times_ms.end());
        for (tenant, ledger) in TENANTS.into_iter().zip(&self.ledgers) {
            let query = format!("crash[{}ms]", to_ms - from_ms);
            let findings = ledger.check(&http.clone().tenant(tenant).query(&query, to_ms).await);
            let [lost, invented, doubled] =
                [&findings.lost, &findings.invented, &findings.doubled].map(Vec::len);
            let first = findings.lost.first().or(findings.invented.first()).or(findings.doubled.first());
            assert!(
                findings.is_empty(),
                "{what}, tenant {tenant}, {} acked: {lost} lost, {invented} invented, {doubled} doubled, such as {first:?}",
                ledger.acked()
            );
        }
    }
}

/// How many blocks there are.
fn blocks(node: &NodeProcess) -> usize {
    let count =
        |tenant| std::fs::read_dir(node.data_dir().join("tenants").join(tenant)).map_or(0, Iterator::count);
    TENANTS.into_iter().map(count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acked_sample_is_lost_by_kill_9_under_load() {
    let rounds =
        std::env::var("CARILLON_CRASH_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(DEFAULT_ROUNDS);
    let dir = tempfile::tempdir().unwrap();
    let mut next_ms = now_ms() - rounds as i64 * ROUND_MS;
    let mut all = Vec::new();
    let mut node = NodeProcess::start(dir.path(), &OPTIONS);
    for number in 0..rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let from_ms = next_ms;
        let writers: Vec<_> =
            (0..WRITERS).map(|w| tokio::spawn(write(node.http(), w, next_ms, Arc::clone(&stop)))).collect();
        // At other moments each round: between first requests, inside of group commits, cuts and checkpoints.
        tokio::time::sleep(Duration::from_millis(150 + (number * 97) % 850)).await;
        node.kill();
        stop.store(true, Ordering::Relaxed);
        let mut ledgers = [Ledger::default(), Ledger::default()];
        for writer in writers {
            let sent = writer.await.unwrap();
            ledgers[sent.tenant].absorb(sent.ledger);
            // All go on from the same time: what this round wrote lies apart from what the next will.
            next_ms = next_ms.max(sent.next_ms);
        }
        assert!(next_ms - from_ms <= ROUND_MS, "samples of round {number} would lie in the future");
        let round = Round { times_ms: from_ms..=next_ms - 1, ledgers };
        node = NodeProcess::start(dir.path(), &OPTIONS);
        round.check(&node.http(), &format!("round {number}")).await;
        assert!(round.acked() > 0, "round {number}: nothing was acked");
        all.push(round);
    }
    for (number, round) in all.iter().enumerate() {
        round.check(&node.http(), &format!("round {number}, after all {rounds}")).await;
    }
    let (acked, blocks) = (all.iter().map(Round::acked).sum::<usize>(), blocks(&node));
    println!(
        "{rounds} rounds of kill -9, {acked} samples acked, {blocks} blocks cut, none lost, invented or doubled"
    );
    assert!(blocks > 0, "no block was cut under load");
}

#[tokio::test]
async fn a_stop_in_order_loses_nothing_and_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = NodeProcess::start(dir.path(), &[]);
    let now_ms = now_ms();
    for at in 0..10 {
        let sample: wire::Sample<'_> = (&[("__name__", "kept")], at as f64, now_ms - 10_000 + at * 1000);
        assert!(node.http().write(wire::body(&[sample])).await.status < 300);
    }
    assert_eq!(node.stop().code(), Some(0), "{}", node.log());
    let node = NodeProcess::start(dir.path(), &[]);
    let kept = node.http().query("kept[1m]", now_ms).await;
    assert_eq!(kept[0]["values"].as_array().map(Vec::len), Some(10), "{kept}");
}
