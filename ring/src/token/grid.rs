//! Rows and columns while tokens are laid out: who keeps what, what everybody carries and should carry.

use super::zone::{LINE, Rule};

/// A member: its place in the order of store ids.
pub(super) type Holder = u16;

/// Nobody keeps this copy yet.
pub(super) const VACANT: Holder = Holder::MAX;

/// Points from the end of the row before to `end`, which it doesn't hold; one holder a column.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    end: i64,
    cells: Vec<Holder>,
}

/// Neighbouring rows of a column: the first, the one behind the last, and their points.
#[derive(Debug, Clone, Copy)]
struct Run {
    column: usize,
    first: usize,
    points: i64,
}

/// The whole layout.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    rows: Vec<Row>,
    /// By holder.
    zones: Vec<u16>,
    /// Points carried by each holder.
    loads: Vec<i64>,
    /// Points that each should carry.
    shares: Vec<i64>,
}

impl Grid {
    /// `rows` are ends (inclusive) and holders.
    pub(super) fn new(
        rows: impl Iterator<Item = (u32, Vec<Holder>)>,
        zones: Vec<u16>,
        shares: Vec<i64>,
    ) -> Self {
        let rows = rows.map(|(end, cells)| Row { end: i64::from(end) + 1, cells }).collect();
        let mut grid = Self { rows, loads: vec![0; zones.len()], zones, shares };
        for row in 0..grid.rows.len() {
            for column in 0..grid.rows[row].cells.len() {
                grid.carry(row, column, 1);
            }
        }
        grid
    }

    /// How much more than its share a holder carries.
    pub(super) fn excess(&self, holder: Holder) -> i64 {
        self.loads[usize::from(holder)] - self.shares[usize::from(holder)]
    }

    /// All holders, the one with the greatest excess first.
    pub(super) fn by_excess(&self) -> Vec<Holder> {
        let mut holders: Vec<Holder> = (0..self.loads.len() as Holder).collect();
        holders.sort_by_key(|holder| (-self.excess(*holder), *holder));
        holders
    }

    /// Takes copies from their holders where more than `limit` stand in one zone: from the heaviest first.
    pub(super) fn vacate_crowded(&mut self, limit: u32) {
        for row in 0..self.rows.len() {
            while let Some(column) = self.crowded(row, limit) {
                self.set(row, column, VACANT);
            }
        }
    }

    fn crowded(&self, row: usize, limit: u32) -> Option<usize> {
        let cells = &self.rows[row].cells;
        let crowded = |column: &usize| {
            let holder = cells[*column];
            holder != VACANT && self.neighbours(row, *column, holder) >= limit
        };
        (0..cells.len()).filter(crowded).max_by_key(|column| self.excess(cells[*column]))
    }

    /// Gives all vacant copies to those who have least of what they should.
    pub(super) fn fill(&mut self, rule: &Rule) {
        for column in 0..self.columns() {
            let mut row = 0;
            while row < self.rows.len() {
                if self.rows[row].cells[column] == VACANT {
                    let taker = self.taker(row, column, rule.preferred).filter(|to| self.lacks(*to));
                    let taker = taker.or_else(|| self.taker(row, column, rule.limit));
                    self.give(row, column, taker.expect("the rule of zones leaves room for every copy"));
                }
                row += 1;
            }
        }
    }

    /// Moves copies out of zones that have more than `limit` of them, as far as others lack something.
    pub(super) fn spread_out(&mut self, limit: u32) {
        let mut row = 0;
        while row < self.rows.len() {
            if let Some(column) = self.crowded(row, limit)
                && let Some(taker) = self.taker(row, column, limit).filter(|to| self.lacks(*to))
            {
                self.give(row, column, taker);
            }
            row += 1;
        }
    }

    /// Who takes a copy: who holds the range before, while it lacks something; else who lacks most.
    fn taker(&self, row: usize, column: usize, limit: u32) -> Option<Holder> {
        let may = |holder: &Holder| self.may(row, column, *holder, limit);
        let before = row.checked_sub(1).map(|before| self.rows[before].cells[column]);
        let before = before.filter(|holder| *holder != VACANT && may(holder) && self.lacks(*holder));
        before.or_else(|| self.by_excess().into_iter().rev().find(may))
    }

    /// Gives a copy, or the part of it that the taker lacks.
    fn give(&mut self, row: usize, column: usize, to: Holder) {
        let wanted = -self.excess(to);
        if wanted >= self.crumb(to) && wanted < self.length(row) {
            self.split(row, wanted);
        }
        self.set(row, column, to);
    }

    fn lacks(&self, holder: Holder) -> bool {
        -self.excess(holder) >= self.crumb(holder)
    }

    fn columns(&self) -> usize {
        self.rows.first().map_or(0, |row| row.cells.len())
    }

    /// Moves up to `points` from one holder to another, whole ranges if possible; how many it were.
    pub(super) fn shift(&mut self, from: Holder, to: Holder, points: i64, limit: u32) -> i64 {
        let mut moved = 0;
        while moved < points {
            let Some(run) = self.run(from, to, points - moved, limit) else { break };
            let wanted = run.points.min(points - moved);
            let mut row = run.first;
            let mut left = wanted;
            while left > 0 {
                if self.length(row) > left {
                    self.split(row, left);
                }
                left -= self.length(row);
                self.set(row, run.column, to);
                row += 1;
            }
            moved += wanted;
        }
        moved
    }

    /// Where `from` could give to `to`: the shortest run that suffices, else the longest.
    fn run(&self, from: Holder, to: Holder, points: i64, limit: u32) -> Option<Run> {
        let mut best: Option<Run> = None;
        for column in 0..self.columns() {
            let mut current: Option<Run> = None;
            for row in 0..self.rows.len() {
                if self.rows[row].cells[column] == from && self.may(row, column, to, limit) {
                    let run = current.get_or_insert(Run { column, first: row, points: 0 });
                    run.points += self.length(row);
                } else {
                    best = better(best, current.take(), points);
                }
            }
            best = better(best, current, points);
        }
        best
    }

    /// Whether a holder may keep this copy, instead of who keeps it now, with at most `limit` in its zone.
    fn may(&self, row: usize, column: usize, holder: Holder, limit: u32) -> bool {
        let cells = &self.rows[row].cells;
        (planted::is(planted::Bug::TwoReplicasOnOneNode) || !cells.contains(&holder))
            && self.neighbours(row, column, holder) < limit
    }

    /// Holders of other copies that stand in the zone of `holder`.
    fn neighbours(&self, row: usize, column: usize, holder: Holder) -> u32 {
        let zone = |holder: Holder| self.zones[usize::from(holder)];
        let others = self.rows[row].cells.iter().enumerate().filter(|(other, _)| *other != column);
        others.filter(|(_, other)| **other != VACANT && zone(**other) == zone(holder)).count() as u32
    }

    /// What isn't worth a token.
    pub(super) fn crumb(&self, holder: Holder) -> i64 {
        (self.shares[usize::from(holder)] / CRUMBS).max(1)
    }

    fn length(&self, row: usize) -> i64 {
        self.rows[row].end - row.checked_sub(1).map_or(0, |before| self.rows[before].end)
    }

    fn split(&mut self, row: usize, points: i64) {
        let start = self.rows[row].end - self.length(row);
        let cells = self.rows[row].cells.clone();
        self.rows.insert(row, Row { end: start + points, cells });
    }

    fn set(&mut self, row: usize, column: usize, holder: Holder) {
        self.carry(row, column, -1);
        self.rows[row].cells[column] = holder;
        self.carry(row, column, 1);
    }

    fn carry(&mut self, row: usize, column: usize, sign: i64) {
        let length = self.length(row);
        if let Some(load) = self.loads.get_mut(usize::from(self.rows[row].cells[column])) {
            *load += sign * length;
        }
    }

    /// The tokens of each holder, by column: where its ranges end.
    pub(super) fn tokens(&self, columns: usize) -> Vec<Vec<Vec<u32>>> {
        debug_assert_eq!(self.rows.last().map(|row| row.end), Some(LINE));
        let mut tokens = vec![vec![Vec::new(); columns]; self.loads.len()];
        for (row, next) in self.rows.iter().zip(self.rows.iter().skip(1).map(Some).chain([None])) {
            for (column, holder) in row.cells.iter().enumerate() {
                if next.is_none_or(|next| next.cells[column] != *holder) {
                    tokens[usize::from(*holder)][column].push((row.end - 1) as u32);
                }
            }
        }
        tokens
    }
}

/// One part in this of a member's share isn't worth a token.
const CRUMBS: i64 = 200;

fn better(best: Option<Run>, run: Option<Run>, points: i64) -> Option<Run> {
    let rank = |run: &Run| if run.points >= points { (1, -run.points) } else { (0, run.points) };
    match (best, run) {
        (Some(best), Some(run)) if rank(&run) <= rank(&best) => Some(best),
        (best, run) => run.or(best),
    }
}
