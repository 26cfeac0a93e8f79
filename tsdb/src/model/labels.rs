//! A series' labels: sorted, unique names, in one shared allocation.
//!
//! Layout: for each pair `varint(name length) name varint(value length) value`, sorted by name. Lengths stand in
//! front, so no separator can occur in a label, equal label sets are equal bytes, and `{a="bc"}` never hashes like
//! `{ab="c"}` (VictoriaMetrics 10937). Labels with an empty value are absent labels and aren't stored.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::METRIC_NAME;
use crate::{Error, Result, varint};

/// A series' labels. Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[u8]>);

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl Labels {
    /// From pairs in any order; pairs with an empty value are dropped.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a name occurs twice.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut pairs: Vec<_> = pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        pairs.sort_unstable_by_key(|(name, _)| *name);
        if let Some(twice) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(Error::Invalid(format!("label {:?} occurs twice", twice[0].0)));
        }
        Ok(Self::from_sorted(pairs))
    }

    /// From pairs already sorted by name, without repeats or empty values.
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut bytes = Vec::with_capacity(128);
        for (name, value) in pairs {
            push_str(&mut bytes, name);
            push_str(&mut bytes, value);
        }
        Self(bytes.into())
    }

    /// The encoded bytes: equal exactly when the labels are equal. For hashing, and for storing as they are.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From bytes that [`Labels::as_bytes`] gave, read back from disk or a peer.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they aren't sorted, unique, non-empty UTF-8 pairs.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let mut previous: Option<&str> = None;
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            let wrong = |reason| Error::corrupt("labels", at, reason);
            let name = take_str(&mut rest).ok_or_else(|| wrong("a name is cut short or isn't UTF-8"))?;
            let value = take_str(&mut rest).ok_or_else(|| wrong("a value is cut short or isn't UTF-8"))?;
            if value.is_empty() || previous.is_some_and(|p| p >= name) {
                return Err(wrong("names aren't sorted and unique, or a value is empty"));
            }
            previous = Some(name);
        }
        Ok(Self(bytes.into()))
    }

    /// From bytes that this process encoded: pieces of other labels, joined in order of name.
    pub(crate) fn from_encoded(bytes: &[u8]) -> Self {
        debug_assert!(Self::from_bytes(bytes).is_ok(), "labels are joined from whole, sorted pairs");
        Self(bytes.into())
    }

    /// Names and values with their lengths in front, as they are stored.
    pub(crate) fn encoded_pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest: &[u8] = &self.0;
        let mut take = move || {
            let before = rest;
            take_bytes(&mut rest).map(|_| &before[..before.len() - rest.len()])
        };
        std::iter::from_fn(move || {
            let name = take()?;
            Some((name, take().expect("labels hold whole pairs")))
        })
    }

    /// xxh3-64 of the encoded bytes.
    pub fn hash64(&self) -> u64 {
        xxh3_64(&self.0)
    }

    /// Pairs in order of name.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.0 }
    }

    /// The value of `name`, if the label exists.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The value of `name`, or `""`, as matchers see it.
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    /// The metric's name, or `""`.
    pub fn metric_name(&self) -> &str {
        self.value(METRIC_NAME)
    }

    /// Whether there is no label at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// The same labels, except those whose name `keep` refuses.
    #[must_use]
    pub fn filtered(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        Self::from_sorted(self.iter().filter(|(name, _)| keep(name)))
    }

    /// The same labels without the metric's name.
    #[must_use]
    pub fn without_name(&self) -> Self {
        if self.get(METRIC_NAME).is_none() {
            return self.clone();
        }
        self.filtered(|name| name != METRIC_NAME)
    }

    /// A builder that starts from these labels.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Pairs of [`Labels`], in order of name.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        if self.rest.is_empty() {
            return None;
        }
        let name = take_str_trusted(&mut self.rest);
        let value = take_str_trusted(&mut self.rest);
        Some((name, value))
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By name, then value, pair by pair: the order of series in an index and in an answer.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        // Neighbours share most of their pairs: those are passed over by their bytes, without being looked into.
        let same = common_prefix(&self.0, &other.0);
        if same == self.0.len() || same == other.0.len() {
            return self.0.len().cmp(&other.0.len());
        }
        let (mut left, mut right) = (self.iter(), other.iter());
        let mut at = 0;
        while let Some(end) = pair_end(&self.0, at).filter(|end| *end <= same) {
            at = end;
        }
        (left.rest, right.rest) = (&self.0[at..], &other.0[at..]);
        left.next().cmp(&right.next())
    }
}

/// How many bytes two slices have in common from the beginning, eight at a time.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let (mut left, mut right) = (a.chunks_exact(8), b.chunks_exact(8));
    let mut same = 0;
    for (a, b) in left.by_ref().zip(right.by_ref()) {
        let differing = word(a) ^ word(b);
        if differing != 0 {
            return same + (differing.trailing_zeros() / 8) as usize;
        }
        same += 8;
    }
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}

/// Where the pair that begins at `at` ends.
fn pair_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut rest = &bytes[at..];
    take_bytes(&mut rest)?;
    take_bytes(&mut rest)?;
    Some(bytes.len() - rest.len())
}

/// As PromQL writes a series: `name{a="b", c="d"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric_name();
        f.write_str(name)?;
        let mut others = self.iter().filter(|(n, _)| *n != METRIC_NAME).peekable();
        if name.is_empty() || others.peek().is_some() {
            f.write_str("{")?;
            for (i, (name, value)) in others.enumerate() {
                write!(f, "{}{name}={value:?}", if i == 0 { "" } else { ", " })?;
            }
            f.write_str("}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Changes labels one at a time; the last value set for a name wins.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(at) if value.is_empty() => drop(self.pairs.remove(at)),
            Ok(at) => value.clone_into(&mut self.pairs[at].1),
            Err(_) if value.is_empty() => {}
            Err(at) => self.pairs.insert(at, (name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.set(name, "")
    }

    /// The labels as they now are.
    pub fn labels(&self) -> Labels {
        Labels::from_sorted(self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())))
    }
}

fn push_str(bytes: &mut Vec<u8>, text: &str) {
    varint::put(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    varint::take(rest).and_then(|length| usize::try_from(length).ok())
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_length(rest)?;
    let (text, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(text)
}

fn take_str<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(rest)?).ok()
}

#[allow(unsafe_code, reason = "a UTF-8 check for each label visited would dominate grouping and matching")]
fn take_str_trusted<'a>(rest: &mut &'a [u8]) -> &'a str {
    let bytes = take_bytes(rest).expect("labels hold whole pairs");
    // SAFETY: every constructor writes `str`s, or checks UTF-8 (`from_bytes`).
    unsafe { std::str::from_utf8_unchecked(bytes) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn boundaries_between_labels_count() {
        assert_ne!(labels(&[("a", "bc")]).hash64(), labels(&[("ab", "c")]).hash64());
    }

    #[test]
    fn an_empty_value_is_an_absent_label() {
        assert_eq!(labels(&[("a", ""), ("b", "1")]), labels(&[("b", "1")]));
    }

    #[test]
    fn a_repeated_name_is_refused() {
        assert!(Labels::from_pairs([("a", "1"), ("a", "2")]).is_err());
    }

    #[test]
    fn shown_as_promql_writes_a_series() {
        assert_eq!(labels(&[("__name__", "up"), ("job", "a\"b")]).to_string(), r#"up{job="a\"b"}"#);
        assert_eq!(labels(&[("__name__", "up")]).to_string(), "up");
        assert_eq!(Labels::default().to_string(), "{}");
    }

    #[test]
    fn a_builder_changes_and_removes() {
        let built = labels(&[("a", "1"), ("b", "2")]).to_builder().set("c", "3").remove("a").labels();
        assert_eq!(built, labels(&[("b", "2"), ("c", "3")]));
    }

    proptest! {
        #[test]
        fn bytes_round_trip(pairs in prop::collection::btree_map("\\PC{0,12}", "\\PC{1,200}", 0..8)) {
            let labels = Labels::from_sorted(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            prop_assert_eq!(&Labels::from_bytes(labels.as_bytes()).unwrap(), &labels);
            let back: Vec<_> = labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(back, pairs.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn hostile_bytes_are_refused_or_canonical(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(labels) = Labels::from_bytes(&bytes) {
                prop_assert_eq!(Labels::from_pairs(labels.iter()).unwrap(), labels);
            }
        }

        #[test]
        fn order_is_that_of_pairs(a in prop::collection::btree_map("[ab]{1,2}", "[xy]{1,2}", 0..4),
                                  b in prop::collection::btree_map("[ab]{1,2}", "[xy]{1,2}", 0..4)) {
            let of = |m: &std::collections::BTreeMap<String, String>|
                Labels::from_sorted(m.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            prop_assert_eq!(of(&a).cmp(&of(&b)), a.iter().cmp(b.iter()));
        }
    }
}
