//! Matchers → ids of series: the one planner, for the head's postings in memory and for a block's on disk.
//!
//! Steps: sort the matchers by what they are able to do.
//!
//! 1. A matcher that refuses the empty string *selects*: the union of the lists of the values that pass.
//! 2. One that passes it also passes series without the label, so it *excludes*: the union of the lists of the values
//!    that don't pass is taken away. `=~".*"` excludes nothing. (Reading `=~".*"` as "has the label" is Thanos 2475.)
//! 3. Selecting matchers that spell out their values are intersected first, smallest first.
//! 4. Matchers that would have to look at every value of a label are then either resolved so, or, where fewer series
//!    are left than there are values to look at, judged on those series' own labels.
//!
//! Assumes that a list holds ascending ids without repeats, and that a value without series has no list.

use roaring::RoaringBitmap;

use crate::Result;
use crate::model::Matcher;

/// Judging a series by its own labels costs about as much as looking at this many values.
const SERIES_COST_IN_VALUES: u64 = 4;

/// Ids of the series with one label pair, in whatever form the source holds them.
pub trait IdList {
    /// How many ids.
    fn len(&self) -> u64;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the ids to `set`.
    fn add_to(&self, set: &mut RoaringBitmap);

    /// Leaves in `set` the ids that are also here.
    fn retain_in(&self, set: &mut RoaringBitmap);

    /// Takes the ids out of `set`.
    fn remove_from(&self, set: &mut RoaringBitmap);
}

/// Where the planner finds lists.
pub trait PostingsSource {
    /// A list.
    type List<'a>: IdList
    where
        Self: 'a;

    /// Ids of all series.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) where the list on disk is damaged; the same holds for the others.
    fn all(&self) -> Result<RoaringBitmap>;

    /// The list of `name="value"`; `None` where no series has it.
    ///
    /// # Errors
    /// As [`PostingsSource::all`].
    fn list(&self, name: &str, value: &str) -> Result<Option<Self::List<'_>>>;

    /// How many values `name` has, or a guess.
    fn value_count(&self, name: &str) -> u64;

    /// Visits the lists of those values of `name` that begin with `prefix` and that `wanted` accepts.
    ///
    /// # Errors
    /// As [`PostingsSource::all`].
    fn scan<'a>(
        &'a self,
        name: &str,
        prefix: &str,
        wanted: &mut dyn FnMut(&str) -> bool,
        visit: &mut dyn FnMut(Self::List<'a>),
    ) -> Result<()>;

    /// Leaves in `ids` the series whose own labels pass all of `matchers`. A source that can't look at labels by id
    /// returns false and leaves `ids` alone.
    ///
    /// # Errors
    /// As [`PostingsSource::all`].
    fn filter(&self, ids: &mut RoaringBitmap, matchers: &[&Matcher]) -> Result<bool> {
        let _ = (ids, matchers);
        Ok(false)
    }
}

/// Ids of the series that pass all `matchers`; without matchers, of all series.
///
/// # Errors
/// [`Error::Corrupt`](crate::Error::Corrupt) where a list on disk is damaged.
pub fn find<S: PostingsSource>(source: &S, matchers: &[Matcher]) -> Result<RoaringBitmap> {
    let mut named = Vec::new();
    let mut excluded = Vec::new();
    let mut scanned: Vec<&Matcher> = Vec::new();
    for matcher in matchers.iter().filter(|m| !m.matches_all()) {
        let empty_passes = matcher.matches_empty();
        // `!=""` and `=~".+"` pass every value: a set of them would be the whole label.
        let values = if empty_passes { matcher.inverse() } else { matcher.clone() };
        match (values.set_matches(), empty_passes) {
            (Some(set), false) => {
                let lists = lists(source, matcher.name(), &set)?;
                if lists.is_empty() {
                    return Ok(RoaringBitmap::new());
                }
                named.push(lists);
            }
            (Some(set), true) => excluded.push(lists(source, matcher.name(), &set)?),
            (None, _) => scanned.push(matcher),
        }
    }

    named.sort_by_key(|lists| lists.iter().map(IdList::len).sum::<u64>());
    let mut found = None;
    for lists in named {
        match &mut found {
            None => found = Some(union(&lists)),
            Some(found) => intersect(found, &lists),
        }
        if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
            return Ok(RoaringBitmap::new());
        }
    }

    // The matcher with the fewest values first; those that select before those that exclude.
    scanned.sort_by_key(|m| (m.matches_empty(), source.value_count(m.name())));
    let mut rest = scanned.as_slice();
    while let Some((matcher, others)) = rest.split_first() {
        if let Some(found) = &mut found {
            let values: u64 = rest.iter().map(|m| source.value_count(m.name())).sum();
            if found.len().saturating_mul(SERIES_COST_IN_VALUES) < values && source.filter(found, rest)? {
                break;
            }
        }
        scan_one(source, matcher, &mut found)?;
        if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
            return Ok(RoaringBitmap::new());
        }
        rest = others;
    }

    let mut found = found.map_or_else(|| source.all(), Ok)?;
    for list in excluded.iter().flatten() {
        list.remove_from(&mut found);
    }
    Ok(found)
}

/// Applies a matcher by looking at all values of its label.
fn scan_one<S: PostingsSource>(
    source: &S,
    matcher: &Matcher,
    found: &mut Option<RoaringBitmap>,
) -> Result<()> {
    let name = matcher.name();
    if matcher.matches_empty() {
        let mut base = match found.take() {
            Some(found) => found,
            None => source.all()?,
        };
        // What fails a pattern has no common prefix; what fails `!~` is what passes the pattern, and has one.
        let inverse = matcher.inverse();
        let mut refused = |value: &str| inverse.matches(value);
        source.scan(name, inverse.prefix(), &mut refused, &mut |list| list.remove_from(&mut base))?;
        *found = Some(base);
        return Ok(());
    }
    let mut selected = RoaringBitmap::new();
    let mut wanted = |value: &str| matcher.matches(value);
    source.scan(name, matcher.prefix(), &mut wanted, &mut |list| list.add_to(&mut selected))?;
    match found {
        None => *found = Some(selected),
        Some(found) => *found &= selected,
    }
    Ok(())
}

fn lists<'a, S: PostingsSource>(source: &'a S, name: &str, values: &[&str]) -> Result<Vec<S::List<'a>>> {
    // A value "" in a set that selects can't be: such a matcher passes the empty string and excludes.
    let mut lists = Vec::with_capacity(values.len());
    for value in values {
        lists.extend(source.list(name, value)?);
    }
    Ok(lists)
}

fn union<L: IdList>(lists: &[L]) -> RoaringBitmap {
    let mut set = RoaringBitmap::new();
    for list in lists {
        list.add_to(&mut set);
    }
    set
}

fn intersect<L: IdList>(found: &mut RoaringBitmap, lists: &[L]) {
    match lists {
        [list] => list.retain_in(found),
        lists => *found &= union(lists),
    }
}

impl IdList for &RoaringBitmap {
    fn len(&self) -> u64 {
        RoaringBitmap::len(self)
    }

    fn add_to(&self, set: &mut RoaringBitmap) {
        *set |= *self;
    }

    fn retain_in(&self, set: &mut RoaringBitmap) {
        *set &= *self;
    }

    fn remove_from(&self, set: &mut RoaringBitmap) {
        *set -= *self;
    }
}
