//! Groups of series by some of their labels, numbered: labels are compared once a series, integers from then on.

use std::sync::Arc;

use hashbrown::HashTable;
use tsdb::model::{Labels, METRIC_NAME};
use xxhash_rust::xxh3::xxh3_64;

use super::labels::is_metadata;
use crate::plan::Aggregate;

/// Which labels make the key of `by`, `without`, `on` and `ignoring`.
#[derive(Clone, Debug)]
pub(crate) struct KeySpec {
    /// Only `names` count (`by`, `on`); else all but `names` and the metric's name (`without`, `ignoring`).
    only: bool,
    /// Sorted.
    names: Vec<Arc<str>>,
}

impl KeySpec {
    pub(crate) fn only(names: &[Arc<str>]) -> Self {
        Self { only: true, names: names.to_vec() }
    }

    pub(crate) fn all_but(names: &[Arc<str>]) -> Self {
        Self { only: false, names: names.to_vec() }
    }

    /// What an aggregation groups by.
    pub(crate) fn of(node: &Aggregate) -> Self {
        if node.without { Self::all_but(&node.grouping) } else { Self::only(&node.grouping) }
    }

    fn lists(&self, name: &str) -> bool {
        self.names.binary_search_by(|n| (**n).cmp(name)).is_ok()
    }

    /// Whether a key is another one where a metric's name, type and unit are missing.
    pub(crate) fn looks_at_metadata(&self) -> bool {
        !self.only || self.names.iter().any(|name| is_metadata(name))
    }

    /// Whether a label belongs to the key.
    pub(crate) fn takes(&self, name: &str) -> bool {
        if self.only { self.lists(name) } else { name != METRIC_NAME && !self.lists(name) }
    }

    /// The labels of the key.
    pub(crate) fn labels(&self, of: &Labels) -> Labels {
        if self.only && self.names.is_empty() {
            Labels::default()
        } else {
            of.filtered(|name| self.takes(name))
        }
    }

    /// Appends the key's bytes: equal exactly for equal keys.
    fn write(&self, labels: &Labels, key: &mut Vec<u8>) {
        if self.only && self.names.is_empty() {
            return;
        }
        for (name, value) in labels.iter().filter(|(name, _)| self.takes(name)) {
            for text in [name, value] {
                key.extend_from_slice(&(text.len() as u64).to_le_bytes());
                key.extend_from_slice(text.as_bytes());
            }
        }
    }
}

/// What an entry of an index takes beside its bytes.
const ENTRY_BYTES: usize = 48;

/// Numbers keys in the order of their first appearance.
#[derive(Debug)]
pub(crate) struct KeyIndex<'a> {
    spec: &'a KeySpec,
    table: HashTable<(u64, u32)>,
    keys: Vec<Box<[u8]>>,
    buffer: Vec<u8>,
}

impl<'a> KeyIndex<'a> {
    pub(crate) fn new(spec: &'a KeySpec) -> Self {
        Self { spec, table: HashTable::new(), keys: Vec::new(), buffer: Vec::new() }
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Bytes of the newest key and of the labels made for it, where each key has its group.
    pub(crate) fn newest_bytes(&self) -> usize {
        2 * (self.keys.last().map_or(0, |key| key.len()) + ENTRY_BYTES)
    }

    /// The number of the key of `labels`, if it is known.
    pub(crate) fn find(&mut self, labels: &Labels) -> Option<usize> {
        let hash = self.load(labels);
        self.lookup(hash)
    }

    /// The number of the key of `labels`; a new key gets the next one.
    pub(crate) fn number(&mut self, labels: &Labels) -> usize {
        let hash = self.load(labels);
        if let Some(number) = self.lookup(hash) {
            return number;
        }
        let number = self.keys.len();
        self.keys.push(self.buffer.as_slice().into());
        let entry = (hash, u32::try_from(number).expect("fewer than 2^32 series are in memory"));
        self.table.insert_unique(hash, entry, |(hash, _)| *hash);
        number
    }

    fn load(&mut self, labels: &Labels) -> u64 {
        self.buffer.clear();
        self.spec.write(labels, &mut self.buffer);
        xxh3_64(&self.buffer)
    }

    fn lookup(&self, hash: u64) -> Option<usize> {
        // Comparing nothing at the address of an empty box takes glibc 150 ns: a vector load without a page to load from.
        let is_key = |key: &[u8]| key.len() == self.buffer.len() && (key.is_empty() || *key == *self.buffer);
        let same = |(h, n): &(u64, u32)| *h == hash && is_key(&self.keys[*n as usize]);
        self.table.find(hash, same).map(|(_, number)| *number as usize)
    }
}

/// Numbers whole label sets in the order of their first appearance.
#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    table: HashTable<(u64, u32)>,
    labels: Vec<Labels>,
}

impl LabelIndex {
    /// The number of `labels`, and whether they are new: then they got the next number.
    pub(crate) fn number(&mut self, labels: &Labels) -> (usize, bool) {
        let hash = labels.hash64();
        let same = |(h, n): &(u64, u32)| *h == hash && self.labels[*n as usize] == *labels;
        if let Some((_, number)) = self.table.find(hash, same) {
            return (*number as usize, false);
        }
        let number = self.labels.len();
        self.labels.push(labels.clone());
        let entry = (hash, u32::try_from(number).expect("fewer than 2^32 series are in memory"));
        self.table.insert_unique(hash, entry, |(hash, _)| *hash);
        (number, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn keys_differ_where_labels_do() {
        let spec = KeySpec::only(&["a".into(), "b".into()]);
        let mut index = KeyIndex::new(&spec);
        assert_eq!(index.number(&labels(&[("a", "aa"), ("b", "bb")])), 0);
        assert_eq!(index.number(&labels(&[("a", "a"), ("b", "abb")])), 1);
        assert_eq!(index.number(&labels(&[("a", "aa"), ("b", "bb"), ("c", "x")])), 0);
        assert_eq!(index.find(&labels(&[("c", "x")])), None);
    }

    #[test]
    fn the_metric_name_counts_only_where_it_is_asked_for() {
        let (x, y) = (labels(&[("__name__", "x"), ("a", "1")]), labels(&[("__name__", "y"), ("a", "1")]));
        let without = KeySpec::all_but(&[]);
        let mut index = KeyIndex::new(&without);
        assert_eq!(index.number(&x), index.number(&y));
        let by = KeySpec::only(&["__name__".into()]);
        let mut index = KeyIndex::new(&by);
        assert_ne!(index.number(&x), index.number(&y));
    }
}
