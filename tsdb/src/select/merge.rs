//! Several answers to one question into one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Chunk, Series};
use crate::Result;
use crate::chunk::encode;

/// Unites answers of several sources, each sorted by labels: sorted by labels, chunks of equal labels side by side.
/// A source's deletions concern its own chunks alone: where they would hide another source's samples, they are carried
/// out.
///
/// # Errors
/// [`crate::Error::Corrupt`] when a chunk that had to be decoded for that is damaged.
pub fn merge_series(sources: Vec<Vec<Series>>) -> Result<Vec<Series>> {
    let mut sources: Vec<_> = sources.into_iter().filter(|source| !source.is_empty()).collect();
    if sources.len() <= 1 {
        return Ok(sources.pop().unwrap_or_default());
    }
    let mut merged: Vec<Series> = Vec::with_capacity(sources.iter().map(Vec::len).max().unwrap_or(0));
    let mut sources: Vec<_> = sources.into_iter().map(|source| source.into_iter().peekable()).collect();
    let mut heads: BinaryHeap<_> = sources
        .iter_mut()
        .enumerate()
        .filter_map(|(i, source)| Some(Reverse((source.peek()?.labels.clone(), i))))
        .collect();
    let mut same: Vec<Series> = Vec::new();
    while let Some(Reverse((_, i))) = heads.pop() {
        let Some(series) = sources[i].next() else { continue };
        if same.first().is_some_and(|first| first.labels != series.labels) {
            merged.extend(unite(&mut same)?);
        }
        same.push(series);
        if let Some(next) = sources[i].peek() {
            heads.push(Reverse((next.labels.clone(), i)));
        }
    }
    merged.extend(unite(&mut same)?);
    Ok(merged)
}

/// Empties `parts`, which have equal labels, into one series.
fn unite(parts: &mut Vec<Series>) -> Result<Option<Series>> {
    if parts.len() <= 1 {
        return Ok(parts.pop());
    }
    for i in 0..parts.len() {
        let hides_others = parts[i].deleted_ms.iter().any(|range| {
            parts
                .iter()
                .enumerate()
                .any(|(j, other)| j != i && other.chunks.iter().any(|c| c.overlaps(range)))
        });
        if hides_others {
            parts[i] = without_deleted(&parts[i])?;
        }
    }
    Ok(parts.drain(..).reduce(|mut whole, part| {
        whole.chunks.extend(part.chunks);
        whole.chunks.sort_by_key(|chunk| chunk.min_ms);
        whole.deleted_ms.extend(part.deleted_ms);
        whole
    }))
}

/// The same samples, with deletions carried out in the chunks that they touch.
fn without_deleted(series: &Series) -> Result<Series> {
    let (touched, mut chunks): (Vec<Chunk>, Vec<Chunk>) = series
        .chunks
        .iter()
        .cloned()
        .partition(|chunk| series.deleted_ms.iter().any(|range| chunk.overlaps(range)));
    for chunk in touched {
        let part = Series { chunks: vec![chunk], ..series.clone() };
        chunks.extend(encode(&part.samples_as_sent()?));
    }
    chunks.sort_by_key(|chunk| chunk.min_ms);
    Ok(Series { labels: series.labels.clone(), chunks, deleted_ms: Vec::new(), newest: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Labels, Sample};

    fn series(name: &str, samples: &[(i64, f64)]) -> Series {
        let samples: Vec<_> = samples.iter().map(|(t, v)| Sample::float(*t, *v)).collect();
        Series::from_samples(Labels::from_sorted([("__name__", name)]), &samples)
    }

    fn shown(merged: &[Series]) -> Vec<(&str, Vec<i64>)> {
        merged
            .iter()
            .map(|s| (s.labels.metric_name(), s.samples().unwrap().iter().map(|s| s.timestamp_ms).collect()))
            .collect()
    }

    #[test]
    fn sources_are_united_by_labels() {
        let merged = merge_series(vec![
            vec![series("b", &[(5, 1.0)]), series("d", &[(1, 1.0)])],
            vec![],
            vec![series("a", &[(1, 1.0)]), series("b", &[(2, 1.0)])],
            vec![series("b", &[(5, 1.0), (9, 2.0)])],
        ])
        .unwrap();
        assert_eq!(shown(&merged), [("a", vec![1]), ("b", vec![2, 5, 9]), ("d", vec![1])]);
        assert!(merged[1].chunks.is_sorted_by_key(|chunk| chunk.min_ms));
    }

    #[test]
    fn a_deletion_concerns_its_own_source() {
        let mut old = series("a", &[(1, 1.0), (2, 1.0), (3, 1.0)]);
        old.deleted_ms.push(2..=5);
        let merged = merge_series(vec![vec![old.clone()], vec![series("a", &[(3, 7.0), (4, 7.0)])]]).unwrap();
        assert_eq!(shown(&merged), [("a", vec![1, 3, 4])]);
        let apart = merge_series(vec![vec![old], vec![series("a", &[(10, 7.0)])]]).unwrap();
        assert_eq!(shown(&apart), [("a", vec![1, 10])]);
        assert_eq!(apart[0].deleted_ms, [2..=5], "nothing is encoded anew where nothing else is hidden");
    }
}
