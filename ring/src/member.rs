//! What a member says of itself, and what others make of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{ClusterId, Epoch, StoreId};

/// What a member tells everybody. Peers of neighbouring versions may leave fields out or add some.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// For people; needn't be unique.
    pub name: String,
    /// Where it stands.
    pub zone: String,
    /// `host:port` for peers.
    pub peer_address: String,
    /// `host:port` for clients.
    pub http_address: String,
    /// The newest ring document that it has adopted; 0 before the first.
    pub ring_epoch: Epoch,
    /// Whether it takes writes and answers queries.
    pub ready: bool,
    /// Share of its resources that is free, in percent.
    pub headroom_percent: u8,
    /// Of its program.
    pub version: String,
    /// Grows while the store takes samples, and never falls: lower than before, its disk was put back.
    pub watermark: u64,
}

/// What gossip knows of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which start of the store this is; the highest seen.
    pub incarnation: u64,
    /// What it said last.
    pub profile: Profile,
    /// Whether it has been heard of lately, directly or through others.
    pub alive: bool,
    /// Since when it is alive, or away. A time of absence that we can't vouch for, because we were paused or cut off
    /// ourselves, doesn't count.
    pub since: Instant,
}

/// Everybody whom gossip knows, ourselves among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// By store. Those that have been away for long go.
    pub seen: BTreeMap<StoreId, Seen>,
    /// All others are away at once: it is rather we who are cut off.
    pub suspects_itself: bool,
    /// What shouldn't be, and is, of late.
    pub troubles: Vec<Trouble>,
}

/// Something for an operator to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Trouble {
    /// Somebody of another cluster talks to us.
    #[error("{address} belongs to cluster {cluster} and talks to us: one of its seeds is ours")]
    Foreign {
        /// Theirs.
        cluster: ClusterId,
        /// Who.
        address: String,
    },
    /// Two processes claim to be one store.
    #[error(
        "{first} and {second} both are store {store}: one data folder was copied; stop one of them and empty its folder"
    )]
    Twins {
        /// Who both are.
        store: StoreId,
        /// Where one is.
        first: String,
        /// Where the other is.
        second: String,
    },
    /// A store has come back older than it was.
    #[error(
        "store {store} at {address} says it starts for the {incarnation}th time, and has started {highest} times: its data folder was put back to an earlier state; empty it"
    )]
    RolledBack {
        /// Which.
        store: StoreId,
        /// Where it is.
        address: String,
        /// What it says.
        incarnation: u64,
        /// What was seen before.
        highest: u64,
    },
    /// Somebody's gossip can't be understood.
    #[error("{address} gossips in version {version}, we in {ours}: run neighbouring versions of carillon", ours = crate::gossip::VERSION)]
    Version {
        /// Who.
        address: String,
        /// Theirs.
        version: u8,
    },
}
