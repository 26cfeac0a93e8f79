//! A tenant's series by labels, kept for questions that want a good part of them.
//!
//! Sorting 100,000 series takes longer than everything else about an instant question. So maintenance sorts the ids
//! once when such a question missed it, and questions walk that list; the series that it doesn't know are visited
//! behind, and sorted in among the others, which is cheap while they are few.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use roaring::RoaringBitmap;

use super::tenant::Tenant;
use crate::model::Labels;

/// A question walks the list when it wants at least one in so many of its series: otherwise sorting is faster.
const SELECTIVITY: u64 = 64;
/// Fewer series are sorted faster than looked up.
const SERIES_MIN: u64 = 256;
/// The list is missed when it lacks more than one in so many of the series that a question wants.
const UNKNOWN_SHARE: u64 = 32;
/// The list is made at most once in this time, monotonic and in milliseconds, however fast series come and go.
const REFRESH_MS: u64 = 15_000;

/// The list, and whether somebody missed it.
#[derive(Debug, Default)]
pub(super) struct OrderCache {
    order: Arc<Order>,
    /// When it was made, by monotonic time.
    made_ms: Option<u64>,
    is_wanted: bool,
}

/// Series by labels, as they once were.
#[derive(Debug, Default)]
struct Order {
    /// Ids by their labels.
    ids: Vec<u32>,
    /// The same as a set.
    known: RoaringBitmap,
    /// A series of a later generation isn't the one that had its id.
    generation: u32,
}

/// Ids in an order to visit them.
pub(super) struct Visits {
    /// By labels, for series up to `generation`.
    pub(super) ordered: Vec<u32>,
    pub(super) generation: u32,
    /// In no order.
    pub(super) others: RoaringBitmap,
}

impl Tenant {
    /// The best order known for `ids`.
    pub(super) fn visits(&self, ids: RoaringBitmap) -> Visits {
        let order = Arc::clone(&self.order.lock().order);
        if ids.len() < SERIES_MIN {
            return Visits { ordered: Vec::new(), generation: 0, others: ids };
        }
        let unknown = &ids - &order.known;
        if unknown.len() > ids.len() / UNKNOWN_SHARE {
            self.order.lock().is_wanted = true;
        }
        if ids.len() - unknown.len() < order.ids.len() as u64 / SELECTIVITY {
            return Visits { ordered: Vec::new(), generation: 0, others: ids };
        }
        let ordered = if ids.len() - unknown.len() == order.known.len() {
            order.ids.clone()
        } else {
            order.ids.iter().copied().filter(|id| ids.contains(*id)).collect()
        };
        Visits { ordered, generation: order.generation, others: unknown }
    }

    /// Makes the list anew if a question missed it.
    pub(super) fn refresh_order(&self, elapsed_ms: u64) {
        {
            let mut order = self.order.lock();
            let is_recent =
                order.made_ms.is_some_and(|made_ms| elapsed_ms.saturating_sub(made_ms) < REFRESH_MS);
            if is_recent || !std::mem::take(&mut order.is_wanted) {
                return;
            }
        }
        let generation = self.core.generation.load(Ordering::Acquire);
        let known = self.postings.read().ids().clone();
        let mut series: Vec<(Labels, u32)> = Vec::with_capacity(known.len() as usize);
        let mut scratch = Vec::new();
        for (index, ids) in self.by_shard(&known).iter().enumerate() {
            let shard = self.core.shards[index].read();
            for id in ids {
                if let Some((_, found)) = shard.by_id(*id, generation) {
                    series.push((shard.labels.labels(found.labels, &mut scratch), *id));
                }
            }
        }
        series.sort_unstable();
        let ids: Vec<u32> = series.into_iter().map(|(_, id)| id).collect();
        let known = ids.iter().copied().collect();
        let mut order = self.order.lock();
        order.order = Arc::new(Order { ids, known, generation });
        order.made_ms = Some(elapsed_ms);
    }
}
