//! The times at which an expression is evaluated.

use std::ops::RangeInclusive;

use crate::parse::ast::{At, Edges};

/// The question's range: the steps of the outermost expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryRange {
    /// First step, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// No step lies behind it; `@ end()` and `end()` mean this time.
    pub end_ms: i64,
    /// Milliseconds between steps; 0 makes an instant query, which has the step `start_ms` alone.
    pub step_ms: i64,
    /// How many milliseconds before a step a sample may lie and still count for it.
    pub lookback_ms: i64,
}

impl QueryRange {
    /// An instant query.
    pub fn instant(time_ms: i64, lookback_ms: i64) -> Self {
        Self { start_ms: time_ms, end_ms: time_ms, step_ms: 0, lookback_ms }
    }

    /// Whether this is an instant query.
    pub fn is_instant(&self) -> bool {
        self.step_ms == 0
    }

    /// Milliseconds from the first step to the end; 0 for an instant query.
    pub fn span_ms(&self) -> i64 {
        self.end_ms.saturating_sub(self.start_ms)
    }

    /// Its steps.
    pub fn grid(&self) -> Grid {
        if self.is_instant() {
            Grid::single(self.start_ms)
        } else {
            Grid::covering(self.start_ms, self.end_ms, self.step_ms)
        }
    }

    /// The time that an `@` means.
    pub fn at_ms(&self, at: At) -> i64 {
        match at {
            At::Time(time_ms) => time_ms,
            At::Start => self.start_ms,
            At::End => self.end_ms,
        }
    }
}

/// Equally spaced times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The first.
    pub start_ms: i64,
    /// Distance between two, above 0 unless there is just one.
    pub step_ms: i64,
    /// How many; an empty grid evaluates to nothing.
    pub count: usize,
}

impl Grid {
    /// One time.
    pub fn single(time_ms: i64) -> Self {
        Self { start_ms: time_ms, step_ms: 0, count: 1 }
    }

    /// From `start_ms` in steps up to `end_ms`, which is included where a step falls on it.
    pub fn covering(start_ms: i64, end_ms: i64, step_ms: i64) -> Self {
        let count = match end_ms.checked_sub(start_ms) {
            Some(length) if length >= 0 => usize::try_from(length / step_ms).map_or(usize::MAX, |n| n + 1),
            _ => 0,
        };
        Self { start_ms, step_ms, count }
    }

    /// The steps of a subquery whose outer windows are `(end - range_ms, end]` for `end` from `first_end_ms` to
    /// `last_end_ms`: multiples of `step_ms`, however the outer steps lie.
    pub fn of_subquery(first_end_ms: i64, last_end_ms: i64, range_ms: i64, step_ms: i64) -> Self {
        let left = first_end_ms.saturating_sub(range_ms);
        let start = left.div_euclid(step_ms).saturating_add(1).saturating_mul(step_ms);
        Self::covering(start, last_end_ms, step_ms)
    }

    /// Time number `index`.
    #[inline]
    pub fn time_ms(&self, index: usize) -> i64 {
        // Never behind the last time, which is an i64; a single time has index 0.
        self.start_ms + index as i64 * self.step_ms
    }

    /// The last time; the first of an empty grid.
    pub fn last_ms(&self) -> i64 {
        self.time_ms(self.count.saturating_sub(1))
    }
}

impl Edges {
    /// How many milliseconds before and behind a range samples are looked at.
    pub fn reach_ms(self, lookback_ms: i64) -> (i64, i64) {
        match self {
            Self::Plain => (0, 0),
            Self::Anchored => (lookback_ms, 0),
            Self::Smoothed => (lookback_ms, lookback_ms),
        }
    }
}

/// Which time an expression looks at from a step: the step's own or a fixed one, shifted back by an offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The fixed time of `@`.
    pub at_ms: Option<i64>,
    /// Milliseconds to look back.
    pub offset_ms: i64,
}

impl View {
    /// The time seen from `time_ms`.
    #[inline]
    pub fn time_ms(&self, time_ms: i64) -> i64 {
        self.at_ms.unwrap_or(time_ms).saturating_sub(self.offset_ms)
    }

    /// The view of an expression that stands inside of one with this view: a fixed time of its own wins.
    pub fn then(self, inner: Self) -> Self {
        match inner.at_ms {
            Some(_) => inner,
            None => Self { at_ms: self.at_ms, offset_ms: self.offset_ms.saturating_add(inner.offset_ms) },
        }
    }

    /// First and last time seen from a grid.
    pub fn span_ms(&self, grid: &Grid) -> (i64, i64) {
        (self.time_ms(grid.start_ms), self.time_ms(grid.last_ms()))
    }

    /// Which samples may be seen from a grid by who looks back less than `before_ms` and ahead up to `behind_ms`, in
    /// milliseconds. What is fetched and what is decoded go by it.
    pub fn reach_ms(&self, grid: &Grid, before_ms: i64, behind_ms: i64) -> RangeInclusive<i64> {
        let (first, last) = self.span_ms(grid);
        first.saturating_sub(before_ms).saturating_add(1)..=last.saturating_add(behind_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_a_step_only_where_one_falls_on_it() {
        assert_eq!(Grid::covering(0, 60, 20).count, 4);
        assert_eq!(Grid::covering(0, 59, 20).count, 3);
        assert_eq!(Grid::covering(10, 0, 20).count, 0);
    }

    #[test]
    fn subqueries_step_on_multiples_and_are_open_on_the_left() {
        let grid = Grid::of_subquery(1_007, 1_007, 30, 10);
        assert_eq!((grid.start_ms, grid.last_ms()), (980, 1_000));
        let grid = Grid::of_subquery(1_000, 1_000, 30, 10);
        assert_eq!((grid.start_ms, grid.last_ms()), (980, 1_000));
        let grid = Grid::of_subquery(5, 5, 30, 10);
        assert_eq!((grid.start_ms, grid.last_ms()), (-20, 0));
    }
}
