//! Blocks that we wrote, in the hands of promtool and of real Prometheus servers.

use std::path::{Path, PathBuf};
use std::process::Command;

use node::bench::payload::{Requests, Timing};
use node::bench::workload::Workload;
use serde_json::Value;
use tests::compare::{TOLERANCE, difference};
use tests::{NodeProcess, Peer, eventually, now_ms, prometheus, prometheus_new, promtool, run};

const HOUR_MS: i64 = 3_600_000;
/// Enough for a block in each two hours, small tenants being carried on.
const SERIES: usize = 500;
const STEP_MS: i64 = 30_000;
/// So much lies in blocks for good: the newest four hours and the rest of a range stay in the head.
const HOURS: i64 = 11;
const BLOCKS_AT_LEAST: usize = 3;

/// Writes hours of samples that end now, and waits for the blocks that are cut from them.
async fn node_with_blocks(dir: &Path) -> (NodeProcess, Vec<(PathBuf, Value)>) {
    let node = NodeProcess::start(dir, &["--storage-maintenance-interval", "1s"]);
    let timing = Timing {
        start_ms: now_ms() - HOURS * HOUR_MS,
        step_ms: STEP_MS,
        scrapes: (HOURS * HOUR_MS / STEP_MS) as usize,
    };
    for request in Requests::new(&Workload::new(SERIES, 1), timing, 0, 1, 10_000) {
        let answer = node.http().write(request.body.into()).await;
        assert!(answer.status < 300, "{}", answer.body);
    }
    let blocks = eventually("blocks are cut", 60, async || {
        let listed = run(None, &["blocks", "ls", &dir.display().to_string(), "-o", "json"]);
        let listed: Value = serde_json::from_str(&listed.stdout).ok()?;
        let blocks: Vec<_> = listed
            .as_array()?
            .iter()
            .map(|block| (PathBuf::from(block["path"].as_str().unwrap()), block["meta"].clone()))
            .collect();
        (blocks.len() >= BLOCKS_AT_LEAST).then_some(blocks)
    })
    .await;
    (node, blocks)
}

/// Copies a block's files.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { _ = std::fs::copy(&path, &target).unwrap() }
    }
}

fn samples(blocks: &[(PathBuf, Value)]) -> u64 {
    blocks.iter().map(|(_, meta)| meta["stats"]["numSamples"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn our_blocks_open_in_promtool_and_answer_the_same_in_prometheus() {
    let (Some(old), Some(new), Some(promtool)) = (prometheus(), prometheus_new(), promtool()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (node, blocks) = node_with_blocks(&dir.path().join("node")).await;
    let verified = run(None, &["blocks", "verify", &node.data_dir().display().to_string()]);
    assert_eq!(verified.code, Some(0), "{verified:?}");

    for (name, program) in [("old", old), ("new", new)] {
        let home = dir.path().join(name);
        let data = home.join("data");
        for (path, _) in &blocks {
            copy(path, &data.join(path.file_name().unwrap()));
        }
        // promtool 2.42 wants the folder to be there.
        std::fs::create_dir_all(data.join("wal")).unwrap();
        if name == "old" {
            promtool_reads(&promtool, &data, &blocks);
        }
        let peer =
            Peer::prometheus(&program, &home, "global: {}\n", &["--storage.tsdb.retention.time=10y"]).await;
        compare(&node, &peer, &blocks).await;
    }
}

fn promtool_reads(promtool: &Path, data: &Path, blocks: &[(PathBuf, Value)]) {
    let call = |args: &[&str]| {
        let output = Command::new(promtool).arg("tsdb").args(args).arg(data).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool tsdb {args:?}: {text}{told}");
        text
    };
    let list = call(&["list"]);
    let analysis = call(&["analyze"]);
    for (path, _) in blocks {
        let ulid = path.file_name().unwrap().to_str().unwrap();
        assert!(list.contains(ulid), "{ulid} isn't in {list}");
    }
    assert!(analysis.contains(&format!("Series: {SERIES}\n")), "{analysis}");
    let dump = call(&["dump"]);
    assert_eq!(dump.lines().count() as u64, samples(blocks), "every sample is dumped");
}

/// Asks both inside of what the blocks hold, windows and look-back included.
async fn compare(node: &NodeProcess, peer: &Peer, blocks: &[(PathBuf, Value)]) {
    let edge = |key| blocks.iter().map(move |(_, meta)| meta[key].as_i64().unwrap());
    let (from_ms, to_ms) = (edge("minTime").min().unwrap() + HOUR_MS, edge("maxTime").max().unwrap() - 1);
    // Off the grid of the samples: there, 2.42's closed ranges and the open ones of 3 hold the same samples.
    let (start, end) = (format!("{}", from_ms / 1000), format!("{:.3}", (to_ms - 777) as f64 / 1000.0));
    for expr in [
        "count({__name__=~\".+\"})",
        "sum by (job, collector) (rate({__name__=~\".+_total\"}[5m]))",
        "node_load1",
        "max_over_time(node_hwmon_temp_celsius{sensor=\"temp1\"}[10m])",
        "node_filesystem_avail_bytes{mountpoint=~\"/.+\", device!=\"1\"}",
    ] {
        let range = [("query", expr), ("start", start.as_str()), ("end", &end), ("step", "60.123")];
        let (ours, theirs) = (
            node.http().form("/api/v1/query_range", &range).await,
            peer.http().form("/api/v1/query_range", &range).await,
        );
        assert_eq!((ours.status, theirs.status), (200, 200), "{expr}: {} {}", ours.body, theirs.body);
        let found = difference(&ours.json()["data"], &theirs.json()["data"], TOLERANCE);
        assert_eq!(found, None, "{expr}");
        assert!(!theirs.json()["data"]["result"].as_array().unwrap().is_empty(), "{expr} finds nothing");
    }
}
