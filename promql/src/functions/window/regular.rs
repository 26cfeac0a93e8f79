//! Windows over samples that come as regularly as the steps: they are all alike.
//!
//! Prometheus and agents align scrapes, so that a series' samples lie exactly one interval apart, and whoever draws graphs
//! likes steps that are multiples of it.

use std::ops::Range;

use super::Windows;

/// Steps whose windows hold equally many samples, each at the same distance from the window's ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alike {
    /// At least one.
    pub(super) steps: Range<usize>,
    /// The samples of the first of them.
    pub(super) samples: Range<usize>,
    /// By how many samples each window lies behind the one before.
    pub(super) stride: usize,
}

impl Alike {
    /// Those of all windows that lie where there are samples; `None` where samples aren't regular or steps aren't multiples of
    /// their distance.
    pub(super) fn find(windows: &Windows, timestamps: &[i64]) -> Option<Self> {
        let (&[first_ms, second_ms, ..], Some(&last_ms)) = (timestamps, timestamps.last()) else {
            return None;
        };
        let (every_ms, step_ms) = (second_ms.checked_sub(first_ms)?, windows.grid.step_ms);
        if every_ms <= 0 || step_ms <= 0 || windows.view.at_ms.is_some() || step_ms % every_ms != 0 {
            return None;
        }
        // Series with gaps are told from others without looking at each sample.
        if last_ms.checked_sub(first_ms)? != every_ms.checked_mul(timestamps.len() as i64 - 1)?
            || !timestamps.iter().zip(&timestamps[1..]).fold(true, |all, (a, b)| all & (b - a == every_ms))
        {
            return None;
        }
        // Between these, each interval of time has its sample.
        let (from_ms, until_ms) = (first_ms.checked_sub(every_ms)?, last_ms.checked_add(every_ms)?);
        let (_, end_ms) = windows.of_step(0);
        let start_ms = end_ms.checked_sub(windows.range_ms)?;
        let behind = |ms: i64| usize::try_from(ms.div_euclid(step_ms) + i64::from(ms % step_ms != 0));
        let begin = behind(from_ms.checked_sub(start_ms)?.max(0)).ok()?;
        let end = behind(until_ms.checked_sub(end_ms)?.max(0)).ok()?.min(windows.grid.count);
        if begin >= end {
            return None;
        }
        let (start_ms, end_ms) = windows.of_step(begin);
        let up_to = |ms: i64| usize::try_from((ms - from_ms) / every_ms).ok();
        Some(Self {
            steps: begin..end,
            samples: up_to(start_ms)?..up_to(end_ms)?,
            stride: usize::try_from(step_ms / every_ms).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse::ast::Edges;
    use crate::plan::grid::{Grid, View};

    proptest! {
        #[test]
        fn windows_that_are_alike_are_where_each_finds_them(
            start_ms in -50i64..200,
            step_ms in 1i64..40,
            count in 1usize..30,
            range_ms in 1i64..80,
            offset_ms in -20i64..20,
            first_ms in -50i64..50,
            every_ms in 1i64..20,
            samples in 0i64..60,
            moved in prop::option::weighted(0.2, 0usize..60),
        ) {
            let windows = Windows {
                grid: Grid { start_ms, step_ms, count },
                view: View { at_ms: None, offset_ms },
                range_ms,
                edges: Edges::Plain,
                lookback_ms: 0,
            };
            let mut timestamps: Vec<_> = (0..samples).map(|i| first_ms + i * every_ms).collect();
            if let Some(timestamp) = moved.and_then(|i| timestamps.get_mut(i)) {
                *timestamp += every_ms / 2;
            }
            if let Some(alike) = Alike::find(&windows, &timestamps) {
                let mut found = 0;
                windows.each(&timestamps, |window| {
                    if alike.steps.contains(&window.step) {
                        let behind = (window.step - alike.steps.start) * alike.stride;
                        assert_eq!(window.lo, alike.samples.start + behind);
                        assert_eq!(window.hi, alike.samples.end + behind);
                        found += 1;
                    }
                });
                prop_assert_eq!(found, alike.steps.len());
            }
        }
    }

    #[test]
    fn all_windows_inside_of_regular_samples_are_alike() {
        let windows = Windows {
            grid: Grid { start_ms: 300, step_ms: 30, count: 10 },
            view: View { at_ms: None, offset_ms: 0 },
            range_ms: 60,
            edges: Edges::Plain,
            lookback_ms: 0,
        };
        let timestamps: Vec<_> = (0..50).map(|i| 7 + i * 15).collect();
        let alike = Alike::find(&windows, &timestamps);
        assert_eq!(alike, Some(Alike { steps: 0..10, samples: 16..20, stride: 2 }));
        assert_eq!(
            Alike::find(&Windows { grid: Grid { step_ms: 31, ..windows.grid }, ..windows }, &timestamps),
            None
        );
        // Where series begin and end, windows hold less.
        let alike = Alike::find(&windows, &timestamps[18..35]);
        assert_eq!(alike, Some(Alike { steps: 1..8, samples: 0..4, stride: 2 }));
    }
}
