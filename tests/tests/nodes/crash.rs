//! kill -9 under load: every acknowledged sample is there afterwards, once, and nothing that nobody sent.
//!
//! `CARILLON_CRASH_ROUNDS` says how often (.ci/long: 200).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tests::ledger::{Fate, Ledger};
use tests::{Http, NodeProcess, now_ms, wire};

const DEFAULT_ROUNDS: u64 = 5;
const WRITERS: usize = 4;
/// Series that a writer sends in one request.
const SERIES_PER_WRITER: usize = 25;
/// Between a series' samples. A round writes some hundred, all of which fit into the past hours that a node takes.
const STEP_MS: i64 = 50;
/// How far back the first sample lies.
const SPAN_MS: i64 = 3 * 3_600_000;

/// Sends one sample for each of its series, over and over, until told to stop or the node is gone.
async fn write(http: Http, writer: usize, mut next_ms: i64, stop: Arc<AtomicBool>) -> (Ledger, i64) {
    let names: Vec<_> = (0..SERIES_PER_WRITER).map(|s| format!("{writer}-{s}")).collect();
    let mut ledger = Ledger::default();
    while !stop.load(Ordering::Relaxed) {
        let value = (next_ms % 1_000_000) as f64;
        let labels: Vec<_> = names.iter().map(|n| [("__name__", "crash"), ("series", n.as_str())]).collect();
        let samples: Vec<wire::Sample<'_>> = labels.iter().map(|l| (&l[..], value, next_ms)).collect();
        let answer = http.try_write(wire::body(&samples)).await;
        let fate = match &answer {
            Ok(answer) if answer.status < 300 => Fate::Acked,
            _ => Fate::Unknown,
        };
        names.iter().for_each(|name| ledger.note(name, next_ms, value, fate));
        next_ms += STEP_MS;
        if answer.is_err() {
            break;
        }
    }
    (ledger, next_ms)
}

/// The raw samples of `(from_ms, to_ms]`.
async fn samples(http: &Http, from_ms: i64, to_ms: i64) -> serde_json::Value {
    http.query(&format!("crash[{}ms]", to_ms - from_ms), to_ms).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acked_sample_is_lost_by_kill_9_under_load() {
    let rounds =
        std::env::var("CARILLON_CRASH_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(DEFAULT_ROUNDS);
    let dir = tempfile::tempdir().unwrap();
    let begin_ms = now_ms() - SPAN_MS;
    let mut next_ms = begin_ms;
    let mut all = Ledger::default();
    let mut node = NodeProcess::start(dir.path(), &[]);
    for round in 0..rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let from_ms = next_ms - 1;
        let writers: Vec<_> =
            (0..WRITERS).map(|w| tokio::spawn(write(node.http(), w, next_ms, Arc::clone(&stop)))).collect();
        // At other moments each round: between first requests, inside of group commits, in checkpoints.
        tokio::time::sleep(Duration::from_millis(150 + (round * 97) % 450)).await;
        node.kill();
        stop.store(true, Ordering::Relaxed);
        let mut ledger = Ledger::default();
        for writer in writers {
            let (notes, next) = writer.await.unwrap();
            ledger.absorb(notes);
            // All go on from the same time: what this round wrote lies apart from what the next will.
            next_ms = next_ms.max(next);
        }
        node = NodeProcess::start(dir.path(), &[]);
        let findings = ledger.check(&samples(&node.http(), from_ms, next_ms).await);
        assert!(findings.is_empty(), "round {round}, {} acked: {findings:?}", ledger.acked());
        assert!(ledger.acked() > 0, "round {round}: nothing was acked");
        all.absorb(ledger);
    }
    let findings = all.check(&samples(&node.http(), begin_ms - 1, next_ms).await);
    assert!(findings.is_empty(), "after {rounds} rounds, {} acked: {findings:?}", all.acked());
    println!("{rounds} rounds of kill -9, {} samples acked, none lost, invented or doubled", all.acked());
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
