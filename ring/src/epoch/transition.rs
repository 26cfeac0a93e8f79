//! How one document follows from another.
//!
//! 1. [`change`](Document::change) opens a placement and makes the document *joint*: writes need a quorum in the old
//!    and in the new placement. [`finish`](Document::finish) makes it final when enough owners have adopted it
//!    ([`rules`](crate::rules)); [`revert`](Document::revert) swaps it back, which loses nothing, because all that was
//!    acknowledged meanwhile has its quorum in the old placement too; not once a loss is accepted.
//! 2. A placement that no longer takes writes is [`close`](Document::close)d when its data is in blocks.
//! 3. Facts about members change in one step.
//! 4. Stores that are gone for good are [written off](Document::write_off), whatever is under way: lost, accepted, and
//!    without a place, in one step.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Document, Epoch, FORMAT, MAX_ANCESTORS, MAX_DEPARTED, MAX_OPEN_PLACEMENTS, MAX_TEXT_BYTES, MemberInfo,
    MemberState, Placement, Refusal, Transition, raise,
};
use crate::token::{Layout, plan};
use crate::{ClusterId, MAX_MEMBERS, MAX_REPLICATION_FACTOR, StoreId};

/// Most placements that a change may leave open: one more is kept for a loss, which can't wait until one is closed.
const PLACEMENTS_MAX: usize = MAX_OPEN_PLACEMENTS - 1;

/// What is known of a store that comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember {
    /// For people; not empty.
    pub name: String,
    /// Where it stands; not empty.
    pub zone: String,
    /// `host:port` for peers.
    pub peer_address: String,
    /// `host:port` for clients.
    pub http_address: String,
}

/// Who comes and goes in one transition. No store is named twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Stores that come and take their share.
    pub joins: BTreeMap<StoreId, NewMember>,
    /// Active stores that drain.
    pub leaves: BTreeSet<StoreId>,
    /// Stores that are gone with what they held.
    pub lost: BTreeSet<StoreId>,
    /// Stores that are gone with what they held, and the stores that take over their tokens.
    pub replaces: BTreeMap<StoreId, (StoreId, NewMember)>,
}

impl Change {
    /// One store that joins.
    #[must_use]
    pub fn join(store: StoreId, member: NewMember) -> Self {
        Self { joins: BTreeMap::from([(store, member)]), ..Self::default() }
    }

    /// One store that drains.
    #[must_use]
    pub fn leave(store: StoreId) -> Self {
        Self { leaves: BTreeSet::from([store]), ..Self::default() }
    }

    /// One store that is lost.
    #[must_use]
    pub fn lose(store: StoreId) -> Self {
        Self { lost: BTreeSet::from([store]), ..Self::default() }
    }

    /// One store that takes the place of another, which is lost: same tokens, no data.
    #[must_use]
    pub fn replace(old: StoreId, new: StoreId, member: NewMember) -> Self {
        Self { replaces: BTreeMap::from([(old, (new, member))]), ..Self::default() }
    }

    fn comers(&self) -> impl Iterator<Item = (StoreId, &NewMember)> {
        let joins = self.joins.iter().map(|(store, member)| (*store, member));
        joins.chain(self.replaces.values().map(|(store, member)| (*store, member)))
    }

    fn goers(&self) -> impl Iterator<Item = (StoreId, MemberState)> {
        let leaves = self.leaves.iter().map(|store| (*store, MemberState::Leaving));
        let lost = self.lost.iter().chain(self.replaces.keys());
        leaves.chain(lost.map(|store| (*store, MemberState::Lost)))
    }
}

impl Document {
    /// The first document of a cluster, at epoch 1. `first` are its members, usually one.
    ///
    /// # Errors
    /// Where there is no member, or one can't be.
    pub fn found(
        cluster: ClusterId,
        digest_key: u128,
        replication_factor: u32,
        first: &BTreeMap<StoreId, NewMember>,
    ) -> Result<Self, Refusal> {
        check_factor(replication_factor)?;
        if first.is_empty() {
            return Err(Refusal::Nothing);
        }
        let epoch = 1;
        let mut members = BTreeMap::new();
        for (store, member) in first {
            members.insert(*store, member.info(*store, epoch)?);
        }
        if members.len() > MAX_MEMBERS {
            return Err(Refusal::TooManyMembers);
        }
        let seats = members.iter().map(|(store, member)| (*store, member.zone.as_str())).collect();
        let layout = plan(None, &seats, replication_factor.min(first.len() as u32));
        Ok(Self {
            format: FORMAT,
            cluster,
            epoch,
            replication_factor,
            placements: vec![placement(epoch, layout)],
            members,
            transition: None,
            catalog_floors: BTreeMap::new(),
            digest_key,
            ancestors: Vec::new(),
        })
    }

    /// Opens a transition with everything in `change`.
    ///
    /// A lost store that no longer stands in the current placement needs none: then the document only says so.
    ///
    /// # Errors
    /// While another transition is under way or too many placements are open; where a store is not what the change
    /// takes it for; where fewer members than replicas would be left.
    pub fn change(&self, change: &Change) -> Result<Self, Refusal> {
        let mut next = self.next();
        let mut named = BTreeSet::new();
        for (store, _) in change.comers() {
            if let Some(member) = self.members.get(&store) {
                return Err(Refusal::WrongState { store, state: member.state });
            }
            if !named.insert(store) {
                return Err(Refusal::Twice { store });
            }
        }
        let mut departs = false;
        for (store, becomes) in change.goers() {
            if !named.insert(store) {
                return Err(Refusal::Twice { store });
            }
            departs |= next.depart(store, becomes, change.replaces.contains_key(&store))?;
        }
        if change.comers().next().is_none() && !departs {
            return if named.is_empty() { Err(Refusal::Nothing) } else { Ok(next) };
        }
        for (store, member) in change.comers() {
            next.members.insert(store, member.info(store, next.epoch)?);
        }
        let mut layout = self.current().layout();
        let mut moves = !change.joins.is_empty() || !change.leaves.is_empty() || !change.lost.is_empty();
        for (old, (new, _)) in &change.replaces {
            let tokens = layout.tokens.remove(old).ok_or(Refusal::NotMember { store: *old })?;
            layout.tokens.insert(*new, tokens);
            moves |= self.members[old].zone != next.members[new].zone;
        }
        next.open(layout, moves)?;
        next.transition = Some(Transition {
            joins: change.comers().map(|(store, _)| store).collect(),
            leaves: change
                .goers()
                .map(|(store, _)| store)
                .filter(|s| self.current().members.contains_key(s))
                .collect(),
            replication_factor_before: self.replication_factor,
        });
        Ok(next)
    }

    /// Asks for another number of copies. Opens a transition where that changes what each key has now; with fewer
    /// members than copies wanted it doesn't yet.
    ///
    /// # Errors
    /// As [`change`](Self::change); a lower number must be `confirmed`.
    pub fn set_replication_factor(&self, wanted: u32, confirmed: bool) -> Result<Self, Refusal> {
        check_factor(wanted)?;
        if wanted == self.replication_factor {
            return Err(Refusal::Nothing);
        }
        if wanted < self.replication_factor && !confirmed {
            return Err(Refusal::Unconfirmed { from: self.replication_factor, to: wanted });
        }
        if self.is_joint() {
            return Err(Refusal::InTransition { since: self.current().id });
        }
        let mut next = self.next();
        next.replication_factor = wanted;
        let current = self.current();
        let effective = wanted.min(current.members.len() as u32);
        if effective != current.rf {
            next.open_with(current.layout(), true, effective, PLACEMENTS_MAX)?;
            next.transition = Some(Transition {
                joins: BTreeSet::new(),
                leaves: BTreeSet::new(),
                replication_factor_before: self.replication_factor,
            });
        }
        Ok(next)
    }

    /// Makes a joint document final: writes need the new placement only. Whether that is safe is for
    /// [`rules::adoption`](crate::rules::adoption) to say.
    ///
    /// # Errors
    /// Where no transition is under way.
    pub fn finish(&self) -> Result<Self, Refusal> {
        let mut next = self.next();
        next.transition.take().ok_or(Refusal::NoTransition)?;
        Ok(next)
    }

    /// Swaps a joint document back: who came is gone, who left is active again.
    ///
    /// # Errors
    /// Where no transition is under way, or the loss of a store that left was accepted: active again it would count, and
    /// writes have done without it since.
    pub fn revert(&self) -> Result<Self, Refusal> {
        let mut next = self.next();
        let transition = next.transition.take().ok_or(Refusal::NoTransition)?;
        let accepted = |store: &&StoreId| self.members[store].state == MemberState::LossAccepted;
        if let Some(store) = transition.leaves.iter().find(accepted) {
            return Err(Refusal::LossHolds { store: *store });
        }
        next.placements.pop();
        next.replication_factor = transition.replication_factor_before;
        for store in &transition.joins {
            next.members.remove(store);
        }
        for store in &transition.leaves {
            next.enter(*store, MemberState::Active);
        }
        Ok(next)
    }

    /// Closes a placement that takes no writes any more: it isn't asked from now on. `catalogs` are the versions, by
    /// tenant, that list everything acknowledged under it. Whether that is safe is for
    /// [`rules::closing`](crate::rules::closing) to say.
    ///
    /// # Errors
    /// Where the placement isn't open, or takes writes.
    pub fn close(&self, id: Epoch, catalogs: &BTreeMap<String, u64>) -> Result<Self, Refusal> {
        let at = self.placements.iter().position(|placement| placement.id == id);
        let at = at.ok_or(Refusal::NotOpen { id })?;
        let writing = if self.is_joint() { 2 } else { 1 };
        if at + writing >= self.placements.len() {
            return Err(Refusal::TakesWrites { id });
        }
        let mut next = self.next();
        let closed = next.placements.remove(at);
        if !planted::is(planted::Bug::FloorForgotten) {
            raise(&mut next.catalog_floors, catalogs);
        }
        for store in closed.members.keys() {
            if self.members[store].state == MemberState::Leaving && !next.is_owner(*store) {
                next.enter(*store, MemberState::Left);
            }
        }
        next.drop_departed();
        Ok(next)
    }

    /// Goes on without stores that are gone for good: they are lost, the loss is accepted, and no placement that takes
    /// writes needs them. Fewer copies are kept where fewer members are left. A transition that is under way is planned
    /// anew: what was acknowledged meanwhile has its quorum in the old placement too.
    ///
    /// # Errors
    /// Where a store isn't a member, or has left; where nobody would be left; where too many placements are open.
    pub fn write_off(&self, stores: &BTreeSet<StoreId>) -> Result<Self, Refusal> {
        let mut next = self.next();
        let (mut changed, mut moves) = (false, false);
        for store in stores {
            match self.members.get(store).ok_or(Refusal::NotMember { store: *store })?.state {
                MemberState::LossAccepted => continue,
                state @ MemberState::Left => return Err(Refusal::WrongState { store: *store, state }),
                MemberState::Active | MemberState::Leaving | MemberState::Lost => {}
            }
            next.enter(*store, MemberState::LossAccepted);
            changed = true;
            moves |= self.current().members.contains_key(store);
        }
        if !moves {
            return if changed { Ok(next) } else { Err(Refusal::Nothing) };
        }
        let rf = self.current().rf;
        let mut transition = match next.transition.take() {
            Some(transition) => {
                next.placements.pop();
                transition
            }
            None => Transition {
                joins: BTreeSet::new(),
                leaves: BTreeSet::new(),
                replication_factor_before: self.replication_factor,
            },
        };
        let left = next.members.values().filter(|member| member.state == MemberState::Active).count() as u32;
        if left == 0 {
            return Err(Refusal::NobodyLeft);
        }
        let old = next.current().clone();
        let rf = rf.max(self.replication_factor.min(left)).min(left);
        next.open_with(old.layout(), true, rf, MAX_OPEN_PLACEMENTS)?;
        transition.joins.retain(|store| !stores.contains(store));
        transition.leaves.extend(stores.iter().filter(|store| old.members.contains_key(store)));
        next.transition = Some(transition);
        Ok(next)
    }

    /// Goes on as if lost stores had held nothing that others don't hold.
    ///
    /// # Errors
    /// Where a store isn't lost.
    pub fn accept_loss(&self, stores: &BTreeSet<StoreId>) -> Result<Self, Refusal> {
        let mut next = self.next();
        let mut changed = false;
        for store in stores {
            match self.members.get(store).ok_or(Refusal::NotMember { store: *store })?.state {
                MemberState::Lost => next.enter(*store, MemberState::LossAccepted),
                MemberState::LossAccepted => continue,
                state => return Err(Refusal::WrongState { store: *store, state }),
            }
            changed = true;
        }
        if changed { Ok(next) } else { Err(Refusal::Nothing) }
    }

    /// Notes where a member can be reached.
    ///
    /// # Errors
    /// Where the store isn't a member, or has these addresses already.
    pub fn set_addresses(
        &self,
        store: StoreId,
        name: &str,
        peer_address: &str,
        http_address: &str,
    ) -> Result<Self, Refusal> {
        check_text(store, name, "name")?;
        check_text(store, peer_address, "peer address")?;
        check_text(store, http_address, "http address")?;
        let mut next = self.next();
        let member = next.members.get_mut(&store).ok_or(Refusal::NotMember { store })?;
        member.name = name.to_owned();
        member.peer_address = peer_address.to_owned();
        member.http_address = http_address.to_owned();
        if next.members == self.members { Err(Refusal::Nothing) } else { Ok(next) }
    }

    /// Puts a member into another zone: one that keeps everything alone, since zones decide who keeps what.
    ///
    /// # Errors
    /// Where the store isn't a member, or others stand in an open placement, or it is in that zone already.
    pub fn set_zone(&self, store: StoreId, zone: &str) -> Result<Self, Refusal> {
        check_text(store, zone, "zone")?;
        if self.placements.iter().any(|placement| placement.members.keys().any(|other| *other != store)) {
            return Err(Refusal::ZoneHolds { store });
        }
        let mut next = self.next();
        let member = next.members.get_mut(&store).ok_or(Refusal::NotMember { store })?;
        member.zone = zone.to_owned();
        if next.members == self.members { Err(Refusal::Nothing) } else { Ok(next) }
    }

    fn next(&self) -> Self {
        let mut ancestors = self.ancestors.clone();
        ancestors.truncate(MAX_ANCESTORS - 1);
        ancestors.insert(0, self.digest());
        Self { epoch: self.epoch + 1, ancestors, ..self.clone() }
    }

    /// Takes a store for leaving or lost; `true` where the current placement must do without it.
    fn depart(&mut self, store: StoreId, becomes: MemberState, replaced: bool) -> Result<bool, Refusal> {
        let state = self.members.get(&store).ok_or(Refusal::NotMember { store })?.state;
        match (state, becomes) {
            (MemberState::Active, _) => {
                self.enter(store, becomes);
                Ok(true)
            }
            (MemberState::Leaving, MemberState::Lost) if !replaced => {
                self.enter(store, becomes);
                Ok(false)
            }
            _ => Err(Refusal::WrongState { store, state }),
        }
    }

    /// Opens the placement of all active members, from a layout of the one before.
    fn open(&mut self, before: Layout, moves: bool) -> Result<(), Refusal> {
        let members = self.members.values().filter(|member| member.state == MemberState::Active).count();
        // More copies come with members, fewer only by an operator's word.
        let rf = before.rf.max(self.replication_factor.min(members as u32));
        let moves = moves || rf != before.rf;
        self.open_with(before, moves, rf, PLACEMENTS_MAX)
    }

    /// As [`open`](Self::open), with `rf` copies, where fewer than `most` placements are open.
    fn open_with(&mut self, before: Layout, moves: bool, rf: u32, most: usize) -> Result<(), Refusal> {
        if self.is_joint() {
            return Err(Refusal::InTransition { since: self.current().id });
        }
        if self.placements.len() >= most {
            return Err(Refusal::TooManyPlacements { open: self.placements.len() });
        }
        let active = self.members.iter().filter(|(_, member)| member.state == MemberState::Active);
        let seats: BTreeMap<StoreId, &str> =
            active.map(|(store, member)| (*store, member.zone.as_str())).collect();
        if seats.len() > MAX_MEMBERS {
            return Err(Refusal::TooManyMembers);
        }
        if seats.len() < rf as usize {
            return Err(Refusal::TooFewLeft { left: seats.len(), rf });
        }
        let layout = if moves { plan(Some(&before), &seats, rf) } else { before };
        self.placements.push(placement(self.epoch, layout));
        self.drop_departed();
        Ok(())
    }

    fn enter(&mut self, store: StoreId, state: MemberState) {
        if let Some(member) = self.members.get_mut(&store) {
            member.state = state;
            member.since = self.epoch;
        }
    }

    /// Forgets those that have been gone longest.
    fn drop_departed(&mut self) {
        let mut departed: Vec<(Epoch, StoreId)> = Vec::new();
        for (store, member) in &self.members {
            if !self.is_owner(*store) && member.state != MemberState::Active {
                departed.push((member.since, *store));
            }
        }
        departed.sort_unstable();
        for (_, store) in departed.iter().rev().skip(MAX_DEPARTED) {
            self.members.remove(store);
        }
    }
}

impl NewMember {
    fn info(&self, store: StoreId, since: Epoch) -> Result<MemberInfo, Refusal> {
        check_text(store, &self.name, "name")?;
        check_text(store, &self.zone, "zone")?;
        check_text(store, &self.peer_address, "peer address")?;
        check_text(store, &self.http_address, "http address")?;
        Ok(MemberInfo {
            name: self.name.clone(),
            zone: self.zone.clone(),
            peer_address: self.peer_address.clone(),
            http_address: self.http_address.clone(),
            state: MemberState::Active,
            since,
        })
    }
}

fn placement(id: Epoch, layout: Layout) -> Placement {
    Placement { id, rf: layout.rf, zone_limit: layout.zone_limit, members: layout.tokens }
}

fn check_factor(wanted: u32) -> Result<(), Refusal> {
    if (1..=MAX_REPLICATION_FACTOR).contains(&wanted) {
        Ok(())
    } else {
        Err(Refusal::ReplicationFactor { wanted })
    }
}

fn check_text(store: StoreId, text: &str, what: &'static str) -> Result<(), Refusal> {
    if text.is_empty() || text.len() > MAX_TEXT_BYTES { Err(Refusal::Text { store, what }) } else { Ok(()) }
}
