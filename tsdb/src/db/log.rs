//! What goes to the WAL: the log of one shard's share of an append as records.

use smallvec::SmallVec;
use ulid::Ulid;

use crate::Result;
use crate::head::append::{LOG_BYTES_MAX, Log};
use crate::head::coding::Reader;
use crate::head::shard::Shard;
use crate::model::TenantId;
use crate::varint;
use crate::wal::record::exemplars::ExemplarsWriter;
use crate::wal::record::metadata::MetadataWriter;
use crate::wal::record::samples::SamplesWriter;
use crate::wal::record::series::SeriesWriter;
use crate::wal::{Frame, RecordKind, TIMELESS};

/// Records being made; kept from shard to shard of one append.
#[derive(Default)]
pub(super) struct Buffers {
    /// All but the last are full.
    series: Vec<SeriesWriter>,
    samples: SamplesWriter,
    exemplars: ExemplarsWriter,
    metadata: MetadataWriter,
    scratch: Vec<u8>,
}

impl Buffers {
    /// Encodes everything but definitions.
    pub(super) fn encode(&mut self, log: &Log) {
        self.samples.clear();
        log.floats.iter().for_each(|sample| self.samples.push_float(*sample));
        for (floats_before, series, sample) in &log.histograms {
            let is_histogram = self.samples.push_histogram(*floats_before as u64, *series, sample);
            debug_assert!(is_histogram, "floats have a list of their own");
        }
        if self.samples.only_floats().is_none() {
            self.samples.finish();
        }
        self.exemplars.clear();
        log.exemplars.iter().for_each(|(series, exemplar)| self.exemplars.push(*series, exemplar));
        self.metadata.clear();
        log.metadata.iter().for_each(|metadata| self.metadata.push(metadata));
    }

    /// Encodes the definitions that the log asks for.
    pub(super) fn encode_definitions(&mut self, shard: &Shard, log: &Log) {
        self.series.truncate(1);
        self.series.iter_mut().for_each(SeriesWriter::clear);
        for own in &log.definitions {
            let Some(series) = shard.get(*own) else { continue };
            // Behind the beginning of a segment every series of the log has to be defined: more than a record takes.
            if self.series.last().is_none_or(|record| record.payload().len() >= LOG_BYTES_MAX) {
                self.series.push(SeriesWriter::default());
            }
            let record = self.series.last_mut().expect("one was pushed if there was none");
            record.push(*own, &shard.labels.labels(series.labels, &mut self.scratch));
        }
    }

    /// What was encoded, definitions first.
    pub(super) fn frames<'a>(&'a self, tenant: &'a TenantId, shard: u8) -> SmallVec<[Frame<'a>; 4]> {
        let frame = |kind, (min_ms, max_ms), payload| Frame { kind, tenant, shard, min_ms, max_ms, payload };
        let mut frames = SmallVec::new();
        for record in self.series.iter().filter(|record| !record.is_empty()) {
            frames.push(frame(RecordKind::Series, TIMELESS, record.payload()));
        }
        match self.samples.only_floats() {
            Some(floats) if floats.is_empty() => {}
            Some(floats) => frames.push(frame(RecordKind::Floats, floats.times_ms(), floats.payload())),
            None => frames.push(frame(RecordKind::Samples, self.samples.times_ms(), self.samples.payload())),
        }
        if !self.exemplars.is_empty() {
            frames.push(frame(RecordKind::Exemplars, self.exemplars.times_ms(), self.exemplars.payload()));
        }
        if !self.metadata.is_empty() {
            frames.push(frame(RecordKind::Metadata, TIMELESS, self.metadata.payload()));
        }
        frames
    }
}

/// Says that a block takes all that a tenant's series of a shard have, at this place of the WAL, in one range. If the
/// block came to be, a replay drops that here; if not, it goes on as if nothing had been said.
///
/// ```text
/// range's start, ms: zigzag varint | ULID of the block: 16 bytes, big-endian
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CutMark {
    pub(super) start_ms: i64,
    pub(super) block: Ulid,
}

impl CutMark {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        varint::put_signed(&mut bytes, self.start_ms);
        bytes.extend_from_slice(&self.block.0.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new("cut mark", bytes);
        let start_ms = reader.varint()?;
        let block = u128::from_be_bytes(reader.take(16)?.try_into().expect("sixteen bytes were taken"));
        if reader.is_empty() {
            Ok(Self { start_ms, block: Ulid(block) })
        } else {
            Err(reader.wrong("it is too long"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_mark_round_trips() {
        let mark = CutMark { start_ms: -7_200_000, block: Ulid::from_parts(1, 2) };
        let bytes = mark.encode();
        assert_eq!(CutMark::decode(&bytes).unwrap(), mark);
        assert!(CutMark::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
