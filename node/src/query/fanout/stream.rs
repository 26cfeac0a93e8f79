//! Reading one node's answer, frame by frame, into memory that is paid for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use promql::folded::FoldedGroup;
use promql::{Folded, Lender};
use prost::Message;
use proto::peer::read::{FoldFrame, NamesFrame, Sealed, SelectFrame};
use ring::StoreId;
use tonic::{Status, Streaming};
use tsdb::select::{Chunk, Series};

use super::super::Error;
use super::super::names::{Found, Question};
use super::super::own::Own;
use super::super::reach::Reach;
use super::Failure;
use crate::grpc::read::{
    DigestsAsk, FoldAsk, FoldPart, NamesAsk, NamesPart, Opening, ReadClient, SelectAsk, SelectPart,
    group_bytes, open,
};
use crate::grpc::{Lane, MESSAGE_BYTES_MAX, PeerChannel};

/// How long a node may take to begin its answer: it does so before it looks for anything. Later on, pings notice when
/// it is gone.
const OPENING_WAIT: Duration = Duration::from_secs(3);

/// Bytes that a mark or a text takes beside what it holds.
const ENTRY_BYTES: usize = 48;

/// What a question has taken of the memory that all share for what it selects; given back when dropped.
#[derive(Debug)]
pub(in super::super) struct Purse {
    lender: Arc<dyn Lender>,
    bytes_max: usize,
    taken: AtomicUsize,
}

impl Purse {
    /// For one question, which may take `bytes_max` itself.
    pub(in super::super) fn new(lender: Arc<dyn Lender>, bytes_max: usize) -> Self {
        Self { lender, bytes_max, taken: AtomicUsize::new(0) }
    }

    /// Pays for series that this node has found itself. Their chunks are parts of memory maps, but for the newest.
    ///
    /// # Errors
    /// When that is too much.
    pub(in super::super) fn pay_for(&self, found: &[Vec<Series>]) -> Result<(), Error> {
        let newest = |series: &Series| series.chunks.last().map_or(0, |chunk| chunk.data.len());
        let of = |series: &Series| entry_bytes(series) + newest(series);
        self.pay(found.iter().flatten().map(of).sum(), "the selected series")
    }

    /// Bytes that it has paid for.
    pub(in super::super) fn taken_bytes(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), Failure> {
        self.pay(bytes, "what other nodes sent").map_err(Failure::Question)
    }

    fn pay(&self, bytes: usize, what: &str) -> Result<(), Error> {
        let limit = |text| Error::from(promql::Error::Limit(text));
        self.lender.borrow(bytes, what).map_err(limit)?;
        let taken = self.taken.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if taken > self.bytes_max {
            return Err(limit(format!(
                "the query needs more memory than its limit of {} bytes (query.max_memory): it holds {taken} bytes \
                 before it is evaluated, {bytes} of them in {what}; select fewer series or a shorter range",
                self.bytes_max
            )));
        }
        Ok(())
    }
}

impl Drop for Purse {
    fn drop(&mut self) {
        self.lender.give_back(*self.taken.get_mut());
    }
}

/// Asks a node for series.
pub(super) async fn select(
    reach: &Reach,
    store: StoreId,
    ask: &SelectAsk,
    purse: &Purse,
) -> Result<(Opening, Own), Failure> {
    let mut client = client(reach, store)?;
    let frames = client.select(ask.to_message()).await.map_err(failed)?.into_inner();
    series(frames, ask.selects.len(), purse).await
}

/// Asks a node for digests, which come as marks.
pub(super) async fn digests(
    reach: &Reach,
    store: StoreId,
    ask: &DigestsAsk,
    purse: &Purse,
) -> Result<(Opening, Own), Failure> {
    let mut client = client(reach, store)?;
    let frames = client.digests(ask.to_message()).await.map_err(failed)?.into_inner();
    series(frames, ask.select.selects.len(), purse).await
}

/// Asks a node for what aggregations come to; gives the bytes of its answer, too, by aggregation.
pub(super) async fn fold(
    reach: &Reach,
    store: StoreId,
    ask: &FoldAsk,
    purse: &Purse,
) -> Result<(Opening, Folded, Vec<usize>), Failure> {
    let steps = ask.range.grid().count;
    let mut client = client(reach, store)?;
    let mut frames = client.fold(ask.to_message()).await.map_err(failed)?.into_inner();
    let mut opening: Option<Opening> = None;
    let mut groups: Vec<(usize, FoldedGroup)> = Vec::new();
    loop {
        let frame: FoldFrame = next(&mut frames).await?;
        let part = FoldPart::from_message(frame, steps).map_err(|e| Failure::Store(e.to_string()))?;
        purse.take(part.groups.iter().map(|(_, group)| group_bytes(group) + ENTRY_BYTES).sum())?;
        if opening.is_none() {
            opening = Some(part.opening.ok_or_else(|| broken("an answer begins with its opening"))?);
        }
        groups.extend(part.groups);
        let is_last = opening.as_ref().is_some_and(|opening| opening.stale_catalog.is_some());
        if part.rest.is_some() || is_last {
            let mut folded = part.rest.unwrap_or_default();
            let mut bytes = vec![0; folded.nodes.len()];
            for (i, group) in groups {
                let node = folded.nodes.get_mut(i).ok_or_else(|| broken("there is no such aggregation"))?;
                bytes[i] += group_bytes(&group);
                node.groups.push(group);
            }
            return Ok((opening.expect("the first frame has it"), folded, bytes));
        }
    }
}

/// Reads series and marks.
async fn series(
    mut frames: Streaming<Sealed>,
    selections: usize,
    purse: &Purse,
) -> Result<(Opening, Own), Failure> {
    let mut own = Own { sketches: vec![BTreeMap::new(); selections], ..Own::of(selections) };
    let mut opening = None;
    loop {
        let frame: SelectFrame = next(&mut frames).await?;
        let part = SelectPart::from_message(frame, selections).map_err(|e| Failure::Store(e.to_string()))?;
        if opening.is_none() {
            opening = Some(part.opening.ok_or_else(|| broken("an answer begins with its opening"))?);
        }
        for (i, series) in part.series {
            purse.take(series_bytes(&series))?;
            append(&mut own.series[i], series)?;
        }
        for (i, marks) in part.marks {
            purse.take(marks.len() * ENTRY_BYTES)?;
            own.marks[i].extend(marks);
        }
        for (i, owners, sketch) in part.sketches {
            purse.take(sketch.bytes() + ENTRY_BYTES)?;
            own.sketches[i].insert(owners, sketch);
        }
        if part.is_last {
            return Ok((opening.expect("the first frame has it"), own));
        }
    }
}

/// Asks a node for anything else.
pub(super) async fn names(
    reach: &Reach,
    store: StoreId,
    ask: &NamesAsk,
    purse: &Purse,
) -> Result<(Opening, Vec<Found>), Failure> {
    let mut client = client(reach, store)?;
    let mut frames = client.names(ask.to_message()).await.map_err(failed)?.into_inner();
    let mut found = Vec::new();
    let mut opening = None;
    loop {
        let frame: NamesFrame = next(&mut frames).await?;
        purse.take(frame.encoded_len() + entries(&frame) * ENTRY_BYTES)?;
        let part = parsed(frame, &ask.question)?;
        if opening.is_none() {
            opening = Some(part.opening.ok_or_else(|| broken("an answer begins with its opening"))?);
        }
        found.push(part.found);
        if part.is_last {
            return Ok((opening.expect("the first frame has it"), found));
        }
    }
}

fn parsed(frame: NamesFrame, question: &Question) -> Result<NamesPart, Failure> {
    NamesPart::from_message(frame, question).map_err(|e| Failure::Store(e.to_string()))
}

fn entries(frame: &NamesFrame) -> usize {
    let lists = [frame.texts.len(), frame.series.len(), frame.metadata.len(), frame.counts.len()];
    lists.iter().sum::<usize>() + frame.exemplars.iter().map(|e| e.exemplars.len() + 1).sum::<usize>()
}

fn client(reach: &Reach, store: StoreId) -> Result<ReadClient<PeerChannel>, Failure> {
    let channel = reach.peers.to_store(store, Lane::Data).map_err(failed)?;
    let client = ReadClient::new(channel.timeout(OPENING_WAIT).stream());
    Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
}

async fn next<M: Message + Default>(frames: &mut Streaming<Sealed>) -> Result<M, Failure> {
    let sealed = frames.message().await.map_err(failed)?;
    let sealed = sealed.ok_or_else(|| broken("the answer was cut short"))?;
    open(sealed).map_err(|e| Failure::Store(e.to_string()))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(status: Status) -> Failure {
    Failure::Store(status.message().to_owned())
}

fn broken(why: &str) -> Failure {
    Failure::Store(why.to_owned())
}

/// Adds a series, or the next part of one, to those of its selection.
fn append(all: &mut Vec<Series>, series: Series) -> Result<(), Failure> {
    match all.last_mut() {
        Some(last) if last.labels == series.labels => {
            last.chunks.extend(series.chunks);
            last.deleted_ms.extend(series.deleted_ms);
        }
        Some(last) if last.labels > series.labels => return Err(broken("series came in the wrong order")),
        _ => all.push(series),
    }
    Ok(())
}

fn series_bytes(series: &Series) -> usize {
    entry_bytes(series) + series.chunks.iter().map(|chunk| chunk.data.len()).sum::<usize>()
}

/// Without what chunks hold.
fn entry_bytes(series: &Series) -> usize {
    size_of::<Series>() + series.labels.as_bytes().len() + series.chunks.capacity() * size_of::<Chunk>()
}
