//! This node's digests: of windows by piece of keys, computed once and kept with their stamps; and of single series.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ring::hash::series_token;
use tsdb::Result;
use tsdb::chunk::Columns;
use tsdb::db::{ContentStamp, Tenant, WINDOW_MS};
use tsdb::digest::{Digest, DigestKey, SeriesDigester};
use tsdb::model::{Labels, TenantId};

use super::keys::Keys;

/// The window that isn't over yet is put together from pieces of time of this length, in milliseconds: those that are
/// over don't change any more, as a rule.
const PART_MS: i64 = 10 * 60 * 1000;
/// Most digests kept; then those that were used the longest time ago go. 32 bytes each.
const KEPT_MAX: usize = 1 << 20;

/// What a tenant has in a stretch of time, in one piece of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// About.
    pub(super) series: u64,
    pub(super) samples: u64,
    pub(super) digest: Digest,
}

/// By piece of keys; those without samples are left out.
pub(super) type Summaries = BTreeMap<u32, Summary>;

/// Digests that were computed.
#[derive(Default)]
pub(super) struct Digests {
    known: BTreeMap<(TenantId, i64, i64), Known>,
    /// Summaries in all of them.
    size: usize,
    uses: u64,
}

struct Known {
    epoch: ring::Epoch,
    stamp: ContentStamp,
    summaries: Arc<Summaries>,
    /// When it was last used, by the count of uses.
    used: u64,
}

impl Digests {
    fn get(
        &mut self,
        of: &(TenantId, i64, i64),
        epoch: ring::Epoch,
        stamp: ContentStamp,
    ) -> Option<Arc<Summaries>> {
        self.uses += 1;
        let known = self.known.get_mut(of).filter(|known| known.epoch == epoch && known.stamp == stamp)?;
        known.used = self.uses;
        Some(known.summaries.clone())
    }

    fn keep(&mut self, of: (TenantId, i64, i64), known: Known) {
        self.size += known.summaries.len() + 1;
        if let Some(before) = self.known.insert(of, Known { used: self.uses, ..known }) {
            self.size -= before.summaries.len() + 1;
        }
        if self.size > KEPT_MAX {
            let mut used: Vec<u64> = self.known.values().map(|known| known.used).collect();
            used.sort_unstable();
            let median = used[used.len() / 2];
            self.known.retain(|_, known| known.used > median);
            self.size = self.known.values().map(|known| known.summaries.len() + 1).sum();
        }
    }
}

/// The key of a series.
pub(super) fn token_of(tenant: &TenantId, labels: &Labels) -> u64 {
    series_token(tenant.as_str(), labels.iter())
}

/// What is computed with: the cluster's secret, and the pieces of keys.
#[derive(Clone)]
pub(super) struct Terms {
    pub(super) key: DigestKey,
    pub(super) keys: Arc<Keys>,
}

/// Digests of a tenant's window, or of its beginning, by piece of keys. `times_ms` begins with a window.
///
/// # Errors
/// When stored data can't be read.
pub(super) fn of_window(
    kept: &parking_lot::Mutex<Digests>,
    tenant: &Tenant,
    terms: &Terms,
    times_ms: &RangeInclusive<i64>,
) -> Result<Summaries> {
    let (start_ms, end_ms) = (*times_ms.start(), *times_ms.end());
    if end_ms >= start_ms + WINDOW_MS - 1 {
        return Ok(Summaries::clone(&*of_part(kept, tenant, terms, times_ms)?));
    }
    let mut whole = Summaries::new();
    for part_ms in (start_ms..=end_ms).step_by(PART_MS as usize) {
        let part = of_part(kept, tenant, terms, &(part_ms..=end_ms.min(part_ms + PART_MS - 1)))?;
        for (piece, summary) in &*part {
            let sum = whole.entry(*piece).or_default();
            // Most series have samples in every part.
            sum.series = sum.series.max(summary.series);
            sum.samples += summary.samples;
            sum.digest += summary.digest;
        }
    }
    Ok(whole)
}

fn of_part(
    kept: &parking_lot::Mutex<Digests>,
    tenant: &Tenant,
    terms: &Terms,
    times_ms: &RangeInclusive<i64>,
) -> Result<Arc<Summaries>> {
    let of = (tenant.id().clone(), *times_ms.start(), *times_ms.end());
    let stamp = tenant.content_stamp(times_ms);
    let epoch = terms.keys.epoch();
    if let Some(known) = kept.lock().get(&of, epoch, stamp) {
        return Ok(known);
    }
    let mut summaries = Summaries::new();
    let mut columns = Columns::default();
    tenant.each_series(times_ms, &mut |_| true, &mut |series| {
        let digest = series.digest(terms.key, times_ms.clone(), &mut columns)?;
        // Decoding has just filled them with what is in the range.
        let samples = columns.len() as u64;
        if samples > 0 {
            let sum = summaries.entry(terms.keys.piece(token_of(tenant.id(), &series.labels))).or_default();
            sum.series += 1;
            sum.samples += samples;
            sum.digest += digest;
        }
        Ok(())
    })?;
    let summaries = Arc::new(summaries);
    kept.lock().keep(of, Known { epoch, stamp, summaries: summaries.clone(), used: 0 });
    Ok(summaries)
}

/// One series in a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OneSeries {
    pub(super) token: u64,
    pub(super) fingerprint: u128,
    pub(super) digest: Digest,
}

/// Single series of a tenant whose keys `wanted` accepts, in no order.
///
/// # Errors
/// When stored data can't be read.
pub(super) fn of_series(
    tenant: &Tenant,
    key: DigestKey,
    times_ms: &RangeInclusive<i64>,
    wanted: &dyn Fn(u64) -> bool,
) -> Result<Vec<OneSeries>> {
    let mut found = Vec::new();
    let mut columns = Columns::default();
    let mut is_wanted = |labels: &Labels| wanted(token_of(tenant.id(), labels));
    tenant.each_series(times_ms, &mut is_wanted, &mut |series| {
        let digest = series.digest(key, times_ms.clone(), &mut columns)?;
        if !columns.is_empty() {
            let token = token_of(tenant.id(), &series.labels);
            let fingerprint = SeriesDigester::new(key, &series.labels).fingerprint();
            found.push(OneSeries { token, fingerprint, digest });
        }
        Ok(())
    })?;
    Ok(found)
}
