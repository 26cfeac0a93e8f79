//! What a ring waits for before it goes on, decided from what stores report.
//!
//! Everything here counts owners of ranges: W or R of them *for every range*, never of the cluster. Lost owners never
//! count and are never left out of the reckoning. Once an operator has accepted their loss, all that are left are
//! enough where these are fewer than W or R ([`Range::read_quorum`]); none that is left is ever done without.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::epoch::{Epoch, MemberState};
use crate::placement::Range;
use crate::{PlacementTable, StoreId, StoreIndex, View};

/// Ranges for which too few owners have reported, in one placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Of which placement.
    pub placement: Epoch,
    /// How many of its ranges wait.
    pub ranges: usize,
    /// One of those ranges.
    pub example: RangeInclusive<u64>,
    /// Owners that haven't reported, and whose loss nobody has accepted; some of them must report.
    pub waiting_for: BTreeSet<StoreId>,
}

/// Whether a joint document may be made final: W owners of every range of the old and of the new placement have
/// adopted it. Empty: it may. Each `adopted` store has the joint document in its ledger and refuses writes of lower
/// epochs.
#[must_use]
pub fn adoption(view: &View, adopted: &BTreeSet<StoreId>) -> Vec<Missing> {
    if planted::is(planted::Bug::FinalUnadopted) {
        return Vec::new();
    }
    let adopted = living(view, adopted);
    let tables = view.write_tables().iter();
    tables.filter_map(|table| missing(view, table, &adopted, |range| range.write_quorum)).collect()
}

/// The epoch whose adoption ends writing under a placement: what a store acknowledged before it adopted this epoch
/// must be in listed blocks for the store to vouch. `None` for placements that take writes, or aren't open.
#[must_use]
pub fn sealed_by(view: &View, placement: Epoch) -> Option<Epoch> {
    let writing = if planted::is(planted::Bug::SealedWhileJoint) {
        view.write_tables().last()
    } else {
        view.write_tables().first()
    };
    let writing = writing.map(PlacementTable::id)?;
    let ids = || view.read_sets().iter().map(PlacementTable::id);
    if placement >= writing || !ids().any(|id| id == placement) {
        return None;
    }
    ids().find(|id| *id > placement)
}

/// Whether a placement may be closed: R owners of every range vouch that everything they acknowledged before they
/// adopted [`sealed_by`] is in listed blocks. `None`: it may. A store that has disclaimed the placement can't vouch.
#[must_use]
pub fn closing(view: &View, placement: Epoch, vouching: &BTreeSet<StoreId>) -> Option<Missing> {
    let table = view.table(placement)?;
    missing(view, table, &living(view, vouching), |range| {
        if planted::is(planted::Bug::OneVoucher) { 1 } else { range.read_quorum }
    })
}

/// Whether a store may be forgotten: R *other* owners of every range that it keeps, in every open placement, have seen
/// it away for long enough and vouch for what they keep themselves. Empty: it may, if enough members are left, which
/// [`Document::change`](crate::Document::change) checks.
#[must_use]
pub fn forgetting(view: &View, store: StoreId, confirming: &BTreeSet<StoreId>) -> Vec<Missing> {
    let Some(index) = view.index(store) else { return Vec::new() };
    let mut confirming = living(view, confirming);
    confirming.remove(&store);
    let needed = |range: &Range<'_>| if range.owners.contains(&index) { range.read_quorum } else { 0 };
    view.read_sets().iter().filter_map(|table| missing(view, table, &confirming, needed)).collect()
}

/// Ranges of which so many owners are lost that no answer can be complete: samples may be gone, and answers say so until
/// an operator accepts the loss.
#[must_use]
pub fn losses(view: &View) -> Vec<Missing> {
    let lost: BTreeSet<StoreId> = states(view, |state| state == MemberState::Lost);
    let gone = states(view, MemberState::is_lost);
    let mut found = Vec::new();
    for table in view.read_sets() {
        let beyond = |range: &Range<'_>| {
            let left = range.owners.iter().filter(|owner| !gone.contains(&view.store(**owner))).count();
            left < range.read_quorum
        };
        let ranges: Vec<Range<'_>> = table.ranges().filter(beyond).collect();
        if let Some(first) = ranges.first() {
            let owners = ranges.iter().flat_map(|range| range.owners).map(|owner| view.store(*owner));
            found.push(Missing {
                placement: table.id(),
                ranges: ranges.len(),
                example: first.keys(),
                waiting_for: owners.filter(|owner| lost.contains(owner)).collect(),
            });
        }
    }
    found
}

/// Ranges for which fewer than `needed` owners have reported; `None` where there is none.
fn missing(
    view: &View,
    table: &PlacementTable,
    reported: &BTreeSet<StoreId>,
    needed: impl Fn(&Range<'_>) -> usize,
) -> Option<Missing> {
    let has: Vec<bool> = view.stores().map(|(_, store)| reported.contains(&store)).collect();
    let accepted = states(view, |state| state == MemberState::LossAccepted);
    let mut found: Option<Missing> = None;
    for range in table.ranges() {
        let (there, away): (Vec<StoreIndex>, Vec<StoreIndex>) =
            range.owners.iter().partition(|owner| has[usize::from(owner.0)]);
        if there.len() >= needed(&range) {
            continue;
        }
        let missing = found.get_or_insert_with(|| Missing {
            placement: table.id(),
            ranges: 0,
            example: range.keys(),
            waiting_for: BTreeSet::new(),
        });
        missing.ranges += 1;
        let away = away.into_iter().map(|owner| view.store(owner));
        missing.waiting_for.extend(away.filter(|store| !accepted.contains(store)));
    }
    found
}

/// Without those that are lost: what they say never counts.
fn living(view: &View, stores: &BTreeSet<StoreId>) -> BTreeSet<StoreId> {
    if planted::is(planted::Bug::LostStoreCounts) {
        return stores.clone();
    }
    stores.difference(&states(view, MemberState::is_lost)).copied().collect()
}

fn states(view: &View, which: impl Fn(MemberState) -> bool) -> BTreeSet<StoreId> {
    let members = view.document().members.iter();
    members.filter(|(_, member)| which(member.state)).map(|(store, _)| *store).collect()
}
