//! Makes one block out of several; and one with more labels out of one ([`extend()`]).
//!
//! Steps:
//!
//! 1. Merge the symbol tables, which are sorted, into one; for each block keep what its symbols are called in the new
//!    table (`symbols`). Numbers then compare as strings do, and no label is looked at as text again.
//! 2. Walk all blocks side by side in label order and gather the chunks of each series.
//! 3. A chunk that overlaps no other and that no deletion touches is copied as its file holds it. The rest is decoded,
//!    merged (one sample a timestamp, chosen by [`crate::model::prefer`]) and encoded anew (`series`). A block's
//!    deletions concern its own samples only, and are carried out.
//!
//! Assumes that each block's series are in label order; one that isn't is refused, and the others' caller goes on
//! without it. Memory: 4 bytes a symbol and block, one series' overlapping chunks, and what the index writer takes.

mod extend;
mod series;
mod symbols;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use ulid::Ulid;

use crate::block::writer::FilesWriter;
use crate::block::{Block, BlockMeta, Compaction, Parent};
use crate::disk::Disk;
use crate::files;
use crate::index::reader::{SeriesEntry, StoredIds};
use crate::index::writer::SymbolStage;
use crate::{Error, Result};
pub use extend::extend;
use series::Gathered;
use symbols::Renumbering;

/// Most blocks merged at once.
pub const BLOCKS_MAX: usize = 256;

/// The meta of a block merged from `blocks`: range and sources of all, one level up, without fields of others.
pub fn merged_meta(ulid: Ulid, blocks: &[Block]) -> BlockMeta {
    let metas = || blocks.iter().map(Block::meta);
    let min_ms = metas().map(|m| m.min_ms).min().unwrap_or(0);
    let max_ms = metas().map(|m| m.max_ms).max().unwrap_or(0);
    let sources: BTreeSet<Ulid> = metas().flat_map(|m| m.compaction.sources.iter().copied()).collect();
    let parents = metas().map(|m| Parent { ulid: m.ulid, min_ms: m.min_ms, max_ms: m.max_ms });
    BlockMeta {
        compaction: Compaction {
            level: metas().map(|m| m.compaction.level).max().unwrap_or(0) + 1,
            sources: sources.into_iter().collect(),
            parents: parents.collect(),
            ..Compaction::default()
        },
        ..BlockMeta::new(ulid, min_ms, max_ms)
    }
}

/// Writes the block `meta` ([`merged_meta`], with the caller's fields) into the folder `parent`; it appears whole or
/// not at all, and the inputs stay as they are. `None`, and no block, when nothing is left of them.
///
/// # Errors
/// [`Error::Corrupt`] names the file of the input that is damaged; [`Error::Invalid`] when there are more than
/// [`BLOCKS_MAX`] inputs, or a chunk can't be merged because its encoding isn't known; [`Error::Limit`] when the
/// index outgrows its format; those of the disk.
pub fn merge(
    disk: &Arc<dyn Disk>,
    parent: &Path,
    meta: BlockMeta,
    blocks: &[Block],
) -> Result<Option<BlockMeta>> {
    if blocks.len() > BLOCKS_MAX {
        return Err(Error::Invalid(format!("{} blocks to merge: the limit is {BLOCKS_MAX}", blocks.len())));
    }
    let mut output = FilesWriter::create(disk, parent, meta)?;
    let (renumberings, count) = symbols::renumber(blocks)?;
    let mut stage = SymbolStage::create(disk, &output.path(files::BLOCK_INDEX), count)?;
    symbols::for_each_merged(blocks, |text, _| stage.symbol(text))?;
    let mut index = stage.finish(&output.temporary("postings"))?;

    let mut cursors = Vec::with_capacity(blocks.len());
    for (block, renumbering) in blocks.iter().zip(&renumberings) {
        cursors.extend(Cursor::start(block, renumbering)?);
    }
    let mut gathered = Gathered::default();
    let mut labels = Vec::new();
    while let Some(least) = cursors.iter().map(|cursor| &cursor.labels).min() {
        labels.clone_from(least);
        gathered.clear();
        let mut at = 0;
        while at < cursors.len() {
            let cursor = &mut cursors[at];
            if cursor.labels == labels {
                gathered.add(cursor.block, cursor.id, &cursor.entry.chunks);
                if !cursor.advance()? {
                    cursors.remove(at);
                    continue;
                }
            }
            at += 1;
        }
        let chunks = gathered.write(&mut output)?;
        if !chunks.is_empty() {
            index.series(&labels, chunks)?;
        }
    }
    if output.meta.stats.num_series == 0 {
        return Ok(None);
    }
    index.finish()?;
    output.finish().map(Some)
}

/// A block's series one after the other, its labels in the new numbers.
struct Cursor<'a> {
    block: &'a Block,
    renumbering: &'a Renumbering,
    ids: StoredIds<'a>,
    next: usize,
    id: u32,
    entry: SeriesEntry,
    labels: Vec<(u32, u32)>,
    previous: Vec<(u32, u32)>,
}

impl<'a> Cursor<'a> {
    /// At the first series; `None` when there is none.
    fn start(block: &'a Block, renumbering: &'a Renumbering) -> Result<Option<Self>> {
        let Some(ids) = block.parts().index.all_ids().map_err(|e| in_index(block, e))? else {
            return Ok(None);
        };
        let mut cursor = Self {
            block,
            renumbering,
            ids,
            next: 0,
            id: 0,
            entry: SeriesEntry::default(),
            labels: Vec::new(),
            previous: Vec::new(),
        };
        Ok(cursor.advance()?.then_some(cursor))
    }

    /// Goes to the next series; false at the end.
    fn advance(&mut self) -> Result<bool> {
        let Some(id) = self.ids.get(self.next) else { return Ok(false) };
        self.next += 1;
        self.id = id;
        let block = self.block;
        block.parts().index.series(id, &mut self.entry).map_err(|e| in_index(block, e))?;
        std::mem::swap(&mut self.labels, &mut self.previous);
        self.labels.clear();
        for &(name, value) in &self.entry.labels {
            let pair = self.renumbering.get(name).zip(self.renumbering.get(value));
            self.labels.push(pair.ok_or_else(|| self.wrong("it refers to no symbol"))?);
        }
        if !self.labels.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(self.wrong("its labels aren't sorted"));
        }
        if self.next > 1 && self.previous.cmp(&self.labels) != Ordering::Less {
            return Err(self.wrong("it isn't in label order"));
        }
        Ok(true)
    }

    fn wrong(&self, reason: &str) -> Error {
        in_index(self.block, Error::corrupt("series", 0, format!("series {}: {reason}", self.id)))
    }
}

fn in_index(block: &Block, error: Error) -> Error {
    error.in_file(block.dir().join(files::BLOCK_INDEX))
}
