//! Reads all of a block and says what is wrong with it.
//!
//! Steps: every series (checksum, labels sorted, in label order, chunks in order), every chunk (checksum, decodes,
//! times ascending and those that the index says), every list of postings (checksum, and each id's series has the
//! pair; as many entries as the series have labels), then the totals against `meta.json`.

use std::ops::RangeInclusive;

use super::reader::{Block, Parts};
use super::{BlockStats, ChunkMeta};
use crate::Result;
use crate::chunk::Decoder;
use crate::index::postings::PostingsSource;
use crate::index::reader::{SeriesEntry, SymbolCache};
use crate::model::Labels;

/// Problems described; further ones are counted.
const PROBLEMS_MAX: usize = 100;

/// What a block holds, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Counted by reading everything that can be read.
    pub stats: BlockStats,
    /// Chunks that begin before the one before them ends: legal, and merged by the next compaction.
    pub overlapping_chunks: u64,
    /// Timestamps of the first and the last sample, in milliseconds; `None` when no sample was read.
    pub range_ms: Option<RangeInclusive<i64>>,
    /// What is wrong, the first 100 findings.
    pub problems: Vec<String>,
    /// How many findings there are.
    pub problem_count: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, text: impl FnOnce() -> String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text());
        }
    }

    fn check<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.problem(|| error.to_string())).ok()
    }
}

impl Block {
    /// Reads all of the block. Findings are in the report; reading takes little memory, whatever the block's size.
    pub fn verify(&self) -> Report {
        let parts = self.parts();
        let mut report = Report::default();
        report.stats.num_tombstones = parts.tombstones.len() as u64;
        let Some(ids) = report.check(parts.index.all()) else { return report };
        let mut entry = SeriesEntry::default();
        let mut cache = SymbolCache::new();
        let mut previous: Option<Labels> = None;
        let mut labels_total = 0;
        for id in &ids {
            if report.check(parts.index.series(id, &mut entry)).is_none() {
                continue;
            }
            report.stats.num_series += 1;
            labels_total += entry.labels.len() as u64;
            let Some(labels) = report.check(parts.index.labels(&entry, &mut cache)) else { continue };
            if previous.as_ref().is_some_and(|previous| *previous >= labels) {
                report.problem(|| format!("series {labels} isn't in label order"));
            }
            verify_chunks(parts, &labels, &entry.chunks, &mut report);
            previous = Some(labels);
        }
        verify_postings(parts, &ids, labels_total, &mut report);
        verify_meta(parts, &mut report);
        report
    }
}

fn verify_chunks(parts: &Parts, labels: &Labels, chunks: &[ChunkMeta], report: &mut Report) {
    if chunks.is_empty() {
        report.problem(|| format!("series {labels} has no chunks"));
    }
    let mut end_ms = None;
    for chunk in chunks {
        report.stats.num_chunks += 1;
        if end_ms.is_some_and(|end| chunk.min_ms <= end) {
            report.overlapping_chunks += 1;
        }
        end_ms = end_ms.max(Some(chunk.max_ms));
        let Some(stored) = report.check(parts.chunks.get(chunk.reference)) else { continue };
        let mut range: Option<RangeInclusive<i64>> = None;
        let mut count = 0;
        let Some(decoder) = report.check(Decoder::new(stored.encoding, &stored.data)) else { continue };
        for sample in decoder {
            let Some(sample) = report.check(sample) else { break };
            let at = sample.timestamp_ms;
            if range.as_ref().is_some_and(|range| at <= *range.end()) {
                report.problem(|| format!("a chunk of {labels} isn't in order of time at {at}"));
            }
            range = Some(range.map_or(at, |range| *range.start())..=at);
            count += 1;
        }
        report.stats.num_samples += count;
        *report.stats.counter(stored.encoding) += count;
        if let Some(range) = range {
            if range != (chunk.min_ms..=chunk.max_ms) {
                report.problem(|| {
                    format!(
                        "a chunk of {labels} holds {range:?}, its index says {}..={}",
                        chunk.min_ms, chunk.max_ms
                    )
                });
            }
            report.range_ms = Some(match report.range_ms.take() {
                Some(all) => *all.start().min(range.start())..=*all.end().max(range.end()),
                None => range,
            });
        }
    }
}

fn verify_postings(parts: &Parts, ids: &roaring::RoaringBitmap, labels_total: u64, report: &mut Report) {
    let index = &parts.index;
    let mut listed = 0;
    let mut entry = SeriesEntry::default();
    let mut cache = SymbolCache::new();
    for name in index.names() {
        let visited = index.for_each_value(name, "", |value, offset| {
            let Some(list) = report.check(index.list_at(offset)) else { return Ok(()) };
            listed += list.iter().len() as u64;
            for id in list.iter() {
                if !ids.contains(id) {
                    report.problem(|| {
                        format!("postings of {name}={value:?} list series {id}, which doesn't exist")
                    });
                    continue;
                }
                // A damaged series has been reported.
                if index.series(id, &mut entry).is_err() {
                    continue;
                }
                let has = entry.labels.iter().any(|&(n, v)| {
                    cache.get(index.symbols(), n).is_ok_and(|n| n == name)
                        && cache.get(index.symbols(), v).is_ok_and(|v| v == value)
                });
                if !has {
                    report
                        .problem(|| format!("postings of {name}={value:?} list series {id}, which lacks it"));
                }
            }
            Ok(())
        });
        report.check(visited);
    }
    if listed != labels_total {
        report.problem(|| format!("postings have {listed} entries, series have {labels_total} labels"));
    }
}

fn verify_meta(parts: &Parts, report: &mut Report) {
    let (said, found) = (&parts.meta.stats, report.stats.clone());
    let totals = [
        ("samples", said.num_samples, found.num_samples),
        ("series", said.num_series, found.num_series),
        ("chunks", said.num_chunks, found.num_chunks),
    ];
    for (what, said, found) in totals {
        if said != found {
            report.problem(|| format!("meta.json says {said} {what}, there are {found}"));
        }
    }
    let (from, to) = (parts.meta.min_ms, parts.meta.max_ms);
    if let Some(range) = report.range_ms.clone()
        && (*range.start() < from || *range.end() >= to)
    {
        report.problem(|| format!("samples are from {range:?}, meta.json says from {from} to below {to}"));
    }
}
