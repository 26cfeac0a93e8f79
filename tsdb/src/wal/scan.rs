//! Reads one segment: every frame that is whole, and what lies between them.
//!
//! Frames follow each other from offset 0. Where none is found, the scan looks at every multiple of 8 for a label
//! that belongs there: a head starts the next frame; a tail gives back a frame whose head is damaged. What is
//! skipped on the way is a *hole*. Where nothing more is found, the segment ends: cleanly at an end frame or at
//! zeros (each group is written with zeros behind it), else its tail is torn.

use std::ops::Range;

use super::frame::{ALIGN, End, FLAG_RECOVERED, KIND_END, LABEL_BYTES, Label, crc32c, label_here, padded};

/// Blocks of zeros are skipped by this many bytes at once: most of a preallocated segment is never written.
const ZERO_BLOCK: [u8; 4096] = [0; 4096];

/// A stretch of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A whole frame, with the range of its payload; `repaired` when its first label was damaged.
    Frame { label: Label<'a>, payload: Range<usize>, repaired: bool },
    /// Bytes that hold no readable record; the label is known when one of a frame's two survived.
    Hole { range: Range<usize>, label: Option<Label<'a>> },
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// By its end frame.
    Ended {
        /// It knew that all before it was safe.
        all_synced: bool,
        /// A start wrote it, not whoever wrote the segment.
        recovered: bool,
    },
    /// By zeros: whoever wrote it stopped there.
    Open,
    /// By bytes that are no frame, or by the end of the file where zeros should be.
    Torn,
}

/// What a scan found out about the segment as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Where the last whole frame ends (the end frame not counted).
    pub end: usize,
    /// Bytes that some frame knew to be safe.
    pub synced: usize,
    pub tail: Tail,
}

/// Goes through the bytes of segment number `segment`. Holes behind the last whole frame come last.
pub(super) fn scan<'a>(segment: u32, bytes: &'a [u8], mut piece: impl FnMut(Piece<'a>)) -> Summary {
    let mut at = 0;
    let mut summary = Summary { end: 0, synced: 0, tail: Tail::Torn };
    // The end frame counts only if nothing follows it: one may be left from a start that found less than we do.
    let mut ended = None;
    while let Some(found) = next(segment, bytes, at) {
        if found.start > at {
            piece(Piece::Hole { range: at..found.start, label: None });
        }
        let label = found.label;
        at = found.end;
        let payload = found.payload();
        let whole = bytes.get(payload.clone()).is_some_and(|p| crc32c(p) == label.payload_crc);
        if !whole {
            piece(Piece::Hole { range: found.start..found.end.min(bytes.len()), label: Some(label) });
            continue;
        }
        summary.synced = summary.synced.max(label.synced as usize);
        if label.kind == KIND_END {
            let all_synced = label.synced as usize == found.start;
            ended =
                Some((found.start, Tail::Ended { all_synced, recovered: label.flags & FLAG_RECOVERED != 0 }));
            continue;
        }
        ended = None;
        summary.end = found.end;
        piece(Piece::Frame { label, payload, repaired: found.repaired });
    }
    summary.tail = match ended {
        Some((start, tail)) => {
            summary.end = start;
            tail
        }
        None if bytes.get(at..at + ALIGN).is_some_and(|b| b.iter().all(|b| *b == 0)) => Tail::Open,
        None => Tail::Torn,
    };
    summary
}

struct Found<'a> {
    start: usize,
    end: usize,
    label: Label<'a>,
    repaired: bool,
}

impl Found<'_> {
    fn payload(&self) -> Range<usize> {
        let start = self.start + self.label.bytes();
        start..start + self.label.payload_bytes as usize
    }
}

/// The first frame at or after `at` of which a label is readable.
fn next(segment: u32, bytes: &[u8], from: usize) -> Option<Found<'_>> {
    let mut at = from;
    while at + LABEL_BYTES <= bytes.len() {
        if bytes.get(at..at + ZERO_BLOCK.len()).is_some_and(|block| *block == ZERO_BLOCK) {
            at += ZERO_BLOCK.len();
            continue;
        }
        let found = label_here(&bytes[at..]).and_then(|end| frame_at(segment, bytes, from, at, end));
        if found.is_some() {
            return found;
        }
        at += ALIGN;
    }
    None
}

/// The frame to which the label at `at` belongs, if it belongs there.
fn frame_at(segment: u32, bytes: &[u8], from: usize, at: usize, end: End) -> Option<Found<'_>> {
    let label = Label::read(&bytes[at..], end).filter(|label| label.segment == segment)?;
    let start = label.offset as usize;
    let frame_end = start + label.frame_bytes();
    match end {
        End::Head if start == at => Some(Found { start, end: frame_end, label, repaired: false }),
        End::Tail if start >= from && start + label.bytes() + padded(label.payload_bytes as usize) == at => {
            Some(Found { start, end: frame_end, label, repaired: true })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::RecordKind;

    const SEGMENT: u32 = 3;

    fn push(bytes: &mut Vec<u8>, segment: u32, payload: &[u8]) {
        let label = Label {
            segment,
            offset: bytes.len() as u32,
            payload_bytes: payload.len() as u32,
            payload_crc: crc32c(payload),
            synced: 0,
            kind: RecordKind::Floats as u8,
            flags: 0,
            shard: 0,
            min_ms: payload[0].into(),
            max_ms: payload[0].into(),
            tenant: "t",
        };
        label.write_frame(payload, bytes);
    }

    /// Three frames with payloads 1, 2, 3, and zeros behind them.
    fn three() -> (Vec<u8>, [usize; 3]) {
        let mut bytes = Vec::new();
        let ends = [1u8, 2, 3].map(|i| {
            push(&mut bytes, SEGMENT, &vec![i; usize::from(i) * 30]);
            bytes.len()
        });
        bytes.resize(bytes.len() + 10_000, 0);
        (bytes, ends)
    }

    /// First payload byte of each whole frame, minimum time of each hole that has one, and the tail.
    fn look(bytes: &[u8]) -> (Vec<u8>, Vec<Option<i64>>, Tail) {
        let (mut frames, mut holes) = (Vec::new(), Vec::new());
        let summary = scan(SEGMENT, bytes, |piece| match piece {
            Piece::Frame { payload, .. } => frames.push(bytes[payload.start]),
            Piece::Hole { label, .. } => holes.push(label.map(|l| l.min_ms)),
        });
        (frames, holes, summary.tail)
    }

    #[test]
    fn whole_frames_come_in_order() {
        let (bytes, _) = three();
        assert_eq!(look(&bytes), (vec![1, 2, 3], vec![], Tail::Open));
    }

    #[test]
    fn a_flipped_byte_costs_at_most_its_own_frame_and_names_its_time() {
        let (bytes, ends) = three();
        for at in 0..ends[2] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            let hurt = 1 + ends.iter().filter(|end| **end <= at).count() as u8;
            let (frames, holes, tail) = look(&flipped);
            if frames == [1, 2, 3] {
                assert!(holes.is_empty(), "byte {at}");
            } else {
                let others: Vec<u8> = [1, 2, 3].into_iter().filter(|i| *i != hurt).collect();
                assert_eq!((frames, holes), (others, vec![Some(hurt.into())]), "byte {at}");
            }
            assert_eq!(tail, Tail::Open);
        }
    }

    #[test]
    fn a_cut_leaves_what_stands_before_it_and_shows() {
        let (bytes, ends) = three();
        for length in 0..ends[2] {
            let (frames, _, tail) = look(&bytes[..length]);
            // A frame is there once its payload is; its second label needn't be.
            let payload_end = |i: usize| ends[i] - 56 - [2, 4, 6][i];
            let whole: Vec<u8> = (1..=3).filter(|i| payload_end(usize::from(*i) - 1) <= length).collect();
            assert_eq!((frames, tail), (whole, Tail::Torn), "{length} bytes");
        }
    }

    #[test]
    fn frames_of_another_segment_are_not_there() {
        let mut bytes = Vec::new();
        push(&mut bytes, SEGMENT, &[1; 100]);
        let end = bytes.len();
        let mut stale = Vec::new();
        for i in 1..20 {
            push(&mut stale, SEGMENT - 1, &[i; 90]);
        }
        bytes.extend_from_slice(&[0; 64]);
        bytes.extend_from_slice(&stale[end + 64..]);
        assert_eq!(look(&bytes), (vec![1], vec![], Tail::Open));
    }

    #[test]
    fn a_lost_stretch_is_one_hole() {
        let (mut bytes, ends) = three();
        bytes[ends[0] - 8..ends[1]].fill(0);
        assert_eq!(look(&bytes), (vec![1, 3], vec![None], Tail::Open));
    }
}
