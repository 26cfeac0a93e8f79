//! One frame of the log: a record between two equal labels.
//!
//! ```text
//!  0        4        8        12       16       20       24       28  29  30  31  32       40       48
//! +--------+--------+--------+--------+--------+--------+--------+---+---+---+---+--------+--------+--------+
//! | crc    | magic  | segment| offset | length | payload| synced |kin|fla|sha|ten| min_ms | max_ms | tenant |
//! | u32    | 4 bytes| u32    | u32    | u32    | crc u32| u32    |d  |gs |rd |len| i64    | i64    | pad 8  |
//! +--------+--------+--------+--------+--------+--------+--------+---+---+---+---+--------+--------+--------+
//! | payload: `length` bytes, then zeros up to a multiple of 8                                               |
//! +---------------------------------------------------------------------------------------------------------+
//! | the label once more, with the other magic                                                               |
//! +---------------------------------------------------------------------------------------------------------+
//! ```
//! Integers are little-endian, checksums CRC32C; `crc` covers the label from `magic` to the tenant's padding. A frame
//! starts at a multiple of 8. `segment` and `offset` say where it belongs, so that what a recycled file holds from
//! its last life is never taken for its present one. `synced` is how many bytes of this segment were known to be
//! safe when the frame was made. The second label makes a frame whose first one rotted readable all the same, and
//! gives a damaged payload its time range whichever of the two survives.

use crc_fast::{CrcAlgorithm, checksum};

use super::RecordKind;
use crate::model::TenantId;

/// Frames and labels start at multiples of this many bytes.
pub(super) const ALIGN: usize = 8;
/// Bytes of a label without its tenant.
pub(super) const LABEL_BYTES: usize = 48;
/// Bytes of the frame that ends a segment: two labels without tenant.
pub(super) const END_BYTES: usize = 2 * LABEL_BYTES;
/// Where a label's checksum ends and what it covers begins.
const CHECKED_FROM: usize = 4;

/// Version of the format, which stands in every label. 1 kept the histograms of an append apart from its floats.
const VERSION: u8 = b'2';
const HEAD_MAGIC: [u8; 4] = [b'C', b'W', b'h', VERSION];
const TAIL_MAGIC: [u8; 4] = [b'C', b'W', b't', VERSION];

/// Flag: this frame repeats an earlier one of its segment.
pub(super) const FLAG_COPY: u8 = 1;
/// Flag of an end frame: a start put it behind what it could read.
pub(super) const FLAG_RECOVERED: u8 = 2;
/// The `kind` of the frame that ends a segment; all others are [`RecordKind`]s.
pub(super) const KIND_END: u8 = 0;

/// Which of a frame's two labels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Head,
    Tail,
}

/// What a label says. The tenant follows it in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label<'a> {
    pub segment: u32,
    pub offset: u32,
    pub payload_bytes: u32,
    pub payload_crc: u32,
    pub synced: u32,
    pub kind: u8,
    pub flags: u8,
    pub shard: u8,
    pub min_ms: i64,
    pub max_ms: i64,
    /// Empty in the frame that ends a segment.
    pub tenant: &'a str,
}

pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

pub(super) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

/// Bytes of a whole frame.
pub(super) fn frame_bytes(tenant_bytes: usize, payload_bytes: usize) -> usize {
    2 * (LABEL_BYTES + padded(tenant_bytes)) + padded(payload_bytes)
}

impl<'a> Label<'a> {
    /// The frame that ends a segment at `offset`.
    pub fn end(segment: u32, offset: u32, synced: u32) -> Self {
        let (min_ms, max_ms) = super::TIMELESS;
        Self {
            segment,
            offset,
            payload_bytes: 0,
            payload_crc: crc32c(&[]),
            synced,
            kind: KIND_END,
            flags: 0,
            shard: 0,
            min_ms,
            max_ms,
            tenant: "",
        }
    }

    /// Bytes of the label with its tenant.
    pub fn bytes(&self) -> usize {
        LABEL_BYTES + padded(self.tenant.len())
    }

    /// Bytes of the frame.
    pub fn frame_bytes(&self) -> usize {
        frame_bytes(self.tenant.len(), self.payload_bytes as usize)
    }

    /// Appends the frame.
    pub fn write_frame(&self, payload: &[u8], out: &mut Vec<u8>) {
        debug_assert_eq!(payload.len(), self.payload_bytes as usize);
        self.write(End::Head, out);
        out.extend_from_slice(payload);
        out.resize(out.len() + padded(payload.len()) - payload.len(), 0);
        self.write(End::Tail, out);
    }

    fn write(&self, end: End, out: &mut Vec<u8>) {
        let mut label = [0; LABEL_BYTES];
        label[4..8].copy_from_slice(magic(end));
        label[8..12].copy_from_slice(&self.segment.to_le_bytes());
        label[12..16].copy_from_slice(&self.offset.to_le_bytes());
        label[16..20].copy_from_slice(&self.payload_bytes.to_le_bytes());
        label[20..24].copy_from_slice(&self.payload_crc.to_le_bytes());
        label[24..28].copy_from_slice(&self.synced.to_le_bytes());
        label[28] = self.kind;
        label[29] = self.flags;
        label[30] = self.shard;
        label[31] = u8::try_from(self.tenant.len()).expect("a tenant id is at most 150 bytes");
        label[32..40].copy_from_slice(&self.min_ms.to_le_bytes());
        label[40..48].copy_from_slice(&self.max_ms.to_le_bytes());
        let start = out.len();
        out.extend_from_slice(&label);
        out.extend_from_slice(self.tenant.as_bytes());
        out.resize(start + self.bytes(), 0);
        let crc = crc32c(&out[start + CHECKED_FROM..]);
        out[start..start + CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the label at the front of `bytes`; `None` when there is no whole one.
    pub fn read(bytes: &'a [u8], end: End) -> Option<Self> {
        let label: &[u8; LABEL_BYTES] = bytes.first_chunk()?;
        if label[4..8] != *magic(end) {
            return None;
        }
        let tenant_bytes = usize::from(label[31]);
        let whole = bytes.get(..LABEL_BYTES + padded(tenant_bytes))?;
        if u32_at(label, 0) != crc32c(&whole[CHECKED_FROM..]) {
            return None;
        }
        let tenant = std::str::from_utf8(&whole[LABEL_BYTES..LABEL_BYTES + tenant_bytes]).ok()?;
        let read = Self {
            segment: u32_at(label, 8),
            offset: u32_at(label, 12),
            payload_bytes: u32_at(label, 16),
            payload_crc: u32_at(label, 20),
            synced: u32_at(label, 24),
            kind: label[28],
            flags: label[29],
            shard: label[30],
            min_ms: i64_at(label, 32),
            max_ms: i64_at(label, 40),
            tenant,
        };
        // Whoever wrote this can't have meant it; a reader that believed it would only trip later.
        let sound = if read.kind == KIND_END { tenant.is_empty() } else { TenantId::new(tenant).is_ok() };
        sound.then_some(read)
    }

    /// What the frame holds; `None` for the end of a segment and for kinds of a later version.
    pub fn record_kind(&self) -> Option<RecordKind> {
        RecordKind::from_byte(self.kind)
    }
}

fn magic(end: End) -> &'static [u8; 4] {
    match end {
        End::Head => &HEAD_MAGIC,
        End::Tail => &TAIL_MAGIC,
    }
}

/// Which label may stand at the front of `bytes`, by its magic alone.
pub(super) fn label_here(bytes: &[u8]) -> Option<End> {
    let magic = bytes.get(4..8)?;
    if magic == HEAD_MAGIC {
        Some(End::Head)
    } else if magic == TAIL_MAGIC {
        Some(End::Tail)
    } else {
        None
    }
}

/// The version of the format by which a segment was written that begins like this, where that is another one.
pub(super) fn other_version(segment: &[u8]) -> Option<char> {
    let [b'C', b'W', b'h', version] = *segment.get(4..8)?.first_chunk()? else { return None };
    (version.is_ascii_digit() && version != VERSION).then_some(char::from(version))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label(payload: &[u8], tenant: &'static str) -> Label<'static> {
        Label {
            segment: 7,
            offset: 4_096,
            payload_bytes: payload.len() as u32,
            payload_crc: crc32c(payload),
            synced: 1_024,
            kind: RecordKind::Floats as u8,
            flags: 0,
            shard: 3,
            min_ms: -5,
            max_ms: 1_700_000_000_000,
            tenant,
        }
    }

    #[test]
    fn both_labels_read_back() {
        for tenant in ["a", "anonymous", "a-tenant"] {
            let label = label(b"payload", tenant);
            let mut bytes = Vec::new();
            label.write_frame(b"payload", &mut bytes);
            assert_eq!(bytes.len(), label.frame_bytes());
            assert_eq!(Label::read(&bytes, End::Head), Some(label));
            assert_eq!(Label::read(&bytes[bytes.len() - label.bytes()..], End::Tail), Some(label));
            assert_eq!(Label::read(&bytes, End::Tail), None);
        }
    }

    #[test]
    fn no_flipped_bit_of_a_label_goes_unnoticed() {
        let label = label(b"", "anonymous");
        let mut bytes = Vec::new();
        label.write_frame(b"", &mut bytes);
        for bit in 0..label.bytes() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Label::read(&flipped, End::Head), None, "bit {bit}");
        }
    }

    #[test]
    fn a_label_cut_short_is_none() {
        let label = label(b"", "anonymous");
        let mut bytes = Vec::new();
        label.write_frame(b"", &mut bytes);
        for length in 0..label.bytes() {
            assert_eq!(Label::read(&bytes[..length], End::Head), None);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_label(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Label::read(&bytes, End::Head), None);
            if bytes.len() >= 8 {
                bytes[4..8].copy_from_slice(&HEAD_MAGIC);
                prop_assert_eq!(Label::read(&bytes, End::Head), None);
            }
        }
    }
}
