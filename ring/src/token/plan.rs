//! Laying out tokens: who keeps which copies when members come and go.
//!
//! 1. Copies of those who leave are vacant, and so are all of a new column, and those of which too many stand in one
//!    zone since the rule of zones is stricter now.
//! 2. Vacant copies go to those who have least of their fair share, those who join among them.
//! 3. Where more copies stand in a zone than is preferred, one of them goes to another zone that lacks something.
//! 4. Who then has too little takes from who has too much, exactly as much as evens it out. So a member that joins
//!    takes its share from the heaviest, and nothing else moves; where the rule of zones forbids a direct exchange, a
//!    third member stands between.
//!
//! All arithmetic is in integers and everything goes in the order of store ids: the same members give the same tokens
//! anywhere.

use std::collections::BTreeMap;

use super::grid::{Grid, Holder, VACANT};
use super::zone::{Rule, rule};
use super::{Row, Tokens, rows};
use crate::StoreId;

/// Tokens of all members of a placement and the rules that they follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Who holds which tokens.
    pub tokens: BTreeMap<StoreId, Tokens>,
    /// Owners of each key: columns.
    pub rf: u32,
    /// Most owners of a key in one zone.
    pub zone_limit: u32,
}

/// Lays out tokens for `members`, each with its zone, and `rf` owners of each key (at least one, at most as many as
/// members), starting from what was there `before`, which is a whole layout.
#[must_use]
pub fn plan(before: Option<&Layout>, members: &BTreeMap<StoreId, &str>, rf: u32) -> Layout {
    let mut names: Vec<&str> = members.values().copied().collect();
    names.sort_unstable();
    names.dedup();
    let zones: Vec<u16> =
        members.values().map(|zone| names.partition_point(|name| name < zone) as u16).collect();
    let mut sizes = vec![0_i64; names.len()];
    zones.iter().for_each(|zone| sizes[usize::from(*zone)] += 1);
    let rule = rule(&sizes, rf);
    let shares = zones.iter().map(|zone| rule.shares[usize::from(*zone)]).collect();
    let mut grid = Grid::new(start(before, members, rf).into_iter(), zones, shares);
    grid.vacate_crowded(rule.limit);
    grid.fill(&rule);
    grid.spread_out(rule.preferred);
    even_out(&mut grid, members.len(), &rule);
    let tokens = members.keys().copied().zip(grid.tokens(rf as usize).into_iter().map(Tokens)).collect();
    Layout { tokens, rf, zone_limit: rule.limit }
}

/// What is kept by those who stay, in `rf` columns.
fn start(before: Option<&Layout>, members: &BTreeMap<StoreId, &str>, rf: u32) -> Vec<(u32, Vec<Holder>)> {
    let Some(before) = before else {
        return vec![(u32::MAX, vec![VACANT; rf as usize])];
    };
    let place =
        |store: &StoreId| members.keys().position(|member| member == store).map_or(VACANT, |at| at as Holder);
    let places: Vec<Holder> = before.tokens.keys().map(place).collect();
    let rows = rows(&before.tokens, before.rf).expect("layouts are checked when they are read");
    let row = |row: Row| {
        let mut cells: Vec<Holder> = row.holders.iter().map(|holder| places[usize::from(*holder)]).collect();
        // A column less: the copy that goes is a vacant one, if there is any.
        while cells.len() > rf as usize {
            let at = cells.iter().position(|holder| *holder == VACANT).unwrap_or(cells.len() - 1);
            cells.remove(at);
        }
        cells.resize(rf as usize, VACANT);
        (row.end, cells)
    };
    rows.into_iter().map(row).collect()
}

/// Lets those who have too little take from those who have too much, crowding no zone if possible.
fn even_out(grid: &mut Grid, members: usize, rule: &Rule) {
    // Each exchange satisfies one of the two; with a third between, it may take some more.
    for _ in 0..EXCHANGES * members {
        let order = grid.by_excess();
        let heavy: Vec<Holder> = order.iter().copied().filter(|holder| grid.excess(*holder) > 0).collect();
        let light = order.iter().rev().copied().filter(|holder| grid.excess(*holder) < 0);
        let pairs: Vec<(Holder, Holder)> = light
            .flat_map(|to| heavy.iter().map(move |from| (*from, to)))
            .filter(|pair| due(grid, *pair) > 0)
            .collect();
        let done = [rule.preferred, rule.limit].into_iter().any(|limit| {
            pairs.iter().any(|pair| exchange(grid, *pair, limit))
                || pairs.iter().take(DETOURS).any(|pair| detour(grid, *pair, &order, limit))
        });
        if !done {
            break;
        }
    }
}

/// How many exchanges there may be for each member.
const EXCHANGES: usize = 16;

/// For how many pairs a third member is sought.
const DETOURS: usize = 64;

/// What one should give to the other; 0 where it isn't worth a token.
fn due(grid: &Grid, (from, to): (Holder, Holder)) -> i64 {
    let points = grid.excess(from).min(-grid.excess(to));
    if points >= grid.crumb(to) { points } else { 0 }
}

fn exchange(grid: &mut Grid, (from, to): (Holder, Holder), limit: u32) -> bool {
    let points = due(grid, (from, to));
    grid.shift(from, to, points, limit) > 0
}

fn detour(grid: &mut Grid, (from, to): (Holder, Holder), order: &[Holder], limit: u32) -> bool {
    let points = due(grid, (from, to));
    order.iter().filter(|between| **between != from && **between != to).any(|between| {
        let mut trial = grid.clone();
        let moved = trial.shift(from, *between, points, limit);
        let passed_on = moved > 0 && trial.shift(*between, to, moved, limit) > 0;
        if passed_on {
            *grid = trial;
        }
        passed_on
    })
}
