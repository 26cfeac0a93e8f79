//! Which ages of samples a receiver takes: those that the sender took, unless the two clocks disagree about them.
//!
//! A sender judges ages by its own clock. A receiver looks at them by its own, with twice the tolerance: so much may two
//! clocks differ. What is beyond that says that one of the clocks is wrong, and not which one. So the receiver refuses
//! for now and not for good: the sender keeps a hint, whose ages nobody judges again, and a good sample isn't refused
//! because most of its owners have a wrong clock.

use promql::parse::duration;
use proto::peer::write as pb;
use tsdb::db::Bounds;

/// What the sender of a frame has judged by; hints were judged when they were written.
pub(super) fn sender_bounds(frame: &pb::Frame) -> Bounds {
    if frame.is_hint && !planted::is(planted::Bug::HintsRefusedAsOld) {
        return Bounds::ALL;
    }
    Bounds {
        in_order_min_ms: frame.in_order_min_ms,
        out_of_order_min_ms: frame.out_of_order_min_ms,
        max_ms: frame.max_ms,
    }
}

/// Why a receiver with bounds `own` at `now_ms` (Unix epoch, milliseconds) doesn't judge these times: the sender has
/// taken one that is beyond twice its own. Hints are never in dispute.
pub(super) fn dispute(
    senders: &Bounds,
    own: &Bounds,
    now_ms: i64,
    mut times_ms: impl Iterator<Item = i64>,
) -> Option<String> {
    if *senders == Bounds::ALL {
        return None;
    }
    let twice = |bound_ms: i64| bound_ms.saturating_sub(now_ms.saturating_sub(bound_ms));
    let oldest_ms = |bounds: &Bounds| bounds.in_order_min_ms.min(bounds.out_of_order_min_ms);
    let (min_ms, max_ms) = (twice(oldest_ms(own)), twice(own.max_ms));
    let is_taken = |at_ms: i64| at_ms >= oldest_ms(senders) && at_ms <= senders.max_ms;
    let at_ms = times_ms.find(|at_ms| is_taken(*at_ms) && !(min_ms..=max_ms).contains(at_ms))?;
    let (age, side) = match at_ms < now_ms {
        true => (now_ms.saturating_sub(at_ms), "old"),
        false => (at_ms.saturating_sub(now_ms), "ahead"),
    };
    Some(format!(
        "by its clock a sample that the sender took is {} {side}: one of the two clocks is wrong (set it, by NTP for \
         example), or their limits differ",
        duration::format(age)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const MONTH_MS: i64 = 30 * 24 * HOUR_MS;
    const NOW_MS: i64 = 1_800_000_000_000;

    /// An hour for what is out of order, a day otherwise, ten minutes ahead.
    fn at(now_ms: i64) -> Bounds {
        Bounds {
            in_order_min_ms: now_ms - 24 * HOUR_MS,
            out_of_order_min_ms: now_ms - HOUR_MS,
            max_ms: now_ms + HOUR_MS / 6,
        }
    }

    fn is_disputed(receivers_clock_ms: i64, times_ms: &[i64]) -> bool {
        let own = at(receivers_clock_ms);
        dispute(&at(NOW_MS), &own, receivers_clock_ms, times_ms.iter().copied()).is_some()
    }

    #[test]
    fn a_clock_that_is_a_month_off_refuses_nothing_for_good() {
        for off_ms in [-MONTH_MS, MONTH_MS] {
            assert!(is_disputed(NOW_MS + off_ms, &[NOW_MS]), "off by {off_ms}");
        }
    }

    #[test]
    fn clocks_may_differ_by_as_much_as_a_sample_may_be_old_or_ahead() {
        assert!(!is_disputed(NOW_MS + 23 * HOUR_MS, &[NOW_MS, NOW_MS - 24 * HOUR_MS]));
        assert!(!is_disputed(NOW_MS - HOUR_MS / 6, &[NOW_MS, NOW_MS + HOUR_MS / 6]));
        assert!(is_disputed(NOW_MS - HOUR_MS / 2, &[NOW_MS]));
    }

    #[test]
    fn what_the_sender_itself_refuses_is_no_dispute() {
        assert!(!is_disputed(NOW_MS, &[NOW_MS - MONTH_MS, NOW_MS + MONTH_MS]));
    }

    #[test]
    fn hints_are_taken_whatever_the_clock_says() {
        let hint = pb::Frame { is_hint: true, in_order_min_ms: NOW_MS, ..pb::Frame::default() };
        let clock_ms = NOW_MS + MONTH_MS;
        assert!(dispute(&sender_bounds(&hint), &at(clock_ms), clock_ms, [NOW_MS].into_iter()).is_none());
    }

    #[test]
    fn limits_without_bound_are_never_in_dispute() {
        let own = Bounds::ALL;
        assert!(dispute(&at(NOW_MS), &own, NOW_MS - MONTH_MS, [NOW_MS].into_iter()).is_none());
    }
}
