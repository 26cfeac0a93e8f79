//! From text to blocks, without a node.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;
use tsdb::block::Block;
use tsdb::disk::MemoryDisk;
use tsdb::model::{Matcher, Value};
use tsdb::select::Select;

use super::blocks::Built;
use super::*;

const FOR_EVER: Option<i64> = None;
const NOW_MS: i64 = 1_767_225_600_000;

type Samples = BTreeMap<String, Vec<(i64, f64)>>;

/// The blocks of a text, and the folder that they lie in.
fn imported(text: &str, kept_ms: Option<i64>) -> Result<(tempfile::TempDir, Built), String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text");
    std::fs::write(&file, text).unwrap();
    let retention = Retention { kept_ms, shown: "15d".to_owned() };
    let hasher = SeriesHasher::new(7);
    let source = Source::open(&file, dir.path()).map_err(|e| e.to_string())?;
    let survey = survey::survey(&source, &hasher, &retention, NOW_MS, |_| {}).map_err(|e| e.to_string())?;
    let ranges = plan::ranges(&survey.counts, plan::highest_level(kept_ms));
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(dir.path()).unwrap());
    let built = blocks::build(&source, &disk, &ranges, &hasher, |_| {}).map_err(|e| e.to_string())?;
    Ok((dir, built))
}

/// What is in a folder's blocks; each is checked whole.
fn read(dir: &Path, built: &Built) -> Samples {
    read_on(&OsDisk::open(dir).unwrap(), built)
}

fn read_on(disk: &dyn Disk, built: &Built) -> Samples {
    let mut found = Samples::new();
    for meta in &built.blocks {
        let block = Block::open(disk, Path::new(&meta.ulid.to_string())).unwrap();
        assert!(block.verify().is_clean(), "{:?}", block.verify());
        let matchers = vec![Matcher::equal("absent", "")];
        for series in block.select(&Select { matchers, range_ms: i64::MIN..=i64::MAX, shard: None }).unwrap()
        {
            for sample in series.samples().unwrap() {
                let Value::Float(value) = sample.value else { panic!("a float") };
                found.entry(series.labels.to_string()).or_default().push((sample.timestamp_ms, value));
            }
        }
    }
    found
}

#[test]
fn a_file_comes_out_as_it_was_whatever_its_order() {
    let mut lines = Vec::new();
    let mut expected = Samples::new();
    for n in 0..500 {
        for series in ["a", "b"] {
            let at_ms = 1_000_000_000_000 + n * 86_400_000;
            lines.push(format!("m_total{{s=\"{series}\"}} {n} {}\n", at_ms / 1000));
            expected.entry(format!("m_total{{s=\"{series}\"}}")).or_default().push((at_ms, n as f64));
        }
    }
    let by_time = imported(&(lines.concat() + "# EOF\n"), FOR_EVER).unwrap();
    assert_eq!(read(by_time.0.path(), &by_time.1), expected);
    assert!(by_time.1.blocks.len() <= 2, "{}", by_time.1.blocks.len());
    assert_eq!(by_time.1.series, 2);
    lines.reverse();
    let reversed = imported(&(lines.concat() + "# EOF\n"), FOR_EVER).unwrap();
    let names = |built: &Built| built.blocks.iter().map(|meta| meta.ulid).collect::<Vec<_>>();
    assert_eq!(names(&reversed.1), names(&by_time.1), "the same samples make the same blocks");
    lines[0] = lines[0].replace(" 499 ", " 7 ");
    let changed = imported(&(lines.concat() + "# EOF\n"), FOR_EVER).unwrap();
    assert_ne!(names(&changed.1), names(&by_time.1));
}

#[test]
fn twenty_years_of_a_sample_a_day_are_few_blocks() {
    let mut text = String::from("# TYPE sparse gauge\n");
    (0..7_300).for_each(|day| writeln!(text, "sparse {day} {}", 1_100_000_000 + day * 86_400).unwrap());
    let (dir, built) = imported(&(text + "# EOF\n"), FOR_EVER).unwrap();
    assert!(built.blocks.len() <= 6, "{}", built.blocks.len());
    assert_eq!(read(dir.path(), &built)["sparse"].len(), 7_300);
    // Blocks say when their samples are, and no more: the newest says when all may go.
    assert_eq!(built.blocks.last().unwrap().max_ms, (1_100_000_000 + 7_299 * 86_400) * 1000 + 1);
}

#[test]
fn a_fault_anywhere_refuses_the_file_and_is_named() {
    let good = "m 1 1700000000\n";
    for (text, wanted) in [
        (good.to_owned(), "does not end with # EOF"),
        (format!("{good}m 2 17"), "does not end with # EOF"),
        (format!("{good}# EOF\n{good}# EOF\n"), "line 3: there is data after # EOF"),
        (format!("{good}m 1 1700000000000\n# EOF\n"), "line 2: \"1700000000000\" isn't a time in seconds"),
        (format!("{good}nonsense\n# EOF\n"), "line 2"),
        (format!("{good}m 1\n# EOF\n"), "m: a sample has no timestamp"),
        (format!("{good}m 1 -7\n# EOF\n"), "m: a sample is of before 1970"),
        (format!("{good}m{{a=\"1\",a=\"2\"}} 1 1700000000\n# EOF\n"), "occurs twice"),
        (format!("{good}{}# EOF\n", "x\n".repeat(50)), "and 30 faults more"),
    ] {
        let refused = imported(&text, FOR_EVER).map(|_| ()).unwrap_err();
        assert!(
            refused.starts_with("nothing was imported:\n") && refused.contains(wanted),
            "{text}: {refused}"
        );
    }
}

#[test]
fn samples_older_than_retention_refuse_the_file_and_name_the_option() {
    const DAY_MS: i64 = 86_400_000;
    let at = |age_ms: i64| format!("m 1 {}\n", (NOW_MS - age_ms) / 1000);
    let kept = Some(15 * DAY_MS);
    assert!(imported(&format!("{}{}# EOF\n", at(14 * DAY_MS), at(0)), kept).is_ok());
    let refused = imported(&format!("{}{}# EOF\n", at(16 * DAY_MS), at(0)), kept).map(|_| ()).unwrap_err();
    let wanted =
        "1 samples are older than storage.retention of this node allows (15d), the oldest of 2025-12-16";
    assert!(refused.contains(wanted), "{refused}");
}

#[test]
fn a_sample_that_comes_twice_is_stored_once() {
    let text = "m{a=\"1\",b=\"2\"} 5 10\nm{a=\"1\",b=\"2\"} 1 5\nm{b=\"2\",a=\"1\"} 5 10\n# EOF\n";
    let (dir, built) = imported(text, FOR_EVER).unwrap();
    let found = read(dir.path(), &built);
    assert_eq!(found["m{a=\"1\", b=\"2\"}"], [(5_000, 1.0), (10_000, 5.0)]);
    assert_eq!((found.len(), built.series), (1, 1));
}

/// A text's blocks of the shortest ranges, made with a buffer of a few samples, and what they should hold.
fn imported_in_parts(samples: &[(u8, i64)], buffered_max: usize) -> (Samples, Samples) {
    let mut text = String::new();
    let mut expected = BTreeMap::<String, BTreeMap<i64, f64>>::new();
    for (series, at) in samples {
        let at_ms = 1_700_000_000_000 + at * 1_800_000;
        writeln!(text, "m{{s=\"{series}\"}} {at} {}", at_ms / 1000).unwrap();
        expected.entry(format!("m{{s=\"{series}\"}}")).or_default().insert(at_ms, *at as f64);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text");
    std::fs::write(&file, text + "# EOF\n").unwrap();
    let (source, hasher) = (Source::open(&file, dir.path()).unwrap(), SeriesHasher::new(7));
    let retention = Retention { kept_ms: None, shown: String::new() };
    let survey = survey::survey(&source, &hasher, &retention, NOW_MS, |_| {}).unwrap();
    let ranges = plan::ranges(&survey.counts, 0);
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let built = blocks::build_buffering(&source, &disk, &ranges, &hasher, buffered_max, |_| {}).unwrap();
    assert_eq!(built.blocks.len(), ranges.len());
    let expected = expected.into_iter().map(|(series, samples)| (series, samples.into_iter().collect()));
    (read_on(&*disk, &built), expected.collect())
}

#[test]
fn a_range_of_more_parts_than_can_be_merged_at_once_is_one_block() {
    let samples: Vec<_> = (0..600i64).map(|n| ((n % 4) as u8, n % 3)).collect();
    assert!(samples.len() > 2 * tsdb::compact::BLOCKS_MAX);
    let (found, expected) = imported_in_parts(&samples, 1);
    assert_eq!(found, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parts_add_up_to_the_same_samples(
        samples in prop::collection::vec((0..4u8, 0..40i64), 1..200),
        buffered_max in 1..20usize,
    ) {
        let (found, expected) = imported_in_parts(&samples, buffered_max);
        prop_assert_eq!(found, expected);
    }
}
