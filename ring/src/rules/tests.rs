//! Random histories of a ring: writes, transitions, losses and readers who lag behind.

use std::collections::BTreeMap;

use proptest::prelude::*;

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

#[derive(Debug, Clone, Copy)]
enum Step {
    Write { token: u64, turn: usize, lag: usize },
    Join { zone: u8 },
    Leave { nth: usize },
    Lose { nth: usize },
    Replace { nth: usize },
    Factor { wanted: u32 },
    Adopt { who: u16 },
    Flush { who: u16 },
    Finish,
    Revert,
    Close { nth: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<u64>(), 0..9_usize, 0..3_usize).prop_map(|(token, turn, lag)| Step::Write { token, turn, lag }),
        2 => (0..3_u8).prop_map(|zone| Step::Join { zone }),
        1 => (0..9_usize).prop_map(|nth| Step::Leave { nth }),
        1 => (0..9_usize).prop_map(|nth| Step::Lose { nth }),
        1 => (0..9_usize).prop_map(|nth| Step::Replace { nth }),
        1 => (1..6_u32).prop_map(|wanted| Step::Factor { wanted }),
        4 => any::<u16>().prop_map(|who| Step::Adopt { who }),
        3 => any::<u16>().prop_map(|who| Step::Flush { who }),
        4 => Just(Step::Finish),
        1 => Just(Step::Revert),
        3 => (0..3_usize).prop_map(|nth| Step::Close { nth }),
    ]
}

/// An acknowledged sample.
struct Sample {
    token: u64,
    holders: BTreeSet<StoreId>,
    in_blocks: bool,
}

#[derive(Default)]
struct Store {
    /// Epochs that it adopted, and how many samples it held by then.
    adopted: Vec<(Epoch, usize)>,
    held: Vec<usize>,
    flushed: usize,
    gone: bool,
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

    fn vouches(&self, sealed_by: Epoch) -> bool {
        let sealed = self.adopted.iter().find(|(epoch, _)| *epoch >= sealed_by);
        !self.gone && sealed.is_some_and(|(_, held)| self.flushed >= *held)
    }
}

struct History {
    views: Vec<View>,
    stores: BTreeMap<StoreId, Store>,
    samples: Vec<Sample>,
    next: u32,
}

impl History {
    fn new() -> Self {
        let first = ring_of(3, 3);
        let stores = first
            .members
            .keys()
            .map(|id| (*id, Store { adopted: vec![(1, 0)], ..Store::default() }))
            .collect();
        Self { views: vec![View::new(first).unwrap()], stores, samples: Vec::new(), next: 10 }
    }

    fn view(&self) -> &View {
        self.views.last().unwrap()
    }

    fn document(&self) -> &Document {
        self.view().document()
    }

    fn go_on(&mut self, next: Result<Document, Refusal>) {
        let Ok(next) = next else { return };
        assert_eq!(next.epoch, self.view().epoch() + 1);
        assert!(next.placements.len() <= MAX_OPEN_PLACEMENTS);
        let another = next.current().id != self.document().current().id;
        assert!(!(next.is_joint() && self.document().is_joint() && another), "one transition at a time");
        let next = Document::decode(&next.encode()).unwrap();
        for id in next.members.keys() {
            self.stores.entry(*id).or_default();
        }
        self.views.push(View::new(next).unwrap());
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write { token, turn, lag } => self.write(token, turn, lag),
            Step::Join { zone } => {
                let (id, new) = self.newcomer(["a", "b", "c"][usize::from(zone)]);
                self.go_on(self.document().change(&Change::join(id, new)));
            }
            Step::Leave { nth } => {
                let id = self.active(nth);
                self.go_on(self.document().change(&Change::leave(id)));
            }
            Step::Lose { nth } => {
                let id = self.active(nth);
                if self.lose(id) {
                    self.go_on(self.document().change(&Change::lose(id)));
                }
            }
            Step::Replace { nth } => {
                let id = self.active(nth);
                if self.lose(id) {
                    let zone = self.document().members[&id].zone.clone();
                    let (new, info) = self.newcomer(&zone);
                    self.go_on(self.document().change(&Change::replace(id, new, info)));
                }
            }
            Step::Factor { wanted } => {
                // Fewer copies bear no loss; a history that loses one keeps two at least.
                self.go_on(self.document().set_replication_factor(wanted.max(2), true));
            }
            Step::Adopt { who } => {
                let epoch = self.view().epoch();
                self.some(who).for_each(|store| store.adopt(epoch));
            }
            Step::Flush { who } => self.flush(who),
            Step::Finish => {
                let epoch = self.view().epoch();
                let adopted = |store: &&Store| !store.gone && store.epoch() >= epoch;
                let adopted =
                    self.stores.iter().filter(|(_, store)| adopted(store)).map(|(id, _)| *id).collect();
                if adoption(self.view(), &adopted).is_empty() {
                    self.go_on(self.document().finish());
                }
            }
            Step::Revert => self.go_on(self.document().revert()),
            Step::Close { nth } => self.close(nth),
        }
    }

    /// A store is gone; `true` where others may forget it. Only one at a time is.
    fn lose(&mut self, id: StoreId) -> bool {
        let open = |other: &StoreId| self.document().is_owner(*other);
        if self.stores.iter().any(|(other, store)| store.gone && *other != id && open(other)) {
            return false;
        }
        // With two copies W is 2 and one may be lost, but not before the other transition is done.
        if self.document().placements.iter().any(|placement| placement.write_quorum() < 2) {
            return false;
        }
        self.stores.get_mut(&id).unwrap().gone = true;
        let others = self.stores.iter().filter(|(_, store)| !store.gone).map(|(id, _)| *id).collect();
        forgetting(self.view(), id, &others).is_empty()
    }

    fn newcomer(&mut self, zone: &str) -> (StoreId, crate::epoch::NewMember) {
        self.next += 1;
        (store(self.next), member(self.next, zone))
    }

    fn active(&self, nth: usize) -> StoreId {
        let active: Vec<StoreId> = self.document().active().map(|(id, _)| id).collect();
        active[nth % active.len()]
    }

    fn some(&mut self, who: u16) -> impl Iterator<Item = &mut Store> {
        let living = self.stores.values_mut().filter(|store| !store.gone);
        living.enumerate().filter(move |(nth, _)| who >> (nth % 16) & 1 == 1).map(|(_, store)| store)
    }

    fn flush(&mut self, who: u16) {
        let mut listed = Vec::new();
        for store in self.some(who) {
            store.flushed = store.held.len();
            listed.extend(store.held.iter().copied());
        }
        listed.into_iter().for_each(|sample| self.samples[sample].in_blocks = true);
    }

    /// A coordinator that may lag behind writes to exactly a quorum of those who take it.
    fn write(&mut self, token: u64, turn: usize, lag: usize) {
        let view = &self.views[self.views.len().saturating_sub(1 + lag)];
        let mut holders = BTreeSet::new();
        for set in view.write_sets(token).iter() {
            let owners = set.stores.iter().map(|owner| view.store(*owner));
            let mut takers: Vec<StoreId> = owners
                .filter(|id| !self.stores[id].gone && self.stores[id].epoch() <= view.epoch())
                .collect();
            if takers.len() < set.quorum {
                return;
            }
            let turn = turn % takers.len();
            takers.rotate_left(turn);
            holders.extend(&takers[..set.quorum]);
        }
        let epoch = view.epoch();
        for id in &holders {
            let store = self.stores.get_mut(id).unwrap();
            store.adopt(epoch);
            store.held.push(self.samples.len());
        }
        self.samples.push(Sample { token, holders, in_blocks: false });
    }

    fn close(&mut self, nth: usize) {
        let Some(id) = self.document().placements.get(nth).map(|placement| placement.id) else { return };
        let Some(sealed) = sealed_by(self.view(), id) else {
            assert!(matches!(self.document().close(id, &BTreeMap::new()), Err(Refusal::TakesWrites { .. })));
            return;
        };
        let vouching =
            self.stores.iter().filter(|(_, store)| store.vouches(sealed)).map(|(id, _)| *id).collect();
        if closing(self.view(), id, &vouching).is_none() {
            self.go_on(self.document().close(id, &BTreeMap::new()));
        }
    }

    /// No reader, however far behind, can get what counts as a complete answer without an acknowledged sample.
    fn check(&self) {
        for view in &self.views {
            for sample in self.samples.iter().filter(|sample| !sample.in_blocks) {
                let hidden = view.read_sets().iter().all(|table| {
                    let range = table.range(sample.token);
                    let answers = range.owners.iter().map(|owner| view.store(*owner)).filter(|id| {
                        let lost = view.document().members[id].state.is_lost();
                        !lost && !self.stores[id].gone && self.stores[id].epoch() <= view.epoch()
                    });
                    answers.filter(|id| !sample.holders.contains(id)).count() >= range.read_quorum
                });
                assert!(!hidden, "a reader at epoch {} misses a sample", view.epoch());
            }
        }
        for table in self.view().read_sets() {
            assert!(table.write_quorum() + table.read_quorum() > table.rf() as usize);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn no_history_hides_an_acknowledged_sample(steps in proptest::collection::vec(step(), 1..120)) {
        let mut history = History::new();
        for step in steps {
            history.take(step);
            history.check();
        }
    }
}
