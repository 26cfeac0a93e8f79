//! Digests of what a store selects, by which several stores find that they have the same samples.
//!
//! A *bucket* is the series of one set of owners in one of 256 equal ranges of tokens. Of all series of a bucket there is
//! one digest, made of the chunks' bytes: replicas encode the same samples into the same bytes, nearly always. Only the
//! last chunk of each series is decoded, into which samples behind the question's end go while it is asked. Where a bucket's
//! digests differ, each of its series is digested by its samples; of those marks there is a sketch for each set of owners
//! ([`super::sketch`]), or they are sent themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use ring::hash::series_token;
use ring::{PlacementTable, StoreId, StoreIndex, View};
use tsdb::chunk::Columns;
use tsdb::digest::DigestKey;
use tsdb::model::{Labels, TenantId};
use tsdb::select::{Select, Series};
use xxhash_rust::xxh3::Xxh3;

use super::own::{Own, add, add_chunk};
use super::sketch::Sketch;
use super::{Error, permits};
use crate::grpc::read::{DigestsAsk, Mark, SelectAsk};

/// Equal ranges of tokens.
pub(super) const RANGES: u32 = 256;

/// The buckets of a placement.
pub(super) struct Buckets<'a> {
    table: &'a PlacementTable,
    tenant: &'a str,
    /// Owners by ascending index, with their number.
    numbers: BTreeMap<Vec<StoreIndex>, u32>,
    sets: Vec<Vec<StoreIndex>>,
    /// How many buckets each set has.
    counts: Vec<usize>,
}

impl<'a> Buckets<'a> {
    /// Of a tenant's series.
    pub(super) fn new(table: &'a PlacementTable, tenant: &'a TenantId) -> Self {
        let (mut numbers, mut sets, mut counts) = (BTreeMap::new(), Vec::new(), Vec::new());
        // By set, the first range of tokens that isn't counted yet.
        let mut uncounted = Vec::new();
        for range in table.ranges() {
            let owners = sorted(range.owners);
            let number = *numbers.entry(owners).or_insert_with_key(|owners| {
                sets.push(owners.clone());
                counts.push(0);
                uncounted.push(0);
                sets.len() as u32 - 1
            }) as usize;
            let (first, last) = (of_token(*range.keys().start()), of_token(*range.keys().end()));
            let behind = last + 1;
            counts[number] += (behind - first.max(uncounted[number])) as usize;
            uncounted[number] = behind;
        }
        Self { table, tenant: tenant.as_str(), numbers, sets, counts }
    }

    /// Where a series belongs.
    pub(super) fn of(&self, labels: &Labels) -> u32 {
        let token = series_token(self.tenant, labels.iter());
        let owners = sorted(self.table.replicas(token));
        self.numbers[&owners] * RANGES + of_token(token)
    }

    /// An empty sketch of a set's marks, where so many of its buckets are listed.
    pub(super) fn sketch(&self, set: u32, listed: usize) -> Sketch {
        Sketch::sized(listed, self.counts.get(set as usize).copied().unwrap_or_default())
    }

    /// Who keeps a bucket; `None` where there is no such bucket.
    pub(super) fn owners(&self, bucket: u32) -> Option<&[StoreIndex]> {
        self.sets.get((bucket / RANGES) as usize).map(Vec::as_slice)
    }
}

/// In which of the equal ranges a token is.
fn of_token(token: u64) -> u32 {
    (token >> (u64::BITS - RANGES.ilog2())) as u32
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
fn of_buckets(
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
            permits::check(cancelled)?;
            let fingerprint = fingerprint(series, *select.range_ms.end(), digest_key, &mut columns)?;
            let sum = sums.entry(buckets.of(&series.labels)).or_default();
            *sum = sum.wrapping_add(fingerprint);
        }
        let mark = |(bucket, fingerprint)| Mark { hash: u64::from(bucket), fingerprint };
        Ok(sums.into_iter().map(mark).collect())
    };
    selects.iter().zip(found).map(one).collect()
}

/// What the store `me` answers to a question for digests, of what it has found.
///
/// # Errors
/// Damaged chunks; when it is cancelled.
pub(super) fn own(
    view: &View,
    me: StoreId,
    ask: &DigestsAsk,
    found: &[Vec<Series>],
    cancelled: &AtomicBool,
) -> Result<Own, Error> {
    let DigestsAsk { select: SelectAsk { tenant, selects, .. }, listed, is_sketched } = ask;
    let buckets = Buckets::new(view.current(), tenant);
    let key = view.document().digest_key;
    let Some(listed) = listed else {
        return Ok(Own { marks: of_buckets(&buckets, selects, found, key, cancelled)?, ..Own::default() });
    };
    let me = view.index(me);
    let mut own = Own::default();
    let mut columns = Columns::default();
    for ((select, found), listed) in selects.iter().zip(found).zip(listed) {
        // Two series may have one hash.
        let mut sums: BTreeMap<(u32, u64), u128> = BTreeMap::new();
        for series in found {
            permits::check(cancelled)?;
            let bucket = buckets.of(&series.labels);
            if listed.contains(&bucket) {
                let digest = series.digest(DigestKey::new(key), select.range_ms.clone(), &mut columns)?;
                let sum = sums.entry((bucket / RANGES, series.labels.hash64())).or_default();
                *sum = sum.wrapping_add(u128::from_le_bytes(digest.to_bytes()));
            }
        }
        let is_owner = |set: u32| {
            let owners = buckets.owners(set * RANGES);
            owners.zip(me).is_some_and(|(owners, me)| owners.contains(&me))
        };
        let mut sketches: BTreeMap<u32, Sketch> = BTreeMap::new();
        if *is_sketched {
            let sized = |(set, listed)| (set, buckets.sketch(set, listed));
            sketches = by_set(listed).into_iter().filter(|(set, _)| is_owner(*set)).map(sized).collect();
        }
        let mut marks = Vec::new();
        for ((set, hash), fingerprint) in sums {
            match sketches.get_mut(&set) {
                Some(sketch) => sketch.add(Mark { hash, fingerprint }),
                None if is_owner(set) => marks.push(Mark { hash, fingerprint }),
                // What a store has without being its owner gets a mark that no owner's equals.
                None => marks.push(Mark { hash, fingerprint: !fingerprint }),
            }
        }
        own.marks.push(marks);
        own.sketches.push(sketches);
    }
    Ok(own)
}

/// Of buckets, how many each set of owners has.
pub(super) fn by_set(buckets: &BTreeSet<u32>) -> BTreeMap<u32, usize> {
    let mut sets = BTreeMap::new();
    for bucket in buckets {
        *sets.entry(bucket / RANGES).or_default() += 1;
    }
    sets
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

    use ring::{ClusterId, Document};
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
    fn buckets_of_each_set_of_owners_are_counted() {
        let view = view();
        let tenant = TenantId::new("t").unwrap();
        let buckets = Buckets::new(view.current(), &tenant);
        let mut seen: BTreeSet<u32> = BTreeSet::new();
        for range in view.current().ranges() {
            let set = buckets.numbers[&sorted(range.owners)];
            let (first, last) = (of_token(*range.keys().start()), of_token(*range.keys().end()));
            seen.extend((first..=last).map(|i| set * RANGES + i));
        }
        let counts = by_set(&seen);
        assert!(counts.into_iter().eq((0..).zip(buckets.counts.iter().copied())));
        assert!(buckets.counts.len() > 1 && buckets.counts.iter().any(|count| *count < RANGES as usize));
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
