//! Ranges of keys, as repair compares them.
//!
//! The ranges of all open placements, cut wherever one of them ends, and at equal distances besides, since ranges may be
//! few and large: each of the pieces has one set of keepers in every placement, and a difference in one says something
//! about a thousandth of the series. They are numbered in order of keys; whoever goes by the same ring document has the
//! same numbers.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use ring::{Epoch, PlacementTable, StoreId, View};

/// Keys are cut at multiples of 2 to the power of 64 less this.
const CUT_BITS: u32 = 10;

/// All keys in pieces.
pub(super) struct Keys {
    epoch: Epoch,
    /// Last key of each piece; the last of all is `u64::MAX`.
    ends: Vec<u64>,
    pieces: Vec<Piece>,
}

struct Piece {
    /// Who keeps it under the current placement.
    now: Vec<StoreId>,
    /// Who keeps it under any open one.
    ever: BTreeSet<StoreId>,
}

impl Keys {
    pub(super) fn new(view: &View) -> Self {
        let tables = view.read_sets();
        let ranges = tables.iter().flat_map(PlacementTable::ranges);
        let mut ends: Vec<u64> = ranges.map(|range| *range.keys().end()).collect();
        ends.extend((1..1u64 << CUT_BITS).map(|cut| (cut << (u64::BITS - CUT_BITS)) - 1));
        ends.sort_unstable();
        ends.dedup();
        let stores = |owners: &[ring::StoreIndex]| -> Vec<StoreId> {
            owners.iter().map(|owner| view.store(*owner)).collect()
        };
        let piece = |end: &u64| Piece {
            now: stores(view.current().replicas(*end)),
            ever: tables.iter().flat_map(|table| stores(table.replicas(*end))).collect(),
        };
        let pieces = ends.iter().map(piece).collect();
        Self { epoch: view.epoch(), ends, pieces }
    }

    /// Of the document that it was made from.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The piece that holds a key.
    pub(super) fn piece(&self, key: u64) -> u32 {
        self.ends.partition_point(|end| *end < key) as u32
    }

    /// The keys of a piece.
    pub(super) fn keys(&self, piece: u32) -> RangeInclusive<u64> {
        let at = piece as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] + 1);
        start..=self.ends[at]
    }

    /// Whether `asker` may pull a piece from `answerer`.
    pub(super) fn is_shared(&self, piece: u32, asker: StoreId, answerer: StoreId) -> bool {
        let of = self.pieces.get(piece as usize);
        of.is_some_and(|piece| piece.now.contains(&asker) && piece.ever.contains(&answerer))
    }

    /// Whom a store can pull from, in order of ids.
    pub(super) fn sources(&self, asker: StoreId) -> BTreeSet<StoreId> {
        let mine = self.pieces.iter().filter(|piece| piece.now.contains(&asker));
        mine.flat_map(|piece| piece.ever.iter().copied()).filter(|store| *store != asker).collect()
    }

    /// Pieces as stretches of keys, neighbours in one.
    pub(super) fn stretches(&self, pieces: &[u32]) -> Vec<RangeInclusive<u64>> {
        let mut stretches: Vec<RangeInclusive<u64>> = Vec::new();
        for piece in pieces {
            let keys = self.keys(*piece);
            match stretches.last_mut() {
                Some(last) if last.end().checked_add(1) == Some(*keys.start()) => {
                    *last = *last.start()..=*keys.end();
                }
                _ => stretches.push(keys),
            }
        }
        stretches
    }
}

/// Whether one of some ascending stretches holds a key.
pub(super) fn holds(stretches: &[RangeInclusive<u64>], key: u64) -> bool {
    let at = stretches.partition_point(|stretch| *stretch.end() < key);
    stretches.get(at).is_some_and(|stretch| stretch.contains(&key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repair::tests::ring_of;

    #[test]
    fn pieces_cover_all_keys_and_know_their_keepers() {
        let view = ring_of(5, 3);
        let keys = Keys::new(&view);
        let mut next = Some(0);
        for piece in 0..keys.ends.len() as u32 {
            let range = keys.keys(piece);
            assert_eq!(Some(*range.start()), next);
            assert_eq!((keys.piece(*range.start()), keys.piece(*range.end())), (piece, piece));
            next = range.end().checked_add(1);
            for (_, store) in view.stores() {
                let index = view.index(store).unwrap();
                let owns = view.current().replicas(*range.start()).contains(&index);
                assert_eq!(keys.is_shared(piece, store, store), owns);
            }
        }
        assert_eq!(next, None);
        let all: Vec<u32> = (0..keys.ends.len() as u32).collect();
        assert_eq!(keys.stretches(&all), [0..=u64::MAX]);
        let some = keys.stretches(&[0, 2, 3]);
        assert_eq!(some, [keys.keys(0), *keys.keys(2).start()..=*keys.keys(3).end()]);
        assert!(holds(&some, 0) && !holds(&some, *keys.keys(1).start()));
        assert!(holds(&some, *keys.keys(3).end()) && !holds(&some, *keys.keys(4).start()));
    }
}
