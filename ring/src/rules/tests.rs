//! Random histories of a ring: writes, transitions, losses, what operators do about them, and readers who lag behind.
//!
//! Varied: which members come, drain, fall silent, lose their disk, come back as they were or with an earlier disk, and
//! in which order; what operators forget, replace, accept, write off, take back, and how many copies they ask for; who
//! has adopted which document, who has uploaded what; how far writers (two documents) and readers (any number) lag
//! behind; imports of which the block isn't listed yet.
//!
//! Held fixed: three members at first, in three zones; a write reaches exactly its quorum; only members that are silent
//! are given up, and one that was given up and comes back hands over what it has before anybody asks it; a disk that
//! was put back is noticed; disclaimers don't heal.
//!
//! At the end of each history, whoever is silent is written off, and those that are left settle the ring alone.
//! `CARILLON_RING_HISTORIES` says how many histories are tried (.ci/long: 100,000).

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::Document;
use crate::epoch::tests::{member, ring_of, store};
use crate::epoch::{Change, MAX_OPEN_PLACEMENTS, Refusal};

#[test]
fn adoption_waits_for_owners_of_old_and_new() {
    let joint = ring_of(3, 3).change(&Change::replace(store(0), store(9), member(9, "a"))).unwrap();
    let view = View::new(joint).unwrap();
    let waiting = |adopted: &[u32]| {
        let missing = adoption(&view, &adopted.iter().map(|n| store(*n)).collect());
        missing.into_iter().map(|missing| missing.placement).collect::<Vec<_>>()
    };
    assert_eq!(waiting(&[]), [1, 2]);
    assert_eq!(waiting(&[1, 9]), [1]);
    // A lost store's word doesn't count.
    assert_eq!(waiting(&[1, 9, 0]), [1]);
    assert!(waiting(&[1, 2]).is_empty());
}

#[test]
fn a_dead_owner_does_not_hold_up_a_closing() {
    let last = ring_of(3, 3).change(&Change::join(store(9), member(9, "a"))).unwrap().finish().unwrap();
    let view = View::new(last).unwrap();
    assert_eq!(sealed_by(&view, 1), Some(2));
    assert_eq!((sealed_by(&view, 2), sealed_by(&view, 7)), (None, None));
    assert_eq!(closing(&view, 1, &[store(0), store(2)].into()), None);
    let missing = closing(&view, 1, &[store(0)].into()).unwrap();
    assert_eq!(missing.waiting_for, [store(1), store(2)].into());
}

#[test]
fn a_joint_ring_is_sealed_by_nothing_yet() {
    let view = View::new(ring_of(3, 3).change(&Change::join(store(9), member(9, "a"))).unwrap()).unwrap();
    assert_eq!((sealed_by(&view, 1), sealed_by(&view, 2)), (None, None));
}

#[test]
fn forgetting_takes_a_quorum_of_others() {
    let view = View::new(ring_of(4, 3)).unwrap();
    assert!(forgetting(&view, store(0), &[store(1), store(2), store(3)].into()).is_empty());
    assert!(!forgetting(&view, store(0), &[store(0), store(1)].into()).is_empty());
    assert!(!forgetting(&view, store(1), &[].into()).is_empty());
}

#[test]
fn losses_beyond_what_a_quorum_leaves_out_are_named_until_accepted() {
    let five = ring_of(5, 3);
    let two = Change { lost: [store(0), store(1)].into(), ..Change::default() };
    let lost = five.change(&two).unwrap();
    let found = losses(&View::new(lost.clone()).unwrap());
    assert_eq!(found.iter().map(|missing| missing.placement).collect::<Vec<_>>(), [1]);
    assert_eq!(found[0].waiting_for, [store(0), store(1)].into());
    let accepted = lost.accept_loss(&[store(0), store(1)].into()).unwrap();
    assert!(losses(&View::new(accepted.clone()).unwrap()).is_empty());
    // With the loss accepted, the survivors can carry the transition through.
    let rest = [store(2), store(3), store(4)].into();
    assert!(!adoption(&View::new(lost).unwrap(), &rest).is_empty());
    assert!(adoption(&View::new(accepted).unwrap(), &rest).is_empty());
}

#[test]
fn a_loss_beside_an_accepted_one_is_named() {
    let first = ring_of(5, 3).write_off(&[store(0)].into()).unwrap().finish().unwrap();
    assert!(losses(&View::new(first.clone()).unwrap()).is_empty());
    let second = first.change(&Change::lose(store(1))).unwrap();
    let found = losses(&View::new(second.clone()).unwrap());
    assert_eq!(found.iter().map(|missing| missing.placement).collect::<Vec<_>>(), [1]);
    assert_eq!(found[0].waiting_for, [store(1)].into());
    assert!(losses(&View::new(second.write_off(&[store(1)].into()).unwrap()).unwrap()).is_empty());
}

#[test]
fn whoever_is_left_carries_any_loss_through_alone() {
    for (members, rf, lost) in [(2, 3, 1), (3, 3, 1), (3, 3, 2), (5, 3, 2), (4, 3, 3), (5, 5, 4), (9, 3, 8)] {
        let (gone, rest): (BTreeSet<u32>, BTreeSet<u32>) = (0..members).partition(|n| *n < lost);
        let written_off = ring_of(members, rf).write_off(&gone.iter().map(|n| store(*n)).collect()).unwrap();
        let left: BTreeSet<StoreId> = rest.iter().map(|n| store(*n)).collect();
        assert_eq!(written_off.current().rf, rf.min(members - lost), "{members} {lost}");
        assert_eq!(written_off.active().map(|(id, _)| id).collect::<BTreeSet<_>>(), left);
        let view = View::new(written_off.clone()).unwrap();
        assert_eq!(adoption(&view, &left), [], "{members} {lost}");
        // Where a quorum is gone, each that is left must agree, since it may be the only one that has something.
        let silent = left.first().unwrap();
        let others: BTreeSet<StoreId> = left.iter().filter(|id| *id != silent).copied().collect();
        if left.len() <= 2 {
            assert!(!adoption(&view, &others).is_empty(), "{members} {lost}");
        }
        let view = View::new(written_off.finish().unwrap()).unwrap();
        assert_eq!(closing(&view, 1, &left), None, "{members} {lost}");
        if left.len() == 1 {
            assert!(closing(&view, 1, &others).is_some(), "{members} {lost}");
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Write {
        token: u64,
        turn: usize,
        lag: usize,
    },
    /// A block that one store has alone until it is listed, which is when it is acknowledged.
    Import {
        token: u64,
        nth: usize,
    },
    Join {
        zone: u8,
    },
    Leave {
        nth: usize,
    },
    /// An owner falls silent: it has ended, or nobody reaches it.
    Away {
        nth: usize,
    },
    /// One that is silent has lost its disk.
    Wipe {
        nth: usize,
    },
    /// One that is silent is back as it was.
    Return {
        nth: usize,
    },
    /// One that is silent is back with a disk of earlier, without the last `lost` samples.
    PutBack {
        nth: usize,
        lost: usize,
    },
    /// Enough owners confirm that one is silent.
    AutoForget {
        nth: usize,
    },
    Forget {
        nth: usize,
    },
    Replace {
        nth: usize,
    },
    Accept {
        who: u16,
    },
    WriteOff {
        who: u16,
    },
    Factor {
        wanted: u32,
    },
    Adopt {
        who: u16,
    },
    Flush {
        who: u16,
    },
    Finish,
    Revert,
    Close {
        nth: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<u64>(), 0..9_usize, 0..3_usize).prop_map(|(token, turn, lag)| Step::Write { token, turn, lag }),
        1 => (any::<u64>(), 0..9_usize).prop_map(|(token, nth)| Step::Import { token, nth }),
        2 => (0..3_u8).prop_map(|zone| Step::Join { zone }),
        1 => (0..9_usize).prop_map(|nth| Step::Leave { nth }),
        2 => (0..9_usize).prop_map(|nth| Step::Away { nth }),
        1 => (0..9_usize).prop_map(|nth| Step::Wipe { nth }),
        2 => (0..9_usize).prop_map(|nth| Step::Return { nth }),
        1 => (0..9_usize, 0..4_usize).prop_map(|(nth, lost)| Step::PutBack { nth, lost }),
        1 => (0..9_usize).prop_map(|nth| Step::AutoForget { nth }),
        1 => (0..9_usize).prop_map(|nth| Step::Forget { nth }),
        1 => (0..9_usize).prop_map(|nth| Step::Replace { nth }),
        1 => any::<u16>().prop_map(|who| Step::Accept { who }),
        1 => any::<u16>().prop_map(|who| Step::WriteOff { who }),
        1 => (1..6_u32).prop_map(|wanted| Step::Factor { wanted }),
        4 => any::<u16>().prop_map(|who| Step::Adopt { who }),
        3 => any::<u16>().prop_map(|who| Step::Flush { who }),
        4 => Just(Step::Finish),
        1 => Just(Step::Revert),
        3 => (0..3_usize).prop_map(|nth| Step::Close { nth }),
    ]
}

/// What must have happened in the histories, or the check would show nothing.
const KINDS: [&str; 17] = [
    "acknowledged",
    "imported",
    "back as it was",
    "back and given up",
    "put back",
    "forgotten by others",
    "forgotten by an operator",
    "replaced",
    "accepted",
    "written off in a settled ring",
    "written off in a joint ring",
    "planned anew",
    "fewer copies after a loss",
    "taken back",
    "not taken back after a loss",
    "closed without an owner",
    "settled by who is left",
];

/// How often each kind of event happened in all histories.
#[derive(Default)]
struct Tally(RefCell<BTreeMap<&'static str, u64>>);

impl Tally {
    fn count(&self, kind: &'static str) {
        assert!(KINDS.contains(&kind), "{kind}");
        *self.0.borrow_mut().entry(kind).or_default() += 1;
    }
}

/// A sample, acknowledged once `acked`.
struct Sample {
    token: u64,
    /// By placement, those that acknowledged it.
    holders: BTreeMap<Epoch, BTreeSet<StoreId>>,
    /// Those of them that have it still.
    left: BTreeSet<StoreId>,
    acked: bool,
    in_blocks: bool,
}

#[derive(Default)]
struct Store {
    /// Epochs that it adopted, and how many samples it held by then.
    adopted: Vec<(Epoch, usize)>,
    held: Vec<usize>,
    flushed: usize,
    is_away: bool,
    is_wiped: bool,
    disclaims: BTreeSet<Epoch>,
}

impl Store {
    fn epoch(&self) -> Epoch {
        self.adopted.last().map_or(0, |(epoch, _)| *epoch)
    }

    fn adopt(&mut self, epoch: Epoch) {
        if epoch > self.epoch() {
            self.adopted.push((epoch, self.held.len()));
        }
    }

    fn vouches(&self, placement: Epoch, sealed_by: Epoch) -> bool {
        let sealed = self.adopted.iter().find(|(epoch, _)| *epoch >= sealed_by);
        let is_flushed = sealed.is_some_and(|(_, held)| self.flushed >= *held);
        !self.is_away && !self.disclaims.contains(&placement) && is_flushed
    }
}

struct History<'a> {
    views: Vec<View>,
    stores: BTreeMap<StoreId, Store>,
    samples: Vec<Sample>,
    /// Placements of transitions that were taken back, or planned anew.
    taken_back: BTreeSet<Epoch>,
    next: u32,
    tally: &'a Tally,
}

impl<'a> History<'a> {
    fn new(tally: &'a Tally) -> Self {
        let first = ring_of(3, 3);
        let stores = first
            .members
            .keys()
            .map(|id| (*id, Store { adopted: vec![(1, 0)], ..Store::default() }))
            .collect();
        let views = vec![View::new(first).unwrap()];
        Self { views, stores, samples: Vec::new(), taken_back: BTreeSet::new(), next: 10, tally }
    }

    fn view(&self) -> &View {
        self.views.last().unwrap()
    }

    fn document(&self) -> &Document {
        self.view().document()
    }

    /// Takes the next document, where it isn't refused; whether it wasn't.
    fn go_on(&mut self, next: Result<Document, Refusal>) -> bool {
        let Ok(next) = next else { return false };
        assert_eq!(next.epoch, self.view().epoch() + 1);
        assert!(next.placements.len() <= MAX_OPEN_PLACEMENTS);
        if next.is_joint() && self.document().is_joint() && next.current().id != self.document().current().id
        {
            // A transition that is planned anew goes from the same placement.
            assert_eq!(next.earlier(), self.document().earlier(), "one transition at a time");
        }
        let current = self.document().current().id;
        if next.placements.iter().all(|placement| placement.id != current) {
            self.taken_back.insert(current);
        }
        let next = Document::decode(&next.encode()).unwrap();
        for id in next.members.keys() {
            self.stores.entry(*id).or_default();
        }
        self.views.push(View::new(next).unwrap());
        true
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write { token, turn, lag } => self.write(token, turn, lag),
            Step::Import { token, nth } => self.import(token, nth),
            Step::Join { zone } => {
                let (id, new) = self.newcomer(["a", "b", "c"][usize::from(zone)]);
                self.go_on(self.document().change(&Change::join(id, new)));
            }
            Step::Leave { nth } => {
                let id = self.active(nth);
                self.go_on(self.document().change(&Change::leave(id)));
            }
            Step::Away { nth } => {
                let owners: Vec<StoreId> = self.owners().filter(|id| !self.stores[id].is_away).collect();
                if let Some(id) = owners.get(nth % owners.len().max(1)) {
                    self.stores.get_mut(id).unwrap().is_away = true;
                }
            }
            Step::Wipe { nth } => {
                if let Some(id) = self.away(nth) {
                    self.wipe(id);
                }
            }
            Step::Return { nth } => self.come_back(nth),
            Step::PutBack { nth, lost } => self.put_back(nth, lost),
            Step::AutoForget { nth } => {
                let Some(id) = self.away(nth) else { return };
                let sound =
                    self.stores.iter().filter(|(_, store)| !store.is_away && store.disclaims.is_empty());
                let confirming = sound.map(|(id, _)| *id).collect();
                if forgetting(self.view(), id, &confirming).is_empty()
                    && self.go_on(self.document().change(&Change::lose(id)))
                {
                    self.tally.count("forgotten by others");
                }
            }
            Step::Forget { nth } => {
                let Some(id) = self.away(nth) else { return };
                if self.go_on(self.document().change(&Change::lose(id))) {
                    self.tally.count("forgotten by an operator");
                }
            }
            Step::Replace { nth } => {
                let Some(id) = self.away(nth) else { return };
                let zone = self.document().members[&id].zone.clone();
                let (new, info) = self.newcomer(&zone);
                if self.go_on(self.document().change(&Change::replace(id, new, info))) {
                    self.tally.count("replaced");
                }
            }
            Step::Accept { who } => {
                let lost = self.chosen(who, |state, _| state == MemberState::Lost);
                if self.go_on(self.document().accept_loss(&lost)) {
                    self.tally.count("accepted");
                }
            }
            Step::WriteOff { who } => {
                let away = self.chosen(who, |state, store| store.is_away && state != MemberState::Left);
                drop(self.write_off(&away));
            }
            Step::Factor { wanted } => {
                self.go_on(self.document().set_replication_factor(wanted, true));
            }
            Step::Adopt { who } => {
                let epoch = self.view().epoch();
                self.some(who).for_each(|store| store.adopt(epoch));
            }
            Step::Flush { who } => self.flush(who),
            Step::Finish => {
                if self.is_adopted() {
                    self.go_on(self.document().finish());
                }
            }
            Step::Revert => match self.document().revert() {
                Err(Refusal::LossHolds { .. }) => self.tally.count("not taken back after a loss"),
                reverted => {
                    if self.go_on(reverted) {
                        self.tally.count("taken back");
                    }
                }
            },
            Step::Close { nth } => drop(self.close(nth)),
        }
    }

    fn newcomer(&mut self, zone: &str) -> (StoreId, crate::epoch::NewMember) {
        self.next += 1;
        (store(self.next), member(self.next, zone))
    }

    fn active(&self, nth: usize) -> StoreId {
        let active: Vec<StoreId> = self.document().active().map(|(id, _)| id).collect();
        active[nth % active.len()]
    }

    /// Those that stand in an open placement.
    fn owners(&self) -> impl Iterator<Item = StoreId> {
        let owners: BTreeSet<StoreId> = self
            .document()
            .placements
            .iter()
            .flat_map(|placement| placement.members.keys())
            .copied()
            .collect();
        owners.into_iter()
    }

    /// One of the owners that are silent.
    fn away(&self, nth: usize) -> Option<StoreId> {
        let away: Vec<StoreId> = self.owners().filter(|id| self.stores[id].is_away).collect();
        away.get(nth % away.len().max(1)).copied()
    }

    /// Some members for which `fits` holds.
    fn chosen(&self, who: u16, fits: impl Fn(MemberState, &Store) -> bool) -> BTreeSet<StoreId> {
        let members = self.document().members.iter();
        let fitting = members.filter(|(id, member)| fits(member.state, &self.stores[id]));
        fitting.enumerate().filter(|(nth, _)| who >> (nth % 16) & 1 == 1).map(|(_, (id, _))| *id).collect()
    }

    fn some(&mut self, who: u16) -> impl Iterator<Item = &mut Store> {
        let there = self.stores.values_mut().filter(|store| !store.is_away);
        there.enumerate().filter(move |(nth, _)| who >> (nth % 16) & 1 == 1).map(|(_, store)| store)
    }

    /// Writes stores off; whether that was refused, and why.
    fn write_off(&mut self, stores: &BTreeSet<StoreId>) -> Result<(), Refusal> {
        let (was_joint, before) = (self.document().is_joint(), self.document().current().clone());
        let next = self.document().write_off(stores)?;
        self.tally.count(if was_joint {
            "written off in a joint ring"
        } else {
            "written off in a settled ring"
        });
        if was_joint && next.current().id != before.id {
            self.tally.count("planned anew");
        }
        if next.current().rf < before.rf {
            self.tally.count("fewer copies after a loss");
        }
        assert!(self.go_on(Ok(next)));
        Ok(())
    }

    fn wipe(&mut self, id: StoreId) {
        self.stores.get_mut(&id).unwrap().is_wiped = true;
        for sample in &mut self.samples {
            sample.left.remove(&id);
        }
    }

    /// One that was given up hands over what it has, and is nobody any more.
    fn come_back(&mut self, nth: usize) {
        let Some(id) = self.away(nth).filter(|id| !self.stores[id].is_wiped) else { return };
        if !self.document().members[&id].state.is_lost() {
            self.stores.get_mut(&id).unwrap().is_away = false;
            self.tally.count("back as it was");
            return;
        }
        for sample in self.stores[&id].held.clone() {
            self.list(sample);
        }
        self.wipe(id);
        self.tally.count("back and given up");
    }

    /// A store that finds that it was put back goes by the newest document and disclaims what is open.
    fn put_back(&mut self, nth: usize, lost: usize) {
        let Some(id) = self.away(nth).filter(|id| !self.stores[id].is_wiped) else { return };
        if self.document().members[&id].state.is_lost() {
            return;
        }
        let (epoch, open) = (self.view().epoch(), self.view().read_sets().iter().map(PlacementTable::id));
        let open: BTreeSet<Epoch> = open.collect();
        let store = self.stores.get_mut(&id).unwrap();
        let kept = store.held.len().saturating_sub(lost);
        for sample in store.held.split_off(kept) {
            self.samples[sample].left.remove(&id);
        }
        store.flushed = store.flushed.min(kept);
        store.adopted.retain(|(_, held)| *held <= kept);
        store.adopt(epoch);
        store.disclaims.extend(open);
        store.is_away = false;
        self.tally.count("put back");
    }

    /// A sample is in a listed block.
    fn list(&mut self, sample: usize) {
        let sample = &mut self.samples[sample];
        if !sample.acked {
            self.tally.count("imported");
        }
        sample.acked = true;
        sample.in_blocks = true;
    }

    fn flush(&mut self, who: u16) {
        let mut listed = Vec::new();
        for store in self.some(who) {
            store.flushed = store.held.len();
            listed.extend(store.held.iter().copied());
        }
        listed.into_iter().for_each(|sample| self.list(sample));
    }

    fn import(&mut self, token: u64, nth: usize) {
        let there: Vec<StoreId> = self.owners().filter(|id| !self.stores[id].is_away).collect();
        let Some(id) = there.get(nth % there.len().max(1)) else { return };
        self.stores.get_mut(id).unwrap().held.push(self.samples.len());
        let (holders, left) = (BTreeMap::new(), BTreeSet::from([*id]));
        self.samples.push(Sample { token, holders, left, acked: false, in_blocks: false });
    }

    /// A coordinator that may lag behind writes to exactly a quorum of those who take it.
    fn write(&mut self, token: u64, turn: usize, lag: usize) {
        let view = &self.views[self.views.len().saturating_sub(1 + lag)];
        let mut holders: BTreeMap<Epoch, BTreeSet<StoreId>> = BTreeMap::new();
        for (table, set) in view.write_tables().iter().zip(view.write_sets(token).iter()) {
            let owners = set.stores.iter().map(|owner| view.store(*owner));
            let mut takers: Vec<StoreId> = owners
                .filter(|id| !self.stores[id].is_away && self.stores[id].epoch() <= view.epoch())
                .collect();
            if takers.len() < set.quorum {
                return;
            }
            let turn = turn % takers.len().max(1);
            takers.rotate_left(turn);
            holders.insert(table.id(), takers[..set.quorum].iter().copied().collect());
        }
        let epoch = view.epoch();
        let left: BTreeSet<StoreId> = holders.values().flatten().copied().collect();
        for id in &left {
            let store = self.stores.get_mut(id).unwrap();
            store.adopt(epoch);
            store.held.push(self.samples.len());
        }
        self.tally.count("acknowledged");
        self.samples.push(Sample { token, holders, left, acked: true, in_blocks: false });
    }

    /// Whether a joint document may be made final.
    fn is_adopted(&self) -> bool {
        let epoch = self.view().epoch();
        let adopted = |store: &&Store| !store.is_away && store.epoch() >= epoch;
        let adopted = self.stores.iter().filter(|(_, store)| adopted(store)).map(|(id, _)| *id).collect();
        adoption(self.view(), &adopted).is_empty()
    }

    /// Closes a placement where enough owners vouch; whether it did.
    fn close(&mut self, nth: usize) -> bool {
        let Some(placement) = self.document().placements.get(nth) else { return false };
        let (id, members) = (placement.id, placement.members.clone());
        let Some(sealed) = sealed_by(self.view(), id) else {
            assert!(matches!(self.document().close(id, &BTreeMap::new()), Err(Refusal::TakesWrites { .. })));
            return false;
        };
        let vouching =
            self.stores.iter().filter(|(_, store)| store.vouches(id, sealed)).map(|(id, _)| *id).collect();
        if closing(self.view(), id, &vouching).is_some() {
            return false;
        }
        if members.keys().any(|id| !vouching.contains(id)) {
            self.tally.count("closed without an owner");
        }
        self.go_on(self.document().close(id, &BTreeMap::new()))
    }

    /// Whether an operator has given up all who acknowledged a sample, by the open placements that have it; where those
    /// were closed, by the last.
    fn is_given_up(&self, view: &View, sample: &Sample) -> bool {
        let members = &view.document().members;
        let is_accepted =
            |id: &StoreId| members.get(id).is_some_and(|member| member.state == MemberState::LossAccepted);
        let sets = || sample.holders.iter().filter(|(id, _)| !self.taken_back.contains(*id));
        let open: Vec<_> = sets().filter(|(id, _)| view.table(**id).is_some()).collect();
        let responsible = if open.is_empty() { sets().next_back().into_iter().collect() } else { open };
        !responsible.is_empty() && responsible.iter().all(|(_, holders)| holders.iter().all(&is_accepted))
    }

    /// No reader, however far behind, can get what counts as a complete answer without an acknowledged sample, unless all
    /// who had it were given up for good by an operator.
    fn check(&self) {
        for view in &self.views {
            let members = &view.document().members;
            for sample in self.samples.iter().filter(|sample| sample.acked && !sample.in_blocks) {
                let hidden = view.read_sets().iter().all(|table| {
                    let range = table.range(sample.token);
                    let answers = range.owners.iter().map(|owner| view.store(*owner)).filter(|id| {
                        let store = &self.stores[id];
                        let counts = !members[id].state.is_lost() && !store.disclaims.contains(&table.id());
                        counts && !store.is_away && store.epoch() <= view.epoch()
                    });
                    answers.filter(|id| !sample.left.contains(id)).count() >= range.read_quorum
                });
                assert!(
                    !hidden || self.is_given_up(view, sample),
                    "a reader at epoch {} misses a sample",
                    view.epoch()
                );
            }
        }
        for table in self.view().read_sets() {
            assert!(table.write_quorum() + table.read_quorum() > table.rf() as usize);
        }
    }

    /// Whoever is silent is written off: those that are left end what is under way, and close what is open.
    fn settle(&mut self) {
        let state = |id: &StoreId| self.document().members[id].state;
        let is_away = |id: &StoreId| self.stores[id].is_away && state(id) != MemberState::LossAccepted;
        let away: BTreeSet<StoreId> = self.owners().filter(is_away).collect();
        if !away.is_empty()
            && let Err(refused) = self.write_off(&away)
        {
            let is_full = self.document().placements.len() == MAX_OPEN_PLACEMENTS;
            let is_empty = self.document().active().all(|(id, _)| away.contains(&id));
            match refused {
                Refusal::TooManyPlacements { .. } => assert!(is_full),
                Refusal::NobodyLeft => assert!(is_empty),
                refused => panic!("{refused}"),
            }
            return;
        }
        self.check();
        self.take(Step::Adopt { who: u16::MAX });
        if self.document().is_joint() {
            assert!(self.is_adopted(), "those that are left can't end the transition");
            self.take(Step::Finish);
        }
        self.take(Step::Adopt { who: u16::MAX });
        self.take(Step::Flush { who: u16::MAX });
        if self.owners().any(|id| !self.stores[&id].disclaims.is_empty()) {
            return;
        }
        while self.document().placements.len() > 1 {
            assert!(self.close(0), "those that are left can't close a placement");
            self.check();
        }
        assert!(!self.document().is_joint());
        if !away.is_empty() {
            self.tally.count("settled by who is left");
        }
    }
}

/// How many histories are tried where `CARILLON_RING_HISTORIES` doesn't say.
const DEFAULT_HISTORIES: u32 = 256;

#[test]
fn no_history_hides_an_acknowledged_sample() {
    let cases = std::env::var("CARILLON_RING_HISTORIES").ok().and_then(|cases| cases.parse().ok());
    let cases = cases.unwrap_or(DEFAULT_HISTORIES);
    let tally = Tally::default();
    let steps = proptest::collection::vec(step(), 1..120);
    let mut runner =
        TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let outcome = runner.run(&steps, |steps| {
        let mut history = History::new(&tally);
        for step in steps {
            history.take(step);
            history.check();
        }
        history.settle();
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let tally = tally.0.into_inner();
    println!("{cases} histories of the ring: {tally:?}");
    for kind in KINDS {
        assert!(tally.get(kind).is_some_and(|times| *times > 0), "never {kind}: {tally:?}");
    }
}
