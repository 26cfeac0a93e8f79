//! Samples that the head refuses for their age, and that a local block has.
//!
//! A request that found no quorum is sent again as a whole, hours later if need be: what this store took of it may have
//! gone into a block meanwhile. If that were refused, the sender would drop it, also where it is lacking.

use std::cmp::Ordering;

use super::ask::EVERY_BLOCK;
use super::tenant::Tenant;
use super::types::{Append, Outcome};
use crate::Result;
use crate::block::Block;
use crate::head::SeriesRef;
use crate::model::{Labels, Matcher, Sample, prefer};
use crate::select::{Select, Series};

/// Series of one append that are looked for in blocks, at most: as many as Prometheus sends two samples of at once.
/// What is refused of further ones stays refused.
pub(super) const REFUSED_SERIES_MAX: usize = 1_000;

impl Tenant {
    /// Looks for refused samples in blocks; those that are there become [`Outcome::Duplicate`] or
    /// [`Outcome::Superseded`]. Comes after the head's judgement: samples leave the head once their block is shown.
    #[cold]
    pub(super) fn find_refused(&self, batch: &[Append], outcomes: &mut [Outcome]) {
        let is_too_old = |i: &usize| matches!(outcomes[*i], Outcome::TooOld | Outcome::OutOfOrder);
        let mut refused: Vec<usize> = (0..batch.len()).filter(is_too_old).collect();
        refused.sort_unstable_by_key(|&i| (batch[i].series, batch[i].sample.timestamp_ms));
        for of_series in
            refused.chunk_by(|&a, &b| batch[a].series == batch[b].series).take(REFUSED_SERIES_MAX)
        {
            let time_ms = |i: usize| batch[i].sample.timestamp_ms;
            let range_ms = time_ms(of_series[0])..=time_ms(of_series[of_series.len() - 1]);
            let blocks = self.blocks_in(&range_ms, &EVERY_BLOCK);
            if blocks.is_empty() {
                continue;
            }
            let Some(labels) = self.labels_of(batch[of_series[0]].series) else { continue };
            let matchers = labels.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
            let select = Select { matchers, range_ms, shard: None };
            // A block that can't be read has nothing that could be acked.
            for known in blocks.iter().filter_map(|block| samples_of(block, &labels, &select).ok()) {
                for &i in of_series {
                    let found = known.binary_search_by_key(&time_ms(i), |sample| sample.timestamp_ms);
                    match found.map(|at| prefer(&batch[i].sample, &known[at])) {
                        Ok(Ordering::Equal) => outcomes[i] = Outcome::Duplicate,
                        Ok(Ordering::Less) if outcomes[i] != Outcome::Duplicate => {
                            outcomes[i] = Outcome::Superseded;
                        }
                        Ok(_) | Err(_) => {}
                    }
                }
            }
        }
    }

    fn labels_of(&self, own: SeriesRef) -> Option<Labels> {
        let shard = self.core.shards[self.core.shard_of_ref(own)].read();
        let series = shard.get(own)?;
        Some(shard.labels.labels(series.labels, &mut Vec::new()))
    }
}

/// What a block has of a series, by time.
fn samples_of(block: &Block, labels: &Labels, select: &Select) -> Result<Vec<Sample>> {
    let found = block.select_wanted(select, &mut |found| found == labels)?;
    found.first().map_or(Ok(Vec::new()), Series::samples_as_sent)
}
