//! A series' open chunk: the one that samples in order go into.

use bytes::Bytes;

use super::rule::{CHUNK_SAMPLES_MAX, Pace, range_start_ms};
use crate::Result;
use crate::chunk::{ChunkAppender, Encoding, Writes};
use crate::model::{Sample, Value};
use crate::select::Chunk;

/// The open chunk and what decides where it ends.
#[derive(Debug)]
pub(crate) struct OpenChunk {
    appender: Option<ChunkAppender>,
    /// Timestamp of the first sample.
    min_ms: i64,
    /// Where the cell of the first sample ends; excluded.
    cell_end_ms: i64,
    pace: Pace,
}

/// A finished chunk, borrowed from the appender that made it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished<'a> {
    pub(crate) encoding: Encoding,
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    pub(crate) bytes: &'a [u8],
}

impl Default for OpenChunk {
    fn default() -> Self {
        Self { appender: None, min_ms: 0, cell_end_ms: i64::MIN, pace: Pace::default() }
    }
}

impl OpenChunk {
    /// Appends a sample newer than all before. Where it begins another chunk, `seal` gets the finished one.
    #[inline]
    pub(crate) fn append(&mut self, sample: &Sample, seal: impl FnOnce(Finished<'_>)) {
        if let (Some(ChunkAppender::Xor(appender)), Value::Float(value)) = (&mut self.appender, &sample.value)
            && sample.timestamp_ms < self.cell_end_ms
            && sample.start_ms == 0
            && appender.count() < CHUNK_SAMPLES_MAX
            && !self.pace.is_open()
        {
            appender.append(sample.timestamp_ms, *value);
            return;
        }
        self.append_slowly(sample, seal);
    }

    /// The same where the rule has to be asked.
    #[cold]
    fn append_slowly(&mut self, sample: &Sample, seal: impl FnOnce(Finished<'_>)) {
        let timestamp_ms = sample.timestamp_ms;
        if let Some(last_ms) = self.last_ms() {
            if range_start_ms(last_ms) != range_start_ms(timestamp_ms) {
                self.pace = Pace::default();
            } else if self.pace.is_open() {
                self.pace.observe(timestamp_ms - last_ms);
                self.cell_end_ms = self.pace.cell_end_ms(self.min_ms);
            }
        }
        if let Some(appender) = &mut self.appender {
            // The first start time begins a chunk that keeps it; one that does takes samples without.
            let keeps = sample.start_ms == 0 || appender.encoding().has_starts();
            if keeps
                && timestamp_ms < self.cell_end_ms
                && appender.count() < CHUNK_SAMPLES_MAX
                && appender.append(sample).is_ok()
            {
                return;
            }
            if let Some(finished) = self.finished() {
                seal(finished);
            }
        }
        let writes = if sample.start_ms == 0 { Writes::Classic } else { Writes::WithStarts };
        self.appender = Some(ChunkAppender::start(writes, sample));
        self.min_ms = timestamp_ms;
        self.cell_end_ms = self.pace.cell_end_ms(timestamp_ms);
    }

    /// Ends the chunk: the next sample begins another. The pace stays as it is.
    pub(crate) fn close(&mut self) {
        self.appender = None;
        self.cell_end_ms = i64::MIN;
    }

    /// What a sealed chunk would be now; `None` while there is no sample.
    pub(crate) fn finished(&self) -> Option<Finished<'_>> {
        let appender = self.appender.as_ref()?;
        let max_ms = appender.last_timestamp_ms()?;
        Some(Finished { encoding: appender.encoding(), min_ms: self.min_ms, max_ms, bytes: appender.bytes() })
    }

    /// A copy of the chunk as it is now.
    pub(crate) fn chunk(&self) -> Option<Chunk> {
        self.finished().map(Finished::to_chunk)
    }

    /// Number of samples.
    pub(crate) fn count(&self) -> u16 {
        self.appender.as_ref().map_or(0, ChunkAppender::count)
    }

    /// Timestamp of the last sample.
    pub(crate) fn last_ms(&self) -> Option<i64> {
        self.appender.as_ref()?.last_timestamp_ms()
    }

    /// The last sample.
    pub(crate) fn last(&self) -> Option<Sample> {
        self.appender.as_ref()?.last()
    }

    /// The newest sample up to a time, where nothing has to be decoded for it: a float, and one of the last two.
    #[inline]
    pub(crate) fn newest_float(&self, end_ms: i64) -> Option<(i64, f64)> {
        let Some(ChunkAppender::Xor(appender)) = &self.appender else { return None };
        let is_before_end = |sample: &(i64, f64)| sample.0 <= end_ms;
        appender.last().filter(is_before_end).or_else(|| appender.before_last().filter(is_before_end))
    }

    /// Bytes allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.appender.as_ref().map_or(0, ChunkAppender::heap_bytes)
    }

    /// The pace of the range, for a checkpoint.
    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    /// Fetches the end of the chunk, where an append goes on.
    #[inline]
    pub(crate) fn prefetch(&self) {
        if let Some(ChunkAppender::Xor(appender)) = &self.appender {
            let bytes = appender.bytes().as_ptr_range();
            crate::prefetch::line(bytes.start);
            crate::prefetch::line(bytes.end);
        }
    }

    /// From a checkpoint: the pace, and the open chunk if there was one.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when the bytes aren't a chunk.
    pub(crate) fn resume(pace: Pace, chunk: Option<Finished<'_>>) -> Result<Self> {
        let Some(chunk) = chunk else { return Ok(Self { pace, ..Self::default() }) };
        Ok(Self {
            appender: Some(ChunkAppender::resume(chunk.encoding, chunk.bytes)?),
            min_ms: chunk.min_ms,
            cell_end_ms: pace.cell_end_ms(chunk.min_ms),
            pace,
        })
    }
}

impl Finished<'_> {
    /// A copy that stands by itself.
    pub(crate) fn to_chunk(self) -> Chunk {
        Chunk {
            min_ms: self.min_ms,
            max_ms: self.max_ms,
            encoding: self.encoding,
            data: Bytes::copy_from_slice(self.bytes),
        }
    }
}

/// Encodes sorted samples, one a timestamp, into the chunks that the rule gives.
pub(crate) fn encode_by_rule(samples: &[Sample]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut open = OpenChunk::default();
    for sample in samples {
        open.append(sample, |finished| chunks.push(finished.to_chunk()));
    }
    chunks.extend(open.chunk());
    chunks
}

#[cfg(test)]
mod tests {
    use super::super::rule::RANGE_MS;
    use super::*;
    use crate::select::Series;

    fn floats(timestamps: impl IntoIterator<Item = i64>) -> Vec<Sample> {
        timestamps.into_iter().map(|t| Sample::float(t, t as f64)).collect()
    }

    fn bounds(chunks: &[Chunk]) -> Vec<(i64, i64)> {
        chunks.iter().map(|c| (c.min_ms, c.max_ms)).collect()
    }

    #[test]
    fn fifteen_seconds_give_half_hours() {
        let chunks = encode_by_rule(&floats((0..480).map(|i| 7_000 + i * 15_000)));
        let half_hour = 30 * 60 * 1000;
        assert_eq!(
            bounds(&chunks),
            (0..4).map(|i| (7_000 + i * half_hour, (i + 1) * half_hour - 8_000)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_chunk_never_leaves_its_range_nor_grows_beyond_240_samples() {
        let mut timestamps: Vec<i64> = (0..5).map(|i| i * 60_000).collect();
        timestamps.extend((0..400).map(|i| 300_000 + i * 1_000));
        timestamps.extend([RANGE_MS - 1, RANGE_MS]);
        let chunks = encode_by_rule(&floats(timestamps));
        let bounds = bounds(&chunks);
        assert_eq!(bounds[0], (0, 534_000));
        assert_eq!(bounds.last(), Some(&(RANGE_MS, RANGE_MS)));
        assert!(bounds.iter().all(|(a, b)| range_start_ms(*a) == range_start_ms(*b)));
    }

    #[test]
    fn resuming_goes_on_as_if_nothing_had_been() {
        let samples = floats((0..700).map(|i| 3_000 + i * 10_000));
        let whole = encode_by_rule(&samples);
        for stop in [1, 2, 4, 5, 6, 89, 90, 91, 600] {
            let mut open = OpenChunk::default();
            let mut chunks = Vec::new();
            for (i, sample) in samples.iter().enumerate() {
                if i == stop {
                    open = OpenChunk::resume(open.pace(), open.finished()).unwrap();
                }
                open.append(sample, |f| chunks.push(f.to_chunk()));
            }
            chunks.extend(open.chunk());
            assert_eq!(chunks, whole, "{stop}");
        }
        let series =
            Series { labels: Default::default(), chunks: whole, deleted_ms: Vec::new(), newest: None };
        assert_eq!(series.samples().unwrap(), samples);
    }
}
