//! Chunks of any encoding: reading them, and encoding a run of samples.

use bytes::Bytes;

use super::Encoding;
use super::columns::Columns;
use super::xor::{XorAppender, XorDecoder, decode_floats};
use crate::model::{Sample, Value};
use crate::select::Chunk;
use crate::{Error, Result};

/// Most samples that [`encode`] puts into a chunk.
const SAMPLES_MAX: u16 = 240;

/// Reads a chunk, sample by sample. After an error there is no more.
#[derive(Clone, Debug)]
pub enum Decoder<'a> {
    /// A XOR chunk.
    Xor(XorDecoder<'a>),
}

impl<'a> Decoder<'a> {
    /// Starts on a chunk's bytes, without length, encoding or checksum.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they can't be a chunk.
    pub fn new(encoding: Encoding, bytes: &'a [u8]) -> Result<Self> {
        match encoding {
            Encoding::Xor => XorDecoder::new(bytes).map(Self::Xor),
            Encoding::Histogram | Encoding::FloatHistogram => {
                Err(Error::Invalid("histogram chunks can't be read yet".to_owned()))
            }
        }
    }
}

impl Iterator for Decoder<'_> {
    type Item = Result<Sample>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Xor(decoder) => {
                Some(decoder.next()?.map(|(timestamp_ms, value)| Sample::float(timestamp_ms, value)))
            }
        }
    }
}

/// Appends a chunk's samples to the columns, which stay as they are where that fails.
///
/// # Errors
/// [`Error::Corrupt`].
pub fn decode_columns(encoding: Encoding, bytes: &[u8], columns: &mut Columns) -> Result<()> {
    if encoding == Encoding::Xor {
        return decode_floats(bytes, columns);
    }
    let before = columns.len();
    for sample in Decoder::new(encoding, bytes)? {
        match sample {
            Ok(sample) => columns.push(&sample),
            Err(error) => {
                columns.truncate(before);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Encodes samples in the order given.
pub fn encode(samples: &[Sample]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut rest = samples;
    while !rest.is_empty() {
        let mut appender = XorAppender::new();
        let mut taken = 0;
        for sample in &rest[..rest.len().min(usize::from(SAMPLES_MAX))] {
            let Value::Float(value) = sample.value else { panic!("only floats can be encoded yet") };
            appender.append(sample.timestamp_ms, value);
            taken += 1;
        }
        chunks.push(Chunk {
            min_ms: rest[0].timestamp_ms,
            max_ms: rest[taken - 1].timestamp_ms,
            encoding: Encoding::Xor,
            data: Bytes::copy_from_slice(appender.bytes()),
        });
        rest = &rest[taken..];
    }
    chunks
}
