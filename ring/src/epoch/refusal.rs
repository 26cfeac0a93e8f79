//! Why a document isn't taken, or a change isn't made, and what to do about it.

use super::{Epoch, FORMAT, MAX_DOCUMENT_BYTES, MAX_OPEN_PLACEMENTS, MAX_TEXT_BYTES, MemberState};
use crate::{ClusterId, MAX_MEMBERS, MAX_REPLICATION_FACTOR, StoreId};

/// Bytes that aren't a ring document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Longer than any document.
    #[error("ring document is {bytes} bytes long, the longest may have {MAX_DOCUMENT_BYTES}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Not JSON, or not of this shape.
    #[error("ring document can't be read: {0}")]
    Json(String),
    /// Written by another version.
    #[error(
        "ring document has format {found}, this version reads {FORMAT}: run the version that the rest of the cluster runs"
    )]
    Format {
        /// What it says.
        found: u32,
    },
    /// Of the right shape, but not possible.
    #[error("ring document contradicts itself: {0}; restore it from the bucket's history or a node's ledger")]
    Contradiction(String),
}

/// Two documents that can't be of one history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Of two clusters.
    #[error(
        "this is cluster {ours}, the ring document is of cluster {theirs}: check which bucket and which seeds belong together"
    )]
    OtherCluster {
        /// Ours.
        ours: ClusterId,
        /// Theirs.
        theirs: ClusterId,
    },
    /// Two documents with one epoch.
    #[error(
        "two different ring documents have epoch {epoch}: the bucket was restored or doesn't honour conditional writes; stop changes and put the newest document of any ledger back"
    )]
    TwoHistories {
        /// The epoch of both.
        epoch: Epoch,
    },
}

/// Why the ring isn't changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The ring is already as asked.
    #[error("the ring is so already")]
    Nothing,
    /// Another transition is under way.
    #[error(
        "another change of the ring is under way since epoch {since}: wait until it is final, or take it back with \
         `carillon ring revert`"
    )]
    InTransition {
        /// The epoch that opened it.
        since: Epoch,
    },
    /// No transition is under way.
    #[error("no change of the ring is under way")]
    NoTransition,
    /// The transition can't be swapped back.
    #[error(
        "the loss of store {store} was accepted, so the change can't be taken back: it ends when all owners that are \
         left agree; those that are gone for good too are given up by `carillon node lost`"
    )]
    LossHolds {
        /// Whose loss was accepted.
        store: StoreId,
    },
    /// As many placements are open as may be.
    #[error(
        "{open} placements are open, and at most {MAX_OPEN_PLACEMENTS} may be, the last of them for losses: wait until \
         nodes have uploaded what was written under the oldest"
    )]
    TooManyPlacements {
        /// How many are.
        open: usize,
    },
    /// The store isn't known.
    #[error("store {store} is not a member: `carillon ring` lists them")]
    NotMember {
        /// Who was meant.
        store: StoreId,
    },
    /// The store is known, but in another state.
    #[error("store {store} is {}: {}", state_name(*.state), advice(*.state))]
    WrongState {
        /// Who was meant.
        store: StoreId,
        /// What it is.
        state: MemberState,
    },
    /// A store is named twice in one change.
    #[error("store {store} is named twice: every store may come or go once in a change")]
    Twice {
        /// Which.
        store: StoreId,
    },
    /// Where a member stands decides who keeps what beside it.
    #[error("store {store} stands in the ring with others: drain it before it goes to another zone")]
    ZoneHolds {
        /// Whose zone was to change.
        store: StoreId,
    },
    /// Fewer members would be left than each key has owners.
    #[error(
        "{left} members would be left for {rf} replicas: add a node first, or lower the replication factor; nodes that \
         are gone for good are given up together with their copies by `carillon node lost`"
    )]
    TooFewLeft {
        /// Members that would be left.
        left: usize,
        /// Owners of each key.
        rf: u32,
    },
    /// Nobody would be left.
    #[error(
        "no member would be left: a cluster whose stores are all lost is founded anew, with an empty bucket"
    )]
    NobodyLeft,
    /// Too many members.
    #[error("a ring has at most {MAX_MEMBERS} members: make nodes larger instead of more")]
    TooManyMembers,
    /// A replication factor out of bounds.
    #[error("replication factor {wanted} is out of bounds: 1 to {MAX_REPLICATION_FACTOR} are possible")]
    ReplicationFactor {
        /// What was asked for.
        wanted: u32,
    },
    /// Lowering without a yes.
    #[error("fewer replicas protect from fewer losses: lowering {from} to {to} must be confirmed")]
    Unconfirmed {
        /// Replicas now.
        from: u32,
        /// Replicas asked for.
        to: u32,
    },
    /// A name, zone or address that can't be.
    #[error("{what} of store {store} is empty or longer than {MAX_TEXT_BYTES} bytes")]
    Text {
        /// Whose.
        store: StoreId,
        /// Name, zone or address.
        what: &'static str,
    },
    /// The placement isn't open.
    #[error("placement {id} is not open")]
    NotOpen {
        /// Which.
        id: Epoch,
    },
    /// The placement takes writes.
    #[error("placement {id} takes writes: it can be closed when another has taken over")]
    TakesWrites {
        /// Which.
        id: Epoch,
    },
}

fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Active => "active",
        MemberState::Leaving => "leaving",
        MemberState::Left => "gone",
        MemberState::Lost => "given up as lost",
        MemberState::LossAccepted => "given up as lost, which an operator has accepted",
    }
}

fn advice(state: MemberState) -> &'static str {
    match state {
        MemberState::Active => "drain it, or replace it by a new store",
        MemberState::Leaving => "wait until it has left",
        MemberState::Left | MemberState::Lost | MemberState::LossAccepted => {
            "it can't come back as itself: start the node on an empty data folder, as a new store"
        }
    }
}
