//! Which replica's run is taken at which time.

use std::collections::BTreeSet;

use super::SETTLE_MS;
use super::runs::{Run, patience_ms};

/// A time in which one run is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spell {
    pub replica: usize,
    /// Index of the replica's run.
    pub run: usize,
    /// In milliseconds, both ends included.
    pub from_ms: i64,
    pub to_ms: i64,
}

/// Chooses a run for each time at which there is one; ascending. `replicas` are in order of preference, each with its
/// runs, ascending.
pub(super) fn choose(replicas: &[Vec<Run>]) -> Vec<Spell> {
    let mut changes = BTreeSet::new();
    for run in replicas.iter().flatten() {
        changes.insert(run.begin_ms);
        changes.insert(run.begin_ms.saturating_add(SETTLE_MS).min(run.until_ms));
        if run.until_ms < i64::MAX {
            changes.insert(run.until_ms + 1);
        }
    }
    let changes: Vec<_> = changes.into_iter().collect();
    let mut next = vec![0; replicas.len()];
    let mut spells: Vec<Spell> = Vec::new();
    for (i, &from_ms) in changes.iter().enumerate() {
        let to_ms = changes.get(i + 1).map_or(i64::MAX, |change| change - 1);
        for (next, runs) in next.iter_mut().zip(replicas) {
            while runs.get(*next).is_some_and(|run| run.until_ms < from_ms) {
                *next += 1;
            }
        }
        let current = || {
            let current = replicas.iter().zip(&next).enumerate();
            current.filter_map(|(replica, (runs, next))| Some((replica, *next, runs.get(*next)?)))
        };
        let oldest_ms = current().map(|(_, _, run)| run.begin_ms).min().unwrap_or(i64::MAX);
        if oldest_ms > from_ms {
            continue;
        }
        let settled_ms = from_ms.saturating_sub(SETTLE_MS);
        // Replicas that begin within the same scrapes, as after a restart of their target, are equally old.
        let equal_ms = |run: &Run| oldest_ms.saturating_add(patience_ms(run.interval_ms));
        let Some((replica, run, _)) =
            current().find(|(_, _, run)| run.begin_ms <= settled_ms.max(equal_ms(run)))
        else {
            continue;
        };
        match spells.last_mut() {
            Some(last) if (last.replica, last.run) == (replica, run) && last.to_ms + 1 == from_ms => {
                last.to_ms = to_ms;
            }
            _ => spells.push(Spell { replica, run, from_ms, to_ms }),
        }
    }
    spells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(begin_s: i64, until_s: i64) -> Run {
        let until_ms = if until_s == 0 { i64::MAX } else { until_s * 1000 };
        Run { samples: 0..1, begin_ms: begin_s * 1000, until_ms, interval_ms: 15_000 }
    }

    fn chosen(replicas: &[Vec<Run>]) -> Vec<(usize, i64)> {
        choose(replicas).iter().map(|spell| (spell.replica, spell.from_ms / 1000)).collect()
    }

    #[test]
    fn the_first_is_preferred_and_waits_after_a_gap() {
        let paused = [vec![run(0, 600), run(900, 0)], vec![run(7, 0)]];
        assert_eq!(chosen(&paused), [(0, 0), (1, 600), (0, 1200)]);
    }

    #[test]
    fn one_that_is_lost_again_and_again_is_never_preferred() {
        let gappy: Vec<_> = (0..20).map(|i| run(i * 120, i * 120 + 60)).collect();
        assert_eq!(chosen(&[gappy, vec![run(50, 0)]]), [(0, 0), (1, 60)]);
    }

    #[test]
    fn nothing_is_chosen_where_nothing_is() {
        let spells = choose(&[vec![run(0, 60), run(600, 660)]]);
        let times: Vec<_> = spells.iter().map(|s| (s.from_ms / 1000, s.to_ms / 1000)).collect();
        assert_eq!(times, [(0, 60), (600, 660)]);
    }

    #[test]
    fn the_first_is_taken_where_both_begin_within_the_same_scrapes() {
        assert_eq!(chosen(&[vec![run(20, 0)], vec![run(10, 0)]]), [(0, 10)]);
        assert_eq!(chosen(&[vec![run(60, 0)], vec![run(10, 0)]]), [(1, 10), (0, 360)]);
    }
}
