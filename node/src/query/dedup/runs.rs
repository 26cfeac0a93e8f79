//! Where a replica's series has gaps.
//!
//! How far apart its scrapes are isn't told by anyone, so each step is measured against its neighbours: a *scrape
//! interval* is the lower median of the steps around.

use std::ops::Range;

use tsdb::model::Sample;

/// Steps on each side that say how long a step usually is.
const NEIGHBOURS: usize = 4;

/// The interval of a series of a single sample, in milliseconds.
const INTERVAL_DEFAULT_MS: i64 = 60_000;

/// Samples without a gap between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Which of the replica's samples; at least one, and none of them a stale marker.
    pub samples: Range<usize>,
    /// Time of the first sample.
    pub begin_ms: i64,
    /// Time of the last sample; the end of time where no gap is known to follow.
    pub until_ms: i64,
    /// Time from scrape to scrape, in milliseconds, at least 1.
    pub interval_ms: i64,
}

/// How long a silence may be, in milliseconds, before it is a gap: one lost scrape, and some delay, isn't.
pub(super) fn patience_ms(interval_ms: i64) -> i64 {
    interval_ms.saturating_mul(5) / 2
}

/// Divides a replica's samples, ascending in time, into runs. `seen_ms` is how far all replicas' samples are known, at
/// least the time of the newest of all: it tells whether silence at the end has lasted long enough to be a gap.
pub(super) fn runs(samples: &[Sample], seen_ms: i64) -> Vec<Run> {
    let steps: Vec<i64> =
        samples.windows(2).map(|pair| pair[1].timestamp_ms - pair[0].timestamp_ms).collect();
    // Where the longest step isn't a gap measured against the shortest, none is, and no median is needed.
    let shortest = steps.iter().copied().min().unwrap_or(INTERVAL_DEFAULT_MS);
    let may_have_gaps = steps.iter().any(|step| *step > patience_ms(shortest));
    let mut runs = Vec::new();
    let mut begin = 0;
    for (i, sample) in samples.iter().enumerate() {
        let is_stale = sample.value.is_stale();
        let is_last = i + 1 == samples.len();
        let is_gap = may_have_gaps && !is_last && steps[i] > patience_ms(interval_ms(&steps, i));
        if !(is_stale || is_gap || is_last) {
            continue;
        }
        let end = if is_stale { i } else { i + 1 };
        if begin < end {
            let interval_ms = interval_ms(&steps, (begin + end) / 2);
            let last_ms = samples[end - 1].timestamp_ms;
            let goes_on = is_last && !is_stale && seen_ms <= last_ms.saturating_add(patience_ms(interval_ms));
            runs.push(Run {
                samples: begin..end,
                begin_ms: samples[begin].timestamp_ms,
                until_ms: if goes_on { i64::MAX } else { last_ms },
                interval_ms,
            });
        }
        begin = i + 1;
    }
    runs
}

/// The lower median of the steps around step `at`.
fn interval_ms(steps: &[i64], at: usize) -> i64 {
    let around = at.saturating_sub(NEIGHBOURS).min(steps.len())..steps.len().min(at + NEIGHBOURS + 1);
    let mut buffer = [0; 2 * NEIGHBOURS + 1];
    let around = &steps[around];
    let sorted = &mut buffer[..around.len()];
    sorted.copy_from_slice(around);
    sorted.sort_unstable();
    let median = sorted.len().checked_sub(1).map(|last| sorted[last / 2]);
    median.unwrap_or(INTERVAL_DEFAULT_MS).max(1)
}

#[cfg(test)]
mod tests {
    use tsdb::model::stale_nan;

    use super::*;

    fn divided(times_s: &[i64], newest_s: i64) -> Vec<(i64, Option<i64>)> {
        let samples: Vec<_> = times_s
            .iter()
            // A negative time is a stale marker's.
            .map(|t| Sample::float(t.abs() * 1000, if *t < 0 { stale_nan() } else { 1.0 }))
            .collect();
        runs(&samples, newest_s * 1000)
            .iter()
            .map(|run| (run.begin_ms / 1000, (run.until_ms < i64::MAX).then_some(run.until_ms / 1000)))
            .collect()
    }

    #[test]
    fn one_lost_scrape_is_no_gap_and_two_are() {
        assert_eq!(divided(&[15, 30, 60, 75, 90], 90), [(15, None)]);
        assert_eq!(divided(&[15, 30, 75, 90, 105], 105), [(15, Some(30)), (75, None)]);
    }

    #[test]
    fn a_stale_marker_ends_a_run() {
        assert_eq!(divided(&[15, 30, -45, 60, 75], 75), [(15, Some(30)), (60, None)]);
        assert_eq!(divided(&[15, 30, -45], 45), [(15, Some(30))]);
        assert_eq!(divided(&[-15], 15), []);
    }

    #[test]
    fn silence_at_the_end_is_a_gap_once_others_went_on_for_long() {
        assert_eq!(divided(&[15, 30, 45], 82), [(15, None)]);
        assert_eq!(divided(&[15, 30, 45], 83), [(15, Some(45))]);
        assert_eq!(divided(&[15], 100), [(15, None)]);
    }

    #[test]
    fn an_interval_that_changes_is_no_gap_for_long() {
        // From 15 s to 60 s: the first long steps are taken for gaps, later ones aren't.
        let times: Vec<_> = (0..8).map(|i| i * 15).chain((3..12).map(|i| i * 60)).collect();
        let runs = divided(&times, 660);
        assert!(runs.len() <= 5 && runs.last().unwrap().0 <= 300, "{runs:?}");
    }
}
