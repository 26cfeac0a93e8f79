//! The seam to the file system. Paths are relative to the data folder and use `/`.
//!
//! Durability, as the engine relies on it: bytes are safe after [`DiskFile::sync`]; a name (created, renamed, linked,
//! removed) is safe after [`Disk::sync_dir`] of its folder. Anything else may be lost, torn or reordered by a crash.

mod memory;
mod os;

#[cfg(test)]
mod conformance;

use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

pub use memory::{Fault, MemoryDisk};
pub use os::{FolderLock, OsDisk};

/// A data folder.
pub trait Disk: Send + Sync + 'static {
    /// Creates a file for reading and writing; fails if it exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// The whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Bytes of a file without copying them where the system can (a memory map). The caller promises that they have
    /// been written and are never written again; the file may grow meanwhile, and may be removed while mapped.
    fn map(&self, path: &Path, range: Range<u64>) -> io::Result<Bytes>;

    /// What a folder holds, in order of name; an absent folder is `NotFound`, the empty path the data folder itself.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Size of a file in bytes, or `None` where there is none; `IsADirectory` for a folder.
    fn size_bytes(&self, path: &Path) -> io::Result<Option<u64>>;

    /// Creates a folder and those above it; one that exists is fine.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Renames a file or folder, at once and whole even in a crash; a file replaces a file.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// A second name for a file.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with all that it holds.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in a folder safe.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that may still be written.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file; offsets in bytes.
pub trait DiskFile: Send + Sync {
    /// Fills `buffer` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, growing the file where needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written safe (`fdatasync`). After an error nothing is known about what is on the disk, and a
    /// second call may lie (Rebello et al., ATC 2020): the caller stops.
    fn sync(&self) -> io::Result<()>;

    /// Reserves room, so that writes below `length` can't run out of it, and grows the file to `length` with zeros.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Cuts or grows the file.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// The file's length in bytes.
    fn length(&self) -> io::Result<u64>;
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The last part of the path.
    pub name: PathBuf,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// Refuses a path that isn't relative or steps up: whatever a caller was fed, nothing outside the folder is touched.
fn check_path(path: &Path) -> io::Result<()> {
    if path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} leaves the data folder")))
}
