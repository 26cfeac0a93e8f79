//! A store that the others gave up while it lived: paused for long, cut off, or written off by an operator in error.
//!
//! It never counts again, but what it has may be wanted still. It hands that over as a store does that leaves, all blocks to
//! the bucket and hints to those who are there, and then begins anew as an empty store, by itself: `super::arrive` does
//! the same for one that learns of it at its start.

use std::sync::atomic::Ordering;

use ring::epoch::MemberState;
use tokio_util::sync::CancellationToken;

use super::Cluster;

/// What it is told as.
const SUBJECT: &str = "given up";

impl Cluster {
    /// Cancelled when this store was given up and has handed over what it had: the node is to be stopped and started again,
    /// as a new store.
    pub fn begins_anew(&self) -> &CancellationToken {
        &self.begins_anew
    }

    /// Whether what this store has lies elsewhere: its folder is emptied when the node has stopped.
    pub(crate) fn is_to_be_emptied(&self) -> bool {
        self.leaving().done || self.begins_anew.is_cancelled()
    }

    /// Whether this store was a member since the start, and was given up for good: a joint document may be taken back.
    pub(super) fn is_given_up(&self) -> bool {
        self.was_member.load(Ordering::Relaxed)
            && !self.view().document().is_joint()
            && self.state().is_none_or(MemberState::is_lost)
    }

    /// Hands over what this store has, where it was given up; to be called again where something was in the way.
    pub(super) async fn hand_over(&self) {
        if !self.is_given_up() || self.begins_anew.is_cancelled() {
            return;
        }
        let told = "the others gave this node up while it was away: it hands over what it has, and begins anew as an empty \
                    one";
        self.note_problem(SUBJECT, Some(told.to_owned()));
        let handed_over = async {
            self.empty().await?;
            self.deliver_hints(|_| {}).await;
            self.remember_to_empty().await.map_err(|error| format!("writing to the ledger: {error}"))
        };
        match handed_over.await {
            Ok(()) => self.begins_anew.cancel(),
            Err(why) => self.note_problem(SUBJECT, Some(format!("{told} ({why})"))),
        }
    }
}
