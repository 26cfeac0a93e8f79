//! From a caller's key to a series, without a label being looked at.

use hashbrown::HashTable;
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::types::SeriesKey;
use crate::head::SeriesRef;

/// Tables, each with a lock of its own: a table that grows stops only those who need it.
const TABLES: usize = 16;

/// Keys of all tenants' series. A tenant's keys are XORed with a secret of its own, so that tenants never meet.
pub(crate) struct Keys {
    tables: [RwLock<HashTable<Entry>>; TABLES],
}

/// 24 bytes: a `u128` would align to 32.
#[derive(Clone, Copy)]
struct Entry {
    high: u64,
    low: u64,
    series: SeriesRef,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { tables: std::array::from_fn(|_| RwLock::new(HashTable::new())) }
    }

    /// Appends the series of each key, or [`SeriesRef::NONE`].
    pub(crate) fn lookup(&self, salt: u128, keys: &[SeriesKey], found: &mut Vec<SeriesRef>) {
        let tables: SmallVec<[_; TABLES]> = self.tables.iter().map(|table| table.read()).collect();
        found.extend(keys.iter().map(|key| {
            let (high, low) = halves(key.0 ^ salt);
            let entry = tables[table_of(high)].find(low, |e| e.low == low && e.high == high);
            entry.map_or(SeriesRef::NONE, |e| e.series)
        }));
    }

    /// Makes a key name a series, and tells whether it didn't name it yet.
    pub(crate) fn insert(&self, salt: u128, key: SeriesKey, series: SeriesRef) -> bool {
        let (high, low) = halves(key.0 ^ salt);
        let mut table = self.tables[table_of(high)].write();
        if let Some(entry) = table.find_mut(low, |e| e.low == low && e.high == high) {
            return std::mem::replace(&mut entry.series, series) != series;
        }
        table.insert_unique(low, Entry { high, low, series }, |e| e.low);
        true
    }

    /// Forgets the keys of series that are gone.
    pub(crate) fn retain(&self, mut keep: impl FnMut(SeriesRef) -> bool) {
        for table in &self.tables {
            let mut table = table.write();
            table.retain(|e| keep(e.series));
            if table.len() < table.capacity() / 4 {
                table.shrink_to_fit(|e| e.low);
            }
        }
    }

    /// Bytes allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.tables.iter().map(|table| table.read().capacity() * (size_of::<Entry>() + 1)).sum()
    }
}

fn halves(key: u128) -> (u64, u64) {
    ((key >> 64) as u64, key as u64)
}

fn table_of(high: u64) -> usize {
    high as usize % TABLES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_with_equal_keys_never_meet() {
        let keys = Keys::new();
        let series = SeriesRef::new(1, 2);
        assert!(keys.insert(7, SeriesKey(1), series));
        assert!(!keys.insert(7, SeriesKey(1), series));
        let mut found = Vec::new();
        keys.lookup(7, &[SeriesKey(1), SeriesKey(2)], &mut found);
        keys.lookup(8, &[SeriesKey(1)], &mut found);
        assert_eq!(found, [series, SeriesRef::NONE, SeriesRef::NONE]);
        keys.retain(|_| false);
        found.clear();
        keys.lookup(7, &[SeriesKey(1)], &mut found);
        assert_eq!(found, [SeriesRef::NONE]);
    }
}
