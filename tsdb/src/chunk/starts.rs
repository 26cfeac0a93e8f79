//! Start times, which stand behind each sample in the encodings that keep them.
//!
//! A byte in the chunk's header says what there is; 0 means that no start time is known, at no cost but the byte.
//!
//! ```text
//! bit 7      sample 0 has a start time: varint of t0 - start behind it
//! bits 6..0  index of the first sample whose start time differs from sample 0's, 0 = none: from there on each sample i
//!            has a varbit integer behind it, first d = t(i-1) - start, then the change of d
//! ```
//!
//! Since seven bits hold no more, sample 127 begins the run even where nothing changes.

use super::bits::{BitReader, BitWriter};
use super::varbit::{push_varbit_int, read_varbit_int};
use crate::Result;

const FIRST_KNOWN: u8 = 0x80;
const CHANGED_AT_MAX: u16 = 0x7f;

/// What is known of start times up to the last sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Starts {
    /// The last sample's; 0 = unknown.
    pub(crate) start_ms: i64,
    /// From the first change on: distance from the start time to the timestamp before its sample.
    distance_ms: i64,
    /// Whether the first sample's is in the chunk.
    first_known: bool,
    /// Index of the sample that began the run; 0 = none.
    changed_at: u8,
}

impl Starts {
    /// For reading a chunk with this header byte.
    pub(crate) fn from_header(byte: u8) -> Self {
        Self { first_known: byte & FIRST_KNOWN != 0, changed_at: byte & !FIRST_KNOWN, ..Self::default() }
    }

    /// The header byte as it now is.
    pub(crate) fn header(self) -> u8 {
        self.changed_at | if self.first_known { FIRST_KNOWN } else { 0 }
    }

    /// Writes what sample `index` at `timestamp_ms` needs.
    #[inline]
    pub(crate) fn write(
        &mut self,
        writer: &mut BitWriter,
        index: u16,
        timestamp_ms: i64,
        previous_ms: i64,
        start_ms: i64,
    ) {
        let distance_ms = previous_ms.wrapping_sub(start_ms);
        if index == 0 {
            if start_ms != 0 {
                self.first_known = true;
                writer.push_varint(timestamp_ms.wrapping_sub(start_ms));
            }
        } else if self.changed_at > 0 {
            push_varbit_int(writer, distance_ms.wrapping_sub(self.distance_ms));
            self.distance_ms = distance_ms;
        } else if start_ms != self.start_ms || index == CHANGED_AT_MAX {
            self.changed_at = index as u8;
            push_varbit_int(writer, distance_ms);
            self.distance_ms = distance_ms;
        }
        self.start_ms = start_ms;
    }

    /// Reads what sample `index` at `timestamp_ms` has.
    #[inline]
    pub(crate) fn read(
        &mut self,
        reader: &mut BitReader<'_>,
        index: u16,
        timestamp_ms: i64,
        previous_ms: i64,
    ) -> Result<()> {
        let changed_at = u16::from(self.changed_at);
        if index == 0 {
            if self.first_known {
                self.start_ms = timestamp_ms.wrapping_sub(reader.read_varint()?);
            }
        } else if changed_at > 0 && index >= changed_at {
            let before = if index == changed_at { 0 } else { self.distance_ms };
            self.distance_ms = before.wrapping_add(read_varbit_int(reader));
            self.start_ms = previous_ms.wrapping_sub(self.distance_ms);
        }
        Ok(())
    }
}
