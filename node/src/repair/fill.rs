//! What came from a replica into this one: the samples that it lacks, and no others.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use tsdb::db::{Append, Bounds, Outcome, Tenant};
use tsdb::model::{Labels, Sample, prefer};
use tsdb::select::Series;
use tsdb::wal::WalPosition;
use tsdb::{Error, Result};

/// Samples in one append.
const BATCH_SAMPLES: usize = 10_000;

/// What became of a page of series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Filled {
    /// Everything stored is safe once a commit has reached this.
    pub(super) position: WalPosition,
    /// Samples that were lacking.
    pub(super) stored: u64,
    /// Series that the tenant has no room for.
    pub(super) refused: u64,
}

/// Appends those samples in `times_ms` that the tenant lacks, or of which it has a value that is less preferred.
/// Comparing first is what keeps blocks from being stored again: the head doesn't know what is in them.
///
/// # Errors
/// When a chunk that came is damaged, when stored data can't be read, and those of an append.
pub(super) fn fill(tenant: &Tenant, series: Vec<Series>, times_ms: &RangeInclusive<i64>) -> Result<Filled> {
    let mut theirs: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
    for series in series {
        let mut samples = series.samples_as_sent()?;
        samples.retain(|sample| times_ms.contains(&sample.timestamp_ms));
        if !tenant.keeps_starts() {
            // Else a sample that lacks nothing but what the head would drop were pulled again and again.
            samples.iter_mut().for_each(|sample| sample.start_ms = 0);
        }
        theirs.insert(series.labels, samples);
    }
    let mut own: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
    tenant.each_series(times_ms, &mut |labels| theirs.contains_key(labels), &mut |series| {
        let samples = series.samples()?;
        own.insert(series.labels, samples);
        Ok(())
    })?;
    let mut filled = Filled::default();
    let mut batch = Vec::new();
    for (labels, mut samples) in theirs {
        if let Some(own) = own.remove(&labels) {
            leave_lacking(&mut samples, &own);
        }
        if samples.is_empty() {
            continue;
        }
        let series = match tenant.intern_unnamed(&labels) {
            Ok(series) => series,
            Err(Error::Limit(_)) => {
                filled.refused += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        batch.extend(samples.into_iter().map(|sample| Append { series, sample }));
        if batch.len() >= BATCH_SAMPLES {
            append(tenant, &mut batch, &mut filled)?;
        }
    }
    append(tenant, &mut batch, &mut filled)?;
    Ok(filled)
}

/// Of a peer's samples, keeps those that `own` lacks or that are preferred to its own, start times included; both ascend.
fn leave_lacking(samples: &mut Vec<Sample>, own: &[Sample]) {
    let mut own = own.iter().peekable();
    samples.retain(|sample| {
        while own.next_if(|known| known.timestamp_ms < sample.timestamp_ms).is_some() {}
        match own.peek() {
            Some(known) if known.timestamp_ms == sample.timestamp_ms => {
                prefer(sample, known) == Ordering::Greater
            }
            _ => true,
        }
    });
}

fn append(tenant: &Tenant, batch: &mut Vec<Append>, filled: &mut Filled) -> Result<()> {
    let mut outcomes = Vec::new();
    let position = tenant.append(batch, &Bounds::ALL, &mut outcomes)?;
    filled.position = filled.position.max(position);
    filled.stored += outcomes.iter().filter(|outcome| **outcome == Outcome::Stored).count() as u64;
    batch.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use tsdb::model::stale_nan;

    use super::*;

    #[test]
    fn only_what_is_lacking_or_preferred_is_left() {
        let float = Sample::float;
        let mut theirs = vec![float(1, 1.0), float(2, 2.0), float(3, 3.0), float(4, 4.0), float(9, 9.0)];
        let own = [float(0, 0.0), float(1, 1.0), float(3, stale_nan()), float(4, 5.0), float(5, 5.0)];
        leave_lacking(&mut theirs, &own);
        assert_eq!(theirs, [float(2, 2.0), float(3, 3.0), float(9, 9.0)]);
    }
}
