//! The ring document made ready for use: for every key its owners, without walking.
//!
//! A [`View`] is made once for each document. For every open placement it holds a flat table of ranges of keys with
//! their owners, found by a binary search over the tokens.

mod table;

#[cfg(test)]
mod tests;

use std::ops::Deref;

use crate::StoreId;
use crate::epoch::{Document, Epoch, Invalid, MemberState};

pub use table::{PlacementTable, Range};

/// A member's place in the document's list of members, in ascending order of ids. Good for one [`View`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreIndex(pub u16);

/// Who keeps a key under one placement, and how many of them make a write safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaSet<'a> {
    /// Distinct, in the order in which they are asked.
    pub stores: &'a [StoreIndex],
    /// How many of them must have a sample on disk ([`Range::write_quorum`]).
    pub quorum: usize,
}

/// The replica sets of one key that a write must reach: one, or while a transition is under way the old and the new.
#[derive(Debug, Clone, Copy)]
pub struct WriteSets<'a> {
    sets: [ReplicaSet<'a>; 2],
    len: usize,
}

impl<'a> Deref for WriteSets<'a> {
    type Target = [ReplicaSet<'a>];

    fn deref(&self) -> &Self::Target {
        &self.sets[..self.len]
    }
}

/// A ring document with its tables.
#[derive(Debug)]
pub struct View {
    document: Document,
    stores: Vec<StoreId>,
    tables: Vec<PlacementTable>,
}

impl View {
    /// Works out who keeps what.
    ///
    /// # Errors
    /// Where the document contradicts itself.
    pub fn new(document: Document) -> Result<Self, Invalid> {
        document.check()?;
        let stores: Vec<StoreId> = document.members.keys().copied().collect();
        let accepted: Vec<bool> =
            document.members.values().map(|member| member.state == MemberState::LossAccepted).collect();
        let mut tables = Vec::with_capacity(document.placements.len());
        for placement in &document.placements {
            tables.push(PlacementTable::new(placement, &stores, &accepted));
        }
        Ok(Self { document, stores, tables })
    }

    /// What it was made from.
    #[must_use]
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Of the document.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.document.epoch
    }

    /// Where a series with this token is written.
    #[must_use]
    pub fn write_sets(&self, token: u64) -> WriteSets<'_> {
        let current = self.current().replica_set(token);
        match self.tables.as_slice() {
            [.., old, _] if self.document.is_joint() && !planted::is(planted::Bug::NewQuorumOnly) => {
                WriteSets { sets: [old.replica_set(token), current], len: 2 }
            }
            _ => WriteSets { sets: [current, current], len: 1 },
        }
    }

    /// The placements that writes go to: one, or while a transition is under way the old and the new.
    #[must_use]
    pub fn write_tables(&self) -> &[PlacementTable] {
        let writing = if self.document.is_joint() { 2 } else { 1 };
        &self.tables[self.tables.len() - writing..]
    }

    /// Every open placement, oldest first; a complete answer needs each of them.
    #[must_use]
    pub fn read_sets(&self) -> &[PlacementTable] {
        &self.tables
    }

    /// The open placement of that id.
    #[must_use]
    pub fn table(&self, placement: Epoch) -> Option<&PlacementTable> {
        self.tables.iter().find(|table| table.id() == placement)
    }

    /// The placement that new samples go to.
    #[must_use]
    pub fn current(&self) -> &PlacementTable {
        self.tables.last().expect("a document has a placement")
    }

    /// Whether a store keeps a key, now or in an open placement.
    #[must_use]
    pub fn owns(&self, store: StoreIndex, token: u64) -> bool {
        self.tables.iter().any(|table| table.replicas(token).contains(&store))
    }

    /// Who is meant by an index of this view.
    #[must_use]
    pub fn store(&self, index: StoreIndex) -> StoreId {
        self.stores[usize::from(index.0)]
    }

    /// The index of a member; `None` for strangers.
    #[must_use]
    pub fn index(&self, store: StoreId) -> Option<StoreIndex> {
        self.stores.binary_search(&store).ok().map(|index| StoreIndex(index as u16))
    }

    /// All members in order of their indices, those that are gone too.
    pub fn stores(&self) -> impl Iterator<Item = (StoreIndex, StoreId)> + '_ {
        self.stores.iter().enumerate().map(|(index, store)| (StoreIndex(index as u16), *store))
    }
}
