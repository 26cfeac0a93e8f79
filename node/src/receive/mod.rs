//! Taking samples in: decode, look up, validate, append, wait until it is safe.
//!
//! | module | step |
//! |---|---|
//! | [`intake`] | the front of all writes: append, then wait |
//! | [`budget`] | bytes of requests in work are bounded |
//! | [`remote_write`], [`text`] | a body becomes a [`batch::Batch`], no label parsed |
//! | [`ingest`] | look-up, validation of what is new, append, and what was refused |
//! | [`committer`] | many requests wait for one `fdatasync` |
//! | [`replicate`] | the same, on all replicas of each series |
//! | [`hints`] | what replicas have missed |
//! | `labels`, `histogram`, `wire` | what decoders stand on |

pub mod batch;
pub mod budget;
pub mod committer;
pub mod hints;
mod histogram;
pub mod ingest;
pub mod intake;
pub mod labels;
pub mod remote_write;
pub mod replicate;
pub mod text;
pub mod wire;
