//! Emptying a data folder of all that a store put there.
//!
//! What isn't the store's own (`lost+found`, an editor's backup) stays, and so do the folders in which it lies.

use std::io;
use std::path::Path;

use crate::db::SHARDS_MAX;
use crate::disk::{DirEntry, Disk};
use crate::files::{self, Folder};
use crate::{Error, Result};

/// Removes all samples of a store that is closed for good: blocks, head, log, uploads; durable on return. After an error
/// or a crash it can be begun again.
///
/// # Errors
/// [`Error::Io`] when the disk fails.
pub fn empty(disk: &dyn Disk) -> Result<()> {
    remove_dir(disk, Path::new(files::UPLOADS_DIR))?;
    empty_folder(disk, Path::new(files::TENANTS_DIR), Folder::Tenants)?;
    empty_folder(disk, Path::new(files::HEAD_DIR), Folder::Head { shards: SHARDS_MAX })?;
    empty_folder(disk, Path::new(files::WAL_DIR), Folder::Wal)?;
    sync(disk, Path::new(""))
}

/// Removes what a folder knows, and itself where nothing else is in it; tells whether it is gone. Files go once no folder
/// is left that they describe.
fn empty_folder(disk: &dyn Disk, dir: &Path, kind: Folder) -> Result<bool> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(Error::io("list", dir, error)),
    };
    let (folders, files): (Vec<DirEntry>, Vec<DirEntry>) =
        entries.into_iter().partition(|entry| entry.is_dir);
    let mut is_emptied = folders.iter().chain(&files).all(|entry| kind.knows(entry));
    for folder in folders.iter().filter(|entry| kind.knows(entry)) {
        let path = dir.join(&folder.name);
        is_emptied &= match kind {
            Folder::Tenants => empty_folder(disk, &path, Folder::Tenant)?,
            Folder::Head { .. } => empty_folder(disk, &path, Folder::HeadShard)?,
            // A block goes as it always does: whole.
            _ => remove_dir(disk, &path).map(|()| true)?,
        };
    }
    let describes = matches!(kind, Folder::Head { .. });
    for file in files.iter().filter(|entry| kind.knows(entry) && (is_emptied || !describes)) {
        let path = dir.join(&file.name);
        disk.remove_file(&path).map_err(|e| Error::io("remove", path, e))?;
    }
    if is_emptied {
        remove_dir(disk, dir)?;
    } else {
        sync(disk, dir)?;
    }
    Ok(is_emptied)
}

fn remove_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    match disk.remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", dir, e)),
        _ => Ok(()),
    }
}

fn sync(disk: &dyn Disk, dir: &Path) -> Result<()> {
    disk.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))
}
