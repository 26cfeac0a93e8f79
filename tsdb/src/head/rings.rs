//! Exemplars and metadata: kept in memory within a budget, logged, and in no block.

use std::collections::{BTreeMap, VecDeque};

use super::reference::SeriesRef;
use crate::db::{Exemplar, Metadata};

/// The newest exemplars of a shard's series.
#[derive(Default)]
pub(crate) struct ExemplarRing {
    entries: VecDeque<(SeriesRef, Exemplar)>,
    limit: usize,
}

impl ExemplarRing {
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), limit }
    }

    /// Adds an exemplar, unless the series has the very same among its last; the oldest of the shard makes room.
    pub(crate) fn push(&mut self, series: SeriesRef, exemplar: Exemplar) -> bool {
        let same = |e: &Exemplar| {
            e.timestamp_ms == exemplar.timestamp_ms
                && e.value.to_bits() == exemplar.value.to_bits()
                && e.labels == exemplar.labels
        };
        let is_known = self.entries.iter().rev().take(RECENT).any(|(s, e)| *s == series && same(e));
        if is_known || self.limit == 0 {
            return false;
        }
        while self.entries.len() >= self.limit {
            self.entries.pop_front();
        }
        self.entries.push_back((series, exemplar));
        true
    }

    /// All of them, oldest first.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &(SeriesRef, Exemplar)> {
        self.entries.iter()
    }

    /// Keeps those of some series.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(SeriesRef) -> bool) {
        self.entries.retain(|(series, _)| keep(*series));
    }
}

/// Entries that are looked through for a repetition: senders repeat an exemplar until there is a newer one.
const RECENT: usize = 64;

/// Metadata of metric families, of all tenants of a shard.
#[derive(Default)]
pub(crate) struct MetadataTable {
    families: BTreeMap<(u32, Box<str>), Metadata>,
    limit: usize,
}

impl MetadataTable {
    pub(crate) fn new(limit: usize) -> Self {
        Self { families: BTreeMap::new(), limit }
    }

    /// Sets a family's metadata; `false` where nothing changed, or where there is no room for another family.
    pub(crate) fn set(&mut self, tenant: u32, metadata: Metadata) -> bool {
        let key = (tenant, metadata.family.as_str().into());
        let count = self.families.len();
        match self.families.get_mut(&key) {
            Some(known) if *known == metadata => false,
            Some(known) => {
                *known = metadata;
                true
            }
            None if count >= self.limit => false,
            None => {
                self.families.insert(key, metadata);
                true
            }
        }
    }

    /// All of them with their tenants, in order of both.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (u32, &Metadata)> {
        self.families.iter().map(|((tenant, _), metadata)| (*tenant, metadata))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    fn exemplar(timestamp_ms: i64) -> Exemplar {
        Exemplar { timestamp_ms, value: 1.0, labels: Labels::default() }
    }

    #[test]
    fn the_oldest_exemplar_makes_room_and_a_repeated_one_is_not_kept() {
        let mut ring = ExemplarRing::new(2);
        let series = SeriesRef::new(0, 1);
        assert!(ring.push(series, exemplar(1)));
        assert!(!ring.push(series, exemplar(1)));
        assert!(ring.push(SeriesRef::new(0, 2), exemplar(1)));
        assert!(ring.push(series, exemplar(2)));
        assert_eq!(
            ring.iter().map(|(s, e)| (s.local_id(), e.timestamp_ms)).collect::<Vec<_>>(),
            [(2, 1), (1, 2)]
        );
    }

    #[test]
    fn metadata_beyond_the_limit_is_refused_but_known_families_change() {
        let mut table = MetadataTable::new(1);
        let of = |family: &str, help: &str| Metadata {
            family: family.to_owned(),
            help: help.to_owned(),
            ..Metadata::default()
        };
        assert!(table.set(0, of("a", "1")));
        assert!(!table.set(0, of("a", "1")));
        assert!(!table.set(0, of("b", "1")));
        assert!(!table.set(1, of("a", "1")));
        assert!(table.set(0, of("a", "2")));
        assert_eq!(table.iter().len(), 1);
    }
}
