//! The circle while tokens are laid out: who owns which gap, and what everybody carries.
//!
//! A *gap* is what one token owns: the points behind the token before it, up to itself. Its owners are those that the
//! walk from its own token finds. The walk takes a holder unless it has been taken or its zone is full, so a token put
//! in or taken out changes gaps before it only as far back as the first that it leaves alone: what a walk chooses are
//! the bases of a matroid, and a longer walk never chooses less.

use super::zone::CIRCLE;
use crate::MAX_REPLICATION_FACTOR;

/// A member while tokens are laid out: its place in the order of store ids.
pub(super) type Holder = u16;

/// Owners of a gap in the order of the walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owners {
    len: u8,
    owners: [Holder; MAX_REPLICATION_FACTOR as usize],
}

impl Owners {
    const NONE: Self = Self { len: 0, owners: [0; MAX_REPLICATION_FACTOR as usize] };

    pub(crate) fn as_slice(&self) -> &[Holder] {
        &self.owners[..usize::from(self.len)]
    }

    /// Takes `holder` unless it is here already or its zone is full.
    fn offer(&mut self, holder: Holder, zones: &[u16], zone_limit: u32) {
        let zone = zones[usize::from(holder)];
        let mut same_zone = 0;
        for owner in self.as_slice() {
            if *owner == holder {
                return;
            }
            same_zone += u32::from(zones[usize::from(*owner)] == zone);
        }
        if same_zone < zone_limit {
            self.owners[usize::from(self.len)] = holder;
            self.len += 1;
        }
    }
}

/// Owners of what token `from` owns. `holders` are those of all tokens in order of the circle, `zones` the zone of
/// each holder. Fewer than `rf` where the zones don't suffice.
pub(crate) fn walk(holders: &[Holder], from: usize, zones: &[u16], rf: u32, zone_limit: u32) -> Owners {
    let mut owners = Owners::NONE;
    for holder in holders[from..].iter().chain(&holders[..from]) {
        owners.offer(*holder, zones, zone_limit);
        if u32::from(owners.len) == rf {
            break;
        }
    }
    owners
}

/// What a token at the end of a gap would do there.
pub(super) struct Taking {
    /// What it takes of earlier gaps, by who loses it.
    pub(super) before: Vec<(Holder, i64)>,
    /// Who loses the part of the gap itself that the token covers.
    pub(super) here: Holder,
}

/// All tokens, and what follows from them.
pub(super) struct Circle {
    points: Vec<u32>,
    holders: Vec<Holder>,
    owners: Vec<Owners>,
    zones: Vec<u16>,
    rf: u32,
    zone_limit: u32,
    /// Points carried, by holder.
    loads: Vec<i64>,
    /// Tokens, by holder.
    counts: Vec<usize>,
}

impl Circle {
    /// `tokens` in ascending order, `zones` by holder.
    pub(super) fn new(tokens: &[(u32, Holder)], zones: Vec<u16>, rf: u32, zone_limit: u32) -> Self {
        let mut circle = Self {
            points: tokens.iter().map(|(point, _)| *point).collect(),
            holders: tokens.iter().map(|(_, holder)| *holder).collect(),
            owners: Vec::new(),
            loads: vec![0; zones.len()],
            counts: vec![0; zones.len()],
            zones,
            rf,
            zone_limit,
        };
        for gap in 0..circle.points.len() {
            let owners = circle.walk(gap);
            circle.owners.push(owners);
            circle.carry(gap, 1);
            circle.counts[usize::from(circle.holders[gap])] += 1;
        }
        circle
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = (u32, Holder)> + '_ {
        self.points.iter().copied().zip(self.holders.iter().copied())
    }

    pub(super) fn load(&self, holder: Holder) -> i64 {
        self.loads[usize::from(holder)]
    }

    pub(super) fn count(&self, holder: Holder) -> usize {
        self.counts[usize::from(holder)]
    }

    pub(super) fn gaps(&self) -> usize {
        self.points.len()
    }

    pub(super) fn point(&self, gap: usize) -> u32 {
        self.points[gap]
    }

    pub(super) fn holder(&self, gap: usize) -> Holder {
        self.holders[gap]
    }

    pub(super) fn owners(&self, gap: usize) -> &[Holder] {
        self.owners[gap].as_slice()
    }

    /// Points in a gap.
    pub(super) fn length(&self, gap: usize) -> i64 {
        if self.points.len() == 1 {
            return CIRCLE;
        }
        let previous = self.points[self.before(gap)];
        i64::from(self.points[gap].wrapping_sub(previous))
    }

    /// Puts a token in; `false` where another stands already.
    pub(super) fn insert(&mut self, point: u32, holder: Holder) -> bool {
        let Err(gap) = self.points.binary_search(&point) else { return false };
        if self.points.is_empty() {
            self.points.push(point);
            self.holders.push(holder);
            self.owners.push(self.walk(0));
            self.carry(0, 1);
            self.counts[usize::from(holder)] += 1;
            return true;
        }
        // Past the last token the gap goes on at the circle's start.
        let split = gap % self.points.len();
        self.carry(split, -1);
        let owners = self.owners[split];
        self.points.insert(gap, point);
        self.holders.insert(gap, holder);
        self.owners.insert(gap, owners);
        self.carry(gap, 1);
        self.carry(self.after(gap), 1);
        self.counts[usize::from(holder)] += 1;
        self.walk_back(gap);
        true
    }

    /// Takes a token out; there are others.
    pub(super) fn remove(&mut self, gap: usize) {
        let holder = self.holders[gap];
        let next = self.after(gap);
        self.carry(gap, -1);
        self.carry(next, -1);
        self.points.remove(gap);
        self.holders.remove(gap);
        self.owners.remove(gap);
        self.counts[usize::from(holder)] -= 1;
        let joined = gap % self.points.len();
        self.carry(joined, 1);
        self.walk_back(self.before(joined));
    }

    /// The gap of a token.
    pub(super) fn find(&self, point: u32) -> Option<usize> {
        self.points.binary_search(&point).ok()
    }

    /// Whether all gaps would keep their owners without this token.
    pub(super) fn redundant(&self, gap: usize) -> bool {
        let mut earlier = gap;
        for _ in 1..self.points.len() {
            let mut owners = Owners::NONE;
            let mut at = earlier;
            for _ in 0..self.points.len() {
                if at != gap {
                    owners.offer(self.holders[at], &self.zones, self.zone_limit);
                }
                if u32::from(owners.len) == self.rf {
                    break;
                }
                at = self.after(at);
            }
            if owners == self.owners[earlier] && earlier != gap {
                return true;
            }
            let kept = |owner: &Holder| self.owners(earlier).contains(owner);
            if owners.len != self.owners[earlier].len || !owners.as_slice().iter().all(kept) {
                return false;
            }
            earlier = self.before(earlier);
        }
        true
    }

    /// What a token of `holder` just before the end of `gap` would take; `None` where it would take nothing there.
    pub(super) fn taking(&self, holder: Holder, gap: usize) -> Option<Taking> {
        let here = self.displaced(holder, gap)?;
        let mut before = Vec::new();
        let mut earlier = gap;
        for _ in 1..self.points.len() {
            earlier = self.before(earlier);
            if !self.reaches(holder, earlier, gap) {
                break;
            }
            // One that owns it already by a later token takes nothing, and blocks nothing.
            if let Some(loser) = self.displaced(holder, earlier) {
                before.push((loser, self.length(earlier)));
            }
        }
        Some(Taking { before, here })
    }

    /// Whether the walk from `from` would take `holder` if it met it at `gap`.
    fn reaches(&self, holder: Holder, from: usize, gap: usize) -> bool {
        let mut met = Owners::NONE;
        let mut at = from;
        while at != gap {
            met.offer(self.holders[at], &self.zones, self.zone_limit);
            if u32::from(met.len) == self.rf {
                return false;
            }
            at = self.after(at);
        }
        let len = met.len;
        met.offer(holder, &self.zones, self.zone_limit);
        met.len > len
    }

    /// Who would lose `gap` if `holder` came in before the others: the last of its zone where the zone is full, else
    /// the last of all.
    fn displaced(&self, holder: Holder, gap: usize) -> Option<Holder> {
        let owners = self.owners(gap);
        if owners.contains(&holder) {
            return None;
        }
        let zone = self.zones[usize::from(holder)];
        let neighbours = owners.iter().filter(|owner| self.zones[usize::from(**owner)] == zone);
        if neighbours.clone().count() >= self.zone_limit as usize {
            return neighbours.copied().next_back();
        }
        owners.last().copied()
    }

    fn before(&self, gap: usize) -> usize {
        gap.checked_sub(1).unwrap_or(self.points.len() - 1)
    }

    fn after(&self, gap: usize) -> usize {
        if gap + 1 == self.points.len() { 0 } else { gap + 1 }
    }

    fn walk(&self, gap: usize) -> Owners {
        walk(&self.holders, gap, &self.zones, self.rf, self.zone_limit)
    }

    /// Walks again from `gap` and those before it, until one hasn't changed.
    fn walk_back(&mut self, mut gap: usize) {
        for _ in 0..self.points.len() {
            let owners = self.walk(gap);
            if owners == self.owners[gap] {
                break;
            }
            self.carry(gap, -1);
            self.owners[gap] = owners;
            self.carry(gap, 1);
            gap = self.before(gap);
        }
    }

    fn carry(&mut self, gap: usize, sign: i64) {
        let length = self.length(gap) * sign;
        for owner in self.owners[gap].as_slice() {
            self.loads[usize::from(*owner)] += length;
        }
    }
}
