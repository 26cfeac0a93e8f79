//! Samples into a shard.
//!
//! A sample newer than all of its series goes into the open chunk; any other is compared with what the series has at
//! its time, and put aside unless that is the same or preferred. Series are fetched ahead.

use std::cmp::Ordering;

use super::reference::SeriesRef;
use super::rule::TIMESTAMP_MS_MAX;
use super::series::MemSeries;
use super::shard::{LatePart, Shard};
use super::symbols::LabelsAt;
use crate::chunk::{Decoder, Writes};
use crate::db::{Append, Bounds, Exemplar, Metadata, Outcome};
use crate::model::{Sample, Value, prefer};
use crate::prefetch::{CHUNKS_AHEAD, SERIES_AHEAD};
use crate::wal::record::floats::{self, FloatSample};
use crate::wal::record::histograms::{HISTOGRAM_BYTES_MAX, bytes_max};

/// A log of about this many bytes goes to the WAL before more is appended: what one entry may add keeps each of its
/// records far below [`PAYLOAD_BYTES_MAX`](crate::wal::PAYLOAD_BYTES_MAX), so that no request is too large to be logged
/// once the head has it.
pub(crate) const LOG_BYTES_MAX: usize = 4 << 20;

/// What an append has to tell the WAL.
#[derive(Default)]
pub(crate) struct Log {
    /// Series whose labels the segment needs before their samples.
    pub(crate) definitions: Vec<SeriesRef>,
    pub(crate) floats: Vec<FloatSample>,
    /// With the number of floats that come before.
    pub(crate) histograms: Vec<(usize, SeriesRef, Sample)>,
    pub(crate) exemplars: Vec<(SeriesRef, Exemplar)>,
    pub(crate) metadata: Vec<Metadata>,
    /// Bytes of everything but floats, at most.
    other_bytes: usize,
}

impl Log {
    pub(crate) fn clear(&mut self) {
        self.definitions.clear();
        self.floats.clear();
        self.histograms.clear();
        self.exemplars.clear();
        self.metadata.clear();
        self.other_bytes = 0;
    }

    /// Whether it has to go to the WAL before more is appended.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.floats.len() * floats::SAMPLE_BYTES_MAX + self.other_bytes >= LOG_BYTES_MAX
    }

    /// Adds what a family says of itself.
    pub(crate) fn metadata(&mut self, metadata: &Metadata) {
        let Metadata { family, kind, help, unit } = metadata;
        self.other_bytes +=
            [family, kind, help, unit].map(|text| text.len() + ENTRY_BYTES).iter().sum::<usize>();
        self.metadata.push(metadata.clone());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.floats.is_empty()
            && self.histograms.is_empty()
            && self.exemplars.is_empty()
            && self.metadata.is_empty()
    }

    /// Refs of all samples and exemplars.
    pub(crate) fn series(&self) -> impl Iterator<Item = SeriesRef> {
        let floats = self.floats.iter().map(|sample| sample.series);
        let histograms = self.histograms.iter().map(|(_, series, _)| *series);
        floats.chain(histograms).chain(self.exemplars.iter().map(|(series, _)| *series))
    }

    /// Timestamps of all samples.
    pub(crate) fn timestamps_ms(&self) -> impl Iterator<Item = i64> {
        self.floats
            .iter()
            .map(|s| s.timestamp_ms)
            .chain(self.histograms.iter().map(|(_, _, s)| s.timestamp_ms))
    }

    fn sample(&mut self, series: SeriesRef, sample: &Sample) {
        match &sample.value {
            Value::Float(value) => {
                let Sample { timestamp_ms, start_ms, .. } = *sample;
                self.floats.push(FloatSample { series, timestamp_ms, start_ms, value: *value });
            }
            value => {
                self.other_bytes += bytes_max(value).unwrap_or_default();
                self.histograms.push((self.floats.len(), series, sample.clone()));
            }
        }
    }
}

/// Bytes that an entry takes beside its text, at most: varints, an f64.
const ENTRY_BYTES: usize = 48;

/// Bytes of a definition, at most: each string of the labels may need a longer number than the length that it has
/// there.
fn definition_bytes(labels_bytes: usize) -> usize {
    3 * labels_bytes + ENTRY_BYTES
}

/// What holds for all samples of one append.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    /// Index of the tenant.
    pub(crate) tenant: u32,
    pub(crate) bounds: Bounds,
    /// The tenant's samples before this are in blocks.
    pub(crate) cut_until_ms: i64,
    /// The WAL segment that the log goes to.
    pub(crate) segment: u32,
    /// Whether samples keep their start times.
    pub(crate) writes: Writes,
}

impl Shard {
    /// Appends the samples `order` picks from `batch`, writes each one's outcome, and notes for the WAL what is new. Ends
    /// early where the log is full; tells how many it took.
    #[must_use]
    pub(crate) fn append(
        &mut self,
        terms: Terms,
        batch: &[Append],
        order: &[u32],
        outcomes: &mut [Outcome],
        log: &mut Log,
    ) -> usize {
        let ahead = |i: usize| order.get(i).map(|at| batch[*at as usize].series);
        for (i, at) in order.iter().enumerate() {
            if log.is_full() {
                return i;
            }
            self.prefetch(ahead(i + SERIES_AHEAD), ahead(i + CHUNKS_AHEAD));
            let append = &batch[*at as usize];
            let Append { series, sample } = append;
            outcomes[*at as usize] = if sample.start_ms != 0 && terms.writes == Writes::Classic {
                self.append_one(terms, *series, &Sample { start_ms: 0, ..sample.clone() }, log)
            } else {
                self.append_one(terms, *series, sample, log)
            };
        }
        order.len()
    }

    /// Takes samples that come from the WAL; tells how many of them nobody knows the series of. Those of a series whose
    /// slot has a later one aren't counted: it had been collected, so they are in a block.
    pub(crate) fn replay(&mut self, terms: Terms, batch: &[Append]) -> u64 {
        let ahead = |i: usize| batch.get(i).map(|append| append.series);
        let mut orphans = 0;
        for (i, append) in batch.iter().enumerate() {
            self.prefetch(ahead(i + SERIES_AHEAD), ahead(i + CHUNKS_AHEAD));
            if self.take(terms, append.series, &append.sample) == Outcome::UnknownSeries {
                let later = self.slots.get(self.slot_of(append.series));
                orphans += u64::from(later.is_none_or(|s| s.generation <= append.series.generation()));
            }
        }
        orphans
    }

    /// Fetches a series, and the end of the open chunk of one that was fetched before.
    #[inline]
    fn prefetch(&self, series: Option<SeriesRef>, chunk: Option<SeriesRef>) {
        if let Some(series) = series {
            self.slots.prefetch(self.slot_of(series));
        }
        if let Some(series) = chunk.and_then(|chunk| self.slots.get(self.slot_of(chunk))) {
            series.open.prefetch();
        }
    }

    #[inline]
    fn append_one(&mut self, terms: Terms, own: SeriesRef, sample: &Sample, log: &mut Log) -> Outcome {
        if bytes_max(&sample.value).is_some_and(|bytes| bytes > HISTOGRAM_BYTES_MAX) {
            return Outcome::TooLarge;
        }
        let outcome = self.take(terms, own, sample);
        if outcome == Outcome::Stored {
            log.sample(own, sample);
            let series = self.slots.get_mut(self.slot_of(own)).expect("it has just taken a sample");
            if series.defined_in != terms.segment {
                series.defined_in = terms.segment;
                let labels = series.labels;
                self.define(own, labels, log);
            }
        }
        outcome
    }

    /// Puts a series among those that the segment needs the labels of.
    #[cold]
    fn define(&self, own: SeriesRef, labels: LabelsAt, log: &mut Log) {
        log.definitions.push(own);
        log.other_bytes += definition_bytes(self.labels.encoded_bytes(labels));
    }

    /// Takes a sample without noting it for the WAL, from which it may come.
    #[inline]
    fn take(&mut self, terms: Terms, own: SeriesRef, sample: &Sample) -> Outcome {
        let slot = self.slot_of(own);
        let Some(series) = self.slots.get_mut(slot) else { return Outcome::UnknownSeries };
        if series.generation != own.generation() || series.tenant != terms.tenant {
            return Outcome::UnknownSeries;
        }
        let timestamp_ms = sample.timestamp_ms;
        if timestamp_ms > terms.bounds.max_ms || timestamp_ms > TIMESTAMP_MS_MAX {
            return Outcome::TooFarAhead;
        }
        if timestamp_ms <= series.newest_ms || timestamp_ms < terms.cut_until_ms {
            return self.take_aside(terms, own, sample);
        }
        if timestamp_ms < terms.bounds.in_order_min_ms || timestamp_ms < -TIMESTAMP_MS_MAX {
            return Outcome::TooOld;
        }
        series.append_in_order(own, sample, &mut self.chunks);
        Outcome::Stored
    }

    /// A sample that isn't newer than all of its series, or whose range is cut.
    #[cold]
    fn take_aside(&mut self, terms: Terms, own: SeriesRef, sample: &Sample) -> Outcome {
        let Some(series) = self.get(own) else { return Outcome::UnknownSeries };
        let timestamp_ms = sample.timestamp_ms;
        let is_newest = timestamp_ms > series.newest_ms;
        if !is_newest {
            match self.compare(series, sample) {
                Some(Ordering::Equal) => return Outcome::Duplicate,
                Some(Ordering::Less) => return Outcome::Superseded,
                Some(Ordering::Greater) | None => {}
            }
        }
        let bounds = terms.bounds;
        // At its newest timestamp it is in order too: a cut has put what was there into a block, and it is sent again.
        let is_in_order = timestamp_ms >= series.newest_ms;
        let min_ms = if is_in_order { bounds.in_order_min_ms } else { bounds.out_of_order_min_ms };
        if timestamp_ms < min_ms || timestamp_ms < -TIMESTAMP_MS_MAX {
            return if is_in_order || timestamp_ms < bounds.in_order_min_ms {
                Outcome::TooOld
            } else {
                Outcome::OutOfOrder
            };
        }
        let slot = self.slot_of(own);
        let series = self.slots.get_mut(slot).expect("it was there a moment ago");
        series.append_late(own, sample.clone(), &mut self.chunks);
        Outcome::Stored
    }

    /// A sample against what the series has at its timestamp; `None` when it has nothing there. What can't be read
    /// counts as not there.
    fn compare(&self, series: &MemSeries, sample: &Sample) -> Option<Ordering> {
        let timestamp_ms = sample.timestamp_ms;
        if series.late.is_none()
            && timestamp_ms == series.newest_ms
            && let Some(known) = series.open.last()
            && known.timestamp_ms == timestamp_ms
        {
            return Some(prefer(sample, &known));
        }
        let mut best: Option<Sample> =
            series.late.as_ref().and_then(|late| late.buffered(timestamp_ms).cloned());
        let mut chunks = Vec::new();
        self.collect(series, &(timestamp_ms..=timestamp_ms), LatePart::Sealed, &mut chunks);
        for chunk in &chunks {
            let Ok(samples) = Decoder::new(chunk.encoding, &chunk.data) else { continue };
            let found = samples.map_while(Result::ok).find(|s| s.timestamp_ms >= timestamp_ms);
            if let Some(found) = found.filter(|s| s.timestamp_ms == timestamp_ms) {
                best = Some(match best {
                    Some(best) if prefer(&best, &found).is_ge() => best,
                    _ => found,
                });
            }
        }
        best.map(|known| prefer(sample, &known))
    }

    /// Keeps an exemplar, and notes it for the WAL if it is new.
    pub(crate) fn append_exemplar(
        &mut self,
        tenant: u32,
        segment: u32,
        own: SeriesRef,
        exemplar: &Exemplar,
        log: &mut Log,
    ) {
        let Some(series) = self.get_mut(own).filter(|s| s.tenant == tenant) else { return };
        let (labels, is_defined) = (series.labels, series.defined_in == segment);
        // What isn't new needs nothing in the WAL, no definition either.
        if !self.exemplars.push(own, exemplar.clone()) {
            return;
        }
        log.other_bytes += exemplar.labels.as_bytes().len() + ENTRY_BYTES;
        log.exemplars.push((own, exemplar.clone()));
        if !is_defined {
            self.define(own, labels, log);
            if let Some(series) = self.get_mut(own) {
                series.defined_in = segment;
            }
        }
    }

    /// The WAL moved to another segment before the log got there: it needs all definitions again.
    pub(crate) fn define_again(&mut self, segment: u32, log: &mut Log) {
        let mut definitions = std::mem::take(&mut log.definitions);
        definitions.clear();
        for own in log.series() {
            if let Some(series) = self.get_mut(own)
                && std::mem::replace(&mut series.defined_in, segment) != segment
            {
                definitions.push(own);
            }
        }
        log.definitions = definitions;
    }
}
