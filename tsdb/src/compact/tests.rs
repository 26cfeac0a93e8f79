use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::block::{BlockWriter, Tombstones};
use crate::chunk::Columns;
use crate::disk::MemoryDisk;
use crate::model::{Labels, Matcher, Sample, Value, prefer};
use crate::select::{Select, Series};

const RANGE_MS: i64 = 7_200_000;

pub(super) type Contents = BTreeMap<Labels, BTreeMap<i64, f64>>;

pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn encoded(labels: &Labels, samples: &BTreeMap<i64, f64>) -> Vec<crate::select::Chunk> {
    let samples: Vec<_> = samples.iter().map(|(t, v)| Sample::float(*t, *v)).collect();
    Series::from_samples(labels.clone(), &samples).chunks
}

pub(super) fn block(disk: &Arc<dyn Disk>, ulid: u128, contents: &Contents) -> Block {
    let meta = BlockMeta::new(Ulid(ulid), 0, RANGE_MS);
    let mut writer = BlockWriter::create(disk, Path::new(""), meta).unwrap();
    for (labels, samples) in contents {
        writer.add(labels, &encoded(labels, samples)).unwrap();
    }
    let meta = writer.finish().unwrap().unwrap();
    Block::open(&**disk, &PathBuf::from(meta.ulid.to_string())).unwrap()
}

pub(super) fn read(block: &Block) -> BTreeMap<Labels, BTreeMap<i64, u64>> {
    let matchers = vec![Matcher::equal("absent", "")];
    let all = block.select(&Select { matchers, range_ms: i64::MIN..=i64::MAX, shard: None }).unwrap();
    let samples = |series: Series| {
        let mut columns = Columns::default();
        series.decode(i64::MIN..=i64::MAX, &mut columns).unwrap();
        let values = columns.values.iter().map(|v| v.to_bits());
        (series.labels, columns.timestamps.iter().copied().zip(values).collect())
    };
    all.into_iter().map(samples).collect()
}

fn merge_all(disk: &Arc<dyn Disk>, blocks: &[Block]) -> Option<Block> {
    let meta = merge(disk, Path::new(""), merged_meta(Ulid(99), blocks), blocks).unwrap()?;
    let merged = Block::open(&**disk, &PathBuf::from(meta.ulid.to_string())).unwrap();
    assert_eq!(merged.verify().problems, [""; 0]);
    assert_eq!(merged.meta(), &meta);
    Some(merged)
}

pub(super) fn disk() -> Arc<dyn Disk> {
    Arc::new(MemoryDisk::new())
}

pub(super) fn run(range: std::ops::Range<i64>, value: f64) -> BTreeMap<i64, f64> {
    range.map(|t| (t * 1000, value)).collect()
}

#[test]
fn chunks_that_dont_overlap_pass_through_untouched() {
    let disk = disk();
    let series = |name: &str| labels(&[("__name__", name)]);
    let first = block(&disk, 1, &[(series("a"), run(0..100, 1.0)), (series("b"), run(0..50, 2.0))].into());
    let second = block(&disk, 2, &[(series("b"), run(50..100, 3.0)), (series("c"), run(0..9, 4.0))].into());
    let select = |block: &Block, name| {
        let matchers = vec![Matcher::equal("__name__", name)];
        let select = Select { matchers, range_ms: i64::MIN..=i64::MAX, shard: None };
        block.select(&select).unwrap().remove(0).chunks
    };
    let merged = merge_all(&disk, &[second.clone(), first.clone()]).unwrap();
    assert_eq!(select(&merged, "a"), select(&first, "a"));
    assert_eq!(select(&merged, "b"), [select(&first, "b"), select(&second, "b")].concat());
    assert_eq!(select(&merged, "c"), select(&second, "c"));
    let meta = merged.meta();
    assert_eq!(
        (meta.compaction.level, meta.compaction.sources.as_slice()),
        (2, [Ulid(1), Ulid(2)].as_slice())
    );
    assert_eq!(meta.compaction.parents.len(), 2);
    assert_eq!((meta.stats.num_series, meta.stats.num_chunks, meta.stats.num_samples), (3, 4, 209));
}

#[test]
fn replicas_cut_alike_become_one_copy() {
    let disk = disk();
    let contents: Contents = [(labels(&[("a", "1")]), run(0..500, 1.5))].into();
    let (first, second) = (block(&disk, 1, &contents), block(&disk, 2, &contents));
    let merged = merge_all(&disk, &[first.clone(), second]).unwrap();
    assert_eq!(read(&merged), read(&first));
    assert_eq!(merged.meta().stats, first.meta().stats);
}

#[test]
fn nothing_is_left_of_blocks_that_are_wholly_deleted() {
    let disk = disk();
    let contents: Contents = [(labels(&[("a", "1")]), run(0..500, 1.5))].into();
    let mut tombstones = Tombstones::default();
    let one = block(&disk, 1, &contents);
    let id = one.parts().index.all_ids().unwrap().unwrap().get(0).unwrap();
    tombstones.add(u64::from(id), i64::MIN..=i64::MAX);
    tombstones.write(&*disk, one.dir()).unwrap();
    tombstones.write(&*disk, one.dir()).unwrap();
    let one = Block::open(&*disk, one.dir()).unwrap();
    assert!(merge_all(&disk, &[one]).is_none());
    assert_eq!(disk.list(Path::new("")).unwrap().len(), 1);
}

#[test]
fn a_damaged_input_is_named() {
    let memory = MemoryDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(memory.clone());
    let contents: Contents = [(labels(&[("a", "1")]), run(0..500, 1.5))].into();
    let (first, second) = (
        block(&disk, 1, &contents),
        block(&disk, 2, &Contents::from([(labels(&[("b", "1")]), run(0..5, 1.0))])),
    );
    let damaged = first.dir().join("chunks/000001");
    memory.flip(&damaged, 20, 1).unwrap();
    let first = Block::open(&*disk, first.dir()).unwrap();
    let blocks = [first, second];
    match merge(&disk, Path::new(""), merged_meta(Ulid(9), &blocks), &blocks) {
        Err(Error::Corrupt { path, .. }) => assert_eq!(path, damaged),
        other => panic!("{other:?}"),
    }
    assert_eq!(disk.list(Path::new("")).unwrap().len(), 2);
}

/// A block's series, and deletions by number of series.
type Input = (Contents, Vec<(prop::sample::Index, RangeInclusive<i64>)>);

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let series = prop::collection::btree_map("[a-c]", "[a-c]", 0..3)
        .prop_map(|m| Labels::from_sorted(m.iter().map(|(n, v)| (n.as_str(), v.as_str()))));
    let value = prop_oneof![any::<u64>().prop_map(f64::from_bits), (0..3).prop_map(f64::from)];
    // Runs of samples on a grid, so that blocks share timestamps.
    let samples =
        (0..200i64, 1..250i64, prop::collection::vec(value, 1..5)).prop_map(|(from, count, values)| {
            (from..from + count)
                .map(|t| (t * 1000, values[t as usize % values.len()]))
                .collect::<BTreeMap<_, _>>()
        });
    let contents = prop::collection::btree_map(series, samples, 1..6);
    let range = (0..300_000i64, 0..300_000i64).prop_map(|(a, b)| a.min(b)..=a.max(b));
    let deletions = prop::collection::vec((any::<prop::sample::Index>(), range), 0..3);
    prop::collection::vec((contents, deletions), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_merge_holds_what_its_inputs_held_less_what_was_deleted(inputs in inputs()) {
        let disk = disk();
        let mut expected: BTreeMap<Labels, BTreeMap<i64, f64>> = BTreeMap::new();
        let mut blocks = Vec::new();
        for (number, (contents, deletions)) in inputs.iter().enumerate() {
            let block = block(&disk, number as u128 + 1, contents);
            let mut left = contents.clone();
            let mut tombstones = Tombstones::default();
            let ids: Vec<u32> = block.parts().index.all_ids().unwrap().unwrap().iter().collect();
            for (which, range) in deletions {
                let which = which.index(ids.len());
                tombstones.add(u64::from(ids[which]), range.clone());
                left.values_mut().nth(which).unwrap().retain(|t, _| !range.contains(t));
            }
            tombstones.write(&*disk, block.dir()).unwrap();
            blocks.push(Block::open(&*disk, block.dir()).unwrap());
            for (labels, samples) in left {
                let all = expected.entry(labels).or_default();
                for (t, v) in samples {
                    let kept = all.entry(t).or_insert(v);
                    if prefer(&Sample::float(t, v), &Sample::float(t, *kept)).is_gt() {
                        *kept = v;
                    }
                }
            }
        }
        expected.retain(|_, samples| !samples.is_empty());
        let merged = merge_all(&disk, &blocks);
        let found = merged.as_ref().map(read).unwrap_or_default();
        let bits = |samples: &BTreeMap<i64, f64>| samples.iter().map(|(t, v)| (*t, v.to_bits())).collect();
        let expected: BTreeMap<_, BTreeMap<i64, u64>> = expected.iter().map(|(l, s)| (l.clone(), bits(s))).collect();
        prop_assert_eq!(found, expected);
        if let Some(merged) = merged {
            blocks.reverse();
            let other_order = merge(&disk, Path::new(""), merged_meta(Ulid(100), &blocks), &blocks).unwrap().unwrap();
            prop_assert_eq!(&other_order.stats, &merged.meta().stats);
            let index = |ulid: Ulid| disk.read(&PathBuf::from(ulid.to_string()).join(files::BLOCK_INDEX)).unwrap();
            prop_assert_eq!(index(other_order.ulid), index(merged.meta().ulid));
        }
    }
}

#[test]
fn histograms_pass_through_and_merge() {
    let histogram = |count: u64| {
        Value::Int(Arc::new(crate::model::IntHistogram {
            count,
            sum: count as f64,
            positive_spans: vec![crate::model::Span { offset: 0, length: 2 }],
            positive_buckets: vec![count / 2, count - count / 2],
            ..Default::default()
        }))
    };
    let samples = |range: std::ops::Range<i64>| -> Vec<_> {
        range.map(|t| Sample { timestamp_ms: t * 1000, start_ms: 0, value: histogram(t as u64) }).collect()
    };
    let disk = disk();
    let name = labels(&[("__name__", "h")]);
    let mut blocks = Vec::new();
    for (ulid, range) in [(1, 0..40), (2, 20..60), (3, 60..90)] {
        let mut writer =
            BlockWriter::create(&disk, Path::new(""), BlockMeta::new(Ulid(ulid), 0, RANGE_MS)).unwrap();
        writer.add(&name, &Series::from_samples(name.clone(), &samples(range)).chunks).unwrap();
        let meta = writer.finish().unwrap().unwrap();
        blocks.push(Block::open(&*disk, &PathBuf::from(meta.ulid.to_string())).unwrap());
    }
    let merged = merge_all(&disk, &blocks).unwrap();
    let select =
        Select { matchers: vec![Matcher::equal("__name__", "h")], range_ms: 0..=RANGE_MS, shard: None };
    let found = merged.select(&select).unwrap().remove(0).samples().unwrap();
    let counts: Vec<_> = found
        .iter()
        .map(|sample| match &sample.value {
            Value::Int(h) => (sample.timestamp_ms, h.count),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counts, (0..90).map(|t| (t * 1000, t as u64)).collect::<Vec<_>>());
    assert_eq!(merged.meta().stats.num_histogram_samples, 90);
}
