//! Exemplars and metadata: kept in memory within a budget, logged, and in no block.

use std::collections::{BTreeMap, VecDeque};

use super::reference::SeriesRef;
use crate::db::{Exemplar, Metadata};

/// Most bytes of an exemplar's labels. Senders put the id of a trace there; OpenMetrics 1.0 allows 128 characters.
pub(crate) const EXEMPLAR_LABEL_BYTES_MAX: usize = 2048;

/// Most bytes of the texts of a family's metadata.
pub(crate) const METADATA_TEXT_BYTES_MAX: usize = 16 << 10;

/// The newest exemplars of a shard's series, bounded in number and in bytes.
#[derive(Default)]
pub(crate) struct ExemplarRing {
    entries: VecDeque<(SeriesRef, Exemplar)>,
    entries_max: usize,
    /// Of `entries`, by [`exemplar_bytes`].
    bytes: usize,
    bytes_max: usize,
}

impl ExemplarRing {
    pub(crate) fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { entries: VecDeque::new(), entries_max, bytes: 0, bytes_max }
    }

    /// Adds an exemplar, unless the series has the very same among its last; the oldest of the shard make room. One with
    /// more labels than [`EXEMPLAR_LABEL_BYTES_MAX`] isn't kept: it would drive out many others.
    pub(crate) fn push(&mut self, series: SeriesRef, exemplar: Exemplar) -> bool {
        let same = |e: &Exemplar| {
            e.timestamp_ms == exemplar.timestamp_ms
                && e.value.to_bits() == exemplar.value.to_bits()
                && e.labels == exemplar.labels
        };
        let is_known = self.entries.iter().rev().take(RECENT).any(|(s, e)| *s == series && same(e));
        let bytes = exemplar_bytes(&exemplar);
        let is_large = exemplar.labels.as_bytes().len() > EXEMPLAR_LABEL_BYTES_MAX || bytes > self.bytes_max;
        if is_known || is_large || self.entries_max == 0 {
            return false;
        }
        while self.entries.len() >= self.entries_max || self.bytes + bytes > self.bytes_max {
            let (_, oldest) =
                self.entries.pop_front().expect("an empty ring has room for any that isn't large");
            self.bytes -= exemplar_bytes(&oldest);
        }
        self.entries.push_back((series, exemplar));
        self.bytes += bytes;
        true
    }

    /// All of them, oldest first.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &(SeriesRef, Exemplar)> {
        self.entries.iter()
    }

    /// Keeps those of some series.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(SeriesRef) -> bool) {
        let bytes = &mut self.bytes;
        self.entries.retain(|(series, exemplar)| {
            let is_kept = keep(*series);
            if !is_kept {
                *bytes -= exemplar_bytes(exemplar);
            }
            is_kept
        });
    }
}

/// What an exemplar takes in memory.
fn exemplar_bytes(exemplar: &Exemplar) -> usize {
    size_of::<(SeriesRef, Exemplar)>() + exemplar.labels.as_bytes().len()
}

/// Entries that are looked through for a repetition: senders repeat an exemplar until there is a newer one.
const RECENT: usize = 64;

/// Metadata of metric families, of all tenants of a shard, bounded in number and in bytes.
#[derive(Default)]
pub(crate) struct MetadataTable {
    families: BTreeMap<(u32, Box<str>), Metadata>,
    families_max: usize,
    /// Of `families`, by [`metadata_bytes`].
    bytes: usize,
    bytes_max: usize,
}

impl MetadataTable {
    pub(crate) fn new(families_max: usize, bytes_max: usize) -> Self {
        Self { families: BTreeMap::new(), families_max, bytes: 0, bytes_max }
    }

    /// Sets a family's metadata; `false` where nothing changed, or where there is no room for it: then the family keeps
    /// what it had. Texts of more than [`METADATA_TEXT_BYTES_MAX`] have no room anywhere.
    pub(crate) fn set(&mut self, tenant: u32, metadata: Metadata) -> bool {
        let key = (tenant, metadata.family.as_str().into());
        let known = self.families.get(&key);
        if known == Some(&metadata) || text_bytes(&metadata) > METADATA_TEXT_BYTES_MAX {
            return false;
        }
        let bytes = self.bytes - known.map_or(0, metadata_bytes) + metadata_bytes(&metadata);
        let is_room = known.is_some() || self.families.len() < self.families_max;
        if !is_room || bytes > self.bytes_max {
            return false;
        }
        self.bytes = bytes;
        self.families.insert(key, metadata);
        true
    }

    /// All of them with their tenants, in order of both.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (u32, &Metadata)> {
        self.families.iter().map(|((tenant, _), metadata)| (*tenant, metadata))
    }
}

fn text_bytes(metadata: &Metadata) -> usize {
    let Metadata { family, kind, help, unit } = metadata;
    family.len() + kind.len() + help.len() + unit.len()
}

/// What a family's metadata takes in memory, its name as the key included.
fn metadata_bytes(metadata: &Metadata) -> usize {
    size_of::<((u32, Box<str>), Metadata)>() + metadata.family.len() + text_bytes(metadata)
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
        let mut ring = ExemplarRing::new(2, usize::MAX);
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
        let mut table = MetadataTable::new(1, usize::MAX);
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
    #[test]
    fn exemplars_are_bounded_in_bytes_whatever_their_labels() {
        const BYTES_MAX: usize = 64 << 10;
        let mut ring = ExemplarRing::new(1_000_000, BYTES_MAX);
        let with = |timestamp_ms, length: usize| Exemplar {
            labels: Labels::from_pairs([("trace_id", "x".repeat(length).as_str())]).unwrap(),
            ..exemplar(timestamp_ms)
        };
        let series = SeriesRef::new(0, 1);
        for timestamp_ms in 0..3000 {
            assert!(ring.push(series, with(timestamp_ms, timestamp_ms as usize % 2000)));
            assert!(ring.bytes <= BYTES_MAX);
        }
        assert_eq!(ring.bytes, ring.iter().map(|(_, e)| exemplar_bytes(e)).sum::<usize>());
        assert!(
            ring.bytes > BYTES_MAX - 4000 && ring.iter().last().is_some_and(|(_, e)| e.timestamp_ms == 2999)
        );
        let before = ring.iter().len();
        assert!(!ring.push(series, with(3000, EXEMPLAR_LABEL_BYTES_MAX)), "it would drive out others");
        assert_eq!(ring.iter().len(), before);
        ring.retain(|_| false);
        assert_eq!(ring.bytes, 0);
        assert!(!ExemplarRing::new(10, 20).push(series, exemplar(1)), "no room at all");
    }

    #[test]
    fn metadata_is_bounded_in_bytes_whatever_its_texts() {
        const BYTES_MAX: usize = 64 << 10;
        let mut table = MetadataTable::new(1_000_000, BYTES_MAX);
        let of = |family: usize, help: usize| Metadata {
            family: format!("f{family}"),
            help: "h".repeat(help),
            ..Metadata::default()
        };
        let kept = (0..1000).filter(|family| table.set(1, of(*family, 1000))).count();
        assert!((40..64).contains(&kept), "{kept}");
        assert!(table.bytes <= BYTES_MAX);
        // A family that grows keeps what it had where there is no room for more.
        assert!(!table.set(1, of(0, METADATA_TEXT_BYTES_MAX - 10)));
        assert!(table.iter().next().is_some_and(|(_, metadata)| metadata.help.len() == 1000));
        // One that shrinks makes room.
        assert!(table.set(1, of(0, 10)) && table.set(2, of(0, 500)));
        assert!(!MetadataTable::new(10, usize::MAX).set(1, of(1, METADATA_TEXT_BYTES_MAX)));
        assert_eq!(table.bytes, table.iter().map(|(_, m)| metadata_bytes(m)).sum::<usize>());
    }
}
