//! The numbered slots in which a shard's series lie.
//!
//! Slots are in pages, so that growing moves nothing, and are used again, the lowest first: what is left after many
//! series went gathers at the front, and pages without a series are given back.

use std::ops::Range;

use roaring::RoaringBitmap;

use super::series::MemSeries;
use crate::prefetch;

/// Slots a page.
pub(crate) const PAGE_SLOTS: u32 = 256;

/// Series by slot.
#[derive(Default)]
pub(crate) struct Slots {
    /// A page is full of series and vacant slots; one that was given back is empty.
    pages: Vec<Box<[MemSeries]>>,
    /// Slots that may be taken. One that was emptied is among them only once it is released.
    free: RoaringBitmap,
    used: usize,
}

impl Slots {
    /// Puts a series into the lowest free slot.
    pub(crate) fn insert(&mut self, series: MemSeries) -> u32 {
        let slot = self.free.min().unwrap_or_else(|| {
            let slot = self.end();
            self.add_page();
            slot
        });
        self.put(slot, series);
        slot
    }

    /// Puts a series of a checkpoint or the WAL into the slot that it had; `false` when that is taken.
    pub(crate) fn insert_at(&mut self, slot: u32, series: MemSeries) -> bool {
        while self.end() <= slot {
            self.add_page();
        }
        let is_free = self.free.contains(slot);
        if is_free {
            self.put(slot, series);
        }
        is_free
    }

    fn put(&mut self, slot: u32, series: MemSeries) {
        let page = &mut self.pages[(slot / PAGE_SLOTS) as usize];
        if page.is_empty() {
            *page = (0..PAGE_SLOTS).map(|_| MemSeries::vacant()).collect();
        }
        page[(slot % PAGE_SLOTS) as usize] = series;
        self.free.remove(slot);
        self.used += 1;
    }

    /// Adds a page behind all others; it takes memory once a series is in it.
    fn add_page(&mut self) {
        let start = self.end();
        self.pages.push(Box::default());
        self.free.insert_range(start..start + PAGE_SLOTS);
    }

    /// Empties a slot; it isn't taken again before it is released.
    pub(crate) fn clear(&mut self, slot: u32) {
        if let Some(series) = self.get_mut(slot) {
            *series = MemSeries::vacant();
            self.used -= 1;
        }
    }

    /// Lets slots that were emptied be taken again, and gives back the pages in which no series is left.
    pub(crate) fn release(&mut self, slots: impl IntoIterator<Item = u32>) {
        for slot in slots {
            self.free.insert(slot);
            self.give_back(slot / PAGE_SLOTS);
        }
    }

    /// Gives back a page if all of its slots are free.
    fn give_back(&mut self, page: u32) {
        let start = page * PAGE_SLOTS;
        if self.free.contains_range(start..start + PAGE_SLOTS) {
            self.pages[page as usize] = Box::default();
        }
    }

    /// The series in a slot, if there is one.
    pub(crate) fn get(&self, slot: u32) -> Option<&MemSeries> {
        let page = self.pages.get((slot / PAGE_SLOTS) as usize)?;
        page.get((slot % PAGE_SLOTS) as usize).filter(|s| !s.is_vacant())
    }

    /// As [`Slots::get`], to change it.
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut MemSeries> {
        let page = self.pages.get_mut((slot / PAGE_SLOTS) as usize)?;
        page.get_mut((slot % PAGE_SLOTS) as usize).filter(|s| !s.is_vacant())
    }

    /// Fetches a slot's series ahead of its use.
    #[inline]
    pub(crate) fn prefetch(&self, slot: u32) {
        let page = self.pages.get((slot / PAGE_SLOTS) as usize);
        if let Some(series) = page.and_then(|page| page.get((slot % PAGE_SLOTS) as usize)) {
            prefetch::value(series);
        }
    }

    /// One more than the last slot's number.
    pub(crate) fn end(&self) -> u32 {
        self.pages.len() as u32 * PAGE_SLOTS
    }

    /// Taken slots in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &MemSeries)> {
        let pages = (0..).step_by(PAGE_SLOTS as usize).zip(&self.pages);
        pages.flat_map(|(start, page)| (start..).zip(page)).filter(|(_, s)| !s.is_vacant())
    }

    /// Taken slots in order, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut MemSeries)> {
        let end = self.end();
        self.iter_mut_in(0..end)
    }

    /// Taken slots of the pages that a range begins and ends with, to change them.
    pub(crate) fn iter_mut_in(&mut self, slots: Range<u32>) -> impl Iterator<Item = (u32, &mut MemSeries)> {
        let page = |slot: u32| (slot / PAGE_SLOTS) as usize;
        let (from, to) = (page(slots.start), page(slots.end).min(self.pages.len()));
        let start = slots.start / PAGE_SLOTS * PAGE_SLOTS;
        let pages = (start..).step_by(PAGE_SLOTS as usize).zip(&mut self.pages[from.min(to)..to]);
        pages.flat_map(|(start, page)| (start..).zip(page)).filter(|(_, s)| !s.is_vacant())
    }

    /// Number of series.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Bytes allocated, without those of the series.
    pub(crate) fn heap_bytes(&self) -> usize {
        let pages: usize = self.pages.iter().map(|page| size_of_val(&**page)).sum();
        pages + self.free.serialized_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::symbols::LabelsAt;

    fn series(generation: u32) -> MemSeries {
        MemSeries::new(1, generation, 0, LabelsAt::default())
    }

    #[test]
    fn slots_are_used_again_and_can_be_named() {
        let mut slots = Slots::default();
        let first = slots.insert(series(0));
        slots.clear(first);
        assert_ne!(slots.insert(series(1)), first, "it isn't released yet");
        slots.release([first]);
        assert_eq!(slots.insert(series(1)), first);
        assert!(slots.insert_at(700, series(2)));
        assert!(!slots.insert_at(700, series(3)));
        assert_eq!(slots.len(), 3);
        assert_eq!(slots.iter().map(|(slot, _)| slot).collect::<Vec<_>>(), [first, first + 1, 700]);
        assert!((0..600).all(|_| slots.insert(series(4)) != 700));
    }

    #[test]
    fn pages_without_series_are_given_back_and_taken_again() {
        let mut slots = Slots::default();
        let one_page = size_of::<MemSeries>() * PAGE_SLOTS as usize;
        let pages = |slots: &Slots| (slots.heap_bytes() - slots.free.serialized_size()) / one_page;
        (0..40 * PAGE_SLOTS).for_each(|i| assert_eq!(slots.insert(series(0)), i));
        assert_eq!(pages(&slots), 40);
        // One is left in every tenth page.
        let gone: Vec<u32> = (0..slots.end()).filter(|slot| slot % (10 * PAGE_SLOTS) != 7).collect();
        gone.iter().for_each(|slot| slots.clear(*slot));
        assert_eq!(pages(&slots), 40, "a slot that isn't released keeps its page");
        slots.release(gone);
        assert_eq!((pages(&slots), slots.len()), (4, 4));
        assert!(slots.iter().all(|(slot, _)| slot % (10 * PAGE_SLOTS) == 7));
        // New ones gather at the front.
        assert!((0..PAGE_SLOTS).all(|_| slots.insert(series(1)) < 2 * PAGE_SLOTS));
        assert_eq!(pages(&slots), 5);
        assert_eq!(slots.iter_mut_in(0..2 * PAGE_SLOTS).count() as u32, PAGE_SLOTS + 1);
        assert_eq!(slots.iter().count(), slots.iter_mut().count());
    }

    /// A checkpoint may have one series far behind, and the WAL all others in an order of its own: a second or so where
    /// finding a free slot is one step, an hour where it is a walk over all free slots.
    #[test]
    fn a_restart_fills_slots_in_any_order_without_walking_over_the_free_ones() {
        let mut slots = Slots::default();
        let count = 300_000;
        assert!(slots.insert_at(2 * count, series(0)));
        (0..count).rev().for_each(|slot| assert!(slots.insert_at(slot, series(0))));
        assert_eq!(slots.len() as u32, count + 1);
    }
}
