//! What lies in the data folder: names that are the store's own, and others.
//!
//! Nothing is concluded from a name that isn't the store's own (`lost+found`, an editor's backup, a file of another
//! program): it is told of once, and left alone.

use std::io;
use std::path::{Path, PathBuf};

use super::super::core::shard_bits;
use super::super::settings::DbSettings;
use super::{Damaged, Recovery};
use crate::disk::Disk;
use crate::files::{self, Folder};
use crate::head::layout::Layout;
use crate::wal::REPORTS_MAX;
use crate::{Error, Result};

impl Recovery {
    /// The store's own names in a folder, in order; none where it is absent. Others are noted.
    pub(super) fn list(&mut self, disk: &dyn Disk, dir: &Path, kind: Folder) -> Result<Vec<PathBuf>> {
        let entries = match disk.list(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", dir, error)),
        };
        let mut own = Vec::with_capacity(entries.len());
        for entry in entries {
            if kind.knows(&entry) {
                own.push(entry.name);
            } else if !files::is_of_file_system(&entry) {
                self.unknown_count += 1;
                if self.unknown.len() < REPORTS_MAX {
                    self.unknown.push(dir.join(entry.name));
                }
            }
        }
        Ok(own)
    }

    /// Notes what lies in a block's folder that isn't a block's; what can't be listed is told by opening it.
    pub(super) fn look_into_block(&mut self, disk: &dyn Disk, dir: &Path) {
        let _ = self.list(disk, dir, Folder::Block);
        let _ = self.list(disk, &dir.join(files::BLOCK_CHUNKS_DIR), Folder::BlockChunks);
    }

    /// Makes the head's folders that aren't there, and tells log2 of the number of shards: a data folder keeps the number
    /// that it was made with.
    pub(super) fn make_dirs(&mut self, disk: &dyn Disk, settings: &DbSettings) -> Result<u32> {
        let head = Path::new(files::HEAD_DIR);
        let create = |dir: &Path| disk.create_dir(dir).map_err(|e| Error::io("create", dir, e));
        let sync = |dir: &Path| disk.sync_dir(dir).map_err(|e| Error::io("sync", dir, e));
        self.list(disk, Path::new(""), Folder::Data)?;
        create(head)?;
        create(Path::new(files::TENANTS_DIR))?;
        sync(Path::new(""))?;
        let mut layout = self.read_layout(disk, settings)?;
        if planted::is(planted::Bug::ShardsCounted) {
            let found = disk.list(head).unwrap_or_default().iter().filter(|entry| entry.is_dir).count();
            layout.bits = shard_bits(if found == 0 { settings.shards } else { found });
        }
        let shards = 1 << layout.bits;
        self.list(disk, head, Folder::Head { shards })?;
        for index in 0..shards {
            create(&files::head_shard(index))?;
        }
        sync(head)?;
        Ok(layout.bits)
    }

    fn read_layout(&mut self, disk: &dyn Disk, settings: &DbSettings) -> Result<Layout> {
        let path = files::head_layout();
        match disk.read(&path) {
            Ok(bytes) => match Layout::decode(&bytes).map_err(|error| error.in_file(&path)) {
                Err(error @ Error::Corrupt { .. }) => {
                    self.damage.push(Damaged::checkpoint(error));
                }
                layout => return layout,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", path, error)),
        }
        // A start writes the layout down before it makes the first shard's folder. Where it is gone all the same, folders
        // numbered without a gap, as many as a head may have, leave no doubt; any others are for a person to look at.
        let entries =
            disk.list(Path::new(files::HEAD_DIR)).map_err(|e| Error::io("list", files::HEAD_DIR, e))?;
        let is_shard =
            |entry: &&crate::disk::DirEntry| entry.is_dir && files::parse_head_shard(&entry.name).is_some();
        let found: Vec<usize> = entries
            .iter()
            .filter(is_shard)
            .filter_map(|entry| files::parse_head_shard(&entry.name))
            .collect();
        if !found.is_empty() && (!found.len().is_power_of_two() || found.iter().copied().ne(0..found.len())) {
            let reason =
                format!("it can't be read, and the folders {found:?} don't tell how many shards there are");
            return Err(Error::Invalid(format!("{}: {reason}", path.display())));
        }
        let bits = if found.is_empty() { shard_bits(settings.shards) } else { found.len().trailing_zeros() };
        let layout = Layout { bits };
        write_layout(disk, layout)?;
        Ok(layout)
    }
}

/// Writes the layout, safe on return.
fn write_layout(disk: &dyn Disk, layout: Layout) -> Result<()> {
    let (path, unfinished) = (files::head_layout(), files::head_layout_unfinished());
    let io = |what| {
        let path = path.clone();
        move |error| Error::io(what, path, error)
    };
    match disk.remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("remove")(error)),
        _ => {}
    }
    let file = disk.create(&unfinished).map_err(io("create"))?;
    file.write_at(0, &layout.encode()).map_err(io("write"))?;
    file.sync().map_err(io("sync"))?;
    disk.rename(&unfinished, &path).map_err(io("rename"))?;
    disk.sync_dir(Path::new(files::HEAD_DIR)).map_err(|e| Error::io("sync", files::HEAD_DIR, e))
}
