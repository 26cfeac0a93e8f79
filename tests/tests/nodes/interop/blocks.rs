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

#[tokio::test(flavor = "multi_thread")]
async fn twenty_years_of_a_sample_a_day_are_few_blocks_for_us_and_for_prometheus() {
    const DAY_S: i64 = 86_400;
    const DAYS: i64 = 7_300;
    let dir = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&dir.path().join("node"), &[]);
    let end_s = now_ms() / 1000 / DAY_S * DAY_S;
    let mut text = String::from("# TYPE sparse gauge\n");
    for day in 0..DAYS {
        for series in ["a", "b"] {
            text += &format!("sparse{{s=\"{series}\"}} {day} {}\n", end_s - day * DAY_S);
        }
    }
    let file = dir.path().join("sparse.om");
    std::fs::write(&file, text + "# EOF\n").unwrap();
    let import = || {
        let ended = run(Some(node.url()), &["import", "openmetrics", file.to_str().unwrap(), "-o", "json"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str::<Value>(&ended.stdout).unwrap()
    };
    let first = import();
    let count = first["blocks"].as_u64().unwrap();
    assert!((1..=7).contains(&count), "{first}");
    assert_eq!((&first["samples"], &first["series"]), (&(2 * DAYS).into(), &2.into()), "{first}");
    let again = import();
    assert_eq!((&again["blocks"], &again["already_there"]), (&0.into(), &first["blocks"]), "{again}");

    let asked = [("query", format!("count_over_time(sparse[{}d])", DAYS + 1)), ("time", end_s.to_string())];
    let ask = asked.each_ref().map(|(name, value)| (*name, value.as_str()));
    let ours = node.http().form("/api/v1/query", &ask).await.json()["data"]["result"].clone();
    let found: Vec<_> = ours.as_array().unwrap().iter().map(|s| s["value"][1].as_str().unwrap()).collect();
    assert_eq!(found, ["7300", "7300"]);

    let blocks: Vec<_> = blocks_of(node.data_dir());
    assert_eq!(blocks.len() as u64, count);
    if let Some(promtool) = promtool() {
        let data = dir.path().join("promtool");
        blocks.iter().for_each(|(path, _)| copy(path, &data.join(path.file_name().unwrap())));
        std::fs::create_dir_all(data.join("wal")).unwrap();
        let dumped = promtool_tsdb(&promtool, &data, &["dump"]);
        assert_eq!(dumped.lines().count() as i64, 2 * DAYS);
    }
    for (name, program) in [("old", prometheus()), ("new", prometheus_new())] {
        let Some(program) = program else { continue };
        let home = dir.path().join(name);
        for (path, _) in &blocks {
            copy(path, &home.join("data").join(path.file_name().unwrap()));
        }
        let peer =
            Peer::prometheus(&program, &home, "global: {}\n", &["--storage.tsdb.retention.time=100y"]).await;
        let theirs = peer.http().form("/api/v1/query", &ask).await.json()["data"]["result"].clone();
        let values = |found: &Value| -> Vec<Value> {
            found.as_array().unwrap().iter().map(|s| s["value"].clone()).collect()
        };
        assert_eq!(values(&theirs), values(&ours), "{name}");
    }
}

/// The blocks in a folder, each with its `meta.json`.
fn blocks_of(dir: &Path) -> Vec<(PathBuf, Value)> {
    let listed = run(None, &["blocks", "ls", &dir.display().to_string(), "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let listed = listed.as_array().unwrap().iter();
    listed.map(|block| (PathBuf::from(block["path"].as_str().unwrap()), block["meta"].clone())).collect()
}

/// What `promtool tsdb` says of a folder.
fn promtool_tsdb(promtool: &Path, data: &Path, args: &[&str]) -> String {
    let output = Command::new(promtool).arg("tsdb").args(args).arg(data).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool tsdb {args:?}: {text}{told}");
    text
}

fn promtool_reads(promtool: &Path, data: &Path, blocks: &[(PathBuf, Value)]) {
    let call = |args: &[&str]| promtool_tsdb(promtool, data, args);
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
