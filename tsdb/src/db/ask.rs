//! Questions to one tenant: from the head first, then from the blocks there are by then.
//!
//! A cut makes its block visible before it empties the head. Whoever asks the head first may therefore meet a sample
//! twice, which decoding sets right, but never misses one that was there before; [`Tenant::view`] sees to what comes
//! meanwhile.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use roaring::RoaringBitmap;
use ulid::Ulid;

use super::order::Visits;
use super::ranges::overlaps;
use super::tenant::Tenant;
use super::types::{Metadata, SeriesExemplars};
use crate::block::Block;
use crate::head::series::MemSeries;
use crate::head::shard::{LatePart, Shard};
use crate::index::postings::find;
use crate::model::{Labels, METRIC_NAME, MatchOp, Matcher};
use crate::prefetch::{CHUNKS_AHEAD, SERIES_AHEAD};
use crate::select::{Select, Series, merge_series};
use crate::{Error, Result};

/// Series read under one hold of a shard's lock, so that writers wait no longer than about 100 µs.
const SERIES_PER_LOCK: usize = 256;

/// Leaves out none.
pub(super) const EVERY_BLOCK: fn(Ulid) -> bool = |_| false;

impl Tenant {
    /// The series that match and have chunks in the range: by labels, with their chunks as they are.
    ///
    /// # Errors
    /// [`Error::Invalid`] for matchers that all pass the empty string; [`Error::Corrupt`] when stored data can't be
    /// read: a damaged head chunk is taken out, and reported, by the next maintenance.
    pub fn select(&self, select: &Select) -> Result<Vec<Series>> {
        self.select_without(select, &EVERY_BLOCK)
    }

    /// As [`Tenant::select`], without the blocks that `skip` names: whoever asks reads those elsewhere.
    ///
    /// # Errors
    /// Those of [`Tenant::select`].
    pub fn select_without(&self, select: &Select, skip: &dyn Fn(Ulid) -> bool) -> Result<Vec<Series>> {
        if select.matchers.iter().all(Matcher::matches_empty) {
            return Err(no_matcher());
        }
        let (in_head, blocks) =
            self.view(&select.range_ms, skip, || self.select_head(select, &mut |_| true))?;
        let mut sources = vec![in_head];
        for block in blocks {
            sources.push(block.select(select)?);
        }
        merge_series(sources)
    }

    /// What `look` finds in the head, and the blocks of a range that belong to it.
    ///
    /// A block that appears after the head was looked at may hold samples that came in between, while older ones of
    /// their series, as new, are in the head still: an answer of both would have a gap. So where blocks came or went
    /// meanwhile, the head is looked at once more, and none may come or go until that is done.
    pub(super) fn view<T>(
        &self,
        range_ms: &RangeInclusive<i64>,
        skip: &dyn Fn(Ulid) -> bool,
        mut look: impl FnMut() -> Result<T>,
    ) -> Result<(T, Vec<Block>)> {
        let before = self.blocks.load_full();
        let found = look()?;
        let blocks = self.blocks_in(range_ms, skip);
        if Arc::ptr_eq(&before, &self.blocks.load()) {
            return Ok((found, blocks));
        }
        let _gate = self.blocks_gate.read();
        Ok((look()?, self.blocks_in(range_ms, skip)))
    }

    /// The head's part of an answer, of the series of which `wanted` accepts the labels. Without matchers, of all.
    ///
    /// # Errors
    /// [`Error::Corrupt`] as [`Tenant::select`].
    pub(super) fn select_head(
        &self,
        select: &Select,
        wanted: &mut dyn FnMut(&Labels) -> bool,
    ) -> Result<Vec<Series>> {
        let mut series = Vec::new();
        let mut scratch = Vec::new();
        let mut damaged = None;
        self.visit(&select.matchers, Some(&select.range_ms), &mut |shard, found| {
            let is_here = select.shard.is_none_or(|s| found.hash % s.count == s.index);
            if !is_here || !found.may_overlap(&select.range_ms) {
                return;
            }
            let labels = shard.labels.labels(found.labels, &mut scratch);
            if !wanted(&labels) {
                return;
            }
            let mut chunks = Vec::new();
            damaged =
                shard.collect(found, &select.range_ms, LatePart::All, &mut chunks).pop().or(damaged.take());
            if !chunks.is_empty() {
                series.push(Series { labels, chunks, deleted_ms: Vec::new(), newest: None });
            }
        })?;
        match damaged {
            None => Ok(sorted(series)),
            Some(error) => {
                self.core.suspect.store(true, Ordering::Release);
                Err(error)
            }
        }
    }

    /// Label names, sorted, of the series that match, or of all without matchers. Blocks and the head count as a
    /// whole: a name may belong to a series without a sample in the range. At most `limit`; 0 = all.
    ///
    /// # Errors
    /// Those of [`Tenant::select`].
    pub fn label_names(
        &self,
        matchers: &[Matcher],
        range_ms: RangeInclusive<i64>,
        limit: usize,
    ) -> Result<Vec<String>> {
        self.label_names_without(matchers, range_ms, limit, &EVERY_BLOCK)
    }

    /// As [`Tenant::label_names`], without the blocks that `skip` names.
    ///
    /// # Errors
    /// Those of [`Tenant::select`].
    pub fn label_names_without(
        &self,
        matchers: &[Matcher],
        range_ms: RangeInclusive<i64>,
        limit: usize,
        skip: &dyn Fn(Ulid) -> bool,
    ) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        if self.head_overlaps(&range_ms) {
            let postings = self.postings.read();
            if matchers.is_empty() {
                names.extend(postings.names().map(str::to_owned));
            } else {
                let ids = find(&*postings, matchers)?;
                names.extend(postings.names_of(&ids).map(str::to_owned));
            }
        }
        for block in self.blocks_in(&range_ms, skip) {
            names.extend(block.label_names(matchers)?);
        }
        Ok(limited(names, limit))
    }

    /// Values of a label, sorted; otherwise as [`Tenant::label_names`].
    ///
    /// # Errors
    /// Those of [`Tenant::select`].
    pub fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range_ms: RangeInclusive<i64>,
        limit: usize,
    ) -> Result<Vec<String>> {
        self.label_values_without(name, matchers, range_ms, limit, &EVERY_BLOCK)
    }

    /// As [`Tenant::label_values`], without the blocks that `skip` names.
    ///
    /// # Errors
    /// Those of [`Tenant::select`].
    pub fn label_values_without(
        &self,
        name: &str,
        matchers: &[Matcher],
        range_ms: RangeInclusive<i64>,
        limit: usize,
        skip: &dyn Fn(Ulid) -> bool,
    ) -> Result<Vec<String>> {
        let mut values = BTreeSet::new();
        if self.head_overlaps(&range_ms) {
            let postings = self.postings.read();
            if matchers.is_empty() {
                values.extend(postings.values(name).map(|(value, _)| value.to_owned()));
            } else {
                let ids = find(&*postings, matchers)?;
                values.extend(postings.values_of(name, &ids).map(str::to_owned));
            }
        }
        for block in self.blocks_in(&range_ms, skip) {
            values.extend(block.label_values(name, matchers)?);
        }
        Ok(limited(values, limit))
    }

    /// Labels of the series that match and have a chunk that overlaps the range, sorted. At most `limit`; 0 = all. As in
    /// Prometheus, a stale marker is a sample like others: a series ends with it.
    ///
    /// # Errors
    /// Those of [`Tenant::select`].
    pub fn series(
        &self,
        matchers: &[Matcher],
        range_ms: RangeInclusive<i64>,
        limit: usize,
    ) -> Result<Vec<Labels>> {
        self.series_without(matchers, range_ms, limit, &EVERY_BLOCK)
    }

    /// As [`Tenant::series`], without the blocks that `skip` names.
    ///
    /// # Errors
    /// Those of [`Tenant::select`].
    pub fn series_without(
        &self,
        matchers: &[Matcher],
        range_ms: RangeInclusive<i64>,
        limit: usize,
        skip: &dyn Fn(Ulid) -> bool,
    ) -> Result<Vec<Labels>> {
        if matchers.iter().all(Matcher::matches_empty) {
            return Err(no_matcher());
        }
        let mut all = BTreeSet::new();
        let mut scratch = Vec::new();
        self.visit(matchers, None, &mut |shard, found| {
            if found.may_overlap(&range_ms) && shard.has_chunk_in(found, &range_ms) {
                all.insert(shard.labels.labels(found.labels, &mut scratch));
            }
        })?;
        for block in self.blocks_in(&range_ms, skip) {
            all.extend(block.series(matchers, &range_ms)?);
        }
        Ok(limited(all, limit))
    }

    /// Calls `each` with the labels of every series of the head, in any order.
    ///
    /// # Errors
    /// None, as things are; those of [`Tenant::select`].
    pub fn head_series(&self, each: &mut dyn FnMut(&Labels)) -> Result<()> {
        let named = Matcher::new(MatchOp::NotEqual, METRIC_NAME, "")?;
        let mut scratch = Vec::new();
        self.visit(&[named], None, &mut |shard, found| {
            each(&shard.labels.labels(found.labels, &mut scratch));
        })
    }

    /// Exemplars of the series that match, in a range: by labels, then time.
    ///
    /// # Errors
    /// Those of [`Tenant::select`].
    pub fn exemplars(
        &self,
        matchers: &[Matcher],
        range_ms: RangeInclusive<i64>,
    ) -> Result<Vec<SeriesExemplars>> {
        let ids = find(&*self.postings.read(), matchers)?;
        let mut found: Vec<SeriesExemplars> = Vec::new();
        let mut scratch = Vec::new();
        for shard in &self.core.shards {
            let shard = shard.read();
            let mut mine: Vec<_> = shard
                .exemplars
                .iter()
                .filter(|(own, e)| ids.contains(own.local_id()) && range_ms.contains(&e.timestamp_ms))
                .collect();
            mine.sort_by_key(|(own, e)| (*own, e.timestamp_ms));
            for of_series in mine.chunk_by(|a, b| a.0 == b.0) {
                let Some(series) = shard.get(of_series[0].0).filter(|s| s.tenant == self.index) else {
                    continue;
                };
                let labels = shard.labels.labels(series.labels, &mut scratch);
                found.push(SeriesExemplars {
                    labels,
                    exemplars: of_series.iter().map(|(_, e)| e.clone()).collect(),
                });
            }
        }
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(found)
    }

    /// Metadata of one family, or of all, by family. At most `limit`; 0 = all.
    pub fn metadata(&self, family: Option<&str>, limit: usize) -> Vec<Metadata> {
        let mut found = Vec::new();
        for shard in &self.core.shards {
            let shard = shard.read();
            let mine = shard.metadata.iter().filter(|(tenant, _)| *tenant == self.index).map(|(_, m)| m);
            found.extend(mine.filter(|m| family.is_none_or(|f| m.family == f)).cloned());
        }
        found.sort_by(|a, b| a.family.cmp(&b.family));
        if limit > 0 {
            found.truncate(limit);
        }
        found
    }

    /// Calls `visit` with every series of the head that matches, while its shard's lock is held. Without matchers, with
    /// all. What `visit` reads of labels and of chunks in a range, if of any, is fetched ahead.
    pub(super) fn visit(
        &self,
        matchers: &[Matcher],
        chunks_ms: Option<&RangeInclusive<i64>>,
        visit: &mut dyn FnMut(&Shard, &MemSeries),
    ) -> Result<()> {
        // Before the look-up: a slot that is emptied and taken again afterwards has a later generation.
        let generation = self.core.generation.load(Ordering::Acquire);
        let ids = find(&*self.postings.read(), matchers)?;
        let mut visits = self.visits(ids);
        self.visit_in_order(&mut visits, chunks_ms, visit);
        self.visit_others(&visits.others, generation, chunks_ms, visit);
        Ok(())
    }

    /// Calls `visit` with the series whose order is known; those that are gone go to the others.
    pub(super) fn visit_in_order(
        &self,
        visits: &mut Visits,
        chunks_ms: Option<&RangeInclusive<i64>>,
        visit: &mut dyn FnMut(&Shard, &MemSeries),
    ) {
        for ids in visits.ordered.chunks(SERIES_PER_LOCK) {
            let shards: Vec<_> = self.core.shards.iter().map(|shard| shard.read()).collect();
            let shard_of = |id: u32| &*shards[id as usize & (shards.len() - 1)];
            for (i, id) in ids.iter().enumerate() {
                let ahead = |by: usize| ids.get(i + by).map(|id| (shard_of(*id), *id));
                prefetch(ahead, chunks_ms);
                match shard_of(*id).by_id(*id, visits.generation) {
                    Some((_, series)) if series.tenant == self.index => visit(shard_of(*id), series),
                    // Gone, or another series by now.
                    _ => drop(visits.others.insert(*id)),
                }
            }
        }
    }

    /// Calls `visit` with series that were made up to a generation, shard by shard.
    pub(super) fn visit_others(
        &self,
        ids: &RoaringBitmap,
        generation: u32,
        chunks_ms: Option<&RangeInclusive<i64>>,
        visit: &mut dyn FnMut(&Shard, &MemSeries),
    ) {
        for (index, ids) in self.by_shard(ids).iter().enumerate() {
            for ids in ids.chunks(SERIES_PER_LOCK) {
                let shard = self.core.shards[index].read();
                for (i, id) in ids.iter().enumerate() {
                    prefetch(|by| ids.get(i + by).map(|id| (&*shard, *id)), chunks_ms);
                    if let Some((_, series)) = shard.by_id(*id, generation)
                        && series.tenant == self.index
                    {
                        visit(&shard, series);
                    }
                }
            }
        }
    }

    /// Ids by shard, ascending.
    pub(super) fn by_shard(&self, ids: &RoaringBitmap) -> Vec<Vec<u32>> {
        let shards = self.core.shards.len();
        let each = ids.len() as usize / shards + 1;
        let mut by_shard: Vec<Vec<u32>> = (0..shards).map(|_| Vec::with_capacity(each)).collect();
        ids.iter().for_each(|id| by_shard[id as usize & (shards - 1)].push(id));
        by_shard
    }

    fn head_overlaps(&self, range_ms: &RangeInclusive<i64>) -> bool {
        overlaps(self.ranges.oldest_ms(), self.newest_ms.load(Ordering::Acquire), range_ms)
    }

    /// A block of this node, if it is here: what else asks for it alone needs no other way to it.
    pub fn block(&self, ulid: Ulid) -> Option<Block> {
        self.blocks.load().iter().find(|block| block.meta().ulid == ulid).cloned()
    }

    pub(super) fn blocks_in(
        &self,
        range_ms: &RangeInclusive<i64>,
        skip: &dyn Fn(Ulid) -> bool,
    ) -> Vec<Block> {
        let blocks = self.blocks.load();
        let overlaps = |b: &&Block| b.meta().min_ms <= *range_ms.end() && *range_ms.start() < b.meta().max_ms;
        blocks.iter().filter(overlaps).filter(|b| !skip(b.meta().ulid)).cloned().collect()
    }
}

pub(super) fn no_matcher() -> Error {
    Error::Invalid("at least one matcher has to refuse the empty string".to_owned())
}

/// By labels; series that have the same become one. (A series that was collected, and made again while a replay still
/// held the old one, is there twice.)
pub(super) fn sorted(mut series: Vec<Series>) -> Vec<Series> {
    if !series.is_sorted_by(|a, b| a.labels < b.labels) {
        // Stable, since that finds the run that is sorted already.
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        series.dedup_by(|next, kept| {
            let is_same = next.labels == kept.labels;
            if is_same {
                kept.chunks.append(&mut next.chunks);
                kept.chunks.sort_by_key(|chunk| chunk.min_ms);
            }
            is_same
        });
    }
    series
}

/// Fetches series ahead of their visits, whose ids `ahead` tells by how far they are.
#[inline]
fn prefetch<'a>(ahead: impl Fn(usize) -> Option<(&'a Shard, u32)>, chunks_ms: Option<&RangeInclusive<i64>>) {
    if let Some((shard, id)) = ahead(SERIES_AHEAD) {
        shard.prefetch_id(id);
    }
    if let (Some(range_ms), Some((shard, id))) = (chunks_ms, ahead(CHUNKS_AHEAD)) {
        shard.prefetch_chunks(id, range_ms);
    }
}

fn limited<T: Ord>(all: BTreeSet<T>, limit: usize) -> Vec<T> {
    all.into_iter().take(if limit == 0 { usize::MAX } else { limit }).collect()
}
