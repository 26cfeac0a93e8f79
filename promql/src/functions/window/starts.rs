//! What start times tell of counters: a sample whose counter started behind the sample before it comes after a reset,
//! even where its value is greater; and a counter that started inside of the window was 0 then.
//!
//! Who sends deltas gives each the time of the one before it as its start. A cumulative counter of unknown start looks
//! the same in its second sample, but its first says that it started when it was taken, or nothing.

use super::pairs::count_at;
use super::rate::Extrapolation;
use super::{FloatRun, Window, WindowFunction, Windows};
use crate::eval::notes::{Note, Notes};

/// When a sample was taken, and when its counter started (0 = unknown), in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When it was taken.
    pub time_ms: i64,
    /// When its counter started.
    pub start_ms: i64,
}

/// Whether start times tell of a reset between two samples.
pub fn is_reset(previous: Stamp, current: Stamp) -> bool {
    if current.start_ms == 0 || current.start_ms >= current.time_ms || current.start_ms < previous.time_ms {
        return false;
    }
    // At the previous sample's very time there is a reset only if that one knew when it started.
    current.start_ms > previous.time_ms || (previous.start_ms != 0 && previous.start_ms < previous.time_ms)
}

/// Whether two samples claim the same time for two runs of their counter.
pub fn overlap(previous: Stamp, current: Stamp) -> bool {
    current.start_ms != 0 && current.start_ms < previous.time_ms && current.start_ms != previous.start_ms
}

/// When the counter of a window's first sample started, if that was inside of the window.
pub fn inside(first: Stamp, window: &Window) -> Option<i64> {
    let Stamp { time_ms, start_ms } = first;
    (start_ms != 0 && start_ms > window.start_ms && start_ms < time_ms).then_some(start_ms)
}

/// Whether value or start time tell of a reset before a sample, which isn't the first.
pub fn is_reset_at(run: FloatRun<'_>, at: usize) -> bool {
    run.values[at] < run.values[at - 1]
        || (!run.starts.is_empty() && is_reset(run.stamp(at - 1), run.stamp(at)))
}

/// `resets`
pub fn resets(windows: &Windows, run: FloatRun<'_>, out: &mut [f64]) {
    count_at(windows, run, out, |range| range.map(|at| u64::from(is_reset_at(run, at))).sum());
}

/// `rate` and `increase`
pub fn extrapolated(
    function: WindowFunction,
    windows: &Windows,
    run: FloatRun<'_>,
    notes: &mut Notes,
    out: &mut [f64],
) {
    let FloatRun { timestamps, values, .. } = run;
    let pairs = 1..values.len();
    let resets: Vec<usize> = pairs.clone().filter(|at| is_reset_at(run, *at)).collect();
    let overlaps: Vec<usize> = pairs.filter(|at| overlap(run.stamp(at - 1), run.stamp(*at))).collect();
    windows.each(timestamps, |window| {
        let Window { lo, hi, .. } = window;
        if window.len() == 0 {
            return;
        }
        let first_overlap = overlaps.partition_point(|at| *at <= lo);
        if overlaps.get(first_overlap).is_some_and(|at| *at < hi) {
            notes.add(Note::StartTimesOverlap);
        }
        let mut difference = values[hi - 1] - values[lo];
        let first = resets.partition_point(|at| *at <= lo);
        for reset in resets[first..].iter().take_while(|at| **at < hi) {
            difference += values[reset - 1];
        }
        let (first_ms, last_ms) = (timestamps[lo], timestamps[hi - 1]);
        if let Some(start_ms) = inside(run.stamp(lo), &window) {
            let factor =
                Extrapolation::factor_since(function, windows.range_ms, &window, start_ms, first_ms, last_ms);
            out[window.step] = (difference + values[lo]) * factor;
        } else if window.len() > 1 {
            let extrapolation = Extrapolation::new(function, windows.range_ms, &window, first_ms, last_ms);
            out[window.step] = difference * extrapolation.counter_factor(values[lo], difference);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(time_ms: i64, start_ms: i64) -> Stamp {
        Stamp { time_ms, start_ms }
    }

    #[test]
    fn a_start_behind_the_previous_sample_is_a_reset() {
        assert!(is_reset(stamp(100, 50), stamp(200, 150)));
        assert!(!is_reset(stamp(100, 50), stamp(200, 50)));
        assert!(!is_reset(stamp(100, 50), stamp(200, 0)));
        assert!(!is_reset(stamp(100, 50), stamp(200, 200)));
    }

    #[test]
    fn a_start_at_the_previous_sample_is_a_reset_of_deltas_alone() {
        assert!(is_reset(stamp(100, 50), stamp(200, 100)));
        for unknown in [0, 100, 150] {
            assert!(!is_reset(stamp(100, unknown), stamp(200, 100)), "{unknown}");
        }
    }

    #[test]
    fn runs_of_a_counter_overlap_where_one_began_before_the_other_ended() {
        assert!(overlap(stamp(100, 50), stamp(200, 60)));
        assert!(!overlap(stamp(100, 50), stamp(200, 50)));
        assert!(!overlap(stamp(100, 50), stamp(200, 100)));
    }
}
