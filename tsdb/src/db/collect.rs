//! Series without samples out of the head: those that a cut emptied, and those whose samples were all refused.
//!
//! A *pass* goes through the slots of all shards, some of them each time that maintenance runs, and from beginning to end
//! after a cut. No lock is held for more than a slice of them:
//!
//! 1. Under the shard's lock, the empty series of [`SLICE_SLOTS`] slots are removed. A new one is passed over once: whoever
//!    made it is about to append.
//! 2. Under the tenant's lock, postings forget them, [`POSTINGS_PER_LOCK`] at a time.
//! 3. Under the shard's lock again, their slots may be taken, and the generation is raised. Whoever read the generation
//!    before, and may know an id from postings, notices that the series in the slot is a later one; whoever reads it
//!    afterwards doesn't find the id.
//!
//! When a pass ends, keys, exemplars and symbols of what is gone are forgotten.

use std::sync::atomic::Ordering;

use super::Db;
use crate::head::SeriesRef;
use crate::head::dropping::EmptySeries;

/// Slots that are looked at under one hold of a shard's lock: a millisecond or so where all are removed.
const SLICE_SLOTS: u32 = 1_024;
/// Series that postings forget under one hold of their lock.
const POSTINGS_PER_LOCK: usize = 256;
/// Slots that one maintenance looks at, but after a cut.
const STEP_SLOTS: u32 = 128 * 1_024;
/// Monotonic time between the beginnings of two passes, in milliseconds.
pub(super) const PASS_WAIT_MS: u64 = 60_000;

/// How far a pass is.
#[derive(Debug, Default)]
pub(super) struct Collection {
    /// Shard and slot to go on with; `None` = no pass is under way.
    next: Option<(usize, u32)>,
    /// When the last pass began, by monotonic time.
    begun_ms: Option<u64>,
    /// What it has removed.
    gone: Vec<SeriesRef>,
}

impl Db {
    /// Goes on with a pass, or begins one where it is time to. Returns how many series were removed.
    pub(super) fn collect_some(&self, collection: &mut Collection, elapsed_ms: u64) -> u64 {
        if collection.next.is_none() {
            let is_early = |begun_ms| elapsed_ms.saturating_sub(begun_ms) < PASS_WAIT_MS;
            if collection.begun_ms.is_some_and(is_early) {
                return 0;
            }
            (collection.next, collection.begun_ms) = (Some((0, 0)), Some(elapsed_ms));
        }
        self.collect_slots(collection, STEP_SLOTS)
    }

    /// Makes a whole pass. Returns how many series were removed.
    pub(super) fn collect_all(&self, collection: &mut Collection) -> u64 {
        // What the pass under way has removed is forgotten with this one.
        collection.next = Some((0, 0));
        self.collect_slots(collection, u32::MAX)
    }

    /// Goes on with a pass for about so many slots.
    fn collect_slots(&self, collection: &mut Collection, mut slots: u32) -> u64 {
        let mut count = 0;
        while let Some((index, slot)) = collection.next.filter(|_| slots > 0) {
            slots = slots.saturating_sub(SLICE_SLOTS);
            let Some(shard) = self.core.shards.get(index) else {
                self.end_pass(collection);
                break;
            };
            let mut removed = Vec::new();
            let end = {
                let mut shard = shard.write();
                shard.remove_empty(slot..slot + SLICE_SLOTS, &mut removed);
                shard.slots.end()
            };
            if !removed.is_empty() {
                self.forget_postings(&mut removed);
                let mut shard = shard.write();
                shard.release(&removed);
                self.core.generation.fetch_add(1, Ordering::AcqRel);
            }
            count += removed.len() as u64;
            collection.gone.extend(removed.iter().map(|series| series.own));
            let behind = slot + SLICE_SLOTS;
            collection.next = Some(if behind < end { (index, behind) } else { (index + 1, 0) });
        }
        count
    }

    fn forget_postings(&self, removed: &mut [EmptySeries]) {
        removed.sort_unstable_by_key(|series| (series.tenant, series.own));
        for of_tenant in removed.chunk_by(|a, b| a.tenant == b.tenant) {
            let Some(tenant) = self.tenant_at(of_tenant[0].tenant) else { continue };
            for some in of_tenant.chunks(POSTINGS_PER_LOCK) {
                let mut postings = tenant.postings.write();
                some.iter().for_each(|series| postings.remove(series.own.local_id(), &series.labels));
            }
            tenant.counters.collected.fetch_add(of_tenant.len() as u64, Ordering::Relaxed);
        }
    }

    fn end_pass(&self, collection: &mut Collection) {
        collection.next = None;
        let mut gone = std::mem::take(&mut collection.gone);
        if gone.is_empty() {
            return;
        }
        gone.sort_unstable();
        self.core.keys.retain(|series| gone.binary_search(&series).is_err());
        self.core.shards.iter().for_each(|shard| shard.write().forget_removed());
    }
}
