//! `carillon import openmetrics FILE`: a text file becomes blocks of two hours.
//!
//! 1. The file is read in pieces of whole lines, each decoded by the node's own decoder.
//! 2. Samples gather by range and series, [`BUFFERED_SAMPLES_MAX`] at most; then all ranges become blocks, which are
//!    uploaded and removed. A file in any order is read once; ranges that it comes back to get several blocks, which
//!    overlap and are merged when read.
//!
//! Memory is what is buffered and the labels of every series in the file.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tsdb::block::{BlockMeta, BlockWriter};
use tsdb::chunk;
use tsdb::db::SeriesKey;
use tsdb::disk::{Disk, OsDisk};
use tsdb::model::{Labels, Sample, Value, prefer_float};
use ulid::Ulid;

use super::Summary;
use super::upload::{Uploaded, upload};
use crate::cli::api::{Api, Connection};
use crate::cli::output::Output;
use crate::cli::work_dir::WorkDir;
use crate::cli::{Failure, when};
use crate::config::Limits;
use crate::receive::batch::{Batch, SeriesHasher};
use crate::receive::text::{self, Format};

/// A block's range in milliseconds, aligned.
const RANGE_MS: i64 = 2 * 3_600_000;
/// Samples held before blocks are written: 256 MiB.
const BUFFERED_SAMPLES_MAX: usize = 16 << 20;
/// Bytes of the file decoded at once; a line may be as long.
const PIECE_BYTES: usize = 4 << 20;
/// Wrong lines that are described; further ones are counted.
const REFUSED_SHOWN_MAX: usize = 20;
/// Stands for "no timestamp": no sample can be that old.
const NO_TIMESTAMP: i64 = i64::MIN;

/// Which file, and into which node.
#[derive(Debug, Args)]
pub struct OpenMetrics {
    /// The file, or `-` for stdin
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Folder for blocks until they are uploaded; the system's temporary one where absent
    #[arg(long, value_hint = clap::ValueHint::DirPath)]
    work_dir: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

impl OpenMetrics {
    pub(super) async fn run(&self, output: &Output) -> Result<Summary, Failure> {
        let api = Api::new(&self.connection)?;
        let (mut input, length) = open(&self.file)?;
        let work = Work::begin(self.work_dir.as_deref())?;
        let bar = output.progress(length, "bytes");
        let mut summary = Summary::default();
        let mut gathered = Gathered::new();
        let mut pieces = Pieces::default();
        while let Some(piece) = pieces.next(&mut input).map_err(|e| unreadable(&self.file, &e))? {
            gathered.take(piece);
            bar.inc(piece.len() as u64);
            if gathered.samples >= BUFFERED_SAMPLES_MAX {
                work.upload(&mut gathered, &api, &mut summary).await?;
            }
        }
        work.upload(&mut gathered, &api, &mut summary).await?;
        bar.finish_and_clear();
        summary.refused = gathered.refused;
        if gathered.refused_more > 0 {
            summary.refused.push(format!("and {} lines more", gathered.refused_more));
        }
        Ok(summary)
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("can't read {}: {error}", file.display()))
}

#[allow(clippy::disallowed_methods, reason = "the file that a user names lies outside of any data folder")]
fn open(file: &Path) -> Result<(Box<dyn Read>, u64), Failure> {
    if file == Path::new("-") {
        return Ok((Box::new(std::io::stdin().lock()), 0));
    }
    let opened = std::fs::File::open(file).map_err(|e| unreadable(file, &e))?;
    let length = opened.metadata().map_err(|e| unreadable(file, &e))?.len();
    Ok((Box::new(BufReader::new(opened)), length))
}

/// Cuts a stream into pieces of whole lines.
#[derive(Default)]
struct Pieces {
    buffer: Vec<u8>,
    /// Bytes at the start of the buffer that were handed out.
    used: usize,
}

impl Pieces {
    fn next(&mut self, input: &mut dyn Read) -> std::io::Result<Option<&[u8]>> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let room = PIECE_BYTES.saturating_sub(self.buffer.len());
        let read = Read::take(&mut *input, room as u64).read_to_end(&mut self.buffer)?;
        self.used = match self.buffer.iter().rposition(|byte| *byte == b'\n') {
            Some(newline) => newline + 1,
            // The last line may lack its end.
            None if read < room => self.buffer.len(),
            None => return Err(std::io::Error::other(format!("a line has more than {PIECE_BYTES} bytes"))),
        };
        Ok((self.used > 0).then(|| &self.buffer[..self.used]))
    }
}

/// Samples by range and series.
struct Gathered {
    hasher: SeriesHasher,
    limits: Limits,
    batch: Batch,
    /// Where a series' labels are in `labels`; `None` where they can't be.
    known: HashMap<SeriesKey, Option<u32>>,
    labels: Vec<Labels>,
    ranges: BTreeMap<i64, HashMap<u32, Vec<(i64, f64)>>>,
    samples: usize,
    lines: usize,
    refused: Vec<String>,
    refused_more: usize,
}

impl Gathered {
    fn new() -> Self {
        Self {
            hasher: SeriesHasher::new(rand::random()),
            limits: Limits::default(),
            batch: Batch::default(),
            known: HashMap::new(),
            labels: Vec::new(),
            ranges: BTreeMap::new(),
            samples: 0,
            lines: 0,
            refused: Vec::new(),
            refused_more: 0,
        }
    }

    /// Takes the samples of some whole lines.
    fn take(&mut self, piece: &[u8]) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        text::decode(piece, Format::OpenMetrics, NO_TIMESTAMP, &self.hasher, &mut batch);
        for refused in &batch.refused {
            self.refuse(format!("after line {}: {}", self.lines, refused.why));
        }
        for (append, owner) in batch.appends.iter().zip(&batch.owners) {
            let raw = batch.raw_labels(piece, *owner);
            let Some(series) = self.series(batch.keys[*owner as usize], raw) else { continue };
            let (timestamp_ms, Value::Float(value)) = (append.sample.timestamp_ms, &append.sample.value)
            else {
                unreachable!("text holds floats")
            };
            if timestamp_ms == NO_TIMESTAMP {
                self.refuse(format!("{}: a sample has no timestamp", String::from_utf8_lossy(raw)));
                continue;
            }
            let range = self.ranges.entry(timestamp_ms.div_euclid(RANGE_MS)).or_default();
            range.entry(series).or_default().push((timestamp_ms, *value));
            self.samples += 1;
        }
        self.lines += piece.iter().filter(|byte| **byte == b'\n').count();
        self.batch = batch;
    }

    fn series(&mut self, key: SeriesKey, raw: &[u8]) -> Option<u32> {
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let series = match text::labels(raw, &self.limits) {
            Ok(labels) => {
                self.labels.push(labels);
                Some(self.labels.len() as u32 - 1)
            }
            Err(why) => {
                self.refuse(why);
                None
            }
        };
        self.known.insert(key, series);
        series
    }

    fn refuse(&mut self, why: String) {
        if self.refused.len() < REFUSED_SHOWN_MAX { self.refused.push(why) } else { self.refused_more += 1 }
    }
}

/// A folder for blocks until they are uploaded.
struct Work {
    disk: Arc<dyn Disk>,
    _dir: WorkDir,
}

impl Work {
    fn begin(parent: Option<&Path>) -> Result<Self, Failure> {
        let dir = WorkDir::create(parent, "carillon-import")?;
        let disk = OsDisk::open(dir.path())
            .map_err(|e| Failure::failed(format!("can't open {}: {e}", dir.path().display())))?;
        Ok(Self { disk: Arc::new(disk), _dir: dir })
    }

    /// Makes blocks of all that is gathered, hands them to the node, and forgets them.
    async fn upload(&self, gathered: &mut Gathered, api: &Api, summary: &mut Summary) -> Result<(), Failure> {
        for (range, series) in std::mem::take(&mut gathered.ranges) {
            let Some(meta) = write_block(&self.disk, range * RANGE_MS, series, &gathered.labels)? else {
                continue;
            };
            let dir = PathBuf::from(meta.ulid.to_string());
            match upload(api, &*self.disk, &dir, |_| {}).await? {
                Uploaded::Taken => {
                    summary.blocks += 1;
                    summary.samples += meta.stats.num_samples;
                    summary.series += meta.stats.num_series;
                }
                Uploaded::AlreadyThere => summary.already_there += 1,
            }
            self.disk.remove_dir(&dir).map_err(|e| tsdb::Error::io("remove", &dir, e))?;
        }
        gathered.samples = 0;
        Ok(())
    }
}

/// Writes one range's series as a block in the disk's root.
fn write_block(
    disk: &Arc<dyn Disk>,
    start_ms: i64,
    series: HashMap<u32, Vec<(i64, f64)>>,
    labels: &[Labels],
) -> tsdb::Result<Option<BlockMeta>> {
    let mut sorted: Vec<_> =
        series.into_iter().map(|(id, samples)| (&labels[id as usize], samples)).collect();
    sorted.sort_by(|a, b| a.0.cmp(b.0));
    let ulid = Ulid::from_parts(when::now_ms().unsigned_abs(), rand::random());
    let mut writer =
        BlockWriter::create(disk, Path::new(""), BlockMeta::new(ulid, start_ms, start_ms + RANGE_MS))?;
    let mut sorted = sorted.into_iter().peekable();
    while let Some((labels, mut samples)) = sorted.next() {
        // Two spellings of the same labels have different keys.
        while let Some((_, more)) = sorted.next_if(|(next, _)| *next == labels) {
            samples.extend(more);
        }
        samples.sort_by_key(|(timestamp_ms, _)| *timestamp_ms);
        // Of equal timestamps the value stays that every other part of the system would keep.
        samples.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same && prefer_float(next.1, kept.1).is_gt() {
                kept.1 = next.1;
            }
            same
        });
        let samples: Vec<_> = samples.into_iter().map(|(at, value)| Sample::float(at, value)).collect();
        writer.add(labels, &chunk::encode(&samples))?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use tsdb::block::Block;
    use tsdb::select::Select;

    use super::*;

    fn gather(text: &str) -> Gathered {
        let mut gathered = Gathered::new();
        let mut pieces = Pieces::default();
        let mut input = text.as_bytes();
        while let Some(piece) = pieces.next(&mut input).unwrap() {
            gathered.take(piece);
        }
        gathered
    }

    #[test]
    fn samples_go_to_their_ranges_and_series() {
        let gathered = gather(
            "# TYPE a counter\na_total{x=\"1\"} 1 0\na_total{x=\"1\"} 2 7199.999\na_total{x=\"1\"} 3 7200\nb 4 7200\n# EOF\n",
        );
        assert_eq!((gathered.samples, gathered.labels.len(), gathered.ranges.len()), (4, 2, 2));
        assert!(gathered.refused.is_empty(), "{:?}", gathered.refused);
    }

    #[test]
    fn lines_that_cant_be_are_named_and_the_others_taken() {
        let gathered = gather("a 1 1\nnonsense\nb 1\nc 2 2\n");
        assert_eq!((gathered.samples, gathered.refused.len()), (2, 2));
        assert!(gathered.refused[1].contains("no timestamp"), "{:?}", gathered.refused);
    }

    #[test]
    fn a_block_holds_each_timestamp_once() {
        let gathered = gather("m{a=\"1\",b=\"2\"} 5 10\nm{a=\"1\",b=\"2\"} 1 5\nm{b=\"2\",a=\"1\"} 5 10\n");
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(dir.path()).unwrap());
        let series = gathered.ranges.into_values().next().unwrap();
        let meta = write_block(&disk, 0, series, &gathered.labels).unwrap().unwrap();
        let block = Block::open(&*disk, Path::new(&meta.ulid.to_string())).unwrap();
        assert!(block.verify().is_clean());
        let select = Select {
            matchers: vec![tsdb::model::Matcher::new(tsdb::model::MatchOp::Equal, "__name__", "m").unwrap()],
            range_ms: 0..=i64::MAX,
            shard: None,
        };
        let found = block.select(&select).unwrap();
        let samples = found[0].samples().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(samples, [Sample::float(5000, 1.0), Sample::float(10_000, 5.0)]);
    }

    #[test]
    fn pieces_end_at_lines() {
        let mut pieces = Pieces::default();
        let text = format!("{}\n{}\nend", "x".repeat(PIECE_BYTES / 2), "y".repeat(PIECE_BYTES / 4 * 3));
        let mut input = text.as_bytes();
        let mut lengths = Vec::new();
        while let Some(piece) = pieces.next(&mut input).unwrap() {
            lengths.push(piece.len());
        }
        assert_eq!(lengths, [PIECE_BYTES / 2 + 1, PIECE_BYTES / 4 * 3 + 1, 3]);
        assert!(Pieces::default().next(&mut "z".repeat(PIECE_BYTES + 1).as_bytes()).is_err());
    }
}
