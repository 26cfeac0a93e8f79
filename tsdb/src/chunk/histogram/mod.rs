//! Native histogram chunks, with integer or float counts, with start times or without.
//!
//! ```text
//! count u16 BE | flags u8 | [starts u8] | layout | sample ... | padding to a byte
//!
//! flags    bits 7..6: 00 nothing is known of a reset before the chunk, 10 there was one, 01 none, 11 a gauge
//! starts   only in the encodings that keep start times: see `starts`
//! layout   zero threshold | schema varbit int | positive spans | negative spans | [custom bounds, schema -53 only]
//!   zero threshold   u8: 0 = 0; 255 = 64 bits follow; else 2^(n - 244)
//!   spans            number varbit uint | (length varbit uint | offset varbit int) ...
//!   custom bounds    number varbit uint | (thousandths + 1 as varbit uint, or a 0 bit and 64 bits) ...
//! sample   timestamp | count | zero count | sum | positive buckets | negative buckets | [start time]
//!
//!                        sample 0             from sample 1 on
//! timestamp              varbit int           varbit int: change of the distance to the one before (0 before sample 1)
//! sum                    64 bits              xor
//! count, zero count      int: varbit uint     int: varbit int, change of the change
//! buckets                int: varbit int      int: the same
//! count ... buckets      float: 64 bits       float: xor, each with a window of its own
//! ```
//!
//! Integer buckets are written as differences to the bucket before. A stale sample has its sum (the marker) and no
//! buckets; behind it only stale samples follow.
//!
//! The codec is one for both kinds of counts; `cell` holds what differs.

mod append;
mod cell;
mod decode;
mod layout;

pub use append::{HistogramAppender, NewChunk};
pub use cell::ChunkCount;
pub use decode::HistogramDecoder;

use crate::model::CounterReset;

/// Where the flags stand in the header.
const FLAGS_AT: usize = 2;
/// Bytes before the layout, without start times.
const HEADER_BYTES: usize = 3;
/// Bytes before the layout, with start times.
const HEADER_BYTES_WITH_STARTS: usize = 4;
/// Fewest bits of a sample: timestamp, count, zero count and sum.
const SAMPLE_BITS_MIN: usize = 4;

/// The flags byte for what is known of a reset before the chunk.
fn flags(reset: CounterReset) -> u8 {
    match reset {
        CounterReset::Unknown => 0b00 << 6,
        CounterReset::Reset => 0b10 << 6,
        CounterReset::NotReset => 0b01 << 6,
        CounterReset::Gauge => 0b11 << 6,
    }
}

/// What the flags byte says.
fn reset_of(flags: u8) -> CounterReset {
    match flags >> 6 {
        0b10 => CounterReset::Reset,
        0b01 => CounterReset::NotReset,
        0b11 => CounterReset::Gauge,
        _ => CounterReset::Unknown,
    }
}

#[cfg(test)]
mod tests;
