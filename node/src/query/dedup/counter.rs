//! Whether a sample of one replica can follow a sample of another.
//!
//! Replicas see the same counter at other moments: between two of its scrapes a replica brackets what the other saw. A
//! value outside of the bracket comes from a clock that is a little off, and the next scrapes will do; or the counters are
//! two (each server's own metrics, under labels that don't tell them apart), and joined they would show a reset, or a
//! leap, that never was.

use std::ops::ControlFlow;

use tsdb::model::{Count, CounterReset, Histogram, Labels, Sample, Value};

/// What ends the names of counters, by convention.
const COUNTER_SUFFIXES: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];

/// Whether a series of floats is a counter, as far as its name tells. Histograms know themselves.
pub(super) fn is_counter(labels: &Labels) -> bool {
    COUNTER_SUFFIXES.iter().any(|suffix| labels.metric_name().ends_with(suffix))
}

/// Which sample of `next`, at or after `at`, may follow `last`, a sample of another replica; `None` when the counters
/// don't belong together. Samples up to `patience_ms` after `last` are passed over where a clock may be off.
pub(super) fn follower(
    last: &Sample,
    next: &[Sample],
    at: usize,
    patience_ms: i64,
    floats_are_counters: bool,
) -> Option<usize> {
    let fell = |now: &Sample, before: &Sample| fell(&now.value, &before.value, floats_are_counters);
    // Whether the replica itself saw the counter restart between its samples before `last` and sample `i`.
    let before = next[..at].partition_point(|sample| sample.timestamp_ms <= last.timestamp_ms);
    let begin = before.saturating_sub(2);
    let restarted_by = |i: usize| (begin + 1..=i).any(|i| fell(&next[i], &next[i - 1]));
    // One scrape more than the one before `last`, for clocks that are off.
    if before >= 2 && !restarted_by(at) && fell(last, &next[begin]) {
        return None;
    }
    let found = (at..next.len()).try_for_each(|i| {
        if !fell(&next[i], last) || restarted_by(i) {
            return ControlFlow::Break(Some(i));
        }
        if next[i].timestamp_ms > last.timestamp_ms.saturating_add(patience_ms) {
            return ControlFlow::Break(None);
        }
        ControlFlow::Continue(())
    });
    match found {
        ControlFlow::Break(found) => found,
        // The recent edge: the next scrape will tell.
        ControlFlow::Continue(()) => Some(next.len()),
    }
}

/// Whether a counter that showed `before` must have been reset to show `now`.
fn fell(now: &Value, before: &Value, floats_are_counters: bool) -> bool {
    match (now, before) {
        _ if now.is_stale() || before.is_stale() => false,
        (Value::Float(now), Value::Float(before)) => floats_are_counters && now < before,
        (Value::Int(now), Value::Int(before)) => histogram_fell(now, before),
        (Value::Histogram(now), Value::Histogram(before)) => histogram_fell(now, before),
        _ => false,
    }
}

fn histogram_fell<C: Count>(now: &Histogram<C>, before: &Histogram<C>) -> bool {
    let is_gauge = |h: &Histogram<C>| h.counter_reset == CounterReset::Gauge;
    !is_gauge(now) && !is_gauge(before) && now.is_reset_after(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(values: &[(i64, f64)]) -> Vec<Sample> {
        values.iter().map(|(t, v)| Sample::float(*t, *v)).collect()
    }

    /// Which sample of `next` follows `last`.
    fn of(last: (i64, f64), next: &[(i64, f64)]) -> Option<usize> {
        let next = floats(next);
        let at = next.partition_point(|s| s.timestamp_ms <= last.0);
        follower(&Sample::float(last.0, last.1), &next, at, 37, true)
    }

    #[test]
    fn a_value_within_the_bracket_follows() {
        assert_eq!(of((20, 120.0), &[(0, 100.0), (15, 115.0), (30, 130.0)]), Some(2));
        assert_eq!(of((20, 120.0), &[(30, 130.0)]), Some(0));
    }

    #[test]
    fn a_late_clock_costs_a_scrape() {
        assert_eq!(of((20, 132.0), &[(0, 100.0), (15, 115.0), (30, 130.0), (45, 145.0)]), Some(3));
        assert_eq!(of((20, 132.0), &[(0, 100.0), (15, 115.0), (30, 130.0)]), Some(3), "not there yet");
    }

    #[test]
    fn a_true_reset_is_kept() {
        assert_eq!(of((20, 120.0), &[(0, 100.0), (15, 115.0), (30, 3.0)]), Some(2));
        assert_eq!(of((20, 3.0), &[(0, 100.0), (15, 115.0), (30, 9.0)]), Some(2));
    }

    #[test]
    fn counters_that_are_two_are_not_joined() {
        let large = [(0, 9_000.0), (15, 9_001.0), (30, 9_002.0), (45, 9_003.0), (60, 9_004.0)];
        let small = [(0, 1.0), (15, 2.0), (30, 3.0), (45, 4.0), (60, 5.0)];
        assert_eq!(of((20, 3.0), &large), None);
        assert_eq!(of((20, 9_000.0), &small), None);
    }

    #[test]
    fn gauges_follow_whatever_they_show() {
        let next = floats(&[(0, 9.0), (15, 9.0), (30, 1.0)]);
        assert_eq!(follower(&Sample::float(20, 5.0), &next, 2, 37, false), Some(2));
    }
}
