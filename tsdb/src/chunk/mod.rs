//! Chunks: runs of samples of one series in Prometheus's encodings.
//!
//! | module | what it holds |
//! |---|---|
//! | [`xor`] | floats |
//! | [`xor2`] | floats with start times |
//! | [`histogram`] | native histograms, with integer or float counts, with start times or without |
//! | `starts`, `varbit`, `bits` | what encodings are made of |
//! | [`appender`], [`codec`] | chunks of any encoding: writing and reading them |
//! | [`columns`] | decoded samples, side by side |
//!
//! Every decoder takes arbitrary bytes: it ends with [`crate::Error::Corrupt`], never panics, and allocates no more
//! than a small multiple of the bytes it was given.

pub mod appender;
mod bits;
pub mod codec;
pub mod columns;
pub mod histogram;
mod starts;
mod varbit;
pub mod xor;
pub mod xor2;

pub use appender::{ChunkAppender, Writes};
pub use codec::{Decoder, decode_columns, encode};
pub use columns::Columns;
pub use histogram::NewChunk;
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
    /// Floats with start times.
    Xor2 = 4,
    /// Native histograms with integer counts and start times.
    HistogramWithStarts = 5,
    /// Native histograms with float counts and start times.
    FloatHistogramWithStarts = 6,
}

impl Encoding {
    const ALL: [Self; 6] = [
        Self::Xor,
        Self::Histogram,
        Self::FloatHistogram,
        Self::Xor2,
        Self::HistogramWithStarts,
        Self::FloatHistogramWithStarts,
    ];

    /// From the byte in a block.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| *encoding as u8 == byte)
    }

    /// Whether samples are floats.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Xor | Self::Xor2)
    }

    /// Whether samples keep their start times.
    pub fn has_starts(self) -> bool {
        matches!(self, Self::Xor2 | Self::HistogramWithStarts | Self::FloatHistogramWithStarts)
    }
}
