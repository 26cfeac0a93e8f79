//! The disk as a process sees it: the one in memory, which says when a block is cut; and what other programs leave there.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tsdb::disk::{DirEntry, Disk, DiskFile, MemoryDisk};
use tsdb::files::{BLOCK_CHUNKS_DIR, TENANTS_DIR, tenant};
use tsdb::model::TenantId;

use super::{Moment, Waiting};

/// What another program may leave in the folders that list what they hold: a file system's own folder, an editor's
/// backup, what NFS renames a file to that is removed while it is open. A folder's name ends in a slash.
const STRAYS: [(&str, &str); 9] = [
    ("", "lost+found/"),
    ("wal", ".nfs000000000000002a"),
    ("wal", "00000001~"),
    ("head", "lost+found/"),
    ("head", "00.bak"),
    ("head/00", "checkpoint-00000001~"),
    ("hints", "lost+found/"),
    (TENANTS_DIR, ".directory"),
    (TENANTS_DIR, "lost+found/"),
];
/// The same in the folder of a tenant.
const STRAYS_OF_A_TENANT: [&str; 2] = ["lost+found/", "index.bak"];

/// A disk with a fault that waits.
pub struct WatchedDisk {
    /// What does the work.
    pub disk: MemoryDisk,
    /// What goes wrong once a block is being written.
    pub waiting: Waiting,
}

impl WatchedDisk {
    /// Injects what waits, where this folder is a new block's.
    fn notice(&self, dir: &Path) {
        if dir.starts_with(TENANTS_DIR) && dir.ends_with(BLOCK_CHUNKS_DIR) {
            self.waiting.reached(Moment::Cut, &self.disk);
        }
    }
}

impl Disk for WatchedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }

    fn map(&self, path: &Path, range: Range<u64>) -> io::Result<Bytes> {
        self.disk.map(path, range)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn size_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        self.disk.size_bytes(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.notice(dir);
        self.disk.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

/// Leaves strays in every folder that there is, safe from power cuts. Tells their paths, and whether each is a folder.
pub fn leave_strays(disk: &MemoryDisk, tenants: &[TenantId]) -> Vec<(String, bool)> {
    let of_tenants = tenants.iter().flat_map(|id| {
        let dir = tenant(id).display().to_string();
        STRAYS_OF_A_TENANT.map(|name| (dir.clone(), name))
    });
    let all = STRAYS.map(|(dir, name)| (dir.to_owned(), name)).into_iter().chain(of_tenants);
    // Whatever can't be made now, on a disk that fails or in a folder that isn't there, isn't left.
    all.filter_map(|(dir, name)| leave(disk, Path::new(&dir), name).ok()).collect()
}

fn leave(disk: &MemoryDisk, dir: &Path, name: &str) -> io::Result<(String, bool)> {
    disk.list(dir)?;
    let is_folder = name.ends_with('/');
    let path = dir.join(name.trim_end_matches('/'));
    if is_folder {
        disk.create_dir(&path)?;
    } else {
        let file = disk.create(&path)?;
        file.write_at(0, b"not ours")?;
        file.sync()?;
    }
    disk.sync_dir(dir)?;
    Ok((path.display().to_string(), is_folder))
}

/// Flips a bit of one byte of a file below `dir`, as chance has it: which file, if there is one.
pub fn rot(disk: &MemoryDisk, dir: &Path, rng: &mut StdRng) -> Option<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in disk.list(&folder).unwrap_or_default() {
            let path = folder.join(&entry.name);
            if entry.is_dir { folders.push(path) } else { files.push(path) }
        }
    }
    let path = files.choose(rng)?;
    let size = disk.size_bytes(path).ok()??;
    let offset = (size > 0).then(|| rng.random_range(0..size))?;
    disk.flip(path, offset, 1 << rng.random_range(0..8u8)).ok()?;
    Some(path.clone())
}

/// Strays, and whether each is a folder, that aren't there any more as they were left.
pub fn missing_strays(disk: &MemoryDisk, left: &[(String, bool)]) -> Vec<String> {
    let is_there = |path: &str, is_folder: bool| {
        let path = Path::new(path);
        if is_folder { disk.list(path).is_ok() } else { disk.read(path).is_ok_and(|b| b == b"not ours") }
    };
    left.iter()
        .filter(|(path, is_folder)| !is_there(path, *is_folder))
        .map(|(path, _)| path.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use tsdb::disk::Fault;

    use super::*;

    #[test]
    fn a_fault_waits_until_a_block_is_written() {
        let waiting = Waiting::default();
        waiting.set(Some((Moment::Cut, Fault::NoSpace { after: 0 })));
        let disk = WatchedDisk { disk: MemoryDisk::new(), waiting };
        disk.create_dir(Path::new("tenants/a")).unwrap();
        let file = disk.create(Path::new("tenants/a/file")).unwrap();
        file.write_at(0, b"goes well").unwrap();
        disk.create_dir(&tenant(&TenantId::new("a").unwrap()).join("block").join(BLOCK_CHUNKS_DIR)).unwrap();
        assert_eq!(file.write_at(0, b"fails").unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_at(0, b"once").unwrap();
    }

    #[test]
    fn strays_are_left_where_folders_are_and_missed_when_gone() {
        let disk = MemoryDisk::new();
        disk.create_dir(Path::new("head/00")).unwrap();
        let left = leave_strays(&disk, &[]);
        let paths: Vec<_> = left.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["lost+found", "head/lost+found", "head/00.bak", "head/00/checkpoint-00000001~"]);
        assert!(missing_strays(&disk, &left).is_empty());
        disk.remove_file(Path::new("head/00.bak")).unwrap();
        assert_eq!(missing_strays(&disk, &left), ["head/00.bak"]);
    }
}
