//! A disk that asks before each operation, so that a test can look around, or make it fail.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::disk::{DirEntry, Disk, DiskFile, MemoryDisk};

/// Is told the operation and its path; an error is what the operation ends with. `renamed` comes after a rename, with the
/// new name.
type Hook = Arc<dyn Fn(&str, &Path) -> io::Result<()> + Send + Sync>;

pub(super) struct HookDisk {
    pub(super) inner: MemoryDisk,
    hook: RwLock<Option<Hook>>,
}

impl HookDisk {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { inner: MemoryDisk::new(), hook: RwLock::default() })
    }

    pub(super) fn set(&self, hook: impl Fn(&str, &Path) -> io::Result<()> + Send + Sync + 'static) {
        *self.hook.write() = Some(Arc::new(hook));
    }

    pub(super) fn clear(&self) {
        *self.hook.write() = None;
    }

    fn ask(&self, what: &str, path: &Path) -> io::Result<()> {
        let hook = self.hook.read().clone();
        hook.map_or(Ok(()), |hook| hook(what, path))
    }
}

impl Disk for HookDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.ask("create", path)?;
        self.inner.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.ask("open", path)?;
        self.inner.open(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.ask("read", path)?;
        self.inner.read(path)
    }

    fn map(&self, path: &Path, range: Range<u64>) -> io::Result<Bytes> {
        self.ask("map", path)?;
        self.inner.map(path, range)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.ask("list", dir)?;
        self.inner.list(dir)
    }

    fn size_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        self.inner.size_bytes(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.ask("create_dir", dir)?;
        self.inner.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask("rename", from)?;
        self.inner.rename(from, to)?;
        self.ask("renamed", to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.ask("remove_file", path)?;
        self.inner.remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.ask("remove_dir", dir)?;
        self.inner.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.ask("sync_dir", dir)?;
        self.inner.sync_dir(dir)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }
}
