//! What a selection would take to be read: an estimate before anything is.

use ulid::Ulid;

use super::ask::no_matcher;
use super::tenant::Tenant;
use crate::Result;
use crate::model::{Labels, Matcher};
use crate::weight::Scale;

impl Tenant {
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
