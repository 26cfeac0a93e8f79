//! Who owns what, and who is alive.
//!
//! 1. A series hashes to a point on a circle ([`hash`]).
//! 2. Every member of the ring has tokens on that circle ([`token`]); walking from a point along the tokens gives the
//!    stores that keep it, computed once a document ([`placement`]).
//! 3. Members, tokens and open placements stand in the ring document, which changes by two-step transitions
//!    ([`epoch`]); what they wait for is decided here too, from what stores report ([`rules`]).
//! 4. What only one may do is leased by compare-and-swap ([`lease`], [`swap`]).
//!
//! 5. Who is alive is found out by gossip ([`gossip`], [`member`]), which owns nothing.
//!
//! Nothing here does input or output, reads a wall clock or draws a random number: those are arguments. Gossip alone
//! runs by itself, on tokio's time, and what it stands on draws randomness from the system.

pub mod epoch;
pub mod gossip;
pub mod hash;
mod id;
pub mod lease;
pub mod member;
pub mod placement;
pub mod rules;
pub mod swap;
pub mod token;

pub use epoch::{Document, Epoch};
pub use id::{ClusterId, ParseIdError, StoreId};
pub use placement::{PlacementTable, ReplicaSet, StoreIndex, View};

/// Most owners that a key may have: more copies cost more than they save, and replica sets stay small enough to be
/// kept in place.
pub const MAX_REPLICATION_FACTOR: u32 = 9;

/// Most members that a ring may have, departing ones included. Store indices are 16 bits wide.
pub const MAX_MEMBERS: usize = 1024;
