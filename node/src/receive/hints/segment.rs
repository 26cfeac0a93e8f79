//! A segment of hints: records one after the other, each complete in itself.
//!
//! ```text
//! record:  | magic "CHN2" | length u32 | sum u32 | payload | sum u32 |         little-endian
//! sums:     CRC-32C of the length; of the payload
//! payload:  a frame of the write stream (protobuf `Frame`), compressed by snappy
//! ```
//!
//! A record that is damaged is left out, and reading goes on at the next one: behind it if its head is whole, else at
//! the next head that is. A record cut short at the end is what a crash leaves.

use crc_fast::{CrcAlgorithm, checksum};
use prost::Message as _;
use proto::peer::write::Frame;

const MAGIC: &[u8; 4] = b"CHN2";
const HEAD_BYTES: usize = 12;
const SUM_BYTES: usize = 4;
/// Longest payload, before and after compression; frames are cut far below.
const PAYLOAD_BYTES_MAX: usize = crate::grpc::MESSAGE_BYTES_MAX;

/// What a segment holds.
#[derive(Debug, Default, PartialEq)]
pub struct Contents {
    /// Everything that can be read, in order.
    pub frames: Vec<Frame>,
    /// Stretches of bytes that can't.
    pub damaged: usize,
}

/// Appends a record; false, and nothing appended, when the frame is too large to be kept.
#[must_use]
pub fn write(frame: &Frame, bytes: &mut Vec<u8>) -> bool {
    let plain = frame.encode_to_vec();
    let Ok(payload) = snap::raw::Encoder::new().compress_vec(&plain) else { return false };
    if plain.len() > PAYLOAD_BYTES_MAX || payload.len() > PAYLOAD_BYTES_MAX {
        return false;
    }
    let start = bytes.len();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let sum = crc(&bytes[start + MAGIC.len()..]);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes.extend_from_slice(&crc(&payload).to_le_bytes());
    true
}

/// Reads a segment, whatever state it is in.
pub fn read(bytes: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let mut rest = bytes;
    let mut in_damage = false;
    while !rest.is_empty() {
        let Some(length) = head(rest) else {
            contents.damaged += usize::from(!std::mem::replace(&mut in_damage, true));
            // The next head that may be one.
            let next = rest[1..].windows(MAGIC.len()).position(|at| at == MAGIC);
            rest = next.map_or(&[], |at| &rest[1 + at..]);
            continue;
        };
        in_damage = false;
        let record = rest.split_at_checked(HEAD_BYTES + length + SUM_BYTES);
        let Some((record, tail)) = record else {
            contents.damaged += 1;
            break;
        };
        match frame(&record[HEAD_BYTES..]) {
            Some(frame) => contents.frames.push(frame),
            None => contents.damaged += 1,
        }
        rest = tail;
    }
    contents
}

/// Length of the payload, if a whole head stands here.
fn head(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<HEAD_BYTES>()?;
    let (body, sum) = head.split_last_chunk::<4>()?;
    let body = body.strip_prefix(MAGIC)?;
    let length = u32::from_le_bytes(*body.first_chunk()?) as usize;
    let is_whole = crc(body) == u32::from_le_bytes(*sum) && length <= PAYLOAD_BYTES_MAX;
    is_whole.then_some(length)
}

fn frame(payload_and_sum: &[u8]) -> Option<Frame> {
    let (payload, sum) = payload_and_sum.split_last_chunk::<SUM_BYTES>()?;
    if crc(payload) != u32::from_le_bytes(*sum) {
        return None;
    }
    let length = snap::raw::decompress_len(payload).ok()?;
    if length > PAYLOAD_BYTES_MAX {
        return None;
    }
    let plain = snap::raw::Decoder::new().decompress_vec(payload).ok()?;
    Frame::decode(plain.as_slice()).ok()
}

fn crc(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hint(i: u64) -> Frame {
        let body = vec![i as u8; 50 + i as usize * 7].into();
        Frame { id: i, tenant: "t".into(), body, ..Frame::default() }
    }

    fn segment(count: u64) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for i in 0..count {
            starts.push(bytes.len());
            assert!(write(&hint(i), &mut bytes));
        }
        (bytes, starts)
    }

    #[test]
    fn hints_read_back_in_order() {
        let (bytes, _) = segment(20);
        let contents = read(&bytes);
        assert_eq!(contents, Contents { frames: (0..20).map(hint).collect(), damaged: 0 });
        assert_eq!(read(&[]), Contents::default());
    }

    #[test]
    fn a_record_cut_short_at_the_end_costs_itself_alone() {
        let (bytes, starts) = segment(5);
        for cut in starts[4] + 1..bytes.len() {
            let contents = read(&bytes[..cut]);
            assert_eq!((contents.frames.len(), contents.damaged), (4, 1), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn damage_costs_the_records_that_it_hits_alone(at in 0..10_000usize, byte in 1..=255u8) {
            let (mut bytes, starts) = segment(12);
            let at = at % bytes.len();
            bytes[at] ^= byte;
            let hit = starts.partition_point(|start| *start <= at) as u64 - 1;
            let contents = read(&bytes);
            let others: Vec<_> = (0..12).filter(|i| *i != hit).map(hint).collect();
            prop_assert_eq!(contents, Contents { frames: others, damaged: 1 });
        }

        #[test]
        fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(read(&bytes).frames.is_empty());
        }
    }
}
