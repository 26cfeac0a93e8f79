//! The aligned ranges that a tenant has samples of in the head, each from its first sample to its block.
//!
//! ```text
//!            add              begin_cut              end_cut(true)
//! (nothing) -----> open range ---------> range being cut ---------> (a block has it)
//!                      ^                      |
//!                      +----- end_cut(false) -+
//! ```
//! Whoever asks what the head has is told of the range being cut as well: its samples are in the head until the block is
//! shown. One lock holds both, so that no reader finds a range in neither state.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use parking_lot::Mutex;

use crate::head::rule::{RANGE_MS, range_start_ms};

/// Late samples wait for company for this long, in milliseconds.
pub(super) const LATE_WAIT_MS: u64 = 60 * 60 * 1000;

/// Longest wait between two attempts to cut a range, in milliseconds. The first attempt after a failure comes at once.
const RETRY_WAIT_MS_MAX: u64 = 60_000;

/// A tenant's ranges in the head, by start.
#[derive(Debug, Default)]
pub(super) struct Ranges(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<i64, Range>,
    /// The range that is being cut; new samples of its time begin an open range anew.
    cutting: Option<(i64, Range)>,
}

/// An aligned range of two hours in the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    /// Samples, about: what a restart restores is estimated.
    samples: u64,
    /// When maintenance first saw late samples in it, by monotonic time.
    late_since_ms: Option<u64>,
    /// Marks that there were when it came to be: it may hold samples that every later mark means.
    marks: u64,
    /// Cuts of it that failed, one after another.
    failures: u32,
    /// When it is to be cut again, by monotonic time, once maintenance has seen the failure.
    retry_ms: Option<u64>,
}

/// What decides which ranges are cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutTerms {
    /// Monotonic time, in milliseconds.
    pub(super) elapsed_ms: u64,
    /// The tenant's newest sample.
    pub(super) newest_ms: i64,
    /// Samples before this are in blocks: what is in the head is late.
    pub(super) cut_until_ms: i64,
    pub(super) out_of_order_window_ms: i64,
    /// The tenant has fallen silent: all of it is cut.
    pub(super) is_idle: bool,
}

impl Ranges {
    /// Adds samples, given as timestamps and how many there are about; `marks` there have been so far.
    pub(super) fn add(&self, samples: impl Iterator<Item = (i64, u64)>, marks: u64) {
        let mut state = self.0.lock();
        for (timestamp_ms, count) in samples {
            let range = state.open.entry(range_start_ms(timestamp_ms));
            range.or_insert_with(|| Range { marks, ..Range::default() }).samples += count;
        }
    }

    /// The open range that begins at `start_ms` is being cut from now on.
    pub(super) fn begin_cut(&self, start_ms: i64) {
        let mut state = self.0.lock();
        debug_assert!(state.cutting.is_none(), "one cut of a tenant at a time");
        state.cutting = state.open.remove(&start_ms).map(|range| (start_ms, range));
    }

    /// Ends the cut: a block has the range, or the head still does, with what came meanwhile.
    pub(super) fn end_cut(&self, is_cut: bool) {
        let mut state = self.0.lock();
        let Some((start_ms, range)) = state.cutting.take().filter(|_| !is_cut) else { return };
        let open = state.open.entry(start_ms).or_default();
        let samples = range.samples + open.samples;
        // A range that came to be meanwhile has no fewer marks.
        *open = Range { samples, failures: range.failures.saturating_add(1), retry_ms: None, ..range };
    }

    /// Starts of all ranges, ascending.
    pub(super) fn starts_ms(&self) -> Vec<i64> {
        let state = self.0.lock();
        let mut starts: Vec<i64> = state.all().map(|(start_ms, _)| start_ms).collect();
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    /// Start of the oldest range.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        self.0.lock().all().map(|(start_ms, _)| start_ms).min()
    }

    /// Samples in the head, about.
    pub(super) fn samples(&self) -> u64 {
        self.0.lock().all().map(|(_, range)| range.samples).sum()
    }

    /// Whether nothing is left that was appended before the mark of this number.
    pub(super) fn is_flushed(&self, mark: u64) -> bool {
        self.0.lock().all().all(|(_, range)| range.marks > mark)
    }

    /// Starts of the ranges that are to be cut now, oldest first.
    pub(super) fn due(&self, terms: &CutTerms) -> Vec<i64> {
        let CutTerms { elapsed_ms, newest_ms, cut_until_ms, .. } = *terms;
        let wait_ms = RANGE_MS.saturating_add(terms.out_of_order_window_ms.max(0));
        let is_late = |start_ms: i64| start_ms + RANGE_MS <= cut_until_ms;
        let is_complete = |start_ms: i64| start_ms.saturating_add(wait_ms) <= newest_ms;
        let mut state = self.0.lock();
        // Late samples wait for company: for the next range in order, or for an hour.
        let any_complete = state.open.keys().any(|start_ms| !is_late(*start_ms) && is_complete(*start_ms));
        let mut due = Vec::new();
        for (start_ms, range) in &mut state.open {
            let is_due = if range.failures > 0 {
                range.retries(elapsed_ms)
            } else if is_late(*start_ms) {
                let since_ms = *range.late_since_ms.get_or_insert(elapsed_ms);
                any_complete || terms.is_idle || elapsed_ms.saturating_sub(since_ms) >= LATE_WAIT_MS
            } else {
                is_complete(*start_ms) || terms.is_idle
            };
            if is_due {
                due.push(*start_ms);
            }
        }
        due
    }
}

impl State {
    fn all(&self) -> impl Iterator<Item = (i64, &Range)> {
        let cutting = self.cutting.iter().map(|(start_ms, range)| (*start_ms, range));
        self.open.iter().map(|(start_ms, range)| (*start_ms, range)).chain(cutting)
    }
}

impl Range {
    /// Whether a range of which a cut failed is to be cut again: at once, then after 1, 2, 4 … seconds, so that a disk
    /// without room isn't kept busy by blocks that come to nothing.
    fn retries(&mut self, elapsed_ms: u64) -> bool {
        let wait_ms = match self.failures {
            0 | 1 => 0,
            more => 1_000u64.saturating_mul(1 << (more - 2).min(16)).min(RETRY_WAIT_MS_MAX),
        };
        elapsed_ms >= *self.retry_ms.get_or_insert(elapsed_ms.saturating_add(wait_ms))
    }
}

/// Whether ranges whose oldest begins at `oldest_ms` and whose newest sample is at `newest_ms` meet a closed range.
pub(super) fn overlaps(oldest_ms: Option<i64>, newest_ms: i64, range_ms: &RangeInclusive<i64>) -> bool {
    oldest_ms.is_some_and(|oldest_ms| oldest_ms <= *range_ms.end()) && *range_ms.start() <= newest_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: CutTerms = CutTerms {
        elapsed_ms: 0,
        newest_ms: 10 * RANGE_MS,
        cut_until_ms: 0,
        out_of_order_window_ms: 0,
        is_idle: false,
    };

    fn ranges(starts: impl IntoIterator<Item = i64>) -> Ranges {
        let ranges = Ranges::default();
        ranges.add(starts.into_iter().map(|start| (start * RANGE_MS, 1)), 0);
        ranges
    }

    #[test]
    fn a_range_is_told_of_in_every_state_of_its_life() {
        let ranges = ranges([1, 2]);
        let look = || (ranges.starts_ms(), ranges.oldest_ms(), ranges.samples(), ranges.is_flushed(0));
        let before = look();
        assert_eq!(before, (vec![RANGE_MS, 2 * RANGE_MS], Some(RANGE_MS), 2, false));
        ranges.begin_cut(RANGE_MS);
        assert_eq!(look(), before);
        // A late sample of the range makes no second one.
        ranges.add([(RANGE_MS + 5, 1)].into_iter(), 7);
        assert_eq!(look().0, before.0);
        ranges.end_cut(false);
        assert_eq!(look(), (before.0.clone(), before.1, 3, false));
        ranges.begin_cut(RANGE_MS);
        ranges.end_cut(true);
        assert_eq!(look(), (vec![2 * RANGE_MS], Some(2 * RANGE_MS), 1, false));
    }

    #[test]
    fn a_failed_cut_is_due_at_once_and_then_ever_more_seldom() {
        let ranges = ranges([1]);
        let mut attempts = Vec::new();
        for second in 0..400u64 {
            let terms = CutTerms { elapsed_ms: second * 1_000, ..TERMS };
            if !ranges.due(&terms).is_empty() {
                attempts.push(second);
                ranges.begin_cut(RANGE_MS);
                ranges.end_cut(false);
            }
        }
        let waits: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // Each wait begins when maintenance sees the failure, a second after it.
        assert_eq!(waits[..8], [1, 2, 3, 5, 9, 17, 33, 61]);
        assert!(waits[8..].iter().all(|wait| *wait == 61));
    }

    #[test]
    fn late_samples_wait_for_company_or_an_hour() {
        let late = ranges([1]);
        let terms = CutTerms { cut_until_ms: 5 * RANGE_MS, ..TERMS };
        assert!(late.due(&terms).is_empty());
        assert!(late.due(&CutTerms { elapsed_ms: LATE_WAIT_MS - 1, ..terms }).is_empty());
        assert_eq!(late.due(&CutTerms { elapsed_ms: LATE_WAIT_MS, ..terms }), [RANGE_MS]);
        assert_eq!(ranges([1, 7]).due(&terms), [RANGE_MS, 7 * RANGE_MS]);
        assert_eq!(ranges([1]).due(&CutTerms { is_idle: true, ..terms }), [RANGE_MS]);
    }
}
