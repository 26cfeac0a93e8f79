//! In which series owners differ, by what they tell of them.

use std::collections::{BTreeMap, BTreeSet};

use ring::{StoreId, StoreIndex, View};
use tsdb::digest::Digest;

use super::super::super::digests::{Buckets, RANGES, by_set};
use super::super::super::own::Own;
use super::super::super::sketch::{Difference, Sketch};
use crate::grpc::read::Mark;

/// What each store tells.
pub(super) type Answers = BTreeMap<StoreId, Own>;

/// Series in which owners differ.
#[derive(Default)]
pub(super) struct Unlike {
    /// By selection, hashes of labels.
    pub series: Vec<BTreeSet<u64>>,
    /// From whom their chunks are fetched.
    pub wanted: BTreeMap<StoreId, Vec<BTreeMap<u64, Option<Digest>>>>,
}

/// By selection, the buckets that aren't the same at all of their owners, or of which somebody else has something. `None`
/// where there is no such bucket.
pub(super) fn unequal_buckets(
    view: &View,
    buckets: &Buckets<'_>,
    answers: &Answers,
) -> Option<Vec<BTreeSet<u32>>> {
    let selects = answers.values().map(|own| own.marks.len()).max().unwrap_or(0);
    let mut unequal = Vec::with_capacity(selects);
    for select in 0..selects {
        let mut told: BTreeMap<u32, BTreeMap<StoreIndex, u128>> = BTreeMap::new();
        for (store, own) in answers {
            let index = view.index(*store)?;
            for mark in &own.marks[select] {
                let bucket = u32::try_from(mark.hash).ok()?;
                told.entry(bucket).or_default().insert(index, mark.fingerprint);
            }
        }
        let mut of_select = BTreeSet::new();
        for (bucket, told) in told {
            let owners = buckets.owners(bucket)?;
            let first = told.values().next();
            if !told.keys().eq(owners) || told.values().any(|digest| Some(digest) != first) {
                of_select.insert(bucket);
            }
        }
        unequal.push(of_select);
    }
    Some(unequal)
}

/// Whether sketches of listed buckets take fewer bytes than marks of their series, where a bucket has about `each`.
pub(super) fn is_shorter_sketched(buckets: &Buckets<'_>, listed: &[BTreeSet<u32>], each: usize) -> bool {
    let sketched = |(set, listed)| buckets.sketch(set, listed).bytes();
    let sketches = listed.iter().flat_map(by_set).map(sketched).sum::<usize>();
    sketches < listed.iter().map(BTreeSet::len).sum::<usize>() * each * size_of::<Mark>()
}

impl Unlike {
    /// None, of so many selections.
    pub(super) fn of(selections: usize) -> Self {
        Self { series: vec![BTreeSet::new(); selections], wanted: BTreeMap::new() }
    }

    /// Takes in what marks tell: series that aren't the same at all `copies` owners.
    pub(super) fn read_marks(&mut self, answers: &Answers, me: StoreId, copies: usize) {
        for select in 0..self.series.len() {
            let mut told: BTreeMap<u64, Vec<(StoreId, u128)>> = BTreeMap::new();
            for (store, own) in answers {
                for mark in &own.marks[select] {
                    told.entry(mark.hash).or_default().push((*store, mark.fingerprint));
                }
            }
            for (hash, told) in told {
                if told.len() != copies || told.iter().any(|(_, digest)| *digest != told[0].1) {
                    self.differs(select, hash, told, me);
                }
            }
        }
    }

    /// Takes in what sketches tell of listed buckets. Gives those of which they tell nothing.
    pub(super) fn read_sketches(
        &mut self,
        view: &View,
        buckets: &Buckets<'_>,
        answers: &Answers,
        me: StoreId,
        listed: &[BTreeSet<u32>],
    ) -> Vec<BTreeSet<u32>> {
        let mut unread = vec![BTreeSet::new(); listed.len()];
        for (select, listed) in listed.iter().enumerate() {
            // Somebody has series there without being an owner.
            let is_strange = answers.values().any(|own| !own.marks[select].is_empty());
            for set in by_set(listed).into_keys() {
                let owners = buckets.owners(set * RANGES).filter(|_| !is_strange).unwrap_or_default();
                let sketched = |owner: &StoreIndex| {
                    let store = view.store(*owner);
                    Some((store, answers.get(&store)?.sketches.get(select)?.get(&set)?))
                };
                let sketches: Option<Vec<_>> = owners.iter().map(sketched).collect();
                let Some(versions) = sketches.as_deref().and_then(versions) else {
                    let of_set = listed.iter().filter(|bucket| *bucket / RANGES == set);
                    unread[select].extend(of_set.copied());
                    continue;
                };
                for (hash, told) in versions {
                    self.differs(select, hash, told, me);
                }
            }
        }
        unread
    }

    /// Of a series there is not one version. Each one that `me` hasn't is fetched.
    fn differs(&mut self, select: usize, hash: u64, told: Vec<(StoreId, u128)>, me: StoreId) {
        let selects = self.series.len();
        self.series[select].insert(hash);
        let mine = told.iter().find(|(store, _)| *store == me).map(|(_, digest)| *digest);
        let mut known: BTreeSet<_> = mine.into_iter().collect();
        for (store, digest) in told {
            if known.insert(digest) {
                let wanted = self.wanted.entry(store).or_insert_with(|| vec![BTreeMap::new(); selects]);
                wanted[select].insert(hash, None);
            }
        }
    }
}

/// By series that owners don't all have alike, who has which version; `None` where sketches don't tell.
fn versions(sketches: &[(StoreId, &Sketch)]) -> Option<BTreeMap<u64, Vec<(StoreId, u128)>>> {
    let ((first, base), others) = sketches.split_first()?;
    let mut of_first = BTreeMap::new();
    let mut of_others = Vec::with_capacity(others.len());
    for (store, sketch) in others {
        let Difference { ours, theirs } = base.difference(sketch)?;
        let ours: BTreeMap<_, _> = ours.into_iter().map(|mark| (mark.hash, mark.fingerprint)).collect();
        let theirs: BTreeMap<_, _> = theirs.into_iter().map(|mark| (mark.hash, mark.fingerprint)).collect();
        of_first.extend(ours.iter().map(|(hash, fingerprint)| (*hash, *fingerprint)));
        of_others.push((*store, ours, theirs));
    }
    let hashes: BTreeSet<u64> =
        of_others.iter().flat_map(|(_, ours, theirs)| ours.keys().chain(theirs.keys())).copied().collect();
    let told = |hash: u64| {
        let of_first = of_first.get(&hash);
        let of_other = |(store, ours, theirs): &(StoreId, BTreeMap<u64, u128>, BTreeMap<u64, u128>)| {
            // What isn't in their difference they have alike.
            let alike = of_first.filter(|_| !ours.contains_key(&hash));
            theirs.get(&hash).or(alike).map(|fingerprint| (*store, *fingerprint))
        };
        let of_first = of_first.map(|fingerprint| (*first, *fingerprint));
        (hash, of_first.into_iter().chain(of_others.iter().filter_map(of_other)).collect())
    };
    Some(hashes.into_iter().map(told).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use ring::{ClusterId, Document};
    use tsdb::model::{Labels, Sample, TenantId};
    use tsdb::select::{Select, Series};

    use super::super::super::super::digests;
    use super::super::super::super::tests::new_member;
    use super::*;
    use crate::grpc::read::{DigestsAsk, SelectAsk};

    const STORES: u128 = 5;

    fn view() -> View {
        let members = (1..=STORES).map(|i| (StoreId(i), new_member(i))).collect();
        View::new(Document::found(ClusterId(1), 1 << 64 | 9, 3, &members).unwrap()).unwrap()
    }

    fn tenant() -> TenantId {
        TenantId::new("t").unwrap()
    }

    /// What all stores tell where each has those of `series` that it keeps, as `of` says of store and series.
    fn told(
        view: &View,
        series: u64,
        listed: Option<&[BTreeSet<u32>]>,
        is_sketched: bool,
        of: impl Fn(u128, u64) -> Option<f64>,
    ) -> Answers {
        let select = Select { matchers: Vec::new(), range_ms: 0..=9, shard: None };
        let select = SelectAsk {
            tenant: tenant(),
            selects: vec![select],
            asked: Vec::new(),
            catalog_version: None,
            wanted: None,
        };
        let ask = DigestsAsk { select, listed: listed.map(<[_]>::to_vec), is_sketched };
        let buckets = Buckets::new(view.current(), &ask.select.tenant);
        let answer = |store: u128| {
            let me = view.index(StoreId(store)).unwrap();
            let one = |i: u64| {
                let labels = Labels::from_sorted([("i", i.to_string().as_str())]);
                let keeps = buckets.owners(buckets.of(&labels)).unwrap().contains(&me);
                let value = of(store, i).filter(|value| keeps || *value < 0.0)?;
                Some(Series::from_samples(labels, &[Sample::float(1, value)]))
            };
            let found = vec![(0..series).filter_map(one).collect()];
            let own = digests::own(view, StoreId(store), &ask, &found, &AtomicBool::default()).unwrap();
            (StoreId(store), own)
        };
        (1..=STORES).map(answer).collect()
    }

    /// By marks and by sketches; and the buckets that those left.
    fn both(of: impl Fn(u128, u64) -> Option<f64> + Copy) -> (Unlike, Unlike, usize) {
        let (view, tenant) = (view(), tenant());
        let buckets = Buckets::new(view.current(), &tenant);
        let told = |listed, is_sketched| told(&view, 4000, listed, is_sketched, of);
        let listed = unequal_buckets(&view, &buckets, &told(None, false)).unwrap();
        let (mut by_marks, mut by_sketches) = (Unlike::of(1), Unlike::of(1));
        by_marks.read_marks(&told(Some(&listed), false), StoreId(2), 3);
        let answers = told(Some(&listed), true);
        let unread = by_sketches.read_sketches(&view, &buckets, &answers, StoreId(2), &listed);
        assert!(unread[0].is_subset(&listed[0]));
        (by_marks, by_sketches, unread[0].len())
    }

    #[test]
    fn sketches_tell_what_lists_of_marks_tell() {
        type Of = fn(u128, u64) -> Option<f64>;
        let differing: [(Of, usize); 5] = [
            (|_, _| Some(1.0), 0),
            (|store, i| Some(if i % 100 == 0 && store == 2 { 2.0 } else { 1.0 }), 40),
            (|store, i| (i % 100 != 0 || store % 2 == 0).then_some(1.0), 40),
            (|store, i| (i % 100 != 0 || store == 5).then_some(1.0), 40),
            (|store, i| Some(if i % 100 == 0 { store as f64 } else { 1.0 }), 40),
        ];
        for (i, (of, most)) in differing.into_iter().enumerate() {
            let (by_marks, by_sketches, unread) = both(of);
            assert_eq!(unread, 0, "{i}");
            assert_eq!(by_sketches.series, by_marks.series, "{i}");
            assert_eq!(by_sketches.wanted, by_marks.wanted, "{i}");
            let found = by_marks.series[0].len();
            assert!(found <= most && found >= most / 4, "{i}: {found}");
        }
    }

    #[test]
    fn what_sketches_cannot_tell_is_left_to_lists() {
        // Somebody has what isn't his.
        let (by_marks, by_sketches, unread) = both(|_, i| Some(if i == 70 { -1.0 } else { 1.0 }));
        assert_eq!((by_marks.series[0].len(), by_sketches.series[0].len(), unread), (1, 0, 1));
        // Of one range of tokens all differ: more than one would think.
        let crowd = |store: u128, i: u64| {
            let labels = Labels::from_sorted([("i", i.to_string().as_str())]);
            let token = ring::hash::series_token("t", labels.iter());
            Some(if token >> 58 == 0 { store as f64 } else { 1.0 })
        };
        let (by_marks, by_sketches, unread) = both(crowd);
        assert!(unread > 0);
        assert!(by_sketches.series[0].len() < by_marks.series[0].len());
        // One gives none, as an older version does.
        let (view, tenant) = (view(), tenant());
        let buckets = Buckets::new(view.current(), &tenant);
        let of = |store, i| Some(if i == 3 { store as f64 } else { 1.0 });
        let listed = unequal_buckets(&view, &buckets, &told(&view, 100, None, false, of)).unwrap();
        let mut answers = told(&view, 100, Some(&listed), true, of);
        answers.values_mut().for_each(|own| own.sketches.clear());
        let mut unlike = Unlike::of(1);
        assert_eq!(unlike.read_sketches(&view, &buckets, &answers, StoreId(2), &listed), listed);
        assert!(unlike.series[0].is_empty());
    }
}
