//! How many owners of a key may stand in one zone, and what share that leaves to each member.

use std::collections::BTreeMap;

/// The whole line; loads are counted in its points, once for each owner.
pub(super) const LINE: i64 = 1 << 32;

/// Nobody carries more than so many halves of the mean share because of zones.
const MOST_HALVES: i64 = 3;

/// How copies are spread over zones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Most owners of a key in one zone.
    pub(super) limit: u32,
    /// Most owners of a key in one zone, wherever that is possible without burdening somebody too much.
    pub(super) preferred: u32,
    /// What a member of each zone should carry, in points.
    pub(super) shares: Vec<i64>,
}

/// Fewest owners in one zone for which nobody carries more than 1.5 times the mean share: 1 where replicas can stand
/// in distinct zones, `rf` where zones can't be looked at.
#[must_use]
pub fn zone_limit<'a>(zones: impl Iterator<Item = &'a str>, rf: u32) -> u32 {
    let mut sizes: BTreeMap<&str, i64> = BTreeMap::new();
    for zone in zones {
        *sizes.entry(zone).or_default() += 1;
    }
    rule(&sizes.into_values().collect::<Vec<_>>(), rf).limit
}

/// The rule for zones with so many members each, at least `rf` in all.
///
/// Where a stricter rule would burden members of small zones beyond 1.5 times the mean, they carry just that, and the
/// stricter rule holds for as many keys as that allows. So a zone that grows by one member after the other loses and
/// gains little on the way.
pub(super) fn rule(sizes: &[i64], rf: u32) -> Rule {
    let most = MOST_HALVES * i64::from(rf) * LINE / (2 * sizes.iter().sum::<i64>().max(1));
    let free = vec![None; sizes.len()];
    let bearable = |limit: &u32| {
        let shares = fair_shares(sizes, rf, *limit, free.clone());
        shares.is_some_and(|shares| shares.into_iter().all(|share| share <= most))
    };
    let limit = (1..rf).find(bearable).unwrap_or(rf);
    let even = || fair_shares(sizes, rf, limit, free.clone()).expect("any members make enough owners");
    let preferred = limit.saturating_sub(1);
    let Some(stricter) = fair_shares(sizes, rf, preferred, free.clone()) else {
        return Rule { limit, preferred: limit, shares: even() };
    };
    let burdened = stricter.iter().map(|share| (*share > most).then_some(most)).collect();
    let shares = fair_shares(sizes, rf, limit, burdened).unwrap_or_else(even);
    Rule { limit, preferred, shares }
}

/// What a member of each zone carries in a perfect layout, in points; `None` where `limit` a zone can't make `rf`
/// owners. What a zone can't take, because its members are too few or their `shares` are given, others carry.
fn fair_shares(sizes: &[i64], rf: u32, limit: u32, mut shares: Vec<Option<i64>>) -> Option<Vec<i64>> {
    let most = |size: i64| size.min(i64::from(limit)) * LINE;
    let given: i64 = shares.iter().zip(sizes).map(|(share, size)| share.unwrap_or(0) * size).sum();
    let mut load = i64::from(rf) * LINE - given;
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
    fn shares_add_up_and_burden_nobody_too_much() {
        for (sizes, rf) in
            [(vec![2, 1, 1], 3), (vec![5, 5, 5, 2], 3), (vec![4, 2], 3), (vec![98, 1, 1], 3), (vec![3], 3)]
        {
            let Rule { shares, .. } = rule(&sizes, rf);
            let sum: i64 = shares.iter().zip(&sizes).map(|(share, size)| share * size).sum();
            let whole = i64::from(rf) * LINE;
            assert!((whole - sum).abs() < 100, "{sizes:?}: {sum} of {whole}");
            let most = whole * 3 / 2 / sizes.iter().sum::<i64>();
            assert!(shares.iter().all(|share| *share <= most), "{sizes:?}: {shares:?}");
        }
        assert_eq!(fair_shares(&[3, 1], 3, 1, vec![None; 2]), None);
    }

    #[test]
    fn a_small_zone_carries_as_much_as_it_can_bear() {
        let Rule { limit, preferred, shares } = rule(&[2, 2, 1], 3);
        assert_eq!((limit, preferred), (2, 1));
        let hundredths: Vec<i64> = shares.iter().map(|share| (share * 1000 + LINE / 2) / LINE).collect();
        assert_eq!(hundredths, [525, 525, 900]);
    }
}
