//! An open chunk of any encoding that is written.

use std::sync::Arc;

use super::Encoding;
use super::histogram::{ChunkCount, HistogramAppender, NewChunk};
use super::xor::XorAppender;
use super::xor2::Xor2Appender;
use crate::Result;
use crate::model::{Sample, Value};

/// Which encodings are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writes {
    /// XOR and the histograms of Prometheus 2.40: everybody reads them; start times are dropped.
    #[default]
    Classic,
    /// XOR2 and the histograms that keep start times, as Prometheus 3.14 reads them.
    WithStarts,
}

/// A series' open chunk.
#[derive(Clone, Debug)]
pub enum ChunkAppender {
    /// Floats without start times.
    Xor(XorAppender),
    /// Floats with start times.
    Xor2(Box<Xor2Appender>),
    /// Histograms with integer counts.
    Int(Box<HistogramAppender<u64>>),
    /// Histograms with float counts.
    Histogram(Box<HistogramAppender<f64>>),
}

impl ChunkAppender {
    /// A chunk with its first sample.
    pub fn start(writes: Writes, sample: &Sample) -> Self {
        let with_starts = writes == Writes::WithStarts;
        let mut appender = match &sample.value {
            Value::Float(_) if with_starts => Self::Xor2(Box::default()),
            Value::Float(_) => Self::Xor(XorAppender::new()),
            Value::Int(_) => Self::Int(Box::new(HistogramAppender::new(with_starts))),
            Value::Histogram(_) => Self::Histogram(Box::new(HistogramAppender::new(with_starts))),
        };
        appender.append(sample).expect("an empty chunk of its kind takes any sample");
        appender
    }

    /// Continues a chunk from its bytes.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when they aren't a whole chunk of that encoding.
    pub fn resume(encoding: Encoding, bytes: &[u8]) -> Result<Self> {
        let starts = encoding.has_starts();
        Ok(match encoding {
            Encoding::Xor => Self::Xor(XorAppender::resume(bytes)?),
            Encoding::Xor2 => Self::Xor2(Box::new(Xor2Appender::resume(bytes)?)),
            Encoding::Histogram | Encoding::HistogramWithStarts => {
                Self::Int(Box::new(HistogramAppender::resume(bytes, starts)?))
            }
            Encoding::FloatHistogram | Encoding::FloatHistogramWithStarts => {
                Self::Histogram(Box::new(HistogramAppender::resume(bytes, starts)?))
            }
        })
    }

    /// Appends a sample. A start time is dropped where the encoding doesn't keep it.
    ///
    /// # Errors
    /// [`NewChunk`] when this chunk can't take the sample, being of another kind or, for histograms, at a change that
    /// needs one; the chunk is left as it was. Its number of samples and its range are the caller's to bound.
    pub fn append(&mut self, sample: &Sample) -> Result<(), NewChunk> {
        match (self, &sample.value) {
            (Self::Xor(appender), Value::Float(value)) => appender.append(sample.timestamp_ms, *value),
            (Self::Xor2(appender), Value::Float(value)) => {
                appender.append(sample.timestamp_ms, sample.start_ms, *value);
            }
            (Self::Int(appender), Value::Int(histogram)) => {
                appender.append(sample.timestamp_ms, sample.start_ms, histogram)?;
            }
            (Self::Histogram(appender), Value::Histogram(histogram)) => {
                appender.append(sample.timestamp_ms, sample.start_ms, histogram)?;
            }
            _ => return Err(NewChunk),
        }
        Ok(())
    }

    /// The encoding of [`ChunkAppender::bytes`].
    pub fn encoding(&self) -> Encoding {
        match self {
            Self::Xor(_) => Encoding::Xor,
            Self::Xor2(_) => Encoding::Xor2,
            Self::Int(appender) => histogram_encoding(appender),
            Self::Histogram(appender) => histogram_encoding(appender),
        }
    }

    /// The chunk as it now is.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Xor(appender) => appender.bytes(),
            Self::Xor2(appender) => appender.bytes(),
            Self::Int(appender) => appender.bytes(),
            Self::Histogram(appender) => appender.bytes(),
        }
    }

    /// Number of samples.
    pub fn count(&self) -> u16 {
        match self {
            Self::Xor(appender) => appender.count(),
            Self::Xor2(appender) => appender.count(),
            Self::Int(appender) => appender.count(),
            Self::Histogram(appender) => appender.count(),
        }
    }

    /// The newest sample, with its start time where the encoding keeps it; `None` in an empty chunk.
    pub fn last(&self) -> Option<Sample> {
        let sample = |timestamp_ms, start_ms, value| Sample { timestamp_ms, start_ms, value };
        match self {
            Self::Xor(appender) => appender.last().map(|(t, value)| Sample::float(t, value)),
            Self::Xor2(appender) => {
                appender.last().map(|(t, start, value)| sample(t, start, Value::Float(value)))
            }
            Self::Int(appender) => {
                appender.last().map(|(t, start, h)| sample(t, start, Value::Int(Arc::new(h))))
            }
            Self::Histogram(appender) => {
                appender.last().map(|(t, start, h)| sample(t, start, Value::Histogram(Arc::new(h))))
            }
        }
    }

    /// The newest timestamp (ms); `None` in an empty chunk.
    pub fn last_timestamp_ms(&self) -> Option<i64> {
        match self {
            Self::Xor(appender) => appender.last().map(|(t, _)| t),
            Self::Xor2(appender) => appender.last().map(|(t, ..)| t),
            Self::Int(appender) => appender.last_timestamp_ms(),
            Self::Histogram(appender) => appender.last_timestamp_ms(),
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Xor(appender) => appender.heap_bytes(),
            Self::Xor2(appender) => size_of_val(&**appender) + appender.heap_bytes(),
            Self::Int(appender) => size_of_val(&**appender) + appender.heap_bytes(),
            Self::Histogram(appender) => size_of_val(&**appender) + appender.heap_bytes(),
        }
    }
}

fn histogram_encoding<C: ChunkCount>(appender: &HistogramAppender<C>) -> Encoding {
    if appender.has_starts() { C::ENCODING_WITH_STARTS } else { C::ENCODING }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_chunk_is_small() {
        assert!(size_of::<ChunkAppender>() <= 56, "{}", size_of::<ChunkAppender>());
    }

    #[test]
    fn another_kind_needs_a_new_chunk() {
        let mut chunk = ChunkAppender::start(Writes::Classic, &Sample::float(1, 1.0));
        let histogram = Sample { timestamp_ms: 2, start_ms: 0, value: Value::Int(Arc::default()) };
        assert_eq!(chunk.append(&histogram), Err(NewChunk));
        assert_eq!((chunk.count(), chunk.last()), (1, Some(Sample::float(1, 1.0))));
    }
}
