//! One node's storage engine: synchronous, and ignorant of network and async runtime.
//!
//! A sample is appended, written to the WAL, lands in the head and is cut into a block. A question
//! comes in as a [`select::Select`] and leaves as [`select::Series`]: labels and chunks, decoded by the asker.
//!
//! | module | what it holds |
//! |---|---|
//! | [`model`] | labels, matchers, samples, histograms: what everybody talks about |
//! | [`block`] | a time range in files that never change, as Prometheus writes them |
//! | [`chunk`] | runs of samples in Prometheus's encodings |
//! | [`clock`] | when a wall clock may be believed |
//! | [`compact`] | several blocks into one |
//! | [`db`] | the engine's front: tenants, appending, selecting, maintenance |
//! | [`digest`] | whether two stores hold the same samples |
//! | [`disk`] | the seam to the file system, its OS implementation and its in-memory twin |
//! | [`emptying`] | a data folder without what a store put there |
//! | [`files`] | every file name in the data folder |
//! | [`head`] | what has been written and isn't in a block yet |
//! | [`index`] | from labels to series: postings and the planner that head and blocks share |
//! | [`select`] | matchers + range → series, and decoding series into columns |
//! | [`varint`] | numbers in as few bytes as they need |
//! | [`wal`] | the write-ahead log of all tenants |
//! | [`weight`] | what reading series would take |
//! | [`workers`] | the seam to whoever has threads |

pub mod block;
pub mod chunk;
pub mod clock;
pub mod compact;
pub mod db;
pub mod digest;
pub mod disk;
pub mod emptying;
pub mod error;
pub mod files;
pub mod head;
pub mod index;
pub mod model;
mod prefetch;
pub mod select;
pub mod varint;
pub mod wal;
pub mod weight;
pub mod workers;

pub use error::{Error, Result};
