//! Blocks: a time range of one tenant's samples in files that never change.
//!
//! ```text
//! 01JWS713P2E4MQW7T643GYGD69/     a ULID
//!   meta.json                     name, range, stats, sources (`meta`)
//!   index                         labels, postings, where chunks are (`crate::index`)
//!   chunks/000001 …               chunks (`chunk_files`)
//!   tombstones                    deleted ranges (`tombstones`)
//! ```
//!
//! The formats are Prometheus's to the byte. Everything is read where it lies, by memory map; checksums are verified
//! on the way, and whatever the bytes are, reading ends with samples or an error.

pub(crate) mod chunk_files;
pub(crate) mod file_writer;
mod meta;
mod reader;
pub(crate) mod spool;
mod symbol_set;
#[cfg(test)]
mod tests;
mod tombstones;
mod verify;
pub(crate) mod writer;

pub use chunk_files::CHUNK_FILE_BYTES_MAX;
pub use meta::{BlockMeta, BlockStats, Compaction, META_BYTES_MAX, Parent};
pub use reader::Block;
pub use tombstones::Tombstones;
pub use verify::Report;
pub use writer::BlockWriter;

/// Where a chunk is, as an index says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Timestamp of the first sample, in milliseconds.
    pub min_ms: i64,
    /// Timestamp of the last sample, in milliseconds: included.
    pub max_ms: i64,
    /// File and offset.
    pub reference: u64,
}
