//! Reading histogram chunks.

use super::cell::{Cell, ChunkCount, FloatCell};
use super::header::{HEADER_BYTES, Header};
use super::layout::Layout;
use crate::Result;
use crate::chunk::bits::BitReader;
use crate::chunk::varbit::read_varbit_int;
use crate::chunk::xor::check_count;
use crate::model::{CounterReset, Histogram, is_stale};

/// Fewest bits of a sample: timestamp, count, zero count and sum.
const SAMPLE_BITS_MIN: usize = 4;

/// Reads a histogram chunk, sample by sample.
#[derive(Clone, Debug)]
pub struct HistogramDecoder<'a, C: ChunkCount> {
    pub(super) reader: BitReader<'a>,
    pub(super) header: Header,
    pub(super) read: u16,
    pub(super) state: State<C>,
}

/// A histogram chunk's last sample, and what the next is written against.
#[derive(Clone, Debug)]
pub(super) struct State<C: ChunkCount> {
    pub(super) layout: Layout,
    pub(super) timestamp_ms: i64,
    pub(super) delta_ms: i64,
    /// Count and zero count.
    pub(super) counts: [C::Cell; 2],
    pub(super) sum: FloatCell,
    pub(super) positive: Vec<C::Cell>,
    pub(super) negative: Vec<C::Cell>,
}

impl<'a, C: ChunkCount> HistogramDecoder<'a, C> {
    /// Starts on a chunk's bytes, of the encoding without start times or with them.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when they can't hold what they claim.
    pub fn new(bytes: &'a [u8], with_starts: bool) -> Result<Self> {
        let mut reader = BitReader::new(bytes, HEADER_BYTES);
        let Some(header) = bytes.first_chunk() else {
            return Err(reader.corrupt("the chunk is shorter than its header"));
        };
        let header = Header::read(*header, with_starts);
        check_count(header.count, &reader, SAMPLE_BITS_MIN)?;
        let layout = if header.count == 0 { Layout::default() } else { Layout::read(&mut reader)? };
        let state = State {
            layout,
            timestamp_ms: i64::MIN,
            delta_ms: 0,
            counts: [C::Cell::ZERO; 2],
            sum: FloatCell::ZERO,
            positive: Vec::new(),
            negative: Vec::new(),
        };
        Ok(Self { reader, header, read: 0, state })
    }

    /// Reads one sample into the state; the caller has seen that one remains.
    fn step(&mut self) -> Result<()> {
        let (reader, state) = (&mut self.reader, &mut self.state);
        let previous_ms = state.timestamp_ms;
        if self.read == 0 {
            state.timestamp_ms = read_varbit_int(reader);
            state.counts = [(); 2].map(|()| C::Cell::read_first(reader, false));
            state.sum = FloatCell::read_first(reader, false);
            let (positive, negative) = state.layout.buckets();
            state.positive = (0..positive).map(|_| C::Cell::read_first(reader, true)).collect();
            state.negative = (0..negative).map(|_| C::Cell::read_first(reader, true)).collect();
        } else {
            state.delta_ms = state.delta_ms.wrapping_add(read_varbit_int(reader));
            state.timestamp_ms = state.timestamp_ms.wrapping_add(state.delta_ms);
            for cell in &mut state.counts {
                cell.read(reader)?;
            }
            state.sum.read(reader)?;
            if !state.is_stale() {
                for cell in state.positive.iter_mut().chain(&mut state.negative) {
                    cell.read(reader)?;
                }
            }
        }
        if let Some(starts) = &mut self.header.starts {
            starts.read(reader, self.read, state.timestamp_ms, previous_ms)?;
        }
        self.read += 1;
        self.reader.check()
    }

    /// What is known of a reset before the sample just read. That there was none before the chunk isn't trusted, since
    /// late samples may have come between.
    fn reset(&self) -> CounterReset {
        match self.header.reset {
            CounterReset::Gauge => CounterReset::Gauge,
            _ if self.read > 1 => CounterReset::NotReset,
            CounterReset::Reset => CounterReset::Reset,
            CounterReset::Unknown | CounterReset::NotReset => CounterReset::Unknown,
        }
    }
}

impl<C: ChunkCount> Iterator for HistogramDecoder<'_, C> {
    /// Timestamp (ms), start time (ms, 0 = unknown), value.
    type Item = Result<(i64, i64, Histogram<C>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read == self.header.count {
            return None;
        }
        if let Err(error) = self.step() {
            self.read = self.header.count;
            return Some(Err(error));
        }
        let start_ms = self.header.starts.map_or(0, |starts| starts.start_ms);
        Some(Ok((self.state.timestamp_ms, start_ms, self.state.histogram(self.reset()))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.header.count - self.read)))
    }
}

impl<C: ChunkCount> State<C> {
    pub(super) fn is_stale(&self) -> bool {
        is_stale(self.sum.value(0.0))
    }

    /// The last sample.
    pub(super) fn histogram(&self, counter_reset: CounterReset) -> Histogram<C> {
        let sum = self.sum.value(0.0);
        if self.is_stale() {
            return Histogram { sum, counter_reset, ..Histogram::default() };
        }
        let [count, zero_count] = self.counts.map(|cell| cell.value(C::default()));
        Histogram {
            counter_reset,
            schema: self.layout.schema,
            zero_threshold: self.layout.zero_threshold,
            zero_count,
            count,
            sum,
            positive_spans: self.layout.positive_spans.clone(),
            negative_spans: self.layout.negative_spans.clone(),
            positive_buckets: values(&self.positive).collect(),
            negative_buckets: values(&self.negative).collect(),
            custom_values: self.layout.custom_values.clone(),
        }
    }
}

/// What cells that stand side by side hold.
pub(super) fn values<C: ChunkCount>(cells: &[C::Cell]) -> impl Iterator<Item = C> {
    cells.iter().scan(C::default(), |left, cell| {
        *left = cell.value(*left);
        Some(*left)
    })
}
