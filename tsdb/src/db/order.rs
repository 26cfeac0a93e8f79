//! A tenant's series by labels, kept for questions that want a good part of them.
//!
//! Sorting 100,000 series takes longer than everything else about an instant question. So maintenance sorts the ids
//! once when such a question came and series have changed since, and questions walk that list. While it is stale they
//! sort for themselves.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use roaring::RoaringBitmap;

use super::tenant::Tenant;
use crate::model::Labels;

/// A question is answered from the list when it wants at least one in so many of the tenant's series.
const SELECTIVITY: u64 = 64;
/// Fewer series are sorted faster than looked up.
const SERIES_MIN: u64 = 256;
/// The list is made at most once in this time, by the wall clock, however fast series come and go.
const REFRESH_MS: i64 = 15_000;

/// The list, and whether somebody missed it.
#[derive(Debug, Default)]
pub(super) struct OrderCache {
    /// Ids of all series by their labels.
    ids: Arc<[u32]>,
    /// Of the set of series that `ids` are.
    version: u64,
    /// When it was made.
    made_ms: Option<i64>,
    is_wanted: bool,
}

impl Tenant {
    /// `ids` by labels, if the list is as good as that needs; `all` is how many series there are.
    pub(super) fn by_labels(&self, ids: &RoaringBitmap, all: u64) -> Option<Vec<u32>> {
        if ids.len() < SERIES_MIN.max(all / SELECTIVITY) {
            return None;
        }
        let order = {
            let mut order = self.order.lock();
            if order.version != self.series_version() {
                order.is_wanted = true;
                return None;
            }
            Arc::clone(&order.ids)
        };
        if ids.len() == order.len() as u64 {
            return Some(order.to_vec());
        }
        Some(order.iter().copied().filter(|id| ids.contains(*id)).collect())
    }

    /// Makes the list anew if a question missed it.
    pub(super) fn refresh_order(&self, now_ms: i64) {
        {
            let mut order = self.order.lock();
            let is_recent =
                order.made_ms.is_some_and(|made_ms| now_ms.saturating_sub(made_ms).abs() < REFRESH_MS);
            if is_recent || !std::mem::take(&mut order.is_wanted) {
                return;
            }
        }
        let version = self.series_version();
        let ids = self.postings.read().ids().clone();
        let mut series: Vec<(Labels, u32)> = Vec::with_capacity(ids.len() as usize);
        let mut scratch = Vec::new();
        for (index, ids) in self.by_shard(&ids).iter().enumerate() {
            let shard = self.core.shards[index].read();
            for id in ids {
                if let Some((_, found)) = shard.by_id(*id, u32::MAX) {
                    series.push((shard.labels.labels(found.labels, &mut scratch), *id));
                }
            }
        }
        series.sort_unstable();
        let mut order = self.order.lock();
        order.ids = series.into_iter().map(|(_, id)| id).collect();
        order.version = version;
        order.made_ms = Some(now_ms);
    }

    /// Changes with the set of series: a list made at this version holds all that there were at the time.
    fn series_version(&self) -> u64 {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Acquire);
        // Both only grow.
        count(&self.counters.created).wrapping_add(count(&self.counters.collected)).wrapping_add(1)
    }
}
