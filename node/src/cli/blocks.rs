//! `carillon blocks {ls,inspect,verify}`: looks at blocks where they lie, without a node.
//!
//! A folder may be a block, a data folder of Prometheus, one of ours, or anything else that holds blocks up to
//! [`DEPTH_MAX`] folders down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use tsdb::block::{Block, BlockMeta};
use tsdb::disk::{Disk, OsDisk};
use tsdb::files;

use super::Failure;
use super::output::{Output, Rows};
use crate::time::format_rfc3339;

/// How far below the named folder blocks are looked for: `tenants/NAME/ULID` lies three down.
const DEPTH_MAX: usize = 4;

/// Rows of each list in `inspect` where `--limit` is absent.
const DEFAULT_LIMIT: usize = 10;

/// What to do with blocks.
#[derive(Debug, Subcommand)]
pub enum Blocks {
    /// List the blocks in a folder
    Ls(Ls),
    /// Say what a block holds: its range, its labels, its largest metrics
    Inspect(Inspect),
    /// Read blocks whole and name everything that is wrong with them
    Verify(Verify),
}

/// Where to look.
#[derive(Debug, Args)]
pub struct Ls {
    /// A block, or a folder that holds blocks
    #[arg(default_value = "./carillon-data", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
}

/// Which block.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The block's folder
    #[arg(value_hint = clap::ValueHint::DirPath)]
    block: PathBuf,
    /// Rows of each list
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
}

/// Which blocks.
#[derive(Debug, Args)]
pub struct Verify {
    /// Blocks, or folders that hold blocks
    #[arg(required = true, value_hint = clap::ValueHint::DirPath)]
    dirs: Vec<PathBuf>,
}

impl Blocks {
    pub(super) fn run(&self, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Ls(verb) => verb.run(output),
            Self::Inspect(verb) => verb.run(output),
            Self::Verify(verb) => verb.run(output),
        }
    }
}

/// A folder that is there, as a disk; nothing is written to it.
pub(super) fn open_folder(dir: &Path) -> Result<OsDisk, Failure> {
    if !dir.is_dir() {
        return Err(Failure::failed(format!("there is no folder {}", dir.display())));
    }
    OsDisk::open(dir).map_err(|e| Failure::failed(format!("can't open {}: {e}", dir.display())))
}

/// The blocks in a folder, relative to it, in order of name; the folder itself where it is one.
///
/// # Errors
/// When there is none, or a folder can't be read.
pub(super) fn find_blocks(disk: &dyn Disk, root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    look_for_blocks(disk, Path::new(""), DEPTH_MAX, &mut found)
        .map_err(|e| Failure::failed(format!("can't read {}: {e}", root.display())))?;
    if found.is_empty() {
        return Err(Failure::failed(format!("no block lies in {}", root.display())));
    }
    Ok(found)
}

fn look_for_blocks(
    disk: &dyn Disk,
    dir: &Path,
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> std::io::Result<()> {
    if disk.size_bytes(&dir.join(files::BLOCK_META))?.is_some() {
        found.push(dir.to_owned());
        return Ok(());
    }
    for entry in disk.list(dir)? {
        let path = dir.join(&entry.name);
        // A block that a crash left unfinished isn't one.
        if entry.is_dir && depth > 0 && !files::is_leftover_block(&entry.name) {
            look_for_blocks(disk, &path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// Bytes of all files of a block.
fn block_bytes(disk: &dyn Disk, dir: &Path) -> std::io::Result<u64> {
    let mut sum = 0;
    for entry in disk.list(dir)? {
        let path = dir.join(&entry.name);
        sum += if entry.is_dir { block_bytes(disk, &path)? } else { disk.size_bytes(&path)?.unwrap_or(0) };
    }
    Ok(sum)
}

impl Ls {
    fn run(&self, output: &Output) -> Result<(), Failure> {
        let disk = open_folder(&self.dir)?;
        let mut blocks = Vec::new();
        for path in find_blocks(&disk, &self.dir)? {
            let meta = BlockMeta::read(&disk, &path)?;
            let bytes = block_bytes(&disk, &path)
                .map_err(|e| Failure::failed(format!("can't read {}: {e}", path.display())))?;
            blocks.push((path, meta, bytes));
        }
        blocks.sort_by(|a, b| (a.1.min_ms, &a.0).cmp(&(b.1.min_ms, &b.0)));
        let listed: Vec<_> = blocks
            .iter()
            .map(|(path, meta, bytes)| json!({"path": self.dir.join(path), "bytes": bytes, "meta": meta}))
            .collect();
        output.show(&listed, || {
            let mut rows = Rows::new(&[
                "block", "from", "to", "#level", "#series", "#samples", "#chunks", "#bytes", "path",
            ]);
            for (path, meta, bytes) in &blocks {
                rows.push(vec![
                    meta.ulid.to_string(),
                    format_rfc3339(meta.min_ms),
                    format_rfc3339(meta.max_ms),
                    meta.compaction.level.to_string(),
                    meta.stats.num_series.to_string(),
                    meta.stats.num_samples.to_string(),
                    meta.stats.num_chunks.to_string(),
                    bytes.to_string(),
                    self.dir.join(path).display().to_string(),
                ]);
            }
            rows
        })
    }
}

impl Inspect {
    fn run(&self, output: &Output) -> Result<(), Failure> {
        let disk = open_folder(&self.block)?;
        let block = Block::open(&disk, Path::new(""))?;
        let mut labels = Vec::new();
        for name in block.label_names(&[])? {
            labels.push((name.clone(), block.label_values(&name, &[])?.len()));
        }
        let mut metrics: BTreeMap<String, usize> = BTreeMap::new();
        for series in block.series(&[], &(i64::MIN..=i64::MAX))? {
            *metrics.entry(series.metric_name().to_owned()).or_default() += 1;
        }
        let (labels, metrics) = (self.largest(labels), self.largest(metrics.into_iter().collect()));
        let listed = |pairs: &[(String, usize)], what: &str| -> Vec<_> {
            pairs.iter().map(|(name, count)| json!({"name": name, what: count})).collect()
        };
        let meta = block.meta();
        let document = json!({
            "meta": meta,
            "labels": listed(&labels, "values"),
            "metrics": listed(&metrics, "series"),
        });
        output.show(&document, || {
            let mut rows = Rows::new(&["what", "which", "#value"]);
            let mut push = |what: &str, which: &str, value: String| {
                rows.push(vec![what.to_owned(), which.to_owned(), value]);
            };
            push("block", "", meta.ulid.to_string());
            push("range", "from", format_rfc3339(meta.min_ms));
            push("range", "to", format_rfc3339(meta.max_ms));
            push("count", "series", meta.stats.num_series.to_string());
            push("count", "samples", meta.stats.num_samples.to_string());
            push("count", "chunks", meta.stats.num_chunks.to_string());
            push("count", "tombstones", block.tombstones().len().to_string());
            labels.iter().for_each(|(name, count)| push("values of label", name, count.to_string()));
            metrics.iter().for_each(|(name, count)| push("series of metric", name, count.to_string()));
            rows
        })
    }

    /// The largest first, cut to the limit.
    fn largest(&self, mut pairs: Vec<(String, usize)>) -> Vec<(String, usize)> {
        pairs.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        pairs.truncate(self.limit);
        pairs
    }
}

impl Verify {
    fn run(&self, output: &Output) -> Result<(), Failure> {
        let mut verdicts = Vec::new();
        for dir in &self.dirs {
            let disk = open_folder(dir)?;
            for path in find_blocks(&disk, dir)? {
                verdicts.push(verify(&disk, &path, &dir.join(&path)));
            }
        }
        let listed: Vec<_> = verdicts
            .iter()
            .map(|v| json!({"path": v.path, "samples": v.samples, "problems": v.problems, "problem_count": v.count}))
            .collect();
        output.show(&listed, || {
            let mut rows = Rows::new(&["path", "#samples", "verdict"]);
            for verdict in &verdicts {
                let (path, samples) = (verdict.path.display().to_string(), verdict.samples.to_string());
                if verdict.count == 0 {
                    rows.push(vec![path, samples, "clean".to_owned()]);
                    continue;
                }
                for problem in &verdict.problems {
                    rows.push(vec![path.clone(), samples.clone(), problem.clone()]);
                }
            }
            rows
        })?;
        match verdicts.iter().filter(|v| v.count > 0).count() {
            0 => Ok(()),
            damaged => Err(Failure::failed(format!("{damaged} of {} blocks are damaged", verdicts.len()))),
        }
    }
}

/// What reading a block whole showed.
struct Verdict {
    path: PathBuf,
    samples: u64,
    problems: Vec<String>,
    /// Of problems; not all of them are described.
    count: u64,
}

fn verify(disk: &dyn Disk, path: &Path, shown: &Path) -> Verdict {
    match Block::open(disk, path) {
        Ok(block) => {
            let report = block.verify();
            Verdict {
                path: shown.to_owned(),
                samples: report.stats.num_samples,
                problems: report.problems,
                count: report.problem_count,
            }
        }
        Err(error) => {
            Verdict { path: shown.to_owned(), samples: 0, problems: vec![error.to_string()], count: 1 }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tsdb::block::BlockWriter;
    use tsdb::model::{Labels, Sample};
    use tsdb::select::Series;

    use super::*;

    fn folder_with_a_block() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(dir.path()).unwrap());
        let parent = Path::new("tenants/default");
        disk.create_dir(parent).unwrap();
        let ulid = ulid::Ulid::from_parts(1, 2);
        let mut writer = BlockWriter::create(&disk, parent, BlockMeta::new(ulid, 0, 7_200_000)).unwrap();
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]).unwrap();
        let samples = [Sample::float(1000, 1.0), Sample::float(2000, 0.0)];
        writer.add(&labels, &Series::from_samples(labels.clone(), &samples).chunks).unwrap();
        writer.finish().unwrap().unwrap();
        (dir, parent.join(ulid.to_string()))
    }

    #[test]
    fn blocks_are_found_below_a_data_folder_and_at_their_own() {
        let (dir, block) = folder_with_a_block();
        let disk = open_folder(dir.path()).unwrap();
        assert_eq!(find_blocks(&disk, dir.path()).unwrap(), std::slice::from_ref(&block));
        let disk = open_folder(&dir.path().join(&block)).unwrap();
        assert_eq!(find_blocks(&disk, dir.path()).unwrap(), [PathBuf::new()]);
    }

    #[test]
    fn a_flipped_byte_is_found() {
        let (dir, block) = folder_with_a_block();
        let disk = open_folder(dir.path()).unwrap();
        assert_eq!(verify(&disk, &block, &block).count, 0);
        let file = disk.open(&block.join("chunks/000001")).unwrap();
        let mut byte = [0];
        file.read_at(20, &mut byte).unwrap();
        file.write_at(20, &[byte[0] ^ 1]).unwrap();
        assert!(verify(&disk, &block, &block).count > 0);
    }

    #[test]
    fn a_folder_without_blocks_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let disk = open_folder(dir.path()).unwrap();
        assert!(find_blocks(&disk, dir.path()).unwrap_err().to_string().contains("no block lies in"));
        assert!(open_folder(Path::new("/nowhere")).is_err());
        assert!(!Path::new("/nowhere").exists(), "looking mustn't create it");
    }
}
