//! Writing histogram chunks.
//!
//! A sample with buckets that the chunk hasn't makes the chunk be written anew with the buckets of both; one that lacks
//! some of the chunk's gets zeros for them. A change of anything else, or a counter reset, needs a new chunk.
//!
//! A chunk's header says there was a reset only where the sender said so. What follows from the numbers is left to
//! whoever reads: a late sample, or another block's, may yet come between the chunk and the one before, and a header
//! can't be taken back. (Prometheus writes what it derives, and for the same reason believes none of it when it reads:
//! `counterResetHint` in `tsdb/chunkenc/histogram.go`. A header that says nothing means the same to it.)

use super::cell::{Cell, ChunkCount, FloatCell};
use super::decode::{HistogramDecoder, State, values};
use super::header::Header;
use super::layout::Layout;
use crate::Result;
use crate::chunk::bits::BitWriter;
use crate::chunk::varbit::push_varbit_int;
use crate::model::{CounterReset, Histogram, Span, bucket_indexes, is_stale};

/// A chunk isn't written anew to have more buckets than this, unless a sample alone has more: gauges whose buckets
/// wander would make each sample as wide as all of them.
const LAYOUT_BUCKETS_MAX: usize = 1024;

/// The chunk can't take the sample: begin another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewChunk;

/// An open histogram chunk.
#[derive(Clone, Debug)]
pub struct HistogramAppender<C: ChunkCount> {
    writer: BitWriter,
    header: Header,
    /// Of the last sample; `None` in an empty chunk.
    state: Option<State<C>>,
}

impl<C: ChunkCount> HistogramAppender<C> {
    /// An empty chunk, of the encoding with start times or without.
    pub fn new(with_starts: bool) -> Self {
        let header = Header::new(CounterReset::Unknown, with_starts);
        Self { writer: BitWriter::new(&header.bytes()), header, state: None }
    }

    /// Continues a chunk from its bytes.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when they aren't a whole chunk.
    pub fn resume(bytes: &[u8], with_starts: bool) -> Result<Self> {
        let mut decoder = HistogramDecoder::<C>::new(bytes, with_starts)?;
        if decoder.header.count == 0 {
            return Ok(Self::new(with_starts));
        }
        for sample in decoder.by_ref() {
            sample?;
        }
        Ok(Self {
            writer: BitWriter::resume(bytes, decoder.reader.position()),
            header: decoder.header,
            state: Some(decoder.state),
        })
    }

    /// Appends a sample; the start time is dropped where the encoding doesn't keep it.
    ///
    /// # Errors
    /// [`NewChunk`] when this chunk can't take it, and is left as it was; an empty chunk takes any.
    pub fn append(
        &mut self,
        timestamp_ms: i64,
        start_ms: i64,
        histogram: &Histogram<C>,
    ) -> Result<(), NewChunk> {
        if is_stale(histogram.sum) {
            let stale = Histogram {
                sum: histogram.sum,
                counter_reset: histogram.counter_reset,
                ..Histogram::default()
            };
            self.write(timestamp_ms, start_ms, &stale);
            return Ok(());
        }
        if let Some(state) = &self.state {
            self.judge(state, histogram)?;
            if !(covers(&state.layout.positive_spans, &histogram.positive_spans)
                && covers(&state.layout.negative_spans, &histogram.negative_spans))
            {
                self.widen(state.layout.widened(histogram), histogram)?;
            }
        }
        self.write(timestamp_ms, start_ms, histogram);
        Ok(())
    }

    /// Whether the encoding keeps start times.
    pub fn has_starts(&self) -> bool {
        self.header.starts.is_some()
    }

    /// The chunk as it now is.
    pub fn bytes(&self) -> &[u8] {
        self.writer.bytes()
    }

    /// Number of samples.
    pub fn count(&self) -> u16 {
        self.header.count
    }

    /// The newest timestamp, if there is a sample.
    pub fn last_timestamp_ms(&self) -> Option<i64> {
        self.state.as_ref().map(|state| state.timestamp_ms)
    }

    /// The newest sample: timestamp (ms), start time (ms, 0 where it isn't kept), value.
    pub fn last(&self) -> Option<(i64, i64, Histogram<C>)> {
        let state = self.state.as_ref()?;
        let reset = match self.header.reset {
            CounterReset::Gauge => CounterReset::Gauge,
            _ if self.count() > 1 => CounterReset::NotReset,
            CounterReset::Reset => CounterReset::Reset,
            _ => CounterReset::Unknown,
        };
        Some((
            state.timestamp_ms,
            self.header.starts.map_or(0, |starts| starts.start_ms),
            state.histogram(reset),
        ))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let cells = |state: &State<C>| {
            (state.positive.capacity() + state.negative.capacity()) * size_of::<C::Cell>()
                + (state.layout.positive_spans.capacity() + state.layout.negative_spans.capacity())
                    * size_of::<Span>()
        };
        self.writer.capacity_bytes() + self.state.as_ref().map_or(0, cells)
    }

    /// Whether the chunk may go on with `histogram`, whatever its buckets.
    fn judge(&self, state: &State<C>, histogram: &Histogram<C>) -> Result<(), NewChunk> {
        let is_gauge = histogram.counter_reset == CounterReset::Gauge;
        if is_gauge != (self.header.reset == CounterReset::Gauge) || state.is_stale() {
            return Err(NewChunk);
        }
        if is_gauge {
            return if state.layout.suits(histogram) { Ok(()) } else { Err(NewChunk) };
        }
        let [count, zero_count] = state.counts.map(|cell| cell.value(C::default()));
        if histogram.counter_reset == CounterReset::Reset
            || histogram.count < count
            || !state.layout.suits(histogram)
        {
            return Err(NewChunk);
        }
        let shrank = histogram.zero_count < zero_count
            || shrank(
                bucket_indexes(&state.layout.positive_spans).zip(values::<C>(&state.positive)),
                histogram.positive(),
            )
            || shrank(
                bucket_indexes(&state.layout.negative_spans).zip(values::<C>(&state.negative)),
                histogram.negative(),
            );
        if shrank { Err(NewChunk) } else { Ok(()) }
    }

    /// Writes the chunk anew in a wider layout.
    fn widen(&mut self, wider: Layout, histogram: &Histogram<C>) -> Result<(), NewChunk> {
        let (positive, negative) = wider.buckets();
        let own = histogram.positive_buckets.len() + histogram.negative_buckets.len();
        if positive + negative > LAYOUT_BUCKETS_MAX.max(own) {
            return Err(NewChunk);
        }
        let narrow = std::mem::replace(self, Self::new(self.header.starts.is_some()));
        let mut wider = Some(wider);
        let samples = HistogramDecoder::<C>::new(narrow.bytes(), narrow.has_starts());
        for sample in samples.expect("what was written can be read") {
            let (timestamp_ms, start_ms, histogram) = sample.expect("what was written can be read");
            match wider.take() {
                Some(layout) => self.begin(layout, timestamp_ms, start_ms, &histogram),
                None => self.write(timestamp_ms, start_ms, &histogram),
            }
        }
        Ok(())
    }

    /// Writes the first sample, and the layout before it.
    fn begin(&mut self, layout: Layout, timestamp_ms: i64, start_ms: i64, histogram: &Histogram<C>) {
        self.header.reset = match histogram.counter_reset {
            said @ (CounterReset::Gauge | CounterReset::Reset) => said,
            CounterReset::Unknown | CounterReset::NotReset => CounterReset::Unknown,
        };
        let writer = &mut self.writer;
        layout.write(writer);
        push_varbit_int(writer, timestamp_ms);
        let counts = [histogram.count, histogram.zero_count]
            .map(|count| C::Cell::write_first(writer, count, C::default(), false));
        let sum = FloatCell::write_first(writer, histogram.sum, 0.0, false);
        let mut cells = |spans: &[Span], buckets: &mut dyn Iterator<Item = (i32, C)>| {
            let mut left = C::default();
            spread(spans, buckets)
                .map(|count| C::Cell::write_first(writer, count, std::mem::replace(&mut left, count), true))
                .collect()
        };
        let positive = cells(&layout.positive_spans, &mut histogram.positive());
        let negative = cells(&layout.negative_spans, &mut histogram.negative());
        self.state = Some(State { layout, timestamp_ms, delta_ms: 0, counts, sum, positive, negative });
        self.finish(timestamp_ms, i64::MIN, start_ms);
    }

    /// Writes a sample whose buckets the chunk has.
    fn write(&mut self, timestamp_ms: i64, start_ms: i64, histogram: &Histogram<C>) {
        let Some(state) = &mut self.state else {
            return self.begin(Layout::of(histogram), timestamp_ms, start_ms, histogram);
        };
        let writer = &mut self.writer;
        let previous_ms = std::mem::replace(&mut state.timestamp_ms, timestamp_ms);
        let delta_ms = timestamp_ms.wrapping_sub(previous_ms);
        push_varbit_int(writer, delta_ms.wrapping_sub(state.delta_ms));
        state.delta_ms = delta_ms;
        let is_stale = is_stale(histogram.sum);
        for (cell, count) in state.counts.iter_mut().zip([histogram.count, histogram.zero_count]) {
            // A stale sample's counts mean nothing.
            cell.write(writer, if is_stale { cell.cheapest() } else { count }, C::default());
        }
        state.sum.write(writer, histogram.sum, 0.0);
        if !is_stale {
            for (cells, spans, buckets) in [
                (
                    &mut state.positive,
                    &state.layout.positive_spans,
                    &mut histogram.positive() as &mut dyn Iterator<Item = _>,
                ),
                (&mut state.negative, &state.layout.negative_spans, &mut histogram.negative()),
            ] {
                let mut left = C::default();
                for (cell, count) in cells.iter_mut().zip(spread(spans, buckets)) {
                    cell.write(writer, count, left);
                    left = count;
                }
            }
        }
        self.finish(timestamp_ms, previous_ms, start_ms);
    }

    /// What follows every sample: its start time, and the header.
    fn finish(&mut self, timestamp_ms: i64, previous_ms: i64, start_ms: i64) {
        if let Some(starts) = &mut self.header.starts {
            starts.write(&mut self.writer, self.header.count, timestamp_ms, previous_ms, start_ms);
        }
        self.header.count_one();
        *self.writer.header() = self.header.bytes();
    }
}

/// Whether all indexes of `few` are among those of `many`.
fn covers(many: &[Span], few: &[Span]) -> bool {
    let mut many_indexes = bucket_indexes(many);
    many == few || bucket_indexes(few).all(|index| many_indexes.any(|other| other == index))
}

/// The counts of the buckets of `spans`, where `buckets` (ascending, as they are) lack one: 0.
fn spread<C: Copy + Default>(
    spans: &[Span],
    buckets: impl Iterator<Item = (i32, C)>,
) -> impl Iterator<Item = C> {
    let mut buckets = buckets.peekable();
    bucket_indexes(spans).map(move |index| {
        while buckets.next_if(|(i, _)| *i < index).is_some() {}
        buckets.next_if(|(i, _)| *i == index).map_or_else(C::default, |(_, count)| count)
    })
}

/// Whether some bucket of `before` holds less in `now`.
fn shrank<C: ChunkCount>(
    before: impl Iterator<Item = (i32, C)>,
    now: impl Iterator<Item = (i32, C)>,
) -> bool {
    let mut now = now.peekable();
    before.into_iter().any(|(index, count)| {
        while now.next_if(|(i, _)| *i < index).is_some() {}
        now.next_if(|(i, _)| *i == index).map_or_else(C::default, |(_, count)| count) < count
    })
}
