use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use ulid::Ulid;

use super::*;
use crate::disk::{Disk, MemoryDisk};
use crate::model::{Labels, MatchOp, Matcher, Sample};
use crate::select::{Select, Series};
use crate::{Error, files};

const RANGE_MS: i64 = 7_200_000;

type Contents = BTreeMap<Labels, Vec<(i64, f64)>>;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn small() -> Contents {
    let mut contents = Contents::new();
    for i in 0..20 {
        let job = ["api", "db", "ünïcode"][i % 3];
        let series = labels(&[("__name__", "up"), ("instance", &format!("host-{i}")), ("job", job)]);
        let samples = (0..5 + i as i64).map(|t| (t * 15_000, (i as f64) + (t % 3) as f64)).collect();
        contents.insert(series, samples);
    }
    contents.insert(labels(&[("only", "api")]), vec![(RANGE_MS - 1, f64::NAN)]);
    contents
}

fn write(disk: &Arc<dyn Disk>, contents: &Contents) -> Option<PathBuf> {
    let mut writer = BlockWriter::create(disk, Path::new(""), BlockMeta::new(Ulid(1), 0, RANGE_MS)).unwrap();
    for (labels, samples) in contents {
        let samples: Vec<_> = samples.iter().map(|(t, v)| Sample::float(*t, *v)).collect();
        writer.add(labels, &Series::from_samples(labels.clone(), &samples).chunks).unwrap();
    }
    writer.finish().unwrap().map(|meta| PathBuf::from(meta.ulid.to_string()))
}

fn everything() -> Select {
    Select {
        matchers: vec![Matcher::new(MatchOp::NotEqual, "nothing", "at all").unwrap()],
        range_ms: i64::MIN..=i64::MAX,
        shard: None,
    }
}

/// All of a block, with the bits of its values.
fn read(block: &Block) -> Result<BTreeMap<Labels, Vec<(i64, u64)>>, Error> {
    let mut all = BTreeMap::new();
    for series in block.select(&everything())? {
        let mut columns = crate::chunk::Columns::default();
        series.decode(i64::MIN..=i64::MAX, &mut columns)?;
        let values = columns.values.iter().map(|v| v.to_bits());
        all.insert(series.labels, columns.timestamps.iter().copied().zip(values).collect());
    }
    Ok(all)
}

fn bits(contents: &Contents) -> BTreeMap<Labels, Vec<(i64, u64)>> {
    let of = |samples: &Vec<(i64, f64)>| samples.iter().map(|(t, v)| (*t, v.to_bits())).collect();
    contents.iter().map(|(labels, samples)| (labels.clone(), of(samples))).collect()
}

fn memory() -> Arc<dyn Disk> {
    Arc::new(MemoryDisk::new())
}

#[test]
fn what_was_written_is_read_and_verified() {
    let disk = memory();
    let dir = write(&disk, &small()).unwrap();
    let block = Block::open(&*disk, &dir).unwrap();
    assert_eq!(read(&block).unwrap(), bits(&small()));
    let report = block.verify();
    assert_eq!(report.problems, [""; 0]);
    assert_eq!(report.stats, block.meta().stats);
    assert_eq!(report.stats.num_series, 21);
    assert_eq!(report.range_ms, Some(0..=RANGE_MS - 1));
}

#[test]
fn names_values_and_series_follow_matchers() {
    let disk = memory();
    let block = Block::open(&*disk, &write(&disk, &small()).unwrap()).unwrap();
    assert_eq!(block.label_names(&[]).unwrap(), ["__name__", "instance", "job", "only"]);
    assert_eq!(block.label_names(&[Matcher::equal("only", "api")]).unwrap(), ["only"]);
    assert_eq!(block.label_values("job", &[]).unwrap(), ["api", "db", "ünïcode"]);
    assert_eq!(block.label_values("instance", &[]).unwrap().len(), 20);
    let some = [Matcher::new(MatchOp::Regex, "instance", "host-1.+").unwrap()];
    assert_eq!(block.label_values("job", &some).unwrap(), ["api", "db", "ünïcode"]);
    assert_eq!(block.label_values("instance", &[Matcher::equal("job", "db")]).unwrap().len(), 7);
    assert_eq!(block.label_values("absent", &[]).unwrap(), [""; 0]);
    assert_eq!(block.series(&some, &(0..=0)).unwrap().len(), 10);
    assert_eq!(block.series(&[], &(200_000..=300_000)).unwrap().len(), 10);
    assert_eq!(block.series(&[], &(RANGE_MS - 1..=RANGE_MS)).unwrap(), [labels(&[("only", "api")])]);
}

#[test]
fn shards_share_the_series() {
    let disk = memory();
    let block = Block::open(&*disk, &write(&disk, &small()).unwrap()).unwrap();
    let shard = |index| {
        let shard = Some(crate::select::Shard { index, count: 3 });
        block.select(&Select { shard, ..everything() }).unwrap().into_iter().map(|s| s.labels)
    };
    let all: BTreeSet<_> = (0..3).flat_map(shard).collect();
    assert_eq!(all.len(), 21);
    assert_eq!((0..3).map(|i| shard(i).len()).sum::<usize>(), 21);
}

#[test]
fn an_empty_block_isnt_made() {
    let disk = memory();
    assert_eq!(write(&disk, &Contents::new()), None);
    assert!(disk.list(Path::new("")).unwrap().is_empty());
}

#[test]
fn a_block_out_of_order_or_range_is_refused_and_leaves_nothing() {
    let disk = memory();
    let chunks = |times: &[i64]| {
        let of = |t: &i64| Series::from_samples(Labels::default(), &[Sample::float(*t, 1.0)]).chunks;
        times.iter().flat_map(of).collect::<Vec<_>>()
    };
    let a = labels(&[("a", "1")]);
    let b = labels(&[("b", "1")]);
    let cases: [&[(&Labels, &[i64])]; 5] = [
        &[(&b, &[0]), (&a, &[0])],
        &[(&a, &[0]), (&a, &[0])],
        &[(&a, &[5, 4])],
        &[(&a, &[RANGE_MS])],
        &[(&a, &[-1])],
    ];
    for series in cases {
        let mut writer =
            BlockWriter::create(&disk, Path::new(""), BlockMeta::new(Ulid(1), 0, RANGE_MS)).unwrap();
        let failed = series.iter().any(|(labels, times)| writer.add(labels, &chunks(times)).is_err());
        assert!(failed, "{series:?}");
        drop(writer);
        assert!(disk.list(Path::new("")).unwrap().is_empty());
    }
}

#[test]
fn a_crash_at_any_operation_leaves_a_whole_block_or_none() {
    let whole = bits(&small());
    let count = {
        let disk = MemoryDisk::new();
        write(&(Arc::new(disk.clone()) as Arc<dyn Disk>), &small());
        disk.operations()
    };
    for operation in 0..count {
        let disk = MemoryDisk::new();
        disk.inject(crate::disk::Fault::Power { after: operation });
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let writing = || {
            let mut writer =
                BlockWriter::create(&shared, Path::new(""), BlockMeta::new(Ulid(1), 0, RANGE_MS))?;
            for (labels, samples) in &small() {
                let samples: Vec<_> = samples.iter().map(|(t, v)| Sample::float(*t, *v)).collect();
                writer.add(labels, &Series::from_samples(labels.clone(), &samples).chunks)?;
            }
            writer.finish()
        };
        let written = writing();
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(operation);
        disk.crash(&mut rng);
        disk.clear_faults();
        let names: Vec<_> = disk.list(Path::new("")).unwrap().into_iter().map(|e| e.name).collect();
        assert!(
            written.is_err() || !names.is_empty(),
            "a finished block is gone after operation {operation}"
        );
        for name in names {
            if files::block_ulid(&name).is_some() {
                assert_eq!(
                    read(&Block::open(&disk, &name).unwrap()).unwrap(),
                    whole,
                    "operation {operation}"
                );
            } else {
                assert!(files::is_leftover_block(&name));
            }
        }
    }
}

#[test]
fn a_flip_of_any_byte_is_noticed_or_changes_nothing() {
    let disk = MemoryDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let dir = write(&shared, &small()).unwrap();
    let clean = Block::open(&disk, &dir).unwrap();
    let expected = read(&clean).unwrap();
    let values = clean.label_values("instance", &[]).unwrap();
    drop(clean);
    let mut unnoticed = 0;
    for file in [files::BLOCK_META, files::BLOCK_INDEX, files::BLOCK_TOMBSTONES, "chunks/000001"] {
        let path = dir.join(file);
        let size = disk.size_bytes(&path).unwrap().unwrap();
        for at in 0..size {
            let mask = if at % 3 == 0 { 0xff } else { 1 << (at % 8) };
            disk.flip(&path, at, mask).unwrap();
            let opened = Block::open(&disk, &dir);
            if let Ok(block) = &opened {
                match read(block) {
                    Ok(found) => assert!(found == expected, "{file} {at} {mask:#x}"),
                    Err(Error::Corrupt { path, .. }) => {
                        assert!(path.starts_with(&dir), "{file} {at}: {path:?}");
                    }
                    Err(e) => panic!("{file} {at} {mask:#x}: {e}"),
                }
                match block.label_values("instance", &[]) {
                    Ok(found) => assert_eq!(found, values, "{file} {at} {mask:#x}"),
                    Err(e) => assert!(matches!(e, Error::Corrupt { .. }), "{file} {at} {mask:#x}: {e}"),
                }
                assert_eq!((block.meta().min_ms, block.meta().max_ms), (0, RANGE_MS));
                unnoticed += usize::from(block.verify().is_clean());
            } else {
                assert!(matches!(opened, Err(Error::Corrupt { .. })), "{file} {at} {mask:#x}: {opened:?}");
            }
            disk.flip(&path, at, mask).unwrap();
        }
    }
    // Padding, label indices that nobody reads, white space.
    assert!(unnoticed < 1000, "{unnoticed}");
}

proptest! {
    #[test]
    fn any_series_survive_writing_and_reading(
        contents in prop::collection::btree_map(
            prop::collection::btree_map("[a-d]", "[a-c]{1,2}|x{200}", 0..4),
            prop::collection::btree_map(0..RANGE_MS, any::<u64>().prop_map(f64::from_bits), 1..300),
            1..20,
        ),
    ) {
        let contents: Contents = contents.into_iter().map(|(pairs, samples)| {
            let labels = Labels::from_sorted(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            (labels, samples.into_iter().collect())
        }).collect();
        let disk = memory();
        let block = Block::open(&*disk, &write(&disk, &contents).unwrap()).unwrap();
        prop_assert_eq!(read(&block).unwrap(), bits(&contents));
        prop_assert_eq!(block.verify().problems, Vec::<String>::new());
        for value in ["a", "aa", "b", "c", "cc", "x"] {
            let matcher = Matcher::equal("a", value);
            let found = block.series(std::slice::from_ref(&matcher), &(i64::MIN..=i64::MAX)).unwrap();
            let expected: Vec<_> = contents.keys().filter(|l| l.value("a") == value).cloned().collect();
            prop_assert_eq!(found, expected);
        }
    }
}
