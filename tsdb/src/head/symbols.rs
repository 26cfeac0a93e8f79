//! The labels of a shard's series: each string once, each series a run of numbers.
//!
//! ```text
//! bytes    | varint length, text | varint length, text | ...      a symbol as `Labels` encodes it
//! ends     end of symbol 0, 1, ...
//! pairs    name, value, name, value | name, value | ...           a series' labels are a run of these
//! ```
//! Strings of series that are gone stay until [`LabelStore::rebuild`]; the shard decides when that pays.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::model::Labels;
use crate::{Error, Result};

/// Most bytes of symbols in a shard: offsets are 32 bits.
const SYMBOL_BYTES_MAX: usize = u32::MAX as usize;
/// Most pairs of one series: their number is 16 bits.
pub(crate) const PAIRS_MAX: usize = u16::MAX as usize;

/// Where a series' labels stand in its shard's store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelsAt {
    /// Index of the first pair's name in `pairs`.
    start: u32,
    /// Number of pairs.
    pairs: u16,
}

/// Interned strings and the labels made of them.
#[derive(Default)]
pub(crate) struct LabelStore {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    table: HashTable<u32>,
    pairs: Vec<u32>,
    /// How often symbols got other numbers.
    rebuilds: u64,
}

impl LabelStore {
    /// Stores labels.
    ///
    /// # Errors
    /// [`Error::Limit`] when the shard's strings or this series' pairs are too many.
    pub(crate) fn add(&mut self, labels: &Labels) -> Result<LabelsAt> {
        let too_many = || Error::Limit("the head holds as many label bytes as it can address".to_owned());
        let start = u32::try_from(self.pairs.len()).map_err(|_| too_many())?;
        let pairs = labels.len();
        if pairs > PAIRS_MAX {
            return Err(Error::Limit(format!("a series has at most {PAIRS_MAX} labels, not {pairs}")));
        }
        if self.bytes.len() + labels.as_bytes().len() > SYMBOL_BYTES_MAX {
            return Err(too_many());
        }
        for (name, value) in labels.encoded_pairs() {
            let pair = [self.intern(name), self.intern(value)];
            self.pairs.extend(pair);
        }
        Ok(LabelsAt { start, pairs: pairs as u16 })
    }

    /// Labels again; `scratch` is overwritten.
    pub(crate) fn labels(&self, at: LabelsAt, scratch: &mut Vec<u8>) -> Labels {
        self.labels_of(self.run(at), scratch)
    }

    /// The labels that symbols stand for: name, value, ...; `scratch` is overwritten.
    pub(crate) fn labels_of(&self, symbols: &[u32], scratch: &mut Vec<u8>) -> Labels {
        scratch.clear();
        symbols.iter().for_each(|symbol| scratch.extend_from_slice(self.symbol(*symbol)));
        Labels::from_encoded(scratch)
    }

    /// Whether the labels at `at` are these.
    pub(crate) fn equal(&self, at: LabelsAt, labels: &Labels) -> bool {
        let mut rest = labels.as_bytes();
        for symbol in self.run(at) {
            let Some(tail) = rest.strip_prefix(self.symbol(*symbol)) else { return false };
            rest = tail;
        }
        rest.is_empty()
    }

    /// Symbol numbers of a series' labels: name, value, ...
    pub(crate) fn run(&self, at: LabelsAt) -> &[u32] {
        &self.pairs[at.start as usize..][..2 * usize::from(at.pairs)]
    }

    /// Bytes of a series' labels as they are stored.
    pub(crate) fn encoded_bytes(&self, at: LabelsAt) -> usize {
        self.run(at).iter().map(|symbol| self.symbol(*symbol).len()).sum()
    }

    /// Stores labels that are made of known symbols.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a symbol doesn't exist.
    pub(crate) fn add_run(&mut self, symbols: &[u32]) -> Result<LabelsAt> {
        if !symbols.len().is_multiple_of(2) || symbols.len() / 2 > PAIRS_MAX {
            return Err(Error::corrupt("labels", 0, "they aren't pairs"));
        }
        if symbols.iter().any(|s| *s as usize >= self.ends.len()) {
            return Err(Error::corrupt("labels", 0, "a symbol doesn't exist"));
        }
        let start = u32::try_from(self.pairs.len())
            .map_err(|_| Error::Limit("the head holds as many labels as it can address".to_owned()))?;
        self.pairs.extend_from_slice(symbols);
        Ok(LabelsAt { start, pairs: (symbols.len() / 2) as u16 })
    }

    /// A symbol's encoded bytes.
    fn symbol(&self, symbol: u32) -> &[u8] {
        symbol_in(&self.bytes, &self.ends, symbol)
    }

    /// All symbols in order of their numbers, encoded.
    pub(crate) fn symbols(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.ends.len() as u32).map(|symbol| self.symbol(symbol))
    }

    /// Number of symbols.
    pub(crate) fn symbol_count(&self) -> usize {
        self.ends.len()
    }

    /// As long as this stays, symbols keep their numbers and there are no others.
    pub(crate) fn version(&self) -> (u64, usize) {
        (self.rebuilds, self.ends.len())
    }

    /// The number of a label's name, if any series has it.
    pub(crate) fn name(&self, name: &str) -> Option<u32> {
        let labels = Labels::from_sorted([(name, "")]);
        let (encoded, _) = labels.encoded_pairs().next()?;
        let same = |s: &u32| symbol_in(&self.bytes, &self.ends, *s) == encoded;
        self.table.find(xxh3_64(encoded), same).copied()
    }

    /// The number of a string in encoded form (varint length, text), which is new or not.
    pub(crate) fn intern(&mut self, encoded: &[u8]) -> u32 {
        let Self { bytes, ends, table, .. } = self;
        let hash = xxh3_64(encoded);
        if let Some(symbol) = table.find(hash, |s| symbol_in(bytes, ends, *s) == encoded) {
            return *symbol;
        }
        let symbol = ends.len() as u32;
        bytes.extend_from_slice(encoded);
        ends.push(bytes.len() as u32);
        table.insert_unique(hash, symbol, |s| xxh3_64(symbol_in(bytes, ends, *s)));
        symbol
    }

    /// Moves what `series` point to into a new store and updates them; everything else is forgotten.
    pub(crate) fn rebuild<'a>(&mut self, series: impl Iterator<Item = &'a mut LabelsAt>) {
        let mut new = Self { rebuilds: self.rebuilds + 1, ..Self::default() };
        let mut moved = vec![u32::MAX; self.ends.len()];
        for at in series {
            let start = new.pairs.len() as u32;
            for symbol in self.run(*at) {
                let to = &mut moved[*symbol as usize];
                if *to == u32::MAX {
                    *to = new.intern(self.symbol(*symbol));
                }
                new.pairs.push(*to);
            }
            at.start = start;
        }
        new.pairs.shrink_to_fit();
        new.bytes.shrink_to_fit();
        new.ends.shrink_to_fit();
        *self = new;
    }

    /// Bytes allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        let table = self.table.capacity() * (size_of::<u32>() + 1);
        self.bytes.capacity() + 4 * (self.ends.capacity() + self.pairs.capacity()) + table
    }
}

fn symbol_in<'a>(bytes: &'a [u8], ends: &[u32], symbol: u32) -> &'a [u8] {
    let symbol = symbol as usize;
    let start = if symbol == 0 { 0 } else { ends[symbol - 1] };
    &bytes[start as usize..ends[symbol] as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn labels_come_back_and_strings_are_stored_once() {
        let mut store = LabelStore::default();
        let (a, b) =
            (labels(&[("__name__", "up"), ("job", "x")]), labels(&[("__name__", "down"), ("job", "x")]));
        let (at_a, at_b) = (store.add(&a).unwrap(), store.add(&b).unwrap());
        let mut scratch = Vec::new();
        assert_eq!(store.labels(at_a, &mut scratch), a);
        assert_eq!(store.labels(at_b, &mut scratch), b);
        assert!(store.equal(at_a, &a) && !store.equal(at_a, &b));
        assert_eq!(store.symbol_count(), 5);
        assert!(!store.equal(at_a, &Labels::default()));
    }

    #[test]
    fn a_rebuild_forgets_what_no_series_has() {
        let mut store = LabelStore::default();
        let all: Vec<_> = (0..100).map(|i| labels(&[("a", &i.to_string()), ("b", "same")])).collect();
        let mut at: Vec<_> = all.iter().map(|l| store.add(l).unwrap()).collect();
        at.drain(..90);
        store.rebuild(at.iter_mut());
        assert_eq!(store.symbol_count(), 2 + 10 + 1);
        let mut scratch = Vec::new();
        for (at, expected) in at.iter().zip(&all[90..]) {
            assert_eq!(&store.labels(*at, &mut scratch), expected);
        }
        let again = store.add(&all[0]).unwrap();
        assert_eq!(store.labels(again, &mut scratch), all[0]);
    }
}
