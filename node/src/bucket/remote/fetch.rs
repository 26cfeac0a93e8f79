//! Brings one block from the bucket to this node's disk, in parts, and looks whether it arrived as it was sent.
//!
//! A fetched block needs no sync: `cache/` is emptied at each start, so a crash leaves nothing that could be believed.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tsdb::block::{Block, BlockMeta, META_BYTES_MAX};
use tsdb::disk::Disk;
use tsdb::files;
use ulid::Ulid;

use super::super::error::{Error, Result};
use super::super::parts::parts;
use super::super::thanos::{BlockFile, files_of};
use super::super::{Checksum, keys};
use super::RemoteBlocks;
use crate::env::on_disk;

/// What a block in the bucket consists of.
pub(super) struct Contents {
    meta: Bytes,
    files: Vec<BlockFile>,
    /// Of all files, `meta.json` included.
    pub(super) size_bytes: u64,
}

/// Why a fetch ended.
pub(super) enum Missed {
    /// This object isn't there.
    Absent(String),
    /// Anything else.
    Failed(Error),
}

impl From<Error> for Missed {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<tsdb::Error> for Missed {
    fn from(error: tsdb::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl RemoteBlocks {
    /// Reads what a block consists of.
    pub(super) async fn contents(&self, ulid: Ulid) -> Result<Contents, Missed> {
        let key = keys::block_file(ulid, files::BLOCK_META);
        let Some((bytes, _)) = self.bucket.get(&key).await? else {
            return Err(Missed::Absent(key.to_string()));
        };
        let corrupt = |reason: String| Error::Corrupt { key: key.to_string(), reason };
        if bytes.len() as u64 > META_BYTES_MAX {
            return Err(corrupt(format!("it has more than {META_BYTES_MAX} bytes")).into());
        }
        let meta = BlockMeta::from_json(&bytes).map_err(|e| corrupt(e.to_string()))?;
        if meta.ulid != ulid {
            return Err(corrupt(format!("it is of block {}", meta.ulid)).into());
        }
        let files = files_of(&meta).map_err(corrupt)?;
        let sizes = files.iter().try_fold(bytes.len() as u64, |sum, file| sum.checked_add(file.size_bytes));
        let size_bytes = sizes.ok_or_else(|| corrupt("its files are too long".to_owned()))?;
        Ok(Contents { meta: bytes, files, size_bytes })
    }

    /// Fetches all of a block and opens it. What a failure leaves is removed.
    pub(super) async fn fetch(&self, ulid: Ulid, contents: &Contents) -> Result<Block, Missed> {
        let number = self.fetched.fetch_add(1, Ordering::Relaxed);
        let dir = Path::new(files::CACHE_DIR).join(format!("{number}-{ulid}"));
        let fetched = self.fetch_into(&dir, ulid, contents).await;
        if fetched.is_err() {
            self.remove(dir).await;
        }
        fetched
    }

    async fn fetch_into(&self, dir: &Path, ulid: Ulid, contents: &Contents) -> Result<Block, Missed> {
        self.local("create", dir, |disk, dir| disk.create_dir(&dir.join(files::BLOCK_CHUNKS_DIR))).await?;
        for file in &contents.files {
            self.fetch_file(&dir.join(&file.name), ulid, file).await?;
        }
        let (path, meta) = (dir.join(files::BLOCK_META), contents.meta.clone());
        self.local("write", &path, move |disk, path| disk.create(path)?.write_at(0, &meta)).await?;
        let (disk, dir) = (self.disk.clone(), dir.to_owned());
        let opened = on_disk(&*self.pool, move || Block::open(&*disk, &dir)).await;
        Ok(opened.map_err(|e| damaged(ulid, e))?)
    }

    async fn fetch_file(&self, path: &Path, ulid: Ulid, file: &BlockFile) -> Result<(), Missed> {
        let key = keys::block_file(ulid, &file.name);
        let mut sum = Checksum::new();
        self.local("create", path, |disk, path| disk.create(path).map(drop)).await?;
        for part in parts(file.size_bytes) {
            let at = part.start;
            let Some(bytes) = self.bucket.get_range(&key, part).await? else {
                return Err(Missed::Absent(key.to_string()));
            };
            sum.update(&bytes);
            self.local("write", path, move |disk, path| disk.open(path)?.write_at(at, &bytes)).await?;
        }
        if file.crc32c.is_some_and(|expected| expected != sum.finish()) {
            let reason = "its checksum isn't the one that its meta.json has".to_owned();
            return Err(Error::Corrupt { key: key.to_string(), reason }.into());
        }
        Ok(())
    }

    /// Removes a folder of the cache, if it is there.
    pub(super) async fn remove(&self, dir: PathBuf) {
        let removed = self.local("remove", &dir, Disk::remove_dir).await;
        match removed {
            Err(tsdb::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "a fetched block stays on the disk"),
            Ok(()) => {}
        }
    }

    async fn local(
        &self,
        what: &'static str,
        path: &Path,
        work: impl FnOnce(&dyn Disk, &Path) -> std::io::Result<()> + Send + 'static,
    ) -> tsdb::Result<()> {
        let (disk, path) = (self.disk.clone(), path.to_owned());
        on_disk(&*self.pool, move || work(&*disk, &path).map_err(|e| tsdb::Error::io(what, path, e))).await
    }
}

/// Damage inside a block from the bucket, which names the block.
pub(super) fn damaged(ulid: Ulid, error: tsdb::Error) -> Error {
    match error {
        tsdb::Error::Corrupt { .. } => {
            Error::Corrupt { key: keys::block(ulid).to_string(), reason: error.to_string() }
        }
        other => other.into(),
    }
}
