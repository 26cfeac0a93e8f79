//! Reading the log back at a start.
//!
//! 1. Segments are read in order, from the one of the position asked for on. Each is scanned whole; then its
//!    records are handed over: definitions (a copy only where the first was damaged), then the rest in order.
//! 2. In the last segment, a hole with no frame behind it is a *torn tail*: a write that a crash cut short, and which
//!    nobody was told of. Every other hole, every missing segment and every earlier segment without its end frame is
//!    *damage*. Damage behind the last byte that some frame knew to be synced may be a torn write too, since a disk
//!    is free to do the later of two unsynced writes first; then [`Damage::was_synced`] is false.
//! 3. What the last segment holds and may not be safe is written again and synced, and an end frame is put behind
//!    it. Reading it back proves nothing: after a failed fsync the system's cache holds, as clean, what the disk
//!    lacks. Only then may an ack rest on it. The end frame is written even where there is one, for the same reason.
//! 4. The log goes on in a new segment, so nothing is ever written behind a torn tail.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use super::frame::{END_BYTES, FLAG_COPY, FLAG_RECOVERED, Label, other_version};
use super::scan::{Piece, Summary, Tail, scan};
use super::{RecordKind, RecordRef, WalPosition};
use crate::disk::Disk;
use crate::files::{Folder, WalFile};
use crate::model::TenantId;
use crate::{Error, Result};

/// Most damaged stretches described one by one; further ones are only counted.
pub const REPORTS_MAX: usize = 1_000;

/// Bytes written again at once.
const REWRITE_BYTES: usize = 1 << 20;

/// What a start found in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalRecovery {
    /// Segments read.
    pub segments: usize,
    /// Bytes of frames read.
    pub bytes: u64,
    /// Records handed over.
    pub records: u64,
    /// Frames that were whole but for their first label.
    pub repaired: u64,
    /// Records of kinds that this version doesn't know, left out.
    pub unknown: u64,
    /// Where the last record ends.
    pub end: WalPosition,
    /// Whether the log had been closed: nothing can be missing from its end.
    pub closed: bool,
    /// Stretches that were written and can't be read, the first [`REPORTS_MAX`] of them.
    pub damage: Vec<Damage>,
    /// All of them.
    pub damage_count: u64,
    /// Those of them that had been synced for certain ([`Damage::was_synced`]).
    pub synced_damage_count: u64,
    /// The torn tail of the last segment, first record first: what a crash cut short.
    pub torn: Vec<Damage>,
}

/// A stretch of the log that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins.
    pub position: WalPosition,
    /// Its length; 0 where it isn't known (a missing segment, a segment cut short).
    pub bytes: u64,
    /// Whose record it was, where one of the frame's labels could be read.
    pub tenant: Option<TenantId>,
    /// What it held, likewise.
    pub kind: Option<RecordKind>,
    /// Timestamps of the samples that it held, in milliseconds, likewise; `None` too for a record without times.
    pub times_ms: Option<RangeInclusive<i64>>,
    /// Whether this had been synced for certain, so that acked samples are missing. Otherwise it belonged to the last
    /// group before a stop. What a crash does to that group was never acked; what rots of it once it was synced looks
    /// the same.
    pub was_synced: bool,
}

/// What the log goes on from.
pub(super) struct Recovered {
    pub next_segment: u32,
    pub segments: BTreeSet<u32>,
    pub spares: Vec<WalFile>,
    pub report: WalRecovery,
}

pub(super) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    replay: &mut dyn FnMut(&[RecordRef<'_>]) -> Result<()>,
    from: WalPosition,
) -> Result<Recovered> {
    disk.create_dir(dir).map_err(|e| Error::io("create", dir, e))?;
    let parent = dir.parent().unwrap_or(Path::new(""));
    disk.sync_dir(parent).map_err(|e| Error::io("sync", parent, e))?;
    let (mut segments, mut spares) = (BTreeSet::new(), Vec::new());
    for entry in disk.list(dir).map_err(|e| Error::io("list", dir, e))? {
        match WalFile::parse(&entry.name).filter(|_| Folder::Wal.knows(&entry)) {
            Some(WalFile::Segment(number)) => drop(segments.insert(number)),
            Some(spare @ WalFile::Spare(_)) => spares.push(spare),
            None => {}
        }
    }
    let mut reader =
        Reader { disk, dir, replay, report: WalRecovery::default(), tenants: Tenants::default() };
    let wanted: Vec<u32> = segments.range(from.segment..).copied().collect();
    let mut expected = wanted.first().copied();
    for &number in &wanted {
        for missing in expected.into_iter().flat_map(|e| e..number) {
            reader.damaged(Damage::unknown(missing, 0, true));
        }
        if planted::is(planted::Bug::ReplayEndsAtDamage) && reader.report.damage_count > 0 {
            break;
        }
        expected = number.checked_add(1);
        let start = if number == from.segment { from.offset } else { 0 };
        reader.segment(number, start, wanted.last() == Some(&number))?;
    }
    let spare = |file: &WalFile| match file {
        WalFile::Segment(number) | WalFile::Spare(number) => *number,
    };
    // No number is ever used twice: frames of its first life would pass for those of the second.
    let last = segments.last().copied().into_iter().chain(spares.iter().map(spare)).max();
    let last = last.unwrap_or(0).max(from.segment);
    let next_segment =
        last.checked_add(1).ok_or_else(|| Error::Limit("the WAL is out of segment numbers".into()))?;
    Ok(Recovered { next_segment, segments, spares, report: reader.report })
}

struct Reader<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    replay: &'a mut dyn FnMut(&[RecordRef<'_>]) -> Result<()>,
    report: WalRecovery,
    tenants: Tenants,
}

/// A frame worth handing over.
struct Found {
    tenant: usize,
    kind: RecordKind,
    shard: u8,
    is_copy: bool,
    payload: Range<usize>,
    payload_crc: u32,
    times_ms: (i64, i64),
    /// Where the frame begins and ends.
    range: Range<u32>,
}

impl Reader<'_> {
    /// Reads one segment and hands over what begins at `start` or later.
    fn segment(&mut self, number: u32, start: u32, is_last: bool) -> Result<()> {
        let path = WalFile::Segment(number).path(self.dir);
        let size = self.disk.size_bytes(&path).map_err(|e| Error::io("stat", &path, e))?.unwrap_or(0);
        let bytes = self.disk.map(&path, 0..size).map_err(|e| Error::io("map", &path, e))?;
        if let Some(version) = other_version(&bytes) {
            return Err(Error::Invalid(format!(
                "segment {number} of the WAL is of format {version}, which this version of the program doesn't read: \
                 start the version that wrote it, or use another data folder"
            )));
        }
        let (mut found, mut holes) = (Vec::new(), Vec::new());
        let summary = scan(number, &bytes, |piece| match piece {
            Piece::Frame { label, payload, repaired } => {
                self.report.repaired += u64::from(repaired);
                match label.record_kind() {
                    Some(kind) => found.push(self.found(&label, kind, payload)),
                    None => self.report.unknown += 1,
                }
            }
            Piece::Hole { range, label } => holes.push(Damage::new(number, &range, label.as_ref())),
        });
        self.report.segments += 1;
        self.report.bytes += summary.end as u64;
        self.report.end = WalPosition { segment: number, offset: summary.end as u32 };
        self.report.closed = is_last && matches!(summary.tail, Tail::Ended { all_synced: true, .. });
        // A crash may leave the name of a segment for which there was no room, or which nobody wrote to yet.
        let is_blank = summary.end == 0 && holes.is_empty() && bytes.iter().all(|b| *b == 0);
        self.report_holes(number, holes, &summary, is_last, is_blank);
        self.hand_over(number, start, &bytes, &found)?;
        drop(bytes);
        if !is_last {
            return Ok(());
        }
        match self.make_safe(number, &summary, size as usize) {
            // A full disk mustn't keep a node from starting, and nothing is there that could be lost.
            Err(Error::NoSpace(_)) if is_blank => Ok(()),
            made => made,
        }
    }

    fn found(&mut self, label: &Label<'_>, kind: RecordKind, payload: Range<usize>) -> Found {
        Found {
            tenant: self.tenants.number(label.tenant),
            kind,
            shard: label.shard,
            is_copy: label.flags & FLAG_COPY != 0,
            payload,
            payload_crc: label.payload_crc,
            times_ms: (label.min_ms, label.max_ms),
            range: label.offset..label.offset + label.frame_bytes() as u32,
        }
    }

    fn report_holes(
        &mut self,
        number: u32,
        holes: Vec<Damage>,
        summary: &Summary,
        is_last: bool,
        is_blank: bool,
    ) {
        let end = summary.end as u64;
        // A segment was synced whole before the next one was begun, unless a start began it.
        let synced_whole = !is_last && !matches!(summary.tail, Tail::Ended { recovered: true, .. });
        let mut tail_shown = false;
        for mut hole in holes {
            let start = u64::from(hole.position.offset);
            tail_shown |= start >= end;
            if is_last && start >= end {
                self.torn(hole);
            } else {
                hole.was_synced = synced_whole || start + hole.bytes <= summary.synced as u64;
                self.damaged(hole);
            }
        }
        if tail_shown {
            return;
        }
        let unknown = Damage::unknown(number, summary.end as u32, !is_last && !is_blank);
        match summary.tail {
            Tail::Ended { .. } => {}
            Tail::Torn if is_last => self.torn(unknown),
            Tail::Open if is_last => {}
            // A later segment was begun, so this one had its end frame: frames are missing.
            Tail::Torn | Tail::Open => self.damaged(unknown),
        }
    }

    fn damaged(&mut self, damage: Damage) {
        tracing::error!(?damage, "a stretch of the WAL can't be read");
        self.report.damage_count += 1;
        self.report.synced_damage_count += u64::from(damage.was_synced);
        if self.report.damage.len() < REPORTS_MAX {
            self.report.damage.push(damage);
        }
    }

    fn torn(&mut self, damage: Damage) {
        tracing::info!(?damage, "the WAL's last write was cut short");
        if self.report.torn.len() < REPORTS_MAX {
            self.report.torn.push(damage);
        }
    }

    /// Definitions first, each once; then the rest from `start` on.
    fn hand_over(&mut self, number: u32, start: u32, bytes: &[u8], found: &[Found]) -> Result<()> {
        let mut seen = BTreeSet::new();
        let definitions = found.iter().filter(|f| {
            let mut is_first = || seen.insert((f.tenant, f.shard, f.payload_crc, f.payload.len()));
            f.kind == RecordKind::Series && (is_first() || !f.is_copy)
        });
        let others = found.iter().filter(|f| f.kind != RecordKind::Series && f.range.start >= start);
        let tenants = &self.tenants;
        let record = |frame: &Found| RecordRef {
            kind: frame.kind,
            tenant: tenants.get(frame.tenant),
            shard: frame.shard,
            min_ms: frame.times_ms.0,
            max_ms: frame.times_ms.1,
            payload: &bytes[frame.payload.clone()],
            end: WalPosition { segment: number, offset: frame.range.end },
        };
        let records: Vec<_> = definitions.chain(others).map(record).collect();
        self.report.records += records.len() as u64;
        (self.replay)(&records)
    }

    /// Writes again what the last segment holds and may not be safe, ends it, and gives back room it won't need.
    fn make_safe(&self, number: u32, summary: &Summary, size: usize) -> Result<()> {
        // The second label of the last frame may lie behind the end of a file that was cut short.
        let written = summary.end.min(size);
        let path = WalFile::Segment(number).path(self.dir);
        let file = self.disk.open(&path).map_err(|e| Error::io("open", &path, e))?;
        let mut at = summary.synced.min(written);
        let mut buffer = vec![0; REWRITE_BYTES.min(written - at)];
        while at < written {
            let piece = &mut buffer[..REWRITE_BYTES.min(written - at)];
            file.read_at(at as u64, piece).map_err(|e| Error::io("read", &path, e))?;
            file.write_at(at as u64, piece).map_err(|e| Error::io("write", &path, e))?;
            at += piece.len();
        }
        let mut end_frame = Vec::with_capacity(END_BYTES);
        let end = Label::end(number, summary.end as u32, summary.synced as u32);
        Label { flags: FLAG_RECOVERED, ..end }.write_frame(&[], &mut end_frame);
        file.write_at(summary.end as u64, &end_frame).map_err(|e| Error::io("write", &path, e))?;
        file.set_length((summary.end + END_BYTES) as u64).map_err(|e| Error::io("cut", &path, e))?;
        file.sync().map_err(|e| Error::io("sync", &path, e))?;
        self.disk.sync_dir(self.dir).map_err(|e| Error::io("sync", self.dir, e))
    }
}

impl Damage {
    fn new(segment: u32, range: &Range<usize>, label: Option<&Label<'_>>) -> Self {
        let times_ms = label.map(|l| l.min_ms..=l.max_ms).filter(|times| !times.is_empty());
        Self {
            position: WalPosition { segment, offset: range.start as u32 },
            bytes: range.len() as u64,
            tenant: label.and_then(|l| TenantId::new(l.tenant).ok()),
            kind: label.and_then(Label::record_kind),
            times_ms,
            was_synced: false,
        }
    }

    /// From an offset to wherever the segment ended.
    fn unknown(segment: u32, offset: u32, was_synced: bool) -> Self {
        let position = WalPosition { segment, offset };
        Self { position, bytes: 0, tenant: None, kind: None, times_ms: None, was_synced }
    }
}

/// Tenants by number, so that a frame costs no allocation.
#[derive(Default)]
struct Tenants {
    numbers: BTreeMap<Box<str>, usize>,
    tenants: Vec<TenantId>,
}

impl Tenants {
    fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.tenants.len();
        self.tenants.push(TenantId::new(name).expect("a label's tenant was checked when it was read"));
        self.numbers.insert(name.into(), number);
        number
    }

    fn get(&self, number: usize) -> &TenantId {
        &self.tenants[number]
    }
}
