//! One placement as a flat table: ranges of keys and their owners.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::RangeInclusive;

use hashring::HashRing;

use super::{ReplicaSet, StoreIndex};
use crate::StoreId;
use crate::epoch::{Epoch, Placement};
use crate::token::{point, rows};

/// One placement's owners of every key.
#[derive(Debug)]
pub struct PlacementTable {
    id: Epoch,
    rf: u32,
    ring: HashRing<Slot, Identity>,
    /// In order of keys, from 0 to `u64::MAX` without gaps.
    rows: Vec<Row>,
    /// Owners of all rows, `rf` each.
    owners: Vec<StoreIndex>,
    members: Vec<StoreIndex>,
}

/// Keys that are kept by the same stores, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range<'a> {
    start: u64,
    end: u64,
    /// Distinct, in the order in which they are asked.
    pub owners: &'a [StoreIndex],
    /// How many of them must have a sample on disk: W, or all but those whose loss an operator accepted where these are
    /// fewer.
    pub write_quorum: usize,
    /// How many of them must answer: R, or all but those whose loss an operator accepted where these are fewer. An
    /// accepted loss never stands for the word of an owner that is left: it may alone have what the lost ones had.
    pub read_quorum: usize,
}

impl Range<'_> {
    /// Tokens of the range.
    #[must_use]
    pub fn keys(&self) -> RangeInclusive<u64> {
        self.start..=self.end
    }
}

#[derive(Debug)]
struct Row {
    /// Last key.
    end: u64,
    /// How many owners are lost with an operator's consent.
    accepted: u32,
}

/// A row of the table, standing at the last point of its range.
#[derive(Debug, Clone, Copy)]
struct Slot {
    point: u32,
    row: u32,
}

/// Only the point says where a slot stands.
impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.point);
    }
}

/// Points are hashes already.
#[derive(Debug, Clone, Copy, Default)]
struct Identity(u64);

impl BuildHasher for Identity {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u32(&mut self, point: u32) {
        self.0 = u64::from(point);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl PlacementTable {
    pub(super) fn new(placement: &Placement, stores: &[StoreId], accepted: &[bool]) -> Self {
        let places: Vec<StoreIndex> = placement
            .members
            .keys()
            .map(|store| {
                StoreIndex(stores.binary_search(store).expect("holders of tokens are members") as u16)
            })
            .collect();
        let rf = placement.rf as usize;
        let rows = rows(&placement.members, placement.rf).expect("the document was checked");
        let mut table = Self {
            id: placement.id,
            rf: placement.rf,
            ring: HashRing::with_hasher(Identity::default()),
            rows: Vec::with_capacity(rows.len() * rf),
            owners: Vec::with_capacity(rows.len() * rf * rf),
            members: places.clone(),
        };
        let mut start = 0;
        for row in rows {
            let mut owners: Vec<StoreIndex> =
                row.holders.iter().map(|holder| places[usize::from(*holder)]).collect();
            // Whoever is asked first has most of the work: each owner is, for a part of the range.
            let parts = (u64::from(row.end) - start + 1).min(rf as u64);
            let length = (u64::from(row.end) - start + 1) / parts;
            for part in 1..=parts {
                let end = if part == parts { u64::from(row.end) } else { start + part * length - 1 };
                table.push(end << 32 | u64::from(u32::MAX), &owners, accepted);
                owners.rotate_left(1);
            }
            start = u64::from(row.end) + 1;
        }
        let slot = |(row, range): (usize, &Row)| Slot { point: point(range.end), row: row as u32 };
        table.ring.batch_add(table.rows.iter().enumerate().map(slot).collect());
        table
    }

    /// Adds the range up to `end`.
    fn push(&mut self, end: u64, owners: &[StoreIndex], accepted: &[bool]) {
        let accepted = owners.iter().filter(|owner| accepted[usize::from(owner.0)]).count() as u32;
        self.rows.push(Row { end, accepted });
        self.owners.extend_from_slice(owners);
    }

    /// The epoch that opened the placement.
    #[must_use]
    pub fn id(&self) -> Epoch {
        self.id
    }

    /// Owners of each key.
    #[must_use]
    pub fn rf(&self) -> u32 {
        self.rf
    }

    /// W, where nothing is lost: how many owners must have a sample on disk.
    #[must_use]
    pub fn write_quorum(&self) -> usize {
        self.rf as usize / 2 + 1
    }

    /// R, where nothing is lost: how many owners must answer for a range.
    #[must_use]
    pub fn read_quorum(&self) -> usize {
        self.rf as usize - self.write_quorum() + 1
    }

    /// Those that hold tokens, in ascending order.
    #[must_use]
    pub fn members(&self) -> &[StoreIndex] {
        &self.members
    }

    /// The owners of a key, in the order in which they are asked.
    #[must_use]
    pub fn replicas(&self, token: u64) -> &[StoreIndex] {
        self.owners_of(self.row(token))
    }

    /// The owners of a key and the quorum among them.
    #[must_use]
    pub fn replica_set(&self, token: u64) -> ReplicaSet<'_> {
        let range = self.range_at(self.row(token));
        ReplicaSet { stores: range.owners, quorum: range.write_quorum }
    }

    /// The range that a key lies in.
    #[must_use]
    pub fn range(&self, token: u64) -> Range<'_> {
        self.range_at(self.row(token))
    }

    /// All ranges, in order of keys, from 0 to `u64::MAX` without gaps.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<'_>> + '_ {
        (0..self.rows.len()).map(|row| self.range_at(row))
    }

    /// What each member keeps, as a share of all keys: 1 where it keeps a copy of everything. The sum is
    /// [`rf`](Self::rf).
    #[must_use]
    pub fn ownership(&self) -> BTreeMap<StoreIndex, f64> {
        let mut kept: BTreeMap<StoreIndex, u128> = self.members.iter().map(|member| (*member, 0)).collect();
        for range in self.ranges() {
            let keys = u128::from(range.end - range.start) + 1;
            for owner in range.owners {
                *kept.entry(*owner).or_default() += keys;
            }
        }
        kept.into_iter().map(|(member, keys)| (member, keys as f64 / 2_f64.powi(64))).collect()
    }

    fn row(&self, token: u64) -> usize {
        let slot = self.ring.get(&Slot { point: point(token), row: 0 });
        slot.expect("a placement has tokens").row as usize
    }

    fn owners_of(&self, row: usize) -> &[StoreIndex] {
        let rf = self.rf as usize;
        &self.owners[row * rf..(row + 1) * rf]
    }

    fn range_at(&self, row: usize) -> Range<'_> {
        let left = self.rf as usize - self.rows[row].accepted as usize;
        Range {
            start: row.checked_sub(1).map_or(0, |before| self.rows[before].end + 1),
            end: self.rows[row].end,
            owners: self.owners_of(row),
            write_quorum: self.write_quorum().min(left),
            read_quorum: self.read_quorum().min(left),
        }
    }
}
