//! Leaving the ring: a drain, told of step by step.
//!
//! 1. The ring goes over to a placement without this node.
//! 2. Both heads of every tenant are cut; all blocks are uploaded and listed.
//! 3. Hints that it keeps for others are sent, as far as those answer; what they miss all the same, repair finds.
//! 4. The placements in which it stood are closed, for which enough owners vouch, itself among them. Until then it
//!    answers questions.
//! 5. Its ledger says that the folder is to be emptied: that happens when the process ends, or when it starts again,
//!    as a new store.
//!
//! A process that ends in between goes on with it when it starts again. With the bucket away it stays, and says why.

use std::sync::Arc;
use std::time::Duration;

use ring::epoch::{Change, MemberState, Refusal};
use ring::{Document, StoreId};
use tokio_util::sync::CancellationToken;

use super::{ChangeError, Cluster};
use crate::env::on_disk;
use crate::identity::Identity;

/// Time between looks at what a step waits for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Longest wait for hints to be taken by those who are there.
const HINTS_MAX: Duration = Duration::from_secs(60);

/// What the last step is called.
pub const LEFT: &str = "left";

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// What is being done, in words; empty where the node isn't leaving.
    pub progress: String,
    /// Whether it has left.
    pub done: bool,
    /// Whether the process is to end afterwards.
    pub(super) stop: bool,
}

/// The document by which a member leaves; `None` where it does already, or is none.
pub(super) fn leave(document: &Document, store: StoreId) -> Result<Option<Document>, Refusal> {
    match document.members.get(&store).map(|member| member.state) {
        Some(MemberState::Active) => document.change(&Change::leave(store)).map(Some),
        _ => Ok(None),
    }
}

/// Whether leaving begins all the same, since what is in the way goes by.
pub(super) fn may_wait(error: &ChangeError) -> bool {
    matches!(
        error,
        ChangeError::Busy
            | ChangeError::Bucket(_)
            | ChangeError::Refused(Refusal::InTransition { .. } | Refusal::TooManyPlacements { .. })
    )
}

impl Cluster {
    /// Begins to leave, unless that has begun; `stop` ends the process afterwards.
    ///
    /// # Errors
    /// Where the ring can't do without this node.
    pub(super) async fn leave(self: &Arc<Self>, stop: bool) -> Result<(), ChangeError> {
        {
            let mut leaving = self.leaving.lock();
            leaving.stop |= stop;
            if !leaving.progress.is_empty() {
                if leaving.done && leaving.stop {
                    self.ended.cancel();
                }
                return Ok(());
            }
        }
        match self.propose_leave().await {
            Err(refused) if !may_wait(&refused) => return Err(refused),
            _ => {}
        }
        self.progress("handing its part of the ring to the others");
        let cluster = self.clone();
        tokio::spawn(async move {
            let stopped = cluster.stopped.clone();
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = cluster.go_through_with_it() => {}
            }
        });
        Ok(())
    }

    /// Goes on with what an earlier process had begun.
    pub(super) async fn resume_leaving(self: &Arc<Self>) {
        if self.state() == Some(MemberState::Leaving)
            && let Err(error) = self.leave(false).await
        {
            tracing::error!(%error, "the drain that an earlier process began doesn't go on");
        }
    }

    /// How far leaving is.
    pub fn leaving(&self) -> Leaving {
        self.leaving.lock().clone()
    }

    /// Cancelled when this node has left and its process is to end.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    async fn propose_leave(self: &Arc<Self>) -> Result<(), ChangeError> {
        let me = self.me();
        self.change(|document| leave(document, me)).await.map(drop)
    }

    async fn go_through_with_it(self: &Arc<Self>) {
        let me = self.me();
        loop {
            let view = self.view();
            let document = view.document();
            if !document.is_joint() && !document.current().members.contains_key(&me) {
                break;
            }
            if !document.is_joint()
                && let Err(error) = self.propose_leave().await
            {
                self.progress(&format!("handing its part of the ring to the others: {error}"));
                tokio::time::sleep(RETRY).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.progress("cutting and uploading all blocks");
        while let Err(error) = self.empty().await {
            self.progress(&error);
            tokio::time::sleep(RETRY).await;
        }
        self.deliver_hints(|progress| self.progress(progress)).await;
        loop {
            let view = self.view();
            let document = view.document();
            if planted::is(planted::Bug::DrainedTooEarly) || !document.is_owner(me) && !document.is_joint() {
                break;
            }
            let open: Vec<_> = document.placements.iter().filter(|p| p.members.contains_key(&me)).collect();
            let ids: Vec<_> = open.iter().map(|placement| placement.id.to_string()).collect();
            self.progress(&format!(
                "waiting for the other owners of placement {} to upload theirs",
                ids.join(", ")
            ));
            tokio::time::sleep(LOOK_EVERY).await;
        }
        while let Err(error) = self.remember_to_empty().await {
            self.progress(&format!("writing to the ledger: {error}"));
            tokio::time::sleep(RETRY).await;
        }
        tracing::info!("this node has left the ring; its folder is emptied when the process ends");
        let stop = {
            let mut leaving = self.leaving.lock();
            leaving.progress = LEFT.to_owned();
            leaving.done = true;
            leaving.stop
        };
        if stop {
            // Whoever follows the progress shall see the end of it.
            tokio::time::sleep(RETRY).await;
            self.ended.cancel();
        }
    }

    /// Has hints sent to those who are there.
    pub(super) async fn deliver_hints(&self, tell: impl Fn(&str)) {
        let Some(hints) = self.hints.get() else { return };
        let deadline = tokio::time::Instant::now() + HINTS_MAX;
        while tokio::time::Instant::now() < deadline {
            let waiting = hints.pending().stores.into_iter().filter(|store| self.is_alive(*store)).count();
            if waiting == 0 {
                return;
            }
            tell(&format!("sending hints to {waiting} nodes"));
            hints.hurry();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(super) async fn remember_to_empty(&self) -> tsdb::Result<()> {
        let ledger = self.documents.ledger.clone();
        on_disk(&*self.documents.pool, move || Identity::leave(&*ledger)).await
    }

    fn progress(&self, what: &str) {
        let mut leaving = self.leaving.lock();
        if leaving.progress != what {
            tracing::info!(progress = what, "leaving the ring");
            leaving.progress = what.to_owned();
        }
    }
}
