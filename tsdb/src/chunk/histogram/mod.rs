//! Native histogram chunks, with integer or float counts, with start times or without.
//!
//! ```text
//! header, 3 bytes | layout | sample ... | padding to a byte
//!
//! header   number of samples, what is known of a counter reset before them, and of start times: see `header`
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
mod header;
mod layout;

pub use append::{HistogramAppender, NewChunk};
pub use cell::ChunkCount;
pub use decode::HistogramDecoder;

#[cfg(test)]
mod tests;
