//! A series' chunks into samples, one a timestamp.
//!
//! Chunks in order are decoded straight into the columns. One that begins before the last ended is merged with the
//! tail that it overlaps: floats in the columns; histograms as samples, since integer counts beyond 2^53 and kinds of
//! samples decide conflicts too and don't survive in columns. So is everything of a series with deletions and histograms:
//! who lost its neighbour has to be seen before counter resets are judged. Masks and the range are applied to the result.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::{Chunk, Series, resets};
use crate::Result;
use crate::chunk::{Columns, Decoder, decode_columns, encode};
use crate::model::{Labels, Sample, prefer, prefer_float};

impl Series {
    /// Encodes samples, which are sorted by time and have one value a timestamp. Start times aren't kept.
    pub fn from_samples(labels: Labels, samples: &[Sample]) -> Self {
        Self { labels, chunks: encode(samples), deleted_ms: Vec::new(), newest: None }
    }

    /// Decodes the samples of a range (milliseconds, both ends included) into `columns`, which are cleared first:
    /// ascending, one sample a timestamp, without what is deleted. Where nobody knows of a counter reset between two
    /// histograms, they are compared; on the first it may be
    /// [`CounterReset::Unknown`](crate::model::CounterReset::Unknown).
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when a chunk is damaged.
    pub fn decode(&self, range_ms: RangeInclusive<i64>, columns: &mut Columns) -> Result<()> {
        columns.clear();
        if let Some((timestamp_ms, value)) = self.newest.filter(|newest| range_ms.contains(&newest.0)) {
            columns.push_float(timestamp_ms, 0, value);
            return Ok(());
        }
        let mut previous: Option<&Chunk> = None;
        let ordered = self.ordered();
        let mut chunks = ordered.iter().filter(|chunk| chunk.overlaps(&range_ms)).peekable();
        while let Some(chunk) = chunks.next() {
            if previous.is_some_and(|p| p.encoding == chunk.encoding && p.data == chunk.data) {
                continue;
            }
            previous = Some(chunk);
            let before = columns.len();
            decode_columns(chunk.encoding, &chunk.data, columns)?;
            let has_histograms = !columns.histograms.is_empty();
            if has_histograms && !self.deleted_ms.is_empty() {
                return self.decode_samples_into(range_ms, columns);
            }
            if !is_ascending(&columns.timestamps[before.saturating_sub(1)..]) {
                if has_histograms {
                    return self.decode_samples_into(range_ms, columns);
                }
                merge_floats(columns, before);
            }
            judge_join(columns, before);
            let ends_alone = chunks.peek().is_none_or(|next| chunk.max_ms < next.min_ms);
            if before == 0 && ends_alone && columns.histograms.is_empty() {
                // What lies before the range goes while little has to be moved for it. Of histograms, it may yet tell
                // of a reset; and of chunks that overlap, it tells that they are the same.
                drop_before(columns, *range_ms.start());
            }
        }
        remove_deleted(columns, &self.deleted_ms);
        trim(columns, &range_ms);
        Ok(())
    }

    /// All samples, ascending, one a timestamp, without what is deleted; integer histograms as they are.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when a chunk is damaged.
    pub fn samples(&self) -> Result<Vec<Sample>> {
        self.samples_in(&(i64::MIN..=i64::MAX))
    }

    /// All samples as they were sent, for whoever encodes them anew or sends them on: ascending, one a timestamp, without
    /// what is deleted. Counter resets that follow from the numbers alone aren't marked; see [`Series::samples`].
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when a chunk is damaged.
    pub fn samples_as_sent(&self) -> Result<Vec<Sample>> {
        let placed = self.placed_samples(&(i64::MIN..=i64::MAX))?;
        Ok(placed.into_iter().map(|(_, sample)| sample).collect())
    }

    fn decode_samples_into(&self, range_ms: RangeInclusive<i64>, columns: &mut Columns) -> Result<()> {
        columns.clear();
        for sample in self.samples_in(&range_ms)? {
            if range_ms.contains(&sample.timestamp_ms) {
                columns.push(&sample);
            }
        }
        Ok(())
    }

    /// The samples of all chunks that overlap the range.
    fn samples_in(&self, range_ms: &RangeInclusive<i64>) -> Result<Vec<Sample>> {
        Ok(judge_resets(self.placed_samples(range_ms)?))
    }

    /// The same with their place among what the chunks gave, and what these say of counter resets.
    fn placed_samples(&self, range_ms: &RangeInclusive<i64>) -> Result<Vec<(usize, Sample)>> {
        // With places, to see later who lost its neighbour.
        let mut placed: Vec<(usize, Sample)> = Vec::new();
        for chunk in self.ordered().iter().filter(|chunk| chunk.overlaps(range_ms)) {
            for sample in Decoder::new(chunk.encoding, &chunk.data)? {
                placed.push((placed.len(), sample?));
            }
        }
        if !placed.is_sorted_by(|(_, a), (_, b)| a.timestamp_ms < b.timestamp_ms) {
            placed = merge_samples(placed);
        }
        let mut masks = Masks::new(&self.deleted_ms);
        placed.retain(|(_, sample)| !masks.hides(sample.timestamp_ms));
        Ok(placed)
    }

    /// The chunks by their first timestamp.
    fn ordered(&self) -> Cow<'_, [Chunk]> {
        if self.chunks.is_sorted_by_key(|chunk| chunk.min_ms) {
            return Cow::Borrowed(&self.chunks);
        }
        let mut chunks = self.chunks.clone();
        chunks.sort_by_key(|chunk| chunk.min_ms);
        Cow::Owned(chunks)
    }
}

impl Chunk {
    /// Whether a range (both ends included) may hold samples of this chunk.
    pub fn overlaps(&self, range_ms: &RangeInclusive<i64>) -> bool {
        self.min_ms <= *range_ms.end() && *range_ms.start() <= self.max_ms
    }
}

/// Deleted ranges, asked in ascending order of time.
struct Masks {
    /// Sorted by start.
    ranges_ms: Vec<(i64, i64)>,
    /// The first that may still end ahead.
    next: usize,
}

impl Masks {
    fn new(deleted_ms: &[RangeInclusive<i64>]) -> Self {
        let mut ranges_ms: Vec<_> = deleted_ms.iter().map(|range| (*range.start(), *range.end())).collect();
        ranges_ms.sort_unstable();
        // Where one range holds the next, the next must not end before it.
        for i in 1..ranges_ms.len() {
            ranges_ms[i].1 = ranges_ms[i].1.max(ranges_ms[i - 1].1);
        }
        Self { ranges_ms, next: 0 }
    }

    /// Whether a sample at this time is deleted; times must not descend between calls.
    fn hides(&mut self, timestamp_ms: i64) -> bool {
        while self.ranges_ms.get(self.next).is_some_and(|(_, end)| *end < timestamp_ms) {
            self.next += 1;
        }
        self.ranges_ms.get(self.next).is_some_and(|(start, _)| *start <= timestamp_ms)
    }
}

fn is_ascending(timestamps: &[i64]) -> bool {
    timestamps.is_sorted_by(|a, b| a < b)
}

/// Merges the floats from `before` on, a whole chunk, with those that they overlap.
fn merge_floats(columns: &mut Columns, before: usize) {
    let run = &columns.timestamps[before..];
    let Some(first_ms) = run.iter().copied().min() else { return };
    let from = columns.timestamps[..before].partition_point(|timestamp_ms| *timestamp_ms < first_ms);
    // Replicas hold the same samples in chunks of other ends: nearly always there is nothing to decide.
    let shared = (before - from).min(run.len());
    if is_ascending(run) && columns.is_same_run(from..from + shared, before..before + shared) {
        columns.remove(before..before + shared);
        return;
    }
    let start = |i| columns.starts.get(i).copied().unwrap_or(0);
    let mut tail: Vec<_> =
        (from..columns.len()).map(|i| (columns.timestamps[i], columns.values[i], start(i))).collect();
    // Stable, and linear where there are two ascending runs, as there nearly always are.
    tail.sort_by_key(|(timestamp_ms, ..)| *timestamp_ms);
    columns.truncate(from);
    for same_time in tail.chunk_by(|a, b| a.0 == b.0 && !planted::is(planted::Bug::BothSamplesKept)) {
        let best = same_time.iter().copied().reduce(|best, next| {
            if prefer_float(next.1, best.1).then(next.2.cmp(&best.2)).is_gt() { next } else { best }
        });
        if let Some((timestamp_ms, value, start_ms)) = best {
            columns.push_float(timestamp_ms, start_ms, value);
        }
    }
}

/// Sorts samples that chunks gave one after the other, and keeps one a timestamp.
fn merge_samples(mut placed: Vec<(usize, Sample)>) -> Vec<(usize, Sample)> {
    placed.sort_by_key(|(_, sample)| sample.timestamp_ms);
    let mut merged: Vec<(usize, Sample)> = Vec::with_capacity(placed.len());
    for (place, sample) in placed {
        match merged.last_mut() {
            Some((kept_place, kept)) if kept.timestamp_ms == sample.timestamp_ms => {
                if prefer(&sample, kept).is_gt() {
                    (*kept_place, *kept) = (place, sample);
                }
            }
            _ => merged.push((place, sample)),
        }
    }
    merged
}

/// Judges counter resets wherever a histogram follows another sample than in its chunk.
fn judge_resets(placed: Vec<(usize, Sample)>) -> Vec<Sample> {
    let mut previous_place = None;
    let mut samples: Vec<Sample> = Vec::with_capacity(placed.len());
    for (place, mut sample) in placed {
        let has_moved = previous_place.map_or(place != 0, |previous: usize| previous + 1 != place);
        if has_moved || resets::is_unknown(&sample.value) {
            resets::judge(&mut sample.value, samples.last().map(|previous| &previous.value));
        }
        previous_place = Some(place);
        samples.push(sample);
    }
    samples
}

fn remove_deleted(columns: &mut Columns, deleted_ms: &[RangeInclusive<i64>]) {
    if deleted_ms.is_empty() {
        return;
    }
    let mut masks = Masks::new(deleted_ms);
    let mut kept = 0;
    for i in 0..columns.len() {
        if !masks.hides(columns.timestamps[i]) {
            columns.move_to(i, kept);
            kept += 1;
        }
    }
    columns.truncate(kept);
}

/// Judges a counter reset between a chunk that begins at `at` and the sample before.
fn judge_join(columns: &mut Columns, at: usize) {
    if at == 0 || at >= columns.histograms.len() {
        return;
    }
    let (before, after) = columns.histograms.split_at_mut(at);
    if let Some(now) = &mut after[0] {
        resets::judge_histogram(now, before.last().and_then(Option::as_ref));
    }
}

/// Drops what lies outside the range.
fn trim(columns: &mut Columns, range_ms: &RangeInclusive<i64>) {
    let end = columns.timestamps.partition_point(|timestamp_ms| timestamp_ms <= range_ms.end());
    columns.truncate(end);
    drop_before(columns, *range_ms.start());
}

fn drop_before(columns: &mut Columns, start_ms: i64) {
    let before = columns.timestamps.partition_point(|timestamp_ms| *timestamp_ms < start_ms);
    columns.remove(0..before);
}

#[cfg(test)]
mod tests;
