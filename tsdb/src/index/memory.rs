//! The head's postings: label name → value → ids of series.
//!
//! Most values belong to very few series or to very many, so a list starts as one id, becomes a short vector and then
//! a roaring bitmap. Names and values are kept sorted: answers are sorted, and a pattern's prefix bounds the values
//! that it looks at.

use std::collections::BTreeMap;
use std::ops::Bound;

use roaring::RoaringBitmap;

use super::postings::{IdList, PostingsSource};
use crate::Result;
use crate::model::Labels;

/// Longest list held as a vector: beyond, a bitmap's fixed cost of about 100 bytes pays.
const VECTOR_IDS_MAX: usize = 32;

/// Postings in memory. Ids are given by the caller; new ones usually grow.
#[derive(Clone, Debug, Default)]
pub struct MemoryPostings {
    names: BTreeMap<Box<str>, BTreeMap<Box<str>, List>>,
    all: RoaringBitmap,
}

#[derive(Clone, Debug)]
enum List {
    One(u32),
    /// Sorted.
    Few(Vec<u32>),
    Many(Box<RoaringBitmap>),
}

impl MemoryPostings {
    /// Adds a series under each of its labels; adding it again changes nothing.
    pub fn add(&mut self, id: u32, labels: &Labels) {
        self.all.insert(id);
        for (name, value) in labels {
            let values = match self.names.get_mut(name) {
                Some(values) => values,
                None => self.names.entry(name.into()).or_default(),
            };
            match values.get_mut(value) {
                Some(list) => list.insert(id),
                None => {
                    values.insert(value.into(), List::One(id));
                }
            }
        }
    }

    /// Adds series under one of their labels; `ids` ascend. The caller adds them under all others too, and by
    /// [`MemoryPostings::add_ids`].
    pub(crate) fn add_to_list(&mut self, name: &str, value: &str, ids: &[u32]) {
        let values = match self.names.get_mut(name) {
            Some(values) => values,
            None => self.names.entry(name.into()).or_default(),
        };
        match (values.get_mut(value), ids) {
            (Some(list), ids) => list.extend(ids),
            (None, [first, others @ ..]) => {
                let mut list = List::One(*first);
                list.extend(others);
                values.insert(value.into(), list);
            }
            (None, []) => {}
        }
    }

    /// Adds series as such; `ids` ascend.
    pub(crate) fn add_ids(&mut self, ids: &[u32]) {
        self.all |= ids.iter().copied().collect::<RoaringBitmap>();
    }

    /// Removes a series that was added with these labels.
    pub fn remove(&mut self, id: u32, labels: &Labels) {
        self.all.remove(id);
        for (name, value) in labels {
            let Some(values) = self.names.get_mut(name) else { continue };
            if values.get_mut(value).is_some_and(|list| list.remove(id)) {
                values.remove(value);
            }
            if values.is_empty() {
                self.names.remove(name);
            }
        }
    }

    /// Removes many series by one walk over all lists.
    pub fn remove_all(&mut self, ids: &RoaringBitmap) {
        self.all -= ids;
        self.names.retain(|_, values| {
            values.retain(|_, list| match list {
                List::Many(set) => {
                    **set -= ids;
                    list.shrink();
                    !list.is_empty()
                }
                list => !list.retain(|id| !ids.contains(id)),
            });
            !values.is_empty()
        });
    }

    /// Ids of all series.
    pub fn ids(&self) -> &RoaringBitmap {
        &self.all
    }

    /// All label names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|name| &**name)
    }

    /// All values of a label, sorted, with the number of series of each.
    pub fn values(&self, name: &str) -> impl Iterator<Item = (&str, u64)> {
        self.names.get(name).into_iter().flatten().map(|(value, list)| (&**value, list.len()))
    }

    /// The label names, sorted, that some series of `ids` has.
    pub fn names_of<'a>(&'a self, ids: &'a RoaringBitmap) -> impl Iterator<Item = &'a str> {
        let names = self.names.iter().filter(|(_, values)| values.values().any(|list| list.meets(ids)));
        names.map(|(name, _)| &**name)
    }

    /// The values of a label, sorted, that some series of `ids` has.
    pub fn values_of<'a>(&'a self, name: &str, ids: &'a RoaringBitmap) -> impl Iterator<Item = &'a str> {
        let values = self.names.get(name).into_iter().flatten();
        values.filter(|(_, list)| list.meets(ids)).map(|(value, _)| &**value)
    }
}

impl PostingsSource for MemoryPostings {
    type List<'a> = &'a dyn IdList;

    fn all(&self) -> Result<RoaringBitmap> {
        Ok(self.all.clone())
    }

    fn list(&self, name: &str, value: &str) -> Result<Option<&dyn IdList>> {
        Ok(self.names.get(name).and_then(|values| values.get(value)).map(|list| list as &dyn IdList))
    }

    fn value_count(&self, name: &str) -> u64 {
        self.names.get(name).map_or(0, |values| values.len() as u64)
    }

    fn scan<'a>(
        &'a self,
        name: &str,
        prefix: &str,
        wanted: &mut dyn FnMut(&str) -> bool,
        visit: &mut dyn FnMut(&'a dyn IdList),
    ) -> Result<()> {
        let Some(values) = self.names.get(name) else { return Ok(()) };
        let from = (Bound::Included(prefix), Bound::Unbounded);
        for (value, list) in values.range::<str, _>(from).take_while(|(value, _)| value.starts_with(prefix)) {
            if wanted(value) {
                visit(list);
            }
        }
        Ok(())
    }
}

impl List {
    fn insert(&mut self, id: u32) {
        match self {
            Self::One(only) if *only == id => {}
            Self::One(only) => *self = Self::Few(vec![id.min(*only), id.max(*only)]),
            Self::Few(ids) => {
                if let Err(at) = ids.binary_search(&id) {
                    ids.insert(at, id);
                }
                if ids.len() > VECTOR_IDS_MAX {
                    *self = Self::Many(Box::new(ids.iter().copied().collect()));
                }
            }
            Self::Many(ids) => {
                ids.insert(id);
            }
        }
    }

    /// Adds ascending ids.
    fn extend(&mut self, ids: &[u32]) {
        match self {
            Self::Many(set) => **set |= ids.iter().copied().collect::<RoaringBitmap>(),
            few if ids.len() <= VECTOR_IDS_MAX => ids.iter().for_each(|id| few.insert(*id)),
            few => {
                let mut all: RoaringBitmap = ids.iter().copied().collect();
                few.add_to(&mut all);
                *few = Self::Many(Box::new(all));
            }
        }
    }

    /// Removes an id, and tells whether none is left: the caller then drops the list.
    fn remove(&mut self, id: u32) -> bool {
        match self {
            Self::One(only) => return *only == id,
            Self::Few(ids) => {
                if let Ok(at) = ids.binary_search(&id) {
                    ids.remove(at);
                }
            }
            Self::Many(ids) => drop(ids.remove(id)),
        }
        self.shrink();
        self.is_empty()
    }

    /// Keeps the ids that `keep` accepts, and tells whether none is left: the caller then drops the list.
    fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) -> bool {
        match self {
            Self::One(id) => return !keep(*id),
            Self::Few(ids) => ids.retain(|id| keep(*id)),
            Self::Many(ids) => ids.retain(keep),
        }
        self.shrink();
        self.is_empty()
    }

    fn shrink(&mut self) {
        if let Self::Many(ids) = self
            && ids.len() <= VECTOR_IDS_MAX as u64 / 2
        {
            *self = Self::Few(ids.iter().collect());
        }
        if let Self::Few(ids) = self
            && let [only] = ids[..]
        {
            *self = Self::One(only);
        }
    }

    fn meets(&self, other: &RoaringBitmap) -> bool {
        match self {
            Self::One(id) => other.contains(*id),
            Self::Few(ids) => ids.iter().any(|id| other.contains(*id)),
            Self::Many(ids) => !ids.is_disjoint(other),
        }
    }

    fn few(&self) -> Result<&[u32], &RoaringBitmap> {
        match self {
            Self::One(id) => Ok(std::slice::from_ref(id)),
            Self::Few(ids) => Ok(ids),
            Self::Many(ids) => Err(ids),
        }
    }
}

impl IdList for List {
    fn len(&self) -> u64 {
        self.few().map_or_else(RoaringBitmap::len, |ids| ids.len() as u64)
    }

    fn add_to(&self, set: &mut RoaringBitmap) {
        match self.few() {
            Ok(ids) => set.extend(ids),
            Err(ids) => *set |= ids,
        }
    }

    fn retain_in(&self, set: &mut RoaringBitmap) {
        match self.few() {
            Ok(ids) => *set = ids.iter().filter(|id| set.contains(**id)).copied().collect(),
            Err(ids) => *set &= ids,
        }
    }

    fn remove_from(&self, set: &mut RoaringBitmap) {
        match self.few() {
            Ok(ids) => {
                for id in ids {
                    set.remove(*id);
                }
            }
            Err(ids) => *set -= ids,
        }
    }
}

impl IdList for &dyn IdList {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn add_to(&self, set: &mut RoaringBitmap) {
        (**self).add_to(set);
    }

    fn retain_in(&self, set: &mut RoaringBitmap) {
        (**self).retain_in(set);
    }

    fn remove_from(&self, set: &mut RoaringBitmap) {
        (**self).remove_from(set);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;
    use crate::index::postings::find;
    use crate::model::{MatchOp, Matcher};

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    fn matcher(op: MatchOp, name: &str, value: &str) -> Matcher {
        Matcher::new(op, name, value).unwrap()
    }

    fn postings(series: &[Labels]) -> MemoryPostings {
        let mut postings = MemoryPostings::default();
        for (id, labels) in series.iter().enumerate() {
            postings.add(id as u32, labels);
        }
        postings
    }

    #[test]
    fn a_matcher_that_passes_the_empty_string_selects_series_without_the_label() {
        let postings = postings(&[labels(&[("a", "1")]), labels(&[("a", "2")]), labels(&[("b", "1")])]);
        let ids = |op, value| find(&postings, &[matcher(op, "a", value)]).unwrap().iter().collect::<Vec<_>>();
        assert_eq!(ids(MatchOp::Regex, ".*"), [0, 1, 2]);
        assert_eq!(ids(MatchOp::Regex, ".+"), [0, 1]);
        assert_eq!(ids(MatchOp::Regex, "1?"), [0, 2]);
        assert_eq!(ids(MatchOp::NotEqual, "1"), [1, 2]);
        assert_eq!(ids(MatchOp::NotEqual, ""), [0, 1]);
        assert_eq!(ids(MatchOp::Equal, ""), [2]);
        assert_eq!(ids(MatchOp::NotRegex, "1|"), [1]);
        assert_eq!(ids(MatchOp::NotRegex, ".*"), [0u32; 0]);
        assert_eq!(ids(MatchOp::NotRegex, "1.*"), [1, 2]);
    }

    #[test]
    fn a_list_survives_growing_and_shrinking() {
        let one = labels(&[("a", "1")]);
        let mut postings = MemoryPostings::default();
        for id in (0..1000).rev() {
            postings.add(id, &one);
            postings.add(id, &one);
        }
        assert_eq!(postings.values("a").collect::<Vec<_>>(), [("1", 1000)]);
        postings.remove_all(&(5..990).collect());
        for id in 990..1000 {
            postings.remove(id, &one);
        }
        assert_eq!(find(&postings, &[Matcher::equal("a", "1")]).unwrap(), (0..5).collect());
        postings.remove_all(&(0..5).collect());
        assert_eq!(postings.names().count(), 0);
        assert!(postings.ids().is_empty());
    }

    /// Counts the values looked at, and judges series by their labels.
    struct Judge {
        series: Vec<Labels>,
        postings: MemoryPostings,
        scanned: Cell<u64>,
    }

    impl PostingsSource for Judge {
        type List<'a> = &'a dyn IdList;

        fn all(&self) -> Result<RoaringBitmap> {
            self.postings.all()
        }

        fn list(&self, name: &str, value: &str) -> Result<Option<&dyn IdList>> {
            self.postings.list(name, value)
        }

        fn value_count(&self, name: &str) -> u64 {
            self.postings.value_count(name)
        }

        fn scan<'a>(
            &'a self,
            name: &str,
            prefix: &str,
            wanted: &mut dyn FnMut(&str) -> bool,
            visit: &mut dyn FnMut(&'a dyn IdList),
        ) -> Result<()> {
            let mut counted = |value: &str| {
                self.scanned.set(self.scanned.get() + 1);
                wanted(value)
            };
            self.postings.scan(name, prefix, &mut counted, visit)
        }

        fn filter(&self, ids: &mut RoaringBitmap, matchers: &[&Matcher]) -> Result<bool> {
            let passes =
                |id: u32| matchers.iter().all(|m| m.matches(self.series[id as usize].value(m.name())));
            *ids = ids.iter().filter(|id| passes(*id)).collect();
            Ok(true)
        }
    }

    #[test]
    fn few_series_are_judged_by_their_labels_instead_of_all_values_by_the_pattern() {
        let series: Vec<_> = (0..1000)
            .map(|i| {
                labels(&[("__name__", if i < 10 { "few" } else { "many" }), ("pod", &format!("pod-{i}"))])
            })
            .collect();
        let source = Judge { postings: postings(&series), series, scanned: Cell::new(0) };
        let pattern = matcher(MatchOp::Regex, "pod", "(pod|x).*[37]");
        let found = find(&source, &[pattern.clone(), Matcher::equal("__name__", "few")]).unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), [3, 7]);
        assert_eq!(source.scanned.get(), 0);
        assert_eq!(find(&source, &[pattern, Matcher::equal("__name__", "many")]).unwrap().len(), 198);
        assert_eq!(source.scanned.get(), 1000);
        source.scanned.set(0);
        assert_eq!(find(&source, &[matcher(MatchOp::Regex, "pod", "pod-99.*")]).unwrap().len(), 11);
        assert_eq!(source.scanned.get(), 11);
    }

    fn any_matcher() -> impl Strategy<Value = Matcher> {
        let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
        let values = ["", "1", "2", "1|2", "1|", ".*", ".+", "1.*", "[^1]", "[12]?", "x"];
        (prop::sample::select(ops.to_vec()), "[abc]", prop::sample::select(values.to_vec()))
            .prop_map(|(op, name, value)| matcher(op, &name, value))
    }

    proptest! {
        #[test]
        fn the_planner_finds_what_looking_at_every_series_finds(
            series in prop::collection::vec(prop::collection::btree_map("[abc]", "[123]{1,2}", 0..4), 0..40),
            matchers in prop::collection::vec(any_matcher(), 0..4),
            removed in prop::collection::vec(0u32..40, 0..10),
        ) {
            let series: Vec<_> = series.iter().map(|m|
                Labels::from_sorted(m.iter().map(|(n, v)| (n.as_str(), v.as_str())))).collect();
            let mut postings = postings(&series);
            for id in &removed[..removed.len() / 2] {
                if let Some(labels) = series.get(*id as usize) {
                    postings.remove(*id, labels);
                }
            }
            postings.remove_all(&removed.iter().copied().collect());
            let expected: Vec<u32> = (0..series.len() as u32)
                .filter(|id| !removed.contains(id))
                .filter(|id| matchers.iter().all(|m| m.matches(series[*id as usize].value(m.name()))))
                .collect();
            let found = find(&postings, &matchers).unwrap();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected.clone());
            let judge = Judge { postings, series, scanned: Cell::new(0) };
            let found = find(&judge, &matchers).unwrap();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        }
    }
}
