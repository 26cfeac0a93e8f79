//! Prometheus's own `promtool` reads the blocks that we write, and we read those that it writes.
//!
//! Without a `promtool` on the path there is nothing to check.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail and report as tests do")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tsdb::block::{Block, BlockMeta, BlockWriter};
use tsdb::chunk::Columns;
use tsdb::compact::{merge, merged_meta};
use tsdb::disk::{Disk, OsDisk};
use tsdb::files;
use tsdb::model::{Labels, Matcher, Sample};
use tsdb::select::{Select, Series};
use ulid::Ulid;

const RANGE_MS: i64 = 7_200_000;
const START_MS: i64 = 1_700_006_400_000;

type Contents = BTreeMap<Labels, Vec<(i64, f64)>>;

/// Standard output of `promtool`; `None`, said once a test, where there is none.
fn promtool(arguments: &[&str]) -> Option<String> {
    let output = match Command::new("promtool").args(arguments).output() {
        Ok(output) => output,
        Err(e) => {
            println!("SKIPPED: promtool: {e}");
            return None;
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {}", text(&output.stderr));
    Some(text(&output.stdout))
}

fn contents() -> Contents {
    let mut contents = Contents::new();
    for instance in 0..50 {
        for metric in ["node_cpu_seconds_total", "node_load1", "up"] {
            let instance = format!("host-{instance:02}:9100");
            let labels =
                Labels::from_pairs([("__name__", metric), ("instance", &*instance), ("job", "node \"ü\"")])
                    .unwrap();
            let value = |i: i64| (i * i) as f64 / 8.0;
            contents.insert(labels, (0..480).map(|i| (START_MS + i * 15_000, value(i))).collect());
        }
    }
    contents
}

/// What `promtool tsdb dump` prints of them, sorted by line.
fn dumped(contents: &Contents) -> Vec<String> {
    let mut lines = Vec::new();
    for (labels, samples) in contents {
        let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        for (timestamp_ms, value) in samples {
            lines.push(format!("{{{}}} {value} {timestamp_ms}", pairs.join(", ")));
        }
    }
    lines.sort();
    lines
}

fn sorted_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn write(disk: &Arc<dyn Disk>, ulid: u128, contents: &Contents) -> Block {
    let meta = BlockMeta::new(Ulid(ulid), START_MS, START_MS + RANGE_MS);
    let mut writer = BlockWriter::create(disk, Path::new(""), meta).unwrap();
    for (labels, samples) in contents {
        let samples: Vec<_> = samples.iter().map(|(t, v)| Sample::float(*t, *v)).collect();
        writer.add(labels, &Series::from_samples(labels.clone(), &samples).chunks).unwrap();
    }
    let meta = writer.finish().unwrap().unwrap();
    Block::open(&**disk, &PathBuf::from(meta.ulid.to_string())).unwrap()
}

#[test]
fn promtool_lists_analyzes_and_dumps_our_blocks() {
    if promtool(&["--version"]).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(folder.path()).unwrap());
    // 2.42 wants a WAL's folder beside the blocks.
    disk.create_dir(Path::new("wal")).unwrap();
    let all = contents();
    let (first, second): (Contents, Contents) =
        all.clone().into_iter().partition(|(labels, _)| labels.metric_name() == "up");
    let blocks = [write(&disk, 1, &first), write(&disk, 2, &second)];
    let data = folder.path().to_str().unwrap();
    assert_eq!(sorted_lines(&promtool(&["tsdb", "dump", data]).unwrap()), dumped(&all));

    let meta = merge(&disk, Path::new(""), merged_meta(Ulid(3), &blocks), &blocks).unwrap().unwrap();
    for block in &blocks {
        disk.remove_dir(block.dir()).unwrap();
    }
    let name = meta.ulid.to_string();
    let listed = promtool(&["tsdb", "list", data]).unwrap();
    let row: Vec<_> = listed.lines().last().unwrap().split_whitespace().collect();
    let stats = [name.clone(), START_MS.to_string(), (START_MS + RANGE_MS).to_string()];
    assert_eq!(row[..3], stats, "{listed}");
    assert!(["72000", "150"].iter().all(|number| row.contains(number)), "{listed}");
    let analyzed = promtool(&["tsdb", "analyze", data, &name]).unwrap();
    assert!(analyzed.contains("Series: 150") && analyzed.contains("Label names: 3"), "{analyzed}");
    assert_eq!(sorted_lines(&promtool(&["tsdb", "dump", data]).unwrap()), dumped(&all));
}

#[test]
fn blocks_that_promtool_wrote_are_read() {
    if promtool(&["--version"]).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::new();
    let all = contents();
    for (labels, samples) in &all {
        let others: Vec<_> = labels.iter().skip(1).map(|(n, v)| format!("{n}={v:?}")).collect();
        for (timestamp_ms, value) in samples {
            let seconds = *timestamp_ms as f64 / 1000.0;
            writeln!(text, "{}{{{}}} {value} {seconds}", labels.metric_name(), others.join(",")).unwrap();
        }
    }
    text.push_str("# EOF\n");
    let disk = OsDisk::open(folder.path()).unwrap();
    disk.create(Path::new("input")).unwrap().write_at(0, text.as_bytes()).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    promtool(&["tsdb", "create-blocks-from", "openmetrics", &path("input"), &path("data")]).unwrap();

    let mut found = Contents::new();
    for entry in disk.list(Path::new("data")).unwrap() {
        if files::block_ulid(&entry.name).is_none() {
            continue;
        }
        let block = Block::open(&disk, &Path::new("data").join(&entry.name)).unwrap();
        assert_eq!(block.verify().problems, [""; 0]);
        let matchers = vec![Matcher::equal("job", "node \"ü\"")];
        for series in block.select(&Select { matchers, range_ms: i64::MIN..=i64::MAX, shard: None }).unwrap()
        {
            let mut columns = Columns::default();
            series.decode(i64::MIN..=i64::MAX, &mut columns).unwrap();
            let samples = columns.timestamps.iter().copied().zip(columns.values.iter().copied());
            found.entry(series.labels).or_default().extend(samples);
        }
    }
    assert!(found == all, "{} series, not {}", found.len(), all.len());
}
