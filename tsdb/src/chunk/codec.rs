//! Chunks of any encoding: reading them, and encoding a run of samples.

use std::sync::Arc;

use bytes::Bytes;

use super::Encoding;
use super::appender::{ChunkAppender, Writes};
use super::columns::Columns;
use super::histogram::{HistogramDecoder, NewChunk};
use super::xor::{XorDecoder, decode_floats};
use super::xor2::{Xor2Decoder, decode_floats_with_starts};
use crate::Result;
use crate::model::{Sample, Value};
use crate::select::Chunk;

/// Most samples that [`encode`] puts into a chunk.
const SAMPLES_MAX: u16 = 240;

/// Reads a chunk, sample by sample. After an error there is no more.
#[derive(Clone, Debug)]
pub enum Decoder<'a> {
    /// Floats.
    Xor(XorDecoder<'a>),
    /// Floats with start times.
    Xor2(Xor2Decoder<'a>),
    /// Histograms with integer counts.
    Int(HistogramDecoder<'a, u64>),
    /// Histograms with float counts.
    Histogram(HistogramDecoder<'a, f64>),
}

impl<'a> Decoder<'a> {
    /// Starts on a chunk's bytes, without length, encoding or checksum.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when they can't be a chunk.
    pub fn new(encoding: Encoding, bytes: &'a [u8]) -> Result<Self> {
        let starts = encoding.has_starts();
        match encoding {
            Encoding::Xor => XorDecoder::new(bytes).map(Self::Xor),
            Encoding::Xor2 => Xor2Decoder::new(bytes).map(Self::Xor2),
            Encoding::Histogram | Encoding::HistogramWithStarts => {
                HistogramDecoder::new(bytes, starts).map(Self::Int)
            }
            Encoding::FloatHistogram | Encoding::FloatHistogramWithStarts => {
                HistogramDecoder::new(bytes, starts).map(Self::Histogram)
            }
        }
    }
}

impl Iterator for Decoder<'_> {
    type Item = Result<Sample>;

    fn next(&mut self) -> Option<Self::Item> {
        let sample = |timestamp_ms, start_ms, value| Sample { timestamp_ms, start_ms, value };
        Some(match self {
            Self::Xor(decoder) => decoder.next()?.map(|(t, value)| Sample::float(t, value)),
            Self::Xor2(decoder) => {
                decoder.next()?.map(|(t, start, value)| sample(t, start, Value::Float(value)))
            }
            Self::Int(decoder) => {
                decoder.next()?.map(|(t, start, h)| sample(t, start, Value::Int(Arc::new(h))))
            }
            Self::Histogram(decoder) => {
                decoder.next()?.map(|(t, start, h)| sample(t, start, Value::Histogram(Arc::new(h))))
            }
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Xor(decoder) => decoder.size_hint(),
            Self::Xor2(decoder) => decoder.size_hint(),
            Self::Int(decoder) => decoder.size_hint(),
            Self::Histogram(decoder) => decoder.size_hint(),
        }
    }
}

/// How many samples a chunk says it has.
///
/// # Errors
/// [`crate::Error::Corrupt`] when it can't have as many.
pub fn count(encoding: Encoding, bytes: &[u8]) -> Result<u16> {
    let (_, count) = Decoder::new(encoding, bytes)?.size_hint();
    Ok(count.and_then(|count| u16::try_from(count).ok()).expect("decoders know how many samples come"))
}

/// Appends a chunk's samples to the columns, which stay as they are where that fails.
///
/// # Errors
/// [`crate::Error::Corrupt`].
pub fn decode_columns(encoding: Encoding, bytes: &[u8], columns: &mut Columns) -> Result<()> {
    if encoding == Encoding::Xor {
        return decode_floats(bytes, columns);
    }
    let before = columns.len();
    let decoded = decode_any(encoding, bytes, columns);
    if decoded.is_err() {
        columns.truncate(before);
    }
    decoded
}

fn decode_any(encoding: Encoding, bytes: &[u8], columns: &mut Columns) -> Result<()> {
    if encoding == Encoding::Xor2 {
        return decode_floats_with_starts(bytes, columns);
    }
    for sample in Decoder::new(encoding, bytes)? {
        columns.push(&sample?);
    }
    Ok(())
}

/// Encodes samples in the order given, with their start times where one has any.
pub fn encode(samples: &[Sample]) -> Vec<Chunk> {
    let has_starts = samples.iter().any(|sample| sample.start_ms != 0);
    let writes = if has_starts { Writes::WithStarts } else { Writes::Classic };
    let mut chunks = Vec::new();
    let mut open: Option<(i64, ChunkAppender)> = None;
    for sample in samples {
        let appended = match &mut open {
            Some((_, appender)) if appender.count() < SAMPLES_MAX => appender.append(sample),
            _ => Err(NewChunk),
        };
        if appended == Err(NewChunk) {
            chunks.extend(open.take().map(seal));
            open = Some((sample.timestamp_ms, ChunkAppender::start(writes, sample)));
        }
    }
    chunks.extend(open.map(seal));
    chunks
}

fn seal((min_ms, appender): (i64, ChunkAppender)) -> Chunk {
    Chunk {
        min_ms,
        max_ms: appender.last_timestamp_ms().unwrap_or(min_ms),
        encoding: appender.encoding(),
        data: Bytes::copy_from_slice(appender.bytes()),
    }
}
