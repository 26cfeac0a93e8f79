//! What was appended and isn't on the disk yet.
//!
//! Frames are laid out here as they will lie in their segment; a commit takes them as one group and writes it in one
//! go. Copies of definitions are added when the group ends, behind the frames that use them.

use std::collections::VecDeque;
use std::ops::Range;

use smallvec::SmallVec;

use super::frame::{ALIGN, END_BYTES, End, FLAG_COPY, Label, crc32c, frame_bytes};
use super::{Frame, RecordKind, WalPosition};

/// Zeros behind every group, so that a reader sees where the log stops: the first frame of the next group covers
/// them, and a reader that finds them knows that nothing of that group's start was ever there.
const ZEROS_BYTES: usize = 64;

/// Bytes for one segment, to be written in one go.
pub(super) struct Group {
    pub segment: u32,
    /// Offset of the first byte.
    pub start: u32,
    /// Frames and the zeros behind them.
    pub buffer: Vec<u8>,
}

impl Group {
    /// Where its last frame ends.
    pub fn end(&self) -> WalPosition {
        WalPosition { segment: self.segment, offset: self.start + self.bytes() as u32 }
    }

    /// Bytes of frames.
    pub fn bytes(&self) -> usize {
        self.buffer.len() - ZEROS_BYTES
    }
}

/// Sizes and checksums of frames, worked out before the buffer is locked.
pub(super) struct Prepared {
    crcs: SmallVec<[u32; 8]>,
    /// Bytes of all frames, with the copies of definitions.
    pub bytes: usize,
}

pub(super) fn prepare(frames: &[Frame<'_>]) -> Prepared {
    let size = |frame: &Frame<'_>| {
        let once = frame_bytes(frame.tenant.as_str().len(), frame.payload.len());
        if frame.kind == RecordKind::Series { 2 * once } else { once }
    };
    Prepared {
        crcs: frames.iter().map(|f| crc32c(f.payload)).collect(),
        bytes: frames.iter().map(size).sum(),
    }
}

pub(super) struct Pending {
    segment: u32,
    segment_bytes: usize,
    /// Offset of the buffer's first byte.
    start: usize,
    buffer: Vec<u8>,
    /// Where in the buffer the definitions lie that are still to be copied.
    definitions: Vec<Range<usize>>,
    /// Bytes that those copies will take.
    copies_bytes: usize,
    /// Groups of segments that are full.
    ready: Vec<Group>,
    /// Bytes of frames here and with the writer, copies to come included.
    pub held_bytes: usize,
    pub appended_bytes: u64,
    pub closed: bool,
}

impl Pending {
    /// An empty buffer at the start of a segment.
    pub fn new(segment: u32, segment_bytes: u32) -> Self {
        Self {
            segment,
            segment_bytes: segment_bytes as usize,
            start: 0,
            buffer: Vec::new(),
            definitions: Vec::new(),
            copies_bytes: 0,
            ready: Vec::new(),
            held_bytes: 0,
            appended_bytes: 0,
            closed: false,
        }
    }

    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// Goes on to the next segment if `bytes` more don't fit into this one; says whether it did.
    pub fn make_room(&mut self, bytes: usize, durable: WalPosition) -> bool {
        let taken = self.start + self.buffer.len() + self.copies_bytes;
        if taken == 0 || taken + bytes + END_BYTES + ZEROS_BYTES <= self.segment_bytes {
            return false;
        }
        self.finish_group(durable);
        let end = Label::end(self.segment, self.offset(), self.synced(durable));
        end.write_frame(&[], &mut self.buffer);
        self.held_bytes += END_BYTES;
        let buffer = std::mem::take(&mut self.buffer);
        self.seal(buffer);
        self.segment += 1;
        self.start = 0;
        true
    }

    /// Puts frames into the buffer, for which there is room.
    pub fn push(&mut self, frames: &[Frame<'_>], prepared: &Prepared, durable: WalPosition) -> WalPosition {
        for (frame, crc) in frames.iter().zip(&prepared.crcs) {
            let label = Label {
                segment: self.segment,
                offset: self.offset(),
                payload_bytes: frame.payload.len() as u32,
                payload_crc: *crc,
                synced: self.synced(durable),
                kind: frame.kind as u8,
                flags: 0,
                shard: frame.shard,
                min_ms: frame.min_ms,
                max_ms: frame.max_ms,
                tenant: frame.tenant.as_str(),
            };
            if frame.kind == RecordKind::Series {
                self.definitions.push(self.buffer.len()..self.buffer.len() + label.frame_bytes());
                self.copies_bytes += label.frame_bytes();
            }
            label.write_frame(frame.payload, &mut self.buffer);
        }
        self.held_bytes += prepared.bytes;
        self.appended_bytes += prepared.bytes as u64;
        WalPosition { segment: self.segment, offset: self.offset() }
    }

    /// Hands everything to the writer, and goes on in `fresh`.
    pub fn take(&mut self, fresh: Vec<u8>, durable: WalPosition, queue: &mut VecDeque<Group>) {
        self.finish_group(durable);
        if !self.buffer.is_empty() {
            let buffer = std::mem::replace(&mut self.buffer, fresh);
            let bytes = buffer.len();
            self.seal(buffer);
            self.start += bytes;
        }
        queue.extend(self.ready.drain(..));
    }

    /// Adds the copies of the group's definitions.
    fn finish_group(&mut self, durable: WalPosition) {
        let synced = self.synced(durable);
        for range in std::mem::take(&mut self.definitions) {
            let offset = self.offset();
            // Copied out first: the frame lies in the buffer that grows.
            let frame = self.buffer[range].to_vec();
            let first = Label::read(&frame, End::Head).expect("`push` wrote a label here");
            let payload = &frame[first.bytes()..first.bytes() + first.payload_bytes as usize];
            let label = Label { offset, synced, flags: FLAG_COPY, ..first };
            label.write_frame(payload, &mut self.buffer);
        }
        self.copies_bytes = 0;
    }

    fn seal(&mut self, mut buffer: Vec<u8>) {
        debug_assert_eq!(buffer.len() % ALIGN, 0);
        buffer.resize(buffer.len() + ZEROS_BYTES, 0);
        self.ready.push(Group { segment: self.segment, start: self.start as u32, buffer });
    }

    /// Offset of the next frame.
    fn offset(&self) -> u32 {
        u32::try_from(self.start + self.buffer.len())
            .expect("segments and buffers are limited far below 4 GiB")
    }

    /// Bytes of the present segment that are known to be safe.
    fn synced(&self, durable: WalPosition) -> u32 {
        if durable.segment == self.segment { durable.offset } else { 0 }
    }
}
