//! Digests of what a store selects, by which several stores find that they have the same samples.
//!
//! A *bucket* is the series of one set of owners in one of 256 equal ranges of tokens. Of all series of a bucket there is
//! one digest, made of the chunks' bytes: replicas encode the same samples into the same bytes, nearly always. Only the
//! last chunk of each series is decoded, into which samples behind the question's end go while it is asked. Where a bucket's digests differ, each of its series is digested by its
//! samples.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use ring::hash::series_token;
use ring::{PlacementTable, StoreIndex};
use tsdb::chunk::Columns;
use tsdb::digest::DigestKey;
use tsdb::model::{Labels, TenantId};
use tsdb::select::{Select, Series};
use xxhash_rust::xxh3::Xxh3;

use super::own::{add, add_chunk};
use super::{Error, turns};
use crate::grpc::read::Mark;

/// Equal ranges of tokens.
const RANGES: u32 = 256;

/// The buckets of a placement.
pub(super) struct Buckets<'a> {
    table: &'a PlacementTable,
    tenant: &'a str,
    /// Owners by ascending index, with their number.
    numbers: BTreeMap<Vec<StoreIndex>, u32>,
    sets: Vec<Vec<StoreIndex>>,
}

impl<'a> Buckets<'a> {
    /// Of a tenant's series.
    pub(super) fn new(table: &'a PlacementTable, tenant: &'a TenantId) -> Self {
        let (mut numbers, mut sets) = (BTreeMap::new(), Vec::new());
        for range in table.ranges() {
            let owners = sorted(range.owners);
            if !numbers.contains_key(&owners) {
                numbers.insert(owners.clone(), sets.len() as u32);
                sets.push(owners);
            }
        }
        Self { table, tenant: tenant.as_str(), numbers, sets }
    }

    /// Where a series belongs.
    pub(super) fn of(&self, labels: &Labels) -> u32 {
        let token = series_token(self.tenant, labels.iter());
        let owners = sorted(self.table.replicas(token));
        self.numbers[&owners] * RANGES + (token >> 56) as u32
    }

    /// Who keeps a bucket; `None` where there is no such bucket.
    pub(super) fn owners(&self, bucket: u32) -> Option<&[StoreIndex]> {
        self.sets.get((bucket / RANGES) as usize).map(Vec::as_slice)
    }
}

fn sorted(owners: &[StoreIndex]) -> Vec<StoreIndex> {
    let mut owners = owners.to_vec();
    owners.sort_unstable();
    owners
}

/// A mark for each bucket that has series, its number in the place of the series' hash; by selection.
///
/// # Errors
/// Damaged chunks; when it is cancelled.
pub(super) fn of_buckets(
    buckets: &Buckets<'_>,
    selects: &[Select],
    found: &[Vec<Series>],
    digest_key: u128,
    cancelled: &AtomicBool,
) -> Result<Vec<Vec<Mark>>, Error> {
    let mut columns = Columns::default();
    let one = |(select, found): (&Select, &Vec<Series>)| {
        let mut sums: BTreeMap<u32, u128> = BTreeMap::new();
        for series in found {
            turns::check(cancelled)?;
            let fingerprint = fingerprint(series, *select.range_ms.end(), digest_key, &mut columns)?;
            let sum = sums.entry(buckets.of(&series.labels)).or_default();
            *sum = sum.wrapping_add(fingerprint);
        }
        let mark = |(bucket, fingerprint)| Mark { hash: u64::from(bucket), fingerprint };
        Ok(sums.into_iter().map(mark).collect())
    };
    selects.iter().zip(found).map(one).collect()
}

/// A mark for each series in the buckets that are listed; by selection. `me` is the store that has them: what it has
/// without being its owner gets a mark that no owner's equals.
///
/// # Errors
/// Damaged chunks; when it is cancelled.
pub(super) fn of_series(
    buckets: &Buckets<'_>,
    listed: &[BTreeSet<u32>],
    selects: &[Select],
    found: &[Vec<Series>],
    (digest_key, me): (u128, Option<StoreIndex>),
    cancelled: &AtomicBool,
) -> Result<Vec<Vec<Mark>>, Error> {
    let mut columns = Columns::default();
    let one = |((select, found), listed): ((&Select, &Vec<Series>), &BTreeSet<u32>)| {
        // Two series may have one hash.
        let mut sums: BTreeMap<u64, u128> = BTreeMap::new();
        for series in found {
            turns::check(cancelled)?;
            let bucket = buckets.of(&series.labels);
            if !listed.contains(&bucket) {
                continue;
            }
            let key = DigestKey::new(digest_key);
            let digest = series.digest(key, select.range_ms.clone(), &mut columns)?;
            let fingerprint = u128::from_le_bytes(digest.to_bytes());
            let is_owner = buckets.owners(bucket).zip(me).is_some_and(|(owners, me)| owners.contains(&me));
            let sum = sums.entry(series.labels.hash64()).or_default();
            *sum = sum.wrapping_add(if is_owner { fingerprint } else { !fingerprint });
        }
        Ok(sums.into_iter().map(|(hash, fingerprint)| Mark { hash, fingerprint }).collect())
    };
    selects.iter().zip(found).zip(listed).map(one).collect()
}

/// Equal where labels, and all samples up to the end, are the same, and all chunks but the last are encoded alike. The last
/// one is decoded, whether or not it reaches beyond the end: what is written meanwhile has come to one owner and not yet to
/// another, and makes no difference.
fn fingerprint(series: &Series, end_ms: i64, digest_key: u128, columns: &mut Columns) -> Result<u128, Error> {
    let mut hasher = Xxh3::with_seed((digest_key >> 64) as u64);
    add(&mut hasher, series.labels.as_bytes());
    if let Some((last, before)) = series.chunks.split_last() {
        before.iter().for_each(|chunk| add_chunk(&mut hasher, chunk));
        let labels = series.labels.clone();
        let last = Series { labels, chunks: vec![last.clone()], deleted_ms: Vec::new(), newest: None };
        let digest = last.digest(DigestKey::new(digest_key), i64::MIN..=end_ms, columns)?;
        add(&mut hasher, &digest.to_bytes());
    }
    for deleted in &series.deleted_ms {
        add(&mut hasher, &deleted.start().to_le_bytes());
        add(&mut hasher, &deleted.end().to_le_bytes());
    }
    Ok(hasher.digest128())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ring::{ClusterId, Document, StoreId, View};
    use tsdb::model::Sample;

    use super::super::tests::new_member;
    use super::*;

    const KEY: u128 = 1 << 64 | 9;

    fn series(i: usize, times: impl IntoIterator<Item = i64>) -> Series {
        let samples: Vec<_> = times.into_iter().map(|t| Sample::float(t, 1.0)).collect();
        Series::from_samples(Labels::from_sorted([("i", i.to_string().as_str())]), &samples)
    }

    fn view() -> View {
        let members = (1..=5).map(|i| (StoreId(i), new_member(i))).collect();
        View::new(Document::found(ClusterId(1), KEY, 3, &members).unwrap()).unwrap()
    }

    fn marks(found: Vec<Series>, end_ms: i64) -> Vec<Mark> {
        let view = view();
        let tenant = TenantId::new("t").unwrap();
        let buckets = Buckets::new(view.current(), &tenant);
        let select = Select { matchers: Vec::new(), range_ms: 0..=end_ms, shard: None };
        let nobody = AtomicBool::default();
        of_buckets(&buckets, &[select], &[found], KEY, &nobody).unwrap().remove(0)
    }

    #[test]
    fn each_series_has_a_bucket_with_its_owners() {
        let view = view();
        let tenant = TenantId::new("t").unwrap();
        let buckets = Buckets::new(view.current(), &tenant);
        let mut seen = BTreeSet::new();
        for i in 0..200 {
            let labels = series(i, [1]).labels;
            let bucket = buckets.of(&labels);
            let token = series_token("t", labels.iter());
            assert_eq!(buckets.owners(bucket).unwrap(), sorted(view.current().replicas(token)), "{i}");
            seen.insert(bucket / RANGES);
        }
        assert!(seen.len() > 1 && seen.len() == buckets.sets.len());
        assert_eq!(buckets.owners(buckets.sets.len() as u32 * RANGES), None);
    }

    #[test]
    fn digests_differ_where_samples_do_and_not_behind_the_end() {
        let all = |end: i64| (0..40).map(|i| series(i, 0..end)).collect::<Vec<_>>();
        let whole = marks(all(50), 100);
        assert!(whole.len() > 20 && whole.len() <= 40, "{}", whole.len());
        let mut turned = all(50);
        turned.reverse();
        assert_eq!(marks(turned, 100), whole);
        let mut other = all(50);
        other[7] = series(7, 1..50);
        let differ = marks(other, 100).iter().zip(&whole).filter(|(a, b)| a != b).count();
        assert_eq!(differ, 1);
        // Both have samples behind the end, and not as many.
        assert_eq!(marks(all(60), 45), marks(all(50), 45));
        assert_ne!(marks(all(60), 55), marks(all(50), 55));
        // Only one of them has.
        assert_eq!(marks(all(60), 49), whole);
    }
}
