//! The write-ahead log: one for all tenants of a node, group-committed.
//!
//! 1. [`Wal::append`] frames records and copies them into a buffer: no I/O, any number of threads.
//! 2. [`Wal::commit`], one thread at a time, takes the buffer, writes it to the segment in one go and syncs it, while
//!    others fill the next buffer. What an append returned is safe once [`Wal::durable`] has reached it.
//! 3. Segments have room reserved before their first frame, and files that [`Wal::truncate_before`] frees are
//!    written again. A segment is complete in itself: whoever appends logs a series' definition at its first use in
//!    a segment, so [`Wal::append`] takes the segment that its caller had in mind and refuses once it has moved.
//! 4. [`Wal::open`] reads all segments from a position on, definitions first, and reports what is damaged with its
//!    tenant and time range; see `scan` for how it gets past damage, and `recover` for what it makes safe again.
//!
//! Definitions ([`RecordKind::Series`]) are written twice, the second time at the end of their group: a damaged frame
//! loses its own samples and orphans none.
//!
//! A full disk leaves everything in the buffer: [`Wal::append`] refuses, [`Wal::commit`] may be called again until
//! there is room. Any other failed write or sync stops the log for good, since nobody knows what the disk holds
//! then (Rebello et al., ATC 2020); the process starts again and reads what is there.
//!
//! Format: `frame`, one frame; `scan`, a segment; [`record`], the payloads. All of it in `docs/format-wal.md`.

mod frame;
mod pending;
pub mod record;
mod recover;
mod scan;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use self::pending::Pending;
pub use self::recover::{Damage, REPORTS_MAX, WalRecovery};
use self::writer::{Failure, Writer};
use crate::disk::Disk;
use crate::model::TenantId;
use crate::{Error, Result};

/// Largest payload of one record, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// Largest segment that may be asked for, in bytes: offsets are 32 bits.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;
/// Most bytes of one append, framing and copies included.
pub const APPEND_BYTES_MAX: usize = 256 << 20;
/// Most bytes that wait for a commit, whoever appends: offsets in a buffer are 32 bits.
pub const HELD_BYTES_MAX: usize = 1 << 30;
/// Times of a record that has none: an empty range.
pub const TIMELESS: (i64, i64) = (i64::MAX, i64::MIN);

/// What a record holds. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// [`record::series`]: refs and their labels. Written twice, delivered first.
    Series = 1,
    /// [`record::floats`]: float samples.
    Floats = 2,
    /// [`record::samples`]: native histogram samples, integer or float, and floats, in the order of their append.
    Samples = 3,
    /// [`record::exemplars`].
    Exemplars = 4,
    /// [`record::metadata`].
    Metadata = 5,
    /// Bytes of the head's own, about one of its shards.
    Shard = 7,
}

impl RecordKind {
    const ALL: [Self; 6] =
        [Self::Series, Self::Floats, Self::Samples, Self::Exemplars, Self::Metadata, Self::Shard];

    /// From the number on disk.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A place in the log; later is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalPosition {
    /// Number of the segment, from 1.
    pub segment: u32,
    /// Bytes into it.
    pub offset: u32,
}

impl WalPosition {
    /// Before everything.
    pub const START: Self = Self { segment: 0, offset: 0 };

    /// As a number in the same order.
    pub fn to_u64(self) -> u64 {
        u64::from(self.segment) << 32 | u64::from(self.offset)
    }

    /// From [`WalPosition::to_u64`].
    pub fn from_u64(value: u64) -> Self {
        Self { segment: (value >> 32) as u32, offset: value as u32 }
    }
}

/// A record to be appended.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What the payload is.
    pub kind: RecordKind,
    /// Whose it is.
    pub tenant: &'a TenantId,
    /// The part of the head that it concerns; the log only carries it.
    pub shard: u8,
    /// Oldest timestamp in it, in milliseconds; with `max_ms` [`TIMELESS`] where it has none.
    pub min_ms: i64,
    /// Newest timestamp in it, in milliseconds.
    pub max_ms: i64,
    /// The record, at most [`PAYLOAD_BYTES_MAX`].
    pub payload: &'a [u8],
}

/// A record that was read back.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// What the payload is.
    pub kind: RecordKind,
    /// Whose it is.
    pub tenant: &'a TenantId,
    /// As it was appended.
    pub shard: u8,
    /// Oldest timestamp in it, in milliseconds; with `max_ms` [`TIMELESS`] where it has none.
    pub min_ms: i64,
    /// Newest timestamp in it, in milliseconds.
    pub max_ms: i64,
    /// The record.
    pub payload: &'a [u8],
    /// Where its frame ends. Definitions come before the rest of their segment, so positions of the two interleave.
    pub end: WalPosition,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Appended {
    /// The records are in the buffer, all in the segment of this position: durable once [`Wal::durable`] reaches it.
    At(WalPosition),
    /// Nothing was appended: the log has moved to this segment, in which nothing is defined yet.
    Moved(u32),
}

/// Settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalSettings {
    /// Room reserved for a segment, in bytes, up to [`SEGMENT_BYTES_MAX`]. A record that is larger gets a segment of its own.
    pub segment_bytes: u32,
    /// Bytes that may wait for a commit; at this, appends are refused with [`Error::Limit`].
    pub pending_bytes_max: usize,
    /// Segments kept to be written again.
    pub spares_max: usize,
}

impl Default for WalSettings {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, pending_bytes_max: 32 << 20, spares_max: 2 }
    }
}

/// How the log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Bytes appended since it was opened, framing included.
    pub appended_bytes: u64,
    /// Bytes that wait for a commit.
    pub pending_bytes: usize,
    /// Segments on the disk, the one being written included.
    pub segments: usize,
    /// Files kept to be written again.
    pub spares: usize,
    /// Syncs since it was opened.
    pub syncs: u64,
    /// Whether the disk is full: appends are refused until a commit succeeds.
    pub full: bool,
    /// Whether a failed write or sync stopped it for good.
    pub stopped: bool,
}

/// The log. Shared by reference between any number of threads.
pub struct Wal {
    settings: WalSettings,
    pending: Mutex<Pending>,
    writer: Mutex<Writer>,
    durable: AtomicU64,
    segment: AtomicU64,
    full: AtomicBool,
    stopped: Mutex<Option<String>>,
    syncs: AtomicU64,
    /// Segments and spare files, so that asking for them never waits for a sync.
    segments: AtomicUsize,
    spares: AtomicUsize,
}

impl Wal {
    /// Reads the log in folder `dir` (made where it is absent), hands every record from `from` on to `replay`, segment
    /// by segment, makes what it read safe, and goes on in a new segment. Records of a segment come definitions first,
    /// then the rest in the order of their appends; definitions of the first segment come even from before `from`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings out of range, [`Error::Io`], [`Error::NoSpace`], and whatever `replay` returns. Damage is no
    /// error: it is in [`WalRecovery`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        settings: WalSettings,
        replay: &mut dyn FnMut(&[RecordRef<'_>]) -> Result<()>,
        from: WalPosition,
    ) -> Result<(Self, WalRecovery)> {
        if settings.segment_bytes > SEGMENT_BYTES_MAX || settings.segment_bytes == 0 {
            return Err(Error::Invalid(format!(
                "a WAL segment has 1 to {SEGMENT_BYTES_MAX} bytes, not {}",
                settings.segment_bytes
            )));
        }
        let dir = PathBuf::from(dir);
        let found = recover::recover(&*disk, &dir, replay, from)?;
        let next = found.next_segment;
        let (segments, spares) =
            (AtomicUsize::new(found.segments.len()), AtomicUsize::new(found.spares.len()));
        let wal = Self {
            pending: Mutex::new(Pending::new(next, settings.segment_bytes)),
            durable: AtomicU64::new(WalPosition { segment: next, offset: 0 }.to_u64()),
            segment: AtomicU64::new(next.into()),
            writer: Mutex::new(Writer::new(disk, dir, settings.clone(), found.segments, found.spares)),
            settings,
            full: AtomicBool::new(false),
            stopped: Mutex::new(None),
            syncs: AtomicU64::new(0),
            segments,
            spares,
        };
        Ok((wal, found.report))
    }

    /// The segment into which the next append goes, unless it starts another.
    pub fn segment(&self) -> u32 {
        self.segment.load(Ordering::Acquire) as u32
    }

    /// Everything up to here is safe.
    pub fn durable(&self) -> WalPosition {
        WalPosition::from_u64(self.durable.load(Ordering::Acquire))
    }

    /// Puts records into the buffer: all of them into one segment and next to each other, or none. `segment` is where the
    /// caller believes to be, since that decides which definitions it sends along; `None` takes any.
    ///
    /// A caller notes that a series is defined in a segment after this returned, never before: another thread that
    /// trusts the note appends later, so its samples stand behind the definition.
    ///
    /// # Errors
    /// [`Error::Limit`] while too much waits for a commit: commit, and append again. [`Error::NoSpace`] while the
    /// disk is full. [`Error::Stopped`] for good. [`Error::Invalid`] for a payload above [`PAYLOAD_BYTES_MAX`] and
    /// for more than [`APPEND_BYTES_MAX`] in all.
    pub fn append(&self, segment: Option<u32>, frames: &[Frame<'_>]) -> Result<Appended> {
        self.append_up_to(self.settings.pending_bytes_max, segment, frames)
    }

    /// As [`Wal::append`], whatever waits for a commit: for who has just committed, and can't do without. [`HELD_BYTES_MAX`]
    /// holds all the same.
    ///
    /// # Errors
    /// Those of [`Wal::append`].
    pub fn append_over(&self, segment: Option<u32>, frames: &[Frame<'_>]) -> Result<Appended> {
        self.append_up_to(HELD_BYTES_MAX, segment, frames)
    }

    fn append_up_to(&self, most: usize, segment: Option<u32>, frames: &[Frame<'_>]) -> Result<Appended> {
        self.check_room()?;
        if let Some(large) = frames.iter().find(|f| f.payload.len() > PAYLOAD_BYTES_MAX) {
            let size = large.payload.len();
            return Err(Error::Invalid(format!(
                "a record has at most {PAYLOAD_BYTES_MAX} bytes, not {size}"
            )));
        }
        let prepared = pending::prepare(frames);
        if prepared.bytes > APPEND_BYTES_MAX {
            let size = prepared.bytes;
            return Err(Error::Invalid(format!(
                "an append has at most {APPEND_BYTES_MAX} bytes, not {size}"
            )));
        }
        let mut pending = self.pending.lock();
        if pending.closed {
            return Err(self.stop_reason());
        }
        if pending.held_bytes + prepared.bytes > most && pending.held_bytes > 0 {
            return Err(Error::Limit(format!("{} bytes wait for the WAL", pending.held_bytes)));
        }
        if pending.make_room(prepared.bytes, self.durable()) {
            self.segment.store(pending.segment().into(), Ordering::Release);
        }
        if segment.is_some_and(|wanted| wanted != pending.segment()) {
            return Ok(Appended::Moved(pending.segment()));
        }
        Ok(Appended::At(pending.push(frames, &prepared, self.durable())))
    }

    /// Writes and syncs everything that was appended before the call; returns up to where the log is safe. Callers
    /// queue up; whoever finds his records safe already returns without I/O.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: nothing is lost, call again when there is room. [`Error::Stopped`]: a write or a sync
    /// failed, now or earlier; what isn't [`Wal::durable`] may or may not be read back by the next start.
    pub fn commit(&self) -> Result<WalPosition> {
        let mut writer = self.writer.lock();
        self.check_running()?;
        {
            let mut pending = self.pending.lock();
            let buffer = writer.spare_buffer();
            pending.take(buffer, self.durable(), &mut writer.queue);
        }
        while let Some(group) = writer.queue.front() {
            let (end, bytes) = (group.end(), group.bytes());
            match writer.write_front() {
                Ok(()) => {}
                Err(Failure::NoSpace(error)) => {
                    self.full.store(true, Ordering::Release);
                    return Err(error);
                }
                Err(Failure::Fatal(error)) => return Err(self.stop(&error)),
            }
            self.syncs.fetch_add(1, Ordering::Relaxed);
            self.note_files(&writer);
            self.durable.store(end.to_u64(), Ordering::Release);
            self.pending.lock().held_bytes -= bytes;
        }
        self.full.store(false, Ordering::Release);
        Ok(self.durable())
    }

    /// Commits, and marks the end of the log as one that everything before it reached the disk. Later appends are
    /// refused.
    ///
    /// # Errors
    /// Those of [`Wal::commit`]; without room the log stays open.
    pub fn close(&self) -> Result<WalPosition> {
        let refuse_appends = |closed: bool| self.pending.lock().closed = closed;
        refuse_appends(true);
        let end = self.commit().inspect_err(|_| refuse_appends(self.stopped.lock().is_some()))?;
        let mut writer = self.writer.lock();
        if let Err(error) = writer.close(end) {
            return Err(self.stop(&error));
        }
        self.stopped.lock().get_or_insert_with(|| "the WAL was closed".to_owned());
        Ok(end)
    }

    /// Frees all segments before the one of `position`: everything in them is safe elsewhere. Returns how many.
    ///
    /// # Errors
    /// [`Error::Io`]; segments that weren't freed stay, and are freed by the next call.
    pub fn truncate_before(&self, position: WalPosition) -> Result<usize> {
        let durable = self.durable();
        let mut writer = self.writer.lock();
        let freed = writer.truncate_before(position.segment.min(durable.segment));
        self.note_files(&writer);
        freed
    }

    /// How the log stands.
    pub fn stats(&self) -> WalStats {
        let pending = self.pending.lock();
        WalStats {
            appended_bytes: pending.appended_bytes,
            pending_bytes: pending.held_bytes,
            segments: self.segments.load(Ordering::Relaxed),
            spares: self.spares.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            full: self.full.load(Ordering::Acquire),
            stopped: self.stopped.lock().is_some(),
        }
    }

    /// Bytes appended since it was opened, framing included: what a checkpoint is due by. Takes one short lock.
    pub fn appended_bytes(&self) -> u64 {
        self.pending.lock().appended_bytes
    }

    fn note_files(&self, writer: &Writer) {
        let (segments, spares) = writer.files();
        self.segments.store(segments, Ordering::Relaxed);
        self.spares.store(spares, Ordering::Relaxed);
    }

    /// # Errors
    /// [`Error::Stopped`], with the reason, once nothing can be written any more.
    pub(crate) fn check_running(&self) -> Result<()> {
        if self.stopped.lock().is_some() { Err(self.stop_reason()) } else { Ok(()) }
    }

    /// # Errors
    /// [`Error::NoSpace`] while the disk is full.
    pub(crate) fn check_room(&self) -> Result<()> {
        if self.full.load(Ordering::Acquire) {
            return Err(Error::NoSpace("the WAL waits for room".to_owned()));
        }
        Ok(())
    }

    /// Stops the log for good; the first reason stays.
    fn stop(&self, error: &Error) -> Error {
        self.stopped.lock().get_or_insert_with(|| format!("the WAL can't be written: {error}"));
        self.pending.lock().closed = true;
        self.stop_reason()
    }

    fn stop_reason(&self) -> Error {
        Error::Stopped(self.stopped.lock().clone().unwrap_or_else(|| "the WAL is being closed".to_owned()))
    }
}

#[cfg(test)]
mod tests;
