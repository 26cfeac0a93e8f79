//! What a selection would take to be read: an estimate before anything is.

use std::ops::RangeInclusive;

use ulid::Ulid;

use super::ask::{EVERY_BLOCK, no_matcher};
use super::tenant::Tenant;
use crate::Result;
use crate::index::postings::find;
use crate::model::{Labels, Matcher};
use crate::weight::Scale;

impl Tenant {
    /// About how many series match and may have samples in a range (milliseconds, both ends included), from postings
    /// alone: those of the head or of the newest block there, whichever are more.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) where a block's postings are damaged.
    pub fn estimate_series(&self, matchers: &[Matcher], range_ms: &RangeInclusive<i64>) -> Result<u64> {
        let in_head = find(&*self.postings.read(), matchers)?.len();
        let blocks = self.blocks_in(range_ms, &EVERY_BLOCK);
        let newest = blocks.iter().max_by_key(|block| block.meta().max_ms);
        Ok(in_head.max(newest.map_or(Ok(0), |block| block.count_series(matchers))?))
    }

    /// Adds what the series weigh that match and of which `counts` accepts the labels, without the blocks that `skip`
    /// names.
    ///
    /// # Errors
    /// Those of [`Tenant::select`], but for damaged head chunks, which weigh nothing.
    pub fn weigh(
        &self,
        matchers: &[Matcher],
        skip: &dyn Fn(Ulid) -> bool,
        counts: &dyn Fn(&Labels) -> bool,
        scale: &mut Scale,
    ) -> Result<()> {
        if matchers.iter().all(Matcher::matches_empty) {
            return Err(no_matcher());
        }
        let mut scratch = Vec::new();
        self.visit(matchers, None, &mut |shard, found| {
            if found.may_overlap(scale.range_ms()) {
                let labels = shard.labels.labels(found.labels, &mut scratch);
                if counts(&labels) {
                    scale.add_series(&labels);
                    shard.weigh(found, scale);
                }
            }
        })?;
        let range_ms = scale.range_ms().clone();
        self.blocks_in(&range_ms, skip).iter().try_for_each(|block| block.weigh(matchers, counts, scale))
    }
}
