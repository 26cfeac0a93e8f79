//! Chunks: runs of samples of one series in Prometheus's encodings.

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
