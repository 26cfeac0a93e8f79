//! `bench storage`: workload D, the storage engine alone, in this process and one thread, on a real folder.
//!
//! Steps, each with its CPU time: append three ranges of two hours to the head (with a commit a scrape); open again
//! after a crash; cut the head into three blocks; merge them into one; decode all of it; and, for comparison, copy and
//! checksum the bytes of the three blocks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;
use tsdb::block::Block;
use tsdb::chunk::Columns;
use tsdb::compact;
use tsdb::db::{Append, Bounds, Db, DbSettings, SeriesKey};
use tsdb::disk::{Disk, OsDisk};
use tsdb::files;
use tsdb::model::{Labels, METRIC_NAME, MatchOp, Matcher, Sample, TenantId};
use tsdb::select::Select;
use tsdb::workers::Inline;
use ulid::Ulid;

use super::Error;
use super::process::Process;
use super::workload::Workload;

const RANGE_MS: i64 = 2 * 3_600_000;
const RANGES: i64 = 3;
const STEP_MS: i64 = 15_000;
/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

impl From<tsdb::Error> for Error {
    fn from(error: tsdb::Error) -> Self {
        Self(error.to_string())
    }
}

/// One step's cost.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What was done.
    pub name: &'static str,
    /// Samples that it was done to.
    pub samples: u64,
    /// User and system time of this process, in seconds.
    pub cpu_s: f64,
    /// Wall time, in seconds.
    pub wall_s: f64,
    /// Samples per CPU-second.
    pub samples_per_cpu_s: f64,
}

/// All steps, and what the blocks weigh.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In the order they were done.
    pub steps: Vec<Step>,
    /// Of the merged block's index, in bytes a series.
    pub index_bytes_per_series: f64,
    /// Of all files of the merged block, in bytes a sample.
    pub block_bytes_per_sample: f64,
}

/// Runs workload D in the folder `dir`, which is empty or isn't there. `progress` hears of each step that begins.
///
/// # Errors
/// When the disk fails.
pub fn run(series: usize, dir: &Path, seed: u64, progress: impl Fn(&'static str)) -> Result<Report, Error> {
    let disk: Arc<dyn Disk> =
        Arc::new(OsDisk::open(dir).map_err(|e| Error::new(format!("{}: {e}", dir.display())))?);
    let mut bench = Bench {
        meter: Process::open(std::process::id())?,
        workload: Workload::new(series, seed),
        samples: 0,
        steps: Vec::new(),
        progress,
        disk,
    };
    bench.run()
}

struct Bench<P> {
    disk: Arc<dyn Disk>,
    meter: Process,
    workload: Workload,
    /// In the whole database.
    samples: u64,
    steps: Vec<Step>,
    progress: P,
}

impl<P: Fn(&'static str)> Bench<P> {
    fn run(&mut self) -> Result<Report, Error> {
        let tenant = TenantId::new("default")?;
        let now_ms = RANGES * RANGE_MS;
        self.samples = self.workload.series() as u64 * (now_ms / STEP_MS) as u64;
        let open =
            |disk: &Arc<dyn Disk>| Db::open(Arc::clone(disk), DbSettings::default(), now_ms, 1, &Inline);
        let (db, _) = open(&self.disk)?;
        self.step("append to the head, a commit each scrape", |bench| bench.append(&db, &tenant))?;
        // Dropped without `seal`: as after a crash.
        drop(db);
        let (db, _) = self.step("open and replay after a crash", |bench| Ok(open(&bench.disk)?))?;
        self.step("head to blocks", |_| Ok(db.flush(now_ms)?))?;
        drop(db);
        let blocks = self.blocks(&files::tenant(&tenant))?;
        let merged = self.step("three blocks into one", |bench| bench.merge(&blocks))?;
        self.step("decode a block", |bench| bench.decode(&merged))?;
        self.step("copy and checksum the three blocks", |bench| {
            blocks.iter().try_for_each(|block| bench.copy(block.dir(), Path::new("copied")))
        })?;
        let size = |path: &Path| -> Result<u64, Error> {
            Ok(self.disk.size_bytes(path).map_err(|e| tsdb::Error::io("open", path, e))?.unwrap_or(0))
        };
        let index = size(&merged.dir().join(files::BLOCK_INDEX))?;
        let mut bytes = index;
        for path in self.files_in(&merged.dir().join(files::BLOCK_CHUNKS_DIR))? {
            bytes += size(&path)?;
        }
        Ok(Report {
            steps: std::mem::take(&mut self.steps),
            index_bytes_per_series: index as f64 / self.workload.series() as f64,
            block_bytes_per_sample: bytes as f64 / self.samples as f64,
        })
    }

    fn step<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        (self.progress)(name);
        let (begin, cpu_before_s) = (Instant::now(), self.meter.cpu_s()?);
        let done = work(self)?;
        let (cpu_s, wall_s) = (self.meter.cpu_s()? - cpu_before_s, begin.elapsed().as_secs_f64());
        let samples = self.samples;
        self.steps.push(Step { name, samples, cpu_s, wall_s, samples_per_cpu_s: samples as f64 / cpu_s });
        Ok(done)
    }

    fn append(&self, db: &Db, tenant: &TenantId) -> Result<(), Error> {
        let tenant = db.tenant(tenant)?;
        let mut batch = Vec::with_capacity(self.workload.series());
        for series in 0..self.workload.series() {
            let pairs = self.workload.labels(series);
            let labels = Labels::from_sorted(pairs.iter().map(|(name, value)| (*name, value.as_str())));
            let series = tenant.intern(SeriesKey(series as u128), &labels)?;
            batch.push(Append { series, sample: Sample::float(0, 0.0) });
        }
        let mut outcomes = Vec::new();
        for scrape in 0..(RANGES * RANGE_MS / STEP_MS) as usize {
            for (series, append) in batch.iter_mut().enumerate() {
                let timestamp_ms = scrape as i64 * STEP_MS + self.workload.offset_ms(series, STEP_MS);
                append.sample = Sample::float(timestamp_ms, self.workload.value(series, scrape));
            }
            tenant.append(&batch, &Bounds::ALL, &mut outcomes)?;
            if let Some(lost) = outcomes.iter().find(|outcome| !outcome.is_ack()) {
                return Err(Error::new(format!("a sample wasn't stored: {lost:?}")));
            }
            db.commit()?;
        }
        Ok(())
    }

    fn blocks(&self, parent: &Path) -> Result<Vec<Block>, Error> {
        let entries = self.disk.list(parent).map_err(|e| tsdb::Error::io("list", parent, e))?;
        let names = entries.iter().filter(|entry| files::block_ulid(&entry.name).is_some());
        let blocks: Vec<_> = names
            .map(|entry| Block::open(&*self.disk, &parent.join(&entry.name)))
            .collect::<Result<_, _>>()?;
        if blocks.len() as i64 == RANGES {
            Ok(blocks)
        } else {
            Err(Error::new(format!("{} blocks were cut, not {RANGES}", blocks.len())))
        }
    }

    fn merge(&self, blocks: &[Block]) -> Result<Block, Error> {
        let meta = compact::merged_meta(Ulid::from_parts(0, 1), blocks);
        let parent = Path::new("");
        let meta = compact::merge(&self.disk, parent, meta, blocks)?.expect("the blocks hold samples");
        Ok(Block::open(&*self.disk, &parent.join(meta.ulid.to_string()))?)
    }

    fn decode(&self, block: &Block) -> Result<(), Error> {
        let all = Matcher::new(MatchOp::NotEqual, METRIC_NAME, "")?;
        let select = Select { matchers: vec![all], range_ms: i64::MIN..=i64::MAX, shard: None };
        let (mut columns, mut decoded) = (Columns::default(), 0);
        for series in block.select(&select)? {
            columns.clear();
            series.decode(i64::MIN..=i64::MAX, &mut columns)?;
            decoded += columns.timestamps.len() as u64;
        }
        assert_eq!(decoded, self.samples, "every sample that was appended is decoded");
        Ok(())
    }

    fn files_in(&self, dir: &Path) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        for entry in self.disk.list(dir).map_err(|e| tsdb::Error::io("list", dir, e))? {
            let path = dir.join(&entry.name);
            if entry.is_dir { found.extend(self.files_in(&path)?) } else { found.push(path) }
        }
        Ok(found)
    }

    /// What any engine must do at least: read every byte, checksum it, write it.
    fn copy(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let failed = |what| move |e| Error::from(tsdb::Error::io(what, to, e));
        self.disk.create_dir(to).map_err(failed("create"))?;
        for path in self.files_in(from)? {
            let size = self.disk.size_bytes(&path).map_err(failed("open"))?.unwrap_or(0);
            let bytes = self.disk.map(&path, 0..size).map_err(failed("map"))?;
            let target = to.join("file");
            let file = self.disk.create(&target).map_err(failed("create"))?;
            for (at, piece) in bytes.chunks(COPY_BYTES).enumerate() {
                std::hint::black_box(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, piece));
                file.write_at((at * COPY_BYTES) as u64, piece).map_err(failed("write"))?;
            }
            file.sync().map_err(failed("sync"))?;
            self.disk.remove_file(&target).map_err(failed("remove"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_steps_are_measured_on_a_small_database() {
        let dir = tempfile::tempdir().unwrap();
        let report = run(50, dir.path(), 1, |_| {}).unwrap();
        assert_eq!(report.steps.len(), 6);
        assert!(report.steps.iter().all(|step| step.samples == 50 * 1440));
        assert!(report.index_bytes_per_series > 10.0 && report.block_bytes_per_sample < 16.0, "{report:?}");
    }
}
