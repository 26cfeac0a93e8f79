//! Which local blocks have had their time.
//!
//! Blocks are judged by the data's own time, as Prometheus judges them, since a wall clock alone may be anything: at one
//! reading a month ahead, every block would be old. The horizon is a tenant's `retention_ms` before the least of
//!
//! 1. the wall clock, once two readings agree with monotonic time ([`ClockCheck`](crate::clock::ClockCheck));
//! 2. the tenant's newest sample, in head or blocks, and [`SLACK_MS`] more, and what has gone by since this process first
//!    saw that sample: so blocks of a tenant that fell silent go too, though later where the process is restarted.

use std::sync::atomic::Ordering;

use super::maintain::{Maintenance, Problem};
use super::tenant::Tenant;
use crate::block::BlockMeta;

/// Time may be this far ahead of a tenant's newest sample, in milliseconds.
pub(super) const SLACK_MS: i64 = 60 * 60 * 1000;

/// A tenant's newest sample, and since when this process knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NewestSample {
    timestamp_ms: i64,
    /// By monotonic time.
    since_ms: u64,
}

impl Tenant {
    /// Removes blocks whose time has come; `confirmed_ms` is a wall-clock time that was confirmed.
    pub(super) fn remove_old(&self, confirmed_ms: i64, elapsed_ms: u64, done: &mut Maintenance) {
        let Some(data_ms) = self.data_time_ms(elapsed_ms) else { return };
        let data_ms = if planted::is(planted::Bug::RetentionByWallClock) { i64::MAX } else { data_ms };
        let Some(retention_ms) = self.settings().retention_ms else { return };
        let oldest_ms = confirmed_ms.min(data_ms).saturating_sub(retention_ms);
        let is_old = |meta: &BlockMeta| meta.max_ms <= oldest_ms;
        let old: Vec<_> = self.blocks.load().iter().filter(|b| is_old(b.meta())).cloned().collect();
        for block in old {
            self.hide_block(block.meta().ulid);
            self.discard(block.meta().ulid);
            match self.remove_discarded() {
                Ok(()) => done.removed.push((self.id.clone(), block.meta().clone())),
                Err(error) => {
                    done.problems.push(Problem { tenant: Some(self.id.clone()), error, lost_ms: None });
                }
            }
        }
    }

    /// The latest that it can be, judged by the tenant's samples; `None` without any.
    fn data_time_ms(&self, elapsed_ms: u64) -> Option<i64> {
        let in_blocks = self.blocks.load().iter().map(|block| block.meta().max_ms.saturating_sub(1)).max();
        let in_head = self.newest_ms.load(Ordering::Acquire);
        let timestamp_ms = in_blocks.map_or(in_head, |in_blocks| in_blocks.max(in_head));
        if timestamp_ms == i64::MIN {
            return None;
        }
        let mut newest = self.newest.lock();
        let known = newest.filter(|known| known.timestamp_ms >= timestamp_ms);
        let known = *newest.insert(known.unwrap_or(NewestSample { timestamp_ms, since_ms: elapsed_ms }));
        let gone_by_ms = i64::try_from(elapsed_ms.saturating_sub(known.since_ms)).unwrap_or(i64::MAX);
        Some(known.timestamp_ms.saturating_add(gone_by_ms).saturating_add(SLACK_MS))
    }
}
