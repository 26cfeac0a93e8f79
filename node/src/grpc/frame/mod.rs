//! What a frame of the write stream carries: series, samples and exemplars.
//!
//! ```text
//! body:     | section | section | …                each kind at most once, empty ones left out, in this order
//! section:  | kind u8 | length u32 little-endian | payload |
//! kind:     1 series      definitions of refs, as the WAL writes them, packed: see `packed`
//!           2 floats      see `floats`; values against the stream's dictionary
//!           3 histograms  as the WAL writes them, refs in place of series; each says how many floats come before it
//!           4 exemplars   as the WAL writes them, refs in place of series
//! ```
//!
//! A stream's dictionary gives each series a ref: 0, 1, 2 … in the order of their definitions. Both ends keep the
//! bits of the last float of each ref, 0 before the first. A definition of a ref that exists replaces it, and forgets
//! its last float. Samples keep their order, whatever their types: a receiver that took all floats before the histograms
//! would take a series' histograms as late ones. Answers ([`Verdict`]s, in runs) are in the order samples, exemplars,
//! families.

mod change;
mod floats;
mod packed;
mod verdict;

use tsdb::db::Exemplar;
use tsdb::head::SeriesRef;
use tsdb::model::{Labels, Sample, Value};
use tsdb::wal::record::exemplars::{Exemplars, ExemplarsWriter};
use tsdb::wal::record::histograms::{Histograms, HistogramsWriter};
use tsdb::wal::record::samples::{InOrder, Next};
use tsdb::wal::record::series::{Series, SeriesWriter};
use tsdb::{Error, Result};

pub use change::Change;
pub use floats::Float;
use floats::{Floats, FloatsWriter};
pub use verdict::{Verdict, read_verdicts, says_any, write_verdicts};

const SERIES: u8 = 1;
const FLOATS: u8 = 2;
const HISTOGRAMS: u8 = 3;
const EXEMPLARS: u8 = 4;

/// Refs of one dictionary: what both ends remember of a stream is bounded.
pub const REFS_MAX: usize = 1 << 22;

/// The sender's end of a stream's dictionary.
#[derive(Default)]
pub struct Dictionary {
    /// Bits of the last float of each ref.
    last: Vec<u64>,
}

impl Dictionary {
    /// A ref for a series that has none; `None` when the dictionary is full and has to be begun anew.
    pub fn define(&mut self) -> Option<u32> {
        if self.last.len() >= REFS_MAX {
            return None;
        }
        self.last.push(0);
        Some((self.last.len() - 1) as u32)
    }

    /// How many series it knows.
    pub fn len(&self) -> usize {
        self.last.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// Forgets all series.
    pub fn clear(&mut self) {
        self.last.clear();
    }
}

/// Writes a body.
#[derive(Default)]
pub struct BodyWriter {
    series: SeriesWriter,
    floats: FloatsWriter,
    float_count: u64,
    histograms: HistogramsWriter,
    exemplars: ExemplarsWriter,
}

impl BodyWriter {
    /// Defines a ref.
    pub fn series(&mut self, series: u32, labels: &Labels) {
        self.series.push(name(series), labels);
    }

    /// Adds a sample of a ref that is defined, in this body or one before it.
    pub fn sample(&mut self, dictionary: &mut Dictionary, series: u32, sample: &Sample) {
        match &sample.value {
            Value::Float(value) => {
                let bits = value.to_bits();
                let last = std::mem::replace(&mut dictionary.last[series as usize], bits);
                self.float_count += 1;
                self.floats.push(Float {
                    series,
                    timestamp_ms: sample.timestamp_ms,
                    start_ms: sample.start_ms,
                    change: Change::between(last, bits),
                });
            }
            _ => {
                let is_taken = self.histograms.push(self.float_count, name(series), sample);
                assert!(is_taken, "only floats are refused");
            }
        }
    }

    /// Adds an exemplar of a ref that is defined.
    pub fn exemplar(&mut self, series: u32, exemplar: &Exemplar) {
        self.exemplars.push(name(series), exemplar);
    }

    /// Bytes so far, about.
    pub fn size_bytes(&self) -> usize {
        let sections = [self.series.payload().len(), self.floats.payload().len()];
        sections.iter().sum::<usize>() + self.histograms.payload().len() + self.exemplars.payload().len()
    }

    /// The body; the writer is empty again, and keeps its memory.
    pub fn finish(&mut self) -> Vec<u8> {
        let series = packed::pack(self.series.payload());
        let mut body = Vec::with_capacity(self.size_bytes() + 4 * SECTION_HEAD_BYTES);
        for (kind, payload) in [
            (SERIES, series.as_slice()),
            (FLOATS, self.floats.payload()),
            (HISTOGRAMS, self.histograms.payload()),
            (EXEMPLARS, self.exemplars.payload()),
        ] {
            if !payload.is_empty() {
                let length = u32::try_from(payload.len()).expect("frames are cut far below 4 GiB");
                body.push(kind);
                body.extend_from_slice(&length.to_le_bytes());
                body.extend_from_slice(payload);
            }
        }
        self.series.clear();
        self.floats.clear();
        self.float_count = 0;
        self.histograms.clear();
        self.exemplars.clear();
        body
    }
}

/// Kind and length.
const SECTION_HEAD_BYTES: usize = 5;

fn name(series: u32) -> SeriesRef {
    SeriesRef::from_u64(u64::from(series))
}

/// The ref in a record that was written with [`name`].
fn parse_name(series: SeriesRef) -> Result<u32> {
    let wrong = |_| Error::corrupt("frame", 0, "a ref has more than 32 bits");
    u32::try_from(series.to_u64()).map_err(wrong)
}

/// A sample of a body.
#[derive(Clone, Debug, PartialEq)]
pub enum FrameSample {
    /// A float, against the last one of its ref.
    Float(Float),
    /// A histogram of a ref.
    Histogram(u32, Sample),
}

/// A body's sections.
#[derive(Clone, Debug, Default)]
pub struct Body<'a> {
    /// Unpacked.
    series: Vec<u8>,
    floats: &'a [u8],
    histograms: &'a [u8],
    exemplars: &'a [u8],
}

impl<'a> Body<'a> {
    /// Finds the sections.
    ///
    /// # Errors
    /// When there is one that isn't known, is there twice, is cut short, or doesn't unpack.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut body = Self::default();
        let mut series: &[u8] = &[];
        let mut rest = bytes;
        while let Some((kind, tail)) = rest.split_first() {
            let wrong = |why: &str| Error::corrupt("frame", bytes.len() - tail.len() - 1, why);
            let (length, tail) =
                tail.split_first_chunk::<4>().ok_or_else(|| wrong("a section is cut short"))?;
            let payload = tail.split_at_checked(u32::from_le_bytes(*length) as usize);
            let (payload, tail) = payload.ok_or_else(|| wrong("a section is cut short"))?;
            let section = match *kind {
                SERIES => &mut series,
                FLOATS => &mut body.floats,
                HISTOGRAMS => &mut body.histograms,
                EXEMPLARS => &mut body.exemplars,
                _ => return Err(wrong("a section of unknown kind")),
            };
            if !section.is_empty() {
                return Err(wrong("a section is there twice"));
            }
            *section = payload;
            rest = tail;
        }
        body.series = packed::unpack(series)?;
        Ok(body)
    }

    /// Definitions of refs.
    pub fn series(&self) -> impl Iterator<Item = Result<(u32, Labels)>> {
        Series::new(&self.series)
            .map(|entry| entry.and_then(|(series, labels)| Ok((parse_name(series)?, labels))))
    }

    /// Samples in the order in which they were written; floats are against the dictionary.
    pub fn samples(&self) -> impl Iterator<Item = Result<FrameSample>> + use<'a> {
        InOrder::new(Floats::new(self.floats), Histograms::new(self.histograms)).map(|next| {
            Ok(match next? {
                Next::Float(float) => FrameSample::Float(float),
                Next::Histogram(histogram) => {
                    FrameSample::Histogram(parse_name(histogram.series)?, histogram.sample)
                }
            })
        })
    }

    /// Exemplars.
    pub fn exemplars(&self) -> impl Iterator<Item = Result<(u32, Exemplar)>> + use<'a> {
        Exemplars::new(self.exemplars)
            .map(|entry| entry.and_then(|(series, exemplar)| Ok((parse_name(series)?, exemplar))))
    }
}

#[cfg(test)]
mod tests;
