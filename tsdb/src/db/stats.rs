//! Numbers for metrics and status pages.

use std::sync::atomic::Ordering;

use super::{Db, Tenant};
use crate::model::METRIC_NAME;
use crate::wal::WalStats;

/// How the engine stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DbStats {
    /// Tenants known.
    pub tenants: usize,
    /// Series in the head.
    pub series: u64,
    /// Bytes of series, open chunks and what belongs to them.
    pub series_bytes: u64,
    /// Bytes of interned labels.
    pub label_bytes: u64,
    /// Distinct strings in labels, by shard.
    pub symbols: u64,
    /// Bytes of the tables that find series by key.
    pub key_bytes: u64,
    /// Head-chunk files.
    pub head_chunk_files: usize,
    /// The write-ahead log.
    pub wal: WalStats,
}

/// How a tenant stands. Counts of samples are since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantStats {
    /// Series in the head.
    pub series: u64,
    /// Label pairs in the head.
    pub label_pairs: u64,
    /// Oldest range with samples in the head: its start, in milliseconds.
    pub head_min_ms: Option<i64>,
    /// Newest sample, in milliseconds.
    pub newest_ms: Option<i64>,
    /// Samples before this are in blocks, in milliseconds.
    pub cut_until_ms: Option<i64>,
    /// Samples in the head, about.
    pub head_samples: u64,
    /// Samples taken.
    pub stored: u64,
    /// Samples that were there already.
    pub duplicate: u64,
    /// Samples that another value at the same time is preferred to.
    pub superseded: u64,
    /// Samples refused.
    pub refused: u64,
    /// Series made.
    pub created: u64,
    /// Series collected.
    pub collected: u64,
    /// Local blocks.
    pub blocks: usize,
    /// Samples in them.
    pub block_samples: u64,
    /// Where they begin, in milliseconds.
    pub blocks_min_ms: Option<i64>,
    /// Where they end, in milliseconds; not included.
    pub blocks_max_ms: Option<i64>,
}

/// The labels that cost most: what `status/tsdb` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Series by metric name, most first.
    pub series_by_metric: Vec<(String, u64)>,
    /// Values by label name, most first.
    pub values_by_label: Vec<(String, u64)>,
    /// Bytes of values by label name, most first.
    pub bytes_by_label: Vec<(String, u64)>,
    /// Series by `name=value`, most first.
    pub series_by_pair: Vec<(String, u64)>,
}

impl Db {
    /// How the engine stands. Walks all series, a shard at a time.
    pub fn stats(&self) -> DbStats {
        let mut stats = DbStats {
            tenants: self.tenants.read().by_index.len(),
            key_bytes: self.core.keys.heap_bytes() as u64,
            wal: self.core.wal.stats(),
            ..DbStats::default()
        };
        for shard in &self.core.shards {
            let shard = shard.read();
            let (files, tail_bytes) = shard.chunks.usage();
            stats.series += shard.slots.len() as u64;
            let heap: usize = shard.slots.iter().map(|(_, series)| series.heap_bytes()).sum();
            stats.series_bytes += (heap + shard.slots.heap_bytes() + tail_bytes) as u64;
            stats.label_bytes += shard.labels.heap_bytes() as u64;
            stats.symbols += shard.labels.symbol_count() as u64;
            stats.head_chunk_files += files;
        }
        stats
    }
}

impl Tenant {
    /// How the tenant stands.
    pub fn stats(&self) -> TenantStats {
        let known = |ms: i64| (ms != i64::MIN).then_some(ms);
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let blocks = self.blocks.load();
        let (series, label_pairs) = {
            let postings = self.postings.read();
            let pairs = postings.names().map(|name| postings.values(name).count() as u64).sum();
            (postings.ids().len(), pairs)
        };
        TenantStats {
            series,
            label_pairs,
            head_min_ms: self.ranges.oldest_ms(),
            newest_ms: known(self.newest_ms.load(Ordering::Acquire)),
            cut_until_ms: known(self.cut_until_ms.load(Ordering::Acquire)),
            head_samples: self.ranges.samples(),
            stored: count(&self.counters.stored),
            duplicate: count(&self.counters.duplicate),
            superseded: count(&self.counters.superseded),
            refused: count(&self.counters.refused),
            created: count(&self.counters.created),
            collected: count(&self.counters.collected),
            blocks: blocks.len(),
            block_samples: blocks.iter().map(|block| block.meta().stats.num_samples).sum(),
            blocks_min_ms: blocks.iter().map(|block| block.meta().min_ms).min(),
            blocks_max_ms: blocks.iter().map(|block| block.meta().max_ms).max(),
        }
    }

    /// The labels of the head that cost most, at most `limit` of each kind. Walks all postings.
    pub fn cardinality(&self, limit: usize) -> Cardinality {
        let postings = self.postings.read();
        let of_name = |name| postings.values(name).map(move |(value, series)| (name, value, series));
        Cardinality::of(postings.names().flat_map(of_name), limit)
    }
}

impl Cardinality {
    /// Of labels, as name, value and how many series have it: those of one name after one another, no pair twice. At
    /// most `limit` of each kind are kept.
    pub fn of<'a>(pairs: impl Iterator<Item = (&'a str, &'a str, u64)>, limit: usize) -> Self {
        let mut found = Self::default();
        for (name, value, series) in pairs {
            if found.values_by_label.last().is_none_or(|(last, _)| last != name) {
                found.values_by_label.push((name.to_owned(), 0));
                found.bytes_by_label.push((name.to_owned(), 0));
            }
            let raise = |list: &mut Vec<(String, u64)>, by| list.last_mut().expect("it was pushed").1 += by;
            raise(&mut found.values_by_label, 1);
            raise(&mut found.bytes_by_label, value.len() as u64);
            if name == METRIC_NAME {
                found.series_by_metric.push((value.to_owned(), series));
            }
            found.series_by_pair.push((format!("{name}={value}"), series));
        }
        let lists = [
            &mut found.series_by_metric,
            &mut found.values_by_label,
            &mut found.bytes_by_label,
            &mut found.series_by_pair,
        ];
        for list in lists {
            list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            list.truncate(limit);
        }
        found
    }
}
