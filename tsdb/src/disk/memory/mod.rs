//! The disk's twin in memory: the same behaviour, and on demand the worst that a real one may do.
//!
//! 1. Every byte and every name is either *safe* (after [`DiskFile::sync`], [`Disk::sync_dir`]) or not.
//! 2. [`MemoryDisk::crash`] is a power cut: of what isn't safe it keeps an arbitrary part, sector by sector and name
//!    by name. Handles of before are dead.
//! 3. [`MemoryDisk::kill`] ends the process alone: the system's cache survives.
//! 4. [`Fault`]s make operations fail; [`MemoryDisk::set_capacity`] lets the room run out; [`MemoryDisk::flip`] rots.
//!
//! Clones share one disk; [`MemoryDisk::fork`] copies it, pages shared, so that one state can be crashed many times.
//! Given the same calls and the same random numbers it behaves the same: nothing here depends on addresses or hashes.

mod content;
mod faults;
mod names;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use rand::RngCore;

use self::content::{Content, PAGE_BYTES};
pub use self::faults::Fault;
use self::faults::{Faults, Operation};
use self::names::{Folder, Id, Kind, Tree};
use super::{DirEntry, Disk, DiskFile, check_path};

/// What [`Disk::free_bytes`] says while no capacity is set.
const UNLIMITED_BYTES: u64 = 1 << 50;

/// A data folder in memory.
#[derive(Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
struct State {
    tree: Tree,
    faults: Faults,
    capacity_pages: u64,
    /// Raised when handles die.
    life: u64,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryDisk {
    /// An empty one.
    pub fn new() -> Self {
        let state = State {
            tree: Tree::new(),
            faults: Faults::default(),
            capacity_pages: UNLIMITED_BYTES / PAGE_BYTES,
            life: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A copy that goes its own way; faults still to come are copied too, handles aren't.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut state = self.state.lock().clone();
        state.tree.close_all();
        state.life += 1;
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Cuts the power and turns it on again: an arbitrary part of what isn't safe is lost, faults to come are
    /// forgotten, handles of before fail from now on.
    pub fn crash(&self, rng: &mut dyn RngCore) {
        let mut state = self.state.lock();
        state.tree.crash(rng);
        state.faults.clear();
        state.life += 1;
    }

    /// Ends the process that used the disk: nothing is lost, handles of before fail from now on.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.tree.close_all();
        state.faults.clear();
        state.life += 1;
    }

    /// Lets something go wrong.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.add(fault);
    }

    /// Forgets the faults still to come.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// Sets the room in bytes, in whole pages of 4,096; `None` for as good as endless. Room that is already taken
    /// stays taken.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity_pages = bytes.unwrap_or(UNLIMITED_BYTES) / PAGE_BYTES;
    }

    /// Room taken, in bytes, in whole pages of 4,096.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().tree.used_pages() * PAGE_BYTES
    }

    /// Operations so far, failed ones included: how far a [`Fault`]'s `after` can reach.
    pub fn operations(&self) -> u64 {
        self.state.lock().faults.operations()
    }

    /// Operations so far that a [`Fault`] has struck.
    pub fn struck(&self) -> u64 {
        self.state.lock().faults.struck()
    }

    /// Bit rot: flips the bits of `mask` in one byte, on the disk and for every reader. Maps handed out before keep
    /// their bytes.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`; `UnexpectedEof` when the file ends before.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.tree.find(path)?;
        let content = state.tree.file_mut(id)?;
        if offset >= content.length() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.flip(offset, mask);
        Ok(())
    }

    /// The state, once an operation on a path has been counted and no fault struck it.
    fn at(&self, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        check_path(path)?;
        let mut state = self.state.lock();
        state.faults.strike(Operation::Other)?;
        Ok(state)
    }

    fn handle(&self, state: &mut State, id: Id) -> Arc<dyn DiskFile> {
        state.tree.opened(id);
        Arc::new(MemoryFile { state: self.state.clone(), id, life: state.life })
    }
}

impl State {
    fn room_pages(&self) -> u64 {
        self.capacity_pages.saturating_sub(self.tree.used_pages())
    }

    /// Bytes of a file that must all be there.
    fn read(&self, id: Id, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let content = self.tree.file(id)?;
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > content.length()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.read(offset, buffer);
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.at(path)?;
        let id = state.tree.create(path, Kind::File(Content::default()))?;
        Ok(self.handle(&mut state, id))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.at(path)?;
        let id = state.tree.find(path)?;
        state.tree.file(id)?;
        Ok(self.handle(&mut state, id))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.at(path)?;
        let id = state.tree.find(path)?;
        Ok(state.tree.file(id)?.bytes(0..u64::MAX))
    }

    fn map(&self, path: &Path, range: Range<u64>) -> io::Result<Bytes> {
        let state = self.at(path)?;
        let id = state.tree.find(path)?;
        let content = state.tree.file(id)?;
        if range.start > range.end || range.end > content.length() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(content.bytes(range).into())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.at(dir)?;
        let entries = state.tree.list(state.tree.find(dir)?)?;
        Ok(entries.into_iter().map(|(name, is_dir)| DirEntry { name: name.into(), is_dir }).collect())
    }

    fn size_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        let state = self.at(path)?;
        match state.tree.find(path) {
            Ok(id) => Ok(Some(state.tree.file(id)?.length())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.at(dir)?;
        let above: Vec<&Path> = dir.ancestors().filter(|a| !a.as_os_str().is_empty()).collect();
        for folder in above.into_iter().rev() {
            match state.tree.find(folder) {
                Ok(id) => drop(state.tree.list(id)?),
                Err(_) => drop(state.tree.create(folder, Kind::Folder(Folder::default()))?),
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        check_path(to)?;
        self.at(from)?.tree.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        check_path(to)?;
        self.at(from)?.tree.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.at(path)?.tree.remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.at(dir)?.tree.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.at(dir)?;
        let id = state.tree.find(dir)?;
        state.tree.sync_dir(id)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.at(Path::new(""))?;
        Ok(state.room_pages() * PAGE_BYTES)
    }
}

/// An open file of a [`MemoryDisk`].
struct MemoryFile {
    state: Arc<Mutex<State>>,
    id: Id,
    /// The disk's life in which it was opened.
    life: u64,
}

impl MemoryFile {
    /// The state, unless this handle died in a crash.
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.life == self.life {
            return Ok(state);
        }
        Err(io::Error::other("this handle died in a crash"))
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.alive()?;
        state.faults.strike(Operation::Other)?;
        state.read(self.id, offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.alive()?;
        let struck = state.faults.strike(Operation::Room);
        let wanted = if struck.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        let room = state.room_pages();
        let written = state.tree.file_mut(self.id)?.write(offset, wanted, room);
        struck?;
        if written < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.alive()?;
        let struck = state.faults.strike(Operation::Sync);
        let powerless = state.faults.powerless();
        let content = state.tree.file_mut(self.id)?;
        match struck {
            Ok(()) => content.sync(),
            Err(_) if powerless => {}
            Err(_) => content.forget_dirt(),
        }
        struck
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut state = self.alive()?;
        state.faults.strike(Operation::Room)?;
        let room = state.room_pages();
        let content = state.tree.file_mut(self.id)?;
        if content.pages_to_allocate(length) > room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.allocate(length);
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.alive()?;
        state.faults.strike(Operation::Other)?;
        state.tree.file_mut(self.id)?.set_length(length);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let mut state = self.alive()?;
        state.faults.strike(Operation::Other)?;
        Ok(state.tree.file(self.id)?.length())
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.life == self.life {
            state.tree.closed(self.id);
        }
    }
}

#[cfg(test)]
mod tests;
