use std::collections::BTreeMap;

use super::*;
use crate::StoreId;

/// Members `0..n`, in `zones` zones by turns; ids are scattered as real ones are.
fn members(n: usize, zones: usize) -> BTreeMap<StoreId, Seat<'static>> {
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    (0..n).map(|i| (store(i), Seat { zone: NAMES[i % zones] })).collect()
}

fn store(i: usize) -> StoreId {
    let half = |salt: u64| u128::from(crate::hash::key_token(&(i as u64 ^ salt).to_le_bytes()));
    StoreId(half(0) << 64 | half(1 << 60))
}

fn loads(layout: &Layout, members: &BTreeMap<StoreId, Seat<'_>>) -> BTreeMap<StoreId, f64> {
    let mut loads: BTreeMap<StoreId, f64> = members.keys().map(|id| (*id, 0.0)).collect();
    for (length, owners) in gaps(layout, members) {
        for owner in owners {
            *loads.get_mut(&owner).unwrap() += length;
        }
    }
    loads
}

/// Every gap's share of the circle and its owners, found by the plainest possible walk.
fn gaps(layout: &Layout, members: &BTreeMap<StoreId, Seat<'_>>) -> Vec<(f64, Vec<StoreId>)> {
    let mut all: Vec<(u32, StoreId)> = Vec::new();
    for (store, tokens) in &layout.tokens {
        all.extend(tokens.0.iter().map(|token| (*token, *store)));
    }
    all.sort_unstable();
    (0..all.len())
        .map(|gap| {
            let previous = all[(gap + all.len() - 1) % all.len()].0;
            let length = f64::from(all[gap].0.wrapping_sub(previous).wrapping_sub(1)) + 1.0;
            let mut owners: Vec<StoreId> = Vec::new();
            for (_, store) in all[gap..].iter().chain(&all[..gap]) {
                let zone = |id: &StoreId| members[id].zone;
                let same = owners.iter().filter(|owner| zone(owner) == zone(store)).count();
                if owners.len() < layout.rf as usize
                    && !owners.contains(store)
                    && same < layout.zone_limit as usize
                {
                    owners.push(*store);
                }
            }
            (length / 2_f64.powi(32), owners)
        })
        .collect()
}

fn spread(loads: &BTreeMap<StoreId, f64>) -> f64 {
    let mean = loads.values().sum::<f64>() / loads.len() as f64;
    let most = loads.values().copied().fold(0.0, f64::max);
    let least = loads.values().copied().fold(f64::MAX, f64::min);
    (most - least) / mean
}

#[test]
fn every_member_gets_tokens_that_nobody_else_has() {
    for zones in [1, 3] {
        let mut layout: Option<Layout> = None;
        for n in 1..=12 {
            let there = members(n, zones);
            let next = plan(layout.as_ref(), &there, 3.min(n as u32));
            let mut all: Vec<u32> = next.tokens.values().flat_map(|tokens| tokens.0.clone()).collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!((all.len(), next.tokens.len()), (count, n));
            assert!(next.tokens.values().all(|tokens| !tokens.0.is_empty()));
            layout = Some(next);
        }
    }
}

#[test]
fn members_in_three_zones_carry_the_same() {
    let mut layout: Option<Layout> = None;
    for n in 1..=15 {
        let there = members(n, 3);
        let next = plan(layout.as_ref(), &there, 3.min(n as u32));
        if n % 3 == 0 {
            let spread = spread(&loads(&next, &there));
            assert!(spread <= 0.05, "{n} members: {spread}");
        }
        layout = Some(next);
    }
}

#[test]
fn tokens_read_what_they_write() {
    let tokens = Tokens(vec![0, 1, 0xabc, u32::MAX]);
    let json = serde_json::to_string(&tokens).unwrap();
    assert_eq!(json, "\"000000000000000100000abcffffffff\"");
    assert_eq!(serde_json::from_str::<Tokens>(&json).unwrap(), tokens);
    for wrong in ["\"0\"", "\"0000000g\"", "\"0000000100000000\"", "\"0000000100000001\"", "1"] {
        assert!(serde_json::from_str::<Tokens>(wrong).is_err(), "{wrong}");
    }
}
