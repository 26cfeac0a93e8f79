use super::*;
use crate::epoch::Change;
use crate::epoch::tests::{member, ring_of, store};

#[test]
fn a_table_covers_all_keys_once() {
    for members in [1, 3, 7] {
        let view = View::new(ring_of(members, 3)).unwrap();
        let mut next = 0;
        let mut last = 0;
        for range in view.current().ranges() {
            assert_eq!(*range.keys().start(), next);
            last = *range.keys().end();
            next = last.wrapping_add(1);
            for token in [*range.keys().start(), last] {
                assert_eq!(view.current().range(token), range);
            }
        }
        assert_eq!(last, u64::MAX);
        let sum: f64 = view.current().ownership().values().sum();
        assert!((sum - f64::from(members.min(3))).abs() < 1e-9);
    }
}

#[test]
fn owners_are_distinct_and_in_distinct_zones() {
    let view = View::new(ring_of(9, 3)).unwrap();
    for range in view.current().ranges() {
        let zone = |owner: &StoreIndex| view.document().members[&view.store(*owner)].zone.clone();
        let mut zones: Vec<String> = range.owners.iter().map(zone).collect();
        zones.sort();
        assert_eq!(zones, ["a", "b", "c"]);
    }
}

#[test]
fn a_joint_ring_writes_to_old_and_new() {
    let three = ring_of(3, 3);
    let view = View::new(three.clone()).unwrap();
    assert_eq!(view.write_sets(5).len(), 1);
    let joint = three.change(&Change::join(store(9), member(9, "a"))).unwrap();
    let view = View::new(joint.clone()).unwrap();
    let joiner = view.index(store(9)).unwrap();
    let token =
        view.current().ranges().find(|range| range.owners.contains(&joiner)).map(|range| *range.keys().end());
    let sets = view.write_sets(token.unwrap());
    assert_eq!(sets.len(), 2);
    assert!(!sets[0].stores.contains(&joiner) && sets[1].stores.contains(&joiner));
    assert_eq!((sets[0].quorum, sets[1].quorum), (2, 2));
    let view = View::new(joint.finish().unwrap()).unwrap();
    assert_eq!(view.write_sets(token.unwrap()).len(), 1);
    assert_eq!(view.read_sets().len(), 2);
}

#[test]
fn accepted_losses_never_stand_for_an_owner_that_is_left() {
    let quorums = |accepted: &[u32]| {
        let stores = accepted.iter().map(|n| store(*n)).collect();
        let view = View::new(ring_of(3, 3).write_off(&stores).unwrap()).unwrap();
        let range = view.read_sets()[0].range(0);
        (range.write_quorum, range.read_quorum)
    };
    // One may be lost without anybody's consent, so consent changes nothing; after two there is one to ask.
    assert_eq!(quorums(&[0]), (2, 2));
    assert_eq!(quorums(&[0, 1]), (1, 1));
    // Of five, two answers and three copies are never fewer than what is left, down to the last.
    let five = |lost: u32| {
        let five = ring_of(6, 5);
        let view = View::new(five.write_off(&(0..lost).map(store).collect()).unwrap()).unwrap();
        let owned = view.read_sets()[0].ranges().filter(|range| {
            (0..lost).all(|n| view.index(store(n)).is_some_and(|index| range.owners.contains(&index)))
        });
        owned.map(|range| (range.write_quorum, range.read_quorum)).collect::<std::collections::BTreeSet<_>>()
    };
    for (lost, quorums) in [(1, (3, 3)), (2, (3, 3)), (3, (2, 2)), (4, (1, 1)), (5, (0, 0))] {
        assert_eq!(five(lost), [quorums].into(), "{lost} lost");
    }
}

#[test]
fn indices_and_stores_belong_together() {
    let view = View::new(ring_of(5, 3)).unwrap();
    for (index, id) in view.stores() {
        assert_eq!((view.store(index), view.index(id)), (id, Some(index)));
    }
    assert_eq!(view.index(store(77)), None);
}

/// What every node works out once a document.
#[test]
fn a_hundred_members_in_one_zone_are_looked_up_in_a_flat_table() {
    let first = (0..100).map(|i| (store(i), member(i % 250, "a"))).collect();
    let document = Document::found(crate::ClusterId(1), 2, 3, &first).unwrap();
    let bytes = document.encode();
    let begin = tokio::time::Instant::now();
    let view = View::new(Document::decode(&bytes).unwrap()).unwrap();
    let took = begin.elapsed();
    println!(
        "{} bytes, {} ranges, read and worked out in {took:?}",
        bytes.len(),
        view.current().ranges().len()
    );
    let shares: Vec<f64> = view.current().ownership().into_values().collect();
    assert!(shares.iter().all(|share| (share - 0.03).abs() < 0.0005));
    // Each is asked first for its part of the work.
    let mut first = [0.0; 100];
    for range in view.current().ranges() {
        let keys = (*range.keys().end() - *range.keys().start()) as f64 / 2_f64.powi(64);
        first[usize::from(range.owners[0].0)] += keys;
    }
    assert!(first.iter().all(|share| (share - 0.01).abs() < 0.0005));
}
