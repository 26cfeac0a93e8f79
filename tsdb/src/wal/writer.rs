//! The log's files: segments that are written, segments that can go, files that wait to be written again.
//!
//! A segment's file has its room reserved and its name made safe before its first frame, and the segment before it
//! is synced by then: whoever finds a frame knows that all earlier segments were whole.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::frame::{END_BYTES, Label};
use super::pending::Group;
use super::{WalPosition, WalSettings};
use crate::disk::{Disk, DiskFile};
use crate::files::WalFile;
use crate::{Error, Result};

/// A buffer larger than this is given back to the allocator after its group was written: a burst mustn't be held in
/// memory for ever.
const KEPT_BUFFER_BYTES_MAX: usize = 4 << 20;

pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    settings: WalSettings,
    /// Groups not yet written, in order.
    pub queue: VecDeque<Group>,
    current: Option<Current>,
    /// Segments on the disk.
    segments: BTreeSet<u32>,
    spares: Vec<WalFile>,
    /// A buffer of an earlier group, to be filled again.
    spare_buffer: Vec<u8>,
}

struct Current {
    segment: u32,
    file: Arc<dyn DiskFile>,
}

/// Why a group wasn't written.
pub(super) enum Failure {
    /// No room; everything is as before.
    NoSpace(Error),
    /// Nobody knows what is on the disk now.
    Fatal(Error),
}

impl Writer {
    pub fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        settings: WalSettings,
        segments: BTreeSet<u32>,
        spares: Vec<WalFile>,
    ) -> Self {
        let (queue, spare_buffer) = (VecDeque::new(), Vec::new());
        Self { disk, dir, settings, queue, current: None, segments, spares, spare_buffer }
    }

    /// An empty buffer, one that was used before where there is one.
    pub fn spare_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spare_buffer)
    }

    /// Segments and spare files there are.
    pub fn files(&self) -> (usize, usize) {
        (self.segments.len(), self.spares.len())
    }

    /// Writes and syncs the first group of the queue, and takes it off.
    pub fn write_front(&mut self) -> Result<(), Failure> {
        let group = self.queue.front().expect("the caller has looked");
        let (segment, needed) = (group.segment, u64::from(group.start) + group.buffer.len() as u64);
        if self.current.as_ref().is_none_or(|current| current.segment != segment) {
            let room = needed.max(self.settings.segment_bytes.into());
            self.current = Some(Current { segment, file: self.start_segment(segment, room)? });
        }
        let current = self.current.as_ref().expect("it was just set");
        let group = self.queue.front().expect("the caller has looked");
        let path = || WalFile::Segment(segment).path(&self.dir);
        current.file.write_at(group.start.into(), &group.buffer).map_err(|e| failure("write", path(), e))?;
        // Whatever a sync answers, "no room" included, it isn't known what it left undone.
        let synced = current.file.sync();
        let synced = if planted::is(planted::Bug::FailedSyncTriedAgain) {
            synced.or_else(|_| current.file.sync())
        } else {
            synced
        };
        synced.map_err(|e| Failure::Fatal(Error::io("sync", path(), e)))?;
        let group = self.queue.pop_front().expect("the caller has looked");
        let mut buffer = group.buffer;
        if buffer.capacity() <= KEPT_BUFFER_BYTES_MAX {
            buffer.clear();
            self.spare_buffer = buffer;
        }
        Ok(())
    }

    /// The file of a new segment: room reserved, name safe.
    fn start_segment(&mut self, segment: u32, room: u64) -> Result<Arc<dyn DiskFile>, Failure> {
        let path = WalFile::Segment(segment).path(&self.dir);
        let fail = |what| {
            let path = path.clone();
            move |e| failure(what, path, e)
        };
        let file = if let Some(spare) = self.spares.last() {
            self.disk.rename(&spare.path(&self.dir), &path).map_err(fail("rename"))?;
            self.spares.pop();
            self.disk.open(&path).map_err(fail("open"))?
        } else {
            match self.disk.create(&path) {
                Ok(file) => file,
                // Left by an attempt that found no room for it.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    self.disk.open(&path).map_err(fail("open"))?
                }
                Err(e) => return Err(failure("create", path, e)),
            }
        };
        if let Err(e) = file.allocate(room) {
            drop(file);
            // What it took is given back, so that a full disk doesn't get fuller by each attempt.
            self.disk.remove_file(&path).map_err(fail("remove"))?;
            return Err(failure("allocate", path, e));
        }
        let fatal = |what| {
            let path = path.clone();
            move |e| Failure::Fatal(Error::io(what, path, e))
        };
        file.sync().map_err(fatal("sync"))?;
        self.disk.sync_dir(&self.dir).map_err(fatal("sync the folder of"))?;
        self.segments.insert(segment);
        Ok(file)
    }

    /// Marks the end of everything, all of which is safe up to `end`.
    pub fn close(&mut self, end: WalPosition) -> Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        if current.segment != end.segment {
            return Ok(());
        }
        let path = || WalFile::Segment(end.segment).path(&self.dir);
        let mut frame = Vec::with_capacity(END_BYTES);
        Label::end(end.segment, end.offset, end.offset).write_frame(&[], &mut frame);
        current.file.write_at(end.offset.into(), &frame).map_err(|e| Error::io("write", path(), e))?;
        current.file.sync().map_err(|e| Error::io("sync", path(), e))
    }

    /// Frees the segments before one, but for the newest on the disk: its number says where to go on, and a number
    /// that was used twice would let old frames pass for new ones.
    pub fn truncate_before(&mut self, segment: u32) -> Result<usize> {
        let segment = segment.min(self.segments.last().copied().unwrap_or(segment));
        let kept = self.segments.split_off(&segment);
        let mut going = std::mem::replace(&mut self.segments, kept);
        let mut freed = 0;
        let outcome = loop {
            let Some(number) = going.pop_first() else { break Ok(freed) };
            if let Err(error) = self.free(number) {
                going.insert(number);
                break Err(error);
            }
            freed += 1;
        };
        // What couldn't be freed is still there, and is tried again.
        self.segments.append(&mut going);
        if freed > 0 {
            self.disk.sync_dir(&self.dir).map_err(|e| Error::io("sync", &self.dir, e))?;
        }
        outcome
    }

    fn free(&mut self, number: u32) -> Result<()> {
        let path = WalFile::Segment(number).path(&self.dir);
        if self.spares.len() >= self.settings.spares_max {
            return self.disk.remove_file(&path).map_err(|e| Error::io("remove", path, e));
        }
        let spare = WalFile::Spare(number);
        self.disk.rename(&path, &spare.path(&self.dir)).map_err(|e| Error::io("rename", path, e))?;
        self.spares.push(spare);
        Ok(())
    }
}

fn failure(what: &'static str, path: PathBuf, error: io::Error) -> Failure {
    match Error::io(what, path, error) {
        full @ Error::NoSpace(_) => Failure::NoSpace(full),
        other => Failure::Fatal(other),
    }
}
