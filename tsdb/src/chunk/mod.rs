//! Chunks: runs of samples of one series in Prometheus's encodings.
//!
//! | module | what it holds |
//! |---|---|
//! | [`xor`] | floats |
//! | [`columns`] | decoded samples, side by side |
//!
//! Every decoder takes arbitrary bytes: it ends with [`crate::Error::Corrupt`], never panics, and allocates no more
//! than a small multiple of the bytes it was given.

mod bits;
mod codec;
pub mod columns;
pub mod xor;

pub use codec::{Decoder, decode_columns, encode};
pub use columns::Columns;
pub use xor::{XorAppender, XorDecoder, decode_floats};

/// How a chunk's bytes are encoded; the numbers are Prometheus's, in blocks and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Floats: timestamps by delta of delta, values by XOR.
    Xor = 1,
    /// Native histograms with integer counts.
    Histogram = 2,
    /// Native histograms with float counts.
    FloatHistogram = 3,
}

impl Encoding {
    /// From the byte in a block.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Xor, Self::Histogram, Self::FloatHistogram].into_iter().find(|e| *e as u8 == byte)
    }
}
