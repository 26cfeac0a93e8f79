//! `carillon import openmetrics FILE`: a text file becomes blocks, all of it or nothing.
//!
//! 1. The file is read once to judge it whole (`survey`): a fault anywhere, and nothing is imported.
//! 2. By how many samples lie where, ranges of time are chosen (`plan`).
//! 3. The file is read again and becomes a block for each range, beside the node (`blocks`).
//! 4. The node is asked about the newest and the oldest of them; then all are uploaded.
//!
//! Memory is what is buffered and the labels of every series in the file; the disk holds all blocks until they are
//! uploaded.

mod blocks;
mod pieces;
mod plan;
mod survey;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tsdb::disk::{Disk, OsDisk};

use self::pieces::Source;
use self::survey::Retention;
use super::Summary;
use super::upload::{Uploaded, offer, upload};
use crate::cli::api::{Api, Connection};
use crate::cli::output::Output;
use crate::cli::work_dir::WorkDir;
use crate::cli::{Failure, when};
use crate::config::{Bound, Duration, Setting as _};
use crate::receive::batch::SeriesHasher;

/// Stands for "no timestamp": no sample can be that old.
const NO_TIMESTAMP: i64 = i64::MIN;

/// Which file, and into which node.
#[derive(Debug, Args)]
pub struct OpenMetrics {
    /// The file, or `-` for stdin
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Folder for blocks until all are made and uploaded, and for a copy of stdin; the system's temporary one where
    /// absent
    #[arg(long, value_hint = clap::ValueHint::DirPath)]
    work_dir: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

impl OpenMetrics {
    pub(super) async fn run(&self, output: &Output) -> Result<Summary, Failure> {
        let api = Api::new(&self.connection)?;
        let work = WorkDir::create(self.work_dir.as_deref(), "carillon-import")?;
        let source = Source::open(&self.file, work.path())?;
        let retention = retention(&api).await?;
        let hasher = SeriesHasher::new(rand::random());

        let bar = output.progress(source.length, "bytes");
        bar.set_message("checking,");
        let survey = survey::survey(&source, &hasher, &retention, when::now_ms(), |n| bar.inc(n))?;
        bar.finish_and_clear();
        let ranges = plan::ranges(&survey.counts, plan::highest_level(retention.kept_ms));
        drop(survey);

        let disk = OsDisk::open(work.path())
            .map_err(|e| Failure::failed(format!("can't open {}: {e}", work.path().display())))?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let bar = output.progress(source.length, "bytes");
        bar.set_message("making blocks,");
        let built = blocks::build(&source, &disk, &ranges, &hasher, |n| bar.inc(n))?;
        bar.finish_and_clear();

        let dir = |meta: &tsdb::block::BlockMeta| PathBuf::from(meta.ulid.to_string());
        // What the node refuses by its time it refuses before it has taken any other.
        if let [oldest, .., newest] = &built.blocks[..] {
            offer(&api, &*disk, &dir(newest)).await?;
            offer(&api, &*disk, &dir(oldest)).await?;
        }
        let bar = output.progress(built.blocks.len() as u64, "blocks");
        bar.set_message("uploading,");
        let mut summary = Summary { series: Some(built.series as u64), ..Summary::default() };
        for meta in &built.blocks {
            match upload(&api, &*disk, &dir(meta), |_| {}).await? {
                Uploaded::Taken => {
                    summary.blocks += 1;
                    summary.samples += meta.stats.num_samples;
                }
                Uploaded::AlreadyThere => summary.already_there += 1,
            }
            disk.remove_dir(&dir(meta)).map_err(|e| tsdb::Error::io("remove", dir(meta), e))?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(summary)
    }
}

/// How long the node keeps samples.
async fn retention(api: &Api) -> Result<Retention, Failure> {
    let about = api.get("/api/v1/status/runtimeinfo", &[]).await?.data;
    let shown = about["storageRetention"].as_str().unwrap_or_default().to_owned();
    let bound = Bound::<Duration>::parse(&shown)
        .map_err(|e| Failure::failed(format!("the node tells a retention of {shown:?}: {e}")))?;
    Ok(Retention { kept_ms: bound.max().map(|kept| kept.ms), shown })
}

#[cfg(test)]
mod tests;
