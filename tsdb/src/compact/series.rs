//! The chunks of one series from several blocks: copied where they can be, merged where they must.

use std::ops::RangeInclusive;

use crate::Result;
use crate::block::writer::FilesWriter;
use crate::block::{Block, ChunkMeta};
use crate::chunk::encode;
use crate::model::Labels;
use crate::select::{Chunk, Series};

/// Chunks gathered for one series; reused from series to series.
#[derive(Default)]
pub(super) struct Gathered<'a> {
    chunks: Vec<Part<'a>>,
    written: Vec<ChunkMeta>,
}

struct Part<'a> {
    block: &'a Block,
    id: u32,
    meta: ChunkMeta,
    /// Whether some of its samples are deleted.
    touched: bool,
}

impl<'a> Gathered<'a> {
    /// Forgets the series before.
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
    }

    /// Adds the chunks that a block has of the series, which it calls `id`; wholly deleted ones are left out.
    pub(super) fn add(&mut self, block: &'a Block, id: u32, chunks: &[ChunkMeta]) {
        let deleted = block.tombstones().of(u64::from(id));
        for &meta in chunks {
            let touched =
                deleted.iter().any(|range| meta.min_ms <= *range.end() && meta.max_ms >= *range.start());
            let whole =
                deleted.iter().any(|range| *range.start() <= meta.min_ms && meta.max_ms <= *range.end());
            if !whole {
                self.chunks.push(Part { block, id, meta, touched });
            }
        }
    }

    /// Writes what is left of the chunks in order of time; says where they went. Nothing for a series that is gone.
    pub(super) fn write(&mut self, output: &mut FilesWriter) -> Result<&[ChunkMeta]> {
        self.written.clear();
        self.chunks.sort_by_key(|part| (part.meta.min_ms, part.meta.max_ms));
        let mut begun = false;
        let mut rest = self.chunks.as_slice();
        while !rest.is_empty() {
            let (together, later) = rest.split_at(overlapping(rest));
            rest = later;
            if let Some(copied) = same_bytes(together)? {
                begin(output, &mut begun);
                let raw = copied.block.parts().chunks.raw(copied.meta.reference)?;
                self.written.push(output.write_raw(copied.meta.min_ms, copied.meta.max_ms, &raw)?);
                continue;
            }
            for chunk in merged(together)? {
                begin(output, &mut begun);
                self.written.push(output.write_chunk(&chunk)?);
            }
        }
        Ok(&self.written)
    }
}

/// Counts the series once it has a chunk.
fn begin(output: &mut FilesWriter, begun: &mut bool) {
    if !std::mem::replace(begun, true) {
        output.begin_series();
    }
}

/// How many chunks from the front hang together by overlaps: at least one.
fn overlapping(parts: &[Part<'_>]) -> usize {
    let mut end_ms = i64::MIN;
    let apart = parts.iter().skip(1).zip(parts).position(|(next, before)| {
        end_ms = end_ms.max(before.meta.max_ms);
        next.meta.min_ms > end_ms
    });
    apart.map_or(parts.len(), |at| at + 1)
}

/// The chunk to copy, where all are the same bytes (replicas cut alike) and none lost samples.
fn same_bytes<'p, 'a>(parts: &'p [Part<'a>]) -> Result<Option<&'p Part<'a>>> {
    let Some((first, others)) = parts.split_first() else { return Ok(None) };
    if parts.iter().any(|part| part.touched) {
        return Ok(None);
    }
    for other in others {
        if (other.meta.min_ms, other.meta.max_ms) != (first.meta.min_ms, first.meta.max_ms) {
            return Ok(None);
        }
        let of = |part: &Part<'a>| part.block.parts().chunks.raw(part.meta.reference).map(|raw| raw.whole);
        if of(first)? != of(other)? {
            return Ok(None);
        }
    }
    Ok(Some(first))
}

/// Decodes chunks into one run of samples, and encodes it.
fn merged(parts: &[Part<'_>]) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::with_capacity(parts.len());
    for part in parts {
        let stored = part.block.parts().chunks.get(part.meta.reference)?;
        let ChunkMeta { min_ms, max_ms, .. } = part.meta;
        let chunk = Chunk { min_ms, max_ms, encoding: stored.encoding, data: stored.data };
        if part.touched {
            let deleted = part.block.tombstones().of(u64::from(part.id));
            chunks.extend(without(chunk, deleted)?);
        } else {
            chunks.push(chunk);
        }
    }
    chunks.sort_by_key(|chunk| chunk.min_ms);
    let [_] = &chunks[..] else {
        return Ok(encode(
            &Series { labels: Labels::default(), chunks, deleted_ms: Vec::new(), newest: None }
                .samples_as_sent()?,
        ));
    };
    Ok(chunks)
}

/// The chunk without deleted samples.
fn without(chunk: Chunk, deleted: &[RangeInclusive<i64>]) -> Result<Vec<Chunk>> {
    let series =
        Series { labels: Labels::default(), chunks: vec![chunk], deleted_ms: deleted.to_vec(), newest: None };
    Ok(encode(&series.samples_as_sent()?))
}
