//! The second reading of a file: its samples become blocks, one for each range of the plan.
//!
//! 1. Samples gather by range and series. A range that has all its samples becomes a block at once, so of a file in order
//!    of time one block is in memory.
//! 2. When [`BUFFERED_SAMPLES_MAX`] samples are gathered all the same, every range's become a part; a range's parts are
//!    merged when it has all its samples.
//!
//! A block is named by its newest sample and a hash of what it holds, so that a file that is imported again, after it was
//! interrupted or not, makes the same blocks, which the node knows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tsdb::block::{Block, BlockMeta, BlockWriter};
use tsdb::chunk;
use tsdb::compact;
use tsdb::db::SeriesKey;
use tsdb::disk::Disk;
use tsdb::model::{Labels, Sample, Value, prefer_float};
use ulid::Ulid;
use xxhash_rust::xxh3::Xxh3;

use super::NO_TIMESTAMP;
use super::pieces::{Pieces, Source};
use super::plan::Range;
use crate::cli::Failure;
use crate::config::Limits;
use crate::receive::batch::{Batch, SeriesHasher};
use crate::receive::text::{self, Format, Reader};

/// Samples held before parts are written: 256 MiB.
const BUFFERED_SAMPLES_MAX: usize = 16 << 20;
/// Where parts of blocks lie until they are merged.
const PARTS_DIR: &str = "parts";

/// Blocks in the root of a disk, and how many series they hold.
pub(super) struct Built {
    /// In order of time.
    pub(super) blocks: Vec<BlockMeta>,
    /// Series of the whole file.
    pub(super) series: usize,
}

/// Reads all of `source`, which a survey found in order, and writes a block for each of `ranges`.
///
/// # Errors
/// When the file changed since, or the disk fails.
pub(super) fn build(
    source: &Source,
    disk: &Arc<dyn Disk>,
    ranges: &[Range],
    hasher: &SeriesHasher,
    progress: impl Fn(u64),
) -> Result<Built, Failure> {
    build_buffering(source, disk, ranges, hasher, BUFFERED_SAMPLES_MAX, progress)
}

/// As [`build`], with at most `buffered_max` samples in memory.
pub(super) fn build_buffering(
    source: &Source,
    disk: &Arc<dyn Disk>,
    ranges: &[Range],
    hasher: &SeriesHasher,
    buffered_max: usize,
    progress: impl Fn(u64),
) -> Result<Built, Failure> {
    disk.create_dir(Path::new(PARTS_DIR)).map_err(|e| tsdb::Error::io("create", PARTS_DIR, e))?;
    let changed = || Failure::failed("the file changed while it was read; nothing was imported");
    let mut gathering = Gathering::new(disk, ranges, buffered_max);
    let mut input = source.read()?;
    let mut reader = Reader::new(Format::OpenMetrics, NO_TIMESTAMP);
    let (mut pieces, mut batch) = (Pieces::default(), Batch::default());
    while let Some(piece) = pieces.next(&mut input).map_err(|e| source.unreadable(&e))? {
        batch.clear();
        reader.read(piece, hasher, &mut batch).map_err(|_| changed())?;
        gathering.take(piece, &batch)?.ok_or_else(changed)?;
        progress(piece.len() as u64);
    }
    gathering.finish().ok_or_else(changed)
}

/// What is gathered of each range.
struct Gathering<'a> {
    disk: &'a Arc<dyn Disk>,
    ranges: &'a [Range],
    open: Vec<Open>,
    limits: Limits,
    /// Where a series' labels are in `labels`, by its spelling.
    known: HashMap<SeriesKey, u32>,
    by_labels: HashMap<Labels, u32>,
    labels: Vec<Labels>,
    buffered: usize,
    buffered_max: usize,
    /// Parts written so far.
    parts: u64,
    blocks: Vec<BlockMeta>,
}

/// A range that lacks some of its samples.
struct Open {
    series: HashMap<u32, Vec<(i64, f64)>>,
    /// Samples that are still to come.
    lacking: u64,
    parts: Vec<PathBuf>,
}

impl<'a> Gathering<'a> {
    fn new(disk: &'a Arc<dyn Disk>, ranges: &'a [Range], buffered_max: usize) -> Self {
        let open = |range: &Range| Open { series: HashMap::new(), lacking: range.samples, parts: Vec::new() };
        Self {
            disk,
            ranges,
            open: ranges.iter().map(open).collect(),
            limits: Limits::default(),
            known: HashMap::new(),
            by_labels: HashMap::new(),
            labels: Vec::new(),
            buffered: 0,
            buffered_max,
            parts: 0,
            blocks: Vec::new(),
        }
    }

    /// Takes the samples of some whole lines; `None` where the survey can't have seen them.
    fn take(&mut self, piece: &[u8], batch: &Batch) -> Result<Option<()>, Failure> {
        if batch.refused.count() > 0 {
            return Ok(None);
        }
        for (append, owner) in batch.appends.iter().zip(&batch.owners) {
            let raw = batch.raw_labels(piece, *owner);
            let (at_ms, Value::Float(value)) = (append.sample.timestamp_ms, &append.sample.value) else {
                unreachable!("text holds floats")
            };
            let Some(series) = self.series(batch.keys[*owner as usize], raw) else { return Ok(None) };
            let number = self.ranges.partition_point(|range| range.end_ms <= at_ms);
            let Some(open) = self.open.get_mut(number) else { return Ok(None) };
            if at_ms < self.ranges[number].start_ms || open.lacking == 0 {
                return Ok(None);
            }
            open.series.entry(series).or_default().push((at_ms, *value));
            open.lacking -= 1;
            self.buffered += 1;
            if open.lacking == 0 {
                self.close(number)?;
            } else if self.buffered >= self.buffered_max {
                for number in 0..self.open.len() {
                    self.write_part(number)?;
                }
            }
        }
        Ok(Some(()))
    }

    fn series(&mut self, key: SeriesKey, raw: &[u8]) -> Option<u32> {
        if let Some(known) = self.known.get(&key) {
            return Some(*known);
        }
        let labels = text::labels(raw, &self.limits).ok()?;
        // Two spellings of the same labels have different keys.
        let series = *self.by_labels.entry(labels).or_insert_with_key(|labels| {
            self.labels.push(labels.clone());
            self.labels.len() as u32 - 1
        });
        self.known.insert(key, series);
        Some(series)
    }

    /// Makes a block of a range that has all its samples.
    fn close(&mut self, number: usize) -> Result<(), Failure> {
        if self.open[number].parts.is_empty() {
            let block = self.write(number, Path::new(""))?;
            self.blocks.extend(block);
            return Ok(());
        }
        self.write_part(number)?;
        let parts = std::mem::take(&mut self.open[number].parts);
        let block = self.merge(&parts, Path::new(""))?;
        self.blocks.push(block);
        Ok(())
    }

    /// Makes a part of what is gathered of a range.
    fn write_part(&mut self, number: usize) -> Result<(), Failure> {
        let parent = self.part_dir()?;
        if let Some(part) = self.write(number, &parent)? {
            self.open[number].parts.push(parent.join(part.ulid.to_string()));
        }
        if self.open[number].parts.len() == compact::BLOCKS_MAX {
            let parts = std::mem::take(&mut self.open[number].parts);
            let parent = self.part_dir()?;
            let merged = self.merge(&parts, &parent)?;
            self.open[number].parts.push(parent.join(merged.ulid.to_string()));
        }
        Ok(())
    }

    /// A folder for one part: parts that hold the same, as of a file with lines that come twice, have the same name.
    fn part_dir(&mut self) -> Result<PathBuf, Failure> {
        self.parts += 1;
        let dir = Path::new(PARTS_DIR).join(self.parts.to_string());
        self.disk.create_dir(&dir).map_err(|e| tsdb::Error::io("create", &dir, e))?;
        Ok(dir)
    }

    /// Writes what is gathered of a range as a block into `parent`, and forgets it; `None` where that is nothing.
    fn write(&mut self, number: usize, parent: &Path) -> Result<Option<BlockMeta>, Failure> {
        let gathered = std::mem::take(&mut self.open[number].series);
        let mut sorted = Vec::with_capacity(gathered.len());
        let (mut hash, mut range_ms) = (Xxh3::new(), None);
        for (id, samples) in gathered {
            self.buffered -= samples.len();
            sorted.push((&self.labels[id as usize], once_each(samples)));
        }
        sorted.sort_unstable_by(|a, b| a.0.cmp(b.0));
        for (labels, samples) in &sorted {
            hash.update(labels.as_bytes());
            for (at_ms, value) in samples {
                hash.update(&at_ms.to_le_bytes());
                hash.update(&value.to_bits().to_le_bytes());
                let (first, last) = range_ms.unwrap_or((*at_ms, *at_ms));
                range_ms = Some((first.min(*at_ms), last.max(*at_ms)));
            }
        }
        let Some((first_ms, last_ms)) = range_ms else { return Ok(None) };
        let meta = BlockMeta::new(named(last_ms, &hash), first_ms, last_ms + 1);
        let mut writer = BlockWriter::create(self.disk, parent, meta)?;
        for (labels, samples) in sorted {
            let samples: Vec<_> =
                samples.into_iter().map(|(at_ms, value)| Sample::float(at_ms, value)).collect();
            writer.add(labels, &chunk::encode(&samples))?;
        }
        Ok(writer.finish()?)
    }

    /// Makes one block of parts, which are removed.
    fn merge(&self, parts: &[PathBuf], parent: &Path) -> Result<BlockMeta, Failure> {
        let open = |dir: &PathBuf| Block::open(&**self.disk, dir);
        let blocks: Vec<_> = parts.iter().map(open).collect::<tsdb::Result<_>>()?;
        let mut hash = Xxh3::new();
        blocks.iter().for_each(|block| hash.update(&block.meta().ulid.0.to_le_bytes()));
        let all = compact::merged_meta(Ulid::nil(), &blocks);
        let meta = BlockMeta::new(named(all.max_ms - 1, &hash), all.min_ms, all.max_ms);
        let merged = compact::merge(self.disk, parent, meta, &blocks)?.expect("a part holds samples");
        drop(blocks);
        for part in parts {
            self.disk.remove_dir(part).map_err(|e| tsdb::Error::io("remove", part, e))?;
        }
        Ok(merged)
    }

    /// All blocks; `None` where samples are lacking.
    fn finish(mut self) -> Option<Built> {
        if self.open.iter().any(|open| open.lacking > 0) {
            return None;
        }
        self.blocks.sort_by_key(|meta| meta.max_ms);
        Some(Built { blocks: self.blocks, series: self.labels.len() })
    }
}

/// A block's name.
fn named(last_ms: i64, hash: &Xxh3) -> Ulid {
    Ulid::from_parts(last_ms.unsigned_abs(), hash.digest128())
}

/// Samples in order of time. Of equal timestamps the value stays that every other part of the system would keep.
fn once_each(mut samples: Vec<(i64, f64)>) -> Vec<(i64, f64)> {
    samples.sort_by_key(|(at_ms, _)| *at_ms);
    samples.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same && prefer_float(next.1, kept.1).is_gt() {
            kept.1 = next.1;
        }
        same
    });
    samples
}
