//! Laying out tokens: who gets which when members come and go.
//!
//! 1. Who leaves hands over: a token goes away, and the walk falls on to the next holder, unless that would burden
//!    somebody; then the lightest take it over.
//! 2. Who joins takes its share from the heaviest, one slice a token. Nothing moves between those who stay.
//! 3. What is uneven then is settled by a few more tokens for the lightest: a little after a join or leave, as much
//!    as it takes where the number of replicas or the rule of zones has changed.
//!
//! Loads are counted in points of the circle, once for each owner. All arithmetic is in integers and everything goes
//! in the order of store ids: the same members give the same tokens anywhere.

use std::collections::BTreeMap;

use super::circle::{Circle, Holder};
use super::zone::{CIRCLE, fair_shares, zone_limit};
use super::{MAX_TOKENS_PER_MEMBER, TOKENS_PER_MEMBER, Tokens};
use crate::StoreId;

/// Tokens of all members of a placement and the rules of the walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Who holds which tokens.
    pub tokens: BTreeMap<StoreId, Tokens>,
    /// Owners of each key.
    pub rf: u32,
    /// Most owners of a key in one zone.
    pub zone_limit: u32,
}

/// A member that will be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat<'a> {
    /// Where it stands.
    pub zone: &'a str,
}

/// Loads within one part in this of the fair share are even enough.
const TOLERANCE: i64 = 100;

/// What may move between members that stay when others join or leave: one part in this of a member's share.
const SETTLING: i64 = 16;

/// How many of the heaviest and of the lightest are looked at when a slice is to be moved.
const CANDIDATES: usize = 8;

/// Lays out tokens for `members` and `rf` owners of each key (at most as many as members, at least one), starting from
/// what was there `before`.
#[must_use]
pub fn plan(before: Option<&Layout>, members: &BTreeMap<StoreId, Seat<'_>>, rf: u32) -> Layout {
    let limit = zone_limit(members.values().map(|seat| seat.zone), rf);
    let mut tokens = before.map(|layout| layout.tokens.clone()).unwrap_or_default();
    leave(&mut tokens, members, rf, limit);
    for joiner in in_turn(&tokens, members) {
        join(&mut tokens, members, joiner, rf);
    }
    let unchanged = before.is_some_and(|layout| (layout.rf, layout.zone_limit) == (rf, limit));
    let share = i64::from(rf) * CIRCLE / members.len().max(1) as i64;
    settle(&mut tokens, members, rf, limit, if unchanged { share / SETTLING } else { i64::MAX });
    Layout { tokens, rf, zone_limit: limit }
}

/// Those without tokens, each time one of the zone that has fewest members so far.
fn in_turn(tokens: &BTreeMap<StoreId, Tokens>, members: &BTreeMap<StoreId, Seat<'_>>) -> Vec<StoreId> {
    let mut there: BTreeMap<&str, usize> = members.values().map(|seat| (seat.zone, 0)).collect();
    let mut waiting = Vec::new();
    for (store, seat) in members {
        if tokens.contains_key(store) {
            *there.entry(seat.zone).or_default() += 1;
        } else {
            waiting.push((*store, seat.zone));
        }
    }
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(next) = (0..waiting.len()).min_by_key(|i| (there[waiting[*i].1], waiting[*i].0)) {
        let (store, zone) = waiting.remove(next);
        *there.entry(zone).or_default() += 1;
        order.push(store);
    }
    order
}

/// Everybody who holds tokens or will, and what each should carry.
struct Table {
    stores: Vec<StoreId>,
    zones: Vec<u16>,
    /// Fair share of each holder in points; 0 for those who leave.
    shares: Vec<i64>,
}

impl Table {
    /// `present` are those that share the load; other holders of `tokens` leave, and count as their own zones.
    fn new(
        tokens: &BTreeMap<StoreId, Tokens>,
        present: &BTreeMap<StoreId, &str>,
        rf: u32,
        limit: u32,
    ) -> Self {
        let mut stores: Vec<StoreId> = tokens.keys().chain(present.keys()).copied().collect();
        stores.sort_unstable();
        stores.dedup();
        let mut names: Vec<&str> = present.values().copied().collect();
        names.sort_unstable();
        names.dedup();
        let mut sizes = vec![0_i64; names.len()];
        let mut departing = names.len() as u16;
        let zones: Vec<u16> = stores
            .iter()
            .map(|store| match present.get(store) {
                Some(zone) => {
                    let zone = names.binary_search(zone).expect("all zones are in the list");
                    sizes[zone] += 1;
                    zone as u16
                }
                None => {
                    departing += 1;
                    departing - 1
                }
            })
            .collect();
        let fair = fair_shares(&sizes, rf, limit).unwrap_or_else(|| vec![0; sizes.len()]);
        let shares = zones.iter().map(|zone| fair.get(usize::from(*zone)).copied().unwrap_or(0)).collect();
        Self { stores, zones, shares }
    }

    fn holder(&self, store: StoreId) -> Holder {
        self.stores.binary_search(&store).expect("every holder is at the table") as Holder
    }

    fn circle(&self, tokens: &BTreeMap<StoreId, Tokens>, rf: u32, limit: u32) -> Circle {
        let mut all: Vec<(u32, Holder)> = Vec::new();
        for (store, tokens) in tokens {
            let holder = self.holder(*store);
            all.extend(tokens.0.iter().map(|token| (*token, holder)));
        }
        all.sort_unstable();
        Circle::new(&all, self.zones.clone(), rf, limit)
    }

    fn tokens(&self, circle: &Circle) -> BTreeMap<StoreId, Tokens> {
        let mut tokens: BTreeMap<StoreId, Tokens> = BTreeMap::new();
        for (token, holder) in circle.tokens() {
            tokens.entry(self.stores[usize::from(holder)]).or_default().0.push(token);
        }
        tokens
    }

    /// How much more than its fair share a holder carries.
    fn excess(&self, circle: &Circle, holder: Holder) -> i64 {
        circle.load(holder) - self.shares[usize::from(holder)]
    }

    /// All holders, the one with the greatest excess first.
    fn by_excess(&self, circle: &Circle) -> Vec<Holder> {
        let mut holders: Vec<Holder> = (0..self.stores.len() as Holder).collect();
        holders.sort_by_key(|holder| (-self.excess(circle, *holder), *holder));
        holders
    }

    /// How uneven loads are: the sum of squares of what is too much or too little.
    fn unevenness(&self, circle: &Circle) -> i128 {
        (0..self.stores.len() as Holder).map(|holder| square(self.excess(circle, holder))).sum()
    }
}

fn square(points: i64) -> i128 {
    i128::from(points) * i128::from(points)
}

/// Takes the tokens of those who aren't members any more.
fn leave(tokens: &mut BTreeMap<StoreId, Tokens>, members: &BTreeMap<StoreId, Seat<'_>>, rf: u32, limit: u32) {
    let present: BTreeMap<StoreId, &str> =
        members.iter().filter(|(id, _)| tokens.contains_key(id)).map(|(id, seat)| (*id, seat.zone)).collect();
    if present.is_empty() {
        tokens.clear();
    }
    if present.len() == tokens.len() {
        return;
    }
    let rf = rf.min(present.len() as u32);
    let table = Table::new(tokens, &present, rf, limit);
    let mut circle = table.circle(tokens, rf, limit);
    let leaves = |holder: Holder| !present.contains_key(&table.stores[usize::from(holder)]);
    while let Some(gap) =
        (0..circle.gaps()).filter(|gap| leaves(circle.holder(*gap))).max_by_key(|gap| circle.length(*gap))
    {
        hand_over(&table, &mut circle, gap, &leaves);
    }
    *tokens = table.tokens(&circle);
}

/// Lets the walk fall on to the next holder where nobody gets too much by it, else gives the token to whoever among
/// the lightest makes loads most even.
fn hand_over(table: &Table, circle: &mut Circle, gap: usize, leaves: &impl Fn(Holder) -> bool) {
    let point = circle.point(gap);
    let stay = |circle: &Circle| {
        let all = table.by_excess(circle).into_iter();
        all.filter(|holder| !leaves(*holder)).collect::<Vec<_>>()
    };
    circle.remove(gap);
    let staying = stay(circle);
    let heaviest = staying[0];
    if table.excess(circle, heaviest) <= table.shares[usize::from(heaviest)] / TOLERANCE {
        return;
    }
    let mut best = (table.unevenness(circle), None);
    let lightest = staying.iter().rev().filter(|holder| circle.count(**holder) < MAX_TOKENS_PER_MEMBER);
    for holder in lightest.copied().take(CANDIDATES).collect::<Vec<_>>() {
        circle.insert(point, holder);
        let unevenness = table.unevenness(circle);
        if unevenness < best.0 {
            best = (unevenness, Some(holder));
        }
        let at = circle.find(point).expect("the token was just put in");
        circle.remove(at);
    }
    if let Some(holder) = best.1 {
        circle.insert(point, holder);
    }
}

/// Gives `joiner` its tokens.
fn join(
    tokens: &mut BTreeMap<StoreId, Tokens>,
    members: &BTreeMap<StoreId, Seat<'_>>,
    joiner: StoreId,
    rf: u32,
) {
    let there = |id: &StoreId| *id == joiner || tokens.contains_key(id);
    let present: BTreeMap<StoreId, &str> =
        members.iter().filter(|(id, _)| there(id)).map(|(id, seat)| (*id, seat.zone)).collect();
    let rf = rf.min(present.len() as u32);
    let limit = zone_limit(present.values().copied(), rf);
    let table = Table::new(tokens, &present, rf, limit);
    let mut circle = table.circle(tokens, rf, limit);
    let holder = table.holder(joiner);
    let share = table.shares[usize::from(holder)];
    // Where everybody keeps everything, any tokens do; evenly spread ones are the best start for later joins.
    let all_keep_all = present.len() as u32 <= rf;
    for nth in 0..TOKENS_PER_MEMBER {
        let missing = share - circle.load(holder);
        if all_keep_all {
            spread(&mut circle, holder, nth, present.len() - 1);
        } else if missing <= 0 {
            break;
        } else {
            let slice = missing / (TOKENS_PER_MEMBER - nth) as i64;
            let heaviest = table.by_excess(&circle);
            let point =
                heaviest.into_iter().find_map(|from| cut(&table, &circle, from, holder, slice, false));
            let Some(point) = point else { break };
            circle.insert(point, holder);
        }
    }
    if circle.count(holder) == 0 {
        spread(&mut circle, holder, 0, present.len() - 1);
    }
    *tokens = table.tokens(&circle);
}

/// Puts the `nth` token of the member before which `others` came at an even distance from those of the others.
fn spread(circle: &mut Circle, holder: Holder, nth: usize, others: usize) {
    let stride = (CIRCLE / TOKENS_PER_MEMBER as i64) as u32;
    // 0, 1/2, 1/4, 3/4, 1/8, …: each in the middle of the widest gap that the others leave.
    let offset = (others as u32).reverse_bits() / TOKENS_PER_MEMBER as u32;
    let mut point = stride * nth as u32 + offset;
    while !circle.insert(point, holder) {
        point = point.wrapping_add(1);
    }
}

/// Where a token of `to` takes about `slice` points, above all from `from`, and makes loads more even; `None` where no
/// such place is. With `both` the load of `to` is among those that should be even.
fn cut(table: &Table, circle: &Circle, from: Holder, to: Holder, slice: i64, both: bool) -> Option<u32> {
    let mut best: Option<(i128, u32)> = None;
    for gap in (0..circle.gaps()).filter(|gap| circle.owners(*gap).contains(&from)) {
        let length = circle.length(gap);
        let Some(taking) = circle.taking(to, gap).filter(|taking| taking.here == from && length > 1) else {
            continue;
        };
        let earlier: i64 = taking.before.iter().map(|(_, points)| points).sum();
        let here = (slice - earlier).clamp(1, length - 1);
        let mut losses = taking.before;
        losses.push((from, here));
        losses.sort_unstable();
        let even =
            relief(table, circle, &losses) + if both { gain(table, circle, to, earlier + here) } else { 0 };
        if even >= 0 {
            continue;
        }
        let cost = even + square(earlier + here - slice);
        if best.is_none_or(|(least, _)| cost < least) {
            // The part of the gap that a token owns lies before it.
            let start = circle.point(gap).wrapping_sub(length as u32);
            best = Some((cost, start.wrapping_add(here as u32)));
        }
    }
    best.map(|(_, point)| point)
}

/// By how much losing makes loads more uneven; negative where it makes them more even.
fn relief(table: &Table, circle: &Circle, losses: &[(Holder, i64)]) -> i128 {
    let by_holder = losses.chunk_by(|a, b| a.0 == b.0);
    by_holder
        .map(|losses| {
            let excess = table.excess(circle, losses[0].0);
            let loss: i64 = losses.iter().map(|(_, points)| points).sum();
            square(excess - loss) - square(excess)
        })
        .sum()
}

fn gain(table: &Table, circle: &Circle, holder: Holder, points: i64) -> i128 {
    let excess = table.excess(circle, holder);
    square(excess + points) - square(excess)
}

/// Evens loads out between those who are there, moving at most `budget` points.
fn settle(
    tokens: &mut BTreeMap<StoreId, Tokens>,
    members: &BTreeMap<StoreId, Seat<'_>>,
    rf: u32,
    limit: u32,
    mut budget: i64,
) {
    let present: BTreeMap<StoreId, &str> = members.iter().map(|(id, seat)| (*id, seat.zone)).collect();
    if present.len() as u32 <= rf {
        return;
    }
    let table = Table::new(tokens, &present, rf, limit);
    let mut circle = table.circle(tokens, rf, limit);
    for _ in 0..present.len() * TOKENS_PER_MEMBER {
        let Some((point, to)) = shift(&table, &circle, budget) else { break };
        let load = circle.load(to);
        circle.insert(point, to);
        budget -= circle.load(to) - load;
        prune(&mut circle, to);
    }
    *tokens = table.tokens(&circle);
}

/// The next slice to move from one of the heaviest to one of the lightest.
fn shift(table: &Table, circle: &Circle, budget: i64) -> Option<(u32, Holder)> {
    let order = table.by_excess(circle);
    let bearable = |holder: Holder| table.shares[usize::from(holder)] / TOLERANCE;
    let heavy = order.iter().copied().take(CANDIDATES);
    let heavy: Vec<Holder> =
        heavy.filter(|holder| table.excess(circle, *holder) > bearable(*holder)).collect();
    let light = order.iter().rev().copied().filter(|holder| circle.count(*holder) < MAX_TOKENS_PER_MEMBER);
    let light: Vec<Holder> =
        light.take(CANDIDATES).filter(|holder| table.excess(circle, *holder) < 0).collect();
    for from in heavy {
        for to in &light {
            let slice = table.excess(circle, from).min(-table.excess(circle, *to)).min(budget);
            if slice > bearable(from) / 4
                && let Some(point) = cut(table, circle, from, *to, slice, true)
            {
                return Some((point, *to));
            }
        }
    }
    None
}

/// Drops a holder's tokens that change nothing, where it has more than it began with.
fn prune(circle: &mut Circle, holder: Holder) {
    let mut gap = 0;
    while circle.count(holder) > TOKENS_PER_MEMBER && gap < circle.gaps() {
        if circle.holder(gap) == holder && circle.redundant(gap) {
            circle.remove(gap);
        } else {
            gap += 1;
        }
    }
}
