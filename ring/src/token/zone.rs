//! How many owners of a key may stand in one zone, and what share that leaves to each member.

use std::collections::BTreeMap;

/// The whole circle; loads are counted in its points, once for each owner.
pub(super) const CIRCLE: i64 = 1 << 32;

/// Fewest owners in one zone for which nobody carries more than 1.5 times the mean share: 1 where replicas can stand
/// in distinct zones, `rf` where zones can't be looked at. `sizes` are members by zone, none of them zero.
///
/// The shares are those of a perfect layout: what a zone can't take, because its members are too few, others carry.
#[must_use]
pub fn zone_limit<'a>(zones: impl Iterator<Item = &'a str>, rf: u32) -> u32 {
    let mut sizes: BTreeMap<&str, i64> = BTreeMap::new();
    for zone in zones {
        *sizes.entry(zone).or_default() += 1;
    }
    let sizes: Vec<i64> = sizes.into_values().collect();
    let members: i64 = sizes.iter().sum();
    let bearable = |limit: &u32| {
        let shares = fair_shares(&sizes, rf, *limit);
        shares.is_some_and(|shares| {
            let most = shares.into_iter().max().unwrap_or(0);
            2 * most * members <= 3 * i64::from(rf) * CIRCLE
        })
    };
    (1..rf).find(bearable).unwrap_or(rf)
}

/// What a member of each zone carries in a perfect layout, in points; `None` where `limit` a zone can't make `rf`
/// owners.
pub(super) fn fair_shares(sizes: &[i64], rf: u32, limit: u32) -> Option<Vec<i64>> {
    let most = |size: i64| size.min(i64::from(limit)) * CIRCLE;
    let mut shares = vec![None; sizes.len()];
    let mut load = i64::from(rf) * CIRCLE;
    loop {
        let free = || sizes.iter().enumerate().filter(|(zone, _)| shares[*zone].is_none());
        let members: i64 = free().map(|(_, size)| size).sum();
        if members == 0 {
            break;
        }
        let even = load.div_euclid(members);
        let full: Vec<usize> =
            free().filter(|(_, size)| even * **size > most(**size)).map(|(zone, _)| zone).collect();
        if full.is_empty() {
            return Some(shares.iter().map(|share| share.unwrap_or(even)).collect());
        }
        for zone in full {
            shares[zone] = Some(most(sizes[zone]) / sizes[zone]);
            load -= most(sizes[zone]);
        }
    }
    (load <= 0).then(|| shares.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(sizes: &[usize], rf: u32) -> u32 {
        let names = ["a", "b", "c", "d", "e", "f"];
        let zones = sizes.iter().zip(names).flat_map(|(size, name)| std::iter::repeat_n(name, *size));
        zone_limit(zones, rf)
    }

    #[test]
    fn replicas_stand_in_distinct_zones_where_that_is_bearable() {
        let table: &[(&[usize], u32, u32)] = &[
            (&[1], 1, 1),
            (&[1, 1, 1], 3, 1),
            (&[2, 1, 1], 3, 1),
            (&[2, 2, 2], 3, 1),
            (&[3, 1, 1], 3, 2),
            (&[34, 33, 33], 3, 1),
            (&[10, 10, 10, 10, 10], 3, 1),
            (&[3], 3, 3),
            (&[6], 3, 3),
            (&[3, 3], 3, 2),
            (&[2, 1], 3, 2),
            (&[98, 1, 1], 3, 3),
            (&[2, 2], 2, 1),
            (&[5, 1], 2, 2),
            (&[1, 1], 2, 1),
        ];
        for (sizes, rf, expected) in table {
            assert_eq!(limit(sizes, *rf), *expected, "{sizes:?} rf {rf}");
        }
    }

    #[test]
    fn fair_shares_add_up() {
        for (sizes, rf, limit) in [(vec![2, 1, 1], 3, 1), (vec![5, 5, 5, 2], 3, 1), (vec![4, 2], 3, 2)] {
            let shares = fair_shares(&sizes, rf, limit).unwrap();
            let sum: i64 = shares.iter().zip(&sizes).map(|(share, size)| share * size).sum();
            let whole = i64::from(rf) * CIRCLE;
            assert!((whole - sum).abs() < 100, "{sizes:?}: {sum} of {whole}");
        }
        assert_eq!(fair_shares(&[3, 1], 3, 1), None);
    }
}
