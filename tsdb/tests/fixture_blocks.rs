//! Blocks that Prometheus, Mimir and Thanos wrote give the samples that these systems answer.
//!
//! The files lie beside the project, in `../shared/fixtures/blocks`; without them there is nothing to check.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail and report as tests do")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tsdb::block::Block;
use tsdb::chunk::Columns;
use tsdb::compact::{merge, merged_meta};
use tsdb::disk::{Disk, MemoryDisk, OsDisk};
use tsdb::model::{Labels, MatchOp, Matcher};
use tsdb::select::{Select, Series};
use tsdb::{Error, Result};
use ulid::Ulid;

type Answer = BTreeMap<Labels, Vec<(i64, f64)>>;

/// The folder of a system's blocks; `None`, said once a test, where it is absent.
fn fixtures(system: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/blocks").join(system);
    if !folder.is_dir() {
        println!("SKIPPED: {} is absent", folder.display());
        return None;
    }
    Some(folder)
}

/// Opens a block through a copy in memory: fixtures are read-only, a data folder isn't.
fn open(folder: &Path, block: &str) -> Result<(Arc<dyn Disk>, Block)> {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    copy(&folder.join(block), &*disk, Path::new(block));
    let block = Block::open(&*disk, Path::new(block))?;
    Ok((disk, block))
}

fn copy(from: &Path, disk: &dyn Disk, to: &Path) {
    disk.create_dir(to).unwrap();
    let source = OsDisk::open(from).unwrap();
    for entry in source.list(Path::new("")).unwrap() {
        if entry.is_dir {
            copy(&from.join(&entry.name), disk, &to.join(&entry.name));
        } else {
            let bytes = source.read(&entry.name).unwrap();
            disk.create(&to.join(&entry.name)).unwrap().write_at(0, &bytes).unwrap();
        }
    }
}

fn samples(found: Vec<Series>) -> Answer {
    let decoded = |series: Series| {
        let mut columns = Columns::default();
        series.decode(i64::MIN..=i64::MAX, &mut columns).unwrap();
        (series.labels, columns.timestamps.iter().copied().zip(columns.values.iter().copied()).collect())
    };
    found.into_iter().map(decoded).collect()
}

fn select(block: &Block, matchers: Vec<Matcher>) -> Answer {
    samples(block.select(&Select { matchers, range_ms: i64::MIN..=i64::MAX, shard: None }).unwrap())
}

/// The matrix of a Prometheus answer.
fn expected(file: &Path) -> Answer {
    let disk = OsDisk::open(file.parent().unwrap()).unwrap();
    let answer: Value =
        serde_json::from_slice(&disk.read(Path::new(file.file_name().unwrap())).unwrap()).unwrap();
    let series = |series: &Value| {
        let metric = series["metric"].as_object().unwrap();
        let labels =
            Labels::from_pairs(metric.iter().map(|(n, v)| (n.as_str(), v.as_str().unwrap()))).unwrap();
        let sample = |pair: &Value| {
            let timestamp_ms = (pair[0].as_f64().unwrap() * 1000.0).round() as i64;
            (timestamp_ms, pair[1].as_str().unwrap().parse().unwrap())
        };
        (labels, series["values"].as_array().unwrap().iter().map(sample).collect())
    };
    answer["data"]["result"].as_array().unwrap().iter().map(series).collect()
}

/// The same series and timestamps, and values as close as the expected file's rounding to twelve decimals leaves them.
fn assert_same(found: &Answer, expected: &Answer) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (labels, samples) in expected {
        assert_eq!(found[labels].len(), samples.len(), "{labels}");
        for (found, expected) in found[labels].iter().zip(samples) {
            let close = found.0 == expected.0 && (found.1 - expected.1).abs() < 1e-12;
            assert!(close, "{labels}: {found:?}, not {expected:?}");
        }
    }
}

/// Verifies the block, merges it into one of its own and compares.
fn survives_a_merge(disk: &Arc<dyn Disk>, block: &Block) {
    let report = block.verify();
    assert_eq!(report.problems, [""; 0]);
    let blocks = [block.clone()];
    let meta = merge(disk, Path::new(""), merged_meta(Ulid(7), &blocks), &blocks).unwrap().unwrap();
    let merged = Block::open(&**disk, &PathBuf::from(meta.ulid.to_string())).unwrap();
    assert_eq!(merged.verify().problems, [""; 0]);
    let all = || vec![Matcher::new(MatchOp::NotEqual, "", "x").unwrap()];
    assert_eq!(select(&merged, all()), select(block, all()));
    assert_eq!(merged.label_names(&[]).unwrap(), block.label_names(&[]).unwrap());
}

#[test]
fn a_block_of_prometheus_answers_as_expected() {
    let Some(folder) = fixtures("prometheus") else { return };
    let (disk, block) = open(&folder, "01JWS713P2E4MQW7T643GYGD69").unwrap();
    // The answer was asked for with a filter on the location: the block has more of this name.
    let location =
        Matcher::new(MatchOp::Regex, "location", ".*/ingestserver/opentsdb/server.go:(48|59)").unwrap();
    let found = select(&block, vec![Matcher::equal("__name__", "vm_log_messages_total"), location]);
    assert_same(&found, &expected(&folder.join("expected_response.json")));
    let all = select(&block, vec![Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap()]);
    assert_eq!(all.len(), 2434);
    assert!(all.values().all(|samples| samples.len() == 1));
    survives_a_merge(&disk, &block);
}

#[test]
fn a_block_of_mimir_answers_as_expected() {
    let Some(folder) = fixtures("mimir") else { return };
    let (disk, block) = open(&folder.join("anonymous"), "01JFJBS3YP1SHZ3PJQ6HK76EC3").unwrap();
    let found = select(&block, vec![Matcher::equal("__name__", "mimir_continuous_test_sine_wave_v2")]);
    assert_same(&found, &expected(&folder.join("expected_response.json")));
    assert_eq!(found.values().map(Vec::len).sum::<usize>(), 400);
    assert_eq!(block.meta().other["thanos"]["source"], "receive");
    survives_a_merge(&disk, &block);
}

#[test]
fn a_raw_block_of_thanos_answers_as_expected() {
    let Some(folder) = fixtures("thanos") else { return };
    let (disk, block) = open(&folder, "01KKS78P6B68DNJC87ZVPRGC3X").unwrap();
    let mut raw = expected(&folder.join("expected_all_aggr_response.json"));
    raw.retain(|labels, _| !labels.metric_name().contains(':'));
    assert_eq!(raw.len(), 4);
    assert_same(&select(&block, vec![Matcher::equal("job", "test")]), &raw);
    survives_a_merge(&disk, &block);
}

#[test]
fn aggregates_of_thanos_are_refused_by_their_encoding() {
    let Some(folder) = fixtures("thanos") else { return };
    for block in ["01KKS78PKKR6BQ0SQ5BARRTAKC", "01KKS78PXE91TK8YX406DERWV2"] {
        let (_, block) = open(&folder, block).unwrap();
        let select = Select { matchers: Vec::new(), range_ms: i64::MIN..=i64::MAX, shard: None };
        assert_eq!(block.label_values("job", &[]).unwrap(), ["test"]);
        match block.select(&select) {
            Err(Error::Invalid(reason)) => assert!(reason.contains("encoding 255"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_block_with_an_index_of_version_1_is_read() {
    let Some(folder) = fixtures("") else { return };
    let (disk, block) = open(&folder, "index-v1").unwrap();
    assert_eq!(block.label_names(&[]).unwrap(), ["bar", "foo"]);
    assert_eq!(block.label_values("bar", &[]).unwrap().len(), 100);
    assert_eq!(block.label_values("foo", &[]).unwrap(), ["bar", "baz"]);
    assert_eq!(select(&block, Vec::new()).len(), 102);
    assert_eq!(select(&block, vec![Matcher::new(MatchOp::Regex, "bar", "1.").unwrap()]).len(), 10);
    let foo = Matcher::new(MatchOp::NotEqual, "foo", "").unwrap();
    let shown = |labels: &Labels| labels.to_string();
    let found = block.series(&[foo], &(0..=i64::MAX)).unwrap();
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), [r#"{foo="bar"}"#, r#"{foo="baz"}"#]);
    survives_a_merge(&disk, &block);
}
