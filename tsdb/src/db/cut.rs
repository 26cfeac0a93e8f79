//! One aligned range of one tenant out of the head and into a block.
//!
//! 1. From now on, the tenant's samples before the range's end are late, so what is in order in it doesn't change.
//! 2. Shard by shard, late samples of the range are frozen, and the WAL is told that the block takes what there is.
//! 3. The block is written, series by series in order of labels, and appears under its name.
//! 4. Questions see it; then the head drops what it gave. Whoever asks in between meets samples twice and merges them.
//!
//! A crash before 3 leaves everything in the head, one after it finds the block and drops what the WAL says it took. An
//! error before 4 thaws what was frozen and removes the block, if there is one already: nothing has changed but that
//! newer samples of the range are late. The next maintenance tries again.

use std::sync::atomic::Ordering;

use parking_lot::RwLockReadGuard;
use ulid::Ulid;

use super::core::Core;
use super::log::CutMark;
use super::tenant::Tenant;
use crate::block::{Block, BlockMeta, BlockWriter};
use crate::head::SeriesRef;
use crate::head::open::encode_by_rule;
use crate::head::rule::RANGE_MS;
use crate::head::shard::{LatePart, Shard};
use crate::model::{Labels, TenantId};
use crate::select::{Chunk, Series};
use crate::wal::{Appended, Frame, RecordKind};
use crate::{Result, files};

/// The series that a cut takes from, by shard: those that were there when the shard was frozen and the WAL was told.
///
/// A replay drops what *all* series of the tenant have at the mark, so the cut has to take from just as many: the ids are
/// gathered, the late samples frozen and the mark logged under one hold of the shard's lock, here and nowhere else.
#[derive(Default)]
struct CutSeries {
    /// Ids of shard 0, 1, … as far as the cut has come.
    by_shard: Vec<Vec<u32>>,
}

impl CutSeries {
    /// Freezes the tenant's range in all shards, and marks the place in the WAL.
    ///
    /// # Errors
    /// Those of the WAL: the shards frozen so far are to be thawed.
    fn freeze(&mut self, tenant: &Tenant, mark: CutMark) -> Result<()> {
        let core = &tenant.core;
        let payload = mark.encode();
        let known = tenant.postings.read().ids().clone();
        for (index, mut ids) in tenant.by_shard(&known).into_iter().enumerate() {
            let mut shard = core.shards[index].write();
            // A series is made under this lock: none of this shard can be missing, nor come before the mark.
            let made = tenant.postings.read().ids() - &known;
            let is_here = |id: &u32| *id as usize & (core.shards.len() - 1) == index;
            if !planted::is(planted::Bug::CutTakesTooFew) {
                ids.extend(made.iter().filter(is_here));
            }
            shard.freeze(&ids, mark.start_ms);
            self.by_shard.push(ids);
            core.log_mark(&mut shard, &tenant.id, mark.start_ms, &payload)?;
        }
        Ok(())
    }

    /// The block didn't come to be.
    fn thaw(&self, tenant: &Tenant) {
        for (shard, ids) in tenant.core.shards.iter().zip(&self.by_shard) {
            shard.write().thaw(ids);
        }
    }

    /// The block is there and seen: the head drops what it gave.
    fn drop_range(&self, tenant: &Tenant, start_ms: i64) {
        for (shard, ids) in tenant.core.shards.iter().zip(&self.by_shard) {
            let mut shard = shard.write();
            if planted::is(planted::Bug::CutDropsTooMany) {
                shard.freeze(ids, start_ms);
            }
            shard.drop_range(ids, start_ms);
        }
    }
}

impl Core {
    /// Tells the WAL, under a shard's lock, that a block takes what a tenant's range has there by now.
    fn log_mark(&self, shard: &mut Shard, tenant: &TenantId, start_ms: i64, payload: &[u8]) -> Result<()> {
        let frame = Frame {
            kind: RecordKind::Shard,
            tenant,
            shard: shard.index() as u8,
            min_ms: start_ms,
            max_ms: start_ms + RANGE_MS - 1,
            payload,
        };
        match self.append_frames(None, &[frame])? {
            Appended::At(position) => shard.logged = position,
            Appended::Moved(_) => unreachable!("any segment will do"),
        }
        Ok(())
    }
}

impl Tenant {
    /// Cuts the range that begins at `start_ms` into the block `ulid`. `None`, and no block, when the range turns out
    /// to be empty. One cut of a tenant at a time.
    ///
    /// # Errors
    /// [`NoSpace`](crate::Error::NoSpace), [`Io`](crate::Error::Io): try again later;
    /// [`Corrupt`](crate::Error::Corrupt): a head chunk can't be read.
    pub(super) fn cut(&self, start_ms: i64, ulid: Ulid) -> Result<Option<BlockMeta>> {
        // What a failed cut left would be there twice after a restart.
        self.remove_discarded()?;
        self.cut_until_ms.fetch_max(start_ms + RANGE_MS, Ordering::AcqRel);
        // Before anything is read: samples that come from now on enter the range anew.
        self.ranges.begin_cut(start_ms);
        let mut series = CutSeries::default();
        let cut = self.write_block(start_ms, ulid, &mut series);
        match &cut {
            Ok(block) => {
                block.iter().for_each(|block| self.show_block(block));
                series.drop_range(self, start_ms);
            }
            Err(_) => {
                // The block may be complete, under its name, and yet fail to open or to be safe. At worst it is removed
                // by the next maintenance, before the range is cut again.
                self.discard(ulid);
                let _ = self.remove_discarded();
                series.thaw(self);
            }
        }
        self.ranges.end_cut(cut.is_ok());
        if cut.is_ok() {
            self.changed.lock().forget(start_ms..start_ms + RANGE_MS);
        }
        Ok(cut?.map(|block| block.meta().clone()))
    }

    /// Writes the block, from series that it adds to `series`, and opens it.
    fn write_block(&self, start_ms: i64, ulid: Ulid, series: &mut CutSeries) -> Result<Option<Block>> {
        series.freeze(self, CutMark { start_ms, block: ulid })?;
        // The marks must be there before the block is: a replay that finds the block looks for them.
        self.core.wal.commit()?;
        let parent = files::tenant(&self.id);
        self.core.create_dir(&parent)?;
        let meta = BlockMeta::new(ulid, start_ms, start_ms + RANGE_MS);
        let mut writer = BlockWriter::create(&self.core.disk, &parent, meta)?;
        self.write_series(start_ms, series, &mut writer)?;
        let Some(meta) = writer.finish()? else { return Ok(None) };
        Block::open(&*self.core.disk, &parent.join(meta.ulid.to_string())).map(Some)
    }

    /// Writes what the head has of a range, by labels.
    fn write_series(&self, start_ms: i64, from: &CutSeries, writer: &mut BlockWriter) -> Result<()> {
        let range_ms = start_ms..=start_ms + RANGE_MS - 1;
        let mut series: Vec<(Labels, SeriesRef)> = Vec::new();
        let mut scratch = Vec::new();
        for (index, ids) in from.by_shard.iter().enumerate() {
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
        let _gate = self.blocks_gate.write();
        self.blocks.rcu(|blocks| {
            let mut blocks = Vec::clone(blocks);
            blocks.push(block.clone());
            blocks.sort_by_key(|block| (block.meta().min_ms, block.meta().ulid));
            blocks
        });
    }

    /// Hides a block from questions.
    pub(super) fn hide_block(&self, ulid: Ulid) {
        let _gate = self.blocks_gate.write();
        self.blocks.rcu(|blocks| {
            let mut blocks = Vec::clone(blocks);
            blocks.retain(|block| block.meta().ulid != ulid);
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
