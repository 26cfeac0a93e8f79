use super::*;
use crate::View;

pub(crate) fn store(n: u32) -> StoreId {
    let half = |salt: u64| u128::from(crate::hash::key_token(&(u64::from(n) ^ salt).to_le_bytes()));
    StoreId(half(0) << 64 | half(1 << 60))
}

pub(crate) fn member(n: u32, zone: &str) -> NewMember {
    NewMember {
        name: format!("node{n}"),
        zone: zone.to_owned(),
        peer_address: format!("10.0.0.{n}:9201"),
        http_address: format!("10.0.0.{n}:9200"),
    }
}

/// Members `0..n` by turns in three zones.
pub(crate) fn ring_of(n: u32, replication_factor: u32) -> Document {
    let zones = ["a", "b", "c"];
    let first = (0..n).map(|i| (store(i), member(i, zones[i as usize % 3]))).collect();
    Document::found(ClusterId(7), 0xd16e57, replication_factor, &first).unwrap()
}

fn read_back(document: &Document) {
    assert_eq!(Document::decode(&document.encode()).as_ref(), Ok(document));
    View::new(document.clone()).unwrap();
}

#[test]
fn a_document_reads_what_it_writes() {
    let three = ring_of(3, 3);
    let joint = three.change(&Change::join(store(9), member(9, "a"))).unwrap();
    let closed = joint.finish().unwrap().close(1, &BTreeMap::from([("t".to_owned(), 5)])).unwrap();
    for document in [three, joint, closed] {
        read_back(&document);
    }
}

#[test]
fn copies_grow_with_members_up_to_what_is_wanted() {
    let one = ring_of(1, 3);
    assert_eq!(one.current().rf, 1);
    let two = one.change(&Change::join(store(1), member(1, "b"))).unwrap().finish().unwrap();
    assert_eq!(two.current().rf, 2);
    let change = Change {
        joins: BTreeMap::from([(store(2), member(2, "c")), (store(3), member(3, "a"))]),
        ..Change::default()
    };
    let four = two.change(&change).unwrap().finish().unwrap();
    assert_eq!((four.current().rf, four.current().members.len()), (3, 4));
    read_back(&four);
}

#[test]
fn copies_are_lowered_by_an_operator_only() {
    let three = ring_of(3, 3);
    let refused = three.change(&Change::leave(store(0)));
    assert_eq!(refused, Err(Refusal::TooFewLeft { left: 2, rf: 3 }));
    assert_eq!(three.set_replication_factor(2, false), Err(Refusal::Unconfirmed { from: 3, to: 2 }));
    let lower = three.set_replication_factor(2, true).unwrap();
    assert!(lower.is_joint());
    let left = lower.finish().unwrap().change(&Change::leave(store(0))).unwrap();
    assert_eq!(left.current().rf, 2);
    read_back(&left);
}

#[test]
fn wanting_more_copies_than_members_waits_for_members() {
    let three = ring_of(3, 3);
    let five = three.set_replication_factor(5, false).unwrap();
    assert!(!five.is_joint());
    let four = five.change(&Change::join(store(3), member(3, "a"))).unwrap();
    assert_eq!(four.current().rf, 4);
    let back = four.revert().unwrap();
    assert_eq!((back.replication_factor, back.current().rf), (5, 3));
}

#[test]
fn one_transition_at_a_time() {
    let joint = ring_of(3, 3).change(&Change::join(store(3), member(3, "a"))).unwrap();
    let refused = Err(Refusal::InTransition { since: 2 });
    assert_eq!(joint.change(&Change::join(store(4), member(4, "b"))), refused);
    assert_eq!(joint.set_replication_factor(2, true), refused);
    assert_eq!(joint.finish().unwrap().finish(), Err(Refusal::NoTransition));
    assert_eq!(joint.finish().unwrap().revert(), Err(Refusal::NoTransition));
}

#[test]
fn a_reverted_transition_leaves_no_trace_but_the_epoch() {
    let four = ring_of(4, 3);
    let changes = [
        Change::join(store(9), member(9, "b")),
        Change::leave(store(1)),
        Change::lose(store(2)),
        Change::replace(store(0), store(8), member(8, "a")),
    ];
    for change in changes {
        let mut back = four.change(&change).unwrap().revert().unwrap();
        assert_eq!(back.epoch, 3);
        back.epoch = 1;
        back.ancestors.clear();
        for member in back.members.values_mut() {
            member.since = 1;
        }
        assert_eq!(back, four, "{change:?}");
    }
}

#[test]
fn a_replacement_takes_over_the_same_tokens() {
    let three = ring_of(3, 3);
    let replaced = three.change(&Change::replace(store(1), store(7), member(7, "b"))).unwrap();
    assert_eq!(replaced.current().members[&store(7)], three.current().members[&store(1)]);
    assert_eq!(replaced.members[&store(1)].state, MemberState::Lost);
    assert_eq!(replaced.current().members[&store(0)], three.current().members[&store(0)]);
    read_back(&replaced);
}

#[test]
fn a_drained_store_has_left_when_its_placements_are_closed() {
    let four = ring_of(4, 3);
    let joint = four.change(&Change::leave(store(3))).unwrap();
    assert_eq!(joint.members[&store(3)].state, MemberState::Leaving);
    assert_eq!(joint.close(1, &BTreeMap::new()), Err(Refusal::TakesWrites { id: 1 }));
    let last = joint.finish().unwrap();
    assert_eq!(last.close(2, &BTreeMap::new()), Err(Refusal::TakesWrites { id: 2 }));
    assert_eq!(last.close(3, &BTreeMap::new()), Err(Refusal::NotOpen { id: 3 }));
    let closed = last.close(1, &BTreeMap::new()).unwrap();
    assert_eq!(closed.members[&store(3)].state, MemberState::Left);
    assert!(!closed.is_owner(store(3)));
    let again = closed.change(&Change::join(store(3), member(3, "a")));
    assert_eq!(again, Err(Refusal::WrongState { store: store(3), state: MemberState::Left }));
}

#[test]
fn a_draining_store_that_is_lost_needs_no_transition() {
    let leaving = ring_of(4, 3).change(&Change::leave(store(3))).unwrap().finish().unwrap();
    let lost = leaving.change(&Change::lose(store(3))).unwrap();
    assert!(!lost.is_joint());
    assert_eq!(lost.members[&store(3)].state, MemberState::Lost);
    let accepted = lost.accept_loss(&BTreeSet::from([store(3)])).unwrap();
    assert_eq!(accepted.accept_loss(&BTreeSet::from([store(3)])), Err(Refusal::Nothing));
    let refused = accepted.accept_loss(&BTreeSet::from([store(0)]));
    assert_eq!(refused, Err(Refusal::WrongState { store: store(0), state: MemberState::Active }));
}

#[test]
fn what_is_written_off_is_lost_and_accepted_and_has_no_place() {
    let three = ring_of(3, 3);
    let one = three.write_off(&[store(1), store(2)].into()).unwrap();
    assert_eq!((one.current().rf, one.replication_factor, one.is_joint()), (1, 3, true));
    assert!([1, 2].iter().all(|n| one.members[&store(*n)].state == MemberState::LossAccepted));
    read_back(&one);
    // Copies come again with members.
    let two = one.finish().unwrap().change(&Change::join(store(4), member(4, "b"))).unwrap();
    assert_eq!(two.current().rf, 2);
    assert_eq!(one.write_off(&[store(1)].into()), Err(Refusal::Nothing));
    assert_eq!(three.write_off(&[].into()), Err(Refusal::Nothing));
    assert_eq!(three.write_off(&(0..3).map(store).collect()), Err(Refusal::NobodyLeft));
    assert_eq!(three.write_off(&[store(9)].into()), Err(Refusal::NotMember { store: store(9) }));
}

#[test]
fn an_accepted_loss_is_never_taken_back() {
    let three = ring_of(3, 3);
    let replaced = three.change(&Change::replace(store(0), store(9), member(9, "a"))).unwrap();
    replaced.revert().unwrap();
    let refused = Err(Refusal::LossHolds { store: store(0) });
    assert_eq!(replaced.accept_loss(&[store(0)].into()).unwrap().revert(), refused);
    assert_eq!(three.write_off(&[store(0)].into()).unwrap().revert(), refused);
    // What left by an earlier transition doesn't hold up this one.
    let last = three.write_off(&[store(0)].into()).unwrap().finish().unwrap();
    last.change(&Change::join(store(9), member(9, "a"))).unwrap().revert().unwrap();
}

#[test]
fn a_transition_whose_newcomer_is_lost_is_planned_anew_from_where_it_began() {
    let joint = ring_of(4, 3)
        .change(&Change {
            joins: [(store(8), member(8, "a")), (store(9), member(9, "b"))].into(),
            leaves: [store(0)].into(),
            ..Change::default()
        })
        .unwrap();
    let again = joint.write_off(&[store(9), store(1)].into()).unwrap();
    let active: BTreeSet<StoreId> = again.active().map(|(id, _)| id).collect();
    assert_eq!(active, [store(2), store(3), store(8)].into());
    assert_eq!((again.placements.len(), again.earlier(), again.current().rf), (2, joint.earlier(), 3));
    let transition = again.transition.clone().unwrap();
    assert_eq!((transition.joins, transition.leaves), ([store(8)].into(), [store(0), store(1)].into()));
    read_back(&again);
    // One that isn't needed by the new placement changes nothing about it.
    let same = joint.write_off(&[store(0)].into()).unwrap();
    assert_eq!(same.current(), joint.current());
    // Fewer copies that were asked for stay fewer.
    let lower = ring_of(4, 3).set_replication_factor(2, true).unwrap().write_off(&[store(1)].into()).unwrap();
    assert_eq!((lower.replication_factor, lower.current().rf), (2, 2));
}

#[test]
fn at_most_eight_placements_are_open_and_the_last_is_kept_for_a_loss() {
    let mut document = ring_of(3, 3);
    for n in 3.. {
        match document.change(&Change::join(store(n), member(n, "a"))) {
            Ok(joint) => document = joint.finish().unwrap(),
            Err(refused) => {
                assert_eq!(refused, Refusal::TooManyPlacements { open: MAX_OPEN_PLACEMENTS - 1 });
                break;
            }
        }
    }
    document.close(1, &BTreeMap::new()).unwrap().change(&Change::leave(store(0))).unwrap();
    let full = document.write_off(&[store(0)].into()).unwrap().finish().unwrap();
    assert_eq!(full.placements.len(), MAX_OPEN_PLACEMENTS);
    read_back(&full);
    let refused = full.write_off(&[store(1)].into());
    assert_eq!(refused, Err(Refusal::TooManyPlacements { open: MAX_OPEN_PLACEMENTS }));
}

#[test]
fn catalog_floors_never_sink() {
    let last = ring_of(3, 3).change(&Change::join(store(3), member(3, "a"))).unwrap().finish().unwrap();
    let closed = last.close(1, &BTreeMap::from([("t".to_owned(), 9)])).unwrap();
    let next = closed.change(&Change::leave(store(3))).unwrap().finish().unwrap();
    let closed = next.close(2, &BTreeMap::from([("t".to_owned(), 4), ("u".to_owned(), 1)])).unwrap();
    assert_eq!(closed.catalog_floors, BTreeMap::from([("t".to_owned(), 9), ("u".to_owned(), 1)]));
}

#[test]
fn impossible_changes_are_refused() {
    let three = ring_of(3, 3);
    assert_eq!(three.change(&Change::default()), Err(Refusal::Nothing));
    let stranger = store(9);
    assert_eq!(three.change(&Change::leave(stranger)), Err(Refusal::NotMember { store: stranger }));
    let again = three.change(&Change::join(store(0), member(0, "a")));
    assert_eq!(again, Err(Refusal::WrongState { store: store(0), state: MemberState::Active }));
    let mut twice = Change::leave(store(0));
    twice.lost.insert(store(0));
    assert_eq!(three.change(&twice), Err(Refusal::Twice { store: store(0) }));
    let nameless = NewMember { name: String::new(), ..member(9, "a") };
    let refused = three.change(&Change::join(stranger, nameless));
    assert_eq!(refused, Err(Refusal::Text { store: stranger, what: "name" }));
    let factor = three.set_replication_factor(10, true);
    assert_eq!(factor, Err(Refusal::ReplicationFactor { wanted: 10 }));
    let unchanged = three.set_addresses(store(0), "node0", "10.0.0.0:9201", "10.0.0.0:9200");
    assert_eq!(unchanged, Err(Refusal::Nothing));
}

#[test]
fn only_who_stands_alone_goes_to_another_zone() {
    let alone = ring_of(1, 3).set_zone(store(0), "cellar").unwrap();
    assert_eq!((alone.epoch, alone.members[&store(0)].zone.as_str()), (2, "cellar"));
    assert_eq!(alone.set_zone(store(0), "cellar"), Err(Refusal::Nothing));
    assert_eq!(alone.set_zone(store(9), "x"), Err(Refusal::ZoneHolds { store: store(9) }));
    let joint = alone.change(&Change::join(store(1), member(1, "a"))).unwrap();
    for shared in [joint.clone(), joint.finish().unwrap()] {
        assert_eq!(shared.set_zone(store(0), "attic"), Err(Refusal::ZoneHolds { store: store(0) }));
    }
}

#[test]
fn documents_of_two_histories_are_told_apart() {
    let one = ring_of(3, 3);
    let two = one.change(&Change::join(store(3), member(3, "a"))).unwrap();
    let other = one.change(&Change::join(store(4), member(4, "a"))).unwrap();
    assert_eq!(one.compare(&two), Ok(Offer::Newer));
    assert_eq!(two.compare(&one), Ok(Offer::Older));
    assert_eq!(two.compare(&two), Ok(Offer::Same));
    assert_eq!(two.compare(&other), Err(Conflict::TwoHistories { epoch: 2 }));
    let foreign = Document { cluster: ClusterId(8), ..one.clone() };
    assert!(matches!(one.compare(&foreign), Err(Conflict::OtherCluster { .. })));
}

/// Two histories that part at epoch 2 and go on for any time; and one document each that is read back from JSON.
#[test]
fn documents_know_those_that_they_came_from_however_many_epochs_lie_between() {
    let grow = |document: &Document, round: usize| {
        let port = format!("a:{round}");
        let next = document.set_addresses(store(0), "n0", &port, "a:2").unwrap();
        Document::decode(&next.encode()).unwrap()
    };
    let one = ring_of(3, 3);
    let (mut ours, mut theirs) = (vec![grow(&one, 7)], vec![grow(&one, 8)]);
    for round in 10..10 + 2 * MAX_ANCESTORS {
        ours.push(grow(&ours[ours.len() - 1], round));
        theirs.push(grow(&theirs[theirs.len() - 1], round));
    }
    let common = &one;
    for (at, document) in ours.iter().enumerate() {
        assert!(document.ancestors.len() <= MAX_ANCESTORS);
        assert_eq!(common.compare(document), Ok(Offer::Newer));
        assert_eq!(document.compare(common), Ok(Offer::Older));
        for (other_at, other) in theirs.iter().enumerate() {
            let (between, parted) =
                (at.abs_diff(other_at), Conflict::TwoHistories { epoch: document.epoch.min(other.epoch) });
            if between <= MAX_ANCESTORS {
                assert_eq!(document.compare(other), Err(parted), "{at}, {other_at}");
            } else {
                assert!(document.compare(other).is_ok(), "neither knows of the other's: {at}, {other_at}");
            }
        }
        for own in &ours {
            assert!(document.compare(own).is_ok());
        }
    }
}

#[test]
fn damaged_documents_are_refused() {
    let good = ring_of(3, 3);
    assert!(matches!(Document::decode(b"{}"), Err(Invalid::Json(_))));
    assert!(matches!(Document::decode(b"\0\xFF"), Err(Invalid::Json(_))));
    let changed = |change: &dyn Fn(&mut Document)| {
        let mut bad = good.clone();
        change(&mut bad);
        Document::decode(&bad.encode())
    };
    assert_eq!(changed(&|d| d.format = 2), Err(Invalid::Format { found: 2 }));
    let contradictions: [&dyn Fn(&mut Document); 10] = [
        &|d| d.placements.clear(),
        &|d| d.epoch = 0,
        &|d| d.replication_factor = 0,
        &|d| d.placements[0].rf = 4,
        &|d| d.placements[0].zone_limit = 0,
        &|d| d.placements[0].members = BTreeMap::new(),
        &|d| drop(d.members.remove(&store(0))),
        &|d| d.members.values_mut().for_each(|m| m.zone = "a".to_owned()),
        &|d| d.placements[0].members.get_mut(&store(0)).unwrap().0.clear(),
        &|d| {
            *d.placements[0].members.get_mut(&store(0)).unwrap() = d.placements[0].members[&store(1)].clone();
        },
    ];
    for (n, change) in contradictions.into_iter().enumerate() {
        assert!(matches!(changed(change), Err(Invalid::Contradiction(_))), "{n}");
    }
}

#[test]
fn only_the_last_that_departed_are_remembered() {
    let mut document = ring_of(3, 3);
    for n in 3..MAX_DEPARTED as u32 + 10 {
        let joint = document.change(&Change::replace(active(&document), store(n), member(n, "a"))).unwrap();
        let last = joint.finish().unwrap();
        document = last.close(last.placements[0].id, &BTreeMap::new()).unwrap();
    }
    assert_eq!(document.members.len(), MAX_DEPARTED + 3);
    assert!(!document.members.contains_key(&store(0)));
}

/// The member that has been there longest.
fn active(document: &Document) -> StoreId {
    document.active().min_by_key(|(store, member)| (member.since, *store)).unwrap().0
}
