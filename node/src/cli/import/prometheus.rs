//! `carillon import prometheus-tsdb DIR`: every block in a folder, read whole and then uploaded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tsdb::block::{Block, BlockMeta};
use tsdb::compact;
use tsdb::disk::Disk;

use super::upload::{Uploaded, upload};
use super::{Checks, Summary};
use crate::cli::Failure;
use crate::cli::api::{Api, Connection};
use crate::cli::blocks::{find_blocks, open_folder};
use crate::cli::output::Output;
use crate::cli::work_dir::WorkDir;

/// Which folder, and into which node.
#[derive(Debug, Args)]
pub struct PrometheusTsdb {
    /// A Prometheus data folder, a snapshot of one, or any folder that holds blocks; samples that are only in
    /// Prometheus's head aren't in blocks: take a snapshot for those
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    /// Folder for blocks that must be written anew because some of their series were deleted; the system's temporary
    /// one where absent
    #[arg(long, value_hint = clap::ValueHint::DirPath)]
    work_dir: Option<PathBuf>,
    #[command(flatten)]
    checks: Checks,
    #[command(flatten)]
    connection: Connection,
}

impl PrometheusTsdb {
    pub(super) async fn run(&self, output: &Output) -> Result<Summary, Failure> {
        let api = Api::new(&self.connection)?;
        let disk = open_folder(&self.dir)?;
        let blocks = find_blocks(&disk, &self.dir)?;
        let bar = output.progress(blocks.len() as u64, "blocks");
        let mut summary = Summary { series_of_blocks: Some(0), ..Summary::default() };
        for path in blocks {
            let shown = self.dir.join(&path);
            bar.set_message(format!("{},", shown.display()));
            match self.import(&api, &disk, &path).await {
                Ok((Uploaded::Taken, meta)) => {
                    summary.blocks += 1;
                    summary.samples += meta.stats.num_samples;
                    *summary.series_of_blocks.get_or_insert_default() += meta.stats.num_series;
                }
                Ok((Uploaded::AlreadyThere, _)) => summary.already_there += 1,
                // One bad block doesn't keep the others out.
                Err(failure) => summary.refused.push(format!("{}: {failure}", shown.display())),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(summary)
    }

    async fn import(
        &self,
        api: &Api,
        disk: &dyn Disk,
        path: &Path,
    ) -> Result<(Uploaded, BlockMeta), Failure> {
        let block = Block::open(disk, path)?;
        if !self.checks.no_verify {
            let report = block.verify();
            if let Some(problem) = report.problems.first() {
                return Err(Failure::failed(format!(
                    "{} problems, the first: {problem}",
                    report.problem_count
                )));
            }
        }
        if block.tombstones().is_empty() {
            return Ok((upload(api, disk, path, |_| {}).await?, block.meta().clone()));
        }
        // Deletions don't travel: the block is written anew without what was deleted, and keeps its name.
        let work = WorkDir::create(self.work_dir.as_deref(), "carillon-import")?;
        let rewritten: Arc<dyn Disk> = Arc::new(open_folder(work.path())?);
        let old = block.meta();
        let meta = BlockMeta {
            compaction: old.compaction.clone(),
            other: old.other.clone(),
            ..BlockMeta::new(old.ulid, old.min_ms, old.max_ms)
        };
        match compact::merge(&rewritten, Path::new(""), meta, std::slice::from_ref(&block))? {
            Some(meta) => {
                let dir = PathBuf::from(meta.ulid.to_string());
                Ok((upload(api, &*rewritten, &dir, |_| {}).await?, meta))
            }
            None => Err(Failure::failed("all of it was deleted; there is nothing to import")),
        }
    }
}
