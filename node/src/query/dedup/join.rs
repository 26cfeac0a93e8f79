//! The chosen runs, one after the other.

use std::ops::Range;

use tsdb::model::Sample;

use super::SETTLE_MS;
use super::choose::Spell;
use super::counter::follower;
use super::runs::{Run, patience_ms};

/// Samples of one replica that follow each other in the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub replica: usize,
    pub samples: Range<usize>,
}

/// Joins what was chosen; ascending, no timestamp twice. Where nothing is chosen, the first stale marker that any
/// replica has there ends the series.
pub(super) fn join(
    replicas: &[Vec<Sample>],
    runs: &[Vec<Run>],
    spells: &[Spell],
    counter: bool,
) -> Vec<Piece> {
    let mut stale: Vec<_> = (0..replicas.len())
        .flat_map(|r| (0..replicas[r].len()).map(move |i| (r, i)))
        .filter(|(r, i)| replicas[*r][*i].value.is_stale())
        .map(|(r, i)| (replicas[r][i].timestamp_ms, r, i))
        .collect();
    stale.sort_unstable();
    let mut joined = Joined { replicas, runs, counter, pieces: Vec::new() };
    for (i, spell) in spells.iter().enumerate() {
        joined.take(spell);
        let next_ms = spells.get(i + 1).map_or(i64::MAX, |next| next.from_ms);
        if next_ms > spell.to_ms.saturating_add(1) {
            joined.end(&stale, next_ms);
        }
    }
    joined.pieces
}

struct Joined<'a> {
    replicas: &'a [Vec<Sample>],
    runs: &'a [Vec<Run>],
    counter: bool,
    pieces: Vec<Piece>,
}

impl Joined<'_> {
    /// Adds the samples of a spell.
    fn take(&mut self, spell: &Spell) {
        let run = &self.runs[spell.replica][spell.run];
        let samples = &self.replicas[spell.replica];
        let within = |from_ms: i64| {
            let in_run = &samples[run.samples.clone()];
            let from = in_run.partition_point(|sample| sample.timestamp_ms < from_ms);
            let to = in_run.partition_point(|sample| sample.timestamp_ms <= spell.to_ms);
            run.samples.start + from..run.samples.start + to.max(from)
        };
        let mut taken = within(spell.from_ms);
        if let Some((replica, last)) = self.last()
            && (replica != spell.replica || last.timestamp_ms >= spell.from_ms)
        {
            let (last, distance_ms) = (last.clone(), run.interval_ms / 2);
            taken = within(spell.from_ms.max(last.timestamp_ms.saturating_add(distance_ms.max(1))));
            if !taken.is_empty() && !last.value.is_stale() && replica != spell.replica {
                let patience_ms = patience_ms(run.interval_ms);
                match follower(&last, &samples[..taken.end], taken.start, patience_ms, self.counter) {
                    Some(first) => taken.start = first,
                    None => taken = self.hold(replica, &last, spell, &within),
                }
            }
        }
        self.push(spell.replica, taken);
    }

    /// Goes on with the replica that gave `last` as far as it can, since the chosen one's counter is another; returns
    /// what may follow of the chosen one.
    fn hold(
        &mut self,
        replica: usize,
        last: &Sample,
        spell: &Spell,
        within: &dyn Fn(i64) -> Range<usize>,
    ) -> Range<usize> {
        let samples = &self.replicas[replica];
        let begin = samples.partition_point(|sample| sample.timestamp_ms <= last.timestamp_ms);
        let run = self.runs[replica].iter().find(|run| run.samples.contains(&begin.saturating_sub(1)));
        let run_end = run.map_or(begin, |run| run.samples.end);
        let end = samples[..run_end].partition_point(|sample| sample.timestamp_ms <= spell.to_ms);
        self.push(replica, begin..end.max(begin));
        let last_ms = self.last().map_or(last.timestamp_ms, |(_, last)| last.timestamp_ms);
        within(last_ms.saturating_add(SETTLE_MS))
    }

    /// Ends the series with a stale marker before `next_ms`, if there is one.
    fn end(&mut self, stale: &[(i64, usize, usize)], next_ms: i64) {
        let Some((_, last)) = self.last() else { return };
        let first = stale.partition_point(|(time_ms, ..)| *time_ms <= last.timestamp_ms);
        if let Some(&(time_ms, replica, i)) = stale.get(first)
            && time_ms < next_ms
        {
            self.push(replica, i..i + 1);
        }
    }

    fn last(&self) -> Option<(usize, &Sample)> {
        let piece = self.pieces.last()?;
        Some((piece.replica, &self.replicas[piece.replica][piece.samples.end - 1]))
    }

    fn push(&mut self, replica: usize, samples: Range<usize>) {
        match self.pieces.last_mut() {
            _ if samples.is_empty() => {}
            Some(last) if last.replica == replica && last.samples.end == samples.start => {
                last.samples.end = samples.end;
            }
            _ => self.pieces.push(Piece { replica, samples }),
        }
    }
}
