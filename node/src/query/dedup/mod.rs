//! One series out of what several replicas of a scraper stored: HA pairs, at query time.
//!
//! Two Prometheus servers scrape the same targets and differ in a *replica label*. Whoever asks wants one of them, and
//! the other only where the first has a gap:
//!
//! 1. Series that are equal but for their replica labels become a group ([`Replicas::merge`]). Within a group, members
//!    that don't overlap in time keep their chunks as they are. Of those that do, the first by labels is decoded; if it
//!    has no gap, nothing else is.
//! 2. Otherwise all are decoded and each is divided into *runs* without gaps ([`runs`]): a stale marker or a silence of
//!    more than two and a half scrapes ends a run.
//! 3. At each time one run is chosen ([`choose`]): of those that have lasted [`SETTLE_MS`], the first by labels; if there
//!    is none, the oldest. So a replica that comes back waits before it is trusted, and one that loses scrapes again and
//!    again is never preferred to one that doesn't.
//! 4. The chosen runs are joined ([`join`]). The first sample after a change keeps half a scrape's distance from the last,
//!    so that there is neither a gap nor a double; where a counter would seem to fall or to leap by the change alone, it
//!    is held back ([`counter`]).
//!
//! Samples are never altered: what comes out was written by one of the replicas. What is chosen at a time depends on
//! the samples of the ten minutes before and five after alone ([`Replicas::widen`]), not on the range asked for (but for
//! counters that don't belong together, and scrapes more than two minutes apart), and never on the order of members.

mod choose;
mod counter;
mod join;
mod runs;

use std::ops::RangeInclusive;

use parking_lot::Mutex;
use promql::Workers;
use tsdb::Result;
use tsdb::chunk::Columns;
use tsdb::model::{Labels, Sample, is_stale};
use tsdb::select::{Chunk, Series};

/// How long a replica has to be without a gap before it is preferred to one that is, and how long a counter is held back
/// that contradicts the last sample, in milliseconds: the time that an instant selector looks back.
const SETTLE_MS: i64 = 5 * 60_000;

/// Series that one task merges.
const SERIES_PER_TASK: usize = 64;

/// Labels by which replicas of a scraper differ. Without any, everything stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Sorted.
    names: Vec<String>,
}

impl Replicas {
    /// From label names, in any order.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<_> = names.into_iter().filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        Self { names }
    }

    /// Whether nothing is to be merged.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether `name` is one of the labels.
    pub fn contains(&self, name: &str) -> bool {
        self.names.binary_search_by(|own| own.as_str().cmp(name)).is_ok()
    }

    /// Labels without those of replicas.
    pub fn strip(&self, labels: &Labels) -> Labels {
        if self.names.iter().all(|name| labels.get(name).is_none()) {
            return labels.clone();
        }
        labels.filtered(|name| !self.contains(name))
    }

    /// The range to fetch (milliseconds, both ends included) for a choice within `range_ms` that doesn't depend on where
    /// the range begins and ends.
    pub fn widen(&self, range_ms: &RangeInclusive<i64>) -> RangeInclusive<i64> {
        if self.is_empty() {
            return range_ms.clone();
        }
        range_ms.start().saturating_sub(2 * SETTLE_MS)..=range_ms.end().saturating_add(SETTLE_MS)
    }

    /// Merges series that differ in replica labels alone; `range_ms` is the range that was fetched, `now_ms` the wall
    /// clock: replicas that are silent in the range up to [`SETTLE_MS`] before it aren't just late. By labels, one series for
    /// each set of the other labels.
    ///
    /// # Errors
    /// [`tsdb::Error::Corrupt`] when a chunk that has to be decoded is damaged.
    pub fn merge(
        &self,
        series: Vec<Series>,
        range_ms: &RangeInclusive<i64>,
        now_ms: i64,
        workers: &dyn Workers,
    ) -> Result<Vec<Series>> {
        if self.is_empty() {
            return Ok(series);
        }
        let fetched = Fetched {
            range_ms: range_ms.clone(),
            complete_ms: now_ms.saturating_sub(SETTLE_MS).min(*range_ms.end()),
        };
        let mut stripped: Vec<_> = series.into_iter().map(|s| (self.strip(&s.labels), s)).collect();
        stripped
            .sort_by(|(a, whole_a), (b, whole_b)| a.cmp(b).then_with(|| whole_a.labels.cmp(&whole_b.labels)));
        let mut tasks: Vec<Task> = vec![Task::default()];
        for (labels, member) in stripped {
            let task = tasks.last_mut().expect("there is always a task");
            if let Some(group) = task.groups.last_mut().filter(|group| group.labels == labels) {
                group.members.push(member);
            } else if task.groups.len() < SERIES_PER_TASK {
                task.groups.push(Group { labels, members: vec![member] });
            } else {
                let groups = vec![Group { labels, members: vec![member] }];
                tasks.push(Task { groups, ..Task::default() });
            }
        }
        let tasks: Vec<_> = tasks.into_iter().map(Mutex::new).collect();
        workers.run(tasks.len(), &|i| tasks[i].lock().run(&fetched));
        let mut merged = Vec::new();
        for task in tasks {
            merged.extend(task.into_inner().merged?);
        }
        Ok(merged)
    }
}

/// What there is to choose from.
struct Fetched {
    range_ms: RangeInclusive<i64>,
    /// Up to here, nothing more is expected.
    complete_ms: i64,
}

/// Some groups, and what comes of them.
struct Task {
    groups: Vec<Group>,
    merged: Result<Vec<Series>>,
}

impl Default for Task {
    fn default() -> Self {
        Self { groups: Vec::new(), merged: Ok(Vec::new()) }
    }
}

impl Task {
    fn run(&mut self, fetched: &Fetched) {
        let mut columns = Columns::default();
        let groups = std::mem::take(&mut self.groups);
        self.merged = groups.into_iter().map(|group| group.merge(fetched, &mut columns)).collect();
    }
}

/// Series that are equal but for their replica labels.
struct Group {
    /// Without replica labels.
    labels: Labels,
    /// By their own labels: the first is the one to prefer.
    members: Vec<Series>,
}

impl Group {
    fn merge(mut self, fetched: &Fetched, columns: &mut Columns) -> Result<Series> {
        for member in &mut self.members {
            member.chunks.retain(|chunk| chunk.overlaps(&fetched.range_ms));
        }
        self.members.retain(|member| !member.chunks.is_empty());
        let mut merged =
            Series { labels: self.labels, chunks: Vec::new(), deleted_ms: Vec::new(), newest: None };
        for mut cluster in clusters(self.members) {
            if cluster.len() == 1 || is_steady(&cluster, fetched, columns)? {
                let only = cluster.swap_remove(0);
                let (start_ms, end_ms) = extent(&only);
                merged.deleted_ms.extend(only.deleted_ms.iter().filter_map(|deleted| {
                    // Other members' samples aren't concerned.
                    let inside = *deleted.start().max(&start_ms)..=*deleted.end().min(&end_ms);
                    (!inside.is_empty()).then_some(inside)
                }));
                merged.chunks.extend(only.chunks);
            } else {
                let counter = counter::is_counter(&merged.labels);
                merged.chunks.extend(choose_and_join(&cluster, fetched, counter)?);
            }
        }
        merged.chunks.sort_by_key(|chunk| (chunk.min_ms, chunk.max_ms));
        Ok(merged)
    }
}

/// First and last time of a series that has chunks.
fn extent(series: &Series) -> (i64, i64) {
    let start_ms = series.chunks.iter().map(|chunk| chunk.min_ms).min().unwrap_or(i64::MAX);
    (start_ms, series.chunks.iter().map(|chunk| chunk.max_ms).max().unwrap_or(i64::MIN))
}

/// Members divided so that those of different clusters don't overlap in time; the order within a cluster stays.
fn clusters(members: Vec<Series>) -> Vec<Vec<Series>> {
    let mut by_time: Vec<_> =
        members.into_iter().enumerate().map(|(rank, s)| (extent(&s), rank, s)).collect();
    by_time.sort_by_key(|(extent, rank, _)| (*extent, *rank));
    let mut clusters: Vec<(i64, Vec<(usize, Series)>)> = Vec::new();
    for ((start_ms, end_ms), rank, series) in by_time {
        match clusters.last_mut() {
            Some((until_ms, cluster)) if start_ms <= *until_ms => {
                *until_ms = end_ms.max(*until_ms);
                cluster.push((rank, series));
            }
            _ => clusters.push((end_ms, vec![(rank, series)])),
        }
    }
    let ranked = |mut cluster: Vec<(usize, Series)>| {
        cluster.sort_by_key(|(rank, _)| *rank);
        cluster.into_iter().map(|(_, series)| series).collect()
    };
    clusters.into_iter().map(|(_, cluster)| ranked(cluster)).collect()
}

/// Whether the first member has no gap, from the time that any member has samples until the time that any has: the
/// common case, in which it is chosen all along. Decides as the long way would, and needs one member's samples.
fn is_steady(cluster: &[Series], fetched: &Fetched, columns: &mut Columns) -> Result<bool> {
    let Fetched { range_ms, complete_ms } = fetched;
    cluster[0].decode(range_ms.clone(), columns)?;
    let times = &columns.timestamps;
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(false) };
    if times.len() < 2 || columns.values.iter().any(|value| is_stale(*value)) {
        return Ok(false);
    }
    let steps = || times.windows(2).map(|pair| pair[1] - pair[0]);
    let (shortest, longest) = (steps().min().unwrap_or(0), steps().max().unwrap_or(0));
    let patience_ms = runs::patience_ms(shortest);
    let (start_ms, end_ms) = cluster[1..]
        .iter()
        .map(extent)
        .fold((*first, *last), |(start, end), (s, e)| (start.min(s), end.max(e)));
    let begins_with_all = *first <= start_ms.max(*range_ms.start()).saturating_add(patience_ms);
    let late_ms = if last.saturating_add(patience_ms) < *complete_ms { 0 } else { patience_ms };
    let ends_with_all = end_ms.min(*range_ms.end()) <= last.saturating_add(late_ms);
    Ok(longest <= patience_ms && begins_with_all && ends_with_all)
}

/// The long way: decodes all members, chooses, and encodes where one follows another.
fn choose_and_join(cluster: &[Series], fetched: &Fetched, counter: bool) -> Result<Vec<Chunk>> {
    let mut replicas = Vec::with_capacity(cluster.len());
    for series in cluster {
        let mut samples = series.samples_as_sent()?;
        samples.retain(|sample| fetched.range_ms.contains(&sample.timestamp_ms));
        replicas.push(samples);
    }
    let newest_ms = replicas.iter().filter_map(|samples| Some(samples.last()?.timestamp_ms)).max();
    let seen_ms = newest_ms.unwrap_or(i64::MIN).max(fetched.complete_ms);
    let runs: Vec<_> = replicas.iter().map(|samples| runs::runs(samples, seen_ms)).collect();
    let spells = choose::choose(&runs);
    let pieces = join::join(&replicas, &runs, &spells, counter);
    Ok(pieces
        .iter()
        .flat_map(|piece| chunks_of(piece, &cluster[piece.replica], &replicas[piece.replica]))
        .collect())
}

/// The chunks of some samples in a row: the series' own where they lie within, new ones for the rest. The first
/// sample's own chunk is never one of them.
fn chunks_of(piece: &join::Piece, series: &Series, samples: &[Sample]) -> Vec<Chunk> {
    let samples = &samples[piece.samples.clone()];
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Vec::new() };
    let mut own: Vec<_> = series.chunks.iter().collect();
    own.sort_by_key(|chunk| chunk.min_ms);
    let is_apart = own.windows(2).all(|pair| pair[0].max_ms < pair[1].min_ms) && series.deleted_ms.is_empty();
    own.retain(|chunk| is_apart && chunk.min_ms > first.timestamp_ms && chunk.max_ms <= last.timestamp_ms);
    let mut chunks = Vec::new();
    let mut rest = samples;
    for chunk in own {
        let (before, from) = rest.split_at(rest.partition_point(|s| s.timestamp_ms < chunk.min_ms));
        chunks.extend(tsdb::chunk::encode(before));
        chunks.push(chunk.clone());
        rest = &from[from.partition_point(|s| s.timestamp_ms <= chunk.max_ms)..];
    }
    chunks.extend(tsdb::chunk::encode(rest));
    chunks
}

#[cfg(test)]
mod tests;
