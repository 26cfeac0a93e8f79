//! The data folder as a folder of the operating system.
//!
//! Every path is joined to the root after [`check_path`] has refused whatever could leave it. Files are read and
//! written at offsets (`pread`, `pwrite`), so a handle has no position and is shared between threads freely.
//! Assumes a file system that keeps a rename atomic (ext4, XFS, Btrfs, ZFS).

#![allow(clippy::disallowed_methods, reason = "this is the production side of the seam")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::MmapOptions;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, statvfs};
use rustix::io::Errno;

use super::{DirEntry, Disk, DiskFile, check_path};
use crate::files;

/// Bytes written at once where the file system can't reserve room and zeros must be written instead.
const ZERO_FILL_BYTES: usize = 1 << 20;

/// A data folder of the operating system.
#[derive(Debug)]
pub struct OsDisk {
    root: PathBuf,
}

/// Keeps every other process out of the data folder for as long as it lives.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl OsDisk {
    /// Opens a data folder, creating it where it is absent.
    ///
    /// # Errors
    /// Whatever the system says to creating it; `NotADirectory` where a file stands in its place.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root)?;
        if !fs::metadata(&root)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { root })
    }

    /// Claims the folder for this process: two nodes on one folder would overwrite each other's WAL. The system
    /// releases the claim when the process ends, however it ends.
    ///
    /// # Errors
    /// `WouldBlock` when another process has the folder.
    pub fn lock(&self) -> io::Result<FolderLock> {
        let path = self.root.join(files::LOCK);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(FolderLock { _file: file })
    }

    /// The folder itself, for messages.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn at(&self, path: &Path) -> io::Result<PathBuf> {
        check_path(path)?;
        Ok(self.root.join(path))
    }
}

impl Disk for OsDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.at(path)?)?;
        Ok(Arc::new(OsFile { file }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.at(path)?)?;
        Ok(Arc::new(OsFile { file }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(self.at(path)?)
    }

    fn map(&self, path: &Path, range: Range<u64>) -> io::Result<Bytes> {
        let file = File::open(self.at(path)?)?;
        // A map that reaches past the end would be a SIGBUS at its first use.
        if range.start > range.end || range.end > file.metadata()?.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::InvalidInput)?;
        if length == 0 {
            return Ok(Bytes::new());
        }
        #[allow(unsafe_code, reason = "memory maps are how blocks are read without copying them")]
        // SAFETY: the trait's caller promises that these bytes are never written again and the file isn't cut;
        // the folder is ours alone (`lock`), so nobody else does either.
        let map = unsafe { MmapOptions::new().offset(range.start).len(length).map(&file)? };
        Ok(Bytes::from_owner(map))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = fs::read_dir(self.at(dir)?)?
            .map(|entry| {
                let entry = entry?;
                Ok(DirEntry { is_dir: entry.file_type()?.is_dir(), name: entry.file_name().into() })
            })
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        Ok(entries)
    }

    fn size_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        match fs::metadata(self.at(path)?) {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) => Ok(Some(found.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(self.at(dir)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.at(from)?, self.at(to)?)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(self.at(from)?, self.at(to)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.at(path)?)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.as_os_str().is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        fs::remove_dir_all(self.at(dir)?)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(self.at(dir)?)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let system = statvfs(&self.root)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }
}

struct OsFile {
    file: File,
}

impl DiskFile for OsFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        loop {
            return match fallocate(&self.file, FallocateFlags::empty(), 0, length) {
                Ok(()) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill_with_zeros(length),
                // `fallocate` of nothing is an error to the system, and nothing to do for us.
                Err(Errno::INVAL) if length == 0 => Ok(()),
                Err(e) => Err(e.into()),
            };
        }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

impl OsFile {
    /// Grows the file to `length` by writing, which reserves room on any file system.
    fn fill_with_zeros(&self, length: u64) -> io::Result<()> {
        let zeros = vec![0; ZERO_FILL_BYTES];
        let mut at = self.length()?;
        while at < length {
            let size = (length - at).min(zeros.len() as u64);
            self.file.write_all_at(&zeros[..size as usize], at)?;
            at += size;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::conformance;

    #[test]
    fn conforms() {
        let folder = tempfile::tempdir().unwrap();
        conformance::run(&|name| Arc::new(OsDisk::open(folder.path().join(name)).unwrap()));
    }

    #[test]
    fn a_second_claim_of_the_folder_is_refused_until_the_first_ends() {
        let folder = tempfile::tempdir().unwrap();
        let disk = OsDisk::open(folder.path()).unwrap();
        let lock = disk.lock().unwrap();
        let refused = OsDisk::open(folder.path()).unwrap().lock().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        disk.lock().unwrap();
    }

    #[test]
    fn zeros_reserve_room_where_the_system_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let disk = OsDisk::open(folder.path()).unwrap();
        let path = Path::new("a");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(folder.path().join(path))
            .unwrap();
        let file = OsFile { file };
        file.write_at(0, b"abc").unwrap();
        file.fill_with_zeros(ZERO_FILL_BYTES as u64 + 10).unwrap();
        let bytes = disk.read(path).unwrap();
        assert_eq!(bytes.len(), ZERO_FILL_BYTES + 10);
        assert_eq!(&bytes[..4], b"abc\0");
    }
}
