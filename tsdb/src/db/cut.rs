//! One aligned range of one tenant out of the head and into a block.
//!
//! 1. From now on, the tenant's samples before the range's end are late, so what is in order in it doesn't change.
//! 2. Shard by shard, late samples of the range are frozen, and the WAL is told that the block takes what there is.
//! 3. The block is written, series by series in order of labels, and appears under its name.
//! 4. Questions see it; then the head drops what it gave. Whoever asks in between meets samples twice and merges them.
//!
//! A crash before 3 leaves everything in the head, one after it finds the block and drops what the WAL says it took. An
//! error before the end thaws what was frozen: nothing has changed but that newer samples of the range are late.

use std::sync::atomic::Ordering;

use parking_lot::RwLockReadGuard;
use roaring::RoaringBitmap;
use ulid::Ulid;

use super::log::CutMark;
use super::tenant::{RangeState, Tenant};
use crate::block::{Block, BlockMeta, BlockWriter};
use crate::head::SeriesRef;
use crate::head::open::encode_by_rule;
use crate::head::rule::RANGE_MS;
use crate::head::shard::{LatePart, Shard};
use crate::model::Labels;
use crate::select::{Chunk, Series};
use crate::wal::{Appended, Frame, RecordKind};
use crate::{Result, files};

impl Tenant {
    /// Cuts the range that begins at `start_ms` into the block `ulid`. `None`, and no block, when the range turns out
    /// to be empty. One cut of a tenant at a time.
    ///
    /// # Errors
    /// [`NoSpace`](crate::Error::NoSpace), [`Io`](crate::Error::Io): try again later;
    /// [`Corrupt`](crate::Error::Corrupt): a head chunk can't be read.
    pub(super) fn cut(&self, start_ms: i64, ulid: Ulid) -> Result<Option<BlockMeta>> {
        let end_ms = start_ms + RANGE_MS;
        self.cut_until_ms.fetch_max(end_ms, Ordering::AcqRel);
        // Before anything is read: samples that come from now on enter the range anew.
        let state = self.begin_cut(start_ms);
        let ids = self.postings.read().ids().clone();
        let by_shard = self.by_shard(&ids);
        let cut = self.cut_frozen(start_ms, ulid, &ids, &by_shard);
        if cut.is_err() {
            for (shard, ids) in self.core.shards.iter().zip(&by_shard) {
                shard.write().thaw(ids);
            }
        }
        self.end_cut(start_ms, state.filter(|_| cut.is_err()));
        cut
    }

    /// Takes a range from those that the head has; a mark waits for it until the cut has ended.
    fn begin_cut(&self, start_ms: i64) -> Option<RangeState> {
        let mut ranges = self.ranges.lock();
        let state = ranges.remove(&start_ms);
        *self.cutting.lock() = state.map(|state| (start_ms, state.marks));
        state
    }

    /// Ends a cut; `left` is the range if it came to nothing.
    fn end_cut(&self, start_ms: i64, left: Option<RangeState>) {
        let mut ranges = self.ranges.lock();
        if let Some(left) = left {
            let state = ranges.entry(start_ms).or_insert(RangeState { samples: 0, ..left });
            state.samples += left.samples;
            state.marks = state.marks.min(left.marks);
        }
        *self.cutting.lock() = None;
        drop(ranges);
        if left.is_none() {
            self.changed.lock().forget(start_ms..start_ms + RANGE_MS);
        }
    }

    /// Whether the head holds nothing that was appended before the mark of this number.
    pub(super) fn is_flushed(&self, mark: u64) -> bool {
        let ranges = self.ranges.lock();
        let cutting = self.cutting.lock().map(|(_, marks)| marks);
        ranges.values().map(|state| state.marks).chain(cutting).all(|marks| marks > mark)
    }

    fn cut_frozen(
        &self,
        start_ms: i64,
        ulid: Ulid,
        ids: &RoaringBitmap,
        by_shard: &[Vec<u32>],
    ) -> Result<Option<BlockMeta>> {
        let payload = CutMark { start_ms, block: ulid }.encode();
        for (index, ids) in by_shard.iter().enumerate() {
            let mut shard = self.core.shards[index].write();
            shard.freeze(ids, start_ms);
            let frame = Frame {
                kind: RecordKind::Shard,
                tenant: &self.id,
                shard: index as u8,
                min_ms: start_ms,
                max_ms: start_ms + RANGE_MS - 1,
                payload: &payload,
            };
            if let Appended::At(position) = self.core.wal.append(None, &[frame])? {
                shard.logged = position;
            }
        }
        // The marks must be there before the block is: a replay that finds the block looks for them.
        self.core.wal.commit()?;
        let parent = files::tenant(&self.id);
        self.core.create_dir(&parent)?;
        let meta = BlockMeta::new(ulid, start_ms, start_ms + RANGE_MS);
        let mut writer = BlockWriter::create(&self.core.disk, &parent, meta)?;
        self.write_series(start_ms, ids, &mut writer)?;
        let meta = writer.finish()?;
        if meta.is_some() {
            self.show_block(&Block::open(&*self.core.disk, &parent.join(ulid.to_string()))?);
        }
        for (shard, ids) in self.core.shards.iter().zip(by_shard) {
            shard.write().drop_range(ids, start_ms);
        }
        Ok(meta)
    }

    /// Writes what the head has of a range, by labels.
    fn write_series(&self, start_ms: i64, ids: &RoaringBitmap, writer: &mut BlockWriter) -> Result<()> {
        let range_ms = start_ms..=start_ms + RANGE_MS - 1;
        let mut series: Vec<(Labels, SeriesRef)> = Vec::new();
        let mut scratch = Vec::new();
        for (index, ids) in self.by_shard(ids).iter().enumerate() {
            let shard = self.core.shards[index].read();
            for id in ids {
                if let Some((own, found)) = shard.by_id(*id, u32::MAX)
                    && found.may_overlap(&range_ms)
                {
                    series.push((shard.labels.labels(found.labels, &mut scratch), own));
                }
            }
        }
        series.sort_unstable();
        for same in series.chunk_by(|a, b| a.0 == b.0) {
            let mut chunks = Vec::new();
            for (_, own) in same {
                let shard = self.core.shards[self.core.shard_of_ref(*own)].read();
                chunks.extend(frozen_chunks(&shard, *own, start_ms)?);
            }
            writer.add(&same[0].0, &by_rule(&same[0].0, chunks)?)?;
        }
        Ok(())
    }

    /// Makes a block visible to questions.
    pub(super) fn show_block(&self, block: &Block) {
        self.blocks.rcu(|blocks| {
            let mut blocks = Vec::clone(blocks);
            blocks.push(block.clone());
            blocks.sort_by_key(|block| (block.meta().min_ms, block.meta().ulid));
            blocks
        });
    }
}

/// What a series has in a range, late samples that came after the freeze left out.
fn frozen_chunks(shard: &RwLockReadGuard<'_, Shard>, own: SeriesRef, start_ms: i64) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    let Some(series) = shard.get(own) else { return Ok(chunks) };
    let range_ms = start_ms..=start_ms + RANGE_MS - 1;
    match shard.collect(series, &range_ms, LatePart::Frozen, &mut chunks).pop() {
        Some(error) => Err(error),
        None => Ok(chunks),
    }
}

/// The chunks that the rule makes of these: the same where none overlap, since the head follows it too.
fn by_rule(labels: &Labels, chunks: Vec<Chunk>) -> Result<Vec<Chunk>> {
    if chunks.is_sorted_by(|a, b| a.max_ms < b.min_ms) {
        return Ok(chunks);
    }
    let series = Series { labels: labels.clone(), chunks, deleted_ms: Vec::new(), newest: None };
    Ok(encode_by_rule(&series.samples_as_sent()?))
}
