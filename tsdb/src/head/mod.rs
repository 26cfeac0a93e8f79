//! The head: what has been written and isn't in a block yet.
//!
//! The head belongs to the node, not to a tenant: its shards, each behind a lock of its own, hold the series of all
//! tenants by hash, so that an idle tenant costs next to nothing. In a shard:
//!
//! 1. labels are runs of interned symbols (`symbols`), series are small structs (`series`) in numbered slots
//!    (`slots`);
//! 2. a sample in order goes into the series' open chunk (`open`), which ends where [`rule`] says and then moves to
//!    the shard's head-chunk files (`chunks`);
//! 3. any other sample waits aside (`late`);
//! 4. a cut copies a range to a block and drops exactly what it copied (`dropping`, `db::cut`);
//! 5. a checkpoint writes down what is only in memory, so that a restart replays little of the WAL (`checkpoint`);
//! 6. a file says by how many shards all of this is laid out (`layout`).

pub(crate) mod append;
pub(crate) mod checkpoint;
pub(crate) mod chunks;
pub(crate) mod coding;
pub(crate) mod dropping;
mod late;
pub(crate) mod layout;
pub(crate) mod open;
mod reference;
mod rings;
pub mod rule;
pub(crate) mod series;
pub(crate) mod shard;
mod slots;
mod symbols;

pub use reference::SeriesRef;
