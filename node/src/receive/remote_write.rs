//! Remote write: from a body to a batch, without parsing a label. Here is 1.0; 2.0 is in [`v2`].
//!
//! 1. The declared length is judged before anything is allocated, then snappy decompresses into a kept buffer. The parts
//!    of a large message are counted.
//! 2. One pass over the message: per series the raw bytes of its labels are hashed as they are (they stand in one
//!    piece, as every encoder writes them; else they are gathered), and its samples are pushed.
//! 3. Whoever takes the batch looks the hashes up; only series that are new have their labels parsed.

use tsdb::db::{Exemplar, Metadata};
use tsdb::model::{Sample, Value};

use super::batch::{
    Batch, EXEMPLAR_BYTES, METADATA_BYTES, Raw, SAMPLE_BYTES, SERIES_BYTES, SeriesHasher, histogram_bytes,
};
use super::budget::{DecodedBytes, OverBudget};
use super::wire::{Malformed, Reader};
use super::{histogram, labels};

use self::survey::{Layout, survey};

mod survey;
pub mod v2;

/// Why a body isn't a request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not snappy's block format, or cut short.
    #[error("the body isn't snappy: {0}")]
    Snappy(String),
    /// It declares more than is allowed.
    #[error("the body declares {declared} decompressed bytes, more than {most} (http.max_decompressed_body)")]
    TooLarge {
        /// What it says.
        declared: usize,
        /// What is allowed.
        most: usize,
    },
    /// Its parts take more memory than there is for them.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    /// Not a remote write message.
    #[error("the body isn't a remote write message: {0}")]
    Malformed(#[from] Malformed),
}

/// Bytes that the body says it has when decompressed; nothing is decompressed yet.
///
/// # Errors
/// When there is no valid length, or it is beyond `most`.
pub fn declared_bytes(body: &[u8], most: usize) -> Result<usize, BodyError> {
    let declared = snap::raw::decompress_len(body).map_err(|e| BodyError::Snappy(e.to_string()))?;
    // Offsets in a batch have 32 bits.
    let most = most.min(u32::MAX as usize);
    if declared > most { Err(BodyError::TooLarge { declared, most }) } else { Ok(declared) }
}

/// Decompresses `body` into `plain`, whose memory is used again.
///
/// # Errors
/// When the body isn't snappy.
pub fn decompress(body: &[u8], declared: usize, plain: &mut Vec<u8>) -> Result<(), BodyError> {
    // What the buffer held is overwritten: only growth has to be zeroed.
    plain.resize(declared, 0);
    let written = snap::raw::Decoder::new().decompress(body, plain);
    let written = written.map_err(|e| BodyError::Snappy(e.to_string()))?;
    plain.truncate(written);
    Ok(())
}

/// Where its parts are.
const LAYOUT: Layout = Layout { series: 1, symbols: 0, metadata: 3, samples: 2, histograms: 4, exemplars: 3 };

/// Decodes a message `WriteRequest` into `batch`, whose growth is taken from `memory` beforehand.
///
/// # Errors
/// When the message is broken or needs too much memory; the batch is then of no use.
pub fn decode(
    plain: &[u8],
    hasher: &SeriesHasher,
    memory: &mut DecodedBytes<'_>,
    batch: &mut Batch,
) -> Result<(), BodyError> {
    survey(plain, &LAYOUT, memory, batch)?;
    let mut request = Reader::new(plain);
    while let Some((number, field)) = request.field()? {
        match number {
            1 => {
                let series = field.bytes()?;
                series_into(series, request.position() - series.len(), hasher, memory, batch)?;
            }
            3 => metadata_into(field.bytes()?, memory, batch)?,
            _ => {}
        }
    }
    Ok(())
}

/// One message `TimeSeries` that begins at `offset` in the body.
fn series_into(
    bytes: &[u8],
    offset: usize,
    hasher: &SeriesHasher,
    memory: &mut DecodedBytes<'_>,
    batch: &mut Batch,
) -> Result<(), BodyError> {
    memory.take(SERIES_BYTES)?;
    let owner = u32::try_from(batch.keys.len()).map_err(|_| Malformed::TooMany)?;
    let (mut first, mut end, mut split) = (usize::MAX, 0, false);
    let (samples, mut histograms) = (batch.appends.len(), 0);
    let mut fields = Reader::new(bytes);
    loop {
        let at = fields.position();
        let Some((number, field)) = fields.field()? else { break };
        match number {
            1 => {
                field.bytes()?;
                split |= first != usize::MAX && end != at;
                first = first.min(at);
                end = fields.position();
            }
            2 => {
                memory.take(SAMPLE_BYTES)?;
                batch.push_sample(owner, sample::<false>(field.bytes()?)?);
            }
            3 => exemplar_into(field.bytes()?, owner, memory, batch)?,
            4 => {
                let message = field.bytes()?;
                memory.take(histogram_bytes(message.len()))?;
                match histogram::decode::<false>(message)? {
                    Ok(sample) => {
                        batch.push_sample(owner, sample);
                        histograms += 1;
                    }
                    Err(why) => batch.refuse(owner, why),
                }
            }
            _ => {}
        }
    }
    if histograms > 0 && histograms < batch.appends.len() - samples {
        batch.sort_samples(samples);
    }
    let first = first.min(end);
    if split {
        memory.take(bytes.len())?;
        let raw = gather(bytes, &mut batch.gathered)?;
        let key = hasher.key(&batch.gathered[raw.start as usize..raw.end as usize]);
        batch.push_series(key, Raw::Gathered(raw));
    } else {
        let at = |i: usize| (offset + i) as u32;
        batch.push_series(hasher.key(&bytes[first..end]), Raw::Body(at(first)..at(end)));
    }
    Ok(())
}

/// Copies the label fields of a series, between which others stand, into one piece.
fn gather(bytes: &[u8], gathered: &mut Vec<u8>) -> Result<std::ops::Range<u32>, Malformed> {
    let start = gathered.len();
    let mut fields = Reader::new(bytes);
    loop {
        let at = fields.position();
        let Some((number, _)) = fields.field()? else { break };
        if number == 1 {
            gathered.extend_from_slice(&bytes[at..fields.position()]);
        }
    }
    let position = |at: usize| u32::try_from(at).map_err(|_| Malformed::TooMany);
    Ok(position(start)?..position(gathered.len())?)
}

/// One message `Sample`, of 2.0 where it may have a start time.
#[inline]
fn sample<const HAS_START: bool>(bytes: &[u8]) -> Result<Sample, Malformed> {
    let (mut value, mut timestamp_ms, mut start_ms) = (0.0, 0, 0);
    let mut fields = Reader::new(bytes);
    while let Some((number, field)) = fields.field()? {
        match number {
            1 => value = field.double()?,
            2 => timestamp_ms = field.varint()? as i64,
            3 if HAS_START => start_ms = field.varint()? as i64,
            _ => {}
        }
    }
    Ok(Sample { timestamp_ms, start_ms, value: Value::Float(value) })
}

fn exemplar_into(
    bytes: &[u8],
    owner: u32,
    memory: &mut DecodedBytes<'_>,
    batch: &mut Batch,
) -> Result<(), BodyError> {
    memory.take(EXEMPLAR_BYTES + bytes.len())?;
    let (mut value, mut timestamp_ms) = (0.0, 0);
    let mut pairs = Vec::new();
    let mut fields = Reader::new(bytes);
    while let Some((number, field)) = fields.field()? {
        match number {
            1 => {
                let (mut name, mut text) = (&b""[..], &b""[..]);
                let mut parts = Reader::new(field.bytes()?);
                while let Some((number, part)) = parts.field()? {
                    match number {
                        1 => name = part.bytes()?,
                        2 => text = part.bytes()?,
                        _ => {}
                    }
                }
                memory.take(labels::PAIR_BYTES)?;
                pairs.push((name, text));
            }
            2 => value = field.double()?,
            3 => timestamp_ms = field.varint()? as i64,
            _ => {}
        }
    }
    match labels::of_exemplar(pairs) {
        Ok(labels) => batch.exemplars.push((owner, Exemplar { timestamp_ms, value, labels })),
        Err(why) => batch.refuse(owner, why),
    }
    Ok(())
}

/// Metric types by their number on the wire.
const KINDS: [&str; 8] =
    ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];

fn metadata_into(bytes: &[u8], memory: &mut DecodedBytes<'_>, batch: &mut Batch) -> Result<(), BodyError> {
    let mut metadata = Metadata::default();
    let mut kind = 0;
    let mut fields = Reader::new(bytes);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    while let Some((number, field)) = fields.field()? {
        match number {
            1 => kind = usize::try_from(field.varint()?).unwrap_or(0),
            2 => metadata.family = text(field.bytes()?),
            4 => metadata.help = text(field.bytes()?),
            5 => metadata.unit = text(field.bytes()?),
            _ => {}
        }
    }
    metadata.kind = (*KINDS.get(kind).unwrap_or(&KINDS[0])).to_owned();
    if !metadata.family.is_empty() {
        memory.take(METADATA_BYTES + bytes.len())?;
        batch.metadata.push(metadata);
    }
    Ok(())
}

#[cfg(test)]
mod targets;
#[cfg(test)]
mod tests;
