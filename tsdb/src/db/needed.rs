//! Answers that hold no more than a question looks at.
//!
//! Most of what an instant question over many series costs is their labels, and chunks of which one sample is wanted. Where
//! the head alone answers, labels that nobody looks at aren't put together, and the newest sample comes from the
//! series itself. Everywhere else the answer is whole: leaving out is allowed, not promised.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::ask::{EVERY_BLOCK, no_matcher, sorted};
use super::order::Visits;
use super::tenant::Tenant;
use crate::Result;
use crate::head::series::MemSeries;
use crate::head::shard::{LatePart, Shard};
use crate::index::postings::find;
use crate::model::{Labels, Matcher, is_stale};
use crate::select::{Best, Need, Select, Series};

impl Tenant {
    /// As [`Tenant::select`], of which `need` says what may be left out. Series that are left with equal labels stay
    /// apart.
    ///
    /// # Errors
    /// Those of [`Tenant::select`].
    pub fn select_needed(&self, select: &Select, need: &Need) -> Result<Vec<Series>> {
        if select.matchers.iter().all(Matcher::matches_empty) {
            return Err(no_matcher());
        }
        // A block's series have to be found among the head's by all their labels. The head is asked first, as ever: a
        // cut that ends meanwhile shows as a block.
        let is_in_head = || self.blocks_in(&select.range_ms, &EVERY_BLOCK).is_empty();
        if *need != Need::default()
            && is_in_head()
            && let Some(series) = self.select_head_needed(select, need)?
            && is_in_head()
        {
            return Ok(series);
        }
        self.select(select)
    }

    /// The head's series, or `None` where their labels are needed to put them in order or together.
    fn select_head_needed(&self, select: &Select, need: &Need) -> Result<Option<Vec<Series>>> {
        if self.core.shards.iter().any(|shard| shard.read().has_twins) {
            return Ok(None);
        }
        let generation = self.core.generation.load(Ordering::Acquire);
        let ids = find(&*self.postings.read(), &select.matchers)?;
        let needs_order = need.labels.is_some() && !need.any_order;
        let mut visits = if need.any_order {
            Visits { ordered: Vec::new(), generation, others: ids }
        } else {
            self.visits(ids)
        };
        // Who is among the best depends on who came before: series whose place isn't known can't be judged.
        let best = need.best.filter(|_| need.newest && visits.others.is_empty());
        let mut taker = Taker {
            select,
            newest: need.newest,
            rivals: best.map(|best| Rivals { best, ranks: BinaryHeap::new() }),
            labels: need.labels.as_deref().map(|names| Projection::new(names, self.core.shards.len())),
            scratch: Vec::new(),
            series: Vec::with_capacity(visits.ordered.len() + visits.others.len() as usize),
            is_damaged: false,
        };
        if needs_order && !visits.others.is_empty() {
            return Ok(None);
        }
        let chunks_ms = (!need.newest).then_some(&select.range_ms);
        self.visit_in_order(&mut visits, chunks_ms, &mut |shard, series| taker.take(shard, series));
        if needs_order && !visits.others.is_empty() {
            return Ok(None);
        }
        if taker.rivals.is_some() && !visits.others.is_empty() {
            return self.select_head_needed(select, &Need { best: None, ..need.clone() });
        }
        let others: RoaringBitmap = std::mem::take(&mut visits.others);
        self.visit_others(&others, generation, chunks_ms, &mut |shard, series| taker.take(shard, series));
        // Whoever asks for all meets the damage again, and tells of it.
        let Taker { series, is_damaged, .. } = taker;
        Ok((!is_damaged).then(|| if need.labels.is_some() { series } else { sorted(series) }))
    }
}

/// Takes from series what is needed.
struct Taker<'a> {
    select: &'a Select,
    newest: bool,
    /// `None` = all series are wanted.
    rivals: Option<Rivals>,
    /// `None` = all labels.
    labels: Option<Projection<'a>>,
    scratch: Vec<u8>,
    series: Vec<Series>,
    is_damaged: bool,
}

impl Taker<'_> {
    fn take(&mut self, shard: &Shard, found: &MemSeries) {
        let Select { range_ms, shard: share, .. } = self.select;
        if share.is_some_and(|share| found.hash % share.count != share.index) {
            return;
        }
        let (mut range_ms, mut newest) = (range_ms.clone(), None);
        if self.newest && found.late.is_none() {
            newest = found.open.newest_float(*range_ms.end());
            if newest.is_some_and(|(timestamp_ms, _)| timestamp_ms < *range_ms.start()) {
                return;
            }
            if let (Some(rivals), Some((_, value))) = (&mut self.rivals, newest)
                && !is_stale(value)
                && !rivals.admit(value)
            {
                return;
            }
            // Of a float nothing before its chunk is asked for.
            if let Some(open) = found.open.finished().filter(|open| open.encoding.is_float())
                && open.min_ms <= *range_ms.end()
            {
                range_ms = open.min_ms.max(*range_ms.start())..=*range_ms.end();
            }
        }
        let mut chunks = Vec::new();
        if newest.is_none() {
            if !found.may_overlap(&range_ms) {
                return;
            }
            self.is_damaged |= !shard.collect(found, &range_ms, LatePart::All, &mut chunks).is_empty();
            if chunks.is_empty() {
                return;
            }
        }
        let labels = match &mut self.labels {
            None => shard.labels.labels(found.labels, &mut self.scratch),
            Some(projection) => projection.labels(shard, found, &mut self.scratch),
        };
        self.series.push(Series { labels, chunks, deleted_ms: Vec::new(), newest });
    }
}

/// The best samples so far. Those that come in chunks aren't known, which lets more series through than are wanted.
struct Rivals {
    best: Best,
    /// The least wanted first.
    ranks: BinaryHeap<Reverse<u64>>,
}

impl Rivals {
    /// Whether a sample, which comes behind all others, is among the best.
    fn admit(&mut self, value: f64) -> bool {
        let rank = Reverse(self.rank(value));
        if self.ranks.len() < self.best.count {
            self.ranks.push(rank);
            return true;
        }
        // The greatest in reverse is the least wanted; one that is no better doesn't take its place.
        let Some(mut least) = self.ranks.peek_mut() else { return true };
        let is_better = rank < *least;
        if is_better {
            *least = rank;
        }
        is_better
    }

    /// Greater for samples that are wanted more, equal for equal ones; 0 for NaN.
    fn rank(&self, value: f64) -> u64 {
        if value.is_nan() {
            return 0;
        }
        // Negative zero is equal to the other; negative numbers' bits grow away from zero.
        let bits = (value + 0.0).to_bits();
        let ascending = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
        if self.best.greatest { ascending } else { !ascending }
    }
}

/// Series' labels as far as their names are wanted. There are few such sets: each is made once.
struct Projection<'a> {
    names: &'a [Arc<str>],
    none: Labels,
    shards: Vec<Known>,
}

/// What is known of a shard's labels.
#[derive(Default)]
struct Known {
    /// Of the shard's symbols; nothing is known under another.
    version: (u64, usize),
    /// Symbols of the wanted names.
    names: SmallVec<[u32; 4]>,
    /// By their symbols.
    sets: HashMap<SmallVec<[u32; 4]>, Labels>,
}

impl<'a> Projection<'a> {
    fn new(names: &'a [Arc<str>], shards: usize) -> Self {
        let shards = (0..shards).map(|_| Known::default()).collect();
        Self { names, none: Labels::default(), shards }
    }

    fn labels(&mut self, shard: &Shard, series: &MemSeries, scratch: &mut Vec<u8>) -> Labels {
        if self.names.is_empty() {
            return self.none.clone();
        }
        let known = &mut self.shards[shard.index() as usize];
        let version = shard.labels.version();
        if known.version != version {
            let names = self.names.iter().filter_map(|name| shard.labels.name(name)).collect();
            *known = Known { version, names, sets: HashMap::new() };
        }
        let pairs = shard.labels.run(series.labels).chunks_exact(2);
        let wanted: SmallVec<[u32; 4]> =
            pairs.filter(|pair| known.names.contains(&pair[0])).flatten().copied().collect();
        if let Some(labels) = known.sets.get(&wanted) {
            return labels.clone();
        }
        let labels = shard.labels.labels_of(&wanted, scratch);
        known.sets.insert(wanted, labels.clone());
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(count: usize, greatest: bool, values: &[f64]) -> Vec<bool> {
        let mut rivals = Rivals { best: Best { count, greatest }, ranks: BinaryHeap::new() };
        values.iter().map(|value| rivals.admit(*value)).collect()
    }

    #[test]
    fn whoever_is_among_the_best_so_far_is_admitted() {
        let values = [f64::NAN, 1.0, -1.0, 1.0, 2.0, f64::NEG_INFINITY, f64::INFINITY, f64::NAN, -0.0, 0.0];
        let expected = [true, true, true, true, true, false, true, false, false, false];
        assert_eq!(admitted(2, true, &values), expected);
        let expected = [true, true, true, false, false, true, false, false, false, false];
        assert_eq!(admitted(2, false, &values), expected);
        assert_eq!(admitted(1, true, &[-0.0, 0.0, f64::NAN]), [true, false, false]);
        assert_eq!(admitted(1, true, &[f64::NAN, f64::NAN, -5.0]), [true, false, true]);
    }
}
