//! Out of a shard: what a cut took, series without samples, chunks that can't be read, files that nobody needs.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};

use super::reference::SeriesRef;
use super::shard::Shard;
use crate::Error;
use crate::model::Labels;

/// A series that was removed since it had no samples.
pub(crate) struct EmptySeries {
    pub(crate) tenant: u32,
    pub(crate) own: SeriesRef,
    pub(crate) labels: Labels,
}

impl Shard {
    /// Removes the series of some slots, given by whole pages, that have no samples and aren't new. Their slots stay
    /// empty until [`Shard::release`]: as long as anybody may find their ids, no other series has them.
    pub(crate) fn remove_empty(&mut self, slots: Range<u32>, removed: &mut Vec<EmptySeries>) {
        let mut gone = Vec::new();
        for (slot, series) in self.slots.iter_mut_in(slots) {
            if series.late.as_ref().is_some_and(|late| late.is_empty()) {
                series.late = None;
            }
            let was_fresh = std::mem::take(&mut series.is_fresh);
            if series.is_empty() && !was_fresh {
                gone.push(slot);
            }
        }
        let mut scratch = Vec::new();
        for slot in gone {
            let Some(series) = self.slots.get(slot) else { continue };
            let labels = self.labels.labels(series.labels, &mut scratch);
            removed.push(EmptySeries { tenant: series.tenant, own: self.ref_of(slot, series), labels });
            self.clear(slot);
        }
    }

    /// Lets the slots of removed series, whose ids nobody finds any more, be taken again.
    pub(crate) fn release(&mut self, removed: &[EmptySeries]) {
        let Self { slots, bits, .. } = self;
        slots.release(removed.iter().map(|series| series.own.local_id() >> *bits));
    }

    /// Forgets what belonged to removed series. Symbols are rebuilt when about half of them may be garbage.
    pub(crate) fn forget_removed(&mut self) {
        if self.removed == 0 {
            return;
        }
        let mut exemplars = std::mem::take(&mut self.exemplars);
        exemplars.retain(|series| self.get(series).is_some());
        self.exemplars = exemplars;
        if self.removed >= self.slots.len() {
            let Self { labels, slots, .. } = self;
            labels.rebuild(slots.iter_mut().map(|(_, series)| &mut series.labels));
            let slots = &self.slots;
            self.by_labels.shrink_to_fit(|s| slots.get(*s).map_or(0, |s| s.hash));
            self.removed = 0;
        }
    }

    /// Removes all series without samples, new ones too, where nobody knows them yet.
    pub(crate) fn drop_empty(&mut self) {
        let mut removed = Vec::new();
        // The first pass passes over series that the replay has just made.
        for _ in 0..2 {
            self.remove_empty(0..self.slots.end(), &mut removed);
        }
        self.release(&removed);
        self.forget_removed();
    }

    /// Seals and marks the late samples of a range of some series; those in order don't change any more.
    pub(crate) fn freeze(&mut self, ids: &[u32], start_ms: i64) {
        let Self { slots, chunks, index, bits, .. } = self;
        for slot in ids.iter().map(|id| id >> *bits) {
            let Some(series) = slots.get_mut(slot) else { continue };
            let own = SeriesRef::new(series.generation, slot << *bits | *index);
            if let Some(late) = &mut series.late {
                late.freeze(start_ms, |finished| chunks.append(own, finished));
            }
        }
    }

    /// The cut came to nothing.
    pub(crate) fn thaw(&mut self, ids: &[u32]) {
        for id in ids {
            if let Some(late) = self.slots.get_mut(id >> self.bits).and_then(|s| s.late.as_mut()) {
                late.thaw();
            }
        }
    }

    /// Drops what a cut of the range took from some series: what is in order, and the frozen late samples.
    pub(crate) fn drop_range(&mut self, ids: &[u32], start_ms: i64) {
        let Self { slots, chunks, bits, .. } = self;
        for id in ids {
            let Some(series) = slots.get_mut(id >> *bits) else { continue };
            series.drop_in_order(start_ms, chunks);
            if let Some(late) = &mut series.late {
                late.drop_frozen(start_ms);
                if late.is_empty() {
                    series.late = None;
                }
            }
        }
    }

    /// Drops what a block took of a tenant's range, when a replay comes to where it was taken.
    pub(crate) fn drop_cut(&mut self, tenant: u32, start_ms: i64) {
        let (bits, index) = (self.bits, self.index);
        let mine = self.slots.iter().filter(|(_, series)| series.tenant == tenant);
        let ids: Vec<u32> = mine.map(|(slot, _)| slot << bits | index).collect();
        self.freeze(&ids, start_ms);
        self.drop_range(&ids, start_ms);
    }

    /// Leaves out finished chunks that can't be read; tells whose they were and which times may be missing.
    pub(crate) fn drop_unreadable(&mut self) -> Vec<(u32, RangeInclusive<i64>, Error)> {
        let mut dropped = Vec::new();
        let Self { slots, chunks, .. } = self;
        for (_, series) in slots.iter_mut() {
            let tenant = series.tenant;
            let mut at = 0;
            while let Some(sealed) = series.sealed.get(at) {
                match chunks.read(sealed.at) {
                    Ok(_) => at += 1,
                    Err(error) => {
                        dropped.push((tenant, series.sealed_times_ms(at), error));
                        series.sealed.remove(at);
                    }
                }
            }
            let Some(late) = &mut series.late else { continue };
            late.sealed.retain(|sealed| match chunks.read(sealed.at) {
                Ok(_) => true,
                Err(error) => {
                    dropped.push((tenant, sealed.min_ms..=sealed.max_ms, error));
                    false
                }
            });
            if late.is_empty() {
                series.late = None;
            }
        }
        dropped
    }

    /// Forgets head-chunk files in which no chunk is left that a series has; see [`HeadChunks::forget`](super::chunks::HeadChunks::forget).
    pub(crate) fn forget_files(&mut self) -> Vec<u32> {
        let mut used = BTreeSet::new();
        for (_, series) in self.slots.iter() {
            used.extend(series.sealed.iter().filter_map(|sealed| self.chunks.file_of(sealed.at)));
            let late = series.late.iter().flat_map(|late| &late.sealed);
            used.extend(late.filter_map(|sealed| self.chunks.file_of(sealed.at)));
        }
        self.chunks.forget(|number| used.contains(&number))
    }
}
