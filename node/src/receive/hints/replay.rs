//! Sending hints to stores that are back.
//!
//! Segment by segment, in order, some frames at once; a segment is removed when all of it is taken. A frame that isn't
//! all the store's own (any more) goes to whoever owns its series now: everybody takes his part of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proto::peer::write::write_client::WriteClient;
use proto::peer::write::{Answer, Frame};
use ring::{StoreId, View};
use tokio_util::sync::CancellationToken;

use super::Hints;
use crate::grpc::frame::{Body, Verdict, says_any};
use crate::grpc::{Lane, MESSAGE_BYTES_MAX, Peers};
use crate::receive::replicate::{Membership, family_token};

/// Time between rounds.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// Frames on their way at once.
const FRAMES_AT_ONCE: usize = 64;
/// Bytes of them.
const BYTES_AT_ONCE: usize = 4 << 20;
/// Longest time for those to be taken.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends hints.
pub(crate) struct Replay {
    pub(crate) hints: Arc<Hints>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) membership: Arc<dyn Membership>,
}

impl Replay {
    /// Sends hints, in rounds, until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.round() => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.hints.hurry.notified() => {}
                () = tokio::time::sleep(ROUND_INTERVAL) => {}
            }
        }
    }

    async fn round(&self) {
        for store in self.hints.pending().stores {
            if let Err(why) = self.store(store).await {
                tracing::debug!(%store, why, "hints stay for now");
            }
        }
        if let Err(error) = self.hints.expire().await {
            tracing::error!(%error, "hints can't be removed");
        }
    }

    /// Sends all that a store has missed and that can be read.
    async fn store(&self, store: StoreId) -> Result<(), String> {
        let mut behind = None;
        loop {
            if self.is_member(store) && self.peers.is_unreachable(store, Lane::Data) {
                return Err("the store doesn't answer".to_owned());
            }
            let said = |error: tsdb::Error| error.to_string();
            let Some(segment) = self.hints.oldest(store, behind).await.map_err(said)? else { return Ok(()) };
            behind = Some(segment.number);
            let frames = match self.hints.read(store, &segment).await {
                Ok(frames) => frames,
                Err(error) => {
                    // It stays: the disk may give it another time. Those behind it don't wait for that.
                    self.hints.tell(&error);
                    continue;
                }
            };
            if planted::is(planted::Bug::HintsRemovedUnsent) {
                self.hints.remove(store, segment.number).await.map_err(said)?;
            }
            let mut rest = frames.as_slice();
            while !rest.is_empty() {
                let mut bytes = 0;
                let fits = |frame: &&Frame| {
                    bytes += frame.body.len();
                    bytes <= BYTES_AT_ONCE
                };
                let count = rest.iter().take(FRAMES_AT_ONCE).take_while(fits).count().max(1);
                self.send(store, &rest[..count]).await?;
                self.hints.counters.replayed.fetch_add(count as u64, Ordering::Relaxed);
                rest = &rest[count..];
            }
            if let Err(error) = self.hints.remove(store, segment.number).await {
                self.hints.tell(&error);
            }
        }
    }

    fn is_member(&self, store: StoreId) -> bool {
        let view = self.membership.view();
        view.read_sets().iter().any(|table| view.index(store).is_some_and(|at| table.members().contains(&at)))
    }

    async fn send(&self, store: StoreId, frames: &[Frame]) -> Result<(), String> {
        let mut elsewhere: Vec<&Frame> = frames.iter().collect();
        if self.is_member(store) {
            let answers = self.push(store, frames).await?;
            elsewhere.clear();
            for (frame, answer) in frames.iter().zip(&answers) {
                if self.is_not_owner(answer)? {
                    elsewhere.push(frame);
                }
            }
        }
        let view = self.membership.view();
        for frame in elsewhere {
            let most = if planted::is(planted::Bug::HintsToOneOwner) { 1 } else { usize::MAX };
            for owner in owners(&view, frame).into_iter().take(most) {
                let answers = self.push(owner, std::slice::from_ref(frame)).await?;
                // The others' parts are the others' to take.
                answers.iter().try_for_each(|answer| self.is_not_owner(answer).map(drop))?;
            }
        }
        Ok(())
    }

    /// Whether some series aren't the store's own; everything else is taken, or refused for good.
    fn is_not_owner(&self, answer: &Answer) -> Result<bool, String> {
        if !answer.document.is_empty() {
            self.membership.offer(answer.document.clone());
        }
        if !answer.refused.is_empty() {
            return Err(answer.refused.clone());
        }
        let says = |verdict| says_any(&answer.outcomes, &[verdict]).map_err(|e| e.to_string());
        if says(Verdict::NeedLabels)? {
            return Err("a series was collected while it was written".to_owned());
        }
        says(Verdict::NotOwner)
    }

    async fn push(&self, store: StoreId, frames: &[Frame]) -> Result<Vec<Answer>, String> {
        let said = |status: tonic::Status| status.message().to_owned();
        let epoch = self.membership.view().epoch();
        let numbered =
            |(id, frame): (u64, &Frame)| Frame { id, epoch, is_hint: true, forget: true, ..frame.clone() };
        let frames: Vec<_> = (1..).zip(frames).map(numbered).collect();
        let count = frames.len();
        let channel = self.peers.to_store(store, Lane::Data).map_err(said)?.timeout(REPLAY_TIMEOUT);
        let mut client = WriteClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut stream = client.push(tokio_stream::iter(frames)).await.map_err(said)?.into_inner();
        let mut answers = Vec::with_capacity(count);
        while answers.len() < count {
            let answer = stream.message().await.map_err(said)?;
            answers.push(answer.ok_or("it ended the stream")?);
        }
        Ok(answers)
    }
}

/// Who writes of these series and families go to now.
fn owners(view: &View, frame: &Frame) -> BTreeSet<StoreId> {
    let body = Body::parse(&frame.body).unwrap_or_default();
    let tokens =
        body.series().flatten().map(|(_, labels)| ring::hash::series_token(&frame.tenant, labels.iter()));
    let families = frame.families.iter().map(|family| family_token(&frame.tenant, &family.name));
    let mut owners = BTreeSet::new();
    for token in tokens.chain(families) {
        for set in view.write_sets(token).iter() {
            owners.extend(set.stores.iter().map(|store| view.store(*store)));
        }
    }
    owners
}
